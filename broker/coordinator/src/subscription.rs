use std::collections::BTreeSet;
use std::sync::Arc;

use crate::records::{DecodeError, Reader};

/// The topics of a consumer's subscription (`ConsumerProtocolSubscription`).
///
/// Every version begins with version 0's fields, so only those are read: version `i16`, array of topic names. What
/// follows (user data, owned partitions, generation, rack) is the assignor's.
pub(crate) fn topics(subscription: &[u8]) -> Result<BTreeSet<Arc<str>>, DecodeError> {
    let mut reader = Reader::new(subscription);
    if reader.i16("version")? < 0 {
        return Err(DecodeError::Inconsistent("a subscription of a negative version"));
    }
    let count = reader.count("topics")?;
    let mut topics = BTreeSet::new();
    for _ in 0..count {
        topics.insert(reader.string("topic")?);
    }
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::topics;

    #[test]
    fn only_the_topics_are_read() {
        let names =
            |bytes: &[u8]| topics(bytes).map(|set| set.iter().map(ToString::to_string).collect::<Vec<_>>());
        // Version 1: two topics, null user data, no owned partitions.
        let bytes = b"\x00\x01\x00\x00\x00\x02\x00\x01b\x00\x01a\xff\xff\xff\xff\x00\x00\x00\x00";
        assert_eq!(names(bytes).unwrap(), ["a", "b"]);
        assert_eq!(names(b"\x00\x00\x00\x00\x00\x00").unwrap(), [""; 0]);
        for cut in 0..12 {
            assert!(names(&bytes[..cut]).is_err(), "{cut}");
        }
        assert!(names(b"").is_err());
        assert!(names(b"\xff\xff\x00\x00\x00\x00").is_err());
    }
}
