//! CreateTopics (19), v2-v7. v4 takes -1 for the broker's defaults (KIP-464), v5 tells what was made (KIP-525), v7 the
//! id (KIP-516).
//!
//! Kafka answers before every broker knows the topic, and clients stumble on that: here a topic can be used when it is
//! answered.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use skerry_metadata_state::{Command, CreateTopic, Image, PARTITIONS_PER_TOPIC_MAX, Placement};
use skerry_types::BrokerId;

use crate::broker::Broker;
use crate::config::{BrokerConfig, BrokerLayers, ConfigMap, describe_topic, validate_create};
use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};
use crate::topics::{self, CLUSTER_METADATA, NewTopic, Overrides};

api!(CreateTopics, 2..=7, CreateTopicsRequest, handle);

/// Topics that are made at a time: they share the quorum's syncs.
const CREATED_AT_ONCE: usize = 16;
/// "The broker's default."
const DEFAULT: i32 = -1;

async fn handle(context: Context, version: i16, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let broker = &context.broker;
    let exists = |image: &Image| {
        let mut topics = request.topics.iter();
        topics.any(|topic| image.topic(&topic.name).is_some())
    };
    let image = broker.newest_image_if(exists).await;
    let layers = topics::layers(broker, &image);
    let settings = broker.settings().broker();
    let judge = Judge {
        image: &image,
        layers,
        settings: &settings,
        topics: &request.topics,
    };
    if let Err(error) = judge.all() {
        let results = request
            .topics
            .iter()
            .map(|topic| refused(topic, error.clone()))
            .collect();
        return CreateTopicsResponse::default().with_topics(results);
    }
    let caller = context.caller();
    let may_create = |topic: &CreatableTopic| {
        broker
            .gate()
            .allows(&caller, Operation::Create, Resource::Topic(&topic.name))
    };
    let repeated = repeated(&request.topics);
    // A name that comes twice is answered once.
    let mut answered = BTreeSet::new();
    let topics = request
        .topics
        .iter()
        .filter(|topic| answered.insert(topic.name.as_str()));
    let results = topics.map(|topic| {
        let judged = if repeated.contains(topic.name.as_str()) {
            Err(ApiError::invalid_request("Duplicate topic name."))
        } else if !may_create(topic) {
            Err(ApiError::new(
                ResponseError::TopicAuthorizationFailed,
                "Authorization failed.",
            ))
        } else {
            judge.one(topic)
        };
        let (image, validate_only) = (&image, request.validate_only);
        async move {
            let made = match judged {
                Ok(new) => make(broker, image, new, validate_only).await,
                Err(error) => Err(error),
            };
            match made {
                Ok(made) => succeeded(version, topic, &made, layers),
                Err(error) => refused(topic, error),
            }
        }
    });
    CreateTopicsResponse::default().with_topics(wire::in_order(results, CREATED_AT_ONCE).await)
}

/// Names that a request has more than once: Kafka makes none of them.
fn repeated(topics: &[CreatableTopic]) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    topics
        .iter()
        .map(|topic| topic.name.as_str())
        .filter(|name| !seen.insert(*name))
        .collect()
}

/// Decides what a request may make, before the quorum decides.
struct Judge<'a> {
    image: &'a Image,
    layers: BrokerLayers<'a>,
    settings: &'a BrokerConfig,
    topics: &'a [CreatableTopic],
}

