//! DescribeGroups (0 to 6), ListGroups (0 to 5) and DeleteGroups (0 to 2).

use std::sync::Arc;

use bytes::Bytes;

use crate::api::{
    DeleteRequest, DeleteResponse, DescribeRequest, DescribeResponse, DescribedGroup, DescribedMember,
    GroupError, GroupState, ListRequest, ListResponse, ListedGroup, ReplyToken, Response,
};
use crate::append::Change;
use crate::group::{Group, Member};
use crate::shard::GroupShard;

const GROUP_TYPE: &str = "classic";

impl DescribedGroup {
    pub(crate) fn refused(group_id: &Arc<str>, error: GroupError) -> Self {
        Self {
            error: Some(error),
            error_message: None,
            group_id: group_id.clone(),
            state: None,
            protocol_type: Arc::default(),
            protocol_data: Arc::default(),
            members: Vec::new(),
        }
    }

    /// KIP-1043: an error from version 6, the state Dead in every version.
    fn unknown(group_id: &Arc<str>, version: i16) -> Self {
        let mut dead = Self::refused(group_id, GroupError::GroupIdNotFound);
        dead.state = Some(GroupState::Dead);
        if version >= 6 {
            dead.error_message = Some(format!("Group {group_id} not found."));
        } else {
            dead.error = None;
        }
        dead
    }
}

impl Group {
    /// Whoever was told that it has joined can be seen, even before the group's first record is durable: members and
    /// states of later generations are shown before any record of them, too.
    fn is_visible(&self) -> bool {
        self.durable || self.len() > 0
    }

    fn describe(&self) -> DescribedGroup {
        // Between generations the members' metadata belongs to no protocol.
        let protocol = self
            .protocol
            .as_deref()
            .filter(|_| self.is_in(GroupState::Stable));
        let view = |member: &Member| DescribedMember {
            member_id: member.id.clone(),
            group_instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol
                .and_then(|name| member.metadata(name))
                .cloned()
                .unwrap_or_else(Bytes::new),
            assignment: member.assignment.clone(),
        };
        DescribedGroup {
            error: None,
            error_message: None,
            group_id: self.id.clone(),
            state: Some(self.state),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol_data: protocol.map(Arc::from).unwrap_or_default(),
            members: self.members().map(view).collect(),
        }
    }

    fn validate_delete(&self) -> Result<(), GroupError> {
        match self.state {
            GroupState::Empty => Ok(()),
            GroupState::Dead => Err(GroupError::GroupIdNotFound),
            GroupState::Stable | GroupState::PreparingRebalance | GroupState::CompletingRebalance => {
                Err(GroupError::NonEmptyGroup)
            }
        }
    }
}

impl GroupShard {
    pub(crate) fn describe(&mut self, token: ReplyToken, request: &DescribeRequest) {
        let one = |id: &Arc<str>| match self.groups.get(id).filter(|group| group.is_visible()) {
            Some(group) => group.describe(),
            None => DescribedGroup::unknown(id, request.version),
        };
        let response = DescribeResponse {
            groups: request.groups.iter().map(one).collect(),
        };
        self.cx.reply(token, Response::Describe(response));
    }

    pub(crate) fn list(&mut self, token: ReplyToken, request: &ListRequest) {
        let passes = |filter: &[Arc<str>], word: &str| {
            filter.is_empty()
                || filter
                    .iter()
                    .any(|wanted| wanted.trim().eq_ignore_ascii_case(word))
        };
        let listed = self.groups.values().filter(|group| {
            group.is_visible()
                && passes(&request.states, group.state.name())
                && passes(&request.types, GROUP_TYPE)
        });
        let view = |group: &Group| ListedGroup {
            group_id: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state,
            group_type: GROUP_TYPE,
        };
        let response = ListResponse {
            error: None,
            groups: listed.map(view).collect(),
        };
        self.cx.reply(token, Response::List(response));
    }

    pub(crate) fn delete(&mut self, token: ReplyToken, request: DeleteRequest) {
        let mut changes = Vec::new();
        let mut groups = Vec::with_capacity(request.groups.len().min(1_024));
        for group_id in request.groups {
            let verdict = match self.groups.get(&group_id) {
                Some(group) => group.validate_delete(),
                None => Err(GroupError::GroupIdNotFound),
            };
            if verdict.is_ok() {
                changes.extend(self.removals(&group_id, |_| true));
                changes.push(Change::RemoveGroup {
                    group: group_id.clone(),
                });
            }
            groups.push((group_id, verdict.err()));
        }
        let response = Response::Delete(DeleteResponse { groups });
        if changes.is_empty() {
            self.cx.reply(token, response);
        } else {
            self.cx.append_in_chunks(changes, token, response);
        }
    }
}
