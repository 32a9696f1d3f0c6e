use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use skerry_env::disk::{DynDisk, File, replace_file};
use skerry_types::{Offset, is_planted, reached};

use super::{Generation, Log};
use crate::epochs;
use crate::errors::Poisoned;
use crate::segment::FileKind;

/// Makes durable what was appended before it: run it without the log's lock, then hand it to
/// [`Log::finish_flush`]. A sync of the whole file system does instead of `run`.
pub struct FlushJob {
    files: Vec<Arc<dyn File>>,
    names: Option<(DynDisk, PathBuf)>,
    end: Offset,
    write: u64,
    generation: Generation,
}

impl FlushJob {
    /// Syncs the files, and the names of new ones.
    ///
    /// # Errors
    /// The disk's; final for the log.
    pub fn run(&self) -> io::Result<()> {
        for file in &self.files {
            file.sync()?;
        }
        if let Some((disk, dir)) = &self.names {
            disk.sync_dir(dir)?;
        }
        Ok(())
    }

    /// Where the log ended when it began.
    #[must_use]
    pub fn end(&self) -> Offset {
        self.end
    }
}

/// Makes durable everything that recovery would otherwise work out again: data, indexes, epochs, producer state.
pub struct CheckpointJob {
    flush: FlushJob,
    disk: DynDisk,
    side_files: Vec<Arc<dyn File>>,
    epochs: Option<(PathBuf, String)>,
    snapshot: (PathBuf, Vec<u8>),
}

impl CheckpointJob {
    /// Syncs and writes, in an order that every crash may interrupt: the producer snapshot, by which recovery knows
    /// where to begin, comes last.
    ///
    /// # Errors
    /// The disk's; final for the log.
    pub fn run(&self) -> io::Result<()> {
        self.flush.run()?;
        for file in &self.side_files {
            file.sync()?;
        }
        if let Some((path, text)) = &self.epochs {
            replace_file(&*self.disk, path, text.as_bytes())?;
        }
        let (path, bytes) = &self.snapshot;
        replace_file(&*self.disk, path, bytes)
    }
}

impl Log {
    /// Begins to make durable what was appended so far; `None`: all of it is. Several may be under way.
    pub fn start_flush(&mut self) -> Option<FlushJob> {
        if self.poison.is_some() || !self.is_dirty() {
            return None;
        }
        if is_planted("durable-end-too-early") {
            self.durable_end = self.log_end;
        }
        Some(self.flush_job())
    }

    pub(super) fn is_dirty(&self) -> bool {
        self.names_changed > self.synced_names
            || !self.side_files.is_empty()
            || self.segments.iter().rev().any(|segment| segment.dirty.is_some())
    }

    fn flush_job(&self) -> FlushJob {
        let data = self.segments.iter().filter_map(|segment| segment.dirty.as_ref());
        let files = data
            .map(|dirty| dirty.file.clone())
            .chain(self.side_files.iter().map(|(_, file)| file.clone()))
            .collect();
        let names_changed = self.names_changed > self.synced_names && !is_planted("rename-without-dir-sync");
        let names = names_changed.then(|| (self.place.disk().clone(), self.place.dir.to_path_buf()));
        FlushJob {
            files,
            names,
            end: self.log_end,
            write: self.writes,
            generation: self.generation,
        }
    }

    /// Ends a flush; gives what is durable now.
    ///
    /// # Errors
    /// Where the sync failed: the log takes no more writes.
    pub fn finish_flush(&mut self, job: FlushJob, result: io::Result<()>) -> Result<Offset, Poisoned> {
        if job.generation.log != self.generation.log {
            return Ok(self.durable_end);
        }
        if let Err(error) = result {
            self.poison("a sync failed", &error);
        }
        self.writable()?;
        // What was cut away and written again since is not what the job made durable.
        if job.generation != self.generation {
            reached("log-cut-while-it-was-flushed");
            return Ok(self.durable_end);
        }
        for segment in &mut self.segments {
            if segment
                .dirty
                .as_ref()
                .is_some_and(|dirty| dirty.write <= job.write)
            {
                segment.dirty = None;
            }
        }
        self.side_files.retain(|(write, _)| *write > job.write);
        self.synced_names = self.synced_names.max(job.write);
        self.durable_end = self.durable_end.max(job.end.min(self.log_end));
        self.check_ends();
        Ok(self.durable_end)
    }

