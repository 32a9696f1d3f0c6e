//! DescribeTopicPartitions (75), v0: metadata of topics page by page, with eligible leader replicas (KIP-966).

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{self, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};
use skerry_metadata_state::{Image, Partition, Topic};
use skerry_types::BrokerId;

use super::metadata::{ids, offline};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire;
use crate::topics;

api!(
    DescribeTopicPartitions,
    0..=0,
    DescribeTopicPartitionsRequest,
    handle
);

async fn handle(
    context: Context,
    _version: i16,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let partitions_max = context.broker.settings().broker().max_request_partitions;
    answer(&context.broker.image(), partitions_max, &request)
}

fn answer(
    image: &Image,
    partitions_max: i32,
    request: &DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let (first_name, first_partition) = match &request.cursor {
        Some(cursor) if cursor.partition_index < 0 => return refused(request),
        Some(cursor) => (
            cursor.topic_name.as_str(),
            usize::try_from(cursor.partition_index).unwrap_or(0),
        ),
        None => ("", 0),
    };
    let limit = partitions_max.min(request.response_partition_limit).max(1);
    let mut page = Page {
        image,
        response: DescribeTopicPartitionsResponse::default(),
        room: usize::try_from(limit).unwrap_or(1),
    };
    let start = |name: &str| if name == first_name { first_partition } else { 0 };
    if request.topics.is_empty() {
        for topic in image.topics_from(first_name) {
            if !page.topic(topic, start(&topic.name)) {
                break;
            }
        }
        return page.response;
    }
    let names: BTreeSet<&str> = request
        .topics
        .iter()
        .map(|topic| topic.name.as_str())
        .filter(|name| *name >= first_name)
        .collect();
    if request.cursor.is_some() && !names.contains(first_name) {
        return refused(request);
    }
    for name in names {
        let goes_on = match image.topic(name) {
            Some(topic) => page.topic(topic, start(name)),
            None => page.missing(name),
        };
        if !goes_on {
            break;
        }
    }
    page.response
}

/// Kafka's `DescribeTopicPartitionsRequest.getErrorResponse`.
fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request.topics.iter().map(|topic| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_name(Some(topic.name.clone()))
    });
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

struct Page<'a> {
    image: &'a Image,
    response: DescribeTopicPartitionsResponse,
    room: usize,
}

