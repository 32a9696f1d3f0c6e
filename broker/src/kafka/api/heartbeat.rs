//! Heartbeat (12), v0-v4. v3 brings static members (KIP-345), v4 is flexible (KIP-482).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};
use skerry_coordinator as coordinator;

use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::group_wire::{self, allows_group, owned, owned_option};

api!(Heartbeat, 0..=4, HeartbeatRequest, handle);

async fn handle(context: Context, _version: i16, request: HeartbeatRequest) -> HeartbeatResponse {
    let error_code = if allows_group(&context, Operation::Read, &request.group_id) {
        match group_wire::ask(&context, &request.group_id, read(&request)).await {
            Ok(heard) => group_wire::verdict(heard.error),
            Err(error) => group_wire::verdict(Some(error)),
        }
    } else {
        ResponseError::GroupAuthorizationFailed.code()
    };
    HeartbeatResponse::default().with_error_code(error_code)
}

fn read(request: &HeartbeatRequest) -> coordinator::HeartbeatRequest {
    coordinator::HeartbeatRequest {
        group_id: owned(&request.group_id),
        generation_id: request.generation_id,
        member_id: owned(&request.member_id),
        group_instance_id: owned_option(request.group_instance_id.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::group_wire::testing::round_trip;
    use crate::kafka::wire;

    #[test]
    fn every_version_says_and_hears_what_it_can() {
        for version in 0..=4 {
            let mut request = HeartbeatRequest::default()
                .with_group_id(group_wire::group_id("g"))
                .with_generation_id(7)
                .with_member_id(wire::text("m"));
            if version >= 3 {
                request.group_instance_id = Some(wire::text("i"));
            }
            let seen = read(&round_trip(version, &request));
            assert_eq!(
                (&*seen.group_id, seen.generation_id, &*seen.member_id),
                ("g", 7, "m")
            );
            assert_eq!(seen.group_instance_id.as_deref(), (version >= 3).then_some("i"));
            let response = HeartbeatResponse::default().with_error_code(27);
            assert_eq!(round_trip(version, &response), response);
        }
    }
}
