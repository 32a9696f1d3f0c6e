//! One simulation: hosts, faults, phases, verdict.
//!
//! The order of a run: faults and load; everything is healed and the load goes on; the load ends; every partition
//! takes a record; one last crash; every partition takes a record again, and one client reads everything. Then the
//! history is judged.

mod alone;
mod beyond;
mod budget;
mod checks;
mod clocks;
mod disks;
mod faults;
mod leaves;
mod lost;
mod network;
mod nodes;
mod processes;
mod recover;
mod spoilt;
mod survivors;
mod telling;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use skerry_env::Rng;
use skerry_env::clock::ClockBackend as _;
use turmoil::{Builder, Sim};

use self::beyond::Beyond;
use self::checks::Checks;
use self::faults::Action;
use self::nodes::Node;
use crate::disk::{DiskConfig, SimDisk};
use crate::env::{Host, NetControl};
use crate::invariants::{Missing, Watcher};
use crate::links::Links;
use crate::oracle::{Disks, Rotten, Violations, WireOracle};
use crate::process::{ALONE, Process, State, node_name};
use crate::rot::Rot;
use crate::scenario::{CLIENT_HOSTS, Fault, Regime, Scenario, Timed};
use crate::story::{Story, Teller};
use crate::trace::Trace;
use crate::workload::{self, Cluster, Phase, Shared};
use skerry_checker::Violation;
use skerry_checker::history::{History, Note};

/// Where nodes listen for clients.
pub(crate) const KAFKA_PORT: u16 = 9092;
/// How long load goes on after everything has healed.
const HEALED_MS: u64 = 1_500;
/// No client needs longer to end the operation in hand.
const IDLE_WITHIN_MS: u64 = 30_000;
/// Once everything is healed, every replica is in sync again within this time.
const WHOLE_WITHIN_MS: u64 = 20_000;
/// No simulation lasts longer.
const HORIZON_MS: u64 = 180_000;
const DAY_MS: i64 = 86_400_000;

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
    /// How often a broker was started.
    pub starts: u64,
    /// How many answers were compared with the disk.
    pub answers_checked: u64,
    /// Faults that happened, by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// How often a fault of each kind met an operation of each kind that was under way.
    pub met: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// What was seen to happen in the cluster, by kind.
    pub seen: BTreeMap<&'static str, u64>,
    /// What happened, where it was asked for.
    pub story: Option<Story>,
}

