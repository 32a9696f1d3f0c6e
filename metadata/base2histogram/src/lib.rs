//! Stands in for the crates.io package of this name (`[patch.crates-io]` in the workspace's Cargo.toml).
//!
//! openraft records what it does into histograms. Without its feature `runtime-stats`, which we do not use, nobody
//! can read them; yet the first histogram of the real crate computes the tables of every bucket width that it knows:
//! 26 MB that stay, and some 20 ms of a start that may take 30. Here a record is forgotten.
//!
//! To be deleted when the real crate makes its tables on demand. Deliberately absent: everything that openraft does
//! not name, so that a new use of it stops the build.
#![forbid(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

/// Forgets what it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram<T = ()>(PhantomData<T>);

impl<T> Histogram<T> {
    /// An empty histogram, as it will stay.
    #[must_use]
    pub const fn new() -> Self {
        Self(PhantomData)
    }

    /// Does nothing.
    pub const fn record(&mut self, _value: u64) {}

    /// Does nothing.
    pub const fn record_n(&mut self, _value: u64, _count: u64) {}

    /// The statistics of no samples.
    #[must_use]
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// What a histogram would say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[not recorded]")
    }
}

/// A chart of nothing.
#[derive(Clone, Debug, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty chart, as it will stay.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Does nothing.
    #[must_use]
    pub fn add(self, _name: &str, _histogram: Histogram) -> Self {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
