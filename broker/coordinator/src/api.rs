//! What goes into a [`GroupShard`](crate::GroupShard) and what comes out of it.
//!
//! The structs mirror the fields of Kafka's requests and answers, so that the shell's mapping is mechanical. Absent
//! on purpose: throttle times, authorised operations and topic ids; they are the shell's to add. Lists come back in
//! the order of the request, so that a shell that resolved topic ids can zip.

use std::sync::Arc;

use bytes::Bytes;
use skerry_types::{Instant, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId, Uuid, WallMs};

/// Names one request that waits for its answer. The shell chooses it; it is answered exactly once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(pub u64);

/// Names one append to the partition of `__consumer_offsets`; they grow, across unloading too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AppendId(pub u64);

/// The time of an input: sessions and rebalances go by `instant`, commit timestamps and expiry by `wall`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock.
    pub instant: Instant,
    /// The wall clock.
    pub wall: WallMs,
}

/// What the operator can set. Names, units and defaults are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupSettings {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i32,
    /// `group.max.size`
    pub max_size: i32,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_max_bytes: i32,
    /// `offsets.retention.minutes`
    pub offsets_retention_minutes: i32,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
}

impl Default for GroupSettings {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX,
            offset_metadata_max_bytes: 4_096,
            offsets_retention_minutes: 10_080,
            offsets_retention_check_interval_ms: 600_000,
        }
    }
}

/// Exactly Kafka's errors of the group APIs. `None` in an answer is Kafka's NONE.
///
/// No code here: which number goes with a name is the wire's business (the shell has one exhaustive match).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum GroupError {
    /// 14
    #[error("the coordinator is loading the groups")]
    CoordinatorLoadInProgress,
    /// 15
    #[error("the coordinator is not available")]
    CoordinatorNotAvailable,
    /// 16
    #[error("this broker is not the coordinator of the group")]
    NotCoordinator,
    /// 12
    #[error("the metadata of the offset is too large")]
    OffsetMetadataTooLarge,
    /// 22
    #[error("the generation is not the current one")]
    IllegalGeneration,
    /// 23
    #[error("the protocol type or the protocols do not fit the group")]
    InconsistentGroupProtocol,
    /// 24
    #[error("the group id is not valid")]
    InvalidGroupId,
    /// 25
    #[error("the coordinator does not know this member")]
    UnknownMemberId,
    /// 26
    #[error("the session timeout is outside the allowed range")]
    InvalidSessionTimeout,
    /// 27
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// 28
    #[error("the committed offsets do not fit one batch")]
    InvalidCommitOffsetSize,
    /// 68
    #[error("the group has members")]
    NonEmptyGroup,
    /// 69
    #[error("there is no such group")]
    GroupIdNotFound,
    /// 79
    #[error("a member must join again with the member id it was given")]
    MemberIdRequired,
    /// 81
    #[error("the group has reached its maximum size")]
    GroupMaxSizeReached,
    /// 82
    #[error("another member uses this group instance id")]
    FencedInstanceId,
    /// 86
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
    /// 88
    #[error("a transaction on this offset is not finished")]
    UnstableOffsetCommit,
    /// -1
    #[error("the record of the group does not fit one batch")]
    UnknownServerError,
}

/// Why an append did not become durable; its fate in the log may be unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendFailure {
    /// This broker no longer leads the partition.
    #[error("not the leader of the partition")]
    NotLeader,
    /// The log failed.
    #[error("the log failed")]
    Storage,
    /// Too few replicas in sync, before or after the append.
    #[error("not enough replicas in sync")]
    NotEnoughReplicas,
    /// `offsets.commit.timeout.ms` went by.
    #[error("not replicated in time")]
    TimedOut,
    /// The batch is larger than the topic allows.
    #[error("the batch is too large")]
    TooLarge,
}

/// One request, together with what the shell knows about the one who sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// JoinGroup
    Join(JoinRequest),
    /// SyncGroup
    Sync(SyncRequest),
    /// Heartbeat
    Heartbeat(HeartbeatRequest),
    /// LeaveGroup
    Leave(LeaveRequest),
    /// OffsetCommit
    Commit(CommitRequest),
    /// OffsetFetch, one group of it
    Fetch(FetchRequest),
    /// DescribeGroups, the groups of this partition
    Describe(DescribeRequest),
    /// ListGroups
    List(ListRequest),
    /// DeleteGroups, the groups of this partition
    Delete(DeleteRequest),
    /// OffsetDelete
    OffsetDelete(OffsetDeleteRequest),
}

