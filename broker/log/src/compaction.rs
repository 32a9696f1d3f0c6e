//! Compaction: of each key the last record stays (KAFKA.md 3.3, KIP-534).
//!
//! A round first notes the last offset of each key in the part that is not yet clean, then writes all closed segments
//! anew without what is superseded. The new files are called `*.cleaned` while they are written, `*.swap` from the
//! moment at which they count, and then take the place of the old ones: an interruption leaves either the old
//! segments or the new, as in Kafka.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::BytesMut;
use skerry_env::disk::{File, OpenMode};
use skerry_types::{Offset, ProducerEpoch, ProducerId, WallMs, is_planted, reached, sometimes};

use crate::batch::{
    Batch, BatchHeader, Compression, HEADER_BYTES, LENGTH_OVERHEAD, MarkerType, Record, Records,
    control_marker, encode_record,
};
use crate::config::LogConfig;
use crate::errors::ChangeError;
use crate::index::{AbortedTxn, IndexEntry};
use crate::log::Generation;
use crate::segment::{
    FileKind, Place, SEGMENT_BYTES_MAX, Segment, SegmentSizes, checked_header_at, file_name,
};
use crate::walk::{Walk, plausible_size};

/// What an entry of the key map costs beyond the key.
const ENTRY_OVERHEAD_BYTES: usize = 64;
const WRITE_BYTES: usize = 1 << 20;

/// How much of a log compaction has not seen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DirtyRatio {
    /// Dirty bytes among all that may be cleaned.
    pub ratio: f64,
    /// Not yet cleaned, and may be.
    pub dirty_bytes: u64,
    /// Cleaned before.
    pub clean_bytes: u64,
    /// Older than `max.compaction.lag.ms`: due whatever the ratio is.
    pub overdue: bool,
}

/// A closed segment as a round finds it.
pub(crate) struct Source {
    pub(crate) base: Offset,
    pub(crate) file: Arc<dyn File>,
    pub(crate) size: u32,
    /// Aborted transactions with records in it; their markers may be in later segments.
    pub(crate) aborted: Vec<AbortedTxn>,
}

/// A round of compaction, to be run without the log's lock and then handed to [`crate::Log::finish_compaction`].
pub struct CompactionJob {
    pub(crate) place: Place,
    pub(crate) config: LogConfig,
    pub(crate) sources: Vec<Source>,
    pub(crate) first_dirty: Offset,
    pub(crate) upper: Offset,
    pub(crate) now: WallMs,
    pub(crate) budget_bytes: usize,
    /// Where the batches of each producer end that it may send again: they stay, even empty, for their sequences.
    pub(crate) producers: BTreeMap<ProducerId, (ProducerEpoch, Vec<Offset>)>,
    pub(crate) generation: Generation,
    pub(crate) running: Arc<()>,
}

/// What a round wrote; nothing of it counts before [`crate::Log::finish_compaction`].
pub struct CompactionResult {
    pub(crate) groups: Vec<CleanedGroup>,
    pub(crate) cleaned_until: Offset,
    pub(crate) generation: Generation,
    _running: Arc<()>,
}

/// Segments that became one.
pub(crate) struct CleanedGroup {
    pub(crate) base: Offset,
    pub(crate) replaced: Vec<Offset>,
    /// `None`: nothing was to be removed, and the old segment stays.
    pub(crate) segment: Option<Segment>,
}

impl CompactionJob {
    /// Writes the cleaned segments, durably, under names that do not count yet.
    ///
    /// # Errors
    /// The disk's, or where a segment is damaged. The log is as it was.
    pub fn run(self) -> Result<CompactionResult, ChangeError> {
        let (keys, end) = self.note_keys()?;
        let mut transactions = Transactions::default();
        let mut groups = Vec::new();
        for (group, group_end) in self.groups(end) {
            groups.push(self.clean((group, group_end), &keys, end, &mut transactions)?);
        }
        if groups.iter().any(|group| group.segment.is_some()) {
            self.place.disk().sync_dir(&self.place.dir)?;
        }
        Ok(CompactionResult {
            groups,
            cleaned_until: end,
            generation: self.generation,
            _running: self.running,
        })
    }

