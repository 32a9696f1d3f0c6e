//! Record batches (v2) as the simulated clients write and read them.
//!
//! The broker has its own code for this, and so has the client crate: a mistake of one must not hide in the other.
//! Deliberately absent: control batches, more than one header.

use std::io::{Read as _, Write as _};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use skerry_checker::history::{RecordKey, Value};

/// Up to and with the batch's length field.
const PREFIX_BYTES: usize = 12;
/// The whole header.
pub(crate) const HEADER_BYTES: usize = 61;
/// Where the sum's cover begins: the attributes.
const SUMMED_FROM: usize = 21;

/// Who writes: an idempotent producer has an identity, a plain one has -1, -1, -1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
}

impl Identity {
    pub(crate) const NONE: Self = Self {
        id: -1,
        epoch: -1,
        sequence: -1,
    };
}

/// How Java's clients and the broker frame snappy: this, two versions, and blocks with their lengths. Other clients do not.
const XERIAL: &[u8] = b"\x82SNAPPY\0";
const XERIAL_VERSIONS_BYTES: usize = 8;

/// How the records of a batch are packed: Kafka's numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl Codec {
    pub(crate) const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    fn of(attributes: u8) -> Option<Self> {
        Self::ALL.get(usize::from(attributes & 0b111)).copied()
    }

    fn pack(self, plain: &[u8]) -> std::io::Result<Vec<u8>> {
        Ok(match self {
            Self::None => plain.to_vec(),
            Self::Gzip => {
                let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
                out.write_all(plain)?;
                out.finish()?
            }
            Self::Snappy => snap::raw::Encoder::new()
                .compress_vec(plain)
                .map_err(std::io::Error::other)?,
            Self::Lz4 => {
                let mut out = lz4_flex::frame::FrameEncoder::new(Vec::new());
                out.write_all(plain)?;
                out.finish().map_err(std::io::Error::other)?
            }
            Self::Zstd => zstd::stream::encode_all(plain, 3)?,
        })
    }

    fn unpack(self, packed: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        match self {
            Self::None => plain.extend_from_slice(packed),
            Self::Gzip => {
                flate2::bufread::GzDecoder::new(packed).read_to_end(&mut plain)?;
            }
            Self::Snappy => match packed.strip_prefix(XERIAL) {
                Some(framed) => {
                    let mut rest = framed.get(XERIAL_VERSIONS_BYTES..).unwrap_or_default();
                    while let Some((length, blocks)) = rest.split_first_chunk() {
                        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(usize::MAX);
                        let block = blocks.get(..length).ok_or(std::io::ErrorKind::UnexpectedEof)?;
                        plain.extend(unpack_snappy(block)?);
                        rest = &blocks[length..];
                    }
                }
                None => plain = unpack_snappy(packed)?,
            },
            Self::Lz4 => {
                lz4_flex::frame::FrameDecoder::new(packed).read_to_end(&mut plain)?;
            }
            Self::Zstd => plain = zstd::stream::decode_all(packed)?,
        }
        Ok(plain)
    }
}

fn unpack_snappy(block: &[u8]) -> std::io::Result<Vec<u8>> {
    snap::raw::Decoder::new()
        .decompress_vec(block)
        .map_err(std::io::Error::other)
}

/// Encodes a batch. Each record's value is its [`Value`] as text, padded to `padded_bytes`.
pub(crate) fn encode(values: &[Value], identity: Identity, timestamp: i64, padded_bytes: usize) -> Bytes {
    encode_packed(values, identity, timestamp, padded_bytes, Codec::None)
}

/// The same, packed.
pub(crate) fn encode_packed(
    values: &[Value],
    identity: Identity,
    timestamp: i64,
    padded_bytes: usize,
    codec: Codec,
) -> Bytes {
    let pairs = values.iter().map(|value| {
        let mut text = value.to_string().into_bytes();
        text.resize(text.len().max(padded_bytes), b'.');
        (value.producer.to_be_bytes(), text)
    });
    encode_pairs(pairs, identity, timestamp, codec)
}

/// A batch for a topic that is compacted: each record has a key of its own, and is a tombstone or has a value. A header says
/// which one it is.
pub(crate) fn encode_keyed(
    records: &[(Value, RecordKey)],
    identity: Identity,
    timestamp: i64,
    padded_bytes: usize,
    codec: Codec,
) -> Bytes {
    let raw = records.iter().map(|(value, key)| {
        let name = value.to_string().into_bytes();
        let mut text = name.clone();
        text.resize(text.len().max(padded_bytes), b'.');
        Raw {
            key: key.key.as_bytes().to_vec(),
            value: (!key.tombstone).then_some(text),
            name: Some(name),
        }
    });
    encode_raw(raw, identity, timestamp, codec)
}

