//! What a follower does with its log: it takes what its leader sends, and cuts what its leader does not have.

use std::sync::Arc;

use bytes::Bytes;
use skerry_log::batch::Batches;
use skerry_log::{AppendError, ChangeError, EpochEnd, Log, Retired};
use skerry_replica::{Follower, Position, Visibility};
use skerry_types::{LeaderEpoch, Offset, WallMs, is_planted, sometimes};
use thiserror::Error;

use super::{Durability, Partition, Role, State, Storage, Watermark};
use crate::disk_room::NearlyFull;
use crate::replication::Fetcher;

/// The part of a partition's follower.
pub(super) struct Following {
    pub(super) rules: Follower,
    /// The metadata has this replica in sync.
    pub(super) in_sync: bool,
    /// The leader's high watermark, as it was told last.
    leader_high_watermark: Offset,
    link: Option<Link>,
}

/// The stream that it follows over.
struct Link {
    fetcher: Arc<Fetcher>,
    handle: u32,
    /// What the leader was told last.
    told: OwnProgress,
    /// The stream knows that there is more to tell.
    marked: bool,
}

/// How far this replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnProgress {
    /// Where its log ends.
    pub written_end: Offset,
    /// Up to where it is on stable storage.
    pub durable_end: Offset,
    /// Where it begins.
    pub log_start: Offset,
}

impl OwnProgress {
    fn of(log: &Log) -> Self {
        Self {
            written_end: log.log_end(),
            durable_end: log.durable_end(),
            log_start: log.log_start(),
        }
    }
}

/// Where a follower's log is changed at its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Everything from here on goes.
    To(Offset),
    /// Everything goes; the log goes on here.
    StartAt(Offset),
    /// The log begins here.
    LogStart(Offset),
}

/// What a leader sent was not appended.
#[derive(Debug, Error)]
pub enum FollowError {
    /// It belongs to an earlier question, or another epoch: nothing is wrong.
    #[error("sent for another epoch or an earlier question")]
    Stale,
    /// It is no continuation of the log, or damaged.
    #[error("{0}")]
    Corrupt(String),
    /// The disk is full, or nearly: later. What the leader has deleted can go.
    #[error("no room left on the disk")]
    DiskFull {
        /// The log's new start, where the leader's has moved.
        raise_log_start: Option<Offset>,
    },
    /// The log takes no more writes.
    #[error("{0}")]
    Failed(String),
}

impl From<AppendError> for FollowError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Poisoned(why) => Self::Failed(why),
            AppendError::DiskFull => Self::DiskFull {
                raise_log_start: None,
            },
            other => Self::Corrupt(other.to_string()),
        }
    }
}

impl Following {
    pub(super) fn new(rules: Follower, in_sync: bool) -> Self {
        Self {
            rules,
            in_sync,
            leader_high_watermark: Offset::ZERO,
            link: None,
        }
    }

    /// The log has moved by itself: a flush ended, retention began it elsewhere.
    pub(super) fn on_local_log(&mut self, log: &Log) {
        self.rules.on_local_log(log.log_start(), log.log_end());
        let progress = OwnProgress::of(log);
        if let Some(link) = &mut self.link
            && (progress.durable_end, progress.log_start) != (link.told.durable_end, link.told.log_start)
        {
            link.mark();
        }
    }

    fn link(&mut self, fetcher: &Fetcher, handle: u32) -> Option<&mut Link> {
        self.link
            .as_mut()
            .filter(|link| link.handle == handle && std::ptr::eq(&*link.fetcher, fetcher))
    }
}

impl Link {
    fn mark(&mut self) {
        if !self.marked {
            self.marked = true;
            self.fetcher.on_progress(self.handle);
        }
    }
}

impl State {
    /// Acknowledged records that this copy lacks while it is not in sync, as far as it has been told.
    pub(super) fn records_lacking(&self) -> u64 {
        match (&self.storage, &self.role) {
            (Storage::Open(log), Role::Follower(following)) if !following.in_sync => {
                let lacking = following.leader_high_watermark.get() - log.log_end().get();
                u64::try_from(lacking).unwrap_or(0)
            }
            _ => 0,
        }
    }
}

