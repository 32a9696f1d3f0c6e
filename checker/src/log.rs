//! Records: one pass over the events in the order of time, which notes what was told and what was read. What needs the
//! whole history is judged afterwards, by `records`.

use std::collections::BTreeMap;

use super::compacted::{Compacted, Step as Heard};
use super::history::{Note, Op, Outcome, Value};
use super::ranges::Ranges;
use super::table::{Fate, Log, Records, Written};
use super::{Keys, Operation, Operations, Step, Verdict, records, seconds};

#[derive(Default)]
pub(crate) struct Partition {
    pub(crate) name: String,
    /// What a reader saw at each offset.
    pub(crate) log: Log,
    /// What acks=all was told of each offset.
    told: Log,
    /// Where somebody read on: all of it must have been seen.
    pub(crate) covered: Ranges,
    floor: i64,
    high_watermark: i64,
    pub(crate) log_start: i64,
    /// Its records were deleted up to there, as somebody was told, and when.
    deleted: Option<(i64, u64)>,
    pub(crate) final_end: Option<i64>,
    /// The serials of each producer, in the order in which they were sent.
    pub(crate) producers: BTreeMap<u32, Vec<u32>>,
    /// What is superseded may be gone: see `Sweep::compacted`.
    pub(crate) is_compacted: bool,
}

/// A record that nobody had sent yet when it was read.
pub(crate) struct Early {
    pub(crate) value: Value,
    /// Who read it, where and when.
    pub(crate) seen: String,
}

#[derive(Default)]
pub(crate) struct Sweep<'a> {
    keys: Keys<'a>,
    clients: Keys<'a>,
    pub(crate) partitions: Vec<Partition>,
    pub(crate) records: Records,
    pub(crate) early: Vec<Early>,
    /// What was known of its partition when an operation was invoked.
    known: Vec<Known>,
    /// What each session of a client read last of a partition.
    read_up_to: BTreeMap<(u32, u64, u32), i64>,
    /// The partitions that are compacted, by their numbers.
    pub(crate) compacted: BTreeMap<u32, Compacted<'a>>,
    several_nodes: bool,
}

/// What had been told of a partition at some moment.
#[derive(Clone, Copy, Default)]
struct Known {
    key: u32,
    /// It ends here, or later.
    end: i64,
    high_watermark: i64,
}

/// What a read brought: records, the high watermark and the log's start.
struct Read<'a> {
    records: &'a [(i64, Value)],
    high_watermark: i64,
    log_start: i64,
}

pub(super) fn check(operations: &Operations<'_>, verdict: &mut Verdict) {
    let mut sweep = Sweep {
        known: vec![Known::default(); operations.all.len()],
        ..Sweep::default()
    };
    for step in &operations.steps {
        match step {
            Step::Invoke(index) => sweep.invoke(operations, *index, verdict),
            Step::Complete(index) => sweep.complete(operations, *index, verdict),
            Step::Note(Note::UnsyncedMayBeLost) => sweep.unsynced_may_be_lost(),
            Step::Note(Note::SeveralNodes) => sweep.several_nodes = true,
            Step::Note(Note::Compacted {
                key,
                tombstones_stay_ms,
            }) => {
                let key = sweep.partition(key);
                sweep.at(key).is_compacted = true;
                let compacted = sweep.compacted.entry(key).or_default();
                compacted.keep_tombstones(*tombstones_stay_ms);
            }
            Step::Note(Note::Lost { key, from }) => sweep.lost(key, *from),
            Step::Note(Note::GroupsLost) => {}
        }
    }
    records::judge(&sweep, operations, verdict);
}

impl<'a> Sweep<'a> {
    fn partition(&mut self, key: &'a str) -> u32 {
        let index = self.keys.index(key);
        if self.partitions.len() <= index as usize {
            self.partitions.push(Partition {
                name: key.to_owned(),
                ..Partition::default()
            });
        }
        index
    }

    fn at(&mut self, index: u32) -> &mut Partition {
        &mut self.partitions[index as usize]
    }

