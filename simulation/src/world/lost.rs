//! Disks that are lost, and disks in the wrong machines.
//!
//! One disk at a time, and another one only when the first is forgotten: its node serves again under another directory, is
//! in sync wherever it has a replica, and votes again if it did. Until then nothing else that costs a copy happens either
//! (the atlas, see `disks.rs`), and before it everything that the disk holds is promised by another copy that may be
//! elected: one copy less than `min.insync.replicas` is what replication answers for, and one vote what the quorum does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skerry_env::Rng;

use super::World;
use super::budget::Spent;
use super::faults::Action;
use crate::process::State;
use crate::rot::Rot;
use crate::scenario::Target;
use crate::workload;

/// How long it takes to carry a disk from one machine to another.
const CARRIED_MS: u64 = 50;
/// How an end by itself is told where the disk is another node's (`StartError::WrongNode`).
const REFUSED: [&str; 2] = ["does not start", "belongs to node"];

/// What becomes of it later.
pub(super) enum Step {
    /// The disks of these two are where they belong again.
    PutBack(usize, usize),
}

/// A disk that is lost, and not yet replaced in every respect.
pub(super) struct Lost {
    pub(super) node: usize,
    /// Set when the operator has given its vote to the new disk; `None`: it had none.
    pub(super) operator: Option<Arc<AtomicBool>>,
}

