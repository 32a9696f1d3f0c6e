//! The gRPC service: a follower broker opens its stream here, and says what it follows and how far it is.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, stream};
use skerry_proto::replication::replication_server::{Replication as Service, ReplicationServer};
use skerry_proto::replication::{self as proto, refused::Reason};
use skerry_replica::{FollowRefusal, FollowerReport};
use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicId, Uuid, reached};
use thiserror::Error;
use tonic::{Request, Response, Status, Streaming};

use super::feed::Feed;
use super::sender::Sender;
use super::{Replication, VERSION};
use crate::broker::Broker;
use crate::partition::{Attach, ImpossibleReport, NotServing, Partition};

/// Messages of followers carry no records: some bytes for each partition.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// A window is never larger, whatever the follower says.
const WINDOW_BYTES_MAX: u64 = 64 << 20;

pub(super) struct Server {
    replication: Arc<Replication>,
}

impl Server {
    pub(super) fn new(replication: Arc<Replication>) -> ReplicationServer<Self> {
        ReplicationServer::new(Self { replication })
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX)
    }
}

type Messages = Pin<Box<dyn Stream<Item = Result<proto::LeaderMessage, Status>> + Send>>;

#[tonic::async_trait]
impl Service for Server {
    type FollowStream = Messages;

    async fn follow(
        &self,
        request: Request<Streaming<proto::FollowerMessage>>,
    ) -> Result<Response<Messages>, Status> {
        let replication = &self.replication;
        let mut heard = request.into_inner();
        let greeting = replication
            .env()
            .clock
            .timeout(replication.silence_max(), heard.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no greeting"))??;
        let hello = greeting
            .and_then(|message| message.hello)
            .ok_or_else(|| Status::invalid_argument("a stream begins with a greeting"))?;
        let broker = replication
            .broker()
            .ok_or_else(|| Status::unavailable("this broker is starting or stopping"))?;
        let feed = replication.admit(&broker, &hello)?;
        let listener = Listener {
            replication: replication.clone(),
            feed: feed.clone(),
        };
        // It ends with the stream, which `end_feed` ends.
        drop(
            replication
                .env()
                .tasks
                .spawn("follower-reports", listener.run(heard)),
        );
        let sender = Sender::new(replication.clone(), feed);
        let messages = stream::unfold(sender, |mut sender| async move {
            let message = sender.next().await?;
            Some((Ok(message), sender))
        });
        Ok(Response::new(Box::pin(messages)))
    }
}

impl Replication {
    /// Is it the right cluster, broker and registration? Then the follower has a stream, and its earlier one ends.
    fn admit(self: &Arc<Self>, broker: &Broker, hello: &proto::Hello) -> Result<Arc<Feed>, Status> {
        let wrong = |what: String| Err(Status::failed_precondition(what));
        if hello.version != VERSION {
            return wrong(format!(
                "replication version {} is not spoken here",
                hello.version
            ));
        }
        let image = broker.image();
        if id(&hello.cluster_id).ok() != image.cluster_id() {
            return wrong("this is another cluster".to_owned());
        }
        if hello.leader != broker.id().get() {
            return wrong(format!("this is broker {}, not {}", broker.id(), hello.leader));
        }
        let follower = BrokerId(hello.follower);
        if follower == broker.id() {
            return wrong(format!("{follower} is this broker itself"));
        }
        let window = hello.window_bytes.clamp(1, WINDOW_BYTES_MAX);
        let feed = Feed::new(
            follower,
            BrokerEpoch(hello.follower_epoch),
            usize::try_from(window).unwrap_or(usize::MAX),
            self.new_end(),
        );
        if !self.register_feed(&feed) {
            reached("stream-of-an-earlier-start-refused");
            return wrong(format!("broker {follower} has registered again since"));
        }
        tracing::info!(%follower, "a follower's stream begins");
        Ok(feed)
    }
}

/// What a follower said makes no sense: its stream ends.
#[derive(Debug, Error)]
enum Nonsense {
    #[error("an id of {0} bytes")]
    Id(usize),
    #[error("an offset below 0")]
    Offset,
    #[error("handle {0} is in use")]
    Handle(u32),
    #[error(transparent)]
    Report(#[from] ImpossibleReport),
}

fn id(bytes: &[u8]) -> Result<Uuid, Nonsense> {
    bytes.try_into().map(Uuid).map_err(|_| Nonsense::Id(bytes.len()))
}

/// Hears what a follower says.
struct Listener {
    replication: Arc<Replication>,
    feed: Arc<Feed>,
}

impl Listener {
    async fn run(self, mut heard: Streaming<proto::FollowerMessage>) {
        let follower = self.feed.follower();
        let why = loop {
            let clock = &self.replication.env().clock;
            let message = tokio::select! {
                biased;
                () = self.feed.end.cancelled() => break "ended here".to_owned(),
                message = clock.timeout(self.replication.silence_max(), heard.message()) => message,
            };
            match message {
                Ok(Ok(Some(message))) => {
                    if let Err(nonsense) = self.hear(message) {
                        tracing::warn!(%follower, %nonsense, "a follower makes no sense");
                        break nonsense.to_string();
                    }
                }
                Ok(Ok(None)) => break "closed by the follower".to_owned(),
                Ok(Err(status)) => break status.message().to_owned(),
                Err(_) => break format!("silent for {:?}", self.replication.silence_max()),
            }
        };
        if self.replication.end_feed(&self.feed) {
            tracing::info!(%follower, why, "a follower's stream has ended");
        }
    }

