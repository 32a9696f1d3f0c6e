//! Power loss for RocksDB, in the simulator.
//!
//! RocksDB writes its own files, past the simulated disk. What it has synced is known here, because only the store's
//! one flusher ever pushes bytes from RocksDB's memory to its write-ahead log: between two syncs the log's files do
//! not grow by anything that was promised to somebody.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use parking_lot::Mutex;
use skerry_types::BrokerId;

const EIO: i32 = 5;

/// The lengths of RocksDB's write-ahead log files at the last sync, and what had been written to the store by then. Cheap to clone;
/// clones share it. The simulator keeps it across the restarts of a node.
#[derive(Clone, Debug, Default)]
pub struct WalMark(Arc<Mutex<Marked>>);

#[derive(Debug, Default)]
struct Marked {
    lens: BTreeMap<OsString, u64>,
    durable: Durable,
    /// What the store has been told to write since it was opened, and what it found then.
    written: Durable,
    /// RocksDB's version when the files were last listed.
    listed: Option<u64>,
    syncs_fail: bool,
    writes_fail: bool,
    syncs_lie: bool,
    sync_failures: u64,
    /// The last write that the store has noted as synced.
    noted: u64,
    /// What the next start must find.
    must_find: Option<Durable>,
    /// What starts should have found, and what they found.
    opened: Vec<(Durable, Durable)>,
}

impl Marked {
    fn refuse_if(&mut self, fails: impl FnOnce(&Self) -> bool) -> io::Result<()> {
        if !fails(self) {
            return Ok(());
        }
        self.sync_failures += 1;
        Err(io::Error::from_raw_os_error(EIO))
    }
}

/// What a power cut cannot take from a voter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durable {
    /// The term that it has voted in.
    pub term: u64,
    /// The last entry of its log.
    pub last_index: u64,
    /// Who made that one: the term, and the node that led in it. `None`: there is none.
    pub made_by: Option<(u64, BrokerId)>,
}

impl WalMark {
    /// What a power cut cannot take now.
    #[must_use]
    pub fn durable(&self) -> Durable {
        self.0.lock().durable
    }

    /// The disk is lost: nothing of it is durable.
    pub fn forget(&self) {
        let mut marked = self.0.lock();
        (marked.lens, marked.durable) = (BTreeMap::new(), Durable::default());
        marked.must_find = None;
    }

    /// The last write that the store has noted as synced in its file.
    #[must_use]
    pub fn noted(&self) -> u64 {
        self.0.lock().noted
    }

    /// What starts should have found, and what they found and went on with. Told once.
    #[must_use]
    pub fn opened_with(&self) -> Vec<(Durable, Durable)> {
        std::mem::take(&mut self.0.lock().opened)
    }

    /// The store is opened, and this is in it.
    pub(crate) fn on_opened(&self, found: Durable) {
        let mut marked = self.0.lock();
        (marked.written, marked.listed) = (found, None);
        let promised = marked.must_find.take();
        marked.opened.extend(promised.map(|promised| (promised, found)));
    }

    pub(crate) fn note(&self, number: u64) {
        self.0.lock().noted = number;
    }

    /// The node is down. What was cut off behind the last entry may have been cut off durably: with `is_torn` only the vote
    /// is sure.
    fn on_cut(&self, is_torn: bool) {
        let mut marked = self.0.lock();
        let mut promised = marked.durable;
        if is_torn {
            promised.last_index = 0;
        }
        marked.must_find = (!marked.syncs_lie).then_some(promised);
    }

    /// The store has written something.
    pub(crate) fn wrote(&self, change: impl FnOnce(&mut Durable)) {
        change(&mut self.0.lock().written);
    }

    /// Remembers the lengths as they are now, right after a sync, and what is in the store. As long as RocksDB's `version`
    /// is the same, it writes to the same file: listing them each time took more than the sync.
    pub(crate) fn record(&self, dir: &Path, version: Option<u64>) -> io::Result<()> {
        let mut marked = self.0.lock();
        marked.durable = marked.written;
        if marked.syncs_lie {
            return Ok(());
        }
        if version.is_none() || marked.listed != version {
            marked.lens = wal_files(dir)?;
            marked.listed = version;
            return Ok(());
        }
        let mut gone = Vec::new();
        for (name, len) in &mut marked.lens {
            match len_of(&dir.join(name))? {
                Some(now) => *len = now,
                None => gone.push(name.clone()),
            }
        }
        for name in gone {
            marked.lens.remove(&name);
        }
        Ok(())
    }

