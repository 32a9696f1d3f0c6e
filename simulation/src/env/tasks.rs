use std::time::Duration;

use skerry_env::clock::ClockBackend as _;
use skerry_env::tasks::{BlockingWork, TaskFuture, TaskHandle, TasksBackend};

use super::clock::HostClock;
use super::gate::Gate;
use crate::disk::SimDisk;

/// A device that stands still may go on before the time that was told.
const STALL_LOOK: Duration = Duration::from_millis(50);

pub(super) struct SimTasks {
    pub(super) disk: SimDisk,
    pub(super) clock: HostClock,
    pub(super) gate: Gate,
}

impl TasksBackend for SimTasks {
    fn spawn(&self, _name: &'static str, future: TaskFuture) -> TaskHandle {
        TaskHandle::new(tokio::spawn(self.gate.hold(future)))
    }

    fn run_blocking(&self, work: BlockingWork) -> TaskFuture {
        let (before, after) = self.disk.operation_times(self.clock.now());
        let (disk, clock) = (self.disk.clone(), self.clock.clone());
        // A task of its own, as a thread would be: it goes on when nobody waits for it any more.
        let handle = tokio::spawn(self.gate.hold(async move {
            if !before.is_zero() {
                tokio::time::sleep(before).await;
            }
            loop {
                let stalled = disk.stalled_for(clock.now());
                if stalled.is_zero() {
                    break;
                }
                tokio::time::sleep(stalled.min(STALL_LOOK)).await;
            }
            work();
            if !after.is_zero() {
                tokio::time::sleep(after).await;
            }
        }));
        Box::pin(async move {
            // A panic of the work stops the whole simulation.
            let _ = handle.await;
        })
    }
}
