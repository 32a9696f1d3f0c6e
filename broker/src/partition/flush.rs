//! How a partition's records become durable: it queues itself for a flush, once, and hears of its end.

use std::sync::Arc;

use skerry_env::Tasks;
use skerry_log::{FlushJob, Poisoned};
use skerry_types::{Offset, WallMs};
use tokio::sync::oneshot;

use super::{AckError, Durability, Partition, Role, State, Storage, WaitingAck};

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum FlushState {
    Idle,
    Queued,
    Running,
    /// Running, and more was appended since.
    RunningAndDirty,
    /// A worker holds the next flush back until more has come.
    Gathering,
}

/// What a worker does after a flush.
pub enum AfterFlush {
    /// Nothing: the partition has queued itself if there is more.
    Done,
    /// Wait for this, but not for long, then [`Partition::end_gathering`] and flush again.
    Gather(oneshot::Receiver<()>),
}

impl Partition {
    /// Writes what keeps the next recovery short, where something is new. The folder stays this copy's all along: its files
    /// are told by their names, and another copy's could have them by the time they are written. Where somebody exchanges it
    /// just now nothing is written: the next time is soon, and others wait for this one.
    ///
    /// # Errors
    /// Where a sync failed: the log takes no more writes.
    pub async fn write_checkpoint(&self, tasks: &Tasks) -> Result<(), Poisoned> {
        let Ok(_folder) = self.folder.try_lock() else {
            return Ok(());
        };
        let Some(Some(job)) = self.with_log(|log| log.start_checkpoint()) else {
            return Ok(());
        };
        let write = move || {
            let result = job.run();
            (job, result)
        };
        let (job, result) = tasks.run_blocking(write).await;
        let finished = self.with_log(|log| log.finish_checkpoint(job, result));
        finished.unwrap_or(Ok(Offset::ZERO)).map(drop)
    }

    /// Takes what a flush must make durable. `None`: nothing, or the log is gone.
    pub fn start_flush(&self) -> Option<FlushJob> {
        let mut state = self.state.lock();
        let job = match &mut state.storage {
            Storage::Open(log) => log.start_flush(),
            _ => None,
        };
        state.flush = if job.is_some() {
            FlushState::Running
        } else {
            FlushState::Idle
        };
        state.gather.on_start();
        job
    }

    /// A flush has ended: moves the durable end, answers those who waited for it, and queues the next flush if more
    /// has come, or asks the worker to hold it back for a moment where it `may_gather`.
    pub fn finish_flush(
        self: &Arc<Self>,
        job: FlushJob,
        result: std::io::Result<()>,
        may_gather: bool,
    ) -> AfterFlush {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let again = state.flush == FlushState::RunningAndDirty;
        state.flush = FlushState::Idle;
        let more_should_come = state.gather.on_finish();
        let Storage::Open(log) = &mut state.storage else {
            return AfterFlush::Done;
        };
        match log.finish_flush(job, result) {
            Ok(durable_end) => {
                if durable_end >= log.log_end() {
                    state.unflushed_since = None;
                }
                state.follow_log(self.clock.now());
                state.settle();
                if again && may_gather && more_should_come {
                    return AfterFlush::Gather(state.gather_more());
                }
                if again {
                    self.flush_if_dirty(state);
                }
            }
            Err(Poisoned(why)) => {
                tracing::error!(partition = %self.name, why, "cannot make records durable: the log takes no more writes");
                state.fail_acks(&AckError::Storage(why));
                state.wake_readers();
            }
        }
        AfterFlush::Done
    }

    /// Whether a worker that has taken this partition from the queue should wait for more before it flushes: then
    /// it waits for this, but not for long, and calls [`Partition::end_gathering`].
    pub fn hold_back(&self) -> Option<oneshot::Receiver<()>> {
        let mut state = self.state.lock();
        if state.flush != FlushState::Queued || !state.gather.on_idle() {
            return None;
        }
        Some(state.gather_more())
    }

    /// The wait for more is over. It was `worth_it` if what was expected came, and soon.
    pub fn end_gathering(&self, worth_it: bool) {
        let mut state = self.state.lock();
        state.gathered = None;
        state.gather.on_gathered(worth_it);
    }

    /// Resolves when everything that the log holds now is acknowledged. `None`: it is already, or this broker does not
    /// lead.
    pub fn settled(self: &Arc<Self>) -> Option<oneshot::Receiver<Result<(), AckError>>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Some(leader)) = (&state.storage, state.role.leader()) else {
            return None;
        };
        let end = log.log_end();
        if leader.high_watermark() >= end || log.poisoned().is_some() {
            return None;
        }
        let (reply, receiver) = oneshot::channel();
        state.waiting_all.push_back(WaitingAck {
            visible: end,
            durable: Offset::ZERO,
            reply,
        });
        self.flush_if_dirty(state);
        Some(receiver)
    }

    /// This broker leads, and nobody else is in sync: what it holds is acknowledged when its own disk has it.
    #[must_use]
    pub fn leads_alone(&self) -> bool {
        match &self.state.lock().role {
            Role::Leader(leading) => leading.rules.in_sync().nth(1).is_none(),
            _ => false,
        }
    }

    /// Queues a flush where `flush.ms` is over.
    pub fn flush_if_due(self: &Arc<Self>, now: WallMs) {
        let Durability::Kafka { flush_ms, .. } = self.settings.load().durability else {
            return;
        };
        let mut state = self.state.lock();
        if state
            .unflushed_since
            .is_some_and(|since| now.get() - since.get() >= flush_ms)
        {
            self.flush_if_dirty(&mut state);
        }
    }

    pub(super) fn flush_if_dirty(self: &Arc<Self>, state: &mut State) {
        let Storage::Open(log) = &state.storage else {
            return;
        };
        if log.durable_end() >= log.log_end() || log.poisoned().is_some() {
            return;
        }
        match state.flush {
            FlushState::Idle => {
                state.flush = FlushState::Queued;
                self.flushes.push(self.clone());
            }
            FlushState::Running => state.flush = FlushState::RunningAndDirty,
            FlushState::Queued | FlushState::RunningAndDirty | FlushState::Gathering => {}
        }
    }
}

impl State {
    /// Holds the next flush back. Resolves when what is expected has come.
    fn gather_more(&mut self) -> oneshot::Receiver<()> {
        let (gathered, receiver) = oneshot::channel();
        self.gathered = Some(gathered);
        self.flush = FlushState::Gathering;
        receiver
    }
}
