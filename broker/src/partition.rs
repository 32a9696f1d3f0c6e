//! One partition on this broker: its log, its part in replication, and those who wait for it.
//!
//! A partition is a passive object behind one mutex: an idle one costs the memory of its state and nothing else, no
//! task, timer or open file (DESIGN, "idle partition"). Everything under the lock is short and synchronous; what may
//! block for long leaves it as a job.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use skerry_log::{
    AbortedTxn, AppendError, Appended, EpochEnd, FlushJob, Log, LogConfig, Poisoned, ReadError, ReadPlan,
    ValidBatch,
};
use skerry_replica::{Leader, LeaderStart, NotEnoughReplicas, Visibility};
use skerry_types::{BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition, WallMs, is_planted};
use thiserror::Error;
use tokio::sync::{Notify, oneshot};

use crate::flusher::FlushQueue;
use crate::gather::Gather;

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
    const fn visibility(self) -> Visibility {
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
}

/// What the metadata says of a partition.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// In which epoch.
    pub leader_epoch: LeaderEpoch,
    /// The in-sync set.
    pub in_sync: Vec<BrokerId>,
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

/// One partition on this broker.
pub struct Partition {
    name: TopicPartition,
    topic_id: TopicId,
    me: BrokerId,
    settings: ArcSwap<PartitionSettings>,
    state: Mutex<State>,
    flushes: Arc<FlushQueue>,
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

#[derive(Clone, Copy, PartialEq, Eq)]
enum FlushState {
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
            let in_sync: Vec<_> = leader.in_sync().collect();
            leader.on_settings(&in_sync, settings.min_in_sync, settings.durability.visibility());
        }
        state.settle();
        // From the weaker rule to the stronger: what is not durable yet must become so to be acknowledged.
        self.flush_if_dirty(&mut state);
    }

    /// Takes over what the metadata says.
    pub fn assign(self: &Arc<Self>, assignment: &Assignment) {
        let settings = self.settings();
        let mut state = self.state.lock();
        if assignment.leader != Some(self.me) {
            state.leader = None;
            state.fail_acks(&AckError::NotLeader);
            state.wake_readers();
            return;
        }
        match &mut state.leader {
            Some(leader) if leader.epoch() == assignment.leader_epoch => {
                leader.on_settings(
                    &assignment.in_sync,
                    settings.min_in_sync,
                    settings.durability.visibility(),
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
                    in_sync: assignment.in_sync.clone(),
                    min_in_sync: settings.min_in_sync,
                    visibility: settings.durability.visibility(),
                    log_start: log.log_start(),
                    log_end: log.log_end(),
                    durable_end: log.durable_end(),
                    high_watermark: known,
                }));
                // What a crash left in the page cache alone counts only once it is durable.
                self.flush_if_dirty(&mut state);
            }
        }
        state.settle();
    }

    /// Appends a batch. What it waits for is decided here, in the order of the calls.
    ///
    /// # Errors
    /// [`ProduceError`]; nothing of the batch is in the log.
    pub fn append(
        self: &Arc<Self>,
        batch: ValidBatch,
        acks: Acks,
        now: WallMs,
    ) -> Result<Appending, ProduceError> {
        self.append_in(LeaderEpoch::UNKNOWN, batch, acks, now)
    }

    /// As [`Partition::append`], for a writer whose knowledge is worth something in `leader_epoch` alone (unknown: not
    /// checked).
    ///
    /// # Errors
    /// [`ProduceError`]; nothing of the batch is in the log.
    pub fn append_in(
        self: &Arc<Self>,
        leader_epoch: LeaderEpoch,
        batch: ValidBatch,
        acks: Acks,
        now: WallMs,
    ) -> Result<Appending, ProduceError> {
        let durability = self.settings.load().durability;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (log, leader) = serving(&mut state.storage, &mut state.leader, leader_epoch)?;
        if acks == Acks::All {
            leader.may_acknowledge()?;
        }
        let appended = log.append_as_leader(batch, leader.epoch(), now)?;
        let (Appended::New {
            base,
            last,
            log_append_time,
            ..
        }
        | Appended::Duplicate {
            base,
            last,
            log_append_time,
        }) = appended;
        let end = last.next();
        leader.on_local_log(log.log_start(), log.log_end(), log.durable_end());
        let (log_start, high_watermark, durable_end) =
            (log.log_start(), leader.high_watermark(), log.durable_end());
        state.unflushed_since.get_or_insert(now);
        if state.gather.on_append()
            && let Some(gathered) = state.gathered.take()
        {
            // The worker may have stopped waiting just now.
            let _ = gathered.send(());
        }
        let must_be_durable = match durability {
            Durability::BeforeAcknowledgement if is_planted("ack-before-fsync") => Offset::ZERO,
            Durability::BeforeAcknowledgement => end,
            Durability::Kafka { flush_messages, .. } => {
                if end.get() - durable_end.get() >= flush_messages {
                    end
                } else {
                    Offset::ZERO
                }
            }
        };
        let visible = if acks == Acks::All { end } else { Offset::ZERO };
        let acknowledged =
            if acks == Acks::None || (high_watermark >= visible && durable_end >= must_be_durable) {
                None
            } else {
                let (reply, receiver) = oneshot::channel();
                let waiting = WaitingAck {
                    visible,
                    durable: must_be_durable,
                    reply,
                };
                // A repetition waits for its original, which may be older than what others wait for.
                let place = state.waiting_acks.partition_point(|other| {
                    (other.visible.max(other.durable)) <= waiting.visible.max(waiting.durable)
                });
                state.waiting_acks.insert(place, waiting);
                Some(receiver)
            };
        if durability == Durability::BeforeAcknowledgement || must_be_durable > Offset::ZERO {
            self.flush_if_dirty(state);
        }
        state.settle();
        Ok(Appending {
            base,
            log_append_time,
            log_start,
            acknowledged,
        })
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
        state.follow_log();
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
                state.follow_log();
                state.settle();
                if again && may_gather && more_should_come {
                    let (gathered, receiver) = oneshot::channel();
                    state.gathered = Some(gathered);
                    state.flush = FlushState::Gathering;
                    return AfterFlush::Gather(receiver);
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

    /// The wait for more is over; `came` says whether it has come.
    pub fn end_gathering(&self, came: bool) {
        let mut state = self.state.lock();
        state.gathered = None;
        if !came {
            state.gather.on_disappointed();
        }
    }

    /// Resolves when everything that the log holds now is durable and visible. `None`: it is already, or this broker
    /// does not lead.
    pub fn settled(self: &Arc<Self>) -> Option<oneshot::Receiver<Result<(), AckError>>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Some(leader)) = (&state.storage, &state.leader) else {
            return None;
        };
        let end = log.log_end();
        if leader.high_watermark() >= end || log.poisoned().is_some() {
            return None;
        }
        let (reply, receiver) = oneshot::channel();
        state.waiting_acks.push_back(WaitingAck {
            visible: end,
            durable: Offset::ZERO,
            reply,
        });
        self.flush_if_dirty(state);
        Some(receiver)
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

    fn flush_if_dirty(self: &Arc<Self>, state: &mut State) {
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

impl State {
    /// Tells the leader where its log is.
    fn follow_log(&mut self) {
        if let (Storage::Open(log), Some(leader)) = (&self.storage, &mut self.leader) {
            leader.on_local_log(log.log_start(), log.log_end(), log.durable_end());
        }
    }

    /// Answers what has become true.
    fn settle(&mut self) {
        let (Storage::Open(log), Some(leader)) = (&self.storage, &self.leader) else {
            return;
        };
        let (visible, durable) = (leader.high_watermark(), log.durable_end());
        let mut index = 0;
        while let Some(waiting) = self.waiting_acks.get(index) {
            let reached =
                waiting.visible <= visible && (waiting.durable <= durable || is_planted("ack-before-fsync"));
            if reached {
                let waiting = self.waiting_acks.remove(index).expect("looked at above");
                // The client may have gone: its record stays.
                let _ = waiting.reply.send(Ok(()));
            } else if leader.visibility() == Visibility::Durable {
                // Ordered by offset: nothing behind it is reached either.
                break;
            } else {
                index += 1;
            }
        }
        if visible > self.announced {
            self.announced = visible;
            self.wake_readers();
        }
    }

    fn fail_acks(&mut self, error: &AckError) {
        for waiting in self.waiting_acks.drain(..) {
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }

    fn wake_readers(&mut self) {
        for waiter in self.waiting_reads.drain(..) {
            waiter.notify_one();
        }
    }
}
