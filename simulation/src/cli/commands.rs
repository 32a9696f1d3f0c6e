//! What each command does.

use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use skerry_checker::history::History;
use skerry_simulation::goals;
use skerry_simulation::plants::{self, PLANTS};
use skerry_simulation::scenario::Scenario;

use super::one::{self, SCENARIOS};
use super::out::{self, say};
use super::pool::{self, Surroundings};
use super::report::{Progress, Summary, print_failure, print_success};
use super::shrink::{self, Shrinker};
use super::{Choice, Nodes, OneArgs, RunArgs, Seeds, files, html};

/// Failures shown in full; of the others only the seeds.
const FAILURES_SHOWN: usize = 3;

fn status(good: bool) -> ExitCode {
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What was chosen, as it is written.
fn chosen(choice: &Choice) -> String {
    let words = choice.arguments().into_iter().map(|word| format!(" {word}"));
    words.collect()
}

fn planting(choice: &Choice) -> String {
    choice
        .plant
        .as_ref()
        .map_or_else(String::new, |bug| format!(" --plant {bug}"))
}

fn again(args: &OneArgs) -> String {
    let keep = args.keep.as_ref().map_or_else(String::new, |keep| {
        let keep: Vec<_> = keep.iter().map(ToString::to_string).collect();
        format!(" --keep={}", keep.join(","))
    });
    format!(
        "skerry-sim replay {}{}{keep} --trace trace.txt --html timeline.html",
        args.seed,
        chosen(&args.choice)
    )
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let RunArgs { seeds, choice, .. } = args;
    let began = files::now();
    let mut summary = Summary::default();
    let mut progress = Progress::new(seeds.last - seeds.first + 1);
    let all = (seeds.first..=seeds.last).map(|seed| OneArgs {
        seed,
        choice: choice.clone(),
        ..OneArgs::default()
    });
    pool::run_all(all, args.jobs.unwrap_or_else(pool::default_jobs), |result| {
        summary.add(&result);
        if !result.violations.is_empty() && summary.failed.len() <= FAILURES_SHOWN {
            let args = OneArgs {
                seed: result.seed,
                choice: choice.clone(),
                ..OneArgs::default()
            };
            print_failure(&result, &again(&args));
        }
        progress.show(&summary, began.elapsed());
        true
    })?;
    summary.print(began.elapsed());
    let nodes = choice.nodes.map_or(1, |nodes| nodes.0);
    let goals = summary.goals(nodes);
    goals.print(args.goals);
    let lacks_goals = args.every_goal && goals.never().next().is_some();
    Ok(status(summary.failed.is_empty() && !lacks_goals))
}

pub(super) fn replay(args: &OneArgs, timeline: Option<&Path>) -> anyhow::Result<ExitCode> {
    let scenario = one::scenario(args)?;
    for (index, timed) in scenario.faults.iter().enumerate() {
        let whom = match scenario.nodes {
            1 => String::new(),
            _ => format!("{}: ", timed.on),
        };
        say!("fault {index} at {:>6} ms: {whom}{:?}", timed.at_ms, timed.fault);
    }
    let mut args = args.clone();
    let temporary = std::env::temp_dir().join(format!("skerry-sim-trace-{}", std::process::id()));
    if timeline.is_some() && args.trace.is_none() {
        args.trace = Some(temporary.clone());
    }
    let result = pool::run_one(&args, Surroundings::default())?;
    if let (Some(path), Some(trace)) = (timeline, &args.trace) {
        html::write(path, trace, &scenario, &result)?;
        say!("timeline: {}", path.display());
    }
    if args.trace.as_ref() == Some(&temporary) {
        files::remove(&temporary);
    } else if let Some(trace) = &args.trace {
        say!("trace: {}", trace.display());
    }
    if result.violations.is_empty() {
        print_success(&result);
    } else {
        print_failure(&result, &again(&args));
    }
    Ok(status(result.violations.is_empty()))
}

pub(super) fn determinism(seeds: Seeds, choice: &Choice) -> anyhow::Result<ExitCode> {
    let id = std::process::id();
    let paths: [PathBuf; 2] =
        [1, 2].map(|number| std::env::temp_dir().join(format!("skerry-sim-determinism-{id}-{number}")));
    let root = Path::new("/");
    let other = Surroundings {
        dir: Some(root),
        variables: &[
            ("LANG", "C"),
            ("SKERRY_SIM_ELSEWHERE", "yes"),
            ("TZ", "Asia/Tokyo"),
        ],
    };
    let mut differ = 0;
    for seed in seeds.first..=seeds.last {
        let mut hashes = Vec::new();
        for (path, surroundings) in paths.iter().zip([Surroundings::default(), other]) {
            let args = OneArgs {
                seed,
                trace: Some(path.clone()),
                choice: choice.clone(),
                ..OneArgs::default()
            };
            hashes.push(pool::run_one(&args, surroundings)?.hash);
        }
        match first_difference(&paths[0], &paths[1])? {
            None if hashes[0] == hashes[1] && !hashes[0].is_empty() => {
                say!("seed {seed}: the same trace twice ({})", hashes[0]);
            }
            None => {
                differ += 1;
                say!(
                    "seed {seed}: the same lines, and {} is not {}",
                    hashes[0],
                    hashes[1]
                );
            }
            Some((number, one, two)) => {
                differ += 1;
                say!("seed {seed} DIFFERS from line {number} on:\n  one: {one}\n  two: {two}");
            }
        }
    }
    for path in &paths {
        files::remove(path);
    }
    say!("{} seeds, {differ} differ", seeds.last - seeds.first + 1);
    Ok(status(differ == 0))
}

fn first_difference(one: &Path, two: &Path) -> anyhow::Result<Option<(usize, String, String)>> {
    let (mut one, mut two) = (files::open(one)?.lines(), files::open(two)?.lines());
    for number in 1.. {
        let end = || "(its end)".to_owned();
        let pair = (one.next().transpose()?, two.next().transpose()?);
        match pair {
            (None, None) => break,
            (first, second) if first != second => {
                return Ok(Some((
                    number,
                    first.unwrap_or_else(end),
                    second.unwrap_or_else(end),
                )));
            }
            _ => {}
        }
    }
    Ok(None)
}

pub(super) fn shrink(what: &str, out: Option<&Path>, choice: &Choice) -> anyhow::Result<ExitCode> {
    let scenario = one::scenario(&named(what, choice))?;
    let Some(shrinker) = Shrinker::new(scenario.clone(), choice)? else {
        say!("{what} keeps every promise: there is nothing to shrink");
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = shrinker.wanted().to_owned();
    say!(
        "{what} breaks {wanted} with {} faults, {} workers, in {} ms",
        scenario.faults.len(),
        scenario.workload.workers.len(),
        scenario.faults_ms
    );
    let (small, runs) = shrinker.shrink()?;
    say!(
        "{wanted} needs {} of {} faults, {} of {} workers, {} of {} ms ({runs} runs)",
        small.faults.len(),
        scenario.faults.len(),
        small.workload.workers.len(),
        scenario.workload.workers.len(),
        small.faults_ms,
        scenario.faults_ms
    );
    match out {
        None => out::write(format_args!("{}", small.to_text())),
        Some(path) => {
            shrink::write(path, &small)?;
            say!(
                "see it again:  skerry-sim scenario run {}{} --trace trace.txt",
                path.display(),
                planting(choice)
            );
        }
    }
    Ok(ExitCode::FAILURE)
}

/// A seed, or a scenario's name or file.
fn named(what: &str, choice: &Choice) -> OneArgs {
    match what.parse() {
        Ok(seed) => OneArgs {
            seed,
            choice: choice.clone(),
            ..OneArgs::default()
        },
        Err(_) => OneArgs {
            scenario: Some(what.to_owned()),
            choice: Choice {
                nodes: None,
                ..choice.clone()
            },
            ..OneArgs::default()
        },
    }
}

pub(super) fn show_scenario(what: &str, choice: &Choice) -> anyhow::Result<ExitCode> {
    out::write(format_args!("{}", one::scenario(&named(what, choice))?.to_text()));
    Ok(ExitCode::SUCCESS)
}

pub(super) fn list_plants() -> anyhow::Result<ExitCode> {
    for plant in PLANTS {
        say!("{:<32} {}", plant.name, plant.mistake);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn plant(
    name: Option<&str>,
    budget: Option<u64>,
    jobs: Option<usize>,
) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        cfg!(debug_assertions),
        "bugs cannot be planted in a release build: build without --release"
    );
    let wanted: Vec<&plants::Planted> = match name {
        None => PLANTS.iter().collect(),
        Some(name) => {
            let found = PLANTS.iter().find(|plant| plant.name == name);
            vec![found.with_context(|| {
                format!("no bug is called {name}; `skerry-sim plant --list` has the names")
            })?]
        }
    };
    say!("{:<32} {:>6}  {:<30} seconds", "bug", "seeds", "caught by");
    let mut missed = Vec::new();
    let mut needed = Vec::new();
    for plant in wanted {
        let began = files::now();
        let budget = budget.unwrap_or(plant.budget);
        let with = Choice {
            plant: Some(plant.name.to_owned()),
            nodes: plant.nodes.map(Nodes),
            ..Choice::default()
        };
        // Seed 0 is the scenario's own.
        let first = u64::from(plant.scenario.is_none());
        let own = match plant.scenario {
            Some(name) => Some(one::scenario(&named(name, &with))?.seed),
            None => None,
        };
        let all = (first..first + budget).map(|seed| OneArgs {
            seed,
            scenario: plant.scenario.map(str::to_owned),
            choice: with.clone(),
            ..OneArgs::default()
        });
        let mut found: Option<(u64, String)> = None;
        pool::run_all(all, jobs.unwrap_or_else(pool::default_jobs), |result| {
            // Seeds that ran at the same time: the smallest counts.
            let tries = if own == Some(result.seed) {
                1
            } else {
                result.seed + 1 - first
            };
            if let Some(violation) = result.violations.first()
                && found.as_ref().is_none_or(|(fewest, _)| tries < *fewest)
            {
                found = Some((tries, violation.check.clone()));
            }
            found.is_none()
        })?;
        let seconds = began.elapsed().as_secs_f64();
        match found {
            Some((seed, check)) => {
                needed.push(seed);
                say!("{:<32} {seed:>6}  {check:<30} {seconds:.0}", plant.name);
            }
            None => {
                missed.push(plant.name);
                say!(
                    "{:<32} {:>6}  {:<30} {seconds:.0}",
                    plant.name,
                    "-",
                    format!("NOT FOUND in {budget} seeds")
                );
            }
        }
    }
    needed.sort_unstable();
    let median = needed.get(needed.len() / 2).copied().unwrap_or(0);
    say!(
        "{} found, {} missed; median {median} seeds",
        needed.len(),
        missed.len()
    );
    Ok(status(missed.is_empty()))
}

pub(super) fn check(path: &Path) -> anyhow::Result<ExitCode> {
    let history = History::read(&mut *files::open(path)?).with_context(|| path.display().to_string())?;
    let began = files::now();
    let violations = skerry_checker::check(&history);
    for violation in &violations {
        say!("{violation}");
    }
    let counts = history.counts();
    let operations: u64 = counts.values().map(|(asked, _)| asked).sum();
    say!(
        "{operations} operations, {} broken promises, judged in {:.2} s",
        violations.len(),
        began.elapsed().as_secs_f64()
    );
    Ok(status(violations.is_empty()))
}

pub(super) fn list_scenarios() -> anyhow::Result<ExitCode> {
    for (name, text) in SCENARIOS {
        let scenario: Scenario =
            serde_json::from_str(text).with_context(|| format!("{name} is no scenario"))?;
        say!("{name:<20} {}", scenario.about);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn run_scenario(
    name: String,
    seed: Option<u64>,
    trace: Option<PathBuf>,
    choice: Choice,
) -> anyhow::Result<ExitCode> {
    let args = OneArgs {
        seed: seed.unwrap_or(0),
        scenario: Some(name.clone()),
        trace,
        choice,
        ..OneArgs::default()
    };
    // A wrong name is told here, not by a child.
    let scenario = one::scenario(&args)?;
    if let Some(unknown) = scenario.reaches.iter().find(|goal| goals::find(goal).is_none()) {
        anyhow::bail!(
            "{name} wants to reach {unknown:?}, which is no goal: `skerry-sim run --goals` lists them"
        );
    }
    let result = pool::run_one(&args, Surroundings::default())?;
    if result.violations.is_empty() {
        print_success(&result);
        let lacking: Vec<_> = scenario
            .reaches
            .iter()
            .filter(|goal| !result.goals.contains_key(*goal))
            .collect();
        for goal in &lacking {
            say!("  it does not come to {goal}, and shows nothing: another --seed may");
        }
    } else {
        print_failure(
            &result,
            &format!(
                "skerry-sim scenario run {name} --seed {}{} --trace trace.txt",
                result.seed,
                chosen(&args.choice)
            ),
        );
    }
    Ok(status(result.violations.is_empty()))
}
