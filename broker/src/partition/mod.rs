//! One partition on this broker: its log, its part in replication, and those who wait for it.
//!
//! A partition is a passive object behind one mutex: an idle one costs the memory of its state and nothing else, no
//! task, timer or open file (DESIGN, "idle partition"). Everything under the lock is short and synchronous; what may
//! block for long leaves it as a job.

mod flush;
mod lead;
mod spec;

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use skerry_env::Clock;
use skerry_log::{AbortedTxn, EpochEnd, Log, ReadError};
use skerry_replica::{Leader, LeaderStart};
use skerry_types::{BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition, WallMs, is_planted};
use tokio::sync::{Notify, oneshot};

pub use flush::AfterFlush;
use flush::FlushState;
pub use spec::{
    AckError, Acks, Appending, Assignment, Durability, FetchError, Isolation, NotServing, PartitionSettings,
    ProduceError, ReadSpec, Reading,
};

use crate::flusher::FlushQueue;
use crate::gather::Gather;

/// One partition on this broker.
pub struct Partition {
    name: TopicPartition,
    topic_id: TopicId,
    me: BrokerId,
    settings: ArcSwap<PartitionSettings>,
    state: Mutex<State>,
    flushes: Arc<FlushQueue>,
    clock: Clock,
}

struct State {
    storage: Storage,
    leader: Option<Leader>,
    waiting_acks: VecDeque<WaitingAck>,
    waiting_reads: Vec<Arc<Notify>>,
    flush: FlushState,
    gather: Gather,
    /// Tells the worker that holds a flush back.
    gathered: Option<oneshot::Sender<()>>,
    /// The high watermark that readers were last woken for.
    announced: Offset,
    /// When the oldest record that is not durable was appended. For `flush.ms`.
    unflushed_since: Option<WallMs>,
}

#[expect(clippy::large_enum_variant, reason = "all but a few partitions are open")]
enum Storage {
    Open(Log),
    Offline(String),
    Deleted,
}

struct WaitingAck {
    /// Resolved when the high watermark reaches this.
    visible: Offset,
    /// And the log is durable up to this.
    durable: Offset,
    reply: oneshot::Sender<Result<(), AckError>>,
}

impl Partition {
    /// A partition with an open log, or with the reason why it is not.
    #[must_use]
    pub fn new(
        name: TopicPartition,
        topic_id: TopicId,
        me: BrokerId,
        settings: Arc<PartitionSettings>,
        log: Result<Log, String>,
        flushes: Arc<FlushQueue>,
        clock: Clock,
    ) -> Arc<Self> {
        let storage = match log {
            Ok(log) => Storage::Open(log),
            Err(why) => Storage::Offline(why),
        };
        Arc::new(Self {
            name,
            topic_id,
            me,
            settings: ArcSwap::new(settings),
            state: Mutex::new(State {
                storage,
                leader: None,
                waiting_acks: VecDeque::new(),
                waiting_reads: Vec::new(),
                flush: FlushState::Idle,
                gather: Gather::default(),
                gathered: None,
                announced: Offset::ZERO,
                unflushed_since: None,
            }),
            flushes,
            clock,
        })
    }

    /// Its topic's name and its number.
    pub const fn name(&self) -> &TopicPartition {
        &self.name
    }

    /// Its topic's id.
    pub const fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    /// Its topic's settings.
    pub fn settings(&self) -> Arc<PartitionSettings> {
        self.settings.load_full()
    }

    /// Takes over changed settings.
    pub fn configure(self: &Arc<Self>, settings: Arc<PartitionSettings>) {
        self.settings.store(settings.clone());
        let mut state = self.state.lock();
        if let Storage::Open(log) = &mut state.storage {
            log.set_config(settings.log.clone());
        }
        if let Some(leader) = &mut state.leader {
            leader.on_settings(settings.min_in_sync, settings.durability.visibility());
        }
        state.settle();
        // From the weaker rule to the stronger: what is not durable yet must become so to be acknowledged.
        self.flush_if_dirty(&mut state);
    }

