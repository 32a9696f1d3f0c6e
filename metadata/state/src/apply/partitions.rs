//! Leaders and in-sync sets (KIP-841, 903, 966).

use std::sync::Arc;

use skerry_types::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex};

use super::Change;
use crate::command::{ChangePartition, ElectLeader, Election};
use crate::image::{Image, Partition, Topic};
use crate::outcome::{Delta, Outcome, Refusal};

impl Change<'_> {
    /// Takes a broker that has just been fenced out of every in-sync set, and lets others lead in its place.
    pub(super) fn leave_in_sync_sets(&mut self, broker: BrokerId) {
        self.rework(
            |partition| partition.isr.contains(&broker),
            |rules, partition| {
                let isr = partition
                    .isr
                    .iter()
                    .copied()
                    .filter(|&member| member != broker)
                    .collect();
                rules.set_isr(partition, isr);
                rules.elect(partition);
            },
        );
    }

    /// Elects where nobody leads and the broker, just unfenced, has a replica.
    pub(super) fn elect_where_nobody_leads(&mut self, broker: BrokerId) {
        self.rework(
            |partition| partition.leader.is_none() && partition.replicas.contains(&broker),
            |rules, partition| rules.elect(partition),
        );
    }

    pub(super) fn change_partition(&mut self, request: &ChangePartition) -> Result<Outcome, Refusal> {
        self.guarded(request.leader)?;
        let topic = self
            .image
            .topic_by_id(request.topic)
            .ok_or(Refusal::UnknownTopic)?;
        let partition = topic
            .partition(request.partition)
            .ok_or(Refusal::UnknownPartition)?;
        check_epochs(request, partition)?;
        for member in &request.isr {
            if !partition.replicas.contains(&member.broker) {
                return Err(Refusal::InvalidIsr(format!(
                    "broker {} has no replica",
                    member.broker
                )));
            }
        }
        if !request
            .isr
            .iter()
            .any(|member| member.broker == request.leader.broker)
        {
            return Err(Refusal::InvalidIsr(format!(
                "the leader {} is missing",
                request.leader.broker
            )));
        }
        for member in &request.isr {
            // A member that registered again has another epoch: what it had caught up with may be gone (KIP-903).
            let current = self.guarded(*member).is_ok();
            if !current || !self.image.is_unfenced(member.broker) {
                return Err(Refusal::IneligibleReplica(member.broker));
            }
        }
        let wanted = request.isr.iter().map(|member| member.broker).collect();
        let name = Arc::clone(&topic.name);
        self.rework_one(&name, request.partition, |rules, partition| {
            rules.set_isr(partition, wanted)
        });
        Ok(self.changed(&name, request.partition))
    }

    pub(super) fn elect_leader(&mut self, request: &ElectLeader) -> Result<Outcome, Refusal> {
        let topic = self
            .image
            .topic_by_id(request.topic)
            .ok_or(Refusal::UnknownTopic)?;
        let partition = topic
            .partition(request.partition)
            .ok_or(Refusal::UnknownPartition)?;
        let preferred = partition.replicas[0];
        match request.election {
            Election::Preferred if partition.leader == Some(preferred) => {
                return Err(Refusal::ElectionNotNeeded);
            }
            Election::Preferred if !partition.isr.contains(&preferred) => {
                return Err(Refusal::PreferredLeaderNotAvailable);
            }
            Election::Unclean if partition.leader.is_some() => return Err(Refusal::ElectionNotNeeded),
            Election::Unclean
                if !partition
                    .replicas
                    .iter()
                    .any(|&replica| self.image.is_unfenced(replica)) =>
            {
                return Err(Refusal::EligibleLeadersNotAvailable);
            }
            Election::Preferred | Election::Unclean => {}
        }
        let name = Arc::clone(&topic.name);
        self.rework_one(&name, request.partition, |rules, partition| {
            match request.election {
                Election::Preferred => partition.leader = Some(preferred),
                Election::Unclean => rules.elect_unclean(partition),
            }
        });
        Ok(self.changed(&name, request.partition))
    }

    fn changed(&self, name: &str, index: PartitionIndex) -> Outcome {
        let partition = self
            .image
            .topic(name)
            .and_then(|topic| topic.partition(index))
            .expect("it was there before");
        Outcome::PartitionChanged {
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
        }
    }

    /// Reworks every partition that `wanted` picks. Topics without one are not copied.
    fn rework(&mut self, wanted: impl Fn(&Partition) -> bool, work: impl Fn(&Rules<'_>, &mut Partition)) {
        let affected: Vec<Arc<str>> = self
            .image
            .topics()
            .filter(|topic| topic.partitions.iter().any(|partition| wanted(partition)))
            .map(|topic| Arc::clone(&topic.name))
            .collect();
        for name in affected {
            let indexes: Vec<PartitionIndex> = {
                let topic = self.image.topic(&name).expect("listed above");
                let numbered = topic.partitions.iter().zip(0_i32..);
                numbered
                    .filter(|(partition, _)| wanted(partition))
                    .map(|(_, index)| PartitionIndex(index))
                    .collect()
            };
            for index in indexes {
                self.rework_one(&name, index, &work);
            }
        }
    }

    /// Lets `work` change one partition, counts the change in its epochs and tells of it.
    fn rework_one(
        &mut self,
        name: &Arc<str>,
        index: PartitionIndex,
        work: impl FnOnce(&Rules<'_>, &mut Partition),
    ) {
        let topic = self.image.topic(name).expect("the caller found it");
        let before = topic.partition(index).expect("the caller found it");
        let rules = Rules::of(self.image, topic, before);
        let mut after = Partition::clone(before);
        work(&rules, &mut after);
        if after == **before {
            return;
        }
        after.partition_epoch = PartitionEpoch(before.partition_epoch.get() + 1);
        // A partition that loses its last leader keeps the epoch: nobody leads in it again, and the next leader
        // starts another one.
        if after.leader.is_some() && after.leader != before.leader {
            after.leader_epoch = LeaderEpoch(before.leader_epoch.get() + 1);
        }
        let id = topic.id;
        let topic = Arc::make_mut(self.image.topics.get_mut(name).expect("found above"));
        topic.partitions[usize::try_from(index.get()).expect("found above")] = Arc::new(after);
        self.deltas.push(Delta::PartitionChanged {
            topic: id,
            name: Arc::clone(name),
            partition: index,
        });
    }
}

fn check_epochs(request: &ChangePartition, partition: &Partition) -> Result<(), Refusal> {
    let Partition {
        leader_epoch,
        partition_epoch,
        ..
    } = *partition;
    if request.leader_epoch > leader_epoch || request.partition_epoch > partition_epoch {
        return Err(Refusal::NewerEpoch {
            leader_epoch,
            partition_epoch,
        });
    }
    if request.leader_epoch < leader_epoch {
        return Err(Refusal::FencedLeaderEpoch {
            current: leader_epoch,
            given: request.leader_epoch,
        });
    }
    if partition.leader != Some(request.leader.broker) {
        return Err(Refusal::NotLeader(request.leader.broker));
    }
    if request.partition_epoch != partition_epoch {
        return Err(Refusal::InvalidUpdateVersion {
            current: partition_epoch,
            given: request.partition_epoch,
        });
    }
    Ok(())
}

/// What decides about one partition.
struct Rules<'a> {
    image: &'a Image,
    min_isr: usize,
    unclean: bool,
}

