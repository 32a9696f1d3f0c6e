//! What the log may hold beside our own records, and the limits that no transcript can show.

use std::sync::Arc;

use bytes::Bytes;
use expect_test::expect;
use skerry_coordinator::records::{GroupMetadataValue, MemberMetadata, OffsetCommitValue, RecordKey};
use skerry_coordinator::*;
use skerry_types::{Instant, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicPartition, Uuid, WallMs};

const NOW: Now = Now {
    instant: Instant::from_millis(1_000),
    wall: WallMs(1_000_000),
};

fn loading() -> GroupShard {
    let mut shard = GroupShard::new(GroupSettings::default());
    shard.start_loading();
    shard
}

fn offset_record(group: &str, partition: i32, offset: i64) -> (Bytes, Bytes) {
    let value = OffsetCommitValue {
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(2),
        metadata: Arc::default(),
        commit_timestamp: NOW.wall,
        expire_timestamp: None,
        topic_id: None,
    };
    (
        RecordKey::encode_offset_commit(group, &TopicPartition::new("t", partition)),
        value.encode(),
    )
}

fn replay_offset(shard: &mut GroupShard, at: i64, producer: Option<i64>, partition: i32, offset: i64) {
    let (key, value) = offset_record("g", partition, offset);
    let origin = RecordOrigin {
        offset: Offset(at),
        transaction: producer.map(ProducerId),
    };
    shard.replay(origin, &key, Some(&value)).unwrap();
}

fn fetch(shard: &mut GroupShard, token: u64, require_stable: bool) -> String {
    let request = FetchRequest {
        group_id: Arc::from("g"),
        require_stable,
        topics: None,
    };
    let effects = shard.handle(ReplyToken(token), Request::Fetch(request), NOW);
    let [Effect::Reply(_, Response::Fetch(fetch))] = &effects[..] else {
        panic!("{effects:?}")
    };
    let partitions = fetch.topics.iter().flat_map(|topic| &topic.partitions);
    let text = partitions.map(|found| match found.error {
        None => format!("{}={}", found.partition, found.offset),
        Some(error) => format!("{}={error:?}", found.partition),
    });
    text.collect::<Vec<_>>().join(" ")
}

#[test]
fn offsets_of_transactions_wait_for_their_end() {
    let mut shard = loading();
    replay_offset(&mut shard, 0, None, 0, 10);
    replay_offset(&mut shard, 1, Some(7), 0, 20);
    replay_offset(&mut shard, 2, Some(7), 1, 21);
    replay_offset(&mut shard, 3, Some(8), 2, 30);
    replay_offset(&mut shard, 4, Some(9), 3, 40);
    replay_offset(&mut shard, 5, None, 3, 41);
    shard.replay_marker(ProducerId(8), TransactionEnd::Abort);
    // The plain commit stands after the transaction's in the log: the marker does not undo it.
    shard.replay_marker(ProducerId(9), TransactionEnd::Commit);
    shard.replay_marker(ProducerId(99), TransactionEnd::Commit);
    shard.finish_loading(NOW);
    shard.check();
    assert_eq!(fetch(&mut shard, 1, false), "0=10 3=41");
    assert_eq!(fetch(&mut shard, 2, true), "0=UnstableOffsetCommit 3=41");

    let mut shard = loading();
    replay_offset(&mut shard, 0, None, 0, 10);
    replay_offset(&mut shard, 1, Some(7), 0, 20);
    shard.replay_marker(ProducerId(7), TransactionEnd::Commit);
    shard.finish_loading(NOW);
    assert_eq!(fetch(&mut shard, 1, true), "0=20");
}

#[test]
fn topics_deleted_while_nobody_served_are_found_after_loading() {
    let mut shard = loading();
    replay_offset(&mut shard, 0, None, 0, 10);
    replay_offset(&mut shard, 1, Some(7), 1, 20);
    let (key, value) = offset_record("h", 0, 1);
    shard
        .replay(
            RecordOrigin {
                offset: Offset(2),
                transaction: None,
            },
            &key,
            Some(&value),
        )
        .unwrap();
    shard.finish_loading(NOW);
    let topics = shard.topics_with_offsets();
    assert_eq!(topics.iter().map(|topic| &**topic).collect::<Vec<_>>(), ["t"]);
    let effects = shard.on_topics_deleted(&topics, NOW);
    let Some(Effect::Append { records, then }) = effects.last() else {
        panic!("{effects:?}")
    };
    assert_eq!(records.len(), 3);
    shard.on_appended(*then, Ok(Offset(3)), NOW);
    assert!(shard.topics_with_offsets().is_empty());
    shard.check();
}

