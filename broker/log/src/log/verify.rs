use std::collections::BTreeMap;

use skerry_types::{LeaderEpoch, Offset, ProducerId};

use super::{Log, gaps_until};
use crate::batch::control_marker;
use crate::epochs::Epochs;
use crate::producers::{BatchMeta, Producers};
use crate::segment::{FileKind, Segment};
use crate::walk::Walk;

impl Log {
    /// Reads the whole log and compares everything that is derived from it: indexes, leader epochs, producer state,
    /// aborted transactions. For the simulator and for tests; it takes as long as reading the log does.
    ///
    /// # Errors
    /// What does not agree (invariants 12, 19 and 20 of SIMULATION.md).
    pub fn verify(&self) -> Result<(), String> {
        let mut epochs = Epochs::default();
        let mut producers = Producers::default();
        let mut expected = self.segments[0].base;
        for segment in &self.segments {
            if segment.base < expected
                || segment.base > expected && segment.base > gaps_until(&self.config, self.cleaned_until)
            {
                return Err(format!("segment {} follows offset {expected}", segment.base));
            }
            let mut ends = BTreeMap::new();
            let file = segment.file(FileKind::Log).map_err(|error| error.to_string())?;
            let len = file.len().map_err(|error| error.to_string())?;
            if len != u64::from(segment.size) {
                return Err(format!(
                    "segment {} has {len} bytes, not {}",
                    segment.base, segment.size
                ));
            }
            let walk = Walk {
                file: &*file,
                base: segment.base,
                position: 0,
                len,
                expected: segment.base,
                gaps_until: gaps_until(&self.config, self.cleaned_until),
            };
            let end = walk
                .run(|batch, position| {
                    epochs.assign(batch.header.leader_epoch(), batch.header.base_offset());
                    producers.apply(&batch.header, control_marker(batch));
                    ends.insert(
                        position as u32,
                        (batch.header.last_offset(), batch.header.max_timestamp()),
                    );
                    Ok(())
                })
                .map_err(|error| error.to_string())?;
            if let Some(why) = end.failure {
                return Err(format!(
                    "segment {} at byte {}: {why}",
                    segment.base, end.position
                ));
            }
            segment
                .verify_indexes(&ends)
                .map_err(|why| format!("segment {}: {why}", segment.base))?;
            expected = end.next_offset;
        }
        if expected > self.log_end || expected < self.log_end && self.active().size > 0 {
            return Err(format!(
                "the batches end at {expected}, the log at {}",
                self.log_end
            ));
        }
        epochs.truncate_start(self.log_start);
        // Of a log that is empty from its start on, nothing is known.
        epochs.truncate_end(self.log_end);
        self.verify_epochs(&epochs)?;
        self.verify_producers(&producers)
    }

    fn verify_epochs(&self, found: &Epochs) -> Result<(), String> {
        let known = |offset| self.epochs.at(offset).unwrap_or(LeaderEpoch::UNKNOWN);
        let wrong = found
            .starts()
            .iter()
            .find(|start| known(start.start) != start.epoch);
        match wrong {
            Some(start) => Err(format!(
                "offset {} is of {:?}, known as {:?}",
                start.start,
                start.epoch,
                known(start.start)
            )),
            None if self.epochs.latest() != found.latest() && found.latest().is_some() => Err(format!(
                "the last epoch is {:?}, known as {:?}",
                found.latest(),
                self.epochs.latest()
            )),
            None => Ok(()),
        }
    }

    /// Producers whose batches are in the log must be known with the last of them; older state may have outlived its
    /// batches, and silent producers are forgotten.
    fn verify_producers(&self, found: &Producers) -> Result<(), String> {
        let known: BTreeMap<ProducerId, _> = self
            .producers
            .dump()
            .map(|(p, batches)| (p.producer.id, (p, batches)))
            .collect();
        for (producer, batches) in found.dump() {
            let Some((live, live_batches)) = known.get(&producer.producer.id) else {
                continue;
            };
            // A marker alone says nothing of sequences.
            let sequences = batches.is_empty() || live.last_sequence == producer.last_sequence;
            if live.producer.epoch != producer.producer.epoch || !sequences {
                return Err(format!(
                    "a producer is known as {live:?}, the log says {producer:?}"
                ));
            }
            // A snapshot holds one timestamp, which a marker moves on: those are not compared.
            let place = |batch: &BatchMeta| (batch.last_sequence, batch.last_offset, batch.offset_delta);
            let live_places: Vec<_> = live_batches.iter().map(place).collect();
            let places: Vec<_> = batches.iter().map(place).collect();
            if !live_places.ends_with(&places) {
                return Err(format!(
                    "batches of {:?} are known as {live_batches:?}, the log has {batches:?}",
                    live.producer
                ));
            }
        }
        Ok(())
    }
}

impl Segment {
    fn verify_indexes(&self, ends: &BTreeMap<u32, (Offset, skerry_types::WallMs)>) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        let mut last: Option<crate::index::OffsetEntry> = None;
        for entry in self
            .offsets
            .all(|| self.file(FileKind::OffsetIndex))
            .map_err(text)?
        {
            let offset = self.base.plus(i64::from(entry.relative));
            if ends.get(&entry.position).map(|end| end.0) != Some(offset) {
                return Err(format!(
                    "no batch ends with offset {offset} at byte {}",
                    entry.position
                ));
            }
            if last.is_some_and(|last| last.relative >= entry.relative || last.position >= entry.position) {
                return Err(format!("offset index entry {entry:?} follows {last:?}"));
            }
            last = Some(entry);
        }
        let mut last: Option<crate::index::TimeEntry> = None;
        for entry in self.times.all(|| self.file(FileKind::TimeIndex)).map_err(text)? {
            let offset = self.base.plus(i64::from(entry.relative));
            if !ends.values().any(|end| *end == (offset, entry.timestamp)) {
                return Err(format!(
                    "no batch ends with offset {offset} and has the time {}",
                    entry.timestamp
                ));
            }
            if last.is_some_and(|last| last.timestamp >= entry.timestamp || last.relative >= entry.relative) {
                return Err(format!("time index entry {entry:?} follows {last:?}"));
            }
            last = Some(entry);
        }
        self.aborted().map_err(text)?;
        Ok(())
    }
}
