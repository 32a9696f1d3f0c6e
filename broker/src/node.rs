//! A whole node: everything that `skerry start` starts, in the order in which it may start.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use skerry_env::disk::{DirLock, read_file, replace_file};
use skerry_env::{Env, Listener, TaskHandle};
use skerry_metadata::{ImageWatch, Quorum, QuorumConfig, Role, Voter, WalMark};
use skerry_metadata_state::{
    BrokerGuard, Command, Delta, FeatureRange, HostPort, Image, Outcome, RegisterBroker,
};
use skerry_types::{BrokerId, Uuid};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::admin_http::{self, AdminState, Health};
use crate::broker::{Broker, ConnectionLimits};
use crate::budget::Budget;
use crate::config::NodeConfig;
use crate::flusher::{self, FlushQueue};
use crate::gate::Gate;
use crate::groups::Groups;
use crate::kafka::listener;
use crate::kafka::sessions::FetchSessions;
use crate::maintenance;
use crate::metrics::Metrics;
use crate::partitions::Partitions;
use crate::peers::Complaints;
use crate::producer_ids::ProducerIds;
use crate::settings::Settings;

/// Kafka's name for the file that says whose directory it is.
const META_PROPERTIES: &str = "meta.properties";
/// Version of the directory's layout. A larger one was written by a newer program.
const LAYOUT_VERSION: u32 = 1;
/// How often to look whether the node can still go on.
const FAILURE_LOOK: Duration = Duration::from_millis(500);
/// Where partitions live, under the data directory.
const LOG_DIR: &str = "log";
/// Where the metadata quorum lives, under the data directory.
const METADATA_DIR: &str = "metadata";

/// Why a node did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {addr} ({setting}): {source}")]
    Listen {
        /// The address.
        addr: String,
        /// The setting that gave it.
        setting: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process uses the data directory.
    #[error("the data directory {} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The data directory is another node's.
    #[error("the data directory {} belongs to node {found}; this is node {configured}", dir.display())]
    WrongNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: i32,
        /// Who wants it.
        configured: i32,
    },
    /// A newer program wrote the data directory.
    #[error("the data directory {} has version {found}; this program knows versions up to {LAYOUT_VERSION}", dir.display())]
    NewerVersion {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The file that says whose directory it is makes no sense.
    #[error("{} is damaged: {why}", path.display())]
    Identity {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The directory was a node's, and its metadata is gone.
    #[error(
        "the data directory {} has lost its folder `{METADATA_DIR}`: without it nobody knows which topics exist, and \
         starting would begin an empty cluster over the old records", dir.display()
    )]
    MetadataMissing {
        /// The directory.
        dir: PathBuf,
    },
    /// The disk.
    #[error("{}: {source}", path.display())]
    Disk {
        /// Where.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The metadata quorum.
    #[error(transparent)]
    Quorum(#[from] skerry_metadata::StartError),
    /// The quorum did not register this broker.
    #[error("cannot register with the metadata quorum: {0}")]
    Register(String),
}

/// What only the simulator asks of a node. The default is what production has.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Follows what is durable of the quorum's own files.
    pub wal_mark: Option<WalMark>,
}

/// A node that serves.
pub struct RunningNode {
    /// Where Kafka clients connect.
    pub kafka_addr: SocketAddr,
    /// Where other nodes connect.
    pub cluster_addr: String,
    /// Where administration connects.
    pub admin_addr: SocketAddr,
    broker: Arc<Broker>,
    stop: Stop,
    tasks: Vec<TaskHandle>,
    upkeep: TaskHandle,
    _lock: Box<dyn DirLock>,
}

/// The two stages of an end: first nothing new comes in, then what is in is carried out.
#[derive(Clone, Default)]
struct Stop {
    front: CancellationToken,
    /// Maintenance ends before the logs are closed: both write checkpoints.
    upkeep: CancellationToken,
    back: CancellationToken,
}

/// Starts a node. It serves when this returns.
///
/// # Errors
/// [`StartError`]. Nothing on disk was changed by a refusal.
pub async fn start(env: Env, config: NodeConfig) -> Result<RunningNode, StartError> {
    start_with(env, config, Hooks::default()).await
}

