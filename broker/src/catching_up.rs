//! When the copies on this broker will have caught up: what they lack, sample after sample.

use std::collections::VecDeque;
use std::time::Duration;

use skerry_types::Instant;

/// The speed is that of so many samples, one a second.
const SAMPLES_MAX: usize = 15;

/// What the copies that are not in sync lacked lately.
#[derive(Debug, Default)]
pub(crate) struct CatchingUp {
    samples: VecDeque<(Instant, u64)>,
}

impl CatchingUp {
    /// Notes that `records` are lacking `now`.
    pub(crate) fn sample(&mut self, now: Instant, records: u64) {
        if records == 0 {
            self.samples.clear();
        }
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((now, records));
    }

    /// Records that are lacking.
    pub(crate) fn records(&self) -> u64 {
        self.samples.back().map_or(0, |(_, records)| *records)
    }

    /// How long it will take at the speed of late; `None` where that cannot be told.
    fn left(&self) -> Option<Duration> {
        let ((began, before), (now, after)) = (self.samples.front()?, self.samples.back()?);
        let came = before.checked_sub(*after).filter(|came| *came > 0)?;
        let took = now.since(*began);
        Some(took.mul_f64(*after as f64 / came as f64))
    }

    /// For people.
    pub(crate) fn told(&self) -> String {
        let records = self.records();
        match self.left() {
            _ if records == 0 => "they lack no records that are known of".to_owned(),
            Some(left) => format!(
                "they lack {records} records, about {} s are left",
                left.as_secs() + 1
            ),
            None => format!("they lack {records} records, and do not come nearer yet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_follows_from_the_speed() {
        let mut catching_up = CatchingUp::default();
        assert_eq!(catching_up.told(), "they lack no records that are known of");
        for second in 0..4 {
            catching_up.sample(Instant::from_millis(second * 1_000), 10_000 - second * 1_000);
        }
        assert_eq!(catching_up.told(), "they lack 7000 records, about 8 s are left");
        // Producers are quicker.
        for second in 4..40 {
            catching_up.sample(Instant::from_millis(second * 1_000), 7_000 + second);
        }
        assert_eq!(
            catching_up.told(),
            "they lack 7039 records, and do not come nearer yet"
        );
        catching_up.sample(Instant::from_millis(50_000), 0);
        assert_eq!(catching_up.records(), 0);
        assert_eq!(catching_up.told(), "they lack no records that are known of");
    }
}
