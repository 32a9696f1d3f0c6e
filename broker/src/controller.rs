//! The controller: the node that leads the metadata quorum watches the brokers and decides. What it decides, and why,
//! is pure (`skerry_metadata_state::Controller`); here it is fed, and its decisions are proposed and told.

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt as _};
use skerry_env::{Env, TaskHandle};
use skerry_metadata::{Leadership, Quorum};
use skerry_metadata_state::{
    Answer, BrokerGuard, Controller, ControllerSettings, Decision, DecisionId, Decisions, Image, Outcome,
    Probe,
};
use skerry_types::{BrokerId, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::chronicle;

/// News that wait for the controller: some seconds of the heartbeats of a hundred brokers. More are dropped, and the
/// next heartbeat says the same.
const MAIL_MAX: usize = 4_096;
/// A process that lives accepts a connection well within this time; a dead one refuses it at once.
const PROBE_PATIENCE: Duration = Duration::from_millis(200);

/// A heartbeat, as it arrived here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    pub(crate) from: BrokerGuard,
    /// How far the broker has applied the metadata log.
    pub(crate) applied_index: u64,
    /// When the last answer left that the broker has heard.
    pub(crate) heard: Option<Instant>,
    pub(crate) at: Instant,
}

/// What brokers tell the controller.
#[derive(Debug)]
enum News {
    Heartbeat {
        beat: Beat,
        /// For how long nobody takes the broker's place, counted from the heartbeat.
        trusted: oneshot::Sender<Duration>,
    },
    Broken {
        broker: BrokerGuard,
        at: Instant,
    },
}

/// Where sessions put what brokers tell. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mailbox(mpsc::Sender<News>);

/// The controller's end of a [`Mailbox`].
pub(crate) struct Inbox(mpsc::Receiver<News>);

/// A mailbox and its other end.
pub(crate) fn mailbox() -> (Mailbox, Inbox) {
    let (sender, receiver) = mpsc::channel(MAIL_MAX);
    (Mailbox(sender), Inbox(receiver))
}

impl Mailbox {
    /// A broker has said that it lives. Gives the time for which nobody takes its place, counted from `beat.at`; zero
    /// where this node's controller cannot promise that.
    pub(crate) async fn heartbeat(&self, beat: Beat) -> Duration {
        let (trusted, promise) = oneshot::channel();
        // A full mailbox loses one of many.
        let _ = self.0.try_send(News::Heartbeat { beat, trusted });
        promise.await.unwrap_or(Duration::ZERO)
    }

    /// A broker's connection has ended.
    pub(crate) fn broken(&self, broker: BrokerGuard, at: Instant) {
        // A full mailbox loses it; the broker's silence will tell.
        let _ = self.0.try_send(News::Broken { broker, at });
    }
}

/// Starts the task. It sleeps while another node leads.
pub(crate) fn start(broker: &Arc<Broker>, inbox: Inbox, stop: CancellationToken) -> TaskHandle {
    let office = Office {
        broker: broker.clone(),
        inbox,
    };
    broker.env().tasks.spawn("controller", async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = office.run() => {}
        }
    })
}

struct Office {
    broker: Arc<Broker>,
    inbox: Inbox,
}

type Probing = Pin<Box<dyn Future<Output = (BrokerId, Probe)> + Send>>;
type Proposing = Pin<Box<dyn Future<Output = (DecisionId, Answer)> + Send>>;

/// A broker that waits for a promise.
type Asked = (BrokerGuard, oneshot::Sender<Duration>);

/// What one term of the controller waits for.
#[derive(Default)]
struct Pending {
    probes: FuturesUnordered<Probing>,
    proposals: FuturesUnordered<Proposing>,
}

impl Office {
    async fn run(mut self) {
        let mut leadership = self.broker.quorum().leadership();
        loop {
            if leadership.here {
                tracing::info!(term = leadership.term, "this node is the controller now");
                leadership = self.preside(leadership).await;
                tracing::info!(term = leadership.term, "this node is no longer the controller");
            } else {
                leadership = tokio::select! {
                    biased;
                    now = self.broker.quorum().leadership_changed(leadership) => now,
                    // For a controller of a term that has passed.
                    _ = self.inbox.0.recv() => leadership,
                };
            }
        }
    }

