//! What goes beyond what a cluster can bear, and how a person recovers from it.
//!
//! What may happen then: the record that no copy has whole any more, what a person has to give up with it, and what a copy
//! lacks that a person chooses where no complete one can be opened, is lost; and what all disks have lied about. What must not: that nobody is told of it; that
//! anybody is served other bytes as if they were the record (clients compare its sum, and the world takes a record that
//! passes it and is another for a broken promise, as ever); that replicas differ, or that the partition does not come back
//! once the person has done what the manual says. Every other partition, and everything before the loss, keeps every
//! promise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skerry_checker::history::Note;
use skerry_env::Env;
use skerry_types::reached;

use super::World;
use super::disks::ALL_COPIES;
use super::faults::Action;
use crate::invariants::Found;
use crate::invariants::offsets::TOPIC;
use crate::oracle::RottenPlace;
use crate::process::DATA_DIR;
use crate::rot::{self, Rot};
use crate::workload::{self, Shared};

/// Draws of [`Fault::LyingVoter`] come from a stream of their own.
///
/// [`Fault::LyingVoter`]: crate::scenario::Fault::LyingVoter
const LYING_VOTER: u64 = 0x11e5_0000_0000;

/// By then the cluster has told of what it has lost: a round of the scrub, and a reader's look.
const TOLD_WITHIN_MS: u64 = 20_000;
/// By then the person's command is done.
const RECOVERED_WITHIN_MS: u64 = 30_000;
/// Long after the load has ended.
const AWAY_MS: u64 = 120_000;

/// What is planned beyond the contract, and what came of it.
#[derive(Default)]
pub(super) struct Beyond {
    /// Partitions that may have to be recovered by a person.
    concerned: BTreeSet<String>,
    /// The partition whose in-sync copies are to be lost.
    loses: Option<String>,
    /// The node that is away meanwhile.
    away: Option<usize>,
    /// The partition about which disks lie.
    lies_about: Option<String>,
    /// A voter's disk is to lie about the quorum's own log; then whose does.
    pub(super) lies_of_a_voter: bool,
    lying_voter: Option<usize>,
    /// The disks of a majority are to be lost.
    pub(super) wipes: bool,
    /// Up to where copies are left of partitions of which no complete one is.
    pub(super) held: BTreeMap<String, i64>,
}

