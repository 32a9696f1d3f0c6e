//! Frames into questions and answers: only what the oracle compares with the disk.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiKey, CreateTopicsResponse, FetchRequest, FetchResponse, MetadataResponse, OffsetCommitRequest,
    OffsetCommitResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::Decodable;

use skerry::kafka::shape;

use crate::record;

/// A partition by its topic's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PartitionName {
    pub(super) topic: String,
    pub(super) partition: i32,
}

impl fmt::Display for PartitionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

pub(super) struct Asked {
    pub(super) correlation: i32,
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) question: Question,
}

pub(super) enum Question {
    /// Of acks=1 nothing durable is promised.
    Produce {
        acks_all: bool,
        sent: Vec<SentBatch>,
    },
    Fetch,
    Commit(Vec<CommitAsked>),
    /// The answer tells which id is which topic.
    Names,
    Other,
}

pub(super) struct SentBatch {
    topic: String,
    topic_id: [u8; 16],
    partition: i32,
    pub(super) crc: u32,
    pub(super) count: i64,
    /// The bytes are those that the sum was made of.
    pub(super) whole: bool,
}

impl SentBatch {
    pub(super) fn is_for(&self, answer: &ProduceAnswer, names: &BTreeMap<[u8; 16], String>) -> bool {
        let topic = if self.topic.is_empty() {
            names.get(&self.topic_id)
        } else {
            Some(&self.topic)
        };
        self.partition == answer.partition.partition && topic == Some(&answer.partition.topic)
    }
}

pub(super) struct CommitAsked {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// What a request asks for; nothing for one that is never answered. `Err`: it is no request.
pub(super) fn question(mut frame: Bytes) -> Result<Option<Asked>, ()> {
    let head: [u8; 8] = frame.get(..8).ok_or(())?.try_into().map_err(|_| ())?;
    let api = ApiKey::try_from(i16::from_be_bytes([head[0], head[1]])).map_err(|_| ())?;
    let version = i16::from_be_bytes([head[2], head[3]]);
    let range = api.valid_versions();
    if version < range.min || version > range.max {
        // ApiVersions in an unknown version has an answer; nothing else has.
        return Err(());
    }
    let header = RequestHeader::decode(&mut frame, api.request_header_version(version)).map_err(|_| ())?;
    if matches!(api, ApiKey::Produce | ApiKey::Fetch | ApiKey::OffsetCommit) {
        // The generated decoder allocates what an array's length announces, and some clients lie about it.
        shape::check(api, version, &frame).map_err(|_| ())?;
    }
    let question = match api {
        ApiKey::Produce => {
            let request = ProduceRequest::decode(&mut frame, version).map_err(|_| ())?;
            match request.acks {
                0 => return Ok(None),
                acks => Question::Produce {
                    acks_all: acks == -1,
                    sent: sent_batches(&request),
                },
            }
        }
        ApiKey::Fetch => {
            FetchRequest::decode(&mut frame, version).map_err(|_| ())?;
            Question::Fetch
        }
        ApiKey::OffsetCommit => {
            let request = OffsetCommitRequest::decode(&mut frame, version).map_err(|_| ())?;
            Question::Commit(commits(&request))
        }
        ApiKey::Metadata | ApiKey::CreateTopics => Question::Names,
        _ => Question::Other,
    };
    Ok(Some(Asked {
        correlation: header.correlation_id,
        api,
        version,
        question,
    }))
}

fn sent_batches(request: &ProduceRequest) -> Vec<SentBatch> {
    let mut sent = Vec::new();
    for topic in &request.topic_data {
        for partition in &topic.partition_data {
            let Some(batch) = partition.records.as_deref().and_then(record::first) else {
                continue;
            };
            sent.push(SentBatch {
                topic: topic.name.to_string(),
                topic_id: *topic.topic_id.as_bytes(),
                partition: partition.index,
                crc: batch.crc,
                count: batch.count,
                whole: batch.is_whole(),
            });
        }
    }
    sent
}

fn commits(request: &OffsetCommitRequest) -> Vec<CommitAsked> {
    let mut commits = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            commits.push(CommitAsked {
                group: request.group_id.to_string(),
                topic: topic.name.to_string(),
                partition: partition.partition_index,
                offset: partition.committed_offset,
            });
        }
    }
    commits
}

fn answer<T: Decodable>(mut frame: Bytes, api: ApiKey, version: i16) -> Option<T> {
    ResponseHeader::decode(&mut frame, api.response_header_version(version)).ok()?;
    T::decode(&mut frame, version).ok()
}