    /// The last offset of each key from the first dirty offset on, as far as memory goes; and how far that is.
    fn note_keys(&self) -> Result<(Keys, Offset), ChangeError> {
        let mut keys = Keys::default();
        let mut transactions = Transactions::default();
        let mut end = self.first_dirty;
        for (number, source) in self.sources.iter().enumerate() {
            let next = self.sources.get(number + 1).map_or(self.upper, |next| next.base);
            if next <= self.first_dirty {
                continue;
            }
            transactions.add(&source.aborted);
            let mut full = false;
            source.walk(|batch| {
                let header = &batch.header;
                full |= keys.bytes > self.budget_bytes
                    && header.base_offset() >= self.first_dirty
                    && end > self.first_dirty;
                if full || header.last_offset() < self.first_dirty || header.next_offset() > self.upper {
                    return Ok(());
                }
                let discard = transactions.on_batch(batch, &mut Vec::new());
                if !header.is_control() && !discard {
                    for record in decode(batch)? {
                        let counts = record.value.is_some() || !is_planted("tombstones-take-nothing");
                        if let Some(key) = record.key.filter(|_| counts && record.offset >= self.first_dirty)
                        {
                            keys.note(&key, record.offset);
                        }
                    }
                }
                end = end.max(header.next_offset());
                Ok(())
            })?;
            if full {
                return Ok((keys, end));
            }
            end = end.max(next.min(self.upper));
        }
        Ok((keys, end))
    }

    /// Neighbours that fit into one segment together, each time with where the next one begins.
    fn groups(&self, end: Offset) -> Vec<(&[Source], Offset)> {
        let limit = u64::from(self.config.segment_bytes).min(SEGMENT_BYTES_MAX);
        let count = self.sources.iter().take_while(|source| source.base < end).count();
        let sources = &self.sources[..count];
        let mut groups = Vec::new();
        let mut start = 0;
        while start < sources.len() {
            let mut bytes = u64::from(sources[start].size);
            let mut stop = start + 1;
            while let Some(next) = sources.get(stop) {
                let last = self.sources.get(stop + 1).map_or(self.upper, |after| after.base);
                let reach = last.get() - sources[start].base.get();
                if bytes + u64::from(next.size) > limit || reach > i64::from(i32::MAX) {
                    break;
                }
                bytes += u64::from(next.size);
                stop += 1;
            }
            let next = self.sources.get(stop).map_or(self.upper, |next| next.base);
            groups.push((&sources[start..stop], next));
            start = stop;
        }
        groups
    }

    fn clean(
        &self,
        (group, group_end): (&[Source], Offset),
        keys: &Keys,
        end: Offset,
        transactions: &mut Transactions,
    ) -> Result<CleanedGroup, ChangeError> {
        let base = group[0].base;
        let mut out = Output::create(&self.place, base, &self.config)?;
        let mut changed = group.len() > 1;
        for source in group {
            transactions.add(&source.aborted);
            source.walk(|batch| {
                let mut ended = Vec::new();
                let discard = transactions.on_batch(batch, &mut ended);
                out.aborted.extend(ended);
                match self.filter(batch, discard, keys, (end, group_end))? {
                    Kept::Whole => out.put(batch.header, &batch.bytes[HEADER_BYTES..])?,
                    Kept::Nothing => changed = true,
                    Kept::Rewritten(header, records) => {
                        changed = true;
                        out.put(header, &records)?;
                    }
                }
                Ok(())
            })?;
        }
        let replaced = group.iter().map(|source| source.base).collect();
        let segment = if changed {
            Some(out.finish()?)
        } else {
            out.discard()?
        };
        Ok(CleanedGroup {
            base,
            replaced,
            segment,
        })
    }

