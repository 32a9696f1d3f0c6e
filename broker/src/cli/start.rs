//! `skerry start`: one node, until a signal ends it.

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures_util::future::OptionFuture;
use skerry_env::Env;
use skerry_env::disk::read_file;
use skerry_types::Instant;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::failure::Failure;
use crate::config::{Given, NodeConfig, Origin, SettingsError};
use crate::node::{self, RunningNode, StartError};

/// A file of settings is a few hundred lines.
pub(super) const CONFIG_BYTES_MAX: u64 = 1 << 20;
/// Taken where it lies in the working directory and `--config` names no other.
pub(super) const CONFIG_FILE: &str = "skerry.toml";

const HELP: &str = "\
Examples:
  skerry start                                    one node, everything embedded, data in ./skerry-data
  skerry start --data-dir /var/lib/skerry --kafka-listen 0.0.0.0:9092 --kafka-advertise edge-7:9092
  skerry start --set num.partitions=4 --set log.retention.hours=24
  SKERRY_LOG_RETENTION_HOURS=24 skerry start

Every setting can stand in skerry.toml (taken from the working directory, or from --config), as SKERRY_… in the
environment, as --set key=value, or as a flag; the later one wins. `skerry config explain KEY` explains a setting.
kill -TERM or Ctrl-C is a clean shutdown, a second one ends at once; neither loses anything acknowledged.";

/// The arguments of `start`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = HELP)]
pub(super) struct StartArgs {
    /// A file of settings [default: skerry.toml, if there is one]
    #[arg(long, value_name = "FILE", env = "SKERRY_CONFIG")]
    config: Option<PathBuf>,
    /// This node's number (node.id) [default: 1]
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// Where everything is kept (log.dirs) [default: ./skerry-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Where Kafka clients connect (listeners) [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    kafka_listen: Option<String>,
    /// What clients are told to connect to (advertised.listeners) [default: as --kafka-listen]
    #[arg(long, value_name = "HOST:PORT")]
    kafka_advertise: Option<String>,
    /// Where other nodes connect (cluster.listen) [default: 127.0.0.1:9093]
    #[arg(long, value_name = "HOST:PORT")]
    cluster_listen: Option<String>,
    /// Where health and metrics are served (admin.listen) [default: 127.0.0.1:9644]
    #[arg(long, value_name = "HOST:PORT")]
    admin_listen: Option<String>,
    /// The nodes that decide (controller.quorum.voters) [default: this one alone]
    #[arg(long, value_name = "1@H:P,2@H:P,…")]
    voters: Option<String>,
    /// Where this node stands (broker.rack)
    #[arg(long, value_name = "RACK")]
    rack: Option<String>,
    /// The budget of requests, answers and caches (memory) [default: 256MiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// Any setting; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Shut down cleanly when stdin ends, as `skerry dev` ends its nodes
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

impl StartArgs {
    /// What flags say, as settings.
    fn flags(&self) -> [(&'static str, &'static str, Option<&String>); 9] {
        [
            ("--node-id", "node.id", self.node_id.as_ref()),
            ("--data-dir", "log.dirs", self.data_dir.as_ref()),
            ("--kafka-listen", "listeners", self.kafka_listen.as_ref()),
            (
                "--kafka-advertise",
                "advertised.listeners",
                self.kafka_advertise.as_ref(),
            ),
            ("--cluster-listen", "cluster.listen", self.cluster_listen.as_ref()),
            ("--admin-listen", "admin.listen", self.admin_listen.as_ref()),
            ("--voters", "controller.quorum.voters", self.voters.as_ref()),
            ("--rack", "broker.rack", self.rack.as_ref()),
            ("--memory", "memory", self.memory.as_ref()),
        ]
    }

