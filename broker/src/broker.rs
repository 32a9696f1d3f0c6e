//! One broker, as a front sees it: the in-process interface without a wire type in it.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use skerry_env::Env;
use skerry_metadata::{ProposeError, Quorum};
use skerry_metadata_state::{BrokerGuard, Command, Image, Outcome};
use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, TopicId, TopicPartition, is_planted};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::budget::Budget;
use crate::catching_up::CatchingUp;
use crate::config::NodeConfig;
use crate::disk_room::DiskRoom;
use crate::gate::Gate;
use crate::groups::Groups;
use crate::kafka::sessions::FetchSessions;
use crate::metrics::Metrics;
use crate::partitions::Partitions;
use crate::peers::Complaints;
use crate::producer_ids::ProducerIds;
use crate::replication::Replication;
use crate::settings::Settings;
use crate::standing::Standing;

/// Bounds of one Kafka connection and of all.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// `max.connections`.
    pub total: usize,
    /// `max.connections.per.ip`.
    pub per_ip: usize,
    /// `connections.max.idle.ms`.
    pub idle: Duration,
    /// `socket.request.max.bytes`, and never more than the memory budget.
    pub frame_bytes_max: usize,
}

/// Who leads a partition, and where clients reach it.
#[derive(Clone, Debug)]
pub struct Leader {
    /// The broker.
    pub id: BrokerId,
    /// In which epoch.
    pub epoch: LeaderEpoch,
    /// Where clients reach it.
    pub host: Arc<str>,
    /// Where clients reach it.
    pub port: u16,
}

/// What a topic gets that is made on its first use.
#[derive(Clone, Copy, Debug)]
pub struct TopicDefaults {
    /// `num.partitions`.
    pub partitions: i32,
    /// `default.replication.factor`.
    pub replication_factor: i16,
    /// `offsets.topic.num.partitions`.
    pub offsets_partitions: i32,
    /// `offsets.topic.replication.factor`.
    pub offsets_replication_factor: i16,
    /// `offsets.topic.segment.bytes`.
    pub offsets_segment_bytes: u32,
}

/// Everything that a request may need. Shared by all connections.
pub struct Broker {
    pub(crate) env: Env,
    pub(crate) config: Arc<NodeConfig>,
    pub(crate) settings: Arc<Settings>,
    pub(crate) quorum: Quorum,
    pub(crate) partitions: Arc<Partitions>,
    pub(crate) replication: Arc<Replication>,
    pub(crate) groups: Groups,
    pub(crate) producer_ids: ProducerIds,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) gate: Gate,
    pub(crate) budget: Budget,
    pub(crate) large_frames: Arc<Semaphore>,
    pub(crate) complaints: Complaints,
    pub(crate) sessions: FetchSessions,
    pub(crate) limits: ConnectionLimits,
    pub(crate) anonymous: Arc<str>,
    pub(crate) standing: Arc<Standing>,
    /// The metadata as this broker has acted on it.
    pub(crate) visible: ArcSwap<Image>,
    /// How many changes of the metadata this broker has acted on.
    pub(crate) applied: watch::Sender<u64>,
    pub(crate) disk_room: Arc<DiskRoom>,
    pub(crate) epoch: std::sync::OnceLock<BrokerEpoch>,
    /// How far copies are behind that are not in sync.
    pub(crate) catching_up: Mutex<CatchingUp>,
}

impl Broker {
    /// The world.
    pub const fn env(&self) -> &Env {
        &self.env
    }

    /// How this node was started.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Values of dynamic settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// This broker's number.
    pub fn id(&self) -> BrokerId {
        self.config.node_id
    }

    /// This broker's registration; `None` before it has one.
    pub fn epoch(&self) -> Option<BrokerEpoch> {
        self.epoch.get().copied()
    }

    /// This broker with its registration, for commands that must not outlive it; `None` before it has one.
    pub fn guard(&self) -> Option<BrokerGuard> {
        let broker = self.id();
        self.epoch().map(|epoch| BrokerGuard { broker, epoch })
    }

    /// What the controller has promised this broker.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// The metadata as this broker has acted on it: what a client is shown of it can be used. The quorum's own image
    /// may be ahead; a topic of it whose logs are not open yet would refuse the first of several pipelined batches
    /// and take the second, which an idempotent producer does not survive.
    pub fn image(&self) -> Arc<Image> {
        if is_planted("topic-told-before-its-logs") {
            return self.quorum.image();
        }
        self.visible.load_full()
    }

