//! One segment: a `.log` file and its indexes.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;
use skerry_env::disk::{DynDisk, File, OpenMode, read_exact_at};
use skerry_types::{Offset, WallMs, is_planted};

use crate::batch::{Batch, BatchHeader};
use crate::config::LogConfig;
use crate::files::{FileCache, FileKey};
use crate::index::{AbortedTxn, IndexEntry, OffsetEntry, SparseIndex, TimeEntry, floor_in_file};
use crate::walk::{plausible_size, read_up_to};

/// Kafka keeps positions in an `i32`.
pub(crate) const SEGMENT_BYTES_MAX: u64 = i32::MAX as u64;

/// The files of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileKind {
    Log,
    OffsetIndex,
    TimeIndex,
    TxnIndex,
    Snapshot,
}

impl FileKind {
    pub(crate) const ALL: [Self; 5] = [
        Self::Log,
        Self::OffsetIndex,
        Self::TimeIndex,
        Self::TxnIndex,
        Self::Snapshot,
    ];
    /// What compaction writes anew.
    pub(crate) const CLEANED: [Self; 4] = [Self::OffsetIndex, Self::TimeIndex, Self::TxnIndex, Self::Log];

    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Self::Log => ".log",
            Self::OffsetIndex => ".index",
            Self::TimeIndex => ".timeindex",
            Self::TxnIndex => ".txnindex",
            Self::Snapshot => ".snapshot",
        }
    }
}

/// `00000000000000000042.log`, with whatever follows.
pub(crate) fn file_name(base: Offset, kind: FileKind, more: &str) -> String {
    format!("{:020}{}{more}", base.get(), kind.suffix())
}

/// Where the segments of a log live.
#[derive(Clone)]
pub(crate) struct Place {
    pub(crate) files: Arc<FileCache>,
    pub(crate) dir: Arc<Path>,
}

impl Place {
    pub(crate) fn path(&self, base: Offset, kind: FileKind) -> PathBuf {
        self.dir.join(file_name(base, kind, ""))
    }

    pub(crate) fn disk(&self) -> &DynDisk {
        self.files.disk()
    }
}

/// The largest timestamp of a segment so far, and the last offset of the batch that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LargestTimestamp {
    pub(crate) timestamp: WallMs,
    pub(crate) offset: Offset,
}

/// Bytes written since the last sync.
pub(crate) struct Dirty {
    /// Held open: closing it could lose the error of a failed write-back.
    pub(crate) file: Arc<dyn File>,
    /// Number of the last write to it.
    pub(crate) write: u64,
}

pub(crate) struct Segment {
    pub(crate) base: Offset,
    place: Place,
    keys: [FileKey; 4],
    /// Bytes of whole batches in the `.log` file.
    pub(crate) size: u32,
    pub(crate) offsets: SparseIndex<OffsetEntry>,
    pub(crate) times: SparseIndex<TimeEntry>,
    /// Entries in the `.txnindex` file.
    pub(crate) aborted_count: u32,
    /// `None`: not looked up since the segment was opened.
    pub(crate) largest: Option<LargestTimestamp>,
    /// The first batch's largest timestamp, which `segment.ms` counts from; `None`: empty, or not looked up.
    pub(crate) first_timestamp: Option<WallMs>,
    pub(crate) bytes_since_index: u32,
    pub(crate) created: WallMs,
    pub(crate) dirty: Option<Dirty>,
}

