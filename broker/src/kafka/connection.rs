//! One client's connection: frames are read, started in order and answered in order.
//!
//! One task does all of it. Requests that overlap (Produce) are started one after the other without waiting for the
//! answers, so that an append that waits for the disk does not hold up the next; any other request waits until
//! everything before it has been answered, as Kafka's muted channel makes it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use skerry_env::Conn;
use skerry_types::{Instant, buggify, is_planted};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

use super::dispatch::{self, Api, Context, FrameMemory, Outcome, Refusal};
use super::frame::{self, Answer, COPIED_BYTES_MAX, FrameError, LENGTH_BYTES, Request};
use super::listener::complain;
use super::shape;
use crate::broker::Broker;
use crate::budget::Held;

/// Room for small frames; a larger one reserves what it needs.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// Requests of one connection that may wait for the disk at a time. Clients keep 5 in flight by default.
const OVERLAPPING_MAX: usize = 64;
/// A frame up to this size takes its memory at once; a larger one takes it as its bytes arrive, one such frame at a
/// time in the whole broker: two half-read giants could wait for each other's memory for ever.
const WHOLE_FRAME_BYTES_MAX: usize = 1024 * 1024;
/// What a large frame takes at a time.
const CHUNK_BYTES: usize = 256 * 1024;
/// How long a request that decodes to more than a small frame waits for memory.
const ROOM_WAIT: Duration = Duration::from_secs(5);
/// A frame that has begun must have come whole after this and the time its bytes need at the lowest rate.
const FRAME_GRACE: Duration = Duration::from_secs(30);
/// The lowest rate that a slow client may send a frame with, or take an answer.
const BYTES_PER_SECOND_MIN: u64 = 16 * 1024;
/// A client that takes none of its answer may do so for this long, and for [`FRAME_GRACE`] while nobody waits for the
/// memory that the answer holds.
const DEAF_GRACE: Duration = Duration::from_secs(5);

/// Why a connection ended.
#[derive(Debug, Error)]
enum Ended {
    /// The peer closed it, or it broke: an everyday event.
    #[error("the peer closed the connection")]
    ByPeer,
    #[error("nothing was sent for connections.max.idle.ms")]
    Idle,
    #[error("the node is stopping")]
    Stopping,
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Refused(#[from] Refusal),
    #[error("a frame of {bytes} bytes was announced; at most {max} are allowed (socket.request.max.bytes)")]
    Oversized { bytes: i32, max: usize },
    #[error("a request would take {bytes} bytes when decoded: the memory budget has no room for it")]
    NoRoom { bytes: usize },
    #[error("{have} of a frame's {want} bytes came in the time allowed")]
    Slow { have: usize, want: usize },
    #[error("it took {taken} of an answer's {want} bytes in the time allowed")]
    Deaf { taken: usize, want: usize },
}

/// Serves `conn` until it ends.
pub async fn serve(broker: Arc<Broker>, conn: Conn, stop: CancellationToken) {
    let peer = conn.peer();
    broker.metrics().connections_open.inc();
    let mut connection = Connection::new(broker.clone(), conn);
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => Ended::Stopping,
        ended = connection.run() => ended,
    };
    broker.metrics().connections_open.dec();
    match ended {
        Ended::ByPeer | Ended::Idle | Ended::Stopping | Ended::Io(_) => tracing::debug!(%peer, "{ended}"),
        _ => complain(broker.complaints(), &broker, peer, &ended.to_string()),
    }
}

struct Connection {
    conn: Conn,
    context: Context,
    buffer: BytesMut,
    held: Option<Held>,
    /// The permission to read a large frame.
    large: Option<tokio::sync::OwnedSemaphorePermit>,
    /// When the frame that is being read began.
    frame_began: Option<Instant>,
    last_active: Instant,
    started: FuturesOrdered<Started>,
    /// Read, but not yet startable.
    next: Option<(Request, &'static Api, Held)>,
    outgoing: Outgoing,
}

type Started = std::pin::Pin<Box<dyn Future<Output = (Outcome, Option<Held>)> + Send>>;

impl Connection {
    fn new(broker: Arc<Broker>, conn: Conn) -> Self {
        let last_active = broker.env().clock.now();
        let context = Context {
            peer: conn.peer(),
            broker,
            client_id: "".into(),
            software: Arc::default(),
            pipeline: Arc::default(),
            frame: FrameMemory::default(),
        };
        Self {
            conn,
            context,
            buffer: BytesMut::new(),
            held: None,
            large: None,
            frame_began: None,
            last_active,
            started: FuturesOrdered::new(),
            next: None,
            outgoing: Outgoing::default(),
        }
    }