/// The answer to the [`Request`] variant of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Response {
    /// JoinGroup
    Join(JoinResponse),
    /// SyncGroup
    Sync(SyncResponse),
    /// Heartbeat
    Heartbeat(HeartbeatResponse),
    /// LeaveGroup
    Leave(LeaveResponse),
    /// OffsetCommit
    Commit(CommitResponse),
    /// OffsetFetch, one group of it
    Fetch(FetchResponse),
    /// DescribeGroups
    Describe(DescribeResponse),
    /// ListGroups
    List(ListResponse),
    /// DeleteGroups
    Delete(DeleteResponse),
    /// OffsetDelete
    OffsetDelete(OffsetDeleteResponse),
}

/// A protocol that a member supports: its name and what it has to say about it (for consumers: its subscription).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    /// For consumers, the assignor's name.
    pub name: Arc<str>,
    /// Opaque to the coordinator, except that it looks for the topics of a consumer's subscription.
    pub metadata: Bytes,
}

/// JoinGroup. The version decides about KIP-394 (4) and KIP-814 (9), and about the rebalance timeout (0 has none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRequest {
    /// The version of the request.
    pub version: i16,
    /// From the request's header; empty where it is null.
    pub client_id: Arc<str>,
    /// The peer's address as Kafka writes it: `/127.0.0.1`.
    pub client_host: Arc<str>,
    /// 128 random bits: the member id, if one is needed, ends in them.
    pub new_member_id: Uuid,
    /// The group.
    pub group_id: Arc<str>,
    /// How long the member may be silent.
    pub session_timeout_ms: i32,
    /// How long the member may take to join again; ignored in version 0, which has none.
    pub rebalance_timeout_ms: i32,
    /// Empty for a new member.
    pub member_id: Arc<str>,
    /// KIP-345.
    pub group_instance_id: Option<Arc<str>>,
    /// `consumer`, `connect`, ...
    pub protocol_type: Arc<str>,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// KIP-800.
    pub reason: Option<Arc<str>>,
}

/// A member as the leader of the group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinMember {
    /// The member.
    pub member_id: Arc<str>,
    /// KIP-345.
    pub group_instance_id: Option<Arc<str>>,
    /// What the member said about the chosen protocol.
    pub metadata: Bytes,
}

/// JoinGroup's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinResponse {
    /// None: joined.
    pub error: Option<GroupError>,
    /// -1 with an error.
    pub generation_id: i32,
    /// Null on the wire from version 7; empty before.
    pub protocol_type: Option<Arc<str>>,
    /// Null on the wire from version 7; empty before.
    pub protocol_name: Option<Arc<str>>,
    /// Empty with an error.
    pub leader: Arc<str>,
    /// KIP-814.
    pub skip_assignment: bool,
    /// With [`GroupError::MemberIdRequired`], the id to join with.
    pub member_id: Arc<str>,
    /// Only for the leader.
    pub members: Vec<JoinMember>,
}

/// SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// The generation that the member joined.
    pub generation_id: i32,
    /// The member.
    pub member_id: Arc<str>,
    /// KIP-345.
    pub group_instance_id: Option<Arc<str>>,
    /// KIP-559; not checked if absent.
    pub protocol_type: Option<Arc<str>>,
    /// KIP-559; not checked if absent.
    pub protocol_name: Option<Arc<str>>,
    /// From the leader: member id and assignment.
    pub assignments: Vec<(Arc<str>, Bytes)>,
}

/// SyncGroup's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncResponse {
    /// None: assigned.
    pub error: Option<GroupError>,
    /// From version 5.
    pub protocol_type: Option<Arc<str>>,
    /// From version 5.
    pub protocol_name: Option<Arc<str>>,
    /// What the leader assigned to the member.
    pub assignment: Bytes,
}

/// Heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// The member's generation.
    pub generation_id: i32,
    /// The member.
    pub member_id: Arc<str>,
    /// KIP-345.
    pub group_instance_id: Option<Arc<str>>,
}

/// Heartbeat's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeartbeatResponse {
    /// None: go on.
    pub error: Option<GroupError>,
}

/// LeaveGroup. Before version 3: one member, without instance id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// Who leaves.
    pub members: Vec<LeaveMember>,
}

/// One member that leaves, or that an administrator removes by its instance id (then the member id is empty).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveMember {
    /// The member; empty if only the instance id is known.
    pub member_id: Arc<str>,
    /// KIP-345.
    pub group_instance_id: Option<Arc<str>>,
    /// KIP-800.
    pub reason: Option<Arc<str>>,
}

/// LeaveGroup's answer. Before version 3 the error of the one member is the error of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveResponse {
    /// About the whole request; `members` is then empty.
    pub error: Option<GroupError>,
    /// In the order of the request.
    pub members: Vec<LeaveMemberResponse>,
}

