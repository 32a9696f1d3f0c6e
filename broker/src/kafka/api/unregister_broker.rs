//! UnregisterBroker (64), v0 (KIP-631).
//!
//! A broker that takes part or has replicas is refused: Kafka forgets it all the same, and it can then place nothing
//! until it is restarted.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{UnregisterBrokerRequest, UnregisterBrokerResponse};
use skerry_metadata_state::Command;
use skerry_types::BrokerId;

use crate::broker::Broker;
use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::ApiError;
use crate::topics;

api!(UnregisterBroker, 0..=0, UnregisterBrokerRequest, handle);

async fn handle(
    context: Context,
    _version: i16,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse {
    let allowed = context
        .broker
        .gate()
        .allows(&context.caller(), Operation::Alter, Resource::Cluster);
    let forgotten = if allowed {
        forget(&context.broker, BrokerId(request.broker_id.0)).await
    } else {
        Err(ResponseError::ClusterAuthorizationFailed.into())
    };
    let response = UnregisterBrokerResponse::default();
    match forgotten {
        Ok(()) => response.with_error_message(None),
        Err(error) => response
            .with_error_code(error.code.code())
            .with_error_message(error.text()),
    }
}

async fn forget(broker: &Broker, id: BrokerId) -> Result<(), ApiError> {
    topics::change(broker, Command::UnregisterBroker { broker: id }).await?;
    // Its metadata is nobody's business any more either. A voter stays: whoever decides is changed on purpose only.
    let learner = broker
        .quorum()
        .status()
        .member(id)
        .is_some_and(|member| !member.voter);
    if learner && let Err(error) = broker.quorum().remove_learner(id).await {
        tracing::info!(%id, %error, "a broker was forgotten and stays a learner");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::{ME, encodes, fenced, image};

    #[test]
    fn only_a_broker_that_nobody_needs_is_forgotten() {
        let judged = |image: &skerry_metadata_state::Image, broker| {
            let judged = image.dry_run(&Command::UnregisterBroker { broker }).accepted();
            judged.map_or_else(|refusal| ApiError::from(refusal).code.code(), |_| 0)
        };
        assert_eq!(judged(&image(&[]), ME), 42);
        assert_eq!(judged(&image(&[]), BrokerId(9)), 102);
        assert_eq!(judged(&fenced(&image(&[("one", 1)])), ME), 42);
        assert_eq!(judged(&fenced(&image(&[])), ME), 0);
        encodes(0, &UnregisterBrokerResponse::default().with_error_message(None));
    }
}
