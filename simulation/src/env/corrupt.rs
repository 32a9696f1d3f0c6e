//! Bits that turn over on the wire, where the protocol promises that it is noticed: in record batches.
//!
//! A batch carries its own sum (CRC-32C, from the attributes to the end), which is compared wherever a batch is taken in:
//! by the leader that is sent one, by a follower that is fed one, by a client that reads one. The base offset, the leader
//! epoch and the magic are not under the sum, and nothing else of Kafka's protocol, or between the nodes, has one but
//! TCP's: another bit in an offset or in a topic's name makes another request, which nobody can tell from one that was
//! meant. So a bit turns over in the sum or in what it covers; and towards readers in the length too, which then does not
//! fit the bytes. A producer's batch of another length is INVALID_RECORD, as in Kafka, and not sent again.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use skerry_env::Rng;

use crate::record::{self, HEADER_BYTES};

const LENGTH_AT: usize = 8;
const LENGTH_BYTES: usize = 4;
const MAGIC_AT: usize = 16;
const MAGIC: u8 = 2;

/// Whither a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Course {
    /// From a producer.
    ToBroker,
    /// From a leader to its followers.
    BetweenNodes,
    /// To a reader.
    ToClient,
}

/// A batch of which a bit has turned over.
pub(super) struct Damage {
    course: Course,
    /// As it was.
    sum: u32,
    /// As it arrives.
    batch: Vec<u8>,
}

#[derive(Default)]
struct State {
    /// Producers' batches by their sums: so many times each was damaged, and nobody heard of it yet.
    sent: BTreeMap<u32, u64>,
    /// What readers will find, and have not yet.
    read: Vec<Vec<u8>>,
    counts: BTreeMap<&'static str, u64>,
}

/// What was damaged on its way, and who has noticed. Cheap to clone.
#[derive(Clone, Default)]
pub struct Corrupted(Arc<Mutex<State>>);

impl Corrupted {
    /// True where this batch of a producer was damaged on its way: once for each time.
    #[must_use]
    pub fn was_sent(&self, batch: &[u8]) -> bool {
        let mut state = self.0.lock();
        let Some(batch) = record::first(batch) else {
            return false;
        };
        let Some(times) = state.sent.get_mut(&batch.crc).filter(|times| **times > 0) else {
            return false;
        };
        *times -= 1;
        state.count("damaged batches refused");
        true
    }

    /// True where one of the batches of an answer is, to the bit, one that was damaged on its way to a reader: once for
    /// each. What a node has stored so is another one.
    #[must_use]
    pub fn was_read(&self, records: &[u8]) -> bool {
        let mut state = self.0.lock();
        let mut rest = records;
        loop {
            if let Some(found) = state.read.iter().position(|batch| rest.starts_with(batch)) {
                state.read.swap_remove(found);
                state.count("damaged batches not read");
                return true;
            }
            let Some(batch) = record::first(rest) else {
                return false;
            };
            rest = &rest[batch.bytes.len()..];
        }
    }

    /// What happened, by kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().counts.clone()
    }

    /// `bytes` has left.
    pub(super) fn add(&self, damage: Damage) {
        let mut state = self.0.lock();
        match damage.course {
            Course::ToBroker => {
                *state.sent.entry(damage.sum).or_default() += 1;
                state.count("batches damaged to brokers");
            }
            Course::BetweenNodes => state.count("batches damaged between nodes"),
            Course::ToClient => {
                state.read.push(damage.batch);
                state.count("batches damaged to readers");
            }
        }
    }
}

impl State {
    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }
}

/// `bytes` with one bit of one of the whole batches in them turned over, for one of `one_in` batches.
pub(super) fn corrupt(bytes: &[u8], course: Course, one_in: u64, rng: &Rng) -> Option<(Vec<u8>, Damage)> {
    let below = |bound: usize| usize::try_from(rng.below(bound as u64)).unwrap_or(0);
    let found = find_batches(bytes);
    let (at, len, sum) = *found.iter().find(|_| rng.chance(1, one_in))?;
    let covered = len - (MAGIC_AT + 1);
    let place = if course != Course::ToBroker && rng.chance(1, 10) {
        LENGTH_AT + below(LENGTH_BYTES)
    } else if rng.chance(1, 3) {
        // Heads are short, and each field of one is read by somebody.
        MAGIC_AT + 1 + below(HEADER_BYTES - MAGIC_AT - 1)
    } else {
        MAGIC_AT + 1 + below(covered)
    };
    let mut changed = bytes.to_vec();
    changed[at + place] ^= 1 << rng.below(8);
    let batch = changed[at..at + len].to_vec();
    Some((changed, Damage { course, sum, batch }))
}

