use std::io;
use std::sync::Arc;

use bytes::Bytes;
use skerry_env::disk::OpenMode;
use skerry_types::{LeaderEpoch, Offset, WallMs, buggify, is_planted, reached};

use super::{Log, gaps_until};
use crate::batch::{Batch, BatchHeader, Batches, HEADER_BYTES, MarkerType, control_marker};
use crate::errors::AppendError;
use crate::index::AbortedTxn;
use crate::segment::{FileKind, SEGMENT_BYTES_MAX, Segment};
use crate::validate::ValidBatch;
use crate::walk::plausible_size;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is in the log, not yet durable.
    New {
        /// The first record's offset.
        base: Offset,
        /// The last record's.
        last: Offset,
        /// The broker's timestamp; -1 where records keep their own.
        log_append_time: WallMs,
        /// The largest timestamp.
        max_timestamp: WallMs,
    },
    /// It was in the log already (KIP-98), perhaps not yet durable.
    Duplicate {
        /// The first record's offset then.
        base: Offset,
        /// The last record's.
        last: Offset,
        /// The timestamp that Kafka answers with.
        log_append_time: WallMs,
    },
}

impl Log {
    /// Places a batch at the log's end in `epoch`, unless it is there already.
    ///
    /// # Errors
    /// Where the producer's sequence or epoch does not fit, the disk is full, or the log is poisoned.
    pub fn append_as_leader(
        &mut self,
        batch: ValidBatch,
        epoch: LeaderEpoch,
        now: WallMs,
    ) -> Result<Appended, AppendError> {
        self.writable()?;
        let header = batch.header();
        if let Some(current) = self.epochs.latest()
            && epoch < current
        {
            return Err(AppendError::StaleLeaderEpoch {
                found: epoch,
                current,
            });
        }
        let marker = if header.is_control() {
            marker_of(&batch)
        } else {
            None
        };
        if header.has_producer_id() {
            if let Some((_, coordinator_epoch)) = marker {
                self.producers.judge_marker(header, coordinator_epoch)?;
            } else if !header.is_control()
                && let Some(known) = self.producers.judge(header)?
            {
                return Ok(Appended::Duplicate {
                    base: known.first_offset(),
                    last: known.last_offset,
                    log_append_time: known.timestamp,
                });
            }
        }
        let placed = header.placed(self.log_end, epoch);
        self.write_batch(&placed, batch.records(), marker, now)?;
        self.check_ends();
        let log_append_time = if placed.is_log_append_time() {
            placed.max_timestamp()
        } else {
            WallMs::NONE
        };
        Ok(Appended::New {
            base: placed.base_offset(),
            last: placed.last_offset(),
            log_append_time,
            max_timestamp: placed.max_timestamp(),
        })
    }

    /// Lets an empty log go on at another offset. DeleteRecords sets a leader's start anywhere, and a follower that begins
    /// there gets the whole of the batch around it: the batch's place in the log is where it begins.
    fn go_back_to(&mut self, offset: Offset) -> Result<(), AppendError> {
        let kept = self.log_start.max(offset);
        let producers = self.producers.below(offset);
        let emptied = self.restart(offset, producers);
        if let Err(error) = &emptied {
            // Its end has not moved for those who know it.
            (self.log_start, self.log_end, self.durable_end) = (kept, kept, kept);
            self.poison("beginning at another offset failed", error);
        }
        self.writable()?;
        // What is left of an empty log is removed by the next start where it cannot be removed now.
        let disk = self.place.disk().clone();
        let _ = emptied.map(|retired| retired.remove(&*disk));
        Ok(())
    }