impl World<'_> {
    pub(super) fn step_disks(&mut self, step: &Step) {
        let Step::PutBack(one, other) = *step;
        self.put_back(one);
        self.put_back(other);
    }

    /// The power goes, and the disk with it, within the budget.
    pub(super) fn lose_disk(&mut self, index: usize, down_ms: u64) {
        if let Err(why) = self.may_lose_disk(index) {
            let name = &self.nodes[index].name;
            self.trace.event(name, format_args!("keeps its disk: {why}"));
            return;
        }
        self.crash(index, true, down_ms);
        self.take_disk_away(index);
    }

    /// The machine, which is down, has an empty disk from now on.
    pub(super) fn take_disk_away(&mut self, index: usize) {
        let node = &self.nodes[index];
        let lost = node.host.disk.lose();
        for other in &self.nodes {
            other.oracle.on_lost(&node.host.disk, &lost);
        }
        let durable = node.process.wal_mark().durable();
        node.process.wal_mark().forget();
        let brokers = self.brokers();
        let votes = self
            .watcher
            .as_mut()
            .is_some_and(|watcher| watcher.on_lost(index, durable, &brokers));
        self.trace
            .event(&self.nodes[index].name, format_args!("its disk is lost"));
        *self.felt.entry("disks lost").or_default() += 1;
        let operator = votes.then(|| self.send_operator(index));
        self.lost = Some(Lost {
            node: index,
            operator,
        });
    }

    /// Whether this disk may be lost now.
    fn may_lose_disk(&self, index: usize) -> Result<(), String> {
        let watcher = self.watcher.as_ref().ok_or("it is the only node")?;
        if self.scenario.flush_messages > 0 {
            return Err("what is acknowledged need not be on disks".to_owned());
        }
        self.spent().may_be_lost(index)?;
        let node = &self.nodes[index];
        if node.process.state() != State::Serving || self.nodes.iter().any(|node| node.is_swapped) {
            return Err("it does not serve".to_owned());
        }
        if let Some(partition) = self.bad_copy() {
            return Err(format!("{partition} has rotted"));
        }
        watcher.may_lose(index, &self.brokers())?;
        // While the voters change, a majority of them need not be a majority of those that there were.
        if !self.shared.begin_change_of_members() {
            return Err("somebody changes the voters".to_owned());
        }
        Ok(())
    }

    /// A partition of which some copy has a bad place.
    fn bad_copy(&self) -> Option<&str> {
        let is_bad = |rot: &&Rot| rot.is_there(&self.nodes[rot.node].host.disk);
        Some(&self.rotten.iter().find(is_bad)?.partition)
    }

    /// Whether the power of this node may go: what it has not flushed may go with it.
    pub(super) fn may_lose_power(&self, index: usize) -> bool {
        if !self.scenario.one_power_at_a_time {
            return true;
        }
        let mut spent = self.spent();
        // What it lost the last time it may lose again.
        spent.lost.take_if(|(node, _)| *node == index);
        let rotten = self.bad_copy().map(|partition| format!("{partition} has rotted"));
        let Some(why) = spent.may_be_lost(index).err().or(rotten) else {
            return true;
        };
        let name = &self.nodes[index].name;
        self.trace.event(name, format_args!("keeps its power: {why}"));
        false
    }

    /// The disks that cost copies now.
    pub(super) fn spent(&self) -> Spent {
        let fails = |index: &usize| self.nodes[*index].host.disk.is_failing();
        let disk = self
            .disk_is_missed()
            .and_then(|missing| Some((self.lost.as_ref()?.node, missing)));
        Spent {
            failing: (0..self.nodes.len()).filter(fails).collect(),
            lost: disk.or_else(|| self.flush_is_missed()),
        }
    }

    /// The node whose power went, where what it had not flushed may be missing still.
    fn flush_is_missed(&self) -> Option<(usize, String)> {
        let node = self.unflushed?;
        let name = &self.nodes[node].name;
        if self.nodes[node].process.state() != State::Serving {
            return Some((node, format!("{name} does not serve since its power went")));
        }
        let missing = self.watcher.as_ref()?.is_missed(node)?;
        Some((node, missing))
    }

    /// Notices that a lost disk is made up for.
    pub(super) fn forget_lost_disk(&mut self) {
        if self.unflushed.is_some() && self.flush_is_missed().is_none() {
            self.unflushed = None;
        }
        if self.lost.is_some() && self.disk_is_missed().is_none() {
            let name = &self.nodes[self.lost.take().map_or(0, |lost| lost.node)].name;
            self.trace
                .event(name, format_args!("the disk that it lost is made up for"));
            self.shared.end_change_of_members();
        }
    }

    /// What of a disk that was lost is not made up for.
    pub(super) fn disk_is_missed(&self) -> Option<String> {
        let lost = self.lost.as_ref()?;
        let name = &self.nodes[lost.node].name;
        let is_done = |done: &Arc<AtomicBool>| done.load(Ordering::Relaxed);
        if self.nodes[lost.node].process.state() != State::Serving {
            return Some(format!("{name} does not serve since it lost its disk"));
        }
        if !lost.operator.as_ref().is_none_or(is_done) {
            return Some(format!(
                "no operator has replaced the vote of the disk that {name} has lost"
            ));
        }
        self.watcher.as_ref()?.is_missed(lost.node)
    }

    /// An operator takes the vote of the lost disk, and gives it to the new one.
    pub(super) fn send_operator(&mut self, index: usize) -> Arc<AtomicBool> {
        self.operators += 1;
        let host = self.new_host(&format!("operator-{}", self.operators));
        let shared = self.shared.clone();
        let done = Arc::new(AtomicBool::new(false));
        let told = done.clone();
        let node = i32::try_from(index + 1).unwrap_or(0);
        let name = host.name.to_string();
        // Some are there before the machine is back.
        let is_hasty = Rng::seeded(self.scenario.seed ^ 0x0be4 ^ (self.operators << 32)).chance(1, 2);
        self.sim.client(name.as_str(), async move {
            workload::replace_voter(&host.boot(), &shared, &host.name, node, is_hasty).await;
            told.store(true, Ordering::Relaxed);
            Ok(())
        });
        self.links.add(&name, &mut self.sim);
        done
    }

    /// Both machines go down, and come back with the disk of the other one.
    pub(super) fn swap_disks(&mut self, index: usize, host: &str, for_ms: u64) {
        let target = host.parse::<Target>().ok();
        let other = target.and_then(|target| self.targets(&target).first().copied());
        let Some(other) = other.filter(|other| *other != index) else {
            return;
        };
        // An empty disk belongs to whoever has it.
        let may =
            |node: usize| self.nodes[node].process.state() == State::Serving && !self.nodes[node].is_swapped;
        if !may(index) || !may(other) || self.disk_is_missed().is_some() {
            return;
        }
        for (one, other) in [(index, other), (other, index)] {
            self.crash(one, false, CARRIED_MS);
            let disk = self.nodes[other].host.disk.clone();
            let node = &mut self.nodes[one];
            node.process.put_in(Some(disk));
            node.is_swapped = true;
            let (name, of) = (&self.nodes[one].name, &self.nodes[other].name);
            self.trace
                .event(name, format_args!("somebody gives it the disk of {of}"));
        }
        let step = Action::Disks(Step::PutBack(index, other));
        self.plan(self.now_ms + for_ms, step);
    }

    /// The node has its own disk again.
    pub(super) fn put_back(&mut self, index: usize) {
        if !std::mem::take(&mut self.nodes[index].is_swapped) {
            return;
        }
        let name = self.nodes[index].name.clone();
        self.trace
            .event(&name, format_args!("somebody gives it its own disk back"));
        if self.nodes[index].is_up() {
            self.crash(index, false, CARRIED_MS);
        }
        self.nodes[index].process.put_in(None);
    }

    /// Has the disk of another node, and has said so.
    pub(super) fn refuses_the_disk(&mut self, index: usize, why: &str) -> bool {
        let refuses = self.nodes[index].is_swapped && REFUSED.iter().all(|word| why.contains(word));
        *self.felt.entry("disks of other nodes refused").or_default() += u64::from(refuses);
        refuses
    }
}
