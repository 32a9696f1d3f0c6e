//! The command line.
//!
//! `start` runs a node, `dev` a cluster on one machine. `log` and `config` read files. Everything else speaks the Kafka protocol to any broker, and so
//! works against Apache Kafka too.

mod cluster;
mod config;
mod connect;
mod consume;
mod dev;
mod failure;
mod group;
mod lines;
mod log;
mod logging;
mod output;
mod produce;
mod reassign;
mod start;
mod topic;
mod voters;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::future::Future;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand, ValueEnum};

use failure::Failure;

const ABOUT: &str = "A Kafka-compatible broker in one small binary.";

const EXAMPLES: &str = "\
Try it:
  skerry start                                  a broker on 127.0.0.1:9092, its data in ./skerry-data
  echo hello | skerry produce greetings         the topic is made on first use
  skerry consume greetings --from-beginning
  skerry cluster status

Every Kafka client works as well: kcat -b 127.0.0.1:9092 -t greetings -C -e
`skerry config explain KEY` explains any setting, `skerry help COMMAND` any command.";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "skerry", version, about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    /// What is logged to stderr: error, warn, info, debug, trace, or a filter such as skerry=debug,openraft=warn
    #[arg(
        long,
        global = true,
        env = "SKERRY_LOG",
        hide_env_values = true,
        value_name = "FILTER",
        help_heading = "Everywhere"
    )]
    log_level: Option<String>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node
    Start(start::StartArgs),
    /// Run a whole cluster of several nodes on this machine
    Dev(dev::DevArgs),
    /// Make, list, describe, change and delete topics
    #[command(subcommand, visible_alias = "topics")]
    Topic(topic::TopicCommand),
    /// Write records to a topic, one for each line of stdin
    Produce(produce::ProduceArgs),
    /// Read records from topics
    Consume(consume::ConsumeArgs),
    /// List, describe, reset and delete consumer groups
    #[command(subcommand, visible_alias = "groups")]
    Group(group::GroupCommand),
    /// Look at the cluster, and change who votes, leads and has replicas
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Look into log files
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Explain settings, check a file of them
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print a script that completes commands in a shell
    #[command(after_help = "Example:\n  skerry completion bash > /etc/bash_completion.d/skerry")]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    run(std::env::args_os())
}

fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are "errors" with status 0; a mistake has status 2.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let default = if matches!(cli.command, Command::Start(_)) {
        "info"
    } else {
        "warn"
    };
    let outcome =
        logging::start(cli.log_level.as_deref().unwrap_or(default)).and_then(|()| carry_out(cli.command));
    match outcome {
        Ok(code) => code,
        Err(failure) => {
            eprint!("{}", failure.render(std::io::stderr().is_terminal()));
            failure.exit_code()
        }
    }
}

fn carry_out(command: Command) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        Command::Start(arguments) => start::run(&arguments).map(done),
        Command::Dev(arguments) => dev::run(&arguments).map(done),
        Command::Topic(command) => block_on(topic::run(command)).map(done),
        Command::Produce(arguments) => block_on(produce::run(arguments)).map(done),
        Command::Consume(arguments) => block_on(consume::run(arguments)).map(done),
        Command::Group(command) => block_on(group::run(command)).map(done),
        Command::Cluster(command) => block_on(cluster::run(command)),
        Command::Log(command) => log::run(command).map(done),
        Command::Config(command) => config::run(command).map(done),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "skerry", &mut script);
            output::print_bytes(&script).map(done)
        }
    }
}

/// Client commands do one thing after the other: one thread is enough.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(work);
    // A thread may still wait for a line of stdin that nobody needs.
    runtime.shutdown_background();
    outcome
}
