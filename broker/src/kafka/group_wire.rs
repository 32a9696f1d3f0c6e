//! Between the requests of the group APIs and the group coordinators: who is asked, in which words, and what an error
//! is called on the wire.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt as _};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{GroupId, TopicName};
use kafka_protocol::protocol::StrBytes;
use skerry_coordinator::{
    CommitRequest, CommitResponse, DeleteRequest, DeleteResponse, DescribeRequest, DescribeResponse,
    FetchRequest, FetchResponse, GroupError, HeartbeatRequest, HeartbeatResponse, JoinRequest, JoinResponse,
    LeaveRequest, LeaveResponse, ListRequest, ListResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    Request, Response, SyncRequest, SyncResponse, TopicErrors, partition_for,
};
use skerry_metadata_state::Image;
use skerry_types::PartitionIndex;

use super::dispatch::Context;
use crate::budget::Held;
use crate::gate::{Operation, Resource};
use crate::groups::CoordinatorError;
use crate::topics::CONSUMER_OFFSETS;

/// Coordinators that one request asks at a time.
pub const ASKED_AT_ONCE: usize = 32;

impl From<CoordinatorError> for GroupError {
    fn from(error: CoordinatorError) -> Self {
        match error {
            CoordinatorError::NotAvailable => Self::CoordinatorNotAvailable,
            CoordinatorError::NotCoordinator => Self::NotCoordinator,
        }
    }
}

/// The code of an error of the coordinator.
#[must_use]
pub const fn code(error: GroupError) -> ResponseError {
    match error {
        GroupError::CoordinatorLoadInProgress => ResponseError::CoordinatorLoadInProgress,
        GroupError::CoordinatorNotAvailable => ResponseError::CoordinatorNotAvailable,
        GroupError::NotCoordinator => ResponseError::NotCoordinator,
        GroupError::OffsetMetadataTooLarge => ResponseError::OffsetMetadataTooLarge,
        GroupError::IllegalGeneration => ResponseError::IllegalGeneration,
        GroupError::InconsistentGroupProtocol => ResponseError::InconsistentGroupProtocol,
        GroupError::InvalidGroupId => ResponseError::InvalidGroupId,
        GroupError::UnknownMemberId => ResponseError::UnknownMemberId,
        GroupError::InvalidSessionTimeout => ResponseError::InvalidSessionTimeout,
        GroupError::RebalanceInProgress => ResponseError::RebalanceInProgress,
        GroupError::InvalidCommitOffsetSize => ResponseError::InvalidCommitOffsetSize,
        GroupError::NonEmptyGroup => ResponseError::NonEmptyGroup,
        GroupError::GroupIdNotFound => ResponseError::GroupIdNotFound,
        GroupError::MemberIdRequired => ResponseError::MemberIdRequired,
        GroupError::GroupMaxSizeReached => ResponseError::GroupMaxSizeReached,
        GroupError::FencedInstanceId => ResponseError::FencedInstanceId,
        GroupError::GroupSubscribedToTopic => ResponseError::GroupSubscribedToTopic,
        GroupError::UnstableOffsetCommit => ResponseError::UnstableOffsetCommit,
        GroupError::UnknownServerError => ResponseError::UnknownServerError,
    }
}

/// A verdict's number on the wire: 0 for none.
#[must_use]
pub fn number(error: Option<ResponseError>) -> i16 {
    error.map_or(0, |error| error.code())
}

/// The number of a coordinator's verdict: 0 for none.
#[must_use]
pub fn verdict(error: Option<GroupError>) -> i16 {
    number(error.map(code))
}

/// A string of a request, apart from its frame: what the coordinator keeps must not keep a whole frame in memory.
#[must_use]
pub fn owned(text: &StrBytes) -> Arc<str> {
    Arc::from(&**text)
}

/// A string that may be null.
#[must_use]
pub fn owned_option(text: Option<&StrBytes>) -> Option<Arc<str>> {
    text.map(owned)
}

/// The peer as Kafka shows it: Java's `InetAddress.toString` without a name, which shortens no IPv6 address.
#[must_use]
pub fn client_host(peer: IpAddr) -> Arc<str> {
    match peer.to_canonical() {
        IpAddr::V4(address) => format!("/{address}").into(),
        IpAddr::V6(address) => {
            let segments: Vec<String> = address
                .segments()
                .iter()
                .map(|segment| format!("{segment:x}"))
                .collect();
            format!("/{}", segments.join(":")).into()
        }
    }
}

/// A request that a coordinator understands, and what it is answered with.
pub trait GroupCall {
    /// What it is answered with.
    type Answer;
    /// The request.
    fn request(self) -> Request;
    /// Takes the answer out; `None`: it is another request's.
    fn answer(response: Response) -> Option<Self::Answer>;
}

