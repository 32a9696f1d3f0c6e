//! Changes at the ends of followers' logs: what the leader does not have is cut away, what the leader has deleted goes
//! here as well.
//!
//! One task for all partitions. After a failover hundreds may have to cut at once: the checkpoints that must be lowered
//! before, durably, are written once for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use parking_lot::Mutex;
use skerry_types::LeaderEpoch;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Replication;
use super::fetcher::{Fetcher, Key};
use crate::broker::Broker;
use crate::partition::{Cut, Partition};

/// Logs that are cut at a time: that waits for the disk, not for the processor.
const CUT_AT_ONCE: usize = 8;

/// A cut that is to be made.
pub(super) struct CutJob {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) key: Key,
    pub(super) partition: Arc<Partition>,
    pub(super) epoch: LeaderEpoch,
    pub(super) cut: Cut,
    /// What the leader knows of producers below the new start, where the log starts over.
    pub(super) producers: Bytes,
}

/// Cuts that wait, one for each partition: a later one knows more.
#[derive(Default)]
pub(super) struct CutQueue {
    jobs: Mutex<BTreeMap<Key, CutJob>>,
    more: Notify,
}

impl CutQueue {
    pub(super) fn push(&self, job: CutJob) {
        let mut jobs = self.jobs.lock();
        // A new start is told again with the next records; whoever waits to ask again would wait for ever.
        let keeps = matches!(job.cut, Cut::LogStart(_))
            && jobs
                .get(&job.key)
                .is_some_and(|waiting| !matches!(waiting.cut, Cut::LogStart(_)));
        if !keeps {
            jobs.insert(job.key, job);
            drop(jobs);
            self.more.notify_one();
        }
    }

    fn take(&self) -> Vec<CutJob> {
        std::mem::take(&mut *self.jobs.lock()).into_values().collect()
    }
}

/// Makes the cuts until `stop`.
pub(super) async fn run(replication: Arc<Replication>, broker: Arc<Broker>, stop: CancellationToken) {
    let queue = &replication.cuts;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = queue.more.notified() => {}
        }
        make(&broker, queue.take()).await;
    }
    drop(queue.take());
}

async fn make(broker: &Arc<Broker>, jobs: Vec<CutJob>) {
    let (mut lowered, mut raised, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    for job in jobs {
        let Some(limit) = job.partition.prepare_cut(job.epoch, job.cut) else {
            job.fetcher.ask_again(job.key, job.epoch);
            continue;
        };
        let name = job.partition.name().clone();
        match job.cut {
            Cut::LogStart(start) => raised.push((name, start)),
            Cut::To(_) => lowered.push((name, limit)),
            // It may begin within a batch, whose beginning would be back after a crash.
            Cut::StartAt(start) => {
                raised.push((name.clone(), start));
                lowered.push((name, limit));
            }
        }
        ready.push(job);
    }
    if ready.is_empty() {
        return;
    }
    if let Err(error) = broker.partitions().prepare_cuts(&lowered, &raised).await {
        tracing::error!(%error, "cannot write the checkpoints: logs that part from their leaders' are not cut");
        for job in ready {
            job.partition.forget_cut();
            job.fetcher.ask_again(job.key, job.epoch);
        }
        return;
    }
    stream::iter(ready.into_iter().map(|job| make_one(broker, job)))
        .buffer_unordered(CUT_AT_ONCE)
        .collect::<Vec<()>>()
        .await;
}

async fn make_one(broker: &Arc<Broker>, job: CutJob) {
    let CutJob {
        fetcher,
        key,
        partition,
        epoch,
        cut,
        producers,
    } = job;
    let subject = partition.clone();
    let made = broker
        .env()
        .tasks
        .run_blocking(move || subject.cut(epoch, cut, &producers))
        .await;
    match made {
        Ok(retired) => {
            if let Cut::To(at) | Cut::StartAt(at) = cut {
                tracing::info!(
                    partition = %partition.name(), ?cut, %epoch, segments = retired.segments,
                    log_end = %partition.with_log(|log| log.log_end()).unwrap_or(at),
                    "cut what the leader does not have"
                );
            }
            broker.partitions().retire(&partition, retired);
        }
        Err(error) => {
            tracing::error!(partition = %partition.name(), ?cut, %error, "cannot cut the log");
        }
    }
    if matches!(cut, Cut::To(_) | Cut::StartAt(_)) {
        fetcher.ask_again(key, epoch);
    }
}
