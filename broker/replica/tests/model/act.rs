//! What happens, one thing at a time.

use skerry_metadata_state::{Command, Outcome, Refusal};
use skerry_replica::{
    Answer, FollowRefusal, Follower, FollowerReport, FollowerStart, Leader, LeaderStart, Visibility,
};
use skerry_types::{BrokerId, Instant, LeaderEpoch, Offset};

use crate::ghost::Checked;
use crate::hold;
use crate::node::{Asked, Message, Record, Role, Sending};
use crate::world::{Action, LIMITS, Model, Travelling, Waiting, min_in_sync, view_of};

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
            Action::Pause => self.world.nodes[node].paused ^= true,
            Action::Crash => self.crash(node),
            Action::Start => self.world.start(node),
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
            Action::Start => false,
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
            _ => true,
        }
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

    /// A follower tells its leader how far it is, if that has changed.
    fn report(&mut self, at: usize) {
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
        let node = &mut self.world.nodes[at];
        let (id, epoch) = (node.id, partition.leader_epoch);
        let life = node.life.as_mut().expect("asked above");
        let known = life.known_high_watermark();
        let (log_start, log_end) = (Offset(node.log.start), Offset(node.log.end()));
        match (&mut life.role, partition.leader) {
            (Role::Leader(leader), Some(chosen)) if chosen == id && leader.epoch() == epoch => {
                leader.on_metadata(&view_of(partition), min, visibility, now);
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
                Role::Leader(Leader::new(LeaderStart {
                    me: id,
                    my_broker_epoch: life.broker_epoch,
                    epoch,
                    view: view_of(partition),
                    min_in_sync: min,
                    visibility,
                    log_start,
                    log_end,
                    durable_end: Offset(node.log.durable),
                    high_watermark: known,
                    now,
                }))
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
            let broker = image.broker(id).filter(|broker| !broker.fenced);
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
        for other in 0..self.world.nodes.len() {
            self.break_wires(at, other);
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

    /// The streams between two brokers end; what was on the way is lost.
    pub fn break_wires(&mut self, a: usize, b: usize) {
        if a == b {
            return;
        }
        let now = self.world.now;
        for (from, to) in [(a, b), (b, a)] {
            self.world.wires.remove(&(from, to));
            let gone = self.world.nodes[from].id;
            let Some(life) = &mut self.world.nodes[to].life else {
                continue;
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
}

fn index_of(id: BrokerId) -> usize {
    usize::try_from(id.get() - 1).unwrap()
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