    /// Takes over what the metadata says.
    pub fn assign(self: &Arc<Self>, assignment: &Assignment) {
        let settings = self.settings();
        // Of the image that the set is of, if that is stricter: settings may come a moment later.
        let min_in_sync = settings.min_in_sync.max(assignment.min_in_sync);
        let mut state = self.state.lock();
        if assignment.leader != Some(self.me) {
            state.leader = None;
            state.fail_acks(&AckError::NotLeader);
            state.wake_readers();
            return;
        }
        match &mut state.leader {
            Some(leader) if leader.epoch() == assignment.leader_epoch => {
                leader.on_metadata(
                    &assignment.view,
                    min_in_sync,
                    settings.durability.visibility(),
                    self.clock.now(),
                );
            }
            _ => {
                let State {
                    storage: Storage::Open(log),
                    leader,
                    ..
                } = &mut *state
                else {
                    return;
                };
                let known = leader.as_ref().map_or(log.log_start(), Leader::high_watermark);
                *leader = Some(Leader::new(LeaderStart {
                    me: self.me,
                    epoch: assignment.leader_epoch,
                    my_broker_epoch: assignment.my_broker_epoch,
                    view: assignment.view.clone(),
                    min_in_sync,
                    visibility: settings.durability.visibility(),
                    log_start: log.log_start(),
                    log_end: log.log_end(),
                    durable_end: log.durable_end(),
                    high_watermark: known,
                    now: self.clock.now(),
                }));
                // What a crash left in the page cache alone counts only once it is durable.
                self.flush_if_dirty(&mut state);
            }
        }
        state.settle();
    }

    /// Where the bytes of a read are, and the numbers that go with them.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn read(&self, spec: &ReadSpec) -> Result<Reading, FetchError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (log, leader) = serving(&mut state.storage, &mut state.leader, spec.leader_epoch)?;
        let high_watermark = leader.high_watermark();
        let last_stable = log.last_stable(high_watermark);
        let log_start = log.log_start();
        let upper = match spec.isolation {
            Isolation::ReadUncommitted if is_planted("served-beyond-high-watermark") => log.log_end(),
            Isolation::ReadUncommitted => high_watermark,
            Isolation::ReadCommitted => last_stable,
            Isolation::LogEnd => log.log_end(),
        };
        let diverging = divergence(log, spec)?;
        let max_bytes = if diverging.is_some() { 0 } else { spec.max_bytes };
        let one_batch = spec.one_batch_at_least && diverging.is_none();
        let plan = log.plan_read(spec.from, upper, max_bytes, one_batch)?;
        Ok(Reading {
            plan,
            high_watermark,
            last_stable,
            log_start,
            diverging,
        })
    }

    /// The transactions that were aborted between `from` and `upper`, for a reader of committed records.
    ///
    /// # Errors
    /// The disk's: a reader that is not told of an aborted transaction would take its records for committed.
    pub fn aborted(&self, from: Offset, upper: Offset) -> Result<Vec<AbortedTxn>, ReadError> {
        match &self.state.lock().storage {
            Storage::Open(log) => log.aborted(from, upper),
            _ => Ok(Vec::new()),
        }
    }

    /// Wakes `waiter` at the next change that a reader could see.
    pub fn wait_for_records(&self, waiter: &Arc<Notify>) {
        let mut state = self.state.lock();
        if !state.waiting_reads.iter().any(|other| Arc::ptr_eq(other, waiter)) {
            state.waiting_reads.push(waiter.clone());
        }
    }

    /// `waiter` has gone.
    pub fn stop_waiting(&self, waiter: &Arc<Notify>) {
        self.state
            .lock()
            .waiting_reads
            .retain(|other| !Arc::ptr_eq(other, waiter));
    }

    /// Looks at the log and the leader, for answers that need no more than numbers.
    ///
    /// # Errors
    /// [`NotServing`] where this broker does not lead the partition in `leader_epoch` (unknown: not checked).
    pub fn with_leader<T>(
        &self,
        leader_epoch: LeaderEpoch,
        look: impl FnOnce(&mut Log, &Leader) -> T,
    ) -> Result<T, NotServing> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (log, leader) = serving(&mut state.storage, &mut state.leader, leader_epoch)?;
        Ok(look(log, leader))
    }

    /// Looks at the log, whoever leads. `None` where it is deleted or offline.
    pub fn with_log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> Option<T> {
        match &mut self.state.lock().storage {
            Storage::Open(log) => Some(look(log)),
            _ => None,
        }
    }

    /// Changes the log's extent (retention, DeleteRecords, compaction), and tells the leader.
    pub fn change_log<T>(self: &Arc<Self>, change: impl FnOnce(&mut Log, Option<&Leader>) -> T) -> Option<T> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Storage::Open(log) = &mut state.storage else {
            return None;
        };
        let changed = change(log, state.leader.as_ref());
        state.follow_log(self.clock.now());
        state.settle();
        self.flush_if_dirty(state);
        Some(changed)
    }

    /// This broker leads it.
    #[must_use]
    pub fn is_led(&self) -> bool {
        self.state.lock().leader.is_some()
    }

    /// Why the partition is not served, if it is not.
    #[must_use]
    pub fn offline(&self) -> Option<String> {
        match &self.state.lock().storage {
            Storage::Offline(why) => Some(why.clone()),
            Storage::Open(log) => log.poisoned().map(str::to_owned),
            Storage::Deleted => None,
        }
    }

    /// Ends all that waits and gives up the log: the topic is deleted.
    pub fn delete(&self) {
        let mut state = self.state.lock();
        state.storage = Storage::Deleted;
        state.leader = None;
        state.fail_acks(&AckError::Deleted);
        state.wake_readers();
    }

    /// Closes the log cleanly. Appends are refused from now on.
    ///
    /// # Errors
    /// The disk's.
    pub fn close(&self) -> std::io::Result<()> {
        let mut state = self.state.lock();
        state.leader = None;
        state.fail_acks(&AckError::NotLeader);
        state.wake_readers();
        match &mut state.storage {
            Storage::Open(log) => log.close(),
            _ => Ok(()),
        }
    }
}

