//! What followers and leaders say to each other.

use skerry_replica::{FollowRefusal, FollowerReport};
use skerry_types::{BrokerId, LeaderEpoch, Offset};

use crate::ghost::Checked;
use crate::hold;
use crate::node::{Asked, Message, Role, Sending};
use crate::world::Model;

impl Model {
    /// A follower tells its leader how far it is, if that has changed.
    pub fn report(&mut self, at: usize) {
        let node = &mut self.world.nodes[at];
        let Some(life) = &mut node.life else {
            return;
        };
        let Role::Follower {
            rules,
            handle: Some(handle),
            told,
        } = &mut life.role
        else {
            return;
        };
        let progress = (node.log.start, node.log.end(), node.log.durable);
        if *told == progress {
            return;
        }
        *told = progress;
        let (leader, handle) = (rules.leader(), *handle);
        self.world.post(
            at,
            index_of(leader),
            Message::Progress {
                handle,
                log_start: progress.0,
                written: progress.1,
                durable: progress.2,
            },
        );
    }

    /// A leader sends a follower some of what it has not sent yet.
    pub fn send(&mut self, at: usize, to: usize) {
        let count = 1 + self.world.rng.below(3);
        let follower = self.world.nodes[to].id;
        let node = &mut self.world.nodes[at];
        let Some(life) = &mut node.life else {
            return;
        };
        let Role::Leader(leader) = &life.role else {
            return;
        };
        let Some(sending) = life.sending.get_mut(&follower) else {
            return;
        };
        if sending.next < node.log.start {
            let handle = sending.handle;
            let log_start = Offset(node.log.start);
            life.sending.remove(&follower);
            self.world.post(at, to, Message::OutOfRange { handle, log_start });
            return;
        }
        let records = node.log.from(sending.next, count);
        let told = (leader.high_watermark(), node.log.start);
        if records.is_empty() && sending.told == told {
            return;
        }
        let message = Message::Batches {
            handle: sending.handle,
            leader_epoch: leader.epoch(),
            from: sending.next,
            high_watermark: told.0,
            log_start: told.1,
            records: records.clone(),
        };
        sending.next += i64::try_from(records.len()).unwrap();
        sending.told = told;
        self.world.post(at, to, message);
    }

    /// A follower that has no answer to wait for asks again.
    pub fn ask(&mut self, at: usize) -> Checked {
        let next = self.world.next_handle;
        let node = &mut self.world.nodes[at];
        let Some(life) = &mut node.life else {
            return Ok(());
        };
        let broker_epoch = life.broker_epoch;
        let Role::Follower { rules, handle, told } = &mut life.role else {
            return Ok(());
        };
        if handle.is_some() {
            return Ok(());
        }
        *handle = Some(next);
        *told = (node.log.start, node.log.end(), node.log.durable);
        let position = rules.position(
            node.log.last_epoch(),
            Offset(node.log.end()),
            Offset(node.log.durable),
        );
        let (leader, id) = (rules.leader(), node.id);
        let message = Message::Follow {
            handle: next,
            broker_epoch,
            leader_epoch: position.leader_epoch,
            last_epoch: position.last_epoch,
            log_start: node.log.start,
            written: position.from.get(),
            durable: position.durable_end.get(),
        };
        self.world.next_handle += 1;
        self.world.log(format!("{id} asks {leader}: {message:?}"));
        let to = index_of(leader);
        if self.world.life(to).is_none() {
            self.forget_question(at);
            return Ok(());
        }
        self.world.post(at, to, message);
        Ok(())
    }

    fn forget_question(&mut self, at: usize) {
        if let Some(life) = &mut self.world.nodes[at].life
            && let Role::Follower { handle, .. } = &mut life.role
        {
            *handle = None;
        }
    }

