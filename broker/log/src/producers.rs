//! What a partition knows of its idempotent and transactional producers (KIP-98), and the `.snapshot` file.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::{Buf, BufMut};
use skerry_types::{
    Instant, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, WallMs, is_planted, reached,
    sometimes,
};

use crate::batch::{BatchHeader, MarkerType};
use crate::errors::AppendError;

/// Batches remembered for each producer: the most that Java's client keeps in flight with idempotence.
const BATCHES_MAX: usize = 5;
const VERSION: i16 = 1;
/// Version and sum.
const HEAD_BYTES: usize = 6;
const ENTRY_BYTES: usize = 8 + 2 + 4 + 8 + 4 + 8 + 4 + 8;
/// Begins what Kafka's file does not have: the batches before the last one. Kafka's reader stops before it.
const MORE_MAGIC: [u8; 4] = *b"skr1";
const MORE_BYTES: usize = 8 + 4 + 8 + 4 + 8;

/// One batch that a producer wrote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BatchMeta {
    pub(crate) last_sequence: Sequence,
    pub(crate) last_offset: Offset,
    pub(crate) offset_delta: i32,
    pub(crate) timestamp: WallMs,
}

impl BatchMeta {
    pub(crate) fn first_offset(&self) -> Offset {
        self.last_offset.plus(-i64::from(self.offset_delta))
    }

    /// As Kafka's `decrementSequence`: it wraps below 0.
    pub(crate) fn first_sequence(&self) -> Sequence {
        let first = i64::from(self.last_sequence.get()) - i64::from(self.offset_delta);
        Sequence(if first < 0 {
            (first + i64::from(i32::MAX) + 1) as i32
        } else {
            first as i32
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    epoch: ProducerEpoch,
    /// Oldest first.
    batches: VecDeque<BatchMeta>,
    coordinator_epoch: i32,
    last_timestamp: WallMs,
    txn_first_offset: Option<Offset>,
}

impl Entry {
    fn new(epoch: ProducerEpoch) -> Self {
        Self {
            epoch,
            batches: VecDeque::new(),
            coordinator_epoch: -1,
            last_timestamp: WallMs::NONE,
            txn_first_offset: None,
        }
    }

    fn last_sequence(&self) -> Sequence {
        self.batches
            .back()
            .map_or(Sequence::NONE, |batch| batch.last_sequence)
    }

    fn adopt_epoch(&mut self, epoch: ProducerEpoch) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

    fn push(&mut self, batch: BatchMeta) {
        let max = if is_planted("dedupe-keeps-one-batch") {
            1
        } else {
            BATCHES_MAX
        };
        while self.batches.len() >= max {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
    }
}

/// A producer as DescribeProducers shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerSnapshot {
    /// Who, and which instance.
    pub producer: ProducerIdentity,
    /// -1: none in this epoch.
    pub last_sequence: Sequence,
    /// Of its last batch or marker.
    pub last_timestamp: WallMs,
    /// -1: no marker yet.
    pub coordinator_epoch: i32,
    /// Where its open transaction begins.
    pub current_txn_first_offset: Option<Offset>,
}

/// A batch that is told from its repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RememberedBatch {
    /// Its first record's.
    pub first_sequence: Sequence,
    /// Its last record's.
    pub last_sequence: Sequence,
    /// Where its last record is.
    pub last_offset: Offset,
}

impl RememberedBatch {
    pub(crate) fn of(batch: &BatchMeta) -> Self {
        Self {
            first_sequence: batch.first_sequence(),
            last_sequence: batch.last_sequence,
            last_offset: batch.last_offset,
        }
    }
}

/// A transaction that a marker has just ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CompletedTxn {
    pub(crate) producer_id: ProducerId,
    pub(crate) first_offset: Offset,
    pub(crate) last_offset: Offset,
    pub(crate) aborted: bool,
    /// The last stable offset just after it.
    pub(crate) last_stable_offset: Offset,
}

/// All producers of one partition, as of the log's end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Producers {
    entries: BTreeMap<ProducerId, Entry>,
    /// Open transactions by their first offset.
    open: BTreeMap<Offset, ProducerId>,
    /// Ended transactions that the high watermark may not have passed: first offset to marker.
    ended: BTreeMap<Offset, Offset>,
}

/// Since when each producer has not written, as far as anybody has looked.
#[derive(Debug, Default)]
pub(crate) struct IdleProducers {
    since: BTreeMap<ProducerId, (LastWrite, Instant)>,
}

