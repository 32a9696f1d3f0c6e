use std::str;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};

use super::STRING_BYTES_MAX;

/// Why bytes of a record cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a field.
    #[error("cut short in {field}: {wanted} bytes wanted, {left} left")]
    Truncated {
        /// The field.
        field: &'static str,
        /// What it needs.
        wanted: usize,
        /// What there is.
        left: usize,
    },
    /// A length below zero where null is not allowed, or a varint of more than 32 bits.
    #[error("{field} has an impossible length")]
    BadLength {
        /// The field.
        field: &'static str,
    },
    /// A string that is not UTF-8.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The field.
        field: &'static str,
    },
    /// A version that this code does not know.
    #[error("unknown version {0}")]
    UnknownVersion(i16),
    /// Readable, but it contradicts itself.
    #[error("{0}")]
    Inconsistent(&'static str),
}

/// Reads Kafka's primitive types. `flexible` switches lengths to varints (KIP-482).
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            flexible: false,
        }
    }

    pub(crate) fn set_flexible(&mut self) {
        self.flexible = true;
    }

    fn take(&mut self, field: &'static str, wanted: usize) -> Result<&'a [u8], DecodeError> {
        let left = self.rest.len();
        let (taken, rest) =
            self.rest
                .split_at_checked(wanted)
                .ok_or(DecodeError::Truncated { field, wanted, left })?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let left = self.rest.len();
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(DecodeError::Truncated {
            field,
            wanted: N,
            left,
        })?;
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn i16(&mut self, field: &'static str) -> Result<i16, DecodeError> {
        self.array(field).map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_be_bytes)
    }

    fn uvarint(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        let mut value = 0_u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array::<1>(field)?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::BadLength { field })
    }

    /// A length; None for null.
    fn length(&mut self, field: &'static str, wide: bool) -> Result<Option<usize>, DecodeError> {
        let length = if self.flexible {
            i64::from(self.uvarint(field)?) - 1
        } else if wide {
            i64::from(self.i32(field)?)
        } else {
            i64::from(self.i16(field)?)
        };
        match length {
            -1 => Ok(None),
            length => usize::try_from(length)
                .map(Some)
                .map_err(|_| DecodeError::BadLength { field }),
        }
    }

    pub(crate) fn nullable_string(&mut self, field: &'static str) -> Result<Option<Arc<str>>, DecodeError> {
        let Some(length) = self.length(field, false)? else {
            return Ok(None);
        };
        let text = str::from_utf8(self.take(field, length)?).map_err(|_| DecodeError::NotUtf8 { field })?;
        // A flexible version could carry more than an answer or a rewritten record can.
        if text.len() > STRING_BYTES_MAX {
            return Err(DecodeError::BadLength { field });
        }
        Ok(Some(Arc::from(text)))
    }

    pub(crate) fn string(&mut self, field: &'static str) -> Result<Arc<str>, DecodeError> {
        self.nullable_string(field)?
            .ok_or(DecodeError::BadLength { field })
    }

    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<Bytes, DecodeError> {
        let length = self
            .length(field, true)?
            .ok_or(DecodeError::BadLength { field })?;
        self.take(field, length).map(Bytes::copy_from_slice)
    }

    /// The number of elements that follow. Not to be trusted as a capacity.
    pub(crate) fn count(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        self.length(field, true)?.ok_or(DecodeError::BadLength { field })
    }

    /// Skips the tagged fields at the end of a struct, if this version has them.
    pub(crate) fn skip_tags(&mut self) -> Result<(), DecodeError> {
        self.tags(|_, _| {})
    }

    /// Shows `each` tagged field, its number and its bytes, at the end of a struct, if this version has them.
    pub(crate) fn tags(&mut self, mut each: impl FnMut(u32, &'a [u8])) -> Result<(), DecodeError> {
        const FIELD: &str = "tagged fields";
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint(FIELD)? {
            let tag = self.uvarint(FIELD)?;
            let size = self.uvarint(FIELD)?;
            let size = usize::try_from(size).map_err(|_| DecodeError::BadLength { field: FIELD })?;
            each(tag, self.take(FIELD, size)?);
        }
        Ok(())
    }
}

/// Writes Kafka's primitive types. `flexible` switches the lengths of strings to varints (KIP-482); arrays and bytes
/// stand in no flexible version that is written.
pub(crate) struct Writer {
    bytes: BytesMut,
    flexible: bool,
}

impl Writer {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: BytesMut::with_capacity(capacity),
            flexible: false,
        }
    }

    pub(crate) fn set_flexible(&mut self) {
        self.flexible = true;
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.bytes.put_u8(0x80 | (value & 0x7f) as u8);
            value >>= 7;
        }
        self.bytes.put_u8(value as u8);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.bytes.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.bytes.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.bytes.put_i64(value);
    }

    pub(crate) fn string(&mut self, value: &str) {
        // What is too long was refused when it came in.
        let length = i16::try_from(value.len())
            .unwrap_or_else(|_| panic!("a string of {} bytes in a record", value.len()));
        if self.flexible {
            self.uvarint(u32::from(length.unsigned_abs()) + 1);
        } else {
            self.bytes.put_i16(length);
        }
        self.bytes.put_slice(value.as_bytes());
    }

    pub(crate) fn nullable_string(&mut self, value: Option<&str>) {
        match value {
            Some(value) => self.string(value),
            None => self.bytes.put_i16(-1),
        }
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.count(value.len());
        self.bytes.put_slice(value);
    }

    pub(crate) fn count(&mut self, count: usize) {
        self.bytes
            .put_i32(i32::try_from(count).unwrap_or_else(|_| panic!("{count} elements in a record")));
    }

    /// The tagged fields at the end of a struct of a flexible version, by their numbers.
    pub(crate) fn tags(&mut self, tags: &[(u32, &[u8])]) {
        let count = |count: usize| u32::try_from(count).unwrap_or_else(|_| panic!("{count} bytes in a tag"));
        self.uvarint(count(tags.len()));
        for (tag, bytes) in tags {
            self.uvarint(*tag);
            self.uvarint(count(bytes.len()));
            self.bytes.put_slice(bytes);
        }
    }

    pub(crate) fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}