/// The log and the leader, where this broker leads in `leader_epoch`.
fn serving<'a>(
    storage: &'a mut Storage,
    leader: &'a mut Option<Leader>,
    leader_epoch: LeaderEpoch,
) -> Result<(&'a mut Log, &'a mut Leader), NotServing> {
    let log = match storage {
        Storage::Open(log) => log,
        Storage::Offline(why) => return Err(NotServing::Offline(why.clone())),
        Storage::Deleted => return Err(NotServing::Deleted),
    };
    let leader = leader.as_mut().ok_or(NotServing::NotLeader)?;
    let current = leader.epoch();
    if leader_epoch != LeaderEpoch::UNKNOWN && leader_epoch < current {
        return Err(NotServing::FencedEpoch { current });
    }
    if leader_epoch > current {
        return Err(NotServing::UnknownEpoch { current });
    }
    Ok((log, leader))
}

/// Where the reader's log must be cut, if it is not a prefix of this one (KIP-320, KIP-595).
fn divergence(log: &Log, spec: &ReadSpec) -> Result<Option<EpochEnd>, FetchError> {
    if spec.last_fetched_epoch == LeaderEpoch::UNKNOWN {
        return Ok(None);
    }
    let end = log.epoch_end(spec.last_fetched_epoch);
    // An epoch that this log has never seen, above its last: Kafka says OFFSET_OUT_OF_RANGE.
    if end.epoch == LeaderEpoch::UNKNOWN {
        return Err(FetchError::Log(ReadError::OutOfRange {
            offset: spec.from,
            log_start: log.log_start(),
            log_end: log.log_end(),
        }));
    }
    let diverges = end.epoch < spec.last_fetched_epoch || end.end_offset < spec.from;
    Ok(diverges.then_some(end))
}
