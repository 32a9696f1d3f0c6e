//! What a batch must satisfy before it is appended: checked once, without the log's lock.
//!
//! Every record is looked at, packed ones are unpacked piece by piece: Kafka does the same, an acknowledged batch
//! that nobody can read would stop its consumers for ever, and the index and `ListOffsets` rely on a true
//! `maxTimestamp`. Keys and values are skipped, nothing is kept.

use bytes::{Bytes, BytesMut};
use skerry_types::{LeaderEpoch, Offset, WallMs, is_planted};

use crate::batch::{
    BatchHeader, BrokenRecords, Codec, Compression, HEADER_BYTES, LENGTH_OVERHEAD, MAGIC, RecordShape,
    unpack, walk_records,
};
use crate::config::{TargetCompression, TimestampType};

/// Record errors listed in an answer, at most.
const RECORD_ERRORS_MAX: usize = 100;
/// The smallest length that any batch of Kafka's ever had (magic 0).
const LENGTH_MIN: i32 = 14;

/// What a producer's batch must satisfy; [`crate::LogConfig::validation_rules`] makes them from a topic's settings.
#[derive(Clone, Debug)]
pub struct ValidationRules {
    /// The largest batch, as it came and as it is stored.
    pub max_message_bytes: u32,
    /// Whose timestamps.
    pub timestamp_type: TimestampType,
    /// How far a record's timestamp may lie in the past.
    pub timestamp_before_max_ms: i64,
    /// How far a record's timestamp may lie in the future.
    pub timestamp_after_max_ms: i64,
    /// The topic is compacted: every record needs a key.
    pub keys_required: bool,
    /// How batches are stored.
    pub compression: TargetCompression,
    /// The time by the broker's wall clock.
    pub now: WallMs,
    /// False below version 7 of Produce.
    pub zstd_allowed: bool,
}

/// One record that a batch was refused for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordError {
    /// Its place in the batch, from 0.
    pub index: i32,
    /// What is wrong with it.
    pub message: String,
}

/// Why a batch was refused. Each variant is one of Kafka's error codes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidBatch {
    /// CORRUPT_MESSAGE.
    #[error("{0}")]
    Corrupt(String),
    /// INVALID_RECORD.
    #[error("{message}")]
    InvalidRecord {
        /// The records it lies at, where it lies at records.
        record_errors: Vec<RecordError>,
        /// What is wrong.
        message: String,
    },
    /// MESSAGE_TOO_LARGE.
    #[error("a batch of {size_bytes} bytes exceeds the largest allowed, {max_bytes}")]
    TooLarge {
        /// The batch.
        size_bytes: usize,
        /// `max.message.bytes`.
        max_bytes: u32,
    },
    /// INVALID_TIMESTAMP.
    #[error("{message}")]
    InvalidTimestamp {
        /// The records with such timestamps.
        record_errors: Vec<RecordError>,
        /// What is wrong.
        message: String,
    },
    /// UNSUPPORTED_COMPRESSION_TYPE.
    #[error("{0}")]
    UnsupportedCompression(String),
}

/// A batch that may be appended. Its records are the producer's own buffer: nothing was copied.
#[derive(Clone, Debug)]
pub struct ValidBatch {
    header: BatchHeader,
    records: Bytes,
}

impl ValidBatch {
    /// Checks the records field of one partition in a Produce request, and gives the batch the form in which it is
    /// stored: timestamps by `message.timestamp.type`, codec by `compression.type`.
    ///
    /// # Errors
    /// As Kafka refuses it.
    pub fn parse(records: Bytes, rules: &ValidationRules) -> Result<Self, InvalidBatch> {
        let batch = only_batch(records)?;
        check_frame(&batch.header, batch.size_bytes(), rules)?;
        batch.check_sum()?;
        check_head(&batch.header, rules)?;
        let max_timestamp = check_records(&batch, rules)?;
        batch.stored_form(max_timestamp, rules)
    }

    /// A batch that this broker made itself (a marker, a coordinator's records): only sizes and the sum are checked.
    ///
    /// # Errors
    /// Where it is no whole, intact batch.
    pub fn internal(records: Bytes) -> Result<Self, InvalidBatch> {
        let batch = only_batch(records)?;
        batch.check_sum()?;
        Ok(batch)
    }

    fn check_sum(&self) -> Result<(), InvalidBatch> {
        if self.header.compute_crc(&self.records) == self.header.crc() || is_planted("crc-not-checked") {
            return Ok(());
        }
        Err(InvalidBatch::Corrupt(
            "the batch's checksum does not fit its bytes".to_owned(),
        ))
    }

    /// Its head, not yet placed in a log.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// Its packed records.
    #[must_use]
    pub fn records(&self) -> &Bytes {
        &self.records
    }

