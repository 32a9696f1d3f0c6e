//! One partition on this broker: its log, its part in replication, and those who wait for it.
//!
//! A partition is a passive object behind one mutex: an idle one costs the memory of its state and nothing else, no
//! task, timer or open file (DESIGN, "idle partition"). Everything under the lock is short and synchronous; what may
//! block for long leaves it as a job.

mod damage;
mod feed;
mod flush;
mod follow;
mod lead;
mod look;
mod spec;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use skerry_env::Clock;
use skerry_log::{AbortedTxn, EpochEnd, Log, ReadError};
use skerry_replica::{Follower, FollowerStart, Leader};
use skerry_types::{
    BrokerId, LeaderEpoch, Offset, TopicId, TopicPartition, WallMs, buggify, is_planted, reached,
};
use tokio::sync::{Notify, oneshot};

use damage::Damage;
pub use damage::Suspicion;
pub use feed::{Attach, FeedPlan, ImpossibleReport, InSyncCheck, ReplicationState, Watermark};
pub use flush::AfterFlush;
use flush::FlushState;
use follow::Following;
pub use follow::{Checkpoint, Cut, FollowError, OwnProgress};
use lead::Leading;
pub use look::{LeadLook, Look, Measured, Part, Waiting};
pub use spec::{
    AckError, Acks, Appending, Assigned, Assignment, Durability, FetchError, Isolation, NotServing,
    PartitionSettings, ProduceError, ReadSpec, Reading, Throttled,
};

use crate::disk_room::{DiskRoom, Writer};
use crate::flusher::FlushQueue;
use crate::gather::Gather;
use crate::standing::Standing;
use crate::topics::is_internal;

/// What all partitions of a broker have in common.
#[derive(Clone)]
pub struct Common {
    /// The broker.
    pub me: BrokerId,
    /// Logs that wait to be flushed.
    pub flushes: Arc<FlushQueue>,
    /// Whether it may take itself for the leader that the metadata made it.
    pub standing: Arc<Standing>,
    /// The room under its logs.
    pub disk_room: Arc<DiskRoom>,
    /// Its clock.
    pub clock: Clock,
}

/// One partition on this broker.
pub struct Partition {
    name: TopicPartition,
    topic_id: TopicId,
    me: BrokerId,
    settings: ArcSwap<PartitionSettings>,
    state: Mutex<State>,
    /// Held by whoever exchanges its folder: no other partition of that name has one before.
    folder: tokio::sync::Mutex<()>,
    /// In nanoseconds of the monotonic clock: it has asked for what makes others lead, and has no answer that denies it.
    doubted_until: AtomicU64,
    flushes: Arc<FlushQueue>,
    standing: Arc<Standing>,
    disk_room: Arc<DiskRoom>,
    /// As whom it writes.
    writer: Writer,
    clock: Clock,
}

struct State {
    storage: Storage,
    role: Role,
    /// What a replica without a role knew last, or a checkpoint.
    high_watermark: Offset,
    /// Acknowledgements that wait for the high watermark, in the order of their offsets.
    waiting_all: VecDeque<WaitingAck>,
    /// Acknowledgements that wait for this broker's disk alone, in the order of their offsets.
    waiting_leader: VecDeque<WaitingAck>,
    waiting_reads: Vec<Arc<Notify>>,
    flush: FlushState,
    gather: Gather,
    /// Tells the worker that holds a flush back.
    gathered: Option<oneshot::Sender<()>>,
    /// The high watermark that readers were last woken for.
    announced: Offset,
    /// When the oldest record that is not durable was appended. For `flush.ms`.
    unflushed_since: Option<WallMs>,
    /// The log is about to be cut here: no checkpoint may claim more.
    cut_at: Option<Offset>,
    /// A read that met damage here.
    suspected: Option<Suspicion>,
    damage: Option<Damage>,
    /// The metadata is asked to count this copy no more: in a later epoch it has no part.
    is_given_up: bool,
    /// The node ends: the log is closed, and what the metadata says meanwhile gives it no part any more.
    is_closed: bool,
    /// The newest assignment.
    assigned: Option<Assignment>,
}

/// What this broker is to the partition.
enum Role {
    /// Nobody leads, or this start of the broker is not registered yet.
    None,
    Leader(Box<Leading>),
    Follower(Following),
}

