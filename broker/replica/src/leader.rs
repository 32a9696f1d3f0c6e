use std::collections::{BTreeMap, BTreeSet};

use skerry_types::{
    BrokerEpoch, BrokerId, Instant, LeaderEpoch, Offset, PartitionEpoch, is_planted, reached, sometimes,
};
use thiserror::Error;

use crate::in_sync::Pending;
use crate::progress::{Progress, Replica};

/// What makes a record visible, and its acknowledgement true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// It is on stable storage on every in-sync replica. The default.
    Durable,
    /// It is written on every in-sync replica, and flushed later: Kafka's rule, for topics that ask for it.
    Written,
}

/// Fewer replicas are in sync than `min.insync.replicas` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{in_sync} replicas are in sync; min.insync.replicas asks for {required}")]
pub struct NotEnoughReplicas {
    /// How many are in sync.
    pub in_sync: usize,
    /// How many must be.
    pub required: usize,
}

/// What the metadata says of a partition, for its leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionView {
    /// Grows with every change of anything here: an older view changes nothing.
    pub partition_epoch: PartitionEpoch,
    /// Who has a copy, or is getting one.
    pub replicas: Vec<BrokerId>,
    /// Who is in sync; it contains the leader.
    pub in_sync: Vec<BrokerId>,
    /// Which of `replicas` go once all others are in sync (KIP-455) and the leader lets them go.
    pub removing: Vec<BrokerId>,
    /// Of `removing` one was to come, and nobody wants or needs it any more: it goes as soon as the leader lets it go.
    pub gives_up: bool,
}

/// What a broker knows when it becomes the leader.
#[derive(Clone, Debug)]
pub struct LeaderStart {
    /// The leader itself.
    pub me: BrokerId,
    /// Its registration.
    pub my_broker_epoch: BrokerEpoch,
    /// The epoch that it leads in.
    pub epoch: LeaderEpoch,
    /// What the metadata says.
    pub view: PartitionView,
    /// `min.insync.replicas`, at most the number of replicas; of the same metadata as `view`.
    pub min_in_sync: usize,
    /// What makes a record visible.
    pub visibility: Visibility,
    /// Where the leader's log begins.
    pub log_start: Offset,
    /// Where the leader's log ends: here its epoch starts.
    pub log_end: Offset,
    /// Up to where the leader's log is on stable storage.
    pub durable_end: Offset,
    /// The high watermark that this replica knew before, as a follower or from a checkpoint: a hint, brought into the
    /// log's extent.
    pub high_watermark: Offset,
    /// Followers have their time to come from now on.
    pub now: Instant,
}

/// The leader of one partition in one leader epoch.
#[derive(Clone, Debug)]
pub struct Leader {
    me: BrokerId,
    my_broker_epoch: BrokerEpoch,
    epoch: LeaderEpoch,
    epoch_start: Offset,
    view: PartitionView,
    in_sync: BTreeSet<BrokerId>,
    /// All that the view names, the leader among them.
    replicas: BTreeMap<BrokerId, Replica>,
    min_in_sync: usize,
    visibility: Visibility,
    log_start: Offset,
    log_end: Offset,
    durable_end: Offset,
    high_watermark: Offset,
    pub(crate) pending: Option<Pending>,
    deposed: bool,
}

impl Leader {
    /// Begins to lead.
    ///
    /// # Panics
    /// When the in-sync set does not contain the leader: nobody may lead without being in sync.
    #[must_use]
    pub fn new(start: LeaderStart) -> Self {
        let mut leader = Self {
            me: start.me,
            my_broker_epoch: start.my_broker_epoch,
            epoch: start.epoch,
            epoch_start: start.log_end,
            view: start.view,
            in_sync: BTreeSet::new(),
            replicas: BTreeMap::new(),
            min_in_sync: start.min_in_sync,
            visibility: start.visibility,
            log_start: start.log_start,
            log_end: start.log_end,
            durable_end: start.durable_end,
            high_watermark: start.high_watermark.clamp(start.log_start, start.log_end),
            pending: None,
            deposed: false,
        };
        leader.take_view(start.now);
        leader.advance();
        leader.check();
        sometimes("leader-begins-below-its-epoch", !leader.serves_latest());
        sometimes(
            "leader-begins-alone",
            leader.in_sync.len() == 1 && leader.view.replicas.len() > 1,
        );
        leader
    }

    /// The leader itself.
    #[must_use]
    pub const fn me(&self) -> BrokerId {
        self.me
    }

    /// The epoch that it leads in.
    #[must_use]
    pub const fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// The partition epoch that it knows.
    #[must_use]
    pub const fn partition_epoch(&self) -> PartitionEpoch {
        self.view.partition_epoch
    }

    /// Where its log ended when it began to lead: everything below may have been acknowledged by an earlier leader.
    #[must_use]
    pub const fn epoch_start(&self) -> Offset {
        self.epoch_start
    }

