//! Records: each that was acknowledged is there once, in order, at the offset that was told, and no reader ever saw
//! anything else.

use std::collections::BTreeMap;

use super::history::{Note, Op, Outcome, Value};
use super::{Operations, Step, Verdict, seconds};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Unknown,
    Acknowledged(i64),
    Refused,
}

struct Written {
    key: usize,
    /// The sending operation.
    op: usize,
    fate: Fate,
    /// Where the log was known to end when it was sent: it must land there or later.
    floor: i64,
    idempotent: bool,
    acks_all: bool,
    /// Acknowledged with acks=1 before a fault that may legally take what was not synced.
    may_be_lost: bool,
    first_at: i64,
    last_at: i64,
}

#[derive(Default)]
struct Partition {
    name: String,
    /// What a reader saw at each offset.
    log: BTreeMap<i64, Value>,
    floor: i64,
    high_watermark: i64,
    log_start: i64,
    final_end: Option<i64>,
    producers: BTreeMap<u32, Vec<u32>>,
}

#[derive(Default)]
struct Sweep {
    keys: BTreeMap<String, usize>,
    partitions: Vec<Partition>,
    /// By producer, by serial.
    written: Vec<Vec<Option<Written>>>,
    /// The floor of its partition when an operation was invoked.
    floors: Vec<(i64, i64)>,
    several_nodes: bool,
}

pub(super) fn check(operations: &Operations<'_>, verdict: &mut Verdict) {
    let mut sweep = Sweep {
        floors: vec![(0, 0); operations.all.len()],
        ..Sweep::default()
    };
    for step in &operations.steps {
        match step {
            Step::Invoke(index) => sweep.invoke(operations, *index, verdict),
            Step::Complete(index) => sweep.complete(operations, *index, verdict),
            Step::Note(Note::UnsyncedMayBeLost) => sweep.unsynced_may_be_lost(),
            Step::Note(Note::SeveralNodes) => sweep.several_nodes = true,
        }
    }
    sweep.judge_records(operations, verdict);
    sweep.judge_order(verdict);
    sweep.judge_gaps(verdict);
}

impl Sweep {
    fn partition(&mut self, key: &str) -> usize {
        if let Some(index) = self.keys.get(key) {
            return *index;
        }
        let index = self.partitions.len();
        self.keys.insert(key.to_owned(), index);
        self.partitions.push(Partition {
            name: key.to_owned(),
            ..Partition::default()
        });
        index
    }

    fn written(&mut self, value: Value) -> Option<&mut Written> {
        self.written
            .get_mut(value.producer as usize)?
            .get_mut(value.serial as usize)?
            .as_mut()
    }

    fn invoke(&mut self, operations: &Operations<'_>, index: usize, verdict: &mut Verdict) {
        let (Op::Send { key, .. }
        | Op::Poll { key, .. }
        | Op::FinalRead { key }
        | Op::ListEnd { key }
        | Op::Trim { key, .. }) = operations.all[index].op
        else {
            return;
        };
        let partition = self.partition(key);
        self.floors[index] = (
            self.partitions[partition].floor,
            self.partitions[partition].high_watermark,
        );
        let Op::Send {
            values,
            idempotent,
            acks_all,
            ..
        } = operations.all[index].op
        else {
            return;
        };
        for value in values {
            let producer = value.producer as usize;
            if self.written.len() <= producer {
                self.written.resize_with(producer + 1, Vec::new);
            }
            let serials = &mut self.written[producer];
            if serials.len() <= value.serial as usize {
                serials.resize_with(value.serial as usize + 1, || None);
            }
            let slot = &mut serials[value.serial as usize];
            if slot.is_some() {
                verdict.add("malformed-history", || format!("{value} is sent twice"));
            }
            *slot = Some(Written {
                key: partition,
                op: index,
                fate: Fate::Unknown,
                floor: self.partitions[partition].floor,
                idempotent: *idempotent,
                acks_all: *acks_all,
                may_be_lost: self.several_nodes && !acks_all,
                first_at: -1,
                last_at: -1,
            });
            self.partitions[partition]
                .producers
                .entry(value.producer)
                .or_default()
                .push(value.serial);
        }
    }

