//! Who is in sync: when a follower joins or leaves, and what becomes of the proposal that says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skerry_types::{
    BrokerEpoch, BrokerId, Instant, LeaderEpoch, PartitionEpoch, is_planted, reached, sometimes,
};

use crate::leader::Leader;
use crate::progress::Replica;

/// After a proposal that changed nothing, the next waits at least this long,
pub const PROPOSAL_RETRY_MIN: Duration = Duration::from_millis(50);
/// and at most this long: the time doubles from one to the next.
pub const PROPOSAL_RETRY_MAX: Duration = Duration::from_secs(1);

/// When a follower does not keep up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagLimits {
    /// It was last caught up so long ago (`replica.lag.time.max.ms`).
    pub lag_max: Duration,
    /// Its stream ended so long ago, and no other has come.
    pub silence_max: Duration,
    /// Whoever has not followed in this leader epoch may have led before, and answer as the leader for so long: what is
    /// committed without it would be missing there.
    pub standing_max: Duration,
}

/// Another in-sync set, to be asked of the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InSyncProposal {
    /// The epoch that the leader leads in.
    pub leader_epoch: LeaderEpoch,
    /// The partition epoch that it knows.
    pub partition_epoch: PartitionEpoch,
    /// The members in the order of the replicas, each with the registration that is in sync (KIP-903).
    pub in_sync: Vec<(BrokerId, BrokerEpoch)>,
}

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is committed; the metadata will say what the set is.
    Accepted,
    /// There is another leader, or the partition is gone: the metadata will say so.
    Deposed,
    /// The partition has changed since: the metadata will say how.
    Outdated,
    /// This member is fenced, draining, or has registered again.
    Ineligible(BrokerId),
    /// Nobody answered in time, or it was refused for another reason. It may be committed, now or later.
    Unknown,
}

/// The proposals that were made at one partition epoch. One of them at most is ever committed.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    base: PartitionEpoch,
    /// Whoever one of them would add, each with the registration that is in sync by the last one. They count for the high
    /// watermark until the metadata is past `base`: a refused proposal may have been sent twice, and its other copy be accepted.
    added: BTreeMap<BrokerId, BrokerEpoch>,
    state: PendingState,
    delay: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PendingState {
    InFlight,
    /// The metadata will be past `base`.
    Settled,
    RetryAt(Instant),
}

impl Pending {
    pub(crate) fn added(&self) -> impl Iterator<Item = BrokerId> {
        self.added.keys().copied()
    }

    pub(crate) fn asked(&self) -> impl Iterator<Item = (BrokerId, BrokerEpoch)> {
        self.added.iter().map(|(id, epoch)| (*id, *epoch))
    }

    pub(crate) fn is_past(&self, partition_epoch: PartitionEpoch) -> bool {
        partition_epoch > self.base
    }
}

impl Leader {
    /// Another in-sync set, where one is due. The caller proposes it and tells [`Leader::on_proposal`] the answer, or
    /// [`Answer::Unknown`] after a while: until then there is no other.
    ///
    /// `registered` is the current registration of a broker that may be in sync: not fenced, not draining.
    pub fn propose_in_sync(
        &mut self,
        now: Instant,
        limits: &LagLimits,
        registered: impl Fn(BrokerId) -> Option<BrokerEpoch>,
    ) -> Option<InSyncProposal> {
        if self.is_deposed() || self.lets_go_from(limits).is_some_and(|at| now < at) {
            return None;
        }
        match self.pending.as_ref().map(|pending| pending.state) {
            Some(PendingState::InFlight | PendingState::Settled) => return None,
            Some(PendingState::RetryAt(at)) if now < at => return None,
            // A set that is in force already is proposed too where an earlier proposal may still come: being accepted
            // it moves the partition epoch, and the earlier one is refused.
            Some(PendingState::RetryAt(_)) | None => {}
        }
        let ids: Vec<BrokerId> = self.replicas().collect();
        let mut members = Vec::with_capacity(ids.len());
        for id in ids {
            members.extend(self.membership(id, now, limits, &registered));
        }
        let (known, wanted): (BTreeSet<_>, BTreeSet<_>) = (
            self.in_sync().collect(),
            members.iter().map(|(id, _)| *id).collect(),
        );
        if wanted == known && self.pending.is_none() && !self.lets_go_with(&wanted) {
            return None;
        }
        let base = self.partition_epoch();
        let pending = self.pending.get_or_insert(Pending {
            base,
            added: BTreeMap::new(),
            state: PendingState::InFlight,
            delay: Duration::ZERO,
        });
        pending.state = PendingState::InFlight;
        let added = members.iter().filter(|(id, _)| !known.contains(id));
        pending.added.extend(added.copied());
        let proposal = InSyncProposal {
            leader_epoch: self.epoch(),
            partition_epoch: base,
            in_sync: members,
        };
        if is_planted("removal-counts-before-commit") || is_planted("cut-off-leader-goes-on") {
            self.adopt(wanted);
        }
        Some(proposal)
    }

