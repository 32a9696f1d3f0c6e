//! At least once: what a group has committed, some member of it had read before it asked for the commit.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Note, Op, Outcome};
use super::ranges::Ranges;
use super::{Operations, Step, Verdict, seconds};

#[derive(Default)]
struct Deliveries<'a> {
    /// The groups that a client has taken part in.
    groups: BTreeMap<&'a str, BTreeSet<&'a str>>,
    /// What members have read, by group and partition.
    delivered: BTreeMap<(&'a str, &'a str), Ranges>,
    /// Where partitions start: what was deleted reaches nobody.
    starts: BTreeMap<&'a str, i64>,
    /// Of a log that is compacted nobody can say which offsets had records once: groups that read it are not judged.
    compacted: BTreeSet<&'a str>,
    /// What nobody had read when a commit was asked for.
    unread: BTreeMap<usize, i64>,
}

pub(super) fn check(operations: &Operations<'_>, verdict: &mut Verdict) {
    let mut deliveries = Deliveries::default();
    for operation in &operations.all {
        if let Op::Join { group } | Op::Own { group, .. } | Op::Commit { group, .. } = operation.op {
            let groups = deliveries.groups.entry(operation.client).or_default();
            groups.insert(group);
        }
    }
    if deliveries.groups.is_empty() {
        return;
    }
    for step in &operations.steps {
        match step {
            Step::Invoke(index) => deliveries.asked(operations.all[*index].op, *index),
            Step::Complete(index) => deliveries.complete(operations, *index, verdict),
            Step::Note(Note::Compacted { key, .. }) => {
                deliveries.compacted.insert(key);
            }
            Step::Note(_) => {}
        }
    }
}

impl<'a> Deliveries<'a> {
    /// A group begins where it first read: at the start, or where its members were told to. Who commits without a generation
    /// takes no part: it is a tool that sets offsets.
    fn asked(&mut self, op: &'a Op, index: usize) {
        let Op::Commit {
            group,
            generation: 0..,
            key,
            offset,
        } = op
        else {
            return;
        };
        let delivered = self.delivered.get(&(group.as_str(), key.as_str()));
        let Some(delivered) = delivered.filter(|_| !self.compacted.contains(key.as_str())) else {
            return;
        };
        let Some(begin) = delivered.start() else { return };
        let start = self.starts.get(key.as_str()).copied().unwrap_or(0);
        if let Some(gap) = delivered.first_gap(begin.max(start), *offset) {
            self.unread.insert(index, gap);
        }
    }

    fn complete(&mut self, operations: &Operations<'a>, index: usize, verdict: &mut Verdict) {
        let operation = &operations.all[index];
        let Some((at, outcome)) = operation.completed else {
            return;
        };
        match (operation.op, outcome) {
            (
                Op::Poll { key, .. },
                Outcome::Polled {
                    records, log_start, ..
                },
            ) => {
                self.starts_at(key, *log_start);
                let (Some(groups), Some((first, _)), Some((last, _))) =
                    (self.groups.get(operation.client), records.first(), records.last())
                else {
                    return;
                };
                for group in groups {
                    let delivered = self.delivered.entry((group, key)).or_default();
                    delivered.add(*first, last + 1);
                }
            }
            (Op::Trim { key, .. }, Outcome::Offset { offset }) => self.starts_at(key, *offset),
            // Nobody heard of it: it may yet have been done.
            (Op::Trim { key, before }, Outcome::Failed { definite: false, .. }) => {
                self.starts_at(key, *before);
            }
            (
                Op::Commit {
                    group, key, offset, ..
                },
                Outcome::Done,
            ) => {
                let start = self.starts.get(key.as_str()).copied().unwrap_or(0);
                let Some(unread) = self.unread.get(&index).filter(|unread| **unread >= start) else {
                    return;
                };
                verdict.add("committed-unread", || {
                    format!(
                        "{} committed {offset} of {key} for {group} at {}: no member had read {unread}",
                        operation.client,
                        seconds(at)
                    )
                });
            }
            _ => {}
        }
    }

    fn starts_at(&mut self, key: &'a str, start: i64) {
        let known = self.starts.entry(key).or_insert(start);
        *known = (*known).max(start);
    }
}
