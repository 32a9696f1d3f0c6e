//! What has a configuration, as requests name it: a type and a text.

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use skerry_metadata_state::{AlterConfigs, Command, ConfigOp, ConfigResource, Image};
use skerry_types::BrokerId;

use super::dispatch::Context;
use super::wire::ApiError;
use crate::config::{ConfigError, ConfigMap, Target};
use crate::gate::{self, Operation};
use crate::topics;

/// A topic.
pub const TOPIC: i8 = 2;
/// A broker, or all of them where the name is empty.
pub const BROKER: i8 = 4;
/// A broker's loggers.
pub const BROKER_LOGGER: i8 = 8;
/// A subscription to clients' metrics.
pub const CLIENT_METRICS: i8 = 16;
/// A consumer group.
pub const GROUP: i8 = 32;

impl From<ConfigError> for ApiError {
    fn from(error: ConfigError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// A change of `resource` that is wrong in itself. For a broker's settings Kafka has another code (KAFKA-13609).
#[must_use]
pub fn rejected(resource: &ConfigResource, error: ConfigError) -> ApiError {
    let of_a_broker = matches!(
        resource,
        ConfigResource::Broker(_) | ConfigResource::ClusterDefault
    );
    match error {
        ConfigError::InvalidValue { .. } | ConfigError::Contradiction { .. } if of_a_broker => {
            ApiError::invalid_request(error.to_string())
        }
        error => error.into(),
    }
}

/// The number of this broker, as a resource's name spells it.
///
/// # Errors
/// It is another broker's, or no number.
pub fn own_number(me: BrokerId, name: &str) -> Result<BrokerId, ApiError> {
    let number: i32 = name
        .parse()
        .map_err(|_| ApiError::invalid_request(format!("Node id must be an integer, but it is: {name}")))?;
    if number == me.get() {
        return Ok(me);
    }
    Err(ApiError::invalid_request(format!(
        "Unexpected broker id, expected {me}, but received {name}"
    )))
}

/// True where one of those named is a topic that is not in `image`.
pub fn has_unknown_topic<'a>(image: &Image, mut named: impl Iterator<Item = (i8, &'a str)>) -> bool {
    named.any(|(kind, name)| kind == TOPIC && image.topic(name).is_none())
}

/// The resource whose configuration a request wants to change.
///
/// # Errors
/// There is no such resource, or it has nothing that can be changed.
pub fn alterable(me: BrokerId, kind: i8, name: &str) -> Result<ConfigResource, ApiError> {
    match kind {
        TOPIC if name.is_empty() => Err(ApiError::invalid_request(
            "Default topic resources are not allowed.",
        )),
        TOPIC => {
            topics::validate_name(name)?;
            Ok(ConfigResource::Topic(name.into()))
        }
        BROKER if name.is_empty() => Ok(ConfigResource::ClusterDefault),
        BROKER => Ok(ConfigResource::Broker(own_number(me, name)?)),
        GROUP if name.is_empty() => Err(ApiError::invalid_request(
            "Default group resources are not allowed.",
        )),
        GROUP => Ok(ConfigResource::Group(name.into())),
        BROKER_LOGGER => {
            own_number(me, name)?;
            Err(ApiError::invalid_request(
                "The loggers of this broker are set by SKERRY_LOG when it starts.",
            ))
        }
        CLIENT_METRICS => Err(ApiError::invalid_request(
            "This broker collects no metrics of clients.",
        )),
        other => Err(ApiError::invalid_request(format!(
            "Unknown resource type {other}"
        ))),
    }
}

/// Which table of settings `resource` has.
#[must_use]
pub const fn target(resource: &ConfigResource) -> Target {
    match resource {
        ConfigResource::Topic(_) => Target::Topic,
        ConfigResource::Broker(_) => Target::Broker,
        ConfigResource::ClusterDefault => Target::ClusterDefault,
        ConfigResource::Group(_) => Target::Group,
    }
}

