//! ElectLeaders (43), v0-v2 (KIP-183). v1 adds unclean elections (KIP-460).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse};
use skerry_metadata_state::{Command, ElectLeader, Election, Image};
use skerry_types::PartitionIndex;

use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};
use crate::topics;

api!(ElectLeaders, 0..=2, ElectLeadersRequest, handle);

/// Kafka's number of an election of the first replica.
const PREFERRED: i8 = 0;
/// Kafka's number of an election that may lose records.
const UNCLEAN: i8 = 1;

async fn handle(context: Context, version: i16, request: ElectLeadersRequest) -> ElectLeadersResponse {
    let broker = &context.broker;
    let election = match request.election_type {
        _ if !broker
            .gate()
            .allows(&context.caller(), Operation::Alter, Resource::Cluster) =>
        {
            return refused(version, ResponseError::ClusterAuthorizationFailed);
        }
        PREFERRED => Election::Preferred,
        UNCLEAN => Election::Unclean,
        _ => return refused(version, ResponseError::InvalidRequest),
    };
    let image = broker.image();
    let wanted = wanted(&image, &request);
    let commands = wanted.iter().flat_map(|(topic, partitions)| {
        let image = &image;
        partitions
            .iter()
            .map(move |index| command(image, topic, *index, election))
    });
    let mut results = topics::change_each(broker, commands.collect()).await.into_iter();
    // Of all partitions, those that are well already are not told.
    let all = request.topic_partitions.is_none();
    let topics = wanted.iter().map(|(topic, partitions)| {
        let told = partitions.iter().filter_map(|index| {
            let result = results.next().expect("one result for each command").map(|_| ());
            let well = matches!(&result, Err(error) if error.code == ResponseError::ElectionNotNeeded);
            (!(all && well)).then(|| told(*index, result))
        });
        ReplicaElectionResult::default()
            .with_topic(wire::topic_name(topic))
            .with_partition_result(told.collect())
    });
    ElectLeadersResponse::default().with_replica_election_results(topics.collect())
}

fn refused(version: i16, code: ResponseError) -> ElectLeadersResponse {
    // v0 has no place for it.
    ElectLeadersResponse::default().with_error_code(if version == 0 { 0 } else { code.code() })
}

/// The partitions asked for by topic; all of them where none is named.
fn wanted(image: &Image, request: &ElectLeadersRequest) -> Vec<(String, Vec<i32>)> {
    match &request.topic_partitions {
        Some(named) => named
            .iter()
            .map(|one| (one.topic.to_string(), one.partitions.clone()))
            .collect(),
        None => image
            .topics()
            .map(|topic| {
                let count = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
                (topic.name.to_string(), (0..count).collect())
            })
            .collect(),
    }
}

fn command(image: &Image, topic: &str, index: i32, election: Election) -> Result<Command, ApiError> {
    let unknown = |words| ApiError::new(ResponseError::UnknownTopicOrPartition, words);
    let known = image
        .topic(topic)
        .ok_or_else(|| unknown(format!("No such topic as {topic}")))?;
    let partition = PartitionIndex(index);
    if known.partition(partition).is_none() {
        return Err(unknown(format!("No such partition as {topic}-{index}")));
    }
    Ok(Command::ElectLeader(ElectLeader {
        topic: known.id,
        partition,
        election,
    }))
}

fn told(index: i32, result: Result<(), ApiError>) -> PartitionResult {
    let response = PartitionResult::default().with_partition_id(index);
    match result {
        Ok(()) => response.with_error_message(None),
        Err(error) => response
            .with_error_code(error.code.code())
            .with_error_message(error.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::{encodes, fenced, image};

    fn judged(image: &Image, topic: &str, index: i32, election: Election) -> i16 {
        let judged = command(image, topic, index, election)
            .and_then(|command| Ok(image.dry_run(&command).accepted()?));
        judged.map_or_else(|error| error.code.code(), |_| 0)
    }

    #[test]
    fn refusals_have_kafkas_codes() {
        let well = image(&[("two", 2)]);
        assert_eq!(judged(&well, "two", 0, Election::Preferred), 84);
        assert_eq!(judged(&well, "two", 0, Election::Unclean), 84);
        assert_eq!(judged(&well, "nowhere", 0, Election::Preferred), 3);
        assert_eq!(judged(&well, "two", 2, Election::Preferred), 3);
        let nobody = fenced(&well);
        assert_eq!(judged(&nobody, "two", 0, Election::Preferred), 80);
        assert_eq!(judged(&nobody, "two", 0, Election::Unclean), 83);
    }

    #[test]
    fn no_list_means_every_partition() {
        let image = image(&[("one", 1), ("two", 2)]);
        let all = ElectLeadersRequest::default().with_topic_partitions(None);
        assert_eq!(
            wanted(&image, &all),
            [("one".to_owned(), vec![0]), ("two".to_owned(), vec![0, 1])]
        );
    }

    #[test]
    fn every_version_is_told_what_it_can_read() {
        let results = ReplicaElectionResult::default().with_partition_result(vec![
            told(0, Ok(())),
            told(1, Err(ResponseError::ElectionNotNeeded.into())),
        ]);
        for version in 0..=2 {
            let response = ElectLeadersResponse::default();
            encodes(
                version,
                &response.with_replica_election_results(vec![results.clone()]),
            );
            encodes(version, &refused(version, ResponseError::InvalidRequest));
        }
    }
}
