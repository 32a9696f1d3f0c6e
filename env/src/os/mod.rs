//! The operating system's clock, tasks, network and disk.
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "this module is what the rest must use"
)]

mod disk;
mod net;

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, SystemTime};

use skerry_types::{Instant, WallMs};

use crate::clock::ClockBackend;
use crate::tasks::{BlockingWork, TaskFuture, TaskHandle, TasksBackend};

pub(crate) use disk::OsDisk;
pub(crate) use net::OsNetwork;

pub(crate) struct OsClock {
    origin: tokio::time::Instant,
}

impl OsClock {
    pub(crate) fn new() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
        }
    }
}

impl ClockBackend for OsClock {
    fn now(&self) -> Instant {
        Instant::ZERO + self.origin.elapsed()
    }

    fn wall(&self) -> WallMs {
        let since_1970 = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or(Duration::ZERO);
        WallMs(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let wait = deadline.since(self.now());
        Box::pin(tokio::time::sleep(wait))
    }
}

pub(crate) struct OsTasks;

impl TasksBackend for OsTasks {
    fn spawn(&self, _name: &'static str, future: TaskFuture) -> TaskHandle {
        TaskHandle::new(tokio::spawn(future))
    }

    fn run_blocking(&self, work: BlockingWork) -> TaskFuture {
        let handle = tokio::task::spawn_blocking(work);
        Box::pin(async move {
            // A panic of the work reaches the caller through the missing answer.
            let _ = handle.await;
        })
    }
}
