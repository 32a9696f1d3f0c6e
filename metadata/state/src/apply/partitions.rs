//! The commands about partitions: leaders, in-sync sets, reassignments (KIP-455, 841, 903, 966).

use std::sync::Arc;

use skerry_types::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, is_planted};

use super::Change;
use super::rules::{Copy, Rules};
use super::topics::check_replicas;
use crate::REPLICAS_OFFLINE_LEVEL;
use crate::command::{
    AlterReassignment, ChangePartition, ElectLeader, Election, ReplicaLost, ReplicaOffline,
};
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

    /// Nobody leads and nobody is in sync; who was is complete still, and leads once its broker is back with the same disk.
    /// With `epochs_left`: whoever led, or changed anything, in an epoch that this log does not know has nothing to say any
    /// more, and nobody leads in it again.
    pub(super) fn begin_anew(&mut self, epochs_left: bool) {
        let left = if epochs_left { crate::RECOVERY_EPOCHS } else { 0 };
        let all = |_: &Partition| true;
        self.rework(all, |_, partition| {
            let complete = |one: &BrokerId| partition.isr.contains(one) || partition.elr.contains(one);
            partition.elr = partition.replicas.iter().copied().filter(complete).collect();
            partition.isr.clear();
            partition.leader = None;
            partition.leader_epoch = LeaderEpoch(partition.leader_epoch.get().saturating_add(left));
            partition.partition_epoch = PartitionEpoch(partition.partition_epoch.get().saturating_add(left));
        });
    }

    /// Goes over the partitions of one topic, or of all, after `min.insync.replicas` or the kind of election changed.
    pub(super) fn follow_config(&mut self, topic: Option<&Arc<str>>) {
        let concerned = |partition: &Partition| partition.leader.is_none() || !partition.elr.is_empty();
        let settle = |rules: &Rules<'_>, partition: &mut Partition| rules.settle(partition);
        match topic {
            Some(name) => {
                let topic = Arc::clone(self.image.topic(name).expect("it was configured"));
                self.rework_topic(&topic, concerned, settle);
            }
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
            let registered = if is_planted("rebooted-broker-joins") {
                self.image.brokers.get(&member.broker)
            } else {
                self.guarded(*member).ok()
            };
            let able = registered
                .is_some_and(|broker| broker.is_active() || (!broker.fenced && was_in_sync(&member.broker)));
            if !able || partition.offline.contains(&member.broker) {
                return Err(Refusal::IneligibleReplica(member.broker));
            }
        }
        let wanted = request.isr.iter().map(|member| member.broker).collect();
        let name = Arc::clone(&topic.name);
        Ok(self.rework_one(&name, request.partition, |rules, partition| {
            rules.settle_for_leader(partition, wanted);
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
            Election::Unclean
                if partition
                    .leader
                    .is_some_and(|leader| !partition.offline.contains(&leader)) =>
            {
                return Err(Refusal::ElectionNotNeeded);
            }
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
                Election::Unclean if is_planted("person-chooses-in-vain") => {}
                Election::Unclean => rules.elect_unclean(partition, true),
            }
        }))
    }

    pub(super) fn replica_lost(&mut self, request: &ReplicaLost) -> Result<Outcome, Refusal> {
        self.guarded(request.replica)?;
        let broker = request.replica.broker;
        let (topic, partition) = self.find(request.topic, request.partition)?;
        let counting = || partition.isr.iter().chain(&partition.elr);
        // Of two copies that cannot be opened nobody knows which one could be saved: neither is thrown away.
        let is_no_help = |member: &BrokerId| *member == broker || partition.offline.contains(member);
        if counting().any(|&member| member == broker) && counting().all(is_no_help) {
            return Err(Refusal::LastReplica(broker));
        }
        let name = Arc::clone(&topic.name);
        Ok(self.rework_one(&name, request.partition, |rules, partition| {
            partition.offline.retain(|one| *one != broker);
            rules.leave(partition, broker, Copy::Lost);
            // What the broker reported of its copy before must not count any more, not even where it was not in sync
            // and a proposal that adds it is under way: the leader begins anew, and so does everybody who follows it.
            if partition.leader.is_some() {
                partition.leader_epoch = next(partition.leader_epoch);
            }
        }))
    }

    pub(super) fn replica_offline(&mut self, request: &ReplicaOffline) -> Result<Outcome, Refusal> {
        self.guarded(request.replica)?;
        let broker = request.replica.broker;
        let level = self.image.feature_level;
        if level < REPLICAS_OFFLINE_LEVEL {
            return Err(Refusal::FeatureLevelTooLow {
                current: level,
                needed: REPLICAS_OFFLINE_LEVEL,
            });
        }
        let (topic, partition) = self.find(request.topic, request.partition)?;
        if !partition.replicas.contains(&broker) {
            return Err(Refusal::IneligibleReplica(broker));
        }
        let name = Arc::clone(&topic.name);
        Ok(self.rework_one(&name, request.partition, |rules, partition| {
            if partition.offline.contains(&broker) == request.is_offline {
                return;
            }
            let was = std::mem::take(&mut partition.offline);
            let is_offline = |one: &BrokerId| match *one == broker {
                true => request.is_offline,
                false => was.contains(one),
            };
            partition.offline = partition.replicas.iter().copied().filter(is_offline).collect();
            if request.is_offline {
                rules.leave(partition, broker, Copy::Kept);
            } else {
                rules.settle(partition);
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
        Ok(self.put_one(&name, request.partition, after))
    }

    /// Reworks every partition that `wanted` picks. Topics without one are not copied.
    fn rework(&mut self, wanted: impl Fn(&Partition) -> bool, work: impl Fn(&Rules<'_>, &mut Partition)) {
        let concerned = |topic: &&Arc<Topic>| topic.partitions.iter().any(|partition| wanted(partition));
        let topics: Vec<Arc<Topic>> = self.image.topics().filter(concerned).cloned().collect();
        for topic in topics {
            self.rework_topic(&topic, &wanted, &work);
        }
    }

    fn rework_topic(
        &mut self,
        topic: &Topic,
        wanted: impl Fn(&Partition) -> bool,
        work: impl Fn(&Rules<'_>, &mut Partition),
    ) {
        let rules = Rules::of(self.image, topic);
        let picked = topic
            .partitions
            .iter()
            .enumerate()
            .filter(|(_, partition)| wanted(partition));
        let reworked = picked.map(|(place, partition)| {
            let mut after = Partition::clone(partition);
            work(&rules, &mut after);
            (place, after)
        });
        let reworked = reworked.collect();
        self.put(&topic.name, reworked);
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
        self.put_one(name, index, after)
    }

    fn put_one(&mut self, name: &Arc<str>, index: PartitionIndex, after: Partition) -> Outcome {
        let place = usize::try_from(index.get()).expect("the caller found it");
        self.put(name, vec![(place, after)]);
        let topic = self.image.topic(name).expect("it was there before");
        let Partition {
            leader_epoch,
            partition_epoch,
            ..
        } = *topic.partitions[place];
        Outcome::PartitionChanged {
            leader_epoch,
            partition_epoch,
        }
    }

    /// Puts partitions of one topic in their places; counts each that is another now in its epochs, and tells of it.
    fn put(&mut self, name: &Arc<str>, mut partitions: Vec<(usize, Partition)>) {
        let topic = self.image.topics.get_mut(name).expect("the caller found it");
        for (_, after) in &mut partitions {
            // Nobody asks what became of a copy that is wanted no more.
            let replicas = &after.replicas;
            after.offline.retain(|one| replicas.contains(one));
        }
        partitions.retain(|(place, after)| *after != *topic.partitions[*place]);
        if partitions.is_empty() {
            return;
        }
        let topic = Arc::make_mut(topic);
        for (place, mut after) in partitions {
            count_change(&topic.partitions[place], &mut after);
            topic.partitions[place] = Arc::new(after);
            self.deltas.push(Delta::PartitionChanged {
                topic: topic.id,
                name: Arc::clone(name),
                partition: PartitionIndex(i32::try_from(place).expect("at most 10,000")),
            });
        }
    }
}

/// Counts a change in the partition's epochs.
///
/// A partition that loses its last leader keeps the leader epoch: nobody leads in it again, and the next leader starts
/// another one. Where a replica leaves, the leader begins anew too, as in Kafka: if the replica comes back, nothing
/// that its former copy reported counts.
fn count_change(before: &Partition, after: &mut Partition) {
    let next_epoch = PartitionEpoch(before.partition_epoch.get() + 1);
    after.partition_epoch = after.partition_epoch.max(next_epoch);
    let left = || before.replicas.iter().any(|one| !after.replicas.contains(one));
    let begins = after.leader.is_some() && (after.leader != before.leader || left());
    if begins && after.leader_epoch == before.leader_epoch {
        after.leader_epoch = next(before.leader_epoch);
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
