//! Which place of a disk goes bad: one that was synced, and that recovery looks at, or that nobody looks at.

use std::ops::Range;
use std::path::{Path, PathBuf};

use skerry_env::Rng;

use crate::disk::{Harm, SECTOR_BYTES, Sector, SimDisk};
use crate::process::DATA_DIR;
use crate::record::{self, HEADER_BYTES, segment};
use crate::workload::TOPICS;

const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Kafka's checkpoint file: a version, a count, and lines of topic, partition, offset.
const RECOVERY_POINTS: &str = "log/recovery-point-offset-checkpoint";
/// What of a log follows from its records.
const BESIDE: [&str; 3] = [".index", ".timeindex", ".snapshot"];
/// Kafka's file that says so of the last stop.
const CLEAN_SHUTDOWN: &str = "log/.kafka_cleanshutdown";

/// A place that has gone bad.
pub(crate) struct Rot {
    /// The node's place among the nodes.
    pub(crate) node: usize,
    pub(crate) partition: String,
    pub(crate) harm: Harm,
    /// The first offset of the batch.
    pub(crate) base: i64,
    /// The node was not told, and goes on.
    pub(crate) is_quiet: bool,
    /// Every copy has it.
    pub(crate) is_lost: bool,
    /// The offset after the batch.
    pub(crate) next: i64,
    /// What can be read there and around it since.
    around: Vec<u8>,
}

impl Rot {
    /// Does it. `None` where the place is gone.
    pub(crate) fn inflict(
        node: usize,
        place: &Place,
        harm: Harm,
        is_quiet: bool,
        disk: &SimDisk,
    ) -> Option<Self> {
        disk.harm(&harm).then(|| Self {
            node,
            partition: place.partition.clone(),
            base: place.base,
            is_lost: false,
            next: place.next,
            around: disk.around(&harm).unwrap_or_default(),
            harm,
            is_quiet,
        })
    }

    /// The place is still bad. The cluster may have made the copy anew, or cut it and gone on: what lies there then is
    /// good.
    pub(crate) fn is_there(&self, disk: &SimDisk) -> bool {
        disk.around(&self.harm).as_ref() == Some(&self.around)
    }
}

/// A whole batch that is durable.
pub(crate) struct Place {
    pub(crate) partition: String,
    path: PathBuf,
    /// Its bytes in the file.
    batch: Range<usize>,
    /// Its first offset.
    pub(crate) base: i64,
    /// The offset after its last.
    pub(crate) next: i64,
    /// Where such batches end in the file.
    end: usize,
}

impl Place {
    /// A bit of the batch behind its head turned over.
    pub(crate) fn bit(&self, rng: &Rng) -> Harm {
        let body = self.batch.start + HEADER_BYTES..self.batch.end;
        let within = usize::try_from(rng.below(body.len() as u64)).unwrap_or(0);
        let bit = rng.below(8);
        Harm {
            path: self.path.clone(),
            position: body.start + within,
            mask: vec![1 << bit],
            sector: Sector::Good,
        }
    }

    /// The sector in which its body begins, as far as it was synced, and what of the body lies there.
    fn sector(&self) -> (Range<usize>, Range<usize>) {
        let body = self.batch.start + HEADER_BYTES;
        let start = body / SECTOR_BYTES * SECTOR_BYTES;
        let end = (start + SECTOR_BYTES).min(self.end);
        (start..end, body..end.min(self.batch.end))
    }

    /// The sector can be read no more.
    pub(crate) fn unreadable(&self) -> Harm {
        let (sector, body) = self.sector();
        Harm {
            path: self.path.clone(),
            position: body.start,
            mask: vec![0xff; body.len()],
            sector: Sector::Unreadable(sector),
        }
    }

    /// Reads return `bytes` there.
    fn overwritten(&self, bytes: Vec<u8>) -> Harm {
        let (sector, body) = self.sector();
        Harm {
            path: self.path.clone(),
            position: body.start,
            mask: vec![0xff; body.len()],
            sector: Sector::Anothers(sector.start, bytes),
        }
    }

