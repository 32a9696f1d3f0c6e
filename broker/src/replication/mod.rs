//! Replication between brokers: one stream for each pair of a follower broker and a leader broker, over gRPC on the
//! cluster port (`proto/proto/replication.proto`).
//!
//! Files: what a leader holds of a stream (`feed`), says on it (`sender`) and hears (`server`); what a follower broker
//! holds of one (`fetcher`, over `connect`); changes at the ends of followers' logs (`cuts`); changes of in-sync sets
//! (`in_sync`); copies that are damaged or gone (`repair`); quotas (`throttle`). The rules are `skerry-replica`'s; what
//! they do to a partition is in `partition/feed.rs` and `partition/follow.rs`.
//!
//! Nothing here has a task or a timer for each partition. Memory is bounded by windows: a stream holds no more than
//! what its follower has not written yet. It does not come out of the budget that requests share: producers' requests
//! that wait for replication must not be able to hold it up.

mod connect;
mod cuts;
mod feed;
mod fetcher;
mod in_sync;
mod repair;
mod sender;
mod server;
mod throttle;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use skerry_env::{Env, TaskHandle};
use skerry_log::ReadError;
use skerry_replica::{FollowerReport, InSyncProposal, LagLimits};
use skerry_types::{BrokerEpoch, BrokerId, Instant, LeaderEpoch, Offset};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

pub use feed::Feed;
pub use fetcher::Fetcher;

use crate::broker::Broker;
use crate::metrics::Metrics;
use crate::partition::{Assigned, Cut, ImpossibleReport, InSyncCheck, Measured, Partition};
use crate::settings::Settings;
use connect::Limits;
use cuts::{CutJob, CutQueue};
use fetcher::Key;
use in_sync::InSyncQueue;
use repair::RepairQueue;
use throttle::Throttle;

/// What the two ends of a stream speak.
const VERSION: u32 = 1;
/// The window of a stream, where memory and the number of brokers allow it.
const WINDOW_BYTES_MAX: usize = 8 << 20;
/// Less would make catching up slow.
const WINDOW_BYTES_MIN: usize = 256 << 10;
/// A batch may be larger than the request that it came in: it was packed in another way.
const MESSAGE_SLACK_BYTES: usize = 2 << 20;
/// A stream whose other end says nothing for so long is made again: no less, or a pause of the machine would do it.
const SILENCE_MIN: Duration = Duration::from_millis(500);
/// And no more, however patient the controller is.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// All streams of this broker.
pub struct Replication {
    env: Env,
    settings: Arc<Settings>,
    metrics: Arc<Metrics>,
    /// Weak: the broker owns what the streams serve.
    broker: OnceLock<Weak<Broker>>,
    stop: CancellationToken,
    /// The streams of brokers that follow this one.
    feeds: Mutex<BTreeMap<BrokerId, Arc<Feed>>>,
    /// The brokers that this one follows, or has followed.
    fetchers: Mutex<BTreeMap<BrokerId, Arc<Fetcher>>>,
    /// Where each partition is followed.
    followed: Mutex<BTreeMap<Key, BrokerId>>,
    /// Held by whoever changes what is followed. Taken before a partition's lock.
    assigning: Mutex<()>,
    tasks: Mutex<Vec<TaskHandle>>,
    in_sync: InSyncQueue,
    cuts: CutQueue,
    repairs: RepairQueue,
    leader_throttle: Throttle,
    follower_throttle: Throttle,
}

/// A throttle with its rate of the moment.
struct Quota<'a> {
    throttle: &'a Throttle,
    bytes_per_second: u64,
}

impl Quota<'_> {
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        self.throttle.ready_at(now, self.bytes_per_second)
    }

    /// A quarter of what may pass in a second, and one small read at least.
    fn read_bytes_max(&self) -> u32 {
        u32::try_from(self.bytes_per_second / 4)
            .unwrap_or(u32::MAX)
            .max(16 << 10)
    }

    fn take(&self, now: Instant, bytes: usize) {
        self.throttle.take(now, self.bytes_per_second, bytes);
    }
}

fn key_of(partition: &Partition) -> Key {
    (partition.topic_id(), partition.name().partition)
}

impl Replication {
    /// Replication that does nothing before [`Self::start`], and ends with `stop`.
    #[must_use]
    pub fn new(
        env: Env,
        settings: Arc<Settings>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let now = env.clock.now();
        Arc::new(Self {
            env,
            settings,
            metrics,
            broker: OnceLock::new(),
            stop,
            feeds: Mutex::default(),
            fetchers: Mutex::default(),
            followed: Mutex::default(),
            assigning: Mutex::default(),
            tasks: Mutex::default(),
            in_sync: InSyncQueue::default(),
            cuts: CutQueue::default(),
            repairs: RepairQueue::default(),
            leader_throttle: Throttle::new(now),
            follower_throttle: Throttle::new(now),
        })
    }

    /// Puts the service on the cluster port.
    pub fn serve(self: &Arc<Self>, routes: &mut RoutesBuilder) {
        routes.add_service(server::Server::new(self.clone()));
    }

