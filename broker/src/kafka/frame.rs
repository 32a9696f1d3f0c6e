//! One request's envelope: a 4-byte length, a header, a body; and the answer's.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable as _, Encodable};
use skerry_types::is_planted;
use thiserror::Error;

use crate::budget::Held;

/// Bytes of the length before each frame.
pub const LENGTH_BYTES: usize = 4;
/// api key, api version, correlation id.
const HEADER_BYTES_MIN: usize = 8;

/// The largest request that is copied to make its strings readable.
pub const COPIED_BYTES_MAX: usize = 1024 * 1024;

/// Why a frame cannot be understood. Kafka closes the connection for each of these, without an answer.
#[derive(Debug, Error)]
pub enum FrameError {
    /// Too short for a header.
    #[error("a frame of {0} bytes is too short for a request header")]
    TooShort(usize),
    /// Nobody knows this key.
    #[error("unknown api key {0}")]
    UnknownKey(i16),
    /// The header's strings or tags are malformed.
    #[error("malformed request header: {0}")]
    Header(String),
}

/// A request whose header has been read.
#[derive(Debug)]
pub struct Request {
    /// Which API.
    pub key: ApiKey,
    /// Which version of it.
    pub version: i16,
    /// Echoed in the answer.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<String>,
    /// The rest of the frame.
    pub body: Bytes,
}

/// Reads the header of a frame (without its length).
///
/// # Errors
/// [`FrameError`]; each ends the connection.
pub fn parse(frame: Bytes) -> Result<Request, FrameError> {
    if frame.len() < HEADER_BYTES_MIN {
        return Err(FrameError::TooShort(frame.len()));
    }
    let (raw_key, version) = ((&frame[..]).get_i16(), (&frame[2..]).get_i16());
    let key = ApiKey::try_from(raw_key).map_err(|()| FrameError::UnknownKey(raw_key))?;
    // A version from the future or the past of ApiVersions still gets an answer (KIP-511), so its header must not be
    // an obstacle: the first eight bytes are the same in every version.
    if key == ApiKey::ApiVersions && !(0..=4).contains(&version) {
        let correlation_id = (&frame[4..]).get_i32();
        return Ok(Request {
            key,
            version,
            correlation_id,
            client_id: None,
            body: Bytes::new(),
        });
    }
    let mut body = with_readable_client_id(frame);
    let header = RequestHeader::decode(&mut body, key.request_header_version(version))
        .map_err(|error| FrameError::Header(error.to_string()))?;
    let client_id = header.client_id.map(|id| id.to_string());
    Ok(Request {
        key,
        version,
        correlation_id: header.correlation_id,
        client_id,
        body,
    })
}

/// A client may call itself what it likes, in any encoding.
fn with_readable_client_id(frame: Bytes) -> Bytes {
    // The first version of a header has no client id; only ControlledShutdown used it.
    let from = HEADER_BYTES_MIN + 2;
    let Some(length) = frame.get(HEADER_BYTES_MIN..from).map(|mut two| two.get_i16()) else {
        return frame;
    };
    let range = from..from + usize::try_from(length).unwrap_or(0);
    match frame.get(range.clone()) {
        // A copy that nobody pays for must be small; a larger frame is refused by the decoder.
        Some(client_id) if frame.len() <= COPIED_BYTES_MAX && std::str::from_utf8(client_id).is_err() => {
            super::shape::made_text(&frame, &[range])
        }
        _ => frame,
    }
}

/// An encoded answer: parts that are written one after the other, so that records are never copied.
#[derive(Default)]
pub struct Answer {
    parts: Vec<Bytes>,
    held: Option<Held>,
}

impl Answer {
    /// Encodes `response` with its header and length.
    ///
    /// # Errors
    /// A field is set that this version does not have: a bug of the API's file.
    pub fn encode<R: Encodable>(
        key: ApiKey,
        version: i16,
        correlation_id: i32,
        response: &R,
    ) -> Result<Self, anyhow::Error> {
        let header = ResponseHeader::default().with_correlation_id(correlation_id);
        let header_version = match is_planted("header-of-inflexible-versions") {
            true => 0,
            false => key.response_header_version(version),
        };
        let size = header.compute_size(header_version)? + response.compute_size(version)?;
        let mut buf = BytesMut::with_capacity(LENGTH_BYTES + size);
        buf.put_u32(u32::try_from(size)?);
        header.encode(&mut buf, header_version)?;
        response.encode(&mut buf, version)?;
        debug_assert_eq!(
            buf.len(),
            LENGTH_BYTES + size,
            "{key:?} v{version}: compute_size disagrees with encode"
        );
        Ok(Self {
            parts: vec![buf.freeze()],
            held: None,
        })
    }

    /// An answer from `parts`, which hold the header but not the length.
    #[must_use]
    pub fn from_parts(parts: Vec<Bytes>) -> Self {
        let size: usize = parts.iter().map(Bytes::len).sum();
        let mut framed = Vec::with_capacity(parts.len() + 1);
        framed.push(Bytes::copy_from_slice(
            &u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes(),
        ));
        framed.extend(parts);
        Self {
            parts: framed,
            held: None,
        }
    }

    /// Keeps `held` until the answer has been written.
    #[must_use]
    pub fn holding(mut self, held: Option<Held>) -> Self {
        self.held = held;
        self
    }

    /// The bytes to send, length included, and what to give back when they are sent.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Bytes>, Option<Held>) {
        (self.parts, self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_is_refused_by_its_reason() {
        let refusal = |bytes: &'static [u8]| parse(Bytes::from_static(bytes)).unwrap_err().to_string();
        assert_eq!(
            refusal(b"\0\x12"),
            "a frame of 2 bytes is too short for a request header"
        );
        assert_eq!(refusal(b"\x03\xe7\0\0\0\0\0\x01"), "unknown api key 999");
        assert!(refusal(b"\0\x03\0\x01\0\0\0\x01\0\x7fab").starts_with("malformed request header"));
    }

    #[test]
    fn a_client_id_may_be_anything() {
        let named = |id: &[u8]| {
            let mut frame = BytesMut::from(&b"\0\x03\0\x01\0\0\0\x07"[..]);
            frame.put_u16(u16::try_from(id.len()).unwrap());
            frame.put_slice(id);
            parse(frame.freeze()).unwrap().client_id.unwrap()
        };
        assert_eq!(named(b"suite"), "suite");
        assert_eq!(named("k\u{e4}se".as_bytes()), "k\u{e4}se");
        assert_eq!(named(b"k\xe4se"), "k?se");
        assert_eq!(named(b"\xff\xfe"), "??");
        assert_eq!(named(b"cut \xe2\x82"), "cut ??");
    }

    #[test]
    fn an_unknown_version_of_api_versions_is_understood_by_its_first_eight_bytes() {
        let request = parse(Bytes::from_static(b"\0\x12\x7f\xff\0\0\0\x2ajunk")).unwrap();
        assert_eq!((request.version, request.correlation_id), (0x7fff, 42));
    }
}
