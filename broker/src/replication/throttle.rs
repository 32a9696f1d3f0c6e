//! How fast throttled replicas catch up (`leader.replication.throttled.rate`, `follower.replication.throttled.rate`).

use std::time::Duration;

use parking_lot::Mutex;
use skerry_types::Instant;

/// The longest time whose unused share may be used at once. Kafka's quota looks at some seconds in the same way.
const BURST: Duration = Duration::from_secs(1);

/// A rate that all streams of one direction share. What is taken may exceed what there is, by one read; the next one
/// waits for it.
#[derive(Debug)]
pub struct Throttle(Mutex<Bucket>);

#[derive(Debug)]
struct Bucket {
    /// Below zero: taken in advance.
    bytes: f64,
    at: Instant,
}

impl Throttle {
    /// One that nothing was taken from.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self(Mutex::new(Bucket { bytes: 0.0, at: now }))
    }

    /// When more may be taken; `None`: now.
    pub fn ready_at(&self, now: Instant, bytes_per_second: u64) -> Option<Instant> {
        let mut bucket = self.0.lock();
        bucket.refill(now, bytes_per_second);
        if bucket.bytes >= 0.0 {
            return None;
        }
        let wait = -bucket.bytes / rate(bytes_per_second);
        Some(now + Duration::from_secs_f64(wait.min(60.0)) + Duration::from_millis(1))
    }

    /// Takes `bytes`.
    pub fn take(&self, now: Instant, bytes_per_second: u64, bytes: usize) {
        let mut bucket = self.0.lock();
        bucket.refill(now, bytes_per_second);
        bucket.bytes -= bytes as f64;
    }
}

impl Bucket {
    fn refill(&mut self, now: Instant, bytes_per_second: u64) {
        let rate = rate(bytes_per_second);
        self.bytes = (self.bytes + now.since(self.at).as_secs_f64() * rate).min(rate * BURST.as_secs_f64());
        self.at = now;
    }
}

/// A rate of 0 stops throttled replicas in Kafka; one byte a second comes close, and the sums stay finite.
fn rate(bytes_per_second: u64) -> f64 {
    bytes_per_second.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_no_more_is_taken_than_the_rate_allows() {
        let throttle = Throttle::new(Instant::ZERO);
        let (mut now, mut taken) = (Instant::ZERO, 0_usize);
        while now < Instant::from_millis(10_000) {
            match throttle.ready_at(now, 1_000_000) {
                None => {
                    throttle.take(now, 1_000_000, 300_000);
                    taken += 300_000;
                }
                Some(at) => {
                    assert!(at > now);
                    now = at;
                }
            }
        }
        assert!((9_700_000..=10_600_000).contains(&taken), "{taken}");
    }

    #[test]
    fn what_was_not_used_is_not_saved_for_long() {
        let throttle = Throttle::new(Instant::ZERO);
        let later = Instant::from_millis(3_600_000);
        throttle.take(later, 1_000, 2_000);
        let at = throttle.ready_at(later, 1_000).unwrap();
        assert!((990..=1_010).contains(&(at - later).as_millis()), "{at:?}");
    }
}
