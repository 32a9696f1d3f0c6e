//! Files that Kafka's own dump tool reads. `SKERRY_LOG_SAMPLES=DIR` keeps them; `SKERRY_KAFKA_LIBS=DIR` (Kafka's jars)
//! runs the tool on them. Without jars only our own dump looks at them.

use std::path::{Path, PathBuf};
use std::process::Command;

use skerry_log::batch::{BatchBuilder, Compression, Header, MarkerType, end_transaction_marker};
use skerry_log::{
    CleanupPolicy, DumpOptions, FileCache, Log, LogConfig, PartitionIdentity, TimestampType, ValidBatch,
};
use skerry_types::{
    LeaderEpoch, PartitionIndex, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, TopicId, WallMs,
};

const NOW: WallMs = WallMs(1_700_000_000_000);

fn who(id: i64) -> ProducerIdentity {
    ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(3),
    }
}

fn create(dir: &Path, topic: &str, config: &LogConfig) -> Log {
    let files = FileCache::new(skerry_env::os_disk(), 8);
    let id = PartitionIdentity {
        topic: topic.into(),
        partition: PartitionIndex(0),
        topic_id: TopicId::from_random([topic.len() as u8; 16]),
    };
    Log::create(&files, dir.join(id.dir_name()), id, config.clone()).unwrap()
}

fn append(log: &mut Log, builder: BatchBuilder, epoch: i32) {
    let rules = log.config().validation_rules(NOW, true);
    let batch = ValidBatch::parse(builder.build(), &rules).unwrap();
    log.append_as_leader(batch, LeaderEpoch(epoch), NOW).unwrap();
}

fn fill(log: &mut Log, batches: i32) {
    let codecs = [
        Compression::None,
        Compression::Gzip(-1),
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd(3),
    ];
    for n in 0..batches {
        let mut builder = BatchBuilder::new(codecs[n as usize % 5]);
        if n % 3 == 0 {
            builder = builder.producer(who(1), Sequence(n / 3 * 10));
        }
        for record in 0..10 {
            let key = format!("key-{}", (n + record) % 17);
            let value = format!("value {n} {record} ").repeat(1 + (n as usize * 7 + record as usize) % 40);
            let headers = [
                Header {
                    key: "h".into(),
                    value: Some(format!("{n}").into()),
                },
                Header {
                    key: "null".into(),
                    value: None,
                },
            ];
            // Times go back now and then, as producers' do.
            let at = WallMs(NOW.get() + i64::from(n) * 10 - i64::from(record) * 3);
            let value = (record != 7).then_some(value.as_bytes());
            builder.push(at, Some(key.as_bytes()), value, &headers[..(record as usize % 3)]);
        }
        append(log, builder, n / 40);
    }
}

fn transactions(log: &mut Log) {
    for n in 0..6i32 {
        let mut builder = BatchBuilder::default()
            .producer(who(9), Sequence(n * 2))
            .transactional();
        builder.push(NOW, Some(b"k"), Some(b"in a transaction"), &[]);
        builder.push(NOW, Some(b"l"), Some(b"in a transaction"), &[]);
        append(log, builder, 9);
        let kind = if n % 2 == 0 {
            MarkerType::Abort
        } else {
            MarkerType::Commit
        };
        let marker = ValidBatch::internal(end_transaction_marker(who(9), kind, 4, NOW)).unwrap();
        log.append_as_leader(marker, LeaderEpoch(9), NOW).unwrap();
    }
}

