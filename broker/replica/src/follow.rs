//! A follower comes and tells how far it is.

use skerry_types::{BrokerEpoch, BrokerId, Instant, LeaderEpoch, Offset, is_planted};
use thiserror::Error;

use crate::leader::Leader;
use crate::progress::Progress;

/// How far a follower is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowerReport {
    /// The follower.
    pub follower: BrokerId,
    /// The registration that its stream speaks for (KIP-903).
    pub broker_epoch: BrokerEpoch,
    /// The leader epoch in which it follows: of the question that this report belongs to, not of the moment.
    pub leader_epoch: LeaderEpoch,
    /// Where its log begins.
    pub log_start: Offset,
    /// Where its log ends.
    pub written_end: Offset,
    /// Up to where its log is on stable storage.
    pub durable_end: Offset,
}

/// A follower may not follow from where it asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FollowRefusal {
    /// It knows an older leader than this one.
    #[error("the leader epoch is {current}")]
    FencedEpoch {
        /// This leader's.
        current: LeaderEpoch,
    },
    /// It knows a newer leader than this one, or has records of one.
    #[error("the leader epoch is {current}")]
    UnknownEpoch {
        /// This leader's.
        current: LeaderEpoch,
    },
    /// Its broker has registered again since.
    #[error("the broker has registered again since, with epoch {current}")]
    FencedBroker {
        /// The newest registration that has followed.
        current: BrokerEpoch,
    },
    /// The metadata that this leader knows gives it no replica.
    #[error("it is no replica")]
    NotAReplica,
    /// Where it would go on is outside of the leader's log: it starts over, see [`crate::Follower::on_out_of_range`].
    #[error("the log is from {log_start} to {log_end}")]
    OutOfRange {
        /// Where the leader's log begins.
        log_start: Offset,
        /// Where the leader's log ends.
        log_end: Offset,
    },
    /// Its log is not a prefix of the leader's: it cuts, see [`crate::Follower::on_diverging`], and asks again.
    #[error("the logs part: epoch {epoch} ends at {end_offset}")]
    Diverging {
        /// The largest epoch of the leader's log up to the follower's last.
        epoch: LeaderEpoch,
        /// Where it ends.
        end_offset: Offset,
    },
}

impl Leader {
    /// A follower asks to follow from its log's end (`report.written_end`); `last_epoch` is the epoch of its last
    /// record, unknown where its log is empty. `epoch_end` answers OffsetForLeaderEpoch: the largest epoch up to the one
    /// asked for, and where it ends; this leader's own epoch is known to it from the beginning.
    ///
    /// `Ok` says whether the high watermark has moved. From then on, [`Leader::on_follower`] until
    /// [`Leader::on_follower_gone`]; a new question of the same follower ends what came before it.
    ///
    /// # Errors
    /// [`FollowRefusal`]; nothing that the follower said counts.
    pub fn on_follow(
        &mut self,
        report: &FollowerReport,
        last_epoch: LeaderEpoch,
        epoch_end: impl FnOnce(LeaderEpoch) -> (LeaderEpoch, Offset),
        now: Instant,
    ) -> Result<bool, FollowRefusal> {
        self.admit(report)?;
        self.compare(report.written_end, last_epoch, epoch_end)?;
        Ok(self.take(report, now))
    }

    /// A follower whose log was compared with this one has come further. True if the high watermark has moved.
    ///
    /// What is said in another leader epoch or by an earlier registration, and what cannot be a prefix of this log, is
    /// not counted.
    pub fn on_follower(&mut self, report: &FollowerReport, now: Instant) -> bool {
        if self.admit(report).is_err() || report.written_end > self.log_end() {
            return false;
        }
        let compared = self.progress_of(report.follower).is_some() || is_planted("follower-epoch-unchecked");
        compared && self.take(report, now)
    }

    /// A follower's stream has ended, or is silent for so long that the shell ended it.
    pub fn on_follower_gone(&mut self, follower: BrokerId, now: Instant) {
        if let Some(replica) = self.replica_mut(follower) {
            replica.on_gone(now);
        }
    }

    /// Is this the epoch, the replica and the registration that count?
    fn admit(&self, report: &FollowerReport) -> Result<(), FollowRefusal> {
        let current = self.epoch();
        if !is_planted("follower-epoch-unchecked") {
            if report.leader_epoch < current {
                return Err(FollowRefusal::FencedEpoch { current });
            }
            if report.leader_epoch > current {
                return Err(FollowRefusal::UnknownEpoch { current });
            }
        }
        if report.follower == self.me() || !self.replicas().any(|replica| replica == report.follower) {
            return Err(FollowRefusal::NotAReplica);
        }
        match self.progress_of(report.follower) {
            Some(known) if known.broker_epoch > report.broker_epoch => Err(FollowRefusal::FencedBroker {
                current: known.broker_epoch,
            }),
            _ => Ok(()),
        }
    }

    /// Is the follower's log a prefix of this one?
    fn compare(
        &self,
        from: Offset,
        last_epoch: LeaderEpoch,
        epoch_end: impl FnOnce(LeaderEpoch) -> (LeaderEpoch, Offset),
    ) -> Result<(), FollowRefusal> {
        let (log_start, log_end) = (self.log_start(), self.log_end());
        let outside = FollowRefusal::OutOfRange { log_start, log_end };
        // Where all that the follower has lies below this log's start, nothing is left to compare it with: it starts over
        // and loses nothing that is not deleted here.
        if from < log_start || (from == log_start && last_epoch != LeaderEpoch::UNKNOWN) {
            return Err(outside);
        }
        if last_epoch == LeaderEpoch::UNKNOWN {
            return if from > log_end { Err(outside) } else { Ok(()) };
        }
        let (epoch, end_offset) = epoch_end(last_epoch);
        if epoch == LeaderEpoch::UNKNOWN {
            let current = self.epoch();
            return Err(FollowRefusal::UnknownEpoch { current });
        }
        // The epoch counts as well as its end: after two quick failovers both logs may reach beyond the offset with
        // records of different epochs (KIP-279).
        let other_epoch = epoch < last_epoch && !is_planted("diverges-by-offset-alone");
        if other_epoch || end_offset < from {
            return Err(FollowRefusal::Diverging { epoch, end_offset });
        }
        Ok(())
    }

    fn take(&mut self, report: &FollowerReport, now: Instant) -> bool {
        let progress = Progress {
            broker_epoch: report.broker_epoch,
            log_start: report.log_start,
            written_end: report.written_end,
            durable_end: report.durable_end.min(report.written_end),
        };
        self.move_follower(report.follower, progress, now)
    }
}
