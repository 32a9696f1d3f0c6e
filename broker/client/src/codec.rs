//! Compression as Kafka's clients do it.

use std::fmt;
use std::io::{self, Read, Write as _};
use std::str::FromStr;

use bytes::Bytes;

/// How a batch's records are compressed. The numbers are those of the batch's attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// gzip.
    Gzip = 1,
    /// Snappy in the frames of Java's xerial library.
    Snappy = 2,
    /// LZ4 frames.
    Lz4 = 3,
    /// Zstandard.
    Zstd = 4,
}

/// No codec of that name or number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0}: none, gzip, snappy, lz4 or zstd is expected")]
pub struct UnknownCompression(String);

impl Compression {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec in a batch's attributes.
    ///
    /// # Errors
    /// [`UnknownCompression`] for 5 to 7.
    pub fn from_attributes(attributes: i16) -> Result<Self, UnknownCompression> {
        let number = usize::try_from(attributes & 7).unwrap_or(0);
        Self::ALL
            .get(number)
            .copied()
            .ok_or_else(|| UnknownCompression(number.to_string()))
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        })
    }
}

impl FromStr for Compression {
    type Err = UnknownCompression;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.to_string() == text)
            .ok_or_else(|| UnknownCompression(text.to_owned()))
    }
}

/// The beginning of a stream of Java's snappy library: its magic, then version 1, readable by version 1.
const XERIAL: &[u8] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
/// What Java's library puts in one block.
const XERIAL_BLOCK: usize = 32 << 10;

/// Compresses the records of a batch.
pub(crate) fn compress(codec: Compression, plain: Vec<u8>) -> Vec<u8> {
    // Writing to memory fails only where the codec refuses its parameters, and these are constants.
    let squeezed = match codec {
        Compression::None => return plain,
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&plain).and_then(|()| encoder.finish())
        }
        Compression::Snappy => xerial(&plain),
        Compression::Lz4 => {
            let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
            encoder
                .write_all(&plain)
                .and_then(|()| encoder.finish().map_err(io::Error::other))
        }
        Compression::Zstd => zstd::bulk::compress(&plain, 3),
    };
    squeezed.expect("compression into memory")
}

fn xerial(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = XERIAL.to_vec();
    let mut encoder = snap::raw::Encoder::new();
    for block in plain.chunks(XERIAL_BLOCK) {
        let squeezed = encoder.compress_vec(block).map_err(io::Error::other)?;
        out.extend_from_slice(
            &u32::try_from(squeezed.len())
                .map_err(io::Error::other)?
                .to_be_bytes(),
        );
        out.extend_from_slice(&squeezed);
    }
    Ok(out)
}

/// Decompresses the records of a batch to at most `limit_bytes`.
pub(crate) fn decompress(codec: Compression, squeezed: Bytes, limit_bytes: u64) -> io::Result<Bytes> {
    let plain = match codec {
        Compression::None => return Ok(squeezed),
        Compression::Gzip => bounded(flate2::read::MultiGzDecoder::new(&*squeezed), limit_bytes)?,
        Compression::Snappy => unsnap(&squeezed, limit_bytes)?,
        Compression::Lz4 => bounded(lz4_flex::frame::FrameDecoder::new(&*squeezed), limit_bytes)?,
        Compression::Zstd => bounded(zstd::stream::read::Decoder::new(&*squeezed)?, limit_bytes)?,
    };
    Ok(plain.into())
}

fn bounded(reader: impl Read, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    reader.take(limit_bytes + 1).read_to_end(&mut plain)?;
    within(plain.len(), limit_bytes)?;
    Ok(plain)
}

fn within(bytes: usize, limit_bytes: u64) -> io::Result<()> {
    if bytes as u64 > limit_bytes {
        return Err(io::Error::other(format!(
            "more than {limit_bytes} bytes when decompressed"
        )));
    }
    Ok(())
}

/// Java's frames, or one bare block as librdkafka and others may send.
fn unsnap(squeezed: &[u8], limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut decoder = snap::raw::Decoder::new();
    let mut block = |bytes: &[u8], so_far: usize| -> io::Result<Vec<u8>> {
        let len = snap::raw::decompress_len(bytes).map_err(io::Error::other)?;
        within(so_far.saturating_add(len), limit_bytes)?;
        decoder.decompress_vec(bytes).map_err(io::Error::other)
    };
    let Some(mut rest) = squeezed.strip_prefix(&XERIAL[..8]).and_then(|rest| rest.get(8..)) else {
        return block(squeezed, 0);
    };
    let mut plain = Vec::new();
    while !rest.is_empty() {
        let cut = || io::Error::other("a snappy block is cut off");
        let (len, after) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        let len = u32::from_be_bytes(*len) as usize;
        let bytes = after.get(..len).ok_or_else(cut)?;
        plain.extend_from_slice(&block(bytes, plain.len())?);
        rest = &after[len..];
    }
    Ok(plain)
}