fn samples(dir: &Path) {
    let config = LogConfig {
        segment_bytes: 64 << 10,
        index_interval_bytes: 1024,
        ..LogConfig::default()
    };
    let mut closed = create(dir, "closed", &config);
    fill(&mut closed, 200);
    transactions(&mut closed);
    closed.close().unwrap();

    // As a running node has it: nothing is closed.
    let mut live = create(dir, "live", &config);
    fill(&mut live, 170);
    transactions(&mut live);
    if let Some(job) = live.start_checkpoint() {
        let result = job.run();
        live.finish_checkpoint(job, result).unwrap();
    }
    fill_plain(&mut live, 100);

    let config = LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..config
    };
    let mut stamped = create(dir, "stamped", &config);
    fill_plain(&mut stamped, 50);
    stamped.close().unwrap();

    let config = LogConfig {
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        timestamp_type: TimestampType::CreateTime,
        ..config
    };
    let mut compacted = create(dir, "compacted", &config);
    fill(&mut compacted, 200);
    transactions(&mut compacted);
    compacted
        .roll_if_due(WallMs(NOW.get() + 700_000_000_000))
        .unwrap();
    let job = compacted
        .start_compaction(compacted.log_end(), NOW, 1 << 20)
        .expect("something to clean");
    let result = job.run().unwrap();
    compacted
        .finish_compaction(result)
        .unwrap()
        .remove(&*skerry_env::os_disk())
        .unwrap();
    compacted.close().unwrap();
}

fn fill_plain(log: &mut Log, batches: i32) {
    for n in 0..batches {
        let mut builder = BatchBuilder::default();
        builder.push(WallMs(NOW.get() + i64::from(n)), None, Some(&[n as u8; 300]), &[]);
        append(log, builder, 9);
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let disk = skerry_env::os_disk();
    let mut files = Vec::new();
    for entry in disk.list(dir).unwrap() {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn our_dump(path: &Path) -> String {
    let mut out = Vec::new();
    let options = DumpOptions {
        records: true,
        payloads: true,
        json: false,
    };
    skerry_log::dump(&*skerry_env::os_disk(), path, &mut out, options).unwrap();
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn dump_tools_find_nothing_wrong() {
    let kept = std::env::var_os("SKERRY_LOG_SAMPLES").map(PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let dir = kept.as_deref().unwrap_or(temporary.path());
    samples(dir);
    let files = files(dir);
    assert!(files.len() > 30, "{files:?}");
    for path in &files {
        let text = our_dump(path);
        for word in [
            "isvalid: false",
            "invalid bytes",
            "Index offset",
            "corrupt",
            "follows",
            "cannot be read",
        ] {
            assert!(!text.contains(word), "{}: {word}\n{text}", path.display());
        }
    }
    let Some(libs) = std::env::var_os("SKERRY_KAFKA_LIBS") else {
        eprintln!("skipped: Kafka's dump tool (SKERRY_KAFKA_LIBS names no jars)");
        return;
    };
    let dumped = ["log", "index", "timeindex", "txnindex", "snapshot"];
    let wanted: Vec<String> = files
        .iter()
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| dumped.iter().any(|d| extension == *d))
        })
        .map(|path| path.display().to_string())
        .collect();
    let class_path = format!("{}/*", PathBuf::from(libs).display());
    for extra in [
        &["--deep-iteration", "--print-data-log"][..],
        &["--index-sanity-check"],
        &["--verify-index-only"],
    ] {
        let output = Command::new("java")
            .args([
                "-Xmx256M",
                "-cp",
                &class_path,
                "org.apache.kafka.tools.DumpLogSegments",
                "--files",
            ])
            .arg(wanted.join(","))
            .args(extra)
            .output()
            .expect("java runs");
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let complaint = text.lines().find(|line| {
            [
                "isvalid: false",
                "Exception",
                "ismatch",
                "not found",
                "out of order",
                "invalid bytes",
                "corrupt",
            ]
            .iter()
            .any(|word| line.contains(word))
        });
        assert!(
            output.status.success() && complaint.is_none(),
            "{extra:?}: {complaint:?}\n{text}"
        );
        if extra == ["--index-sanity-check"] {
            let passed = text.matches("passed sanity check").count();
            assert!(passed > 10, "{text}");
        }
    }
}
