//! One partition's log: what a batch costs from the Produce request's bytes to the page cache, and back.

use std::hint::black_box;
use std::io::IoSlice;
use std::path::PathBuf;

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use skerry_env::OpenMode;
use skerry_log::batch::{BatchBuilder, Compression};
use skerry_log::{FileCache, Log, LogConfig, PartitionIdentity, Recovered, Shutdown, ValidBatch};
use skerry_types::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, TopicId,
    WallMs,
};

const NOW: WallMs = WallMs(1_700_000_000_000);
const BATCH_BYTES: usize = 16 * 1024;

fn batch(record_bytes: usize, compression: Compression, sequence: i32) -> Bytes {
    let who = ProducerIdentity {
        id: ProducerId(1),
        epoch: ProducerEpoch(0),
    };
    let mut builder = BatchBuilder::new(compression).producer(who, Sequence(sequence));
    let mut word = 0u32;
    while builder.plain_bytes() + record_bytes + 16 < BATCH_BYTES {
        // Text-like: half of it repeats.
        let value: Vec<u8> = (0..record_bytes)
            .map(|at| {
                word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 2 == 0 { (word >> 24) as u8 } else { b'x' }
            })
            .collect();
        builder.push(NOW, None, Some(&value), &[]);
    }
    builder.build()
}

struct Place {
    dir: PathBuf,
    files: std::sync::Arc<FileCache>,
    id: PartitionIdentity,
}

impl Place {
    fn new(name: &str) -> Self {
        let id = PartitionIdentity {
            topic: name.into(),
            partition: PartitionIndex(0),
            topic_id: TopicId::from_random([1; 16]),
        };
        let disk = skerry_env::os_disk();
        let dir = std::env::temp_dir()
            .join(format!("skerry-bench-{}", std::process::id()))
            .join(id.dir_name());
        let _ = disk.remove_dir_all(&dir);
        Self {
            dir,
            files: FileCache::new(disk, 64),
            id,
        }
    }

    fn create(&self) -> Log {
        Log::create(
            &self.files,
            self.dir.clone(),
            self.id.clone(),
            LogConfig::default(),
        )
        .expect("a new log")
    }

    fn open(&self, shutdown: Shutdown, recovery_point: Offset) -> Log {
        let recovered = Recovered {
            recovery_point,
            ..Recovered::default()
        };
        let id = Some(self.id.clone());
        Log::open(
            &self.files,
            self.dir.clone(),
            id,
            LogConfig::default(),
            shutdown,
            recovered,
            NOW,
        )
        .expect("opens")
        .0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(parent) = self.dir.parent() {
            let _ = skerry_env::os_disk().remove_dir_all(parent);
        }
    }
}

fn validate(c: &mut Criterion) {
    let rules = LogConfig::default().validation_rules(NOW, true);
    let mut group = c.benchmark_group("validate a 16 KiB batch");
    for (name, record_bytes, compression) in [
        ("100 B records", 100, Compression::None),
        ("1 KiB records", 1024, Compression::None),
        ("100 B records, lz4", 100, Compression::Lz4),
        ("100 B records, snappy", 100, Compression::Snappy),
        ("100 B records, zstd", 100, Compression::Zstd(3)),
        ("100 B records, gzip", 100, Compression::Gzip(-1)),
    ] {
        let bytes = batch(record_bytes, compression, 0);
        group.throughput(Throughput::Bytes(BATCH_BYTES as u64));
        group.bench_function(name, |b| {
            b.iter(|| ValidBatch::parse(black_box(bytes.clone()), &rules).expect("valid"));
        });
    }
    let bytes = batch(100, Compression::None, 0);
    group.bench_function("the sum alone", |b| {
        b.iter(|| crc32c::crc32c(black_box(&bytes[21..])))
    });
    group.finish();
}

