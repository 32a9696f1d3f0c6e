//! What a core of the cluster must have when only it was healed.

use std::sync::Arc;

use skerry::broker::Broker;
use skerry_metadata_state::Image;

use skerry_metadata_state::Partition;

use super::{COMPACTED, Found, Watcher, partition_of, place_of};
use crate::survivors::Placed;
use crate::workload::TOPICS;

impl Watcher {
    /// Who votes in the quorum, by the newest that anybody knew.
    pub(crate) fn voters(&self) -> Option<Vec<usize>> {
        let voters = self.metadata.quorum.voters();
        let places: Vec<_> = voters.iter().filter_map(|id| place_of(*id)).collect();
        (!places.is_empty()).then_some(places)
    }

    /// Where the partitions are that must be served, those that are compacted too, by the newest metadata.
    pub(crate) fn placed(&self) -> Vec<Placed> {
        let Some(image) = self.metadata.newest() else {
            return Vec::new();
        };
        let names = TOPICS.iter().map(|(topic, _)| *topic).chain(COMPACTED);
        let topics = names.filter_map(|name| image.topic(name));
        let placed = topics.flat_map(|topic| {
            let image = image.clone();
            topic
                .partitions
                .iter()
                .enumerate()
                .map(move |(number, partition)| Placed {
                    name: format!("{}-{number}", topic.name),
                    replicas: partition.original().filter_map(place_of).collect(),
                    complete: partition
                        .isr
                        .iter()
                        .chain(&partition.elr)
                        .filter_map(|id| place_of(*id))
                        .collect(),
                    needed: image.min_insync_replicas(topic, partition),
                })
        });
        placed.collect()
    }

    /// The first thing that `core` must have by itself and has not: a leader of the quorum, and for each of `partitions` a
    /// leader and all the core's replicas in sync, and nobody else's.
    pub(crate) fn what_a_core_lacks(
        &self,
        brokers: &[Option<Arc<Broker>>],
        core: &[usize],
        partitions: &[&str],
    ) -> Option<String> {
        let known = core.iter().map(|node| {
            let broker = brokers[*node].as_ref();
            let known = broker.map(|broker| {
                let leadership = broker.quorum().leadership();
                Known {
                    term: leadership.term,
                    leader: leadership.leader.and_then(place_of),
                    image: broker.quorum().image(),
                }
            });
            (*node, known)
        });
        let known: Vec<_> = known.collect();
        what_is_lacked(&self.names, &known, partitions, |name, partition| {
            self.columns_of(name, partition, brokers)
        })
    }
}

/// What a node of a core goes by.
pub(super) struct Known {
    pub(super) term: u64,
    pub(super) leader: Option<usize>,
    pub(super) image: Arc<Image>,
}

/// See [`Watcher::what_a_core_lacks`]. `core` is its nodes, and what each of them knows (`None`: it does not serve).
pub(super) fn what_is_lacked(
    names: &[String],
    core: &[(usize, Option<Known>)],
    partitions: &[&str],
    columns: impl Fn(&str, &Partition) -> String,
) -> Option<String> {
    let mut terms = Vec::new();
    for (node, known) in core {
        let name = &names[*node];
        let Some(known) = known else {
            return Some(format!("{name} does not serve"));
        };
        terms.push((name, known.term, known.leader));
    }
    let is_of_it = |node: &usize| core.iter().any(|(member, _)| member == node);
    let leader = terms
        .iter()
        .max_by_key(|(_, term, leader)| (*term, leader.is_some()));
    let leads = leader.and_then(|(_, _, leader)| *leader);
    if !leads.is_some_and(|leads| is_of_it(&leads)) || terms.iter().any(|(.., leader)| *leader != leads) {
        let taken: Vec<_> = terms
            .iter()
            .map(|(name, term, leader)| {
                let leader = leader.map_or("nobody", |leader| &names[leader]);
                format!("{name} takes {leader} for the controller of term {term}")
            })
            .collect();
        return Some(taken.join(", "));
    }
    let images = core.iter().filter_map(|(_, known)| Some(&known.as_ref()?.image));
    let image = images.max_by_key(|image| image.index())?;
    partitions.iter().find_map(|name| {
        let partition = partition_of(image, name)?;
        let out_of_place = |why: String| Some(format!("{why}: {}", columns(name, &partition)));
        let leader = partition.leader.and_then(place_of).filter(is_of_it);
        let Some(leader) = leader else {
            return out_of_place(format!("nobody of the core leads {name}"));
        };
        let mut replicas = partition.replicas.iter().filter_map(|id| place_of(*id));
        let lagging = replicas
            .find(|node| is_of_it(node) && !partition.isr.iter().any(|id| place_of(*id) == Some(*node)));
        if let Some(lagging) = lagging {
            let (who, leader) = (&names[lagging], &names[leader]);
            return out_of_place(format!("{who} is not in sync with {leader}, which leads {name}"));
        }
        let mut members = partition.isr.iter().filter_map(|id| place_of(*id));
        let stranger = members.find(|node| !is_of_it(node));
        let stranger = stranger.map(|node| format!("{} is gone, and still in sync for {name}", names[node]));
        stranger.and_then(out_of_place)
    })
}

/// A core that could go on by itself does. `stuck` is what it lacks, `beyond` why nobody may ask it to.
pub(crate) fn check_core(core: &[String], stuck: &str, beyond: Option<&str>) -> Found {
    if beyond.is_some() {
        return Found::new();
    }
    let core = core.join(" and ");
    vec![("core-does-not-serve", format!("{core}, {stuck}"))]
}
