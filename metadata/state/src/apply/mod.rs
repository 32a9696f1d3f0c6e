//! Commands applied to the state.

mod brokers;
mod configs;
mod partitions;
mod rules;
mod topics;

pub(crate) use topics::folded;

use std::sync::Arc;

use skerry_types::{ProducerId, Uuid, is_planted};

use crate::command::{BrokerGuard, Command};
use crate::image::{Broker, Image};
use crate::outcome::{Delta, Outcome, Refusal};

/// The state machine behind the metadata log.
#[derive(Clone, Debug, Default)]
pub struct State {
    image: Arc<Image>,
}

/// What one command did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The answer to whoever proposed it.
    pub outcome: Outcome,
    /// What changed, in the order in which it changed; empty for a refusal.
    pub deltas: Vec<Delta>,
}

impl State {
    /// A state that continues from `image`, as a snapshot brought it.
    #[must_use]
    pub fn from_image(image: Image) -> Self {
        Self {
            image: Arc::new(image),
        }
    }

    /// The state after the last command.
    #[must_use]
    pub const fn image(&self) -> &Arc<Image> {
        &self.image
    }

    /// Applies the log entry at `index`.
    ///
    /// # Panics
    /// When `index` does not grow, and when the result breaks an order that always holds: bugs of this program, and
    /// continuing would spread them.
    pub fn apply(&mut self, index: u64, command: &Command) -> Applied {
        let before = Arc::clone(&self.image);
        let mut change = Change::new(&mut self.image, index);
        let outcome = change.run(command).unwrap_or_else(|refusal| {
            assert!(
                change.deltas.is_empty(),
                "a refusal changed something: {:?}",
                change.deltas
            );
            Outcome::Refused(refusal)
        });
        let deltas = change.deltas;
        self.image.check_changes(&before, &deltas);
        Applied { outcome, deltas }
    }

    /// Passes over a log entry that holds no command.
    ///
    /// # Panics
    /// When `index` does not grow.
    pub fn skip(&mut self, index: u64) {
        Change::new(&mut self.image, index);
    }
}

impl Image {
    /// What `command` would answer now. Changes nothing (Kafka's `validate_only`).
    #[must_use]
    pub fn dry_run(&self, command: &Command) -> Outcome {
        let mut image = Arc::new(self.clone());
        Change::new(&mut image, self.index + 1)
            .run(command)
            .unwrap_or_else(Outcome::Refused)
    }
}

/// A command at work. Each method validates all of its input before it changes anything.
struct Change<'a> {
    image: &'a mut Image,
    deltas: Vec<Delta>,
    index: u64,
}

impl<'a> Change<'a> {
    fn new(image: &'a mut Arc<Image>, index: u64) -> Self {
        assert!(
            index > image.index,
            "log entry {index} was applied at {}",
            image.index
        );
        let image = Arc::make_mut(image);
        image.index = index;
        Self {
            image,
            deltas: Vec::new(),
            index,
        }
    }

    fn run(&mut self, command: &Command) -> Result<Outcome, Refusal> {
        match command {
            Command::InitCluster {
                cluster_id,
                feature_level,
            } => Ok(self.init_cluster(*cluster_id, *feature_level)),
            Command::RegisterBroker(registration) => self.register_broker(registration),
            Command::UnfenceBroker(guard) => self.unfence_broker(*guard),
            Command::FenceBroker(guard) => self.fence_broker(*guard),
            Command::DrainBroker(guard) => self.drain_broker(*guard),
            Command::UnregisterBroker { broker } => self.unregister_broker(*broker),
            Command::CreateTopic(topic) => self.create_topic(topic),
            Command::DeleteTopic { topic } => self.delete_topic(*topic),
            Command::CreatePartitions(partitions) => self.create_partitions(partitions),
            Command::AlterConfigs(configs) => self.alter_configs(configs),
            Command::ChangePartition(partition) => self.change_partition(partition),
            Command::ReplicaLost(lost) => self.replica_lost(lost),
            Command::ReplicaOffline(copy) => self.replica_offline(copy),
            Command::ElectLeader(election) => self.elect_leader(election),
            Command::AlterReassignment(reassignment) => self.alter_reassignment(reassignment),
            Command::AllocateProducerIds(guard) => self.allocate_producer_ids(*guard),
            Command::SetFeatureLevel { level } => self.set_feature_level(*level),
            Command::QuorumRecovered { .. } => Ok(self.quorum_recovered()),
            Command::Batch(commands) => Ok(self.batch(commands)),
        }
    }

    fn batch(&mut self, commands: &[Command]) -> Outcome {
        let outcomes = commands.iter().map(|command| {
            if !command.may_be_batched() {
                return Outcome::Refused(Refusal::NotBatched);
            }
            let changes = self.deltas.len();
            self.run(command).unwrap_or_else(|refusal| {
                assert_eq!(self.deltas.len(), changes, "a refusal changed something");
                Outcome::Refused(refusal)
            })
        });
        Outcome::Batch(outcomes.collect())
    }

    fn init_cluster(&mut self, cluster_id: Uuid, feature_level: u16) -> Outcome {
        if let Some(id) = self.image.cluster_id {
            return Outcome::ClusterId(id);
        }
        self.image.cluster_id = Some(cluster_id);
        // No level falls: what was written by it is there.
        let feature_level = feature_level.max(self.image.feature_level);
        self.image.feature_level = feature_level;
        self.deltas.push(Delta::ClusterNamed(cluster_id));
        self.deltas.push(Delta::FeatureLevelChanged(feature_level));
        Outcome::ClusterId(cluster_id)
    }

    fn allocate_producer_ids(&mut self, guard: BrokerGuard) -> Result<Outcome, Refusal> {
        self.guarded(guard)?;
        let first = ProducerId(self.image.next_producer_id);
        self.image.next_producer_id += crate::PRODUCER_ID_BLOCK;
        Ok(Outcome::ProducerIds { first })
    }

    /// Every broker is down now, the survivor's too: it registers anew, or never again. Otherwise the dead would be in sync
    /// until their sessions end, and the survivor, which restarts, would not.
    fn quorum_recovered(&mut self) -> Outcome {
        self.fence_all();
        self.begin_anew(!is_planted("recovery-keeps-numbers"));
        if !is_planted("recovery-keeps-numbers") {
            self.image.next_producer_id += crate::RECOVERY_PRODUCER_IDS;
        }
        Outcome::Done
    }

    fn set_feature_level(&mut self, level: u16) -> Result<Outcome, Refusal> {
        let current = self.image.feature_level;
        if level < current {
            return Err(Refusal::FeatureLevelLowered {
                current,
                wanted: level,
            });
        }
        // A fenced broker counts: it comes back with the program that it has.
        if let Some(mute) = self
            .image
            .brokers
            .values()
            .find(|broker| !broker.features.contains(level))
        {
            return Err(Refusal::UnsupportedFeatureLevel {
                level,
                broker: mute.id,
            });
        }
        if level > current {
            self.image.feature_level = level;
            self.deltas.push(Delta::FeatureLevelChanged(level));
        }
        Ok(Outcome::Done)
    }

    /// The broker, if `guard` speaks for its current registration.
    fn guarded(&self, guard: BrokerGuard) -> Result<&Arc<Broker>, Refusal> {
        let broker = self
            .image
            .brokers
            .get(&guard.broker)
            .ok_or(Refusal::UnknownBroker(guard.broker))?;
        if broker.epoch != guard.epoch {
            return Err(Refusal::StaleBrokerEpoch {
                broker: guard.broker,
                current: broker.epoch,
                given: guard.epoch,
            });
        }
        Ok(broker)
    }
}
