//! Commands as bytes.

use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, WallMs};

use super::DecodeError;
use super::wire::{Read, Reader, Writer};
use crate::command::{
    AlterConfigs, AlterReassignment, BrokerGuard, ChangePartition, Command, ConfigOp, CreatePartitions,
    CreateTopic, ElectLeader, Election, FeatureRange, Placement, RegisterBroker, ReplicaLost, ReplicaOffline,
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
    pub(super) const DRAIN_BROKER: u8 = 14;
    pub(super) const REPLICA_LOST: u8 = 15;
    pub(super) const ALTER_REASSIGNMENT: u8 = 16;
    pub(super) const BATCH: u8 = 17;
    pub(super) const REPLICA_OFFLINE: u8 = 18;
    pub(super) const QUORUM_RECOVERED: u8 = 19;
}

impl Command {
    /// The command as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(COMMAND_VERSION);
        w.command(self);
        w.finish()
    }

    /// Reads what [`Command::encode`] wrote.
    ///
    /// # Errors
    /// A newer version, or damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("a metadata command", bytes, COMMAND_VERSION)?;
        let kind = r.u8()?;
        let command = if kind == kind::BATCH {
            Self::Batch(r.list(|r| {
                let kind = r.u8()?;
                r.command(kind)
            })?)
        } else {
            r.command(kind)?
        };
        r.end()?;
        Ok(command)
    }
}

impl Writer {
    fn command(&mut self, command: &Command) {
        match command {
            Command::InitCluster {
                cluster_id,
                feature_level,
            } => {
                self.u8(kind::INIT_CLUSTER);
                self.uuid(*cluster_id);
                self.u16(*feature_level);
            }
            Command::RegisterBroker(registration) => {
                self.u8(kind::REGISTER_BROKER);
                self.registration(registration);
            }
            Command::UnfenceBroker(guard) => self.guarded(kind::UNFENCE_BROKER, *guard),
            Command::FenceBroker(guard) => self.guarded(kind::FENCE_BROKER, *guard),
            Command::DrainBroker(guard) => self.guarded(kind::DRAIN_BROKER, *guard),
            Command::UnregisterBroker { broker } => {
                self.u8(kind::UNREGISTER_BROKER);
                self.i32(broker.get());
            }
            Command::CreateTopic(topic) => {
                self.u8(kind::CREATE_TOPIC);
                self.topic(topic);
            }
            Command::DeleteTopic { topic } => {
                self.u8(kind::DELETE_TOPIC);
                self.uuid(*topic);
            }
            Command::CreatePartitions(request) => {
                self.u8(kind::CREATE_PARTITIONS);
                self.uuid(request.topic);
                self.i32(request.count);
                self.option(request.assignments.as_ref(), |w, assignments| {
                    w.assignments(assignments);
                });
            }
            Command::AlterConfigs(request) => {
                self.u8(kind::ALTER_CONFIGS);
                self.config_changes(request);
            }
            Command::ChangePartition(_)
            | Command::ReplicaLost(_)
            | Command::ReplicaOffline(_)
            | Command::ElectLeader(_)
            | Command::AlterReassignment(_) => self.partition_command(command),
            Command::AllocateProducerIds(guard) => self.guarded(kind::ALLOCATE_PRODUCER_IDS, *guard),
            Command::SetFeatureLevel { level } => {
                self.u8(kind::SET_FEATURE_LEVEL);
                self.u16(*level);
            }
            Command::QuorumRecovered { survivor } => {
                self.u8(kind::QUORUM_RECOVERED);
                self.i32(survivor.get());
            }
            Command::Batch(commands) => {
                self.u8(kind::BATCH);
                self.list(commands.iter(), Self::command);
            }
        }
    }

