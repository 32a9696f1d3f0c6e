use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, VersionRange};
use proptest::prelude::*;

use super::*;

/// What the tests need of a request type.
#[derive(Clone, Copy)]
struct Codec {
    key: ApiKey,
    versions: VersionRange,
    /// Encodes the default request.
    default: fn(i16) -> Bytes,
    /// Decodes a body; gives what is left of it and the same request encoded again.
    again: fn(i16, Bytes) -> anyhow::Result<(usize, Bytes)>,
}

fn encode<R: Encodable>(request: &R, version: i16) -> anyhow::Result<Bytes> {
    let mut buf = BytesMut::new();
    request.encode(&mut buf, version)?;
    Ok(buf.freeze())
}

fn codec<R: Encodable + Decodable + Default + kafka_protocol::protocol::Message>(key: ApiKey) -> Codec {
    Codec {
        key,
        versions: R::VERSIONS,
        default: |version| encode(&R::default(), version).unwrap(),
        again: |version, mut body| {
            let request = R::decode(&mut body, version)?;
            Ok((body.len(), encode(&request, version)?))
        },
    }
}

fn codecs() -> Vec<Codec> {
    macro_rules! codecs {
        ($($name:ident: $request:ty,)*) => { vec![$(codec::<$request>(ApiKey::$name)),*] };
    }
    codecs! {
        Produce: ProduceRequest, Fetch: FetchRequest, ListOffsets: ListOffsetsRequest, Metadata: MetadataRequest,
        OffsetCommit: OffsetCommitRequest, OffsetFetch: OffsetFetchRequest,
        FindCoordinator: FindCoordinatorRequest, JoinGroup: JoinGroupRequest, Heartbeat: HeartbeatRequest,
        LeaveGroup: LeaveGroupRequest, SyncGroup: SyncGroupRequest, DescribeGroups: DescribeGroupsRequest,
        ListGroups: ListGroupsRequest, SaslHandshake: SaslHandshakeRequest, ApiVersions: ApiVersionsRequest,
        CreateTopics: CreateTopicsRequest, DeleteTopics: DeleteTopicsRequest,
        DeleteRecords: DeleteRecordsRequest, InitProducerId: InitProducerIdRequest,
        OffsetForLeaderEpoch: OffsetForLeaderEpochRequest, DescribeConfigs: DescribeConfigsRequest,
        AlterConfigs: AlterConfigsRequest, DescribeLogDirs: DescribeLogDirsRequest,
        SaslAuthenticate: SaslAuthenticateRequest, CreatePartitions: CreatePartitionsRequest,
        DeleteGroups: DeleteGroupsRequest, ElectLeaders: ElectLeadersRequest,
        IncrementalAlterConfigs: IncrementalAlterConfigsRequest,
        AlterPartitionReassignments: AlterPartitionReassignmentsRequest,
        ListPartitionReassignments: ListPartitionReassignmentsRequest,
        OffsetDelete: OffsetDeleteRequest, DescribeQuorum: DescribeQuorumRequest,
        DescribeCluster: DescribeClusterRequest,
        DescribeProducers: DescribeProducersRequest, UnregisterBroker: UnregisterBrokerRequest,
        GetTelemetrySubscriptions: GetTelemetrySubscriptionsRequest,
        ListConfigResources: ListConfigResourcesRequest,
        DescribeTopicPartitions: DescribeTopicPartitionsRequest,
        AddRaftVoter: AddRaftVoterRequest, RemoveRaftVoter: RemoveRaftVoterRequest,
    }
}

/// Every API and version that has a shape.
fn everything() -> impl Iterator<Item = (Codec, i16)> {
    codecs()
        .into_iter()
        .flat_map(|codec| (codec.versions.min..=codec.versions.max).map(move |version| (codec, version)))
}

/// Writes a body that follows a shape, deciding by `entropy`.
struct Writer<'a> {
    version: i16,
    flexible: bool,
    entropy: &'a [u8],
    body: Vec<u8>,
}

