//! DescribeCluster (60), v0-v2. v1 tells brokers from controllers (KIP-919), v2 shows fenced brokers (KIP-1073).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{self, DescribeClusterRequest, DescribeClusterResponse};
use skerry_metadata_state::Image;
use skerry_types::BrokerId;

use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire;

api!(DescribeCluster, 0..=2, DescribeClusterRequest, handle);

/// The kind of endpoint that this listener is.
const BROKERS: i8 = 1;
/// The kind that it is not.
const CONTROLLERS: i8 = 2;

async fn handle(context: Context, version: i16, request: DescribeClusterRequest) -> DescribeClusterResponse {
    answer(&context.broker.image(), context.broker.id(), version, &request)
}

fn answer(
    image: &Image,
    me: BrokerId,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    match request.endpoint_type {
        BROKERS => {}
        CONTROLLERS => {
            let words = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER";
            return refused(ResponseError::MismatchedEndpointType, words);
        }
        other => {
            return refused(
                ResponseError::UnsupportedEndpointType,
                &format!("Unsupported endpoint type {other}"),
            );
        }
    }
    let shown = |broker: &&std::sync::Arc<skerry_metadata_state::Broker>| {
        !broker.fenced || (version >= 2 && request.include_fenced_brokers)
    };
    let brokers = image.brokers().filter(shown).map(|broker| {
        let answer = DescribeClusterBroker::default()
            .with_broker_id(messages::BrokerId(broker.id.get()))
            .with_host(wire::text(&broker.kafka.host))
            .with_port(i32::from(broker.kafka.port))
            .with_rack(broker.rack.as_deref().map(wire::text));
        if version >= 2 {
            answer.with_is_fenced(broker.fenced)
        } else {
            answer
        }
    });
    let controller = if image.is_unfenced(me) {
        Some(me)
    } else {
        image.unfenced_brokers().next().map(|broker| broker.id)
    };
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(wire::text(
            &image.cluster_id().map(|id| id.to_string()).unwrap_or_default(),
        ))
        .with_controller_id(messages::BrokerId(controller.unwrap_or(BrokerId::NONE).get()))
        .with_brokers(brokers.collect());
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = wire::CLUSTER_OPERATIONS;
    }
    response
}

fn refused(code: ResponseError, message: &str) -> DescribeClusterResponse {
    DescribeClusterResponse::default()
        .with_error_code(code.code())
        .with_error_message(Some(wire::text(message)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::{ME, encodes, fenced, image};

    fn asked() -> DescribeClusterRequest {
        DescribeClusterRequest::default()
    }

    #[test]
    fn brokers_are_told_in_every_version() {
        for version in 0..=2 {
            let response = answer(
                &image(&[]),
                ME,
                version,
                &asked().with_include_cluster_authorized_operations(true),
            );
            assert_eq!(
                (
                    response.error_code,
                    response.brokers.len(),
                    response.controller_id.0
                ),
                (0, 1, ME.get())
            );
            assert_eq!(response.cluster_authorized_operations, wire::CLUSTER_OPERATIONS);
            encodes(version, &response);
        }
    }

    #[test]
    fn a_fenced_broker_is_shown_to_who_asks() {
        let image = fenced(&image(&[]));
        assert_eq!(answer(&image, ME, 2, &asked()).brokers, []);
        let shown = answer(&image, ME, 2, &asked().with_include_fenced_brokers(true));
        assert!(shown.brokers[0].is_fenced);
        encodes(2, &shown);
    }

    #[test]
    fn controllers_are_asked_for_elsewhere() {
        assert_eq!(
            answer(&image(&[]), ME, 1, &asked().with_endpoint_type(2)).error_code,
            114
        );
        assert_eq!(
            answer(&image(&[]), ME, 1, &asked().with_endpoint_type(9)).error_code,
            115
        );
    }
}
