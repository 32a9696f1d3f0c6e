//! The memory budget (`--memory`): what requests and answers may hold together.
//!
//! A broker at its limit reads its sockets more slowly instead of dying: whoever needs memory waits for it here.
//!
//! Records that are read for consumers may hold half of it: consumers that ask and do not read must not keep producers
//! and small requests from being served.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget is counted in units of this many bytes.
const UNIT_BYTES: usize = 1024;

/// Bytes that requests and answers may hold together. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    /// What records may still take of them.
    record_units: Arc<Semaphore>,
    total_units: u32,
}

/// Bytes taken from a [`Budget`]; given back on drop.
pub struct Held {
    permit: OwnedSemaphorePermit,
    /// As many, where it is held for records.
    records: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Gives back what is more than `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let more = self
            .permit
            .num_permits()
            .saturating_sub(bytes.div_ceil(UNIT_BYTES));
        drop(self.permit.split(more));
        if let Some(records) = &mut self.records {
            let more = records.num_permits().saturating_sub(self.permit.num_permits());
            drop(records.split(more));
        }
    }

    /// Joins `other` into this one.
    pub fn merge(&mut self, other: Self) {
        self.permit.merge(other.permit);
        match (&mut self.records, other.records) {
            (Some(all), Some(records)) => all.merge(records),
            (all @ None, records) => *all = records,
            (Some(_), None) => {}
        }
    }
}

impl Budget {
    /// A budget of `bytes`.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let total_units = u32::try_from(bytes / UNIT_BYTES)
            .unwrap_or(u32::MAX >> 4)
            .clamp(1, u32::MAX >> 4);
        Self {
            units: Arc::new(Semaphore::new(total_units as usize)),
            record_units: Arc::new(Semaphore::new(total_units.div_ceil(2) as usize)),
            total_units,
        }
    }

    /// Waits until `bytes` are free, first come, first served. More than the whole budget counts as the whole.
    pub async fn take(&self, bytes: usize) -> Held {
        let permit = self.units.clone().acquire_many_owned(self.units_of(bytes)).await;
        Held {
            permit: permit.expect("the semaphore is never closed"),
            records: None,
        }
    }

    /// As [`Self::take`], for records that are read for a consumer. Whoever holds some must not wait here for more: two
    /// of that kind would wait for each other for ever. It may try ([`Self::try_take_for_records`]).
    pub async fn take_for_records(&self, bytes: usize) -> Held {
        let units = self.record_units_of(bytes);
        let records = self.record_units.clone().acquire_many_owned(units).await;
        let permit = self.units.clone().acquire_many_owned(units).await;
        Held {
            permit: permit.expect("the semaphore is never closed"),
            records: Some(records.expect("the semaphore is never closed")),
        }
    }

    /// As [`Self::take_for_records`] if the bytes are free now.
    #[must_use]
    pub fn try_take_for_records(&self, bytes: usize) -> Option<Held> {
        let units = self.record_units_of(bytes);
        let records = self.record_units.clone().try_acquire_many_owned(units).ok()?;
        let permit = self.units.clone().try_acquire_many_owned(units).ok()?;
        Some(Held {
            permit,
            records: Some(records),
        })
    }

    /// Is so much held that consumers may be waiting?
    #[must_use]
    pub fn is_short_of_records(&self) -> bool {
        self.record_units.available_permits() < self.total_units as usize / 8
    }

    /// Takes `bytes` if they are free now.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Held> {
        self.units
            .clone()
            .try_acquire_many_owned(self.units_of(bytes))
            .ok()
            .map(|permit| Held {
                permit,
                records: None,
            })
    }

    /// Bytes of the whole budget.
    #[must_use]
    pub fn total_bytes(&self) -> usize {
        self.total_units as usize * UNIT_BYTES
    }

    /// Bytes not taken at this moment.
    #[must_use]
    pub fn free_bytes(&self) -> usize {
        self.units.available_permits() * UNIT_BYTES
    }

    fn record_units_of(&self, bytes: usize) -> u32 {
        self.units_of(bytes).min(self.total_units.div_ceil(2))
    }

    fn units_of(&self, bytes: usize) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT_BYTES))
            .unwrap_or(u32::MAX)
            .min(self.total_units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_taken_is_missing_until_it_is_given_back() {
        let budget = Budget::new(10 * 1024);
        let mut held = budget.try_take(6 * 1024).unwrap();
        assert!(budget.try_take(5 * 1024).is_none());
        held.merge(budget.try_take(4 * 1024).unwrap());
        assert_eq!(budget.free_bytes(), 0);
        held.shrink_to(3 * 1024 - 1);
        assert_eq!(budget.free_bytes(), 7 * 1024);
        drop(held);
        assert_eq!(budget.free_bytes(), 10 * 1024);
        assert!(budget.try_take(usize::MAX).is_some(), "more than all is all");
    }

    #[test]
    fn records_may_hold_half() {
        let budget = Budget::new(16 * 1024);
        let mut first = budget.try_take_for_records(6 * 1024).unwrap();
        assert!(budget.try_take_for_records(3 * 1024).is_none());
        assert!(!budget.is_short_of_records());
        let second = budget.try_take_for_records(2 * 1024).unwrap();
        assert!(budget.is_short_of_records());
        assert_eq!(budget.free_bytes(), 8 * 1024, "the other half is for requests");
        first.merge(second);
        first.merge(budget.try_take(1024).unwrap());
        assert_eq!(budget.free_bytes(), 7 * 1024);
        first.shrink_to(1024);
        assert_eq!(budget.free_bytes(), 15 * 1024);
        assert!(budget.try_take_for_records(7 * 1024).is_some());
        drop(first);
        assert_eq!(budget.free_bytes(), 16 * 1024);
        let all = budget.try_take_for_records(usize::MAX).unwrap();
        assert_eq!(budget.free_bytes(), 8 * 1024, "more than the half is the half");
        drop(all);
        assert_eq!(budget.free_bytes(), 16 * 1024);
    }
}