#[test]
fn what_cannot_be_read_names_the_group_and_why() {
    let mut shard = loading();
    let mut replay = |at: i64, key: &[u8], value: Option<&[u8]>| {
        let origin = RecordOrigin {
            offset: Offset(at),
            transaction: None,
        };
        shard
            .replay(origin, key, value)
            .map_err(|error| error.to_string())
    };
    // KIP-848's records and those of the future are somebody else's.
    for kind in [3_i16, 4, 5, 8, 14, 16, 22, 1_000, -1] {
        assert_eq!(replay(0, &kind.to_be_bytes(), Some(b"anything")), Ok(()));
    }
    let key = RecordKey::encode_group_metadata("billing");
    expect![[r#"record at offset 5 of group Some("billing"): unknown version 9"#]]
        .assert_eq(&replay(5, &key, Some(&[0, 9])).unwrap_err());
    expect![[
        r#"record at offset 6 of group Some("billing"): cut short in protocol type: 2 bytes wanted, 0 left"#
    ]]
    .assert_eq(&replay(6, &key, Some(&[0, 3])).unwrap_err());
    expect![[r#"record at offset 7 of group Some("billing"): cut short in version: 2 bytes wanted, 0 left"#]]
        .assert_eq(&replay(7, &key, Some(&[])).unwrap_err());
    expect!["record at offset 8 of group None: cut short in group: 9 bytes wanted, 0 left"]
        .assert_eq(&replay(8, &[0, 2, 0, 9], None).unwrap_err());
    expect!["record at offset 9 of group None: cut short in record type: 2 bytes wanted, 0 left"]
        .assert_eq(&replay(9, &[], None).unwrap_err());
    let key = RecordKey::encode_offset_commit("billing", &TopicPartition::new("t", 0));
    expect![[r#"record at offset 10 of group Some("billing"): cut short in offset: 8 bytes wanted, 1 left"#]]
        .assert_eq(&replay(10, &key, Some(&[0, 3, 0])).unwrap_err());
    shard.finish_loading(NOW);
    shard.check();
}

#[test]
fn a_group_whose_leader_is_no_member_gets_another() {
    let member = MemberMetadata {
        member_id: Arc::from("m"),
        group_instance_id: None,
        client_id: Arc::from("c"),
        client_host: Arc::from("/::1"),
        rebalance_timeout_ms: -1,
        session_timeout_ms: 10_000,
        subscription: Bytes::new(),
        assignment: Bytes::new(),
    };
    let value = GroupMetadataValue {
        protocol_type: Arc::from("consumer"),
        generation: i32::MAX,
        protocol: Some(Arc::from("range")),
        leader: Some(Arc::from("somebody else")),
        current_state_timestamp: WallMs::NONE,
        members: vec![member],
    };
    let mut shard = loading();
    let origin = RecordOrigin {
        offset: Offset(0),
        transaction: None,
    };
    shard
        .replay(
            origin,
            &RecordKey::encode_group_metadata("g"),
            Some(&value.encode()),
        )
        .unwrap();
    shard.finish_loading(NOW);
    shard.check();
    // The generation wraps instead of stopping the process.
    let request = JoinRequest {
        member_id: Arc::from("m"),
        ..join(0)
    };
    let effects = shard.handle(ReplyToken(1), Request::Join(request), NOW);
    let Some(Effect::Reply(_, Response::Join(join))) = effects.last() else {
        panic!("{effects:?}")
    };
    assert_eq!((join.error, join.generation_id, &*join.leader), (None, 0, "m"));
    shard.check();
}

fn join(number: u64) -> JoinRequest {
    let mut random = [0; 16];
    random[..8].copy_from_slice(&number.to_be_bytes());
    JoinRequest {
        version: 9,
        client_id: Arc::from("c"),
        client_host: Arc::from("/::1"),
        new_member_id: Uuid(random),
        group_id: Arc::from("g"),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: Arc::default(),
        group_instance_id: None,
        protocol_type: Arc::from("consumer"),
        protocols: vec![Protocol {
            name: Arc::from("range"),
            metadata: Bytes::new(),
        }],
        reason: None,
    }
}

fn join_error(effects: &[Effect]) -> Option<GroupError> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply(_, Response::Join(join)) => join.error,
        _ => None,
    })
}

fn serving() -> GroupShard {
    let mut shard = loading();
    shard.finish_loading(NOW);
    shard
}

#[test]
fn who_only_asks_for_ids_cannot_fill_the_memory() {
    let mut shard = serving();
    for number in 1..=10_000 {
        let effects = shard.handle(ReplyToken(number), Request::Join(join(number)), NOW);
        assert_eq!(
            join_error(&effects),
            Some(GroupError::MemberIdRequired),
            "{number}"
        );
    }
    let effects = shard.handle(ReplyToken(10_001), Request::Join(join(10_001)), NOW);
    assert_eq!(join_error(&effects), Some(GroupError::GroupMaxSizeReached));
    // A session later there is room again.
    let later = Now {
        instant: Instant::from_millis(11_000),
        wall: NOW.wall,
    };
    shard.on_tick(later);
    let effects = shard.handle(ReplyToken(10_002), Request::Join(join(10_002)), later);
    assert_eq!(join_error(&effects), Some(GroupError::MemberIdRequired));
}

#[test]
fn what_members_say_is_bounded() {
    let mut shard = serving();
    let metadata = Bytes::from(vec![0; 7 * 1024 * 1024]);
    let request = |number| {
        let protocols = vec![Protocol {
            name: Arc::from("range"),
            metadata: metadata.clone(),
        }];
        Request::Join(JoinRequest {
            version: 3,
            protocols,
            ..join(number)
        })
    };
    for number in 1..=2 {
        assert_eq!(
            join_error(&shard.handle(ReplyToken(number), request(number), NOW)),
            None
        );
    }
    let effects = shard.handle(ReplyToken(3), request(3), NOW);
    assert_eq!(join_error(&effects), Some(GroupError::GroupMaxSizeReached));
    shard.check();
}

#[test]
fn names_that_no_record_can_carry_are_refused() {
    let mut shard = serving();
    let long: Arc<str> = Arc::from("x".repeat(32_768));
    let mut token = 0;
    let mut error = |request: JoinRequest| {
        token += 1;
        let effects = shard.handle(ReplyToken(token), Request::Join(request), NOW);
        effects.iter().find_map(|effect| match effect {
            Effect::Reply(_, Response::Join(join)) => Some((join.error, join.member_id.len())),
            _ => None,
        })
    };
    let (group_id, protocol_type) = (long.clone(), long.clone());
    assert_eq!(
        error(JoinRequest { group_id, ..join(1) }),
        Some((Some(GroupError::InvalidGroupId), 0))
    );
    let inconsistent = Some((Some(GroupError::InconsistentGroupProtocol), 0));
    assert_eq!(
        error(JoinRequest {
            protocol_type,
            ..join(2)
        }),
        inconsistent
    );
    let protocols = vec![Protocol {
        name: long.clone(),
        metadata: Bytes::new(),
    }];
    assert_eq!(error(JoinRequest { protocols, ..join(3) }), inconsistent);
    let group_instance_id = Some(long.clone());
    assert_eq!(
        error(JoinRequest {
            group_instance_id,
            ..join(4)
        }),
        Some((Some(GroupError::UnknownMemberId), 0))
    );
    // A long client id is only shortened in the member id.
    assert_eq!(
        error(JoinRequest {
            client_id: long.clone(),
            ..join(5)
        }),
        Some((Some(GroupError::MemberIdRequired), 32_767))
    );
}

fn commit_many(shard: &mut GroupShard, token: u64, partitions: i32) -> AppendId {
    let partition = |partition| CommitPartition {
        partition: PartitionIndex(partition),
        offset: Offset(1),
        leader_epoch: LeaderEpoch(1),
        metadata: None,
    };
    let topics = vec![CommitTopic {
        id: None,
        name: Arc::from("t".repeat(200)),
        partitions: (0..partitions).map(partition).collect(),
    }];
    let request = CommitRequest {
        version: 9,
        group_id: Arc::from("g"),
        generation_id: -1,
        member_id: Arc::default(),
        group_instance_id: None,
        retention_time_ms: -1,
        topics,
    };
    let effects = shard.handle(ReplyToken(token), Request::Commit(request), NOW);
    let [Effect::Append { then, .. }] = &effects[..] else {
        panic!("{effects:?}")
    };
    *then
}

fn delete_group(shard: &mut GroupShard, token: u64) -> Vec<AppendId> {
    let request = DeleteRequest {
        groups: vec![Arc::from("g")],
    };
    let effects = shard.handle(ReplyToken(token), Request::Delete(request), NOW);
    let appends = effects.iter().map(|effect| match effect {
        Effect::Append { then, .. } => *then,
        other => panic!("{other:?}"),
    });
    appends.collect()
}

fn delete_answer(effects: &[Effect]) -> Option<Option<GroupError>> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply(_, Response::Delete(delete)) => Some(delete.groups[0].1),
        _ => None,
    })
}

