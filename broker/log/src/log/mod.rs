#![allow(clippy::all, unused, missing_docs)]
// API draft: the bodies follow within the hour.
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use skerry_env::disk::{Disk, DynDisk};
use skerry_types::*;

use crate::*;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionIdentity { pub topic: Arc<str>, pub partition: PartitionIndex, pub topic_id: TopicId }

/// What the shell's checkpoint files say. A missing line: the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub log_start: Offset,
    /// Everything below was durable (write `Log::recovery_point()` there).
    pub recovery_point: Offset,
    /// `cleaner-offset-checkpoint`: compaction has seen everything below (`Log::cleaned_until()`).
    pub cleaned_until: Option<Offset>,
}
impl Default for Recovered { fn default() -> Self { Self { log_start: Offset::ZERO, recovery_point: Offset::ZERO, cleaned_until: None } } }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown { Clean, Unclean }

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    pub walked_bytes: u64,
    /// Where an unsynced tail was cut, what was lost with it.
    pub cut: Option<TailCut>,
    /// Offsets that sealed segments do not hold and compaction does not explain.
    pub gaps: Vec<(Offset, Offset)>,
    /// Files that were made anew from the log.
    pub rebuilt: Vec<String>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCut { pub segment: Offset, pub position: u64, pub offset: Offset, pub bytes: u64, pub why: String, pub evidence: Vec<PathBuf> }

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    New { base: Offset, last: Offset, /** NONE for CreateTime */ log_append_time: WallMs, max_timestamp: WallMs },
    Duplicate { base: Offset, last: Offset, log_append_time: WallMs },
}

pub struct Log { }

pub struct ReadPlan { }
impl ReadPlan {
    pub fn is_empty(&self) -> bool { unimplemented() }
    /// None: would wait for the device
    pub fn run_cached(&self) -> Result<Option<Bytes>, ReadError> { unimplemented() }
    pub fn run(&self) -> Result<Bytes, ReadError> { unimplemented() }
}
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampQuery { At(WallMs), Max }
pub struct TimestampPlan { }
impl TimestampPlan { pub fn run(&self) -> Result<Option<(Offset, WallMs, LeaderEpoch)>, ReadError> { unimplemented() } }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd { pub epoch: LeaderEpoch, pub end_offset: Offset }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSnapshot { pub producer: ProducerIdentity, pub last_sequence: Sequence, pub last_timestamp: WallMs, pub coordinator_epoch: i32, pub current_txn_first_offset: Option<Offset> }
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn { pub producer_id: ProducerId, pub first_offset: Offset, pub last_offset: Offset, pub last_stable_offset: Offset }

pub struct FlushJob { }
impl FlushJob { pub fn run(&self) -> io::Result<()> { unimplemented() } pub fn end(&self) -> Offset { unimplemented() } }
/// Makes durable everything that recovery would otherwise work out again: data, indexes, epochs, producer state.
pub struct CheckpointJob { }
impl CheckpointJob { pub fn run(&self) -> io::Result<()> { unimplemented() } }

/// Files that left the log under the name `*.deleted`. Remove them after `file.delete.delay.ms`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired { pub files: Vec<PathBuf>, pub bytes: u64, pub segments: usize }
impl Retired { pub fn is_empty(&self) -> bool { self.files.is_empty() } pub fn remove(&self, disk: &dyn Disk) -> io::Result<()> { unimplemented() } }
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DirtyRatio { pub ratio: f64, pub dirty_bytes: u64, pub clean_bytes: u64, pub overdue: bool }
pub struct CompactionJob { }
pub struct CompactionResult { }
impl CompactionJob { pub fn run(self) -> Result<CompactionResult, ChangeError> { unimplemented() } }

fn unimplemented() -> ! { unreachable!() }

