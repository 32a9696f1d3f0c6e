//! The metadata of a cluster as a pure state machine: commands in, state out.
//!
//! Every broker applies the same commands in the same order and so holds the same [`State`]; readers take its
//! [`Image`], an immutable snapshot that costs a reference count. The raft leader's [`Controller`] decides what to
//! propose, from the image and the time. Deliberately absent: a clock, randomness, I/O, async. A command carries its
//! own time and ids, and `apply` never fails: a refusal is an [`Outcome`].
//!
//! What is written to disk and sent to peers is described in `FORMAT.md` beside this crate.
#![forbid(unsafe_code)]

mod apply;
mod check;
mod codec;
mod command;
mod controller;
mod image;
mod map;
mod outcome;
mod place;

pub use apply::{Applied, State};
pub use codec::{COMMAND_VERSION, DecodeError, SNAPSHOT_VERSION};
pub use command::{
    AlterConfigs, AlterReassignment, BrokerGuard, ChangePartition, Command, ConfigOp, CreatePartitions,
    CreateTopic, ElectLeader, Election, FeatureRange, Placement, RegisterBroker, ReplicaLost, ReplicaOffline,
};
pub use controller::{Answer, Controller, ControllerSettings, Decision, DecisionId, Decisions, Probe};
pub use image::{Broker, ConfigMap, ConfigResource, HostPort, Image, Partition, Topic};
pub use map::PersistentMap;
pub use outcome::{Delta, Outcome, Refusal};

/// The newest feature level that this program speaks; a cluster starts at it.
pub const FEATURE_LEVEL: u16 = 3;
/// From this feature level on the metadata knows of copies that cannot be opened ([`Command::ReplicaOffline`]).
pub const REPLICAS_OFFLINE_LEVEL: u16 = 2;
/// From this feature level on a reassignment takes a replica that is in sync away only when the leader asks for a change
/// ([`Command::ChangePartition`]), not by what a person commands: whoever leads, or led a moment ago, may take itself for the
/// leader still, and what is committed without it would be missing in what it says.
pub const LEADER_LETS_GO_LEVEL: u16 = 3;
/// Producer ids are handed out to brokers in blocks of this many, as Kafka does.
pub const PRODUCER_ID_BLOCK: i64 = 1_000;
/// By how much the epochs of each partition grow where a person has recovered the quorum ([`Command::QuorumRecovered`]): more
/// than a majority decides that the survivor has not heard of. The epochs have room for 32,767 recoveries.
pub const RECOVERY_EPOCHS: i32 = 1 << 16;
/// How many producer ids are left out there: a producer that was given one of the lost majority's would else be taken for
/// another one, and its batches for duplicates.
pub const RECOVERY_PRODUCER_IDS: i64 = 1 << 32;
/// The most partitions of one topic. Kafka has the limit for one CreateTopics and none for CreatePartitions, where
/// 100 million run its controller out of memory.
pub const PARTITIONS_PER_TOPIC_MAX: usize = 10_000;
/// The longest topic name in bytes, as in Kafka: a folder name is at most 255, and `-partition` and a suffix follow.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;