macro_rules! group_calls {
    ($($variant:ident($request:ty) -> $answer:ty),+ $(,)?) => {$(
        impl GroupCall for $request {
            type Answer = $answer;
            fn request(self) -> Request {
                Request::$variant(self)
            }
            fn answer(response: Response) -> Option<Self::Answer> {
                match response {
                    Response::$variant(answer) => Some(answer),
                    _ => None,
                }
            }
        }
    )+};
}

group_calls! {
    Join(JoinRequest) -> JoinResponse,
    Sync(SyncRequest) -> SyncResponse,
    Heartbeat(HeartbeatRequest) -> HeartbeatResponse,
    Leave(LeaveRequest) -> LeaveResponse,
    Commit(CommitRequest) -> CommitResponse,
    Fetch(FetchRequest) -> FetchResponse,
    Describe(DescribeRequest) -> DescribeResponse,
    List(ListRequest) -> ListResponse,
    Delete(DeleteRequest) -> DeleteResponse,
    OffsetDelete(OffsetDeleteRequest) -> OffsetDeleteResponse,
}

/// Asks the coordinator of `group`.
///
/// # Errors
/// This broker does not coordinate it, or not yet.
///
/// # Panics
/// If the coordinator answers another request than it was asked.
pub async fn ask<C: GroupCall>(context: &Context, group: &str, call: C) -> Result<C::Answer, GroupError> {
    ask_holding(context, group, call, None).await
}

/// As [`ask`], for a request whose answer waits for other members: the memory of its frame is given back as soon as the
/// coordinator has taken the request in. What the coordinator keeps of it has bounds of its own.
///
/// # Errors
/// As [`ask`].
///
/// # Panics
/// As [`ask`].
pub async fn ask_parked<C: GroupCall>(
    context: &Context,
    group: &str,
    call: C,
) -> Result<C::Answer, GroupError> {
    ask_holding(context, group, call, context.frame.take()).await
}

async fn ask_holding<C: GroupCall>(
    context: &Context,
    group: &str,
    call: C,
    held: Option<Held>,
) -> Result<C::Answer, GroupError> {
    let broker = &context.broker;
    let response = broker.groups().call(broker, group, call.request(), held).await?;
    Ok(C::answer(response).expect("a request is answered by its own answer"))
}

/// Asks every coordinator of this broker.
///
/// # Errors
/// None can be asked.
///
/// # Panics
/// If a coordinator answers another request than it was asked.
pub async fn ask_all<C: GroupCall>(context: &Context, call: C) -> Result<Vec<C::Answer>, GroupError> {
    let responses = context.broker.groups().call_every(call.request()).await?;
    let own = |response| C::answer(response).expect("a request is answered by its own answer");
    Ok(responses.into_iter().map(own).collect())
}

/// Asks about many groups: one request for each coordinating partition, made by `call`. `answers` gives what is said of
/// each group of one such request, in its order, and `refused` what is said where it was not answered. The outcome is
/// in the order of `groups`.
pub async fn ask_by_partition<C: GroupCall, T>(
    context: &Context,
    groups: Vec<Arc<str>>,
    call: impl Fn(Vec<Arc<str>>) -> C,
    answers: impl Fn(C::Answer) -> Vec<T>,
    refused: impl Fn(Arc<str>, GroupError) -> T,
) -> Vec<T> {
    let mut outcome: Vec<Option<T>> = Vec::with_capacity(groups.len());
    outcome.resize_with(groups.len(), || None);
    let asked = stream::iter(by_partition(&context.broker.image(), groups)).map(|(places, groups)| {
        let call = call(groups.clone());
        async move {
            // Every group of this request has the same coordinator.
            let answer = match groups.first() {
                Some(first) => ask(context, first, call).await,
                None => Err(GroupError::CoordinatorNotAvailable),
            };
            (places, groups, answer)
        }
    });
    let asked: Vec<_> = asked.buffered(ASKED_AT_ONCE).collect().await;
    for (places, groups, answer) in asked {
        let said: Vec<T> = match answer {
            Ok(answer) => answers(answer),
            Err(error) => groups.into_iter().map(|group| refused(group, error)).collect(),
        };
        assert_eq!(
            said.len(),
            places.len(),
            "the coordinator says something of each group"
        );
        for (place, said) in places.into_iter().zip(said) {
            outcome[place] = Some(said);
        }
    }
    outcome.into_iter().flatten().collect()
}

/// The groups that share a coordinator, with their places in the request.
fn by_partition(image: &Image, groups: Vec<Arc<str>>) -> Vec<(Vec<usize>, Vec<Arc<str>>)> {
    let partitions = image
        .topic(CONSUMER_OFFSETS)
        .map_or(0, |topic| topic.partitions.len());
    let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
    let mut split: BTreeMap<i32, (Vec<usize>, Vec<Arc<str>>)> = BTreeMap::new();
    for (place, group) in groups.into_iter().enumerate() {
        // Without the topic there is no coordinator: all are told so at once.
        let partition = if partitions == 0 {
            0
        } else {
            partition_for(&group, partitions)
        };
        let (places, groups) = split.entry(partition).or_default();
        places.push(place);
        groups.push(group);
    }
    split.into_values().collect()
}

