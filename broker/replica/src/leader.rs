use std::collections::BTreeMap;

use skerry_types::{BrokerId, LeaderEpoch, Offset, is_planted};
use thiserror::Error;

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

/// What a broker knows when it becomes the leader.
#[derive(Clone, Debug)]
pub struct LeaderStart {
    /// The leader itself.
    pub me: BrokerId,
    /// The epoch that it leads in.
    pub epoch: LeaderEpoch,
    /// The in-sync set of the metadata; it contains `me`.
    pub in_sync: Vec<BrokerId>,
    /// `min.insync.replicas`, at most the number of replicas.
    pub min_in_sync: usize,
    /// What makes a record visible.
    pub visibility: Visibility,
    /// Where the leader's log begins.
    pub log_start: Offset,
    /// Where the leader's log ends.
    pub log_end: Offset,
    /// Up to where the leader's log is on stable storage.
    pub durable_end: Offset,
    /// The high watermark that this replica knew before.
    pub high_watermark: Offset,
}

/// How far one replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Progress {
    written: Offset,
    durable: Offset,
}

impl Progress {
    const UNKNOWN: Self = Self {
        written: Offset::ZERO,
        durable: Offset::ZERO,
    };
}

/// The leader of one partition in one leader epoch.
#[derive(Clone, Debug)]
pub struct Leader {
    me: BrokerId,
    epoch: LeaderEpoch,
    in_sync: BTreeMap<BrokerId, Progress>,
    min_in_sync: usize,
    visibility: Visibility,
    log_start: Offset,
    high_watermark: Offset,
}

impl Leader {
    /// Begins to lead.
    ///
    /// # Panics
    /// When the in-sync set does not contain the leader: nobody may lead without being in sync.
    #[must_use]
    pub fn new(start: LeaderStart) -> Self {
        let in_sync: BTreeMap<_, _> = start.in_sync.iter().map(|id| (*id, Progress::UNKNOWN)).collect();
        let mut leader = Self {
            me: start.me,
            epoch: start.epoch,
            in_sync,
            min_in_sync: start.min_in_sync,
            visibility: start.visibility,
            log_start: start.log_start,
            high_watermark: start.high_watermark.max(start.log_start),
        };
        leader.move_replica(
            start.me,
            Progress {
                written: start.log_end,
                durable: start.durable_end,
            },
        );
        leader.check();
        leader
    }

    /// The epoch that it leads in.
    #[must_use]
    pub const fn epoch(&self) -> LeaderEpoch {
        self.epoch
    }

    /// Everything below is acknowledged and may be read.
    #[must_use]
    pub const fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// What makes a record visible.
    #[must_use]
    pub const fn visibility(&self) -> Visibility {
        self.visibility
    }

    /// Who is in sync.
    pub fn in_sync(&self) -> impl Iterator<Item = BrokerId> {
        self.in_sync.keys().copied()
    }

    /// May a batch with `acks=all` be appended?
    ///
    /// # Errors
    /// [`NotEnoughReplicas`]; asked before the append, so that nothing is written that cannot be acknowledged.
    pub fn may_acknowledge(&self) -> Result<(), NotEnoughReplicas> {
        let (in_sync, required) = (self.in_sync.len(), self.min_in_sync);
        if in_sync < required {
            Err(NotEnoughReplicas { in_sync, required })
        } else {
            Ok(())
        }
    }

    /// The leader's own log has moved. True if the high watermark has moved with it.
    pub fn on_local_log(&mut self, log_start: Offset, log_end: Offset, durable_end: Offset) -> bool {
        self.log_start = log_start;
        let before = self.high_watermark;
        // DeleteRecords and retention move the start past nothing that was not visible, but a follower may learn of
        // a new start first.
        self.high_watermark = self.high_watermark.max(log_start);
        self.move_replica(
            self.me,
            Progress {
                written: log_end,
                durable: durable_end,
            },
        );
        self.check();
        self.high_watermark > before
    }

    /// A follower has told how far it is. True if the high watermark has moved. One that is not in sync moves
    /// nothing.
    pub fn on_follower(&mut self, follower: BrokerId, written_end: Offset, durable_end: Offset) -> bool {
        let before = self.high_watermark;
        self.move_replica(
            follower,
            Progress {
                written: written_end,
                durable: durable_end,
            },
        );
        self.check();
        self.high_watermark > before
    }

    /// The in-sync set, its smallest allowed size or the rule of visibility has changed. True if the high watermark
    /// has moved.
    ///
    /// # Panics
    /// When `in_sync` does not contain the leader.
    pub fn on_settings(&mut self, in_sync: &[BrokerId], min_in_sync: usize, visibility: Visibility) -> bool {
        let before = self.high_watermark;
        let known = std::mem::take(&mut self.in_sync);
        self.in_sync = in_sync
            .iter()
            .map(|id| (*id, known.get(id).copied().unwrap_or(Progress::UNKNOWN)))
            .collect();
        self.min_in_sync = min_in_sync;
        self.visibility = visibility;
        self.advance();
        self.check();
        self.high_watermark > before
    }

    fn move_replica(&mut self, id: BrokerId, progress: Progress) {
        if let Some(known) = self.in_sync.get_mut(&id) {
            *known = progress;
            self.advance();
        }
    }

    fn advance(&mut self) {
        if self.in_sync.len() < self.min_in_sync {
            return;
        }
        let counts = |progress: &Progress| match self.visibility {
            Visibility::Durable if !is_planted("ack-before-fsync") => progress.durable,
            _ => progress.written,
        };
        let smallest = self
            .in_sync
            .values()
            .map(counts)
            .min()
            .unwrap_or(self.high_watermark);
        // Never back: a member that joins behind it was told to reach it first, and what was acknowledged stays so.
        self.high_watermark = self.high_watermark.max(smallest);
    }

