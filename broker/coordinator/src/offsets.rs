//! OffsetCommit (2 to 10), OffsetFetch (1 to 10), OffsetDelete (0), and the ends of offsets: age and deleted topics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skerry_types::{
    LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicPartition, WallMs, is_planted, reached,
};

use crate::api::{
    CommitPartition, CommitRequest, CommitResponse, Effect, FetchPartition, FetchRequest, FetchResponse,
    FetchTopic, GroupError, GroupEventKind, GroupState, Now, OffsetDeleteRequest, OffsetDeleteResponse,
    ReplyToken, Response, TopicErrors,
};
use crate::append::{Change, CommittedOffset, Then};
use crate::group::Group;
use crate::records::{OffsetCommitValue, STRING_BYTES_MAX};
use crate::shard::{GROUPS_MAX, GroupShard, Phase};
use crate::timers::TimerKey;

/// The durable offsets of one group. Bounded by the partitions of the cluster: the shell lets none be committed that
/// does not exist, and deleted topics take theirs along.
#[derive(Debug, Default)]
pub(crate) struct GroupOffsets {
    pub(crate) committed: BTreeMap<TopicPartition, CommittedOffset>,
    /// Written by transactions that have not ended, as far as the log tells.
    pub(crate) pending: BTreeMap<ProducerId, BTreeMap<TopicPartition, CommittedOffset>>,
}

impl GroupOffsets {
    pub(crate) fn put(&mut self, partition: TopicPartition, offset: CommittedOffset) {
        self.committed.insert(partition, offset);
    }

    fn remove(&mut self, partition: &TopicPartition) {
        self.committed.remove(partition);
        for offsets in self.pending.values_mut() {
            offsets.remove(partition);
        }
        self.pending.retain(|_, offsets| !offsets.is_empty());
    }

    pub(crate) fn is_unstable(&self, partition: &TopicPartition) -> bool {
        self.pending
            .values()
            .any(|offsets| offsets.contains_key(partition))
    }

    fn is_empty(&self) -> bool {
        self.committed.is_empty() && self.pending.is_empty()
    }

    /// Every partition with an offset, ended transaction or not.
    pub(crate) fn partitions(&self) -> BTreeSet<&TopicPartition> {
        self.committed
            .keys()
            .chain(self.pending.values().flat_map(BTreeMap::keys))
            .collect()
    }
}

impl CommitResponse {
    pub(crate) fn refused(request: &CommitRequest, error: GroupError) -> Self {
        let topics = request.topics.iter().map(|topic| TopicErrors {
            name: topic.name.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|partition| (partition.partition, Some(error)))
                .collect(),
        });
        Self {
            topics: topics.collect(),
        }
    }

    pub(crate) fn set_all(&mut self, error: GroupError) {
        for (_, slot) in self.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            *slot = Some(error);
        }
    }
}

impl Group {
    fn validate_commit(&self, request: &CommitRequest) -> Result<(), GroupError> {
        let instance_id = request.group_instance_id.as_deref();
        if request.generation_id < 0 && self.is_in(GroupState::Empty) {
            // An administrator, or a consumer that assigns itself.
            return Ok(());
        }
        if request.generation_id < 0 && request.member_id.is_empty() && instance_id.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        self.validate_member(&request.member_id, instance_id)?;
        if request.generation_id != self.generation && !is_planted("commit-from-old-generation") {
            reached("commit-of-an-earlier-generation");
            return Err(GroupError::IllegalGeneration);
        }
        // It knows the new generation and has not synced: it may no longer own what it commits. Nor did anybody where the
        // next rebalance began before the assignment, though Kafka takes its commits then.
        let is_unassigned = self.is_in(GroupState::CompletingRebalance)
            || self.is_in(GroupState::PreparingRebalance)
                && self.previous_state == GroupState::CompletingRebalance;
        if is_unassigned {
            reached("commit-between-generations");
            return Err(GroupError::RebalanceInProgress);
        }
        Ok(())
    }

    fn validate_offset_delete(&self) -> Result<(), GroupError> {
        match self.state {
            GroupState::Empty => Ok(()),
            GroupState::Dead => Err(GroupError::GroupIdNotFound),
            GroupState::Stable | GroupState::PreparingRebalance | GroupState::CompletingRebalance => {
                if self.is_consumer_group() {
                    Ok(())
                } else {
                    Err(GroupError::NonEmptyGroup)
                }
            }
        }
    }

