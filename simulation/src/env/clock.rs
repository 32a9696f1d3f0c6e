use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_env::clock::ClockBackend;
use skerry_types::{Instant, WallMs};

use crate::trace::{SimTime, fnv_of};

/// 2026-01-01, when every simulation begins.
const EPOCH_MS: i64 = 1_767_225_600_000;

/// How a wall clock is wrong while a fault lasts (TigerBeetle's `TimeSim`, Jepsen's clock nemesis). Monotonic clocks are
/// not touched by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WallFault {
    /// It goes forth and back by so much, again and again.
    Strobe {
        /// How far.
        by_ms: i64,
        /// How long it stays.
        every_ms: u64,
    },
    /// It stands.
    Frozen,
    /// Every reading is wrong by another error, of so much at most.
    Noise {
        /// The largest error.
        by_ms: i64,
    },
    /// The error grows to so much, shrinks to as much below zero, and comes back.
    Swing {
        /// The largest error.
        by_ms: i64,
        /// How long that takes.
        period_ms: u64,
    },
}

impl WallFault {
    /// The error `passed_ms` after it began; `salt` is another one for each reading.
    fn error_ms(self, passed_ms: i64, salt: u64) -> i64 {
        let turns = |every_ms: u64| passed_ms / i64::try_from(every_ms.max(1)).unwrap_or(i64::MAX);
        match self {
            Self::Strobe { by_ms, every_ms } => by_ms * ((turns(every_ms) + 1) % 2),
            Self::Frozen => -passed_ms,
            Self::Noise { by_ms } => {
                let width = by_ms.unsigned_abs() * 2 + 1;
                let drawn = fnv_of(&salt.to_be_bytes()) % width;
                i64::try_from(drawn).unwrap_or(0) - by_ms.abs()
            }
            Self::Swing { by_ms, period_ms } => {
                let quarter = i64::try_from(period_ms / 4).unwrap_or(0).max(1);
                let (turn, into) = (passed_ms / quarter % 4, passed_ms % quarter);
                let share = match turn {
                    0 => into,
                    1 => quarter - into,
                    2 => -into,
                    _ => into - quarter,
                };
                by_ms * share / quarter
            }
        }
    }
}

struct Readings {
    /// The monotonic clock read `mono_nanos` when the simulation was at `sim_nanos`.
    sim_nanos: u64,
    mono_nanos: u64,
    /// Millionths by which the monotonic clock is fast.
    drift_ppm: i64,
    /// The wall clock's error.
    wall_offset_ms: i64,
    /// How it is wrong besides, and since when.
    wall_fault: Option<(WallFault, u64)>,
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
            wall_fault: None,
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

    /// Makes the wall clock wrong from now on; a later fault takes the place of an earlier one.
    pub fn set_wall_fault(&self, fault: Option<WallFault>) {
        let now_ms = self.time.millis();
        self.readings.lock().wall_fault = fault.map(|fault| (fault, now_ms));
    }

    /// Sets the wall clock right.
    pub fn heal(&self) {
        self.set_drift_ppm(0);
        let mut readings = self.readings.lock();
        readings.wall_offset_ms = 0;
        readings.wall_fault = None;
    }

    /// How long the simulation has to go on until this clock says `deadline`, if its rate stays as it is.
    pub(super) fn real_time_until(&self, deadline: Instant) -> Duration {
        let wait = deadline.since(self.now());
        let rate_ppm = u128::try_from(1_000_000 + self.readings.lock().drift_ppm).unwrap_or(1_000_000);
        let nanos = (wait.as_nanos() * 1_000_000).div_ceil(rate_ppm);
        // A century is for ever: tokio's timer does not count further.
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
        Duration::from_nanos(nanos.min(3_000_000_000_000_000_000))
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
        let error_ms = readings.wall_fault.map_or(0, |(fault, since_ms)| {
            let since_ms = i64::try_from(since_ms).unwrap_or(i64::MAX);
            fault.error_ms(passed_ms - since_ms, self.time.micros())
        });
        let drift_ms = passed_ms * readings.drift_ppm / 1_000_000;
        WallMs(EPOCH_MS + passed_ms + drift_ms + readings.wall_offset_ms + error_ms)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let clock = self.clone();
        Box::pin(async move {
            loop {
                tokio::time::sleep(clock.real_time_until(deadline)).await;
                // Its rate may have changed: no timer ends before its time.
                if clock.now() >= deadline {
                    return;
                }
            }
        })
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

    #[test]
    fn a_wall_clock_is_wrong_in_its_own_way_and_right_again() {
        let time = SimTime::default();
        let clock = HostClock::new(time.clone());
        let errors = |fault| {
            let begins_ms = time.millis();
            clock.set_wall_fault(Some(fault));
            let readings = (0..8).map(|step| {
                let at_ms = begins_ms + step * 100;
                time.set_micros(at_ms * 1_000);
                clock.wall().get() - EPOCH_MS - i64::try_from(at_ms).unwrap()
            });
            let readings: Vec<i64> = readings.collect();
            clock.set_wall_fault(None);
            assert_eq!(
                clock.wall().get() - EPOCH_MS,
                i64::try_from(time.millis()).unwrap()
            );
            readings
        };
        let strobe = WallFault::Strobe {
            by_ms: 5_000,
            every_ms: 200,
        };
        assert_eq!(errors(strobe), [5_000, 5_000, 0, 0, 5_000, 5_000, 0, 0]);
        assert_eq!(
            errors(WallFault::Frozen),
            [0, -100, -200, -300, -400, -500, -600, -700]
        );
        let swing = WallFault::Swing {
            by_ms: 50,
            period_ms: 800,
        };
        assert_eq!(errors(swing), [0, 25, 50, 25, 0, -25, -50, -25]);
        let noise = errors(WallFault::Noise { by_ms: 40 });
        assert!(noise.iter().all(|error| error.abs() <= 40), "{noise:?}");
        assert!(noise.windows(2).any(|pair| pair[0] != pair[1]), "{noise:?}");
    }
}
