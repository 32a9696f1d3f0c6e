//! How a node becomes a member: it founds the cluster with the others, or joins the one that exists.

use std::collections::BTreeMap;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{InitializeError, RaftError};
use openraft::{RaftMetrics, ServerState};
use skerry_proto::quorum as proto;
use skerry_types::{Uuid, is_planted};

use super::ask::AskError;
use super::members::Change;
use super::types::{Member, ServerMetrics, TypeConfig};
use super::{Node, broker_id, convert, raft_id};
use crate::config::Voter;
use crate::errors::{ChangeRefused, StartError};

/// The first wait before the others are asked again; it doubles up to [`AGAIN_MAX`].
const AGAIN_MIN: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_millis(640);
/// Another voter answers within this time, or counts as not there.
const ANSWER_MAX: Duration = Duration::from_millis(500);
/// A node that waits says so this often.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);
/// A node that has heard no leader for so long asks whether it is a member.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(2);

/// What an empty voter learns from another one.
enum Found {
    /// It is as empty.
    Empty(Member),
    /// It has a log: a cluster exists.
    Member,
    /// It does not answer, or somebody else does.
    Nobody,
}

impl Node {
    /// Takes part: founds the cluster, or joins it. A sole voter leads on return and has applied all of its log; any
    /// other node goes on with it in the background.
    pub(crate) async fn join(&self) -> Result<(), StartError> {
        let failed = |error: &dyn std::fmt::Display| StartError::Raft(error.to_string());
        let initialized = self
            .scoped(self.raft().is_initialized())
            .await
            .map_err(|error| failed(&error))?;
        let config = self.config();
        if !initialized && config.is_sole_voter() {
            let me = BTreeMap::from([(self.raft_id(), self.member())]);
            self.initialize(me).await.map_err(|error| failed(&error))?;
        }
        if self.is_sole_voter() {
            return self.lead_alone(initialized).await;
        }
        let node = self.clone();
        self.spawn("quorum-join", async move {
            if !initialized
                && node
                    .config()
                    .voters
                    .iter()
                    .any(|voter| voter.id == node.config().node_id)
            {
                node.found().await;
            }
            node.enter().await;
            node.stay().await;
        });
        Ok(())
    }

    /// Nobody else can win: no reason to wait for the timeout.
    async fn lead_alone(&self, initialized: bool) -> Result<(), StartError> {
        if initialized {
            self.scoped(self.raft().trigger().elect(false))
                .await
                .map_err(|error| StartError::Raft(error.to_string()))?;
        }
        let caught_up = |metrics: &RaftMetrics<TypeConfig>| {
            metrics.state == ServerState::Leader
                && metrics.last_applied.map(|id| id.index) == metrics.last_log_index
                && metrics
                    .local_committed
                    .is_some_and(|id| id.leader_id.term == metrics.current_term)
        };
        let deadline = self.config().timings.propose;
        let led = self
            .env()
            .clock
            .timeout(deadline, self.wait_metrics(caught_up))
            .await;
        match led {
            Ok(result) => result.map_err(StartError::Raft)?,
            Err(_) => return Err(StartError::Raft(format!("no leader within {deadline:?}"))),
        }
        let node = self.clone();
        // Its address may have changed. Ends at once where it has not.
        self.spawn("quorum-join", async move { node.enter().await });
        Ok(())
    }

