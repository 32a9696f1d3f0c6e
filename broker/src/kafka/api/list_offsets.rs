//! ListOffsets (2), v1-v10. v2 isolation levels (KIP-98), v4 leader epochs (KIP-320), v5 OFFSET_NOT_AVAILABLE (KIP-207),
//! v7 the offset of the largest timestamp (KIP-734), v8 the earliest local offset (KIP-405), v9 the latest in tiered
//! storage (KIP-1005), v10 a timeout for asking that storage (KIP-1075).
//!
//! A timestamp is looked up at record granularity; what a reader could not fetch yet is hidden from it.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};
use skerry_log::{Log, ReadError, TimestampPlan, TimestampQuery};
use skerry_replica::Leader;
use skerry_types::{LeaderEpoch, Offset, WallMs, is_planted, sometimes};

use crate::broker::Broker;
use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::{errors, wire};
use crate::leader_epochs;
use crate::partition::{FetchError, Isolation, NotServing, Partition};

api!(ListOffsets, 1..=10, ListOffsetsRequest, handle);

/// Kafka's debug consumer, which may see up to the log's end and ask anybody.
const DEBUG_CONSUMER: i32 = -2;
/// A consumer.
const CONSUMER: i32 = -1;
/// Lookups of one request that run at a time: each may wait for the disk.
const LOOKUPS_AT_ONCE: usize = 16;

/// What a timestamp in a request stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// The end of what the reader may see.
    Latest,
    /// Where the log begins.
    Earliest,
    /// The record with the largest timestamp.
    MaxTimestamp,
    /// The end of what tiered storage holds.
    LatestTiered,
    /// The first record that is not older.
    At(WallMs),
}

/// The numbers below 0 have meanings, each from a version on; an unknown one is UNSUPPORTED_VERSION.
fn wanted(version: i16, timestamp: i64) -> Result<Wanted, ResponseError> {
    let (wanted, since) = match timestamp {
        -1 => (Wanted::Latest, 1),
        -2 => (Wanted::Earliest, 1),
        -3 => (Wanted::MaxTimestamp, 7),
        // Without tiered storage the local log is the whole log.
        -4 => (Wanted::Earliest, 8),
        -5 => (Wanted::LatestTiered, 9),
        at if at >= 0 => (Wanted::At(WallMs(at)), 1),
        _ => return Err(ResponseError::UnsupportedVersion),
    };
    if version >= since {
        Ok(wanted)
    } else {
        Err(ResponseError::UnsupportedVersion)
    }
}

/// What is answered: a position, or that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    offset: Offset,
    timestamp: WallMs,
    epoch: LeaderEpoch,
}

impl Found {
    const NOTHING: Self = Self {
        offset: Offset(-1),
        timestamp: WallMs::NONE,
        epoch: LeaderEpoch::UNKNOWN,
    };
}

async fn handle(context: Context, version: i16, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let broker = &context.broker;
    let caller = context.caller();
    let isolation = match (request.replica_id.0, request.isolation_level) {
        (CONSUMER, 1) => Isolation::ReadCommitted,
        (CONSUMER, _) => Isolation::ReadUncommitted,
        _ => Isolation::LogEnd,
    };
    let asker = Asker {
        broker,
        version,
        isolation,
        debug: request.replica_id.0 == DEBUG_CONSUMER,
    };
    let repeated = repeated(&request.topics);
    let mut told = BTreeSet::new();
    let mut response = ListOffsetsResponse::default();
    for topic in &request.topics {
        let allowed = broker
            .gate()
            .allows(&caller, Operation::Describe, Resource::Topic(&topic.name));
        // Most answers are numbers that are known; only a lookup by timestamp waits for the disk.
        let (mut partitions, mut reads) = (Vec::with_capacity(topic.partitions.len()), Vec::new());
        for asked in &topic.partitions {
            let is_repeated = repeated.contains(&(topic.name.as_str(), asked.partition_index));
            // It is answered once.
            if is_repeated && !told.insert((topic.name.as_str(), asked.partition_index)) {
                continue;
            }
            let found = if !allowed {
                Err(ResponseError::TopicAuthorizationFailed)
            } else if is_repeated {
                Err(ResponseError::InvalidRequest)
            } else {
                asker.find(&topic.name, asked)
            };
            let found = found.map(|found| match found {
                Sought::Found(found) => found,
                Sought::Read(partition, plan) => {
                    reads.push((partitions.len(), partition, plan));
                    Found::NOTHING
                }
            });
            partitions.push(answer(version, asked.partition_index, found));
        }
        let reads = reads.into_iter().map(|(place, partition, plan)| {
            let read = read(broker, partition, plan);
            async move { (place, read.await) }
        });
        for (place, found) in wire::in_order(reads, LOOKUPS_AT_ONCE).await {
            partitions[place] = answer(version, partitions[place].partition_index, found);
        }
        response.topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(topic.name.clone())
                .with_partitions(partitions),
        );
    }
    response
}

