//! Opening a log: after a clean shutdown with a look at its end, after a crash with a walk over what may not have
//! been durable.
//!
//! Everything up to [`Opening::adopt`] only reads: damage below the recovery point leaves the disk as it is.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use skerry_env::disk::{Entry, OpenMode, read_file};
use skerry_types::{Offset, WallMs, is_planted};

use super::{Log, Recovered, Shutdown, gaps_until, make_durable_dir};
use crate::batch::{Batch, control_marker};
use crate::config::LogConfig;
use crate::epochs::{self, Epochs};
use crate::errors::OpenError;
use crate::files::FileCache;
use crate::identity::{self, PartitionIdentity};
use crate::index::{AbortedTxn, IndexEntry, OffsetEntry, TimeEntry};
use crate::producers::Producers;
use crate::segment::{
    FileKind, LargestTimestamp, Place, SEGMENT_BYTES_MAX, Segment, SegmentSizes, file_name,
};
use crate::walk::{Walk, WalkEnd, has_batch_beyond, plausible_size};

/// A snapshot of ten million producers.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// What recovery found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes of log that were checked batch by batch.
    pub walked_bytes: u64,
    /// An unsynced tail was cut.
    pub cut: Option<TailCut>,
    /// Ranges of offsets that sealed segments do not hold, and compaction does not explain.
    pub gaps: Vec<(Offset, Offset)>,
    /// Files that were made anew from the log.
    pub rebuilt: Vec<String>,
}

/// A torn tail that was cut away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailCut {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Its length from now on.
    pub position: u64,
    /// The log's end from now on.
    pub offset: Offset,
    /// Bytes that were cut, later segments included.
    pub bytes: u64,
    /// What was wrong.
    pub why: String,
    /// Where the cut bytes are, if whole batches were among them.
    pub evidence: Vec<PathBuf>,
}

impl Log {
    /// Opens the log in `dir`.
    ///
    /// After a clean shutdown nothing is walked. After a crash everything from the recovery point on is checked, the
    /// rest is cut at the first batch that fails, and what remains is durable on return.
    ///
    /// # Errors
    /// `Damaged` where what was durable is not there as it was: nothing is changed on disk then. `WrongIdentity`
    /// where the directory is another partition's.
    pub fn open(
        files: &Arc<FileCache>,
        dir: PathBuf,
        id: Option<PartitionIdentity>,
        config: LogConfig,
        shutdown: Shutdown,
        recovered: Recovered,
        now: WallMs,
    ) -> Result<(Self, RecoveryReport), OpenError> {
        let place = Place {
            files: files.clone(),
            dir: dir.into(),
        };
        let identity = check_identity(&place, id)?;
        let io = io_error(&place);
        crate::compaction::finish_swaps(&place).map_err(&io)?;
        let found = Found::list(&place).map_err(&io)?;
        let mut opening = Opening {
            place,
            identity,
            config,
            shutdown,
            recovered,
            segments: Vec::new(),
            snapshots: found.snapshots,
            epochs: Epochs::default(),
            epochs_dirty: false,
            producers: Producers::default(),
            report: RecoveryReport::default(),
            walked: BTreeMap::new(),
            new_snapshots: Vec::new(),
        };
        if found.segments.is_empty() {
            return opening.begin_anew();
        }
        opening.adopt_segments(found.segments, now)?;
        let (log, report) = opening.recover()?;
        remove_leftovers(&log.place, &found.leftovers);
        log.check();
        Ok((log, report))
    }
}

fn io_error(place: &Place) -> impl Fn(io::Error) -> OpenError + use<> {
    let dir = place.dir.clone();
    move |source| OpenError::Io {
        path: dir.display().to_string(),
        source,
    }
}

fn check_identity(place: &Place, id: Option<PartitionIdentity>) -> Result<PartitionIdentity, OpenError> {
    let io = io_error(place);
    let wrong = |found: String, expected: String| OpenError::WrongIdentity {
        dir: place.dir.display().to_string(),
        found,
        expected,
    };
    let name = place
        .dir
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let topic_id = identity::read_topic_id(&**place.disk(), &place.dir).map_err(&io)?;
    match (id, topic_id) {
        (Some(id), Some(found)) if id.topic_id != found => {
            Err(wrong(format!("topic id {found}"), id.to_string()))
        }
        (Some(id), Some(_)) => Ok(id),
        (Some(id), None) => {
            // A copy of a directory that an old Kafka wrote.
            if place.disk().stat(&place.dir).map_err(&io)?.is_none() {
                return Err(io(io::ErrorKind::NotFound.into()));
            }
            identity::write_topic_id(&**place.disk(), &place.dir, id.topic_id).map_err(&io)?;
            Ok(id)
        }
        (None, topic_id) => {
            let (topic, partition) = identity::parse_dir_name(&name)
                .ok_or_else(|| wrong(name.clone(), "a directory named topic-partition".to_owned()))?;
            let topic_id = topic_id.ok_or_else(|| wrong("no topic id".to_owned(), name.clone()))?;
            Ok(PartitionIdentity {
                topic: topic.into(),
                partition,
                topic_id,
            })
        }
    }
}

