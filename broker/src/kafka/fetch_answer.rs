//! The answer of Fetch, encoded by hand: its records are parts of their own, written as they were read.
//!
//! kafka-protocol's encoder copies every record into one buffer; this is the one answer where that is most of the
//! work. A test compares the bytes with that encoder's, version by version.

use bytes::{BufMut as _, Bytes, BytesMut};
use kafka_protocol::ResponseError;

use super::frame::Answer;
use super::sessions::{FetchKey, FetchTopic};

/// The whole answer.
#[derive(Default)]
pub struct FetchAnswer {
    /// The session's error, or 0.
    pub error_code: i16,
    /// The session; 0: none.
    pub session_id: i32,
    pub(super) topics: Vec<(FetchTopic, Vec<(i32, PartitionAnswer)>)>,
}

/// One partition's part.
#[derive(Clone, Debug)]
pub struct PartitionAnswer {
    /// Its error, or 0.
    pub error_code: i16,
    /// Everything below may be read.
    pub high_watermark: i64,
    /// Everything below is decided.
    pub last_stable: i64,
    /// The first offset.
    pub log_start: i64,
    /// Producer id and first offset of each aborted transaction; `None` for readers that do not ask.
    pub aborted: Option<Vec<(i64, i64)>>,
    /// Epoch and offset where the reader's log must be cut.
    pub diverging: Option<(i32, i64)>,
    /// Who leads, where this broker does not.
    pub leader: Option<LeaderHint>,
    /// Where this reader should read instead (KIP-392).
    pub preferred_replica: Option<i32>,
    /// Whole batches.
    pub records: Bytes,
}

/// Who leads a partition (KIP-951).
#[derive(Clone, Debug)]
pub struct LeaderHint {
    /// The broker.
    pub id: i32,
    /// In which epoch.
    pub epoch: i32,
    /// Where it listens.
    pub host: String,
    /// Where it listens.
    pub port: i32,
}

impl PartitionAnswer {
    /// A partition that was refused.
    #[must_use]
    pub fn error(code: ResponseError) -> Self {
        Self {
            error_code: code.code(),
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            aborted: None,
            diverging: None,
            leader: None,
            preferred_replica: None,
            records: Bytes::new(),
        }
    }
}

impl FetchAnswer {
    /// Adds a partition, to its topic's group if that is the last one.
    pub fn add(&mut self, key: &FetchKey, partition: PartitionAnswer) {
        match self.topics.last_mut() {
            Some((topic, partitions)) if *topic == key.topic => partitions.push((key.partition, partition)),
            _ => self
                .topics
                .push((key.topic.clone(), vec![(key.partition, partition)])),
        }
    }

    /// The bytes to send.
    #[must_use]
    pub fn encode(self, version: i16, correlation_id: i32) -> Answer {
        let mut out = Writer {
            parts: Vec::new(),
            buf: BytesMut::with_capacity(256),
            flexible: version >= 12,
        };
        let endpoints = self.endpoints();
        out.buf.put_i32(correlation_id);
        out.no_tags();
        out.buf.put_i32(0); // throttle_time_ms
        if version >= 7 {
            out.buf.put_i16(self.error_code);
            out.buf.put_i32(self.session_id);
        }
        out.length(Some(self.topics.len()));
        for (topic, partitions) in self.topics {
            match &topic {
                FetchTopic::Id(id) => out.buf.put_slice(&id.0),
                FetchTopic::Name(name) => out.string(name),
            }
            out.length(Some(partitions.len()));
            for (index, partition) in partitions {
                encode_partition(&mut out, version, index, partition);
            }
            out.no_tags();
        }
        if version >= 12 {
            encode_endpoints(&mut out, version, &endpoints);
        }
        out.finish()
    }

    fn endpoints(&self) -> Vec<LeaderHint> {
        let mut endpoints: Vec<LeaderHint> = Vec::new();
        for leader in self
            .topics
            .iter()
            .flat_map(|(_, partitions)| partitions)
            .filter_map(|(_, p)| p.leader.as_ref())
        {
            if endpoints.iter().all(|known| known.id != leader.id) {
                endpoints.push(leader.clone());
            }
        }
        endpoints
    }
}

fn encode_partition(out: &mut Writer, version: i16, index: i32, partition: PartitionAnswer) {
    out.buf.put_i32(index);
    out.buf.put_i16(partition.error_code);
    out.buf.put_i64(partition.high_watermark);
    out.buf.put_i64(partition.last_stable);
    if version >= 5 {
        out.buf.put_i64(partition.log_start);
    }
    out.length(partition.aborted.as_ref().map(Vec::len));
    for (producer_id, first_offset) in partition.aborted.unwrap_or_default() {
        out.buf.put_i64(producer_id);
        out.buf.put_i64(first_offset);
        out.no_tags();
    }
    if version >= 11 {
        out.buf.put_i32(partition.preferred_replica.unwrap_or(-1));
    }
    // Empty, never null: librdkafka 2.0.2 fails to parse null and backs off.
    out.bytes(partition.records);
    if version < 12 {
        return;
    }
    let tags = u32::from(partition.diverging.is_some()) + u32::from(partition.leader.is_some());
    out.varint(tags);
    if let Some((epoch, end_offset)) = partition.diverging {
        out.varint(0);
        out.varint(13);
        out.buf.put_i32(epoch);
        out.buf.put_i64(end_offset);
        out.no_tags();
    }
    if let Some(leader) = partition.leader {
        out.varint(1);
        out.varint(9);
        out.buf.put_i32(leader.id);
        out.buf.put_i32(leader.epoch);
        out.no_tags();
    }
}

