//! The metadata as readers see it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use skerry_types::{
    BrokerEpoch, BrokerId, IncarnationId, LeaderEpoch, PartitionEpoch, PartitionIndex, ProducerId, TopicId,
    Uuid, WallMs,
};

use crate::command::FeatureRange;
use crate::map::PersistentMap;

/// The overrides of one resource, by key.
pub type ConfigMap = BTreeMap<Arc<str>, Arc<str>>;

/// The metadata after one log entry. Immutable; a clone shares all that did not change.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Image {
    pub(crate) index: u64,
    pub(crate) cluster_id: Option<Uuid>,
    pub(crate) feature_level: u16,
    pub(crate) next_producer_id: i64,
    pub(crate) partition_count: usize,
    pub(crate) brokers: Arc<BTreeMap<BrokerId, Arc<Broker>>>,
    pub(crate) topics: PersistentMap<Arc<str>, Arc<Topic>>,
    pub(crate) names: PersistentMap<TopicId, Arc<str>>,
    /// Topic names with every `.` as `_`: two that fall together would share their metrics' names.
    pub(crate) folded_names: PersistentMap<Arc<str>, Arc<str>>,
    /// The overrides of everything but topics, which carry their own.
    pub(crate) configs: PersistentMap<ConfigResource, Arc<ConfigMap>>,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broker {
    /// Its number.
    pub id: BrokerId,
    /// This start of it.
    pub incarnation: IncarnationId,
    /// Its data directory.
    pub directory: Uuid,
    /// The log index of its registration.
    pub epoch: BrokerEpoch,
    /// Where Kafka clients reach it.
    pub kafka: HostPort,
    /// Where other brokers reach it.
    pub cluster: HostPort,
    /// Where it stands.
    pub rack: Option<Arc<str>>,
    /// The feature levels that it speaks.
    pub features: FeatureRange,
    /// It leads nothing, is in no in-sync set, and gets no replicas.
    pub fenced: bool,
    /// It is about to leave: it leads and is in sync only where nobody else can, and gets no replicas.
    pub draining: bool,
    /// The wall clock of whoever registered it.
    pub registered_at: WallMs,
}

impl Broker {
    /// True for a broker that may get replicas and leaderships: neither fenced nor draining.
    #[must_use]
    pub const fn is_active(&self) -> bool {
        !self.fenced && !self.draining
    }
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: Arc<str>,
    /// The port.
    pub port: u16,
}

impl HostPort {
    /// `host` and `port`.
    #[must_use]
    pub fn new(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its identity: another topic of the same name has another one.
    pub id: TopicId,
    /// Its name.
    pub name: Arc<str>,
    /// Its partitions; the position is the partition's number.
    pub partitions: Vec<Arc<Partition>>,
    /// What it overrides.
    pub configs: Arc<ConfigMap>,
    /// The wall clock of whoever created it.
    pub created_at: WallMs,
}

impl Topic {
    /// True where any replica may lead when no eligible one lives: records are lost by it.
    pub(crate) fn elects_unclean(&self) -> bool {
        self.configs
            .get("unclean.leader.election.enable")
            .is_some_and(|value| &**value == "true")
    }

    /// True where the topic chose Kafka's rule: acknowledged once the in-sync replicas have it in memory.
    #[must_use]
    pub fn acknowledges_before_disk(&self) -> bool {
        ["flush.messages", "flush.ms"]
            .iter()
            .any(|key| self.configs.contains_key(*key))
    }

    /// The partition of that number.
    #[must_use]
    pub fn partition(&self, index: PartitionIndex) -> Option<&Arc<Partition>> {
        usize::try_from(index.get())
            .ok()
            .and_then(|index| self.partitions.get(index))
    }
}

/// One partition's part in the metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Who has a copy; the first is the preferred leader. While a reassignment is under way: the target, then those
    /// that leave.
    pub replicas: Vec<BrokerId>,
    /// Which of `replicas` a reassignment adds (KIP-455), in their order.
    pub adding: Vec<BrokerId>,
    /// Which of `replicas` leave once all others are in sync, in their order. One that is in `adding` too was given up
    /// before it was needed: it leaves as soon as the leader lets it go.
    pub removing: Vec<BrokerId>,
    /// Who is in sync, in the order of `replicas`. Empty only where nobody leads.
    pub isr: Vec<BrokerId>,
    /// Who is not in sync and yet has everything acknowledged (KIP-966), in the order of `replicas`.
    pub elr: Vec<BrokerId>,
    /// Whose copy cannot be opened, in the order of `replicas`: in sync it is not, and lead it may not. It may be the one
    /// copy that has everything.
    pub offline: Vec<BrokerId>,
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// Grows with every election. While nobody leads it is the last leader's.
    pub leader_epoch: LeaderEpoch,
    /// Grows with every change of anything here.
    pub partition_epoch: PartitionEpoch,
}

