//! Reading records, and finding offsets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse};
use skerry_types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition, WallMs};

use crate::batch::{self, FetchedBatch, FetchedRecord};
use crate::client::{Client, topic_name, wire_id};
use crate::error::{ClientError, check};

/// How records are fetched.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// How long a broker may wait for `min_bytes`.
    pub max_wait: Duration,
    /// What it waits for.
    pub min_bytes: i32,
    /// The most in one answer; one whole batch is always answered.
    pub max_bytes: i32,
    /// The most of one partition in one answer.
    pub partition_max_bytes: i32,
    /// Do not see records of open and aborted transactions.
    pub committed_only: bool,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            max_wait: Duration::from_millis(500),
            min_bytes: 1,
            max_bytes: 50 << 20,
            partition_max_bytes: 1 << 20,
            committed_only: false,
        }
    }
}

/// What one fetch answered for one partition.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset that was asked for.
    pub from: Offset,
    /// The offset to ask for next.
    pub next: Offset,
    /// The first offset that the partition has.
    pub log_start: Offset,
    /// Consumers see what is below.
    pub high_watermark: Offset,
    /// Consumers of committed transactions see what is below.
    pub last_stable: Offset,
    /// The batches, decoded.
    pub batches: Vec<FetchedBatch>,
    /// The first offset of each aborted transaction in them, with its producer.
    pub aborted: Vec<(i64, Offset)>,
    /// The batches as they came.
    pub raw: Bytes,
}

impl Fetched {
    /// The records for users: no markers, none before the offset that was asked for, and where `committed_only`, none
    /// of an aborted transaction.
    #[must_use]
    pub fn records(&self, committed_only: bool) -> Vec<FetchedRecord> {
        let mut open: Vec<i64> = Vec::new();
        let mut aborted = self.aborted.clone();
        aborted.sort_by_key(|(_, first)| *first);
        let mut aborted = aborted.into_iter().peekable();
        let mut records = Vec::new();
        for batch in &self.batches {
            while let Some((producer, _)) = aborted.next_if(|(_, first)| *first <= batch.last_offset) {
                open.push(producer);
            }
            let producer = batch.producer.id.get();
            if batch.is_control() {
                // A marker ends the producer's transaction: only the next one in the list hides records again.
                open.retain(|aborting| *aborting != producer);
            } else if !(committed_only && batch.is_transactional() && open.contains(&producer)) {
                records.extend(
                    batch
                        .records
                        .iter()
                        .filter(|record| record.offset >= self.from)
                        .cloned(),
                );
            }
        }
        records
    }
}

/// A partition could not be fetched.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{partition} at offset {from}: {source}")]
pub struct FetchError {
    /// The partition.
    pub partition: TopicPartition,
    /// The offset that was asked for.
    pub from: Offset,
    /// Why.
    pub source: ClientError,
}

/// Where to look in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OffsetSpec {
    /// The end: after the last record that consumers see.
    Latest,
    /// The first record.
    Earliest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The first record that is not older.
    At(WallMs),
    /// A number on the wire, for tests.
    Wire(i64),
}

impl OffsetSpec {
    const fn wire(self) -> i64 {
        match self {
            Self::Latest => -1,
            Self::Earliest => -2,
            Self::MaxTimestamp => -3,
            Self::At(time) => time.get(),
            Self::Wire(number) => number,
        }
    }
}

/// What ListOffsets found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset; `None` where there is no such record.
    pub offset: Option<Offset>,
    /// The record's timestamp.
    pub timestamp: WallMs,
    /// Who led when it was written.
    pub leader_epoch: LeaderEpoch,
}

impl Client {
    /// Fetches one partition once.
    ///
    /// # Errors
    /// [`ClientError`]; `OFFSET_OUT_OF_RANGE` where there is no such offset.
    pub async fn fetch(
        &self,
        partition: &TopicPartition,
        from: Offset,
        options: &FetchOptions,
    ) -> Result<Fetched, ClientError> {
        let leader = self.leader(&partition.topic, partition.partition.get()).await?;
        let mut results = self
            .fetch_from(
                leader.broker,
                &BTreeMap::from([(partition.clone(), from)]),
                options,
            )
            .await?;
        match results.pop() {
            Some(Ok(fetched)) => Ok(fetched),
            Some(Err(error)) => Err(error.source),
            None => Err(ClientError::Unanswered {
                what: format!("fetch of {partition}"),
            }),
        }
    }