    /// Since when an offset counts as unused; None: it is in use (KIP-211).
    fn unused_since(&self, topic: &str, offset: &CommittedOffset) -> Option<WallMs> {
        if self.is_subscribed_to(topic) {
            return None;
        }
        match (&self.protocol_type, self.state) {
            // Somebody who assigns itself: nothing but its commits shows that it lives.
            (None, _) => Some(offset.commit_timestamp),
            (Some(_), GroupState::Empty) => Some(self.state_since.unwrap_or(offset.commit_timestamp)),
            (Some(_), GroupState::Stable) if self.subscribed_topics.is_some() => {
                Some(offset.commit_timestamp)
            }
            (Some(_), _) => None,
        }
    }
}

impl GroupShard {
    pub(crate) fn commit(&mut self, token: ReplyToken, request: CommitRequest) {
        let verdict = match self.groups.get(&request.group_id) {
            Some(group) => group.validate_commit(&request),
            None if request.generation_id >= 0 && request.version >= 9 => Err(GroupError::GroupIdNotFound),
            None if request.generation_id >= 0 => Err(GroupError::IllegalGeneration),
            None if self.groups.len() >= GROUPS_MAX || self.cx.full => {
                Err(GroupError::CoordinatorNotAvailable)
            }
            None => Ok(()),
        };
        if let Err(error) = verdict {
            return self
                .cx
                .reply(token, Response::Commit(CommitResponse::refused(&request, error)));
        }
        if let Some(group) = self.groups.get(&request.group_id)
            && matches!(group.state, GroupState::Stable | GroupState::PreparingRebalance)
        {
            group.renew_session(&mut self.cx, &request.member_id);
        }
        let (changes, response) = self.commit_changes(request);
        let response = Response::Commit(response);
        if changes.is_empty() {
            return self.cx.reply(token, response);
        }
        if is_planted("commit-acked-before-append") {
            self.cx.reply(token, response);
            self.cx.append(changes, Then::Nothing);
        } else {
            self.cx.append(changes, Then::Reply(token, response));
        }
    }

