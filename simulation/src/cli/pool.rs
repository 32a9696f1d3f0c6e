//! Children: one process for each simulation.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use skerry_simulation::disk;
use skerry_simulation::world::{LINE_PREFIX, PANIC_PREFIX};

use super::one::{self, Broken, Result};
use super::{OneArgs, files};

/// A simulation that takes longer than this of real time turns in a circle.
const LASTS_AT_MOST: Duration = Duration::from_secs(120);
/// And so much more for each simulated second of faults: where others keep the processors busy, too.
const LASTS_AT_MOST_FOR_EACH: Duration = Duration::from_secs(10);
/// The check that sees one that does.
const ENDLESS: &str = "runs-for-ever";
/// How long it may take to say its last words.
const LAST_WORDS: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// How long a child runs between two halts, and how often it is halted.
const BETWEEN_HALTS: Duration = Duration::from_millis(250);
const HALTS: u32 = 2;
/// Longer than the second after which libraries forget, where they go by a clock of their own.
const HALT: Duration = Duration::from_millis(1_200);

/// A child that stands still now and then, as on a machine that has no processor for it.
struct Halts {
    left: u32,
    next: Instant,
    is_halted: bool,
}

impl Halts {
    fn new() -> Self {
        Self {
            left: HALTS,
            next: files::now() + BETWEEN_HALTS,
            is_halted: false,
        }
    }

    /// Halts `child`, or lets it go on, if it is time.
    fn look(&mut self, child: &Child) {
        if files::now() < self.next || (self.left == 0 && !self.is_halted) {
            return;
        }
        let (signal, for_so_long) = if self.is_halted {
            (Signal::CONT, BETWEEN_HALTS)
        } else {
            self.left -= 1;
            (Signal::STOP, HALT)
        };
        // Ours, and not waited for yet: the number is nobody else's.
        let sent = Pid::from_child(child);
        if kill_process(sent, signal).is_ok() {
            self.is_halted = !self.is_halted;
        }
        self.next = files::now() + for_so_long;
    }
}

struct Running {
    child: Child,
    halts: Option<Halts>,
    output: Option<JoinHandle<String>>,
    errors: Option<JoinHandle<String>>,
    seed: u64,
    since: Instant,
    at_most: Duration,
}

impl Drop for Running {
    /// It ends, whatever becomes of its parent, and so does what it has in memory. Ours alone, by its handle.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let pid = self.child.id();
        disk::remove_left_over(|left_by| left_by == pid);
    }
}

/// Removes what processes that are gone have left in memory: those that were killed, and those that Ctrl-C has ended.
pub(super) fn sweep() {
    disk::remove_left_over(|pid| {
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
        pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
    });
}

/// True where nobody has waited for its end.
pub(super) fn is_endless(result: &Result) -> bool {
    result.violations.iter().any(|broken| broken.check == ENDLESS)
}

/// How a child's surroundings differ from its parent's, to prove that they do not matter.
#[derive(Clone, Default)]
pub(super) struct Surroundings<'a> {
    pub(super) dir: Option<&'a Path>,
    pub(super) variables: Vec<(&'a str, &'a str)>,
    /// It is stopped and continued by signals.
    pub(super) halts: bool,
}

fn start(args: &OneArgs, surroundings: &Surroundings<'_>) -> anyhow::Result<Running> {
    let scenario = one::scenario(args)?;
    let program = std::env::current_exe().context("cannot find this program")?;
    let mut command = Command::new(program);
    command.arg("one").arg(args.seed.to_string());
    if let Some(scenario) = &args.scenario {
        command.arg("--scenario").arg(scenario);
    }
    if let Some(keep) = &args.keep {
        let keep: Vec<_> = keep.iter().map(ToString::to_string).collect();
        command.arg(format!("--keep={}", keep.join(",")));
    }
    if let Some(trace) = &args.trace {
        command.arg("--trace").arg(trace);
    }
    if let Some(history) = &args.history {
        command.arg("--history").arg(history);
    }
    if !args.until.is_empty() {
        command.arg(format!("--until={}", args.until.join(",")));
    }
    if let Some(story) = &args.story {
        command.arg("--story").arg(story);
    }
    command.args(args.choice.arguments());
    if let Some(dir) = surroundings.dir {
        command.current_dir(dir);
    }
    command.envs(surroundings.variables.iter().copied());
    // It is held by its standard input, which ends with this process too, however that ends.
    command
        .arg("--is-held")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let seconds = u32::try_from(scenario.faults_ms / 1_000).unwrap_or(u32::MAX);
    let at_most = LASTS_AT_MOST.saturating_add(LASTS_AT_MOST_FOR_EACH.saturating_mul(seconds));
    let mut child = command.spawn().context("cannot start a child")?;
    Ok(Running {
        output: child.stdout.take().map(files::listen),
        errors: child.stderr.take().map(files::listen),
        child,
        halts: surroundings.halts.then(Halts::new),
        seed: scenario.seed,
        since: files::now(),
        at_most,
    })
}

