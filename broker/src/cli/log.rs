//! `skerry log`: what lies in log files.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Subcommand;
use skerry_log::DumpOptions;

use super::Format;
use super::failure::Failure;

/// What can be done with log files.
#[derive(Debug, Subcommand)]
pub(super) enum LogCommand {
    /// Print a segment (.log), an index, a producer snapshot or an epoch checkpoint, Skerry's or Kafka's
    #[command(
        after_help = "Examples:\n  skerry log dump skerry-data/log/orders-0/00000000000000000000.log\n  \
        skerry log dump skerry-data/log/orders-0/00000000000000000000.timeindex --format json\n\n\
        It only reads: a running node does not mind."
    )]
    Dump {
        /// The file
        file: PathBuf,
        /// Also each record of each batch
        #[arg(long, short)]
        records: bool,
        /// Also the key and value of each record
        #[arg(long, short, conflicts_with = "records")]
        payloads: bool,
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

pub(super) fn run(command: LogCommand) -> Result<(), Failure> {
    let LogCommand::Dump {
        file,
        records,
        payloads,
        format,
    } = command;
    let disk = skerry_env::os_disk();
    let mut stdout = std::io::BufWriter::new(std::io::stdout().lock());
    let options = DumpOptions {
        records: records || payloads,
        payloads,
        json: format == Format::Json,
    };
    let dumped = skerry_log::dump(&*disk, &file, &mut stdout, options).and_then(|()| stdout.flush());
    dumped.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Failure::output(&error),
        std::io::ErrorKind::NotFound => Failure::new(format!("there is no file {}", file.display()))
            .hint("partitions lie in skerry-data/log/TOPIC-PARTITION, segments end in .log"),
        _ => Failure::new(format!("{}: {error}", file.display())),
    })
}
