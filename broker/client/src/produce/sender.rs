//! The task that writes one partition.
//!
//! It keeps a window of batches in the order of their sequence numbers. While answers come in order and say yes, the
//! window moves. After a failure that may pass it takes in the answers that are due, finds the leader again and sends
//! what is left of the window again from its first batch: a broker knows an idempotent producer's repetitions by
//! their sequence numbers. After a refusal of the first batch the rest of the window has a gap before it: each of them
//! gets its answer first, and what certainly was not written starts again in a new epoch from sequence 0.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use skerry_types::{Offset, ProducerEpoch, ProducerIdentity, Sequence, TopicPartition, WallMs};
use tokio::sync::mpsc;

use super::{Delivered, Outcome, ProduceError, ProduceFailure, ProducerOptions, Queued, init_producer_id};
use crate::batch;
use crate::client::{Client, Leader, topic_name, wire_id};
use crate::connection::{CallError, Connection, Pending};
use crate::error::ClientError;
use crate::produce::Acks;

/// For one try. The whole delivery has a deadline of its own.
const TRY_TIMEOUT: Duration = Duration::from_secs(30);

/// A batch of the window.
struct InFlight {
    queued: Queued,
    /// Of the try that is on its way.
    pending: Option<Pending<ProduceResponse>>,
    /// A try before may have been appended: its answer was lost, or said so.
    perhaps_written: bool,
}

pub(super) struct Sender {
    client: Client,
    partition: TopicPartition,
    options: ProducerOptions,
    identity: Option<ProducerIdentity>,
    next_sequence: Sequence,
    window: VecDeque<InFlight>,
    /// A batch was refused: those behind it have a gap before them, and nothing new joins them.
    gap: bool,
    /// Behind a gap and certainly not written.
    again: VecDeque<Queued>,
    tries: u32,
    last_error: Option<ClientError>,
}

/// What an answer, or its absence, means for the first batch of the window.
enum Verdict {
    Taken(Delivered),
    /// Try again; `appended`: this try may have been appended.
    Again {
        error: ClientError,
        appended: bool,
    },
    Refused {
        error: ProduceFailure,
        appended: bool,
    },
}

impl Sender {
    pub(super) fn new(
        client: Client,
        partition: TopicPartition,
        options: ProducerOptions,
        identity: Option<ProducerIdentity>,
    ) -> Self {
        Self {
            client,
            partition,
            options,
            identity,
            next_sequence: Sequence(0),
            window: VecDeque::new(),
            gap: false,
            again: VecDeque::new(),
            tries: 0,
            last_error: None,
        }
    }

