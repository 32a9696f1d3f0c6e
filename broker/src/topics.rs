//! Topics: which names are legal, and how topics come into being so that whoever asked can use them at once.

use std::sync::Arc;

use skerry_metadata_state::{
    Command, ConfigResource, CreateTopic, Image, Outcome, Placement, Refusal, TOPIC_NAME_BYTES_MAX,
};
use skerry_types::TopicId;
use thiserror::Error;

use crate::broker::Broker;
use crate::config::{BrokerConfig, BrokerLayers};

/// Where classic groups are kept.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// Where transactions would be kept.
pub const TRANSACTION_STATE: &str = "__transaction_state";
/// Where share groups would be kept.
pub const SHARE_GROUP_STATE: &str = "__share_group_state";
/// The name of Kafka's metadata log: nobody may make a topic of that name.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// A topic that belongs to the broker.
#[must_use]
pub fn is_internal(name: &str) -> bool {
    matches!(name, CONSUMER_OFFSETS | TRANSACTION_STATE | SHARE_GROUP_STATE)
}

/// A name that no topic can have. The words are Kafka's (`Topic.validate`).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidName {
    /// No characters at all.
    #[error("Topic name is invalid: the empty string is not allowed")]
    Empty,
    /// `.` or `..`.
    #[error("Topic name is invalid: '{0}' is not allowed")]
    Dots(String),
    /// Too long for a folder's name.
    #[error(
        "Topic name is invalid: the length of '{0}' is longer than the max allowed length {TOPIC_NAME_BYTES_MAX}"
    )]
    TooLong(String),
    /// A character that does not belong there.
    #[error(
        "Topic name is invalid: '{0}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
    )]
    Character(String),
}

/// Checks that a topic can have this name.
///
/// # Errors
/// [`InvalidName`].
pub fn validate_name(name: &str) -> Result<(), InvalidName> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if name.is_empty() {
        Err(InvalidName::Empty)
    } else if matches!(name, "." | "..") {
        Err(InvalidName::Dots(name.to_owned()))
    } else if name.chars().count() > TOPIC_NAME_BYTES_MAX {
        Err(InvalidName::TooLong(name.to_owned()))
    } else if !name.bytes().all(legal) {
        Err(InvalidName::Character(name.to_owned()))
    } else {
        Ok(())
    }
}

/// Why the metadata did not change.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeError {
    /// The command was not acceptable.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The quorum could not be asked, or did not answer in time. It may still happen.
    #[error("the metadata quorum did not answer: {0}")]
    Unavailable(String),
    /// New partitions need room, which this broker's disk does not have. It may have some later.
    #[error(
        "the disk is nearly full: {free_bytes} bytes are free; topics can be made when there is room again"
    )]
    DiskNearlyFull {
        /// What is free.
        free_bytes: u64,
    },
}

/// Proposes `command` and gives its outcome once this broker has acted on it.
///
/// # Errors
/// [`ChangeError`].
pub async fn change(broker: &Broker, command: Command) -> Result<Outcome, ChangeError> {
    let needs_room = matches!(command, Command::CreateTopic(_) | Command::CreatePartitions(_));
    if let Some(free_bytes) = broker.disk_room().nearly_full().filter(|_| needs_room) {
        return Err(ChangeError::DiskNearlyFull { free_bytes });
    }
    let outcome = broker
        .propose(command)
        .await
        .map_err(|error| ChangeError::Unavailable(error.to_string()))?;
    Ok(outcome.accepted()?)
}

/// Proposes commands about one partition each, together, and gives what became of each of them. What was wrong before
/// stays so.
pub async fn change_each<E: From<ChangeError>>(
    broker: &Broker,
    commands: Vec<Result<Command, E>>,
) -> Vec<Result<Outcome, E>> {
    let batch: Vec<Command> = commands
        .iter()
        .filter_map(|command| command.as_ref().ok().cloned())
        .collect();
    let answered = if batch.is_empty() {
        Ok(Outcome::Batch(Vec::new()))
    } else {
        change(broker, Command::Batch(batch)).await
    };
    let mut outcomes = match &answered {
        Ok(Outcome::Batch(outcomes)) => outcomes.iter(),
        _ => [].iter(),
    };
    let outcome = |outcomes: &mut std::slice::Iter<'_, Outcome>| -> Result<Outcome, ChangeError> {
        match (outcomes.next(), &answered) {
            (Some(outcome), _) => Ok(outcome.clone().accepted()?),
            (None, Err(error)) => Err(error.clone()),
            (None, Ok(other)) => Err(ChangeError::Unavailable(format!("unexpected answer {other:?}"))),
        }
    };
    commands
        .into_iter()
        .map(|command| {
            command?;
            Ok(outcome(&mut outcomes)?)
        })
        .collect()
}

