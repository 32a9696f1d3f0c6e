//! A broker's session with the controller, from both sides: heartbeats on a stream whose end is news as well. Each
//! answer says for how long the broker may rely on its leaderships (`standing.rs`).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{self, Stream, StreamExt as _};
use skerry_env::{Clock, TaskHandle};
use skerry_metadata::{Leadership, Quorum};
use skerry_metadata_state::BrokerGuard;
use skerry_proto::cluster::cluster_client::ClusterClient;
use skerry_proto::cluster::cluster_server::{Cluster, ClusterServer};
use skerry_proto::cluster::{Heartbeat, HeartbeatReply};
use skerry_types::{BrokerEpoch, BrokerId, Instant, buggify, reached};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::broker::Broker;
use crate::controller::{Beat, Mailbox};
use crate::grpc;
use crate::standing::Promise;

/// The first wait before a session is opened again; it doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// How often a broker looks at its own standing, to say so and to let clients go.
const STANDING_LOOK: Duration = Duration::from_millis(100);
/// And where it holds for ever, until it does not any more.
const STANDING_REST_MAX: Duration = Duration::from_secs(1);
/// A broker that nothing is promised to asks so many times as often: right after it was let in, for one.
const EAGER_TIMES: u32 = 5;

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
        let heard = (beat.heard_nanos > 0).then(|| Instant::from_nanos(beat.heard_nanos));
        let at = self.clock.now();
        let trusted = self.mailbox.heartbeat(Beat {
            from,
            applied_index: beat.applied_index,
            heard,
            at,
        });
        let trusted = trusted.await;
        Some(Ok(HeartbeatReply {
            applied_index: self.quorum.image().index(),
            answered_nanos: at.as_nanos(),
            sent_nanos: beat.sent_nanos,
            trusted_nanos: u64::try_from(trusted.as_nanos()).unwrap_or(u64::MAX),
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

/// Says when this broker's standing ends and begins again, until `stop` is cancelled. Where it does not come back
/// within another session, clients that wait for what cannot be confirmed are let go: they find the new leaders.
pub(crate) fn watch_standing(broker: &Arc<Broker>, stop: CancellationToken) -> TaskHandle {
    let watch = broker.clone();
    broker.env().tasks.spawn("standing", async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = watch_for_ever(&watch) => {}
        }
    })
}

async fn watch_for_ever(broker: &Broker) {
    let (clock, standing) = (&broker.env().clock, broker.standing());
    let mut stood = false;
    loop {
        if standing.holds(clock.now()) {
            stood = true;
            let rest = standing.rest(clock.now());
            clock.sleep(rest.clamp(STANDING_LOOK, STANDING_REST_MAX)).await;
            continue;
        }
        let lost = clock.now();
        if stood {
            tracing::warn!(
                "the controller is silent: what must be current is not answered, and soon what nobody confirms is refused"
            );
        }
        while !standing.holds(clock.now()) {
            if clock.now().since(lost) >= broker.settings().broker().session_timeout {
                reached("broker-steps-aside");
                standing.step_aside(true);
                // The coordinators answer those who wait for them, and resign.
                for partition in broker.partitions().all() {
                    if !partition.settings().internal {
                        partition.step_aside();
                    }
                }
                broker.groups().follow_standing().await;
            }
            clock.sleep(STANDING_LOOK).await;
        }
        if stood {
            let ms = clock.now().since(lost).as_millis();
            tracing::info!("the controller answers again, after {ms} ms");
        }
        if standing.is_aside() {
            reached("broker-is-back");
            standing.step_aside(false);
            broker.groups().follow_standing().await;
        }
    }
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
                Some(_) if leadership.here => {
                    let heard = self.with_myself(leadership).await;
                    self.broker.standing().end_forever();
                    heard
                }
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
        let standing = self.broker.standing();
        loop {
            // Where there are others, they may hear of a decision before this one has acted on it.
            let (image, me) = (quorum.image(), self.broker.id());
            if quorum.decides_alone() && image.brokers().all(|other| other.id == me) {
                standing.hold_forever();
            } else {
                // Before the promise: that is what counts from now on.
                standing.end_forever();
            }
            if let Some(from) = self.broker.guard() {
                let (applied_index, at) = (self.broker.image().index(), clock.now());
                let trusted = self.mailbox.heartbeat(Beat {
                    from,
                    applied_index,
                    heard: Some(at),
                    at,
                });
                let trusted = tokio::select! {
                    biased;
                    _ = quorum.leadership_changed(leadership) => return true,
                    trusted = trusted => trusted,
                };
                let promise = Promise {
                    sent: at,
                    trusted,
                    index: quorum.image().index(),
                };
                standing.promised(promise, self.broker.acted_index());
            }
            tokio::select! {
                biased;
                _ = quorum.leadership_changed(leadership) => return true,
                () = clock.sleep(interval(&self.broker)) => {}
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
        let heard = Arc::new(AtomicU64::new(0));
        let beats = heartbeats(&self.broker, heard.clone());
        let opening = env.clock.timeout(patience, client.session(beats));
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
                Ok(Some(Ok(reply))) => {
                    answered = true;
                    heard.store(reply.answered_nanos, Ordering::Release);
                    let promise = Promise {
                        sent: Instant::from_nanos(reply.sent_nanos).min(env.clock.now()),
                        trusted: Duration::from_nanos(reply.trusted_nanos),
                        index: reply.applied_index,
                    };
                    self.broker
                        .standing()
                        .promised(promise, self.broker.acted_index());
                }
                Ok(Some(Err(status))) => {
                    tracing::debug!(%leader, why = status.message(), "the session with the controller has ended");
                    return answered;
                }
                Ok(None) => return answered,
                Err(_) => {
                    tracing::debug!(%leader, ?patience, "the controller is silent: a new session is tried");
                    return answered;
                }
            }
        }
    }

    /// A session without an answer for so long is opened again: the connection may be one that the network has
    /// forgotten.
    fn patience(&self) -> Duration {
        let settings = self.broker.settings().broker();
        (settings.session_timeout / 2).max(settings.heartbeat_interval * 2)
    }
}

/// Until the next heartbeat.
fn interval(broker: &Broker) -> Duration {
    let interval = broker.settings().broker().heartbeat_interval;
    if broker.standing().holds(broker.env().clock.now()) {
        interval
    } else {
        interval / EAGER_TIMES
    }
}

/// One heartbeat now, and one at each interval. `heard`: when the last answer left that has come.
fn heartbeats(broker: &Arc<Broker>, heard: Arc<AtomicU64>) -> impl Stream<Item = Heartbeat> + Send + 'static {
    stream::unfold(
        (broker.clone(), heard, true),
        |(broker, heard, first)| async move {
            if !first {
                broker.env().clock.sleep(interval(&broker)).await;
                while buggify("heartbeat-left-out", 4) {
                    broker.env().clock.sleep(interval(&broker)).await;
                }
            }
            let guard = broker.guard()?;
            let beat = Heartbeat {
                broker: guard.broker.get(),
                broker_epoch: guard.epoch.get(),
                applied_index: broker.image().index(),
                sent_nanos: broker.env().clock.now().as_nanos(),
                heard_nanos: heard.load(Ordering::Acquire),
            };
            Some((beat, (broker, heard, false)))
        },
    )
}
