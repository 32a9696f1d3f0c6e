//! DescribeGroups (15), v0-v6. v3 brings authorised operations (KIP-430), v4 static members (KIP-345), v5 is flexible
//! (KIP-482), v6 says that there is no such group, and explains errors (KIP-1043): before, the group is Dead.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse};
use skerry_coordinator::{self as coordinator, DescribeRequest, DescribedMember};

use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::group_wire::{self, allows_group, owned};
use crate::kafka::wire;

api!(DescribeGroups, 0..=6, DescribeGroupsRequest, handle);

async fn handle(context: Context, version: i16, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let (allowed, unauthorised): (Vec<Arc<str>>, Vec<Arc<str>>) = request
        .groups
        .iter()
        .map(|group| owned(group))
        .partition(|group| allows_group(&context, Operation::Describe, group));
    let with_operations = version >= 3 && request.include_authorized_operations;
    let described = group_wire::ask_by_partition(
        &context,
        allowed,
        |groups| DescribeRequest { version, groups },
        |answer| {
            answer
                .groups
                .into_iter()
                .map(|group| write(version, with_operations, group))
                .collect()
        },
        |group, error| refused(&group, group_wire::code(error)),
    );
    // As in Kafka, what may not be looked at comes first.
    let mut groups: Vec<DescribedGroup> = unauthorised
        .iter()
        .map(|group| refused(group, ResponseError::GroupAuthorizationFailed))
        .collect();
    groups.extend(described.await);
    DescribeGroupsResponse::default().with_groups(groups)
}

fn refused(group: &str, error: ResponseError) -> DescribedGroup {
    DescribedGroup::default()
        .with_error_code(error.code())
        .with_error_message(None)
        .with_group_id(group_wire::group_id(group))
        .with_authorized_operations(wire::NO_OPERATIONS)
}

fn write(version: i16, with_operations: bool, group: coordinator::DescribedGroup) -> DescribedGroup {
    let mut response = DescribedGroup::default()
        .with_error_code(group_wire::verdict(group.error))
        .with_error_message(None)
        .with_group_id(group_wire::group_id(&group.group_id))
        .with_group_state(wire::text(group.state.map_or("", |state| state.name())))
        .with_protocol_type(wire::text(&group.protocol_type))
        .with_protocol_data(wire::text(&group.protocol_data))
        .with_members(
            group
                .members
                .into_iter()
                .map(|member| write_member(version, member))
                .collect(),
        )
        .with_authorized_operations(wire::NO_OPERATIONS);
    if version >= 6 {
        response.error_message = group.error_message.as_deref().map(wire::text);
    }
    if with_operations && group.error.is_none() {
        response.authorized_operations = wire::GROUP_OPERATIONS;
    }
    response
}

fn write_member(version: i16, member: DescribedMember) -> DescribedGroupMember {
    let mut response = DescribedGroupMember::default()
        .with_member_id(wire::text(&member.member_id))
        .with_client_id(wire::text(&member.client_id))
        .with_client_host(wire::text(&member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment);
    if version >= 4 {
        response.group_instance_id = member.group_instance_id.as_deref().map(wire::text);
    }
    response
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use expect_test::expect;
    use skerry_coordinator::{GroupError, GroupState};

    use super::*;
    use crate::kafka::group_wire::testing::round_trip;

    fn shown(version: i16, group: DescribedGroup) -> String {
        let response = DescribeGroupsResponse::default().with_groups(vec![group]);
        let seen: DescribeGroupsResponse = round_trip(version, &response);
        let group = &seen.groups[0];
        let mut all = format!(
            "v{version}: {} error {} {:?} state {:?} type {:?} protocol {:?} operations {}\n",
            *group.group_id,
            group.error_code,
            group.error_message.as_deref(),
            &*group.group_state,
            &*group.protocol_type,
            &*group.protocol_data,
            group.authorized_operations,
        );
        for member in &group.members {
            let DescribedGroupMember {
                member_id,
                group_instance_id,
                client_id,
                client_host,
                ..
            } = member;
            let (metadata, assignment) = (&member.member_metadata, &member.member_assignment);
            let instance = group_instance_id.as_deref();
            all += &format!(
                "  {member_id} {instance:?} {client_id} {client_host} {metadata:?} {assignment:?}\n"
            );
        }
        all
    }

    #[test]
    fn a_group_is_described_as_each_version_can() {
        let group = coordinator::DescribedGroup {
            error: None,
            error_message: None,
            group_id: "g".into(),
            state: Some(GroupState::Stable),
            protocol_type: "consumer".into(),
            protocol_data: "range".into(),
            members: vec![DescribedMember {
                member_id: "m".into(),
                group_instance_id: Some("i".into()),
                client_id: "c".into(),
                client_host: "/127.0.0.1".into(),
                metadata: Bytes::from_static(b"topics"),
                assignment: Bytes::from_static(b"all"),
            }],
        };
        let all: String = (0..=6)
            .map(|version| shown(version, write(version, version >= 3, group.clone())))
            .collect();
        expect![[r#"
            v0: g error 0 None state "Stable" type "consumer" protocol "range" operations -2147483648
              m None c /127.0.0.1 b"topics" b"all"
            v1: g error 0 None state "Stable" type "consumer" protocol "range" operations -2147483648
              m None c /127.0.0.1 b"topics" b"all"
            v2: g error 0 None state "Stable" type "consumer" protocol "range" operations -2147483648
              m None c /127.0.0.1 b"topics" b"all"
            v3: g error 0 None state "Stable" type "consumer" protocol "range" operations 3400
              m None c /127.0.0.1 b"topics" b"all"
            v4: g error 0 None state "Stable" type "consumer" protocol "range" operations 3400
              m Some("i") c /127.0.0.1 b"topics" b"all"
            v5: g error 0 None state "Stable" type "consumer" protocol "range" operations 3400
              m Some("i") c /127.0.0.1 b"topics" b"all"
            v6: g error 0 None state "Stable" type "consumer" protocol "range" operations 3400
              m Some("i") c /127.0.0.1 b"topics" b"all"
        "#]]
        .assert_eq(&all);
        assert!(shown(5, write(5, false, group)).contains("operations -2147483648"));
    }

    #[test]
    fn who_cannot_be_described_is_told_why() {
        let dead = |error: Option<GroupError>, message: Option<&str>| coordinator::DescribedGroup {
            error,
            error_message: message.map(str::to_owned),
            group_id: "g".into(),
            state: Some(GroupState::Dead),
            protocol_type: "".into(),
            protocol_data: "".into(),
            members: vec![],
        };
        let all = [
            shown(5, write(5, true, dead(None, None))),
            shown(
                6,
                write(
                    6,
                    true,
                    dead(Some(GroupError::GroupIdNotFound), Some("Group g not found.")),
                ),
            ),
            shown(0, refused("g", ResponseError::GroupAuthorizationFailed)),
            shown(6, refused("g", ResponseError::NotCoordinator)),
        ];
        expect![[r#"
            v5: g error 0 None state "Dead" type "" protocol "" operations 3400
            v6: g error 69 Some("Group g not found.") state "Dead" type "" protocol "" operations -2147483648
            v0: g error 30 None state "" type "" protocol "" operations -2147483648
            v6: g error 16 None state "" type "" protocol "" operations -2147483648
        "#]]
        .assert_eq(&all.concat());
    }
}
