//! OffsetFetch (9), v1-v9. v2 fetches every offset of a group and has an error of the whole (KIP-88), v5 brings the epoch
//! of the last record (KIP-320), v6 is flexible (KIP-482), v7 can ask for stable offsets alone (KIP-447), v8 asks about
//! many groups (KIP-709), v9 is for KIP-848. v10 (topic ids) is not in the schemas that this broker is built from.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use skerry_coordinator::{FetchPartition, FetchRequest};
use skerry_types::PartitionIndex;

use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::group_wire::{self, ASKED_AT_ONCE, allows_group, allows_topic, owned};
use crate::kafka::wire;

api!(OffsetFetch, 1..=9, OffsetFetchRequest, handle);

/// Partitions of topics, as requests and the coordinator name them.
type Partitions = Vec<(Arc<str>, Vec<PartitionIndex>)>;

/// What is said of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    id: Arc<str>,
    error: Option<ResponseError>,
    topics: Vec<Topic>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Topic {
    name: Arc<str>,
    partitions: Vec<Partition>,
}

/// One offset, as both shapes of the answer show it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Partition {
    index: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: Arc<str>,
    error: Option<ResponseError>,
}

async fn handle(context: Context, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let groups = stream::iter(read(version, &request)).map(|call| one(&context, call));
    write(version, groups.buffered(ASKED_AT_ONCE).collect().await)
}

/// One call for each group.
fn read(version: i16, request: &OffsetFetchRequest) -> Vec<FetchRequest> {
    fn named<'a>(topics: impl Iterator<Item = (&'a TopicName, &'a Vec<i32>)>) -> Partitions {
        let indexes = |partitions: &[i32]| partitions.iter().map(|index| PartitionIndex(*index)).collect();
        topics
            .map(|(name, partitions)| (owned(name), indexes(partitions)))
            .collect()
    }
    let require_stable = request.require_stable;
    if version < 8 {
        let topics = request.topics.as_ref();
        let topics =
            topics.map(|topics| named(topics.iter().map(|topic| (&topic.name, &topic.partition_indexes))));
        return vec![FetchRequest {
            group_id: owned(&request.group_id),
            require_stable,
            topics,
        }];
    }
    let group = |group: &kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup| {
        let topics = group.topics.as_ref();
        let topics =
            topics.map(|topics| named(topics.iter().map(|topic| (&topic.name, &topic.partition_indexes))));
        FetchRequest {
            group_id: owned(&group.group_id),
            require_stable,
            topics,
        }
    };
    request.groups.iter().map(group).collect()
}

async fn one(context: &Context, mut call: FetchRequest) -> Group {
    let id = call.group_id.clone();
    let wanted = call.topics.clone();
    let failed = |error| Group::failed(id.clone(), wanted.as_ref(), error);
    if !allows_group(context, Operation::Describe, &id) {
        return failed(ResponseError::GroupAuthorizationFailed);
    }
    let allowed = |topic: &str| allows_topic(context, Operation::Describe, topic);
    let refused = call
        .topics
        .as_mut()
        .map(|topics| split(topics, allowed))
        .unwrap_or_default();
    let answer = match group_wire::ask(context, &id, call).await {
        Ok(answer) => answer,
        Err(error) => return failed(group_wire::code(error)),
    };
    if let Some(error) = answer.error {
        return failed(group_wire::code(error));
    }
    let fetched = answer
        .topics
        .into_iter()
        .filter(|topic| wanted.is_some() || allowed(&topic.name));
    let mut topics: Vec<Topic> = fetched
        .map(|topic| Topic {
            name: topic.name,
            partitions: topic.partitions.into_iter().map(Partition::from).collect(),
        })
        .collect();
    topics.extend(nothing(&refused, ResponseError::TopicAuthorizationFailed));
    Group {
        id,
        error: None,
        topics,
    }
}

