//! What a leader says on a stream: a message is everything that is ready, records of partitions in sync first.
//!
//! Records go from the page cache into the message without being looked at but for their offsets. A read that would
//! wait for the device is made elsewhere, one at a time, while the others go on; there the sums are compared as well.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use skerry_log::batch::{BatchHeader, HEADER_BYTES};
use skerry_log::{ReadError, ReadPlan};
use skerry_proto::replication::{self as proto, refused::Reason};
use skerry_types::{Instant, Offset};
use tokio::sync::oneshot;

use super::Replication;
use super::feed::{Feed, Turn};
use crate::partition::{FeedPlan, Partition, Watermark};

/// A message is sent when it holds so much.
const MESSAGE_BYTES: usize = 1 << 20;
/// Something is said at least this often.
pub(super) const ALIVE_INTERVAL: Duration = Duration::from_millis(100);

/// Makes the messages of one stream.
pub(super) struct Sender {
    replication: Arc<Replication>,
    feed: Arc<Feed>,
    /// A read that waits for the device.
    cold: Option<oneshot::Receiver<(Planned, Result<Bytes, ReadError>)>>,
    said_at: Instant,
}

/// A read that was decided on.
struct Planned {
    handle: u32,
    partition: Arc<Partition>,
    position: Offset,
    watermark: Watermark,
    in_sync: bool,
}

impl Sender {
    pub(super) fn new(replication: Arc<Replication>, feed: Arc<Feed>) -> Self {
        Self {
            replication,
            feed,
            cold: None,
            // The first message, empty, tells the follower that it is welcome.
            said_at: Instant::ZERO,
        }
    }

    /// The next message; `None` when the stream is to end.
    pub(super) async fn next(&mut self) -> Option<proto::LeaderMessage> {
        let clock = self.replication.env().clock.clone();
        loop {
            if self.feed.end.is_cancelled() {
                return None;
            }
            let now = clock.now();
            let mut message = proto::LeaderMessage::default();
            let wake_at = self.fill(&mut message, now);
            let alive_at = self.said_at + ALIVE_INTERVAL;
            let silent = self.said_at == Instant::ZERO || now >= alive_at;
            if silent || message != proto::LeaderMessage::default() {
                self.said_at = now;
                return Some(message);
            }
            tokio::select! {
                biased;
                () = self.feed.end.cancelled() => return None,
                () = self.feed.more.notified() => {}
                () = clock.sleep_until(wake_at.map_or(alive_at, |at| at.min(alive_at))) => {}
            }
        }
    }

    /// Puts what is ready into the message; gives when there will be more without a wake-up.
    fn fill(&mut self, message: &mut proto::LeaderMessage, now: Instant) -> Option<Instant> {
        (message.refused, message.diverging) = self.feed.take_refusals(MESSAGE_BYTES);
        self.finish_cold_read(message);
        while records_bytes(message) < MESSAGE_BYTES
            && let Some(turn) = self.feed.next_tail()
        {
            self.take_turn(turn, message);
        }
        let throttled_until = self.catch_up(message, now);
        let watermarks_at = match self.feed.take_watermarks(now) {
            Ok(handles) => {
                message
                    .watermarks
                    .extend(handles.into_iter().filter_map(|handle| self.watermark(handle)));
                None
            }
            Err(at) => at,
        };
        [throttled_until, watermarks_at].into_iter().flatten().min()
    }

    /// One partition that catches up for each message, whatever the others do: they must not starve it for ever.
    fn catch_up(&mut self, message: &mut proto::LeaderMessage, now: Instant) -> Option<Instant> {
        let mut ready_at = None;
        for _ in 0..self.feed.behind_count() {
            if records_bytes(message) >= MESSAGE_BYTES || self.cold.is_some() {
                break;
            }
            let Some(mut turn) = self.feed.next_behind() else {
                break;
            };
            if turn.partition.settings().throttled.leader {
                let quota = self.replication.leader_throttle();
                if let Some(at) = quota.ready_at(now) {
                    self.feed.postpone(turn.handle);
                    ready_at = Some(at);
                    continue;
                }
                // One read is no burst of many seconds.
                turn.max_bytes = turn.max_bytes.min(quota.read_bytes_max());
            }
            self.take_turn(turn, message);
            break;
        }
        ready_at
    }

