//! Records that this copy does not give back as they were written.
//!
//! Whoever reads and meets damage only says where (`suspect`). One task looks again, with the sums that reads leave to
//! their readers, and knows what to do about it (replication/repair.rs): a follower that could not take what it was
//! sent may be the one that is wrong.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use skerry_log::{ReadError, ReadPlan};
use skerry_types::{Instant, Offset, is_planted};

use super::{Partition, State, Storage};

/// How much to look at where the device has refused to read: it does not say which byte it has lost. As much as readers
/// usually want at once (`max.partition.fetch.bytes`).
const STRETCH_BYTES: u64 = 1 << 20;

/// Where somebody has met damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// The first offset that may be damaged.
    pub offset: Offset,
    /// So much from there on is worth a look; one batch at least.
    pub stretch_bytes: u64,
}

/// Damage that was found, and looked at twice.
pub(super) struct Damage {
    offset: Offset,
    why: String,
}

impl Partition {
    /// A read from `from` on has failed. Where that means damage, it is looked at soon.
    pub fn suspect(&self, from: Offset, error: &ReadError) {
        if !error.is_damage() {
            return;
        }
        match error.offset() {
            Some(offset) => self.suspect_at(offset),
            None if is_planted("second-look-reads-one-batch") => self.add_suspicion(from, 1),
            None => self.add_suspicion(from, STRETCH_BYTES),
        }
    }

    /// Somebody who read the batch at `offset` says that it is damaged.
    pub fn suspect_at(&self, offset: Offset) {
        self.add_suspicion(offset, 1);
    }

    fn add_suspicion(&self, offset: Offset, stretch_bytes: u64) {
        self.state.lock().suspected.get_or_insert(Suspicion {
            offset,
            stretch_bytes,
        });
    }

    /// There may be damage that nobody has looked at, or there is some.
    #[must_use]
    pub fn is_suspected(&self) -> bool {
        let state = self.state.lock();
        state.suspected.is_some() || state.known_damage().is_some()
    }

    /// Where to look for damage; a suspicion is told once.
    pub fn take_suspicion(&self) -> Option<Suspicion> {
        let mut state = self.state.lock();
        let known = state.known_damage().map(|damage| Suspicion {
            offset: damage.offset,
            stretch_bytes: 1,
        });
        state.suspected.take().or(known)
    }

    /// A read that finds damage from `from` on, in what a checkpoint has made durable or, if it is `recent`, in all of
    /// the log. `None`: nothing is there.
    pub fn plan_check(
        &self,
        from: Offset,
        recent: bool,
        max_bytes: u32,
    ) -> Option<Result<ReadPlan, ReadError>> {
        let state = self.state.lock();
        let Storage::Open(log) = &state.storage else {
            return None;
        };
        let upper = if recent {
            log.log_end()
        } else {
            log.recovery_point()
        };
        let from = from.max(log.log_start());
        (from < upper).then(|| log.plan_read(from, upper, max_bytes, true))
    }

    /// What a look at `offset` came to. True where that is news.
    pub fn on_looked_at(&self, offset: Offset, found: Result<(), &ReadError>) -> bool {
        let mut state = self.state.lock();
        // A batch may begin below the log's start: whoever reads from there needs all of it (9309 of any size, 60 s).
        let offset = match &state.storage {
            Storage::Open(log) => offset.max(log.log_start()),
            _ => offset,
        };
        match found {
            Err(error) if error.is_damage() => {
                let news = state.known_damage().is_none();
                if news {
                    let why = error.to_string();
                    state.damage = Some(Damage { offset, why });
                }
                news
            }
            Err(_) => false,
            Ok(()) => state.damage.take_if(|damage| damage.offset == offset).is_some(),
        }
    }

    /// The metadata is asked to count this copy no more. It goes on as what it is, and takes no part in a later epoch; where it
    /// leads, others may lead from now on.
    pub fn give_up(&self) {
        self.state.lock().is_given_up = true;
        self.doubted_until.store(u64::MAX, Ordering::Release);
    }

    /// The metadata has refused, or did not answer: the copy counts, and takes part as it was told meanwhile. Without an answer
    /// others may lead, which this broker hears of until `doubted_until`, or they do not.
    pub fn keep(self: &Arc<Self>, doubted_until: Instant) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.is_given_up = false;
        self.doubted_until
            .store(doubted_until.as_nanos(), Ordering::Release);
        if let Some(assignment) = state.assigned.clone() {
            self.take_part(state, &assignment);
        }
    }

    /// Something below `offset` is known to be damaged.
    #[must_use]
    pub fn is_damaged_below(&self, offset: Offset) -> bool {
        let state = self.state.lock();
        state.known_damage().is_some_and(|damage| damage.offset < offset)
    }

    /// What is damaged of a copy that is served all the same.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        let state = self.state.lock();
        state.known_damage().map(|damage| damage.why.clone())
    }
}

impl State {
    /// What was deleted since is nobody's concern any more.
    pub(super) fn known_damage(&self) -> Option<&Damage> {
        let Storage::Open(log) = &self.storage else {
            return None;
        };
        self.damage
            .as_ref()
            .filter(|damage| damage.offset >= log.log_start())
    }
}