/// What `resource` overrides.
#[must_use]
pub fn overrides(image: &Image, resource: &ConfigResource) -> ConfigMap {
    image
        .config(resource)
        .map(|configs| ConfigMap::clone(configs))
        .unwrap_or_default()
}

/// Checks that `context` may do `operation` to `resource`.
///
/// # Errors
/// The code that goes with the kind of resource.
pub fn authorise(context: &Context, operation: Operation, resource: &ConfigResource) -> Result<(), ApiError> {
    let (of, code) = match resource {
        ConfigResource::Topic(name) => (
            gate::Resource::Topic(name),
            ResponseError::TopicAuthorizationFailed,
        ),
        ConfigResource::Group(name) => (
            gate::Resource::Group(name),
            ResponseError::GroupAuthorizationFailed,
        ),
        ConfigResource::Broker(_) | ConfigResource::ClusterDefault => {
            (gate::Resource::Cluster, ResponseError::ClusterAuthorizationFailed)
        }
    };
    if context.broker.gate().allows(&context.caller(), operation, of) {
        Ok(())
    } else {
        Err(code.into())
    }
}

/// Changes a configuration by `ops`, which have been checked, or only says whether it could.
///
/// # Errors
/// The topic does not exist, or the quorum did not answer.
pub async fn alter(
    context: &Context,
    image: &Image,
    resource: ConfigResource,
    replace: bool,
    ops: Vec<(std::sync::Arc<str>, ConfigOp)>,
    validate_only: bool,
) -> Result<(), ApiError> {
    if let ConfigResource::Topic(name) = &resource
        && image.topic(name).is_none()
    {
        let words = format!("The topic '{name}' does not exist.");
        return Err(ApiError::new(ResponseError::UnknownTopicOrPartition, words));
    }
    let command = Command::AlterConfigs(AlterConfigs {
        resource,
        replace,
        ops,
    });
    if validate_only {
        image.dry_run(&command).accepted()?;
    } else {
        topics::change(&context.broker, command).await?;
    }
    Ok(())
}

/// The code and the words of an answer about one resource.
#[must_use]
pub fn verdict(altered: Result<(), ApiError>) -> (i16, Option<StrBytes>) {
    match altered {
        Ok(()) => (0, None),
        Err(error) => (error.code.code(), error.text()),
    }
}

/// Finds the resources, by type and name, that a request has more than once.
pub fn repeated<'a>(all: impl Iterator<Item = (i8, &'a str)>) -> std::collections::BTreeSet<(i8, &'a str)> {
    let mut seen = std::collections::BTreeSet::new();
    all.filter(|resource| !seen.insert(*resource)).collect()
}

/// What each of them is told.
#[must_use]
pub fn repeated_error() -> ApiError {
    ApiError::invalid_request("Each resource must appear at most once.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_named_as_kafka_names_them() {
        let me = BrokerId(1);
        assert_eq!(alterable(me, TOPIC, "a"), Ok(ConfigResource::Topic("a".into())));
        assert_eq!(alterable(me, BROKER, ""), Ok(ConfigResource::ClusterDefault));
        assert_eq!(alterable(me, BROKER, "1"), Ok(ConfigResource::Broker(me)));
        assert_eq!(alterable(me, GROUP, "g"), Ok(ConfigResource::Group("g".into())));
        let why = |kind, name| alterable(me, kind, name).unwrap_err();
        assert_eq!(
            why(BROKER, "2").message,
            "Unexpected broker id, expected 1, but received 2"
        );
        assert_eq!(
            why(BROKER, "x").message,
            "Node id must be an integer, but it is: x"
        );
        assert_eq!(why(TOPIC, "a b").code, ResponseError::InvalidTopicException);
        for (kind, name) in [
            (TOPIC, ""),
            (GROUP, ""),
            (BROKER_LOGGER, "1"),
            (CLIENT_METRICS, "m"),
            (0, "x"),
            (99, "x"),
        ] {
            assert_eq!(
                why(kind, name).code,
                ResponseError::InvalidRequest,
                "{kind} {name}"
            );
        }
    }
}
