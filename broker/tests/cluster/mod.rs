//! A cluster of whole nodes in one process, each with a runtime of its own: to kill a node is to drop its runtime.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skerry::admin_http::Health;
use skerry::broker::Broker;
use skerry::config::NodeConfig;
use skerry::node::{self, RunningNode};
use skerry::partition::Partition;
use skerry_client::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use skerry_client::messages::fetch_request::{FetchPartition, FetchTopic};
use skerry_client::messages::produce_request::{PartitionProduceData, TopicProduceData};
use skerry_client::messages::{DeleteRecordsRequest, FetchRequest, ProduceRequest, TopicName};
use skerry_client::protocol::StrBytes;
use skerry_client::{Compression, Connection, ConnectionOptions};
use skerry_env::Env;
use skerry_env::disk::{OpenMode, read_exact_at};
use skerry_metadata_state::{BrokerGuard, Command, CreateTopic, Image, Outcome, Placement};
use skerry_types::{BrokerId, Offset, PartitionIndex, WallMs};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Nothing takes so long, whatever else the machine does.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running node.
struct Node {
    runtime: Option<Runtime>,
    running: Option<RunningNode>,
}

impl Node {
    fn running(&self) -> &RunningNode {
        self.running.as_ref().expect("it runs")
    }
}

impl Drop for Node {
    /// Nothing of it goes on, and nothing of it is said: as after `kill -9`.
    fn drop(&mut self) {
        drop(self.running.take());
        if let Some(runtime) = self.runtime.take() {
            end(runtime);
        }
    }
}

/// Ends all that runs there, and waits for it: a RocksDB that is open when the process ends takes the process down.
fn end(runtime: Runtime) {
    let end = move || runtime.shutdown_timeout(PATIENCE);
    // A thread of its own: one runtime must not be waited for within another.
    let thread = std::thread::Builder::new().spawn(end).expect("a thread");
    thread.join().expect("a runtime that ends");
}

