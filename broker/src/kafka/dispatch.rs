//! From a request's key to the file that answers it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::{Decodable, Encodable};
use thiserror::Error;

use super::frame::{Answer, Request};
use super::pipeline::Pipeline;
use crate::broker::Broker;
use crate::budget::Held;
use crate::gate::Caller;

/// Who asks, and through what.
#[derive(Clone)]
pub struct Context {
    /// The node that answers.
    pub broker: Arc<Broker>,
    /// The peer's address, for log lines and for `describe` answers.
    pub peer: std::net::SocketAddr,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// What the client is made of (KIP-511), once it has said so.
    pub software: Arc<parking_lot::Mutex<Option<ClientSoftware>>>,
    /// What producers on this connection were refused for a moment. Locked by one Produce request at a time.
    pub pipeline: Arc<parking_lot::Mutex<Pipeline>>,
    /// The memory of the request's frame, where its answer may wait for other clients ([`Api::parks`]).
    pub frame: FrameMemory,
}

/// The share of the memory budget that a request's frame holds. Whoever needs nothing of the frame while its answer
/// waits gives the share back.
#[derive(Clone, Default)]
pub struct FrameMemory(Option<Arc<parking_lot::Mutex<Option<Held>>>>);

impl FrameMemory {
    /// The frame's share, to be given back early.
    #[must_use]
    pub fn new(held: Held) -> Self {
        Self(Some(Arc::new(parking_lot::Mutex::new(Some(held)))))
    }

    /// The share, if nobody took it yet.
    #[must_use]
    pub fn take(&self) -> Option<Held> {
        self.0.as_ref()?.lock().take()
    }
}

impl Context {
    /// Who asks, for the authorisation and quota points.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller {
            principal: self.broker.anonymous(),
            client_id: self.client_id.clone(),
            peer: self.peer,
        }
    }
}

/// A client library's name and version, from ApiVersions.
#[derive(Clone, Debug)]
pub struct ClientSoftware {
    /// For example `apache-kafka-java`.
    pub name: String,
    /// For example `4.3.1`.
    pub version: String,
}

/// Why the connection ends instead of an answer.
#[derive(Debug, Error)]
pub enum Refusal {
    /// The API exists, this version of it does not, or it is not served to clients.
    #[error("{key:?} version {version} is not supported")]
    Unsupported {
        /// The API.
        key: ApiKey,
        /// The version asked for.
        version: i16,
    },
    /// The body is not what its key and version say.
    #[error("malformed {key:?} version {version}: {why}")]
    Malformed {
        /// The API.
        key: ApiKey,
        /// The version.
        version: i16,
        /// What is wrong.
        why: String,
    },
    /// `acks=0` has no answer: a closed connection is its only sign of an error.
    #[error("a record sent with acks=0 was refused: {0}")]
    Unacknowledged(String),
    /// Our own mistake.
    #[error("cannot encode the answer to {key:?} version {version}: {why}")]
    Encode {
        /// The API.
        key: ApiKey,
        /// The version.
        version: i16,
        /// What is wrong.
        why: String,
    },
}

/// What a request comes to. `None`: no answer is due (`acks=0`).
pub type Outcome = Result<Option<Answer>, Refusal>;
/// A request that is being answered.
pub type Pending = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// One API: the versions that it speaks and the function that answers.
pub struct Api {
    /// Its key.
    pub key: ApiKey,
    /// Lowest version answered.
    pub min: i16,
    /// Highest version answered.
    pub max: i16,
    /// Lowest version told to clients: differs from `min` for Produce alone (KAFKA-18659).
    pub advertised_min: i16,
    /// Told to clients by ApiVersions.
    pub advertised: bool,
    /// Later requests of the connection may start before this one is answered.
    pub overlaps: bool,
    /// The answer may wait for other clients for minutes: the handler gives the frame's memory back meanwhile
    /// ([`Context::frame`]).
    pub parks: bool,
    /// Starts the request; what must happen in the connection's order happens before this returns.
    pub start: fn(Context, Request) -> Pending,
}

/// Finds the API of a request.
///
/// # Errors
/// [`Refusal::Unsupported`].
pub fn find(key: ApiKey, version: i16) -> Result<&'static Api, Refusal> {
    match super::api::ALL.iter().find(|api| api.key == key) {
        // ApiVersions answers every version, if only with what it can (KIP-511).
        Some(api) if key == ApiKey::ApiVersions || (api.min..=api.max).contains(&version) => Ok(api),
        _ => Err(Refusal::Unsupported { key, version }),
    }
}

/// Decodes a request's body.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn decode<R: Decodable>(key: ApiKey, version: i16, body: &mut Bytes) -> Result<R, Refusal> {
    R::decode(body, version).map_err(|error| Refusal::Malformed {
        key,
        version,
        why: error.to_string(),
    })
}

/// Encodes a response.
///
/// # Errors
/// [`Refusal::Encode`]: a bug in an API's file.
pub fn encode<R: Encodable>(key: ApiKey, version: i16, correlation_id: i32, response: &R) -> Outcome {
    Answer::encode(key, version, correlation_id, response)
        .map(Some)
        .map_err(|error| Refusal::Encode {
            key,
            version,
            why: error.to_string(),
        })
}

/// Declares an API whose handler is `async fn(Context, i16 /* version */, Request) -> Response`.
macro_rules! api {
    ($key:ident, $min:literal..=$max:literal, $request:ty, $handler:path) => {
        crate::kafka::dispatch::api!($key, $min..=$max, $request, $handler, parks: false);
    };
    ($key:ident, $min:literal..=$max:literal, $request:ty, $handler:path, parks: $parks:literal) => {
        /// This file's row of the table that ApiVersions answers from.
        pub const API: crate::kafka::dispatch::Api = crate::kafka::dispatch::Api {
            key: kafka_protocol::messages::ApiKey::$key,
            min: $min,
            max: $max,
            advertised_min: $min,
            advertised: true,
            overlaps: false,
            parks: $parks,
            start: |context, request| {
                Box::pin(async move {
                    let crate::kafka::frame::Request {
                        key,
                        version,
                        correlation_id,
                        mut body,
                        ..
                    } = request;
                    let decoded = crate::kafka::dispatch::decode::<$request>(key, version, &mut body)?;
                    // Bytes that are empty still hold on to the frame.
                    drop(body);
                    let response = $handler(context, version, decoded).await;
                    crate::kafka::dispatch::encode(key, version, correlation_id, &response)
                })
            },
        };
    };
}
pub(crate) use api;
