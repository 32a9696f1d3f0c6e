use std::io::{self, Read, Write};

use bytes::Bytes;

/// Plain bytes of one batch, at most: a small batch may hold a bomb. Java could not take such a batch either.
pub(crate) const PLAIN_BYTES_MAX: usize = 1 << 30;

/// How a batch's records are packed (attributes, bits 0 to 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// Not at all.
    None,
    /// RFC 1952.
    Gzip,
    /// In the frame of xerial's Java library; raw snappy is understood too.
    Snappy,
    /// The LZ4 frame format, independent blocks.
    Lz4,
    /// RFC 8878, one or more frames.
    Zstd,
}

impl Codec {
    pub(crate) fn from_attributes(bits: i16) -> Option<Self> {
        Some(match bits {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    pub(crate) fn attributes(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// Kafka's name, as its tools print it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// How to pack records: a codec and its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// -1 (the codec's default) or 1 to 9.
    Gzip(i32),
    /// Has no level.
    Snappy,
    /// One level only.
    Lz4,
    /// Up to 22.
    Zstd(i32),
}

impl Compression {
    /// What this packs to.
    #[must_use]
    pub fn codec(self) -> Codec {
        match self {
            Self::None => Codec::None,
            Self::Gzip(_) => Codec::Gzip,
            Self::Snappy => Codec::Snappy,
            Self::Lz4 => Codec::Lz4,
            Self::Zstd(_) => Codec::Zstd,
        }
    }

    /// A codec with Kafka's default level.
    #[must_use]
    pub fn default_for(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip(-1),
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd(3),
        }
    }

    pub(crate) fn pack(self, plain: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(plain.to_vec()),
            Self::Gzip(level) => {
                let level =
                    u32::try_from(level).map_or(flate2::Compression::default(), flate2::Compression::new);
                let mut out = flate2::write::GzEncoder::new(Vec::with_capacity(plain.len() / 2), level);
                out.write_all(plain)?;
                out.finish()
            }
            Self::Snappy => pack_xerial(plain),
            Self::Lz4 => {
                // Java's reader takes independent blocks only.
                let info = lz4_flex::frame::FrameInfo::new()
                    .block_size(lz4_flex::frame::BlockSize::Max64KB)
                    .block_mode(lz4_flex::frame::BlockMode::Independent);
                let mut out =
                    lz4_flex::frame::FrameEncoder::with_frame_info(info, Vec::with_capacity(plain.len() / 2));
                out.write_all(plain)?;
                out.finish().map_err(io::Error::other)
            }
            Self::Zstd(level) => zstd::stream::encode_all(plain, level),
        }
    }
}

/// A stream of the plain bytes.
pub(crate) fn unpacking<'a>(codec: Codec, packed: &'a [u8]) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(packed),
        Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Codec::Snappy => Box::new(io::Cursor::new(unpack_snappy(packed)?)),
        Codec::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(packed)),
        Codec::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(packed)?),
    })
}

/// The plain bytes.
pub(crate) fn unpack(codec: Codec, packed: &Bytes) -> io::Result<Bytes> {
    match codec {
        Codec::None => Ok(packed.clone()),
        Codec::Snappy => unpack_snappy(packed).map(Bytes::from),
        Codec::Gzip | Codec::Lz4 | Codec::Zstd => {
            let mut plain = Vec::with_capacity(packed.len().saturating_mul(3).min(1 << 20));
            unpacking(codec, packed)?
                .take(PLAIN_BYTES_MAX as u64 + 1)
                .read_to_end(&mut plain)?;
            if plain.len() > PLAIN_BYTES_MAX {
                return Err(broken("a batch unpacks to more than 1 GiB"));
            }
            Ok(plain.into())
        }
    }
}

const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
/// Magic, version, lowest compatible version.
const XERIAL_HEAD_BYTES: usize = 16;
const XERIAL_BLOCK_BYTES: usize = 32 * 1024;

