//! The world that openraft runs in: its tasks and its time are those of the node's `Env`.
//!
//! openraft asks for both by associated functions, without a value that could hold an [`Env`]. So one lies beside each of
//! its tasks, and a task that it spawns inherits that of its parent: what a clock says, and whether the process stands
//! still, reaches elections, leases and heartbeats as it reaches everything else.

use std::fmt;
use std::future::Future;
use std::ops::{Add, AddAssign, Sub, SubAssign};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt::{AsyncRuntime, OptionalSend};
use openraft_rt_tokio::TokioRuntime;
use skerry_env::tasks::{Ended, TaskHandle};
use skerry_env::{Elapsed, Env};
use skerry_types::{Instant, is_planted};
use tokio::sync::oneshot;

/// Random numbers (election timeouts) follow from a seed, the rest from [`EnvRuntime`]. Every future that openraft polls
/// must run in a [`scope`].
pub(crate) type Runtime = DeterministicRng<EnvRuntime>;

tokio::task_local! {
    static ENV: Env;
}

/// Runs a call of openraft where it finds the node's tasks, time and random numbers.
pub(crate) fn scope<F: Future>(env: &Env, call: F) -> impl Future<Output = F::Output> {
    ENV.scope(env.clone(), Runtime::scope(env.rng.u64(), call))
}

fn with_env<T>(ask: impl FnOnce(&Env) -> T) -> T {
    ENV.try_with(ask)
        .expect("openraft is polled within a scope of the node's Env")
}

/// A moment of the node's monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) Instant);

impl openraft_rt::Instant for Moment {
    fn now() -> Self {
        Self(with_env(|env| env.clock.now()))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0 + duration)
    }
}

impl AddAssign<Duration> for Moment {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Moment {
    type Output = Self;

    /// Not before the clock's origin, which is before all that openraft can ask about.
    fn sub(self, duration: Duration) -> Self {
        Self(Instant::ZERO + self.0.since(Instant::ZERO + duration))
    }
}

impl SubAssign<Duration> for Moment {
    fn sub_assign(&mut self, duration: Duration) {
        *self = *self - duration;
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.0.since(earlier.0)
    }
}

/// A task that openraft has spawned, and what it yields.
pub(crate) struct Spawned<T> {
    task: TaskHandle,
    output: oneshot::Receiver<T>,
}

impl<T> Future for Spawned<T> {
    type Output = Result<T, Lost>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Poll::Ready(ended) = Pin::new(&mut self.task).poll(cx) else {
            return Poll::Pending;
        };
        // It was sent before the task ended.
        Poll::Ready(self.output.try_recv().map_err(|_| Lost(ended)))
    }
}

/// A task ended without an output.
#[derive(Debug)]
pub(crate) struct Lost(Ended);

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Ended::Panicked => "the task panicked",
            Ended::Done | Ended::Stopped => "the task was stopped",
        })
    }
}

/// A future, for so long at most.
pub(crate) struct Limited<F> {
    future: Pin<Box<F>>,
    sleep: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl<F: Future> Future for Limited<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(output) = self.future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        self.sleep.as_mut().poll(cx).map(|()| Err(Elapsed))
    }
}

#[expect(clippy::disallowed_methods, reason = "the planted bug that it is named after")]
fn past_the_env(task: impl Future<Output = ()> + Send + 'static) -> TaskHandle {
    TaskHandle::new(tokio::spawn(task))
}

/// See the module.
#[derive(Debug)]
pub(crate) struct EnvRuntime(TokioRuntime);

impl AsyncRuntime for EnvRuntime {
    type JoinError = Lost;
    type JoinHandle<T: OptionalSend + 'static> = Spawned<T>;
    type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;
    type Instant = Moment;
    type TimeoutError = Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = Limited<T>;
    type ThreadLocalRng = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        with_env(|env| {
            let (sender, output) = oneshot::channel();
            let running = ENV.scope(env.clone(), async move {
                // Whoever does not wait for the output has dropped the other end.
                let _ = sender.send(future.await);
            });
            let task = if is_planted("raft-past-the-env") {
                past_the_env(running)
            } else {
                env.tasks.spawn("raft", running)
            };
            Spawned { task, output }
        })
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        with_env(|env| env.clock.sleep(duration))
    }

    fn sleep_until(deadline: Moment) -> Self::Sleep {
        with_env(|env| env.clock.sleep_until(deadline.0))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        Limited {
            future: Box::pin(future),
            sleep: Self::sleep(duration),
        }
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Moment,
        future: F,
    ) -> Self::Timeout<R, F> {
        Limited {
            future: Box::pin(future),
            sleep: Self::sleep_until(deadline),
        }
    }

    fn is_panic(lost: &Lost) -> bool {
        matches!(lost.0, Ended::Panicked)
    }

    /// Not asked: see [`Runtime`].
    fn thread_rng() -> Self::ThreadLocalRng {
        TokioRuntime::thread_rng()
    }

    /// For openraft's tests of a runtime.
    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(async {
            let env = Env::os();
            ENV.scope(env, future).await
        })
    }
}

#[cfg(test)]
mod tests {
    use openraft_rt::testing::Suite;

    use super::*;

    #[test]
    fn openrafts_own_suite_passes() {
        Suite::<EnvRuntime>::test_all();
    }

    #[tokio::test]
    async fn what_is_spawned_inherits_the_env_and_says_how_it_ended() {
        let env = Env::os();
        let outcome = scope(&env, async {
            let child = Runtime::spawn(async { Runtime::spawn(async { Moment::now_is_known() }).await });
            child.await.expect("it ends").expect("so does its child")
        });
        assert!(outcome.await);
        let lost = scope(&env, async {
            Runtime::spawn(async { panic!("on purpose") }).await
        });
        let lost: Lost = lost.await.map(|(): ()| ()).expect_err("it panicked");
        assert!(Runtime::is_panic(&lost), "{lost}");
    }

    impl Moment {
        fn now_is_known() -> bool {
            ENV.try_with(|_| ()).is_ok()
        }
    }

    #[test]
    fn moments_do_not_go_below_the_origin() {
        let second = Moment(Instant::from_millis(1_000));
        assert_eq!(
            second - Duration::from_millis(400),
            Moment(Instant::from_millis(600))
        );
        assert_eq!(second - Duration::from_secs(7), Moment(Instant::ZERO));
    }
}
