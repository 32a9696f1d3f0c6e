//! Our values as the wire writes them, and back.

use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use kafka_protocol::protocol::StrBytes;
use skerry_metadata_state::Refusal;
use skerry_types::{PartitionIndex, Uuid};

use crate::broker::Broker;
use crate::partition::Partition;
use crate::topics::{self, ChangeError};

/// A string for the wire.
#[must_use]
pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A topic's name for the wire.
#[must_use]
pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

/// An id for the wire.
#[must_use]
pub const fn uuid(id: Uuid) -> uuid::Uuid {
    uuid::Uuid::from_bytes(id.0)
}

/// An id from the wire.
#[must_use]
pub const fn id(id: uuid::Uuid) -> Uuid {
    Uuid(id.into_bytes())
}

/// A partition that this broker has.
///
/// # Errors
/// It does not exist, or is elsewhere.
pub fn partition(broker: &Broker, topic: &str, index: i32) -> Result<Arc<Partition>, ResponseError> {
    if let Some(partition) = broker.partitions().get(topic, index) {
        return Ok(partition);
    }
    let known = broker
        .image()
        .topic(topic)
        .is_some_and(|topic| topic.partition(PartitionIndex(index)).is_some());
    Err(if known {
        ResponseError::NotLeaderOrFollower
    } else {
        ResponseError::UnknownTopicOrPartition
    })
}

/// Runs `futures`, `at_once` of them at a time, and gives their outputs in their order.
pub fn in_order<F: Future>(
    futures: impl IntoIterator<Item = F>,
    at_once: usize,
) -> impl Future<Output = Vec<F::Output>> {
    // Made before the first is polled: a stream that makes them as it goes cannot borrow from the request.
    let futures: Vec<F> = futures.into_iter().collect();
    stream::iter(futures).buffered(at_once).collect()
}

/// Kafka's numbers of the operations that an authoriser knows (`AclOperation.code`).
mod operation {
    pub const READ: i32 = 3;
    pub const WRITE: i32 = 4;
    pub const CREATE: i32 = 5;
    pub const DELETE: i32 = 6;
    pub const ALTER: i32 = 7;
    pub const DESCRIBE: i32 = 8;
    pub const CLUSTER_ACTION: i32 = 9;
    pub const DESCRIBE_CONFIGS: i32 = 10;
    pub const ALTER_CONFIGS: i32 = 11;
    pub const IDEMPOTENT_WRITE: i32 = 12;
}

use operation::{
    ALTER, ALTER_CONFIGS, CLUSTER_ACTION, CREATE, DELETE, DESCRIBE, DESCRIBE_CONFIGS, IDEMPOTENT_WRITE, READ,
    WRITE,
};

const fn bits(operations: &[i32]) -> i32 {
    let (mut bits, mut index) = (0, 0);
    while index < operations.len() {
        bits |= 1 << operations[index];
        index += 1;
    }
    bits
}

/// All that anybody can do to a topic, as a set of bits: what Kafka answers where nobody is refused anything.
pub const TOPIC_OPERATIONS: i32 = bits(&[
    READ,
    WRITE,
    CREATE,
    DELETE,
    ALTER,
    DESCRIBE,
    DESCRIBE_CONFIGS,
    ALTER_CONFIGS,
]);
/// All that anybody can do to the cluster.
pub const CLUSTER_OPERATIONS: i32 = bits(&[
    CREATE,
    ALTER,
    DESCRIBE,
    CLUSTER_ACTION,
    DESCRIBE_CONFIGS,
    ALTER_CONFIGS,
    IDEMPOTENT_WRITE,
]);
/// All that anybody can do to a group.
pub const GROUP_OPERATIONS: i32 = bits(&[READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS]);
/// "Not asked for".
pub const NO_OPERATIONS: i32 = i32::MIN;

/// An error code and the message that stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    /// The code.
    pub code: ResponseError,
    /// The message.
    pub message: String,
}

impl ApiError {
    /// `code`, explained by `message`.
    pub fn new(code: ResponseError, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// [`ResponseError::InvalidRequest`], explained by `message`.
    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(ResponseError::InvalidRequest, message)
    }

    /// The message for the wire; null where there is none.
    #[must_use]
    pub fn text(&self) -> Option<StrBytes> {
        (!self.message.is_empty()).then(|| text(&self.message))
    }
}

impl From<ResponseError> for ApiError {
    /// With the words that Kafka's `Errors` has for the code.
    fn from(code: ResponseError) -> Self {
        Self {
            code,
            message: usual_message(code).to_owned(),
        }
    }
}