fn repeated(topics: &[ListOffsetsTopic]) -> BTreeSet<(&str, i32)> {
    let mut seen = BTreeSet::new();
    topics
        .iter()
        .flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|partition| (topic.name.as_str(), partition.partition_index))
        })
        .filter(|partition| !seen.insert(*partition))
        .collect()
}

fn answer(version: i16, index: i32, found: Result<Found, ResponseError>) -> ListOffsetsPartitionResponse {
    let (code, found) = match found {
        Ok(found) => (0, found),
        Err(code) => (code.code(), Found::NOTHING),
    };
    let mut answer = ListOffsetsPartitionResponse::default()
        .with_partition_index(index)
        .with_error_code(code)
        .with_timestamp(found.timestamp.get())
        .with_offset(found.offset.get());
    if version >= 4 {
        answer.leader_epoch = found.epoch.get();
    }
    answer
}

/// What all partitions of a request share.
struct Asker<'a> {
    broker: &'a Broker,
    version: i16,
    isolation: Isolation,
    debug: bool,
}

/// What a partition answers at once.
enum Sought {
    Found(Found),
    /// Its log must be read.
    Read(Arc<Partition>, TimestampPlan),
}

/// What a look at the log comes to.
enum Look {
    Found(Found),
    Read(TimestampPlan),
    /// The log cannot be read.
    Failed(ReadError),
    /// The high watermark has not reached the start of the leader's epoch yet.
    NotAvailable,
}

impl Asker<'_> {
    fn find(&self, topic: &str, asked: &ListOffsetsPartition) -> Result<Sought, ResponseError> {
        let wanted = wanted(self.version, asked.timestamp)?;
        let partition = wire::partition(self.broker, topic, asked.partition_index)?;
        let look = self.look(&partition, LeaderEpoch(asked.current_leader_epoch), wanted)?;
        sometimes("end-not-known-yet", matches!(look, Look::NotAvailable));
        match look {
            Look::Found(found) => Ok(Sought::Found(found)),
            Look::NotAvailable if self.version >= 5 => Err(ResponseError::OffsetNotAvailable),
            Look::NotAvailable => Err(ResponseError::LeaderNotAvailable),
            Look::Read(plan) => Ok(Sought::Read(partition, plan)),
            Look::Failed(error) => Err(failed(&partition, error)),
        }
    }

    fn look(
        &self,
        partition: &Arc<Partition>,
        epoch: LeaderEpoch,
        wanted: Wanted,
    ) -> Result<Look, ResponseError> {
        let isolation = self.isolation;
        let look = |log: &mut Log, leader: &Leader| look_at(log, Some(leader), isolation, wanted);
        let looked = match wanted {
            // An old start is as good as a new one.
            Wanted::Earliest => partition.with_leader(epoch, look),
            Wanted::Latest | Wanted::LatestTiered | Wanted::MaxTimestamp | Wanted::At(_) => {
                partition.with_current_leader(epoch, look)
            }
        };
        match looked {
            Err(NotServing::NotLeader | NotServing::CutOff) if self.debug => partition
                .with_log(|log| look_at(log, None, isolation, wanted))
                .ok_or(ResponseError::NotLeaderOrFollower),
            looked => looked.map_err(|error| errors::not_serving(&error)),
        }
    }
}

async fn read(
    broker: &Broker,
    partition: Arc<Partition>,
    plan: TimestampPlan,
) -> Result<Found, ResponseError> {
    match broker.env().tasks.run_blocking(move || plan.run()).await {
        Ok(Some((offset, timestamp, epoch))) => Ok(Found {
            offset,
            timestamp,
            epoch,
        }),
        Ok(None) => Ok(Found::NOTHING),
        Err(error) => Err(failed(&partition, error)),
    }
}

