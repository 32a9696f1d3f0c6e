//! Topics come, grow, and go.

use std::sync::Arc;

use skerry_types::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId};

use super::Change;
use crate::command::{CreatePartitions, CreateTopic, Placement};
use crate::image::{Image, Partition, Topic};
use crate::outcome::{Delta, Outcome, Refusal};
use crate::{PARTITIONS_PER_TOPIC_MAX, TOPIC_NAME_BYTES_MAX, place};

impl Change<'_> {
    pub(super) fn create_topic(&mut self, request: &CreateTopic) -> Result<Outcome, Refusal> {
        if let Some(existing) = self.image.topic(&request.name) {
            if existing.id == request.id {
                return Ok(Outcome::TopicCreated { id: request.id });
            }
            return Err(Refusal::TopicExists(Arc::clone(&request.name)));
        }
        // An id names one topic for ever; a random one that is taken means a proposer that repeats itself.
        if let Some(taken) = self.image.names.get(&request.id) {
            return Err(Refusal::TopicExists(Arc::clone(taken)));
        }
        check_name(&request.name)?;
        let folded = folded(&request.name);
        if let Some(existing) = folded
            .as_deref()
            .and_then(|folded| self.image.folded_names.get(folded))
        {
            return Err(Refusal::TopicNameCollides {
                name: Arc::clone(&request.name),
                existing: Arc::clone(existing),
            });
        }
        let assignments = match &request.placement {
            Placement::Automatic {
                partitions,
                replication_factor,
            } => {
                let count = usize::try_from(*partitions)
                    .ok()
                    .filter(|&count| count > 0)
                    .ok_or_else(|| {
                        Refusal::InvalidPartitions(
                            "the number of partitions must be larger than 0".to_owned(),
                        )
                    })?;
                check_count(count)?;
                place::spread(self.image, request.id, 0..count, *replication_factor)?
            }
            Placement::Manual(assignments) => {
                check_count(assignments.len())?;
                check_assignments(self.image, assignments, assignments.first().map_or(0, Vec::len))?;
                assignments.clone()
            }
        };
        let name = Arc::clone(&request.name);
        let partitions: Vec<_> = assignments
            .into_iter()
            .map(|replicas| self.new_partition(replicas))
            .collect();
        self.image.partition_count += partitions.len();
        let topic = Topic {
            id: request.id,
            name: Arc::clone(&name),
            partitions,
            configs: Arc::new(request.configs.iter().cloned().collect()),
            created_at: request.at,
        };
        self.image.topics.insert(Arc::clone(&name), Arc::new(topic));
        self.image.names.insert(request.id, Arc::clone(&name));
        if let Some(folded) = folded {
            self.image.folded_names.insert(folded, Arc::clone(&name));
        }
        self.deltas.push(Delta::TopicCreated { id: request.id, name });
        Ok(Outcome::TopicCreated { id: request.id })
    }

    pub(super) fn delete_topic(&mut self, id: TopicId) -> Result<Outcome, Refusal> {
        let name = self.image.names.remove(&id).ok_or(Refusal::UnknownTopic)?;
        let topic = self
            .image
            .topics
            .remove(&*name)
            .expect("names and topics go together");
        if let Some(folded) = folded(&name) {
            self.image.folded_names.remove(&*folded);
        }
        self.image.partition_count -= topic.partitions.len();
        self.deltas.push(Delta::TopicDeleted { id, name });
        Ok(Outcome::Done)
    }

    pub(super) fn create_partitions(&mut self, request: &CreatePartitions) -> Result<Outcome, Refusal> {
        let topic = self
            .image
            .topic_by_id(request.topic)
            .ok_or(Refusal::UnknownTopic)?;
        let (name, current) = (Arc::clone(&topic.name), topic.partitions.len());
        let factor = topic
            .partitions
            .first()
            .map_or(1, |partition| partition.target().count());
        let count = usize::try_from(request.count).unwrap_or(0);
        if count <= current {
            return Err(Refusal::InvalidPartitions(format!(
                "the topic {name} currently has {current} partition(s); {} would not be an increase",
                request.count
            )));
        }
        check_count(count)?;
        let assignments = match &request.assignments {
            None => place::spread(
                self.image,
                request.topic,
                current..count,
                i16::try_from(factor).unwrap_or(i16::MAX),
            )?,
            Some(assignments) if assignments.len() != count - current => {
                return Err(Refusal::InvalidReplicaAssignment(format!(
                    "{} partition(s) are added, {} assignment(s) were given",
                    count - current,
                    assignments.len()
                )));
            }
            Some(assignments) => {
                check_assignments(self.image, assignments, factor)?;
                assignments.clone()
            }
        };
        let added: Vec<_> = assignments
            .into_iter()
            .map(|replicas| self.new_partition(replicas))
            .collect();
        self.image.partition_count += added.len();
        let topic = Arc::make_mut(self.image.topics.get_mut(&name).expect("found above"));
        topic.partitions.extend(added);
        for index in current..count {
            let partition = PartitionIndex(i32::try_from(index).expect("within the limit"));
            self.deltas.push(Delta::PartitionChanged {
                topic: request.topic,
                name: Arc::clone(&name),
                partition,
            });
        }
        Ok(Outcome::Done)
    }

    /// A partition that is led by the first of its replicas that takes part. At least one does.
    fn new_partition(&self, replicas: Vec<BrokerId>) -> Arc<Partition> {
        let isr: Vec<BrokerId> = replicas
            .iter()
            .copied()
            .filter(|&replica| self.image.is_active(replica))
            .collect();
        Arc::new(Partition {
            leader: isr.first().copied(),
            isr,
            elr: Vec::new(),
            offline: Vec::new(),
            adding: Vec::new(),
            removing: Vec::new(),
            replicas,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
        })
    }
}