    /// Appends batches with the offsets and epochs that their leader gave them. Gives the log's new end.
    ///
    /// Whole batches only; each is checked against its sum, as it comes from a network.
    ///
    /// # Errors
    /// Where a batch is damaged or does not continue the log, the disk is full, or the log is poisoned. The batches
    /// before it are appended.
    pub fn append_as_follower(&mut self, batches: Bytes, now: WallMs) -> Result<Offset, AppendError> {
        self.writable()?;
        let mut batches = Batches::new(batches);
        for batch in batches.by_ref() {
            let header = batch.header;
            let before_end = header.base_offset() < self.log_end;
            if before_end && self.size_bytes() > 0 {
                return Err(self.unexpected(&header));
            }
            plausible_size(
                &header,
                header.base_offset(),
                self.log_end.min(header.base_offset()),
                batch.bytes.len() as u64,
            )
            .map_err(AppendError::Corrupt)?;
            let around_start = before_end
                && header.last_offset() >= self.log_end
                && !is_planted("follower-begins-between-batches");
            if before_end && !around_start {
                return Err(self.unexpected(&header));
            }
            if !batch.crc_is_good() && !is_planted("follower-crc-not-checked") {
                return Err(AppendError::Corrupt(format!(
                    "the checksum of {header:?} does not fit its bytes"
                )));
            }
            if let Some(current) = self.epochs.latest()
                && header.leader_epoch() < current
            {
                return Err(AppendError::StaleLeaderEpoch {
                    found: header.leader_epoch(),
                    current,
                });
            }
            if header.base_offset() > self.log_end {
                // The leader has compacted this part. Recovery must not take the gap for damage; and what this log has before
                // it is as dirty as it was.
                reached("hole-copied");
                self.cleaned_until.get_or_insert(self.log_start);
            }
            let marker = control_marker(&batch);
            let start = self.log_start;
            if around_start {
                self.go_back_to(header.base_offset())?;
            }
            let written = self.write_batch(&header, &batch.bytes.slice(HEADER_BYTES..), marker, now);
            if around_start {
                match &written {
                    Ok(_) => self.log_start = start,
                    Err(_) => self.go_back_to(start)?,
                }
            }
            written?;
            self.check_ends();
        }
        if !batches.rest().is_empty() {
            return Err(AppendError::Corrupt(format!(
                "{} bytes are no whole batch",
                batches.rest().len()
            )));
        }
        Ok(self.log_end)
    }

    fn unexpected(&self, header: &BatchHeader) -> AppendError {
        AppendError::UnexpectedOffset {
            found: header.base_offset(),
            expected: self.log_end,
        }
    }

    fn write_batch(
        &mut self,
        placed: &BatchHeader,
        records: &[u8],
        marker: Option<(MarkerType, i32)>,
        now: WallMs,
    ) -> Result<(), AppendError> {
        let size = (HEADER_BYTES + records.len()) as u64;
        if size > u64::from(self.config.segment_bytes) {
            return Err(AppendError::LargerThanSegment {
                size_bytes: size,
                segment_bytes: self.config.segment_bytes,
            });
        }
        if self.must_roll(size, placed, now)? {
            // Where the last one ends, also where the leader's log has a hole before this batch: see `boundary_fault`.
            let reach = placed.last_offset().get() - self.log_end.get();
            let base = if reach > i64::from(i32::MAX) {
                placed.base_offset()
            } else {
                self.log_end
            };
            self.roll(base, now)?;
        }
        if self.active().created < WallMs(0) {
            self.active_mut().created = now;
        }
        self.writes += 1;
        let write = self.writes;
        if let Err(error) = self.active_mut().write(placed, records, write) {
            return Err(self.write_failed("a write failed", error));
        }
        self.note_written(placed, size as u32, marker)
    }

    /// The bytes are in the file: everything that is derived from them follows.
    fn note_written(
        &mut self,
        placed: &BatchHeader,
        size: u32,
        marker: Option<(MarkerType, i32)>,
    ) -> Result<(), AppendError> {
        let active = self.segments.last_mut().expect("a log always has a segment");
        active.note_batch(placed, size, &self.config);
        // What the leader has compacted away before the batch may have been of its epoch: nobody may take for agreed upon what
        // it has there of an older one. A batch around the log's start begins before its end.
        let begins = self.log_end.min(placed.base_offset());
        self.log_end = placed.next_offset();
        if self.epochs.assign(placed.leader_epoch(), begins) {
            self.epochs_dirty = true;
        }
        let mut derived = self.active_mut().store_indexes(false);
        if placed.has_producer_id()
            && let Some(ended) = self.producers.apply(placed, marker)
        {
            let known = Offset(
                self.known_high_watermark
                    .load(std::sync::atomic::Ordering::Relaxed),
            );
            self.producers.forget_ended(known);
            if ended.aborted {
                derived = derived.and(self.note_aborted(&AbortedTxn {
                    producer_id: ended.producer_id,
                    first_offset: ended.first_offset,
                    last_offset: ended.last_offset,
                    last_stable_offset: ended.last_stable_offset,
                }));
            }
        }
        match derived {
            Ok(()) => Ok(()),
            // The batch is in; index entries wait in memory for room. An aborted transaction that is not in its
            // index would be read as committed: that is final.
            Err(error) if is_full(&error) && marker.is_none() => Ok(()),
            Err(error) => {
                self.poison("an index could not be written", &error);
                Err(AppendError::Poisoned(self.poison.clone().unwrap_or_default()))
            }
        }
    }