    /// Everything below is acknowledged and may be read.
    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// May it say where the log ends for readers ("latest")? A new leader learns a moment after its election what was
    /// acknowledged before: until then the end would seem to have gone back (KIP-207).
    #[must_use]
    pub fn serves_latest(&self) -> bool {
        self.high_watermark >= self.epoch_start
    }

    /// What makes a record visible.
    #[must_use]
    pub const fn visibility(&self) -> Visibility {
        self.visibility
    }

    /// `min.insync.replicas`, at most the number of replicas.
    #[must_use]
    pub const fn min_in_sync(&self) -> usize {
        self.min_in_sync
    }

    /// Who has a copy, or is getting one, in the metadata's order.
    pub fn replicas(&self) -> impl Iterator<Item = BrokerId> {
        self.view.replicas.iter().copied()
    }

    /// A reassignment is under way that moves the leader away.
    pub(crate) fn is_leaving(&self) -> bool {
        self.is_removing(self.me)
    }

    /// A reassignment is under way that moves this replica away.
    #[must_use]
    pub fn is_removing(&self, replica: BrokerId) -> bool {
        self.view.removing.contains(&replica)
    }

    /// With that set in sync those that go can be let go.
    pub(crate) fn lets_go_with(&self, in_sync: &BTreeSet<BrokerId>) -> bool {
        let mut target = self.replicas().filter(|id| !self.is_removing(*id));
        !self.view.removing.is_empty() && (self.view.gives_up || target.all(|id| in_sync.contains(&id)))
    }

    /// Who is in sync by the metadata, by number.
    pub fn in_sync(&self) -> impl Iterator<Item = BrokerId> {
        self.in_sync.iter().copied()
    }

    /// Who counts for the high watermark, by number: the in-sync set, and whoever a proposal may have added to it. A
    /// removal counts only when it is committed: until then the member may be elected.
    #[must_use]
    pub fn maximal_in_sync(&self) -> BTreeSet<BrokerId> {
        self.counted().collect()
    }

    /// It asks the metadata for another in-sync set, and has no answer yet.
    #[must_use]
    pub fn is_asking(&self) -> bool {
        self.pending.is_some()
    }

    /// Whom it asks the metadata to add, each with the registration that is in sync by what it has asked for last (KIP-903).
    pub fn asked(&self) -> impl Iterator<Item = (BrokerId, BrokerEpoch)> {
        self.pending.iter().flat_map(Pending::asked)
    }

    /// The same without a set of its own: some may come twice.
    pub fn counted(&self) -> impl Iterator<Item = BrokerId> {
        self.in_sync().chain(self.pending.iter().flat_map(Pending::added))
    }

    /// How far a replica is; of the leader itself too. `None` for one that has not followed in this leader epoch.
    #[must_use]
    pub fn progress_of(&self, replica: BrokerId) -> Option<Progress> {
        if replica == self.me {
            return Some(Progress {
                broker_epoch: self.my_broker_epoch,
                log_start: self.log_start,
                written_end: self.log_end,
                durable_end: self.durable_end,
            });
        }
        self.replicas.get(&replica)?.progress
    }

    /// Where the last of the live replicas begins: DeleteRecords is answered when this has reached what was asked for
    /// (KIP-107). A live replica that has not followed yet holds it at 0.
    #[must_use]
    pub fn low_watermark(&self, is_live: impl Fn(BrokerId) -> bool) -> Offset {
        let others = self.replicas().filter(|id| *id != self.me && is_live(*id));
        let starts = others.map(|id| {
            self.progress_of(id)
                .map_or(Offset::ZERO, |progress| progress.log_start)
        });
        starts
            .min()
            .map_or(self.log_start, |start| start.min(self.log_start))
    }

    /// May a batch with `acks=all` be appended?
    ///
    /// # Errors
    /// [`NotEnoughReplicas`]; asked before the append, so that nothing is written that cannot be acknowledged.
    pub fn may_acknowledge(&self) -> Result<(), NotEnoughReplicas> {
        let others_alone = is_planted("leader-not-counted-in-sync");
        let (in_sync, required) = (self.in_sync.len() - usize::from(others_alone), self.min_in_sync);
        if in_sync < required {
            reached("too-few-in-sync-to-acknowledge");
            Err(NotEnoughReplicas { in_sync, required })
        } else {
            Ok(())
        }
    }

    /// The leader's own log has moved. True if the high watermark has moved with it.
    pub fn on_local_log(
        &mut self,
        log_start: Offset,
        log_end: Offset,
        durable_end: Offset,
        now: Instant,
    ) -> bool {
        let before = self.high_watermark;
        if log_end > self.log_end {
            for replica in self.replicas.values_mut() {
                replica.before_growth(self.visibility, self.log_end, now);
            }
        }
        (self.log_start, self.log_end, self.durable_end) = (log_start, log_end, durable_end);
        // DeleteRecords and retention move the start past nothing that was not visible, but a follower may learn of
        // a new start first.
        self.high_watermark = before.max(log_start);
        self.advance();
        self.check();
        self.high_watermark > before
    }

