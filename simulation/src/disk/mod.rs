//! A disk in memory that knows what a power cut would leave of it.
//!
//! Each file has two images: what a read returns, and what the device holds. Between them wait the changes that no
//! `sync` has covered, in order. A power cut settles them one 512-byte sector at a time: applied, dropped, torn or
//! garbage, so that a later write may survive where an earlier one did not; a new name without `sync_dir` mostly
//! vanishes, truncations and renames go either way, and one cut in ten keeps everything. A SIGKILL loses nothing that
//! was written. After a failed `sync` the kernel believes the pages clean: the next `sync` succeeds and writes
//! nothing, and once the process has died the device's bytes are what is read.
//!
//! A host holds an attachment; a crash detaches it first, so that code in a destructor writes nothing.
//!
//! Deliberately absent: memory mapping, preallocation, holes, hard links, permissions. The broker uses none of them.

mod external;
mod file;
mod inode;
mod lies;
mod lost;
mod oracle;
mod shadow;
#[cfg(test)]
mod tests;
mod trouble;

use std::collections::BTreeMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_env::disk::{DirLock, Disk, DynDisk, Entry, File, OpenMode, Space};
use skerry_env::{Rng, disk};
use skerry_types::Instant;

use self::external::ExternalDir;
pub use self::external::{remove_all_of_this_process, remove_left_over};
use self::file::SimFile;
pub use self::inode::CutReport;
pub(crate) use self::inode::torn;
use self::inode::{DirNode, FileNode, Inode, InodeId, Unkindness};
pub use self::oracle::Image;
use self::trouble::Troubles;
pub use self::trouble::{Harm, Sector, Trouble};
use crate::trace::Trace;

/// The device writes this much at once.
pub const SECTOR_BYTES: usize = 512;
/// The room of a disk that nobody has filled.
const CAPACITY_BYTES: u64 = 8 << 30;
const ROOT: InodeId = InodeId(0);
const EIO: i32 = 5;

/// The kinds of operation at which a process may be made to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OpKind {
    /// Bytes written to a file: a part of them gets there.
    Write,
    /// A file, a directory or the file system synced: it does not happen.
    Sync,
    /// A name changed, made or removed: it does not happen.
    Name,
}

/// How fast the device is, and how it misbehaves. All of it can be changed while the host runs.
#[derive(Clone, Copy, Debug)]
pub struct DiskConfig {
    /// The time that every slow operation takes at least.
    pub latency: Duration,
    /// What is added on average.
    pub jitter: Duration,
    /// One of so many reads finds its bytes in the cache; 0 = all of them do.
    pub cold_read_one_in: u64,
    /// One of so many syncs fails; 0 = none does.
    pub sync_fails_one_in: u64,
    /// What else goes wrong.
    pub trouble: Trouble,
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(200),
            jitter: Duration::from_micros(400),
            cold_read_one_in: 0,
            sync_fails_one_in: 0,
            trouble: Trouble::default(),
        }
    }
}

struct State {
    host: String,
    rng: Rng,
    trace: Trace,
    config: DiskConfig,
    capacity_bytes: u64,
    /// What [`SimDisk::leave_room`] left.
    room_left_bytes: u64,
    used_bytes: u64,
    stalled_until: Instant,
    /// What was written is there then, where the device has too little bandwidth.
    catches_up_until: Instant,
    /// Which attachment may touch the disk; every crash adds one.
    generation: u64,
    attached: bool,
    /// The process dies in the operation that brings this to zero.
    dies_in: Option<(OpKind, u64)>,
    /// It has died in an operation, and the world has not noticed yet.
    died: bool,
    inodes: BTreeMap<InodeId, Inode>,
    next_inode: u64,
    next_tie: u64,
    locks: BTreeMap<PathBuf, u64>,
    external: ExternalDir,
    sync_failures: u64,
    full_refusals: u64,
    changes: u64,
    troubles: Troubles,
    /// Syncs of records under this folder are not done.
    lies_about: Option<PathBuf>,
    /// One more than there are open files.
    handles: Arc<()>,
}