/// The files of one segment.
#[derive(Default)]
struct FoundSegment {
    log: Option<u64>,
    offsets: Option<u64>,
    times: Option<u64>,
    aborted: Option<u64>,
}

/// What a directory holds.
struct Found {
    segments: BTreeMap<Offset, FoundSegment>,
    snapshots: Vec<Offset>,
    /// Of an interrupted deletion, cleaning or replacement.
    leftovers: Vec<PathBuf>,
}

impl Found {
    fn list(place: &Place) -> io::Result<Self> {
        let mut found = Self {
            segments: BTreeMap::new(),
            snapshots: Vec::new(),
            leftovers: Vec::new(),
        };
        for Entry { name, is_dir, len } in place.disk().list(&place.dir)? {
            if is_dir {
                continue;
            }
            if name.ends_with(".deleted") || name.ends_with(".cleaned") || name.ends_with(".tmp") {
                found.leftovers.push(place.dir.join(name));
                continue;
            }
            let Some((base, kind)) = parse_name(&name) else {
                continue;
            };
            match kind {
                FileKind::Snapshot => found.snapshots.push(base),
                FileKind::Log => found.segments.entry(base).or_default().log = Some(len),
                FileKind::OffsetIndex => found.segments.entry(base).or_default().offsets = Some(len),
                FileKind::TimeIndex => found.segments.entry(base).or_default().times = Some(len),
                FileKind::TxnIndex => found.segments.entry(base).or_default().aborted = Some(len),
            }
        }
        // An index without its log: the log's removal came first, or its name was lost before it held anything.
        for (base, files) in &found.segments {
            if files.log.is_none() {
                let orphans = [FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TxnIndex];
                found
                    .leftovers
                    .extend(orphans.map(|kind| place.path(*base, kind)));
            }
        }
        found.segments.retain(|_, files| files.log.is_some());
        found.snapshots.sort_unstable();
        Ok(found)
    }
}

fn parse_name(name: &str) -> Option<(Offset, FileKind)> {
    let kind = FileKind::ALL
        .into_iter()
        .find(|kind| name.ends_with(kind.suffix()))?;
    let digits = name.strip_suffix(kind.suffix())?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let base = Offset(digits.parse().ok()?);
    Some((base, kind))
}

fn remove_leftovers(place: &Place, leftovers: &[PathBuf]) {
    for path in leftovers {
        match place.disk().remove_file(path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what an interrupted change left"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "a leftover stays"),
        }
    }
}

/// A log that is being opened.
struct Opening {
    place: Place,
    identity: PartitionIdentity,
    config: LogConfig,
    shutdown: Shutdown,
    recovered: Recovered,
    segments: Vec<Segment>,
    snapshots: Vec<Offset>,
    epochs: Epochs,
    epochs_dirty: bool,
    producers: Producers,
    report: RecoveryReport,
    /// Walked segments, and the aborted transactions that were found in each.
    walked: BTreeMap<usize, Vec<AbortedTxn>>,
    /// Producer state at the beginning of walked segments: what retention leaves must have one.
    new_snapshots: Vec<(Offset, Vec<u8>)>,
}

/// Where the walk begins.
#[derive(Clone, Copy, Debug)]
struct WalkStart {
    segment: usize,
    position: u32,
    /// Of the batch there.
    offset: Offset,
    offset_entries: u32,
    time_entries: u32,
    largest: Option<LargestTimestamp>,
}

impl WalkStart {
    /// The beginning of segment number `segment`, whose base offset is `offset`.
    fn of(segment: usize, offset: Offset) -> Self {
        Self {
            segment,
            position: 0,
            offset,
            offset_entries: 0,
            time_entries: 0,
            largest: None,
        }
    }
}

/// What the walk found, before anything is changed.
struct Walked {
    /// The log's end.
    end: Offset,
    /// Where the last good segment's batches end.
    segment: usize,
    position: u64,
    failure: Option<String>,
}