/// What a topic overrides, key by key.
pub type Overrides = Vec<(Arc<str>, Arc<str>)>;

/// A topic to be made.
#[derive(Clone, Debug)]
pub struct NewTopic {
    /// Its name.
    pub name: Arc<str>,
    /// Where its partitions go.
    pub placement: Placement,
    /// What it overrides, validated.
    pub configs: Overrides,
}

impl NewTopic {
    /// The command that makes it, with an id that nobody has.
    #[must_use]
    pub fn command(self, broker: &Broker) -> CreateTopic {
        let Self {
            name,
            placement,
            configs,
        } = self;
        let env = broker.env();
        CreateTopic {
            id: env.rng.uuid(),
            name,
            placement,
            configs,
            at: env.clock.wall(),
        }
    }

    /// What is made when a client uses `name` for the first time.
    #[must_use]
    pub fn on_first_use(name: &str, settings: &BrokerConfig, image: &Image) -> Self {
        let factor = |factor: i32| i16::try_from(factor).unwrap_or(i16::MAX);
        let (partitions, replication_factor, configs) = match name {
            CONSUMER_OFFSETS => {
                // Kafka's default of 3 replicas would keep a small cluster from ever having groups.
                let brokers = i16::try_from(image.unfenced_brokers().count()).unwrap_or(i16::MAX);
                let factor = factor(settings.offsets_topic_replication_factor)
                    .min(brokers)
                    .max(1);
                let configs: Overrides = vec![
                    ("cleanup.policy".into(), "compact".into()),
                    ("compression.type".into(), "producer".into()),
                    (
                        "segment.bytes".into(),
                        settings.offsets_topic_segment_bytes.to_string().into(),
                    ),
                ];
                (settings.offsets_topic_partitions, factor, configs)
            }
            _ => (
                settings.num_partitions,
                factor(settings.default_replication_factor),
                Vec::new(),
            ),
        };
        Self {
            name: name.into(),
            placement: Placement::Automatic {
                partitions,
                replication_factor,
            },
            configs,
        }
    }
}

/// The settings of this broker, layer by layer.
#[must_use]
pub fn layers<'a>(broker: &'a Broker, image: &'a Image) -> BrokerLayers<'a> {
    let mut layers = BrokerLayers::given(&broker.config().given);
    if let Some(own) = image.config(&ConfigResource::Broker(broker.id())) {
        layers.own = own;
    }
    if let Some(cluster) = image.config(&ConfigResource::ClusterDefault) {
        layers.cluster = cluster;
    }
    layers
}

/// Makes a topic. It can be used when this returns.
///
/// # Errors
/// [`ChangeError`].
pub async fn create(broker: &Broker, topic: NewTopic) -> Result<TopicId, ChangeError> {
    let command = topic.command(broker);
    let id = command.id;
    change(broker, Command::CreateTopic(command)).await?;
    Ok(id)
}

/// Makes sure that the topic `name` exists and can be used here. Losing a race against another client that makes it is
/// as good as winning.
///
/// # Errors
/// [`ChangeError`].
pub async fn ensure(broker: &Broker, name: &str) -> Result<(), ChangeError> {
    let image = broker.image();
    if image.topic(name).is_some() {
        broker.wait_applied(broker.quorum().changes()).await;
        return Ok(());
    }
    let new = NewTopic::on_first_use(name, &broker.settings().broker(), &image);
    match create(broker, new).await {
        Ok(_) | Err(ChangeError::Refused(Refusal::TopicExists(_))) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_kafka_judges_them() {
        let why = |name: &str| validate_name(name).unwrap_err().to_string();
        assert_eq!(why(""), "Topic name is invalid: the empty string is not allowed");
        assert_eq!(why("."), "Topic name is invalid: '.' is not allowed");
        assert_eq!(why(".."), "Topic name is invalid: '..' is not allowed");
        assert!(why(&"x".repeat(250)).ends_with("is longer than the max allowed length 249"));
        assert!(why("a b").contains("characters other than ASCII alphanumerics"));
        assert!(why("ä").contains("characters other than ASCII alphanumerics"));
        for legal in ["a", "...", "A-b_c.9", "__consumer_offsets"] {
            assert_eq!(validate_name(legal), Ok(()));
        }
        assert_eq!(validate_name(&"x".repeat(249)), Ok(()));
    }
}