fn pack_xerial(plain: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::with_capacity(XERIAL_HEAD_BYTES + plain.len() / 2);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in plain.chunks(XERIAL_BLOCK_BYTES) {
        let packed = encoder.compress_vec(block).map_err(io::Error::other)?;
        let len = i32::try_from(packed.len()).map_err(io::Error::other)?;
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&packed);
    }
    Ok(out)
}

fn unpack_snappy(packed: &[u8]) -> io::Result<Vec<u8>> {
    let mut decoder = snap::raw::Decoder::new();
    if packed.len() < XERIAL_HEAD_BYTES || packed[..XERIAL_MAGIC.len()] != XERIAL_MAGIC {
        if snap::raw::decompress_len(packed).map_err(io::Error::other)? > PLAIN_BYTES_MAX {
            return Err(broken("a batch unpacks to more than 1 GiB"));
        }
        return decoder.decompress_vec(packed).map_err(io::Error::other);
    }
    let mut plain = Vec::new();
    let mut rest = &packed[XERIAL_HEAD_BYTES..];
    while !rest.is_empty() {
        let (len, after) = rest
            .split_first_chunk::<4>()
            .ok_or_else(|| broken("snappy block without a length"))?;
        let len = usize::try_from(i32::from_be_bytes(*len))
            .map_err(|_| broken("snappy block of a negative length"))?;
        let block = after
            .get(..len)
            .ok_or_else(|| broken("snappy block past the end"))?;
        let block_plain = snap::raw::decompress_len(block).map_err(io::Error::other)?;
        let start = plain.len();
        if block_plain > PLAIN_BYTES_MAX - start {
            return Err(broken("a batch unpacks to more than 1 GiB"));
        }
        plain.resize(start + block_plain, 0);
        decoder
            .decompress(block, &mut plain[start..])
            .map_err(io::Error::other)?;
        rest = &after[len..];
    }
    Ok(plain)
}

fn broken(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Compression; 6] = [
        Compression::None,
        Compression::Gzip(-1),
        Compression::Gzip(9),
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd(3),
    ];

    #[test]
    fn every_codec_gives_back_what_it_was_given() {
        let plain: Vec<u8> = (0..200_000u32).flat_map(|n| (n / 7).to_be_bytes()).collect();
        for compression in ALL {
            for plain in [&plain[..], &plain[..10], &[]] {
                let packed = Bytes::from(compression.pack(plain).unwrap());
                assert_eq!(
                    unpack(compression.codec(), &packed).unwrap(),
                    plain,
                    "{compression:?}"
                );
                let mut streamed = Vec::new();
                unpacking(compression.codec(), &packed)
                    .unwrap()
                    .read_to_end(&mut streamed)
                    .unwrap();
                assert_eq!(streamed, plain, "{compression:?}");
            }
        }
    }

    #[test]
    fn raw_snappy_and_two_frames_of_zstd_and_gzip_are_understood() {
        let raw = snap::raw::Encoder::new()
            .compress_vec(b"raw raw raw raw")
            .unwrap();
        assert_eq!(
            unpack(Codec::Snappy, &raw.into()).unwrap(),
            &b"raw raw raw raw"[..]
        );
        for compression in [Compression::Zstd(1), Compression::Gzip(1)] {
            let mut two = compression.pack(b"one ").unwrap();
            two.extend(compression.pack(b"two").unwrap());
            assert_eq!(unpack(compression.codec(), &two.into()).unwrap(), &b"one two"[..]);
        }
    }

    #[test]
    fn broken_bytes_are_an_error() {
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            assert!(
                unpack(
                    codec,
                    &Bytes::from_static(b"\xff\xff\xff\xffnonsense, not packed")
                )
                .is_err(),
                "{codec:?}"
            );
        }
        let mut huge = XERIAL_MAGIC.to_vec();
        huge.extend([
            0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 6, 0xff, 0xff, 0xff, 0xff, 0x0f, 0,
        ]);
        assert!(unpack(Codec::Snappy, &huge.into()).is_err());
    }
}
