//! Kill and power cuts at any moment: what was durable is there, what is there is a prefix of what was written, and
//! everything that is derived from the log is what the log says.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use skerry_log::batch::{BatchBuilder, Compression, MarkerType, end_transaction_marker};
use skerry_log::{Appended, Log, LogConfig, Recovered, Shutdown, ValidBatch};
use skerry_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, WallMs};
use support::*;

#[derive(Clone, Debug)]
enum Op {
    Append {
        records: u8,
        size: u16,
        producer: u8,
        codec: u8,
    },
    Transactional {
        records: u8,
        producer: u8,
    },
    EndTransaction {
        producer: u8,
        abort: bool,
    },
    NextEpoch,
    Flush,
    StartFlush,
    FinishFlush,
    Checkpoint {
        told: bool,
    },
    Truncate {
        back: u8,
    },
    LogStart {
        forward: u8,
    },
    Roll,
    Close,
    Kill,
    PowerCut,
    FullDisk {
        room: u8,
    },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (1u8..5, 0u16..300, 0u8..4, 0u8..5)
            .prop_map(|(records, size, producer, codec)| Op::Append { records, size, producer, codec }),
        3 => (1u8..4, 4u8..6).prop_map(|(records, producer)| Op::Transactional { records, producer }),
        2 => (4u8..6, any::<bool>()).prop_map(|(producer, abort)| Op::EndTransaction { producer, abort }),
        1 => Just(Op::NextEpoch),
        3 => Just(Op::Flush),
        1 => Just(Op::StartFlush),
        1 => Just(Op::FinishFlush),
        2 => any::<bool>().prop_map(|told| Op::Checkpoint { told }),
        1 => (0u8..20).prop_map(|back| Op::Truncate { back }),
        1 => (0u8..20).prop_map(|forward| Op::LogStart { forward }),
        1 => Just(Op::Roll),
        1 => Just(Op::Close),
        1 => Just(Op::Kill),
        2 => Just(Op::PowerCut),
        1 => (0u8..200).prop_map(|room| Op::FullDisk { room }),
    ]
}

/// What a batch of the model is.
#[derive(Clone, Debug, PartialEq)]
struct Written {
    bytes: bytes::Bytes,
    base: Offset,
    next: Offset,
    epoch: LeaderEpoch,
    producer: Option<(ProducerIdentity, Sequence, i32)>,
    transactional: bool,
    marker: Option<bool>,
}

/// What a producer's batches were: the last five, oldest first, and where its transaction begins.
#[derive(Clone, Debug, Default, PartialEq)]
struct Producer {
    batches: Vec<(Sequence, i32, Offset)>,
    open: Option<Offset>,
}

struct World {
    disk: PowerDisk,
    config: LogConfig,
    log: Log,
    dice: Dice,
    epoch: i32,
    written: Vec<Written>,
    durable: Offset,
    /// The shell's checkpoint files.
    shell: Recovered,
    pending: Option<skerry_log::FlushJob>,
}

impl World {
    fn new(seed: u64) -> Self {
        let config = LogConfig {
            segment_bytes: 2500,
            index_interval_bytes: 300,
            segment_index_bytes: 4096,
            ..LogConfig::default()
        };
        let disk = PowerDisk::new();
        let log = create(&disk, &config);
        Self {
            disk,
            config,
            log,
            dice: Dice::new(seed),
            epoch: 0,
            written: Vec::new(),
            durable: Offset(0),
            shell: Recovered::default(),
            pending: None,
        }
    }

    fn producers(&self) -> BTreeMap<i64, Producer> {
        let mut producers: BTreeMap<i64, Producer> = BTreeMap::new();
        for written in &self.written {
            let Some((who, sequence, count)) = written.producer else {
                continue;
            };
            let producer = producers.entry(who.id.get()).or_default();
            if written.marker.is_some() {
                producer.open = None;
                continue;
            }
            if producer.batches.len() == 5 {
                producer.batches.remove(0);
            }
            producer.batches.push((sequence, count, written.base));
            if written.transactional && producer.open.is_none() {
                producer.open = Some(written.base);
            }
        }
        producers
    }

    fn append(&mut self, bytes: bytes::Bytes, mut written: Written) {
        let batch = ValidBatch::internal(bytes).unwrap();
        let end = self.log.log_end();
        match self
            .log
            .append_as_leader(batch.clone(), LeaderEpoch(self.epoch), NOW)
        {
            Ok(Appended::New { base, last, .. }) => {
                assert_eq!(base, end);
                written.bytes = batch.to_bytes(base, LeaderEpoch(self.epoch));
                (written.base, written.next, written.epoch) = (base, last.next(), LeaderEpoch(self.epoch));
                self.written.push(written);
            }
            Err(skerry_log::AppendError::DiskFull) => assert_eq!(self.log.log_end(), end),
            // A marker whose abort could not be noted.
            Err(skerry_log::AppendError::Poisoned(_)) => {
                self.disk.set_room(None);
                self.restart(Shutdown::Unclean);
            }
            other => panic!("{other:?}"),
        }
    }