    fn complete(&mut self, operations: &Operations<'_>, index: usize, verdict: &mut Verdict) {
        let operation = &operations.all[index];
        let Some((at, outcome)) = operation.completed else {
            return;
        };
        match (operation.op, outcome) {
            (
                Op::Send {
                    key,
                    values,
                    acks_all,
                    ..
                },
                Outcome::Sent { base },
            ) => {
                let partition = self.partition(key);
                for (step, value) in (0_i64..).zip(values) {
                    if let Some(written) = self.written(*value) {
                        written.fate = Fate::Acknowledged(base + step);
                    }
                }
                if *acks_all {
                    let end = base + i64::try_from(values.len()).unwrap_or(0);
                    let floor = &mut self.partitions[partition].floor;
                    *floor = (*floor).max(end);
                }
            }
            (Op::Send { values, .. }, Outcome::Failed { definite: true, .. }) => {
                for value in values {
                    if let Some(written) = self.written(*value) {
                        written.fate = Fate::Refused;
                    }
                }
            }
            (
                Op::Poll { key, from, .. },
                Outcome::Polled {
                    records,
                    high_watermark,
                    log_start,
                },
            ) => {
                let first = records.first().map(|(offset, _)| *offset);
                if first.is_some_and(|first| first != *from && *from >= *log_start) {
                    verdict.add("skipped-in-a-poll", || {
                        format!(
                            "{} asked {key} at {} for what follows {from} and got {}",
                            operation.client,
                            seconds(at),
                            first.unwrap_or_default()
                        )
                    });
                }
                self.read(key, records, (operation.client, at), verdict);
                self.watermark(key, index, *high_watermark, *log_start, at, verdict);
            }
            (
                Op::FinalRead { key },
                Outcome::Polled {
                    records,
                    high_watermark,
                    log_start,
                },
            ) => {
                self.read(key, records, (operation.client, at), verdict);
                self.watermark(key, index, *high_watermark, *log_start, at, verdict);
                let partition = self.partition(key);
                let end = records
                    .last()
                    .map_or(*log_start, |(offset, _)| offset + 1)
                    .max(*high_watermark);
                self.partitions[partition].final_end = Some(end);
            }
            (Op::ListEnd { key }, Outcome::Offset { offset }) => {
                let floor = self.floors[index].0;
                if *offset < floor && !self.several_nodes {
                    verdict.add("end-went-back", || {
                        format!(
                            "{key} ended at {floor} or later for somebody before {}, and at {offset} for {} at {}",
                            seconds(operation.invoked_at),
                            operation.client,
                            seconds(at)
                        )
                    });
                }
            }
            (Op::Trim { key, .. }, Outcome::Offset { offset }) => {
                let partition = self.partition(key);
                let start = &mut self.partitions[partition].log_start;
                *start = (*start).max(*offset);
            }
            // Nobody heard of it: it may yet have been done.
            (Op::Trim { key, before }, Outcome::Failed { definite: false, .. }) => {
                let partition = self.partition(key);
                let start = &mut self.partitions[partition].log_start;
                *start = (*start).max(*before);
            }
            _ => {}
        }
    }

