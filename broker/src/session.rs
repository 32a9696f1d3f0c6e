//! A broker's session with the controller, from both sides: heartbeats on a stream whose end is news as well.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use skerry_env::{Clock, TaskHandle};
use skerry_metadata::{Leadership, Quorum};
use skerry_metadata_state::BrokerGuard;
use skerry_proto::cluster::cluster_client::ClusterClient;
use skerry_proto::cluster::cluster_server::{Cluster, ClusterServer};
use skerry_proto::cluster::{Heartbeat, HeartbeatReply};
use skerry_types::{BrokerEpoch, BrokerId};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::broker::Broker;
use crate::controller::Mailbox;
use crate::grpc;

/// The first wait before a session is opened again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// The controller's side.
pub(crate) struct Service {
    clock: Clock,
    quorum: Quorum,
    mailbox: Mailbox,
    stop: CancellationToken,
}

impl Service {
    /// Hands what brokers say to `mailbox`, until `stop` is cancelled: a shutdown waits for the end of every stream.
    pub(crate) fn new(
        clock: Clock,
        quorum: Quorum,
        mailbox: Mailbox,
        stop: CancellationToken,
    ) -> ClusterServer<Self> {
        ClusterServer::new(Self {
            clock,
            quorum,
            mailbox,
            stop,
        })
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<HeartbeatReply, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<Heartbeat>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let session = OpenSession {
            beats: request.into_inner(),
            clock: self.clock.clone(),
            quorum: self.quorum.clone(),
            mailbox: self.mailbox.clone(),
            stop: self.stop.clone(),
            broker: None,
        };
        let replies = stream::unfold(Some(session), |session| async {
            let mut session = session?;
            match session.answer().await? {
                Ok(reply) => Some((Ok(reply), Some(session))),
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(Response::new(Box::pin(replies)))
    }
}

/// A broker's stream. However it ends, the controller hears of it.
struct OpenSession {
    beats: Streaming<Heartbeat>,
    clock: Clock,
    quorum: Quorum,
    mailbox: Mailbox,
    stop: CancellationToken,
    /// Whose it is, once it has said so.
    broker: Option<BrokerGuard>,
}

impl OpenSession {
    /// Waits for a heartbeat; `None`: the session is over.
    async fn answer(&mut self) -> Option<Result<HeartbeatReply, Status>> {
        let beat = tokio::select! {
            biased;
            () = self.stop.cancelled() => return None,
            beat = self.beats.next() => beat?.ok()?,
        };
        if !self.quorum.leadership().here {
            return Some(Err(Status::failed_precondition(
                "this node is not the controller",
            )));
        }
        let from = BrokerGuard {
            broker: BrokerId(beat.broker),
            epoch: BrokerEpoch(beat.broker_epoch),
        };
        self.broker = Some(from);
        self.mailbox.heartbeat(from, beat.applied_index, self.clock.now());
        Some(Ok(HeartbeatReply {
            applied_index: self.quorum.image().index(),
        }))
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        if let Some(broker) = self.broker {
            self.mailbox.broken(broker, self.clock.now());
        }
    }
}

/// Keeps a session with whoever is the controller, until `stop` is cancelled. From its first heartbeat on the broker
/// may be given leaderships.
pub(crate) fn start(broker: &Arc<Broker>, mailbox: Mailbox, stop: CancellationToken) -> TaskHandle {
    let keeper = Keeper {
        broker: broker.clone(),
        mailbox,
    };
    broker.env().tasks.spawn("session", async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = keeper.run() => {}
        }
    })
}

/// The broker's side.
struct Keeper {
    broker: Arc<Broker>,
    mailbox: Mailbox,
}

impl Keeper {
    async fn run(self) {
        let quorum = self.broker.quorum();
        let mut pause = RETRY_MIN;
        loop {
            let leadership = quorum.leadership();
            let answered = match leadership.leader {
                Some(_) if leadership.here => self.with_myself(leadership).await,
                Some(leader) => self.with(leader, leadership).await,
                None => {
                    quorum.leadership_changed(leadership).await;
                    continue;
                }
            };
            pause = if answered {
                RETRY_MIN
            } else {
                (pause * 2).min(RETRY_MAX)
            };
            // Somebody new leads: no reason to wait.
            tokio::select! {
                biased;
                _ = quorum.leadership_changed(leadership) => {}
                () = self.broker.env().clock.sleep(pause) => {}
            }
        }
    }

