//! In-sync sets: proposed, decided, answered, and each of these late, twice or never.

use skerry_metadata_state::{Command, Outcome, Refusal};
use skerry_replica::{Answer, Visibility};
use skerry_types::BrokerId;

use crate::ghost::Checked;
use crate::hold;
use crate::node::Role;
use crate::world::{LIMITS, Model, Travelling};

impl Model {
    pub fn propose(&mut self, at: usize) {
        let now = self.world.now;
        let Some(image) = self.world.seen(at).cloned() else {
            return;
        };
        let life = self.world.nodes[at].life.as_mut().expect("it has seen an image");
        let incarnation = life.incarnation;
        let Role::Leader(leader) = &mut life.role else {
            return;
        };
        let due = leader.next_deadline(now, &LIMITS).is_some_and(|at| at <= now);
        let registered = |id| {
            let broker = image.broker(id).filter(|broker| broker.is_active());
            broker.map(|broker| broker.epoch)
        };
        let proposal = leader.propose_in_sync(now, &LIMITS, registered);
        assert!(
            due || proposal.is_none(),
            "a proposal came without a deadline: {proposal:?}"
        );
        let again = leader.next_deadline(now, &LIMITS);
        assert!(
            again.is_none_or(|at| at > now),
            "nothing was done and the deadline stays: a busy loop"
        );
        if let Some(proposal) = proposal {
            let command = self.world.change_of(at, &proposal);
            self.world
                .log(format!("{} proposes {proposal:?}", self.world.nodes[at].id));
            self.world.travelling.push(Travelling {
                node: at,
                incarnation,
                proposal,
                command,
                awaited: true,
                outcome: None,
            });
        }
    }

    /// The metadata decides about a proposal, whether its leader waits for it still or not. Some come twice.
    pub fn decide(&mut self) -> Checked {
        let undecided = |at: &usize| self.world.travelling[*at].outcome.is_none();
        let open: Vec<usize> = (0..self.world.travelling.len()).filter(undecided).collect();
        let Some(at) = self.world.rng.pick(&open) else {
            return Ok(());
        };
        let travelling = self.world.travelling[at].clone();
        if self.world.rng.one_in(8) {
            let mut copy = travelling.clone();
            copy.awaited = false;
            self.world.travelling.push(copy);
        }
        let before = self.world.partition().clone();
        let outcome = self
            .world
            .command(&Command::ChangePartition(travelling.command.clone()));
        if matches!(outcome, Outcome::PartitionChanged { .. }) {
            self.check_joined(&travelling, &before.isr)?;
        }
        if travelling.awaited {
            self.world.travelling[at].outcome = Some(outcome);
        } else {
            self.world.travelling.remove(at);
        }
        Ok(())
    }

    /// 15: who joins has what is acknowledged, and everything of before this leader.
    fn check_joined(&self, travelling: &Travelling, before: &[BrokerId]) -> Checked {
        let node = &self.world.nodes[travelling.node];
        if !self.world.is_current(node) {
            return Ok(());
        }
        let leader = node
            .life
            .as_ref()
            .and_then(|life| life.leader())
            .expect("it is current");
        let needed = leader.high_watermark().max(leader.epoch_start()).get();
        for (member, _) in &travelling.proposal.in_sync {
            if before.contains(member) {
                continue;
            }
            let log = &self.world.node(*member).log;
            let kept = match self.world.visibility {
                Visibility::Durable => log.durable,
                Visibility::Written => log.end(),
            };
            hold!("I15", kept >= needed, "{member} joins with {kept} of {needed}");
            for offset in log.start.max(node.log.start)..needed {
                hold!(
                    "I15",
                    log.at(offset) == node.log.at(offset),
                    "{member} joins with another {offset}"
                );
            }
        }
        Ok(())
    }

    /// An answer reaches its leader, or the leader gives up waiting.
    pub fn answer(&mut self, lose: bool) {
        let suits = |at: &usize| {
            let travelling = &self.world.travelling[*at];
            travelling.awaited && (lose || travelling.outcome.is_some())
        };
        let suitable: Vec<usize> = (0..self.world.travelling.len()).filter(suits).collect();
        let Some(at) = self.world.rng.pick(&suitable) else {
            return;
        };
        let mut travelling = self.world.travelling.remove(at);
        let answer = match travelling.outcome.take() {
            Some(outcome) if !lose => answer_of(&outcome),
            outcome => {
                // It may still be decided, at any time.
                if outcome.is_none() && !self.world.rng.one_in(4) {
                    travelling.awaited = false;
                    self.world.travelling.push(travelling.clone());
                }
                Answer::Unknown
            }
        };
        let now = self.world.now;
        if let Some(life) = &mut self.world.nodes[travelling.node].life
            && life.incarnation == travelling.incarnation
            && let Role::Leader(leader) = &mut life.role
            && leader.epoch() == travelling.proposal.leader_epoch
        {
            leader.on_proposal(travelling.proposal.partition_epoch, answer, now);
        }
    }
}

fn answer_of(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::PartitionChanged { .. } => Answer::Accepted,
        Outcome::Refused(Refusal::NotLeader(_) | Refusal::FencedLeaderEpoch { .. }) => Answer::Deposed,
        Outcome::Refused(Refusal::InvalidUpdateVersion { .. }) => Answer::Outdated,
        Outcome::Refused(Refusal::IneligibleReplica(member)) => Answer::Ineligible(*member),
        _ => Answer::Unknown,
    }
}
