use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use expect_test::{Expect, expect};
use proptest::prelude::*;
use skerry_types::{LeaderEpoch, Offset, TopicPartition, Uuid, WallMs};

use super::{DecodeError, GroupMetadataValue, MemberMetadata, OffsetCommitValue, RecordKey};

/// Written by Kafka 4.3.1's own classes: the same offset in versions 0 to 4.
const KAFKA_OFFSETS: [&str; 5] = [
    "00000000011f71fb04cb00056dc3a974610000018bcfe56800",
    "00010000011f71fb04cb00056dc3a974610000018bcfe568000000018bcfee8fc0",
    "00020000011f71fb04cb00056dc3a974610000018bcfe56800",
    "00030000011f71fb04cb0000000900056dc3a974610000018bcfe56800",
    "00040000011f71fb04cb00000009066dc3a974610000018bcfe5680000",
];
/// A group of two members in versions 0 to 4.
const KAFKA_GROUPS: [&str; 5] = [
    "00000008636f6e73756d657200000005000572616e67650003632d31000000020003632d31000163000a2f3132372e302e302e31000027100\
     000000300010200000001030003642d320000000a2f3132372e302e302e31000017700000000000000000",
    "00010008636f6e73756d657200000005000572616e67650003632d31000000020003632d31000163000a2f3132372e302e302e310000ea600\
     00027100000000300010200000001030003642d320000000a2f3132372e302e302e3100000000000017700000000000000000",
    "00020008636f6e73756d657200000005000572616e67650003632d310000018bcfe56800000000020003632d31000163000a2f3132372e302\
     e302e310000ea60000027100000000300010200000001030003642d320000000a2f3132372e302e302e310000000000001770000000000000\
     0000",
    "00030008636f6e73756d657200000005000572616e67650003632d310000018bcfe56800000000020003632d31000169000163000a2f31323\
     72e302e302e310000ea60000027100000000300010200000001030003642d32ffff0000000a2f3132372e302e302e31000000000000177000\
     00000000000000",
    "000409636f6e73756d6572000000050672616e676504632d310000018bcfe568000304632d31026902630b2f3132372e302e302e310000ea6\
     0000027100400010202030004642d3200010b2f3132372e302e302e31000000000000177001010000",
];
/// An empty group in version 3.
const KAFKA_EMPTY_GROUP: &str = "0003000000000000ffffffff0000018bcfe5680000000000";

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn offset() -> OffsetCommitValue {
    OffsetCommitValue {
        offset: Offset(1_234_567_890_123),
        leader_epoch: LeaderEpoch(9),
        metadata: Arc::from("m\u{e9}ta"),
        commit_timestamp: WallMs(1_700_000_000_000),
        expire_timestamp: None,
        topic_id: None,
    }
}

fn group() -> GroupMetadataValue {
    let member = |id: &str| MemberMetadata {
        member_id: Arc::from(id),
        group_instance_id: None,
        client_id: Arc::default(),
        client_host: Arc::from("/127.0.0.1"),
        rebalance_timeout_ms: 0,
        session_timeout_ms: 6_000,
        subscription: Bytes::new(),
        assignment: Bytes::new(),
    };
    let first = MemberMetadata {
        group_instance_id: Some(Arc::from("i")),
        client_id: Arc::from("c"),
        rebalance_timeout_ms: 60_000,
        session_timeout_ms: 10_000,
        subscription: Bytes::from_static(&[0, 1, 2]),
        assignment: Bytes::from_static(&[3]),
        ..member("c-1")
    };
    GroupMetadataValue {
        protocol_type: Arc::from("consumer"),
        generation: 5,
        protocol: Some(Arc::from("range")),
        leader: Some(Arc::from("c-1")),
        current_state_timestamp: WallMs(1_700_000_000_000),
        members: vec![first, member("d-2")],
    }
}

#[test]
fn keys_are_kafkas() {
    let partition = TopicPartition::new("topic", 7);
    let key = RecordKey::encode_offset_commit("group", &partition);
    assert_eq!(to_hex(&key), "0001000567726f75700005746f70696300000007");
    let group: Arc<str> = Arc::from("group");
    let decoded = RecordKey::OffsetCommit {
        group: group.clone(),
        partition,
    };
    assert_eq!(RecordKey::decode(&key), Ok(decoded.clone()));
    // Type 0 is the same, from before Kafka 0.9.
    assert_eq!(
        RecordKey::decode(&from_hex("0000000567726f75700005746f70696300000007")),
        Ok(decoded)
    );
    let key = RecordKey::encode_group_metadata("group");
    assert_eq!(to_hex(&key), "0002000567726f7570");
    assert_eq!(RecordKey::decode(&key), Ok(RecordKey::GroupMetadata { group }));
    for other in [3_i16, 16, 24, -1] {
        let mut key = other.to_be_bytes().to_vec();
        key.push(0xff);
        assert_eq!(RecordKey::decode(&key), Ok(RecordKey::Other(other)));
    }
}

