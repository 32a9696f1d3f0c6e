//! Consumers that assign partitions to themselves, and a client that asks for ends.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest};
use skerry_client::ResponseError;
use skerry_types::sometimes;
use uuid::Uuid;

use super::{Client, Failure, KEYED, TOPICS, To, error_name, key, pick, topic_name};
use crate::invariants::Found;
use crate::process::ALONE;
use crate::record;
use skerry_checker::history::{Op, Outcome, Value};

/// The newest version of Fetch that names topics.
const FETCH_BY_NAME: i16 = 12;

pub(super) const LATEST: i64 = -1;
pub(super) const EARLIEST: i64 = -2;

/// Where a consumer is in one partition.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position {
    pub(super) next: i64,
    /// The leader epoch of what it read last; -1: nothing.
    pub(super) last_epoch: i32,
    /// One uninterrupted reading.
    pub(super) session: u64,
}

pub(super) type Positions = BTreeMap<(String, i32), Position>;

/// A fetch session (KIP-227) as the client knows it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FetchSession {
    id: i32,
    epoch: i32,
}

/// The sessions with the nodes.
pub(super) type FetchSessions = BTreeMap<i32, FetchSession>;

/// How a consumer fetches.
#[derive(Clone, Copy, Debug)]
pub(super) struct Style {
    pub(super) newest: i16,
    pub(super) max_wait_ms: i32,
    pub(super) max_bytes: i32,
    pub(super) min_bytes: i32,
    /// Of the whole answer.
    pub(super) answer_max_bytes: i32,
}

pub(super) fn draw_style(client: &Client) -> Style {
    Style {
        newest: *pick(&client.env, &[i16::MAX, i16::MAX, FETCH_BY_NAME, 11]),
        max_wait_ms: *pick(&client.env, &[0, 100, 500, 1_000]),
        max_bytes: *pick(&client.env, &[300, 5_000, 1 << 20]),
        min_bytes: *pick(&client.env, &[1, 1, 2_000]),
        answer_max_bytes: 1 << 20,
    }
}

/// What no sensible client asks for, and what a broker answers all the same: the first batch, however large (KIP-74).
fn draw_odd_style(client: &Client) -> Style {
    Style {
        newest: *pick(&client.env, &[i16::MAX, FETCH_BY_NAME, 4]),
        max_wait_ms: *pick(&client.env, &[0, 0, 2_000]),
        max_bytes: *pick(&client.env, &[0, 1, i32::MAX]),
        min_bytes: *pick(&client.env, &[0, 1, i32::MAX]),
        answer_max_bytes: *pick(&client.env, &[0, 1, i32::MAX]),
    }
}

pub(super) fn new_session(client: &Client) -> u64 {
    client.shared.next_session.fetch_add(1, Ordering::Relaxed)
}

/// Reads a few partitions from their beginnings, again and again.
pub(super) async fn run(client: Client) {
    run_as(client, draw_style).await;
}

/// The same, with sizes and times at the ends of what can be said.
pub(super) async fn run_oddly(client: Client) {
    run_as(client, draw_odd_style).await;
}

async fn run_as(mut client: Client, draw_style: fn(&Client) -> Style) {
    let mut positions = Positions::new();
    let mut sessions = FetchSessions::new();
    let mut style = draw_style(&client);
    while !client.is_stopping() {
        client.sit_out_a_lull().await;
        if positions.is_empty() || client.env.rng.chance(1, 60) {
            positions = begin(&mut client).await;
            sessions.clear();
            style = draw_style(&client);
        }
        if fetch(&mut client, &mut sessions, style, &mut positions)
            .await
            .is_err()
        {
            client.pause(150).await;
        }
    }
}

async fn begin(client: &mut Client) -> Positions {
    let mut positions = Positions::new();
    for (topic, partitions) in TOPICS {
        for partition in 0..partitions {
            if client.env.rng.chance(1, 2)
                && let Some(next) = list_offset(client, topic, partition, EARLIEST).await
            {
                positions.insert(
                    (topic.to_owned(), partition),
                    Position {
                        next,
                        last_epoch: -1,
                        session: new_session(client),
                    },
                );
            }
        }
    }
    positions
}

/// One fetch of all `positions`, which move on by what was read: one request to each node that leads some of them.
pub(super) async fn fetch(
    client: &mut Client,
    sessions: &mut FetchSessions,
    style: Style,
    positions: &mut Positions,
) -> Result<(), Failure> {
    let mut shares: BTreeMap<i32, Vec<(String, i32)>> = BTreeMap::new();
    for place in positions.keys() {
        let leader = client.find(To::Leader(&place.0, place.1)).await;
        // Who reads in a cluster goes on with what has a leader.
        if let Ok(leader) = leader {
            shares.entry(leader).or_default().push(place.clone());
        }
    }
    if shares.is_empty() {
        return Err(Failure::unknown("nobody leads"));
    }
    let mut result = Ok(());
    for (node, share) in shares {
        let session = sessions.entry(node).or_default();
        if let Err(failure) = fetch_from(client, node, session, style, (positions, &share)).await {
            // Who goes on with a session whose answer it lost is out of step, and is told so.
            if client.env.rng.chance(1, 2) {
                sessions.remove(&node);
            }
            result = Err(failure);
        }
    }
    result
}

