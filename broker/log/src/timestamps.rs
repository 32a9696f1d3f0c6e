//! From a time to an offset (ListOffsets).

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use skerry_env::disk::File;
use skerry_types::{LeaderEpoch, Offset, WallMs};

use crate::batch::{Batch, BatchHeader, Records};
use crate::errors::ReadError;
use crate::index::{OffsetEntry, TimeEntry, floor_in_file};
use crate::segment::{FileKind, LargestTimestamp, Segment, header_at};
use crate::walk::{plausible_size, read_up_to};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampQuery {
    /// The first record of this time or later.
    At(WallMs),
    /// The record with the largest timestamp (KIP-734).
    Max,
}

/// A lookup that was decided on under the log's lock and is done without it.
pub struct TimestampPlan {
    pub(crate) query: TimestampQuery,
    pub(crate) log_start: Offset,
    pub(crate) upper: Offset,
    pub(crate) segments: Vec<TimedSegment>,
}

/// A segment with its time index, as they were when the lookup was planned.
pub(crate) struct TimedSegment {
    base: Offset,
    size: u32,
    log: Arc<dyn File>,
    offsets: Arc<dyn File>,
    offsets_cold: u32,
    offsets_tail: Vec<OffsetEntry>,
    times: Arc<dyn File>,
    times_cold: u32,
    times_tail: Vec<TimeEntry>,
    largest: Option<LargestTimestamp>,
}

impl TimedSegment {
    pub(crate) fn of(segment: &Segment) -> io::Result<Self> {
        Ok(Self {
            base: segment.base,
            size: segment.size,
            log: segment.file(FileKind::Log)?,
            offsets: segment.file(FileKind::OffsetIndex)?,
            offsets_cold: segment.offsets.cold_count(),
            offsets_tail: segment.offsets.tail().to_vec(),
            times: segment.file(FileKind::TimeIndex)?,
            times_cold: segment.times.cold_count(),
            times_tail: segment.times.tail().to_vec(),
            largest: segment.largest,
        })
    }

    /// The largest timestamp, if any index or memory tells.
    fn largest(&self) -> io::Result<Option<WallMs>> {
        if let Some(largest) = self.largest {
            return Ok(Some(largest.timestamp));
        }
        // With no bound on the key the search ends at the last entry.
        let last = self.time_floor(i64::MAX)?;
        Ok(last.map(|entry| entry.timestamp))
    }

    fn time_floor(&self, key: i64) -> io::Result<Option<TimeEntry>> {
        let after = self
            .times_tail
            .partition_point(|entry| entry.timestamp.get() <= key);
        match after.checked_sub(1) {
            Some(at) => Ok(Some(self.times_tail[at])),
            None => floor(&*self.times, self.times_cold, key),
        }
    }

    /// A position at or before the batch that ends with `relative`.
    fn position_before(&self, relative: u32) -> io::Result<u32> {
        let after = self
            .offsets_tail
            .partition_point(|entry| entry.relative <= relative);
        let entry = match after.checked_sub(1) {
            Some(at) => Some(self.offsets_tail[at]),
            None => floor::<OffsetEntry>(&*self.offsets, self.offsets_cold, i64::from(relative))?,
        };
        let Some(entry) = entry else { return Ok(0) };
        let header = header_at(&*self.log, u64::from(entry.position), u64::from(self.size))?;
        let fits = header.is_some_and(|h| h.last_offset() == self.base.plus(i64::from(entry.relative)));
        Ok(if fits { entry.position } else { 0 })
    }

    /// Where a search for records of `at` or later begins: behind a batch up to which all are older.
    fn start_for(&self, at: WallMs) -> Result<u32, ReadError> {
        let Some(entry) = self.time_floor(at.get().saturating_sub(1))? else {
            return Ok(0);
        };
        let position = self.position_before(entry.relative)?;
        let last_offset = self.base.plus(i64::from(entry.relative));
        // The index is a hint: the batch that it names must be there, with that timestamp.
        let mut fits = false;
        self.walk(position, self.base, |header, _| {
            fits = header.last_offset() == last_offset && header.max_timestamp() == entry.timestamp;
            header.last_offset() < last_offset
        })?;
        Ok(if fits { position } else { 0 })
    }

