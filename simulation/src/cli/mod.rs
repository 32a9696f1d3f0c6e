//! The command line.

mod colour;
mod commands;
mod failure;
mod files;
mod html;
mod one;
mod out;
mod plant;
mod pool;
mod report;
mod shrink;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use skerry_simulation::scenario::{Kinds, Regime, Scenario, WorkerKinds, list_kinds};

/// Runs the shipped node in a simulated world of networks, disks, clocks and crashes. One seed is one history, to the
/// byte.
#[derive(Parser)]
#[command(name = "skerry-sim", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs each seed in a process of its own; ends with status 1 when a promise was broken.
    Run(RunArgs),
    /// Runs one seed again, and shows what happened.
    Replay {
        /// The seed.
        seed: u64,
        /// Writes every small thing that happened, one line each.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Writes a timeline to look at in a browser.
        #[arg(long)]
        html: Option<PathBuf>,
        /// Writes what clients did and heard, for `check`.
        #[arg(long)]
        history: Option<PathBuf>,
        /// Leaves out every fault but these (their numbers, as `replay` prints them).
        #[arg(long, value_delimiter = ',')]
        keep: Option<Vec<usize>>,
        #[command(flatten)]
        choice: Choice,
    },
    /// Runs each seed twice, in two processes with different surroundings, and compares everything that happened.
    ///
    /// The second process has another working directory, another home, language and time zone, an environment that is
    /// 5 KB larger, and a heap of another shape (MALLOC_MMAP_THRESHOLD_, MALLOC_TOP_PAD_); and it is halted by a signal
    /// for more than a second, twice, as on a machine that has no processor for it. Both lie at other addresses,
    /// unless the kernel was told not to draw them; how often they did is told. Where the sums over all lines of the two
    /// traces differ, both are run again and the first line that differs is printed. Status 1 where one differs.
    Determinism {
        /// The first and the last seed, as A..B.
        #[arg(long)]
        seeds: Seeds,
        #[command(flatten)]
        jobs: Jobs,
        #[command(flatten)]
        choice: Choice,
    },
    /// Takes away the faults, workers and seconds that a broken promise does not need, and prints the scenario that is
    /// left.
    Shrink {
        /// A seed, or a scenario's name or file.
        what: String,
        /// Other draws for everything that the scenario does not say.
        #[arg(long)]
        seed: Option<u64>,
        /// Writes the scenario to this file.
        #[arg(long)]
        out: Option<PathBuf>,
        #[command(flatten)]
        choice: Choice,
    },
    /// Plants a bug and looks for it: how many seeds it takes, and which check sees it.
    ///
    /// A seed counts where one of the checks that are there for this bug sees it, and where the same seed without it keeps
    /// every promise. What other checks see first is told, and the search goes on.
    Plant {
        /// The bug's name; see `--list`.
        #[arg(required_unless_present_any = ["all", "list"])]
        name: Option<String>,
        /// Every bug, one after the other; ends with status 1 when one is not found.
        #[arg(long, conflicts_with = "name")]
        all: bool,
        /// Prints the names.
        #[arg(long, conflicts_with_all = ["name", "all"])]
        list: bool,
        /// Seeds to try for each bug.
        #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
        budget: Option<u64>,
        #[command(flatten)]
        jobs: Jobs,
    },
    /// Measures how many simulated seconds one second of a processor is good for, with 1, 3 and 5 nodes.
    Bench {
        /// So many seeds of each.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
        seeds: u64,
    },
    /// Judges a history, one JSON object a line, of the simulator or of real processes.
    Check {
        /// The history.
        history: PathBuf,
    },
    /// Histories that broke others, as small files.
    Scenario {
        #[command(subcommand)]
        command: ScenarioCommand,
    },
    /// Runs one seed or scenario in this process and prints the result for the parent.
    #[command(hide = true)]
    One(OneArgs),
}

#[derive(Subcommand)]
enum ScenarioCommand {
    /// What there is.
    List,
    /// Prints one, to be edited.
    Show {
        /// A seed, or a scenario's name or file.
        what: String,
        #[command(flatten)]
        choice: Choice,
    },
    /// Runs one of them.
    Run {
        /// Its name, or a file like those in `simulation/scenarios`.
        name: String,
        /// Other draws for everything that the scenario does not say.
        #[arg(long)]
        seed: Option<u64>,
        /// Writes every small thing that happened, one line each.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Writes a timeline to look at in a browser.
        #[arg(long)]
        html: Option<PathBuf>,
        #[command(flatten)]
        choice: Choice,
    },
}

