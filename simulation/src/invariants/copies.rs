//! A copy of a partition as it lies on a simulated disk.

use std::collections::BTreeMap;
use std::path::Path;

use super::is_compacted;
pub(super) use crate::disk::Image;
use crate::disk::SimDisk;
use crate::process::DATA_DIR;
use crate::record::{self, Batch, segment};

/// What tells one batch from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) base: i64,
    pub(super) end: i64,
    /// The epoch of the leader that took it.
    pub(super) epoch: i32,
    /// 0 in a log that is compacted: there a batch keeps its place and its epoch, and loses records.
    pub(super) crc: u32,
    /// The bytes are those that the sum was made of.
    pub(super) whole: bool,
}

impl Mark {
    /// The same batch, whether or not a bit of it has rotted.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (self.base, self.end, self.epoch, self.crc) == (other.base, other.end, other.epoch, other.crc)
    }

    fn of(batch: &Batch<'_>) -> Self {
        let epoch = batch.bytes.get(12..16).and_then(|bytes| bytes.try_into().ok());
        Self {
            base: batch.base,
            end: batch.end(),
            epoch: epoch.map_or(-1, i32::from_be_bytes),
            crc: batch.crc,
            whole: batch.is_whole(),
        }
    }
}

/// A place in a copy from which the next look goes on: the last batch that was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursor {
    segment: i64,
    at: usize,
}

/// The batches of a partition from offset `from` on, up to and with the one before `to`, in their order.
pub(super) fn batches(
    disk: &SimDisk,
    partition: &str,
    image: Image,
    (from, to): (i64, i64),
    cursor: &mut Cursor,
) -> Vec<Mark> {
    let dir = Path::new(DATA_DIR).join("log").join(partition);
    let compacted = is_compacted(partition);
    if compacted {
        // The file may have been written anew.
        *cursor = Cursor::default();
    }
    let mut marks = Vec::new();
    for base in disk.segments_from(&dir, image, from) {
        if base >= to {
            break;
        }
        let path = segment::path(&dir, base);
        let start = if cursor.segment == base { cursor.at } else { 0 };
        let read = |bytes: &[u8]| {
            let (mut last, mut at) = (start, start);
            for batch in record::batches(bytes.get(start..).unwrap_or_default()) {
                if batch.base >= to {
                    break;
                }
                if batch.end() > from {
                    let mark = Mark::of(&batch);
                    let crc = if compacted { 0 } else { mark.crc };
                    marks.push(Mark { crc, ..mark });
                }
                last = at;
                at += batch.bytes.len();
            }
            last
        };
        let at = match image {
            Image::Live => disk.with_live(&path, read),
            Image::Durable => disk.with_durable(&path, read),
        };
        *cursor = Cursor {
            segment: base,
            at: at.unwrap_or(0),
        };
    }
    marks
}

/// The bytes of that batch are those that its sum was made of: what a mirror took for damaged may have been made again.
pub(super) fn is_whole(disk: &SimDisk, partition: &str, mark: &Mark) -> bool {
    let range = (mark.base, mark.end);
    let now = batches(disk, partition, Image::Live, range, &mut Cursor::default());
    now.first().is_some_and(|now| now.is_same(mark) && now.whole)
}

/// Of each key that has a value the last one from `from` up to `to`: compaction takes out nothing of this.
pub(super) fn last_values(
    disk: &SimDisk,
    partition: &str,
    (from, to): (i64, i64),
) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let dir = Path::new(DATA_DIR).join("log").join(partition);
    let mut values: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for base in disk.live_names(&dir, segment::base) {
        disk.with_live(&segment::path(&dir, base), |bytes| {
            for batch in record::batches(bytes).take_while(|batch| batch.base < to) {
                let records = batch.records().unwrap_or_default();
                for (_, key, value) in records.into_iter().filter(|(offset, ..)| *offset >= from) {
                    if value.is_empty() {
                        values.remove(&*key);
                    } else {
                        values.insert(key.to_vec(), value.to_vec());
                    }
                }
            }
        });
    }
    values
}

