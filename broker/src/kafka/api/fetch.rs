//! Fetch (1), v4-v18. v5 log start offset, v7 sessions (KIP-227), v9 leader epoch (KIP-320), v11 rack (KIP-392),
//! v12 flexible, divergence (KIP-595), v13 topic ids (KIP-516), v15 replica state (KIP-903), v16 leader hints
//! (KIP-951), v17 directory ids, v18 high watermark of followers (KIP-1166).
//!
//! A consumer's long poll waits without a task or a timer of its own: its partitions wake it when their high watermark
//! moves. Records go from the page cache into the answer without being decoded; the answer is encoded by hand so that
//! they are not copied into it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{ApiKey, FetchRequest};
use skerry_log::ReadPlan;
use skerry_types::{BrokerId, Instant, LeaderEpoch, Offset, Uuid, buggify};
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::budget::Held;
use crate::gate::{Caller, Counted, Operation, Resource};
use crate::kafka::dispatch::{self, Api, Context, Outcome, Pending};
use crate::kafka::errors;
use crate::kafka::fetch_answer::{FetchAnswer, LeaderHint, PartitionAnswer};
use crate::kafka::frame::Request;
use crate::kafka::sessions::{FetchKey, FetchSet, FetchTopic, Fetching, SessionError, Told, Wanted};
use crate::partition::{FetchError, Isolation, NotServing, Partition, ReadSpec};

/// This file's row of the table that ApiVersions answers from.
pub const API: Api = Api {
    key: ApiKey::Fetch,
    min: 4,
    max: 18,
    advertised_min: 4,
    advertised: true,
    overlaps: false,
    parks: false,
    start,
};

/// Kafka's debug consumer, which may read up to the log's end.
const DEBUG_CONSUMER: i32 = -2;
/// A consumer.
const CONSUMER: i32 = -1;
/// A long poll lasts no longer, whatever the client says.
const WAIT_MAX: Duration = Duration::from_secs(24 * 3600);

fn start(context: Context, mut request: Request) -> Pending {
    Box::pin(async move {
        let (version, correlation_id) = (request.version, request.correlation_id);
        let decoded = dispatch::decode::<FetchRequest>(ApiKey::Fetch, version, &mut request.body)?;
        let spec = Spec::of(&context, version, &decoded);
        let by_id = version >= 13;
        let (wanted, forgotten) = named(&decoded, by_id);
        let broker = &context.broker;
        let now = broker.env().clock.now();
        let identity = if version >= 7 {
            (decoded.session_id, decoded.session_epoch)
        } else {
            (0, -1)
        };
        match broker
            .fetch_sessions()
            .begin(identity, by_id, wanted, &forgotten, now, &broker.env().rng)
        {
            Ok(fetching) => fetch(&context, spec, correlation_id, fetching, now).await,
            Err(error) => {
                let code = match error {
                    SessionError::NotFound => ResponseError::FetchSessionIdNotFound,
                    SessionError::InvalidEpoch => ResponseError::InvalidFetchSessionEpoch,
                    SessionError::TopicIds => ResponseError::FetchSessionTopicIdError,
                };
                let answer = FetchAnswer {
                    error_code: code.code(),
                    ..FetchAnswer::default()
                };
                Ok(Some(answer.encode(version, correlation_id)))
            }
        }
    })
}

/// What a request asks of all its partitions.
struct Spec {
    version: i16,
    caller: Caller,
    isolation: Isolation,
    min_bytes: usize,
    max_bytes: usize,
    max_wait: Duration,
    /// Followers answer consumers as well (KIP-392).
    any_replica: bool,
    /// Where the consumer stands, if it may be sent to a replica near to it.
    rack: Option<String>,
}