/// Runs one simulation in a child.
pub(super) fn run_one(args: &OneArgs, surroundings: &Surroundings<'_>) -> anyhow::Result<Result> {
    let mut running = start(args, surroundings)?;
    loop {
        if let Some(result) = poll(&mut running)? {
            return Ok(result);
        }
        files::sleep(POLL);
    }
}

/// Runs simulations, `jobs` at a time, until there are no more or `each` says that it is enough.
pub(super) fn run_all(
    all: impl IntoIterator<Item = OneArgs>,
    jobs: usize,
    each: impl FnMut(Result) -> bool,
) -> anyhow::Result<()> {
    run_in(all, &Surroundings::default(), jobs, each)
}

/// The same in other surroundings.
pub(super) fn run_in(
    all: impl IntoIterator<Item = OneArgs>,
    surroundings: &Surroundings<'_>,
    jobs: usize,
    mut each: impl FnMut(Result) -> bool,
) -> anyhow::Result<()> {
    let mut waiting = all.into_iter();
    let mut running: Vec<Running> = Vec::new();
    let mut enough = false;
    loop {
        while running.len() < jobs && !enough {
            let Some(args) = waiting.next() else { break };
            running.push(start(&args, surroundings)?);
        }
        if running.is_empty() {
            return Ok(());
        }
        let mut index = 0;
        while index < running.len() {
            match poll(&mut running[index])? {
                Some(result) => {
                    running.remove(index);
                    enough |= !each(result);
                }
                None => index += 1,
            }
        }
        files::sleep(POLL);
    }
}

fn poll(running: &mut Running) -> anyhow::Result<Option<Result>> {
    let failed = |check: &str, message: String| Result {
        seed: running.seed,
        violations: vec![Broken {
            at: 0,
            check: check.to_owned(),
            message,
        }],
        ..Result::default()
    };
    match running.child.try_wait().context("cannot wait for a child")? {
        None if running.since.elapsed() < running.at_most => {
            if let Some(halts) = &mut running.halts {
                halts.look(&running.child);
            }
            Ok(None)
        }
        None => {
            drop(running.child.stdin.take());
            let by = files::now() + LAST_WORDS;
            while files::now() < by && running.child.try_wait().is_ok_and(|status| status.is_none()) {
                files::sleep(POLL);
            }
            // Ours alone, by its handle.
            let _ = running.child.kill();
            let _ = running.child.wait();
            let message = format!("no end after {:?} of real time", running.at_most);
            Ok(Some(Result {
                last_lines: last_lines(&heard(running.errors.take())),
                ..failed(ENDLESS, message)
            }))
        }
        Some(status) => {
            let (output, errors) = (heard(running.output.take()), heard(running.errors.take()));
            if let Some(result) = output
                .lines()
                .last()
                .and_then(|line| serde_json::from_str(line).ok())
            {
                return Ok(Some(result));
            }
            // A panic while a panic unwinds ends the process at once: its words are on the standard error.
            let panic = errors.lines().find_map(|line| line.strip_prefix(PANIC_PREFIX));
            let result = match panic {
                Some(words) => failed("panic", words.to_owned()),
                None => failed("process-died", format!("{status}: {}", errors.trim())),
            };
            Ok(Some(Result {
                last_lines: last_lines(&errors),
                ..result
            }))
        }
    }
}

/// The last lines of its trace, where it has come to say them.
fn last_lines(errors: &str) -> Vec<String> {
    let lines = errors.lines().filter_map(|line| line.strip_prefix(LINE_PREFIX));
    lines.map(str::to_owned).collect()
}

/// All that was said, now that nobody says any more.
fn heard(listener: Option<JoinHandle<String>>) -> String {
    listener
        .and_then(|listener| listener.join().ok())
        .unwrap_or_default()
}
