//! Compaction against a naive model.

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use skerry_log::batch::{BatchBuilder, Compression, MarkerType, Records, end_transaction_marker};
use skerry_log::{Appended, CleanupPolicy, Log, LogConfig, Recovered, Shutdown, ValidBatch};
use skerry_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, WallMs};
use support::*;

const DAY_MS: i64 = 86_400_000;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1500,
        index_interval_bytes: 200,
        cleanup_policy: CleanupPolicy {
            delete: false,
            compact: true,
        },
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    }
}

fn later(ms: i64) -> WallMs {
    WallMs(NOW.get() + ms)
}

fn roll(log: &mut Log) {
    log.roll_if_due(later(1_000_000_000_000)).unwrap();
}

fn compact(log: &mut Log, now: WallMs) {
    compact_within(log, now, 1 << 20);
}

fn compact_within(log: &mut Log, now: WallMs, budget: usize) {
    let end = log.log_end();
    if let Some(job) = log.start_compaction(log.last_stable(end), now, budget) {
        let result = job.run().expect("a compaction");
        log.finish_compaction(result).expect("a swap");
    }
}

/// `offset key=value` of each record, and the empty batches.
fn describe(log: &Log) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in read_batches(log, Offset(0)) {
        let header = &batch.header;
        if header.record_count() == 0 {
            lines.push(format!(
                "{}..={} empty",
                header.base_offset(),
                header.last_offset()
            ));
        }
        for record in Records::all(&batch).unwrap() {
            let text = |bytes: Option<bytes::Bytes>| {
                bytes.map_or("null".to_owned(), |bytes| {
                    String::from_utf8_lossy(&bytes).into_owned()
                })
            };
            if header.is_control() {
                lines.push(format!("{} marker", record.offset));
            } else {
                lines.push(format!(
                    "{} {}={}",
                    record.offset,
                    text(record.key),
                    text(record.value)
                ));
            }
        }
    }
    lines
}

#[test]
fn the_last_record_of_each_key_stays_where_it_is() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &config());
    append(
        &mut log,
        keyed(&[("a", Some("1")), ("b", Some("1")), ("a", Some("2"))], NOW),
        0,
    );
    append(&mut log, keyed(&[("c", Some("1")), ("b", Some("2"))], NOW), 0);
    roll(&mut log);
    append(&mut log, keyed(&[("c", Some("2"))], NOW), 0);
    assert!(log.compaction_candidate(log.log_end(), NOW).is_some());
    compact(&mut log, NOW);
    // The active segment is not looked at: c=1 stays.
    assert_eq!(describe(&log), ["2 a=2", "3 c=1", "4 b=2", "5 c=2"]);
    assert_eq!(log.cleaned_until(), Some(Offset(5)));
    assert!(log.compaction_candidate(log.log_end(), NOW).is_none());
    roll(&mut log);
    compact(&mut log, NOW);
    assert_eq!(describe(&log), ["2 a=2", "4 b=2", "5 c=2"]);
}

#[test]
fn a_tombstone_stays_for_its_time_after_the_first_cleaning() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &config());
    append(&mut log, keyed(&[("a", Some("1")), ("b", Some("1"))], NOW), 0);
    append(&mut log, keyed(&[("a", None), ("b", Some("2"))], NOW), 0);
    roll(&mut log);
    compact(&mut log, NOW);
    assert_eq!(describe(&log), ["2 a=null", "3 b=2"]);
    let horizon = read_batches(&log, Offset(0))[0].header.delete_horizon();
    assert_eq!(horizon, Some(later(DAY_MS)));
    let stamps: Vec<_> = read_records(&log, Offset(0))
        .iter()
        .map(|record| record.timestamp)
        .collect();
    assert_eq!(
        stamps,
        [NOW, NOW],
        "timestamps stay although the base is the horizon"
    );

    append(&mut log, keyed(&[("x", Some("1"))], NOW), 0);
    roll(&mut log);
    compact(&mut log, later(DAY_MS - 1));
    assert_eq!(describe(&log), ["2 a=null", "3 b=2", "4 x=1"]);
    append(&mut log, keyed(&[("x", Some("2"))], NOW), 0);
    roll(&mut log);
    compact(&mut log, later(DAY_MS));
    assert_eq!(describe(&log), ["3 b=2", "5 x=2"]);
}

