//! What happens, one thing at a time.

use skerry_metadata_state::Command;
use skerry_replica::{Follower, FollowerStart, Leader, LeaderStart, Visibility};
use skerry_types::{Instant, Offset};

use crate::ghost::Checked;
use crate::node::{Record, Role};
use crate::world::{Action, LIMITS, Model, Waiting, min_in_sync, view_of};

impl Model {
    /// One step, on a broker drawn from those that have something to do of the kind.
    pub fn act(&mut self, action: Action) -> Checked {
        let able: Vec<usize> = (0..self.world.nodes.len())
            .filter(|at| self.is_able(*at, action))
            .collect();
        let Some(node) = self.world.rng.pick(&able) else {
            return Ok(());
        };
        match action {
            Action::Produce => self.produce(node)?,
            Action::Flush => self.flush(node),
            Action::Send => {
                let to: Vec<usize> = (0..self.world.nodes.len())
                    .filter(|to| self.has_to_send(node, *to))
                    .collect();
                let to = self.world.rng.pick(&to).expect("it is able");
                self.send(node, to);
            }
            Action::Deliver => {
                let from: Vec<usize> = self.world.senders_to(node).collect();
                let from = self.world.rng.pick(&from).expect("it is able");
                self.deliver(from, node)?;
            }
            Action::Ask => self.ask(node)?,
            Action::LearnImage => self.learn(node)?,
            Action::Propose => self.propose(node),
            Action::TellAnswer | Action::LoseAnswer => self.answer(action == Action::LoseAnswer),
            Action::DecideProposal => self.decide()?,
            Action::DeleteRecords => self.delete_records(node),
            Action::Checkpoint => {
                let life = self.world.life(node).expect("it works");
                self.world.nodes[node].checkpoint = life.known_high_watermark().get();
            }
            Action::Pause | Action::Wake => self.world.nodes[node].paused = action == Action::Pause,
            Action::Crash => self.crash(node),
            // One that drains leaves, and comes back.
            Action::Start => {
                self.crash(node);
                self.world.start(node);
            }
            Action::BreakWire => {
                let other = self.world.rng.below(self.world.nodes.len());
                self.break_wires(node, other);
            }
            Action::Fence => {
                let guard = self.world.guard(self.world.nodes[node].id);
                self.world.command(&Command::FenceBroker(guard));
            }
            Action::Unfence => self.unfence(node),
            Action::Prefer => self.world.prefer(),
            Action::AlterMinInSync => {
                let min = 1 + self.world.rng.below(3);
                self.world.alter_min_in_sync(min);
            }
            Action::Tick => self.tick(),
            Action::Drain => {
                let guard = self.world.guard(self.world.nodes[node].id);
                self.world.command(&Command::DrainBroker(guard));
            }
            Action::Reassign => self.world.reassign(),
            Action::LoseReplica => self.world.lose_replica(node),
            Action::Wipe => self.wipe(node),
        }
        self.watch()
    }

    /// Looks at everything, and answers what can be answered.
    pub fn watch(&mut self) -> Checked {
        self.ghost.check(&self.world)?;
        self.settle()
    }

    fn is_able(&self, at: usize, action: Action) -> bool {
        let (world, node) = (&self.world, &self.world.nodes[at]);
        if action == Action::Reassign {
            return !self.believes_in_a_lost_copy();
        }
        let Some(life) = node.life.as_ref() else {
            return matches!(
                action,
                Action::Start
                    | Action::Fence
                    | Action::Prefer
                    | Action::AlterMinInSync
                    | Action::Tick
                    | Action::TellAnswer
                    | Action::LoseAnswer
                    | Action::DecideProposal
            );
        };
        let works = !node.paused;
        match action {
            Action::Start => world
                .image()
                .broker(node.id)
                .is_some_and(|broker| broker.draining),
            Action::Wake => node.paused,
            Action::Pause => works,
            Action::Produce | Action::DeleteRecords => works && life.leader().is_some(),
            Action::Propose => {
                let due = life
                    .leader()
                    .and_then(|leader| leader.next_deadline(world.now, &LIMITS));
                works && due.is_some_and(|at| at <= world.now)
            }
            Action::Flush => works && node.log.durable < node.log.end(),
            Action::Send => works && (0..world.nodes.len()).any(|to| self.has_to_send(at, to)),
            Action::Deliver => works && world.senders_to(at).next().is_some(),
            Action::Ask => works && matches!(life.role, Role::Follower { handle: None, .. }),
            Action::LearnImage => works && life.seen + 1 < world.images.len(),
            Action::Unfence => works && world.image().broker(node.id).is_some_and(|broker| broker.fenced),
            Action::Checkpoint => works,
            // With Kafka's rule a crash may cost a copy its place already: one misfortune at a time.
            Action::Wipe | Action::LoseReplica if world.visibility == Visibility::Written => false,
            Action::LoseReplica => works && (self.others_may_lead(at) || self.is_last(at)),
            _ => true,
        }
    }

