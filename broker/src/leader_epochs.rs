//! Leader epochs as a leader knows them: those of its log, and its own from the moment in which it begins to lead.
//!
//! Kafka notes an epoch in its log's checkpoint when a leader begins; our log notes it with the first batch. The
//! difference would be visible: a consumer at the end of a partition that nobody has written to since the leader
//! changed would be told that its epoch is unknown, and would start over (KIP-320).

use skerry_log::{EpochEnd, Log};
use skerry_replica::Leader;
use skerry_types::{LeaderEpoch, Offset};

/// What a question about epochs needs.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The leader's own.
    current: LeaderEpoch,
    /// The last one with records.
    last_written: Option<LeaderEpoch>,
    log_end: Offset,
}

impl Known {
    fn of(log: &Log, current: LeaderEpoch) -> Self {
        Self {
            current,
            last_written: log.last_epoch(),
            log_end: log.log_end(),
        }
    }

    /// The largest known epoch up to `requested`, and where it ends; `in_log` is what the log alone says.
    fn end_of(self, requested: LeaderEpoch, in_log: EpochEnd) -> EpochEnd {
        if requested == LeaderEpoch::UNKNOWN || requested > self.current {
            return EpochEnd::UNKNOWN;
        }
        if requested == self.current {
            return EpochEnd {
                epoch: requested,
                end_offset: self.log_end,
            };
        }
        // Above all that is written, below the leader's own, which begins at the log's end.
        if self.last_written.is_none_or(|last| last <= requested) {
            return EpochEnd {
                epoch: self.last_written.unwrap_or(requested),
                end_offset: self.log_end,
            };
        }
        in_log
    }
}

/// The answer to OffsetForLeaderEpoch.
#[must_use]
pub fn end_of(log: &Log, leader: &Leader, requested: LeaderEpoch) -> EpochEnd {
    end_in(log, leader.epoch(), requested)
}

/// As [`end_of`], of a leader that leads in `current`.
#[must_use]
pub fn end_in(log: &Log, current: LeaderEpoch, requested: LeaderEpoch) -> EpochEnd {
    Known::of(log, current).end_of(requested, log.epoch_end(requested))
}

/// The epoch of the record at `offset`, or of the record that will be there.
#[must_use]
pub fn epoch_at(log: &Log, leader: &Leader, offset: Offset) -> LeaderEpoch {
    let written = if offset < log.log_end() {
        log.epoch_at(offset)
    } else {
        None
    };
    written.unwrap_or_else(|| leader.epoch())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(known: Known, requested: i32, in_log: EpochEnd) -> (i32, i64) {
        let end = known.end_of(LeaderEpoch(requested), in_log);
        (end.epoch.get(), end.end_offset.get())
    }

    #[test]
    fn a_leader_knows_its_epoch_before_it_has_written() {
        let known = Known {
            current: LeaderEpoch(5),
            last_written: Some(LeaderEpoch(2)),
            log_end: Offset(10),
        };
        assert_eq!(told(known, 5, EpochEnd::UNKNOWN), (5, 10));
        assert_eq!(told(known, 6, EpochEnd::UNKNOWN), (-1, -1));
        assert_eq!(
            told(known, 3, EpochEnd::UNKNOWN),
            (2, 10),
            "3 and 4 have no records"
        );
        assert_eq!(
            told(
                known,
                2,
                EpochEnd {
                    epoch: LeaderEpoch(2),
                    end_offset: Offset(10)
                }
            ),
            (2, 10)
        );
        assert_eq!(
            told(
                known,
                1,
                EpochEnd {
                    epoch: LeaderEpoch(0),
                    end_offset: Offset(4)
                }
            ),
            (0, 4)
        );
        assert_eq!(told(known, -1, EpochEnd::UNKNOWN), (-1, -1));
    }

    #[test]
    fn an_empty_log_has_the_leader_s_epoch_alone() {
        let known = Known {
            current: LeaderEpoch(1),
            last_written: None,
            log_end: Offset(0),
        };
        assert_eq!(told(known, 1, EpochEnd::UNKNOWN), (1, 0));
        assert_eq!(told(known, 0, EpochEnd::UNKNOWN), (0, 0));
        assert_eq!(told(known, 2, EpochEnd::UNKNOWN), (-1, -1));
    }
}