    /// All layers, the later one winning.
    fn configuration(
        &self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(NodeConfig, Vec<String>), Failure> {
        let mut given = Given::default();
        if let Some((name, text)) = self.file()? {
            given.file(&name, &text);
        }
        given.environment(variables);
        given.arguments(self.set.iter().map(String::as_str));
        for (flag, key, value) in self.flags() {
            if let Some(value) = value {
                given.set(key, value, Origin::Flag(flag));
            }
        }
        let warnings = given.warnings().to_vec();
        let settings = given.finish().map_err(|errors| wrong_settings(&errors))?;
        let config = NodeConfig::from_settings(&settings).map_err(|errors| wrong_settings(&errors))?;
        Ok((config, warnings))
    }

    fn file(&self) -> Result<Option<(String, String)>, Failure> {
        match &self.config {
            Some(path) => read_config(path).map(Some),
            None => {
                let here = Path::new(CONFIG_FILE);
                let there = skerry_env::os_disk()
                    .stat(here)
                    .is_ok_and(|found| found.is_some());
                if there {
                    read_config(here).map(Some)
                } else {
                    Ok(None)
                }
            }
        }
    }
}

/// A file of settings, with the name to be used in messages.
pub(super) fn read_config(path: &Path) -> Result<(String, String), Failure> {
    let name = path.display().to_string();
    let failure = |why: String| Failure::new(format!("cannot read the settings in {name}: {why}"));
    let bytes = read_file(&*skerry_env::os_disk(), path, CONFIG_BYTES_MAX)
        .map_err(|error| failure(error.to_string()))?;
    let bytes = bytes.ok_or_else(|| failure("there is no such file".to_owned()))?;
    let text = String::from_utf8(bytes).map_err(|_| failure("it is not text (UTF-8)".to_owned()))?;
    Ok((name, text))
}

/// One failure for all that is wrong with the settings.
pub(super) fn wrong_settings(errors: &[SettingsError]) -> Failure {
    match errors {
        [only] => Failure::new(only.to_string()),
        many => many.iter().fold(
            Failure::new(format!("{} settings are wrong:", many.len())),
            |failure, error| failure.hint(error.to_string()),
        ),
    }
    .hint("`skerry config explain KEY` explains a setting; nothing was started, nothing on disk was changed")
}

pub(super) fn run(arguments: &StartArgs) -> Result<(), Failure> {
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let (config, warnings) = arguments.configuration(variables)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(network_threads())
        .thread_name("skerry")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))?;
    let outcome = runtime.block_on(serve(config, arguments.until_stdin_ends));
    // After a clean shutdown everything is on disk; a stuck read of a client's file must not keep the process.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}

/// Half of the processors: the other half is for the threads that wait for the disk, and for the clients where they share
/// the machine. On two processors a second network thread made each produced byte about a tenth dearer, with a third
/// more switches between threads, and none of it faster.
fn network_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |processors| processors.get().div_ceil(2))
}

async fn serve(config: NodeConfig, until_stdin_ends: bool) -> Result<(), Failure> {
    let env = Env::os();
    let began = env.clock.now();
    let mut signals = Signals::new()?;
    if until_stdin_ends {
        signals.or_the_end_of_stdin()?;
    }
    let started = tokio::select! {
        biased;
        () = signals.next() => return Ok(()),
        started = node::start(env.clone(), config.clone()) => started,
    };
    let mut node = started.map_err(|error| explain(&error, &config))?;
    announce(&config, &node, env.clock.now(), began);
    let reason = tokio::select! {
        biased;
        () = signals.next() => None,
        reason = node.failed() => Some(reason),
    };
    if let Some(reason) = reason {
        return Err(Failure::new(format!("the node cannot go on: {reason}"))
            .hint("what was acknowledged is on disk: start it again when the cause is gone"));
    }
    tracing::info!("shutting down; a second signal ends at once");
    tokio::select! {
        biased;
        () = signals.next() => {
            tracing::warn!("ended before the shutdown was complete: the next start recovers the logs");
            Err(Failure::new("ended before the shutdown was complete"))
        }
        () = node.shutdown() => {
            tracing::info!("shut down cleanly");
            Ok(())
        }
    }
}

/// What ends a node.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// A pipe whose end is a signal as well.
    stdin: Option<pipe::Receiver>,
}

