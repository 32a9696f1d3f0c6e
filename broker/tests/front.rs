//! What a client is told of topics, offsets and epochs, through real sockets and over restarts.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use skerry::config::NodeConfig;
use skerry::node::{self, RunningNode};
use skerry_client::batch::{self, Record};
use skerry_client::messages::create_topics_request::CreatableTopic;
use skerry_client::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use skerry_client::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use skerry_client::messages::metadata_request::MetadataRequestTopic;
use skerry_client::messages::offset_for_leader_epoch_request::{
    OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use skerry_client::messages::produce_request::{PartitionProduceData, TopicProduceData};
use skerry_client::messages::{
    BrokerId, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest, InitProducerIdRequest,
    ListOffsetsRequest, MetadataRequest, OffsetForLeaderEpochRequest, ProduceRequest, ProducerId, TopicName,
};
use skerry_client::protocol::StrBytes;
use skerry_client::{Compression, Connection, ConnectionOptions};
use skerry_env::Env;
use skerry_types::WallMs;

const PATIENCE: Duration = Duration::from_secs(30);
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

async fn start(dir: &Path) -> RunningNode {
    let dir = dir.to_str().expect("a path of text");
    let config = NodeConfig::from_pairs([
        ("node.id", "1"),
        ("log.dirs", dir),
        ("listeners", "127.0.0.1:0"),
        ("cluster.listen", "127.0.0.1:0"),
        ("admin.listen", "127.0.0.1:0"),
    ]);
    node::start(Env::os(), config.expect("settings"))
        .await
        .expect("a node that starts")
}

fn topic(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

struct Client(Connection);

/// A position: its offset, and the leader epoch that goes with it.
type Position = (i64, i32);

impl Client {
    async fn new(addr: SocketAddr) -> Self {
        let opened = Connection::open(&Env::os(), &addr.to_string(), &ConnectionOptions::default()).await;
        Self(opened.expect("a connection"))
    }

    /// The leader's epoch of partition 0, of a topic that is made if it is missing.
    async fn metadata(&self, name: &str) -> i32 {
        let wanted = MetadataRequestTopic::default().with_name(Some(topic(name)));
        let request = MetadataRequest::default()
            .with_topics(Some(vec![wanted]))
            .with_allow_auto_topic_creation(true);
        let told = self.0.call(&request, PATIENCE).await.expect("an answer");
        let partition = &told.topics[0].partitions[0];
        assert_eq!(
            (
                told.topics[0].error_code,
                partition.error_code,
                partition.leader_id.0
            ),
            (0, 0, 1)
        );
        partition.leader_epoch
    }

    async fn produce(&self, name: &str, records: usize) -> i64 {
        let one = Record::new(None, Some("value".into()), WallMs(1_700_000_000_000));
        let records = batch::encode(&vec![one; records], Compression::None);
        let data = PartitionProduceData::default()
            .with_index(0)
            .with_records(Some(records.into()));
        let of_topic = TopicProduceData::default()
            .with_name(topic(name))
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(10_000)
            .with_topic_data(vec![of_topic]);
        let told = self
            .0
            .call_version(&request, 9, PATIENCE)
            .await
            .expect("an answer");
        let partition = &told.responses[0].partition_responses[0];
        assert_eq!(
            partition.error_code, 0,
            "the topic can be used as soon as it is told of"
        );
        partition.base_offset
    }

    async fn position(&self, name: &str, timestamp: i64) -> Position {
        let partition = ListOffsetsPartition::default()
            .with_timestamp(timestamp)
            .with_current_leader_epoch(-1);
        let wanted = ListOffsetsTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![wanted]);
        let told = self.0.call(&request, PATIENCE).await.expect("an answer");
        let partition = &told.topics[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        (partition.offset, partition.leader_epoch)
    }

    /// Where the records of `epoch` end, as a consumer asks after a change of leaders (KIP-320).
    async fn end_of(&self, name: &str, epoch: i32) -> (i32, i64) {
        let partition = OffsetForLeaderPartition::default()
            .with_current_leader_epoch(-1)
            .with_leader_epoch(epoch);
        let wanted = OffsetForLeaderTopic::default()
            .with_topic(topic(name))
            .with_partitions(vec![partition]);
        let request = OffsetForLeaderEpochRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_topics(vec![wanted]);
        let told = self.0.call(&request, PATIENCE).await.expect("an answer");
        let partition = &told.topics[0].partitions[0];
        assert_eq!(partition.error_code, 0);
        (partition.leader_epoch, partition.end_offset)
    }

    async fn delete_before(&self, name: &str, offset: i64) -> (i16, i64) {
        let partition = DeleteRecordsPartition::default().with_offset(offset);
        let wanted = DeleteRecordsTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(10_000);
        let told = self.0.call(&request, PATIENCE).await.expect("an answer");
        let partition = &told.topics[0].partitions[0];
        (partition.error_code, partition.low_watermark)
    }

    async fn create(&self, name: &str, partitions: i32) -> i16 {
        let wanted = CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default()
            .with_topics(vec![wanted])
            .with_timeout_ms(10_000);
        let told = self.0.call(&request, PATIENCE).await.expect("an answer");
        told.topics[0].error_code
    }

    async fn delete(&self, name: &str) -> i16 {
        let request = DeleteTopicsRequest::default()
            .with_topic_names(vec![topic(name)])
            .with_timeout_ms(10_000);
        let told = self
            .0
            .call_version(&request, 5, PATIENCE)
            .await
            .expect("an answer");
        told.responses[0].error_code
    }

    async fn producer_id(&self) -> i64 {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let told = self
            .0
            .call_version(&request, 4, PATIENCE)
            .await
            .expect("an answer");
        assert_eq!((told.error_code, told.producer_epoch), (0, 0));
        told.producer_id.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_at_the_end_is_not_sent_back_by_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let client = Client::new(node.kafka_addr).await;
    let first_epoch = client.metadata("read").await;
    client.metadata("empty").await;
    assert_eq!(client.produce("read", 3).await, 0);
    assert_eq!(client.position("read", LATEST).await, (3, first_epoch));
    assert_eq!(client.position("empty", EARLIEST).await, (0, first_epoch));
    node.shutdown().await;

    let node = start(dir.path()).await;
    let client = Client::new(node.kafka_addr).await;
    for (name, end) in [("read", 3), ("empty", 0)] {
        let epoch = client.metadata(name).await;
        assert!(epoch > first_epoch, "a leadership has an epoch of its own");
        assert_eq!(client.position(name, LATEST).await, (end, epoch));
        assert_eq!(
            client.end_of(name, epoch).await,
            (epoch, end),
            "nothing was written, and it is known all the same"
        );
        assert_eq!(client.end_of(name, first_epoch).await, (first_epoch, end));
        assert_eq!(client.end_of(name, epoch + 1).await, (-1, -1));
    }
    let epoch = client.metadata("read").await;
    assert_eq!(client.produce("read", 2).await, 3);
    assert_eq!(client.end_of("read", first_epoch).await, (first_epoch, 3));
    assert_eq!(client.end_of("read", epoch).await, (epoch, 5));
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_records_stay_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let client = Client::new(node.kafka_addr).await;
    client.metadata("t").await;
    client.produce("t", 5).await;
    assert_eq!(client.delete_before("t", 6).await, (1, -1), "OFFSET_OUT_OF_RANGE");
    assert_eq!(client.delete_before("t", 2).await, (0, 2));
    assert_eq!(
        client.delete_before("t", 1).await,
        (0, 2),
        "the start never goes back"
    );
    assert_eq!(client.position("t", EARLIEST).await.0, 2);
    node.shutdown().await;

    let node = start(dir.path()).await;
    let client = Client::new(node.kafka_addr).await;
    assert_eq!(client.position("t", EARLIEST).await.0, 2);
    assert_eq!(
        client.delete_before("t", -1).await,
        (0, 5),
        "all that is acknowledged"
    );
    assert_eq!(client.position("t", EARLIEST).await.0, 5);
    assert_eq!(client.produce("t", 1).await, 5);
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_producer_id_is_given_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut last = -1;
    for _ in 0..2 {
        let node = start(dir.path()).await;
        let client = Client::new(node.kafka_addr).await;
        // More than one block.
        for _ in 0..1_100 {
            let id = client.producer_id().await;
            assert!(id > last, "{id} after {last}");
            last = id;
        }
        node.shutdown().await;
    }
}

/// The folders of partitions, and of partitions that are on their way out.
fn folders(dir: &Path) -> (usize, usize) {
    let entries = Env::os().disk.list(&dir.join("log")).expect("a directory");
    let (buried, whole): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .filter(|entry| entry.is_dir)
        .partition(|entry| entry.name.ends_with("-delete"));
    (whole.len(), buried.len())
}

async fn wait_for_folders(dir: &Path, expected: (usize, usize)) {
    let env = Env::os();
    let deadline = env.clock.now() + PATIENCE;
    while folders(dir) != expected {
        assert!(env.clock.now() < deadline, "{:?} folders are left", folders(dir));
        env.clock.sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_is_answered_before_its_files_are_gone_and_its_name_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let client = Client::new(node.kafka_addr).await;
    assert_eq!(client.create("many", 300).await, 0);
    client.metadata("kept").await;
    assert_eq!(client.produce("many", 3).await, 0);
    assert_eq!(folders(dir.path()), (301, 0));
    assert_eq!(client.delete("many").await, 0);
    let (whole, buried) = folders(dir.path());
    assert_eq!(whole, 1, "no folder has its name any more");
    assert!(buried > 0, "300 folders are not removed in the time of an answer");
    assert_eq!(client.create("many", 1).await, 0, "the name is free at once");
    assert_eq!(client.produce("many", 1).await, 0, "and the topic is empty");
    wait_for_folders(dir.path(), (2, 0)).await;
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_deletion_left_goes_at_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let node = start(dir.path()).await;
    let client = Client::new(node.kafka_addr).await;
    client.metadata("t").await;
    client.produce("t", 2).await;
    client.metadata("gone").await;
    node.shutdown().await;
    // As a crash leaves them: before the folder was removed, and before it was renamed.
    let disk = &*Env::os().disk;
    let log = dir.path().join("log");
    disk.create_dir_all(&log.join("AAAAAAAAAAAAAAAAAAAAAQ-0-delete/deeper"))
        .unwrap();
    let metadata = log.join("gone-0/partition.metadata");
    let stray = skerry_env::disk::read_file(disk, &metadata, 4096)
        .unwrap()
        .unwrap();
    let text = String::from_utf8(stray).unwrap();
    let (version, _) = text.split_once("topic_id: ").unwrap();
    disk.create_dir_all(&log.join("older-0")).unwrap();
    let of_nobody = format!("{version}topic_id: AAAAAAAAAAAAAAAAAAAAAg\n");
    skerry_env::disk::replace_file(
        disk,
        &log.join("older-0/partition.metadata"),
        of_nobody.as_bytes(),
    )
    .unwrap();

    let node = start(dir.path()).await;
    wait_for_folders(dir.path(), (2, 0)).await;
    let client = Client::new(node.kafka_addr).await;
    client.metadata("t").await;
    assert_eq!(client.position("t", LATEST).await.0, 2);
    node.shutdown().await;
}
