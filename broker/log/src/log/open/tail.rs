//! The walk over the end of a log. It changes what is in memory only.

use std::io;

use skerry_types::{Offset, WallMs, is_planted, reached};

use super::super::gaps_until;
use super::Opening;
use crate::batch::{Batch, control_marker};
use crate::epochs::{self, Epochs};
use crate::errors::OpenError;
use crate::index::{AbortedTxn, OffsetEntry, TimeEntry};
use crate::segment::{FileKind, LargestTimestamp};
use crate::walk::{Walk, WalkEnd, plausible_size};

/// Where the walk begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct WalkStart {
    pub(super) segment: usize,
    pub(super) position: u32,
    /// Of the batch there.
    pub(super) offset: Offset,
    pub(super) offset_entries: u32,
    pub(super) time_entries: u32,
    pub(super) largest: Option<LargestTimestamp>,
}

impl WalkStart {
    /// The beginning of segment number `segment`, whose base offset is `offset`.
    pub(super) fn of(segment: usize, offset: Offset) -> Self {
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
pub(super) struct Walked {
    /// The log's end.
    pub(super) end: Offset,
    /// Where the last good segment's batches end.
    pub(super) segment: usize,
    pub(super) position: u64,
    pub(super) failure: Option<String>,
}

impl Opening {
    /// Undoes `begin_walk` and `walk_segment` for the long way, which finds out everything itself.
    pub(super) fn forget_walk(&mut self, at: usize, size: u32) {
        let segment = &mut self.segments[at];
        segment.size = size;
        segment.largest = None;
        segment.first_timestamp = None;
        segment.offsets.drop_unstored();
        segment.times.drop_unstored();
    }

    /// Where a walk that must cover `from` begins: at the last index entry below it that the segment bears out. A
    /// segment that ends just there is looked at as well: its last entries may not have been durable.
    pub(super) fn walk_start(&self, from: Offset) -> Result<WalkStart, OpenError> {
        let at = self
            .segments
            .partition_point(|segment| segment.base < from)
            .saturating_sub(1);
        Ok(self
            .trusted_start(at, from)?
            .unwrap_or(WalkStart::of(at, self.segments[at].base)))
    }

    /// The longest prefix of a segment's indexes that is in order and ends below `from` with a true entry.
    pub(super) fn trusted_start(&self, at: usize, from: Offset) -> Result<Option<WalkStart>, OpenError> {
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
        let below = times
            .iter()
            .take_while(|entry| entry.relative <= last.relative)
            .count();
        let in_order = times.windows(2).take_while(|pair| ordered(pair)).count() + 1;
        let times = &times[..below];
        // Without a true last entry the largest timestamp up to here is not known: the whole segment tells.
        let borne_out = match times.last() {
            Some(entry) => in_order >= below && segment.bears_out(entry).map_err(read)?,
            None => header.max_timestamp() < WallMs(0),
        };
        if !borne_out {
            return Ok(None);
        }
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
    pub(super) fn last_entry(&self, at: usize) -> Result<Option<WalkStart>, OpenError> {
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
        if let Some(entry) = &time
            && !segment.bears_out(entry).map_err(read)?
        {
            return Ok(None);
        }
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
    pub(super) fn begin_walk(&mut self, start: WalkStart) -> Result<(), OpenError> {
        let segment = &mut self.segments[start.segment];
        segment.size = start.position;
        segment.offsets.truncate(start.offset_entries);
        segment.times.truncate(start.time_entries);
        segment.largest = start.largest;
        segment.first_timestamp = None;
        segment.bytes_since_index = 0;
        // The next entries are compared with the last ones.
        let loaded = segment.load_last_entries();
        loaded.map_err(|error| self.io(error))
    }

    /// Walks from `start` to the end of the log or to the first failure. Producer state begins at `state_from`.
    pub(super) fn walk(&mut self, start: WalkStart, state_from: Offset) -> Result<Walked, OpenError> {
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
                reached("recovery-walks-several-segments");
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
            })?;
            self.keep_aborted_below(at, state_from)?;
            let position = u64::from(self.segments[at].size);
            let end = self.walk_segment(at, (position, len), expected, walked.end, Some(state_from))?;
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

    /// Whether the next segment may begin at `base` where the last one ends at `end`. Holes of compaction are within segments:
    /// the last batch of each stays, and a new one begins where the last one ended. Between two segments one was lost that was
    /// not synced, its name or its bytes, though a later one was not.
    pub(super) fn boundary_fault(&self, end: Offset, base: Offset) -> Option<String> {
        if base < end {
            return Some(format!(
                "segment {base} begins before offset {end}, where the last one ends"
            ));
        }
        let cleaned = self
            .recovered
            .cleaned_until
            .is_some_and(|cleaned| base <= cleaned);
        // More than relative offsets reach: a follower had to begin anew behind the hole.
        let is_far = base.get() - end.get() > i64::from(i32::MAX / 2);
        (base > end && !cleaned && !is_far)
            .then(|| format!("offsets {end} to {base} are missing between two segments"))
    }

    /// Entries of the transaction index that the walk will not make anew.
    pub(super) fn keep_aborted_below(&mut self, at: usize, state_from: Offset) -> Result<(), OpenError> {
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

    /// Walks a segment from a position to its length, where `expected` is the offset of the next batch, or the one before the next
    /// where there is a hole. What was walked before ends at `ended`.
    pub(super) fn walk_segment(
        &mut self,
        at: usize,
        (position, len): (u64, u64),
        expected: Offset,
        mut ended: Offset,
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
            // As `note_written`: an epoch may begin in a hole.
            let begins = ended.min(batch.header.base_offset());
            ended = batch.header.next_offset();
            self.epochs_dirty |= self.epochs.assign(batch.header.leader_epoch(), begins);
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
    pub(super) fn begin_epochs(&mut self, batch: &Batch, at: usize, position: u64) -> io::Result<()> {
        let (epoch, base) = (batch.header.leader_epoch(), batch.header.base_offset());
        // The first known epoch begins at the log's start, which may lie within the batch.
        let probe = base.max(self.recovered.log_start).min(batch.header.last_offset());
        // A crash may have taken a new start back whose epochs were written already.
        let begin = self.recovered.log_start.max(self.segments[0].base);
        let starts = self.epochs.starts();
        let reach_back = starts.first().is_some_and(|first| first.start <= begin);
        if reach_back && self.epochs.at(probe) == Some(epoch) {
            self.epochs_dirty |= self.epochs.truncate_end(probe.next());
            return Ok(());
        }
        if at == 0 && position == 0 {
            self.epochs_dirty = true;
            self.epochs = Epochs::default();
            return Ok(());
        }
        reached("epochs-rebuilt-from-batches");
        self.report.rebuilt.push(epochs::FILE_NAME.to_owned());
        self.epochs_dirty = true;
        let mut epochs = Epochs::default();
        let mut ended = self.segments[0].base;
        for (number, segment) in self.segments[..=at].iter().enumerate() {
            let end = if number == at {
                position
            } else {
                u64::from(segment.size)
            };
            let file = segment.file(FileKind::Log)?;
            let mut here = 0;
            let size_of = |header: &_, here| plausible_size(header, segment.base, segment.base, end - here);
            while let Some(mut header) = crate::segment::header_at(&*file, here, end)? {
                if size_of(&header, here).is_err() {
                    // A bit may have turned over on its way from the device.
                    header = crate::segment::header_at(&*file, here, end)?.unwrap_or(header);
                }
                // What is missing here would be told to nobody: followers are cut by these epochs.
                let size = size_of(&header, here).map_err(|why| {
                    let why = format!("segment {} is damaged at byte {here}: {why}", segment.base);
                    io::Error::new(io::ErrorKind::InvalidData, why)
                })?;
                epochs.assign(header.leader_epoch(), ended.min(header.base_offset()));
                ended = header.next_offset();
                here += size as u64;
            }
        }
        self.epochs = epochs;
        Ok(())
    }

    /// What fails below the recovery point is damage, whatever the reason.
    pub(super) fn judge(&self, walked: &Walked) -> Result<(), OpenError> {
        if walked.end >= self.recovered.recovery_point {
            return Ok(());
        }
        reached("damage-below-the-recovery-point");
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

    /// Sealed segments that are not walked must end where the next one begins. What lies before the walk was durable: a
    /// disk that has lied of its syncs may have lost a part of it, and a leader with such a hole would hold its followers
    /// up for ever.
    pub(super) fn judge_sealed(&self, walked_from: usize) -> Result<(), OpenError> {
        for at in 0..walked_from {
            if self.segments[at + 1].base <= self.recovered.log_start {
                continue;
            }
            // What looks damaged is read once more: a bit may have turned over on its way from the device.
            if !is_planted("sealed-gap-opens")
                && self.sealed_fault(at)?.is_some()
                && let Some(fault) = self.sealed_fault(at)?
            {
                reached("sealed-segment-is-short");
                return Err(fault);
            }
        }
        Ok(())
    }

    fn sealed_fault(&self, at: usize) -> Result<Option<OpenError>, OpenError> {
        let start = self
            .last_entry(at)?
            .unwrap_or(WalkStart::of(at, self.segments[at].base));
        let segment = &self.segments[at];
        let file = segment.file(FileKind::Log).map_err(|error| self.io(error))?;
        let (mut position, len) = (u64::from(start.position), u64::from(segment.size));
        let mut end = start.offset;
        let mut fault = None;
        while let Some(header) = crate::segment::header_at(&*file, position, len).map_err(|e| self.io(e))? {
            match plausible_size(&header, segment.base, end, len - position) {
                Ok(size) => position += size as u64,
                Err(why) => {
                    fault = Some(why);
                    break;
                }
            }
            end = header.next_offset();
        }
        if fault.is_none() && position != len {
            fault = Some(format!("{} bytes are too few for a batch", len - position));
        }
        let fault = fault.or_else(|| self.boundary_fault(end, self.segments[at + 1].base));
        Ok(fault.map(|why| self.damaged(segment.base, position, end, why)))
    }
}
