//! What AddRaftVoter and RemoveRaftVoter have in common (KIP-853).

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use skerry_metadata::{ChangeRefused, MembershipError};
use skerry_types::{BrokerId, Uuid};

use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::Context;
use crate::kafka::wire::ApiError;

/// Which node a request means.
pub(super) struct Voter<'a> {
    pub(super) cluster_id: Option<&'a StrBytes>,
    pub(super) id: i32,
    pub(super) directory: Uuid,
}

/// Checks that the request means this cluster, and gives the node's number.
///
/// # Errors
/// It means another cluster, or no node; or the caller may not.
pub(super) fn check(context: &Context, voter: &Voter<'_>) -> Result<BrokerId, ApiError> {
    let broker = &context.broker;
    if !broker
        .gate()
        .allows(&context.caller(), Operation::Alter, Resource::Cluster)
    {
        return Err(ResponseError::ClusterAuthorizationFailed.into());
    }
    let ours = broker.image().cluster_id().map(|id| id.to_string());
    if let Some(theirs) = voter.cluster_id
        && ours.as_deref() != Some(theirs.as_str())
    {
        return Err(ResponseError::InconsistentClusterId.into());
    }
    if voter.id < 0 {
        return Err(ApiError::invalid_request("a node's number is not negative"));
    }
    Ok(BrokerId(voter.id))
}

/// Whether the request means the data directory that the member has. Who does not name one means any.
///
/// # Errors
/// It means another one.
pub(super) fn check_directory(
    context: &Context,
    id: BrokerId,
    wanted: Uuid,
    otherwise: ResponseError,
) -> Result<(), ApiError> {
    let nil = Uuid([0; 16]);
    let status = context.broker.quorum().status();
    match status.member(id) {
        Some(member) if wanted != nil && member.directory != nil && member.directory != wanted => {
            let words = format!("node {id} has the directory {}, not {wanted}", member.directory);
            Err(ApiError::new(otherwise, words))
        }
        _ => Ok(()),
    }
}

/// As Kafka answers it, with our words.
pub(super) fn refusal(error: &MembershipError) -> ApiError {
    let code = match error {
        MembershipError::Refused(refused) => match refused {
            ChangeRefused::AlreadyAVoter(_) => ResponseError::DuplicateVoter,
            ChangeRefused::NotAVoter(_) => ResponseError::VoterNotFound,
            // Kafka answers these while the new voter does not answer, lags, or another change is under way.
            ChangeRefused::NotCaughtUp { .. } | ChangeRefused::InProgress => ResponseError::RequestTimedOut,
            ChangeRefused::OtherCluster(_) => ResponseError::InconsistentClusterId,
            ChangeRefused::OtherDirectory(_) => ResponseError::InvalidVoterKey,
            ChangeRefused::UnknownNode(_)
            | ChangeRefused::StillAVoter(_)
            | ChangeRefused::LosesMajority { .. }
            | ChangeRefused::LastVoter(_) => ResponseError::InvalidRequest,
        },
        MembershipError::Timeout(_) | MembershipError::Stopped(_) => ResponseError::RequestTimedOut,
    };
    ApiError::new(code, error.to_string())
}
