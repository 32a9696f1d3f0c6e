//! DeleteRecords (21), v0-v2 (KIP-107).
//!
//! The new first offset is durable before the log takes it over and before the answer leaves: after a crash, deleted
//! records do not come back. The answer waits until every live replica begins there, or later, and every dead one that may
//! be elected: whoever leads next has deleted them, too. Kafka waits for live ones alone, and where fewer than
//! `min.insync.replicas` are left, an eligible one (KIP-966) may come back with what was deleted.

use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_request::DeleteRecordsTopic;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};
use skerry_types::{Instant, LeaderEpoch, Offset, is_planted};
use tokio::sync::Notify;

use crate::broker::Broker;
use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::{errors, wire};
use crate::partition::Partition;
use crate::topics;

api!(DeleteRecords, 0..=2, DeleteRecordsRequest, handle);

/// "Everything that is acknowledged."
const HIGH_WATERMARK: i64 = -1;
/// Partitions that are cut at a time.
const CUT_AT_ONCE: usize = 16;
/// Topics that are worked on at a time.
const TOPICS_AT_ONCE: usize = 16;

async fn handle(context: Context, _version: i16, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let broker = &context.broker;
    let caller = context.caller();
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
    let deadline = broker.env().clock.now() + timeout;
    let topics = request.topics.iter().map(|topic| {
        let allowed = broker
            .gate()
            .allows(&caller, Operation::Delete, Resource::Topic(&topic.name));
        let partitions = topic.partitions.iter().map(move |asked| async move {
            let deleted = if allowed {
                delete(broker, topic, asked.partition_index, asked.offset, deadline).await
            } else {
                Err(ResponseError::TopicAuthorizationFailed)
            };
            answer(asked.partition_index, deleted)
        });
        async move {
            DeleteRecordsTopicResult::default()
                .with_name(topic.name.clone())
                .with_partitions(wire::in_order(partitions, CUT_AT_ONCE).await)
        }
    });
    // One topic that waits for its replicas holds up no other's deletion.
    DeleteRecordsResponse::default().with_topics(wire::in_order(topics, TOPICS_AT_ONCE).await)
}

fn answer(index: i32, deleted: Result<Offset, ResponseError>) -> DeleteRecordsPartitionResult {
    let answer = DeleteRecordsPartitionResult::default().with_partition_index(index);
    match deleted {
        Ok(low_watermark) => answer.with_low_watermark(low_watermark.get()),
        Err(code) => answer.with_low_watermark(-1).with_error_code(code.code()),
    }
}

/// Deletes what is below `offset`, and gives the first offset that is left on every live replica.
async fn delete(
    broker: &Broker,
    topic: &DeleteRecordsTopic,
    index: i32,
    offset: i64,
    deadline: Instant,
) -> Result<Offset, ResponseError> {
    let found = wire::partition(broker, &topic.name, index);
    let is_damaged = found.as_ref().is_ok_and(|partition| partition.damage().is_some());
    let partition = match found {
        // What cannot be read any more in the copy that counts can be given up, and nothing else of an internal topic:
        // its readers would wait for it for ever.
        Ok(_) | Err(ResponseError::NotLeaderOrFollower)
            if topics::is_internal(&topic.name) && !is_damaged =>
        {
            return Err(ResponseError::InvalidTopicException);
        }
        found => found?,
    };
    let (log_start, first_kept) = partition
        .with_leader(LeaderEpoch::UNKNOWN, |log, leader| {
            let first_kept = first_kept(
                offset,
                leader.high_watermark(),
                log.config().cleanup_policy.delete || is_damaged,
            );
            (log.log_start(), first_kept)
        })
        .map_err(|error| errors::not_serving(&error))?;
    let first_kept = first_kept?;
    let gives_up = partition.is_damaged_below(first_kept);
    if first_kept > log_start {
        cut(broker, &partition, first_kept).await?;
    }
    // What is damaged in the last copy is given up: who is dead has it no better, and may never come.
    replicated(broker, &partition, (first_kept, gives_up), deadline).await
}

