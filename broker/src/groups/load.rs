//! Reading one partition of `__consumer_offsets` for the shard that will serve it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skerry_env::Env;
use skerry_log::batch::Batches;
use skerry_types::{LeaderEpoch, Offset, is_planted};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::{CONSUMER_OFFSETS, Message};
use crate::partition::{AckError, FetchError, Isolation, NotServing, Partition, ReadSpec};

/// How much of a log is read at a time.
const READ_BYTES: u32 = 1024 * 1024;
/// Partitions that are read at a time: each holds [`READ_BYTES`] and what decoding makes of them.
pub(super) const LOADING_AT_ONCE: usize = 4;
/// How long to wait before a log that cannot be read is tried again.
const PAUSE: Duration = Duration::from_secs(5);

/// How many offsets behind damage are tried.
const LOOKS_BEHIND_MAX: usize = 10_000;

/// What the shard has taken in so far.
struct Progress {
    /// Where the log began.
    start: Option<Offset>,
    /// What comes next.
    next: Offset,
}

/// Why a log is not read to its end.
#[derive(Debug, Error)]
enum LoadError {
    /// Whoever leads it next loads it.
    #[error("{0}")]
    NotServing(String),
    /// The disk, which may recover.
    #[error("{0}")]
    Log(String),
    /// Records are damaged; those from `behind` on can be read.
    #[error("{why}")]
    Damaged { why: String, behind: Offset },
    /// Somebody has deleted what was read.
    #[error("records were deleted while they were read")]
    Deleted,
    /// The task has ended: nobody needs the groups.
    #[error("the coordinator has stopped")]
    Stopped,
}

impl From<NotServing> for LoadError {
    fn from(error: NotServing) -> Self {
        Self::NotServing(error.to_string())
    }
}

impl From<FetchError> for LoadError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::NotServing(error) => error.into(),
            FetchError::Log(error) => Self::Log(error.to_string()),
        }
    }
}

impl From<AckError> for LoadError {
    fn from(error: AckError) -> Self {
        match error {
            AckError::Deleted | AckError::NotLeader => Self::NotServing(error.to_string()),
            AckError::Storage(why) => Self::Log(why),
        }
    }
}

/// Reads one partition of `__consumer_offsets` from its start to its end.
pub(super) struct Loader {
    pub(super) env: Env,
    pub(super) inbox: mpsc::Sender<Message>,
    pub(super) partition: i32,
    pub(super) term: u64,
    pub(super) epoch: LeaderEpoch,
    pub(super) log: Arc<Partition>,
    pub(super) turns: Arc<Semaphore>,
}

impl Loader {
    pub(super) async fn run(self) {
        let (partition, term) = (self.partition, self.term);
        let mut progress = Progress {
            start: None,
            next: Offset::ZERO,
        };
        loop {
            match self.load(&mut progress).await {
                Ok(()) => break,
                Err(LoadError::Damaged { why, behind }) => {
                    tracing::error!(
                        partition,
                        why,
                        way_out = format!(
                            "where no other copy takes over: skerry topic delete-records {CONSUMER_OFFSETS} --partition \
                             {partition} --before {behind}; the commits in these records are lost, and groups begin where \
                             their auto.offset.reset says"
                        ),
                        "cannot read the groups of a partition; trying again"
                    );
                    self.env.clock.sleep(PAUSE).await;
                }
                Err(LoadError::Deleted) => {
                    // The task has ended: nobody needs the groups.
                    let _ = self.inbox.send(Message::LoadAgain { partition, term }).await;
                    return;
                }
                Err(LoadError::Log(why)) => {
                    tracing::error!(
                        partition,
                        why,
                        "cannot read the groups of a partition; trying again"
                    );
                    self.env.clock.sleep(PAUSE).await;
                }
                Err(LoadError::NotServing(why)) => {
                    tracing::debug!(partition, why, "the groups of a partition are another's to load");
                    return;
                }
                Err(LoadError::Stopped) => return,
            }
        }
        // The task has ended: nobody needs the groups.
        let _ = self.inbox.send(Message::LoadFinished { partition, term }).await;
    }

    /// Goes on where an earlier try has failed.
    async fn load(&self, progress: &mut Progress) -> Result<(), LoadError> {
        // What an earlier leader wrote counts when it is committed, and nothing may be missing: the high watermark must
        // have reached the end.
        if let Some(settled) = self.log.settled() {
            settled.await.map_err(|_| LoadError::Stopped)??;
        }
        let _turn = self.turns.acquire().await.map_err(|_| LoadError::Stopped)?;
        let (start, upper) = self.log.with_leader(self.epoch, |log, leader| {
            (log.log_start(), leader.high_watermark())
        })?;
        // What the shard has taken in would be gone with the next coordinator.
        if *progress.start.get_or_insert(start) != start && progress.next > Offset::ZERO {
            return Err(LoadError::Deleted);
        }
        progress.start = Some(start);
        let from = &mut progress.next;
        *from = start.max(*from);
        while *from < upper {
            let batches = self.read(*from).await?;
            // Compaction may leave nothing between here and the end.
            let Some(last) = Batches::new(batches.clone()).last() else {
                break;
            };
            *from = last.header.next_offset();
            let (taken, wait) = oneshot::channel();
            let (partition, term) = (self.partition, self.term);
            let message = Message::Loaded {
                partition,
                term,
                batches,
                taken,
            };
            self.inbox.send(message).await.map_err(|_| LoadError::Stopped)?;
            // One piece of the log in memory, not a queue of them.
            wait.await.map_err(|_| LoadError::Stopped)?;
        }
        Ok(())
    }

    async fn read(&self, from: Offset) -> Result<Bytes, LoadError> {
        let spec = ReadSpec {
            from,
            isolation: Isolation::ReadUncommitted,
            leader_epoch: self.epoch,
            last_fetched_epoch: LeaderEpoch::UNKNOWN,
            max_bytes: READ_BYTES,
            one_batch_at_least: true,
            any_replica: false,
        };
        let plan = self.log.read(&spec)?.plan;
        let read = move || match is_planted("groups-loaded-without-sums") {
            true => plan.run(),
            false => plan.run_checked(),
        };
        let read = self.env.tasks.run_blocking(read).await;
        let error = match read {
            Ok(batches) => return Ok(batches),
            Err(error) => error,
        };
        self.log.suspect(from, &error);
        let why = error.to_string();
        if !error.is_damage() {
            return Err(LoadError::Log(why));
        }
        let (log, damaged) = (self.log.clone(), error.offset().unwrap_or(from));
        let behind = self
            .env
            .tasks
            .run_blocking(move || readable_behind(&log, damaged))
            .await;
        Err(LoadError::Damaged { why, behind })
    }
}

/// The first offset behind damage at which a batch can be read: the log's end where there is none, or not soon.
fn readable_behind(log: &Partition, damaged: Offset) -> Offset {
    let mut next = damaged.next();
    for _ in 0..LOOKS_BEHIND_MAX {
        match log.plan_check(next, true, 1) {
            None => return next,
            Some(Ok(plan)) if plan.run_checked().is_ok() => return next,
            Some(_) => next = next.next(),
        }
    }
    log.look().map_or(next, |look| look.log_end)
}
