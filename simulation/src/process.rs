//! The broker's process: the shipped node, started as `skerry start` starts it, with another environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use skerry::broker::Broker;
use skerry::config::NodeConfig;
use skerry::node::{self, Hooks};
use skerry_env::Rng;
use skerry_metadata::{WalMark, cut_unsynced_wal, tear_unsynced_wal};
use tokio::sync::Notify;

use crate::disk::{self, SimDisk};
use crate::env::Host;
use crate::scenario::Scenario;

pub(crate) const DATA_DIR: &str = "/data";
/// Where the quorum's own store is, under the data directory.
const RAFT_DIR: &str = "metadata/raft";

/// RocksDB numbers its files with so many digits.
const NUMBER_DIGITS: usize = 6;

/// How the process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// There is none.
    Down,
    /// It has begun.
    Starting,
    /// It serves.
    Serving,
    /// It was told to end.
    Stopping,
    /// It has ended as it was told.
    Stopped,
    /// It has ended by itself.
    Exited(String),
}

/// The broker's process as the world sees it. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Process {
    host: Host,
    settings: Arc<Vec<(String, String)>>,
    /// The broker while it serves. Weak: nothing of a process may outlive its crash.
    broker: Arc<Mutex<Weak<Broker>>>,
    wal_mark: WalMark,
    /// Draws what a power cut leaves of the quorum's log.
    tears: Rng,
    snapshot_every_entries: u64,
    state: Arc<Mutex<State>>,
    stop: Arc<Mutex<Arc<Notify>>>,
    /// The disk that somebody has put in instead of its own.
    wrong_disk: Arc<Mutex<Option<SimDisk>>>,
}

impl Process {
    /// The process of node `number`, not started yet. The first `voters` decide; none: it is alone.
    pub(crate) fn new(host: Host, number: u32, voters: u32, scenario: &Scenario, tears: Rng) -> Self {
        Self {
            settings: Arc::new(settings(&host.name, number, voters, &scenario.settings)),
            broker: Arc::default(),
            host,
            wal_mark: WalMark::default(),
            tears,
            snapshot_every_entries: scenario.snapshot_every_entries,
            state: Arc::new(Mutex::new(State::Down)),
            stop: Arc::default(),
            wrong_disk: Arc::default(),
        }
    }

    /// Gives the machine another disk, or its own again. The next start finds it.
    pub(crate) fn put_in(&self, disk: Option<SimDisk>) {
        *self.wrong_disk.lock() = disk;
    }

    /// The disk that the machine has now.
    pub(crate) fn disk(&self) -> SimDisk {
        let wrong = self.wrong_disk.lock().clone();
        wrong.unwrap_or_else(|| self.host.disk.clone())
    }

    pub(crate) fn state(&self) -> State {
        self.state.lock().clone()
    }

    pub(crate) fn set_state(&self, state: State) {
        if state == State::Down {
            *self.broker.lock() = Weak::new();
        }
        *self.state.lock() = state;
    }

    /// The broker, while it serves.
    pub(crate) fn broker(&self) -> Option<Arc<Broker>> {
        self.broker.lock().upgrade()
    }

    /// What its disk knows of the quorum.
    pub(crate) fn wal_mark(&self) -> WalMark {
        self.wal_mark.clone()
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        self.set_state(State::Stopping);
        self.stop.lock().notify_one();
    }

    /// Runs the node until it ends. The body of the turmoil host.
    pub(crate) async fn run(self) {
        let stop = Arc::new(Notify::new());
        *self.stop.lock() = stop.clone();
        self.set_state(State::Starting);
        let trace = self.host.trace.clone();
        let pairs = self
            .settings
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        let config = match NodeConfig::from_pairs(pairs) {
            Ok(config) => config,
            Err(errors) => return self.set_state(State::Exited(format!("settings: {errors:?}"))),
        };
        let hooks = Hooks {
            wal_mark: Some(self.wal_mark.clone()),
            snapshot_every_entries: Some(self.snapshot_every_entries),
        };
        let mut host = self.host.clone();
        if let Some(disk) = self.wrong_disk.lock().clone() {
            host.disk = disk;
        }
        let mut node = match node::start_with(host.boot(), config, hooks).await {
            Ok(node) => node,
            Err(error) => {
                let why = self.without_the_machine(&format!("does not start: {error}"));
                return self.set_state(State::Exited(why));
            }
        };
        *self.broker.lock() = Arc::downgrade(node.broker());
        trace.event(&self.host.name, format_args!("serves"));
        if self.state() == State::Starting {
            self.set_state(State::Serving);
        }
        tokio::select! {
            biased;
            () = stop.notified() => {
                node.shutdown().await;
                self.set_state(State::Stopped);
            }
            why = node.failed() => self.set_state(State::Exited(self.without_the_machine(&why))),
        }
    }

