//! The command line.

mod commands;
mod files;
mod html;
mod one;
mod pool;
mod report;
mod shrink;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

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
    Run {
        /// The first and the last seed, as A..B.
        #[arg(long)]
        seeds: Seeds,
        /// How many at a time; as many as there are processors unless told otherwise.
        #[arg(long)]
        jobs: Option<usize>,
        #[command(flatten)]
        plant: Plant,
    },
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
        plant: Plant,
    },
    /// Runs each seed twice, in two processes with different surroundings, and compares everything that happened.
    Determinism {
        /// The first and the last seed, as A..B.
        #[arg(long)]
        seeds: Seeds,
    },
    /// Takes away the faults, workers and seconds that a broken promise does not need, and prints the scenario that is
    /// left.
    Shrink {
        /// A seed, or a scenario's name or file.
        what: String,
        /// Writes the scenario to this file.
        #[arg(long)]
        out: Option<PathBuf>,
        #[command(flatten)]
        plant: Plant,
    },
    /// Plants a bug and looks for it: how many seeds it takes, and which check sees it.
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
        #[arg(long)]
        budget: Option<u64>,
        /// How many at a time.
        #[arg(long)]
        jobs: Option<usize>,
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
        #[command(flatten)]
        plant: Plant,
    },
}

#[derive(Args, Clone, Default)]
struct Plant {
    /// Plants this bug in the broker first.
    #[arg(long, value_name = "BUG")]
    plant: Option<String>,
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
    #[command(flatten)]
    plant: Plant,
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
    let done = match Cli::parse().command {
        Command::Run { seeds, jobs, plant } => commands::run(seeds, jobs, &plant),
        Command::Replay {
            seed,
            trace,
            html,
            history,
            keep,
            plant,
        } => commands::replay(
            &OneArgs {
                seed,
                trace,
                history,
                keep,
                plant,
                scenario: None,
            },
            html.as_deref(),
        ),
        Command::Determinism { seeds } => commands::determinism(seeds),
        Command::Shrink { what, out, plant } => commands::shrink(&what, out.as_deref(), &plant),
        Command::Plant { list: true, .. } => commands::list_plants(),
        Command::Plant {
            name, budget, jobs, ..
        } => commands::plant(name.as_deref(), budget, jobs),
        Command::Check { history } => commands::check(&history),
        Command::Scenario {
            command: ScenarioCommand::List,
        } => commands::list_scenarios(),
        Command::Scenario {
            command: ScenarioCommand::Show { what },
        } => commands::show_scenario(&what),
        Command::Scenario {
            command:
                ScenarioCommand::Run {
                    name,
                    seed,
                    trace,
                    plant,
                },
        } => commands::run_scenario(name, seed, trace, plant),
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
    fn the_arguments_are_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
