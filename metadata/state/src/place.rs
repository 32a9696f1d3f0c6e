//! Where the replicas of new partitions go.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use skerry_types::{BrokerId, TopicId, is_planted};

use crate::image::{Image, Topic};
use crate::outcome::Refusal;

/// Of the planted bug alone: it is not in the log, and no two nodes count the same.
static SPREAD: AtomicUsize = AtomicUsize::new(0);

/// A broker that can take a replica.
#[derive(Clone)]
struct Candidate {
    id: BrokerId,
    /// Brokers without a rack stand in one of their own each.
    rack: Result<Arc<str>, BrokerId>,
}

/// Spreads the partitions `numbers` of a topic over the brokers that take part, and their racks.
///
/// Leaders go round a ring in which racks alternate; where the ring starts depends on the topic's id, so that many
/// topics of one partition do not all begin at the first broker. The followers of each leader start one place further
/// with each round (as Kafka's), so that a dead broker's leaderships fall to many. Each follower goes to the rack
/// that has the fewest replicas of the partition.
pub(crate) fn spread(
    image: &Image,
    topic: TopicId,
    numbers: Range<usize>,
    replication_factor: i16,
) -> Result<Vec<Vec<BrokerId>>, Refusal> {
    let ring = ring(image);
    let factor = usize::try_from(replication_factor).unwrap_or(0);
    if factor == 0 || factor > ring.len() {
        return Err(Refusal::InvalidReplicationFactor {
            wanted: replication_factor,
            available: ring.len(),
        });
    }
    // The last bytes of a version 4 id are random, all of them.
    let [.., a, b, c, d] = topic.0;
    let start = match is_planted("placement-by-memory") {
        true => SPREAD.fetch_add(1, Ordering::Relaxed),
        false => usize::from(u16::from_be_bytes([a, b])),
    };
    let shift = usize::from(u16::from_be_bytes([c, d]));
    Ok(numbers
        .map(|number| replicas(&ring, start + number, shift + number / ring.len(), factor))
        .collect())
}

fn replicas(ring: &[Candidate], start: usize, shift: usize, factor: usize) -> Vec<BrokerId> {
    let brokers = ring.len();
    let mut chosen = vec![&ring[start % brokers]];
    let followers = brokers - 1;
    // The rest of the ring, from the place that `shift` says.
    let mut rest: Vec<&Candidate> = (0..followers)
        .map(|step| &ring[(start + 1 + (shift + step) % followers) % brokers])
        .collect();
    while chosen.len() < factor {
        let in_rack =
            |candidate: &Candidate| chosen.iter().filter(|other| other.rack == candidate.rack).count();
        let (place, _) = rest
            .iter()
            .enumerate()
            .min_by_key(|(_, candidate)| in_rack(candidate))
            .expect("the factor is checked");
        chosen.push(rest.remove(place));
    }
    chosen.into_iter().map(|candidate| candidate.id).collect()
}

/// The brokers that take part, the first of each rack, then the second of each, and so on.
fn ring(image: &Image) -> Vec<Candidate> {
    let mut racks: BTreeMap<Result<Arc<str>, BrokerId>, Vec<Candidate>> = BTreeMap::new();
    for broker in image.brokers().filter(|broker| broker.is_active()) {
        let rack = broker.rack.clone().ok_or(broker.id);
        racks
            .entry(rack.clone())
            .or_default()
            .push(Candidate { id: broker.id, rack });
    }
    let deepest = racks.values().map(Vec::len).max().unwrap_or(0);
    (0..deepest)
        .flat_map(|row| racks.values().filter_map(move |rack| rack.get(row)).cloned())
        .collect()
}

/// Gives the partitions of a topic more replicas, spread over brokers and racks.
pub(crate) struct Widening {
    candidates: Vec<Candidate>,
    /// How many replicas, and how many preferred leaders, each broker has of the topic.
    load: BTreeMap<BrokerId, (usize, usize)>,
}

impl Widening {
    pub(crate) fn of(image: &Image, topic: &Topic) -> Self {
        let mut load: BTreeMap<BrokerId, (usize, usize)> = BTreeMap::new();
        for partition in &topic.partitions {
            for replica in &partition.replicas {
                load.entry(*replica).or_default().0 += 1;
            }
            load.entry(partition.replicas[0]).or_default().1 += 1;
        }
        Self {
            candidates: ring(image),
            load,
        }
    }

    /// `replicas`, brought up to `factor` as far as there are brokers. The new ones go to the racks that have the
    /// fewest replicas of the partition, and there to the brokers that have the fewest of the topic. The one that is
    /// preferred as leader by the fewest partitions comes first, if that evens them out.
    pub(crate) fn widen(&mut self, replicas: &[BrokerId], factor: usize) -> Vec<BrokerId> {
        let mut target = replicas.to_vec();
        while target.len() < factor {
            let in_rack = |candidate: &Candidate| {
                let same = |other: &&Candidate| other.rack == candidate.rack && target.contains(&other.id);
                self.candidates.iter().filter(same).count()
            };
            let missing = self.candidates.iter().filter(|one| !target.contains(&one.id));
            let Some(best) = missing.min_by_key(|one| (in_rack(one), self.replicas_of(one.id), one.id))
            else {
                break;
            };
            let best = best.id;
            self.load.entry(best).or_default().0 += 1;
            target.push(best);
        }
        let first = target[0];
        let places = 1..target.len();
        let easiest = places.min_by_key(|&place| self.leads_of(target[place]));
        if let Some(place) = easiest
            && target.len() > replicas.len()
            && self.leads_of(target[place]) + 1 < self.leads_of(first)
        {
            self.load.entry(first).or_default().1 -= 1;
            self.load.entry(target[place]).or_default().1 += 1;
            target.swap(0, place);
        }
        target
    }

    fn replicas_of(&self, broker: BrokerId) -> usize {
        self.load.get(&broker).map_or(0, |load| load.0)
    }

    fn leads_of(&self, broker: BrokerId) -> usize {
        self.load.get(&broker).map_or(0, |load| load.1)
    }
}