/// One host's disk. Cheap to clone.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

impl SimDisk {
    /// An empty disk that draws from `rng`.
    #[must_use]
    pub fn new(host: &str, config: DiskConfig, rng: Rng, trace: Trace) -> Self {
        let state = State {
            host: host.to_owned(),
            rng,
            trace,
            config,
            capacity_bytes: CAPACITY_BYTES,
            room_left_bytes: CAPACITY_BYTES,
            used_bytes: 0,
            stalled_until: Instant::ZERO,
            catches_up_until: Instant::ZERO,
            generation: 0,
            attached: false,
            dies_in: None,
            died: false,
            inodes: BTreeMap::from([(ROOT, Inode::Dir(DirNode::default()))]),
            next_inode: 1,
            next_tie: 0,
            locks: BTreeMap::new(),
            external: ExternalDir::new(host),
            sync_failures: 0,
            full_refusals: 0,
            changes: 0,
            troubles: Troubles::new(),
            lies_about: None,
            handles: Arc::default(),
        };
        Self(Arc::new(Mutex::new(state)))
    }

    /// The disk for a process that starts now. Whoever was attached before is cut off.
    #[must_use]
    pub fn attach(&self) -> DynDisk {
        let mut state = self.0.lock();
        state.generation += 1;
        state.attached = true;
        state.died = false;
        state.locks.clear();
        Arc::new(Attachment {
            generation: state.generation,
            disk: self.clone(),
        })
    }

    /// Cuts the process off. Every later operation of it fails.
    pub fn detach(&self) {
        let mut state = self.0.lock();
        state.attached = false;
        state.dies_in = None;
        state.locks.clear();
    }

    /// SIGKILL: what was written stays in the cache.
    pub fn kill(&self) {
        self.detach();
        let mut state = self.0.lock();
        state.died = false;
        for inode in state.inodes.values_mut() {
            if let Inode::File(file) = inode {
                file.forget_clean_pages();
            }
        }
        state.recount();
    }

    /// The power goes: what waited is settled, and only what the device holds is left.
    pub fn cut_power(&self) -> CutReport {
        self.detach();
        let mut guard = self.0.lock();
        let state = &mut *guard;
        state.died = false;
        let unkindness = Unkindness::draw(&state.rng);
        let mut report = CutReport::default();
        let mut ties = BTreeMap::new();
        for inode in state.inodes.values_mut() {
            report.add(match inode {
                Inode::File(file) => {
                    let settled = file.cut_power(&state.rng, unkindness);
                    file.lose_what_was_lied_about(&state.rng);
                    settled
                }
                Inode::Dir(dir) => dir.cut_power(&state.rng, unkindness, &mut ties),
            });
        }
        state.drop_unreachable();
        state.recount();
        report
    }

    /// The process dies in the `count`-th operation of `kind` from now.
    pub fn die_in(&self, kind: OpKind, count: u64) {
        self.0.lock().dies_in = Some((kind, count.max(1)));
    }

    /// Forgets an earlier [`Self::die_in`].
    pub fn die_in_nothing(&self) {
        self.0.lock().dies_in = None;
    }

    /// True when the process has died in an operation. The world then kills the rest of it.
    #[must_use]
    pub fn has_died(&self) -> bool {
        self.0.lock().died
    }

    /// Changes how the device behaves.
    pub fn configure(&self, change: impl FnOnce(&mut DiskConfig)) {
        change(&mut self.0.lock().config);
    }

    /// Leaves `bytes` of room from now on.
    pub fn leave_room(&self, bytes: u64) {
        let mut state = self.0.lock();
        state.capacity_bytes = state.used_bytes + bytes;
        state.room_left_bytes = bytes;
    }

