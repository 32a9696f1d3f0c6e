//! Logs, producers, indexes, groups, snapshots and usage, each with a state that breaks what must be true of it.

use std::io::IoSlice;
use std::path::Path;

use skerry_coordinator::records::{GroupMetadataValue, MemberMetadata, OffsetCommitValue, RecordKey};
use skerry_env::Rng;
use skerry_env::disk::OpenMode;
use skerry_log::RememberedBatch;
use skerry_types::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, TopicPartition, WallMs,
};

use super::offsets::{Committed, GroupLogs, Groups, check_told};
use super::usage::{Acts, Usage, check_reserve};
use super::{Found, walk};
use crate::disk::{DiskConfig, SimDisk};
use crate::record::{self, Identity};
use crate::trace::Trace;
use skerry_checker::history::Value;

const NAME: &str = "orders-0";

fn checks(found: &Found) -> Vec<&'static str> {
    let mut checks: Vec<_> = found.iter().map(|(check, _)| *check).collect();
    checks.dedup();
    checks
}

/// A batch of a producer: where it begins, who wrote it, its first sequence, how many records it has.
type Written = (i64, (i64, i16), i32, u32);

/// A disk with a log of one segment.
fn disk(batches: &[Written], indexes: &[(&str, Vec<u8>)]) -> SimDisk {
    let disk = SimDisk::new("n1", DiskConfig::default(), Rng::seeded(1), Trace::silent());
    let attached = disk.attach();
    let dir = Path::new("/data/log").join(NAME);
    attached.create_dir_all(&dir).unwrap();
    let mut log = Vec::new();
    for (base, (id, epoch), sequence, count) in batches {
        let values: Vec<_> = (0..*count).map(|serial| Value { producer: 1, serial }).collect();
        let identity = Identity {
            id: *id,
            epoch: *epoch,
            sequence: *sequence,
        };
        let mut bytes = record::encode(&values, identity, 77, 10).to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        log.extend(bytes);
    }
    let files = [("log", log)].into_iter().chain(indexes.iter().cloned());
    for (suffix, bytes) in files {
        let path = dir.join(format!("00000000000000000000.{suffix}"));
        let file = attached.open(&path, OpenMode::Create).unwrap();
        file.write_at(&[IoSlice::new(&bytes)], 0).unwrap();
    }
    disk
}

fn offsets_found(batches: &[Written], extent: (i64, i64)) -> Vec<&'static str> {
    let walked = walk::batches(&disk(batches, &[]), NAME, extent);
    let mut found = Found::new();
    walk::check_offsets("a log", &walked, extent, &mut found);
    checks(&found)
}

#[test]
fn each_offset_of_a_log_is_there_once() {
    let batch = |base, count| (base, (-1, -1), -1, count);
    let none: [&str; 0] = [];
    assert_eq!(offsets_found(&[batch(0, 2), batch(2, 3)], (0, 5)), none);
    // The start may lie within a batch.
    assert_eq!(offsets_found(&[batch(0, 2), batch(2, 3)], (1, 5)), none);
    assert_eq!(offsets_found(&[], (4, 4)), none);
    for (batches, extent) in [
        (vec![batch(0, 2), batch(3, 2)], (0, 5)),
        (vec![batch(0, 2), batch(1, 2)], (0, 3)),
        (vec![batch(0, 2)], (0, 3)),
        (vec![batch(1, 2)], (0, 3)),
        (vec![], (0, 3)),
    ] {
        assert_eq!(offsets_found(&batches, extent), ["offsets-not-contiguous"]);
    }
}

fn remembered(id: i64, epoch: i16, batches: &[(i32, i32, i64)]) -> (ProducerIdentity, Vec<RememberedBatch>) {
    let identity = ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(epoch),
    };
    let batches = batches.iter().map(|(first, last, offset)| RememberedBatch {
        first_sequence: Sequence(*first),
        last_sequence: Sequence(*last),
        last_offset: Offset(*offset),
    });
    (identity, batches.collect())
}

fn producers_found(
    batches: &[Written],
    remembered: &[(ProducerIdentity, Vec<RememberedBatch>)],
    start: i64,
) -> Vec<&'static str> {
    let walked = walk::batches(&disk(batches, &[]), NAME, (start, i64::MAX));
    let mut found = Found::new();
    walk::check_producers("a log", &walked, remembered, start, &mut found);
    checks(&found)
}

