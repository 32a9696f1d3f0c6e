//! A device that says of a sync that it is done, and has not done it. Nobody can tell until the power goes: the broker is
//! judged by what it was told, so [`FileNode::durable`] goes on as if the device were honest, and beside it stands what the
//! device really holds.

use std::path::{Path, PathBuf};

use super::SimDisk;
use super::inode::{FileNode, Inode};
use super::trouble::holds_records;
use skerry_env::Rng;

impl SimDisk {
    /// From now on the syncs of the records' files under `dir` lie.
    pub fn lie_about(&self, dir: &Path) {
        let mut state = self.0.lock();
        state.lies_about = Some(dir.to_owned());
        let Some(Inode::Dir(names)) = state.resolve(dir).and_then(|id| state.inodes.get(&id)) else {
            return;
        };
        let files: Vec<_> = names
            .live
            .iter()
            .map(|(name, id)| (dir.join(name), *id))
            .collect();
        for (path, id) in files {
            if let Some(Inode::File(file)) = state.inodes.get_mut(&id)
                && holds_records(&path)
            {
                file.really = Some(file.durable.len());
            }
        }
    }

    /// The device is honest again. What it has not written by now, it writes.
    pub fn tell_the_truth(&self) {
        let mut state = self.0.lock();
        state.lies_about = None;
        for inode in state.inodes.values_mut() {
            if let Inode::File(file) = inode {
                file.really = None;
            }
        }
    }
}

/// A file of records that is made under a folder that the device lies about.
pub(super) fn is_concerned(lies_about: Option<&PathBuf>, path: &Path) -> bool {
    lies_about.is_some_and(|dir| path.starts_with(dir)) && holds_records(path)
}

impl FileNode {
    /// The power went: of what syncs have lied about the device holds a part, or nothing.
    pub(super) fn lose_what_was_lied_about(&mut self, rng: &Rng) {
        let Some(really) = self.really.take() else { return };
        let lied = self.durable.len().saturating_sub(really) as u64;
        let written = if rng.chance(1, 2) { rng.below(lied + 1) } else { 0 };
        let left = really + usize::try_from(written).unwrap_or(0);
        self.durable.truncate(left.min(self.durable.len()));
        self.live.clone_from(&self.durable);
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use skerry_env::disk::OpenMode;

    use super::*;
    use crate::disk::{DiskConfig, read_all};
    use crate::trace::Trace;

    #[test]
    fn what_was_synced_before_stays_and_what_was_lied_about_goes_with_the_power() {
        let mut lost = 0;
        for seed in 0..50 {
            let disk = SimDisk::new("n1", DiskConfig::default(), Rng::seeded(seed), Trace::silent());
            let attached = disk.attach();
            attached.create_dir_all(Path::new("/d")).unwrap();
            attached.sync_dir(Path::new("/")).unwrap();
            let path = Path::new("/d/0.log");
            let file = attached.open(path, OpenMode::Create).unwrap();
            attached.sync_dir(Path::new("/d")).unwrap();
            file.write_at(&[IoSlice::new(b"before")], 0).unwrap();
            file.sync().unwrap();
            disk.lie_about(Path::new("/d"));
            file.write_at(&[IoSlice::new(b", after")], 6).unwrap();
            file.sync().unwrap();
            // Neither a shadow of the disk nor a kill sees the lie.
            let shadow = disk.after_power_cut(Rng::seeded(seed)).attach();
            assert_eq!(read_all(&*shadow, path).unwrap(), b"before, after");
            disk.kill();
            assert_eq!(read_all(&*disk.attach(), path).unwrap(), b"before, after");
            disk.cut_power();
            let left = read_all(&*disk.attach(), path).unwrap();
            assert!(
                left.starts_with(b"before") && b"before, after".starts_with(&left[..]),
                "{left:?}"
            );
            lost += u64::from(left != b"before, after");
        }
        assert!(lost > 25, "{lost}");
    }
}
