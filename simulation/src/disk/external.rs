//! Where a library that keeps its own files (RocksDB) finds them: a real directory, in memory where the machine has
//! such a thing.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place where the simulator touches the real file system"
)]

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Before the number of the process whose it is.
const PREFIX: &str = "skerry-sim-";
/// How often what is left over is looked for at the most.
const LOOKS_MAX: u32 = 1_000;

/// A directory of the machine for one host, empty at first; removed when the disk is dropped, or before.
pub(super) struct ExternalDir {
    root: PathBuf,
    made: bool,
}

impl ExternalDir {
    pub(super) fn new(host: &str) -> Self {
        // The process id keeps two runs apart; the number, two disks of one process (tests).
        Self {
            root: parent().join(format!("{PREFIX}{}-{host}-{}", std::process::id(), unique())),
            made: false,
        }
    }

    pub(super) fn path(&mut self, path: &Path) -> PathBuf {
        if !self.made {
            // A process of the same number may have left its own when it was killed: a node would take it for its past.
            self.made = true;
            self.remove();
            let _ = std::fs::create_dir_all(&self.root);
        }
        let relative: PathBuf = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        self.root.join(relative)
    }

    /// What was in it is gone with the disk.
    pub(super) fn lose(&mut self) {
        self.remove();
        self.made = false;
    }

    /// What cannot be removed stays in memory until the next start of the machine: nobody reads it.
    pub(super) fn remove(&mut self) {
        if self.made {
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

impl Drop for ExternalDir {
    fn drop(&mut self) {
        self.remove();
    }
}

/// In memory, where the machine has such a thing.
fn parent() -> PathBuf {
    let shared_memory = Path::new("/dev/shm");
    if shared_memory.is_dir() {
        shared_memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// Removes the directories of this process, which is about to end while its simulation goes on: a library may make a file in
/// the middle of it, and a node begin with a new directory.
pub fn remove_all_of_this_process() {
    let mut empty_looks = 0;
    for _ in 0..LOOKS_MAX {
        empty_looks = if remove_left_over(|pid| pid == std::process::id()) == 0 {
            empty_looks + 1
        } else {
            0
        };
        if empty_looks == 3 {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Removes the directories of the processes of these numbers: who is killed removes nothing. Tells how many there were.
pub fn remove_left_over(is_over: impl Fn(u32) -> bool) -> usize {
    let mut found = 0;
    let all = std::fs::read_dir(parent()).into_iter().flatten().flatten();
    for entry in all {
        let name = entry.file_name();
        let left_by = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let left_by = left_by.and_then(|rest| rest.split_once('-')?.0.parse().ok());
        if left_by.is_some_and(&is_over) {
            found += 1;
            // What cannot be removed is another user's.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    found
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_has_left_is_removed_and_nothing_else() {
        // No process has these numbers: they are too large.
        let left_by = |pid: u32| parent().join(format!("{PREFIX}{pid}-n1-0"));
        let (gone, other) = (left_by(u32::MAX), left_by(u32::MAX - 1));
        for dir in [&gone, &other] {
            std::fs::create_dir_all(dir.join("raft")).unwrap();
        }
        remove_left_over(|pid| pid == u32::MAX);
        assert!(!gone.exists() && other.exists());
        remove_left_over(|pid| pid == u32::MAX - 1);
        assert!(!other.exists());
    }

    #[test]
    fn a_directory_is_empty_at_first_whoever_left_it() {
        let mut dir = ExternalDir::new("left-over");
        std::fs::create_dir_all(dir.root.join("raft")).unwrap();
        let raft = dir.path(Path::new("/raft"));
        assert!(!raft.exists() && dir.root.exists());
        let root = dir.root.clone();
        drop(dir);
        assert!(!root.exists());
    }
}