/// A batch of these keys and values.
pub(crate) fn encode_pairs<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    pairs: impl Iterator<Item = (K, V)>,
    identity: Identity,
    timestamp: i64,
    codec: Codec,
) -> Bytes {
    let raw = pairs.map(|(key, value)| Raw {
        key: key.as_ref().to_vec(),
        value: Some(value.as_ref().to_vec()),
        name: None,
    });
    encode_raw(raw, identity, timestamp, codec)
}

/// A record to be written.
struct Raw {
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    /// In a header.
    name: Option<Vec<u8>>,
}

fn encode_raw(raw: impl Iterator<Item = Raw>, identity: Identity, timestamp: i64, codec: Codec) -> Bytes {
    let mut records = BytesMut::new();
    let mut count = 0;
    for Raw { key, value, name } in raw {
        let mut record = BytesMut::new();
        record.put_i8(0);
        put_varint(&mut record, 0);
        put_varint(&mut record, i64::from(count));
        put_bytes(&mut record, Some(&key));
        put_bytes(&mut record, value.as_deref());
        put_varint(&mut record, i64::from(name.is_some()));
        if let Some(name) = &name {
            put_bytes(&mut record, Some(NAME));
            put_bytes(&mut record, Some(name));
        }
        put_varint(&mut records, record.len() as i64);
        records.put_slice(&record);
        count += 1;
    }
    let packed = codec.pack(&records).expect("memory takes what is written");
    let mut body = BytesMut::with_capacity(HEADER_BYTES + packed.len());
    body.put_bytes(0, HEADER_BYTES);
    body.put_slice(&packed);
    let length = i32::try_from(body.len() - PREFIX_BYTES).unwrap_or(i32::MAX);
    let mut header = BytesMut::with_capacity(HEADER_BYTES);
    header.put_i64(0);
    header.put_i32(length);
    header.put_i32(-1);
    header.put_i8(2);
    header.put_u32(0);
    header.put_i16(i16::from(codec as u8));
    header.put_i32(count - 1);
    header.put_i64(timestamp);
    header.put_i64(timestamp);
    header.put_i64(identity.id);
    header.put_i16(identity.epoch);
    header.put_i32(identity.sequence);
    header.put_i32(count);
    body[..HEADER_BYTES].copy_from_slice(&header);
    let sum = crc32c::crc32c(&body[SUMMED_FROM..]);
    body[17..21].copy_from_slice(&sum.to_be_bytes());
    body.freeze()
}

/// The header that says which record it is, where its value need not.
const NAME: &[u8] = b"name";

/// A record as it was read.
struct Parsed {
    offset: i64,
    key: Bytes,
    value: Option<Bytes>,
    name: Option<Bytes>,
}

impl Parsed {
    /// Which record of the workload it is.
    fn identify(&self) -> Result<Value, String> {
        let text = self.value.as_deref().or(self.name.as_deref()).unwrap_or_default();
        let padded_from = text
            .iter()
            .rposition(|byte| *byte != b'.')
            .map_or(0, |last| last + 1);
        let text = &text[..padded_from];
        if self.name.as_ref().is_some_and(|name| name != text) {
            return Err(format!("offset {}: its header names another record", self.offset));
        }
        let parsed = String::from_utf8_lossy(text).parse();
        parsed.map_err(|why| format!("offset {}: {why}", self.offset))
    }
}

/// A batch where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Batch<'a> {
    pub(crate) base: i64,
    pub(crate) count: i64,
    pub(crate) crc: u32,
    /// The whole batch with its header.
    pub(crate) bytes: &'a [u8],
}

impl Batch<'_> {
    /// The epoch of the leader that took it.
    pub(crate) fn leader_epoch(&self) -> i32 {
        let bytes = self.bytes.get(12..16).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(-1, i32::from_be_bytes)
    }

    /// The latest timestamp of its records.
    pub(crate) fn timestamp(&self) -> i64 {
        let bytes = self.bytes.get(35..43).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(-1, i64::from_be_bytes)
    }

    /// True where the bytes are those that the sum was made of.
    pub(crate) fn is_whole(&self) -> bool {
        crc32c::crc32c(&self.bytes[SUMMED_FROM..]) == self.crc
    }

    /// Offset after its last record.
    pub(crate) fn end(&self) -> i64 {
        self.base + self.count
    }

    /// Its records as (offset, key, value), where no value is an empty one. `None`: it makes no sense.
    pub(crate) fn records(&self) -> Option<Vec<(i64, Bytes, Bytes)>> {
        let parsed = self.parsed()?.into_iter();
        Some(
            parsed
                .map(|record| (record.offset, record.key, record.value.unwrap_or_default()))
                .collect(),
        )
    }

    fn parsed(&self) -> Option<Vec<Parsed>> {
        let codec = Codec::of(self.bytes[22])?;
        let mut rest = Bytes::from(codec.unpack(&self.bytes[HEADER_BYTES..]).ok()?);
        let mut records = Vec::new();
        // Compaction may have left fewer than there are offsets, or none.
        let count = i32::from_be_bytes(self.bytes[57..HEADER_BYTES].try_into().ok()?);
        for _ in 0..count {
            let length = usize::try_from(varint(&mut rest)?).ok()?;
            if length > rest.len() {
                return None;
            }
            let mut record = rest.split_to(length);
            take(&mut record, 1)?;
            varint(&mut record)?;
            let delta = varint(&mut record)?;
            let key = nullable(&mut record)?.unwrap_or_default();
            let value = nullable(&mut record)?;
            let mut name = None;
            for _ in 0..varint(&mut record)? {
                let is_name = nullable(&mut record)?.is_some_and(|header| header == NAME);
                let header = nullable(&mut record)?;
                name = header.filter(|_| is_name).or(name);
            }
            records.push(Parsed {
                offset: self.base + delta,
                key,
                value,
                name,
            });
        }
        rest.is_empty().then_some(records)
    }
}

