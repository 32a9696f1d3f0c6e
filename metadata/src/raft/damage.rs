//! What the store makes of damaged files: a tail that was being written when the power went costs nothing that was
//! promised, and whatever else is damaged is told.
#![expect(
    clippy::disallowed_methods,
    reason = "RocksDB's files are the operating system's"
)]

use std::fs;
use std::path::{Path, PathBuf};

use skerry_env::Env;

use super::store::Store;
use super::synced::Synced;
use super::types::{Entry, LeaderId, LogId, Vote};
use crate::errors::StartError;
use crate::wal::{WalMark, cut_unsynced_wal, tear_unsynced_wal};

const ENTRIES: u64 = 40;

/// A voter's directory.
struct Voter {
    dir: tempfile::TempDir,
    mark: WalMark,
}

fn entry(index: u64) -> Entry {
    Entry {
        log_id: LogId::new(LeaderId { term: 3, node_id: 1 }, index),
        payload: openraft::EntryPayload::Blank,
    }
}

impl Voter {
    /// Has voted in term 3, and has entries that it has promised, two syncs of them.
    fn new() -> Self {
        let voter = Self {
            dir: tempfile::tempdir().expect("a temporary directory"),
            mark: WalMark::default(),
        };
        let store = voter.open().expect("opens");
        store.put_vote(&Vote::new(3, 1)).expect("written");
        store.append((0..ENTRIES / 2).map(entry)).expect("written");
        store.sync().expect("durable");
        store.append((ENTRIES / 2..ENTRIES).map(entry)).expect("written");
        store.sync().expect("durable");
        voter
    }

    fn raft(&self) -> PathBuf {
        self.dir.path().join("raft")
    }

    fn open(&self) -> Result<Store, StartError> {
        let synced = Synced::open(&*Env::os().disk, self.dir.path()).expect("opens");
        Store::open(&self.raft(), Some(synced), Some(self.mark.clone()))
    }

    fn files(&self, is_one: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        let names = fs::read_dir(self.raft()).expect("listed");
        let mut files: Vec<_> = names
            .map(|name| name.expect("listed").path())
            .filter(|path| {
                path.file_name()
                    .is_some_and(|name| is_one(&name.to_string_lossy()))
            })
            .collect();
        files.sort();
        files
    }

    fn wal(&self) -> PathBuf {
        let logs = self.files(|name| name.ends_with(".log"));
        let written = logs
            .into_iter()
            .find(|log| fs::metadata(log).is_ok_and(|metadata| metadata.len() > 0));
        written.expect("there is one")
    }
}

fn has_everything(store: &Store) {
    assert_eq!(store.vote().expect("read"), Some(Vote::new(3, 1)));
    let entries = store.entries(.., usize::MAX).expect("read");
    assert!(entries.len() as u64 >= ENTRIES, "{}", entries.len());
    assert_eq!(
        entries[..ENTRIES as usize],
        (0..ENTRIES).map(entry).collect::<Vec<_>>()
    );
}

fn flip(path: &Path, position: usize, bit: usize) {
    let mut bytes = fs::read(path).expect("read");
    bytes[position] ^= 1 << bit;
    fs::write(path, bytes).expect("written");
}

#[test]
fn a_bit_that_turned_over_in_the_synced_log_is_told_and_nothing_is_changed() {
    let voter = Voter::new();
    cut_unsynced_wal(&voter.raft(), &voter.mark).expect("cut");
    let wal = voter.wal();
    let bytes = fs::read(&wal).expect("read");
    for position in (0..bytes.len()).step_by(23) {
        flip(&wal, position, position % 8);
        let told = voter.open().err().map(|error| error.to_string());
        let told = told.unwrap_or_else(|| panic!("byte {position} of {} is not noticed", bytes.len()));
        assert!(told.contains(wal.to_str().expect("text")), "{told}");
        assert!(told.contains("was synced"), "{told}");
        flip(&wal, position, position % 8);
        assert!(
            fs::read(&wal).expect("read") == bytes,
            "the log is changed: {told}"
        );
    }
    has_everything(&voter.open().expect("opens"));
}

