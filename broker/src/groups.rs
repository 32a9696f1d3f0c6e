//! The shell around the group coordinators: one task drives the pure [`GroupShard`] of each partition of
//! `__consumer_offsets` that this broker leads.
//!
//! The task is the only owner of the shards: requests, finished appends, loaded records and timers come to it in one
//! order, and it carries out their effects in the order in which they must happen.

mod load;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use parking_lot::Mutex;
use skerry_coordinator::{
    AppendFailure, AppendId, Effect, GroupEvent, GroupEventKind, GroupRecord, GroupSettings, GroupShard, Now,
    RecordOrigin, ReplyToken, Request, Response, TransactionEnd, partition_for,
};
use skerry_env::{Env, TaskHandle};
use skerry_log::batch::{BatchBuilder, Batches, Compression, MarkerType, Records, control_marker};
use skerry_log::{AppendError, ValidBatch};
use skerry_metadata::Quorum;
use skerry_metadata_state::Delta;
use skerry_types::{BUGGIFY_LATE, Instant, LeaderEpoch, Offset, buggify, is_planted, reached};
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};

use self::load::{LOADING_AT_ONCE, Loader};
use crate::broker::Broker;
use crate::budget::Held;
use crate::partition::{AckError, Acks, Partition, ProduceError};
use crate::partitions::Partitions;
use crate::settings::Settings;
use crate::topics::CONSUMER_OFFSETS;

/// Messages that may wait for the task. Whoever sends one more waits: connections are bounded, and so is this.
const INBOX_MAX: usize = 1024;
/// Groups and members may take this part of the memory budget, beside it: a quarter.
const STATE_PART: usize = 4;
/// Messages that may be handled before the timers are looked at: a busy coordinator must not forget the silent members.
const MESSAGES_PER_TICK: u32 = 256;

/// A group's coordinator cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CoordinatorError {
    /// There is none yet, or the node is stopping.
    #[error("the coordinator is not available")]
    NotAvailable,
    /// Another broker has it.
    #[error("this broker does not coordinate the group")]
    NotCoordinator,
}

/// The group coordinators of this broker.
pub struct Groups {
    inbox: mpsc::Sender<Message>,
    /// Taken when the task starts.
    start: Mutex<Option<mpsc::Receiver<Message>>>,
    task: Mutex<Option<TaskHandle>>,
    /// One follower at a time: what was looked at first must arrive first.
    following: tokio::sync::Mutex<()>,
    partitions: Arc<Partitions>,
    settings: Arc<Settings>,
    env: Env,
}

/// What comes to the task.
enum Message {
    Request {
        partition: i32,
        request: Box<Request>,
        reply: oneshot::Sender<Response>,
        /// Given back when the shard has taken the request in.
        held: Option<Held>,
    },
    /// Requests to every shard, for answers that cover all groups of this broker.
    Every {
        request: Box<Request>,
        reply: oneshot::Sender<Vec<Response>>,
    },
    /// All that this broker leads.
    Leading(Vec<Led>),
    Loaded {
        partition: i32,
        term: u64,
        batches: Bytes,
        /// Tells the loader that it may go on.
        taken: oneshot::Sender<()>,
    },
    LoadFinished {
        partition: i32,
        term: u64,
    },
    /// What was read is not there any more: all is read again.
    LoadAgain {
        partition: i32,
        term: u64,
    },
    TopicsDeleted(BTreeSet<Arc<str>>),
    Settings(GroupSettings),
    Stop,
}

/// A partition of `__consumer_offsets` that this broker leads.
struct Led {
    partition: i32,
    epoch: LeaderEpoch,
    log: Arc<Partition>,
}

