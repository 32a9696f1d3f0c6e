//! Judges a finished history, from the simulator or from real processes: it knows only what clients did and heard.
//!
//! The offset that a client is told is the witness, so nothing has to be searched for: every check is one pass over
//! the events or over the records. The anomalies are those of jepsen.tests.kafka, with stricter versions where one
//! node makes them possible (SIMULATION.md section 1).
//!
//! Deliberately absent: turmoil, `skerry_env`, anything of the broker.
#![forbid(unsafe_code)]

#[cfg(test)]
mod anomalies;
#[cfg(test)]
mod anomalies_of_compaction;
mod compacted;
mod delivery;
mod groups;
pub mod history;
mod log;
mod metadata;
mod ranges;
mod records;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use self::history::{Event, History, Op, Outcome, What};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Names the promise.
    pub check: &'static str,
    /// What was seen, with the numbers.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.message)
    }
}

/// Collects violations; of each check the first few, for the rest are its consequences.
#[derive(Default)]
pub(crate) struct Verdict {
    violations: Vec<Violation>,
}

const VIOLATIONS_PER_CHECK: usize = 3;

impl Verdict {
    pub(crate) fn add(&mut self, check: &'static str, message: impl FnOnce() -> String) {
        if self
            .violations
            .iter()
            .filter(|violation| violation.check == check)
            .count()
            < VIOLATIONS_PER_CHECK
        {
            self.violations.push(Violation {
                check,
                message: message(),
            });
        }
    }
}

/// All broken promises of a history, the gravest first.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut verdict = Verdict::default();
    let operations = Operations::of(history, &mut verdict);
    log::check(&operations, &mut verdict);
    groups::check(&operations, &mut verdict);
    delivery::check(&operations, &mut verdict);
    metadata::check(&operations, &mut verdict);
    let mut violations = verdict.violations;
    violations.sort_by_key(|violation| GRAVITY.iter().position(|check| *check == violation.check));
    violations
}

/// The checks, the gravest first. A loss has many consequences: it is told before them.
const GRAVITY: [&str; 28] = [
    "malformed-history",
    "lost-record",
    "unseen-record",
    "last-value-lost",
    "deleted-key-came-back",
    "torn-batch",
    "wrong-offset",
    "inconsistent-offsets",
    "phantom-record",
    "duplicate-record",
    "refused-but-written",
    "read-before-sent",
    "order-of-a-producer",
    "order-in-real-time",
    "gap-in-the-log",
    "end-went-back",
    "deleted-records-back",
    "high-watermark-went-back",
    "skipped-in-a-poll",
    "nonmonotonic-poll",
    "lost-commit",
    "phantom-commit",
    "zombie-commit",
    "committed-unread",
    "two-owners",
    "lost-topic",
    "topic-came-back",
    "lost-setting",
];

/// One operation with its completion.
pub(crate) struct Operation<'a> {
    pub(crate) client: &'a str,
    pub(crate) invoked_at: u64,
    /// `None`: it never completed.
    pub(crate) completed: Option<(u64, &'a Outcome)>,
    pub(crate) op: &'a Op,
}

/// A step of the history in the order of time.
pub(crate) enum Step<'a> {
    Invoke(usize),
    Complete(usize),
    Note(&'a history::Note),
}

pub(crate) struct Operations<'a> {
    pub(crate) all: Vec<Operation<'a>>,
    pub(crate) steps: Vec<Step<'a>>,
}

impl<'a> Operations<'a> {
    fn of(history: &'a History, verdict: &mut Verdict) -> Self {
        let mut all: Vec<Operation<'a>> = Vec::with_capacity(history.events.len() / 2 + 1);
        let mut open = BTreeMap::new();
        let mut steps = Vec::with_capacity(history.events.len());
        for Event { at, id, client, what } in &history.events {
            match what {
                What::Invoke(op) => {
                    open.insert(*id, all.len());
                    steps.push(Step::Invoke(all.len()));
                    all.push(Operation {
                        client,
                        invoked_at: *at,
                        completed: None,
                        op,
                    });
                }
                What::Complete(outcome) => match open.remove(id) {
                    Some(index) => {
                        all[index].completed = Some((*at, outcome));
                        steps.push(Step::Complete(index));
                    }
                    None => verdict.add("malformed-history", || {
                        format!("operation {id} ends without a beginning")
                    }),
                },
                What::Note(note) => steps.push(Step::Note(note)),
            }
        }
        Self { all, steps }
    }
}

/// Numbers for names.
#[derive(Default)]
pub(crate) struct Keys<'a>(BTreeMap<&'a str, u32>);

impl<'a> Keys<'a> {
    /// The name's number: the first name's is 0.
    pub(crate) fn index(&mut self, name: &'a str) -> u32 {
        let next = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        *self.0.entry(name).or_insert(next)
    }

    /// All of them, in the order of the names.
    pub(crate) fn by_number(&self) -> Vec<(u32, &'a str)> {
        self.0.iter().map(|(name, number)| (*number, *name)).collect()
    }
}

/// A time as a person reads it.
pub(crate) fn seconds(micros: u64) -> String {
    format!("{}.{:03}s", micros / 1_000_000, micros / 1_000 % 1_000)
}
