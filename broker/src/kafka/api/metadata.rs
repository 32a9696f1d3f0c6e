//! Metadata (3), v0-v13. v1 tells the controller, and an empty list of topics becomes "none" instead of "all"; v2 the
//! cluster's id, v4 lets the client forbid creation (KIP-204), v7 leader epochs (KIP-320), v8 authorised operations
//! (KIP-430; those of the cluster go again in v11, KIP-700), v10 topic ids, v12 asking by id (KIP-516), v13 an error of
//! the whole (KIP-1102).
//!
//! A topic that is made because a client asks for it can be used when the answer arrives. Kafka answers
//! UNKNOWN_TOPIC_OR_PARTITION first and lets the client ask again.

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{self, MetadataRequest, MetadataResponse, TopicName};
use skerry_metadata_state::{Image, Partition, Topic};
use skerry_types::{BrokerId, Uuid, sometimes};

use crate::broker::Broker;
use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};
use crate::topics::{self, ChangeError};

api!(Metadata, 0..=13, MetadataRequest, handle);

/// Topics that are made at a time: they share the quorum's syncs.
const CREATED_AT_ONCE: usize = 16;

/// Which topics a request asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    Named(BTreeSet<String>),
    WithIds(BTreeSet<Uuid>),
}

/// What is answered for a name that has no topic.
type Missing = BTreeMap<String, ResponseError>;

async fn handle(context: Context, version: i16, request: MetadataRequest) -> MetadataResponse {
    let broker = &context.broker;
    let Ok(mut wanted) = wanted(version, &request) else {
        return refused(version, &request);
    };
    let caller = context.caller();
    let allows = |operation, name: &str| broker.gate().allows(&caller, operation, Resource::Topic(name));
    let mut missing = Missing::new();
    if let Wanted::Named(names) = &mut wanted {
        missing = split(
            names,
            |name| allows(Operation::Describe, name),
            ResponseError::TopicAuthorizationFailed,
        );
        let mut unknown = unknown_names(&broker.image(), names);
        let is_made = |name: &String| broker.quorum().image().topic(name).is_some();
        sometimes("topic-not-shown-yet", unknown.iter().any(is_made));
        if request.allow_auto_topic_creation && !unknown.is_empty() && creates_topics(broker) {
            let create = |name: &str| allows(Operation::Create, name);
            missing.extend(split(
                &mut unknown,
                create,
                ResponseError::TopicAuthorizationFailed,
            ));
            missing.extend(create_all(broker, unknown).await);
        }
    }
    let image = broker.image();
    let view = View {
        image: &image,
        me: broker.id(),
        version,
    };
    let mut response = view.answer(&wanted, &missing);
    if let Wanted::All = wanted {
        response.topics.retain(|topic| {
            topic
                .name
                .as_ref()
                .is_some_and(|name| allows(Operation::Describe, name))
        });
    }
    if request.include_topic_authorized_operations {
        for topic in &mut response.topics {
            topic.topic_authorized_operations = wire::TOPIC_OPERATIONS;
        }
    }
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = wire::CLUSTER_OPERATIONS;
    }
    response
}

/// Ids before they are allowed, and null names before there are ids, are refused.
fn wanted(version: i16, request: &MetadataRequest) -> Result<Wanted, ResponseError> {
    let Some(topics) = &request.topics else {
        return Ok(Wanted::All);
    };
    if version == 0 && topics.is_empty() {
        return Ok(Wanted::All);
    }
    if version < 12
        && topics
            .iter()
            .any(|topic| topic.name.is_none() || !topic.topic_id.is_nil())
    {
        return Err(ResponseError::InvalidRequest);
    }
    let ids: BTreeSet<Uuid> = topics
        .iter()
        .filter(|topic| !topic.topic_id.is_nil())
        .map(|topic| wire::id(topic.topic_id))
        .collect();
    if !ids.is_empty() {
        return Ok(Wanted::WithIds(ids));
    }
    // A null name without an id names nothing; Kafka answers it as the empty name.
    let name = |name: &Option<TopicName>| name.as_ref().map_or_else(String::new, |name| name.to_string());
    Ok(Wanted::Named(
        topics.iter().map(|topic| name(&topic.name)).collect(),
    ))
}