/// As [`start`], with the simulator's hooks.
///
/// # Errors
/// As [`start`].
pub async fn start_with(env: Env, config: NodeConfig, hooks: Hooks) -> Result<RunningNode, StartError> {
    let config = Arc::new(config);
    // The addresses first: a port in use must not leave a trace on the disk.
    let kafka = bind(&env, &config.kafka_listen, "listeners").await?;
    let admin = bind(&env, &config.admin_listen, "admin.listen").await?;
    let kafka_addr = kafka.local_addr();
    let directory = DataDir {
        env: env.clone(),
        dir: config.data_dir.clone(),
    };
    let identity = directory.identity(config.node_id)?;
    let lock = directory.claim()?;
    let quorum = start_quorum(&env, &config, identity.map(|known| known.cluster), hooks).await?;
    let directory_id = identity.map_or_else(|| env.rng.uuid(), |known| known.directory);
    if let (None, Some(cluster)) = (identity, quorum.image().cluster_id()) {
        let identity = Identity {
            cluster,
            directory: directory_id,
        };
        directory.sign(config.node_id, identity)?;
    }
    let stop = Stop::default();
    let (broker, mut tasks) = build(&env, &config, quorum, &stop)?;
    let watch = broker.quorum.watch();
    let image = watch.image();
    follow(&broker, &image, &[Delta::Reset], watch.seen()).await;
    let follower = broker.clone();
    let follow_stop = stop.back.clone();
    tasks.push(
        env.tasks
            .spawn("metadata-follower", follow_all(follower, watch, follow_stop)),
    );
    register(&broker, kafka_addr, directory_id).await?;
    settle(&broker).await;
    broker.groups.start(&broker).await;
    let upkeep = maintenance::start(&broker, stop.upkeep.clone());
    let state: Arc<dyn AdminState> = Arc::new(NodeAdmin {
        broker: broker.clone(),
    });
    let admin_addr = admin.local_addr();
    tasks.push(admin_http::start(&env, admin, state, stop.front.clone()));
    tasks.push(listener::start(broker.clone(), kafka, stop.front.clone()));
    let cluster_addr = config.cluster_listen.clone();
    Ok(RunningNode {
        kafka_addr,
        cluster_addr,
        admin_addr,
        broker,
        stop,
        tasks,
        upkeep,
        _lock: lock,
    })
}

impl RunningNode {
    /// The broker, for tests and the simulator.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// The cluster's id.
    #[must_use]
    pub fn cluster_id(&self) -> Option<Uuid> {
        self.broker.image().cluster_id()
    }

    /// Waits until the node cannot go on, and says why.
    pub async fn failed(&mut self) -> String {
        loop {
            self.broker.env.clock.sleep(FAILURE_LOOK).await;
            if self.broker.quorum.status().role == Role::Stopped {
                return "the metadata quorum has stopped: its store failed".to_owned();
            }
        }
    }

    /// Ends the node cleanly: no new connections, everything on disk, nothing to recover at the next start.
    pub async fn shutdown(self) {
        self.stop.front.cancel();
        self.broker.groups.stop().await;
        let guard = self.broker.epoch().map(|epoch| BrokerGuard {
            broker: self.broker.id(),
            epoch,
        });
        self.stop.upkeep.cancel();
        self.upkeep.join().await;
        self.broker.partitions.close().await;
        // A quorum of one is its own leader to the end; in a larger one the others take over what this one led.
        if let Some(guard) = guard
            && let Err(error) = self.broker.quorum.propose(Command::FenceBroker(guard)).await
        {
            tracing::warn!(%error, "could not say goodbye to the metadata quorum");
        }
        self.stop.back.cancel();
        for task in self.tasks {
            task.join().await;
        }
        self.broker.quorum.clone().shutdown().await;
    }
}

async fn bind(env: &Env, addr: &str, setting: &'static str) -> Result<Listener, StartError> {
    env.net.bind(addr).await.map_err(|source| StartError::Listen {
        addr: addr.to_owned(),
        setting,
        source,
    })
}

async fn start_quorum(
    env: &Env,
    config: &NodeConfig,
    cluster_id: Option<Uuid>,
    hooks: Hooks,
) -> Result<Quorum, StartError> {
    let dir = config.data_dir.join(METADATA_DIR);
    let mut quorum = QuorumConfig::single(config.node_id, dir, config.cluster_listen.clone());
    if !config.voters.is_empty() {
        quorum.voters = config
            .voters
            .iter()
            .map(|(id, addr)| Voter {
                id: *id,
                addr: addr.clone(),
            })
            .collect();
    }
    quorum.cluster_id = cluster_id;
    quorum.wal_mark = hooks.wal_mark;
    Ok(Quorum::start(env.clone(), quorum, |_, _| {}).await?)
}