/// Takes out the topics that are not allowed.
fn split(topics: &mut Partitions, allowed: impl Fn(&str) -> bool) -> Partitions {
    let (kept, refused) = topics.drain(..).partition(|(name, _)| allowed(name));
    *topics = kept;
    refused
}

/// No offset, and why, for each partition.
fn nothing(partitions: &Partitions, error: ResponseError) -> impl Iterator<Item = Topic> {
    partitions.iter().map(move |(name, partitions)| Topic {
        name: name.clone(),
        partitions: partitions
            .iter()
            .map(|index| Partition::nothing(index.get(), error))
            .collect(),
    })
}

impl Group {
    /// An error of the whole group. The topics matter to version 1, which can say it nowhere else.
    fn failed(id: Arc<str>, wanted: Option<&Partitions>, error: ResponseError) -> Self {
        let topics = wanted
            .map(|wanted| nothing(wanted, error).collect())
            .unwrap_or_default();
        Self {
            id,
            error: Some(error),
            topics,
        }
    }

    /// The topics, where the error of the whole does not speak for them.
    fn topics(self, version: i16) -> impl Iterator<Item = Topic> {
        let speaks = self.error.is_some() && version >= 2;
        self.topics.into_iter().filter(move |_| !speaks)
    }
}

impl Partition {
    fn nothing(index: i32, error: ResponseError) -> Self {
        Self {
            index,
            offset: -1,
            leader_epoch: -1,
            metadata: "".into(),
            error: Some(error),
        }
    }
}

impl From<FetchPartition> for Partition {
    fn from(fetched: FetchPartition) -> Self {
        Self {
            index: fetched.partition.get(),
            offset: fetched.offset.get(),
            leader_epoch: fetched.leader_epoch.get(),
            metadata: fetched.metadata,
            error: fetched.error.map(group_wire::code),
        }
    }
}

fn write(version: i16, groups: Vec<Group>) -> OffsetFetchResponse {
    let mut response = OffsetFetchResponse::default();
    if version >= 8 {
        response.groups = groups
            .into_iter()
            .map(|group| write_group(version, group))
            .collect();
    } else {
        for group in groups {
            if version >= 2 {
                response.error_code = group_wire::number(group.error);
            }
            response.topics = group
                .topics(version)
                .map(|topic| write_topic(version, topic))
                .collect();
        }
    }
    response
}

fn write_group(version: i16, group: Group) -> OffsetFetchResponseGroup {
    let partition = |partition: Partition| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(partition.index)
            .with_committed_offset(partition.offset)
            .with_committed_leader_epoch(partition.leader_epoch)
            .with_metadata(Some(wire::text(&partition.metadata)))
            .with_error_code(group_wire::number(partition.error))
    };
    let (id, error) = (group_wire::group_id(&group.id), group_wire::number(group.error));
    let topics = group.topics(version).map(|topic| {
        OffsetFetchResponseTopics::default()
            .with_name(wire::topic_name(&topic.name))
            .with_partitions(topic.partitions.into_iter().map(partition).collect())
    });
    OffsetFetchResponseGroup::default()
        .with_group_id(id)
        .with_error_code(error)
        .with_topics(topics.collect())
}