    /// Bytes that it takes in the log.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        HEADER_BYTES + self.records.len()
    }

    /// One buffer with the batch placed at `base` in `epoch`; copies it.
    #[must_use]
    pub fn to_bytes(&self, base: Offset, epoch: LeaderEpoch) -> Bytes {
        let mut bytes = BytesMut::with_capacity(self.size_bytes());
        bytes.extend_from_slice(self.header.placed(base, epoch).as_bytes());
        bytes.extend_from_slice(&self.records);
        bytes.freeze()
    }

    fn stored_form(mut self, max_timestamp: WallMs, rules: &ValidationRules) -> Result<Self, InvalidBatch> {
        let mut changed = false;
        let attributes = self.header.attributes();
        let log_append_time = rules.timestamp_type == TimestampType::LogAppendTime;
        // A client's LogAppendTime bit means nothing.
        let wanted = BatchHeader::with_log_append_time(attributes, log_append_time);
        let max_timestamp = if log_append_time { rules.now } else { max_timestamp };
        if wanted != attributes || max_timestamp != self.header.max_timestamp() {
            self.header.set_attributes(wanted);
            self.header.set_max_timestamp(max_timestamp);
            changed = true;
        }
        if let Some(target) = recompression(rules.compression, self.header.codec()) {
            self.repack(target)?;
            if self.size_bytes() > rules.max_message_bytes as usize {
                return Err(InvalidBatch::TooLarge {
                    size_bytes: self.size_bytes(),
                    max_bytes: rules.max_message_bytes,
                });
            }
            changed = true;
        }
        if changed {
            self.header.seal(&self.records);
        }
        Ok(self)
    }

    fn repack(&mut self, target: Compression) -> Result<(), InvalidBatch> {
        let codec = self.header.codec().unwrap_or(Codec::None);
        let corrupt = |error: std::io::Error| InvalidBatch::Corrupt(error.to_string());
        let plain = unpack(codec, &self.records).map_err(corrupt)?;
        self.records = if target == Compression::None {
            plain
        } else {
            target.pack(&plain).map_err(corrupt)?.into()
        };
        let length = HEADER_BYTES - LENGTH_OVERHEAD + self.records.len();
        let length = i32::try_from(length)
            .map_err(|_| InvalidBatch::Corrupt("unpacks to more than 2 GiB".to_owned()))?;
        self.header.set_length(length);
        self.header
            .set_attributes(BatchHeader::with_codec(self.header.attributes(), target.codec()));
        Ok(())
    }
}

/// The one batch of a Produce request's records field. A part of another batch, or junk, may follow: Kafka drops it.
fn only_batch(mut records: Bytes) -> Result<ValidBatch, InvalidBatch> {
    let Some((header, size)) = first_batch(&records)? else {
        return Err(invalid("at least one record batch is needed for each partition"));
    };
    let after = records.split_off(size);
    if matches!(first_batch(&after), Ok(Some(_))) {
        return Err(invalid("exactly one record batch is allowed for each partition"));
    }
    Ok(ValidBatch {
        header,
        records: records.split_off(HEADER_BYTES),
    })
}

fn first_batch(bytes: &[u8]) -> Result<Option<(BatchHeader, usize)>, InvalidBatch> {
    let Some(length) = bytes
        .get(8..LENGTH_OVERHEAD)
        .and_then(|raw| raw.first_chunk::<4>())
    else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(*length);
    if length < LENGTH_MIN {
        return Err(InvalidBatch::Corrupt(format!(
            "a batch of length {length} is too short"
        )));
    }
    let Some(magic) = bytes.get(16).map(|raw| *raw as i8) else {
        return Ok(None);
    };
    if !(0..=MAGIC).contains(&magic) {
        return Err(InvalidBatch::Corrupt(format!("invalid magic {magic}")));
    }
    let size = LENGTH_OVERHEAD + length as usize;
    if size > bytes.len() {
        return Ok(None);
    }
    if magic != MAGIC {
        return Err(invalid("only record batches with magic version 2 are allowed"));
    }
    match BatchHeader::read(bytes) {
        Some(header) if size >= HEADER_BYTES => Ok(Some((header, size))),
        _ => Err(InvalidBatch::Corrupt(format!(
            "a batch of {size} bytes is shorter than its head"
        ))),
    }
}

/// What the sum does not cover, and what it would take too long to make it of: judged before it, as in Kafka
/// (`UnifiedLog.analyzeAndValidateRecords`).
fn check_frame(header: &BatchHeader, size: usize, rules: &ValidationRules) -> Result<(), InvalidBatch> {
    if header.base_offset() != Offset::ZERO {
        return Err(invalid(&format!(
            "the base offset must be 0, but it is {}",
            header.base_offset()
        )));
    }
    if size > rules.max_message_bytes as usize {
        return Err(InvalidBatch::TooLarge {
            size_bytes: size,
            max_bytes: rules.max_message_bytes,
        });
    }
    Ok(())
}