/// Kafka's `MetadataRequest.getErrorResponse`.
fn refused(version: i16, request: &MetadataRequest) -> MetadataResponse {
    let code = ResponseError::InvalidRequest.code();
    let topics = request.topics.iter().flatten().map(|topic| {
        MetadataResponseTopic::default()
            .with_error_code(code)
            .with_name(Some(topic.name.clone().unwrap_or_default()))
            .with_topic_id(topic.topic_id)
    });
    let mut response = MetadataResponse::default().with_topics(topics.collect());
    if version >= 13 {
        response.error_code = code;
    }
    response
}

/// Takes the names out of `names` that are not allowed, and answers them with `code`.
fn split(names: &mut BTreeSet<String>, allowed: impl Fn(&str) -> bool, code: ResponseError) -> Missing {
    let refused: Missing = names
        .iter()
        .filter(|name| !allowed(name))
        .map(|name| (name.clone(), code))
        .collect();
    names.retain(|name| !refused.contains_key(name));
    refused
}

fn unknown_names(image: &Image, names: &BTreeSet<String>) -> BTreeSet<String> {
    let unknown = |name: &&String| image.topic(name).is_none() && topics::validate_name(name).is_ok();
    names.iter().filter(unknown).cloned().collect()
}

fn creates_topics(broker: &Broker) -> bool {
    broker.settings().broker().auto_create_topics
}

/// Makes the topics, and tells which could not be made.
async fn create_all(broker: &Broker, names: BTreeSet<String>) -> Missing {
    let made = names.into_iter().map(|name| async move {
        let code = match topics::ensure(broker, &name).await {
            Ok(()) => return None,
            // The client asks again, and the quorum may answer then.
            Err(ChangeError::Unavailable(_) | ChangeError::DiskNearlyFull { .. }) => {
                ResponseError::LeaderNotAvailable
            }
            Err(error) => ApiError::from(error).code,
        };
        Some((name, code))
    });
    wire::in_order(made, CREATED_AT_ONCE)
        .await
        .into_iter()
        .flatten()
        .collect()
}

/// The metadata as an answer of one version shows it.
struct View<'a> {
    image: &'a Image,
    me: BrokerId,
    version: i16,
}

