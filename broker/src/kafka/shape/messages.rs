//! What each request looks like, from Kafka's message definitions (4.3): field after field, with the versions that have
//! it. One line of data for each API that this broker answers, or will.

use kafka_protocol::messages::ApiKey;

use super::{BYTE, BYTES, INT16, INT32, INT64, Message, NEVER, TEXT, UUID, list, many, message, one};

/// The shape of `key`'s request.
pub(super) fn of(key: ApiKey) -> Option<&'static Message> {
    MESSAGES.iter().find(|message| message.key == key)
}

#[rustfmt::skip]
pub(super) static MESSAGES: &[Message] = &[
    message(ApiKey::Produce, 9, &[TEXT.null(3).since(3), INT16, INT32, many(&[TEXT.until(12), UUID.since(13), many(&[INT32, BYTES.null(0)])])]),
    message(ApiKey::Fetch, 12, &[TEXT.null(12).tag(0, 12), INT32.until(14), one(&[INT32.since(15), INT64.since(15)]).tag(1, 15), INT32, INT32, INT32.since(3), BYTE.since(4), INT32.since(7), INT32.since(7), many(&[TEXT.until(12), UUID.since(13), many(&[INT32, INT32.since(9), INT64, INT32.since(12), INT64.since(5), INT32, UUID.tag(0, 17), INT64.tag(1, 18)])]), many(&[TEXT.until(12).since(7), UUID.since(13), list(&INT32).since(7)]).since(7), TEXT.since(11)]),
    message(ApiKey::ListOffsets, 6, &[INT32, BYTE.since(2), many(&[TEXT, many(&[INT32, INT32.since(4), INT64])]), INT32.since(10)]),
    message(ApiKey::Metadata, 9, &[many(&[UUID.since(10), TEXT.null(10)]).null(1), BYTE.since(4), BYTE.until(10).since(8), BYTE.since(8)]),
    message(ApiKey::OffsetCommit, 8, &[TEXT, INT32.since(1), TEXT.since(1), TEXT.null(7).since(7), INT64.until(4).since(2), many(&[TEXT.until(9), UUID.since(10), many(&[INT32, INT64, INT32.since(6), TEXT.null(0)])])]),
    message(ApiKey::OffsetFetch, 6, &[TEXT.until(7), many(&[TEXT.until(7), list(&INT32).until(7)]).null(2).until(7), many(&[TEXT.since(8), TEXT.null(9).since(9), INT32.since(9), many(&[TEXT.until(9).since(8), UUID.since(10), list(&INT32).since(8)]).null(8).since(8)]).since(8), BYTE.since(7)]),
    message(ApiKey::FindCoordinator, 3, &[TEXT.until(3), BYTE.since(1), list(&TEXT).since(4)]),
    message(ApiKey::JoinGroup, 6, &[TEXT, INT32, INT32.since(1), TEXT, TEXT.null(5).since(5), TEXT, many(&[TEXT, BYTES]), TEXT.null(8).since(8)]),
    message(ApiKey::Heartbeat, 4, &[TEXT, INT32, TEXT, TEXT.null(3).since(3)]),
    message(ApiKey::LeaveGroup, 4, &[TEXT, TEXT.until(2), many(&[TEXT.since(3), TEXT.null(3).since(3), TEXT.null(5).since(5)]).since(3)]),
    message(ApiKey::SyncGroup, 4, &[TEXT, INT32, TEXT, TEXT.null(3).since(3), TEXT.null(5).since(5), TEXT.null(5).since(5), many(&[TEXT, BYTES])]),
    message(ApiKey::DescribeGroups, 5, &[list(&TEXT), BYTE.since(3)]),
    message(ApiKey::ListGroups, 3, &[list(&TEXT).since(4), list(&TEXT).since(5)]),
    message(ApiKey::SaslHandshake, NEVER, &[TEXT]),
    message(ApiKey::ApiVersions, 3, &[TEXT.since(3), TEXT.since(3)]),
    message(ApiKey::CreateTopics, 5, &[many(&[TEXT, INT32, INT16, many(&[INT32, list(&INT32)]), many(&[TEXT, TEXT.null(0)])]), INT32, BYTE.since(1)]),
    message(ApiKey::DeleteTopics, 4, &[many(&[TEXT.null(6).since(6), UUID.since(6)]).since(6), list(&TEXT).until(5), INT32]),
    message(ApiKey::DeleteRecords, 2, &[many(&[TEXT, many(&[INT32, INT64])]), INT32]),
    message(ApiKey::InitProducerId, 2, &[TEXT.null(0), INT32, INT64.since(3), INT16.since(3), BYTE.since(6), BYTE.since(6)]),
    message(ApiKey::OffsetForLeaderEpoch, 4, &[INT32.since(3), many(&[TEXT, many(&[INT32, INT32.since(2), INT32])])]),
    message(ApiKey::DescribeConfigs, 4, &[many(&[BYTE, TEXT, list(&TEXT).null(0)]), BYTE.since(1), BYTE.since(3)]),
    message(ApiKey::AlterConfigs, 2, &[many(&[BYTE, TEXT, many(&[TEXT, TEXT.null(0)])]), BYTE]),
    message(ApiKey::DescribeLogDirs, 2, &[many(&[TEXT, list(&INT32)]).null(0)]),
    message(ApiKey::SaslAuthenticate, 2, &[BYTES]),
    message(ApiKey::CreatePartitions, 2, &[many(&[TEXT, INT32, many(&[list(&INT32)]).null(0)]), INT32, BYTE]),
    message(ApiKey::DeleteGroups, 2, &[list(&TEXT)]),
    message(ApiKey::ElectLeaders, 2, &[BYTE.since(1), many(&[TEXT, list(&INT32)]).null(0), INT32]),
    message(ApiKey::IncrementalAlterConfigs, 1, &[many(&[BYTE, TEXT, many(&[TEXT, BYTE, TEXT.null(0)])]), BYTE]),
    message(ApiKey::AlterPartitionReassignments, 0, &[INT32, BYTE.since(1), many(&[TEXT, many(&[INT32, list(&INT32).null(0)])])]),
    message(ApiKey::ListPartitionReassignments, 0, &[INT32, many(&[TEXT, list(&INT32)]).null(0)]),
    message(ApiKey::OffsetDelete, NEVER, &[TEXT, many(&[TEXT, many(&[INT32])])]),
    message(ApiKey::DescribeQuorum, 0, &[many(&[TEXT, many(&[INT32])])]),
    message(ApiKey::DescribeCluster, 0, &[BYTE, BYTE.since(1), BYTE.since(2)]),
    message(ApiKey::DescribeProducers, 0, &[many(&[TEXT, list(&INT32)])]),
    message(ApiKey::UnregisterBroker, 0, &[INT32]),
    message(ApiKey::GetTelemetrySubscriptions, 0, &[UUID]),
    message(ApiKey::ListConfigResources, 0, &[list(&BYTE).since(1)]),
    message(ApiKey::DescribeTopicPartitions, 0, &[many(&[TEXT]), INT32, one(&[TEXT, INT32]).null(0)]),
    message(ApiKey::AddRaftVoter, 0, &[TEXT.null(0), INT32, INT32, UUID, many(&[TEXT, TEXT, INT16])]),
    message(ApiKey::RemoveRaftVoter, 0, &[TEXT.null(0), INT32, UUID]),
];
