//! Outcomes as bytes: from the leader to the node that forwarded a command. Never on disk.

use skerry_types::{BrokerEpoch, LeaderEpoch, PartitionEpoch, ProducerId};

use super::DecodeError;
use super::wire::{Read, Reader, Writer};
use crate::outcome::{Outcome, Refusal};

/// The newest version of an outcome that this program writes and reads.
const OUTCOME_VERSION: u8 = 1;
/// The kind of a list of outcomes.
const BATCH: u8 = 8;

impl Outcome {
    /// The outcome as bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new(OUTCOME_VERSION);
        w.outcome(self);
        w.finish()
    }

    /// Reads what [`Outcome::encode`] wrote.
    ///
    /// # Errors
    /// A newer version, or damage.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("the outcome of a metadata command", bytes, OUTCOME_VERSION)?;
        let kind = r.u8()?;
        let outcome = if kind == BATCH {
            Self::Batch(r.list(|r| {
                let kind = r.u8()?;
                r.outcome(kind)
            })?)
        } else {
            r.outcome(kind)?
        };
        r.end()?;
        Ok(outcome)
    }
}

impl Writer {
    fn outcome(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Done => self.u8(0),
            Outcome::ClusterId(id) => {
                self.u8(1);
                self.uuid(*id);
            }
            Outcome::BrokerRegistered { epoch } => {
                self.u8(2);
                self.i64(epoch.get());
            }
            Outcome::TopicCreated { id } => {
                self.u8(3);
                self.uuid(*id);
            }
            Outcome::PartitionChanged {
                leader_epoch,
                partition_epoch,
            } => {
                self.u8(4);
                self.i32(leader_epoch.get());
                self.i32(partition_epoch.get());
            }
            Outcome::ProducerIds { first } => {
                self.u8(5);
                self.i64(first.get());
            }
            Outcome::Refused(refusal) => {
                self.u8(6);
                self.refusal(refusal);
            }
            Outcome::BrokerDrained { leading } => {
                self.u8(7);
                self.u32(*leading);
            }
            Outcome::Batch(outcomes) => {
                self.u8(BATCH);
                self.list(outcomes.iter(), Self::outcome);
            }
        }
    }
}

impl Reader<'_> {
    /// An outcome of `kind` that is no batch.
    fn outcome(&mut self, kind: u8) -> Read<Outcome> {
        Ok(match kind {
            0 => Outcome::Done,
            1 => Outcome::ClusterId(self.uuid()?),
            2 => Outcome::BrokerRegistered {
                epoch: BrokerEpoch(self.i64()?),
            },
            3 => Outcome::TopicCreated { id: self.uuid()? },
            4 => Outcome::PartitionChanged {
                leader_epoch: LeaderEpoch(self.i32()?),
                partition_epoch: PartitionEpoch(self.i32()?),
            },
            5 => Outcome::ProducerIds {
                first: ProducerId(self.i64()?),
            },
            6 => Outcome::Refused(self.refusal()?),
            7 => Outcome::BrokerDrained { leading: self.u32()? },
            _ => return Err(self.damaged("an unknown outcome")),
        })
    }
}

impl Writer {
    fn refusal(&mut self, refusal: &Refusal) {
        // The kind, then its fields.
        match refusal {
            Refusal::TopicExists(name) => self.tagged_str(0, name),
            Refusal::InvalidTopicName(name) => self.tagged_str(1, name),
            Refusal::TopicNameCollides { name, existing } => {
                self.tagged_str(2, name);
                self.str(existing);
            }
            Refusal::UnknownTopic => self.u8(3),
            Refusal::UnknownPartition => self.u8(4),
            Refusal::InvalidPartitions(reason) => self.tagged_str(5, reason),
            Refusal::InvalidReplicationFactor { wanted, available } => {
                self.u8(6);
                self.i16(*wanted);
                self.count(*available);
            }
            Refusal::InvalidReplicaAssignment(reason) => self.tagged_str(7, reason),
            Refusal::TooManyPartitions(count) => {
                self.u8(8);
                self.u64(*count as u64);
            }
            Refusal::UnknownBroker(broker) => self.tagged_i32(9, broker.get()),
            Refusal::StaleBrokerEpoch {
                broker,
                current,
                given,
            } => {
                self.tagged_i32(10, broker.get());
                self.i64(current.get());
                self.i64(given.get());
            }
            Refusal::BrokerInUse(broker) => self.tagged_i32(11, broker.get()),
            Refusal::UnsupportedFeatureLevel { level, broker } => {
                self.u8(12);
                self.u16(*level);
                self.i32(broker.get());
            }
            Refusal::FeatureLevelLowered { current, wanted } => {
                self.u8(13);
                self.u16(*current);
                self.u16(*wanted);
            }
            Refusal::NotLeader(broker) => self.tagged_i32(14, broker.get()),
            Refusal::FencedLeaderEpoch { current, given } => {
                self.tagged_i32(15, current.get());
                self.i32(given.get());
            }
            Refusal::NewerEpoch {
                leader_epoch,
                partition_epoch,
            } => {
                self.tagged_i32(16, leader_epoch.get());
                self.i32(partition_epoch.get());
            }
            Refusal::InvalidUpdateVersion { current, given } => {
                self.tagged_i32(17, current.get());
                self.i32(given.get());
            }
            Refusal::IneligibleReplica(broker) => self.tagged_i32(18, broker.get()),
            Refusal::InvalidIsr(reason) => self.tagged_str(19, reason),
            Refusal::ElectionNotNeeded => self.u8(20),
            Refusal::PreferredLeaderNotAvailable => self.u8(21),
            Refusal::EligibleLeadersNotAvailable => self.u8(22),
            Refusal::LastReplica(broker) => self.tagged_i32(23, broker.get()),
            Refusal::ReassignmentNotFound => self.u8(24),
            Refusal::ReplicationFactorChanged { from, to } => {
                self.u8(25);
                self.count(*from);
                self.count(*to);
            }
            Refusal::BrokerDraining(broker) => self.tagged_i32(26, broker.get()),
            Refusal::NotBatched => self.u8(27),
            Refusal::FeatureLevelTooLow { current, needed } => {
                self.u8(28);
                self.u16(*current);
                self.u16(*needed);
            }
        }
    }