    fn read(&mut self, key: &str, records: &[(i64, Value)], (who, at): (&str, u64), verdict: &mut Verdict) {
        let partition = self.partition(key);
        let mut previous = -1;
        for (offset, value) in records {
            let name = &self.partitions[partition].name;
            if *offset <= previous {
                verdict.add("inconsistent-offsets", || {
                    format!("{who} read {name}: {offset} after {previous}")
                });
            }
            previous = *offset;
            match self.partitions[partition].log.insert(*offset, *value) {
                Some(old) if old != *value => verdict.add("inconsistent-offsets", || {
                    format!(
                        "{key} at {offset}: {old} was read before, {who} reads {value} at {}",
                        seconds(at)
                    )
                }),
                _ => {}
            }
            let floor = &mut self.partitions[partition].floor;
            *floor = (*floor).max(offset + 1);
            match self.written(*value) {
                None => verdict.add("phantom-record", || {
                    format!(
                        "{who} read {value} from {key} at {offset} ({}): nobody had sent it",
                        seconds(at)
                    )
                }),
                Some(written) if written.key != partition => verdict.add("phantom-record", || {
                    format!("{who} read {value} from {key} at {offset}: it was sent to another partition")
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

    fn watermark(&mut self, key: &str, op: usize, high: i64, log_start: i64, at: u64, verdict: &mut Verdict) {
        let partition = self.partition(key);
        let known = self.floors[op].1;
        if high < known && !self.several_nodes {
            verdict.add("high-watermark-went-back", || {
                format!(
                    "{key}: a reader had been told {known}, another is told {high} at {}",
                    seconds(at)
                )
            });
        }
        let partition = &mut self.partitions[partition];
        partition.high_watermark = partition.high_watermark.max(high);
        partition.log_start = partition.log_start.max(log_start);
    }

    fn unsynced_may_be_lost(&mut self) {
        for written in self.written.iter_mut().flatten().flatten() {
            written.may_be_lost |= !written.acks_all && written.fate != Fate::Refused;
        }
    }

    fn judge_records(&self, operations: &Operations<'_>, verdict: &mut Verdict) {
        for (producer, serials) in (0_u32..).zip(&self.written) {
            for (serial, written) in (0_u32..).zip(serials) {
                let Some(written) = written else { continue };
                let value = Value { producer, serial };
                let partition = &self.partitions[written.key];
                let sent_at = operations.all[written.op].invoked_at;
                match written.fate {
                    Fate::Acknowledged(offset) => {
                        self.judge_acknowledged(value, written, partition, offset, sent_at, verdict);
                    }
                    Fate::Refused if written.first_at >= 0 => verdict.add("refused-but-written", || {
                        format!(
                            "{value} was refused, and is in {} at {}",
                            partition.name, written.first_at
                        )
                    }),
                    Fate::Refused | Fate::Unknown => {}
                }
                if written.first_at >= 0 && written.first_at < written.last_at && written.idempotent {
                    verdict.add("duplicate-record", || {
                        format!(
                            "{value} of an idempotent producer is in {} at {} and at {}",
                            partition.name, written.first_at, written.last_at
                        )
                    });
                }
                if written.first_at >= 0 && written.first_at < written.floor {
                    verdict.add("order-in-real-time", || {
                        format!(
                            "{} was known to reach {} when {value} was sent ({}), and {value} is at {}",
                            partition.name,
                            written.floor,
                            seconds(sent_at),
                            written.first_at
                        )
                    });
                }
            }
        }
    }

    fn judge_acknowledged(
        &self,
        value: Value,
        written: &Written,
        partition: &Partition,
        offset: i64,
        sent_at: u64,
        verdict: &mut Verdict,
    ) {
        let there = partition.log.get(&offset);
        if there == Some(&value) {
            return;
        }
        let must_be_read =
            partition.final_end.is_some() && offset >= partition.log_start && !written.may_be_lost;
        if !must_be_read {
            return;
        }
        let acks = if written.acks_all { "acks=all" } else { "acks=1" };
        if written.first_at >= 0 {
            verdict.add("wrong-offset", || {
                format!(
                    "{value} was acknowledged ({acks}) at {offset} of {}, and is at {}",
                    partition.name, written.first_at
                )
            });
        } else {
            verdict.add("lost-record", || {
                format!(
                    "{value}, sent at {} and acknowledged ({acks}) at {offset} of {}, is gone ({}; the log is {}..{})",
                    seconds(sent_at),
                    partition.name,
                    there.map_or("nothing is there".to_owned(), |other| format!("{other} is there")),
                    partition.log_start,
                    partition.final_end.unwrap_or_default()
                )
            });
        }
    }

    fn judge_order(&self, verdict: &mut Verdict) {
        for partition in &self.partitions {
            for (producer, serials) in &partition.producers {
                let mut last: Option<(u32, i64)> = None;
                for serial in serials {
                    let written = self
                        .written
                        .get(*producer as usize)
                        .and_then(|all| all.get(*serial as usize));
                    let Some(Some(written)) = written else { continue };
                    // A plain producer's retry may arrive after what it sent next.
                    if written.first_at < 0 || !written.idempotent {
                        continue;
                    }
                    if let Some((earlier, at)) = last.filter(|(_, at)| *at >= written.first_at) {
                        verdict.add("order-of-a-producer", || {
                            format!(
                                "p{producer}.{serial} was sent after p{producer}.{earlier}, and is before it in {} ({} and {at})",
                                partition.name, written.first_at
                            )
                        });
                    }
                    last = Some((*serial, written.first_at));
                }
            }
        }
    }

    /// The histories hold no transactions and no compacted topics: every offset is a record's.
    fn judge_gaps(&self, verdict: &mut Verdict) {
        for partition in &self.partitions {
            let Some(end) = partition.final_end else { continue };
            let missing = (partition.log_start..end).find(|offset| !partition.log.contains_key(offset));
            if let Some(missing) = missing {
                verdict.add("gap-in-the-log", || {
                    format!(
                        "{}: nothing was ever read at {missing} ({}..{end})",
                        partition.name, partition.log_start
                    )
                });
            }
        }
    }
}
