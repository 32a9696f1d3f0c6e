//! Which brokers live.

use std::collections::BTreeMap;

use skerry_types::{BrokerEpoch, BrokerId, Instant, reached, sometimes};

use super::{ControllerSettings, Decisions, InFlight, Probe, Subject};
use crate::command::{BrokerGuard, Command};
use crate::image::{Broker, Image};

#[derive(Debug)]
pub(super) struct Sessions {
    began: Instant,
    brokers: BTreeMap<BrokerId, Session>,
    /// When the next decision was promised; `None` before the first.
    due: Option<Instant>,
}

/// What is known of one registration of a broker.
#[derive(Debug)]
struct Session {
    epoch: BrokerEpoch,
    /// When it was heard; before that, when its silence began to count.
    last: Instant,
    /// It came to this controller, and since it was fenced, if it was.
    heard: bool,
    /// It takes part.
    unfenced: bool,
    /// How far it has applied the metadata log.
    applied: u64,
    /// When its connection ended, if it has not come back.
    broken: Option<Instant>,
    probed: Probed,
}

/// What probes found since the broker was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Probed {
    Never,
    UnderWay,
    /// Somebody, or nothing, at that time.
    Undecided(Instant),
    /// Nobody.
    Dead,
}

impl Session {
    const fn new(epoch: BrokerEpoch, since: Instant) -> Self {
        Self {
            epoch,
            last: since,
            heard: false,
            unfenced: false,
            applied: 0,
            broken: None,
            probed: Probed::Never,
        }
    }

    /// When it is to be probed next, if ever.
    fn probe_at(&self, settings: &ControllerSettings) -> Option<Instant> {
        if self.heard && self.broken.is_none() {
            return None;
        }
        match self.probed {
            Probed::Never => Some(self.broken.unwrap_or(self.last + settings.probe_after)),
            Probed::Undecided(at) => Some(at + settings.probe_interval),
            Probed::UnderWay | Probed::Dead => None,
        }
    }
}

impl Sessions {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            began: now,
            brokers: BTreeMap::new(),
            due: None,
        }
    }

    pub(super) fn on_heartbeat(&mut self, from: BrokerGuard, applied: u64, now: Instant) {
        let known = self.brokers.get(&from.broker);
        if known.is_some_and(|known| known.epoch > from.epoch) {
            return;
        }
        let session = Session {
            heard: true,
            unfenced: known.is_some_and(|known| known.unfenced && known.epoch == from.epoch),
            applied,
            ..Session::new(from.epoch, now)
        };
        self.brokers.insert(from.broker, session);
    }

    /// It came to this controller, and nothing speaks against its being alive.
    pub(super) fn hears(&self, broker: BrokerGuard) -> bool {
        let session = self.brokers.get(&broker.broker);
        session.is_some_and(|session| {
            session.epoch == broker.epoch && session.heard && session.probed != Probed::Dead
        })
    }

    pub(super) fn on_broken(&mut self, broker: BrokerGuard, now: Instant) {
        if let Some(session) = self.brokers.get_mut(&broker.broker)
            && session.epoch == broker.epoch
        {
            session.broken = Some(now);
            session.probed = Probed::Never;
        }
    }

    pub(super) fn on_probe(&mut self, broker: BrokerId, found: Probe, now: Instant) {
        if let Some(session) = self.brokers.get_mut(&broker)
            && session.probed == Probed::UnderWay
        {
            session.probed = match found {
                Probe::Refused => Probed::Dead,
                Probe::Alive | Probe::NoAnswer => Probed::Undecided(now),
            };
        }
    }

    pub(super) const fn expect_decision_by(&mut self, due: Instant) {
        self.due = Some(due);
    }

    pub(super) fn decide(
        &mut self,
        image: &Image,
        now: Instant,
        settings: &ControllerSettings,
        in_flight: &mut InFlight,
        out: &mut Decisions,
    ) {
        self.forgive_own_silence(now, settings);
        let since = if self.due.is_none() { self.began } else { now };
        for broker in image.brokers() {
            let session = self
                .brokers
                .entry(broker.id)
                .and_modify(|session| {
                    // It registered again and has not come yet.
                    if session.epoch < broker.epoch {
                        *session = Session::new(broker.epoch, since);
                    }
                })
                .or_insert_with(|| Session::new(broker.epoch, since));
            if session.epoch != broker.epoch || in_flight.has(Subject::Broker(broker.id)) {
                continue;
            }
            // What it said before it was fenced is no reason to undo that: it may have asked for it.
            if broker.fenced && session.unfenced {
                session.heard = false;
            }
            session.unfenced = !broker.fenced;
            let guard = BrokerGuard {
                broker: broker.id,
                epoch: broker.epoch,
            };
            let decided = if broker.fenced {
                unfence(broker, session, now, settings).map(|why| (Command::UnfenceBroker(guard), why))
            } else {
                fence(broker, session, now, settings).map(|why| (Command::FenceBroker(guard), why))
            };
            if let Some((command, why)) = decided {
                out.decisions
                    .push(in_flight.take_off(vec![Subject::Broker(broker.id)], command, why));
            } else if !broker.fenced {
                out.look_again_at(session.last + settings.patience(broker.id));
                if session.probe_at(settings).is_some_and(|at| at <= now) {
                    session.probed = Probed::UnderWay;
                    out.probes.push(guard);
                }
                if let Some(at) = session.probe_at(settings) {
                    out.look_again_at(at);
                }
            }
        }
        // A broker that the image does not show yet may still come; one that was forgotten does not.
        self.brokers.retain(|&id, session| {
            image.broker(id).is_some() || now.since(session.last) < settings.session_timeout
        });
    }

    /// A controller that was stopped itself has not listened: nobody is silent because of that. Everybody gets half a
    /// session more.
    fn forgive_own_silence(&mut self, now: Instant, settings: &ControllerSettings) {
        let half = settings.session_timeout / 2;
        if self.due.is_none_or(|due| now.since(due) < half) {
            return;
        }
        reached("controller-stood-still");
        let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        let since = Instant::from_nanos(now.as_nanos().saturating_sub(nanos));
        for session in self.brokers.values_mut() {
            session.last = session.last.max(since);
        }
    }
}

/// Why the broker is to be fenced.
fn fence(broker: &Broker, session: &Session, now: Instant, settings: &ControllerSettings) -> Option<String> {
    let id = broker.id;
    if session.probed == Probed::Dead {
        reached("dead-process-fenced-at-once");
        return Some(format!(
            "broker {id} is fenced: its process is gone, {} refuses connections",
            broker.cluster
        ));
    }
    let (silent, patience) = (now.since(session.last), settings.patience(id));
    sometimes("silent-broker-fenced", silent >= patience);
    (silent >= patience).then(|| {
        format!(
            "broker {id} is fenced: it was not heard for {} ms",
            silent.as_millis()
        )
    })
}

/// Why the broker is to be unfenced.
fn unfence(
    broker: &Broker,
    session: &Session,
    now: Instant,
    settings: &ControllerSettings,
) -> Option<String> {
    let id = broker.id;
    let present =
        session.heard && session.broken.is_none() && now.since(session.last) < settings.session_timeout;
    let caught_up = u64::try_from(broker.epoch.get()).is_ok_and(|registered| session.applied >= registered);
    (present && caught_up && !broker.draining).then(|| {
        format!(
            "broker {id} is unfenced: it is here and has applied the metadata up to {}",
            session.applied
        )
    })
}