/// The batch at the beginning of `bytes`; `None` where no whole one is.
pub(crate) fn first(bytes: &[u8]) -> Option<Batch<'_>> {
    if bytes.len() < HEADER_BYTES {
        return None;
    }
    let base = i64::from_be_bytes(bytes[..8].try_into().ok()?);
    let length = usize::try_from(i32::from_be_bytes(bytes[8..12].try_into().ok()?)).ok()?;
    let whole = bytes
        .get(..PREFIX_BYTES + length)
        .filter(|whole| whole.len() >= HEADER_BYTES)?;
    let crc = u32::from_be_bytes(whole[17..21].try_into().ok()?);
    let last_delta = i32::from_be_bytes(whole[23..27].try_into().ok()?);
    Some(Batch {
        base,
        count: i64::from(last_delta) + 1,
        crc,
        bytes: whole,
    })
}

/// All whole batches at the beginning of `bytes`.
pub(crate) fn batches(mut bytes: &[u8]) -> impl Iterator<Item = Batch<'_>> {
    std::iter::from_fn(move || {
        let batch = first(bytes)?;
        bytes = &bytes[batch.bytes.len()..];
        Some(batch)
    })
}

/// The values in `bytes` from offset `from` on. The error says which batch is no batch of the workload.
pub(crate) fn values(bytes: &[u8], from: i64) -> Result<Vec<(i64, Value)>, String> {
    let mut values = Vec::new();
    for batch in batches(bytes) {
        if !batch.is_whole() {
            return Err(format!("the batch at {} fails its sum", batch.base));
        }
        let records = batch
            .parsed()
            .ok_or_else(|| format!("the batch at {} cannot be read", batch.base))?;
        for record in records.iter().filter(|record| record.offset >= from) {
            values.push((record.offset, record.identify()?));
        }
    }
    Ok(values)
}

fn put_bytes(out: &mut BytesMut, bytes: Option<&[u8]>) {
    put_varint(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.put_slice(bytes.unwrap_or_default());
}

fn put_varint(out: &mut BytesMut, value: i64) {
    let mut zigzag = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while zigzag >= 0x80 {
        out.put_u8((zigzag & 0x7f) as u8 | 0x80);
        zigzag >>= 7;
    }
    out.put_u8(zigzag as u8);
}

fn varint(bytes: &mut Bytes) -> Option<i64> {
    let mut zigzag = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.first()?;
        bytes.advance(1);
        zigzag |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
        }
    }
    None
}

fn take(bytes: &mut Bytes, len: usize) -> Option<Bytes> {
    (len <= bytes.len()).then(|| bytes.split_to(len))
}

fn nullable(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match varint(bytes)? {
        -1 => Some(None),
        len => take(bytes, usize::try_from(len).ok()?).map(Some),
    }
}

/// The files of a partition's log, by the offsets that they begin with.
pub(crate) mod segment {
    use std::path::{Path, PathBuf};

    /// The first offset of the segment that this file is, if it is one.
    pub(crate) fn base(name: &str) -> Option<i64> {
        name.strip_suffix(".log")?.parse().ok()
    }

    /// The name of the segment that begins with this offset.
    pub(crate) fn name(base: i64) -> String {
        format!("{base:020}.log")
    }