impl World<'_> {
    /// A bit of the same record rots in every copy. Where some copy does not have it on its disk, nothing happens: what
    /// the others could take from it is within the contract.
    pub(super) fn let_all_copies_rot(&mut self, index: usize) {
        let rng = self.draws_of(ALL_COPIES);
        let Some(place) = self.choose(index, &rng, true, None) else {
            return;
        };
        let mut copies = Vec::new();
        for (node, other) in self.nodes.iter().enumerate() {
            let disk = &other.host.disk;
            if disk.find_dir(&place.partition).is_none() {
                continue;
            }
            let Some(copy) = rot::same_on(disk, &place) else {
                return;
            };
            copies.push((node, copy));
        }
        reached("no-copy-is-whole");
        self.beyond.concerned.insert(place.partition.clone());
        for (node, copy) in copies {
            let name = self.nodes[node].name.clone();
            let harm = copy.bit(&rng);
            let Some(mut rot) = Rot::inflict(node, &copy, harm, true, &self.nodes[node].host.disk) else {
                continue;
            };
            self.trace.event(
                "world",
                format_args!(
                    "a bit of {} at {} rots on {name}, as in every copy",
                    copy.partition, copy.base
                ),
            );
            self.shared.rotten.add(RottenPlace {
                node: name,
                partition: copy.partition.clone(),
                is_quiet: true,
                is_lost: true,
            });
            rot.is_lost = true;
            self.rotten.push(rot);
        }
    }

    /// The partitions in which it goes beyond the contract.
    pub(super) fn partitions_beyond(&self) -> impl Iterator<Item = &String> {
        let lies_about = self.beyond.lies_about.iter();
        self.beyond.concerned.iter().chain(lies_about)
    }

    /// See `Fault::InSyncCopiesLost`. The first partition counts.
    pub(super) fn plan_to_lose(&mut self, partition: &str) {
        self.beyond.loses.get_or_insert_with(|| partition.to_owned());
    }

    /// See `Fault::LyingSyncs`. The first partition counts.
    pub(super) fn plan_to_lie(&mut self, partition: &str) {
        self.beyond.lies_about.get_or_insert_with(|| partition.to_owned());
    }

    /// See `Fault::LyingVoter`.
    pub(super) fn plan_a_lying_voter(&mut self) {
        self.beyond.lies_of_a_voter = true;
    }

    /// See `Fault::WipedMajority`.
    pub(super) fn plan_to_wipe(&mut self) {
        self.beyond.wipes = true;
    }

    /// Everything is healed, and the load goes on.
    pub(super) fn begin_to_lose(&mut self) {
        if let Some(partition) = &self.beyond.lies_about {
            let dir = Path::new(DATA_DIR).join("log").join(partition);
            self.trace
                .event("world", format_args!("disks lie about the syncs of {partition}"));
            for node in &self.nodes {
                node.host.disk.lie_about(&dir);
            }
        }
        if std::mem::take(&mut self.beyond.lies_of_a_voter) {
            self.let_a_voter_lie();
        }
        self.send_one_away();
    }

    /// One voter's disk says of the syncs of the quorum's log that they are done, and does not do them. One is all that a
    /// quorum of three can bear.
    fn let_a_voter_lie(&mut self) {
        let voters = self.watcher.as_ref().and_then(|watcher| watcher.voters());
        let rng = self.draws_of(LYING_VOTER);
        let Some(voter) = voters.filter(|voters| voters.len() > 2).and_then(|voters| {
            let place = rng.below(voters.len() as u64);
            voters.get(usize::try_from(place).ok()?).copied()
        }) else {
            return;
        };
        let node = &self.nodes[voter];
        self.trace.event(
            &node.name,
            format_args!("its disk lies about the syncs of the quorum's log"),
        );
        node.process.wal_mark().let_syncs_lie(true);
        self.beyond.lying_voter = Some(voter);
    }

    /// The load has ended: the power of that voter goes, or that of all, and with it votes and entries that counted. Everything
    /// must be as if they had not: the others have them.
    fn lose_what_a_voter_lied_about(&mut self) {
        let Some(voter) = self.beyond.lying_voter.take() else {
            return;
        };
        let of_all = self.draws_of(LYING_VOTER).chance(1, 3);
        for node in 0..self.nodes.len() {
            if node == voter || of_all {
                self.crash(node, true, 50);
            }
        }
        self.nodes[voter].process.wal_mark().let_syncs_lie(false);
        reached("voter-lost-what-it-had-synced");
        *self.felt.entry("voters that lost synced entries").or_default() += 1;
    }

    /// A replica that does not lead goes away, and the load goes on without it.
    fn send_one_away(&mut self) {
        let Some(partition) = self.beyond.loses.clone() else {
            return;
        };
        let watcher = self.watcher.as_ref();
        let place = watcher.and_then(|watcher| watcher.place(&self.brokers(), &partition));
        let away = place.and_then(|place| {
            let others = |id: &&i32| place.in_sync.iter().any(|member| member != *id);
            usize::try_from(place.followers.iter().rev().find(others)? - 1).ok()
        });
        // From now on nobody changes the voters: who is away may be one that is needed for that.
        let may_go = |node: &usize| self.nodes[*node].is_up() && self.shared.begin_change_of_members();
        let Some(away) = away.filter(may_go) else {
            self.beyond.loses = None;
            return;
        };
        self.trace.event(
            "world",
            format_args!(
                "{} goes away, and {partition} goes on without it",
                self.nodes[away].name
            ),
        );
        self.crash(away, false, AWAY_MS);
        self.beyond.away = Some(away);
    }

    /// Records of a partition are given up: if they are those of groups, generations of two kinds may have one number
    /// (4122 of any size, 60 s).
    pub(super) fn note_lost_groups(&mut self, partition: &str) {
        if partition.starts_with(TOPIC) {
            self.checks.forget_groups();
            self.shared.give_groups_up();
        }
    }

    /// The load has ended: the power of all goes, and with it what disks have lied about. False when a promise was broken:
    /// whoever has it in writing that it had more must say so.
    fn lose_what_was_lied_about(&mut self) -> bool {
        let Some(partition) = self.beyond.lies_about.take() else {
            return true;
        };
        if let Some(watcher) = &mut self.watcher {
            watcher.give_up(&partition);
        }
        self.note_lost_groups(&partition);
        let watcher = self.watcher.as_ref();
        let place = watcher.and_then(|watcher| watcher.place(&self.brokers(), &partition));
        for node in 0..self.nodes.len() {
            self.crash(node, true, 50);
            self.nodes[node].host.disk.tell_the_truth();
        }
        reached("disks-lied");
        // Whomever a person chooses.
        let watcher = self.watcher.as_ref();
        let left = watcher.and_then(|watcher| watcher.left_of_all(&partition));
        if !self.rotten.iter().any(|rot| rot.partition == partition) {
            self.beyond
                .held
                .extend(left.map(|left| (partition.clone(), left)));
        }
        let replicas = place
            .iter()
            .flat_map(|place| place.leader.iter().chain(&place.followers));
        let knowing = replicas.copied().filter(|id| {
            let node = usize::try_from(id - 1).ok().and_then(|node| self.nodes.get(node));
            node.is_some_and(|node| rot::claims_more(&node.host.disk, &partition))
        });
        let knowing: Vec<i32> = knowing.collect();
        self.beyond.concerned.insert(partition.clone());
        let by = self.now_ms + TOLD_WITHIN_MS;
        for id in knowing {
            reached("a-checkpoint-knows-of-more");
            let tells = |world: &Self| {
                let watcher = world.watcher.as_ref();
                watcher.is_some_and(|watcher| watcher.was_offline(&partition, id))
            };
            if !self.step_until(by, tells) {
                return false;
            }
            if !tells(self) {
                let message = format!(
                    "the disk of n{id} has lost what a checkpoint of {partition} says is durable, and {TOLD_WITHIN_MS} ms \
                     later it has not told that it cannot open its copy"
                );
                self.violations.add(&self.trace, "silent-loss", message);
                return false;
            }
        }
        true
    }

    /// The load has ended: every copy that was in sync is damaged where recovery looks, and the one that was away comes
    /// back. Where somebody's copy cannot be damaged so, nothing happens: the others could take it from there.
    fn lose_in_sync_copies(&mut self) {
        let (Some(partition), Some(away)) = (self.beyond.loses.take(), self.beyond.away.take()) else {
            return;
        };
        let starts = self
            .agenda
            .iter()
            .find(|(_, action)| matches!(action, Action::Start(node) if *node == away));
        if let Some(key) = starts.map(|(key, _)| *key) {
            self.agenda.remove(&key);
            self.plan(self.now_ms, Action::Start(away));
        }
        let watcher = self.watcher.as_ref();
        let Some(place) = watcher.and_then(|watcher| watcher.place(&self.brokers(), &partition)) else {
            return;
        };
        let rng = self.draws_of(ALL_COPIES);
        let mut copies = Vec::new();
        for id in place.in_sync.iter().chain(&place.eligible) {
            let Some(node) = usize::try_from(id - 1).ok().filter(|node| *node != away) else {
                return;
            };
            let disk = &self.nodes[node].host.disk;
            let Some(copy) = rot::choose(disk, &rng, false, |name| name == partition) else {
                return;
            };
            copies.push((node, copy));
        }
        if copies.is_empty() {
            return;
        }
        reached("in-sync-copies-damaged");
        for (node, copy) in copies {
            self.crash(node, false, 100);
            let harm = copy.bit(&rng);
            self.harm(node, &copy, harm, false, "a bit has rotted");
            if let Some(rot) = self.rotten.last_mut() {
                rot.is_lost = true;
            }
        }
        self.beyond.concerned.insert(partition);
    }

    /// Waits until the cluster tells of what is lost, and does what the manual says: where no copy that may lead can be
    /// opened, another one is elected; where a record is lost in all copies, the records up to it are deleted. False when a
    /// promise was broken.
    pub(super) fn recover_what_is_lost(&mut self) -> bool {
        if !self.lose_the_majority() {
            return false;
        }
        self.lose_what_a_voter_lied_about();
        self.lose_in_sync_copies();
        if !self.lose_what_was_lied_about() {
            return false;
        }
        for partition in self.beyond.concerned.clone() {
            if !self.choose_another_copy(&partition) {
                return false;
            }
        }
        self.delete_what_is_lost()
    }

    /// True where somebody leads the partition, or does after a person has chosen a copy.
    fn choose_another_copy(&mut self, partition: &str) -> bool {
        let by = self.now_ms + TOLD_WITHIN_MS;
        if !self.step_until(by, |world| world.is_led(partition) || world.is_stuck(partition)) {
            return false;
        }
        if self.is_led(partition) {
            return true;
        }
        let watcher = self.watcher.as_ref();
        let untold = watcher.and_then(|watcher| watcher.check_told(partition, TOLD_WITHIN_MS));
        if untold.is_some() {
            self.report(untold);
            return false;
        }
        reached("person-elects");
        if let Some(watcher) = &mut self.watcher {
            watcher.give_up(partition);
        }
        self.note_lost_groups(partition);
        let message = format!(
            "somebody reads that no copy of {partition} that may lead can be opened, and elects another one"
        );
        let name = partition.to_owned();
        let elected = self.as_operator("elector", &message, move |boot, shared, me| async move {
            workload::elect_unclean(&boot, &shared, &me, &name).await;
        });
        let by = self.now_ms + RECOVERED_WITHIN_MS;
        if !self.step_until(by, |world| {
            elected.load(Ordering::Relaxed) && world.is_led(partition)
        }) {
            return false;
        }
        if !self.is_led(partition) {
            let message = format!("nobody leads {partition}, though a person has chosen another copy");
            self.violations.add(&self.trace, "not-recovered", message);
            return false;
        }
        // What the chosen copy lacks altogether needs no deletion.
        let end = self.end_of(partition);
        self.rotten
            .retain(|rot| rot.partition != partition || rot.is_quiet && rot.base < end);
        true
    }

    /// Runs a person's command on a host of its own; true in the end.
    pub(super) fn as_operator<F>(
        &mut self,
        name: &str,
        why: &str,
        work: impl FnOnce(Env, Arc<Shared>, String) -> F + 'static,
    ) -> Arc<AtomicBool>
    where
        F: Future<Output = ()> + 'static,
    {
        self.trace.event("world", format_args!("{why}"));
        let host = self.new_host(name);
        let (shared, done) = (self.shared.clone(), Arc::new(AtomicBool::new(false)));
        let told = done.clone();
        self.sim.client(name, async move {
            work(host.boot(), shared, host.name.to_string()).await;
            told.store(true, Ordering::Relaxed);
            Ok(())
        });
        self.links.add(name, &mut self.sim);
        done
    }

    fn delete_what_is_lost(&mut self) -> bool {
        let Some((partition, before)) = self.lost() else {
            return true;
        };
        let by = self.now_ms + TOLD_WITHIN_MS;
        if !self.step_until(by, |world| world.is_told(&partition)) {
            return false;
        }
        if !self.is_told(&partition) {
            let message = format!(
                "no copy of {partition} has the records before {before} whole, and {TOLD_WITHIN_MS} ms after \
                 everything healed no node has told of it (partitions_damaged)"
            );
            self.violations.add(&self.trace, "silent-loss", message);
            return false;
        }
        if let Some(watcher) = &mut self.watcher {
            watcher.loses_its_start(&partition);
        }
        self.note_lost_groups(&partition);
        let message =
            format!("somebody reads of the damage, and deletes the records of {partition} before {before}");
        let name = partition.clone();
        let done = self.as_operator("operator", &message, move |boot, shared, me| async move {
            workload::delete_before(&boot, &shared, &me, &name, before).await;
        });
        let by = self.now_ms + RECOVERED_WITHIN_MS;
        if !self.step_until(by, |_| done.load(Ordering::Relaxed)) {
            return false;
        }
        if !done.load(Ordering::Relaxed) {
            let message = format!("the records of {partition} before {before} cannot be deleted");
            self.violations.add(&self.trace, "not-recovered", message);
            return false;
        }
        true
    }

    /// Every copy is the same again: what was committed and is gone is known now, and promised no more.
    pub(super) fn tell_losses(&mut self) {
        let losses = self.watcher.as_mut().map(|watcher| watcher.take_losses());
        for (key, from) in losses.unwrap_or_default() {
            reached("committed-records-given-up");
            let held = self.beyond.held.get(&key).copied();
            self.report(check_loss(&key, from, held));
            *self.felt.entry("committed records given up").or_default() += 1;
            self.trace
                .event("world", format_args!("what {key} held from {from} on is lost"));
            self.shared.note(Note::Lost { key, from });
        }
    }

    /// Who leads the partition by the newest metadata serves it.
    fn is_led(&self, partition: &str) -> bool {
        let brokers = self.brokers();
        let place = self
            .watcher
            .as_ref()
            .and_then(|watcher| watcher.place(&brokers, partition));
        let leader = place.and_then(|place| usize::try_from(place.leader? - 1).ok());
        let broker = leader.and_then(|node| brokers.get(node)?.as_ref());
        broker.is_some_and(|broker| {
            let mut all = broker.partitions().all().into_iter();
            all.any(|found| found.name().to_string() == partition && found.is_led())
        })
    }

    /// See [`Watcher::is_stuck`].
    ///
    /// [`Watcher::is_stuck`]: crate::invariants::Watcher::is_stuck
    fn is_stuck(&self, partition: &str) -> bool {
        let watcher = self.watcher.as_ref();
        watcher.is_some_and(|watcher| watcher.is_stuck(partition))
    }

    /// Where the copy that leads ends.
    fn end_of(&self, partition: &str) -> i64 {
        let brokers = self.brokers();
        let all = brokers
            .iter()
            .flatten()
            .flat_map(|broker| broker.partitions().all());
        let led = all.filter(|found| found.name().to_string() == partition && found.is_led());
        let ends = led.filter_map(|found| found.look().map(|look| look.log_end.get()));
        ends.max().unwrap_or(0)
    }

    /// A partition with a record that no copy has whole, and the offset after that record.
    fn lost(&self) -> Option<(String, i64)> {
        let watcher = self.watcher.as_ref()?;
        let mut rotten = self.rotten.iter();
        // Whoever copies needs all of a batch, also where the log begins within it (9309 of any size, 60 s).
        let rot = rotten.find(|rot| rot.is_lost && watcher.log_start(&rot.partition) < rot.next)?;
        Some((rot.partition.clone(), rot.next))
    }

    /// Some node tells that a copy of it is damaged: what `skerry cluster describe` and the metrics read.
    fn is_told(&self, partition: &str) -> bool {
        let brokers = self.brokers();
        let mut all = brokers
            .iter()
            .flatten()
            .flat_map(|broker| broker.partitions().all());
        all.any(|found| found.name().to_string() == partition && found.damage().is_some())
    }
}

/// What a copy has that is left, up to `held`, is not lost.
fn check_loss(key: &str, from: i64, held: Option<i64>) -> Found {
    let Some(held) = held.filter(|held| from < *held) else {
        return Found::new();
    };
    let message = format!("a copy of {key} was left that had it up to {held}, and it is lost from {from} on");
    vec![("silent-loss", message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_partition_is_not_lost() {
        let judged = |from, held| check_loss("orders-0", from, held);
        // All of it is there that was left; or nobody knows what was.
        assert!(
            judged(40, Some(40)).is_empty() && judged(41, Some(40)).is_empty() && judged(0, None).is_empty()
        );
        assert_eq!(judged(39, Some(40))[0].0, "silent-loss");
    }
}
