//! The sparse indexes beside a segment: `.index` (offset to position), `.timeindex` (timestamp to offset) and
//! `.txnindex` (aborted transactions).
//!
//! An index is derived from its segment and never trusted beyond a hint: whoever follows an entry compares it with the
//! batch that it finds there.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BufMut};
use skerry_env::disk::{File, read_exact_at};
use skerry_types::{Offset, ProducerId, WallMs};

/// Entries of the active segment's indexes that stay in memory.
const TAIL_KEEP: usize = 64;

/// An entry of a sparse index; entries are ordered by their key.
pub(crate) trait IndexEntry: Copy + PartialEq {
    const BYTES: usize;
    fn put(&self, out: &mut Vec<u8>);
    fn get(raw: &[u8]) -> Self;
    fn key(&self) -> i64;
}

/// 8 bytes: the last offset of a batch, relative to the segment's base, and the batch's position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) relative: u32,
    pub(crate) position: u32,
}

impl IndexEntry for OffsetEntry {
    const BYTES: usize = 8;

    fn put(&self, out: &mut Vec<u8>) {
        out.put_u32(self.relative);
        out.put_u32(self.position);
    }

    fn get(mut raw: &[u8]) -> Self {
        Self {
            relative: raw.get_u32(),
            position: raw.get_u32(),
        }
    }

    fn key(&self) -> i64 {
        i64::from(self.relative)
    }
}

/// 12 bytes: the largest timestamp so far, and the last offset (relative) of the batch that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp: WallMs,
    pub(crate) relative: u32,
}

impl IndexEntry for TimeEntry {
    const BYTES: usize = 12;

    fn put(&self, out: &mut Vec<u8>) {
        out.put_i64(self.timestamp.get());
        out.put_u32(self.relative);
    }

    fn get(mut raw: &[u8]) -> Self {
        Self {
            timestamp: WallMs(raw.get_i64()),
            relative: raw.get_u32(),
        }
    }

    fn key(&self) -> i64 {
        self.timestamp.get()
    }
}

/// One index: `stored` entries are in the file; the newest are in memory, some of them not yet in the file.
#[derive(Debug)]
pub(crate) struct SparseIndex<E> {
    stored: u32,
    /// Number of the first entry of `tail`. `tail_start <= stored <= count()`.
    tail_start: u32,
    tail: Vec<E>,
}

impl<E: IndexEntry> SparseIndex<E> {
    /// An index whose first `stored` entries are in the file.
    pub(crate) fn stored(stored: u32) -> Self {
        Self {
            stored,
            tail_start: stored,
            tail: Vec::new(),
        }
    }

    /// Brings the last entry of the file into memory: the active segment compares new ones with it.
    pub(crate) fn load_last(&mut self, file: impl FnOnce() -> io::Result<Arc<dyn File>>) -> io::Result<()> {
        if self.tail.is_empty()
            && let Some(last) = self.last(file)?
        {
            self.tail_start = self.stored - 1;
            self.tail.push(last);
        }
        Ok(())
    }

    pub(crate) fn count(&self) -> u32 {
        self.tail_start + self.tail.len() as u32
    }

    /// How many entries only the file has.
    pub(crate) fn cold_count(&self) -> u32 {
        self.tail_start
    }

    pub(crate) fn tail(&self) -> &[E] {
        &self.tail
    }

    pub(crate) fn stored_bytes(&self) -> u64 {
        u64::from(self.stored) * E::BYTES as u64
    }

    pub(crate) fn has_unstored(&self) -> bool {
        self.stored < self.count()
    }

    pub(crate) fn wants_store(&self) -> bool {
        (self.count() - self.stored) as usize >= TAIL_KEEP
    }

    pub(crate) fn push(&mut self, entry: E) {
        self.tail.push(entry);
    }

    /// Writes to the file what is not there yet.
    pub(crate) fn store(&mut self, file: &dyn File) -> io::Result<()> {
        let first = (self.stored - self.tail_start) as usize;
        let mut bytes = Vec::with_capacity((self.tail.len() - first) * E::BYTES);
        for entry in &self.tail[first..] {
            entry.put(&mut bytes);
        }
        file.write_at(&[io::IoSlice::new(&bytes)], self.stored_bytes())?;
        self.stored = self.count();
        let surplus = self.tail.len().saturating_sub(TAIL_KEEP);
        self.tail.drain(..surplus);
        self.tail_start += surplus as u32;
        Ok(())
    }

