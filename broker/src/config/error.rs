//! What is wrong with a setting.

use kafka_protocol::error::ResponseError;

use super::row::Scope;

/// A setting cannot be taken as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No setting of that name.
    #[error("Unknown {scope} config name: {key}{}", .nearest.map(|near| format!(" (did you mean {near}?)")).unwrap_or_default())]
    UnknownKey {
        /// The name.
        key: String,
        /// Where it was looked for.
        scope: Scope,
        /// The known name that is most like it.
        nearest: Option<&'static str>,
    },
    /// The value is not one that the setting takes. Begins as Kafka's message does.
    #[error("Invalid value {value} for configuration {key}: {why}; allowed is {allowed}")]
    InvalidValue {
        /// The name.
        key: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        why: String,
        /// What would be right.
        allowed: String,
        /// What the setting belongs to.
        scope: Scope,
    },
    /// Two settings contradict each other.
    #[error("Invalid configuration: {key}={value} {relation} {other}={other_value}")]
    Contradiction {
        /// One name.
        key: &'static str,
        /// Its value.
        value: String,
        /// How they stand to each other, and must not.
        relation: &'static str,
        /// The other name.
        other: &'static str,
        /// The other's value.
        other_value: String,
    },
    /// One key twice in one request.
    #[error("Error due to duplicate config keys: {key}")]
    Duplicate {
        /// The name.
        key: String,
    },
    /// APPEND or SUBTRACT where there is no list.
    #[error("Can't {op} to key {key} because its type is not LIST.")]
    NotAList {
        /// The name.
        key: String,
        /// `APPEND` or `SUBTRACT`.
        op: &'static str,
    },
    /// SET, APPEND or SUBTRACT without a value.
    #[error("Null value not supported for : {key}")]
    NullValue {
        /// The name.
        key: String,
    },
    /// It changes only by a restart.
    #[error("Cannot update these configs dynamically: {key}")]
    ReadOnly {
        /// The name.
        key: String,
    },
    /// It may differ between brokers and so has no value for all of them.
    #[error("Cannot update these configs at default cluster level: {key}")]
    PerBrokerOnly {
        /// The name.
        key: String,
    },
    /// Not 0 to 3.
    #[error("Unknown operation {op} for config {key}")]
    UnknownOperation {
        /// The name.
        key: String,
        /// The number that came.
        op: i8,
    },
}

impl ConfigError {
    /// The error code that Kafka answers for the same mistake.
    #[must_use]
    pub const fn code(&self) -> ResponseError {
        match self {
            // Kafka checks a broker's values in another place, which calls the same mistake a wrong request.
            Self::InvalidValue {
                scope: Scope::Broker | Scope::Node,
                ..
            } => ResponseError::InvalidRequest,
            Self::UnknownKey { .. }
            | Self::InvalidValue { .. }
            | Self::Contradiction { .. }
            | Self::NotAList { .. } => ResponseError::InvalidConfig,
            Self::Duplicate { .. }
            | Self::NullValue { .. }
            | Self::ReadOnly { .. }
            | Self::PerBrokerOnly { .. }
            | Self::UnknownOperation { .. } => ResponseError::InvalidRequest,
        }
    }
}
