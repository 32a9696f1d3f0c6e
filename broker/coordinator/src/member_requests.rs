//! SyncGroup (0 to 5), Heartbeat (0 to 4) and LeaveGroup (0 to 5).

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use skerry_types::{buggify, is_planted, reached};

use crate::api::{
    AppendFailure, GroupError, GroupEventKind, GroupState, HeartbeatRequest, HeartbeatResponse, LeaveMember,
    LeaveMemberResponse, LeaveRequest, LeaveResponse, ReplyToken, Response, SyncRequest, SyncResponse,
};
use crate::append::{Change, Then};
use crate::context::Context;
use crate::group::Group;
use crate::shard::GroupShard;

impl GroupShard {
    pub(crate) fn sync(&mut self, token: ReplyToken, request: SyncRequest) {
        match self.group_mut(&request.group_id) {
            Some((group, cx)) => group.sync(cx, token, request),
            None => self
                .cx
                .reply_sync(token, SyncResponse::refused(GroupError::UnknownMemberId)),
        }
    }

    pub(crate) fn heartbeat(&mut self, token: ReplyToken, request: &HeartbeatRequest) {
        if buggify("rebalance-for-nothing", 50)
            && let Some((group, cx)) = self.group_mut(&request.group_id)
            && group.is_in(GroupState::Stable)
        {
            group.prepare(cx, "buggify".to_owned());
        }
        // Not touched: a heartbeat moves one deadline and nothing else.
        let error = match self.groups.get(&request.group_id) {
            Some(group) => group.heartbeat(&mut self.cx, request).err(),
            None => Some(GroupError::UnknownMemberId),
        };
        self.cx
            .reply(token, Response::Heartbeat(HeartbeatResponse { error }));
    }

    pub(crate) fn leave(&mut self, token: ReplyToken, request: LeaveRequest) {
        let Some((group, cx)) = self.group_mut(&request.group_id) else {
            let unknown = |member| left(member, Some(GroupError::UnknownMemberId));
            let members = request.members.into_iter().map(unknown).collect();
            return self
                .cx
                .reply(token, Response::Leave(LeaveResponse { error: None, members }));
        };
        let next_append = cx.next_append();
        let members = group.leave(cx, request.members);
        let response = Response::Leave(LeaveResponse { error: None, members });
        if cx.next_append() == next_append {
            cx.reply(token, response);
        } else {
            // The group became empty: the last member hears that it has left when that is durable.
            cx.reply_after(next_append, token, response);
        }
    }
}

impl Group {
    fn sync(&mut self, cx: &mut Context, token: ReplyToken, request: SyncRequest) {
        if let Err(error) = self.validate_sync(&request) {
            return cx.reply_sync(token, SyncResponse::refused(error));
        }
        let member_id = request.member_id.clone();
        match self.state {
            GroupState::CompletingRebalance => {
                if let Some(superseded) = self.park_sync(&member_id, token) {
                    cx.reply_sync(superseded, SyncResponse::refused(GroupError::RebalanceInProgress));
                }
                self.on_synced(cx, &member_id);
                if self.is_leader(&member_id) {
                    self.write_assignment(cx, request.assignments);
                }
            }
            GroupState::Stable => {
                self.on_synced(cx, &member_id);
                cx.reply_sync(token, self.synced(&member_id));
            }
            GroupState::PreparingRebalance => {
                cx.reply_sync(token, SyncResponse::refused(GroupError::RebalanceInProgress));
            }
            GroupState::Empty | GroupState::Dead => {
                cx.reply_sync(token, SyncResponse::refused(GroupError::UnknownMemberId));
            }
        }
    }

    fn validate_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        let is_late = request.generation_id < self.generation && is_planted("sync-from-old-generation");
        if request.generation_id != self.generation && !is_late {
            return Err(GroupError::IllegalGeneration);
        }
        // KIP-559: only what both sides name can differ.
        let differs = |told: &Option<Arc<str>>, ours: &Option<Arc<str>>| matches!((told, ours), (Some(told), Some(ours)) if told != ours);
        if differs(&request.protocol_type, &self.protocol_type)
            || differs(&request.protocol_name, &self.protocol)
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// The leader has decided; nobody hears of it before it is durable.
    fn write_assignment(&mut self, cx: &mut Context, told: Vec<(Arc<str>, Bytes)>) {
        if self.assignment_in_flight {
            // A retry. A second record could leave another assignment in the log than the one that was sent.
            return;
        }
        let mut assignments: BTreeMap<Arc<str>, Bytes> = told
            .into_iter()
            .filter(|(member_id, _)| self.member(member_id).is_some())
            .collect();
        for member_id in self.member_ids() {
            assignments.entry(member_id).or_default();
        }
        let value = self
            .to_record(|member| assignments.get(&member.id).cloned().unwrap_or_default())
            .encode();
        let change = Change::PutGroup {
            group: self.id.clone(),
            value,
        };
        self.assignment_in_flight = true;
        let planted = is_planted("assignment-acked-before-append");
        let then = Then::Assign {
            group: self.id.clone(),
            incarnation: self.incarnation,
            generation: self.generation,
            assignments: assignments.clone(),
        };
        cx.append(vec![change], then);
        if planted {
            self.finish_assignment(cx, self.generation, &assignments, None);
        }
    }