#[test]
fn a_log_remembers_of_its_producers_what_they_wrote() {
    let log = [(0, (7, 0), 0, 2), (2, (8, 3), 0, 1), (3, (7, 0), 2, 1)];
    let all = [
        remembered(7, 0, &[(0, 1, 1), (2, 2, 3)]),
        remembered(8, 3, &[(0, 0, 2)]),
    ];
    let found = |remembered: &[_], start| producers_found(&log, remembered, start);
    let none: [&str; 0] = [];
    assert_eq!(found(&all, 0), none);
    // What was deleted is remembered, or not any more.
    assert_eq!(found(&all, 2), none);
    assert_eq!(found(&[remembered(7, 0, &[(2, 2, 3)]), all[1].clone()], 2), none);
    // One batch too few, one that nobody wrote, another epoch; a producer that is not known at all.
    for wrong in [
        remembered(7, 0, &[(2, 2, 3)]),
        remembered(7, 0, &[(0, 1, 1), (2, 2, 3), (3, 3, 4)]),
    ] {
        assert_eq!(found(&[wrong, all[1].clone()], 0), ["wrong-producer-state"]);
    }
    assert_eq!(found(&all[..1], 0), ["wrong-producer-state"]);
}

#[test]
fn a_compacted_log_keeps_the_last_batch_of_each_producer() {
    // Others of theirs are gone.
    let log = [(0, (8, 3), 0, 1), (5, (7, 0), 9, 3)];
    let walked = walk::batches(&disk(&log, &[]), NAME, (0, i64::MAX));
    let found = |remembered: &[_]| {
        let mut found = Found::new();
        walk::check_last_batches("a log", &walked, remembered, &mut found);
        checks(&found)
    };
    let other = remembered(8, 3, &[(0, 0, 0)]);
    let none: [&str; 0] = [];
    assert_eq!(
        found(&[remembered(7, 0, &[(7, 8, 3), (9, 11, 7)]), other.clone()]),
        none
    );
    assert_eq!(found(&[remembered(7, 0, &[(9, 11, 7)]), other.clone()]), none);
    // The last one is gone; another instance; one that is not remembered, and one of which nothing is left.
    for wrong in [
        remembered(7, 0, &[(9, 11, 7), (12, 12, 8)]),
        remembered(7, 1, &[(9, 11, 7)]),
        remembered(9, 0, &[(0, 0, 1)]),
    ] {
        assert!(found(&[wrong, other.clone()]).contains(&"wrong-producer-state"));
    }
    assert_eq!(found(&[other]), ["wrong-producer-state"]);
}

#[test]
fn sequences_follow_each_other() {
    let none: [&str; 0] = [];
    let found = |log: &[Written]| {
        let mut found = producers_found(log, &[], 0);
        found.retain(|check| *check != "wrong-producer-state");
        found
    };
    // The first one may have any: what came before was deleted. A new instance begins at 0.
    assert_eq!(
        found(&[(0, (7, 0), 5, 2), (2, (7, 0), 7, 1), (3, (7, 1), 0, 1)]),
        none
    );
    for wrong in [
        (2, (7, 1), 8, 1),
        (2, (7, 1), 5, 2),
        (2, (7, 0), 7, 1),
        (2, (7, 2), 7, 1),
    ] {
        assert_eq!(
            found(&[(0, (7, 1), 5, 2), wrong]),
            ["sequences-not-contiguous"],
            "{wrong:?}"
        );
    }
}

#[test]
fn index_entries_lead_to_their_batches() {
    let log = [(0, (-1, -1), -1, 2), (2, (-1, -1), -1, 1)];
    let position = u32::try_from(
        record::encode(
            &[
                Value {
                    producer: 1,
                    serial: 0,
                },
                Value {
                    producer: 1,
                    serial: 1,
                },
            ],
            Identity::NONE,
            77,
            10,
        )
        .len(),
    )
    .unwrap();
    let offsets = |relative: u32, position: u32| [relative.to_be_bytes(), position.to_be_bytes()].concat();
    let times =
        |timestamp: i64, relative: u32| [&timestamp.to_be_bytes()[..], &relative.to_be_bytes()].concat();
    let found = |suffix, entry| {
        let mut found = Found::new();
        walk::check_indexes(&disk(&log, &[(suffix, entry)]), NAME, "a log", &mut found);
        checks(&found)
    };
    let none: [&str; 0] = [];
    assert_eq!(
        found("index", [offsets(1, 0), offsets(2, position)].concat()),
        none
    );
    assert_eq!(found("index", offsets(1, position)), ["index-differs"]);
    assert_eq!(found("index", offsets(0, 0)), ["index-differs"]);
    assert_eq!(found("timeindex", times(77, 1)), none);
    assert_eq!(found("timeindex", times(78, 1)), ["index-differs"]);
}

