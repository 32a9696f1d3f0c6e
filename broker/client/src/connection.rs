//! One connection to one broker: requests are written in the order of the calls, answers come back in that order.

mod io;

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, Request, StrBytes};
use skerry_env::{Env, TaskHandle};
use skerry_types::Instant;
use tokio::sync::{mpsc, oneshot};

use io::{Outgoing, Shared, Waiting};

/// How a connection behaves.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// The name that the broker sees in every request.
    pub client_id: String,
    /// For the dial and the negotiation of versions together.
    pub connect_timeout: Duration,
    /// An answer longer than this ends the connection.
    pub answer_bytes_max: usize,
    /// Requests that may wait to be written; a further call waits for room.
    pub queued_requests_max: usize,
}

impl Default for ConnectionOptions {
    fn default() -> Self {
        Self {
            client_id: "skerry".to_owned(),
            connect_timeout: Duration::from_secs(10),
            answer_bytes_max: 128 << 20,
            queued_requests_max: 64,
        }
    }
}

/// The versions of one API that a broker speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// The oldest.
    pub min: i16,
    /// The newest.
    pub max: i16,
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.min, self.max)
    }
}

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClosedBecause {
    /// The broker closed it.
    #[error("the broker closed the connection")]
    ByBroker,
    /// Reading or writing failed.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The broker sent what no broker may send.
    #[error("the broker broke the protocol: {0}")]
    Protocol(String),
    /// An answer did not come in time; those behind it could not come either.
    #[error("the broker did not answer in time")]
    Unanswered,
    /// This side closed it.
    #[error("closed by the client")]
    ByClient,
}

/// A connection could not be opened.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there, or the way is cut.
    #[error("cannot connect to {addr}: {reason}")]
    Dial {
        /// Whom it dialled.
        addr: String,
        /// The system's kind of error.
        kind: std::io::ErrorKind,
        /// The system's words.
        reason: String,
    },
    /// The other side did not say in time which versions it speaks.
    #[error("{addr} did not answer within {} ms: is it a Kafka broker?", .after.as_millis())]
    Timeout {
        /// Whom it dialled.
        addr: String,
        /// How long it waited.
        after: Duration,
    },
    /// The other side ended the connection during the negotiation, or is no Kafka broker.
    #[error("{addr} does not negotiate as a Kafka broker does: {reason}")]
    Negotiation {
        /// Whom it dialled.
        addr: String,
        /// What went wrong.
        reason: String,
    },
}

/// A request got no usable answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// Not a byte of the request was written: the broker did not act on it.
    #[error("not sent: {0}")]
    NotSent(ClosedBecause),
    /// It was written, at least in part, and no answer came: the broker may have acted on it.
    #[error("no answer: {0}")]
    Lost(ClosedBecause),
    /// No version of this API is spoken by both sides. Nothing was sent.
    #[error("{api}: the broker speaks {}, this client {ours}", .broker.map_or("no version".to_owned(), |range| range.to_string()))]
    Unsupported {
        /// The API's name.
        api: String,
        /// What the broker advertises, if anything.
        broker: Option<VersionRange>,
        /// What this client speaks.
        ours: VersionRange,
    },
    /// The request cannot be expressed in the version that both speak. Nothing was sent.
    #[error("cannot encode the request: {0}")]
    Encode(String),
    /// The answer cannot be decoded.
    #[error("cannot decode the answer: {0}")]
    Decode(String),
}

impl CallError {
    /// True where the broker certainly never saw the request.
    #[must_use]
    pub fn certainly_not_sent(&self) -> bool {
        match self {
            Self::NotSent(_) | Self::Unsupported { .. } | Self::Encode(_) => true,
            Self::Lost(_) | Self::Decode(_) => false,
        }
    }
}

/// An open connection whose versions are negotiated. Clones share it; it is closed when the last one is dropped.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

struct Inner {
    env: Env,
    addr: String,
    client_id: StrBytes,
    versions: BTreeMap<i16, VersionRange>,
    shared: Arc<Shared>,
    queue: mpsc::Sender<Outgoing>,
    reader: TaskHandle,
    writer: TaskHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close(ClosedBecause::ByClient);
        self.reader.abort();
        self.writer.abort();
    }
}

