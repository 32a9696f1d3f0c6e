//! RemoveRaftVoter (81), v0 (KIP-853). A node that lives goes on as a learner, as Kafka's goes on as an observer. One
//! that does not answer is forgotten: another disk may come in its place, under the same number.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{RemoveRaftVoterRequest, RemoveRaftVoterResponse};

use super::raft_voters::{self, Voter};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};

api!(RemoveRaftVoter, 0..=0, RemoveRaftVoterRequest, handle);

/// A member that has not answered for so long counts as gone: many heartbeats.
const SILENCE: Duration = Duration::from_secs(2);

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
    let quorum = context.broker.quorum();
    let removed = quorum.remove_voter(id).await;
    removed.map_err(|error| raft_voters::refusal(&error))?;
    let status = quorum.status_of_leader().await.ok();
    let heard = status.and_then(|status| status.member(id)?.last_contact);
    if heard.is_none_or(|ago| ago > SILENCE) {
        // It has no vote any more, whatever becomes of this.
        if let Err(error) = quorum.remove_learner(id).await {
            tracing::info!(%id, %error, "a voter was removed and stays a learner");
        }
    }
    Ok(())
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
