//! Producers.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{InitProducerIdRequest, ProduceRequest, ProduceResponse};
use skerry_client::ResponseError;
use skerry_types::reached;
use std::sync::atomic::Ordering;
use uuid::Uuid;

use super::consume::{LATEST, list_offset};
use super::{CALL_TIMEOUT, Client, Failure, To, check_answer, error_name, key, topic_name};
use crate::invariants::Found;
use crate::record::{self, Codec, Identity};
use skerry_checker::history::{Op, Outcome, RecordKey, Value};

/// What idempotent producers may have on their way (Kafka's limit).
pub(super) const IN_FLIGHT_MAX: u64 = 5;

pub(super) struct Batch {
    pub(super) op: u64,
    values: Vec<Value>,
    bytes: Bytes,
}

/// Where a producer is: a new one begins where an operation was given up.
pub(super) struct Writer {
    number: u32,
    serial: u32,
    identity: Option<(i64, i16)>,
    sequences: BTreeMap<(&'static str, i32), i32>,
}

impl Writer {
    pub(super) fn new(client: &Client) -> Self {
        let number = client.shared.next_producer.fetch_add(1, Ordering::Relaxed);
        Self {
            number,
            serial: 0,
            identity: None,
            sequences: BTreeMap::new(),
        }
    }

