//! The shape of a request, checked before it is decoded.
//!
//! The generated decoders believe what they read: an array that announces two thousand million elements is allocated
//! before its first element is read, and a frame of 100 MB can hold a hundred million one-byte elements that become
//! structs of a hundred bytes each. So every body is walked first, allocating nothing: lengths must fit into what is
//! left, tags into their sizes, and what decoding will allocate into a bound. Bytes after the last field are ignored,
//! as Kafka ignores them (`AbstractRequest.parseRequest` compares nothing).

mod messages;

use std::ops::Range;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use thiserror::Error;

use super::dispatch::Refusal;

/// What one request may become in memory, beside its frame: the largest honest one, a Fetch of 100,000 partitions, is
/// a quarter of this.
pub const EXPANDED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A string or bytes as the decoder holds them: a slice of the frame.
const SLICE_BYTES: usize = 32;
/// An array as the decoder holds it.
const VEC_BYTES: usize = 24;
/// Where a struct keeps the tags that it does not know.
const TAGS_BYTES: usize = 24;
/// The first unknown tag of a struct takes a node of a B-tree.
const FIRST_TAG_BYTES: usize = 416;
/// Every later one takes a sixth of a node, in the worst order.
const NEXT_TAG_BYTES: usize = 72;
/// A number of at most 28 bits and four more.
const VARINT_BYTES_MAX: u32 = 5;

/// What a body comes to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Bytes that decoding it will allocate.
    pub expanded: usize,
    /// Strings in it that are not UTF-8, in order.
    pub not_text: Vec<Range<usize>>,
}

/// Checks the body of a request.
///
/// # Errors
/// [`Refusal::Malformed`]; Kafka closes the connection for each of these.
pub fn check(key: ApiKey, version: i16, body: &[u8]) -> Result<Shape, Refusal> {
    let Some(message) = messages::of(key) else {
        return Err(Refusal::Unsupported { key, version });
    };
    let mut walk = Walk::new(version, version >= message.flexible_from, body);
    match walk.fields(message.fields) {
        Ok(()) => Ok(Shape {
            expanded: walk.expanded,
            not_text: walk.not_text,
        }),
        Err(wrong) => Err(Refusal::Malformed {
            key,
            version,
            why: wrong.to_string(),
        }),
    }
}

/// `bytes` with strings in all of `not_text`. Kafka's decoder puts U+FFFD in the place of what is not UTF-8; here each
/// byte of it becomes a question mark, so that no length changes. Neither is in any legal name.
#[must_use]
pub fn made_text(bytes: &[u8], not_text: &[Range<usize>]) -> Bytes {
    let mut made = BytesMut::from(bytes);
    for range in not_text {
        let mut rest = made.get_mut(range.clone()).unwrap_or_default();
        while let Err(error) = std::str::from_utf8(rest) {
            let (from, until) = (
                error.valid_up_to(),
                error
                    .error_len()
                    .map_or(rest.len(), |length| error.valid_up_to() + length),
            );
            rest[from..until].fill(b'?');
            rest = &mut rest[until..];
        }
    }
    made.freeze()
}

/// The request of one API.
struct Message {
    key: ApiKey,
    /// The first version with compact lengths and tags (KIP-482).
    flexible_from: i16,
    fields: &'static [Field],
}

/// No version.
const NEVER: i16 = i16::MAX;

/// One field of a request or of a struct in it.
struct Field {
    kind: Kind,
    /// The first version that has it.
    since: i16,
    /// The last version that has it.
    until: i16,
    /// The first version in which it may be null.
    null_since: i16,
    /// Its number, where it is a tagged field.
    tag: Option<u32>,
}

