//! SaslHandshake (17), v0-v1, and SaslAuthenticate (36), v0-v2, where nobody authenticates: ILLEGAL_SASL_STATE, as Kafka
//! answers on a plain listener. Not told to clients: there is nothing behind them.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};

use crate::kafka::dispatch::{Api, Context};
use crate::kafka::wire;

/// SaslHandshake.
mod handshake {
    use super::{SaslHandshakeRequest, answer_handshake};
    use crate::kafka::dispatch::api;

    api!(SaslHandshake, 0..=1, SaslHandshakeRequest, answer_handshake);
}

/// SaslAuthenticate.
mod authenticate {
    use super::{SaslAuthenticateRequest, answer_authenticate};
    use crate::kafka::dispatch::api;

    api!(
        SaslAuthenticate,
        0..=2,
        SaslAuthenticateRequest,
        answer_authenticate
    );
}

/// This file's rows of the table that ApiVersions answers from.
pub const HANDSHAKE: Api = Api {
    advertised: false,
    ..handshake::API
};
/// This file's rows of the table that ApiVersions answers from.
pub const AUTHENTICATE: Api = Api {
    advertised: false,
    ..authenticate::API
};

async fn answer_handshake(_: Context, _: i16, _: SaslHandshakeRequest) -> SaslHandshakeResponse {
    refused_handshake()
}

async fn answer_authenticate(_: Context, _: i16, _: SaslAuthenticateRequest) -> SaslAuthenticateResponse {
    refused_authenticate()
}

fn refused_handshake() -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(ResponseError::IllegalSaslState.code())
}

fn refused_authenticate() -> SaslAuthenticateResponse {
    SaslAuthenticateResponse::default()
        .with_error_code(ResponseError::IllegalSaslState.code())
        .with_error_message(Some(wire::text(
            "SaslAuthenticate request received after successful authentication",
        )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::encodes;

    #[test]
    fn every_version_is_told_that_it_is_out_of_place() {
        assert_eq!(refused_handshake().error_code, 34);
        assert_eq!(refused_authenticate().error_code, 34);
        for version in 0..=1 {
            encodes(version, &refused_handshake());
        }
        for version in 0..=2 {
            encodes(version, &refused_authenticate());
        }
        const { assert!(!HANDSHAKE.advertised && !AUTHENTICATE.advertised) };
    }
}
