//! Produce (0), v3-v13; v0-v2 are told to clients and refused, because librdkafka up to 2.11.0 takes a missing v0 for
//! a missing gzip, snappy and lz4 (KAFKA-18659). v7 allows zstd (KIP-110), v8 tells which records were refused
//! (KIP-467), v10 tells who leads (KIP-951), v13 names topics by id.
//!
//! The records of a request are validated and appended before this file's `start` returns, in the order in which a
//! connection's requests came; only the wait for the acknowledgement comes later. That is what keeps an idempotent
//! producer's sequences in order while several of its requests wait for the disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ApiKey, ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;
use skerry_log::batch::BatchHeader;
use skerry_log::{AppendError, InvalidBatch, RecordError, ValidBatch};
use skerry_types::{BUGGIFY_LATE, Instant, buggify};
use tokio::sync::oneshot;

use crate::broker::Broker;
use crate::gate::{Caller, Counted, Operation, Resource};
use crate::kafka::dispatch::{self, Api, Context, Outcome, Pending, Refusal};
use crate::kafka::errors;
use crate::kafka::frame::Request;
use crate::kafka::pipeline::{Pipeline, Place, Sent, TopicKey};
use crate::partition::{AckError, Acks, Appending, Partition, ProduceError};
use crate::partitions::LocalTopic;

/// This file's row of the table that ApiVersions answers from.
pub const API: Api = Api {
    key: ApiKey::Produce,
    min: 3,
    max: 13,
    advertised_min: 0,
    advertised: true,
    overlaps: true,
    parks: false,
    start,
};

/// Kafka's tools may write to internal topics under this name.
const ADMIN_CLIENT_ID: &str = "__admin_client";
/// An acknowledgement is waited for no longer, whatever the client says.
const TIMEOUT_MAX: Duration = Duration::from_secs(24 * 3600);

fn start(context: Context, mut request: Request) -> Pending {
    let (version, correlation_id) = (request.version, request.correlation_id);
    let decoded = match dispatch::decode::<ProduceRequest>(ApiKey::Produce, version, &mut request.body) {
        Ok(decoded) => decoded,
        Err(refusal) => return Box::pin(std::future::ready(Err(refusal))),
    };
    let timeout = Duration::from_millis(u64::try_from(decoded.timeout_ms).unwrap_or(0)).min(TIMEOUT_MAX);
    let deadline = context.broker.env().clock.now() + timeout;
    let answered = decoded.acks != 0;
    let topics = Produce::new(&context, version, &decoded).append_all(decoded);
    Box::pin(async move {
        let topics = wait_for_all(&context, version, topics, deadline).await;
        if buggify("acknowledgement-comes-late", 4) {
            context.broker.env().clock.sleep(BUGGIFY_LATE).await;
        }
        if answered {
            answer(&context.broker, version, correlation_id, topics)
        } else {
            silence(&topics)
        }
    })
}

/// One topic of the answer, while its partitions wait.
struct Topic {
    response: TopicProduceResponse,
    partitions: Vec<Appended>,
}

/// One partition of the answer, while its records wait.
struct Appended {
    response: PartitionProduceResponse,
    /// Of what waits: its acknowledgement may fail.
    head: Option<BatchHeader>,
    waits: Option<oneshot::Receiver<Result<(), AckError>>>,
    partition: Option<Arc<Partition>>,
}

/// Why one partition's records were refused.
struct Refused {
    code: ResponseError,
    message: Option<String>,
    records: Vec<RecordError>,
}

impl From<ResponseError> for Refused {
    fn from(code: ResponseError) -> Self {
        Self {
            code,
            message: None,
            records: Vec::new(),
        }
    }
}

impl From<InvalidBatch> for Refused {
    fn from(invalid: InvalidBatch) -> Self {
        let message = Some(invalid.to_string());
        let (code, records) = match invalid {
            InvalidBatch::Corrupt(_) => (ResponseError::CorruptMessage, Vec::new()),
            InvalidBatch::InvalidRecord { record_errors, .. } => {
                (ResponseError::InvalidRecord, record_errors)
            }
            InvalidBatch::TooLarge { .. } => (ResponseError::MessageTooLarge, Vec::new()),
            InvalidBatch::InvalidTimestamp { record_errors, .. } => {
                (ResponseError::InvalidTimestamp, record_errors)
            }
            InvalidBatch::UnsupportedCompression(_) => {
                (ResponseError::UnsupportedCompressionType, Vec::new())
            }
        };
        Self {
            code,
            message,
            records,
        }
    }
}

