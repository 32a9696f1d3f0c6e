//! What happened, line by line, and one number over all of it.
//!
//! A line is `[milliseconds] host event`. Two runs of a seed must give the same lines: nothing that differs between
//! two processes (a real time, an address, a path of this machine) may be written here.

use std::collections::VecDeque;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// How many of the last lines are kept for the report of a failure.
const KEPT_LINES: usize = 400;

/// The moment of the simulation, in milliseconds since its start.
///
/// Inside a host it is the host's own paused clock; outside (and while a crash drops a host's tasks, when tokio would
/// answer with the real time) it is the moment of the last tick.
#[derive(Clone, Default)]
pub struct SimTime(Arc<AtomicU64>);

impl SimTime {
    /// Tells the moment of the tick that starts now.
    pub fn set_micros(&self, micros: u64) {
        self.0.store(micros, Ordering::Relaxed);
    }

    /// Microseconds since the start of the simulation.
    #[must_use]
    pub fn micros(&self) -> u64 {
        let tick = self.0.load(Ordering::Relaxed);
        if tokio::runtime::Handle::try_current().is_err() {
            return tick;
        }
        turmoil::sim_elapsed().map_or(tick, |elapsed| {
            u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
        })
    }

    /// Milliseconds since the start of the simulation.
    #[must_use]
    pub fn millis(&self) -> u64 {
        self.micros() / 1_000
    }
}

/// How much is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// Faults, starts, operations of clients.
    Events,
    /// Also each operation on a disk and each burst of bytes on a socket.
    Everything,
}

struct Inner {
    hash: u64,
    lines: u64,
    kept: VecDeque<String>,
    out: Option<Box<dyn Write + Send>>,
    detail: Detail,
}

/// The trace of one run. Cheap to clone.
#[derive(Clone)]
pub struct Trace {
    time: SimTime,
    inner: Arc<Mutex<Inner>>,
}

impl Trace {
    /// A trace that keeps its last lines, and writes all of them to `out` if there is one.
    #[must_use]
    pub fn new(time: SimTime, detail: Detail, out: Option<Box<dyn Write + Send>>) -> Self {
        let inner = Inner {
            hash: FNV_OFFSET,
            lines: 0,
            kept: VecDeque::new(),
            out,
            detail,
        };
        Self {
            time,
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// A trace that nobody reads.
    #[must_use]
    pub fn silent() -> Self {
        Self::new(SimTime::default(), Detail::Events, None)
    }

    /// The clock that its lines are dated by.
    #[must_use]
    pub fn time(&self) -> &SimTime {
        &self.time
    }

    /// Writes a line.
    pub fn event(&self, host: &str, event: fmt::Arguments<'_>) {
        let micros = self.time.micros();
        let line = format!("[{:>6}.{:03}] {host:<9} {event}", micros / 1_000, micros % 1_000);
        let mut inner = self.inner.lock();
        inner.hash = fnv(inner.hash, line.as_bytes());
        inner.lines += 1;
        let hash = inner.hash;
        if let Some(out) = &mut inner.out {
            // A trace that cannot be written is noticed by whoever reads it; the run goes on.
            let _ = writeln!(out, "{line} #{:04x}", hash & 0xffff);
        }
        if inner.kept.len() == KEPT_LINES {
            inner.kept.pop_front();
        }
        inner.kept.push_back(line);
    }

    /// Counts a small thing (an operation on a disk, bytes on a socket): always in the hash, a line of its own only
    /// where everything is asked for.
    pub fn detail(&self, host: &str, what: &str, a: u64, b: u64) {
        let micros = self.time.micros();
        let mut inner = self.inner.lock();
        let mut hash = fnv(inner.hash, what.as_bytes());
        for number in [micros, a, b] {
            hash = fnv(hash, &number.to_le_bytes());
        }
        inner.hash = hash;
        if inner.detail == Detail::Everything
            && let Some(out) = &mut inner.out
        {
            let (millis, rest) = (micros / 1_000, micros % 1_000);
            let _ = writeln!(
                out,
                "[{millis:>6}.{rest:03}] {host:<9}   {what} {a} {b} #{:04x}",
                hash & 0xffff
            );
        }
    }

    /// True where every small thing gets a line.
    #[must_use]
    pub fn is_detailed(&self) -> bool {
        self.inner.lock().detail == Detail::Everything
    }

    /// One number over everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.inner.lock().hash
    }

    /// The last lines.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> Vec<String> {
        let inner = self.inner.lock();
        inner
            .kept
            .iter()
            .skip(inner.kept.len().saturating_sub(count))
            .cloned()
            .collect()
    }

    /// For a panic: writes what is buffered and gives the last lines, unless the panic came from in here.
    #[must_use]
    pub fn last_words(&self, count: usize) -> Vec<String> {
        let Some(mut inner) = self.inner.try_lock() else {
            return Vec::new();
        };
        if let Some(out) = &mut inner.out {
            let _ = out.flush();
        }
        let skipped = inner.kept.len().saturating_sub(count);
        inner.kept.iter().skip(skipped).cloned().collect()
    }

    /// Writes what is buffered.
    pub fn flush(&self) {
        if let Some(out) = &mut self.inner.lock().out {
            let _ = out.flush();
        }
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, eight bytes at a time where there are eight.
pub(crate) fn fnv(mut hash: u64, bytes: &[u8]) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        hash = (hash ^ u64::from_le_bytes(word.try_into().unwrap_or_default())).wrapping_mul(PRIME);
        hash ^= hash >> 32;
    }
    for byte in words.remainder() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    }
    hash
}

/// FNV-1a of `bytes` alone.
#[must_use]
pub fn fnv_of(bytes: &[u8]) -> u64 {
    fnv(FNV_OFFSET, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_every_line_and_every_detail() {
        let (one, two) = (Trace::silent(), Trace::silent());
        assert_eq!(one.hash(), two.hash());
        one.event("broker", format_args!("started"));
        two.event("broker", format_args!("started"));
        assert_eq!(one.hash(), two.hash());
        one.detail("broker", "write", 1, 2);
        two.detail("broker", "write", 1, 3);
        assert_ne!(one.hash(), two.hash());
        assert_eq!(one.last_lines(10).len(), 1);
    }
}