impl Groups {
    /// No coordinator yet.
    #[must_use]
    pub fn new(env: Env, partitions: Arc<Partitions>, settings: Arc<Settings>) -> Self {
        let (inbox, receiver) = mpsc::channel(INBOX_MAX);
        Self {
            inbox,
            start: Mutex::new(Some(receiver)),
            task: Mutex::new(None),
            following: tokio::sync::Mutex::new(()),
            partitions,
            settings,
            env,
        }
    }

    /// Begins to coordinate.
    pub async fn start(&self, broker: &Broker) {
        let Some(receiver) = self.start.lock().take() else {
            return;
        };
        let driver = Driver::new(self, broker);
        *self.task.lock() = Some(self.env.tasks.spawn("groups", driver.run(receiver)));
        self.follow(&[Delta::Reset]).await;
    }

    /// Takes over what the metadata has changed.
    pub async fn follow(&self, deltas: &[Delta]) {
        if self.task.lock().is_none() {
            return;
        }
        let _turn = self.following.lock().await;
        let mut deleted = BTreeSet::new();
        let (mut led, mut configured) = (false, false);
        for delta in deltas {
            match delta {
                Delta::TopicDeleted { name, .. } => {
                    led |= &**name == CONSUMER_OFFSETS;
                    deleted.insert(name.clone());
                }
                Delta::TopicCreated { name, .. } | Delta::PartitionChanged { name, .. } => {
                    led |= &**name == CONSUMER_OFFSETS;
                }
                Delta::Reset => (led, configured) = (true, true),
                Delta::ConfigChanged(_) => configured = true,
                Delta::ClusterNamed(_) | Delta::BrokerChanged(_) | Delta::FeatureLevelChanged(_) => {}
            }
        }
        if configured {
            self.send(Message::Settings(self.group_settings())).await;
        }
        if led {
            self.send(Message::Leading(self.led())).await;
        }
        if !deleted.is_empty() {
            self.send(Message::TopicsDeleted(deleted)).await;
        }
    }

    fn led(&self) -> Vec<Led> {
        let local = self.partitions.topic(CONSUMER_OFFSETS);
        let partitions = local.map(|topic| topic.partitions()).unwrap_or_default();
        let led = partitions.into_iter().filter_map(|log| {
            // Its members would wait for as long as this broker is cut off.
            if log.is_cut_off() {
                return None;
            }
            let epoch = log
                .with_leader(LeaderEpoch::UNKNOWN, |_, leader| leader.epoch())
                .ok()?;
            Some(Led {
                partition: log.name().partition.get(),
                epoch,
                log,
            })
        });
        led.collect()
    }