impl Page<'_> {
    /// Adds a topic's partitions from `first` on; false when the page is full.
    fn topic(&mut self, topic: &Topic, first: usize) -> bool {
        if self.is_full(&topic.name) {
            return false;
        }
        let rest = topic.partitions.iter().enumerate().skip(first).take(self.room);
        let partitions: Vec<_> = rest
            .map(|(index, partition)| self.partition(index, partition))
            .collect();
        self.room -= partitions.len();
        let next = first.saturating_add(partitions.len());
        self.response.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_name(Some(wire::topic_name(&topic.name)))
                .with_topic_id(wire::uuid(topic.id))
                .with_is_internal(topics::is_internal(&topic.name))
                .with_topic_authorized_operations(wire::TOPIC_OPERATIONS)
                .with_partitions(partitions),
        );
        if next < topic.partitions.len() {
            self.continue_at(&topic.name, next);
            return false;
        }
        true
    }

    fn missing(&mut self, name: &str) -> bool {
        if self.is_full(name) {
            return false;
        }
        let code = match topics::validate_name(name) {
            Ok(()) => ResponseError::UnknownTopicOrPartition,
            Err(_) => ResponseError::InvalidTopicException,
        };
        self.response.topics.push(
            DescribeTopicPartitionsResponseTopic::default()
                .with_error_code(code.code())
                .with_name(Some(wire::topic_name(name)))
                .with_is_internal(topics::is_internal(name))
                .with_topic_authorized_operations(wire::TOPIC_OPERATIONS),
        );
        true
    }

    fn is_full(&mut self, next: &str) -> bool {
        let full = self.room == 0;
        if full {
            self.continue_at(next, 0);
        }
        full
    }

    fn continue_at(&mut self, name: &str, partition: usize) {
        self.response.next_cursor = Some(
            Cursor::default()
                .with_topic_name(wire::topic_name(name))
                .with_partition_index(i32::try_from(partition).unwrap_or(i32::MAX)),
        );
    }

    fn partition(&self, index: usize, partition: &Partition) -> DescribeTopicPartitionsResponsePartition {
        let leader = partition.leader.filter(|leader| self.image.is_unfenced(*leader));
        let code = if leader.is_none() {
            ResponseError::LeaderNotAvailable.code()
        } else {
            0
        };
        DescribeTopicPartitionsResponsePartition::default()
            .with_error_code(code)
            .with_partition_index(i32::try_from(index).unwrap_or(i32::MAX))
            .with_leader_id(messages::BrokerId(leader.unwrap_or(BrokerId::NONE).get()))
            .with_leader_epoch(partition.leader_epoch.get())
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
            .with_eligible_leader_replicas(Some(ids(&partition.elr)))
            // Whoever led last stays in `elr` here: there is no one to add.
            .with_last_known_elr(Some(Vec::new()))
            .with_offline_replicas(offline(self.image, partition))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_topic_partitions_request::{self as request, TopicRequest};

    use super::*;
    use crate::kafka::api::testing::{encodes, image};

    fn asked(names: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> DescribeTopicPartitionsRequest {
        let cursor = cursor.map(|(name, partition)| {
            request::Cursor::default()
                .with_topic_name(wire::topic_name(name))
                .with_partition_index(partition)
        });
        DescribeTopicPartitionsRequest::default()
            .with_topics(
                names
                    .iter()
                    .map(|name| TopicRequest::default().with_name(wire::topic_name(name)))
                    .collect(),
            )
            .with_response_partition_limit(limit)
            .with_cursor(cursor)
    }

    /// The answer as `topic[partitions] error ... next topic/partition`.
    fn told(image: &Image, request: &DescribeTopicPartitionsRequest) -> String {
        let response = answer(image, 2000, request);
        encodes(0, &response);
        let topics = response.topics.iter().map(|topic| {
            let partitions: Vec<_> = topic
                .partitions
                .iter()
                .map(|partition| partition.partition_index)
                .collect();
            format!(
                "{}{partitions:?} {}",
                topic.name.as_ref().unwrap().as_str(),
                topic.error_code
            )
        });
        let mut told = topics.collect::<Vec<_>>().join("; ");
        if let Some(cursor) = response.next_cursor {
            told += &format!("; next {}/{}", cursor.topic_name.as_str(), cursor.partition_index);
        }
        told
    }

    #[test]
    fn topics_come_sorted_page_by_page() {
        let image = image(&[("b", 3), ("a", 2), ("c", 1)]);
        assert_eq!(
            told(&image, &asked(&[], 2000, None)),
            "a[0, 1] 0; b[0, 1, 2] 0; c[0] 0"
        );
        assert_eq!(told(&image, &asked(&[], 3, None)), "a[0, 1] 0; b[0] 0; next b/1");
        assert_eq!(told(&image, &asked(&[], 3, Some(("b", 1)))), "b[1, 2] 0; c[0] 0");
        assert_eq!(told(&image, &asked(&[], 2, None)), "a[0, 1] 0; next b/0");
        assert_eq!(told(&image, &asked(&[], 0, None)), "a[0] 0; next a/1");
        assert_eq!(
            told(&image, &asked(&["c", "a", "c"], 2000, None)),
            "a[0, 1] 0; c[0] 0"
        );
        assert_eq!(told(&image, &asked(&["b", "a"], 2000, Some(("b", 2)))), "b[2] 0");
        assert_eq!(told(&image, &asked(&["b"], 2000, Some(("b", 99)))), "b[] 0");
    }

    #[test]
    fn what_is_not_there_has_its_error() {
        let image = image(&[("a", 1)]);
        assert_eq!(
            told(&image, &asked(&["a", "x", "x y"], 2000, None)),
            "a[0] 0; x[] 3; x y[] 17"
        );
        assert_eq!(told(&image, &asked(&["a"], 2000, Some(("zzz", 0)))), "a[] 42");
        assert_eq!(told(&image, &asked(&["a"], 2000, Some(("a", -1)))), "a[] 42");
    }
}
