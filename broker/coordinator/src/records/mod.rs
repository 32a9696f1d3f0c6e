//! The records of `__consumer_offsets` that concern classic groups, byte for byte as Kafka writes them.
//!
//! | bytes | field of the key | type |
//! |---|---|---|
//! | `i16` | record type | 0 and 1: offset commit; 2: group metadata; all others belong to other group types |
//! | string | group | length `i16`, UTF-8 |
//! | string, `i32` | topic, partition | only types 0 and 1 |
//!
//! A value begins with its version (`i16`); a null value is a tombstone. The versions are written beside their
//! fields in [`OffsetCommitValue`] and [`GroupMetadataValue`]. Strings and bytes of the flexible versions (4) carry
//! an unsigned varint of length + 1 instead, and each struct ends in tagged fields (KIP-482); unknown ones are skipped.

mod group_metadata;
mod offset_commit;
mod wire;

use std::sync::Arc;

use bytes::Bytes;
use skerry_types::TopicPartition;

pub use group_metadata::{GroupMetadataValue, MemberMetadata};
pub use offset_commit::OffsetCommitValue;
pub use wire::DecodeError;
pub(crate) use wire::Reader;
use wire::Writer;

/// The longest string that a record can carry: its length is an `i16`.
pub const STRING_BYTES_MAX: usize = i16::MAX as usize;

const OFFSET_COMMIT_KEY_OLDEST: i16 = 0;
const OFFSET_COMMIT_KEY: i16 = 1;
const GROUP_METADATA_KEY: i16 = 2;

/// What a record is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordKey {
    /// An offset of a group.
    OffsetCommit {
        /// The group.
        group: Arc<str>,
        /// The topic and partition.
        partition: TopicPartition,
    },
    /// A classic group: generation, members, assignments.
    GroupMetadata {
        /// The group.
        group: Arc<str>,
    },
    /// Another group type's record (KIP-848, 932, 1071), or one of the future.
    Other(i16),
}

impl RecordKey {
    /// The key of the record that holds, or deletes, an offset.
    #[must_use]
    pub fn encode_offset_commit(group: &str, partition: &TopicPartition) -> Bytes {
        let mut writer = Writer::with_capacity(10 + group.len() + partition.topic.len());
        writer.i16(OFFSET_COMMIT_KEY);
        writer.string(group);
        writer.string(&partition.topic);
        writer.i32(partition.partition.get());
        writer.finish()
    }

    /// The key of the record that holds, or deletes, a group.
    #[must_use]
    pub fn encode_group_metadata(group: &str) -> Bytes {
        let mut writer = Writer::with_capacity(4 + group.len());
        writer.i16(GROUP_METADATA_KEY);
        writer.string(group);
        writer.finish()
    }

    /// Reads a key.
    ///
    /// # Errors
    /// A key of a known type that is cut short or not UTF-8.
    pub fn decode(key: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(key);
        match reader.i16("record type")? {
            OFFSET_COMMIT_KEY_OLDEST | OFFSET_COMMIT_KEY => {
                let group = reader.string("group")?;
                let topic = reader.string("topic")?;
                let partition = reader.i32("partition")?;
                Ok(Self::OffsetCommit {
                    group,
                    partition: TopicPartition::new(topic, partition),
                })
            }
            GROUP_METADATA_KEY => Ok(Self::GroupMetadata {
                group: reader.string("group")?,
            }),
            other => Ok(Self::Other(other)),
        }
    }
}

#[cfg(test)]
mod tests;