impl Spec {
    fn of(context: &Context, version: i16, request: &FetchRequest) -> Self {
        let replica = if version >= 15 {
            request.replica_state.replica_id.0
        } else {
            request.replica_id.0
        };
        let isolation = match (replica, request.isolation_level) {
            (DEBUG_CONSUMER, _) => Isolation::LogEnd,
            (_, 1) => Isolation::ReadCommitted,
            _ => Isolation::ReadUncommitted,
        };
        let knows_replicas = version >= 11 && replica == CONSUMER;
        let selects = knows_replicas && !request.rack_id.is_empty() && selects_by_rack(&context.broker);
        let max_bytes = usize::try_from(request.max_bytes)
            .unwrap_or(0)
            .min(context.broker.fetch_bytes_max());
        Self {
            version,
            caller: context.caller(),
            isolation,
            min_bytes: usize::try_from(request.min_bytes).unwrap_or(0).min(max_bytes),
            max_bytes,
            max_wait: Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX),
            any_replica: knows_replicas,
            rack: selects.then(|| request.rack_id.to_string()),
        }
    }
}

/// `replica.selector.class` names Kafka's class that goes by racks.
fn selects_by_rack(broker: &Broker) -> bool {
    let settings = broker.settings().broker();
    let class = settings.replica_selector_class.as_deref();
    class.is_some_and(|class| class.ends_with("RackAwareReplicaSelector"))
}

fn named(request: &FetchRequest, by_id: bool) -> (Vec<(FetchKey, Wanted)>, Vec<FetchKey>) {
    let topic_of = |name: &str, id: uuid::Uuid| {
        if by_id {
            FetchTopic::Id(Uuid(id.into_bytes()))
        } else {
            FetchTopic::Name(name.to_owned())
        }
    };
    let wanted = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |partition| {
            let key = FetchKey {
                topic: topic_of(&topic.topic, topic.topic_id),
                partition: partition.partition,
            };
            let wanted = Wanted {
                fetch_offset: partition.fetch_offset,
                max_bytes: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
                told: Told::NOTHING,
            };
            (key, wanted)
        })
    });
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |partition| FetchKey {
            topic: topic_of(&topic.topic, topic.topic_id),
            partition: *partition,
        })
    });
    (wanted.collect(), forgotten.collect())
}

async fn fetch(
    context: &Context,
    spec: Spec,
    correlation_id: i32,
    fetching: Fetching,
    began: Instant,
) -> Outcome {
    let broker = &context.broker;
    let Fetching {
        session_id,
        incremental,
        set,
    } = fetching;
    // Given back whatever becomes of this request: a client that hangs up in a long poll must find its session.
    let mut session = SessionGuard {
        broker: broker.clone(),
        session_id,
        set,
    };
    let deadline = began + spec.max_wait;
    // For the whole of the poll: one that was not there is answered at once, one that goes says so itself.
    let partitions = find_all(broker, &session.set);
    let mut waiter = Waiter {
        notify: Arc::new(Notify::new()),
        at: Vec::new(),
    };
    let read = loop {
        let mut round = Round::new(broker, &spec, &partitions);
        // Registered before the look: what comes after the look wakes, what came before is seen.
        if spec.min_bytes > 0 && deadline > broker.env().clock.now() {
            waiter.register(partitions.values().flatten());
        }
        round.read_all(&session.set).await;
        let enough = round.bytes >= spec.min_bytes || round.must_answer || session.set.is_empty();
        if enough || broker.env().clock.now() >= deadline || buggify("poll-answered-early", 4) {
            break round;
        }
        tokio::select! {
            biased;
            () = waiter.notify.notified() => {}
            () = broker.env().clock.sleep_until(deadline) => {}
        }
    };
    drop(waiter);
    let answer = read.answer(session_id, incremental, &mut session.set);
    drop(session);
    Ok(Some(
        answer.encode(spec.version, correlation_id).holding(read.held),
    ))
}

struct SessionGuard {
    broker: Arc<Broker>,
    session_id: i32,
    set: FetchSet,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        if self.session_id != 0 {
            self.broker
                .fetch_sessions()
                .end(self.session_id, std::mem::take(&mut self.set));
        }
    }
}

/// A long poll's place in the queues of its partitions; left on drop.
struct Waiter {
    notify: Arc<Notify>,
    at: Vec<Arc<Partition>>,
}

impl Waiter {
    fn register<'a>(&mut self, partitions: impl Iterator<Item = &'a Arc<Partition>>) {
        self.at.clear();
        for partition in partitions {
            partition.wait_for_records(&self.notify);
            self.at.push(partition.clone());
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        for partition in &self.at {
            partition.stop_waiting(&self.notify);
        }
    }
}