async fn fetch_from(
    client: &mut Client,
    node: i32,
    session: &mut FetchSession,
    style: Style,
    (positions, share): (&mut Positions, &[(String, i32)]),
) -> Result<(), Failure> {
    let mut topics: BTreeMap<&str, Vec<FetchPartition>> = BTreeMap::new();
    let mut ops = BTreeMap::new();
    for (topic, partition) in share {
        let Some(position) = positions.get(&(topic.clone(), *partition)) else {
            continue;
        };
        let wanted = FetchPartition::default()
            .with_partition(*partition)
            .with_current_leader_epoch(client.epoch_of(topic, *partition))
            .with_fetch_offset(position.next)
            .with_last_fetched_epoch(position.last_epoch)
            .with_partition_max_bytes(style.max_bytes);
        topics.entry(topic).or_default().push(wanted);
        let op = Op::Poll {
            key: key(topic, *partition),
            session: position.session,
            from: position.next,
        };
        ops.insert((topic.clone(), *partition), client.invoke(op));
    }
    let mut named = Vec::new();
    for (topic, partitions) in topics {
        let topic_id = client
            .topic_id(topic)
            .await
            .ok_or_else(|| Failure::unknown("stopping"))?;
        named.push(
            FetchTopic::default()
                .with_topic(topic_name(topic))
                .with_topic_id(topic_id)
                .with_partitions(partitions),
        );
    }
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(style.max_wait_ms)
        .with_min_bytes(style.min_bytes)
        .with_max_bytes(style.answer_max_bytes)
        .with_session_id(session.id)
        .with_session_epoch(session.epoch)
        .with_topics(named);
    let result = match client.call_up_to(To::Node(node), &request, style.newest).await {
        Ok(answer) => {
            *session = next_session(*session, &answer);
            digest(client, &answer, &mut ops, positions)
        }
        Err(failure) => Err(failure),
    };
    for id in ops.into_values() {
        client.complete(
            id,
            Outcome::Failed {
                definite: true,
                why: "nothing new".into(),
            },
        );
    }
    result
}

fn next_session(session: FetchSession, answer: &FetchResponse) -> FetchSession {
    match (answer.error_code, answer.session_id) {
        (0, 0) => FetchSession::default(),
        (0, id) => FetchSession {
            id,
            epoch: if session.id == id { session.epoch + 1 } else { 1 },
        },
        _ => FetchSession::default(),
    }
}

fn digest(
    client: &mut Client,
    answer: &FetchResponse,
    ops: &mut BTreeMap<(String, i32), u64>,
    positions: &mut Positions,
) -> Result<(), Failure> {
    if answer.error_code != 0 {
        return Err(Failure::refused(answer.error_code));
    }
    let mut failed = None;
    for topic in &answer.responses {
        let by_id = client
            .ids
            .iter()
            .find(|(_, id)| **id == topic.topic_id)
            .map(|(name, _)| name.clone());
        let name = if topic.topic.is_empty() {
            by_id
        } else {
            Some(topic.topic.to_string())
        };
        let Some(name) = name else { continue };
        for partition in &topic.partitions {
            let place = (name.clone(), partition.partition_index);
            let (Some(position), Some(op)) = (positions.get_mut(&place), ops.remove(&place)) else {
                continue;
            };
            match read(partition, position.next) {
                Ok(records) => {
                    let next = after(&name, partition, &records, position.next);
                    if next > position.next {
                        position.next = next;
                        position.last_epoch = last_epoch(partition);
                    }
                    let outcome = Outcome::Polled {
                        records,
                        high_watermark: partition.high_watermark,
                        log_start: partition.log_start_offset,
                    };
                    client.complete(op, outcome);
                }
                Err(Bad::Error(code)) => {
                    client.complete(op, Failure::refused(code).outcome());
                    client.forget(&name);
                    failed = Some((place.clone(), code));
                }
                Err(Bad::Records(why)) => {
                    client.complete(op, Failure::unknown(why.clone()).outcome());
                    // Kafka's brokers check no sums of what they send either: its clients do.
                    let rotten = &client.shared.rotten;
                    let records = partition.records.as_deref().unwrap_or_default();
                    if client.shared.corrupted.was_read(records) {
                        continue;
                    }
                    let partition = key(&name, place.1);
                    let excused =
                        rotten.may_be_sent(&partition) || rotten.is(ALONE, &partition) && client.is_alone();
                    for (check, message) in judge_records(&why, excused) {
                        let from = position.next;
                        let message = format!("{} reads {partition} from {from}: {message}", client.name);
                        client.shared.violation(check, message);
                    }
                }
            }
        }
    }
    let Some((place, code)) = failed else {
        return Ok(());
    };
    if ResponseError::try_from_code(code) == Some(ResponseError::OffsetOutOfRange) {
        // Its beginning was deleted; and if it was not, the checker sees the end that went back.
        positions.remove(&place);
    }
    Err(Failure::unknown(error_name(code)))
}

