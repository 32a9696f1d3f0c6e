//! What can be asked of the metadata.

use std::sync::Arc;

use skerry_types::{
    BrokerEpoch, BrokerId, IncarnationId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, Uuid, WallMs,
};

use crate::image::{ConfigResource, HostPort};

/// One entry of the metadata log. It carries its own time and ids, so that every broker computes the same.
///
/// A retry of a command that was applied already does no harm: it is refused by its guard, or finds its own work. Where another
/// change came between, it would undo that one: so a first request that arrives after its retry is not taken (`quorum.proto`,
/// `Asker`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Names the cluster. The first one wins; later ones are told its id.
    InitCluster {
        /// The id to take if there is none yet.
        cluster_id: Uuid,
        /// The feature level that the cluster starts at.
        feature_level: u16,
    },
    /// Registers one start of a broker. It is fenced until [`Command::UnfenceBroker`].
    RegisterBroker(RegisterBroker),
    /// The broker has caught up and takes part: it may lead and be in sync.
    UnfenceBroker(BrokerGuard),
    /// The broker is gone: it leads nothing and is in no in-sync set.
    FenceBroker(BrokerGuard),
    /// The broker is about to leave (Kafka's controlled shutdown): where another active in-sync replica is, that one
    /// leads and this one leaves the in-sync set. It gets no replicas and no leaderships until it registers again.
    DrainBroker(BrokerGuard),
    /// Forgets a broker that is fenced and has no replicas.
    UnregisterBroker {
        /// The broker.
        broker: BrokerId,
    },
    /// Creates a topic.
    CreateTopic(CreateTopic),
    /// Deletes a topic with its configuration.
    DeleteTopic {
        /// The topic.
        topic: TopicId,
    },
    /// Adds partitions to a topic.
    CreatePartitions(CreatePartitions),
    /// Changes the configuration of one resource.
    AlterConfigs(AlterConfigs),
    /// A leader asks for another in-sync set (Kafka's AlterPartition).
    ChangePartition(ChangePartition),
    /// A broker's copy is damaged or gone and must not count any more. Accepted: it may start from empty.
    ReplicaLost(ReplicaLost),
    /// A broker cannot open its copy, or can again. Such a copy leads nothing, and counts for what it was: nobody else
    /// may lead in its place who could not before (KIP-858). From feature level 2 on.
    ReplicaOffline(ReplicaOffline),
    /// Elects another leader of one partition.
    ElectLeader(ElectLeader),
    /// Moves the replicas of one partition to other brokers, or cancels that (KIP-455).
    AlterReassignment(AlterReassignment),
    /// Takes a block of [`crate::PRODUCER_ID_BLOCK`] producer ids that nobody else gets.
    AllocateProducerIds(BrokerGuard),
    /// Raises the level of what may be written.
    SetFeatureLevel {
        /// The level.
        level: u16,
    },
    /// A person has made `survivor` the whole quorum, because its majority was lost for good. What that had decided last
    /// nobody knows: whatever number it may have given out is left behind, so that none is given out twice. No broker runs:
    /// each is fenced until it registers again, and who was in sync may be elected then.
    QuorumRecovered {
        /// Whose log counts from now on.
        survivor: BrokerId,
    },
    /// Many commands in one entry, each with its own outcome; a refused one does not hold back the others. Only
    /// commands about one partition each ([`Command::may_be_batched`]).
    Batch(Vec<Self>),
}

impl Command {
    /// True for what may be in a [`Command::Batch`]: the commands about one partition. Others come one for each
    /// entry: a broker's epoch is the index of its registration.
    #[must_use]
    pub const fn may_be_batched(&self) -> bool {
        match self {
            Self::ChangePartition(_)
            | Self::ReplicaLost(_)
            | Self::ReplicaOffline(_)
            | Self::ElectLeader(_)
            | Self::AlterReassignment(_) => true,
            Self::InitCluster { .. }
            | Self::RegisterBroker(_)
            | Self::UnfenceBroker(_)
            | Self::FenceBroker(_)
            | Self::DrainBroker(_)
            | Self::UnregisterBroker { .. }
            | Self::CreateTopic(_)
            | Self::DeleteTopic { .. }
            | Self::CreatePartitions(_)
            | Self::AlterConfigs(_)
            | Self::AllocateProducerIds(_)
            | Self::SetFeatureLevel { .. }
            | Self::QuorumRecovered { .. }
            | Self::Batch(_) => false,
        }
    }
}

/// A broker and the registration that it speaks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokerGuard {
    /// The broker.
    pub broker: BrokerId,
    /// Its registration: an older one is refused.
    pub epoch: BrokerEpoch,
}

