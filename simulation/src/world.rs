//! One simulation: hosts, faults, phases, verdict.
//!
//! The order of a run: faults and load; everything is healed and the load goes on; the load ends; every partition
//! takes a record; one last crash; every partition takes a record again, and one client reads everything. Then the
//! history is judged.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use skerry_env::Rng;
use skerry_env::clock::ClockBackend as _;
use turmoil::{Builder, Sim};

use crate::checker::history::{History, Note};
use crate::checker::{self, Violation};
use crate::disk::{DiskConfig, SimDisk};
use crate::env::{Host, LinkFaults, NetControl};
use crate::oracle::{Rotten, Violations, WireOracle};
use crate::process::{Process, State};
use crate::rot::{self, Rot};
use crate::scenario::{CLIENT_HOSTS, Fault, Scenario};
use crate::trace::Trace;
use crate::workload::{self, Phase, Shared};

const BROKER: &str = "broker";
const KAFKA_PORT: u16 = 9092;
/// How long load goes on after everything has healed.
const HEALED_MS: u64 = 1_500;
/// No client needs longer to end the operation in hand.
const IDLE_WITHIN_MS: u64 = 30_000;
/// A SIGTERM is obeyed within this time.
const STOPS_WITHIN_MS: u64 = 20_000;
/// A supervisor starts a process again that has ended by itself.
const SUPERVISOR_MS: u64 = 300;
/// No simulation lasts longer.
const HORIZON_MS: u64 = 180_000;

/// What a simulation came to.
pub struct Report {
    /// Broken promises with their times in microseconds (0: found at the end), the first first.
    pub violations: Vec<(u64, Violation)>,
    /// What clients did and heard.
    pub history: History,
    /// One number over everything that happened.
    pub hash: u64,
    /// How long it was.
    pub sim_ms: u64,
    /// How often the broker was started.
    pub starts: u64,
    /// How many answers were compared with the disk.
    pub answers_checked: u64,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
}

enum Action {
    Fault(usize),
    Start,
    PowerAgain { down_ms: u64 },
    MustHaveStopped { start: u64 },
    NormalLatency(String),
    Release(String),
    Repair(String),
    StopFlapping(String),
    GoodConnections(String),
    NormalDisk,
    FreeDisk,
    GoodSyncs,
}

struct World<'a> {
    scenario: &'a Scenario,
    sim: Sim<'static>,
    trace: Trace,
    shared: Arc<Shared>,
    violations: Violations,
    broker: Host,
    process: Process,
    oracle: Arc<WireOracle>,
    clients: BTreeMap<&'static str, Host>,
    agenda: BTreeMap<(u64, u64), Action>,
    scheduled: u64,
    now_ms: u64,
    starts: u64,
    /// The failures that the disk had caused when the process started: a process may end because of later ones.
    excuses_at_start: u64,
    dies_by_power: Option<(bool, u64)>,
    again_at_start: Option<(u64, u64)>,
    after_stop_ms: u64,
    rot: Option<Rot>,
    faults: BTreeMap<&'static str, u64>,
}

/// Where a panic of this process is written down: a panic of any simulated task is a violation.
static PANICS: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// What a process that a second panic ends writes to its standard error, for its parent.
pub const PANIC_PREFIX: &str = "panic: ";
/// Before each of the last lines of the trace, after a panic.
pub const LINE_PREFIX: &str = "| ";
const LAST_WORDS: usize = 24;

fn catch_panics(trace: Trace) {
    std::panic::set_hook(Box::new(move |info| {
        let place = info
            .location()
            .map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
        let payload = info.payload();
        let words = payload.downcast_ref::<&str>().map(ToString::to_string);
        let words = words
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        let mut panics = PANICS.lock();
        eprintln!("{PANIC_PREFIX}{words} ({place})");
        if panics.is_empty() {
            for line in trace.last_words(LAST_WORDS) {
                eprintln!("{LINE_PREFIX}{line}");
            }
        }
        panics.push(format!("{words} ({place})"));
    }));
}