fn build(
    env: &Env,
    config: &Arc<NodeConfig>,
    quorum: Quorum,
    stop: &Stop,
) -> Result<(Arc<Broker>, Vec<TaskHandle>), StartError> {
    let log_dir = Arc::new(config.data_dir.join(LOG_DIR));
    let flushes = Arc::new(FlushQueue::default());
    let metrics = Arc::new(Metrics::default());
    let settings = Arc::new(Settings::new(config.node_id, config.given.clone()));
    let partitions = Partitions::open(
        env.clone(),
        config.node_id,
        log_dir.clone(),
        flushes.clone(),
        settings.clone(),
        config.open_files_max,
    )
    .map_err(|source| StartError::Disk {
        path: log_dir.to_path_buf(),
        source,
    })?;
    let partitions = Arc::new(partitions);
    let tasks = flusher::start(env, &flushes, &log_dir, &metrics, &stop.back);
    let budget = Budget::new(usize::try_from(config.memory_bytes).unwrap_or(usize::MAX));
    let given = settings.broker();
    let limits = ConnectionLimits {
        total: given.max_connections as usize,
        per_ip: given.max_connections_per_ip as usize,
        idle: given.connections_max_idle,
        frame_bytes_max: (given.socket_request_max_bytes as usize).min(budget.total_bytes()),
    };
    let broker = Broker {
        env: env.clone(),
        config: config.clone(),
        groups: Groups::new(env.clone(), partitions.clone(), settings.clone()),
        producer_ids: ProducerIds::default(),
        partitions,
        metrics,
        gate: Gate,
        large_frames: Arc::new(Semaphore::new(1)),
        complaints: Complaints::default(),
        sessions: FetchSessions::new(given.fetch_session_slots as usize),
        limits,
        budget,
        settings,
        anonymous: "User:ANONYMOUS".into(),
        visible: ArcSwap::new(quorum.image()),
        quorum,
        applied: watch::Sender::new(0),
        disk_low: AtomicU64::new(0),
        epoch: std::sync::OnceLock::new(),
    };
    Ok((Arc::new(broker), tasks))
}

/// Acts on one image.
async fn follow(broker: &Arc<Broker>, image: &Arc<Image>, deltas: &[Delta], changes: u64) {
    broker.settings.follow(image);
    broker.partitions.apply(image, deltas).await;
    broker.visible.store(image.clone());
    broker.groups.follow(deltas).await;
    broker.applied.send_replace(changes);
}

async fn follow_all(broker: Arc<Broker>, mut watch: ImageWatch, stop: CancellationToken) {
    loop {
        let (image, deltas) = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = watch.changed() => changed,
        };
        follow(&broker, &image, &deltas, watch.seen()).await;
    }
}

/// Makes durable what a crash left in the page cache: clients must not see a log end that goes back.
async fn settle(broker: &Arc<Broker>) {
    let waits: Vec<_> = broker
        .partitions
        .all()
        .iter()
        .filter_map(crate::partition::Partition::settled)
        .collect();
    for wait in waits {
        // A log that cannot be made durable says so to whoever uses it.
        let _ = wait.await;
    }
}

/// Registers this start of the broker, and takes part: every log is open by now.
async fn register(broker: &Arc<Broker>, kafka_addr: SocketAddr, directory: Uuid) -> Result<(), StartError> {
    let config = &broker.config;
    let kafka = match &config.kafka_advertise {
        Some(advertised) => host_port(advertised)?,
        None => advertise(kafka_addr, &config.kafka_listen)?,
    };
    let cluster = host_port(
        config
            .cluster_advertise
            .as_deref()
            .unwrap_or(&config.cluster_listen),
    )?;
    let command = Command::RegisterBroker(RegisterBroker {
        broker: config.node_id,
        incarnation: broker.env.rng.uuid(),
        directory,
        clean: broker.partitions.were_closed_cleanly(),
        kafka,
        cluster,
        rack: config.rack.as_deref().map(Into::into),
        features: FeatureRange::OURS,
        at: broker.env.clock.wall(),
    });
    let refused = |why: String| StartError::Register(why);
    match broker
        .propose(command)
        .await
        .map_err(|error| refused(error.to_string()))?
    {
        Outcome::BrokerRegistered { epoch } => {
            let unfence = Command::UnfenceBroker(BrokerGuard {
                broker: config.node_id,
                epoch,
            });
            let outcome = broker
                .propose(unfence)
                .await
                .map_err(|error| refused(error.to_string()))?;
            if let Outcome::Refused(refusal) = outcome {
                return Err(refused(refusal.to_string()));
            }
            // Registered once in a process: nobody else sets it.
            let _ = broker.epoch.set(epoch);
            Ok(())
        }
        Outcome::Refused(refusal) => Err(refused(refusal.to_string())),
        other => Err(refused(format!("unexpected answer {other:?}"))),
    }
}

/// What clients are told where nothing else is said: the address as it was given, with the port that was taken.
fn advertise(bound: SocketAddr, given: &str) -> Result<HostPort, StartError> {
    let given = host_port(given)?;
    let host = match &*given.host {
        // "Every address" is none that a client could connect to.
        "0.0.0.0" => "127.0.0.1".into(),
        "::" => "::1".into(),
        _ => given.host,
    };
    Ok(HostPort {
        host,
        port: bound.port(),
    })
}

