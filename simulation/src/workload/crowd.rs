//! Clients that a broker must bear beside the others: who comes and goes, and who asks for much and reads little.

use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, FetchRequest, RequestHeader};
use kafka_protocol::protocol::Encodable as _;
use skerry_env::Conn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Client, TOPICS, pick, text, topic_name};

const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// So many come at once.
const COME_MAX: u64 = 40;
/// So many answers a slow reader asks for before it reads any.
const ASKED_MAX: u64 = 60;
/// The newest version of Fetch that names topics.
const FETCH_BY_NAME: i16 = 12;

async fn dial(client: &Client) -> Option<Conn> {
    let addr = pick(&client.env, &client.shared.cluster.addrs);
    let dialled = client.env.clock.timeout(DIAL_TIMEOUT, client.env.net.dial(addr));
    dialled.await.ok()?.ok()
}

/// Opens connections and leaves them: at once, in the middle of a frame, or after a while of silence.
pub(super) async fn come_and_go(client: Client) {
    while !client.is_stopping() {
        let mut open = Vec::new();
        for _ in 0..1 + client.env.rng.below(COME_MAX) {
            let Some(mut conn) = dial(&client).await else {
                break;
            };
            match client.env.rng.below(3) {
                0 => drop(conn),
                // A length, and a part of what it announces.
                1 if conn.write_all(&[0, 0, 0, 40, 0, 18, 0]).await.is_ok() => open.push(conn),
                _ => open.push(conn),
            }
        }
        client.pause(1_500).await;
        drop(open);
        client.pause(300).await;
    }
}

/// Asks for much at once, reads a byte now and then, and goes before it has read it all.
pub(super) async fn read_slowly(client: Client) {
    while !client.is_stopping() {
        client.pause(300).await;
        let Some(mut conn) = dial(&client).await else {
            continue;
        };
        let mut frames = BytesMut::new();
        for number in 0..1 + i32::try_from(client.env.rng.below(ASKED_MAX)).unwrap_or(0) {
            frames.extend_from_slice(&fetch(&client, number));
        }
        // The broker may have stopped reading: it does not wait for that either.
        let written = client.env.clock.timeout(DIAL_TIMEOUT, conn.write_all(&frames));
        if !matches!(written.await, Ok(Ok(()))) {
            continue;
        }
        let mut some = [0; 64];
        for _ in 0..client.env.rng.below(20) {
            let heard = client.env.clock.timeout(DIAL_TIMEOUT, conn.read(&mut some));
            if !matches!(heard.await, Ok(Ok(1..))) || client.is_stopping() {
                break;
            }
            client.pause(200).await;
        }
    }
}

/// A whole frame that asks for everything that a node leads.
fn fetch(client: &Client, correlation: i32) -> BytesMut {
    let topics = TOPICS.map(|(topic, partitions)| {
        let partitions = (0..partitions).map(|partition| {
            FetchPartition::default()
                .with_partition(partition)
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(i32::MAX)
        });
        FetchTopic::default()
            .with_topic(topic_name(topic))
            .with_partitions(partitions.collect())
    });
    let request = FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_bytes(i32::MAX)
        .with_session_epoch(-1)
        .with_topics(topics.into());
    let header = RequestHeader::default()
        .with_request_api_key(ApiKey::Fetch as i16)
        .with_request_api_version(FETCH_BY_NAME)
        .with_correlation_id(correlation)
        .with_client_id(Some(text(&client.name)));
    let mut body = BytesMut::new();
    let version = ApiKey::Fetch.request_header_version(FETCH_BY_NAME);
    let whole = header
        .encode(&mut body, version)
        .and_then(|()| request.encode(&mut body, FETCH_BY_NAME));
    whole.expect("a request of this version is encoded");
    let mut frame = BytesMut::new();
    frame.put_i32(i32::try_from(body.len()).unwrap_or(0));
    frame.extend_from_slice(&body);
    frame
}
