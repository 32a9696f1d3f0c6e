//! How a group goes from one generation to the next: the join phase, the sync phase, and who is dropped on the way.

use std::sync::Arc;

use bytes::Bytes;
use skerry_types::{is_planted, reached, sometimes};

use crate::api::{GroupError, GroupEventKind, GroupState, JoinResponse, ReplyToken, SyncResponse};
use crate::append::{Change, Then};
use crate::context::Context;
use crate::group::{Group, InitialDelay};
use crate::timers::TimerKey;

impl JoinResponse {
    /// An answer that only says what went wrong.
    pub(crate) fn refused(member_id: Arc<str>, error: GroupError) -> Self {
        Self {
            error: Some(error),
            generation_id: -1,
            protocol_type: None,
            protocol_name: None,
            leader: Arc::default(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        }
    }
}

impl SyncResponse {
    /// An answer that only says what went wrong.
    pub(crate) fn refused(error: GroupError) -> Self {
        Self {
            error: Some(error),
            protocol_type: None,
            protocol_name: None,
            assignment: Bytes::new(),
        }
    }
}

impl Group {
    pub(crate) fn session_key(&self, member: &Arc<str>) -> TimerKey {
        TimerKey::Session {
            group: self.id.clone(),
            member: member.clone(),
        }
    }

    fn join_key(&self) -> TimerKey {
        TimerKey::Join {
            group: self.id.clone(),
        }
    }

    fn sync_key(&self) -> TimerKey {
        TimerKey::Sync {
            group: self.id.clone(),
        }
    }

    /// The member was heard of: its session starts again.
    pub(crate) fn renew_session(&self, cx: &mut Context, member_id: &str) {
        if let Some(member) = self.member(member_id) {
            cx.schedule_ms(self.session_key(&member.id), member.session_timeout_ms);
        }
    }

    /// The answer to a member of the current generation.
    pub(crate) fn joined(&self, member_id: &Arc<str>) -> JoinResponse {
        JoinResponse {
            error: None,
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.clone(),
            members: if self.is_leader(member_id) {
                self.join_members()
            } else {
                Vec::new()
            },
        }
    }

