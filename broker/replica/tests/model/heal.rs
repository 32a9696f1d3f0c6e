//! The end of a history: faults stop, and everything converges.

use std::time::Duration;

use crate::ghost::{Checked, Violation};
use crate::node::Role;
use crate::world::{Action, Model};

/// Rounds of everything in which a world without faults must have converged.
const ROUNDS: usize = 60;

impl Model {
    pub fn heal(&mut self) -> Checked {
        self.world.log("the faults stop".to_owned());
        self.acknowledged_under_faults = self.ghost.acknowledged;
        self.world.alter_min_in_sync(1);
        let acknowledged = self.ghost.acknowledged;
        for round in 0..ROUNDS {
            self.round()?;
            if round == ROUNDS / 2 {
                // Somebody leads by now, and takes a record.
                for _ in 0..100 {
                    self.act(Action::Produce)?;
                }
            }
        }
        match self.unmet(acknowledged) {
            None => Ok(()),
            Some(what) => Err(Violation {
                invariant: "liveness",
                what,
            }),
        }
    }

    /// Everybody does everything once.
    fn round(&mut self) -> Checked {
        self.world.now = self.world.now + Duration::from_millis(100);
        for at in 0..self.world.nodes.len() {
            self.world.nodes[at].paused = false;
            let id = self.world.nodes[at].id;
            if self
                .world
                .image()
                .broker(id)
                .is_some_and(|broker| broker.draining)
            {
                self.crash(at);
            }
            if self.world.life(at).is_none() {
                self.world.start(at);
            }
            self.unfence(at);
            while self
                .world
                .life(at)
                .is_some_and(|life| life.seen + 1 < self.world.images.len())
            {
                self.learn(at)?;
                self.watch()?;
            }
            self.ask(at)?;
            let senders: Vec<usize> = self.world.senders_to(at).collect();
            for from in senders {
                while self
                    .world
                    .wires
                    .get(&(from, at))
                    .is_some_and(|wire| !wire.is_empty())
                {
                    self.deliver(from, at)?;
                    self.watch()?;
                }
            }
            self.propose(at);
            self.flush(at);
            self.watch()?;
            for to in 0..self.world.nodes.len() {
                for _ in 0..4 {
                    self.send(at, to);
                }
            }
        }
        while self
            .world
            .travelling
            .iter()
            .any(|travelling| travelling.outcome.is_none())
        {
            self.decide()?;
        }
        while !self.world.travelling.is_empty() {
            self.answer(false);
        }
        self.watch()
    }

    /// What is not as it should be at the end.
    fn unmet(&self, acknowledged: u64) -> Option<String> {
        let Some((node, leader)) = self.world.current_leader() else {
            return Some("nobody leads".to_owned());
        };
        let partition = self.world.partition();
        if partition.isr != partition.replicas || partition.is_reassigning() {
            return Some(format!(
                "in sync are {:?} of {:?}",
                partition.isr, partition.replicas
            ));
        }
        if leader.high_watermark().get() != node.log.end() || !leader.serves_latest() {
            return Some(format!(
                "the high watermark is {} of {}",
                leader.high_watermark(),
                node.log.end()
            ));
        }
        if leader
            .next_deadline(self.world.now, &crate::world::LIMITS)
            .is_some()
        {
            return Some("the leader is not content".to_owned());
        }
        if self.ghost.acknowledged == acknowledged {
            return Some("nothing was acknowledged any more".to_owned());
        }
        for other in self
            .world
            .nodes
            .iter()
            .filter(|node| partition.replicas.contains(&node.id))
        {
            let start = other.log.start.max(node.log.start);
            let differs = (start..node.log.end().max(other.log.end()))
                .find(|offset| other.log.at(*offset) != node.log.at(*offset));
            if let Some(offset) = differs {
                return Some(format!("{} differs from {} at {offset}", other.id, node.id));
            }
            if let Some(Role::Follower { rules, .. }) = other.life.as_ref().map(|life| &life.role)
                && rules.high_watermark() != leader.high_watermark()
            {
                return Some(format!(
                    "{} knows the high watermark {}",
                    other.id,
                    rules.high_watermark()
                ));
            }
        }
        None
    }
}