    /// Runs until its queue is closed and everything has its outcome.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Queued>) {
        let mut open = true;
        while open || !self.window.is_empty() || !self.again.is_empty() {
            if self.window.is_empty() && self.gap {
                self.new_epoch().await;
            }
            while !self.gap && self.window.len() < self.options.in_flight_max {
                let Some(queued) = self.again.pop_front() else {
                    break;
                };
                self.join_window(queued);
            }
            self.send_window().await;
            let room = !self.gap && self.again.is_empty() && self.window.len() < self.options.in_flight_max;
            let verdict = tokio::select! {
                biased;
                queued = queue.recv(), if open && room => {
                    match queued {
                        Some(queued) => self.join_window(queued),
                        None => open = false,
                    }
                    continue;
                }
                verdict = first_verdict(&mut self.window, &self.partition), if !self.window.is_empty() => verdict,
                else => break,
            };
            self.on_verdict(verdict).await;
        }
    }

    fn join_window(&mut self, queued: Queued) {
        let sequence = self.next_sequence;
        self.next_sequence = sequence.plus(queued.records);
        let mut queued = queued;
        if let Some(identity) = self.identity {
            batch::stamp(&mut queued.bytes, identity, sequence);
        }
        self.window.push_back(InFlight {
            queued,
            pending: None,
            perhaps_written: false,
        });
    }

    /// Sends what is not on its way, in order. What cannot be sent now waits for `on_verdict`, which pauses.
    async fn send_window(&mut self) {
        while let Some(at) = self.window.iter().position(|batch| batch.pending.is_none()) {
            let now = self.client.env().clock.now();
            if self.window[at].queued.deadline <= now {
                self.expire(at);
                continue;
            }
            match self.send_one(at).await {
                Ok(Some(pending)) => self.window[at].pending = Some(pending),
                Ok(None) => {
                    let batch = self.window.remove(at).expect("the batch that was just sent");
                    let delivered = Delivered {
                        base_offset: None,
                        append_time: None,
                    };
                    let _ = batch.queued.reply.send(Ok(delivered));
                }
                Err(error) => {
                    self.settle(&error).await;
                    if !self.pause(error).await {
                        return;
                    }
                }
            }
        }
    }

    async fn send_one(&self, at: usize) -> Result<Option<Pending<ProduceResponse>>, ClientError> {
        let TopicPartition { topic, partition } = &self.partition;
        let leader = self.client.leader(topic, partition.get()).await?;
        let connection = self.client.broker(leader.broker).await?;
        let batch = &self.window[at];
        let left = batch.queued.deadline.since(self.client.env().clock.now());
        let timeout = left.min(TRY_TIMEOUT).max(Duration::from_millis(1));
        let failed = |source| ClientError::Call {
            api: "Produce",
            addr: connection.addr().to_owned(),
            source,
        };
        let (request, version) = self
            .request(&connection, leader, &batch.queued.bytes, timeout)
            .map_err(failed)?;
        if self.options.acks == Acks::None {
            connection
                .send_unanswered(&request, version, timeout)
                .await
                .map_err(failed)?;
            return Ok(None);
        }
        connection
            .send(&request, version, timeout)
            .await
            .map(Some)
            .map_err(failed)
    }

    fn request(
        &self,
        connection: &Connection,
        leader: Leader,
        bytes: &[u8],
        timeout: Duration,
    ) -> Result<(ProduceRequest, i16), CallError> {
        let mut version = connection.version::<ProduceRequest>()?;
        let TopicPartition { topic, partition } = &self.partition;
        let data = PartitionProduceData::default()
            .with_index(partition.get())
            .with_records(Some(Bytes::copy_from_slice(bytes)));
        let mut topic_data = TopicProduceData::default().with_partition_data(vec![data]);
        // From version 13 on a topic is named by its id.
        if version >= 13 && leader.topic_id.is_zero() {
            version = 12;
        }
        if version >= 13 {
            topic_data.topic_id = wire_id(leader.topic_id);
        } else {
            topic_data.name = topic_name(topic);
        }
        let request = ProduceRequest::default()
            .with_acks(self.options.acks.wire())
            .with_timeout_ms(i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX))
            .with_topic_data(vec![topic_data]);
        Ok((request, version))
    }

    /// Takes in every answer that is due, so that it is known of each batch whether it may have been written; after
    /// that nothing of the window is on its way. Without sequence numbers a repetition of what may have been written
    /// could write it twice, so that is given up.
    async fn settle(&mut self, error: &ClientError) {
        for mut batch in std::mem::take(&mut self.window) {
            if let Some(mut pending) = batch.pending.take() {
                let appended = match pending.answer().await {
                    Ok(response) => match read_answer(&response, &self.partition) {
                        Verdict::Taken(delivered) => {
                            let _ = batch.queued.reply.send(Ok(delivered));
                            continue;
                        }
                        // Refused for good: it will be told so again in its turn.
                        Verdict::Again { appended, .. } | Verdict::Refused { appended, .. } => appended,
                    },
                    Err(error) => !error.certainly_not_sent(),
                };
                batch.perhaps_written |= appended;
            }
            if self.identity.is_none() && batch.perhaps_written {
                reply_error(batch, ProduceFailure::Client(Box::new(error.clone())));
            } else {
                self.window.push_back(batch);
            }
        }
    }

    /// Notes a failure and waits before the next try. False where nothing is left to be tried.
    async fn pause(&mut self, error: ClientError) -> bool {
        if !may_pass(&error) {
            self.fail_window(&error);
            return false;
        }
        self.tries += 1;
        tracing::debug!(partition = %self.partition, %error, tries = self.tries, "produce: trying again");
        self.last_error = Some(error);
        self.client.forget(&self.partition.topic);
        let wake = self.client.env().clock.now() + self.client.backoff(self.tries);
        let first_deadline = self.window.iter().map(|batch| batch.queued.deadline).min();
        self.client
            .env()
            .clock
            .sleep_until(first_deadline.map_or(wake, |first| first.min(wake)))
            .await;
        true
    }

    async fn on_verdict(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Taken(delivered) => {
                self.tries = 0;
                let batch = self.window.pop_front().expect("the batch that was answered");
                let _ = batch.queued.reply.send(Ok(delivered));
            }
            Verdict::Again { error, appended } => {
                let first = self.window.front_mut().expect("the batch that was answered");
                first.perhaps_written |= appended;
                first.pending = None;
                self.settle(&error).await;
                self.pause(error).await;
            }
            Verdict::Refused { error, appended } => {
                let first = self.window.front_mut().expect("the batch that was answered");
                first.perhaps_written |= appended;
                let sequence_gap = matches!(
                    error,
                    ProduceFailure::Refused {
                        code: ResponseError::OutOfOrderSequenceNumber,
                        ..
                    }
                );
                if self.gap && sequence_gap && !first.perhaps_written {
                    let batch = self.window.pop_front().expect("the batch that was answered");
                    self.again.push_back(batch.queued);
                } else {
                    self.drop_first(error);
                }
            }
        }
    }

    fn drop_first(&mut self, reason: ProduceFailure) {
        let batch = self.window.pop_front().expect("the batch that failed");
        self.gap |= self.identity.is_some();
        reply_error(batch, reason);
    }

    /// The batch at `at` is out of time.
    fn expire(&mut self, at: usize) {
        let batch = self.window.remove(at).expect("the batch that is out of time");
        self.gap |= self.identity.is_some();
        let last = self.last_error.clone().unwrap_or_else(|| ClientError::NoLeader {
            topic: self.partition.topic.to_string(),
            partition: self.partition.partition.get(),
        });
        reply_error(batch, ProduceFailure::TimedOut(Box::new(last)));
    }

    fn fail_window(&mut self, error: &ClientError) {
        self.gap |= self.identity.is_some();
        for batch in std::mem::take(&mut self.window) {
            reply_error(batch, ProduceFailure::Client(Box::new(error.clone())));
        }
    }

    /// After a gap: the next epoch of the same id starts from sequence 0 (KIP-360); where epochs are used up, a new
    /// id does.
    async fn new_epoch(&mut self) {
        self.gap = false;
        self.next_sequence = Sequence(0);
        let Some(identity) = self.identity else { return };
        if identity.epoch.get() < i16::MAX - 1 {
            self.identity = Some(ProducerIdentity {
                epoch: ProducerEpoch(identity.epoch.get() + 1),
                ..identity
            });
            return;
        }
        match init_producer_id(&self.client).await {
            Ok(identity) => self.identity = Some(identity),
            Err(error) => {
                self.gap = true;
                for queued in std::mem::take(&mut self.again) {
                    let reason = ProduceFailure::Client(Box::new(error.clone()));
                    let _ = queued.reply.send(Err(ProduceError {
                        outcome: Outcome::NotWritten,
                        reason,
                    }));
                }
            }
        }
    }
}

