//! What one file and one directory hold: as programs see them, as the device has them, and what lies between.

use std::collections::BTreeMap;
use std::ops::Range;

use skerry_env::Rng;

use super::SECTOR_BYTES;

/// Names a file or a directory for the life of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InodeId(pub(super) u64);

/// A change of a file that no `sync` has covered.
#[derive(Clone, Debug)]
pub(super) enum FileOp {
    Write { position: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// How unkind one power cut is. Drawn once for each cut.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unkindness {
    /// Everything that waited reached the device.
    pub(super) keeps_everything: bool,
    /// Sectors of a hundred that reached the device whole.
    pub(super) applied_of_100: u64,
    /// Sectors of a hundred that were torn in the middle.
    pub(super) torn_of_100: u64,
    /// Sectors of a hundred that hold garbage.
    pub(super) garbage_of_100: u64,
    /// Names of a hundred that survive without a `sync_dir`.
    pub(super) names_of_100: u64,
}

impl Unkindness {
    pub(super) fn draw(rng: &Rng) -> Self {
        let applied_of_100 = [5, 30, 50, 70, 95][usize::try_from(rng.below(5)).unwrap_or(0)];
        Self {
            keeps_everything: rng.chance(1, 10),
            applied_of_100,
            torn_of_100: rng.below(8),
            garbage_of_100: rng.below(5),
            names_of_100: [0, 25, 50][usize::try_from(rng.below(3)).unwrap_or(0)],
        }
    }
}

/// What a power cut did to what waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CutReport {
    /// Sectors that reached the device.
    pub applied: u64,
    /// Sectors that did not.
    pub dropped: u64,
    /// Sectors of which a part did.
    pub torn: u64,
    /// Sectors that hold neither the old nor the new bytes.
    pub garbage: u64,
    /// Names (links, removals, renames) that had not been synced and are undone.
    pub names_undone: u64,
}

