//! Files, processes and time of the machine: the command line is outside of the simulation.
#![expect(
    clippy::disallowed_methods,
    reason = "the command line is no part of the simulated world"
)]

use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

pub(super) fn create(path: &Path) -> anyhow::Result<Box<dyn Write + Send>> {
    let file = std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Box::new(BufWriter::with_capacity(1 << 20, file)))
}

pub(super) fn open(path: &Path) -> anyhow::Result<Box<dyn BufRead>> {
    let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(Box::new(BufReader::new(file)))
}

pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(super) fn remove(path: &Path) {
    // A left-over in the temporary directory harms nobody.
    let _ = std::fs::remove_file(path);
}

pub(super) fn now() -> Instant {
    Instant::now()
}

pub(super) fn sleep(time: Duration) {
    std::thread::sleep(time);
}