    /// The answer to the proposal that was made at `partition_epoch`.
    pub fn on_proposal(&mut self, partition_epoch: PartitionEpoch, answer: Answer, now: Instant) {
        if answer == Answer::Deposed {
            self.depose();
        }
        let held = match answer {
            Answer::Ineligible(member) => self.replica_mut(member).map(|replica| {
                replica.hold(now, PROPOSAL_RETRY_MIN, PROPOSAL_RETRY_MAX);
            }),
            _ => None,
        };
        match answer {
            Answer::Ineligible(_) => reached("joining-refused"),
            Answer::Outdated => reached("in-sync-change-outdated"),
            Answer::Unknown => reached("in-sync-change-unanswered"),
            Answer::Accepted | Answer::Deposed => {}
        }
        let Some(pending) = &mut self.pending else {
            return;
        };
        // The metadata was faster, and this is about another one.
        if pending.base != partition_epoch || pending.state != PendingState::InFlight {
            return;
        }
        pending.state = match answer {
            Answer::Accepted | Answer::Outdated | Answer::Deposed => PendingState::Settled,
            // The next one is without that member: the others need not wait.
            Answer::Ineligible(_) if held.is_some() => PendingState::RetryAt(now),
            Answer::Ineligible(_) | Answer::Unknown => {
                pending.delay = (pending.delay * 2).clamp(PROPOSAL_RETRY_MIN, PROPOSAL_RETRY_MAX);
                PendingState::RetryAt(now + pending.delay)
            }
        };
    }

    /// When [`Leader::propose_in_sync`] may have something new to say, if nothing else happens before. A moment that has
    /// passed means at once; `None`: not by time alone.
    #[must_use]
    pub fn next_deadline(&self, now: Instant, limits: &LagLimits) -> Option<Instant> {
        if self.is_deposed() {
            return None;
        }
        let due = match self.pending.as_ref().map(|pending| pending.state) {
            Some(PendingState::InFlight | PendingState::Settled) => None,
            Some(PendingState::RetryAt(at)) => Some(at),
            None if self.lets_go_with(self.in_sync_set()) => Some(now),
            None => {
                let deadlines = self.replicas().filter_map(|id| self.deadline_of(id, now, limits));
                deadlines.min()
            }
        };
        due.map(|due| self.lets_go_from(limits).map_or(due, |at| due.max(at)))
    }

    /// Until then somebody in sync whom a reassignment moves away may take itself for the leader of an earlier epoch: the
    /// change that lets it go waits, and so does any other, for nothing is committed before it has followed or left.
    fn lets_go_from(&self, limits: &LagLimits) -> Option<Instant> {
        if is_planted("former-leader-let-go") {
            return None;
        }
        let former = self.in_sync().filter(|id| self.is_removing(*id));
        let former = former.filter_map(|id| self.replica(id));
        former
            .filter(|replica| replica.progress.is_none())
            .map(|replica| replica.may_stand_until(limits.standing_max))
            .max()
    }