    /// Begins a checkpoint, which keeps the next recovery short; `None`: nothing is new since the last one, or index
    /// entries find no room now.
    pub fn start_checkpoint(&mut self) -> Option<CheckpointJob> {
        // A log that was never written to has no producers to remember.
        let remembered = self.log_end == Offset::ZERO || self.snapshots.contains(&self.log_end);
        let current = self.recovery_point == self.log_end && remembered;
        if self.poison.is_some() || current && !self.epochs_dirty && !self.is_dirty() {
            return None;
        }
        match self.checkpoint_job() {
            Ok(job) => Some(job),
            Err(error) => {
                tracing::warn!(partition = %self.identity, %error, "no checkpoint: an index cannot be written");
                None
            }
        }
    }

    fn checkpoint_job(&mut self) -> io::Result<CheckpointJob> {
        self.active_mut().store_indexes(true)?;
        let mut side_files = Vec::new();
        for kind in [FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TxnIndex] {
            if kind != FileKind::TxnIndex || self.active().aborted_count > 0 {
                side_files.push(self.active().file(kind)?);
            }
        }
        let epochs = (self.place.dir.join(epochs::FILE_NAME), self.epochs.render());
        Ok(CheckpointJob {
            flush: self.flush_job(),
            disk: self.place.disk().clone(),
            side_files,
            epochs: self.epochs_dirty.then_some(epochs),
            snapshot: (
                self.place.path(self.log_end, FileKind::Snapshot),
                self.producers.render(),
            ),
        })
    }

    /// Ends a checkpoint; gives the new recovery point. The shell may write that to its file, not before.
    ///
    /// # Errors
    /// Where a sync failed: the log takes no more writes.
    pub fn finish_checkpoint(
        &mut self,
        job: CheckpointJob,
        result: io::Result<()>,
    ) -> Result<Offset, Poisoned> {
        let CheckpointJob { flush, epochs, .. } = job;
        let (end, generation) = (flush.end, flush.generation);
        self.finish_flush(flush, result)?;
        if generation != self.generation || self.durable_end < end {
            return Ok(self.recovery_point);
        }
        if epochs.is_some_and(|(_, text)| text == self.epochs.render()) {
            self.epochs_dirty = false;
        }
        self.note_snapshot(end, self.recovery_point);
        self.recovery_point = self.recovery_point.max(end);
        Ok(self.recovery_point)
    }

    /// The newest snapshot is at `at`. Older ones that no segment begins with are of no use any more, but for the one
    /// at `previous`: the shell may not have written the new recovery point yet.
    fn note_snapshot(&mut self, at: Offset, previous: Offset) {
        let (disk, place, segments) = (self.place.disk().clone(), &self.place, &self.segments);
        self.snapshots.retain(|old| {
            let keep = *old >= previous.min(at)
                || segments.binary_search_by_key(old, |segment| segment.base).is_ok();
            if !keep && let Err(error) = disk.remove_file(&place.path(*old, FileKind::Snapshot)) {
                tracing::warn!(dir = %place.dir.display(), snapshot = %old, %error, "an old snapshot stays");
            }
            keep
        });
        if !self.snapshots.contains(&at) {
            self.snapshots.push(at);
            self.snapshots.sort_unstable();
        }
    }

    /// A clean shutdown: data, indexes, epochs and producer state are whole and durable.
    ///
    /// # Errors
    /// The disk's. The shutdown is unclean then.
    pub fn close(&mut self) -> io::Result<()> {
        let poisoned = |Poisoned(why): Poisoned| io::Error::other(why);
        self.writable().map_err(poisoned)?;
        let active = self.active_mut();
        let stored = active.offsets.stored_bytes() + active.times.stored_bytes();
        active.finish_indexes()?;
        let news = active.offsets.stored_bytes() + active.times.stored_bytes() > stored;
        let job = if news {
            Some(self.checkpoint_job()?)
        } else {
            self.start_checkpoint()
        };
        if let Some(job) = job {
            let result = job.run();
            let copy = result
                .as_ref()
                .copied()
                .map_err(|error| io::Error::from(error.kind()));
            self.finish_checkpoint(job, copy).map_err(poisoned)?;
            result?;
        }
        self.forget_files();
        self.check();
        Ok(())
    }

    /// Closes the files: an open one keeps its room on the disk after it was removed. Whoever reads keeps its own
    /// handle until it is done.
    pub fn forget_files(&mut self) {
        for segment in &mut self.segments {
            segment.forget_files();
        }
    }
}
