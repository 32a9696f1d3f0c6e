//! Brokers that leave for good: an operator gives their replicas to others, stops them, and has them forgotten. The machine
//! comes back with an empty disk, as a new broker under the old number.

use super::World;
use crate::process::State;
use crate::workload::{self, LeaveStep as Step, Leaving};

/// A node that leaves.
pub(super) struct Leaves {
    node: usize,
    leaving: Leaving,
    /// Then the machine starts again, whatever has become of it.
    back_after_ms: u64,
}

impl World<'_> {
    /// An operator begins to relieve a node that does not vote, if nobody else leaves.
    pub(super) fn begin_to_leave(&mut self, index: usize, back_after_ms: u64) {
        if self.scenario.votes(index) || self.leaves.is_some() {
            return;
        }
        self.operators += 1;
        let name = format!("operator-{}", self.operators);
        let host = self.new_host(&name);
        let shared = self.shared.clone();
        let node = i32::try_from(index + 1).unwrap_or(0);
        let leaving = Leaving::default();
        let told = leaving.clone();
        self.sim.client(name.as_str(), async move {
            workload::relieve(&host.boot(), &shared, &host.name, node, &told).await;
            Ok(())
        });
        self.links.add(&name, &mut self.sim);
        self.leaves = Some(Leaves {
            node: index,
            leaving,
            back_after_ms,
        });
    }

    /// Does what is the machine's part of it.
    pub(super) fn look_after_who_leaves(&mut self) {
        let Some(Leaves {
            node,
            leaving,
            back_after_ms,
        }) = &self.leaves
        else {
            return;
        };
        let (node, back_after_ms) = (*node, *back_after_ms);
        match leaving.step() {
            Step::Relieved if self.nodes[node].process.state() == State::Serving => {
                self.restart(node, back_after_ms);
            }
            Step::Relieved if self.nodes[node].process.state() == State::Down => leaving.take(Step::Stopped),
            _ => {}
        }
    }

    /// Who has not been stopped yet stays.
    pub(super) fn nobody_leaves(&mut self) {
        if let Some(leaves) = self
            .leaves
            .take_if(|leaves| leaves.leaving.step() <= Step::Relieved)
        {
            leaves.leaving.take(Step::Stays);
        }
    }

    /// A machine starts. One whose broker was forgotten has another disk; one whose broker was not keeps its own, and stays.
    pub(super) fn comes_back_from_leaving(&mut self, index: usize) {
        // It may die and come back before it is relieved.
        let is_gone = |leaves: &mut Leaves| leaves.node == index && leaves.leaving.step() > Step::Relieved;
        let Some(leaves) = self.leaves.take_if(is_gone) else {
            return;
        };
        let name = &self.nodes[index].name;
        if leaves.leaving.step() != Step::Forgotten {
            self.trace.event(name, format_args!("stays"));
            leaves.leaving.take(Step::Stays);
            return;
        }
        if self.lost.is_none() && self.shared.begin_change_of_members() {
            self.trace
                .event(name, format_args!("comes back as another broker"));
            self.take_disk_away(index);
        }
    }
}
