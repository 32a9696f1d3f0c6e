//! AlterPartitionReassignments (45), v0-v1 (KIP-455). v1 may forbid another replication factor (KIP-860).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse};
use skerry_metadata_state::{AlterReassignment, Command, Image};
use skerry_types::{BrokerId, PartitionIndex};

use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::ApiError;
use crate::topics;

api!(
    AlterPartitionReassignments,
    0..=1,
    AlterPartitionReassignmentsRequest,
    handle
);

async fn handle(
    context: Context,
    version: i16,
    request: AlterPartitionReassignmentsRequest,
) -> AlterPartitionReassignmentsResponse {
    let broker = &context.broker;
    let response = AlterPartitionReassignmentsResponse::default()
        .with_allow_replication_factor_change(request.allow_replication_factor_change)
        .with_error_message(None);
    if !broker
        .gate()
        .allows(&context.caller(), Operation::Alter, Resource::Cluster)
    {
        let refused = ApiError::from(ResponseError::ClusterAuthorizationFailed);
        return response
            .with_error_code(refused.code.code())
            .with_error_message(refused.text());
    }
    // v0 knows no such restriction; its field has the default, which is `true`.
    let may_change_factor = version == 0 || request.allow_replication_factor_change;
    let image = broker.image();
    let commands = request.topics.iter().flat_map(|topic| {
        let image = &image;
        topic
            .partitions
            .iter()
            .map(move |partition| command(image, topic, partition, may_change_factor))
    });
    let mut results = topics::change_each(broker, commands.collect()).await.into_iter();
    let topics = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let result = results.next().expect("one result for each command");
            told(partition, result.map(|_| ()))
        });
        ReassignableTopicResponse::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    response.with_responses(topics.collect())
}

fn command(
    image: &Image,
    topic: &ReassignableTopic,
    partition: &ReassignablePartition,
    may_change_factor: bool,
) -> Result<Command, ApiError> {
    let known = image.topic(&topic.name).ok_or_else(|| {
        let words = format!("Unable to find a topic named {}.", topic.name.as_str());
        ApiError::new(ResponseError::UnknownTopicOrPartition, words)
    })?;
    let index = PartitionIndex(partition.partition_index);
    if known.partition(index).is_none() {
        let words = format!("Unable to find partition {}-{index}.", topic.name.as_str());
        return Err(ApiError::new(ResponseError::UnknownTopicOrPartition, words));
    }
    let target = partition
        .replicas
        .as_ref()
        .map(|replicas| replicas.iter().map(|id| BrokerId(id.0)).collect());
    Ok(Command::AlterReassignment(AlterReassignment {
        topic: known.id,
        partition: index,
        target,
        may_change_factor,
    }))
}

fn told(partition: &ReassignablePartition, result: Result<(), ApiError>) -> ReassignablePartitionResponse {
    let response = ReassignablePartitionResponse::default().with_partition_index(partition.partition_index);
    match result {
        Ok(()) => response.with_error_message(None),
        Err(error) => response
            .with_error_code(error.code.code())
            .with_error_message(error.text()),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages;

    use super::*;
    use crate::kafka::api::testing::{encodes, image};
    use crate::kafka::wire;

    fn asked(name: &str, index: i32, replicas: Option<&[i32]>) -> Result<Command, ApiError> {
        let replicas = replicas.map(|ids| ids.iter().map(|id| messages::BrokerId(*id)).collect());
        let partition = ReassignablePartition::default()
            .with_partition_index(index)
            .with_replicas(replicas);
        let topic = ReassignableTopic::default().with_name(wire::topic_name(name));
        command(&image(&[("two", 2)]), &topic, &partition, true)
    }

    fn judged(name: &str, index: i32, replicas: Option<&[i32]>) -> i16 {
        let judged = asked(name, index, replicas)
            .and_then(|command| Ok(image(&[("two", 2)]).dry_run(&command).accepted()?));
        judged.map_or_else(|error| error.code.code(), |_| 0)
    }

    #[test]
    fn refusals_have_kafkas_codes() {
        assert_eq!(judged("two", 0, Some(&[1])), 0);
        assert_eq!(judged("nowhere", 0, Some(&[1])), 3);
        assert_eq!(judged("two", 7, Some(&[1])), 3);
        assert_eq!(judged("two", 0, None), 85, "there is nothing to cancel");
        assert_eq!(judged("two", 0, Some(&[])), 39);
        assert_eq!(judged("two", 0, Some(&[1, 1])), 39);
        assert_eq!(judged("two", 0, Some(&[9])), 39);
    }

    #[test]
    fn every_version_is_told_what_it_can_read() {
        let partition = ReassignablePartition::default();
        let topic = ReassignableTopicResponse::default().with_partitions(vec![
            told(&partition, Ok(())),
            told(&partition, Err(ResponseError::NoReassignmentInProgress.into())),
        ]);
        for version in 0..=1 {
            let response = AlterPartitionReassignmentsResponse::default();
            encodes(version, &response.with_responses(vec![topic.clone()]));
        }
    }
}