fn encode_endpoints(out: &mut Writer, version: i16, endpoints: &[LeaderHint]) {
    if version < 16 || endpoints.is_empty() {
        out.varint(0);
        return;
    }
    let mut tag = Writer {
        parts: Vec::new(),
        buf: BytesMut::new(),
        flexible: true,
    };
    tag.length(Some(endpoints.len()));
    for endpoint in endpoints {
        tag.buf.put_i32(endpoint.id);
        tag.string(&endpoint.host);
        tag.buf.put_i32(endpoint.port);
        tag.varint(0); // rack: null
        tag.no_tags();
    }
    out.varint(1);
    out.varint(0);
    out.varint(u32::try_from(tag.buf.len()).unwrap_or(u32::MAX));
    out.buf.put_slice(&tag.buf);
}

struct Writer {
    parts: Vec<Bytes>,
    buf: BytesMut,
    flexible: bool,
}

impl Writer {
    fn varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buf.put_u8((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.buf.put_u8(value as u8);
    }

    /// An array's length.
    fn length(&mut self, length: Option<usize>) {
        let length = length.map(|length| u32::try_from(length).unwrap_or(u32::MAX >> 1));
        if self.flexible {
            self.varint(length.map_or(0, |length| length + 1));
        } else {
            self.buf
                .put_i32(length.map_or(-1, |length| i32::try_from(length).unwrap_or(i32::MAX)));
        }
    }

    fn string(&mut self, text: &str) {
        if self.flexible {
            self.varint(u32::try_from(text.len()).unwrap_or(u32::MAX - 1) + 1);
        } else {
            self.buf.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
        }
        self.buf.put_slice(text.as_bytes());
    }

    /// Bytes as a part of their own.
    fn bytes(&mut self, bytes: Bytes) {
        self.length(Some(bytes.len()));
        if !bytes.is_empty() {
            let before = self.buf.split().freeze();
            self.parts.push(before);
            self.parts.push(bytes);
        }
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.buf.put_u8(0);
        }
    }

    fn finish(mut self) -> Answer {
        self.parts.push(self.buf.freeze());
        Answer::from_parts(self.parts)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::fetch_response::{
        AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint,
        PartitionData,
    };
    use kafka_protocol::messages::{ApiKey, BrokerId, FetchResponse, TopicName};
    use kafka_protocol::protocol::StrBytes;
    use skerry_types::Uuid;

    use super::*;

    fn partition(version: i16, full: bool) -> PartitionAnswer {
        let leader = LeaderHint {
            id: 3,
            epoch: 9,
            host: "there".to_owned(),
            port: 9092,
        };
        PartitionAnswer {
            error_code: if full { 6 } else { 0 },
            high_watermark: 70,
            last_stable: 60,
            log_start: 5,
            aborted: full.then(|| vec![(7, 8), (9, 10)]),
            diverging: (full && version >= 12).then_some((4, 44)),
            leader: (full && version >= 16).then_some(leader),
            preferred_replica: (full && version >= 11).then_some(5),
            records: Bytes::from_static(b"some records"),
        }
    }

    fn theirs(version: i16, index: i32, ours: &PartitionAnswer) -> PartitionData {
        let mut data = PartitionData::default()
            .with_partition_index(index)
            .with_error_code(ours.error_code)
            .with_high_watermark(ours.high_watermark)
            .with_last_stable_offset(ours.last_stable)
            .with_records(Some(ours.records.clone()))
            .with_aborted_transactions(ours.aborted.as_ref().map(|all| {
                all.iter()
                    .map(|(id, first)| {
                        AbortedTransaction::default()
                            .with_producer_id((*id).into())
                            .with_first_offset(*first)
                    })
                    .collect()
            }));
        if version >= 5 {
            data.log_start_offset = ours.log_start;
        }
        if let Some(replica) = ours.preferred_replica {
            data.preferred_read_replica = BrokerId(replica);
        }
        if let Some((epoch, end)) = ours.diverging {
            data.diverging_epoch = EpochEndOffset::default().with_epoch(epoch).with_end_offset(end);
        }
        if let Some(leader) = &ours.leader {
            data.current_leader = LeaderIdAndEpoch::default()
                .with_leader_id(BrokerId(leader.id))
                .with_leader_epoch(leader.epoch);
        }
        data
    }

    #[test]
    fn the_bytes_are_those_of_the_generated_encoder() {
        for version in 4..=18 {
            let id = Uuid([9; 16]);
            let topic = if version >= 13 {
                FetchTopic::Id(id)
            } else {
                FetchTopic::Name("orders".to_owned())
            };
            let mut ours = FetchAnswer {
                error_code: 0,
                session_id: if version >= 7 { 77 } else { 0 },
                ..Default::default()
            };
            let mut of_topic = FetchableTopicResponse::default();
            if version >= 13 {
                of_topic.topic_id = uuid::Uuid::from_bytes(id.0);
            } else {
                of_topic.topic = TopicName(StrBytes::from_static_str("orders"));
            }
            for (index, full) in [(0, false), (4, true)] {
                let answer = partition(version, full);
                of_topic.partitions.push(theirs(version, index, &answer));
                ours.add(
                    &FetchKey {
                        topic: topic.clone(),
                        partition: index,
                    },
                    answer,
                );
            }
            let mut response = FetchResponse::default().with_responses(vec![of_topic]);
            if version >= 7 {
                response.session_id = 77;
            }
            if version >= 16 {
                response.node_endpoints = vec![
                    NodeEndpoint::default()
                        .with_node_id(BrokerId(3))
                        .with_host(StrBytes::from_static_str("there"))
                        .with_port(9092),
                ];
            }
            let expected = Answer::encode(ApiKey::Fetch, version, 42, &response)
                .unwrap()
                .into_parts()
                .0
                .concat();
            let found = ours.encode(version, 42).into_parts().0.concat();
            assert_eq!(found, expected, "v{version}");
        }
    }
}