    /// Fetches partitions from one broker, in one request without a session.
    ///
    /// # Errors
    /// [`ClientError`] where the request as a whole failed; each partition has a result of its own.
    pub async fn fetch_from(
        &self,
        broker: BrokerId,
        positions: &BTreeMap<TopicPartition, Offset>,
        options: &FetchOptions,
    ) -> Result<Vec<Result<Fetched, FetchError>>, ClientError> {
        let connection = self.broker(broker).await?;
        let failed = |source| ClientError::Call {
            api: "Fetch",
            addr: connection.addr().to_owned(),
            source,
        };
        let mut version = connection.version::<FetchRequest>().map_err(failed)?;
        let mut topics: BTreeMap<Arc<str>, (TopicId, Vec<FetchPartition>)> = BTreeMap::new();
        for (partition, from) in positions {
            let leader = self.leader(&partition.topic, partition.partition.get()).await?;
            let mut asked = FetchPartition::default()
                .with_partition(partition.partition.get())
                .with_fetch_offset(from.get())
                .with_partition_max_bytes(options.partition_max_bytes);
            if version >= 9 {
                asked.current_leader_epoch = leader.epoch.get();
            }
            let entry = topics
                .entry(partition.topic.clone())
                .or_insert((leader.topic_id, Vec::new()));
            entry.1.push(asked);
        }
        // From version 13 on a topic is named by its id.
        if version >= 13 && topics.values().any(|(id, _)| id.is_zero()) {
            version = 12;
        }
        let names: BTreeMap<TopicId, Arc<str>> =
            topics.iter().map(|(name, (id, _))| (*id, name.clone())).collect();
        let request = fetch_request(topics, version, options);
        let timeout = self.options().request_timeout + options.max_wait;
        let response = connection
            .call_version(&request, version, timeout)
            .await
            .map_err(failed)?;
        check(response.error_code, None, || "fetch".to_owned())?;
        Ok(self.read_fetch(response, version, &names, positions))
    }

    fn read_fetch(
        &self,
        response: FetchResponse,
        version: i16,
        names: &BTreeMap<TopicId, Arc<str>>,
        positions: &BTreeMap<TopicPartition, Offset>,
    ) -> Vec<Result<Fetched, FetchError>> {
        let mut results = Vec::new();
        for topic in response.responses {
            let name: Arc<str> = match version {
                13.. => match names.get(&skerry_types::Uuid(topic.topic_id.into_bytes())) {
                    Some(name) => name.clone(),
                    None => continue,
                },
                _ => Arc::from(topic.topic.0.as_str()),
            };
            for data in topic.partitions {
                let partition = TopicPartition {
                    topic: name.clone(),
                    partition: PartitionIndex(data.partition_index),
                };
                let Some(from) = positions.get(&partition).copied() else {
                    continue;
                };
                let read = check(data.error_code, None, || "fetch".to_owned()).and_then(|()| {
                    let raw = data.records.unwrap_or_default();
                    let batches = batch::decode(raw.clone())?;
                    let next = batches
                        .last()
                        .map_or(from, |last| last.last_offset.next().max(from));
                    let aborted = data.aborted_transactions.unwrap_or_default();
                    Ok(Fetched {
                        partition: partition.clone(),
                        from,
                        next,
                        log_start: Offset(data.log_start_offset),
                        high_watermark: Offset(data.high_watermark),
                        last_stable: Offset(data.last_stable_offset),
                        aborted: aborted
                            .iter()
                            .map(|txn| (txn.producer_id.0, Offset(txn.first_offset)))
                            .collect(),
                        batches,
                        raw,
                    })
                });
                if let Err(error) = &read
                    && error.code().is_some_and(leadership_changed)
                {
                    self.forget(&name);
                }
                results.push(read.map_err(|source| FetchError {
                    partition,
                    from,
                    source,
                }));
            }
        }
        results
    }

