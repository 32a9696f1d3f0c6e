//! Commands as bytes.

use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, WallMs};

use super::DecodeError;
use super::wire::{Read, Reader, Writer};
use crate::command::{
    AlterConfigs, BrokerGuard, ChangePartition, Command, ConfigOp, CreatePartitions, CreateTopic,
    ElectLeader, Election, FeatureRange, Placement, RegisterBroker,
};
use crate::image::{ConfigResource, HostPort};

/// The newest version of a command that this program writes and reads.
pub const COMMAND_VERSION: u8 = 1;

/// Persisted: a number is never given to another command.
mod kind {
    pub(super) const INIT_CLUSTER: u8 = 1;
    pub(super) const REGISTER_BROKER: u8 = 2;
    pub(super) const UNFENCE_BROKER: u8 = 3;
    pub(super) const FENCE_BROKER: u8 = 4;
    pub(super) const UNREGISTER_BROKER: u8 = 5;
    pub(super) const CREATE_TOPIC: u8 = 6;
    pub(super) const DELETE_TOPIC: u8 = 7;
    pub(super) const CREATE_PARTITIONS: u8 = 8;
    pub(super) const ALTER_CONFIGS: u8 = 9;
    pub(super) const CHANGE_PARTITION: u8 = 10;
    pub(super) const ELECT_LEADER: u8 = 11;
    pub(super) const ALLOCATE_PRODUCER_IDS: u8 = 12;
    pub(super) const SET_FEATURE_LEVEL: u8 = 13;
}

impl Command {
    /// The command as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(COMMAND_VERSION);
        match self {
            Self::InitCluster {
                cluster_id,
                feature_level,
            } => {
                w.u8(kind::INIT_CLUSTER);
                w.uuid(*cluster_id);
                w.u16(*feature_level);
            }
            Self::RegisterBroker(registration) => {
                w.u8(kind::REGISTER_BROKER);
                w.registration(registration);
            }
            Self::UnfenceBroker(guard) => w.guarded(kind::UNFENCE_BROKER, *guard),
            Self::FenceBroker(guard) => w.guarded(kind::FENCE_BROKER, *guard),
            Self::UnregisterBroker { broker } => {
                w.u8(kind::UNREGISTER_BROKER);
                w.i32(broker.get());
            }
            Self::CreateTopic(topic) => {
                w.u8(kind::CREATE_TOPIC);
                w.topic(topic);
            }
            Self::DeleteTopic { topic } => {
                w.u8(kind::DELETE_TOPIC);
                w.uuid(*topic);
            }
            Self::CreatePartitions(request) => {
                w.u8(kind::CREATE_PARTITIONS);
                w.uuid(request.topic);
                w.i32(request.count);
                w.option(request.assignments.as_ref(), |w, assignments| {
                    w.assignments(assignments)
                });
            }
            Self::AlterConfigs(request) => {
                w.u8(kind::ALTER_CONFIGS);
                w.config_changes(request);
            }
            Self::ChangePartition(request) => {
                w.u8(kind::CHANGE_PARTITION);
                w.partition_change(request);
            }
            Self::ElectLeader(request) => {
                w.u8(kind::ELECT_LEADER);
                w.uuid(request.topic);
                w.i32(request.partition.get());
                w.u8(match request.election {
                    Election::Preferred => 0,
                    Election::Unclean => 1,
                });
            }
            Self::AllocateProducerIds(guard) => w.guarded(kind::ALLOCATE_PRODUCER_IDS, *guard),
            Self::SetFeatureLevel { level } => {
                w.u8(kind::SET_FEATURE_LEVEL);
                w.u16(*level);
            }
        }
        w.finish()
    }

    /// Reads what [`Command::encode`] wrote.
    ///
    /// # Errors
    /// A newer version, or damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("a metadata command", bytes, COMMAND_VERSION)?;
        let command = match r.u8()? {
            kind::INIT_CLUSTER => Self::InitCluster {
                cluster_id: r.uuid()?,
                feature_level: r.u16()?,
            },
            kind::REGISTER_BROKER => Self::RegisterBroker(r.registration()?),
            kind::UNFENCE_BROKER => Self::UnfenceBroker(r.guard()?),
            kind::FENCE_BROKER => Self::FenceBroker(r.guard()?),
            kind::UNREGISTER_BROKER => Self::UnregisterBroker { broker: r.broker()? },
            kind::CREATE_TOPIC => Self::CreateTopic(r.topic()?),
            kind::DELETE_TOPIC => Self::DeleteTopic { topic: r.uuid()? },
            kind::CREATE_PARTITIONS => Self::CreatePartitions(CreatePartitions {
                topic: r.uuid()?,
                count: r.i32()?,
                assignments: r.option(Reader::assignments)?,
            }),
            kind::ALTER_CONFIGS => Self::AlterConfigs(AlterConfigs {
                resource: r.resource()?,
                replace: r.bool()?,
                ops: r.list(|r| Ok((r.str()?, r.config_op()?)))?,
            }),
            kind::CHANGE_PARTITION => Self::ChangePartition(ChangePartition {
                topic: r.uuid()?,
                partition: PartitionIndex(r.i32()?),
                leader: r.guard()?,
                leader_epoch: LeaderEpoch(r.i32()?),
                partition_epoch: PartitionEpoch(r.i32()?),
                isr: r.list(Reader::guard)?,
            }),
            kind::ELECT_LEADER => Self::ElectLeader(ElectLeader {
                topic: r.uuid()?,
                partition: PartitionIndex(r.i32()?),
                election: match r.u8()? {
                    0 => Election::Preferred,
                    1 => Election::Unclean,
                    _ => return Err(r.damaged("an unknown election")),
                },
            }),
            kind::ALLOCATE_PRODUCER_IDS => Self::AllocateProducerIds(r.guard()?),
            kind::SET_FEATURE_LEVEL => Self::SetFeatureLevel { level: r.u16()? },
            _ => return Err(r.damaged("an unknown command")),
        };
        r.end()?;
        Ok(command)
    }
}

