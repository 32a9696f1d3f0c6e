//! Between openraft's types and the messages of `quorum.proto`, which are also what the store keeps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use openraft::EntryPayload;
use skerry_metadata_state::{Command, DecodeError};
use skerry_proto::quorum as proto;
use skerry_types::Uuid;
use thiserror::Error;

use super::types::{
    Entry, LeaderId, LogId, Member, Membership, Proposal, SnapshotMeta, StoredMembership, TypeConfig, Vote,
};

type AppendRequest = openraft::raft::AppendEntriesRequest<TypeConfig>;
type AppendResponse = openraft::raft::AppendEntriesResponse<TypeConfig>;
type VoteRequest = openraft::raft::VoteRequest<TypeConfig>;
type VoteResponse = openraft::raft::VoteResponse<TypeConfig>;
type TransferRequest = openraft::raft::TransferLeaderRequest<TypeConfig>;
type TransferResponse = openraft::raft::TransferLeaderResponse<TypeConfig>;
type TransferError = openraft::raft::TransferLeaderError<TypeConfig>;

/// A message from a peer or from the disk that makes no sense.
#[derive(Debug, Error)]
pub(crate) enum ConvertError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("the membership is impossible: {0}")]
    Membership(String),
    #[error(transparent)]
    Command(#[from] DecodeError),
    #[error("not a message of the quorum: {0}")]
    Message(#[from] prost::DecodeError),
}

fn present<T>(value: Option<T>, what: &'static str) -> Result<T, ConvertError> {
    value.ok_or(ConvertError::Missing(what))
}

pub(crate) fn log_id(id: &LogId) -> proto::LogId {
    proto::LogId {
        leader: Some(leader(id.leader_id)),
        index: id.index,
    }
}

fn leader(id: LeaderId) -> proto::LeaderId {
    proto::LeaderId {
        term: id.term,
        node: id.node_id,
    }
}

fn read_leader(id: Option<proto::LeaderId>) -> Result<LeaderId, ConvertError> {
    let proto::LeaderId { term, node } = present(id, "a leader id")?;
    Ok(LeaderId { term, node_id: node })
}

pub(crate) fn read_log_id(id: proto::LogId) -> Result<LogId, ConvertError> {
    Ok(LogId {
        leader_id: read_leader(id.leader)?,
        index: id.index,
    })
}

fn read_option_log_id(id: Option<proto::LogId>) -> Result<Option<LogId>, ConvertError> {
    id.map(read_log_id).transpose()
}

pub(crate) fn vote(vote: &Vote) -> proto::Vote {
    proto::Vote {
        leader: Some(leader(vote.leader_id)),
        committed: vote.committed,
    }
}

pub(crate) fn read_vote(vote: proto::Vote) -> Result<Vote, ConvertError> {
    Ok(Vote {
        leader_id: read_leader(vote.leader)?,
        committed: vote.committed,
    })
}

fn read_some_vote(vote: Option<proto::Vote>) -> Result<Vote, ConvertError> {
    read_vote(present(vote, "a vote")?)
}

pub(crate) fn uuid(id: Uuid) -> Bytes {
    if id.is_zero() {
        Bytes::new()
    } else {
        Bytes::copy_from_slice(&id.0)
    }
}

/// Empty is zero.
pub(crate) fn read_uuid(bytes: &[u8]) -> Result<Uuid, ConvertError> {
    if bytes.is_empty() {
        return Ok(Uuid::ZERO);
    }
    let bytes = bytes
        .try_into()
        .map_err(|_| ConvertError::Missing("an id of 16 bytes"))?;
    Ok(Uuid(bytes))
}

pub(crate) fn member(id: u64, member: &Member) -> proto::Member {
    proto::Member {
        id,
        addr: member.addr.clone(),
        directory: uuid(member.directory),
        note: member.note.clone(),
    }
}

pub(crate) fn read_member(member: proto::Member) -> Result<(u64, Member), ConvertError> {
    let directory = read_uuid(&member.directory)?;
    Ok((
        member.id,
        Member {
            addr: member.addr,
            directory,
            note: member.note,
        },
    ))
}

fn membership(membership: &Membership) -> proto::Membership {
    proto::Membership {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| proto::VoterSet {
                ids: set.iter().copied().collect(),
            })
            .collect(),
        members: membership.nodes().map(|(id, node)| member(*id, node)).collect(),
    }
}

