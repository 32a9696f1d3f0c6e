//! One leader broker as its follower sees it: which partitions are followed there, over a stream that is made again
//! whenever it ends.
//!
//! A partition on it asks to follow, and is sent records from then on. Where the leader answers that the logs part, the
//! log is cut (cuts.rs) and asks again; where it refuses, the partition asks again after a while.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream;
use parking_lot::Mutex;
use skerry_log::EpochEnd;
use skerry_proto::replication::{self as proto, refused::Reason};
use skerry_types::{BrokerId, Instant, LeaderEpoch, Offset, PartitionIndex, TopicId, reached, sometimes};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::connect::{self, ConnectError, Limits};
use super::sender::ALIVE_INTERVAL;
use super::{Replication, VERSION};
use crate::broker::Broker;
use crate::partition::{Cut, FollowError, Partition, Watermark};

/// The wait before a lost stream is made again, or a refused partition asks again: from the one, doubling, to the other.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// A stream is opened within this time.
const OPEN_DEADLINE: Duration = Duration::from_secs(1);
/// The leader hears of what is written when so much of the window is used up, durable or not.
const WINDOW_PARTS: usize = 8;

/// Names a partition on every broker.
pub(super) type Key = (TopicId, PartitionIndex);

/// The partitions that are followed at one leader broker.
pub struct Fetcher {
    leader: BrokerId,
    state: Mutex<State>,
    /// There is something to say.
    more: Notify,
    /// The first partition has come, or the last one has gone.
    changed: Notify,
}

#[derive(Default)]
struct State {
    wanted: BTreeMap<Key, Wanted>,
    by_handle: BTreeMap<u32, Key>,
    last_handle: u32,
    /// Partitions that ask with the next message.
    asking: VecDeque<Key>,
    /// Partitions that ask later.
    later: BTreeSet<(Instant, Key)>,
    unfollow: Vec<u32>,
    /// Handles of those that cannot take what the leader sent, and from where on.
    corrupt: Vec<proto::Corrupt>,
    /// Handles that have come further.
    progress: Vec<u32>,
    /// Those of them that throttling holds back, until when.
    held_back: Vec<u32>,
    held_until: Option<Instant>,
}

struct Wanted {
    partition: Arc<Partition>,
    epoch: LeaderEpoch,
    stage: Stage,
    /// Refusals in a row.
    refusals: u32,
    /// Bytes written since the leader heard of it.
    unreported: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// In `asking`.
    Asking,
    /// In `later`.
    Later(Instant),
    /// On the stream.
    Following(u32),
    /// Its log is being cut; it asks when that is done.
    Cutting,
}

impl Fetcher {
    pub(super) fn new(leader: BrokerId) -> Arc<Self> {
        Arc::new(Self {
            leader,
            state: Mutex::default(),
            more: Notify::new(),
            changed: Notify::new(),
        })
    }

    /// A partition is followed here from now on, in this epoch. Again with the same: nothing changes.
    pub(super) fn follow(&self, key: Key, partition: &Arc<Partition>, epoch: LeaderEpoch) {
        let mut state = self.state.lock();
        if let Some(known) = state.wanted.get(&key)
            && known.epoch == epoch
            && Arc::ptr_eq(&known.partition, partition)
        {
            return;
        }
        state.drop_wanted(key);
        let wanted = Wanted {
            partition: partition.clone(),
            epoch,
            stage: Stage::Asking,
            refusals: 0,
            unreported: 0,
        };
        state.wanted.insert(key, wanted);
        state.asking.push_back(key);
        drop(state);
        self.more.notify_one();
        self.changed.notify_one();
    }

    /// A partition is followed here no more.
    pub(super) fn forget(&self, key: Key) {
        let gone = self.state.lock().drop_wanted(key);
        if let Some((partition, handle)) = gone {
            if let Some(handle) = handle {
                partition.end_following(self, handle);
            }
            self.more.notify_one();
            self.changed.notify_one();
        }
    }

    /// A followed partition has come further. Called under its lock.
    pub fn on_progress(&self, handle: u32) {
        let mut state = self.state.lock();
        state.progress.push(handle);
        if state.progress.len() == 1 {
            drop(state);
            self.more.notify_one();
        }
    }