/// What the sum covers: a head with another bit is damaged (CORRUPT_MESSAGE, clients send it again), whatever it says.
fn check_head(header: &BatchHeader, rules: &ValidationRules) -> Result<(), InvalidBatch> {
    if header.codec() == Some(Codec::Zstd) && !rules.zstd_allowed {
        return Err(InvalidBatch::UnsupportedCompression(
            "zstd needs version 7 of Produce".to_owned(),
        ));
    }
    let count = header.record_count();
    if count <= 0 {
        return Err(invalid(&format!("invalid record count {count}")));
    }
    if i64::from(header.last_offset_delta()) + 1 != i64::from(count) {
        return Err(invalid(&format!(
            "the last offset delta {} does not fit {count} records",
            header.last_offset_delta()
        )));
    }
    if header.is_control() {
        return Err(invalid("clients may not write control records"));
    }
    if header.has_producer_id() && header.base_sequence().get() < 0 {
        return Err(invalid(&format!(
            "invalid sequence {} of producer {}",
            header.base_sequence(),
            header.producer_id()
        )));
    }
    if header.codec().is_none() {
        return Err(InvalidBatch::Corrupt("unknown codec".to_owned()));
    }
    Ok(())
}

/// Looks at each record; gives the largest timestamp.
fn check_records(batch: &ValidBatch, rules: &ValidationRules) -> Result<WallMs, InvalidBatch> {
    // Timestamps are judged as the producer gave them, whatever its LogAppendTime bit says.
    let mut header = batch.header;
    header.set_attributes(BatchHeader::with_log_append_time(header.attributes(), false));
    let create_time = rules.timestamp_type == TimestampType::CreateTime;
    let earliest = rules.now.get().saturating_sub(rules.timestamp_before_max_ms);
    let latest = rules.now.get().saturating_add(rules.timestamp_after_max_ms);
    let mut max_timestamp = WallMs::NONE;
    let mut wrong_delta = None;
    let mut no_key = Vec::new();
    let mut bad_time = Vec::new();
    walk_records(&header, &batch.records, |record: RecordShape| {
        max_timestamp = max_timestamp.max(record.timestamp);
        if record.offset_delta != record.index && wrong_delta.is_none() {
            wrong_delta = Some(record.index);
        }
        if rules.keys_required && !record.has_key && no_key.len() < RECORD_ERRORS_MAX {
            no_key.push(RecordError {
                index: record.index,
                message: "Compacted topic cannot accept message without key.".to_owned(),
            });
        }
        let at = record.timestamp.get();
        if create_time && at != -1 && !(earliest..=latest).contains(&at) && bad_time.len() < RECORD_ERRORS_MAX
        {
            bad_time.push(RecordError {
                index: record.index,
                message: format!(
                    "Timestamp {at} is out of range: it should be within [{earliest}, {latest}]"
                ),
            });
        }
    })
    .map_err(|error| match error {
        BrokenRecords::Unpack(why) => InvalidBatch::Corrupt(why),
        BrokenRecords::Invalid(why) => invalid(&why),
    })?;
    if let Some(index) = wrong_delta {
        return Err(invalid(&format!("record {index} does not have the next offset")));
    }
    if !bad_time.is_empty() {
        bad_time.extend(no_key);
        bad_time.sort_by_key(|error| error.index);
        return Err(InvalidBatch::InvalidTimestamp {
            record_errors: bad_time,
            message: "One or more records have been rejected due to invalid timestamp".to_owned(),
        });
    }
    if !no_key.is_empty() {
        return Err(InvalidBatch::InvalidRecord {
            message: format!(
                "One or more records have been rejected due to {} record errors in total",
                no_key.len()
            ),
            record_errors: no_key,
        });
    }
    Ok(max_timestamp)
}

fn recompression(target: TargetCompression, source: Option<Codec>) -> Option<Compression> {
    let wanted = match target {
        TargetCompression::Producer => return None,
        TargetCompression::None => Compression::None,
        TargetCompression::Gzip(level) => Compression::Gzip(level),
        TargetCompression::Snappy => Compression::Snappy,
        TargetCompression::Lz4(_) => Compression::Lz4,
        TargetCompression::Zstd(level) => Compression::Zstd(level),
    };
    (source != Some(wanted.codec())).then_some(wanted)
}

fn invalid(message: &str) -> InvalidBatch {
    InvalidBatch::InvalidRecord {
        record_errors: Vec::new(),
        message: message.to_owned(),
    }
}
