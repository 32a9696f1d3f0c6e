//! What a broker must not answer, each with disks that belie it.

use std::io::IoSlice;
use std::path::Path;

use bytes::BytesMut;
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{
    FetchRequest, FetchResponse, GroupId, MetadataRequest, MetadataResponse, OffsetCommitRequest,
    OffsetCommitResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Encodable, StrBytes};
use skerry_coordinator::records::{OffsetCommitValue, RecordKey};
use skerry_env::Rng;
use skerry_env::disk::OpenMode;
use skerry_types::{LeaderEpoch, Offset, TopicPartition, WallMs};

use super::*;
use crate::disk::DiskConfig;
use crate::record::{self, Codec, Identity};
use crate::workload::KEYED;
use skerry_checker::history::Value;

const PORT: u16 = 9092;
const CONN: u64 = 1;
const LOG: &str = "/data/log/orders-0";
/// Where the group `g` belongs.
const OFFSETS: &str = "/data/log/__consumer_offsets-3";
/// The last versions that name topics.
const PRODUCE: i16 = 12;
const FETCH: i16 = 12;
const COMMIT: i16 = 9;
const METADATA: i16 = 12;

/// A leader with one follower: acks=all takes both disks.
struct Pair {
    disks: [SimDisk; 2],
    violations: Violations,
    oracle: WireOracle,
    correlation: i32,
}

impl Pair {
    fn new() -> Self {
        Self::counting(false)
    }

    /// What is written counts as well as what is synced.
    fn counting(written_counts: bool) -> Self {
        let disks = ["n1", "n2"]
            .map(|name| SimDisk::new(name, DiskConfig::default(), Rng::seeded(1), Trace::silent()));
        let violations = Violations::default();
        let all = Disks {
            own: disks[0].clone(),
            others: vec![disks[1].clone()],
            copies: 2,
            written_counts,
        };
        let oracle = WireOracle::new(
            "n1",
            PORT,
            all,
            violations.clone(),
            Rotten::default(),
            Trace::silent(),
        );
        oracle.opened(CONN, PORT);
        Self {
            disks,
            violations,
            oracle,
            correlation: 0,
        }
    }

    /// Both have these, synced.
    fn with(serials: &[u32]) -> Self {
        let pair = Self::new();
        for disk in &pair.disks {
            write(disk, LOG, &batches(serials));
        }
        pair
    }

    /// A client asks, and is answered: what is wrong with that.
    fn call<Q: Encodable, A: Encodable>(
        &mut self,
        api: ApiKey,
        version: i16,
        request: &Q,
        answer: &A,
    ) -> Vec<&'static str> {
        self.correlation += 1;
        let header = RequestHeader::default()
            .with_request_api_key(api as i16)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation);
        let asked = frame(&header, api.request_header_version(version), request, version);
        let header = ResponseHeader::default().with_correlation_id(self.correlation);
        let answered = frame(&header, api.response_header_version(version), answer, version);
        self.oracle.received(CONN, &asked);
        self.oracle.sent(CONN, &answered);
        let mut all = self.violations.0.lock();
        all.drain(..).map(|(_, violation)| violation.check).collect()
    }

    /// `batch` is acknowledged at `base`.
    fn acknowledges(&mut self, batch: Vec<u8>, base: i64) -> Vec<&'static str> {
        let data = PartitionProduceData::default().with_records(Some(batch.into()));
        let topic = TopicProduceData::default()
            .with_name(orders())
            .with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_topic_data(vec![topic]);
        let data = PartitionProduceResponse::default().with_base_offset(base);
        let topic = TopicProduceResponse::default()
            .with_name(orders())
            .with_partition_responses(vec![data]);
        let answer = ProduceResponse::default().with_responses(vec![topic]);
        self.call(ApiKey::Produce, PRODUCE, &request, &answer)
    }

    /// A consumer is sent this, and told a high watermark.
    fn serves(&mut self, records: Vec<u8>, high_watermark: i64) -> Vec<&'static str> {
        let data = PartitionData::default()
            .with_high_watermark(high_watermark)
            .with_records(Some(records.into()));
        let topic = FetchableTopicResponse::default()
            .with_topic(orders())
            .with_partitions(vec![data]);
        let answer = FetchResponse::default().with_responses(vec![topic]);
        self.call(ApiKey::Fetch, FETCH, &FetchRequest::default(), &answer)
    }

    /// The commit of offset 7 is acknowledged.
    fn commits(&mut self) -> Vec<&'static str> {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(7);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(orders())
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str("g")))
            .with_topics(vec![topic]);
        let topic = OffsetCommitResponseTopic::default()
            .with_name(orders())
            .with_partitions(vec![OffsetCommitResponsePartition::default()]);
        let answer = OffsetCommitResponse::default().with_topics(vec![topic]);
        self.call(ApiKey::OffsetCommit, COMMIT, &request, &answer)
    }

    /// A client asks for the metadata, and is answered this.
    fn names(&mut self, answer: &MetadataResponse) -> Vec<&'static str> {
        self.call(ApiKey::Metadata, METADATA, &MetadataRequest::default(), answer)
    }

    /// The follower sets its copy aside, as a broker does where it is damaged, and begins an empty one.
    fn gives_its_copy_up(&self) {
        self.gives_up(LOG);
    }

    fn gives_up(&self, dir: &str) {
        let disk = self.disks[1].attach();
        let aside = format!("{dir}.0123{}", "-damaged");
        disk.rename(Path::new(dir), Path::new(&aside)).unwrap();
        disk.sync_dir(Path::new("/data/log")).unwrap();
        drop(disk);
        write(&self.disks[1], dir, &[]);
    }
}

