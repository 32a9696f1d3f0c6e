use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_env::clock::ClockBackend;
use skerry_types::{Instant, WallMs};

use crate::trace::SimTime;

/// 2026-01-01, when every simulation begins.
const EPOCH_MS: i64 = 1_767_225_600_000;

struct Readings {
    /// The monotonic clock read `mono_nanos` when the simulation was at `sim_nanos`.
    sim_nanos: u64,
    mono_nanos: u64,
    /// Millionths by which the monotonic clock is fast.
    drift_ppm: i64,
    /// The wall clock's error.
    wall_offset_ms: i64,
}

/// A host's monotonic and wall clock, and how they are wrong.
#[derive(Clone)]
pub struct HostClock {
    time: SimTime,
    readings: Arc<Mutex<Readings>>,
}

impl HostClock {
    pub(super) fn new(time: SimTime) -> Self {
        let readings = Readings {
            sim_nanos: 0,
            mono_nanos: 0,
            drift_ppm: 0,
            wall_offset_ms: 0,
        };
        Self {
            time,
            readings: Arc::new(Mutex::new(readings)),
        }
    }

    /// Makes the clock run fast (or slow) from now on. The monotonic clock never goes back.
    pub fn set_drift_ppm(&self, ppm: i64) {
        let now = self.now_nanos();
        let mut readings = self.readings.lock();
        readings.sim_nanos = self.time.micros() * 1_000;
        readings.mono_nanos = now;
        readings.drift_ppm = ppm.clamp(-500_000, 500_000);
    }

    /// Moves the wall clock.
    pub fn jump_wall_ms(&self, by_ms: i64) {
        self.readings.lock().wall_offset_ms += by_ms;
    }

    /// Sets the wall clock right.
    pub fn heal(&self) {
        self.set_drift_ppm(0);
        self.readings.lock().wall_offset_ms = 0;
    }

    fn now_nanos(&self) -> u64 {
        let readings = self.readings.lock();
        let passed = (self.time.micros() * 1_000).saturating_sub(readings.sim_nanos);
        let scaled = i128::from(passed) * i128::from(1_000_000 + readings.drift_ppm) / 1_000_000;
        readings.mono_nanos + u64::try_from(scaled).unwrap_or(0)
    }
}

impl ClockBackend for HostClock {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.now_nanos())
    }

    fn wall(&self) -> WallMs {
        let readings = self.readings.lock();
        let passed_ms = i64::try_from(self.time.millis()).unwrap_or(i64::MAX);
        WallMs(EPOCH_MS + passed_ms + passed_ms * readings.drift_ppm / 1_000_000 + readings.wall_offset_ms)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let drift_ppm = self.readings.lock().drift_ppm;
        let wait = deadline.since(self.now());
        let wait_nanos =
            wait.as_nanos() * 1_000_000 / u128::try_from(1_000_000 + drift_ppm).unwrap_or(1_000_000);
        // A century is for ever: tokio's timer does not count further.
        let nanos = u64::try_from(wait_nanos)
            .unwrap_or(u64::MAX)
            .min(3_000_000_000_000_000_000);
        Box::pin(tokio::time::sleep(Duration::from_nanos(nanos)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drift_and_jumps_never_take_the_monotonic_clock_back() {
        let time = SimTime::default();
        let clock = HostClock::new(time.clone());
        let mut last = clock.now();
        for (step, ppm) in [100_000, -300_000, 0, 50_000].into_iter().enumerate() {
            time.set_micros((step as u64 + 1) * 1_000_000);
            assert!(clock.now() > last);
            last = clock.now();
            clock.set_drift_ppm(ppm);
            clock.jump_wall_ms(-86_400_000);
            assert_eq!(clock.now(), last);
        }
        assert!(clock.wall().get() < EPOCH_MS);
        clock.heal();
        assert_eq!(clock.wall().get(), EPOCH_MS + 4_000);
    }
}
