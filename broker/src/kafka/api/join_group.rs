//! JoinGroup (11), v0-v9. v1 brings the rebalance timeout (KIP-62), v4 asks a new member to come back with the id that
//! it is given (KIP-394), v5 static members (KIP-345), v6 is flexible (KIP-482), v7 names the protocol's type (KIP-559),
//! v8 the member's reason (KIP-800), v9 lets a leader keep its assignment (KIP-814).
//!
//! The answer waits for the other members. v0 and v1 stay: clients without negotiation send them (KAFKA-19444).

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use skerry_coordinator::{JoinMember, JoinRequest, JoinResponse, Protocol};
use skerry_types::Uuid;

use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::group_wire::{self, allows_group, owned, owned_option};
use crate::kafka::wire;

api!(JoinGroup, 0..=9, JoinGroupRequest, handle, parks: true);

async fn handle(context: Context, version: i16, request: JoinGroupRequest) -> JoinGroupResponse {
    if !allows_group(&context, Operation::Read, &request.group_id) {
        return refused(version, ResponseError::GroupAuthorizationFailed);
    }
    let new_member_id = context.broker.env().rng.uuid();
    let call = read(&context, version, new_member_id, &request);
    // Nothing of the frame is needed while the answer waits.
    drop(request);
    let group = call.group_id.clone();
    match group_wire::ask_parked(&context, &group, call).await {
        Ok(joined) => write(version, joined),
        Err(error) => refused(version, group_wire::code(error)),
    }
}

fn read(context: &Context, version: i16, new_member_id: Uuid, request: &JoinGroupRequest) -> JoinRequest {
    JoinRequest {
        version,
        client_id: context.client_id.clone(),
        client_host: group_wire::client_host(context.peer.ip()),
        new_member_id,
        group_id: owned(&request.group_id),
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        member_id: owned(&request.member_id),
        group_instance_id: owned_option(request.group_instance_id.as_ref()),
        protocol_type: owned(&request.protocol_type),
        protocols: request
            .protocols
            .iter()
            .map(|protocol| Protocol {
                name: owned(&protocol.name),
                metadata: Bytes::copy_from_slice(&protocol.metadata),
            })
            .collect(),
        reason: owned_option(request.reason.as_ref()),
    }
}

fn refused(version: i16, error: ResponseError) -> JoinGroupResponse {
    let nothing = JoinResponse {
        error: None,
        generation_id: -1,
        protocol_type: None,
        protocol_name: None,
        leader: "".into(),
        skip_assignment: false,
        member_id: "".into(),
        members: Vec::new(),
    };
    write(version, nothing).with_error_code(error.code())
}

fn write(version: i16, joined: JoinResponse) -> JoinGroupResponse {
    let mut response = JoinGroupResponse::default()
        .with_error_code(group_wire::verdict(joined.error))
        .with_generation_id(joined.generation_id)
        .with_leader(wire::text(&joined.leader))
        .with_member_id(wire::text(&joined.member_id))
        .with_members(
            joined
                .members
                .into_iter()
                .map(|member| one(version, member))
                .collect(),
        );
    response.protocol_name = joined.protocol_name.as_deref().map(wire::text);
    if version >= 7 {
        response.protocol_type = joined.protocol_type.as_deref().map(wire::text);
    } else {
        // Null has no place here yet.
        response.protocol_name.get_or_insert_default();
    }
    if version >= 9 {
        response.skip_assignment = joined.skip_assignment;
    }
    response
}