    fn hear(&self, message: proto::FollowerMessage) -> Result<(), Nonsense> {
        for handle in message.unfollow {
            if let Some(partition) = self.feed.remove(handle) {
                partition.detach(&self.feed, handle);
            }
        }
        for follow in message.follow {
            self.follow(&follow)?;
        }
        for progress in message.progress {
            self.progress(&progress)?;
        }
        for corrupt in message.corrupt {
            self.corrupt(&corrupt)?;
        }
        Ok(())
    }

    fn report(
        &self,
        epoch: LeaderEpoch,
        ends: (i64, i64),
        log_start: i64,
    ) -> Result<FollowerReport, Nonsense> {
        if log_start < 0 || ends.0 < log_start || ends.1 < 0 {
            return Err(Nonsense::Offset);
        }
        Ok(FollowerReport {
            follower: self.feed.follower(),
            broker_epoch: self.feed.follower_epoch(),
            leader_epoch: epoch,
            log_start: Offset(log_start),
            written_end: Offset(ends.0),
            durable_end: Offset(ends.1.min(ends.0)),
        })
    }

    fn follow(&self, follow: &proto::Follow) -> Result<(), Nonsense> {
        let (handle, epoch) = (follow.handle, LeaderEpoch(follow.leader_epoch));
        let topic: TopicId = id(&follow.topic_id)?;
        let report = self.report(epoch, (follow.from, follow.durable_end), follow.log_start)?;
        let Some(broker) = self.replication.broker() else {
            return Ok(());
        };
        let partition = broker
            .partitions()
            .topic_by_id(topic)
            .and_then(|topic| topic.partition(follow.partition));
        let Some(partition) = partition else {
            self.feed.refuse(handle, Reason::UnknownPartition);
            return Ok(());
        };
        if !self.feed.add(handle, &partition, epoch, report.written_end) {
            return if self.feed.end.is_cancelled() {
                Ok(())
            } else {
                Err(Nonsense::Handle(handle))
            };
        }
        let attach = Attach {
            handle,
            report,
            last_epoch: LeaderEpoch(follow.last_epoch),
        };
        match partition.attach(&attach, &self.feed) {
            Ok(in_sync) => {
                self.feed.begin(handle, in_sync);
                self.replication.look_at_in_sync_set(&partition);
            }
            Err(refusal) => self.refuse(handle, &partition, refusal),
        }
        Ok(())
    }

    fn refuse(&self, handle: u32, partition: &Partition, refusal: Result<NotServing, FollowRefusal>) {
        tracing::debug!(partition = %partition.name(), follower = %self.feed.follower(), ?refusal, "a follower is refused");
        let reason = match refusal {
            Ok(NotServing::Deleted) => Reason::UnknownPartition,
            Ok(NotServing::Offline(_)) => Reason::Offline,
            // The roles change with each image: this broker's may be older than the follower's.
            Ok(_) => Reason::NotLeader,
            Err(FollowRefusal::FencedEpoch { .. }) => Reason::FencedEpoch,
            Err(FollowRefusal::UnknownEpoch { .. }) => Reason::UnknownEpoch,
            Err(FollowRefusal::NotAReplica | FollowRefusal::FencedBroker { .. }) => Reason::NotAReplica,
            Err(FollowRefusal::OutOfRange { log_start, .. }) => {
                let producers = partition.producers_below(log_start);
                self.feed.out_of_range(handle, log_start, producers);
                return;
            }
            Err(FollowRefusal::Diverging { epoch, end_offset }) => {
                return self.feed.diverges(handle, epoch, end_offset);
            }
        };
        self.feed.refuse(handle, reason);
    }

    fn corrupt(&self, corrupt: &proto::Corrupt) -> Result<(), Nonsense> {
        if corrupt.from < 0 {
            return Err(Nonsense::Offset);
        }
        // Else it crossed a refusal.
        if let Some(partition) = self.feed.remove(corrupt.handle) {
            partition.detach(&self.feed, corrupt.handle);
            let from = Offset(corrupt.from);
            tracing::warn!(partition = %partition.name(), follower = %self.feed.follower(), %from, "a follower cannot take what it was sent");
            self.replication.on_complaint(&partition, from);
        }
        Ok(())
    }

    fn progress(&self, progress: &proto::Progress) -> Result<(), Nonsense> {
        let handle = progress.handle;
        let Some((partition, epoch)) = self.feed.followed(handle) else {
            // It crossed a refusal.
            return Ok(());
        };
        let report = self.report(
            epoch,
            (progress.written_end, progress.durable_end),
            progress.log_start,
        )?;
        self.feed.on_written(handle, report.written_end);
        self.replication
            .on_report(&partition, &self.feed, handle, &report)?;
        Ok(())
    }
}
