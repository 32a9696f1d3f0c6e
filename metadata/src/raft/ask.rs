//! Questions that the leader answers, asked from any node.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::ServerState;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ClientWriteError, ForwardToLeader, LinearizableReadError, RaftError};
use openraft::raft::linearizable_read::LinearizerOption;
use parking_lot::Mutex;
use skerry_env::Env;
use skerry_metadata_state::{Command, Outcome};
use skerry_proto::quorum as proto;
use skerry_types::{is_planted, reached, sometimes};
use tonic::Status;

use super::network::{Client, client_of};
use super::types::{Member, Proposal, TypeConfig};
use super::{Node, convert, describe, stopped};
use crate::errors::{MembershipError, ProposeError, ReadError};
use crate::status::QuorumStatus;

/// The first wait before the leader is looked for again; it doubles up to [`RETRY_MAX`]. Right after an election a
/// leader refuses until its first heartbeat is answered: about a round trip.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(32);
/// A leader that still leads is given this long for one answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What a node says to a question.
pub(super) enum Answer<T> {
    Done(T),
    /// Who leads, as far as is known.
    NotLeader {
        leader: Option<KnownLeader>,
    },
}

/// Who is said to lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KnownLeader {
    pub(super) id: u64,
    pub(super) addr: String,
    /// Since this term; 0: not known.
    pub(super) term: u64,
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum AskError {
    Timeout(Duration),
    Stopped(String),
}

impl From<AskError> for ProposeError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Timeout(after) => Self::Timeout(after),
            AskError::Stopped(reason) => Self::Stopped(reason),
        }
    }
}

impl From<AskError> for ReadError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Timeout(after) => Self::Timeout(after),
            AskError::Stopped(reason) => Self::Stopped(reason),
        }
    }
}

impl From<AskError> for MembershipError {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Timeout(after) => Self::Timeout(after),
            AskError::Stopped(reason) => Self::Stopped(reason),
        }
    }
}

/// A question. It may be asked more than once: an answer that was lost is asked for again.
pub(super) trait Ask: Send + Sync {
    type Output: Send;

    /// Asks this node.
    fn here(&self, node: &Node) -> impl Future<Output = Result<Answer<Self::Output>, AskError>> + Send;

    /// Asks another one, as this asker.
    fn there(
        &self,
        client: Client,
        asker: proto::Asker,
    ) -> impl Future<Output = Result<Answer<Self::Output>, Status>> + Send;
}

/// One connection to each node that was asked something; many questions share it.
#[derive(Default)]
pub(super) struct Links(Mutex<Made>);

#[derive(Default)]
struct Made {
    /// So many were made.
    count: u64,
    /// By address, each with its number.
    links: BTreeMap<String, (u64, Client)>,
}

impl Links {
    /// The connection to ask on, and its number among all that were made.
    pub(super) fn get(&self, env: &Env, addr: &str) -> (u64, Client) {
        let mut made = self.0.lock();
        if let Some(link) = made.links.get(addr) {
            return link.clone();
        }
        made.count += 1;
        let link = (made.count, client_of(env, addr));
        made.links.insert(addr.to_owned(), link.clone());
        link
    }

    /// The next question makes a new connection, unless one was made since.
    fn forget(&self, addr: &str, number: u64) {
        let mut made = self.0.lock();
        if made
            .links
            .get(addr)
            .is_some_and(|(current, _)| *current == number)
        {
            made.links.remove(addr);
        }
    }

    pub(super) fn clear(&self) {
        self.0.lock().links.clear();
    }
}

/// The latest connection of each asker that this leader has heard of in its term.
#[derive(Debug, Default)]
pub(super) struct Askers {
    term: u64,
    /// By node and start of its process.
    links: BTreeMap<(u64, i64), u64>,
}

impl Askers {
    /// True where this comes on the latest connection. On an earlier one it is late: whoever asked has given it up and
    /// asked again, and what was decided meanwhile must not be undone by making the same change once more.
    fn hear(&mut self, term: u64, asker: &proto::Asker) -> bool {
        if self.term != term {
            (self.term, self.links) = (term, BTreeMap::new());
        }
        let latest = self.links.entry((asker.id, asker.started_ms)).or_insert(0);
        *latest = asker.link.max(*latest);
        *latest == asker.link || is_planted("late-proposals-count")
    }
}