#[test]
fn offsets_are_kafkas() {
    assert_eq!(to_hex(&offset().encode()), KAFKA_OFFSETS[4]);
    let expire_timestamp = Some(WallMs(1_700_000_600_000));
    let expiring = OffsetCommitValue {
        leader_epoch: LeaderEpoch(-1),
        expire_timestamp,
        ..offset()
    };
    assert_eq!(to_hex(&expiring.encode()), KAFKA_OFFSETS[1]);
    let without_epoch = OffsetCommitValue {
        leader_epoch: LeaderEpoch(-1),
        ..offset()
    };
    let expected = [&without_epoch, &expiring, &without_epoch, &offset(), &offset()];
    for (version, (bytes, expected)) in KAFKA_OFFSETS.iter().zip(expected).enumerate() {
        assert_eq!(
            OffsetCommitValue::decode(&from_hex(bytes)).as_ref(),
            Ok(expected),
            "version {version}"
        );
    }
    let of_topic = OffsetCommitValue {
        topic_id: Some(Uuid([0xab; 16])),
        ..offset()
    };
    let tagged = KAFKA_OFFSETS[4].strip_suffix("00").unwrap().to_owned() + "010010" + &"ab".repeat(16);
    assert_eq!(to_hex(&of_topic.encode()), tagged);
    assert_eq!(OffsetCommitValue::decode(&from_hex(&tagged)), Ok(of_topic));
    // Of the future, or of another length than an id has.
    for tags in ["010103abcdef", "010003abcdef"] {
        let strange = KAFKA_OFFSETS[4].strip_suffix("00").unwrap().to_owned() + tags;
        assert_eq!(OffsetCommitValue::decode(&from_hex(&strange)), Ok(offset()));
    }
}

#[test]
fn groups_are_kafkas() {
    assert_eq!(to_hex(&group().encode()), KAFKA_GROUPS[3]);
    for (version, bytes) in KAFKA_GROUPS.iter().enumerate() {
        let mut expected = group();
        for member in &mut expected.members {
            if version < 3 {
                member.group_instance_id = None;
            }
            if version < 1 {
                member.rebalance_timeout_ms = -1;
            }
        }
        if version < 2 {
            expected.current_state_timestamp = WallMs::NONE;
        }
        assert_eq!(
            GroupMetadataValue::decode(&from_hex(bytes)),
            Ok(expected),
            "version {version}"
        );
    }
    let empty = GroupMetadataValue {
        protocol_type: Arc::default(),
        generation: 0,
        protocol: None,
        leader: None,
        current_state_timestamp: WallMs(1_700_000_000_000),
        members: Vec::new(),
    };
    assert_eq!(to_hex(&empty.encode()), KAFKA_EMPTY_GROUP);
    assert_eq!(
        GroupMetadataValue::decode(&from_hex(KAFKA_EMPTY_GROUP)),
        Ok(empty)
    );
}

#[test]
fn cut_anywhere_is_an_error() {
    for bytes in KAFKA_OFFSETS.map(from_hex) {
        for cut in 0..bytes.len() {
            assert!(
                OffsetCommitValue::decode(&bytes[..cut]).is_err(),
                "{cut} of {}",
                bytes.len()
            );
        }
    }
    for bytes in KAFKA_GROUPS.map(from_hex) {
        for cut in 0..bytes.len() {
            assert!(
                GroupMetadataValue::decode(&bytes[..cut]).is_err(),
                "{cut} of {}",
                bytes.len()
            );
        }
    }
    let key = RecordKey::encode_offset_commit("group", &TopicPartition::new("topic", 7));
    for cut in 0..key.len() {
        assert!(RecordKey::decode(&key[..cut]).is_err(), "{cut}");
    }
}

fn complains(bytes: &str, expected: &Expect) {
    let error = GroupMetadataValue::decode(&from_hex(bytes)).unwrap_err();
    expected.assert_eq(&error.to_string());
}

