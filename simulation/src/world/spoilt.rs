//! Bits of the quorum's own files that rot: what was synced there is this node's votes and entries, and a node that starts
//! without them may vote twice in a term.
//!
//! The node must say so, name the file, and not start. Then a person does what its hint says: an empty folder in the place of
//! the quorum's, the vote taken from the old one and given to the new. The records of the partitions stay. One node at a time,
//! within the budget of disks that are lost (`lost.rs`): the other voters have whatever this one has promised.

use std::io;
use std::path::{Path, PathBuf};

use skerry_env::Rng;
use skerry_metadata::Durable;

use super::World;
use super::lost::Lost;
use crate::invariants::Found;
use crate::process::{DATA_DIR, State};

const METADATA_DIR: &str = "metadata";
/// Beside RocksDB's files: how far they were synced (`metadata/FORMAT.md`).
const SYNCED: &str = "synced";
const LOG: &str = ".log";
const CURRENT: &str = "CURRENT";

/// The bit.
pub(super) struct Spoilt {
    pub(super) node: usize,
    /// How the name of the file ends: its number depends on RocksDB's threads.
    pub(super) file: &'static str,
}

impl World<'_> {
    /// Kills the node, and turns a bit over in its quorum's files.
    pub(super) fn let_the_quorum_rot(&mut self, index: usize, down_ms: u64) {
        if self.nodes.len() == 1 {
            self.plan_to_rot_alone();
            return;
        }
        if let Err(why) = self.may_spoil(index) {
            let name = &self.nodes[index].name;
            self.trace
                .event(name, format_args!("its metadata stays good: {why}"));
            return;
        }
        self.crash(index, false, down_ms);
        // A power cut before its next start would take the number that tells the rot from a torn tail (3020 of any size, 60 s).
        let synced = Path::new(DATA_DIR).join(METADATA_DIR).join(SYNCED);
        self.nodes[index].host.disk.write_back(&synced);
        let rng = Rng::seeded(self.scenario.seed ^ 0x3e7a_0707 ^ (self.now_ms << 20));
        let node = &self.nodes[index];
        match spoil(&node.process.raft_dir(), &rng) {
            Ok((file, position)) => {
                self.trace.event(
                    &node.name,
                    format_args!("a bit of its metadata has rotted: byte {position} of its {file}"),
                );
                self.spoilt = Some(Spoilt { node: index, file });
            }
            Err(error) => {
                self.trace
                    .event(&node.name, format_args!("its metadata cannot rot: {error}"));
                self.shared.end_change_of_members();
            }
        }
    }

    fn may_spoil(&mut self, index: usize) -> Result<(), String> {
        let watcher = self.watcher.as_ref().ok_or("it is the only node")?;
        let voters = watcher.voters().ok_or("nobody knows who votes")?;
        if voters.contains(&index) && voters.len() < 3 {
            return Err("its vote is needed".to_owned());
        }
        if let Some(missing) = self.disk_is_missed() {
            return Err(missing);
        }
        let node = &self.nodes[index];
        if node.process.state() != State::Serving || self.nodes.iter().any(|node| node.is_swapped) {
            return Err("it does not serve".to_owned());
        }
        // What no file tells looks like a torn tail: a disk that refuses writes may have kept an older number.
        let noted = node.process.wal_mark().noted().to_be_bytes();
        let file = Path::new(DATA_DIR).join(METADATA_DIR).join(SYNCED);
        // In either of its two places.
        let tells = |bytes: &[u8]| {
            [1..9, 513..521]
                .into_iter()
                .any(|place| bytes.get(place) == Some(&noted[..]))
        };
        if !node.host.disk.with_live(&file, tells).unwrap_or(false) {
            return Err("how far it was synced is not noted".to_owned());
        }
        // Who votes must not change while a vote may have to be replaced.
        if self.spoilt.is_some() || !self.shared.begin_change_of_members() {
            return Err("somebody changes the voters".to_owned());
        }
        Ok(())
    }

    /// Refuses to start and names the file that has rotted; or the folder of the log, where it has two files with writes in them
    /// and cannot tell which (seed 2453 of any size, 60 s).
    pub(super) fn tells_of_the_rot(&self, index: usize, why: &str) -> bool {
        let spoilt = self.spoilt.as_ref().filter(|spoilt| spoilt.node == index);
        let names = |file| why.contains(file) || (file == LOG && why.contains("/metadata/raft:"));
        spoilt.is_some_and(|spoilt| why.starts_with("does not start") && names(spoilt.file))
    }

    /// A person does what the hint of a damaged store says. The node is down.
    pub(super) fn replace_metadata(&mut self, index: usize) {
        let Some(spoilt) = self.spoilt.take() else { return };
        let node = &self.nodes[index];
        self.trace.event(
            &node.name,
            format_args!(
                "somebody puts an empty folder in the place of its metadata, whose {} file has rotted",
                spoilt.file
            ),
        );
        let mark = node.process.wal_mark();
        let durable = mark.durable();
        mark.forget();
        node.host.disk.empty_dir(&Path::new(DATA_DIR).join(METADATA_DIR));
        let brokers = self.brokers();
        let mut votes = false;
        if let Some(watcher) = &mut self.watcher {
            votes = watcher.voters().is_some_and(|voters| voters.contains(&index));
            watcher.on_vote_lost(index, durable, false, &brokers);
        }
        *self.felt.entry("rotten metadata replaced").or_default() += 1;
        let operator = votes.then(|| self.send_operator(index));
        self.lost = Some(Lost {
            node: index,
            operator,
        });
    }

    /// The node serves: it has found what it had promised.
    pub(super) fn judge_metadata(&mut self, index: usize) {
        let node = &self.nodes[index];
        for (promised, found) in node.process.wal_mark().opened_with() {
            self.report(check_promises(&node.name, promised, found));
        }
        if self.spoilt.as_ref().is_some_and(|spoilt| spoilt.node == index) {
            self.spoilt = None;
            self.shared.end_change_of_members();
            self.trace.event(
                &self.nodes[index].name,
                format_args!("the rotten bit has cost nothing"),
            );
        }
    }
}

