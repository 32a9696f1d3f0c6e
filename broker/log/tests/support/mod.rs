//! A disk in memory that forgets at a power cut what was not synced, and tools for the tests of the log.
#![allow(dead_code, reason = "each test is a crate of its own and uses some of these")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use skerry_env::disk::{DirLock, Disk, DynDisk, Entry, File, OpenMode, Space};
use skerry_log::batch::{Batch, BatchBuilder, Batches, Compression, Record, Records};
use skerry_log::{
    Appended, FileCache, Log, LogConfig, PartitionIdentity, Recovered, RecoveryReport, Shutdown, ValidBatch,
};
use skerry_types::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, TopicId,
    WallMs,
};

/// A small generator: the tests must give the same history for the same seed.
#[derive(Clone)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
}

type Inode = usize;

#[derive(Clone, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
}

#[derive(Clone, Default)]
struct State {
    inodes: Vec<Content>,
    names: BTreeMap<PathBuf, Inode>,
    synced_names: BTreeMap<PathBuf, Inode>,
    dirs: BTreeMap<PathBuf, bool>,
    /// Bytes that may still be written.
    room: Option<u64>,
    fail_syncs: bool,
    fail_writes: bool,
    syncs: u64,
    changes: u64,
    /// Changes of names that still work.
    renames_left: Option<u64>,
    /// Reads of records until one returns a wrong bit.
    misread_in: Option<(u64, Misread)>,
    misreads: u64,
}

impl State {
    fn count_rename(&mut self) -> io::Result<()> {
        match &mut self.renames_left {
            Some(0) => Err(io::Error::other("stopped")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// See the module. Clones share the bytes.
#[derive(Clone, Default)]
pub struct PowerDisk(Arc<Mutex<State>>);

impl PowerDisk {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn dyn_disk(&self) -> DynDisk {
        Arc::new(self.clone())
    }

    /// A copy that shares nothing.
    pub fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.0.lock().clone())))
    }

    pub fn set_room(&self, room: Option<u64>) {
        self.0.lock().room = room;
    }

    pub fn fail_syncs(&self, fail: bool) {
        self.0.lock().fail_syncs = fail;
    }

    pub fn fail_writes(&self, fail: bool) {
        self.0.lock().fail_writes = fail;
    }

    /// Renames, removals and syncs of directories fail after so many of them.
    pub fn stop_after(&self, changes: u64) {
        self.0.lock().renames_left = Some(changes);
    }

    pub fn resume(&self) {
        self.0.lock().renames_left = None;
    }

    /// After so many reads of records one returns a wrong bit, of what a batch's sum covers.
    pub fn misread_in(&self, reads: u64, what: Misread) {
        let mut state = self.0.lock();
        (state.misread_in, state.misreads) = (Some((reads, what)), 0);
    }

    /// How many reads have returned a wrong bit since.
    pub fn misreads(&self) -> u64 {
        self.0.lock().misreads
    }

    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// Counts everything that changed a file or a name.
    pub fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    /// What is on the disk after the power was cut now: of everything unsynced any mixture of kept, lost and torn.
    pub fn cut_power(&self, dice: &mut Dice) -> Self {
        let mut state = self.0.lock().clone();
        let mood = dice.below(4);
        for content in &mut state.inodes {
            tear(content, dice, mood);
        }
        let mut names = state.synced_names.clone();
        let changed: Vec<PathBuf> = state
            .names
            .keys()
            .chain(state.synced_names.keys())
            .filter(|path| state.names.get(*path) != state.synced_names.get(*path))
            .cloned()
            .collect();
        for path in changed {
            // A rename is one step: the old name goes when the new one comes. Taken apart it would lose the file,
            // which no journal does; a removal or a creation stands for itself.
            if mood == 1 || mood > 1 && dice.below(2) == 0 {
                match state.names.get(&path) {
                    Some(inode) => {
                        names.retain(|_, other| other != inode);
                        names.insert(path, *inode);
                    }
                    None if !state
                        .names
                        .values()
                        .any(|i| Some(i) == state.synced_names.get(&path)) =>
                    {
                        names.remove(&path);
                    }
                    None => {}
                }
            }
        }
        state.dirs.retain(|_, synced| *synced || mood == 1);
        let dirs = state.dirs.clone();
        names.retain(|path, _| path.parent().is_some_and(|dir| dirs.contains_key(dir)));
        state.names = names.clone();
        state.synced_names = names;
        state.room = None;
        Self(Arc::new(Mutex::new(state)))
    }

