//! OffsetCommit (8), v2-v9. Up to v4 the committer says how long the offset is kept (KIP-211), v6 brings the epoch of
//! the last record (KIP-320), v7 static members (KIP-345), v8 is flexible (KIP-482), v9 is for KIP-848 and names an
//! unknown group. v10 (topic ids, KIP-848) is not in the schemas that this broker is built from.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};
use skerry_coordinator::{CommitPartition, CommitRequest, CommitTopic};
use skerry_metadata_state::Image;
use skerry_types::{LeaderEpoch, Offset, PartitionIndex};

use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::group_wire::{self, Judged, allows_group, allows_topic, owned, owned_option};

api!(OffsetCommit, 2..=9, OffsetCommitRequest, handle);

async fn handle(context: Context, version: i16, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let image = context.broker.image();
    let judged = judge(&image, &request, |topic| {
        allows_topic(&context, Operation::Read, topic)
    });
    if !allows_group(&context, Operation::Read, &request.group_id) {
        // Kafka's answer says this and nothing else, of topics that do not exist too.
        return write(judge(&image, &request, |_| true).all_refused(ResponseError::GroupAuthorizationFailed));
    }
    if judged.is_decided() {
        return write(judged);
    }
    let call = read(version, &image, &request, &judged);
    write(match group_wire::ask(&context, &request.group_id, call).await {
        Ok(committed) => judged.with(&committed.topics),
        Err(error) => judged.refused(group_wire::code(error)),
    })
}

fn judge(image: &Image, request: &OffsetCommitRequest, allowed: impl Fn(&str) -> bool) -> Judged {
    let topics = request.topics.iter().map(|topic| {
        (
            &topic.name,
            topic
                .partitions
                .iter()
                .map(|partition| partition.partition_index)
                .collect(),
        )
    });
    Judged::new(image, allowed, topics)
}

/// What is left to ask.
fn read(version: i16, image: &Image, request: &OffsetCommitRequest, judged: &Judged) -> CommitRequest {
    let topic = |(index, topic): (usize, &OffsetCommitRequestTopic)| {
        let asked = topic
            .partitions
            .iter()
            .zip(judged.asked(index))
            .filter(|(_, asked)| *asked);
        let partitions = asked.map(|(partition, _)| CommitPartition {
            partition: PartitionIndex(partition.partition_index),
            offset: Offset(partition.committed_offset),
            leader_epoch: LeaderEpoch(partition.committed_leader_epoch),
            metadata: owned_option(partition.committed_metadata.as_ref()),
        });
        CommitTopic {
            id: image.topic(&topic.name).map(|topic| topic.id),
            name: owned(&topic.name),
            partitions: partitions.collect(),
        }
    };
    let topics = request
        .topics
        .iter()
        .enumerate()
        .map(topic)
        .filter(|topic| !topic.partitions.is_empty());
    CommitRequest {
        version,
        group_id: owned(&request.group_id),
        generation_id: request.generation_id_or_member_epoch,
        member_id: owned(&request.member_id),
        group_instance_id: owned_option(request.group_instance_id.as_ref()),
        retention_time_ms: request.retention_time_ms,
        topics: topics.collect(),
    }
}

