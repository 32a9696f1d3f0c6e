//! Where replicas and leaders should be.

use std::sync::Arc;

use skerry_types::{Instant, PartitionIndex};

use super::{ControllerSettings, Decisions, InFlight, Subject};
use crate::command::{AlterReassignment, Command, ElectLeader, Election};
use crate::image::{Image, Partition, Topic};
use crate::place::Widening;

/// How many elections one decision asks for, as Kafka's controller does.
const ELECTIONS_MAX: usize = 1_000;

/// What internal topics' names begin with.
const INTERNAL: &str = "__";

#[derive(Debug)]
pub(super) struct Balance {
    /// The index of the image whose internal topics were looked at.
    looked_at: Option<u64>,
    leaders: Leaders,
}

/// The round through all partitions that gives leaderships back.
#[derive(Debug)]
enum Leaders {
    /// The next one begins then.
    RestUntil(Instant),
    /// It goes on at this partition.
    Continue(Arc<str>, usize),
}

impl Balance {
    pub(super) fn new(now: Instant, settings: &ControllerSettings) -> Self {
        Self {
            looked_at: None,
            leaders: Leaders::RestUntil(now + settings.leader_imbalance_check_interval),
        }
    }

    /// Something that was under way is over: what was passed over because of it is looked at again.
    pub(super) const fn look_everywhere(&mut self) {
        self.looked_at = None;
    }

    pub(super) fn decide(
        &mut self,
        image: &Image,
        now: Instant,
        settings: &ControllerSettings,
        in_flight: &mut InFlight,
        out: &mut Decisions,
    ) {
        if self.looked_at != Some(image.index()) {
            self.looked_at = Some(image.index());
            widen_internal_topics(image, settings, in_flight, out);
        }
        if settings.auto_leader_rebalance {
            self.restore_leaders(image, now, settings, in_flight, out);
        }
    }

    /// Gives leaderships back to preferred replicas, some at a time.
    fn restore_leaders(
        &mut self,
        image: &Image,
        now: Instant,
        settings: &ControllerSettings,
        in_flight: &mut InFlight,
        out: &mut Decisions,
    ) {
        let (name, from) = match &self.leaders {
            Leaders::RestUntil(at) if now < *at => {
                out.look_again_at(*at);
                return;
            }
            Leaders::RestUntil(_) => (Arc::from(""), 0),
            Leaders::Continue(name, from) => (Arc::clone(name), *from),
        };
        let mut subjects = Vec::new();
        let mut elections = Vec::new();
        let mut rest = None;
        'round: for topic in image.topics_from(&name) {
            let skip = if topic.name == name { from } else { 0 };
            for (place, partition) in topic.partitions.iter().enumerate().skip(skip) {
                let subject = Subject::Partition(topic.id, index(place));
                if !wants_other_leader(image, partition) || in_flight.has(subject) {
                    continue;
                }
                if elections.len() == ELECTIONS_MAX {
                    rest = Some((Arc::clone(&topic.name), place));
                    break 'round;
                }
                subjects.push(subject);
                elections.push(Command::ElectLeader(ElectLeader {
                    topic: topic.id,
                    partition: index(place),
                    election: Election::Preferred,
                }));
            }
        }
        self.leaders = match rest {
            Some((name, place)) => {
                out.look_again_at(now);
                Leaders::Continue(name, place)
            }
            None => {
                let at = now + settings.leader_imbalance_check_interval;
                out.look_again_at(at);
                Leaders::RestUntil(at)
            }
        };
        if !elections.is_empty() {
            let why = format!(
                "leaderships go back to preferred replicas: {}",
                count(elections.len())
            );
            out.decisions
                .push(in_flight.take_off(subjects, Command::Batch(elections), why));
        }
    }
}

fn index(place: usize) -> PartitionIndex {
    PartitionIndex(i32::try_from(place).expect("a topic has at most 10,000 partitions"))
}

fn count(partitions: usize) -> String {
    match partitions {
        1 => "1 partition".to_owned(),
        many => format!("{many} partitions"),
    }
}

fn wants_other_leader(image: &Image, partition: &Partition) -> bool {
    let preferred = partition.replicas[0];
    partition.leader.is_some_and(|leader| leader != preferred)
        && partition.isr.contains(&preferred)
        && image.is_active(preferred)
}

/// Gives internal topics more replicas where there are more brokers than when they were made: a cluster that begins
/// with one node and grows must not lose its groups with that node.
fn widen_internal_topics(
    image: &Image,
    settings: &ControllerSettings,
    in_flight: &mut InFlight,
    out: &mut Decisions,
) {
    let internal = image
        .topics_from(INTERNAL)
        .take_while(|topic| topic.name.starts_with(INTERNAL));
    for topic in internal {
        if let Some((subjects, command, why)) = widen(image, topic, settings, in_flight) {
            out.decisions.push(in_flight.take_off(subjects, command, why));
        }
    }
}

fn widen(
    image: &Image,
    topic: &Topic,
    settings: &ControllerSettings,
    in_flight: &InFlight,
) -> Option<(Vec<Subject>, Command, String)> {
    let wanted = settings.internal_topics_replication;
    let narrow = |partition: &Partition| !partition.is_reassigning() && partition.replicas.len() < wanted;
    if !topic.partitions.iter().any(|partition| narrow(partition)) {
        return None;
    }
    let mut widening = Widening::of(image, topic);
    let mut subjects = Vec::new();
    let mut reassignments = Vec::new();
    for (place, partition) in topic.partitions.iter().enumerate() {
        let subject = Subject::Partition(topic.id, index(place));
        if !narrow(partition) || in_flight.has(subject) {
            continue;
        }
        let target = widening.widen(&partition.replicas, wanted);
        if target.len() == partition.replicas.len() {
            continue;
        }
        subjects.push(subject);
        reassignments.push(Command::AlterReassignment(AlterReassignment {
            topic: topic.id,
            partition: index(place),
            target: Some(target),
            may_change_factor: true,
        }));
    }
    let why = format!(
        "{} gets more replicas, for there are more brokers: {}",
        topic.name,
        count(reassignments.len())
    );
    (!reassignments.is_empty()).then_some((subjects, Command::Batch(reassignments), why))
}