enum Kind {
    /// A number, or an id, of so many bytes.
    Fixed(usize),
    /// A string; its length has two bytes in the older versions.
    Text,
    /// Bytes or records; the length has four bytes in the older versions.
    Bytes,
    /// An array of plain values.
    List(&'static Field),
    /// An array of structs.
    Many(&'static [Field]),
    /// A struct.
    One(&'static [Field]),
}

const BYTE: Field = Field::plain(Kind::Fixed(1));
const INT16: Field = Field::plain(Kind::Fixed(2));
const INT32: Field = Field::plain(Kind::Fixed(4));
const INT64: Field = Field::plain(Kind::Fixed(8));
const UUID: Field = Field::plain(Kind::Fixed(16));
const TEXT: Field = Field::plain(Kind::Text);
const BYTES: Field = Field::plain(Kind::Bytes);

const fn list(element: &'static Field) -> Field {
    Field::plain(Kind::List(element))
}

const fn many(fields: &'static [Field]) -> Field {
    Field::plain(Kind::Many(fields))
}

const fn one(fields: &'static [Field]) -> Field {
    Field::plain(Kind::One(fields))
}

const fn message(key: ApiKey, flexible_from: i16, fields: &'static [Field]) -> Message {
    Message {
        key,
        flexible_from,
        fields,
    }
}

impl Field {
    const fn plain(kind: Kind) -> Self {
        Self {
            kind,
            since: 0,
            until: i16::MAX,
            null_since: NEVER,
            tag: None,
        }
    }

    const fn since(self, version: i16) -> Self {
        Self {
            since: version,
            ..self
        }
    }

    const fn until(self, version: i16) -> Self {
        Self {
            until: version,
            ..self
        }
    }

    const fn null(self, version: i16) -> Self {
        Self {
            null_since: version,
            ..self
        }
    }

    const fn tag(self, tag: u32, since: i16) -> Self {
        Self {
            tag: Some(tag),
            since,
            ..self
        }
    }

    const fn is_in(&self, version: i16) -> bool {
        self.since <= version && version <= self.until
    }

    /// What it takes in the decoded struct, where all versions' fields have their place.
    fn decoded_bytes(&self) -> usize {
        match self.kind {
            Kind::Fixed(bytes) => bytes,
            Kind::Text | Kind::Bytes => SLICE_BYTES,
            Kind::List(_) | Kind::Many(_) => VEC_BYTES,
            Kind::One(fields) => struct_bytes(fields),
        }
    }
}

/// What a struct takes when decoded.
fn struct_bytes(fields: &[Field]) -> usize {
    (TAGS_BYTES + fields.iter().map(Field::decoded_bytes).sum::<usize>()).next_multiple_of(8)
}

/// What is wrong with a body.
#[derive(Debug, Error, PartialEq, Eq)]
enum Wrong {
    #[error("it ends {missing} bytes too early")]
    Truncated { missing: usize },
    #[error("a length of {0}")]
    NegativeLength(i64),
    #[error("a null where none is allowed")]
    Null,
    #[error("a struct that is neither null nor there: {0}")]
    Presence(i8),
    #[error("an array of {elements} elements in {left} bytes")]
    ArrayTooLong { elements: usize, left: usize },
    #[error("a variable-length number of more than 32 bits")]
    Varint,
    #[error("tag {tag} has {said} bytes and uses {used}")]
    TagSize { tag: u32, said: usize, used: usize },
    #[error("decoded, it would take more than {EXPANDED_BYTES_MAX} bytes of memory")]
    TooLarge,
}

/// A walk over a body.
struct Walk<'a> {
    version: i16,
    flexible: bool,
    /// The length of the whole body.
    body_bytes: usize,
    rest: &'a [u8],
    not_text: Vec<Range<usize>>,
    /// Bytes that decoding will have allocated up to here.
    expanded: usize,
}

impl<'a> Walk<'a> {
    const fn new(version: i16, flexible: bool, body: &'a [u8]) -> Self {
        Self {
            version,
            flexible,
            body_bytes: body.len(),
            rest: body,
            not_text: Vec::new(),
            expanded: 0,
        }
    }

    /// A struct's fields, and its tags.
    fn fields(&mut self, fields: &[Field]) -> Result<(), Wrong> {
        for field in fields {
            if field.tag.is_none() && field.is_in(self.version) {
                self.field(field)?;
            }
        }
        if self.flexible { self.tags(fields) } else { Ok(()) }
    }

    fn field(&mut self, field: &Field) -> Result<(), Wrong> {
        let nullable = self.version >= field.null_since;
        match field.kind {
            Kind::Fixed(bytes) => self.skip(bytes),
            Kind::Text => match self.length(true, nullable)? {
                Some(length) => self.text(length),
                None => Ok(()),
            },
            Kind::Bytes => match self.length(false, nullable)? {
                Some(length) => self.skip(length),
                None => Ok(()),
            },
            Kind::List(element) => {
                let Some(elements) =
                    self.array(nullable, self.least_bytes(element), element.decoded_bytes())?
                else {
                    return Ok(());
                };
                (0..elements).try_for_each(|_| self.field(element))
            }
            Kind::Many(fields) => {
                let least = fields
                    .iter()
                    .filter(|field| field.tag.is_none() && field.is_in(self.version))
                    .map(|field| self.least_bytes(field))
                    .sum::<usize>()
                    + usize::from(self.flexible);
                let Some(elements) = self.array(nullable, least, struct_bytes(fields))? else {
                    return Ok(());
                };
                (0..elements).try_for_each(|_| self.fields(fields))
            }
            // A struct that may be null has a byte in front: -1 for null, 1 for one.
            Kind::One(fields) if field.null_since < NEVER => match self.byte()?.cast_signed() {
                -1 => Ok(()),
                1 => self.fields(fields),
                other => Err(Wrong::Presence(other)),
            },
            Kind::One(fields) => self.fields(fields),
        }
    }

    /// The fewest bytes that `field` can have on the wire.
    fn least_bytes(&self, field: &Field) -> usize {
        match field.kind {
            Kind::Fixed(bytes) => bytes,
            _ if self.flexible => 1,
            Kind::Text => 2,
            Kind::Bytes | Kind::List(_) | Kind::Many(_) => 4,
            Kind::One(_) => 1,
        }
    }

    /// An array's length: it must fit into what is left, and its elements into memory.
    fn array(
        &mut self,
        nullable: bool,
        least_bytes: usize,
        decoded_bytes: usize,
    ) -> Result<Option<usize>, Wrong> {
        let Some(elements) = self.length(false, nullable)? else {
            return Ok(None);
        };
        if elements.saturating_mul(least_bytes.max(1)) > self.rest.len() {
            return Err(Wrong::ArrayTooLong {
                elements,
                left: self.rest.len(),
            });
        }
        self.expand(elements.saturating_mul(decoded_bytes))?;
        Ok(Some(elements))
    }

    /// The tags of a struct: those in `fields` have their shape, the others only a size.
    fn tags(&mut self, fields: &[Field]) -> Result<(), Wrong> {
        let count = self.varint()?;
        let mut unknown = 0_usize;
        for _ in 0..count {
            let tag = self.varint()?;
            let said = self.varint()? as usize;
            if let Some(field) = fields
                .iter()
                .find(|field| field.tag == Some(tag) && field.is_in(self.version))
            {
                let before = self.rest.len();
                self.field(field)?;
                let used = before - self.rest.len();
                if used != said {
                    return Err(Wrong::TagSize { tag, said, used });
                }
            } else {
                self.skip(said)?;
                self.expand(if unknown == 0 {
                    FIRST_TAG_BYTES
                } else {
                    NEXT_TAG_BYTES
                })?;
                unknown += 1;
            }
        }
        Ok(())
    }

    /// The length of a string, of bytes, or of an array; `None` for null.
    fn length(&mut self, is_text: bool, nullable: bool) -> Result<Option<usize>, Wrong> {
        let length = if self.flexible {
            i64::from(self.varint()?) - 1
        } else if is_text {
            i64::from(i16::from_be_bytes(self.take()?))
        } else {
            i64::from(i32::from_be_bytes(self.take()?))
        };
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 && nullable => Ok(None),
            Err(_) if length == -1 => Err(Wrong::Null),
            Err(_) => Err(Wrong::NegativeLength(length)),
        }
    }

    fn varint(&mut self) -> Result<u32, Wrong> {
        let mut value = 0_u32;
        for index in 0..VARINT_BYTES_MAX {
            let byte = self.byte()?;
            let last_has_room = index + 1 < VARINT_BYTES_MAX || byte < 0x10;
            if !last_has_room {
                return Err(Wrong::Varint);
            }
            value |= u32::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Wrong::Varint)
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(Wrong::Truncated {
                missing: N - self.rest.len(),
            });
        };
        self.rest = rest;
        Ok(*taken)
    }

    fn text(&mut self, bytes: usize) -> Result<(), Wrong> {
        let (from, before) = (self.body_bytes - self.rest.len(), self.rest);
        self.skip(bytes)?;
        if std::str::from_utf8(&before[..bytes]).is_err() {
            self.not_text.push(from..from + bytes);
        }
        Ok(())
    }

    fn skip(&mut self, bytes: usize) -> Result<(), Wrong> {
        match self.rest.get(bytes..) {
            Some(rest) => {
                self.rest = rest;
                Ok(())
            }
            None => Err(Wrong::Truncated {
                missing: bytes - self.rest.len(),
            }),
        }
    }

    fn expand(&mut self, bytes: usize) -> Result<(), Wrong> {
        self.expanded = self.expanded.saturating_add(bytes);
        if self.expanded > EXPANDED_BYTES_MAX {
            Err(Wrong::TooLarge)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
