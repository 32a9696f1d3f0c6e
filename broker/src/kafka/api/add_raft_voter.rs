//! AddRaftVoter (80), v0 (KIP-853).
//!
//! A node that runs is a learner already, at the address that it told itself: the listeners of the request are not
//! needed, and not looked at.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{AddRaftVoterRequest, AddRaftVoterResponse};

use super::raft_voters::{self, Voter};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};

api!(AddRaftVoter, 0..=0, AddRaftVoterRequest, handle);

async fn handle(context: Context, _version: i16, request: AddRaftVoterRequest) -> AddRaftVoterResponse {
    let response = AddRaftVoterResponse::default();
    match add(&context, &request).await {
        Ok(()) => response.with_error_message(None),
        Err(error) => response
            .with_error_code(error.code.code())
            .with_error_message(error.text()),
    }
}

async fn add(context: &Context, request: &AddRaftVoterRequest) -> Result<(), ApiError> {
    let voter = Voter {
        cluster_id: request.cluster_id.as_ref(),
        id: request.voter_id,
        directory: wire::id(request.voter_directory_id),
    };
    let id = raft_voters::check(context, &voter)?;
    raft_voters::check_directory(context, id, voter.directory, ResponseError::InvalidVoterKey)?;
    let added = context.broker.quorum().add_voter(id).await;
    added.map_err(|error| raft_voters::refusal(&error))
}

#[cfg(test)]
mod tests {
    use skerry_metadata::{ChangeRefused, MembershipError};
    use skerry_types::BrokerId;

    use super::*;
    use crate::kafka::api::testing::encodes;

    #[test]
    fn refusals_have_kafkas_codes() {
        let code = |refused: ChangeRefused| {
            raft_voters::refusal(&MembershipError::Refused(refused))
                .code
                .code()
        };
        assert_eq!(code(ChangeRefused::AlreadyAVoter(BrokerId(1))), 126);
        assert_eq!(code(ChangeRefused::NotAVoter(BrokerId(1))), 127);
        assert_eq!(code(ChangeRefused::InProgress), 7);
        assert_eq!(code(ChangeRefused::LastVoter(BrokerId(1))), 42);
        encodes(0, &AddRaftVoterResponse::default().with_error_message(None));
    }
}
