//! Changing the disk to what the walk found.

use std::io;

use skerry_env::disk::{OpenMode, read_file, replace_file};
use skerry_types::{Offset, reached, sometimes};

use super::super::{Log, make_durable_dir};
use super::tail::Walked;
use super::{Opening, RecoveryReport, SNAPSHOT_BYTES_MAX, TailCut};
use crate::errors::OpenError;
use crate::producers::Producers;
use crate::segment::{FileKind, Place, Segment, file_name};
use crate::walk::has_batch_beyond;

impl Opening {
    /// Changes the disk to what was found, and makes a log of it.
    pub(super) fn adopt(
        mut self,
        walked: Walked,
        recovered: bool,
    ) -> Result<(Log, RecoveryReport), OpenError> {
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
    pub(super) fn restart_at(mut self, log_start: Offset) -> Result<(Log, RecoveryReport), OpenError> {
        reached("log-start-beyond-what-was-left");
        let producers = self.producers_at(log_start).map_err(|error| self.io(error))?;
        for mut segment in std::mem::take(&mut self.segments) {
            segment.forget_files();
            remove_but_the_snapshot(&self.place, segment.base).map_err(|error| self.io(error))?;
        }
        let segment =
            make_durable_dir(&self.place, &self.identity, log_start).map_err(|error| self.io(error))?;
        let mut log = Log::assemble(
            self.place.clone(),
            self.identity,
            self.config,
            vec![segment],
            log_start,
        );
        log.epochs_dirty = true;
        log.producers = producers;
        log.snapshots = self.snapshots;
        Ok((log, self.report))
    }

    /// What a snapshot says of the producers below `log_start`, where an empty log begins; the others go, for they might speak of
    /// another log once this one has grown.
    pub(super) fn producers_at(&mut self, log_start: Offset) -> io::Result<Producers> {
        let told = Producers::parse(&self.read_snapshot(log_start)?);
        for at in std::mem::take(&mut self.snapshots) {
            if at == log_start && told.is_some() {
                self.snapshots.push(at);
            } else {
                remove_if_there(&self.place, at, FileKind::Snapshot)?;
            }
        }
        Ok(told.unwrap_or_default().below(log_start))
    }

    /// Cuts the tail behind the last good batch, later segments with it. Whole batches among it are kept beside the
    /// log as evidence: they were never acknowledged as durable, but somebody may want to know.
    pub(super) fn cut(&mut self, walked: &Walked) -> io::Result<()> {
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
            reached("segment-behind-the-tear");
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
            // Snapshots that nobody can trust go when that is known.
            remove_but_the_snapshot(&self.place, segment.base)?;
        }
        if let Some(why) = &walked.failure {
            reached("torn-tail-cut");
            sometimes("whole-batches-behind-the-tear", !evidence.is_empty());
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
    pub(super) fn write_indexes(&mut self, recovered: bool) -> io::Result<()> {
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
                make_durable(&self.place, &self.place.path(at, FileKind::Snapshot), &bytes)?;
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
    pub(super) fn drop_snapshots(&mut self, end: Offset, recovered: bool) {
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

fn remove_but_the_snapshot(place: &Place, base: Offset) -> io::Result<()> {
    let mut kinds = FileKind::ALL.into_iter();
    kinds.try_for_each(|kind| match kind {
        FileKind::Snapshot => Ok(()),
        kind => remove_if_there(place, base, kind),
    })
}

/// A file that may be there already: then it need only be synced, and is not risked by writing it anew.
pub(super) fn make_durable(place: &Place, path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
    let disk = &**place.disk();
    match read_file(disk, path, SNAPSHOT_BYTES_MAX) {
        Ok(Some(found)) if found == bytes => disk.open(path, OpenMode::ReadWrite)?.sync(),
        _ => replace_file(disk, path, bytes),
    }
}

pub(super) fn remove_if_there(place: &Place, base: Offset, kind: FileKind) -> io::Result<()> {
    match place.disk().remove_file(&place.path(base, kind)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

pub(super) fn copy_tail(
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