/// Where whole batches are in what is written to a connection, how long they are, and their sums. A frame has its own head
/// before them, and anything may be between them.
fn find_batches(bytes: &[u8]) -> Vec<(usize, usize, u32)> {
    let mut found = Vec::new();
    let mut at = 0;
    while at + HEADER_BYTES < bytes.len() {
        let batch = if bytes[at + MAGIC_AT] == MAGIC {
            record::first(&bytes[at..])
        } else {
            None
        };
        let whole = batch.filter(|batch| batch.bytes.len() > HEADER_BYTES && batch.is_whole());
        let Some(batch) = whole else {
            at += 1;
            continue;
        };
        found.push((at, batch.bytes.len(), batch.crc));
        at += batch.bytes.len();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Identity, encode};
    use skerry_checker::history::Value;

    fn batch(serial: u32) -> Vec<u8> {
        let value = Value { producer: 7, serial };
        encode(&[value], Identity::NONE, 5, 40).to_vec()
    }

    /// Two batches, and what a frame has around them.
    fn frame() -> Vec<u8> {
        [&[2; 33][..], &batch(1), &[2; 7], &batch(2), &[2; 5]].concat()
    }

    #[test]
    fn one_bit_of_one_batch_is_another_and_its_sum_or_its_length_tells() {
        let (frame, rng) = (frame(), Rng::seeded(3));
        let mut struck = std::collections::BTreeSet::new();
        for course in [Course::ToBroker, Course::BetweenNodes, Course::ToClient] {
            for _ in 0..400 {
                let Some((changed, damage)) = corrupt(&frame, course, 2, &rng) else {
                    continue;
                };
                let bits = frame.iter().zip(&changed).map(|(a, b)| (a ^ b).count_ones());
                assert_eq!(bits.sum::<u32>(), 1);
                let untouched = record::first(&damage.batch)
                    .is_some_and(|first| first.bytes.len() == damage.batch.len() && first.is_whole());
                assert!(!untouched, "{course:?}: nobody could tell");
                struck.insert(frame.iter().zip(&changed).position(|(a, b)| a != b).unwrap());
            }
        }
        // Neither the offset, nor the epoch, nor the magic.
        for at in [33, 33 + batch(1).len() + 7] {
            let forbidden = (at..at + LENGTH_AT).chain(at + 12..at + 17);
            assert!(forbidden.into_iter().all(|place| !struck.contains(&place)));
            assert!(struck.range(at..at + HEADER_BYTES).count() > 30);
        }
        assert!(corrupt(&frame[..33], Course::ToClient, 1, &rng).is_none());
    }

    #[test]
    fn each_damage_is_noticed_once_and_only_what_was_damaged_is() {
        let (frame, rng) = (frame(), Rng::seeded(5));
        let corrupted = Corrupted::default();
        assert!(!corrupted.was_sent(&batch(1)));
        let (_, damage) = corrupt(&frame[..33 + batch(1).len()], Course::ToBroker, 1, &rng).unwrap();
        corrupted.add(damage);
        assert!(!corrupted.was_sent(&batch(2)));
        assert!(corrupted.was_sent(&batch(1)));
        assert!(!corrupted.was_sent(&batch(1)));

        for _ in 0..50 {
            let stored = [batch(3), batch(1)].concat();
            let (served, damage) = corrupt(&stored, Course::ToClient, 1, &rng).unwrap();
            let (other, _) = corrupt(&stored, Course::ToClient, 1, &rng).unwrap();
            corrupted.add(damage);
            assert!(!corrupted.was_read(&stored));
            assert!(other == served || !corrupted.was_read(&other));
            assert!(corrupted.was_read(&served));
            assert!(!corrupted.was_read(&served));
        }
    }
}