impl From<AckError> for Refused {
    fn from(error: AckError) -> Self {
        match error {
            AckError::Deleted => ResponseError::UnknownTopicOrPartition.into(),
            AckError::NotLeader => ResponseError::NotLeaderOrFollower.into(),
            AckError::Storage(why) => Self {
                code: ResponseError::KafkaStorageError,
                message: Some(why),
                records: Vec::new(),
            },
        }
    }
}

impl From<ProduceError> for Refused {
    fn from(error: ProduceError) -> Self {
        let code = match &error {
            ProduceError::NotServing(not_serving) => errors::not_serving(not_serving),
            // Without room: retriable for every client, and not a reason to look for another leader, as there is none.
            ProduceError::NotEnoughReplicas(_) | ProduceError::DiskNearlyFull { .. } => {
                ResponseError::NotEnoughReplicas
            }
            ProduceError::Log(error) => match error {
                AppendError::DiskFull => ResponseError::NotEnoughReplicas,
                AppendError::Poisoned(_) => ResponseError::KafkaStorageError,
                AppendError::LargerThanSegment { .. } => ResponseError::RecordListTooLarge,
                AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
                AppendError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
                AppendError::InvalidTxnState { .. } => ResponseError::InvalidTxnState,
                AppendError::TransactionCoordinatorFenced { .. } => {
                    ResponseError::TransactionCoordinatorFenced
                }
                AppendError::StaleLeaderEpoch { .. } | AppendError::UnexpectedOffset { .. } => {
                    ResponseError::NotLeaderOrFollower
                }
                AppendError::Corrupt(_) => ResponseError::CorruptMessage,
            },
        };
        Self {
            code,
            message: Some(error.to_string()),
            records: Vec::new(),
        }
    }
}

/// What all partitions of one request share.
struct Produce<'a> {
    context: &'a Context,
    caller: Caller,
    version: i16,
    acks: Option<Acks>,
    transactional: bool,
}

impl<'a> Produce<'a> {
    fn new(context: &'a Context, version: i16, request: &ProduceRequest) -> Self {
        let acks = match request.acks {
            -1 => Some(Acks::All),
            0 => Some(Acks::None),
            1 => Some(Acks::Leader),
            _ => None,
        };
        let transactional = request.transactional_id.is_some();
        Self {
            context,
            caller: context.caller(),
            version,
            acks,
            transactional,
        }
    }

    fn append_all(&self, request: ProduceRequest) -> Vec<Topic> {
        let mut pipeline = self.context.pipeline.lock();
        pipeline.begin_request();
        let mut topics = Vec::with_capacity(request.topic_data.len());
        for topic in request.topic_data {
            let found = self.find(&topic.name, topic.topic_id);
            let mut response = TopicProduceResponse::default();
            if self.version >= 13 {
                response.topic_id = topic.topic_id;
            } else {
                response.name = topic.name;
            }
            let partitions = topic
                .partition_data
                .into_iter()
                .map(|data| {
                    let index = data.index;
                    let head = data.records.as_deref().and_then(BatchHeader::read);
                    let place = || place(self.version, &response, index);
                    let partition = found.as_ref().map_err(|code| *code).and_then(|topic| {
                        topic
                            .partition(index)
                            .ok_or(ResponseError::UnknownTopicOrPartition)
                    });
                    let knows = || match (&partition, &head) {
                        (Ok(partition), Some(head)) => partition
                            .with_log(|log| log.knows_producer(head.producer_id()))
                            .unwrap_or(false),
                        _ => false,
                    };
                    let appended = in_order(&mut pipeline, place, head.as_ref(), knows, || {
                        let partition = partition.as_ref().map_err(|code| *code)?;
                        self.append(partition, data.records)
                    });
                    self.appended(index, partition.ok(), head, appended)
                })
                .collect();
            topics.push(Topic { response, partitions });
        }
        topics
    }

    fn find(&self, name: &str, id: uuid::Uuid) -> Result<Arc<LocalTopic>, ResponseError> {
        let partitions = self.context.broker.partitions();
        let topic = if self.version >= 13 {
            partitions
                .topic_by_id(skerry_types::Uuid(id.into_bytes()))
                .ok_or(ResponseError::UnknownTopicId)?
        } else {
            partitions
                .topic(name)
                .ok_or(ResponseError::UnknownTopicOrPartition)?
        };
        if topic.internal() && *self.context.client_id != *ADMIN_CLIENT_ID {
            return Err(ResponseError::InvalidTopicException);
        }
        if !self
            .context
            .broker
            .gate()
            .allows(&self.caller, Operation::Write, Resource::Topic(topic.name()))
        {
            return Err(ResponseError::TopicAuthorizationFailed);
        }
        Ok(topic)
    }