impl Signals {
    pub(super) fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| Failure::new(format!("cannot listen for signals: {error}")));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            stdin: None,
        })
    }

    /// The end of stdin, a pipe, is a signal as well: the process at its other end has gone.
    fn or_the_end_of_stdin(&mut self) -> Result<(), Failure> {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned();
        let pipe = stdin.and_then(pipe::Receiver::from_owned_fd);
        self.stdin = Some(pipe.map_err(|error| Failure::new(format!("--until-stdin-ends: {error}")))?);
        Ok(())
    }

    pub(super) async fn next(&mut self) {
        let ended = OptionFuture::from(self.stdin.as_mut().map(end_of));
        tokio::select! {
            biased;
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            Some(()) = ended => self.stdin = None,
        }
    }
}

/// Reads a pipe to its end.
async fn end_of(pipe: &mut pipe::Receiver) {
    let mut bytes = [0; 64];
    while pipe.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
}

fn announce(config: &NodeConfig, node: &RunningNode, now: Instant, began: Instant) {
    let took_ms = now.since(began).as_millis();
    let data = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let mut stdout = std::io::stdout();
    // A node without a reader of its stdout serves all the same.
    let _ = if stdout.is_terminal() {
        stdout.write_all(banner(config, node, &data, took_ms).as_bytes())
    } else {
        writeln!(
            stdout,
            "skerry ready version={} node={} kafka={} admin={} cluster={} data={} took_ms={took_ms}",
            env!("CARGO_PKG_VERSION"),
            config.node_id,
            node.kafka_addr,
            node.admin_addr,
            node.cluster_addr,
            data.display(),
        )
    }
    .and_then(|()| stdout.flush());
}

/// How this program was called: a path that works again, where it is not on the PATH.
fn program() -> String {
    let called = std::env::args_os().next().unwrap_or_default();
    let called = called.to_string_lossy();
    if called.is_empty() || called.contains(char::is_whitespace) {
        "skerry".to_owned()
    } else {
        called.into_owned()
    }
}

fn banner(config: &NodeConfig, node: &RunningNode, data: &Path, took_ms: u128) -> String {
    let program = program();
    // The commands below work as they stand where the default address serves.
    let bootstrap = match node.kafka_addr.to_string() {
        addr if addr == super::connect::DEFAULT_BOOTSTRAP => String::new(),
        addr => format!(" --bootstrap {addr}"),
    };
    format!(
        "\nSkerry {version} serves after {took_ms} ms.\n\n  \
         Kafka clients    {kafka}\n  \
         administration   http://{admin}   (/health/ready, /metrics)\n  \
         other nodes      {cluster}\n  \
         data             {data}   (node {id})\n\n\
         Try it from another terminal:\n  \
         echo hello | {program} produce greetings{bootstrap}\n  \
         {program} consume greetings --from-beginning{bootstrap}\n\n\
         Ctrl-C stops it.\n\n",
        version = env!("CARGO_PKG_VERSION"),
        kafka = config
            .kafka_advertise
            .clone()
            .unwrap_or_else(|| node.kafka_addr.to_string()),
        admin = node.admin_addr,
        cluster = node.cluster_addr,
        data = data.display(),
        id = config.node_id,
    )
}

const DISK_FULL: &str = "the disk is full: make room, or use another directory with --data-dir";

/// The flag behind a setting that names an address.
fn flag_of(setting: &str) -> &'static str {
    match setting {
        "listeners" => "--kafka-listen",
        "admin.listen" => "--admin-listen",
        _ => "--cluster-listen",
    }
}