fn check_name(name: &Arc<str>) -> Result<(), Refusal> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let lawful = !name.is_empty() && name.len() <= TOPIC_NAME_BYTES_MAX && name.bytes().all(legal);
    if lawful && !matches!(&**name, "." | "..") {
        Ok(())
    } else {
        Err(Refusal::InvalidTopicName(Arc::clone(name)))
    }
}

/// The name as metrics would write it, for names that need it.
pub(crate) fn folded(name: &str) -> Option<Arc<str>> {
    name.contains(['.', '_']).then(|| name.replace('.', "_").into())
}

fn check_count(count: usize) -> Result<(), Refusal> {
    if count > PARTITIONS_PER_TOPIC_MAX {
        Err(Refusal::TooManyPartitions(count))
    } else {
        Ok(())
    }
}

/// The checks and the words of Kafka's `validateManualPartitionAssignment`, for one partition.
pub(super) fn check_replicas(image: &Image, replicas: &[BrokerId]) -> Result<(), Refusal> {
    let refuse = |reason: String| Err(Refusal::InvalidReplicaAssignment(reason));
    if replicas.is_empty() {
        return refuse("the manual partition assignment includes an empty replica list".to_owned());
    }
    for (position, replica) in replicas.iter().enumerate() {
        if replicas[..position].contains(replica) {
            return refuse(format!(
                "the manual partition assignment includes the broker {replica} more than once"
            ));
        }
        if image.broker(*replica).is_none() {
            return refuse(format!(
                "the manual partition assignment includes broker {replica}, but no such broker is registered"
            ));
        }
    }
    Ok(())
}

/// The checks and the words of Kafka for the assignments of new partitions.
fn check_assignments(image: &Image, assignments: &[Vec<BrokerId>], factor: usize) -> Result<(), Refusal> {
    let refuse = |reason: String| Err(Refusal::InvalidReplicaAssignment(reason));
    if assignments.is_empty() {
        return refuse("the manual partition assignment is empty".to_owned());
    }
    for (index, replicas) in assignments.iter().enumerate() {
        check_replicas(image, replicas)?;
        if replicas.len() != factor {
            return refuse(format!(
                "the manual partition assignment includes a partition with {} replica(s), but this is not consistent \
                 with previous partitions, which have {factor} replica(s)",
                replicas.len()
            ));
        }
        if !replicas.iter().any(|&replica| image.is_active(replica)) {
            return refuse(format!(
                "all brokers specified in the manual partition assignment for partition {index} are fenced or in \
                 controlled shutdown"
            ));
        }
    }
    Ok(())
}
