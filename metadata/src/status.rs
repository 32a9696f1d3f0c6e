//! What a node knows of the quorum, for people and for metrics.

use std::time::Duration;

use skerry_types::{BrokerId, Uuid};

/// A node's part in the quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It has the log and does not vote.
    Learner,
    /// It votes and follows.
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
    /// It has stopped.
    Stopped,
}

impl Role {
    /// What [`Role::as_str`] wrote.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        [
            Self::Learner,
            Self::Follower,
            Self::Candidate,
            Self::Leader,
            Self::Stopped,
        ]
        .into_iter()
        .find(|role| role.as_str() == text)
    }

    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Learner => "learner",
            Self::Follower => "follower",
            Self::Candidate => "candidate",
            Self::Leader => "leader",
            Self::Stopped => "stopped",
        }
    }
}

/// Who leads the quorum, as one node knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// The leader, as far as is known.
    pub leader: Option<BrokerId>,
    /// It is this node.
    pub here: bool,
}

/// Why a node takes no part in decisions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreTrouble {
    /// A write failed, which is final until the next start.
    #[error("{0}; start this node again when the cause is gone")]
    Failed(String),
    /// There is too little room on the disk. It goes on by itself.
    #[error("the metadata waits for room on its disk, where {free_bytes} bytes are free")]
    NoRoom {
        /// What is free.
        free_bytes: u64,
    },
}

/// An entry of a node's log, for checks that compare the logs of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place.
    pub index: u64,
    /// Who made it: the term, and the node that led in it.
    pub made_by: (u64, BrokerId),
    /// FNV-1a of its bytes.
    pub hash: u64,
}

/// What a node knows of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuorumStatus {
    /// This node.
    pub node_id: BrokerId,
    /// Its part.
    pub role: Role,
    /// The term.
    pub term: u64,
    /// Who leads, as far as is known.
    pub leader: Option<BrokerId>,
    /// How long ago this node heard of that leader last; zero on the leader itself. `None`: not since this node's start,
    /// or this is another node's answer.
    pub leader_contact: Option<Duration>,
    /// The last entry of the log here.
    pub last_log_index: u64,
    /// The last entry known to be committed here.
    pub committed_index: u64,
    /// The last entry applied here.
    pub applied_index: u64,
    /// The last entry in the snapshot here; 0 without one.
    pub snapshot_index: u64,
    /// The last entry that was dropped from the log here, because a snapshot has it; 0 for none.
    pub purged_index: u64,
    /// The members, by number.
    pub members: Vec<MemberStatus>,
}

/// One member of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub id: BrokerId,
    /// Its address.
    pub addr: String,
    /// The identity of its data directory; zero where it is not known.
    pub directory: Uuid,
    /// What an operator did past the protocol: who recovered the cluster, from what, and when. Empty for nothing.
    pub note: String,
    /// It votes.
    pub voter: bool,
    /// The last entry that it has: only a leader knows.
    pub matched_index: Option<u64>,
    /// How long ago the question was asked that it answered last; zero for the leader itself. Only a leader knows, and
    /// only of those who have answered since it leads.
    pub last_contact: Option<Duration>,
}

impl QuorumStatus {
    /// The member `id`.
    #[must_use]
    pub fn member(&self, id: BrokerId) -> Option<&MemberStatus> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The members that vote.
    pub fn voters(&self) -> impl Iterator<Item = &MemberStatus> {
        self.members.iter().filter(|member| member.voter)
    }

    /// How many entries of the log `member` does not have yet. Only a leader knows.
    #[must_use]
    pub fn entries_behind(&self, member: &MemberStatus) -> Option<u64> {
        Some(self.last_log_index.saturating_sub(member.matched_index?))
    }
}