/// What to do about a node that did not start.
fn explain(error: &StartError, config: &NodeConfig) -> Failure {
    let failure = Failure::new(format!("the node did not start: {error}"));
    let untouched = "nothing on disk was changed";
    match error {
        StartError::Listen {
            addr,
            setting,
            source,
        } => explain_listen(failure, addr, setting, source).hint(untouched),
        StartError::Quorum(skerry_metadata::StartError::Listen { addr, source }) => {
            explain_listen(failure, addr, "cluster.listen", source)
        }
        StartError::InUse { .. } | StartError::Quorum(skerry_metadata::StartError::InUse { .. }) => failure
            .hint("use another directory with --data-dir, or stop the node that uses it")
            .hint(untouched),
        StartError::WrongNode { found, .. } => explain_owner(failure, *found).hint(untouched),
        StartError::Quorum(skerry_metadata::StartError::OtherNode { owner, .. }) => {
            explain_owner(failure, owner.get()).hint(untouched)
        }
        StartError::NewerVersion { .. }
        | StartError::Quorum(skerry_metadata::StartError::NewerVersion { .. }) => failure
            .hint("start it with the newer version of skerry: an older one would misread it")
            .hint(untouched),
        StartError::Disk { path, source }
        | StartError::Quorum(skerry_metadata::StartError::Io { path, source }) => {
            explain_disk(failure, path, source, config)
        }
        StartError::Quorum(skerry_metadata::StartError::Damaged { .. }) => explain_damage(failure, config),
        StartError::MetadataMissing { .. } | StartError::Identity { .. } => failure
            .hint("restore it from a backup, or move the directory away to begin with an empty cluster")
            .hint(untouched),
        StartError::Quorum(_) | StartError::Register(_) => {
            // RocksDB tells of the system's errors in words alone.
            let failure = if error.to_string().contains("No space left on device") {
                failure.hint(DISK_FULL)
            } else {
                failure
            };
            failure.hint(format!("the data directory is {}", config.data_dir.display()))
        }
    }
}

/// The quorum's store is damaged. An older copy of it would vote again in terms in which this node has voted.
fn explain_damage(failure: Failure, config: &NodeConfig) -> Failure {
    if config.voters.len() < 2 {
        return failure
            .hint(format!(
                "`skerry cluster recover --data-dir {}` says what can still be read, and with --yes this node goes on from \
                 there: the records of its partitions stay",
                config.data_dir.display()
            ))
            .hint("where nothing can be read: restore it from a backup, or begin with an empty directory")
            .hint("nothing on disk was changed");
    }
    let (node, metadata) = (config.node_id, config.data_dir.join("metadata"));
    failure
        .hint(format!(
            "while the other voters decide: `skerry cluster voters remove {node}` on another node, an empty folder in the \
             place of {}, start this node, and `skerry cluster voters add {node}`",
            metadata.display()
        ))
        .hint("without a majority of the others: `skerry cluster recover --help`")
        .hint("do not restore an older copy of it: this node would forget what it has promised the others")
}

fn explain_owner(failure: Failure, owner: i32) -> Failure {
    failure.hint(format!(
        "start it as that node with --node-id {owner}, or use another directory with --data-dir"
    ))
}

fn explain_listen(failure: Failure, addr: &str, setting: &str, source: &std::io::Error) -> Failure {
    let flag = flag_of(setting);
    let port = addr.rsplit(':').next().unwrap_or(addr);
    match source.kind() {
        std::io::ErrorKind::AddrInUse => failure
            .hint(format!(
                "port {port} is in use: choose another with {flag} HOST:PORT, or stop who has it"
            ))
            .hint(format!("`ss -ltnp 'sport = :{port}'` tells who that is")),
        std::io::ErrorKind::AddrNotAvailable => failure.hint(format!(
            "that address is not this machine's: choose one that is with {flag} HOST:PORT"
        )),
        std::io::ErrorKind::PermissionDenied => failure.hint(format!(
            "ports below 1024 need privileges: choose another with {flag} HOST:PORT"
        )),
        _ => failure.hint(format!(
            "the address comes from {setting}; {flag} HOST:PORT changes it"
        )),
    }
}

