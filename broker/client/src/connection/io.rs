//! The two tasks of a connection, and what they share with the callers.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use parking_lot::Mutex;
use skerry_env::Conn;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, oneshot, watch};

use super::{CallError, ClosedBecause};

/// True once the first byte of a request may have left.
#[derive(Default)]
pub(super) struct Started(AtomicBool);

impl Started {
    fn set(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// What the loss of the connection means for this request.
    pub(super) fn error(&self, because: ClosedBecause) -> CallError {
        if self.0.load(Ordering::Acquire) {
            CallError::Lost(because)
        } else {
            CallError::NotSent(because)
        }
    }
}

/// A request on its way to the socket.
pub(super) struct Outgoing {
    pub(super) frame: Bytes,
    pub(super) started: Arc<Started>,
    /// Told when the system has taken all of it, where nothing else will tell.
    pub(super) written: Option<oneshot::Sender<()>>,
}

/// A request whose answer is due.
pub(super) struct Waiting {
    pub(super) correlation: i32,
    pub(super) answer: oneshot::Sender<Result<Bytes, CallError>>,
    pub(super) started: Arc<Started>,
}

#[derive(Default)]
struct State {
    /// In the order of the requests.
    waiting: VecDeque<Waiting>,
    closed: Option<ClosedBecause>,
}

/// What the callers, the reader and the writer share.
pub(super) struct Shared {
    state: Mutex<State>,
    correlation: AtomicI32,
    /// Tells both tasks that `state.closed` is set.
    ended: watch::Sender<bool>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            correlation: AtomicI32::new(0),
            ended: watch::Sender::new(false),
        }
    }
}

impl Shared {
    pub(super) fn next_correlation(&self) -> i32 {
        self.correlation.fetch_add(1, Ordering::Relaxed) & i32::MAX
    }

    pub(super) fn closed(&self) -> Option<ClosedBecause> {
        self.state.lock().closed.clone()
    }

    /// For callers that know that it is closed.
    pub(super) fn closed_because(&self) -> ClosedBecause {
        self.closed().unwrap_or(ClosedBecause::ByClient)
    }

    /// Registers `waiting` and hands the request over, as one step.
    pub(super) fn enqueue(
        &self,
        waiting: Option<Waiting>,
        hand_over: impl FnOnce(),
    ) -> Result<(), ClosedBecause> {
        let mut state = self.state.lock();
        if let Some(closed) = &state.closed {
            return Err(closed.clone());
        }
        state.waiting.extend(waiting);
        hand_over();
        Ok(())
    }

    /// Ends the connection; only the first reason counts.
    pub(super) fn close(&self, because: ClosedBecause) {
        let waiting = {
            let mut state = self.state.lock();
            if state.closed.is_some() {
                return;
            }
            state.closed = Some(because.clone());
            std::mem::take(&mut state.waiting)
        };
        for waiting in waiting {
            // A caller that gave up does not listen any more.
            let _ = waiting.answer.send(Err(waiting.started.error(because.clone())));
        }
        self.ended.send_replace(true);
    }

    /// Completes when the connection is closed.
    async fn until_closed(&self) {
        // The sender lives in `self`: the wait cannot fail.
        let _ = self.ended.subscribe().wait_for(|ended| *ended).await;
    }

    fn answer(&self, frame: Bytes) -> Result<(), ClosedBecause> {
        let Some(id) = frame.get(..4) else {
            return Err(ClosedBecause::Protocol(format!(
                "an answer of {} bytes",
                frame.len()
            )));
        };
        let id = i32::from_be_bytes([id[0], id[1], id[2], id[3]]);
        let waiting = self.state.lock().waiting.pop_front();
        match waiting {
            Some(waiting) if waiting.correlation == id => {
                let _ = waiting.answer.send(Ok(frame));
                Ok(())
            }
            Some(waiting) => {
                let because =
                    ClosedBecause::Protocol(format!("answer {id} where {} was next", waiting.correlation));
                let _ = waiting.answer.send(Err(waiting.started.error(because.clone())));
                Err(because)
            }
            None => Err(ClosedBecause::Protocol(format!(
                "answer {id} that nothing asked for"
            ))),
        }
    }
}

pub(super) fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|()| format!("API {key}"), |api| format!("{api:?}"))
}

/// Owns the reading half. Ends with the connection.
pub(super) async fn read_loop(mut read: ReadHalf<Conn>, shared: Arc<Shared>, answer_bytes_max: usize) {
    let because = tokio::select! {
        biased;
        () = shared.until_closed() => return,
        because = read_answers(&mut read, &shared, answer_bytes_max) => because,
    };
    shared.close(because);
}

async fn read_answers(read: &mut ReadHalf<Conn>, shared: &Shared, answer_bytes_max: usize) -> ClosedBecause {
    let mut buffer = BytesMut::with_capacity(16 << 10);
    loop {
        while buffer.len() < 4 {
            match read.read_buf(&mut buffer).await {
                Ok(0) => return ClosedBecause::ByBroker,
                Ok(_) => {}
                Err(error) => return ClosedBecause::Broken(error.to_string()),
            }
        }
        let len = u32::from_be_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]) as usize;
        if len > answer_bytes_max {
            return ClosedBecause::Protocol(format!(
                "an answer of {len} bytes, at most {answer_bytes_max} are taken"
            ));
        }
        let whole = len + 4;
        while buffer.len() < whole {
            // Room for what is announced, but taken as it comes: a lying length costs nothing.
            buffer.reserve((whole - buffer.len()).min(1 << 20));
            match read.read_buf(&mut buffer).await {
                Ok(0) => return ClosedBecause::ByBroker,
                Ok(_) => {}
                Err(error) => return ClosedBecause::Broken(error.to_string()),
            }
        }
        let mut frame = buffer.split_to(whole);
        let frame = frame.split_off(4).freeze();
        if let Err(because) = shared.answer(frame) {
            return because;
        }
    }
}

/// Owns the writing half. Ends with the connection.
pub(super) async fn write_loop(
    mut write: WriteHalf<Conn>,
    shared: Arc<Shared>,
    mut queued: mpsc::Receiver<Outgoing>,
) {
    let because = tokio::select! {
        biased;
        () = shared.until_closed() => return,
        because = write_requests(&mut write, &mut queued) => because,
    };
    shared.close(because);
}

async fn write_requests(write: &mut WriteHalf<Conn>, queued: &mut mpsc::Receiver<Outgoing>) -> ClosedBecause {
    while let Some(outgoing) = queued.recv().await {
        outgoing.started.set();
        let written = async {
            write.write_all(&outgoing.frame).await?;
            write.flush().await
        };
        if let Err(error) = written.await {
            return ClosedBecause::Broken(error.to_string());
        }
        if let Some(written) = outgoing.written {
            let _ = written.send(());
        }
    }
    ClosedBecause::ByClient
}