impl Opening {
    fn io(&self, source: io::Error) -> OpenError {
        OpenError::Io {
            path: self.place.dir.display().to_string(),
            source,
        }
    }

    fn damaged(&self, segment: Offset, position: u64, offset: Offset, why: impl Into<String>) -> OpenError {
        OpenError::Damaged {
            segment,
            position,
            offset,
            why: why.into(),
        }
    }

    /// No segment: the directory was being made when the power went, or has lost everything.
    fn begin_anew(self) -> Result<(Log, RecoveryReport), OpenError> {
        let Recovered {
            log_start,
            recovery_point,
            ..
        } = self.recovered;
        if recovery_point > log_start && !is_planted("recovery-truncates-rot") {
            return Err(self.damaged(log_start, 0, log_start, "no segment is left"));
        }
        let segment = make_durable_dir(&self.place, &self.identity, log_start).map_err(|e| self.io(e))?;
        let mut log = Log::assemble(self.place, self.identity, self.config, vec![segment], log_start);
        log.log_start = log_start;
        log.check();
        Ok((log, self.report))
    }

    /// Takes the segments as they are; a file that cannot be one is damage.
    fn adopt_segments(
        &mut self,
        found: BTreeMap<Offset, FoundSegment>,
        now: WallMs,
    ) -> Result<(), OpenError> {
        let last = found.keys().next_back().copied();
        for (base, files) in found {
            let len = files.log.unwrap_or(0);
            if len > SEGMENT_BYTES_MAX {
                return Err(self.damaged(base, SEGMENT_BYTES_MAX, base, format!("a segment of {len} bytes")));
            }
            let count = |len: Option<u64>, bytes: usize| (len.unwrap_or(0) / bytes as u64) as u32;
            let sizes = SegmentSizes {
                log: len as u32,
                offsets: count(files.offsets, OffsetEntry::BYTES),
                times: count(files.times, TimeEntry::BYTES),
                aborted: count(files.aborted, AbortedTxn::BYTES),
            };
            let segment = Segment::existing(&self.place, base, sizes, now);
            // As Kafka's sanity check: an index that is missing or of an odd length is made anew.
            let whole = |len: Option<u64>, bytes: usize| len.is_some_and(|len| len % bytes as u64 == 0);
            let intact = whole(files.offsets, OffsetEntry::BYTES) && whole(files.times, TimeEntry::BYTES);
            self.segments.push(segment);
            if !intact && Some(base) != last {
                self.rebuild_sealed(self.segments.len() - 1)?;
            } else if !intact {
                self.reset_indexes(self.segments.len() - 1)?;
            }
        }
        Ok(())
    }

    /// An active segment whose indexes are of no use: the walk makes them anew.
    fn reset_indexes(&mut self, at: usize) -> Result<(), OpenError> {
        let segment = &mut self.segments[at];
        segment.offsets.truncate(0);
        segment.times.truncate(0);
        self.report
            .rebuilt
            .push(file_name(segment.base, FileKind::OffsetIndex, ""));
        Ok(())
    }

    /// Makes the indexes of a sealed segment anew, in memory; `adopt` writes them.
    fn rebuild_sealed(&mut self, at: usize) -> Result<(), OpenError> {
        let segment = &mut self.segments[at];
        let (base, size) = (segment.base, segment.size);
        segment.offsets.truncate(0);
        segment.times.truncate(0);
        let file = match segment.file(FileKind::Log) {
            Ok(file) => file,
            Err(error) => return Err(self.io(error)),
        };
        let segment = &mut self.segments[at];
        segment.size = 0;
        let config = &self.config;
        let gaps_until = gaps_until(&self.config, self.recovered.cleaned_until);
        let walk = Walk {
            file: &*file,
            base,
            position: 0,
            len: u64::from(size),
            expected: base,
            gaps_until,
        };
        let end = walk.run(|batch, _| {
            segment.note_batch(&batch.header, batch.bytes.len() as u32, config);
            Ok(())
        });
        let end = end.map_err(|error| self.io(error))?;
        self.segments[at].size = size;
        self.report
            .rebuilt
            .push(file_name(base, FileKind::OffsetIndex, ""));
        self.report.walked_bytes += end.position;
        match end.failure {
            Some(why) if end.next_offset < self.recovered.recovery_point => {
                Err(self.damaged(base, end.position, end.next_offset, why))
            }
            // Above the recovery point the walk will come here and cut.
            _ => Ok(()),
        }
    }