#[test]
fn a_large_deletion_is_several_appends_and_one_answer() {
    let mut shard = serving();
    let append = commit_many(&mut shard, 1, 10_000);
    shard.on_appended(append, Ok(Offset(0)), NOW);
    let appends = delete_group(&mut shard, 2);
    assert!(appends.len() > 3, "{}", appends.len());
    let (last, others) = appends.split_last().unwrap();
    shard.check();
    // The first part fails: the whole is not told to be done.
    let effects = shard.on_appended(others[0], Err(AppendFailure::TimedOut), NOW);
    assert_eq!(delete_answer(&effects), None);
    for (index, append) in others[1..].iter().enumerate() {
        let effects = shard.on_appended(*append, Ok(Offset(20_000 + 4_000 * index as i64)), NOW);
        assert_eq!(delete_answer(&effects), None);
    }
    let effects = shard.on_appended(*last, Ok(Offset(90_000)), NOW);
    assert_eq!(
        delete_answer(&effects),
        Some(Some(GroupError::CoordinatorNotAvailable))
    );
    shard.check();
    // Again: what is left goes.
    let appends = delete_group(&mut shard, 3);
    let mut answer = None;
    for append in appends {
        let effects = shard.on_appended(append, Ok(Offset(100_000)), NOW);
        answer = answer.or(delete_answer(&effects));
    }
    assert_eq!(answer, Some(None));
    assert_eq!(fetch(&mut shard, 4, true), "");
    shard.check();
}

