use std::sync::Arc;

use bytes::Bytes;
use skerry_types::{LeaderEpoch, Offset, TopicId, Uuid, WallMs};

use super::wire::{DecodeError, Reader, Writer};

/// The version that is written, as Kafka writes it since 4.1.
const VERSION: i16 = 4;
/// Where the committer chose a retention of its own.
const EXPIRING_VERSION: i16 = 1;
/// The number of the tagged field.
const TOPIC_ID_TAG: u32 = 0;

/// A committed offset as it stands in the log.
///
/// | field | type | versions |
/// |---|---|---|
/// | version | `i16` | |
/// | offset | `i64` | 0 to 4 |
/// | leader epoch | `i32` | 3 and 4 |
/// | metadata | string | 0 to 4 |
/// | commit timestamp | `i64` | 0 to 4 |
/// | expire timestamp | `i64` | 1 |
/// | topic id | tag 0: uuid | 4, where it is known (KIP-848, Kafka 4.1) |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommitValue {
    /// The offset.
    pub offset: Offset,
    /// The epoch of the record before the offset; -1 if it was not told.
    pub leader_epoch: LeaderEpoch,
    /// The committer's own words.
    pub metadata: Arc<str>,
    /// When it was committed, by the coordinator's wall clock.
    pub commit_timestamp: WallMs,
    /// When it ends, if the committer chose a retention of its own (OffsetCommit 2 to 4).
    pub expire_timestamp: Option<WallMs>,
    /// Which of the topics that had this name it was.
    pub topic_id: Option<TopicId>,
}

impl OffsetCommitValue {
    /// Version 4; version 1 if there is an expire timestamp, as Kafka does: the committer that chose one speaks a
    /// version without leader epochs.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(64 + self.metadata.len());
        if let Some(expire) = self.expire_timestamp {
            writer.i16(EXPIRING_VERSION);
            writer.i64(self.offset.get());
            writer.string(&self.metadata);
            writer.i64(self.commit_timestamp.get());
            writer.i64(expire.get());
        } else {
            writer.i16(VERSION);
            writer.set_flexible();
            writer.i64(self.offset.get());
            writer.i32(self.leader_epoch.get());
            writer.string(&self.metadata);
            writer.i64(self.commit_timestamp.get());
            match &self.topic_id {
                Some(id) => writer.tags(&[(TOPIC_ID_TAG, &id.0)]),
                None => writer.tags(&[]),
            }
        }
        writer.finish()
    }

    /// Reads versions 0 to 4. Bytes after the last field are ignored, as Kafka ignores them.
    ///
    /// # Errors
    /// A value that is cut short or of an unknown version.
    pub fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(value);
        let version = reader.i16("version")?;
        match version {
            0..=3 => {}
            4 => reader.set_flexible(),
            unknown => return Err(DecodeError::UnknownVersion(unknown)),
        }
        let offset = Offset(reader.i64("offset")?);
        let leader_epoch = if version >= 3 {
            LeaderEpoch(reader.i32("leader epoch")?)
        } else {
            LeaderEpoch::UNKNOWN
        };
        let metadata = reader.string("metadata")?;
        let commit_timestamp = WallMs(reader.i64("commit timestamp")?);
        let expire_timestamp = match version {
            1 => Some(WallMs(reader.i64("expire timestamp")?)).filter(|at| *at != WallMs::NONE),
            _ => None,
        };
        let mut topic_id = None;
        reader.tags(|tag, bytes| {
            if tag == TOPIC_ID_TAG {
                topic_id = bytes.try_into().ok().map(Uuid);
            }
        })?;
        Ok(Self {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp,
            expire_timestamp,
            topic_id,
        })
    }
}
