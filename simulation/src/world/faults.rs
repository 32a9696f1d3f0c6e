//! What goes wrong, and how it ends.

use std::time::Duration;

use skerry_env::Rng;
use skerry_env::clock::ClockBackend as _;

use super::{World, clocks, network, processes};
use crate::disk::DiskConfig;
use crate::oracle::RottenPlace;
use crate::process::State;
use crate::rot;
use crate::scenario::{Fault, Target};

/// What the world does at a moment.
pub(super) enum Action {
    Fault(usize),
    Start(usize),
    PowerAgain(usize, u64),
    MustHaveStopped { node: usize, start: u64 },
    Network(network::Step),
    Process(processes::Step),
    Clock(clocks::Step),
    NormalDisk(usize),
    FreeDisk(usize),
    GoodSyncs(usize),
    Resume { node: usize, start: u64 },
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
                self.tell_fault(index, &timed, &hit);
                *self.faults.entry(timed.kind()).or_default() += 1;
                if !self.trouble_the_network(&hit, &timed.fault) && !self.trouble_all(&hit, &timed.fault) {
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
                        "{} was told to stop {} ms ago, and still runs",
                        node.name,
                        processes::STOPS_WITHIN_MS
                    );
                    self.violations.add(&self.trace, "does-not-stop", why);
                }
            }
            Action::Network(step) => self.step_network(step),
            Action::Process(step) => self.step_process(step),
            Action::Clock(step) => self.step_clock(step),
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
    pub(super) fn targets(&self, on: &Target) -> Vec<usize> {
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
            Target::CoordinatorOf(group) => known
                .and_then(|watcher| watcher.coordinator(group))
                .and_then(number)
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
            Fault::Restart { down_ms } => self.restart(index, down_ms),
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
            | Fault::DieIn { .. }
            | Fault::Pause { .. } => {}
            Fault::ClockJump { by_ms } => self.nodes[index].host.clock.jump_wall_ms(by_ms),
            Fault::ClockDrift { ppm } => self.nodes[index].host.clock.set_drift_ppm(ppm),
            Fault::CrashLoop {
                times,
                up_ms,
                down_ms,
            } if up => {
                self.crash_again(index, times, up_ms, down_ms);
            }
            Fault::Outage { power, down_ms } if up => self.crash(index, power, down_ms),
            Fault::Outage { .. } | Fault::CrashLoop { .. } => {}
            Fault::ClockStrobe { .. }
            | Fault::ClockFreeze { .. }
            | Fault::ClockNoise { .. }
            | Fault::ClockSwing { .. }
            | Fault::ClockWander { .. } => self.trouble_the_clock(index, &fault),
            Fault::Bridge { for_ms } => self.bridge(index, for_ms),
            // They hit all at once: see `carry_out`.
            Fault::Isolate { .. }
            | Fault::Split { .. }
            | Fault::Ring { .. }
            | Fault::NoClients { .. }
            | Fault::Swizzle { .. }
            | Fault::RollingRestart { .. } => {}
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
            | Fault::LateLink { .. }
            | Fault::BadConnections { .. } => self.trouble_a_link(&name, fault),
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

    fn resume(&mut self, index: usize) {
        let node = &self.nodes[index];
        if node.host.gate.is_closed() {
            self.trace.event(&node.name, format_args!("goes on"));
            self.links.set_still(&node.name, false);
            self.links.apply(&mut self.sim);
            node.host.gate.open();
        }
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
        self.bring_starts_forward();
        for index in 0..self.nodes.len() {
            self.resume(index);
            self.heal_node(index);
        }
        self.heal_network();
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
