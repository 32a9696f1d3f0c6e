//! One simulation, in this process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use skerry_checker::history::History;
use skerry_simulation::disk;
use skerry_simulation::scenario::Scenario;
use skerry_simulation::trace::{Detail, SimTime, Trace, fnv_of};
use skerry_simulation::world::{self, LINE_PREFIX};

use super::out::say;
use super::{Nodes, OneArgs, files, plant};

/// The versions of all that this program is made of.
const LOCKFILE: &[u8] = include_bytes!("../../../Cargo.lock");
/// Lines before the end that a failure shows.
const LAST_LINES: usize = 24;
/// A pipe holds what a child says at its end; and nobody reads more.
const VIOLATIONS_MAX: usize = 40;

/// What a child tells its parent: one line of JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Result {
    pub(super) seed: u64,
    pub(super) hash: String,
    /// One number over the history of what clients did and heard, where the whole trace was asked for.
    #[serde(default)]
    pub(super) history: String,
    pub(super) sim_ms: u64,
    pub(super) starts: u64,
    pub(super) answers_checked: u64,
    /// Operations asked for, and those that succeeded, by kind.
    pub(super) operations: BTreeMap<String, (u64, u64)>,
    pub(super) faults: BTreeMap<String, u64>,
    /// How often faults met operations that were under way, by the kinds of both.
    #[serde(default)]
    pub(super) met: BTreeMap<String, BTreeMap<String, u64>>,
    /// What was seen to happen in a cluster, by kind.
    #[serde(default)]
    pub(super) seen: BTreeMap<String, u64>,
    /// Goals reached, and how often.
    #[serde(default)]
    pub(super) goals: BTreeMap<String, u64>,
    /// What it cost, in milliseconds of a processor.
    #[serde(default)]
    pub(super) processor_ms: u64,
    /// Where its process lay in memory: another place for each, unless the kernel was told otherwise.
    #[serde(default)]
    pub(super) layout: String,
    pub(super) violations: Vec<Broken>,
    pub(super) last_lines: Vec<String>,
}

impl Result {
    /// All that two runs of a seed must have in common: everything but where and how fast they ran.
    pub(super) fn in_common(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string(&Self {
            processor_ms: 0,
            layout: String::new(),
            ..self.clone()
        })?)
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Broken {
    /// Microseconds; 0: found when everything was over.
    pub(super) at: u64,
    pub(super) check: String,
    pub(super) message: String,
}

macro_rules! scenarios {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../scenarios/", $name, ".json")))),+]
    };
}

/// The scenarios that come with the program.
pub(super) const SCENARIOS: [(&str, &str); 66] = scenarios![
    "three-power-cuts",
    "fsyncgate",
    "disk-full",
    "kill-loop",
    "late-answers",
    "partial-write",
    "new-topic",
    "overtaken-batch",
    "within-a-batch",
    "kip-101-a",
    "kip-101-b",
    "kip-101-c",
    "kip-101-d",
    "kip-101-e",
    "kip-101-f",
    "kip-101-g",
    "kip-279",
    "kip-320",
    "kip-903",
    "kip-966",
    "quorum-shift",
    "full-leader",
    "filled-by-producers",
    "deleted-for-good",
    "deleted-on-all",
    "sent-again-after-compaction",
    "moves",
    "moved-leader",
    "lost-copy",
    "rot-of-all-copies",
    "in-sync-copies-lost",
    "lying-syncs",
    "lost-middle",
    "wiped-majority",
    "lying-voter",
    "silent-leader",
    "stale-leader",
    "made-again",
    "jumping-clock",
    "given-up-move",
    "retry-across-leaders",
    "deaf-nodes",
    "rebalance-and-commit",
    "rolling-restart-twice",
    "fsync-of-leaders",
    "recreated-topics",
    "long-outage",
    "lost-snapshot",
    "old-high-watermark",
    "membership-squeeze",
    "read-flips",
    "misdirected-write",
    "bad-sector",
    "metadata-sync-fails",
    "metadata-rot",
    "rotten-alone",
    "deleted-and-sent-again",
    "set-aside-twice",
    "damaged-batches",
    "swapped-disks",
    "wiped-voter",
    "removed-voter",
    "half-change",
    "late-proposal",
    "forgotten-broker",
    "deaf-broker",
];