    /// Finds one offset.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_offset(
        &self,
        partition: &TopicPartition,
        spec: OffsetSpec,
        committed_only: bool,
    ) -> Result<FoundOffset, ClientError> {
        let index = partition.partition.get();
        let leader = self.leader(&partition.topic, index).await?;
        let connection = self.broker(leader.broker).await?;
        let failed = |source| ClientError::Call {
            api: "ListOffsets",
            addr: connection.addr().to_owned(),
            source,
        };
        let version = connection.version::<ListOffsetsRequest>().map_err(failed)?;
        let mut asked = ListOffsetsPartition::default()
            .with_partition_index(index)
            .with_timestamp(spec.wire());
        if version >= 4 {
            asked.current_leader_epoch = leader.epoch.get();
        }
        let topic = ListOffsetsTopic::default()
            .with_name(topic_name(&partition.topic))
            .with_partitions(vec![asked]);
        let mut request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_topics(vec![topic]);
        if version >= 2 {
            request.isolation_level = i8::from(committed_only);
        }
        if version >= 10 {
            request.timeout_ms =
                i32::try_from(self.options().request_timeout.as_millis()).unwrap_or(i32::MAX);
        }
        let timeout = self.options().request_timeout;
        let response: ListOffsetsResponse = connection
            .call_version(&request, version, timeout)
            .await
            .map_err(failed)?;
        let what = || format!("offsets of {partition}");
        let answer = response.topics.first().and_then(|topic| topic.partitions.first());
        let answer = answer.ok_or_else(|| ClientError::Unanswered { what: what() })?;
        let checked = check(answer.error_code, None, what);
        if let Err(error) = &checked
            && error.code().is_some_and(leadership_changed)
        {
            self.forget(&partition.topic);
        }
        checked?;
        Ok(FoundOffset {
            offset: Some(Offset(answer.offset)).filter(|offset| offset.get() >= 0),
            timestamp: WallMs(answer.timestamp),
            leader_epoch: LeaderEpoch(answer.leader_epoch),
        })
    }
}

fn fetch_request(
    topics: BTreeMap<Arc<str>, (TopicId, Vec<FetchPartition>)>,
    version: i16,
    options: &FetchOptions,
) -> FetchRequest {
    let topics = topics.into_iter().map(|(name, (id, partitions))| {
        let mut topic = FetchTopic::default().with_partitions(partitions);
        if version >= 13 {
            topic.topic_id = wire_id(id);
        } else {
            topic.topic = topic_name(&name);
        }
        topic
    });
    let mut request = FetchRequest::default()
        .with_max_wait_ms(i32::try_from(options.max_wait.as_millis()).unwrap_or(i32::MAX))
        .with_min_bytes(options.min_bytes)
        .with_max_bytes(options.max_bytes)
        .with_isolation_level(i8::from(options.committed_only))
        .with_topics(topics.collect());
    if version >= 7 {
        // No session: each request says all.
        request.session_epoch = -1;
    }
    request
}

/// The metadata that led to this error is out of date.
pub(crate) const fn leadership_changed(code: ResponseError) -> bool {
    matches!(
        code,
        ResponseError::NotLeaderOrFollower
            | ResponseError::LeaderNotAvailable
            | ResponseError::FencedLeaderEpoch
            | ResponseError::UnknownLeaderEpoch
            | ResponseError::UnknownTopicOrPartition
            | ResponseError::UnknownTopicId
            | ResponseError::InconsistentTopicId
            | ResponseError::ReplicaNotAvailable
    )
}

type BrokerFetch = BoxFuture<
    'static,
    (
        Option<BrokerId>,
        Result<Vec<Result<Fetched, FetchError>>, ClientError>,
    ),
>;

/// Reads several partitions at once: one request on the way to each leader.
pub struct Fetcher {
    client: Client,
    options: FetchOptions,
    positions: BTreeMap<TopicPartition, Offset>,
    on_the_way: FuturesUnordered<BrokerFetch>,
    busy: BTreeMap<Option<BrokerId>, Vec<TopicPartition>>,
    ready: Vec<Result<Fetched, FetchError>>,
    failures: u32,
}

impl Fetcher {
    /// A fetcher without partitions.
    #[must_use]
    pub fn new(client: &Client, options: FetchOptions) -> Self {
        Self {
            client: client.clone(),
            options,
            positions: BTreeMap::new(),
            on_the_way: FuturesUnordered::new(),
            busy: BTreeMap::new(),
            ready: Vec::new(),
            failures: 0,
        }
    }

