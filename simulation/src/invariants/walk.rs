//! A log as its files have it, batch for batch, and what follows from that alone: the offsets, the producers, the indexes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use skerry_log::RememberedBatch;
use skerry_types::{Offset, ProducerIdentity, Sequence};

use super::Found;
use crate::disk::SimDisk;
use crate::process::DATA_DIR;
use crate::record;

/// Kafka's brokers remember so many batches of each producer, and its clients have no more in flight.
const REMEMBERED: usize = 5;
/// Bit of a batch's attributes: it holds a transaction marker.
const CONTROL: u8 = 0x20;
const OFFSET_ENTRY_BYTES: usize = 8;
const TIME_ENTRY_BYTES: usize = 12;

/// A batch and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Walked {
    pub(super) base: i64,
    pub(super) end: i64,
    segment: i64,
    position: usize,
    crc: u32,
    producer: i64,
    producer_epoch: i16,
    first_sequence: i32,
    is_control: bool,
    max_timestamp: i64,
}

impl Walked {
    /// Kafka's sequences begin again at 0 behind the largest.
    fn last_sequence(&self) -> i32 {
        let last = i64::from(self.first_sequence) + (self.end - self.base - 1);
        i32::try_from(last % (i64::from(i32::MAX) + 1)).unwrap_or(0)
    }

    /// The same records, wherever they lie.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.base, self.end, self.crc) == (other.base, other.end, other.crc)
    }
}

fn at<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    bytes
        .get(from..from + N)
        .and_then(|part| part.try_into().ok())
        .unwrap_or([0; N])
}

fn segments(disk: &SimDisk, name: &str) -> Vec<(i64, PathBuf)> {
    let dir = Path::new(DATA_DIR).join("log").join(name);
    disk.live_names(&dir, |name| {
        Some((name.strip_suffix(".log")?.parse().ok()?, dir.join(name)))
    })
}

/// The batches that hold offsets of `start..end`, as a read sees them.
pub(super) fn batches(disk: &SimDisk, name: &str, (start, end): (i64, i64)) -> Vec<Walked> {
    let mut walked = Vec::new();
    for (segment, path) in segments(disk, name) {
        disk.with_live(&path, |bytes| {
            let mut position = 0;
            for batch in record::batches(bytes) {
                if batch.base >= end {
                    break;
                }
                if batch.end() > start {
                    walked.push(Walked {
                        base: batch.base,
                        end: batch.end(),
                        segment,
                        position,
                        crc: batch.crc,
                        producer: i64::from_be_bytes(at(batch.bytes, 43)),
                        producer_epoch: i16::from_be_bytes(at(batch.bytes, 51)),
                        first_sequence: i32::from_be_bytes(at(batch.bytes, 53)),
                        is_control: batch.bytes.get(22).is_some_and(|low| low & CONTROL != 0),
                        max_timestamp: i64::from_be_bytes(at(batch.bytes, 35)),
                    });
                }
                position += batch.bytes.len();
            }
        });
    }
    walked
}

/// 20: from the start to the end each offset once, from segment to segment too.
pub(super) fn check_offsets(who: &str, walked: &[Walked], (start, end): (i64, i64), found: &mut Found) {
    if start == end {
        return;
    }
    let (Some(first), Some(last)) = (walked.first(), walked.last()) else {
        found.push((
            "offsets-not-contiguous",
            format!("{who} is {start}..{end}, and holds no batch"),
        ));
        return;
    };
    let hole = walked.windows(2).find(|pair| pair[0].end != pair[1].base);
    if let Some(pair) = hole {
        found.push((
            "offsets-not-contiguous",
            format!("{who}: {:?} follows {:?}", pair[1], pair[0]),
        ));
    } else if first.base > start || last.end != end {
        found.push((
            "offsets-not-contiguous",
            format!(
                "{who} is {start}..{end}; its batches are {}..{}",
                first.base, last.end
            ),
        ));
    }
}

/// What a producer has written, as far as the log goes.
#[derive(Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    batches: Vec<Walked>,
}

/// 19: the sequences of each instance of a producer follow each other without a gap, none is there twice, and no earlier
/// instance writes after a later one.
fn producers(who: &str, walked: &[Walked], found: &mut Found) -> BTreeMap<i64, Producer> {
    let mut known: BTreeMap<i64, Producer> = BTreeMap::new();
    for batch in walked
        .iter()
        .filter(|batch| batch.producer >= 0 && !batch.is_control)
    {
        let Some(producer) = known.get_mut(&batch.producer) else {
            let first = Producer {
                epoch: batch.producer_epoch,
                batches: vec![*batch],
            };
            known.insert(batch.producer, first);
            continue;
        };
        let expected = match producer.batches.last() {
            Some(last) if producer.epoch == batch.producer_epoch => {
                last.last_sequence().wrapping_add(1).max(0)
            }
            _ => 0,
        };
        if batch.producer_epoch < producer.epoch || batch.first_sequence != expected {
            found.push((
                "sequences-not-contiguous",
                format!(
                    "{who}: {batch:?} after {:?} of epoch {}",
                    producer.batches.last(),
                    producer.epoch
                ),
            ));
        }
        if batch.producer_epoch != producer.epoch {
            producer.epoch = batch.producer_epoch;
            producer.batches.clear();
        }
        producer.batches.push(*batch);
    }
    known
}