impl Partition {
    /// True while a reassignment is under way.
    #[must_use]
    pub const fn is_reassigning(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// The replicas that stay: those that a reassignment wants, or all.
    pub fn target(&self) -> impl Iterator<Item = BrokerId> {
        self.replicas
            .iter()
            .copied()
            .filter(|replica| !self.removing.contains(replica))
    }

    /// The replicas without those that a reassignment adds: what cancelling it goes back to.
    pub fn original(&self) -> impl Iterator<Item = BrokerId> {
        self.replicas
            .iter()
            .copied()
            .filter(|replica| !self.adding.contains(replica))
    }

    /// What a reassignment was adding and nobody wants any more, and the leader has not let go yet.
    pub fn given_up(&self) -> impl Iterator<Item = BrokerId> {
        self.adding
            .iter()
            .copied()
            .filter(|replica| self.removing.contains(replica))
    }

    /// How many in-sync replicas an acknowledgement takes where `configured` is asked for: never more than there are
    /// replicas. Those that a reassignment adds count once it is complete, so that a topic of one replica does not
    /// stop while it becomes one of three.
    #[must_use]
    pub fn min_insync_replicas(&self, configured: usize) -> usize {
        configured.clamp(1, self.original().count().max(1))
    }
}

/// What can be configured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigResource {
    /// A topic.
    Topic(Arc<str>),
    /// One broker.
    Broker(BrokerId),
    /// Every broker (Kafka's broker resource with an empty name).
    ClusterDefault,
    /// A consumer group.
    Group(Arc<str>),
}

impl Image {
    /// The log index of the last command that it contains.
    #[must_use]
    pub const fn index(&self) -> u64 {
        self.index
    }

    /// The cluster's id, once it has one.
    #[must_use]
    pub const fn cluster_id(&self) -> Option<Uuid> {
        self.cluster_id
    }

    /// The level of what may be written.
    #[must_use]
    pub const fn feature_level(&self) -> u16 {
        self.feature_level
    }

    /// The first producer id that nobody has.
    #[must_use]
    pub const fn next_producer_id(&self) -> ProducerId {
        ProducerId(self.next_producer_id)
    }

    /// A registered broker, fenced or not.
    #[must_use]
    pub fn broker(&self, id: BrokerId) -> Option<&Arc<Broker>> {
        self.brokers.get(&id)
    }

    /// The registered brokers by number, fenced or not.
    pub fn brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers.values()
    }

    /// True for a registered broker that may get replicas and leaderships: neither fenced nor draining.
    #[must_use]
    pub fn is_active(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(|broker| broker.is_active())
    }

    /// True for a replica that could lead, had it the records: its broker is active and can open its copy.
    #[must_use]
    pub fn is_able(&self, partition: &Partition, replica: BrokerId) -> bool {
        self.is_active(replica) && !partition.offline.contains(&replica)
    }

    /// The brokers that take part, by number.
    pub fn unfenced_brokers(&self) -> impl Iterator<Item = &Arc<Broker>> {
        self.brokers.values().filter(|broker| !broker.fenced)
    }

    /// True for a registered broker that takes part.
    #[must_use]
    pub fn is_unfenced(&self, id: BrokerId) -> bool {
        self.brokers.get(&id).is_some_and(|broker| !broker.fenced)
    }

    /// A topic by its name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(name)
    }

    /// A topic by its id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.names.get(&id).and_then(|name| self.topics.get(name))
    }

    /// All topics by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.values()
    }

    /// The topics from the first whose name is not below `name`, in order (for DescribeTopicPartitions' cursor).
    pub fn topics_from(&self, name: &str) -> impl Iterator<Item = &Arc<Topic>> {
        self.topics.range_from(name).map(|(_, topic)| topic)
    }

    /// How many topics there are.
    #[must_use]
    pub const fn topic_count(&self) -> usize {
        self.topics.len()
    }

    /// How many partitions all topics have together.
    #[must_use]
    pub const fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// What a resource overrides; `None` where it overrides nothing or does not exist.
    #[must_use]
    pub fn config(&self, resource: &ConfigResource) -> Option<&Arc<ConfigMap>> {
        match resource {
            ConfigResource::Topic(name) => self.topics.get(name).map(|topic| &topic.configs),
            _ => self.configs.get(resource),
        }
    }

    /// The resources other than topics that override something, in order.
    pub fn configured_resources(&self) -> impl Iterator<Item = (&ConfigResource, &Arc<ConfigMap>)> {
        self.configs.iter()
    }

    /// How many in-sync replicas an acknowledgement of `topic` takes: `min.insync.replicas` of the topic, else of the
    /// cluster, else 1; never more than there are replicas ([`Partition::min_insync_replicas`]).
    #[must_use]
    pub fn min_insync_replicas(&self, topic: &Topic, partition: &Partition) -> usize {
        partition.min_insync_replicas(self.configured_min_insync_replicas(topic))
    }

    pub(crate) fn configured_min_insync_replicas(&self, topic: &Topic) -> usize {
        let cluster = || {
            self.configs
                .get(&ConfigResource::ClusterDefault)
                .and_then(|configs| configs.get(MIN_INSYNC_REPLICAS))
        };
        topic
            .configs
            .get(MIN_INSYNC_REPLICAS)
            .or_else(cluster)
            .and_then(|value| value.parse().ok())
            .unwrap_or(1)
    }
}

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