impl View<'_> {
    fn answer(&self, wanted: &Wanted, missing: &Missing) -> MetadataResponse {
        let topics = match wanted {
            Wanted::All => self.image.topics().map(|topic| self.topic(topic)).collect(),
            Wanted::Named(names) => {
                let mut topics: BTreeMap<&str, MetadataResponseTopic> = missing
                    .iter()
                    .map(|(name, code)| (name.as_str(), self.missing(name, *code)))
                    .collect();
                for name in names {
                    topics.entry(name).or_insert_with(|| self.named(name));
                }
                topics.into_values().collect()
            }
            Wanted::WithIds(ids) => ids.iter().map(|id| self.with_id(*id)).collect(),
        };
        let mut response = MetadataResponse::default()
            .with_brokers(self.brokers())
            .with_cluster_id(self.image.cluster_id().map(|id| wire::text(&id.to_string())))
            .with_topics(topics);
        // Any broker passes a change on to the quorum's leader: the one that was asked saves a connection.
        let controller = if self.image.is_unfenced(self.me) {
            Some(self.me)
        } else {
            self.image.unfenced_brokers().next().map(|broker| broker.id)
        };
        response.controller_id = messages::BrokerId(controller.unwrap_or(BrokerId::NONE).get());
        response
    }

    /// Those that take part; where nobody does, all that are registered. Kafka names nobody then: the Java client
    /// ignores such an answer, and librdkafka from 2.10 on gives up every address that it has, those of
    /// `bootstrap.servers` too, and never connects again (librdkafka issue 5301).
    fn brokers(&self) -> Vec<MetadataResponseBroker> {
        let planted = skerry_types::is_planted("fenced-nodes-name-nobody");
        let nobody_takes_part = self.image.unfenced_brokers().next().is_none() && !planted;
        self.image
            .brokers()
            .filter(|broker| nobody_takes_part || !broker.fenced)
            .map(|broker| self.broker(broker))
            .collect()
    }

    fn broker(&self, broker: &skerry_metadata_state::Broker) -> MetadataResponseBroker {
        MetadataResponseBroker::default()
            .with_node_id(messages::BrokerId(broker.id.get()))
            .with_host(wire::text(&broker.kafka.host))
            .with_port(i32::from(broker.kafka.port))
            .with_rack(broker.rack.as_deref().map(wire::text))
    }

    fn named(&self, name: &str) -> MetadataResponseTopic {
        match self.image.topic(name) {
            Some(topic) => self.topic(topic),
            None if topics::validate_name(name).is_err() => {
                self.missing(name, ResponseError::InvalidTopicException)
            }
            None => self.missing(name, ResponseError::UnknownTopicOrPartition),
        }
    }

    fn with_id(&self, id: Uuid) -> MetadataResponseTopic {
        match self.image.topic_by_id(id) {
            Some(topic) => self.topic(topic),
            None => MetadataResponseTopic::default()
                .with_error_code(ResponseError::UnknownTopicId.code())
                .with_name(None)
                .with_topic_id(wire::uuid(id)),
        }
    }

    fn missing(&self, name: &str, code: ResponseError) -> MetadataResponseTopic {
        MetadataResponseTopic::default()
            .with_error_code(code.code())
            .with_name(Some(wire::topic_name(name)))
            .with_is_internal(topics::is_internal(name))
    }

    fn topic(&self, topic: &Topic) -> MetadataResponseTopic {
        let partitions = topic
            .partitions
            .iter()
            .zip(0..)
            .map(|(partition, index)| self.partition(index, partition));
        let mut answer = MetadataResponseTopic::default()
            .with_name(Some(wire::topic_name(&topic.name)))
            .with_is_internal(topics::is_internal(&topic.name))
            .with_partitions(partitions.collect());
        if self.version >= 10 {
            answer.topic_id = wire::uuid(topic.id);
        }
        answer
    }

    fn partition(&self, index: i32, partition: &Partition) -> MetadataResponsePartition {
        let leader = partition.leader.filter(|leader| self.image.is_unfenced(*leader));
        let mut answer = MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(messages::BrokerId(leader.unwrap_or(BrokerId::NONE).get()))
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr));
        if leader.is_none() {
            answer.error_code = ResponseError::LeaderNotAvailable.code();
        }
        if self.version >= 5 {
            answer.offline_replicas = offline(self.image, partition);
        }
        if self.version >= 7 {
            answer.leader_epoch = partition.leader_epoch.get();
        }
        answer
    }
}

/// Broker numbers for the wire.
pub(super) fn ids(brokers: &[BrokerId]) -> Vec<messages::BrokerId> {
    brokers
        .iter()
        .map(|broker| messages::BrokerId(broker.get()))
        .collect()
}