/// A start goes on from all that was synced: votes and entries (24).
fn check_promises(node: &str, promised: Durable, found: Durable) -> Found {
    if found.term >= promised.term && found.last_index >= promised.last_index {
        return Found::new();
    }
    let why = format!(
        "{node} had synced a vote in term {} and entries up to {}, and goes on from term {} and entry {}",
        promised.term, promised.last_index, found.term, found.last_index
    );
    vec![("quorum-promises-lost", why)]
}

/// Turns a bit over in what was synced: of the log that RocksDB writes to, or, where that is empty, the end of the file that
/// names what belongs to the store. Its tables and their list depend on when its own threads ran: see the tests of
/// `metadata/src/raft/damage.rs` for those.
fn spoil(dir: &Path, rng: &Rng) -> io::Result<(&'static str, usize)> {
    match log_of(dir)? {
        Some(log) => Ok((LOG, turn_a_bit(&log, |len| any_from(0, len, rng), rng)?)),
        None => Ok((
            CURRENT,
            turn_a_bit(&dir.join(CURRENT), |len| len.saturating_sub(1), rng)?,
        )),
    }
}

/// The log that RocksDB writes to, if there is anything in it.
#[expect(
    clippy::disallowed_methods,
    reason = "RocksDB's files are the operating system's"
)]
fn log_of(dir: &Path) -> io::Result<Option<PathBuf>> {
    let mut logs: Vec<PathBuf> = std::fs::read_dir(dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    Ok(logs
        .pop()
        .filter(|log| log.metadata().is_ok_and(|log| log.len() > 0)))
}

/// Turns a bit over in the later half of that log; nothing where there is none: the store may not even know its cluster then.
/// Returns where.
pub(super) fn spoil_later_half(dir: &Path, rng: &Rng) -> io::Result<Option<(&'static str, usize)>> {
    let Some(log) = log_of(dir)? else {
        return Ok(None);
    };
    let position = turn_a_bit(&log, |len| any_from(len / 2, len, rng), rng)?;
    Ok(Some((LOG, position)))
}

fn any_from(first: usize, len: usize, rng: &Rng) -> usize {
    first + usize::try_from(rng.below((len - first) as u64)).unwrap_or(0)
}

/// Turns a bit of a byte over, at the position that `place` makes of the file's length. Returns where.
#[expect(
    clippy::disallowed_methods,
    reason = "RocksDB's files are the operating system's"
)]
fn turn_a_bit(path: &Path, place: impl FnOnce(usize) -> usize, rng: &Rng) -> io::Result<usize> {
    let mut bytes = std::fs::read(path)?;
    let position = place(bytes.len());
    let byte = bytes.get_mut(position).ok_or(io::ErrorKind::UnexpectedEof)?;
    *byte ^= 1 << rng.below(8);
    std::fs::write(path, bytes)?;
    Ok(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_that_finds_less_than_was_synced_is_noticed() {
        let at = |term, last_index| Durable {
            term,
            last_index,
            made_by: None,
        };
        let judged = |found| check_promises("n1", at(3, 9), found);
        // What was written behind the last sync may be there, too.
        assert!(judged(at(3, 9)).is_empty() && judged(at(4, 12)).is_empty());
        for less in [at(2, 9), at(3, 8), at(0, 0)] {
            assert_eq!(judged(less)[0].0, "quorum-promises-lost");
        }
    }
}