/// See [`Command::RegisterBroker`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterBroker {
    /// The broker.
    pub broker: BrokerId,
    /// This start of it. The same one again is answered with the epoch that it has.
    pub incarnation: IncarnationId,
    /// Its data directory (Kafka's `directory.id`). Another one than before was wiped or swapped: no copy of before
    /// counts.
    pub directory: Uuid,
    /// The start before this one ended in order: everything that it had acknowledged is on its disk (Kafka's clean
    /// shutdown file, KIP-966). `false` costs a place among the eligible replicas of topics that acknowledge before
    /// the disk has it.
    pub clean: bool,
    /// Where Kafka clients reach it.
    pub kafka: HostPort,
    /// Where other brokers reach it.
    pub cluster: HostPort,
    /// Where it stands, for placement.
    pub rack: Option<Arc<str>>,
    /// The feature levels that it speaks.
    pub features: FeatureRange,
    /// The proposer's wall clock, for people.
    pub at: WallMs,
}

/// The feature levels that a program speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeatureRange {
    /// The oldest.
    pub min: u16,
    /// The newest.
    pub max: u16,
}

impl FeatureRange {
    /// What this program speaks.
    pub const OURS: Self = Self {
        min: 1,
        max: crate::FEATURE_LEVEL,
    };

    /// True if `level` is spoken.
    #[must_use]
    pub const fn contains(self, level: u16) -> bool {
        self.min <= level && level <= self.max
    }
}

/// Where new partitions go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Spread over the unfenced brokers and their racks.
    Automatic {
        /// How many partitions.
        partitions: i32,
        /// How many replicas of each.
        replication_factor: i16,
    },
    /// Exactly so: the replicas of partition 0, of partition 1, and so on; the first replica leads.
    Manual(Vec<Vec<BrokerId>>),
}

/// See [`Command::CreateTopic`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateTopic {
    /// The id that it gets. A retry finds its own topic by it.
    pub id: TopicId,
    /// The name.
    pub name: Arc<str>,
    /// Where its partitions go.
    pub placement: Placement,
    /// What it overrides; keys and values were validated by the proposer.
    pub configs: Vec<(Arc<str>, Arc<str>)>,
    /// The proposer's wall clock, for people.
    pub at: WallMs,
}

/// See [`Command::CreatePartitions`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreatePartitions {
    /// The topic.
    pub topic: TopicId,
    /// How many partitions it has afterwards.
    pub count: i32,
    /// The replicas of each new partition; `None` for automatic placement.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// See [`Command::AlterConfigs`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterConfigs {
    /// Whose configuration.
    pub resource: ConfigResource,
    /// Drops every key that `ops` does not name (Kafka's older AlterConfigs).
    pub replace: bool,
    /// The changes, each key once; keys and values were validated by the proposer.
    pub ops: Vec<(Arc<str>, ConfigOp)>,
}

/// A change of one configuration key. Lists change here and not at the proposer, so that two changes at once both
/// count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOp {
    /// Sets the value.
    Set(Arc<str>),
    /// Goes back to the default.
    Delete,
    /// Adds what is not there yet to a comma-separated list.
    Append {
        /// What to add.
        values: Vec<Arc<str>>,
        /// The list where none is set.
        default: Arc<str>,
    },
    /// Takes values out of a comma-separated list.
    Subtract {
        /// What to remove.
        values: Vec<Arc<str>>,
        /// The list where none is set.
        default: Arc<str>,
    },
}

/// See [`Command::ChangePartition`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangePartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The leader that asks.
    pub leader: BrokerGuard,
    /// The leader epoch that it leads in.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch that it has seen.
    pub partition_epoch: PartitionEpoch,
    /// The in-sync set that it asks for, each member with the registration that caught up (KIP-903).
    pub isr: Vec<BrokerGuard>,
}

/// Whom to elect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Election {
    /// The first replica, if it is in sync.
    Preferred,
    /// Where nobody eligible lives, any replica that does: what it lacks is lost.
    Unclean,
}

/// See [`Command::ElectLeader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElectLeader {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// Whom.
    pub election: Election,
}

/// See [`Command::ReplicaLost`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaLost {
    /// Whose copy.
    pub replica: BrokerGuard,
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
}

/// See [`Command::ReplicaOffline`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaOffline {
    /// Whose copy.
    pub replica: BrokerGuard,
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// It cannot be opened. `false`: it can.
    pub is_offline: bool,
}

/// See [`Command::AlterReassignment`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlterReassignment {
    /// The topic.
    pub topic: TopicId,
    /// The partition.
    pub partition: PartitionIndex,
    /// The replicas that it has afterwards, the preferred leader first. `None` cancels what is under way.
    pub target: Option<Vec<BrokerId>>,
    /// Whether `target` may have more or fewer replicas than before (`AllowReplicationFactorChange` of the request).
    pub may_change_factor: bool,
}