    /// Kafka's `Cleaner.cleanInto` and `MemoryRecords.filterTo` for one batch.
    ///
    /// Beyond that the last batch of each segment stays, be it empty: where a segment ends before the next one begins, one
    /// between them was lost with the power (5860 of any size, 60 s).
    fn filter(
        &self,
        batch: &Batch,
        discard: bool,
        keys: &Keys,
        (end, group_end): (Offset, Offset),
    ) -> io::Result<Kept> {
        let header = &batch.header;
        if header.base_offset() >= end {
            return Ok(Kept::Whole);
        }
        let horizon_passed = header.delete_horizon().is_some_and(|horizon| horizon <= self.now);
        let drop_records = discard && (!header.is_control() || horizon_passed);
        let is_last = [end, group_end].contains(&header.next_offset());
        let keep_empty = self.may_be_sent_again(header) || is_last;
        if drop_records && !keep_empty {
            return Ok(Kept::Nothing);
        }
        let records = decode(batch)?;
        let before = records.len();
        let tombstones_stay = header.delete_horizon().is_none_or(|horizon| self.now < horizon);
        let kept: Vec<Record> = records
            .into_iter()
            .filter(|record| {
                !drop_records
                    && (header.is_control()
                        || record.offset >= end
                        || record.key.as_ref().is_some_and(|key| {
                            let is_planted =
                                record.offset.next() == end && is_planted("compaction-forgets-the-newest");
                            let superseded =
                                is_planted || keys.last(key).is_some_and(|last| record.offset < last);
                            let expired = record.value.is_none() && !tombstones_stay;
                            sometimes("tombstone-removed", expired && !superseded);
                            !superseded && !expired
                        }))
            })
            .collect();
        if kept.is_empty() {
            return Ok(match keep_empty {
                true if before == 0 => Kept::Whole,
                true => {
                    reached("batch-kept-empty");
                    Kept::Rewritten(empty(header), Vec::new())
                }
                false => Kept::Nothing,
            });
        }
        let tombstones = !header.is_control() && kept.iter().any(|record| record.value.is_none());
        let marker_of_nothing = discard && header.is_control();
        let begins_horizon = (tombstones || marker_of_nothing) && header.delete_horizon().is_none();
        if kept.len() == before && !begins_horizon {
            return Ok(Kept::Whole);
        }
        let horizon = if begins_horizon {
            Some(WallMs(
                self.now.get().saturating_add(self.config.delete_retention_ms),
            ))
        } else {
            header.delete_horizon()
        };
        rewrite(header, &kept, horizon)
    }

    /// What a producer repeats must be known after a restart, too, which knows what is in the log. Kafka keeps the last
    /// batch alone: there the first of several that were under way is out of order when they are sent again.
    ///
    /// Of a transaction the last one stays alone: the marker that ends it goes with its records.
    fn may_be_sent_again(&self, header: &BatchHeader) -> bool {
        if !header.has_producer_id() {
            return false;
        }
        let Some((epoch, remembered)) = self.producers.get(&header.producer_id()) else {
            return false;
        };
        match remembered.last() {
            Some(last) if header.is_transactional() || is_planted("compaction-keeps-one-batch") => {
                header.last_offset() == *last
            }
            Some(_) => !header.is_control() && remembered.contains(&header.last_offset()),
            // Its last word was a marker, which holds its epoch.
            None => header.is_control() && header.producer_epoch() == *epoch,
        }
    }
}

enum Kept {
    Whole,
    Nothing,
    Rewritten(BatchHeader, Vec<u8>),
}

/// The last offset of each key.
#[derive(Default)]
struct Keys {
    offsets: BTreeMap<Box<[u8]>, Offset>,
    bytes: usize,
}

impl Keys {
    fn note(&mut self, key: &[u8], offset: Offset) {
        match self.offsets.get_mut(key) {
            Some(last) => *last = offset,
            None => {
                self.bytes += key.len() + ENTRY_OVERHEAD_BYTES;
                self.offsets.insert(key.into(), offset);
            }
        }
    }

    fn last(&self, key: &[u8]) -> Option<Offset> {
        self.offsets.get(key).copied()
    }
}

/// Kafka's `CleanedTransactionMetadata`: which batches belong to aborted transactions, and which markers end
/// transactions of which nothing is left.
#[derive(Default)]
struct Transactions {
    /// Not yet begun at where the walk is.
    ahead: BTreeMap<(Offset, ProducerId), AbortedTxn>,
    /// Begun, with whether a batch of it was seen.
    aborted: BTreeMap<ProducerId, (AbortedTxn, bool)>,
    committed: BTreeSet<ProducerId>,
}