    /// The sector was written over `other`'s: here is what was there before, zeros, and there what belongs here. `None` where
    /// nobody could tell: no sum says of which partition its batch is, and a whole one of the same offset passes for what was
    /// there (7152 of any size, 60 s).
    pub(crate) fn misdirected_to(&self, other: &Self, disk: &SimDisk) -> Option<[Harm; 2]> {
        let (from, to) = (self.sector().0, other.sector().0);
        let read = |bytes: &[u8]| bytes.get(from.clone()).map(<[u8]>::to_vec);
        let mut meant = disk.with_live(&self.path, read)??;
        let there = |bytes: &[u8]| {
            record::batches(bytes.get(to.start..)?)
                .next()
                .map(|batch| batch.base)
        };
        let base = disk.with_live(&other.path, there)?;
        let first = record::batches(&meant).next();
        if first.is_some_and(|first| first.is_whole() && Some(first.base) == base) {
            return None;
        }
        meant.resize(to.len(), 0);
        Some([self.overwritten(vec![0; from.len()]), other.overwritten(meant)])
    }
}

/// Batches at the end of a log that nobody may have heard of yet.
const NEW_BATCHES: usize = 5;

/// The last batch below some partition's recovery point: damage there is no torn tail. Where the node is not told, an
/// older one: recovery does not look there.
pub(crate) fn choose(disk: &SimDisk, rng: &Rng, is_quiet: bool, may: impl Fn(&str) -> bool) -> Option<Place> {
    let mut places = recovery_points(disk);
    places.retain(|(partition, recovery_point)| *recovery_point > 0 && may(partition));
    while !places.is_empty() {
        let index = usize::try_from(rng.below(places.len() as u64)).unwrap_or(0);
        let (partition, recovery_point) = places.remove(index);
        let segment = if is_quiet { rng.u64() } else { 0 };
        let found = batches_below(disk, &partition, recovery_point, segment).and_then(|below| {
            let (path, mut batches) = (below.path, below.batches);
            let number = if is_quiet {
                let new = if below.is_newest { NEW_BATCHES } else { 0 };
                batches.truncate(batches.len().saturating_sub(new));
                usize::try_from(rng.below(batches.len() as u64)).unwrap_or(0)
            } else {
                batches.len().saturating_sub(1)
            };
            let end = batches.last()?.1.end;
            let (base, batch) = batches.get(number)?.clone();
            let next = batches.get(number + 1).map_or(below.next, |(next, _)| *next);
            Some(Place {
                partition: partition.clone(),
                path,
                batch,
                base,
                next,
                end,
            })
        });
        if found.is_some() {
            return found;
        }
    }
    None
}

/// A bit of a file that only repeats what the records say, of some partition of the workload.
pub(crate) fn choose_beside(disk: &SimDisk, rng: &Rng) -> Option<Harm> {
    let mut files = Vec::new();
    for (topic, partitions) in TOPICS {
        for number in 0..partitions {
            let Some(dir) = disk.find_dir(&format!("{topic}-{number}")) else {
                continue;
            };
            let is_one = |name: &str| BESIDE.iter().any(|suffix| name.ends_with(suffix));
            let names = disk.durable_names(&dir, |name| is_one(name).then(|| dir.join(name)));
            files.extend(names.into_iter().filter_map(|path| {
                let bytes = disk.with_durable(&path, <[u8]>::len)?;
                (bytes > 0).then_some((path, bytes as u64))
            }));
        }
    }
    files.sort();
    let count = files.len() as u64;
    let (path, bytes) = files
        .into_iter()
        .nth(usize::try_from(rng.below(count.max(1))).ok()?)?;
    Some(Harm {
        path,
        position: usize::try_from(rng.below(bytes)).ok()?,
        mask: vec![1 << rng.below(8)],
        sector: Sector::Good,
    })
}

/// The node has stopped in order, or is about to, and has not begun again.
pub(crate) fn stopped_in_order(disk: &SimDisk) -> bool {
    disk.with_live(&Path::new(DATA_DIR).join(CLEAN_SHUTDOWN), |_| ())
        .is_some()
}

