//! One partition's log: Kafka's segments, indexes and checkpoints, byte for byte (FORMAT.md), with recovery, leader
//! epochs, producer state, retention and compaction.
//!
//! Sync code on [`skerry_env::disk`]: no task, timer, thread or runtime. A [`Log`] belongs to whoever holds its lock;
//! what may wait for the device for long is a job object that runs without it.
#![forbid(unsafe_code)]

pub mod batch;
pub mod checkpoint;
mod config;
mod errors;
mod files;
mod log;
mod validate;

pub use config::{CleanupPolicy, LogConfig, TargetCompression, TimestampType};
pub use errors::{AppendError, ChangeError, OpenError, Poisoned, ReadError};
pub use files::FileCache;
pub use log::*;
pub use validate::{InvalidBatch, RecordError, ValidBatch, ValidationRules};