    pub fn deliver(&mut self, from: usize, to: usize) -> Checked {
        let wire = self.world.wires.get_mut(&(from, to));
        let Some(message) = wire.and_then(std::collections::VecDeque::pop_front) else {
            return Ok(());
        };
        match message {
            Message::Follow {
                handle,
                broker_epoch,
                leader_epoch,
                last_epoch,
                log_start,
                written,
                durable,
            } => {
                let asked = Asked {
                    leader_epoch,
                    broker_epoch,
                };
                let life = self.world.nodes[to]
                    .life
                    .as_mut()
                    .expect("wires of the dead are cut");
                life.asked
                    .insert((BrokerId(i32::try_from(from + 1).unwrap()), handle), asked);
                let report = self.report_of(from, to, handle, (log_start, written, durable));
                self.on_follow(from, to, handle, &report.expect("just noted"), last_epoch)
            }
            Message::Progress {
                handle,
                log_start,
                written,
                durable,
            } => match self.report_of(from, to, handle, (log_start, written, durable)) {
                Some(report) => self.on_progress(to, &report),
                None => Ok(()),
            },
            answer => self.on_answer(to, answer),
        }
    }

    fn report_of(
        &self,
        from: usize,
        to: usize,
        handle: u64,
        ends: (i64, i64, i64),
    ) -> Option<FollowerReport> {
        let follower = self.world.nodes[from].id;
        let asked = self.world.life(to)?.asked.get(&(follower, handle))?;
        Some(FollowerReport {
            follower,
            broker_epoch: asked.broker_epoch,
            leader_epoch: asked.leader_epoch,
            log_start: Offset(ends.0),
            written_end: Offset(ends.1),
            durable_end: Offset(ends.2),
        })
    }

    fn on_follow(
        &mut self,
        from: usize,
        to: usize,
        handle: u64,
        report: &FollowerReport,
        last_epoch: LeaderEpoch,
    ) -> Checked {
        let now = self.world.now;
        let node = &mut self.world.nodes[to];
        let (id, log) = (node.id, &node.log);
        let life = node.life.as_mut().expect("wires of the dead are cut");
        let Role::Leader(leader) = &mut life.role else {
            self.world.post(to, from, Message::Refused { handle });
            return Ok(());
        };
        let epoch = leader.epoch();
        let answer = leader.on_follow(
            report,
            last_epoch,
            |asked| log.epoch_end_of_leader(epoch, asked),
            now,
        );
        let refusal = match answer {
            Ok(_) => {
                hold!(
                    "I17",
                    report.leader_epoch == epoch,
                    "{id} leads in epoch {epoch} and lets {} follow in {}",
                    report.follower,
                    report.leader_epoch
                );
                let sending = Sending {
                    handle,
                    next: report.written_end.get(),
                    told: (Offset(-1), -1),
                };
                life.sending.insert(report.follower, sending);
                self.world.log(format!(
                    "{id} lets {} follow from {}",
                    report.follower, report.written_end
                ));
                return Ok(());
            }
            Err(FollowRefusal::Diverging { epoch, end_offset }) => Message::Diverging {
                handle,
                epoch,
                end: end_offset,
            },
            Err(FollowRefusal::OutOfRange { log_start, .. }) => Message::OutOfRange { handle, log_start },
            Err(_) => Message::Refused { handle },
        };
        self.world
            .log(format!("{id} answers {}: {refusal:?}", report.follower));
        self.world.post(to, from, refusal);
        Ok(())
    }

    /// 17: what is said in another epoch changes nothing.
    fn on_progress(&mut self, to: usize, report: &FollowerReport) -> Checked {
        let now = self.world.now;
        let node = &mut self.world.nodes[to];
        let id = node.id;
        let life = node.life.as_mut().expect("wires of the dead are cut");
        let Role::Leader(leader) = &mut life.role else {
            return Ok(());
        };
        let before = (leader.high_watermark(), leader.progress_of(report.follower));
        leader.on_follower(report, now);
        let after = (leader.high_watermark(), leader.progress_of(report.follower));
        hold!(
            "I17",
            report.leader_epoch == leader.epoch() || before == after,
            "{id} leads in epoch {} and counts what {} said in epoch {}",
            leader.epoch(),
            report.follower,
            report.leader_epoch
        );
        Ok(())
    }