    /// The metadata for a request that would change it. Where what this broker knows `refuses` it, the quorum is asked:
    /// what was acknowledged elsewhere a moment ago may not have come here yet. In Kafka the controller judges such
    /// requests. Without a majority it stays with what is known.
    pub async fn newest_image_if(&self, refuses: impl Fn(&Image) -> bool) -> Arc<Image> {
        let image = self.image();
        if !refuses(&image) {
            return image;
        }
        self.quorum.read().await.unwrap_or(image)
    }

    /// The metadata's version, as ApiVersions tells it.
    pub fn metadata_version(&self) -> i64 {
        i64::try_from(self.image().index()).unwrap_or(i64::MAX)
    }

    /// Up to which command of the metadata's log this broker has acted. Commands that change nothing need no act: an
    /// image of them is not waited for, because it does not come.
    pub fn acted_index(&self) -> u64 {
        let newest = self.quorum.image().index();
        // Read after the image: it counts all that this contains.
        let changes = self.quorum.changes();
        if *self.applied.borrow() >= changes {
            newest
        } else {
            self.image().index()
        }
    }

    /// The metadata quorum.
    pub const fn quorum(&self) -> &Quorum {
        &self.quorum
    }

    /// Proposes a change of the metadata, and waits until this broker has acted on it: a topic that was created can be
    /// used when this returns.
    ///
    /// # Errors
    /// The quorum did not answer; the change may still come.
    pub async fn propose(&self, command: Command) -> Result<Outcome, ProposeError> {
        let outcome = self.quorum.propose(command).await?;
        self.wait_applied(self.quorum.changes()).await;
        Ok(outcome)
    }

    /// Waits until this broker has acted on so many changes of the metadata.
    pub async fn wait_applied(&self, changes: u64) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`.
        let _ = applied.wait_for(|applied| *applied >= changes).await;
    }

    /// Waits until `reached` holds; it is looked at after each image that this broker has acted on.
    pub async fn wait_for(&self, mut reached: impl FnMut() -> bool) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`.
        let _ = applied.wait_for(|_| reached()).await;
    }

    /// What a topic gets that is made on its first use.
    pub fn topic_defaults(&self) -> TopicDefaults {
        let config = self.settings.broker();
        let factor = |value: i32| i16::try_from(value).unwrap_or(i16::MAX);
        TopicDefaults {
            partitions: config.num_partitions,
            replication_factor: factor(config.default_replication_factor),
            offsets_partitions: config.offsets_topic_partitions,
            offsets_replication_factor: factor(config.offsets_topic_replication_factor),
            offsets_segment_bytes: config.offsets_topic_segment_bytes,
        }
    }

    /// The partitions of this broker.
    pub fn partitions(&self) -> &Partitions {
        &self.partitions
    }

    /// Streams from and to other brokers.
    pub const fn replication(&self) -> &Arc<Replication> {
        &self.replication
    }

    /// The group coordinators of this broker.
    pub const fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Producer ids.
    pub const fn producer_ids(&self) -> &ProducerIds {
        &self.producer_ids
    }

    /// Who leads a partition, if anybody does.
    pub fn leader_of(&self, topic: TopicId, name: &TopicPartition) -> Option<Leader> {
        let image = self.image();
        let partition = image.topic_by_id(topic)?.partition(name.partition)?;
        let broker = image.broker(partition.leader?)?;
        Some(Leader {
            id: broker.id,
            epoch: partition.leader_epoch,
            host: broker.kafka.host.clone(),
            port: broker.kafka.port,
        })
    }

    /// The authorisation point and the quota point.
    pub const fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Who asks on a listener without authentication.
    pub fn anonymous(&self) -> Arc<str> {
        self.anonymous.clone()
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The memory budget.
    pub const fn budget(&self) -> &Budget {
        &self.budget
    }

    /// The permission to read a frame that is too large to be taken as a whole.
    pub async fn large_frame(&self) -> OwnedSemaphorePermit {
        self.large_frames
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed")
    }

    /// Log lines about peers.
    pub const fn complaints(&self) -> &Complaints {
        &self.complaints
    }

    /// Bounds of connections.
    pub const fn connection_limits(&self) -> ConnectionLimits {
        self.limits
    }

    /// `fetch.max.bytes`, and never more than a part of the memory budget.
    pub fn fetch_bytes_max(&self) -> usize {
        (self.settings.broker().fetch_max_bytes as usize).min(self.budget.total_bytes() / 16)
    }

    /// Fetch sessions.
    pub const fn fetch_sessions(&self) -> &FetchSessions {
        &self.sessions
    }

    /// The room on the disk.
    pub fn disk_room(&self) -> &DiskRoom {
        &self.disk_room
    }
}
