//! What became of a command, and what it changed.

use std::sync::Arc;

use skerry_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, ProducerId, TopicId, Uuid,
};
use thiserror::Error;

use crate::image::ConfigResource;

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, and there is nothing to tell.
    Done,
    /// The cluster has this id.
    ClusterId(Uuid),
    /// The broker is registered.
    BrokerRegistered {
        /// Its epoch.
        epoch: BrokerEpoch,
    },
    /// The topic exists.
    TopicCreated {
        /// Its id.
        id: TopicId,
    },
    /// The partition is as asked.
    PartitionChanged {
        /// The leader epoch now.
        leader_epoch: LeaderEpoch,
        /// The partition epoch now.
        partition_epoch: PartitionEpoch,
    },
    /// [`crate::PRODUCER_ID_BLOCK`] ids from here on belong to the broker that asked.
    ProducerIds {
        /// The first of them.
        first: ProducerId,
    },
    /// The broker leaves.
    BrokerDrained {
        /// How many partitions it still leads, because nobody else can.
        leading: u32,
    },
    /// What became of each command of a [`crate::Command::Batch`], in its order.
    Batch(Vec<Self>),
    /// Nothing changed.
    Refused(Refusal),
}

impl Outcome {
    /// The refusal as an error, so that callers can use `?`.
    ///
    /// # Errors
    /// The refusal.
    pub fn accepted(self) -> Result<Self, Refusal> {
        match self {
            Self::Refused(refusal) => Err(refusal),
            outcome => Ok(outcome),
        }
    }
}

/// Why a command changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The topic's name is taken.
    #[error("topic '{0}' exists already")]
    TopicExists(Arc<str>),
    /// The name is empty, too long, `.`, `..`, or has a character that Kafka does not allow.
    #[error(
        "'{0}' cannot be a topic's name: 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-', not '.' or '..'"
    )]
    InvalidTopicName(Arc<str>),
    /// Metric names would be the same.
    #[error("topic '{name}' differs from the existing '{existing}' only in '.' and '_'")]
    TopicNameCollides {
        /// The name asked for.
        name: Arc<str>,
        /// The topic in its way.
        existing: Arc<str>,
    },
    /// No such topic.
    #[error("no such topic")]
    UnknownTopic,
    /// No such partition.
    #[error("no such partition")]
    UnknownPartition,
    /// The count is not possible.
    #[error("{0}")]
    InvalidPartitions(String),
    /// There are too few brokers, or less than one replica was asked for.
    #[error("replication factor {wanted}: {available} brokers are available")]
    InvalidReplicationFactor {
        /// What was asked for.
        wanted: i16,
        /// How many brokers can take a replica.
        available: usize,
    },
    /// The placement is not possible.
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    /// More partitions than one topic may have.
    #[error("{0} partitions: at most 10000 are allowed for a topic")]
    TooManyPartitions(usize),
    /// No such broker.
    #[error("broker {0} is not registered")]
    UnknownBroker(BrokerId),
    /// The broker has registered again since.
    #[error("broker {broker} has epoch {current}, not {given}")]
    StaleBrokerEpoch {
        /// The broker.
        broker: BrokerId,
        /// Its epoch.
        current: BrokerEpoch,
        /// The epoch in the command.
        given: BrokerEpoch,
    },
    /// The broker takes part, or has replicas: it cannot be forgotten.
    #[error("broker {0} is alive or has replicas")]
    BrokerInUse(BrokerId),
    /// The broker does not speak the cluster's feature level, or the level is not spoken by all.
    #[error("feature level {level} is not spoken by broker {broker}")]
    UnsupportedFeatureLevel {
        /// The level.
        level: u16,
        /// Who does not speak it.
        broker: BrokerId,
    },
    /// The cluster has not been raised yet to the level from which on the command may be written.
    #[error("the feature level is {current}: this takes {needed}")]
    FeatureLevelTooLow {
        /// The level now.
        current: u16,
        /// The level that it takes.
        needed: u16,
    },
    /// A level cannot be lowered.
    #[error("the feature level is {current}: it cannot become {wanted}")]
    FeatureLevelLowered {
        /// The level now.
        current: u16,
        /// What was asked for.
        wanted: u16,
    },
    /// Another broker leads the partition.
    #[error("broker {0} does not lead the partition")]
    NotLeader(BrokerId),
    /// There has been a newer leader since.
    #[error("the leader epoch is {current}, not {given}")]
    FencedLeaderEpoch {
        /// The partition's.
        current: LeaderEpoch,
        /// The command's.
        given: LeaderEpoch,
    },
    /// The command knows an epoch that does not exist yet.
    #[error(
        "the epochs are leader {leader_epoch}, partition {partition_epoch}: the request is ahead of them"
    )]
    NewerEpoch {
        /// The partition's.
        leader_epoch: LeaderEpoch,
        /// The partition's.
        partition_epoch: PartitionEpoch,
    },
    /// The partition has changed since.
    #[error("the partition epoch is {current}, not {given}")]
    InvalidUpdateVersion {
        /// The partition's.
        current: PartitionEpoch,
        /// The command's.
        given: PartitionEpoch,
    },
    /// A member of the in-sync set asked for is fenced, or has registered again since.
    #[error("broker {0} cannot be in sync")]
    IneligibleReplica(BrokerId),
    /// The in-sync set asked for is empty, has no leader, or has a broker without a replica.
    #[error("{0}")]
    InvalidIsr(String),
    /// The preferred leader leads already, or an unclean election is not needed.
    #[error("the election is not needed")]
    ElectionNotNeeded,
    /// The preferred replica is fenced or not in sync.
    #[error("the preferred replica is not available")]
    PreferredLeaderNotAvailable,
    /// Nobody can lead.
    #[error("no replica can lead")]
    EligibleLeadersNotAvailable,
    /// The copy is the last that has everything acknowledged: there is nothing to start over from.
    #[error("broker {0} has the last copy that may lead")]
    LastReplica(BrokerId),
    /// There is nothing to cancel.
    #[error("no partition reassignment is in progress")]
    ReassignmentNotFound,
    /// The target has another number of replicas, and that was not allowed.
    #[error("the replication factor is changed from {from} to {to}")]
    ReplicationFactorChanged {
        /// Now, without what is being removed.
        from: usize,
        /// In the target.
        to: usize,
    },
    /// A draining broker takes part again only after it has registered again.
    #[error("broker {0} is in controlled shutdown")]
    BrokerDraining(BrokerId),
    /// The command may not be in a batch.
    #[error("only commands about one partition can be batched")]
    NotBatched,
}

/// One thing that a command changed. The image says how it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// The cluster has its id.
    ClusterNamed(Uuid),
    /// A broker registered, was fenced, unfenced, or forgotten.
    BrokerChanged(BrokerId),
    /// A topic with its partitions.
    TopicCreated {
        /// Its id.
        id: TopicId,
        /// Its name.
        name: Arc<str>,
    },
    /// The topic and all its partitions are gone.
    TopicDeleted {
        /// Its id.
        id: TopicId,
        /// Its name.
        name: Arc<str>,
    },
    /// A partition came to an existing topic, or its leader, epoch, replicas or in-sync set changed.
    PartitionChanged {
        /// The topic.
        topic: TopicId,
        /// The topic's name.
        name: Arc<str>,
        /// The partition.
        partition: PartitionIndex,
    },
    /// The configuration of a resource (not told for the topic of a `TopicCreated`).
    ConfigChanged(ConfigResource),
    /// The feature level.
    FeatureLevelChanged(u16),
    /// Everything may have changed: the state came as a snapshot, not as commands.
    Reset,
}
