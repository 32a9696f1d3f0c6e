//! Opening a log: after a clean shutdown with a look at its end, after a crash with a walk over what may not have
//! been durable.
//!
//! Everything up to `adopt` only reads: damage below the recovery point leaves the disk as it is.

mod adopt;
mod found;
mod tail;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use skerry_env::disk::read_file;
use skerry_types::{Offset, WallMs, is_planted, reached, sometimes};

use self::found::{Found, FoundSegment, check_identity, io_error, remove_leftovers};
use self::tail::Walked;
use super::{Log, Recovered, Shutdown, gaps_until, make_durable_dir};
use crate::config::LogConfig;
use crate::epochs::{self, Epochs};
use crate::errors::OpenError;
use crate::files::FileCache;
use crate::identity::PartitionIdentity;
use crate::index::{AbortedTxn, IndexEntry, OffsetEntry, TimeEntry};
use crate::producers::Producers;
use crate::segment::{FileKind, Place, SEGMENT_BYTES_MAX, Segment, SegmentSizes, file_name};
use crate::walk::Walk;

/// A snapshot of ten million producers.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// What recovery found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Bytes of log that were checked batch by batch.
    pub walked_bytes: u64,
    /// An unsynced tail was cut.
    pub cut: Option<TailCut>,
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
        let mut recovered = recovered;
        if is_planted("recovery-truncates-rot") {
            recovered.recovery_point = recovered.log_start;
        }
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
    fn begin_anew(mut self) -> Result<(Log, RecoveryReport), OpenError> {
        let Recovered {
            log_start,
            recovery_point,
            ..
        } = self.recovered;
        if recovery_point > log_start {
            return Err(self.damaged(log_start, 0, log_start, "no segment is left"));
        }
        let producers = self.producers_at(log_start).map_err(|e| self.io(e))?;
        let segment = make_durable_dir(&self.place, &self.identity, log_start).map_err(|e| self.io(e))?;
        let mut log = Log::assemble(self.place, self.identity, self.config, vec![segment], log_start);
        log.log_start = log_start;
        (log.producers, log.snapshots) = (producers, self.snapshots);
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
            reached("opened-without-recovery");
            return self.adopt(end, false);
        }
        let start_offset = self.load_producers(Some(self.recovered.recovery_point))?;
        let from = start_offset
            .min(self.recovered.recovery_point)
            .max(self.segments[0].base);
        let start = self.walk_start(from)?;
        sometimes("recovery-begins-at-an-index-entry", start.position > 0);
        let walked = self.walk(start, start_offset)?;
        self.judge(&walked)?;
        self.judge_sealed(start.segment)?;
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
        self.new_snapshots.clear();
        for at in self.snapshots.iter().rev().copied() {
            // What lies below the first segment was durable when it was retired: a snapshot of there holds.
            if at < first || limit.is_some_and(|limit| at > limit.max(first)) {
                continue;
            }
            let bytes = self.read_snapshot(at).map_err(|error| self.io(error))?;
            if let Some(producers) = Producers::parse(&bytes) {
                reached("producers-from-a-snapshot");
                self.producers = producers;
                // Kept from here on, and perhaps only in the page cache.
                self.new_snapshots = vec![(at, bytes)];
                return Ok(at);
            }
            self.report.rebuilt.push(file_name(at, FileKind::Snapshot, ""));
        }
        self.producers = Producers::default();
        Ok(first)
    }

    /// The bytes of a snapshot; none where there is no such file, or one that cannot be one.
    fn read_snapshot(&self, at: Offset) -> io::Result<Vec<u8>> {
        let path = self.place.path(at, FileKind::Snapshot);
        match read_file(&**self.place.disk(), &path, SNAPSHOT_BYTES_MAX) {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Vec::new()),
            read => read.map(Option::unwrap_or_default),
        }
    }

    /// After a clean shutdown: the active segment from its last index entry on, and a snapshot of exactly that end.
    /// `None`: something does not fit, and recovery goes the long way.
    fn clean_end(&mut self) -> Result<Option<Walked>, OpenError> {
        let last = self.segments.len() - 1;
        let Some(start) = self.last_entry(last)? else {
            return Ok(None);
        };
        let (epochs, sizes) = (self.epochs.clone(), self.segments[last].size);
        self.begin_walk(start)?;
        let len = (u64::from(start.position), u64::from(sizes));
        let end = self.walk_segment(last, len, start.offset, start.offset, None)?;
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
}