    fn recover(mut self) -> Result<(Log, RecoveryReport), OpenError> {
        self.load_epochs()?;
        if self.shutdown == Shutdown::Clean
            && let Some(end) = self.clean_end()?
        {
            return self.adopt(end, false);
        }
        let start_offset = self.load_producers(Some(self.recovered.recovery_point))?;
        let from = start_offset
            .min(self.recovered.recovery_point)
            .max(self.segments[0].base);
        let start = self.walk_start(from)?;
        let walked = self.walk(start, start_offset)?;
        self.judge(&walked)?;
        self.look_for_gaps(start.segment)?;
        if is_planted("dedupe-not-rebuilt") {
            self.producers = Producers::default();
        }
        self.adopt(walked, true)
    }

    fn load_epochs(&mut self) -> Result<(), OpenError> {
        let path = self.place.dir.join(epochs::FILE_NAME);
        let bytes = read_file(&**self.place.disk(), &path, epochs::FILE_BYTES_MAX).map_err(|e| self.io(e))?;
        match Epochs::parse(&bytes.unwrap_or_default()) {
            Some(epochs) => self.epochs = epochs,
            None => {
                self.report.rebuilt.push(epochs::FILE_NAME.to_owned());
                self.epochs_dirty = true;
            }
        }
        Ok(())
    }

    /// The newest usable snapshot that is not above `limit`; gives the offset up to which it speaks.
    fn load_producers(&mut self, limit: Option<Offset>) -> Result<Offset, OpenError> {
        let first = self.segments[0].base;
        for at in self.snapshots.iter().rev().copied() {
            // What lies below the first segment was durable when it was retired: a snapshot of there holds.
            if at < first || limit.is_some_and(|limit| at > limit.max(first)) {
                continue;
            }
            let path = self.place.path(at, FileKind::Snapshot);
            let bytes = match read_file(&**self.place.disk(), &path, SNAPSHOT_BYTES_MAX) {
                Ok(bytes) => bytes.unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => Vec::new(),
                Err(error) => return Err(self.io(error)),
            };
            if let Some(producers) = Producers::parse(&bytes) {
                self.producers = producers;
                return Ok(at);
            }
            self.report.rebuilt.push(file_name(at, FileKind::Snapshot, ""));
        }
        self.producers = Producers::default();
        Ok(first)
    }

    /// After a clean shutdown: the active segment from its last index entry on, and a snapshot of exactly that end.
    /// `None`: something does not fit, and recovery goes the long way.
    fn clean_end(&mut self) -> Result<Option<Walked>, OpenError> {
        let last = self.segments.len() - 1;
        let Some(start) = self.last_entry(last)? else {
            return Ok(None);
        };
        let (epochs, sizes) = (self.epochs.clone(), self.segments[last].size);
        self.begin_walk(start);
        let end = self.walk_segment(
            last,
            u64::from(start.position),
            u64::from(sizes),
            start.offset,
            None,
        )?;
        let fits = end.failure.is_none()
            && end.next_offset >= self.recovered.recovery_point
            && end.next_offset >= self.recovered.log_start
            && self.epochs == epochs
            && self.snapshots.contains(&end.next_offset);
        if fits && self.load_producers(Some(end.next_offset))? == end.next_offset {
            let (position, end) = (end.position, end.next_offset);
            return Ok(Some(Walked {
                end,
                segment: last,
                position,
                failure: None,
            }));
        }
        self.epochs = epochs;
        self.forget_walk(last, sizes);
        Ok(None)
    }

    /// Undoes `begin_walk` and `walk_segment` for the long way, which finds out everything itself.
    fn forget_walk(&mut self, at: usize, size: u32) {
        let segment = &mut self.segments[at];
        segment.size = size;
        segment.largest = None;
        segment.first_timestamp = None;
        segment.offsets.truncate(segment.offsets.cold_count());
        segment.times.truncate(segment.times.cold_count());
    }

    /// Where a walk that must cover `from` begins: at the last index entry below it that the segment bears out.
    fn walk_start(&self, from: Offset) -> Result<WalkStart, OpenError> {
        let at = self
            .segments
            .partition_point(|segment| segment.base <= from)
            .saturating_sub(1);
        Ok(self
            .trusted_start(at, from)?
            .unwrap_or(WalkStart::of(at, self.segments[at].base)))
    }