/// By this one sees whether a producer has written again.
type LastWrite = (ProducerEpoch, WallMs, Option<Offset>);

impl Producers {
    pub(crate) fn snapshots(&self) -> impl Iterator<Item = ProducerSnapshot> + '_ {
        self.entries.iter().map(|(id, entry)| ProducerSnapshot {
            producer: ProducerIdentity {
                id: *id,
                epoch: entry.epoch,
            },
            last_sequence: entry.last_sequence(),
            last_timestamp: entry.last_timestamp,
            coordinator_epoch: entry.coordinator_epoch,
            current_txn_first_offset: entry.txn_first_offset,
        })
    }

    pub(crate) fn knows(&self, id: ProducerId) -> bool {
        self.entries.contains_key(&id)
    }

    /// Everything, with each producer's batches, oldest first.
    pub(crate) fn dump(&self) -> impl Iterator<Item = (ProducerSnapshot, Vec<BatchMeta>)> + '_ {
        self.snapshots().zip(
            self.entries
                .values()
                .map(|entry| entry.batches.iter().copied().collect()),
        )
    }

    /// Judges a client's batch (KAFKA.md 3.1, in this order). `Some`: it is a repetition of that batch.
    pub(crate) fn judge(&self, header: &BatchHeader) -> Result<Option<BatchMeta>, AppendError> {
        let producer_id = header.producer_id();
        let Some(entry) = self.entries.get(&producer_id) else {
            // No state, perhaps because retention took it: any sequence may start (KIP-360).
            return Ok(None);
        };
        let (epoch, first, last) = (
            header.producer_epoch(),
            header.base_sequence(),
            header.last_sequence(),
        );
        if epoch == entry.epoch {
            let repeated = entry
                .batches
                .iter()
                .find(|b| b.first_sequence() == first && b.last_sequence == last);
            if let Some(batch) = repeated {
                reached("duplicate-recognised");
                sometimes(
                    "older-duplicate-recognised",
                    batch.last_sequence != entry.last_sequence(),
                );
                return Ok(Some(*batch));
            }
        }
        if epoch < entry.epoch && !is_planted("zombie-producer-not-fenced") {
            reached("zombie-producer-refused");
            return Err(AppendError::InvalidProducerEpoch {
                producer_id,
                found: epoch,
                current: entry.epoch,
            });
        }
        let known_last = if epoch == entry.epoch {
            entry.last_sequence()
        } else {
            Sequence::NONE
        };
        let follows = match known_last {
            Sequence::NONE => first == Sequence(0),
            last => first == last.plus(1),
        };
        if !follows {
            reached("gap-of-a-producer-refused");
            return Err(AppendError::OutOfOrderSequence {
                producer_id,
                epoch,
                found: first,
                last: known_last,
            });
        }
        if entry.txn_first_offset.is_some() && !header.is_transactional() {
            return Err(AppendError::InvalidTxnState { producer_id });
        }
        Ok(None)
    }

    /// Judges a transaction marker.
    pub(crate) fn judge_marker(
        &self,
        header: &BatchHeader,
        coordinator_epoch: i32,
    ) -> Result<(), AppendError> {
        let producer_id = header.producer_id();
        let Some(entry) = self.entries.get(&producer_id) else {
            return Ok(());
        };
        if header.producer_epoch() < entry.epoch {
            return Err(AppendError::InvalidProducerEpoch {
                producer_id,
                found: header.producer_epoch(),
                current: entry.epoch,
            });
        }
        if coordinator_epoch < entry.coordinator_epoch {
            return Err(AppendError::TransactionCoordinatorFenced {
                producer_id,
                found: coordinator_epoch,
                current: entry.coordinator_epoch,
            });
        }
        Ok(())
    }

    /// Takes note of a batch that is in the log now. Replicas and recovery judge nothing.
    pub(crate) fn apply(
        &mut self,
        header: &BatchHeader,
        marker: Option<(MarkerType, i32)>,
    ) -> Option<CompletedTxn> {
        if !header.has_producer_id() {
            return None;
        }
        if header.is_control() {
            return marker.and_then(|(kind, coordinator)| self.apply_marker(header, kind, coordinator));
        }
        let id = header.producer_id();
        let entry = self
            .entries
            .entry(id)
            .or_insert_with(|| Entry::new(header.producer_epoch()));
        entry.adopt_epoch(header.producer_epoch());
        entry.push(BatchMeta {
            last_sequence: header.last_sequence(),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta(),
            timestamp: header.max_timestamp(),
        });
        entry.last_timestamp = header.max_timestamp();
        if header.is_transactional() && entry.txn_first_offset.is_none() {
            entry.txn_first_offset = Some(header.base_offset());
            self.open.insert(header.base_offset(), id);
        }
        None
    }

    fn apply_marker(
        &mut self,
        header: &BatchHeader,
        kind: MarkerType,
        coordinator: i32,
    ) -> Option<CompletedTxn> {
        let id = header.producer_id();
        let entry = self
            .entries
            .entry(id)
            .or_insert_with(|| Entry::new(header.producer_epoch()));
        entry.adopt_epoch(header.producer_epoch());
        entry.coordinator_epoch = coordinator;
        entry.last_timestamp = header.max_timestamp();
        let first_offset = entry.txn_first_offset.take()?;
        let last_offset = header.last_offset();
        self.open.remove(&first_offset);
        self.ended.insert(first_offset, last_offset);
        Some(CompletedTxn {
            producer_id: id,
            first_offset,
            last_offset,
            aborted: kind == MarkerType::Abort,
            last_stable_offset: self.open.keys().next().copied().unwrap_or(last_offset.next()),
        })
    }

    /// The first offset that read_committed may not see yet.
    pub(crate) fn first_unstable(&self, high_watermark: Offset) -> Option<Offset> {
        let ended = self
            .ended
            .iter()
            .find(|(_, marker)| **marker >= high_watermark)
            .map(|(first, _)| *first);
        let open = self.open.keys().next().copied();
        open.into_iter().chain(ended).min()
    }

    /// Ended transactions below the high watermark are of no interest any more.
    pub(crate) fn forget_ended(&mut self, high_watermark: Offset) {
        self.ended.retain(|_, marker| *marker >= high_watermark);
    }

    /// What is known of the log below `offset`: whoever has only what follows, and applies it to this, knows as much.
    pub(crate) fn below(&self, offset: Offset) -> Self {
        let mut below = Self::default();
        for (id, entry) in &self.entries {
            let mut entry = entry.clone();
            entry.batches.retain(|batch| batch.last_offset < offset);
            // A peer may claim more than are ever kept.
            entry
                .batches
                .drain(..entry.batches.len().saturating_sub(BATCHES_MAX));
            entry.txn_first_offset = entry.txn_first_offset.filter(|first| *first < offset);
            if let Some(first) = entry.txn_first_offset {
                below.open.insert(first, *id);
            }
            if !entry.batches.is_empty() || entry.txn_first_offset.is_some() {
                below.entries.insert(*id, entry);
            }
        }
        below
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Where the batches of each producer end that it may send again, oldest first.
    pub(crate) fn remembered_offsets(&self) -> BTreeMap<ProducerId, (ProducerEpoch, Vec<Offset>)> {
        self.entries
            .iter()
            .map(|(id, entry)| {
                let ends = entry.batches.iter().map(|batch| batch.last_offset);
                (*id, (entry.epoch, ends.collect()))
            })
            .collect()
    }

    /// Forgets who has not written since `idle` saw it first as it is, for as long as `idle_max` or longer. An open
    /// transaction is not forgotten.
    ///
    /// Kafka compares the wall clock with the timestamps of the batches instead: there a clock that jumps, or records
    /// that are older than a day when they are written, take the identity from a producer that has only just written,
    /// and its next retry is a duplicate.
    pub(crate) fn expire(&mut self, idle: &mut IdleProducers, now: Instant, idle_max: Duration) {
        let before = std::mem::take(&mut idle.since);
        self.entries.retain(|id, entry| {
            let last = (
                entry.epoch,
                entry.last_timestamp,
                entry.batches.back().map(|batch| batch.last_offset),
            );
            let known = before.get(id).filter(|(known, _)| *known == last);
            let since = known.map_or(now, |(_, since)| *since);
            let keep = entry.txn_first_offset.is_some() || now.since(since) < idle_max;
            if keep {
                idle.since.insert(*id, (last, since));
            }
            keep
        });
    }

    pub(crate) fn render(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEAD_BYTES + 4 + self.entries.len() * ENTRY_BYTES);
        out.put_i16(VERSION);
        out.put_u32(0);
        out.put_i32(self.entries.len() as i32);
        for (id, entry) in &self.entries {
            let last = entry.batches.back();
            out.put_i64(id.get());
            out.put_i16(entry.epoch.get());
            out.put_i32(entry.last_sequence().get());
            out.put_i64(last.map_or(-1, |batch| batch.last_offset.get()));
            out.put_i32(last.map_or(0, |batch| batch.offset_delta));
            out.put_i64(entry.last_timestamp.get());
            out.put_i32(entry.coordinator_epoch);
            out.put_i64(entry.txn_first_offset.map_or(-1, Offset::get));
        }
        self.render_more(&mut out);
        let crc = crc32c::crc32c(&out[HEAD_BYTES..]);
        out[2..HEAD_BYTES].copy_from_slice(&crc.to_be_bytes());
        out
    }

    fn render_more(&self, out: &mut Vec<u8>) {
        let older = |entry: &Entry| entry.batches.len().saturating_sub(1);
        let count: usize = self.entries.values().map(older).sum();
        if count == 0 {
            return;
        }
        out.put_slice(&MORE_MAGIC);
        out.put_i32(count as i32);
        for (id, entry) in &self.entries {
            for batch in entry.batches.iter().take(older(entry)) {
                out.put_i64(id.get());
                out.put_i32(batch.last_sequence.get());
                out.put_i64(batch.last_offset.get());
                out.put_i32(batch.offset_delta);
                out.put_i64(batch.timestamp.get());
            }
        }
    }

    /// `None` where the bytes are no such file or the sum is wrong.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut head = bytes.get(..HEAD_BYTES)?;
        let (version, crc) = (head.get_i16(), head.get_u32());
        let mut rest = &bytes[HEAD_BYTES..];
        if version != VERSION || crc32c::crc32c(rest) != crc || rest.len() < 4 {
            return None;
        }
        let count = usize::try_from(rest.get_i32()).ok()?;
        if rest.len() / ENTRY_BYTES < count {
            return None;
        }
        let mut producers = Self::default();
        for _ in 0..count {
            let id = ProducerId(rest.get_i64());
            let mut entry = Entry::new(ProducerEpoch(rest.get_i16()));
            let last_sequence = Sequence(rest.get_i32());
            let last_offset = Offset(rest.get_i64());
            let offset_delta = rest.get_i32();
            entry.last_timestamp = WallMs(rest.get_i64());
            if last_offset >= Offset::ZERO {
                let timestamp = entry.last_timestamp;
                entry.batches.push_back(BatchMeta {
                    last_sequence,
                    last_offset,
                    offset_delta,
                    timestamp,
                });
            }
            entry.coordinator_epoch = rest.get_i32();
            entry.txn_first_offset = Some(Offset(rest.get_i64())).filter(|first| *first >= Offset::ZERO);
            if let Some(first) = entry.txn_first_offset {
                producers.open.insert(first, id);
            }
            producers.entries.insert(id, entry);
        }
        producers.parse_more(rest)?;
        Some(producers)
    }

    fn parse_more(&mut self, mut rest: &[u8]) -> Option<()> {
        if rest.len() < 8 || rest[..4] != MORE_MAGIC {
            return Some(());
        }
        rest.advance(4);
        let count = usize::try_from(rest.get_i32()).ok()?;
        if rest.len() / MORE_BYTES < count {
            return None;
        }
        for _ in 0..count {
            let entry = self.entries.get_mut(&ProducerId(rest.get_i64()))?;
            let batch = BatchMeta {
                last_sequence: Sequence(rest.get_i32()),
                last_offset: Offset(rest.get_i64()),
                offset_delta: rest.get_i32(),
                timestamp: WallMs(rest.get_i64()),
            };
            // The last one, which Kafka's part holds, stays last.
            let at = entry.batches.len().checked_sub(1)?;
            entry.batches.insert(at, batch);
        }
        Some(())
    }

    /// Invariant 19: sequences of one epoch follow each other, transactions agree in both maps.
    pub(crate) fn check(&self, log_end: Offset) {
        for (first, id) in &self.open {
            let entry = self.entries.get(id).and_then(|entry| entry.txn_first_offset);
            assert_eq!(
                entry,
                Some(*first),
                "producer {id}: its open transaction does not begin at {first}"
            );
        }
        for (id, entry) in &self.entries {
            assert!(
                entry.batches.len() <= BATCHES_MAX,
                "producer {id}: {} batches",
                entry.batches.len()
            );
            if let Some(last) = entry.batches.back() {
                assert!(
                    last.last_offset < log_end,
                    "producer {id}: its last batch ends at {}, the log at {log_end}",
                    last.last_offset
                );
            }
        }
    }
}