impl Partition {
    /// Begins to follow over a stream, under this name; from where. `None`: this broker does not follow in this epoch.
    pub fn begin_following(
        &self,
        epoch: LeaderEpoch,
        fetcher: &Arc<Fetcher>,
        handle: u32,
    ) -> Option<(Position, Offset)> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Role::Follower(following)) = (&state.storage, &mut state.role) else {
            return None;
        };
        if following.rules.epoch() != epoch || state.cut_at.is_some() || log.poisoned().is_some() {
            return None;
        }
        following.link = Some(Link {
            fetcher: fetcher.clone(),
            handle,
            told: OwnProgress::of(log),
            marked: false,
        });
        let last_epoch = log.last_epoch().unwrap_or(LeaderEpoch::UNKNOWN);
        let position = following
            .rules
            .position(last_epoch, log.log_end(), log.durable_end());
        Some((position, log.log_start()))
    }

    /// The stream has ended, or the question is void.
    pub fn end_following(&self, fetcher: &Fetcher, handle: u32) {
        if let Role::Follower(following) = &mut self.state.lock().role
            && following.link(fetcher, handle).is_some()
        {
            following.link = None;
        }
    }

    /// Appends what the leader sent. Gives the log's new start where the leader's has moved.
    ///
    /// # Errors
    /// [`FollowError`].
    pub fn append_from_leader(
        self: &Arc<Self>,
        fetcher: &Fetcher,
        handle: u32,
        records: Bytes,
        watermark: Watermark,
        now: WallMs,
    ) -> Result<Option<Offset>, FollowError> {
        let durability = self.settings.load().durability;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Role::Follower(following)) = (&mut state.storage, &mut state.role) else {
            return Err(FollowError::Stale);
        };
        if following.link(fetcher, handle).is_none() || !following.rules.accepts(watermark.leader_epoch) {
            return Err(FollowError::Stale);
        }
        following.leader_high_watermark = watermark.high_watermark;
        let batches = count_batches(&records, following.rules.epoch())?;
        let appended = match self.disk_room.take(records.len() as u64, self.writer) {
            Ok(()) => log.append_as_follower(records, now),
            Err(NearlyFull { .. }) => Err(AppendError::DiskFull),
        };
        // What was appended before an error is in the log all the same.
        let told = following.rules.on_leader(
            watermark.high_watermark,
            watermark.log_start,
            log.log_start(),
            log.log_end(),
        );
        let dirty_records = log.log_end().get() - log.durable_end().get();
        state.unflushed_since.get_or_insert(now);
        for _ in 0..batches {
            if state.gather.on_append()
                && let Some(gathered) = state.gathered.take()
            {
                // The worker may have stopped waiting just now.
                let _ = gathered.send(());
            }
        }
        let flush_now = match durability {
            Durability::BeforeAcknowledgement => true,
            Durability::Kafka { flush_messages, .. } => dirty_records >= flush_messages,
        };
        if durability.visibility() == Visibility::Written
            && let Some(link) = &mut following.link
        {
            link.mark();
        }
        if flush_now {
            self.flush_if_dirty(state);
        }
        state.settle();
        match appended.map_err(FollowError::from) {
            Ok(_) => Ok(told.raise_log_start),
            Err(FollowError::DiskFull { .. }) => Err(FollowError::DiskFull {
                raise_log_start: told.raise_log_start,
            }),
            Err(error) => Err(error),
        }
    }

    /// Takes over the leader's high watermark and log start, where no records carried them.
    ///
    /// # Errors
    /// [`FollowError::Stale`].
    pub fn on_watermark(
        &self,
        fetcher: &Fetcher,
        handle: u32,
        watermark: Watermark,
    ) -> Result<Option<Offset>, FollowError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Role::Follower(following)) = (&state.storage, &mut state.role) else {
            return Err(FollowError::Stale);
        };
        if following.link(fetcher, handle).is_none() || !following.rules.accepts(watermark.leader_epoch) {
            return Err(FollowError::Stale);
        }
        following.leader_high_watermark = watermark.high_watermark;
        let told = following.rules.on_leader(
            watermark.high_watermark,
            watermark.log_start,
            log.log_start(),
            log.log_end(),
        );
        state.settle();
        Ok(told.raise_log_start)
    }

    /// The leader must hear of what is written, although it is not durable yet: its window is nearly used up.
    pub fn mark_written(&self, fetcher: &Fetcher, handle: u32) {
        if let Role::Follower(following) = &mut self.state.lock().role
            && let Some(link) = following.link(fetcher, handle)
        {
            link.mark();
        }
    }

    /// How far this replica is, to be told to the leader. `None`: the question is void.
    pub fn take_progress(&self, fetcher: &Fetcher, handle: u32) -> Option<OwnProgress> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Role::Follower(following)) = (&state.storage, &mut state.role) else {
            return None;
        };
        let mut progress = OwnProgress::of(log);
        if is_planted("follower-reports-written-as-durable") {
            progress.durable_end = progress.written_end;
        }
        let link = following.link(fetcher, handle)?;
        (link.marked, link.told) = (false, progress);
        Some(progress)
    }

    /// The follower is not in sync, and what it takes is throttled.
    #[must_use]
    pub fn is_throttled_here(&self) -> bool {
        self.settings.load().throttled.follower
            && matches!(&self.state.lock().role, Role::Follower(following) if !following.in_sync)
    }

    /// The leader says that the logs part: where this one must be cut. `None`: not this epoch's business any more.
    pub fn on_diverging(&self, epoch: LeaderEpoch, leader_end: EpochEnd) -> Option<Cut> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Role::Follower(following)) = (&state.storage, &mut state.role) else {
            return None;
        };
        if following.rules.epoch() != epoch {
            return None;
        }
        following.link = None;
        let last_epoch = log.last_epoch();
        sometimes(
            "diverging-in-an-epoch-the-leader-never-had",
            last_epoch.is_some_and(|last| last > leader_end.epoch),
        );
        let own_end_of = |epoch| {
            let end = own_end(log, epoch);
            (end.epoch, end.end_offset)
        };
        let to = following.rules.on_diverging(
            (leader_end.epoch, leader_end.end_offset),
            own_end_of,
            log.log_end(),
        );
        Some(Cut::To(to.max(Offset::ZERO)))
    }

    /// From now on no checkpoint claims what a cut will remove: after a crash the missing records would be taken for
    /// damage. Gives how far the checkpoints may go. `None`: the cut is not this epoch's business any more.
    pub fn prepare_cut(&self, epoch: LeaderEpoch, cut: Cut) -> Option<Offset> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Role::Follower(following)) = (&state.storage, &mut state.role) else {
            return None;
        };
        if following.rules.epoch() != epoch || log.poisoned().is_some() {
            return None;
        }
        match cut {
            Cut::LogStart(_) => Some(log.recovery_point()),
            Cut::To(at) => {
                state.cut_at = Some(at);
                Some(at)
            }
            Cut::StartAt(at) => {
                // What is there goes from the end on: nothing may be claimed but that the log begins somewhere.
                let at = at.min(log.log_start());
                state.cut_at = Some(at);
                Some(at)
            }
        }
    }

    /// Cuts, durably; may wait for the disk. The caller has made durable what [`Self::prepare_cut`] told. `producers`: what the
    /// leader knows of them below the offset at which the log starts over.
    ///
    /// # Errors
    /// The disk's, which are final for the log.
    pub fn cut(&self, epoch: LeaderEpoch, cut: Cut, producers: &[u8]) -> Result<Retired, ChangeError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.cut_at = None;
        let (Storage::Open(log), Role::Follower(following)) = (&mut state.storage, &mut state.role) else {
            return Ok(Retired::default());
        };
        // Another leader may have everything that this one lacks.
        if following.rules.epoch() != epoch {
            return Ok(Retired::default());
        }
        let retired = match cut {
            Cut::To(at) => log.truncate_to(at)?,
            Cut::StartAt(at) => {
                following.rules.on_out_of_range(at);
                let is_told = !producers.is_empty() && !is_planted("starts-over-without-producers");
                sometimes("producers-told-by-the-leader", is_told);
                log.truncate_fully_and_start_at(at, if is_told { producers } else { &[] })?
            }
            Cut::LogStart(at) => log.set_log_start(at.min(following.rules.high_watermark()))?,
        };
        let before = following.rules.high_watermark();
        let known = before.clamp(log.log_start(), log.log_end());
        if known != before {
            // A batch that holds the place of the cut goes as a whole.
            following.rules = Follower::new(skerry_replica::FollowerStart {
                leader: following.rules.leader(),
                epoch,
                log_start: log.log_start(),
                log_end: log.log_end(),
                high_watermark: known,
            });
        }
        state.announced = state.announced.min(known);
        state.follow_log(self.clock.now());
        Ok(retired)
    }

    /// A cut will not be made.
    pub fn forget_cut(&self) {
        self.state.lock().cut_at = None;
    }

    /// What may be written into checkpoints: recovery point, first offset, how far compaction has come, high watermark.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let state = self.state.lock();
        let Storage::Open(log) = &state.storage else {
            return None;
        };
        let limit = state.cut_at.unwrap_or(Offset(i64::MAX));
        let known = state.role.high_watermark().unwrap_or(state.high_watermark);
        Some(Checkpoint {
            recovery_point: log.recovery_point().min(limit),
            log_start: log.log_start().min(limit),
            cleaned_until: log.cleaned_until().map(|cleaned| cleaned.min(limit)),
            // A follower may have heard of a high watermark beyond what it has flushed.
            high_watermark: known
                .clamp(log.log_start(), log.durable_end().max(log.log_start()))
                .min(limit),
        })
    }
}

