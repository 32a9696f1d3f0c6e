//! IncrementalAlterConfigs (44), v0-v1 (KIP-339). An operation that does not exist brings Kafka's controller down; here
//! it is INVALID_REQUEST.

use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use skerry_metadata_state::Image;

use crate::config::validate_incremental;
use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::resources;
use crate::kafka::wire::{self, ApiError};
use crate::topics;

api!(
    IncrementalAlterConfigs,
    0..=1,
    IncrementalAlterConfigsRequest,
    handle
);

/// Resources that are changed at a time: they share the quorum's syncs.
const CHANGED_AT_ONCE: usize = 16;

async fn handle(
    context: Context,
    _version: i16,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let named = request
        .resources
        .iter()
        .map(|resource| (resource.resource_type, resource.resource_name.as_str()));
    let is_unknown = |image: &Image| resources::has_unknown_topic(image, named.clone());
    let image = context.broker.newest_image_if(is_unknown).await;
    let repeated = resources::repeated(named.clone());
    let responses = request.resources.iter().map(|resource| {
        let is_repeated = repeated.contains(&(resource.resource_type, resource.resource_name.as_str()));
        let (context, image, validate_only) = (&context, &image, request.validate_only);
        async move {
            let altered = if is_repeated {
                Err(resources::repeated_error())
            } else {
                alter(context, image, resource, validate_only).await
            };
            answer(resource, altered)
        }
    });
    IncrementalAlterConfigsResponse::default()
        .with_responses(wire::in_order(responses, CHANGED_AT_ONCE).await)
}

async fn alter(
    context: &Context,
    image: &Image,
    request: &AlterConfigsResource,
    validate_only: bool,
) -> Result<(), ApiError> {
    let broker = &context.broker;
    let resource = resources::alterable(broker.id(), request.resource_type, &request.resource_name)?;
    resources::authorise(context, Operation::AlterConfigs, &resource)?;
    let current = resources::overrides(image, &resource);
    let ops = request.configs.iter().map(|config| {
        (
            config.name.as_str(),
            config.config_operation,
            config.value.as_deref(),
        )
    });
    let ops = validate_incremental(
        resources::target(&resource),
        ops,
        &current,
        topics::layers(broker, image),
    )
    .map_err(|error| resources::rejected(&resource, error))?;
    resources::alter(context, image, resource, false, ops, validate_only).await
}

fn answer(request: &AlterConfigsResource, altered: Result<(), ApiError>) -> AlterConfigsResourceResponse {
    let (code, message) = resources::verdict(altered);
    AlterConfigsResourceResponse::default()
        .with_error_code(code)
        .with_error_message(message)
        .with_resource_type(request.resource_type)
        .with_resource_name(request.resource_name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::encodes;

    #[test]
    fn every_version_is_told_what_it_can_read() {
        let request = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(wire::text("t"));
        let responses = vec![
            answer(&request, Ok(())),
            answer(&request, Err(resources::repeated_error())),
        ];
        for version in 0..=1 {
            encodes(
                version,
                &IncrementalAlterConfigsResponse::default().with_responses(responses.clone()),
            );
        }
    }
}
