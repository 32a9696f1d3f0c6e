//! What happened, for a person's eyes: what the nodes were, who led, what went wrong, what clients did. It is written
//! down only where somebody will look, and nothing of it is in the trace.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skerry::broker::Broker;
use skerry::partition::{Look, Part};
use skerry_checker::history::{History, Op, Outcome, What as Told};
use skerry_metadata_state::{Image, Partition};
use skerry_types::{BrokerId, PartitionIndex};

use crate::scenario::Fault;
use crate::workload::TOPICS;

/// A run of a scenario, as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// The nodes' names.
    pub nodes: Vec<String>,
    /// In the order of their times.
    pub moments: Vec<Moment>,
    /// In the order in which they were asked for.
    pub operations: Vec<Operation>,
}

/// Something that changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Microseconds since the start.
    pub at: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It does not run.
    Down,
    /// It runs and does not serve yet.
    Starting,
    /// It serves.
    Serving,
    /// It was told to stop.
    Stopping,
    /// It stands still.
    Paused,
}

/// What changed. Nodes are named by their places.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum What {
    /// A node is something else.
    Node { node: usize, state: NodeState },
    /// Another part of the run begins.
    Phase { name: String },
    /// A fault begins.
    Fault {
        /// Its number, as `replay` prints it.
        number: usize,
        /// What goes wrong.
        what: String,
        /// Whom it was meant for.
        whom: String,
        /// Whom it hit.
        nodes: Vec<usize>,
        /// The other end of the link, where it lies on one.
        host: Option<String>,
        /// How long it lasts; 0: it is over at once, or has no end of its own.
        for_ms: u64,
    },
    /// Somebody else leads the quorum, or in another term.
    Quorum { term: u64, leader: Option<usize> },
    /// A partition has another place.
    Place {
        partition: String,
        epoch: i32,
        leader: Option<usize>,
        replicas: Vec<usize>,
        in_sync: Vec<usize>,
        eligible: Vec<usize>,
    },
    /// A copy has grown, was cut, or knows more to be committed.
    Log {
        partition: String,
        node: usize,
        leads: bool,
        start: i64,
        end: i64,
        high_watermark: i64,
    },
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// It was done.
    Done,
    /// It was not.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// What a client asked for and heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who.
    pub client: String,
    /// When it asked, in microseconds.
    pub from: u64,
    /// When it heard; the end of everything where it did not.
    pub to: u64,
    /// How it ended.
    pub ended: Ended,
    /// In one line.
    pub text: String,
}

/// What a node is at one moment.
pub(crate) struct Seen {
    pub(crate) state: NodeState,
    pub(crate) broker: Option<Arc<Broker>>,
}

/// Writes a story down while it happens.
pub(crate) struct Teller {
    story: Story,
    states: Vec<Option<NodeState>>,
    quorum: (u64, Option<usize>),
    newest: u64,
    places: BTreeMap<String, Partition>,
    logs: BTreeMap<(String, usize), Look>,
}

impl Teller {
    pub(crate) fn new(nodes: Vec<String>) -> Self {
        Self {
            states: vec![None; nodes.len()],
            story: Story {
                nodes,
                ..Story::default()
            },
            quorum: (0, None),
            newest: 0,
            places: BTreeMap::new(),
            logs: BTreeMap::new(),
        }
    }

    pub(crate) fn tell(&mut self, at: u64, what: What) {
        self.story.moments.push(Moment { at, what });
    }

    /// Looks at all nodes, and tells what has changed.
    pub(crate) fn look(&mut self, at: u64, seen: &[Seen]) {
        for (node, now) in seen.iter().enumerate() {
            if self.states[node].replace(now.state) != Some(now.state) {
                let state = now.state;
                self.tell(at, What::Node { node, state });
            }
        }
        let leaderships = seen.iter().filter_map(|now| now.broker.as_ref());
        let leaderships = leaderships.map(|broker| broker.quorum().leadership());
        let newest = leaderships.max_by_key(|known| (known.term, known.leader.is_some()));
        let quorum = newest.map(|known| (known.term, known.leader.and_then(place_of)));
        if let Some((term, leader)) = quorum.filter(|now| *now != self.quorum && now.0 >= self.quorum.0) {
            self.quorum = (term, leader);
            self.tell(at, What::Quorum { term, leader });
        }
        let images = seen.iter().filter_map(|now| now.broker.as_ref());
        let image = images
            .map(|broker| broker.quorum().image())
            .max_by_key(|image| image.index());
        if let Some(image) = image.filter(|image| image.index() > self.newest) {
            self.newest = image.index();
            self.look_at_places(at, &image);
        }
        self.look_at_logs(at, seen);
    }

