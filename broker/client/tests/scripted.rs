//! The client against brokers that do what a test tells them to.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use expect_test::expect;
use parking_lot::Mutex;
use skerry_client::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, BrokerId, InitProducerIdRequest, InitProducerIdResponse,
    MetadataRequest, MetadataResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
    TopicName,
    api_versions_response::ApiVersion,
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    produce_response::{PartitionProduceResponse, TopicProduceResponse},
};
use skerry_client::protocol::{Decodable as _, Encodable, HeaderVersion, StrBytes};
use skerry_client::{
    CallError, Client, ClientOptions, ClosedBecause, ConnectError, Connection, ConnectionOptions, Outcome,
    Producer, ProducerOptions, Record, ResponseError, batch,
};
use skerry_env::{Conn, Env};
use skerry_types::{TopicPartition, WallMs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// What a broker does with one request.
enum Answer {
    Send(Bytes),
    /// The bytes as they are, length included.
    Raw(Vec<u8>),
    Nothing,
    Close,
}

type Script = Arc<dyn Fn(&RequestHeader, Bytes) -> Answer + Send + Sync>;

fn run<F: Future<Output = ()>>(test: impl FnOnce(Env) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let env = Env::os();
        let clock = env.clock.clone();
        clock
            .timeout(Duration::from_secs(30), test(env))
            .await
            .expect("the test ends in time");
    });
}

/// A broker that answers each request as `script` says. Its address.
async fn broker(env: &Env, script: Script) -> String {
    let mut listener = env.net.bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().to_string();
    let tasks = env.tasks.clone();
    // Ends with the test's runtime.
    drop(env.tasks.spawn("broker", async move {
        loop {
            let conn = listener.accept().await.unwrap();
            let script = script.clone();
            drop(tasks.spawn("broker-connection", async move {
                let _ = serve(conn, script).await;
            }));
        }
    }));
    addr
}

async fn serve(mut conn: Conn, script: Script) -> std::io::Result<()> {
    loop {
        let len = conn.read_u32().await?;
        let mut frame = vec![0; len as usize];
        conn.read_exact(&mut frame).await?;
        let mut frame = Bytes::from(frame);
        let (key, version) = ((&frame[..2]).get_i16(), (&frame[2..4]).get_i16());
        let header_version = ApiKey::try_from(key).unwrap().request_header_version(version);
        let header = RequestHeader::decode(&mut frame, header_version).unwrap();
        match script(&header, frame) {
            Answer::Send(body) => {
                conn.write_u32(u32::try_from(body.len()).unwrap()).await?;
                conn.write_all(&body).await?;
            }
            Answer::Raw(bytes) => conn.write_all(&bytes).await?,
            Answer::Nothing => {}
            Answer::Close => return Ok(()),
        }
    }
}

fn answer<T: Encodable + HeaderVersion>(header: &RequestHeader, response: &T, version: i16) -> Answer {
    let mut out = BytesMut::new();
    let response_header = ResponseHeader::default().with_correlation_id(header.correlation_id);
    response_header
        .encode(&mut out, T::header_version(version))
        .unwrap();
    response.encode(&mut out, version).unwrap();
    Answer::Send(out.freeze())
}

fn versions(ranges: &[(ApiKey, i16, i16)]) -> ApiVersionsResponse {
    let apis = ranges.iter().map(|(key, min, max)| {
        ApiVersion::default()
            .with_api_key(*key as i16)
            .with_min_version(*min)
            .with_max_version(*max)
    });
    ApiVersionsResponse::default().with_api_keys(apis.collect())
}

const ALL: [(ApiKey, i16, i16); 4] = [
    (ApiKey::ApiVersions, 0, 4),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::Produce, 3, 10),
];

fn options() -> ConnectionOptions {
    ConnectionOptions {
        connect_timeout: Duration::from_millis(500),
        ..ConnectionOptions::default()
    }
}

/// KIP-511: answered in version 0 with error 35 and the newest version known.
#[test]
fn versions_are_negotiated_down() {
    run(|env| async move {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = asked.clone();
        let script: Script = Arc::new(move |header, mut body| {
            noted.lock().push(header.request_api_version);
            if header.request_api_version > 2 {
                let refusal = versions(&[(ApiKey::ApiVersions, 0, 2)])
                    .with_error_code(ResponseError::UnsupportedVersion.code());
                return answer(header, &refusal, 0);
            }
            ApiVersionsRequest::decode(&mut body, header.request_api_version).unwrap();
            answer(header, &versions(&ALL), header.request_api_version)
        });
        let addr = broker(&env, script).await;
        let connection = Connection::open(&env, &addr, &options()).await.unwrap();
        assert_eq!(*asked.lock(), [4, 2]);
        assert_eq!(connection.version::<ProduceRequest>().unwrap(), 10);
    });
}

