//! openraft and all that it touches. Its types do not leave this folder.

mod convert;
mod log;
mod machine;
mod network;
mod server;
mod store;
#[cfg(test)]
mod suite;
mod types;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::metrics::RaftServerMetrics;
use openraft::{BasicNode, Config, RaftMetrics, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use skerry_env::{Env, Listener, TaskHandle};
use skerry_metadata_state::{Command, Outcome};
use skerry_proto::quorum::{self as proto, propose_reply};
use skerry_types::BrokerId;
use tokio::sync::watch;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;

use self::log::{Flusher, LogStore};
use self::machine::Machine;
use self::network::{Peer, Peers};
use self::server::Service;
use self::store::Store;
use self::types::{Proposal, Raft, Runtime, TypeConfig};
use crate::config::QuorumConfig;
use crate::errors::{ProposeError, StartError};
use crate::publish::Publisher;
use crate::status::{Leadership, MemberStatus, QuorumStatus, Role};

/// RocksDB's directory within the quorum's.
const RAFT_DIR: &str = "raft";
/// The first wait before a proposal looks for the leader again; it doubles up to [`RETRY_MAX`]. Right after an
/// election a leader refuses until its first heartbeat is answered: about a round trip.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(32);
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
    /// Connections to leaders, for forwarding, by node.
    leaders: tokio::sync::Mutex<BTreeMap<u64, Peer>>,
    stop_serving: watch::Sender<bool>,
    tasks: Mutex<Vec<TaskHandle>>,
}

/// What a node answers to a proposal that it does not forward.
pub(crate) enum Local {
    Applied { index: u64, outcome: Outcome },
    NotLeader { leader: Option<(u64, String)> },
}

fn raft_id(id: BrokerId) -> Option<u64> {
    u64::try_from(id.get()).ok()
}

/// A raft id was a broker's number before.
fn broker_id(id: u64) -> BrokerId {
    i32::try_from(id).map_or(BrokerId::NONE, BrokerId)
}

fn raft_config(config: &QuorumConfig) -> Result<Config, StartError> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let timings = config.timings;
    let raft = Config {
        cluster_name: "skerry".to_owned(),
        heartbeat_interval: millis(timings.heartbeat),
        election_timeout_min: millis(timings.election_min),
        election_timeout_max: millis(timings.election_max),
        install_snapshot_timeout: millis(timings.snapshot),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(config.snapshot_every_entries),
        max_in_snapshot_log_to_keep: (config.snapshot_every_entries / 10).min(1_000),
        purge_batch_size: (config.snapshot_every_entries / 10).clamp(1, 1_000),
        backoff: "100ms".to_owned(),
        enable_pre_vote: Some(true),
        // The commit point is saved without a sync: a restarted leader must ask for votes and commit an entry of its
        // new term before it knows what was committed.
        enable_leader_restore: Some(false),
        ..Config::default()
    };
    raft.validate()
        .map_err(|error| StartError::Config(error.to_string()))
}