impl Segment {
    /// Makes the files of a new segment. Their names are not durable yet.
    pub(crate) fn create(place: &Place, base: Offset, now: WallMs) -> io::Result<Self> {
        let segment = Self::existing(place, base, SegmentSizes::default(), now);
        for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
            let file = place
                .files
                .open_as(segment.key(kind), &place.path(base, kind), OpenMode::Create)?;
            // Left over from an attempt that failed.
            if !file.is_empty()? {
                file.set_len(0)?;
            }
        }
        Ok(segment)
    }

    /// A segment whose files are there.
    pub(crate) fn existing(place: &Place, base: Offset, sizes: SegmentSizes, now: WallMs) -> Self {
        let key = || place.files.new_key();
        Self {
            base,
            place: place.clone(),
            keys: [key(), key(), key(), key()],
            size: sizes.log,
            offsets: SparseIndex::stored(sizes.offsets),
            times: SparseIndex::stored(sizes.times),
            aborted_count: sizes.aborted,
            largest: None,
            first_timestamp: None,
            bytes_since_index: 0,
            created: now,
            dirty: None,
        }
    }

    fn key(&self, kind: FileKind) -> FileKey {
        match kind {
            FileKind::Log => self.keys[0],
            FileKind::OffsetIndex => self.keys[1],
            FileKind::TimeIndex => self.keys[2],
            FileKind::TxnIndex | FileKind::Snapshot => self.keys[3],
        }
    }

    pub(crate) fn file(&self, kind: FileKind) -> io::Result<Arc<dyn File>> {
        if let (FileKind::Log, Some(dirty)) = (kind, &self.dirty) {
            return Ok(dirty.file.clone());
        }
        self.place
            .files
            .get(self.key(kind), || self.place.path(self.base, kind))
    }

    /// Closes its files, before they are renamed or removed. Whoever reads keeps its own handle.
    pub(crate) fn forget_files(&mut self) {
        for key in self.keys {
            self.place.files.forget(key);
        }
        self.dirty = None;
    }

    /// Writes one batch at the end. On an error some of its bytes may be there.
    pub(crate) fn write(&mut self, header: &BatchHeader, records: &[u8], write: u64) -> io::Result<()> {
        let file = self.file(FileKind::Log)?;
        file.write_at(
            &[io::IoSlice::new(header.as_bytes()), io::IoSlice::new(records)],
            u64::from(self.size),
        )?;
        match &mut self.dirty {
            Some(dirty) => dirty.write = write,
            None => self.dirty = Some(Dirty { file, write }),
        }
        Ok(())
    }

    /// Takes note of a batch at the end of the file, as Kafka's `LogSegment.append` does.
    pub(crate) fn note_batch(&mut self, header: &BatchHeader, size: u32, config: &LogConfig) {
        let (max_timestamp, last_offset) = (header.max_timestamp(), header.last_offset());
        if self.size == 0 {
            self.first_timestamp = Some(max_timestamp);
        }
        // Of an empty batch, which compaction has left, no record has it.
        let has_it = header.record_count() > 0;
        let is_larger = |largest: LargestTimestamp| largest.timestamp < max_timestamp;
        if has_it && self.largest.is_none_or(is_larger) {
            self.largest = Some(LargestTimestamp {
                timestamp: max_timestamp,
                offset: last_offset,
            });
        }
        if self.bytes_since_index > config.index_interval_bytes {
            self.offsets.push(OffsetEntry {
                relative: self.relative(last_offset),
                position: if is_planted("index-points-behind") {
                    self.size + size
                } else {
                    self.size
                },
            });
            self.note_last_timestamp();
            self.bytes_since_index = 0;
        }
        self.bytes_since_index = self.bytes_since_index.saturating_add(size);
        self.size += size;
    }

    /// Adds the largest timestamp to the time index where it is news.
    pub(crate) fn note_last_timestamp(&mut self) {
        let Some(largest) = self.largest else { return };
        if largest.timestamp > self.last_indexed_timestamp() {
            self.times.push(TimeEntry {
                timestamp: largest.timestamp,
                relative: self.relative(largest.offset),
            });
        }
    }

    /// The active segment's last entry is always in memory, or there is none; see `load_tail`.
    fn last_indexed_timestamp(&self) -> WallMs {
        self.times
            .tail()
            .last()
            .map_or(WallMs::NONE, |entry| entry.timestamp)
    }

    pub(crate) fn relative(&self, offset: Offset) -> u32 {
        (offset.get() - self.base.get()) as u32
    }

    pub(crate) fn can_hold(&self, last_offset: Offset) -> bool {
        last_offset.get() - self.base.get() <= i64::from(i32::MAX)
    }

    pub(crate) fn index_is_full(&self, config: &LogConfig) -> bool {
        let full = |bytes: usize, count: u32| {
            u64::from(count + 1) * bytes as u64 > u64::from(config.segment_index_bytes)
        };
        full(OffsetEntry::BYTES, self.offsets.count()) || full(TimeEntry::BYTES, self.times.count())
    }

    /// Writes index entries that wait in memory, where they have become many (or `all` of them).
    pub(crate) fn store_indexes(&mut self, all: bool) -> io::Result<()> {
        if self.offsets.wants_store() || all && self.offsets.has_unstored() {
            let file = self.file(FileKind::OffsetIndex)?;
            self.offsets.store(&*file)?;
        }
        if self.times.wants_store() || all && self.times.has_unstored() {
            let file = self.file(FileKind::TimeIndex)?;
            self.times.store(&*file)?;
        }
        Ok(())
    }

    /// The last entry of the time index holds the segment's largest timestamp, as Kafka writes it at a roll and at a
    /// clean shutdown.
    pub(crate) fn finish_indexes(&mut self) -> io::Result<()> {
        self.note_last_timestamp();
        self.store_indexes(true)
    }

    /// No batch will follow, and all entries are in the files.
    pub(crate) fn release_indexes(&mut self) {
        self.offsets.release();
        self.times.release();
    }

    pub(crate) fn append_aborted(&mut self, txn: &AbortedTxn) -> io::Result<()> {
        let path = self.place.path(self.base, FileKind::TxnIndex);
        let file = if self.aborted_count == 0 {
            let file = self
                .place
                .files
                .open_as(self.key(FileKind::TxnIndex), &path, OpenMode::Create)?;
            file.set_len(0)?;
            file
        } else {
            self.file(FileKind::TxnIndex)?
        };
        let mut bytes = Vec::with_capacity(AbortedTxn::BYTES);
        txn.put(&mut bytes);
        file.write_at(
            &[io::IoSlice::new(&bytes)],
            u64::from(self.aborted_count) * AbortedTxn::BYTES as u64,
        )?;
        self.aborted_count += 1;
        Ok(())
    }

    /// Adds `found` behind the entries that are good; the file may hold more, or have never been.
    pub(crate) fn replace_aborted(&mut self, found: &[AbortedTxn]) -> io::Result<()> {
        let path = self.place.path(self.base, FileKind::TxnIndex);
        if self.aborted_count > 0 {
            self.file(FileKind::TxnIndex)?
                .set_len(u64::from(self.aborted_count) * AbortedTxn::BYTES as u64)?;
        } else if found.is_empty() && self.place.disk().stat(&path)?.is_some() {
            self.place.disk().remove_file(&path)?;
        }
        found.iter().try_for_each(|txn| self.append_aborted(txn))
    }

    /// Brings the last entry of each index into memory: the next one is compared with it.
    pub(crate) fn load_last_entries(&mut self) -> io::Result<()> {
        if self.offsets.tail().is_empty() && self.offsets.count() > 0 {
            let file = self.file(FileKind::OffsetIndex)?;
            self.offsets.load_last(|| Ok(file))?;
        }
        if self.times.tail().is_empty() && self.times.count() > 0 {
            let file = self.file(FileKind::TimeIndex)?;
            self.times.load_last(|| Ok(file))?;
        }
        Ok(())
    }

    pub(crate) fn aborted(&self) -> io::Result<Vec<AbortedTxn>> {
        if self.aborted_count == 0 {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; self.aborted_count as usize * AbortedTxn::BYTES];
        read_exact_at(&*self.file(FileKind::TxnIndex)?, &mut bytes, 0)?;
        let entries: Option<Vec<_>> = bytes
            .chunks_exact(AbortedTxn::BYTES)
            .map(AbortedTxn::get)
            .collect();
        entries.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "unknown version in a transaction index",
            )
        })
    }

    /// The batch at `position`; `None` where the file does not hold a head there.
    pub(crate) fn header_at(&self, position: u32) -> io::Result<Option<BatchHeader>> {
        let file = self.file(FileKind::Log)?;
        header_at(&*file, u64::from(position), u64::from(self.size))
    }

    /// Whether the batch that a time entry names is there and has that timestamp.
    pub(crate) fn bears_out(&self, entry: &TimeEntry) -> io::Result<bool> {
        let (file, size) = (self.file(FileKind::Log)?, u64::from(self.size));
        let wanted = self.base.plus(i64::from(entry.relative));
        let mut position = u64::from(self.position_hint(entry.relative)?);
        while let Some(header) = header_at(&*file, position, size)? {
            if header.last_offset() >= wanted {
                return Ok(header.last_offset() == wanted && header.max_timestamp() == entry.timestamp);
            }
            let Ok(len) = plausible_size(&header, self.base, self.base, size - position) else {
                break;
            };
            position += len as u64;
        }
        Ok(false)
    }

    /// A position at or before the batch that ends with `relative`, by the index if the batch there agrees.
    fn position_hint(&self, relative: u32) -> io::Result<u32> {
        let entry = match self.offsets.floor_in_tail(i64::from(relative)) {
            Ok(entry) => entry,
            Err(count) => {
                let read = |file: &dyn File, buf: &mut [u8], at: u64| read_up_to(file, buf, at).map(Some);
                let file = self.file(FileKind::OffsetIndex)?;
                floor_in_file::<OffsetEntry>(&*file, count, i64::from(relative), &read)?.flatten()
            }
        };
        let Some(entry) = entry else { return Ok(0) };
        let header = self.header_at(entry.position)?;
        let fits =
            header.is_some_and(|header| header.last_offset() == self.base.plus(i64::from(entry.relative)));
        Ok(if fits { entry.position } else { 0 })
    }

    /// The largest timestamp, looked up where it is not known. Retention deletes by it: the index alone is not taken
    /// at its word, and where it errs the batches are asked.
    pub(crate) fn load_largest(&mut self) -> io::Result<Option<LargestTimestamp>> {
        if self.largest.is_some() || self.size == 0 {
            return Ok(self.largest);
        }
        let last = self.times.last(|| self.file(FileKind::TimeIndex))?;
        if let Some(entry) = last.filter(|entry| entry.timestamp >= WallMs(0))
            && self.bears_out(&entry)?
        {
            let offset = self.base.plus(i64::from(entry.relative));
            self.largest = Some(LargestTimestamp {
                timestamp: entry.timestamp,
                offset,
            });
            return Ok(self.largest);
        }
        let (file, mut position, size) = (self.file(FileKind::Log)?, 0, u64::from(self.size));
        while let Some(header) = header_at(&*file, position, size)? {
            let Ok(len) = plausible_size(&header, self.base, self.base, size - position) else {
                break;
            };
            if self
                .largest
                .is_none_or(|largest| largest.timestamp < header.max_timestamp())
            {
                self.largest = Some(LargestTimestamp {
                    timestamp: header.max_timestamp(),
                    offset: header.last_offset(),
                });
            }
            position += len as u64;
        }
        Ok(self.largest)
    }

    /// As `load_largest`, but keeps nothing.
    pub(crate) fn peek_largest(&self) -> io::Result<Option<WallMs>> {
        match self.largest {
            Some(largest) => Ok(Some(largest.timestamp)),
            None => Ok(self
                .times
                .last(|| self.file(FileKind::TimeIndex))?
                .map(|entry| entry.timestamp)),
        }
    }

    /// The first batch's timestamp, looked up where it is not known.
    pub(crate) fn load_first_timestamp(&mut self) -> io::Result<Option<WallMs>> {
        if self.first_timestamp.is_none() && self.size > 0 {
            self.first_timestamp = self.header_at(0)?.map(|header| header.max_timestamp());
        }
        Ok(self.first_timestamp)
    }
}