    /// Asks the coordinator of `group`, who gives `held` back when it has taken `request` in.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn call(
        &self,
        broker: &Broker,
        group: &str,
        request: Request,
        held: Option<Held>,
    ) -> Result<Response, CoordinatorError> {
        let count = broker
            .image()
            .topic(CONSUMER_OFFSETS)
            .map_or(0, |topic| topic.partitions.len());
        let count = i32::try_from(count).unwrap_or(i32::MAX);
        if count == 0 {
            return Err(CoordinatorError::NotCoordinator);
        }
        let (reply, answer) = oneshot::channel();
        let partition = partition_for(group, count);
        if !self.may_answer(partition, &request) {
            return Err(CoordinatorError::NotCoordinator);
        }
        let message = Message::Request {
            partition,
            request: Box::new(request),
            reply,
            held,
        };
        self.inbox
            .send(message)
            .await
            .map_err(|_| CoordinatorError::NotAvailable)?;
        answer.await.map_err(|_| {
            reached("asked-the-wrong-coordinator");
            CoordinatorError::NotCoordinator
        })
    }

    /// Another broker may coordinate by now without this one's knowing. What a member changes counts only when it is
    /// committed, but what is told must be the latest.
    fn may_answer(&self, partition: i32, request: &Request) -> bool {
        let must_be_current = matches!(request, Request::Fetch(_) | Request::Describe(_));
        let Some(log) = self.partitions.get(CONSUMER_OFFSETS, partition) else {
            return true;
        };
        !must_be_current || log.with_current_leader(LeaderEpoch::UNKNOWN, |_, _| ()).is_ok()
    }

    /// Gives up what this broker coordinates and is cut off from, and takes up again what it is not.
    pub async fn follow_standing(&self) {
        self.follow(&[Delta::Reset]).await;
    }

    /// Asks every coordinator of this broker.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn call_every(&self, request: Request) -> Result<Vec<Response>, CoordinatorError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Every {
            request: Box::new(request),
            reply,
        };
        self.inbox
            .send(message)
            .await
            .map_err(|_| CoordinatorError::NotAvailable)?;
        answer.await.map_err(|_| CoordinatorError::NotAvailable)
    }

    /// Ends all coordination: whoever waits hears that this is no coordinator any more.
    pub async fn stop(&self) {
        let task = self.task.lock().take();
        if let Some(task) = task {
            self.send(Message::Stop).await;
            task.join().await;
        }
    }

    async fn send(&self, message: Message) {
        // The task has ended: so has what it would have been told about.
        let _ = self.inbox.send(message).await;
    }

    fn group_settings(&self) -> GroupSettings {
        let config = self.settings.broker();
        let ms = |duration: Duration| i32::try_from(duration.as_millis()).unwrap_or(i32::MAX);
        GroupSettings {
            min_session_timeout_ms: ms(config.group_min_session_timeout),
            max_session_timeout_ms: ms(config.group_max_session_timeout),
            initial_rebalance_delay_ms: ms(config.group_initial_rebalance_delay),
            max_size: i32::try_from(config.group_max_size).unwrap_or(i32::MAX),
            offset_metadata_max_bytes: i32::try_from(config.offset_metadata_max_bytes).unwrap_or(i32::MAX),
            offsets_retention_minutes: i32::try_from(config.offsets_retention.as_secs() / 60)
                .unwrap_or(i32::MAX),
            offsets_retention_check_interval_ms: i64::from(ms(config.offsets_retention_check_interval)),
        }
    }
}

/// The outcome of one append, with the shard that it belongs to: its partition and its term.
type Finished = (i32, u64, AppendId, Result<Offset, AppendFailure>);
type Appending = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// The task.
struct Driver {
    env: Env,
    inbox: mpsc::Sender<Message>,
    quorum: Quorum,
    settings: GroupSettings,
    commit_timeout: Duration,
    /// What groups and members may take in memory, all shards together.
    state_bytes_max: usize,
    shards: BTreeMap<i32, Shard>,
    next_term: u64,
    loading_turns: Arc<Semaphore>,
    replies: BTreeMap<ReplyToken, Reply>,
    next_token: u64,
    appending: FuturesUnordered<Appending>,
    groups: prometheus_client::metrics::gauge::Gauge,
}

struct Shard {
    machine: GroupShard,
    /// Tells this shard from one that had the same partition before it. A topic that is made again begins with the
    /// same epoch, so that cannot.
    term: u64,
    epoch: LeaderEpoch,
    log: Arc<Partition>,
    /// Topics that were deleted while it loads.
    deleted: BTreeSet<Arc<str>>,
    /// Appends in their order, with the outcomes that came before an older one's.
    unreported: VecDeque<(AppendId, Option<Result<Offset, AppendFailure>>)>,
    loading: Option<TaskHandle>,
}

enum Reply {
    One(oneshot::Sender<Response>),
    /// A part of an answer that covers every shard.
    Part(Arc<Mutex<Gather>>),
}

struct Gather {
    missing: usize,
    responses: Vec<Response>,
    reply: Option<oneshot::Sender<Vec<Response>>>,
}

