//! Groups (21, 22), as the logs of `__consumer_offsets` have them: when all is quiet, what a group is told of its offsets is
//! what its log says, generations grow, and each gives a partition to one member.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ConsumerProtocolSubscription;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use skerry_coordinator::records::{GroupMetadataValue, RecordKey};

use super::Found;
use crate::disk::SimDisk;
use crate::process::DATA_DIR;
use crate::record;
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
    /// Reads the log up to `end`, record for record, with the leader epochs that may only grow.
    pub(crate) fn read(disk: &SimDisk, partition: &str, end: i64, found: &mut Found) -> Self {
        let mut groups = Self::default();
        let dir = Path::new(DATA_DIR).join("log").join(partition);
        let mut epoch = -1;
        for name in disk.live_names(&dir, |name| name.ends_with(".log").then(|| name.to_owned())) {
            disk.with_live(&dir.join(name), |bytes| {
                for batch in record::batches(bytes).take_while(|batch| batch.base < end) {
                    let written = batch.bytes.get(12..16).and_then(|bytes| bytes.try_into().ok());
                    let written = written.map_or(-1, i32::from_be_bytes);
                    if written < epoch {
                        let message =
                            format!("{partition}: a batch of epoch {written} behind one of {epoch}");
                        found.push(("two-coordinators", message));
                    }
                    epoch = epoch.max(written);
                    for (_, key, value) in batch.records().unwrap_or_default() {
                        groups.take(&key, &value, found);
                    }
                }
            });
        }
        groups
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
