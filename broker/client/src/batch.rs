//! Record batches, version 2, as a client writes and reads them.

use bytes::{Buf as _, BufMut as _, Bytes};
use skerry_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, WallMs};

use crate::codec::{self, Compression};

/// The bytes before the records.
const HEADER_BYTES: usize = 61;
/// Base offset and length, which the length does not count.
const PREFIX_BYTES: usize = 12;
const CRC_AT: usize = 17;
const ATTRIBUTES_AT: usize = 21;
const PRODUCER_AT: usize = 43;
/// What one batch may hold when decompressed.
const PLAIN_BYTES_MAX: u64 = 1 << 30;

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name. Names may repeat.
    pub key: String,
    /// Its value.
    pub value: Option<Bytes>,
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What partitioning and compaction go by.
    pub key: Option<Bytes>,
    /// The payload; `None` deletes the key from a compacted topic.
    pub value: Option<Bytes>,
    /// Further fields.
    pub headers: Vec<Header>,
    /// When it happened.
    pub timestamp: WallMs,
}

impl Record {
    /// A record without headers.
    #[must_use]
    pub fn new(key: Option<Bytes>, value: Option<Bytes>, timestamp: WallMs) -> Self {
        Self {
            key,
            value,
            headers: Vec::new(),
            timestamp,
        }
    }

    /// About as many bytes as it takes in a batch.
    #[must_use]
    pub fn size(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self
            .headers
            .iter()
            .map(|header| header.key.len() + len(&header.value) + 4)
            .sum();
        21 + len(&self.key) + len(&self.value) + headers
    }
}

/// A record that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedRecord {
    /// Where it stands.
    pub offset: Offset,
    /// When it happened, or when the broker appended it.
    pub timestamp: WallMs,
    /// See [`Record::key`].
    pub key: Option<Bytes>,
    /// See [`Record::value`].
    pub value: Option<Bytes>,
    /// See [`Record::headers`].
    pub headers: Vec<Header>,
}

/// A batch that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedBatch {
    /// The offset that its first record had when it was written. Compaction may have removed that record.
    pub base_offset: Offset,
    /// The offset of its last record when it was written.
    pub last_offset: Offset,
    /// Who led when it was written.
    pub leader_epoch: LeaderEpoch,
    /// Bit for bit as it stands.
    pub attributes: i16,
    /// The largest timestamp.
    pub max_timestamp: WallMs,
    /// Who wrote it; ids of -1 where nobody told.
    pub producer: ProducerIdentity,
    /// The sequence of its first record.
    pub base_sequence: Sequence,
    /// Its records.
    pub records: Vec<FetchedRecord>,
}

impl FetchedBatch {
    /// True for the markers of transactions, which are not for users.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// True for what was written in a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }
}

/// Bytes that are no batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the batch at offset {base_offset} is damaged: {why}")]
pub struct BadBatch {
    /// The base offset that it claims.
    pub base_offset: i64,
    /// What is wrong with it.
    pub why: String,
}

/// One batch of `records`, without a producer's identity.
///
/// # Panics
/// Without records, and with more than 2 GiB of them: both are mistakes of the caller.
#[must_use]
pub fn encode(records: &[Record], compression: Compression) -> Vec<u8> {
    let first = records.first().expect("a batch has records");
    let count = i32::try_from(records.len()).expect("a batch counts its records in 32 bits");
    let base_timestamp = first.timestamp.get();
    let max_timestamp = records
        .iter()
        .map(|record| record.timestamp.get())
        .max()
        .unwrap_or(base_timestamp);
    let mut plain = Vec::with_capacity(records.iter().map(Record::size).sum());
    let mut body = Vec::new();
    for (delta, record) in (0_i64..).zip(records) {
        body.clear();
        put_record(&mut body, record, delta, base_timestamp);
        put_varint(&mut plain, len_i64(&body));
        plain.extend_from_slice(&body);
    }
    let stored = codec::compress(compression, plain);
    let mut batch = Vec::with_capacity(HEADER_BYTES + stored.len());
    batch.put_i64(0);
    let len = i32::try_from(HEADER_BYTES - PREFIX_BYTES + stored.len()).expect("a batch below 2 GiB");
    batch.put_i32(len);
    batch.put_i32(LeaderEpoch::UNKNOWN.get());
    batch.put_i8(2);
    batch.put_u32(0);
    batch.put_i16(compression as i16);
    batch.put_i32(count - 1);
    batch.put_i64(base_timestamp);
    batch.put_i64(max_timestamp);
    batch.put_i64(ProducerId::NONE.get());
    batch.put_i16(ProducerEpoch::NONE.get());
    batch.put_i32(Sequence::NONE.get());
    batch.put_i32(count);
    batch.extend_from_slice(&stored);
    seal(&mut batch);
    batch
}

