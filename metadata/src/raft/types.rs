//! openraft's types with ours filled in. They do not leave this folder.

use std::fmt;
use std::sync::Arc;

use skerry_metadata_state::{Command, Outcome};
use skerry_types::Uuid;

use super::runtime::Runtime;

openraft::declare_raft_types!(
    /// The metadata quorum's types.
    pub(crate) TypeConfig:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        Term = u64,
        LeaderId = openraft::impls::leader_id_adv::LeaderId<Self::Term, Self::NodeId>,
        Vote = openraft::impls::Vote<Self::LeaderId>,
        Payload = openraft::EntryPayload<Self::D, Self::NodeId, Self::Node>,
        Entry = openraft::impls::Entry<
            <Self::LeaderId as openraft::vote::RaftLeaderId>::Committed,
            Self::Payload,
        >,
        AsyncRuntime = Runtime,
);

/// What the membership says of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// `host:port` of its gRPC services.
    pub(crate) addr: String,
    /// The identity of its data directory. Zero: not known, and not checked.
    pub(crate) directory: Uuid,
    /// What an operator did to it past the protocol (`recover`); empty for nothing.
    pub(crate) note: String,
}

/// openraft's own tests of a store ask for it.
impl Default for Member {
    fn default() -> Self {
        Self {
            addr: String::new(),
            directory: Uuid::ZERO,
            note: String::new(),
        }
    }
}

/// A command in the log; shared between the log, replication and the state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proposal(pub(crate) Arc<Command>);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

pub(crate) type Raft = openraft::Raft<TypeConfig, super::machine::Machine>;
pub(crate) type Entry = openraft::type_config::alias::EntryOf<TypeConfig>;
pub(crate) type LeaderId = openraft::type_config::alias::LeaderIdOf<TypeConfig>;
pub(crate) type LogId = openraft::type_config::alias::LogIdOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Member>;
pub(crate) type Snapshot = openraft::type_config::alias::SnapshotOf<TypeConfig, super::snapshot::Stored>;
pub(crate) type ServerMetrics = openraft::metrics::RaftServerMetrics<TypeConfig>;
pub(crate) type SnapshotMeta = openraft::type_config::alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type State = openraft::RaftState<TypeConfig>;
pub(crate) type StoredMembership = openraft::type_config::alias::StoredMembershipOf<TypeConfig>;
pub(crate) type Vote = openraft::type_config::alias::VoteOf<TypeConfig>;
