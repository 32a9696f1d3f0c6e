//! Becoming and no longer being the coordinator of these groups: the state is what the log says.

use std::sync::Arc;

use skerry_types::{ProducerId, TopicPartition};

use crate::api::{
    AppendFailure, Effect, FetchResponse, GroupError, GroupState, Now, RecordOrigin, ReplayError, Response,
    TransactionEnd,
};
use crate::append::{CommittedOffset, Then};
use crate::group::Group;
use crate::records::{DecodeError, GroupMetadataValue, OffsetCommitValue, RecordKey};
use crate::shard::{GroupShard, Phase};

impl GroupShard {
    /// From now on NOT_COORDINATOR becomes COORDINATOR_LOAD_IN_PROGRESS, and records may be replayed.
    ///
    /// # Panics
    /// If the shard is loaded already: unload it first.
    pub fn start_loading(&mut self) {
        assert_eq!(
            self.phase,
            Phase::Unloaded,
            "a shard is unloaded before it is loaded"
        );
        self.phase = Phase::Loading;
    }

    /// Takes in one record of the log, in log order, while loading. Records of other group types are skipped.
    ///
    /// # Errors
    /// A key or value that cannot be read; the shard stays as it was, and loading may go on.
    ///
    /// # Panics
    /// If the shard is not loading.
    pub fn replay(
        &mut self,
        origin: RecordOrigin,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), ReplayError> {
        assert_eq!(self.phase, Phase::Loading, "records are replayed while loading");
        let error = |group: Option<&Arc<str>>, error: DecodeError| ReplayError {
            offset: origin.offset,
            group: group.map(ToString::to_string),
            reason: error.to_string(),
        };
        match RecordKey::decode(key).map_err(|unreadable| error(None, unreadable))? {
            RecordKey::OffsetCommit { group, partition } => {
                let value = value.map(OffsetCommitValue::decode).transpose();
                let value = value.map_err(|unreadable| error(Some(&group), unreadable))?;
                self.replay_offset(origin, group, partition, value);
            }
            RecordKey::GroupMetadata { group } => {
                let value = value.map(GroupMetadataValue::decode).transpose();
                match value.map_err(|unreadable| error(Some(&group), unreadable))? {
                    Some(value) => {
                        let incarnation = self.new_incarnation();
                        let loaded = Group::from_record(group.clone(), incarnation, value);
                        self.forget_group(&group);
                        self.touched.insert(group.clone());
                        self.groups.insert(group, loaded);
                    }
                    None => {
                        self.forget_group(&group);
                    }
                }
            }
            RecordKey::Other(_) => {}
        }
        Ok(())
    }

    fn replay_offset(
        &mut self,
        origin: RecordOrigin,
        group: Arc<str>,
        partition: TopicPartition,
        value: Option<OffsetCommitValue>,
    ) {
        let Some(value) = value else {
            return self.remove_offset(&group, &partition);
        };
        let offset = CommittedOffset::from_record(value, origin.offset);
        let offsets = self.offsets.entry(group).or_default();
        match origin.transaction {
            None => offsets.put(partition, offset),
            Some(producer) => {
                offsets
                    .pending
                    .entry(producer)
                    .or_default()
                    .insert(partition, offset);
            }
        }
    }

    /// Takes in the end of a transaction, in log order, while loading.
    ///
    /// # Panics
    /// If the shard is not loading.
    pub fn replay_marker(&mut self, producer: ProducerId, end: TransactionEnd) {
        assert_eq!(self.phase, Phase::Loading, "markers are replayed while loading");
        self.end_transaction(producer, end == TransactionEnd::Commit);
    }

    /// Everything up to the high watermark was replayed: the sessions of the loaded members start, requests are served.
    ///
    /// # Panics
    /// If the shard is not loading.
    pub fn finish_loading(&mut self, now: Now) -> Vec<Effect> {
        assert_eq!(self.phase, Phase::Loading, "loading begins before it ends");
        self.cx.now = now;
        self.phase = Phase::Serving;
        let with_offsets: Vec<_> = self.offsets.keys().cloned().collect();
        for group_id in with_offsets {
            self.group_mut_or_new(&group_id).0.durable = true;
        }
        let loaded: Vec<_> = self.groups.keys().cloned().collect();
        for group_id in loaded {
            let Some((group, cx)) = self.group_mut(&group_id) else {
                continue;
            };
            for member_id in group.member_ids() {
                group.renew_session(cx, &member_id);
            }
            let max_size = usize::try_from(cx.settings.max_size).unwrap_or(0);
            if group.len() > max_size && group.is_in(GroupState::Stable) {
                group.prepare(cx, format!("loaded with more than {max_size} members"));
            }
        }
        self.schedule_expiry();
        self.finish_step()
    }

    /// This broker no longer leads the partition: everybody who waits hears NOT_COORDINATOR, and all is forgotten.
    pub fn unload(&mut self) -> Vec<Effect> {
        self.phase = Phase::Unloaded;
        for group in self.groups.values_mut() {
            for member_id in group.member_ids() {
                let parked = (
                    group.take_parked_join(&member_id),
                    group.take_parked_sync(&member_id),
                );
                group.refuse_parked(&mut self.cx, parked, &member_id, GroupError::NotCoordinator);
            }
        }
        for pending in self.cx.drop_appends().into_values() {
            if let Then::Reply(token, response) = pending.then {
                self.cx.reply(token, response.failed(AppendFailure::NotLeader));
            }
            for (token, request) in pending.fetches {
                let error = Some(GroupError::NotCoordinator);
                let response = FetchResponse {
                    group_id: request.group_id,
                    error,
                    topics: Vec::new(),
                };
                self.cx.reply(token, Response::Fetch(response));
            }
        }
        self.groups.clear();
        self.state_bytes = 0;
        self.offsets.clear();
        self.cx.timers.clear();
        self.touched.clear();
        assert!(
            self.cx.open_tokens().is_empty(),
            "still waiting: {:?}",
            self.cx.open_tokens()
        );
        self.finish_step()
    }
}
