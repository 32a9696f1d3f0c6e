//! Which leader epoch began where (KIP-101), and the file `leader-epoch-checkpoint`.

use skerry_types::{LeaderEpoch, Offset};

/// Name of the checkpoint file.
pub(crate) const FILE_NAME: &str = "leader-epoch-checkpoint";
/// Epochs are few; a million lines are damage, not a history.
pub(crate) const FILE_BYTES_MAX: u64 = 64 << 20;
const VERSION: &str = "0";

/// The first offset of an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EpochStart {
    pub(crate) epoch: LeaderEpoch,
    pub(crate) start: Offset,
}

/// The answer to OffsetForLeaderEpoch: the largest known epoch up to the one asked for, and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// -1: not known.
    pub epoch: LeaderEpoch,
    /// One past that epoch's last offset; -1: not known.
    pub end_offset: Offset,
}

impl EpochEnd {
    /// "Not known", as Kafka writes it.
    pub const UNKNOWN: Self = Self {
        epoch: LeaderEpoch::UNKNOWN,
        end_offset: Offset(-1),
    };
}

/// Epochs and start offsets both strictly increase.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epochs {
    starts: Vec<EpochStart>,
}

impl Epochs {
    pub(crate) fn latest(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|last| last.epoch)
    }

    pub(crate) fn starts(&self) -> &[EpochStart] {
        &self.starts
    }

    /// Notes that a batch of `epoch` is at `offset`, the end of the log so far. True where that is news.
    pub(crate) fn assign(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        if epoch < LeaderEpoch(0) || self.latest().is_some_and(|latest| latest >= epoch) {
            return false;
        }
        // An epoch without a batch leaves no trace: the next one begins at the same offset.
        while self.starts.last().is_some_and(|last| last.start >= offset) {
            self.starts.pop();
        }
        self.starts.push(EpochStart { epoch, start: offset });
        true
    }

    /// Forgets what begins at `end` or later.
    pub(crate) fn truncate_end(&mut self, end: Offset) -> bool {
        let before = self.starts.len();
        self.starts.retain(|entry| entry.start < end);
        self.starts.len() != before
    }

    /// Forgets what ends before `start`; the epoch that covers `start` begins there from now on.
    pub(crate) fn truncate_start(&mut self, start: Offset) -> bool {
        let covering = self.starts.partition_point(|entry| entry.start <= start);
        let Some(last) = covering.checked_sub(1) else {
            return false;
        };
        if last == 0 && self.starts[0].start == start {
            return false;
        }
        self.starts.drain(..last);
        self.starts[0].start = start;
        true
    }

    pub(crate) fn at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.starts.partition_point(|entry| entry.start <= offset);
        after.checked_sub(1).map(|at| self.starts[at].epoch)
    }

    pub(crate) fn end_of(&self, requested: LeaderEpoch, log_end: Offset) -> EpochEnd {
        if requested == LeaderEpoch::UNKNOWN {
            return EpochEnd::UNKNOWN;
        }
        if self.latest() == Some(requested) {
            return EpochEnd {
                epoch: requested,
                end_offset: log_end,
            };
        }
        let higher = self.starts.partition_point(|entry| entry.epoch <= requested);
        match self.starts.get(higher) {
            None => EpochEnd::UNKNOWN,
            Some(next) => {
                let epoch = higher
                    .checked_sub(1)
                    .map_or(requested, |floor| self.starts[floor].epoch);
                EpochEnd {
                    epoch,
                    end_offset: next.start,
                }
            }
        }
    }

    pub(crate) fn render(&self) -> String {
        let mut text = format!("{VERSION}\n{}\n", self.starts.len());
        for entry in &self.starts {
            text.push_str(&format!("{} {}\n", entry.epoch, entry.start));
        }
        text
    }

    /// `None` where the bytes are no such file, or the order is broken.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        if text.is_empty() {
            return Some(Self::default());
        }
        let mut lines = text.lines();
        if lines.next()? != VERSION {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut epochs = Self::default();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            let entry = EpochStart {
                epoch: LeaderEpoch(epoch.parse().ok()?),
                start: Offset(start.parse().ok()?),
            };
            let ordered = epochs
                .starts
                .last()
                .is_none_or(|last| last.epoch < entry.epoch && last.start < entry.start);
            if !ordered || entry.epoch < LeaderEpoch(0) || entry.start < Offset::ZERO {
                return None;
            }
            epochs.starts.push(entry);
        }
        (epochs.starts.len() == count).then_some(epochs)
    }

    /// Invariant 12: epochs and starts strictly increase, nothing begins past the end.
    pub(crate) fn check(&self, log_end: Offset) {
        for pair in self.starts.windows(2) {
            assert!(
                pair[0].epoch < pair[1].epoch && pair[0].start < pair[1].start,
                "leader epochs out of order: {:?} before {:?}",
                pair[0],
                pair[1]
            );
        }
        if let Some(last) = self.starts.last() {
            assert!(
                last.start <= log_end,
                "epoch {} starts at {}, past the log end {log_end}",
                last.epoch,
                last.start
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        let mut epochs = Epochs::default();
        for (epoch, start) in entries {
            epochs.assign(LeaderEpoch(*epoch), Offset(*start));
        }
        epochs
    }

    #[test]
    fn the_end_of_an_epoch_is_the_start_of_the_next_known_one() {
        let known = epochs(&[(2, 10), (5, 20), (7, 30)]);
        let ask = |epoch| {
            let end = known.end_of(LeaderEpoch(epoch), Offset(44));
            (end.epoch.get(), end.end_offset.get())
        };
        assert_eq!(ask(-1), (-1, -1));
        assert_eq!(ask(0), (0, 10), "below all");
        assert_eq!(ask(2), (2, 20));
        assert_eq!(ask(4), (2, 20), "a hole: the epoch below");
        assert_eq!(ask(5), (5, 30));
        assert_eq!(ask(7), (7, 44), "the latest: the log end");
        assert_eq!(ask(8), (-1, -1), "never heard of");
        assert_eq!(
            Epochs::default().end_of(LeaderEpoch(0), Offset(9)),
            EpochEnd::UNKNOWN
        );
    }

    #[test]
    fn cutting_either_end_keeps_the_order() {
        let mut known = epochs(&[(2, 10), (5, 20), (7, 30)]);
        assert!(known.truncate_end(Offset(30)));
        assert_eq!(known, epochs(&[(2, 10), (5, 20)]));
        assert!(known.truncate_start(Offset(15)));
        assert_eq!(known, epochs(&[(2, 15), (5, 20)]));
        assert!(known.truncate_start(Offset(25)));
        assert_eq!(known, epochs(&[(5, 25)]));
        assert!(!known.truncate_start(Offset(25)));
        assert!(!known.assign(LeaderEpoch(5), Offset(40)), "no news");
        assert!(
            known.assign(LeaderEpoch(6), Offset(25)),
            "an epoch without a batch"
        );
        assert_eq!(known, epochs(&[(6, 25)]));
        assert_eq!(known.at(Offset(24)), None);
        assert_eq!(known.at(Offset(99)), Some(LeaderEpoch(6)));
    }

    #[test]
    fn the_file_is_kafkas() {
        let known = epochs(&[(0, 0), (3, 17)]);
        assert_eq!(known.render(), "0\n2\n0 0\n3 17\n");
        assert_eq!(Epochs::parse(known.render().as_bytes()), Some(known));
        assert_eq!(Epochs::parse(b""), Some(Epochs::default()));
        for bad in [
            "0\n",
            "0\n1\n",
            "0\n2\n3 17\n0 0\n",
            "0\n1\n0\n",
            "9\n0\n",
            "0\n1\n-1 5\n",
        ] {
            assert_eq!(Epochs::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
