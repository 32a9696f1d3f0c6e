//! ApiVersions (18), v0-v4. v3 is flexible and carries features (KIP-482, KIP-584); an unknown version is answered in
//! v0 with UNSUPPORTED_VERSION and the one entry for key 18, and the connection goes on (KIP-511).

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey};
use kafka_protocol::messages::{ApiKey, ApiVersionsRequest, ApiVersionsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::kafka::dispatch::{self, Api, ClientSoftware, Context, Pending};
use crate::kafka::frame::Request;

/// This file's row of the table that ApiVersions answers from.
pub const API: Api = Api {
    key: ApiKey::ApiVersions,
    min: 0,
    max: 4,
    advertised_min: 0,
    advertised: true,
    overlaps: false,
    parks: false,
    start,
};

fn start(context: Context, mut request: Request) -> Pending {
    Box::pin(async move {
        let (key, version) = (request.key, request.version);
        if !(API.min..=API.max).contains(&version) {
            let only_this = ApiVersion::default()
                .with_api_key(key as i16)
                .with_min_version(0)
                .with_max_version(API.max);
            let response = ApiVersionsResponse::default()
                .with_error_code(ResponseError::UnsupportedVersion.code())
                .with_api_keys(vec![only_this]);
            return dispatch::encode(key, 0, request.correlation_id, &response);
        }
        let decoded = dispatch::decode::<ApiVersionsRequest>(key, version, &mut request.body)?;
        let response = answer(&context, version, &decoded);
        dispatch::encode(key, version, request.correlation_id, &response)
    })
}

fn answer(context: &Context, version: i16, request: &ApiVersionsRequest) -> ApiVersionsResponse {
    if version >= 3 {
        let (name, software_version) = (&request.client_software_name, &request.client_software_version);
        if !is_software_word(name) || !is_software_word(software_version) {
            return ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code());
        }
        *context.software.lock() = Some(ClientSoftware {
            name: name.to_string(),
            version: software_version.to_string(),
        });
    }
    let api_keys = super::ALL
        .iter()
        .filter(|api| api.advertised)
        .map(|api| {
            ApiVersion::default()
                .with_api_key(api.key as i16)
                .with_min_version(api.advertised_min)
                .with_max_version(api.max)
        })
        .collect();
    let mut response = ApiVersionsResponse::default().with_api_keys(api_keys);
    if version >= 3 {
        response = response
            .with_supported_features(
                // A feature whose lowest level is 0 crashes Java clients up to 3.8 below v4 (KAFKA-17492).
                FEATURES
                    .iter()
                    .filter(|feature| version >= 4 || feature.min > 0)
                    .map(Feature::supported)
                    .collect(),
            )
            .with_finalized_features_epoch(context.broker.metadata_version())
            .with_finalized_features(
                FEATURES
                    .iter()
                    .filter(|feature| feature.finalized > 0)
                    .map(Feature::finalized)
                    .collect(),
            );
    }
    response
}

struct Feature {
    name: &'static str,
    min: i16,
    max: i16,
    finalized: i16,
}

/// What Kafka calls features. A level is finalised only when its whole path works here.
const FEATURES: &[Feature] = &[
    Feature {
        name: "metadata.version",
        min: 7,
        max: 25,
        finalized: 25,
    },
    Feature {
        name: "kraft.version",
        min: 0,
        max: 1,
        finalized: 1,
    },
];

impl Feature {
    fn supported(&self) -> SupportedFeatureKey {
        SupportedFeatureKey::default()
            .with_name(StrBytes::from_static_str(self.name))
            .with_min_version(self.min)
            .with_max_version(self.max)
    }

    fn finalized(&self) -> FinalizedFeatureKey {
        FinalizedFeatureKey::default()
            .with_name(StrBytes::from_static_str(self.name))
            .with_min_version_level(self.finalized)
            .with_max_version_level(self.finalized)
    }
}

/// `[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?`, as Kafka checks it.
fn is_software_word(text: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    edge(bytes.first())
        && edge(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn software_words_are_checked_as_kafka_checks_them() {
        for good in ["librdkafka", "2.11.0-RC1", "a", "apache-kafka-java"] {
            assert!(is_software_word(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", "a_b", ".1"] {
            assert!(!is_software_word(bad), "{bad}");
        }
    }
}