fn host_port(text: &str) -> Result<HostPort, StartError> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(HostPort::new(host, port.parse().ok()?))
    });
    parsed.ok_or_else(|| StartError::Register(format!("{text} is not HOST:PORT")))
}

/// What `meta.properties` says of a data directory.
#[derive(Clone, Copy)]
struct Identity {
    /// The cluster that it belongs to.
    cluster: Uuid,
    /// Its own name (Kafka's `directory.id`): the metadata knows by it that a disk was wiped or swapped.
    directory: Uuid,
}

/// The data directory and whose it is.
struct DataDir {
    env: Env,
    dir: PathBuf,
}

impl DataDir {
    /// Whose directory it is; `None` for a new one. Changes nothing.
    fn identity(&self, node_id: BrokerId) -> Result<Option<Identity>, StartError> {
        let path = self.dir.join(META_PROPERTIES);
        let disk = &*self.env.disk;
        let bytes = read_file(disk, &path, 64 * 1024).map_err(|source| self.disk(&path, source))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let damaged = |why: &str| StartError::Identity {
            path: path.clone(),
            why: why.to_owned(),
        };
        let text = String::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(str::trim)
        };
        let version: u32 = value("version")
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| damaged("it has no version"))?;
        if version > LAYOUT_VERSION {
            return Err(StartError::NewerVersion {
                dir: self.dir.clone(),
                found: version,
            });
        }
        let owner: i32 = value("node.id")
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| damaged("it has no node.id"))?;
        if owner != node_id.get() {
            return Err(StartError::WrongNode {
                dir: self.dir.clone(),
                found: owner,
                configured: node_id.get(),
            });
        }
        let id = |key: &str| value(key).and_then(|text| text.parse().ok());
        let identity = Identity {
            cluster: id("cluster.id").ok_or_else(|| damaged("it has no cluster.id"))?,
            directory: id("directory.id").ok_or_else(|| damaged("it has no directory.id"))?,
        };
        let metadata = self.dir.join(METADATA_DIR);
        if disk
            .stat(&metadata)
            .map_err(|source| self.disk(&metadata, source))?
            .is_none()
        {
            return Err(StartError::MetadataMissing {
                dir: self.dir.clone(),
            });
        }
        Ok(Some(identity))
    }

    /// Makes the directory, durably, and takes its lock.
    fn claim(&self) -> Result<Box<dyn DirLock>, StartError> {
        let disk = &*self.env.disk;
        let failed = |source| self.disk(&self.dir, source);
        if disk.stat(&self.dir).map_err(failed)?.is_none() {
            disk.create_dir_all(&self.dir).map_err(failed)?;
            for ancestor in self.dir.ancestors().skip(1) {
                let ancestor = if ancestor.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    ancestor
                };
                // Directories above the first that we made may not be ours to sync: what matters is our own names.
                if disk.sync_dir(ancestor).is_err() {
                    break;
                }
            }
        }
        disk.lock_dir(&self.dir).map_err(|source| {
            if source.kind() == io::ErrorKind::WouldBlock {
                StartError::InUse {
                    dir: self.dir.clone(),
                }
            } else {
                self.disk(&self.dir, source)
            }
        })
    }

    /// Writes whose directory it is, once the cluster has a name.
    fn sign(&self, node_id: BrokerId, identity: Identity) -> Result<(), StartError> {
        let path = self.dir.join(META_PROPERTIES);
        let Identity { cluster, directory } = identity;
        let text = format!(
            "version={LAYOUT_VERSION}\nnode.id={node_id}\ncluster.id={cluster}\ndirectory.id={directory}\n"
        );
        replace_file(&*self.env.disk, &path, text.as_bytes()).map_err(|source| self.disk(&path, source))
    }

    fn disk(&self, path: &Path, source: io::Error) -> StartError {
        StartError::Disk {
            path: path.to_owned(),
            source,
        }
    }
}

/// What administration asks of a node.
struct NodeAdmin {
    broker: Arc<Broker>,
}

impl AdminState for NodeAdmin {
    fn live(&self) -> Health {
        Health::ok()
    }

    fn ready(&self) -> Health {
        let mut reasons = Vec::new();
        if self.broker.epoch().is_none() {
            reasons.push("the broker has not registered yet".to_owned());
        }
        for partition in self.broker.partitions().all() {
            if let Some(why) = partition.offline() {
                reasons.push(format!("{}: {why}", partition.name()));
            }
        }
        if let Some(free_bytes) = self.broker.disk_nearly_full() {
            reasons.push(format!(
                "the disk is nearly full: {free_bytes} bytes are free, producers must wait"
            ));
        }
        Health::from_reasons(reasons)
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.broker.metrics().registry());
        text
    }
}
