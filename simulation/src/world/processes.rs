//! Processes that end in patterns: again and again, or one after the other.

use std::time::Duration;

use skerry_env::clock::ClockBackend as _;
use skerry_types::Instant;

use super::World;
use super::faults::Action;
use crate::process::State;
use crate::scenario::Fault;

/// A SIGTERM is obeyed within this time, once the disk takes what must be written before the end.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
/// How often a rolling restart looks whether the last node serves again.
const LOOK_MS: u64 = 20;
/// Once everything is healed, nobody stays away for longer.
const AWAY_MAX_MS: u64 = 2_500;

/// What becomes of a process fault later.
pub(super) enum Step {
    /// The process is killed once more, and so many times after that.
    CrashAgain {
        node: usize,
        times: u32,
        up_ms: u64,
        down_ms: u64,
    },
    /// The next one of a rolling restart is told to stop when `last` serves.
    Roll {
        last: Option<usize>,
        rest: Vec<usize>,
        down_ms: u64,
        pause_ms: u64,
    },
}

/// The time that a process still has which was told to stop longer ago than it may take, where its disk stood still, or does,
/// until `stalled_until`.
fn left_to_stop(now: Instant, stalled_until: Instant) -> Duration {
    (stalled_until + STOPS_WITHIN).since(now)
}

impl World<'_> {
    pub(super) fn step_process(&mut self, step: Step) {
        match step {
            Step::CrashAgain {
                node,
                times,
                up_ms,
                down_ms,
            } => {
                if self.nodes[node].is_up() {
                    self.crash_again(node, times, up_ms, down_ms);
                }
            }
            Step::Roll {
                last,
                rest,
                down_ms,
                pause_ms,
            } => self.roll(last, rest, down_ms, pause_ms),
        }
    }

    /// Faults of several processes at once; false for all others.
    pub(super) fn trouble_all(&mut self, hit: &[usize], fault: &Fault) -> bool {
        match *fault {
            Fault::RollingRestart { down_ms, pause_ms } => self.roll(None, hit.to_vec(), down_ms, pause_ms),
            Fault::InSyncCopiesLost { ref partition } => self.plan_to_lose(partition),
            Fault::LyingSyncs { ref partition } => self.plan_to_lie(partition),
            Fault::LyingVoter => self.plan_a_lying_voter(),
            Fault::WipedMajority => self.plan_to_wipe(),
            _ => return false,
        }
        true
    }

    /// Kills it, and plans the next time.
    pub(super) fn crash_again(&mut self, index: usize, times: u32, up_ms: u64, down_ms: u64) {
        self.crash(index, false, down_ms);
        if times > 1 {
            let step = Step::CrashAgain {
                node: index,
                times: times - 1,
                up_ms,
                down_ms,
            };
            self.plan(self.now_ms + down_ms + up_ms, Action::Process(step));
        }
    }

    /// SIGTERM, and a start `down_ms` after the process has ended.
    pub(super) fn restart(&mut self, index: usize, down_ms: u64) {
        if self.nodes[index].process.state() != State::Serving {
            return;
        }
        let node = &mut self.nodes[index];
        self.trace.event(&node.name, format_args!("is told to stop"));
        node.after_stop_ms = down_ms;
        node.process.terminate();
        let start = node.starts;
        self.plan_to_judge_stop(STOPS_WITHIN, index, start);
    }

    fn plan_to_judge_stop(&mut self, after: Duration, node: usize, start: u64) {
        let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        self.plan(self.now_ms + after_ms, Action::MustHaveStopped { node, start });
    }

    /// The time of a process is over that was told to stop, unless a disk that stood still has held it up.
    pub(super) fn judge_stop(&mut self, index: usize, start: u64) {
        let node = &self.nodes[index];
        if node.starts != start || node.process.state() != State::Stopping {
            return;
        }
        let host = &node.host;
        let left = left_to_stop(host.clock.now(), host.disk.stalled_until());
        if left > Duration::ZERO {
            // At a later step, were it the next one.
            return self.plan_to_judge_stop(left + Duration::from_millis(1), index, start);
        }
        let why = format!(
            "{} was told to stop {} ms ago or more, its disk stands still no longer, and it still runs",
            node.name,
            STOPS_WITHIN.as_millis()
        );
        self.violations.add(&self.trace, "does-not-stop", why);
    }

    fn roll(&mut self, last: Option<usize>, mut rest: Vec<usize>, down_ms: u64, pause_ms: u64) {
        let serves = |node: usize| self.nodes[node].process.state() == State::Serving;
        let Some(next) = rest.first().copied() else {
            return;
        };
        let mut after_ms = LOOK_MS;
        let mut waits_for = last;
        if last.is_none_or(serves) && serves(next) {
            rest.remove(0);
            self.restart(next, down_ms);
            waits_for = Some(next);
            after_ms += pause_ms;
        }
        let step = Step::Roll {
            last: waits_for,
            rest,
            down_ms,
            pause_ms,
        };
        self.plan(self.now_ms + after_ms, Action::Process(step));
    }

    /// Everything is healed: who would stay away for long comes back now.
    pub(super) fn bring_starts_forward(&mut self) {
        let by_ms = self.now_ms + AWAY_MAX_MS;
        let late: Vec<_> = self
            .agenda
            .iter()
            .filter(|((at_ms, _), action)| *at_ms > by_ms && matches!(action, Action::Start(_)))
            .map(|(key, _)| *key)
            .collect();
        for key in late {
            if let Some(action) = self.agenda.remove(&key) {
                self.agenda.insert((self.now_ms, key.1), action);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seed 2071 of any size: the disk stood still for 25 s when the process was told to stop, and what it had appended had to
    /// be synced before the end.
    #[test]
    fn a_disk_that_stands_still_holds_up_a_stop() {
        let at = Instant::from_millis;
        let left = |now, stalled_until| left_to_stop(at(now), at(stalled_until)).as_millis();
        // It never stood still, or long ago.
        assert_eq!(left(31_388, 0), 0);
        assert_eq!(left(31_388, 11_000), 0);
        // It still does, or went on a moment ago: from then on the process has the whole time.
        assert_eq!(left(31_388, 36_600), 25_212);
        assert_eq!(left(31_388, 31_000), 19_612);
        assert_eq!(left(56_600, 36_600), 0);
    }
}
