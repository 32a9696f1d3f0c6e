//! Numbers, strings and lists as bytes.

use std::sync::Arc;

use skerry_types::Uuid;

use super::DecodeError;

/// Appends values to a buffer. Numbers are big-endian.
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(super) fn new(version: u8) -> Self {
        Self { bytes: vec![version] }
    }

    pub(super) fn finish(self) -> Vec<u8> {
        self.bytes
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub(super) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.bytes.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn uuid(&mut self, value: Uuid) {
        self.bytes.extend_from_slice(&value.0);
    }

    pub(super) fn count(&mut self, count: usize) {
        self.u32(u32::try_from(count).expect("fewer than 2^32 of anything"));
    }

    pub(super) fn str(&mut self, value: &str) {
        self.count(value.len());
        self.bytes.extend_from_slice(value.as_bytes());
    }

    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(super) fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut write: impl FnMut(&mut Self, T),
    ) {
        self.count(items.len());
        for item in items {
            write(self, item);
        }
    }
}

/// Takes values from bytes that may be anything.
pub(super) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    position: usize,
}

pub(super) type Read<T> = Result<T, DecodeError>;

impl<'a> Reader<'a> {
    /// Reads and checks the version.
    pub(super) fn new(what: &'static str, bytes: &'a [u8], supported: u8) -> Read<Self> {
        let mut reader = Self {
            what,
            bytes,
            position: 0,
        };
        match reader.u8()? {
            0 => Err(reader.damaged("version 0")),
            found if found > supported => Err(DecodeError::NewerVersion {
                what,
                found,
                supported,
            }),
            _ => Ok(reader),
        }
    }

    pub(super) fn damaged(&self, reason: &'static str) -> DecodeError {
        DecodeError::Damaged {
            what: self.what,
            position: self.position,
            reason,
        }
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Read<()> {
        if self.position == self.bytes.len() {
            Ok(())
        } else {
            Err(self.damaged("bytes after the end"))
        }
    }

    fn take(&mut self, len: usize) -> Read<&'a [u8]> {
        let Some(taken) = self.bytes.get(self.position..).and_then(|rest| rest.get(..len)) else {
            return Err(self.damaged("it ends too early"));
        };
        self.position += len;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    pub(super) fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn bool(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.damaged("neither true nor false")),
        }
    }

    pub(super) fn u16(&mut self) -> Read<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(super) fn i16(&mut self) -> Read<i16> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Read<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Read<i64> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Read<Uuid> {
        self.array().map(Uuid)
    }

    pub(super) fn str(&mut self) -> Read<Arc<str>> {
        let len = self.u32()?;
        let bytes = self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        std::str::from_utf8(bytes)
            .map(Arc::from)
            .map_err(|_| self.damaged("not UTF-8"))
    }

    pub(super) fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        if self.bool()? {
            read(self).map(Some)
        } else {
            Ok(None)
        }
    }

    /// A list. Memory is taken as items are read, not as their number is announced.
    pub(super) fn list<T, C: FromIterator<T>>(
        &mut self,
        mut read: impl FnMut(&mut Self) -> Read<T>,
    ) -> Read<C> {
        let count = self.u32()?;
        (0..count).map(|_| read(self)).collect()
    }
}