    /// Decides for as long as this node leads in the same term.
    async fn preside(&mut self, leadership: Leadership) -> Leadership {
        let broker = self.broker.clone();
        let (env, quorum) = (broker.env(), broker.quorum());
        let mut watch = quorum.watch();
        let mut image = watch.image();
        let mut told = image.clone();
        let settings = settings(&broker);
        let session = settings.session_timeout;
        let mut controller = Controller::new(env.clock.now(), settings);
        let mut pending = Pending::default();
        let mut asked: Vec<Asked> = Vec::new();
        loop {
            let wanted = controller.decide(&image, env.clock.now());
            let look_again = wanted.look_again;
            pending.take(env, quorum, &image, wanted);
            // After the decision: whoever it is against gets no promise any more.
            for (broker, trusted) in asked.drain(..) {
                let vouches = controller.vouches_for(broker, &quorum.image()) && quorum.leads_surely();
                // It may have stopped waiting.
                let _ = trusted.send(if vouches { session } else { Duration::ZERO });
            }
            tokio::select! {
                biased;
                now = quorum.leadership_changed(leadership) => return now,
                Some((decision, answer)) = pending.proposals.next(), if !pending.proposals.is_empty() => {
                    controller.on_answer(decision, answer, env.clock.now());
                    image = watch.image();
                }
                (changed, deltas) = watch.changed() => {
                    for line in chronicle::lines(&told, &changed, &deltas) {
                        tracing::info!("{line}");
                    }
                    told = changed.clone();
                    image = changed;
                }
                Some((broker, found)) = pending.probes.next(), if !pending.probes.is_empty() => {
                    controller.on_probe(broker, found, env.clock.now());
                }
                Some(news) = self.inbox.0.recv() => {
                    tell(&mut controller, news, &mut asked);
                    while let Ok(news) = self.inbox.0.try_recv() {
                        tell(&mut controller, news, &mut asked);
                    }
                }
                () = env.clock.sleep_until(look_again) => {}
            }
        }
    }
}

/// `asked`: who waits for a promise.
fn tell(controller: &mut Controller, news: News, asked: &mut Vec<Asked>) {
    match news {
        News::Heartbeat { beat, trusted } => {
            // Whose heartbeat does not count is promised nothing.
            if controller.on_heartbeat(beat.from, beat.applied_index, beat.heard, beat.at) {
                asked.push((beat.from, trusted));
            }
        }
        News::Broken { broker, at } => controller.on_session_broken(broker, at),
    }
}

fn settings(broker: &Broker) -> ControllerSettings {
    let config = broker.settings().broker();
    ControllerSettings {
        session_timeout: config.session_timeout,
        own: Some(broker.id()),
        auto_leader_rebalance: config.auto_leader_rebalance,
        leader_imbalance_check_interval: config.leader_imbalance_check_interval,
        internal_topics_replication: usize::try_from(config.offsets_topic_replication_factor).unwrap_or(1),
        ..ControllerSettings::default()
    }
}

impl Pending {
    fn take(&mut self, env: &Env, quorum: &Quorum, image: &Image, wanted: Decisions) {
        for guard in wanted.probes {
            let id = guard.broker;
            let Some(broker) = image.broker(id) else { continue };
            let (env, addr) = (env.clone(), broker.cluster.to_string());
            self.probes
                .push(Box::pin(async move { (id, probe(&env, &addr).await) }));
        }
        for decision in wanted.decisions {
            self.proposals.push(Box::pin(propose(quorum.clone(), decision)));
        }
    }
}

/// Whether a process listens at `addr`.
async fn probe(env: &Env, addr: &str) -> Probe {
    match env.clock.timeout(PROBE_PATIENCE, env.net.dial(addr)).await {
        Ok(Ok(_)) => Probe::Alive,
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => Probe::Refused,
        Ok(Err(_)) | Err(_) => Probe::NoAnswer,
    }
}

/// Proposes, and says in one line what was decided.
async fn propose(quorum: Quorum, decision: Decision) -> (DecisionId, Answer) {
    let Decision { id, command, why } = decision;
    let answer = match quorum.propose_as_leader(command).await {
        Ok(Some(outcome)) => {
            match outcome {
                Outcome::Refused(refusal) => tracing::info!("{why}: refused, {refusal}"),
                _ => tracing::info!("{why}"),
            }
            Answer::Applied {
                index: quorum.image().index(),
            }
        }
        Ok(None) => {
            tracing::debug!("{why}: another node leads by now");
            Answer::Failed
        }
        Err(error) => {
            tracing::info!("{why}: not decided, {error}");
            Answer::Failed
        }
    };
    (id, answer)
}
