//! What else devices do to bytes: writes and reads that fail, reads that return something else, places that have gone
//! bad, and too little bandwidth.
//!
//! A place that has gone bad is an overlay of the bytes that were written: undoing it is doing it again.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use skerry_env::Rng;

use super::inode::{Inode, InodeId};
use super::{EIO, SimDisk, State};

/// How a device misbehaves beside failing syncs. 0: it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// One of so many writes fails (EIO); a part of it is in the cache.
    pub write_fails_one_in: u64,
    /// One of so many reads fails (EIO), and the bytes are good.
    pub read_fails_one_in: u64,
    /// One of so many reads of records returns one bit turned over, and the device's bytes are good. The next read of
    /// that place is right, whatever is read in between: else nobody could tell such a device from a rotten one.
    pub read_flips_one_in: u64,
    /// Bytes written in a second; a sync waits for those before it.
    pub bytes_per_second: u64,
}

/// A sync behind a throttled device waits this long at the most.
const OWED_MAX: Duration = Duration::from_secs(4);
/// Bytes around a bad place that tell it from what was written there later.
const AROUND_BYTES: usize = 32;

/// A place that has gone bad, until it is written again. The checks see bytes of one batch's body that are not what was
/// written, and can go on behind it; the process may see more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Harm {
    /// The file.
    pub path: PathBuf,
    /// The first byte.
    pub position: usize,
    /// What its bytes are combined with (exclusive or).
    pub mask: Vec<u8>,
    /// What reads see beyond that.
    pub sector: Sector,
}

/// What reads see of a sector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sector {
    /// What is there.
    Good,
    /// Nothing: they fail.
    Unreadable(Range<usize>),
    /// Bytes that belong elsewhere, from a position on.
    Anothers(usize, Vec<u8>),
}

impl Sector {
    fn range(&self) -> Range<usize> {
        match self {
            Self::Good => 0..0,
            Self::Unreadable(range) => range.clone(),
            Self::Anothers(start, bytes) => *start..start + bytes.len(),
        }
    }
}

impl Harm {
    fn range(&self) -> Range<usize> {
        self.position..self.position + self.mask.len()
    }
}

/// The device's memory of its troubles.
pub(super) struct Troubles {
    pub(super) rng: Rng,
    bad: Vec<(InodeId, Sector)>,
    /// The time that the device still needs for what was written.
    owed: Duration,
    /// Where a bit was read wrong, and nobody has looked again.
    misread: Vec<(InodeId, usize)>,
    write_failures: u64,
    read_failures: u64,
    flips: u64,
}

impl Troubles {
    pub(super) fn new() -> Self {
        Self {
            rng: Rng::seeded(0),
            bad: Vec::new(),
            owed: Duration::ZERO,
            misread: Vec::new(),
            write_failures: 0,
            read_failures: 0,
            flips: 0,
        }
    }

    /// The device has new bytes here.
    pub(super) fn on_written(&mut self, id: InodeId, range: Range<usize>, trouble: Trouble) {
        self.bad
            .retain(|(other, bad)| *other != id || !overlap(&bad.range(), &range));
        if let Some(nanos) = (range.len() as u64 * 1_000_000_000).checked_div(trouble.bytes_per_second) {
            self.owed = OWED_MAX.min(self.owed + Duration::from_nanos(nanos));
        }
    }

    /// The file ends here now.
    pub(super) fn on_cut(&mut self, id: InodeId, len: usize) {
        self.bad
            .retain(|(other, bad)| *other != id || bad.range().start < len);
    }

    /// How long a sync waits for what was written before it.
    pub(super) fn pay(&mut self) -> Duration {
        std::mem::take(&mut self.owed)
    }

    pub(super) fn a_write_fails(&mut self, trouble: Trouble) -> bool {
        let fails = draw(&self.rng, trouble.write_fails_one_in);
        self.write_failures += u64::from(fails);
        fails
    }

    /// Refuses a read of a bad place, and now and then of a good one.
    pub(super) fn before_read(
        &mut self,
        id: InodeId,
        range: &Range<usize>,
        trouble: Trouble,
    ) -> io::Result<()> {
        let is_bad = |(other, bad): &(InodeId, Sector)| {
            *other == id && matches!(bad, Sector::Unreadable(bad) if overlap(bad, range))
        };
        if self.bad.iter().any(is_bad) || draw(&self.rng, trouble.read_fails_one_in) {
            self.read_failures += 1;
            return Err(io::Error::from_raw_os_error(EIO));
        }
        Ok(())
    }

    /// Puts what is read in the place of what was written at `start`. The place in the file of a bit that is read wrong.
    pub(super) fn after_read(
        &mut self,
        id: InodeId,
        bytes: &mut [u8],
        start: usize,
        flips: Option<(u64, &[u8])>,
    ) -> Option<usize> {
        for (other, bad) in &self.bad {
            if let Sector::Anothers(from, anothers) = bad
                && *other == id
            {
                for (at, byte) in (*from..).zip(anothers) {
                    if let Some(read) = at.checked_sub(start).and_then(|at| bytes.get_mut(at)) {
                        *read = *byte;
                    }
                }
            }
        }
        let (one_in, whole) = flips.filter(|_| !bytes.is_empty())?;
        let read = start..start + bytes.len();
        let known = self.misread.len();
        self.misread
            .retain(|(other, at)| *other != id || !read.contains(at));
        if self.misread.len() < known || !draw(&self.rng, one_in) {
            return None;
        }
        let at = usize::try_from(self.rng.below(bytes.len() as u64)).unwrap_or(0);
        let bit = self.rng.below(8);
        // What is under no sum (base offset, leader epoch) is not told from what was written: by nobody, in Kafka either.
        if !is_summed(whole, start + at) {
            return None;
        }
        self.flips += 1;
        bytes[at] ^= 1 << bit;
        self.misread.push((id, start + at));
        Some(start + at)
    }
}

