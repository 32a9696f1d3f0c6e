use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use skerry_types::{WallMs, is_planted};

use crate::api::{GroupError, GroupState, JoinMember, Protocol, ReplyToken};
use crate::records::{GroupMetadataValue, MemberMetadata};
use crate::subscription;

/// Members of one group that were given an id and have not joined with it (KIP-394). Kafka has no limit; ours lets
/// no client make the coordinator remember ids without end (a session timeout may be 30 minutes).
pub(crate) const PENDING_JOINS_MAX: usize = 10_000;
/// What the members of one group may say about their protocols, together. The record of a group must fit one batch
/// (1 MB by default), so that a group of this size could not be written anyway.
pub(crate) const GROUP_METADATA_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A group or a member without what its protocols say: about 600 bytes were measured, names of usual length included.
const GROUP_OR_MEMBER_BYTES: usize = 1024;

/// A member of a group.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// In order of preference; never empty, no name twice.
    pub(crate) protocols: Vec<Protocol>,
    pub(crate) assignment: Bytes,
    /// Its JoinGroup that waits.
    pub(crate) parked_join: Option<ReplyToken>,
    /// Its SyncGroup that waits.
    pub(crate) parked_sync: Option<ReplyToken>,
    /// It has not been in a generation yet, and does not know its member id unless KIP-394 told it.
    pub(crate) is_new: bool,
    /// Grows with every member: the longest-standing one becomes leader.
    pub(crate) joined: u64,
}

impl Member {
    pub(crate) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        self.protocols
            .iter()
            .find(|candidate| &*candidate.name == protocol)
            .map(|found| &found.metadata)
    }

    fn metadata_bytes(&self) -> usize {
        protocol_bytes(&self.protocols)
    }
}

pub(crate) fn protocol_bytes(protocols: &[Protocol]) -> usize {
    protocols
        .iter()
        .map(|protocol| protocol.name.len() + protocol.metadata.len())
        .sum()
}

/// How much longer the first rebalance of an empty group may still wait for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InitialDelay {
    pub(crate) delay_ms: i32,
    pub(crate) remaining_ms: i32,
}

/// One classic group. Its methods here change nothing outside; the ones that answer and append are in `rebalance`.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) id: Arc<str>,
    /// Tells this group from an earlier one of the same name.
    pub(crate) incarnation: u64,
    pub(crate) state: GroupState,
    pub(crate) previous_state: GroupState,
    /// None: unknown, from a record of an old version.
    pub(crate) state_since: Option<WallMs>,
    pub(crate) protocol_type: Option<Arc<str>>,
    pub(crate) protocol: Option<Arc<str>>,
    pub(crate) generation: i32,
    pub(crate) leader: Option<Arc<str>>,
    members: BTreeMap<Arc<str>, Member>,
    /// Instance id to member id.
    statics: BTreeMap<Arc<str>, Arc<str>>,
    pub(crate) pending_joins: BTreeSet<Arc<str>>,
    /// Joined the current generation and have not synced.
    pub(crate) pending_syncs: BTreeSet<Arc<str>>,
    /// None: not known, because the members are no consumers or cannot be read.
    pub(crate) subscribed_topics: Option<BTreeSet<Arc<str>>>,
    pub(crate) new_member_added: bool,
    pub(crate) initial_delay: Option<InitialDelay>,
    /// The leader's assignment for the current generation is being written.
    pub(crate) assignment_in_flight: bool,
    /// A record in the log tells of this group; before that nobody sees it.
    pub(crate) durable: bool,
    /// How many members support each protocol.
    supported: BTreeMap<Arc<str>, usize>,
    awaiting_join: usize,
    metadata_bytes: usize,
    /// What its shard has counted of [`Group::state_bytes`].
    pub(crate) counted_bytes: usize,
    next_joined: u64,
    /// The generation at the last check: it never goes back.
    checked_generation: i32,
}

