use bytes::{BufMut, Bytes};
use skerry_types::{LeaderEpoch, Offset, ProducerIdentity, Sequence, WallMs};

use super::compression::Compression;
use super::header::{BatchHeader, HEADER_BYTES, LENGTH_OVERHEAD};
use super::records::Header;

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerType {
    /// Its records count for nothing.
    Abort,
    /// Its records count.
    Commit,
}

/// Builds one batch. Offsets start at `base_offset` (0 for a batch that a leader will place).
pub struct BatchBuilder {
    header: BatchHeader,
    compression: Compression,
    plain: Vec<u8>,
    count: i32,
    last_offset_delta: i32,
    base_timestamp: Option<WallMs>,
    max_timestamp: WallMs,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new(Compression::None)
    }
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new(compression: Compression) -> Self {
        Self {
            header: BatchHeader::zeroed(),
            compression,
            plain: Vec::new(),
            count: 0,
            last_offset_delta: -1,
            base_timestamp: None,
            max_timestamp: WallMs::NONE,
        }
    }

    /// Starts at `base`, in `epoch`.
    #[must_use]
    pub fn at(mut self, base: Offset, epoch: LeaderEpoch) -> Self {
        self.header = self.header.placed(base, epoch);
        self
    }

    /// Written by an idempotent producer.
    #[must_use]
    pub fn producer(mut self, producer: ProducerIdentity, base_sequence: Sequence) -> Self {
        self.header
            .set_producer(producer.id, producer.epoch, base_sequence);
        self
    }

    /// Part of a transaction.
    #[must_use]
    pub fn transactional(mut self) -> Self {
        self.header
            .set_attributes(self.header.attributes() | BatchHeader::flags(true, false));
        self
    }

    /// Holds control records.
    #[must_use]
    pub fn control(mut self) -> Self {
        self.header
            .set_attributes(self.header.attributes() | BatchHeader::flags(false, true));
        self
    }

    /// Adds a record with the next offset.
    pub fn push(&mut self, timestamp: WallMs, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[Header]) {
        self.push_at(self.last_offset_delta + 1, timestamp, key, value, headers);
    }

    /// Adds a record with its offset counted from the base; gaps are allowed, as compaction leaves them.
    pub fn push_at(
        &mut self,
        offset_delta: i32,
        timestamp: WallMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header],
    ) {
        let base = *self.base_timestamp.get_or_insert(timestamp);
        let timestamp_delta = timestamp.get().wrapping_sub(base.get());
        encode_record(
            &mut self.plain,
            timestamp_delta,
            offset_delta,
            key,
            value,
            headers,
        );
        self.count += 1;
        self.last_offset_delta = offset_delta;
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }

    /// Records so far.
    #[must_use]
    pub fn count(&self) -> i32 {
        self.count
    }

    /// Bytes so far, before compression.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        HEADER_BYTES + self.plain.len()
    }

    /// The batch.
    ///
    /// # Panics
    /// Over 2 GiB of packed records.
    #[must_use]
    pub fn build(self) -> Bytes {
        let Self {
            mut header,
            compression,
            plain,
            count,
            last_offset_delta,
            base_timestamp,
            max_timestamp,
        } = self;
        let packed = compression.pack(&plain).expect("packing into memory cannot fail");
        let length = HEADER_BYTES - LENGTH_OVERHEAD + packed.len();
        header.set_length(i32::try_from(length).expect("a batch is smaller than 2 GiB"));
        header.set_attributes(BatchHeader::with_codec(header.attributes(), compression.codec()));
        header.set_last_offset_delta(last_offset_delta);
        header.set_base_timestamp(base_timestamp.unwrap_or(WallMs::NONE));
        header.set_max_timestamp(max_timestamp);
        header.set_record_count(count);
        header.seal(&packed);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + packed.len());
        bytes.put_slice(header.as_bytes());
        bytes.put_slice(&packed);
        bytes.into()
    }
}

/// The batch that ends a producer's transaction in one partition.
#[must_use]
pub fn end_transaction_marker(
    producer: ProducerIdentity,
    marker: MarkerType,
    coordinator_epoch: i32,
    now: WallMs,
) -> Bytes {
    let mut key = Vec::with_capacity(4);
    key.put_i16(0);
    key.put_i16(match marker {
        MarkerType::Abort => 0,
        MarkerType::Commit => 1,
    });
    let mut value = Vec::with_capacity(6);
    value.put_i16(0);
    value.put_i32(coordinator_epoch);
    let mut builder = BatchBuilder::default()
        .producer(producer, Sequence::NONE)
        .transactional()
        .control();
    builder.push(now, Some(&key), Some(&value), &[]);
    builder.build()
}

/// Appends one record in its framing.
pub(crate) fn encode_record(
    out: &mut Vec<u8>,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header],
) {
    let len = 1
        + varlong_len(timestamp_delta)
        + varint_len(offset_delta)
        + nullable_len(key)
        + nullable_len(value)
        + varint_len(len_i32(headers.len()))
        + headers
            .iter()
            .map(|h| nullable_len(Some(&h.key)) + nullable_len(h.value.as_deref()))
            .sum::<usize>();
    put_varint(out, len_i32(len));
    out.put_i8(0);
    put_varlong(out, timestamp_delta);
    put_varint(out, offset_delta);
    put_nullable(out, key);
    put_nullable(out, value);
    put_varint(out, len_i32(headers.len()));
    for header in headers {
        put_nullable(out, Some(&header.key));
        put_nullable(out, header.value.as_deref());
    }
}

fn len_i32(len: usize) -> i32 {
    i32::try_from(len).expect("a record is smaller than 2 GiB")
}

fn zigzag32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn varint_len(value: i32) -> usize {
    varlong_len(i64::from(value))
}

fn varlong_len(value: i64) -> usize {
    let bits = 64 - zigzag64(value).leading_zeros() as usize;
    bits.max(1).div_ceil(7)
}

fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_unsigned(out, u64::from(zigzag32(value)));
}

fn put_varlong(out: &mut Vec<u8>, value: i64) {
    put_unsigned(out, zigzag64(value));
}

fn put_unsigned(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn nullable_len(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(varint_len(-1), |bytes| {
        varint_len(len_i32(bytes.len())) + bytes.len()
    })
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        Some(bytes) => {
            put_varint(out, len_i32(bytes.len()));
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}
