//! Where a library that keeps its own files (RocksDB) finds them: a real directory, in memory where the machine has
//! such a thing.
#![expect(
    clippy::disallowed_methods,
    reason = "the one place where the simulator touches the real file system"
)]

use std::path::{Component, Path, PathBuf};

/// A directory of the machine for one host; removed when the disk is dropped.
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
            self.made = std::fs::create_dir_all(&self.root).is_ok();
        }
        let relative: PathBuf = path
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .collect();
        self.root.join(relative)
    }
}

impl Drop for ExternalDir {
    fn drop(&mut self) {
        if self.made {
            // What cannot be removed stays in memory until the next start of the machine: nobody reads it.
            let _ = std::fs::remove_dir_all(&self.root);
        }
    }
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
