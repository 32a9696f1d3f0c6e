//! ListPartitionReassignments (46), v0 (KIP-455).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{self, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse};
use skerry_metadata_state::{Image, Topic};
use skerry_types::BrokerId;

use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};

api!(
    ListPartitionReassignments,
    0..=0,
    ListPartitionReassignmentsRequest,
    handle
);

async fn handle(
    context: Context,
    _version: i16,
    request: ListPartitionReassignmentsRequest,
) -> ListPartitionReassignmentsResponse {
    let allowed = context
        .broker
        .gate()
        .allows(&context.caller(), Operation::Describe, Resource::Cluster);
    let response = ListPartitionReassignmentsResponse::default().with_error_message(None);
    if !allowed {
        let refused = ApiError::from(ResponseError::ClusterAuthorizationFailed);
        return response
            .with_error_code(refused.code.code())
            .with_error_message(refused.text());
    }
    response.with_topics(ongoing(&context.broker.image(), request.topics.as_deref()))
}

/// What is under way: of `wanted`, where topics and partitions that do not exist count as at rest, or of all.
fn ongoing(
    image: &Image,
    wanted: Option<&[ListPartitionReassignmentsTopics]>,
) -> Vec<OngoingTopicReassignment> {
    match wanted {
        None => image
            .topics()
            .filter_map(|topic| {
                of(
                    topic,
                    0..i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
                )
            })
            .collect(),
        Some(wanted) => wanted
            .iter()
            .filter_map(|one| of(image.topic(&one.name)?, one.partition_indexes.iter().copied()))
            .collect(),
    }
}

fn of(topic: &Topic, indexes: impl IntoIterator<Item = i32>) -> Option<OngoingTopicReassignment> {
    let partitions: Vec<_> = indexes
        .into_iter()
        .filter_map(|index| {
            let partition = topic.partition(skerry_types::PartitionIndex(index))?;
            partition.is_reassigning().then(|| {
                OngoingPartitionReassignment::default()
                    .with_partition_index(index)
                    .with_replicas(ids(&partition.replicas))
                    .with_adding_replicas(ids(&partition.adding))
                    .with_removing_replicas(ids(&partition.removing))
            })
        })
        .collect();
    (!partitions.is_empty()).then(|| {
        OngoingTopicReassignment::default()
            .with_name(wire::topic_name(&topic.name))
            .with_partitions(partitions)
    })
}

fn ids(brokers: &[BrokerId]) -> Vec<messages::BrokerId> {
    brokers.iter().map(|id| messages::BrokerId(id.get())).collect()
}

#[cfg(test)]
mod tests {
    use skerry_metadata_state::{AlterReassignment, Command, State};
    use skerry_types::PartitionIndex;

    use super::*;
    use crate::kafka::api::testing::{encodes, image, with_broker};

    #[test]
    fn what_is_under_way_is_listed() {
        let image = with_broker(&image(&[("still", 2), ("moving", 2)]), BrokerId(2));
        let topic = image.topic("moving").unwrap().id;
        let mut state = State::from_image((*image).clone());
        let applied = state.apply(
            image.index() + 1,
            &Command::AlterReassignment(AlterReassignment {
                topic,
                partition: PartitionIndex(1),
                target: Some(vec![BrokerId(2)]),
                may_change_factor: true,
            }),
        );
        applied.outcome.accepted().unwrap();
        let all = ongoing(state.image(), None);
        assert_eq!((all.len(), all[0].name.as_str()), (1, "moving"));
        let [partition] = &all[0].partitions[..] else {
            panic!("{all:?}")
        };
        assert_eq!(
            (
                partition.partition_index,
                &partition.replicas,
                &partition.adding_replicas,
                &partition.removing_replicas
            ),
            (
                1,
                &ids(&[BrokerId(2), BrokerId(1)]),
                &ids(&[BrokerId(2)]),
                &ids(&[BrokerId(1)])
            )
        );
        let asked = |name: &str, indexes: &[i32]| {
            ListPartitionReassignmentsTopics::default()
                .with_name(wire::topic_name(name))
                .with_partition_indexes(indexes.to_vec())
        };
        let some = [
            asked("nowhere", &[0]),
            asked("still", &[0, 9]),
            asked("moving", &[0]),
        ];
        assert_eq!(ongoing(state.image(), Some(&some)), []);
        assert_eq!(ongoing(state.image(), Some(&[asked("moving", &[0, 1])])), all);
        encodes(0, &ListPartitionReassignmentsResponse::default().with_topics(all));
    }
}