/// The scenario that the arguments name.
pub(super) fn scenario(args: &OneArgs) -> anyhow::Result<Scenario> {
    if args.scenario.is_some() && args.choice.nodes.is_some() {
        anyhow::bail!(
            "--nodes: a scenario says itself how many nodes there are (\"nodes\"); only seeds are told"
        );
    }
    let is_alone = matches!(args.choice.nodes, None | Some(Nodes(1)));
    if args.scenario.is_none() && is_alone && args.choice.regime.is_some() {
        anyhow::bail!("--regime: of clusters alone; --nodes 3, 5 or any goes with it");
    }
    let scenario = match &args.scenario {
        None => match args.choice.nodes {
            None | Some(Nodes(1)) => Scenario::draw(args.seed),
            Some(Nodes(count)) => Scenario::draw_cluster_in(args.seed, count, args.choice.regime),
        },
        Some(name) => {
            let known = SCENARIOS.iter().find(|(known, _)| known == name);
            let text = match known {
                Some((_, text)) => (*text).to_owned(),
                None => files::read_text(Path::new(name)).with_context(|| {
                    format!("{name:?} is no scenario that `skerry-sim scenario list` names, and no file")
                })?,
            };
            let mut scenario: Scenario =
                serde_json::from_str(&text).with_context(|| format!("{name} is no scenario"))?;
            if args.seed != 0 {
                scenario.seed = args.seed;
            }
            match args.choice.regime {
                Some(regime) => scenario.in_regime(regime),
                None => scenario,
            }
        }
    };
    let scenario = match args.choice.seconds {
        Some(seconds) => scenario.lasting(seconds * 1_000),
        None => scenario,
    };
    let scenario = args.choice.limit(scenario);
    scenario.check().map_err(|why| match &args.scenario {
        Some(name) => anyhow::anyhow!("{name}: {why}"),
        None => anyhow::anyhow!("seed {}: {why}", args.seed),
    })?;
    if let Some(bug) = &args.choice.plant {
        plant::find(bug).context("--plant")?;
    }
    let Some(keep) = &args.keep else {
        return Ok(scenario);
    };
    let count = scenario.faults.len();
    if let Some(beyond) = keep.iter().find(|index| **index >= count) {
        anyhow::bail!(
            "--keep {beyond}: there are {count} faults, 0 the first; without --keep they are listed"
        );
    }
    Ok(scenario.keeping(keep))
}

pub(super) fn run(args: &OneArgs) -> anyhow::Result<ExitCode> {
    let scenario = scenario(args)?;
    if let Some(bug) = &args.choice.plant {
        skerry_types::plant(bug);
    }
    let trace = match &args.trace {
        Some(path) => Trace::new(SimTime::default(), Detail::Everything, Some(files::create(path)?)),
        None => Trace::new(SimTime::default(), Detail::Events, None),
    };
    if args.is_held {
        let trace = trace.clone();
        files::end_when_input_does(move |errors| {
            let lines = trace.last_lines(LAST_LINES);
            trace.flush();
            for line in lines {
                // Whoever has held it may be gone.
                let _ = writeln!(errors, "{LINE_PREFIX}{line}");
            }
            disk::remove_all_of_this_process();
        });
    }
    // Another program may take another way: this says which one it was.
    trace.event(
        "world",
        format_args!("seed {}, Cargo.lock {:016x}", scenario.seed, fnv_of(LOCKFILE)),
    );
    skerry_types::count_goals();
    let mut report = world::run(&scenario, trace.clone(), args.story.is_some(), &args.until);
    if let (Some(path), Some(story)) = (&args.story, &report.story) {
        let mut out = files::create(path)?;
        serde_json::to_writer(&mut out, story)?;
        out.flush()?;
    }
    if let Some(path) = &args.history {
        report.history.write(&mut *files::create(path)?)?;
    }
    if !args.until.is_empty() {
        // What was wanted must not be crowded out.
        let mut told = BTreeSet::new();
        report
            .violations
            .retain(|(_, violation)| told.insert(violation.check));
    }
    let operations = report.history.counts();
    let result = Result {
        seed: scenario.seed,
        hash: format!("{:016x}", report.hash),
        history: match &args.trace {
            Some(_) => hash_of(&report.history)?,
            None => String::new(),
        },
        sim_ms: report.sim_ms,
        starts: report.starts,
        answers_checked: report.answers_checked,
        operations: named(operations),
        faults: named(report.faults),
        met: named(
            report
                .met
                .into_iter()
                .map(|(fault, met)| (fault, named(met)))
                .collect(),
        ),
        goals: named(skerry_types::goals_reached()),
        seen: named(report.seen),
        processor_ms: files::processor_ms(),
        layout: files::layout(),
        last_lines: if report.violations.is_empty() {
            Vec::new()
        } else {
            trace.last_lines(LAST_LINES)
        },
        violations: report
            .violations
            .into_iter()
            .take(VIOLATIONS_MAX)
            .map(|(at, violation)| Broken {
                at,
                check: violation.check.to_owned(),
                message: violation.message,
            })
            .collect(),
    };
    say!("{}", serde_json::to_string(&result)?);
    Ok(ExitCode::SUCCESS)
}