#[test]
fn what_is_no_broker_is_told() {
    run(|env| async move {
        let open = async |script: Script| {
            let addr = broker(&env, script).await;
            let error = Connection::open(&env, &addr, &options())
                .await
                .err()
                .expect("an error");
            error.to_string().replace(&addr, "ADDR")
        };
        let mut told = Vec::new();
        told.push(open(Arc::new(|_, _| Answer::Close)).await);
        told.push(open(Arc::new(|_, _| Answer::Nothing)).await);
        told.push(
            open(Arc::new(|_, _| {
                Answer::Raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec())
            }))
            .await,
        );
        told.push(
            open(Arc::new(|_, _| {
                Answer::Raw(vec![0, 0, 0, 8, 9, 9, 9, 9, 0, 0, 0, 0])
            }))
            .await,
        );
        told.push(open(Arc::new(|_, _| Answer::Raw(vec![0, 0, 0, 1, 0]))).await);
        let nobody = Connection::open(&env, "127.0.0.1:1", &options())
            .await
            .err()
            .expect("an error");
        assert!(matches!(
            nobody,
            ConnectError::Dial {
                kind: std::io::ErrorKind::ConnectionRefused,
                ..
            }
        ));
        expect![[r#"
            ADDR does not negotiate as a Kafka broker does: no answer: the broker closed the connection
            ADDR did not answer within 500 ms: is it a Kafka broker?
            ADDR does not negotiate as a Kafka broker does: no answer: the broker broke the protocol: an answer of 1213486160 bytes, at most 134217728 are taken
            ADDR does not negotiate as a Kafka broker does: no answer: the broker broke the protocol: answer 151587081 where 0 was next
            ADDR does not negotiate as a Kafka broker does: no answer: the broker broke the protocol: an answer of 1 bytes"#]].assert_eq(&told.join("\n"));
    });
}

/// Answers to Metadata requests, after `pass` of them `then`.
fn after(pass: u64, then: fn() -> Answer) -> Script {
    let seen = AtomicU64::new(0);
    Arc::new(move |header, _| match header.request_api_key {
        3 if seen.fetch_add(1, Ordering::Relaxed) >= pass => then(),
        3 => answer(header, &MetadataResponse::default(), header.request_api_version),
        _ => answer(header, &versions(&ALL), header.request_api_version),
    })
}

#[test]
fn requests_are_pipelined_and_their_fate_is_told() {
    run(|env| async move {
        let addr = broker(&env, after(2, || Answer::Close)).await;
        let connection = Connection::open(&env, &addr, &options()).await.unwrap();
        let version = connection.version::<MetadataRequest>().unwrap();
        let mut pending = Vec::new();
        for _ in 0..4 {
            let timeout = Duration::from_secs(5);
            pending.push(
                connection
                    .send(&MetadataRequest::default(), version, timeout)
                    .await
                    .unwrap(),
            );
        }
        let mut fates = Vec::new();
        for mut pending in pending {
            fates.push(
                pending
                    .answer()
                    .await
                    .map(|_| ())
                    .map_err(|error| error.certainly_not_sent()),
            );
        }
        assert_eq!(fates[..3], [Ok(()), Ok(()), Err(false)]);
        assert!(fates[3].is_err());
        // The connection knows that it is over: nothing leaves any more.
        let late = connection
            .call(&MetadataRequest::default(), Duration::from_secs(1))
            .await
            .unwrap_err();
        // A close over unread requests is a reset.
        let over = matches!(
            late,
            CallError::NotSent(ClosedBecause::ByBroker | ClosedBecause::Broken(_))
        );
        assert!(over, "{late}");
        assert!(late.certainly_not_sent());
    });
}

#[test]
fn a_missed_deadline_ends_the_connection() {
    run(|env| async move {
        let addr = broker(&env, after(0, || Answer::Nothing)).await;
        let connection = Connection::open(&env, &addr, &options()).await.unwrap();
        let error = connection
            .call(&MetadataRequest::default(), Duration::from_millis(50))
            .await
            .unwrap_err();
        assert!(
            matches!(error, CallError::Lost(ClosedBecause::Unanswered)),
            "{error}"
        );
        assert_eq!(connection.closed(), Some(ClosedBecause::Unanswered));
    });
}

#[test]
fn an_api_that_one_side_lacks_is_not_sent() {
    run(|env| async move {
        let script: Script = Arc::new(|header, _| {
            answer(
                header,
                &versions(&[(ApiKey::Produce, 0, 2)]),
                header.request_api_version,
            )
        });
        let addr = broker(&env, script).await;
        let connection = Connection::open(&env, &addr, &options()).await.unwrap();
        let mut told = Vec::new();
        for error in [
            connection.version::<ProduceRequest>().unwrap_err(),
            connection.version::<MetadataRequest>().unwrap_err(),
        ] {
            assert!(error.certainly_not_sent());
            told.push(error.to_string());
        }
        expect![[r#"
            Produce: the broker speaks 0-2, this client 3-13
            Metadata: the broker speaks no version, this client 0-13"#]]
        .assert_eq(&told.join("\n"));
    });
}

/// A log as a broker keeps it, with the rules of idempotence; `faults` say what happens to the n-th Produce.
struct Log {
    addr: Mutex<String>,
    /// The base sequence, epoch and number of records of each batch.
    appended: Mutex<Vec<(i32, i16, i32)>>,
    faults: Mutex<BTreeMap<usize, Fault>>,
    produces: AtomicU64,
}

#[derive(Clone, Copy)]
enum Fault {
    /// Appended, and the answer is lost with the connection.
    AppendedThenClosed,
    /// Not appended; the connection is closed.
    Closed,
    /// Refused with this error.
    Refused(ResponseError),
}

impl Log {
    fn next_sequence(appended: &[(i32, i16, i32)], epoch: i16) -> i32 {
        let last = appended.iter().rev().find(|batch| batch.1 == epoch);
        last.map_or(0, |(sequence, _, count)| sequence + count)
    }

    fn produce(&self, header: &RequestHeader, mut body: Bytes) -> Answer {
        let request = ProduceRequest::decode(&mut body, header.request_api_version).unwrap();
        let data = &request.topic_data[0].partition_data[0];
        let batch = batch::decode(data.records.clone().unwrap()).unwrap().remove(0);
        let n = usize::try_from(self.produces.fetch_add(1, Ordering::Relaxed)).unwrap();
        let fault = self.faults.lock().get(&n).copied();
        let key = (
            batch.base_sequence.get(),
            batch.producer.epoch.get(),
            i32::try_from(batch.records.len()).unwrap(),
        );
        let mut appended = self.appended.lock();
        let mut result = PartitionProduceResponse::default();
        match fault {
            Some(Fault::Closed) => return Answer::Close,
            Some(Fault::Refused(code)) => result.error_code = code.code(),
            Some(Fault::AppendedThenClosed) | None => {
                match appended.iter().position(|batch| *batch == key && key.0 >= 0) {
                    Some(at) => result.base_offset = i64::try_from(at).unwrap(),
                    None if key.0 < 0 || Self::next_sequence(&appended, key.1) == key.0 => {
                        result.base_offset = i64::try_from(appended.len()).unwrap();
                        appended.push(key);
                    }
                    None => result.error_code = ResponseError::OutOfOrderSequenceNumber.code(),
                }
            }
        }
        if matches!(fault, Some(Fault::AppendedThenClosed)) {
            return Answer::Close;
        }
        let topic = TopicProduceResponse::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partition_responses(vec![result]);
        answer(
            header,
            &ProduceResponse::default().with_responses(vec![topic]),
            header.request_api_version,
        )
    }

    fn metadata(&self, header: &RequestHeader, mut body: Bytes) -> Answer {
        MetadataRequest::decode(&mut body, header.request_api_version).unwrap();
        let addr = self.addr.lock().clone();
        let (host, port) = addr.rsplit_once(':').unwrap();
        let broker = MetadataResponseBroker::default()
            .with_node_id(BrokerId(1))
            .with_host(StrBytes::from_string(host.to_owned()))
            .with_port(port.parse().unwrap());
        let partition = MetadataResponsePartition::default().with_leader_id(BrokerId(1));
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(StrBytes::from_static_str("t"))))
            .with_partitions(vec![partition]);
        let response = MetadataResponse::default()
            .with_brokers(vec![broker])
            .with_topics(vec![topic]);
        answer(header, &response, header.request_api_version)
    }

    fn answer(&self, header: &RequestHeader, body: Bytes) -> Answer {
        match header.request_api_key {
            0 => self.produce(header, body),
            3 => self.metadata(header, body),
            22 => {
                let mut body = body;
                let request = InitProducerIdRequest::decode(&mut body, header.request_api_version).unwrap();
                assert_eq!(request.transactional_id, None);
                let response = InitProducerIdResponse::default().with_producer_id(7.into());
                answer(header, &response, header.request_api_version)
            }
            _ => answer(header, &versions(&ALL), header.request_api_version),
        }
    }
}

/// Writes `batches` batches of one record while `faults` happen. What became of each, and what the log has.
fn produces(faults: &[(usize, Fault)], batches: usize, options: ProducerOptions) -> String {
    let told = Arc::new(Mutex::new(String::new()));
    let writes = told.clone();
    let faults: BTreeMap<usize, Fault> = faults.iter().copied().collect();
    run(|env| async move {
        let log = Arc::new(Log {
            addr: Mutex::default(),
            appended: Mutex::default(),
            faults: Mutex::new(faults),
            produces: AtomicU64::new(0),
        });
        let script = log.clone();
        let addr = broker(&env, Arc::new(move |header, body| script.answer(header, body))).await;
        *log.addr.lock() = addr.clone();
        let client = Client::new(&env, ClientOptions::new(&addr));
        let producer = Producer::start(&client, options).await.unwrap();
        let place = TopicPartition::new("t", 0);
        let mut deliveries = Vec::new();
        for n in 0..batches {
            let value = Bytes::from(format!("{n}"));
            let record = Record::new(None, Some(value), WallMs(1));
            deliveries.push(producer.send(&place, &[record]).await);
        }
        for (n, delivery) in deliveries.into_iter().enumerate() {
            let outcome = match delivery.outcome().await {
                Ok(delivered) => format!("at {}", delivered.base_offset.map_or(-1, |offset| offset.get())),
                Err(error) => match error.outcome {
                    Outcome::NotWritten => format!("not written: {}", error.reason),
                    Outcome::Unknown => "unknown".to_owned(),
                },
            };
            writes.lock().push_str(&format!("{n}: {outcome}\n"));
        }
        producer.finish().await;
        writes
            .lock()
            .push_str(&format!("log: {:?}\n", log.appended.lock()));
    });
    std::mem::take(&mut *told.lock())
}

#[test]
fn a_lost_answer_is_asked_for_again_and_nothing_is_twice() {
    let faults = [(1, Fault::AppendedThenClosed), (4, Fault::Closed)];
    expect![[r#"
        0: at 0
        1: at 1
        2: at 2
        3: at 3
        4: at 4
        5: at 5
        log: [(0, 0, 1), (1, 0, 1), (2, 0, 1), (3, 0, 1), (4, 0, 1), (5, 0, 1)]
    "#]]
    .assert_eq(&produces(&faults, 6, ProducerOptions::default()));
}

#[test]
fn a_passing_refusal_is_tried_again_in_order() {
    let faults = [
        (0, Fault::Refused(ResponseError::NotLeaderOrFollower)),
        (1, Fault::Closed),
    ];
    expect![[r#"
        0: at 0
        1: at 1
        2: at 2
        3: at 3
        log: [(0, 0, 1), (1, 0, 1), (2, 0, 1), (3, 0, 1)]
    "#]]
    .assert_eq(&produces(&faults, 4, ProducerOptions::default()));
}

/// What follows a refused batch has a gap before it: it is written in a new epoch, in order.
#[test]
fn a_refused_batch_does_not_take_others_with_it() {
    let faults = [(1, Fault::Refused(ResponseError::MessageTooLarge))];
    expect![[r#"
        0: at 0
        1: not written: MESSAGE_TOO_LARGE
        2: at 1
        3: at 2
        4: at 3
        log: [(0, 0, 1), (0, 1, 1), (1, 1, 1), (2, 1, 1)]
    "#]]
    .assert_eq(&produces(&faults, 5, ProducerOptions::default()));
}

/// Without sequence numbers a repetition could write a batch twice: what may have been written is given up.
#[test]
fn without_idempotence_nothing_is_repeated() {
    let options = ProducerOptions {
        idempotent: false,
        in_flight_max: 1,
        ..ProducerOptions::default()
    };
    let faults = [
        (0, Fault::Closed),
        (2, Fault::Refused(ResponseError::NotLeaderOrFollower)),
    ];
    expect![[r#"
        0: unknown
        1: at 0
        2: at 1
        log: [(-1, -1, 1), (-1, -1, 1)]
    "#]]
    .assert_eq(&produces(&faults, 3, options));
}

#[test]
fn time_runs_out() {
    let faults: Vec<(usize, Fault)> = (0..100)
        .map(|n| (n, Fault::Refused(ResponseError::NotEnoughReplicas)))
        .collect();
    let options = ProducerOptions {
        delivery_timeout: Duration::from_millis(300),
        ..ProducerOptions::default()
    };
    expect![[r#"
        0: not written: time ran out; the last: produce to t-0: NOT_ENOUGH_REPLICAS
        1: not written: time ran out; the last: produce to t-0: NOT_ENOUGH_REPLICAS
        log: []
    "#]]
    .assert_eq(&produces(&faults, 2, options));
}