impl Role {
    fn assigned(&self) -> Assigned {
        match self {
            Self::None => Assigned::Nothing,
            Self::Leader(_) => Assigned::Leads,
            Self::Follower(following) => Assigned::Follows {
                leader: following.rules.leader(),
                epoch: following.rules.epoch(),
            },
        }
    }

    fn epoch(&self) -> Option<LeaderEpoch> {
        match self {
            Self::None => None,
            Self::Leader(leading) => Some(leading.rules.epoch()),
            Self::Follower(following) => Some(following.rules.epoch()),
        }
    }

    fn leader(&self) -> Option<&Leader> {
        match self {
            Self::Leader(leading) => Some(&leading.rules),
            _ => None,
        }
    }

    fn high_watermark(&self) -> Option<Offset> {
        match self {
            Self::None => None,
            Self::Leader(leading) => Some(leading.rules.high_watermark()),
            Self::Follower(following) => Some(following.rules.high_watermark()),
        }
    }
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
    /// A partition with an open log, or with the reason why it is not. `high_watermark` is a checkpoint's: a hint.
    #[must_use]
    pub fn new(
        name: TopicPartition,
        topic_id: TopicId,
        settings: Arc<PartitionSettings>,
        log: Result<Log, String>,
        high_watermark: Offset,
        common: Common,
    ) -> Arc<Self> {
        let Common {
            me,
            flushes,
            standing,
            disk_room,
            clock,
        } = common;
        let writer = if is_internal(&name.topic) {
            Writer::Groups
        } else {
            Writer::Records
        };
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
                role: Role::None,
                high_watermark,
                waiting_all: VecDeque::new(),
                waiting_leader: VecDeque::new(),
                waiting_reads: Vec::new(),
                flush: FlushState::Idle,
                gather: Gather::default(),
                gathered: None,
                announced: Offset::ZERO,
                unflushed_since: None,
                cut_at: None,
                suspected: None,
                damage: None,
                is_given_up: false,
                is_closed: false,
                assigned: None,
            }),
            folder: tokio::sync::Mutex::default(),
            doubted_until: AtomicU64::new(0),
            flushes,
            standing,
            disk_room,
            writer,
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
        if let Role::Leader(leading) = &mut state.role {
            leading
                .rules
                .on_settings(settings.min_in_sync, settings.durability.visibility());
        }
        state.settle();
        // From the weaker rule to the stronger: what is not durable yet must become so to be acknowledged.
        self.flush_if_dirty(&mut state);
    }

    /// Takes over what the metadata says, and tells whom this broker follows now.
    pub fn assign(self: &Arc<Self>, assignment: &Assignment) -> Assigned {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        // Two tasks may act on two images at once, and not in their order.
        if state
            .assigned
            .as_ref()
            .is_some_and(|known| assignment.is_before(known))
        {
            return state.role.assigned();
        }
        state.assigned = Some(assignment.clone());
        self.take_part(state, assignment)
    }

    /// What this broker is to the partition now.
    #[must_use]
    pub fn assigned(&self) -> Assigned {
        self.state.lock().role.assigned()
    }

    fn take_part(self: &Arc<Self>, state: &mut State, assignment: &Assignment) -> Assigned {
        if state.is_closed {
            return Assigned::Nothing;
        }
        // Nobody may take it into an in-sync set again, and then find it gone.
        if state.is_given_up && state.role.epoch() != Some(assignment.leader_epoch) {
            state.end_role();
            return Assigned::Nothing;
        }
        let role = match assignment.leader {
            Some(leader) if leader == self.me => self.lead(state, assignment),
            Some(leader) if assignment.registration.is_some() => self.follow(state, assignment, leader),
            _ => {
                state.end_role();
                Assigned::Nothing
            }
        };
        // What a crash left in the page cache alone counts only once it is durable.
        self.flush_if_dirty(state);
        state.settle();
        role
    }

    fn follow(&self, state: &mut State, assignment: &Assignment, leader: BrokerId) -> Assigned {
        let epoch = assignment.leader_epoch;
        let in_sync = assignment.view.in_sync.contains(&self.me);
        if let Role::Follower(following) = &mut state.role
            && following.rules.epoch() == epoch
        {
            following.in_sync = in_sync;
            return Assigned::Follows { leader, epoch };
        }
        state.end_role();
        let Storage::Open(log) = &state.storage else {
            return Assigned::Nothing;
        };
        let rules = Follower::new(FollowerStart {
            leader,
            epoch,
            log_start: log.log_start(),
            log_end: log.log_end(),
            high_watermark: state.high_watermark,
        });
        state.role = Role::Follower(Following::new(rules, in_sync));
        Assigned::Follows { leader, epoch }
    }

    /// Where the bytes of a read are, and the numbers that go with them.
    ///
    /// # Errors
    /// [`FetchError`].
    pub fn read(&self, spec: &ReadSpec) -> Result<Reading, FetchError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (log, high_watermark, cut_off) = if spec.any_replica {
            let cut_off = self.is_cut_off_in(state);
            let (log, high_watermark) = readable(&state.storage, &state.role, spec.leader_epoch)?;
            (log, high_watermark, cut_off)
        } else {
            let (log, leading) = serving(&mut state.storage, &mut state.role, spec.leader_epoch)?;
            let leader = &leading.rules;
            (&*log, leader.high_watermark(), self.cuts_off(leader))
        };
        let last_stable = log.last_stable(high_watermark);
        let log_start = log.log_start();
        let upper = match spec.isolation {
            Isolation::ReadUncommitted if is_planted("served-beyond-high-watermark") => log.log_end(),
            Isolation::ReadUncommitted => high_watermark,
            Isolation::ReadCommitted => last_stable,
            Isolation::LogEnd => log.log_end(),
        };
        // What is committed may be read from anybody. Whoever waits for more should look for it elsewhere.
        if cut_off && spec.from >= upper {
            return Err(NotServing::CutOff.into());
        }
        let diverging = divergence(log, spec)?;
        let max_bytes = match diverging {
            Some(_) => 0,
            None if buggify("fetch-of-one-batch", 4) => 1,
            None => spec.max_bytes,
        };
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

    /// Wakes `waiter` at the next change that a reader could see, or that moves the first offset of a follower.
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
        let (log, leading) = serving(&mut state.storage, &mut state.role, leader_epoch)?;
        Ok(look(log, &leading.rules))
    }

    /// Looks at the log, whoever leads. `None` where it is deleted or offline.
    pub fn with_log<T>(&self, look: impl FnOnce(&mut Log) -> T) -> Option<T> {
        match &mut self.state.lock().storage {
            Storage::Open(log) => Some(look(log)),
            _ => None,
        }
    }

    /// Changes the log's extent (retention, DeleteRecords, compaction), and tells the leader or the follower. `change`
    /// gets the log and the high watermark that this replica knows, which bounds what may be deleted or compacted.
    pub fn change_log<T>(self: &Arc<Self>, change: impl FnOnce(&mut Log, Offset) -> T) -> Option<T> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Storage::Open(log) = &mut state.storage else {
            return None;
        };
        let known = state.role.high_watermark().unwrap_or(state.high_watermark);
        let changed = change(log, known.clamp(log.log_start(), log.log_end()));
        state.follow_log(self.clock.now());
        state.settle();
        self.flush_if_dirty(state);
        Some(changed)
    }

    /// This broker leads it.
    #[must_use]
    pub fn is_led(&self) -> bool {
        matches!(self.state.lock().role, Role::Leader(_))
    }

    /// Why the partition is not served, if it is not.
    #[must_use]
    pub fn offline(&self) -> Option<String> {
        self.state.lock().offline().map(str::to_owned)
    }

    /// Its log is open, though it may take no more.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self.state.lock().storage, Storage::Open(_))
    }

    /// The metadata takes this copy for one that cannot be opened.
    #[must_use]
    pub fn is_called_offline(&self) -> bool {
        self.state.lock().is_called_offline()
    }

    /// Its folder, to be exchanged. None once it is deleted: what has its name then is another copy's.
    pub async fn lock_folder(&self) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let folder = self.folder.lock().await;
        let is_deleted = matches!(self.state.lock().storage, Storage::Deleted);
        Some(folder).filter(|_| !is_deleted)
    }

    /// Gives up the log: what is left of it is set aside.
    pub fn go_offline(&self, why: &str) {
        let mut state = self.state.lock();
        if let Storage::Open(log) = &mut state.storage {
            log.forget_files();
        }
        if !matches!(state.storage, Storage::Deleted) {
            state.end_role();
            state.storage = Storage::Offline(why.to_owned());
        }
    }

    /// An empty log takes the place of the one that was given up, and takes part as the metadata has told meanwhile.
    pub fn come_back(self: &Arc<Self>, log: Log) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if matches!(state.storage, Storage::Offline(_)) {
            state.end_role();
            state.high_watermark = log.log_start();
            state.announced = Offset::ZERO;
            state.flush = FlushState::Idle;
            state.cut_at = None;
            (state.suspected, state.damage) = (None, None);
            state.is_given_up = false;
            self.doubted_until.store(0, Ordering::Release);
            state.storage = Storage::Open(log);
            if let Some(assignment) = state.assigned.clone() {
                self.take_part(state, &assignment);
            }
        }
    }

    /// Ends all that waits and gives up the log: the topic is deleted.
    pub fn delete(&self) {
        let mut state = self.state.lock();
        if let Storage::Open(log) = &mut state.storage {
            log.forget_files();
        }
        state.storage = Storage::Deleted;
        state.fail_acks(&AckError::Deleted);
        state.end_role();
    }

    /// Closes the log cleanly. Appends are refused from now on.
    ///
    /// # Errors
    /// The disk's.
    pub fn close(&self) -> std::io::Result<()> {
        let mut state = self.state.lock();
        state.end_role();
        state.is_closed = true;
        match &mut state.storage {
            Storage::Open(log) => log.close(),
            _ => Ok(()),
        }
    }
}

