//! Keeps an idempotent producer's batches in order while some of them are refused for a moment.
//!
//! A producer has up to five batches on their way. While the first is refused, say because its leader has not taken
//! office yet, the others are in the socket already, and this broker may have become the leader before it comes to them.
//!
//! A log that does not know the producer would take the second batch, because retention may have taken what was known
//! (KIP-360), and then refuse the first whenever it came again: KAFKA-14359. Java's client tries again until the
//! delivery's timeout, and librdkafka gives the producer up.
//!
//! A log that knows the producer finds the second batch out of order, and OUT_OF_ORDER_SEQUENCE_NUMBER is a dangerous
//! answer. Java's client takes it for what it is and tries again, in order. librdkafka begins a new producer epoch and
//! sends everything again that is not acknowledged (`rd_kafka_handle_idempotent_Produce_error`, "R2 failed"): the first
//! batch too, which the leader before this one may have written. The new epoch makes it another record. Kafka gives
//! that answer.
//!
//! Therefore a connection remembers what was refused for a moment, and gives what comes behind it the same answer: both
//! clients send all of it again in the order of the sequences. What does not follow upon anything refused is a real
//! gap, and is told as one.
//!
//! Of a batch that was damaged on its way (CORRUPT_MESSAGE, which clients send again too) nobody knows whose it was: its
//! head is as damaged as the rest. What comes behind it to its partition is held back, each producer's until that begins
//! again: the damaged batch comes first then, if it was that producer's.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use skerry_log::batch::BatchHeader;
use skerry_types::{ProducerIdentity, Sequence, Uuid, is_planted, reached};

/// Batches that a producer may have sent behind one before it hears that this was refused. Idempotent producers have at
/// most five for a partition on their way (`max.in.flight.requests.per.connection`), since a log remembers five of each.
/// More than these are a producer's that has given the refused batch up.
const SENT_AHEAD_MAX: u32 = 4;
/// Requests of a connection after which a refused batch is forgotten: its producer has found another leader.
const REQUESTS_MAX: u64 = 64;
/// Producers on one connection, behind one damaged batch. Those beyond are taken as they come: Kafka's behaviour.
const BEHIND_DAMAGE_MAX: usize = 16;
/// Of one connection. What is refused beyond it is not remembered: Kafka's behaviour.
const REFUSED_MAX: usize = 4096;

/// An idempotent producer's batch as it stands in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    stream: Stream,
    sequence: Sequence,
}

/// Batches that must be written in the order of their sequences.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stream {
    place: Place,
    producer: ProducerIdentity,
}

/// A partition as the request names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Its topic.
    pub topic: TopicKey,
    /// Its number.
    pub partition: i32,
}

/// As the request names the topic: it may be one that nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    /// Up to version 12.
    Name(Box<str>),
    /// From version 13 on.
    Id(Uuid),
}

impl Sent {
    /// The batch with this head, of which nothing has been checked; `None` where its producer has no identity.
    #[must_use]
    pub fn new(place: Place, header: &BatchHeader) -> Option<Self> {
        let sequence = header.base_sequence();
        if !header.has_producer_id() || sequence < Sequence(0) {
            return None;
        }
        let producer = ProducerIdentity {
            id: header.producer_id(),
            epoch: header.producer_epoch(),
        };
        let stream = Stream { place, producer };
        Some(Self { stream, sequence })
    }
}

struct Refused {
    sequence: Sequence,
    code: ResponseError,
    request: u64,
    /// Batches behind it that were given the same answer.
    followers: u32,
}

/// What came behind a batch that nobody could read.
struct Damage {
    code: ResponseError,
    request: u64,
    /// The last batch of each producer that was held back; `None`: it has begun again since.
    behind: BTreeMap<ProducerIdentity, Option<Sequence>>,
}

/// What one connection's producers were refused for a moment.
#[derive(Default)]
pub struct Pipeline {
    /// Produce requests so far.
    requests: u64,
    refused: BTreeMap<Stream, Refused>,
    damaged: BTreeMap<Place, Damage>,
}

impl Pipeline {
    /// A Produce request begins.
    pub fn begin_request(&mut self) {
        self.requests += 1;
        let oldest = self.requests.saturating_sub(REQUESTS_MAX);
        self.refused.retain(|_, refused| refused.request > oldest);
        self.damaged.retain(|_, damage| damage.request > oldest);
    }

