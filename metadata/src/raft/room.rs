//! Room on the disk. RocksDB does not go on after a disk that it finds full: after a failed write it takes no other one
//! until it is opened again. (A node was once seen to be ended by it there; that could not be repeated.) So nothing is
//! given to it while there is little room:
//! the raft waits in the middle of its write, as behind a device that stands still. Meanwhile it neither votes nor
//! confirms nor sends heartbeats; the others elect a leader after its lease; and it goes on by itself when there is room
//! again.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use skerry_env::disk::DynDisk;
use skerry_env::{Clock, Env};
use skerry_types::{is_planted, reached};
use tokio::sync::watch;

/// What must be free beside what is to be written: RocksDB writes a table of its buffer, and begins a new log, when it
/// wants to, a megabyte at the most together with what it has set aside before.
const ROOM_BYTES: u64 = 1 << 20;
/// How often to look whether there is room again.
const LOOK: Duration = Duration::from_millis(100);

/// The disk under the store. Cheap to clone; clones share what is told of it.
#[derive(Clone)]
pub(crate) struct Room {
    disk: DynDisk,
    dir: PathBuf,
    clock: Clock,
    stop: watch::Receiver<bool>,
    /// Bytes free while somebody waits for more, plus one; 0: nobody waits.
    lacking: Arc<AtomicU64>,
}

impl Room {
    /// The room around `dir`. Nobody waits for it once `stop` is true.
    pub(crate) fn new(env: &Env, dir: PathBuf, stop: watch::Receiver<bool>) -> Self {
        Self {
            disk: Arc::clone(&env.disk),
            dir,
            clock: env.clock.clone(),
            stop,
            lacking: Arc::default(),
        }
    }

    /// What is free, if that is too little for `bytes` more. A disk that cannot tell has room: the write will say.
    fn too_little(&self, bytes: u64) -> Option<u64> {
        let free = self.disk.space(&self.dir).ok()?.available_bytes;
        (free < ROOM_BYTES.saturating_add(bytes)).then_some(free)
    }

    /// Waits until `bytes` may be written.
    ///
    /// # Errors
    /// `StorageFull`, where this node stops before there is room.
    pub(crate) async fn wait(&self, bytes: u64) -> io::Result<()> {
        let Some(mut free) = self
            .too_little(bytes)
            .filter(|_| !is_planted("full-disk-keeps-office"))
        else {
            return Ok(());
        };
        tracing::warn!(
            free_bytes = free,
            "the metadata waits for room on its disk: this node takes no part in decisions until there is some"
        );
        let mut stop = self.stop.clone();
        loop {
            self.lacking.store(free.saturating_add(1), Ordering::Relaxed);
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Err(io::ErrorKind::StorageFull.into()),
                () = self.clock.sleep(LOOK) => {}
            }
            match self.too_little(bytes) {
                Some(now) => free = now,
                None => break,
            }
        }
        self.lacking.store(0, Ordering::Relaxed);
        reached("metadata-waited-for-room");
        tracing::info!("the disk has room again: the metadata goes on");
        Ok(())
    }

    /// The bytes that are free, while the raft waits for more.
    pub(crate) fn lacking(&self) -> Option<u64> {
        self.lacking.load(Ordering::Relaxed).checked_sub(1)
    }
}
