//! Whether this broker may still take itself for the leader that the metadata made it.
//!
//! A broker that is cut off from the controller does not hear that others lead its partitions by now. What it appends
//! is safe all the same: nobody confirms it who is not in sync in this leader's epoch. What it *says* is not: an end of
//! a log that has gone on elsewhere, an offset that was committed again since. Therefore the controller answers each
//! heartbeat with the time for which it takes nobody's place away, and where that has run out this broker answers
//! nothing that must be current.
//!
//! Kafka's brokers have no such bound: an isolated one answers ListOffsets and OffsetFetch for as long as it is isolated.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use skerry_types::{Instant, is_planted};

/// What the controller's promise is shortened by, as a part of it: clocks run at slightly different rates.
const MARGIN_PART: u32 = 10;

/// The controller has answered a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Promise {
    /// When the heartbeat left here.
    pub sent: Instant,
    /// Nobody is fenced for so long after that; zero: nothing is promised.
    pub trusted: Duration,
    /// What the controller knew. A broker that does not know as much may have lost its leaderships before.
    pub index: u64,
}

/// What the controller has promised this broker. Cheap to ask.
#[derive(Debug, Default)]
pub struct Standing {
    /// Nanoseconds of the monotonic clock; 0: never.
    until: AtomicU64,
    /// It is under way to give its leaderships up.
    leaving: AtomicBool,
    /// Counts when this broker has acted on what the controller knew.
    owed: Mutex<Option<Promise>>,
    /// It has been lost for so long that nobody is kept waiting any more.
    aside: AtomicBool,
}

impl Standing {
    /// Nobody else can lead what this broker leads, as far as the metadata's elections go.
    #[must_use]
    pub fn holds(&self, now: Instant) -> bool {
        is_planted("standing-ignored")
            || is_planted("cut-off-leader-goes-on")
            || now.as_nanos() < self.until.load(Ordering::Acquire) && !self.leaving.load(Ordering::Acquire)
    }

    /// How long there is nothing new to be seen here.
    #[must_use]
    pub fn rest(&self, now: Instant) -> Duration {
        Instant::from_nanos(self.until.load(Ordering::Acquire)).since(now)
    }

    /// The controller has answered, and this broker has acted on the metadata up to `applied`.
    pub fn promised(&self, promise: Promise, applied: u64) {
        let mut owed = self.owed.lock();
        if let Some(earlier) = owed.take_if(|earlier| earlier.index <= applied) {
            self.extend(earlier);
        }
        if promise.index <= applied {
            self.extend(promise);
        } else if !promise.trusted.is_zero() {
            // The oldest is the first to count: metadata that goes on changing must not put it off for ever.
            owed.get_or_insert(promise);
        }
    }

    fn extend(&self, promise: Promise) {
        let until = promise.sent + (promise.trusted - promise.trusted / MARGIN_PART);
        if !promise.trusted.is_zero() {
            self.until.fetch_max(until.as_nanos(), Ordering::AcqRel);
        }
    }

    /// Nothing has been promised for a session: what cannot be confirmed is refused.
    #[must_use]
    pub fn is_aside(&self) -> bool {
        self.aside.load(Ordering::Acquire)
    }

    /// The standing has been lost for a session (true), or is back.
    pub fn step_aside(&self, aside: bool) {
        self.aside.store(aside, Ordering::Release);
    }

    /// This node alone decides what the metadata says, and nobody else could lead.
    pub fn hold_forever(&self) {
        self.until
            .store(Instant::FAR_FUTURE.as_nanos(), Ordering::Release);
    }

    /// Another node may decide from now on, or lead.
    pub fn end_forever(&self) {
        let forever = Instant::FAR_FUTURE.as_nanos();
        // A promise that a controller has made since stays.
        let _ = self
            .until
            .compare_exchange(forever, 0, Ordering::AcqRel, Ordering::Acquire);
    }

    /// From now on, and until its end, this broker is giving its leaderships up: others may have taken over before it hears
    /// of it.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    fn promise(sent_ms: u64, index: u64) -> Promise {
        Promise {
            sent: at(sent_ms),
            trusted: Duration::from_millis(750),
            index,
        }
    }

    #[test]
    fn it_ends_before_the_controller_could_fence() {
        let standing = Standing::default();
        assert!(!standing.holds(at(0)), "nothing was promised");
        standing.promised(promise(100, 7), 7);
        assert!(standing.holds(at(774)));
        assert!(
            !standing.holds(at(775)),
            "the controller fences at 850 at the earliest"
        );
        standing.promised(promise(50, 7), 7);
        assert!(standing.holds(at(774)), "an older answer takes nothing back");
        let nothing = Promise {
            trusted: Duration::ZERO,
            ..promise(700, 7)
        };
        standing.promised(nothing, 7);
        assert!(!standing.holds(at(775)), "nothing is promised by that");
    }

    /// A broker that comes back was fenced and let in again before it has heard of either.
    #[test]
    fn it_begins_when_this_broker_knows_what_the_controller_knew() {
        let standing = Standing::default();
        standing.promised(promise(0, 10), 9);
        standing.promised(promise(100, 11), 9);
        assert!(!standing.holds(at(150)));
        // Entry 12 has come meanwhile: what was promised at entry 10 counts all the same.
        standing.promised(promise(200, 12), 11);
        assert!(standing.holds(at(674)));
        assert!(!standing.holds(at(675)));
    }

    #[test]
    fn who_decides_alone_is_never_surprised() {
        let standing = Standing::default();
        standing.hold_forever();
        assert!(standing.holds(at(1_000_000)));
        standing.end_forever();
        assert!(!standing.holds(at(1)));
        standing.promised(promise(0, 1), 1);
        standing.end_forever();
        assert!(standing.holds(at(1)), "that was promised by somebody else");
    }

    #[test]
    fn who_gives_its_leaderships_up_says_nothing_that_must_be_current() {
        let standing = Standing::default();
        standing.promised(promise(0, 1), 1);
        assert!(standing.holds(at(1)));
        standing.leave();
        assert!(!standing.holds(at(1)));
        standing.promised(promise(2, 1), 1);
        assert!(!standing.holds(at(3)), "it goes on leaving");
    }
}
