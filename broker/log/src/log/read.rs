use std::io;
use std::sync::Arc;

use bytes::Bytes;
use skerry_env::disk::File;
use skerry_types::{Offset, is_planted, reached, sometimes};

use super::{Log, gaps_until};
use crate::batch::{BatchHeader, Batches};
use crate::buffers::BufferPool;
use crate::errors::ReadError;
use crate::index::{AbortedTxn, OffsetEntry, floor_in_file};
use crate::segment::{FileKind, Segment};
use crate::timestamps::{TimedSegment, TimestampPlan, TimestampQuery};
use crate::walk::{plausible_size, read_up_to};

/// The least that a read asks of a file: a sparse index leads to within this of its target.
const READ_BYTES_MIN: u64 = 8 * 1024;

/// A read that was decided on under the log's lock and is done without it.
pub struct ReadPlan {
    from: Offset,
    upper: Offset,
    max_bytes: u32,
    min_one_batch: bool,
    /// Compaction may have removed offsets up to here; elsewhere a batch begins where the last one ended. The sum
    /// does not cover a base offset, so this is what does.
    gaps_until: Offset,
    /// The segment that covers `from`, and the one after it: compaction may have left nothing in the first.
    views: [Option<SegmentView>; 2],
    buffers: Arc<BufferPool>,
}

/// A segment as it was when the read was planned. The open file outlives a removal.
pub(crate) struct SegmentView {
    pub(crate) base: Offset,
    /// Where the next one begins, or the log ends.
    end: Offset,
    pub(crate) file: Arc<dyn File>,
    pub(crate) size: u32,
    pub(crate) hint: Hint,
}

/// Where to begin.
pub(crate) enum Hint {
    /// At this entry; none: at the beginning.
    Entry(Option<OffsetEntry>),
    /// Where the index file says, among its first `count` entries.
    Search {
        index: Arc<dyn File>,
        count: u32,
        relative: u32,
    },
}

impl SegmentView {
    fn of(segment: &Segment, from: Offset, end: Offset) -> io::Result<Self> {
        let hint = if from <= segment.base {
            Hint::Entry(None)
        } else {
            let relative = u32::try_from(from.get() - segment.base.get()).unwrap_or(u32::MAX);
            match segment.offsets.floor_in_tail(i64::from(relative)) {
                Ok(entry) => Hint::Entry(entry),
                Err(count) => Hint::Search {
                    index: segment.file(FileKind::OffsetIndex)?,
                    count,
                    relative,
                },
            }
        };
        Ok(Self {
            base: segment.base,
            end,
            file: segment.file(FileKind::Log)?,
            size: segment.size,
            hint,
        })
    }

    /// The index entry to begin at, or none: at the beginning. The outer `None`: would wait for the device.
    fn entry(&self, cached: bool) -> Result<Option<Option<OffsetEntry>>, ReadError> {
        match &self.hint {
            Hint::Entry(entry) => Ok(Some(*entry)),
            Hint::Search {
                index,
                count,
                relative,
            } => {
                let read =
                    |file: &dyn File, buf: &mut [u8], position: u64| read_some(file, buf, position, cached);
                Ok(floor_in_file(&**index, *count, i64::from(*relative), &read)?)
            }
        }
    }

    /// A batch that reaches beyond the segment is one of another place; whoever takes it for the end has read everything (9612 of
    /// any size, 60 s).
    fn holds(&self, header: &BatchHeader) -> Result<(), String> {
        if header.next_offset() > self.end {
            return Err(format!(
                "offset {} is beyond its end {}",
                header.last_offset(),
                self.end
            ));
        }
        Ok(())
    }

    pub(crate) fn damaged(&self, position: u64, offset: Offset, why: impl Into<String>) -> ReadError {
        reached("damage-read");
        ReadError::Damaged {
            segment: self.base,
            position,
            offset,
            why: why.into(),
        }
    }
}

fn read_some(file: &dyn File, buf: &mut [u8], position: u64, cached: bool) -> io::Result<Option<usize>> {
    if cached {
        file.read_cached_at(buf, position)
    } else {
        read_up_to(file, buf, position).map(Some)
    }
}

