//! Random lives of brokers under a controller: who lives is never fenced, who is dead does not stay, and no decision is
//! made twice.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use skerry_metadata_state::{
    Answer, BrokerGuard, Command, Controller, ControllerSettings, Decision, FeatureRange, HostPort, Outcome,
    Probe, RegisterBroker, State,
};
use skerry_types::{BrokerEpoch, BrokerId, Instant, Uuid, WallMs};

const BROKERS: i32 = 4;
/// How often a broker is heard.
const BEAT_MS: u64 = 100;
/// Within that, whoever is dead is fenced and whoever lives is unfenced, also across a new term: a session, and the
/// rest that a decision takes which could not be proposed.
const SETTLED_MS: u64 = 1_200;

#[derive(Clone, Debug)]
enum Step {
    /// The process dies: its connection breaks, and its port refuses.
    Kill(i32),
    /// The host vanishes, or the process is stopped.
    Vanish(i32),
    /// It is back from that, as it was.
    Return(i32),
    /// The process starts again.
    Restart(i32),
    /// Only the connection breaks.
    Disconnect(i32),
    NewTerm,
    /// Proposals fail for some milliseconds.
    NoQuorum(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let broker = || 1..=BROKERS;
    prop_oneof![
        2 => broker().prop_map(Step::Kill),
        2 => broker().prop_map(Step::Vanish),
        2 => broker().prop_map(Step::Return),
        3 => broker().prop_map(Step::Restart),
        2 => broker().prop_map(Step::Disconnect),
        1 => Just(Step::NewTerm),
        1 => (1..500_u64).prop_map(Step::NoQuorum),
        6 => (1..2_000_u64).prop_map(Step::Wait),
    ]
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Alive,
    Vanished,
    Dead,
}

struct World {
    state: State,
    index: u64,
    now_ms: u64,
    controller: Controller,
    look_again: Instant,
    lives: BTreeMap<i32, (Life, BrokerEpoch)>,
    /// Since when each broker is as it is.
    since_ms: BTreeMap<i32, u64>,
    starts: u8,
    in_flight: Vec<Decision>,
    no_quorum_until_ms: u64,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            state: State::default(),
            index: 0,
            now_ms: 0,
            controller: Controller::new(Instant::ZERO, ControllerSettings::default()),
            look_again: Instant::ZERO,
            lives: BTreeMap::new(),
            since_ms: BTreeMap::new(),
            starts: 0,
            in_flight: Vec::new(),
            no_quorum_until_ms: 0,
        };
        for broker in 1..=BROKERS {
            world.restart(broker);
        }
        world
    }

    fn now(&self) -> Instant {
        Instant::from_millis(self.now_ms)
    }

    fn guard(&self, broker: i32) -> BrokerGuard {
        BrokerGuard {
            broker: BrokerId(broker),
            epoch: self.lives[&broker].1,
        }
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, command).outcome
    }

    fn restart(&mut self, broker: i32) {
        self.starts = self.starts.wrapping_add(1);
        let outcome = self.apply(&Command::RegisterBroker(RegisterBroker {
            broker: BrokerId(broker),
            incarnation: Uuid([self.starts; 16]),
            directory: Uuid([0; 16]),
            clean: false,
            kafka: HostPort::new("a", 9092),
            cluster: HostPort::new("a", 9093),
            rack: None,
            features: FeatureRange::OURS,
            at: WallMs(0),
        }));
        let Outcome::BrokerRegistered { epoch } = outcome else {
            panic!("{outcome:?}")
        };
        self.lives.insert(broker, (Life::Alive, epoch));
        self.since_ms.insert(broker, self.now_ms);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Kill(broker) => {
                self.lives.get_mut(&broker).unwrap().0 = Life::Dead;
                let guard = self.guard(broker);
                self.controller.on_session_broken(guard, self.now());
            }
            Step::Vanish(broker) if self.lives[&broker].0 == Life::Alive => {
                self.lives.get_mut(&broker).unwrap().0 = Life::Vanished;
            }
            Step::Return(broker) if self.lives[&broker].0 == Life::Vanished => {
                self.lives.get_mut(&broker).unwrap().0 = Life::Alive;
                self.since_ms.insert(broker, self.now_ms);
            }
            Step::Restart(broker) => self.restart(broker),
            Step::Disconnect(broker) => {
                let guard = self.guard(broker);
                self.controller.on_session_broken(guard, self.now());
            }
            Step::NewTerm => {
                // What the old one proposed is decided or not; here it is not.
                self.in_flight.clear();
                self.controller = Controller::new(self.now(), ControllerSettings::default());
            }
            Step::NoQuorum(ms) => self.no_quorum_until_ms = self.now_ms + ms,
            Step::Wait(ms) => self.wait(ms),
            Step::Vanish(_) | Step::Return(_) => {}
        }
        self.decide();
    }

    fn wait(&mut self, ms: u64) {
        for _ in 0..ms {
            self.now_ms += 1;
            let now = self.now();
            let due = self.now_ms % BEAT_MS;
            for broker in 1..=BROKERS {
                if self.lives[&broker].0 == Life::Alive && due == u64::from(broker.unsigned_abs()) {
                    let guard = self.guard(broker);
                    self.controller.on_heartbeat(guard, self.index, Some(now), now);
                    self.look_again = now;
                }
            }
            self.settle();
            if self.look_again <= now {
                self.decide();
            }
        }
    }

    /// Proposals take until the next millisecond.
    fn settle(&mut self) {
        for decision in std::mem::take(&mut self.in_flight) {
            let answer = if self.now_ms < self.no_quorum_until_ms {
                Answer::Failed
            } else {
                self.judge(&decision.command);
                self.apply(&decision.command);
                Answer::Applied { index: self.index }
            };
            self.controller.on_answer(decision.id, answer, self.now());
            self.look_again = self.now();
        }
    }

    fn judge(&self, command: &Command) {
        if let Command::FenceBroker(guard) = command {
            let (life, epoch) = self.lives[&guard.broker.get()];
            let for_ms = self.now_ms - self.since_ms[&guard.broker.get()];
            // One that was silent until a moment ago may be fenced for that.
            assert!(
                life != Life::Alive || epoch != guard.epoch || for_ms <= BEAT_MS + 1,
                "broker {} lives and is fenced at {} ms",
                guard.broker,
                self.now_ms
            );
        }
    }

    fn decide(&mut self) {
        loop {
            let decided = self.controller.decide(self.state.image(), self.now());
            for decision in decided.decisions {
                let twice = self
                    .in_flight
                    .iter()
                    .any(|other| other.command == decision.command);
                assert!(!twice, "{}", decision.why);
                self.in_flight.push(decision);
            }
            self.look_again = decided.look_again;
            if decided.probes.is_empty() {
                return;
            }
            for probed in decided.probes {
                let found = match self.lives[&probed.broker.get()].0 {
                    Life::Alive => Probe::Alive,
                    Life::Vanished => Probe::NoAnswer,
                    Life::Dead => Probe::Refused,
                };
                self.controller.on_probe(probed.broker, found, self.now());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn who_lives_takes_part_and_who_is_dead_does_not(steps in prop::collection::vec(step(), 1..40)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.wait(500 + SETTLED_MS);
        for (broker, (life, epoch)) in &world.lives {
            let known = world.state.image().broker(BrokerId(*broker)).unwrap();
            prop_assert_eq!(known.epoch, *epoch);
            prop_assert_eq!(known.fenced, *life != Life::Alive, "broker {} is {:?}", broker, life);
        }
        prop_assert!(world.in_flight.is_empty());
        // Nothing is left to do: the next look is for the sake of sessions.
        prop_assert!(world.look_again > world.now());
        prop_assert!(world.look_again <= world.now() + Duration::from_mins(5));
    }
}