    pub(super) fn values(&mut self, count: u64) -> Vec<Value> {
        (0..count)
            .map(|_| {
                let value = Value {
                    producer: self.number,
                    serial: self.serial,
                };
                self.serial += 1;
                value
            })
            .collect()
    }
}

/// With acks=all, an identity, and up to five batches on their way; retried in order until answered.
pub(super) async fn idempotent(mut client: Client) {
    let mut writer = Writer::new(&client);
    while !client.is_stopping() {
        client.sit_out_a_lull().await;
        let Some((id, epoch)) = identify(&mut client, &mut writer).await else {
            break;
        };
        let (topic, partition) = client.draw_partition();
        if client.topic_id(topic).await.is_none() {
            break;
        }
        let mut batches = VecDeque::new();
        for _ in 0..1 + client.env.rng.below(IN_FLIGHT_MAX) {
            let values = writer.values(1 + client.env.rng.below(6));
            let sequence = writer.sequences.entry((topic, partition)).or_insert(0);
            let identity = Identity {
                id,
                epoch,
                sequence: *sequence,
            };
            *sequence += i32::try_from(values.len()).unwrap_or(0);
            batches.push_back(prepare(&client, topic, partition, values, identity, -1));
        }
        if let Err(failure) = deliver(&mut client, topic, partition, -1, &mut batches).await {
            for batch in batches {
                client.complete(batch.op, failure.outcome());
            }
            writer = Writer::new(&client);
        }
        client.pause(60).await;
    }
}

/// Without an identity, one batch at a time: retries may write it twice.
pub(super) async fn plain(mut client: Client, acks: i16) {
    let mut writer = Writer::new(&client);
    while !client.is_stopping() {
        let Some((topic, partition)) = next_partition(&mut client).await else {
            break;
        };
        let values = writer.values(1 + client.env.rng.below(4));
        let mut batches = VecDeque::from([prepare(&client, topic, partition, values, Identity::NONE, acks)]);
        if let Err(failure) = deliver(&mut client, topic, partition, acks, &mut batches).await {
            for batch in batches {
                client.complete(batch.op, failure.outcome());
            }
        }
        client.pause(80).await;
    }
}

/// Where to write next, once it is time to; `None` at the end.
async fn next_partition(client: &mut Client) -> Option<(&'static str, i32)> {
    client.sit_out_a_lull().await;
    let (topic, partition) = client.draw_partition();
    client.topic_id(topic).await?;
    Some((topic, partition))
}

pub(super) async fn identify(client: &mut Client, writer: &mut Writer) -> Option<(i64, i16)> {
    while writer.identity.is_none() {
        if client.is_stopping() {
            return None;
        }
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_transaction_timeout_ms(60_000);
        match client.call(To::Anyone, &request).await {
            Ok(answer) if answer.error_code == 0 => {
                writer.identity = Some((answer.producer_id.0, answer.producer_epoch));
            }
            _ => client.pause(150).await,
        }
    }
    writer.identity
}

pub(super) fn prepare(
    client: &Client,
    topic: &str,
    partition: i32,
    values: Vec<Value>,
    identity: Identity,
    acks: i16,
) -> Batch {
    let padded = draw_padding(client);
    let timestamp = client.env.clock.wall().get();
    let codec = codec_of(client, &values);
    let bytes = record::encode_packed(&values, identity, timestamp, padded, codec);
    let op = client.invoke(Op::Send {
        key: key(topic, partition),
        values: values.clone(),
        idempotent: identity != Identity::NONE,
        acks_all: acks == -1,
        record_keys: Vec::new(),
    });
    Batch { op, values, bytes }
}

/// The same for a topic that is compacted, with acks=all.
pub(super) fn prepare_keyed(
    client: &Client,
    (topic, partition): (&str, i32),
    records: Vec<(Value, RecordKey)>,
    identity: Identity,
) -> Batch {
    let padded = draw_padding(client);
    let timestamp = client.env.clock.wall().get();
    let (values, record_keys): (Vec<_>, Vec<_>) = records.iter().cloned().unzip();
    let codec = codec_of(client, &values);
    let bytes = record::encode_keyed(&records, identity, timestamp, padded, codec);
    let op = client.invoke(Op::Send {
        key: key(topic, partition),
        values: values.clone(),
        idempotent: true,
        acks_all: true,
        record_keys,
    });
    Batch { op, values, bytes }
}

fn draw_padding(client: &Client) -> usize {
    let padded = match client.env.rng.below(10) {
        0 => 4_000 + client.env.rng.below(9_000),
        _ => client.env.rng.below(500),
    };
    usize::try_from(padded).unwrap_or(0)
}

/// No draw: whether batches are packed moves nothing else.
fn codec_of(client: &Client, values: &[Value]) -> Codec {
    match values.first() {
        Some(first) if client.shared.cluster.packed => Codec::ALL[first.serial as usize % Codec::ALL.len()],
        _ => Codec::None,
    }
}

/// What one answer means for its batch.
pub(super) enum Heard {
    Written(i64),
    Retry(String),
    Refused(i16),
}

/// Sends the batches, all at once and in order, again and again, until each is answered. What is left when it gives
/// up is in `batches`.
pub(super) async fn deliver(
    client: &mut Client,
    topic: &str,
    partition: i32,
    acks: i16,
    batches: &mut VecDeque<Batch>,
) -> Result<(), Failure> {
    let mut tries = 0;
    while !batches.is_empty() {
        if tries > 0 {
            if client.is_stopping() {
                return Err(Failure::unknown("given up"));
            }
            client.pause(200).await;
        }
        tries += 1;
        let heard = send_all(client, topic, partition, acks, batches).await;
        for heard in heard {
            match heard {
                Heard::Written(base) => {
                    if let Some(batch) = batches.pop_front() {
                        client.complete(batch.op, Outcome::Sent { base });
                    }
                }
                Heard::Retry(why) => {
                    if client.shared.trace.is_detailed() {
                        let line =
                            format_args!("{topic}-{partition}: {} batches again: {why}", batches.len());
                        client.shared.trace.event(&client.name, line);
                    }
                    client.disconnect();
                    client.forget(topic);
                    break;
                }
                Heard::Refused(code) => {
                    client.disconnect();
                    let Some(batch) = batches.front() else { break };
                    // Kafka's clients send it again: the way has damaged it.
                    let was_damaged = was_damaged(client, code, batch);
                    let to = key(topic, partition);
                    client.report(check_refused(
                        &client.name,
                        &batch.values,
                        &to,
                        (code, was_damaged),
                    ));
                    if was_damaged {
                        break;
                    }
                    return Err(Failure::unknown(error_name(code)));
                }
            }
        }
    }
    Ok(())
}

/// A batch of somebody who sends in order, and again until it is answered, is not refused for good (19), unless the way has
/// damaged it.
fn check_refused(who: &str, values: &[Value], to: &str, (code, was_damaged): (i16, bool)) -> Found {
    let (Some(first), Some(last)) = (values.first(), values.last()) else {
        return Found::new();
    };
    if was_damaged {
        return Found::new();
    }
    let why = error_name(code);
    let message = format!("{who} sent {first}..{last} to {to}, everything before it acknowledged: {why}");
    vec![("refused-record", message)]
}

/// A batch was refused for what became of it on its way.
pub(super) fn was_damaged(client: &Client, code: i16, batch: &Batch) -> bool {
    let is_corrupt = ResponseError::try_from_code(code) == Some(ResponseError::CorruptMessage);
    is_corrupt && client.shared.corrupted.was_sent(&batch.bytes)
}

pub(super) async fn send_all(
    client: &mut Client,
    topic: &str,
    partition: i32,
    acks: i16,
    batches: &VecDeque<Batch>,
) -> Vec<Heard> {
    let Some(id) = client.topic_id(topic).await else {
        return vec![Heard::Retry("no id".into())];
    };
    let conn = match client.find(To::Leader(topic, partition)).await {
        Ok(leader) => client.connection(leader).await,
        Err(failure) => Err(failure),
    };
    let conn = match conn {
        Ok(conn) => conn,
        Err(failure) => return vec![Heard::Retry(failure.why)],
    };
    let version = match conn.version::<ProduceRequest>() {
        Ok(version) => version,
        Err(error) => return vec![Heard::Retry(error.to_string())],
    };
    // Both ways of naming a topic are used: by its id (13), by its name (up to 12).
    let version = if client.env.rng.chance(1, 3) {
        version.min(12)
    } else {
        version
    };
    let mut waiting = Vec::new();
    let mut heard = Vec::new();
    for batch in batches {
        let request = request((topic, id), partition, acks, batch);
        match conn.send(&request, version, CALL_TIMEOUT).await {
            Ok(pending) => waiting.push(pending),
            Err(_) => break,
        }
    }
    for mut pending in waiting {
        match pending.answer().await {
            Ok(answer) => heard.push(understand(&answer, client.is_alone())),
            Err(error) => {
                client.report(check_answer(&client.name, &error));
                heard.push(Heard::Retry(error.to_string()));
                return heard;
            }
        }
        if !matches!(heard.last(), Some(Heard::Written(_))) {
            return heard;
        }
    }
    if heard.len() < batches.len() {
        heard.push(Heard::Retry("not sent".into()));
    }
    heard
}

fn request((topic, id): (&str, Uuid), partition: i32, acks: i16, batch: &Batch) -> ProduceRequest {
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(batch.bytes.clone()));
    let topic_data = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_topic_id(id)
        .with_partition_data(vec![data]);
    ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(2_000)
        .with_topic_data(vec![topic_data])
}

