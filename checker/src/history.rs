//! What clients did and heard: the only input of the checker. One JSON object a line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{BufRead, Write};
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A record's content: who wrote it, and as its how-manyeth. No two records of a history have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value {
    /// The writer's number.
    pub producer: u32,
    /// Counts its records from 0.
    pub serial: u32,
}

impl Value {
    pub(crate) fn pack(self) -> u64 {
        u64::from(self.producer) << 32 | u64::from(self.serial)
    }

    pub(crate) fn unpack(packed: u64) -> Self {
        let part = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
        Self {
            producer: part(packed >> 32),
            serial: part(packed),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p{}.{}", self.producer, self.serial)
    }
}

/// A text that names no record.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no value: p<producer>.<serial> is expected")]
pub struct NoValue(String);

/// Why a file is no history.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A line is no event.
    #[error("line {line}: {source}")]
    Malformed {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It cannot be read.
    #[error("line {line}: {source}")]
    Input {
        /// Counted from 1.
        line: usize,
        /// What the reader said.
        source: std::io::Error,
    },
}

impl FromStr for Value {
    type Err = NoValue;

    fn from_str(text: &str) -> Result<Self, NoValue> {
        let wrong = || NoValue(text.to_owned());
        let (producer, serial) = text
            .strip_prefix('p')
            .and_then(|rest| rest.split_once('.'))
            .ok_or_else(wrong)?;
        Ok(Self {
            producer: producer.parse().map_err(|_| wrong())?,
            serial: serial.parse().map_err(|_| wrong())?,
        })
    }
}

// By hand: a history holds millions of them, and none needs a string of its own.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("p<producer>.<serial>")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Value, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// The key of a record in a log that is compacted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordKey {
    /// As text.
    pub key: String,
    /// The record has no value: it deletes the key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tombstone: bool,
}

/// What a client asks for. `key` names a partition of one life of a topic: a topic made again has other keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// One batch to one partition, with all its retries.
    Send {
        key: String,
        values: Vec<Value>,
        idempotent: bool,
        acks_all: bool,
        /// The records' own keys, one for each value: where they count, see [`Note::Compacted`].
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        record_keys: Vec<RecordKey>,
    },
    /// A read from `from`. A session is one consumer's uninterrupted reading of one partition.
    Poll { key: String, session: u64, from: i64 },
    /// The whole partition, from its start to its end, after everything has healed.
    FinalRead { key: String },
    /// The end that consumers see (ListOffsets, latest).
    ListEnd { key: String },
    /// A member's commit.
    Commit {
        group: String,
        generation: i32,
        key: String,
        offset: i64,
    },
    /// A look at the group's committed offset.
    ReadCommit { group: String, key: String },
    /// A member enters a generation.
    Join { group: String },
    /// A member takes the partitions that a generation gives it.
    Own {
        group: String,
        generation: i32,
        member: String,
        keys: Vec<String>,
    },
    /// Everything before `before` may go.
    Trim { key: String, before: i64 },
    /// A topic is made.
    CreateTopic { topic: String },
    /// A topic is removed.
    DeleteTopic { topic: String },
    /// A topic's setting is changed.
    SetConfig {
        topic: String,
        name: String,
        value: String,
    },
    /// All topics, after everything has healed.
    FinalTopics,
    /// A topic's setting, after everything has healed.
    FinalConfig { topic: String, name: String },
}

/// What a client hears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Outcome {
    /// The batch's first record is at `base`.
    Sent { base: i64 },
    /// What was read.
    Polled {
        records: Vec<(i64, Value)>,
        high_watermark: i64,
        log_start: i64,
    },
    /// An offset: of an end, of a commit (-1: none), of a log's new start.
    Offset { offset: i64 },
    /// The generation that was entered.
    Joined { generation: i32 },
    /// It is done.
    Done,
    /// The names of the topics.
    Topics { topics: Vec<String> },
    /// A setting's value.
    Config { value: String },
    /// It did not happen (`definite`), or nobody knows.
    Failed { definite: bool, why: String },
}

/// What happened to the node. Only what changes a contract is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// A record that was acknowledged with acks=1, and not yet synced, may be gone.
    UnsyncedMayBeLost,
    /// There are several nodes: acks=1 promises nothing beyond the leader's life, and a leader that does not know yet
    /// that another was elected tells old ends.
    SeveralNodes,
    /// This partition is compacted, from its first record on: the last record of each key stays. What goes for the sake of a
    /// tombstone goes at least so long before the tombstone, for those who begin to read after this and before the next
    /// such note.
    Compacted {
        key: String,
        #[serde(default)]
        tombstones_stay_ms: u64,
    },
    /// Beyond the contract: what a partition held from this offset on is lost, or was given up, and its offsets are given
    /// away again. Told while nobody reads or writes it.
    Lost { key: String, from: i64 },
    /// Beyond the contract: what was written of groups is lost, or was given up. They begin again, and may give the numbers of
    /// generations again that they have given before. Told while nobody commits or owns anything.
    GroupsLost,
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A client asks.
    Invoke(Op),
    /// It hears.
    Complete(Outcome),
    /// Something happened to the node.
    Note(Note),
}