    /// What somebody has left when he filled it, and what is free of that.
    #[must_use]
    pub fn room_of_filled(&self) -> Option<(u64, u64)> {
        let state = self.0.lock();
        let free_bytes = state.capacity_bytes.saturating_sub(state.used_bytes);
        (state.capacity_bytes < CAPACITY_BYTES).then_some((state.room_left_bytes, free_bytes))
    }

    /// Gives the disk its room back.
    pub fn free_room(&self) {
        self.0.lock().capacity_bytes = CAPACITY_BYTES;
    }

    /// Somebody has filled it.
    #[must_use]
    pub fn is_filled(&self) -> bool {
        self.0.lock().capacity_bytes < CAPACITY_BYTES
    }

    /// Its syncs, writes or reads fail now and then.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        let config = self.0.lock().config;
        let trouble = config.trouble;
        [
            config.sync_fails_one_in,
            trouble.write_fails_one_in,
            trouble.read_fails_one_in,
        ]
        .iter()
        .any(|one_in| *one_in > 0)
    }

    /// Slow operations wait until `moment`.
    pub fn stall_until(&self, moment: Instant) {
        self.0.lock().stalled_until = moment;
    }

    /// When the device went on, or will, that last stood still. By its host's monotonic clock.
    #[must_use]
    pub fn stalled_until(&self) -> Instant {
        self.0.lock().stalled_until
    }

    /// How many syncs have failed since the disk was made.
    #[must_use]
    pub fn sync_failures(&self) -> u64 {
        self.0.lock().sync_failures
    }

    /// How many writes, syncs and changes of names were asked of it since it was made.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// How many files are open now.
    #[must_use]
    pub fn open_files(&self) -> u64 {
        Arc::strong_count(&self.0.lock().handles) as u64 - 1
    }

    /// How many writes were refused for want of room since the disk was made.
    #[must_use]
    pub fn full_refusals(&self) -> u64 {
        self.0.lock().full_refusals
    }

    /// How long a slow operation takes: the time before it happens, and the time after that until its caller hears of
    /// it. What is written in between is not part of it. Behind a device that stands still it takes longer.
    #[must_use]
    pub fn operation_times(&self, now: Instant) -> (Duration, Duration) {
        let mut state = self.0.lock();
        let jitter = u64::try_from(state.config.jitter.as_nanos()).unwrap_or(u64::MAX);
        // The mean of two uniform draws' product over their range is a quarter: a long tail without a logarithm.
        let drawn =
            state.rng.below(jitter.saturating_mul(2)) as f64 * (state.rng.below(1_000) as f64 / 500.0);
        let owed = state.troubles.pay();
        let total = state.config.latency + Duration::from_nanos(drawn as u64) + owed;
        if !owed.is_zero() {
            state.catches_up_until = state.catches_up_until.max(now + total);
        }
        let before = match state.rng.below(3) {
            0 => Duration::ZERO,
            1 => total,
            _ => total / 2,
        };
        (before, total.saturating_sub(before))
    }
}

impl State {
    fn resolve(&self, path: &Path) -> Option<InodeId> {
        let mut at = ROOT;
        for name in parts(path) {
            match self.inodes.get(&at)? {
                Inode::Dir(dir) => at = *dir.live.get(name)?,
                Inode::File(_) => return None,
            }
        }
        Some(at)
    }

