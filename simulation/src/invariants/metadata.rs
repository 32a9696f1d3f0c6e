//! The metadata as all nodes together have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use skerry::broker::Broker;
use skerry_metadata_state::{Image, Partition, Topic};

use super::Found;

/// What one process was seen to know.
#[derive(Default)]
struct Known {
    index: u64,
    term: u64,
    committed: u64,
}

/// The newest metadata that any node had, and what followed it.
#[derive(Default)]
pub(super) struct MetadataWatch {
    newest: Option<Arc<Image>>,
    known: BTreeMap<usize, Known>,
}

impl MetadataWatch {
    pub(super) fn newest(&self) -> Option<Arc<Image>> {
        self.newest.clone()
    }

    pub(super) fn on_down(&mut self, node: usize) {
        self.known.remove(&node);
    }

    /// True where the newest metadata is newer than at the last look.
    pub(super) fn look(&mut self, brokers: &[Option<Arc<Broker>>], found: &mut Found) -> bool {
        let mut moved = false;
        for (node, broker) in brokers.iter().enumerate() {
            let Some(broker) = broker else { continue };
            let leadership = broker.quorum().leadership();
            let image = broker.quorum().image();
            let known = self.known.entry(node).or_default();
            if known.index == image.index() && known.term == leadership.term {
                continue;
            }
            let status = broker.quorum().status();
            let now = Known {
                index: image.index(),
                term: leadership.term,
                committed: status.committed_index,
            };
            if now.index < known.index || now.term < known.term || now.committed < known.committed {
                found.push((
                    "quorum-went-back",
                    format!(
                        "n{}: term {} applied {} committed {}, after term {} applied {} committed {}",
                        node + 1,
                        now.term,
                        now.index,
                        now.committed,
                        known.term,
                        known.index,
                        known.committed
                    ),
                ));
            }
            *known = now;
            moved |= self.follow(image, found);
        }
        moved
    }

    fn follow(&mut self, image: Arc<Image>, found: &mut Found) -> bool {
        match &self.newest {
            Some(newest) if image.index() < newest.index() => false,
            Some(newest) if image.index() == newest.index() => {
                // The same commands make the same metadata (25).
                if !Arc::ptr_eq(&image, newest) && *image != **newest {
                    found.push((
                        "metadata-differs",
                        format!("two nodes have other metadata after entry {}", image.index()),
                    ));
                }
                false
            }
            newest => {
                check_image(&image, newest.as_deref(), found);
                self.newest = Some(image);
                true
            }
        }
    }
}

fn check_image(image: &Image, before: Option<&Image>, found: &mut Found) {
    for topic in image.topics() {
        let old = before
            .and_then(|before| before.topic(&topic.name))
            .filter(|old| old.id == topic.id);
        for (number, partition) in topic.partitions.iter().enumerate() {
            let name = format!("{}-{number}", topic.name);
            check_partition(&name, partition, image, found);
            if let Some(old) = old.and_then(|old| old.partitions.get(number)) {
                check_step(&name, old, partition, topic, found);
            }
        }
    }
    if let Some(before) = before {
        for broker in image.brokers() {
            let old = before.broker(broker.id);
            if old.is_some_and(|old| old.epoch > broker.epoch) {
                let name = format!("n{}", broker.id.get());
                found.push(("broker-epoch-went-back", format!("of {name}")));
            }
        }
    }
}

/// 13: who is in sync, and who leads.
pub(super) fn check_partition(name: &str, partition: &Partition, image: &Image, found: &mut Found) {
    let mut wrong = |what: &str| found.push(("wrong-in-sync-set", format!("{name}: {what}: {partition:?}")));
    if partition.isr.iter().any(|id| !partition.replicas.contains(id)) {
        wrong("in sync and no replica");
    }
    if partition.elr.iter().any(|id| !partition.replicas.contains(id)) {
        wrong("eligible and no replica");
    }
    if partition.elr.iter().any(|id| partition.isr.contains(id)) {
        wrong("in sync and eligible for when nobody is");
    }
    if partition
        .leader
        .is_some_and(|leader| !partition.isr.contains(&leader))
    {
        wrong("the leader is not in sync");
    }
    if partition.leader.is_some() && partition.isr.iter().any(|id| !image.is_unfenced(*id)) {
        wrong("a fenced broker is in sync");
    }
}

/// 14: epochs grow, and with every change.
fn check_step(name: &str, old: &Partition, new: &Partition, _topic: &Topic, found: &mut Found) {
    let back = new.leader_epoch < old.leader_epoch || new.partition_epoch < old.partition_epoch;
    let same_epoch = new.leader_epoch == old.leader_epoch
        && new.leader != old.leader
        && new.leader.is_some()
        && old.leader.is_some();
    let unnoticed = new != old && new.partition_epoch == old.partition_epoch;
    if back || same_epoch || unnoticed {
        found.push(("epochs-must-grow", format!("{name}: {new:?} after {old:?}")));
    }
}