    fn append(&self, partition: &Arc<Partition>, records: Option<Bytes>) -> Result<Appending, Refused> {
        let broker = &self.context.broker;
        let acks = self.acks.ok_or(ResponseError::InvalidRequiredAcks)?;
        let records = records.ok_or_else(|| Refused {
            code: ResponseError::InvalidRecord,
            message: Some("the records of this partition are null".to_owned()),
            records: Vec::new(),
        })?;
        if let Some(free_bytes) = broker.disk_room().nearly_full() {
            return Err(ProduceError::DiskNearlyFull { free_bytes }.into());
        }
        if buggify("not-leader-for-once", 10) {
            return Err(ResponseError::NotLeaderOrFollower.into());
        }
        let now = broker.env().clock.wall();
        let rules = partition.settings().log.validation_rules(now, self.version >= 7);
        let size_bytes = records.len() as u64;
        let batch = ValidBatch::parse(records, &rules)?;
        if batch.header().is_transactional() {
            // No transactional id has been handed out, so none is known.
            let code = if self.transactional {
                ResponseError::InvalidProducerIdMapping
            } else {
                ResponseError::TransactionalIdAuthorizationFailed
            };
            return Err(code.into());
        }
        // Held back by the answer's throttle time once quotas exist; today it is always zero.
        let _ = broker
            .gate()
            .throttle(&self.caller, Counted::ProducedBytes(size_bytes));
        let appending = partition.append(batch, acks, now)?;
        broker.metrics().produced_batches.inc();
        broker.metrics().produced_bytes.inc_by(size_bytes);
        Ok(appending)
    }

    fn appended(
        &self,
        index: i32,
        partition: Option<Arc<Partition>>,
        head: Option<BatchHeader>,
        result: Result<Appending, Refused>,
    ) -> Appended {
        let mut response = PartitionProduceResponse::default().with_index(index);
        match result {
            Ok(appending) => {
                response.base_offset = appending.base.get();
                response.log_append_time_ms = appending.log_append_time.get();
                if self.version >= 5 {
                    response.log_start_offset = appending.log_start.get();
                }
                Appended {
                    response,
                    head,
                    waits: appending.acknowledged,
                    partition,
                }
            }
            Err(refused) => {
                self.context.broker.metrics().produce_errors.inc();
                refuse(&mut response, self.version, refused);
                Appended {
                    response,
                    head: None,
                    waits: None,
                    partition,
                }
            }
        }
    }
}

/// A partition of the topic of `response`.
fn place(version: i16, response: &TopicProduceResponse, partition: i32) -> Place {
    let topic = if version >= 13 {
        TopicKey::Id(skerry_types::Uuid(response.topic_id.into_bytes()))
    } else {
        TopicKey::Name(response.name.as_str().into())
    };
    Place { topic, partition }
}

/// Appends a batch, unless one that its producer sent before it was refused for a moment and has not come again. Where
/// the log knows the producer, it says so itself, and only the answer changes.
fn in_order(
    pipeline: &mut Pipeline,
    place: impl Fn() -> Place,
    head: Option<&BatchHeader>,
    log_knows: impl FnOnce() -> bool,
    append: impl FnOnce() -> Result<Appending, Refused>,
) -> Result<Appending, Refused> {
    let held_back = |code| Refused {
        code,
        message: Some(
            "a batch that its producer sent before it was refused, and has not come again".to_owned(),
        ),
        records: Vec::new(),
    };
    let sent = || Sent::new(place(), head?);
    // Nearly always nothing is remembered, and nothing is looked for.
    let waiting = if pipeline.is_empty() { None } else { sent() };
    if let Some(sent) = &waiting
        && !log_knows()
        && let Some(code) = pipeline.held_back(sent)
    {
        return Err(held_back(code));
    }
    let appended = append();
    match &appended {
        Ok(_) => {
            if let Some(sent) = &waiting {
                pipeline.taken(sent);
            }
        }
        Err(refused) if refused.code == ResponseError::OutOfOrderSequenceNumber => {
            if let Some(code) = waiting.as_ref().and_then(|sent| pipeline.held_back(sent)) {
                return Err(held_back(code));
            }
        }
        Err(refused) if refused.code == ResponseError::CorruptMessage => {
            // What its head says is not to be believed.
            pipeline.refuse_unread(place(), refused.code);
        }
        Err(refused) if refused.code.is_retriable() => {
            if let Some(sent) = waiting.or_else(sent) {
                pipeline.refuse(sent, refused.code);
            }
        }
        Err(_) => {}
    }
    appended
}

