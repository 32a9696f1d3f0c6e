//! JoinGroup (versions 0 to 9): KIP-345 static members, KIP-394 member ids, KIP-814 assignments that need not be made again.

use std::fmt::Write as _;
use std::mem;
use std::sync::Arc;

use skerry_types::Uuid;

use crate::api::{
    AppendFailure, GroupError, GroupSettings, GroupState, JoinRequest, JoinResponse, Protocol, ReplyToken,
};
use crate::append::{Change, StaticJoin, Then};
use crate::context::Context;
use crate::group::{GROUP_METADATA_BYTES_MAX, Group, Member, PENDING_JOINS_MAX, protocol_bytes};
use crate::records::STRING_BYTES_MAX;

/// A new member that waits in the join phase and never answers must go at some time, as in Kafka.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i32 = 5 * 60 * 1_000;
/// `-` and a UUID.
const MEMBER_ID_SUFFIX_BYTES: usize = 37;
/// KIP-800 lets clients send this much; the rest is not worth a log line.
const REASON_CHARS_MAX: usize = 255;

/// What can be said about a JoinGroup without looking at any group.
pub(crate) fn validate(settings: &GroupSettings, request: &JoinRequest) -> Result<(), GroupError> {
    if request.group_id.is_empty() || request.group_id.len() > STRING_BYTES_MAX {
        return Err(GroupError::InvalidGroupId);
    }
    let allowed = settings.min_session_timeout_ms..=settings.max_session_timeout_ms;
    if !allowed.contains(&request.session_timeout_ms) {
        return Err(GroupError::InvalidSessionTimeout);
    }
    // Names that no record could carry.
    let names = request
        .protocols
        .iter()
        .map(|protocol| &protocol.name)
        .chain([&request.protocol_type]);
    if names.into_iter().any(|name| name.len() > STRING_BYTES_MAX) {
        return Err(GroupError::InconsistentGroupProtocol);
    }
    let instance_bytes = request.group_instance_id.as_ref().map_or(0, |id| id.len());
    if instance_bytes > STRING_BYTES_MAX - MEMBER_ID_SUFFIX_BYTES
        || request.client_host.len() > STRING_BYTES_MAX
    {
        return Err(GroupError::UnknownMemberId);
    }
    Ok(())
}

/// Version 0 has no rebalance timeout; a name said twice counts once.
pub(crate) fn normalise(request: &mut JoinRequest) {
    if request.version == 0 {
        request.rebalance_timeout_ms = request.session_timeout_ms;
    }
    let mut protocols: Vec<Protocol> = Vec::with_capacity(request.protocols.len().min(16));
    for protocol in mem::take(&mut request.protocols) {
        if protocols.iter().all(|known| known.name != protocol.name) {
            protocols.push(protocol);
        }
    }
    request.protocols = protocols;
    request.client_id = shortened(&request.client_id);
}

/// A member id must fit a record; a client id may be longer than that allows.
fn shortened(client_id: &Arc<str>) -> Arc<str> {
    let max = STRING_BYTES_MAX - MEMBER_ID_SUFFIX_BYTES;
    if client_id.len() <= max {
        client_id.clone()
    } else {
        Arc::from(&client_id[..client_id.floor_char_boundary(max)])
    }
}

/// The instance id or the client id, and a UUID as Java writes it.
fn new_member_id(request: &JoinRequest) -> Arc<str> {
    let prefix = request.group_instance_id.as_ref().unwrap_or(&request.client_id);
    let Uuid(bytes) = request.new_member_id;
    let mut id = String::with_capacity(prefix.len() + MEMBER_ID_SUFFIX_BYTES);
    id.push_str(prefix);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 0 | 4 | 6 | 8 | 10) {
            id.push('-');
        }
        write!(id, "{byte:02x}").expect("a string takes any text");
    }
    Arc::from(id)
}

fn reason(request: &JoinRequest, what: &str) -> String {
    match request.reason.as_deref().filter(|reason| !reason.is_empty()) {
        Some(told) => {
            let told: String = told.chars().take(REASON_CHARS_MAX).collect();
            format!("{what}; client reason: {told}")
        }
        None => what.to_owned(),
    }
}

impl Group {
    /// Takes in a JoinGroup that [`validate`] let through.
    pub(crate) fn join(&mut self, cx: &mut Context, token: ReplyToken, request: JoinRequest) {
        let member_id = request.member_id.clone();
        if let Err(error) = self.admit(cx, &request) {
            // As in Kafka, a group that is full names nobody.
            let name = match error {
                GroupError::GroupMaxSizeReached => Arc::default(),
                _ => member_id,
            };
            return cx.reply_join(token, JoinResponse::refused(name, error));
        }
        if !member_id.is_empty() {
            return self.join_known(cx, token, request);
        }
        let new_id = new_member_id(&request);
        if let Some(instance) = &request.group_instance_id {
            match self.static_member(instance).cloned() {
                Some(old_id) => self.replace_static(cx, token, request, &old_id, new_id),
                None => self.add_member(cx, token, request, new_id),
            }
        } else if request.version >= 4 {
            // KIP-394: whoever asks for an id and never comes back must not become a member.
            cx.schedule_ms(self.session_key(&new_id), request.session_timeout_ms);
            self.pending_joins.insert(new_id.clone());
            cx.reply_join(token, JoinResponse::refused(new_id, GroupError::MemberIdRequired));
        } else {
            self.add_member(cx, token, request, new_id);
        }
    }

