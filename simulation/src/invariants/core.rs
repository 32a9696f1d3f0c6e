//! What a core of the cluster must have when only it was healed.

use std::sync::Arc;

use skerry::broker::Broker;
use skerry_metadata_state::Image;

use super::{COMPACTED, Watcher, partition_of, place_of};
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
        let mut newest: Option<Arc<Image>> = None;
        let mut terms = Vec::new();
        for node in core {
            let name = &self.names[*node];
            let Some(broker) = &brokers[*node] else {
                return Some(format!("{name} does not serve"));
            };
            let leadership = broker.quorum().leadership();
            terms.push((name, leadership.term, leadership.leader.and_then(place_of)));
            let image = broker.quorum().image();
            if newest
                .as_ref()
                .is_none_or(|newest| newest.index() < image.index())
            {
                newest = Some(image);
            }
        }
        let leader = terms
            .iter()
            .max_by_key(|(_, term, leader)| (*term, leader.is_some()));
        let leads = leader.and_then(|(_, _, leader)| *leader);
        if !leads.is_some_and(|leads| core.contains(&leads))
            || terms.iter().any(|(.., leader)| *leader != leads)
        {
            let taken: Vec<_> = terms
                .iter()
                .map(|(name, term, leader)| {
                    let leader = leader.map_or("nobody", |leader| &self.names[leader]);
                    format!("{name} takes {leader} for the controller of term {term}")
                })
                .collect();
            return Some(taken.join(", "));
        }
        let image = newest?;
        partitions.iter().find_map(|name| {
            let partition = partition_of(&image, name)?;
            let out_of_place =
                |why: String| Some(format!("{why}: {}", self.columns_of(name, &partition, brokers)));
            let Some(leader) = partition
                .leader
                .and_then(place_of)
                .filter(|leader| core.contains(leader))
            else {
                return out_of_place(format!("nobody of the core leads {name}"));
            };
            let replicas = partition.replicas.iter().filter_map(|id| place_of(*id));
            let lagging = replicas.clone().find(|node| {
                core.contains(node) && !partition.isr.iter().any(|id| place_of(*id) == Some(*node))
            });
            if let Some(lagging) = lagging {
                let (who, leader) = (&self.names[lagging], &self.names[leader]);
                return out_of_place(format!("{who} is not in sync with {leader}, which leads {name}"));
            }
            let stranger = partition
                .isr
                .iter()
                .filter_map(|id| place_of(*id))
                .find(|node| !core.contains(node));
            let stranger =
                stranger.map(|node| format!("{} is gone, and still in sync for {name}", self.names[node]));
            stranger.and_then(out_of_place)
        })
    }
}
