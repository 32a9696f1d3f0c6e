//! The way out when the majority is lost for good: one survivor becomes the whole quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::EntryPayload;
use skerry_env::Disk;
use skerry_metadata_state::Command;
use skerry_types::{BrokerId, WallMs, is_planted};

use super::store::Store;
use super::synced::{Synced, UNFINISHED};
use super::types::{Entry, LeaderId, LogId, Member, Membership, Proposal, Vote};
use super::{RAFT_DIR, broker_id, raft_id};
use crate::config::Voter;
use crate::errors::RecoverError;
use crate::identity;

/// So many terms the lost majority has not had without the survivor.
const RECOVERY_TERMS: u64 = 1 << 16;

/// A stopped member of a quorum that cannot decide any more, and what it knows. `Display` says, for the person who is
/// to decide, what a recovery keeps and what it may lose.
///
/// A recovery is for a majority that is lost for good. The other voters must never be started again with the
/// directories that they have: a majority of them would go on as the old quorum. With empty directories they join by
/// themselves, as learners.
pub struct Survivor {
    dir: PathBuf,
    node: BrokerId,
    raft_id: u64,
    store: Store,
    synced: Synced,
    /// It had synced more than can be read.
    is_damaged: bool,
    /// The newest term that it has voted in.
    term: u64,
    last: LogId,
    committed: Option<u64>,
    membership: Membership,
}

impl Survivor {
    /// Opens the quorum's directory `dir` (the one of [`crate::QuorumConfig::data_dir`]), whose node is down. Changes
    /// nothing in it that matters. Blocks on the disk.
    ///
    /// # Errors
    /// It is in use or cannot be read; there is no cluster's metadata in it; it is the only voter already, and lacks nothing.
    pub fn open(disk: &dyn Disk, dir: &Path) -> Result<Self, RecoverError> {
        let empty = || RecoverError::Empty { dir: dir.to_owned() };
        let identity = identity::read(disk, dir)?.ok_or_else(empty)?;
        let node = identity.node_id;
        let raft_id = raft_id(node).ok_or_else(empty)?;
        let io = |source| RecoverError::Io {
            dir: dir.to_owned(),
            source,
        };
        let synced = Synced::open(disk, dir).map_err(io)?;
        let store = Store::open_what_is_left(&disk.external_path(&dir.join(RAFT_DIR)))?;
        let snapshot = store.snapshot().map_err(io)?;
        let entries = store.entries(.., usize::MAX).map_err(io)?;
        let in_log = entries.iter().rev().find_map(|entry| match &entry.payload {
            EntryPayload::Membership(membership) => Some(membership.clone()),
            _ => None,
        });
        let in_snapshot = snapshot
            .as_ref()
            .map(|(meta, _)| meta.last_membership.membership().clone());
        let membership = in_log.or(in_snapshot).ok_or_else(empty)?;
        let last = store.last_entry().map_err(io)?;
        let last = last.max(snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id));
        let known = [
            store.committed().map_err(io)?.map(|id| id.index),
            snapshot.and_then(|(meta, _)| meta.last_log_id).map(|id| id.index),
        ];
        let survivor = Self {
            dir: dir.to_owned(),
            node,
            raft_id,
            term: store.vote().map_err(io)?.map_or(0, |vote| vote.leader_id.term),
            last: last.ok_or_else(empty)?,
            committed: known.into_iter().flatten().max(),
            membership,
            is_damaged: store.last_write() < synced.known(),
            store,
            synced,
        };
        // Where its disk is damaged it does not start, and there is nobody else: it goes on from what can be read. So does who
        // died in the midst of this.
        let needs_nobody = !survivor.is_damaged || is_planted("damaged-only-voter-refused");
        if survivor.is_sole_voter() && needs_nobody {
            return Err(RecoverError::SoleVoter {
                dir: dir.to_owned(),
                node,
            });
        }
        Ok(survivor)
    }

    fn is_sole_voter(&self) -> bool {
        self.membership.voter_ids().eq([self.raft_id])
    }

    /// The node.
    #[must_use]
    pub fn node(&self) -> BrokerId {
        self.node
    }

    /// The voters as this node knows them.
    #[must_use]
    pub fn voters(&self) -> Vec<Voter> {
        self.membership
            .voter_ids()
            .map(|id| Voter {
                id: broker_id(id),
                addr: self
                    .membership
                    .get_node(&id)
                    .map_or_else(String::new, |member| member.addr.clone()),
            })
            .collect()
    }

    /// Makes this node the only voter and the only member. Its log stays as it is and counts as decided, up to its
    /// end; an entry is added that says so, and stays visible as the member's note (`MemberStatus::note`), and one that
    /// leaves the epochs and producer ids behind that the others may have given out ([`Command::QuorumRecovered`]).
    /// Durable on return: the node may be started. Blocks on the disk.
    ///
    /// # Errors
    /// The store refused. Where it had begun to write, no start goes on from that: it has to be done again.
    pub fn recover(self, at: WallMs) -> Result<String, RecoverError> {
        let note = format!(
            "recovered at {} (ms since 1970) by node {} alone, from the voters {}; its log ended at {} of term {}, and \
             {} was known to be committed",
            at.get(),
            self.node,
            names(&self.voters()),
            self.last.index,
            self.last.leader_id.term,
            self.committed
                .map_or_else(|| "nothing".to_owned(), |index| format!("all up to {index}")),
        );
        self.write(&note).map_err(|source| RecoverError::Io {
            dir: self.dir.clone(),
            source,
        })?;
        Ok(note)
    }

    fn write(&self, note: &str) -> io::Result<()> {
        let mut me = self
            .membership
            .get_node(&self.raft_id)
            .cloned()
            .unwrap_or_default();
        me.note = note.to_owned();
        let members: BTreeMap<u64, Member> = BTreeMap::from([(self.raft_id, me)]);
        let membership = Membership::new(vec![BTreeSet::from([self.raft_id])], members)
            .map_err(|error| io::Error::other(error.to_string()))?;
        // As if this node had won an election, in a term that the others had not come to without it: whoever comes back with
        // another log cannot win against it.
        let terms = if is_planted("recovery-keeps-numbers") {
            1
        } else {
            RECOVERY_TERMS
        };
        let leader_id = LeaderId {
            term: self.term.max(self.last.leader_id.term) + terms,
            node_id: self.raft_id,
        };
        let entry = |after, payload| Entry {
            log_id: LogId {
                leader_id,
                index: self.last.index + after,
            },
            payload,
        };
        let left_behind = Proposal(Arc::new(Command::QuorumRecovered { survivor: self.node }));
        let entries = [
            entry(1, EntryPayload::Membership(membership)),
            entry(2, EntryPayload::Normal(left_behind)),
        ];
        self.synced.reset(UNFINISHED)?;
        self.store.put_vote(&Vote {
            leader_id,
            committed: true,
        })?;
        self.store.append(entries)?;
        self.store.sync()?;
        self.synced.reset(self.store.last_write())
    }
}

