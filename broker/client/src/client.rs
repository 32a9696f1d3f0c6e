//! A cluster as one client sees it: its brokers, its topics, and who leads what.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::{Request, StrBytes};
use parking_lot::Mutex;
use skerry_env::Env;
use skerry_types::{BrokerId, Instant, LeaderEpoch, TopicId, Uuid};

use crate::connection::{Connection, ConnectionOptions};
use crate::error::{ClientError, check};

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Addresses (`host:port`) to begin with; one that answers is enough.
    pub bootstrap: Vec<String>,
    /// For one request.
    pub request_timeout: Duration,
    /// For an operation with all its tries.
    pub operation_timeout: Duration,
    /// Before the second try; it doubles from try to try.
    pub backoff_min: Duration,
    /// It doubles no further.
    pub backoff_max: Duration,
    /// Of each connection.
    pub connection: ConnectionOptions,
}

impl ClientOptions {
    /// The usual options for a cluster at `bootstrap`: `host:port`, several separated by commas.
    #[must_use]
    pub fn new(bootstrap: &str) -> Self {
        Self {
            bootstrap: bootstrap
                .split(',')
                .map(str::trim)
                .filter(|addr| !addr.is_empty())
                .map(str::to_owned)
                .collect(),
            request_timeout: Duration::from_secs(30),
            operation_timeout: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(1),
            connection: ConnectionOptions::default(),
        }
    }
}

/// A partition as the metadata tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionMetadata {
    /// Its number.
    pub index: i32,
    /// Kafka's error, 0 for none.
    pub error_code: i16,
    /// Who leads.
    pub leader: Option<BrokerId>,
    /// The leader's epoch.
    pub leader_epoch: LeaderEpoch,
    /// Who has it, the preferred leader first.
    pub replicas: Vec<BrokerId>,
    /// Who is in sync.
    pub in_sync: Vec<BrokerId>,
    /// Who has it and is away.
    pub offline: Vec<BrokerId>,
}

/// A topic as the metadata tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicMetadata {
    /// Its name.
    pub name: Arc<str>,
    /// Its id; zero where the broker has none.
    pub id: TopicId,
    /// Kept by the brokers for themselves.
    pub internal: bool,
    /// By number.
    pub partitions: Vec<PartitionMetadata>,
}

/// A broker as the metadata tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerMetadata {
    /// Its number.
    pub id: BrokerId,
    /// Where it listens for clients.
    pub addr: String,
    /// Where it stands.
    pub rack: Option<String>,
}

/// What a Metadata answer tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterMetadata {
    /// The cluster's id.
    pub cluster_id: Option<String>,
    /// Whom the answer names as the controller.
    pub controller: Option<BrokerId>,
    /// By number.
    pub brokers: Vec<BrokerMetadata>,
    /// Those asked for that exist, by name.
    pub topics: Vec<TopicMetadata>,
    /// Those asked for that have an error instead.
    pub errors: Vec<(String, i16)>,
}

/// A client of one cluster. Clones share everything.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    env: Env,
    options: ClientOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connections: BTreeMap<String, Connection>,
    brokers: BTreeMap<BrokerId, String>,
    topics: BTreeMap<Arc<str>, Arc<TopicMetadata>>,
}

impl Client {
    /// A client that has not connected yet.
    #[must_use]
    pub fn new(env: &Env, options: ClientOptions) -> Self {
        Self(Arc::new(Inner {
            env: env.clone(),
            options,
            state: Mutex::default(),
        }))
    }