/// A batch's first offset, and where it lies.
type Found = (i64, Range<usize>);

/// Up to where the partitions of the workload were durable when a checkpoint was written.
fn recovery_points(disk: &SimDisk) -> Vec<(String, i64)> {
    let checkpoint = Path::new(DATA_DIR).join(RECOVERY_POINTS);
    let text = disk.with_durable(&checkpoint, |bytes| String::from_utf8_lossy(bytes).into_owned());
    let text = text.unwrap_or_default();
    let points = text.lines().skip(2).filter_map(|line| {
        let mut words = line.split(' ');
        let (topic, partition, offset) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
        let is_known = topic == OFFSETS_TOPIC || TOPICS.iter().any(|(known, _)| *known == topic);
        is_known.then(|| (format!("{topic}-{partition}"), offset))
    });
    points.collect()
}

/// The same batch on another disk, if it is whole there, and below what that one's checkpoint says: what lies behind is to
/// recovery a torn tail.
pub(crate) fn same_on(disk: &SimDisk, place: &Place) -> Option<Place> {
    let points = recovery_points(disk);
    let mut points = points
        .iter()
        .filter(|(partition, _)| *partition == place.partition);
    points.find(|(_, recovery_point)| *recovery_point >= place.next)?;
    let Below { path, batches, .. } = batches_below(disk, &place.partition, place.next, 0)?;
    let (base, batch) = batches.iter().find(|(base, _)| *base == place.base)?;
    Some(Place {
        partition: place.partition.clone(),
        path,
        batch: batch.clone(),
        base: *base,
        next: place.next,
        end: batch.end,
    })
}

/// A checkpoint on this disk says that more of a partition is durable than there is.
pub(crate) fn claims_more(disk: &SimDisk, partition: &str) -> bool {
    let points = recovery_points(disk).into_iter();
    let mut points = points.filter(|(name, _)| name == partition);
    let Some((_, recovery_point)) = points.next() else {
        return false;
    };
    let segments = |dir: &PathBuf| disk.durable_names(dir, segment::base);
    let dir = disk.find_dir(partition);
    let base = dir.as_ref().and_then(|dir| {
        let bases = segments(dir).into_iter();
        bases.filter(|base| *base < recovery_point).max()
    });
    let (Some(dir), Some(base)) = (dir, base) else {
        return false;
    };
    let end = disk.with_durable(&segment::path(&dir, base), |bytes| {
        let whole = record::batches(bytes).take_while(record::Batch::is_whole);
        whole.last().map_or(base, |batch| batch.end())
    });
    end.is_some_and(|end| end < recovery_point)
}

/// The whole batches of one segment that are below a partition's recovery point.
struct Below {
    path: PathBuf,
    batches: Vec<Found>,
    /// The offset behind the last one.
    next: i64,
    /// The recovery point is in this segment, or at its end.
    is_newest: bool,
}

/// What lies in one of the segments below a recovery point: the newest for 0, any of them for another number.
fn batches_below(disk: &SimDisk, partition: &str, recovery_point: i64, segment: u64) -> Option<Below> {
    let dir = disk.find_dir(partition)?;
    let mut bases = disk.durable_names(&dir, segment::base);
    bases.retain(|base| *base < recovery_point);
    bases.sort_unstable_by(|a, b| b.cmp(a));
    let number = usize::try_from(segment % (bases.len() as u64).max(1)).ok()?;
    let path = segment::path(&dir, *bases.get(number)?);
    let batches = disk.with_durable(&path, |bytes| {
        let (mut at, mut found) = (0, Vec::new());
        for batch in record::batches(bytes) {
            if batch.end() <= recovery_point && batch.is_whole() {
                found.push((batch.base, at..at + batch.bytes.len()));
            }
            at += batch.bytes.len();
        }
        found
    })?;
    let newer = number.checked_sub(1).and_then(|newer| bases.get(newer));
    Some(Below {
        path,
        batches,
        next: newer.copied().unwrap_or(recovery_point),
        is_newest: number == 0,
    })
}
