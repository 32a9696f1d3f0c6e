//! Where a library that keeps its own files (RocksDB) finds them: a real directory, in memory where the machine has
//! such a thing.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place where the simulator touches the real file system"
)]

use std::path::{Component, Path, PathBuf};

/// A directory of the machine for one host, empty at first; removed when the disk is dropped, or before.
pub(super) struct ExternalDir {
    root: PathBuf,
    made: bool,
}

impl ExternalDir {
    pub(super) fn new(host: &str) -> Self {
        let shared_memory = Path::new("/dev/shm");
        let parent = if shared_memory.is_dir() {
            shared_memory.to_owned()
        } else {
            std::env::temp_dir()
        };
        // The process id keeps two runs apart; the address, two disks of one process (tests).
        Self {
            root: parent.join(format!("skerry-sim-{}-{host}-{}", std::process::id(), unique())),
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

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

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