/// May the caller do `operation` to the group?
#[must_use]
pub fn allows_group(context: &Context, operation: Operation, group: &str) -> bool {
    context
        .broker
        .gate()
        .allows(&context.caller(), operation, Resource::Group(group))
}

/// May the caller do `operation` to the topic?
#[must_use]
pub fn allows_topic(context: &Context, operation: Operation, topic: &str) -> bool {
    context
        .broker
        .gate()
        .allows(&context.caller(), operation, Resource::Topic(topic))
}

/// A group's name for the wire.
#[must_use]
pub fn group_id(group: &str) -> GroupId {
    GroupId(super::wire::text(group))
}

/// Partitions of one topic, each with what is known to be wrong with it.
type Verdicts = Vec<(i32, Option<ResponseError>)>;

/// Partitions of a request that changes offsets, each with the verdict that needs no coordinator.
#[derive(Debug, PartialEq, Eq)]
pub struct Judged {
    topics: Vec<(TopicName, Verdicts)>,
}

impl Judged {
    /// Judges `topics`: those that the caller may not read, and those that do not exist, are refused.
    #[must_use]
    pub fn new<'a>(
        image: &Image,
        allowed: impl Fn(&str) -> bool,
        topics: impl Iterator<Item = (&'a TopicName, Vec<i32>)>,
    ) -> Self {
        let judge = |(name, partitions): (&TopicName, Vec<i32>)| {
            let allowed = allowed(name);
            let topic = image.topic(name);
            let verdict = |partition: i32| {
                if !allowed {
                    return Some(ResponseError::TopicAuthorizationFailed);
                }
                let known = topic.and_then(|topic| topic.partition(PartitionIndex(partition)));
                if known.is_some() {
                    None
                } else {
                    Some(ResponseError::UnknownTopicOrPartition)
                }
            };
            let judged = partitions
                .into_iter()
                .map(|partition| (partition, verdict(partition)))
                .collect();
            (name.clone(), judged)
        };
        Self {
            topics: topics.map(judge).collect(),
        }
    }

    /// Is there nothing left to ask the coordinator about?
    #[must_use]
    pub fn is_decided(&self) -> bool {
        self.topics
            .iter()
            .flat_map(|(_, partitions)| partitions)
            .all(|(_, refused)| refused.is_some())
    }

    /// Which of the partitions of the `index`-th topic the coordinator is asked about, in order.
    pub fn asked(&self, index: usize) -> impl Iterator<Item = bool> + '_ {
        let partitions = self
            .topics
            .get(index)
            .map_or(&[][..], |(_, partitions)| partitions);
        partitions.iter().map(|(_, refused)| refused.is_none())
    }

    /// Fills in what the coordinator says of those that it was asked about, in the order in which it was asked.
    #[must_use]
    pub fn with(mut self, said: &[TopicErrors]) -> Self {
        let mut said = said.iter().flat_map(|topic| &topic.partitions);
        for (partition, slot) in self.open() {
            let (index, error) = said.next().expect("the coordinator answers for each partition");
            assert_eq!(
                index.get(),
                partition,
                "the coordinator keeps the order of the request"
            );
            *slot = error.map(code);
        }
        assert!(said.next().is_none(), "the coordinator answers for nothing else");
        self
    }

    /// The coordinator's one verdict on all that it would have been asked about.
    #[must_use]
    pub fn refused(mut self, error: ResponseError) -> Self {
        self.open().for_each(|(_, slot)| *slot = Some(error));
        self
    }

    /// One verdict on everything.
    #[must_use]
    pub fn all_refused(mut self, error: ResponseError) -> Self {
        let all = self.topics.iter_mut().flat_map(|(_, partitions)| partitions);
        all.for_each(|(_, slot)| *slot = Some(error));
        self
    }

    fn open(&mut self) -> impl Iterator<Item = (i32, &mut Option<ResponseError>)> {
        let all = self.topics.iter_mut().flat_map(|(_, partitions)| partitions);
        all.filter(|(_, slot)| slot.is_none())
            .map(|(partition, slot)| (*partition, slot))
    }

    /// The answer: topics with the numbers of their partitions and what became of them.
    pub fn into_codes(self) -> impl Iterator<Item = (TopicName, Vec<(i32, i16)>)> {
        self.topics.into_iter().map(|(name, partitions)| {
            (
                name,
                partitions
                    .into_iter()
                    .map(|(partition, error)| (partition, number(error)))
                    .collect(),
            )
        })
    }
}

