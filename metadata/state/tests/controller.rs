//! What the controller decides, as transcripts of time.
//!
//! `at MS` lets time pass and decides at each moment that the controller asked for; `now` decides at once. Decisions
//! are in flight until `apply` or `fail`. `beat 1,2 INDEX` are heartbeats of brokers that hear the answers, `deaf 1 MS` is
//! one of a broker that heard the last at that time. Other lines are commands of the metadata (`script`).

use std::fmt::Write as _;
use std::time::Duration;

use expect_test::{Expect, expect};
use skerry_metadata_state::{
    Answer, BrokerGuard, Command, Controller, ControllerSettings, Decision, Decisions, Outcome, Probe, State,
};
use skerry_types::{BrokerEpoch, BrokerId, Instant};

mod script;

struct Play {
    state: State,
    index: u64,
    now: Instant,
    look_again: Instant,
    controller: Controller,
    in_flight: Vec<Decision>,
    transcript: String,
}

impl Play {
    fn new(settings: ControllerSettings) -> Self {
        Self {
            state: State::default(),
            index: 0,
            now: Instant::ZERO,
            look_again: Instant::FAR_FUTURE,
            controller: Controller::new(Instant::ZERO, settings),
            in_flight: Vec::new(),
            transcript: String::new(),
        }
    }

    fn decide(&mut self) {
        let Decisions {
            decisions,
            probes,
            look_again,
        } = self.controller.decide(self.state.image(), self.now);
        let at = self.now.as_millis();
        for decision in &decisions {
            writeln!(self.transcript, "{at} ms: {}", decision.why).unwrap();
        }
        for probe in probes {
            writeln!(self.transcript, "{at} ms: probe {}", probe.broker).unwrap();
        }
        self.in_flight.extend(decisions);
        self.look_again = look_again;
    }

    fn wait_until(&mut self, at: Instant) {
        let mut turns = 0;
        while self.look_again <= at {
            turns = if self.look_again > self.now { 0 } else { turns + 1 };
            assert!(turns < 10, "it spins");
            self.now = self.now.max(self.look_again);
            self.decide();
        }
        self.now = at;
    }

    fn apply_in_flight(&mut self) {
        for decision in std::mem::take(&mut self.in_flight) {
            let outcome = self.apply(&decision.command);
            if let Outcome::Refused(refusal) = outcome {
                writeln!(self.transcript, "      refused: {refusal}").unwrap();
            }
            let answer = Answer::Applied { index: self.index };
            self.controller.on_answer(decision.id, answer, self.now);
        }
        self.decide();
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let outcome = self.state.apply(self.index, command).outcome;
        assert_eq!(self.state.image().check(), Ok(()));
        outcome
    }

    fn guard(&self, word: &str) -> BrokerGuard {
        let (id, epoch) = word.split_once('@').unwrap_or((word, ""));
        let guard = script::guard(&self.state, id.parse().unwrap());
        BrokerGuard {
            epoch: epoch.parse().map_or(guard.epoch, BrokerEpoch),
            ..guard
        }
    }

    fn line(&mut self, line: &str) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "at" => self.wait_until(Instant::from_millis(words[1].parse().unwrap())),
            // Time in which the controller itself did not run.
            "stopped-until" => {
                self.now = Instant::from_millis(words[1].parse().unwrap());
                self.decide();
            }
            "now" => self.decide(),
            "beat" => {
                let applied = words.get(2).map_or(self.index, |index| index.parse().unwrap());
                for id in words[1].split(',') {
                    let guard = self.guard(id);
                    self.controller
                        .on_heartbeat(guard, applied, Some(self.now), self.now);
                }
                self.decide();
            }
            "deaf" => {
                let guard = self.guard(words[1]);
                let heard = words.get(2).map(|ms| Instant::from_millis(ms.parse().unwrap()));
                self.controller.on_heartbeat(guard, self.index, heard, self.now);
                self.decide();
            }
            "vouches" => {
                let guard = self.guard(words[1]);
                let vouches = self.controller.vouches_for(guard, self.state.image());
                let (at, word) = (self.now.as_millis(), if vouches { "yes" } else { "no" });
                writeln!(self.transcript, "{at} ms: {}? {word}", words[1]).unwrap();
            }
            "broken" => {
                let guard = self.guard(words[1]);
                self.controller.on_session_broken(guard, self.now);
                self.decide();
            }
            "probed" => {
                let found = match words[2] {
                    "refused" => Probe::Refused,
                    "alive" => Probe::Alive,
                    _ => Probe::NoAnswer,
                };
                self.controller
                    .on_probe(BrokerId(words[1].parse().unwrap()), found, self.now);
                self.decide();
            }
            "apply" => self.apply_in_flight(),
            "fail" => {
                for decision in std::mem::take(&mut self.in_flight) {
                    self.controller.on_answer(decision.id, Answer::Failed, self.now);
                }
                self.decide();
            }
            "new-term" => {
                self.in_flight.clear();
                self.controller = Controller::new(self.now, ControllerSettings::default());
                self.decide();
            }
            "show" => script::show(&self.state, words[1], &mut self.transcript),
            _ => {
                let command = script::parse(&self.state, line);
                let outcome = self.apply(&command);
                assert!(!matches!(outcome, Outcome::Refused(_)), "{line}: {outcome:?}");
                self.decide();
            }
        }
    }
}