impl Group {
    /// An empty group without a protocol type.
    pub(crate) fn new(id: Arc<str>, incarnation: u64, now: WallMs) -> Self {
        Self {
            id,
            incarnation,
            state: GroupState::Empty,
            previous_state: GroupState::Dead,
            state_since: Some(now),
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            subscribed_topics: None,
            new_member_added: false,
            initial_delay: None,
            assignment_in_flight: false,
            durable: false,
            supported: BTreeMap::new(),
            awaiting_join: 0,
            metadata_bytes: 0,
            counted_bytes: 0,
            next_joined: 0,
            checked_generation: i32::MIN,
        }
    }

    /// The group that a record tells of: Stable if it has members, else Empty.
    pub(crate) fn from_record(id: Arc<str>, incarnation: u64, value: GroupMetadataValue) -> Self {
        let mut group = Self::new(id, incarnation, value.current_state_timestamp);
        group.durable = true;
        group.generation = value.generation;
        group.state_since = Some(value.current_state_timestamp).filter(|at| *at != WallMs::NONE);
        group.protocol_type = Some(value.protocol_type).filter(|name| !name.is_empty());
        if !value.members.is_empty() {
            group.protocol = value.protocol;
            group.state = GroupState::Stable;
        }
        for loaded in value.members {
            // The decoder refuses members without a protocol.
            let name = group
                .protocol
                .clone()
                .expect("a group with members has a protocol");
            let rebalance_timeout_ms = match loaded.rebalance_timeout_ms {
                -1 => loaded.session_timeout_ms,
                told => told,
            };
            group.insert(Member {
                id: loaded.member_id,
                instance_id: loaded.group_instance_id,
                client_id: loaded.client_id,
                client_host: loaded.client_host,
                rebalance_timeout_ms,
                session_timeout_ms: loaded.session_timeout_ms,
                protocols: vec![Protocol {
                    name,
                    metadata: loaded.subscription,
                }],
                assignment: loaded.assignment,
                parked_join: None,
                parked_sync: None,
                is_new: false,
                joined: 0,
            });
        }
        // A record whose leader is no member would leave the group without one: the first member then leads.
        if let Some(leader) = value.leader.filter(|leader| group.members.contains_key(leader)) {
            group.leader = Some(leader);
        }
        group.subscribed_topics = group.compute_subscribed_topics();
        group
    }