    async fn run(&mut self) -> Ended {
        match self.try_run().await {
            Ok(()) => Ended::ByPeer,
            Err(ended) => ended,
        }
    }

    async fn try_run(&mut self) -> Result<(), Ended> {
        let clock = self.context.broker.env().clock.clone();
        // Armed again only when it has fired: a timer for each frame would cost more than the frame.
        let mut alarm = clock.sleep_until(self.deadline());
        loop {
            self.start_what_may_start()?;
            let may_read = self.next.is_none();
            tokio::select! {
                biased;
                Some((outcome, held)) = self.started.next(), if !self.started.is_empty() => {
                    self.finish(outcome, held).await?;
                }
                frame = read_frame(
                    &mut self.conn, &mut self.buffer, &mut self.held, &mut self.large, &mut self.frame_began,
                    &self.context.broker,
                ), if may_read => {
                    let Some((frame, held)) = frame? else {
                        return Ok(());
                    };
                    self.last_active = clock.now();
                    self.accept(frame, held).await?;
                }
                () = &mut alarm => {
                    self.check_deadline(clock.now())?;
                    alarm = clock.sleep_until(self.deadline());
                }
            }
        }
    }

    async fn accept(&mut self, frame: Bytes, mut held: Held) -> Result<(), Ended> {
        let mut request = frame::parse(frame)?;
        let api = dispatch::find(request.key, request.version)?;
        // Only a version of ApiVersions that we do not speak comes this far without being served; nobody decodes it.
        if (api.min..=api.max).contains(&request.version) {
            let shape = shape::check(request.key, request.version, &request.body)?;
            if shape.expanded > WHOLE_FRAME_BYTES_MAX {
                held.merge(room_to_decode(&self.context.broker, shape.expanded).await?);
            }
            // A copy that nobody pays for must be small; a larger one is refused by the decoder.
            if !shape.not_text.is_empty() && request.body.len() <= COPIED_BYTES_MAX {
                request.body = shape::made_text(&request.body, &shape.not_text);
            }
        }
        if let Some(client_id) = &request.client_id
            && **client_id != *self.context.client_id
        {
            self.context.client_id = client_id.as_str().into();
        }
        self.next = Some((request, api, held));
        Ok(())
    }

    fn start_what_may_start(&mut self) -> Result<(), Ended> {
        let Some((_, api, _)) = &self.next else {
            return Ok(());
        };
        let may_start = self.started.is_empty() || (api.overlaps && self.started.len() < OVERLAPPING_MAX);
        if may_start && let Some((request, api, held)) = self.next.take() {
            self.context.broker.metrics().request(api.key);
            let mut context = self.context.clone();
            if api.parks {
                let frame = FrameMemory::new(held);
                context.frame = frame.clone();
                let pending = (api.start)(context, request);
                self.started
                    .push_back(Box::pin(async move { (pending.await, frame.take()) }));
            } else {
                let pending = (api.start)(context, request);
                self.started
                    .push_back(Box::pin(async move { (pending.await, Some(held)) }));
            }
            self.wait_for_peer();
        }
        Ok(())
    }

    /// Sends an answer, and with it those that are ready by now.
    async fn finish(&mut self, outcome: Outcome, held: Option<Held>) -> Result<(), Ended> {
        let mut refused = self.outgoing.add(outcome, held).err();
        while refused.is_none() && !self.started.is_empty() {
            // Its waker is the select's: polled again there, nothing is lost.
            let ready = self.started.next().now_or_never().flatten();
            let Some((outcome, held)) = ready else { break };
            refused = self.outgoing.add(outcome, held).err();
        }
        if buggify("answers-lost-after-effect", 100) {
            return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
        }
        // What was answered before a refusal is still owed.
        write_all(&mut self.conn, &mut self.outgoing, &self.context.broker).await?;
        if is_planted("memory-of-answers-stays-taken") && self.outgoing.held.len() > 1 {
            std::mem::forget(std::mem::take(&mut self.outgoing.held));
        }
        self.outgoing.held.clear();
        self.last_active = self.context.broker.env().clock.now();
        self.wait_for_peer();
        refused.map_or(Ok(()), |refusal| Err(refusal.into()))
    }