impl Driver {
    fn new(groups: &Groups, broker: &Broker) -> Self {
        Self {
            env: groups.env.clone(),
            inbox: groups.inbox.clone(),
            quorum: broker.quorum().clone(),
            settings: groups.group_settings(),
            commit_timeout: groups.settings.broker().offsets_commit_timeout,
            state_bytes_max: broker.budget().total_bytes() / STATE_PART,
            shards: BTreeMap::new(),
            next_term: 0,
            loading_turns: Arc::new(Semaphore::new(LOADING_AT_ONCE)),
            replies: BTreeMap::new(),
            next_token: 0,
            appending: FuturesUnordered::new(),
            groups: broker.metrics().groups.clone(),
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let clock = self.env.clock.clone();
        let mut alarm_at = Instant::FAR_FUTURE;
        let mut alarm = clock.sleep_until(alarm_at);
        let mut messages = 0;
        loop {
            if messages >= MESSAGES_PER_TICK {
                messages = 0;
                self.tick();
            }
            let deadlines = self
                .shards
                .values()
                .filter_map(|shard| shard.machine.next_deadline());
            let due = deadlines.min().unwrap_or(Instant::FAR_FUTURE);
            // An alarm that rings too early costs less than one that is set again for every heartbeat.
            if due < alarm_at {
                alarm_at = due;
                alarm = clock.sleep_until(due);
            }
            tokio::select! {
                biased;
                Some(finished) = self.appending.next(), if !self.appending.is_empty() => self.appended(finished),
                // Before the timers: who was heard in time is not late because we are.
                message = inbox.recv() => match message {
                    Some(Message::Stop) | None => break,
                    Some(message) => {
                        messages += 1;
                        self.receive(message);
                    }
                },
                () = &mut alarm, if alarm_at != Instant::FAR_FUTURE => {
                    alarm_at = Instant::FAR_FUTURE;
                    self.tick();
                }
            }
        }
        for partition in self.shards.keys().copied().collect::<Vec<_>>() {
            self.resign(partition);
        }
    }

    fn now(&self) -> Now {
        Now {
            instant: self.env.clock.now(),
            wall: self.env.clock.wall(),
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Request {
                partition,
                request,
                reply,
                held,
            } => {
                self.request(partition, *request, Reply::One(reply));
                drop(held);
            }
            Message::Every { request, reply } => self.every(&request, reply),
            Message::Leading(led) => self.leading(led),
            Message::Loaded {
                partition,
                term,
                batches,
                taken,
            } => {
                self.replay(partition, term, batches);
                // The loader may have been stopped.
                let _ = taken.send(());
            }
            Message::LoadFinished { partition, term } => self.finish_loading(partition, term),
            Message::LoadAgain { partition, term } => self.load_again(partition, term),
            Message::TopicsDeleted(names) => {
                let now = self.now();
                self.for_each_shard(|shard| {
                    if shard.loading.is_some() {
                        shard.deleted.extend(names.iter().cloned());
                    }
                    shard.machine.on_topics_deleted(&names, now)
                });
            }
            Message::Settings(settings) => {
                self.settings = settings;
                for shard in self.shards.values_mut() {
                    shard.machine.set_settings(settings);
                }
            }
            Message::Stop => {}
        }
    }

    fn for_each_shard(&mut self, mut step: impl FnMut(&mut Shard) -> Vec<Effect>) {
        for partition in self.shards.keys().copied().collect::<Vec<_>>() {
            let effects = self.shards.get_mut(&partition).map(&mut step).unwrap_or_default();
            self.carry_out(partition, effects);
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        self.for_each_shard(|shard| {
            let due = shard
                .machine
                .next_deadline()
                .is_some_and(|deadline| deadline <= now.instant);
            if due {
                shard.machine.on_tick(now)
            } else {
                Vec::new()
            }
        });
    }

    fn request(&mut self, partition: i32, request: Request, reply: Reply) {
        if buggify("groups-loaded-again", 50)
            && let Some(term) = self.shards.get(&partition).map(|shard| shard.term)
        {
            self.load_again(partition, term);
        }
        let full = self.is_full();
        // Dropping the reply tells the caller: not the coordinator.
        let Some(shard) = self.shards.get_mut(&partition) else {
            return;
        };
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        self.replies.insert(token, reply);
        let now = Now {
            instant: self.env.clock.now(),
            wall: self.env.clock.wall(),
        };
        shard.machine.set_full(full);
        let effects = shard.machine.handle(token, request, now);
        self.carry_out(partition, effects);
    }

    fn is_full(&self) -> bool {
        let machines = self.shards.values().map(|shard| &shard.machine);
        machines.map(GroupShard::state_bytes).sum::<usize>() >= self.state_bytes_max
    }

    fn every(&mut self, request: &Request, reply: oneshot::Sender<Vec<Response>>) {
        let gather = Gather {
            missing: self.shards.len(),
            responses: Vec::new(),
            reply: Some(reply),
        };
        let gather = Arc::new(Mutex::new(gather));
        if self.shards.is_empty() {
            gather.lock().finish();
            return;
        }
        for partition in self.shards.keys().copied().collect::<Vec<_>>() {
            self.request(partition, request.clone(), Reply::Part(gather.clone()));
        }
    }

    fn leading(&mut self, led: Vec<Led>) {
        let kept: BTreeSet<i32> = led.iter().map(|led| led.partition).collect();
        for partition in self
            .shards
            .keys()
            .copied()
            .filter(|known| !kept.contains(known))
            .collect::<Vec<_>>()
        {
            self.resign(partition);
        }
        for led in led {
            let known = self.shards.get(&led.partition);
            if !known.is_some_and(|shard| shard.epoch == led.epoch && Arc::ptr_eq(&shard.log, &led.log)) {
                self.resign(led.partition);
                self.lead(led);
            }
        }
    }

    fn lead(
        &mut self,
        Led {
            partition,
            epoch,
            log,
        }: Led,
    ) {
        self.next_term += 1;
        let term = self.next_term;
        let mut machine = GroupShard::new(self.settings);
        machine.start_loading();
        // A topic that was made for the first group ever is served at once: not every client waits for a coordinator
        // that loads.
        let empty = log
            .with_leader(epoch, |log, _| log.log_start() >= log.log_end())
            .unwrap_or(false);
        let loading = (!empty).then(|| {
            let loader = Loader {
                env: self.env.clone(),
                inbox: self.inbox.clone(),
                partition,
                term,
                epoch,
                log: log.clone(),
                turns: self.loading_turns.clone(),
            };
            self.env.tasks.spawn("groups-load", loader.run())
        });
        let (unreported, deleted) = (VecDeque::new(), BTreeSet::new());
        self.shards.insert(
            partition,
            Shard {
                machine,
                term,
                epoch,
                log,
                deleted,
                unreported,
                loading,
            },
        );
        if empty {
            self.finish_loading(partition, term);
        }
    }

    /// Forgets what was read of a partition, and reads it from its start.
    fn load_again(&mut self, partition: i32, term: u64) {
        let Some(shard) = self.shard_of(partition, term) else {
            return;
        };
        let deleted = std::mem::take(&mut shard.deleted);
        let led = Led {
            partition,
            epoch: shard.epoch,
            log: shard.log.clone(),
        };
        self.resign(partition);
        self.lead(led);
        if let Some(shard) = self.shards.get_mut(&partition) {
            shard.deleted = deleted;
        }
    }

    fn resign(&mut self, partition: i32) {
        let Some(mut shard) = self.shards.remove(&partition) else {
            return;
        };
        if let Some(loading) = shard.loading.take() {
            loading.abort();
        }
        let effects = shard.machine.unload();
        // Its appends may still become durable: nobody waits for them any more.
        for effect in effects {
            if let Effect::Reply(token, response) = effect {
                self.reply(token, response);
            }
        }
    }

    /// The shard of a partition, if it is the one that is meant.
    fn shard_of(&mut self, partition: i32, term: u64) -> Option<&mut Shard> {
        self.shards.get_mut(&partition).filter(|shard| shard.term == term)
    }

    fn replay(&mut self, partition: i32, term: u64, batches: Bytes) {
        let Some(shard) = self.shard_of(partition, term) else {
            return;
        };
        for batch in Batches::new(batches) {
            if let Some((marker, _)) = control_marker(&batch) {
                let end = match marker {
                    MarkerType::Commit => TransactionEnd::Commit,
                    MarkerType::Abort => TransactionEnd::Abort,
                };
                shard.machine.replay_marker(batch.header.producer_id(), end);
                continue;
            }
            let transaction = batch
                .header
                .is_transactional()
                .then(|| batch.header.producer_id());
            let records = match Records::all(&batch) {
                Ok(records) => records,
                Err(error) => {
                    tracing::error!(partition, offset = %batch.header.base_offset(), %error, "cannot read group records");
                    continue;
                }
            };
            for record in records {
                let Some(key) = record.key else { continue };
                let origin = RecordOrigin {
                    offset: record.offset,
                    transaction,
                };
                if let Err(error) = shard.machine.replay(origin, &key, record.value.as_deref()) {
                    tracing::warn!(partition, %error, "skipped a group record");
                }
            }
        }
    }

    fn finish_loading(&mut self, partition: i32, term: u64) {
        let now = self.now();
        let image = self.quorum.image();
        let Some(shard) = self.shard_of(partition, term) else {
            return;
        };
        shard.loading = None;
        let mut effects = shard.machine.finish_loading(now);
        // Deleted while nobody served the partition, or while it was read.
        let mut gone = std::mem::take(&mut shard.deleted);
        gone.extend(
            shard
                .machine
                .topics_with_offsets()
                .into_iter()
                .filter(|name| image.topic(name).is_none()),
        );
        effects.extend(shard.machine.on_topics_deleted(&gone, now));
        self.carry_out(partition, effects);
    }

    fn appended(&mut self, (partition, term, id, result): Finished) {
        let now = self.now();
        let Some(shard) = self.shard_of(partition, term) else {
            return;
        };
        if let Some(slot) = shard.unreported.iter_mut().find(|(known, _)| *known == id) {
            slot.1 = Some(result);
        }
        let mut effects = Vec::new();
        // The machine is told in the order of the appends.
        while let Some((id, Some(result))) = shard.unreported.front().copied() {
            shard.unreported.pop_front();
            effects.extend(shard.machine.on_appended(id, result, now));
        }
        self.carry_out(partition, effects);
    }

    fn carry_out(&mut self, partition: i32, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append { records, then } => self.append(partition, &records, then),
                Effect::Reply(token, response) => self.reply(token, response),
                Effect::Event(event) => tell(partition, &event),
            }
        }
        let groups: usize = self
            .shards
            .values()
            .map(|shard| shard.machine.group_count())
            .sum();
        self.groups.set(i64::try_from(groups).unwrap_or(i64::MAX));
    }