    pub fn read(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock();
        state
            .names
            .get(path)
            .map(|inode| state.inodes[*inode].now.clone())
    }

    /// Puts bytes into a file, as if they had always been there.
    pub fn put(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.0.lock();
        let inode = state.inodes.len();
        state.inodes.push(Content {
            now: bytes.clone(),
            synced: bytes,
        });
        state.names.insert(path.to_owned(), inode);
        state.synced_names.insert(path.to_owned(), inode);
        for dir in path.ancestors().skip(1) {
            state.dirs.insert(dir.to_owned(), true);
        }
    }

    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let state = self.0.lock();
        state
            .names
            .iter()
            .map(|(path, inode)| (path.clone(), state.inodes[*inode].now.clone()))
            .collect()
    }
}

fn tear(content: &mut Content, dice: &mut Dice, mood: u64) {
    if content.now != content.synced {
        let (old, new) = (content.synced.clone(), content.now.clone());
        content.now = match mood {
            0 => old,
            1 => new,
            _ => {
                let longest = old.len().max(new.len());
                let shortest = old.len().min(new.len());
                let len = match dice.below(3) {
                    0 => old.len(),
                    1 => new.len(),
                    _ => shortest + dice.below((longest - shortest + 1) as u64) as usize,
                };
                let mut torn = vec![0; len];
                // What was synced and not written since stays as it is.
                for (byte, old) in torn.iter_mut().zip(&old) {
                    *byte = *old;
                }
                for start in (0..len).step_by(512) {
                    let end = len.min(start + 512);
                    if old
                        .get(start..end)
                        .is_some_and(|old| new.get(start..end) == Some(old))
                    {
                        continue;
                    }
                    match dice.below(4) {
                        0 | 1 => {
                            for (byte, new) in torn[start..end].iter_mut().zip(new.iter().skip(start)) {
                                *byte = *new;
                            }
                        }
                        2 => {}
                        _ => {
                            for (at, byte) in torn.iter_mut().enumerate().take(end).skip(start) {
                                if old.get(at) != new.get(at) {
                                    *byte = dice.below(256) as u8;
                                }
                            }
                        }
                    }
                }
                torn
            }
        };
    }
    content.synced = content.now.clone();
}

struct Handle {
    state: Arc<Mutex<State>>,
    inode: Inode,
    writable: bool,
    holds_records: bool,
}

/// Which bit a read returns wrong.
#[derive(Clone, Copy, Debug)]
pub enum Misread {
    /// Any.
    Any,
    /// This one of what a batch's head says of its last offset.
    LastOffset(u32),
}

impl State {
    fn misread(&mut self, inode: Inode, buf: &mut [u8], start: usize) {
        let Some((left, what)) = &mut self.misread_in else {
            return;
        };
        let lies = batches_of(&self.inodes[inode].now);
        let read = start..start + buf.len();
        let wrong: Vec<usize> = match what {
            Misread::Any => {
                let summed = |at: &usize| {
                    lies.iter()
                        .any(|batch| (batch.start + 17..batch.end).contains(at))
                };
                read.filter(summed).collect()
            }
            Misread::LastOffset(bit) => {
                let places = lies.iter().map(|batch| batch.start + 26 - *bit as usize / 8);
                places.filter(|place| read.contains(place)).collect()
            }
        };
        if wrong.is_empty() {
            return;
        }
        if *left > 0 {
            *left -= 1;
            return;
        }
        let mut dice = Dice::new(start as u64 + 1);
        let at = wrong[dice.below(wrong.len() as u64) as usize];
        let bit = match what {
            Misread::Any => dice.below(8) as u32,
            Misread::LastOffset(bit) => *bit % 8,
        };
        buf[at - start] ^= 1 << bit;
        self.misread_in = None;
        self.misreads += 1;
    }
}

/// Where the batches of a file lie.
fn batches_of(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut found, mut begin) = (Vec::new(), 0);
    while let Some(length) = bytes.get(begin + 8..begin + 12) {
        let end = begin + 12 + u32::from_be_bytes(length.try_into().unwrap()) as usize;
        found.push(begin..end);
        begin = end;
    }
    found
}