pub(super) fn not_leader<T>(answer: proto::NotLeader) -> Answer<T> {
    let term = answer.term;
    Answer::NotLeader {
        leader: answer.leader.map(|leader| KnownLeader {
            id: leader.id,
            addr: leader.addr,
            term,
        }),
    }
}

/// What the wire says where this node does not lead.
pub(super) fn elsewhere(leader: Option<KnownLeader>) -> proto::NotLeader {
    proto::NotLeader {
        term: leader.as_ref().map_or(0, |leader| leader.term),
        leader: leader.map(|leader| proto::Member {
            id: leader.id,
            addr: leader.addr,
            ..Default::default()
        }),
    }
}

pub(super) fn forwarded<T>(forward: ForwardToLeader<TypeConfig>) -> Answer<T> {
    let leader = forward.leader_id.zip(forward.leader_node);
    Answer::NotLeader {
        leader: leader.map(|(id, node): (u64, Member)| KnownLeader {
            id,
            addr: node.addr,
            term: 0,
        }),
    }
}

impl Node {
    /// Asks whoever leads until somebody answers.
    pub(super) async fn ask<A: Ask>(&self, question: &A) -> Result<A::Output, AskError> {
        let deadline = self.config().timings.propose;
        let asking = self.env().clock.timeout(deadline, self.ask_on(question)).await;
        asking.unwrap_or(Err(AskError::Timeout(deadline)))
    }

    /// The caller has a deadline.
    async fn ask_on<A: Ask>(&self, question: &A) -> Result<A::Output, AskError> {
        let (mut hint, mut pause, mut strangers) = (None, RETRY_MIN, 0);
        loop {
            let before = self.raft().server_metrics().borrow_watched().current_leader;
            // A learner may hear a leader before it has the entry that says where the leader is.
            let known = self.known_leader();
            let is_lost = known.is_none();
            let of_others = hint.take();
            let asks_whom_it_knows = of_others.is_none();
            let leader = of_others.or(known);
            let answer = match leader {
                Some(leader) if leader.id != self.raft_id() => {
                    tokio::select! {
                        biased;
                        answer = self.ask_there(question, &leader) => answer,
                        // The one that was asked may be behind a dead link.
                        () = self.leader_other_than(before) => Some(Answer::NotLeader { leader: None }),
                    }
                }
                _ => Some(question.here(self).await?),
            };
            // Who led once may be alive and say nothing more, for its disk is full; and who was removed from the members
            // meanwhile is told by nobody who leads now. One other is asked, and then the one that it knows again.
            let is_silent =
                answer.is_none() && asks_whom_it_knows && !is_planted("silent-leader-asked-for-ever");
            let leader = match answer {
                Some(Answer::Done(output)) => return Ok(output),
                Some(Answer::NotLeader { leader }) => leader,
                None => None,
            };
            hint = leader.filter(|leader| leader.id != self.raft_id());
            sometimes("silent-leader-passed-by", hint.is_none() && is_silent && !is_lost);
            if hint.is_none() && (is_lost || is_silent) {
                hint = self.stranger(strangers);
                strangers += 1;
            }
            tokio::select! {
                biased;
                () = self.leader_other_than(before) => pause = RETRY_MIN,
                () = self.env().clock.sleep(pause) => pause = (pause * 2).min(RETRY_MAX),
            }
        }
    }

    /// Asks this node for as long as it leads; `None` where it does not (any more). The caller has a deadline.
    pub(super) async fn ask_here<A: Ask>(&self, question: &A) -> Result<Option<A::Output>, AskError> {
        loop {
            match question.here(self).await? {
                Answer::Done(output) => return Ok(Some(output)),
                // It leads, and has not heard from a majority within its lease: right after its election, for one.
                Answer::NotLeader { .. } if self.leadership().here => {
                    self.env().clock.sleep(RETRY_MIN).await;
                }
                Answer::NotLeader { .. } => return Ok(None),
            }
        }
    }