    /// The metadata holds its copy for the only one: it will not let it be emptied.
    fn is_last(&self, at: usize) -> bool {
        let (id, partition) = (self.world.nodes[at].id, self.world.partition());
        let mut able = partition.isr.iter().chain(&partition.elr);
        able.all(|member| *member == id)
    }

    /// A disk was wiped, and the metadata has not heard of it yet: it may let others go in favour of that copy.
    fn believes_in_a_lost_copy(&self) -> bool {
        self.world.nodes.iter().any(|node| node.is_wiped)
    }

    /// Somebody else who may lead has a copy.
    fn others_may_lead(&self, at: usize) -> bool {
        let (id, partition) = (self.world.nodes[at].id, self.world.partition());
        let mut able = partition.isr.iter().chain(&partition.elr);
        able.any(|member| *member != id && !self.world.node(*member).is_wiped)
    }

    /// A broker dies with its disk, and gets an empty one. The metadata has noticed its death: where it has not, it may
    /// take the others out and hold on to a member that lacks everything, and no rule here can help.
    fn wipe(&mut self, at: usize) {
        let guard = self.world.guard(self.world.nodes[at].id);
        self.world.command(&Command::FenceBroker(guard));
        if !self.others_may_lead(at) {
            return;
        }
        self.crash(at);
        self.world.note_loss(at);
        self.world.delete_copy(at);
        let random = self.world.rng.next().to_be_bytes();
        let node = &mut self.world.nodes[at];
        node.is_wiped = true;
        node.directory.0[8..].copy_from_slice(&random);
        let text = format!("{} loses its disk", node.id);
        self.world.log(text);
    }

    fn has_to_send(&self, at: usize, to: usize) -> bool {
        let node = &self.world.nodes[at];
        let Some(life) = &node.life else {
            return false;
        };
        let (Some(leader), Some(sending)) = (life.leader(), life.sending.get(&self.world.nodes[to].id))
        else {
            return false;
        };
        sending.next < node.log.end() || sending.told != (leader.high_watermark(), node.log.start)
    }

    fn tick(&mut self) {
        let millis = u64::try_from(self.world.rng.below(300)).unwrap();
        self.world.now = Instant::from_nanos(self.world.now.as_nanos() + millis * 1_000_000);
    }

    /// A leader's log has moved.
    fn tell_leader(&mut self, node: usize) {
        let now = self.world.now;
        let node = &mut self.world.nodes[node];
        if let Some(life) = &mut node.life
            && let Role::Leader(leader) = &mut life.role
        {
            leader.on_local_log(
                Offset(node.log.start),
                Offset(node.log.end()),
                Offset(node.log.durable),
                now,
            );
        }
    }

    fn produce(&mut self, at: usize) -> Checked {
        let value = self.world.next_value;
        let Some(life) = self.world.life(at) else {
            return Ok(());
        };
        let Some(leader) = life.leader() else {
            return Ok(());
        };
        let (leader_epoch, may_acknowledge) = (leader.epoch(), leader.may_acknowledge().is_ok());
        let incarnation = life.incarnation;
        let record = Record {
            epoch: leader_epoch.get(),
            value,
        };
        let acks_all = !self.world.rng.one_in(6);
        if acks_all && !may_acknowledge {
            return Ok(());
        }
        self.world.next_value += 1;
        let node = &mut self.world.nodes[at];
        let offset = node.log.end();
        node.log.append(record);
        let id = node.id;
        self.world.log(format!(
            "{id} appends {value} at {offset} in epoch {leader_epoch}"
        ));
        self.ghost.on_written(offset, record)?;
        self.tell_leader(at);
        if acks_all {
            self.world.waiting.push(Waiting {
                node: at,
                incarnation,
                leader_epoch,
                offset,
                record,
            });
        }
        Ok(())
    }

    /// Answers the produce requests whose records are below the high watermark.
    fn settle(&mut self) -> Checked {
        for waiting in std::mem::take(&mut self.world.waiting) {
            let Some(life) = self.world.life(waiting.node) else {
                continue;
            };
            let leads = life
                .leader()
                .filter(|leader| leader.epoch() == waiting.leader_epoch);
            let Some(leader) = leads.filter(|_| life.incarnation == waiting.incarnation) else {
                continue;
            };
            if leader.high_watermark().get() <= waiting.offset {
                self.world.waiting.push(waiting);
                continue;
            }
            let node = &self.world.nodes[waiting.node];
            self.ghost
                .on_acknowledged(&self.world, node, waiting.offset, waiting.record)?;
        }
        Ok(())
    }