/// Lengths of a segment's files, in bytes for the log and in entries for the indexes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SegmentSizes {
    pub(crate) log: u32,
    pub(crate) offsets: u32,
    pub(crate) times: u32,
    pub(crate) aborted: u32,
}

pub(crate) fn header_at(file: &dyn File, position: u64, size: u64) -> io::Result<Option<BatchHeader>> {
    let mut raw = [0; crate::batch::HEADER_BYTES];
    if position + raw.len() as u64 > size {
        return Ok(None);
    }
    read_exact_at(file, &mut raw, position)?;
    Ok(BatchHeader::read(&raw))
}

/// As [`header_at`], for who removes something by what it says: a head is under the sum of its batch, and what fails that
/// is read once more, since a bit may turn over on its way from the device. Of a batch that is damaged, the head as it is.
pub(crate) fn checked_header_at(
    file: &dyn File,
    position: u64,
    size: u64,
) -> io::Result<Option<BatchHeader>> {
    let mut found = None;
    for _ in 0..2 {
        found = header_at(file, position, size)?;
        let Some(header) = &found else { break };
        let length = header
            .size_bytes()
            .filter(|length| *length as u64 <= size - position);
        let Some(length) = length else { continue };
        let mut bytes = BytesMut::zeroed(length);
        read_exact_at(file, &mut bytes, position)?;
        let bytes = bytes.freeze();
        let batch = BatchHeader::read(&bytes).map(|header| Batch { header, bytes });
        if let Some(batch) = batch.filter(Batch::crc_is_good) {
            return Ok(Some(batch.header));
        }
    }
    Ok(found)
}
