//! What the node counts, under Prometheus names with their units.
//!
//! Labels are bounded: API names, never topics, groups or clients.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use kafka_protocol::messages::ApiKey;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Which API a request was for.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct ApiLabel {
    api: &'static str,
}

/// The node's counters.
#[derive(Default)]
pub struct Metrics {
    /// Kafka connections accepted since the start.
    pub connections_accepted: Counter,
    /// Kafka connections open now.
    pub connections_open: Gauge,
    /// Requests by API.
    requests: Family<ApiLabel, Counter>,
    /// Batches appended by producers.
    pub produced_batches: Counter,
    /// Bytes of those batches.
    pub produced_bytes: Counter,
    /// Bytes of batches sent to consumers.
    pub fetched_bytes: Counter,
    /// Appends refused.
    pub produce_errors: Counter,
    /// Syncs of the disk, each for everything that waited for it.
    pub flushes: Counter,
    /// What the syncs took.
    flush_seconds: Counter<f64, AtomicU64>,
    /// How long each sync took.
    flush_duration: FlushHistogram,
    /// Partitions that this broker leads.
    pub partitions_led: Gauge,
    /// Partitions that cannot be served.
    pub partitions_offline: Gauge,
    /// Partitions that are served although a part of them is damaged.
    pub partitions_damaged: Gauge,
    /// Damage that was found in copies here, each once.
    pub damage_found: Counter,
    /// Bytes of all logs.
    pub log_bytes: Gauge,
    /// Bytes of the memory budget in use.
    pub memory_budget_used_bytes: Gauge,
    /// Bytes that the disk has free.
    pub disk_free_bytes: Gauge,
    /// Consumer groups that this broker coordinates.
    pub groups: Gauge,
    /// What goes between brokers.
    pub replication: ReplicationMetrics,
    /// What the scrub has read.
    pub scrub: ScrubMetrics,
}

/// How far the scrub is, which reads all that is kept and compares it with its sums.
#[derive(Default)]
pub struct ScrubMetrics {
    /// Bytes read.
    pub read_bytes: Counter,
    /// Rounds ended.
    pub rounds: Counter,
    /// Partitions that this round has not come to; 0 between two rounds.
    pub partitions_left: Gauge,
}

impl ScrubMetrics {
    fn register(&self, r: &mut Registry) {
        r.register_with_unit(
            "scrub_read",
            "Bytes that the scrub has read and checked",
            Unit::Bytes,
            self.read_bytes.clone(),
        );
        r.register(
            "scrub_rounds",
            "How often the scrub has read everything",
            self.rounds.clone(),
        );
        r.register(
            "scrub_partitions_left",
            "Partitions that the scrub has not come to in this round",
            self.partitions_left.clone(),
        );
    }
}

/// What is counted of replication.
#[derive(Default)]
pub struct ReplicationMetrics {
    /// Bytes of batches sent to followers.
    pub sent_bytes: Counter,
    /// Bytes of batches received from leaders.
    pub received_bytes: Counter,
    /// Streams of brokers that follow this one.
    pub streams_out: Gauge,
    /// Partitions that this broker follows.
    pub partitions_followed: Gauge,
    /// Those of them that are sent nothing now: their leader is not reached, refuses, or their log is being cut.
    pub partitions_waiting: Gauge,
    /// Partitions led here with fewer replicas in sync than they have.
    pub under_replicated: Gauge,
    /// Records that the follower which is furthest behind lacks, over all partitions led here.
    pub lag_records_max: Gauge,
}

impl ReplicationMetrics {
    fn register(&self, r: &mut Registry) {
        r.register_with_unit(
            "replication_sent",
            "Bytes sent to followers",
            Unit::Bytes,
            self.sent_bytes.clone(),
        );
        r.register_with_unit(
            "replication_received",
            "Bytes received from leaders",
            Unit::Bytes,
            self.received_bytes.clone(),
        );
        r.register(
            "replication_streams_out",
            "Streams of brokers that follow this one",
            self.streams_out.clone(),
        );
        r.register(
            "partitions_followed",
            "Partitions that this broker follows",
            self.partitions_followed.clone(),
        );
        r.register(
            "partitions_waiting_for_leader",
            "Followed partitions that are sent nothing now",
            self.partitions_waiting.clone(),
        );
        r.register(
            "partitions_under_replicated",
            "Led partitions with fewer replicas in sync than they have",
            self.under_replicated.clone(),
        );
        r.register(
            "replication_lag_records_max",
            "Records that the furthest follower lacks, over all led partitions",
            self.lag_records_max.clone(),
        );
    }
}

