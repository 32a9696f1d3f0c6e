//! Which bit rots: one that was synced, and that recovery looks at, or that nobody looks at.

use std::path::{Path, PathBuf};

use skerry_env::Rng;

use crate::disk::SimDisk;
use crate::process::DATA_DIR;
use crate::record::{self, HEADER_BYTES, segment};
use crate::workload::TOPICS;

/// Kafka's checkpoint file: a version, a count, and lines of topic, partition, offset.
const RECOVERY_POINTS: &str = "log/recovery-point-offset-checkpoint";

/// A bit that has rotted.
pub(crate) struct Rot {
    /// The node's place among the nodes.
    pub(crate) node: usize,
    pub(crate) partition: String,
    pub(crate) path: PathBuf,
    pub(crate) position: usize,
    pub(crate) bit: u8,
    /// The node was not told, and goes on.
    pub(crate) is_quiet: bool,
}

impl Rot {
    /// The bit is still wrong. The cluster may have made the copy anew, or cut it and gone on: what lies there then is good.
    pub(crate) fn is_there(&self, disk: &SimDisk) -> bool {
        let is_rotten = disk.with_live(&self.path, |bytes| {
            let mut end = 0;
            let around = record::batches(bytes).find(|batch| {
                end += batch.bytes.len();
                self.position < end
            });
            around.is_some_and(|batch| !batch.is_whole())
        });
        is_rotten == Some(true)
    }
}

/// Batches at the end of a log that nobody may have heard of yet.
const NEW_BATCHES: usize = 5;

/// A bit of the last batch below some partition's recovery point: damage there is no torn tail. Where the node is not
/// told, of an older one: recovery does not look there.
pub(crate) fn choose(
    node: usize,
    disk: &SimDisk,
    rng: &Rng,
    is_quiet: bool,
    may: impl Fn(&str) -> bool,
) -> Option<Rot> {
    let checkpoint = Path::new(DATA_DIR).join(RECOVERY_POINTS);
    let text = disk.with_durable(&checkpoint, |bytes| String::from_utf8_lossy(bytes).into_owned())?;
    let mut places: Vec<(String, i64)> = text
        .lines()
        .skip(2)
        .filter_map(|line| {
            let mut words = line.split(' ');
            let (topic, partition, offset) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
            TOPICS
                .iter()
                .any(|(known, _)| *known == topic)
                .then(|| (format!("{topic}-{partition}"), offset))
        })
        .filter(|(partition, recovery_point)| *recovery_point > 0 && may(partition))
        .collect();
    while !places.is_empty() {
        let index = usize::try_from(rng.below(places.len() as u64)).unwrap_or(0);
        let (partition, recovery_point) = places.remove(index);
        let found = batches_below(disk, &partition, recovery_point).and_then(|(path, mut batches)| {
            let number = if is_quiet {
                batches.truncate(batches.len().saturating_sub(NEW_BATCHES));
                usize::try_from(rng.below(batches.len() as u64)).unwrap_or(0)
            } else {
                batches.len().saturating_sub(1)
            };
            let (start, len) = *batches.get(number)?;
            Some((path, start, len))
        });
        if let Some((path, start, len)) = found {
            let within = usize::try_from(rng.below((len - HEADER_BYTES) as u64)).unwrap_or(0);
            let bit = u8::try_from(rng.below(8)).unwrap_or(0);
            return Some(Rot {
                node,
                partition,
                path,
                position: start + HEADER_BYTES + within,
                bit,
                is_quiet,
            });
        }
    }
    None
}

/// Where the whole batches below a partition's recovery point lie, in the segment of the last of them.
fn batches_below(
    disk: &SimDisk,
    partition: &str,
    recovery_point: i64,
) -> Option<(PathBuf, Vec<(usize, usize)>)> {
    let dir = disk.find_dir(partition)?;
    let bases = disk.durable_names(&dir, segment::base);
    let base = bases.into_iter().filter(|base| *base < recovery_point).max()?;
    let path = segment::path(&dir, base);
    let found = disk.with_durable(&path, |bytes| {
        let (mut at, mut found) = (0, Vec::new());
        for batch in record::batches(bytes) {
            if batch.end() <= recovery_point && batch.is_whole() {
                found.push((at, batch.bytes.len()));
            }
            at += batch.bytes.len();
        }
        found
    })?;
    Some((path, found))
}