    /// The longest prefix of a segment's indexes that is in order and ends below `from` with a true entry.
    fn trusted_start(&self, at: usize, from: Offset) -> Result<Option<WalkStart>, OpenError> {
        let segment = &self.segments[at];
        let read = |error| self.io(error);
        let offsets = segment
            .offsets
            .all(|| segment.file(FileKind::OffsetIndex))
            .map_err(read)?;
        let times = segment
            .times
            .all(|| segment.file(FileKind::TimeIndex))
            .map_err(read)?;
        let mut trusted = 0;
        for (number, entry) in offsets.iter().enumerate() {
            let after = |last: &OffsetEntry| last.relative < entry.relative && last.position < entry.position;
            let ordered = number.checked_sub(1).is_none_or(|last| after(&offsets[last]));
            if !ordered
                || entry.position >= segment.size
                || segment.base.plus(i64::from(entry.relative)) >= from
            {
                break;
            }
            trusted = number + 1;
        }
        let Some(last) = trusted.checked_sub(1).map(|last| offsets[last]) else {
            return Ok(None);
        };
        let header = segment.header_at(last.position).map_err(read)?;
        let Some(header) = header.filter(|h| h.last_offset() == segment.base.plus(i64::from(last.relative)))
        else {
            return Ok(None);
        };
        let ordered =
            |pair: &[TimeEntry]| pair[0].timestamp < pair[1].timestamp && pair[0].relative < pair[1].relative;
        let in_order = times.windows(2).take_while(|pair| ordered(pair)).count() + 1;
        let times = &times[..in_order.min(times.len())];
        let times = &times[..times.partition_point(|entry| entry.relative <= last.relative)];
        let largest = times.last().map(|entry| LargestTimestamp {
            timestamp: entry.timestamp,
            offset: segment.base.plus(i64::from(entry.relative)),
        });
        Ok(Some(WalkStart {
            segment: at,
            position: last.position,
            offset: header.base_offset(),
            offset_entries: trusted as u32,
            time_entries: times.len() as u32,
            largest,
        }))
    }

    /// The last entry of each index, where the segment bears them out.
    fn last_entry(&self, at: usize) -> Result<Option<WalkStart>, OpenError> {
        let segment = &self.segments[at];
        let read = |error| self.io(error);
        let last = segment
            .offsets
            .last(|| segment.file(FileKind::OffsetIndex))
            .map_err(read)?;
        let time = segment
            .times
            .last(|| segment.file(FileKind::TimeIndex))
            .map_err(read)?;
        let (mut position, mut offset) = (0, segment.base);
        if let Some(last) = last {
            let header = segment.header_at(last.position).map_err(read)?;
            match header {
                Some(h) if h.last_offset() == segment.base.plus(i64::from(last.relative)) => {
                    (position, offset) = (last.position, h.base_offset());
                }
                _ => return Ok(None),
            }
        }
        Ok(Some(WalkStart {
            segment: at,
            position,
            offset,
            offset_entries: segment.offsets.count(),
            time_entries: segment.times.count(),
            largest: time.map(|entry| LargestTimestamp {
                timestamp: entry.timestamp,
                offset: segment.base.plus(i64::from(entry.relative)),
            }),
        }))
    }

    /// Puts a segment back to where a walk begins.
    fn begin_walk(&mut self, start: WalkStart) {
        let segment = &mut self.segments[start.segment];
        segment.size = start.position;
        segment.offsets.truncate(start.offset_entries);
        segment.times.truncate(start.time_entries);
        segment.largest = start.largest;
        segment.first_timestamp = None;
        segment.bytes_since_index = 0;
    }

    /// Walks from `start` to the end of the log or to the first failure. Producer state begins at `state_from`.
    fn walk(&mut self, start: WalkStart, state_from: Offset) -> Result<Walked, OpenError> {
        let mut expected = start.offset;
        let mut walked = Walked {
            end: expected,
            segment: start.segment,
            position: u64::from(start.position),
            failure: None,
        };
        for at in start.segment..self.segments.len() {
            let (base, len) = (self.segments[at].base, u64::from(self.segments[at].size));
            if at > start.segment {
                if let Some(why) = self.boundary_fault(expected, base) {
                    walked.failure = Some(why);
                    return Ok(walked);
                }
                expected = base;
            }
            if at > start.segment && base >= state_from {
                self.new_snapshots.push((base, self.producers.render()));
            }
            self.begin_walk(if at == start.segment {
                start
            } else {
                WalkStart::of(at, base)
            });
            self.keep_aborted_below(at, state_from)?;
            let position = u64::from(self.segments[at].size);
            let end = self.walk_segment(at, position, len, expected, Some(state_from))?;
            expected = end.next_offset;
            walked = Walked {
                end: expected,
                segment: at,
                position: end.position,
                failure: end.failure,
            };
            if walked.failure.is_some() {
                break;
            }
        }
        Ok(walked)
    }