impl<'a> Rules<'a> {
    fn of(image: &'a Image, topic: &Topic, partition: &Partition) -> Self {
        Self {
            image,
            min_isr: image.min_insync_replicas(topic, partition),
            unclean: topic
                .configs
                .get("unclean.leader.election.enable")
                .is_some_and(|value| &**value == "true"),
        }
    }

    /// Sets the in-sync set. Whoever leaves it while it is below `min.insync.replicas` stays eligible to lead: without
    /// a member nothing was acknowledged since (KIP-966).
    ///
    /// Deliberately absent: Kafka takes a broker that crashed out of the eligible ones, because its page cache may be
    /// lost. Here an acknowledged record was on its disk.
    fn set_isr(&self, partition: &mut Partition, isr: Vec<BrokerId>) {
        let in_order = |wanted: &dyn Fn(&BrokerId) -> bool| -> Vec<BrokerId> {
            partition
                .replicas
                .iter()
                .copied()
                .filter(|replica| wanted(replica))
                .collect()
        };
        let elr = if isr.len() < self.min_isr {
            in_order(&|replica| {
                !isr.contains(replica) && (partition.isr.contains(replica) || partition.elr.contains(replica))
            })
        } else {
            Vec::new()
        };
        partition.isr = in_order(&|replica| isr.contains(replica));
        partition.elr = elr;
    }

    /// Keeps the leader where it may lead, else takes the first replica that may.
    fn elect(&self, partition: &mut Partition) {
        if partition
            .leader
            .is_some_and(|leader| partition.isr.contains(&leader))
        {
            return;
        }
        let first = |among: &[BrokerId]| {
            partition
                .replicas
                .iter()
                .copied()
                .find(|replica| among.contains(replica) && self.image.is_unfenced(*replica))
        };
        partition.leader = first(&partition.isr);
        if partition.leader.is_some() {
            return;
        }
        if let Some(leader) = first(&partition.elr) {
            partition.elr.retain(|&member| member != leader);
            partition.isr = vec![leader];
            partition.leader = Some(leader);
        } else if self.unclean {
            self.elect_unclean(partition);
        }
    }

    /// Takes an eligible replica, else any that lives.
    fn elect_unclean(&self, partition: &mut Partition) {
        let alive = |replica: &&BrokerId| self.image.is_unfenced(**replica);
        let eligible = partition
            .replicas
            .iter()
            .filter(alive)
            .find(|replica| partition.elr.contains(replica));
        match eligible
            .or_else(|| partition.replicas.iter().find(alive))
            .copied()
        {
            Some(leader) if partition.elr.contains(&leader) => {
                partition.elr.retain(|&member| member != leader);
                partition.isr = vec![leader];
                partition.leader = Some(leader);
            }
            Some(leader) => {
                // What the others had and this one lacks is lost by this very decision: nobody else is eligible.
                partition.elr.clear();
                partition.isr = vec![leader];
                partition.leader = Some(leader);
            }
            None => {}
        }
    }
}