    fn partition_command(&mut self, command: &Command) {
        match command {
            Command::ChangePartition(request) => {
                self.u8(kind::CHANGE_PARTITION);
                self.partition_change(request);
            }
            Command::ReplicaLost(request) => {
                self.guarded(kind::REPLICA_LOST, request.replica);
                self.uuid(request.topic);
                self.i32(request.partition.get());
            }
            Command::ReplicaOffline(request) => {
                self.guarded(kind::REPLICA_OFFLINE, request.replica);
                self.uuid(request.topic);
                self.i32(request.partition.get());
                self.bool(request.is_offline);
            }
            Command::ElectLeader(request) => {
                self.u8(kind::ELECT_LEADER);
                self.uuid(request.topic);
                self.i32(request.partition.get());
                self.u8(match request.election {
                    Election::Preferred => 0,
                    Election::Unclean => 1,
                });
            }
            Command::AlterReassignment(request) => {
                self.u8(kind::ALTER_REASSIGNMENT);
                self.uuid(request.topic);
                self.i32(request.partition.get());
                self.option(request.target.as_deref(), Self::broker_list);
                self.bool(request.may_change_factor);
            }
            other => unreachable!("{other:?} is not about one partition"),
        }
    }
}

impl Reader<'_> {
    /// A command of `kind` that is no batch.
    fn command(&mut self, kind: u8) -> Read<Command> {
        Ok(match kind {
            kind::INIT_CLUSTER => Command::InitCluster {
                cluster_id: self.uuid()?,
                feature_level: self.u16()?,
            },
            kind::REGISTER_BROKER => Command::RegisterBroker(self.registration()?),
            kind::UNFENCE_BROKER => Command::UnfenceBroker(self.guard()?),
            kind::FENCE_BROKER => Command::FenceBroker(self.guard()?),
            kind::DRAIN_BROKER => Command::DrainBroker(self.guard()?),
            kind::UNREGISTER_BROKER => Command::UnregisterBroker {
                broker: self.broker()?,
            },
            kind::CREATE_TOPIC => Command::CreateTopic(self.topic()?),
            kind::DELETE_TOPIC => Command::DeleteTopic { topic: self.uuid()? },
            kind::CREATE_PARTITIONS => Command::CreatePartitions(CreatePartitions {
                topic: self.uuid()?,
                count: self.i32()?,
                assignments: self.option(Self::assignments)?,
            }),
            kind::ALTER_CONFIGS => Command::AlterConfigs(AlterConfigs {
                resource: self.resource()?,
                replace: self.bool()?,
                ops: self.list(|r| Ok((r.str()?, r.config_op()?)))?,
            }),
            kind::ALLOCATE_PRODUCER_IDS => Command::AllocateProducerIds(self.guard()?),
            kind::SET_FEATURE_LEVEL => Command::SetFeatureLevel { level: self.u16()? },
            kind::QUORUM_RECOVERED => Command::QuorumRecovered {
                survivor: self.broker()?,
            },
            other => self.partition_command(other)?,
        })
    }

    fn partition_command(&mut self, kind: u8) -> Read<Command> {
        Ok(match kind {
            kind::CHANGE_PARTITION => Command::ChangePartition(ChangePartition {
                topic: self.uuid()?,
                partition: PartitionIndex(self.i32()?),
                leader: self.guard()?,
                leader_epoch: LeaderEpoch(self.i32()?),
                partition_epoch: PartitionEpoch(self.i32()?),
                isr: self.list(Self::guard)?,
            }),
            kind::REPLICA_LOST => Command::ReplicaLost(ReplicaLost {
                replica: self.guard()?,
                topic: self.uuid()?,
                partition: PartitionIndex(self.i32()?),
            }),
            kind::REPLICA_OFFLINE => Command::ReplicaOffline(ReplicaOffline {
                replica: self.guard()?,
                topic: self.uuid()?,
                partition: PartitionIndex(self.i32()?),
                is_offline: self.bool()?,
            }),
            kind::ELECT_LEADER => Command::ElectLeader(ElectLeader {
                topic: self.uuid()?,
                partition: PartitionIndex(self.i32()?),
                election: match self.u8()? {
                    0 => Election::Preferred,
                    1 => Election::Unclean,
                    _ => return Err(self.damaged("an unknown election")),
                },
            }),
            kind::ALTER_REASSIGNMENT => Command::AlterReassignment(AlterReassignment {
                topic: self.uuid()?,
                partition: PartitionIndex(self.i32()?),
                target: self.option(|r| r.list(Self::broker))?,
                may_change_factor: self.bool()?,
            }),
            _ => return Err(self.damaged("an unknown command")),
        })
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
        self.uuid(registration.directory);
        self.bool(registration.clean);
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
            directory: self.uuid()?,
            clean: self.bool()?,
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
