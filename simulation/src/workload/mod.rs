//! Clients of the broker: they speak the real protocol over the simulated network, and write down what they did and
//! heard.
//!
//! A client forgives everything that a broker may do under faults (it retries, reconnects, rejoins), and nothing that
//! it may not.

mod admin;
mod assigned;
mod audit;
mod consume;
mod crowd;
mod group;
mod keyed;
mod leave;
mod malformed;
mod members;
mod moves;
mod produce;
mod reborn;
mod times;
mod zombie;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use parking_lot::Mutex;
use skerry_client::{CallError, Connection, ConnectionOptions, ResponseError};
use skerry_env::Env;
use skerry_types::is_planted;
use uuid::Uuid;

pub(crate) use self::admin::SETTING;
pub use self::admin::delete_before;
use self::assigned::Assigned;
pub use self::audit::{audit, serves};
pub(crate) use self::group::READ;
pub(crate) use self::keyed::KEYED;
pub use self::leave::{Leaving, Step as LeaveStep, relieve};
pub use self::members::{add_voters, replace_voter};
pub use self::moves::{elect_all_unclean, elect_unclean};
use crate::env::Corrupted;
use crate::invariants::Found;
use crate::oracle::{Rotten, Violations};
use crate::scenario::{Lulls, Worker, Workload};
use crate::trace::Trace;
use skerry_checker::history::{History, Note, Op, Outcome};

/// Topics that live as long as the simulation, and their partitions.
pub const TOPICS: [(&str, i32); 3] = [("orders", 3), ("events", 2), (TRIMMED, 1)];
/// The topic from whose beginning records are deleted.
pub(crate) const TRIMMED: &str = "trimmed";

const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_500);
const CALL_TIMEOUT: Duration = Duration::from_millis(2_500);

/// What part of the simulation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Phase {
    /// Faults and load.
    Faults,
    /// Everything is healed; load goes on.
    Healed,
    /// Whoever works ends the operation in hand.
    Stopping,
    /// One client reads everything.
    Audit,
}

/// What clients know of the cluster before they ask.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Where the nodes listen for clients: number 1 first.
    pub addrs: Vec<String>,
    /// Of the topics that live as long as the simulation.
    pub replication: i16,
    /// `min.insync.replicas` of these.
    pub min_in_sync: i16,
    /// `flush.messages` of these; 0 = not set.
    pub flush_messages: u64,
    /// Producers write to these partitions alone; to all where it is empty.
    pub write_to: Vec<String>,
    /// Producers pack their batches.
    pub packed: bool,
    /// When they fall silent while faults happen.
    pub lulls: Option<Lulls>,
    /// So many of the first nodes vote, unless somebody changes it.
    pub voters: u32,
    /// No disk stands still or is slow, nor does a process.
    pub steady_disks: bool,
    /// Disks may be lost: `min.insync.replicas` is set for every topic, the groups' too.
    pub loses_disks: bool,
}

/// What all clients of a simulation share.
pub struct Shared {
    /// Who serves.
    pub cluster: Cluster,
    /// What they did and heard.
    pub history: Mutex<History>,
    /// What they must not have seen.
    pub violations: Violations,
    /// Where it is written down.
    pub trace: Trace,
    /// What must not be judged now.
    pub rotten: Rotten,
    /// What was damaged on its way.
    pub corrupted: Corrupted,
    /// Somebody changes the voters, or has to replace one: one at a time.
    members_change: AtomicBool,
    votes_moved: AtomicU64,
    phase: AtomicU8,
    /// Workers that have not ended.
    workers: AtomicUsize,
    next_producer: AtomicU32,
    next_session: AtomicU64,
    /// So many partitions the growing topic was acknowledged to have.
    grown: AtomicI32,
    /// So many of `TOPICS` were made.
    made: AtomicUsize,
    /// The topic that is compacted was made.
    has_keyed: AtomicBool,
    /// What groups' members were given.
    assigned: Mutex<Assigned>,
}

impl Shared {
    /// Records of groups are given up: what they were may begin again.
    pub(crate) fn give_groups_up(&self) {
        self.assigned.lock().on_given_up();
        self.note(Note::GroupsLost);
    }