    /// What the log says, not the configuration: the membership may have changed since.
    fn is_sole_voter(&self) -> bool {
        votes_alone(&self.raft().server_metrics().borrow_watched())
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

    /// Every voter writes the same first entry. "Not allowed" says that a peer was quicker and leads already.
    async fn initialize(&self, members: BTreeMap<u64, Member>) -> Result<(), String> {
        match self.scoped(self.raft().initialize(members)).await {
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Founds the cluster as soon as every voter is there and none has a log, or returns when one has.
    ///
    /// All of them, not a majority: two voters of three that lost their disks would else found a second cluster, and
    /// the third one's metadata would be forgotten.
    async fn found(&self) {
        let mut waiting = Waiting::new(self);
        while !self.is_initialized() {
            let mut members = BTreeMap::from([(self.raft_id(), self.member())]);
            let (mut exists, mut missing) = (false, Vec::new());
            for voter in &self.config().voters {
                let Some(id) = raft_id(voter.id).filter(|id| *id != self.raft_id()) else {
                    continue;
                };
                match self.look_at(id, voter).await {
                    Found::Empty(member) => drop(members.insert(id, member)),
                    Found::Member => exists = true,
                    Found::Nobody => missing.push(format!("{}@{}", voter.id, voter.addr)),
                }
            }
            if exists {
                return;
            }
            if missing.is_empty() {
                if let Err(error) = self.initialize(members).await {
                    tracing::error!(error, "the cluster cannot be founded");
                }
                return;
            }
            let missing = missing.join(", ");
            waiting
                .again(|| {
                    tracing::warn!(
                        missing,
                        "a new cluster is founded when all of its voters are there"
                    )
                })
                .await;
        }
    }

    async fn look_at(&self, id: u64, voter: &Voter) -> Found {
        let (_, mut client) = self.links().get(self.env(), &voter.addr);
        let describing = client.describe(proto::DescribeRequest {});
        let Ok(Ok(reply)) = self.env().clock.timeout(ANSWER_MAX, describing).await else {
            return Found::Nobody;
        };
        let reply = reply.into_inner();
        match convert::read_uuid(&reply.directory) {
            _ if reply.initialized => Found::Member,
            Ok(directory) if reply.id == id => Found::Empty(Member {
                addr: voter.addr.clone(),
                directory,
                note: String::new(),
            }),
            _ => Found::Nobody,
        }
    }

    /// Sees to it that the quorum knows this node, at its address and with its directory.
    async fn enter(&self) {
        let (id, me) = (self.raft_id(), self.member());
        let mut waiting = Waiting::new(self);
        loop {
            {
                let metrics = self.raft().server_metrics();
                let metrics = metrics.borrow_watched();
                let known = metrics.membership_config.membership().get_node(&id);
                if known.is_some_and(|known| known.addr == me.addr && known.directory == me.directory) {
                    return;
                }
            }
            let reason = match self.ask(&self.joining()).await {
                Ok(Ok(())) => None,
                Ok(Err(ChangeRefused::InProgress)) => None,
                Ok(Err(refused)) => Some(refused.to_string()),
                Err(AskError::Timeout(_)) => Some("no leader answers".to_owned()),
                Err(AskError::Stopped(_)) => return,
            };
            waiting
                .again(|| {
                    if let Some(reason) = reason {
                        tracing::warn!(node = %broker_id(id), reason, "this node cannot join the quorum");
                    }
                })
                .await;
        }
    }

    /// Comes back where it was removed and could not hear so: nobody sends that entry to who is no member, and its own log
    /// says for ever that it is one. Ends with openraft.
    async fn stay(&self) {
        loop {
            self.env().clock.sleep(FORGOTTEN_AFTER).await;
            let status = self.status();
            let hears = status.leader_contact.is_some_and(|ago| ago < FORGOTTEN_AFTER);
            if hears || is_planted("removed-voter-stays-away") {
                continue;
            }
            match self.ask(&self.joining()).await {
                Err(AskError::Stopped(_)) => return,
                Ok(Err(refused)) => tracing::debug!(%refused, "this node hears no leader"),
                // It is a member, or is one again.
                Ok(Ok(())) | Err(AskError::Timeout(_)) => {}
            }
        }
    }

    fn joining(&self) -> Change {
        Change::Join {
            id: self.raft_id(),
            member: self.member(),
            cluster_id: self.publisher().image().cluster_id().unwrap_or(Uuid::ZERO),
        }
    }

    fn member(&self) -> Member {
        Member {
            addr: self.addr().to_owned(),
            directory: self.directory(),
            note: String::new(),
        }
    }
}

/// This node is the only voter.
pub(super) fn votes_alone(metrics: &ServerMetrics) -> bool {
    let mut voters = metrics.membership_config.membership().voter_ids();
    voters.next() == Some(metrics.id) && voters.next().is_none()
}

/// Waits between tries, longer each time, and complains now and then.
struct Waiting<'a> {
    node: &'a Node,
    pause: Duration,
    silent: Duration,
}

impl<'a> Waiting<'a> {
    fn new(node: &'a Node) -> Self {
        Self {
            node,
            pause: AGAIN_MIN,
            silent: Duration::ZERO,
        }
    }

    async fn again(&mut self, complain: impl FnOnce()) {
        self.silent += self.pause;
        if self.silent >= COMPLAIN_EVERY {
            self.silent = Duration::ZERO;
            complain();
        }
        self.node.env().clock.sleep(self.pause).await;
        self.pause = (self.pause * 2).min(AGAIN_MAX);
    }
}