/// What `run` is told.
#[derive(Args)]
struct RunArgs {
    /// The first and the last seed, as A..B.
    #[arg(long)]
    seeds: Seeds,
    #[command(flatten)]
    jobs: Jobs,
    /// Prints how many of the seeds reached each goal, and how often, and how often each kind of fault met each kind of
    /// operation; without it, the goals that no seed reached.
    #[arg(long)]
    goals: bool,
    /// Ends with status 1 also where a goal was never reached.
    #[arg(long)]
    every_goal: bool,
    #[command(flatten)]
    choice: Choice,
}

/// How many children there are.
#[derive(Args, Clone, Copy)]
struct Jobs {
    /// How many at a time; as many as there are processors unless told otherwise.
    #[arg(long = "jobs", value_name = "N", value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    at_a_time: Option<usize>,
}

impl Jobs {
    fn count(self) -> usize {
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        self.at_a_time.unwrap_or_else(processors)
    }
}

#[derive(Args, Clone, Default)]
struct Choice {
    /// How many nodes: one unless told otherwise; `any`: 2 to 7, most often 3, as the seed says.
    #[arg(long, value_name = "N")]
    nodes: Option<Nodes>,
    /// Only faults of these kinds or groups of kinds happen, separated by commas.
    #[arg(long, value_name = "KINDS", long_help = faults_help())]
    faults: Option<Kinds>,
    /// No faults of these kinds or groups of kinds happen. The others stay what they are.
    #[arg(long, value_name = "KINDS")]
    without: Option<Kinds>,
    /// These workers do not work, separated by commas: who changes voters, moves partitions, sends garbage and so on. As a
    /// scenario names them (`scenario show 1`).
    #[arg(long, value_name = "KINDS")]
    without_workers: Option<WorkerKinds>,
    /// What clusters are held to: `contract` (any loss is a broken promise) or `beyond` (more goes wrong than they must
    /// bear; one seed of ten, unless told otherwise).
    #[arg(long)]
    regime: Option<Regime>,
    /// Faults happen for at least so many simulated seconds, as often as in the first ones; 4 to 20 unless told otherwise.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    seconds: Option<u64>,
    /// Plants this bug in the broker first.
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
}

impl Choice {
    /// The scenario with only the kinds of fault that were chosen; where nothing was, what a file says stays.
    fn limit(&self, scenario: Scenario) -> Scenario {
        let scenario = match &self.without_workers {
            Some(left_out) => scenario.without_workers(left_out),
            None => scenario,
        };
        if self.faults.is_none() && self.without.is_none() {
            return scenario;
        }
        let usual = Kinds::default();
        let is_on = |kind: &str| self.faults.as_ref().unwrap_or(&usual).have(kind);
        let is_off = |kind: &str| self.without.as_ref().is_some_and(|kinds| kinds.have(kind));
        scenario.with_faults(|kind| is_on(kind) && !is_off(kind))
    }

    /// The arguments that say the same to a child, or to a person.
    fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut add = |name: &str, value: Option<String>| {
            arguments.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        };
        add("--nodes", self.nodes.map(|nodes| nodes.to_string()));
        add("--faults", self.faults.as_ref().map(Kinds::to_string));
        add("--without", self.without.as_ref().map(Kinds::to_string));
        add(
            "--without-workers",
            self.without_workers.as_ref().map(ToString::to_string),
        );
        add("--regime", self.regime.map(|regime| regime.to_string()));
        add("--seconds", self.seconds.map(|seconds| seconds.to_string()));
        add("--plant", self.plant.clone());
        arguments
    }
}

fn faults_help() -> String {
    format!(
        "Only faults of these kinds or groups of kinds happen, separated by commas: all, none, or any of\n\n{}\n\nWhich \
         are drawn, when and how hard does not depend on the others: a seed without some of them is otherwise the same \
         seed. Without power-cut the power is not cut by die-in or at the end either.",
        list_kinds()
    )
}

/// How many nodes a world of several has; 0: the seed says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Nodes(u32);

impl FromStr for Nodes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "any" => Ok(Self(0)),
            _ => match text.parse() {
                Ok(count @ 1..=9) => Ok(Self(count)),
                _ => Err(format!("{text:?}: 1 to 9, or `any`, is expected")),
            },
        }
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("any"),
            count => write!(f, "{count}"),
        }
    }
}

