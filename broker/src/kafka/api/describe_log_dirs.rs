//! DescribeLogDirs (35), v1-v4 (KIP-113). v3 has an error of the whole, v4 the disk's size (KIP-827).

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use crate::broker::Broker;
use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire;

api!(DescribeLogDirs, 1..=4, DescribeLogDirsRequest, handle);

async fn handle(context: Context, version: i16, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let broker = &context.broker;
    if !broker
        .gate()
        .allows(&context.caller(), Operation::Describe, Resource::Cluster)
    {
        let response = DescribeLogDirsResponse::default();
        let code = ResponseError::ClusterAuthorizationFailed.code();
        return if version >= 3 {
            response.with_error_code(code)
        } else {
            response
        };
    }
    let dir = broker.partitions().log_dir().to_path_buf();
    let absolute = std::path::absolute(&dir).unwrap_or_else(|_| dir.clone());
    let mut result =
        DescribeLogDirsResult::default().with_log_dir(wire::text(&absolute.display().to_string()));
    let disk = broker.env().disk.clone();
    match broker.env().tasks.run_blocking(move || disk.space(&dir)).await {
        Ok(space) => {
            result.topics = topics(&wanted(&request), sizes(broker));
            if version >= 4 {
                result.total_bytes = i64::try_from(space.total_bytes).unwrap_or(i64::MAX);
                result.usable_bytes = i64::try_from(space.available_bytes).unwrap_or(i64::MAX);
            }
        }
        Err(error) => {
            tracing::warn!(%error, "cannot tell how full the disk is");
            result.error_code = ResponseError::KafkaStorageError.code();
        }
    }
    DescribeLogDirsResponse::default().with_results(vec![result])
}

/// The partitions that a request names; `None` for all.
type Wanted = Option<BTreeSet<(String, i32)>>;

fn wanted(request: &DescribeLogDirsRequest) -> Wanted {
    let topics = request.topics.as_ref()?;
    let named = |topic: &str, partition: i32| (topic.to_owned(), partition);
    Some(
        topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|index| named(&topic.topic, *index)))
            .collect(),
    )
}

/// The bytes of every log here that is open.
fn sizes(broker: &Broker) -> impl Iterator<Item = (String, i32, u64)> {
    broker.partitions().all().into_iter().filter_map(|partition| {
        let bytes = partition.with_log(|log| log.size_bytes())?;
        Some((
            partition.name().topic.to_string(),
            partition.name().partition.get(),
            bytes,
        ))
    })
}

fn topics(wanted: &Wanted, sizes: impl Iterator<Item = (String, i32, u64)>) -> Vec<DescribeLogDirsTopic> {
    let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for (topic, index, bytes) in sizes {
        let key = (topic, index);
        if wanted.as_ref().is_some_and(|wanted| !wanted.contains(&key)) {
            continue;
        }
        // A log that is not being moved lags behind nothing.
        let partition = DescribeLogDirsPartition::default()
            .with_partition_index(index)
            .with_partition_size(i64::try_from(bytes).unwrap_or(i64::MAX));
        topics.entry(key.0).or_default().push(partition);
    }
    topics
        .into_iter()
        .map(|(name, partitions)| {
            DescribeLogDirsTopic::default()
                .with_name(wire::topic_name(&name))
                .with_partitions(partitions)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::encodes;

    fn logs() -> impl Iterator<Item = (String, i32, u64)> {
        [("b", 0, 5), ("a", 0, 7), ("a", 1, 9)]
            .into_iter()
            .map(|(topic, index, bytes)| (topic.to_owned(), index, bytes))
    }

    #[test]
    fn sizes_are_told_by_topic_for_what_is_asked() {
        let told = |wanted: Wanted| {
            topics(&wanted, logs())
                .iter()
                .map(|topic| {
                    let sizes: Vec<_> = topic
                        .partitions
                        .iter()
                        .map(|one| (one.partition_index, one.partition_size))
                        .collect();
                    format!("{}{sizes:?}", topic.name.as_str())
                })
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(told(None), "a[(0, 7), (1, 9)] b[(0, 5)]");
        assert_eq!(
            told(Some(BTreeSet::from([("a".to_owned(), 1), ("c".to_owned(), 0)]))),
            "a[(1, 9)]"
        );
        assert_eq!(told(Some(BTreeSet::new())), "");
    }

    #[test]
    fn every_version_is_told_what_it_can_read() {
        for version in 1..=4 {
            let mut result = DescribeLogDirsResult::default()
                .with_log_dir(wire::text("/d"))
                .with_topics(topics(&None, logs()));
            if version >= 4 {
                result = result.with_total_bytes(10).with_usable_bytes(5);
            }
            encodes(
                version,
                &DescribeLogDirsResponse::default().with_results(vec![result]),
            );
        }
    }
}
