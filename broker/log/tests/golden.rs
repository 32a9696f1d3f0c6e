//! Files byte for byte. `golden/kafka-4.3.1` was written by Apache Kafka 4.3.1 (kcat and Kafka's console producer with
//! every codec, idempotent; a Java producer with transactions; a clean shutdown; index.interval.bytes=200).
//! `golden/skerry-1` was written by this crate: later versions must read it, and write the same. To renew it after a
//! deliberate change of the format: `SKERRY_WRITE_GOLDEN=1 cargo test -p skerry-log --test golden`.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use skerry_env::disk::{read_file, replace_file};
use skerry_log::batch::{
    BatchBuilder, Batches, Codec, Compression, Header, MarkerType, Records, end_transaction_marker,
};
use skerry_log::{CleanupPolicy, DumpOptions, Log, LogConfig, Recovered, Shutdown, ValidBatch};
use skerry_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, WallMs};
use support::*;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

fn load(name: &str) -> BTreeMap<String, Vec<u8>> {
    let disk = skerry_env::os_disk();
    let entries = disk.list(&golden(name)).expect("the golden files");
    let read = |name: &str, file: &str| {
        read_file(&*disk, &golden(name).join(file), 1 << 20)
            .unwrap()
            .unwrap()
    };
    entries
        .into_iter()
        .map(|entry| (entry.name.clone(), read(name, &entry.name)))
        .collect()
}

fn put(disk: &PowerDisk, files: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in files {
        disk.put(&dir().join(name), bytes.clone());
    }
}

fn on_disk(disk: &PowerDisk) -> BTreeMap<String, Vec<u8>> {
    let name = |path: PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    disk.files()
        .into_iter()
        .map(|(path, bytes)| (name(path), bytes))
        .collect()
}

#[test]
fn a_log_that_kafka_closed_is_opened_without_a_change() {
    let files = load("kafka-4.3.1");
    let disk = PowerDisk::new();
    put(&disk, &files);
    let config = LogConfig {
        index_interval_bytes: 200,
        ..LogConfig::default()
    };
    let recovered = Recovered {
        recovery_point: Offset(84),
        ..Recovered::default()
    };
    let open = |shutdown| {
        Log::open(
            &support::files(&disk),
            dir(),
            None,
            config.clone(),
            shutdown,
            recovered,
            NOW,
        )
    };
    let (mut log, report) = open(Shutdown::Clean).unwrap();
    assert_eq!((log.log_start(), log.log_end()), (Offset(0), Offset(84)));
    assert!(
        report.walked_bytes < 700 && report.rebuilt.is_empty(),
        "{report:?}"
    );
    let records = read_records(&log, Offset(0));
    assert_eq!(records.len(), 84);
    assert_eq!(records[12].key.as_deref(), Some(&b"key-5"[..]));
    assert!(
        records[26]
            .value
            .as_ref()
            .unwrap()
            .starts_with(b"value lz4 3 abc")
    );
    let codecs: std::collections::BTreeSet<_> = read_batches(&log, Offset(0))
        .iter()
        .map(|batch| batch.header.codec().unwrap().name())
        .collect();
    assert_eq!(
        codecs.into_iter().collect::<Vec<_>>(),
        ["gzip", "lz4", "none", "snappy", "zstd"]
    );
    assert_eq!(log.producers().count(), 11);
    assert_eq!(log.last_stable(Offset(84)), Offset(84));
    log.close().unwrap();
    assert_eq!(on_disk(&disk), files, "a look changes nothing");
    let (log, report) = open(Shutdown::Unclean).unwrap();
    assert_eq!(log.log_end(), Offset(84), "{report:?}");
}

#[test]
fn the_same_batches_give_the_same_files_as_kafkas() {
    let kafkas = load("kafka-4.3.1");
    let mut log_bytes = bytes::Bytes::from(kafkas["00000000000000000000.log"].clone());
    let disk = PowerDisk::new();
    let config = LogConfig {
        index_interval_bytes: 200,
        ..LogConfig::default()
    };
    let mut id = identity();
    id.topic_id = "9O1fqBB-SyGLAp-9akPsnw".parse().unwrap();
    let mut log = Log::create(&files(&disk), dir(), id, config).unwrap();
    for batch in Batches::new(log_bytes.split_off(0)) {
        log.append_as_follower(batch.bytes, NOW).unwrap();
        flush(&mut log);
    }
    log.close().unwrap();
    let ours = on_disk(&disk);
    for (name, bytes) in &kafkas {
        assert_eq!(ours.get(name), Some(bytes), "{name}");
    }
    assert_eq!(ours.len(), kafkas.len(), "{:?}", ours.keys());
}