impl Writer {
    fn guard(&mut self, guard: BrokerGuard) {
        self.i32(guard.broker.get());
        self.i64(guard.epoch.get());
    }

    fn guarded(&mut self, kind: u8, guard: BrokerGuard) {
        self.u8(kind);
        self.guard(guard);
    }

    pub(super) fn host_port(&mut self, endpoint: &HostPort) {
        self.str(&endpoint.host);
        self.u16(endpoint.port);
    }

    pub(super) fn features(&mut self, features: FeatureRange) {
        self.u16(features.min);
        self.u16(features.max);
    }

    fn registration(&mut self, registration: &RegisterBroker) {
        self.i32(registration.broker.get());
        self.uuid(registration.incarnation);
        self.host_port(&registration.kafka);
        self.host_port(&registration.cluster);
        self.option(registration.rack.as_deref(), Self::str);
        self.features(registration.features);
        self.i64(registration.at.get());
    }

    pub(super) fn broker_list(&mut self, brokers: &[BrokerId]) {
        self.list(brokers.iter(), |w, broker| w.i32(broker.get()));
    }

    fn assignments(&mut self, assignments: &[Vec<BrokerId>]) {
        self.list(assignments.iter(), |w, replicas| w.broker_list(replicas));
    }

    fn topic(&mut self, topic: &CreateTopic) {
        self.uuid(topic.id);
        self.str(&topic.name);
        match &topic.placement {
            Placement::Automatic {
                partitions,
                replication_factor,
            } => {
                self.u8(0);
                self.i32(*partitions);
                self.i16(*replication_factor);
            }
            Placement::Manual(assignments) => {
                self.u8(1);
                self.assignments(assignments);
            }
        }
        self.list(topic.configs.iter(), |w, (key, value)| {
            w.str(key);
            w.str(value);
        });
        self.i64(topic.at.get());
    }