fn failed(partition: &Partition, error: ReadError) -> ResponseError {
    tracing::warn!(partition = %partition.name(), %error, "cannot look a timestamp up");
    partition.suspect(Offset::ZERO, &error);
    errors::fetch(&FetchError::Log(error))
}

fn look_at(log: &Log, leader: Option<&Leader>, isolation: Isolation, wanted: Wanted) -> Look {
    let upper = match (leader, isolation) {
        (Some(leader), Isolation::ReadUncommitted) => leader.high_watermark(),
        (Some(leader), Isolation::ReadCommitted) => log.last_stable(leader.high_watermark()),
        (None, _) | (_, Isolation::LogEnd) => log.log_end(),
    };
    // A new leader learns what is acknowledged a moment later: until then the end would seem to have gone back.
    let lags = isolation != Isolation::LogEnd
        && leader.is_some_and(|leader| !leader.serves_latest())
        && !is_planted("end-told-before-it-is-known");
    let epoch = || {
        leader
            .map(Leader::epoch)
            .or_else(|| log.last_epoch())
            .unwrap_or(LeaderEpoch::UNKNOWN)
    };
    let query = match wanted {
        Wanted::Earliest => {
            let (offset, timestamp) = (log.log_start(), WallMs::NONE);
            let epoch = match leader {
                Some(leader) => leader_epochs::epoch_at(log, leader, offset),
                None => log.epoch_at(offset).unwrap_or(LeaderEpoch::UNKNOWN),
            };
            return Look::Found(Found {
                offset,
                timestamp,
                epoch,
            });
        }
        Wanted::LatestTiered => return Look::Found(Found::NOTHING),
        _ if lags => return Look::NotAvailable,
        Wanted::Latest => {
            return Look::Found(Found {
                offset: upper,
                timestamp: WallMs::NONE,
                epoch: epoch(),
            });
        }
        Wanted::MaxTimestamp => TimestampQuery::Max,
        Wanted::At(timestamp) => TimestampQuery::At(timestamp),
    };
    match log.plan_timestamp_lookup(query, upper) {
        Ok(plan) => Look::Read(plan),
        Err(error) => Look::Failed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::encodes;

    #[test]
    fn special_timestamps_are_known_from_their_version_on() {
        let first = |timestamp| (1..=10).find(|version| wanted(*version, timestamp).is_ok());
        assert_eq!([-1, -2, 0, 5].map(first), [Some(1); 4]);
        assert_eq!([-3, -4, -5].map(first), [Some(7), Some(8), Some(9)]);
        assert_eq!([-6, -7, i64::MIN].map(first), [None; 3]);
        assert_eq!(wanted(6, -3), Err(ResponseError::UnsupportedVersion));
    }

    #[test]
    fn every_version_is_told_what_it_can_read() {
        let found = Found {
            offset: Offset(5),
            timestamp: WallMs(7),
            epoch: LeaderEpoch(3),
        };
        for version in 1..=10 {
            let partitions = vec![
                answer(version, 0, Ok(found)),
                answer(version, 1, Err(ResponseError::UnsupportedVersion)),
            ];
            assert_eq!(partitions[0].leader_epoch, if version >= 4 { 3 } else { -1 });
            assert_eq!((partitions[1].offset, partitions[1].timestamp), (-1, -1));
            let topic = ListOffsetsTopicResponse::default()
                .with_name(wire::topic_name("t"))
                .with_partitions(partitions);
            encodes(version, &ListOffsetsResponse::default().with_topics(vec![topic]));
        }
    }

    #[test]
    fn a_partition_that_comes_twice_is_answered_with_an_error() {
        let topic = |name| {
            let partition = |index| ListOffsetsPartition::default().with_partition_index(index);
            ListOffsetsTopic::default()
                .with_name(wire::topic_name(name))
                .with_partitions(vec![partition(0), partition(1)])
        };
        let topics = [topic("a"), topic("b"), topic("a")];
        assert_eq!(repeated(&topics), BTreeSet::from([("a", 0), ("a", 1)]));
    }
}
