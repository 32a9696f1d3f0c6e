//! The range assignor, and the bytes that members of a consumer group exchange through the coordinator.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Partitions by topic.
pub type Assignment = BTreeMap<Arc<str>, Vec<i32>>;

/// Each topic's partitions in ranges, one for each member that reads the topic, in the order of member ids; the first
/// ones get one more where it does not come out even. As Kafka's RangeAssignor without racks.
#[must_use]
pub fn range(
    members: &BTreeMap<String, Vec<Arc<str>>>,
    partitions: &BTreeMap<Arc<str>, i32>,
) -> BTreeMap<String, Assignment> {
    let mut assignments: BTreeMap<String, Assignment> = members
        .keys()
        .map(|member| (member.clone(), Assignment::new()))
        .collect();
    for (topic, count) in partitions {
        let readers: Vec<&String> = members
            .iter()
            .filter(|(_, topics)| topics.contains(topic))
            .map(|(member, _)| member)
            .collect();
        let Ok(n) = i32::try_from(readers.len()) else {
            continue;
        };
        if n == 0 {
            continue;
        }
        let (each, more) = (count / n, count % n);
        for (i, member) in (0..n).zip(readers) {
            let first = i * each + i.min(more);
            let len = each + i32::from(i < more);
            if len > 0
                && let Some(assignment) = assignments.get_mut(member)
            {
                assignment.insert(topic.clone(), (first..first + len).collect());
            }
        }
    }
    assignments
}

/// ConsumerProtocolSubscription, version 0.
pub(super) fn encode_subscription(topics: &[Arc<str>]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    put_len(&mut out, topics.len());
    for topic in topics {
        put_string(&mut out, topic);
    }
    out.put_i32(-1);
    out.freeze()
}

/// ConsumerProtocolAssignment, version 0.
pub(super) fn encode_assignment(assignment: &Assignment) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(0);
    put_len(&mut out, assignment.len());
    for (topic, partitions) in assignment {
        put_string(&mut out, topic);
        put_len(&mut out, partitions.len());
        for partition in partitions {
            out.put_i32(*partition);
        }
    }
    out.put_i32(-1);
    out.freeze()
}

fn put_len(out: &mut BytesMut, len: usize) {
    out.put_i32(i32::try_from(len).unwrap_or(i32::MAX));
}

fn put_string(out: &mut BytesMut, text: &str) {
    out.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    out.put_slice(text.as_bytes());
}

/// The topics of a subscription of any version: later ones only add fields behind.
#[must_use]
pub fn decode_subscription(mut bytes: Bytes) -> Option<Vec<Arc<str>>> {
    bytes.try_get_i16().ok()?;
    let count = bytes.try_get_i32().ok()?;
    (0..count).map(|_| take_string(&mut bytes)).collect()
}

/// The partitions of an assignment of any version. An empty one is no bytes at all.
#[must_use]
pub fn decode_assignment(mut bytes: Bytes) -> Option<Assignment> {
    if bytes.is_empty() {
        return Some(Assignment::new());
    }
    bytes.try_get_i16().ok()?;
    let count = bytes.try_get_i32().ok()?;
    let mut assignment = Assignment::new();
    for _ in 0..count {
        let topic = take_string(&mut bytes)?;
        let partitions = bytes.try_get_i32().ok()?;
        let partitions: Option<Vec<i32>> = (0..partitions).map(|_| bytes.try_get_i32().ok()).collect();
        assignment.insert(topic, partitions?);
    }
    Some(assignment)
}

fn take_string(bytes: &mut Bytes) -> Option<Arc<str>> {
    let len = usize::try_from(bytes.try_get_i16().ok()?)
        .ok()
        .filter(|len| *len <= bytes.len())?;
    std::str::from_utf8(&bytes.split_to(len)).ok().map(Arc::from)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges() {
        let topics =
            |names: &[&str]| -> Vec<Arc<str>> { names.iter().map(|name| Arc::from(*name)).collect() };
        let members = BTreeMap::from([
            ("a".to_owned(), topics(&["x", "y"])),
            ("b".to_owned(), topics(&["x"])),
            ("c".to_owned(), topics(&["x", "y", "gone"])),
        ]);
        let partitions = BTreeMap::from([("x".into(), 5), ("y".into(), 1), ("gone".into(), 0)]);
        let mut shown = String::new();
        for (member, assignment) in range(&members, &partitions) {
            shown.push_str(&format!("{member}: {assignment:?}\n"));
        }
        expect![[r#"
            a: {"x": [0, 1], "y": [0]}
            b: {"x": [2, 3]}
            c: {"x": [4]}
        "#]]
        .assert_eq(&shown);
    }

    proptest! {
        #[test]
        fn every_partition_has_one_reader(members in 1..7_usize, partitions in 0..40_i32) {
            let topic: Arc<str> = "t".into();
            let members: BTreeMap<String, Vec<Arc<str>>> = (0..members).map(|i| (format!("m{i}"), vec![topic.clone()])).collect();
            let mut given: Vec<i32> = range(&members, &BTreeMap::from([(topic.clone(), partitions)]))
                .into_values().flat_map(|mut assignment| assignment.remove(&topic).unwrap_or_default()).collect();
            given.sort_unstable();
            prop_assert_eq!(given, (0..partitions).collect::<Vec<_>>());
        }

        #[test]
        fn what_is_encoded_is_decoded(assignment in proptest::collection::btree_map("[a-z]{1,9}", proptest::collection::vec(any::<i32>(), 0..9), 0..5)) {
            let assignment: Assignment = assignment.into_iter().map(|(topic, partitions)| (topic.into(), partitions)).collect();
            prop_assert_eq!(decode_assignment(encode_assignment(&assignment)), Some(assignment.clone()));
            let topics: Vec<Arc<str>> = assignment.into_keys().collect();
            prop_assert_eq!(decode_subscription(encode_subscription(&topics)), Some(topics));
        }

        #[test]
        fn junk_panics_nowhere(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = decode_assignment(bytes.clone().into());
            let _ = decode_subscription(bytes.into());
        }
    }
}