/// What a copy of a compacted log has before a hole it has not cleaned by itself: its leader had removed other records.
#[test]
fn what_a_follower_has_before_a_hole_is_as_dirty_as_it_was() {
    let (disk, other) = (PowerDisk::new(), PowerDisk::new());
    let (mut leader, mut follower) = (create(&disk, &config()), create(&other, &config()));
    let copy = |leader: &Log, follower: &mut Log| {
        for batch in read_batches(leader, follower.log_end()) {
            follower.append_as_follower(batch.bytes, NOW).unwrap();
        }
    };
    append(&mut leader, keyed(&[("a", Some("1"))], NOW), 0);
    append(&mut leader, keyed(&[("a", None)], NOW), 0);
    copy(&leader, &mut follower);
    append(&mut leader, keyed(&[("b", Some("1"))], NOW), 0);
    append(&mut leader, keyed(&[("b", Some("2"))], NOW), 0);
    roll(&mut leader);
    append(&mut leader, keyed(&[("c", Some("1"))], NOW), 0);
    compact(&mut leader, NOW);
    copy(&leader, &mut follower);
    assert_eq!(describe(&follower), ["0 a=1", "1 a=null", "3 b=2", "4 c=1"]);

    roll(&mut follower);
    compact(&mut follower, NOW);
    assert_eq!(describe(&follower), ["1 a=null", "3 b=2", "4 c=1"]);
    append(&mut leader, keyed(&[("d", Some("1"))], NOW), 0);
    copy(&leader, &mut follower);
    roll(&mut follower);
    compact(&mut follower, later(DAY_MS));
    // If the tombstone had gone alone, a=1 would be back.
    assert_eq!(describe(&follower), ["3 b=2", "4 c=1", "5 d=1"]);
}

/// Seed 5 of any size, 60 s: an old leader had a record of its own where its successors' were compacted away; whoever had copied
/// that hole took the epoch behind it to begin behind it, and agreed with what the old leader had.
#[test]
fn an_epoch_begins_where_the_hole_before_its_first_batch_does() {
    let (disk, other) = (PowerDisk::new(), PowerDisk::new());
    let (mut leader, mut follower) = (create(&disk, &config()), create(&other, &config()));
    append(&mut leader, keyed(&[("a", Some("1"))], NOW), 0);
    append(&mut leader, keyed(&[("b", Some("1"))], NOW), 2);
    append(&mut leader, keyed(&[("b", Some("2"))], NOW), 2);
    roll(&mut leader);
    append(&mut leader, keyed(&[("c", Some("1"))], NOW), 2);
    compact(&mut leader, NOW);
    for batch in read_batches(&leader, Offset(0)) {
        follower.append_as_follower(batch.bytes, NOW).unwrap();
    }
    assert_eq!(describe(&follower), ["0 a=1", "2 b=2", "3 c=1"]);
    let ends = |log: &Log| log.epoch_end(LeaderEpoch(0)).end_offset;
    assert_eq!(ends(&leader), Offset(1));
    assert_eq!(ends(&follower), Offset(1));
    // Neither does a start forget it that finds no checkpoint of the epochs.
    let (reopened, _) = open(&other.fork(), &config(), Recovered::default());
    assert_eq!(ends(&reopened), Offset(1));
}

