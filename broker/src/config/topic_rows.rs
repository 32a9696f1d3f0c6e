//! The settings of a topic. Names, types, defaults and the broker settings behind them are those of Kafka 4.3.

use super::row::{Kind, Row, Scope, Synonym, Unit};

const I32: i32 = i32::MAX;
const I64: i64 = i64::MAX;

/// The switches of `compression.type`.
pub(super) const COMPRESSIONS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

const NO_TIERS: &str = "Skerry has no tiered storage yet";

const fn row(key: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Scope::Topic, key, kind, default)
}

const fn same(key: &'static str, default: &'static str) -> Synonym {
    Synonym {
        key,
        unit: None,
        default: Some(default),
    }
}

const fn unset(key: &'static str, unit: Option<Unit>) -> Synonym {
    Synonym {
        key,
        unit,
        default: None,
    }
}

const fn hours(key: &'static str, default: &'static str) -> Synonym {
    Synonym {
        key,
        unit: Some(Unit::Hours),
        default: Some(default),
    }
}

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row("cleanup.policy", Kind::ListOf(&["compact", "delete"]), "delete")
        .falls_back_on(&[same("log.cleanup.policy", "delete")])
        .doc("What happens to old records: delete removes segments by age and size, compact keeps the last record of \
              each key, both do both, and an empty list keeps everything."),
    row("compression.gzip.level", Kind::GzipLevel, "-1")
        .falls_back_on(&[same("compression.gzip.level", "-1")])
        .doc("The level where compression.type is gzip; -1 is the codec's own choice."),
    row("compression.lz4.level", Kind::Int(1, 17), "9")
        .falls_back_on(&[same("compression.lz4.level", "9")])
        .inert("Skerry's encoder has one level")
        .doc("The level where compression.type is lz4."),
    row("compression.type", Kind::Choice(COMPRESSIONS), "producer")
        .falls_back_on(&[same("compression.type", "producer")])
        .doc("How batches are stored. producer keeps them as they came and costs nothing; anything else compresses \
              each batch again that came otherwise."),
    row("compression.zstd.level", Kind::Int(-131_072, 22), "3")
        .falls_back_on(&[same("compression.zstd.level", "3")])
        .doc("The level where compression.type is zstd."),
    row("delete.retention.ms", Kind::Long(0, I64), "86400000").ms()
        .falls_back_on(&[same("log.cleaner.delete.retention.ms", "86400000")])
        .doc("How long a compacted topic keeps tombstones and transaction markers after the first cleaning, so that \
              a reader that started before can see them."),
    row("file.delete.delay.ms", Kind::Long(0, I64), "60000").ms()
        .falls_back_on(&[same("log.segment.delete.delay.ms", "60000")])
        .doc("How long a retired segment's files stay under the name *.deleted, for readers that still use them."),
    row("flush.messages", Kind::Long(1, I64), "9223372036854775807").unit(Unit::Messages)
        .falls_back_on(&[same("log.flush.interval.messages", "9223372036854775807")])
        .doc("Skerry acknowledges acks=all when the records are on stable storage. A topic that sets flush.messages \
              or flush.ms itself chooses Kafka's weaker rule instead: acknowledged when replicated in memory, flushed \
              after so many records. 1 flushes before each acknowledgement."),
    row("flush.ms", Kind::Long(0, I64), "9223372036854775807").ms()
        .falls_back_on(&[unset("log.flush.interval.ms", None), same("log.flush.scheduler.interval.ms", "9223372036854775807")])
        .doc("As flush.messages, after so much time: a topic that sets it chooses Kafka's weaker rule, where a power \
              cut can take what was acknowledged in the last flush.ms."),
    row("follower.replication.throttled.replicas", Kind::ThrottledReplicas, "")
        .doc("The replicas whose followers fetch no faster than the replication quota."),
    row("index.interval.bytes", Kind::Int(0, I32), "4096").bytes()
        .falls_back_on(&[same("log.index.interval.bytes", "4096")])
        .doc("How much log lies between two entries of the offset index. Less makes reads land closer and the index \
              larger."),
    row("leader.replication.throttled.replicas", Kind::ThrottledReplicas, "")
        .doc("The replicas whose leaders send no faster than the replication quota."),
    row("local.retention.bytes", Kind::Long(-2, I64), "-2").bytes()
        .falls_back_on(&[same("log.local.retention.bytes", "-2")])
        .inert(NO_TIERS)
        .doc("How much stays on the local disk where older segments live elsewhere; -2: as retention.bytes."),
    row("local.retention.ms", Kind::Long(-2, I64), "-2").ms()
        .falls_back_on(&[same("log.local.retention.ms", "-2")])
        .inert(NO_TIERS)
        .doc("How long segments stay on the local disk where older ones live elsewhere; -2: as retention.ms."),
    row("max.compaction.lag.ms", Kind::Long(1, I64), "9223372036854775807").ms()
        .falls_back_on(&[same("log.cleaner.max.compaction.lag.ms", "9223372036854775807")])
        .doc("A record that is older than this is compacted however clean the log is."),
    row("max.message.bytes", Kind::Int(0, I32), "1048588").bytes()
        .falls_back_on(&[same("message.max.bytes", "1048588")])
        .doc("The largest batch that a producer may send, as it is stored, compressed or not."),
    row("message.timestamp.after.max.ms", Kind::Long(0, I64), "3600000").ms()
        .falls_back_on(&[same("log.message.timestamp.after.max.ms", "3600000")])
        .doc("How far a record's timestamp may lie in the future. Retention looks at timestamps: one far ahead would \
              keep its segment for ever."),
    row("message.timestamp.before.max.ms", Kind::Long(0, I64), "9223372036854775807").ms()
        .falls_back_on(&[same("log.message.timestamp.before.max.ms", "9223372036854775807")])
        .doc("How far a record's timestamp may lie in the past."),
    row("message.timestamp.type", Kind::Choice(&["CreateTime", "LogAppendTime"]), "CreateTime")
        .falls_back_on(&[same("log.message.timestamp.type", "CreateTime")])
        .doc("Whose clock stamps a record: the producer's, or the broker's at the append."),
    row("min.cleanable.dirty.ratio", Kind::Double(0.0, 1.0), "0.5")
        .falls_back_on(&[same("log.cleaner.min.cleanable.ratio", "0.5")])
        .doc("A compacted log is cleaned when at least this share of it has not been cleaned yet."),
    row("min.compaction.lag.ms", Kind::Long(0, I64), "0").ms()
        .falls_back_on(&[same("log.cleaner.min.compaction.lag.ms", "0")])
        .doc("A record stays uncompacted for at least this long."),
    row("min.insync.replicas", Kind::Int(1, I32), "1")
        .falls_back_on(&[same("min.insync.replicas", "1")])
        .doc("How many in-sync replicas must have a record before a producer with acks=all hears of it. With fewer \
              left, such producers get NOT_ENOUGH_REPLICAS."),
    row("preallocate", Kind::Boolean, "false")
        .falls_back_on(&[same("log.preallocate", "false")])
        .inert("segments grow as they are written")
        .doc("Reserve a segment's whole size on the disk when it is made."),
    row("remote.log.copy.disable", Kind::Boolean, "false").inert(NO_TIERS)
        .doc("Copy no further segments to remote storage."),
    row("remote.log.delete.on.disable", Kind::Boolean, "false").inert(NO_TIERS)
        .doc("Delete what lies in remote storage when remote storage is switched off."),
    row("remote.storage.enable", Kind::Boolean, "false").default_only(NO_TIERS)
        .doc("Move older segments to remote storage."),
    row("retention.bytes", Kind::Long(-1, I64), "-1").bytes()
        .falls_back_on(&[same("log.retention.bytes", "-1")])
        .doc("The oldest segments of a partition are deleted while the rest is at least this large; -1: no limit."),
    row("retention.ms", Kind::Long(-1, I64), "604800000").ms()
        .falls_back_on(&[unset("log.retention.ms", None), unset("log.retention.minutes", Some(Unit::Minutes)), hours("log.retention.hours", "168")])
        .doc("A segment is deleted when its newest record is older than this; -1: never."),
    row("segment.bytes", Kind::Int(1_048_576, I32), "1073741824").bytes()
        .falls_back_on(&[same("log.segment.bytes", "1073741824")])
        .doc("A segment is closed before it would grow over this. Retention and compaction work on closed segments."),
    row("segment.index.bytes", Kind::Int(4, I32), "10485760").bytes()
        .falls_back_on(&[same("log.index.size.max.bytes", "10485760")])
        .doc("A segment is closed when one of its indexes has grown to this."),
    row("segment.jitter.ms", Kind::Long(0, I64), "0").ms()
        .falls_back_on(&[unset("log.roll.jitter.ms", None), hours("log.roll.jitter.hours", "0")])
        .doc("A random time up to this is taken off segment.ms, so that not all partitions roll at once."),
    row("segment.ms", Kind::Long(1, I64), "604800000").ms()
        .falls_back_on(&[unset("log.roll.ms", None), hours("log.roll.hours", "168")])
        .doc("A segment is closed when it is this old, full or not, so that retention can have it."),
    row("unclean.leader.election.enable", Kind::Boolean, "false")
        .falls_back_on(&[same("unclean.leader.election.enable", "false")])
        .doc("Let a replica lead that may lack acknowledged records when no other is left. They are then lost."),
];

/// Settings that Kafka 4.0 removed. Older tools still send them when they create a topic: they are accepted and
/// forgotten.
pub(super) const REMOVED: &[&str] = &[
    "message.format.version",
    "message.timestamp.difference.max.ms",
    "message.downconversion.enable",
];