/// When, who, what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Microseconds since the start. Events are in the order of their times.
    pub at: u64,
    /// Joins an invocation and its completion.
    pub id: u64,
    /// The client.
    pub client: String,
    /// What.
    pub what: What,
}

/// Events in the order of their times.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// All of them.
    pub events: Vec<Event>,
}

impl History {
    /// Adds an invocation and names it.
    pub fn invoke(&mut self, at: u64, client: &str, op: Op) -> u64 {
        let id = self.events.len() as u64;
        self.events.push(Event {
            at,
            id,
            client: client.to_owned(),
            what: What::Invoke(op),
        });
        id
    }

    /// Adds the completion of `id`.
    pub fn complete(&mut self, at: u64, client: &str, id: u64, outcome: Outcome) {
        self.events.push(Event {
            at,
            id,
            client: client.to_owned(),
            what: What::Complete(outcome),
        });
    }

    /// Adds something that happened to the node.
    pub fn note(&mut self, at: u64, note: Note) {
        self.events.push(Event {
            at,
            id: u64::MAX,
            client: String::new(),
            what: What::Note(note),
        });
    }

    /// Writes one JSON object a line.
    ///
    /// # Errors
    /// The writer's.
    pub fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        for event in &self.events {
            serde_json::to_writer(&mut *out, event)?;
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Reads what [`Self::write`] wrote.
    ///
    /// # Errors
    /// The number of the line that is no event, and why.
    pub fn read(input: &mut dyn BufRead) -> Result<Self, ReadError> {
        let mut events = Vec::new();
        let mut text = Vec::new();
        for line in 1.. {
            text.clear();
            let read = input.read_until(b'\n', &mut text);
            if read.map_err(|source| ReadError::Input { line, source })? == 0 {
                break;
            }
            if !text.trim_ascii().is_empty() {
                let event = serde_json::from_slice(&text);
                events.push(event.map_err(|source| ReadError::Malformed { line, source })?);
            }
        }
        Ok(Self { events })
    }

    /// How many operations of each kind were asked for, and how many of those succeeded.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<&'static str, (u64, u64)> {
        let mut kinds = BTreeMap::new();
        let mut counts: BTreeMap<&'static str, (u64, u64)> = BTreeMap::new();
        for event in &self.events {
            match &event.what {
                What::Invoke(op) => {
                    let kind = op.kind();
                    kinds.insert(event.id, kind);
                    counts.entry(kind).or_default().0 += 1;
                }
                What::Complete(outcome) if !matches!(outcome, Outcome::Failed { .. }) => {
                    if let Some(kind) = kinds.get(&event.id) {
                        counts.entry(kind).or_default().1 += 1;
                    }
                }
                What::Complete(_) | What::Note(_) => {}
            }
        }
        counts
    }

    /// The kinds of operations that were under way at each of these moments: microseconds, in their order.
    #[must_use]
    pub fn under_way(&self, moments: &[u64]) -> Vec<BTreeSet<&'static str>> {
        let mut events = self.events.iter().peekable();
        let mut open: BTreeMap<u64, &'static str> = BTreeMap::new();
        let at = |moment: &u64| {
            while let Some(event) = events.next_if(|event| event.at <= *moment) {
                match &event.what {
                    What::Invoke(op) => drop(open.insert(event.id, op.kind())),
                    What::Complete(_) => drop(open.remove(&event.id)),
                    What::Note(_) => {}
                }
            }
            open.values().copied().collect()
        };
        moments.iter().map(at).collect()
    }
}

impl Op {
    /// The kinds of what clients do while faults happen.
    pub const KINDS: [&str; 11] = [
        "send",
        "poll",
        "list-end",
        "commit",
        "read-commit",
        "join",
        "own",
        "trim",
        "create-topic",
        "delete-topic",
        "set-config",
    ];

    /// The kind's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Send { .. } => "send",
            Self::Poll { .. } => "poll",
            Self::FinalRead { .. } => "final-read",
            Self::ListEnd { .. } => "list-end",
            Self::Commit { .. } => "commit",
            Self::ReadCommit { .. } => "read-commit",
            Self::Join { .. } => "join",
            Self::Own { .. } => "own",
            Self::Trim { .. } => "trim",
            Self::CreateTopic { .. } => "create-topic",
            Self::DeleteTopic { .. } => "delete-topic",
            Self::SetConfig { .. } => "set-config",
            Self::FinalTopics => "final-topics",
            Self::FinalConfig { .. } => "final-config",
        }
    }
}