    /// The next flush covers the entry as well: recovery makes anew only what lies above the recovery point.
    fn note_aborted(&mut self, txn: &AbortedTxn) -> io::Result<()> {
        self.active_mut().append_aborted(txn)?;
        let file = self.active().file(FileKind::TxnIndex)?;
        self.side_files.retain(|(_, other)| !Arc::ptr_eq(other, &file));
        self.side_files.push((self.writes, file));
        if self.active().aborted_count == 1 {
            self.names_changed = self.writes;
        }
        Ok(())
    }

    /// Kafka's `LogSegment.shouldRoll`.
    fn must_roll(&mut self, size: u64, placed: &BatchHeader, now: WallMs) -> Result<bool, AppendError> {
        if self.active().size == 0 {
            return Ok(!self.active().can_hold(placed.last_offset()));
        }
        let limit = u64::from(self.config.segment_bytes).min(SEGMENT_BYTES_MAX);
        Ok(u64::from(self.active().size) + size > limit
            || self.waited_too_long(placed.max_timestamp(), now)?
            || self.active().index_is_full(&self.config)
            || buggify("segment-full-at-once", 4)
            || !self.active().can_hold(placed.last_offset()))
    }

    /// `segment.ms` is over, by the timestamps of the records where they have any.
    fn waited_too_long(&mut self, timestamp: WallMs, now: WallMs) -> Result<bool, AppendError> {
        let limit = self.config.segment_ms.saturating_sub(self.jitter_ms());
        let first = match self.active_mut().load_first_timestamp() {
            Ok(first) => first,
            Err(error) => {
                self.poison("the active segment cannot be read", &error);
                return Err(AppendError::Poisoned(self.poison.clone().unwrap_or_default()));
            }
        };
        let waited = match first {
            Some(first) if first >= WallMs(0) => timestamp.get().saturating_sub(first.get()),
            _ if self.active().created >= WallMs(0) => now.get().saturating_sub(self.active().created.get()),
            _ => 0,
        };
        Ok(waited > limit)
    }

    /// Each segment has its own share of `segment.jitter.ms`, the same on every replica.
    fn jitter_ms(&self) -> i64 {
        match self.config.segment_jitter_ms.min(self.config.segment_ms) {
            jitter if jitter <= 0 => 0,
            jitter => {
                let mut seed = crc32c::crc32c(self.identity.topic.as_bytes());
                seed = crc32c::crc32c_append(seed, &self.identity.partition.get().to_be_bytes());
                seed = crc32c::crc32c_append(seed, &self.active().base.get().to_be_bytes());
                i64::from(seed) % jitter
            }
        }
    }

    /// Closes the active segment where `segment.ms` is over: without appends it would stay open for ever, and neither
    /// retention nor compaction could touch it.
    ///
    /// # Errors
    /// Where the disk is full, or the log is poisoned.
    pub fn roll_if_due(&mut self, now: WallMs) -> Result<bool, AppendError> {
        self.writable()?;
        if self.active().size == 0 || !self.waited_too_long(now, now)? {
            return Ok(false);
        }
        self.roll(self.log_end, now)?;
        Ok(true)
    }

    /// Starts a new segment at `base`; where the log ends behind a hole, at the end of the last batch.
    pub(super) fn roll(&mut self, mut base: Offset, now: WallMs) -> Result<(), AppendError> {
        if self.active().size == 0 {
            return self.replace_empty_active(base, now);
        }
        if base == self.log_end && gaps_until(&self.config, self.cleaned_until) >= base {
            // What cannot be read there is no reason to stop.
            base = self.active().last_batch_end().unwrap_or(base);
        }
        let end = base.min(self.log_end);
        let sealed = self.seal_active().and_then(|()| self.write_roll_snapshot(end));
        if let Err(error) = sealed {
            reached("disk-fails-at-a-roll");
            return Err(self.side_write_failed("a segment could not be closed", error));
        }
        match Segment::create(&self.place, base, now) {
            Ok(segment) => {
                reached("segment-rolled");
                self.active_mut().release_indexes();
                self.segments.push(segment);
                self.names_changed();
                Ok(())
            }
            Err(error) => {
                reached("disk-fails-at-a-roll");
                Err(self.side_write_failed("a segment could not be made", error))
            }
        }
    }