    /// Shows heads from `position` on, where no offset below `expected` is, until `more` says false or the segment ends.
    fn walk(
        &self,
        position: u32,
        mut expected: Offset,
        mut more: impl FnMut(&BatchHeader, u64) -> bool,
    ) -> Result<(), ReadError> {
        let (mut position, size) = (u64::from(position), u64::from(self.size));
        while position < size {
            let header = header_at(&*self.log, position, size)?
                .ok_or_else(|| self.damaged(position, expected, "the segment ends within a head"))?;
            let batch_size = plausible_size(&header, self.base, expected, size - position)
                .map_err(|why| self.damaged(position, expected, why))?;
            if !more(&header, position) {
                return Ok(());
            }
            position += batch_size as u64;
            expected = header.next_offset();
        }
        Ok(())
    }

    fn batch(&self, header: &BatchHeader, position: u64) -> Result<Batch, ReadError> {
        let size = header.size_bytes().unwrap_or(0);
        let mut bytes = BytesMut::zeroed(size);
        if read_up_to(&*self.log, &mut bytes, position)? < size {
            return Err(self.damaged(position, header.base_offset(), "the file is too short"));
        }
        let batch = Batch {
            header: *header,
            bytes: bytes.freeze(),
        };
        if batch.crc_is_good() {
            Ok(batch)
        } else {
            Err(self.damaged(position, header.base_offset(), "a checksum does not fit"))
        }
    }

    fn damaged(&self, position: u64, offset: Offset, why: impl Into<String>) -> ReadError {
        ReadError::Damaged {
            segment: self.base,
            position,
            offset,
            why: why.into(),
        }
    }
}

fn floor<E: crate::index::IndexEntry>(file: &dyn File, count: u32, key: i64) -> io::Result<Option<E>> {
    let read = |file: &dyn File, buf: &mut [u8], position: u64| read_up_to(file, buf, position).map(Some);
    Ok(floor_in_file(file, count, key, &read)?.flatten())
}

impl TimestampPlan {
    /// The record, or `None` where there is none below the bound.
    ///
    /// # Errors
    /// Where a file fails or is damaged.
    pub fn run(&self) -> Result<Option<(Offset, WallMs, LeaderEpoch)>, ReadError> {
        let found = match self.query {
            TimestampQuery::At(at) => self.first_at(at)?,
            TimestampQuery::Max => self.maximum()?,
        };
        Ok(found.filter(|(offset, ..)| *offset < self.upper))
    }

    fn first_at(&self, at: WallMs) -> Result<Option<(Offset, WallMs, LeaderEpoch)>, ReadError> {
        for segment in &self.segments {
            if segment.size == 0 || segment.largest()?.is_some_and(|largest| largest < at) {
                continue;
            }
            let start = segment.start_for(at)?;
            if let Some(found) = self.first_in(segment, start, at)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn first_in(
        &self,
        segment: &TimedSegment,
        start: u32,
        at: WallMs,
    ) -> Result<Option<(Offset, WallMs, LeaderEpoch)>, ReadError> {
        let (mut from, mut expected) = (start, segment.base);
        loop {
            let mut candidate = None;
            segment.walk(from, expected, |header, position| {
                let fits = header.max_timestamp() >= at && header.last_offset() >= self.log_start;
                if fits {
                    candidate = Some((*header, position));
                }
                !fits
            })?;
            let Some((header, position)) = candidate else {
                return Ok(None);
            };
            if let Some((offset, timestamp)) = self.record_in(segment, &header, position, at)? {
                return Ok(Some((offset, timestamp, header.leader_epoch())));
            }
            from = position as u32 + header.size_bytes().unwrap_or(0) as u32;
            expected = header.next_offset();
        }
    }

    fn record_in(
        &self,
        segment: &TimedSegment,
        header: &BatchHeader,
        position: u64,
        at: WallMs,
    ) -> Result<Option<(Offset, WallMs)>, ReadError> {
        let batch = segment.batch(header, position)?;
        let damaged = |why: String| segment.damaged(position, header.base_offset(), why);
        let records = Records::new(&batch).map_err(|error| damaged(error.to_string()))?;
        for record in records {
            let record = record.map_err(|error| damaged(error.to_string()))?;
            if record.timestamp >= at && record.offset >= self.log_start {
                return Ok(Some((record.offset, record.timestamp)));
            }
        }
        Ok(None)
    }

    fn maximum(&self) -> Result<Option<(Offset, WallMs, LeaderEpoch)>, ReadError> {
        let mut best: Option<(WallMs, &TimedSegment)> = None;
        for segment in self.segments.iter().filter(|segment| segment.size > 0) {
            if let Some(largest) = segment.largest()?
                && best.is_none_or(|(timestamp, _)| timestamp < largest)
            {
                best = Some((largest, segment));
            }
        }
        let Some((largest, segment)) = best else {
            return Ok(None);
        };
        let start = segment.start_for(largest)?;
        self.first_in(segment, start, largest)
    }
}