fn write_topic(version: i16, topic: Topic) -> OffsetFetchResponseTopic {
    let partitions = topic.partitions.into_iter().map(|partition| {
        let mut answer = OffsetFetchResponsePartition::default()
            .with_partition_index(partition.index)
            .with_committed_offset(partition.offset)
            .with_metadata(Some(wire::text(&partition.metadata)))
            .with_error_code(group_wire::number(partition.error));
        if version >= 5 {
            answer.committed_leader_epoch = partition.leader_epoch;
        }
        answer
    });
    OffsetFetchResponseTopic::default()
        .with_name(wire::topic_name(&topic.name))
        .with_partitions(partitions.collect())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kafka_protocol::messages::offset_fetch_request::{
        OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    };

    use super::*;
    use crate::kafka::group_wire::testing::round_trip;

    fn asked(version: i16, topics: Option<&[(&str, &[i32])]>) -> Vec<FetchRequest> {
        let mut request = OffsetFetchRequest::default();
        if version < 8 {
            request.group_id = group_wire::group_id("g");
            let topic = |(name, partitions): &(&str, &[i32])| {
                OffsetFetchRequestTopic::default()
                    .with_name(wire::topic_name(name))
                    .with_partition_indexes(partitions.to_vec())
            };
            request.topics = topics.map(|topics| topics.iter().map(topic).collect());
        } else {
            let topic = |(name, partitions): &(&str, &[i32])| {
                OffsetFetchRequestTopics::default()
                    .with_name(wire::topic_name(name))
                    .with_partition_indexes(partitions.to_vec())
            };
            let group = |name: &str| {
                OffsetFetchRequestGroup::default()
                    .with_group_id(group_wire::group_id(name))
                    .with_topics(topics.map(|topics| topics.iter().map(topic).collect()))
            };
            request.groups = vec![group("g"), group("h")];
        }
        if version >= 7 {
            request.require_stable = true;
        }
        read(version, &round_trip(version, &request))
    }

    #[test]
    fn a_group_is_asked_for_some_partitions_or_for_all() {
        let partitions = |indexes: &[i32]| {
            indexes
                .iter()
                .map(|index| PartitionIndex(*index))
                .collect::<Vec<_>>()
        };
        for version in 1..=9 {
            let calls = asked(version, Some(&[("a", &[0, 2]), ("b", &[])]));
            let groups: &[&str] = if version < 8 { &["g"] } else { &["g", "h"] };
            assert_eq!(
                calls.iter().map(|call| &*call.group_id).collect::<Vec<_>>(),
                groups
            );
            let topics = vec![("a".into(), partitions(&[0, 2])), ("b".into(), vec![])];
            assert_eq!(calls[0].topics, Some(topics));
            assert_eq!(calls[0].require_stable, version >= 7);
            assert_eq!(
                asked(version, Some(&[]))[0].topics,
                Some(vec![]),
                "no topic is not every topic"
            );
            if version >= 2 {
                assert_eq!(asked(version, None)[0].topics, None);
            }
        }
    }

    fn shown(version: i16, groups: Vec<Group>) -> String {
        let seen: OffsetFetchResponse = round_trip(version, &write(version, groups));
        let mut all = format!("v{version}: error {}\n", seen.error_code);
        for topic in &seen.topics {
            for p in &topic.partitions {
                let at = format!("{}-{}", *topic.name, p.partition_index);
                let (offset, epoch, metadata) = (
                    p.committed_offset,
                    p.committed_leader_epoch,
                    p.metadata.as_deref(),
                );
                all += &format!(
                    "  {at} offset {offset} epoch {epoch} metadata {metadata:?} error {}\n",
                    p.error_code
                );
            }
        }
        for group in &seen.groups {
            all += &format!("  group {} error {}\n", *group.group_id, group.error_code);
            for topic in &group.topics {
                for p in &topic.partitions {
                    let at = format!("{}-{}", *topic.name, p.partition_index);
                    let (offset, epoch, metadata) = (
                        p.committed_offset,
                        p.committed_leader_epoch,
                        p.metadata.as_deref(),
                    );
                    all += &format!(
                        "    {at} offset {offset} epoch {epoch} metadata {metadata:?} error {}\n",
                        p.error_code
                    );
                }
            }
        }
        all
    }

    #[test]
    fn offsets_are_shown_as_each_version_can() {
        let found = Partition {
            index: 0,
            offset: 42,
            leader_epoch: 5,
            metadata: "kept".into(),
            error: None,
        };
        let none = Partition {
            index: 1,
            offset: -1,
            leader_epoch: -1,
            metadata: "".into(),
            error: None,
        };
        let unstable = Partition::nothing(2, ResponseError::UnstableOffsetCommit);
        let topics = vec![Topic {
            name: "a".into(),
            partitions: vec![found, none, unstable],
        }];
        let group = Group {
            id: "g".into(),
            error: None,
            topics,
        };
        let all: String = (1..=9)
            .map(|version| shown(version, vec![group.clone()]))
            .collect();
        expect![[r#"
            v1: error 0
              a-0 offset 42 epoch -1 metadata Some("kept") error 0
              a-1 offset -1 epoch -1 metadata Some("") error 0
              a-2 offset -1 epoch -1 metadata Some("") error 88
            v2: error 0
              a-0 offset 42 epoch -1 metadata Some("kept") error 0
              a-1 offset -1 epoch -1 metadata Some("") error 0
              a-2 offset -1 epoch -1 metadata Some("") error 88
            v3: error 0
              a-0 offset 42 epoch -1 metadata Some("kept") error 0
              a-1 offset -1 epoch -1 metadata Some("") error 0
              a-2 offset -1 epoch -1 metadata Some("") error 88
            v4: error 0
              a-0 offset 42 epoch -1 metadata Some("kept") error 0
              a-1 offset -1 epoch -1 metadata Some("") error 0
              a-2 offset -1 epoch -1 metadata Some("") error 88
            v5: error 0
              a-0 offset 42 epoch 5 metadata Some("kept") error 0
              a-1 offset -1 epoch -1 metadata Some("") error 0
              a-2 offset -1 epoch -1 metadata Some("") error 88
            v6: error 0
              a-0 offset 42 epoch 5 metadata Some("kept") error 0
              a-1 offset -1 epoch -1 metadata Some("") error 0
              a-2 offset -1 epoch -1 metadata Some("") error 88
            v7: error 0
              a-0 offset 42 epoch 5 metadata Some("kept") error 0
              a-1 offset -1 epoch -1 metadata Some("") error 0
              a-2 offset -1 epoch -1 metadata Some("") error 88
            v8: error 0
              group g error 0
                a-0 offset 42 epoch 5 metadata Some("kept") error 0
                a-1 offset -1 epoch -1 metadata Some("") error 0
                a-2 offset -1 epoch -1 metadata Some("") error 88
            v9: error 0
              group g error 0
                a-0 offset 42 epoch 5 metadata Some("kept") error 0
                a-1 offset -1 epoch -1 metadata Some("") error 0
                a-2 offset -1 epoch -1 metadata Some("") error 88
        "#]]
        .assert_eq(&all);
    }

    #[test]
    fn an_error_of_the_group_stands_where_each_version_looks_for_it() {
        let wanted = vec![("a".into(), vec![PartitionIndex(0), PartitionIndex(1)])];
        let failed = Group::failed("g".into(), Some(&wanted), ResponseError::NotCoordinator);
        let all: String = (1..=9)
            .map(|version| shown(version, vec![failed.clone()]))
            .collect();
        expect![[r#"
            v1: error 0
              a-0 offset -1 epoch -1 metadata Some("") error 16
              a-1 offset -1 epoch -1 metadata Some("") error 16
            v2: error 16
            v3: error 16
            v4: error 16
            v5: error 16
            v6: error 16
            v7: error 16
            v8: error 0
              group g error 16
            v9: error 0
              group g error 16
        "#]]
        .assert_eq(&all);
    }

    #[test]
    fn topics_that_may_not_be_described_are_not_asked_for() {
        let mut topics: Partitions = ["a", "secret", "b"]
            .map(|name| (name.into(), vec![PartitionIndex(0)]))
            .to_vec();
        let refused = split(&mut topics, |name| name != "secret");
        let names = |topics: &Partitions| {
            topics
                .iter()
                .map(|(name, _)| name.to_string())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            (names(&topics), names(&refused)),
            (vec!["a".to_owned(), "b".to_owned()], vec!["secret".to_owned()])
        );
        let refused: Vec<Topic> = nothing(&refused, ResponseError::TopicAuthorizationFailed).collect();
        assert_eq!(refused[0].partitions[0].error.map(|error| error.code()), Some(29));
    }
}
