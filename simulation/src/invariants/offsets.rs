//! Groups (21, 22), as the logs of `__consumer_offsets` have them: generations grow, each gives a partition to one member, and
//! what was acknowledged as committed is what the committed part of the log says, batch for batch while the world runs, before
//! compaction takes what is superseded. When all is quiet, what a group is told of its offsets is what its log says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ConsumerProtocolSubscription;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use skerry_checker::history::{History, Op, Outcome, What};
use skerry_coordinator::records::{GroupMetadataValue, RecordKey};

use super::Found;
use crate::disk::{Image, SimDisk};
use crate::process::DATA_DIR;
use crate::record::{self, Batch, segment};
use crate::workload::READ;

/// The topic of the groups.
pub(crate) const TOPIC: &str = "__consumer_offsets";

/// Offsets by group and partition.
pub(crate) type Committed = BTreeMap<(String, String), i64>;

/// What one partition's log says of groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    pub(crate) committed: Committed,
    /// The generation of each group, and who has what in it.
    generations: BTreeMap<String, (i32, BTreeMap<String, String>)>,
}

impl Groups {
    /// Reads the log from `start` up to `end`, record for record, with the leader epochs that may only grow.
    pub(crate) fn read(disk: &SimDisk, partition: &str, (start, end): (i64, i64), found: &mut Found) -> Self {
        let mut log = GroupLog {
            next: start,
            ..GroupLog::default()
        };
        log.follow(disk, partition, end, found);
        log.groups
    }

    /// Takes one record in.
    pub(crate) fn take(&mut self, key: &[u8], value: &[u8], found: &mut Found) {
        match RecordKey::decode(key) {
            Ok(RecordKey::OffsetCommit { group, partition }) => {
                let place = (
                    group.to_string(),
                    format!("{}-{}", partition.topic, partition.partition),
                );
                // Each version begins with its number and the offset.
                match value.get(2..10).and_then(|bytes| bytes.try_into().ok()) {
                    Some(offset) => self.committed.insert(place, i64::from_be_bytes(offset)),
                    None => self.committed.remove(&place),
                };
            }
            Ok(RecordKey::GroupMetadata { group }) if value.is_empty() => {
                self.generations.remove(&*group);
            }
            Ok(RecordKey::GroupMetadata { group }) => match GroupMetadataValue::decode(value) {
                Ok(value) => self.take_generation(&group, &value, found),
                Err(error) => found.push(("broken-group-record", format!("{group}: {error}"))),
            },
            Ok(RecordKey::Other(_)) | Err(_) => {}
        }
    }

    fn take_generation(&mut self, group: &str, value: &GroupMetadataValue, found: &mut Found) {
        let known = self.generations.entry(group.to_owned()).or_default();
        if value.generation < known.0 {
            let message = format!("{group} goes from generation {} to {}", known.0, value.generation);
            found.push(("generation-went-back", message));
        }
        if value.generation != known.0 {
            known.1.clear();
        }
        known.0 = value.generation;
        check_subscriptions(group, value, found);
        for member in &value.members {
            // As the workload's leaders write assignments.
            let given = String::from_utf8_lossy(&member.assignment).into_owned();
            for place in given.split_terminator(';') {
                let owner = known
                    .1
                    .entry(place.to_owned())
                    .or_insert_with(|| member.member_id.to_string());
                if **owner != *member.member_id {
                    let message = format!(
                        "generation {} of {group} gives {place} to {owner} and to {}",
                        value.generation, member.member_id
                    );
                    found.push(("two-owners", message));
                }
            }
        }
    }
}

/// One partition's log, as far as it was read.
#[derive(Debug, Default)]
struct GroupLog {
    groups: Groups,
    /// The offset after the last batch.
    next: i64,
    /// The leader epoch of that batch.
    epoch: i32,
}

impl GroupLog {
    /// Reads on up to `end`.
    fn follow(&mut self, disk: &SimDisk, partition: &str, end: i64, found: &mut Found) {
        let dir = Path::new(DATA_DIR).join("log").join(partition);
        for base in disk.segments_from(&dir, Image::Live, self.next) {
            if base >= end {
                break;
            }
            disk.with_live(&segment::path(&dir, base), |bytes| {
                let batches = record::batches(bytes).take_while(|batch| batch.base < end);
                for batch in batches
                    .filter(|batch| batch.end() > self.next)
                    .collect::<Vec<_>>()
                {
                    self.take(partition, &batch, found);
                }
            });
        }
        // What is missing at the end was compacted.
        self.next = self.next.max(end);
    }