struct World<'a> {
    scenario: &'a Scenario,
    sim: Sim<'static>,
    trace: Trace,
    shared: Arc<Shared>,
    violations: Violations,
    nodes: Vec<Node>,
    clients: BTreeMap<&'static str, Host>,
    links: Links,
    /// Looks into the nodes.
    watcher: Option<Watcher>,
    agenda: BTreeMap<(u64, u64), Action>,
    scheduled: u64,
    now_ms: u64,
    /// Places of disks that have gone bad, and were not seen to be good again.
    rotten: Vec<Rot>,
    is_healed: bool,
    /// A disk that was lost, the last one.
    lost: Option<lost::Lost>,
    /// A node whose power went, where what is acknowledged need not be on disks, and what it had not flushed may be missing.
    unflushed: Option<usize>,
    /// A broker that leaves for good.
    leaves: Option<leaves::Leaves>,
    /// A bit of the quorum's own files that has rotted, the last one.
    spoilt: Option<spoilt::Spoilt>,
    /// In the end a bit of the only node's metadata rots.
    rots_alone: bool,
    operators: u64,
    /// The faults that hit somebody, and when, in microseconds.
    happened: Vec<(u64, &'static str)>,
    /// What faults did, where the world can tell.
    felt: BTreeMap<&'static str, u64>,
    /// Where somebody will look.
    story: Option<Teller>,
    checks: Checks,
    beyond: Beyond,
    /// Checks that end the run; any where none is named.
    until: Vec<String>,
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

fn first_panic() -> String {
    let panics = std::mem::take(&mut *PANICS.lock());
    panics.into_iter().next().unwrap_or_default()
}

/// Runs a scenario to its end, or to its first broken promise; with `tells`, its story is told.
///
/// With checks in `until` only what one of these sees ends it, and a panic: what a planted bug breaks first may not be what
/// somebody wants to see of it.
#[must_use]
pub fn run(scenario: &Scenario, trace: Trace, tells: bool, until: &[String]) -> Report {
    catch_panics(trace.clone());
    crate::complaints::listen();
    skerry_stdclock::set(Duration::ZERO);
    match scenario.buggify {
        true => skerry_types::start_buggify(scenario.seed),
        false => skerry_types::stop_buggify(),
    }
    let mut world = World::new(scenario, trace);
    until.clone_into(&mut world.until);
    if tells {
        world.begin_story();
    }
    world.play();
    let report = world.finish();
    skerry_stdclock::unset();
    report
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, trace: Trace) -> Self {
        let seed = scenario.seed;
        let (min, max) = scenario.latency_ms;
        let sim = Builder::new()
            .rng_seed(seed)
            .enable_random_order()
            .tick_duration(Duration::from_millis(scenario.tick_ms))
            .simulation_duration(Duration::from_millis(HORIZON_MS * 2 + scenario.faults_ms))
            .epoch(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600))
            .min_message_latency(Duration::from_millis(min))
            .max_message_latency(Duration::from_millis(max))
            .tcp_capacity(65_536)
            .build();
        let violations = Violations::default();
        let names: Vec<String> = match scenario.nodes {
            1 => vec![ALONE.to_owned()],
            several => (1..=several).map(node_name).collect(),
        };
        let cluster = Cluster {
            addrs: names.iter().map(|name| format!("{name}:{KAFKA_PORT}")).collect(),
            replication: scenario.replication,
            min_in_sync: scenario.min_in_sync,
            flush_messages: scenario.flush_messages,
            write_to: scenario.write_to.clone(),
            packed: scenario.packed,
            lulls: scenario.lulls,
            voters: match scenario.voters {
                0 => scenario.nodes,
                voters => voters,
            },
            steady_disks: !scenario.faults.iter().any(Timed::slows_a_disk),
            loses_disks: scenario
                .faults
                .iter()
                .any(|timed| ["wiped-disk", "metadata-rot"].contains(&timed.kind())),
        };
        let net = NetControl::new("world", None, trace.clone());
        let shared = Shared::new(
            cluster,
            violations.clone(),
            Rotten::default(),
            net.corrupted(),
            trace.clone(),
        );
        if scenario.nodes > 1 {
            shared.note(Note::SeveralNodes);
        }
        let nodes = new_nodes(scenario, &names, &net, &shared);
        let disks = nodes.iter().map(|node| node.host.disk.clone()).collect();
        let marks = nodes.iter().map(|node| node.process.wal_mark()).collect();
        let mut agenda = BTreeMap::new();
        for (index, timed) in scenario.faults.iter().enumerate() {
            agenda.insert((timed.at_ms, index as u64), Action::Fault(index));
        }
        let mut watcher = Watcher::new(names, disks, marks, trace.clone(), violations.clone());
        if scenario.regime == Regime::Beyond {
            watcher.goes_beyond();
        }
        Self {
            scenario,
            sim,
            watcher: Some(watcher),
            shared,
            violations,
            nodes,
            links: Links::new(net),
            trace,
            clients: BTreeMap::new(),
            scheduled: scenario.faults.len() as u64,
            agenda,
            now_ms: 0,
            rotten: Vec::new(),
            is_healed: false,
            lost: None,
            unflushed: None,
            leaves: None,
            spoilt: None,
            rots_alone: false,
            operators: 0,
            happened: Vec::new(),
            felt: BTreeMap::new(),
            story: None,
            checks: Checks::new(scenario),
            beyond: Beyond::default(),
            until: Vec::new(),
        }
    }

    fn play(&mut self) {
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            let (process, gate) = (node.process.clone(), node.host.gate.clone());
            self.trace.event(&node.name, format_args!("starts"));
            self.sim.host(node.name.as_str(), move || {
                let running = gate.hold(process.clone().run());
                async move {
                    running.await;
                    Ok(())
                }
            });
            self.links.add(&node.name, &mut self.sim);
        }
        for (number, at_ms) in self.scenario.joins_at_ms.clone() {
            self.comes_later(usize::try_from(number).map_or(0, |number| number - 1), at_ms);
        }
        for name in CLIENT_HOSTS {
            self.add_client(name);
        }
        if !self.step_until(self.scenario.faults_ms, |_| false) {
            return;
        }
        skerry_types::stop_buggify();
        self.nobody_leaves();
        if self.scenario.core_first && !self.live_on_a_core() {
            return;
        }
        self.heal();
        self.tell_phase("healed");
        self.shared.set_phase(Phase::Healed);
        if !self.step_until(self.now_ms + HEALED_MS, |_| false) {
            return;
        }
        self.shared.set_phase(Phase::Stopping);
        self.tell_phase("the load ends");
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
        self.tell_phase("audit");
        if !self.recover_what_is_lost() || !self.becomes_whole() {
            return;
        }
        self.tell_losses();
        if !self.audit("probe", false) || !self.becomes_whole() {
            return;
        }
        let power = self.scenario.ends_with_power_cut;
        self.trace.event(
            "world",
            format_args!("the last crash ({})", if power { "power cut" } else { "kill" }),
        );
        self.tell_phase("the last crash, and audit");
        for node in 0..self.nodes.len() {
            self.crash(node, power, 50);
        }
        self.checks.is_anew();
        if self.audit("auditor", true) && self.becomes_whole() {
            self.compare_copies();
            self.check_offsets();
            self.compare_raft_logs();
            self.check_leaks();
            self.let_the_only_metadata_rot();
        }
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
        self.links.add(name, &mut self.sim);
    }

    fn new_host(&self, name: &str) -> Host {
        let seed = self.scenario.seed ^ crate::trace::fnv_of(name.as_bytes());
        let disk = SimDisk::new(name, DiskConfig::default(), Rng::seeded(seed), self.trace.clone());
        let net = self.nodes[0].host.net.for_host(name, None);
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
        self.links.add(name, &mut self.sim);
        let by = self.now_ms + HORIZON_MS / 2;
        if !self.step_until(by, |_| done.load(Ordering::Relaxed)) {
            return false;
        }
        let ends = done.load(Ordering::Relaxed);
        if !ends {
            let message = format!(
                "{name} has not read everything after {} ms of health",
                HORIZON_MS / 2
            );
            self.violations.add(&self.trace, "stuck", message);
        }
        ends
    }

    /// Waits until every partition has a leader and all its replicas in sync; false when a promise was broken.
    fn becomes_whole(&mut self) -> bool {
        if self.watcher.is_none() {
            return true;
        }
        let by = self.now_ms + WHOLE_WITHIN_MS;
        if !self.step_until(by, |world| world.what_is_missing().is_none()) {
            return false;
        }
        match self.what_is_missing() {
            None => {
                self.shared.rotten.keep(|_| false);
                self.shared.rotten.set_misreads(false);
                true
            }
            Some((check, missing)) => {
                let message = format!("{WHOLE_WITHIN_MS} ms after everything healed: {missing}");
                self.violations.add(&self.trace, check, message);
                false
            }
        }
    }

    /// What is not as it must be in the end, and the check that says so.
    fn what_is_missing(&self) -> Option<Missing> {
        let missing = self.watcher.as_ref()?.what_is_missing(&self.brokers());
        missing
            .or_else(|| Some(("not-whole", self.disk_is_missed()?)))
            .or_else(|| self.quiet_rot())
    }

    /// Every copy of a partition is the same now.
    fn compare_copies(&mut self) {
        let brokers = self.brokers();
        if let Some(watcher) = &mut self.watcher {
            watcher.compare_copies(&brokers);
        }
    }

    /// Steps until `by_ms` or until `enough`; false when a promise was broken.
    fn step_until(&mut self, by_ms: u64, enough: impl Fn(&Self) -> bool) -> bool {
        while self.now_ms < by_ms && !enough(self) {
            self.act();
            self.links.pass_what_is_not_late(&self.sim);
            self.note_who_is_still();
            if !self.step() {
                return false;
            }
            for node in 0..self.nodes.len() {
                self.look_after(node);
            }
            self.tell_nodes();
            self.watch();
            self.check_now_and_then();
            self.mend_last_copies();
            self.forget_lost_disk();
            self.look_after_who_leaves();
            if self.violations.end(&self.until) {
                return false;
            }
        }
        true
    }

    fn watch(&mut self) {
        if self.watcher.is_none() {
            return;
        }
        let brokers = self.brokers();
        let deaf: Vec<bool> = (0..self.nodes.len()).map(|node| self.is_deaf(node)).collect();
        let starts = |node: &usize| self.nodes[*node].process.state() == State::Starting;
        let starting: Vec<usize> = (0..self.nodes.len()).filter(starts).collect();
        let is_there = |rot: &&Rot| rot.is_quiet && rot.is_there(&self.nodes[rot.node].host.disk);
        let rotten = self.rotten.iter().filter(is_there);
        let rotten: Vec<_> = rotten.map(|rot| (rot.node, &*rot.partition)).collect();
        if let Some(watcher) = &mut self.watcher {
            watcher.look(&brokers, &deaf, &starting, &rotten, self.now_ms);
            for (node, other) in self.nodes.iter().enumerate() {
                let acknowledged = other.oracle.take_acknowledged();
                watcher.on_acknowledged(node, &acknowledged);
                watcher.on_served(node, &other.oracle.take_served());
            }
        }
    }

    /// No other node is heard by this one: those that do not vote know of terms too, and tell (seed 138 of five nodes).
    /// What it begins as long as its process or its disk stands still, it was told before (2470 of any size, 60 s: a vote that
    /// waited for the disk for nine seconds; 5338, for a disk with too little bandwidth).
    fn is_deaf(&self, node: usize) -> bool {
        let host = &self.nodes[node].host;
        let now = host.clock.now();
        let waits = host.disk.stalled_for(now).max(host.disk.catches_up_for(now));
        if host.gate.is_closed() || !waits.is_zero() {
            return false;
        }
        let me = &self.nodes[node].name;
        let mut others = self.nodes.iter().filter(|other| other.name != *me);
        others.all(|other| !other.is_up() || !self.links.carries(&other.name, me))
    }

    fn step(&mut self) -> bool {
        let elapsed = self.sim.elapsed();
        self.trace
            .time()
            .set_micros(u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX));
        skerry_stdclock::set(elapsed);
        let stepped = catch_unwind(AssertUnwindSafe(|| self.sim.step()));
        self.now_ms = u64::try_from(self.sim.elapsed().as_millis()).unwrap_or(u64::MAX);
        let why = match stepped {
            Ok(Ok(_)) => return true,
            Ok(Err(error)) => format!("a host ended with an error: {error}"),
            Err(_) => first_panic(),
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

    fn finish(self) -> Report {
        let history = std::mem::take(&mut *self.shared.history.lock());
        let mut violations = self.violations.all();
        for violation in skerry_checker::check(&history) {
            self.trace.event("VIOLATION", format_args!("{violation}"));
            violations.push((0, violation));
        }
        let found = self.watcher.as_ref().map(|watcher| watcher.judge(&history));
        for (check, message) in found.into_iter().flatten() {
            let violation = skerry_checker::Violation { check, message };
            self.trace.event("VIOLATION", format_args!("{violation}"));
            violations.push((0, violation));
        }
        self.trace.flush();
        let report = Report {
            violations,
            hash: self.trace.hash(),
            sim_ms: self.now_ms,
            starts: self.nodes.iter().map(|node| node.starts).sum(),
            answers_checked: self.nodes.iter().map(|node| node.oracle.answers_checked()).sum(),
            faults: count(&self.happened),
            met: met(&self.happened, &history),
            seen: {
                let mut seen = self.watcher.map(|watcher| watcher.seen).unwrap_or_default();
                seen.extend(self.felt);
                seen.extend(self.shared.corrupted.counts());
                let moved = self.shared.votes_moved();
                if moved > 0 {
                    seen.insert("votes taken and given back", moved);
                }
                seen
            },
            story: self.story.map(|story| story.end(self.now_ms * 1_000, &history)),
            history,
        };
        drop(self.sim);
        for node in &self.nodes {
            node.host.disk.remove_external();
        }
        report
    }
}