/// What became of one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveMemberResponse {
    /// As requested.
    pub member_id: Arc<str>,
    /// As requested.
    pub group_instance_id: Option<Arc<str>>,
    /// None: it has left.
    pub error: Option<GroupError>,
}

/// OffsetCommit. The shell has already answered for topics that do not exist or may not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitRequest {
    /// The version of the request: it decides which error an unknown group gets (9).
    pub version: i16,
    /// The group; may be empty.
    pub group_id: Arc<str>,
    /// -1 for a committer that is not a member.
    pub generation_id: i32,
    /// Empty for a committer that is not a member.
    pub member_id: Arc<str>,
    /// KIP-345.
    pub group_instance_id: Option<Arc<str>>,
    /// Versions 2 to 4; -1: the broker's retention.
    pub retention_time_ms: i64,
    /// What to commit.
    pub topics: Vec<CommitTopic>,
}

/// The offsets of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTopic {
    /// The topic.
    pub name: Arc<str>,
    /// Its id, for the record; the coordinator goes by the name.
    pub id: Option<TopicId>,
    /// Its partitions.
    pub partitions: Vec<CommitPartition>,
}

/// One offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPartition {
    /// The partition.
    pub partition: PartitionIndex,
    /// Any offset may be committed; Kafka checks none.
    pub offset: Offset,
    /// -1 where the version has none.
    pub leader_epoch: LeaderEpoch,
    /// Null and empty are the same.
    pub metadata: Option<Arc<str>>,
}

/// OffsetCommit's answer: an error that concerns the whole request stands at every partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitResponse {
    /// In the order of the request.
    pub topics: Vec<TopicErrors>,
}

/// One error for each partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicErrors {
    /// The topic.
    pub name: Arc<str>,
    /// Its partitions in the order of the request.
    pub partitions: Vec<(PartitionIndex, Option<GroupError>)>,
}

/// OffsetFetch for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// The group; may be empty.
    pub group_id: Arc<str>,
    /// KIP-447: wait for what is being written, and refuse what a transaction may still change.
    pub require_stable: bool,
    /// None: every topic of the group.
    pub topics: Option<Vec<(Arc<str>, Vec<PartitionIndex>)>>,
}

/// OffsetFetch's answer for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchResponse {
    /// As requested.
    pub group_id: Arc<str>,
    /// About the whole group; `topics` is then empty.
    pub error: Option<GroupError>,
    /// In the order of the request; by name if every topic was asked for.
    pub topics: Vec<FetchTopic>,
}

/// The offsets of one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchTopic {
    /// The topic.
    pub name: Arc<str>,
    /// Its partitions.
    pub partitions: Vec<FetchPartition>,
}

/// One offset; where none is committed: offset -1, epoch -1, empty metadata and no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchPartition {
    /// The partition.
    pub partition: PartitionIndex,
    /// -1: none.
    pub offset: Offset,
    /// -1: none.
    pub leader_epoch: LeaderEpoch,
    /// As committed.
    pub metadata: Arc<str>,
    /// Only ever [`GroupError::UnstableOffsetCommit`].
    pub error: Option<GroupError>,
}

/// The states of a classic group; [`GroupState::name`] is what goes to the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupState {
    /// No members; offsets may be left.
    Empty,
    /// Waiting for the members to join (again).
    PreparingRebalance,
    /// The members have joined; waiting for the leader's assignment.
    CompletingRebalance,
    /// Assigned.
    Stable,
    /// There is no such group.
    Dead,
}

impl GroupState {
    /// The state as Kafka names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// DescribeGroups for the groups of this partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeRequest {
    /// The version of the request: from 6 an unknown group is an error, before it is Dead.
    pub version: i16,
    /// The groups.
    pub groups: Vec<Arc<str>>,
}

/// DescribeGroups' answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribeResponse {
    /// In the order of the request.
    pub groups: Vec<DescribedGroup>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// None: found (or Dead, before version 6).
    pub error: Option<GroupError>,
    /// From version 6.
    pub error_message: Option<String>,
    /// As requested.
    pub group_id: Arc<str>,
    /// None with an error other than [`GroupError::GroupIdNotFound`]: empty on the wire.
    pub state: Option<GroupState>,
    /// Empty if the group has none.
    pub protocol_type: Arc<str>,
    /// The chosen protocol; empty unless the group is stable.
    pub protocol_data: Arc<str>,
    /// By member id.
    pub members: Vec<DescribedMember>,
}