    /// The answer to a member whose assignment is durable.
    pub(crate) fn synced(&self, member_id: &str) -> SyncResponse {
        SyncResponse {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: self
                .member(member_id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }

    /// Starts a rebalance if none is under way, else sees whether everybody has come.
    pub(crate) fn prepare_or_complete(&mut self, cx: &mut Context, reason: String) {
        if self.is_in(GroupState::PreparingRebalance) {
            self.complete_if_all_joined(cx);
        } else {
            self.prepare(cx, reason);
        }
    }

    /// Calls the members to join again.
    pub(crate) fn prepare(&mut self, cx: &mut Context, reason: String) {
        if self.is_in(GroupState::CompletingRebalance) {
            // Who waits for an assignment of this generation will not get one: it must join again.
            self.assignment_in_flight = false;
            self.assign(|_| Bytes::new());
            self.refuse_syncs(cx, GroupError::RebalanceInProgress);
        }
        self.stop_awaiting_syncs(cx);
        let from_empty = self.is_in(GroupState::Empty);
        self.transition(GroupState::PreparingRebalance, cx.now.wall);
        cx.event(
            &self.id,
            GroupEventKind::Rebalancing {
                generation: self.generation,
                reason,
            },
        );
        if from_empty {
            // A new group: more members are probably on their way (KIP-134).
            let delay_ms = cx.settings.initial_rebalance_delay_ms.max(0);
            let remaining_ms = (self.rebalance_timeout_ms() - delay_ms).max(0);
            self.initial_delay = Some(InitialDelay {
                delay_ms,
                remaining_ms,
            });
            cx.schedule_ms(self.join_key(), delay_ms);
        } else if self.has_all_members_joined() {
            self.complete_join(cx);
        } else {
            cx.schedule_ms(self.join_key(), self.rebalance_timeout_ms());
        }
    }

    /// Ends the join phase if nobody is missing. The first rebalance of an empty group only ends by its timer.
    pub(crate) fn complete_if_all_joined(&mut self, cx: &mut Context) {
        if self.is_in(GroupState::PreparingRebalance)
            && self.previous_state != GroupState::Empty
            && self.has_all_members_joined()
        {
            self.complete_join(cx);
        }
    }

    /// The timer of the join phase has run out.
    pub(crate) fn on_join_timer(&mut self, cx: &mut Context) {
        if !self.is_in(GroupState::PreparingRebalance) {
            return;
        }
        if let Some(InitialDelay {
            delay_ms,
            remaining_ms,
        }) = self.initial_delay
            && self.new_member_added
            && remaining_ms != 0
        {
            self.new_member_added = false;
            let next_ms = cx.settings.initial_rebalance_delay_ms.max(0).min(remaining_ms);
            self.initial_delay = Some(InitialDelay {
                delay_ms: next_ms,
                remaining_ms: (remaining_ms - delay_ms).max(0),
            });
            cx.schedule_ms(self.join_key(), next_ms);
        } else {
            self.complete_join(cx);
        }
    }

    /// Ends the join phase: the next generation is whoever has joined, and the static members that may come back.
    pub(crate) fn complete_join(&mut self, cx: &mut Context) {
        cx.timers.cancel(&self.join_key());
        self.initial_delay = None;
        self.new_member_added = false;
        let late: Vec<_> = self
            .members()
            .filter(|member| member.parked_join.is_none() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        // Who has not come still owns what this generation gave it.
        let revoked = late.is_empty() || !is_planted("revoke-not-awaited");
        for member_id in late.into_iter().filter(|_| revoked) {
            reached("member-too-late-for-a-generation");
            self.expel(cx, &member_id, "it did not join again in time");
        }
        if self.len() > 0 && !self.elect_joined_leader() {
            // Only static members, and none of them came: their sessions decide.
            cx.event(&self.id, GroupEventKind::RebalancePostponed);
            // At least a moment, so that a timeout of zero does not spin.
            cx.schedule_ms(self.join_key(), self.rebalance_timeout_ms().max(1));
            return;
        }
        // Java's counter wraps too; 2^31 rebalances are a thousand years of one each 15 seconds.
        if revoked {
            self.generation = self.generation.checked_add(1).unwrap_or(0);
        }
        self.pending_syncs.clear();
        if self.len() == 0 {
            self.become_empty(cx);
        } else {
            self.start_generation(cx);
        }
    }

    fn become_empty(&mut self, cx: &mut Context) {
        reached("group-left-by-all");
        self.protocol = None;
        self.subscribed_topics = self.compute_subscribed_topics();
        self.transition(GroupState::Empty, cx.now.wall);
        let value = self.to_record(|_| Bytes::new()).encode();
        // If this is not written, the last generation comes back with the next coordinator, and times out there.
        cx.append(
            vec![Change::PutGroup {
                group: self.id.clone(),
                value,
            }],
            Then::Nothing,
        );
    }

    fn start_generation(&mut self, cx: &mut Context) {
        self.protocol = Some(self.select_protocol());
        self.subscribed_topics = self.compute_subscribed_topics();
        self.transition(GroupState::CompletingRebalance, cx.now.wall);
        sometimes("generation-of-several", self.len() > 1);
        let started = GroupEventKind::GenerationStarted {
            generation: self.generation,
            members: self.len(),
        };
        cx.event(&self.id, started);
        for member_id in self.member_ids() {
            if let Some(token) = self.take_parked_join(&member_id) {
                cx.reply_join(token, self.joined(&member_id));
            }
            self.renew_session(cx, &member_id);
            self.set_known(&member_id);
            self.pending_syncs.insert(member_id);
        }
        cx.schedule_ms(self.sync_key(), self.rebalance_timeout_ms());
    }

    /// Somebody who has joined must lead; false if nobody has.
    fn elect_joined_leader(&mut self) -> bool {
        let has_joined = |id: &Arc<str>| self.member(id).is_some_and(|member| member.parked_join.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let joined = self.members().filter(|member| member.parked_join.is_some());
        match joined
            .min_by_key(|member| member.joined)
            .map(|member| member.id.clone())
        {
            Some(leader) => {
                self.leader = Some(leader);
                true
            }
            None => false,
        }
    }

    /// The timer of the sync phase has run out: who has joined and not synced is dropped.
    pub(crate) fn on_sync_timer(&mut self, cx: &mut Context) {
        if !matches!(self.state, GroupState::CompletingRebalance | GroupState::Stable)
            || self.pending_syncs.is_empty()
        {
            return;
        }
        let silent: Vec<_> = self.pending_syncs.iter().cloned().collect();
        for member_id in &silent {
            self.expel(cx, member_id, "it did not sync in time");
        }
        self.prepare(cx, format!("{} members did not sync in time", silent.len()));
    }

    /// The member has synced; the phase ends with the last one.
    pub(crate) fn on_synced(&mut self, cx: &mut Context, member_id: &str) {
        self.pending_syncs.remove(member_id);
        if self.pending_syncs.is_empty() {
            cx.timers.cancel(&self.sync_key());
        }
    }

    fn stop_awaiting_syncs(&mut self, cx: &mut Context) {
        self.pending_syncs.clear();
        cx.timers.cancel(&self.sync_key());
    }

    /// A session, or a pending member's time to join, has run out.
    pub(crate) fn on_session_timer(&mut self, cx: &mut Context, member_id: &str) {
        if self.pending_joins.remove(member_id) {
            cx.event(
                &self.id,
                GroupEventKind::MemberRemoved {
                    member_id: Arc::from(member_id),
                    reason: "it did not join with the member id it was given",
                },
            );
            self.complete_after_removal(cx);
            return;
        }
        let Some(member) = self.member(member_id) else {
            return;
        };
        // Who waits for us is not silent. A new member does not know its id yet: if its connection broke it comes
        // back as another one, so that this one must end.
        if !member.is_new && (member.parked_join.is_some() || member.parked_sync.is_some()) {
            return;
        }
        self.expel(cx, member_id, "its session timed out");
        if self.is_in(GroupState::PreparingRebalance) {
            self.complete_after_removal(cx);
        } else {
            self.prepare(cx, format!("member {member_id} timed out"));
        }
    }

    fn complete_after_removal(&mut self, cx: &mut Context) {
        if self.is_in(GroupState::PreparingRebalance) && self.has_all_members_joined() {
            self.complete_join(cx);
        }
    }

    /// Removes a member without asking it, and says so.
    pub(crate) fn expel(&mut self, cx: &mut Context, member_id: &str, reason: &'static str) {
        let event = GroupEventKind::MemberRemoved {
            member_id: Arc::from(member_id),
            reason,
        };
        cx.event(&self.id, event);
        self.remove(cx, member_id);
    }

    /// Removes a member. If it waits for something, it hears that it is not known, and joins again if it lives.
    pub(crate) fn remove(&mut self, cx: &mut Context, member_id: &str) {
        cx.timers.cancel(&self.session_key(&Arc::from(member_id)));
        let Some(member) = self.take(member_id) else {
            return;
        };
        self.refuse_parked(
            cx,
            (member.parked_join, member.parked_sync),
            &Arc::default(),
            GroupError::UnknownMemberId,
        );
    }

    /// Answers what a member had parked.
    pub(crate) fn refuse_parked(
        &self,
        cx: &mut Context,
        (join, sync): (Option<ReplyToken>, Option<ReplyToken>),
        member_id: &Arc<str>,
        error: GroupError,
    ) {
        if let Some(token) = join {
            cx.reply_join(token, JoinResponse::refused(member_id.clone(), error));
        }
        if let Some(token) = sync {
            cx.reply_sync(token, SyncResponse::refused(error));
        }
    }

    /// Answers every SyncGroup that waits with an error.
    pub(crate) fn refuse_syncs(&mut self, cx: &mut Context, error: GroupError) {
        for member_id in self.member_ids() {
            if let Some(token) = self.take_parked_sync(&member_id) {
                cx.reply_sync(token, SyncResponse::refused(error));
                // Its session was not counted while it waited.
                self.renew_session(cx, &member_id);
            }
        }
    }

    /// The group goes: nothing of it may fire later.
    pub(crate) fn cancel_timers(&self, cx: &mut Context) {
        cx.timers.cancel(&self.join_key());
        cx.timers.cancel(&self.sync_key());
        for member_id in self.members().map(|member| &member.id).chain(&self.pending_joins) {
            cx.timers.cancel(&self.session_key(member_id));
        }
    }
}