#[test]
fn what_is_wrong_is_said() {
    complains("0005", &expect!["unknown version 5"]);
    complains("ffff", &expect!["unknown version -1"]);
    complains("0003ffff", &expect!["protocol type has an impossible length"]);
    complains("0003fffe", &expect!["protocol type has an impossible length"]);
    complains("00030001ff", &expect!["protocol type is not UTF-8"]);
    complains(
        "0003000461",
        &expect!["cut short in protocol type: 4 bytes wanted, 1 left"],
    );
    complains(
        "0004ffffffffff",
        &expect!["protocol type has an impossible length"],
    );
    complains(
        "0003000000000000ffffffff0000018bcfe56800ffffffff",
        &expect!["members has an impossible length"],
    );
    // 2,147,483,647 members are not made room for before the first is read.
    complains(
        "0003000000000000ffffffff0000018bcfe568007fffffff",
        &expect!["cut short in member id: 2 bytes wanted, 0 left"],
    );
    let twice = GroupMetadataValue {
        members: [group().members, group().members].concat(),
        ..group()
    };
    complains(
        &to_hex(&twice.encode()),
        &expect!["two members have one member id"],
    );
    let mut statics = group();
    statics.members[1].group_instance_id = Some(Arc::from("i"));
    complains(
        &to_hex(&statics.encode()),
        &expect!["two members have one group instance id"],
    );
    let without_protocol = GroupMetadataValue {
        protocol: None,
        ..group()
    };
    complains(
        &to_hex(&without_protocol.encode()),
        &expect!["a group with members and without a protocol"],
    );
    assert_eq!(
        OffsetCommitValue::decode(&[0, 5]),
        Err(DecodeError::UnknownVersion(5))
    );
}

prop_compose! {
    fn any_offset()(
        offset: i64,
        leader_epoch: i32,
        metadata in ".{0,40}",
        commit: i64,
        expire in proptest::option::of(0..i64::MAX),
        topic_id in proptest::option::of(any::<[u8; 16]>()),
    ) -> OffsetCommitValue {
        OffsetCommitValue {
            offset: Offset(offset),
            // The version with an expire timestamp has no epoch, and no tags.
            leader_epoch: LeaderEpoch(if expire.is_some() { -1 } else { leader_epoch }),
            metadata: Arc::from(metadata),
            commit_timestamp: WallMs(commit),
            expire_timestamp: expire.map(WallMs),
            topic_id: topic_id.filter(|_| expire.is_none()).map(Uuid),
        }
    }
}

prop_compose! {
    fn any_member(index: usize)(
        name in "[a-z]{0,9}",
        is_static: bool,
        client in ".{0,9}",
        timeouts: (i32, i32),
        subscription in proptest::collection::vec(any::<u8>(), 0..40),
        assignment in proptest::collection::vec(any::<u8>(), 0..40),
    ) -> MemberMetadata {
        MemberMetadata {
            member_id: Arc::from(format!("{name}-{index}")),
            group_instance_id: is_static.then(|| Arc::from(format!("{name}.{index}"))),
            client_id: Arc::from(client),
            client_host: Arc::from("/::1"),
            rebalance_timeout_ms: timeouts.0,
            session_timeout_ms: timeouts.1,
            subscription: Bytes::from(subscription),
            assignment: Bytes::from(assignment),
        }
    }
}

prop_compose! {
    fn any_group()(
        generation: i32,
        timestamp: i64,
        protocol in "[a-z]{0,9}",
        members in (0..4_usize).prop_flat_map(|count| (0..count).map(any_member).collect::<Vec<_>>()),
    ) -> GroupMetadataValue {
        GroupMetadataValue {
            protocol_type: Arc::from("consumer"),
            generation,
            protocol: (!members.is_empty()).then(|| Arc::from(protocol)),
            leader: members.first().map(|member| member.member_id.clone()),
            current_state_timestamp: WallMs(timestamp),
            members,
        }
    }
}

proptest! {
    #[test]
    fn offsets_come_back(value in any_offset()) {
        prop_assert_eq!(OffsetCommitValue::decode(&value.encode()), Ok(value));
    }

    #[test]
    fn groups_come_back(value in any_group()) {
        prop_assert_eq!(GroupMetadataValue::decode(&value.encode()), Ok(value));
    }

    #[test]
    fn keys_come_back(group in ".{0,40}", topic in "[a-z]{0,20}", partition: i32) {
        let partition = TopicPartition::new(topic, partition);
        let key = RecordKey::encode_offset_commit(&group, &partition);
        let group: Arc<str> = Arc::from(group);
        prop_assert_eq!(
            RecordKey::decode(&key),
            Ok(RecordKey::OffsetCommit { group: group.clone(), partition })
        );
        let key = RecordKey::encode_group_metadata(&group);
        prop_assert_eq!(RecordKey::decode(&key), Ok(RecordKey::GroupMetadata { group }));
    }

    /// Any bytes give a value or an error, and what one bit flipped gives a value that can be written again.
    #[test]
    fn nothing_panics(
        junk in proptest::collection::vec(any::<u8>(), 0..80),
        version in 0..6_u8,
        flip in 0..2_000_usize,
    ) {
        let mut bytes = vec![0, version];
        bytes.extend(junk);
        let _ = RecordKey::decode(&bytes);
        let _ = OffsetCommitValue::decode(&bytes).map(|value| value.encode());
        let _ = GroupMetadataValue::decode(&bytes).map(|value| value.encode());
        let mut bytes = from_hex(KAFKA_GROUPS[usize::from(version).min(4)]);
        let bit = flip % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let _ = GroupMetadataValue::decode(&bytes).map(|value| value.encode());
    }
}
