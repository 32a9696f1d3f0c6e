//! What a power cut at this moment might leave, without one.

use skerry_env::Rng;

use super::{DiskConfig, SimDisk};
use crate::trace::Trace;

impl SimDisk {
    /// Another disk: this one after a power cut that happens now, as `rng` draws it. Nothing of this one changes.
    #[must_use]
    pub fn after_power_cut(&self, rng: Rng) -> Self {
        let copy = self.copy(rng);
        // What devices lie about nobody can know before it happens.
        copy.tell_the_truth();
        copy.cut_power();
        copy
    }

    /// Another disk with what is written on this one at this moment, for those who have to know what was promised upon it.
    #[must_use]
    pub fn as_written(&self) -> Self {
        self.copy(Rng::seeded(0))
    }

    fn copy(&self, rng: Rng) -> Self {
        let copy = Self::new("shadow", DiskConfig::default(), rng, Trace::silent());
        {
            let state = self.0.lock();
            let mut shadow = copy.0.lock();
            shadow.inodes = state.inodes.clone();
            shadow.next_inode = state.next_inode;
            shadow.next_tie = state.next_tie;
        }
        copy
    }
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;

    use skerry_env::disk::OpenMode;

    use super::*;
    use crate::disk::read_all;

    #[test]
    fn a_shadow_has_what_is_durable_and_casts_nothing_back() {
        let disk = SimDisk::new("n1", DiskConfig::default(), Rng::seeded(1), Trace::silent());
        let attached = disk.attach();
        let path = Path::new("/file");
        let file = attached.open(path, OpenMode::Create).unwrap();
        file.write_at(&[IoSlice::new(b"synced")], 0).unwrap();
        file.sync().unwrap();
        attached.sync_dir(Path::new("/")).unwrap();
        file.write_at(&[IoSlice::new(b" and not")], 6).unwrap();
        let mut lost = 0;
        for seed in 0..50 {
            let shadow = disk.after_power_cut(Rng::seeded(seed)).attach();
            let left = read_all(&*shadow, path).unwrap();
            assert!(left.starts_with(b"synced"), "{left:?}");
            lost += u64::from(left != b"synced and not");
            shadow.remove_file(path).unwrap();
        }
        assert!(lost > 0, "no power cut took what was not synced");
        assert_eq!(read_all(&*attached, path).unwrap(), b"synced and not");
    }
}
