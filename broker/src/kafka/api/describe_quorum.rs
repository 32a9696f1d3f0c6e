//! DescribeQuorum (55), v0-v2 (KIP-595). v1 adds times (KIP-836), v2 directories and addresses (KIP-853).
//!
//! The quorum is Raft on a log of its own, told in Kafka's words: an entry's index is its offset, the committed ones
//! end at the high watermark, the term is the leader's epoch, learners are observers.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use kafka_protocol::messages::{self, DescribeQuorumRequest, DescribeQuorumResponse};
use skerry_metadata::{MemberStatus, QuorumStatus};
use skerry_types::{BrokerId, WallMs};

use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};
use crate::topics::CLUSTER_METADATA;

api!(DescribeQuorum, 0..=2, DescribeQuorumRequest, handle);

/// Kafka's usual name for the listener that the nodes of a quorum have for each other.
const LISTENER: &str = "CONTROLLER";
/// Nobody knows.
const NO_TIME: i64 = -1;

async fn handle(context: Context, version: i16, request: DescribeQuorumRequest) -> DescribeQuorumResponse {
    let broker = &context.broker;
    if !broker
        .gate()
        .allows(&context.caller(), Operation::Describe, Resource::Cluster)
    {
        return refused(version, &ResponseError::ClusterAuthorizationFailed.into());
    }
    if !asks_for_the_quorum(&request) {
        return not_the_quorum(&request);
    }
    match broker.quorum().status_of_leader().await {
        Ok(status) => described(version, &status, broker.env().clock.wall()),
        Err(error) => {
            let error = ApiError::new(ResponseError::RequestTimedOut, error.to_string());
            refused(version, &error)
        }
    }
}

fn refused(version: i16, error: &ApiError) -> DescribeQuorumResponse {
    DescribeQuorumResponse::default()
        .with_error_code(error.code.code())
        .with_error_message(if version >= 2 { error.text() } else { None })
}

/// There is one partition to ask for.
fn asks_for_the_quorum(request: &DescribeQuorumRequest) -> bool {
    match &request.topics[..] {
        [topic] => {
            topic.topic_name.as_str() == CLUSTER_METADATA
                && matches!(&topic.partitions[..], [one] if one.partition_index == 0)
        }
        _ => false,
    }
}

fn not_the_quorum(request: &DescribeQuorumRequest) -> DescribeQuorumResponse {
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            PartitionData::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(ResponseError::UnknownTopicOrPartition.code())
        });
        TopicData::default()
            .with_topic_name(topic.topic_name.clone())
            .with_partitions(partitions.collect())
    });
    DescribeQuorumResponse::default().with_topics(topics.collect())
}

fn described(version: i16, status: &QuorumStatus, now: WallMs) -> DescribeQuorumResponse {
    let states = |voters: bool| -> Vec<ReplicaState> {
        status
            .members
            .iter()
            .filter(|member| member.voter == voters)
            .map(|member| replica(version, status, member, now))
            .collect()
    };
    let partition = PartitionData::default()
        .with_leader_id(messages::BrokerId(status.leader.unwrap_or(BrokerId::NONE).get()))
        .with_leader_epoch(i32::try_from(status.term).unwrap_or(i32::MAX))
        .with_high_watermark(end(status.committed_index))
        .with_current_voters(states(true))
        .with_observers(states(false));
    let topic = TopicData::default()
        .with_topic_name(wire::topic_name(CLUSTER_METADATA))
        .with_partitions(vec![partition]);
    let response = DescribeQuorumResponse::default().with_topics(vec![topic]);
    if version < 2 {
        return response;
    }
    let nodes = status.members.iter().filter_map(|member| {
        let (host, port) = member.addr.rsplit_once(':')?;
        let listener = Listener::default()
            .with_name(wire::text(LISTENER))
            .with_host(wire::text(host))
            .with_port(port.parse().ok()?);
        Some(
            Node::default()
                .with_node_id(messages::BrokerId(member.id.get()))
                .with_listeners(vec![listener]),
        )
    });
    response.with_nodes(nodes.collect())
}

