use std::io;

use skerry_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence};

/// A log could not be opened or made. Nothing was changed on disk.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Bytes that were durable are not what was written. Not a torn tail: never cut away, repaired from peers.
    #[error(
        "segment {segment} is damaged at byte {position} (offset {offset}), below what was durable: {why}"
    )]
    Damaged {
        /// Base offset of the segment.
        segment: Offset,
        /// Where in its `.log` file.
        position: u64,
        /// The first offset that is not known to be good.
        offset: Offset,
        /// What is wrong there.
        why: String,
    },
    /// The directory belongs to another topic id, or its name does not fit.
    #[error("the directory {dir} holds {found}, not {expected}")]
    WrongIdentity {
        /// The directory.
        dir: String,
        /// What `partition.metadata` or the name says.
        found: String,
        /// Who was expected.
        expected: String,
    },
    /// `create` where a log is already.
    #[error("{0} holds a log already")]
    Exists(String),
    /// The disk's error.
    #[error("{path}: {source}")]
    Io {
        /// What was being worked on.
        path: String,
        /// The system's error.
        source: io::Error,
    },
}

/// An append was refused; nothing of it is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// An earlier write or sync of this log failed, which is final.
    #[error("the log takes no more writes: {0}")]
    Poisoned(String),
    /// No room on the disk. The file was cut back to where it ended: retry later.
    #[error("no room left on the disk")]
    DiskFull,
    /// The batch is larger than a segment (RECORD_LIST_TOO_LARGE).
    #[error("a batch of {size_bytes} bytes does not fit into a segment of {segment_bytes}")]
    LargerThanSegment {
        /// The batch.
        size_bytes: u64,
        /// `segment.bytes`.
        segment_bytes: u32,
    },
    /// A gap or a repetition that is too old to be recognised (OUT_OF_ORDER_SEQUENCE_NUMBER).
    #[error("producer {producer_id} epoch {epoch}: sequence {found}, expected after {last}")]
    OutOfOrderSequence {
        /// Who.
        producer_id: ProducerId,
        /// Its epoch.
        epoch: ProducerEpoch,
        /// The batch's first sequence.
        found: Sequence,
        /// The last one in the log; -1: none in this epoch.
        last: Sequence,
    },
    /// An earlier instance of the producer (INVALID_PRODUCER_EPOCH).
    #[error("producer {producer_id}: epoch {found} is older than {current}")]
    InvalidProducerEpoch {
        /// Who.
        producer_id: ProducerId,
        /// The batch's.
        found: ProducerEpoch,
        /// The log's.
        current: ProducerEpoch,
    },
    /// A batch outside a transaction from a producer that has one open here (INVALID_TXN_STATE).
    #[error("producer {producer_id} wrote outside of its open transaction")]
    InvalidTxnState {
        /// Who.
        producer_id: ProducerId,
    },
    /// A transaction marker of an earlier coordinator (TRANSACTION_COORDINATOR_FENCED).
    #[error("producer {producer_id}: coordinator epoch {found} is older than {current}")]
    TransactionCoordinatorFenced {
        /// Whose transaction.
        producer_id: ProducerId,
        /// The marker's.
        found: i32,
        /// The log's.
        current: i32,
    },
    /// The epoch is older than the last batch's (NOT_LEADER_OR_FOLLOWER: the caller's leadership is stale).
    #[error("leader epoch {found} is older than {current}")]
    StaleLeaderEpoch {
        /// The caller's.
        found: LeaderEpoch,
        /// The log's.
        current: LeaderEpoch,
    },
    /// A follower's batch that does not continue the log.
    #[error("a batch at offset {found} does not continue a log that ends at {expected}")]
    UnexpectedOffset {
        /// The batch's base offset.
        found: Offset,
        /// The log's end.
        expected: Offset,
    },
    /// A follower's bytes are no whole, intact batches.
    #[error("corrupt batch: {0}")]
    Corrupt(String),
}

/// A read found nothing to give.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Outside of the log.
    #[error("offset {offset} is outside of {log_start} to {log_end}")]
    OutOfRange {
        /// Asked for.
        offset: Offset,
        /// The first.
        log_start: Offset,
        /// One past the last.
        log_end: Offset,
    },
    /// The file does not hold what was written to it.
    #[error("segment {segment} is damaged at byte {position} (offset {offset}): {why}")]
    Damaged {
        /// Base offset of the segment.
        segment: Offset,
        /// Where in its `.log` file.
        position: u64,
        /// The first offset that is not known to be good.
        offset: Offset,
        /// What is wrong there.
        why: String,
    },
    /// The disk's error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Linux's error numbers of a device, or of a file system, that cannot give back what it was given: `EIO`, `EBADMSG`
/// (a checksum of the file system's own), `EUCLEAN` (its structure), `ENODATA` (a medium's error, of some drivers).
const LOST_BY_THE_DEVICE: [i32; 4] = [5, 74, 117, 61];

impl ReadError {
    /// What was written is gone, or is something else now: not a question that makes no sense, nor a system that is
    /// short of something (descriptors, memory) and gives it later.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::OutOfRange { .. } => false,
            Self::Damaged { .. } => true,
            Self::Io(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => true,
                _ => error
                    .raw_os_error()
                    .is_some_and(|number| LOST_BY_THE_DEVICE.contains(&number)),
            },
        }
    }

    /// The first offset that is not known to be good, where the damage was seen in the records themselves.
    #[must_use]
    pub const fn offset(&self) -> Option<Offset> {
        match self {
            Self::Damaged { offset, .. } => Some(*offset),
            _ => None,
        }
    }
}

/// A change of the log's extent (cut, new start, cleaning) failed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// An earlier write or sync of this log failed, which is final.
    #[error("the log takes no more writes: {0}")]
    Poisoned(String),
    /// Outside of the log.
    #[error("offset {offset} is outside of {log_start} to {log_end}")]
    OutOfRange {
        /// Asked for.
        offset: Offset,
        /// The first.
        log_start: Offset,
        /// One past the last.
        log_end: Offset,
    },
    /// The file does not hold what was written to it.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The disk's error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The log takes no more writes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log takes no more writes: {0}")]
pub struct Poisoned(pub String);
