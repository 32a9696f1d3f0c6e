use std::io::Read;

use bytes::{Buf, Bytes};
use skerry_types::{Offset, WallMs};

use super::builder::MarkerType;
use super::compression::{Codec, PLAIN_BYTES_MAX, unpack, unpacking};
use super::header::{Batch, BatchHeader};

/// The records of a batch are not what its head promises, or cannot be unpacked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenRecords {
    /// The codec refuses the bytes (CORRUPT_MESSAGE).
    #[error("the records cannot be unpacked: {0}")]
    Unpack(String),
    /// The plain bytes are no records, or not as many as counted (INVALID_RECORD).
    #[error("{0}")]
    Invalid(String),
}

/// A header of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub key: Bytes,
    /// Its bytes, or null.
    pub value: Option<Bytes>,
}

/// One record. Its parts share the batch's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it is in the log.
    pub offset: Offset,
    /// Its own timestamp, or the broker's for the whole batch.
    pub timestamp: WallMs,
    /// Its key, or null.
    pub key: Option<Bytes>,
    /// Its value, or null: a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
}

/// Decodes the records of one batch.
pub struct Records {
    header: BatchHeader,
    plain: Bytes,
    left: i32,
}

impl Records {
    /// Unpacks the batch.
    ///
    /// # Errors
    /// Where the codec refuses the bytes.
    pub fn new(batch: &Batch) -> Result<Self, BrokenRecords> {
        let codec = known_codec(&batch.header)?;
        let packed = batch.bytes.slice(super::HEADER_BYTES..);
        let plain = unpack(codec, &packed).map_err(|error| BrokenRecords::Unpack(error.to_string()))?;
        Ok(Self {
            header: batch.header,
            plain,
            left: batch.header.record_count(),
        })
    }

    /// All of them, or the first mistake.
    ///
    /// # Errors
    /// Where the bytes are no records, or not as many as counted.
    pub fn all(batch: &Batch) -> Result<Vec<Record>, BrokenRecords> {
        Self::new(batch)?.collect()
    }

    fn decode(&mut self) -> Result<(Record, Bytes), BrokenRecords> {
        let len = varint_len(&mut self.plain, "a record's length")?;
        if len > self.plain.len() {
            return Err(invalid("a record is longer than its batch"));
        }
        let raw = self.plain.split_to(len);
        let mut rest = raw.clone();
        take_byte(&mut rest)?;
        let timestamp_delta = varlong(&mut rest)?;
        let offset_delta = varint(&mut rest)?;
        let key = nullable(&mut rest)?;
        let value = nullable(&mut rest)?;
        let count = varint_len(&mut rest, "the number of headers")?;
        if count > rest.len() {
            return Err(invalid("more headers than bytes"));
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let key = nullable(&mut rest)?.ok_or_else(|| invalid("a header without a name"))?;
            headers.push(Header {
                key,
                value: nullable(&mut rest)?,
            });
        }
        if rest.has_remaining() {
            return Err(invalid("a record is shorter than it says"));
        }
        let timestamp = if self.header.is_log_append_time() {
            self.header.max_timestamp()
        } else {
            WallMs(self.header.base_timestamp().get().wrapping_add(timestamp_delta))
        };
        let offset = Offset(
            self.header
                .base_offset()
                .get()
                .wrapping_add(i64::from(offset_delta)),
        );
        Ok((
            Record {
                offset,
                timestamp,
                key,
                value,
                headers,
            },
            raw,
        ))
    }
}

impl Iterator for Records {
    type Item = Result<Record, BrokenRecords>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left <= 0 {
            if self.plain.has_remaining() {
                self.plain.clear();
                return Some(Err(invalid("bytes remain after the last record")));
            }
            return None;
        }
        self.left -= 1;
        let next = self.decode().map(|(record, _)| record);
        if next.is_err() {
            self.left = 0;
            self.plain.clear();
        }
        Some(next)
    }
}

/// A transaction marker's type and its coordinator's epoch; `None` where the batch is something else.
#[must_use]
pub fn control_marker(batch: &Batch) -> Option<(MarkerType, i32)> {
    if !batch.header.is_control() {
        return None;
    }
    let record = Records::new(batch).ok()?.next()?.ok()?;
    let (mut key, mut value) = (record.key?, record.value?);
    if key.len() < 4 || value.len() < 6 {
        return None;
    }
    let _key_version = key.get_i16();
    let marker = match key.get_i16() {
        0 => MarkerType::Abort,
        1 => MarkerType::Commit,
        _ => return None,
    };
    let _value_version = value.get_i16();
    Some((marker, value.get_i32()))
}