    /// Lets every sync of the store fail, as a device does, or lets them succeed again.
    pub fn let_syncs_fail(&self, fail: bool) {
        self.0.lock().syncs_fail = fail;
    }

    /// Lets every write to the store fail, as a device does, or lets them succeed again.
    pub fn let_writes_fail(&self, fail: bool) {
        self.0.lock().writes_fail = fail;
    }

    /// Lets the device say of every sync that it is done, and not do it, or tell the truth again: what was written meanwhile
    /// is gone after the next [`cut_unsynced_wal`], though [`Self::durable`] names it until the store is opened again.
    pub fn let_syncs_lie(&self, lie: bool) {
        self.0.lock().syncs_lie = lie;
    }

    /// How many syncs have failed, and writes.
    #[must_use]
    pub fn sync_failures(&self) -> u64 {
        self.0.lock().sync_failures
    }

    /// The device lies about syncs now.
    pub(crate) fn lies(&self) -> bool {
        self.0.lock().syncs_lie
    }

    /// Refuses a sync where it is to fail.
    pub(crate) fn before_sync(&self) -> io::Result<()> {
        self.0.lock().refuse_if(|marked| marked.syncs_fail)
    }

    /// Refuses a write where it is to fail.
    pub(crate) fn before_write(&self) -> io::Result<()> {
        self.0.lock().refuse_if(|marked| marked.writes_fail)
    }
}

/// Cuts RocksDB's write-ahead log in `dir` (the operating system's path of the quorum's `raft` directory) back to
/// what was durable. For a node that is down: after a power loss, and after kill -9 as well, because closing RocksDB
/// pushes out what only its memory held.
///
/// # Errors
/// The system's.
pub fn cut_unsynced_wal(dir: &Path, mark: &WalMark) -> io::Result<()> {
    mark.on_cut(false);
    change_unsynced(dir, mark, |mut bytes, synced| {
        bytes.truncate(synced);
        bytes
    })
}

/// As [`cut_unsynced_wal`], where the power went while the log was being written: of each file of the log that is longer than
/// what was synced, `tear` makes what the device has, from its bytes and how many of them were synced.
///
/// # Errors
/// The system's.
pub fn tear_unsynced_wal(
    dir: &Path,
    mark: &WalMark,
    tear: impl FnMut(Vec<u8>, usize) -> Vec<u8>,
) -> io::Result<()> {
    mark.on_cut(true);
    change_unsynced(dir, mark, tear)
}

fn change_unsynced(
    dir: &Path,
    mark: &WalMark,
    mut tear: impl FnMut(Vec<u8>, usize) -> Vec<u8>,
) -> io::Result<()> {
    let durable = mark.0.lock().lens.clone();
    for (name, len) in wal_files(dir)? {
        let synced = durable.get(&name).copied().unwrap_or(0);
        if len > synced {
            let path = dir.join(&name);
            let (bytes, synced) = (read(&path)?, usize::try_from(synced).unwrap_or(usize::MAX));
            write(&path, &tear(bytes, synced))?;
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "RocksDB's files are the operating system's"
)]
fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path)
}

#[expect(
    clippy::disallowed_methods,
    reason = "RocksDB's files are the operating system's"
)]
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::write(path, bytes)
}

/// RocksDB's own thread removes a log that a table has made obsolete, at any moment: `None`.
#[expect(
    clippy::disallowed_methods,
    reason = "RocksDB's files are the operating system's"
)]
fn len_of(file: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        metadata => Ok(Some(metadata?.len())),
    }
}

pub(crate) fn wal_files(dir: &Path) -> io::Result<BTreeMap<OsString, u64>> {
    let mut files = BTreeMap::new();
    #[expect(
        clippy::disallowed_methods,
        reason = "RocksDB's files are the operating system's"
    )]
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if Path::new(&name)
            .extension()
            .is_some_and(|extension| extension == "log")
            && let Some(len) = len_of(&entry.path())?
        {
            files.insert(name, len);
        }
    }
    Ok(files)
}