/// With acks=0: nobody answers, and whoever asks for something else on the same connection gets the answer to that.
pub(super) async fn unanswered(mut client: Client) {
    let mut writer = Writer::new(&client);
    while !client.is_stopping() {
        let Some((topic, partition)) = next_partition(&mut client).await else {
            break;
        };
        for _ in 0..1 + client.env.rng.below(4) {
            let values = writer.values(1 + client.env.rng.below(4));
            let batch = prepare(&client, topic, partition, values, Identity::NONE, 0);
            let sent = send_unanswered(&mut client, topic, partition, &batch).await;
            let why = sent.err().unwrap_or_else(|| "nobody answers".to_owned());
            client.complete(batch.op, Failure::unknown(why).outcome());
        }
        // A node that refuses one has closed the connection.
        match list_offset(&mut client, topic, partition, LATEST).await {
            Some(_) => reached("asked-behind-what-nobody-answers"),
            None => {
                client.disconnect();
                client.forget(topic);
            }
        }
        client.pause(120).await;
    }
}

async fn send_unanswered(
    client: &mut Client,
    topic: &str,
    partition: i32,
    batch: &Batch,
) -> Result<(), String> {
    let id = client.topic_id(topic).await.ok_or("no id")?;
    let leader = client.find(To::Leader(topic, partition)).await;
    let leader = leader.map_err(|failure| failure.why)?;
    let conn = client.connection(leader).await.map_err(|failure| failure.why)?;
    let version = conn
        .version::<ProduceRequest>()
        .map_err(|error| error.to_string())?;
    let request = request((topic, id), partition, 0, batch);
    conn.send_unanswered(&request, version, CALL_TIMEOUT)
        .await
        .map_err(|error| error.to_string())
}