    fn commit_changes(&self, request: CommitRequest) -> (Vec<Change>, CommitResponse) {
        let now = self.cx.now.wall;
        let expire_timestamp = match request.retention_time_ms {
            -1 => None,
            retention_ms => Some(WallMs(now.get().saturating_add(retention_ms))),
        };
        let mut changes = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len().min(1_024));
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len().min(1_024));
            for CommitPartition {
                partition,
                offset,
                leader_epoch,
                metadata,
            } in topic.partitions
            {
                let metadata = metadata.unwrap_or_default();
                if let Err(error) = self.validate_metadata(&topic.name, &metadata) {
                    partitions.push((partition, Some(error)));
                    continue;
                }
                partitions.push((partition, None));
                changes.push(Change::PutOffset {
                    group: request.group_id.clone(),
                    partition: TopicPartition {
                        topic: topic.name.clone(),
                        partition,
                    },
                    value: OffsetCommitValue {
                        offset,
                        leader_epoch: if leader_epoch.get() < 0 {
                            LeaderEpoch::UNKNOWN
                        } else {
                            leader_epoch
                        },
                        metadata,
                        commit_timestamp: now,
                        expire_timestamp,
                        topic_id: topic.id,
                    },
                });
            }
            topics.push(TopicErrors {
                name: topic.name,
                partitions,
            });
        }
        (changes, CommitResponse { topics })
    }

    fn validate_metadata(&self, topic: &str, metadata: &str) -> Result<(), GroupError> {
        // Kafka calls its setting bytes and counts the units of UTF-16. No record carries more than 32,767 bytes.
        let max = usize::try_from(self.cx.settings.offset_metadata_max_bytes).unwrap_or(0);
        let units = metadata.encode_utf16().count();
        if units > max || metadata.len() > STRING_BYTES_MAX {
            return Err(GroupError::OffsetMetadataTooLarge);
        }
        if topic.len() > STRING_BYTES_MAX {
            Err(GroupError::InvalidCommitOffsetSize)
        } else {
            Ok(())
        }
    }

    pub(crate) fn fetch(&mut self, token: ReplyToken, request: FetchRequest) {
        if !request.require_stable {
            return self.answer_fetch(token, &request);
        }
        // What is being written may be what the previous owner committed last: the answer waits for it, once.
        if let Err(request) = self.cx.park_fetch(token, request) {
            self.answer_fetch(token, &request);
        }
    }

    pub(crate) fn answer_fetch(&mut self, token: ReplyToken, request: &FetchRequest) {
        let none = GroupOffsets::default();
        let offsets = self.offsets.get(&request.group_id).unwrap_or(&none);
        let topics = match &request.topics {
            Some(topics) => named_offsets(offsets, request.require_stable, topics),
            None => all_offsets(offsets, request.require_stable),
        };
        let response = FetchResponse {
            group_id: request.group_id.clone(),
            error: None,
            topics,
        };
        self.cx.reply(token, Response::Fetch(response));
    }

    pub(crate) fn offset_delete(&mut self, token: ReplyToken, request: OffsetDeleteRequest) {
        let verdict = match self.groups.get(&request.group_id) {
            Some(group) => group.validate_offset_delete().map(|()| group),
            None => Err(GroupError::GroupIdNotFound),
        };
        let group = match verdict {
            Ok(group) => group,
            Err(error) => {
                let response = OffsetDeleteResponse {
                    error: Some(error),
                    topics: Vec::new(),
                };
                return self.cx.reply(token, Response::OffsetDelete(response));
            }
        };
        let mut changes = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len().min(1_024));
        for (name, partitions) in request.topics {
            let error = Some(GroupError::GroupSubscribedToTopic).filter(|_| group.is_subscribed_to(&name));
            for partition in partitions.iter().filter(|_| error.is_none()) {
                let partition = TopicPartition {
                    topic: name.clone(),
                    partition: *partition,
                };
                if self.may_have_offset(&request.group_id, &partition) {
                    changes.push(Change::RemoveOffset {
                        group: request.group_id.clone(),
                        partition,
                    });
                }
            }
            let partitions = partitions
                .into_iter()
                .map(|partition| (partition, error))
                .collect();
            topics.push(TopicErrors { name, partitions });
        }
        let response = Response::OffsetDelete(OffsetDeleteResponse { error: None, topics });
        if changes.is_empty() {
            self.cx.reply(token, response);
        } else {
            self.cx.append_in_chunks(changes, token, response);
        }
    }

    /// Is there an offset, or will there be one when what is being written is durable?
    fn may_have_offset(&self, group_id: &Arc<str>, partition: &TopicPartition) -> bool {
        let durable = self.offsets.get(group_id).is_some_and(|offsets| {
            offsets.committed.contains_key(partition) || offsets.is_unstable(partition)
        });
        durable
            || self
                .cx
                .in_flight(group_id)
                .is_some_and(|entry| entry.offsets.contains_key(partition))
    }

    /// Tombstones for everything that a group has or is writing, as far as `wanted` says so.
    pub(crate) fn removals(
        &self,
        group_id: &Arc<str>,
        wanted: impl Fn(&TopicPartition) -> bool,
    ) -> Vec<Change> {
        let mut partitions = BTreeSet::new();
        if let Some(offsets) = self.offsets.get(group_id) {
            partitions.extend(offsets.partitions());
        }
        if let Some(entry) = self.cx.in_flight(group_id) {
            partitions.extend(entry.offsets.keys());
        }
        let wanted = partitions.into_iter().filter(|partition| wanted(partition));
        let removal = |partition: &TopicPartition| Change::RemoveOffset {
            group: group_id.clone(),
            partition: partition.clone(),
        };
        wanted.map(removal).collect()
    }

    /// The topics that some group has offsets of, by name. After loading, the shell gives those that do not exist any
    /// more to [`GroupShard::on_topics_deleted`]: they were deleted while nobody served this partition.
    #[must_use]
    pub fn topics_with_offsets(&self) -> BTreeSet<Arc<str>> {
        let partitions = self.offsets.values().flat_map(GroupOffsets::partitions);
        partitions.map(|partition| partition.topic.clone()).collect()
    }

    /// These topics were deleted: their offsets go, in every group. Does nothing while the shard is not serving.
    pub fn on_topics_deleted(&mut self, topics: &BTreeSet<Arc<str>>, now: Now) -> Vec<Effect> {
        self.cx.now = now;
        if self.phase == Phase::Serving {
            let mut changes = Vec::new();
            let with_offsets = self.offsets.keys().chain(self.cx.groups_in_flight());
            for group_id in with_offsets.collect::<BTreeSet<_>>() {
                changes.extend(self.removals(group_id, |partition| topics.contains(&partition.topic)));
            }
            self.remove_silently(changes);
        }
        self.finish_step()
    }

    fn remove_silently(&mut self, changes: Vec<Change>) {
        let offsets = changes
            .iter()
            .filter(|change| matches!(change, Change::RemoveOffset { .. }))
            .count();
        if offsets > 0 {
            self.cx
                .event(&Arc::default(), GroupEventKind::OffsetsRemoved { offsets });
        }
        self.cx.append_silently(changes);
    }

    pub(crate) fn remove_offset(&mut self, group_id: &Arc<str>, partition: &TopicPartition) {
        if let Some(offsets) = self.offsets.get_mut(group_id) {
            offsets.remove(partition);
            if offsets.is_empty() {
                self.offsets.remove(group_id);
            }
        }
    }

    pub(crate) fn schedule_expiry(&mut self) {
        let every_ms =
            i32::try_from(self.cx.settings.offsets_retention_check_interval_ms).unwrap_or(i32::MAX);
        self.cx.schedule_ms(TimerKey::OffsetExpiry, every_ms.max(1));
    }

    /// Looks for offsets that nobody has used for `offsets.retention.minutes`, and for groups that have nothing left.
    pub(crate) fn expire_offsets(&mut self) {
        self.schedule_expiry();
        let mut changes = Vec::new();
        for group in self.groups.values() {
            // Something of it is being written: it is not unused, and the next look will see it.
            if self.cx.in_flight(&group.id).is_some() {
                continue;
            }
            let all_gone = self.expire_group(group, &mut changes);
            if all_gone && group.is_in(GroupState::Empty) && group.pending_joins.is_empty() {
                changes.push(Change::RemoveGroup {
                    group: group.id.clone(),
                });
            }
        }
        self.remove_silently(changes);
    }

    /// True if nothing of the group's offsets stays.
    fn expire_group(&self, group: &Group, changes: &mut Vec<Change>) -> bool {
        let Some(offsets) = self.offsets.get(&group.id) else {
            return true;
        };
        let now = self.cx.now.wall.get();
        let retention_ms = i64::from(self.cx.settings.offsets_retention_minutes) * 60_000;
        let mut all_gone = offsets.pending.is_empty();
        for (partition, offset) in &offsets.committed {
            let is_expired = group.unused_since(&partition.topic, offset).is_some_and(|since| {
                match offset.expire_timestamp {
                    Some(at) => now >= at.get(),
                    None => now.saturating_sub(since.get()) >= retention_ms,
                }
            });
            if is_expired && !offsets.is_unstable(partition) {
                let partition = partition.clone();
                changes.push(Change::RemoveOffset {
                    group: group.id.clone(),
                    partition,
                });
            } else {
                all_gone = false;
            }
        }
        all_gone
    }

    /// A transaction that wrote offsets has ended: they become visible, or vanish.
    pub(crate) fn end_transaction(&mut self, producer: ProducerId, commit: bool) {
        for offsets in self.offsets.values_mut() {
            let Some(ended) = offsets.pending.remove(&producer) else {
                continue;
            };
            for (partition, offset) in ended.into_iter().filter(|_| commit) {
                // The order of the log decides against a plain commit, not the order of the markers.
                let is_newest = offsets
                    .committed
                    .get(&partition)
                    .is_none_or(|known| known.record_offset < offset.record_offset);
                if is_newest {
                    offsets.put(partition, offset);
                }
            }
        }
        self.offsets.retain(|_, offsets| !offsets.is_empty());
    }
}