    /// For one simulation.
    #[must_use]
    pub fn new(
        cluster: Cluster,
        violations: Violations,
        rotten: Rotten,
        corrupted: Corrupted,
        trace: Trace,
    ) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            history: Mutex::default(),
            violations,
            trace,
            rotten,
            corrupted,
            members_change: AtomicBool::new(false),
            votes_moved: AtomicU64::new(0),
            phase: AtomicU8::new(Phase::Faults as u8),
            workers: AtomicUsize::new(0),
            next_producer: AtomicU32::new(0),
            next_session: AtomicU64::new(0),
            grown: AtomicI32::new(0),
            made: AtomicUsize::new(0),
            has_keyed: AtomicBool::new(false),
            assigned: Mutex::default(),
        })
    }

    /// False where somebody changes the voters already.
    #[must_use]
    pub fn begin_change_of_members(&self) -> bool {
        !self.members_change.swap(true, Ordering::Relaxed)
    }

    /// The voters are as they should be.
    pub fn end_change_of_members(&self) {
        self.members_change.store(false, Ordering::Relaxed);
    }

    /// How often a vote was taken and given back.
    #[must_use]
    pub fn votes_moved(&self) -> u64 {
        self.votes_moved.load(Ordering::Relaxed)
    }

    /// Enters the next part.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// True once everything is judged and nobody works any more.
    #[must_use]
    pub fn is_audited(&self) -> bool {
        self.is_at_least(Phase::Audit)
    }

    fn is_at_least(&self, phase: Phase) -> bool {
        self.phase.load(Ordering::Relaxed) >= phase as u8
    }

    /// True when every worker has ended.
    #[must_use]
    pub fn all_idle(&self) -> bool {
        self.workers.load(Ordering::Relaxed) == 0
    }

    /// Writes down that something happened to the node that changes what is promised.
    pub fn note(&self, note: Note) {
        self.history.lock().note(self.trace.time().micros(), note);
    }

    fn invoke(&self, client: &str, op: Op) -> u64 {
        self.history.lock().invoke(self.trace.time().micros(), client, op)
    }

    fn complete(&self, client: &str, id: u64, outcome: Outcome) {
        if self.trace.is_detailed() {
            let op = self
                .history
                .lock()
                .events
                .get(usize::try_from(id).unwrap_or(0))
                .map(|event| event.what.clone());
            self.trace.event(client, format_args!("{op:?} -> {outcome:?}"));
        }
        self.history
            .lock()
            .complete(self.trace.time().micros(), client, id, outcome);
    }

    /// The topics that live as long as the simulation and were made, and their partitions.
    fn topics(&self) -> impl Iterator<Item = (&'static str, i32)> {
        let has_keyed = self.has_keyed.load(Ordering::Relaxed);
        let keyed = has_keyed.then_some((KEYED, keyed::PARTITION + 1));
        TOPICS.into_iter().chain(keyed)
    }

    fn violation(&self, check: &'static str, message: String) {
        self.violations.add(&self.trace, check, message);
    }
}

/// Why a call brought nothing.
#[derive(Clone, Debug)]
struct Failure {
    /// The broker certainly did not act on it.
    definite: bool,
    why: String,
}

impl Failure {
    fn unknown(why: impl Into<String>) -> Self {
        Self {
            definite: false,
            why: why.into(),
        }
    }

    fn refused(code: i16) -> Self {
        Self {
            definite: true,
            why: error_name(code),
        }
    }

    fn outcome(&self) -> Outcome {
        Outcome::Failed {
            definite: self.definite,
            why: self.why.clone(),
        }
    }
}

fn error_name(code: i16) -> String {
    ResponseError::try_from_code(code).map_or_else(|| format!("error {code}"), |error| format!("{error:?}"))
}

