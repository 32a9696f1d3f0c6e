//! What a leader does with its log: appends, and the acknowledgements that wait.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use skerry_log::{AppendError, Appended, Log, ValidBatch};
use skerry_replica::{Leader, LeaderStart, Visibility};
use skerry_types::{Instant, LeaderEpoch, Offset, WallMs, is_planted, reached, sometimes};
use tokio::sync::oneshot;

use super::feed::Tap;
use super::{
    AckError, Acks, Appending, Assigned, Assignment, Durability, NotServing, Partition, ProduceError, Role,
    State, Storage, WaitingAck, serving,
};

impl Partition {
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
        let (log, leading) = serving(&mut state.storage, &mut state.role, leader_epoch)?;
        let leader = &mut leading.rules;
        if self.cuts_off(leader) {
            reached("cut-off-leader-refuses");
            return Err(NotServing::CutOff.into());
        }
        if acks == Acks::All {
            leader.may_acknowledge()?;
        }
        self.disk_room.take(batch.size_bytes() as u64, self.writer)?;
        let appended = match log.append_as_leader(batch, leader.epoch(), now) {
            // The producer would take it for final: another leader may have what this log lacks.
            Err(AppendError::OutOfOrderSequence { .. }) if self.is_doubtful(leader) => {
                reached("doubtful-leader-finds-a-gap");
                return Err(NotServing::CutOff.into());
            }
            appended => appended?,
        };
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
        leader.on_local_log(
            log.log_start(),
            log.log_end(),
            log.durable_end(),
            self.clock.now(),
        );
        let (log_start, high_watermark, durable_end) =
            (log.log_start(), leader.high_watermark(), log.durable_end());
        leading.tell_of_records();
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
                let others = if acks == Acks::All {
                    &mut state.waiting_all
                } else {
                    &mut state.waiting_leader
                };
                // A repetition waits for its original, which may be older than what others wait for.
                let place = others.partition_point(|other| {
                    (other.visible.max(other.durable)) <= waiting.visible.max(waiting.durable)
                });
                others.insert(place, waiting);
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
}

/// The part of a partition's leader.
pub(super) struct Leading {
    pub(super) rules: Leader,
    /// The followers' streams, one for each follower that follows.
    pub(super) taps: Vec<Tap>,
}

impl Leading {
    /// Wakes the streams that had sent everything.
    fn tell_of_records(&mut self) {
        for tap in self.taps.iter_mut().filter(|tap| tap.drained) {
            tap.drained = false;
            tap.feed.on_records(tap.handle);
        }
    }
}

impl Partition {
    /// Neither the controller nor all that are in sync have been heard lately: others may have taken over, and what is
    /// appended waits for as long as that lasts.
    pub(super) fn cuts_off(&self, leader: &Leader) -> bool {
        self.standing.is_aside() && !leader.is_followed()
    }

    /// This broker leads it, and neither the controller nor all that are in sync have been heard lately.
    #[must_use]
    pub fn is_cut_off(&self) -> bool {
        self.is_cut_off_in(&self.state.lock())
    }

    pub(super) fn is_cut_off_in(&self, state: &State) -> bool {
        let leader = state.role.leader();
        leader.is_some_and(|leader| self.cuts_off(leader))
    }

    /// Others may have taken over, and this broker has not heard of it.
    fn is_doubtful(&self, leader: &Leader) -> bool {
        let now = self.clock.now();
        let gives_up = now.as_nanos() < self.doubted_until.load(Ordering::Acquire);
        let stands = self.standing.holds(now) && !leader.gives_itself_up();
        gives_up || !stands && !leader.is_only_candidate()
    }

    /// As [`Partition::with_leader`], for answers that are wrong where another broker leads by now.
    ///
    /// # Errors
    /// As there, and where the controller has not been heard lately.
    pub fn with_current_leader<T>(
        &self,
        leader_epoch: LeaderEpoch,
        look: impl FnOnce(&mut Log, &Leader) -> T,
    ) -> Result<T, NotServing> {
        self.with_leader(leader_epoch, |log, leader| {
            if self.is_doubtful(leader) {
                reached("doubtful-leader-does-not-answer");
                return Err(NotServing::CutOff);
            }
            Ok(look(log, leader))
        })?
    }

    /// Lets go of those who wait for what does not come while this leader is cut off.
    pub fn step_aside(&self) {
        let mut state = self.state.lock();
        if self.is_cut_off_in(&state) {
            state.fail_acks(&AckError::NotLeader);
            state.wake_readers();
        }
    }