    /// Whether the next segment may begin at `base` where the last one ends at `end`.
    fn boundary_fault(&self, end: Offset, base: Offset) -> Option<String> {
        if base < end {
            return Some(format!(
                "segment {base} begins before offset {end}, where the last one ends"
            ));
        }
        let cleaned = base <= gaps_until(&self.config, self.recovered.cleaned_until);
        (base > end && !cleaned).then(|| format!("offsets {end} to {base} are missing between two segments"))
    }

    /// Entries of the transaction index that the walk will not make anew.
    fn keep_aborted_below(&mut self, at: usize, state_from: Offset) -> Result<(), OpenError> {
        let segment = &mut self.segments[at];
        if segment.aborted_count == 0 {
            return Ok(());
        }
        let kept = match segment.aborted() {
            Ok(entries) => entries
                .iter()
                .take_while(|txn| txn.last_offset < state_from)
                .count() as u32,
            Err(_) => 0,
        };
        segment.aborted_count = kept;
        Ok(())
    }

    fn walk_segment(
        &mut self,
        at: usize,
        position: u64,
        len: u64,
        expected: Offset,
        state_from: Option<Offset>,
    ) -> Result<WalkEnd, OpenError> {
        let file = self.segments[at]
            .file(FileKind::Log)
            .map_err(|error| self.io(error))?;
        let base = self.segments[at].base;
        let mut first = true;
        let gaps_until = gaps_until(&self.config, self.recovered.cleaned_until);
        let walk = Walk {
            file: &*file,
            base,
            position,
            len,
            expected,
            gaps_until,
        };
        let mut pending = Vec::new();
        let end = walk.run(|batch, at_byte| {
            if first {
                first = false;
                self.begin_epochs(batch, at, at_byte)?;
            }
            self.segments[at].note_batch(&batch.header, batch.bytes.len() as u32, &self.config);
            self.epochs_dirty |= self
                .epochs
                .assign(batch.header.leader_epoch(), batch.header.base_offset());
            if state_from.is_some_and(|from| batch.header.base_offset() >= from)
                && let Some(ended) = self.producers.apply(&batch.header, control_marker(batch))
                && ended.aborted
            {
                pending.push(AbortedTxn {
                    producer_id: ended.producer_id,
                    first_offset: ended.first_offset,
                    last_offset: ended.last_offset,
                    last_stable_offset: ended.last_stable_offset,
                });
            }
            Ok(())
        });
        let end = end.map_err(|error| self.io(error))?;
        self.report.walked_bytes += end.position - position;
        self.walked.insert(at, pending);
        Ok(end)
    }

    /// The epochs up to the first batch of a walk must be known; a checkpoint that lags behind is made good.
    fn begin_epochs(&mut self, batch: &Batch, at: usize, position: u64) -> io::Result<()> {
        let (epoch, base) = (batch.header.leader_epoch(), batch.header.base_offset());
        // The first known epoch begins at the log's start, which may lie within the batch.
        let probe = base.max(self.recovered.log_start).min(batch.header.last_offset());
        if self.epochs.at(probe) == Some(epoch) {
            self.epochs_dirty |= self.epochs.truncate_end(probe.next());
            return Ok(());
        }
        if at == 0 && position == 0 {
            self.epochs_dirty = true;
            self.epochs = Epochs::default();
            return Ok(());
        }
        self.report.rebuilt.push(epochs::FILE_NAME.to_owned());
        self.epochs_dirty = true;
        let mut epochs = Epochs::default();
        for (number, segment) in self.segments[..=at].iter().enumerate() {
            let end = if number == at {
                position
            } else {
                u64::from(segment.size)
            };
            let file = segment.file(FileKind::Log)?;
            let mut here = 0;
            while let Some(header) = crate::segment::header_at(&*file, here, end)? {
                let Ok(size) = plausible_size(&header, segment.base, segment.base, end - here) else {
                    break;
                };
                epochs.assign(header.leader_epoch(), header.base_offset());
                here += size as u64;
            }
        }
        self.epochs = epochs;
        Ok(())
    }

    /// What fails below the recovery point is damage, whatever the reason.
    fn judge(&self, walked: &Walked) -> Result<(), OpenError> {
        if walked.end >= self.recovered.recovery_point || is_planted("recovery-truncates-rot") {
            return Ok(());
        }
        let why = walked.failure.clone().unwrap_or_else(|| {
            format!(
                "the log ends below offset {}, up to which it was durable",
                self.recovered.recovery_point
            )
        });
        Err(self.damaged(
            self.segments[walked.segment].base,
            walked.position,
            walked.end,
            why,
        ))
    }

