//! A topic's settings, typed.

use super::effective::{BrokerLayers, ConfigMap, effective};
use super::row::Scope;
use super::table;

/// When a producer with `acks=all` hears of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushRule {
    /// When they are on stable storage. What every topic has that does not ask for less.
    Durable,
    /// When they are replicated in memory, as in Kafka: the topic sets `flush.messages` or `flush.ms` itself.
    AsKafka {
        /// A flush is due after so many records; 1 flushes before each acknowledgement.
        messages: u64,
        /// A flush is due after so many milliseconds.
        ms: u64,
    },
}

/// Everything that can be set for a topic, resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy` contains `delete`.
    pub cleanup_delete: bool,
    /// `cleanup.policy` contains `compact`.
    pub cleanup_compact: bool,
    /// `compression.type`.
    pub compression_type: String,
    /// `compression.gzip.level`.
    pub gzip_level: i32,
    /// `compression.lz4.level`.
    pub lz4_level: i32,
    /// `compression.zstd.level`.
    pub zstd_level: i32,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `file.delete.delay.ms`.
    pub file_delete_delay_ms: i64,
    /// `flush.messages` and `flush.ms`.
    pub flush: FlushRule,
    /// `index.interval.bytes`.
    pub index_interval_bytes: u32,
    /// `max.compaction.lag.ms`.
    pub max_compaction_lag_ms: i64,
    /// `max.message.bytes`.
    pub max_message_bytes: u32,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub log_append_time: bool,
    /// `min.cleanable.dirty.ratio`.
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`.
    pub min_compaction_lag_ms: i64,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// `retention.bytes`; `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`; `None`: no limit.
    pub retention_ms: Option<i64>,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.index.bytes`.
    pub segment_index_bytes: u32,
    /// `segment.jitter.ms`.
    pub segment_jitter_ms: i64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `unclean.leader.election.enable`.
    pub unclean_leader_election: bool,
}

impl TopicConfig {
    /// The settings of a topic that overrides `own`, on a broker with the settings `broker`.
    #[must_use]
    pub fn resolve(own: &ConfigMap, broker: BrokerLayers<'_>) -> Self {
        let values = Values { own, broker };
        let u32 = |key| u32::try_from(values.long(key)).unwrap_or(u32::MAX);
        let i32 = |key| i32::try_from(values.long(key)).unwrap_or(i32::MAX);
        let limit = |key| Some(values.long(key)).filter(|limit| *limit >= 0);
        let policy = values.text("cleanup.policy");
        Self {
            cleanup_delete: super::value::items(&policy).any(|item| item == "delete"),
            cleanup_compact: super::value::items(&policy).any(|item| item == "compact"),
            compression_type: values.text("compression.type"),
            gzip_level: i32("compression.gzip.level"),
            lz4_level: i32("compression.lz4.level"),
            zstd_level: i32("compression.zstd.level"),
            delete_retention_ms: values.long("delete.retention.ms"),
            file_delete_delay_ms: values.long("file.delete.delay.ms"),
            flush: values.flush_rule(),
            index_interval_bytes: u32("index.interval.bytes"),
            max_compaction_lag_ms: values.long("max.compaction.lag.ms"),
            max_message_bytes: u32("max.message.bytes"),
            timestamp_after_max_ms: values.long("message.timestamp.after.max.ms"),
            timestamp_before_max_ms: values.long("message.timestamp.before.max.ms"),
            log_append_time: values.text("message.timestamp.type") == "LogAppendTime",
            min_cleanable_dirty_ratio: values.text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            min_compaction_lag_ms: values.long("min.compaction.lag.ms"),
            min_insync_replicas: i32("min.insync.replicas"),
            retention_bytes: limit("retention.bytes").and_then(|bytes| u64::try_from(bytes).ok()),
            retention_ms: limit("retention.ms"),
            segment_bytes: u32("segment.bytes"),
            segment_index_bytes: u32("segment.index.bytes"),
            segment_jitter_ms: values.long("segment.jitter.ms"),
            segment_ms: values.long("segment.ms"),
            unclean_leader_election: values.text("unclean.leader.election.enable") == "true",
        }
    }
}

impl Default for TopicConfig {
    /// What a topic has that overrides nothing, on a broker that was given nothing.
    fn default() -> Self {
        Self::resolve(&ConfigMap::new(), BrokerLayers::default())
    }
}

struct Values<'a> {
    own: &'a ConfigMap,
    broker: BrokerLayers<'a>,
}

impl Values<'_> {
    /// Every stored value was checked when it was set: what does not parse was stored by a newer version, and the
    /// default is the best guess.
    fn text(&self, key: &str) -> String {
        let row = table::row(Scope::Topic, key).expect("a declared setting");
        let value = effective(row, self.own, self.broker);
        row.parse(&value)
            .unwrap_or_else(|_| row.default.unwrap_or("").to_owned())
    }

    fn long(&self, key: &str) -> i64 {
        self.text(key).parse().unwrap_or(0)
    }

    /// A broker-wide log.flush.interval.* alone weakens nothing: the weaker rule is chosen for a topic, by name.
    fn flush_rule(&self) -> FlushRule {
        let chosen = ["flush.messages", "flush.ms"]
            .iter()
            .any(|key| self.own.contains_key(*key));
        if !chosen {
            return FlushRule::Durable;
        }
        let number = |key| u64::try_from(self.long(key)).unwrap_or(0);
        FlushRule::AsKafka {
            messages: number("flush.messages").max(1),
            ms: number("flush.ms"),
        }
    }
}
