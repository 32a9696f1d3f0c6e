//! Writing records: in order, each once where the producer is idempotent, with the truth about what failed.

mod sender;

use std::collections::BTreeMap;
use std::time::Duration;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse};
use parking_lot::Mutex;
use skerry_env::TaskHandle;
use skerry_types::{Offset, ProducerEpoch, ProducerId, ProducerIdentity, TopicPartition, WallMs};
use tokio::sync::{mpsc, oneshot};

use crate::batch::{self, Record};
use crate::client::Client;
use crate::codec::Compression;
use crate::error::{ClientError, check};

/// When a broker answers a Produce.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acks {
    /// Never.
    None,
    /// When the leader has the records.
    Leader,
    /// When all in-sync replicas have them.
    #[default]
    All,
}

impl Acks {
    pub(crate) const fn wire(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }
}

/// How a producer behaves.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// When a broker answers.
    pub acks: Acks,
    /// Numbers its batches, so that a broker takes each once however often it is sent. Needs [`Acks::All`].
    pub idempotent: bool,
    /// Of each batch.
    pub compression: Compression,
    /// Batches on the way for one partition. A broker remembers five of a producer; without idempotence more than
    /// one may change places when one of them fails.
    pub in_flight_max: usize,
    /// From `send` to the answer, with all tries.
    pub delivery_timeout: Duration,
    /// Batches of one partition that may wait; a further `send` waits for room.
    pub queue_max: usize,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: Acks::All,
            idempotent: true,
            compression: Compression::None,
            in_flight_max: 5,
            delivery_timeout: Duration::from_secs(120),
            queue_max: 16,
        }
    }
}

/// A batch that a broker took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivered {
    /// The offset of its first record; `None` where the broker does not tell (acks=0).
    pub base_offset: Option<Offset>,
    /// The broker's stamp, where the topic has it stamp records.
    pub append_time: Option<WallMs>,
}

/// What is known of a batch that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// No broker has appended it, and none will.
    NotWritten,
    /// It may have been appended.
    Unknown,
}

/// A batch that was not delivered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{}: {reason}", match .outcome { Outcome::NotWritten => "not written", Outcome::Unknown => "perhaps written" })]
pub struct ProduceError {
    /// What is known of it.
    pub outcome: Outcome,
    /// Why.
    pub reason: ProduceFailure,
}

/// Why a batch was not delivered.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProduceFailure {
    /// The broker refused it.
    #[error("{}{}", crate::error::code_name(*.code), .message.as_deref().map(|text| format!(": {text}")).unwrap_or_default())]
    Refused {
        /// Kafka's error.
        code: ResponseError,
        /// The broker's words.
        message: Option<String>,
    },
    /// Time ran out; this was the last that went wrong.
    #[error("time ran out; the last: {0}")]
    TimedOut(Box<ClientError>),
    /// A failure that no further try mends.
    #[error(transparent)]
    Client(Box<ClientError>),
    /// A batch before it failed in a way that leaves this one's place unknown.
    #[error("a batch before it failed")]
    AfterFailure,
    /// The producer was closed.
    #[error("the producer was closed")]
    Closed,
}

/// The outcome of a batch, once there is one.
pub struct Delivery(oneshot::Receiver<Result<Delivered, ProduceError>>);

impl Delivery {
    /// Waits for it; that takes no longer than the producer's delivery timeout.
    ///
    /// # Errors
    /// [`ProduceError`].
    pub async fn outcome(self) -> Result<Delivered, ProduceError> {
        self.0.await.unwrap_or(Err(ProduceError {
            outcome: Outcome::Unknown,
            reason: ProduceFailure::Closed,
        }))
    }
}

/// A batch in a partition's queue.
struct Queued {
    /// As [`batch::encode`] made it.
    bytes: Vec<u8>,
    records: i32,
    deadline: skerry_types::Instant,
    reply: oneshot::Sender<Result<Delivered, ProduceError>>,
}