/// Whom a request is for.
#[derive(Clone, Copy)]
enum To<'a> {
    /// Whoever answers.
    Anyone,
    /// Who leads a partition.
    Leader(&'a str, i32),
    /// Who coordinates a group.
    Coordinator(&'a str),
    /// A node.
    Node(i32),
}

/// One client: a name in the history, and at most one connection to each node.
struct Client {
    env: Env,
    name: String,
    shared: Arc<Shared>,
    conns: BTreeMap<i32, Connection>,
    /// Who is asked where it does not matter.
    anyone: i32,
    leaders: BTreeMap<(String, i32), i32>,
    /// The newest leader epochs that it was told of.
    epochs: BTreeMap<(String, i32), i32>,
    coordinators: BTreeMap<String, i32>,
    ids: BTreeMap<String, Uuid>,
}

impl Client {
    fn new(env: &Env, name: String, shared: &Arc<Shared>) -> Self {
        let mut client = Self {
            env: env.clone(),
            name,
            shared: shared.clone(),
            conns: BTreeMap::new(),
            anyone: 1,
            leaders: BTreeMap::new(),
            epochs: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            ids: BTreeMap::new(),
        };
        client.ask_another();
        client
    }

    fn invoke(&self, op: Op) -> u64 {
        self.shared.invoke(&self.name, op)
    }

    fn complete(&self, id: u64, outcome: Outcome) {
        self.shared.complete(&self.name, id, outcome);
    }

    fn is_stopping(&self) -> bool {
        self.shared.is_at_least(Phase::Stopping)
    }

    /// A partition to write to.
    fn draw_partition(&self) -> (&'static str, i32) {
        let only = &self.shared.cluster.write_to;
        if !only.is_empty() {
            let chosen = pick(&self.env, only);
            let known = TOPICS.iter().find_map(|(topic, partitions)| {
                let number = chosen.strip_prefix(topic)?.strip_prefix('-')?.parse().ok()?;
                (0..*partitions).contains(&number).then_some((*topic, number))
            });
            // A name that nobody has: as if nothing were asked for.
            if let Some(known) = known {
                return known;
            }
        }
        let (topic, partitions) = *pick(&self.env, &TOPICS);
        let partition = self.env.rng.below(partitions.unsigned_abs().into());
        (topic, i32::try_from(partition).unwrap_or(0))
    }

    fn is_alone(&self) -> bool {
        self.shared.cluster.addrs.len() == 1
    }

    fn ask_another(&mut self) {
        if !self.is_alone() {
            let nodes = self.shared.cluster.addrs.len() as u64;
            self.anyone = i32::try_from(1 + self.env.rng.below(nodes)).unwrap_or(1);
        }
    }

    async fn connection(&mut self, node: i32) -> Result<Connection, Failure> {
        if let Some(conn) = self.conns.get(&node) {
            return Ok(conn.clone());
        }
        let options = ConnectionOptions {
            client_id: self.name.clone(),
            connect_timeout: CONNECT_TIMEOUT,
            ..ConnectionOptions::default()
        };
        let index = usize::try_from(node - 1).unwrap_or(usize::MAX);
        let shared = self.shared.clone();
        let addr = shared.cluster.addrs.get(index).ok_or_else(|| Failure {
            definite: true,
            why: format!("there is no node {node}"),
        })?;
        match Connection::open(&self.env, addr, &options).await {
            Ok(conn) => {
                self.conns.insert(node, conn.clone());
                Ok(conn)
            }
            Err(error) => {
                self.lose(node);
                Err(Failure {
                    definite: true,
                    why: error.to_string(),
                })
            }
        }
    }

    /// Ends every connection, and forgets who does what.
    fn disconnect(&mut self) {
        for (_, conn) in std::mem::take(&mut self.conns) {
            conn.close();
        }
        self.leaders.clear();
        self.coordinators.clear();
        self.ask_another();
    }

    /// Ends the connection to a node that did not answer.
    fn lose(&mut self, node: i32) {
        if let Some(conn) = self.conns.remove(&node) {
            conn.close();
        }
        self.leaders.retain(|_, leader| *leader != node);
        self.coordinators.retain(|_, coordinator| *coordinator != node);
        if self.anyone == node {
            self.ask_another();
        }
    }

    /// What is known of a topic has turned out to be old.
    fn forget(&mut self, topic: &str) {
        self.ids.remove(topic);
        self.leaders.retain(|(known, _), _| known != topic);
    }

    /// The number of the node that a request is for.
    async fn find(&mut self, to: To<'_>) -> Result<i32, Failure> {
        match to {
            _ if self.is_alone() => Ok(1),
            To::Anyone => Ok(self.anyone),
            To::Node(node) => Ok(node),
            To::Leader(topic, partition) => {
                let place = (topic.to_owned(), partition);
                if !self.leaders.contains_key(&place) {
                    self.learn(topic).await?;
                }
                self.leaders.get(&place).copied().ok_or_else(|| {
                    self.ask_another();
                    Failure {
                        definite: true,
                        why: format!("nobody leads {topic}-{partition}"),
                    }
                })
            }
            To::Coordinator(group) => match self.coordinators.get(group) {
                Some(node) => Ok(*node),
                None => self.find_coordinator(group).await,
            },
        }
    }

    async fn find_coordinator(&mut self, group: &str) -> Result<i32, Failure> {
        let request = FindCoordinatorRequest::default()
            .with_key_type(0)
            .with_coordinator_keys(vec![text(group)]);
        let answer = self.call_node(self.anyone, &request, i16::MAX).await?;
        let found = answer
            .coordinators
            .first()
            .map_or((answer.error_code, answer.node_id), |found| {
                (found.error_code, found.node_id)
            });
        if found.0 != 0 {
            self.ask_another();
            return Err(Failure::refused(found.0));
        }
        self.coordinators.insert(group.to_owned(), found.1.0);
        Ok(found.1.0)
    }

    /// The newest leader epoch that it knows of; -1: none (KIP-320).
    fn epoch_of(&self, topic: &str, partition: i32) -> i32 {
        let place = (topic.to_owned(), partition);
        self.epochs.get(&place).copied().unwrap_or(-1)
    }

    /// Asks for a topic's id and leaders.
    async fn learn(&mut self, topic: &str) -> Result<MetadataResponse, Failure> {
        let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![wanted]))
            .with_allow_auto_topic_creation(false);
        let answer = self.call_node(self.anyone, &request, i16::MAX).await?;
        for found in answer.topics.iter().filter(|found| found.error_code == 0) {
            self.ids.insert(topic.to_owned(), found.topic_id);
            for partition in &found.partitions {
                let place = (topic.to_owned(), partition.partition_index);
                let newest = self.epochs.entry(place.clone()).or_insert(-1);
                *newest = partition.leader_epoch.max(*newest);
                if partition.error_code == 0 && partition.leader_id.0 >= 0 {
                    self.leaders.insert(place, partition.leader_id.0);
                } else {
                    self.leaders.remove(&place);
                }
            }
        }
        Ok(answer)
    }

    async fn call<R: Request>(&mut self, to: To<'_>, request: &R) -> Result<R::Response, Failure> {
        self.call_up_to(to, request, i16::MAX).await
    }

    /// In the newest version that both speak and that is not newer than `newest`.
    async fn call_up_to<R: Request>(
        &mut self,
        to: To<'_>,
        request: &R,
        newest: i16,
    ) -> Result<R::Response, Failure> {
        let node = self.find(to).await?;
        self.call_node(node, request, newest).await
    }

    async fn call_node<R: Request>(
        &mut self,
        node: i32,
        request: &R,
        newest: i16,
    ) -> Result<R::Response, Failure> {
        let conn = self.connection(node).await?;
        let failed = |error: CallError| Failure {
            definite: error.certainly_not_sent(),
            why: error.to_string(),
        };
        let version = conn.version::<R>().map_err(failed)?.min(newest);
        let patience = match is_planted("client-without-deadline") {
            true => Duration::from_hours(24),
            false => CALL_TIMEOUT,
        };
        let answer = conn.call_version(request, version, patience).await;
        answer.map_err(|error| {
            self.report(check_answer(&self.name, &error));
            self.lose(node);
            failed(error)
        })
    }

    fn report(&self, found: Found) {
        for (check, message) in found {
            self.shared.violation(check, message);
        }
    }

    /// Waits for the end of a lull, where there is one now.
    async fn sit_out_a_lull(&self) {
        let Some(lulls) = self.shared.cluster.lulls else {
            return;
        };
        let left_ms = lulls.left_ms(self.shared.trace.time().micros() / 1_000);
        if !self.shared.is_at_least(Phase::Healed) {
            self.env.clock.sleep(Duration::from_millis(left_ms)).await;
        }
    }

    async fn pause(&self, at_most_ms: u64) {
        let wait = 5 + self.env.rng.below(at_most_ms);
        self.env.clock.sleep(Duration::from_millis(wait)).await;
    }

    /// The topic's id, asked for until it is known or the simulation stops.
    async fn topic_id(&mut self, topic: &str) -> Option<Uuid> {
        loop {
            if let Some(id) = self.ids.get(topic) {
                return Some(*id);
            }
            if self.is_stopping() && !self.shared.is_at_least(Phase::Audit) {
                return None;
            }
            if self.learn(topic).await.is_ok()
                && let Some(id) = self.ids.get(topic)
            {
                return Some(*id);
            }
            self.ask_another();
            self.pause(100).await;
        }
    }
}

