//! Values of settings as they are now: what the node was given at its start, and what was changed since through the
//! metadata.

use std::sync::Arc;

use arc_swap::ArcSwap;
use skerry_log::{CleanupPolicy, LogConfig, TargetCompression, TimestampType};
use skerry_metadata_state::{ConfigMap, ConfigResource, Image, Partition, Topic};
use skerry_types::{BrokerId, PartitionIndex};

use crate::config::{BrokerConfig, BrokerLayers, FlushRule, TopicConfig};
use crate::partition::{Durability, PartitionSettings, Throttled};
use crate::topics;

/// The settings of this broker.
pub struct Settings {
    me: BrokerId,
    /// Given at the start.
    given: ConfigMap,
    changed: ArcSwap<Changed>,
    broker: ArcSwap<BrokerConfig>,
}

/// What was changed while brokers run.
#[derive(Default)]
struct Changed {
    own: Arc<ConfigMap>,
    cluster: Arc<ConfigMap>,
}

impl Settings {
    /// The settings of broker `me`, which was given `given` at its start.
    #[must_use]
    pub fn new(me: BrokerId, given: ConfigMap) -> Self {
        let broker = BrokerConfig::resolve(BrokerLayers::given(&given));
        Self {
            me,
            given,
            changed: ArcSwap::default(),
            broker: ArcSwap::from_pointee(broker),
        }
    }

    /// Takes over what a new image says.
    pub fn follow(&self, image: &Image) {
        let changed = self.changed.load();
        let of = |resource| image.config(&resource).cloned().unwrap_or_default();
        let (own, cluster) = (
            of(ConfigResource::Broker(self.me)),
            of(ConfigResource::ClusterDefault),
        );
        if *own != *changed.own || *cluster != *changed.cluster {
            self.changed.store(Arc::new(Changed { own, cluster }));
            self.broker
                .store(Arc::new(self.with_layers(BrokerConfig::resolve)));
        }
    }

    /// Runs `look` on the layers of this broker's settings.
    pub fn with_layers<T>(&self, look: impl FnOnce(BrokerLayers<'_>) -> T) -> T {
        let changed = self.changed.load();
        look(BrokerLayers {
            own: &changed.own,
            cluster: &changed.cluster,
            given: &self.given,
        })
    }

    /// This broker's settings, typed.
    #[must_use]
    pub fn broker(&self) -> Arc<BrokerConfig> {
        self.broker.load_full()
    }

    /// A topic's settings as its partitions use them.
    #[must_use]
    pub fn of(
        &self,
        image: &Image,
        topic: &Topic,
        index: PartitionIndex,
        partition: &Partition,
    ) -> Arc<PartitionSettings> {
        self.follow(image);
        let config = self.with_layers(|layers| TopicConfig::resolve(&topic.configs, layers));
        let min_in_sync = usize::try_from(config.min_insync_replicas)
            .unwrap_or(1)
            .clamp(1, partition.replicas.len().max(1))
            // Not less than the metadata counts by: an eligible replica would lack what was acknowledged (KIP-966).
            .max(image.min_insync_replicas(topic, partition));
        Arc::new(PartitionSettings {
            log: log_config(
                &config,
                i64::try_from(self.broker().producer_id_expiration.as_millis()).unwrap_or(i64::MAX),
            ),
            durability: match config.flush {
                FlushRule::Durable => Durability::BeforeAcknowledgement,
                FlushRule::AsKafka { messages, ms } => Durability::Kafka {
                    flush_messages: i64::try_from(messages).unwrap_or(i64::MAX),
                    flush_ms: i64::try_from(ms).unwrap_or(i64::MAX),
                },
            },
            min_in_sync,
            internal: topics::is_internal(&topic.name),
            throttled: Throttled {
                leader: self.is_listed(topic, "leader.replication.throttled.replicas", index),
                follower: self.is_listed(topic, "follower.replication.throttled.replicas", index),
            },
        })
    }
}

impl Settings {
    /// Is this broker's replica in a list of `partition:broker` pairs, or all of them?
    fn is_listed(&self, topic: &Topic, key: &str, index: PartitionIndex) -> bool {
        let Some(list) = topic.configs.get(key) else {
            return false;
        };
        let me = (index.get(), self.me.get());
        list.split(',').map(str::trim).any(|pair| {
            let parsed = pair.split_once(':').and_then(|(partition, broker)| {
                Some((partition.trim().parse().ok()?, broker.trim().parse().ok()?))
            });
            pair == "*" || parsed == Some(me)
        })
    }
}

fn log_config(config: &TopicConfig, producer_id_expiration_ms: i64) -> LogConfig {
    LogConfig {
        segment_bytes: config.segment_bytes,
        segment_ms: config.segment_ms,
        segment_jitter_ms: config.segment_jitter_ms,
        segment_index_bytes: config.segment_index_bytes,
        index_interval_bytes: config.index_interval_bytes,
        max_message_bytes: config.max_message_bytes,
        timestamp_type: if config.log_append_time {
            TimestampType::LogAppendTime
        } else {
            TimestampType::CreateTime
        },
        timestamp_before_max_ms: config.timestamp_before_max_ms,
        timestamp_after_max_ms: config.timestamp_after_max_ms,
        retention_ms: config.retention_ms,
        retention_bytes: config.retention_bytes,
        delete_retention_ms: config.delete_retention_ms,
        min_compaction_lag_ms: config.min_compaction_lag_ms,
        max_compaction_lag_ms: config.max_compaction_lag_ms,
        min_cleanable_dirty_ratio: config.min_cleanable_dirty_ratio,
        cleanup_policy: CleanupPolicy {
            delete: config.cleanup_delete,
            compact: config.cleanup_compact,
        },
        compression: match config.compression_type.as_str() {
            "uncompressed" => TargetCompression::None,
            "gzip" => TargetCompression::Gzip(config.gzip_level),
            "snappy" => TargetCompression::Snappy,
            "lz4" => TargetCompression::Lz4(config.lz4_level),
            "zstd" => TargetCompression::Zstd(config.zstd_level),
            _ => TargetCompression::Producer,
        },
        producer_id_expiration_ms,
        file_delete_delay_ms: config.file_delete_delay_ms,
    }
}
