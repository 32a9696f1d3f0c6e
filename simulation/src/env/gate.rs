//! What a SIGSTOP does to a process: its tasks stand still until it goes on.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use parking_lot::Mutex;

#[derive(Default)]
struct State {
    closed: bool,
    waiting: Vec<Waker>,
    /// Futures that are held.
    held: u64,
}

/// The gate of one host: while it is closed no task of the process moves, and none of its sockets. Cheap to clone.
///
/// The tasks that hyper starts for the connections of a server do not ask the environment. They wait for their sockets,
/// which are held here, and for the process' own tasks.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<State>>);

impl Gate {
    /// Stops the process.
    pub fn close(&self) {
        self.0.lock().closed = true;
    }

    /// Lets it go on: every task that had something to do does it now.
    pub fn open(&self) {
        let waiting = {
            let mut state = self.0.lock();
            state.closed = false;
            std::mem::take(&mut state.waiting)
        };
        for waker in waiting {
            waker.wake();
        }
    }

    /// True while the process stands still.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.lock().closed
    }

    /// How many futures there are behind it: tasks of the process that have not ended.
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.0.lock().held
    }

    /// Ready while the gate is open; whoever waits is woken when it opens.
    pub(super) fn poll_open(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.closed {
            state.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// A future that moves only while the gate is open.
    pub fn hold<F: Future>(&self, future: F) -> Held<F> {
        self.0.lock().held += 1;
        Held {
            gate: self.clone(),
            future: Box::pin(future),
        }
    }
}

/// See [`Gate::hold`].
pub struct Held<F> {
    gate: Gate,
    future: Pin<Box<F>>,
}

impl<F> Drop for Held<F> {
    fn drop(&mut self) {
        self.gate.0.lock().held -= 1;
    }
}

impl<F: Future> Future for Held<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        ready!(self.gate.poll_open(cx));
        self.future.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn nothing_moves_while_the_gate_is_closed() {
        let gate = Gate::default();
        let moved = Arc::new(Mutex::new(0));
        let inside = moved.clone();
        let task = tokio::spawn(gate.hold(async move {
            loop {
                *inside.lock() += 1;
                tokio::task::yield_now().await;
            }
        }));
        tokio::task::yield_now().await;
        gate.close();
        tokio::task::yield_now().await;
        let stopped_at = *moved.lock();
        tokio::task::yield_now().await;
        assert_eq!(*moved.lock(), stopped_at);
        assert!(gate.is_closed());
        gate.open();
        tokio::task::yield_now().await;
        assert!(*moved.lock() > stopped_at);
        task.abort();
    }
}