impl File for Handle {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.state.lock();
        let bytes = &state.inodes[self.inode].now;
        let start = bytes.len().min(position as usize);
        let len = buf.len().min(bytes.len() - start);
        buf[..len].copy_from_slice(&bytes[start..start + len]);
        if self.holds_records {
            state.misread(self.inode, &mut buf[..len], start);
        }
        Ok(len)
    }

    fn read_cached_at(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        self.read_at(buf, position).map(Some)
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        if !self.writable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        if state.fail_writes {
            return Err(io::Error::other("injected"));
        }
        state.changes += 1;
        let mut at = position as usize;
        for buf in bufs {
            let allowed = state.room.map_or(buf.len(), |room| buf.len().min(room as usize));
            if let Some(room) = &mut state.room {
                *room -= allowed as u64;
            }
            let bytes = &mut state.inodes[self.inode].now;
            if bytes.len() < at + allowed {
                bytes.resize(at + allowed, 0);
            }
            bytes[at..at + allowed].copy_from_slice(&buf[..allowed]);
            at += allowed;
            if allowed < buf.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
        }
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        if state.fail_syncs {
            return Err(io::Error::other("injected"));
        }
        state.syncs += 1;
        let content = &mut state.inodes[self.inode];
        content.synced = content.now.clone();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        state.changes += 1;
        state.inodes[self.inode].now.resize(len as usize, 0);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().inodes[self.inode].now.len() as u64)
    }
}