pub(super) struct ProduceAnswer {
    pub(super) partition: PartitionName,
    pub(super) base: i64,
}

/// The partitions that were acknowledged.
pub(super) fn produce_answers(
    frame: Bytes,
    version: i16,
    names: &BTreeMap<[u8; 16], String>,
) -> Vec<ProduceAnswer> {
    let mut answers = Vec::new();
    let Some(response) = answer::<ProduceResponse>(frame, ApiKey::Produce, version) else {
        return answers;
    };
    for topic in &response.responses {
        let Some(name) = name_of(&topic.name, topic.topic_id.as_bytes(), names) else {
            continue;
        };
        for partition in topic
            .partition_responses
            .iter()
            .filter(|partition| partition.error_code == 0)
        {
            let partition_name = PartitionName {
                topic: name.clone(),
                partition: partition.index,
            };
            answers.push(ProduceAnswer {
                partition: partition_name,
                base: partition.base_offset,
            });
        }
    }
    answers
}

pub(super) struct FetchAnswer {
    pub(super) partition: PartitionName,
    pub(super) high_watermark: i64,
    records: Option<Bytes>,
}

impl FetchAnswer {
    /// The last that is what it was when it was written: clients compare the sums, and take nothing from the first on that
    /// differs (5363 of any size, 60 s: a sector of another partition, whole batches in it, lay over a batch).
    pub(super) fn last_batch(&self) -> Option<record::Batch<'_>> {
        record::batches(self.records.as_deref()?)
            .take_while(record::Batch::is_whole)
            .last()
    }
}

/// The partitions that were read without an error.
pub(super) fn fetch_answers(
    frame: Bytes,
    version: i16,
    names: &BTreeMap<[u8; 16], String>,
) -> Vec<FetchAnswer> {
    let mut answers = Vec::new();
    let Some(response) = answer::<FetchResponse>(frame, ApiKey::Fetch, version) else {
        return answers;
    };
    for topic in &response.responses {
        let Some(name) = name_of(&topic.topic, topic.topic_id.as_bytes(), names) else {
            continue;
        };
        for partition in topic
            .partitions
            .iter()
            .filter(|partition| partition.error_code == 0)
        {
            answers.push(FetchAnswer {
                partition: PartitionName {
                    topic: name.clone(),
                    partition: partition.partition_index,
                },
                high_watermark: partition.high_watermark,
                records: partition.records.clone(),
            });
        }
    }
    answers
}

/// The partitions whose commits were acknowledged.
pub(super) fn commit_answers(frame: Bytes, version: i16) -> Vec<(String, i32)> {
    let mut answers = Vec::new();
    let Some(response) = answer::<OffsetCommitResponse>(frame, ApiKey::OffsetCommit, version) else {
        return answers;
    };
    for topic in &response.topics {
        for partition in topic
            .partitions
            .iter()
            .filter(|partition| partition.error_code == 0)
        {
            answers.push((topic.name.to_string(), partition.partition_index));
        }
    }
    answers
}

pub(super) struct MetadataAnswer {
    pub(super) names: Vec<([u8; 16], String)>,
    /// It was asked in earnest, and no broker is in the answer.
    pub(super) leads_nowhere: bool,
}

/// `None`: it cannot be read.
pub(super) fn metadata_answer(frame: Bytes, version: i16) -> Option<MetadataAnswer> {
    let response: MetadataResponse = answer(frame, ApiKey::Metadata, version)?;
    let refused = ResponseError::InvalidRequest.code();
    let is_refused =
        response.error_code != 0 || response.topics.iter().any(|topic| topic.error_code == refused);
    let named = response.topics.iter().filter(|topic| topic.error_code == 0);
    Some(MetadataAnswer {
        leads_nowhere: response.brokers.is_empty() && !is_refused,
        names: named
            .filter_map(|topic| Some((*topic.topic_id.as_bytes(), topic.name.as_ref()?.to_string())))
            .collect(),
    })
}

pub(super) fn created_names(frame: Bytes, version: i16) -> Vec<([u8; 16], String)> {
    let Some(response) = answer::<CreateTopicsResponse>(frame, ApiKey::CreateTopics, version) else {
        return Vec::new();
    };
    let created = response.topics.iter().filter(|topic| topic.error_code == 0);
    created
        .map(|topic| (*topic.topic_id.as_bytes(), topic.name.to_string()))
        .collect()
}

fn name_of(name: &str, id: &[u8; 16], names: &BTreeMap<[u8; 16], String>) -> Option<String> {
    if name.is_empty() {
        names.get(id).cloned()
    } else {
        Some(name.to_owned())
    }
}