fn generation(generation: i32, members: &[(&str, &str)]) -> Vec<u8> {
    let all = members.iter().map(|(member, assignment)| MemberMetadata {
        member_id: (*member).into(),
        group_instance_id: None,
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: 1,
        session_timeout_ms: 1,
        subscription: bytes::Bytes::new(),
        assignment: bytes::Bytes::copy_from_slice(assignment.as_bytes()),
    });
    let value = GroupMetadataValue {
        protocol_type: "consumer".into(),
        generation,
        protocol: Some("range".into()),
        leader: members.first().map(|(member, _)| (*member).into()),
        current_state_timestamp: WallMs(1),
        members: all.collect(),
    };
    value.encode().to_vec()
}

#[test]
fn the_log_of_a_group_gives_a_partition_to_one_member() {
    let key = RecordKey::encode_group_metadata("g");
    let found = |records: &[Vec<u8>]| {
        let (mut groups, mut found) = (Groups::default(), Found::new());
        for value in records {
            groups.take(&key, value, &mut found);
        }
        // Not all partitions are in these.
        found.retain(|(check, _)| *check != "assigned-not-subscribed");
        checks(&found)
    };
    let none: [&str; 0] = [];
    let first = || generation(1, &[("a", "orders:0;"), ("b", "orders:1;")]);
    assert_eq!(
        found(&[first(), first(), generation(2, &[("b", "orders:0;orders:1;")])]),
        none
    );
    // A group that was removed begins anew.
    assert_eq!(found(&[generation(3, &[]), Vec::new(), first()]), none);
    assert_eq!(
        found(&[generation(1, &[("a", "orders:0;"), ("b", "orders:0;")])]),
        ["two-owners"]
    );
    assert_eq!(
        found(&[first(), generation(1, &[("b", "orders:0;")])]),
        ["two-owners"]
    );
    assert_eq!(found(&[generation(3, &[]), first()]), ["generation-went-back"]);
}

#[test]
fn a_generation_gives_away_what_its_members_subscribe_to() {
    let found = |members: &[(&[&str], &str)]| {
        let mut found = Found::new();
        let mut value = GroupMetadataValue::decode(&generation(1, &[])).unwrap();
        for (number, (topics, assignment)) in members.iter().enumerate() {
            let mut one = GroupMetadataValue::decode(&generation(1, &[("a", *assignment)])).unwrap();
            let mut member = one.members.remove(0);
            member.member_id = format!("m{number}").into();
            member.subscription = super::offsets::subscription(topics);
            value.members.push(member);
        }
        let key = RecordKey::encode_group_metadata("g");
        Groups::default().take(&key, &value.encode(), &mut found);
        checks(&found)
    };
    let none: [&str; 0] = [];
    let (orders, both) = (&["orders"][..], &["orders", "events"][..]);
    assert_eq!(found(&[]), none);
    assert_eq!(found(&[(orders, "orders:0;orders:1;orders:2;")]), none);
    assert_eq!(
        found(&[
            (orders, "orders:0;orders:2;"),
            (both, "orders:1;events:0;events:1;")
        ]),
        none
    );
    // To nobody, and to one that does not read it.
    assert_eq!(
        found(&[(orders, "orders:0;orders:2;"), (orders, "")]),
        ["assigned-not-subscribed"]
    );
    assert_eq!(
        found(&[
            (both, "orders:0;orders:1;orders:2;events:1;"),
            (orders, "events:0;")
        ]),
        ["assigned-not-subscribed"]
    );
}

#[test]
fn a_generation_that_cannot_be_read_is_noticed() {
    let (mut groups, mut found) = (Groups::default(), Found::new());
    let whole = generation(1, &[("a", "orders:0;")]);
    groups.take(&RecordKey::encode_group_metadata("g"), &whole[..9], &mut found);
    assert_eq!(checks(&found), ["broken-group-record"]);
}

#[test]
fn the_log_of_groups_has_one_coordinator_after_the_other() {
    let found = |epochs: [i32; 3]| {
        let disk = SimDisk::new("n1", DiskConfig::default(), Rng::seeded(1), Trace::silent());
        let attached = disk.attach();
        let dir = Path::new("/data/log").join("__consumer_offsets-0");
        attached.create_dir_all(&dir).unwrap();
        let mut log = Vec::new();
        for (base, epoch) in (0_i64..).zip(epochs) {
            let value = Value {
                producer: 1,
                serial: 0,
            };
            let mut bytes = record::encode(&[value], Identity::NONE, 77, 10).to_vec();
            bytes[..8].copy_from_slice(&base.to_be_bytes());
            bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
            log.extend(bytes);
        }
        let path = dir.join("00000000000000000000.log");
        let file = attached.open(&path, OpenMode::Create).unwrap();
        file.write_at(&[IoSlice::new(&log)], 0).unwrap();
        let mut found = Found::new();
        Groups::read(&disk, "__consumer_offsets-0", (0, 3), &mut found);
        // Batch after batch, each of them once.
        let (mut logs, mut one_by_one) = (GroupLogs::default(), Found::new());
        for end in [0, 1, 2, 2, 3, 3] {
            logs.follow(&disk, "__consumer_offsets-0", end, &mut one_by_one);
            assert_eq!(logs.next("__consumer_offsets-0"), end);
        }
        assert_eq!(found, one_by_one);
        checks(&found)
    };
    let none: [&str; 0] = [];
    assert_eq!(found([0, 1, 1]), none);
    assert_eq!(found([0, 2, 1]), ["two-coordinators"]);
}

