//! What must come true once everything is healed, or a person has done what the manual says: what the metadata and those who
//! serve have to look like then.

use skerry_metadata_state::{Image, Partition};
use skerry_types::BrokerId;

use super::{Missing, partition_of, place_of};

/// The first thing that a cluster without faults must have and this one has not. `known` is up to which entry each node has the
/// metadata (`None`: it does not serve), `columns` tells of a partition what each node has of it.
pub(super) fn check_whole(
    image: Option<&Image>,
    names: &[String],
    known: &[Option<u64>],
    columns: impl Fn(&str, &Partition) -> String,
) -> Option<Missing> {
    let missing = |what: String| Some(("not-whole", what));
    if let Some(node) = known.iter().position(Option::is_none) {
        return missing(format!("{} does not serve", names[node]));
    }
    let Some(image) = image else {
        return missing("there is no metadata".to_owned());
    };
    for broker in image.brokers() {
        if broker.fenced {
            return missing(format!("n{} is fenced", broker.id.get()));
        }
    }
    for topic in image.topics() {
        for (number, partition) in topic.partitions.iter().enumerate() {
            let name = format!("{}-{number}", topic.name);
            let Some(leader) = partition.leader else {
                return missing(format!("nobody leads {name} ({partition:?})"));
            };
            if partition.is_reassigning() {
                return missing(format!("{name} is still being moved ({partition:?})"));
            }
            if let Some(out) = partition.replicas.iter().find(|id| !partition.isr.contains(id)) {
                return missing(format!(
                    "n{} is not in sync with n{}, which leads {name}: {}",
                    out.get(),
                    leader.get(),
                    columns(&name, partition)
                ));
            }
        }
    }
    let behind = known.iter().flatten().position(|index| *index < image.index());
    behind.and_then(|node| missing(format!("{} has old metadata", names[node])))
}

/// Where nobody leads a partition, the metadata says whose copies cannot be opened: a person may choose another one then.
pub(super) fn check_told(image: Option<&Image>, name: &str, within_ms: u64) -> Option<Missing> {
    let is_told = image.is_some_and(|image| is_stuck(image, name));
    (!is_told).then(|| {
        let message = format!(
            "nobody serves {name}, and {within_ms} ms after everything healed the metadata does not say why"
        );
        ("offline-not-told", message)
    })
}

/// A person has chosen what these nodes have: each partition of theirs is led.
pub(super) fn check_elected(image: &Image, nodes: &[usize]) -> Option<Missing> {
    let missing = leaderless(image, nodes)?;
    let message = format!("nobody leads {missing}, though a person has chosen what is left");
    Some(("not-recovered", message))
}

/// A partition that has a replica on one of these nodes, and no leader.
pub(super) fn leaderless(image: &Image, nodes: &[usize]) -> Option<String> {
    let here = |id: &BrokerId| place_of(*id).is_some_and(|node| nodes.contains(&node));
    image.topics().find_map(|topic| {
        let mut partitions = topic.partitions.iter();
        let stuck = |partition: &Partition| partition.leader.is_none() && partition.replicas.iter().any(here);
        let number = partitions.position(|partition| stuck(partition))?;
        Some(format!("{}-{number}", topic.name))
    })
}

/// Nobody leads it, though every broker of it takes part: the metadata says whose copies cannot be opened.
pub(super) fn is_stuck(image: &Image, name: &str) -> bool {
    let Some(placed) = partition_of(image, name) else {
        return false;
    };
    let all_take_part = placed.replicas.iter().all(|id| image.is_unfenced(*id));
    placed.leader.is_none() && all_take_part && !placed.offline.is_empty()
}