impl Transactions {
    fn add(&mut self, entries: &[AbortedTxn]) {
        for txn in entries {
            self.ahead.insert((txn.first_offset, txn.producer_id), *txn);
        }
    }

    fn advance(&mut self, offset: Offset) {
        while let Some(first) = self.ahead.first_entry() {
            if first.key().0 > offset {
                break;
            }
            let txn = first.remove();
            // Each segment names the transactions that overlap it: this one may be known, and seen.
            self.aborted.entry(txn.producer_id).or_insert((txn, false));
        }
    }

    /// True where the batch may go: it is of an aborted transaction, or a marker of nothing. Aborted transactions that
    /// end here and still have batches are added to `ended`.
    fn on_batch(&mut self, batch: &Batch, ended: &mut Vec<AbortedTxn>) -> bool {
        let (header, id) = (&batch.header, batch.header.producer_id());
        self.advance(header.last_offset());
        if header.is_control() {
            return match control_marker(batch) {
                Some((MarkerType::Abort, _)) => match self.aborted.remove(&id) {
                    Some((txn, true)) => {
                        ended.push(txn);
                        false
                    }
                    _ => true,
                },
                Some((MarkerType::Commit, _)) => !self.committed.remove(&id),
                None => false,
            };
        }
        if !header.is_transactional() {
            return false;
        }
        match self.aborted.get_mut(&id) {
            Some((_, seen)) => {
                *seen = true;
                true
            }
            None => {
                self.committed.insert(id);
                false
            }
        }
    }
}

impl Source {
    fn walk(&self, mut visit: impl FnMut(&Batch) -> io::Result<()>) -> Result<(), ChangeError> {
        let walk = Walk {
            file: &*self.file,
            base: self.base,
            position: 0,
            len: u64::from(self.size),
            expected: self.base,
            gaps_until: Offset(i64::MAX),
        };
        let end = walk.run(|batch, _| visit(batch))?;
        match end.failure {
            None => Ok(()),
            Some(why) => Err(crate::ReadError::Damaged {
                segment: self.base,
                position: end.position,
                offset: end.next_offset,
                why,
            }
            .into()),
        }
    }
}

fn decode(batch: &Batch) -> io::Result<Vec<Record>> {
    if batch.header.record_count() == 0 {
        return Ok(Vec::new());
    }
    Records::all(batch).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
}

/// A batch without records that keeps its offsets and its producer's last sequence.
fn empty(header: &BatchHeader) -> BatchHeader {
    let mut empty = *header;
    let flags = BatchHeader::flags(header.is_transactional(), header.is_control());
    empty.set_attributes(BatchHeader::with_log_append_time(
        flags,
        header.is_log_append_time(),
    ));
    empty.set_length((HEADER_BYTES - LENGTH_OVERHEAD) as i32);
    empty.set_base_timestamp(WallMs::NONE);
    empty.set_record_count(0);
    empty.seal(&[]);
    empty
}

/// The same batch with fewer records. Its offsets and sequences stay; with a horizon, timestamps count from that.
fn rewrite(header: &BatchHeader, kept: &[Record], horizon: Option<WallMs>) -> io::Result<Kept> {
    let log_append_time = header.is_log_append_time();
    let base_timestamp = horizon.unwrap_or(kept[0].timestamp);
    let mut plain = Vec::new();
    let mut max_timestamp = WallMs::NONE;
    for record in kept {
        let delta = record.offset.get() - header.base_offset().get();
        let timestamp_delta = record.timestamp.get().wrapping_sub(base_timestamp.get());
        encode_record(
            &mut plain,
            timestamp_delta,
            delta as i32,
            record.key.as_deref(),
            record.value.as_deref(),
            &record.headers,
        );
        max_timestamp = max_timestamp.max(record.timestamp);
    }
    let codec = header.codec().unwrap_or(crate::batch::Codec::None);
    let packed = Compression::default_for(codec).pack(&plain)?;
    let mut rewritten = *header;
    let length = i32::try_from(HEADER_BYTES - LENGTH_OVERHEAD + packed.len()).map_err(io::Error::other)?;
    rewritten.set_length(length);
    if horizon.is_some() {
        rewritten.set_attributes(BatchHeader::with_delete_horizon(header.attributes()));
    }
    rewritten.set_base_timestamp(base_timestamp);
    rewritten.set_max_timestamp(if log_append_time {
        header.max_timestamp()
    } else {
        max_timestamp
    });
    rewritten.set_record_count(i32::try_from(kept.len()).map_err(io::Error::other)?);
    rewritten.seal(&packed);
    Ok(Kept::Rewritten(rewritten, packed))
}

