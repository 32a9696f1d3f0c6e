//! A whole node: everything that `skerry start` starts, in the order in which it may start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use skerry_env::disk::DirLock;
use skerry_env::{Env, Listener, TaskHandle};
use skerry_metadata::{ImageWatch, Quorum, QuorumConfig, Role, Timings, Voter, WalMark};
use skerry_metadata_state::{Delta, Image};
use skerry_types::{BUGGIFY_LATE, Uuid, buggify, is_planted};
use thiserror::Error;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use crate::admin_http::{self, Health};
use crate::broker::{Broker, ConnectionLimits};
use crate::budget::Budget;
use crate::config::{BrokerConfig, BrokerLayers, NodeConfig};
use crate::controller::{self, Mailbox};
use crate::data_dir::{DataDir, Identity, LAYOUT_VERSION, LOG_DIR, METADATA_DIR};
use crate::disk_room::{self, DiskRoom};
use crate::flusher::{self, FlushQueue};
use crate::gate::Gate;
use crate::groups::Groups;
use crate::health::{self, NodeHealth};
use crate::kafka::listener;
use crate::kafka::sessions::FetchSessions;
use crate::maintenance;
use crate::metrics::Metrics;
use crate::partition::{Common, Partition};
use crate::partitions::Partitions;
use crate::peers::Complaints;
use crate::producer_ids::ProducerIds;
use crate::registration;
use crate::replication::Replication;
use crate::scrub;
use crate::session;
use crate::settings::Settings;
use crate::standing::Standing;

/// How often to look whether the node can still go on.
const FAILURE_LOOK: Duration = Duration::from_millis(500);
/// A start that takes longer turns Kafka clients away, so that they try another node instead of waiting here.
const TURN_AWAY_AFTER: Duration = Duration::from_secs(1);
/// After an accept that failed: the system is out of descriptors, and more tries at once would not help.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Logs that are made durable at a time at the start.
const FLUSHED_AT_ONCE: usize = 8;

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
    /// Entries of the metadata log between two snapshots of it; the default's where it is not said.
    pub snapshot_every_entries: Option<u64>,
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
    let mut kafka = bind(&env, &config.kafka_listen, "listeners").await?;
    let admin = bind(&env, &config.admin_listen, "admin.listen").await?;
    // The quorum listens by itself, when its store is open: whether it will be able to is known here.
    drop(bind(&env, &config.cluster_listen, "cluster.listen").await?);
    let (kafka_addr, admin_addr) = (kafka.local_addr(), admin.local_addr());
    let directory = DataDir {
        env: env.clone(),
        dir: config.data_dir.clone(),
    };
    let identity = directory.identity(config.node_id)?;
    directory.has_room()?;
    let lock = directory.claim()?;
    let stop = Stop::default();
    let start = Start {
        env: env.clone(),
        config: config.clone(),
        directory,
        health: Arc::new(NodeHealth::default()),
        stop: stop.clone(),
    };
    let admin = admin_http::start(&env, admin, start.health.clone(), stop.front.clone());
    let joined = tokio::select! {
        biased;
        joined = start.join(hooks, identity, kafka_addr) => joined,
        () = turn_away(&env, &mut kafka) => unreachable!("it goes on until it is dropped"),
    };
    let Joined {
        broker,
        mailbox,
        mut tasks,
    } = match joined {
        Ok(joined) => joined,
        Err(error) => {
            stop.front.cancel();
            stop.back.cancel();
            return Err(error);
        }
    };
    tasks.push(admin);
    settle(&broker).await;
    broker.groups.start(&broker).await;
    tasks.push(disk_room::watch(&broker, stop.front.clone()));
    let upkeep = maintenance::start(&broker, stop.upkeep.clone());
    tasks.push(scrub::start(&broker, stop.upkeep.clone()));
    tasks.push(session::start(&broker, mailbox, stop.back.clone()));
    tasks.push(session::watch_standing(&broker, stop.upkeep.clone()));
    // As in Kafka, clients come last. A node that does not take part yet leads nothing, and may know of nobody who does:
    // whoever asked it would be told of a cluster without brokers.
    if !is_planted("fenced-nodes-name-nobody") {
        tokio::select! {
            biased;
            () = registration::unfenced(&broker) => {}
            () = turn_away(&env, &mut kafka) => unreachable!("it goes on until it is dropped"),
        }
    }
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

