//! What can go wrong, one enum for each operation.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use skerry_types::{BrokerId, Uuid};
use thiserror::Error;

/// Why a quorum does not start. Nothing on disk was changed, but for directories that were missing.
#[derive(Debug, Error)]
pub enum StartError {
    /// The directory has another owner.
    #[error("{} belongs to node {owner}, and this is node {node_id}: use that node's id, or another directory", dir.display())]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        owner: BrokerId,
        /// Who we are.
        node_id: BrokerId,
    },
    /// A newer program wrote the directory.
    #[error("{} has format version {found}, and this program reads up to {supported}: a newer skerry wrote it", dir.display())]
    NewerVersion {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// The directory belongs to another cluster.
    #[error("the metadata belongs to cluster {found}, and cluster {wanted} is configured")]
    OtherCluster {
        /// What the metadata says.
        found: Uuid,
        /// What is configured.
        wanted: Uuid,
    },
    /// Another process has it open.
    #[error("{} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// What is in the directory makes no sense.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// The consensus could not begin.
    #[error("the metadata quorum: {0}")]
    Raft(String),
}

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// No leader was found, or it did not answer. The command may still be applied, or may have been: a retry does no
    /// harm.
    #[error("the metadata quorum did not answer within {0:?}")]
    Timeout(Duration),
    /// This node is shutting down, or its store failed.
    #[error("the metadata quorum has stopped: {0}")]
    Stopped(String),
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// No leader was found, or it did not answer.
    #[error("the metadata quorum did not answer within {0:?}")]
    Timeout(Duration),
    /// This node is shutting down, or its store failed.
    #[error("the metadata quorum has stopped: {0}")]
    Stopped(String),
}

/// Why the members were not changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MembershipError {
    /// The leader refused: nothing was changed.
    #[error(transparent)]
    Refused(#[from] ChangeRefused),
    /// No leader was found, or it did not answer. The change may still come about.
    #[error("the metadata quorum did not answer within {0:?}; the change may still come about")]
    Timeout(Duration),
    /// This node is shutting down, or its store failed.
    #[error("the metadata quorum has stopped: {0}")]
    Stopped(String),
}

/// What is wrong with a change of the members.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ChangeRefused {
    /// No such member.
    #[error("node {0} is not a member of the quorum: start it first, it joins by itself")]
    UnknownNode(BrokerId),
    /// It does not vote.
    #[error("node {0} is not a voter")]
    NotAVoter(BrokerId),
    /// It votes already.
    #[error("node {0} is a voter already")]
    AlreadyAVoter(BrokerId),
    /// A voter cannot be forgotten.
    #[error("node {0} is a voter: remove it from the voters first")]
    StillAVoter(BrokerId),
    /// Its log is too far behind, or it does not answer: as a voter it would only hold up the others.
    #[error("node {node} has not caught up: {entries_behind} entries behind, or silent")]
    NotCaughtUp {
        /// The node.
        node: BrokerId,
        /// How far its log is behind the leader's.
        entries_behind: u64,
    },
    /// Too few of the voters that would be left are alive.
    #[error(
        "only {alive} of the voters would be alive, and {needed} are needed to decide: bring one back first, or \
         remove a dead one"
    )]
    LosesMajority {
        /// Voters of the new set that answer.
        alive: usize,
        /// The majority of the new set.
        needed: usize,
    },
    /// A quorum has a voter.
    #[error("node {0} is the last voter")]
    LastVoter(BrokerId),
    /// One change at a time.
    #[error("another change of the members is in progress")]
    InProgress,
    /// The node's disk was lost or swapped. What the old one promised, the new one does not know.
    #[error(
        "node {0} is a member with another data directory, and this one is new. If that disk is lost: `skerry cluster \
         voters remove {0}` lets this one join, and `voters add {0}` lets it vote. If not: give this node another id"
    )]
    OtherDirectory(BrokerId),
    /// The log is another cluster's.
    #[error("node {0} has the metadata of another cluster")]
    OtherCluster(BrokerId),
}

/// Why a directory was not recovered.
#[derive(Debug, Error)]
pub enum RecoverError {
    /// The directory cannot be opened, or is not one of a quorum.
    #[error(transparent)]
    Open(#[from] StartError),
    /// The node has never been a member of a cluster: there is nothing to recover.
    #[error("{}: no cluster's metadata is in it", dir.display())]
    Empty {
        /// The directory.
        dir: PathBuf,
    },
    /// It is the only voter, and lacks nothing: it needs nobody.
    #[error("{}: node {node} is the only voter already: just start it", dir.display())]
    SoleVoter {
        /// The directory.
        dir: PathBuf,
        /// The node.
        node: BrokerId,
    },
    /// The store refused.
    #[error("{}: {source}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// The reason.
        source: io::Error,
    },
}
