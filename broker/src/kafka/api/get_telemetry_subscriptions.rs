//! GetTelemetrySubscriptions (71), v0 (KIP-714): answered as Kafka answers it without a receiver of client metrics, that
//! is, with no metric asked for. Not told to clients: each that knew of it would ask for ever.

use kafka_protocol::messages::{GetTelemetrySubscriptionsRequest, GetTelemetrySubscriptionsResponse};
use skerry_types::Uuid;

use crate::kafka::dispatch::{Api, Context};
use crate::kafka::wire;

mod row {
    use super::{GetTelemetrySubscriptionsRequest, handle};
    use crate::kafka::dispatch::api;

    api!(
        GetTelemetrySubscriptions,
        0..=0,
        GetTelemetrySubscriptionsRequest,
        handle
    );
}

/// This file's row of the table that ApiVersions answers from.
pub const API: Api = Api {
    advertised: false,
    ..row::API
};

/// zstd, lz4, gzip, snappy: in the order of Kafka's preference.
const COMPRESSIONS: [i8; 4] = [4, 3, 1, 2];
/// When to ask again.
const PUSH_INTERVAL_MS: i32 = 300_000;
/// `telemetry.max.bytes`.
const TELEMETRY_BYTES_MAX: i32 = 1024 * 1024;

async fn handle(
    context: Context,
    _version: i16,
    request: GetTelemetrySubscriptionsRequest,
) -> GetTelemetrySubscriptionsResponse {
    let given = wire::id(request.client_instance_id);
    answer(if given.is_zero() {
        context.broker.env().rng.uuid()
    } else {
        given
    })
}

fn answer(instance: Uuid) -> GetTelemetrySubscriptionsResponse {
    // Names this (empty) set of subscriptions for this instance: any number that stays the same.
    let [a, b, c, d, ..] = instance.0;
    GetTelemetrySubscriptionsResponse::default()
        .with_client_instance_id(wire::uuid(instance))
        .with_subscription_id(i32::from_be_bytes([a, b, c, d]))
        .with_accepted_compression_types(COMPRESSIONS.to_vec())
        .with_push_interval_ms(PUSH_INTERVAL_MS)
        .with_telemetry_max_bytes(TELEMETRY_BYTES_MAX)
        .with_delta_temporality(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::encodes;

    #[test]
    fn no_metric_is_asked_for() {
        let response = answer(Uuid([7; 16]));
        assert!(response.requested_metrics.is_empty());
        assert_eq!(wire::id(response.client_instance_id), Uuid([7; 16]));
        encodes(0, &response);
        const { assert!(!API.advertised) };
    }
}