    /// Sealed segments that are not walked must end where the next one begins.
    fn look_for_gaps(&mut self, walked_from: usize) -> Result<(), OpenError> {
        for at in 0..walked_from {
            let next = self.segments[at + 1].base;
            let cleaned = next <= gaps_until(&self.config, self.recovered.cleaned_until);
            if cleaned || next <= self.recovered.log_start {
                continue;
            }
            let start = self
                .last_entry(at)?
                .unwrap_or(WalkStart::of(at, self.segments[at].base));
            let segment = &self.segments[at];
            let file = segment.file(FileKind::Log).map_err(|error| self.io(error))?;
            let (mut position, len) = (u64::from(start.position), u64::from(segment.size));
            let mut end = start.offset;
            while let Some(header) =
                crate::segment::header_at(&*file, position, len).map_err(|e| self.io(e))?
            {
                let Ok(size) = plausible_size(&header, segment.base, end, len - position) else {
                    break;
                };
                end = header.next_offset();
                position += size as u64;
            }
            if end != next || position != len {
                self.report.gaps.push((end, next));
            }
        }
        Ok(())
    }

    /// Changes the disk to what was found, and makes a log of it.
    fn adopt(mut self, walked: Walked, recovered: bool) -> Result<(Log, RecoveryReport), OpenError> {
        if recovered {
            self.cut(&walked).map_err(|error| self.io(error))?;
        }
        self.epochs_dirty |= self.epochs.truncate_end(walked.end.next());
        let log_start = self.recovered.log_start.max(self.segments[0].base);
        if log_start > walked.end {
            return self.restart_at(log_start);
        }
        self.epochs_dirty |= self.epochs.truncate_start(log_start);
        self.drop_snapshots(walked.end, recovered);
        self.write_indexes(recovered).map_err(|error| self.io(error))?;
        let mut segments = std::mem::take(&mut self.segments);
        if let Some(active) = segments.last_mut() {
            active.load_last_entries().map_err(|error| self.io(error))?;
        }
        let end = walked.end;
        let snapshots = std::mem::take(&mut self.snapshots);
        let mut log = Log::assemble(self.place.clone(), self.identity, self.config, segments, end);
        log.log_start = log_start;
        log.recovery_point = if recovered {
            self.recovered.recovery_point.min(end)
        } else {
            end
        };
        log.cleaned_until = self.recovered.cleaned_until.map(|cleaned| cleaned.min(end));
        log.epochs = self.epochs;
        log.epochs_dirty = self.epochs_dirty;
        log.producers = self.producers;
        log.snapshots = snapshots;
        Ok((log, self.report))
    }

    /// Everything was lost, and it may have been: the log went on beyond its durable end when its start was moved.
    fn restart_at(mut self, log_start: Offset) -> Result<(Log, RecoveryReport), OpenError> {
        let retire = |source| OpenError::Io {
            path: self.place.dir.display().to_string(),
            source,
        };
        for mut segment in std::mem::take(&mut self.segments) {
            segment.forget_files();
            for kind in FileKind::ALL {
                remove_if_there(&self.place, segment.base, kind).map_err(retire)?;
            }
        }
        let segment = make_durable_dir(&self.place, &self.identity, log_start).map_err(retire)?;
        let mut log = Log::assemble(
            self.place.clone(),
            self.identity,
            self.config,
            vec![segment],
            log_start,
        );
        log.epochs_dirty = true;
        Ok((log, self.report))
    }

    /// Cuts the tail behind the last good batch, later segments with it. Whole batches among it are kept beside the
    /// log as evidence: they were never acknowledged as durable, but somebody may want to know.
    fn cut(&mut self, walked: &Walked) -> io::Result<()> {
        let later: Vec<Segment> = self.segments.drain(walked.segment + 1..).collect();
        let base = self.segments[walked.segment].base;
        let file = self.segments[walked.segment].file(FileKind::Log)?;
        let len = file.len()?;
        let mut evidence = Vec::new();
        let mut bytes = len - walked.position;
        if len > walked.position {
            if has_batch_beyond(&*file, base, walked.position, len)? {
                let copy = self.place.dir.join(file_name(
                    base,
                    FileKind::Log,
                    &format!(".cut-{}", walked.position),
                ));
                copy_tail(&self.place, &*file, walked.position, len, &copy)?;
                evidence.push(copy);
            }
            file.set_len(walked.position)?;
        }
        for mut segment in later {
            bytes += u64::from(segment.size);
            let log = segment.file(FileKind::Log)?;
            let len = log.len()?;
            let worth = has_batch_beyond(&*log, segment.base, 0, len)?;
            segment.forget_files();
            if worth {
                let copy = self
                    .place
                    .dir
                    .join(file_name(segment.base, FileKind::Log, ".cut-0"));
                self.place
                    .disk()
                    .rename(&self.place.path(segment.base, FileKind::Log), &copy)?;
                evidence.push(copy);
            }
            for kind in FileKind::ALL {
                remove_if_there(&self.place, segment.base, kind)?;
            }
        }
        if let Some(why) = &walked.failure {
            let (position, offset) = (walked.position, walked.end);
            tracing::warn!(partition = %self.identity, segment = %base, position, %offset, bytes, %why, "cut a torn tail");
            let why = why.clone();
            self.report.cut = Some(TailCut {
                segment: base,
                position,
                offset,
                bytes,
                why,
                evidence,
            });
        }
        Ok(())
    }

