use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use skerry_env::disk::{DynDisk, File, OpenMode};

use crate::buffers::BufferPool;

/// The open files of all logs, at most `capacity` of them: what was used longest ago is closed. A file with bytes
/// that are not yet synced is held open by its log as well, so that no error of the disk gets lost with it.
pub struct FileCache {
    disk: DynDisk,
    next_key: AtomicU64,
    open: Mutex<OpenFiles>,
    buffers: Arc<BufferPool>,
}

/// Names a file in the cache, through renames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileKey(u64);

struct OpenFiles {
    capacity: usize,
    tick: u64,
    files: BTreeMap<FileKey, (Arc<dyn File>, u64)>,
    by_use: BTreeMap<u64, FileKey>,
}

impl FileCache {
    /// A cache of at most `capacity` files of `disk`.
    #[must_use]
    pub fn new(disk: DynDisk, capacity: usize) -> Arc<Self> {
        Arc::new(Self {
            disk,
            next_key: AtomicU64::new(0),
            open: Mutex::new(OpenFiles {
                capacity: capacity.max(1),
                tick: 0,
                files: BTreeMap::new(),
                by_use: BTreeMap::new(),
            }),
            buffers: Arc::default(),
        })
    }

    /// The disk behind it.
    #[must_use]
    pub fn disk(&self) -> &DynDisk {
        &self.disk
    }

    /// Buffers for those who read them.
    pub(crate) fn buffers(&self) -> &Arc<BufferPool> {
        &self.buffers
    }

    /// How many files are open.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.lock().files.len()
    }

    pub(crate) fn new_key(&self) -> FileKey {
        FileKey(self.next_key.fetch_add(1, Ordering::Relaxed))
    }

    /// The file `key`, opened at `path` for reading and writing where it is not open.
    pub(crate) fn get(
        &self,
        key: FileKey,
        path: impl FnOnce() -> std::path::PathBuf,
    ) -> io::Result<Arc<dyn File>> {
        if let Some(file) = self.open.lock().touch(key) {
            return Ok(file);
        }
        let file = self.disk.open(&path(), OpenMode::ReadWrite)?;
        self.open.lock().insert(key, file.clone());
        Ok(file)
    }

    /// Opens `path` in a mode of its own and keeps it as `key`.
    pub(crate) fn open_as(&self, key: FileKey, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, mode)?;
        self.open.lock().insert(key, file.clone());
        Ok(file)
    }

    pub(crate) fn forget(&self, key: FileKey) {
        self.open.lock().remove(key);
    }
}

impl OpenFiles {
    fn touch(&mut self, key: FileKey) -> Option<Arc<dyn File>> {
        self.tick += 1;
        let (file, used) = self.files.get_mut(&key)?;
        self.by_use.remove(used);
        *used = self.tick;
        self.by_use.insert(self.tick, key);
        Some(file.clone())
    }

    fn insert(&mut self, key: FileKey, file: Arc<dyn File>) {
        self.remove(key);
        self.tick += 1;
        self.files.insert(key, (file, self.tick));
        self.by_use.insert(self.tick, key);
        while self.files.len() > self.capacity {
            let Some((_, oldest)) = self.by_use.pop_first() else {
                break;
            };
            self.files.remove(&oldest);
        }
    }

    fn remove(&mut self, key: FileKey) {
        if let Some((_, used)) = self.files.remove(&key) {
            self.by_use.remove(&used);
        }
    }
}