    /// Leaves only the file. Nothing may be unstored.
    pub(crate) fn release(&mut self) {
        assert!(!self.has_unstored(), "an index is released before it is stored");
        self.tail_start = self.stored;
        self.tail = Vec::new();
    }

    pub(crate) fn last(&self, file: impl FnOnce() -> io::Result<Arc<dyn File>>) -> io::Result<Option<E>> {
        if let Some(last) = self.tail.last() {
            return Ok(Some(*last));
        }
        match self.stored.checked_sub(1) {
            Some(at) => read_entry(&*file()?, at).map(Some),
            None => Ok(None),
        }
    }

    /// All entries, from the file and from memory.
    pub(crate) fn all(&self, file: impl FnOnce() -> io::Result<Arc<dyn File>>) -> io::Result<Vec<E>> {
        let mut entries = Vec::with_capacity(self.count() as usize);
        if self.tail_start > 0 {
            let mut bytes = vec![0; self.tail_start as usize * E::BYTES];
            read_exact_at(&*file()?, &mut bytes, 0)?;
            entries.extend(bytes.chunks_exact(E::BYTES).map(E::get));
        }
        entries.extend_from_slice(&self.tail);
        Ok(entries)
    }

    /// The last entry whose key is at most `key`, among those in memory. `Err`: only the file can tell.
    pub(crate) fn floor_in_tail(&self, key: i64) -> Result<Option<E>, u32> {
        let after = self.tail.partition_point(|entry| entry.key() <= key);
        match after.checked_sub(1) {
            Some(at) => Ok(Some(self.tail[at])),
            None if self.tail_start == 0 => Ok(None),
            None => Err(self.tail_start),
        }
    }

    /// Forgets what is in memory only.
    pub(crate) fn drop_unstored(&mut self) {
        self.truncate(self.stored);
    }

    /// Keeps the first `count` entries; the file is cut by the caller.
    pub(crate) fn truncate(&mut self, count: u32) {
        if count < self.tail_start {
            *self = Self::stored(count);
            return;
        }
        self.tail.truncate((count - self.tail_start) as usize);
        self.stored = self.stored.min(count);
    }
}

fn read_entry<E: IndexEntry>(file: &dyn File, at: u32) -> io::Result<E> {
    let mut raw = [0; 16];
    let raw = &mut raw[..E::BYTES];
    read_exact_at(file, raw, u64::from(at) * E::BYTES as u64)?;
    Ok(E::get(raw))
}

/// How a search reads the file: `None` where it would have to wait for the device.
pub(crate) type ReadAt<'a> = &'a dyn Fn(&dyn File, &mut [u8], u64) -> io::Result<Option<usize>>;

/// The last of the file's first `count` entries whose key is at most `key`. The outer `None`: would wait.
pub(crate) fn floor_in_file<E: IndexEntry>(
    file: &dyn File,
    count: u32,
    key: i64,
    read: ReadAt<'_>,
) -> io::Result<Option<Option<E>>> {
    let (mut low, mut high) = (0, count);
    let mut floor = None;
    while low < high {
        let middle = low + (high - low) / 2;
        let mut raw = [0; 16];
        let raw = &mut raw[..E::BYTES];
        match read(file, raw, u64::from(middle) * E::BYTES as u64)? {
            None => return Ok(None),
            // Shorter than it was: whoever searches starts at the segment's beginning.
            Some(len) if len < raw.len() => return Ok(Some(None)),
            Some(_) => {}
        }
        let entry = E::get(raw);
        if entry.key() <= key {
            floor = Some(entry);
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(Some(floor))
}

/// A transaction that was aborted: a reader of committed records skips that producer's records in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    /// Whose.
    pub producer_id: ProducerId,
    /// Its first record.
    pub first_offset: Offset,
    /// Its marker.
    pub last_offset: Offset,
    /// The last stable offset just after it: no earlier transaction can still be added below.
    pub last_stable_offset: Offset,
}

impl AbortedTxn {
    pub(crate) const BYTES: usize = 34;
    const VERSION: i16 = 0;

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_i16(Self::VERSION);
        out.put_i64(self.producer_id.get());
        out.put_i64(self.first_offset.get());
        out.put_i64(self.last_offset.get());
        out.put_i64(self.last_stable_offset.get());
    }

    /// `None` for another version.
    pub(crate) fn get(mut raw: &[u8]) -> Option<Self> {
        (raw.get_i16() == Self::VERSION).then(|| Self {
            producer_id: ProducerId(raw.get_i64()),
            first_offset: Offset(raw.get_i64()),
            last_offset: Offset(raw.get_i64()),
            last_stable_offset: Offset(raw.get_i64()),
        })
    }
}