#[test]
fn what_a_producer_may_send_again_is_known_after_compaction_and_a_restart() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &config());
    let batch = |sequence| {
        let producer = ProducerIdentity {
            id: ProducerId(1),
            epoch: ProducerEpoch(0),
        };
        let mut builder = BatchBuilder::default().producer(producer, Sequence(sequence));
        builder.push(NOW, Some(b"k"), Some(b"v"), &[]);
        builder.build()
    };
    for sequence in 0..7 {
        append(&mut log, batch(sequence), 0);
    }
    append(&mut log, keyed(&[("k", Some("7"))], NOW), 0);
    roll(&mut log);
    compact(&mut log, NOW);
    let kept = [
        "2..=2 empty",
        "3..=3 empty",
        "4..=4 empty",
        "5..=5 empty",
        "6..=6 empty",
        "7 k=7",
    ];
    assert_eq!(describe(&log), kept);
    // None of the five has been acknowledged when the broker dies, and the producer sends all of them again.
    let (mut reopened, _) = open(&disk.fork(), &config(), Recovered::default());
    for sequence in 2..7 {
        let repeated = ValidBatch::internal(batch(sequence)).unwrap();
        let known = reopened.append_as_leader(repeated, LeaderEpoch(0), NOW).unwrap();
        assert!(
            matches!(known, Appended::Duplicate { base, .. } if base == Offset(i64::from(sequence))),
            "{known:?}"
        );
    }
}

#[test]
fn the_last_batches_of_a_producer_and_of_the_round_stay_even_empty() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &config());
    let producer = |id| ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(0),
    };
    for (id, sequence, value) in [(1, 0, "1"), (1, 1, "2"), (2, 0, "3"), (2, 1, "4")] {
        let mut builder = BatchBuilder::default().producer(producer(id), Sequence(sequence));
        builder.push(NOW, Some(b"k"), Some(value.as_bytes()), &[]);
        append(&mut log, builder.build(), 0);
    }
    append(&mut log, keyed(&[("k", Some("5"))], NOW), 0);
    roll(&mut log);
    compact(&mut log, NOW);
    assert_eq!(
        describe(&log),
        [
            "0..=0 empty",
            "1..=1 empty",
            "2..=2 empty",
            "3..=3 empty",
            "4 k=5"
        ]
    );
    let (reopened, _) = open(&disk.fork(), &config(), Recovered::default());
    let last: Vec<_> = reopened
        .producers()
        .map(|p| (p.producer.id.get(), p.last_sequence.get()))
        .collect();
    assert_eq!(last, [(1, 1), (2, 1)]);
    assert_eq!(reopened.log_end(), log.log_end());
}

#[test]
fn aborted_records_go_and_markers_outlive_them() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &config());
    let who = ProducerIdentity {
        id: ProducerId(5),
        epoch: ProducerEpoch(0),
    };
    let mut sequence = 0;
    let mut transaction = |log: &mut Log, value: &str, kind| {
        let mut builder = BatchBuilder::default()
            .producer(who, Sequence(sequence))
            .transactional();
        builder.push(NOW, Some(value.as_bytes()), Some(value.as_bytes()), &[]);
        append(log, builder.build(), 0);
        append(log, end_transaction_marker(who, kind, 0, NOW), 0);
        sequence += 1;
    };
    transaction(&mut log, "aborted", MarkerType::Abort);
    transaction(&mut log, "committed", MarkerType::Commit);
    transaction(&mut log, "last", MarkerType::Commit);
    append(&mut log, keyed(&[("x", Some("1"))], NOW), 0);
    roll(&mut log);
    assert_eq!(log.aborted(Offset(0), log.log_end()).unwrap().len(), 1);
    compact(&mut log, NOW);
    assert_eq!(
        describe(&log),
        [
            "1 marker",
            "2 committed=committed",
            "3 marker",
            "4 last=last",
            "5 marker",
            "6 x=1"
        ]
    );
    append(&mut log, keyed(&[("x", Some("2"))], NOW), 0);
    roll(&mut log);
    // Nothing is left of the aborted one: its marker begins its horizon, and goes behind it.
    compact(&mut log, later(1));
    append(&mut log, keyed(&[("x", Some("3"))], NOW), 0);
    roll(&mut log);
    compact(&mut log, later(DAY_MS + 1));
    assert_eq!(
        describe(&log),
        [
            "2 committed=committed",
            "3 marker",
            "4 last=last",
            "5 marker",
            "8 x=3"
        ]
    );
}

