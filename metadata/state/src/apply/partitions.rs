//! The commands about partitions: leaders, in-sync sets, reassignments (KIP-455, 841, 903, 966).

use std::sync::Arc;

use skerry_types::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId};

use super::Change;
use super::rules::{Copy, Rules};
use super::topics::check_replicas;
use crate::command::{AlterReassignment, ChangePartition, ElectLeader, Election, ReplicaLost};
use crate::image::{Partition, Topic};
use crate::outcome::{Delta, Outcome, Refusal};

impl Change<'_> {
    /// Takes a broker out of every in-sync set, and lets others lead in its place.
    pub(super) fn leave_in_sync_sets(&mut self, broker: BrokerId, copy: Copy) {
        let counts = |partition: &Partition| {
            partition.isr.contains(&broker) || (copy != Copy::Kept && partition.elr.contains(&broker))
        };
        self.rework(counts, |rules, partition| rules.leave(partition, broker, copy));
    }

    /// Lets others lead in place of a broker that has just begun to leave, where they can.
    pub(super) fn relieve(&mut self, broker: BrokerId) {
        self.rework(
            |partition| partition.isr.contains(&broker),
            |rules, partition| rules.settle(partition),
        );
    }

    /// Elects where nobody leads and the broker, just unfenced, has a replica.
    pub(super) fn elect_where_nobody_leads(&mut self, broker: BrokerId) {
        self.rework(
            |partition| partition.leader.is_none() && partition.replicas.contains(&broker),
            |rules, partition| rules.settle(partition),
        );
    }

    /// Goes over the partitions of one topic, or of all, after `min.insync.replicas` or the kind of election changed.
    pub(super) fn follow_config(&mut self, topic: Option<&Arc<str>>) {
        let concerned = |partition: &Partition| partition.leader.is_none() || !partition.elr.is_empty();
        let settle = |rules: &Rules<'_>, partition: &mut Partition| rules.settle(partition);
        match topic {
            Some(name) => self.rework_topic(name, concerned, settle),
            None => self.rework(concerned, settle),
        }
    }

    fn find(&self, topic: TopicId, partition: PartitionIndex) -> Result<(&Topic, &Partition), Refusal> {
        let topic = self.image.topic_by_id(topic).ok_or(Refusal::UnknownTopic)?;
        let partition = topic.partition(partition).ok_or(Refusal::UnknownPartition)?;
        Ok((topic, partition))
    }

    pub(super) fn change_partition(&mut self, request: &ChangePartition) -> Result<Outcome, Refusal> {
        self.guarded(request.leader)?;
        let (topic, partition) = self.find(request.topic, request.partition)?;
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
        let was_in_sync = |member: &BrokerId| partition.isr.contains(member);
        for member in &request.isr {
            // A member that registered again has another epoch: what it had caught up with may be gone (KIP-903).
            // A draining one may stay while it leads, and not come (KIP-841).
            let able = self
                .guarded(*member)
                .is_ok_and(|broker| broker.is_active() || (!broker.fenced && was_in_sync(&member.broker)));
            if !able {
                return Err(Refusal::IneligibleReplica(member.broker));
            }
        }
        let wanted = request.isr.iter().map(|member| member.broker).collect();
        let name = Arc::clone(&topic.name);
        Ok(self.rework_one(&name, request.partition, |rules, partition| {
            rules.set_isr(partition, wanted);
            rules.settle(partition);
            // Counted even where nothing else changes: whatever this leader proposed before, and never heard of, is
            // refused from now on. Otherwise it would have to count members for ever that nobody may have added.
            partition.partition_epoch = PartitionEpoch(partition.partition_epoch.get() + 1);
        }))
    }

    pub(super) fn elect_leader(&mut self, request: &ElectLeader) -> Result<Outcome, Refusal> {
        let (topic, partition) = self.find(request.topic, request.partition)?;
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
                    .any(|&replica| self.image.is_active(replica)) =>
            {
                return Err(Refusal::EligibleLeadersNotAvailable);
            }
            Election::Preferred | Election::Unclean => {}
        }
        let name = Arc::clone(&topic.name);
        Ok(self.rework_one(&name, request.partition, |rules, partition| {
            match request.election {
                Election::Preferred => partition.leader = Some(preferred),
                Election::Unclean => rules.elect_unclean(partition),
            }
        }))
    }

    pub(super) fn replica_lost(&mut self, request: &ReplicaLost) -> Result<Outcome, Refusal> {
        self.guarded(request.replica)?;
        let broker = request.replica.broker;
        let (topic, partition) = self.find(request.topic, request.partition)?;
        let counting = || partition.isr.iter().chain(&partition.elr);
        if counting().any(|&member| member == broker) && counting().all(|&member| member == broker) {
            return Err(Refusal::LastReplica(broker));
        }
        let name = Arc::clone(&topic.name);
        Ok(self.rework_one(&name, request.partition, |rules, partition| {
            rules.leave(partition, broker, Copy::Lost);
            // What the broker reported of its copy before must not count any more, not even where it was not in sync
            // and a proposal that adds it is under way: the leader begins anew, and so does everybody who follows it.
            if partition.leader.is_some() {
                partition.leader_epoch = next(partition.leader_epoch);
            }
        }))
    }

    pub(super) fn alter_reassignment(&mut self, request: &AlterReassignment) -> Result<Outcome, Refusal> {
        let (topic, partition) = self.find(request.topic, request.partition)?;
        if let Some(target) = &request.target {
            check_replicas(self.image, target)?;
            let from = partition.target().count();
            if !request.may_change_factor && from != target.len() {
                return Err(Refusal::ReplicationFactorChanged {
                    from,
                    to: target.len(),
                });
            }
        }
        let rules = Rules::of(self.image, topic);
        let name = Arc::clone(&topic.name);
        let mut after = partition.clone();
        match &request.target {
            Some(target) => rules.reassign(&mut after, target),
            None => rules.cancel_reassignment(&mut after)?,
        }
        Ok(self.put(&name, request.partition, after))
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
            self.rework_topic(&name, &wanted, &work);
        }
    }

    fn rework_topic(
        &mut self,
        name: &Arc<str>,
        wanted: impl Fn(&Partition) -> bool,
        work: impl Fn(&Rules<'_>, &mut Partition),
    ) {
        let topic = self.image.topic(name).expect("the caller found it");
        let numbered = topic.partitions.iter().zip(0_i32..);
        let indexes: Vec<PartitionIndex> = numbered
            .filter(|(partition, _)| wanted(partition))
            .map(|(_, index)| PartitionIndex(index))
            .collect();
        for index in indexes {
            self.rework_one(name, index, &work);
        }
    }

    /// Lets `work` change one partition.
    fn rework_one(
        &mut self,
        name: &Arc<str>,
        index: PartitionIndex,
        work: impl FnOnce(&Rules<'_>, &mut Partition),
    ) -> Outcome {
        let topic = self.image.topic(name).expect("the caller found it");
        let mut after = Partition::clone(topic.partition(index).expect("the caller found it"));
        work(&Rules::of(self.image, topic), &mut after);
        self.put(name, index, after)
    }

    /// Puts a changed partition in its place, counts the change in its epochs and tells of it.
    fn put(&mut self, name: &Arc<str>, index: PartitionIndex, mut after: Partition) -> Outcome {
        let topic = self.image.topics.get_mut(name).expect("the caller found it");
        let place = usize::try_from(index.get()).expect("the caller found it");
        let before = &topic.partitions[place];
        if after != **before {
            after.partition_epoch = PartitionEpoch(before.partition_epoch.get() + 1);
            // A partition that loses its last leader keeps the epoch: nobody leads in it again, and the next leader
            // starts another one. Where a replica leaves, the leader begins anew too, as in Kafka: if the replica
            // comes back, nothing that its former copy reported counts.
            let left = before.replicas.iter().any(|one| !after.replicas.contains(one));
            if after.leader.is_some()
                && (after.leader != before.leader || left)
                && after.leader_epoch == before.leader_epoch
            {
                after.leader_epoch = next(before.leader_epoch);
            }
            self.deltas.push(Delta::PartitionChanged {
                topic: topic.id,
                name: Arc::clone(name),
                partition: index,
            });
            Arc::make_mut(topic).partitions[place] = Arc::new(after.clone());
        }
        Outcome::PartitionChanged {
            leader_epoch: after.leader_epoch,
            partition_epoch: after.partition_epoch,
        }
    }
}

fn next(epoch: LeaderEpoch) -> LeaderEpoch {
    LeaderEpoch(epoch.get() + 1)
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