/// What a segment has for a read.
enum Found {
    Batches(Piece),
    /// Nothing at or after the offset.
    Nothing,
    WouldWait,
}

/// Whole batches of one segment.
struct Piece {
    segment: Offset,
    /// Where they begin in the segment's `.log` file.
    position: u64,
    /// The offset that was looked for.
    from: Offset,
    bytes: Bytes,
}

impl Piece {
    /// Compares each batch with its sum.
    ///
    /// The offset of damage is where a reader meets it. That of its head may be another's, and whoever reads from there meets
    /// a good batch: logs that were compacted have holes, so that nothing else contradicts such a head.
    fn check(self) -> Result<Bytes, ReadError> {
        let (mut position, mut expected) = (self.position, self.from);
        for batch in Batches::new(self.bytes.clone()) {
            if !batch.crc_is_good() && !is_planted("sums-not-compared") {
                reached("damage-read");
                return Err(ReadError::Damaged {
                    segment: self.segment,
                    position,
                    offset: batch.header.base_offset().min(expected),
                    why: "a batch's checksum does not fit its bytes".to_owned(),
                });
            }
            position += batch.bytes.len() as u64;
            expected = batch.header.next_offset();
        }
        Ok(self.bytes)
    }
}

impl Log {
    /// Plans a read of whole batches from the one that contains `from` (it may begin before it), all below `upper`.
    /// `max_bytes` holds but for the first batch where `min_one_batch` is set (KIP-74). One segment at a time.
    ///
    /// # Errors
    /// Where `from` is outside of the log, or a file cannot be opened.
    pub fn plan_read(
        &self,
        from: Offset,
        upper: Offset,
        max_bytes: u32,
        min_one_batch: bool,
    ) -> Result<ReadPlan, ReadError> {
        if from < self.log_start || from > self.log_end {
            return Err(ReadError::OutOfRange {
                offset: from,
                log_start: self.log_start,
                log_end: self.log_end,
            });
        }
        let upper = upper.min(self.log_end);
        let mut views = [None, None];
        if from < upper {
            let floor = self.floor(from);
            let view = |number: usize| {
                let next = self.segments.get(number + 1);
                let end = next.map_or(self.log_end, |next| next.base);
                SegmentView::of(&self.segments[number], from, end)
            };
            views[0] = Some(view(floor)?);
            let mut behind = floor + 1..self.segments.len();
            let next = behind.find(|number| self.segments[*number].size > 0);
            views[1] = next.map(view).transpose()?;
        }
        Ok(ReadPlan {
            from,
            upper,
            max_bytes,
            min_one_batch,
            gaps_until: gaps_until(&self.config, self.cleaned_until),
            views,
            buffers: self.place.files.buffers().clone(),
        })
    }

    /// Plans a lookup of a record by its time, below `upper`.
    ///
    /// # Errors
    /// Where a file cannot be opened.
    pub fn plan_timestamp_lookup(
        &self,
        query: TimestampQuery,
        upper: Offset,
    ) -> Result<TimestampPlan, ReadError> {
        let segments = self.segments[self.floor(self.log_start)..]
            .iter()
            .map(TimedSegment::of);
        Ok(TimestampPlan {
            query,
            log_start: self.log_start,
            upper: upper.min(self.log_end),
            segments: segments.collect::<Result<_, _>>()?,
        })
    }

    /// Aborted transactions that a reader of committed records must skip in `from..upper`, by first offset.
    ///
    /// # Errors
    /// Where an index file cannot be read.
    pub fn aborted(&self, from: Offset, upper: Offset) -> Result<Vec<AbortedTxn>, ReadError> {
        let mut found = Vec::new();
        for segment in &self.segments[self.floor(from)..] {
            let entries = segment.aborted()?;
            // Behind such an entry no transaction can begin before `upper`.
            let complete = entries.iter().any(|txn| txn.last_stable_offset >= upper);
            found.extend(
                entries
                    .into_iter()
                    .filter(|txn| txn.last_offset >= from && txn.first_offset < upper),
            );
            if complete {
                break;
            }
        }
        found.sort_by_key(|txn| txn.first_offset);
        Ok(found)
    }
}

