//! A leader that hears nothing of its cluster: what it still answers, and what it does not.

mod cluster;

use std::time::Duration;

use cluster::{Cluster, PATIENCE, produce, produce_batch};
use skerry_client::ResponseError;
use skerry_client::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use skerry_client::messages::{ListOffsetsRequest, TopicName};
use skerry_client::protocol::StrBytes;
use skerry_env::Env;
use skerry_log::batch::{BatchBuilder, Compression};
use skerry_types::{ProducerEpoch, ProducerId, ProducerIdentity, Sequence, WallMs};

const NOT_LEADER: i16 = ResponseError::NotLeaderOrFollower.code();
const OUT_OF_ORDER: i16 = ResponseError::OutOfOrderSequenceNumber.code();
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// A record of producer 7, whose sequence is `sequence`.
fn of_a_producer(sequence: i32) -> bytes::Bytes {
    let producer = ProducerIdentity {
        id: ProducerId(7),
        epoch: ProducerEpoch(0),
    };
    let mut batch = BatchBuilder::new(Compression::None).producer(producer, Sequence(sequence));
    batch.push(WallMs(1_700_000_000_000), None, Some(b"value"), &[]);
    batch.build()
}

/// The error code and the offset.
async fn list(cluster: &Cluster, id: i32, topic: &str, timestamp: i64) -> (i16, i64) {
    let partition = ListOffsetsPartition::default()
        .with_current_leader_epoch(-1)
        .with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partitions(vec![partition]);
    let request = ListOffsetsRequest::default()
        .with_replica_id((-1).into())
        .with_topics(vec![topic]);
    let connection = cluster.connect(id).await;
    let told = connection.call_version(&request, 7, PATIENCE).await;
    let told = told.expect("an answer");
    let partition = &told.topics[0].partitions[0];
    (partition.error_code, partition.offset)
}

fn stands(cluster: &Cluster, id: i32) -> bool {
    let broker = cluster.broker(id);
    broker.standing().holds(broker.env().clock.now())
}

#[tokio::test]
async fn a_leader_that_is_cut_off_says_nothing_that_may_be_old() {
    let mut cluster = Cluster::start("127.0.77", 3, &[]).await;
    cluster
        .create("t", &[1, 2, 3], &[("min.insync.replicas", "2")])
        .await;
    cluster.create("alone", &[1], &[]).await;
    cluster.produce_many(1, "t", 4, 100).await;
    cluster.produce_many(1, "alone", 3, 100).await;
    cluster
        .until("the controller vouches for it", |cluster| stands(cluster, 1))
        .await;
    let writer = cluster.connect(1).await;
    assert_eq!(produce_batch(&writer, "t", -1, of_a_producer(0)).await, (0, 4));
    assert_eq!(
        produce_batch(&writer, "t", -1, of_a_producer(9)).await,
        (OUT_OF_ORDER, -1)
    );
    assert_eq!(list(&cluster, 1, "t", LATEST).await, (0, 5));

    // Appended while nothing is wrong yet, as far as node 1 knows: nobody confirms it.
    let waiting = cluster.connect(1).await;
    cluster.kill(2);
    cluster.kill(3);
    let ((waited, _), gap) = tokio::join!(produce(&waiting, "t", -1, 100), async {
        cluster
            .until("the controller's promise has run out", |cluster| {
                !stands(cluster, 1)
            })
            .await;
        produce_batch(&writer, "t", -1, of_a_producer(9)).await
    });
    assert_eq!(waited, NOT_LEADER, "it is told to look elsewhere, and not kept");
    // What is missing here may be in the log of another leader by now.
    assert_eq!(gap, (NOT_LEADER, -1));
    assert_eq!(list(&cluster, 1, "t", LATEST).await, (NOT_LEADER, -1));
    assert_eq!(list(&cluster, 1, "t", 0).await, (NOT_LEADER, -1));
    assert_eq!(list(&cluster, 1, "t", EARLIEST).await, (0, 0));
    assert_eq!(cluster.produce(1, "t", -1, 100).await.0, NOT_LEADER);
    assert_eq!(cluster.produce(1, "t", 1, 100).await.0, NOT_LEADER);
    let committed = cluster.fetch(1, "t", 0, "").await;
    assert_eq!((committed.error, committed.records), (0, 5), "that stays true");
    assert_eq!(cluster.fetch(1, "t", 5, "").await.error, NOT_LEADER);

    // Nobody else has a copy, so that nobody else can lead it.
    assert_eq!(list(&cluster, 1, "alone", LATEST).await, (0, 3));
    assert_eq!(cluster.produce(1, "alone", -1, 100).await, (0, 3));
    assert_eq!(cluster.fetch(1, "alone", 4, "").await.error, 0);

    cluster.restart_together(&[2, 3]).await;
    let clock = Env::os().clock;
    let deadline = clock.now() + PATIENCE;
    let leader = loop {
        // Whoever leads by then, once another replica is in sync.
        let leader = cluster.leader(1, "t").unwrap_or(1);
        if stands(&cluster, leader) && cluster.produce(leader, "t", -1, 100).await.0 == 0 {
            break leader;
        }
        assert!(clock.now() < deadline, "nobody takes records");
        clock.sleep(Duration::from_millis(20)).await;
    };
    let (code, end) = list(&cluster, leader, "t", LATEST).await;
    assert!(code == 0 && end >= 6, "{code} {end}");
}