fn read_membership(membership: proto::Membership) -> Result<Membership, ConvertError> {
    let voters: Vec<BTreeSet<u64>> = membership
        .voters
        .into_iter()
        .map(|set| set.ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, Member> = membership
        .members
        .into_iter()
        .map(read_member)
        .collect::<Result<_, _>>()?;
    if voters.is_empty() && nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(voters, nodes).map_err(|error| ConvertError::Membership(error.to_string()))
}

pub(crate) fn entry(entry: &Entry) -> proto::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => proto::entry::Payload::Blank(proto::Blank {}),
        EntryPayload::Normal(Proposal(command)) => {
            proto::entry::Payload::Command(Bytes::from(command.encode()))
        }
        EntryPayload::Membership(members) => proto::entry::Payload::Membership(membership(members)),
    };
    proto::Entry {
        log_id: Some(log_id(&entry.log_id)),
        payload: Some(payload),
    }
}

pub(crate) fn read_entry(entry: proto::Entry) -> Result<Entry, ConvertError> {
    let payload = match present(entry.payload, "an entry's payload")? {
        proto::entry::Payload::Blank(proto::Blank {}) => EntryPayload::Blank,
        proto::entry::Payload::Command(bytes) => {
            EntryPayload::Normal(Proposal(Arc::new(Command::decode(&bytes)?)))
        }
        proto::entry::Payload::Membership(members) => EntryPayload::Membership(read_membership(members)?),
    };
    Ok(Entry {
        log_id: read_log_id(present(entry.log_id, "an entry's log id")?)?,
        payload,
    })
}

pub(crate) fn snapshot_meta(meta: &SnapshotMeta) -> proto::SnapshotMeta {
    proto::SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id),
        membership: Some(proto::StoredMembership {
            log_id: meta.last_membership.log_id().as_ref().map(log_id),
            membership: Some(membership(meta.last_membership.membership())),
        }),
    }
}

pub(crate) fn read_snapshot_meta(meta: proto::SnapshotMeta) -> Result<SnapshotMeta, ConvertError> {
    let stored = present(meta.membership, "a snapshot's membership")?;
    Ok(SnapshotMeta {
        last_log_id: read_option_log_id(meta.last_log_id)?,
        last_membership: StoredMembership::new(
            read_option_log_id(stored.log_id)?,
            read_membership(present(stored.membership, "a stored membership")?)?,
        ),
    })
}

pub(crate) fn append_request(to: proto::Addressee, request: &AppendRequest) -> proto::AppendEntriesRequest {
    proto::AppendEntriesRequest {
        to: Some(to),
        vote: Some(vote(&request.vote)),
        prev_log_id: request.prev_log_id.as_ref().map(log_id),
        entries: request.entries.iter().map(entry).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id),
    }
}

pub(crate) fn read_append_request(
    request: proto::AppendEntriesRequest,
) -> Result<AppendRequest, ConvertError> {
    Ok(AppendRequest {
        vote: read_some_vote(request.vote)?,
        prev_log_id: read_option_log_id(request.prev_log_id)?,
        entries: request
            .entries
            .into_iter()
            .map(read_entry)
            .collect::<Result<_, _>>()?,
        leader_commit: read_option_log_id(request.leader_commit)?,
    })
}

pub(crate) fn append_reply(response: &AppendResponse) -> proto::AppendEntriesReply {
    use proto::append_entries_reply::Result as Reply;
    let result = match response {
        AppendResponse::Success => Reply::Success(proto::Blank {}),
        AppendResponse::PartialSuccess(matching) => Reply::PartialSuccess(proto::PartialSuccess {
            matching: matching.as_ref().map(log_id),
        }),
        AppendResponse::Conflict => Reply::Conflict(proto::Conflict {}),
        AppendResponse::HigherVote(higher) => Reply::HigherVote(vote(higher)),
    };
    proto::AppendEntriesReply { result: Some(result) }
}