fn orders() -> TopicName {
    TopicName(StrBytes::from_static_str("orders"))
}

fn frame(header: &impl Encodable, header_version: i16, body: &impl Encodable, version: i16) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    header.encode(&mut bytes, header_version).unwrap();
    body.encode(&mut bytes, version).unwrap();
    let length = u32::try_from(bytes.len()).unwrap();
    [&length.to_be_bytes()[..], &bytes].concat()
}

/// A batch of one record.
fn batch(serial: u32, base: i64) -> Vec<u8> {
    let value = Value { producer: 1, serial };
    let mut bytes = record::encode(&[value], Identity::NONE, 77, 10).to_vec();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes
}

fn batches(serials: &[u32]) -> Vec<Vec<u8>> {
    let placed = (0_i64..).zip(serials);
    placed.map(|(base, serial)| batch(*serial, base)).collect()
}

/// Writes a log of one segment, and syncs it.
fn write(disk: &SimDisk, dir: &str, batches: &[Vec<u8>]) {
    let disk = disk.attach();
    disk.create_dir_all(Path::new(dir)).unwrap();
    let path = Path::new(dir).join("00000000000000000000.log");
    let file = disk.open(&path, OpenMode::Create).unwrap();
    file.write_at(&[IoSlice::new(&batches.concat())], 0).unwrap();
    file.sync().unwrap();
    for dir in [dir, "/data/log", "/data", "/"] {
        disk.sync_dir(Path::new(dir)).unwrap();
    }
}

const NONE: [&str; 0] = [];

/// Compaction writes anew what is durable, and leaves out what is superseded; it does not make the log shorter.
#[test]
fn what_was_compacted_was_durable() {
    let disk = SimDisk::new("n1", DiskConfig::default(), Rng::seeded(1), Trace::silent());
    let named = |topic: &str| PartitionName {
        topic: topic.to_owned(),
        partition: 0,
    };
    let left = [batch(0, 0), batch(7, 3)];
    for topic in [KEYED, "orders"] {
        write(&disk, &format!("/data/log/{topic}-0"), &left);
    }
    let mut logs = DurableLogs::new(disk, false);
    let mut has = |topic: &str, base| logs.has_batch(&named(topic), base, 77).is_ok();
    assert!(has(KEYED, 0) && has(KEYED, 2), "rewritten, and gone");
    assert!(!has(KEYED, 4), "behind the end");
    assert!(!has("orders", 0) && !has("orders", 2));
}

#[test]
fn what_is_acknowledged_is_on_enough_disks() {
    let mut pair = Pair::with(&[1, 2]);
    assert_eq!(pair.acknowledges(batch(2, 0), 1), NONE);
    // Elsewhere, another one, and one that nobody has.
    for (serial, base) in [(2, 0), (9, 1), (3, 2)] {
        assert_eq!(
            pair.acknowledges(batch(serial, 0), base),
            ["acknowledged-before-durable"]
        );
    }
    write(&pair.disks[0], LOG, &batches(&[1, 2, 3]));
    assert_eq!(
        pair.acknowledges(batch(3, 0), 2),
        ["acknowledged-before-durable"],
        "on one of two disks"
    );
    write(&pair.disks[1], LOG, &batches(&[1, 2, 3]));
    assert_eq!(pair.acknowledges(batch(3, 0), 2), NONE);
}

/// What seed 28 of three nodes did after a bit had rotted, and failing reads do without one: the follower confirms, and gives
/// its copy up before the leader wakes and answers.
#[test]
fn what_a_copy_confirmed_before_it_was_given_up_was_confirmed_rightly() {
    let mut pair = Pair::with(&[1, 2]);
    pair.gives_its_copy_up();
    assert_eq!(pair.acknowledges(batch(2, 0), 1), NONE);
    assert_eq!(pair.serves(batch(2, 1), 2), NONE);
    // What was written since, the follower cannot have confirmed.
    write(&pair.disks[0], LOG, &batches(&[1, 2, 3]));
    assert_eq!(pair.acknowledges(batch(3, 0), 2), ["acknowledged-before-durable"]);
    // Only the copy of that partition counts.
    write(
        &pair.disks[1],
        "/data/log/orders-01.0123-damaged",
        &batches(&[1, 2, 3]),
    );
    assert_eq!(pair.acknowledges(batch(3, 0), 2), ["acknowledged-before-durable"]);
}