    fn invoke(&mut self, operations: &Operations<'a>, index: usize, verdict: &mut Verdict) {
        let (Op::Send { key, .. }
        | Op::Poll { key, .. }
        | Op::FinalRead { key }
        | Op::ListEnd { key }
        | Op::Trim { key, .. }) = operations.all[index].op
        else {
            return;
        };
        let key = self.partition(key);
        let several_nodes = self.several_nodes;
        if self.at(key).is_compacted {
            self.invoke_compacted(operations, index, key);
        }
        let partition = self.at(key);
        let floor = partition.floor;
        let known = Known {
            key,
            end: floor,
            high_watermark: partition.high_watermark,
        };
        if let Op::Send {
            values,
            idempotent,
            acks_all,
            ..
        } = operations.all[index].op
        {
            for value in values {
                partition
                    .producers
                    .entry(value.producer)
                    .or_default()
                    .push(value.serial);
            }
            for value in values {
                let written = Written {
                    key,
                    op: u32::try_from(index).unwrap_or(u32::MAX),
                    fate: Fate::Unknown,
                    floor,
                    idempotent: *idempotent,
                    acks_all: *acks_all,
                    may_be_lost: several_nodes && !acks_all,
                    first_at: -1,
                    last_at: -1,
                };
                if self.records.add(*value, written) {
                    verdict.add("malformed-history", || format!("{value} is sent twice"));
                }
            }
        }
        self.known[index] = known;
    }

    fn invoke_compacted(&mut self, operations: &Operations<'a>, index: usize, key: u32) {
        let operation = &operations.all[index];
        let client = self.clients.index(operation.client);
        let Some(compacted) = self.compacted.get_mut(&key) else {
            return;
        };
        match operation.op {
            Op::Send {
                values, record_keys, ..
            } => compacted.send(values, record_keys, operation.invoked_at),
            Op::Poll { session, from, .. } => {
                compacted.ask((client, Some(*session)), operation.invoked_at, *from);
            }
            Op::FinalRead { .. } => compacted.ask((client, None), operation.invoked_at, 0),
            _ => {}
        }
    }

    fn complete(&mut self, operations: &Operations<'a>, index: usize, verdict: &mut Verdict) {
        let operation = &operations.all[index];
        let Some((at, outcome)) = operation.completed else {
            return;
        };
        match (operation.op, outcome) {
            (Op::Send { .. }, Outcome::Sent { base }) => self.sent(operation, *base, verdict),
            (Op::Send { values, .. }, Outcome::Failed { definite: true, .. }) => {
                for value in values {
                    if let Some(written) = self.records.get_mut(*value) {
                        written.fate = Fate::Refused;
                    }
                }
            }
            (
                Op::Poll { .. } | Op::FinalRead { .. },
                Outcome::Polled {
                    records,
                    high_watermark,
                    log_start,
                },
            ) => {
                let read = Read {
                    records,
                    high_watermark: *high_watermark,
                    log_start: *log_start,
                };
                self.polled(operation, self.known[index].high_watermark, at, &read, verdict);
            }
            (Op::ListEnd { key }, Outcome::Offset { offset }) => {
                // A new leader refuses until it knows where the log ends (KIP-207), and who may have been replaced does too.
                let known = self.known[index].end;
                if *offset < known {
                    verdict.add("end-went-back", || {
                        format!(
                            "{key} ended at {known} or later for somebody before {}, and at {offset} for {} at {}",
                            seconds(operation.invoked_at),
                            operation.client,
                            seconds(at)
                        )
                    });
                }
                let key = self.partition(key);
                let floor = &mut self.at(key).floor;
                *floor = (*floor).max(*offset);
            }
            (Op::Trim { key, .. }, Outcome::Offset { offset }) => {
                self.trimmed(key, *offset);
                let index = self.partition(key);
                self.judge_start(index, operation, at, *offset, verdict);
                let deleted = &mut self.at(index).deleted;
                if deleted.is_none_or(|(earlier, _)| earlier < *offset) {
                    *deleted = Some((*offset, at));
                }
            }
            // Nobody heard of it: it may yet have been done.
            (Op::Trim { key, before }, Outcome::Failed { definite: false, .. }) => self.trimmed(key, *before),
            _ => {}
        }
    }

    fn trimmed(&mut self, key: &'a str, start: i64) {
        let key = self.partition(key);
        let log_start = &mut self.at(key).log_start;
        *log_start = (*log_start).max(start);
    }