    /// True where nothing is remembered, which is nearly always.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty() && self.damaged.is_empty()
    }

    /// The answer that `sent` shares with a batch before it that was refused and has not come again; asked where its log
    /// cannot tell, or has found a gap. Nobody is refused without end: a producer whose batches go on without the
    /// refused one has given that up.
    pub fn held_back(&mut self, sent: &Sent) -> Option<ResponseError> {
        if let Some(code) = self.is_behind_damage(sent) {
            return Some(code);
        }
        let refused = self.refused.get_mut(&sent.stream)?;
        if !is_behind(sent.sequence, refused.sequence) || is_planted("pipelined-batch-overtakes") {
            return None;
        }
        if refused.followers == SENT_AHEAD_MAX {
            self.refused.remove(&sent.stream);
            return None;
        }
        refused.followers += 1;
        reached("pipelined-batch-held-back");
        Some(refused.code)
    }

    /// `sent` came behind a batch that nobody could read, and its producer has not begun again since.
    fn is_behind_damage(&mut self, sent: &Sent) -> Option<ResponseError> {
        let damage = self.damaged.get_mut(&sent.stream.place)?;
        if is_planted("pipelined-batch-overtakes") {
            return None;
        }
        // Nothing of this producer was sent before its first batch.
        let begins = sent.sequence == Sequence(0);
        let is_full = damage.behind.len() >= BEHIND_DAMAGE_MAX;
        match damage.behind.get_mut(&sent.stream.producer) {
            Some(last) => {
                if begins || last.is_none_or(|last| !is_behind(sent.sequence, last)) {
                    *last = None;
                    return None;
                }
                *last = Some(sent.sequence);
            }
            None if begins || is_full => return None,
            None => {
                damage.behind.insert(sent.stream.producer, Some(sent.sequence));
            }
        }
        reached("pipelined-batch-held-back");
        Some(damage.code)
    }

    /// A batch for this partition was damaged on its way: nobody knows whose it was.
    pub fn refuse_unread(&mut self, place: Place, code: ResponseError) {
        if self.damaged.contains_key(&place) || self.damaged.len() < REFUSED_MAX {
            reached("damaged-batch-refused");
            let damage = Damage {
                code,
                request: self.requests,
                behind: BTreeMap::new(),
            };
            self.damaged.insert(place, damage);
        }
    }

    /// `sent` was refused for a moment, or was taken and will not be acknowledged here.
    pub fn refuse(&mut self, sent: Sent, code: ResponseError) {
        let known = self.refused.get(&sent.stream);
        // The first of several is what the others wait for.
        if known.is_some_and(|known| is_behind(sent.sequence, known.sequence)) {
            return;
        }
        if known.is_some() || self.refused.len() < REFUSED_MAX {
            let refused = Refused {
                sequence: sent.sequence,
                code,
                request: self.requests,
                followers: 0,
            };
            self.refused.insert(sent.stream, refused);
        }
    }

    /// `sent` is in the log, and with it all that was sent before.
    pub fn taken(&mut self, sent: &Sent) {
        if let Some(damage) = self.damaged.get_mut(&sent.stream.place)
            && let Some(last) = damage.behind.get_mut(&sent.stream.producer)
        {
            *last = None;
        }
        let refused = self.refused.get(&sent.stream);
        if refused.is_some_and(|refused| !is_behind(refused.sequence, sent.sequence)) {
            self.refused.remove(&sent.stream);
        }
    }
}

/// True where `sequence` comes after `other`, on the circle that sequences go round.
fn is_behind(sequence: Sequence, other: Sequence) -> bool {
    let ahead = sequence.get().wrapping_sub(other.get()) & i32::MAX;
    ahead > 0 && ahead <= i32::MAX / 2
}

#[cfg(test)]
mod tests {
    use skerry_log::batch::{BatchBuilder, Compression};
    use skerry_types::{ProducerEpoch, ProducerId, WallMs};

    use super::*;

    const FULL: ResponseError = ResponseError::NotEnoughReplicas;

    fn place(partition: i32) -> Place {
        Place {
            topic: TopicKey::Name("orders".into()),
            partition,
        }
    }

    fn sent(epoch: i16, partition: i32, sequence: i32) -> Sent {
        let producer = ProducerIdentity {
            id: ProducerId(7),
            epoch: ProducerEpoch(epoch),
        };
        Sent {
            stream: Stream {
                place: place(partition),
                producer,
            },
            sequence: Sequence(sequence),
        }
    }