/// The replicas whose broker does not take part, or cannot open its copy.
pub(super) fn offline(image: &Image, partition: &Partition) -> Vec<messages::BrokerId> {
    let offline: Vec<BrokerId> = partition
        .replicas
        .iter()
        .copied()
        .filter(|replica| !image.is_unfenced(*replica) || partition.offline.contains(replica))
        .collect();
    ids(&offline)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

    use super::*;
    use crate::kafka::api::testing::{ME, encodes, fenced, image, with_broker};

    fn asked(topics: Option<Vec<MetadataRequestTopic>>) -> MetadataRequest {
        MetadataRequest::default().with_topics(topics)
    }

    fn named(name: &str) -> MetadataRequestTopic {
        MetadataRequestTopic::default().with_name(Some(wire::topic_name(name)))
    }

    fn names(names: &[&str]) -> Wanted {
        Wanted::Named(names.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn null_is_all_and_empty_is_none_but_in_version_0() {
        assert_eq!(wanted(0, &asked(Some(vec![]))), Ok(Wanted::All));
        for version in 1..=13 {
            assert_eq!(wanted(version, &asked(None)), Ok(Wanted::All));
            assert_eq!(wanted(version, &asked(Some(vec![]))), Ok(names(&[])));
        }
    }

    #[test]
    fn ids_are_for_version_12_and_later() {
        let id = Uuid([7; 16]);
        let by_id = || {
            asked(Some(vec![
                MetadataRequestTopic::default()
                    .with_name(None)
                    .with_topic_id(wire::uuid(id)),
            ]))
        };
        for version in 10..12 {
            assert_eq!(wanted(version, &by_id()), Err(ResponseError::InvalidRequest));
            let answer = refused(version, &by_id());
            assert_eq!(answer.topics[0].error_code, ResponseError::InvalidRequest.code());
            encodes(version, &answer);
        }
        assert_eq!(wanted(12, &by_id()), Ok(Wanted::WithIds(BTreeSet::from([id]))));
        assert_eq!(
            wanted(9, &asked(Some(vec![named("b"), named("a"), named("b")]))),
            Ok(names(&["a", "b"]))
        );
    }

    #[test]
    fn every_version_tells_what_it_can() {
        let image = image(&[("a", 2), ("__consumer_offsets", 1)]);
        for version in 0..=13 {
            let view = View {
                image: &image,
                me: ME,
                version,
            };
            let answer = view.answer(&Wanted::All, &Missing::new());
            let names: Vec<_> = answer
                .topics
                .iter()
                .map(|topic| topic.name.as_ref().unwrap().to_string())
                .collect();
            assert_eq!(names, ["__consumer_offsets", "a"]);
            assert!(answer.topics[0].is_internal);
            assert_eq!(answer.topics[1].partitions.len(), 2);
            assert_eq!(answer.topics[1].partitions[1].leader_id.0, ME.get());
            assert_eq!(answer.topics[1].topic_id.is_nil(), version < 10);
            assert_eq!((answer.brokers.len(), answer.controller_id.0), (1, ME.get()));
            assert!(answer.cluster_id.is_some(), "null breaks clients");
            encodes(version, &answer);
        }
    }

    #[test]
    fn what_is_not_there_is_answered_at_its_own_level() {
        let image = image(&[("a", 1)]);
        let view = View {
            image: &image,
            me: ME,
            version: 12,
        };
        let missing = Missing::from([("c".to_owned(), ResponseError::LeaderNotAvailable)]);
        let answer = view.answer(&names(&["a", "b", "b c", "c"]), &missing);
        let codes: Vec<_> = answer.topics.iter().map(|topic| topic.error_code).collect();
        assert_eq!(codes, [0, 3, 17, 5]);
        let answer = view.answer(&Wanted::WithIds(BTreeSet::from([Uuid([9; 16])])), &Missing::new());
        assert_eq!(
            (answer.topics[0].error_code, &answer.topics[0].name),
            (100, &None)
        );
        encodes(12, &answer);
    }

    #[test]
    fn a_partition_without_a_live_leader_says_so() {
        let fenced = fenced(&image(&[("a", 1)]));
        let view = View {
            image: &fenced,
            me: ME,
            version: 9,
        };
        let answer = view.answer(&names(&["a"]), &Missing::new());
        let partition = &answer.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.leader_id.0), (5, -1));
        assert_eq!(partition.offline_replicas, [messages::BrokerId(ME.get())]);
        assert_eq!(answer.controller_id.0, -1);
    }

    #[test]
    fn fenced_brokers_are_named_where_there_are_no_others() {
        let both = with_broker(&image(&[("a", 1)]), BrokerId(ME.get() + 1));
        let ids = |image: &Image| {
            let view = View {
                image,
                me: ME,
                version: 13,
            };
            let answer = view.answer(&Wanted::All, &Missing::new());
            encodes(13, &answer);
            let ids = answer.brokers.iter().map(|broker| broker.node_id.0);
            ids.collect::<Vec<_>>()
        };
        assert_eq!(ids(&both), [ME.get(), ME.get() + 1]);
        let one_left = fenced(&both);
        assert_eq!(ids(&one_left), [ME.get() + 1]);
        let alone_and_fenced = fenced(&image(&[("a", 1)]));
        assert_eq!(ids(&alone_and_fenced), [ME.get()]);
    }
}