pub(crate) fn read_append_reply(reply: proto::AppendEntriesReply) -> Result<AppendResponse, ConvertError> {
    use proto::append_entries_reply::Result as Reply;
    Ok(match present(reply.result, "a result")? {
        Reply::Success(proto::Blank {}) => AppendResponse::Success,
        Reply::PartialSuccess(partial) => {
            AppendResponse::PartialSuccess(read_option_log_id(partial.matching)?)
        }
        Reply::Conflict(proto::Conflict {}) => AppendResponse::Conflict,
        Reply::HigherVote(higher) => AppendResponse::HigherVote(read_vote(higher)?),
    })
}

pub(crate) fn vote_request(to: proto::Addressee, request: &VoteRequest) -> proto::VoteRequest {
    proto::VoteRequest {
        to: Some(to),
        vote: Some(vote(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn read_vote_request(request: proto::VoteRequest) -> Result<VoteRequest, ConvertError> {
    Ok(VoteRequest {
        vote: read_some_vote(request.vote)?,
        last_log_id: read_option_log_id(request.last_log_id)?,
        leadership_transfer: request.leadership_transfer,
    })
}

pub(crate) fn vote_reply(response: &VoteResponse) -> proto::VoteReply {
    proto::VoteReply {
        vote: Some(vote(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id),
    }
}

pub(crate) fn read_vote_reply(reply: proto::VoteReply) -> Result<VoteResponse, ConvertError> {
    Ok(VoteResponse {
        vote: read_some_vote(reply.vote)?,
        vote_granted: reply.granted,
        last_log_id: read_option_log_id(reply.last_log_id)?,
    })
}

pub(crate) fn transfer_request(
    to: proto::Addressee,
    request: &TransferRequest,
) -> proto::TransferLeaderRequest {
    proto::TransferLeaderRequest {
        to: Some(to),
        from_leader: Some(vote(request.from_leader())),
        new_leader: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id),
    }
}

pub(crate) fn read_transfer_request(
    request: proto::TransferLeaderRequest,
) -> Result<TransferRequest, ConvertError> {
    Ok(TransferRequest::new(
        read_some_vote(request.from_leader)?,
        request.new_leader,
        read_option_log_id(request.last_log_id)?,
    ))
}

pub(crate) fn transfer_reply(response: &TransferResponse) -> proto::TransferLeaderReply {
    use proto::transfer_leader_reply::Result as Reply;
    let result = match response {
        Ok(()) => Reply::Accepted(proto::Blank {}),
        Err(TransferError::VoteChanged { expected, actual }) => Reply::VoteChanged(proto::VoteChanged {
            expected: Some(vote(expected)),
            actual: Some(vote(actual)),
        }),
        Err(TransferError::LogNotFlushed { expected, actual }) => {
            Reply::LogNotFlushed(proto::LogNotFlushed {
                expected: expected.as_ref().map(log_id),
                actual: actual.as_ref().map(log_id),
            })
        }
    };
    proto::TransferLeaderReply { result: Some(result) }
}

pub(crate) fn read_transfer_reply(
    reply: proto::TransferLeaderReply,
) -> Result<TransferResponse, ConvertError> {
    use proto::transfer_leader_reply::Result as Reply;
    Ok(match present(reply.result, "a result")? {
        Reply::Accepted(proto::Blank {}) => Ok(()),
        Reply::VoteChanged(changed) => Err(TransferError::VoteChanged {
            expected: read_some_vote(changed.expected)?,
            actual: read_some_vote(changed.actual)?,
        }),
        Reply::LogNotFlushed(behind) => Err(TransferError::LogNotFlushed {
            expected: read_option_log_id(behind.expected)?,
            actual: read_option_log_id(behind.actual)?,
        }),
    })
}
