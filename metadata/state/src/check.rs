//! The orders that always hold (DESIGN 9), checked after each command where it changed something, and as a whole
//! after a snapshot.

use std::sync::Arc;

use skerry_types::{BrokerId, PartitionIndex};

use crate::image::{Image, Partition, Topic};
use crate::outcome::Delta;

impl Image {
    /// Checks everything.
    ///
    /// # Errors
    /// What is broken, in words.
    pub fn check(&self) -> Result<(), String> {
        let mut partitions = 0;
        for (name, topic) in self.topics.iter() {
            self.check_topic(name, topic)?;
            partitions += topic.partitions.len();
        }
        if self.names.len() != self.topics.len() {
            return Err(format!(
                "{} ids for {} topics",
                self.names.len(),
                self.topics.len()
            ));
        }
        if partitions != self.partition_count {
            return Err(format!(
                "{partitions} partitions, counted as {}",
                self.partition_count
            ));
        }
        for broker in self.brokers.values() {
            if u64::try_from(broker.epoch.get()).is_ok_and(|epoch| epoch > self.index) {
                return Err(format!(
                    "broker {} has epoch {} at index {}",
                    broker.id, broker.epoch, self.index
                ));
            }
        }
        Ok(())
    }

    fn check_topic(&self, name: &Arc<str>, topic: &Topic) -> Result<(), String> {
        if topic.name != *name || self.names.get(&topic.id) != Some(name) {
            return Err(format!(
                "topic {name} is known as {} by its id {}",
                topic.name, topic.id
            ));
        }
        for (index, partition) in topic.partitions.iter().enumerate() {
            self.check_partition(topic, partition)
                .map_err(|reason| format!("{name}-{index}: {reason}: {partition:?}"))?;
        }
        Ok(())
    }

    fn check_partition(&self, topic: &Topic, partition: &Partition) -> Result<(), &'static str> {
        let Partition {
            replicas,
            adding,
            removing,
            isr,
            elr,
            offline,
            leader,
            ..
        } = partition;
        let distinct = |list: &[_]| list.iter().enumerate().all(|(at, one)| !list[..at].contains(one));
        let are_replicas = |list: &[_]| distinct(list) && list.iter().all(|member| replicas.contains(member));
        let able = |list: &[BrokerId]| list.iter().any(|&member| self.is_able(partition, member));
        let holds = [
            (
                !replicas.is_empty() && distinct(replicas),
                "no replicas, or one twice",
            ),
            (
                are_replicas(adding) && are_replicas(removing),
                "reassigned without a replica",
            ),
            (adding.len() < replicas.len(), "all replicas are added"),
            (removing.len() < replicas.len(), "all replicas are removed"),
            (are_replicas(isr), "in sync without a replica"),
            (
                isr.iter().all(|&member| self.is_unfenced(member)),
                "in sync and fenced",
            ),
            (
                isr.len() < 2 || isr.iter().all(|&member| self.is_active(member)),
                "in sync and draining, though others are",
            ),
            (
                leader.is_none_or(|leader| isr.contains(&leader)),
                "the leader is not in sync",
            ),
            (leader.is_some() || isr.is_empty(), "in sync with nobody"),
            (
                leader.is_some() || !(able(elr) || topic.elects_unclean() && able(replicas)),
                "nobody leads, though somebody could",
            ),
            (are_replicas(offline), "offline without a replica"),
            (
                // But for the one that a person has chosen, until it has opened what is left.
                isr.iter().all(|member| !offline.contains(member))
                    || (isr.len() == 1 && leader.as_ref() == isr.first()),
                "offline and in sync",
            ),
            (are_replicas(elr), "eligible without a replica"),
            (
                elr.iter().all(|member| !isr.contains(member)),
                "eligible and in sync",
            ),
            (
                elr.is_empty() || isr.len() < self.min_insync_replicas(topic, partition),
                "eligible, though enough are in sync",
            ),
        ];
        holds
            .iter()
            .find(|(held, _)| !held)
            .map_or(Ok(()), |&(_, reason)| Err(reason))
    }

    /// Checks what one command changed, and that epochs only grew.
    ///
    /// # Panics
    /// When an order is broken: a restart recovers from the log, a limping process does not.
    pub(crate) fn check_changes(&self, before: &Self, deltas: &[Delta]) {
        let mut changed: Option<ChangedTopic<'_>> = None;
        for delta in deltas {
            let broken = match delta {
                Delta::TopicCreated { name, .. } => self.topic(name).map_or_else(
                    || Err("missing".to_owned()),
                    |topic| self.check_topic(name, topic),
                ),
                Delta::PartitionChanged { name, partition, .. } => {
                    // The deltas of one topic follow one another.
                    let topic = match changed.take().filter(|last| Arc::ptr_eq(last.name, name)) {
                        Some(last) => last,
                        None => ChangedTopic {
                            name,
                            before: before.topic(name),
                            after: self.topic(name).expect("a changed partition has its topic"),
                        },
                    };
                    let checked = self.check_change(&topic, *partition);
                    changed = Some(topic);
                    checked
                }
                Delta::ClusterNamed(_)
                | Delta::BrokerChanged(_)
                | Delta::TopicDeleted { .. }
                | Delta::ConfigChanged(_)
                | Delta::FeatureLevelChanged(_)
                | Delta::Reset => Ok(()),
            };
            if let Err(reason) = broken {
                panic!("metadata at {}: {reason}", self.index);
            }
        }
    }

    fn check_change(&self, topic: &ChangedTopic<'_>, index: PartitionIndex) -> Result<(), String> {
        let after = topic.after.partition(index).expect("a changed partition exists");
        let before = topic.before.and_then(|topic| topic.partition(index));
        before
            .map_or(Ok(()), |before| check_growth(before, after))
            .and_then(|()| self.check_partition(topic.after, after))
            .map_err(|reason| format!("{}-{index}: {reason}: {after:?}", topic.name))
    }
}

/// A topic before and after a command.
struct ChangedTopic<'a> {
    name: &'a Arc<str>,
    before: Option<&'a Arc<Topic>>,
    after: &'a Arc<Topic>,
}

fn check_growth(before: &Partition, after: &Partition) -> Result<(), &'static str> {
    let led_anew = after.leader.is_some() && after.leader != before.leader;
    let holds = [
        (
            after.partition_epoch > before.partition_epoch,
            "the partition epoch did not grow",
        ),
        (after.leader_epoch >= before.leader_epoch, "the leader epoch fell"),
        (
            !led_anew || after.leader_epoch > before.leader_epoch,
            "a second leader in one leader epoch",
        ),
    ];
    holds
        .iter()
        .find(|(held, _)| !held)
        .map_or(Ok(()), |&(_, reason)| Err(reason))
}