impl Disk for PowerDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.0.lock();
        let inode = match (state.names.get(path).copied(), mode) {
            (Some(_), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(inode), _) => inode,
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(io::ErrorKind::NotFound.into()),
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                if state.room == Some(0) {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                if !path.parent().is_some_and(|dir| state.dirs.contains_key(dir)) {
                    return Err(io::ErrorKind::NotFound.into());
                }
                state.changes += 1;
                let inode = state.inodes.len();
                state.inodes.push(Content::default());
                state.names.insert(path.to_owned(), inode);
                inode
            }
        };
        Ok(Arc::new(Handle {
            state: self.0.clone(),
            inode,
            writable: mode != OpenMode::Read,
            holds_records: path.extension().is_some_and(|extension| extension == "log"),
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.count_rename()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.changes += 1;
        state.names.insert(to.to_owned(), inode);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.count_rename()?;
        state.names.remove(path).ok_or(io::ErrorKind::NotFound)?;
        state.changes += 1;
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.names.retain(|name, _| !name.starts_with(path));
        state.dirs.retain(|name, _| !name.starts_with(path));
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        for dir in path.ancestors() {
            state.dirs.entry(dir.to_owned()).or_insert(dir.parent().is_none());
        }
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let state = self.0.lock();
        if !state.dirs.contains_key(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let here = |path: &&PathBuf| path.parent() == Some(dir);
        let name = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
        let mut entries: Vec<_> = state
            .names
            .keys()
            .filter(here)
            .map(|path| Entry {
                name: name(path),
                is_dir: false,
                len: state.inodes[state.names[path]].now.len() as u64,
            })
            .collect();
        entries.extend(state.dirs.keys().filter(here).map(|path| Entry {
            name: name(path),
            is_dir: true,
            len: 0,
        }));
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Entry>> {
        let state = self.0.lock();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if state.dirs.contains_key(path) {
            return Ok(Some(Entry {
                name,
                is_dir: true,
                len: 0,
            }));
        }
        Ok(state.names.get(path).map(|inode| Entry {
            name,
            is_dir: false,
            len: state.inodes[*inode].now.len() as u64,
        }))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        state.count_rename()?;
        if state.fail_syncs {
            return Err(io::Error::other("injected"));
        }
        state.syncs += 1;
        let now: Vec<_> = state
            .names
            .iter()
            .filter(|(path, _)| path.parent() == Some(dir))
            .map(|(path, inode)| (path.clone(), *inode))
            .collect();
        state.synced_names.retain(|path, _| path.parent() != Some(dir));
        state.synced_names.extend(now);
        for (path, synced) in &mut state.dirs {
            *synced |= path.parent() == Some(dir);
        }
        Ok(())
    }

    fn sync_filesystem(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.0.lock();
        for content in &mut state.inodes {
            content.synced = content.now.clone();
        }
        state.synced_names = state.names.clone();
        Ok(())
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        Ok(Space {
            total_bytes: 1 << 40,
            available_bytes: 1 << 40,
        })
    }

    fn lock_dir(&self, _dir: &Path) -> io::Result<Box<dyn DirLock>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn external_path(&self, path: &Path) -> PathBuf {
        path.to_owned()
    }
}

/// Cases of a property test: a long run sets `SKERRY_CASES`.
pub fn cases(usual: u32) -> u32 {
    std::env::var("SKERRY_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok())
        .unwrap_or(usual)
}

/// Makes the mistake that `SKERRY_PLANT` names, in a process that `finds` has started.
pub fn plant_from_env() {
    static PLANTED: std::sync::Once = std::sync::Once::new();
    PLANTED.call_once(|| {
        if let Ok(name) = std::env::var("SKERRY_PLANT") {
            skerry_types::plant(&name);
        }
    });
}

/// True where `test` of this file fails with the planted bug `name`, which a process of its own makes.
pub fn finds(test: &str, name: &str) -> bool {
    let run = std::process::Command::new(std::env::current_exe().expect("this program"))
        .args([test, "--exact"])
        .env("SKERRY_PLANT", name)
        .env("SKERRY_CASES", "20000")
        .output()
        .expect("a run of this program");
    !run.status.success()
}

pub const NOW: WallMs = WallMs(1_700_000_000_000);

pub fn identity() -> PartitionIdentity {
    PartitionIdentity {
        topic: "orders".into(),
        partition: PartitionIndex(0),
        topic_id: TopicId::from_random([5; 16]),
    }
}

pub fn dir() -> PathBuf {
    PathBuf::from("/data/orders-0")
}

pub fn files(disk: &PowerDisk) -> Arc<FileCache> {
    FileCache::new(disk.dyn_disk(), 16)
}

pub fn create(disk: &PowerDisk, config: &LogConfig) -> Log {
    Log::create(&files(disk), dir(), identity(), config.clone()).expect("a new log")
}

pub fn open(disk: &PowerDisk, config: &LogConfig, recovered: Recovered) -> (Log, RecoveryReport) {
    try_open(disk, config, Shutdown::Unclean, recovered).expect("the log opens")
}

pub fn try_open(
    disk: &PowerDisk,
    config: &LogConfig,
    shutdown: Shutdown,
    recovered: Recovered,
) -> Result<(Log, RecoveryReport), skerry_log::OpenError> {
    Log::open(
        &files(disk),
        dir(),
        Some(identity()),
        config.clone(),
        shutdown,
        recovered,
        NOW,
    )
}

/// A batch as a producer would send it: `values` one record each.
pub fn batch(values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::default();
    for (at, value) in values.iter().enumerate() {
        builder.push(WallMs(NOW.get() + at as i64), None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

pub fn keyed(pairs: &[(&str, Option<&str>)], timestamp: WallMs) -> Bytes {
    let mut builder = BatchBuilder::default();
    for (key, value) in pairs {
        builder.push(timestamp, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
    }
    builder.build()
}

/// A batch of an idempotent producer.
pub fn idempotent(id: i64, epoch: i16, sequence: i32, values: &[&str]) -> Bytes {
    let producer = ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
    };
    let mut builder = BatchBuilder::new(Compression::None).producer(producer, Sequence(sequence));
    for value in values {
        builder.push(NOW, None, Some(value.as_bytes()), &[]);
    }
    builder.build()
}

pub fn append(log: &mut Log, bytes: Bytes, epoch: i32) -> Appended {
    let batch = ValidBatch::internal(bytes).expect("a valid batch");
    log.append_as_leader(batch, LeaderEpoch(epoch), NOW)
        .expect("an append")
}

pub fn flush(log: &mut Log) -> Offset {
    if let Some(job) = log.start_flush() {
        let result = job.run();
        log.finish_flush(job, result).expect("a flush");
    }
    log.durable_end()
}

pub fn checkpoint(log: &mut Log) -> Offset {
    if let Some(job) = log.start_checkpoint() {
        let result = job.run();
        log.finish_checkpoint(job, result).expect("a checkpoint");
    }
    log.recovery_point()
}

/// All batches from `from` on, read the way consumers do.
pub fn read_batches(log: &Log, from: Offset) -> Vec<Batch> {
    let mut batches = Vec::new();
    let mut next = from;
    loop {
        let plan = log.plan_read(next, log.log_end(), 1 << 16, true).expect("a plan");
        let bytes = plan.run().expect("a read");
        let mut any = false;
        for batch in Batches::new(bytes) {
            next = batch.header.next_offset();
            batches.push(batch);
            any = true;
        }
        if !any {
            return batches;
        }
    }
}

pub fn read_records(log: &Log, from: Offset) -> Vec<Record> {
    let batches = read_batches(log, from);
    batches
        .iter()
        .flat_map(|batch| Records::all(batch).expect("records"))
        .filter(|r| r.offset >= from)
        .collect()
}

pub fn values(log: &Log) -> Vec<String> {
    let text = |record: Record| String::from_utf8(record.value.unwrap_or_default().to_vec()).expect("text");
    read_records(log, log.log_start()).into_iter().map(text).collect()
}
