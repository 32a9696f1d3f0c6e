//! RemoveRaftVoter (81), v0 (KIP-853). The node goes on as a learner, as Kafka's goes on as an observer.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};

use super::raft_voters::{self, Voter};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};

api!(RemoveRaftVoter, 0..=0, RemoveRaftVoterRequest, handle);

async fn handle(context: Context, _version: i16, request: RemoveRaftVoterRequest) -> RemoveRaftVoterResponse {
    let response = RemoveRaftVoterResponse::default();
    match remove(&context, &request).await {
        Ok(()) => response.with_error_message(None),
        Err(error) => response
            .with_error_code(error.code.code())
            .with_error_message(error.text()),
    }
}

async fn remove(context: &Context, request: &RemoveRaftVoterRequest) -> Result<(), ApiError> {
    let voter = Voter {
        cluster_id: request.cluster_id.as_ref(),
        id: request.voter_id,
        directory: wire::id(request.voter_directory_id),
    };
    let id = raft_voters::check(context, &voter)?;
    raft_voters::check_directory(context, id, voter.directory, ResponseError::VoterNotFound)?;
    let removed = context.broker.quorum().remove_voter(id).await;
    removed.map_err(|error| raft_voters::refusal(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::encodes;

    #[test]
    fn its_version_is_told_what_it_can_read() {
        let response = RemoveRaftVoterResponse::default();
        encodes(
            0,
            &response
                .with_error_code(ResponseError::VoterNotFound.code())
                .with_error_message(ApiError::from(ResponseError::VoterNotFound).text()),
        );
    }
}