    /// Index entries go to their files; after a crash, what the walk found good is made durable.
    fn write_indexes(&mut self, recovered: bool) -> io::Result<()> {
        let last = self.segments.len() - 1;
        for (at, segment) in self.segments.iter_mut().enumerate() {
            let rebuilt = segment.offsets.has_unstored() || segment.times.has_unstored();
            let walked = recovered && (rebuilt || self.walked.contains_key(&at) || at == last);
            if !walked && !rebuilt && at != last {
                continue;
            }
            for (kind, bytes) in [
                (FileKind::OffsetIndex, segment.offsets.stored_bytes()),
                (FileKind::TimeIndex, segment.times.stored_bytes()),
            ] {
                let file = self
                    .place
                    .disk()
                    .open(&self.place.path(segment.base, kind), OpenMode::Create)?;
                if file.len()? != bytes {
                    file.set_len(bytes)?;
                }
            }
            if at == last {
                segment.store_indexes(true)?;
            } else {
                segment.finish_indexes()?;
                segment.release_indexes();
            }
            if recovered && let Some(found) = self.walked.get(&at) {
                segment.replace_aborted(found)?;
            }
            if walked {
                segment.file(FileKind::Log)?.sync()?;
                segment.file(FileKind::OffsetIndex)?.sync()?;
                segment.file(FileKind::TimeIndex)?.sync()?;
                if segment.aborted_count > 0 {
                    segment.file(FileKind::TxnIndex)?.sync()?;
                }
            }
        }
        if recovered {
            for (at, bytes) in std::mem::take(&mut self.new_snapshots) {
                let path = self.place.path(at, FileKind::Snapshot);
                let file = self.place.disk().open(&path, OpenMode::Create)?;
                file.set_len(0)?;
                file.write_at(&[io::IoSlice::new(&bytes)], 0)?;
                file.sync()?;
                if let Err(place) = self.snapshots.binary_search(&at) {
                    self.snapshots.insert(place, at);
                }
            }
            self.place.disk().sync_dir(&self.place.dir)?;
        }
        Ok(())
    }

    /// Snapshots above the log's end speak of what is gone. So may, after a crash, one above the recovery point, if
    /// the log has grown again since: the walk has made those that are needed anew.
    fn drop_snapshots(&mut self, end: Offset, recovered: bool) {
        let trusted = if recovered {
            self.recovered.recovery_point.max(self.segments[0].base)
        } else {
            end
        };
        let (keep, drop): (Vec<_>, Vec<_>) = self.snapshots.iter().partition(|at| **at <= trusted.min(end));
        self.snapshots = keep;
        for at in drop {
            if let Err(error) = remove_if_there(&self.place, at, FileKind::Snapshot) {
                tracing::warn!(partition = %self.identity, snapshot = %at, %error, "a snapshot of a lost tail stays");
            }
        }
    }
}

fn remove_if_there(place: &Place, base: Offset, kind: FileKind) -> io::Result<()> {
    match place.disk().remove_file(&place.path(base, kind)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn copy_tail(
    place: &Place,
    from: &dyn skerry_env::disk::File,
    start: u64,
    end: u64,
    to: &std::path::Path,
) -> io::Result<()> {
    let copy = place.disk().open(to, OpenMode::Create)?;
    copy.set_len(0)?;
    let mut chunk = vec![0; 1 << 20];
    let mut position = start;
    while position < end {
        let want = chunk.len().min((end - position) as usize);
        let read = crate::walk::read_up_to(from, &mut chunk[..want], position)?;
        if read == 0 {
            break;
        }
        copy.write_at(&[io::IoSlice::new(&chunk[..read])], position - start)?;
        position += read as u64;
    }
    copy.sync()
}