impl Writer<'_> {
    fn draw(&mut self) -> u8 {
        let Some((first, rest)) = self.entropy.split_first() else {
            return 0;
        };
        self.entropy = rest;
        *first
    }

    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.body.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.body.push(value as u8);
    }

    fn length(&mut self, length: Option<usize>, is_text: bool) {
        let signed = length.map_or(-1, |length| i32::try_from(length).unwrap());
        if self.flexible {
            self.varint((signed + 1) as u32);
        } else if is_text {
            self.body.extend(i16::try_from(signed).unwrap().to_be_bytes());
        } else {
            self.body.extend(signed.to_be_bytes());
        }
    }

    fn fields(&mut self, fields: &[Field]) {
        let version = self.version;
        for field in fields
            .iter()
            .filter(|field| field.tag.is_none() && field.is_in(version))
        {
            self.field(field);
        }
        if !self.flexible {
            return;
        }
        let known: Vec<_> = fields
            .iter()
            .filter(|field| field.tag.is_some() && field.is_in(self.version))
            .collect();
        let known: Vec<_> = known.into_iter().filter(|_| self.draw() % 2 == 1).collect();
        let unknown = self.draw() % 3;
        self.varint(known.len() as u32 + u32::from(unknown));
        for field in known {
            let start = std::mem::take(&mut self.body);
            self.field(field);
            let value = std::mem::replace(&mut self.body, start);
            self.varint(field.tag.unwrap());
            self.varint(value.len() as u32);
            self.body.extend(value);
        }
        for index in 0..unknown {
            self.varint(1000 + u32::from(index));
            self.varint(2);
            self.body.extend([7, 7]);
        }
    }

    fn field(&mut self, field: &Field) {
        let null = self.version >= field.null_since && self.draw() % 4 == 1;
        let elements = usize::from(self.draw() % 4);
        match field.kind {
            // A boolean or a number: 1 is both. An id of zeros may be the default that is not written.
            Kind::Fixed(bytes) => self.body.extend((0..bytes).map(|_| 1)),
            Kind::Text | Kind::Bytes => {
                self.length((!null).then_some(elements), matches!(field.kind, Kind::Text));
                if !null {
                    self.body.extend(std::iter::repeat_n(b'x', elements));
                }
            }
            Kind::List(element) => {
                self.length((!null).then_some(elements), false);
                if !null {
                    (0..elements).for_each(|_| self.field(element));
                }
            }
            Kind::Many(fields) => {
                self.length((!null).then_some(elements), false);
                if !null {
                    (0..elements).for_each(|_| self.fields(fields));
                }
            }
            Kind::One(fields) if field.null_since < NEVER => {
                self.body.push(if null { 0xff } else { 1 });
                if !null {
                    self.fields(fields);
                }
            }
            Kind::One(fields) => self.fields(fields),
        }
    }
}

fn written(key: ApiKey, version: i16, entropy: &[u8]) -> Bytes {
    let message = messages::of(key).unwrap();
    let flexible = version >= message.flexible_from;
    let mut writer = Writer {
        version,
        flexible,
        entropy,
        body: Vec::new(),
    };
    writer.fields(message.fields);
    writer.body.into()
}

/// Walks `body`, and tells what is left of it.
fn left(key: ApiKey, version: i16, body: &[u8]) -> Result<usize, Wrong> {
    let message = messages::of(key).unwrap();
    let mut walk = Walk::new(version, version >= message.flexible_from, body);
    walk.fields(message.fields).map(|()| walk.rest.len())
}

#[test]
fn every_shape_has_a_request_type_and_each_default_is_walked_to_its_end() {
    let keys: Vec<_> = codecs().iter().map(|codec| codec.key).collect();
    assert_eq!(
        keys,
        messages::MESSAGES
            .iter()
            .map(|message| message.key)
            .collect::<Vec<_>>()
    );
    for (codec, version) in everything() {
        let body = (codec.default)(version);
        assert_eq!(
            left(codec.key, version, &body),
            Ok(0),
            "{:?} v{version}: {body:?}",
            codec.key
        );
    }
}

#[test]
fn hostile_lengths_are_refused_before_anything_is_allocated() {
    let why = |key, version, body: &[u8]| check(key, version, body).unwrap_err().to_string();
    assert_eq!(
        why(ApiKey::Metadata, 1, b"\x7f\xff\xff\xff"),
        "malformed Metadata version 1: an array of 2147483647 elements in 0 bytes"
    );
    assert_eq!(
        why(ApiKey::Metadata, 9, b"\xff\xff\xff\xff\x0f"),
        "malformed Metadata version 9: an array of 4294967294 elements in 0 bytes"
    );
    assert_eq!(
        why(ApiKey::Metadata, 1, b"\xff\xff\xff\xfe"),
        "malformed Metadata version 1: a length of -2"
    );
    assert_eq!(
        why(ApiKey::Metadata, 0, b"\xff\xff\xff\xff"),
        "malformed Metadata version 0: a null where none is allowed"
    );
    assert_eq!(
        why(ApiKey::Metadata, 1, b"\0\0\0\x01\0\x05ab"),
        "malformed Metadata version 1: it ends 3 bytes too early"
    );
    assert_eq!(
        why(ApiKey::Metadata, 12, b"\xff\xff\xff\xff\xff\xff\x01"),
        "malformed Metadata version 12: a variable-length number of more than 32 bits"
    );
    assert_eq!(
        why(ApiKey::DescribeTopicPartitions, 0, b"\x01\0\0\0\x01\x05\0"),
        "malformed DescribeTopicPartitions version 0: a struct that is neither null nor there: 5"
    );
    // Fetch v12, tag 0 (cluster id) says 9 bytes and is a string of 2.
    let mut body = vec![0; 4 * 4 + 1 + 4 + 4];
    body.extend(b"\x01\x01\x01\x01\0\x09\x03ab");
    assert_eq!(
        why(ApiKey::Fetch, 12, &body),
        "malformed Fetch version 12: tag 0 has 9 bytes and uses 3"
    );
}