/// The `.cleaned` files of one group.
struct Output<'a> {
    place: &'a Place,
    config: &'a LogConfig,
    /// Notes sizes and index entries; its files are not these.
    segment: Segment,
    aborted: Vec<AbortedTxn>,
    file: Arc<dyn File>,
    buffer: BytesMut,
    written: u64,
}

impl<'a> Output<'a> {
    fn create(place: &'a Place, base: Offset, config: &'a LogConfig) -> io::Result<Self> {
        let file = open_empty(place, base, FileKind::Log)?;
        Ok(Self {
            place,
            config,
            segment: Segment::existing(place, base, SegmentSizes::default(), WallMs::NONE),
            aborted: Vec::new(),
            file,
            buffer: BytesMut::with_capacity(WRITE_BYTES),
            written: 0,
        })
    }

    fn put(&mut self, header: BatchHeader, records: &[u8]) -> io::Result<()> {
        let size = HEADER_BYTES + records.len();
        if u64::from(self.segment.size) + size as u64 > SEGMENT_BYTES_MAX {
            return Err(io::Error::other("a cleaned segment grew over 2 GiB"));
        }
        self.segment.note_batch(&header, size as u32, self.config);
        self.buffer.extend_from_slice(header.as_bytes());
        self.buffer.extend_from_slice(records);
        if self.buffer.len() >= WRITE_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file
            .write_at(&[io::IoSlice::new(&self.buffer)], self.written)?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn finish(mut self) -> io::Result<Segment> {
        self.flush()?;
        self.file.sync()?;
        self.segment.note_last_timestamp();
        let mut offsets = Vec::new();
        self.segment
            .offsets
            .tail()
            .iter()
            .for_each(|entry| entry.put(&mut offsets));
        let mut times = Vec::new();
        self.segment
            .times
            .tail()
            .iter()
            .for_each(|entry| entry.put(&mut times));
        let mut aborted = Vec::new();
        self.aborted.iter().for_each(|txn| txn.put(&mut aborted));
        let base = self.segment.base;
        for (kind, bytes) in [
            (FileKind::OffsetIndex, &offsets),
            (FileKind::TimeIndex, &times),
            (FileKind::TxnIndex, &aborted),
        ] {
            if kind == FileKind::TxnIndex && bytes.is_empty() {
                continue;
            }
            let file = open_empty(self.place, base, kind)?;
            file.write_at(&[io::IoSlice::new(bytes)], 0)?;
            file.sync()?;
        }
        let sizes = SegmentSizes {
            log: self.segment.size,
            offsets: self.segment.offsets.count(),
            times: self.segment.times.count(),
            aborted: self.aborted.len() as u32,
        };
        let mut segment = Segment::existing(self.place, base, sizes, WallMs::NONE);
        segment.largest = self.segment.largest;
        segment.first_timestamp = self.segment.first_timestamp;
        Ok(segment)
    }

    /// Nothing was to be removed: the old segment is as good.
    fn discard(self) -> io::Result<Option<Segment>> {
        remove_cleaned(self.place, self.segment.base)?;
        Ok(None)
    }
}

fn open_empty(place: &Place, base: Offset, kind: FileKind) -> io::Result<Arc<dyn File>> {
    let file = place
        .disk()
        .open(&cleaned_path(place, base, kind), OpenMode::Create)?;
    file.set_len(0)?;
    Ok(file)
}

fn cleaned_path(place: &Place, base: Offset, kind: FileKind) -> PathBuf {
    place.dir.join(file_name(base, kind, ".cleaned"))
}

fn swap_path(place: &Place, base: Offset, kind: FileKind) -> PathBuf {
    place.dir.join(file_name(base, kind, ".swap"))
}

/// Removes the files of a round that will not count.
pub(crate) fn remove_cleaned(place: &Place, base: Offset) -> io::Result<()> {
    for kind in FileKind::CLEANED {
        remove_if_there(place, &cleaned_path(place, base, kind))?;
    }
    Ok(())
}

/// From here on the cleaned files of `base` count. The log comes last: its name decides.
pub(crate) fn commit_cleaned(place: &Place, base: Offset) -> io::Result<()> {
    for kind in FileKind::CLEANED {
        if kind == FileKind::Log {
            place.disk().sync_dir(&place.dir)?;
        }
        rename_if_there(
            place,
            &cleaned_path(place, base, kind),
            &swap_path(place, base, kind),
        )?;
    }
    place.disk().sync_dir(&place.dir)
}

/// Puts the committed files of `base` into the place of the old ones, which are gone by now.
pub(crate) fn install_swapped(place: &Place, base: Offset) -> io::Result<()> {
    for kind in FileKind::CLEANED {
        if kind == FileKind::Log {
            place.disk().sync_dir(&place.dir)?;
        }
        rename_if_there(place, &swap_path(place, base, kind), &place.path(base, kind))?;
    }
    place.disk().sync_dir(&place.dir)
}

/// Finishes, or takes back, what a crash interrupted.
pub(crate) fn finish_swaps(place: &Place) -> io::Result<()> {
    let bases = |suffix: &str| -> io::Result<Vec<(Offset, u64)>> {
        let entries = place.disk().list(&place.dir)?;
        let ending = format!(".log{suffix}");
        Ok(entries
            .iter()
            .filter_map(|entry| {
                let digits = entry.name.strip_suffix(&ending)?;
                Some((Offset(digits.parse().ok()?), entry.len))
            })
            .collect())
    };
    let cleaned = bases(".cleaned")?;
    for (base, len) in bases(".swap")? {
        // The log's cleaned name would have been the last to go: the files were never committed.
        if cleaned.iter().any(|(other, _)| *other == base) {
            for kind in FileKind::CLEANED {
                remove_if_there(place, &swap_path(place, base, kind))?;
            }
            continue;
        }
        // Names that the power cut left behind: the contents were durable before.
        for kind in FileKind::CLEANED {
            rename_if_there(
                place,
                &cleaned_path(place, base, kind),
                &swap_path(place, base, kind),
            )?;
        }
        remove_replaced(place, base, len)?;
        install_swapped(place, base)?;
        reached("interrupted-compaction-finished");
        tracing::info!(dir = %place.dir.display(), segment = %base, "finished an interrupted compaction");
    }
    // Index files of a round whose log was installed, or never committed.
    for entry in place.disk().list(&place.dir)? {
        if entry.name.ends_with(".swap") {
            remove_if_there(place, &place.dir.join(entry.name))?;
        }
    }
    Ok(())
}

/// Removes the old segments that a committed one replaces: those that begin within it, as Kafka does. One behind its
/// last batch may stay; it holds nothing but what is superseded and goes in the next round.
fn remove_replaced(place: &Place, base: Offset, len: u64) -> io::Result<()> {
    let file = place
        .disk()
        .open(&swap_path(place, base, FileKind::Log), OpenMode::Read)?;
    let (mut position, mut next) = (0, base.next());
    while let Some(header) = checked_header_at(&*file, position, len)? {
        let Ok(size) = plausible_size(&header, base, base, len - position) else {
            break;
        };
        next = header.next_offset();
        position += size as u64;
    }
    for entry in place.disk().list(&place.dir)? {
        let Some(digits) = entry.name.strip_suffix(".log") else {
            continue;
        };
        let Ok(other) = digits.parse().map(Offset) else {
            continue;
        };
        if other >= base && other < next {
            // Files of the same name are replaced by the renames, or were before the crash.
            for kind in FileKind::CLEANED.into_iter().filter(|_| other != base) {
                remove_if_there(place, &place.path(other, kind))?;
            }
        }
    }
    Ok(())
}

fn remove_if_there(place: &Place, path: &std::path::Path) -> io::Result<()> {
    match place.disk().remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn rename_if_there(place: &Place, from: &std::path::Path, to: &std::path::Path) -> io::Result<()> {
    match place.disk().rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
