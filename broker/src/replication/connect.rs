//! A connection to another broker's cluster port, for one stream.

use std::time::Duration;

use hyper_util::rt::TokioIo;
use skerry_env::{Clock, Env};
use skerry_proto::replication::replication_client::ReplicationClient;
use skerry_proto::replication::{self as proto};
use skerry_types::is_planted;
use thiserror::Error;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Status, Streaming};

/// HTTP/2 frames: with the usual 16 KiB they cost more than everything else of a stream.
const FRAME_BYTES: u32 = 1 << 20;
/// Room that the protocol's own flow control leaves beyond ours, so that it never decides.
const WINDOW_SLACK_BYTES: u32 = 4 << 20;

/// Why there is no stream.
#[derive(Debug, Error)]
pub(super) enum ConnectError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{0}")]
    Dial(#[from] tonic::transport::Error),
    #[error("{}", .0.message())]
    Refused(Box<Status>),
}

/// Waits for `future`, but not for ever: a peer that hangs, and a network that swallows an answer, must not hold up
/// what others could serve.
pub(super) async fn bounded<F: Future>(
    clock: &Clock,
    deadline: Duration,
    future: F,
) -> Result<F::Output, ConnectError> {
    if is_planted("fetcher-without-deadline") {
        return Ok(future.await);
    }
    clock
        .timeout(deadline, future)
        .await
        .map_err(|_| ConnectError::Timeout(deadline))
}

/// Opens a stream to the broker at `addr`, which says what `said` yields.
pub(super) async fn open(
    env: &Env,
    addr: String,
    deadline: Duration,
    limits: Limits,
    said: impl futures_util::Stream<Item = proto::FollowerMessage> + Send + 'static,
) -> Result<Streaming<proto::LeaderMessage>, ConnectError> {
    let net = env.net.clone();
    let connector = tower::service_fn(move |_: Uri| {
        let (net, addr) = (net.clone(), addr.clone());
        async move { net.dial(&addr).await.map(TokioIo::new) }
    });
    // The connector knows the address: the URI only names the protocol.
    let endpoint = Endpoint::from_static("http://replication.skerry")
        .initial_stream_window_size(limits.window_bytes.saturating_add(WINDOW_SLACK_BYTES))
        .initial_connection_window_size(limits.window_bytes.saturating_add(WINDOW_SLACK_BYTES))
        .max_frame_size(FRAME_BYTES)
        .executor(env.tasks.clone());
    let channel: Channel =
        bounded(&env.clock, deadline, endpoint.connect_with_connector(connector)).await??;
    let mut client = ReplicationClient::new(channel)
        .max_decoding_message_size(limits.message_bytes_max)
        .max_encoding_message_size(usize::MAX);
    let stream = bounded(&env.clock, deadline, client.follow(said)).await?;
    stream
        .map(tonic::Response::into_inner)
        .map_err(|status| ConnectError::Refused(Box::new(status)))
}

/// What a stream may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Bytes that the leader may have sent beyond what this broker has written.
    pub(super) window_bytes: u32,
    /// The largest message: one batch may be as large as a request.
    pub(super) message_bytes_max: usize,
}
