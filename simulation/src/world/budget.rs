//! How many disks may cost copies at once.
//!
//! `min.insync.replicas` of two promises that what is acknowledged outlives one copy. A disk that is lost takes one; a disk
//! whose operations fail may take another: its broker sets a copy aside once the metadata names somebody else who has the
//! records, were that the one whose disk is lost, which nobody has noticed yet. So one disk at a time: none is lost while
//! another one fails, and none begins to fail before what was lost is made up for (see `lost.rs`).

use crate::scenario::Fault;

/// A broker gives copies up for this: what it has written is not sure to be there, or cannot be read.
pub(super) const fn costs_copies(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::SyncFails { .. } | Fault::WriteFails { .. } | Fault::ReadFails { .. }
    )
}

/// The disks that cost copies now, by the places of their nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// Operations of these fail.
    pub(super) failing: Vec<usize>,
    /// This one was lost, and is not made up for, for that reason.
    pub(super) lost: Option<(usize, String)>,
}

impl Spent {
    /// Whether operations of this disk may begin to fail.
    pub(super) fn may_fail(&self, disk: usize) -> Result<(), String> {
        match &self.lost {
            // The copies that it gets back are not needed yet.
            Some((lost, missing)) if *lost != disk => Err(missing.clone()),
            _ => Ok(()),
        }
    }

    /// Whether this disk may be lost.
    pub(super) fn may_be_lost(&self, disk: usize) -> Result<(), String> {
        if let Some((_, missing)) = &self.lost {
            return Err(missing.clone());
        }
        let mut others = self.failing.iter().filter(|other| **other != disk);
        match others.next() {
            Some(other) => Err(format!("the disk of n{} fails", other + 1)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: usize = 0;
    const OTHER: usize = 1;

    /// Seed 2016 of any size: a disk was wiped while another one's syncs failed, and each node left the records to the other.
    #[test]
    fn one_disk_at_a_time_costs_copies() {
        let healthy = Spent::default();
        assert_eq!(healthy.may_fail(ONE), Ok(()));
        assert_eq!(healthy.may_be_lost(ONE), Ok(()));
        let fails = Spent {
            failing: vec![ONE],
            lost: None,
        };
        assert_eq!(fails.may_be_lost(OTHER), Err("the disk of n1 fails".to_owned()));
        // It costs the same copies twice.
        assert_eq!(fails.may_be_lost(ONE), Ok(()));
        // The broker keeps what nobody else has: this is for it to decide.
        assert_eq!(fails.may_fail(OTHER), Ok(()));
    }

    #[test]
    fn no_disk_fails_before_a_lost_one_is_made_up_for() {
        let missing = || "n1 has not got orders-0 back".to_owned();
        let lost = Spent {
            failing: Vec::new(),
            lost: Some((ONE, missing())),
        };
        assert_eq!(lost.may_fail(OTHER), Err(missing()));
        assert_eq!(lost.may_be_lost(OTHER), Err(missing()));
        assert_eq!(lost.may_be_lost(ONE), Err(missing()));
        assert_eq!(lost.may_fail(ONE), Ok(()));
    }

    #[test]
    fn what_only_delays_costs_nothing() {
        for fault in [
            Fault::DiskStall { for_ms: 1 },
            Fault::DiskFull {
                room_bytes: 1,
                for_ms: 1,
            },
            // The next read of that place is right.
            Fault::ReadFlips { one_in: 1, for_ms: 1 },
            // The process ends, and its records stay.
            Fault::MetadataSyncFails {
                for_ms: 1,
                writes: true,
            },
        ] {
            assert!(!costs_copies(&fault), "{fault:?}");
        }
        for fault in [
            Fault::SyncFails { one_in: 1, for_ms: 1 },
            Fault::WriteFails { one_in: 1, for_ms: 1 },
            Fault::ReadFails { one_in: 1, for_ms: 1 },
        ] {
            assert!(costs_copies(&fault), "{fault:?}");
        }
    }
}