/// A node that is starting.
struct Start {
    env: Env,
    config: Arc<NodeConfig>,
    directory: DataDir,
    health: Arc<NodeHealth>,
    stop: Stop,
}

impl Start {
    /// Opens everything, waits for a majority of the quorum, and registers: every log is open on return.
    async fn join(
        &self,
        hooks: Hooks,
        identity: Option<Identity>,
        kafka_addr: SocketAddr,
    ) -> Result<Joined, StartError> {
        let known = identity.map(|identity| identity.cluster_id);
        let (mailbox, inbox) = controller::mailbox();
        let metrics = Arc::new(Metrics::default());
        let settings = Arc::new(Settings::new(self.config.node_id, self.config.given.clone()));
        let replication = Replication::new(self.env.clone(), settings, metrics, self.stop.back.child_token());
        let quorum = self
            .start_quorum(known, hooks, mailbox.clone(), &replication)
            .await?;
        let (broker, mut tasks) = build(&self.env, &self.config, quorum, &self.stop, replication)?;
        broker.replication.start(&broker);
        self.health.opened(&broker);
        // The others may need it before this broker is registered.
        tasks.push(controller::start(&broker, inbox, self.stop.back.clone()));
        let found = registration::caught_up(&self.env, broker.quorum()).await?;
        let identity = match identity {
            None => {
                let identity = Identity {
                    cluster_id: found,
                    directory_id: broker.quorum().directory(),
                };
                self.directory.sign(self.config.node_id, identity)?;
                identity
            }
            Some(identity) if identity.cluster_id == found => identity,
            Some(identity) => {
                let wanted = identity.cluster_id;
                return Err(skerry_metadata::StartError::OtherCluster { found, wanted }.into());
            }
        };
        let mut members = broker.quorum.status().members.into_iter();
        if members.any(|member| !member.note.is_empty()) {
            broker.partitions.keep_strays();
        }
        let watch = broker.quorum.watch();
        let image = watch.image();
        follow(&broker, &image, &[Delta::Reset], watch.seen()).await;
        let following = follow_all(broker.clone(), watch, self.stop.back.clone());
        tasks.push(self.env.tasks.spawn("metadata-follower", following));
        let epoch = registration::register(&broker, kafka_addr, identity.directory_id).await?;
        // Registered once in a process: nobody else sets it.
        let _ = broker.epoch.set(epoch);
        Ok(Joined {
            broker,
            mailbox,
            tasks,
        })
    }

    async fn start_quorum(
        &self,
        cluster_id: Option<Uuid>,
        hooks: Hooks,
        mailbox: Mailbox,
        replication: &Arc<Replication>,
    ) -> Result<Quorum, StartError> {
        let (env, config) = (&self.env, &self.config);
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
        quorum.advertise.clone_from(&config.cluster_advertise);
        quorum.cluster_id = cluster_id;
        let given = BrokerConfig::resolve(BrokerLayers::given(&config.given));
        quorum.timings = Timings::from_election_timeout(given.quorum_fetch_timeout);
        quorum.wal_mark = hooks.wal_mark;
        quorum.snapshot_every_entries = hooks
            .snapshot_every_entries
            .unwrap_or(quorum.snapshot_every_entries);
        let started = Quorum::start(env.clone(), quorum, |quorum, routes| {
            let stop = self.stop.back.clone();
            let sessions = session::Service::new(env.clock.clone(), quorum.clone(), mailbox, stop);
            routes.add_service(sessions);
            replication.serve(routes);
        });
        Ok(started.await?)
    }
}

/// A node that is registered and not serving yet.
struct Joined {
    broker: Arc<Broker>,
    mailbox: Mailbox,
    tasks: Vec<TaskHandle>,
}

/// Closes what clients open while the node cannot serve them yet. A start is quick where nobody else is needed for it:
/// then they wait for that moment instead.
async fn turn_away(env: &Env, listener: &mut Listener) {
    env.clock.sleep(TURN_AWAY_AFTER).await;
    loop {
        match listener.accept().await {
            Ok(conn) => drop(conn),
            Err(_) => env.clock.sleep(ACCEPT_PAUSE).await,
        }
    }
}

impl RunningNode {
    /// The broker, for tests and the simulator.
    #[must_use]
    pub fn broker(&self) -> &Arc<Broker> {
        &self.broker
    }