/// The answer to a request that is on its way. Dropping it forgets the answer, not the request.
pub struct Pending<T> {
    env: Env,
    shared: Arc<Shared>,
    answer: oneshot::Receiver<Result<Bytes, CallError>>,
    started: Arc<io::Started>,
    version: i16,
    deadline: Instant,
    _response: PhantomData<fn() -> T>,
}

impl<T: Decodable + HeaderVersion> Pending<T> {
    /// Waits for the answer until the deadline that the call was given.
    ///
    /// # Errors
    /// [`CallError`]. After a missed deadline the whole connection is closed: answers come in order, so nothing that
    /// waits behind this one would come either.
    pub async fn answer(&mut self) -> Result<T, CallError> {
        let frame = tokio::select! {
            biased;
            answer = &mut self.answer => match answer {
                Ok(answer) => answer?,
                Err(_) => return Err(self.started.error(self.shared.closed_because())),
            },
            () = self.env.clock.sleep_until(self.deadline) => {
                self.shared.close(ClosedBecause::Unanswered);
                return Err(self.started.error(ClosedBecause::Unanswered));
            }
        };
        decode_answer::<T>(frame, self.version)
    }
}

fn decode_answer<T: Decodable + HeaderVersion>(mut frame: Bytes, version: i16) -> Result<T, CallError> {
    let decode = |error: &dyn fmt::Display| CallError::Decode(error.to_string());
    ResponseHeader::decode(&mut frame, T::header_version(version)).map_err(|error| decode(&error))?;
    T::decode(&mut frame, version).map_err(|error| decode(&error))
}

impl Connection {
    /// Connects to `addr` (`host:port`) and negotiates versions.
    ///
    /// # Errors
    /// [`ConnectError`], within `options.connect_timeout`.
    pub async fn open(env: &Env, addr: &str, options: &ConnectionOptions) -> Result<Self, ConnectError> {
        let deadline = env.clock.now() + options.connect_timeout;
        let timed_out = || ConnectError::Timeout {
            addr: addr.to_owned(),
            after: options.connect_timeout,
        };
        let conn = match env
            .clock
            .timeout(options.connect_timeout, env.net.dial(addr))
            .await
        {
            Ok(Ok(conn)) => conn,
            Ok(Err(error)) => {
                return Err(ConnectError::Dial {
                    addr: addr.to_owned(),
                    kind: error.kind(),
                    reason: error.to_string(),
                });
            }
            Err(_) => return Err(timed_out()),
        };
        let shared = Arc::new(Shared::default());
        let (queue, queued) = mpsc::channel(options.queued_requests_max);
        let (read, write) = tokio::io::split(conn);
        let reader = env.tasks.spawn(
            "client-read",
            io::read_loop(read, shared.clone(), options.answer_bytes_max),
        );
        let writer = env
            .tasks
            .spawn("client-write", io::write_loop(write, shared.clone(), queued));
        let mut inner = Inner {
            env: env.clone(),
            addr: addr.to_owned(),
            client_id: StrBytes::from_string(options.client_id.clone()),
            versions: BTreeMap::new(),
            shared,
            queue,
            reader,
            writer,
        };
        inner.versions = inner.negotiate(deadline).await.map_err(|error| match error {
            CallError::NotSent(ClosedBecause::Unanswered) | CallError::Lost(ClosedBecause::Unanswered) => {
                timed_out()
            }
            other => ConnectError::Negotiation {
                addr: addr.to_owned(),
                reason: other.to_string(),
            },
        })?;
        Ok(Self(Arc::new(inner)))
    }

    /// Whom this connection was opened to.
    #[must_use]
    pub fn addr(&self) -> &str {
        &self.0.addr
    }

    /// The versions that the broker advertises, by API key.
    #[must_use]
    pub fn broker_versions(&self) -> &BTreeMap<i16, VersionRange> {
        &self.0.versions
    }

    /// Why the connection has ended, or `None` while it is open.
    #[must_use]
    pub fn closed(&self) -> Option<ClosedBecause> {
        self.0.shared.closed()
    }

    /// Ends the connection: every waiting call fails.
    pub fn close(&self) {
        self.0.shared.close(ClosedBecause::ByClient);
    }

