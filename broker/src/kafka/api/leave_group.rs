//! LeaveGroup (13), v0-v5. Up to v2 one member leaves, from v3 many, and static ones by their instance ids (KIP-345);
//! v4 is flexible (KIP-482), v5 has reasons (KIP-800).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use skerry_coordinator::{LeaveMember, LeaveRequest, LeaveResponse};

use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::group_wire::{self, allows_group, owned, owned_option};
use crate::kafka::wire;

api!(LeaveGroup, 0..=5, LeaveGroupRequest, handle);

async fn handle(context: Context, version: i16, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let refused = |error: ResponseError| LeaveGroupResponse::default().with_error_code(error.code());
    if !allows_group(&context, Operation::Read, &request.group_id) {
        return refused(ResponseError::GroupAuthorizationFailed);
    }
    match group_wire::ask(&context, &request.group_id, read(version, &request)).await {
        Ok(left) => write(version, left),
        Err(error) => refused(group_wire::code(error)),
    }
}

fn read(version: i16, request: &LeaveGroupRequest) -> LeaveRequest {
    let members = if version < 3 {
        let member_id = owned(&request.member_id);
        vec![LeaveMember {
            member_id,
            group_instance_id: None,
            reason: None,
        }]
    } else {
        let member = |member: &kafka_protocol::messages::leave_group_request::MemberIdentity| LeaveMember {
            member_id: owned(&member.member_id),
            group_instance_id: owned_option(member.group_instance_id.as_ref()),
            reason: owned_option(member.reason.as_ref()),
        };
        request.members.iter().map(member).collect()
    };
    LeaveRequest {
        group_id: owned(&request.group_id),
        members,
    }
}

fn write(version: i16, left: LeaveResponse) -> LeaveGroupResponse {
    if version < 3 {
        let of_member = left.members.first().and_then(|member| member.error);
        return LeaveGroupResponse::default().with_error_code(group_wire::verdict(left.error.or(of_member)));
    }
    let members = left.members.iter().map(|member| {
        MemberResponse::default()
            .with_member_id(wire::text(&member.member_id))
            .with_group_instance_id(member.group_instance_id.as_deref().map(wire::text))
            .with_error_code(group_wire::verdict(member.error))
    });
    LeaveGroupResponse::default()
        .with_error_code(group_wire::verdict(left.error))
        .with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kafka_protocol::messages::leave_group_request::MemberIdentity;
    use skerry_coordinator::{GroupError, LeaveMemberResponse};

    use super::*;
    use crate::kafka::group_wire::testing::round_trip;

    #[test]
    fn one_member_leaves_before_version_3_and_many_from_there() {
        for version in 0..=5 {
            let mut request = LeaveGroupRequest::default().with_group_id(group_wire::group_id("g"));
            if version < 3 {
                request.member_id = wire::text("m");
            } else {
                let mut gone = MemberIdentity::default().with_member_id(wire::text("m"));
                if version >= 5 {
                    gone.reason = Some(wire::text("bye"));
                }
                let fixed = MemberIdentity::default().with_group_instance_id(Some(wire::text("i")));
                request.members = vec![gone, fixed];
            }
            let seen = read(version, &round_trip(version, &request));
            assert_eq!((&*seen.group_id, &*seen.members[0].member_id), ("g", "m"));
            assert_eq!(seen.members[0].reason.as_deref(), (version >= 5).then_some("bye"));
            if version >= 3 {
                assert_eq!(
                    (
                        &*seen.members[1].member_id,
                        seen.members[1].group_instance_id.as_deref()
                    ),
                    ("", Some("i"))
                );
            }
        }
    }

    #[test]
    fn the_one_member_s_error_is_the_answer_s_before_version_3() {
        let member = |id: &str, error| LeaveMemberResponse {
            member_id: id.into(),
            group_instance_id: Some("i".into()),
            error,
        };
        let left = LeaveResponse {
            error: None,
            members: vec![member("m", Some(GroupError::UnknownMemberId))],
        };
        let refused = LeaveResponse {
            error: Some(GroupError::NotCoordinator),
            members: vec![],
        };
        let mut all = String::new();
        for version in 0..=5 {
            for response in [&left, &refused] {
                let seen: LeaveGroupResponse = round_trip(version, &write(version, response.clone()));
                let show = |member: &MemberResponse| {
                    format!(
                        "{} {:?} {}",
                        member.member_id,
                        member.group_instance_id.as_deref(),
                        member.error_code
                    )
                };
                let members: Vec<String> = seen.members.iter().map(show).collect();
                all += &format!("v{version}: error {} members {members:?}\n", seen.error_code);
            }
        }
        expect![[r#"
            v0: error 25 members []
            v0: error 16 members []
            v1: error 25 members []
            v1: error 16 members []
            v2: error 25 members []
            v2: error 16 members []
            v3: error 0 members ["m Some(\"i\") 25"]
            v3: error 16 members []
            v4: error 0 members ["m Some(\"i\") 25"]
            v4: error 16 members []
            v5: error 0 members ["m Some(\"i\") 25"]
            v5: error 16 members []
        "#]]
        .assert_eq(&all);
    }
}