#[test]
fn strings_that_are_no_text_are_made_text_and_nothing_else_is_touched() {
    // A Metadata request for three topics, the second and third of them no UTF-8.
    let body = b"\0\0\0\x03\0\x03k\xc3\xa4\0\x04a\xffb\xfe\0\x02\xe2\x82";
    let shape = check(ApiKey::Metadata, 1, body).unwrap();
    assert_eq!(shape.not_text, [11..15, 17..19]);
    let made = made_text(body, &shape.not_text);
    assert_eq!(&made[..], b"\0\0\0\x03\0\x03k\xc3\xa4\0\x04a?b?\0\x02??");
    assert_eq!(
        check(ApiKey::Metadata, 1, &made).unwrap().not_text,
        Vec::<std::ops::Range<usize>>::new()
    );
    // Bytes are no strings.
    let produce = b"\xff\xff\0\x01\0\0\0\x09\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0\0\0\0\x02\xff\xfe";
    assert_eq!(
        check(ApiKey::Produce, 3, produce).unwrap().not_text,
        Vec::<std::ops::Range<usize>>::new()
    );
}

#[test]
fn a_frame_that_would_swell_is_refused_and_an_honest_large_one_is_not() {
    let topics = |count: usize, name: &[u8]| {
        let mut body = u32::try_from(count).unwrap().to_be_bytes().to_vec();
        for _ in 0..count {
            body.extend(u16::try_from(name.len()).unwrap().to_be_bytes());
            body.extend(name);
        }
        body
    };
    let refused = check(ApiKey::Metadata, 1, &topics(2_000_000, b""))
        .unwrap_err()
        .to_string();
    assert!(
        refused.ends_with("decoded, it would take more than 67108864 bytes of memory"),
        "{refused}"
    );
    assert!(
        check(
            ApiKey::Metadata,
            1,
            &topics(100_000, b"a-topic-of-a-large-cluster")
        )
        .is_ok()
    );
    // Every struct with one unknown tag costs a node of a tree: 3 bytes become 400.
    let mut body = vec![0xc1, 0x9a, 0x0c];
    for _ in 0..200_000 {
        body.extend([0; 16]);
        body.extend([0, 1, 9, 0]);
    }
    assert!(
        check(ApiKey::Metadata, 12, &body)
            .unwrap_err()
            .to_string()
            .contains("more than")
    );
}

#[test]
fn the_estimates_are_not_below_what_the_decoded_structs_take() {
    macro_rules! compare {
        ($($key:ident $element:ty,)*) => {$({
            let message = messages::of(ApiKey::$key).unwrap();
            let estimate = message.fields.iter().filter_map(|field| match field.kind {
                Kind::Many(fields) => Some(struct_bytes(fields)),
                _ => None,
            }).max().unwrap();
            assert!(estimate >= size_of::<$element>(), "{:?}: {estimate} for {}", ApiKey::$key, size_of::<$element>());
        })*};
    }
    compare! {
        Metadata metadata_request::MetadataRequestTopic,
        Produce produce_request::TopicProduceData,
        Fetch fetch_request::FetchTopic,
        CreateTopics create_topics_request::CreatableTopic,
        OffsetCommit offset_commit_request::OffsetCommitRequestTopic,
        JoinGroup join_group_request::JoinGroupRequestProtocol,
        LeaveGroup leave_group_request::MemberIdentity,
        DescribeConfigs describe_configs_request::DescribeConfigsResource,
    }
    assert!(SLICE_BYTES >= size_of::<Option<kafka_protocol::protocol::StrBytes>>());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The shapes and the crate's decoders, generated from the same definitions by different hands, agree on every
    /// byte: what one writes the other reads to its end and writes again.
    #[test]
    fn what_follows_a_shape_is_what_the_decoder_reads(entropy in prop::collection::vec(any::<u8>(), 0..200)) {
        for (codec, version) in everything() {
            let body = written(codec.key, version, &entropy);
            prop_assert_eq!(left(codec.key, version, &body), Ok(0));
            let (rest, again) = (codec.again)(version, body.clone()).unwrap_or_else(|error| {
                panic!("{:?} v{version} {body:?}: {error}", codec.key)
            });
            prop_assert_eq!(rest, 0, "{:?} v{}", codec.key, version);
            prop_assert_eq!(left(codec.key, version, &again), Ok(0));
        }
    }

    /// Whatever is done to a body: where the shape agrees the decoder neither panics nor asks for more memory than was
    /// told (it would abort: a hostile length is in most of these).
    #[test]
    fn a_damaged_body_is_harmless(
        entropy in prop::collection::vec(any::<u8>(), 0..100),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        cuts in any::<bool>(),
    ) {
        for (codec, version) in everything() {
            let mut body = written(codec.key, version, &entropy).to_vec();
            if body.is_empty() {
                continue;
            }
            for (at, value) in &damage {
                let at = at.index(body.len());
                body[at] = *value;
            }
            if cuts {
                body.truncate(cut.index(body.len()));
            }
            if check(codec.key, version, &body).is_ok() {
                let _ = (codec.again)(version, body.into());
            }
        }
    }

    #[test]
    fn garbage_is_harmless(body in prop::collection::vec(any::<u8>(), 0..64)) {
        for (codec, version) in everything() {
            if check(codec.key, version, &body).is_ok() {
                let _ = (codec.again)(version, body.clone().into());
            }
        }
    }
}