fn hash_of(history: &History) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    history.write(&mut lines)?;
    Ok(format!("{:016x}", fnv_of(&lines)))
}

/// With names that JSON can be read back into.
fn named<T>(counts: BTreeMap<&'static str, T>) -> BTreeMap<String, T> {
    counts
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "reads the source of the workspace")]

    use std::collections::BTreeSet;
    use std::path::Path;

    use skerry_simulation::{checks, plants};

    use super::{SCENARIOS, Scenario};

    /// `to_text` names each field by itself: a new one that is left out there is lost when it is shown or shrunk.
    #[test]
    fn every_scenario_is_written_as_it_was_read() {
        for (name, text) in SCENARIOS {
            let scenario: Scenario = serde_json::from_str(text).expect(name);
            assert_eq!(scenario.check(), Ok(()), "{name}");
            let again: Scenario = serde_json::from_str(&scenario.to_text()).expect(name);
            assert_eq!(again, scenario, "{name}");
        }
    }

    #[test]
    fn every_file_of_a_scenario_comes_with_the_program() {
        let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
        let files = std::fs::read_dir(dir).unwrap().map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.trim_end_matches(".json").to_owned()
        });
        let known: BTreeSet<String> = SCENARIOS.iter().map(|(name, _)| (*name).to_owned()).collect();
        assert_eq!(files.collect::<BTreeSet<_>>(), known);
    }

    #[test]
    fn the_manual_has_a_row_for_each_scenario() {
        let manual = include_str!("../../README.md");
        let (_, rows) = manual
            .split_once("| scenario | what happens |")
            .expect("the table");
        let rows = rows.split_once("\n\n").map_or(rows, |(rows, _)| rows);
        for (name, _) in SCENARIOS {
            assert_eq!(rows.matches(&format!("\n| `{name}` |")).count(), 1, "{name}");
        }
    }

    /// A scenario, a check, a planted bug, or a test of the file that is named before it.
    #[test]
    fn the_track_record_names_what_shows_each_bug_and_the_commit_that_mends_it() {
        let (_, section) = include_str!("../../README.md")
            .split_once("## Track record")
            .expect("the section");
        let (section, _) = section.split_once("\n## ").expect("another section");
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let mut rows = 0;
        for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            assert_eq!(
                cells.len(),
                6,
                "what, by which seed, what shows it, the commit: {row}"
            );
            let (shown, commit) = (cells[3], cells[4]);
            assert!(commit.len() == 7 && commit.bytes().all(is_hex), "{row}");
            assert!(!shown.is_empty(), "{row}");
            let mut file = String::new();
            for name in shown.split('`').skip(1).step_by(2) {
                if name.ends_with(".rs") {
                    file = std::fs::read_to_string(workspace.join(name)).expect(name);
                    continue;
                }
                let is_known = SCENARIOS.iter().any(|(scenario, _)| *scenario == name)
                    || checks::is_one(name)
                    || plants::find(name).is_some()
                    || file.contains(&format!("fn {name}("));
                assert!(is_known, "{name}: {row}");
            }
            rows += 1;
        }
        assert!(rows > 30, "{rows}");
    }
}