fn refuse(response: &mut PartitionProduceResponse, version: i16, refused: Refused) {
    response.error_code = refused.code.code();
    response.base_offset = -1;
    response.log_append_time_ms = -1;
    if version >= 5 {
        response.log_start_offset = -1;
    }
    if version >= 8 {
        response.record_errors = refused
            .records
            .into_iter()
            .map(|record| {
                BatchIndexAndErrorMessage::default()
                    .with_batch_index(record.index)
                    .with_batch_index_error_message(Some(StrBytes::from_string(record.message)))
            })
            .collect();
        response.error_message = refused.message.map(StrBytes::from_string);
    }
}

async fn wait_for_all(
    context: &Context,
    version: i16,
    mut topics: Vec<Topic>,
    deadline: Instant,
) -> Vec<Topic> {
    // Made when it is first needed: most requests are answered before it would be looked at.
    let mut timeout = None;
    for topic in &mut topics {
        for appended in &mut topic.partitions {
            let Some(waits) = appended.waits.take() else {
                continue;
            };
            let alarm = timeout.get_or_insert_with(|| context.broker.env().clock.sleep_until(deadline));
            let failure = tokio::select! {
                biased;
                acknowledged = waits => match acknowledged {
                    Ok(Ok(())) => continue,
                    Ok(Err(error)) => Refused::from(error),
                    Err(_) => ResponseError::NotLeaderOrFollower.into(),
                },
                () = alarm => {
                    timeout = None;
                    ResponseError::RequestTimedOut.into()
                }
            };
            // The next leader may not have it, and this broker may be the next leader.
            let (index, head) = (appended.response.index, appended.head.as_ref());
            if failure.code == ResponseError::NotLeaderOrFollower
                && let Some(sent) =
                    head.and_then(|head| Sent::new(place(version, &topic.response, index), head))
            {
                context.pipeline.lock().refuse(sent, failure.code);
            }
            refuse(&mut appended.response, version, failure);
        }
    }
    topics
}

fn answer(broker: &Broker, version: i16, correlation_id: i32, topics: Vec<Topic>) -> Outcome {
    let mut response = ProduceResponse::default();
    for topic in topics {
        let mut of_topic = topic.response;
        for appended in topic.partitions {
            let mut of_partition = appended.response;
            if version >= 10 && of_partition.error_code == ResponseError::NotLeaderOrFollower.code() {
                tell_the_leader(
                    broker,
                    &mut response,
                    &mut of_partition,
                    appended.partition.as_deref(),
                );
            }
            of_topic.partition_responses.push(of_partition);
        }
        response.responses.push(of_topic);
    }
    dispatch::encode(ApiKey::Produce, version, correlation_id, &response)
}

/// KIP-951: saves the client a Metadata request.
fn tell_the_leader(
    broker: &Broker,
    response: &mut ProduceResponse,
    of_partition: &mut PartitionProduceResponse,
    partition: Option<&Partition>,
) {
    let leader = partition.and_then(|partition| broker.leader_of(partition.topic_id(), partition.name()));
    // Where this broker is cut off, it is the leader that it knows.
    let Some(leader) = leader.filter(|leader| leader.id != broker.id()) else {
        return;
    };
    let id = kafka_protocol::messages::BrokerId(leader.id.get());
    of_partition.current_leader = LeaderIdAndEpoch::default()
        .with_leader_id(id)
        .with_leader_epoch(leader.epoch.get());
    if response
        .node_endpoints
        .iter()
        .all(|endpoint| endpoint.node_id != id)
    {
        response.node_endpoints.push(
            NodeEndpoint::default()
                .with_node_id(id)
                .with_host(StrBytes::from_string(leader.host.to_string()))
                .with_port(i32::from(leader.port)),
        );
    }
}

/// `acks=0`: no answer, but a closed connection where something was refused.
fn silence(topics: &[Topic]) -> Outcome {
    let refused = topics
        .iter()
        .flat_map(|topic| &topic.partitions)
        .find(|appended| appended.response.error_code != 0);
    match refused {
        None => Ok(None),
        Some(appended) => {
            let name = appended.partition.as_ref().map_or_else(
                || format!("partition {}", appended.response.index),
                |partition| partition.name().to_string(),
            );
            let code = appended.response.error_code;
            Err(Refusal::Unacknowledged(format!("{name}: {}", errors::name(code))))
        }
    }
}