    fn take(&mut self, partition: &str, batch: &Batch<'_>, found: &mut Found) {
        let written = batch.bytes.get(12..16).and_then(|bytes| bytes.try_into().ok());
        let written = written.map_or(-1, i32::from_be_bytes);
        if written < self.epoch {
            let message = format!(
                "{partition}: a batch of epoch {written} behind one of {}",
                self.epoch
            );
            found.push(("two-coordinators", message));
        }
        self.epoch = self.epoch.max(written);
        // What is deleted of a batch stays in its file.
        let from = self.next;
        self.next = batch.end();
        let records = batch.records().unwrap_or_default();
        for (_, key, value) in records.into_iter().filter(|(offset, ..)| *offset >= from) {
            self.groups.take(&key, &value, found);
        }
    }
}

/// The logs of all groups, read on while the world runs, and what clients did and heard of commits meanwhile.
#[derive(Debug, Default)]
pub(crate) struct GroupLogs {
    logs: BTreeMap<String, GroupLog>,
    /// So many events of the history are known.
    heard: usize,
    /// Commits that nobody has answered, by their operations.
    asked: BTreeMap<u64, ((String, String), i64)>,
    /// Of each group and partition the highest that anybody asked to commit, and that somebody was told is committed (-1:
    /// nothing). The workload commits forwards only.
    known: BTreeMap<(String, String), (i64, i64)>,
}

impl GroupLogs {
    /// Up to where that partition's log was read.
    pub(crate) fn next(&self, partition: &str) -> i64 {
        self.logs.get(partition).map_or(0, |log| log.next)
    }

    /// Reads on to `end`, up to which it is committed, on the disk of a node that knows that.
    pub(crate) fn follow(&mut self, disk: &SimDisk, partition: &str, end: i64, found: &mut Found) {
        let log = self.logs.entry(partition.to_owned()).or_default();
        log.follow(disk, partition, end, found);
    }

    /// Takes in what is new in a history.
    pub(crate) fn hear(&mut self, history: &History) {
        for event in history.events.get(self.heard..).unwrap_or_default() {
            match &event.what {
                What::Invoke(Op::Commit {
                    group, key, offset, ..
                }) => {
                    let place = (group.clone(), key.clone());
                    let known = self.known.entry(place.clone()).or_insert((-1, -1));
                    known.0 = known.0.max(*offset);
                    self.asked.insert(event.id, (place, *offset));
                }
                What::Complete(outcome) => {
                    let Some((place, offset)) = self.asked.remove(&event.id) else {
                        continue;
                    };
                    let known = self.known.get_mut(&place).filter(|_| *outcome == Outcome::Done);
                    if let Some(known) = known {
                        known.1 = known.1.max(offset);
                    }
                }
                What::Invoke(_) | What::Note(_) => {}
            }
        }
        self.heard = history.events.len();
    }

    /// The logs, which were all read up to where they are committed, say what was acknowledged, and nothing that nobody asked for
    /// (22).
    pub(crate) fn check(&self, found: &mut Found) {
        for (place @ (group, partition), (asked, acknowledged)) in &self.known {
            let mut said = self
                .logs
                .values()
                .filter_map(|log| log.groups.committed.get(place));
            let says = said.next().copied().unwrap_or(-1);
            if says < *acknowledged || says > *asked {
                found.push((
                    "wrong-commit",
                    format!(
                        "the log of {group} says {says} of {partition}: {acknowledged} was acknowledged, and nobody asked for \
                         more than {asked}"
                    ),
                ));
            }
        }
    }
}

/// What a consumer of these topics tells its group when it joins, in the version of KIP-429.
pub(crate) fn subscription(topics: &[&str]) -> Bytes {
    let topics = topics
        .iter()
        .map(|topic| StrBytes::from_string((*topic).to_owned()))
        .collect();
    let mut bytes = BytesMut::new();
    bytes.put_i16(1);
    let message = ConsumerProtocolSubscription::default().with_topics(topics);
    message.encode(&mut bytes, 1).expect("a version that there is");
    bytes.freeze()
}

/// Whether a member that joined with `subscription` reads `topic`; not where its bytes make no sense.
pub(crate) fn subscribes(subscription: &Bytes, topic: &str) -> bool {
    let mut bytes = subscription.clone();
    let read = |bytes: &mut Bytes| {
        let version = bytes.try_get_i16().ok()?;
        ConsumerProtocolSubscription::decode(bytes, version).ok()
    };
    read(&mut bytes).is_some_and(|read| read.topics.iter().any(|name| **name == *topic))
}