#[test]
fn an_open_transaction_and_a_young_segment_hold_compaction_back() {
    let disk = PowerDisk::new();
    let lag = LogConfig {
        min_compaction_lag_ms: 1000,
        ..config()
    };
    let mut log = create(&disk, &lag);
    append(&mut log, keyed(&[("a", Some("1"))], NOW), 0);
    append(&mut log, keyed(&[("a", Some("2"))], NOW), 0);
    roll(&mut log);
    assert!(
        log.compaction_candidate(log.log_end(), later(999)).is_none(),
        "too young"
    );
    assert!(log.compaction_candidate(log.log_end(), later(1000)).is_some());
    assert!(
        log.compaction_candidate(Offset(0), later(1000)).is_none(),
        "nothing is stable"
    );
    assert!(log.start_compaction(Offset(0), later(1000), 1 << 20).is_none());

    let overdue = LogConfig {
        min_cleanable_dirty_ratio: 1.0,
        max_compaction_lag_ms: 5000,
        ..config()
    };
    log.set_config(overdue);
    assert!(log.compaction_candidate(log.log_end(), later(5000)).is_none());
    assert!(
        log.compaction_candidate(log.log_end(), later(5001))
            .unwrap()
            .overdue
    );
}

#[derive(Clone, Debug)]
enum Op {
    Append(Vec<(u8, Option<u8>)>, u8),
    Roll,
    Compact { budget: u16 },
    Reopen { power: bool },
    CutDuringSwap,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        8 => (prop::collection::vec((0u8..12, prop::option::weighted(0.8, any::<u8>())), 1..6), 0u8..5)
            .prop_map(|(records, codec)| Op::Append(records, codec)),
        2 => Just(Op::Roll),
        3 => (0u16..2000).prop_map(|budget| Op::Compact { budget }),
        1 => any::<bool>().prop_map(|power| Op::Reopen { power }),
        1 => Just(Op::CutDuringSwap),
    ]
}

fn codec(number: u8) -> Compression {
    [
        Compression::None,
        Compression::Gzip(1),
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd(1),
    ][usize::from(number) % 5]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(400), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_reader_to_the_end_sees_the_latest_value_of_each_key(
        ops in prop::collection::vec(op(), 1..60), seed in any::<u64>(),
    ) {
        let (mut disk, mut dice) = (PowerDisk::new(), Dice::new(seed));
        let mut log = create(&disk, &config());
        // Offset, key and value of everything that was ever written.
        let mut written: Vec<(i64, u8, Option<u8>)> = Vec::new();
        let mut shell = Recovered::default();
        for op in ops {
            match op {
                Op::Append(records, number) => {
                    let mut builder = BatchBuilder::new(codec(number));
                    let base = log.log_end().get();
                    for (at, (key, value)) in records.iter().enumerate() {
                        builder.push(later(at as i64), Some(&[*key]), value.as_ref().map(std::slice::from_ref), &[]);
                        written.push((base + at as i64, *key, *value));
                    }
                    let batch = ValidBatch::internal(builder.build()).unwrap();
                    log.append_as_leader(batch, LeaderEpoch(0), NOW).unwrap();
                    flush(&mut log);
                }
                Op::Roll => roll(&mut log),
                Op::Compact { budget } => compact_within(&mut log, NOW, usize::from(budget)),
                Op::Reopen { power } => {
                    checkpoint(&mut log);
                    shell.recovery_point = log.recovery_point();
                    shell.cleaned_until = log.cleaned_until();
                    if power {
                        disk = disk.cut_power(&mut dice);
                    }
                    log = try_open(&disk, &config(), Shutdown::Unclean, shell).expect("opens").0;
                }
                Op::CutDuringSwap => {
                    let end = log.log_end();
                    if let Some(job) = log.start_compaction(end, NOW, 1 << 16) {
                        let result = job.run().unwrap();
                        // The disk stops taking changes somewhere within the swap.
                        disk.stop_after(dice.below(12));
                        let _ = log.finish_compaction(result);
                        let image = if dice.below(2) == 0 { disk.cut_power(&mut dice) } else { disk.fork() };
                        image.resume();
                        disk = image;
                        log = try_open(&disk, &config(), Shutdown::Unclean, shell).expect("opens").0;
                        prop_assert_eq!(log.log_end(), end);
                    }
                }
            }
            check_against(&log, &written)?;
            log.verify().map_err(TestCaseError::fail)?;
        }
        roll(&mut log);
        compact(&mut log, NOW);
        check_against(&log, &written)?;
        // Everything but the active segment is clean now: one record for each key.
        let keys: Vec<_> = read_records(&log, Offset(0)).iter().map(|record| record.key.clone()).collect();
        let distinct: std::collections::BTreeSet<_> = keys.iter().cloned().collect();
        prop_assert_eq!(keys.len(), distinct.len());
    }
}