    /// The newest version of `R` that both sides speak.
    ///
    /// # Errors
    /// [`CallError::Unsupported`].
    pub fn version<R: Request>(&self) -> Result<i16, CallError> {
        let ours = VersionRange {
            min: R::VERSIONS.min,
            max: R::VERSIONS.max,
        };
        let broker = self.0.versions.get(&R::KEY).copied();
        match broker {
            Some(range) if range.min.max(ours.min) <= range.max.min(ours.max) => Ok(range.max.min(ours.max)),
            _ => Err(CallError::Unsupported {
                api: io::api_name(R::KEY),
                broker,
                ours,
            }),
        }
    }

    /// Sends `request` in the newest common version and waits for its answer.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<R: Request>(&self, request: &R, timeout: Duration) -> Result<R::Response, CallError> {
        let version = self.version::<R>()?;
        self.call_version(request, version, timeout).await
    }

    /// Sends `request` in `version` and waits for its answer. Does not ask whether the broker speaks it.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_version<R: Request>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<R::Response, CallError> {
        self.send(request, version, timeout).await?.answer().await
    }

    /// Sends `request`; the answer is awaited later. Requests sent one after the other are answered in that order.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send<R: Request>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<Pending<R::Response>, CallError> {
        self.0
            .send(request, version, self.0.env.clock.now() + timeout)
            .await
    }

    /// Sends a request that the broker never answers (Produce with acks=0). Returns once it is handed to the system.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn send_unanswered<R: Request>(
        &self,
        request: &R,
        version: i16,
        timeout: Duration,
    ) -> Result<(), CallError> {
        let deadline = self.0.env.clock.now() + timeout;
        let frame = self
            .0
            .encode(request, version, self.0.shared.next_correlation())?;
        let (written, done) = oneshot::channel();
        let started = Arc::new(io::Started::default());
        let outgoing = Outgoing {
            frame,
            started: started.clone(),
            written: Some(written),
        };
        self.0.enqueue(outgoing, None, deadline).await?;
        match self.0.until(deadline, done).await {
            Some(Ok(())) => Ok(()),
            Some(Err(_)) => Err(started.error(self.0.shared.closed_because())),
            None => Err(started.error(ClosedBecause::Unanswered)),
        }
    }

    /// Sends the bytes of one frame (without its length) as they are and waits for the answer's bytes: for tests of
    /// what a broker does with requests that no client sends. An answer must carry `correlation`.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call_raw(
        &self,
        body: &[u8],
        correlation: i32,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let deadline = self.0.env.clock.now() + timeout;
        let mut frame = BytesMut::with_capacity(body.len() + 4);
        frame.put_u32(u32::try_from(body.len()).map_err(|error| CallError::Encode(error.to_string()))?);
        frame.put_slice(body);
        let (started, answer) = self
            .0
            .enqueue_answered(frame.freeze(), correlation, deadline)
            .await?;
        match self.0.until(deadline, answer).await {
            Some(Ok(answer)) => answer,
            Some(Err(_)) => Err(started.error(self.0.shared.closed_because())),
            None => Err(started.error(ClosedBecause::Unanswered)),
        }
    }
}

impl Inner {
    /// KIP-511: a broker that does not know our version answers in version 0 with error 35 and the range that it
    /// knows, and the connection goes on.
    async fn negotiate(&self, deadline: Instant) -> Result<BTreeMap<i16, VersionRange>, CallError> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("skerry-client"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut version = ApiVersionsRequest::VERSIONS.max;
        loop {
            let frame = self.encode_negotiation(&request, version)?;
            let (started, answer) = self.enqueue_answered(frame.1, frame.0, deadline).await?;
            let answer = match self.until(deadline, answer).await {
                Some(Ok(answer)) => answer?,
                Some(Err(_)) => return Err(started.error(self.shared.closed_because())),
                None => return Err(started.error(ClosedBecause::Unanswered)),
            };
            // The header is version 0 always: the correlation id, then the error.
            let error = answer
                .get(4..6)
                .map(|bytes| i16::from_be_bytes([bytes[0], bytes[1]]));
            let unsupported = error == Some(ResponseError::UnsupportedVersion.code());
            let answered = if unsupported { 0 } else { version };
            let response = decode_answer::<ApiVersionsResponse>(answer, answered)?;
            let ranges: BTreeMap<i16, VersionRange> = response
                .api_keys
                .iter()
                .map(|api| {
                    (
                        api.api_key,
                        VersionRange {
                            min: api.min_version,
                            max: api.max_version,
                        },
                    )
                })
                .collect();
            if !unsupported {
                return match ResponseError::try_from_code(response.error_code) {
                    None => Ok(ranges),
                    Some(error) => Err(CallError::Decode(format!("ApiVersions answered {error}"))),
                };
            }
            let spoken = ranges.get(&ApiVersionsRequest::KEY).map_or(0, |range| range.max);
            if spoken >= version {
                return Err(CallError::Decode(format!(
                    "it refuses ApiVersions v{version} and offers v{spoken}"
                )));
            }
            version = spoken.max(0);
        }
    }