#[test]
fn what_a_lost_disk_had_was_promised_rightly() {
    let mut pair = Pair::with(&[1, 2]);
    pair.disks[1].cut_power();
    let lost = pair.disks[1].lose();
    assert_eq!(pair.acknowledges(batch(2, 0), 1), ["acknowledged-before-durable"]);
    pair.oracle.on_lost(&pair.disks[1], &lost);
    assert_eq!(pair.acknowledges(batch(2, 0), 1), NONE);
}

/// What seed 7334 of any size did.
#[test]
fn what_was_written_before_the_power_went_was_promised_rightly() {
    let mut pair = Pair::counting(true);
    for disk in &pair.disks {
        write(disk, LOG, &batches(&[1]));
        let attached = disk.attach();
        let log = attached.open(
            &Path::new(LOG).join("00000000000000000000.log"),
            OpenMode::ReadWrite,
        );
        let end = batches(&[1]).concat().len() as u64;
        log.unwrap().write_at(&[IoSlice::new(&batch(2, 1))], end).unwrap();
        disk.detach();
    }
    assert_eq!(pair.acknowledges(batch(2, 0), 1), NONE);
    let written = pair.disks[1].as_written();
    let _gone = pair.disks[1].lose();
    assert_eq!(pair.acknowledges(batch(2, 0), 1), ["acknowledged-before-durable"]);
    pair.oracle.on_lost(&pair.disks[1], &written);
    assert_eq!(pair.acknowledges(batch(2, 0), 1), NONE);
    assert_eq!(pair.acknowledges(batch(3, 0), 2), ["acknowledged-before-durable"]);
}

#[test]
fn a_batch_that_was_damaged_on_its_way_is_not_taken() {
    let mut pair = Pair::with(&[1, 2]);
    let mut damaged = batch(2, 0);
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(pair.acknowledges(damaged, 1), ["damaged-batch-taken"]);
}

#[test]
fn readers_see_what_is_durable() {
    let mut pair = Pair::with(&[1, 2]);
    assert_eq!(pair.serves(batches(&[1, 2]).concat(), 2), NONE);
    assert_eq!(pair.serves(batch(3, 2), 2), ["served-before-durable"]);
    assert_eq!(pair.serves(batch(2, 1), 3), ["watermark-beyond-durable"]);
    write(&pair.disks[0], LOG, &batches(&[1, 2, 3]));
    assert_eq!(
        pair.serves(batch(3, 2), 3),
        ["served-before-durable", "watermark-beyond-durable"],
        "on one of two disks"
    );
}

#[test]
fn a_commit_is_durable_before_it_is_answered() {
    let mut pair = Pair::new();
    assert_eq!(pair.commits(), ["commit-before-durable"]);
    let key = RecordKey::encode_offset_commit("g", &TopicPartition::new("orders", 0));
    let says = |offset| OffsetCommitValue {
        offset: Offset(offset),
        leader_epoch: LeaderEpoch::UNKNOWN,
        metadata: "".into(),
        commit_timestamp: WallMs(1),
        expire_timestamp: None,
        topic_id: None,
    };
    let batch = |offset| {
        let pairs = [(&key, says(offset).encode())].into_iter();
        record::encode_pairs(pairs, Identity::NONE, 77, Codec::None).to_vec()
    };
    for (offset, expected) in [(6, &["commit-before-durable"][..]), (7, &[])] {
        write(&pair.disks[0], OFFSETS, &[batch(offset)]);
        assert_eq!(pair.commits(), expected);
    }
    // The metadata ask for two copies, and not only since a moment ago.
    pair.oracle.knows_commit_copies(2);
    assert_eq!(pair.commits(), NONE);
    pair.oracle.knows_commit_copies(2);
    assert_eq!(pair.commits(), ["commit-before-durable"]);
    write(&pair.disks[1], OFFSETS, &[batch(6)]);
    assert_eq!(pair.commits(), ["commit-before-durable"]);
    write(&pair.disks[1], OFFSETS, &[batch(7)]);
    assert_eq!(pair.commits(), NONE);
    // It had confirmed it.
    pair.gives_up(OFFSETS);
    assert_eq!(pair.commits(), NONE);
    // The coordinator must have it, whoever else has.
    write(&pair.disks[0], OFFSETS, &[batch(6)]);
    pair.oracle.knows_commit_copies(1);
    assert_eq!(pair.commits(), ["commit-before-durable"]);
}

#[test]
fn metadata_names_brokers() {
    let mut pair = Pair::new();
    let broker = MetadataResponseBroker::default();
    let named = MetadataResponse::default().with_brokers(vec![broker]);
    assert_eq!(pair.names(&named), NONE);
    assert_eq!(
        pair.names(&MetadataResponse::default()),
        ["metadata-without-brokers"]
    );
}