/// One member of a described group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// The member.
    pub member_id: Arc<str>,
    /// KIP-345.
    pub group_instance_id: Option<Arc<str>>,
    /// As in its JoinGroup.
    pub client_id: Arc<str>,
    /// As in its JoinGroup.
    pub client_host: Arc<str>,
    /// For the chosen protocol; empty unless the group is stable.
    pub metadata: Bytes,
    /// Its assignment.
    pub assignment: Bytes,
}

/// ListGroups. Filters ignore case; an empty one lets everything through, an unknown word nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// KIP-518.
    pub states: Vec<Arc<str>>,
    /// KIP-848.
    pub types: Vec<Arc<str>>,
}

/// ListGroups' answer for this partition. The shell leaves out a partition that answers
/// [`GroupError::NotCoordinator`]; every other error is that of the whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListResponse {
    /// None: listed.
    pub error: Option<GroupError>,
    /// By group id.
    pub groups: Vec<ListedGroup>,
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group_id: Arc<str>,
    /// Empty if the group has none.
    pub protocol_type: Arc<str>,
    /// From version 4.
    pub state: GroupState,
    /// From version 5: `classic`.
    pub group_type: &'static str,
}

/// DeleteGroups for the groups of this partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRequest {
    /// The groups.
    pub groups: Vec<Arc<str>>,
}

/// DeleteGroups' answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteResponse {
    /// In the order of the request.
    pub groups: Vec<(Arc<str>, Option<GroupError>)>,
}

/// OffsetDelete. The shell has already answered for topics that do not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetDeleteRequest {
    /// The group.
    pub group_id: Arc<str>,
    /// What to forget.
    pub topics: Vec<(Arc<str>, Vec<PartitionIndex>)>,
}

/// OffsetDelete's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetDeleteResponse {
    /// About the whole request; `topics` is then empty.
    pub error: Option<GroupError>,
    /// In the order of the request.
    pub topics: Vec<TopicErrors>,
}

/// A record of `__consumer_offsets`: key, and value or tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRecord {
    /// Record type and what it is about.
    pub key: Bytes,
    /// None: a tombstone.
    pub value: Option<Bytes>,
}

/// What the shell must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Append these records as one batch with acks=all, then report to
    /// [`GroupShard::on_appended`](crate::GroupShard::on_appended). Appends keep their order in the log.
    Append {
        /// In this order; the first has the batch's base offset.
        records: Vec<GroupRecord>,
        /// To report.
        then: AppendId,
    },
    /// Answer a request.
    Reply(ReplyToken, Response),
    /// For the log and the metrics; nothing to do.
    Event(GroupEvent),
}

/// Something an operator may want to read about or count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupEvent {
    /// The group; empty if it concerns the whole partition.
    pub group_id: Arc<str>,
    /// What happened.
    pub kind: GroupEventKind,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEventKind {
    /// The members are called to join again.
    Rebalancing {
        /// The generation that ends.
        generation: i32,
        /// Why (KIP-800).
        reason: String,
    },
    /// All have joined and wait for the leader's assignment.
    GenerationStarted {
        /// The new generation.
        generation: i32,
        /// How many members it has.
        members: usize,
    },
    /// The assignment is durable and sent.
    Stabilised {
        /// The generation.
        generation: i32,
    },
    /// A member was removed without asking for it.
    MemberRemoved {
        /// The member.
        member_id: Arc<str>,
        /// Why.
        reason: &'static str,
    },
    /// Nobody came to the rebalance; it goes on until the static members' sessions end.
    RebalancePostponed,
    /// An append failed; what it would have changed was not changed.
    AppendFailed {
        /// The append.
        append: AppendId,
        /// Why.
        failure: AppendFailure,
    },
    /// Offsets expired or were deleted with their topic.
    OffsetsRemoved {
        /// How many.
        offsets: usize,
    },
}

/// Where a record of the log comes from, for [`GroupShard::replay`](crate::GroupShard::replay).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordOrigin {
    /// The record's offset.
    pub offset: Offset,
    /// The producer of a transactional batch; None for every other batch.
    pub transaction: Option<ProducerId>,
}

/// How a transaction ended, for [`GroupShard::replay_marker`](crate::GroupShard::replay_marker).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionEnd {
    /// Its offsets become visible.
    Commit,
    /// They are dropped.
    Abort,
}

/// A record of `__consumer_offsets` that cannot be read. The shell decides whether to go on without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record at offset {offset} of group {group:?}: {reason}")]
pub struct ReplayError {
    /// The record's offset.
    pub offset: Offset,
    /// As far as the key tells.
    pub group: Option<String>,
    /// What is wrong.
    pub reason: String,
}