fn check_against(log: &Log, written: &[(i64, u8, Option<u8>)]) -> Result<(), TestCaseError> {
    let latest: BTreeMap<u8, (i64, Option<u8>)> = written
        .iter()
        .map(|(at, key, value)| (*key, (*at, *value)))
        .collect();
    let found = read_records(log, Offset(0));
    let mut seen = BTreeMap::new();
    for pair in found.windows(2) {
        prop_assert!(pair[0].offset < pair[1].offset);
    }
    for record in &found {
        let (at, key) = (record.offset.get(), record.key.as_ref().unwrap()[0]);
        let value = record.value.as_ref().map(|value| value[0]);
        prop_assert_eq!(
            written[at as usize],
            (at, key, value),
            "a record is at another offset"
        );
        seen.insert(key, (at, value));
    }
    // Within delete.retention.ms tombstones are there as well.
    prop_assert_eq!(seen, latest);
    Ok(())
}

/// In a log with holes nothing but the sum contradicts a head that names a later offset.
#[test]
fn damage_is_told_where_a_reader_meets_it() {
    const BASE_OFFSET: std::ops::Range<usize> = 0..8;
    let disk = PowerDisk::new();
    let mut log = create(&disk, &config());
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        append(&mut log, keyed(&[(key, Some("a value of some bytes"))], NOW), 0);
        append(&mut log, keyed(&[("hot", Some(key))], NOW), 0);
    }
    roll(&mut log);
    compact(&mut log, NOW);
    // A sector of another partition was written over the second batch: its head is one of the sixth.
    let path = dir().join("00000000000000000000.log");
    let mut bytes = disk.read(&path).unwrap();
    let heads: Vec<usize> = read_batches(&log, Offset(0))
        .iter()
        .scan(0, |at, batch| {
            let here = *at;
            *at += batch.bytes.len();
            Some(here)
        })
        .collect();
    let other = bytes[heads[5]..][BASE_OFFSET].to_vec();
    bytes[heads[1]..][BASE_OFFSET].copy_from_slice(&other);
    bytes[heads[1] + 80] ^= 1;
    disk.put(&path, bytes);
    log.forget_files();
    let read = |from, max_bytes| {
        let plan = log.plan_read(from, log.log_end(), max_bytes, true).unwrap();
        plan.run_checked()
    };
    assert!(read(Offset(0), 1 << 20).is_ok(), "what is before it");
    let error = read(Offset(1), 1 << 20).unwrap_err();
    let place = error.offset().unwrap();
    assert_eq!(place, Offset(1), "{error}");
    assert_eq!(read(place, 1).unwrap_err().to_string(), error.to_string());
    // Where the sector holds a whole batch besides, the place is one that an index leads to around the damage.
    let walked = |from| {
        let plan = log.plan_read(from, log.log_end(), 1, true).unwrap();
        plan.without_index().run_checked()
    };
    let claimed = Offset(i64::from_be_bytes(other.try_into().unwrap()));
    assert!(read(claimed, 1).is_ok());
    assert!(walked(claimed).unwrap_err().is_damage());
}

/// Seed 5529 of any size, 60 s: the sector begins where a batch does, and with a batch. Whoever reads on behind that finds what
/// really has the next offset, by way of the index, and misses what is in between.
#[test]
fn a_whole_batch_of_another_place_hides_nothing() {
    for place in 2..5 {
        hides_nothing(place, None);
        hides_nothing(place, Some(1_000));
    }
}

