//! Which partition a key belongs to.

/// The partition of `key` among `count`, as Java's clients choose it, so that all of them put a key in one place.
#[must_use]
pub fn partition_of(key: &[u8], count: i32) -> i32 {
    let hash = murmur2(key) & 0x7fff_ffff;
    let count = u32::try_from(count.max(1)).unwrap_or(1);
    i32::try_from(hash % count).unwrap_or(0)
}

/// MurmurHash2 with 32 bits and Kafka's seed.
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let (words, rest) = data.as_chunks::<4>();
    let mut hash = SEED ^ (data.len() as u32);
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !rest.is_empty() {
        let tail = rest
            .iter()
            .rev()
            .fold(0_u32, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values in Kafka's own test of its `Utils.murmur2`.
    #[test]
    fn hashes_as_kafka_does() {
        let hashes = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, hash) in hashes {
            assert_eq!(murmur2(text.as_bytes()).cast_signed(), hash, "{text}");
        }
    }
}
