//! Kafka's offset checkpoint files (`recovery-point-offset-checkpoint`, `log-start-offset-checkpoint`,
//! `replication-offset-checkpoint`, `cleaner-offset-checkpoint`): a version, a count, and a line for each partition.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use skerry_env::disk::{Disk, read_file, replace_file};
use skerry_types::{Offset, TopicPartition};

const VERSION: &str = "0";
/// A checkpoint of a million partitions is about 100 MB.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Reads a checkpoint; a missing or empty file holds nothing.
///
/// # Errors
/// The disk's; `InvalidData` where the text is not a checkpoint.
pub fn read(disk: &dyn Disk, path: &Path) -> io::Result<BTreeMap<TopicPartition, Offset>> {
    let Some(bytes) = read_file(disk, path, FILE_BYTES_MAX)? else {
        return Ok(BTreeMap::new());
    };
    parse(&bytes).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is not an offset checkpoint", path.display()),
        )
    })
}

/// Replaces a checkpoint; durable on return.
///
/// # Errors
/// The disk's.
pub fn write(disk: &dyn Disk, path: &Path, offsets: &BTreeMap<TopicPartition, Offset>) -> io::Result<()> {
    replace_file(disk, path, render(offsets).as_bytes())
}

fn render(offsets: &BTreeMap<TopicPartition, Offset>) -> String {
    let mut text = format!("{VERSION}\n{}\n", offsets.len());
    for (partition, offset) in offsets {
        text.push_str(&format!(
            "{} {} {}\n",
            partition.topic, partition.partition, offset
        ));
    }
    text
}

fn parse(bytes: &[u8]) -> Option<BTreeMap<TopicPartition, Offset>> {
    let text = std::str::from_utf8(bytes).ok()?;
    if text.is_empty() {
        return Some(BTreeMap::new());
    }
    let mut lines = text.lines();
    if lines.next()? != VERSION {
        return None;
    }
    let count: usize = lines.next()?.parse().ok()?;
    let mut offsets = BTreeMap::new();
    for line in lines {
        let mut parts = line.split(' ');
        let (topic, partition, offset) = (
            parts.next()?,
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
        );
        if parts.next().is_some() || topic.is_empty() {
            return None;
        }
        offsets.insert(TopicPartition::new(topic, partition), Offset(offset));
    }
    (offsets.len() == count).then_some(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_kafkas() {
        let offsets = BTreeMap::from([
            (TopicPartition::new("orders", 0), Offset(17)),
            (TopicPartition::new("a.b_c-d", 12), Offset(0)),
        ]);
        let text = render(&offsets);
        assert_eq!(text, "0\n2\na.b_c-d 12 0\norders 0 17\n");
        assert_eq!(parse(text.as_bytes()), Some(offsets));
        assert_eq!(parse(b""), Some(BTreeMap::new()));
        for bad in [
            "1\n0\n",
            "0\n2\na 0 1\n",
            "0\n1\na 0\n",
            "0\n1\na 0 x\n",
            "0\n",
            "0\n1\na 0 1 2\n",
            "\u{1}",
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