    /// Is there room, and do the protocols fit?
    fn admit(&mut self, cx: &mut Context, request: &JoinRequest) -> Result<(), GroupError> {
        if !self.has_room_for(cx.settings.max_size, &request.member_id) {
            // The last ones to join again are the ones that go, after the limit was lowered.
            self.remove(cx, &request.member_id);
            self.complete_if_all_joined(cx);
            return Err(GroupError::GroupMaxSizeReached);
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let replaced = match (&request.group_instance_id, &*request.member_id) {
            (Some(instance), "") => self.static_member(instance).and_then(|id| self.member(id)),
            (_, id) => self.member(id),
        };
        let before = replaced.map_or(0, |member| protocol_bytes(&member.protocols));
        let bytes = self.metadata_bytes() - before + protocol_bytes(&request.protocols);
        let asks_for_id =
            request.member_id.is_empty() && request.group_instance_id.is_none() && request.version >= 4;
        let comes = replaced.is_none() && !self.pending_joins.contains(&request.member_id);
        if (cx.full && comes)
            || bytes > GROUP_METADATA_BYTES_MAX
            || (asks_for_id && self.pending_joins.len() >= PENDING_JOINS_MAX)
        {
            return Err(GroupError::GroupMaxSizeReached);
        }
        Ok(())
    }

    /// KIP-389. While the group prepares, those who have joined count, because the others may not come.
    fn has_room_for(&self, max_size: i32, member_id: &str) -> bool {
        let max_size = usize::try_from(max_size).unwrap_or(0);
        let member = self.member(member_id);
        match self.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                member.is_some_and(|member| member.parked_join.is_some()) || self.awaiting_join() < max_size
            }
            GroupState::CompletingRebalance | GroupState::Stable => member.is_some() || self.len() < max_size,
        }
    }

    fn join_known(&mut self, cx: &mut Context, token: ReplyToken, request: JoinRequest) {
        let member_id = request.member_id.clone();
        let instance_id = request.group_instance_id.as_deref();
        if self.pending_joins.contains(&member_id) && instance_id.is_none() {
            return self.add_member(cx, token, request, member_id);
        }
        if let Err(error) = self.validate_member(&member_id, instance_id) {
            return cx.reply_join(token, JoinResponse::refused(member_id, error));
        }
        let member = self.member(&member_id).expect("validated");
        let unchanged = member.protocols == request.protocols;
        match self.state {
            GroupState::PreparingRebalance => self.update_member(cx, token, request, "a member joined again"),
            // It may not have received the answer to its first JoinGroup.
            GroupState::CompletingRebalance if unchanged => cx.reply_join(token, self.joined(&member_id)),
            // The leader may know of something that its subscription does not show, as new partitions.
            GroupState::Stable if self.is_leader(&member_id) => {
                self.update_member(cx, token, request, "the leader joined again");
            }
            GroupState::Stable if unchanged => cx.reply_join(token, self.joined(&member_id)),
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.update_member(cx, token, request, "a member changed its metadata");
            }
            // An Empty group has no member that could be valid.
            GroupState::Empty | GroupState::Dead => {
                cx.reply_join(
                    token,
                    JoinResponse::refused(member_id, GroupError::UnknownMemberId),
                );
            }
        }
    }

    fn add_member(&mut self, cx: &mut Context, token: ReplyToken, request: JoinRequest, member_id: Arc<str>) {
        let reason = reason(&request, &format!("new member {member_id}"));
        if self.is_in(GroupState::PreparingRebalance) && self.previous_state == GroupState::Empty {
            self.new_member_added = true;
        }
        if self.len() == 0 {
            self.protocol_type = Some(request.protocol_type);
        }
        self.insert(Member {
            id: member_id.clone(),
            instance_id: request.group_instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: bytes::Bytes::new(),
            parked_join: Some(token),
            parked_sync: None,
            is_new: true,
            joined: 0,
        });
        cx.schedule_ms(self.session_key(&member_id), NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.prepare_or_complete(cx, reason);
    }

    /// Parks the JoinGroup with what the member says now. One that it had parked before is superseded.
    fn park_join(
        &mut self,
        cx: &mut Context,
        member_id: &Arc<str>,
        token: ReplyToken,
        request: &mut JoinRequest,
    ) {
        let superseded = self.take_parked_join(member_id);
        self.refuse_parked(cx, (superseded, None), member_id, GroupError::RebalanceInProgress);
        self.update(member_id, |member| {
            member.protocols = mem::take(&mut request.protocols);
            member.rebalance_timeout_ms = request.rebalance_timeout_ms;
            member.session_timeout_ms = request.session_timeout_ms;
            member.parked_join = Some(token);
        });
    }

    fn update_member(&mut self, cx: &mut Context, token: ReplyToken, mut request: JoinRequest, why: &str) {
        let member_id = request.member_id.clone();
        self.park_join(cx, &member_id, token, &mut request);
        self.prepare_or_complete(cx, reason(&request, &format!("{why}: {member_id}")));
    }

    /// KIP-345: a static member is back under a new member id. The old one is fenced at once.
    fn replace_static(
        &mut self,
        cx: &mut Context,
        token: ReplyToken,
        mut request: JoinRequest,
        old_id: &Arc<str>,
        new_id: Arc<str>,
    ) {
        let old_leader = self.leader.clone();
        let old = self.member(old_id).expect("a static member is a member");
        let undo = StaticJoin {
            group: self.id.clone(),
            incarnation: self.incarnation,
            generation: self.generation,
            token,
            new_member_id: new_id.clone(),
            old_member_id: old_id.clone(),
            old_leader,
            old_protocols: old.protocols.clone(),
            old_rebalance_timeout_ms: old.rebalance_timeout_ms,
            old_session_timeout_ms: old.session_timeout_ms,
            can_skip_assignment: request.version >= 9,
        };
        self.rename(cx, old_id, &new_id, GroupError::FencedInstanceId);
        self.park_join(cx, &new_id, token, &mut request);
        self.renew_session(cx, &new_id);
        match self.state {
            GroupState::Stable if self.protocol.as_ref() == Some(&self.select_protocol()) => {
                // Nobody else need notice. Written first: a coordinator that knew the old id would fence the new one.
                self.subscribed_topics = self.compute_subscribed_topics();
                let value = self.to_record(|member| member.assignment.clone()).encode();
                cx.append(
                    vec![Change::PutGroup {
                        group: self.id.clone(),
                        value,
                    }],
                    Then::StaticJoin(Box::new(undo)),
                );
            }
            GroupState::Stable => {
                let why = format!("static member {new_id} changed the common protocol");
                self.prepare(cx, reason(&request, &why));
            }
            // The leader may already have the old id in its list: an assignment for that one would reach nobody.
            GroupState::CompletingRebalance => {
                self.prepare(cx, reason(&request, &format!("static member {new_id} came back")));
            }
            GroupState::PreparingRebalance => self.complete_if_all_joined(cx),
            GroupState::Empty | GroupState::Dead => unreachable!("a static member in an empty group"),
        }
    }

    /// Gives a static member another id; what the old one had parked is answered, its session ends.
    fn rename(&mut self, cx: &mut Context, old_id: &Arc<str>, new_id: &Arc<str>, error: GroupError) {
        cx.timers.cancel(&self.session_key(old_id));
        let parked = self.rename_static(old_id, new_id);
        self.refuse_parked(cx, parked, old_id, error);
    }

    /// The new id of a static member is durable, or it is not.
    pub(crate) fn finish_static_join(
        &mut self,
        cx: &mut Context,
        done: StaticJoin,
        failure: Option<AppendFailure>,
    ) {
        let new_id = &done.new_member_id;
        let still_waits = self
            .member(new_id)
            .is_some_and(|member| member.parked_join == Some(done.token));
        // If a rebalance has begun since, its end answers.
        if !still_waits || !self.is_in(GroupState::Stable) || self.generation != done.generation {
            return;
        }
        self.take_parked_join(new_id);
        let Some(failure) = failure else {
            let mut response = self.joined(new_id);
            if done.can_skip_assignment {
                response.skip_assignment = self.is_leader(new_id);
            } else {
                // Before KIP-814 the leader must not know that it leads, or it would assign anew and cause a
                // rebalance: it hears the old leader's id and no members.
                response.leader = done.old_leader.unwrap_or_default();
                response.members = Vec::new();
            }
            cx.reply_join(done.token, response);
            return self.renew_session(cx, new_id);
        };
        let mut response = JoinResponse::refused(Arc::default(), failure.group_error());
        response.generation_id = self.generation;
        cx.reply_join(done.token, response);
        self.update(new_id, |member| {
            member.protocols = done.old_protocols;
            member.rebalance_timeout_ms = done.old_rebalance_timeout_ms;
            member.session_timeout_ms = done.old_session_timeout_ms;
        });
        self.rename(cx, new_id, &done.old_member_id, GroupError::FencedInstanceId);
        self.subscribed_topics = self.compute_subscribed_topics();
        self.renew_session(cx, &done.old_member_id);
    }
}
