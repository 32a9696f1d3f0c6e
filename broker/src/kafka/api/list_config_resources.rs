//! ListConfigResources (74), v0-v1. v0 is ListClientMetricsResources (KIP-714), v1 lists all kinds (KIP-1142).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_config_resources_response::ConfigResource as Listed;
use kafka_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};
use skerry_metadata_state::{ConfigResource, Image};

use crate::kafka::dispatch::{Context, api};
use crate::kafka::resources::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::kafka::wire;

api!(ListConfigResources, 0..=1, ListConfigResourcesRequest, handle);

const KINDS: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

async fn handle(
    context: Context,
    version: i16,
    request: ListConfigResourcesRequest,
) -> ListConfigResourcesResponse {
    answer(&context.broker.image(), version, &request)
}

fn answer(image: &Image, version: i16, request: &ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    // Version 0 knows subscriptions to client metrics alone, and there are none.
    if version == 0 {
        return ListConfigResourcesResponse::default();
    }
    if request.resource_types.iter().any(|kind| !KINDS.contains(kind)) {
        return ListConfigResourcesResponse::default()
            .with_error_code(ResponseError::UnsupportedVersion.code());
    }
    let wanted = |kind: i8| request.resource_types.is_empty() || request.resource_types.contains(&kind);
    let listed = KINDS
        .into_iter()
        .filter(|kind| wanted(*kind))
        .flat_map(|kind| names(image, kind).into_iter().map(move |name| (kind, name)))
        .map(|(kind, name)| {
            Listed::default()
                .with_resource_name(wire::text(&name))
                .with_resource_type(kind)
        });
    ListConfigResourcesResponse::default().with_config_resources(listed.collect())
}

fn names(image: &Image, kind: i8) -> Vec<String> {
    match kind {
        TOPIC => image.topics().map(|topic| topic.name.to_string()).collect(),
        BROKER | BROKER_LOGGER => image.brokers().map(|broker| broker.id.to_string()).collect(),
        GROUP => image
            .configured_resources()
            .filter_map(|(resource, _)| match resource {
                ConfigResource::Group(name) => Some(name.to_string()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::{encodes, image};

    fn told(version: i16, kinds: &[i8]) -> String {
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let response = answer(&image(&[("b", 1), ("a", 1)]), version, &request);
        encodes(version, &response);
        let listed = response
            .config_resources
            .iter()
            .map(|one| format!("{}:{}", one.resource_type, &*one.resource_name));
        format!("{} {}", response.error_code, listed.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn resources_are_listed_by_kind() {
        assert_eq!(told(1, &[]), "0 2:a 2:b 4:1 8:1");
        assert_eq!(told(1, &[BROKER]), "0 4:1");
        assert_eq!(told(1, &[GROUP, CLIENT_METRICS]), "0 ");
        assert_eq!(told(1, &[TOPIC, 77]), "35 ");
        assert_eq!(told(0, &[]), "0 ");
    }
}
