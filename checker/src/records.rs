//! Records, when all is known: each that was acknowledged is there once, in order, at the offset that was told.

use std::collections::BTreeMap;

use super::compacted::Places;
use super::history::{Op, Value};
use super::log::{Partition, Sweep};
use super::table::{Fate, Written};
use super::{Operations, Verdict, seconds};

/// Of the partitions that are compacted, by their numbers.
type Compactions<'a> = BTreeMap<u32, Places<'a>>;

pub(crate) fn judge(sweep: &Sweep<'_>, operations: &Operations<'_>, verdict: &mut Verdict) {
    let compactions: Compactions<'_> = sweep
        .compacted
        .iter()
        .map(|(key, compacted)| (*key, compacted.places(&sweep.records)))
        .collect();
    for early in &sweep.early {
        match sweep.records.get(early.value) {
            Some(_) => verdict.add("read-before-sent", || {
                format!("{}: it was sent later", early.seen)
            }),
            None => verdict.add("phantom-record", || format!("{}: nobody had sent it", early.seen)),
        }
    }
    for (value, written) in sweep.records.iter() {
        let partition = &sweep.partitions[written.key as usize];
        let sent_at = operations.all[written.op as usize].invoked_at;
        let may_be_gone =
            |offset| partition.is_compacted && may_be_gone(&compactions, written, value, offset);
        judge_record(value, written, (partition, &may_be_gone), sent_at, verdict);
    }
    judge_batches(sweep, operations, &compactions, verdict);
    for (key, places) in &compactions {
        places.judge(&sweep.partitions[*key as usize], verdict);
    }
    for partition in &sweep.partitions {
        judge_order(sweep, partition, verdict);
        judge_gaps(partition, verdict);
    }
}

/// In a log that is compacted.
fn may_be_gone(compactions: &Compactions<'_>, written: &Written, value: Value, offset: i64) -> bool {
    let places = compactions.get(&written.key);
    places.is_some_and(|places| places.may_be_gone(value, offset))
}

/// A partition, and whether a record that was at this offset of it may be gone.
type Kept<'a> = (&'a Partition, &'a dyn Fn(i64) -> bool);

fn judge_record(
    value: Value,
    written: &Written,
    (partition, may_be_gone): Kept<'_>,
    sent_at: u64,
    verdict: &mut Verdict,
) {
    let name = &partition.name;
    match written.fate {
        Fate::Acknowledged(offset) => {
            judge_acknowledged(
                value,
                written,
                (partition, may_be_gone),
                (offset, sent_at),
                verdict,
            );
        }
        Fate::Refused if written.first_at >= 0 => verdict.add("refused-but-written", || {
            format!("{value} was refused, and is in {name} at {}", written.first_at)
        }),
        Fate::Refused | Fate::Unknown => {}
    }
    if written.first_at < written.last_at && written.idempotent {
        verdict.add("duplicate-record", || {
            format!(
                "{value} of an idempotent producer is in {name} at {} and at {}",
                written.first_at, written.last_at
            )
        });
    }
    if let Some(position) = written.position().filter(|position| *position < written.floor) {
        verdict.add("order-in-real-time", || {
            format!(
                "{name} was known to reach {} when {value} was sent ({}), and {value} is at {position}",
                written.floor,
                seconds(sent_at)
            )
        });
    }
}