/// The partitions of a request, where they are here.
type Found = BTreeMap<FetchKey, Option<Arc<Partition>>>;

fn find_all(broker: &Broker, set: &FetchSet) -> Found {
    let registry = broker.partitions();
    let find = |key: &FetchKey| {
        let topic = match &key.topic {
            FetchTopic::Id(id) => registry.topic_by_id(*id),
            FetchTopic::Name(name) => registry.topic(name),
        };
        topic.and_then(|topic| topic.partition(key.partition))
    };
    set.iter().map(|(key, _)| (key.clone(), find(key))).collect()
}

/// One look at all partitions of a request.
struct Round<'a> {
    broker: &'a Arc<Broker>,
    spec: &'a Spec,
    partitions: &'a Found,
    read: Vec<(FetchKey, PartitionAnswer)>,
    bytes: usize,
    /// An error or a divergence is told at once.
    must_answer: bool,
    held: Option<Held>,
}

impl<'a> Round<'a> {
    fn new(broker: &'a Arc<Broker>, spec: &'a Spec, partitions: &'a Found) -> Self {
        Self {
            broker,
            spec,
            partitions,
            read: Vec::new(),
            bytes: 0,
            must_answer: false,
            held: None,
        }
    }

    async fn read_all(&mut self, set: &FetchSet) {
        for (key, wanted) in set.iter() {
            let answer = match self.partitions.get(key).and_then(Option::as_ref) {
                Some(partition) => match self.read_one(partition, wanted).await {
                    Ok(answer) => answer,
                    Err(error) => {
                        if let FetchError::Log(error) = &error {
                            let from = Offset(wanted.fetch_offset);
                            self.broker.replication().suspect(partition, from, error);
                        }
                        self.refused(partition, &error)
                    }
                },
                None => PartitionAnswer::error(match key.topic {
                    FetchTopic::Id(id) if self.broker.partitions().topic_by_id(id).is_none() => {
                        ResponseError::UnknownTopicId
                    }
                    _ => ResponseError::UnknownTopicOrPartition,
                }),
            };
            self.must_answer |=
                answer.error_code != 0 || answer.diverging.is_some() || answer.preferred_replica.is_some();
            self.bytes += answer.records.len();
            self.read.push((key.clone(), answer));
        }
    }

    async fn read_one(
        &mut self,
        partition: &Arc<Partition>,
        wanted: &Wanted,
    ) -> Result<PartitionAnswer, FetchError> {
        if !self.broker.gate().allows(
            &self.spec.caller,
            Operation::Read,
            Resource::Topic(&partition.name().topic),
        ) {
            return Ok(PartitionAnswer::error(ResponseError::TopicAuthorizationFailed));
        }
        let near = self.near_replica(partition, wanted);
        let room = self.spec.max_bytes.saturating_sub(self.bytes);
        let max_bytes = usize::try_from(wanted.max_bytes).unwrap_or(0).min(room);
        let reading = partition.read(&ReadSpec {
            from: Offset(wanted.fetch_offset),
            isolation: self.spec.isolation,
            any_replica: self.spec.any_replica,
            leader_epoch: LeaderEpoch(wanted.current_leader_epoch),
            last_fetched_epoch: LeaderEpoch(wanted.last_fetched_epoch),
            max_bytes: u32::try_from(max_bytes).unwrap_or(u32::MAX),
            // The first batch comes whole, however large: a consumer must not get stuck behind it (KIP-74).
            one_batch_at_least: self.bytes == 0,
        })?;
        // Whoever is sent elsewhere gets its records there.
        let records = match near {
            Some(_) => Bytes::new(),
            None => self.records(reading.plan, max_bytes).await?,
        };
        let aborted = match self.spec.isolation {
            Isolation::ReadCommitted if !records.is_empty() => Some(
                partition
                    .aborted(Offset(wanted.fetch_offset), reading.last_stable)
                    .map_err(FetchError::Log)?,
            ),
            Isolation::ReadCommitted => Some(Vec::new()),
            _ => None,
        };
        Ok(PartitionAnswer {
            error_code: 0,
            high_watermark: reading.high_watermark.get(),
            last_stable: reading.last_stable.get(),
            log_start: reading.log_start.get(),
            aborted: aborted.map(|all| {
                all.iter()
                    .map(|txn| (txn.producer_id.get(), txn.first_offset.get()))
                    .collect()
            }),
            diverging: reading
                .diverging
                .map(|end| (end.epoch.get(), end.end_offset.get())),
            leader: None,
            preferred_replica: near.map(BrokerId::get),
            records,
        })
    }

