//! What goes wrong, and how it ends.

use std::time::Duration;

use skerry_env::Rng;
use skerry_env::clock::ClockBackend as _;

use super::World;
use crate::disk::DiskConfig;
use crate::env::{LinkFaults, NetControl};
use crate::oracle::RottenPlace;
use crate::process::State;
use crate::rot;
use crate::scenario::{Fault, Target, Way};

/// A SIGTERM is obeyed within this time.
const STOPS_WITHIN_MS: u64 = 20_000;

/// What the world does at a moment.
pub(super) enum Action {
    Fault(usize),
    Start(usize),
    PowerAgain(usize, u64),
    MustHaveStopped {
        node: usize,
        start: u64,
    },
    NormalLatency(String, String),
    Release(String, String),
    /// Ways that are no longer cut.
    Mend(Vec<(String, String)>),
    StopFlapping(String, String),
    GoodConnections(String),
    NormalDisk(usize),
    FreeDisk(usize),
    GoodSyncs(usize),
    Resume {
        node: usize,
        start: u64,
    },
}

impl World<'_> {
    pub(super) fn carry_out(&mut self, action: Action) {
        match action {
            Action::Fault(index) => {
                let timed = self.scenario.faults[index].clone();
                let hit = self.targets(&timed.on);
                if self.nodes.len() == 1 {
                    self.trace
                        .event("FAULT", format_args!("{index}: {:?}", timed.fault));
                } else {
                    let names: Vec<_> = hit.iter().map(|node| self.nodes[*node].name.as_str()).collect();
                    self.trace.event(
                        "FAULT",
                        format_args!("{index}: {} ({}): {:?}", timed.on, names.join(","), timed.fault),
                    );
                }
                *self.faults.entry(timed.kind()).or_default() += 1;
                if let Fault::Isolate { way, clients, for_ms } = timed.fault {
                    self.isolate(&hit, way, clients, for_ms);
                } else {
                    for node in hit {
                        self.inflict(node, timed.fault.clone());
                    }
                }
            }
            Action::Start(node) => self.start(node),
            Action::PowerAgain(node, down_ms) => {
                if self.nodes[node].is_up() {
                    self.crash(node, true, down_ms);
                }
            }
            Action::MustHaveStopped { node, start } => {
                let node = &self.nodes[node];
                if node.starts == start && node.process.state() == State::Stopping {
                    let why = format!(
                        "{} was told to stop {STOPS_WITHIN_MS} ms ago, and still runs",
                        node.name
                    );
                    self.violations.add(&self.trace, "does-not-stop", why);
                }
            }
            Action::NormalLatency(a, b) => self.normal_latency(&a, &b),
            Action::Release(a, b) => {
                self.links.release(&a, &b);
                self.links.apply(&mut self.sim);
            }
            Action::Mend(ways) => {
                for (from, to) in ways {
                    self.links.mend(&from, &to);
                }
                self.links.apply(&mut self.sim);
            }
            Action::StopFlapping(a, b) => self.sim.set_link_fail_rate(a, b, 0.0),
            Action::GoodConnections(host) => self.control(&host).set_faults(LinkFaults::default()),
            Action::NormalDisk(node) => self.normal_disk(node),
            Action::FreeDisk(node) => self.nodes[node].host.disk.free_room(),
            Action::GoodSyncs(node) => {
                self.nodes[node]
                    .host
                    .disk
                    .configure(|config| config.sync_fails_one_in = 0);
                self.restart_what_has_failed(node, "syncs have failed");
            }
            Action::Resume { node, start } => {
                if self.nodes[node].starts == start {
                    self.resume(node);
                }
            }
        }
    }

    fn restart_what_has_failed(&mut self, node: usize, what: &str) {
        if self.nodes[node].has_excuse() && self.nodes[node].is_up() {
            self.trace.event(
                "world",
                format_args!("somebody restarts the {}, whose {what}", self.nodes[node].name),
            );
            self.crash(node, false, 100);
        }
    }

    /// The nodes that a fault hits, by their places.
    fn targets(&self, on: &Target) -> Vec<usize> {
        if self.nodes.len() == 1 {
            return vec![0];
        }
        let number = |id: i32| usize::try_from(id - 1).ok();
        let known = self.watcher.as_ref();
        let place = |partition: &str| known.and_then(|watcher| watcher.place(&self.brokers(), partition));
        let found = match on {
            Target::First => vec![0],
            Target::All => (0..self.nodes.len()).collect(),
            Target::Nodes(numbers) => numbers
                .iter()
                .filter_map(|n| number(i32::try_from(*n).ok()?))
                .collect(),
            Target::Controller => known
                .and_then(|watcher| watcher.controller(&self.brokers()))
                .and_then(number)
                .into_iter()
                .collect(),
            Target::LeaderOf(partition) => place(partition)
                .and_then(|place| number(place.leader?))
                .into_iter()
                .collect(),
            Target::FollowerOf(partition) => place(partition)
                .and_then(|place| number(*place.followers.first()?))
                .into_iter()
                .collect(),
            Target::LastFollowerOf(partition) => place(partition)
                .and_then(|place| number(*place.followers.last()?))
                .into_iter()
                .collect(),
            Target::FollowersOf(partition) => place(partition)
                .map(|place| place.followers.into_iter().filter_map(number).collect())
                .unwrap_or_default(),
        };
        let mut found: Vec<usize> = found
            .into_iter()
            .filter(|node| *node < self.nodes.len())
            .collect();
        found.dedup();
        found
    }

    fn inflict(&mut self, index: usize, fault: Fault) {
        let now = self.now_ms;
        let up = self.nodes[index].is_up();
        let name = self.nodes[index].name.clone();
        match fault {
            Fault::Kill { down_ms } if up => self.crash(index, false, down_ms),
            Fault::PowerCut { down_ms } if up => self.crash(index, true, down_ms),
            Fault::DoublePowerCut {
                down_ms,
                again_after_ms,
            } if up => {
                self.nodes[index].again_at_start = Some((again_after_ms, down_ms));
                self.crash(index, true, down_ms);
            }
            Fault::Restart { down_ms } if self.nodes[index].process.state() == State::Serving => {
                let node = &mut self.nodes[index];
                self.trace.event(&node.name, format_args!("is told to stop"));
                node.after_stop_ms = down_ms;
                node.process.terminate();
                let start = node.starts;
                self.plan(
                    now + STOPS_WITHIN_MS,
                    Action::MustHaveStopped { node: index, start },
                );
            }
            Fault::DieIn {
                op,
                count,
                power,
                down_ms,
            } if up => {
                self.nodes[index].dies_by_power = Some((power, down_ms));
                self.nodes[index].host.disk.die_in(op, count);
            }
            Fault::BitRot { down_ms } if up && self.rot.is_none() => {
                self.let_a_bit_rot(index, Some(down_ms));
            }
            Fault::QuietRot if up && self.rot.is_none() => self.let_a_bit_rot(index, None),
            Fault::Pause { for_ms } if up && !self.nodes[index].host.gate.is_closed() => {
                let node = &self.nodes[index];
                self.trace.event(&node.name, format_args!("stands still"));
                node.host.gate.close();
                self.links.set_still(&name, true);
                self.links.apply(&mut self.sim);
                let start = node.starts;
                self.plan(now + for_ms, Action::Resume { node: index, start });
            }
            Fault::Kill { .. }
            | Fault::BitRot { .. }
            | Fault::QuietRot
            | Fault::PowerCut { .. }
            | Fault::DoublePowerCut { .. }
            | Fault::Restart { .. }
            | Fault::DieIn { .. }
            | Fault::Pause { .. } => {}
            Fault::ClockJump { by_ms } => self.nodes[index].host.clock.jump_wall_ms(by_ms),
            Fault::ClockDrift { ppm } => self.nodes[index].host.clock.set_drift_ppm(ppm),
            Fault::Bridge { for_ms } => self.bridge(index, for_ms),
            // It hits all at once: see `carry_out`.
            Fault::Isolate { .. } => {}
            Fault::DiskStall { .. }
            | Fault::SlowDisk { .. }
            | Fault::DiskFull { .. }
            | Fault::SyncFails { .. } => {
                self.trouble_the_disk(index, &fault);
            }
            Fault::SlowLink { .. }
            | Fault::HeldLink { .. }
            | Fault::CutLink { .. }
            | Fault::FlappingLink { .. }
            | Fault::BadConnections { .. } => self.trouble_a_link(&name, fault),
        }
    }

    fn trouble_a_link(&mut self, name: &str, fault: Fault) {
        let now = self.now_ms;
        let (Fault::SlowLink { host, .. }
        | Fault::HeldLink { host, .. }
        | Fault::CutLink { host, .. }
        | Fault::FlappingLink { host, .. }
        | Fault::BadConnections { host, .. }) = &fault
        else {
            return;
        };
        // Nobody is linked to itself.
        let (name, host) = (name.to_owned(), self.host_named(host));
        if name == host && !matches!(fault, Fault::BadConnections { .. }) {
            return;
        }
        match fault {
            Fault::SlowLink { max_ms, for_ms, .. } => {
                let max = Duration::from_millis(max_ms);
                self.sim
                    .set_link_max_message_latency(name.as_str(), host.as_str(), max);
                self.plan(now + for_ms, Action::NormalLatency(name, host));
            }
            Fault::HeldLink { for_ms, .. } => {
                self.links.hold(&name, &host);
                self.links.apply(&mut self.sim);
                self.plan(now + for_ms, Action::Release(name, host));
            }
            Fault::CutLink { for_ms, .. } => {
                let ways = vec![(name.clone(), host.clone()), (host, name)];
                self.cut(ways, for_ms);
            }
            Fault::FlappingLink {
                per_mille, for_ms, ..
            } => {
                let rate = per_mille as f64 / 1_000.0;
                self.sim.set_link_fail_rate(name.as_str(), host.as_str(), rate);
                self.plan(now + for_ms, Action::StopFlapping(name, host));
            }
            Fault::BadConnections {
                reset_one_in,
                cut_one_in,
                chop_one_in,
                for_ms,
                ..
            } => {
                self.control(&host).set_faults(LinkFaults {
                    reset_one_in,
                    cut_one_in,
                    chop_one_in,
                });
                self.plan(now + for_ms, Action::GoodConnections(host));
            }
            _ => {}
        }
    }

    fn trouble_the_disk(&mut self, index: usize, fault: &Fault) {
        let now = self.now_ms;
        let host = &self.nodes[index].host;
        match *fault {
            Fault::DiskStall { for_ms } => {
                host.disk
                    .stall_until(host.clock.now() + Duration::from_millis(for_ms));
            }
            Fault::SlowDisk { latency_ms, for_ms } => {
                host.disk.configure(|config| {
                    config.latency = Duration::from_millis(latency_ms);
                    config.jitter = Duration::from_millis(latency_ms);
                });
                self.plan(now + for_ms, Action::NormalDisk(index));
            }
            Fault::DiskFull { room_bytes, for_ms } => {
                host.disk.leave_room(room_bytes);
                self.plan(now + for_ms, Action::FreeDisk(index));
            }
            Fault::SyncFails { one_in, for_ms } => {
                host.disk.configure(|config| config.sync_fails_one_in = one_in);
                self.plan(now + for_ms, Action::GoodSyncs(index));
            }
            _ => {}
        }
    }

    /// A host by its own name, or by what its node is now.
    fn host_named(&self, host: &str) -> String {
        let known = || host.parse().ok().map(|target: Target| self.targets(&target));
        match known().as_deref() {
            Some([node, ..]) => self.nodes[*node].name.clone(),
            _ => host.to_owned(),
        }
    }

    fn cut(&mut self, ways: Vec<(String, String)>, for_ms: u64) {
        for (from, to) in &ways {
            self.links.cut(from, to);
        }
        self.links.apply(&mut self.sim);
        self.plan(self.now_ms + for_ms, Action::Mend(ways));
    }

    /// Cuts some nodes off from the rest.
    fn isolate(&mut self, hit: &[usize], way: Way, clients: bool, for_ms: u64) {
        let hit: Vec<String> = hit.iter().map(|node| self.nodes[*node].name.clone()).collect();
        let mut ways = Vec::new();
        for name in &hit {
            for other in self.links.others(name) {
                let is_client = !self.nodes.iter().any(|node| node.name == other);
                if hit.contains(&other) || (is_client && !clients) {
                    continue;
                }
                if way != Way::Out {
                    ways.push((other.clone(), name.clone()));
                }
                if way != Way::In {
                    ways.push((name.clone(), other));
                }
            }
        }
        self.cut(ways, for_ms);
    }

    /// Cuts the nodes on the one side of a node from those on its other side.
    fn bridge(&mut self, index: usize, for_ms: u64) {
        let count = self.nodes.len();
        let at = |step: usize| self.nodes[(index + step) % count].name.clone();
        let half = count / 2;
        let mut ways = Vec::new();
        for left in 1..=half {
            for right in half + 1..count {
                ways.push((at(left), at(right)));
                ways.push((at(right), at(left)));
            }
        }
        self.cut(ways, for_ms);
    }

    fn resume(&mut self, index: usize) {
        let node = &self.nodes[index];
        if node.host.gate.is_closed() {
            self.trace.event(&node.name, format_args!("goes on"));
            self.links.set_still(&node.name, false);
            self.links.apply(&mut self.sim);
            node.host.gate.open();
        }
    }

    fn control(&self, host: &str) -> &NetControl {
        let node = self.nodes.iter().find(|node| node.name == host);
        match (self.clients.get(host), node) {
            (Some(client), _) => &client.net,
            (None, Some(node)) => &node.host.net,
            (None, None) => &self.nodes[0].host.net,
        }
    }

    fn normal_latency(&mut self, a: &str, b: &str) {
        let max = Duration::from_millis(self.scenario.latency_ms.1);
        self.sim.set_link_max_message_latency(a, b, max);
    }

    fn normal_disk(&mut self, index: usize) {
        let normal = DiskConfig::default();
        self.nodes[index].host.disk.configure(|config| {
            config.latency = normal.latency;
            config.jitter = normal.jitter;
        });
    }

    pub(super) fn heal(&mut self) {
        self.trace.event("world", format_args!("everything is healed"));
        self.agenda
            .retain(|_, action| matches!(action, Action::Start(_) | Action::MustHaveStopped { .. }));
        for client in self.clients.values() {
            client.net.set_faults(LinkFaults::default());
        }
        for index in 0..self.nodes.len() {
            self.resume(index);
            self.heal_node(index);
        }
        self.links.heal();
        self.links.apply(&mut self.sim);
        for (a, b) in self.links.all() {
            self.sim.set_link_fail_rate(a.as_str(), b.as_str(), 0.0);
            self.normal_latency(&a, &b);
        }
        self.links.mend_flapping(&mut self.sim);
        for index in 0..self.nodes.len() {
            self.restart_what_has_failed(index, "disk has failed");
        }
        // Nobody but the cluster itself makes a bad copy good, where it can: see `mend_a_last_copy`.
        if self.rot.as_ref().is_some_and(|rot| !rot.is_quiet) {
            self.shared.rotten.set(None);
        }
        self.left_rotten = self.rot.take();
        self.mend_a_last_copy();
    }

    /// Once everything is healed: puts the rotten bit right where the bad copy is the last that may be elected. A crash may
    /// take the good ones out of the in-sync set after the bit has rotted (`min.insync.replicas` of 1), and then a person
    /// must help.
    pub(super) fn mend_a_last_copy(&mut self) {
        let Some(rot) = self.left_rotten.take() else {
            return;
        };
        if self.others_may_lead(&rot) {
            self.left_rotten = Some(rot);
            return;
        }
        if !rot.is_there(&self.nodes[rot.node].host.disk) {
            return;
        }
        if self.nodes[rot.node].is_up() {
            self.crash(rot.node, false, 100);
        }
        let disk = &self.nodes[rot.node].host.disk;
        let there = disk.flip_bit(&rot.path, rot.position, rot.bit);
        self.trace
            .event("world", format_args!("the rotten bit is put right: {there}"));
    }

    /// A bit that rotted while nobody looked is still there.
    pub(super) fn quiet_rot(&self) -> Option<String> {
        let rot = self.left_rotten.as_ref().filter(|rot| rot.is_quiet)?;
        let node = &self.nodes[rot.node];
        let place = || format!("{} of {} is still damaged", rot.partition, node.name);
        rot.is_there(&node.host.disk).then(place)
    }

    /// The cluster has left the rotten copy out, or can.
    fn others_may_lead(&self, rot: &rot::Rot) -> bool {
        let place = self
            .watcher
            .as_ref()
            .and_then(|watcher| watcher.place(&self.brokers(), &rot.partition));
        let me = i32::try_from(rot.node + 1).unwrap_or(0);
        place.is_some_and(|place| place.in_sync.iter().chain(&place.eligible).any(|id| *id != me))
    }

    fn heal_node(&mut self, index: usize) {
        self.normal_disk(index);
        let node = &mut self.nodes[index];
        node.again_at_start = None;
        node.host.net.set_faults(LinkFaults::default());
        node.host.clock.heal();
        let disk = &node.host.disk;
        disk.free_room();
        disk.stall_until(skerry_types::Instant::ZERO);
        disk.configure(|config| config.sync_fails_one_in = 0);
        disk.die_in_nothing();
    }

    /// Kills the node and turns a bit over in the last batch that the recovery point of some partition covers: of one
    /// that another node in sync has as well. Without a time to be down: lets it run, and takes an older batch.
    fn let_a_bit_rot(&mut self, index: usize, down_ms: Option<u64>) {
        let rng = Rng::seeded(self.scenario.seed ^ 0xb17);
        let brokers = self.brokers();
        let alone = self.nodes.len() == 1;
        let others_have_it = |partition: &str| {
            let place = self
                .watcher
                .as_ref()
                .and_then(|watcher| watcher.place(&brokers, partition));
            let me = i32::try_from(index + 1).unwrap_or(0);
            place.is_some_and(|place| place.in_sync.iter().any(|id| *id != me))
        };
        let disk = &self.nodes[index].host.disk;
        let may = |partition: &str| alone || others_have_it(partition);
        let chosen = rot::choose(index, disk, &rng, down_ms.is_none(), may);
        drop(brokers);
        if let Some(down_ms) = down_ms {
            self.crash(index, false, down_ms);
        }
        let Some(rot) = chosen else { return };
        let node = &self.nodes[index];
        if node.host.disk.flip_bit(&rot.path, rot.position, rot.bit) {
            self.trace.event(
                "world",
                format_args!(
                    "bit {} of byte {} of {} on {} has rotted",
                    rot.bit,
                    rot.position,
                    rot.path.display(),
                    node.name
                ),
            );
            self.shared.rotten.set(Some(RottenPlace {
                node: node.name.clone(),
                partition: rot.partition.clone(),
                is_quiet: rot.is_quiet,
            }));
            self.rot = Some(rot);
        }
    }
}
