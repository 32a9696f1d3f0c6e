//! A snapshot in pieces: written, sent and received one piece at a time, whatever its size.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use skerry_env::Tasks;

use super::log::Flusher;
use super::room::Room;
use super::store::{Pieces, Store};
use super::types::{Snapshot, SnapshotMeta};

/// What one piece has, the last one aside. A peer that receives or sends a snapshot needs memory for a few of them.
pub(super) const PIECE_BYTES: usize = 256 << 10;

/// A snapshot's bytes in the store. Cheap to clone. Pieces that nothing refers to are deleted with the last clone, so
/// that a snapshot may be replaced while it is being sent.
#[derive(Clone, Debug)]
pub(crate) struct Stored(Arc<Guard>);

struct Guard {
    store: Arc<Store>,
    pieces: Pieces,
    /// It is the store's current snapshot.
    current: AtomicBool,
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pieces.fmt(f)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.current.load(Ordering::Relaxed) {
            return;
        }
        // What stays behind goes with the next start.
        if let Err(error) = self.store.delete_pieces(self.pieces.generation) {
            tracing::warn!(%error, "an old metadata snapshot stays in the store");
        }
    }
}

impl Stored {
    pub(super) fn bytes(&self) -> u64 {
        self.0.pieces.bytes
    }

    pub(super) fn pieces(&self) -> u32 {
        self.0.pieces.count
    }

    /// Reads one piece. May block on the disk.
    pub(super) fn piece(&self, piece: u32) -> io::Result<Bytes> {
        self.0.store.piece(self.0.pieces.generation, piece)
    }

    /// Reads all of it. May block on the disk.
    pub(super) fn read(&self) -> io::Result<Bytes> {
        let wanted = self.bytes();
        let mut data = BytesMut::with_capacity(usize::try_from(wanted).unwrap_or(0));
        for piece in 0..self.pieces() {
            data.extend_from_slice(&self.piece(piece)?);
        }
        if data.len() as u64 != wanted {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a metadata snapshot of {} bytes, not {wanted}", data.len()),
            ));
        }
        Ok(data.freeze())
    }
}

/// Takes a snapshot's bytes and puts them into the store. Dropped before the end, it leaves nothing.
pub(super) struct Writer(Guard);

impl Writer {
    /// May block on the disk.
    pub(super) fn push(&mut self, data: &[u8]) -> io::Result<()> {
        let pieces = &mut self.0.pieces;
        self.0.store.put_piece(pieces.generation, pieces.count, data)?;
        pieces.count += 1;
        pieces.bytes += data.len() as u64;
        Ok(())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.pieces.bytes
    }

    pub(super) fn finish(self) -> Stored {
        Stored(Arc::new(self.0))
    }
}

/// The current snapshot. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct Snapshots {
    store: Arc<Store>,
    flusher: Flusher,
    tasks: Tasks,
    room: Room,
    current: Arc<Mutex<Option<Snapshot>>>,
}

impl Snapshots {
    /// Reads what the store says.
    pub(super) fn load(store: Arc<Store>, flusher: Flusher, tasks: Tasks, room: Room) -> io::Result<Self> {
        let current = store.snapshot()?.map(|(meta, pieces)| Snapshot {
            meta,
            snapshot: Stored(Arc::new(Guard {
                store: Arc::clone(&store),
                pieces,
                current: AtomicBool::new(true),
            })),
        });
        Ok(Self {
            store,
            flusher,
            tasks,
            room,
            current: Arc::new(Mutex::new(current)),
        })
    }

    pub(super) fn current(&self) -> Option<Snapshot> {
        self.current.lock().clone()
    }

    /// Takes a snapshot of `bytes` bytes, as soon as there is room for it.
    pub(super) async fn writer(&self, bytes: u64) -> io::Result<Writer> {
        self.room.wait(bytes).await?;
        Ok(Writer(Guard {
            store: Arc::clone(&self.store),
            pieces: Pieces {
                generation: self.store.new_generation(),
                count: 0,
                bytes: 0,
            },
            current: AtomicBool::new(false),
        }))
    }

    /// Runs `work`, which reads or writes pieces, where it may block.
    pub(super) async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        self.tasks.run_blocking(work).await
    }

    /// Cuts `data` into pieces.
    pub(super) async fn write(&self, data: Bytes) -> io::Result<Stored> {
        let mut writer = self.writer(data.len() as u64).await?;
        self.tasks
            .run_blocking(move || {
                for piece in data.chunks(PIECE_BYTES) {
                    writer.push(piece)?;
                }
                Ok(writer.finish())
            })
            .await
    }

    /// Makes `stored` the current snapshot, unless a newer one is. Durable on return.
    pub(super) async fn adopt(&self, meta: SnapshotMeta, stored: Stored) -> io::Result<()> {
        self.room.wait(0).await?;
        let replaced = {
            let mut current = self.current.lock();
            // One that was built for long may end after a newer one came from the leader: the log up to that one is
            // gone.
            if current
                .as_ref()
                .is_some_and(|current| current.meta.last_log_id > meta.last_log_id)
            {
                return Ok(());
            }
            self.store.put_snapshot(&meta, stored.0.pieces)?;
            stored.0.current.store(true, Ordering::Relaxed);
            current.replace(Snapshot {
                meta,
                snapshot: stored,
            })
        };
        self.flusher.sync().await?;
        if let Some(replaced) = replaced {
            replaced.snapshot.0.current.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}
