//! What a leader's partition gives to the streams of its followers, and hears from them.
//!
//! A stream that has sent everything is woken by the next append, once; one that has not is busy anyway. High watermarks
//! travel with the records, or are collected by the stream every few milliseconds.

use std::sync::Arc;

use bytes::Bytes;
use skerry_log::{ReadError, ReadPlan};
use skerry_replica::{Answer, FollowRefusal, FollowerReport, InSyncProposal, LagLimits};
use skerry_types::{BrokerEpoch, BrokerId, Instant, LeaderEpoch, Offset, buggify, is_planted};

use super::lead::Leading;
use super::{NotServing, Partition, Role, State, Storage, serving};
use crate::leader_epochs;
use crate::replication::Feed;

/// The most that a follower is told of producers, for about 6,000 of them.
const PRODUCERS_BYTES_MAX: usize = 1 << 20;

/// One follower's stream at a partition.
pub(super) struct Tap {
    pub(super) feed: Arc<Feed>,
    /// The stream's name for this question of its follower.
    pub(super) handle: u32,
    /// The stream has sent everything: the next append wakes it.
    pub(super) drained: bool,
    /// High watermark and log start as the follower knows them.
    told: (Offset, Offset),
    /// The stream knows that they have changed.
    marked: bool,
}

impl Tap {
    fn is(&self, feed: &Feed, handle: u32) -> bool {
        self.handle == handle && std::ptr::eq(&*self.feed, feed)
    }

    pub(super) fn tell_of_watermark(&mut self, now: (Offset, Offset)) {
        if self.told != now && !self.marked {
            self.marked = true;
            self.feed.on_watermark(self.handle);
        }
    }
}

/// A follower asks to follow.
#[derive(Clone, Copy, Debug)]
pub struct Attach {
    /// The stream's name for this question.
    pub handle: u32,
    /// How far the follower is; `written_end` is from where it wants to go on.
    pub report: FollowerReport,
    /// The epoch of its last batch.
    pub last_epoch: LeaderEpoch,
}

/// What a stream does next about a partition.
pub enum FeedPlan {
    /// Nothing: it is woken when there is more.
    Drained,
    /// Read and send.
    Read {
        /// Where the bytes are.
        plan: ReadPlan,
        /// High watermark and log start that go with them.
        watermark: Watermark,
        /// The follower is in sync: others must not wait behind those who are not.
        in_sync: bool,
    },
    /// What the follower needs next is gone.
    OutOfRange {
        /// Where the log begins.
        log_start: Offset,
    },
    /// The log cannot be read.
    Failed(ReadError),
    /// The question is void: there is another leader, or the follower has asked again.
    Void,
}

/// What a follower is told beside the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watermark {
    /// In which epoch.
    pub leader_epoch: LeaderEpoch,
    /// Everything below is acknowledged.
    pub high_watermark: Offset,
    /// Where the leader's log begins.
    pub log_start: Offset,
}

/// What a look at the in-sync set needs.
pub struct InSyncCheck<'a> {
    /// The time.
    pub now: Instant,
    /// When a follower does not keep up.
    pub limits: LagLimits,
    /// The current registration of a broker that may be in sync.
    pub registered: &'a dyn Fn(BrokerId) -> Option<BrokerEpoch>,
}

impl Partition {
    /// What the log knows of producers below `offset`, as a `.snapshot` file has it; empty where that is nothing, or too much to
    /// be told.
    pub fn producers_below(&self, offset: Offset) -> Bytes {
        let known = self.with_log(|log| log.producers_below(offset));
        let bytes = known.unwrap_or_default();
        if bytes.len() > PRODUCERS_BYTES_MAX {
            tracing::warn!(partition = %self.name(), bytes = bytes.len(), "a follower that starts over is not told of the producers: they are too many");
            return Bytes::new();
        }
        bytes.into()
    }