    fn take_turn(&mut self, turn: Turn, message: &mut proto::LeaderMessage) {
        let Turn {
            handle,
            partition,
            position,
            ..
        } = turn;
        match partition.plan_feed(&self.feed, handle, position, turn.max_bytes, turn.one_batch) {
            FeedPlan::Drained => {}
            // The one who made it void has told the follower.
            FeedPlan::Void => drop(self.feed.remove(handle)),
            FeedPlan::OutOfRange { log_start } => {
                let producers = partition.producers_below(log_start);
                self.detach(handle, self.feed.out_of_range(handle, log_start, producers));
            }
            FeedPlan::Failed(error) => self.cannot_read(&partition, handle, position, &error),
            FeedPlan::Read {
                plan,
                watermark,
                in_sync,
            } => {
                let planned = Planned {
                    handle,
                    partition,
                    position,
                    watermark,
                    in_sync,
                };
                match plan.run_cached() {
                    Ok(Some(records)) => self.add(planned, records, message),
                    Ok(None) if self.cold.is_some() => self.feed.postpone(handle),
                    Ok(None) => self.read_cold(planned, plan),
                    Err(error) => self.cannot_read(&planned.partition, handle, position, &error),
                }
            }
        }
    }

    fn read_cold(&mut self, planned: Planned, plan: ReadPlan) {
        let (done, receiver) = oneshot::channel();
        self.cold = Some(receiver);
        let (env, feed) = (self.replication.env().clone(), self.feed.clone());
        let tasks = env.tasks.clone();
        // It ends with the read; whoever wanted it may be gone by then.
        drop(env.tasks.spawn("cold-read", async move {
            let result = tasks.run_blocking(move || plan.run_checked()).await;
            let _ = done.send((planned, result));
            feed.more.notify_one();
        }));
    }

    fn finish_cold_read(&mut self, message: &mut proto::LeaderMessage) {
        let Some(cold) = &mut self.cold else { return };
        match cold.try_recv() {
            Err(oneshot::error::TryRecvError::Empty) => {}
            Err(oneshot::error::TryRecvError::Closed) => self.cold = None,
            Ok((planned, result)) => {
                self.cold = None;
                match result {
                    Ok(records) => self.add(planned, records, message),
                    Err(error) => {
                        self.cannot_read(&planned.partition, planned.handle, planned.position, &error);
                    }
                }
            }
        }
    }

    fn add(&self, planned: Planned, records: Bytes, message: &mut proto::LeaderMessage) {
        let Planned {
            handle,
            partition,
            watermark,
            in_sync,
            ..
        } = planned;
        let Some(end) = end_of(&records) else {
            self.feed.stalled(handle);
            return;
        };
        // The question may have become void during a read that waited for the device.
        if self.feed.followed(handle).is_none() {
            return;
        }
        if !in_sync && partition.settings().throttled.leader {
            let now = self.replication.env().clock.now();
            self.replication.leader_throttle().take(now, records.len());
        }
        self.feed.sent(handle, end, records.len(), in_sync);
        let counters = &self.replication.metrics().replication;
        counters.sent_bytes.inc_by(records.len() as u64);
        message.batches.push(proto::Batches {
            handle,
            leader_epoch: watermark.leader_epoch.get(),
            records,
            high_watermark: watermark.high_watermark.get(),
            log_start: watermark.log_start.get(),
        });
    }

    fn watermark(&self, handle: u32) -> Option<proto::Watermark> {
        let (partition, _) = self.feed.followed(handle)?;
        let watermark = partition.take_watermark(&self.feed, handle)?;
        Some(proto::Watermark {
            handle,
            leader_epoch: watermark.leader_epoch.get(),
            high_watermark: watermark.high_watermark.get(),
            log_start: watermark.log_start.get(),
        })
    }

    fn detach(&self, handle: u32, refused: Option<Arc<Partition>>) {
        if let Some(partition) = refused {
            partition.detach(&self.feed, handle);
        }
    }

    fn cannot_read(&self, partition: &Arc<Partition>, handle: u32, position: Offset, error: &ReadError) {
        // A new leader's follower may have cut the log under a read that began before.
        if self.feed.followed(handle).is_none() {
            return;
        }
        tracing::error!(partition = %partition.name(), %error, follower = %self.feed.follower(), "cannot read for a follower");
        self.replication.suspect(partition, position, error);
        self.detach(handle, self.feed.refuse(handle, Reason::Offline));
    }
}

impl Drop for Sender {
    /// The connection is gone: its follower hears nothing any more.
    fn drop(&mut self) {
        self.replication.end_feed(&self.feed);
    }
}

fn records_bytes(message: &proto::LeaderMessage) -> usize {
    message.batches.iter().map(|batches| batches.records.len()).sum()
}

/// The offset after the last of whole batches, which a log gave.
fn end_of(records: &[u8]) -> Option<Offset> {
    let (mut rest, mut end) = (records, None);
    while rest.len() >= HEADER_BYTES {
        let header = BatchHeader::read(rest)?;
        end = Some(header.next_offset());
        rest = rest.get(header.size_bytes()?..)?;
    }
    end
}
