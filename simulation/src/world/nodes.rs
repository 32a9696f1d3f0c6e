//! The nodes as machines: crashes, starts, and what their processes do by themselves.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use skerry::broker::Broker;

use super::faults::Action;
use super::{World, first_panic};
use crate::env::Host;
use crate::invariants::Acts;
use crate::oracle::WireOracle;
use crate::process::{Process, State};
use crate::rot;
use crate::scenario::{Fault, Timed, WorkerKind};
use skerry_checker::history::Note;

/// A supervisor starts a process again that has ended by itself.
const SUPERVISOR_MS: u64 = 300;

/// One node.
pub(super) struct Node {
    pub(super) name: String,
    pub(super) host: Host,
    pub(super) process: Process,
    pub(super) oracle: Arc<WireOracle>,
    pub(super) starts: u64,
    /// The failures that the disk had caused when the process started: a process may end because of later ones.
    pub(super) excuses_at_start: u64,
    pub(super) reads_failed_at_start: u64,
    pub(super) dies_by_power: Option<(bool, u64)>,
    pub(super) again_at_start: Option<(u64, u64)>,
    pub(super) after_stop_ms: u64,
    /// Another node's disk is in it.
    pub(super) is_swapped: bool,
    /// A bit of an index on its disk has turned over: what the log does not follow, it does not write again either.
    pub(super) rotten_indexes: BTreeSet<String>,
}

impl Node {
    pub(super) fn is_up(&self) -> bool {
        matches!(
            self.process.state(),
            State::Starting | State::Serving | State::Stopping
        )
    }

    /// Its process stands still, or has died.
    pub(super) fn is_silent(&self) -> bool {
        self.host.gate.is_closed() || self.process.state() == State::Down
    }

    /// What it has done to the world. The disk of a process that is dead, and does not stand still, the world itself may exchange.
    pub(super) fn acts(&self, stands_still: bool) -> Acts {
        let (dials, writes) = self.host.net.traffic();
        let sockets = Acts {
            dials,
            writes,
            ends: self.host.net.ends(),
            ..Acts::default()
        };
        if !stands_still {
            return sockets;
        }
        let durable = self.process.wal_mark().durable();
        Acts {
            disk: self.host.disk.changes(),
            promised: (durable.term, durable.last_index),
            ..sockets
        }
    }

    /// What the disk that it has, its own or another one, has done to the process: after that it may end.
    pub(super) fn excuses(&self) -> u64 {
        let disk = self.process.disk();
        let metadata = self.process.wal_mark().sync_failures();
        disk.sync_failures() + disk.full_refusals() + disk.write_failures() + disk.read_failures() + metadata
    }

    /// A process may end, `why`, because of what its disk has done to it; and it does not start on a full one.
    pub(super) fn may_end(&self, why: &str) -> bool {
        let refused_to_start = why.starts_with("does not start") && why.ends_with("no storage space");
        let of_reads = self.process.disk().read_failures() - self.reads_failed_at_start;
        let of_writes = self.excuses() - self.excuses_at_start > of_reads;
        // A read that fails is no reason for a process that runs to end.
        of_writes
            || why.starts_with("does not start") && of_reads > 0
            || (refused_to_start && self.host.disk.is_filled())
    }

    pub(super) fn has_excuse(&self) -> bool {
        self.excuses() > self.excuses_at_start
    }
}

/// The promise that a process has broken which has come to `state`.
fn judge(state: &State, may_end: bool, has_the_disk_of_another: bool) -> Option<&'static str> {
    match state {
        State::Exited(why) if !may_end => Some(if why.starts_with("does not start") {
            "node-does-not-start"
        } else {
            "node-stopped"
        }),
        State::Serving if has_the_disk_of_another => Some("wrong-disk-taken"),
        _ => None,
    }
}