    /// A follower's stream asks for this partition. From now on it is woken. True where the follower is in sync.
    ///
    /// # Errors
    /// `Err(Ok(_))`: the partition is not served. `Err(Err(_))`: not to this follower, or not from there.
    pub fn attach(
        &self,
        attach: &Attach,
        feed: &Arc<Feed>,
    ) -> Result<bool, Result<NotServing, FollowRefusal>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (log, leading) =
            serving(&mut state.storage, &mut state.role, LeaderEpoch::UNKNOWN).map_err(Ok)?;
        let current = leading.rules.epoch();
        let end_of = |epoch| {
            let end = leader_epochs::end_in(log, current, epoch);
            (end.epoch, end.end_offset)
        };
        leading
            .rules
            .on_follow(&attach.report, attach.last_epoch, end_of, self.clock.now())
            .map_err(Err)?;
        leading
            .taps
            .retain(|tap| tap.feed.follower() != attach.report.follower);
        leading.taps.push(Tap {
            feed: feed.clone(),
            handle: attach.handle,
            drained: false,
            told: (Offset(-1), Offset(-1)),
            marked: false,
        });
        let in_sync = leading.is_in_sync(attach.report.follower);
        state.settle();
        // Whoever waits for the replicas' first offsets knows one more.
        state.wake_readers();
        Ok(in_sync)
    }

    /// A follower's stream has ended, or follows this partition no more.
    pub fn detach(&self, feed: &Feed, handle: u32) {
        let mut state = self.state.lock();
        if let Role::Leader(leading) = &mut state.role
            && leading.tap(feed, handle).is_some()
        {
            leading.taps.retain(|tap| !tap.is(feed, handle));
            leading.rules.on_follower_gone(feed.follower(), self.clock.now());
        }
    }

    /// A follower tells how far it is. Gives the proposal of another in-sync set, where one is due, and when to look at
    /// one that is not due yet.
    ///
    /// # Errors
    /// No follower of this leader could say that.
    pub fn on_report(
        &self,
        feed: &Feed,
        handle: u32,
        report: &FollowerReport,
        check: &InSyncCheck<'_>,
    ) -> Result<(Option<InSyncProposal>, Option<Instant>), ImpossibleReport> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Role::Leader(leading)) = (&state.storage, &mut state.role) else {
            return Ok((None, None));
        };
        if leading.tap(feed, handle).is_none() && !is_planted("follower-epoch-unchecked") {
            return Ok((None, None));
        }
        if report.durable_end > report.written_end || report.written_end > log.log_end() {
            return Err(ImpossibleReport {
                written_end: report.written_end,
                durable_end: report.durable_end,
                log_end: log.log_end(),
            });
        }
        let start = |leading: &Leading| {
            let progress = leading.rules.progress_of(report.follower);
            progress.map(|progress| progress.log_start)
        };
        let start_before = start(leading);
        leading.rules.on_follower(report, check.now);
        let start_moved = start(leading) != start_before;
        let mut due = (None, None);
        // Who is in sync and goes may have been waited for.
        if !leading.is_in_sync(report.follower) || leading.rules.is_removing(report.follower) {
            due.0 = leading
                .rules
                .propose_in_sync(check.now, &check.limits, check.registered);
            due.1 = leading.rules.next_deadline(check.now, &check.limits);
        }
        state.settle();
        if start_moved {
            state.wake_readers();
        }
        Ok(due)
    }

    /// Looks whether somebody should join or leave the in-sync set; gives the proposal, and when to look again. `None`:
    /// never, there is nothing to lead here.
    pub fn check_in_sync(&self, check: &InSyncCheck<'_>) -> (Option<InSyncProposal>, Option<Instant>) {
        let mut state = self.state.lock();
        let Role::Leader(leading) = &mut state.role else {
            return (None, None);
        };
        let due = leading
            .rules
            .next_deadline(check.now, &check.limits)
            .is_some_and(|at| at <= check.now);
        let proposal = if due {
            leading
                .rules
                .propose_in_sync(check.now, &check.limits, check.registered)
        } else {
            None
        };
        if leading.rules.replicas().nth(1).is_none() {
            return (proposal, None);
        }
        // Whoever has everything lags only when more is written, and an append tells nobody of that moment. Kafka looks
        // as often (`isr-expiration`).
        let anyhow = check.now + check.limits.lag_max / 2;
        let deadline = leading.rules.next_deadline(check.now, &check.limits);
        (proposal, Some(deadline.map_or(anyhow, |at| at.min(anyhow))))
    }

    /// What became of a proposal.
    pub fn on_proposal(&self, proposal: &InSyncProposal, answer: Answer) {
        let mut state = self.state.lock();
        if let Role::Leader(leading) = &mut state.role
            && leading.rules.epoch() == proposal.leader_epoch
        {
            leading
                .rules
                .on_proposal(proposal.partition_epoch, answer, self.clock.now());
        }
    }

    /// What the stream does next, having sent everything below `position`.
    pub fn plan_feed(
        &self,
        feed: &Feed,
        handle: u32,
        position: Offset,
        max_bytes: u32,
        one_batch: bool,
    ) -> FeedPlan {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Role::Leader(leading)) = (&state.storage, &mut state.role) else {
            return FeedPlan::Void;
        };
        let watermark = Watermark {
            leader_epoch: leading.rules.epoch(),
            high_watermark: leading.rules.high_watermark(),
            log_start: log.log_start(),
        };
        let in_sync = leading.is_in_sync(feed.follower());
        let Some(tap) = leading.tap(feed, handle) else {
            return FeedPlan::Void;
        };
        if position >= log.log_end() {
            tap.drained = true;
            feed.on_drained(handle);
            return FeedPlan::Drained;
        }
        let max_bytes = match one_batch && buggify("one-batch-for-a-follower", 4) {
            true => 1,
            false => max_bytes,
        };
        match log.plan_read(position, log.log_end(), max_bytes, one_batch) {
            Ok(plan) => {
                tap.told = (watermark.high_watermark, watermark.log_start);
                FeedPlan::Read {
                    plan,
                    watermark,
                    in_sync,
                }
            }
            Err(ReadError::OutOfRange { log_start, .. }) => FeedPlan::OutOfRange { log_start },
            Err(error) => FeedPlan::Failed(error),
        }
    }

    /// What a follower is to be told where no records carry it. `None`: nothing new.
    pub fn take_watermark(&self, feed: &Feed, handle: u32) -> Option<Watermark> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (Storage::Open(log), Role::Leader(leading)) = (&state.storage, &mut state.role) else {
            return None;
        };
        let watermark = Watermark {
            leader_epoch: leading.rules.epoch(),
            high_watermark: leading.rules.high_watermark(),
            log_start: log.log_start(),
        };
        let tap = leading.tap(feed, handle)?;
        tap.marked = false;
        let now = (watermark.high_watermark, watermark.log_start);
        if std::mem::replace(&mut tap.told, now) == now {
            return None;
        }
        Some(watermark)
    }

    /// Fewer replicas are in sync than there are; `None` where this broker does not lead.
    #[must_use]
    pub fn replication_state(&self) -> Option<ReplicationState> {
        self.state.lock().replication(self.me)
    }

    /// An in-sync follower that has `offset` in the rack of a reader, the one that is furthest (KIP-392). `None`: the
    /// reader stays with this leader.
    pub fn near_replica(&self, offset: Offset, is_near: impl Fn(BrokerId) -> bool) -> Option<BrokerId> {
        if is_near(self.me) {
            return None;
        }
        let state = self.state.lock();
        let rules = state.role.leader()?;
        let candidates = rules.in_sync().filter(|id| *id != self.me && is_near(*id));
        candidates
            .filter_map(|id| {
                let progress = rules.progress_of(id)?;
                let has = progress.log_start <= offset && offset <= progress.written_end;
                has.then_some((progress.written_end, std::cmp::Reverse(id)))
            })
            .max()
            .map(|(_, std::cmp::Reverse(id))| id)
    }
}

