//! A broker's settings, typed.

use std::time::Duration;

use super::effective::{BrokerLayers, ConfigMap};
use super::row::{Scope, Unit};
use super::table::{self, ms_per};

/// A type that a setting's text becomes. Every stored value was checked when it was set, so that nothing here fails.
trait Typed: Sized {
    fn typed(text: Option<&str>, unit: Unit) -> Self;
}

fn number(text: Option<&str>) -> i64 {
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

impl Typed for bool {
    fn typed(text: Option<&str>, _: Unit) -> Self {
        text == Some("true")
    }
}

impl Typed for i32 {
    fn typed(text: Option<&str>, _: Unit) -> Self {
        i32::try_from(number(text)).unwrap_or(i32::MAX)
    }
}

impl Typed for u32 {
    fn typed(text: Option<&str>, _: Unit) -> Self {
        u32::try_from(number(text).max(0)).unwrap_or(u32::MAX)
    }
}

impl Typed for i64 {
    fn typed(text: Option<&str>, _: Unit) -> Self {
        number(text)
    }
}

impl Typed for u64 {
    fn typed(text: Option<&str>, _: Unit) -> Self {
        u64::try_from(number(text)).unwrap_or(0)
    }
}

impl Typed for f64 {
    fn typed(text: Option<&str>, _: Unit) -> Self {
        text.and_then(|text| text.parse().ok()).unwrap_or(0.0)
    }
}

impl Typed for Duration {
    fn typed(text: Option<&str>, unit: Unit) -> Self {
        Duration::from_millis(u64::typed(text, unit).saturating_mul(ms_per(unit).unsigned_abs()))
    }
}

impl Typed for Option<String> {
    fn typed(text: Option<&str>, _: Unit) -> Self {
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    }
}

impl Typed for String {
    fn typed(text: Option<&str>, _: Unit) -> Self {
        text.unwrap_or("").to_owned()
    }
}

macro_rules! broker_config {
    ($($field:ident: $type:ty = $key:literal,)*) => {
        /// What the code asks of a broker's settings, resolved. Resolved again whenever the metadata changes them.
        #[derive(Clone, Debug, PartialEq)]
        pub struct BrokerConfig {
            $(#[doc = concat!("`", $key, "`.")] pub $field: $type,)*
        }

        impl BrokerConfig {
            /// The settings of a broker.
            #[must_use]
            pub fn resolve(layers: BrokerLayers<'_>) -> Self {
                Self { $($field: setting(layers, $key),)* }
            }
        }
    };
}

fn setting<T: Typed>(layers: BrokerLayers<'_>, key: &str) -> T {
    let row = table::row(Scope::Broker, key).expect("a declared setting");
    T::typed(layers.get(key).map(|(value, _)| value), row.unit)
}

broker_config! {
    auto_create_topics: bool = "auto.create.topics.enable",
    num_partitions: i32 = "num.partitions",
    default_replication_factor: i32 = "default.replication.factor",
    delete_topic_enable: bool = "delete.topic.enable",
    max_request_partitions: i32 = "max.request.partition.size.limit",
    socket_request_max_bytes: u32 = "socket.request.max.bytes",
    fetch_max_bytes: u32 = "fetch.max.bytes",
    fetch_session_slots: u32 = "max.incremental.fetch.session.cache.slots",
    connections_max_idle: Duration = "connections.max.idle.ms",
    max_connections: u32 = "max.connections",
    max_connections_per_ip: u32 = "max.connections.per.ip",
    max_connections_per_ip_overrides: String = "max.connections.per.ip.overrides",
    max_connection_creation_rate: u32 = "max.connection.creation.rate",
    request_timeout: Duration = "request.timeout.ms",
    replica_selector_class: Option<String> = "replica.selector.class",
    retention_check_interval: Duration = "log.retention.check.interval.ms",
    cleaner_threads: u32 = "log.cleaner.threads",
    cleaner_backoff: Duration = "log.cleaner.backoff.ms",
    cleaner_dedupe_buffer_bytes: u64 = "log.cleaner.dedupe.buffer.size",
    cleaner_io_max_bytes_per_second: f64 = "log.cleaner.io.max.bytes.per.second",
    scrub_bytes_per_second: u64 = "log.scrub.io.max.bytes.per.second",
    scrub_interval: Duration = "log.scrub.interval.ms",
    flush_offset_checkpoint_interval: Duration = "log.flush.offset.checkpoint.interval.ms",
    flush_start_offset_checkpoint_interval: Duration = "log.flush.start.offset.checkpoint.interval.ms",
    producer_id_expiration: Duration = "producer.id.expiration.ms",
    heartbeat_interval: Duration = "broker.heartbeat.interval.ms",
    session_timeout: Duration = "broker.session.timeout.ms",
    quorum_fetch_timeout: Duration = "controller.quorum.fetch.timeout.ms",
    initial_registration_timeout: Duration = "initial.broker.registration.timeout.ms",
    auto_leader_rebalance: bool = "auto.leader.rebalance.enable",
    leader_imbalance_check_interval: Duration = "leader.imbalance.check.interval.seconds",
    controlled_shutdown: bool = "controlled.shutdown.enable",
    replica_lag_time_max: Duration = "replica.lag.time.max.ms",
    replica_fetch_max_bytes: u32 = "replica.fetch.max.bytes",
    replica_fetch_response_max_bytes: u32 = "replica.fetch.response.max.bytes",
    leader_throttled_rate: u64 = "leader.replication.throttled.rate",
    follower_throttled_rate: u64 = "follower.replication.throttled.rate",
    high_watermark_checkpoint_interval: Duration = "replica.high.watermark.checkpoint.interval.ms",
    offsets_topic_partitions: i32 = "offsets.topic.num.partitions",
    offsets_topic_replication_factor: i32 = "offsets.topic.replication.factor",
    offsets_topic_segment_bytes: u32 = "offsets.topic.segment.bytes",
    offsets_load_buffer_bytes: u32 = "offsets.load.buffer.size",
    offsets_retention: Duration = "offsets.retention.minutes",
    offsets_retention_check_interval: Duration = "offsets.retention.check.interval.ms",
    offsets_commit_timeout: Duration = "offsets.commit.timeout.ms",
    offset_metadata_max_bytes: u32 = "offset.metadata.max.bytes",
    group_initial_rebalance_delay: Duration = "group.initial.rebalance.delay.ms",
    group_min_session_timeout: Duration = "group.min.session.timeout.ms",
    group_max_session_timeout: Duration = "group.max.session.timeout.ms",
    group_max_size: u32 = "group.max.size",
}

impl Default for BrokerConfig {
    /// What a broker has that was given nothing.
    fn default() -> Self {
        Self::resolve(BrokerLayers::given(&ConfigMap::new()))
    }
}