    /// A cut is done, or given up: the partition asks again.
    pub(super) fn ask_again(&self, key: Key, epoch: LeaderEpoch) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(wanted) = state.wanted.get_mut(&key)
            && wanted.epoch == epoch
            && wanted.stage == Stage::Cutting
        {
            wanted.stage = Stage::Asking;
            state.asking.push_back(key);
            drop(guard);
            self.more.notify_one();
        }
    }

    fn is_idle(&self) -> bool {
        self.state.lock().wanted.is_empty()
    }

    /// How many partitions are followed here, and how many of them are sent records.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.state.lock();
        (state.wanted.len(), state.by_handle.len())
    }

    /// Makes streams, one after the other, while there is something to follow.
    pub(super) async fn run(self: Arc<Self>, replication: Arc<Replication>, stop: CancellationToken) {
        let mut backoff = BACKOFF_MIN;
        let mut complained = false;
        while !stop.is_cancelled() {
            if self.is_idle() {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = self.changed.notified() => {}
                }
                continue;
            }
            let ended = self.stream(&replication, &stop).await;
            self.disconnected();
            match ended {
                Ended::Idle => backoff = BACKOFF_MIN,
                Ended::Lost(why) => {
                    tracing::info!(leader = %self.leader, why, "the stream from a leader has ended");
                    (backoff, complained) = (BACKOFF_MIN, false);
                }
                Ended::NotOpened(why) if !complained => {
                    tracing::info!(leader = %self.leader, why, "cannot follow a leader yet");
                    complained = true;
                }
                Ended::NotOpened(why) => {
                    tracing::debug!(leader = %self.leader, why, "cannot follow a leader yet");
                }
            }
            let env = replication.env();
            // Not all followers of a broker that comes back shall come at once.
            let jitter = Duration::from_nanos(env.rng.below(backoff.as_nanos() as u64 / 2));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = env.clock.sleep(backoff + jitter) => {}
            }
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
        self.disconnected();
        self.state.lock().wanted.clear();
    }

    /// One stream, from its beginning to its end.
    async fn stream(self: &Arc<Self>, replication: &Arc<Replication>, stop: &CancellationToken) -> Ended {
        let Some(broker) = replication.broker() else {
            return Ended::NotOpened("this broker is starting or stopping".to_owned());
        };
        let Some((addr, hello)) = self.greeting(replication, &broker) else {
            return Ended::NotOpened("its address is not known".to_owned());
        };
        let limits = replication.limits(&broker);
        drop(broker);
        let end = stop.child_token();
        let _end_guard = end.clone().drop_guard();
        let speaker = Speaker {
            fetcher: self.clone(),
            replication: replication.clone(),
            greeting: Some(hello),
            end: end.clone(),
            said_at: Instant::ZERO,
        };
        let said = stream::unfold(speaker, |mut speaker| async move {
            let message = speaker.next().await?;
            Some((message, speaker))
        });
        let opening = connect::open(replication.env(), addr, OPEN_DEADLINE, limits, said);
        let opened = tokio::select! {
            biased;
            () = stop.cancelled() => return Ended::Idle,
            opened = opening => opened,
        };
        match opened {
            Ok(heard) => self.listen(replication, heard, limits, stop).await,
            Err(error) => Ended::NotOpened(error.to_string()),
        }
    }

    fn greeting(&self, replication: &Replication, broker: &Broker) -> Option<(String, proto::Hello)> {
        let image = broker.image();
        let leader = image.broker(self.leader)?;
        let hello = proto::Hello {
            version: VERSION,
            cluster_id: bytes::Bytes::copy_from_slice(&image.cluster_id()?.0),
            follower: broker.id().get(),
            follower_epoch: broker.partitions().registration(&image)?.get(),
            leader: self.leader.get(),
            window_bytes: u64::from(replication.limits(broker).window_bytes),
        };
        Some((leader.cluster.to_string(), hello))
    }

    async fn listen(
        self: &Arc<Self>,
        replication: &Arc<Replication>,
        mut heard: Streaming<proto::LeaderMessage>,
        limits: Limits,
        stop: &CancellationToken,
    ) -> Ended {
        let clock = replication.env().clock.clone();
        let mut welcome = false;
        loop {
            let next = connect::bounded(&clock, replication.silence_max(), heard.message());
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return Ended::Idle,
                next = next => next,
                () = self.until_idle() => return Ended::Idle,
            };
            match message {
                Ok(Ok(Some(message))) => {
                    if !welcome {
                        tracing::info!(leader = %self.leader, "the stream from a leader begins");
                        welcome = true;
                    }
                    self.hear(replication, message, limits);
                }
                Ok(Ok(None)) if welcome => return Ended::Lost("closed by the leader".to_owned()),
                Ok(Ok(None)) => return Ended::NotOpened("closed by the leader".to_owned()),
                Ok(Err(status)) if welcome => return Ended::Lost(status.message().to_owned()),
                Ok(Err(status)) => return Ended::NotOpened(status.message().to_owned()),
                Err(error @ ConnectError::Timeout(_)) => {
                    reached("silent-leader-given-up");
                    return Ended::Lost(format!("silence: {error}"));
                }
                Err(error) => return Ended::Lost(error.to_string()),
            }
        }
    }

    async fn until_idle(&self) {
        while !self.is_idle() {
            self.changed.notified().await;
        }
    }

    /// The stream has ended: everything asks again on the next one.
    fn disconnected(&self) {
        let ended: Vec<(u32, Arc<Partition>)> = {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let handles = std::mem::take(&mut state.by_handle);
            state.unfollow.clear();
            state.corrupt.clear();
            state.progress.clear();
            state.held_back.clear();
            state.held_until = None;
            handles
                .into_iter()
                .filter_map(|(handle, key)| {
                    let wanted = state.wanted.get_mut(&key)?;
                    if wanted.stage == Stage::Following(handle) {
                        wanted.stage = Stage::Asking;
                        state.asking.push_back(key);
                    }
                    Some((handle, wanted.partition.clone()))
                })
                .collect()
        };
        for (handle, partition) in ended {
            partition.end_following(self, handle);
        }
    }

    fn hear(self: &Arc<Self>, replication: &Arc<Replication>, message: proto::LeaderMessage, limits: Limits) {
        for refused in message.refused {
            self.refused(replication, &refused);
        }
        for diverging in message.diverging {
            let end = EpochEnd {
                epoch: LeaderEpoch(diverging.epoch),
                end_offset: Offset(diverging.end_offset),
            };
            if let Some((key, partition, epoch)) = self.void(diverging.handle, Stage::Cutting) {
                match partition.on_diverging(epoch, end) {
                    Some(cut) => replication.cut(self, key, &partition, epoch, cut),
                    None => self.ask_again(key, epoch),
                }
            }
        }
        for batches in message.batches {
            self.batches(replication, batches, limits);
        }
        for told in message.watermarks {
            let Some((key, partition, epoch)) = self.following(told.handle) else {
                continue;
            };
            let watermark = Watermark {
                leader_epoch: LeaderEpoch(told.leader_epoch),
                high_watermark: Offset(told.high_watermark),
                log_start: Offset(told.log_start),
            };
            if let Ok(Some(start)) = partition.on_watermark(self, told.handle, watermark) {
                replication.cut(self, key, &partition, epoch, Cut::LogStart(start));
            }
        }
    }

    fn refused(self: &Arc<Self>, replication: &Arc<Replication>, refused: &proto::Refused) {
        if refused.reason() == Reason::OutOfRange {
            if let Some((key, partition, epoch)) = self.void(refused.handle, Stage::Cutting) {
                let start = Offset(refused.log_start.max(0));
                reached("follower-starts-over");
                tracing::info!(partition = %partition.name(), log_start = %start, "what this follower needs is gone at the leader: it starts over");
                let producers = refused.producers.clone();
                replication.cut_as_told(self, key, &partition, epoch, Cut::StartAt(start), producers);
            }
            return;
        }
        let now = replication.env().clock.now();
        if let Some(partition) = self.ask_later(refused.handle, now) {
            tracing::debug!(partition = %partition.name(), reason = ?refused.reason(), "the leader refuses");
        }
    }

    fn batches(self: &Arc<Self>, replication: &Arc<Replication>, batches: proto::Batches, limits: Limits) {
        let handle = batches.handle;
        let Some((key, partition, epoch)) = self.following(handle) else {
            return;
        };
        let bytes = batches.records.len();
        let watermark = Watermark {
            leader_epoch: LeaderEpoch(batches.leader_epoch),
            high_watermark: Offset(batches.high_watermark),
            log_start: Offset(batches.log_start),
        };
        let clock = &replication.env().clock;
        if partition.is_throttled_here() {
            replication.follower_throttle().take(clock.now(), bytes);
        }
        replication
            .metrics()
            .replication
            .received_bytes
            .inc_by(bytes as u64);
        match partition.append_from_leader(self, handle, batches.records, watermark, clock.wall()) {
            Ok(raised) => {
                if let Some(start) = raised {
                    replication.cut(self, key, &partition, epoch, Cut::LogStart(start));
                }
                if self.on_written(handle, bytes, limits.window_bytes as usize / WINDOW_PARTS) {
                    partition.mark_written(self, handle);
                }
            }
            Err(FollowError::Stale) => reached("records-of-an-old-epoch"),
            Err(error) => {
                let is_full = matches!(error, FollowError::DiskFull { .. });
                sometimes("follower-without-room", is_full);
                // That the disk is full is said once, by those who look at it.
                if is_full {
                    tracing::debug!(partition = %partition.name(), leader = %self.leader, "no room for what the leader sent");
                } else {
                    tracing::warn!(partition = %partition.name(), leader = %self.leader, %error, "cannot take what the leader sent");
                }
                match error {
                    FollowError::DiskFull { raise_log_start } => {
                        self.unfollow(handle);
                        // It makes room.
                        if let Some(start) = raise_log_start {
                            replication.cut(self, key, &partition, epoch, Cut::LogStart(start));
                        }
                    }
                    FollowError::Corrupt(_) => {
                        reached("corrupt-records-refused");
                        self.complain(handle, &partition);
                    }
                    _ => self.unfollow(handle),
                }
                self.ask_later(handle, clock.now());
                if let FollowError::Failed(_) = error {
                    replication.look_at_damage(&partition);
                }
            }
        }
    }

    /// Counts what was written; true where the leader must hear of it now.
    fn on_written(&self, handle: u32, bytes: usize, limit: usize) -> bool {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(wanted) = state
            .by_handle
            .get(&handle)
            .and_then(|key| state.wanted.get_mut(key))
        else {
            return false;
        };
        wanted.refusals = 0;
        wanted.unreported += bytes;
        if wanted.unreported < limit {
            return false;
        }
        wanted.unreported = 0;
        true
    }

    fn following(&self, handle: u32) -> Option<(Key, Arc<Partition>, LeaderEpoch)> {
        let state = self.state.lock();
        let key = *state.by_handle.get(&handle)?;
        let wanted = state.wanted.get(&key)?;
        Some((key, wanted.partition.clone(), wanted.epoch))
    }

    /// The leader has made a handle void; its partition is in `stage` now.
    fn void(&self, handle: u32, stage: Stage) -> Option<(Key, Arc<Partition>, LeaderEpoch)> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let key = state.by_handle.remove(&handle)?;
        let wanted = state.wanted.get_mut(&key)?;
        wanted.stage = stage;
        let found = (key, wanted.partition.clone(), wanted.epoch);
        drop(guard);
        found.1.end_following(self, handle);
        Some(found)
    }

    fn unfollow(&self, handle: u32) {
        self.state.lock().unfollow.push(handle);
        self.more.notify_one();
    }

    /// The leader's own copy may be damaged: a read checks no sums.
    fn complain(&self, handle: u32, partition: &Partition) {
        let end = partition.with_log(|log| log.log_end());
        let from = end.unwrap_or(Offset::ZERO).get();
        self.state.lock().corrupt.push(proto::Corrupt { handle, from });
        self.more.notify_one();
    }

    /// A handle is void, and its partition asks again after a while.
    fn ask_later(&self, handle: u32, now: Instant) -> Option<Arc<Partition>> {
        let (key, partition, _) = self.void(handle, Stage::Asking)?;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(wanted) = state.wanted.get_mut(&key) {
            let factor = 1_u32 << wanted.refusals.min(7);
            let at = now + (BACKOFF_MIN * factor).min(BACKOFF_MAX);
            wanted.refusals += 1;
            wanted.stage = Stage::Later(at);
            state.later.insert((at, key));
        }
        drop(guard);
        self.more.notify_one();
        Some(partition)
    }

    /// Handles for those who ask now.
    fn take_asking(&self, now: Instant) -> Vec<(u32, Key, Arc<Partition>, LeaderEpoch)> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        while let Some((at, key)) = state.later.first().copied()
            && at <= now
        {
            state.later.pop_first();
            if let Some(wanted) = state.wanted.get_mut(&key)
                && wanted.stage == Stage::Later(at)
            {
                wanted.stage = Stage::Asking;
                state.asking.push_back(key);
            }
        }
        let mut asking = Vec::new();
        while let Some(key) = state.asking.pop_front() {
            let Some(wanted) = state.wanted.get_mut(&key) else {
                continue;
            };
            if wanted.stage != Stage::Asking {
                continue;
            }
            state.last_handle += 1;
            let handle = state.last_handle;
            (wanted.stage, wanted.unreported) = (Stage::Following(handle), 0);
            state.by_handle.insert(handle, key);
            asking.push((handle, key, wanted.partition.clone(), wanted.epoch));
        }
        asking
    }

    fn next_at(&self) -> Option<Instant> {
        let state = self.state.lock();
        let later = state.later.first().map(|(at, _)| *at);
        [later, state.held_until].into_iter().flatten().min()
    }
}

