//! What the device holds of a partition, by the oracle's own reading.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::wire::{CommitAsked, PartitionName};
use crate::disk::{Image, SimDisk};
use crate::process::DATA_DIR;
use crate::record::{self, Batch, segment};
use crate::workload::KEYED;

const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Topics that the workload removes: their folders may be gone when an answer about them leaves.
pub(crate) const SHORT_LIVED: &str = "churn";

/// What the folder of a copy that was given up ends in; it begins with the partition's name and a dot.
const ASIDE_SUFFIX: &str = "-damaged";

pub(super) struct DurableLogs {
    disk: SimDisk,
    /// What is written counts as well.
    written_counts: bool,
    dirs: BTreeMap<PartitionName, PathBuf>,
    /// A batch of each segment and where it begins: the next look starts there.
    seen: BTreeMap<PathBuf, (i64, usize)>,
    /// Where a group's last commit was.
    groups: BTreeMap<String, PathBuf>,
}

impl DurableLogs {
    pub(super) fn new(disk: SimDisk, written_counts: bool) -> Self {
        Self {
            disk,
            written_counts,
            dirs: BTreeMap::new(),
            seen: BTreeMap::new(),
            groups: BTreeMap::new(),
        }
    }

    fn dir(&mut self, partition: &PartitionName) -> Option<PathBuf> {
        if let Some(dir) = self.dirs.get(partition) {
            return Some(dir.clone());
        }
        let dir = Path::new(DATA_DIR).join("log").join(partition.to_string());
        if !self.disk.is_dir(&dir) {
            return None;
        }
        self.dirs.insert(partition.clone(), dir.clone());
        Some(dir)
    }

    /// What is left of copies of a partition that were given up. They stay until the copy that is made again is in sync: what
    /// was confirmed upon them was confirmed rightly.
    fn set_aside(&self, partition: &PartitionName) -> Vec<PathBuf> {
        let log_dir = Path::new(DATA_DIR).join("log");
        let prefix = format!("{partition}.");
        let is_aside = |name: &str| {
            let is = name.starts_with(&prefix) && name.ends_with(ASIDE_SUFFIX);
            is.then(|| log_dir.join(name))
        };
        self.disk.durable_names(&log_dir, is_aside)
    }

    /// Why the batch is not sure to survive a power cut at this moment.
    pub(super) fn has_batch(&mut self, partition: &PartitionName, base: i64, crc: u32) -> Result<(), String> {
        if partition.topic.starts_with(SHORT_LIVED) {
            return Ok(());
        }
        let dir = self.dir(partition).ok_or("there is no folder for it")?;
        self.has_batch_in(&dir, base, crc).or_else(|why| {
            let mut aside = self.set_aside(partition).into_iter();
            let is_there = aside.any(|dir| self.has_batch_in(&dir, base, crc).is_ok());
            // Compaction writes anew what is durable, and leaves out what is superseded: the log goes on behind it.
            let is_compacted = partition.topic == KEYED && self.reaches(partition, base + 1).is_ok();
            if is_there || is_compacted {
                Ok(())
            } else {
                Err(why)
            }
        })
    }

    fn has_batch_in(&mut self, dir: &Path, base: i64, crc: u32) -> Result<(), String> {
        let segments = self.segments_from(dir, base);
        let Some(first) = segments.first() else {
            return Err("no segment's name is durable".to_owned());
        };
        if *first > base {
            // Everything up to here was deleted in the meantime.
            return Ok(());
        }
        let path = &segment::path(dir, *first);
        let start = self
            .seen
            .get(path)
            .filter(|(seen, _)| *seen <= base)
            .map_or(0, |(_, at)| *at);
        let found = self.with_file(path, |bytes| {
            find(bytes, start, base)
                .or_else(|| find(bytes, 0, base))
                .ok_or_else(|| end_of(bytes))
                .map(|(at, batch)| (at, batch.crc, batch.is_whole()))
        });
        match found {
            None => Err(format!("{} is not durable", path.display())),
            Some(Err(end)) => Err(format!("{} is durable up to offset {end}", path.display())),
            Some(Ok((at, found, whole))) => {
                self.seen.insert(path.clone(), (base, at));
                match (found == crc, whole) {
                    (true, true) => Ok(()),
                    (false, _) => Err(format!(
                        "{} holds another batch there (sum {found:08x}, not {crc:08x})",
                        path.display()
                    )),
                    (true, false) => Err(format!("{} holds only a part of it", path.display())),
                }
            }
        }
    }

