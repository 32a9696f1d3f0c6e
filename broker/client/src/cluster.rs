//! Administration of the cluster itself: its quorum, where replicas are, who leads.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::describe_quorum_response::ReplicaState;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::{
    self, AddRaftVoterRequest, AddRaftVoterResponse, AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeQuorumRequest, DescribeQuorumResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, ElectLeadersRequest, ElectLeadersResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, RemoveRaftVoterRequest,
    RemoveRaftVoterResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
};
use skerry_types::{BrokerId, TopicPartition, Uuid};

use crate::client::{Client, topic_name};
use crate::error::{ClientError, check};
use crate::offsets::version_of;

/// The name that Kafka gives the log of the metadata.
const CLUSTER_METADATA: &str = "__cluster_metadata";

/// The metadata quorum, as its leader tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumDescription {
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// The leader's term.
    pub term: i32,
    /// Where the committed entries end.
    pub high_watermark: i64,
    /// Who votes, by number.
    pub voters: Vec<QuorumMember>,
    /// Who only follows, by number.
    pub observers: Vec<QuorumMember>,
}

/// A member of the metadata quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumMember {
    /// Its number.
    pub id: BrokerId,
    /// Its data directory; zero where the cluster does not tell.
    pub directory: Uuid,
    /// Where its log ends; -1: nobody knows.
    pub log_end: i64,
    /// When the leader heard from it last, in milliseconds since 1970; -1: nobody knows.
    pub heard_at_ms: i64,
    /// Where the other members reach it.
    pub addr: Option<String>,
}

/// A partition whose replicas move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassignment {
    /// The partition.
    pub partition: TopicPartition,
    /// Who has it, those included that come and those that go.
    pub replicas: Vec<BrokerId>,
    /// Who comes.
    pub adding: Vec<BrokerId>,
    /// Who goes.
    pub removing: Vec<BrokerId>,
}

/// Which leader is to be elected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElectionKind {
    /// The first replica.
    Preferred,
    /// Where nobody in sync lives, any replica that does: what it lacks is lost.
    Unclean,
}

/// A broker's directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    /// Its path there.
    pub path: String,
    /// What its file system holds; `None` where the broker does not tell.
    pub total_bytes: Option<u64>,
    /// What is free there.
    pub usable_bytes: Option<u64>,
    /// What all partitions in it take.
    pub used_bytes: u64,
}

/// What became of a request about one partition.
pub type PartitionAnswer = (TopicPartition, Result<(), ClientError>);