/// The offset after the entry at `index`.
fn end(index: u64) -> i64 {
    i64::try_from(index).map_or(i64::MAX, |index| index.saturating_add(1))
}

fn replica(version: i16, status: &QuorumStatus, member: &MemberStatus, now: WallMs) -> ReplicaState {
    let state = ReplicaState::default()
        .with_replica_id(messages::BrokerId(member.id.get()))
        .with_log_end_offset(member.matched_index.map_or(-1, end));
    let state = if version >= 1 {
        let ago = |time: Duration| now.get() - i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let heard = member.last_contact.map_or(NO_TIME, ago);
        // Whoever has all had it when it was heard last; since when another one lacks something is not kept.
        let caught_up = match status.entries_behind(member) {
            Some(0) => heard,
            _ => NO_TIME,
        };
        state
            .with_last_fetch_timestamp(heard)
            .with_last_caught_up_timestamp(caught_up)
    } else {
        state
    };
    if version >= 2 {
        state.with_replica_directory_id(wire::uuid(member.directory))
    } else {
        state
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_quorum_request;
    use skerry_metadata::Role;
    use skerry_types::Uuid;

    use super::*;
    use crate::kafka::api::testing::encodes;

    fn member(id: i32, voter: bool, matched_index: Option<u64>) -> MemberStatus {
        MemberStatus {
            id: BrokerId(id),
            addr: format!("n{id}:9093"),
            directory: Uuid([u8::try_from(id).unwrap(); 16]),
            note: String::new(),
            voter,
            matched_index,
            last_contact: matched_index.map(|_| Duration::from_millis(30)),
        }
    }

    fn status() -> QuorumStatus {
        QuorumStatus {
            node_id: BrokerId(1),
            role: Role::Leader,
            term: 7,
            leader: Some(BrokerId(1)),
            leader_contact: None,
            last_log_index: 99,
            committed_index: 98,
            applied_index: 98,
            snapshot_index: 0,
            purged_index: 0,
            members: vec![
                member(1, true, Some(99)),
                member(2, true, Some(90)),
                member(3, false, None),
            ],
        }
    }

    #[test]
    fn the_quorum_is_told_in_kafkas_words() {
        for version in 0..=2 {
            let response = described(version, &status(), WallMs(1_000));
            encodes(version, &response);
            let partition = &response.topics[0].partitions[0];
            assert_eq!(
                (
                    partition.leader_id.0,
                    partition.leader_epoch,
                    partition.high_watermark
                ),
                (1, 7, 99)
            );
            let ends = |states: &[ReplicaState]| -> Vec<(i32, i64, i64)> {
                states
                    .iter()
                    .map(|state| {
                        (
                            state.replica_id.0,
                            state.log_end_offset,
                            state.last_caught_up_timestamp,
                        )
                    })
                    .collect()
            };
            let heard = if version == 0 { NO_TIME } else { 970 };
            assert_eq!(
                ends(&partition.current_voters),
                [(1, 100, heard), (2, 91, NO_TIME)]
            );
            assert_eq!(ends(&partition.observers), [(3, -1, NO_TIME)]);
            assert_eq!(response.nodes.len(), if version < 2 { 0 } else { 3 });
        }
    }

    #[test]
    fn there_is_one_partition_to_ask_for() {
        let asked = |name: &str, index: i32| {
            let partition = describe_quorum_request::PartitionData::default().with_partition_index(index);
            let topic = describe_quorum_request::TopicData::default()
                .with_topic_name(wire::topic_name(name))
                .with_partitions(vec![partition]);
            DescribeQuorumRequest::default().with_topics(vec![topic])
        };
        assert!(asks_for_the_quorum(&asked(CLUSTER_METADATA, 0)));
        for other in [asked(CLUSTER_METADATA, 1), asked("orders", 0)] {
            assert!(!asks_for_the_quorum(&other));
            let answer = not_the_quorum(&other);
            assert_eq!(answer.topics[0].partitions[0].error_code, 3);
            encodes(0, &answer);
        }
    }
}