impl CutReport {
    pub(super) fn add(&mut self, other: Self) {
        self.applied += other.applied;
        self.dropped += other.dropped;
        self.torn += other.torn;
        self.garbage += other.garbage;
        self.names_undone += other.names_undone;
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct FileNode {
    /// What a read returns.
    pub(super) live: Vec<u8>,
    /// What the device is known to hold.
    pub(super) durable: Vec<u8>,
    /// What it would hold if no place of it had gone bad, since one has.
    pub(super) pristine: Option<Vec<u8>>,
    pub(super) pending: Vec<FileOp>,
    /// A sync failed and the kernel marked the pages clean: what the cache still shows is not what the device holds.
    pub(super) cache_lies: bool,
    /// The device holds so much of it, whatever it has said of later syncs.
    pub(super) really: Option<usize>,
}

impl FileNode {
    pub(super) fn write(&mut self, position: usize, bytes: Vec<u8>) {
        place(&mut self.live, position, &bytes);
        self.pending.push(FileOp::Write { position, bytes });
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.live.resize(len, 0);
        self.pending.push(FileOp::SetLen(len));
    }

    /// The device's bytes as they were written, also where they have gone bad since: what whoever synced them can know.
    pub(super) fn as_synced(&self) -> &[u8] {
        self.pristine.as_ref().unwrap_or(&self.durable)
    }

    fn put(&mut self, position: usize, bytes: &[u8]) {
        for image in [Some(&mut self.durable), self.pristine.as_mut()]
            .into_iter()
            .flatten()
        {
            place(image, position, bytes);
        }
    }

    fn end_at(&mut self, len: usize) {
        for image in [Some(&mut self.durable), self.pristine.as_mut()]
            .into_iter()
            .flatten()
        {
            image.resize(len, 0);
        }
    }

    /// `fsync` that succeeded.
    pub(super) fn sync(&mut self) {
        for op in std::mem::take(&mut self.pending) {
            match op {
                FileOp::Write { position, bytes } => self.put(position, &bytes),
                FileOp::SetLen(len) => self.end_at(len),
            }
        }
    }

    /// `fsync` that failed: some of it reached the device, all of it is forgotten (the pages are marked clean), so
    /// that the next `fsync` succeeds without writing them.
    pub(super) fn fail_sync(&mut self, rng: &Rng) {
        let kindness = Unkindness {
            keeps_everything: false,
            ..Unkindness::draw(rng)
        };
        self.settle_pending(rng, kindness);
        self.cache_lies = self.live != self.durable;
    }

    /// The process died: the cache survives it, but pages that only look clean are evicted sooner or later. Here it
    /// is at once.
    pub(super) fn forget_clean_pages(&mut self) {
        if self.cache_lies {
            self.cache_lies = false;
            self.pending.clear();
            self.live.clone_from(&self.durable);
        }
    }

    /// The power went: what waited is settled, one sector at a time.
    pub(super) fn cut_power(&mut self, rng: &Rng, unkindness: Unkindness) -> CutReport {
        let report = self.settle_pending(rng, unkindness);
        self.cache_lies = false;
        self.live.clone_from(&self.durable);
        report
    }

    fn settle_pending(&mut self, rng: &Rng, unkindness: Unkindness) -> CutReport {
        let mut report = CutReport::default();
        for op in std::mem::take(&mut self.pending) {
            match op {
                FileOp::SetLen(len) => {
                    if unkindness.keeps_everything || rng.chance(1, 2) {
                        self.end_at(len);
                    }
                }
                FileOp::Write { position, bytes } if unkindness.keeps_everything => {
                    self.put(position, &bytes);
                    report.applied += bytes.len().div_ceil(SECTOR_BYTES) as u64;
                }
                FileOp::Write { position, bytes } => {
                    // The file's new length may be known to the device although the bytes are not.
                    if position + bytes.len() > self.durable.len() && rng.chance(1, 2) {
                        self.end_at(position + bytes.len());
                    }
                    for sector in sectors(position, bytes.len()) {
                        let part = &bytes[sector.start - position..sector.end - position];
                        self.settle_sector(rng, unkindness, sector.start, part, &mut report);
                    }
                }
            }
        }
        report
    }

    fn settle_sector(
        &mut self,
        rng: &Rng,
        cut: Unkindness,
        start: usize,
        part: &[u8],
        report: &mut CutReport,
    ) {
        let drawn = rng.below(100);
        if drawn < cut.torn_of_100 {
            report.torn += 1;
            let at = usize::try_from(rng.below(part.len() as u64)).unwrap_or(0);
            if rng.chance(1, 2) {
                self.put(start, &part[..at]);
            } else {
                self.put(start + at, &part[at..]);
            }
        } else if drawn < cut.torn_of_100 + cut.garbage_of_100 {
            report.garbage += 1;
            let mut garbage = vec![0; part.len()];
            rng.fill(&mut garbage);
            self.put(start, &garbage);
        } else if rng.below(100) < cut.applied_of_100 {
            report.applied += 1;
            self.put(start, part);
        } else {
            report.dropped += 1;
        }
    }
}

/// A change of a directory that no `sync_dir` has covered. Both halves of a rename carry the same `tie`: a journal
/// keeps both or neither.
#[derive(Clone, Debug)]
pub(super) struct NameOp {
    pub(super) name: String,
    /// What the name stands for from now on; `None`: nothing.
    pub(super) target: Option<InodeId>,
    pub(super) tie: Option<u64>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct DirNode {
    pub(super) live: BTreeMap<String, InodeId>,
    pub(super) durable: BTreeMap<String, InodeId>,
    pub(super) pending: Vec<NameOp>,
}

impl DirNode {
    pub(super) fn change(&mut self, name: &str, target: Option<InodeId>, tie: Option<u64>) {
        set_name(&mut self.live, name, target);
        self.pending.push(NameOp {
            name: name.to_owned(),
            target,
            tie,
        });
    }

    /// Applies what waits, and says which renames are now durable.
    pub(super) fn sync(&mut self) -> Vec<u64> {
        let mut ties = Vec::new();
        for op in self.pending.drain(..) {
            set_name(&mut self.durable, &op.name, op.target);
            ties.extend(op.tie);
        }
        ties
    }

    /// Applies the halves of renames whose other halves became durable, and everything that waited before them: a
    /// journal is written in order.
    pub(super) fn sync_ties(&mut self, ties: &[u64]) -> Vec<u64> {
        let Some(last) = self
            .pending
            .iter()
            .rposition(|op| op.tie.is_some_and(|tie| ties.contains(&tie)))
        else {
            return Vec::new();
        };
        let mut more = Vec::new();
        for op in self.pending.drain(..=last) {
            set_name(&mut self.durable, &op.name, op.target);
            more.extend(op.tie.filter(|tie| !ties.contains(tie)));
        }
        more
    }

    /// The power went. `kept` remembers what was drawn for each rename.
    pub(super) fn cut_power(
        &mut self,
        rng: &Rng,
        unkindness: Unkindness,
        kept: &mut BTreeMap<u64, bool>,
    ) -> CutReport {
        let mut report = CutReport::default();
        for op in std::mem::take(&mut self.pending) {
            let draw = || unkindness.keeps_everything || rng.below(100) < unkindness.names_of_100;
            // A rename, or a removal, goes either way; a new name mostly vanishes.
            let keep = match op.tie {
                Some(tie) => *kept
                    .entry(tie)
                    .or_insert_with(|| unkindness.keeps_everything || rng.chance(1, 2)),
                None if op.target.is_none() => unkindness.keeps_everything || rng.chance(1, 2),
                None => draw(),
            };
            if keep {
                set_name(&mut self.durable, &op.name, op.target);
            } else {
                report.names_undone += 1;
            }
        }
        self.live.clone_from(&self.durable);
        report
    }
}

#[derive(Clone, Debug)]
pub(super) enum Inode {
    File(FileNode),
    Dir(DirNode),
}

fn set_name(names: &mut BTreeMap<String, InodeId>, name: &str, target: Option<InodeId>) {
    match target {
        Some(id) => names.insert(name.to_owned(), id),
        None => names.remove(name),
    };
}

fn place(image: &mut Vec<u8>, position: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = position + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[position..end].copy_from_slice(bytes);
}

/// What the power leaves of a file that another library has written: of what it had not synced each sector may be there, or
/// not, or be torn or garbage.
pub(crate) fn torn(bytes: &[u8], synced: usize, rng: &Rng) -> Vec<u8> {
    let (kept, tail) = bytes.split_at(synced.min(bytes.len()));
    let mut file = FileNode::default();
    file.write(0, kept.to_vec());
    file.sync();
    file.write(kept.len(), tail.to_vec());
    file.cut_power(rng, Unkindness::draw(rng));
    file.durable
}

/// The sectors that `len` bytes at `position` touch, cut to those bytes.
fn sectors(position: usize, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = position + len;
    let mut start = position;
    std::iter::from_fn(move || {
        (start < end).then(|| {
            let stop = ((start / SECTOR_BYTES + 1) * SECTOR_BYTES).min(end);
            let sector = start..stop;
            start = stop;
            sector
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_cut_at_the_device_s_sectors() {
        assert_eq!(
            sectors(500, 600).collect::<Vec<_>>(),
            [500..512, 512..1024, 1024..1100]
        );
        assert_eq!(
            sectors(512, 512).collect::<Vec<_>>(),
            [Range {
                start: 512,
                end: 1024
            }]
        );
        assert_eq!(sectors(3, 0).count(), 0);
    }

    #[test]
    fn a_tail_is_torn_and_what_was_synced_is_not() {
        let bytes: Vec<u8> = (0..5_000_u32).map(|byte| byte as u8).collect();
        let (mut whole, mut shorter, mut other) = (0, 0, 0);
        for seed in 0..200 {
            let left = torn(&bytes, 700, &Rng::seeded(seed));
            assert_eq!(left[..700], bytes[..700]);
            whole += u64::from(left == bytes);
            shorter += u64::from(left.len() < bytes.len());
            other += u64::from(!bytes.starts_with(&left));
        }
        assert!(
            whole > 10 && shorter > 20 && other > 50,
            "{whole} {shorter} {other}"
        );
    }

    #[test]
    fn synced_bytes_survive_and_later_ones_may_not() {
        for seed in 0..50 {
            let rng = Rng::seeded(seed);
            let mut file = FileNode::default();
            file.write(0, vec![1; 1000]);
            file.sync();
            file.write(1000, vec![2; 4000]);
            file.cut_power(&rng, Unkindness::draw(&rng));
            assert_eq!(&file.durable[..1000], &[1; 1000][..]);
            assert_eq!(file.live, file.durable);
        }
    }

    #[test]
    fn a_failed_sync_forgets_what_it_was_to_write() {
        let rng = Rng::seeded(1);
        let mut file = FileNode::default();
        file.write(0, vec![1; 100_000]);
        file.fail_sync(&rng);
        file.sync();
        assert_eq!(file.live.len(), 100_000);
        assert_ne!(
            file.durable, file.live,
            "the second sync succeeded without writing anything"
        );
        file.forget_clean_pages();
        assert_eq!(file.durable, file.live);
    }
}