/// Writes records. One task for each partition that it writes to; dropping the producer ends them, and what is on
/// its way then is [`Outcome::Unknown`].
pub struct Producer {
    client: Client,
    options: ProducerOptions,
    identity: Option<ProducerIdentity>,
    partitions: Mutex<BTreeMap<TopicPartition, Partition>>,
}

struct Partition {
    queue: mpsc::Sender<Queued>,
    task: TaskHandle,
}

impl Drop for Producer {
    fn drop(&mut self) {
        for partition in self.partitions.get_mut().values() {
            partition.task.abort();
        }
    }
}

impl Producer {
    /// A producer; an idempotent one asks the cluster for its id first.
    ///
    /// # Errors
    /// [`ClientError`]: no id to be had.
    pub async fn start(client: &Client, mut options: ProducerOptions) -> Result<Self, ClientError> {
        // Kafka, too, has no idempotence without acks=all.
        options.idempotent &= options.acks == Acks::All;
        let identity = if options.idempotent {
            Some(init_producer_id(client).await?)
        } else {
            None
        };
        Ok(Self {
            client: client.clone(),
            options,
            identity,
            partitions: Mutex::default(),
        })
    }

    /// The id that the cluster gave it.
    #[must_use]
    pub fn identity(&self) -> Option<ProducerIdentity> {
        self.identity
    }

    /// Hands `records` over as one batch of `partition`. Batches of one partition are written in the order of the
    /// calls. Waits while that partition's queue is full.
    ///
    /// # Panics
    /// Without records.
    pub async fn send(&self, partition: &TopicPartition, records: &[Record]) -> Delivery {
        let (reply, delivery) = oneshot::channel();
        let queued = Queued {
            bytes: batch::encode(records, self.options.compression),
            records: i32::try_from(records.len()).unwrap_or(i32::MAX),
            deadline: self.client.env().clock.now() + self.options.delivery_timeout,
            reply,
        };
        let queue = self.queue_of(partition);
        if let Err(mpsc::error::SendError(queued)) = queue.send(queued).await {
            let closed = ProduceError {
                outcome: Outcome::NotWritten,
                reason: ProduceFailure::Closed,
            };
            let _ = queued.reply.send(Err(closed));
        }
        Delivery(delivery)
    }

    fn queue_of(&self, partition: &TopicPartition) -> mpsc::Sender<Queued> {
        let mut partitions = self.partitions.lock();
        if let Some(known) = partitions.get(partition) {
            return known.queue.clone();
        }
        let (queue, queued) = mpsc::channel(self.options.queue_max);
        let sender = sender::Sender::new(
            self.client.clone(),
            partition.clone(),
            self.options.clone(),
            self.identity,
        );
        let task = self
            .client
            .env()
            .tasks
            .spawn("client-produce", sender.run(queued));
        partitions.insert(
            partition.clone(),
            Partition {
                queue: queue.clone(),
                task,
            },
        );
        queue
    }

    /// Waits until everything that was sent has its outcome.
    pub async fn finish(self) {
        let partitions = std::mem::take(&mut *self.partitions.lock());
        for (_, Partition { queue, task }) in partitions {
            // The task ends when its queue is empty and nobody can fill it.
            drop(queue);
            task.join().await;
        }
    }
}

/// A fresh id, unique in the cluster.
pub(crate) async fn init_producer_id(client: &Client) -> Result<ProducerIdentity, ClientError> {
    client
        .retry(|| async {
            let connection = client.any_broker().await?;
            let request = InitProducerIdRequest::default()
                // The crate's default is the empty id, which Kafka refuses.
                .with_transactional_id(None)
                .with_transaction_timeout_ms(i32::MAX)
                .with_producer_id((-1).into())
                .with_producer_epoch(-1);
            let response: InitProducerIdResponse =
                client.call(&connection, "InitProducerId", &request).await?;
            check(response.error_code, None, || "a producer id".to_owned())?;
            Ok(ProducerIdentity {
                id: ProducerId(response.producer_id.0),
                epoch: ProducerEpoch(response.producer_epoch),
            })
        })
        .await
}
