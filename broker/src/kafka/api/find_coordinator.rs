//! FindCoordinator (10), v0-v6. v1 tells groups from transactions (KIP-98), v4 asks for many at once (KIP-699), v5
//! TRANSACTION_ABORTABLE (KIP-890), v6 share groups (KIP-932).
//!
//! The first one makes `__consumer_offsets`, and is answered when it can be used.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{self, FindCoordinatorRequest, FindCoordinatorResponse};
use skerry_coordinator::partition_for;
use skerry_metadata_state::{Broker as Registered, Image};
use skerry_types::PartitionIndex;
use std::sync::Arc;

use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};
use crate::topics::{self, CONSUMER_OFFSETS};

api!(FindCoordinator, 0..=6, FindCoordinatorRequest, handle);

/// Consumer groups.
const GROUP: i8 = 0;
/// Transactional ids.
const TRANSACTION: i8 = 1;

async fn handle(context: Context, version: i16, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let ready = prepare(&context, request.key_type).await;
    let image = context.broker.image();
    let caller = context.caller();
    let find_one = |key: &str| {
        ready.clone()?;
        if !context
            .broker
            .gate()
            .allows(&caller, Operation::Describe, Resource::Group(key))
        {
            return Err(ResponseError::GroupAuthorizationFailed.into());
        }
        find(&image, key)
    };
    if version < 4 {
        return single(version, find_one(&request.key));
    }
    let coordinators = request
        .coordinator_keys
        .iter()
        .map(|key| one_of_many(key, find_one(key)));
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

/// Makes sure that there are coordinators of this kind.
async fn prepare(context: &Context, kind: i8) -> Result<(), ApiError> {
    match kind {
        GROUP => topics::ensure(&context.broker, CONSUMER_OFFSETS)
            .await
            .map_err(|error| {
                tracing::warn!(%error, "cannot make {CONSUMER_OFFSETS}");
                ApiError::from(ResponseError::CoordinatorNotAvailable)
            }),
        // Not a retriable error: a client would wait for ever.
        TRANSACTION => Err(ApiError::invalid_request(
            "This broker serves no transactions yet.",
        )),
        _ => Err(ApiError::invalid_request(
            "This broker has no coordinators of this type.",
        )),
    }
}

fn find(image: &Image, group: &str) -> Result<Arc<Registered>, ApiError> {
    let coordinator = || {
        let topic = image.topic(CONSUMER_OFFSETS)?;
        let index = partition_for(
            group,
            i32::try_from(topic.partitions.len())
                .ok()
                .filter(|count| *count > 0)?,
        );
        let leader = topic.partition(PartitionIndex(index))?.leader?;
        image.broker(leader).filter(|broker| !broker.fenced).cloned()
    };
    coordinator().ok_or_else(|| ResponseError::CoordinatorNotAvailable.into())
}

fn single(version: i16, found: Result<Arc<Registered>, ApiError>) -> FindCoordinatorResponse {
    let response = FindCoordinatorResponse::default();
    match found {
        Ok(broker) => {
            let response = response
                .with_node_id(messages::BrokerId(broker.id.get()))
                .with_host(wire::text(&broker.kafka.host))
                .with_port(i32::from(broker.kafka.port));
            // Kafka says "NONE" and not null here.
            if version >= 1 {
                response.with_error_message(Some(wire::text("NONE")))
            } else {
                response
            }
        }
        Err(error) => {
            let response = response
                .with_error_code(error.code.code())
                .with_node_id(messages::BrokerId(-1))
                .with_port(-1);
            if version >= 1 {
                response.with_error_message(error.text())
            } else {
                response
            }
        }
    }
}

fn one_of_many(key: &str, found: Result<Arc<Registered>, ApiError>) -> Coordinator {
    let coordinator = Coordinator::default().with_key(wire::text(key));
    match found {
        Ok(broker) => coordinator
            .with_node_id(messages::BrokerId(broker.id.get()))
            .with_host(wire::text(&broker.kafka.host))
            .with_port(i32::from(broker.kafka.port))
            .with_error_message(Some(wire::text(""))),
        Err(error) => coordinator
            .with_node_id(messages::BrokerId(-1))
            .with_port(-1)
            .with_error_code(error.code.code())
            .with_error_message(error.text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::{ME, encodes, fenced, image};

    #[test]
    fn a_group_s_coordinator_leads_its_partition() {
        let image = image(&[(CONSUMER_OFFSETS, 50)]);
        assert_eq!(find(&image, "a-group").unwrap().id, ME);
        assert_eq!(find(&image, "").unwrap().id, ME, "the empty name is a group too");
        let unavailable = |image: &Image| find(image, "a-group").unwrap_err().code;
        assert_eq!(
            unavailable(&fenced(&image)),
            ResponseError::CoordinatorNotAvailable
        );
        assert_eq!(
            unavailable(&crate::kafka::api::testing::image(&[])),
            ResponseError::CoordinatorNotAvailable
        );
    }

    #[test]
    fn every_version_is_told_what_it_can_read() {
        let broker = image(&[]).broker(ME).unwrap().clone();
        let error = || Err(ApiError::from(ResponseError::CoordinatorNotAvailable));
        for version in 0..=3 {
            encodes(version, &single(version, Ok(broker.clone())));
            encodes(version, &single(version, error()));
        }
        let coordinators = vec![one_of_many("a", Ok(broker)), one_of_many("b", error())];
        for version in 4..=6 {
            encodes(
                version,
                &FindCoordinatorResponse::default().with_coordinators(coordinators.clone()),
            );
        }
    }
}
