//! The logs of the quorum's nodes beside each other (24): two that have an entry of the same place, term and leader have the
//! same one there and the same one before it, and so everything before it; and what one knows to be committed every other one
//! has there, or nothing yet.

use std::collections::BTreeMap;

use skerry_metadata::LogEntry;
use skerry_types::BrokerId;

use super::Found;

type MadeBy = (u64, BrokerId);

/// Every entry that any node was seen to have.
#[derive(Default)]
pub(crate) struct RaftLogs {
    /// By place and maker: its bytes' sum, and who made the one before it.
    entries: BTreeMap<(u64, MadeBy), (u64, Option<MadeBy>)>,
    /// Whose entry is committed at a place.
    committed: BTreeMap<u64, MadeBy>,
    /// Up to where each node's log was looked at, and is committed.
    looked: BTreeMap<usize, u64>,
}

impl RaftLogs {
    /// From where on the log of this node has to be looked at.
    pub(crate) fn first(&self, node: usize) -> u64 {
        self.looked.get(&node).copied().unwrap_or(0)
    }

    /// A person goes on from one node's log alone: what others had in its place was not decided.
    pub(crate) fn on_recovered(&mut self) {
        *self = Self::default();
    }

    /// A node has these entries, which follow each other, and knows them to be committed up to a place.
    pub(crate) fn look(&mut self, node: usize, entries: &[LogEntry], committed: u64, found: &mut Found) {
        let mut before: Option<&LogEntry> = None;
        for entry in entries {
            if before.is_some_and(|before| before.index + 1 != entry.index) {
                let message = format!("n{}: {before:?} and then {entry:?}", node + 1);
                found.push(("raft-logs-differ", message));
            }
            let after = before.map(|before| before.made_by);
            let known = self
                .entries
                .entry((entry.index, entry.made_by))
                .or_insert((entry.hash, after));
            // Where a look begins the entry before it is not known.
            known.1 = known.1.or(after);
            if known.0 != entry.hash || (after.is_some() && known.1 != after) {
                let message = format!(
                    "n{} has {entry:?} after {before:?}; another node has {known:?}",
                    node + 1
                );
                found.push(("raft-logs-differ", message));
            }
            if entry.index <= committed {
                let decided = *self.committed.entry(entry.index).or_insert(entry.made_by);
                if decided != entry.made_by {
                    let message = format!("n{} knows {entry:?} to be committed: {decided:?} is", node + 1);
                    found.push(("raft-logs-differ", message));
                }
            }
            before = Some(entry);
        }
        let end = entries.last().map_or(0, |last| last.index);
        self.looked.insert(node, committed.min(end));
    }
}