fn check_with(settings: ControllerSettings, script: &str, expect: Expect) {
    let mut play = Play::new(settings);
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        play.line(line);
    }
    expect.assert_eq(&play.transcript);
}

fn check(script: &str, expect: Expect) {
    check_with(ControllerSettings::default(), script, expect);
}

/// Brokers 1 to 3, registered at 1, 3 and 5, unfenced, and heard at 0 ms.
const THREE: &str = "register 1 a
    unfence 1
    register 2 a
    unfence 2
    register 3 a
    unfence 3
    beat 1,2,3\n";

fn check_three(script: &str, expect: Expect) {
    check(&[THREE, script].concat(), expect);
}

#[test]
fn a_silent_broker_is_fenced_when_its_session_ends() {
    check_three(
        "create t at=3,1,2
         at 500
         beat 1,2
         at 749
         at 750
         apply
         show t
         at 1000
         beat 1,2
         at 1100",
        expect![[r#"
            750 ms: broker 3 is fenced: it was not heard for 750 ms
               t-0: replicas [3 1 2] isr [1 2] leader 1 epoch 1 version 1
        "#]],
    );
}

/// Its heartbeats do not leave the process: they are late where the processor is short.
#[test]
fn the_broker_of_the_controllers_own_process_is_waited_for_longer() {
    let settings = ControllerSettings {
        own: Some(BrokerId(1)),
        ..ControllerSettings::default()
    };
    check_with(
        settings,
        &[
            THREE,
            "create t at=1,2,3
             at 500
             beat 2
             at 1249
             beat 2
             at 1900
             beat 2
             at 2600
             beat 1,2
             show t
             at 9000",
        ]
        .concat(),
        expect![[r#"
            750 ms: broker 3 is fenced: it was not heard for 750 ms
               t-0: replicas [1 2 3] isr [1 2 3] leader 1 epoch 0 version 0
            3350 ms: broker 2 is fenced: it was not heard for 750 ms
            8600 ms: broker 1 is fenced: it was not heard for 6000 ms
        "#]],
    );
}

#[test]
fn a_deaf_broker_is_fenced_although_it_is_heard() {
    check_three(
        "at 200
         beat 1,2
         deaf 3 150
         at 800
         beat 1,2
         deaf 3 150
         at 899
         deaf 3 150
         at 1000
         beat 1,2
         deaf 3
         at 1600
         beat 1,2
         deaf 3 150
         at 1649
         apply
         beat 3
         apply",
        expect![[r#"
            1649 ms: broker 3 is fenced: it was not heard for 750 ms
            1649 ms: broker 3 is unfenced: it is here and has applied the metadata up to 7
        "#]],
    );
}

#[test]
fn nobody_relies_on_a_controller_that_has_decided_otherwise() {
    check_three(
        "vouches 3
         at 700
         beat 1,2
         vouches 3
         at 750
         beat 3
         vouches 3
         vouches 2
         fail
         at 849
         vouches 3
         at 900
         beat 3
         vouches 3
         vouches 3@1",
        expect![[r#"
            0 ms: 3? yes
            700 ms: 3? yes
            750 ms: broker 3 is fenced: it was not heard for 750 ms
            750 ms: 3? no
            750 ms: 2? yes
            849 ms: 3? no
            900 ms: 3? yes
            900 ms: 3@1? no
        "#]],
    );
}

#[test]
fn a_new_controller_vouches_for_nobody_it_has_not_heard() {
    check_three(
        "at 100
         new-term
         vouches 1
         beat 1
         vouches 1
         vouches 2
         broken 1
         probed 1 refused
         vouches 1",
        expect![[r#"
            100 ms: 1? no
            100 ms: 1? yes
            100 ms: 2? no
            100 ms: probe 1
            100 ms: broker 1 is fenced: its process is gone, [::1]:9093 refuses connections
            100 ms: 1? no
        "#]],
    );
}

#[test]
fn a_dead_process_is_fenced_at_once() {
    check_three(
        "at 100
         beat 1,2,3
         at 150
         broken 3
         at 152
         probed 3 refused
         apply
         at 200
         beat 1,2",
        expect![[r#"
            150 ms: probe 3
            152 ms: broker 3 is fenced: its process is gone, [::1]:9093 refuses connections
        "#]],
    );
}

#[test]
fn a_broken_connection_alone_proves_nothing() {
    check_three(
        "at 100
         broken 3
         probed 3 alive
         at 150
         beat 1,2
         at 230
         probed 3 no-answer
         at 240
         beat 3
         at 400
         broken 3@1
         at 500
         beat 1,2,3
         broken 3
         beat 3
         probed 3 refused
         at 600",
        expect![[r#"
            100 ms: probe 3
            200 ms: probe 3
            500 ms: probe 3
        "#]],
    );
}

#[test]
fn a_broker_that_comes_back_is_unfenced_once_it_has_caught_up() {
    check(
        "register 1 a
         beat 1 0
         beat 1 1
         apply
         create t
         at 700
         beat 1
         fence 1
         now
         show t
         beat 1
         apply
         show t
         register 1 b
         beat 1@1
         beat 1 1
         beat 1
         apply
         show t",
        expect![[r#"
            0 ms: broker 1 is unfenced: it is here and has applied the metadata up to 1
               t-0: replicas [1] isr [] elr [1] leader nobody epoch 0 version 1
            700 ms: broker 1 is unfenced: it is here and has applied the metadata up to 4
               t-0: replicas [1] isr [1] leader 1 epoch 1 version 2
            700 ms: broker 1 is unfenced: it is here and has applied the metadata up to 6
               t-0: replicas [1] isr [1] leader 1 epoch 2 version 4
        "#]],
    );
}

#[test]
fn a_new_controller_gives_everybody_a_session_and_probes_whoever_does_not_come() {
    check_three(
        "at 5000
         new-term
         at 5010
         beat 1,2
         at 5030
         probed 3 refused
         apply
         new-term
         beat 1
         at 5200
         probed 2 alive
         at 5300
         probed 2 alive
         at 5450
         beat 1
         at 5800
         apply
         beat 2
         apply",
        expect![[r#"
            750 ms: broker 1 is fenced: it was not heard for 750 ms
            750 ms: broker 2 is fenced: it was not heard for 750 ms
            750 ms: broker 3 is fenced: it was not heard for 750 ms
            5030 ms: probe 3
            5030 ms: broker 3 is fenced: its process is gone, [::1]:9093 refuses connections
            5060 ms: probe 2
            5300 ms: probe 2
            5400 ms: probe 2
            5780 ms: broker 2 is fenced: it was not heard for 750 ms
            5800 ms: broker 2 is unfenced: it is here and has applied the metadata up to 8
        "#]],
    );
}

#[test]
fn no_decision_is_made_twice_while_it_is_under_way() {
    check_three(
        "at 400
         beat 1,2
         at 750
         now
         now
         at 760
         fail
         at 790
         beat 1,2
         at 859
         at 860
         now
         apply
         now",
        expect![[r#"
            750 ms: broker 3 is fenced: it was not heard for 750 ms
            860 ms: broker 3 is fenced: it was not heard for 860 ms
        "#]],
    );
}

#[test]
fn a_controller_that_was_stopped_itself_calls_nobody_silent() {
    check_three(
        "at 100
         beat 1,2,3
         stopped-until 9000
         at 9100
         beat 1,2
         at 9374
         at 9375",
        expect![[r#"
            9375 ms: broker 3 is fenced: it was not heard for 750 ms
        "#]],
    );
}

#[test]
fn a_draining_broker_is_not_unfenced_before_it_registers_again() {
    check_three(
        "create t at=3,1,2
         at 100
         beat 1,2,3
         drain 3
         show t
         broken 3
         probed 3 refused
         apply
         beat 1,2,3
         at 200
         register 3 b
         beat 3
         apply
         beat 1,2,3",
        expect![[r#"
               t-0: replicas [3 1 2] isr [1 2] leader 1 epoch 1 version 1
            100 ms: probe 3
            100 ms: broker 3 is fenced: its process is gone, [::1]:9093 refuses connections
            200 ms: broker 3 is unfenced: it is here and has applied the metadata up to 10
        "#]],
    );
}

#[test]
fn leaderships_go_back_to_preferred_replicas_from_time_to_time() {
    let settings = ControllerSettings {
        session_timeout: Duration::from_hours(1),
        leader_imbalance_check_interval: Duration::from_secs(60),
        ..ControllerSettings::default()
    };
    let script = "create t at=3,1,2
         create u at=3,2
         create v at=2,1
         fence 3
         unfence 3
         isr t 1 1,2,3
         at 59999
         at 60000
         now
         apply
         show t
         show u
         isr u 2 2,3
         at 119999
         at 120000
         drain 3
         apply
         show u
         at 500000";
    check_with(
        settings,
        &[THREE, script].concat(),
        expect![[r#"
            30 ms: probe 3
            60000 ms: leaderships go back to preferred replicas: 1 partition
               t-0: replicas [3 1 2] isr [3 1 2] leader 3 epoch 2 version 3
               u-0: replicas [3 2] isr [2] leader 2 epoch 1 version 1
            120000 ms: leaderships go back to preferred replicas: 1 partition
               u-0: replicas [3 2] isr [2] leader 2 epoch 1 version 3
        "#]],
    );
}

#[test]
fn internal_topics_get_more_replicas_when_brokers_come() {
    check(
        "register 1 a
         unfence 1
         beat 1
         create __offsets p=4
         create t p=1
         register 2 a
         beat 2
         apply
         now
         apply
         show __offsets
         isr __offsets 1 1,2
         isr __offsets 1 1,2 of=1
         register 3 a
         beat 3
         apply
         apply
         show __offsets
         isr __offsets 1 1,2 of=2
         apply
         show __offsets
         show t",
        expect![[r#"
            0 ms: broker 2 is unfenced: it is here and has applied the metadata up to 5
            0 ms: __offsets gets more replicas, for there are more brokers: 4 partitions
               __offsets-0: replicas [2 1] isr [1] adding [2] leader 1 epoch 0 version 1
               __offsets-1: replicas [2 1] isr [1] adding [2] leader 1 epoch 0 version 1
               __offsets-2: replicas [1 2] isr [1] adding [2] leader 1 epoch 0 version 1
               __offsets-3: replicas [1 2] isr [1] adding [2] leader 1 epoch 0 version 1
            0 ms: broker 3 is unfenced: it is here and has applied the metadata up to 10
            0 ms: __offsets gets more replicas, for there are more brokers: 2 partitions
               __offsets-0: replicas [3 1 2] isr [1 2] adding [3] leader 1 epoch 0 version 3
               __offsets-1: replicas [2 1 3] isr [2 1] adding [3] leader 1 epoch 0 version 3
               __offsets-2: replicas [1 2] isr [1] adding [2] leader 1 epoch 0 version 1
               __offsets-3: replicas [1 2] isr [1] adding [2] leader 1 epoch 0 version 1
            0 ms: __offsets gets more replicas, for there are more brokers: 1 partition
               __offsets-0: replicas [3 1 2] isr [1 2] adding [3] leader 1 epoch 0 version 3
               __offsets-1: replicas [2 1 3] isr [2 1] adding [3] leader 1 epoch 0 version 3
               __offsets-2: replicas [1 2 3] isr [1 2] adding [3] leader 1 epoch 0 version 3
               __offsets-3: replicas [1 2] isr [1] adding [2] leader 1 epoch 0 version 1
               t-0: replicas [1] isr [1] leader 1 epoch 0 version 0
        "#]],
    );
}

/// A thousand elections are asked for at a time; those of the second round come only where they are wanted.
#[test]
fn many_leaderships_go_back_in_parts() {
    let settings = ControllerSettings {
        session_timeout: Duration::from_hours(1),
        ..ControllerSettings::default()
    };
    let mut play = Play::new(settings);
    for line in THREE.lines() {
        play.line(line.trim());
    }
    play.line(&format!("create t at={}", vec!["3,1"; 2_500].join("/")));
    play.line("fence 3");
    play.line("unfence 3");
    let changes = (0..2_500).map(|partition| {
        let Command::ChangePartition(change) = script::parse(&play.state, "isr t 1 1,3") else {
            panic!("it is an isr")
        };
        Command::ChangePartition(skerry_metadata_state::ChangePartition {
            partition: skerry_types::PartitionIndex(partition),
            ..change
        })
    });
    let changes = Command::Batch(changes.collect());
    play.apply(&changes);
    play.transcript.clear();
    play.line("at 299999");
    play.line("at 300000");
    play.line("apply");
    play.line("at 600000");
    expect![[r#"
        30 ms: probe 3
        300000 ms: leaderships go back to preferred replicas: 1000 partitions
        300000 ms: leaderships go back to preferred replicas: 1000 partitions
        300000 ms: leaderships go back to preferred replicas: 500 partitions
    "#]]
    .assert_eq(&play.transcript);
    let topic = play.state.image().topic("t").unwrap();
    assert!(
        topic
            .partitions
            .iter()
            .all(|partition| partition.leader == Some(BrokerId(3)))
    );
}
