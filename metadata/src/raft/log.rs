//! The raft log for openraft: readable at once, promised when durable, one flush for all that wait.

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::Arc;

use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{OptionalSend, RaftLogReader};
use skerry_env::{TaskHandle, Tasks};
use skerry_types::{is_planted, reached};
use tokio::sync::{mpsc, oneshot};

use super::room::Room;
use super::store::Store;
use super::types::{Entry, LogId, TypeConfig, Vote};

/// The entries of one append stay below this: far below what a message may have, and little enough to be answered
/// within a heartbeat or two on a slow network. A single entry may be larger.
const APPEND_BYTES_MAX: usize = 1 << 20;

/// Someone who waits for a flush.
enum Waiter {
    /// openraft, for entries.
    Entries(IOFlushed<TypeConfig>),
    /// A caller of [`Flusher::sync`].
    Caller(oneshot::Sender<io::Result<()>>),
}

/// Makes the store durable. All who wait when a flush starts are covered by it; no timer adds latency.
#[derive(Clone)]
pub(crate) struct Flusher {
    /// Not bounded here: openraft has a bounded number of appends in flight.
    waiters: mpsc::UnboundedSender<Waiter>,
}

impl Flusher {
    /// The task ends when the last clone is gone.
    pub(crate) fn start(store: &Arc<Store>, tasks: &Tasks) -> (Self, TaskHandle) {
        let (waiters, queue) = mpsc::unbounded_channel();
        let task = tasks.spawn(
            "metadata-flush",
            flush_all(Arc::clone(store), tasks.clone(), queue),
        );
        (Self { waiters }, task)
    }

    /// Returns when everything written before the call is durable.
    pub(crate) async fn sync(&self) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        let stopped = || io::Error::new(io::ErrorKind::BrokenPipe, "the metadata store is closed");
        self.waiters.send(Waiter::Caller(sender)).map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())?
    }
}

async fn flush_all(store: Arc<Store>, tasks: Tasks, mut queue: mpsc::UnboundedReceiver<Waiter>) {
    let mut failure: Option<(io::ErrorKind, String)> = None;
    while let Some(first) = queue.recv().await {
        let mut waiters = vec![first];
        while let Ok(waiter) = queue.try_recv() {
            waiters.push(waiter);
        }
        // After a failed sync nothing is known of what is on disk: no retry, no promise.
        if failure.is_none() {
            let store = Arc::clone(&store);
            if let Err(error) = tasks.run_blocking(move || store.sync()).await {
                reached("metadata-log-not-durable");
                tracing::error!(%error, "the metadata log cannot be made durable");
                failure = Some((error.kind(), error.to_string()));
            }
        }
        for waiter in waiters {
            let result = failure
                .as_ref()
                .map_or(Ok(()), |(kind, text)| Err(io::Error::new(*kind, text.clone())));
            match waiter {
                Waiter::Entries(flushed) => flushed.io_completed(result),
                // The caller may be gone.
                Waiter::Caller(sender) => drop(sender.send(result)),
            }
        }
    }
}

/// openraft's view of the store.
#[derive(Clone)]
pub(crate) struct LogStore {
    store: Arc<Store>,
    flusher: Flusher,
    room: Room,
}

impl LogStore {
    pub(crate) fn new(store: Arc<Store>, flusher: Flusher, room: Room) -> Self {
        Self { store, flusher, room }
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        self.store.entries(range, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.store.entries(start..end, APPEND_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.store.vote()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let last_purged_log_id = self.store.purged()?;
        let last_log_id = self.store.last_entry()?.or(last_purged_log_id);
        Ok(LogState {
            last_purged_log_id,
            last_log_id,
        })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.room.wait(0).await?;
        self.store.put_vote(vote)?;
        if is_planted("raft-vote-not-synced") {
            return Ok(());
        }
        self.flusher.sync().await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.room.wait(0).await?;
        self.store.put_committed(committed.as_ref())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.store.committed()
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.room.wait(0).await?;
        self.store.append(entries)?;
        if is_planted("raft-entry-acked-before-sync") {
            callback.io_completed(Ok(()));
            return Ok(());
        }
        self.flusher
            .waiters
            .send(Waiter::Entries(callback))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the metadata store is closed"))
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> Result<(), io::Error> {
        reached("metadata-log-cut");
        self.room.wait(0).await?;
        self.store
            .truncate_from(last_log_id.map_or(0, |last| last.index + 1))
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), io::Error> {
        reached("metadata-log-purged");
        self.room.wait(0).await?;
        self.store.purge(&log_id)
    }
}