    fn look_at_places(&mut self, at: u64, image: &Image) {
        let nodes = |ids: &[BrokerId]| ids.iter().filter_map(|id| place_of(*id)).collect();
        for (topic, count) in TOPICS {
            for number in 0..count {
                let found = image
                    .topic(topic)
                    .and_then(|topic| topic.partition(PartitionIndex(number)));
                let Some(now) = found else { continue };
                let partition = format!("{topic}-{number}");
                if self.places.get(&partition) == Some(&**now) {
                    continue;
                }
                self.places.insert(partition.clone(), (**now).clone());
                let what = What::Place {
                    partition,
                    epoch: now.leader_epoch.get(),
                    leader: now.leader.and_then(place_of),
                    replicas: nodes(&now.replicas),
                    in_sync: nodes(&now.isr),
                    eligible: nodes(&now.elr),
                };
                self.tell(at, what);
            }
        }
    }

    fn look_at_logs(&mut self, at: u64, seen: &[Seen]) {
        for (node, now) in seen.iter().enumerate() {
            let Some(broker) = &now.broker else { continue };
            for (topic, count) in TOPICS {
                for number in 0..count {
                    let Some(copy) = broker.partitions().get(topic, number) else {
                        continue;
                    };
                    let key = (format!("{topic}-{number}"), node);
                    if self.logs.get(&key).is_some_and(|last| copy.is_still(last)) {
                        continue;
                    }
                    let Some(look) = copy.look() else { continue };
                    let what = What::Log {
                        partition: key.0.clone(),
                        node,
                        leads: matches!(look.part, Part::Leads(_)),
                        start: look.log_start.get(),
                        end: look.log_end.get(),
                        high_watermark: look.high_watermark.get(),
                    };
                    self.logs.insert(key, look);
                    self.tell(at, what);
                }
            }
        }
    }

    /// The story, with what clients did.
    pub(crate) fn end(mut self, at: u64, history: &History) -> Story {
        self.story.operations = operations(history, at);
        self.story
    }
}

/// A fault in words.
pub struct Described {
    /// What goes wrong, and how much.
    pub text: String,
    /// The other end of the link, where it lies on one.
    pub host: Option<String>,
    /// How long it lasts, as far as it says.
    pub for_ms: u64,
}

/// Says what a fault is as its scenario writes it, whatever kinds there are.
#[must_use]
pub fn describe(fault: &Fault) -> Described {
    let value = serde_json::to_value(fault).unwrap_or_default();
    let (kind, fields) = match value.as_object().and_then(|object| object.iter().next()) {
        Some((kind, fields)) => (kind.clone(), fields.as_object().cloned().unwrap_or_default()),
        None => (
            value.as_str().unwrap_or_default().to_owned(),
            serde_json::Map::new(),
        ),
    };
    let mut text = kind;
    // How long it lasts comes last.
    let (times, others): (Vec<_>, Vec<_>) = fields.iter().partition(|(name, _)| name.ends_with("_ms"));
    for (name, value) in others.into_iter().chain(times) {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match name.strip_suffix("_ms") {
            Some(name) => text += &format!(" {name} {value} ms"),
            None => text += &format!(" {} {value}", name.replace('_', " ")),
        }
    }
    let number = |name: &str| fields.get(name).and_then(serde_json::Value::as_u64);
    Described {
        text,
        host: fields
            .get("host")
            .and_then(|host| host.as_str())
            .map(str::to_owned),
        for_ms: number("for_ms").or(number("down_ms")).unwrap_or(0),
    }
}

fn place_of(id: BrokerId) -> Option<usize> {
    usize::try_from(id.get() - 1).ok()
}

/// What clients did, each operation in one line.
fn operations(history: &History, end: u64) -> Vec<Operation> {
    let mut all = Vec::new();
    let mut open = BTreeMap::new();
    for event in &history.events {
        match &event.what {
            Told::Invoke(op) => {
                open.insert(event.id, (all.len(), op));
                all.push(Operation {
                    client: event.client.clone(),
                    from: event.at,
                    to: end,
                    ended: Ended::Unknown,
                    text: format!("{}: no answer", asked(op)),
                });
            }
            Told::Complete(outcome) => {
                let Some((place, op)) = open.remove(&event.id) else {
                    continue;
                };
                let (ended, answer) = heard(outcome);
                all[place].to = event.at;
                all[place].ended = ended;
                all[place].text = format!("{}: {answer}", asked(op));
            }
            Told::Note(_) => {}
        }
    }
    all
}