/// Asks for one partition, outside of sessions, as somebody who reads to look and not to follow.
pub(super) fn glance(topic: &str, id: Uuid, partition: i32, from: i64) -> FetchRequest {
    let wanted = FetchPartition::default()
        .with_partition(partition)
        .with_current_leader_epoch(-1)
        .with_fetch_offset(from)
        .with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default()
        .with_topic(topic_name(topic))
        .with_topic_id(id)
        .with_partitions(vec![wanted]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(200)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![wanted])
}

pub(super) enum Bad {
    Error(i16),
    Records(String),
}

/// What a partition's part of an answer holds from `from` on.
pub(super) fn read(partition: &PartitionData, from: i64) -> Result<Vec<(i64, Value)>, Bad> {
    if partition.error_code != 0 {
        return Err(Bad::Error(partition.error_code));
    }
    let records = partition.records.as_deref().unwrap_or_default();
    record::values(records, from).map_err(Bad::Records)
}

/// Where a reader goes on. In a log that is compacted batches may have lost their last records, or all: real clients go on
/// behind the batch.
pub(super) fn after(topic: &str, partition: &PartitionData, records: &[(i64, Value)], from: i64) -> i64 {
    let last = records.last().map_or(from, |(last, _)| last + 1);
    if topic != KEYED {
        return last;
    }
    let bytes = partition.records.as_deref().unwrap_or_default();
    let next = record::batches(bytes).last().map_or(last, |batch| batch.end());
    sometimes("hole-read", records.len() as i64 != next - from);
    next.max(last)
}

/// Records that fail their sums, or are none, are served only where no copy that could be read has better ones.
fn judge_records(why: &str, excused: bool) -> Found {
    if excused {
        return Found::new();
    }
    vec![("broken-records", why.to_owned())]
}

/// The leader epoch of the last batch of an answer.
fn last_epoch(partition: &PartitionData) -> i32 {
    let records = partition.records.as_deref().unwrap_or_default();
    record::batches(records)
        .last()
        .map_or(-1, |batch| batch.leader_epoch())
}

/// ListOffsets, once.
pub(super) async fn list_offset(
    client: &mut Client,
    topic: &str,
    partition: i32,
    timestamp: i64,
) -> Option<i64> {
    let (offset, _) = list(client, topic, partition, timestamp).await?;
    Some(offset)
}

/// The same, and the timestamp of the record that is there.
pub(super) async fn list(
    client: &mut Client,
    topic: &str,
    partition: i32,
    timestamp: i64,
) -> Option<(i64, i64)> {
    let wanted = ListOffsetsPartition::default()
        .with_partition_index(partition)
        .with_current_leader_epoch(client.epoch_of(topic, partition))
        .with_timestamp(timestamp);
    let wanted = ListOffsetsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![wanted]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![wanted]);
    let answer = client.call(To::Leader(topic, partition), &request).await.ok()?;
    let found = answer.topics.first()?.partitions.first()?;
    if found.error_code != 0 {
        client.forget(topic);
        return None;
    }
    Some((found.offset, found.timestamp))
}

/// Asks where partitions end.
pub(super) async fn list_ends(mut client: Client) {
    while !client.is_stopping() {
        let (topic, partition) = client.draw_partition();
        let id = client.invoke(Op::ListEnd {
            key: key(topic, partition),
        });
        let found = list_offset(&mut client, topic, partition, LATEST).await;
        client.complete(
            id,
            found.map_or_else(
                || Outcome::Failed {
                    definite: true,
                    why: "no answer".into(),
                },
                |offset| Outcome::Offset { offset },
            ),
        );
        // Whoever takes over is asked at once: that is when it may not know yet.
        client.pause(if found.is_some() { 400 } else { 40 }).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Identity;

    #[test]
    fn records_that_are_not_what_was_written_are_not_served() {
        let sent = [Value {
            producer: 1,
            serial: 2,
        }];
        let whole = record::encode(&sent, Identity::NONE, 77, 10).to_vec();
        let answer = |records: Vec<u8>| PartitionData::default().with_records(Some(records.into()));
        assert!(read(&answer(whole.clone()), 0).is_ok_and(|records| records == [(0, sent[0])]));
        let mut damaged = whole;
        *damaged.last_mut().unwrap() ^= 1;
        let Err(Bad::Records(why)) = read(&answer(damaged), 0) else {
            panic!("its sum fails")
        };
        assert_eq!(judge_records(&why, false)[0].0, "broken-records");
        assert!(judge_records(&why, true).is_empty());
    }
}