/// Whatever else may go wrong: what a broker answers can be read.
fn check_answer(who: &str, error: &CallError) -> Found {
    match error {
        CallError::Decode(why) => vec![("broken-answer", format!("{who}: {why}"))],
        CallError::NotSent(_) | CallError::Lost(_) | CallError::Unsupported { .. } | CallError::Encode(_) => {
            Found::new()
        }
    }
}

fn topic_name(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// A partition as histories name it.
fn key(topic: &str, partition: i32) -> String {
    format!("{topic}-{partition}")
}

fn pick<'a, T>(env: &Env, from: &'a [T]) -> &'a T {
    &from[usize::try_from(env.rng.below(from.len() as u64)).unwrap_or(0)]
}

/// Starts the workers of one client host.
pub fn start(env: &Env, host: &str, workload: &Workload, shared: &Arc<Shared>) {
    for (number, worker) in workload.workers.iter().enumerate() {
        if worker.host != host {
            continue;
        }
        let name = format!("{}{number}", worker.kind.name());
        let client = Client::new(env, name, shared);
        shared.workers.fetch_add(1, Ordering::Relaxed);
        let (shared, worker) = (shared.clone(), worker.clone());
        // The world counts the workers that have ended; a handle would tell it nothing more.
        let _detached = env.tasks.spawn("worker", async move {
            run(client, &worker).await;
            shared.workers.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn run(client: Client, worker: &Worker) {
    use crate::scenario::WorkerKind as Kind;
    match &worker.kind {
        Kind::Setup => {
            let mut client = client;
            admin::set_up(&mut client, Client::is_stopping).await;
        }
        Kind::Idempotent => produce::idempotent(client).await,
        Kind::Plain { acks: 0 } => produce::unanswered(client).await,
        Kind::Plain { acks } => produce::plain(client, *acks).await,
        Kind::Consumer => consume::run(client).await,
        Kind::Member { group } => group::run(client, group).await,
        Kind::Ends => consume::list_ends(client).await,
        Kind::Churn => admin::churn(client).await,
        Kind::Grow => admin::grow(client).await,
        Kind::Settings => admin::settings(client).await,
        Kind::Trim => admin::trim(client).await,
        Kind::Moves => moves::run(client).await,
        Kind::Malformed => malformed::run(client).await,
        Kind::OddConsumer => consume::run_oddly(client).await,
        Kind::SlowConsumer => crowd::read_slowly(client).await,
        Kind::Connections => crowd::come_and_go(client).await,
        Kind::ZombieProducer => zombie::run(client).await,
        Kind::Reborn => reborn::run(client).await,
        Kind::Tuning => admin::tune(client).await,
        Kind::Members => members::run(client).await,
        Kind::Forget => members::forget_all(client).await,
        Kind::Turns => moves::take_turns(client).await,
        Kind::Keyed => keyed::write(client).await,
        Kind::KeyedReader => keyed::read(client).await,
        Kind::Times => times::run(client).await,
    }
}

#[cfg(test)]
mod tests {
    use skerry_client::ClosedBecause;

    use super::*;

    #[test]
    fn an_answer_that_cannot_be_read_is_noticed() {
        let broken = CallError::Decode("the header ends early".to_owned());
        assert_eq!(check_answer("a client", &broken)[0].0, "broken-answer");
        let lost = CallError::Lost(ClosedBecause::Unanswered);
        assert!(check_answer("a client", &lost).is_empty());
    }
}
