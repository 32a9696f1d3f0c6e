//! One partition's log: Kafka's segments, indexes and checkpoints, byte for byte (FORMAT.md), with recovery, leader
//! epochs, producer state, retention and compaction.
//!
//! Sync code on [`skerry_env::disk`]: no task, timer, thread or runtime. A [`Log`] belongs to whoever holds its lock;
//! what may wait for the device for long is a job object that runs without it.
#![forbid(unsafe_code)]

pub mod batch;
mod buffers;
pub mod checkpoint;
mod compaction;
mod config;
mod dump;
mod epochs;
mod errors;
mod files;
mod identity;
mod index;
mod log;
mod producers;
mod segment;
mod timestamps;
mod validate;
mod walk;

pub use compaction::{CompactionJob, CompactionResult, DirtyRatio};
pub use config::{CleanupPolicy, LogConfig, TargetCompression, TimestampType};
pub use dump::{DumpOptions, dump};
pub use epochs::EpochEnd;
pub use errors::{AppendError, ChangeError, OpenError, Poisoned, ReadError};
pub use files::FileCache;
pub use identity::{PartitionIdentity, parse_dir_name, read_topic_id};
pub use index::AbortedTxn;
pub use log::{
    Appended, CheckpointJob, FlushJob, Log, ReadPlan, Recovered, RecoveryReport, Retired, Shutdown, TailCut,
};
pub use producers::{ProducerSnapshot, RememberedBatch};
pub use timestamps::{TimestampPlan, TimestampQuery};
pub use validate::{InvalidBatch, RecordError, ValidBatch, ValidationRules};