/// What Kafka says where a code stands alone.
const fn usual_message(code: ResponseError) -> &'static str {
    match code {
        ResponseError::UnknownTopicOrPartition => "This server does not host this topic-partition.",
        ResponseError::UnknownTopicId => "This server does not host this topic ID.",
        ResponseError::TopicAuthorizationFailed => "Topic authorization failed.",
        ResponseError::GroupAuthorizationFailed => "Group authorization failed.",
        ResponseError::ClusterAuthorizationFailed => "Cluster authorization failed.",
        ResponseError::TopicDeletionDisabled => "Topic deletion is disabled.",
        ResponseError::NotLeaderOrFollower => {
            "For requests intended only for the leader, this error indicates that the broker is not the current \
             leader. For requests intended for any replica, this error indicates that the broker is not a replica of \
             the topic partition."
        }
        ResponseError::CoordinatorNotAvailable => "The coordinator is not available.",
        ResponseError::NotCoordinator => "This is not the correct coordinator.",
        ResponseError::RequestTimedOut => "The request timed out.",
        ResponseError::KafkaStorageError => "Disk error when trying to access log file on the disk.",
        ResponseError::InvalidTopicException => {
            "The request attempted to perform an operation on an invalid topic."
        }
        ResponseError::NoReassignmentInProgress => "No partition reassignment is in progress.",
        ResponseError::ElectionNotNeeded => "Leader election not needed for topic partition.",
        ResponseError::InconsistentClusterId => {
            "The clusterId in the request does not match that found on the server"
        }
        ResponseError::VoterNotFound => "The voter is not part of the set of voters.",
        _ => "",
    }
}

impl From<topics::InvalidName> for ApiError {
    fn from(invalid: topics::InvalidName) -> Self {
        Self::new(ResponseError::InvalidTopicException, invalid.to_string())
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal_code(&refusal), refusal.to_string())
    }
}

impl From<ChangeError> for ApiError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Refused(refusal) => refusal.into(),
            ChangeError::Unavailable(why) => Self::new(ResponseError::RequestTimedOut, why),
            // Retriable: Kafka's admin client tries again until its own time is up, and then says why.
            ChangeError::DiskNearlyFull { .. } => {
                Self::new(ResponseError::KafkaStorageError, error.to_string())
            }
        }
    }
}

/// The code of a metadata change that was refused.
const fn refusal_code(refusal: &Refusal) -> ResponseError {
    match refusal {
        Refusal::TopicExists(_) => ResponseError::TopicAlreadyExists,
        Refusal::InvalidTopicName(_) | Refusal::TopicNameCollides { .. } => {
            ResponseError::InvalidTopicException
        }
        Refusal::UnknownTopic | Refusal::UnknownPartition => ResponseError::UnknownTopicOrPartition,
        Refusal::InvalidPartitions(_) => ResponseError::InvalidPartitions,
        Refusal::InvalidReplicationFactor { .. } | Refusal::ReplicationFactorChanged { .. } => {
            ResponseError::InvalidReplicationFactor
        }
        Refusal::InvalidReplicaAssignment(_) => ResponseError::InvalidReplicaAssignment,
        Refusal::ReassignmentNotFound => ResponseError::NoReassignmentInProgress,
        Refusal::TooManyPartitions(_) => ResponseError::PolicyViolation,
        Refusal::UnknownBroker(_) => ResponseError::BrokerIdNotRegistered,
        Refusal::StaleBrokerEpoch { .. } => ResponseError::StaleBrokerEpoch,
        Refusal::BrokerInUse(_) => ResponseError::InvalidRequest,
        Refusal::UnsupportedFeatureLevel { .. } | Refusal::FeatureLevelTooLow { .. } => {
            ResponseError::UnsupportedVersion
        }
        Refusal::FeatureLevelLowered { .. } => ResponseError::InvalidUpdateVersion,
        Refusal::NotLeader(_) => ResponseError::NotLeaderOrFollower,
        Refusal::FencedLeaderEpoch { .. } => ResponseError::FencedLeaderEpoch,
        Refusal::NewerEpoch { .. } => ResponseError::NotController,
        Refusal::InvalidUpdateVersion { .. } => ResponseError::InvalidUpdateVersion,
        Refusal::IneligibleReplica(_) => ResponseError::IneligibleReplica,
        Refusal::InvalidIsr(_) | Refusal::NotBatched | Refusal::BrokerDraining(_) => {
            ResponseError::InvalidRequest
        }
        Refusal::ElectionNotNeeded => ResponseError::ElectionNotNeeded,
        Refusal::PreferredLeaderNotAvailable => ResponseError::PreferredLeaderNotAvailable,
        Refusal::EligibleLeadersNotAvailable | Refusal::LastReplica(_) => {
            ResponseError::EligibleLeadersNotAvailable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_the_bits_that_kafka_answers() {
        assert_eq!(
            (TOPIC_OPERATIONS, CLUSTER_OPERATIONS, GROUP_OPERATIONS),
            (3576, 8096, 3400)
        );
    }
}