/// Waits until no replica that lives, or may lead, begins before `first_kept`, and gives the first offset that all of them
/// have.
async fn replicated(
    broker: &Broker,
    partition: &Arc<Partition>,
    (first_kept, gives_up): (Offset, bool),
    deadline: Instant,
) -> Result<Offset, ResponseError> {
    let waiter = Arc::new(Notify::new());
    let mut images = broker.applied.subscribe();
    let waited = async {
        loop {
            // Registered before the look: what comes after the look wakes, what came before is seen.
            partition.wait_for_records(&waiter);
            images.mark_unchanged();
            let image = broker.image();
            let topic = image.topic_by_id(partition.topic_id());
            let placed = topic.and_then(|topic| topic.partition(partition.name().partition));
            let waits = !gives_up && !is_planted("eligible-not-waited-for");
            let may_lead = |id| waits && placed.is_some_and(|placed| placed.elr.contains(&id));
            let low_watermark = partition
                .with_leader(LeaderEpoch::UNKNOWN, |_, leader| {
                    leader.low_watermark(|id| image.is_unfenced(id) || may_lead(id))
                })
                .map_err(|error| errors::not_serving(&error))?;
            if low_watermark >= first_kept {
                return Ok(low_watermark);
            }
            tokio::select! {
                biased;
                () = waiter.notified() => {}
                // A replica that is not alive any more, and may not lead, is waited for no longer. The sender lives in the
                // broker.
                _ = images.changed() => {}
                () = broker.env().clock.sleep_until(deadline) => return Err(ResponseError::RequestTimedOut),
            }
        }
    };
    let waited = waited.await;
    partition.stop_waiting(&waiter);
    waited
}

/// Where the log shall begin. The checks and their order are Kafka's (`Partition.deleteRecordsOnLeader`).
fn first_kept(offset: i64, high_watermark: Offset, deletable: bool) -> Result<Offset, ResponseError> {
    if !deletable {
        return Err(ResponseError::PolicyViolation);
    }
    let offset = if offset == HIGH_WATERMARK {
        high_watermark
    } else {
        Offset(offset)
    };
    if offset < Offset::ZERO || offset > high_watermark {
        return Err(ResponseError::OffsetOutOfRange);
    }
    Ok(offset)
}

async fn cut(broker: &Broker, partition: &Arc<Partition>, first_kept: Offset) -> Result<(), ResponseError> {
    if let Err(error) = broker
        .partitions()
        .save_log_start(partition.name(), first_kept)
        .await
    {
        tracing::error!(partition = %partition.name(), %error, "cannot make the log's new start durable");
        return Err(ResponseError::KafkaStorageError);
    }
    let subject = partition.clone();
    let cut = broker
        .env()
        .tasks
        .run_blocking(move || subject.change_log(|log, _| log.set_log_start(first_kept)));
    match cut.await {
        Some(Ok(retired)) => {
            broker.partitions().retire(partition, retired);
            Ok(())
        }
        Some(Err(error)) => {
            tracing::warn!(partition = %partition.name(), %error, "cannot delete records");
            Err(ResponseError::KafkaStorageError)
        }
        None => Err(ResponseError::NotLeaderOrFollower),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::encodes;

    #[test]
    fn only_what_is_acknowledged_can_be_deleted() {
        let judged = |offset| first_kept(offset, Offset(10), true);
        assert_eq!(judged(0), Ok(Offset(0)));
        assert_eq!(judged(10), Ok(Offset(10)));
        assert_eq!(judged(-1), Ok(Offset(10)), "all of it");
        assert_eq!(judged(11), Err(ResponseError::OffsetOutOfRange));
        assert_eq!(judged(-2), Err(ResponseError::OffsetOutOfRange));
        assert_eq!(
            first_kept(5, Offset(10), false),
            Err(ResponseError::PolicyViolation),
            "only compacted"
        );
    }

    #[test]
    fn every_version_is_told_what_it_can_read() {
        let partitions = vec![
            answer(0, Ok(Offset(5))),
            answer(1, Err(ResponseError::PolicyViolation)),
        ];
        assert_eq!(partitions[1].low_watermark, -1);
        let topic = DeleteRecordsTopicResult::default()
            .with_name(wire::topic_name("t"))
            .with_partitions(partitions);
        for version in 0..=2 {
            encodes(
                version,
                &DeleteRecordsResponse::default().with_topics(vec![topic.clone()]),
            );
        }
    }
}
