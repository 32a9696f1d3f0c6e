//! What is refused at the door, and why, as Kafka says it; and what idempotence remembers.

mod support;

use bytes::Bytes;
use expect_test::{Expect, expect};
use skerry_log::batch::{
    Batch, BatchBuilder, Batches, Codec, Compression, MarkerType, Records, end_transaction_marker,
};
use skerry_log::{
    AppendError, Appended, InvalidBatch, LogConfig, TargetCompression, TimestampType, ValidBatch,
    ValidationRules,
};
use skerry_types::{Instant, LeaderEpoch, Offset, ProducerEpoch, ProducerId, ProducerIdentity, WallMs};
use support::*;

fn rules() -> ValidationRules {
    LogConfig::default().validation_rules(NOW, true)
}

fn sealed(mut bytes: Vec<u8>) -> Bytes {
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

/// A good batch with `bytes` written over it from `at` on, and its sum made right again.
fn with(at: usize, bytes: &[u8]) -> Bytes {
    let mut batch = batch(&["a", "b", "c"]).to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    sealed(batch)
}

fn refusal(records: Bytes, rules: &ValidationRules) -> String {
    match ValidBatch::parse(records, rules) {
        Ok(batch) => format!("taken: {:?}", batch.header()),
        Err(InvalidBatch::Corrupt(why)) => format!("CORRUPT_MESSAGE: {why}"),
        Err(InvalidBatch::InvalidRecord {
            record_errors,
            message,
        }) => {
            let at: Vec<_> = record_errors.iter().map(|error| error.index).collect();
            format!("INVALID_RECORD {at:?}: {message}")
        }
        Err(InvalidBatch::TooLarge {
            size_bytes,
            max_bytes,
        }) => {
            format!("MESSAGE_TOO_LARGE: {size_bytes} over {max_bytes}")
        }
        Err(InvalidBatch::InvalidTimestamp {
            record_errors,
            message,
        }) => {
            let at: Vec<_> = record_errors.iter().map(|error| error.index).collect();
            format!("INVALID_TIMESTAMP {at:?}: {message}")
        }
        Err(InvalidBatch::UnsupportedCompression(why)) => format!("UNSUPPORTED_COMPRESSION_TYPE: {why}"),
    }
}

/// A bit that turns over on the way: clients send a batch again that is CORRUPT_MESSAGE, and give one up that is
/// INVALID_RECORD. What the head says is believed after the sum.
#[test]
fn one_bit_of_what_the_sum_covers_is_always_damage() {
    const MAGIC_AT: usize = 16;
    let good = batch(&["a", "b", "c"]);
    // From the sum on: magic is before it, and judged first.
    for bit in (MAGIC_AT + 1) * 8..good.len() * 8 {
        let mut broken = good.to_vec();
        broken[bit / 8] ^= 1 << (bit % 8);
        for zstd_allowed in [true, false] {
            let rules = LogConfig::default().validation_rules(NOW, zstd_allowed);
            let told = refusal(broken.clone().into(), &rules);
            assert_eq!(
                told, "CORRUPT_MESSAGE: the batch's checksum does not fit its bytes",
                "bit {bit}"
            );
        }
    }
}

#[test]
fn each_mistake_has_kafkas_error() {
    let good = batch(&["a", "b", "c"]);
    let mut broken = good.to_vec();
    broken[70] ^= 1;
    let two = [&good[..], &good[..]].concat();
    let part = [&good[..], &good[..30]].concat();
    let junk = [&good[..], &[0xff; 80][..]].concat();
    let mut table = String::new();
    let mut row = |name: &str, records: Bytes| {
        table.push_str(&format!("{name}: {}\n", refusal(records, &rules())));
    };
    row("good", good.clone());
    row("no bytes", Bytes::new());
    row("half a batch", good.slice(..40));
    row("two batches", two.into());
    row("a batch and a part", part.into());
    row("a batch and junk", junk.into());
    row("a flipped bit", broken.into());
    row("magic 0", with(16, &[0]));
    row("magic 1", with(16, &[1]));
    row("magic 3", with(16, &[3]));
    row("magic -1", with(16, &[0xff]));
    row("length 10", with(8, &10i32.to_be_bytes()));
    row("length -1", with(8, &(-1i32).to_be_bytes()));
    row("a length too long", with(8, &1000i32.to_be_bytes()));
    row("a length too short", with(8, &70i32.to_be_bytes()));
    row("base offset 1", with(0, &1i64.to_be_bytes()));
    row("control bit", with(21, &0x20i16.to_be_bytes()));
    row("codec 5", with(21, &5i16.to_be_bytes()));
    row("last delta 1", with(23, &1i32.to_be_bytes()));
    row("count 2", with(57, &2i32.to_be_bytes()));
    row("count and delta say 2", {
        let mut batch = good.to_vec();
        batch[23..27].copy_from_slice(&1i32.to_be_bytes());
        batch[57..61].copy_from_slice(&2i32.to_be_bytes());
        sealed(batch)
    });
    row("count and delta say 4", {
        let mut batch = good.to_vec();
        batch[23..27].copy_from_slice(&3i32.to_be_bytes());
        batch[57..61].copy_from_slice(&4i32.to_be_bytes());
        sealed(batch)
    });
    row("count 0", with(57, &0i32.to_be_bytes()));
    row("gzip that is none", with(21, &1i16.to_be_bytes()));
    row("snappy that is none", with(21, &2i16.to_be_bytes()));
    row("lz4 that is none", with(21, &3i16.to_be_bytes()));
    row("zstd that is none", with(21, &4i16.to_be_bytes()));
    row("sequence -1 of producer 5", with(43, &5i64.to_be_bytes()));
    row("a record of another offset", {
        let mut builder = BatchBuilder::default();
        builder.push_at(0, NOW, None, None, &[]);
        builder.push_at(2, NOW, None, None, &[]);
        let mut batch = builder.build().to_vec();
        batch[23..27].copy_from_slice(&1i32.to_be_bytes());
        sealed(batch)
    });
    expect![[r#"
        good: taken: batch 0..=2 epoch 0
        no bytes: INVALID_RECORD []: at least one record batch is needed for each partition
        half a batch: INVALID_RECORD []: at least one record batch is needed for each partition
        two batches: INVALID_RECORD []: exactly one record batch is allowed for each partition
        a batch and a part: taken: batch 0..=2 epoch 0
        a batch and junk: taken: batch 0..=2 epoch 0
        a flipped bit: CORRUPT_MESSAGE: the batch's checksum does not fit its bytes
        magic 0: INVALID_RECORD []: only record batches with magic version 2 are allowed
        magic 1: INVALID_RECORD []: only record batches with magic version 2 are allowed
        magic 3: CORRUPT_MESSAGE: invalid magic 3
        magic -1: CORRUPT_MESSAGE: invalid magic -1
        length 10: CORRUPT_MESSAGE: a batch of length 10 is too short
        length -1: CORRUPT_MESSAGE: a batch of length -1 is too short
        a length too long: INVALID_RECORD []: at least one record batch is needed for each partition
        a length too short: CORRUPT_MESSAGE: the batch's checksum does not fit its bytes
        base offset 1: INVALID_RECORD []: the base offset must be 0, but it is 1
        control bit: INVALID_RECORD []: clients may not write control records
        codec 5: CORRUPT_MESSAGE: unknown codec
        last delta 1: INVALID_RECORD []: the last offset delta 1 does not fit 3 records
        count 2: INVALID_RECORD []: the last offset delta 2 does not fit 2 records
        count and delta say 2: INVALID_RECORD []: bytes remain after the last record
        count and delta say 4: INVALID_RECORD []: fewer records than counted
        count 0: INVALID_RECORD []: invalid record count 0
        gzip that is none: CORRUPT_MESSAGE: invalid gzip header
        snappy that is none: CORRUPT_MESSAGE: snappy: corrupt input (expected valid offset but got offset 97; dst position: 2)
        lz4 that is none: CORRUPT_MESSAGE: WrongMagicNumber
        zstd that is none: CORRUPT_MESSAGE: Unknown frame descriptor
        sequence -1 of producer 5: INVALID_RECORD []: invalid sequence -1 of producer 5
        a record of another offset: INVALID_RECORD []: record 1 does not have the next offset
    "#]].assert_eq(&table);
}

fn check(rules: &ValidationRules, records: Bytes, expect: Expect) {
    expect.assert_eq(&refusal(records, rules));
}

#[test]
fn settings_refuse_what_they_say() {
    check(
        &ValidationRules {
            max_message_bytes: 60,
            ..rules()
        },
        batch(&["a"]),
        expect!["MESSAGE_TOO_LARGE: 69 over 60"],
    );
    check(
        &ValidationRules {
            keys_required: true,
            ..rules()
        },
        batch(&["a", "b"]),
        expect![
            "INVALID_RECORD [0, 1]: One or more records have been rejected due to 2 record errors in total"
        ],
    );
    let mut builder = BatchBuilder::default();
    for ahead in [0, 3_600_001, -1, 3_600_000] {
        let at = if ahead < 0 {
            WallMs::NONE
        } else {
            WallMs(NOW.get() + ahead)
        };
        builder.push(at, None, None, &[]);
    }
    let records = builder.build();
    check(
        &rules(),
        records.clone(),
        expect!["INVALID_TIMESTAMP [1]: One or more records have been rejected due to invalid timestamp"],
    );
    check(
        &ValidationRules {
            timestamp_type: TimestampType::LogAppendTime,
            ..rules()
        },
        records,
        expect!["taken: batch 0..=3 epoch 0"],
    );
    check(
        &ValidationRules {
            timestamp_before_max_ms: 10,
            ..rules()
        },
        {
            let mut builder = BatchBuilder::default();
            builder.push(WallMs(NOW.get() - 11), None, None, &[]);
            builder.build()
        },
        expect!["INVALID_TIMESTAMP [0]: One or more records have been rejected due to invalid timestamp"],
    );
    let mut builder = BatchBuilder::new(Compression::Zstd(1));
    builder.push(NOW, None, Some(b"z"), &[]);
    check(
        &ValidationRules {
            zstd_allowed: false,
            ..rules()
        },
        builder.build(),
        expect!["UNSUPPORTED_COMPRESSION_TYPE: zstd needs version 7 of Produce"],
    );
}

fn stored(records: Bytes, rules: &ValidationRules) -> Batch {
    let bytes = ValidBatch::parse(records, rules)
        .unwrap()
        .to_bytes(Offset(0), LeaderEpoch(0));
    let batch = Batches::new(bytes).next().unwrap();
    assert!(batch.crc_is_good());
    batch
}

#[test]
fn the_stored_form_follows_the_topics_settings() {
    let records = with(35, &7i64.to_be_bytes());
    assert_eq!(
        stored(records, &rules()).header.max_timestamp(),
        WallMs(NOW.get() + 2),
        "a lie is corrected"
    );
    let records = with(21, &0x88i16.to_be_bytes());
    assert_eq!(
        stored(records, &rules()).header.attributes(),
        0x80,
        "LogAppendTime is the broker's to say"
    );

    let stamped = ValidationRules {
        timestamp_type: TimestampType::LogAppendTime,
        now: WallMs(99),
        ..rules()
    };
    let batch = stored(batch(&["a", "b"]), &stamped);
    assert!(batch.header.is_log_append_time());
    let times: Vec<_> = Records::all(&batch)
        .unwrap()
        .iter()
        .map(|record| record.timestamp)
        .collect();
    assert_eq!(times, [WallMs(99), WallMs(99)]);

    for source in [Compression::None, Compression::Gzip(1), Compression::Zstd(1)] {
        for (target, codec) in [
            (TargetCompression::Producer, source.codec()),
            (TargetCompression::None, Codec::None),
            (TargetCompression::Gzip(9), Codec::Gzip),
            (TargetCompression::Snappy, Codec::Snappy),
            (TargetCompression::Lz4(9), Codec::Lz4),
            (TargetCompression::Zstd(3), Codec::Zstd),
        ] {
            let mut builder = BatchBuilder::new(source);
            builder.push(NOW, Some(b"key"), Some(&[7; 500]), &[]);
            let records = builder.build();
            let before = Records::all(&Batches::new(records.clone()).next().unwrap()).unwrap();
            let batch = stored(
                records,
                &ValidationRules {
                    compression: target,
                    ..rules()
                },
            );
            assert_eq!(batch.header.codec(), Some(codec), "{source:?} to {target:?}");
            assert_eq!(Records::all(&batch).unwrap(), before);
        }
    }
}

/// `epoch:sequence+count` of producer 1, `!` a marker with that epoch.
fn idempotence(script: &str, expect: Expect) {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &LogConfig::default());
    let mut lines = String::new();
    for step in script.split_whitespace() {
        let (bytes, what) = match step.strip_prefix('!') {
            Some(epoch) => {
                let who = ProducerIdentity {
                    id: ProducerId(1),
                    epoch: ProducerEpoch(epoch.parse().unwrap()),
                };
                (end_transaction_marker(who, MarkerType::Commit, 0, NOW), "marker")
            }
            None => {
                let (epoch, rest) = step.split_once(':').unwrap();
                let (sequence, count) = rest.split_once('+').unwrap();
                let values = vec!["v"; count.parse().unwrap()];
                (
                    idempotent(1, epoch.parse().unwrap(), sequence.parse().unwrap(), &values),
                    "batch",
                )
            }
        };
        let batch = ValidBatch::internal(bytes).unwrap();
        let outcome = match log.append_as_leader(batch, LeaderEpoch(0), NOW) {
            Ok(Appended::New { base, last, .. }) => format!("new {base}..={last}"),
            Ok(Appended::Duplicate { base, last, .. }) => format!("duplicate of {base}..={last}"),
            Err(AppendError::OutOfOrderSequence { last, .. }) => format!("out of order after {last}"),
            Err(AppendError::InvalidProducerEpoch { current, .. }) => format!("fenced by epoch {current}"),
            Err(other) => other.to_string(),
        };
        lines.push_str(&format!("{what} {step}: {outcome}\n"));
    }
    expect.assert_eq(&lines);
}

#[test]
fn repetitions_gaps_and_old_instances_of_a_producer() {
    idempotence(
        "0:0+2 0:2+1 0:0+2 0:2+1 0:0+1 0:5+1 0:3+1",
        expect![[r#"
        batch 0:0+2: new 0..=1
        batch 0:2+1: new 2..=2
        batch 0:0+2: duplicate of 0..=1
        batch 0:2+1: duplicate of 2..=2
        batch 0:0+1: out of order after 2
        batch 0:5+1: out of order after 2
        batch 0:3+1: new 3..=3
    "#]],
    );
    // Five are remembered, the sixth is too old; any sequence may start.
    idempotence(
        "0:7+1 0:8+1 0:9+1 0:10+1 0:11+1 0:7+1 0:12+1 0:8+1 0:7+1",
        expect![[r#"
        batch 0:7+1: new 0..=0
        batch 0:8+1: new 1..=1
        batch 0:9+1: new 2..=2
        batch 0:10+1: new 3..=3
        batch 0:11+1: new 4..=4
        batch 0:7+1: duplicate of 0..=0
        batch 0:12+1: new 5..=5
        batch 0:8+1: duplicate of 1..=1
        batch 0:7+1: out of order after 12
    "#]],
    );
    idempotence(
        "3:0+1 2:1+1 4:1+1 4:0+1 3:1+1 4:1+1",
        expect![[r#"
        batch 3:0+1: new 0..=0
        batch 2:1+1: fenced by epoch 3
        batch 4:1+1: out of order after -1
        batch 4:0+1: new 1..=1
        batch 3:1+1: fenced by epoch 4
        batch 4:1+1: new 2..=2
    "#]],
    );
    idempotence(
        "0:2147483646+2 0:0+3 0:2147483646+2 0:0+3 0:1+1",
        expect![[r#"
        batch 0:2147483646+2: new 0..=1
        batch 0:0+3: new 2..=4
        batch 0:2147483646+2: duplicate of 0..=1
        batch 0:0+3: duplicate of 2..=4
        batch 0:1+1: out of order after 2
    "#]],
    );
    // A marker with a raised epoch begins anew (KIP-890); one with an old epoch is fenced.
    idempotence(
        "0:0+1 !1 0:1+1 1:1+1 1:0+1 !0",
        expect![[r#"
        batch 0:0+1: new 0..=0
        marker !1: new 1..=1
        batch 0:1+1: fenced by epoch 1
        batch 1:1+1: out of order after -1
        batch 1:0+1: new 2..=2
        marker !0: fenced by epoch 1
    "#]],
    );
}

#[test]
fn a_producer_is_forgotten_when_it_was_silent_for_long() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &LogConfig::default());
    append(&mut log, idempotent(1, 0, 0, &["a"]), 0);
    let day_ms = 86_400_000;
    let known_at = |log: &mut skerry_log::Log, ms| {
        log.expire_producers(Instant::from_millis(ms));
        log.producers().count()
    };
    assert_eq!(
        known_at(&mut log, 5_000),
        1,
        "who is met for the first time has only just written"
    );
    assert_eq!(known_at(&mut log, 5_000 + day_ms - 1), 1);
    append(&mut log, idempotent(1, 0, 1, &["b"]), 0);
    // Its records have the timestamps that it likes, and the wall clock may be anywhere.
    assert_eq!(known_at(&mut log, 5_000 + day_ms), 1, "it has written since");
    assert_eq!(known_at(&mut log, 5_000 + 2 * day_ms - 1), 1);
    assert_eq!(known_at(&mut log, 5_000 + 2 * day_ms), 0);
}