    /// Reads `partition` from `from` on. What is on its way for an earlier position is not returned any more.
    pub fn seek(&mut self, partition: TopicPartition, from: Offset) {
        self.positions.insert(partition, from);
    }

    /// Reads `partition` no more.
    pub fn remove(&mut self, partition: &TopicPartition) {
        self.positions.remove(partition);
    }

    /// Where each partition stands.
    #[must_use]
    pub fn positions(&self) -> &BTreeMap<TopicPartition, Offset> {
        &self.positions
    }

    /// Waits for the next answer of a partition: with records, or without any where its broker had none in time.
    /// Moves the position behind it. Cancel-safe.
    ///
    /// # Errors
    /// [`FetchError`] of one partition, whose position stays. Errors that pass are tried again here.
    pub async fn next(&mut self) -> Result<Fetched, FetchError> {
        loop {
            while let Some(result) = self.ready.pop() {
                match result {
                    Ok(fetched) => {
                        let Some(position) = self.positions.get_mut(&fetched.partition) else {
                            continue;
                        };
                        if *position != fetched.from {
                            continue;
                        }
                        *position = fetched.next;
                        self.failures = 0;
                        return Ok(fetched);
                    }
                    Err(error) if error.source.is_retriable() => {
                        tracing::debug!(%error, "fetch: trying again");
                        self.failures += 1;
                    }
                    Err(error) if self.positions.contains_key(&error.partition) => return Err(error),
                    Err(_) => {}
                }
            }
            self.send().await;
            if !self.ready.is_empty() {
                continue;
            }
            match self.on_the_way.next().await {
                Some((broker, answer)) => {
                    let asked = self.busy.remove(&broker).unwrap_or_default();
                    match answer {
                        Ok(mut results) => {
                            results.reverse();
                            self.ready = results;
                        }
                        Err(error) => self.whole_failed(error, &asked),
                    }
                }
                // No partitions: whoever waits must be woken by something else.
                None => std::future::pending().await,
            }
        }
    }

    fn whole_failed(&mut self, error: ClientError, asked: &[TopicPartition]) {
        self.failures += 1;
        tracing::debug!(%error, "fetch: a broker's answer as a whole failed");
        for partition in asked {
            self.client.forget(&partition.topic);
            if !error.is_retriable()
                && let Some(from) = self.positions.get(partition).copied()
            {
                self.ready.push(Err(FetchError {
                    partition: partition.clone(),
                    from,
                    source: error.clone(),
                }));
            }
        }
    }

    /// Sends a request to each leader that has none on its way. Partitions without a leader wait a little.
    async fn send(&mut self) {
        let asked: Vec<TopicPartition> = self.busy.values().flatten().cloned().collect();
        let mut by_leader: BTreeMap<Option<BrokerId>, BTreeMap<TopicPartition, Offset>> = BTreeMap::new();
        for (partition, from) in &self.positions {
            if asked.contains(partition) {
                continue;
            }
            let leader = match self
                .client
                .leader(&partition.topic, partition.partition.get())
                .await
            {
                Ok(leader) => Some(leader.broker),
                Err(error) if error.is_retriable() => None,
                Err(source) => {
                    self.ready.push(Err(FetchError {
                        partition: partition.clone(),
                        from: *from,
                        source,
                    }));
                    continue;
                }
            };
            by_leader
                .entry(leader)
                .or_default()
                .insert(partition.clone(), *from);
        }
        for (leader, positions) in by_leader {
            if self.busy.contains_key(&leader) {
                continue;
            }
            self.busy.insert(leader, positions.keys().cloned().collect());
            let (client, options) = (self.client.clone(), self.options.clone());
            let pause = client.backoff(self.failures);
            let failures = self.failures;
            self.on_the_way.push(Box::pin(async move {
                if failures > 0 || leader.is_none() {
                    client.env().clock.sleep(pause).await;
                }
                match leader {
                    Some(broker) => (leader, client.fetch_from(broker, &positions, &options).await),
                    None => (None, Ok(Vec::new())),
                }
            }));
        }
    }
}