    fn blank() -> Written {
        Written {
            bytes: bytes::Bytes::new(),
            base: Offset(0),
            next: Offset(0),
            epoch: LeaderEpoch(0),
            producer: None,
            transactional: false,
            marker: None,
        }
    }

    fn data(&mut self, records: u8, size: u16, producer: u8, codec: u8, transactional: bool) {
        let codecs = [
            Compression::None,
            Compression::Gzip(1),
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd(1),
        ];
        let mut builder = BatchBuilder::new(codecs[usize::from(codec) % 5]);
        let mut written = Self::blank();
        if producer > 0 {
            let id = i64::from(producer);
            let who = ProducerIdentity {
                id: ProducerId(id),
                epoch: ProducerEpoch(0),
            };
            let known = self.producers();
            let last = known
                .get(&id)
                .and_then(|producer| producer.batches.last().copied());
            let sequence = last.map_or(Sequence(0), |(first, count, _)| first.plus(count));
            builder = builder.producer(who, sequence);
            written.producer = Some((who, sequence, i32::from(records)));
        }
        if transactional {
            builder = builder.transactional();
            written.transactional = true;
        }
        for n in 0..records {
            let value = vec![n.wrapping_add(self.dice.next() as u8); usize::from(size)];
            let at = WallMs(NOW.get() + self.dice.below(1000) as i64);
            builder.push(at, None, Some(&value), &[]);
        }
        self.append(builder.build(), written);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Append {
                records,
                size,
                producer,
                codec,
            } => self.data(records, size, producer, codec, false),
            Op::Transactional { records, producer } => self.data(records, 20, producer, 0, true),
            Op::EndTransaction { producer, abort } => {
                let id = i64::from(producer);
                if self
                    .producers()
                    .get(&id)
                    .is_some_and(|producer| producer.open.is_some())
                {
                    let who = ProducerIdentity {
                        id: ProducerId(id),
                        epoch: ProducerEpoch(0),
                    };
                    let kind = if abort {
                        MarkerType::Abort
                    } else {
                        MarkerType::Commit
                    };
                    let mut written = Self::blank();
                    written.producer = Some((who, Sequence::NONE, 0));
                    written.marker = Some(abort);
                    self.append(end_transaction_marker(who, kind, 0, NOW), written);
                }
            }
            Op::NextEpoch => self.epoch += 1,
            Op::Flush => {
                flush(&mut self.log);
                self.durable = self.log.durable_end();
                assert_eq!(self.durable, self.log.log_end());
            }
            Op::StartFlush => {
                if self.pending.is_none() {
                    self.pending = self.log.start_flush();
                    self.durable = self.log.durable_end();
                }
            }
            Op::FinishFlush => {
                if let Some(job) = self.pending.take() {
                    let result = job.run();
                    self.durable = self.log.finish_flush(job, result).unwrap();
                }
            }
            Op::Checkpoint { told } => {
                let point = checkpoint(&mut self.log);
                self.durable = self.log.durable_end();
                if told {
                    self.shell.recovery_point = point;
                }
            }
            Op::Truncate { back } => {
                let target =
                    Offset((self.log.log_end().get() - i64::from(back)).max(self.log.log_start().get()));
                self.shell.recovery_point = self.shell.recovery_point.min(target);
                let end = self
                    .written
                    .iter()
                    .take_while(|w| w.next <= target)
                    .last()
                    .map_or(Offset(0), |w| w.next);
                self.shell.recovery_point = self.shell.recovery_point.min(end);
                let start = self.log.log_start();
                // A batch goes as a whole; where it begins below the log's start, nothing is left.
                let restarts = self
                    .written
                    .iter()
                    .any(|w| w.base < start && start <= target && target < w.next);
                self.log.truncate_to(target).unwrap();
                self.written.retain(|written| written.next <= target);
                if restarts {
                    self.written.clear();
                }
                self.durable = self.log.durable_end();
                self.shell.log_start = self.shell.log_start.min(self.log.log_end());
                self.epoch += 1;
            }
            Op::LogStart { forward } => {
                let target = Offset(self.log.log_start().get() + i64::from(forward)).min(self.durable);
                if target > self.log.log_start() {
                    self.shell.log_start = target;
                    let retired = self.log.set_log_start(target).unwrap();
                    retired.remove(&self.disk).unwrap();
                }
            }
            Op::Roll => {
                let _ = self.log.roll_if_due(WallMs(NOW.get() + 700_000_000_000));
            }
            Op::Close => {
                self.pending = None;
                self.log.close().unwrap();
                self.shell.recovery_point = self.log.recovery_point();
                self.durable = self.log.durable_end();
                self.restart(Shutdown::Clean);
            }
            Op::Kill => self.restart(Shutdown::Unclean),
            Op::PowerCut => {
                self.disk = self.disk.cut_power(&mut self.dice);
                self.restart(Shutdown::Unclean);
            }
            Op::FullDisk { room } => {
                self.disk.set_room(Some(u64::from(room)));
                self.data(3, 100, 1, 0, false);
                self.disk.set_room(None);
            }
        }
        self.log.check();
    }

    fn restart(&mut self, shutdown: Shutdown) {
        self.pending = None;
        self.disk.set_room(None);
        let (log, _) = try_open(&self.disk, &self.config, shutdown, self.shell).expect("the log opens");
        self.log = log;
        let end = self.log.log_end();
        assert!(end >= self.durable, "durable up to {}, found {end}", self.durable);
        self.written.retain(|written| written.next <= end);
        assert_eq!(
            self.written
                .last()
                .map_or(self.log.log_start().min(end), |w| w.next),
            end
        );
        assert_eq!(self.log.durable_end(), end);
        self.durable = end;
        self.verify();
    }

    /// The log against the model.
    fn verify(&self) {
        self.log.verify().unwrap();
        let start = self.log.log_start();
        let found: Vec<_> = read_batches(&self.log, start)
            .into_iter()
            .map(|batch| batch.bytes)
            .collect();
        let expected: Vec<_> = self
            .written
            .iter()
            .filter(|w| w.next > start)
            .map(|written| written.bytes.clone())
            .collect();
        assert_eq!(found, expected);
        for written in self.written.iter().filter(|w| w.base >= start) {
            assert_eq!(
                self.log.epoch_at(written.base),
                Some(written.epoch),
                "epoch of {}",
                written.base
            );
        }
        self.verify_producers();
    }

    fn verify_producers(&self) {
        // What was retired with its segment may be known or not.
        let known: BTreeMap<_, _> = self.log.producers().map(|p| (p.producer.id.get(), p)).collect();
        for (id, producer) in self.producers() {
            let recent = self.written.iter().any(|w| {
                w.base >= self.log.log_start() && w.producer.is_some_and(|(who, ..)| who.id.get() == id)
            });
            let Some(found) = known.get(&id) else {
                assert!(!recent, "producer {id} is forgotten");
                continue;
            };
            let last = producer
                .batches
                .last()
                .map(|(first, count, _)| first.plus(count - 1));
            if recent {
                assert_eq!(
                    found.last_sequence,
                    last.unwrap_or(Sequence::NONE),
                    "producer {id}"
                );
                assert_eq!(found.current_txn_first_offset, producer.open, "producer {id}");
            }
        }
    }

    /// The last five batches of each producer are known as repetitions.
    fn verify_repetitions(&self) {
        let disk = self.disk.fork();
        let (mut log, _) = open(&disk, &self.config, self.shell);
        for (id, producer) in self.producers() {
            let who = ProducerIdentity {
                id: ProducerId(id),
                epoch: ProducerEpoch(0),
            };
            for (sequence, count, base) in &producer.batches {
                // Below the log's start a producer is remembered as far as there is a snapshot.
                if *base < log.log_start() {
                    continue;
                }
                let mut builder = BatchBuilder::default().producer(who, *sequence);
                (0..*count).for_each(|_| builder.push(NOW, None, Some(b"again"), &[]));
                let batch = ValidBatch::internal(builder.build()).unwrap();
                let appended = log.append_as_leader(batch, LeaderEpoch(self.epoch), NOW).unwrap();
                assert!(
                    matches!(appended, Appended::Duplicate { base: found, .. } if found == *base),
                    "producer {id} sequence {sequence}: {appended:?}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400), max_shrink_iters: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_durable_is_lost_whatever_happens(ops in prop::collection::vec(op(), 1..80), seed in any::<u64>()) {
        plant_from_env();
        let mut world = World::new(seed);
        for op in ops {
            world.apply(op);
        }
        world.verify();
        world.disk = world.disk.cut_power(&mut world.dice);
        // A second cut during recovery, and a third after it.
        let again = world.disk.fork();
        let shell = world.shell;
        let _ = try_open(&again, &world.config, Shutdown::Unclean, shell);
        world.disk = again.cut_power(&mut world.dice);
        world.restart(Shutdown::Unclean);
        world.verify_repetitions();
    }
}

#[test]
fn planted_bugs_are_found() {
    for name in [
        "dedupe-keeps-one-batch",
        "dedupe-not-rebuilt",
        "rename-without-dir-sync",
        "durable-end-too-early",
    ] {
        assert!(finds("nothing_durable_is_lost_whatever_happens", name), "{name}");
    }
}
