//! What each command does.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use skerry_checker::history::History;
use skerry_simulation::scenario::Scenario;
use skerry_simulation::story::{Story, What, describe};

use super::one::{self, SCENARIOS};
use super::out::{self, say};
use super::pool::{self, Surroundings};
use super::report::{Progress, Summary, print_success};
use super::shrink::{self, Shrinker};
use super::{Choice, Jobs, Nodes, OneArgs, RunArgs, Seeds, failure, files, html};

/// Failures shown in full; of the others only the seeds.
const FAILURES_SHOWN: usize = 3;
/// Seeds that get a line each where there is nothing to say of them.
const SEEDS_NAMED: u64 = 10;

pub(super) fn status(good: bool) -> ExitCode {
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

/// The commands that show it again, and make it small.
fn again(args: &OneArgs) -> Vec<String> {
    let keep = args.keep.as_ref().map_or_else(String::new, |keep| {
        let keep: Vec<_> = keep.iter().map(ToString::to_string).collect();
        format!(" --keep={}", keep.join(","))
    });
    let chosen = chosen(&args.choice);
    let (what, shrinks) = match &args.scenario {
        Some(name) if args.seed == 0 => (format!("scenario run {name}"), name.clone()),
        Some(name) => {
            let what = format!("{name} --seed {}", args.seed);
            (format!("scenario run {what}"), what)
        }
        None => (format!("replay {}", args.seed), args.seed.to_string()),
    };
    vec![
        format!("skerry-sim {what}{chosen}{keep} --trace trace.txt --html timeline.html"),
        format!("skerry-sim shrink {shrinks}{chosen}"),
    ]
}

/// Runs one simulation and has its story told.
fn told(args: &OneArgs) -> anyhow::Result<(one::Result, Option<Story>)> {
    let path = std::env::temp_dir().join(format!("skerry-sim-story-{}", std::process::id()));
    let args = OneArgs {
        story: Some(path.clone()),
        ..args.clone()
    };
    let result = pool::run_one(&args, &Surroundings::default())?;
    // A process that died has told nothing.
    let text = files::read_text(&path).unwrap_or_default();
    files::remove(&path);
    let mut story = serde_json::from_str(&text).ok();
    if let (Some(story), Some(keep)) = (&mut story, &args.keep) {
        number_as_kept(story, keep);
    }
    Ok((result, story))
}

/// Faults have the numbers that `--keep` names them by.
fn number_as_kept(story: &mut Story, keep: &[usize]) {
    let kept: BTreeSet<usize> = keep.iter().copied().collect();
    for moment in &mut story.moments {
        if let What::Fault { number, .. } = &mut moment.what {
            *number = kept.iter().nth(*number).copied().unwrap_or(*number);
        }
    }
}

/// Says of a seed that has failed what there is to say: it is run again, with somebody who looks; but not where it would
/// only be waited for again.
fn show_failure(result: &one::Result, args: &OneArgs) -> anyhow::Result<()> {
    if pool::is_endless(result) {
        failure::print(result, None, &again(args));
        return Ok(());
    }
    let (second, story) = told(args)?;
    if second.violations.first() != result.violations.first() {
        say!(
            "\nseed {0} DOES NOT BREAK AGAIN in the same way: `skerry-sim determinism --seeds {0}{1}` says where it \
             differs",
            result.seed,
            chosen(&args.choice)
        );
    }
    failure::print(result, story.as_ref(), &again(args));
    Ok(())
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<ExitCode> {
    let RunArgs { seeds, choice, .. } = args;
    let began = files::now();
    let mut summary = Summary::default();
    let count = seeds.last - seeds.first + 1;
    let mut progress = Progress::new(count);
    let all = (seeds.first..=seeds.last).map(|seed| OneArgs {
        seed,
        choice: choice.clone(),
        ..OneArgs::default()
    });
    // What cannot be asked for together is told before anything runs.
    if let Some(first) = all.clone().next() {
        one::scenario(&first)?;
    }
    let mut trouble = Ok(());
    pool::run_all(all, args.jobs.count(), |result| {
        summary.add(&result);
        if !result.violations.is_empty() && summary.failed.len() <= FAILURES_SHOWN {
            let args = OneArgs {
                seed: result.seed,
                choice: choice.clone(),
                ..OneArgs::default()
            };
            progress.clear();
            trouble = show_failure(&result, &args);
        }
        progress.show(&summary, began.elapsed());
        trouble.is_ok()
    })?;
    trouble?;
    anyhow::ensure!(
        summary.seeds == count,
        "only {} of {count} seeds have run",
        summary.seeds
    );
    summary.print(began.elapsed());
    let nodes = choice.nodes.map_or(1, |nodes| nodes.0);
    let goals = summary.goals(nodes);
    goals.print(args.goals);
    if args.goals {
        summary.print_met();
    }
    let lacks_goals = args.every_goal && goals.never().next().is_some();
    Ok(status(summary.failed.is_empty() && !lacks_goals))
}

pub(super) fn replay(args: &OneArgs, timeline: Option<&Path>) -> anyhow::Result<ExitCode> {
    let scenario = one::scenario(args)?;
    make_files(args, timeline)?;
    let all = one::scenario(&OneArgs {
        keep: None,
        ..args.clone()
    })?;
    let is_kept = |index: &usize| args.keep.as_ref().is_none_or(|keep| keep.contains(index));
    for (index, timed) in all.faults.iter().enumerate().filter(|(index, _)| is_kept(index)) {
        let whom = match scenario.nodes {
            1 => String::new(),
            _ => format!("{}: ", timed.on),
        };
        say!(
            "fault {index:<2} at {:>6} ms: {whom}{}",
            timed.at_ms,
            describe(&timed.fault).text
        );
    }
    show(args, &scenario, timeline)
}

/// Makes the files that are asked for, empty: a path that cannot be written is told before anything runs.
fn make_files(args: &OneArgs, timeline: Option<&Path>) -> anyhow::Result<()> {
    let paths = [args.trace.as_deref(), args.history.as_deref(), timeline];
    for path in paths.into_iter().flatten() {
        files::create(path)?;
    }
    Ok(())
}

/// Runs one simulation, and says and draws what happened.
fn show(args: &OneArgs, scenario: &Scenario, timeline: Option<&Path>) -> anyhow::Result<ExitCode> {
    let (result, story) = told(args)?;
    let is_kept = result.violations.is_empty();
    let reaches = scenario.reaches.iter();
    let lacking: Vec<_> = reaches.filter(|goal| !result.goals.contains_key(*goal)).collect();
    if is_kept {
        print_success(&result);
        for goal in &lacking {
            say!("  it does not come to {goal}, and shows nothing: another --seed may");
        }
    } else {
        failure::print(&result, story.as_ref(), &again(args));
    }
    match (timeline, &story) {
        (Some(path), Some(story)) => {
            html::write(path, story, scenario, &result, &again(args))?;
            say!("timeline: {}", path.display());
        }
        (Some(path), None) => say!(
            "no timeline in {}: the process died, and has told nothing",
            path.display()
        ),
        (None, _) => {}
    }
    if let Some(trace) = &args.trace {
        say!("trace: {}", trace.display());
    }
    Ok(status(is_kept && lacking.is_empty()))
}

/// The surroundings of the second run. The variables that the C library reads give the heap another shape, and their
/// length moves the stack, also where the kernel does not draw addresses.
fn elsewhere(long: &str) -> Surroundings<'_> {
    Surroundings {
        dir: Some(Path::new("/")),
        variables: vec![
            ("LANG", "C"),
            ("HOME", "/nowhere"),
            ("TZ", "Asia/Tokyo"),
            ("SKERRY_SIM_ELSEWHERE", long),
            ("MALLOC_MMAP_THRESHOLD_", "16384"),
            ("MALLOC_TOP_PAD_", "1048576"),
        ],
        halts: true,
    }
}

pub(super) fn determinism(seeds: Seeds, jobs: Jobs, choice: &Choice) -> anyhow::Result<ExitCode> {
    let began = files::now();
    let long = "x".repeat(5_000);
    let both = [Surroundings::default(), elsewhere(&long)];
    let count = seeds.last - seeds.first + 1;
    let mut progress = Progress::new(count * 2);
    let args = |seed: u64, trace: &Path| OneArgs {
        seed,
        trace: Some(trace.to_owned()),
        choice: choice.clone(),
        ..OneArgs::default()
    };
    // Each line is made, and is in the sum over all; none is kept.
    let nowhere = Path::new("/dev/null");
    let mut found: BTreeMap<u64, Vec<one::Result>> = BTreeMap::new();
    let mut done = 0;
    for surroundings in &both {
        let all = (seeds.first..=seeds.last).map(|seed| args(seed, nowhere));
        pool::run_in(all, surroundings, jobs.count(), |result| {
            done += 1;
            let runs = found.entry(result.seed).or_default();
            runs.push(result);
            progress.line(done, &format!("{done} of {} runs", count * 2), began.elapsed());
            true
        })?;
    }
    let (mut differ, mut elsewhere) = (0, 0);
    for (seed, runs) in &found {
        let [one, two] = runs.as_slice() else {
            anyhow::bail!("seed {seed} did not run twice");
        };
        elsewhere += u64::from(one.layout != two.layout);
        if one.in_common()? == two.in_common()? && !one.hash.is_empty() {
            if count <= SEEDS_NAMED {
                say!(
                    "seed {seed}: the same trace ({}), history ({}) and result twice",
                    one.hash,
                    one.history
                );
            }
        } else {
            differ += 1;
            tell_difference(*seed, &both, args)?;
        }
    }
    say!(
        "{count} seeds, {differ} differ; the two processes lay at other addresses in {elsewhere} of {count} | {:.0} s",
        began.elapsed().as_secs_f64()
    );
    Ok(status(differ == 0 && elsewhere > 0))
}

/// Runs a seed twice again, and says in which line the traces part.
fn tell_difference(
    seed: u64,
    both: &[Surroundings<'_>; 2],
    args: impl Fn(u64, &Path) -> OneArgs,
) -> anyhow::Result<()> {
    let id = std::process::id();
    let paths: [PathBuf; 2] =
        [1, 2].map(|number| std::env::temp_dir().join(format!("skerry-sim-determinism-{id}-{number}")));
    for (path, surroundings) in paths.iter().zip(both) {
        pool::run_one(&args(seed, path), surroundings)?;
    }
    match first_difference(&paths[0], &paths[1])? {
        Some((number, one, two)) => {
            say!("seed {seed} DIFFERS from line {number} on:\n  one: {one}\n  two: {two}");
        }
        None => say!("seed {seed} DIFFERS, but not when it was run twice again"),
    }
    for path in &paths {
        files::remove(path);
    }
    Ok(())
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

/// Only what is left goes to the standard output: it may be a file.
pub(super) fn shrink(
    what: &str,
    seed: Option<u64>,
    out: Option<&Path>,
    choice: &Choice,
) -> anyhow::Result<ExitCode> {
    let mut args = named(what, choice);
    if let Some(seed) = seed {
        anyhow::ensure!(
            args.scenario.is_some(),
            "--seed {seed}: {what} is a seed itself; only scenarios take another one"
        );
        args.seed = seed;
    }
    let scenario = one::scenario(&args)?;
    if let Some(path) = out {
        // A path that cannot be written is told before anything runs.
        files::create(path)?;
    }
    let Some(shrinker) = Shrinker::new(scenario.clone(), choice)? else {
        shrink::tell(&format!("{what} keeps every promise: there is nothing to shrink"));
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = shrinker.wanted().to_owned();
    shrink::tell(&format!(
        "{what} breaks {wanted} with {} faults, {} workers, in {} ms",
        scenario.faults.len(),
        scenario.workload.workers.len(),
        scenario.faults_ms
    ));
    let (small, runs) = shrinker.shrink()?;
    shrink::tell(&format!(
        "{wanted} needs {} of {} faults, {} of {} workers, {} of {} ms ({runs} runs)",
        small.faults.len(),
        scenario.faults.len(),
        small.workload.workers.len(),
        scenario.workload.workers.len(),
        small.faults_ms,
        scenario.faults_ms
    ));
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
    let args = OneArgs {
        choice: choice.clone(),
        ..OneArgs::default()
    };
    match what.parse() {
        Ok(seed) => OneArgs { seed, ..args },
        Err(_) => OneArgs {
            scenario: Some(what.to_owned()),
            ..args
        },
    }
}

pub(super) fn show_scenario(what: &str, choice: &Choice) -> anyhow::Result<ExitCode> {
    out::write(format_args!("{}", one::scenario(&named(what, choice))?.to_text()));
    Ok(ExitCode::SUCCESS)
}

/// Simulated seconds for each second of one processor.
pub(super) fn bench(seeds: u64) -> anyhow::Result<ExitCode> {
    say!("nodes  voters  seeds  simulated s  processor s  simulated s / processor s");
    for (nodes, voters) in [(1, 1), (3, 3), (5, 3), (5, 5)] {
        let choice = Choice {
            nodes: Some(Nodes(nodes)),
            ..Choice::default()
        };
        let of = |seed| OneArgs {
            seed,
            choice: choice.clone(),
            ..OneArgs::default()
        };
        let votes = |args: &OneArgs| {
            let drawn = one::scenario(args).map_or(0, |scenario| scenario.voters);
            (if drawn == 0 { nodes } else { drawn }) == voters
        };
        let all = (1..).map(of).filter(votes).take(usize::try_from(seeds)?);
        let (mut simulated_ms, mut processor_ms, mut broken) = (0, 0, Vec::new());
        pool::run_all(all, 1, |result| {
            simulated_ms += result.sim_ms;
            processor_ms += result.processor_ms;
            if !result.violations.is_empty() {
                broken.push(result.seed.to_string());
            }
            true
        })?;
        if let Some(first) = broken.first() {
            anyhow::bail!(
                "these seeds break a promise: {}; `skerry-sim replay {first} --nodes {nodes}` shows how",
                broken.join(" ")
            );
        }
        say!(
            "{nodes:>5}  {voters:>6}  {seeds:>5}  {:>11.1}  {:>11.2}  {:>25.1}",
            simulated_ms as f64 / 1e3,
            processor_ms as f64 / 1e3,
            simulated_ms as f64 / processor_ms.max(1) as f64
        );
    }
    Ok(ExitCode::SUCCESS)
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
    timeline: Option<PathBuf>,
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
    make_files(&args, timeline.as_deref())?;
    show(&args, &scenario, timeline.as_deref())
}