impl Judge<'_> {
    /// What makes Kafka refuse the request as a whole.
    fn all(&self) -> Result<(), ApiError> {
        let partitions: i64 = self.topics.iter().map(|topic| self.partitions_of(topic)).sum();
        if partitions > PARTITIONS_PER_TOPIC_MAX as i64 {
            let words = "Excessively large number of partitions per request.";
            return Err(ApiError::new(ResponseError::PolicyViolation, words));
        }
        Ok(())
    }

    fn partitions_of(&self, topic: &CreatableTopic) -> i64 {
        match topic.num_partitions {
            _ if !topic.assignments.is_empty() => i64::try_from(topic.assignments.len()).unwrap_or(i64::MAX),
            DEFAULT => self.settings.num_partitions.into(),
            count => count.max(0).into(),
        }
    }

    /// The topic to be made. The checks and their order are Kafka's (`ReplicationControlManager.createTopics`).
    fn one(&self, topic: &CreatableTopic) -> Result<NewTopic, ApiError> {
        if topic.name.as_str() == CLUSTER_METADATA {
            let words = format!("Creation of internal topic {CLUSTER_METADATA} is prohibited.");
            return Err(ApiError::invalid_request(words));
        }
        topics::validate_name(&topic.name)?;
        if self.image.topic(&topic.name).is_some() {
            let words = format!("Topic '{}' already exists.", topic.name.as_str());
            return Err(ApiError::new(ResponseError::TopicAlreadyExists, words));
        }
        let configs = self.configs(topic)?;
        let placement = if topic.assignments.is_empty() {
            self.automatic(topic)?
        } else {
            manual(topic)?
        };
        Ok(NewTopic {
            name: topic.name.as_str().into(),
            placement,
            configs,
        })
    }

    fn configs(&self, topic: &CreatableTopic) -> Result<Overrides, ApiError> {
        let nulls: Vec<&str> = topic
            .configs
            .iter()
            .filter(|config| config.value.is_none())
            .map(|config| config.name.as_str())
            .collect();
        if !nulls.is_empty() {
            let words = format!("Null value not supported for topic configs: {}", nulls.join(","));
            return Err(ApiError::new(ResponseError::InvalidConfig, words));
        }
        // Of a key that comes twice the last value counts, here and nowhere else.
        let configs: BTreeMap<&str, Option<&str>> = topic
            .configs
            .iter()
            .map(|config| (config.name.as_str(), config.value.as_deref()))
            .collect();
        validate_create(configs, self.layers).map_err(ApiError::from)
    }

    fn automatic(&self, topic: &CreatableTopic) -> Result<Placement, ApiError> {
        if topic.replication_factor < -1 || topic.replication_factor == 0 {
            let words = "Replication factor must be larger than 0, or -1 to use the default value.";
            return Err(ApiError::new(ResponseError::InvalidReplicationFactor, words));
        }
        if topic.num_partitions < DEFAULT || topic.num_partitions == 0 {
            let words = "Number of partitions was set to an invalid non-positive value.";
            return Err(ApiError::new(ResponseError::InvalidPartitions, words));
        }
        let partitions = if topic.num_partitions == DEFAULT {
            self.settings.num_partitions
        } else {
            topic.num_partitions
        };
        let replication_factor = match topic.replication_factor {
            -1 => i16::try_from(self.settings.default_replication_factor).unwrap_or(i16::MAX),
            factor => factor,
        };
        Ok(Placement::Automatic {
            partitions,
            replication_factor,
        })
    }
}

/// The placement that the request spells out.
fn manual(topic: &CreatableTopic) -> Result<Placement, ApiError> {
    let mistake = |words: &str| Err(ApiError::invalid_request(words));
    if topic.replication_factor != -1 {
        return mistake(
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        );
    }
    if topic.num_partitions != DEFAULT {
        return mistake("A manual partition assignment was specified, but numPartitions was not set to -1.");
    }
    let refuse = |words: String| ApiError::new(ResponseError::InvalidReplicaAssignment, words);
    let mut by_partition = BTreeMap::new();
    for assignment in &topic.assignments {
        let replicas: Vec<BrokerId> = assignment.broker_ids.iter().map(|id| BrokerId(id.0)).collect();
        if by_partition
            .insert(assignment.partition_index, replicas)
            .is_some()
        {
            let index = assignment.partition_index;
            return Err(refuse(format!(
                "Found multiple manual partition assignments for partition {index}"
            )));
        }
    }
    if by_partition
        .keys()
        .zip(0..)
        .any(|(index, expected)| *index != expected)
    {
        return Err(refuse(
            "partitions should be a consecutive 0-based integer sequence".to_owned(),
        ));
    }
    Ok(Placement::Manual(by_partition.into_values().collect()))
}

/// What was made, or would be.
struct Made {
    command: CreateTopic,
    partitions: usize,
    replication_factor: usize,
}

