//! What a node knows of the quorum, from openraft's metrics and over the wire.

use std::time::Duration;

use openraft::async_runtime::WatchReceiver as _;
use openraft::{RaftMetrics, ServerState};
use skerry_proto::quorum as proto;
use skerry_types::{BrokerId, Uuid};

use super::convert::{self, ConvertError};
use super::types::TypeConfig;
use super::{Node, broker_id, made_by};
use crate::status::{LogEntry, MemberStatus, QuorumStatus, Role};

fn role(metrics: &RaftMetrics<TypeConfig>) -> Role {
    match metrics.state {
        _ if metrics.running_state.is_err() => Role::Stopped,
        ServerState::Learner => Role::Learner,
        ServerState::Follower => Role::Follower,
        ServerState::Candidate => Role::Candidate,
        ServerState::Leader => Role::Leader,
        ServerState::Shutdown => Role::Stopped,
    }
}

impl Node {
    /// See [`crate::Quorum::log_entries`].
    pub(crate) fn log_entries(&self, first: u64) -> Vec<LogEntry> {
        let store = self.inner.store.upgrade();
        let entries = store.map(|store| store.log_entries(first));
        entries.and_then(Result::ok).unwrap_or_default()
    }

    /// See [`crate::Quorum::committed`].
    pub(crate) fn committed(&self) -> Option<(u64, (u64, BrokerId))> {
        let metrics = self.raft().metrics();
        let committed = metrics.borrow_watched().local_committed?;
        Some((committed.index, made_by(&committed)))
    }

    pub(crate) fn status(&self) -> QuorumStatus {
        let metrics = self.raft().metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        let leads = metrics.state == ServerState::Leader;
        let matched = |id: u64| {
            if leads && id == metrics.id {
                return metrics.last_log_index;
            }
            let matched = metrics.replication.as_ref()?.get(&id)?;
            Some(matched.as_ref().map_or(0, |log_id| log_id.index))
        };
        let last_contact = |id: u64| {
            if leads && id == metrics.id {
                return Some(Duration::ZERO);
            }
            let acked = (*metrics.heartbeat.as_ref()?.get(&id)?)?;
            Some(self.since(*acked))
        };
        QuorumStatus {
            node_id: self.config().node_id,
            role: role(&metrics),
            term: metrics.current_term,
            leader: metrics.current_leader.map(broker_id),
            leader_contact: if leads {
                Some(Duration::ZERO)
            } else {
                self.leader_contact()
            },
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: metrics.local_committed.map_or(0, |id| id.index),
            applied_index: metrics.last_applied.map_or(0, |id| id.index),
            snapshot_index: metrics.snapshot.map_or(0, |id| id.index),
            purged_index: metrics.purged.map_or(0, |id| id.index),
            members: membership
                .nodes()
                .map(|(id, member)| MemberStatus {
                    id: broker_id(*id),
                    addr: member.addr.clone(),
                    directory: member.directory,
                    note: member.note.clone(),
                    voter: voters.contains(id),
                    matched_index: matched(*id),
                    last_contact: last_contact(*id),
                })
                .collect(),
        }
    }

    /// The answer to whoever asks what this node knows.
    pub(super) fn describe(&self) -> proto::DescribeReply {
        let status = self.status();
        let raft_id = |id: BrokerId| u64::try_from(id.get()).unwrap_or(0);
        let members = status.members.iter();
        proto::DescribeReply {
            id: raft_id(status.node_id),
            term: status.term,
            leader: status.leader.map(raft_id),
            last_log_index: status.last_log_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            committed_index: status.committed_index,
            purged_index: status.purged_index,
            role: status.role.as_str().to_owned(),
            voters: status.voters().map(|member| raft_id(member.id)).collect(),
            replication: members
                .clone()
                .filter_map(|member| {
                    let silent = member.last_contact.map(|ago| ago.as_millis());
                    Some(proto::Replication {
                        id: raft_id(member.id),
                        matched_index: member.matched_index?,
                        silent_ms: silent.map(|ms| u64::try_from(ms).unwrap_or(u64::MAX)),
                    })
                })
                .collect(),
            members: members
                .map(|member| proto::Member {
                    id: raft_id(member.id),
                    addr: member.addr.clone(),
                    directory: convert::uuid(member.directory),
                    note: member.note.clone(),
                })
                .collect(),
            directory: convert::uuid(self.directory()),
            initialized: self.is_initialized(),
            cluster_id: convert::uuid(self.publisher().image().cluster_id().unwrap_or(Uuid::ZERO)),
        }
    }
}

/// Reads another node's answer.
pub(super) fn read(reply: proto::DescribeReply) -> Result<QuorumStatus, ConvertError> {
    let of = |id: u64| reply.replication.iter().find(|progress| progress.id == id);
    let members = reply
        .members
        .iter()
        .map(|member| {
            let progress = of(member.id);
            Ok(MemberStatus {
                id: broker_id(member.id),
                addr: member.addr.clone(),
                directory: convert::read_uuid(&member.directory)?,
                note: member.note.clone(),
                voter: reply.voters.contains(&member.id),
                matched_index: progress.map(|progress| progress.matched_index),
                last_contact: progress
                    .and_then(|progress| progress.silent_ms)
                    .map(Duration::from_millis),
            })
        })
        .collect::<Result<_, ConvertError>>()?;
    Ok(QuorumStatus {
        node_id: broker_id(reply.id),
        role: Role::parse(&reply.role).ok_or(ConvertError::Missing("a role"))?,
        term: reply.term,
        leader: reply.leader.map(broker_id),
        leader_contact: None,
        last_log_index: reply.last_log_index,
        committed_index: reply.committed_index,
        applied_index: reply.applied_index,
        snapshot_index: reply.snapshot_index,
        purged_index: reply.purged_index,
        members,
    })
}
