//! Group commit: makes what partitions have appended durable.
//!
//! Everything that waits when a flush of its partition starts is covered by it; no timer adds latency. A few workers
//! take one partition each. When many wait at once, one worker takes them all and syncs the whole file system in one
//! go: a thousand small partitions cost about as much as one, instead of a sync each in series.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_env::{Env, TaskHandle};
use skerry_log::FlushJob;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::partition::{AfterFlush, Partition};

/// Flushes that run at a time.
const WORKERS: usize = 4;
/// From this many waiting partitions on, one sync of the file system replaces theirs. A sync of one file costs about
/// 0.3 ms; one of the file system about as much as ten of them.
const TOGETHER_MIN: usize = 16;
/// The longest wait for batches that are expected (gather.rs). They come within a round trip or not at all.
const GATHER_MAX: Duration = Duration::from_millis(1);
/// A longer wait than this, and than a flush, costs more than it saves.
const GATHER_WORTH: Duration = Duration::from_millis(1);

/// Partitions that wait for a flush; each is in it at most once.
#[derive(Default)]
pub struct FlushQueue {
    waiting: Mutex<VecDeque<Arc<Partition>>>,
    more: Notify,
}

impl FlushQueue {
    /// Adds a partition that is not in the queue.
    pub fn push(&self, partition: Arc<Partition>) {
        self.waiting.lock().push_back(partition);
        self.more.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.waiting.lock().is_empty()
    }

    /// One partition, or all of them where they are many.
    fn take(&self) -> Vec<Arc<Partition>> {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= TOGETHER_MIN {
            waiting.drain(..).collect()
        } else {
            waiting.pop_front().into_iter().collect()
        }
    }
}

/// Starts the workers.
pub fn start(
    env: &Env,
    queue: &Arc<FlushQueue>,
    log_dir: &Arc<PathBuf>,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> Vec<TaskHandle> {
    (0..WORKERS)
        .map(|_| {
            let worker = Worker {
                env: env.clone(),
                queue: queue.clone(),
                log_dir: log_dir.clone(),
                metrics: metrics.clone(),
                stop: stop.clone(),
            };
            env.tasks.spawn("flusher", worker.run())
        })
        .collect()
}

struct Worker {
    env: Env,
    queue: Arc<FlushQueue>,
    log_dir: Arc<PathBuf>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
}

impl Worker {
    async fn run(self) {
        loop {
            let partitions = self.queue.take();
            if partitions.is_empty() {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    () = self.queue.more.notified() => {}
                }
                continue;
            }
            // Notifications do not add up: whoever takes one passes it on while there is more.
            self.queue.more.notify_one();
            self.flush(partitions).await;
        }
    }

    async fn flush(&self, partitions: Vec<Arc<Partition>>) {
        if partitions.len() < TOGETHER_MIN {
            for partition in partitions {
                self.flush_alone(&partition).await;
            }
            return;
        }
        let jobs: Vec<(Arc<Partition>, FlushJob)> = partitions
            .into_iter()
            .filter_map(|partition| partition.start_flush().map(|job| (partition, job)))
            .collect();
        let began = self.env.clock.now();
        self.flush_together(jobs).await;
        self.metrics.flush(self.env.clock.now().since(began));
    }

    /// Flushes one partition, and again while its window is worth waiting for.
    async fn flush_alone(&self, partition: &Arc<Partition>) {
        // Who waits for this worker comes before a fuller flush.
        if self.queue.is_empty()
            && let Some(gathered) = partition.hold_back()
        {
            self.gather(partition, gathered, Duration::ZERO).await;
        }
        while let Some(job) = partition.start_flush() {
            let began = self.env.clock.now();
            let work = move || {
                let result = job.run();
                (job, result)
            };
            let (job, result) = self.env.tasks.run_blocking(work).await;
            let took = self.env.clock.now().since(began);
            self.metrics.flush(took);
            let may_gather = self.queue.is_empty();
            match partition.finish_flush(job, result, may_gather) {
                AfterFlush::Done => return,
                AfterFlush::Gather(gathered) => self.gather(partition, gathered, took).await,
            }
        }
    }

    /// Waits for batches that are expected, after a flush that took so long.
    async fn gather(&self, partition: &Partition, gathered: oneshot::Receiver<()>, flush_took: Duration) {
        let began = self.env.clock.now();
        let came = self.env.clock.timeout(GATHER_MAX, gathered).await.is_ok();
        let waited = self.env.clock.now().since(began);
        partition.end_gathering(came && waited <= flush_took.max(GATHER_WORTH));
    }

    async fn flush_together(&self, jobs: Vec<(Arc<Partition>, FlushJob)>) {
        let (disk, log_dir) = (self.env.disk.clone(), self.log_dir.clone());
        let result = self
            .env
            .tasks
            .run_blocking(move || disk.sync_filesystem(&log_dir))
            .await;
        for (partition, job) in jobs {
            // The error of one is the error of all: nothing is known of any of their bytes.
            let result = result
                .as_ref()
                .copied()
                .map_err(|error| io::Error::new(error.kind(), error.to_string()));
            // Together they are many already.
            drop(partition.finish_flush(job, result, false));
        }
    }
}