async fn make(broker: &Broker, image: &Image, new: NewTopic, validate_only: bool) -> Result<Made, ApiError> {
    let command = new.command(broker);
    let (partitions, replication_factor) = match &command.placement {
        Placement::Automatic {
            partitions,
            replication_factor,
        } => (
            usize::try_from(*partitions).unwrap_or(0),
            usize::try_from(*replication_factor).unwrap_or(0),
        ),
        Placement::Manual(assignments) => (assignments.len(), assignments.first().map_or(0, Vec::len)),
    };
    if validate_only {
        image.dry_run(&Command::CreateTopic(command.clone())).accepted()?;
    } else {
        topics::change(broker, Command::CreateTopic(command.clone())).await?;
    }
    Ok(Made {
        command,
        partitions,
        replication_factor,
    })
}

fn succeeded(
    version: i16,
    topic: &CreatableTopic,
    made: &Made,
    layers: BrokerLayers<'_>,
) -> CreatableTopicResult {
    let mut result = CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_error_message(None);
    if version >= 5 {
        let own: ConfigMap = made.command.configs.iter().cloned().collect();
        let configs = describe_topic(&own, layers).into_iter().map(|config| {
            CreatableTopicConfigs::default()
                .with_name(wire::text(config.name))
                .with_value(config.value.as_deref().map(wire::text))
                .with_read_only(config.read_only)
                .with_config_source(config.source as i8)
                .with_is_sensitive(config.sensitive)
        });
        result.configs = Some(configs.collect());
        result.num_partitions = i32::try_from(made.partitions).unwrap_or(i32::MAX);
        result.replication_factor = i16::try_from(made.replication_factor).unwrap_or(i16::MAX);
    }
    if version >= 7 {
        result.topic_id = wire::uuid(made.command.id);
    }
    result
}