    /// Before version 3 the software's name cannot be told, and the crate refuses to drop it silently.
    fn encode_negotiation(
        &self,
        request: &ApiVersionsRequest,
        version: i16,
    ) -> Result<(i32, Bytes), CallError> {
        let correlation = self.shared.next_correlation();
        let frame = if version >= 3 {
            self.encode(request, version, correlation)
        } else {
            self.encode(&ApiVersionsRequest::default(), version, correlation)
        };
        frame.map(|frame| (correlation, frame))
    }

    fn encode<R: Request>(&self, request: &R, version: i16, correlation: i32) -> Result<Bytes, CallError> {
        let header_version = R::header_version(version);
        let mut header = RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(correlation);
        if header_version >= 1 {
            header.client_id = Some(self.client_id.clone());
        }
        encode_frame(&header, header_version, request, version).map_err(CallError::Encode)
    }

    async fn send<R: Request>(
        &self,
        request: &R,
        version: i16,
        deadline: Instant,
    ) -> Result<Pending<R::Response>, CallError> {
        let correlation = self.shared.next_correlation();
        let frame = self.encode(request, version, correlation)?;
        let (started, answer) = self.enqueue_answered(frame, correlation, deadline).await?;
        Ok(Pending {
            env: self.env.clone(),
            shared: self.shared.clone(),
            answer,
            started,
            version,
            deadline,
            _response: PhantomData,
        })
    }

    async fn enqueue_answered(
        &self,
        frame: Bytes,
        correlation: i32,
        deadline: Instant,
    ) -> Result<(Arc<io::Started>, oneshot::Receiver<Result<Bytes, CallError>>), CallError> {
        let (sender, answer) = oneshot::channel();
        let started = Arc::new(io::Started::default());
        let waiting = Waiting {
            correlation,
            answer: sender,
            started: started.clone(),
        };
        self.enqueue(
            Outgoing {
                frame,
                started: started.clone(),
                written: None,
            },
            Some(waiting),
            deadline,
        )
        .await?;
        Ok((started, answer))
    }

    /// The order of writing and the order of waiting are one: both are settled while the queue's slot is held.
    async fn enqueue(
        &self,
        outgoing: Outgoing,
        waiting: Option<Waiting>,
        deadline: Instant,
    ) -> Result<(), CallError> {
        if let Some(closed) = self.shared.closed() {
            return Err(CallError::NotSent(closed));
        }
        let slot = match self.until(deadline, self.queue.reserve()).await {
            Some(Ok(slot)) => slot,
            Some(Err(_)) => return Err(CallError::NotSent(self.shared.closed_because())),
            None => return Err(CallError::NotSent(ClosedBecause::Unanswered)),
        };
        self.shared
            .enqueue(waiting, || slot.send(outgoing))
            .map_err(CallError::NotSent)
    }

    async fn until<F: Future>(&self, deadline: Instant, future: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            output = future => Some(output),
            () = self.env.clock.sleep_until(deadline) => None,
        }
    }
}

fn encode_frame<R: Request>(
    header: &RequestHeader,
    header_version: i16,
    request: &R,
    version: i16,
) -> Result<Bytes, String> {
    let size = header
        .compute_size(header_version)
        .map_err(|error| error.to_string())?
        + request.compute_size(version).map_err(|error| error.to_string())?;
    let mut frame = BytesMut::with_capacity(size + 4);
    frame.put_u32(u32::try_from(size).map_err(|_| format!("{size} bytes do not fit in one request"))?);
    header
        .encode(&mut frame, header_version)
        .map_err(|error| error.to_string())?;
    request
        .encode(&mut frame, version)
        .map_err(|error| error.to_string())?;
    Ok(frame.freeze())
}