    /// `None`: no answer.
    async fn ask_there<A: Ask>(&self, question: &A, leader: &KnownLeader) -> Option<Answer<A::Output>> {
        let addr = leader.addr.as_str();
        let (link, client) = self.links().get(self.env(), addr);
        let asker = proto::Asker {
            id: self.raft_id(),
            started_ms: self.started().get(),
            link,
            term: leader.term,
        };
        let asked = question.there(client, asker);
        match self.env().clock.timeout(ANSWER_MAX, asked).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(status)) => tracing::debug!(addr, error = status.message(), "no answer"),
            Err(_) => tracing::debug!(addr, "no answer within {ANSWER_MAX:?}"),
        }
        self.links().forget(addr, link);
        None
    }

    /// Whom to ask where this node knows no leader: it may be no member yet, or the members may have changed while it
    /// was away.
    fn stranger(&self, turn: usize) -> Option<KnownLeader> {
        let configured = self.config().voters.iter().map(|voter| voter.addr.clone());
        let metrics = self.raft().server_metrics();
        let mut others: BTreeSet<String> = metrics
            .borrow_watched()
            .membership_config
            .membership()
            .nodes()
            .map(|(_, member)| member.addr.clone())
            .chain(configured)
            .collect();
        others.remove(self.addr());
        let turn = turn.checked_rem(others.len())?;
        let addr = others.into_iter().nth(turn)?;
        // Its number does not matter: the address is what is asked.
        Some(KnownLeader {
            id: u64::MAX,
            addr,
            term: 0,
        })
    }

    pub(super) fn known_leader(&self) -> Option<KnownLeader> {
        let metrics = self.raft().server_metrics();
        let metrics = metrics.borrow_watched();
        let id = metrics.current_leader?;
        let member = metrics.membership_config.membership().get_node(&id)?;
        Some(KnownLeader {
            id,
            addr: member.addr.clone(),
            term: metrics.vote.leader_id.term,
        })
    }

    /// Does here what another node asks for, unless it is late, or for the leader of another term. Only a leader looks.
    pub(super) async fn answer<A: Ask>(
        &self,
        asker: Option<proto::Asker>,
        question: &A,
    ) -> Result<Answer<A::Output>, Status> {
        let now = self.leadership();
        if let Some(asker) = asker.filter(|_| now.here) {
            if asker.term != now.term {
                return Ok(Answer::NotLeader {
                    leader: self.known_leader(),
                });
            }
            if !self.askers().lock().hear(now.term, &asker) {
                reached("late-proposal-refused");
                return Err(Status::aborted(
                    "it was given up, and asked again on a later connection",
                ));
            }
        }
        Ok(question.here(self).await?)
    }

    /// Waits until a leader is known that is not `before`.
    pub(super) async fn leader_other_than(&self, before: Option<u64>) {
        let mut metrics = self.raft().server_metrics();
        loop {
            let now = metrics.borrow_watched().current_leader;
            if now.is_some() && now != before {
                return;
            }
            if metrics.changed().await.is_err() {
                // Stopped: nobody is known any more. The caller has a deadline.
                return std::future::pending().await;
            }
        }
    }
}

/// Lets the leader decide on a command.
pub(super) struct Propose(pub(super) Arc<Command>);

/// What became of it.
pub(super) struct Applied {
    pub(super) index: u64,
    pub(super) outcome: Outcome,
}

impl Ask for Propose {
    type Output = Applied;

    async fn here(&self, node: &Node) -> Result<Answer<Applied>, AskError> {
        let proposal = Proposal(Arc::clone(&self.0));
        match node.scoped(node.raft().client_write(proposal)).await {
            Ok(written) => Ok(Answer::Done(Applied {
                index: written.log_id.index,
                outcome: written.data,
            })),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => Ok(forwarded(forward)),
            // The leadership went in between. The entry may be committed all the same: a retry does no harm.
            Err(RaftError::APIError(ClientWriteError::LogEntryDiscarded(_))) => {
                Ok(Answer::NotLeader { leader: None })
            }
            Err(RaftError::APIError(
                error
                @ (ClientWriteError::ChangeMembershipError(_) | ClientWriteError::PreconditionFailed(_)),
            )) => unreachable!("a command is no change of the membership, and has no precondition: {error}"),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        }
    }

