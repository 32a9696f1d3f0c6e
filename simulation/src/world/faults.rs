//! What goes wrong, and how it ends.

use super::disks::Relief;
use super::{World, clocks, lost, network, processes};
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
    OfDisk(usize, Relief),
    Disks(lost::Step),
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
                if let Some(watcher) = self
                    .watcher
                    .as_mut()
                    .filter(|_| super::lets_records_expire(&timed))
                {
                    watcher.lets_records_expire();
                }
                if hit.is_empty() {
                    *self.felt.entry("faults that hit nobody").or_default() += 1;
                } else {
                    self.happened.push((self.now_ms * 1_000, timed.kind()));
                }
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
            Action::MustHaveStopped { node, start } => self.judge_stop(node, start),
            Action::Network(step) => self.step_network(step),
            Action::Process(step) => self.step_process(step),
            Action::Clock(step) => self.step_clock(step),
            Action::Disks(step) => self.step_disks(&step),
            Action::OfDisk(node, what) => self.after_trouble(node, what),
            Action::Resume { node, start } => {
                if self.nodes[node].starts == start {
                    self.resume(node);
                }
            }
        }
    }

    pub(super) fn restart_what_has_failed(&mut self, node: usize, what: &str) {
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
        // A controller cannot tell a process that was killed from a node whose power went. Where records are flushed later, the
        // last copy that counts could be the one that lacks some, as in Kafka: one crash at a time.
        if up && ends_a_process(&fault) && !self.may_lose_power(index) {
            return;
        }
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
            Fault::BitRot { down_ms } if up => self.let_a_bit_rot(index, Some(down_ms)),
            Fault::IndexRot { down_ms } if up => self.let_an_index_rot(index, down_ms),
            Fault::MetadataRot { down_ms } if up => self.let_the_quorum_rot(index, down_ms),
            Fault::QuietRot if up => self.let_a_bit_rot(index, None),
            Fault::BadSector if up => self.let_a_sector_go_bad(index),
            Fault::MisdirectedWrite if up => self.misdirect_a_write(index),
            Fault::RotOfAllCopies if up => self.let_all_copies_rot(index),
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
            | Fault::IndexRot { .. }
            | Fault::MetadataRot { .. }
            | Fault::QuietRot
            | Fault::BadSector
            | Fault::MisdirectedWrite
            | Fault::RotOfAllCopies
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
            Fault::WipedDisk { down_ms } => self.lose_disk(index, down_ms),
            Fault::Leaves { back_after_ms } => self.begin_to_leave(index, back_after_ms),
            Fault::SwappedDisks { host, for_ms } => self.swap_disks(index, &host, for_ms),
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
            | Fault::InSyncCopiesLost { .. }
            | Fault::LyingSyncs { .. }
            | Fault::LyingVoter
            | Fault::WipedMajority
            | Fault::RollingRestart { .. } => {}
            Fault::DiskStall { .. }
            | Fault::SlowDisk { .. }
            | Fault::DiskFull { .. }
            | Fault::SyncFails { .. }
            | Fault::WriteFails { .. }
            | Fault::ReadFails { .. }
            | Fault::ReadFlips { .. }
            | Fault::Throttle { .. }
            | Fault::MetadataSyncFails { .. } => {
                self.trouble_the_disk(index, &fault);
            }
            Fault::SlowLink { .. }
            | Fault::HeldLink { .. }
            | Fault::CutLink { .. }
            | Fault::FlappingLink { .. }
            | Fault::LateLink { .. }
            | Fault::CorruptBatches { .. }
            | Fault::BadConnections { .. } => self.trouble_a_link(&name, fault),
        }
    }

    pub(super) fn resume(&mut self, index: usize) {
        let node = &self.nodes[index];
        if node.host.gate.is_closed() {
            self.trace.event(&node.name, format_args!("goes on"));
            self.links.set_still(&node.name, false);
            self.links.apply(&mut self.sim);
            node.host.gate.open();
        }
    }

    pub(super) fn heal(&mut self) {
        self.trace.event("world", format_args!("everything is healed"));
        self.agenda
            .retain(|_, action| matches!(action, Action::Start(_) | Action::MustHaveStopped { .. }));
        self.bring_starts_forward();
        for index in 0..self.nodes.len() {
            self.put_back(index);
            self.resume(index);
            self.heal_node(index);
        }
        self.heal_network();
        for index in 0..self.nodes.len() {
            self.restart_what_has_failed(index, "disk has failed");
        }
        self.heal_rot();
        self.begin_to_lose();
    }

    pub(super) fn heal_node(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.again_at_start = None;
        node.host.clock.heal();
        self.heal_disk(index);
    }
}

fn ends_a_process(fault: &Fault) -> bool {
    matches!(
        fault,
        Fault::Kill { .. } | Fault::PowerCut { .. } | Fault::DoublePowerCut { .. } | Fault::Outage { .. }
    )
}