    /// A replica in the consumer's rack that has what it wants, where that is not this broker.
    fn near_replica(&self, partition: &Partition, wanted: &Wanted) -> Option<BrokerId> {
        let rack = self.spec.rack.as_deref()?;
        let image = self.broker.image();
        partition.near_replica(Offset(wanted.fetch_offset), |id| {
            image
                .broker(id)
                .is_some_and(|broker| !broker.fenced && broker.rack.as_deref() == Some(rack))
        })
    }

    /// The bytes of a plan; they are held against the memory budget until they are sent.
    async fn records(&mut self, plan: ReadPlan, max_bytes: usize) -> Result<Bytes, FetchError> {
        if plan.is_empty() {
            return Ok(Bytes::new());
        }
        let budget = self.broker.budget();
        let mut held = if self.held.is_none() {
            budget.take_for_records(max_bytes).await
        } else {
            // Holding some, it must not wait for more. What is left out is there at the next fetch.
            match budget.try_take_for_records(max_bytes) {
                Some(held) => held,
                None => return Ok(Bytes::new()),
            }
        };
        // A read that would wait for the device leaves the threads that serve the network.
        let bytes = match plan.run_cached()? {
            Some(bytes) => bytes,
            // What comes from the device has changed there, if anywhere: its sums are compared, which costs little beside it.
            None => {
                let read = self.broker.env().tasks.run_blocking(move || plan.run_checked());
                read.await?
            }
        };
        held.shrink_to(bytes.len());
        match &mut self.held {
            Some(all) => all.merge(held),
            None => self.held = Some(held),
        }
        Ok(bytes)
    }

    fn refused(&self, partition: &Partition, error: &FetchError) -> PartitionAnswer {
        let mut answer = PartitionAnswer::error(errors::fetch(error));
        let moved = matches!(
            error,
            FetchError::NotServing(NotServing::NotLeader | NotServing::FencedEpoch { .. })
        );
        if moved && self.spec.version >= 16 {
            answer.leader = self
                .broker
                .leader_of(partition.topic_id(), partition.name())
                .map(|leader| LeaderHint {
                    id: leader.id.get(),
                    epoch: leader.epoch.get(),
                    host: leader.host.to_string(),
                    port: i32::from(leader.port),
                });
        }
        if matches!(error, FetchError::Log(_)) && answer.error_code == ResponseError::KafkaStorageError.code()
        {
            tracing::error!(partition = %partition.name(), %error, "cannot read");
        }
        // KAFKA_STORAGE_ERROR is younger than Fetch v6.
        if self.spec.version <= 5 && answer.error_code == ResponseError::KafkaStorageError.code() {
            answer.error_code = ResponseError::NotLeaderOrFollower.code();
        }
        answer
    }

    fn answer(&self, session_id: i32, incremental: bool, set: &mut FetchSet) -> FetchAnswer {
        let mut answer = FetchAnswer {
            session_id,
            ..FetchAnswer::default()
        };
        let _ = self
            .broker
            .gate()
            .throttle(&self.spec.caller, Counted::FetchedBytes(self.bytes as u64));
        self.broker.metrics().fetched_bytes.inc_by(self.bytes as u64);
        for (key, partition) in &self.read {
            let told = Told {
                high_watermark: partition.high_watermark,
                log_start: partition.log_start,
                error: partition.error_code != 0,
            };
            let before = set.told(key);
            let changed = !partition.records.is_empty()
                || told.error
                || partition.diverging.is_some()
                || partition.preferred_replica.is_some()
                || before != Some(told);
            set.tell(key, told);
            if !partition.records.is_empty() {
                set.rotate(key);
            }
            if !incremental || changed {
                answer.add(key, partition.clone());
            }
        }
        answer
    }
}
