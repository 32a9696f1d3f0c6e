//! Spawned tasks and blocking work.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;

/// A future that a task runs.
pub type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Work that may block on the disk.
pub type BlockingWork = Box<dyn FnOnce() + Send>;

/// How a world runs tasks.
pub trait TasksBackend: Send + Sync {
    /// Starts a task. `name` is for traces; it is not unique.
    fn spawn(&self, name: &'static str, future: TaskFuture) -> TaskHandle;
    /// Runs `work` where blocking harms nobody. The simulator runs it after the time that it would have taken.
    fn run_blocking(&self, work: BlockingWork) -> TaskFuture;
}

/// Starts tasks. Cheap to clone.
#[derive(Clone)]
pub struct Tasks(Arc<dyn TasksBackend>);

impl Tasks {
    /// Tasks on `backend`.
    #[must_use]
    pub fn new(backend: Arc<dyn TasksBackend>) -> Self {
        Self(backend)
    }

    /// Starts a task. Dropping the handle leaves it running: keep the handle, or say at the call why not.
    pub fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
        self.0.spawn(name, Box::pin(future))
    }

    /// Runs `work`, which may block on the disk, off the threads that serve the network.
    pub async fn run_blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = oneshot::channel();
        self.0
            .run_blocking(Box::new(move || {
                // The caller may be gone: its work is done all the same.
                let _ = sender.send(work());
            }))
            .await;
        receiver.await.expect("blocking work panicked")
    }
}

/// hyper's tasks, too.
impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for Tasks {
    fn execute(&self, future: F) {
        // It lasts as long as its connection.
        drop(self.spawn("http", future));
    }
}

/// How a task has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself.
    Done,
    /// It was aborted, or its runtime has gone.
    Stopped,
    /// It panicked. Production aborts the process instead.
    Panicked,
}

/// A running task. As a future it waits until the task has ended.
pub struct TaskHandle(tokio::task::JoinHandle<()>);

impl TaskHandle {
    /// Wraps a tokio task. For implementations of [`TasksBackend`].
    #[must_use]
    pub fn new(handle: tokio::task::JoinHandle<()>) -> Self {
        Self(handle)
    }

    /// Stops the task at its next await point.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// True when the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Waits until the task has ended, however it ended.
    pub async fn join(self) {
        // A panic stops the process in production, and is a violation in the simulator: nothing to add here.
        let _ = self.await;
    }
}

impl Future for TaskHandle {
    type Output = Ended;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        Pin::new(&mut self.0).poll(cx).map(|ended| match ended {
            Ok(()) => Ended::Done,
            Err(error) if error.is_panic() => Ended::Panicked,
            Err(_) => Ended::Stopped,
        })
    }
}