    /// The world that it lives in.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.0.env
    }

    /// How it behaves.
    #[must_use]
    pub fn options(&self) -> &ClientOptions {
        &self.0.options
    }

    /// A connection to `addr`, kept for later calls.
    ///
    /// # Errors
    /// [`ClientError::Connect`].
    pub async fn connect(&self, addr: &str) -> Result<Connection, ClientError> {
        let kept = self
            .0
            .state
            .lock()
            .connections
            .get(addr)
            .filter(|kept| kept.closed().is_none())
            .cloned();
        if let Some(connection) = kept {
            return Ok(connection);
        }
        let connection = Connection::open(&self.0.env, addr, &self.0.options.connection).await?;
        self.0
            .state
            .lock()
            .connections
            .insert(addr.to_owned(), connection.clone());
        Ok(connection)
    }

    /// A connection to broker `id`.
    ///
    /// # Errors
    /// [`ClientError`]: it is unknown, or cannot be reached.
    pub async fn broker(&self, id: BrokerId) -> Result<Connection, ClientError> {
        let known = self.0.state.lock().brokers.get(&id).cloned();
        let addr = match known {
            Some(addr) => addr,
            None => {
                self.metadata(Some(&[]), false).await?;
                let known = self.0.state.lock().brokers.get(&id).cloned();
                known.ok_or_else(|| ClientError::Unanswered {
                    what: format!("the address of broker {id}"),
                })?
            }
        };
        self.connect(&addr).await
    }

    /// A connection to any broker: one that is open, else one that the metadata named, else a bootstrap address.
    ///
    /// # Errors
    /// [`ClientError::Connect`] of the last that was tried.
    pub async fn any_broker(&self) -> Result<Connection, ClientError> {
        let (open, known) = {
            let state = self.0.state.lock();
            let open = state
                .connections
                .values()
                .find(|kept| kept.closed().is_none())
                .cloned();
            (open, state.brokers.values().cloned().collect::<Vec<_>>())
        };
        if let Some(connection) = open {
            return Ok(connection);
        }
        let mut last = None;
        for addr in self.0.options.bootstrap.iter().chain(&known) {
            match self.connect(addr).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| ClientError::Unanswered {
            what: "a bootstrap address".to_owned(),
        }))
    }

    /// One request to `connection`.
    ///
    /// # Errors
    /// [`ClientError::Call`].
    pub async fn call<R: Request>(
        &self,
        connection: &Connection,
        api: &'static str,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        let called = connection.call(request, self.0.options.request_timeout).await;
        called.map_err(|source| ClientError::Call {
            api,
            addr: connection.addr().to_owned(),
            source,
        })
    }

    /// Asks for metadata: of all topics, or of those named. `create` lets the broker make those that are missing,
    /// where its settings allow it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn metadata(
        &self,
        topics: Option<&[&str]>,
        create: bool,
    ) -> Result<ClusterMetadata, ClientError> {
        let connection = self.any_broker().await?;
        let version = connection.version::<MetadataRequest>();
        let version = version.map_err(|source| ClientError::Call {
            api: "Metadata",
            addr: connection.addr().to_owned(),
            source,
        })?;
        let topics = topics.map(|names| {
            let topic = |name: &&str| MetadataRequestTopic::default().with_name(Some(topic_name(name)));
            names.iter().map(topic).collect()
        });
        let mut request = MetadataRequest::default().with_topics(topics);
        if version >= 4 {
            request.allow_auto_topic_creation = create;
        }
        let response: MetadataResponse = self.call(&connection, "Metadata", &request).await?;
        check(response.error_code, None, || "metadata".to_owned())?;
        let metadata = read_metadata(response);
        self.remember(&metadata);
        Ok(metadata)
    }

    fn remember(&self, metadata: &ClusterMetadata) {
        let mut state = self.0.state.lock();
        state.brokers = metadata
            .brokers
            .iter()
            .map(|broker| (broker.id, broker.addr.clone()))
            .collect();
        for (name, _) in &metadata.errors {
            state.topics.remove(name.as_str());
        }
        for topic in &metadata.topics {
            state.topics.insert(topic.name.clone(), Arc::new(topic.clone()));
        }
    }

    /// Forgets what it knows of `topic`, so that the next use asks again.
    pub fn forget(&self, topic: &str) {
        self.0.state.lock().topics.remove(topic);
    }

    /// A topic's metadata, asked for where it is not known.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] with `UNKNOWN_TOPIC_OR_PARTITION` where there is none.
    pub async fn topic(&self, name: &str, create: bool) -> Result<Arc<TopicMetadata>, ClientError> {
        let known = self.0.state.lock().topics.get(name).cloned();
        if let Some(topic) = known {
            return Ok(topic);
        }
        let metadata = self.metadata(Some(&[name]), create).await?;
        if let Some((_, code)) = metadata.errors.iter().find(|(topic, _)| topic == name) {
            check(*code, None, || format!("topic {name}"))?;
        }
        let found = metadata.topics.into_iter().find(|topic| &*topic.name == name);
        found.map(Arc::new).ok_or_else(|| ClientError::Unanswered {
            what: format!("topic {name}"),
        })
    }

    /// Who leads a partition, with the leader's epoch and the topic's id.
    ///
    /// # Errors
    /// [`ClientError::NoLeader`], [`ClientError::NoSuchPartition`], and whatever asking for it brings.
    pub async fn leader(&self, topic: &str, partition: i32) -> Result<Leader, ClientError> {
        let metadata = self.topic(topic, false).await?;
        let found = metadata
            .partitions
            .iter()
            .find(|candidate| candidate.index == partition);
        let found = found.ok_or_else(|| ClientError::NoSuchPartition {
            topic: topic.to_owned(),
            partition,
            count: metadata.partitions.len(),
        })?;
        let broker = found.leader.ok_or_else(|| {
            self.forget(topic);
            ClientError::NoLeader {
                topic: topic.to_owned(),
                partition,
            }
        })?;
        Ok(Leader {
            broker,
            epoch: found.leader_epoch,
            topic_id: metadata.id,
        })
    }

    /// Tries `attempt` again, with growing pauses, while it fails in a way that may pass.
    ///
    /// # Errors
    /// The first error that will not pass, or [`ClientError::GaveUp`] after the operation's time.
    pub async fn retry<T, F, Fut>(&self, attempt: F) -> Result<T, ClientError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        self.retry_until(self.0.env.clock.now() + self.0.options.operation_timeout, attempt)
            .await
    }

    /// As [`Self::retry`], until `deadline`.
    ///
    /// # Errors
    /// As [`Self::retry`].
    pub async fn retry_until<T, F, Fut>(&self, deadline: Instant, mut attempt: F) -> Result<T, ClientError>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, ClientError>>,
    {
        let mut tries = 0;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) if !error.is_retriable() => return Err(error),
                Err(error) => error,
            };
            tries += 1;
            let pause = self.backoff(tries);
            if self.0.env.clock.now() + pause >= deadline {
                return Err(ClientError::GaveUp {
                    tries,
                    last: Box::new(error),
                });
            }
            tracing::debug!(%error, tries, "trying again");
            self.0.env.clock.sleep(pause).await;
        }
    }

    /// The pause before try `tries` + 1, spread so that clients that failed together do not come back together.
    #[must_use]
    pub fn backoff(&self, tries: u32) -> Duration {
        let options = &self.0.options;
        let doubled = options
            .backoff_min
            .saturating_mul(1 << tries.saturating_sub(1).min(16));
        let pause = doubled.min(options.backoff_max);
        let spread = u64::try_from(pause.as_nanos() / 4).unwrap_or(u64::MAX);
        pause - Duration::from_nanos(self.0.env.rng.below(spread))
    }
}