/// Gives `batch` a producer's identity and its place in that producer's sequence.
///
/// # Panics
/// Where `batch` was not made by [`encode`].
pub fn stamp(batch: &mut [u8], producer: ProducerIdentity, sequence: Sequence) {
    let mut fields = &mut batch[PRODUCER_AT..PRODUCER_AT + 14];
    fields.put_i64(producer.id.get());
    fields.put_i16(producer.epoch.get());
    fields.put_i32(sequence.get());
    seal(batch);
}

fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[ATTRIBUTES_AT..]);
    batch[CRC_AT..ATTRIBUTES_AT].copy_from_slice(&crc.to_be_bytes());
}

fn len_i64(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

fn put_record(out: &mut Vec<u8>, record: &Record, delta: i64, base_timestamp: i64) {
    out.push(0);
    put_varint(out, record.timestamp.get().wrapping_sub(base_timestamp));
    put_varint(out, delta);
    put_bytes(out, record.key.as_deref());
    put_bytes(out, record.value.as_deref());
    put_varint(out, i64::try_from(record.headers.len()).unwrap_or(i64::MAX));
    for header in &record.headers {
        put_bytes(out, Some(header.key.as_bytes()));
        put_bytes(out, header.value.as_deref());
    }
}

fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, len_i64));
    out.extend_from_slice(bytes.unwrap_or(&[]));
}

fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    while rest >= 0x80 {
        out.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// The whole batches in `bytes`. What follows the last whole one is not looked at: a Fetch may be cut off there.
///
/// # Errors
/// [`BadBatch`]: a wrong sum, a wrong length, a codec's complaint.
pub fn decode(mut bytes: Bytes) -> Result<Vec<FetchedBatch>, BadBatch> {
    let mut batches = Vec::new();
    while bytes.len() >= PREFIX_BYTES {
        let base_offset = i64::from_be_bytes(*bytes.first_chunk().unwrap_or(&[0; 8]));
        let bad = |why: String| BadBatch { base_offset, why };
        let len = (&bytes[8..12]).get_i32();
        let whole = usize::try_from(len).ok().map(|len| len + PREFIX_BYTES);
        let whole = whole.filter(|whole| *whole >= HEADER_BYTES);
        let whole = whole.ok_or_else(|| bad(format!("its length is {len}")))?;
        if bytes.len() < whole {
            break;
        }
        batches.push(decode_one(bytes.split_to(whole)).map_err(bad)?);
    }
    Ok(batches)
}

fn decode_one(bytes: Bytes) -> Result<FetchedBatch, String> {
    let mut header = &bytes[..HEADER_BYTES];
    let base_offset = Offset(header.get_i64());
    let _len = header.get_i32();
    let leader_epoch = LeaderEpoch(header.get_i32());
    let magic = header.get_i8();
    if magic != 2 {
        return Err(format!("its magic is {magic}"));
    }
    let told = header.get_u32();
    let found = crc32c::crc32c(&bytes[ATTRIBUTES_AT..]);
    if told != found {
        return Err(format!("its sum is {found:08x}, and it tells {told:08x}"));
    }
    let attributes = header.get_i16();
    let last_offset = base_offset.plus(header.get_i32().into());
    let base_timestamp = header.get_i64();
    let max_timestamp = WallMs(header.get_i64());
    let producer = ProducerIdentity {
        id: ProducerId(header.get_i64()),
        epoch: ProducerEpoch(header.get_i16()),
    };
    let base_sequence = Sequence(header.get_i32());
    let count = header.get_i32();
    let compression = Compression::from_attributes(attributes).map_err(|error| error.to_string())?;
    let stored = bytes.slice(HEADER_BYTES..);
    let mut plain =
        codec::decompress(compression, stored, PLAIN_BYTES_MAX).map_err(|error| error.to_string())?;
    let append_time = (attributes & 0x08 != 0).then_some(max_timestamp);
    let mut records = Vec::new();
    for _ in 0..count {
        let mut record = take_record(&mut plain, base_offset, base_timestamp).ok_or("a record is cut off")?;
        record.timestamp = append_time.unwrap_or(record.timestamp);
        records.push(record);
    }
    if !plain.is_empty() {
        return Err(format!("{} bytes follow its last record", plain.len()));
    }
    Ok(FetchedBatch {
        base_offset,
        last_offset,
        leader_epoch,
        attributes,
        max_timestamp,
        producer,
        base_sequence,
        records,
    })
}

fn take_record(plain: &mut Bytes, base_offset: Offset, base_timestamp: i64) -> Option<FetchedRecord> {
    let len = usize::try_from(take_varint(plain)?)
        .ok()
        .filter(|len| *len <= plain.len())?;
    let mut body = plain.split_to(len);
    let _attributes = (!body.is_empty()).then(|| body.get_u8())?;
    let timestamp = WallMs(base_timestamp.wrapping_add(take_varint(&mut body)?));
    let offset = base_offset.plus(take_varint(&mut body)?);
    let key = take_bytes(&mut body)?;
    let value = take_bytes(&mut body)?;
    let mut headers = Vec::new();
    for _ in 0..take_varint(&mut body)? {
        let key = String::from_utf8_lossy(&take_bytes(&mut body)??).into_owned();
        headers.push(Header {
            key,
            value: take_bytes(&mut body)?,
        });
    }
    body.is_empty().then_some(FetchedRecord {
        offset,
        timestamp,
        key,
        value,
        headers,
    })
}

fn take_bytes(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match take_varint(bytes)? {
        -1 => Some(None),
        len => {
            let len = usize::try_from(len).ok().filter(|len| *len <= bytes.len())?;
            Some(Some(bytes.split_to(len)))
        }
    }
}

fn take_varint(bytes: &mut Bytes) -> Option<i64> {
    let mut raw = 0_u64;
    for shift in (0..64).step_by(7) {
        if bytes.is_empty() {
            return None;
        }
        let byte = bytes.get_u8();
        raw |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_bytes() -> impl Strategy<Value = Option<Bytes>> {
        proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from))
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let header = ("[a-z]{0,5}", any_bytes()).prop_map(|(key, value)| Header { key, value });
        (
            any_bytes(),
            any_bytes(),
            proptest::collection::vec(header, 0..3),
            0..i64::MAX / 2,
        )
            .prop_map(|(key, value, headers, timestamp)| Record {
                key,
                value,
                headers,
                timestamp: WallMs(timestamp),
            })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(records in proptest::collection::vec(any_record(), 1..20), codec in 0..5_usize, repeat in 1..50_usize) {
            let records: Vec<Record> = records.iter().cycle().take(records.len() * repeat).cloned().collect();
            let mut bytes = encode(&records, Compression::ALL[codec]);
            let producer = ProducerIdentity { id: ProducerId(7), epoch: ProducerEpoch(3) };
            stamp(&mut bytes, producer, Sequence(11));
            let batches = decode(bytes.into()).unwrap();
            prop_assert_eq!(batches.len(), 1);
            let batch = &batches[0];
            prop_assert_eq!((batch.producer, batch.base_sequence), (producer, Sequence(11)));
            let read: Vec<Record> = batch.records.iter().map(|record| Record {
                key: record.key.clone(),
                value: record.value.clone(),
                headers: record.headers.clone(),
                timestamp: record.timestamp,
            }).collect();
            prop_assert_eq!(read, records);
        }

        #[test]
        fn damage_is_found_and_nothing_panics(at in 0..200_usize, bit in 0..8_u32, cut in 0..200_usize, codec in 0..5_usize) {
            let records = vec![Record::new(None, Some(vec![b'x'; 100].into()), WallMs(1)); 3];
            let good = encode(&records, Compression::ALL[codec]);
            let mut bytes = good.clone();
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            // The base offset and the leader's epoch are outside the sum.
            if let Ok(batches) = decode(bytes.into()) {
                prop_assert!(at < 16 || batches.is_empty(), "byte {at}");
            }
            let cut = cut % good.len();
            prop_assert_eq!(decode(good[..cut].to_vec().into()), Ok(Vec::new()));
        }

        #[test]
        fn varints(value in any::<i64>()) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(take_varint(&mut Bytes::from(out)), Some(value));
        }
    }
}