/// The nodes, by number from 1.
pub struct Cluster {
    dir: TempDir,
    settings: Vec<(&'static str, String)>,
    voters: String,
    addrs: BTreeMap<i32, String>,
    nodes: BTreeMap<i32, Node>,
}

impl Cluster {
    /// Starts `size` nodes on addresses of their own.
    pub async fn start(net: &str, size: i32, settings: &[(&'static str, &str)]) -> Self {
        // `RUST_LOG=skerry=debug` shows what the nodes say.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_test_writer()
            .try_init();
        let mut addrs = BTreeMap::new();
        for id in 1..=size {
            let listener = Env::os()
                .net
                .bind(&format!("{net}.{id}:0"))
                .await
                .expect("a port");
            addrs.insert(id, listener.local_addr().to_string());
        }
        let voters: Vec<String> = addrs.iter().map(|(id, addr)| format!("{id}@{addr}")).collect();
        let mut cluster = Self {
            dir: tempfile::tempdir().expect("a directory"),
            settings: settings
                .iter()
                .map(|(key, value)| (*key, (*value).to_owned()))
                .collect(),
            voters: voters.join(","),
            addrs,
            nodes: BTreeMap::new(),
        };
        let starting: Vec<_> = (1..=size).map(|id| cluster.begin(id)).collect();
        for (id, (runtime, started)) in (1..=size).zip(starting) {
            let running = started.await.expect("a task").expect("a node that starts");
            cluster.nodes.insert(
                id,
                Node {
                    runtime: Some(runtime),
                    running: Some(running),
                },
            );
        }
        let count = usize::try_from(size).unwrap();
        cluster
            .until("every node takes part", |cluster| {
                cluster
                    .ids()
                    .iter()
                    .all(|id| cluster.image(*id).unfenced_brokers().count() == count)
            })
            .await;
        cluster
    }

    fn begin(
        &self,
        id: i32,
    ) -> (
        Runtime,
        tokio::task::JoinHandle<Result<RunningNode, node::StartError>>,
    ) {
        let mut pairs: Vec<(&str, String)> = vec![
            ("node.id", id.to_string()),
            ("log.dirs", self.node_dir(id).display().to_string()),
            ("listeners", "127.0.0.1:0".to_owned()),
            ("cluster.listen", self.addrs[&id].clone()),
            ("admin.listen", "127.0.0.1:0".to_owned()),
            ("controller.quorum.voters", self.voters.clone()),
            ("broker.rack", format!("rack-{id}")),
        ];
        pairs.extend(self.settings.iter().cloned());
        let config = NodeConfig::from_pairs(pairs.iter().map(|(key, value)| (*key, value.as_str())))
            .expect("settings");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let started = runtime.spawn(async move { node::start(Env::os(), config).await });
        (runtime, started)
    }

    pub fn node_dir(&self, id: i32) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    /// The nodes that run.
    pub fn ids(&self) -> Vec<i32> {
        self.nodes.keys().copied().collect()
    }

    /// Ends a node without a word, as `kill -9` does.
    pub fn kill(&mut self, id: i32) {
        drop(self.nodes.remove(&id).expect("a running node"));
    }

    /// Starts a node again.
    pub async fn restart(&mut self, id: i32) {
        let clock = Env::os().clock;
        let deadline = clock.now() + PATIENCE;
        loop {
            let (runtime, started) = self.begin(id);
            match started.await.expect("a task") {
                Ok(running) => {
                    let (runtime, running) = (Some(runtime), Some(running));
                    self.nodes.insert(id, Node { runtime, running });
                    return;
                }
                // The dead one's files and ports are given back a moment later.
                Err(error) => {
                    end(runtime);
                    assert!(clock.now() < deadline, "node {id} does not start again: {error}");
                    clock.sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }

    /// Starts nodes again that need each other to start.
    pub async fn restart_together(&mut self, ids: &[i32]) {
        let mut missing: Vec<i32> = ids.to_vec();
        let clock = Env::os().clock;
        let deadline = clock.now() + PATIENCE;
        while !missing.is_empty() {
            let starting: Vec<_> = missing.iter().map(|id| (*id, self.begin(*id))).collect();
            missing.clear();
            for (id, (runtime, started)) in starting {
                match started.await.expect("a task") {
                    Ok(running) => {
                        let (runtime, running) = (Some(runtime), Some(running));
                        self.nodes.insert(id, Node { runtime, running });
                    }
                    Err(error) => {
                        end(runtime);
                        assert!(clock.now() < deadline, "node {id} does not start again: {error}");
                        missing.push(id);
                        clock.sleep(Duration::from_millis(20)).await;
                    }
                }
            }
        }
    }

    /// A broker's registration.
    pub fn guard_of(&self, id: i32) -> BrokerGuard {
        let image = self.image(self.any());
        let broker = image.broker(BrokerId(id)).expect("a registered broker");
        BrokerGuard {
            broker: broker.id,
            epoch: broker.epoch,
        }
    }

    /// The leader has taken up its part.
    pub fn partition_leads(&self, topic: &str) -> bool {
        let leader = self.leader(self.any(), topic);
        leader.is_some_and(|leader| {
            self.nodes.contains_key(&leader)
                && self
                    .partition(leader, topic)
                    .is_some_and(|partition| partition.is_led())
        })
    }

    pub fn broker(&self, id: i32) -> &Arc<Broker> {
        self.nodes[&id].running().broker()
    }

    pub fn image(&self, id: i32) -> Arc<Image> {
        self.broker(id).image()
    }

    pub fn any(&self) -> i32 {
        *self.nodes.keys().next().expect("a running node")
    }

    /// Lets the quorum decide, through any node.
    pub async fn propose(&self, command: Command) -> Outcome {
        let broker = self.broker(self.any()).clone();
        let deadline = Env::os().clock.now() + PATIENCE;
        loop {
            match broker.propose(command.clone()).await {
                Ok(outcome) => return outcome,
                Err(error) => assert!(Env::os().clock.now() < deadline, "{error}"),
            }
        }
    }

    /// A topic of one partition on these brokers; the first leads.
    pub async fn create(&self, name: &str, replicas: &[i32], configs: &[(&str, &str)]) {
        let placement = Placement::Manual(vec![replicas.iter().copied().map(BrokerId).collect()]);
        let env = Env::os();
        let created = self
            .propose(Command::CreateTopic(CreateTopic {
                id: env.rng.uuid(),
                name: name.into(),
                placement,
                configs: configs
                    .iter()
                    .map(|(key, value)| ((*key).into(), (*value).into()))
                    .collect(),
                at: env.clock.wall(),
            }))
            .await;
        assert!(!matches!(created, Outcome::Refused(_)), "{created:?}");
        self.until("every replica is open", |cluster| {
            replicas
                .iter()
                .all(|id| !cluster.nodes.contains_key(id) || cluster.partition(*id, name).is_some())
        })
        .await;
    }

    /// A node's copy of partition 0.
    pub fn partition(&self, id: i32, topic: &str) -> Option<Arc<Partition>> {
        self.broker(id).partitions().get(topic, 0)
    }

    /// Where a node's copy ends, and up to where it may be read.
    pub fn ends(&self, id: i32, topic: &str) -> (i64, i64) {
        let partition = self.partition(id, topic).expect("a copy");
        let end = partition.with_log(|log| log.log_end()).expect("an open log");
        let known = partition.checkpoint().expect("an open log").high_watermark;
        (end.get(), known.get())
    }

    /// The in-sync set by the metadata that a node knows.
    pub fn in_sync(&self, id: i32, topic: &str) -> Vec<i32> {
        let image = self.image(id);
        let metadata = image
            .topic(topic)
            .and_then(|topic| topic.partition(PartitionIndex(0)));
        metadata.map_or_else(Vec::new, |metadata| {
            metadata.isr.iter().map(|id| id.get()).collect()
        })
    }

    /// Who leads by the metadata that a node knows.
    pub fn leader(&self, id: i32, topic: &str) -> Option<i32> {
        let image = self.image(id);
        let leader = image.topic(topic)?.partition(PartitionIndex(0))?.leader?;
        Some(leader.get())
    }

    /// The bytes of a node's copy below `upper`.
    pub fn bytes(&self, id: i32, topic: &str, upper: i64) -> Vec<u8> {
        let partition = self.partition(id, topic).expect("a copy");
        let (mut all, mut from) = (Vec::new(), Offset::ZERO);
        while from < Offset(upper) {
            let plan = partition
                .with_log(|log| log.plan_read(from.max(log.log_start()), Offset(upper), 1 << 20, true))
                .expect("an open log")
                .expect("a plan");
            let bytes = plan.run().expect("a read");
            let Some(last) = skerry_log::batch::Batches::new(bytes.clone()).last() else {
                break;
            };
            from = last.header.next_offset();
            all.extend_from_slice(&bytes);
        }
        all
    }

    /// A node's copy ends at `end`, and every batch of it fits its sum.
    pub fn is_whole(&self, id: i32, topic: &str, end: i64) -> bool {
        let Some(partition) = self.partition(id, topic) else {
            return false;
        };
        let mut from = Offset::ZERO;
        while let Some(planned) = partition.plan_check(from, true, 1 << 20) {
            let Ok(Ok(bytes)) = planned.map(|plan| plan.run_checked()) else {
                return false;
            };
            let Some(last) = skerry_log::batch::Batches::new(bytes).last() else {
                return false;
            };
            from = last.header.next_offset();
        }
        from == Offset(end)
    }

    /// Turns a bit over in a node's copy: of byte `within` of the batch at `offset`, in the first segment.
    pub fn flip(&self, id: i32, topic: &str, offset: i64, within: usize) {
        let path = self
            .node_dir(id)
            .join(format!("log/{topic}-0/00000000000000000000.log"));
        let file = Env::os()
            .disk
            .open(&path, OpenMode::ReadWrite)
            .expect("a segment");
        let mut bytes = vec![0; usize::try_from(file.len().expect("a length")).unwrap()];
        read_exact_at(&*file, &mut bytes, 0).expect("its bytes");
        let mut position = within;
        for batch in skerry_log::batch::Batches::new(bytes.clone().into()) {
            if batch.header.base_offset() == Offset(offset) {
                break;
            }
            position += batch.bytes.len();
        }
        let flipped = [bytes[position] ^ 1];
        file.write_at(&[IoSlice::new(&flipped)], position as u64)
            .expect("a write");
    }

    /// What a node answers to whoever asks for its health.
    pub fn health(&self, id: i32) -> Health {
        self.nodes[&id].running().health()
    }

    /// Waits until `reached` holds.
    pub async fn until(&self, what: &str, mut reached: impl FnMut(&Self) -> bool) {
        let clock = Env::os().clock;
        let deadline = clock.now() + PATIENCE;
        while !reached(self) {
            assert!(clock.now() < deadline, "never came: {what}\n{}", self.describe());
            clock.sleep(Duration::from_millis(5)).await;
        }
    }

    /// What every node thinks, for a test that has failed.
    fn describe(&self) -> String {
        let mut text = String::new();
        for (id, node) in &self.nodes {
            let broker = node.running().broker();
            for topic in broker.image().topics() {
                text += &format!("node {id}: {} {:?}", topic.name, topic.partitions[0]);
                if let Some(partition) = broker.partitions().get(&topic.name, 0) {
                    let ends = partition.with_log(|log| (log.log_start(), log.durable_end(), log.log_end()));
                    text += &format!(
                        "; log {ends:?}, leads {}, {:?}",
                        partition.is_led(),
                        partition.replication_state()
                    );
                }
                text += "\n";
            }
            for broker in broker.image().brokers() {
                text += &format!(
                    "node {id}: broker {} epoch {} fenced {}\n",
                    broker.id, broker.epoch, broker.fenced
                );
            }
        }
        text
    }

    pub async fn connect(&self, id: i32) -> Connection {
        let addr = self.nodes[&id].running().kafka_addr.to_string();
        Connection::open(&Env::os(), &addr, &ConnectionOptions::default())
            .await
            .expect("a connection")
    }

    /// Produces one record of `bytes` bytes to partition 0 at a node; the error code and the offset.
    pub async fn produce(&self, id: i32, topic: &str, acks: i16, bytes: usize) -> (i16, i64) {
        produce(&self.connect(id).await, topic, acks, bytes).await
    }

    /// Produces records of `bytes` bytes with `acks=all` at a node, all of which must be taken.
    pub async fn produce_many(&self, id: i32, topic: &str, count: usize, bytes: usize) {
        let connection = self.connect(id).await;
        for _ in 0..count {
            let (code, _) = produce(&connection, topic, -1, bytes).await;
            assert_eq!(code, 0);
        }
    }
}

impl Cluster {
    /// Where a node's copy begins.
    pub fn start_of(&self, id: i32, topic: &str) -> i64 {
        let partition = self.partition(id, topic).expect("a copy");
        partition
            .with_log(|log| log.log_start())
            .expect("an open log")
            .get()
    }

    /// DeleteRecords of partition 0 at a node: the error code and the low watermark.
    pub async fn delete_records(&self, id: i32, topic: &str, before: i64, timeout_ms: i32) -> (i16, i64) {
        let partition = DeleteRecordsPartition::default()
            .with_partition_index(0)
            .with_offset(before);
        let of_topic = DeleteRecordsTopic::default()
            .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![of_topic])
            .with_timeout_ms(timeout_ms);
        let told = self
            .connect(id)
            .await
            .call_version(&request, 2, PATIENCE)
            .await
            .expect("an answer");
        let partition = &told.topics[0].partitions[0];
        (partition.error_code, partition.low_watermark)
    }
}

/// What a fetch of partition 0 came to.
#[derive(Clone, Copy, Debug)]
pub struct FetchedPart {
    pub error: i16,
    /// -1: read here.
    pub preferred: i32,
    /// How many records came.
    pub records: usize,
}

impl Cluster {
    /// Fetches from partition 0 at a node, as a consumer in `rack`.
    pub async fn fetch(&self, id: i32, topic: &str, from: i64, rack: &str) -> FetchedPart {
        let partition = FetchPartition::default()
            .with_fetch_offset(from)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(1 << 20);
        let request = FetchRequest::default()
            .with_replica_id((-1).into())
            .with_max_bytes(1 << 20)
            .with_max_wait_ms(0)
            .with_min_bytes(0)
            .with_session_epoch(-1)
            .with_rack_id(StrBytes::from_string(rack.to_owned()))
            .with_topics(vec![
                FetchTopic::default()
                    .with_topic(TopicName(StrBytes::from_string(topic.to_owned())))
                    .with_partitions(vec![partition]),
            ]);
        let told = self
            .connect(id)
            .await
            .call_version(&request, 11, PATIENCE)
            .await
            .expect("an answer");
        let part = &told.responses[0].partitions[0];
        let records = part.records.clone().unwrap_or_default();
        let batches = skerry_client::batch::decode(records).expect("whole batches");
        FetchedPart {
            error: part.error_code,
            preferred: part.preferred_read_replica.0,
            records: batches.iter().map(|batch| batch.records.len()).sum(),
        }
    }
}

/// Produces one record to partition 0.
pub async fn produce(connection: &Connection, topic: &str, acks: i16, bytes: usize) -> (i16, i64) {
    let value = Bytes::from(vec![b'v'; bytes]);
    let record = skerry_client::Record::new(None, Some(value), WallMs(1_700_000_000_000));
    let records = skerry_client::batch::encode(&[record], Compression::None);
    produce_batch(connection, topic, acks, records.into()).await
}

/// Sends a batch to partition 0: the error code and the base offset.
pub async fn produce_batch(connection: &Connection, topic: &str, acks: i16, batch: Bytes) -> (i16, i64) {
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(batch));
    let of_topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(acks)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![of_topic]);
    let told = connection
        .call_version(&request, 9, PATIENCE)
        .await
        .expect("an answer");
    let partition = &told.responses[0].partition_responses[0];
    (partition.error_code, partition.base_offset)
}
