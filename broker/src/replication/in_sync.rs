//! Asks the metadata for other in-sync sets: one task for all partitions, many of them in one command.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_metadata_state::{BrokerGuard, ChangePartition, Command, Outcome, Refusal};
use skerry_replica::{Answer, InSyncProposal};
use skerry_types::{BrokerEpoch, Instant, buggify};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Replication;
use super::fetcher::Key;
use crate::broker::Broker;
use crate::partition::Partition;

/// Changes in one command: some hundred kilobytes of the metadata's log.
const CHANGES_MAX: usize = 2_000;

/// The least time between two looks at one partition.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// Proposals that wait, and partitions to look at.
#[derive(Default)]
pub(super) struct InSyncQueue {
    state: Mutex<State>,
    more: Notify,
}

#[derive(Default)]
struct State {
    proposals: Vec<(Arc<Partition>, InSyncProposal)>,
    /// When each partition is looked at next. Which copy of it is here then is found out then: one that was given up, and
    /// whose look came last, must not take the place of the copy that is here now (seed 7 of `moved-leader`).
    looks: BTreeMap<Key, Instant>,
    order: BTreeSet<(Instant, Key)>,
}

impl InSyncQueue {
    pub(super) fn propose(&self, partition: &Arc<Partition>, proposal: InSyncProposal) {
        self.state.lock().proposals.push((partition.clone(), proposal));
        self.more.notify_one();
    }

    /// Looks at the partition at `at`, or earlier where that was planned.
    pub(super) fn look(&self, partition: &Partition, at: Instant) {
        let key = super::key_of(partition);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if let Some(planned) = state.looks.get(&key) {
            if *planned <= at {
                return;
            }
            state.order.remove(&(*planned, key));
        }
        state.looks.insert(key, at);
        state.order.insert((at, key));
        if state.order.first() == Some(&(at, key)) {
            drop(guard);
            self.more.notify_one();
        }
    }

    fn take_due(&self, now: Instant) -> Vec<Key> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let mut due = Vec::new();
        while let Some((at, key)) = state.order.first().copied()
            && at <= now
        {
            state.order.pop_first();
            state.looks.remove(&key);
            due.push(key);
        }
        due
    }

    fn take_proposals(&self) -> Vec<(Arc<Partition>, InSyncProposal)> {
        let mut state = self.state.lock();
        let count = state.proposals.len().min(CHANGES_MAX);
        state.proposals.drain(..count).collect()
    }

    fn next_look(&self) -> Instant {
        let state = self.state.lock();
        state.order.first().map_or(Instant::FAR_FUTURE, |(at, _)| *at)
    }

    fn clear(&self) {
        *self.state.lock() = State::default();
    }
}

/// Proposes until `stop`.
pub(super) async fn run(replication: Arc<Replication>, broker: Arc<Broker>, stop: CancellationToken) {
    let queue = &replication.in_sync;
    let clock = broker.env().clock.clone();
    loop {
        for (topic, number) in queue.take_due(clock.now()) {
            let topic = broker.partitions().topic_by_id(topic);
            let Some(partition) = topic.and_then(|topic| topic.partition(number.get())) else {
                continue;
            };
            let (proposal, next) = replication.check_in_sync(&broker, &partition);
            if let Some(proposal) = proposal {
                queue.propose(&partition, proposal);
            }
            if let Some(at) = next {
                // A deadline that stays in the past is no reason to look without end.
                queue.look(&partition, at.max(clock.now() + LOOK_PAUSE));
            }
        }
        let proposals = queue.take_proposals();
        let work = async {
            if proposals.is_empty() {
                tokio::select! {
                    biased;
                    () = queue.more.notified() => {}
                    () = clock.sleep_until(queue.next_look()) => {}
                }
            } else {
                propose(&broker, &proposals).await;
                // What was refused is due again some time.
                for (partition, _) in &proposals {
                    queue.look(partition, clock.now());
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = work => {}
        }
    }
    queue.clear();
}

async fn propose(broker: &Broker, proposals: &[(Arc<Partition>, InSyncProposal)]) {
    let Some(epoch) = broker.partitions().registration(&broker.image()) else {
        return answer_all(proposals, Answer::Unknown);
    };
    let mut commands: Vec<Command> = proposals
        .iter()
        .map(|(partition, proposal)| command(broker, epoch, partition, proposal))
        .collect();
    for (partition, proposal) in proposals {
        let members: Vec<i32> = proposal.in_sync.iter().map(|(id, _)| id.get()).collect();
        tracing::debug!(partition = %partition.name(), ?members, "asks for another in-sync set");
    }
    let many = commands.len() > 1;
    let command = match commands.pop() {
        Some(only) if !many => only,
        Some(last) => {
            commands.push(last);
            Command::Batch(commands)
        }
        None => return,
    };
    if buggify("in-sync-set-asked-twice", 4) {
        // The first answer is lost.
        let _ = broker.quorum().propose(command.clone()).await;
    }
    match broker.quorum().propose(command).await {
        Ok(Outcome::Batch(outcomes)) if outcomes.len() == proposals.len() => {
            for ((partition, proposal), outcome) in proposals.iter().zip(&outcomes) {
                partition.on_proposal(proposal, answer(outcome));
            }
        }
        Ok(outcome) => answer_all(proposals, answer(&outcome)),
        Err(error) => {
            tracing::info!(%error, partitions = proposals.len(), "cannot change in-sync sets now");
            answer_all(proposals, Answer::Unknown);
        }
    }
}

fn answer_all(proposals: &[(Arc<Partition>, InSyncProposal)], answer: Answer) {
    for (partition, proposal) in proposals {
        partition.on_proposal(proposal, answer);
    }
}

fn command(broker: &Broker, epoch: BrokerEpoch, partition: &Partition, proposal: &InSyncProposal) -> Command {
    let guard = |(broker, epoch): &(_, _)| BrokerGuard {
        broker: *broker,
        epoch: *epoch,
    };
    Command::ChangePartition(ChangePartition {
        topic: partition.topic_id(),
        partition: partition.name().partition,
        leader: guard(&(broker.id(), epoch)),
        leader_epoch: proposal.leader_epoch,
        partition_epoch: proposal.partition_epoch,
        isr: proposal.in_sync.iter().map(guard).collect(),
    })
}

/// What an outcome means for the leader that asked.
fn answer(outcome: &Outcome) -> Answer {
    match outcome {
        Outcome::PartitionChanged { .. } => Answer::Accepted,
        Outcome::Refused(refusal) => match refusal {
            Refusal::FencedLeaderEpoch { .. }
            | Refusal::NotLeader(_)
            | Refusal::StaleBrokerEpoch { .. }
            | Refusal::UnknownTopic
            | Refusal::UnknownPartition => Answer::Deposed,
            Refusal::InvalidUpdateVersion { .. } => Answer::Outdated,
            Refusal::IneligibleReplica(id) => Answer::Ineligible(*id),
            _ => Answer::Unknown,
        },
        _ => Answer::Unknown,
    }
}
