//! Whose log a directory holds: its name and `partition.metadata`.

use std::io;
use std::path::Path;
use std::sync::Arc;

use skerry_env::disk::{Disk, read_file, replace_file};
use skerry_types::{PartitionIndex, TopicId};

pub(crate) const FILE_NAME: &str = "partition.metadata";
const FILE_BYTES_MAX: u64 = 4096;

/// A partition, and which topic of that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionIdentity {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number.
    pub partition: PartitionIndex,
    /// The topic's id: a topic made again under the same name has another one.
    pub topic_id: TopicId,
}

impl PartitionIdentity {
    /// `topic-partition`.
    #[must_use]
    pub fn dir_name(&self) -> String {
        format!("{}-{}", self.topic, self.partition)
    }
}

impl std::fmt::Display for PartitionIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{} ({})", self.topic, self.partition, self.topic_id)
    }
}

/// Splits `topic-partition`; `None` for another name.
#[must_use]
pub fn parse_dir_name(name: &str) -> Option<(&str, PartitionIndex)> {
    let (topic, partition) = name.rsplit_once('-')?;
    let number = !partition.is_empty() && partition.bytes().all(|byte| byte.is_ascii_digit());
    (number && !topic.is_empty()).then_some(())?;
    Some((topic, PartitionIndex(partition.parse().ok()?)))
}

fn render(id: TopicId) -> String {
    format!("version: 0\ntopic_id: {id}")
}

fn parse(bytes: &[u8]) -> Option<TopicId> {
    let mut lines = std::str::from_utf8(bytes).ok()?.lines();
    if lines.next()? != "version: 0" {
        return None;
    }
    lines.next()?.strip_prefix("topic_id: ")?.parse().ok()
}

/// The topic id in `partition.metadata` of `dir`; `None`: no such file.
///
/// # Errors
/// The disk's; `InvalidData` where the text is not Kafka's.
pub fn read_topic_id(disk: &dyn Disk, dir: &Path) -> io::Result<Option<TopicId>> {
    let path = dir.join(FILE_NAME);
    let Some(bytes) = read_file(disk, &path, FILE_BYTES_MAX)? else {
        return Ok(None);
    };
    let odd = || {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is damaged", path.display()),
        )
    };
    parse(&bytes).map(Some).ok_or_else(odd)
}

pub(crate) fn write_topic_id(disk: &dyn Disk, dir: &Path, id: TopicId) -> io::Result<()> {
    replace_file(disk, &dir.join(FILE_NAME), render(id).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_and_the_name_are_kafkas() {
        let id = TopicId::from_random([9; 16]);
        assert_eq!(render(id), "version: 0\ntopic_id: CQkJCQkJSQmJCQkJCQkJCQ");
        assert_eq!(parse(render(id).as_bytes()), Some(id));
        assert_eq!(parse(b"version: 1\n"), None);
        assert_eq!(
            parse_dir_name("my-topic-12"),
            Some(("my-topic", PartitionIndex(12)))
        );
        for odd in [
            "topic",
            "topic-",
            "-1",
            "topic--x",
            "t-99999999999",
            "topic-1.0f-delete",
        ] {
            assert_eq!(parse_dir_name(odd), None, "{odd}");
        }
    }
}