    fn dir_mut(&mut self, path: &Path) -> io::Result<&mut DirNode> {
        let id = self.resolve(path).ok_or(io::ErrorKind::NotFound)?;
        match self.inodes.get_mut(&id) {
            Some(Inode::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn file_mut(&mut self, id: InodeId) -> io::Result<&mut FileNode> {
        match self.inodes.get_mut(&id) {
            Some(Inode::File(file)) => Ok(file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn add_inode(&mut self, inode: Inode) -> InodeId {
        let id = InodeId(self.next_inode);
        self.next_inode += 1;
        self.inodes.insert(id, inode);
        id
    }

    /// Refuses whoever was cut off, and lets the process die where the plan says so.
    fn enter(&mut self, generation: u64, dies: Option<OpKind>) -> io::Result<()> {
        if !self.attached || self.generation != generation {
            return Err(gone());
        }
        let Some(kind) = dies else { return Ok(()) };
        self.changes += 1;
        match &mut self.dies_in {
            Some((armed, left)) if *armed == kind => {
                *left -= 1;
                if *left == 0 {
                    self.die(kind);
                    return Err(gone());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn die(&mut self, kind: OpKind) {
        self.dies_in = None;
        self.attached = false;
        self.died = true;
        self.trace.event(
            &self.host,
            format_args!("dies in an operation on its disk ({kind:?})"),
        );
    }

    fn write(&mut self, id: InodeId, bytes: Vec<u8>, position: u64) -> io::Result<()> {
        let position = usize::try_from(position).map_err(|_| io::ErrorKind::InvalidInput)?;
        let old_len = self.file_mut(id)?.live.len();
        let new_len = old_len.max(position + bytes.len());
        let room = self.capacity_bytes.saturating_sub(self.used_bytes);
        if (new_len - old_len) as u64 <= room {
            self.used_bytes += (new_len - old_len) as u64;
            let written = position..position + bytes.len();
            self.troubles.on_written(id, written, self.config.trouble);
            self.file_mut(id)?.write(position, bytes);
            return Ok(());
        }
        // The kernel writes what fits before it refuses the rest.
        self.full_refusals += 1;
        let fits = (old_len + usize::try_from(room).unwrap_or(usize::MAX))
            .saturating_sub(position)
            .min(bytes.len());
        if fits > 0 {
            self.used_bytes += (old_len.max(position + fits) - old_len) as u64;
            self.file_mut(id)?.write(position, bytes[..fits].to_vec());
        }
        Err(io::ErrorKind::StorageFull.into())
    }

    fn sync_fails(&mut self) -> bool {
        let one_in = self.config.sync_fails_one_in;
        let fails = one_in != 0 && self.rng.chance(1, one_in);
        self.sync_failures += u64::from(fails);
        fails
    }

    fn sync_file(&mut self, id: InodeId) -> io::Result<()> {
        if self.file_mut(id)?.pending.is_empty() {
            return Ok(());
        }
        if self.sync_fails() {
            let rng = self.rng.clone();
            self.file_mut(id)?.fail_sync(&rng);
            self.trace
                .event(&self.host, format_args!("disk: a sync fails (EIO)"));
            return Err(io::Error::from_raw_os_error(EIO));
        }
        self.file_mut(id)?.sync();
        Ok(())
    }

    fn sync_names(&mut self, path: &Path) -> io::Result<()> {
        let mut ties = self.dir_mut(path)?.sync();
        while !ties.is_empty() {
            let mut more = Vec::new();
            for inode in self.inodes.values_mut() {
                if let Inode::Dir(dir) = inode {
                    more.extend(dir.sync_ties(&ties));
                }
            }
            ties = more;
        }
        Ok(())
    }

    fn sync_everything(&mut self) -> io::Result<()> {
        let fails = self.sync_fails();
        let rng = self.rng.clone();
        for inode in self.inodes.values_mut() {
            match inode {
                Inode::File(file) if fails => {
                    if !file.pending.is_empty() {
                        file.fail_sync(&rng);
                    }
                }
                Inode::File(file) => file.sync(),
                Inode::Dir(dir) => {
                    dir.sync();
                }
            }
        }
        if fails {
            self.trace.event(
                &self.host,
                format_args!("disk: a sync of the file system fails (EIO)"),
            );
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }

    /// Takes a name away, and with a directory everything under it, each as a change of its own.
    fn unlink_tree(&mut self, id: InodeId) {
        let names: Vec<(String, InodeId)> = match self.inodes.get(&id) {
            Some(Inode::Dir(dir)) => dir.live.iter().map(|(name, id)| (name.clone(), *id)).collect(),
            Some(Inode::File(file)) => {
                self.used_bytes = self.used_bytes.saturating_sub(file.live.len() as u64);
                return;
            }
            None => return,
        };
        for (name, child) in names {
            self.unlink_tree(child);
            if let Some(Inode::Dir(dir)) = self.inodes.get_mut(&id) {
                dir.change(&name, None, None);
            }
        }
    }

    fn drop_unreachable(&mut self) {
        let mut reachable = BTreeMap::new();
        let mut queue = vec![ROOT];
        while let Some(id) = queue.pop() {
            if let Some(inode) = self.inodes.remove(&id) {
                if let Inode::Dir(dir) = &inode {
                    queue.extend(dir.live.values().chain(dir.durable.values()));
                }
                reachable.insert(id, inode);
            }
        }
        self.inodes = reachable;
    }

    fn recount(&mut self) {
        self.used_bytes = 0;
        let mut queue = vec![ROOT];
        while let Some(id) = queue.pop() {
            match self.inodes.get(&id) {
                Some(Inode::Dir(dir)) => queue.extend(dir.live.values()),
                Some(Inode::File(file)) => self.used_bytes += file.live.len() as u64,
                None => {}
            }
        }
    }
}

/// One process's way to the disk.
struct Attachment {
    generation: u64,
    disk: SimDisk,
}

impl Attachment {
    fn with<T>(
        &self,
        dies: Option<OpKind>,
        what: &str,
        path: &Path,
        run: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        state.enter(self.generation, dies)?;
        let result = run(&mut state);
        let name = format!("disk {what} {}", path.display());
        state
            .trace
            .detail(&state.host, &name, u64::from(result.is_ok()), 0);
        result
    }
}

fn split(path: &Path) -> io::Result<(&Path, &str)> {
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .ok_or(io::ErrorKind::InvalidInput)?;
    Ok((path.parent().unwrap_or_else(|| Path::new("")), name))
}

fn parts(path: &Path) -> impl Iterator<Item = &str> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    })
}

fn gone() -> io::Error {
    io::Error::other("the simulated process has been killed")
}

impl Disk for Attachment {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let makes = matches!(mode, OpenMode::Create | OpenMode::CreateNew);
        let found = self.with(None, "open", path, |state| match state.resolve(path) {
            Some(_) if mode == OpenMode::CreateNew => Err(io::ErrorKind::AlreadyExists.into()),
            Some(id) => match state.inodes.get(&id) {
                Some(Inode::File(_)) => Ok(Some(id)),
                _ => Err(io::ErrorKind::IsADirectory.into()),
            },
            None if makes => Ok(None),
            None => Err(io::ErrorKind::NotFound.into()),
        })?;
        let id = match found {
            Some(id) => id,
            None => self.with(Some(OpKind::Name), "create", path, |state| {
                let (parent, name) = split(path)?;
                state.dir_mut(parent)?;
                let really = lies::is_concerned(state.lies_about.as_ref(), path).then_some(0);
                let file = FileNode {
                    really,
                    ..FileNode::default()
                };
                let id = state.add_inode(Inode::File(file));
                state.dir_mut(parent)?.change(name, Some(id), None);
                Ok(id)
            })?,
        };
        let handle = self.disk.0.lock().handles.clone();
        Ok(Arc::new(SimFile {
            _handle: handle,
            generation: self.generation,
            id,
            path: path.to_owned(),
            disk: self.disk.clone(),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.with(Some(OpKind::Name), "rename", to, |state| {
            let id = state.resolve(from).ok_or(io::ErrorKind::NotFound)?;
            let (from_dir, from_name) = split(from)?;
            let (to_dir, to_name) = split(to)?;
            let overwritten = state.resolve(to).filter(|old| *old != id);
            state.dir_mut(to_dir)?;
            if let Some(old) = overwritten {
                match state.inodes.get(&old) {
                    Some(Inode::Dir(dir)) if !dir.live.is_empty() => {
                        return Err(io::ErrorKind::DirectoryNotEmpty.into());
                    }
                    _ => state.unlink_tree(old),
                }
            }
            let tie = state.next_tie;
            state.next_tie += 1;
            state.dir_mut(to_dir)?.change(to_name, Some(id), Some(tie));
            state.dir_mut(from_dir)?.change(from_name, None, Some(tie));
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.with(Some(OpKind::Name), "remove", path, |state| {
            let id = state.resolve(path).ok_or(io::ErrorKind::NotFound)?;
            state.file_mut(id).map_err(|_| io::ErrorKind::IsADirectory)?;
            state.unlink_tree(id);
            let (parent, name) = split(path)?;
            state.dir_mut(parent)?.change(name, None, None);
            Ok(())
        })
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with(Some(OpKind::Name), "remove-all", path, |state| {
            let id = state.resolve(path).ok_or(io::ErrorKind::NotFound)?;
            state.dir_mut(path)?;
            state.unlink_tree(id);
            let (parent, name) = split(path)?;
            state.dir_mut(parent)?.change(name, None, None);
            Ok(())
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.with(Some(OpKind::Name), "mkdir", path, |state| {
            let mut at = PathBuf::new();
            for name in parts(path) {
                let parent = at.clone();
                at.push(name);
                match state.resolve(&at).and_then(|id| state.inodes.get(&id)) {
                    Some(Inode::Dir(_)) => {}
                    Some(Inode::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                    None => {
                        let id = state.add_inode(Inode::Dir(DirNode::default()));
                        state.dir_mut(&parent)?.change(name, Some(id), None);
                    }
                }
            }
            Ok(())
        })
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.with(None, "list", dir, |state| {
            let names = state.dir_mut(dir)?.live.clone();
            Ok(names
                .into_iter()
                .filter_map(|(name, id)| Some(describe(name, state.inodes.get(&id)?)))
                .collect())
        })
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.with(None, "stat", path, |state| {
            let name = path
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default();
            Ok(state
                .resolve(path)
                .and_then(|id| state.inodes.get(&id))
                .map(|inode| describe(name, inode)))
        })
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.with(Some(OpKind::Sync), "sync-dir", dir, |state| state.sync_names(dir))
    }

    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        self.with(
            Some(OpKind::Sync),
            "sync-filesystem",
            path,
            State::sync_everything,
        )
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.with(None, "space", path, |state| {
            Ok(Space {
                total_bytes: CAPACITY_BYTES,
                available_bytes: state.capacity_bytes.saturating_sub(state.used_bytes),
            })
        })
    }

    fn lock_dir(&self, dir: &Path) -> io::Result<Box<dyn DirLock>> {
        self.with(None, "lock", dir, |state| {
            state.dir_mut(dir)?;
            if state.locks.contains_key(dir) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            state.locks.insert(dir.to_owned(), self.generation);
            Ok(())
        })?;
        Ok(Box::new(SimLock {
            generation: self.generation,
            dir: dir.to_owned(),
            disk: self.disk.clone(),
        }))
    }

    fn external_path(&self, path: &Path) -> PathBuf {
        self.disk.0.lock().external.path(path)
    }
}

fn describe(name: String, inode: &Inode) -> Entry {
    match inode {
        Inode::File(file) => Entry {
            name,
            is_dir: false,
            len: file.live.len() as u64,
        },
        Inode::Dir(_) => Entry {
            name,
            is_dir: true,
            len: 0,
        },
    }
}

struct SimLock {
    generation: u64,
    dir: PathBuf,
    disk: SimDisk,
}

impl DirLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.0.lock();
        if state.locks.get(&self.dir) == Some(&self.generation) {
            state.locks.remove(&self.dir);
        }
    }
}

/// Reads a small file through an attachment; for tests and oracles.
#[must_use]
pub fn read_all(disk: &dyn Disk, path: &Path) -> Option<Vec<u8>> {
    disk::read_file(disk, path, u64::MAX).ok().flatten()
}
