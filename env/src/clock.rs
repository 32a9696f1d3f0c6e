//! Time.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use skerry_types::{Instant, WallMs};

/// What a world's clock can do.
pub trait ClockBackend: Send + Sync {
    /// The monotonic clock. Never goes back.
    fn now(&self) -> Instant;
    /// The wall clock. May jump either way.
    fn wall(&self) -> WallMs;
    /// Completes at `deadline` of the monotonic clock, or at once if it has passed.
    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>>;
}

/// The clock of one node. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn ClockBackend>);

/// A [`Clock::timeout`] ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

impl Clock {
    /// A clock on `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn ClockBackend>) -> Self {
        Self(backend)
    }

    /// The monotonic clock. Never goes back.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.0.now()
    }

    /// The wall clock. May jump either way: only for what users see as a time.
    #[must_use]
    pub fn wall(&self) -> WallMs {
        self.0.wall()
    }

    /// Completes after `duration`.
    pub fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.sleep_until(self.now() + duration)
    }

    /// Completes at `deadline`.
    pub fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.0.sleep_until(deadline)
    }

    /// Runs `future` for at most `duration`.
    ///
    /// # Errors
    /// [`Elapsed`] when the time runs out first; `future` is dropped.
    pub async fn timeout<F: Future>(&self, duration: Duration, future: F) -> Result<F::Output, Elapsed> {
        tokio::select! {
            biased;
            output = future => Ok(output),
            () = self.sleep(duration) => Err(Elapsed),
        }
    }
}