    /// What the metadata says. True if the high watermark has moved.
    ///
    /// `min_in_sync` is of the same metadata: were it older, this leader could acknowledge alone what another one that
    /// the metadata holds for eligible lacks (KIP-966).
    ///
    /// # Panics
    /// When the in-sync set does not contain the leader.
    pub fn on_metadata(
        &mut self,
        view: &PartitionView,
        min_in_sync: usize,
        visibility: Visibility,
        now: Instant,
    ) -> bool {
        if view.partition_epoch > self.view.partition_epoch {
            self.view = view.clone();
            self.take_view(now);
        }
        self.on_settings(min_in_sync, visibility)
    }

    /// The smallest allowed size of the in-sync set or the rule of visibility has changed. True if the high watermark
    /// has moved.
    pub fn on_settings(&mut self, min_in_sync: usize, visibility: Visibility) -> bool {
        let before = self.high_watermark;
        (self.min_in_sync, self.visibility) = (min_in_sync, visibility);
        self.advance();
        self.check();
        self.high_watermark > before
    }

    fn take_view(&mut self, now: Instant) {
        let known = std::mem::take(&mut self.replicas);
        let others = self.view.replicas.iter().filter(|id| **id != self.me);
        self.replicas = others
            .map(|id| {
                let replica = known.get(id).copied();
                (
                    *id,
                    replica.unwrap_or_else(|| Replica::unknown(self.log_end, now)),
                )
            })
            .collect();
        let partition_epoch = self.view.partition_epoch;
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.is_past(partition_epoch))
        {
            self.pending = None;
        }
        self.adopt(self.view.in_sync.iter().copied().collect());
    }

    pub(crate) fn adopt(&mut self, in_sync: BTreeSet<BrokerId>) {
        for joined in in_sync.difference(&self.in_sync) {
            if let Some(replica) = self.replicas.get_mut(joined) {
                replica.release();
            }
        }
        self.in_sync = in_sync;
    }

    pub(crate) fn move_follower(&mut self, follower: BrokerId, progress: Progress, now: Instant) -> bool {
        let before = self.high_watermark;
        if let Some(replica) = self.replicas.get_mut(&follower) {
            replica.on_progress(progress, self.visibility, self.log_end, now);
            self.advance();
        }
        self.check();
        self.high_watermark > before
    }

    fn advance(&mut self) {
        let enough = self.in_sync.len() >= self.min_in_sync
            || is_planted("high-watermark-below-min-in-sync")
            || is_planted("cut-off-leader-goes-on");
        if !enough || self.deposed {
            return;
        }
        // All of the maximal set. One that has not followed in this epoch may hold anything: nothing moves.
        let mut smallest = self.log_end;
        for member in self.counted() {
            match self.progress_of(member) {
                Some(progress) => smallest = smallest.min(progress.end(self.visibility)),
                None => return,
            }
        }
        // Never back: a member that joins behind it was told to reach it first, and what was acknowledged stays so.
        self.high_watermark = self.high_watermark.max(smallest);
    }

    pub(crate) const fn log_start(&self) -> Offset {
        self.log_start
    }

    pub(crate) const fn log_end(&self) -> Offset {
        self.log_end
    }

    pub(crate) const fn my_broker_epoch(&self) -> BrokerEpoch {
        self.my_broker_epoch
    }

    pub(crate) const fn is_deposed(&self) -> bool {
        self.deposed
    }

    /// The metadata has another leader: nothing is acknowledged any more.
    pub(crate) fn depose(&mut self) {
        reached("leader-learns-that-it-was-replaced");
        self.deposed = true;
    }

    pub(crate) const fn in_sync_set(&self) -> &BTreeSet<BrokerId> {
        &self.in_sync
    }

    pub(crate) fn is_in_sync(&self, id: BrokerId) -> bool {
        self.in_sync.contains(&id)
    }

    pub(crate) fn replica(&self, id: BrokerId) -> Option<&Replica> {
        self.replicas.get(&id)
    }

    pub(crate) fn replica_mut(&mut self, id: BrokerId) -> Option<&mut Replica> {
        self.replicas.get_mut(&id)
    }

    /// The orders that always hold; kept in release builds.
    fn check(&self) {
        let (me, epoch) = (self.me, self.epoch);
        assert!(
            self.in_sync.contains(&me),
            "leader {me} in epoch {epoch} is not in its in-sync set"
        );
        let (log_start, log_end) = (self.log_start, self.log_end);
        let (durable_end, high_watermark) = (self.durable_end, self.high_watermark);
        assert!(
            durable_end <= log_end,
            "durable end {durable_end} past log end {log_end}"
        );
        assert!(
            log_start <= high_watermark && high_watermark <= log_end,
            "high watermark {high_watermark} outside of the log from {log_start} to {log_end}"
        );
        assert!(
            self.epoch_start <= log_end,
            "epoch {epoch} starts at {}, past log end {log_end}",
            self.epoch_start
        );
    }
}
