//! openraft and all that it touches. Its types do not leave this folder.

mod ask;
mod attend;
mod convert;
#[cfg(test)]
mod damage;
mod describe;
mod found;
#[cfg(test)]
mod full_disk;
mod log;
mod machine;
mod members;
mod network;
mod recover;
mod room;
mod runtime;
mod server;
mod snapshot;
mod store;
#[cfg(test)]
mod suite;
mod synced;
mod types;

use std::future::Future;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::Fatal;
use openraft::{Config, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use skerry_env::{Env, Listener, TaskHandle};
use skerry_metadata_state::{Command, Image, Outcome};
use skerry_types::{BrokerId, Instant, Uuid, WallMs, buggify, is_planted};
use tokio::sync::watch;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tower::util::MapResponseLayer;

use self::ask::{AskError, Askers, Describe, Links, Propose, ReadIndex};
use self::found::votes_alone;
use self::log::{Flusher, LogStore};
use self::machine::Machine;
use self::members::Change;
use self::network::{AddressBook, Peers};
use self::room::Room;
use self::runtime::Moment;
use self::server::Service;
use self::snapshot::Snapshots;
use self::store::Store;
use self::synced::Synced;
use self::types::{Raft, ServerMetrics, TypeConfig};
use crate::config::QuorumConfig;
use crate::errors::{ChangeRefused, MembershipError, ProposeError, ReadError, StartError};
use crate::publish::Publisher;
use crate::status::{Leadership, QuorumStatus, StoreTrouble};

pub use self::recover::Survivor;

/// RocksDB's directory within the quorum's.
const RAFT_DIR: &str = "raft";
/// The longest wait of a shutdown for connections to end.
const DRAIN: Duration = Duration::from_millis(500);

/// This node's raft. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    env: Env,
    config: QuorumConfig,
    raft: Raft,
    publisher: Arc<Publisher>,
    /// This node's address for the others.
    addr: String,
    directory: Uuid,
    /// Gone with the shutdown: it holds the store open, and clones of this node may outlive that.
    snapshots: Mutex<Option<Snapshots>>,
    /// The store had a log or a vote when it was opened.
    had_log: bool,
    links: Links,
    askers: Mutex<Askers>,
    started: WallMs,
    /// When a leader's message was taken last.
    leader_heard: Mutex<Option<Instant>>,
    book: Arc<AddressBook>,
    /// Held by whoever changes the members at this node.
    changing: tokio::sync::Mutex<()>,
    stop_serving: watch::Sender<bool>,
    room: Room,
    /// Weak: it closes with the raft.
    store: Weak<Store>,
    tasks: Mutex<Vec<TaskHandle>>,
}

fn raft_id(id: BrokerId) -> Option<u64> {
    u64::try_from(id.get()).ok()
}

/// A raft id was a broker's number before.
fn broker_id(id: u64) -> BrokerId {
    i32::try_from(id).map_or(BrokerId::NONE, BrokerId)
}

/// Who made an entry: the term, and the node that led in it.
fn made_by(entry: &types::LogId) -> (u64, BrokerId) {
    (entry.leader_id.term, broker_id(entry.leader_id.node_id))
}

fn raft_config(config: &QuorumConfig) -> Result<Config, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let timings = config.timings;
    let raft = Config {
        cluster_name: "skerry".to_owned(),
        heartbeat_interval: millis(timings.heartbeat),
        election_timeout_min: millis(timings.election_min),
        election_timeout_max: millis(timings.lease),
        install_snapshot_timeout: millis(timings.snapshot),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every_entries),
        max_in_snapshot_log_to_keep: (config.snapshot_every_entries / 10).min(1_000),
        purge_batch_size: (config.snapshot_every_entries / 10).clamp(1, 1_000),
        backoff: "100ms".to_owned(),
        enable_pre_vote: Some(!is_planted("raft-without-pre-vote")),
        // The commit point is saved without a sync: a restarted leader must ask for votes and commit an entry of its
        // new term before it knows what was committed.
        enable_leader_restore: Some(false),
        // A voter whose disk had not kept what it had synced, or that was put back to an older copy of its disk, is sent what
        // it lacks. Without this its leader panics in debug builds, and in others never sends it anything again.
        allow_log_reversion: Some(!is_planted("reverted-voter-stays-behind")),
        ..Config::default()
    };
    raft.validate()
        .map_err(|error| StartError::Config(error.to_string()))
}

