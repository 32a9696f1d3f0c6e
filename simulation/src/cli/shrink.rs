//! Takes away from a scenario whatever its broken promise does not need.
//!
//! Delta debugging over the faults and the workers, then shorter and simpler, until nothing more can go. What is left
//! must break the same promise; where and when may differ.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use skerry_simulation::scenario::{Scenario, WorkerKind};

use super::pool::{self, Surroundings};
use super::{Choice, OneArgs, files};

/// Runs without an end help nobody; a usual one needs 30 to 100.
const RUNS_MAX: u32 = 400;
/// One worker less moves the draws of those that share its host: other seeds get a chance too.
const OTHER_SEEDS: u64 = 8;
/// The first fault happens at one of these times, the first that does.
const CALM_MS: [u64; 4] = [100, 500, 1_500, 3_000];
/// Times are not worth more precision.
const STEP_MS: u64 = 100;

pub(super) struct Shrinker<'a> {
    choice: &'a Choice,
    /// The promise that must stay broken.
    wanted: String,
    scenario: Scenario,
    runs: u32,
    file: PathBuf,
}

impl<'a> Shrinker<'a> {
    /// `None` where `scenario` keeps every promise.
    pub(super) fn new(scenario: Scenario, choice: &'a Choice) -> anyhow::Result<Option<Self>> {
        let file = std::env::temp_dir().join(format!("skerry-sim-shrink-{}.json", std::process::id()));
        let mut shrinker = Self {
            choice,
            wanted: String::new(),
            scenario: scenario.clone(),
            runs: 0,
            file,
        };
        let Some(check) = shrinker.broken(&scenario)?.into_iter().next() else {
            files::remove(&shrinker.file);
            return Ok(None);
        };
        shrinker.wanted = check;
        Ok(Some(shrinker))
    }

    /// The check that found it.
    pub(super) fn wanted(&self) -> &str {
        &self.wanted
    }

    /// The smallest scenario found, and the number of runs.
    pub(super) fn shrink(mut self) -> anyhow::Result<(Scenario, u32)> {
        loop {
            let before = self.scenario.clone();
            // First, because it makes every later run shorter.
            self.shorter()?;
            self.fewer(
                "faults",
                |scenario| scenario.faults.len(),
                |scenario, gone| remove(&mut scenario.faults, gone),
            )?;
            self.fewer(
                "workers",
                |scenario| scenario.workload.workers.len(),
                |scenario, gone| {
                    // Without topics nothing happens.
                    let workers = &mut scenario.workload.workers;
                    let setup = workers
                        .iter()
                        .find(|worker| worker.kind == WorkerKind::Setup)
                        .cloned();
                    remove(workers, gone);
                    if let Some(setup) = setup
                        && !workers.contains(&setup)
                    {
                        workers.insert(0, setup);
                    }
                },
            )?;
            self.simpler()?;
            self.earlier()?;
            if self.scenario == before || self.runs >= RUNS_MAX {
                break;
            }
        }
        files::remove(&self.file);
        Ok((self.scenario, self.runs))
    }

    /// Halves first, then single ones: what can go goes.
    fn fewer(
        &mut self,
        what: &str,
        count: impl Fn(&Scenario) -> usize,
        take_away: impl Fn(&mut Scenario, std::ops::Range<usize>),
    ) -> anyhow::Result<()> {
        let mut chunk = count(&self.scenario).div_ceil(2).max(1);
        loop {
            let mut start = 0;
            while start < count(&self.scenario) {
                let end = (start + chunk).min(count(&self.scenario));
                let gone = self.try_change(|scenario| take_away(scenario, start..end))?;
                if gone {
                    tell(&format!(
                        "  {} {what} are enough (run {})",
                        count(&self.scenario),
                        self.runs
                    ));
                } else {
                    start += chunk;
                }
            }
            if chunk == 1 {
                return Ok(());
            }
            chunk = chunk.div_ceil(2);
        }
    }

    /// Ends as early as it can.
    fn shorter(&mut self) -> anyhow::Result<()> {
        let (mut too_short, mut long_enough) = (0, self.scenario.faults_ms / STEP_MS);
        while too_short + 1 < long_enough {
            let steps = too_short.midpoint(long_enough);
            if self.try_change(|scenario| scenario.faults_ms = steps * STEP_MS)? {
                tell(&format!(
                    "  {} ms are enough (run {})",
                    steps * STEP_MS,
                    self.runs
                ));
                long_enough = steps;
            } else {
                too_short = steps;
            }
        }
        Ok(())
    }