    /// A frame of which something has come waits for its peer from now on: until now it waited for us.
    fn wait_for_peer(&mut self) {
        if self.frame_began.is_some() {
            self.frame_began = Some(self.context.broker.env().clock.now());
        }
    }

    fn frame_deadline(&self) -> Option<Instant> {
        // Behind a request that cannot start yet nothing is read.
        let began = self.frame_began.filter(|_| self.next.is_none())?;
        let want = announced(&self.buffer).unwrap_or(0);
        Some(began + FRAME_GRACE + Duration::from_secs(want as u64 / BYTES_PER_SECOND_MIN))
    }

    fn deadline(&self) -> Instant {
        let idle = self.last_active + self.context.broker.connection_limits().idle;
        // A frame may begin at any moment: look often enough to see it.
        self.frame_deadline()
            .unwrap_or_else(|| idle.min(self.context.broker.env().clock.now() + FRAME_GRACE))
    }

    fn check_deadline(&self, now: Instant) -> Result<(), Ended> {
        if self.frame_deadline().is_some_and(|deadline| now >= deadline) {
            let want = announced(&self.buffer).unwrap_or(LENGTH_BYTES);
            return Err(Ended::Slow {
                have: self.buffer.len(),
                want,
            });
        }
        let quiet = self.started.is_empty() && self.next.is_none();
        if quiet && now >= self.last_active + self.context.broker.connection_limits().idle {
            return Err(Ended::Idle);
        }
        Ok(())
    }
}

/// Waits for the memory that decoding will take beside its frame. Not for ever: whoever holds the rest of the budget may
/// be waiting for the same.
async fn room_to_decode(broker: &Broker, bytes: usize) -> Result<Held, Ended> {
    if bytes > broker.budget().total_bytes() / 2 {
        return Err(Ended::NoRoom { bytes });
    }
    let room = broker.budget().take(bytes);
    broker
        .env()
        .clock
        .timeout(ROOM_WAIT, room)
        .await
        .map_err(|_| Ended::NoRoom { bytes })
}

/// The length that the frame in `buffer` announces.
fn announced(buffer: &BytesMut) -> Option<usize> {
    let length = buffer.first_chunk::<LENGTH_BYTES>()?;
    usize::try_from(i32::from_be_bytes(*length)).ok()
}

/// Reads one frame; `None` when the peer has closed between two frames. Cancel-safe: all that is read stays in
/// `buffer`, all that is held in `held`.
async fn read_frame(
    conn: &mut Conn,
    buffer: &mut BytesMut,
    held: &mut Option<Held>,
    large: &mut Option<tokio::sync::OwnedSemaphorePermit>,
    began: &mut Option<Instant>,
    broker: &Broker,
) -> Result<Option<(Bytes, Held)>, Ended> {
    while buffer.len() < LENGTH_BYTES {
        buffer.reserve(READ_BUFFER_BYTES);
        if read_some(conn, buffer, began, broker).await? == 0 {
            return Ok(None);
        }
    }
    let length = i32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
    let max = broker.connection_limits().frame_bytes_max;
    let want = match usize::try_from(length) {
        Ok(want) if want <= max => want,
        _ => return Err(Ended::Oversized { bytes: length, max }),
    };
    if held.is_none() {
        // The peer is not slow while it is us who wait.
        *began = None;
        if want <= WHOLE_FRAME_BYTES_MAX {
            *held = Some(broker.budget().take(want).await);
        } else {
            if large.is_none() {
                *large = Some(broker.large_frame().await);
            }
            *held = Some(broker.budget().take(buffer.len()).await);
        }
        *began = Some(broker.env().clock.now());
    }
    if want <= WHOLE_FRAME_BYTES_MAX {
        buffer.reserve((LENGTH_BYTES + want).saturating_sub(buffer.len()));
        while buffer.len() < LENGTH_BYTES + want {
            if read_some(conn, buffer, began, broker).await? == 0 {
                return Err(Ended::ByPeer);
            }
        }
    } else {
        read_large(conn, buffer, want, held, broker).await?;
    }
    *began = None;
    *large = None;
    buffer.advance(LENGTH_BYTES);
    let frame = buffer.split_to(want).freeze();
    if !buffer.is_empty() {
        *began = Some(broker.env().clock.now());
    }
    let held = held.take().expect("taken before the first byte was read");
    Ok(Some((frame, held)))
}

async fn read_large(
    conn: &mut Conn,
    buffer: &mut BytesMut,
    want: usize,
    held: &mut Option<Held>,
    broker: &Broker,
) -> Result<(), Ended> {
    while buffer.len() < LENGTH_BYTES + want {
        let rest = LENGTH_BYTES + want - buffer.len();
        if buffer.capacity() == buffer.len() {
            let chunk = rest.min(CHUNK_BYTES.max(buffer.len()));
            let more = broker.budget().take(chunk).await;
            held.as_mut().expect("taken above").merge(more);
            buffer.reserve(chunk);
        }
        let mut limited = conn.take(rest as u64);
        if limited.read_buf(buffer).await? == 0 {
            return Err(Ended::ByPeer);
        }
    }
    Ok(())
}

async fn read_some(
    conn: &mut Conn,
    buffer: &mut BytesMut,
    began: &mut Option<Instant>,
    broker: &Broker,
) -> io::Result<usize> {
    let read = conn.read_buf(buffer).await?;
    if read > 0 && began.is_none() {
        *began = Some(broker.env().clock.now());
    }
    Ok(read)
}

/// Writes all of `outgoing`. A peer that takes too little in its time is given up: what waits for it holds memory that
/// others wait for.
async fn write_all(conn: &mut Conn, outgoing: &mut Outgoing, broker: &Broker) -> Result<(), Ended> {
    let want = outgoing.remaining();
    // Most answers fit into the socket's buffer: no timer for these. Polled again below, nothing is lost.
    while outgoing.has_remaining() {
        match conn.write_buf(outgoing).now_or_never() {
            Some(written) => closed_if_none(written?)?,
            None => break,
        }
    }
    let clock = &broker.env().clock;
    let began = clock.now();
    let (mut progress, mut look_at) = (began, began + DEAF_GRACE);
    while outgoing.has_remaining() {
        tokio::select! {
            biased;
            written = conn.write_buf(outgoing) => {
                closed_if_none(written?)?;
                progress = clock.now();
            }
            () = clock.sleep_until(look_at) => {
                let (now, taken) = (clock.now(), want - outgoing.remaining());
                look_at = now + DEAF_GRACE;
                let allowed = FRAME_GRACE + Duration::from_secs(taken as u64 / BYTES_PER_SECOND_MIN);
                let silent = now >= progress + DEAF_GRACE && broker.budget().is_short_of_records();
                if silent || now >= began + allowed {
                    return Err(Ended::Deaf { taken, want });
                }
            }
        }
    }
    conn.flush().await?;
    Ok(())
}

fn closed_if_none(written: usize) -> Result<(), Ended> {
    if written == 0 { Err(Ended::ByPeer) } else { Ok(()) }
}

/// Answers that wait to be written, as one buffer of many parts.
#[derive(Default)]
struct Outgoing {
    parts: VecDeque<Bytes>,
    held: Vec<Held>,
}

impl Outgoing {
    fn add(&mut self, outcome: Outcome, held: Option<Held>) -> Result<(), Refusal> {
        let Some(answer): Option<Answer> = outcome? else {
            return Ok(());
        };
        let (parts, answer_held) = answer.into_parts();
        self.parts
            .extend(parts.into_iter().filter(|part| !part.is_empty()));
        self.held.extend(held);
        self.held.extend(answer_held);
        Ok(())
    }
}

impl Buf for Outgoing {
    fn remaining(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }

    fn chunk(&self) -> &[u8] {
        self.parts.front().map_or(&[], |part| part)
    }

    fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let front = self.parts.front_mut().expect("advanced within what remains");
            if count < front.len() {
                front.advance(count);
                return;
            }
            count -= front.len();
            self.parts.pop_front();
        }
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }
}