fn reply_error(batch: InFlight, reason: ProduceFailure) {
    let outcome = if batch.perhaps_written {
        Outcome::Unknown
    } else {
        Outcome::NotWritten
    };
    let _ = batch.queued.reply.send(Err(ProduceError { outcome, reason }));
}

fn may_pass(error: &ClientError) -> bool {
    match error {
        // A topic that is just being made, or moved.
        ClientError::Refused { code, .. } => code.is_retriable(),
        other => other.is_retriable(),
    }
}

/// Waits for the answer to the first batch of the window. Dropping it forgets nothing: the batch keeps its
/// `Pending`.
async fn first_verdict(window: &mut VecDeque<InFlight>, partition: &TopicPartition) -> Verdict {
    let Some(pending) = window.front_mut().and_then(|first| first.pending.as_mut()) else {
        // Not sent for lack of a leader: the loop tries again.
        let error = ClientError::NoLeader {
            topic: partition.topic.to_string(),
            partition: partition.partition.get(),
        };
        return Verdict::Again {
            error,
            appended: false,
        };
    };
    match pending.answer().await {
        Ok(response) => read_answer(&response, partition),
        Err(source) => {
            let appended = !source.certainly_not_sent();
            let error = ClientError::Call {
                api: "Produce",
                addr: partition.to_string(),
                source,
            };
            Verdict::Again { error, appended }
        }
    }
}

fn read_answer(response: &ProduceResponse, partition: &TopicPartition) -> Verdict {
    let answer = response
        .responses
        .first()
        .and_then(|topic| topic.partition_responses.first());
    let Some(answer) = answer else {
        let error = ClientError::Unanswered {
            what: format!("produce to {partition}"),
        };
        return Verdict::Again {
            error,
            appended: true,
        };
    };
    let message = answer.error_message.as_ref().map(|text| text.to_string());
    let Some(code) = ResponseError::try_from_code(answer.error_code) else {
        return Verdict::Taken(Delivered {
            base_offset: Some(Offset(answer.base_offset)).filter(|offset| offset.get() >= 0),
            append_time: Some(WallMs(answer.log_append_time_ms)).filter(|time| time.get() >= 0),
        });
    };
    // It had and has the batch: an older broker's word for a repetition.
    if code == ResponseError::DuplicateSequenceNumber {
        return Verdict::Taken(Delivered {
            base_offset: None,
            append_time: None,
        });
    }
    let appended = matches!(
        code,
        ResponseError::RequestTimedOut
            | ResponseError::NotEnoughReplicasAfterAppend
            | ResponseError::KafkaStorageError
            | ResponseError::UnknownServerError
            | ResponseError::NetworkException
    );
    // A damaged message may have been damaged on its way.
    if code.is_retriable() {
        let what = format!("produce to {partition}");
        return Verdict::Again {
            error: ClientError::Refused { what, code, message },
            appended,
        };
    }
    Verdict::Refused {
        error: ProduceFailure::Refused { code, message },
        appended,
    }
}