/// P8: a generation gives each partition of what its members subscribe to to one of them that does. That it is one alone,
/// `two-owners` says.
fn check_subscriptions(group: &str, value: &GroupMetadataValue, found: &mut Found) {
    let mut missing = BTreeSet::new();
    for (topic, partitions) in READ {
        let mut members = value.members.iter();
        if members.any(|member| subscribes(&member.subscription, topic)) {
            missing.extend((0..partitions).map(|number| format!("{topic}:{number}")));
        }
    }
    for member in &value.members {
        let given = String::from_utf8_lossy(&member.assignment).into_owned();
        for place in given.split_terminator(';') {
            missing.remove(place);
            let topic = place.rsplit_once(':').map_or(place, |(topic, _)| topic);
            if !subscribes(&member.subscription, topic) {
                let message = format!(
                    "generation {} of {group} gives {place} to {}, which does not subscribe to it",
                    value.generation, member.member_id
                );
                found.push(("assigned-not-subscribed", message));
            }
        }
    }
    if let Some(place) = missing.pop_first() {
        let message = format!(
            "generation {} of {group} gives {place} to nobody: {value:?}",
            value.generation
        );
        found.push(("assigned-not-subscribed", message));
    }
}

/// What groups are told of their offsets is what the logs say; -1 for nothing.
pub(crate) fn check_told(said: &Committed, told: &Committed, found: &mut Found) {
    for (place @ (group, partition), offset) in told {
        // A topic that was made again has other keys, and the same name.
        let expected = said.get(place).copied().unwrap_or(-1);
        if expected != *offset {
            found.push((
                "wrong-commit",
                format!("{group} is told {offset} of {partition}, and its log says {expected}"),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use skerry_coordinator::records::OffsetCommitValue;
    use skerry_types::{LeaderEpoch, Offset, TopicPartition, WallMs};

    use super::*;
    use crate::invariants::tests::checks;

    /// What is found where one member's commits were asked for and answered like this, and the log says that.
    fn judged(commits: &[(i64, Option<Outcome>)], log: &[i64]) -> Vec<&'static str> {
        let (mut history, mut logs, mut found) = (History::default(), GroupLogs::default(), Found::new());
        for (offset, outcome) in commits {
            let commit = Op::Commit {
                group: "g".to_owned(),
                generation: 1,
                key: "orders-0".to_owned(),
                offset: *offset,
            };
            let id = history.invoke(1, "a member", commit);
            logs.hear(&history);
            if let Some(outcome) = outcome {
                history.complete(2, "a member", id, outcome.clone());
            }
        }
        let groups = &mut logs
            .logs
            .entry("__consumer_offsets-0".to_owned())
            .or_default()
            .groups;
        let key = RecordKey::encode_offset_commit("g", &TopicPartition::new("orders", 0));
        for offset in log {
            let value = OffsetCommitValue {
                offset: Offset(*offset),
                leader_epoch: LeaderEpoch::UNKNOWN,
                metadata: "".into(),
                commit_timestamp: WallMs(1),
                expire_timestamp: None,
                topic_id: None,
            };
            groups.take(&key, &value.encode(), &mut found);
        }
        logs.hear(&history);
        logs.check(&mut found);
        checks(&found)
    }

    #[test]
    fn the_log_of_a_group_says_what_was_acknowledged() {
        let none: [&str; 0] = [];
        let done = || Some(Outcome::Done);
        let unknown = || {
            Some(Outcome::Failed {
                definite: false,
                why: "no answer".to_owned(),
            })
        };
        assert_eq!(judged(&[(3, done()), (5, done())], &[3, 5]), none);
        // Nobody has heard what became of the last one.
        for outcome in [None, unknown()] {
            assert_eq!(judged(&[(3, done()), (5, outcome.clone())], &[3]), none);
            assert_eq!(judged(&[(3, done()), (5, outcome)], &[3, 5]), none);
        }
        // An acknowledged one is not there, or was undone; one is there that nobody has asked for.
        assert_eq!(judged(&[(3, done())], &[]), ["wrong-commit"]);
        assert_eq!(judged(&[(3, done()), (5, done())], &[3]), ["wrong-commit"]);
        assert_eq!(judged(&[(3, unknown()), (5, done())], &[5, 3]), ["wrong-commit"]);
        assert_eq!(judged(&[(3, done())], &[3, 4]), ["wrong-commit"]);
    }
}
