//! Files, processes and time of the machine: the command line is outside of the simulation.
#![expect(
    clippy::disallowed_methods,
    reason = "the command line is no part of the simulated world"
)]

use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::process::{Signal, getpid, kill_process};

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

/// Reads what a child says while it says it: a pipe holds as little as 4 KiB where its user has many.
pub(super) fn listen(mut to: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut heard = Vec::new();
        // What came before an error counts.
        let _ = to.read_to_end(&mut heard);
        String::from_utf8_lossy(&heard).into_owned()
    })
}

/// Ends this process when its standard input ends, after its last words. Nothing that the end of a process calls is
/// called: the thread that simulates is in the middle of something.
pub(super) fn end_when_input_does(last_words: impl FnOnce(&mut dyn Write) + Send + 'static) {
    std::thread::spawn(move || {
        // Nothing is ever said there: an error is an end too.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        last_words(&mut std::io::stderr());
        let _ = kill_process(getpid(), Signal::KILL);
    });
}

pub(super) fn now() -> Instant {
    Instant::now()
}

pub(super) fn sleep(time: Duration) {
    std::thread::sleep(time);
}

/// How much of the processors this process and its threads have had, as Linux counts it: in hundredths of a second.
pub(super) fn processor_ms() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the program, in parentheses, may hold anything; utime and stime are the 14th and the 15th field.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let hundredths = fields.split_whitespace().skip(11).take(2);
    hundredths
        .filter_map(|field| field.parse::<u64>().ok())
        .sum::<u64>()
        * 10
}

/// Where this process lies in memory: its code, its stack, a small and a large piece of its heap.
pub(super) fn layout() -> String {
    let (here, small, large) = (0_u8, Box::new(0_u8), vec![0_u8; 1 << 16]);
    format!(
        "{:p} {:p} {:p} {:p}",
        layout as fn() -> String,
        &raw const here,
        small,
        large.as_ptr()
    )
}
