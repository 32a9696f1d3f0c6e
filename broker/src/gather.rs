//! When a flush should wait a moment for more.
//!
//! A producer has a few requests in flight (Java: 5). When a flush ends, some of them have just been answered and the
//! rest waits already: flushing the rest at once makes the next flush small, and so on for ever, so that a window of
//! five is flushed in twos and threes by a disk that takes as long for two as for five. Waiting until as many
//! batches have come as were in flight makes each flush whole; it is over as soon as they have come, which for such a
//! producer is at once.
//!
//! A flush that nobody else waits behind never waits, so that a lone producer pays nothing; and where what was
//! expected does not come, the next flushes do not wait for it: a stream that is not such a window pays once in a
//! while. Pure: it is told what happens and answers what to do.

/// Batches that a flush waits for at most: a longer wait would gain little, each batch's share of a sync being small.
const EXPECTED_MAX: u32 = 64;
/// The longest abstention after expected batches did not come.
const ABSTAIN_MAX: u32 = 256;

/// Decides for one partition.
#[derive(Debug, Default)]
pub struct Gather {
    /// Appended since the last flush began.
    waiting: u32,
    /// What the flush that runs covers.
    flushing: u32,
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
            self.penalty = 0;
        }
        reached
    }

    /// A flush begins with all that waits.
    pub fn on_start(&mut self) {
        self.flushing = std::mem::take(&mut self.waiting);
        self.expected = 0;
    }

    /// A flush has ended. True if the next one should wait for more than there is.
    pub fn on_finish(&mut self) -> bool {
        let flushed = std::mem::take(&mut self.flushing);
        if self.waiting == 0 || flushed == 0 {
            return false;
        }
        if self.abstain > 0 {
            self.abstain -= 1;
            return false;
        }
        self.expected = self.waiting.saturating_add(flushed).min(EXPECTED_MAX);
        if self.expected <= self.waiting {
            self.expected = 0;
        }
        self.expected != 0
    }

    /// The wait was over before what was expected had come.
    pub fn on_disappointed(&mut self) {
        self.expected = 0;
        self.penalty = (self.penalty * 2).clamp(8, ABSTAIN_MAX);
        self.abstain = self.penalty;
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
        gather.on_start();
        assert!(!gather.on_finish(), "nobody waits behind a whole window");
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
                gather.on_disappointed();
            }
        }
        assert_eq!(waits, 4, "after 0, 8, 16 and 32 flushes");
    }
}