    /// Begins: streams are accepted and made from now on. Called once.
    pub fn start(self: &Arc<Self>, broker: &Arc<Broker>) {
        if self.broker.set(Arc::downgrade(broker)).is_err() {
            return;
        }
        let tasks = &self.env.tasks;
        let started = [
            tasks.spawn("cuts", cuts::run(self.clone(), broker.clone(), self.stop.clone())),
            tasks.spawn(
                "in-sync-sets",
                in_sync::run(self.clone(), broker.clone(), self.stop.clone()),
            ),
            tasks.spawn(
                "repairs",
                repair::run(self.clone(), broker.clone(), self.stop.clone()),
            ),
        ];
        self.tasks.lock().extend(started);
    }

    /// Ends every stream, and waits for it.
    pub async fn stop(&self) {
        self.stop.cancel();
        let tasks = std::mem::take(&mut *self.tasks.lock());
        for task in tasks {
            task.join().await;
        }
        let feeds: Vec<Arc<Feed>> = self.feeds.lock().values().cloned().collect();
        for feed in feeds {
            self.end_feed(&feed);
        }
        self.fetchers.lock().clear();
    }

    /// What this broker is to the partition has changed. Two tasks may come at once, each after its own change: what
    /// counts is what it is now.
    pub fn on_assigned(self: &Arc<Self>, partition: &Arc<Partition>) {
        let one_at_a_time = self.assigning.lock();
        match partition.assigned() {
            Assigned::Follows { leader, epoch } => self.follow(partition, leader, epoch),
            Assigned::Leads => {
                self.end_following(partition);
                if partition
                    .replication_state()
                    .is_some_and(|state| state.replicas > 1)
                {
                    self.look_at_in_sync_set(partition);
                }
            }
            Assigned::Nothing => self.end_following(partition),
        }
        drop(one_at_a_time);
        if partition.offline().is_some() || partition.is_called_offline() {
            self.look_at_damage(partition);
        }
    }

    fn follow(self: &Arc<Self>, partition: &Arc<Partition>, leader: BrokerId, epoch: LeaderEpoch) {
        let key = key_of(partition);
        let before = self.followed.lock().insert(key, leader);
        if let Some(before) = before
            && before != leader
        {
            self.fetcher(before).forget(key);
        }
        self.fetcher(leader).follow(key, partition, epoch);
    }

    /// This broker does not follow the partition, or has it no more.
    pub fn forget(self: &Arc<Self>, partition: &Partition) {
        let _one_at_a_time = self.assigning.lock();
        self.end_following(partition);
    }

    fn end_following(self: &Arc<Self>, partition: &Partition) {
        let key = key_of(partition);
        let before = self.followed.lock().remove(&key);
        if let Some(before) = before {
            self.fetcher(before).forget(key);
        }
    }

    fn fetcher(self: &Arc<Self>, leader: BrokerId) -> Arc<Fetcher> {
        let mut fetchers = self.fetchers.lock();
        if let Some(fetcher) = fetchers.get(&leader) {
            return fetcher.clone();
        }
        let fetcher = Fetcher::new(leader);
        fetchers.insert(leader, fetcher.clone());
        if !self.stop.is_cancelled() {
            let run = fetcher.clone().run(self.clone(), self.stop.clone());
            self.tasks.lock().push(self.env.tasks.spawn("fetcher", run));
        }
        fetcher
    }

    fn env(&self) -> &Env {
        &self.env
    }

    /// The node's counters.
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The broker's settings.
    pub const fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    fn broker(&self) -> Option<Arc<Broker>> {
        if self.stop.is_cancelled() {
            return None;
        }
        self.broker.get()?.upgrade()
    }

    fn new_end(&self) -> CancellationToken {
        self.stop.child_token()
    }

