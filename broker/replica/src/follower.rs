use skerry_types::{BrokerId, LeaderEpoch, Offset, is_planted, reached, sometimes};

/// What a broker knows when it becomes a follower.
#[derive(Clone, Copy, Debug)]
pub struct FollowerStart {
    /// Whom it follows.
    pub leader: BrokerId,
    /// In which epoch.
    pub epoch: LeaderEpoch,
    /// Where its log begins.
    pub log_start: Offset,
    /// Where its log ends.
    pub log_end: Offset,
    /// The high watermark that it knew before, or a checkpoint's: a hint, brought into its log's extent.
    pub high_watermark: Offset,
}

/// From where a follower asks to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The epoch of the leader that it means.
    pub leader_epoch: LeaderEpoch,
    /// The first offset that it lacks: its log's end.
    pub from: Offset,
    /// The epoch of its last record; unknown where its log is empty.
    pub last_epoch: LeaderEpoch,
    /// Up to where its log is on stable storage.
    pub durable_end: Offset,
}

/// What a leader's message means for a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The high watermark has moved: readers may see more.
    pub high_watermark_moved: bool,
    /// The log shall begin here: the leader's does (retention, DeleteRecords).
    pub raise_log_start: Option<Offset>,
}

/// A follower of one partition in one leader epoch.
#[derive(Clone, Debug)]
pub struct Follower {
    leader: BrokerId,
    epoch: LeaderEpoch,
    high_watermark: Offset,
}

impl Follower {
    /// Begins to follow. Nothing is cut yet: where the logs part is the leader's answer, and a high watermark says
    /// nothing about it (KIP-101).
    #[must_use]
    pub fn new(start: FollowerStart) -> Self {
        assert!(
            start.log_start <= start.log_end,
            "log start {} past log end {}",
            start.log_start,
            start.log_end
        );
        Self {
            leader: start.leader,
            epoch: start.epoch,
            high_watermark: start.high_watermark.clamp(start.log_start, start.log_end),
        }
    }

    /// Whom it follows.
    #[must_use]
    pub const fn leader(&self) -> BrokerId {
        self.leader
    }

    /// In which epoch.
    #[must_use]
    pub const fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Everything below is acknowledged and may be read here (KIP-392).
    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Does a message that was sent in `epoch` count? Batches of another one must not reach the log.
    #[must_use]
    pub fn accepts(&self, epoch: LeaderEpoch) -> bool {
        epoch == self.epoch || is_planted("follower-epoch-unchecked")
    }

    /// From where it asks to follow. `last_epoch` is the epoch of its last record, unknown where the log is empty.
    #[must_use]
    pub const fn position(&self, last_epoch: LeaderEpoch, log_end: Offset, durable_end: Offset) -> Position {
        Position {
            leader_epoch: self.epoch,
            from: log_end,
            last_epoch,
            durable_end,
        }
    }

    /// The leader, which has compared the logs, tells its high watermark and where its log begins. `log_start` and
    /// `log_end` are this log's, after what came with the message was appended.
    ///
    /// # Panics
    /// When the log's extent is not what this machine was told of before.
    pub fn on_leader(
        &mut self,
        high_watermark: Offset,
        leader_log_start: Offset,
        log_start: Offset,
        log_end: Offset,
    ) -> Told {
        let before = self.high_watermark;
        // What lies below the leader's start was visible once. What is not here yet is not visible here.
        let told = high_watermark.max(leader_log_start).min(log_end);
        // A new leader may know less than this follower for a moment (KIP-207): what was visible stays so.
        self.high_watermark = before.max(told);
        self.check(log_start, log_end);
        let raised = leader_log_start.min(self.high_watermark);
        Told {
            high_watermark_moved: self.high_watermark > before,
            raise_log_start: (raised > log_start).then_some(raised),
        }
    }

    /// The leader says that the logs part, and where its epoch ends ([`crate::FollowRefusal::Diverging`]): the offset to
    /// cut the log at, durably, before the follower asks again. `own_end_of` answers for this log what OffsetForLeaderEpoch
    /// asks: the largest epoch up to the one given, and where it ends.
    ///
    /// An offset below the log's start empties the log, which goes on there.
    pub fn on_diverging(
        &mut self,
        (leader_epoch, leader_end): (LeaderEpoch, Offset),
        own_end_of: impl FnOnce(LeaderEpoch) -> (LeaderEpoch, Offset),
        log_end: Offset,
    ) -> Offset {
        if is_planted("truncate-to-high-watermark") {
            return self.high_watermark;
        }
        let (own_epoch, own_end) = own_end_of(leader_epoch);
        // Where this log has nothing of that epoch, its own end is that of an older one, which the next answer is about
        // (KIP-279).
        let both = if own_epoch == LeaderEpoch::UNKNOWN {
            leader_end
        } else {
            own_end.min(leader_end)
        };
        let cut = both.min(log_end);
        reached("diverging-log");
        sometimes("kept-beyond-its-high-watermark", cut > self.high_watermark);
        let same_epoch = own_epoch == leader_epoch && cut > Offset::ZERO;
        sometimes(
            "cut-where-the-leaders-epoch-ended",
            same_epoch && leader_end < own_end,
        );
        sometimes(
            "cut-where-its-own-epoch-ended",
            same_epoch && own_end < leader_end,
        );
        sometimes(
            "parted-where-both-epochs-ended",
            same_epoch && own_end == leader_end,
        );
        sometimes(
            "cut-to-an-older-epoch",
            own_epoch < leader_epoch && cut > Offset::ZERO,
        );
        sometimes("nothing-shared", cut == Offset::ZERO);
        self.high_watermark = self.high_watermark.min(cut);
        cut
    }

    /// Where this log would go on is outside of the leader's ([`crate::FollowRefusal::OutOfRange`]): the offset at which
    /// it starts over, empty.
    pub fn on_out_of_range(&mut self, leader_log_start: Offset) -> Offset {
        self.high_watermark = leader_log_start;
        leader_log_start
    }

    /// This log has begun elsewhere by itself.
    pub fn on_local_log(&mut self, log_start: Offset, log_end: Offset) {
        self.high_watermark = self.high_watermark.max(log_start);
        self.check(log_start, log_end);
    }

    /// The orders that always hold; kept in release builds.
    fn check(&self, log_start: Offset, log_end: Offset) {
        assert!(
            log_start <= self.high_watermark && self.high_watermark <= log_end,
            "high watermark {} outside of the log from {log_start} to {log_end}",
            self.high_watermark
        );
    }
}
