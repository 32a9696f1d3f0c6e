//! The shell around the group coordinators: one task drives the pure [`GroupShard`] of each partition of
//! `__consumer_offsets` that this broker leads.
//!
//! The task is the only owner of the shards: requests, finished appends, loaded records and timers come to it in one
//! order, and it carries out their effects in the order in which they must happen.

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
use skerry_metadata_state::Delta;
use skerry_types::{Instant, LeaderEpoch, Offset};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::broker::Broker;
use crate::partition::{AckError, Acks, Isolation, Partition, ProduceError, ReadSpec};
use crate::partitions::Partitions;
use crate::settings::Settings;
use crate::topics::CONSUMER_OFFSETS;

/// Messages that may wait for the task. Whoever sends one more waits: connections are bounded, and so is this.
const INBOX_MAX: usize = 1024;
/// How much of a log is read at a time while a shard loads.
const LOAD_BYTES: u32 = 1024 * 1024;

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
    },
    /// Requests to every shard, for answers that cover all groups of this broker.
    Every {
        request: Box<Request>,
        reply: oneshot::Sender<Vec<Response>>,
    },
    Lead {
        partition: i32,
        epoch: LeaderEpoch,
        log: Arc<Partition>,
    },
    Resign {
        partition: i32,
    },
    Loaded {
        partition: i32,
        epoch: LeaderEpoch,
        batches: Bytes,
    },
    LoadFinished {
        partition: i32,
        epoch: LeaderEpoch,
        result: Result<(), String>,
    },
    TopicsDeleted(BTreeSet<Arc<str>>),
    Settings(GroupSettings),
    Stop,
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
            partitions,
            settings,
            env,
        }
    }

    /// Begins to coordinate.
    pub async fn start(&self, broker: &Arc<Broker>) {
        let Some(receiver) = self.start.lock().take() else {
            return;
        };
        let driver = Driver::new(self, broker.metrics().groups.clone());
        *self.task.lock() = Some(self.env.tasks.spawn("groups", driver.run(receiver)));
        self.follow(broker, &[Delta::Reset]).await;
    }

    /// Takes over what the metadata has changed.
    pub async fn follow(&self, broker: &Arc<Broker>, deltas: &[Delta]) {
        if self.task.lock().is_none() {
            return;
        }
        let mut deleted = BTreeSet::new();
        let mut led = false;
        for delta in deltas {
            match delta {
                Delta::TopicDeleted { name, .. } => {
                    led |= &**name == CONSUMER_OFFSETS;
                    deleted.insert(name.clone());
                }
                Delta::TopicCreated { name, .. } | Delta::PartitionChanged { name, .. } => {
                    led |= &**name == CONSUMER_OFFSETS;
                }
                Delta::Reset => led = true,
                Delta::ConfigChanged(_) => self.send(Message::Settings(self.group_settings())).await,
                Delta::ClusterNamed(_) | Delta::BrokerChanged(_) | Delta::FeatureLevelChanged(_) => {}
            }
        }
        if led {
            self.follow_leadership(broker).await;
        }
        if !deleted.is_empty() {
            self.send(Message::TopicsDeleted(deleted)).await;
        }
    }

    async fn follow_leadership(&self, broker: &Arc<Broker>) {
        let count = broker
            .image()
            .topic(CONSUMER_OFFSETS)
            .map_or(0, |topic| topic.partitions.len());
        let local = self.partitions.topic(CONSUMER_OFFSETS);
        for partition in (0..count).filter_map(|index| i32::try_from(index).ok()) {
            let log = local.as_ref().and_then(|topic| topic.partition(partition));
            let epoch = log.as_ref().and_then(|log| {
                log.with_leader(LeaderEpoch::UNKNOWN, |_, leader| leader.epoch())
                    .ok()
            });
            match (log, epoch) {
                (Some(log), Some(epoch)) => {
                    self.send(Message::Lead {
                        partition,
                        epoch,
                        log,
                    })
                    .await
                }
                _ => self.send(Message::Resign { partition }).await,
            }
        }
    }

    /// Asks the coordinator of `group`.
    ///
    /// # Errors
    /// [`CoordinatorError`].
    pub async fn call(
        &self,
        broker: &Broker,
        group: &str,
        request: Request,
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
        let message = Message::Request {
            partition: partition_for(group, count),
            request: Box::new(request),
            reply,
        };
        self.inbox
            .send(message)
            .await
            .map_err(|_| CoordinatorError::NotAvailable)?;
        answer.await.map_err(|_| CoordinatorError::NotCoordinator)
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

/// The outcome of one append, with the shard and the leadership that it belongs to.
type Finished = (i32, LeaderEpoch, AppendId, Result<Offset, AppendFailure>);
type Appending = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// The task.
struct Driver {
    env: Env,
    inbox: mpsc::Sender<Message>,
    settings: GroupSettings,
    commit_timeout: Duration,
    shards: BTreeMap<i32, Shard>,
    replies: BTreeMap<ReplyToken, Reply>,
    next_token: u64,
    appending: FuturesUnordered<Appending>,
    groups: prometheus_client::metrics::gauge::Gauge,
}

struct Shard {
    machine: GroupShard,
    epoch: LeaderEpoch,
    log: Arc<Partition>,
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
    fn new(groups: &Groups, gauge: prometheus_client::metrics::gauge::Gauge) -> Self {
        Self {
            env: groups.env.clone(),
            inbox: groups.inbox.clone(),
            settings: groups.group_settings(),
            commit_timeout: groups.settings.broker().offsets_commit_timeout,
            shards: BTreeMap::new(),
            replies: BTreeMap::new(),
            next_token: 0,
            appending: FuturesUnordered::new(),
            groups: gauge,
        }
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let clock = self.env.clock.clone();
        let mut alarm_at = Instant::FAR_FUTURE;
        let mut alarm = clock.sleep_until(alarm_at);
        loop {
            let due = self
                .shards
                .values()
                .filter_map(|shard| shard.machine.next_deadline())
                .min();
            let due = due.unwrap_or(Instant::FAR_FUTURE);
            if due != alarm_at {
                alarm_at = due;
                alarm = clock.sleep_until(due);
            }
            tokio::select! {
                biased;
                Some(finished) = self.appending.next(), if !self.appending.is_empty() => self.appended(finished),
                message = inbox.recv() => match message {
                    Some(Message::Stop) | None => break,
                    Some(message) => self.receive(message),
                },
                () = &mut alarm, if due != Instant::FAR_FUTURE => {
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
            } => self.request(partition, *request, Reply::One(reply)),
            Message::Every { request, reply } => self.every(&request, reply),
            Message::Lead {
                partition,
                epoch,
                log,
            } => self.lead(partition, epoch, log),
            Message::Resign { partition } => self.resign(partition),
            Message::Loaded {
                partition,
                epoch,
                batches,
            } => self.replay(partition, epoch, batches),
            Message::LoadFinished {
                partition,
                epoch,
                result,
            } => self.finish_loading(partition, epoch, result),
            Message::TopicsDeleted(names) => {
                let now = self.now();
                self.for_each_shard(|shard| shard.machine.on_topics_deleted(&names, now));
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
        let effects = shard.machine.handle(token, request, now);
        self.carry_out(partition, effects);
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

    fn lead(&mut self, partition: i32, epoch: LeaderEpoch, log: Arc<Partition>) {
        if self
            .shards
            .get(&partition)
            .is_some_and(|shard| shard.epoch == epoch)
        {
            return;
        }
        self.resign(partition);
        let mut machine = GroupShard::new(self.settings);
        machine.start_loading();
        let loader = Loader {
            env: self.env.clone(),
            inbox: self.inbox.clone(),
            partition,
            epoch,
            log: log.clone(),
        };
        let loading = Some(self.env.tasks.spawn("groups-load", loader.run()));
        self.shards.insert(
            partition,
            Shard {
                machine,
                epoch,
                log,
                unreported: VecDeque::new(),
                loading,
            },
        );
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

    fn replay(&mut self, partition: i32, epoch: LeaderEpoch, batches: Bytes) {
        let Some(shard) = self
            .shards
            .get_mut(&partition)
            .filter(|shard| shard.epoch == epoch)
        else {
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

    fn finish_loading(&mut self, partition: i32, epoch: LeaderEpoch, result: Result<(), String>) {
        let now = self.now();
        let Some(shard) = self
            .shards
            .get_mut(&partition)
            .filter(|shard| shard.epoch == epoch)
        else {
            return;
        };
        shard.loading = None;
        match result {
            Ok(()) => {
                let effects = shard.machine.finish_loading(now);
                self.carry_out(partition, effects);
            }
            Err(why) => {
                tracing::error!(
                    partition,
                    why,
                    "cannot load the groups: their coordinator stays unavailable"
                );
            }
        }
    }

    fn appended(&mut self, (partition, epoch, id, result): Finished) {
        let now = self.now();
        let Some(shard) = self
            .shards
            .get_mut(&partition)
            .filter(|shard| shard.epoch == epoch)
        else {
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
        let epoch = shard.epoch;
        shard.unreported.push_back((id, None));
        let appended = append_batch(&shard.log, builder.build(), wall);
        let (clock, timeout) = (self.env.clock.clone(), self.commit_timeout);
        self.appending.push(Box::pin(async move {
            let result = match appended {
                Err(failure) => Err(failure),
                Ok((base, None)) => Ok(base),
                Ok((base, Some(acknowledged))) => match clock.timeout(timeout, acknowledged).await {
                    Ok(Ok(Ok(()))) => Ok(base),
                    Ok(Ok(Err(AckError::Storage(_)))) => Err(AppendFailure::Storage),
                    Ok(Ok(Err(AckError::NotLeader | AckError::Deleted)) | Err(_)) => {
                        Err(AppendFailure::NotLeader)
                    }
                    Err(_) => Err(AppendFailure::TimedOut),
                },
            };
            (partition, epoch, id, result)
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
    batch: Bytes,
    wall: skerry_types::WallMs,
) -> Result<Appended, AppendFailure> {
    let batch = ValidBatch::internal(batch).map_err(|_| AppendFailure::Storage)?;
    if batch.size_bytes() > log.settings().log.max_message_bytes as usize {
        return Err(AppendFailure::TooLarge);
    }
    match log.append(batch, Acks::All, wall) {
        Ok(appending) => Ok((appending.base, appending.acknowledged)),
        Err(ProduceError::NotServing(_)) => Err(AppendFailure::NotLeader),
        Err(ProduceError::NotEnoughReplicas(_) | ProduceError::DiskNearlyFull { .. }) => {
            Err(AppendFailure::NotEnoughReplicas)
        }
        Err(ProduceError::Log(AppendError::DiskFull)) => Err(AppendFailure::NotEnoughReplicas),
        Err(ProduceError::Log(AppendError::LargerThanSegment { .. })) => Err(AppendFailure::TooLarge),
        Err(ProduceError::Log(_)) => Err(AppendFailure::Storage),
    }
}

/// Reads one partition of `__consumer_offsets` from its start to its high watermark.
struct Loader {
    env: Env,
    inbox: mpsc::Sender<Message>,
    partition: i32,
    epoch: LeaderEpoch,
    log: Arc<Partition>,
}

impl Loader {
    async fn run(self) {
        let result = self.load().await;
        let (partition, epoch) = (self.partition, self.epoch);
        // The task has ended: nobody needs the groups.
        let _ = self
            .inbox
            .send(Message::LoadFinished {
                partition,
                epoch,
                result,
            })
            .await;
    }

    async fn load(&self) -> Result<(), String> {
        let bounds = self.log.with_leader(self.epoch, |log, leader| {
            (log.log_start(), leader.high_watermark())
        });
        let (mut from, upper) = bounds.map_err(|error| error.to_string())?;
        while from < upper {
            let spec = ReadSpec {
                from,
                isolation: Isolation::ReadUncommitted,
                leader_epoch: self.epoch,
                last_fetched_epoch: LeaderEpoch::UNKNOWN,
                max_bytes: LOAD_BYTES,
                one_batch_at_least: true,
            };
            let plan = self.log.read(&spec).map_err(|error| error.to_string())?.plan;
            let batches = self
                .env
                .tasks
                .run_blocking(move || plan.run())
                .await
                .map_err(|error| error.to_string())?;
            let last = Batches::new(batches.clone()).last();
            // Compaction may leave nothing between here and the end.
            let Some(last) = last else { break };
            from = last.header.next_offset();
            let (partition, epoch) = (self.partition, self.epoch);
            if self
                .inbox
                .send(Message::Loaded {
                    partition,
                    epoch,
                    batches,
                })
                .await
                .is_err()
            {
                break;
            }
        }
        Ok(())
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