struct FlushHistogram(Histogram);

impl Default for FlushHistogram {
    fn default() -> Self {
        Self(Histogram::new([
            0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0,
        ]))
    }
}

impl Metrics {
    /// Counts a request.
    pub fn request(&self, key: ApiKey) {
        self.requests
            .get_or_create(&ApiLabel { api: api_name(key) })
            .inc();
    }

    /// Counts a sync that took `duration`.
    pub fn flush(&self, duration: Duration) {
        self.flushes.inc();
        self.flush_seconds.inc_by(duration.as_secs_f64());
        self.flush_duration.0.observe(duration.as_secs_f64());
    }

    /// Everything, under its names.
    #[must_use]
    pub fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("skerry");
        let r = &mut registry;
        r.register(
            "kafka_connections_accepted",
            "Kafka connections accepted",
            self.connections_accepted.clone(),
        );
        r.register(
            "kafka_connections_open",
            "Kafka connections open now",
            self.connections_open.clone(),
        );
        r.register("kafka_requests", "Kafka requests by API", self.requests.clone());
        r.register(
            "produced_batches",
            "Record batches appended by producers",
            self.produced_batches.clone(),
        );
        r.register_with_unit(
            "produced",
            "Bytes appended by producers",
            Unit::Bytes,
            self.produced_bytes.clone(),
        );
        r.register_with_unit(
            "fetched",
            "Bytes sent to consumers",
            Unit::Bytes,
            self.fetched_bytes.clone(),
        );
        r.register("produce_errors", "Appends refused", self.produce_errors.clone());
        r.register("flushes", "Syncs of the disk", self.flushes.clone());
        r.register_with_unit(
            "flush_time",
            "Time spent in syncs",
            Unit::Seconds,
            self.flush_seconds.clone(),
        );
        r.register_with_unit(
            "flush",
            "Duration of each sync",
            Unit::Seconds,
            self.flush_duration.0.clone(),
        );
        r.register(
            "partitions_led",
            "Partitions led by this broker",
            self.partitions_led.clone(),
        );
        r.register(
            "partitions_offline",
            "Partitions that cannot be served",
            self.partitions_offline.clone(),
        );
        r.register(
            "partitions_damaged",
            "Partitions that are served although a part of them is damaged",
            self.partitions_damaged.clone(),
        );
        r.register(
            "damage_found",
            "Damaged places found in copies here",
            self.damage_found.clone(),
        );
        r.register_with_unit("log", "Bytes of all logs", Unit::Bytes, self.log_bytes.clone());
        r.register_with_unit(
            "memory_budget_used",
            "Bytes of the memory budget in use",
            Unit::Bytes,
            self.memory_budget_used_bytes.clone(),
        );
        r.register_with_unit(
            "disk_free",
            "Bytes that the disk has free",
            Unit::Bytes,
            self.disk_free_bytes.clone(),
        );
        self.replication.register(r);
        self.scrub.register(r);
        r.register("groups", "Consumer groups coordinated here", self.groups.clone());
        registry
    }
}

/// The API's name as Kafka writes it.
fn api_name(key: ApiKey) -> &'static str {
    match key {
        ApiKey::Produce => "Produce",
        ApiKey::Fetch => "Fetch",
        ApiKey::ListOffsets => "ListOffsets",
        ApiKey::Metadata => "Metadata",
        ApiKey::OffsetCommit => "OffsetCommit",
        ApiKey::OffsetFetch => "OffsetFetch",
        ApiKey::FindCoordinator => "FindCoordinator",
        ApiKey::JoinGroup => "JoinGroup",
        ApiKey::Heartbeat => "Heartbeat",
        ApiKey::LeaveGroup => "LeaveGroup",
        ApiKey::SyncGroup => "SyncGroup",
        ApiKey::ApiVersions => "ApiVersions",
        ApiKey::CreateTopics => "CreateTopics",
        ApiKey::DeleteTopics => "DeleteTopics",
        ApiKey::InitProducerId => "InitProducerId",
        ApiKey::DescribeConfigs => "DescribeConfigs",
        _ => "Other",
    }
}