/// What a log tells repetitions by.
pub(super) type Remembered = [(ProducerIdentity, Vec<RememberedBatch>)];

/// 19: what a log remembers of its producers is what its records say. No simulation lasts as long as it takes to forget one.
pub(super) fn check_producers(
    who: &str,
    walked: &[Walked],
    remembered: &Remembered,
    start: i64,
    found: &mut Found,
) {
    let mut written = producers(who, walked, found);
    for (identity, batches) in remembered {
        let producer = written.remove(&identity.id.get());
        // What was deleted may be remembered.
        let batches: Vec<_> = batches
            .iter()
            .filter(|batch| batch.last_offset.get() >= start)
            .collect();
        let expected: Vec<_> = producer
            .iter()
            .filter(|producer| producer.epoch == identity.epoch.get())
            .flat_map(|producer| &producer.batches[producer.batches.len().saturating_sub(REMEMBERED)..])
            .map(|batch| RememberedBatch {
                first_sequence: Sequence(batch.first_sequence),
                last_sequence: Sequence(batch.last_sequence()),
                last_offset: Offset(batch.end - 1),
            })
            .collect();
        let newer = producer.filter(|producer| producer.epoch > identity.epoch.get());
        if newer.is_some() || !batches.iter().copied().eq(&expected) {
            found.push((
                "wrong-producer-state",
                format!("{who} remembers {batches:?} of {identity:?}; its log says {expected:?} ({newer:?})"),
            ));
        }
    }
    if let Some((id, producer)) = written.first_key_value() {
        found.push((
            "wrong-producer-state",
            format!("{who} has forgotten producer {id}: {:?}", producer.batches.last()),
        ));
    }
}

/// 19, where a log is compacted: of what a producer wrote the last batch stays, though nothing be left in it, and it is
/// what the log remembers of that producer last. Others stay that it may send again; which it may, the log does not know:
/// what was pushed out of its memory by batches that were cut off since has been acknowledged (4139 of any size, 60 s).
pub(super) fn check_last_batches(who: &str, walked: &[Walked], remembered: &Remembered, found: &mut Found) {
    let mut last: BTreeMap<i64, &Walked> = BTreeMap::new();
    for batch in walked
        .iter()
        .filter(|batch| batch.producer >= 0 && !batch.is_control)
    {
        last.insert(batch.producer, batch);
    }
    for (identity, batches) in remembered {
        let expected = last.remove(&identity.id.get());
        let is_it = |batch: &&Walked| {
            batch.producer_epoch == identity.epoch.get()
                && batches.last().is_some_and(|known| {
                    (known.last_offset.get(), known.last_sequence.0) == (batch.end - 1, batch.last_sequence())
                })
        };
        if expected.as_ref().is_none_or(|batch| !is_it(batch)) {
            found.push((
                "wrong-producer-state",
                format!("{who} remembers {batches:?} of {identity:?}; the last in its log is {expected:?}"),
            ));
        }
    }
    if let Some((id, batch)) = last.first_key_value() {
        found.push((
            "wrong-producer-state",
            format!("{who} has forgotten producer {id}: {batch:?}"),
        ));
    }
}

/// 20: each entry of an index leads to the batch that it names.
pub(super) fn check_indexes(disk: &SimDisk, name: &str, who: &str, found: &mut Found) {
    let walked = batches(disk, name, (i64::MIN, i64::MAX));
    for (segment, path) in segments(disk, name) {
        let of: Vec<&Walked> = walked.iter().filter(|batch| batch.segment == segment).collect();
        let mut wrong =
            |entry: String| found.push(("index-differs", format!("{who}, segment {segment}: {entry}")));
        disk.with_live(&path.with_extension("index"), |bytes| {
            for entry in bytes.chunks_exact(OFFSET_ENTRY_BYTES) {
                let offset = segment + i64::from(u32::from_be_bytes(at(entry, 0)));
                let position = u32::from_be_bytes(at(entry, 4)) as usize;
                let is = |batch: &&&Walked| batch.position == position && batch.end - 1 == offset;
                if !of.iter().any(|batch| is(&batch)) {
                    wrong(format!("no batch at {position} ends with {offset}"));
                }
            }
        });
        disk.with_live(&path.with_extension("timeindex"), |bytes| {
            for entry in bytes.chunks_exact(TIME_ENTRY_BYTES) {
                let timestamp = i64::from_be_bytes(at(entry, 0));
                let offset = segment + i64::from(u32::from_be_bytes(at(entry, 8)));
                let is = |batch: &&&Walked| batch.max_timestamp == timestamp && batch.end - 1 == offset;
                if !of.iter().any(|batch| is(&batch)) {
                    wrong(format!("no batch of {timestamp} ends with {offset}"));
                }
            }
        });
    }
}