    /// The record of this group, with these assignments.
    pub(crate) fn to_record(&self, assignment_of: impl Fn(&Member) -> Bytes) -> GroupMetadataValue {
        let members = self.members.values().map(|member| {
            let protocol = self
                .protocol
                .as_deref()
                .expect("a generation with members has a protocol");
            MemberMetadata {
                member_id: member.id.clone(),
                group_instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                rebalance_timeout_ms: member.rebalance_timeout_ms,
                session_timeout_ms: member.session_timeout_ms,
                subscription: member
                    .metadata(protocol)
                    .expect("every member supports the protocol")
                    .clone(),
                assignment: assignment_of(member),
            }
        });
        GroupMetadataValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            current_state_timestamp: self.state_since.unwrap_or(WallMs::NONE),
            members: members.collect(),
        }
    }

    /// The record of a group that has only just been heard of: no member of it has been in a generation.
    pub(crate) fn first_record(&self) -> GroupMetadataValue {
        GroupMetadataValue {
            protocol_type: Arc::default(),
            generation: self.generation,
            protocol: None,
            leader: None,
            current_state_timestamp: self.state_since.unwrap_or(WallMs::NONE),
            members: Vec::new(),
        }
    }

    pub(crate) fn is_in(&self, state: GroupState) -> bool {
        self.state == state
    }

    pub(crate) fn transition(&mut self, state: GroupState, now: WallMs) {
        use GroupState::{CompletingRebalance, Empty, PreparingRebalance, Stable};
        let legal = match state {
            Empty | CompletingRebalance => self.state == PreparingRebalance,
            PreparingRebalance => matches!(self.state, Stable | CompletingRebalance | Empty),
            Stable => self.state == CompletingRebalance,
            GroupState::Dead => false,
        };
        assert!(
            legal,
            "group {:?} cannot go from {:?} to {state:?}",
            self.id, self.state
        );
        self.previous_state = self.state;
        self.state = state;
        self.state_since = Some(now);
    }

    pub(crate) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(crate) fn member_ids(&self) -> Vec<Arc<str>> {
        self.members.keys().cloned().collect()
    }

    pub(crate) fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn awaiting_join(&self) -> usize {
        self.awaiting_join
    }

    /// What it takes in memory, about: the names and small fields of a group or member are counted as so many bytes.
    pub(crate) fn state_bytes(&self) -> usize {
        let members = self.members.len() + self.pending_joins.len();
        (1 + members) * GROUP_OR_MEMBER_BYTES + self.metadata_bytes
    }

    pub(crate) fn metadata_bytes(&self) -> usize {
        self.metadata_bytes
    }

    pub(crate) fn static_member(&self, instance_id: &str) -> Option<&Arc<str>> {
        self.statics.get(instance_id)
    }

    pub(crate) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub(crate) fn is_consumer_group(&self) -> bool {
        self.protocol_type.as_deref() == Some("consumer")
    }

    pub(crate) fn is_subscribed_to(&self, topic: &str) -> bool {
        match &self.subscribed_topics {
            Some(topics) => topics.contains(topic),
            // Consumers whose subscription cannot be read may be subscribed to anything.
            None => self.is_consumer_group(),
        }
    }

    pub(crate) fn has_all_members_joined(&self) -> bool {
        let all = self.members.len() == self.awaiting_join;
        let enough = all || (self.awaiting_join > 0 && is_planted("revoke-not-awaited"));
        enough && self.pending_joins.is_empty()
    }

    /// The longest of the members' rebalance timeouts.
    pub(crate) fn rebalance_timeout_ms(&self) -> i32 {
        self.members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .max()
            .unwrap_or(0)
            .max(0)
    }

    /// Adds a member; the first one leads.
    pub(crate) fn insert(&mut self, mut member: Member) {
        let id = member.id.clone();
        if let Some(instance) = &member.instance_id {
            let before = self.statics.insert(instance.clone(), id.clone());
            assert!(
                before.is_none(),
                "static member {instance:?} of group {:?} exists already",
                self.id
            );
        }
        member.joined = self.next_joined;
        self.next_joined += 1;
        self.leader.get_or_insert_with(|| id.clone());
        self.count_in(&member);
        self.pending_joins.remove(&id);
        let before = self.members.insert(id, member);
        assert!(before.is_none(), "two members of one id in group {:?}", self.id);
    }

    /// Takes a member out; if it led, the longest-standing one leads from now on.
    pub(crate) fn take(&mut self, member_id: &str) -> Option<Member> {
        self.pending_joins.remove(member_id);
        self.pending_syncs.remove(member_id);
        let member = self.members.remove(member_id)?;
        self.count_out(&member);
        if let Some(instance) = &member.instance_id {
            self.statics.remove(instance);
        }
        if self.is_leader(member_id) {
            self.leader = self
                .members
                .values()
                .min_by_key(|member| member.joined)
                .map(|oldest| oldest.id.clone());
        }
        Some(member)
    }

    /// Gives a static member another member id and keeps everything else; what was parked comes out.
    pub(crate) fn rename_static(
        &mut self,
        old_id: &str,
        new_id: &Arc<str>,
    ) -> (Option<ReplyToken>, Option<ReplyToken>) {
        let mut member = self
            .members
            .remove(old_id)
            .expect("a static member that is replaced exists");
        self.count_out(&member);
        let parked = (member.parked_join.take(), member.parked_sync.take());
        member.id = new_id.clone();
        member.is_new = false;
        self.count_in(&member);
        let instance = member
            .instance_id
            .clone()
            .expect("only static members are replaced");
        self.statics.insert(instance, new_id.clone());
        if self.is_leader(old_id) {
            self.leader = Some(new_id.clone());
        }
        if self.pending_syncs.remove(old_id) {
            self.pending_syncs.insert(new_id.clone());
        }
        self.members.insert(new_id.clone(), member);
        parked
    }

    /// Changes a member and keeps the counts right.
    pub(crate) fn update(&mut self, member_id: &str, change: impl FnOnce(&mut Member)) {
        let mut member = self
            .members
            .remove(member_id)
            .expect("a member that is updated exists");
        self.count_out(&member);
        change(&mut member);
        self.count_in(&member);
        self.members.insert(member.id.clone(), member);
    }

    /// The JoinGroup that the member has parked, if it has.
    pub(crate) fn take_parked_join(&mut self, member_id: &str) -> Option<ReplyToken> {
        let token = self.members.get_mut(member_id)?.parked_join.take()?;
        self.awaiting_join -= 1;
        Some(token)
    }

    /// The SyncGroup that the member has parked, if it has.
    pub(crate) fn take_parked_sync(&mut self, member_id: &str) -> Option<ReplyToken> {
        self.members.get_mut(member_id)?.parked_sync.take()
    }

    /// Parks a SyncGroup; the one that it replaces comes out.
    pub(crate) fn park_sync(&mut self, member_id: &str, token: ReplyToken) -> Option<ReplyToken> {
        self.members
            .get_mut(member_id)
            .expect("a member that syncs exists")
            .parked_sync
            .replace(token)
    }

    /// Sets every member's assignment.
    pub(crate) fn assign(&mut self, assignment_of: impl Fn(&str) -> Bytes) {
        for (id, member) in &mut self.members {
            if !member.assignment.is_empty() && is_planted("assignment-of-the-generation-before") {
                continue;
            }
            member.assignment = assignment_of(id);
        }
    }

    pub(crate) fn set_known(&mut self, member_id: &str) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.is_new = false;
        }
    }

    fn count_in(&mut self, member: &Member) {
        for protocol in &member.protocols {
            *self.supported.entry(protocol.name.clone()).or_default() += 1;
        }
        self.awaiting_join += usize::from(member.parked_join.is_some());
        self.metadata_bytes += member.metadata_bytes();
    }

    fn count_out(&mut self, member: &Member) {
        for protocol in &member.protocols {
            let count = self
                .supported
                .get_mut(&protocol.name)
                .expect("a supported protocol is counted");
            *count -= 1;
            if *count == 0 {
                self.supported.remove(&protocol.name);
            }
        }
        self.awaiting_join -= usize::from(member.parked_join.is_some());
        self.metadata_bytes -= member.metadata_bytes();
    }

    /// May somebody with these protocols be a member? An empty group takes any.
    pub(crate) fn supports(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        if self.is_in(GroupState::Empty) {
            return true;
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|protocol| self.is_supported_by_all(&protocol.name))
    }

    fn is_supported_by_all(&self, protocol: &str) -> bool {
        self.supported.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    /// The protocol that most members prefer among those that all of them support. Of equal ones, the first by name.
    pub(crate) fn select_protocol(&self) -> Arc<str> {
        let mut votes: BTreeMap<&Arc<str>, usize> = BTreeMap::new();
        for member in self.members.values() {
            let vote = member
                .protocols
                .iter()
                .find(|protocol| self.is_supported_by_all(&protocol.name));
            let vote = vote.unwrap_or_else(|| panic!("group {:?} has no common protocol", self.id));
            *votes.entry(&vote.name).or_default() += 1;
        }
        let most = votes
            .values()
            .max()
            .copied()
            .expect("a group that votes has members");
        let chosen = votes
            .into_iter()
            .find(|(_, count)| *count == most)
            .expect("some protocol has the most");
        chosen.0.clone()
    }

    /// The topics of all members' subscriptions to the chosen protocol.
    pub(crate) fn compute_subscribed_topics(&self) -> Option<BTreeSet<Arc<str>>> {
        if !self.is_consumer_group() {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscription::topics(member.metadata(protocol)?).ok()?);
        }
        Some(topics)
    }

    /// Is this member who it says? With an instance id, the member id must be the one that this id has now (KIP-345).
    pub(crate) fn validate_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.statics.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if &**current != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    /// What the leader is told about the members.
    pub(crate) fn join_members(&self) -> Vec<JoinMember> {
        let protocol = self
            .protocol
            .as_deref()
            .expect("a generation with members has a protocol");
        let view = |member: &Member| JoinMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            metadata: member
                .metadata(protocol)
                .expect("every member supports the protocol")
                .clone(),
        };
        self.members.values().map(view).collect()
    }

    /// The orders that hold after every step.
    pub(crate) fn check(&mut self) {
        let before = self.checked_generation;
        let grows = self.generation >= before || (before == i32::MAX && self.generation == 0);
        assert!(
            grows,
            "group {:?}: generation {} after {before}",
            self.id, self.generation
        );
        self.checked_generation = self.generation;
        let id = &self.id;
        match self.state {
            GroupState::Empty => {
                assert!(self.members.is_empty(), "group {id:?} is Empty and has members");
                assert!(self.leader.is_none(), "group {id:?} is Empty and has a leader");
                assert!(
                    self.protocol.is_none(),
                    "group {id:?} is Empty and has a protocol"
                );
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                assert!(
                    !self.members.is_empty(),
                    "group {id:?} is {:?} and has no members",
                    self.state
                );
                let protocol = self
                    .protocol
                    .as_deref()
                    .expect("a generation with members has a protocol");
                assert!(
                    self.is_supported_by_all(protocol),
                    "group {id:?}: not all members support {protocol:?}"
                );
            }
            GroupState::PreparingRebalance => {}
            GroupState::Dead => panic!("group {id:?} is dead and kept"),
        }
        assert_eq!(
            self.leader.is_some(),
            !self.members.is_empty(),
            "group {id:?}: who has members has a leader"
        );
        if let Some(leader) = &self.leader {
            assert!(
                self.members.contains_key(leader),
                "group {id:?}: its leader {leader:?} is no member"
            );
        }
        if !self.is_in(GroupState::CompletingRebalance) {
            assert!(
                !self.assignment_in_flight,
                "group {id:?} awaits an assignment in {:?}",
                self.state
            );
        }
        self.check_members();
    }

    fn check_members(&self) {
        let id = &self.id;
        let mut awaiting_join = 0;
        let mut bytes = 0;
        let mut statics = 0;
        for member in self.members.values() {
            awaiting_join += usize::from(member.parked_join.is_some());
            bytes += member.metadata_bytes();
            if let Some(instance) = &member.instance_id {
                statics += 1;
                assert_eq!(
                    self.statics.get(instance),
                    Some(&member.id),
                    "group {id:?}: static member {instance:?}"
                );
            }
            assert!(
                member.parked_sync.is_none() || self.is_in(GroupState::CompletingRebalance),
                "group {id:?}: a sync of {:?} is parked in {:?}",
                member.id,
                self.state
            );
            assert!(
                !self.pending_joins.contains(&member.id),
                "group {id:?}: {:?} is pending and a member",
                member.id
            );
        }
        assert_eq!(
            awaiting_join, self.awaiting_join,
            "group {id:?}: members that await a join"
        );
        assert_eq!(bytes, self.metadata_bytes, "group {id:?}: bytes of metadata");
        assert_eq!(statics, self.statics.len(), "group {id:?}: static members");
        for pending in &self.pending_syncs {
            assert!(
                self.members.contains_key(pending),
                "group {id:?}: {pending:?} is to sync and is no member"
            );
        }
    }
}
