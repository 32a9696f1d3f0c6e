//! OffsetDelete (47), v0 (KIP-496). Offsets of topics that a live group is subscribed to are refused.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestTopic;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use skerry_coordinator as coordinator;
use skerry_metadata_state::Image;
use skerry_types::PartitionIndex;

use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::group_wire::{self, Judged, allows_group, allows_topic, owned};

api!(OffsetDelete, 0..=0, OffsetDeleteRequest, handle);

async fn handle(context: Context, _version: i16, request: OffsetDeleteRequest) -> OffsetDeleteResponse {
    // An error of the whole stands alone.
    let refused = |error: ResponseError| OffsetDeleteResponse::default().with_error_code(error.code());
    if !allows_group(&context, Operation::Delete, &request.group_id) {
        return refused(ResponseError::GroupAuthorizationFailed);
    }
    let allowed = |topic: &str| allows_topic(&context, Operation::Read, topic);
    let judged = judge(&context.broker.image(), &request, allowed);
    if judged.is_decided() {
        return write(judged);
    }
    match group_wire::ask(&context, &request.group_id, read(&request, &judged)).await {
        Ok(answer) => match answer.error {
            None => write(judged.with(&answer.topics)),
            Some(error) => refused(group_wire::code(error)),
        },
        Err(error) => refused(group_wire::code(error)),
    }
}

fn judge(image: &Image, request: &OffsetDeleteRequest, allowed: impl Fn(&str) -> bool) -> Judged {
    let topics = request.topics.iter().map(|topic| {
        (
            &topic.name,
            topic
                .partitions
                .iter()
                .map(|partition| partition.partition_index)
                .collect(),
        )
    });
    Judged::new(image, allowed, topics)
}

/// What is left to ask.
fn read(request: &OffsetDeleteRequest, judged: &Judged) -> coordinator::OffsetDeleteRequest {
    let topic = |(index, topic): (usize, &OffsetDeleteRequestTopic)| {
        let asked = topic
            .partitions
            .iter()
            .zip(judged.asked(index))
            .filter(|(_, asked)| *asked);
        let partitions: Vec<_> = asked
            .map(|(partition, _)| PartitionIndex(partition.partition_index))
            .collect();
        (owned(&topic.name), partitions)
    };
    let topics = request
        .topics
        .iter()
        .enumerate()
        .map(topic)
        .filter(|(_, partitions)| !partitions.is_empty());
    coordinator::OffsetDeleteRequest {
        group_id: owned(&request.group_id),
        topics: topics.collect(),
    }
}

fn write(judged: Judged) -> OffsetDeleteResponse {
    let topics = judged.into_codes().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(partition, code)| {
            OffsetDeleteResponsePartition::default()
                .with_partition_index(partition)
                .with_error_code(code)
        });
        OffsetDeleteResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_delete_request::OffsetDeleteRequestPartition;
    use skerry_coordinator::{GroupError, TopicErrors};

    use super::*;
    use crate::kafka::api::testing::image;
    use crate::kafka::group_wire::testing::round_trip;
    use crate::kafka::wire;

    #[test]
    fn the_coordinator_hears_of_what_exists_and_the_client_of_everything() {
        let image = image(&[("a", 2)]);
        let topic = |name: &str, partitions: &[i32]| {
            let partition =
                |index: &i32| OffsetDeleteRequestPartition::default().with_partition_index(*index);
            OffsetDeleteRequestTopic::default()
                .with_name(wire::topic_name(name))
                .with_partitions(partitions.iter().map(partition).collect())
        };
        let request = OffsetDeleteRequest::default()
            .with_group_id(group_wire::group_id("g"))
            .with_topics(vec![topic("nowhere", &[0]), topic("a", &[9, 1])]);
        let request = round_trip(0, &request);
        let judged = judge(&image, &request, |_| true);
        let call = read(&request, &judged);
        assert_eq!(call.topics, [("a".into(), vec![PartitionIndex(1)])]);
        let partitions = vec![(PartitionIndex(1), Some(GroupError::GroupSubscribedToTopic))];
        let seen = round_trip(
            0,
            &write(judged.with(&[TopicErrors {
                name: "a".into(),
                partitions,
            }])),
        );
        let codes = |topic: &OffsetDeleteResponseTopic| -> Vec<(i32, i16)> {
            topic
                .partitions
                .iter()
                .map(|partition| (partition.partition_index, partition.error_code))
                .collect()
        };
        assert_eq!(
            (codes(&seen.topics[0]), codes(&seen.topics[1])),
            (vec![(0, 3)], vec![(9, 3), (1, 86)])
        );
    }
}
