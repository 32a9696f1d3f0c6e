//! How far the store was synced: what tells rot from a torn tail.
//!
//! RocksDB replays its write-ahead log up to the first record whose sum fails. That is right for a tail that was being
//! written when the power went, which nobody was promised; of a bit that turned over in what was synced it would make votes
//! and entries that never were. So the number of the last write that a sync has covered is put into a file beside it, and a
//! store that replays less has lost what this node has promised.
//!
//! The file itself is not synced: that would be a second sync for each promise. The end of a process takes nothing of it, and
//! a power cut leaves an older number, by as much as the kernel had not written back (half a minute as Linux is set): what
//! rots behind that looks like a torn tail, as it does in the partitions' logs behind their recovery points.
//!
//! The number has two places in the file, which are written in turn: a write that fails may leave half of itself, and the
//! number before it must stay known.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use skerry_env::Disk;
use skerry_env::disk::{File, OpenMode, read_file};

const FILE: &str = "synced";
const VERSION: u8 = 1;
/// The version, the number, and its complement: a torn or rotten number is none.
const BYTES: usize = 17;
/// Where the two places begin: in sectors of their own.
const PLACES: [u64; 2] = [0, 512];

/// In the place of the number while a person's recovery writes: whoever finds less than everything, and starts all the same, might
/// have half of it.
pub(crate) const UNFINISHED: u64 = u64::MAX;

/// The file.
pub(crate) struct Synced {
    file: Arc<dyn File>,
    /// The number of the last write of RocksDB that is known to have been synced; 0: none is.
    known: u64,
    /// Which of [`PLACES`] is written next: the other one holds the newest number.
    next: AtomicUsize,
}

impl Synced {
    /// Opens or creates the file in `dir`; its name is durable on return.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> io::Result<Self> {
        let numbers = numbers(disk, dir)?;
        let is_new = disk.stat(&dir.join(FILE))?.is_none();
        let file = disk.open(&dir.join(FILE), OpenMode::Create)?;
        if is_new {
            disk.sync_dir(dir)?;
        }
        Ok(Self {
            file,
            known: newest(numbers),
            next: AtomicUsize::new(usize::from(numbers[0] >= numbers[1])),
        })
    }

    /// What was synced when the file was opened.
    pub(crate) fn known(&self) -> u64 {
        self.known
    }

    /// Everything up to `number` is synced. Where the disk does not take that, an older number stays: less is known, and
    /// nothing wrong.
    pub(crate) fn note(&self, number: u64) {
        let place = self.next.load(Ordering::Relaxed);
        match self.write(place, number) {
            Ok(()) => self.next.store(1 - place, Ordering::Relaxed),
            Err(error) => tracing::debug!(%error, "how far the metadata store is synced cannot be noted"),
        }
    }

    /// A person goes on from what there is, everything up to `number`. Durable on return.
    pub(crate) fn reset(&self, number: u64) -> io::Result<()> {
        for place in 0..PLACES.len() {
            self.write(place, number)?;
        }
        self.file.sync()
    }

    fn write(&self, place: usize, number: u64) -> io::Result<()> {
        let mut bytes = [VERSION; BYTES];
        bytes[1..9].copy_from_slice(&number.to_be_bytes());
        bytes[9..].copy_from_slice(&(!number).to_be_bytes());
        self.file.write_at(&[IoSlice::new(&bytes)], PLACES[place])
    }
}

/// 0 where there is none that can be believed.
fn newest(numbers: [u64; 2]) -> u64 {
    numbers[0].max(numbers[1])
}

/// The number in each place.
fn numbers(disk: &dyn Disk, dir: &Path) -> io::Result<[u64; 2]> {
    let most = PLACES[1] + BYTES as u64;
    let bytes = read_file(disk, &dir.join(FILE), most).or_else(|error| match error.kind() {
        io::ErrorKind::InvalidData => Ok(None),
        _ => Err(error),
    })?;
    let bytes = bytes.unwrap_or_default();
    Ok(PLACES.map(|place| {
        let from = usize::try_from(place).unwrap_or(usize::MAX);
        let place = bytes.get(from..from + BYTES);
        place.and_then(parse).unwrap_or(0)
    }))
}

fn parse(bytes: &[u8]) -> Option<u64> {
    let (version, rest) = bytes.split_first()?;
    let (number, complement) = rest.split_first_chunk::<8>()?;
    let number = u64::from_be_bytes(*number);
    let is_whole = *version == VERSION && *complement == (!number).to_be_bytes();
    is_whole.then_some(number)
}

#[cfg(test)]
mod tests {
    use skerry_env::Env;

    use super::*;

    fn known(dir: &Path) -> u64 {
        newest(numbers(&*Env::os().disk, dir).expect("read"))
    }

    fn turn_over(file: &Arc<dyn File>, position: u64) {
        let mut byte = [0];
        file.read_at(&mut byte, position).expect("read");
        file.write_at(&[IoSlice::new(&[byte[0] ^ 0x10])], position)
            .expect("written");
    }

    #[test]
    fn a_number_is_kept_and_a_damaged_one_is_none() {
        let disk = Env::os().disk;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let dir = dir.path();
        assert_eq!(known(dir), 0);
        let synced = Synced::open(&*disk, dir).expect("made");
        for number in [0, 5, 6, 7] {
            synced.note(number);
            assert_eq!(known(dir), number);
        }
        drop(synced);
        assert_eq!(Synced::open(&*disk, dir).expect("opened").known(), 7);

        // Whatever is left of one place, the other one holds the number before.
        let file = disk.open(&dir.join(FILE), OpenMode::ReadWrite).expect("opened");
        let damaged = |position| {
            turn_over(&file, position);
            let left = known(dir);
            turn_over(&file, position);
            left
        };
        let newest = if known_in(dir, 0) == 7 { 0 } else { 1 };
        for position in 0..BYTES as u64 {
            assert_eq!(damaged(PLACES[newest] + position), 6, "byte {position}");
            assert_eq!(damaged(PLACES[1 - newest] + position), 7, "byte {position}");
        }
        // What is opened goes on with the place that holds less.
        turn_over(&file, PLACES[newest]);
        let synced = Synced::open(&*disk, dir).expect("opened");
        synced.note(8);
        assert_eq!([known_in(dir, newest), known_in(dir, 1 - newest)], [8, 6]);
        synced.reset(3).expect("synced");
        assert_eq!([known_in(dir, 0), known_in(dir, 1)], [3, 3]);
    }

    fn known_in(dir: &Path, place: usize) -> u64 {
        numbers(&*Env::os().disk, dir).expect("read")[place]
    }

    #[test]
    fn a_file_of_one_place_is_read() {
        let disk = Env::os().disk;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let synced = Synced::open(&*disk, dir.path()).expect("made");
        synced.write(0, 9).expect("written");
        assert_eq!(known(dir.path()), 9);
        let synced = Synced::open(&*disk, dir.path()).expect("opened");
        synced.note(10);
        assert_eq!([known_in(dir.path(), 0), known_in(dir.path(), 1)], [9, 10]);
        synced.file.set_len(BYTES as u64 - 1).expect("cut");
        assert_eq!(known(dir.path()), 0);
    }
}
