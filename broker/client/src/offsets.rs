//! A group's committed offsets, and who coordinates the group.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::{
    FindCoordinatorRequest, FindCoordinatorResponse, OffsetCommitRequest, OffsetCommitResponse,
    OffsetDeleteRequest, OffsetDeleteResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use kafka_protocol::protocol::{Request, StrBytes};
use skerry_types::{LeaderEpoch, Offset, PartitionIndex, TopicPartition};

use crate::client::{Client, address, text, topic_name};
use crate::connection::Connection;
use crate::error::{ClientError, check};

/// From this version on topics are named by their ids, which a group may not know of deleted topics.
const NAMED_UNTIL: i16 = 9;

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The next offset to read.
    pub offset: Offset,
    /// Who led when the record before it was read.
    pub leader_epoch: LeaderEpoch,
    /// Whatever the committer wrote beside it.
    pub metadata: String,
}

impl Committed {
    /// An offset without anything beside it.
    #[must_use]
    pub fn at(offset: Offset) -> Self {
        Self {
            offset,
            leader_epoch: LeaderEpoch::UNKNOWN,
            metadata: String::new(),
        }
    }
}

/// Who commits: a member, or somebody outside the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The member's id; empty outside the group.
    pub member_id: String,
    /// The group's generation; -1 outside the group.
    pub generation: i32,
    /// The member's own name for itself, where it is a static member.
    pub instance_id: Option<String>,
}

impl Membership {
    /// Somebody outside the group.
    #[must_use]
    pub fn outside() -> Self {
        Self {
            member_id: String::new(),
            generation: -1,
            instance_id: None,
        }
    }
}

pub(crate) fn version_of<R: Request>(
    connection: &Connection,
    api: &'static str,
    max: i16,
) -> Result<i16, ClientError> {
    let version = connection.version::<R>();
    let version = version.map_err(|source| ClientError::Call {
        api,
        addr: connection.addr().to_owned(),
        source,
    })?;
    Ok(version.min(max))
}

impl Client {
    /// A request in a version that is not the newest.
    pub(crate) async fn call_at<R: Request>(
        &self,
        connection: &Connection,
        api: &'static str,
        request: &R,
        version: i16,
    ) -> Result<R::Response, ClientError> {
        let called = connection
            .call_version(request, version, self.options().request_timeout)
            .await;
        called.map_err(|source| ClientError::Call {
            api,
            addr: connection.addr().to_owned(),
            source,
        })
    }

    /// A connection to the coordinator of `group`.
    ///
    /// # Errors
    /// [`ClientError`]; `COORDINATOR_NOT_AVAILABLE` while there is none.
    pub async fn coordinator(&self, group: &str) -> Result<Connection, ClientError> {
        let connection = self.any_broker().await?;
        let version = version_of::<FindCoordinatorRequest>(&connection, "FindCoordinator", i16::MAX)?;
        let request = match version {
            4.. => FindCoordinatorRequest::default().with_coordinator_keys(vec![text(group)]),
            _ => FindCoordinatorRequest::default().with_key(text(group)),
        };
        let response: FindCoordinatorResponse = self
            .call_at(&connection, "FindCoordinator", &request, version)
            .await?;
        let what = || format!("the coordinator of group {group}");
        let (code, message, host, port) = match version {
            4.. => {
                let found = response.coordinators.into_iter().next();
                let found = found.ok_or_else(|| ClientError::Unanswered { what: what() })?;
                (found.error_code, found.error_message, found.host, found.port)
            }
            _ => (
                response.error_code,
                response.error_message,
                response.host,
                response.port,
            ),
        };
        check(code, message.as_deref(), what)?;
        self.connect(&address(&host, port)).await
    }

