//! Keeps an idempotent producer's batches in order where its log cannot.
//!
//! A producer has up to five batches on their way. While the first is refused for a moment, say for want of room, the
//! others are in the socket already. A log that knows the producer finds their sequences out of order. One that does
//! not lets it begin at any sequence, because retention may have taken what was known (KIP-360): it would take the
//! second batch, and then refuse the first whenever it came again. Kafka does that (KAFKA-14359); its Java client tries
//! again until the delivery's timeout, and librdkafka gives the producer up.
//!
//! Therefore a connection remembers what was refused for a moment, and gives what comes behind it the same answer.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use skerry_log::batch::BatchHeader;
use skerry_types::{ProducerIdentity, Sequence, Uuid, is_planted};

/// Requests that a producer may have sent before it hears that one was refused. Idempotent producers have at most five
/// on their way (`max.in.flight.requests.per.connection`), since a log remembers five batches of each.
const SENT_AHEAD_MAX: u64 = 4;
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
    topic: TopicKey,
    partition: i32,
    producer: ProducerIdentity,
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
    pub fn new(topic: TopicKey, partition: i32, header: &BatchHeader) -> Option<Self> {
        let sequence = header.base_sequence();
        if !header.has_producer_id() || sequence < Sequence(0) {
            return None;
        }
        let producer = ProducerIdentity {
            id: header.producer_id(),
            epoch: header.producer_epoch(),
        };
        let stream = Stream {
            topic,
            partition,
            producer,
        };
        Some(Self { stream, sequence })
    }
}

struct Refused {
    sequence: Sequence,
    code: ResponseError,
    request: u64,
}

/// What one connection's producers were refused for a moment.
#[derive(Default)]
pub struct Pipeline {
    /// Produce requests so far.
    requests: u64,
    refused: BTreeMap<Stream, Refused>,
}

impl Pipeline {
    /// A Produce request begins. Whoever sent it knows of what was refused long before.
    pub fn begin_request(&mut self) {
        self.requests += 1;
        let oldest = self.requests.saturating_sub(SENT_AHEAD_MAX);
        self.refused.retain(|_, refused| refused.request >= oldest);
    }

    /// True where nothing is remembered, which is nearly always.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.refused.is_empty()
    }

    /// The answer to a batch before `sent` that has not come again yet. A batch that has come again is forgotten.
    pub fn held_back(&mut self, sent: &Sent) -> Option<ResponseError> {
        let refused = self.refused.get(&sent.stream)?;
        if refused.sequence == sent.sequence {
            self.refused.remove(&sent.stream);
            return None;
        }
        (is_behind(sent.sequence, refused.sequence) && !is_planted("pipelined-batch-overtakes"))
            .then_some(refused.code)
    }

    /// `sent` was refused for a moment, and [`Self::held_back`] had nothing against it.
    pub fn refuse(&mut self, sent: Sent, code: ResponseError) {
        if self.refused.len() < REFUSED_MAX || self.refused.contains_key(&sent.stream) {
            let refused = Refused {
                sequence: sent.sequence,
                code,
                request: self.requests,
            };
            self.refused.insert(sent.stream, refused);
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

    fn sent(epoch: i16, partition: i32, sequence: i32) -> Sent {
        let producer = ProducerIdentity {
            id: ProducerId(7),
            epoch: ProducerEpoch(epoch),
        };
        Sent {
            stream: Stream {
                topic: TopicKey::Name("orders".into()),
                partition,
                producer,
            },
            sequence: Sequence(sequence),
        }
    }

    /// Each of the batches in a request of its own, while only `refused` find no room.
    fn answers(pipeline: &mut Pipeline, batches: &[Sent], refused: &[Sent]) -> Vec<&'static str> {
        let answer = |sent: &Sent| {
            pipeline.begin_request();
            if pipeline.held_back(sent).is_some() {
                return "held back";
            }
            if refused.contains(sent) {
                pipeline.refuse(sent.clone(), FULL);
                return "no room";
            }
            "written"
        };
        batches.iter().map(answer).collect()
    }

    #[test]
    fn nothing_overtakes_a_refused_batch() {
        let mut pipeline = Pipeline::default();
        let window = [0, 5, 6, 9, 12].map(|sequence| sent(0, 0, sequence));
        assert_eq!(
            answers(&mut pipeline, &window, &window[..1]),
            ["no room", "held back", "held back", "held back", "held back"]
        );
        assert_eq!(answers(&mut pipeline, &window, &[]), ["written"; 5]);
        assert!(pipeline.is_empty());
    }

    #[test]
    fn a_batch_that_is_refused_again_holds_the_others_back_again() {
        let mut pipeline = Pipeline::default();
        let window = [i32::MAX - 1, 3, 8].map(|sequence| sent(0, 0, sequence));
        for _ in 0..3 {
            assert_eq!(
                answers(&mut pipeline, &window, &window[..1]),
                ["no room", "held back", "held back"]
            );
        }
        assert_eq!(
            answers(&mut pipeline, &window, &window[1..2]),
            ["written", "no room", "held back"]
        );
    }

    #[test]
    fn other_partitions_other_epochs_and_repetitions_are_not_concerned() {
        let mut pipeline = Pipeline::default();
        let (refused, others) = ([sent(0, 0, 5)], [sent(0, 1, 6), sent(1, 0, 6), sent(0, 0, 4)]);
        assert_eq!(answers(&mut pipeline, &refused, &refused), ["no room"]);
        assert_eq!(answers(&mut pipeline, &others, &[]), ["written"; 3]);
        assert_eq!(answers(&mut pipeline, &[sent(0, 0, 6)], &[]), ["held back"]);
    }

    #[test]
    fn a_producer_that_gives_a_batch_up_may_go_on() {
        let mut pipeline = Pipeline::default();
        let refused = sent(0, 0, 0);
        let window = [0, 1, 2, 3, 4, 5].map(|sequence| sent(0, 0, sequence));
        assert_eq!(answers(&mut pipeline, &window, &[refused])[5], "written");
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let mut pipeline = Pipeline::default();
        pipeline.begin_request();
        for partition in 0..10_000 {
            pipeline.refuse(sent(0, partition, 0), FULL);
        }
        assert_eq!(pipeline.refused.len(), REFUSED_MAX);
        for _ in 0..=SENT_AHEAD_MAX {
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
            Sent::new(TopicKey::Name("orders".into()), 2, &header)
        };
        assert_eq!(read(-1), None);
        assert_eq!(read(9), Some(sent(3, 2, 9)));
    }
}