    async fn there(&self, mut client: Client, asker: proto::Asker) -> Result<Answer<Applied>, Status> {
        let request = proto::ProposeRequest {
            command: Bytes::from(self.0.encode()),
            asker: Some(asker),
        };
        let reply = client.propose(request).await?;
        match reply.into_inner().result {
            Some(proto::propose_reply::Result::Applied(applied)) => {
                let outcome = Outcome::decode(&applied.outcome).map_err(|error| {
                    Status::internal(format!("the leader's answer cannot be read: {error}"))
                })?;
                Ok(Answer::Done(Applied {
                    index: applied.index,
                    outcome,
                }))
            }
            Some(proto::propose_reply::Result::NotLeader(elsewhere)) => Ok(not_leader(elsewhere)),
            None => Err(Status::internal("an empty answer")),
        }
    }
}

/// Up to which index a node must have applied, to answer a read that begins now.
pub(super) struct ReadIndex;

impl Ask for ReadIndex {
    type Output = u64;

    async fn here(&self, node: &Node) -> Result<Answer<u64>, AskError> {
        // By the lease where a majority has answered lately, else after one round of heartbeats.
        let age = node.lease_of_reads();
        let option = LinearizerOption::new(Some(age), true);
        match node.scoped(node.raft().get_read_log_id(option)).await {
            Ok((read, _)) => Ok(Answer::Done(read.index())),
            Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward))) => {
                Ok(forwarded(forward))
            }
            Err(RaftError::APIError(_)) => Ok(Answer::NotLeader { leader: None }),
            Err(RaftError::Fatal(fatal)) => Err(stopped(&fatal)),
        }
    }

    async fn there(&self, mut client: Client, _: proto::Asker) -> Result<Answer<u64>, Status> {
        let reply = client.read_index(proto::ReadIndexRequest {}).await?;
        match reply.into_inner().result {
            Some(proto::read_index_reply::Result::Index(index)) => Ok(Answer::Done(index)),
            Some(proto::read_index_reply::Result::NotLeader(elsewhere)) => Ok(not_leader(elsewhere)),
            None => Err(Status::internal("an empty answer")),
        }
    }
}

/// What the leader knows of the quorum.
pub(super) struct Describe;

impl Ask for Describe {
    type Output = QuorumStatus;

    async fn here(&self, node: &Node) -> Result<Answer<QuorumStatus>, AskError> {
        let leads = node.raft().server_metrics().borrow_watched().state == ServerState::Leader;
        Ok(if leads {
            Answer::Done(node.status())
        } else {
            Answer::NotLeader {
                leader: node.known_leader(),
            }
        })
    }

    async fn there(&self, mut client: Client, _: proto::Asker) -> Result<Answer<QuorumStatus>, Status> {
        let reply = client.describe(proto::DescribeRequest {}).await?.into_inner();
        let leader = reply.leader.and_then(|id| {
            let member = reply.members.iter().find(|member| member.id == id)?;
            Some(KnownLeader {
                id,
                addr: member.addr.clone(),
                term: 0,
            })
        });
        if leader.as_ref().is_none_or(|leader| leader.id != reply.id) {
            return Ok(Answer::NotLeader { leader });
        }
        let status = describe::read(reply).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Answer::Done(status))
    }
}

impl From<convert::ConvertError> for Status {
    fn from(error: convert::ConvertError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(id: u64, started_ms: i64, link: u64) -> proto::Asker {
        proto::Asker {
            id,
            started_ms,
            link,
            term: 3,
        }
    }

    /// Seed 2301 of any size, 60 s: a setting that was asked for again was made once more, after another one.
    #[test]
    fn what_comes_late_on_an_earlier_connection_is_refused() {
        let mut askers = Askers::default();
        assert!(askers.hear(3, &asker(1, 1_000, 4)));
        assert!(askers.hear(3, &asker(1, 1_000, 5)), "asked again");
        assert!(!askers.hear(3, &asker(1, 1_000, 4)), "the first request arrives");
        assert!(
            askers.hear(3, &asker(1, 1_000, 5)),
            "what is on the later one goes on"
        );
        assert!(askers.hear(3, &asker(2, 1_000, 1)), "another node counts its own");
        assert!(askers.hear(3, &asker(1, 2_000, 1)), "and so does its next life");
        // Of another term a request says so itself, and is refused for that.
        assert!(askers.hear(4, &asker(1, 1_000, 4)));
    }
}
