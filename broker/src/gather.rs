//! When a flush should wait a moment for more.
//!
//! A producer has a few requests in flight (Java: 5), and a disk takes as long for one of them as for all five. Its
//! window comes one request after the other: flushing the first at once makes two flushes of every window, one of one
//! batch and one of four, for ever. So a flush waits until as many batches have come as are known to be in flight: as
//! many as the last flush answered, or, where some came while it ran, those and these. It is over as soon as they have
//! come, which for such a producer is at once.
//!
//! A lone batch is answered alone and the next one waits for nobody, so that a producer with one request in flight
//! pays nothing; and where what was expected does not come, or comes more slowly than a flush would have taken, the
//! next flushes do not wait for it: a stream that is not such a window pays once in a while. Pure: it is told what
//! happens and answers what to do.

/// Batches that a flush waits for at most: a longer wait would gain little, each batch's share of a sync being small.
const EXPECTED_MAX: u32 = 64;
/// The abstention after the first wait that was not worth it. It is short: on a busy machine a window comes late now and
/// then, and soon again the next time.
const ABSTAIN_MIN: u32 = 2;
/// The longest abstention, where waiting is never worth it.
const ABSTAIN_MAX: u32 = 256;

/// Decides for one partition.
#[derive(Debug, Default)]
pub struct Gather {
    /// Appended since the last flush began.
    waiting: u32,
    /// What the flush that runs covers.
    flushing: u32,
    /// What the last flush covered.
    answered: u32,
    /// A flush waits for so many; 0: none does.
    expected: u32,
    /// Flushes that will not wait.
    abstain: u32,
    /// How long the next abstention is.
    penalty: u32,
}

impl Gather {
    /// A batch was appended. True if the flush that waits need not wait any more.
    pub fn on_append(&mut self) -> bool {
        self.waiting = self.waiting.saturating_add(1);
        let reached = self.expected != 0 && self.waiting >= self.expected;
        if reached {
            self.expected = 0;
        }
        reached
    }

    /// A flush could begin, and none ran when its first batch came. True if it should wait for more than there is.
    pub fn on_idle(&mut self) -> bool {
        self.expect(self.answered)
    }

    /// A flush begins with all that waits.
    pub fn on_start(&mut self) {
        self.flushing = std::mem::take(&mut self.waiting);
        self.expected = 0;
    }

    /// A flush has ended. True if the next one should wait for more than there is.
    pub fn on_finish(&mut self) -> bool {
        self.answered = std::mem::take(&mut self.flushing);
        if self.waiting == 0 || self.answered == 0 {
            return false;
        }
        self.expect(self.waiting.saturating_add(self.answered))
    }

    /// A wait is over. It was `worth_it` if what was expected came, and soon.
    pub fn on_gathered(&mut self, worth_it: bool) {
        self.expected = 0;
        if worth_it {
            self.penalty /= 2;
        } else {
            self.penalty = (self.penalty * 2).clamp(ABSTAIN_MIN, ABSTAIN_MAX);
            self.abstain = self.penalty;
        }
    }

    fn expect(&mut self, batches: u32) -> bool {
        let batches = batches.min(EXPECTED_MAX);
        if batches <= self.waiting {
            return false;
        }
        if self.abstain > 0 {
            self.abstain -= 1;
            return false;
        }
        self.expected = batches;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(gather: &mut Gather, batches: u32) -> bool {
        (0..batches).map(|_| gather.on_append()).last().unwrap_or(false)
    }

    #[test]
    fn a_lone_batch_never_waits() {
        let mut gather = Gather::default();
        for _ in 0..10 {
            append(&mut gather, 1);
            assert!(!gather.on_idle());
            gather.on_start();
            assert!(!gather.on_finish());
        }
    }

    #[test]
    fn a_window_is_flushed_whole() {
        let mut gather = Gather::default();
        append(&mut gather, 2);
        gather.on_start();
        append(&mut gather, 3);
        assert!(
            gather.on_finish(),
            "two were answered, three wait: five are in flight"
        );
        assert!(!append(&mut gather, 1));
        assert!(append(&mut gather, 1), "five are there");
        gather.on_gathered(true);
        gather.on_start();
        assert!(!gather.on_finish(), "nobody waits behind a whole window");
    }

    #[test]
    fn the_first_of_the_next_window_waits_for_the_rest_of_it() {
        let mut gather = Gather::default();
        append(&mut gather, 5);
        for _ in 0..10 {
            gather.on_start();
            assert!(!gather.on_finish());
            append(&mut gather, 1);
            assert!(gather.on_idle(), "five were answered, one is here");
            assert!(append(&mut gather, 4));
            gather.on_gathered(true);
        }
        gather.on_start();
        assert!(!gather.on_finish());
        append(&mut gather, 1);
        assert!(gather.on_idle());
        gather.on_gathered(false);
        gather.on_start();
        assert!(!gather.on_finish());
        append(&mut gather, 1);
        assert!(!gather.on_idle(), "the producer has one request in flight now");
    }

    #[test]
    fn who_was_disappointed_abstains_for_a_while_and_longer_each_time() {
        let mut gather = Gather::default();
        let mut waits = 0;
        for _ in 0..100 {
            append(&mut gather, 1);
            gather.on_start();
            append(&mut gather, 1);
            if gather.on_finish() {
                waits += 1;
                gather.on_gathered(false);
            }
        }
        assert_eq!(waits, 6, "after 0, 2, 4, 8, 16 and 32 flushes");
    }
}
