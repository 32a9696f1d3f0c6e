//! Cutting a log at either end.

use std::io;
use std::path::PathBuf;

use skerry_env::disk::{Disk, read_file, replace_file};
use skerry_types::{Offset, WallMs, is_planted, reached, sometimes};

use super::Log;
use super::append::is_full;
use crate::batch::control_marker;
use crate::epochs;
use crate::errors::{AppendError, ChangeError, Poisoned};
use crate::producers::Producers;
use crate::segment::{FileKind, Place, Segment, SegmentSizes, file_name};
use crate::walk::{Walk, plausible_size};

/// Files that left a log under the name `*.deleted`; [`Retired::remove`] them after `file.delete.delay.ms`. Those that
/// a crash leaves are removed when the log is opened again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// The renamed files.
    pub files: Vec<PathBuf>,
    /// Bytes of log in them.
    pub bytes: u64,
    /// Segments that they were.
    pub segments: usize,
}

impl Retired {
    /// Nothing left the log.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Removes the files.
    ///
    /// # Errors
    /// The disk's first; the other files are removed all the same.
    pub fn remove(&self, disk: &dyn Disk) -> io::Result<()> {
        let mut result = Ok(());
        for path in &self.files {
            match disk.remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => result = result.and(Err(error)),
                _ => {}
            }
        }
        result
    }

    pub(crate) fn add(&mut self, place: &Place, mut segment: Segment, snapshot: bool) -> io::Result<()> {
        segment.forget_files();
        self.bytes += u64::from(segment.size);
        self.segments += 1;
        for kind in FileKind::ALL {
            if kind == FileKind::Snapshot && !snapshot {
                continue;
            }
            let from = place.path(segment.base, kind);
            let to = place.dir.join(file_name(segment.base, kind, ".deleted"));
            match place.disk().rename(&from, &to) {
                Ok(()) => self.files.push(to),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl From<Poisoned> for ChangeError {
    fn from(Poisoned(why): Poisoned) -> Self {
        Self::Poisoned(why)
    }
}

impl Log {
    /// Removes everything from `offset` on: what a new leader does not have (KIP-101). A batch that contains `offset`
    /// goes as a whole. Durable on return.
    ///
    /// The caller has lowered its recovery-point checkpoint to `offset` before, durably, where it was higher: after a
    /// crash the missing records would be taken for damage.
    ///
    /// # Errors
    /// The disk's, which are final for the log.
    pub fn truncate_to(&mut self, offset: Offset) -> Result<Retired, ChangeError> {
        self.writable()?;
        if offset >= self.log_end {
            return Ok(Retired::default());
        }
        let result = if offset < self.log_start {
            // The leader may have been chosen without what this log knows.
            self.restart(offset, Producers::default())
        } else {
            self.cut_tail(offset)
        };
        if let Err(error) = &result {
            self.poison("a truncation failed", error);
        }
        let retired = result?;
        self.check();
        Ok(retired)
    }

    /// Removes everything; the log goes on at `offset`. For a follower whose leader has nothing of it any more.
    /// Durable on return; the caller has lowered its checkpoints before, as for `truncate_to`.
    ///
    /// `producers`: what the leader's log knows of them below `offset` ([`Self::producers_below`]). Without it, whoever wrote
    /// what is deleted and sends it again would not be known here, and written twice.
    ///
    /// # Errors
    /// The disk's, which are final for the log.
    pub fn truncate_fully_and_start_at(
        &mut self,
        offset: Offset,
        producers: &[u8],
    ) -> Result<Retired, ChangeError> {
        self.writable()?;
        let told = Producers::parse(producers);
        if told.is_none() && !producers.is_empty() {
            tracing::warn!(partition = %self.identity(), "what the leader tells of its producers cannot be read: they count as new");
        }
        let result = self.restart(offset, told.unwrap_or_default().below(offset));
        if let Err(error) = &result {
            self.poison("a truncation failed", error);
        }
        let retired = result?;
        self.check();
        Ok(retired)
    }

    /// Empties the log, which goes on at `offset`. Durable on return.
    ///
    /// The new beginning is durable before what lies below it goes: a follower in sync starts over at its own end where
    /// its leader has deleted everything, and whatever a power cut leaves of that, its log must not end earlier.
    pub(super) fn restart(&mut self, offset: Offset, producers: Producers) -> io::Result<Retired> {
        reached("log-begins-elsewhere");
        // What is claimed from now on is true wherever this is interrupted.
        self.recovery_point = self.recovery_point.min(self.log_start).min(offset);
        (self.log_start, self.log_end, self.durable_end) = (offset, offset, offset);
        let retired = self.begin_again(offset, &producers);
        if self.segments.is_empty() {
            // A log always has one, also where it takes no more writes.
            let segment = Segment::existing(&self.place, offset, SegmentSizes::default(), WallMs::NONE);
            self.segments.push(segment);
        }
        let retired = retired?;
        self.recovery_point = offset;
        self.cleaned_until = None;
        self.producers = producers;
        self.epochs = epochs::Epochs::default();
        self.side_files.clear();
        self.generation.cuts += 1;
        self.write_epochs()?;
        Ok(retired)
    }

    fn begin_again(&mut self, offset: Offset, producers: &Producers) -> io::Result<Retired> {
        let mut retired = Retired::default();
        while let Some(segment) = self.segments.pop_if(|segment| segment.base > offset) {
            retired.add(&self.place, segment, true)?;
        }
        if let Some(mut segment) = self.segments.pop_if(|segment| segment.base == offset) {
            // Emptied where it is: for a moment there might be no segment at all.
            segment.forget_files();
            remove_if_there(&self.place, offset, FileKind::TxnIndex)?;
        }
        for at in std::mem::take(&mut self.snapshots) {
            remove_if_there(&self.place, at, FileKind::Snapshot)?;
        }
        if !producers.is_empty() {
            // Nothing in the log will say it again. Without room for it a crash forgets them, and nothing else.
            let path = self.place.path(offset, FileKind::Snapshot);
            match replace_file(&**self.place.disk(), &path, &producers.render()) {
                Ok(()) => self.snapshots.push(offset),
                Err(error) if is_full(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let segment = Segment::create(&self.place, offset, WallMs::NONE)?;
        segment.file(FileKind::Log)?.sync()?;
        self.place.disk().sync_dir(&self.place.dir)?;
        // The oldest first, one after the other: a hole would end the log.
        for below in std::mem::replace(&mut self.segments, vec![segment]) {
            retired.add(&self.place, below, true)?;
            self.place.disk().sync_dir(&self.place.dir)?;
        }
        Ok(retired)
    }

    fn cut_tail(&mut self, offset: Offset) -> io::Result<Retired> {
        let floor = self.floor(offset);
        // The batch that goes as a whole may begin below the log's start: nothing is left then.
        if self.segments[floor].position_of(offset)?.1 < self.log_start {
            return self.restart(offset, Producers::default());
        }
        let mut retired = Retired::default();
        // The newest first: an interruption leaves a log that only ends earlier.
        reached("log-cut");
        sometimes("log-cut-across-segments", self.segments.len() > floor + 1);
        sometimes("durable-records-cut", offset < self.durable_end);
        while self.segments.len() > floor + 1 {
            if let Some(segment) = self.segments.pop() {
                retired.add(&self.place, segment, true)?;
            }
        }
        let (position, end) = self.active().position_of(offset)?;
        // What is claimed from now on is true wherever this is interrupted.
        self.log_end = end;
        self.durable_end = self.durable_end.min(end);
        self.recovery_point = self.recovery_point.min(end);
        if !is_planted("epochs-not-cut") {
            self.epochs_dirty |= self.epochs.truncate_end(end);
        }
        self.active_mut().cut(position)?;
        let (keep, drop): (Vec<_>, Vec<_>) = self.snapshots.iter().partition(|at| **at <= end);
        self.snapshots = keep;
        for at in drop {
            remove_if_there(&self.place, at, FileKind::Snapshot)?;
        }
        self.cleaned_until = self.cleaned_until.map(|cleaned| cleaned.min(end));
        self.generation.cuts += 1;
        self.renote_active()?;
        self.rebuild_producers()?;
        self.write_epochs()?;
        if !self.is_dirty() {
            self.durable_end = end;
        }
        Ok(retired)
    }

    /// Works out again what the active segment's memory says of its tail.
    fn renote_active(&mut self) -> io::Result<()> {
        let end = self.log_end;
        let config = self.config.clone();
        let active = self.active_mut();
        let file = active.file(FileKind::Log)?;
        let len = active.size;
        let start = active.begin_at_last_entry()?;
        let walk = Walk {
            file: &*file,
            base: active.base,
            position: u64::from(start),
            len: u64::from(len),
            expected: active.base,
            gaps_until: Offset(i64::MAX),
        };
        let walked = walk.run(|batch, _| {
            active.note_batch(&batch.header, batch.bytes.len() as u32, &config);
            Ok(())
        })?;
        if let Some(why) = walked.failure {
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        active.retain_aborted_below(end)?;
        active.store_indexes(true)?;
        // Entries of what was cut must not come back.
        active.file(FileKind::OffsetIndex)?.sync()?;
        active.file(FileKind::TimeIndex)?.sync()?;
        if active.aborted_count > 0 {
            active.file(FileKind::TxnIndex)?.sync()
        } else {
            Ok(())
        }
    }

    /// Producer state as of the log's end: the newest snapshot, and what was written since.
    fn rebuild_producers(&mut self) -> io::Result<()> {
        let mut from = self.segments[0].base;
        self.producers = Producers::default();
        for at in self.snapshots.iter().rev() {
            let bytes = read_file(
                &**self.place.disk(),
                &self.place.path(*at, FileKind::Snapshot),
                u64::MAX,
            )?;
            if let Some(producers) = bytes.as_deref().and_then(Producers::parse) {
                self.producers = producers;
                from = *at;
                break;
            }
        }
        let floor = self.floor(from);
        let mut producers = std::mem::take(&mut self.producers);
        for segment in &self.segments[floor..] {
            let file = segment.file(FileKind::Log)?;
            let (position, _) = segment.position_of(from)?;
            let (base, len) = (segment.base, u64::from(segment.size));
            let (position, gaps_until) = (u64::from(position), Offset(i64::MAX));
            let walk = Walk {
                file: &*file,
                base,
                position,
                len,
                expected: base,
                gaps_until,
            };
            let walked = walk.run(|batch, _| {
                if batch.header.base_offset() >= from {
                    producers.apply(&batch.header, control_marker(batch));
                }
                Ok(())
            })?;
            if let Some(why) = walked.failure {
                return Err(io::Error::new(io::ErrorKind::InvalidData, why));
            }
        }
        self.producers = producers;
        Ok(())
    }

    fn write_epochs(&mut self) -> io::Result<()> {
        let path = self.place.dir.join(epochs::FILE_NAME);
        replace_file(&**self.place.disk(), &path, self.epochs.render().as_bytes())?;
        self.epochs_dirty = false;
        // `replace_file` has synced the directory, which holds every name that was changed.
        self.synced_names = self.writes;
        Ok(())
    }

    /// Moves the log's start to `offset` (DeleteRecords, or a leader's start). The caller has made its
    /// `log-start-offset-checkpoint` durable before.
    ///
    /// # Errors
    /// `OutOfRange` beyond the log's end; the disk's.
    pub fn set_log_start(&mut self, offset: Offset) -> Result<Retired, ChangeError> {
        self.writable()?;
        if offset > self.log_end {
            return Err(ChangeError::OutOfRange {
                offset,
                log_start: self.log_start,
                log_end: self.log_end,
            });
        }
        if offset <= self.log_start {
            return Ok(Retired::default());
        }
        self.move_start(offset);
        let retired = self.retire_below_start()?;
        sometimes("segments-below-the-log-start", !retired.is_empty());
        self.check();
        Ok(retired)
    }

    fn move_start(&mut self, offset: Offset) {
        if offset > self.log_start {
            self.log_start = offset;
            self.epochs_dirty |= self.epochs.truncate_start(offset);
        }
    }

    /// Whole segments below the log's start.
    fn retire_below_start(&mut self) -> io::Result<Retired> {
        let start = self.log_start;
        let count = self
            .segments
            .windows(2)
            .take_while(|pair| pair[1].base <= start)
            .count();
        self.retire_first(count)
    }

    fn retire_first(&mut self, count: usize) -> io::Result<Retired> {
        let mut retired = Retired::default();
        if count > 0 && (self.names_changed > self.synced_names || !self.side_files.is_empty()) {
            // Producer state of what goes lives on in the snapshot at the new first segment.
            self.side_files.iter().try_for_each(|(_, file)| file.sync())?;
            self.place.disk().sync_dir(&self.place.dir)?;
        }
        if count > 0 && self.epochs_dirty {
            // Recovery knows the epochs of what goes by the file alone. Where there is no room for that, room comes first.
            match self.write_epochs() {
                Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                written => written?,
            }
        }
        for _ in 0..count {
            let segment = self.segments.remove(0);
            self.snapshots.retain(|at| *at != segment.base);
            retired.add(&self.place, segment, true)?;
            // One after the other: if a power cut brought back an older segment and not its successor, recovery would
            // see a hole in the log.
            self.place.disk().sync_dir(&self.place.dir)?;
        }
        self.recovery_point = self
            .recovery_point
            .max(self.segments[0].base.min(self.durable_end));
        Ok(retired)
    }

    /// Retires segments by `retention.ms`, `retention.bytes` and the log's start, oldest first, and only below the
    /// high watermark. Where all have expired a new segment is begun.
    ///
    /// The caller makes its `log-start-offset-checkpoint` durable before it removes the files.
    ///
    /// # Errors
    /// The disk's.
    pub fn apply_retention(&mut self, high_watermark: Offset, now: WallMs) -> Result<Retired, ChangeError> {
        self.writable()?;
        let mut retired = self.retire_below_start()?;
        if self.config.cleanup_policy.delete {
            let mut count = self.expired(high_watermark, now)?;
            if count == self.segments.len() {
                match self.roll(self.log_end, now) {
                    Ok(()) => {}
                    // Deletion makes the room that the new segment needs next time.
                    Err(AppendError::DiskFull) => count -= 1,
                    Err(error) => return Err(io::Error::other(error.to_string()).into()),
                }
            }
            sometimes("retention-removes-segments", count > 0);
            let more = self.retire_first(count)?;
            retired.files.extend(more.files);
            retired.bytes += more.bytes;
            retired.segments += more.segments;
            self.move_start(self.segments[0].base);
        }
        self.check();
        Ok(retired)
    }

    /// How many segments, from the oldest on, have expired.
    fn expired(&mut self, high_watermark: Offset, now: WallMs) -> io::Result<usize> {
        let (retention_ms, retention_bytes) = (self.config.retention_ms, self.config.retention_bytes);
        let mut surplus = retention_bytes.map_or(0, |limit| self.size_bytes().saturating_sub(limit));
        let log_end = self.log_end;
        for at in 0..self.segments.len() {
            let next = self.segments.get(at + 1).map(|next| next.base);
            let segment = &mut self.segments[at];
            if next.is_none() && segment.size == 0 || next.unwrap_or(log_end) > high_watermark {
                return Ok(at);
            }
            let too_old = match retention_ms {
                Some(limit) => now.get().saturating_sub(segment.time_for_retention(now)?.get()) > limit,
                None => false,
            };
            let too_much = u64::from(segment.size) <= surplus && surplus > 0;
            if !too_old && !too_much {
                return Ok(at);
            }
            if too_much {
                surplus -= u64::from(segment.size);
            }
        }
        Ok(self.segments.len())
    }
}

impl Segment {
    /// Where the first batch that ends at `offset` or later begins, and the log's end if it is cut there.
    pub(crate) fn position_of(&self, offset: Offset) -> io::Result<(u32, Offset)> {
        let (position, _, end) = self.place_of(offset)?;
        Ok((position, end))
    }

    /// Where the last batch ends. A cut within a hole has left the log's end behind it.
    pub(crate) fn last_batch_end(&self) -> io::Result<Offset> {
        Ok(self.place_of(Offset(i64::MAX))?.1)
    }

    /// As [`Self::position_of`], with where the batch before ends between the two.
    fn place_of(&self, offset: Offset) -> io::Result<(u32, Offset, Offset)> {
        let file = self.file(FileKind::Log)?;
        let (mut position, mut ended) = (0, self.base);
        let last = self
            .offsets
            .all(|| self.file(FileKind::OffsetIndex))?
            .into_iter()
            .rev()
            .find(|entry| entry.position < self.size && self.base.plus(i64::from(entry.relative)) < offset);
        if let Some(entry) = last {
            let header = self.header_at(entry.position)?;
            if header.is_some_and(|h| h.last_offset() == self.base.plus(i64::from(entry.relative))) {
                position = entry.position;
            }
        }
        let size = u64::from(self.size);
        while u64::from(position) < size {
            let odd = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
            let header = crate::segment::checked_header_at(&*file, u64::from(position), size)?
                .ok_or_else(|| odd(format!("segment {} ends within a head", self.base)))?;
            let batch_size =
                plausible_size(&header, self.base, self.base, size - u64::from(position)).map_err(odd)?;
            if header.last_offset() >= offset {
                return Ok((position, ended, header.base_offset().min(offset)));
            }
            position += batch_size as u32;
            ended = header.next_offset();
        }
        Ok((position, ended, offset))
    }

    /// Cuts the segment, and durably so.
    fn cut(&mut self, position: u32) -> io::Result<()> {
        let file = self.file(FileKind::Log)?;
        file.set_len(u64::from(position))?;
        file.sync()?;
        self.size = position;
        self.dirty = None;
        Ok(())
    }

    /// Prepares for `note_batch` from the last index entry within the segment on; gives its position.
    fn begin_at_last_entry(&mut self) -> io::Result<u32> {
        let offsets = self.offsets.all(|| self.file(FileKind::OffsetIndex))?;
        let times = self.times.all(|| self.file(FileKind::TimeIndex))?;
        let kept = offsets
            .iter()
            .take_while(|entry| entry.position < self.size)
            .count();
        let last = kept.checked_sub(1).map(|last| offsets[last]);
        let kept_times = last.map_or(0, |last| {
            times
                .iter()
                .take_while(|time| time.relative <= last.relative)
                .count()
        });
        self.offsets.truncate(kept as u32);
        self.times.truncate(kept_times as u32);
        self.file(FileKind::OffsetIndex)?
            .set_len(self.offsets.stored_bytes())?;
        self.file(FileKind::TimeIndex)?
            .set_len(self.times.stored_bytes())?;
        self.load_last_entries()?;
        self.largest = kept_times
            .checked_sub(1)
            .map(|at| crate::segment::LargestTimestamp {
                timestamp: times[at].timestamp,
                offset: self.base.plus(i64::from(times[at].relative)),
            });
        self.first_timestamp = None;
        self.bytes_since_index = 0;
        self.size = last.map_or(0, |last| last.position);
        Ok(self.size)
    }

    fn retain_aborted_below(&mut self, end: Offset) -> io::Result<()> {
        if self.aborted_count > 0 {
            self.aborted_count = self
                .aborted()?
                .iter()
                .take_while(|txn| txn.last_offset < end)
                .count() as u32;
            self.replace_aborted(&[])?;
        }
        Ok(())
    }

    /// What `retention.ms` counts from: the largest timestamp, or where records have none the time since when this
    /// process knows the segment.
    fn time_for_retention(&mut self, now: WallMs) -> io::Result<WallMs> {
        let largest = self.load_largest()?.map(|largest| largest.timestamp);
        if self.created < WallMs(0) {
            self.created = now;
        }
        Ok(largest
            .filter(|timestamp| *timestamp >= WallMs(0))
            .unwrap_or(self.created))
    }
}

fn remove_if_there(place: &Place, base: Offset, kind: FileKind) -> io::Result<()> {
    match place.disk().remove_file(&place.path(base, kind)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
