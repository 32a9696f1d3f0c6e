use bytes::Bytes;
use skerry_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, WallMs};

use super::compression::Codec;

/// Bytes of a batch's head; the records follow.
pub const HEADER_BYTES: usize = 61;
/// Bytes before the length counts: base offset and the length itself.
pub const LENGTH_OVERHEAD: usize = 12;
/// Record batches of KIP-98. There are no others since Kafka 4.0.
pub const MAGIC: i8 = 2;

const BASE_OFFSET: usize = 0;
const LENGTH: usize = 8;
const LEADER_EPOCH: usize = 12;
const MAGIC_AT: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const RECORD_COUNT: usize = 57;

const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const DELETE_HORIZON: i16 = 0x40;

/// The 61 bytes before a batch's records, copied out of a buffer: reading a field costs one load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader([u8; HEADER_BYTES]);

macro_rules! field {
    ($(#[$doc:meta])* $get:ident, $at:expr, $raw:ty, $ty:ty, $wrap:expr) => {
        $(#[$doc])*
        #[must_use]
        pub fn $get(&self) -> $ty {
            let mut raw = [0; size_of::<$raw>()];
            raw.copy_from_slice(&self.0[$at..$at + size_of::<$raw>()]);
            $wrap(<$raw>::from_be_bytes(raw))
        }
    };
}

impl BatchHeader {
    /// The head of the batch that starts `bytes`; `None` where fewer than 61 bytes are left.
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        bytes.first_chunk::<HEADER_BYTES>().map(|head| Self(*head))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; HEADER_BYTES] {
        &self.0
    }

    field!(
        /// The first record's offset; compaction may have removed that record.
        base_offset, BASE_OFFSET, i64, Offset, Offset
    );
    field!(
        /// Bytes after the length field.
        length, LENGTH, i32, i32, std::convert::identity
    );
    field!(
        /// The epoch of the leader that appended it.
        leader_epoch, LEADER_EPOCH, i32, LeaderEpoch, LeaderEpoch
    );
    field!(
        /// The format; 2.
        magic, MAGIC_AT, i8, i8, std::convert::identity
    );
    field!(
        /// CRC-32C of everything from the attributes on.
        crc, CRC, u32, u32, std::convert::identity
    );
    field!(
        /// Codec and flags.
        attributes, ATTRIBUTES, i16, i16, std::convert::identity
    );
    field!(
        /// The last offset minus the base offset; stays when records are compacted away.
        last_offset_delta, LAST_OFFSET_DELTA, i32, i32, std::convert::identity
    );
    field!(
        /// What timestamps count from; with a delete horizon, the horizon (KIP-534).
        base_timestamp, BASE_TIMESTAMP, i64, WallMs, WallMs
    );
    field!(
        /// The largest timestamp of its records, or the broker's.
        max_timestamp, MAX_TIMESTAMP, i64, WallMs, WallMs
    );
    field!(
        /// -1: written without idempotence.
        producer_id, PRODUCER_ID, i64, ProducerId, ProducerId
    );
    field!(
        /// The producer's instance.
        producer_epoch, PRODUCER_EPOCH, i16, ProducerEpoch, ProducerEpoch
    );
    field!(
        /// The first record's sequence; -1: none.
        base_sequence, BASE_SEQUENCE, i32, Sequence, Sequence
    );
    field!(
        /// How many records follow.
        record_count, RECORD_COUNT, i32, i32, std::convert::identity
    );

    /// Bytes of the whole batch, by its length field. `None`: shorter than a head, which cannot be.
    #[must_use]
    pub fn size_bytes(&self) -> Option<usize> {
        let length = usize::try_from(self.length()).ok()?;
        (length >= HEADER_BYTES - LENGTH_OVERHEAD).then_some(length + LENGTH_OVERHEAD)
    }

    /// The last offset that it covers.
    #[must_use]
    pub fn last_offset(&self) -> Offset {
        Offset(
            self.base_offset()
                .get()
                .wrapping_add(i64::from(self.last_offset_delta())),
        )
    }

    /// The offset after it.
    #[must_use]
    pub fn next_offset(&self) -> Offset {
        Offset(self.last_offset().get().wrapping_add(1))
    }

    /// The last record's sequence; -1: none.
    #[must_use]
    pub fn last_sequence(&self) -> Sequence {
        match self.base_sequence() {
            Sequence::NONE => Sequence::NONE,
            base => base.plus(self.last_offset_delta().max(0)),
        }
    }

    /// How the records are packed; `None` for the unassigned 5 to 7.
    #[must_use]
    pub fn codec(&self) -> Option<Codec> {
        Codec::from_attributes(self.attributes() & CODEC_MASK)
    }

    /// Timestamps are the broker's.
    #[must_use]
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME != 0
    }

    /// Part of a transaction.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL != 0
    }

    /// A marker of the broker's, not for applications.
    #[must_use]
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL != 0
    }

    /// When its tombstones and markers may go (KIP-534); only compaction sets it.
    #[must_use]
    pub fn delete_horizon(&self) -> Option<WallMs> {
        (self.attributes() & DELETE_HORIZON != 0).then(|| self.base_timestamp())
    }

    /// Written by a producer that has an identity.
    #[must_use]
    pub fn has_producer_id(&self) -> bool {
        self.producer_id() > ProducerId::NONE
    }

    /// The same head at another offset. Neither field is covered by the sum.
    #[must_use]
    pub fn placed(&self, base: Offset, epoch: LeaderEpoch) -> Self {
        let mut placed = *self;
        placed.set(BASE_OFFSET, &base.get().to_be_bytes());
        placed.set(LEADER_EPOCH, &epoch.get().to_be_bytes());
        placed
    }

    pub(crate) fn set_length(&mut self, length: i32) {
        self.set(LENGTH, &length.to_be_bytes());
    }

    pub(crate) fn set_magic(&mut self) {
        self.set(MAGIC_AT, &MAGIC.to_be_bytes());
    }

    pub(crate) fn set_attributes(&mut self, attributes: i16) {
        self.set(ATTRIBUTES, &attributes.to_be_bytes());
    }

    pub(crate) fn set_last_offset_delta(&mut self, delta: i32) {
        self.set(LAST_OFFSET_DELTA, &delta.to_be_bytes());
    }

    pub(crate) fn set_base_timestamp(&mut self, at: WallMs) {
        self.set(BASE_TIMESTAMP, &at.get().to_be_bytes());
    }

    pub(crate) fn set_max_timestamp(&mut self, at: WallMs) {
        self.set(MAX_TIMESTAMP, &at.get().to_be_bytes());
    }

    pub(crate) fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch, sequence: Sequence) {
        self.set(PRODUCER_ID, &id.get().to_be_bytes());
        self.set(PRODUCER_EPOCH, &epoch.get().to_be_bytes());
        self.set(BASE_SEQUENCE, &sequence.get().to_be_bytes());
    }

    pub(crate) fn set_record_count(&mut self, count: i32) {
        self.set(RECORD_COUNT, &count.to_be_bytes());
    }

    pub(crate) fn with_log_append_time(attributes: i16, on: bool) -> i16 {
        if on {
            attributes | LOG_APPEND_TIME
        } else {
            attributes & !LOG_APPEND_TIME
        }
    }

    pub(crate) fn with_codec(attributes: i16, codec: Codec) -> i16 {
        (attributes & !CODEC_MASK) | codec.attributes()
    }

    pub(crate) fn with_delete_horizon(attributes: i16) -> i16 {
        attributes | DELETE_HORIZON
    }

    pub(crate) fn flags(transactional: bool, control: bool) -> i16 {
        (if transactional { TRANSACTIONAL } else { 0 }) | (if control { CONTROL } else { 0 })
    }

    /// Fills in the sum for a head whose records are `records`.
    pub(crate) fn seal(&mut self, records: &[u8]) {
        let crc = self.compute_crc(records);
        self.set(CRC, &crc.to_be_bytes());
    }

    /// The sum that this head and `records` should have.
    #[must_use]
    pub fn compute_crc(&self, records: &[u8]) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.0[ATTRIBUTES..]), records)
    }

    pub(crate) fn zeroed() -> Self {
        let mut header = Self([0; HEADER_BYTES]);
        header.set_magic();
        header.set_producer(ProducerId::NONE, ProducerEpoch::NONE, Sequence::NONE);
        header
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

impl std::fmt::Debug for BatchHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "batch {}..={} epoch {}",
            self.base_offset(),
            self.last_offset(),
            self.leader_epoch()
        )
    }
}

/// One batch within a buffer.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its head.
    pub header: BatchHeader,
    /// All of it, the head too.
    pub bytes: Bytes,
}

impl Batch {
    /// The packed records.
    #[must_use]
    pub fn records(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// True where the sum fits the bytes.
    #[must_use]
    pub fn crc_is_good(&self) -> bool {
        self.header.compute_crc(self.records()) == self.header.crc()
    }
}

/// The whole batches of a buffer, in order. A part of a batch at the end is left out; a head that cannot be ends it.
#[derive(Clone, Debug)]
pub struct Batches {
    rest: Bytes,
}

impl Batches {
    /// Walks `bytes`.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// What was not a whole batch.
    #[must_use]
    pub fn rest(&self) -> &Bytes {
        &self.rest
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        let header = BatchHeader::read(&self.rest)?;
        let size = header.size_bytes()?;
        if header.magic() != MAGIC || size > self.rest.len() {
            return None;
        }
        Some(Batch {
            header,
            bytes: self.rest.split_to(size),
        })
    }
}