    /// The controller is this node. True: it was heard.
    async fn with_myself(&self, leadership: Leadership) -> bool {
        let clock = &self.broker.env().clock;
        let quorum = self.broker.quorum();
        loop {
            if let Some(beat) = heartbeat(&self.broker) {
                let from = BrokerGuard {
                    broker: BrokerId(beat.broker),
                    epoch: BrokerEpoch(beat.broker_epoch),
                };
                self.mailbox.heartbeat(from, beat.applied_index, clock.now());
            }
            tokio::select! {
                biased;
                _ = quorum.leadership_changed(leadership) => return true,
                () = clock.sleep(self.interval()) => {}
            }
        }
    }

    /// The controller is node `leader`. Ends when it stops to answer, or another one leads. True: it has answered.
    async fn with(&self, leader: BrokerId, leadership: Leadership) -> bool {
        let quorum = self.broker.quorum();
        let Some(addr) = quorum.address_of(leader) else {
            return false;
        };
        let env = self.broker.env();
        let mut client = ClusterClient::new(grpc::channel(env, &addr));
        let patience = self.patience();
        let opening = env
            .clock
            .timeout(patience, client.session(heartbeats(&self.broker)));
        let mut replies = match opening.await {
            Ok(Ok(response)) => response.into_inner(),
            Ok(Err(status)) => {
                tracing::debug!(%leader, %addr, why = status.message(), "no session with the controller");
                return false;
            }
            Err(_) => {
                tracing::debug!(%leader, %addr, "the controller does not answer");
                return false;
            }
        };
        let mut answered = false;
        loop {
            let reply = tokio::select! {
                biased;
                _ = quorum.leadership_changed(leadership) => return true,
                reply = env.clock.timeout(patience, replies.next()) => reply,
            };
            match reply {
                Ok(Some(Ok(_))) => answered = true,
                Ok(Some(Err(status))) => {
                    tracing::debug!(%leader, why = status.message(), "the session with the controller has ended");
                    return answered;
                }
                Ok(None) => return answered,
                Err(_) => {
                    tracing::info!(%leader, ?patience, "the controller is silent: a new session is tried");
                    return answered;
                }
            }
        }
    }

    fn interval(&self) -> Duration {
        self.broker.settings().broker().heartbeat_interval
    }

    /// A session without an answer for so long is opened again: the connection may be one that the network has
    /// forgotten.
    fn patience(&self) -> Duration {
        let settings = self.broker.settings().broker();
        (settings.session_timeout / 2).max(settings.heartbeat_interval * 2)
    }
}

/// What the broker says of itself now; `None` before it is registered.
fn heartbeat(broker: &Broker) -> Option<Heartbeat> {
    let guard = broker.guard()?;
    Some(Heartbeat {
        broker: guard.broker.get(),
        broker_epoch: guard.epoch.get(),
        applied_index: broker.image().index(),
    })
}

/// One heartbeat now, and one at each interval.
fn heartbeats(broker: &Arc<Broker>) -> impl Stream<Item = Heartbeat> + Send + 'static {
    stream::unfold((broker.clone(), true), |(broker, first)| async move {
        if !first {
            let interval = broker.settings().broker().heartbeat_interval;
            broker.env().clock.sleep(interval).await;
        }
        let beat = heartbeat(&broker)?;
        Some((beat, (broker, false)))
    })
}