    /// Nothing happens for as little time as it can before the first fault.
    fn earlier(&mut self) -> anyhow::Result<()> {
        for begins_ms in CALM_MS {
            let first_ms = self.scenario.faults.iter().map(|timed| timed.at_ms).min();
            let Some(sooner_ms) = first_ms.and_then(|first_ms| first_ms.checked_sub(begins_ms)) else {
                continue;
            };
            let moved = self.try_change(|scenario| {
                for timed in &mut scenario.faults {
                    timed.at_ms -= sooner_ms;
                }
                scenario.faults_ms = scenario.faults_ms.saturating_sub(sooner_ms);
            })?;
            if moved {
                tell(&format!("  {sooner_ms} ms earlier will do (run {})", self.runs));
                return Ok(());
            }
        }
        Ok(())
    }

    fn simpler(&mut self) -> anyhow::Result<()> {
        self.try_change(|scenario| {
            if scenario.nodes > 3 {
                (scenario.nodes, scenario.voters) = (3, 0);
            }
        })?;
        self.try_change(|scenario| scenario.buggify = false)?;
        self.try_change(|scenario| scenario.lulls = None)?;
        self.try_change(|scenario| scenario.cold_read_one_in = 0)?;
        self.try_change(|scenario| scenario.ends_with_power_cut = false)?;
        self.try_change(|scenario| scenario.tick_ms = 1)?;
        self.try_change(|scenario| scenario.latency_ms = (1, 3))?;
        Ok(())
    }

    /// True where the changed scenario is another one and still breaks the promise: it stays changed.
    fn try_change(&mut self, change: impl FnOnce(&mut Scenario)) -> anyhow::Result<bool> {
        let mut changed = self.scenario.clone();
        change(&mut changed);
        // What cannot be run breaks nothing: fewer nodes, where somebody is named who is not among them.
        if changed == self.scenario || changed.check().is_err() {
            return Ok(false);
        }
        let other_draws = changed.workload != self.scenario.workload;
        let others = 1..=if other_draws { OTHER_SEEDS } else { 0 };
        for seed in std::iter::once(changed.seed).chain(others) {
            changed.seed = seed;
            if self.runs >= RUNS_MAX {
                break;
            }
            if self.broken(&changed)?.contains(&self.wanted) {
                self.scenario = changed;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn broken(&mut self, scenario: &Scenario) -> anyhow::Result<Vec<String>> {
        self.runs += 1;
        self.show_progress(scenario);
        write(&self.file, scenario)?;
        let args = OneArgs {
            scenario: Some(self.file.display().to_string()),
            // The scenario says the rest.
            choice: Choice {
                plant: self.choice.plant.clone(),
                ..Choice::default()
            },
            ..OneArgs::default()
        };
        let result = pool::run_one(&args, &Surroundings::default())?;
        Ok(result
            .violations
            .into_iter()
            .map(|violation| violation.check)
            .collect())
    }
}

impl Shrinker<'_> {
    /// On a terminal: what is tried now.
    fn show_progress(&self, tried: &Scenario) {
        let mut error = std::io::stderr().lock();
        if error.is_terminal() {
            let (faults, workers) = (tried.faults.len(), tried.workload.workers.len());
            let (run, ms) = (self.runs, tried.faults_ms);
            let line = format!("run {run}: tries {faults} faults, {workers} workers, {ms} ms");
            // Nobody is helped by the news that a progress line cannot be written.
            let _ = write!(error, "\r{line}\x1b[K\r").and_then(|()| error.flush());
        }
    }
}

/// Says how far it is: what is left may go to the standard output, and be read by another program.
pub(super) fn tell(line: &str) {
    let mut error = std::io::stderr().lock();
    let end = if error.is_terminal() { "\x1b[K" } else { "" };
    // Nobody is helped by the news that a progress line cannot be written.
    let _ = writeln!(error, "{line}{end}");
}

fn remove<T>(from: &mut Vec<T>, gone: std::ops::Range<usize>) {
    let end = gone.end.min(from.len());
    from.drain(gone.start.min(end)..end);
}

/// Writes a scenario as those in `simulation/scenarios` are written.
pub(super) fn write(path: &Path, scenario: &Scenario) -> anyhow::Result<()> {
    let mut file = files::create(path)?;
    file.write_all(scenario.to_text().as_bytes())?;
    file.flush()?;
    Ok(())
}
