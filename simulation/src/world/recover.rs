//! The disks of a majority of the voters are lost, and a person goes on from what is left (`skerry cluster recover`).
//!
//! What only the lost majority had decided, and what only their copies had of the records, is lost. What must not be: a
//! record that a copy has which is left and was in sync; that an epoch, a term or a producer id is given out a second time;
//! that the cluster does not come back once the person has done what the manual says, in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use skerry_env::Rng;
use skerry_metadata::Survivor;
use skerry_types::{WallMs, reached};

use super::World;
use super::faults::Action;
use crate::invariants::Left;
use crate::process::{DATA_DIR, State};
use crate::workload;

/// Draws of this kind come from a stream of their own.
const WIPES: u64 = 0x317e_d000;
/// Long after everything here.
const AWAY_MS: u64 = 600_000;
/// By then the others go on without a node that they do not hear.
const LEFT_BEHIND_WITHIN_MS: u64 = 15_000;
/// By then what a person has begun is done.
const DONE_WITHIN_MS: u64 = 40_000;
/// Where the quorum keeps its files: the folder that the manual tells to move away, with an empty one in its place.
const METADATA_DIR: &str = "metadata";

/// Who has lost its disk, who has not, and on whose log the person goes on.
struct Loss {
    survivor: usize,
    lost: Vec<usize>,
    /// Who is left besides the survivor.
    others: Vec<usize>,
}