impl State {
    fn drop_wanted(&mut self, key: Key) -> Option<(Arc<Partition>, Option<u32>)> {
        let wanted = self.wanted.remove(&key)?;
        let mut handle = None;
        match wanted.stage {
            Stage::Following(followed) => {
                self.by_handle.remove(&followed);
                self.unfollow.push(followed);
                handle = Some(followed);
            }
            Stage::Later(at) => {
                self.later.remove(&(at, key));
            }
            Stage::Asking | Stage::Cutting => {}
        }
        Some((wanted.partition, handle))
    }
}

/// Why a stream is over.
enum Ended {
    /// Nothing is followed there any more.
    Idle,
    /// It was open.
    Lost(String),
    /// It never was.
    NotOpened(String),
}

/// Makes what a follower says.
struct Speaker {
    fetcher: Arc<Fetcher>,
    replication: Arc<Replication>,
    greeting: Option<proto::Hello>,
    end: CancellationToken,
    said_at: Instant,
}

impl Speaker {
    async fn next(&mut self) -> Option<proto::FollowerMessage> {
        let clock = self.replication.env().clock.clone();
        loop {
            if self.end.is_cancelled() {
                return None;
            }
            let now = clock.now();
            if let Some(hello) = self.greeting.take() {
                self.said_at = now;
                return Some(proto::FollowerMessage {
                    hello: Some(hello),
                    ..proto::FollowerMessage::default()
                });
            }
            let message = self.compose(now);
            let alive_at = self.said_at + ALIVE_INTERVAL;
            if now >= alive_at || message != proto::FollowerMessage::default() {
                self.said_at = now;
                return Some(message);
            }
            let wake_at = self.fetcher.next_at().map_or(alive_at, |at| at.min(alive_at));
            tokio::select! {
                biased;
                () = self.end.cancelled() => return None,
                () = self.fetcher.more.notified() => {}
                () = clock.sleep_until(wake_at) => {}
            }
        }
    }