impl State {
    fn is_called_offline(&self) -> bool {
        self.assigned
            .as_ref()
            .is_some_and(|assigned| assigned.is_called_offline)
    }

    fn offline(&self) -> Option<&str> {
        match &self.storage {
            Storage::Offline(why) => Some(why),
            Storage::Open(log) => log.poisoned(),
            Storage::Deleted => None,
        }
    }
}

/// The log and the leader, where this broker leads in `leader_epoch`.
fn serving<'a>(
    storage: &'a mut Storage,
    role: &'a mut Role,
    leader_epoch: LeaderEpoch,
) -> Result<(&'a mut Log, &'a mut Leading), NotServing> {
    let log = open(storage)?;
    let Role::Leader(leading) = role else {
        return Err(NotServing::NotLeader);
    };
    check_epoch(leading.rules.epoch(), leader_epoch)?;
    Ok((log, leading))
}

/// The log and the high watermark, where this broker leads or follows in `leader_epoch` (KIP-392).
fn readable<'a>(
    storage: &'a Storage,
    role: &Role,
    leader_epoch: LeaderEpoch,
) -> Result<(&'a Log, Offset), NotServing> {
    let log = match storage {
        Storage::Open(log) => log,
        Storage::Offline(why) => return Err(NotServing::Offline(why.clone())),
        Storage::Deleted => return Err(NotServing::Deleted),
    };
    let (epoch, high_watermark) = match role {
        Role::None => return Err(NotServing::NotLeader),
        Role::Leader(leading) => (leading.rules.epoch(), leading.rules.high_watermark()),
        Role::Follower(following) => (following.rules.epoch(), following.rules.high_watermark()),
    };
    check_epoch(epoch, leader_epoch)?;
    Ok((log, high_watermark))
}

fn open(storage: &mut Storage) -> Result<&mut Log, NotServing> {
    match storage {
        Storage::Open(log) => Ok(log),
        Storage::Offline(why) => Err(NotServing::Offline(why.clone())),
        Storage::Deleted => Err(NotServing::Deleted),
    }
}

fn check_epoch(current: LeaderEpoch, asked: LeaderEpoch) -> Result<(), NotServing> {
    if asked != LeaderEpoch::UNKNOWN && asked < current {
        reached("old-leader-epoch-refused");
        return Err(NotServing::FencedEpoch { current });
    }
    if asked > current {
        reached("leader-epoch-from-the-future");
        return Err(NotServing::UnknownEpoch { current });
    }
    Ok(())
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