fn asked(op: &Op) -> String {
    match op {
        Op::Send {
            key,
            values,
            idempotent,
            acks_all,
            ..
        } => {
            let which = match values.as_slice() {
                [] => "nothing".to_owned(),
                [one] => one.to_string(),
                [first, .., last] => format!("{first} to {last}"),
            };
            let acks = if *acks_all { "acks=all" } else { "acks=1" };
            let kind = if *idempotent { ", idempotent" } else { "" };
            format!("send {which} to {key} ({acks}{kind})")
        }
        Op::Poll { key, from, .. } => format!("read {key} from {from}"),
        Op::FinalRead { key } => format!("read all of {key}"),
        Op::ListEnd { key } => format!("ask for the end of {key}"),
        Op::Commit {
            group, key, offset, ..
        } => format!("commit {offset} of {key} for group {group}"),
        Op::ReadCommit { group, key } => format!("ask what group {group} has committed of {key}"),
        Op::Trim { key, before } => format!("delete the records of {key} before {before}"),
        other => plain(&format!("{other:?}")),
    }
}

fn heard(outcome: &Outcome) -> (Ended, String) {
    let answer = match outcome {
        Outcome::Sent { base } => format!("written at {base}"),
        Outcome::Polled {
            records,
            high_watermark,
            ..
        } => match (records.first(), records.last()) {
            (Some((first, _)), Some((last, _))) => {
                format!("records {first} to {last}, high watermark {high_watermark}")
            }
            _ => format!("nothing new, high watermark {high_watermark}"),
        },
        Outcome::Offset { offset } => offset.to_string(),
        Outcome::Failed { definite: true, why } => return (Ended::Failed, format!("failed: {why}")),
        Outcome::Failed { definite: false, why } => {
            return (Ended::Unknown, format!("nobody knows: {why}"));
        }
        other => plain(&format!("{other:?}")),
    };
    (Ended::Done, answer)
}

/// Takes the names of types out of what was written for a programmer: `BrokerId(1)` is n1, `Offset(7)` is 7.
#[must_use]
pub fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    'text: while let Some(first) = rest.chars().next() {
        let begins_a_word = !out.ends_with(|last: char| last.is_alphanumeric());
        for (name, short) in [
            ("BrokerId(", "n"),
            ("LeaderEpoch(", ""),
            ("PartitionEpoch(", ""),
            ("Offset(", ""),
            ("Some(", ""),
        ] {
            let inside = rest.strip_prefix(name).filter(|_| begins_a_word);
            if let Some((inside, after)) = inside.and_then(closed) {
                out.push_str(short);
                out.push_str(&plain(inside));
                rest = after;
                continue 'text;
            }
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// What stands before the parenthesis that closes, and what after it.
fn closed(text: &str) -> Option<(&str, &str)> {
    let mut depth = 0_u32;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' if depth == 0 => return Some((&text[..at], &text[at + 1..])),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_numbers_and_not_types() {
        let text =
            "Partition { isr: [BrokerId(1), BrokerId(12)], leader: Some(BrokerId(2)), at: (Offset(-7)) }";
        assert_eq!(plain(text), "Partition { isr: [n1, n12], leader: n2, at: (-7) }");
        assert_eq!(
            plain("an Offset(7 that nobody closes"),
            "an Offset(7 that nobody closes"
        );
    }

    #[test]
    fn an_operation_is_a_line() {
        let mut history = History::default();
        let value = |serial| skerry_checker::history::Value { producer: 3, serial };
        let send = Op::Send {
            key: "orders-0".to_owned(),
            values: vec![value(7), value(8)],
            idempotent: true,
            acks_all: true,
            record_keys: Vec::new(),
        };
        let id = history.invoke(5, "idem1", send.clone());
        history.complete(9, "idem1", id, Outcome::Sent { base: 12 });
        history.invoke(10, "idem1", send);
        let all = operations(&history, 99);
        assert_eq!(
            all[0].text,
            "send p3.7 to p3.8 to orders-0 (acks=all, idempotent): written at 12"
        );
        assert_eq!((all[0].from, all[0].to, all[0].ended), (5, 9, Ended::Done));
        assert_eq!((all[1].to, all[1].ended), (99, Ended::Unknown));
    }
}