fn judge_acknowledged(
    value: Value,
    written: &Written,
    (partition, may_be_gone): Kept<'_>,
    (offset, sent_at): (i64, u64),
    verdict: &mut Verdict,
) {
    let there = partition.log.get(offset);
    if there == Some(value) || written.may_be_lost || offset < partition.log_start {
        return;
    }
    let acks = if written.acks_all { "acks=all" } else { "acks=1" };
    let name = &partition.name;
    if written.first_at >= 0 {
        if there.is_some() || partition.final_end.is_some() || partition.covered.contains(offset) {
            verdict.add("wrong-offset", || {
                format!(
                    "{value} was acknowledged ({acks}) at {offset} of {name}, and is at {}",
                    written.first_at
                )
            });
        }
        return;
    }
    // Somebody read on behind it; or the last reader came to the end without it.
    let read_past = there.is_some() || partition.covered.contains(offset);
    let check = match partition.final_end {
        Some(end) if offset >= end && !read_past => "unseen-record",
        // A later record of its key has come, and nothing in its place.
        _ if there.is_none() && may_be_gone(offset) => return,
        Some(_) => "lost-record",
        None if read_past => "lost-record",
        // Nobody has come that far.
        None => return,
    };
    verdict.add(check, || {
        format!(
            "{value}, sent at {} and acknowledged ({acks}) at {offset} of {name}, is gone ({}; {}..{})",
            seconds(sent_at),
            there.map_or("nothing is there".to_owned(), |other| format!("{other} is there")),
            partition.log_start,
            partition
                .final_end
                .map_or("nobody read it all".to_owned(), |end| end.to_string())
        )
    });
}

/// A batch is there as a whole, or not at all, also where nobody knows how it ended: one of its records that was read
/// tells where the others are.
fn judge_batches(
    sweep: &Sweep<'_>,
    operations: &Operations<'_>,
    compactions: &Compactions<'_>,
    verdict: &mut Verdict,
) {
    for operation in &operations.all {
        let Op::Send { values, .. } = operation.op else {
            continue;
        };
        for pair in values.windows(2) {
            let [Some(one), Some(next)] = [pair[0], pair[1]].map(|value| sweep.records.get(value)) else {
                continue;
            };
            let partition = &sweep.partitions[one.key as usize];
            let expected = [
                (one.first_at >= 0).then(|| (pair[0], pair[1], one.first_at + 1)),
                (next.first_at >= 0).then(|| (pair[1], pair[0], next.first_at - 1)),
            ];
            for (seen, missing, at) in expected.into_iter().flatten() {
                let there = partition.log.get(at);
                let read = partition.covered.contains(at) || partition.final_end.is_some_and(|end| at < end);
                if partition.is_compacted && there.is_none() && may_be_gone(compactions, one, missing, at) {
                    continue;
                }
                if there != Some(missing) && (there.is_some() || read) && at >= partition.log_start {
                    verdict.add("torn-batch", || {
                        format!(
                            "{seen} is in {}, and {missing} of the same batch is not beside it, at {at}",
                            partition.name
                        )
                    });
                }
            }
        }
    }
}

fn judge_order(sweep: &Sweep<'_>, partition: &Partition, verdict: &mut Verdict) {
    for (producer, serials) in &partition.producers {
        let mut last: Option<(u32, i64)> = None;
        for serial in serials {
            let value = Value {
                producer: *producer,
                serial: *serial,
            };
            let Some(written) = sweep.records.get(value) else {
                continue;
            };
            // A plain producer's retry may arrive after what it sent next.
            let Some(position) = written.position().filter(|_| written.idempotent) else {
                continue;
            };
            if let Some((earlier, at)) = last.filter(|(_, at)| *at >= position) {
                verdict.add("order-of-a-producer", || {
                    format!(
                        "{value} was sent after p{producer}.{earlier}, and is before it in {} ({position} and {at})",
                        partition.name
                    )
                });
            }
            last = Some((*serial, position));
        }
    }
}

/// The histories hold no transactions: every offset is a record's, but where logs are compacted.
fn judge_gaps(partition: &Partition, verdict: &mut Verdict) {
    let Some(end) = partition.final_end.filter(|_| !partition.is_compacted) else {
        return;
    };
    let missing = (partition.log_start..end).find(|offset| partition.log.get(*offset).is_none());
    if let Some(missing) = missing {
        verdict.add("gap-in-the-log", || {
            format!(
                "{}: nothing was ever read at {missing} ({}..{end})",
                partition.name, partition.log_start
            )
        });
    }
}