    pub fn flush(&mut self, at: usize) {
        self.world.nodes[at].log.flush();
        self.tell_leader(at);
        self.report(at);
    }

    /// A broker applies some of the images that it has not seen.
    pub fn learn(&mut self, at: usize) -> Checked {
        let last = self.world.images.len() - 1;
        let Some(life) = &mut self.world.nodes[at].life else {
            return Ok(());
        };
        if life.seen < last {
            let step = 1 + self.world.rng.below(last - life.seen);
            life.seen += step;
        }
        self.take_role(at)
    }

    /// Takes the part that the image gives it.
    fn take_role(&mut self, at: usize) -> Checked {
        let (now, visibility) = (self.world.now, self.world.visibility);
        let Some(image) = self.world.seen(at).cloned() else {
            return Ok(());
        };
        let (Some(topic), Some(min)) = (image.topic("t"), min_in_sync(&image)) else {
            return Ok(());
        };
        let partition = &topic.partitions[0];
        if !partition.replicas.contains(&self.world.nodes[at].id) {
            self.world.note_loss(at);
            self.world.delete_copy(at);
            return Ok(());
        }
        let node = &mut self.world.nodes[at];
        let (id, epoch) = (node.id, partition.leader_epoch);
        let life = node.life.as_mut().expect("asked above");
        let known = life.known_high_watermark();
        let (log_start, log_end) = (Offset(node.log.start), Offset(node.log.end()));
        match (&mut life.role, partition.leader) {
            (Role::Leader(leader), Some(chosen)) if chosen == id && leader.epoch() == epoch => {
                leader.on_metadata(&view_of(&image, partition), min, visibility, now);
                return Ok(());
            }
            (Role::Follower { rules, .. }, Some(chosen))
                if rules.leader() == chosen && rules.epoch() == epoch =>
            {
                return Ok(());
            }
            (Role::None, None) => return Ok(()),
            _ => {}
        }
        life.high_watermark = known;
        life.sending.clear();
        life.role = match partition.leader {
            None => Role::None,
            Some(chosen) if chosen == id => {
                self.ghost.on_leader(epoch, id)?;
                Role::Leader(Box::new(Leader::new(LeaderStart {
                    me: id,
                    my_broker_epoch: life.broker_epoch,
                    epoch,
                    view: view_of(&image, partition),
                    min_in_sync: min,
                    visibility,
                    log_start,
                    log_end,
                    durable_end: Offset(node.log.durable),
                    high_watermark: known,
                    now,
                })))
            }
            Some(leader) => Role::Follower {
                rules: Follower::new(FollowerStart {
                    leader,
                    epoch,
                    log_start,
                    log_end,
                    high_watermark: known,
                }),
                handle: None,
                told: (-1, -1, -1),
            },
        };
        let text = format!("{id} learns of leader {:?} in epoch {epoch}", partition.leader);
        self.world.log(text);
        Ok(())
    }

    fn delete_records(&mut self, at: usize) {
        let draw = self.world.rng.next();
        let node = &mut self.world.nodes[at];
        let Some(leader) = node.life.as_ref().and_then(|life| life.leader()) else {
            return;
        };
        let room = leader.high_watermark().get() - node.log.start;
        if room > 0 {
            let step = i64::try_from(draw % 4).unwrap().min(room);
            let start = node.log.start + step;
            node.log.raise_start(start);
            self.tell_leader(at);
        }
    }

    pub fn unfence(&mut self, at: usize) {
        let guard = self.world.guard(self.world.nodes[at].id);
        let fenced = self
            .world
            .image()
            .broker(guard.broker)
            .is_some_and(|broker| broker.fenced);
        if fenced {
            self.world.command(&Command::UnfenceBroker(guard));
        }
    }

    /// The process ends. What was not flushed stays in part, or not at all; with Kafka's rule only the process dies, and
    /// the page cache lives.
    pub fn crash(&mut self, at: usize) {
        if self.world.life(at).is_none() {
            return;
        }
        // A power cut sends no word: the others may hear of it late or never.
        let silent = self.world.rng.one_in(2);
        for other in 0..self.world.nodes.len() {
            if silent {
                self.cut_wires(at, other);
            } else {
                self.break_wires(at, other);
            }
        }
        let node = &mut self.world.nodes[at];
        node.life = None;
        if self.world.visibility == Visibility::Durable {
            let loose = usize::try_from(node.log.end() - node.log.durable).unwrap();
            let kept = i64::try_from(self.world.rng.below(loose + 1)).unwrap();
            node.log.truncate(node.log.durable + kept);
        }
        // What recovery finds is flushed before it counts.
        node.log.flush();
        let text = format!("{} crashes; its log ends at {}", node.id, node.log.end());
        self.world.log(text);
    }
}