fn named_offsets(
    offsets: &GroupOffsets,
    stable: bool,
    topics: &[(Arc<str>, Vec<PartitionIndex>)],
) -> Vec<FetchTopic> {
    let topic_of = |(name, partitions): &(Arc<str>, Vec<PartitionIndex>)| {
        let mut wanted = TopicPartition {
            topic: name.clone(),
            partition: PartitionIndex(0),
        };
        let partitions = partitions.iter().map(|partition| {
            wanted.partition = *partition;
            fetched(offsets, stable, &wanted)
        });
        FetchTopic {
            name: name.clone(),
            partitions: partitions.collect(),
        }
    };
    topics.iter().map(topic_of).collect()
}

fn all_offsets(offsets: &GroupOffsets, stable: bool) -> Vec<FetchTopic> {
    let mut topics: Vec<FetchTopic> = Vec::new();
    for partition in offsets.committed.keys() {
        let found = fetched(offsets, stable, partition);
        match topics.last_mut() {
            Some(topic) if topic.name == partition.topic => topic.partitions.push(found),
            _ => topics.push(FetchTopic {
                name: partition.topic.clone(),
                partitions: vec![found],
            }),
        }
    }
    topics
}

fn fetched(offsets: &GroupOffsets, stable: bool, partition: &TopicPartition) -> FetchPartition {
    let nothing = |error| FetchPartition {
        partition: partition.partition,
        offset: Offset(-1),
        leader_epoch: LeaderEpoch::UNKNOWN,
        metadata: Arc::default(),
        error,
    };
    if stable && offsets.is_unstable(partition) {
        return nothing(Some(GroupError::UnstableOffsetCommit));
    }
    match offsets.committed.get(partition) {
        None => nothing(None),
        Some(found) => FetchPartition {
            partition: partition.partition,
            offset: found.offset,
            leader_epoch: found.leader_epoch,
            metadata: found.metadata.clone(),
            error: None,
        },
    }
}