    fn sent(&mut self, operation: &Operation<'a>, base: i64, verdict: &mut Verdict) {
        let Op::Send {
            key,
            values,
            acks_all,
            ..
        } = operation.op
        else {
            return;
        };
        let index = self.partition(key);
        for (offset, value) in (base..).zip(values) {
            if let Some(written) = self.records.get_mut(*value) {
                written.fate = Fate::Acknowledged(offset);
            }
            if !acks_all {
                continue;
            }
            // What acks=1 promises may be given to somebody else later.
            let other = self.at(index).told.put(offset, *value);
            if let Some(other) = other.filter(|other| other != value) {
                verdict.add("inconsistent-offsets", || {
                    format!("{other} and {value} were both acknowledged at {offset} of {key}")
                });
            }
        }
        if let Some(compacted) = self.compacted.get_mut(&index).filter(|_| *acks_all) {
            for (offset, value) in (base..).zip(values) {
                compacted.know(offset, *value);
            }
        }
        if *acks_all {
            let end = base + i64::try_from(values.len()).unwrap_or(0);
            let floor = &mut self.at(index).floor;
            *floor = (*floor).max(end);
        }
    }

    fn polled(
        &mut self,
        operation: &Operation<'a>,
        known: i64,
        at: u64,
        read: &Read<'_>,
        verdict: &mut Verdict,
    ) {
        let (Op::Poll { key, .. } | Op::FinalRead { key }) = operation.op else {
            return;
        };
        let index = self.partition(key);
        let last = read.records.last().map(|(offset, _)| *offset);
        // Whoever reads a compacted log goes on behind what is gone.
        let may_be_gone_before = match self.at(index).is_compacted {
            true => i64::MAX,
            false => read.log_start,
        };
        if let Op::Poll { session, from, .. } = operation.op {
            let first = read.records.first().map(|(offset, _)| *offset);
            if let (Some(first), Some(last)) = (first, last) {
                let client = self.clients.index(operation.client);
                let before = self.read_up_to.insert((client, *session, index), last);
                let expected = before.map_or(*from, |before| before + 1);
                judge_step(operation, at, (expected, first), may_be_gone_before, verdict);
                if expected != *from {
                    judge_step(operation, at, (*from, first), may_be_gone_before, verdict);
                }
                self.at(index).covered.add((*from).min(first), last + 1);
            }
        } else {
            let end = last.map_or(read.log_start, |last| last + 1);
            self.at(index).final_end = Some(end.max(read.high_watermark));
        }
        self.judge_start(index, operation, at, read.log_start, verdict);
        self.note_records(index, operation, at, read.records, verdict);
        if self.at(index).is_compacted {
            self.read_compacted(index, operation, at, read);
        }
        // A new leader's high watermark may lag: it learns what is committed from its followers.
        if read.high_watermark < known && !self.several_nodes {
            verdict.add("high-watermark-went-back", || {
                format!(
                    "{key}: a reader had been told {known}, another is told {} at {}",
                    read.high_watermark,
                    seconds(at)
                )
            });
        }
        let partition = self.at(index);
        partition.high_watermark = partition.high_watermark.max(read.high_watermark);
        partition.log_start = partition.log_start.max(read.log_start);
        let end = last.map_or(read.high_watermark, |last| read.high_watermark.max(last + 1));
        partition.floor = partition.floor.max(end);
    }

    /// Somebody was told where a partition begins.
    fn judge_start(
        &mut self,
        index: u32,
        operation: &Operation<'a>,
        at: u64,
        start: i64,
        verdict: &mut Verdict,
    ) {
        // A leader of before, that has not heard of it, may show for a while what was deleted.
        let is_current = !self.several_nodes || matches!(operation.op, Op::FinalRead { .. });
        let partition = self.at(index);
        if let Some((deleted, told_at)) = partition.deleted.filter(|_| is_current)
            && told_at <= operation.invoked_at
            // Old versions of Fetch do not tell it.
            && (0..deleted).contains(&start)
        {
            verdict.add("deleted-records-back", || {
                format!(
                    "{} was deleted up to {deleted}, as was answered at {}, and begins at {start} for {} at {}",
                    partition.name,
                    seconds(told_at),
                    operation.client,
                    seconds(at)
                )
            });
        }
    }

    fn read_compacted(&mut self, index: u32, operation: &Operation<'a>, at: u64, read: &Read<'_>) {
        let client = self.clients.index(operation.client);
        let Some(compacted) = self.compacted.get_mut(&index) else {
            return;
        };
        for (offset, value) in read.records {
            compacted.know(*offset, *value);
        }
        let (session, from) = match operation.op {
            Op::Poll { session, from, .. } => (Some(*session), *from),
            _ => (None, read.log_start),
        };
        let heard = Heard {
            client: operation.client,
            asked_at: operation.invoked_at,
            at,
            from,
            log_start: read.log_start,
            high_watermark: read.high_watermark,
            records: read.records,
        };
        compacted.hear((client, session), &heard);
    }