/// What the parent tells a child.
#[derive(Args, Clone, Default)]
struct OneArgs {
    /// The seed.
    #[arg(default_value_t = 0)]
    seed: u64,
    /// A scenario's file or name.
    #[arg(long)]
    scenario: Option<String>,
    /// Only these faults.
    #[arg(long, value_delimiter = ',')]
    keep: Option<Vec<usize>>,
    /// Where the trace goes.
    #[arg(long)]
    trace: Option<PathBuf>,
    /// Where the history goes.
    #[arg(long)]
    history: Option<PathBuf>,
    /// Nothing but what one of these checks sees ends it, and a panic.
    #[arg(long, value_delimiter = ',')]
    until: Vec<String>,
    /// Where the story goes.
    #[arg(long)]
    story: Option<PathBuf>,
    /// Ends with its last words when its standard input does: whoever holds it has waited enough, or is gone.
    #[arg(long)]
    is_held: bool,
    #[command(flatten)]
    choice: Choice,
}

/// An inclusive range of seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seeds {
    first: u64,
    last: u64,
}

impl FromStr for Seeds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of seeds: A..B is expected, such as 1..100");
        let (first, last) = text.split_once("..").unwrap_or((text, text));
        let first: u64 = first.parse().map_err(|_| wrong())?;
        let last: u64 = last.trim_start_matches('=').parse().map_err(|_| wrong())?;
        if first > last {
            Err(wrong())
        } else {
            Ok(Self { first, last })
        }
    }
}

/// Reads the arguments and does what they say.
pub(crate) fn main() -> ExitCode {
    let command = Cli::parse().command;
    if !matches!(command, Command::One(_)) {
        pool::sweep();
    }
    let done = match command {
        Command::Run(args) => commands::run(&args),
        Command::Replay {
            seed,
            trace,
            html,
            history,
            keep,
            choice,
        } => commands::replay(
            &OneArgs {
                seed,
                trace,
                history,
                keep,
                choice,
                ..OneArgs::default()
            },
            html.as_deref(),
        ),
        Command::Determinism { seeds, jobs, choice } => commands::determinism(seeds, jobs, &choice),
        Command::Bench { seeds } => commands::bench(seeds),
        Command::Shrink {
            what,
            seed,
            out,
            choice,
        } => commands::shrink(&what, seed, out.as_deref(), &choice),
        Command::Plant { list: true, .. } => plant::list(),
        Command::Plant {
            name, budget, jobs, ..
        } => plant::run(name.as_deref(), budget, jobs),
        Command::Check { history } => commands::check(&history),
        Command::Scenario {
            command: ScenarioCommand::List,
        } => commands::list_scenarios(),
        Command::Scenario {
            command: ScenarioCommand::Show { what, choice },
        } => commands::show_scenario(&what, &choice),
        Command::Scenario {
            command:
                ScenarioCommand::Run {
                    name,
                    seed,
                    trace,
                    html,
                    choice,
                },
        } => commands::run_scenario(name, seed, trace, html, choice),
        Command::One(args) => one::run(&args),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("skerry-sim: {error:#}");
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_of_seeds_includes_both_ends() {
        assert_eq!("1..100".parse(), Ok(Seeds { first: 1, last: 100 }));
        assert_eq!("7".parse(), Ok(Seeds { first: 7, last: 7 }));
        assert!("9..1".parse::<Seeds>().is_err());
        assert!("x".parse::<Seeds>().is_err());
    }

    #[test]
    fn a_child_is_told_what_was_chosen() {
        let words = [
            "skerry-sim",
            "replay",
            "7",
            "--nodes",
            "3",
            "--faults",
            "power,disk",
            "--without",
            "bit-rot",
            "--without-workers",
            "churn,members",
            "--seconds",
            "60",
        ];
        let Ok(Cli {
            command: Command::Replay { choice, .. },
        }) = Cli::try_parse_from(words)
        else {
            panic!("{words:?} are sound");
        };
        assert_eq!(choice.arguments(), words[3..]);
        let kinds: std::collections::BTreeSet<_> = (1..60)
            .flat_map(|seed| choice.limit(Scenario::draw_cluster(seed, 3)).faults)
            .map(|timed| timed.kind())
            .collect();
        assert!(
            kinds.contains("sync-fails") && kinds.contains("site-power-cut"),
            "{kinds:?}"
        );
        assert!(!kinds.contains("bit-rot") && !kinds.contains("kill"), "{kinds:?}");
    }

    #[test]
    fn the_arguments_are_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