    /// Leads, or goes on leading.
    pub(super) fn lead(&self, state: &mut State, assignment: &Assignment) -> Assigned {
        let settings = self.settings();
        let visibility = settings.durability.visibility();
        // Of the image that the set is of, if that is stricter: settings may come a moment later. And never more than
        // there are replicas, which a reassignment may have made fewer.
        let min_in_sync = settings
            .min_in_sync
            .min(assignment.view.replicas.len())
            .max(assignment.min_in_sync);
        let now = self.clock.now();
        let Some(registration) = assignment.registration else {
            state.end_role();
            return Assigned::Nothing;
        };
        if let Role::Leader(leading) = &mut state.role
            && leading.rules.epoch() == assignment.leader_epoch
        {
            leading
                .rules
                .on_metadata(&assignment.view, min_in_sync, visibility, now);
            return Assigned::Leads;
        }
        state.end_role();
        let Storage::Open(log) = &state.storage else {
            return Assigned::Nothing;
        };
        let rules = Leader::new(LeaderStart {
            me: self.me,
            my_broker_epoch: registration,
            epoch: assignment.leader_epoch,
            view: assignment.view.clone(),
            min_in_sync,
            visibility,
            log_start: log.log_start(),
            log_end: log.log_end(),
            durable_end: log.durable_end(),
            high_watermark: state.high_watermark,
            now,
        });
        state.role = Role::Leader(Box::new(Leading {
            rules,
            taps: Vec::new(),
        }));
        Assigned::Leads
    }
}

impl State {
    /// This broker has no part in the partition any more, or another one.
    pub(super) fn end_role(&mut self) {
        if let Some(known) = self.role.high_watermark() {
            self.high_watermark = known;
        }
        if let Role::Leader(leading) = std::mem::replace(&mut self.role, Role::None) {
            sometimes("leader-replaced-while-clients-wait", !self.waiting_all.is_empty());
            for tap in leading.taps {
                tap.feed.on_role_ended(tap.handle);
            }
        }
        self.fail_acks(&AckError::NotLeader);
        // The next leader may know less for a moment, and whoever waits for records there must be woken all the same.
        self.announced = Offset::ZERO;
        self.wake_readers();
    }

    /// Tells the leader where its log is, or the follower.
    pub(super) fn follow_log(&mut self, now: Instant) {
        let Storage::Open(log) = &self.storage else {
            return;
        };
        match &mut self.role {
            Role::None => {}
            Role::Leader(leading) => {
                leading
                    .rules
                    .on_local_log(log.log_start(), log.log_end(), log.durable_end(), now);
            }
            Role::Follower(following) => following.on_local_log(log),
        }
    }

    /// Answers what has become true.
    pub(super) fn settle(&mut self) {
        let (Storage::Open(log), Some(visible)) = (&self.storage, self.role.high_watermark()) else {
            return;
        };
        if let Role::Leader(leading) = &mut self.role {
            let (durable, log_start) = (log.durable_end(), log.log_start());
            let in_order = leading.rules.visibility() == Visibility::Durable;
            answer(&mut self.waiting_all, visible, durable, in_order);
            answer(&mut self.waiting_leader, visible, durable, in_order);
            for tap in &mut leading.taps {
                tap.tell_of_watermark((visible, log_start));
            }
        }
        if visible > self.announced {
            self.announced = visible;
            self.wake_readers();
        }
    }

    pub(super) fn fail_acks(&mut self, error: &AckError) {
        let waiting = self.waiting_all.drain(..).chain(self.waiting_leader.drain(..));
        for waiting in waiting {
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }

    pub(super) fn wake_readers(&mut self) {
        for waiter in self.waiting_reads.drain(..) {
            waiter.notify_one();
        }
    }
}

/// Answers those whose records are visible and durable enough.
fn answer(waiting: &mut VecDeque<WaitingAck>, visible: Offset, durable: Offset, in_order: bool) {
    let mut index = 0;
    while let Some(next) = waiting.get(index) {
        let reached = next.visible <= visible && (next.durable <= durable || is_planted("ack-before-fsync"));
        if reached {
            let next = waiting.remove(index).expect("looked at above");
            // The client may have gone: its record stays.
            let _ = next.reply.send(Ok(()));
        } else if in_order {
            // Ordered by offset: nothing behind it is reached either.
            return;
        } else {
            index += 1;
        }
    }
}