/// What the tests of the group APIs share.
#[cfg(test)]
pub mod testing {
    use bytes::BytesMut;
    use kafka_protocol::protocol::{Decodable, Encodable};

    /// The message as the other side reads it. Panics where `version` has no place for something in it.
    pub fn round_trip<M: Encodable + Decodable>(version: i16, message: &M) -> M {
        let mut buf = BytesMut::new();
        if let Err(error) = message.encode(&mut buf, version) {
            panic!("version {version}: {error}");
        }
        let mut bytes = buf.freeze();
        let seen = M::decode(&mut bytes, version).unwrap();
        assert!(
            bytes.is_empty(),
            "version {version}: {} bytes are left",
            bytes.len()
        );
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::image;
    use crate::kafka::wire::topic_name;

    #[test]
    fn every_error_has_the_number_that_its_documentation_says() {
        use GroupError::*;
        let all = [
            (CoordinatorLoadInProgress, 14),
            (CoordinatorNotAvailable, 15),
            (NotCoordinator, 16),
            (OffsetMetadataTooLarge, 12),
            (IllegalGeneration, 22),
            (InconsistentGroupProtocol, 23),
            (InvalidGroupId, 24),
            (UnknownMemberId, 25),
            (InvalidSessionTimeout, 26),
            (RebalanceInProgress, 27),
            (InvalidCommitOffsetSize, 28),
            (NonEmptyGroup, 68),
            (GroupIdNotFound, 69),
            (MemberIdRequired, 79),
            (GroupMaxSizeReached, 81),
            (FencedInstanceId, 82),
            (GroupSubscribedToTopic, 86),
            (UnstableOffsetCommit, 88),
            (UnknownServerError, -1),
        ];
        for (error, number) in all {
            assert_eq!(verdict(Some(error)), number, "{error}");
        }
        assert_eq!(verdict(None), 0);
    }

    #[test]
    fn hosts_are_written_as_java_writes_them() {
        let host = |address: &str| client_host(address.parse().unwrap());
        assert_eq!(&*host("127.0.0.1"), "/127.0.0.1");
        assert_eq!(&*host("::1"), "/0:0:0:0:0:0:0:1");
        assert_eq!(&*host("::ffff:10.0.0.7"), "/10.0.0.7");
        assert_eq!(&*host("fe80::1c"), "/fe80:0:0:0:0:0:0:1c");
    }

    #[test]
    fn partitions_that_nobody_has_are_refused_and_the_coordinator_judges_the_rest() {
        let image = image(&[("a", 2), ("secret", 1)]);
        let names = ["a", "nowhere", "secret"].map(topic_name);
        let partitions = [vec![1, 2, -1, 0], vec![0], vec![0]];
        let judged = || {
            Judged::new(
                &image,
                |name| name != "secret",
                names.iter().zip(partitions.clone()),
            )
        };
        assert!(!judged().is_decided());
        assert_eq!(judged().asked(0).collect::<Vec<_>>(), [true, false, false, true]);
        let codes = |judged: Judged| {
            let show = |(name, partitions): (TopicName, Vec<(i32, i16)>)| format!("{} {partitions:?}", *name);
            judged.into_codes().map(show).collect::<Vec<_>>()
        };
        let said = TopicErrors {
            name: "a".into(),
            partitions: vec![
                (PartitionIndex(1), None),
                (PartitionIndex(0), Some(GroupError::OffsetMetadataTooLarge)),
            ],
        };
        assert_eq!(
            codes(judged().with(&[said])),
            [
                "a [(1, 0), (2, 3), (-1, 3), (0, 12)]",
                "nowhere [(0, 3)]",
                "secret [(0, 29)]"
            ]
        );
        assert_eq!(
            codes(judged().refused(ResponseError::NotCoordinator)),
            [
                "a [(1, 16), (2, 3), (-1, 3), (0, 16)]",
                "nowhere [(0, 3)]",
                "secret [(0, 29)]"
            ]
        );
    }

    #[test]
    fn groups_are_asked_about_together_where_one_partition_has_them() {
        let image = image(&[(CONSUMER_OFFSETS, 2)]);
        // "a" is 97 and "b" 98 in Java's hash.
        let groups = ["a", "b", "c", "a"].map(Arc::from).to_vec();
        let split = by_partition(&image, groups.clone());
        let show: Vec<String> = split
            .iter()
            .map(|(places, groups)| format!("{places:?} {groups:?}"))
            .collect();
        assert_eq!(show, [r#"[1] ["b"]"#, r#"[0, 2, 3] ["a", "c", "a"]"#]);
        let nowhere = by_partition(&crate::kafka::api::testing::image(&[]), groups);
        assert_eq!(nowhere.len(), 1);
    }
}
