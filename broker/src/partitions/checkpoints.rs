//! What the checkpoint files say of each partition.

use std::collections::{BTreeMap, BTreeSet};

use skerry_log::parse_dir_name;
use skerry_types::{Offset, TopicPartition, is_planted};

use super::{CLEANED, HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS};

/// One of the checkpoint files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CheckpointFile {
    RecoveryPoints,
    LogStarts,
    Cleaned,
    HighWatermarks,
}

impl CheckpointFile {
    pub(super) const ALL: [Self; 4] = [
        Self::RecoveryPoints,
        Self::LogStarts,
        Self::Cleaned,
        Self::HighWatermarks,
    ];

    /// Its name in the folder of the logs.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::RecoveryPoints => RECOVERY_POINTS,
            Self::LogStarts => LOG_STARTS,
            Self::Cleaned => CLEANED,
            Self::HighWatermarks => HIGH_WATERMARKS,
        }
    }
}

/// What the checkpoint files say.
#[derive(Debug, Default)]
pub(super) struct Checkpoints {
    pub(super) recovery_points: BTreeMap<TopicPartition, Offset>,
    pub(super) log_starts: BTreeMap<TopicPartition, Offset>,
    pub(super) cleaned: BTreeMap<TopicPartition, Offset>,
    pub(super) high_watermarks: BTreeMap<TopicPartition, Offset>,
    /// Partitions that are gone while the files may still have lines of theirs. The lines name partitions and not topics:
    /// the log of a topic that is made again under the same name would be judged by what its predecessor had, found too
    /// short, and taken for damaged (Kafka rewrites its checkpoints when it deletes a log).
    pub(super) leftover: BTreeSet<TopicPartition>,
}

impl Checkpoints {
    /// The lines of one file.
    pub(super) const fn lines(&self, file: CheckpointFile) -> &BTreeMap<TopicPartition, Offset> {
        match file {
            CheckpointFile::RecoveryPoints => &self.recovery_points,
            CheckpointFile::LogStarts => &self.log_starts,
            CheckpointFile::Cleaned => &self.cleaned,
            CheckpointFile::HighWatermarks => &self.high_watermarks,
        }
    }

    /// The lines of all files.
    pub(super) const fn all_lines(&mut self) -> [&mut BTreeMap<TopicPartition, Offset>; 4] {
        [
            &mut self.recovery_points,
            &mut self.log_starts,
            &mut self.cleaned,
            &mut self.high_watermarks,
        ]
    }

    /// A log begins at `offset`, or will: never earlier than was said before. What is said first and done afterwards must
    /// not be taken back by who looks at the log between the two: the records that were deleted would come back with a
    /// crash. Only a cut lowers a line, and drops it who leaves.
    pub(super) fn raise_log_start(&mut self, name: &TopicPartition, offset: Offset) {
        if let Some(line) = self.log_starts.get_mut(name) {
            *line = if is_planted("log-start-taken-back") {
                offset
            } else {
                (*line).max(offset)
            };
        } else if offset > Offset::ZERO {
            self.log_starts.insert(name.clone(), offset);
        }
    }

    /// Drops the lines of a partition that is gone.
    pub(super) fn forget(&mut self, name: &TopicPartition) {
        let lines = self.all_lines().into_iter();
        let dropped = lines.filter_map(|lines| lines.remove(name)).count();
        if dropped > 0 {
            self.leftover.insert(name.clone());
        }
    }

    /// Drops the lines of the partition whose folder this is.
    pub(super) fn forget_folder(&mut self, folder: &str) {
        if let Some((topic, partition)) = parse_dir_name(folder) {
            self.forget(&TopicPartition {
                topic: topic.into(),
                partition,
            });
        }
    }

    /// Drops the lines of partitions that have no folder.
    pub(super) fn keep_those_in(&mut self, folders: &BTreeSet<String>) {
        let lines = self.all_lines().into_iter();
        let names: BTreeSet<TopicPartition> = lines.flat_map(|lines| lines.keys().cloned()).collect();
        for name in names.iter().filter(|name| !folders.contains(&name.to_string())) {
            self.forget(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use skerry_types::PartitionIndex;

    use super::*;

    fn name(topic: &str) -> TopicPartition {
        TopicPartition {
            topic: topic.into(),
            partition: PartitionIndex(0),
        }
    }

    #[test]
    fn a_start_that_was_said_is_not_taken_back_before_the_log_is_there() {
        let mut checkpoints = Checkpoints::default();
        let trimmed = name("trimmed");
        checkpoints.raise_log_start(&trimmed, Offset::ZERO);
        assert!(
            checkpoints.log_starts.is_empty(),
            "a log that begins with its topic has no line"
        );
        // DeleteRecords; somebody looks at the log, which is not cut yet; another DeleteRecords was slower than the first.
        for (offset, line) in [(5, 5), (2, 5), (3, 5), (9, 9)] {
            checkpoints.raise_log_start(&trimmed, Offset(offset));
            assert_eq!(checkpoints.log_starts[&trimmed], Offset(line));
        }
    }

    #[test]
    fn lines_without_a_folder_are_dropped_and_known_to_be_in_the_files() {
        let mut checkpoints = Checkpoints::default();
        for topic in ["kept", "with-a-dash", "gone"] {
            checkpoints.recovery_points.insert(name(topic), Offset(7));
            checkpoints.high_watermarks.insert(name(topic), Offset(5));
        }
        let folders = ["kept-0", "with-a-dash-0", "new-0"].map(str::to_owned).into();
        checkpoints.keep_those_in(&folders);
        assert_eq!(checkpoints.leftover, [name("gone")].into());
        assert!(!checkpoints.high_watermarks.contains_key(&name("gone")));
        // A folder of an earlier topic of this name; and one of which nothing was said.
        checkpoints.forget_folder("with-a-dash-0");
        checkpoints.forget_folder("new-0");
        checkpoints.forget_folder("no partition");
        assert_eq!(checkpoints.leftover, [name("gone"), name("with-a-dash")].into());
        assert_eq!(
            checkpoints.recovery_points.into_keys().collect::<Vec<_>>(),
            [name("kept")]
        );
    }
}
