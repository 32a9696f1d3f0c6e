//! A disk that is lost, and an empty one in its place.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use skerry_env::Rng;

use super::inode::{DirNode, Inode};
use super::{DiskConfig, ROOT, SimDisk};
use crate::trace::Trace;

impl SimDisk {
    /// Takes everything away. Nobody may be attached. What was there is given back, for those who have to know what was
    /// promised upon it; no process sees it again.
    #[must_use]
    pub fn lose(&self) -> Self {
        let lost = Self::new("lost", DiskConfig::default(), Rng::seeded(0), Trace::silent());
        let empty = BTreeMap::from([(ROOT, Inode::Dir(DirNode::default()))]);
        let mut state = self.0.lock();
        assert!(!state.attached, "somebody writes to a disk that is taken away");
        lost.0.lock().inodes = std::mem::replace(&mut state.inodes, empty);
        state.generation += 1;
        state.locks.clear();
        state.recount();
        state.external.lose();
        drop(state);
        lost
    }

    /// Empties a directory, and takes away what libraries keep past this disk: there is no other place of theirs.
    pub fn empty_dir(&self, path: &Path) {
        let attached = self.attach();
        let parent = path.parent().unwrap_or(path);
        let taken = attached
            .remove_dir_all(path)
            .and_then(|()| attached.create_dir_all(path))
            .and_then(|()| attached.sync_dir(parent));
        drop(attached);
        self.detach();
        taken.expect("nothing troubles this disk now");
        self.0.lock().external.lose();
    }

    /// The same disk.
    #[must_use]
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use skerry_env::disk::OpenMode;

    use super::*;

    #[test]
    #[expect(
        clippy::disallowed_methods,
        reason = "stands in for the library that keeps its own files"
    )]
    fn a_lost_disk_is_empty_and_what_was_on_it_is_known() {
        let disk = SimDisk::new("n1", DiskConfig::default(), Rng::seeded(1), Trace::silent());
        let path = Path::new("/file");
        {
            let attached = disk.attach();
            let file = attached.open(path, OpenMode::Create).unwrap();
            file.write_at(&[IoSlice::new(b"promised")], 0).unwrap();
            file.sync().unwrap();
            attached.sync_dir(Path::new("/")).unwrap();
        }
        let external = disk.external(Path::new("/raft"));
        std::fs::create_dir_all(&external).unwrap();
        disk.cut_power();
        let lost = disk.lose();
        assert_eq!(lost.with_durable(path, <[u8]>::to_vec).unwrap(), b"promised");
        assert!(disk.attach().open(path, OpenMode::ReadWrite).is_err());
        assert!(!disk.external(Path::new("/raft")).exists());
        assert!(disk.is(&disk.clone()) && !disk.is(&lost));
    }
}