/// The sum of a batch begins here, and here it begins to count.
const SUM_AT: usize = 17;
const LENGTH_AT: usize = 8;

/// The byte at `position` of a log file belongs to what a batch's sum covers, or to the sum.
fn is_summed(whole: &[u8], position: usize) -> bool {
    let mut begin = 0;
    while let Some(length) = whole.get(begin + LENGTH_AT..begin + LENGTH_AT + 4) {
        let length = length.try_into().map_or(0, u32::from_be_bytes);
        let end = begin + LENGTH_AT + 4 + length as usize;
        if position < end {
            return position >= begin + SUM_AT;
        }
        begin = end;
    }
    false
}

fn overlap(one: &Range<usize>, two: &Range<usize>) -> bool {
    one.start < two.end && two.start < one.end
}

fn draw(rng: &Rng, one_in: u64) -> bool {
    one_in != 0 && rng.chance(1, one_in)
}

impl State {
    fn turn_over(&mut self, harm: &Harm) -> Option<InodeId> {
        let id = self.resolve(&harm.path)?;
        let Some(Inode::File(file)) = self.inodes.get_mut(&id) else {
            return None;
        };
        let range = harm.range();
        if range.end > file.durable.len() || range.end > file.live.len() {
            return None;
        }
        file.pristine.get_or_insert_with(|| file.durable.clone());
        for image in [&mut file.durable, &mut file.live] {
            for (byte, mask) in image[range.clone()].iter_mut().zip(&harm.mask) {
                *byte ^= mask;
            }
        }
        Some(id)
    }
}

impl SimDisk {
    /// Lets its troubles draw from `rng`: a stream of their own.
    pub fn draw_troubles_from(&self, rng: Rng) {
        self.0.lock().troubles.rng = rng;
    }

    /// Lets a place go bad, on the device and in what is read. False where nothing is there.
    pub fn harm(&self, harm: &Harm) -> bool {
        let mut state = self.0.lock();
        let Some(id) = state.turn_over(harm) else {
            return false;
        };
        if harm.sector != Sector::Good {
            state.troubles.bad.push((id, harm.sector.clone()));
        }
        true
    }

    /// The kernel writes a file back by itself.
    pub fn write_back(&self, path: &Path) {
        let mut state = self.0.lock();
        let Some(id) = state.resolve(path) else { return };
        if let Some(Inode::File(file)) = state.inodes.get_mut(&id) {
            file.sync();
        }
    }

    /// Makes a bad place good again.
    pub fn undo(&self, harm: &Harm) -> bool {
        let mut state = self.0.lock();
        let Some(id) = state.turn_over(harm) else {
            return false;
        };
        state
            .troubles
            .bad
            .retain(|(other, bad)| *other != id || *bad != harm.sector);
        true
    }

    /// The bytes at a bad place and around it, as a read that succeeds would return them.
    #[must_use]
    pub fn around(&self, harm: &Harm) -> Option<Vec<u8>> {
        let range = harm.position.saturating_sub(AROUND_BYTES)..harm.range().end + AROUND_BYTES;
        self.with_live(&harm.path, |bytes| {
            bytes
                .get(range.start..range.end.min(bytes.len()))
                .map(<[u8]>::to_vec)
        })?
    }

    /// How many writes have failed since the disk was made; those without room are not counted.
    #[must_use]
    pub fn write_failures(&self) -> u64 {
        self.0.lock().troubles.write_failures
    }

    /// How many reads have failed since the disk was made.
    #[must_use]
    pub fn read_failures(&self) -> u64 {
        self.0.lock().troubles.read_failures
    }

    /// How many writes and syncs have failed since it was made: what they were of is not as durable as it looked.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        let state = self.0.lock();
        state.sync_failures + state.troubles.write_failures
    }

    /// How often it has refused something, or lied about it, since it was made: a copy may have been given up for that.
    #[must_use]
    pub fn failures(&self) -> u64 {
        let state = self.0.lock();
        let troubles = &state.troubles;
        state.sync_failures + troubles.write_failures + troubles.read_failures + troubles.flips
    }

    /// It has done so at least once.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failures() > 0
    }

    /// Reads of records return wrong bits now and then.
    #[must_use]
    pub fn misreads(&self) -> bool {
        self.0.lock().config.trouble.read_flips_one_in > 0
    }

    /// How long an operation that would begin at `now` waits behind a device that stands still.
    #[must_use]
    pub fn stalled_for(&self, now: skerry_types::Instant) -> Duration {
        self.0.lock().stalled_until.since(now)
    }

    /// How long somebody waits at `now` for what was written to a device with too little bandwidth.
    #[must_use]
    pub fn catches_up_for(&self, now: skerry_types::Instant) -> Duration {
        self.0.lock().catches_up_until.since(now)
    }
}

/// True for a file of records.
pub(super) fn holds_records(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}