fn new_nodes(scenario: &Scenario, names: &[String], net: &NetControl, shared: &Arc<Shared>) -> Vec<Node> {
    let seed = scenario.seed;
    let trace = &shared.trace;
    let config = DiskConfig {
        cold_read_one_in: scenario.cold_read_one_in,
        ..DiskConfig::default()
    };
    let mut disks = Vec::new();
    for (number, name) in (0_u64..).zip(names) {
        let draws = Rng::seeded(seed ^ 0xd15c ^ (number << 20));
        let disk = SimDisk::new(name, config, draws, trace.clone());
        disk.draw_troubles_from(Rng::seeded(seed ^ 0x720b ^ (number << 20)));
        disks.push(disk);
    }
    let voters = match (scenario.nodes, scenario.voters) {
        (1, _) => 0,
        (all, 0) => all,
        (_, some) => some,
    };
    let mut nodes = Vec::new();
    for (number, name) in (0_u64..).zip(names) {
        let index = nodes.len();
        let mut others = disks.clone();
        let own = others.remove(index);
        let disks = Disks {
            own: own.clone(),
            others,
            copies: usize::try_from(scenario.min_in_sync).unwrap_or(1),
            written_counts: scenario.flush_messages > 0,
        };
        let oracle = Arc::new(WireOracle::new(
            name,
            KAFKA_PORT,
            disks,
            shared.violations.clone(),
            shared.rotten.clone(),
            trace.clone(),
        ));
        let net = net.for_host(name, Some(oracle.clone()));
        let draws = Rng::seeded(seed ^ 0xb0c4 ^ (number << 20));
        let host = Host::new(name, own, net, draws, trace.clone());
        let number = u32::try_from(number + 1).unwrap_or(1);
        nodes.push(Node {
            name: name.clone(),
            process: Process::new(
                host.clone(),
                number,
                voters,
                scenario,
                Rng::seeded(seed ^ 0x7ea2 ^ (u64::from(number) << 20)),
            ),
            host,
            oracle,
            starts: 1,
            excuses_at_start: 0,
            reads_failed_at_start: 0,
            dies_by_power: None,
            again_at_start: None,
            after_stop_ms: 0,
            is_swapped: false,
            rotten_indexes: BTreeSet::new(),
        });
    }
    nodes
}

/// A node whose clock is far ahead deletes what is older than `retention.ms`, a week.
pub(in crate::world) fn lets_records_expire(timed: &Timed) -> bool {
    match timed.fault {
        Fault::ClockJump { by_ms }
        | Fault::ClockStrobe { by_ms, .. }
        | Fault::ClockNoise { by_ms, .. }
        | Fault::ClockSwing { by_ms, .. } => by_ms.abs() > DAY_MS,
        _ => false,
    }
}

/// How many faults of each kind happened.
fn count(happened: &[(u64, &'static str)]) -> BTreeMap<&'static str, u64> {
    let mut faults = BTreeMap::new();
    for (_, kind) in happened {
        *faults.entry(*kind).or_default() += 1;
    }
    faults
}

/// How often faults, by when they happened, met operations.
fn met(
    happened: &[(u64, &'static str)],
    history: &History,
) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
    let moments: Vec<u64> = happened.iter().map(|(at, _)| *at).collect();
    let mut met: BTreeMap<_, BTreeMap<_, u64>> = BTreeMap::new();
    for ((_, fault), operations) in happened.iter().zip(history.under_way(&moments)) {
        for operation in operations {
            *met.entry(*fault).or_default().entry(operation).or_default() += 1;
        }
    }
    met
}