/// Up to where a copy is on its disk without a hole. It begins where its first segment does, of which nothing may be left
/// (6144 of any size, 60 s).
pub(super) fn whole_until(disk: &SimDisk, partition: &str) -> i64 {
    let marks = batches(
        disk,
        partition,
        Image::Durable,
        (0, i64::MAX),
        &mut Cursor::default(),
    );
    let dir = Path::new(DATA_DIR).join("log").join(partition);
    let mut end = disk
        .segments_from(&dir, Image::Durable, 0)
        .first()
        .map_or(0, |base| *base);
    for mark in marks {
        if mark.base != end || !mark.whole {
            break;
        }
        end = mark.end;
    }
    end
}

/// Where the durable part of a partition ends. `known` and `cursor` are what an earlier look found.
pub(super) fn durable_end(disk: &SimDisk, partition: &str, known: i64, cursor: &mut Cursor) -> i64 {
    let dir = Path::new(DATA_DIR).join("log").join(partition);
    let Some(newest) = disk.segments_from(&dir, Image::Durable, i64::MAX).pop() else {
        return 0;
    };
    // An empty segment begins where the log ends.
    let known = if cursor.segment == newest { known } else { newest };
    let compacted = is_compacted(partition);
    let mut end = None;
    for mark in batches(disk, partition, Image::Durable, (known, i64::MAX), cursor) {
        // What is left of a batch that was being written when the power went may be all but its offset, which is not under
        // its sum (6328 of any size, 60 s).
        let follows = end.is_none_or(|end| mark.base == end || compacted && mark.base > end);
        if !follows {
            break;
        }
        end = Some(mark.end);
    }
    end.unwrap_or(known)
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use skerry_checker::history::Value;
    use skerry_env::Rng;
    use skerry_env::disk::OpenMode;

    use super::*;
    use crate::disk::DiskConfig;
    use crate::record::Identity;
    use crate::trace::Trace;

    const ORDERS: &str = "orders-0";

    /// A batch of `count` records at an offset.
    fn batch(base: i64, count: u32) -> Vec<u8> {
        let value = |serial| Value { producer: 1, serial };
        let values: Vec<Value> = (0..count).map(value).collect();
        let mut bytes = record::encode(&values, Identity::NONE, 1, 10).to_vec();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes
    }

    /// A copy of these segments, each with its bytes.
    fn copy(segments: &[(i64, &[Vec<u8>])]) -> SimDisk {
        let disk = SimDisk::new("n1", DiskConfig::default(), Rng::seeded(1), Trace::silent());
        let files = disk.attach();
        let dir = Path::new(DATA_DIR).join("log").join(ORDERS);
        files.create_dir_all(&dir).unwrap();
        for (base, batches) in segments {
            let file = files.open(&segment::path(&dir, *base), OpenMode::Create).unwrap();
            file.write_at(&[IoSlice::new(&batches.concat())], 0).unwrap();
            file.sync().unwrap();
        }
        for dir in dir.ancestors() {
            files.sync_dir(dir).unwrap();
        }
        disk
    }

    #[test]
    fn a_copy_is_whole_from_its_first_segment_on() {
        let whole = |segments: &[(i64, &[Vec<u8>])]| whole_until(&copy(segments), ORDERS);
        assert_eq!(whole(&[(5, &[batch(5, 2), batch(7, 1)]), (8, &[batch(8, 1)])]), 9);
        assert_eq!(whole(&[(5, &[batch(5, 2)]), (8, &[batch(8, 1)])]), 7, "a hole");
        assert_eq!(
            whole(&[(5, &[]), (7, &[batch(7, 1)])]),
            5,
            "the first one is lost"
        );
    }

    #[test]
    fn what_follows_nothing_is_not_the_end() {
        let ends = |batches: &[Vec<u8>]| {
            let disk = copy(&[(5, batches)]);
            durable_end(&disk, ORDERS, 0, &mut Cursor::default())
        };
        assert_eq!(ends(&[]), 5);
        assert_eq!(ends(&[batch(5, 2), batch(7, 6)]), 13);
        // All but its offset was written.
        assert_eq!(ends(&[batch(5, 2), batch(0, 6)]), 7);
        assert_eq!(ends(&[batch(5, 2), batch(1 << 40, 6)]), 7);
    }
}
