//! The metadata quorum: openraft on RocksDB over gRPC.
//!
//! A [`Quorum`] replicates [`Command`]s and applies them to the pure state machine of `skerry-metadata-state`. Readers
//! take an immutable [`Image`] without waiting; whoever must act on changes takes an [`ImageWatch`].
//!
//! One node is a quorum of one: the same code, no special mode. openraft's types stay inside `raft/`.
#![forbid(unsafe_code)]

mod config;
mod errors;
mod identity;
mod publish;
mod quorum;
mod raft;
mod status;
mod wal;

pub use config::{QuorumConfig, Timings, Voter};
pub use errors::{ChangeRefused, MembershipError, ProposeError, ReadError, RecoverError, StartError};
pub use publish::ImageWatch;
pub use quorum::Quorum;
pub use raft::Survivor;
/// The pure state machine: commands, the image and what is in it.
pub use skerry_metadata_state as state;
pub use skerry_metadata_state::{Command, Delta, Image, Outcome, Refusal};
pub use status::{Leadership, LogEntry, MemberStatus, QuorumStatus, Role, StoreTrouble};
pub use wal::{Durable, WalMark, cut_unsynced_wal, tear_unsynced_wal};
