//! OffsetForLeaderEpoch (23), v2-v4: where the records of a leader epoch end, so that consumers and followers find out
//! that their log has been cut (KIP-101, KIP-279, KIP-320). v3 tells replicas from consumers (KIP-392).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};
use skerry_log::EpochEnd;
use skerry_types::LeaderEpoch;

use crate::broker::Broker;
use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::{errors, wire};
use crate::leader_epochs;

api!(OffsetForLeaderEpoch, 2..=4, OffsetForLeaderEpochRequest, handle);

async fn handle(
    context: Context,
    _version: i16,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let broker = &context.broker;
    let caller = context.caller();
    let topics = request.topics.iter().map(|topic| {
        let allowed = broker
            .gate()
            .allows(&caller, Operation::Describe, Resource::Topic(&topic.topic));
        let partitions = topic.partitions.iter().map(|asked| {
            let end = if allowed {
                find(broker, &topic.topic, asked)
            } else {
                Err(ResponseError::TopicAuthorizationFailed)
            };
            answer(asked.partition, end)
        });
        OffsetForLeaderTopicResult::default()
            .with_topic(topic.topic.clone())
            .with_partitions(partitions.collect())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

fn find(broker: &Broker, topic: &str, asked: &OffsetForLeaderPartition) -> Result<EpochEnd, ResponseError> {
    let partition = wire::partition(broker, topic, asked.partition)?;
    partition
        .with_current_leader(LeaderEpoch(asked.current_leader_epoch), |log, leader| {
            leader_epochs::end_of(log, leader, LeaderEpoch(asked.leader_epoch))
        })
        .map_err(|error| errors::not_serving(&error))
}

fn answer(partition: i32, end: Result<EpochEnd, ResponseError>) -> EpochEndOffset {
    let answer = EpochEndOffset::default().with_partition(partition);
    match end {
        Ok(end) => answer
            .with_leader_epoch(end.epoch.get())
            .with_end_offset(end.end_offset.get()),
        Err(code) => answer.with_error_code(code.code()),
    }
}

#[cfg(test)]
mod tests {
    use skerry_types::Offset;

    use super::*;
    use crate::kafka::api::testing::encodes;

    #[test]
    fn every_version_is_told_what_it_can_read() {
        let end = EpochEnd {
            epoch: LeaderEpoch(2),
            end_offset: Offset(7),
        };
        let partitions = vec![
            answer(0, Ok(end)),
            answer(1, Err(ResponseError::FencedLeaderEpoch)),
        ];
        assert_eq!((partitions[1].leader_epoch, partitions[1].end_offset), (-1, -1));
        let topic = OffsetForLeaderTopicResult::default()
            .with_topic(wire::topic_name("t"))
            .with_partitions(partitions);
        for version in 2..=4 {
            encodes(
                version,
                &OffsetForLeaderEpochResponse::default().with_topics(vec![topic.clone()]),
            );
        }
    }
}