fn understand(answer: &ProduceResponse, alone: bool) -> Heard {
    let partition = answer
        .responses
        .first()
        .and_then(|topic| topic.partition_responses.first());
    let Some(partition) = partition else {
        return Heard::Retry("an empty answer".into());
    };
    match ResponseError::try_from_code(partition.error_code) {
        None if partition.error_code == 0 => Heard::Written(partition.base_offset),
        // A node that has just come back may not have heard of the topic yet.
        Some(ResponseError::UnknownTopicOrPartition | ResponseError::UnknownTopicId) if !alone => {
            Heard::Retry(error_name(partition.error_code))
        }
        // Whoever retries in order is never out of order: the broker forgot what it had acknowledged, or took a batch
        // before one that it had refused. A topic that was told is known, and none of these is ever removed.
        Some(
            ResponseError::OutOfOrderSequenceNumber
            | ResponseError::UnknownTopicOrPartition
            | ResponseError::UnknownTopicId
            | ResponseError::DuplicateSequenceNumber
            | ResponseError::UnknownProducerId
            | ResponseError::InvalidProducerEpoch
            | ResponseError::CorruptMessage
            | ResponseError::InvalidRecord
            | ResponseError::MessageTooLarge
            | ResponseError::UnsupportedVersion
            | ResponseError::InvalidRequiredAcks,
        ) => Heard::Refused(partition.error_code),
        _ => Heard::Retry(error_name(partition.error_code)),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};

    use super::*;

    /// What is found where a producer hears this of a batch, in a cluster or of a node that is alone.
    fn judged(error: Option<ResponseError>, alone: bool, was_damaged: bool) -> Vec<&'static str> {
        let code = error.map_or(0, |error| error.code());
        let answer = PartitionProduceResponse::default().with_error_code(code);
        let topic = TopicProduceResponse::default().with_partition_responses(vec![answer]);
        let answer = ProduceResponse::default().with_responses(vec![topic]);
        let values = [0, 1].map(|serial| Value { producer: 7, serial });
        let Heard::Refused(code) = understand(&answer, alone) else {
            return Vec::new();
        };
        let found = check_refused("a client", &values, "orders-0", (code, was_damaged));
        found.into_iter().map(|(check, _)| check).collect()
    }

    #[test]
    fn who_sends_in_order_is_not_refused() {
        let none: [&str; 0] = [];
        // It is written; somebody else leads; the node has not heard of the topic yet.
        assert_eq!(judged(None, true, false), none);
        assert_eq!(
            judged(Some(ResponseError::NotLeaderOrFollower), false, false),
            none
        );
        assert_eq!(judged(Some(ResponseError::UnknownTopicId), false, false), none);
        for error in [
            ResponseError::OutOfOrderSequenceNumber,
            ResponseError::UnknownProducerId,
            ResponseError::CorruptMessage,
        ] {
            assert_eq!(judged(Some(error), false, false), ["refused-record"]);
        }
        // Whoever is alone knows its topics; what the way has damaged is refused rightly.
        assert_eq!(
            judged(Some(ResponseError::UnknownTopicId), true, false),
            ["refused-record"]
        );
        assert_eq!(judged(Some(ResponseError::CorruptMessage), false, true), none);
    }
}