/// What belongs into the checkpoint files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Recovery need not look below it.
    pub recovery_point: Offset,
    /// Where the log begins.
    pub log_start: Offset,
    /// Compaction has seen everything below.
    pub cleaned_until: Option<Offset>,
    /// Everything below is acknowledged, as far as this replica knows.
    pub high_watermark: Offset,
}

/// What a follower's log says of an epoch. It knows of epochs with records alone: of a later one, that it has none.
fn own_end(log: &Log, epoch: LeaderEpoch) -> EpochEnd {
    match log.last_epoch() {
        Some(last) if last <= epoch => EpochEnd {
            epoch: last,
            end_offset: log.log_end(),
        },
        Some(_) => log.epoch_end(epoch),
        None => EpochEnd::UNKNOWN,
    }
}

/// How many batches there are. None may be of a later epoch than the leader's: no leader of it has written yet.
fn count_batches(records: &Bytes, leader_epoch: LeaderEpoch) -> Result<usize, FollowError> {
    let mut count = 0;
    for batch in Batches::new(records.clone()) {
        let epoch = batch.header.leader_epoch();
        if epoch > leader_epoch {
            return Err(FollowError::Corrupt(format!(
                "a batch of leader epoch {epoch} came in epoch {leader_epoch}"
            )));
        }
        count += 1;
    }
    Ok(count)
}
