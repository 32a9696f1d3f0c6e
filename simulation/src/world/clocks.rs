//! Clocks that are wrong in ways that last.

use skerry_env::Rng;

use super::World;
use super::faults::Action;
use crate::env::WallFault;
use crate::scenario::Fault;

/// What becomes of a clock fault later.
pub(super) enum Step {
    /// The wall clock goes as it should, but for its jumps.
    WallGoes(usize),
    /// The clocks run at another rate, or as they should when it is over.
    Wander {
        node: usize,
        ppm: u64,
        every_ms: u64,
        until_ms: u64,
    },
}

impl World<'_> {
    pub(super) fn step_clock(&mut self, step: Step) {
        match step {
            Step::WallGoes(node) => {
                self.nodes[node].host.clock.set_wall_fault(None);
                self.trace.event(
                    &self.nodes[node].name,
                    format_args!("its wall clock goes as it should"),
                );
            }
            Step::Wander {
                node,
                ppm,
                every_ms,
                until_ms,
            } => self.wander(node, ppm, every_ms, until_ms),
        }
    }

    pub(super) fn trouble_the_clock(&mut self, index: usize, fault: &Fault) {
        let (wrong, for_ms) = match *fault {
            Fault::ClockStrobe {
                by_ms,
                every_ms,
                for_ms,
            } => (WallFault::Strobe { by_ms, every_ms }, for_ms),
            Fault::ClockFreeze { for_ms } => (WallFault::Frozen, for_ms),
            Fault::ClockNoise { by_ms, for_ms } => (WallFault::Noise { by_ms }, for_ms),
            Fault::ClockSwing {
                by_ms,
                period_ms,
                for_ms,
            } => (WallFault::Swing { by_ms, period_ms }, for_ms),
            Fault::ClockWander {
                ppm,
                every_ms,
                for_ms,
            } => return self.wander(index, ppm, every_ms, self.now_ms + for_ms),
            _ => return,
        };
        self.nodes[index].host.clock.set_wall_fault(Some(wrong));
        self.plan(self.now_ms + for_ms, Action::Clock(Step::WallGoes(index)));
    }

    fn wander(&mut self, node: usize, ppm: u64, every_ms: u64, until_ms: u64) {
        let clock = self.nodes[node].host.clock.clone();
        if self.now_ms >= until_ms {
            clock.set_drift_ppm(0);
            return;
        }
        let rng = Rng::seeded(self.scenario.seed ^ 0xc10c ^ (self.now_ms << 8) ^ node as u64);
        let drawn = i64::try_from(rng.below(2 * ppm + 1)).unwrap_or(0);
        clock.set_drift_ppm(drawn - i64::try_from(ppm).unwrap_or(0));
        let step = Step::Wander {
            node,
            ppm,
            every_ms,
            until_ms,
        };
        self.plan(self.now_ms + every_ms.max(1), Action::Clock(step));
    }
}