    /// The orders that always hold; kept in release builds.
    fn check(&self) {
        assert!(
            self.in_sync.contains_key(&self.me),
            "leader {} is not in its in-sync set",
            self.me
        );
        assert!(
            self.log_start <= self.high_watermark,
            "high watermark {} below log start {}",
            self.high_watermark,
            self.log_start
        );
        let own = self.in_sync[&self.me];
        assert!(
            own.durable <= own.written,
            "durable end {} past log end {}",
            own.durable,
            own.written
        );
        assert!(
            self.high_watermark <= own.written,
            "high watermark {} past log end {}",
            self.high_watermark,
            own.written
        );
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    /// Runs a transcript: `write 5` and `sync 5` move the leader's log, `2 write 5 sync 3` tells of follower 2,
    /// `isr 1,2` changes the set, `min 2` its smallest size.
    fn check(in_sync: &str, script: &str, expected: Expect) {
        let ids = |text: &str| {
            text.split(',')
                .map(|id| BrokerId(id.parse().unwrap()))
                .collect::<Vec<_>>()
        };
        let (mut set, mut min) = (ids(in_sync), 1);
        let mut leader = Leader::new(LeaderStart {
            me: BrokerId(1),
            epoch: LeaderEpoch(1),
            in_sync: set.clone(),
            min_in_sync: min,
            visibility: Visibility::Durable,
            log_start: Offset(0),
            log_end: Offset(0),
            durable_end: Offset(0),
            high_watermark: Offset(0),
        });
        let (mut written, mut durable) = (Offset(0), Offset(0));
        let mut out = String::new();
        for step in script.split(';').map(str::trim) {
            let words: Vec<&str> = step.split_whitespace().collect();
            let number = |index: usize| words[index].parse::<i64>().unwrap();
            match words[0] {
                "write" => {
                    written = Offset(number(1));
                    leader.on_local_log(Offset(0), written, durable);
                }
                "sync" => {
                    durable = Offset(number(1));
                    leader.on_local_log(Offset(0), written, durable);
                }
                "isr" => {
                    set = ids(words[1]);
                    leader.on_settings(&set, min, Visibility::Durable);
                }
                "min" => {
                    min = words[1].parse().unwrap();
                    leader.on_settings(&set, min, Visibility::Durable);
                }
                id => {
                    leader.on_follower(
                        BrokerId(id.parse().unwrap()),
                        Offset(number(2)),
                        Offset(number(4)),
                    );
                }
            }
            out += &format!("{step}: hw={}\n", leader.high_watermark());
        }
        expected.assert_eq(&out);
    }

    #[test]
    fn alone_the_high_watermark_follows_what_is_durable() {
        check(
            "1",
            "write 5; sync 3; sync 5; write 9",
            expect![[r#"
                write 5: hw=0
                sync 3: hw=3
                sync 5: hw=5
                write 9: hw=5
            "#]],
        );
    }

    #[test]
    fn together_it_follows_the_slowest_in_sync() {
        check(
            "1,2,3",
            "write 5; sync 5; 2 write 5 sync 4; 3 write 3 sync 2; isr 1,2; 9 write 9 sync 9",
            expect![[r#"
                write 5: hw=0
                sync 5: hw=0
                2 write 5 sync 4: hw=0
                3 write 3 sync 2: hw=2
                isr 1,2: hw=4
                9 write 9 sync 9: hw=4
            "#]],
        );
    }

    #[test]
    fn below_min_insync_replicas_nothing_becomes_visible() {
        check(
            "1,2",
            "min 2; write 5; sync 5; 2 write 2 sync 2; isr 1; isr 1,2; 2 write 5 sync 5",
            expect![[r#"
                min 2: hw=0
                write 5: hw=0
                sync 5: hw=0
                2 write 2 sync 2: hw=2
                isr 1: hw=2
                isr 1,2: hw=2
                2 write 5 sync 5: hw=5
            "#]],
        );
    }

    proptest! {
        #[test]
        fn it_never_goes_back_and_never_passes_a_member_in_sync(
            steps in proptest::collection::vec((0_u8..4, 0_i64..50, 0_i64..50), 1..60)
        ) {
            let mut leader = Leader::new(LeaderStart {
                me: BrokerId(1), epoch: LeaderEpoch(0), in_sync: vec![BrokerId(1), BrokerId(2)], min_in_sync: 1,
                visibility: Visibility::Durable, log_start: Offset(0), log_end: Offset(0), durable_end: Offset(0),
                high_watermark: Offset(0),
            });
            let (mut written, mut durable, mut follower) = (0, 0, 0);
            for (kind, a, b) in steps {
                let before = leader.high_watermark();
                let both = leader.in_sync().count() == 2;
                match kind {
                    0 => { written = written.max(a); leader.on_local_log(Offset(0), Offset(written), Offset(durable)); }
                    1 => { durable = durable.max(a.min(written)); leader.on_local_log(Offset(0), Offset(written), Offset(durable)); }
                    2 => { follower = follower.max(a.min(written)); leader.on_follower(BrokerId(2), Offset(follower), Offset(follower)); }
                    _ if b % 2 == 0 => { leader.on_settings(&[BrokerId(1)], 1, Visibility::Durable); }
                    _ if Offset(follower) >= before => { leader.on_settings(&[BrokerId(1), BrokerId(2)], 1, Visibility::Durable); }
                    _ => {}
                }
                prop_assert!(leader.high_watermark() >= before);
                prop_assert!(leader.high_watermark() <= Offset(durable));
                if both && kind < 3 { prop_assert!(leader.high_watermark() <= before.max(Offset(follower))); }
            }
        }
    }
}