    /// A log that has one producer's batches up to `last`, if it knows the producer, and takes only what follows.
    struct Log {
        last: Option<i32>,
    }

    /// Each of the batches in a request of its own, while `refused` find no room.
    fn answers(
        pipeline: &mut Pipeline,
        log: &mut Log,
        batches: &[Sent],
        refused: &[Sent],
    ) -> Vec<&'static str> {
        let answer = |sent: &Sent| {
            pipeline.begin_request();
            if refused.contains(sent) {
                pipeline.refuse(sent.clone(), FULL);
                return "no room";
            }
            if log.last.is_none() && pipeline.held_back(sent).is_some() {
                return "held back";
            }
            let sequence = sent.sequence.get();
            if log.last.is_some_and(|last| sequence > last + 1) {
                return match pipeline.held_back(sent) {
                    Some(_) => "held back",
                    None => "out of order",
                };
            }
            log.last = log.last.max(Some(sequence));
            pipeline.taken(sent);
            "written"
        };
        batches.iter().map(answer).collect()
    }

    const fn unknown() -> Log {
        Log { last: None }
    }

    #[test]
    fn nothing_overtakes_a_refused_batch() {
        for mut log in [unknown(), Log { last: Some(-1) }] {
            let mut pipeline = Pipeline::default();
            let window = [0, 1, 2, 3, 4].map(|sequence| sent(0, 0, sequence));
            assert_eq!(
                answers(&mut pipeline, &mut log, &window, &window[..1]),
                ["no room", "held back", "held back", "held back", "held back"]
            );
            assert_eq!(answers(&mut pipeline, &mut log, &window, &[]), ["written"; 5]);
            assert!(pipeline.is_empty());
        }
    }

    /// librdkafka has one more request in its queue than are on their way, and those of other partitions between them.
    #[test]
    fn requests_for_other_partitions_do_not_count() {
        let (mut pipeline, mut log) = (Pipeline::default(), Log { last: Some(6) });
        let (first, second) = (sent(0, 0, 7), sent(0, 0, 8));
        assert_eq!(
            answers(
                &mut pipeline,
                &mut log,
                std::slice::from_ref(&first),
                std::slice::from_ref(&first)
            ),
            ["no room"]
        );
        for partition in 1..=30 {
            answers(&mut pipeline, &mut unknown(), &[sent(0, partition, 0)], &[]);
        }
        let second = std::slice::from_ref(&second);
        assert_eq!(answers(&mut pipeline, &mut log, second, &[]), ["held back"]);
    }

    #[test]
    fn a_batch_that_is_refused_again_holds_the_others_back_again() {
        let (mut pipeline, mut log) = (Pipeline::default(), Log { last: Some(0) });
        let window = [1, 2, 3].map(|sequence| sent(0, 0, sequence));
        for _ in 0..3 {
            assert_eq!(
                answers(&mut pipeline, &mut log, &window, &window[..1]),
                ["no room", "held back", "held back"]
            );
        }
        assert_eq!(
            answers(&mut pipeline, &mut log, &window, &window[1..2]),
            ["written", "no room", "held back"]
        );
    }

    #[test]
    fn what_was_taken_and_cut_away_again_holds_the_others_back() {
        let (mut pipeline, mut log) = (Pipeline::default(), Log { last: Some(0) });
        let window = [1, 2, 3].map(|sequence| sent(0, 0, sequence));
        assert_eq!(
            answers(&mut pipeline, &mut log, &window[..2], &[]),
            ["written"; 2]
        );
        // The leadership ends, their acknowledgements fail, and this broker leads again without them.
        log.last = Some(0);
        for lost in &window[..2] {
            pipeline.refuse(lost.clone(), ResponseError::NotLeaderOrFollower);
        }
        assert_eq!(answers(&mut pipeline, &mut log, &window[2..], &[]), ["held back"]);
        assert_eq!(answers(&mut pipeline, &mut log, &window, &[]), ["written"; 3]);
    }

    #[test]
    fn other_partitions_other_epochs_and_repetitions_are_not_concerned() {
        let mut pipeline = Pipeline::default();
        let (refused, others) = ([sent(0, 0, 5)], [sent(0, 1, 6), sent(1, 0, 6), sent(0, 0, 4)]);
        assert_eq!(
            answers(&mut pipeline, &mut unknown(), &refused, &refused),
            ["no room"]
        );
        for other in &others[..2] {
            assert_eq!(pipeline.held_back(other), None);
        }
        assert_eq!(pipeline.held_back(&others[2]), None);
        assert_eq!(pipeline.held_back(&sent(0, 0, 6)), Some(FULL));
    }

    #[test]
    fn a_producer_that_gives_a_batch_up_hears_of_the_gap() {
        let (mut pipeline, mut log) = (Pipeline::default(), Log { last: Some(0) });
        let refused = sent(0, 0, 1);
        answers(
            &mut pipeline,
            &mut log,
            std::slice::from_ref(&refused),
            std::slice::from_ref(&refused),
        );
        let behind = [2, 3, 4, 5, 2].map(|sequence| sent(0, 0, sequence));
        assert_eq!(
            answers(&mut pipeline, &mut log, &behind, &[]),
            ["held back", "held back", "held back", "held back", "out of order"]
        );
    }

    #[test]
    fn a_gap_behind_nothing_refused_is_a_gap() {
        let (mut pipeline, mut log) = (Pipeline::default(), Log { last: Some(0) });
        let window = [2, 1, 3].map(|sequence| sent(0, 0, sequence));
        assert_eq!(
            answers(&mut pipeline, &mut log, &window, &[]),
            ["out of order", "written", "out of order"]
        );
    }

    /// The first of a window is damaged on its way: its head is some bytes, and nobody reads a producer in them.
    #[test]
    fn nothing_overtakes_a_damaged_batch() {
        for mut log in [unknown(), Log { last: Some(4) }] {
            let mut pipeline = Pipeline::default();
            let window = [5, 6, 7].map(|sequence| sent(0, 0, sequence));
            for _ in 0..2 {
                pipeline.begin_request();
                pipeline.refuse_unread(place(0), ResponseError::CorruptMessage);
                assert_eq!(
                    answers(&mut pipeline, &mut log, &window[1..], &[]),
                    ["held back", "held back"]
                );
            }
            assert_eq!(answers(&mut pipeline, &mut log, &window, &[]), ["written"; 3]);
            assert_eq!(
                answers(&mut pipeline, &mut log, &[sent(0, 0, 9)], &[]),
                ["out of order"],
                "a gap that has nothing to do with it"
            );
        }
    }

    #[test]
    fn a_damaged_batch_holds_back_nobody_for_long_and_no_other_partition() {
        let mut pipeline = Pipeline::default();
        pipeline.begin_request();
        pipeline.refuse_unread(place(0), ResponseError::CorruptMessage);
        assert_eq!(pipeline.held_back(&sent(0, 1, 6)), None);
        assert_eq!(
            pipeline.held_back(&sent(1, 0, 0)),
            None,
            "a first batch overtakes nothing"
        );
        // It was another producer's: this one begins again with the batch that was held back, and is let through.
        let behind = sent(0, 0, 6);
        assert_eq!(pipeline.held_back(&behind), Some(ResponseError::CorruptMessage));
        assert_eq!(pipeline.held_back(&behind), None);
        for _ in 0..REQUESTS_MAX {
            pipeline.begin_request();
        }
        assert!(pipeline.is_empty());
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut pipeline = Pipeline::default();
        pipeline.begin_request();
        for partition in 0..10_000 {
            pipeline.refuse(sent(0, partition, 0), FULL);
            pipeline.refuse_unread(place(partition), ResponseError::CorruptMessage);
        }
        assert_eq!(
            (pipeline.refused.len(), pipeline.damaged.len()),
            (REFUSED_MAX, REFUSED_MAX)
        );
        for epoch in 0..100 {
            pipeline.held_back(&sent(epoch, 7, 5));
        }
        assert_eq!(pipeline.damaged[&place(7)].behind.len(), BEHIND_DAMAGE_MAX);
        for _ in 0..REQUESTS_MAX {
            pipeline.begin_request();
        }
        assert!(pipeline.is_empty());
    }

    #[test]
    fn only_producers_with_an_identity_have_an_order() {
        let read = |sequence| {
            let mut batch = BatchBuilder::new(Compression::None);
            if sequence >= 0 {
                batch = batch.producer(sent(3, 0, 0).stream.producer, Sequence(sequence));
            }
            batch.push(WallMs(1), None, Some(b"value"), &[]);
            let header = BatchHeader::read(&batch.build()).unwrap();
            Sent::new(place(2), &header)
        };
        assert_eq!(read(-1), None);
        assert_eq!(read(9), Some(sent(3, 2, 9)));
    }
}
