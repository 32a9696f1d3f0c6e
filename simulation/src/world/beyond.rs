//! What goes beyond what a cluster can bear, and how a person recovers from it.
//!
//! What may happen then: the record that no copy has whole any more, and what a person has to give up with it, is lost.
//! What must not: that nobody is told of it; that anybody is served other bytes as if they were the record (clients
//! compare its sum, and the world takes a record that passes it and is another for a broken promise, as ever); that
//! replicas differ, or that the partition does not come back once the person has done what the manual says. Every other
//! partition keeps every promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use skerry_types::reached;

use super::World;
use super::disks::ALL_COPIES;
use crate::oracle::RottenPlace;
use crate::rot::{self, Rot};
use crate::workload;

/// By then the cluster has told of what it has lost: a round of the scrub, and a reader's look.
const TOLD_WITHIN_MS: u64 = 20_000;
/// By then the person's command is done.
const RECOVERED_WITHIN_MS: u64 = 30_000;

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

    /// Waits until the cluster tells of what is lost, and then deletes the records up to it, as the manual says. False
    /// when a promise was broken.
    pub(super) fn recover_what_is_lost(&mut self) -> bool {
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
        if self.mend_what_is_offline(&partition) {
            return true;
        }
        self.trace.event(
            "world",
            format_args!(
                "somebody reads of the damage, and deletes the records of {partition} before {before}"
            ),
        );
        let host = self.new_host("operator");
        let (shared, done) = (self.shared.clone(), Arc::new(AtomicBool::new(false)));
        let told = done.clone();
        let name = partition.clone();
        self.sim.client("operator", async move {
            workload::delete_before(&host.boot(), &shared, &host.name, &name, before).await;
            told.store(true, Ordering::Relaxed);
            Ok(())
        });
        self.links.add("operator", &mut self.sim);
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

    /// Where the copy that leads met the damage at its start, it is offline: nothing can be deleted from it, and nobody
    /// else may be elected, because it leads (see "Open" in the README). Then the device gives it back.
    fn mend_what_is_offline(&mut self, partition: &str) -> bool {
        let leader = self
            .watcher
            .as_ref()
            .and_then(|watcher| watcher.place(&self.brokers(), partition)?.leader);
        let Some(node) = leader.and_then(|id| usize::try_from(id - 1).ok()) else {
            return false;
        };
        let is_offline = self.brokers()[node].as_ref().is_some_and(|broker| {
            let mut all = broker.partitions().all().into_iter();
            all.any(|found| found.name().to_string() == partition && found.offline().is_some())
        });
        if !is_offline {
            return false;
        }
        for rot in self.rotten.iter_mut().filter(|rot| rot.partition == partition) {
            rot.is_lost = false;
            if rot.node == node {
                self.nodes[node].host.disk.undo(&rot.harm);
            }
        }
        self.trace.event(
            "world",
            format_args!("the copy of {partition} that leads is offline: its disk gives the record back"),
        );
        self.crash(node, false, 100);
        true
    }

    /// A partition with a record that no copy has whole, and the offset after that record.
    fn lost(&self) -> Option<(String, i64)> {
        let watcher = self.watcher.as_ref()?;
        let mut rotten = self.rotten.iter();
        let rot = rotten.find(|rot| rot.is_lost && watcher.log_start(&rot.partition) <= rot.base)?;
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
