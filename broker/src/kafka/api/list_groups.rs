//! ListGroups (16), v0-v5. v3 is flexible (KIP-482), v4 shows and filters states (KIP-518), v5 types (KIP-848).

use std::sync::Arc;

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;
use skerry_coordinator::{self as coordinator, GroupError, ListRequest, ListResponse};

use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::group_wire::{self, allows_group, owned};
use crate::kafka::wire;

api!(ListGroups, 0..=5, ListGroupsRequest, handle);

async fn handle(context: Context, version: i16, request: ListGroupsRequest) -> ListGroupsResponse {
    let mut listed = match group_wire::ask_all(&context, read(&request)).await.map(merge) {
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) | Err(error) => {
            return ListGroupsResponse::default().with_error_code(group_wire::verdict(Some(error)));
        }
    };
    // Who may describe the cluster sees every group, and everybody else those that it may describe.
    let gate = context.broker.gate();
    if !gate.allows(&context.caller(), Operation::Describe, Resource::Cluster) {
        listed.retain(|group| allows_group(&context, Operation::Describe, &group.group_id));
    }
    let groups = listed.into_iter().map(|group| write(version, &group));
    ListGroupsResponse::default().with_groups(groups.collect())
}

fn read(request: &ListGroupsRequest) -> ListRequest {
    let words = |filter: &[StrBytes]| -> Vec<Arc<str>> { filter.iter().map(owned).collect() };
    ListRequest {
        states: words(&request.states_filter),
        types: words(&request.types_filter),
    }
}

/// The groups of all coordinators. One that has just lost its groups has none; any other error is that of the answer:
/// a list with holes would pass for a whole one.
fn merge(answers: Vec<ListResponse>) -> Result<Vec<coordinator::ListedGroup>, GroupError> {
    let mut groups = Vec::new();
    for answer in answers {
        match answer.error {
            None => groups.extend(answer.groups),
            Some(GroupError::NotCoordinator) => {}
            Some(error) => return Err(error),
        }
    }
    Ok(groups)
}

fn write(version: i16, group: &coordinator::ListedGroup) -> ListedGroup {
    let mut response = ListedGroup::default()
        .with_group_id(group_wire::group_id(&group.group_id))
        .with_protocol_type(wire::text(&group.protocol_type));
    if version >= 4 {
        response.group_state = wire::text(group.state.name());
    }
    if version >= 5 {
        response.group_type = wire::text(group.group_type);
    }
    response
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use skerry_coordinator::GroupState;

    use super::*;
    use crate::kafka::group_wire::testing::round_trip;

    fn group(id: &str) -> coordinator::ListedGroup {
        coordinator::ListedGroup {
            group_id: id.into(),
            protocol_type: "consumer".into(),
            state: GroupState::PreparingRebalance,
            group_type: "classic",
        }
    }

    #[test]
    fn filters_come_with_the_versions_that_have_them() {
        for version in 0..=5 {
            let mut request = ListGroupsRequest::default();
            if version >= 4 {
                request.states_filter = vec![wire::text("stable"), wire::text("Empty")];
            }
            if version >= 5 {
                request.types_filter = vec![wire::text("classic")];
            }
            let seen = read(&round_trip(version, &request));
            let states: &[&str] = if version >= 4 { &["stable", "Empty"] } else { &[] };
            let types: &[&str] = if version >= 5 { &["classic"] } else { &[] };
            assert_eq!(
                seen.states.iter().map(|state| &**state).collect::<Vec<_>>(),
                states
            );
            assert_eq!(seen.types.iter().map(|kind| &**kind).collect::<Vec<_>>(), types);
        }
    }

    #[test]
    fn groups_are_listed_as_each_version_can() {
        let show = |version: i16| {
            let response = ListGroupsResponse::default().with_groups(vec![write(version, &group("g"))]);
            let seen: ListGroupsResponse = round_trip(version, &response);
            let ListedGroup {
                group_id,
                protocol_type,
                group_state,
                group_type,
                ..
            } = &seen.groups[0];
            format!(
                "v{version}: {} {protocol_type:?} {group_state:?} {group_type:?}\n",
                **group_id
            )
        };
        expect![[r#"
            v0: g "consumer" "" ""
            v1: g "consumer" "" ""
            v2: g "consumer" "" ""
            v3: g "consumer" "" ""
            v4: g "consumer" "PreparingRebalance" ""
            v5: g "consumer" "PreparingRebalance" "classic"
        "#]]
        .assert_eq(&(0..=5).map(show).collect::<String>());
    }

    #[test]
    fn one_coordinator_that_cannot_answer_spoils_the_list() {
        let answer = |error: Option<GroupError>, groups: &[&str]| ListResponse {
            error,
            groups: groups.iter().map(|id| group(id)).collect(),
        };
        let gone = || answer(Some(GroupError::NotCoordinator), &[]);
        let listed = merge(vec![answer(None, &["a"]), gone(), answer(None, &["b"])]).unwrap();
        assert_eq!(
            listed.iter().map(|group| &*group.group_id).collect::<Vec<_>>(),
            ["a", "b"]
        );
        let loading = answer(Some(GroupError::CoordinatorLoadInProgress), &[]);
        assert_eq!(
            merge(vec![answer(None, &["a"]), loading]),
            Err(GroupError::CoordinatorLoadInProgress)
        );
    }
}
