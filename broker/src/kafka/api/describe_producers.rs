//! DescribeProducers (61), v0: who writes to a partition idempotently or in transactions (KIP-664).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};
use skerry_log::ProducerSnapshot;
use skerry_types::LeaderEpoch;

use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::errors;
use crate::kafka::wire::{self, ApiError};
use crate::topics;

api!(DescribeProducers, 0..=0, DescribeProducersRequest, handle);

async fn handle(
    context: Context,
    _version: i16,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = request.topics.iter().map(|topic| {
        let legal = judge(&context, topic);
        let partitions = topic.partition_indexes.iter().map(|index| {
            let producers = legal.clone().and_then(|()| find(&context, &topic.name, *index));
            answer(*index, producers)
        });
        TopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    DescribeProducersResponse::default().with_topics(topics.collect())
}

/// What is wrong with the topic as a whole.
fn judge(context: &Context, topic: &TopicRequest) -> Result<(), ApiError> {
    topics::validate_name(&topic.name)?;
    let broker = &context.broker;
    if !broker
        .gate()
        .allows(&context.caller(), Operation::Read, Resource::Topic(&topic.name))
    {
        return Err(ResponseError::TopicAuthorizationFailed.into());
    }
    broker
        .image()
        .topic(&topic.name)
        .map(|_| ())
        .ok_or_else(|| ResponseError::UnknownTopicOrPartition.into())
}

fn find(context: &Context, topic: &str, index: i32) -> Result<Vec<ProducerSnapshot>, ApiError> {
    // Kafka says no more than the code.
    let silent = |code| ApiError::new(code, "");
    let partition = wire::partition(&context.broker, topic, index).map_err(silent)?;
    partition
        .with_leader(LeaderEpoch::UNKNOWN, |log, _| log.producers().collect())
        .map_err(|error| silent(errors::not_serving(&error)))
}

fn answer(index: i32, producers: Result<Vec<ProducerSnapshot>, ApiError>) -> PartitionResponse {
    let answer = PartitionResponse::default().with_partition_index(index);
    match producers {
        Ok(producers) => answer
            .with_error_message(None)
            .with_active_producers(producers.iter().map(state).collect()),
        Err(error) => answer
            .with_error_code(error.code.code())
            .with_error_message(error.text()),
    }
}

fn state(producer: &ProducerSnapshot) -> ProducerState {
    ProducerState::default()
        .with_producer_id(ProducerId(producer.producer.id.get()))
        .with_producer_epoch(i32::from(producer.producer.epoch.get()))
        .with_last_sequence(producer.last_sequence.get())
        .with_last_timestamp(producer.last_timestamp.get())
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(
            producer
                .current_txn_first_offset
                .map_or(-1, |offset| offset.get()),
        )
}

#[cfg(test)]
mod tests {
    use skerry_types::{ProducerEpoch, ProducerIdentity, Sequence, WallMs};

    use super::*;
    use crate::kafka::api::testing::encodes;

    #[test]
    fn a_producer_is_told_as_the_log_knows_it() {
        let producer = ProducerSnapshot {
            producer: ProducerIdentity {
                id: skerry_types::ProducerId(7),
                epoch: ProducerEpoch(2),
            },
            last_sequence: Sequence(41),
            last_timestamp: WallMs(1000),
            coordinator_epoch: -1,
            current_txn_first_offset: None,
        };
        let told = state(&producer);
        assert_eq!(
            (told.producer_id.0, told.producer_epoch, told.last_sequence),
            (7, 2, 41)
        );
        assert_eq!((told.coordinator_epoch, told.current_txn_start_offset), (-1, -1));
        let partitions = vec![
            answer(0, Ok(vec![producer])),
            answer(1, Err(ResponseError::NotLeaderOrFollower.into())),
        ];
        let topic = TopicResponse::default()
            .with_name(wire::topic_name("t"))
            .with_partitions(partitions);
        encodes(0, &DescribeProducersResponse::default().with_topics(vec![topic]));
    }
}