    fn append(&mut self, partition: i32, records: &[GroupRecord], id: AppendId) {
        let wall = self.env.clock.wall();
        let Some(shard) = self.shards.get_mut(&partition) else {
            return;
        };
        let mut builder = BatchBuilder::new(Compression::None);
        for record in records {
            builder.push(wall, Some(&record.key), record.value.as_deref(), &[]);
        }
        let term = shard.term;
        shard.unreported.push_back((id, None));
        let appended = append_batch(&shard.log, shard.epoch, builder.build(), wall);
        let (clock, timeout) = (self.env.clock.clone(), self.commit_timeout);
        self.appending.push(Box::pin(async move {
            let result = match appended {
                Err(failure) => Err(failure),
                Ok((base, None)) => Ok(base),
                Ok((base, Some(acknowledged))) => match clock.timeout(timeout, acknowledged).await {
                    Ok(Ok(Ok(()))) => {
                        if buggify("group-hears-late", 4) {
                            clock.sleep(BUGGIFY_LATE).await;
                        }
                        Ok(base)
                    }
                    Ok(Ok(Err(AckError::Storage(_)))) => Err(AppendFailure::Storage),
                    Ok(Ok(Err(AckError::NotLeader | AckError::Deleted)) | Err(_)) => {
                        Err(AppendFailure::NotLeader)
                    }
                    Err(_) => Err(AppendFailure::TimedOut),
                },
            };
            (partition, term, id, result)
        }));
    }