    /// Where RocksDB's files are in the machine.
    pub(crate) fn raft_dir(&self) -> PathBuf {
        self.host.disk.external(&Path::new(DATA_DIR).join(RAFT_DIR))
    }

    /// Names RocksDB's files as programs see them, without their numbers: where the machine has them, and how many its threads
    /// have made before, differs from run to run.
    fn without_the_machine(&self, text: &str) -> String {
        let dir = self.raft_dir().display().to_string();
        let text = text.replace(&dir, &format!("{DATA_DIR}/{RAFT_DIR}"));
        let parts = text.split('/').map(|part| {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            if digits == NUMBER_DIGITS {
                &part[digits..]
            } else {
                part
            }
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// What a crash takes from RocksDB: of the process, what only its memory held, which closing it has written; of the power,
    /// any part of that.
    pub(crate) fn cut_metadata(&self, power: bool) {
        let dir = self.raft_dir();
        let cut = if power {
            tear_unsynced_wal(&dir, &self.wal_mark, |bytes, synced| {
                let left = disk::torn(&bytes, synced, &self.tears);
                self.host.trace.event(
                    &self.host.name,
                    format_args!(
                        "of its metadata log {synced} of {} bytes were synced, and the device has {}",
                        bytes.len(),
                        left.len()
                    ),
                );
                left
            })
        } else {
            cut_unsynced_wal(&dir, &self.wal_mark)
        };
        if let Err(error) = cut {
            self.host.trace.event(
                &self.host.name,
                format_args!("its metadata cannot be cut: {error}"),
            );
        }
    }
}

/// The shipped defaults but for the addresses, and for times that would outlast a simulation.
fn settings(
    name: &str,
    number: u32,
    voters: u32,
    others: &BTreeMap<String, String>,
) -> Vec<(String, String)> {
    let mut settings = vec![
        ("node.id", number.to_string()),
        ("log.dirs", DATA_DIR.to_owned()),
        ("listeners", "0.0.0.0:9092".to_owned()),
        ("advertised.listeners", format!("{name}:9092")),
        ("cluster.listen", "0.0.0.0:9093".to_owned()),
        ("cluster.advertise", format!("{name}:9093")),
        ("admin.listen", "0.0.0.0:9644".to_owned()),
        ("disk.reserve", "1MiB".to_owned()),
        ("offsets.topic.num.partitions", OFFSETS_PARTITIONS.to_string()),
        ("group.min.session.timeout.ms", "1000".to_owned()),
        ("group.initial.rebalance.delay.ms", "200".to_owned()),
        ("log.segment.delete.delay.ms", "1000".to_owned()),
        ("log.flush.offset.checkpoint.interval.ms", "1500".to_owned()),
        ("log.scrub.interval.ms", "4000".to_owned()),
        // Small enough that groups' commits are compacted while the simulation runs.
        ("offsets.topic.segment.bytes", "16384".to_owned()),
        ("log.cleaner.backoff.ms", "1000".to_owned()),
        ("log.retention.check.interval.ms", "1500".to_owned()),
    ];
    if voters > 0 {
        let voters: Vec<_> = (1..=voters)
            .map(|number| format!("{number}@{}:9093", node_name(number)))
            .collect();
        settings.push(("controller.quorum.voters", voters.join(",")));
    }
    settings.retain(|(key, _)| !others.contains_key(*key));
    let owned = settings.into_iter().map(|(key, value)| (key.to_owned(), value));
    let others = others.iter().map(|(key, value)| (key.clone(), value.clone()));
    owned.chain(others).collect()
}

/// What a node would say of these settings.
///
/// # Errors
/// Which one cannot be what it is, and what it may be.
pub(crate) fn check_settings(settings: &BTreeMap<String, String>) -> Result<(), String> {
    let pairs = self::settings(ALONE, 1, 0, settings);
    let pairs = pairs.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let errors = match NodeConfig::from_pairs(pairs) {
        Ok(_) => return Ok(()),
        Err(errors) => errors,
    };
    let told: Vec<_> = errors.iter().map(ToString::to_string).collect();
    Err(told.join("; "))
}

/// Few, so that each has something.
pub(crate) const OFFSETS_PARTITIONS: i32 = 4;

/// The host of a node that is the only one.
pub(crate) const ALONE: &str = "broker";

/// A node's host in a world of several.
pub(crate) fn node_name(number: u32) -> String {
    format!("n{number}")
}