    /// The assignment is durable, or it is not.
    pub(crate) fn finish_assignment(
        &mut self,
        cx: &mut Context,
        generation: i32,
        assignments: &BTreeMap<Arc<str>, Bytes>,
        failure: Option<AppendFailure>,
    ) {
        // A rebalance since: what the leader decided concerns nobody any more.
        let is_current = generation == self.generation || is_planted("assignment-from-old-generation");
        if !self.is_in(GroupState::CompletingRebalance) || !is_current {
            reached("assignment-overtaken");
            return;
        }
        self.assignment_in_flight = false;
        if let Some(failure) = failure {
            reached("assignment-not-written");
            self.assign(|_| Bytes::new());
            self.refuse_syncs(cx, failure.group_error());
            return self.prepare(cx, format!("the assignment was not written: {failure}"));
        }
        self.assign(|member_id| assignments.get(member_id).cloned().unwrap_or_default());
        self.transition(GroupState::Stable, cx.now.wall);
        for member_id in self.member_ids() {
            if let Some(token) = self.take_parked_sync(&member_id) {
                cx.reply_sync(token, self.synced(&member_id));
                // Its session was not counted while it waited.
                self.renew_session(cx, &member_id);
            }
        }
        cx.event(&self.id, GroupEventKind::Stabilised { generation });
    }

    fn heartbeat(&self, cx: &mut Context, request: &HeartbeatRequest) -> Result<(), GroupError> {
        self.validate_member(&request.member_id, request.group_instance_id.as_deref())?;
        if request.generation_id != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
            GroupState::PreparingRebalance => {
                self.renew_session(cx, &request.member_id);
                Err(GroupError::RebalanceInProgress)
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.renew_session(cx, &request.member_id);
                Ok(())
            }
        }
    }

    fn leave(&mut self, cx: &mut Context, members: Vec<LeaveMember>) -> Vec<LeaveMemberResponse> {
        let mut responses = Vec::with_capacity(members.len().min(1_024));
        let mut reason = None;
        for member in members {
            let error = self.leave_one(cx, &member).err();
            if error.is_none() {
                reason = member.reason.clone().or(reason);
            }
            responses.push(left(member, error));
        }
        let gone = responses
            .iter()
            .filter(|response| response.error.is_none())
            .count();
        if gone > 0 {
            match self.state {
                GroupState::Stable | GroupState::CompletingRebalance => {
                    let reason = reason.as_deref().unwrap_or("not told");
                    self.prepare(cx, format!("{gone} members left; client reason: {reason}"));
                }
                GroupState::PreparingRebalance => self.complete_if_all_joined(cx),
                GroupState::Empty | GroupState::Dead => {}
            }
        }
        responses
    }

    fn leave_one(&mut self, cx: &mut Context, member: &LeaveMember) -> Result<(), GroupError> {
        let instance_id = member.group_instance_id.as_deref();
        if member.member_id.is_empty() {
            // An administrator removes a static member by its instance id (KIP-345).
            let known = instance_id
                .and_then(|instance_id| self.static_member(instance_id))
                .cloned();
            let member_id = known.ok_or(GroupError::UnknownMemberId)?;
            self.remove(cx, &member_id);
        } else if self.pending_joins.contains(&member.member_id) {
            self.remove(cx, &member.member_id);
        } else {
            self.validate_member(&member.member_id, instance_id)?;
            self.remove(cx, &member.member_id);
        }
        Ok(())
    }
}

fn left(member: LeaveMember, error: Option<GroupError>) -> LeaveMemberResponse {
    let LeaveMember {
        member_id,
        group_instance_id,
        reason: _,
    } = member;
    LeaveMemberResponse {
        member_id,
        group_instance_id,
        error,
    }
}
