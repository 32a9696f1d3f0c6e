//! InitProducerId (22), v0-v5: an id for an idempotent producer (KIP-98). v3 brings the id that the producer has
//! (KIP-360), which counts only with a transactional id; v4 PRODUCER_FENCED (KIP-588), v5 TRANSACTION_ABORTABLE
//! (KIP-890). Version 6 is not stable in Kafka either (KIP-939).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId};

use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};

api!(InitProducerId, 0..=5, InitProducerIdRequest, handle);

async fn handle(context: Context, _version: i16, request: InitProducerIdRequest) -> InitProducerIdResponse {
    if let Err(code) = judge(&request) {
        return refused(code);
    }
    let broker = &context.broker;
    if !broker
        .gate()
        .allows(&context.caller(), Operation::IdempotentWrite, Resource::Cluster)
    {
        return refused(ResponseError::ClusterAuthorizationFailed);
    }
    match broker.producer_ids().next(broker).await {
        Ok(id) => InitProducerIdResponse::default()
            .with_producer_id(ProducerId(id.get()))
            .with_producer_epoch(0),
        Err(error) => {
            tracing::warn!(%error, "no producer ids");
            // What Kafka answers while it waits for its next block; clients ask again.
            refused(ResponseError::CoordinatorLoadInProgress)
        }
    }
}

fn judge(request: &InitProducerIdRequest) -> Result<(), ResponseError> {
    let has_id = request.producer_id.0 != -1;
    let has_epoch = request.producer_epoch != -1;
    // Transactions are not served: FindCoordinator has said so already, and no client that listens comes here.
    if has_id != has_epoch || request.transactional_id.is_some() {
        return Err(ResponseError::InvalidRequest);
    }
    Ok(())
}

fn refused(code: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(code.code())
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TransactionalId;

    use super::*;
    use crate::kafka::api::testing::encodes;
    use crate::kafka::wire;

    #[test]
    fn an_id_comes_with_its_epoch_or_not_at_all() {
        let asked = |id, epoch| {
            judge(
                &InitProducerIdRequest::default()
                    .with_transactional_id(None)
                    .with_producer_id(ProducerId(id))
                    .with_producer_epoch(epoch),
            )
        };
        assert_eq!(asked(-1, -1), Ok(()));
        assert_eq!(asked(7, 3), Ok(()), "without a transactional id both are ignored");
        assert_eq!(asked(7, -1), Err(ResponseError::InvalidRequest));
        assert_eq!(asked(-1, 3), Err(ResponseError::InvalidRequest));
    }

    #[test]
    fn transactions_are_refused() {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(wire::text("t"))))
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        assert_eq!(judge(&request), Err(ResponseError::InvalidRequest));
        for version in 0..=5 {
            encodes(version, &refused(ResponseError::InvalidRequest));
        }
    }
}