    /// The committed offsets of `group`: of `partitions`, or all of them. What has none is not in the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn committed(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, Committed>, ClientError> {
        let connection = self.coordinator(group).await?;
        let version = version_of::<OffsetFetchRequest>(&connection, "OffsetFetch", NAMED_UNTIL)?;
        let by_topic = partitions.map(by_topic);
        let request = offset_fetch(group, by_topic, version);
        let response = self
            .call_at(&connection, "OffsetFetch", &request, version)
            .await?;
        read_offset_fetch(response, version, group)
    }

    /// Commits `offsets`. The answer has Kafka's error for each partition, 0 for none.
    ///
    /// # Errors
    /// [`ClientError`] where the request as a whole failed.
    pub async fn commit(
        &self,
        group: &str,
        member: &Membership,
        offsets: &BTreeMap<TopicPartition, Committed>,
    ) -> Result<BTreeMap<TopicPartition, i16>, ClientError> {
        let connection = self.coordinator(group).await?;
        self.commit_to(&connection, group, member, offsets).await
    }

    pub(crate) async fn commit_to(
        &self,
        connection: &Connection,
        group: &str,
        member: &Membership,
        offsets: &BTreeMap<TopicPartition, Committed>,
    ) -> Result<BTreeMap<TopicPartition, i16>, ClientError> {
        let version = version_of::<OffsetCommitRequest>(connection, "OffsetCommit", NAMED_UNTIL)?;
        let mut topics: BTreeMap<Arc<str>, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for (partition, committed) in offsets {
            let mut asked = OffsetCommitRequestPartition::default()
                .with_partition_index(partition.partition.get())
                .with_committed_offset(committed.offset.get())
                .with_committed_metadata(Some(text(&committed.metadata)));
            if version >= 6 {
                asked.committed_leader_epoch = committed.leader_epoch.get();
            }
            topics.entry(partition.topic.clone()).or_default().push(asked);
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            OffsetCommitRequestTopic::default()
                .with_name(topic_name(&name))
                .with_partitions(partitions)
        });
        let mut request = OffsetCommitRequest::default()
            .with_group_id(text(group).into())
            .with_generation_id_or_member_epoch(member.generation)
            .with_member_id(text(&member.member_id))
            .with_topics(topics.collect());
        if version >= 7 {
            request.group_instance_id = member.instance_id.as_deref().map(text);
        }
        let response: OffsetCommitResponse = self
            .call_at(connection, "OffsetCommit", &request, version)
            .await?;
        let results = response.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|answer| {
                (
                    TopicPartition::new(topic.name.0.as_str(), answer.partition_index),
                    answer.error_code,
                )
            })
        });
        Ok(results.collect())
    }

    /// Forgets the committed offsets of `partitions`. The answer has Kafka's error for each partition, 0 for none.
    ///
    /// # Errors
    /// [`ClientError`] where the request as a whole failed.
    pub async fn delete_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, i16>, ClientError> {
        let connection = self.coordinator(group).await?;
        let topics = by_topic(partitions).into_iter().map(|(name, indexes)| {
            let partitions = indexes
                .into_iter()
                .map(|index| OffsetDeleteRequestPartition::default().with_partition_index(index));
            OffsetDeleteRequestTopic::default()
                .with_name(topic_name(&name))
                .with_partitions(partitions.collect())
        });
        let request = OffsetDeleteRequest::default()
            .with_group_id(text(group).into())
            .with_topics(topics.collect());
        let response: OffsetDeleteResponse = self.call(&connection, "OffsetDelete", &request).await?;
        check(response.error_code, None, || {
            format!("the offsets of group {group}")
        })?;
        let results = response.topics.iter().flat_map(|topic| {
            topic.partitions.iter().map(|answer| {
                (
                    TopicPartition::new(topic.name.0.as_str(), answer.partition_index),
                    answer.error_code,
                )
            })
        });
        Ok(results.collect())
    }
}

fn by_topic(partitions: &[TopicPartition]) -> BTreeMap<Arc<str>, Vec<i32>> {
    let mut topics: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics
            .entry(partition.topic.clone())
            .or_default()
            .push(partition.partition.get());
    }
    topics
}

fn offset_fetch(
    group: &str,
    topics: Option<BTreeMap<Arc<str>, Vec<i32>>>,
    version: i16,
) -> OffsetFetchRequest {
    if version < 8 {
        let topics = topics.map(|topics| {
            let topic = |(name, indexes): (Arc<str>, _)| {
                OffsetFetchRequestTopic::default()
                    .with_name(topic_name(&name))
                    .with_partition_indexes(indexes)
            };
            topics.into_iter().map(topic).collect()
        });
        return OffsetFetchRequest::default()
            .with_group_id(text(group).into())
            .with_topics(topics);
    }
    let topics = topics.map(|topics| {
        let topic = |(name, indexes): (Arc<str>, _)| {
            OffsetFetchRequestTopics::default()
                .with_name(topic_name(&name))
                .with_partition_indexes(indexes)
        };
        topics.into_iter().map(topic).collect()
    });
    let group = OffsetFetchRequestGroup::default()
        .with_group_id(text(group).into())
        .with_topics(topics);
    OffsetFetchRequest::default().with_groups(vec![group])
}

fn read_offset_fetch(
    response: OffsetFetchResponse,
    version: i16,
    group: &str,
) -> Result<BTreeMap<TopicPartition, Committed>, ClientError> {
    let what = || format!("the offsets of group {group}");
    let mut committed = BTreeMap::new();
    let mut take =
        |topic: &str, index: i32, offset: i64, epoch: i32, metadata: Option<StrBytes>, code: i16| {
            let partition = TopicPartition {
                topic: topic.into(),
                partition: PartitionIndex(index),
            };
            check(code, None, || {
                format!("the offset of group {group} in {partition}")
            })?;
            if offset >= 0 {
                let metadata = metadata.map(|text| text.to_string()).unwrap_or_default();
                let epoch = LeaderEpoch(epoch);
                committed.insert(
                    partition,
                    Committed {
                        offset: Offset(offset),
                        leader_epoch: epoch,
                        metadata,
                    },
                );
            }
            Ok::<_, ClientError>(())
        };
    if version < 8 {
        check(response.error_code, None, what)?;
        for topic in response.topics {
            for p in topic.partitions {
                let name = topic.name.0.as_str();
                take(
                    name,
                    p.partition_index,
                    p.committed_offset,
                    p.committed_leader_epoch,
                    p.metadata,
                    p.error_code,
                )?;
            }
        }
        return Ok(committed);
    }
    for group in response.groups {
        check(group.error_code, None, what)?;
        for topic in group.topics {
            for p in topic.partitions {
                let name = topic.name.0.as_str();
                take(
                    name,
                    p.partition_index,
                    p.committed_offset,
                    p.committed_leader_epoch,
                    p.metadata,
                    p.error_code,
                )?;
            }
        }
    }
    Ok(committed)
}