fn write(judged: Judged) -> OffsetCommitResponse {
    let topics = judged.into_codes().map(|(name, partitions)| {
        let partitions = partitions.into_iter().map(|(partition, code)| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition)
                .with_error_code(code)
        });
        OffsetCommitResponseTopic::default()
            .with_name(name)
            .with_partitions(partitions.collect())
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestPartition;
    use skerry_coordinator::TopicErrors;

    use super::*;
    use crate::kafka::api::testing::image;
    use crate::kafka::group_wire::testing::round_trip;
    use crate::kafka::wire;

    fn request(version: i16) -> OffsetCommitRequest {
        let partition = |index: i32, metadata: Option<&str>| {
            let mut partition = OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(i64::from(index) + 40)
                .with_committed_metadata(metadata.map(wire::text));
            if version >= 6 {
                partition.committed_leader_epoch = 5;
            }
            partition
        };
        let topic = |name: &str, partitions: Vec<OffsetCommitRequestPartition>| {
            OffsetCommitRequestTopic::default()
                .with_name(wire::topic_name(name))
                .with_partitions(partitions)
        };
        let mut request = OffsetCommitRequest::default()
            .with_group_id(group_wire::group_id("g"))
            .with_generation_id_or_member_epoch(3)
            .with_member_id(wire::text("m"))
            .with_topics(vec![
                topic("nowhere", vec![partition(0, None)]),
                topic(
                    "a",
                    vec![partition(7, None), partition(1, Some("kept")), partition(0, None)],
                ),
            ]);
        if version <= 4 {
            request.retention_time_ms = 9_000;
        }
        if version >= 7 {
            request.group_instance_id = Some(wire::text("i"));
        }
        round_trip(version, &request)
    }

    #[test]
    fn the_coordinator_hears_of_what_exists() {
        let image = image(&[("a", 2)]);
        let mut all = String::new();
        for version in 2..=9 {
            let request = request(version);
            let call = read(version, &image, &request, &judge(&image, &request, |_| true));
            assert_eq!(
                (
                    call.version,
                    &*call.group_id,
                    call.generation_id,
                    &*call.member_id
                ),
                (version, "g", 3, "m")
            );
            all += &format!(
                "v{version}: instance {:?} kept {}",
                call.group_instance_id.as_deref(),
                call.retention_time_ms
            );
            for topic in &call.topics {
                assert_eq!(topic.id, image.topic(&topic.name).map(|topic| topic.id));
                for partition in &topic.partitions {
                    let CommitPartition {
                        partition,
                        offset,
                        leader_epoch,
                        metadata,
                    } = partition;
                    all += &format!(
                        ", {}-{partition} {offset} {leader_epoch} {metadata:?}",
                        topic.name
                    );
                }
            }
            all.push('\n');
        }
        expect![[r#"
            v2: instance None kept 9000, a-1 41 -1 Some("kept"), a-0 40 -1 None
            v3: instance None kept 9000, a-1 41 -1 Some("kept"), a-0 40 -1 None
            v4: instance None kept 9000, a-1 41 -1 Some("kept"), a-0 40 -1 None
            v5: instance None kept -1, a-1 41 -1 Some("kept"), a-0 40 -1 None
            v6: instance None kept -1, a-1 41 5 Some("kept"), a-0 40 5 None
            v7: instance Some("i") kept -1, a-1 41 5 Some("kept"), a-0 40 5 None
            v8: instance Some("i") kept -1, a-1 41 5 Some("kept"), a-0 40 5 None
            v9: instance Some("i") kept -1, a-1 41 5 Some("kept"), a-0 40 5 None
        "#]]
        .assert_eq(&all);
    }

    #[test]
    fn every_version_hears_what_became_of_each_partition() {
        let image = image(&[("a", 2)]);
        let said = TopicErrors {
            name: "a".into(),
            partitions: vec![
                (PartitionIndex(1), None),
                (
                    PartitionIndex(0),
                    Some(skerry_coordinator::GroupError::OffsetMetadataTooLarge),
                ),
            ],
        };
        for version in 2..=9 {
            let request = request(version);
            let judged = judge(&image, &request, |_| true).with(std::slice::from_ref(&said));
            let seen: OffsetCommitResponse = round_trip(version, &write(judged));
            let codes = |topic: &OffsetCommitResponseTopic| -> Vec<(i32, i16)> {
                topic
                    .partitions
                    .iter()
                    .map(|partition| (partition.partition_index, partition.error_code))
                    .collect()
            };
            assert_eq!(
                seen.topics
                    .iter()
                    .map(|topic| topic.name.as_str())
                    .collect::<Vec<_>>(),
                ["nowhere", "a"]
            );
            assert_eq!(codes(&seen.topics[0]), [(0, 3)]);
            assert_eq!(codes(&seen.topics[1]), [(7, 3), (1, 0), (0, 12)]);
        }
    }
}
