use std::sync::Arc;

use bytes::Bytes;
use skerry_types::{LeaderEpoch, Offset, WallMs};

use super::wire::{DecodeError, Reader, Writer};

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
}

impl OffsetCommitValue {
    /// Version 3; version 1 if there is an expire timestamp, as Kafka does: the committer that chose one speaks a
    /// version without leader epochs.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(32 + self.metadata.len());
        writer.i16(if self.expire_timestamp.is_some() { 1 } else { 3 });
        writer.i64(self.offset.get());
        if self.expire_timestamp.is_none() {
            writer.i32(self.leader_epoch.get());
        }
        writer.string(&self.metadata);
        writer.i64(self.commit_timestamp.get());
        if let Some(expire) = self.expire_timestamp {
            writer.i64(expire.get());
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
        reader.skip_tags()?;
        Ok(Self {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp,
            expire_timestamp,
        })
    }
}