    /// Where the durable log ends, if that is before `high_watermark`.
    pub(super) fn reaches(&mut self, partition: &PartitionName, high_watermark: i64) -> Result<(), i64> {
        if high_watermark <= 0 || partition.topic.starts_with(SHORT_LIVED) {
            return Ok(());
        }
        let Some(dir) = self.dir(partition) else {
            return Err(0);
        };
        self.reaches_in(&dir, high_watermark).or_else(|end| {
            let mut aside = self.set_aside(partition).into_iter();
            let is_there = aside.any(|dir| self.reaches_in(&dir, high_watermark).is_ok());
            if is_there { Ok(()) } else { Err(end) }
        })
    }

    fn reaches_in(&self, dir: &Path, high_watermark: i64) -> Result<(), i64> {
        let Some(first) = &self.segments_from(dir, i64::MAX).pop() else {
            return Err(0);
        };
        let path = &segment::path(dir, *first);
        // An empty segment begins where the log ends.
        if *first >= high_watermark {
            return Ok(());
        }
        let seen = self.seen.get(path).copied();
        let end = self.with_file(path, |bytes| {
            // It may have been cut since.
            let is_there = |at| {
                let rest = bytes.get(at..)?;
                Some((record::first(rest)?.base, at))
            };
            let start = seen
                .filter(|(_, at)| is_there(*at) == seen)
                .map_or(0, |(_, at)| at);
            let mut end = *first;
            for batch in record::batches(&bytes[start..]) {
                end = end.max(batch.end());
                if end >= high_watermark {
                    break;
                }
            }
            end
        });
        match end {
            Some(end) if end >= high_watermark => Ok(()),
            end => Err(end.unwrap_or(0)),
        }
    }

    /// Why no record of the groups' partitions that is sure to survive a power cut says what was committed. What is left of
    /// copies that were given up counts too.
    pub(super) fn has_commit(&mut self, commit: &CommitAsked) -> Result<(), String> {
        // Of a group all commits are in one partition.
        let known = self.groups.get(&commit.group);
        if known.is_some_and(|dir| self.has_commit_in(dir, commit)) {
            return Ok(());
        }
        let log_dir = Path::new(DATA_DIR).join("log");
        let is_of_groups = |name: &str| name.starts_with(OFFSETS_TOPIC).then(|| log_dir.join(name));
        let mut dirs = self.disk.live_names(&log_dir, is_of_groups).into_iter();
        let dir = dirs
            .find(|dir| self.has_commit_in(dir, commit))
            .ok_or_else(|| format!("no durable record of {OFFSETS_TOPIC} says so"))?;
        self.groups.insert(commit.group.clone(), dir);
        Ok(())
    }

    fn has_commit_in(&self, dir: &Path, commit: &CommitAsked) -> bool {
        let mut newest_first = self.segments_from(dir, 0).into_iter().rev();
        newest_first.any(|base| {
            self.with_file(&segment::path(dir, base), |bytes| {
                record::batches(bytes).any(|batch| says(&batch, commit))
            }) == Some(true)
        })
    }

    fn with_file<T>(&self, path: &Path, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        if self.written_counts {
            self.disk.with_live(path, look)
        } else {
            self.disk.with_durable(path, look)
        }
    }

    /// Where segments begin, from the one on that holds `offset`.
    fn segments_from(&self, dir: &Path, offset: i64) -> Vec<i64> {
        let image = match self.written_counts {
            true => Image::Live,
            false => Image::Durable,
        };
        self.disk.segments_from(dir, image, offset)
    }
}

fn find(bytes: &[u8], start: usize, base: i64) -> Option<(usize, Batch<'_>)> {
    let mut at = start;
    for batch in record::batches(bytes.get(start..)?) {
        if batch.base == base {
            return Some((at, batch));
        }
        if batch.base > base {
            return None;
        }
        at += batch.bytes.len();
    }
    None
}

fn end_of(bytes: &[u8]) -> i64 {
    record::batches(bytes)
        .filter(Batch::is_whole)
        .last()
        .map_or(0, |batch| batch.end())
}

/// Kafka's commit records: key = version, group, topic, partition; value = version, offset, …
fn says(batch: &Batch<'_>, commit: &CommitAsked) -> bool {
    let mut key = 1_i16.to_be_bytes().to_vec();
    for text in [&commit.group, &commit.topic] {
        key.extend_from_slice(&i16::try_from(text.len()).unwrap_or(0).to_be_bytes());
        key.extend_from_slice(text.as_bytes());
    }
    key.extend_from_slice(&commit.partition.to_be_bytes());
    batch.is_whole()
        && batch
            .records()
            .unwrap_or_default()
            .iter()
            .any(|(_, found, value)| {
                found.get(2..) == key.get(2..)
                    && value
                        .get(2..10)
                        .and_then(|bytes| bytes.try_into().ok())
                        .map(i64::from_be_bytes)
                        == Some(commit.offset)
            })
}