impl World<'_> {
    /// The load has ended. False when a promise was broken.
    pub(super) fn lose_the_majority(&mut self) -> bool {
        if !std::mem::take(&mut self.beyond.wipes) {
            return true;
        }
        if !self.becomes_whole() {
            return false;
        }
        let rng = Rng::seeded(self.scenario.seed ^ WIPES);
        let Some(loss) = self.draw_loss(&rng) else {
            self.trace.event(
                "world",
                format_args!("no majority can be lost without the groups: nothing happens"),
            );
            return true;
        };
        // With others left the person would choose one of those, whose log ends later.
        if loss.others.is_empty() && rng.chance(3, 4) && !self.go_on_without(loss.survivor) {
            return false;
        }
        self.take_the_disks(&loss, rng.chance(1, 2));
        if !self.recover_on(loss.survivor) {
            return false;
        }
        let left: Vec<usize> = loss.others.iter().copied().chain([loss.survivor]).collect();
        self.bring_back(&left)
            && self.elect_what_is_left(&left)
            && self.bring_back(&loss.lost)
            && self.elect_what_is_left(&loss.lost)
            && self.give_votes_to(&loss)
    }

    /// A majority of the voters, so that every partition of the groups keeps a copy: nobody tells the history which commits
    /// are lost.
    fn draw_loss(&self, rng: &Rng) -> Option<Loss> {
        let watcher = self.watcher.as_ref()?;
        let mut voters = watcher.voters()?;
        if voters.len() < 3 {
            return None;
        }
        let count = voters.len() / 2 + 1;
        let survivor = voters.remove(usize::try_from(rng.below(voters.len() as u64)).ok()?);
        while voters.len() > count {
            voters.remove(usize::try_from(rng.below(voters.len() as u64)).ok()?);
        }
        let lost = voters;
        let others: Vec<usize> = (0..self.nodes.len())
            .filter(|node| *node != survivor && !lost.contains(node))
            .collect();
        let left: BTreeSet<usize> = others.iter().copied().chain([survivor]).collect();
        watcher.groups_are_on(&left).then_some(Loss {
            survivor,
            lost,
            others,
        })
    }

    /// The others decide, and acknowledge, what the survivor never hears of.
    fn go_on_without(&mut self, survivor: usize) -> bool {
        let writer = self.as_operator_cut_from("writer", survivor);
        let name = self.nodes[survivor].name.clone();
        self.trace.event(
            "world",
            format_args!("nobody hears {name} any more, and the others go on without it"),
        );
        for other in self.links.others(&name) {
            self.links.cut(&name, &other);
            self.links.cut(&other, &name);
        }
        self.links.apply(&mut self.sim);
        let by = self.now_ms + LEFT_BEHIND_WITHIN_MS;
        let is_left = |world: &Self| {
            world
                .watcher
                .as_ref()
                .is_some_and(|watcher| watcher.is_out(survivor))
        };
        if !self.step_until(by, is_left) {
            return false;
        }
        if is_left(self) {
            reached("survivor-left-behind");
        }
        let partitions = self.partitions_that_commit();
        let (shared, done) = (self.shared.clone(), writer.1);
        let told = done.clone();
        let host = writer.0;
        self.sim.client("writer", async move {
            let wrote = workload::serves(&host.boot(), &shared, &host.name, &partitions, &[]).await;
            shared.trace.event(&host.name, format_args!("{wrote:?}"));
            told.store(true, Ordering::Relaxed);
            Ok(())
        });
        self.links.add("writer", &mut self.sim);
        let by = self.now_ms + DONE_WITHIN_MS;
        self.step_until(by, |_| done.load(Ordering::Relaxed))
    }

    /// A host for a person's client that does not reach `node`.
    fn as_operator_cut_from(
        &mut self,
        name: &'static str,
        node: usize,
    ) -> (crate::env::Host, Arc<std::sync::atomic::AtomicBool>) {
        let host = self.new_host(name);
        let node = self.nodes[node].name.clone();
        self.links.cut(name, &node);
        self.links.cut(&node, name);
        (host, Arc::default())
    }

    /// Those that have enough in sync to acknowledge.
    fn partitions_that_commit(&self) -> Vec<String> {
        let brokers = self.brokers();
        let needed = usize::try_from(self.scenario.min_in_sync).unwrap_or(1);
        let Some(watcher) = &self.watcher else {
            return Vec::new();
        };
        let commits = |name: &String| {
            let place = watcher.place(&brokers, name);
            place.is_some_and(|place| place.leader.is_some() && place.in_sync.len() >= needed)
        };
        watcher.partitions().filter(commits).collect()
    }

    /// The power of all goes, and the disks of some with it.
    fn take_the_disks(&mut self, loss: &Loss, by_power: bool) {
        reached("majority-wiped");
        let brokers = self.brokers();
        self.beyond.held = self.what_is_left(loss);
        for node in 0..self.nodes.len() {
            self.crash(node, by_power || loss.lost.contains(&node), AWAY_MS);
        }
        for node in loss.lost.iter().chain(&loss.others).copied() {
            let (disk, mark) = (
                self.nodes[node].host.disk.clone(),
                self.nodes[node].process.wal_mark(),
            );
            let durable = mark.durable();
            mark.forget();
            let name = self.nodes[node].name.clone();
            if loss.lost.contains(&node) {
                let lost = disk.lose();
                for other in &self.nodes {
                    other.oracle.on_lost(&disk, &lost);
                }
                self.trace.event(&name, format_args!("its disk is lost"));
            } else {
                disk.empty_dir(&Path::new(DATA_DIR).join(METADATA_DIR));
                self.trace
                    .event(&name, format_args!("somebody moves its metadata away"));
            }
            if let Some(watcher) = &mut self.watcher {
                let whole = loss.lost.contains(&node);
                watcher.on_vote_lost(node, durable, whole, &brokers);
            }
        }
        *self.felt.entry("majorities lost").or_default() += 1;
    }

    /// What of each partition is on the copies that are left, and that it may lose what they lack.
    fn what_is_left(&mut self, loss: &Loss) -> BTreeMap<String, i64> {
        let brokers = self.brokers();
        let left: Vec<usize> = loss.others.iter().copied().chain([loss.survivor]).collect();
        let Some(watcher) = &mut self.watcher else {
            return BTreeMap::new();
        };
        let mut held = BTreeMap::new();
        for name in watcher.partitions().collect::<Vec<_>>() {
            match watcher.what_is_left(&name, &left, &brokers) {
                Left::Complete => {}
                Left::UpTo(end) => {
                    watcher.give_up(&name);
                    held.insert(name, end);
                }
            }
        }
        for name in held.keys() {
            self.note_lost_groups(name);
        }
        held
    }

    /// `skerry cluster recover --yes` on a node that is down.
    pub(super) fn recover_on(&mut self, node: usize) -> bool {
        let name = self.nodes[node].name.clone();
        let at = WallMs(i64::try_from(self.now_ms).unwrap_or(0));
        let disk = self.nodes[node].host.disk.attach();
        let opened = Survivor::open(&*disk, &Path::new(DATA_DIR).join(METADATA_DIR));
        let done = opened.and_then(|survivor| {
            self.trace
                .event(&name, format_args!("cluster recover: {survivor}"));
            survivor.recover(at)
        });
        drop(disk);
        self.nodes[node].host.disk.detach();
        match done {
            Ok(note) => {
                reached("quorum-recovered");
                self.trace
                    .event("world", format_args!("a person recovers the quorum: {note}"));
                if let Some(watcher) = &mut self.watcher {
                    watcher.on_recovered(node);
                }
                self.forget_raft_logs();
                true
            }
            Err(error) => {
                let message = format!("the quorum cannot be recovered on {name}: {error}");
                self.violations.add(&self.trace, "not-recovered", message);
                false
            }
        }
    }

    /// The person starts these, and waits for them.
    fn bring_back(&mut self, nodes: &[usize]) -> bool {
        let is_start = |action: &Action| matches!(action, Action::Start(node) if nodes.contains(node));
        self.agenda.retain(|_, action| !is_start(action));
        self.links.heal();
        for node in nodes {
            self.plan(self.now_ms, Action::Start(*node));
        }
        self.links.apply(&mut self.sim);
        let by = self.now_ms + DONE_WITHIN_MS;
        let serves = |world: &Self, node: &usize| world.nodes[*node].process.state() == State::Serving;
        if !self.step_until(by, |world| nodes.iter().all(|node| serves(world, node))) {
            return false;
        }
        let Some(missing) = nodes.iter().find(|node| !serves(self, node)) else {
            return true;
        };
        let message = format!(
            "{} does not serve {DONE_WITHIN_MS} ms after the quorum was recovered",
            self.nodes[*missing].name
        );
        self.violations.add(&self.trace, "not-recovered", message);
        false
    }

    /// `skerry cluster elect --unclean --all-topics`, until each partition with a replica on these has a leader.
    fn elect_what_is_left(&mut self, nodes: &[usize]) -> bool {
        let leaderless = |world: &Self| {
            let watcher = world.watcher.as_ref();
            watcher.and_then(|watcher| watcher.leaderless(nodes))
        };
        let by = self.now_ms + DONE_WITHIN_MS;
        while let Some(missing) = leaderless(self) {
            if self.now_ms >= by {
                let watcher = self.watcher.as_ref();
                self.report(watcher.and_then(|watcher| watcher.check_elected(nodes)));
                return false;
            }
            reached("person-elects");
            self.operators += 1;
            let name = format!("elector-{}", self.operators);
            let why = format!("nobody leads {missing}: somebody lets what is left lead");
            let done = self.as_operator(&name, &why, |boot, shared, name| async move {
                workload::elect_all_unclean(&boot, &shared, &name).await;
            });
            let until = self.now_ms + DONE_WITHIN_MS / 4;
            if !self.step_until(until, |_| done.load(Ordering::Relaxed)) {
                return false;
            }
            let until = self.now_ms + 500;
            if !self.step_until(until, |world| leaderless(world).is_none()) {
                return false;
            }
        }
        true
    }

    /// `skerry cluster voters add`, for everybody who voted.
    fn give_votes_to(&mut self, loss: &Loss) -> bool {
        let voters = usize::try_from(self.shared.cluster.voters).unwrap_or(0);
        let nodes: Vec<i32> = (0..voters)
            .filter(|node| *node != loss.survivor)
            .filter_map(|node| i32::try_from(node + 1).ok())
            .collect();
        let why = format!("somebody gives votes to {nodes:?}");
        let done = self.as_operator("voters", &why, move |boot, shared, name| async move {
            workload::add_voters(&boot, &shared, &name, &nodes).await;
        });
        let by = self.now_ms + DONE_WITHIN_MS;
        if !self.step_until(by, |_| done.load(Ordering::Relaxed)) {
            return false;
        }
        if !done.load(Ordering::Relaxed) {
            let message = "the nodes that have come back cannot be made voters".to_owned();
            self.violations.add(&self.trace, "not-recovered", message);
            return false;
        }
        true
    }
}