impl ReadPlan {
    /// Nothing to read: the reader has everything below the bound.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.views[0].is_none()
    }

    /// Reads what the page cache holds; `None`: `run` would wait for the device.
    ///
    /// # Errors
    /// Where the file fails or is damaged.
    pub fn run_cached(&self) -> Result<Option<Bytes>, ReadError> {
        let found = self.read(true)?;
        Ok(match found {
            Found::Batches(piece) => Some(piece.bytes),
            Found::Nothing => Some(Bytes::new()),
            Found::WouldWait => None,
        })
    }

    /// Reads, and waits for the device where it must.
    ///
    /// # Errors
    /// Where the file fails or is damaged.
    pub fn run(&self) -> Result<Bytes, ReadError> {
        Ok(match self.read(false)? {
            Found::Batches(piece) => piece.bytes,
            Found::Nothing | Found::WouldWait => Bytes::new(),
        })
    }

    /// Walks there from the beginning of the segment. An index knows the way around what was written over other batches.
    #[must_use]
    pub fn without_index(mut self) -> Self {
        for view in self.views.iter_mut().flatten() {
            view.hint = Hint::Entry(None);
        }
        self
    }

    /// As [`Self::run`], and does what a read leaves to its reader: compares each batch with its sum. What looks damaged
    /// is read once more: a bit may have turned over on its way from the device.
    ///
    /// # Errors
    /// Where the file fails or is damaged.
    pub fn run_checked(&self) -> Result<Bytes, ReadError> {
        match self.read_checked() {
            Err(error) if error.is_damage() => {
                let again = self.read_checked();
                sometimes("read-right-the-second-time", again.is_ok());
                again
            }
            read => read,
        }
    }

    fn read_checked(&self) -> Result<Bytes, ReadError> {
        match self.read(false)? {
            Found::Batches(piece) => piece.check(),
            Found::Nothing | Found::WouldWait => Ok(Bytes::new()),
        }
    }

    fn read(&self, cached: bool) -> Result<Found, ReadError> {
        for (number, view) in self.views.iter().flatten().enumerate() {
            if number > 0 && view.base > self.from && view.base > self.gaps_until {
                let why = format!("offsets {} to {} are missing before it", self.from, view.base);
                return Err(view.damaged(0, self.from, why));
            }
            match self.read_segment(view, cached)? {
                Found::Nothing => {}
                found => return Ok(found),
            }
        }
        Ok(Found::Nothing)
    }

    fn read_segment(&self, view: &SegmentView, cached: bool) -> Result<Found, ReadError> {
        let Some(entry) = view.entry(cached)? else {
            return Ok(Found::WouldWait);
        };
        if let Some(entry) = entry {
            if let Some(found) = self.scan(view, Some(entry), cached)? {
                return Ok(found);
            }
            tracing::warn!(segment = %view.base, ?entry, "an index entry does not fit its segment");
        }
        Ok(self.scan(view, None, cached)?.unwrap_or(Found::Nothing))
    }

    /// Looks for the first batch from `entry` on, or from the beginning. `None`: the batch there is not the one that
    /// the entry speaks of. An index is a hint.
    fn scan(
        &self,
        view: &SegmentView,
        entry: Option<OffsetEntry>,
        cached: bool,
    ) -> Result<Option<Found>, ReadError> {
        let size = u64::from(view.size);
        let mut position = entry.map_or(0, |entry| u64::from(entry.position));
        let mut unproven = entry.map(|entry| view.base.plus(i64::from(entry.relative)));
        let mut expected = view.base;
        while position < size {
            let want = (u64::from(self.max_bytes).max(READ_BYTES_MIN) + READ_BYTES_MIN).min(size - position);
            let Some(buffer) = self.buffer(view, position, want, cached)? else {
                return Ok(Some(Found::WouldWait));
            };
            let mut at = 0;
            while let Some(header) = BatchHeader::read(&buffer[at..]) {
                let here = position + at as u64;
                if let Some(last) = unproven.take() {
                    if header.last_offset() != last {
                        return Ok(None);
                    }
                    expected = header.base_offset().max(view.base);
                }
                let batch_size = plausible_size(&header, view.base, expected, size - here)
                    .map_err(|why| view.damaged(here, expected, why))?;
                if header.base_offset() > expected && header.base_offset() > self.gaps_until {
                    let why = format!("offset {} follows {expected}", header.base_offset());
                    return Err(view.damaged(here, expected, why));
                }
                view.holds(&header)
                    .map_err(|why| view.damaged(here, expected, why))?;
                if header.last_offset() >= self.from {
                    return self
                        .take(view, header, batch_size, buffer.slice(at..), here, cached)
                        .map(Some);
                }
                expected = header.next_offset();
                at += batch_size;
                if at >= buffer.len() {
                    break;
                }
            }
            if at == 0 {
                // Not even a head, where a whole batch was.
                return if cached {
                    Ok(Some(Found::WouldWait))
                } else {
                    Err(view.damaged(position, expected, "the file is too short"))
                };
            }
            position += at as u64;
        }
        // An entry past the end of the segment proves nothing.
        Ok(if unproven.is_some() {
            None
        } else {
            Some(Found::Nothing)
        })
    }

    /// `bytes` begin with the first batch that is asked for, or with a part of it.
    fn take(
        &self,
        view: &SegmentView,
        first: BatchHeader,
        first_size: usize,
        mut bytes: Bytes,
        position: u64,
        cached: bool,
    ) -> Result<Found, ReadError> {
        let max_bytes = self.max_bytes as usize;
        let piece = |bytes| {
            Found::Batches(Piece {
                segment: view.base,
                position,
                from: self.from,
                bytes,
            })
        };
        // A bound rarely lies within a batch. More often the head is wrong about its end: an empty answer would keep the
        // reader there for ever.
        let beyond = first.next_offset() > self.upper;
        if !beyond && first_size > max_bytes && !self.min_one_batch {
            return Ok(piece(Bytes::new()));
        }
        if bytes.len() < first_size {
            let want = (first_size.max(max_bytes) as u64).min(u64::from(view.size) - position);
            match self.buffer(view, position, want, cached)? {
                Some(more) => bytes = more,
                None => return Ok(Found::WouldWait),
            }
            if bytes.len() < first_size {
                return if cached {
                    Ok(Found::WouldWait)
                } else {
                    Err(view.damaged(position, first.base_offset(), "the file is too short"))
                };
            }
        }
        if beyond {
            let whole = Piece {
                segment: view.base,
                position,
                from: self.from,
                bytes: bytes.slice(..first_size),
            };
            whole.check()?;
            return Ok(piece(Bytes::new()));
        }
        let mut end = first_size;
        let mut expected = first.next_offset();
        // Up to where offsets follow each other.
        let mut contiguous = if first.base_offset() > self.from {
            0
        } else {
            first_size
        };
        while let Some(header) = BatchHeader::read(&bytes[end..]) {
            let here = position + end as u64;
            let size = plausible_size(&header, view.base, expected, u64::from(view.size) - here);
            let size = match size.and_then(|size| view.holds(&header).map(|()| size)) {
                Ok(size) => size,
                // What is odd is for the next read to say, which begins with it; but behind a hole an index may lead around it,
                // to what really has the offset that the bytes before it claim: then they are a part of the damage.
                Err(why) if contiguous == 0 => return Err(view.damaged(here, self.from, why)),
                Err(_) => {
                    end = contiguous;
                    break;
                }
            };
            let gap = header.base_offset() > expected;
            let is_damage = gap && header.base_offset() > self.gaps_until;
            if is_damage || end + size > bytes.len().min(max_bytes) || header.next_offset() > self.upper {
                break;
            }
            if !gap && contiguous == end {
                contiguous += size;
            }
            expected = header.next_offset();
            end += size;
        }
        Ok(piece(bytes.slice(..end)))
    }

    /// Up to `want` bytes; fewer where the file ends, or where only so much is cached.
    fn buffer(
        &self,
        view: &SegmentView,
        position: u64,
        want: u64,
        cached: bool,
    ) -> Result<Option<Bytes>, ReadError> {
        let read = |buffer: &mut [u8]| read_some(&*view.file, buffer, position, cached);
        Ok(self.buffers.fill(want as usize, read)?)
    }
}