impl Client {
    /// Describes the metadata quorum.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn describe_quorum(&self) -> Result<QuorumDescription, ClientError> {
        let connection = self.any_broker().await?;
        let topic = TopicData::default()
            .with_topic_name(topic_name(CLUSTER_METADATA))
            .with_partitions(vec![PartitionData::default()]);
        let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
        let mut response: DescribeQuorumResponse = self.call(&connection, "DescribeQuorum", &request).await?;
        let what = || "the metadata quorum".to_owned();
        check(response.error_code, response.error_message.as_deref(), what)?;
        let partition = response
            .topics
            .pop()
            .and_then(|mut topic| topic.partitions.pop())
            .ok_or_else(|| ClientError::Unanswered { what: what() })?;
        check(partition.error_code, partition.error_message.as_deref(), what)?;
        let mut addresses = BTreeMap::new();
        for node in response.nodes {
            if let Some(listener) = node.listeners.first() {
                addresses.insert(node.node_id.0, format!("{}:{}", listener.host, listener.port));
            }
        }
        let member = |state: ReplicaState| QuorumMember {
            id: BrokerId(state.replica_id.0),
            directory: Uuid(state.replica_directory_id.into_bytes()),
            log_end: state.log_end_offset,
            heard_at_ms: state.last_fetch_timestamp,
            addr: addresses.get(&state.replica_id.0).cloned(),
        };
        let members = |states: Vec<ReplicaState>| {
            let mut members: Vec<QuorumMember> = states.into_iter().map(member).collect();
            members.sort_by_key(|member| member.id);
            members
        };
        Ok(QuorumDescription {
            leader: Some(BrokerId(partition.leader_id.0)).filter(|id| id.get() >= 0),
            term: partition.leader_epoch,
            high_watermark: partition.high_watermark,
            voters: members(partition.current_voters),
            observers: members(partition.observers),
        })
    }

    /// Lets a node vote that has joined the quorum.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn add_voter(&self, id: BrokerId, directory: Uuid) -> Result<(), ClientError> {
        let connection = self.any_broker().await?;
        let request = AddRaftVoterRequest::default()
            .with_cluster_id(None)
            .with_timeout_ms(self.timeout_ms())
            .with_voter_id(id.get())
            .with_voter_directory_id(uuid::Uuid::from_bytes(directory.0));
        let response: AddRaftVoterResponse = self.call(&connection, "AddRaftVoter", &request).await?;
        check(response.error_code, response.error_message.as_deref(), || {
            format!("adding voter {id}")
        })
    }

    /// Takes a node's vote away.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn remove_voter(&self, id: BrokerId, directory: Uuid) -> Result<(), ClientError> {
        let connection = self.any_broker().await?;
        let request = RemoveRaftVoterRequest::default()
            .with_cluster_id(None)
            .with_voter_id(id.get())
            .with_voter_directory_id(uuid::Uuid::from_bytes(directory.0));
        let response: RemoveRaftVoterResponse = self.call(&connection, "RemoveRaftVoter", &request).await?;
        check(response.error_code, response.error_message.as_deref(), || {
            format!("removing voter {id}")
        })
    }

    /// Forgets a broker that is gone and has no replicas.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unregister_broker(&self, id: BrokerId) -> Result<(), ClientError> {
        let connection = self.any_broker().await?;
        let request = UnregisterBrokerRequest::default().with_broker_id(messages::BrokerId(id.get()));
        let response: UnregisterBrokerResponse = self.call(&connection, "UnregisterBroker", &request).await?;
        check(response.error_code, response.error_message.as_deref(), || {
            format!("forgetting broker {id}")
        })
    }

    /// Moves replicas: each partition to the brokers given, the preferred leader first; `None` cancels its move.
    ///
    /// # Errors
    /// [`ClientError`] about all of them; the answers tell of each.
    pub async fn reassign(
        &self,
        targets: &[(TopicPartition, Option<Vec<BrokerId>>)],
    ) -> Result<Vec<PartitionAnswer>, ClientError> {
        let connection = self.any_broker().await?;
        let mut topics: BTreeMap<Arc<str>, Vec<ReassignablePartition>> = BTreeMap::new();
        for (partition, target) in targets {
            let target = target
                .as_ref()
                .map(|ids| ids.iter().map(|id| messages::BrokerId(id.get())).collect());
            topics.entry(partition.topic.clone()).or_default().push(
                ReassignablePartition::default()
                    .with_partition_index(partition.partition.get())
                    .with_replicas(target),
            );
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            ReassignableTopic::default()
                .with_name(topic_name(&name))
                .with_partitions(partitions)
        });
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(self.timeout_ms())
            .with_topics(topics.collect());
        let api = "AlterPartitionReassignments";
        let response: AlterPartitionReassignmentsResponse = self.call(&connection, api, &request).await?;
        check(response.error_code, response.error_message.as_deref(), || {
            "moving replicas".to_owned()
        })?;
        let mut answers = Vec::new();
        for topic in response.responses {
            for partition in topic.partitions {
                let place = TopicPartition::new(&**topic.name, partition.partition_index);
                let what = || format!("moving {place}");
                let answer = check(partition.error_code, partition.error_message.as_deref(), what);
                answers.push((place, answer));
            }
        }
        Ok(answers)
    }

    /// The moves that are under way.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn reassignments(&self) -> Result<Vec<Reassignment>, ClientError> {
        let connection = self.any_broker().await?;
        let request = ListPartitionReassignmentsRequest::default()
            .with_timeout_ms(self.timeout_ms())
            .with_topics(None);
        let api = "ListPartitionReassignments";
        let response: ListPartitionReassignmentsResponse = self.call(&connection, api, &request).await?;
        check(response.error_code, response.error_message.as_deref(), || {
            "the moves".to_owned()
        })?;
        let ids = |ids: Vec<messages::BrokerId>| ids.into_iter().map(|id| BrokerId(id.0)).collect();
        let mut moves = Vec::new();
        for topic in response.topics {
            for partition in topic.partitions {
                moves.push(Reassignment {
                    partition: TopicPartition::new(&**topic.name, partition.partition_index),
                    replicas: ids(partition.replicas),
                    adding: ids(partition.adding_replicas),
                    removing: ids(partition.removing_replicas),
                });
            }
        }
        Ok(moves)
    }

    /// Elects leaders of the partitions given, or of all.
    ///
    /// # Errors
    /// [`ClientError`] about all of them; the answers tell of each. Of all partitions, those that are well already
    /// have no answer.
    pub async fn elect(
        &self,
        kind: ElectionKind,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<Vec<PartitionAnswer>, ClientError> {
        let connection = self.any_broker().await?;
        let named = partitions.map(|partitions| {
            let mut topics: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
            for partition in partitions {
                let indexes = topics.entry(partition.topic.clone()).or_default();
                indexes.push(partition.partition.get());
            }
            topics
                .into_iter()
                .map(|(name, indexes)| {
                    TopicPartitions::default()
                        .with_topic(topic_name(&name))
                        .with_partitions(indexes)
                })
                .collect()
        });
        let request = ElectLeadersRequest::default()
            .with_election_type(i8::from(kind == ElectionKind::Unclean))
            .with_topic_partitions(named)
            .with_timeout_ms(self.timeout_ms());
        let response: ElectLeadersResponse = self.call(&connection, "ElectLeaders", &request).await?;
        check(response.error_code, None, || "electing leaders".to_owned())?;
        let mut answers = Vec::new();
        for topic in response.replica_election_results {
            for partition in topic.partition_result {
                let place = TopicPartition::new(&**topic.topic, partition.partition_id);
                let what = || format!("electing a leader of {place}");
                let answer = check(partition.error_code, partition.error_message.as_deref(), what);
                answers.push((place, answer));
            }
        }
        Ok(answers)
    }

    /// Who may lead each partition of a topic although it is not in sync (KIP-966), by partition. Only partitions
    /// that have such replicas; nothing from a cluster that does not tell.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn eligible_replicas(&self, topic: &str) -> Result<BTreeMap<i32, Vec<BrokerId>>, ClientError> {
        let connection = self.any_broker().await?;
        let api = "DescribeTopicPartitions";
        if version_of::<DescribeTopicPartitionsRequest>(&connection, api, i16::MAX).is_err() {
            return Ok(BTreeMap::new());
        }
        let mut found = BTreeMap::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            let request = DescribeTopicPartitionsRequest::default()
                .with_topics(vec![TopicRequest::default().with_name(topic_name(topic))])
                .with_cursor(cursor);
            let response: DescribeTopicPartitionsResponse = self.call(&connection, api, &request).await?;
            for partition in response.topics.into_iter().flat_map(|topic| topic.partitions) {
                let eligible: Vec<BrokerId> = partition
                    .eligible_leader_replicas
                    .unwrap_or_default()
                    .into_iter()
                    .map(|id| BrokerId(id.0))
                    .collect();
                if !eligible.is_empty() {
                    found.insert(partition.partition_index, eligible);
                }
            }
            match response.next_cursor {
                Some(next) if next.topic_name.as_str() == topic => {
                    let more = Cursor::default()
                        .with_topic_name(next.topic_name)
                        .with_partition_index(next.partition_index);
                    cursor = Some(more);
                }
                _ => return Ok(found),
            }
        }
    }

    /// A broker's directories, and what they hold.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn log_dirs(&self, broker: BrokerId) -> Result<Vec<LogDir>, ClientError> {
        let connection = self.broker(broker).await?;
        let request = DescribeLogDirsRequest::default().with_topics(None);
        let response: DescribeLogDirsResponse = self.call(&connection, "DescribeLogDirs", &request).await?;
        let bytes = |count: i64| u64::try_from(count).ok();
        Ok(response
            .results
            .into_iter()
            .map(|dir| LogDir {
                path: dir.log_dir.to_string(),
                total_bytes: bytes(dir.total_bytes),
                usable_bytes: bytes(dir.usable_bytes),
                used_bytes: dir
                    .topics
                    .iter()
                    .flat_map(|topic| &topic.partitions)
                    .filter_map(|partition| bytes(partition.partition_size))
                    .sum(),
            })
            .collect())
    }
}