fn refused(topic: &CreatableTopic, error: ApiError) -> CreatableTopicResult {
    CreatableTopicResult::default()
        .with_name(topic.name.clone())
        .with_error_code(error.code.code())
        .with_error_message(error.text())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages;
    use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopicConfig};
    use skerry_types::{Uuid, WallMs};

    use super::*;
    use crate::kafka::api::testing::{encodes, image};

    fn asked(name: &str, partitions: i32, factor: i16) -> CreatableTopic {
        CreatableTopic::default()
            .with_name(wire::topic_name(name))
            .with_num_partitions(partitions)
            .with_replication_factor(factor)
    }

    fn config(key: &str, value: Option<&str>) -> CreatableTopicConfig {
        CreatableTopicConfig::default()
            .with_name(wire::text(key))
            .with_value(value.map(wire::text))
    }

    fn placed(partitions: &[(i32, &[i32])]) -> CreatableTopic {
        let assignments = partitions.iter().map(|(index, replicas)| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*index)
                .with_broker_ids(replicas.iter().map(|id| messages::BrokerId(*id)).collect())
        });
        asked("placed", -1, -1).with_assignments(assignments.collect())
    }

    /// The error code that a topic meets on its way to the quorum, and in it; 0 where it would be made.
    fn judged(topic: CreatableTopic) -> i16 {
        let image = image(&[("there", 1), ("a_b", 1)]);
        let (layers, settings, topics) = (BrokerLayers::default(), BrokerConfig::default(), [topic]);
        let judge = Judge {
            image: &image,
            layers,
            settings: &settings,
            topics: &topics,
        };
        let made = judge.all().and_then(|()| judge.one(&topics[0])).and_then(|new| {
            let NewTopic {
                name,
                placement,
                configs,
            } = new;
            let command = CreateTopic {
                id: Uuid([99; 16]),
                name,
                placement,
                configs,
                at: WallMs(0),
            };
            Ok(image.dry_run(&Command::CreateTopic(command)).accepted()?)
        });
        made.map_or_else(|error| error.code.code(), |_| 0)
    }

    #[test]
    fn a_topic_is_refused_for_kafka_s_reasons() {
        assert_eq!(judged(asked("new", -1, -1)), 0);
        assert_eq!(judged(asked("new", 3, 1)), 0);
        assert_eq!(judged(asked("there", 1, 1)), 36);
        for illegal in ["", ".", "..", "a b", &"x".repeat(250)] {
            assert_eq!(judged(asked(illegal, 1, 1)), 17, "{illegal}");
        }
        assert_eq!(
            judged(asked("a.b", 1, 1)),
            17,
            "it differs from a_b in nothing that metrics can show"
        );
        assert_eq!(judged(asked(CLUSTER_METADATA, 1, 1)), 42);
        assert_eq!(judged(asked("new", 0, 1)), 37);
        assert_eq!(judged(asked("new", -2, 1)), 37);
        assert_eq!(judged(asked("new", 1, 0)), 38);
        assert_eq!(judged(asked("new", 1, 2)), 38, "there is one broker");
        assert_eq!(judged(asked("new", 10_000, 1)), 0);
        assert_eq!(judged(asked("new", 10_001, 1)), 44);
    }

    #[test]
    fn settings_are_judged_before_the_quorum_sees_them() {
        let with = |key, value| judged(asked("new", 1, 1).with_configs(vec![config(key, value)]));
        assert_eq!(with("retention.ms", Some("1000")), 0);
        assert_eq!(with("retention.ms", Some("soon")), 40);
        assert_eq!(with("retention.ms", None), 40);
        assert_eq!(with("no.such.key", Some("1")), 40);
        assert_eq!(with("segment.bytes", Some("1000")), 40, "1 MiB is the least");
        assert_eq!(
            with("min.insync.replicas", Some("3")),
            0,
            "more than there are replicas"
        );
        let twice = vec![
            config("retention.ms", Some("1")),
            config("retention.ms", Some("2")),
        ];
        assert_eq!(judged(asked("new", 1, 1).with_configs(twice)), 0);
    }

    #[test]
    fn a_placement_is_spelled_out_whole_or_not_at_all() {
        assert_eq!(judged(placed(&[(1, &[1]), (0, &[1])])), 0);
        assert_eq!(judged(placed(&[(0, &[1]), (2, &[1])])), 39);
        assert_eq!(judged(placed(&[(0, &[1]), (0, &[1])])), 39);
        assert_eq!(judged(placed(&[(0, &[7])])), 39);
        assert_eq!(judged(placed(&[(0, &[])])), 39);
        assert_eq!(judged(placed(&[(0, &[1, 1])])), 39);
        assert_eq!(judged(placed(&[(0, &[1])]).with_num_partitions(1)), 42);
        assert_eq!(judged(placed(&[(0, &[1])]).with_replication_factor(1)), 42);
    }

    #[test]
    fn a_name_that_comes_twice_is_made_not_at_all() {
        let topics = [asked("a", 1, 1), asked("b", 1, 1), asked("a", 1, 1)];
        assert_eq!(repeated(&topics), BTreeSet::from(["a"]));
    }

    #[test]
    fn every_version_is_told_what_it_can_read() {
        let topic = asked("new", 2, 1);
        let command = CreateTopic {
            id: Uuid([9; 16]),
            name: "new".into(),
            placement: Placement::Automatic {
                partitions: 2,
                replication_factor: 1,
            },
            configs: vec![("retention.ms".into(), "5".into())],
            at: WallMs(0),
        };
        let made = Made {
            command,
            partitions: 2,
            replication_factor: 1,
        };
        for version in 2..=7 {
            let result = succeeded(version, &topic, &made, BrokerLayers::default());
            let error = refused(&topic, ApiError::from(ResponseError::TopicAlreadyExists));
            if version >= 5 {
                let configs = result.configs.as_ref().unwrap();
                let retention = configs
                    .iter()
                    .find(|config| &*config.name == "retention.ms")
                    .unwrap();
                assert_eq!(
                    (retention.value.as_deref(), retention.config_source),
                    (Some("5"), 1)
                );
                assert_eq!((result.num_partitions, result.replication_factor), (2, 1));
            }
            encodes(
                version,
                &CreateTopicsResponse::default().with_topics(vec![result, error]),
            );
        }
    }
}
