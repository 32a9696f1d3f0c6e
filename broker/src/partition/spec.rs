//! What is asked of a partition, and what it answers.

use skerry_log::{AppendError, EpochEnd, LogConfig, ReadError, ReadPlan};
use skerry_replica::{NotEnoughReplicas, PartitionView, Visibility};
use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, WallMs};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::disk_room::NearlyFull;

/// When the producer hears of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acks {
    /// `acks=0`: never.
    None,
    /// `acks=1`: when the leader has them, durably where the topic does not choose Kafka's weaker rule.
    Leader,
    /// `acks=all`: when they are below the high watermark.
    All,
}

/// When a topic's records become durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before they are acknowledged or visible. The default.
    BeforeAcknowledgement,
    /// As Kafka does it, for topics that set `flush.messages` or `flush.ms`.
    Kafka {
        /// An append that leaves this many records unflushed waits for the flush.
        flush_messages: i64,
        /// Records are flushed when they are this old.
        flush_ms: i64,
    },
}

impl Durability {
    pub(super) const fn visibility(self) -> Visibility {
        match self {
            Self::BeforeAcknowledgement => Visibility::Durable,
            Self::Kafka { .. } => Visibility::Written,
        }
    }
}

/// A topic's settings as its partitions use them.
#[derive(Clone, Debug)]
pub struct PartitionSettings {
    /// What the log needs.
    pub log: LogConfig,
    /// When records become durable.
    pub durability: Durability,
    /// `min.insync.replicas`, at most the number of replicas.
    pub min_in_sync: usize,
    /// A topic of the broker's own: clients may not produce to it.
    pub internal: bool,
    /// Catching up goes no faster than the replication quota.
    pub throttled: Throttled,
}

/// What the metadata says of a partition.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// In which epoch.
    pub leader_epoch: LeaderEpoch,
    /// Who has a copy, and who is in sync.
    pub view: PartitionView,
    /// The metadata takes this broker's copy for one that cannot be opened.
    pub is_called_offline: bool,
    /// `min.insync.replicas` by the same image.
    pub min_in_sync: usize,
    /// The registration of this start of the broker. `None`: it has none yet, and neither leads nor follows. What the
    /// metadata says of the start before is not for this one: it may have lost what that one had appended, and would
    /// give its offsets away twice in one epoch.
    pub registration: Option<BrokerEpoch>,
}

impl Assignment {
    /// `other` is of newer metadata.
    pub(super) fn is_before(&self, other: &Self) -> bool {
        let version = |of: &Self| (of.registration, of.view.partition_epoch);
        version(self) < version(other)
    }
}

/// What an assignment comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// This broker follows nobody.
    Nothing,
    /// This broker leads.
    Leads,
    /// This broker follows.
    Follows {
        /// Whom.
        leader: BrokerId,
        /// In which epoch.
        epoch: LeaderEpoch,
    },
}

/// Whether catching up is throttled (`leader.replication.throttled.replicas`, `follower.replication.throttled.replicas`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttled {
    /// What this broker sends of it as the leader.
    pub leader: bool,
    /// What this broker takes of it as a follower.
    pub follower: bool,
}

/// A partition cannot serve.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotServing {
    /// Its topic has been deleted.
    #[error("the topic has been deleted")]
    Deleted,
    /// Another broker leads it, or none.
    #[error("this broker does not lead it")]
    NotLeader,
    /// This broker led it when it last heard from the controller, which is too long ago.
    #[error("this broker is cut off from its cluster: others may lead the partition by now")]
    CutOff,
    /// The caller knows an older epoch than this leader.
    #[error("the leader epoch is {current}")]
    FencedEpoch {
        /// The leader's.
        current: LeaderEpoch,
    },
    /// The caller knows a newer epoch than this leader.
    #[error("the leader epoch is {current}")]
    UnknownEpoch {
        /// The leader's.
        current: LeaderEpoch,
    },
    /// Its log is damaged or its disk has failed.
    #[error("{0}")]
    Offline(String),
}

/// An append was refused; nothing of it is in the log.
#[derive(Debug, Error)]
pub enum ProduceError {
    /// The partition cannot serve.
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// Too few replicas are in sync for `acks=all`.
    #[error(transparent)]
    NotEnoughReplicas(#[from] NotEnoughReplicas),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] AppendError),
    /// The disk is nearly full: consumers and deletions go on, producers retry.
    #[error("the disk is nearly full: {free_bytes} bytes are free; writing resumes when there is room again")]
    DiskNearlyFull {
        /// What is free.
        free_bytes: u64,
    },
}

impl From<NearlyFull> for ProduceError {
    fn from(NearlyFull { free_bytes }: NearlyFull) -> Self {
        Self::DiskNearlyFull { free_bytes }
    }
}

/// A record that was appended will not be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AckError {
    /// The topic was deleted while it waited.
    #[error("the topic has been deleted")]
    Deleted,
    /// The leadership ended while it waited.
    #[error("this broker does not lead the partition any more")]
    NotLeader,
    /// It could not be made durable.
    #[error("{0}")]
    Storage(String),
}

/// A read was refused.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The partition cannot serve.
    #[error(transparent)]
    NotServing(#[from] NotServing),
    /// Outside of the log, or the disk failed.
    #[error(transparent)]
    Log(#[from] ReadError),
}

/// An append that went into the log.
#[derive(Debug)]
pub struct Appending {
    /// The batch's first offset. Of a repetition: the original's.
    pub base: Offset,
    /// The broker's timestamp; none where the producer's count.
    pub log_append_time: WallMs,
    /// Where the log begins.
    pub log_start: Offset,
    /// Resolves when the acknowledgement is true. `None`: it is already.
    pub acknowledged: Option<oneshot::Receiver<Result<(), AckError>>>,
}

/// How much a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Up to the high watermark.
    ReadUncommitted,
    /// Up to the last stable offset.
    ReadCommitted,
    /// Up to the log's end: Kafka's debug consumers (`replica_id` -2).
    LogEnd,
}

/// What a reader asks of one partition.
#[derive(Clone, Copy, Debug)]
pub struct ReadSpec {
    /// The first offset wanted.
    pub from: Offset,
    /// How much it may see.
    pub isolation: Isolation,
    /// A follower may answer as well (KIP-392).
    pub any_replica: bool,
    /// The leader epoch that the caller knows; unknown: not checked.
    pub leader_epoch: LeaderEpoch,
    /// The epoch of the last record that the caller has; unknown: not checked (KIP-595).
    pub last_fetched_epoch: LeaderEpoch,
    /// Bytes wanted.
    pub max_bytes: u32,
    /// At least one batch, however large (KIP-74).
    pub one_batch_at_least: bool,
}

/// What a reader gets: the numbers now, the bytes through the plan.
pub struct Reading {
    /// Where the bytes are.
    pub plan: ReadPlan,
    /// Everything below is acknowledged.
    pub high_watermark: Offset,
    /// Everything below is decided.
    pub last_stable: Offset,
    /// Where the log begins.
    pub log_start: Offset,
    /// The reader's log is not a prefix of this one: where it must cut.
    pub diverging: Option<EpochEnd>,
}
