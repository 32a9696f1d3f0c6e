//! A whole image as bytes.

use std::collections::BTreeMap;
use std::sync::Arc;

use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, WallMs, is_planted};

use super::DecodeError;
use super::wire::{Read, Reader, Writer};
use crate::REPLICAS_OFFLINE_LEVEL;
use crate::apply::folded;
use crate::image::{Broker, ConfigMap, Image, Partition, Topic};

/// The newest version of a snapshot that this program writes and reads.
pub const SNAPSHOT_VERSION: u8 = 2;

/// What everybody reads who speaks this feature level.
const fn version_at(feature_level: u16) -> u8 {
    if feature_level < REPLICAS_OFFLINE_LEVEL {
        1
    } else {
        2
    }
}

impl Image {
    /// The image as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let version = version_at(self.feature_level);
        let mut w = Writer::new(version);
        w.u64(self.index);
        w.option(self.cluster_id, Writer::uuid);
        w.u16(self.feature_level);
        w.i64(self.next_producer_id);
        w.list(self.brokers.values(), |w, broker| w.broker_state(broker));
        w.count(self.topics.len());
        for topic in self.topics.values() {
            w.topic_state(topic, version);
        }
        w.count(self.configs.len());
        for (resource, configs) in self.configs.iter() {
            w.resource(resource);
            w.configs(configs);
        }
        w.finish()
    }

    /// Reads what [`Image::encode`] wrote.
    ///
    /// # Errors
    /// A newer version, damage, or an image that breaks an order that always holds.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("a metadata snapshot", bytes, SNAPSHOT_VERSION)?;
        let version = bytes[0];
        let mut image = Self {
            index: r.u64()?,
            cluster_id: r.option(Reader::uuid)?,
            feature_level: r.u16()?,
            next_producer_id: r.i64()?,
            ..Self::default()
        };
        let brokers: BTreeMap<BrokerId, Arc<Broker>> = r.list(Reader::broker_state)?;
        image.brokers = Arc::new(brokers);
        for _ in 0..r.u32()? {
            let topic = r.topic_state(version)?;
            image.partition_count += topic.partitions.len();
            image.names.insert(topic.id, Arc::clone(&topic.name));
            if let Some(folded) = folded(&topic.name) {
                image.folded_names.insert(folded, Arc::clone(&topic.name));
            }
            image.topics.insert(Arc::clone(&topic.name), Arc::new(topic));
        }
        for _ in 0..r.u32()? {
            let resource = r.resource()?;
            image.configs.insert(resource, Arc::new(r.configs()?));
        }
        if image.check().is_err() {
            return Err(r.damaged("its parts contradict each other"));
        }
        r.end()?;
        Ok(image)
    }
}

impl Writer {
    fn broker_state(&mut self, broker: &Broker) {
        self.i32(broker.id.get());
        self.uuid(broker.incarnation);
        self.uuid(broker.directory);
        self.i64(broker.epoch.get());
        self.host_port(&broker.kafka);
        self.host_port(&broker.cluster);
        self.option(broker.rack.as_deref(), Self::str);
        self.features(broker.features);
        self.bool(broker.fenced);
        self.bool(broker.draining);
        self.i64(broker.registered_at.get());
    }

    fn topic_state(&mut self, topic: &Topic, version: u8) {
        self.uuid(topic.id);
        self.str(&topic.name);
        self.i64(topic.created_at.get());
        self.configs(&topic.configs);
        self.list(topic.partitions.iter(), |w, partition| {
            w.broker_list(&partition.replicas);
            w.broker_list(&partition.adding);
            w.broker_list(&partition.removing);
            w.broker_list(&partition.isr);
            if is_planted("snapshot-without-eligible") {
                w.broker_list(&[]);
            } else {
                w.broker_list(&partition.elr);
            }
            if version >= 2 {
                w.broker_list(&partition.offline);
            }
            w.i32(partition.leader.unwrap_or(BrokerId::NONE).get());
            w.i32(partition.leader_epoch.get());
            w.i32(partition.partition_epoch.get());
        });
    }

    fn configs(&mut self, configs: &ConfigMap) {
        self.list(configs.iter(), |w, (key, value)| {
            w.str(key);
            w.str(value);
        });
    }
}

impl Reader<'_> {
    fn broker_state(&mut self) -> Read<(BrokerId, Arc<Broker>)> {
        let id = self.broker()?;
        let broker = Broker {
            id,
            incarnation: self.uuid()?,
            directory: self.uuid()?,
            epoch: BrokerEpoch(self.i64()?),
            kafka: self.host_port()?,
            cluster: self.host_port()?,
            rack: self.option(Self::str)?,
            features: self.features()?,
            fenced: self.bool()?,
            draining: self.bool()?,
            registered_at: WallMs(self.i64()?),
        };
        Ok((id, Arc::new(broker)))
    }

    fn topic_state(&mut self, version: u8) -> Read<Topic> {
        Ok(Topic {
            id: self.uuid()?,
            name: self.str()?,
            created_at: WallMs(self.i64()?),
            configs: Arc::new(self.configs()?),
            partitions: self.list(|r| r.partition_state(version).map(Arc::new))?,
        })
    }

    fn partition_state(&mut self, version: u8) -> Read<Partition> {
        Ok(Partition {
            replicas: self.list(Self::broker)?,
            adding: self.list(Self::broker)?,
            removing: self.list(Self::broker)?,
            isr: self.list(Self::broker)?,
            elr: self.list(Self::broker)?,
            offline: match version {
                1 => Vec::new(),
                _ => self.list(Self::broker)?,
            },
            leader: Some(self.broker()?).filter(|&leader| leader != BrokerId::NONE),
            leader_epoch: LeaderEpoch(self.i32()?),
            partition_epoch: PartitionEpoch(self.i32()?),
        })
    }

    fn configs(&mut self) -> Read<ConfigMap> {
        self.list(|r| Ok((r.str()?, r.str()?)))
    }
}