#[test]
fn failures_may_be_reported_in_any_order() {
    let mut shard = serving();
    let first = commit_many(&mut shard, 1, 1);
    let second = commit_many(&mut shard, 2, 2);
    let request = FetchRequest {
        group_id: Arc::from("g"),
        require_stable: true,
        topics: None,
    };
    assert!(
        shard
            .handle(ReplyToken(3), Request::Fetch(request), NOW)
            .is_empty()
    );
    let replies = |effects: Vec<Effect>| {
        let tokens = effects.into_iter().filter_map(|effect| match effect {
            Effect::Reply(token, _) => Some(token.0),
            _ => None,
        });
        tokens.collect::<Vec<_>>()
    };
    // The second is refused at once; the fetch goes on waiting for the first.
    assert_eq!(
        replies(shard.on_appended(second, Err(AppendFailure::TooLarge), NOW)),
        [2]
    );
    shard.check();
    assert_eq!(replies(shard.on_appended(first, Ok(Offset(0)), NOW)), [1, 3]);
    shard.check();
    // A late second report, as after a move, is nobody's business.
    assert!(shard.on_appended(first, Ok(Offset(0)), NOW).is_empty());
}

#[test]
#[should_panic(expected = "was reported durable before")]
fn successes_are_reported_in_order() {
    let mut shard = serving();
    commit_many(&mut shard, 1, 1);
    let second = commit_many(&mut shard, 2, 1);
    shard.on_appended(second, Ok(Offset(1)), NOW);
}