    fn reply(&mut self, token: ReplyToken, response: Response) {
        match self.replies.remove(&token) {
            // The client may have gone.
            Some(Reply::One(reply)) => drop(reply.send(response)),
            Some(Reply::Part(gather)) => {
                let mut gather = gather.lock();
                gather.responses.push(response);
                gather.missing -= 1;
                gather.finish();
            }
            None => tracing::error!(?token, "the group coordinator answered a request twice"),
        }
    }
}

impl Gather {
    fn finish(&mut self) {
        if self.missing == 0
            && let Some(reply) = self.reply.take()
        {
            // The client may have gone.
            drop(reply.send(std::mem::take(&mut self.responses)));
        }
    }
}

type Appended = (Offset, Option<oneshot::Receiver<Result<(), AckError>>>);

fn append_batch(
    log: &Arc<Partition>,
    epoch: LeaderEpoch,
    batch: Bytes,
    wall: skerry_types::WallMs,
) -> Result<Appended, AppendFailure> {
    let batch = ValidBatch::internal(batch).map_err(|_| AppendFailure::Storage)?;
    if batch.size_bytes() > log.settings().log.max_message_bytes as usize {
        return Err(AppendFailure::TooLarge);
    }
    // In this shard's epoch or not at all: in between, another broker may have led and written what it does not know.
    let acks = match is_planted("commit-acked-before-replicated") {
        true => Acks::Leader,
        false => Acks::All,
    };
    match log.append_in(epoch, batch, acks, wall) {
        Ok(appending) => Ok((appending.base, appending.acknowledged)),
        Err(ProduceError::NotServing(_)) => Err(AppendFailure::NotLeader),
        Err(
            ProduceError::NotEnoughReplicas(_)
            | ProduceError::DiskNearlyFull { .. }
            | ProduceError::Log(AppendError::DiskFull),
        ) => Err(AppendFailure::NotEnoughReplicas),
        Err(ProduceError::Log(AppendError::LargerThanSegment { .. })) => Err(AppendFailure::TooLarge),
        Err(ProduceError::Log(_)) => Err(AppendFailure::Storage),
    }
}

fn tell(partition: i32, event: &GroupEvent) {
    let group = &event.group_id;
    match &event.kind {
        GroupEventKind::Rebalancing { generation, reason } => {
            tracing::info!(%group, generation, reason, "the group rebalances");
        }
        GroupEventKind::GenerationStarted { generation, members } => {
            tracing::info!(%group, generation, members, "a generation of the group begins");
        }
        GroupEventKind::Stabilised { generation } => {
            tracing::info!(%group, generation, "the group is stable")
        }
        GroupEventKind::MemberRemoved { member_id, reason } => {
            tracing::info!(%group, %member_id, reason, "a member was removed from its group");
        }
        GroupEventKind::RebalancePostponed => {
            tracing::info!(%group, "nobody came to the group's rebalance: it goes on until static members' sessions end");
        }
        GroupEventKind::AppendFailed { append, failure } => {
            tracing::warn!(%group, partition, ?append, %failure, "a change of the group could not be made durable");
        }
        GroupEventKind::OffsetsRemoved { offsets } => {
            tracing::info!(%group, offsets, "offsets expired or went with their topic");
        }
    }
}
