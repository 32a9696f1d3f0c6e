//! What the controller decides: a pure function of the image, of what brokers were heard to say, and of the time.
//!
//! The raft leader holds one [`Controller`] for the length of its term and proposes what it decides. Deliberately
//! absent: elections. Whatever ends a leadership or makes one possible is a command, and [`crate::State`] elects while
//! it applies that; nobody has to see a partition without a leader and ask for one.

mod balance;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use skerry_types::{BrokerId, Instant, PartitionIndex, TopicId, is_planted};

use crate::command::{BrokerGuard, Command};
use crate::image::Image;

use balance::Balance;
use sessions::Sessions;

/// How the controller decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerSettings {
    /// A broker that was not heard for so long is fenced (`broker.session.timeout.ms`).
    pub session_timeout: Duration,
    /// The broker of the controller's own process, if one runs there: it gets eight of them (see `OWN_SESSIONS`).
    pub own: Option<BrokerId>,
    /// A broker that has not come to this controller so long after its term began is probed: it may have died with the
    /// controller before.
    pub probe_after: Duration,
    /// How often a broker is probed whose connection is broken.
    pub probe_interval: Duration,
    /// How long a decision rests that could not be proposed.
    pub retry_after: Duration,
    /// Whether leaderships go back to the preferred replicas (`auto.leader.rebalance.enable`).
    pub auto_leader_rebalance: bool,
    /// How often that is looked after (`leader.imbalance.check.interval.seconds`).
    pub leader_imbalance_check_interval: Duration,
    /// How many replicas the internal topics get, once there are as many brokers
    /// (`offsets.topic.replication.factor`).
    pub internal_topics_replication: usize,
}

/// How many sessions of silence it takes to fence the broker of the controller's own process. Its heartbeats cannot be
/// lost on the way: late ones say that this machine is short of processor, and moving leaderships would make that worse.
/// On a node of its own nobody could take them over. Fencing late is never wrong: what a broker was promised ends earlier.
const OWN_SESSIONS: u32 = 8;

impl ControllerSettings {
    /// For how long this broker may be silent.
    fn patience(&self, broker: BrokerId) -> Duration {
        match self.own == Some(broker) {
            true => self.session_timeout * OWN_SESSIONS,
            false => self.session_timeout,
        }
    }
}

impl Default for ControllerSettings {
    fn default() -> Self {
        Self {
            session_timeout: Duration::from_millis(750),
            own: None,
            probe_after: Duration::from_millis(30),
            probe_interval: Duration::from_millis(100),
            retry_after: Duration::from_millis(100),
            auto_leader_rebalance: true,
            leader_imbalance_check_interval: Duration::from_mins(5),
            internal_topics_replication: 3,
        }
    }
}

/// What a dial of a broker's cluster address found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nobody listens: the process is dead.
    Refused,
    /// Somebody listens.
    Alive,
    /// Neither, within the probe's deadline: only time can tell.
    NoAnswer,
}

/// Names one [`Decision`] of one controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId(pub u64);

/// A command to propose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// To tell [`Controller::on_answer`] what became of it.
    pub id: DecisionId,
    /// What to propose.
    pub command: Command,
    /// One line for the log, at information level.
    pub why: String,
}

/// What became of a [`Decision`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was applied, and accepted or refused; images from this index on show the result.
    Applied {
        /// The index of an image that contains it.
        index: u64,
    },
    /// It was not applied, or nobody knows.
    Failed,
}

/// What [`Controller::decide`] wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decisions {
    /// To propose; each must be answered with [`Controller::on_answer`].
    pub decisions: Vec<Decision>,
    /// Brokers to dial; each answer goes to [`Controller::on_probe`].
    pub probes: Vec<BrokerGuard>,
    /// When to decide again, if nothing happens before.
    pub look_again: Instant,
}

/// The decisions of one term. It is forgotten when the term ends: what matters is in the image.
///
/// After each call of an `on_…` method, each new image, and at [`Decisions::look_again`], ask [`Controller::decide`]:
/// it costs as much as there are brokers.
#[derive(Debug)]
pub struct Controller {
    settings: ControllerSettings,
    sessions: Sessions,
    balance: Balance,
    in_flight: InFlight,
}

impl Controller {
    /// The controller of a term that begins `now`. Every broker has a full session from here on.
    #[must_use]
    pub fn new(now: Instant, settings: ControllerSettings) -> Self {
        Self {
            sessions: Sessions::new(now),
            balance: Balance::new(now, &settings),
            in_flight: InFlight::default(),
            settings,
        }
    }