    fn compose(&self, now: Instant) -> proto::FollowerMessage {
        let fetcher = &self.fetcher;
        let mut message = proto::FollowerMessage::default();
        let asking = fetcher.take_asking(now);
        let (unfollow, corrupt, handles) = {
            let mut state = fetcher.state.lock();
            if state.held_until.is_some_and(|at| at <= now) {
                state.held_until = None;
                let held = std::mem::take(&mut state.held_back);
                state.progress.extend(held);
            }
            (
                std::mem::take(&mut state.unfollow),
                std::mem::take(&mut state.corrupt),
                std::mem::take(&mut state.progress),
            )
        };
        (message.unfollow, message.corrupt) = (unfollow, corrupt);
        for (handle, key, partition, epoch) in asking {
            match partition.begin_following(epoch, fetcher, handle) {
                Some((position, log_start)) => message.follow.push(proto::Follow {
                    handle,
                    topic_id: bytes::Bytes::copy_from_slice(&key.0.0),
                    partition: key.1.get(),
                    leader_epoch: position.leader_epoch.get(),
                    from: position.from.get(),
                    last_epoch: position.last_epoch.get(),
                    durable_end: position.durable_end.get(),
                    log_start: log_start.get(),
                }),
                // Its role has changed, and who changed it will say so; or it cannot be written to.
                None => drop(fetcher.ask_later(handle, now)),
            }
        }
        let throttled_until = self.replication.follower_throttle().ready_at(now);
        for handle in handles {
            let Some((_, partition, _)) = fetcher.following(handle) else {
                continue;
            };
            if let Some(until) = throttled_until
                && partition.is_throttled_here()
            {
                // What the leader is not told does not free its window.
                let mut state = fetcher.state.lock();
                state.held_back.push(handle);
                state.held_until = Some(until);
                continue;
            }
            if let Some(progress) = partition.take_progress(fetcher, handle) {
                message.progress.push(proto::Progress {
                    handle,
                    written_end: progress.written_end.get(),
                    durable_end: progress.durable_end.get(),
                    log_start: progress.log_start.get(),
                });
            }
        }
        message
    }
}
