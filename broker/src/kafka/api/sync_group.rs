//! SyncGroup (14), v0-v5. v3 brings static members (KIP-345), v4 is flexible (KIP-482), v5 repeats the protocol's type
//! and name, so that a member notices if it talks about another one (KIP-559).
//!
//! The answer waits for the leader's assignment, and until that is durable.

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use skerry_coordinator::{SyncRequest, SyncResponse};

use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::group_wire::{self, allows_group, owned, owned_option};
use crate::kafka::wire;

api!(SyncGroup, 0..=5, SyncGroupRequest, handle, parks: true);

async fn handle(context: Context, version: i16, request: SyncGroupRequest) -> SyncGroupResponse {
    let refused = |error: ResponseError| SyncGroupResponse::default().with_error_code(error.code());
    if lacks_protocol(version, &request) {
        return refused(ResponseError::InconsistentGroupProtocol);
    }
    if !allows_group(&context, Operation::Read, &request.group_id) {
        return refused(ResponseError::GroupAuthorizationFailed);
    }
    let call = read(&request);
    // Nothing of the frame is needed while the answer waits.
    drop(request);
    let group = call.group_id.clone();
    match group_wire::ask_parked(&context, &group, call).await {
        Ok(synced) => write(version, synced),
        Err(error) => refused(group_wire::code(error)),
    }
}

/// From version 5 both are mandatory, although they may be null.
fn lacks_protocol(version: i16, request: &SyncGroupRequest) -> bool {
    version >= 5 && (request.protocol_type.is_none() || request.protocol_name.is_none())
}

fn read(request: &SyncGroupRequest) -> SyncRequest {
    let assignments = request.assignments.iter().map(|assigned| {
        (
            owned(&assigned.member_id),
            Bytes::copy_from_slice(&assigned.assignment),
        )
    });
    SyncRequest {
        group_id: owned(&request.group_id),
        generation_id: request.generation_id,
        member_id: owned(&request.member_id),
        group_instance_id: owned_option(request.group_instance_id.as_ref()),
        protocol_type: owned_option(request.protocol_type.as_ref()),
        protocol_name: owned_option(request.protocol_name.as_ref()),
        assignments: assignments.collect(),
    }
}

fn write(version: i16, synced: SyncResponse) -> SyncGroupResponse {
    let mut response = SyncGroupResponse::default()
        .with_error_code(group_wire::verdict(synced.error))
        .with_assignment(synced.assignment);
    if version >= 5 {
        response.protocol_type = synced.protocol_type.as_deref().map(wire::text);
        response.protocol_name = synced.protocol_name.as_deref().map(wire::text);
    }
    response
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kafka_protocol::messages::GroupId;
    use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
    use skerry_coordinator::GroupError;

    use super::*;
    use crate::kafka::group_wire::testing::round_trip;

    #[test]
    fn a_member_asks_as_its_version_can() {
        let request = |version: i16| {
            let mut request = SyncGroupRequest::default()
                .with_group_id(GroupId(wire::text("g")))
                .with_generation_id(2)
                .with_member_id(wire::text("m"))
                .with_assignments(vec![
                    SyncGroupRequestAssignment::default()
                        .with_member_id(wire::text("m"))
                        .with_assignment(Bytes::from_static(b"all")),
                ]);
            if version >= 3 {
                request.group_instance_id = Some(wire::text("i"));
            }
            if version >= 5 {
                request.protocol_type = Some(wire::text("consumer"));
                request.protocol_name = Some(wire::text("range"));
            }
            read(&round_trip(version, &request))
        };
        for version in 0..=5 {
            let seen = request(version);
            assert_eq!(
                (&*seen.group_id, seen.generation_id, &*seen.member_id),
                ("g", 2, "m")
            );
            assert_eq!(seen.group_instance_id.as_deref(), (version >= 3).then_some("i"));
            assert_eq!(
                seen.protocol_type.as_deref(),
                (version >= 5).then_some("consumer")
            );
            assert_eq!(seen.protocol_name.as_deref(), (version >= 5).then_some("range"));
            assert_eq!(seen.assignments, [("m".into(), Bytes::from_static(b"all"))]);
        }
    }

    #[test]
    fn version_5_must_name_its_protocol() {
        let nameless = SyncGroupRequest::default();
        let named = nameless
            .clone()
            .with_protocol_type(Some(wire::text("consumer")))
            .with_protocol_name(Some(wire::text("range")));
        assert_eq!(
            (lacks_protocol(4, &nameless), lacks_protocol(5, &nameless)),
            (false, true)
        );
        assert!(lacks_protocol(5, &named.clone().with_protocol_name(None)));
        assert!(!lacks_protocol(5, &named));
    }

    #[test]
    fn every_version_is_told_what_it_can_read() {
        let show = |version: i16, synced: SyncResponse| {
            let seen: SyncGroupResponse = round_trip(version, &write(version, synced));
            let (kind, name) = (seen.protocol_type.as_deref(), seen.protocol_name.as_deref());
            format!(
                "v{version}: error {} {kind:?} {name:?} {:?}\n",
                seen.error_code, seen.assignment
            )
        };
        let synced = SyncResponse {
            error: None,
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            assignment: Bytes::from_static(b"all"),
        };
        let refused = SyncResponse {
            error: Some(GroupError::RebalanceInProgress),
            protocol_type: None,
            protocol_name: None,
            assignment: Bytes::new(),
        };
        let all: String = (0..=5).map(|version| show(version, synced.clone())).collect();
        let refusals: String = [0, 4, 5].map(|version| show(version, refused.clone())).concat();
        expect![[r#"
            v0: error 0 None None b"all"
            v1: error 0 None None b"all"
            v2: error 0 None None b"all"
            v3: error 0 None None b"all"
            v4: error 0 None None b"all"
            v5: error 0 Some("consumer") Some("range") b"all"
            v0: error 27 None None b""
            v4: error 27 None None b""
            v5: error 27 None None b""
        "#]]
        .assert_eq(&(all + &refusals));
    }
}