fn names(voters: &[Voter]) -> String {
    let names: Vec<_> = voters
        .iter()
        .map(|voter| format!("{}@{}", voter.id, voter.addr))
        .collect();
    names.join(", ")
}

impl fmt::Display for Survivor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "node {} in {}", self.node, self.dir.display())?;
        writeln!(f, "voters: {}", names(&self.voters()))?;
        writeln!(
            f,
            "its log ends at entry {} of term {}; {}",
            self.last.index,
            self.last.leader_id.term,
            self.committed.map_or_else(
                || "nothing in it is known to be decided".to_owned(),
                |index| format!("all up to {index} was decided")
            )
        )?;
        if self.synced.known() == UNFINISHED {
            writeln!(f, "this was done here before, and did not end")?;
        } else if self.is_damaged {
            writeln!(f, "its disk is damaged: entries that this node had are gone")?;
        }
        writeln!(
            f,
            "kept: every entry of this log, those after that point included, whoever decided on them; the records of \
             this node's partitions"
        )?;
        let whose = if self.is_sole_voter() {
            "was decided"
        } else {
            "the other voters decided"
        };
        write!(
            f,
            "may be lost: whatever {whose} after entry {} of term {}; topics, settings and in-sync \
             sets go back to that point, and with the in-sync sets the records that a replica lacks which had left them \
             after it",
            self.last.index, self.last.leader_id.term
        )
    }
}