fn append(c: &mut Criterion) {
    let place = Place::new("append");
    let mut log = place.create();
    let rules = LogConfig::default().validation_rules(NOW, true);
    let valid = |idempotent: bool, sequence: i32| {
        let bytes = if idempotent {
            batch(1024, Compression::None, sequence)
        } else {
            plain_batch()
        };
        ValidBatch::parse(bytes, &rules).expect("valid")
    };
    let plain = valid(false, 0);
    let mut group = c.benchmark_group("append a 16 KiB batch");
    group.throughput(Throughput::Bytes(BATCH_BYTES as u64));
    let bare = skerry_env::os_disk()
        .open(&place.dir.join("bare"), OpenMode::Create)
        .expect("a file");
    let mut position = 0;
    group.bench_function("the bare write", |b| {
        b.iter(|| {
            bare.write_at(
                &[
                    IoSlice::new(plain.header().as_bytes()),
                    IoSlice::new(plain.records()),
                ],
                position,
            )
            .expect("written");
            position = (position + BATCH_BYTES as u64) % (1 << 30);
        });
    });
    group.bench_function("to the page cache", |b| {
        b.iter(|| {
            log.append_as_leader(black_box(plain.clone()), LeaderEpoch(0), NOW)
                .expect("appended")
        });
    });
    let bytes = plain_batch();
    group.bench_function("validated first", |b| {
        b.iter(|| {
            let valid = ValidBatch::parse(black_box(bytes.clone()), &rules).expect("valid");
            log.append_as_leader(valid, LeaderEpoch(0), NOW)
                .expect("appended")
        });
    });
    group.bench_function("durable, one by one", |b| {
        b.iter(|| {
            log.append_as_leader(black_box(plain.clone()), LeaderEpoch(0), NOW)
                .expect("appended");
            let job = log.start_flush().expect("dirty");
            let result = job.run();
            log.finish_flush(job, result).expect("durable")
        });
    });
    group.finish();
}

fn plain_batch() -> Bytes {
    let mut builder = BatchBuilder::default();
    while builder.plain_bytes() + 1040 < BATCH_BYTES {
        builder.push(NOW, None, Some(&[b'v'; 1024]), &[]);
    }
    builder.build()
}

fn read(c: &mut Criterion) {
    let place = Place::new("read");
    let mut log = place.create();
    let rules = LogConfig::default().validation_rules(NOW, true);
    for _ in 0..4096 {
        let valid = ValidBatch::parse(plain_batch(), &rules).expect("valid");
        log.append_as_leader(valid, LeaderEpoch(0), NOW)
            .expect("appended");
    }
    let end = log.log_end();
    let mut group = c.benchmark_group("read");
    for (name, max_bytes) in [("1 MiB", 1u32 << 20), ("one batch", BATCH_BYTES as u32)] {
        group.throughput(Throughput::Bytes(u64::from(max_bytes)));
        let mut next = Offset::ZERO;
        group.bench_function(name, |b| {
            b.iter(|| {
                next = Offset((next.get() + 4801) % (end.get() - 2000));
                let plan = log.plan_read(next, end, max_bytes, true).expect("a plan");
                plan.run_cached().expect("a read").expect("in the page cache")
            });
        });
    }
    group.bench_function("nothing new", |b| {
        b.iter(|| {
            log.plan_read(black_box(end), end, 1 << 20, true)
                .expect("a plan")
                .is_empty()
        });
    });
    group.finish();
}

fn recovery(c: &mut Criterion) {
    let place = Place::new("recovery");
    let mut log = place.create();
    let rules = LogConfig::default().validation_rules(NOW, true);
    for _ in 0..16384 {
        let valid = ValidBatch::parse(plain_batch(), &rules).expect("valid");
        log.append_as_leader(valid, LeaderEpoch(0), NOW)
            .expect("appended");
    }
    log.close().expect("closed");
    let end = log.log_end();
    let mut group = c.benchmark_group("open a log of 256 MiB");
    group.sample_size(10);
    group.bench_function("after a clean shutdown", |b| {
        b.iter_batched(
            || (),
            |()| place.open(Shutdown::Clean, end),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("after a crash, all of it synced", |b| {
        b.iter_batched(
            || (),
            |()| place.open(Shutdown::Unclean, end),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("after a crash, nothing known", |b| {
        b.iter_batched(
            || (),
            |()| place.open(Shutdown::Unclean, Offset::ZERO),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, validate, append, read, recovery);
criterion_main!(benches);