    fn on_answer(&mut self, at: usize, message: Message) -> Checked {
        let partition = self.world.partition().clone();
        let node = &mut self.world.nodes[at];
        let life = node.life.as_mut().expect("wires of the dead are cut");
        let Role::Follower {
            rules,
            handle: current,
            ..
        } = &mut life.role
        else {
            return Ok(());
        };
        match message {
            Message::Batches {
                handle,
                leader_epoch,
                from,
                records,
                high_watermark,
                log_start,
            } => {
                let stale = leader_epoch == rules.epoch() && Some(handle) != *current;
                if stale || !rules.accepts(leader_epoch) || from != node.log.end() {
                    return Ok(());
                }
                hold!(
                    "I17",
                    leader_epoch == rules.epoch(),
                    "{} follows in epoch {} and takes what was sent in {leader_epoch}",
                    node.id,
                    rules.epoch()
                );
                for record in records {
                    self.ghost.on_written(node.log.end(), record)?;
                    node.log.append(record);
                }
                let (start, end) = (Offset(node.log.start), Offset(node.log.end()));
                let told = rules.on_leader(high_watermark, Offset(log_start), start, end);
                if let Some(raised) = told.raise_log_start {
                    node.log.raise_start(raised.get());
                }
                self.report(at);
            }
            Message::Diverging { handle, epoch, end } if Some(handle) == *current => {
                let log = &node.log;
                let cut = rules.on_diverging((epoch, end), |asked| log.epoch_end(asked), Offset(log.end()));
                self.ghost.on_cut(node, cut.get(), 0, &partition)?;
                self.cut(at, cut.get());
            }
            Message::OutOfRange { handle, log_start } if Some(handle) == *current => {
                let start = rules.on_out_of_range(log_start);
                self.ghost.on_cut(node, node.log.start, start.get(), &partition)?;
                node.log.restart_at(start.get());
                self.forget_question(at);
            }
            Message::Refused { handle } if Some(handle) == *current => *current = None,
            _ => {}
        }
        Ok(())
    }

    /// Cuts a follower's log, durably, and lets it ask again.
    fn cut(&mut self, at: usize, cut: i64) {
        let node = &mut self.world.nodes[at];
        let text = format!("{} cuts its log from {} to {cut}", node.id, node.log.end());
        node.log.truncate(cut);
        self.world.log(text);
        self.forget_question(at);
    }

    /// The streams between two brokers end, and both hear of it; what was on the way is lost.
    pub fn break_wires(&mut self, a: usize, b: usize) {
        if a != b {
            self.cut_wires(a, b);
            self.on_broken(a, b);
            self.on_broken(b, a);
        }
    }

    /// What was on the way between two brokers is lost.
    pub fn cut_wires(&mut self, a: usize, b: usize) {
        self.world.wires.remove(&(a, b));
        self.world.wires.remove(&(b, a));
    }

    /// A broker hears that its streams with another one have ended.
    fn on_broken(&mut self, at: usize, other: usize) {
        let now = self.world.now;
        let gone = self.world.nodes[other].id;
        let Some(life) = &mut self.world.nodes[at].life else {
            return;
        };
        life.asked.retain(|(follower, _), _| *follower != gone);
        life.sending.remove(&gone);
        match &mut life.role {
            Role::Leader(leader) => leader.on_follower_gone(gone, now),
            Role::Follower { rules, handle, .. } if rules.leader() == gone => *handle = None,
            _ => {}
        }
    }
}

fn index_of(id: BrokerId) -> usize {
    usize::try_from(id.get() - 1).unwrap()
}