impl State {
    /// How the replicas of what `me` leads are.
    pub(super) fn replication(&self, me: BrokerId) -> Option<ReplicationState> {
        let rules = self.role.leader()?;
        let log_end = rules.progress_of(me).map_or(Offset::ZERO, |own| own.written_end);
        let behind = |id: BrokerId| {
            rules
                .progress_of(id)
                .map(|progress| log_end.get() - progress.written_end.get())
        };
        let others = || rules.replicas().filter(move |id| *id != me);
        Some(ReplicationState {
            replicas: others().count() + 1,
            in_sync: rules.in_sync().count(),
            lag_records_max: others().filter_map(behind).max().unwrap_or(0),
        })
    }
}

/// How a led partition's replicas are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplicationState {
    /// How many there should be.
    pub replicas: usize,
    /// How many are in sync.
    pub in_sync: usize,
    /// Records that the last of those that follow lacks.
    pub lag_records_max: i64,
}

/// A follower told what cannot be: it has more than its leader, or made durable what it has not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a follower claims to end at {written_end}, durably at {durable_end}; the leader's log ends at {log_end}"
)]
pub struct ImpossibleReport {
    written_end: Offset,
    durable_end: Offset,
    log_end: Offset,
}

impl Leading {
    fn tap(&mut self, feed: &Feed, handle: u32) -> Option<&mut Tap> {
        self.taps.iter_mut().find(|tap| tap.is(feed, handle))
    }

    fn is_in_sync(&self, follower: BrokerId) -> bool {
        self.rules.in_sync().any(|id| id == follower)
    }
}
