use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use skerry_types::WallMs;

use super::wire::{DecodeError, Reader, Writer};

/// A classic group as it stands in the log.
///
/// | field | type | versions |
/// |---|---|---|
/// | version | `i16` | |
/// | protocol type | string | 0 to 4 |
/// | generation | `i32` | 0 to 4 |
/// | protocol, leader | nullable string | 0 to 4 |
/// | current state timestamp | `i64` | 2 to 4 |
/// | members | array of [`MemberMetadata`] | 0 to 4 |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMetadataValue {
    /// `consumer`, `connect`, ...; empty for a group that never had members.
    pub protocol_type: Arc<str>,
    /// The generation.
    pub generation: i32,
    /// The chosen protocol; none in an empty group.
    pub protocol: Option<Arc<str>>,
    /// The leader's member id; none in an empty group.
    pub leader: Option<Arc<str>>,
    /// Since when the group is in its state (KIP-211); -1 in old records.
    pub current_state_timestamp: WallMs,
    /// The members of the generation.
    pub members: Vec<MemberMetadata>,
}

/// A member of a group as it stands in the log.
///
/// | field | type | versions |
/// |---|---|---|
/// | member id | string | 0 to 4 |
/// | group instance id | nullable string | 3 and 4 |
/// | client id, client host | string | 0 to 4 |
/// | rebalance timeout | `i32` | 1 to 4 |
/// | session timeout | `i32` | 0 to 4 |
/// | subscription, assignment | bytes | 0 to 4 |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberMetadata {
    /// The member.
    pub member_id: Arc<str>,
    /// KIP-345.
    pub group_instance_id: Option<Arc<str>>,
    /// From its JoinGroup.
    pub client_id: Arc<str>,
    /// From its JoinGroup.
    pub client_host: Arc<str>,
    /// -1 in old records: the session timeout counts.
    pub rebalance_timeout_ms: i32,
    /// How long it may be silent.
    pub session_timeout_ms: i32,
    /// What it said about the chosen protocol.
    pub subscription: Bytes,
    /// What the leader gave it.
    pub assignment: Bytes,
}

impl GroupMetadataValue {
    /// Version 3.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let members: usize = self.members.iter().map(MemberMetadata::encoded_len).sum();
        let mut writer = Writer::with_capacity(64 + self.protocol_type.len() + members);
        writer.i16(3);
        writer.string(&self.protocol_type);
        writer.i32(self.generation);
        writer.nullable_string(self.protocol.as_deref());
        writer.nullable_string(self.leader.as_deref());
        writer.i64(self.current_state_timestamp.get());
        writer.count(self.members.len());
        for member in &self.members {
            writer.string(&member.member_id);
            writer.nullable_string(member.group_instance_id.as_deref());
            writer.string(&member.client_id);
            writer.string(&member.client_host);
            writer.i32(member.rebalance_timeout_ms);
            writer.i32(member.session_timeout_ms);
            writer.bytes(&member.subscription);
            writer.bytes(&member.assignment);
        }
        writer.finish()
    }

    /// Reads versions 0 to 4. Bytes after the last field are ignored, as Kafka ignores them.
    ///
    /// # Errors
    /// A value that is cut short, of an unknown version, or that contradicts itself: two members of one name, two
    /// static members of one name, members without a protocol.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(value);
        let version = reader.i16("version")?;
        match version {
            0..=3 => {}
            4 => reader.set_flexible(),
            unknown => return Err(DecodeError::UnknownVersion(unknown)),
        }
        let protocol_type = reader.string("protocol type")?;
        let generation = reader.i32("generation")?;
        let protocol = reader.nullable_string("protocol")?;
        let leader = reader.nullable_string("leader")?;
        let current_state_timestamp = if version >= 2 {
            WallMs(reader.i64("current state timestamp")?)
        } else {
            WallMs::NONE
        };
        let mut members = Vec::new();
        for _ in 0..reader.count("members")? {
            members.push(MemberMetadata::decode(&mut reader, version)?);
        }
        reader.skip_tags()?;
        let value = Self {
            protocol_type,
            generation,
            protocol,
            leader,
            current_state_timestamp,
            members,
        };
        value.check()?;
        Ok(value)
    }

    fn check(&self) -> Result<(), DecodeError> {
        let mut ids = BTreeSet::new();
        let mut instances = BTreeSet::new();
        for member in &self.members {
            if !ids.insert(&member.member_id) {
                return Err(DecodeError::Inconsistent("two members have one member id"));
            }
            if member
                .group_instance_id
                .as_ref()
                .is_some_and(|id| !instances.insert(id))
            {
                return Err(DecodeError::Inconsistent(
                    "two members have one group instance id",
                ));
            }
        }
        if !self.members.is_empty() && (self.protocol.is_none() || self.protocol_type.is_empty()) {
            return Err(DecodeError::Inconsistent(
                "a group with members and without a protocol",
            ));
        }
        Ok(())
    }
}

impl MemberMetadata {
    fn encoded_len(&self) -> usize {
        64 + self.member_id.len() + self.client_id.len() + self.subscription.len() + self.assignment.len()
    }

    fn decode(reader: &mut Reader<'_>, version: i16) -> Result<Self, DecodeError> {
        let member_id = reader.string("member id")?;
        let group_instance_id = if version >= 3 {
            reader.nullable_string("group instance id")?
        } else {
            None
        };
        let client_id = reader.string("client id")?;
        let client_host = reader.string("client host")?;
        let rebalance_timeout_ms = if version >= 1 {
            reader.i32("rebalance timeout")?
        } else {
            -1
        };
        let session_timeout_ms = reader.i32("session timeout")?;
        let subscription = reader.bytes("subscription")?;
        let assignment = reader.bytes("assignment")?;
        reader.skip_tags()?;
        Ok(Self {
            member_id,
            group_instance_id,
            client_id,
            client_host,
            rebalance_timeout_ms,
            session_timeout_ms,
            subscription,
            assignment,
        })
    }
}