impl Log {
    pub fn create(files: &Arc<FileCache>, dir: PathBuf, id: PartitionIdentity, config: LogConfig) -> Result<Log, OpenError> { unimplemented() }
    pub fn open(files: &Arc<FileCache>, dir: PathBuf, id: Option<PartitionIdentity>, config: LogConfig, shutdown: Shutdown, recovered: Recovered, now: WallMs) -> Result<(Log, RecoveryReport), OpenError> { unimplemented() }
    pub fn identity(&self) -> &PartitionIdentity { unimplemented() }
    pub fn dir(&self) -> &Path { unimplemented() }
    pub fn config(&self) -> &LogConfig { unimplemented() }
    pub fn set_config(&mut self, config: LogConfig) { unimplemented() }
    pub fn log_start(&self) -> Offset { unimplemented() }
    pub fn log_end(&self) -> Offset { unimplemented() }
    pub fn durable_end(&self) -> Offset { unimplemented() }
    /// What the shell writes to `recovery-point-offset-checkpoint`: the last finished checkpoint.
    pub fn recovery_point(&self) -> Offset { unimplemented() }
    pub fn cleaned_until(&self) -> Option<Offset> { unimplemented() }
    pub fn last_epoch(&self) -> Option<LeaderEpoch> { unimplemented() }
    pub fn size_bytes(&self) -> u64 { unimplemented() }
    pub fn segment_count(&self) -> usize { unimplemented() }
    pub fn poisoned(&self) -> Option<&str> { unimplemented() }

    pub fn append_as_leader(&mut self, batch: ValidBatch, epoch: LeaderEpoch, now: WallMs) -> Result<Appended, AppendError> { unimplemented() }
    pub fn append_as_follower(&mut self, batches: Bytes, now: WallMs) -> Result<Offset, AppendError> { unimplemented() }

    pub fn plan_read(&self, from: Offset, upper: Offset, max_bytes: u32, min_one_batch: bool) -> Result<ReadPlan, ReadError> { unimplemented() }
    pub fn plan_timestamp_lookup(&self, query: TimestampQuery, upper: Offset) -> TimestampPlan { unimplemented() }
    pub fn epoch_end(&self, requested: LeaderEpoch) -> EpochEnd { unimplemented() }
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> { unimplemented() }
    pub fn producers(&self) -> impl Iterator<Item = ProducerSnapshot> + '_ { std::iter::empty() }
    pub fn last_stable(&self, high_watermark: Offset) -> Offset { unimplemented() }
    pub fn aborted(&self, from: Offset, upper: Offset) -> Result<Vec<AbortedTxn>, ReadError> { unimplemented() }

    pub fn start_flush(&mut self) -> Option<FlushJob> { unimplemented() }
    pub fn finish_flush(&mut self, job: FlushJob, result: io::Result<()>) -> Result<Offset, Poisoned> { unimplemented() }
    /// Once a minute or so; None: nothing new. Then write recovery_point().
    pub fn start_checkpoint(&mut self) -> Option<CheckpointJob> { unimplemented() }
    pub fn finish_checkpoint(&mut self, job: CheckpointJob, result: io::Result<()>) -> Result<Offset, Poisoned> { unimplemented() }

    /// The shell has lowered its recovery-point checkpoint to `offset` first where it was higher (durably).
    pub fn truncate_to(&mut self, offset: Offset) -> Result<Retired, ChangeError> { unimplemented() }
    pub fn set_log_start(&mut self, offset: Offset) -> Result<Retired, ChangeError> { unimplemented() }
    pub fn apply_retention(&mut self, high_watermark: Offset, now: WallMs) -> Result<Retired, ChangeError> { unimplemented() }
    pub fn roll_if_due(&mut self, now: WallMs) -> Result<bool, AppendError> { unimplemented() }
    pub fn compaction_candidate(&self, last_stable: Offset, now: WallMs) -> Option<DirtyRatio> { unimplemented() }
    pub fn start_compaction(&mut self, last_stable: Offset, now: WallMs, budget_bytes: usize) -> Option<CompactionJob> { unimplemented() }
    pub fn finish_compaction(&mut self, result: CompactionResult) -> Result<Retired, ChangeError> { unimplemented() }
    pub fn expire_producers(&mut self, now: WallMs) { unimplemented() }
    pub fn close(&mut self) -> io::Result<()> { unimplemented() }
    pub fn check(&self) { }
}
