use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use skerry_types::{LeaderEpoch, Offset, TopicPartition, WallMs};

use crate::api::{
    AppendFailure, AppendId, FetchRequest, GroupError, GroupRecord, Protocol, ReplyToken, Response,
};
use crate::records::{OffsetCommitValue, RecordKey};

/// How many bytes of records one append carries where there is a choice (deletions and expiry), so that it fits
/// the smallest usual `max.message.bytes`. A single request's offsets are never split: Kafka writes them as one batch.
pub(crate) const APPEND_BYTES_MAX: usize = 512 * 1024;

/// A committed offset that is durable, and where in the log it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommittedOffset {
    pub(crate) offset: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) metadata: Arc<str>,
    pub(crate) commit_timestamp: WallMs,
    pub(crate) expire_timestamp: Option<WallMs>,
    /// The offset of its record: the newest wins when a transaction ends after a plain commit.
    pub(crate) record_offset: Offset,
}

impl CommittedOffset {
    pub(crate) fn from_record(value: OffsetCommitValue, record_offset: Offset) -> Self {
        let OffsetCommitValue {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp,
            expire_timestamp,
            topic_id: _,
        } = value;
        Self {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp,
            expire_timestamp,
            record_offset,
        }
    }
}

/// What one record changes once it is durable. One change for each record, in the same order.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    PutOffset {
        group: Arc<str>,
        partition: TopicPartition,
        value: OffsetCommitValue,
    },
    RemoveOffset {
        group: Arc<str>,
        partition: TopicPartition,
    },
    PutGroup {
        group: Arc<str>,
        value: Bytes,
    },
    RemoveGroup {
        group: Arc<str>,
    },
}

impl Change {
    pub(crate) fn group(&self) -> &Arc<str> {
        match self {
            Self::PutOffset { group, .. }
            | Self::RemoveOffset { group, .. }
            | Self::PutGroup { group, .. }
            | Self::RemoveGroup { group } => group,
        }
    }

    pub(crate) fn record(&self) -> GroupRecord {
        match self {
            Self::PutOffset {
                group,
                partition,
                value,
            } => GroupRecord {
                key: RecordKey::encode_offset_commit(group, partition),
                value: Some(value.encode()),
            },
            Self::RemoveOffset { group, partition } => GroupRecord {
                key: RecordKey::encode_offset_commit(group, partition),
                value: None,
            },
            Self::PutGroup { group, value } => GroupRecord {
                key: RecordKey::encode_group_metadata(group),
                value: Some(value.clone()),
            },
            Self::RemoveGroup { group } => GroupRecord {
                key: RecordKey::encode_group_metadata(group),
                value: None,
            },
        }
    }
}

/// What happens after an append's changes were made, or were not.
#[derive(Debug)]
pub(crate) enum Then {
    /// Nobody waits for it.
    Nothing,
    /// This answer leaves; after a failure, the same answer with errors in it.
    Reply(ReplyToken, Response),
    /// The leader's assignment becomes the group's.
    Assign {
        group: Arc<str>,
        incarnation: u64,
        generation: i32,
        assignments: BTreeMap<Arc<str>, Bytes>,
    },
    /// A static member that came back under a new member id is told so.
    StaticJoin(Box<StaticJoin>),
    /// The first trace of a group that has members coming.
    NewGroup { group: Arc<str>, incarnation: u64 },
    /// A part of a larger change; the last append answers for all.
    Chunk { last: AppendId },
}

/// A static member that replaced itself without a rebalance, and how to take that back.
#[derive(Debug)]
pub(crate) struct StaticJoin {
    pub(crate) group: Arc<str>,
    pub(crate) incarnation: u64,
    pub(crate) generation: i32,
    pub(crate) token: ReplyToken,
    pub(crate) new_member_id: Arc<str>,
    pub(crate) old_member_id: Arc<str>,
    pub(crate) old_leader: Option<Arc<str>>,
    pub(crate) old_protocols: Vec<Protocol>,
    pub(crate) old_rebalance_timeout_ms: i32,
    pub(crate) old_session_timeout_ms: i32,
    /// KIP-814: JoinGroup 9 and later.
    pub(crate) can_skip_assignment: bool,
}

/// An append that was started and not yet reported.
#[derive(Debug)]
pub(crate) struct PendingAppend {
    pub(crate) changes: Vec<Change>,
    pub(crate) then: Then,
    /// A chunk of the same change has failed.
    pub(crate) earlier_failure: Option<AppendFailure>,
    /// OffsetFetch with `require_stable` waits for what is being written (KIP-447).
    pub(crate) fetches: Vec<(ReplyToken, FetchRequest)>,
}

/// What is being written about one group.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// The newest append, and how many there are.
    pub(crate) last: Option<AppendId>,
    pub(crate) records: usize,
    pub(crate) group_records: usize,
    pub(crate) offsets: BTreeMap<TopicPartition, usize>,
}

impl AppendFailure {
    /// As Kafka's coordinator translates the errors of its own appends.
    pub(crate) const fn group_error(self) -> GroupError {
        match self {
            Self::NotLeader | Self::Storage => GroupError::NotCoordinator,
            Self::NotEnoughReplicas | Self::TimedOut => GroupError::CoordinatorNotAvailable,
            Self::TooLarge => GroupError::UnknownServerError,
        }
    }
}

impl Response {
    /// This answer, had its append failed.
    pub(crate) fn failed(mut self, failure: AppendFailure) -> Self {
        let error = failure.group_error();
        match &mut self {
            Self::Commit(commit) => {
                // Kafka says UNKNOWN_SERVER_ERROR where its documents promise INVALID_COMMIT_OFFSET_SIZE.
                let error = match failure {
                    AppendFailure::TooLarge => GroupError::InvalidCommitOffsetSize,
                    _ => error,
                };
                commit.set_all(error);
            }
            Self::Leave(leave) => {
                leave.error = Some(error);
                leave.members.clear();
            }
            Self::Delete(delete) => {
                for (_, slot) in &mut delete.groups {
                    *slot = Some(error);
                }
            }
            Self::OffsetDelete(delete) => {
                delete.error = Some(error);
                delete.topics.clear();
            }
            Self::Join(_)
            | Self::Sync(_)
            | Self::Heartbeat(_)
            | Self::Fetch(_)
            | Self::Describe(_)
            | Self::List(_) => panic!("no append answers with {self:?}"),
        }
        self
    }
}