    /// A broker says that it lives, and up to where it has applied the metadata log. A fenced one is unfenced once
    /// that contains its registration: one that is not ready to serve yet says 0.
    ///
    /// `heard` is when the last answer left that has reached it. The heartbeats of a broker that has heard nothing for a
    /// session do not count: what it should do would not reach it either. Gives whether this one counts.
    pub fn on_heartbeat(
        &mut self,
        from: BrokerGuard,
        applied_index: u64,
        heard: Option<Instant>,
        now: Instant,
    ) -> bool {
        let hears = is_planted("deaf-broker-is-not-fenced")
            || heard.is_some_and(|heard| now.since(heard) < self.settings.session_timeout);
        if hears {
            self.sessions.on_heartbeat(from, applied_index, now);
        }
        hears
    }

    /// Whether a broker may rely on its leaderships for [`ControllerSettings::session_timeout`], counted from its last
    /// heartbeat that counts: it takes part, and nothing is decided that would end that. Nobody who follows this
    /// controller fences it earlier either: each begins with a session for everybody.
    #[must_use]
    pub fn vouches_for(&self, broker: BrokerGuard, image: &Image) -> bool {
        let takes_part = image
            .broker(broker.broker)
            .is_some_and(|known| known.epoch == broker.epoch && !known.fenced);
        takes_part && self.sessions.hears(broker) && !self.in_flight.has(Subject::Broker(broker.broker))
    }

    /// The connection ended on which the broker's heartbeats came. It is probed at once.
    pub fn on_session_broken(&mut self, broker: BrokerGuard, now: Instant) {
        self.sessions.on_broken(broker, now);
    }

    /// The answer to one of [`Decisions::probes`]. One that is older than the last heartbeat says nothing.
    pub fn on_probe(&mut self, broker: BrokerId, found: Probe, now: Instant) {
        self.sessions.on_probe(broker, found, now);
    }

    /// What became of a decision. Until then nothing else is decided about the same broker or partition.
    pub fn on_answer(&mut self, decision: DecisionId, answer: Answer, now: Instant) {
        let until = match answer {
            Answer::Applied { index } => Until::Index(index),
            Answer::Failed => Until::Time(now + self.settings.retry_after),
        };
        self.in_flight.answered(decision, until);
    }

    /// Decides.
    pub fn decide(&mut self, image: &Image, now: Instant) -> Decisions {
        if self.in_flight.land(image.index(), now) {
            self.balance.look_everywhere();
        }
        let mut out = Decisions {
            decisions: Vec::new(),
            probes: Vec::new(),
            look_again: self.in_flight.next_retry(),
        };
        let Self {
            settings,
            sessions,
            balance,
            in_flight,
        } = self;
        sessions.decide(image, now, settings, in_flight, &mut out);
        balance.decide(image, now, settings, in_flight, &mut out);
        sessions.expect_decision_by(out.look_again);
        out
    }
}

impl Decisions {
    fn look_again_at(&mut self, at: Instant) {
        self.look_again = self.look_again.min(at);
    }
}

/// What a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Broker(BrokerId),
    Partition(TopicId, PartitionIndex),
}

#[derive(Clone, Copy, Debug)]
enum Until {
    Answer,
    Index(u64),
    Time(Instant),
}

/// The decisions that the image does not show yet. While one is here, none is made about its subjects.
#[derive(Debug, Default)]
struct InFlight {
    last: u64,
    flights: BTreeMap<DecisionId, (Vec<Subject>, Until)>,
    subjects: BTreeSet<Subject>,
}

impl InFlight {
    fn has(&self, subject: Subject) -> bool {
        self.subjects.contains(&subject)
    }

    fn take_off(&mut self, subjects: Vec<Subject>, command: Command, why: String) -> Decision {
        self.last += 1;
        let id = DecisionId(self.last);
        self.subjects.extend(&subjects);
        self.flights.insert(id, (subjects, Until::Answer));
        Decision { id, command, why }
    }

    fn answered(&mut self, id: DecisionId, answered: Until) {
        if let Some((_, until)) = self.flights.get_mut(&id) {
            *until = answered;
        }
    }

    /// Ends what the image at `index` shows and what has rested long enough; true if there was something.
    fn land(&mut self, index: u64, now: Instant) -> bool {
        let before = self.flights.len();
        let subjects = &mut self.subjects;
        self.flights.retain(|_, (about, until)| {
            let landed = match *until {
                Until::Answer => false,
                Until::Index(applied) => applied <= index,
                Until::Time(at) => at <= now,
            };
            if landed {
                for subject in about {
                    subjects.remove(subject);
                }
            }
            !landed
        });
        self.flights.len() < before
    }

    fn next_retry(&self) -> Instant {
        let times = self.flights.values().filter_map(|(_, until)| match *until {
            Until::Time(at) => Some(at),
            Until::Answer | Until::Index(_) => None,
        });
        times.min().unwrap_or(Instant::FAR_FUTURE)
    }
}
