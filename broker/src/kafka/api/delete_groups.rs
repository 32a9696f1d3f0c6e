//! DeleteGroups (42), v0-v2 (KIP-229). v2 is flexible (KIP-482). A group with members is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};
use skerry_coordinator::DeleteRequest;

use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::group_wire::{self, allows_group, owned};

api!(DeleteGroups, 0..=2, DeleteGroupsRequest, handle);

async fn handle(context: Context, _version: i16, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let (allowed, unauthorised): (Vec<Arc<str>>, Vec<Arc<str>>) = distinct(&request)
        .into_iter()
        .partition(|group| allows_group(&context, Operation::Delete, group));
    let mut results = group_wire::ask_by_partition(
        &context,
        allowed,
        |groups| DeleteRequest { groups },
        |answer| {
            answer
                .groups
                .into_iter()
                .map(|(group, error)| result(&group, group_wire::verdict(error)))
                .collect()
        },
        |group, error| result(&group, group_wire::verdict(Some(error))),
    )
    .await;
    let refused = ResponseError::GroupAuthorizationFailed.code();
    results.extend(unauthorised.iter().map(|group| result(group, refused)));
    DeleteGroupsResponse::default().with_results(results)
}

/// Each group once: the second time it would be gone, and that would be its answer.
fn distinct(request: &DeleteGroupsRequest) -> Vec<Arc<str>> {
    let mut seen = BTreeSet::new();
    request
        .groups_names
        .iter()
        .filter(|group| seen.insert(group.as_str()))
        .map(|group| owned(group))
        .collect()
}

fn result(group: &str, error_code: i16) -> DeletableGroupResult {
    DeletableGroupResult::default()
        .with_group_id(group_wire::group_id(group))
        .with_error_code(error_code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::group_wire::testing::round_trip;

    #[test]
    fn every_version_names_groups_and_hears_of_each_once() {
        for version in 0..=2 {
            let groups_names = ["a", "b", "a", ""].map(group_wire::group_id).to_vec();
            let request = DeleteGroupsRequest::default().with_groups_names(groups_names);
            let groups = distinct(&round_trip(version, &request));
            assert_eq!(
                groups.iter().map(|group| &**group).collect::<Vec<_>>(),
                ["a", "b", ""]
            );
            let response =
                DeleteGroupsResponse::default().with_results(vec![result("a", 0), result("b", 68)]);
            assert_eq!(round_trip(version, &response), response);
        }
    }
}