    fn tagged_str(&mut self, kind: u8, text: &str) {
        self.u8(kind);
        self.str(text);
    }

    fn tagged_i32(&mut self, kind: u8, number: i32) {
        self.u8(kind);
        self.i32(number);
    }
}

impl Reader<'_> {
    fn refusal(&mut self) -> Read<Refusal> {
        Ok(match self.u8()? {
            0 => Refusal::TopicExists(self.str()?),
            1 => Refusal::InvalidTopicName(self.str()?),
            2 => Refusal::TopicNameCollides {
                name: self.str()?,
                existing: self.str()?,
            },
            3 => Refusal::UnknownTopic,
            4 => Refusal::UnknownPartition,
            5 => Refusal::InvalidPartitions(self.str()?.as_ref().to_owned()),
            6 => Refusal::InvalidReplicationFactor {
                wanted: self.i16()?,
                available: self.u32()? as usize,
            },
            7 => Refusal::InvalidReplicaAssignment(self.str()?.as_ref().to_owned()),
            8 => Refusal::TooManyPartitions(usize::try_from(self.u64()?).unwrap_or(usize::MAX)),
            9 => Refusal::UnknownBroker(self.broker()?),
            10 => Refusal::StaleBrokerEpoch {
                broker: self.broker()?,
                current: BrokerEpoch(self.i64()?),
                given: BrokerEpoch(self.i64()?),
            },
            11 => Refusal::BrokerInUse(self.broker()?),
            12 => Refusal::UnsupportedFeatureLevel {
                level: self.u16()?,
                broker: self.broker()?,
            },
            13 => Refusal::FeatureLevelLowered {
                current: self.u16()?,
                wanted: self.u16()?,
            },
            14 => Refusal::NotLeader(self.broker()?),
            15 => Refusal::FencedLeaderEpoch {
                current: LeaderEpoch(self.i32()?),
                given: LeaderEpoch(self.i32()?),
            },
            16 => Refusal::NewerEpoch {
                leader_epoch: LeaderEpoch(self.i32()?),
                partition_epoch: PartitionEpoch(self.i32()?),
            },
            17 => Refusal::InvalidUpdateVersion {
                current: PartitionEpoch(self.i32()?),
                given: PartitionEpoch(self.i32()?),
            },
            18 => Refusal::IneligibleReplica(self.broker()?),
            19 => Refusal::InvalidIsr(self.str()?.as_ref().to_owned()),
            20 => Refusal::ElectionNotNeeded,
            21 => Refusal::PreferredLeaderNotAvailable,
            22 => Refusal::EligibleLeadersNotAvailable,
            23 => Refusal::LastReplica(self.broker()?),
            24 => Refusal::ReassignmentNotFound,
            25 => Refusal::ReplicationFactorChanged {
                from: self.u32()? as usize,
                to: self.u32()? as usize,
            },
            26 => Refusal::BrokerDraining(self.broker()?),
            27 => Refusal::NotBatched,
            28 => Refusal::FeatureLevelTooLow {
                current: self.u16()?,
                needed: self.u16()?,
            },
            _ => return Err(self.damaged("an unknown refusal")),
        })
    }
}
