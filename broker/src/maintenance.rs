//! What a broker does without being asked: retention, compaction and checkpoints.
//!
//! One task for all partitions. An idle partition is looked at, not scheduled.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use skerry_log::{ChangeError, Retired};
use skerry_types::{Instant, Offset};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::partition::{Measured, Partition};

/// How often `flush.ms` is looked at.
const TICK: Duration = Duration::from_secs(1);
/// Starts the task.
pub fn start(broker: &Arc<Broker>, stop: CancellationToken) -> skerry_env::TaskHandle {
    let maintenance = Maintenance::new(broker.clone());
    broker.env().tasks.spawn("maintenance", maintenance.run(stop))
}

struct Maintenance {
    broker: Arc<Broker>,
    /// When each kind of work is next due.
    retention_at: Instant,
    compaction_at: Instant,
    checkpoint_at: Instant,
    high_watermarks_at: Instant,
    /// Files that are out of the log, and when they may go (`file.delete.delay.ms`).
    retired: VecDeque<(Instant, Retired)>,
}

impl Maintenance {
    fn new(broker: Arc<Broker>) -> Self {
        let now = broker.env().clock.now();
        let config = broker.settings().broker();
        Self {
            retention_at: now + config.retention_check_interval,
            compaction_at: now + config.cleaner_backoff,
            checkpoint_at: now + config.flush_offset_checkpoint_interval,
            high_watermarks_at: now + config.high_watermark_checkpoint_interval,
            retired: VecDeque::new(),
            broker,
        }
    }