impl Node {
    /// Opens the store and brings the state machine up. Does not look for a leader yet.
    pub(crate) async fn open(env: Env, config: QuorumConfig) -> Result<Self, StartError> {
        let raft_config = Arc::new(raft_config(&config)?);
        let id = raft_id(config.node_id)
            .ok_or_else(|| StartError::Config("node.id must not be negative".to_owned()))?;
        let dir = env.disk.external_path(&config.data_dir.join(RAFT_DIR));
        let (path, mark) = (dir.clone(), config.wal_mark.clone());
        let store = Arc::new(env.tasks.run_blocking(move || Store::open(&path, mark)).await?);
        let (flusher, task) = Flusher::start(&store, &env.tasks);
        let machine = Machine::load(Arc::clone(&store), flusher.clone(), env.tasks.clone())
            .map_err(|error| unreadable(&dir, &error))?;
        let publisher = Arc::clone(machine.publisher());
        let network = Peers {
            env: env.clone(),
            timings: config.timings,
        };
        let new = Raft::new(id, raft_config, network, LogStore::new(store, flusher), machine);
        let raft = Runtime::scope(env.rng.u64(), new)
            .await
            .map_err(|error| unreadable(&dir, &error))?;
        let inner = Inner {
            env,
            config,
            raft,
            publisher,
            leaders: tokio::sync::Mutex::default(),
            stop_serving: watch::Sender::new(false),
            tasks: Mutex::new(vec![task]),
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
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

    fn raft(&self) -> &Raft {
        &self.inner.raft
    }

    fn raft_id(&self) -> u64 {
        *self.inner.raft.node_id()
    }

    /// Runs a call of openraft where it finds its random numbers.
    fn scoped<F: Future>(&self, call: F) -> impl Future<Output = F::Output> {
        Runtime::scope(self.inner.env.rng.u64(), call)
    }

    /// Serves the quorum's and the broker's services until the shutdown.
    pub(crate) fn serve(&self, listener: Listener, mut routes: RoutesBuilder) {
        routes.add_service(Service::new(self.clone()));
        let incoming = server::connections(listener, self.inner.env.clock.clone());
        let mut stop = self.inner.stop_serving.subscribe();
        let router = Server::builder()
            .max_frame_size(1 << 20)
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

    /// Founds the cluster where this node's log is empty and it is a voter. A sole voter leads on return, and has
    /// applied all of its log.
    pub(crate) async fn join(&self) -> Result<(), StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Raft(error.to_string());
        let config = self.config();
        let mut voters = BTreeMap::new();
        for voter in &config.voters {
            let id =
                raft_id(voter.id).ok_or_else(|| StartError::Config("a voter's id is negative".to_owned()))?;
            voters.insert(id, BasicNode::new(voter.addr.clone()));
        }
        let founds = voters.contains_key(&self.raft_id());
        let initialized = self
            .scoped(self.raft().is_initialized())
            .await
            .map_err(|error| failed(&error))?;
        if founds && !initialized {
            // Every voter writes the same first entry. "Not allowed" says that a peer was quicker and leads already.
            match self.scoped(self.raft().initialize(voters)).await {
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(failed(&error)),
            }
        }
        if !self.is_sole_voter() {
            return Ok(());
        }
        if initialized {
            // Nobody else can win: no reason to wait for the timeout.
            self.scoped(self.raft().trigger().elect(false))
                .await
                .map_err(|error| failed(&error))?;
        }
        let caught_up = |metrics: &RaftMetrics<TypeConfig>| {
            metrics.state == ServerState::Leader
                && metrics.last_applied.map(|id| id.index) == metrics.last_log_index
                && metrics
                    .local_committed
                    .is_some_and(|id| id.leader_id.term == metrics.current_term)
        };
        let deadline = config.timings.propose;
        match self
            .inner
            .env
            .clock
            .timeout(deadline, self.wait_metrics(caught_up))
            .await
        {
            Ok(result) => result.map_err(StartError::Raft),
            Err(_) => Err(StartError::Raft(format!("no leader within {deadline:?}"))),
        }
    }

    /// What the log says, not the configuration: the membership may have changed since.
    fn is_sole_voter(&self) -> bool {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let mut voters = metrics.membership_config.membership().voter_ids();
        voters.next() == Some(metrics.id) && voters.next().is_none()
    }

    async fn wait_metrics(&self, wanted: impl Fn(&RaftMetrics<TypeConfig>) -> bool) -> Result<(), String> {
        let mut metrics = self.raft().metrics();
        loop {
            {
                let now = metrics.borrow_watched();
                now.running_state.as_ref().map_err(ToString::to_string)?;
                if wanted(&now) {
                    return Ok(());
                }
            }
            metrics.changed().await.map_err(|error| error.to_string())?;
        }
    }

    pub(crate) async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let deadline = self.config().timings.propose;
        match self
            .inner
            .env
            .clock
            .timeout(deadline, self.propose_anywhere(Arc::new(command)))
            .await
        {
            Ok(result) => result,
            Err(_) => Err(ProposeError::Timeout(deadline)),
        }
    }

    /// Asks whoever leads until somebody decides. The caller has a deadline.
    async fn propose_anywhere(&self, command: Arc<Command>) -> Result<Outcome, ProposeError> {
        let (mut hint, mut pause) = (None, RETRY_MIN);
        loop {
            let leader = hint.take().or_else(|| self.known_leader());
            let answer = match leader {
                Some((id, addr)) if id != self.raft_id() => self.propose_to(id, addr, &command).await,
                _ => self.propose_here(Arc::clone(&command)).await?,
            };
            match answer {
                Local::Applied { index, outcome } => {
                    self.inner.publisher.wait_applied(index).await;
                    return Ok(outcome);
                }
                Local::NotLeader { leader } => {
                    hint = leader.filter(|(id, _)| *id != self.raft_id());
                    self.inner.env.clock.sleep(pause).await;
                    pause = (pause * 2).min(RETRY_MAX);
                }
            }
        }
    }

    /// Proposes here and nowhere else; `None` where this node does not lead.
    pub(crate) async fn propose_as_leader(&self, command: Command) -> Result<Option<Outcome>, ProposeError> {
        let deadline = self.config().timings.propose;
        let propose = async {
            match self.propose_here(Arc::new(command)).await? {
                Local::Applied { index, outcome } => {
                    self.inner.publisher.wait_applied(index).await;
                    Ok(Some(outcome))
                }
                Local::NotLeader { .. } => Ok(None),
            }
        };
        match self.inner.env.clock.timeout(deadline, propose).await {
            Ok(result) => result,
            Err(_) => Err(ProposeError::Timeout(deadline)),
        }
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

    fn known_leader(&self) -> Option<(u64, String)> {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.current_leader?;
        let node = metrics.membership_config.membership().get_node(&id)?;
        Some((id, node.addr.clone()))
    }

    /// Proposes at this node, which may lead.
    pub(crate) async fn propose_here(&self, command: Arc<Command>) -> Result<Local, ProposeError> {
        match self.scoped(self.raft().client_write(Proposal(command))).await {
            Ok(written) => Ok(Local::Applied {
                index: written.log_id.index,
                outcome: written.data,
            }),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
                let leader = forward.leader_id.zip(forward.leader_node.map(|node| node.addr));
                Ok(Local::NotLeader { leader })
            }
            // The leadership went in between. The entry may be committed all the same: a retry does no harm.
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Ok(Local::NotLeader { leader: None })
            }
            Err(RaftError::APIError(
                error
                @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)),
            )) => unreachable!("a command is no change of the membership, and has no precondition: {error}"),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        }
    }

    /// Hands a command to the node that seems to lead. No answer counts as "not the leader": a command that was taken
    /// all the same does no harm the second time.
    async fn propose_to(&self, id: u64, addr: String, command: &Command) -> Local {
        let mut leaders = self.inner.leaders.lock().await;
        let known = leaders.remove(&id).filter(|peer| peer.addr() == addr);
        drop(leaders);
        let mut peer = known.unwrap_or_else(|| Peer::new(self.inner.env.clone(), id, addr));
        let request = proto::ProposeRequest {
            command: command.encode().into(),
        };
        let deadline = self.config().timings.election_max * 2;
        let reply = peer
            .call(
                deadline,
                |mut client| async move { client.propose(request).await },
            )
            .await;
        self.inner.leaders.lock().await.insert(id, peer);
        let result = match reply {
            Ok(reply) => reply.result,
            Err(error) => {
                tracing::debug!(%error, "a proposal was not answered");
                None
            }
        };
        match result {
            Some(propose_reply::Result::Applied(applied)) => match Outcome::decode(&applied.outcome) {
                Ok(outcome) => Local::Applied {
                    index: applied.index,
                    outcome,
                },
                Err(error) => {
                    tracing::warn!(%error, "the leader's answer cannot be read");
                    Local::NotLeader { leader: None }
                }
            },
            Some(propose_reply::Result::NotLeader(elsewhere)) => Local::NotLeader {
                leader: elsewhere.leader.map(|leader| (leader.id, leader.addr)),
            },
            None => Local::NotLeader { leader: None },
        }
    }

    pub(crate) fn status(&self) -> QuorumStatus {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let matched = |id: &u64| {
            let replication = metrics.replication.as_ref()?;
            Some(replication.get(id)?.as_ref().map_or(0, |log_id| log_id.index))
        };
        QuorumStatus {
            node_id: self.config().node_id,
            role: match metrics.state {
                _ if metrics.running_state.is_err() => Role::Stopped,
                ServerState::Learner => Role::Learner,
                ServerState::Follower => Role::Follower,
                ServerState::Candidate => Role::Candidate,
                ServerState::Leader => Role::Leader,
                ServerState::Shutdown => Role::Stopped,
            },
            term: metrics.current_term,
            leader: metrics.current_leader.map(broker_id),
            last_log_index: metrics.last_log_index.unwrap_or(0),
            applied_index: metrics.last_applied.map_or(0, |id| id.index),
            snapshot_index: metrics.snapshot.map_or(0, |id| id.index),
            purged_index: metrics.purged.map_or(0, |id| id.index),
            members: membership
                .nodes()
                .map(|(id, node)| MemberStatus {
                    id: broker_id(*id),
                    addr: node.addr.clone(),
                    voter: voters.contains(id),
                    matched_index: matched(id),
                })
                .collect(),
        }
    }

    pub(crate) async fn transfer_leader(&self, to: BrokerId) -> Result<(), ProposeError> {
        let Some(to) = raft_id(to) else { return Ok(()) };
        self.scoped(self.raft().trigger().transfer_leader(to))
            .await
            .map_err(|fatal| stopped(&fatal))
    }

    pub(crate) async fn snapshot_now(&self) -> Result<(), ProposeError> {
        self.scoped(self.raft().trigger().snapshot())
            .await
            .map_err(|fatal| stopped(&fatal))
    }

    pub(crate) async fn shutdown(&self) {
        self.inner.stop_serving.send_replace(true);
        // It may have stopped by itself.
        drop(self.scoped(self.raft().shutdown()).await);
        self.inner.leaders.lock().await.clear();
        let tasks = std::mem::take(&mut *self.inner.tasks.lock());
        for task in tasks {
            // A peer's connection, or a clone of this handle, may keep a task alive: it has nothing left to do.
            let _ = self.inner.env.clock.timeout(DRAIN, task.join()).await;
        }
    }
}

fn leadership(metrics: &RaftServerMetrics<TypeConfig>) -> Leadership {
    Leadership {
        term: metrics.vote.leader_id.term,
        leader: metrics.current_leader.map(broker_id),
        here: metrics.state == ServerState::Leader,
    }
}

fn stopped(fatal: &Fatal<TypeConfig>) -> ProposeError {
    ProposeError::Stopped(fatal.to_string())
}

fn unreadable(dir: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError::Damaged {
        path: dir.to_owned(),
        reason: error.to_string(),
    }
}
