use skerry_types::WallMs;

use crate::validate::ValidationRules;

/// Which timestamp a record carries (`message.timestamp.type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at the append.
    LogAppendTime,
}

/// What happens to old records (`cleanup.policy`). Neither: they stay for ever (KIP-1214).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// Old segments are deleted.
    pub delete: bool,
    /// The last record of each key stays.
    pub compact: bool,
}

/// `compression.type` with its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetCompression {
    /// Whatever the producer chose: a batch is stored as it came.
    Producer,
    /// `uncompressed`.
    None,
    /// Level -1 or 1 to 9.
    Gzip(i32),
    /// Has no level.
    Snappy,
    /// The level (1 to 17) is kept but has no effect: the encoder knows one.
    Lz4(i32),
    /// Level -131072 to 22.
    Zstd(i32),
}

/// A topic's settings as far as its log needs them, under Kafka's names. The default is Kafka's.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// A segment is closed before it would grow over this.
    pub segment_bytes: u32,
    /// A segment is closed when its records span this much time.
    pub segment_ms: i64,
    /// At most this much is taken off `segment_ms`, so that not all partitions roll at once.
    pub segment_jitter_ms: i64,
    /// The largest size of an index file; a segment whose index is full is closed.
    pub segment_index_bytes: u32,
    /// Bytes of log between two index entries.
    pub index_interval_bytes: u32,
    /// The largest batch.
    pub max_message_bytes: u32,
    /// Whose timestamps.
    pub timestamp_type: TimestampType,
    /// How far a timestamp may lie in the past.
    pub timestamp_before_max_ms: i64,
    /// How far a timestamp may lie in the future.
    pub timestamp_after_max_ms: i64,
    /// A segment whose newest record is older is deleted; `None`: never.
    pub retention_ms: Option<i64>,
    /// The oldest segments are deleted while the rest is at least this large; `None`: never.
    pub retention_bytes: Option<u64>,
    /// How long tombstones and transaction markers outlive their first cleaning.
    pub delete_retention_ms: i64,
    /// Younger segments are not cleaned.
    pub min_compaction_lag_ms: i64,
    /// Older records are cleaned whatever the dirty ratio is.
    pub max_compaction_lag_ms: i64,
    /// The share of bytes not yet cleaned from which on a log is cleaned.
    pub min_cleanable_dirty_ratio: f64,
    /// What happens to old records.
    pub cleanup_policy: CleanupPolicy,
    /// How batches are stored.
    pub compression: TargetCompression,
    /// A producer that has not written for so long is forgotten.
    pub producer_id_expiration_ms: i64,
    /// Retired files stay this long under the name `*.deleted`.
    pub file_delete_delay_ms: i64,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 604_800_000,
            segment_jitter_ms: 0,
            segment_index_bytes: 10_485_760,
            index_interval_bytes: 4096,
            max_message_bytes: 1_048_588,
            timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            retention_ms: Some(604_800_000),
            retention_bytes: None,
            delete_retention_ms: 86_400_000,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            cleanup_policy: CleanupPolicy {
                delete: true,
                compact: false,
            },
            compression: TargetCompression::Producer,
            producer_id_expiration_ms: 86_400_000,
            file_delete_delay_ms: 60_000,
        }
    }
}

impl LogConfig {
    /// What a producer's batch must satisfy here. `zstd_allowed`: its Produce request has version 7 or later.
    #[must_use]
    pub fn validation_rules(&self, now: WallMs, zstd_allowed: bool) -> ValidationRules {
        ValidationRules {
            max_message_bytes: self.max_message_bytes,
            timestamp_type: self.timestamp_type,
            timestamp_before_max_ms: self.timestamp_before_max_ms,
            timestamp_after_max_ms: self.timestamp_after_max_ms,
            keys_required: self.cleanup_policy.compact,
            compression: self.compression,
            now,
            zstd_allowed,
        }
    }
}