    /// Whether the node serves, as `/health/ready` tells it.
    #[must_use]
    pub fn health(&self) -> Health {
        health::ready(&self.broker)
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
                let why = self.broker.quorum.trouble();
                let why = why.map_or_else(|| "its store failed".to_owned(), |trouble| trouble.to_string());
                return format!("the metadata quorum has stopped: {why}");
            }
            if let Some(why) = registration::lost(&self.broker) {
                return why;
            }
        }
    }

    /// Ends the node cleanly: its leaderships go to others, no new connections, everything on disk, nothing to recover
    /// at the next start.
    pub async fn shutdown(self) {
        let broker = &self.broker;
        if broker.settings.broker().controlled_shutdown {
            registration::drain(broker).await;
        }
        while is_planted("clients-hold-up-the-stop") && broker.metrics().connections_open.get() > 0 {
            broker.env().clock.sleep(Duration::from_millis(100)).await;
        }
        self.stop.front.cancel();
        broker.groups.stop().await;
        self.stop.upkeep.cancel();
        self.upkeep.join().await;
        broker.partitions.close().await;
        registration::say_goodbye(broker).await;
        self.stop.back.cancel();
        self.broker.replication.stop().await;
        for task in self.tasks {
            task.join().await;
        }
        // Its leadership of the quorum, if it has it, goes to another voter first.
        broker.quorum.clone().shutdown().await;
    }
}

async fn bind(env: &Env, addr: &str, setting: &'static str) -> Result<Listener, StartError> {
    env.net.bind(addr).await.map_err(|source| StartError::Listen {
        addr: addr.to_owned(),
        setting,
        source,
    })
}

fn build(
    env: &Env,
    config: &Arc<NodeConfig>,
    quorum: Quorum,
    stop: &Stop,
    replication: Arc<Replication>,
) -> Result<(Arc<Broker>, Vec<TaskHandle>), StartError> {
    let log_dir = Arc::new(config.data_dir.join(LOG_DIR));
    let flushes = Arc::new(FlushQueue::default());
    let (settings, metrics) = (replication.settings().clone(), replication.metrics().clone());
    let standing = Arc::new(Standing::default());
    let disk_room = {
        let (disk, dir) = (env.disk.clone(), config.data_dir.clone());
        let space = move || disk.space(&dir);
        Arc::new(DiskRoom::new(space, config.disk_reserve_bytes, metrics.clone()))
    };
    let common = Common {
        me: config.node_id,
        flushes: flushes.clone(),
        standing: standing.clone(),
        disk_room: disk_room.clone(),
        clock: env.clock.clone(),
    };
    let partitions = Partitions::open(
        env.clone(),
        log_dir.clone(),
        common,
        replication.clone(),
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
        replication,
        metrics,
        gate: Gate,
        large_frames: Arc::new(Semaphore::new(1)),
        complaints: Complaints::default(),
        sessions: FetchSessions::new(given.fetch_session_slots as usize),
        limits,
        budget,
        settings,
        anonymous: "User:ANONYMOUS".into(),
        standing,
        visible: ArcSwap::new(quorum.image()),
        quorum,
        applied: watch::Sender::new(0),
        disk_room,
        epoch: std::sync::OnceLock::new(),
        catching_up: Mutex::default(),
    };
    Ok((Arc::new(broker), tasks))
}

/// Acts on one image.
async fn follow(broker: &Arc<Broker>, image: &Arc<Image>, deltas: &[Delta], changes: u64) {
    if buggify("metadata-heard-late", 10) {
        broker.env().clock.sleep(BUGGIFY_LATE).await;
    }
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
    let dirty = |partition: &Arc<Partition>| {
        let ends = partition.with_log(|log| (log.durable_end(), log.log_end()));
        ends.is_some_and(|(durable, end)| durable < end)
    };
    let partitions = broker.partitions.all().into_iter().filter(dirty);
    stream::iter(partitions.map(|partition| make_durable(broker, partition)))
        .buffered(FLUSHED_AT_ONCE)
        .collect::<Vec<()>>()
        .await;
}

async fn make_durable(broker: &Broker, partition: Arc<Partition>) {
    let Some(job) = partition.start_flush() else {
        return;
    };
    let flush = move || {
        let result = job.run();
        (job, result)
    };
    let (job, result) = broker.env.tasks.run_blocking(flush).await;
    // A log that cannot be made durable says so to whoever uses it.
    drop(partition.finish_flush(job, result, false));
}