    /// Everybody in sync follows: what is appended can be confirmed.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        let mut others = self.in_sync().filter(|id| *id != self.me());
        others.all(|id| self.replica(id).is_some_and(Replica::follows))
    }

    /// Nobody else can be elected, whatever the metadata says by now, before this leader lets somebody in: it is alone
    /// in sync, and enough, so that nobody else is eligible (KIP-966).
    #[must_use]
    pub fn is_only_candidate(&self) -> bool {
        self.may_acknowledge().is_ok() && self.maximal_in_sync().iter().all(|id| *id == self.me())
    }

    /// What it asks the metadata for may be what ends its leadership: with a new member in sync a reassignment that moves
    /// the leader away is complete, and others go on from there before this leader has heard the answer.
    #[must_use]
    pub fn gives_itself_up(&self) -> bool {
        self.is_asking() && self.is_leaving() && !is_planted("moved-leader-answers")
    }

    /// When this replica should leave or may join.
    fn deadline_of(&self, id: BrokerId, now: Instant, limits: &LagLimits) -> Option<Instant> {
        if id == self.me() {
            return None;
        }
        let replica = self.replica(id)?;
        if self.is_in_sync(id) {
            return self.leaves_at(replica, limits);
        }
        self.may_join(replica, now, limits)
            .then(|| replica.held_until().unwrap_or(now))
    }

    fn leaves_at(&self, replica: &Replica, limits: &LagLimits) -> Option<Instant> {
        let silent = replica.silent_at(limits.silence_max);
        let lagging = replica.lagging_at(self.visibility(), self.log_end(), limits.lag_max);
        let leaves = [silent, lagging].into_iter().flatten().min()?;
        Some(leaves.max(replica.may_stand_until(limits.standing_max)))
    }

    /// The broker with its registration, if it should be in the set.
    fn membership(
        &mut self,
        id: BrokerId,
        now: Instant,
        limits: &LagLimits,
        registered: &impl Fn(BrokerId) -> Option<BrokerEpoch>,
    ) -> Option<(BrokerId, BrokerEpoch)> {
        if id == self.me() {
            return Some((id, self.my_broker_epoch()));
        }
        let replica = *self.replica(id)?;
        if replica.is_held(now) {
            return None;
        }
        let caught_up = replica.progress.map(|progress| progress.broker_epoch);
        if self.is_in_sync(id) {
            let leaves = self.leaves_at(&replica, limits).is_some_and(|at| at <= now);
            // Of a member that has not said anything yet the metadata knows: had it registered again, it would not be
            // one.
            let epoch = registered(id).or(caught_up);
            return epoch.filter(|_| !leaves).map(|epoch| (id, epoch));
        }
        if !self.may_join(&replica, now, limits) {
            return None;
        }
        let current = registered(id);
        if current.is_none() || current != caught_up {
            sometimes(
                "caught-up-before-a-restart",
                current.is_some() && caught_up.is_some(),
            );
            self.replica_mut(id)?
                .hold(now, PROPOSAL_RETRY_MIN, PROPOSAL_RETRY_MAX);
            return None;
        }
        current.map(|epoch| (id, epoch))
    }

    /// It follows, keeps up, and has what a member needs. One that lags would have to leave at once.
    fn may_join(&self, replica: &Replica, now: Instant, limits: &LagLimits) -> bool {
        let lagging = replica.lagging_at(self.visibility(), self.log_end(), limits.lag_max);
        replica.follows() && lagging.is_none_or(|at| at > now) && self.has_what_a_member_needs(replica)
    }

    /// It has what is acknowledged, and all that earlier leaders may have acknowledged without this one's knowing
    /// (KIP-207's epoch start), and nothing that was deleted: it could lead.
    fn has_what_a_member_needs(&self, replica: &Replica) -> bool {
        let needed = if is_planted("joins-before-epoch-start") {
            self.high_watermark()
        } else {
            self.high_watermark().max(self.epoch_start())
        };
        let begins = replica.progress.map(|progress| progress.log_start);
        let has_deleted = begins.is_some_and(|start| start >= self.log_start());
        let reaches = replica.end(self.visibility()).is_some_and(|end| end >= needed);
        reaches && has_deleted
    }
}