/// Everything that a log can hold, without what depends on the version of a codec.
fn write_sample(disk: &PowerDisk) -> Log {
    let config = LogConfig {
        segment_bytes: 1200,
        index_interval_bytes: 200,
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        ..LogConfig::default()
    };
    let mut log = create(disk, &config);
    let who = |id, epoch| ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
    };
    let headers = [
        Header {
            key: "trace".into(),
            value: Some("1".into()),
        },
        Header {
            key: "none".into(),
            value: None,
        },
    ];
    for n in 0..12i32 {
        let mut builder = BatchBuilder::new(Compression::None).producer(who(1, 0), Sequence(2 * n));
        let at = WallMs(NOW.get() + i64::from(n) * 100);
        builder.push(
            at,
            Some(format!("key-{}", n % 5).as_bytes()),
            Some(b"a value of some length"),
            &headers,
        );
        builder.push(WallMs(at.get() - 7), Some(b"tombstone"), None, &[]);
        let batch = ValidBatch::parse(builder.build(), &config.validation_rules(NOW, true)).unwrap();
        log.append_as_leader(batch, LeaderEpoch(n / 4), NOW).unwrap();
        let mut builder = BatchBuilder::default()
            .producer(who(2, 7), Sequence(n))
            .transactional();
        builder.push(NOW, Some(b"t"), Some(&[n as u8; 20]), &[]);
        append(&mut log, builder.build(), n / 4);
        let kind = if n % 3 == 0 {
            MarkerType::Abort
        } else {
            MarkerType::Commit
        };
        append(&mut log, end_transaction_marker(who(2, 7), kind, 3, NOW), n / 4);
    }
    flush(&mut log);
    let job = log
        .start_compaction(Offset(20), NOW, 1 << 20)
        .expect("something to clean");
    let result = job.run().unwrap();
    log.finish_compaction(result).unwrap().remove(disk).unwrap();
    log.close().unwrap();
    log
}

#[test]
fn our_files_are_what_they_were() {
    let disk = PowerDisk::new();
    let log = write_sample(&disk);
    let files = on_disk(&disk);
    if std::env::var_os("SKERRY_WRITE_GOLDEN").is_some() {
        let os = skerry_env::os_disk();
        os.create_dir_all(&golden("skerry-1")).unwrap();
        for entry in os.list(&golden("skerry-1")).unwrap() {
            os.remove_file(&golden("skerry-1").join(entry.name)).unwrap();
        }
        for (name, bytes) in &files {
            replace_file(&*os, &golden("skerry-1").join(name), bytes).unwrap();
        }
    }
    let kept = load("skerry-1");
    assert_eq!(files.keys().collect::<Vec<_>>(), kept.keys().collect::<Vec<_>>());
    for (name, bytes) in &kept {
        assert_eq!(&files[name], bytes, "{name}");
    }
    let again = PowerDisk::new();
    put(&again, &kept);
    let recovered = Recovered {
        recovery_point: log.log_end(),
        ..Recovered::default()
    };
    let (opened, _) = try_open(&again, log.config(), Shutdown::Clean, recovered).unwrap();
    assert_eq!(read_records(&opened, Offset(0)), read_records(&log, Offset(0)));
    assert_eq!(
        opened.producers().collect::<Vec<_>>(),
        log.producers().collect::<Vec<_>>()
    );
    assert_eq!(
        opened.aborted(Offset(0), Offset(99)).unwrap(),
        log.aborted(Offset(0), Offset(99)).unwrap()
    );
}

