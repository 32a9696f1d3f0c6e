//! CreatePartitions (37), v0-v3 (KIP-195). v3 may say that it is throttled (KIP-599).

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use skerry_metadata_state::{Command, CreatePartitions, Image};
use skerry_types::BrokerId;

use crate::broker::Broker;
use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};
use crate::topics;

api!(CreatePartitions, 0..=3, CreatePartitionsRequest, handle);

/// Topics that grow at a time: they share the quorum's syncs.
const GROWN_AT_ONCE: usize = 16;

async fn handle(
    context: Context,
    _version: i16,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let broker = &context.broker;
    let is_unknown = |image: &Image| {
        let mut topics = request.topics.iter();
        topics.any(|topic| image.topic(&topic.name).is_none())
    };
    let image = broker.newest_image_if(is_unknown).await;
    let caller = context.caller();
    let mut seen = BTreeSet::new();
    let repeated: BTreeSet<&str> = request
        .topics
        .iter()
        .map(|topic| topic.name.as_str())
        .filter(|name| !seen.insert(*name))
        .collect();
    // A name that comes twice is answered once.
    let mut answered = BTreeSet::new();
    let topics = request
        .topics
        .iter()
        .filter(|topic| answered.insert(topic.name.as_str()));
    let results = topics.map(|topic| {
        let judged = if repeated.contains(topic.name.as_str()) {
            Err(ApiError::invalid_request("Duplicate topic name."))
        } else if !broker
            .gate()
            .allows(&caller, Operation::Alter, Resource::Topic(&topic.name))
        {
            Err(ResponseError::TopicAuthorizationFailed.into())
        } else {
            command(&image, topic)
        };
        let (image, validate_only) = (&image, request.validate_only);
        async move {
            let grown = match judged {
                Ok(command) => grow(broker, image, command, validate_only).await,
                Err(error) => Err(error),
            };
            result(topic, grown)
        }
    });
    CreatePartitionsResponse::default().with_results(wire::in_order(results, GROWN_AT_ONCE).await)
}

fn command(image: &Image, topic: &CreatePartitionsTopic) -> Result<Command, ApiError> {
    let known = image
        .topic(&topic.name)
        // Kafka says no more than the code.
        .ok_or_else(|| ApiError::new(ResponseError::UnknownTopicOrPartition, ""))?;
    let current = known.partitions.len();
    if usize::try_from(topic.count).is_ok_and(|count| count == current) {
        let words = format!("Topic already has {current} partition(s).");
        return Err(ApiError::new(ResponseError::InvalidPartitions, words));
    }
    let assignments = topic.assignments.as_ref().map(|assignments| {
        assignments
            .iter()
            .map(|one| one.broker_ids.iter().map(|id| BrokerId(id.0)).collect())
            .collect()
    });
    Ok(Command::CreatePartitions(CreatePartitions {
        topic: known.id,
        count: topic.count,
        assignments,
    }))
}

async fn grow(broker: &Broker, image: &Image, command: Command, validate_only: bool) -> Result<(), ApiError> {
    if validate_only {
        image.dry_run(&command).accepted()?;
    } else {
        topics::change(broker, command).await?;
    }
    Ok(())
}

fn result(topic: &CreatePartitionsTopic, grown: Result<(), ApiError>) -> CreatePartitionsTopicResult {
    let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone());
    match grown {
        Ok(()) => result.with_error_message(None),
        Err(error) => result
            .with_error_code(error.code.code())
            .with_error_message(error.text()),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages;
    use kafka_protocol::messages::create_partitions_request::CreatePartitionsAssignment;

    use super::*;
    use crate::kafka::api::testing::{encodes, image};

    fn asked(name: &str, count: i32) -> CreatePartitionsTopic {
        CreatePartitionsTopic::default()
            .with_name(wire::topic_name(name))
            .with_count(count)
            .with_assignments(None)
    }

    fn placed(count: i32, replicas: &[&[i32]]) -> CreatePartitionsTopic {
        let assignments = replicas.iter().map(|replicas| {
            let ids = replicas.iter().map(|id| messages::BrokerId(*id)).collect();
            CreatePartitionsAssignment::default().with_broker_ids(ids)
        });
        asked("two", count).with_assignments(Some(assignments.collect()))
    }

    fn judged(topic: &CreatePartitionsTopic) -> i16 {
        let image = image(&[("two", 2)]);
        let grown = command(&image, topic).and_then(|command| Ok(image.dry_run(&command).accepted()?));
        grown.map_or_else(|error| error.code.code(), |_| 0)
    }

    #[test]
    fn a_topic_only_grows() {
        assert_eq!(judged(&asked("two", 5)), 0);
        for count in [-1, 0, 1, 2] {
            assert_eq!(judged(&asked("two", count)), 37, "{count}");
        }
        assert_eq!(judged(&asked("nowhere", 5)), 3);
        assert_eq!(
            judged(&asked("two", 100_000_000)),
            44,
            "Kafka's controller runs out of memory of this"
        );
    }

    #[test]
    fn each_new_partition_has_its_place() {
        assert_eq!(judged(&placed(3, &[&[1]])), 0);
        assert_eq!(judged(&placed(4, &[&[1]])), 39);
        assert_eq!(judged(&placed(3, &[&[1, 2]])), 39);
        assert_eq!(judged(&placed(3, &[&[]])), 39);
    }

    #[test]
    fn every_version_is_told_what_it_can_read() {
        let topic = asked("two", 5);
        let results = vec![
            result(&topic, Ok(())),
            result(&topic, Err(ApiError::invalid_request("no"))),
        ];
        for version in 0..=3 {
            encodes(
                version,
                &CreatePartitionsResponse::default().with_results(results.clone()),
            );
        }
    }
}