    async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.broker.env().clock.sleep(TICK) => {}
            }
            self.tick().await;
        }
    }

    async fn tick(&mut self) {
        let broker = self.broker.clone();
        let config = broker.settings().broker();
        let (now, wall) = (broker.env().clock.now(), broker.env().clock.wall());
        let partitions = broker.partitions().all();
        for partition in &partitions {
            partition.flush_if_due(wall);
        }
        self.measure(&partitions);
        if now >= self.retention_at {
            self.retention_at = now + config.retention_check_interval;
            self.retention(&partitions).await;
        }
        if now >= self.compaction_at {
            self.compaction_at = now + config.cleaner_backoff;
            self.compact_the_dirtiest(&partitions).await;
        }
        if now >= self.checkpoint_at {
            self.checkpoint_at = now + config.flush_offset_checkpoint_interval;
            self.checkpoint(&partitions).await;
        }
        if now >= self.high_watermarks_at {
            self.high_watermarks_at = now + config.high_watermark_checkpoint_interval;
            if let Err(error) = broker.partitions().save_high_watermarks().await {
                tracing::warn!(%error, "cannot write the high watermarks down");
            }
        }
        for (partition, retired) in broker.partitions().take_retired() {
            self.retire(&partition, retired);
        }
        self.remove_retired(now).await;
    }

    fn measure(&self, partitions: &[Arc<Partition>]) {
        let metrics = self.broker.metrics();
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let measured: Vec<Measured> = partitions.iter().map(|partition| partition.measure()).collect();
        let count = |which: fn(&Measured) -> bool| number(measured.iter().filter(|one| which(one)).count());
        let bytes: u64 = measured.iter().map(|one| one.log_bytes).sum();
        metrics.log_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        metrics.partitions_offline.set(count(|one| one.is_offline));
        metrics.partitions_damaged.set(count(|one| one.is_damaged));
        metrics.partitions_led.set(count(|one| one.is_led));
        let replication = self.broker.replication();
        replication.measure(&measured);
        for (partition, one) in partitions.iter().zip(&measured) {
            if one.is_suspected {
                replication.look_at_damage(partition);
            }
        }
        let lacking = measured.iter().map(|one| one.records_lacking).sum();
        let now = self.broker.env().clock.now();
        self.broker.catching_up.lock().sample(now, lacking);
        let budget = self.broker.budget();
        metrics
            .memory_budget_used_bytes
            .set(number(budget.total_bytes() - budget.free_bytes()));
    }

    async fn retention(&mut self, partitions: &[Arc<Partition>]) {
        for partition in partitions {
            let clock = &self.broker.env().clock;
            let (subject, now, wall) = (partition.clone(), clock.now(), clock.wall());
            let retired = self.broker.env().tasks.run_blocking(move || {
                subject.change_log(|log, high_watermark| {
                    log.expire_producers(now);
                    if let Err(error) = log.roll_if_due(wall) {
                        tracing::warn!(partition = %subject.name(), %error, "cannot begin a new segment");
                    }
                    // Only what is acknowledged may be deleted; a follower's high watermark is its leader's.
                    log.apply_retention(high_watermark, wall)
                })
            });
            match retired.await {
                Some(Ok(retired)) => self.retire(partition, retired),
                Some(Err(error)) => {
                    tracing::warn!(partition = %partition.name(), %error, "cannot delete old segments")
                }
                None => {}
            }
        }
    }

    /// Cleans one log each time, as Kafka's cleaner does with one thread.
    async fn compact_the_dirtiest(&mut self, partitions: &[Arc<Partition>]) {
        let wall = self.broker.env().clock.wall();
        let dirtiest = partitions
            .iter()
            .filter_map(|partition| {
                let ratio = partition.change_log(|log, high_watermark| {
                    let stable = log.last_stable(high_watermark);
                    log.compaction_candidate(stable, wall)
                })??;
                Some((ratio, partition))
            })
            .max_by(|(a, _), (b, _)| {
                (a.overdue, a.ratio)
                    .partial_cmp(&(b.overdue, b.ratio))
                    .unwrap_or(std::cmp::Ordering::Equal)
            });
        let Some((_, partition)) = dirtiest else { return };
        let budget_bytes = usize::try_from(self.broker.settings().broker().cleaner_dedupe_buffer_bytes)
            .unwrap_or(usize::MAX)
            .min(self.broker.budget().total_bytes() / 8);
        let job = partition.change_log(|log, high_watermark| {
            let stable = log.last_stable(high_watermark);
            log.start_compaction(stable, wall, budget_bytes)
        });
        let Some(Some(job)) = job else { return };
        let subject = partition.clone();
        let cleaned = self
            .broker
            .env()
            .tasks
            .run_blocking(move || match job.run() {
                Ok(result) => subject.change_log(|log, _| log.finish_compaction(result)),
                Err(error) => Some(Err(error)),
            })
            .await;
        match cleaned {
            Some(Ok(retired)) => self.retire(partition, retired),
            Some(Err(error)) => {
                tracing::warn!(partition = %partition.name(), %error, "cannot compact");
                if let ChangeError::Read(error) = &error {
                    partition.suspect(Offset::ZERO, error);
                }
            }
            None => {}
        }
    }

    fn retire(&mut self, partition: &Partition, retired: Retired) {
        if retired.is_empty() {
            return;
        }
        tracing::debug!(partition = %partition.name(), segments = retired.segments, bytes = retired.bytes, "retired segments");
        let delay = u64::try_from(partition.settings().log.file_delete_delay_ms).unwrap_or(0);
        self.retired.push_back((
            self.broker.env().clock.now() + Duration::from_millis(delay),
            retired,
        ));
    }

    async fn remove_retired(&mut self, now: Instant) {
        let (due, later) = self
            .retired
            .drain(..)
            .partition::<VecDeque<_>, _>(|(at, _)| *at <= now);
        self.retired = later;
        for (_, retired) in due {
            let disk = self.broker.env().disk.clone();
            let removed = self
                .broker
                .env()
                .tasks
                .run_blocking(move || retired.remove(&*disk))
                .await;
            if let Err(error) = removed {
                tracing::warn!(%error, "cannot remove retired files");
            }
        }
    }

    /// Moves the point from which recovery will walk each log.
    async fn checkpoint(&self, partitions: &[Arc<Partition>]) {
        for partition in partitions {
            if let Err(error) = partition.write_checkpoint(&self.broker.env().tasks).await {
                tracing::error!(partition = %partition.name(), %error, "cannot write a checkpoint");
            }
        }
        if let Err(error) = self.broker.partitions().save_checkpoints().await {
            tracing::warn!(%error, "cannot write the checkpoints: recovery would take longer");
        }
    }
}
