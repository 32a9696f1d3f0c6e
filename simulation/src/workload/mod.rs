//! Clients of the broker: they speak the real protocol over the simulated network, and write down what they did and
//! heard.
//!
//! A client forgives everything that a broker may do under faults (it retries, reconnects, rejoins), and nothing that
//! it may not.

mod admin;
mod audit;
mod consume;
mod group;
mod malformed;
mod produce;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use kafka_protocol::messages::{MetadataRequest, TopicName, metadata_request::MetadataRequestTopic};
use kafka_protocol::protocol::{Request, StrBytes};
use parking_lot::Mutex;
use skerry_client::{CallError, Connection, ConnectionOptions, ResponseError};
use skerry_env::Env;
use uuid::Uuid;

pub use self::audit::audit;
use crate::checker::history::{History, Note, Op, Outcome};
use crate::oracle::{Rotten, Violations};
use crate::scenario::{Worker, Workload};
use crate::trace::Trace;

/// Where the broker listens for clients.
pub const BROKER_ADDR: &str = "broker:9092";
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

/// What all clients of a simulation share.
pub struct Shared {
    /// What they did and heard.
    pub history: Mutex<History>,
    /// What they must not have seen.
    pub violations: Violations,
    /// Where it is written down.
    pub trace: Trace,
    /// What must not be judged now.
    pub rotten: Rotten,
    phase: AtomicU8,
    /// Workers that have not ended.
    workers: AtomicUsize,
    next_producer: AtomicU32,
    next_session: AtomicU64,
}

impl Shared {
    /// For one simulation.
    #[must_use]
    pub fn new(violations: Violations, rotten: Rotten, trace: Trace) -> Arc<Self> {
        Arc::new(Self {
            history: Mutex::default(),
            violations,
            trace,
            rotten,
            phase: AtomicU8::new(Phase::Faults as u8),
            workers: AtomicUsize::new(0),
            next_producer: AtomicU32::new(0),
            next_session: AtomicU64::new(0),
        })
    }

    /// Enters the next part.
    pub fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
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

/// One client: a name in the history, and at most one connection.
struct Client {
    env: Env,
    name: String,
    shared: Arc<Shared>,
    conn: Option<Connection>,
    ids: BTreeMap<String, Uuid>,
}

impl Client {
    fn new(env: &Env, name: String, shared: &Arc<Shared>) -> Self {
        Self {
            env: env.clone(),
            name,
            shared: shared.clone(),
            conn: None,
            ids: BTreeMap::new(),
        }
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

    async fn connection(&mut self) -> Result<Connection, Failure> {
        if let Some(conn) = &self.conn {
            return Ok(conn.clone());
        }
        let options = ConnectionOptions {
            client_id: self.name.clone(),
            connect_timeout: CONNECT_TIMEOUT,
            ..ConnectionOptions::default()
        };
        let opened = Connection::open(&self.env, BROKER_ADDR, &options).await;
        let conn = opened.map_err(|error| Failure {
            definite: true,
            why: error.to_string(),
        })?;
        self.conn = Some(conn.clone());
        Ok(conn)
    }

    fn disconnect(&mut self) {
        if let Some(conn) = self.conn.take() {
            conn.close();
        }
    }

    async fn call<R: Request>(&mut self, request: &R) -> Result<R::Response, Failure> {
        self.call_up_to(request, i16::MAX).await
    }

    /// In the newest version that both speak and that is not newer than `newest`.
    async fn call_up_to<R: Request>(&mut self, request: &R, newest: i16) -> Result<R::Response, Failure> {
        let conn = self.connection().await?;
        let failed = |error: CallError| Failure {
            definite: error.certainly_not_sent(),
            why: error.to_string(),
        };
        let version = conn.version::<R>().map_err(failed)?.min(newest);
        let answer = conn.call_version(request, version, CALL_TIMEOUT).await;
        answer.map_err(|error| {
            if let CallError::Decode(why) = &error {
                self.shared
                    .violation("broken-answer", format!("{}: {why}", self.name));
            }
            self.disconnect();
            failed(error)
        })
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
            let wanted = MetadataRequestTopic::default().with_name(Some(topic_name(topic)));
            let request = MetadataRequest::default()
                .with_topics(Some(vec![wanted]))
                .with_allow_auto_topic_creation(false);
            if let Ok(answer) = self.call(&request).await
                && let Some(found) = answer.topics.first().filter(|found| found.error_code == 0)
            {
                self.ids.insert(topic.to_owned(), found.topic_id);
                return Some(found.topic_id);
            }
            self.pause(100).await;
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
        Kind::Setup => admin::set_up(client).await,
        Kind::Idempotent => produce::idempotent(client).await,
        Kind::Plain { acks } => produce::plain(client, *acks).await,
        Kind::Consumer => consume::run(client).await,
        Kind::Member { group } => group::run(client, group).await,
        Kind::Ends => consume::list_ends(client).await,
        Kind::Churn => admin::churn(client).await,
        Kind::Settings => admin::settings(client).await,
        Kind::Trim => admin::trim(client).await,
        Kind::Malformed => malformed::run(client).await,
    }
}
