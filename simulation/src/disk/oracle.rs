//! The truth about a disk, for checks only: what a power cut at this moment would be sure to leave.

use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};

use super::{Inode, InodeId, ROOT, SimDisk, State, parts};
use crate::record::segment;

/// Which of a disk's two images is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// What a read returns.
    Live,
    /// What a power cut leaves at least.
    Durable,
}

impl State {
    fn resolve_durable(&self, path: &Path) -> Option<InodeId> {
        let mut at = ROOT;
        for name in parts(path) {
            match self.inodes.get(&at)? {
                Inode::Dir(dir) => at = *dir.durable.get(name)?,
                Inode::File(_) => return None,
            }
        }
        Some(at)
    }
}

impl SimDisk {
    /// How many bytes of a file are sure to survive; 0 where the name itself is not.
    #[must_use]
    pub fn durable_len(&self, path: &Path) -> u64 {
        self.with_durable(path, |bytes| bytes.len() as u64).unwrap_or(0)
    }

    /// True when these bytes of a file, as a read sees them, are sure to survive.
    #[must_use]
    pub fn is_durable(&self, path: &Path, range: Range<usize>) -> bool {
        let state = self.0.lock();
        let (Some(live), Some(durable)) = (state.resolve(path), state.resolve_durable(path)) else {
            return false;
        };
        live == durable
            && matches!(state.inodes.get(&live), Some(Inode::File(file))
                if file.durable.get(range.clone()).is_some_and(|bytes| file.live.get(range) == Some(bytes)))
    }

    /// Shows a file's bytes as they are durable; `None` where the name is not. A place that has gone bad since is shown as it
    /// was written: no disk, and nobody who synced it, can promise more, and reads show what has become of it.
    pub fn with_durable<T>(&self, path: &Path, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let state = self.0.lock();
        match state.inodes.get(&state.resolve_durable(path)?)? {
            Inode::File(file) => Some(look(file.as_synced())),
            Inode::Dir(_) => None,
        }
    }

    /// What `pick` makes of the names that a directory is sure to have, sorted.
    pub fn durable_names<T>(&self, dir: &Path, mut pick: impl FnMut(&str) -> Option<T>) -> Vec<T> {
        let state = self.0.lock();
        match state.resolve_durable(dir).and_then(|id| state.inodes.get(&id)) {
            Some(Inode::Dir(dir)) => dir.durable.keys().filter_map(|name| pick(name)).collect(),
            _ => Vec::new(),
        }
    }

    /// Where the segments of the log in `dir` begin, from the one on that holds `offset`.
    pub fn segments_from(&self, dir: &Path, image: Image, offset: i64) -> Vec<i64> {
        let state = self.0.lock();
        let id = match image {
            Image::Live => state.resolve(dir),
            Image::Durable => state.resolve_durable(dir),
        };
        let Some(Inode::Dir(dir)) = id.and_then(|id| state.inodes.get(&id)) else {
            return Vec::new();
        };
        let names = match image {
            Image::Live => &dir.live,
            Image::Durable => &dir.durable,
        };
        // The digits of an offset are as many in every name: names are in the order of the offsets.
        let holder = segment::name(offset.max(0));
        let (until, behind) = (Bound::Included(&holder), Bound::Excluded(&holder));
        let first = names.range::<String, _>((Bound::Unbounded, until));
        let others = names.range::<String, _>((behind, Bound::Unbounded));
        first
            .rev()
            .find_map(|(name, _)| segment::base(name))
            .into_iter()
            .chain(others.filter_map(|(name, _)| segment::base(name)))
            .collect()
    }

    /// Shows a file's bytes as a read returns them; `None` where there is no such file.
    pub fn with_live<T>(&self, path: &Path, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let state = self.0.lock();
        match state.inodes.get(&state.resolve(path)?)? {
            Inode::File(file) => Some(look(&file.live)),
            Inode::Dir(_) => None,
        }
    }

    /// What `pick` makes of the names that a directory has, sorted.
    pub fn live_names<T>(&self, dir: &Path, mut pick: impl FnMut(&str) -> Option<T>) -> Vec<T> {
        let state = self.0.lock();
        match state.resolve(dir).and_then(|id| state.inodes.get(&id)) {
            Some(Inode::Dir(dir)) => dir.live.keys().filter_map(|name| pick(name)).collect(),
            _ => Vec::new(),
        }
    }

    /// Where the machine's file system has `path` for a library that keeps its own files.
    #[must_use]
    pub fn external(&self, path: &Path) -> PathBuf {
        self.0.lock().external.path(path)
    }

    /// Removes what libraries have put there. For the end of a simulation: what its processes have leaked may hold the
    /// disk longer.
    pub fn remove_external(&self) {
        self.0.lock().external.remove();
    }

    /// There is such a directory.
    #[must_use]
    pub fn is_dir(&self, path: &Path) -> bool {
        let state = self.0.lock();
        let found = state.resolve(path).and_then(|id| state.inodes.get(&id));
        matches!(found, Some(Inode::Dir(_)))
    }

    /// Where a directory of this name is, as programs see it. The first of several, in the order of their paths.
    #[must_use]
    pub fn find_dir(&self, name: &str) -> Option<PathBuf> {
        let state = self.0.lock();
        let mut queue = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = queue.pop() {
            let Some(Inode::Dir(dir)) = state.inodes.get(&id) else {
                continue;
            };
            if dir.live.contains_key(name) {
                return Some(path.join(name));
            }
            queue.extend(dir.live.iter().rev().map(|(name, id)| (path.join(name), *id)));
        }
        None
    }
}