/// Runs a scenario to its end, or to its first broken promise.
#[must_use]
pub fn run(scenario: &Scenario, trace: Trace) -> Report {
    catch_panics(trace.clone());
    let mut world = World::new(scenario, trace);
    world.play();
    world.finish()
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, trace: Trace) -> Self {
        let seed = scenario.seed;
        let (min, max) = scenario.latency_ms;
        let sim = Builder::new()
            .rng_seed(seed)
            .enable_random_order()
            .tick_duration(Duration::from_millis(scenario.tick_ms))
            .simulation_duration(Duration::from_millis(HORIZON_MS * 2))
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600))
            .min_message_latency(Duration::from_millis(min))
            .max_message_latency(Duration::from_millis(max))
            .tcp_capacity(65_536)
            .build();
        let violations = Violations::default();
        let rotten = Rotten::default();
        let config = DiskConfig {
            cold_read_one_in: scenario.cold_read_one_in,
            ..DiskConfig::default()
        };
        let disk = SimDisk::new(BROKER, config, Rng::seeded(seed ^ 0xd15c), trace.clone());
        let oracle = Arc::new(WireOracle::new(
            KAFKA_PORT,
            disk.clone(),
            violations.clone(),
            rotten.clone(),
            trace.clone(),
        ));
        let net = NetControl::new(BROKER, Some(oracle.clone()), trace.clone());
        let broker = Host::new(BROKER, disk, net, Rng::seeded(seed ^ 0xb0c4), trace.clone());
        let mut agenda = BTreeMap::new();
        for (index, timed) in scenario.faults.iter().enumerate() {
            agenda.insert((timed.at_ms, index as u64), Action::Fault(index));
        }
        Self {
            scenario,
            sim,
            shared: Shared::new(violations.clone(), rotten, trace.clone()),
            violations,
            process: Process::new(broker.clone()),
            broker,
            oracle,
            trace,
            clients: BTreeMap::new(),
            scheduled: scenario.faults.len() as u64,
            agenda,
            now_ms: 0,
            starts: 1,
            excuses_at_start: 0,
            dies_by_power: None,
            again_at_start: None,
            after_stop_ms: 0,
            rot: None,
            faults: BTreeMap::new(),
        }
    }

    fn play(&mut self) {
        let process = self.process.clone();
        self.trace.event(BROKER, format_args!("starts"));
        self.sim.host(BROKER, move || {
            let process = process.clone();
            async move {
                process.run().await;
                Ok(())
            }
        });
        for name in CLIENT_HOSTS {
            self.add_client(name);
        }
        if !self.step_until(self.scenario.faults_ms, |_| false) {
            return;
        }
        self.heal();
        self.shared.set_phase(Phase::Healed);
        if !self.step_until(self.now_ms + HEALED_MS, |_| false) {
            return;
        }
        self.shared.set_phase(Phase::Stopping);
        let idle_by = self.now_ms + IDLE_WITHIN_MS;
        if !self.step_until(idle_by, |world| world.shared.all_idle()) {
            return;
        }
        if !self.shared.all_idle() {
            self.violations.add(
                &self.trace,
                "stuck",
                "a client's last operation does not end".to_owned(),
            );
            return;
        }
        self.shared.set_phase(Phase::Audit);
        if !self.audit("probe", false) {
            return;
        }
        let power = self.scenario.ends_with_power_cut;
        self.trace.event(
            "world",
            format_args!("the last crash ({})", if power { "power cut" } else { "kill" }),
        );
        self.crash(power, 50);
        self.audit("auditor", true);
    }

    fn add_client(&mut self, name: &'static str) {
        let host = self.new_host(name);
        let (shared, workload) = (self.shared.clone(), self.scenario.workload.clone());
        let body = host.clone();
        self.sim.host(name, move || {
            let (host, shared, workload) = (body.clone(), shared.clone(), workload.clone());
            async move {
                workload::start(&host.boot(), &host.name, &workload, &shared);
                std::future::pending::<()>().await;
                Ok(())
            }
        });
        self.clients.insert(name, host);
    }

    fn new_host(&self, name: &str) -> Host {
        let seed = self.scenario.seed ^ crate::trace::fnv_of(name.as_bytes());
        let disk = SimDisk::new(name, DiskConfig::default(), Rng::seeded(seed), self.trace.clone());
        let net = self.broker.net.for_host(name, None);
        Host::new(name, disk, net, Rng::seeded(seed ^ 1), self.trace.clone())
    }

    /// True when the audit ended without a broken promise.
    fn audit(&mut self, name: &'static str, reads: bool) -> bool {
        let host = self.new_host(name);
        let (shared, groups) = (self.shared.clone(), self.scenario.groups());
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        self.sim.client(name, async move {
            workload::audit(&host.boot(), &shared, &host.name, &groups, reads).await;
            told.store(true, Ordering::Relaxed);
            Ok(())
        });
        let by = self.now_ms + HORIZON_MS / 2;
        self.step_until(by, |_| done.load(Ordering::Relaxed)) && done.load(Ordering::Relaxed)
    }

    /// Steps until `by_ms` or until `enough`; false when a promise was broken.
    fn step_until(&mut self, by_ms: u64, enough: impl Fn(&Self) -> bool) -> bool {
        while self.now_ms < by_ms && !enough(self) {
            self.act();
            if !self.step() {
                return false;
            }
            self.look_after_the_broker();
            if !self.violations.is_empty() {
                return false;
            }
        }
        true
    }

    fn step(&mut self) -> bool {
        let elapsed = self.sim.elapsed();
        self.trace
            .time()
            .set_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        let stepped = catch_unwind(AssertUnwindSafe(|| self.sim.step()));
        self.now_ms = u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX);
        let why = match stepped {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => format!("a host ended with an error: {error}"),
            Err(_) => std::mem::take(&mut *PANICS.lock())
                .first()
                .cloned()
                .unwrap_or_default(),
        };
        self.violations.add(&self.trace, "panic", why);
        false
    }

    fn plan(&mut self, at_ms: u64, action: Action) {
        self.scheduled += 1;
        self.agenda.insert((at_ms, self.scheduled), action);
    }

    fn act(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            if entry.key().0 > self.now_ms {
                return;
            }
            let action = entry.remove();
            self.carry_out(action);
        }
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Fault(index) => {
                let fault = self.scenario.faults[index].fault.clone();
                self.trace.event("FAULT", format_args!("{index}: {fault:?}"));
                *self.faults.entry(fault.kind()).or_default() += 1;
                self.inflict(fault);
            }
            Action::Start => self.start_broker(),
            Action::PowerAgain { down_ms } => {
                if self.is_up() {
                    self.crash(true, down_ms);
                }
            }
            Action::MustHaveStopped { start } => {
                if self.starts == start && self.process.state() == State::Stopping {
                    let why = format!("the broker was told to stop {STOPS_WITHIN_MS} ms ago, and still runs");
                    self.violations.add(&self.trace, "does-not-stop", why);
                }
            }
            Action::NormalLatency(host) => self.normal_latency(&host),
            Action::Release(host) => self.sim.release(BROKER, host.as_str()),
            Action::Repair(host) => self.repair(&host),
            Action::StopFlapping(host) => self.sim.set_link_fail_rate(BROKER, host.as_str(), 0.0),
            Action::GoodConnections(host) => self.control(&host).set_faults(LinkFaults::default()),
            Action::NormalDisk => self.normal_disk(),
            Action::FreeDisk => self.broker.disk.free_room(),
            Action::GoodSyncs => {
                self.broker.disk.configure(|config| config.sync_fails_one_in = 0);
                if self.excuses() > self.excuses_at_start && self.is_up() {
                    self.trace.event(
                        "world",
                        format_args!("somebody restarts the broker whose syncs have failed"),
                    );
                    self.crash(false, 100);
                }
            }
        }
    }

    fn inflict(&mut self, fault: Fault) {
        let now = self.now_ms;
        match fault {
            Fault::Kill { down_ms } if self.is_up() => self.crash(false, down_ms),
            Fault::PowerCut { down_ms } if self.is_up() => self.crash(true, down_ms),
            Fault::DoublePowerCut {
                down_ms,
                again_after_ms,
            } if self.is_up() => {
                self.again_at_start = Some((again_after_ms, down_ms));
                self.crash(true, down_ms);
            }
            Fault::Restart { down_ms } if self.process.state() == State::Serving => {
                self.after_stop_ms = down_ms;
                self.process.terminate();
                self.plan(
                    now + STOPS_WITHIN_MS,
                    Action::MustHaveStopped { start: self.starts },
                );
            }
            Fault::DieIn {
                op,
                count,
                power,
                down_ms,
            } if self.is_up() => {
                self.dies_by_power = Some((power, down_ms));
                self.broker.disk.die_in(op, count);
            }
            Fault::BitRot { down_ms } if self.is_up() && self.rot.is_none() => {
                self.crash(false, down_ms);
                self.let_a_bit_rot();
            }
            Fault::Kill { .. }
            | Fault::BitRot { .. }
            | Fault::PowerCut { .. }
            | Fault::DoublePowerCut { .. }
            | Fault::Restart { .. }
            | Fault::DieIn { .. } => {}
            Fault::ClockJump { by_ms } => self.broker.clock.jump_wall_ms(by_ms),
            Fault::ClockDrift { ppm } => self.broker.clock.set_drift_ppm(ppm),
            Fault::SlowLink { host, max_ms, for_ms } => {
                self.sim
                    .set_link_max_message_latency(BROKER, host.as_str(), Duration::from_millis(max_ms));
                self.plan(now + for_ms, Action::NormalLatency(host));
            }
            Fault::HeldLink { host, for_ms } => {
                self.sim.hold(BROKER, host.as_str());
                self.plan(now + for_ms, Action::Release(host));
            }
            Fault::CutLink { host, for_ms } => {
                self.sim.partition(BROKER, host.as_str());
                self.broker.net.set_cut(&host, true);
                self.plan(now + for_ms, Action::Repair(host));
            }
            Fault::FlappingLink {
                host,
                per_mille,
                for_ms,
            } => {
                self.sim
                    .set_link_fail_rate(BROKER, host.as_str(), per_mille as f64 / 1_000.0);
                self.plan(now + for_ms, Action::StopFlapping(host));
            }
            Fault::BadConnections {
                host,
                reset_one_in,
                cut_one_in,
                chop_one_in,
                for_ms,
            } => {
                self.control(&host).set_faults(LinkFaults {
                    reset_one_in,
                    cut_one_in,
                    chop_one_in,
                });
                self.plan(now + for_ms, Action::GoodConnections(host));
            }
            Fault::DiskStall { for_ms } => {
                self.broker
                    .disk
                    .stall_until(self.broker.clock.now() + Duration::from_millis(for_ms));
            }
            Fault::SlowDisk { latency_ms, for_ms } => {
                self.broker.disk.configure(|config| {
                    config.latency = Duration::from_millis(latency_ms);
                    config.jitter = Duration::from_millis(latency_ms);
                });
                self.plan(now + for_ms, Action::NormalDisk);
            }
            Fault::DiskFull { room_bytes, for_ms } => {
                self.broker.disk.leave_room(room_bytes);
                self.plan(now + for_ms, Action::FreeDisk);
            }
            Fault::SyncFails { one_in, for_ms } => {
                self.broker
                    .disk
                    .configure(|config| config.sync_fails_one_in = one_in);
                self.plan(now + for_ms, Action::GoodSyncs);
            }
        }
    }

    fn control(&self, host: &str) -> &NetControl {
        self.clients
            .get(host)
            .map_or(&self.broker.net, |client| &client.net)
    }

    fn normal_latency(&mut self, host: &str) {
        let max = Duration::from_millis(self.scenario.latency_ms.1);
        self.sim.set_link_max_message_latency(BROKER, host, max);
    }

    fn normal_disk(&mut self) {
        let normal = DiskConfig::default();
        self.broker.disk.configure(|config| {
            config.latency = normal.latency;
            config.jitter = normal.jitter;
        });
    }

    fn repair(&mut self, host: &str) {
        self.sim.repair(BROKER, host);
        self.broker.net.set_cut(host, false);
    }

    fn is_up(&self) -> bool {
        matches!(
            self.process.state(),
            State::Starting | State::Serving | State::Stopping
        )
    }

    /// What the disk has done to the process: after that it may end.
    fn excuses(&self) -> u64 {
        self.broker.disk.sync_failures() + self.broker.disk.full_refusals()
    }

    fn look_after_the_broker(&mut self) {
        if self.broker.disk.has_died() {
            let (power, down_ms) = self.dies_by_power.take().unwrap_or((false, 100));
            self.crash(power, down_ms);
            return;
        }
        match self.process.state() {
            State::Exited(why) => {
                self.trace.event(BROKER, format_args!("ends by itself: {why}"));
                if self.excuses() == self.excuses_at_start {
                    let check = if why.starts_with("does not start") {
                        "node-does-not-start"
                    } else {
                        "node-stopped"
                    };
                    self.violations.add(&self.trace, check, why);
                }
                self.crash(false, SUPERVISOR_MS);
            }
            State::Stopped => {
                self.trace.event(BROKER, format_args!("has stopped"));
                self.take_down(false);
                self.broker.disk.kill();
                self.plan(self.now_ms + self.after_stop_ms, Action::Start);
            }
            State::Down | State::Starting | State::Serving | State::Stopping => {}
        }
    }

    /// Ends the process without asking it; it starts again after `down_ms`.
    fn crash(&mut self, power: bool, down_ms: u64) {
        self.broker.disk.detach();
        self.take_down(power);
        if power {
            let report = self.broker.disk.cut_power();
            self.trace
                .event(BROKER, format_args!("the power goes: {report:?}"));
        } else {
            self.broker.disk.kill();
            self.trace.event(BROKER, format_args!("is killed"));
        }
        self.process.cut_metadata();
        if power || self.broker.disk.sync_failures() > 0 {
            self.shared.note(Note::UnsyncedMayBeLost);
        }
        self.plan(self.now_ms + down_ms, Action::Start);
    }

    fn take_down(&mut self, power: bool) {
        if power {
            // Without power nobody says goodbye: peers see silence, not a closed connection.
            for name in self.clients.keys() {
                self.sim.partition(BROKER, *name);
            }
        }
        self.broker.net.set_down(true);
        self.process.set_state(State::Down);
        let sim = &mut self.sim;
        if catch_unwind(AssertUnwindSafe(|| sim.crash(BROKER))).is_err() {
            let why = std::mem::take(&mut *PANICS.lock())
                .first()
                .cloned()
                .unwrap_or_default();
            self.violations.add(&self.trace, "panic", why);
        }
        self.oracle.forget_connections();
    }

    fn start_broker(&mut self) {
        if self.process.state() != State::Down {
            return;
        }
        for name in self.clients.keys().copied().collect::<Vec<_>>() {
            self.repair(name);
        }
        self.starts += 1;
        self.excuses_at_start = self.excuses();
        self.trace.event(BROKER, format_args!("starts"));
        self.broker.net.set_down(false);
        self.process.set_state(State::Starting);
        self.sim.bounce(BROKER);
        if let Some((after_ms, down_ms)) = self.again_at_start.take() {
            self.plan(self.now_ms + after_ms, Action::PowerAgain { down_ms });
        }
    }

    fn heal(&mut self) {
        self.trace.event("world", format_args!("everything is healed"));
        self.agenda
            .retain(|_, action| matches!(action, Action::Start | Action::MustHaveStopped { .. }));
        self.again_at_start = None;
        for (name, host) in &self.clients {
            host.net.set_faults(LinkFaults::default());
            self.sim.set_link_fail_rate(BROKER, *name, 0.0);
            self.sim.release(BROKER, *name);
        }
        for name in self.clients.keys().copied().collect::<Vec<_>>() {
            self.repair(name);
            self.normal_latency(name);
        }
        self.broker.net.set_faults(LinkFaults::default());
        self.broker.clock.heal();
        self.normal_disk();
        self.broker.disk.free_room();
        self.broker.disk.stall_until(skerry_types::Instant::ZERO);
        self.broker.disk.configure(|config| config.sync_fails_one_in = 0);
        self.broker.disk.die_in_nothing();
        if self.excuses() > self.excuses_at_start && self.is_up() {
            self.trace.event(
                "world",
                format_args!("somebody restarts the broker whose disk has failed"),
            );
            self.crash(false, 100);
        }
        if let Some(rot) = self.rot.take() {
            if self.is_up() {
                self.crash(false, 100);
            }
            let there = self.broker.disk.flip_bit(&rot.path, rot.position, rot.bit);
            self.trace
                .event("world", format_args!("the rotten bit is put right: {there}"));
            self.shared.rotten.set(None);
        }
    }

    /// Turns a bit over in the last batch that the recovery point of some partition covers.
    fn let_a_bit_rot(&mut self) {
        let rng = Rng::seeded(self.scenario.seed ^ 0xb17);
        let Some(rot) = rot::choose(&self.broker.disk, &rng) else {
            return;
        };
        if self.broker.disk.flip_bit(&rot.path, rot.position, rot.bit) {
            self.trace.event(
                "world",
                format_args!(
                    "bit {} of byte {} of {} has rotted",
                    rot.bit,
                    rot.position,
                    rot.path.display()
                ),
            );
            self.shared.rotten.set(Some(rot.partition.clone()));
            self.rot = Some(rot);
        }
    }

    fn finish(self) -> Report {
        let history = std::mem::take(&mut *self.shared.history.lock());
        let mut violations = self.violations.all();
        for violation in checker::check(&history) {
            self.trace.event("VIOLATION", format_args!("{violation}"));
            violations.push((0, violation));
        }
        self.trace.flush();
        Report {
            violations,
            hash: self.trace.hash(),
            sim_ms: self.now_ms,
            starts: self.starts,
            answers_checked: self.oracle.answers_checked(),
            faults: self.faults,
            history,
        }
    }
}