#[test]
fn a_log_that_ends_early_or_is_gone_is_told_at_every_start() {
    for kept_of_1000 in [0, 1, 500, 999] {
        let voter = Voter::new();
        cut_unsynced_wal(&voter.raft(), &voter.mark).expect("cut");
        let bytes = fs::read(voter.wal()).expect("read");
        fs::write(voter.wal(), &bytes[..bytes.len() * kept_of_1000 / 1000]).expect("written");
        is_refused_twice(&voter);
    }
    // RocksDB begins a new database where it finds no name of one. The logs that lie there it takes: nothing is lost.
    let voter = Voter::new();
    fs::remove_file(voter.raft().join("CURRENT")).expect("removed");
    has_everything(&voter.open().expect("opens"));
    for file in voter.files(|name| name == "CURRENT" || name.ends_with(".log")) {
        fs::remove_file(file).expect("removed");
    }
    is_refused_twice(&voter);
}

fn is_refused_twice(voter: &Voter) {
    for _ in 0..2 {
        let told = voter.open().err().map(|error| error.to_string());
        assert!(
            told.as_ref().is_some_and(|told| told.contains("was synced")),
            "{told:?}"
        );
    }
}

#[test]
fn a_bit_that_turned_over_in_another_file_is_told_or_costs_nothing() {
    let voter = Voter::new();
    // What was in the log is in a table now.
    drop(voter.open().expect("opens"));
    let is_one = |name: &str| name.ends_with(".sst") || name.starts_with("MANIFEST") || name == "CURRENT";
    let copy = tempfile::tempdir().expect("a temporary directory");
    let all = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        fs::create_dir_all(to).expect("made");
        for name in fs::read_dir(from).expect("listed") {
            let name = name.expect("listed").file_name();
            fs::copy(from.join(&name), to.join(&name)).expect("copied");
        }
    };
    all(&voter.raft(), copy.path());
    let (mut told, mut tried) = (0, 0);
    for path in voter.files(is_one) {
        let len = fs::metadata(&path).expect("there").len() as usize;
        for position in (0..len).step_by((len / 25).max(1)) {
            flip(&path, position, position % 8);
            tried += 1;
            match voter.open() {
                Ok(store) => has_everything(&store),
                Err(error) => {
                    told += 1;
                    assert!(
                        error.to_string().contains(voter.raft().to_str().expect("text")),
                        "{error}"
                    );
                }
            }
            all(copy.path(), &voter.raft());
        }
    }
    assert!(told * 2 > tried, "{told} of {tried} were told");
}

/// The power went while the log was written: any of its sectors may be there, another's bytes, or none.
#[test]
fn a_torn_tail_costs_nothing_that_was_synced() {
    for seed in 0..40 {
        let rng = skerry_env::Rng::seeded(seed);
        let voter = Voter::new();
        let store = voter.open().expect("opens");
        store.append((ENTRIES..ENTRIES + 10).map(entry)).expect("written");
        store.sync().expect("durable");
        store
            .append((ENTRIES + 10..ENTRIES + 60).map(entry))
            .expect("written");
        drop(store);
        let mut torn = 0;
        tear_unsynced_wal(&voter.raft(), &voter.mark, |mut bytes, synced| {
            torn = bytes.len() - synced;
            for sector in bytes[synced..].chunks_mut(512) {
                match rng.below(4) {
                    0 => sector.fill(0),
                    1 => sector.iter_mut().for_each(|byte| *byte = rng.below(256) as u8),
                    2 => {
                        let at = rng.below(sector.len() as u64) as usize;
                        sector[at..].fill(0);
                    }
                    _ => {}
                }
            }
            let end = synced + rng.below(torn as u64 + 1) as usize;
            bytes.truncate(end);
            bytes
        })
        .expect("torn");
        assert!(torn > 1_000, "{torn}");
        let store = voter.open().expect("opens");
        has_everything(&store);
        let last = store.last_entry().expect("read").map(|last| last.index);
        assert!(last >= Some(ENTRIES + 9), "{last:?}");
    }
}