    pub(super) fn resource(&mut self, resource: &ConfigResource) {
        match resource {
            ConfigResource::Topic(name) => {
                self.u8(0);
                self.str(name);
            }
            ConfigResource::Broker(id) => {
                self.u8(1);
                self.i32(id.get());
            }
            ConfigResource::ClusterDefault => self.u8(2),
            ConfigResource::Group(name) => {
                self.u8(3);
                self.str(name);
            }
        }
    }

    fn config_changes(&mut self, request: &AlterConfigs) {
        self.resource(&request.resource);
        self.bool(request.replace);
        self.list(request.ops.iter(), |w, (key, op)| {
            w.str(key);
            w.config_op(op);
        });
    }

    fn partition_change(&mut self, request: &ChangePartition) {
        self.uuid(request.topic);
        self.i32(request.partition.get());
        self.guard(request.leader);
        self.i32(request.leader_epoch.get());
        self.i32(request.partition_epoch.get());
        self.list(request.isr.iter(), |w, member| w.guard(*member));
    }

    fn config_op(&mut self, op: &ConfigOp) {
        match op {
            ConfigOp::Set(value) => {
                self.u8(0);
                self.str(value);
            }
            ConfigOp::Delete => self.u8(1),
            ConfigOp::Append { values, default } => {
                self.u8(2);
                self.list(values.iter(), |w, value| w.str(value));
                self.str(default);
            }
            ConfigOp::Subtract { values, default } => {
                self.u8(3);
                self.list(values.iter(), |w, value| w.str(value));
                self.str(default);
            }
        }
    }
}

impl Reader<'_> {
    pub(super) fn broker(&mut self) -> Read<BrokerId> {
        self.i32().map(BrokerId)
    }

    fn guard(&mut self) -> Read<BrokerGuard> {
        Ok(BrokerGuard {
            broker: self.broker()?,
            epoch: BrokerEpoch(self.i64()?),
        })
    }

    pub(super) fn host_port(&mut self) -> Read<HostPort> {
        Ok(HostPort {
            host: self.str()?,
            port: self.u16()?,
        })
    }

    pub(super) fn features(&mut self) -> Read<FeatureRange> {
        Ok(FeatureRange {
            min: self.u16()?,
            max: self.u16()?,
        })
    }

    fn registration(&mut self) -> Read<RegisterBroker> {
        Ok(RegisterBroker {
            broker: self.broker()?,
            incarnation: self.uuid()?,
            kafka: self.host_port()?,
            cluster: self.host_port()?,
            rack: self.option(Self::str)?,
            features: self.features()?,
            at: WallMs(self.i64()?),
        })
    }

    fn assignments(&mut self) -> Read<Vec<Vec<BrokerId>>> {
        self.list(|r| r.list(Self::broker))
    }

    fn topic(&mut self) -> Read<CreateTopic> {
        Ok(CreateTopic {
            id: self.uuid()?,
            name: self.str()?,
            placement: match self.u8()? {
                0 => Placement::Automatic {
                    partitions: self.i32()?,
                    replication_factor: self.i16()?,
                },
                1 => Placement::Manual(self.assignments()?),
                _ => return Err(self.damaged("an unknown placement")),
            },
            configs: self.list(|r| Ok((r.str()?, r.str()?)))?,
            at: WallMs(self.i64()?),
        })
    }

    pub(super) fn resource(&mut self) -> Read<ConfigResource> {
        Ok(match self.u8()? {
            0 => ConfigResource::Topic(self.str()?),
            1 => ConfigResource::Broker(self.broker()?),
            2 => ConfigResource::ClusterDefault,
            3 => ConfigResource::Group(self.str()?),
            _ => return Err(self.damaged("an unknown resource")),
        })
    }

    fn config_op(&mut self) -> Read<ConfigOp> {
        Ok(match self.u8()? {
            0 => ConfigOp::Set(self.str()?),
            1 => ConfigOp::Delete,
            2 => ConfigOp::Append {
                values: self.list(Self::str)?,
                default: self.str()?,
            },
            3 => ConfigOp::Subtract {
                values: self.list(Self::str)?,
                default: self.str()?,
            },
            _ => return Err(self.damaged("an unknown change of a configuration")),
        })
    }
}
