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

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

use skerry_env::Disk;
use skerry_env::disk::{File, OpenMode, read_file};

const FILE: &str = "synced";
const VERSION: u8 = 1;
/// The version, the number, and its complement: a torn or rotten number is none.
const BYTES: usize = 17;

/// The file.
pub(crate) struct Synced {
    file: Arc<dyn File>,
    /// The number of the last write of RocksDB that is known to have been synced; 0: none is.
    known: u64,
}

impl Synced {
    /// Opens or creates the file in `dir`; its name is durable on return.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path) -> io::Result<Self> {
        let known = read(disk, dir)?;
        let is_new = disk.stat(&dir.join(FILE))?.is_none();
        let file = disk.open(&dir.join(FILE), OpenMode::Create)?;
        if is_new {
            disk.sync_dir(dir)?;
        }
        Ok(Self { file, known })
    }

    /// What was synced when the file was opened.
    pub(crate) fn known(&self) -> u64 {
        self.known
    }

    /// Everything up to `number` is synced. Where the disk does not take that, an older number stays: less is known, and
    /// nothing wrong.
    pub(crate) fn note(&self, number: u64) {
        if let Err(error) = self.write(number) {
            tracing::debug!(%error, "how far the metadata store is synced cannot be noted");
        }
    }

    /// A person goes on from what there is, everything up to `number`. Durable on return.
    pub(crate) fn reset(&self, number: u64) -> io::Result<()> {
        self.write(number)?;
        self.file.sync()
    }

    fn write(&self, number: u64) -> io::Result<()> {
        let mut bytes = [VERSION; BYTES];
        bytes[1..9].copy_from_slice(&number.to_be_bytes());
        bytes[9..].copy_from_slice(&(!number).to_be_bytes());
        self.file.write_at(&[IoSlice::new(&bytes)], 0)
    }
}

/// The number in the file of `dir`; 0 where there is none that can be believed.
pub(crate) fn read(disk: &dyn Disk, dir: &Path) -> io::Result<u64> {
    let bytes = read_file(disk, &dir.join(FILE), BYTES as u64).or_else(|error| match error.kind() {
        io::ErrorKind::InvalidData => Ok(None),
        _ => Err(error),
    })?;
    Ok(bytes.as_deref().and_then(parse).unwrap_or(0))
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

    #[test]
    fn a_number_is_kept_and_a_damaged_one_is_none() {
        let disk = Env::os().disk;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let known = || read(&*disk, dir.path()).expect("read");
        assert_eq!(known(), 0);
        let synced = Synced::open(&*disk, dir.path()).expect("made");
        for number in [0, 7, u64::MAX] {
            synced.note(number);
            assert_eq!(known(), number);
        }
        synced.note(7);
        drop(synced);
        assert_eq!(Synced::open(&*disk, dir.path()).expect("opened").known(), 7);

        let file = disk
            .open(&dir.path().join(FILE), OpenMode::ReadWrite)
            .expect("opened");
        for position in 0..BYTES as u64 {
            let mut byte = [0];
            file.read_at(&mut byte, position).expect("read");
            file.write_at(&[IoSlice::new(&[byte[0] ^ 0x10])], position)
                .expect("written");
            assert_eq!(known(), 0, "byte {position}");
            file.write_at(&[IoSlice::new(&byte)], position).expect("written");
        }
        assert_eq!(known(), 7);
        let synced = Synced::open(&*disk, dir.path()).expect("opened");
        synced.reset(3).expect("synced");
        assert_eq!(known(), 3);
    }
}