/// A partition's leader as the metadata tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Who.
    pub broker: BrokerId,
    /// Its epoch.
    pub epoch: LeaderEpoch,
    /// The topic's id; zero where the broker has none.
    pub topic_id: TopicId,
}

fn read_metadata(response: MetadataResponse) -> ClusterMetadata {
    let brokers = response.brokers.into_iter().map(|broker| BrokerMetadata {
        id: BrokerId(broker.node_id.0),
        addr: address(&broker.host, broker.port),
        rack: broker.rack.map(|rack| rack.to_string()),
    });
    let mut brokers: Vec<BrokerMetadata> = brokers.collect();
    brokers.sort_by_key(|broker| broker.id);
    let (mut topics, mut errors) = (Vec::new(), Vec::new());
    for topic in response.topics {
        let Some(name) = topic.name else { continue };
        if topic.error_code != 0 {
            errors.push((name.0.to_string(), topic.error_code));
            continue;
        }
        let ids = |nodes: Vec<kafka_protocol::messages::BrokerId>| -> Vec<BrokerId> {
            nodes.into_iter().map(|node| BrokerId(node.0)).collect()
        };
        let partitions = topic.partitions.into_iter().map(|partition| PartitionMetadata {
            index: partition.partition_index,
            error_code: partition.error_code,
            leader: Some(BrokerId(partition.leader_id.0)).filter(|leader| leader.get() >= 0),
            leader_epoch: LeaderEpoch(partition.leader_epoch),
            replicas: ids(partition.replica_nodes),
            in_sync: ids(partition.isr_nodes),
            offline: ids(partition.offline_replicas),
        });
        let mut partitions: Vec<PartitionMetadata> = partitions.collect();
        partitions.sort_by_key(|partition| partition.index);
        topics.push(TopicMetadata {
            name: Arc::from(name.0.as_str()),
            id: Uuid(topic.topic_id.into_bytes()),
            internal: topic.is_internal,
            partitions,
        });
    }
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    ClusterMetadata {
        cluster_id: response.cluster_id.map(|id| id.to_string()),
        controller: Some(BrokerId(response.controller_id.0)).filter(|id| id.get() >= 0),
        brokers,
        topics,
        errors,
    }
}

/// `host:port`, an IPv6 address in brackets.
pub(crate) fn address(host: &str, port: i32) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

pub(crate) fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

pub(crate) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(crate) fn wire_id(id: TopicId) -> uuid::Uuid {
    uuid::Uuid::from_bytes(id.0)
}
