//! An open file of the simulated disk.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use skerry_env::disk::File;

use super::inode::InodeId;
use super::trouble::holds_records;
use super::{EIO, OpKind, SimDisk, State};

pub(super) struct SimFile {
    pub(super) generation: u64,
    pub(super) id: InodeId,
    /// Where it was opened: for the trace.
    pub(super) path: PathBuf,
    pub(super) disk: SimDisk,
    pub(super) _handle: Arc<()>,
}

impl SimFile {
    fn with<T>(&self, run: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        state.enter(self.generation, None)?;
        run(&mut state)
    }

    fn traced<T>(
        &self,
        kind: OpKind,
        what: &str,
        (a, b): (u64, u64),
        run: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.disk.0.lock();
        state.enter(self.generation, Some(kind))?;
        let name = format!("disk {what} {}", self.path.display());
        state.trace.detail(&state.host, &name, a, b);
        run(&mut state)
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.with(|state| {
            let trouble = state.config.trouble;
            let file = state.file_mut(self.id)?;
            let start = usize::try_from(position)
                .unwrap_or(usize::MAX)
                .min(file.live.len());
            let read = buf.len().min(file.live.len() - start);
            buf[..read].copy_from_slice(&file.live[start..start + read]);
            let one_in = trouble.read_flips_one_in;
            let whole = (one_in > 0).then(|| file.live.to_vec());
            let flips = whole.as_deref().map(|whole| (one_in, whole));
            state
                .troubles
                .before_read(self.id, &(start..start + read), trouble)?;
            if holds_records(&self.path) {
                let flipped = state.troubles.after_read(self.id, &mut buf[..read], start, flips);
                if let Some(at) = flipped {
                    let place =
                        format_args!("disk: a read of {} returns byte {at} wrong", self.path.display());
                    state.trace.event(&state.host, place);
                }
            }
            Ok(read)
        })
    }

    fn read_cached_at(&self, buf: &mut [u8], position: u64) -> io::Result<Option<usize>> {
        let cold = self.with(|state| {
            let one_in = state.config.cold_read_one_in;
            Ok(one_in != 0 && state.rng.chance(1, one_in))
        })?;
        if cold {
            Ok(None)
        } else {
            self.read_at(buf, position).map(Some)
        }
    }

    fn write_at(&self, bufs: &[io::IoSlice<'_>], position: u64) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(bufs.iter().map(|buf| buf.len()).sum());
        for buf in bufs {
            bytes.extend_from_slice(buf);
        }
        let mut state = self.disk.0.lock();
        if let Err(error) = state.enter(self.generation, Some(OpKind::Write)) {
            if state.died && state.generation == self.generation {
                // It died in this write: a part of it is in the cache.
                let part = usize::try_from(state.rng.below(bytes.len() as u64 + 1)).unwrap_or(0);
                if part > 0 {
                    let _ = state.write(self.id, bytes[..part].to_vec(), position);
                }
            }
            return Err(error);
        }
        let name = format!("disk write {}", self.path.display());
        state
            .trace
            .detail(&state.host, &name, position, crate::trace::fnv_of(&bytes));
        let trouble = state.config.trouble;
        if state.troubles.a_write_fails(trouble) {
            let part = usize::try_from(state.troubles.rng.below(bytes.len() as u64 + 1)).unwrap_or(0);
            let _ = state.write(self.id, bytes[..part].to_vec(), position);
            state
                .trace
                .event(&state.host, format_args!("disk: a write fails (EIO)"));
            return Err(io::Error::from_raw_os_error(EIO));
        }
        state.write(self.id, bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.traced(OpKind::Sync, "sync", (0, 0), |state| state.sync_file(self.id))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.traced(OpKind::Write, "set-len", (len, 0), |state| {
            let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
            let old = state.file_mut(self.id)?.live.len();
            let grows = len.saturating_sub(old) as u64;
            if grows > state.capacity_bytes.saturating_sub(state.used_bytes) {
                state.full_refusals += 1;
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.used_bytes = state.used_bytes + grows - old.saturating_sub(len) as u64;
            state.file_mut(self.id)?.set_len(len);
            state.troubles.on_cut(self.id, len);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state| Ok(state.file_mut(self.id)?.live.len() as u64))
    }
}