/// Over batch `place` lies the sixth one, or one of a longer log, and zeros behind it.
fn hides_nothing(place: usize, base: Option<i64>) {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &config());
    let keys = ["a", "b", "c", "d", "e", "f", "g", "h"];
    for key in keys {
        append(&mut log, keyed(&[(key, Some("a value of some bytes"))], NOW), 0);
        append(&mut log, keyed(&[("hot", Some(key))], NOW), 0);
    }
    roll(&mut log);
    compact(&mut log, NOW);
    let path = dir().join("00000000000000000000.log");
    let mut bytes = disk.read(&path).unwrap();
    let batches = read_batches(&log, Offset(0));
    let heads: Vec<usize> = batches
        .iter()
        .scan(0, |at, batch| {
            let here = *at;
            *at += batch.bytes.len();
            Some(here)
        })
        .collect();
    let mut foreign = bytes[heads[5]..heads[6]].to_vec();
    if let Some(base) = base {
        // No sum covers it.
        foreign[..8].copy_from_slice(&base.to_be_bytes());
    }
    let end = heads[place] + foreign.len();
    bytes[heads[place]..end].copy_from_slice(&foreign);
    bytes[end..end + 19].fill(0);
    disk.put(&path, bytes);
    log.forget_files();
    // The second one begins within what compaction has taken away.
    let begins = [0, 1].map(Offset);
    for (max_bytes, begin) in [1, 200, 1 << 20]
        .into_iter()
        .flat_map(|max| begins.map(|at| (max, at)))
    {
        let mut from = begin;
        let error = loop {
            let plan = log.plan_read(from, log.log_end(), max_bytes, true).unwrap();
            match plan.run_checked() {
                Ok(bytes) => {
                    from = skerry_log::batch::Batches::new(bytes)
                        .last()
                        .unwrap()
                        .header
                        .next_offset()
                }
                Err(error) => break error,
            }
            assert!(from < log.log_end(), "the damage was passed by");
        };
        assert!(error.is_damage());
        assert!(
            error.offset().unwrap() <= batches[place].header.base_offset(),
            "{error}"
        );
        // Whoever looks again there, and reads as much, finds it (6923 of any size, 60 s).
        let again = log
            .plan_read(error.offset().unwrap(), log.log_end(), 1 << 20, true)
            .unwrap();
        let again = again.without_index().run_checked();
        assert!(
            again.is_err_and(|error| error.is_damage()),
            "{max_bytes} bytes from {begin}: {error}"
        );
    }
}

/// Seed 5860 of any size, 60 s: a segment that was not synced is lost with the power, its name or its bytes, and a later one is
/// not. A hole of compaction it is not.
#[test]
fn a_segment_that_was_lost_is_no_hole() {
    let lose_name = |disk: &PowerDisk, path: &std::path::Path| disk.dyn_disk().remove_file(path).unwrap();
    let lose_bytes = |disk: &PowerDisk, path: &std::path::Path| disk.put(path, Vec::new());
    type Lose = fn(&PowerDisk, &std::path::Path);
    for lose in [lose_name as Lose, lose_bytes as Lose] {
        let disk = PowerDisk::new();
        let mut log = create(&disk, &config());
        for number in 0..40 {
            let key = format!("key {}", number % 7);
            append(&mut log, keyed(&[(&key, Some("a value of some bytes"))], NOW), 0);
        }
        compact(&mut log, NOW);
        let clean = log.log_end();
        for number in 0..60 {
            let key = format!("key {number}");
            append(&mut log, keyed(&[(&key, Some("a value of some bytes"))], NOW), 0);
        }
        let files = disk.files();
        let logs = files
            .keys()
            .filter(|path| path.extension().is_some_and(|kind| kind == "log"));
        let bases = logs.map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap());
        let bases: Vec<Offset> = bases.map(Offset).filter(|base| *base >= clean).collect();
        assert!(bases.len() > 3, "{bases:?}");
        lose(&disk, &dir().join(format!("{:020}.log", bases[1].get())));
        drop(log);
        let (again, _) = open(&disk, &config(), Recovered::default());
        assert_eq!(again.log_end(), bases[1]);
    }
}