/// What a check of a record looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordShape {
    pub(crate) index: i32,
    pub(crate) timestamp: WallMs,
    pub(crate) offset_delta: i32,
    pub(crate) has_key: bool,
}

/// Goes over all records without keeping their bytes, and checks that they are as many as counted, that lengths nest
/// and that nothing remains. Packed records are unpacked piece by piece.
pub(crate) fn walk_records(
    header: &BatchHeader,
    packed: &[u8],
    mut look: impl FnMut(RecordShape),
) -> Result<(), BrokenRecords> {
    match known_codec(header)? {
        Codec::None => walk(header, &mut SliceInput(packed), &mut look),
        codec => {
            let stream =
                unpacking(codec, packed).map_err(|error| BrokenRecords::Unpack(error.to_string()))?;
            walk(header, &mut StreamInput::new(stream), &mut look)
        }
    }
}

fn walk<I: Input>(
    header: &BatchHeader,
    input: &mut I,
    look: &mut impl FnMut(RecordShape),
) -> Result<(), BrokenRecords> {
    let log_append_time = header.is_log_append_time().then(|| header.max_timestamp());
    let base_timestamp = header.base_timestamp().get();
    for index in 0..header.record_count() {
        let mut left = i64::from(input.varint()?.0);
        if left < 0 {
            return Err(invalid("a record of a negative length"));
        }
        input.byte()?;
        left -= 1;
        let (timestamp_delta, read) = input.varlong()?;
        left -= read;
        let (offset_delta, read) = input.varint()?;
        left -= read;
        let (key_len, read) = input.varint()?;
        left -= read;
        let has_key = key_len >= 0;
        if has_key {
            left -= i64::from(key_len);
            check_fits(left)?;
            input.skip(key_len as usize)?;
        }
        left -= skip_nullable(input)?;
        check_fits(left)?;
        let (headers, read) = input.varint()?;
        left -= read;
        if headers < 0 {
            return Err(invalid("a negative number of headers"));
        }
        for _ in 0..headers {
            check_fits(left)?;
            let (name_len, read) = input.varint()?;
            if name_len < 0 {
                return Err(invalid("a header without a name"));
            }
            input.skip(name_len as usize)?;
            left -= read + i64::from(name_len);
            left -= skip_nullable(input)?;
        }
        if left != 0 {
            return Err(invalid("a record's parts do not add up to its length"));
        }
        let timestamp = log_append_time.unwrap_or(WallMs(base_timestamp.wrapping_add(timestamp_delta)));
        look(RecordShape {
            index,
            timestamp,
            offset_delta,
            has_key,
        });
    }
    if input.at_end()? {
        Ok(())
    } else {
        Err(invalid("bytes remain after the last record"))
    }
}

fn check_fits(left: i64) -> Result<(), BrokenRecords> {
    if left < 0 {
        Err(invalid("a record's parts are longer than it says"))
    } else {
        Ok(())
    }
}

fn skip_nullable<I: Input>(input: &mut I) -> Result<i64, BrokenRecords> {
    let (len, read) = input.varint()?;
    if len > 0 {
        input.skip(len as usize)?;
    }
    Ok(read + i64::from(len.max(0)))
}

fn known_codec(header: &BatchHeader) -> Result<Codec, BrokenRecords> {
    header
        .codec()
        .ok_or_else(|| BrokenRecords::Unpack("unknown codec".to_owned()))
}

fn invalid(why: &str) -> BrokenRecords {
    BrokenRecords::Invalid(why.to_owned())
}

/// Where `walk` reads from.
trait Input {
    fn byte(&mut self) -> Result<u8, BrokenRecords>;
    fn skip(&mut self, count: usize) -> Result<(), BrokenRecords>;
    fn at_end(&mut self) -> Result<bool, BrokenRecords>;