impl World<'_> {
    /// The brokers that serve, by their places.
    pub(super) fn brokers(&self) -> Vec<Option<Arc<Broker>>> {
        self.nodes.iter().map(|node| node.process.broker()).collect()
    }

    /// Does what a supervisor does, and notices what a process must not do.
    pub(super) fn look_after(&mut self, index: usize) {
        let node = &self.nodes[index];
        let ends =
            node.host.disk.has_died() || matches!(node.process.state(), State::Exited(_) | State::Stopped);
        if let Some((watcher, broker)) = self.watcher.as_mut().zip(node.process.broker()).filter(|_| ends) {
            watcher.on_end(&broker);
        }
        let node = &mut self.nodes[index];
        if node.host.disk.has_died() {
            let (power, down_ms) = node.dies_by_power.take().unwrap_or((false, 100));
            self.crash(index, power, down_ms);
            return;
        }
        match node.process.state() {
            state @ State::Exited(_) => {
                let is_spoilt = self.on_exit(index, &state);
                self.crash(index, false, SUPERVISOR_MS);
                if is_spoilt && self.nodes.len() == 1 {
                    self.go_on_from_what_can_be_read();
                } else if is_spoilt {
                    self.replace_metadata(index);
                }
            }
            State::Stopped => {
                self.trace.event(&node.name, format_args!("has stopped"));
                let after_ms = node.after_stop_ms;
                self.take_down(index, false);
                self.nodes[index].host.disk.kill();
                self.plan(self.now_ms + after_ms, Action::Start(index));
            }
            state @ State::Serving => {
                if let Some(check) = judge(&state, false, node.is_swapped) {
                    let why = format!("{} serves with the disk of another node", node.name);
                    self.violations.add(&self.trace, check, why);
                }
                self.judge_metadata(index);
            }
            State::Down | State::Starting | State::Stopping => {}
        }
    }

    /// True where it says that the quorum's files are damaged, and they are.
    fn on_exit(&mut self, index: usize, state: &State) -> bool {
        let State::Exited(why) = state else { return false };
        let name = &self.nodes[index].name;
        self.trace.event(name, format_args!("ends by itself: {why}"));
        let refuses = self.refuses_the_disk(index, why);
        let is_spoilt = self.tells_of_the_rot(index, why);
        let node = &self.nodes[index];
        // Who has no replicas may be forgotten while it starts: it says so, ends, and registers anew.
        let workers = &self.scenario.workload.workers;
        let forgets = |kind: &WorkerKind| matches!(kind, WorkerKind::Forget | WorkerKind::Members);
        let leaves = |timed: &Timed| matches!(timed.fault, Fault::Leaves { .. });
        let is_forgotten = why.ends_with("was unregistered")
            && (workers.iter().any(|worker| forgets(&worker.kind))
                || self.scenario.faults.iter().any(leaves));
        if let Some(check) = judge(
            state,
            refuses || is_forgotten || is_spoilt || node.may_end(why),
            node.is_swapped,
        ) {
            self.violations
                .add(&self.trace, check, format!("{}: {why}", node.name));
        }
        is_spoilt
    }

    /// Ends the process without asking it; it starts again after `down_ms`.
    pub(super) fn crash(&mut self, index: usize, power: bool, down_ms: u64) {
        let power = power && self.may_lose_power(index);
        self.nodes[index].host.disk.detach();
        self.take_down(index, power);
        let node = &self.nodes[index];
        if power {
            if self.scenario.flush_messages > 0 {
                // What it wrote and never synced counted: whoever leads may answer a moment later (7334 of any size, 60 s).
                let written = node.host.disk.as_written();
                for other in &self.nodes {
                    other.oracle.on_lost(&node.host.disk, &written);
                }
            }
            let report = node.host.disk.cut_power();
            self.trace
                .event(&node.name, format_args!("the power goes: {report:?}"));
        } else {
            node.host.disk.kill();
            self.trace.event(&node.name, format_args!("is killed"));
        }
        node.process.cut_metadata(power);
        // Whoever dies while it takes its leave has closed its logs, and lacks nothing (4026 of any size, 60 s).
        let lacks_nothing = rot::stopped_in_order(&node.host.disk);
        if let Some(watcher) = self.watcher.as_mut().filter(|_| !lacks_nothing) {
            watcher.on_crash(index);
        }
        if self.scenario.one_power_at_a_time && self.spent().lost.is_none() {
            self.unflushed = Some(index);
        }
        let node = &self.nodes[index];
        if power || node.host.disk.sync_failures() > 0 {
            self.shared.note(Note::UnsyncedMayBeLost);
        }
        self.plan(self.now_ms + down_ms, Action::Start(index));
    }

    /// The node is not there yet.
    pub(super) fn comes_later(&mut self, index: usize, at_ms: u64) {
        let name = &self.nodes[index].name;
        self.trace.event(name, format_args!("is not there yet"));
        self.take_down(index, false);
        self.plan(at_ms, Action::Start(index));
    }

    fn take_down(&mut self, index: usize, power: bool) {
        let node = &self.nodes[index];
        let name = node.name.clone();
        self.links.set_still(&name, false);
        if power {
            self.links.set_dark(&name, true);
        }
        self.links.apply(&mut self.sim);
        node.host.net.set_down(true);
        node.process.set_state(State::Down);
        let sim = &mut self.sim;
        if catch_unwind(AssertUnwindSafe(|| sim.crash(name.as_str()))).is_err() {
            self.violations.add(&self.trace, "panic", first_panic());
        }
        node.host.gate.open();
        node.oracle.forget_connections();
        if let Some(watcher) = &mut self.watcher {
            watcher.on_down(index);
        }
    }

    pub(super) fn start(&mut self, index: usize) {
        if self.nodes[index].process.state() != State::Down {
            return;
        }
        self.comes_back_from_leaving(index);
        // It may die again before the next step: another process then (44 of any size).
        self.checks.is_another_process(index);
        let node = &mut self.nodes[index];
        self.links.set_dark(&node.name, false);
        self.links.apply(&mut self.sim);
        node.starts += 1;
        node.excuses_at_start = node.excuses();
        node.reads_failed_at_start = node.process.disk().read_failures();
        self.trace.event(&node.name, format_args!("starts"));
        node.host.net.set_down(false);
        node.process.set_state(State::Starting);
        self.sim.bounce(node.name.as_str());
        if let Some((after_ms, down_ms)) = node.again_at_start.take() {
            self.plan(self.now_ms + after_ms, Action::PowerAgain(index, down_ms));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_only_where_its_disk_has_made_it() {
        let exited = |why: &str| State::Exited(why.to_owned());
        assert_eq!(judge(&exited("the metadata log"), true, false), None);
        assert_eq!(
            judge(&exited("the metadata log"), false, false),
            Some("node-stopped")
        );
        assert_eq!(
            judge(&exited("does not start: a port is taken"), false, false),
            Some("node-does-not-start")
        );
        assert_eq!(judge(&State::Stopped, false, false), None);
    }

    #[test]
    fn nobody_serves_with_the_disk_of_another_node() {
        assert_eq!(judge(&State::Serving, false, false), None);
        assert_eq!(judge(&State::Starting, false, true), None);
        assert_eq!(judge(&State::Serving, false, true), Some("wrong-disk-taken"));
        // It may end, and nothing else.
        assert_eq!(judge(&State::Exited(String::new()), true, true), None);
    }
}
