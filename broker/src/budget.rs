//! The memory budget (`--memory`): what requests and answers may hold together.
//!
//! A broker at its limit reads its sockets more slowly instead of dying: whoever needs memory waits for it here.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The budget is counted in units of this many bytes.
const UNIT_BYTES: usize = 1024;

/// Bytes that requests and answers may hold together. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    units: Arc<Semaphore>,
    total_units: u32,
}

/// Bytes taken from a [`Budget`]; given back on drop.
pub struct Held {
    permit: OwnedSemaphorePermit,
}

impl Held {
    /// Gives back what is more than `bytes`.
    pub fn shrink_to(&mut self, bytes: usize) {
        let more = self
            .permit
            .num_permits()
            .saturating_sub(bytes.div_ceil(UNIT_BYTES));
        drop(self.permit.split(more));
    }

    /// Joins `other` into this one.
    pub fn merge(&mut self, other: Self) {
        self.permit.merge(other.permit);
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
            total_units,
        }
    }

    /// Waits until `bytes` are free, first come, first served. More than the whole budget counts as the whole.
    pub async fn take(&self, bytes: usize) -> Held {
        let permit = self.units.clone().acquire_many_owned(self.units_of(bytes)).await;
        Held {
            permit: permit.expect("the semaphore is never closed"),
        }
    }

    /// Takes `bytes` if they are free now.
    #[must_use]
    pub fn try_take(&self, bytes: usize) -> Option<Held> {
        self.units
            .clone()
            .try_acquire_many_owned(self.units_of(bytes))
            .ok()
            .map(|permit| Held { permit })
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
}