    /// A follower whose next batch lies beyond what an empty segment's relative offsets reach.
    fn replace_empty_active(&mut self, base: Offset, now: WallMs) -> Result<(), AppendError> {
        let segment = match Segment::create(&self.place, base, now) {
            Ok(segment) => segment,
            Err(error) => return Err(self.side_write_failed("a segment could not be made", error)),
        };
        let mut empty = self.segments.pop().expect("a log always has a segment");
        empty.forget_files();
        for kind in FileKind::ALL {
            let removed = self.place.disk().remove_file(&self.place.path(empty.base, kind));
            if let Err(error) = removed
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(partition = %self.identity, base = %empty.base, %error, "an empty segment stays");
            }
        }
        self.segments.push(segment);
        self.names_changed();
        Ok(())
    }

    fn seal_active(&mut self) -> io::Result<()> {
        // A flush that has begun does not cover what follows.
        self.writes += 1;
        let compact = self.config.cleanup_policy.compact;
        let active = self.segments.last_mut().expect("a log always has a segment");
        active.finish_indexes()?;
        // Between cleaned segments offsets are missing, and recovery could not tell that from a lost tail.
        if compact && let Some(dirty) = &active.dirty {
            dirty.file.sync()?;
        }
        let mut kinds = vec![FileKind::OffsetIndex, FileKind::TimeIndex];
        if active.aborted_count > 0 {
            kinds.push(FileKind::TxnIndex);
        }
        for kind in kinds {
            let file = self.active().file(kind)?;
            self.side_files.push((self.writes, file));
        }
        Ok(())
    }

    fn write_roll_snapshot(&mut self, end: Offset) -> io::Result<()> {
        let path = self.place.path(end, FileKind::Snapshot);
        let file = self.place.disk().open(&path, OpenMode::Create)?;
        file.set_len(0)?;
        file.write_at(&[io::IoSlice::new(&self.producers.render())], 0)?;
        self.side_files.push((self.writes, file));
        if let Err(place) = self.snapshots.binary_search(&end) {
            self.snapshots.insert(place, end);
        }
        Ok(())
    }

    /// Something beside the data could not be written: without room this can be tried again.
    fn side_write_failed(&mut self, what: &str, error: io::Error) -> AppendError {
        if is_full(&error) {
            return AppendError::DiskFull;
        }
        self.poison(what, &error);
        AppendError::Poisoned(self.poison.clone().unwrap_or_default())
    }

    /// A write to the log failed. Without room, the file is cut back to where it ended; all else is final.
    fn write_failed(&mut self, what: &str, error: io::Error) -> AppendError {
        if is_full(&error) {
            reached("disk-full-at-a-write");
            let end = u64::from(self.active().size);
            let cut = self.active().file(FileKind::Log);
            match cut.and_then(|file| file.set_len(end).map(|()| file)) {
                Ok(_) if is_planted("full-disk-cut-not-synced") => return AppendError::DiskFull,
                Ok(file) => {
                    // The cut must be durable before anything behind it is. Otherwise, after a roll, a power cut that
                    // brings the bytes back makes a torn tail in front of segments that were acknowledged.
                    self.side_files.retain(|(_, other)| !Arc::ptr_eq(other, &file));
                    self.side_files.push((self.writes, file));
                    return AppendError::DiskFull;
                }
                Err(error) => self.poison("a write without room could not be taken back", &error),
            }
        } else {
            self.poison(what, &error);
        }
        AppendError::Poisoned(self.poison.clone().unwrap_or_default())
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn marker_of(batch: &ValidBatch) -> Option<(MarkerType, i32)> {
    let bytes = batch.to_bytes(Offset::ZERO, LeaderEpoch(0));
    control_marker(&Batch {
        header: *batch.header(),
        bytes,
    })
}