impl Node {
    /// Opens the store and brings the state machine up. Does not look for a leader yet. `addr` is this node's address
    /// for the others.
    pub(crate) async fn open(
        env: Env,
        config: QuorumConfig,
        addr: String,
        directory: Uuid,
    ) -> Result<Self, StartError> {
        let raft_config = Arc::new(raft_config(&config)?);
        let id = raft_id(config.node_id)
            .ok_or_else(|| StartError::Config("node.id must not be negative".to_owned()))?;
        let dir = env.disk.external_path(&config.data_dir.join(RAFT_DIR));
        let synced = Synced::open(&*env.disk, &config.data_dir).map_err(|source| StartError::Io {
            path: config.data_dir.clone(),
            source,
        })?;
        let (path, mark) = (dir.clone(), config.wal_mark.clone());
        let opened = env
            .tasks
            .run_blocking(move || Store::open(&path, Some(synced), mark));
        let store = Arc::new(opened.await?);
        let had_log = store.is_used().map_err(|error| unreadable(&dir, &error))?;
        let (flusher, task) = Flusher::start(&store, &env.tasks);
        let stop_serving = watch::Sender::new(false);
        let room = Room::new(&env, config.data_dir.clone(), stop_serving.subscribe());
        let machine = Machine::load(
            Arc::clone(&store),
            flusher.clone(),
            env.tasks.clone(),
            room.clone(),
        )
        .map_err(|error| unreadable(&dir, &error))?;
        let weak_store = Arc::downgrade(&store);
        let publisher = Arc::clone(machine.publisher());
        let snapshots = machine.snapshots().clone();
        let book = Arc::new(AddressBook::default());
        let network = Peers {
            env: env.clone(),
            timings: config.timings,
            book: Arc::clone(&book),
        };
        let new = Raft::new(
            id,
            raft_config,
            network,
            LogStore::new(store, flusher, room.clone()),
            machine,
        );
        let raft = runtime::scope(&env, new)
            .await
            .map_err(|error| unreadable(&dir, &error))?;
        let started = env.clock.wall();
        let inner = Inner {
            env,
            config,
            raft,
            publisher,
            addr,
            directory,
            snapshots: Mutex::new(Some(snapshots)),
            had_log,
            links: Links::default(),
            askers: Mutex::default(),
            started,
            leader_heard: Mutex::default(),
            book,
            changing: tokio::sync::Mutex::default(),
            stop_serving,
            room,
            store: weak_store,
            tasks: Mutex::new(vec![task]),
        };
        let node = Self {
            inner: Arc::new(inner),
        };
        node.spawn("quorum-keep", node.clone().keep());
        node.spawn("quorum-attend", node.clone().attend_leaders());
        Ok(node)
    }