    /// A zigzag varint and how many bytes it took.
    fn varint(&mut self) -> Result<(i32, i64), BrokenRecords> {
        let mut raw = 0u32;
        for at in 0..5 {
            let byte = self.byte()?;
            raw |= u32::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok((((raw >> 1) as i32) ^ -((raw & 1) as i32), at + 1));
            }
        }
        Err(invalid("a varint of more than 5 bytes"))
    }

    fn varlong(&mut self) -> Result<(i64, i64), BrokenRecords> {
        let mut raw = 0u64;
        for at in 0..10 {
            let byte = self.byte()?;
            raw |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok((((raw >> 1) as i64) ^ -((raw & 1) as i64), at + 1));
            }
        }
        Err(invalid("a varlong of more than 10 bytes"))
    }
}

struct SliceInput<'a>(&'a [u8]);

impl Input for SliceInput<'_> {
    #[inline]
    fn byte(&mut self) -> Result<u8, BrokenRecords> {
        let (byte, rest) = self
            .0
            .split_first()
            .ok_or_else(|| invalid("fewer records than counted"))?;
        self.0 = rest;
        Ok(*byte)
    }

    #[inline]
    fn skip(&mut self, count: usize) -> Result<(), BrokenRecords> {
        self.0 = self
            .0
            .get(count..)
            .ok_or_else(|| invalid("a record is longer than its batch"))?;
        Ok(())
    }

    fn at_end(&mut self) -> Result<bool, BrokenRecords> {
        Ok(self.0.is_empty())
    }
}

struct StreamInput<R> {
    stream: R,
    buffer: Vec<u8>,
    at: usize,
    filled: usize,
    total: usize,
}

impl<R: Read> StreamInput<R> {
    fn new(stream: R) -> Self {
        Self {
            stream,
            buffer: vec![0; 32 * 1024],
            at: 0,
            filled: 0,
            total: 0,
        }
    }

    /// Reads on; false at the end.
    fn fill(&mut self) -> Result<bool, BrokenRecords> {
        self.at = 0;
        self.filled = self
            .stream
            .read(&mut self.buffer)
            .map_err(|error| BrokenRecords::Unpack(error.to_string()))?;
        self.total += self.filled;
        if self.total > PLAIN_BYTES_MAX {
            return Err(BrokenRecords::Unpack(
                "a batch unpacks to more than 1 GiB".to_owned(),
            ));
        }
        Ok(self.filled > 0)
    }
}

impl<R: Read> Input for StreamInput<R> {
    #[inline]
    fn byte(&mut self) -> Result<u8, BrokenRecords> {
        if self.at == self.filled && !self.fill()? {
            return Err(invalid("fewer records than counted"));
        }
        let byte = self.buffer[self.at];
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, mut count: usize) -> Result<(), BrokenRecords> {
        while count > self.filled - self.at {
            count -= self.filled - self.at;
            if !self.fill()? {
                return Err(invalid("a record is longer than its batch"));
            }
        }
        self.at += count;
        Ok(())
    }

    fn at_end(&mut self) -> Result<bool, BrokenRecords> {
        Ok(self.at == self.filled && !self.fill()?)
    }
}

fn take_byte(rest: &mut Bytes) -> Result<u8, BrokenRecords> {
    if rest.has_remaining() {
        Ok(rest.get_u8())
    } else {
        Err(invalid("a record ends early"))
    }
}

fn with_slice<T>(
    rest: &mut Bytes,
    read: impl FnOnce(&mut SliceInput<'_>) -> Result<(T, i64), BrokenRecords>,
) -> Result<T, BrokenRecords> {
    let (value, used) = read(&mut SliceInput(rest))?;
    rest.advance(used as usize);
    Ok(value)
}

fn varint(rest: &mut Bytes) -> Result<i32, BrokenRecords> {
    with_slice(rest, |input| input.varint())
}

fn varlong(rest: &mut Bytes) -> Result<i64, BrokenRecords> {
    with_slice(rest, |input| input.varlong())
}

fn varint_len(rest: &mut Bytes, what: &str) -> Result<usize, BrokenRecords> {
    usize::try_from(varint(rest)?).map_err(|_| invalid(&format!("{what} is negative")))
}

fn nullable(rest: &mut Bytes) -> Result<Option<Bytes>, BrokenRecords> {
    match varint(rest)? {
        len if len < 0 => Ok(None),
        len if len as usize > rest.len() => Err(invalid("a field is longer than its record")),
        len => Ok(Some(rest.split_to(len as usize))),
    }
}