    /// Where it is.
    pub(crate) fn path(dir: &Path, base: i64) -> PathBuf {
        dir.join(name(base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_they_were_written() {
        let sent: Vec<_> = (0..5).map(|serial| Value { producer: 3, serial }).collect();
        let identity = Identity {
            id: 7,
            epoch: 0,
            sequence: 5,
        };
        let batch = encode(&sent, identity, 1, 100);
        let read = values(&batch, 2).unwrap();
        assert_eq!(
            read.iter().map(|(offset, _)| *offset).collect::<Vec<_>>(),
            [2, 3, 4]
        );
        assert_eq!(read[0].1, sent[2]);
        let mut torn = batch.to_vec();
        torn[70] ^= 1;
        assert!(values(&torn, 0).is_err());
        assert!(
            values(&batch[..batch.len() - 1], 0).unwrap().is_empty(),
            "a part of a batch is no batch"
        );
    }

    #[test]
    fn packed_batches_are_read_as_they_were_written() {
        let sent: Vec<_> = (0..5).map(|serial| Value { producer: 3, serial }).collect();
        for codec in Codec::ALL {
            let batch = encode_packed(&sent, Identity::NONE, 1, 300, codec);
            let read = values(&batch, 0).unwrap();
            assert_eq!(
                read.into_iter().map(|(_, value)| value).collect::<Vec<_>>(),
                sent,
                "{codec:?}"
            );
        }
    }

    #[test]
    fn snappy_is_read_as_java_frames_it() {
        let mut framed = XERIAL.to_vec();
        framed.extend([0, 0, 0, 1, 0, 0, 0, 1]);
        for block in [&b"one"[..], b"two"] {
            let packed = Codec::Snappy.pack(block).unwrap();
            framed.extend(u32::try_from(packed.len()).unwrap().to_be_bytes());
            framed.extend(packed);
        }
        assert_eq!(Codec::Snappy.unpack(&framed).unwrap(), b"onetwo");
        assert!(Codec::Snappy.unpack(&framed[..framed.len() - 1]).is_err());
    }

    #[test]
    fn tombstones_say_in_a_header_which_they_are() {
        let sent = |serial, key: &str, tombstone| {
            let key = key.to_owned();
            (Value { producer: 3, serial }, RecordKey { key, tombstone })
        };
        let sent = [sent(0, "a", false), sent(1, "a", true)];
        let batch = encode_keyed(&sent, Identity::NONE, 1, 20, Codec::None);
        let read = values(&batch, 0).unwrap();
        assert_eq!(read, [(0, sent[0].0), (1, sent[1].0)]);
        let records = first(&batch).unwrap().records().unwrap();
        assert_eq!(
            (&*records[0].1, &*records[0].2),
            (&b"a"[..], &b"p3.0................"[..])
        );
        assert!(records[1].2.is_empty());
        // The value of one record beside the header of another.
        let mixed = Parsed {
            offset: 7,
            key: Bytes::new(),
            value: Some(Bytes::from_static(b"p3.1..")),
            name: Some(Bytes::from_static(b"p3.0")),
        };
        assert!(mixed.identify().is_err());
    }

    #[test]
    fn what_compaction_leaves_of_a_batch_is_read() {
        let sent: Vec<_> = (0..3).map(|serial| Value { producer: 3, serial }).collect();
        let whole = encode(&sent, Identity::NONE, 1, 0);
        // The last record alone, in the place that it has.
        let records = first(&whole).unwrap().records().unwrap();
        let length = (whole.len() - HEADER_BYTES) / 3;
        let thinned = |left: std::ops::Range<usize>, count: u8| {
            let mut bytes = whole.to_vec();
            bytes.drain(HEADER_BYTES + length * left.end..);
            bytes.drain(HEADER_BYTES..HEADER_BYTES + length * left.start);
            let size = (bytes.len() - PREFIX_BYTES) as u8;
            (bytes[11], bytes[60]) = (size, count);
            bytes
        };
        let last = thinned(2..3, 1);
        assert_eq!(first(&last).unwrap().records().unwrap(), records[2..]);
        assert_eq!((records[2].0, first(&last).unwrap().end()), (2, 3));
        // An empty batch keeps its producer's place, and its offsets.
        let empty = thinned(0..0, 0);
        assert_eq!(first(&empty).unwrap().records(), Some(vec![]));
        assert_eq!(first(&empty).unwrap().end(), 3);
        assert_eq!(
            first(&thinned(0..2, 1)).unwrap().records(),
            None,
            "more than it says"
        );
        assert_eq!(first(&thinned(0..1, 2)).unwrap().records(), None, "less");
    }

    #[test]
    fn kafka_s_own_codec_reads_what_is_written() {
        use kafka_protocol::records::RecordBatchDecoder;
        let sent = [Value {
            producer: 3,
            serial: 9,
        }];
        let mut batch = encode(&sent, Identity::NONE, 1, 20);
        let set = RecordBatchDecoder::decode(&mut batch).unwrap();
        assert_eq!(
            set.records[0].value.as_ref().unwrap().as_ref(),
            b"p3.9................"
        );
    }
}