    /// Runs `work` until it ends, or until the shutdown, which waits for it.
    fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let mut stop = self.stopping();
        let task = self.env().tasks.spawn(name, async move {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => {}
                () = work => {}
            }
        });
        self.inner.tasks.lock().push(task);
    }

    pub(crate) fn env(&self) -> &Env {
        &self.inner.env
    }

    pub(crate) fn config(&self) -> &QuorumConfig {
        &self.inner.config
    }

    pub(crate) fn publisher(&self) -> &Arc<Publisher> {
        &self.inner.publisher
    }

    fn snapshots(&self) -> Option<Snapshots> {
        self.inner.snapshots.lock().clone()
    }

    fn links(&self) -> &Links {
        &self.inner.links
    }

    /// Who has asked this node since it leads.
    fn askers(&self) -> &Mutex<Askers> {
        &self.inner.askers
    }

    /// By the wall clock: it tells the lives of a node apart, and no order.
    fn started(&self) -> WallMs {
        self.inner.started
    }

    fn book(&self) -> &AddressBook {
        &self.inner.book
    }

    fn changing(&self) -> &tokio::sync::Mutex<()> {
        &self.inner.changing
    }

    fn addr(&self) -> &str {
        &self.inner.addr
    }

    /// The identity of this node's data directory.
    pub(crate) fn directory(&self) -> Uuid {
        self.inner.directory
    }

    /// It has a log, or has voted: a cluster exists.
    fn is_initialized(&self) -> bool {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        // Metrics are empty until openraft has begun.
        self.inner.had_log || metrics.last_log_index.is_some() || metrics.current_term > 0
    }

    fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    fn raft_id(&self) -> u64 {
        *self.inner.raft.node_id()
    }

    /// True when the services are to end.
    fn stopping(&self) -> watch::Receiver<bool> {
        self.inner.stop_serving.subscribe()
    }

    /// Runs a call of openraft where it finds its world.
    fn scoped<F: Future>(&self, call: F) -> impl Future<Output = F::Output> {
        runtime::scope(&self.inner.env, call)
    }

    /// How long ago `moment` was.
    fn since(&self, moment: Moment) -> Duration {
        self.env().clock.now() - moment.0
    }

    /// Serves the quorum's and the broker's services until the shutdown.
    pub(crate) fn serve(&self, listener: Listener, mut routes: RoutesBuilder) {
        routes.add_service(Service::new(self.clone()));
        let incoming = server::connections(listener, self.inner.env.clock.clone());
        let mut stop = self.stopping();
        let router = Server::builder()
            .max_frame_size(1 << 20)
            .initial_stream_window_size(1 << 20)
            .layer(MapResponseLayer::new(server::with_a_fixed_date))
            .add_routes(routes.routes());
        let serving = async move {
            let stopped = async move {
                let _ = stop.wait_for(|stop| *stop).await;
            };
            if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped).await {
                tracing::error!(%error, "the cluster port is no longer served");
            }
        };
        let task = self.inner.env.tasks.spawn("cluster-port", serving);
        self.inner.tasks.lock().push(task);
    }

    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        // The start of a node that founds a cluster alone ends where it hears nothing: a person starts it again.
        let founds = matches!(command, Command::InitCluster { .. });
        let applied = self.ask(&Propose(Arc::new(command))).await?;
        self.wait_applied(applied.index).await?;
        if buggify("snapshot-at-once", 4) {
            self.snapshot_now().await?;
        }
        if !founds && buggify("outcome-not-known", 10) {
            return Err(ProposeError::Timeout(self.config().timings.propose));
        }
        Ok(applied.outcome)
    }

    /// The image, not older than the moment of the call.
    pub(crate) async fn read(&self) -> Result<Arc<Image>, ReadError> {
        let index = self.ask(&ReadIndex).await?;
        self.wait_applied(index).await?;
        Ok(self.publisher().image())
    }

    /// Waits until the entry at `index`, which is committed, is visible here.
    async fn wait_applied(&self, index: u64) -> Result<(), AskError> {
        let deadline = self.config().timings.propose;
        let applied = self.publisher().wait_applied(index);
        let waited = self.env().clock.timeout(deadline, applied).await;
        waited.map_err(|_| AskError::Timeout(deadline))
    }

    pub(crate) async fn status_of_leader(&self) -> Result<QuorumStatus, ReadError> {
        Ok(self.ask(&Describe).await?)
    }

    /// Proposes here and nowhere else; `None` where this node does not lead.
    pub(crate) async fn propose_as_leader(&self, command: Command) -> Result<Option<Outcome>, ProposeError> {
        let deadline = self.config().timings.propose;
        let question = Propose(Arc::new(command));
        let asking = self.ask_here(&question);
        let applied = self.env().clock.timeout(deadline, asking).await;
        let Some(applied) = applied.unwrap_or(Err(AskError::Timeout(deadline)))? else {
            return Ok(None);
        };
        self.wait_applied(applied.index).await?;
        Ok(Some(applied.outcome))
    }

    /// How long ago the leader was heard of last.
    fn leader_contact(&self) -> Option<Duration> {
        let heard = (*self.inner.leader_heard.lock())?;
        Some(self.env().clock.now() - heard)
    }

    /// A message of the leader was taken.
    fn leader_is_heard(&self) {
        *self.inner.leader_heard.lock() = Some(self.env().clock.now());
    }

    /// Why this node takes no part in decisions, where that is for its disk.
    pub(crate) fn trouble(&self) -> Option<StoreTrouble> {
        let failure = self.inner.store.upgrade().and_then(|store| store.failure());
        let lacking = || self.inner.room.lacking();
        failure
            .map(StoreTrouble::Failed)
            .or_else(|| lacking().map(|free_bytes| StoreTrouble::NoRoom { free_bytes }))
    }

    /// For how long a leader answers alone after a majority has heard from it. Shorter than the lease that voters
    /// honour: clocks may run at slightly different rates.
    fn lease_of_reads(&self) -> Duration {
        self.config().timings.lease * 3 / 4
    }

    pub(crate) fn leads_surely(&self) -> bool {
        if self.decides_alone() {
            return true;
        }
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        metrics.state == ServerState::Leader
            && metrics
                .last_quorum_acked
                .is_some_and(|acked| self.since(*acked) < self.lease_of_reads())
    }

    pub(crate) fn decides_alone(&self) -> bool {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        metrics.state == ServerState::Leader && votes_alone(&metrics)
    }

    pub(crate) fn leadership(&self) -> Leadership {
        leadership(&self.raft().server_metrics().borrow_watched())
    }

    pub(crate) async fn leadership_changed(&self, known: Leadership) -> Leadership {
        let mut metrics = self.raft().server_metrics();
        loop {
            let now = leadership(&metrics.borrow_watched());
            if now != known {
                return now;
            }
            if metrics.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(crate) async fn add_voter(&self, id: BrokerId) -> Result<(), MembershipError> {
        self.change(id, Change::AddVoter).await
    }

    pub(crate) async fn remove_voter(&self, id: BrokerId) -> Result<(), MembershipError> {
        self.change(id, Change::RemoveVoter).await
    }

    pub(crate) async fn remove_learner(&self, id: BrokerId) -> Result<(), MembershipError> {
        self.change(id, Change::RemoveLearner).await
    }

    async fn change(&self, id: BrokerId, change: fn(u64) -> Change) -> Result<(), MembershipError> {
        let raft_id = raft_id(id).ok_or(ChangeRefused::UnknownNode(id))?;
        Ok(self.ask(&change(raft_id)).await??)
    }

    pub(crate) async fn transfer_leader(&self, to: BrokerId) -> Result<(), ProposeError> {
        let Some(to) = raft_id(to).filter(|to| *to != self.raft_id()) else {
            return Ok(());
        };
        let knows = self
            .status()
            .voters()
            .any(|voter| raft_id(voter.id) == Some(to) && voter.last_contact.is_some());
        if knows {
            self.transfer(to).await;
        }
        Ok(())
    }

    pub(crate) async fn snapshot_now(&self) -> Result<(), ProposeError> {
        self.scoped(self.raft().trigger().snapshot())
            .await
            .map_err(|fatal| stopped(&fatal).into())
    }

    pub(crate) async fn shutdown(&self) {
        // Where nobody takes over, the others elect when they miss this node.
        let _ = self.hand_over().await;
        self.inner.stop_serving.send_replace(true);
        // It may have stopped by itself.
        drop(self.scoped(self.raft().shutdown()).await);
        self.inner.links.clear();
        self.inner.snapshots.lock().take();
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        for task in tasks {
            // A peer's connection, or a clone of this handle, may keep a task alive: it has nothing left to do.
            let _ = self.inner.env.clock.timeout(DRAIN, task.join()).await;
        }
    }
}

fn leadership(metrics: &ServerMetrics) -> Leadership {
    Leadership {
        term: metrics.vote.leader_id.term,
        leader: metrics.current_leader.map(broker_id),
        here: metrics.state == ServerState::Leader,
    }
}

fn stopped(fatal: &Fatal<TypeConfig>) -> AskError {
    AskError::Stopped(fatal.to_string())
}

fn unreadable(dir: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError::Damaged {
        path: dir.to_owned(),
        reason: error.to_string(),
    }
}