    fn leader_throttle(&self) -> Quota<'_> {
        Quota {
            throttle: &self.leader_throttle,
            bytes_per_second: self.settings.broker().leader_throttled_rate,
        }
    }

    fn follower_throttle(&self) -> Quota<'_> {
        Quota {
            throttle: &self.follower_throttle,
            bytes_per_second: self.settings.broker().follower_throttled_rate,
        }
    }

    /// The longest silence of the other end.
    fn silence_max(&self) -> Duration {
        self.settings
            .broker()
            .session_timeout
            .clamp(SILENCE_MIN, SILENCE_MAX)
    }

    /// What a stream from a leader may hold: all of them together an eighth of the memory that requests have.
    fn limits(&self, broker: &Broker) -> Limits {
        let others = broker.image().brokers().count().saturating_sub(1).max(1);
        let total = broker.budget().total_bytes();
        let window = (total / 8 / others).clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        Limits {
            window_bytes: u32::try_from(window).unwrap_or(u32::MAX),
            message_bytes_max: broker.connection_limits().frame_bytes_max.max(window) + MESSAGE_SLACK_BYTES,
        }
    }

    /// The stream is its follower's now. False: it speaks for an earlier registration than one that is here.
    fn register_feed(&self, feed: &Arc<Feed>) -> bool {
        let before = {
            let mut feeds = self.feeds.lock();
            if let Some(known) = feeds.get(&feed.follower())
                && known.follower_epoch() > feed.follower_epoch()
            {
                return false;
            }
            feeds.insert(feed.follower(), feed.clone())
        };
        if let Some(before) = before {
            self.release(&before);
        }
        true
    }

    /// A stream is over. True the first time.
    fn end_feed(&self, feed: &Arc<Feed>) -> bool {
        let known = {
            let mut feeds = self.feeds.lock();
            let known = feeds
                .get(&feed.follower())
                .is_some_and(|known| Arc::ptr_eq(known, feed));
            if known {
                feeds.remove(&feed.follower());
            }
            known
        };
        self.release(feed);
        known
    }

    fn release(&self, feed: &Feed) {
        let at = self.env.clock.now() + self.silence_max();
        for (handle, partition) in feed.close() {
            partition.detach(feed, handle);
            self.in_sync.look(&partition, at);
        }
    }

    fn lag_limits(&self) -> LagLimits {
        let settings = self.settings.broker();
        LagLimits {
            lag_max: settings.replica_lag_time_max,
            silence_max: self.silence_max(),
            standing_max: settings.session_timeout,
        }
    }

    fn look_at_in_sync_set(&self, partition: &Arc<Partition>) {
        self.in_sync.look(partition, self.env.clock.now());
    }

    fn on_report(
        &self,
        partition: &Arc<Partition>,
        feed: &Feed,
        handle: u32,
        report: &FollowerReport,
    ) -> Result<(), ImpossibleReport> {
        let Some(broker) = self.broker() else {
            return Ok(());
        };
        let reported = |check: &InSyncCheck<'_>| partition.on_report(feed, handle, report, check);
        let (proposal, look_at) = self.checking(&broker, reported)?;
        if let Some(proposal) = proposal {
            self.in_sync.propose(partition, proposal);
        }
        if let Some(at) = look_at {
            self.in_sync.look(partition, at);
        }
        Ok(())
    }

    fn check_in_sync(
        &self,
        broker: &Broker,
        partition: &Partition,
    ) -> (Option<InSyncProposal>, Option<Instant>) {
        self.checking(broker, |check| partition.check_in_sync(check))
    }

    /// Looks at an in-sync set with what is known now.
    fn checking<T>(&self, broker: &Broker, look: impl FnOnce(&InSyncCheck<'_>) -> T) -> T {
        let image = broker.image();
        let registered = |id: BrokerId| -> Option<BrokerEpoch> {
            let broker = image.broker(id)?;
            broker.is_active().then_some(broker.epoch)
        };
        look(&InSyncCheck {
            now: self.env.clock.now(),
            limits: self.lag_limits(),
            registered: &registered,
        })
    }

    fn cut(
        &self,
        fetcher: &Arc<Fetcher>,
        key: Key,
        partition: &Arc<Partition>,
        epoch: LeaderEpoch,
        cut: Cut,
    ) {
        self.cut_as_told(fetcher, key, partition, epoch, cut, Bytes::new());
    }

    /// The same, where the log may start over, and the leader knows these producers below its new start.
    fn cut_as_told(
        &self,
        fetcher: &Arc<Fetcher>,
        key: Key,
        partition: &Arc<Partition>,
        epoch: LeaderEpoch,
        cut: Cut,
        producers: Bytes,
    ) {
        self.cuts.push(CutJob {
            fetcher: fetcher.clone(),
            key,
            partition: partition.clone(),
            epoch,
            cut,
            producers,
        });
    }

    /// The partition's copy here cannot be used: it is repaired from its peers, where there are any.
    pub fn look_at_damage(&self, partition: &Arc<Partition>) {
        self.repairs.push(partition);
    }

    /// A read of this copy from `from` on has failed: where it is damaged, it is repaired from its peers.
    pub fn suspect(&self, partition: &Arc<Partition>, from: Offset, error: &ReadError) {
        partition.suspect(from, error);
        if partition.is_suspected() {
            self.look_at_damage(partition);
        }
    }

    /// A follower says that what it was sent from `from` on is damaged.
    fn on_complaint(&self, partition: &Arc<Partition>, from: Offset) {
        partition.suspect_at(from);
        self.look_at_damage(partition);
    }

    /// Counts what only a look at everything tells. Called every second or so.
    pub fn measure(&self, partitions: &[Measured]) {
        let counters = &self.metrics.replication;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let led = || partitions.iter().filter_map(|partition| partition.replication);
        counters.under_replicated.set(number(
            led().filter(|state| state.in_sync < state.replicas).count(),
        ));
        counters
            .lag_records_max
            .set(led().map(|state| state.lag_records_max).max().unwrap_or(0));
        counters.streams_out.set(number(self.feeds.lock().len()));
        let counts: Vec<(usize, usize)> = self
            .fetchers
            .lock()
            .values()
            .map(|fetcher| fetcher.counts())
            .collect();
        counters
            .partitions_followed
            .set(number(counts.iter().map(|(wanted, _)| wanted).sum()));
        counters.partitions_waiting.set(number(
            counts.iter().map(|(wanted, following)| wanted - following).sum(),
        ));
    }
}