#[test]
fn groups_are_told_what_their_logs_say() {
    let place = |group: &str| (group.to_owned(), "orders-0".to_owned());
    let said = Committed::from([(place("g"), 5)]);
    let found = |group, offset| {
        let mut found = Found::new();
        check_told(&said, &Committed::from([(place(group), offset)]), &mut found);
        checks(&found)
    };
    let none: [&str; 0] = [];
    assert_eq!(found("g", 5), none);
    assert_eq!(found("unknown", -1), none);
    for (group, offset) in [("g", 4), ("g", -1), ("unknown", 0)] {
        assert_eq!(found(group, offset), ["wrong-commit"]);
    }
}

#[test]
fn what_a_group_has_committed_is_the_last_that_its_log_says() {
    let key = RecordKey::encode_offset_commit("g", &TopicPartition::new("orders", 0));
    let commit = |offset| OffsetCommitValue {
        offset: Offset(offset),
        leader_epoch: LeaderEpoch::UNKNOWN,
        metadata: "".into(),
        commit_timestamp: WallMs(1),
        expire_timestamp: None,
        topic_id: None,
    };
    let (mut groups, mut found) = (Groups::default(), Found::new());
    for offset in [3, 5] {
        groups.take(&key, &commit(offset).encode(), &mut found);
    }
    let place = ("g".to_owned(), "orders-0".to_owned());
    assert_eq!(groups.committed.get(&place), Some(&5));
    groups.take(&key, &[], &mut found);
    assert!(groups.committed.is_empty() && found.is_empty());
}

#[test]
fn a_leak_is_more_than_new_processes_hold() {
    let fresh = Usage {
        tasks: 90,
        deserted: 0,
        files: 60,
        memory_kib: 4,
        waiting: 6,
    };
    let a_little_more = Usage {
        tasks: 100,
        deserted: 0,
        files: 70,
        memory_kib: 20,
        waiting: 8,
    };
    assert!(a_little_more.judge(&fresh, 3).is_empty());
    for lived in [
        Usage { tasks: 400, ..fresh },
        Usage { files: 300, ..fresh },
        Usage {
            memory_kib: 200,
            ..fresh
        },
        Usage { waiting: 70, ..fresh },
    ] {
        assert_eq!(checks(&lived.judge(&fresh, 3)), ["leak"]);
    }
    // A client that went without a word, and did not take its answer.
    let wedged = Usage {
        memory_kib: 200,
        deserted: 1,
        ..fresh
    };
    assert!(wedged.judge(&fresh, 3).is_empty());
}

#[test]
fn a_process_that_stands_still_does_nothing() {
    let before = Acts {
        dials: 3,
        writes: 40,
        ends: 1,
        disk: 200,
        promised: (2, 17),
    };
    assert!(before.judge(&before, "n1").is_empty());
    for acts in [
        Acts { dials: 4, ..before },
        Acts { writes: 41, ..before },
        Acts { ends: 2, ..before },
        Acts { disk: 201, ..before },
        Acts {
            promised: (3, 17),
            ..before
        },
    ] {
        assert_eq!(checks(&acts.judge(&before, "n1")), ["acts-while-still"]);
    }
}

#[test]
fn a_storm_is_more_than_pauses_allow() {
    assert!(Usage::judge_traffic("n1", (30, 4_000)).is_empty());
    assert_eq!(
        checks(&Usage::judge_traffic("n1", (30_000, 4_000))),
        ["retry-storm"]
    );
    assert_eq!(checks(&Usage::judge_traffic("n1", (3, 400_000))), ["retry-storm"]);
}

#[test]
fn the_reserve_is_for_the_metadata() {
    let (left, reserve) = (5 << 20, 4 << 20);
    assert!(check_reserve(left, reserve, 1 << 20, "n1").is_empty());
    assert_eq!(
        checks(&check_reserve(left, reserve, (1 << 20) - 1, "n1")),
        ["reserve-written"]
    );
    assert!(
        check_reserve(3 << 20, reserve, 0, "n1").is_empty(),
        "others have left less than that"
    );
}
