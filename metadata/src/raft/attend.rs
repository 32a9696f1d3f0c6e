//! Leaders that go: noticed at once where their process died, and handed over first where it ends in order.

use std::io;
use std::time::Duration;

use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver as _;
use skerry_proto::quorum as proto;

use super::network::client_of;
use super::runtime::Moment;
use super::types::{ServerMetrics, State, TypeConfig};
use super::{Node, broker_id};

/// The wait before a leader is attended again whose address still answers, or does not answer at all.
const AGAIN: Duration = Duration::from_millis(100);
/// How often a follower that knows its leader dead asks whether the others would vote for it, while they may have heard from
/// it a little later; then as after [`AGAIN`]. Where no majority is left that is each time a connection for each voter (5436
/// of any size, 60 s: 300 in a second).
const AGAIN_HUNT: Duration = Duration::from_millis(10);
/// The second follower asks this part of a lease later than the first: about as long as an election takes. Two at a time
/// would raise the term against each other.
const STAGGER: u32 = 4;

impl Node {
    /// Holds a call open to whoever leads, while this node votes. When it breaks and the leader's address refuses a new
    /// connection, the process is gone: an election begins as soon as the leader's lease has run out, without the wait
    /// that is there to tell a dead leader from a slow one.
    ///
    /// Safe whatever is concluded: openraft asks before it votes (pre-vote), and no voter agrees within the lease. A
    /// firewall that refuses connections in a living leader's name costs nothing but questions.
    pub(super) async fn attend_leaders(self) {
        let mut metrics = self.raft().server_metrics();
        loop {
            let leader = attended(&metrics.borrow_watched());
            let Some((id, addr)) = leader else {
                if metrics.changed().await.is_err() {
                    return;
                }
                continue;
            };
            tokio::select! {
                biased;
                () = self.leader_other_than(Some(id)) => continue,
                () = self.attend(&addr) => {}
            }
            let known = self.leadership();
            if self.is_gone(&addr).await {
                tracing::info!(leader = %broker_id(id), addr, "the leader's process is gone");
                self.hunt(id).await;
                // Once for each leadership: where no majority is left, openraft's own timers ask for one.
                self.leadership_changed(known).await;
            } else {
                self.env().clock.sleep(AGAIN).await;
            }
        }
    }

    /// Returns when the call has broken.
    async fn attend(&self, addr: &str) {
        // A connection of its own: its end is what is waited for.
        let mut client = client_of(self.env(), addr);
        if let Ok(reply) = client.attend(proto::AttendRequest {}).await {
            let mut nothing = reply.into_inner();
            while let Ok(Some(_)) = nothing.message().await {}
        }
    }

    /// Nobody listens where the leader did.
    async fn is_gone(&self, addr: &str) -> bool {
        let env = self.env();
        let dialed = env.clock.timeout(AGAIN, env.net.dial(addr)).await;
        matches!(dialed, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused)
    }

    /// Asks for votes as soon as the lease of the dead leader has run out here, and until an election is on its way. From
    /// then on openraft's own timers go on: to ask again and again would raise the term in the middle of an election.
    async fn hunt(&self, dead: u64) {
        let rank = rank(&self.raft().server_metrics().borrow_watched(), dead);
        let touched = |state: &State| (state.vote_ref().leader_id, state.vote_last_modified());
        let Ok((dead_vote, Some(heard))) = self.scoped(self.raft().with_raft_state(touched)).await else {
            return;
        };
        if dead_vote.node_id != dead {
            return;
        }
        let lease = self.config().timings.lease;
        let first = lease.saturating_sub(self.since(heard)) + lease / STAGGER * rank;
        self.env().clock.sleep(first).await;
        let clock = &self.env().clock;
        let begun = clock.now();
        let others_heard = self.config().timings.heartbeat * 3 / 2;
        loop {
            let asking = clock.now().since(begun);
            if asking >= lease {
                return;
            }
            let now = self.raft().with_raft_state(touched);
            match self.scoped(now).await {
                Ok((vote, _)) if vote == dead_vote => {}
                _ => return,
            }
            drop(self.scoped(self.raft().trigger().elect(true)).await);
            clock
                .sleep(if asking < others_heard { AGAIN_HUNT } else { AGAIN })
                .await;
        }
    }

    /// Gives the leadership away, if this node has it. False where nobody took it.
    pub(super) async fn hand_over(&self) -> bool {
        if !self.leadership().here {
            return true;
        }
        let recent = self.config().timings.lease;
        let is_recent = |heard| self.since(heard) < recent;
        let heir = heir(&self.raft().metrics().borrow_watched(), is_recent);
        match heir {
            Some(heir) => self.offer(heir).await,
            None => false,
        }
    }

    /// As [`Node::hand_over`], to `heir`; where it does not take over, to whoever wins an election.
    pub(super) async fn transfer(&self, heir: u64) {
        if !self.offer(heir).await {
            self.fall_silent().await;
        }
    }

    /// Tells `heir` to ask for votes at once, and everybody else that they may vote within the lease. True when somebody
    /// else leads.
    async fn offer(&self, heir: u64) -> bool {
        let offered = self.scoped(self.raft().trigger().transfer_leader(heir)).await;
        let others = self.leader_other_than(Some(self.raft_id()));
        let deadline = self.config().timings.lease * 2;
        offered.is_ok() && self.env().clock.timeout(deadline, others).await.is_ok()
    }

    /// A leader that has given its leadership away takes no more proposals, in openraft for ever. Where nobody took it,
    /// it must fall silent, or the others would go on to believe in it. Returns when somebody else leads, or when that
    /// took too long.
    pub(super) async fn fall_silent(&self) {
        tracing::warn!("the leadership was not taken over: an election follows");
        self.raft().runtime_config().heartbeat(false);
        let others = self.leader_other_than(Some(self.raft_id()));
        let deadline = self.config().timings.propose;
        let _ = self.env().clock.timeout(deadline, others).await;
        self.raft().runtime_config().heartbeat(true);
    }
}

/// The leader that this node should attend: only voters can do something about its death.
fn attended(metrics: &ServerMetrics) -> Option<(u64, String)> {
    let membership = metrics.membership_config.membership();
    let leader = metrics.current_leader.filter(|id| *id != metrics.id)?;
    membership.voter_ids().find(|id| *id == metrics.id)?;
    Some((leader, membership.get_node(&leader)?.addr.clone()))
}

/// How many of the other voters ask before this one when `dead` is dead.
fn rank(metrics: &ServerMetrics, dead: u64) -> u32 {
    let voters = metrics.membership_config.membership().voter_ids();
    let before = voters.filter(|id| *id != dead && *id < metrics.id).count();
    u32::try_from(before).unwrap_or(u32::MAX)
}

/// The voter that has most of the log, of those whose last answer `is_recent`.
fn heir(metrics: &RaftMetrics<TypeConfig>, is_recent: impl Fn(Moment) -> bool) -> Option<u64> {
    let replication = metrics.replication.as_ref()?;
    let heartbeats = metrics.heartbeat.as_ref()?;
    metrics
        .membership_config
        .membership()
        .voter_ids()
        .filter(|id| *id != metrics.id)
        .filter_map(|id| {
            let heard = (*heartbeats.get(&id)?)?;
            is_recent(*heard).then_some((*replication.get(&id)?, id))
        })
        .max()
        .map(|(_, id)| id)
}