#[test]
fn the_dump_reads_like_kafkas() {
    let disk = PowerDisk::new();
    put(&disk, &load("skerry-1"));
    let dump = |name: &str, options| {
        let mut out = Vec::new();
        skerry_log::dump(&disk, &dir().join(name), &mut out, options).unwrap();
        String::from_utf8(out).unwrap()
    };
    let plain = DumpOptions::default();
    let deep = DumpOptions {
        records: true,
        payloads: true,
        json: false,
    };
    let json = DumpOptions { json: true, ..deep };
    let last = on_disk(&disk)
        .keys()
        .rfind(|name| name.ends_with(".log"))
        .unwrap()
        .replace(".log", "");
    let head = |text: String, lines: usize| {
        text.lines()
            .take(lines)
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    };
    let text = [
        head(dump(&format!("{last}.log"), deep), 5),
        head(dump(&format!("{last}.log"), json), 2),
        head(dump(&format!("{last}.index"), plain), 2),
        head(dump(&format!("{last}.timeindex"), plain), 2),
        dump("leader-epoch-checkpoint", plain),
        dump("partition.metadata", json),
        dump(
            on_disk(&disk)
                .keys()
                .rfind(|name| name.ends_with(".snapshot"))
                .unwrap(),
            plain,
        ),
        dump(
            on_disk(&disk)
                .keys()
                .rfind(|name| name.ends_with(".txnindex"))
                .unwrap(),
            json,
        ),
    ]
    .join("\n");
    expect_test::expect![[r#"
        Dumping /data/orders-0/00000000000000000032.log
        Log starting offset: 32
        baseOffset: 32 lastOffset: 33 count: 2 baseSequence: 16 lastSequence: 17 producerId: 1 producerEpoch: 0 partitionLeaderEpoch: 2 isTransactional: false isControl: false deleteHorizonMs: OptionalLong.empty position: 0 CreateTime: 1700000000800 size: 125 magic: 2 compresscodec: none crc: 3084427750 isvalid: true
        | offset: 32 CreateTime: 1700000000800 keySize: 5 valueSize: 22 sequence: 16 headerKeys: [trace,none] key: key-3 payload: a value of some length
        | offset: 33 CreateTime: 1700000000793 keySize: 9 valueSize: -1 sequence: 17 headerKeys: [] key: tombstone payload: null

        {"baseOffset":32,"lastOffset":33,"count":2,"baseSequence":16,"lastSequence":17,"producerId":1,"producerEpoch":0,"partitionLeaderEpoch":2,"isTransactional":false,"isControl":false,"deleteHorizonMs":"OptionalLong.empty","position":0,"CreateTime":1700000000800,"size":125,"magic":2,"compresscodec":"none","crc":3084427750,"isvalid":true}
        {"offset":32,"CreateTime":1700000000800,"keySize":5,"valueSize":22,"sequence":16,"headerKeys":["trace","none"],"key":"key-3","payload":"a value of some length"}

        Dumping /data/orders-0/00000000000000000032.index
        offset: 35 position: 214

        Dumping /data/orders-0/00000000000000000032.timeindex
        timestamp: 1700000000800 offset: 33

        Dumping /data/orders-0/leader-epoch-checkpoint
        epoch: 0 startOffset: 0
        epoch: 1 startOffset: 16
        epoch: 2 startOffset: 32

        {"topicId":"BQUFBQUFRQWFBQUFBQUFBQ"}

        Dumping /data/orders-0/00000000000000000048.snapshot
        producerId: 1 producerEpoch: 0 coordinatorEpoch: -1 currentTxnFirstOffset: OptionalLong.empty lastTimestamp: 1700000001100 firstSequence: 22 lastSequence: 23 lastOffset: 45 offsetDelta: 1 timestamp: 1700000001100
        producerId: 2 producerEpoch: 7 coordinatorEpoch: 3 currentTxnFirstOffset: OptionalLong.empty lastTimestamp: 1700000000000 firstSequence: 11 lastSequence: 11 lastOffset: 46 offsetDelta: 0 timestamp: 1700000000000

        {"version":0,"producerId":2,"firstOffset":38,"lastOffset":39,"lastStableOffset":40}
    "#]].assert_eq(&text);
    let mut out = Vec::new();
    assert!(skerry_log::dump(&disk, &dir().join("notes.txt"), &mut out, plain).is_err());
}

#[test]
fn records_of_kafkas_codecs_are_read() {
    let files = load("kafka-4.3.1");
    let mut seen = Vec::new();
    for batch in Batches::new(files["00000000000000000000.log"].clone().into()) {
        let records = Records::all(&batch).unwrap();
        assert_eq!(records.len(), batch.header.record_count() as usize);
        if !seen.contains(&batch.header.codec()) {
            seen.push(batch.header.codec());
        }
    }
    assert_eq!(seen.len(), 5);
    assert!(seen.contains(&Some(Codec::Zstd)));
}
