//! Brokers come, take part, and go.

use std::sync::Arc;

use skerry_types::{BrokerEpoch, BrokerId, is_planted, reached};

use super::Change;
use super::rules::Copy;
use crate::command::{BrokerGuard, RegisterBroker};
use crate::image::Broker;
use crate::outcome::{Delta, Outcome, Refusal};

impl Change<'_> {
    pub(super) fn register_broker(&mut self, registration: &RegisterBroker) -> Result<Outcome, Refusal> {
        let id = registration.broker;
        let level = self.image.feature_level;
        if level > 0 && !registration.features.contains(level) {
            return Err(Refusal::UnsupportedFeatureLevel { level, broker: id });
        }
        let copy = match self.image.brokers.get(&id) {
            Some(known) if known.incarnation == registration.incarnation => {
                return Ok(Outcome::BrokerRegistered { epoch: known.epoch });
            }
            Some(known) if known.directory != registration.directory => Copy::Lost,
            Some(_) if registration.clean => Copy::Kept,
            // A broker that was forgotten had no replicas.
            Some(_) | None => Copy::Crashed,
        };
        // The start before this one is dead: it leads nothing any more, even where nobody noticed its end. Each of its
        // partitions gets a new leader epoch when this start is unfenced (KIP-101).
        let epoch = BrokerEpoch(i64::try_from(self.index).expect("a log index fits in 63 bits"));
        let broker = Broker {
            id,
            incarnation: registration.incarnation,
            directory: registration.directory,
            epoch,
            kafka: registration.kafka.clone(),
            cluster: registration.cluster.clone(),
            rack: registration.rack.clone(),
            features: registration.features,
            fenced: true,
            draining: false,
            registered_at: registration.at,
        };
        Arc::make_mut(&mut self.image.brokers).insert(id, Arc::new(broker));
        self.deltas.push(Delta::BrokerChanged(id));
        self.leave_in_sync_sets(id, copy);
        Ok(Outcome::BrokerRegistered { epoch })
    }

    pub(super) fn unfence_broker(&mut self, guard: BrokerGuard) -> Result<Outcome, Refusal> {
        let broker = self.guarded(guard)?;
        if broker.draining {
            return Err(Refusal::BrokerDraining(guard.broker));
        }
        if broker.fenced {
            self.alter_broker(guard.broker, |broker| broker.fenced = false);
            self.elect_where_nobody_leads(guard.broker);
        }
        Ok(Outcome::Done)
    }

    pub(super) fn fence_broker(&mut self, guard: BrokerGuard) -> Result<Outcome, Refusal> {
        if !self.guarded(guard)?.fenced {
            self.alter_broker(guard.broker, |broker| broker.fenced = true);
            if !is_planted("fenced-broker-stays-in-sync") {
                self.leave_in_sync_sets(guard.broker, Copy::Kept);
            }
        }
        Ok(Outcome::Done)
    }

    pub(super) fn drain_broker(&mut self, guard: BrokerGuard) -> Result<Outcome, Refusal> {
        if !self.guarded(guard)?.draining {
            self.alter_broker(guard.broker, |broker| broker.draining = true);
        }
        self.relieve(guard.broker);
        let partitions = self.image.topics().flat_map(|topic| &topic.partitions);
        let leading = partitions
            .filter(|partition| partition.leader == Some(guard.broker))
            .count();
        Ok(Outcome::BrokerDrained {
            leading: u32::try_from(leading).unwrap_or(u32::MAX),
        })
    }

    pub(super) fn unregister_broker(&mut self, id: BrokerId) -> Result<Outcome, Refusal> {
        let broker = self.image.brokers.get(&id).ok_or(Refusal::UnknownBroker(id))?;
        let has_replicas = || {
            self.image.topics().any(|topic| {
                topic
                    .partitions
                    .iter()
                    .any(|partition| partition.replicas.contains(&id))
            })
        };
        // Kafka forgets a live broker, which then can place nothing until it is restarted.
        if !broker.fenced || has_replicas() {
            return Err(Refusal::BrokerInUse(id));
        }
        reached("broker-forgotten");
        Arc::make_mut(&mut self.image.brokers).remove(&id);
        self.deltas.push(Delta::BrokerChanged(id));
        Ok(Outcome::Done)
    }

    /// No broker takes part before it has registered again.
    pub(super) fn fence_all(&mut self) {
        let unfenced: Vec<BrokerId> = self.image.unfenced_brokers().map(|broker| broker.id).collect();
        for id in unfenced {
            self.alter_broker(id, |broker| broker.fenced = true);
        }
    }

    fn alter_broker(&mut self, id: BrokerId, alter: impl FnOnce(&mut Broker)) {
        let broker = Arc::make_mut(&mut self.image.brokers)
            .get_mut(&id)
            .expect("the guard found it");
        alter(Arc::make_mut(broker));
        self.deltas.push(Delta::BrokerChanged(id));
    }
}