    fn note_records(
        &mut self,
        index: u32,
        operation: &Operation<'a>,
        at: u64,
        read: &[(i64, Value)],
        verdict: &mut Verdict,
    ) {
        let Self {
            partitions,
            records,
            early,
            ..
        } = self;
        let Partition {
            name,
            log,
            is_compacted,
            ..
        } = &mut partitions[index as usize];
        let may_be_gone_before = if *is_compacted { i64::MAX } else { i64::MIN };
        let who = operation.client;
        let mut previous: Option<i64> = None;
        for (offset, value) in read {
            if let Some(previous) = previous {
                judge_step(
                    operation,
                    at,
                    (previous + 1, *offset),
                    may_be_gone_before,
                    verdict,
                );
            }
            previous = Some(*offset);
            let before = log.put(*offset, *value);
            if let Some(old) = before.filter(|old| old != value) {
                verdict.add("inconsistent-offsets", || {
                    format!(
                        "{name} at {offset}: {old} was read before, {who} reads {value} at {}",
                        seconds(at)
                    )
                });
            }
            match records.get_mut(*value) {
                None => early.push(Early {
                    value: *value,
                    seen: format!("{who} read {value} from {name} at {offset} ({})", seconds(at)),
                }),
                Some(written) if written.key != index => verdict.add("phantom-record", || {
                    format!("{who} read {value} from {name} at {offset}: it was sent to another partition")
                }),
                Some(written) => {
                    if written.first_at < 0 || *offset < written.first_at {
                        written.first_at = *offset;
                    }
                    written.last_at = written.last_at.max(*offset);
                }
            }
        }
    }

    /// What was known of a partition from `from` on says nothing about what comes there now. What is before it stays
    /// promised.
    fn lost(&mut self, key: &'a str, from: i64) {
        let key = self.partition(key);
        if let Some(compacted) = self.compacted.get_mut(&key) {
            compacted.lose(from, &self.records);
        }
        let partition = self.at(key);
        partition.log.forget_from(from);
        partition.told.forget_from(from);
        partition.covered.forget_from(from);
        partition.floor = partition.floor.min(from);
        // Whoever leads now may never have heard of it.
        partition.deleted = None;
        partition.high_watermark = partition.high_watermark.min(from);
        for known in self.known.iter_mut().filter(|known| known.key == key) {
            known.end = known.end.min(from);
            known.high_watermark = known.high_watermark.min(from);
        }
        self.read_up_to
            .retain(|(_, _, read), last| *read != key || *last < from);
        for written in self.records.iter_mut().filter(|written| written.key == key) {
            written.floor = written.floor.min(from);
            match written.fate {
                Fate::Acknowledged(offset) if offset >= from => written.fate = Fate::Unknown,
                _ => {}
            }
            if written.last_at >= from {
                (written.first_at, written.last_at) = (-1, -1);
            }
        }
    }

    fn unsynced_may_be_lost(&mut self) {
        for written in self.records.iter_mut() {
            written.may_be_lost |= !written.acks_all && written.fate != Fate::Refused;
        }
    }
}

/// A reader goes on exactly where it was: histories hold no transactions, so that every offset is a record's. Only what was
/// deleted may be skipped, and anything in a log that is compacted: what may be gone is before `may_be_gone_before`.
fn judge_step(
    operation: &Operation<'_>,
    at: u64,
    (expected, got): (i64, i64),
    may_be_gone_before: i64,
    verdict: &mut Verdict,
) {
    let check = match got.cmp(&expected) {
        std::cmp::Ordering::Equal => return,
        std::cmp::Ordering::Less => "nonmonotonic-poll",
        std::cmp::Ordering::Greater if expected < may_be_gone_before => return,
        std::cmp::Ordering::Greater => "skipped-in-a-poll",
    };
    let (Op::Poll { key, .. } | Op::FinalRead { key }) = operation.op else {
        return;
    };
    verdict.add(check, || {
        format!(
            "{} goes on at {expected} of {key}, and gets {got} ({})",
            operation.client,
            seconds(at)
        )
    });
}