fn one(version: i16, member: JoinMember) -> JoinGroupResponseMember {
    let mut response = JoinGroupResponseMember::default()
        .with_member_id(wire::text(&member.member_id))
        .with_metadata(member.metadata);
    if version >= 5 {
        response.group_instance_id = member.group_instance_id.as_deref().map(wire::text);
    }
    response
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use skerry_coordinator::GroupError;

    use super::*;
    use crate::kafka::group_wire::testing::round_trip;

    fn shown(version: i16, joined: JoinResponse) -> String {
        let seen: JoinGroupResponse = round_trip(version, &write(version, joined));
        let members: Vec<String> = seen
            .members
            .iter()
            .map(|member| {
                format!(
                    "{} {:?} {:?}",
                    member.member_id, member.group_instance_id, member.metadata
                )
            })
            .collect();
        format!(
            "v{version}: error {} generation {} type {:?} protocol {:?} leader {:?} skip {} member {:?} members {members:?}\n",
            seen.error_code,
            seen.generation_id,
            seen.protocol_type.as_deref(),
            seen.protocol_name.as_deref(),
            &*seen.leader,
            seen.skip_assignment,
            &*seen.member_id,
        )
    }

    #[test]
    fn the_leader_is_told_what_its_version_can_say() {
        let joined = JoinResponse {
            error: None,
            generation_id: 3,
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            leader: "m-1".into(),
            skip_assignment: true,
            member_id: "m-1".into(),
            members: vec![JoinMember {
                member_id: "m-1".into(),
                group_instance_id: Some("i".into()),
                metadata: Bytes::from_static(b"topics"),
            }],
        };
        let all: String = (0..=9).map(|version| shown(version, joined.clone())).collect();
        expect![[r#"
            v0: error 0 generation 3 type None protocol Some("range") leader "m-1" skip false member "m-1" members ["m-1 None b\"topics\""]
            v1: error 0 generation 3 type None protocol Some("range") leader "m-1" skip false member "m-1" members ["m-1 None b\"topics\""]
            v2: error 0 generation 3 type None protocol Some("range") leader "m-1" skip false member "m-1" members ["m-1 None b\"topics\""]
            v3: error 0 generation 3 type None protocol Some("range") leader "m-1" skip false member "m-1" members ["m-1 None b\"topics\""]
            v4: error 0 generation 3 type None protocol Some("range") leader "m-1" skip false member "m-1" members ["m-1 None b\"topics\""]
            v5: error 0 generation 3 type None protocol Some("range") leader "m-1" skip false member "m-1" members ["m-1 Some(\"i\") b\"topics\""]
            v6: error 0 generation 3 type None protocol Some("range") leader "m-1" skip false member "m-1" members ["m-1 Some(\"i\") b\"topics\""]
            v7: error 0 generation 3 type Some("consumer") protocol Some("range") leader "m-1" skip false member "m-1" members ["m-1 Some(\"i\") b\"topics\""]
            v8: error 0 generation 3 type Some("consumer") protocol Some("range") leader "m-1" skip false member "m-1" members ["m-1 Some(\"i\") b\"topics\""]
            v9: error 0 generation 3 type Some("consumer") protocol Some("range") leader "m-1" skip true member "m-1" members ["m-1 Some(\"i\") b\"topics\""]
        "#]]
        .assert_eq(&all);
    }

    #[test]
    fn who_is_refused_is_told_why_in_every_version() {
        let refused = |error, member: &str| JoinResponse {
            error: Some(error),
            generation_id: -1,
            protocol_type: None,
            protocol_name: None,
            leader: "".into(),
            skip_assignment: false,
            member_id: member.into(),
            members: vec![],
        };
        let versions = [0, 4, 6, 7, 9];
        let all: String = versions
            .map(|version| shown(version, refused(GroupError::MemberIdRequired, "c-1")))
            .concat();
        expect![[r#"
            v0: error 79 generation -1 type None protocol Some("") leader "" skip false member "c-1" members []
            v4: error 79 generation -1 type None protocol Some("") leader "" skip false member "c-1" members []
            v6: error 79 generation -1 type None protocol Some("") leader "" skip false member "c-1" members []
            v7: error 79 generation -1 type None protocol None leader "" skip false member "c-1" members []
            v9: error 79 generation -1 type None protocol None leader "" skip false member "c-1" members []
        "#]]
        .assert_eq(&all);
        for version in 0..=9 {
            let response = super::refused(version, ResponseError::GroupAuthorizationFailed);
            assert_eq!(round_trip(version, &response).error_code, 30);
        }
    }
}