fn explain_disk(failure: Failure, path: &Path, source: &std::io::Error, config: &NodeConfig) -> Failure {
    match source.kind() {
        std::io::ErrorKind::PermissionDenied => failure.hint(format!(
            "this user may not write {}: change its owner, or use --data-dir",
            path.display()
        )),
        std::io::ErrorKind::ReadOnlyFilesystem => {
            failure.hint("the file system is mounted read-only: use another directory with --data-dir")
        }
        std::io::ErrorKind::StorageFull => failure.hint(DISK_FULL),
        std::io::ErrorKind::NotADirectory => failure.hint(format!(
            "{} is not a directory: use another one with --data-dir",
            config.data_dir.display()
        )),
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn config() -> NodeConfig {
        NodeConfig::from_pairs([]).unwrap()
    }

    fn explains(error: &StartError, expected: Expect) {
        expected.assert_eq(&explain(error, &config()).to_string());
    }

    #[test]
    fn a_start_that_fails_says_what_to_do() {
        explains(
            &StartError::Listen {
                addr: "127.0.0.1:9092".to_owned(),
                setting: "listeners",
                source: std::io::ErrorKind::AddrInUse.into(),
            },
            expect![[r#"
                error: the node did not start: cannot listen on 127.0.0.1:9092 (listeners): address in use
                  port 9092 is in use: choose another with --kafka-listen HOST:PORT, or stop who has it
                  `ss -ltnp 'sport = :9092'` tells who that is
                  nothing on disk was changed
            "#]],
        );
        explains(
            &StartError::WrongNode {
                dir: "d".into(),
                found: 3,
                configured: 1,
            },
            expect![[r#"
                error: the node did not start: the data directory d belongs to node 3; this is node 1
                  start it as that node with --node-id 3, or use another directory with --data-dir
                  nothing on disk was changed
            "#]],
        );
        explains(
            &StartError::NewerVersion {
                dir: "d".into(),
                found: 9,
            },
            expect![[r#"
                error: the node did not start: the data directory d has version 9; this program knows versions up to 1
                  start it with the newer version of skerry: an older one would misread it
                  nothing on disk was changed
            "#]],
        );
        explains(
            &StartError::InUse { dir: "d".into() },
            expect![[r#"
            error: the node did not start: the data directory d is in use by another process
              use another directory with --data-dir, or stop the node that uses it
              nothing on disk was changed
        "#]],
        );
        explains(
            &StartError::Disk {
                path: "d".into(),
                source: std::io::ErrorKind::PermissionDenied.into(),
            },
            expect![[r#"
                error: the node did not start: d: permission denied
                  this user may not write d: change its owner, or use --data-dir
            "#]],
        );
    }

    #[test]
    fn a_full_disk_is_called_that_whoever_found_out() {
        let told = |error: &StartError| explain(error, &config()).to_string();
        let store = skerry_metadata::StartError::Raft("IO error: No space left on device: LOG".to_owned());
        for error in [
            StartError::Disk {
                path: "d".into(),
                source: std::io::ErrorKind::StorageFull.into(),
            },
            StartError::Quorum(skerry_metadata::StartError::Io {
                path: "d".into(),
                source: std::io::ErrorKind::StorageFull.into(),
            }),
            StartError::Quorum(store),
        ] {
            assert!(told(&error).contains(DISK_FULL), "{}", told(&error));
        }
    }

    #[test]
    fn flags_win_over_everything() {
        let arguments = StartArgs {
            node_id: Some("4".to_owned()),
            kafka_listen: Some("127.0.0.1:1".to_owned()),
            set: vec!["node.id=3".to_owned(), "num.partitions=9".to_owned()],
            ..StartArgs::default()
        };
        let variables = [("SKERRY_NUM_PARTITIONS".to_owned(), "8".to_owned())];
        let (config, warnings) = arguments.configuration(variables).unwrap();
        assert_eq!(config.node_id.get(), 4);
        assert_eq!(config.kafka_listen, "127.0.0.1:1");
        assert_eq!(config.broker().num_partitions, 9);
        assert!(warnings.is_empty());
    }

    #[test]
    fn wrong_settings_are_told_together() {
        let arguments = StartArgs {
            node_id: Some("me".to_owned()),
            memory: Some("lots".to_owned()),
            ..StartArgs::default()
        };
        expect![[r#"
            error: 2 settings are wrong:
              --node-id: Invalid value me for configuration node.id: not a whole number; allowed is a whole number of at least 0
              --memory: Invalid value lots for configuration memory: not a size; allowed is a size from 16MiB to 16TiB, such as 256MiB
              `skerry config explain KEY` explains a setting; nothing was started, nothing on disk was changed
        "#]].assert_eq(&arguments.configuration([]).unwrap_err().to_string());
    }
}
