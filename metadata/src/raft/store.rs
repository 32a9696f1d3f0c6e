//! What the quorum keeps in RocksDB. `FORMAT.md` of this crate lists the keys and values.
//!
//! Writes go to RocksDB's memory and are readable at once; they are durable after the next [`Store::sync`]. RocksDB
//! replays its write-ahead log in order, so whatever was written before a durable thing is durable as well.
//!
//! What was synced and is not there any more is damage, and the store does not open: [`Synced`] tells it from a torn tail.
//! Everything is read once at the start, so that RocksDB compares the sums of all of it: what a later read or a compaction
//! would stumble over is told there.
//!
//! The first write that fails is the last that RocksDB is given: it asserts that nobody writes to a file after that.

use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use rocksdb::properties::CURRENT_SUPER_VERSION_NUMBER;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Direction, IteratorMode, LogLevel,
    Options, WriteBatch,
};
use skerry_proto::quorum as proto;
use skerry_types::{is_planted, reached};

use super::convert::{self, ConvertError};
use super::made_by;
use super::synced::{Synced, UNFINISHED};
use super::types::{Entry, LogId, SnapshotMeta, Vote};
use crate::errors::StartError;
use crate::status::LogEntry;
use crate::wal::{Durable, WalMark};

/// The first byte of every value.
const VALUE_VERSION: u8 = 1;

/// Persisted: a name is never given to another value. All of them sort before [`LOG`].
mod key {
    pub(super) const VOTE: &[u8] = b"vote";
    pub(super) const COMMITTED: &[u8] = b"committed";
    pub(super) const PURGED: &[u8] = b"purged";
    pub(super) const SNAPSHOT: &[u8] = b"snapshot";
}

/// An entry's key is this byte and its index. One column family holds all: a second one costs a start two more files
/// and their syncs, and a second write buffer.
const LOG: u8 = b'~';
/// Sorts after every entry.
const LOG_END: [u8; 1] = [LOG + 1];

/// The key of a piece of a snapshot is this byte, the snapshot's generation and the piece's number.
const PIECE: u8 = b'}';
/// Sorts after every piece.
const PIECE_END: [u8; 1] = [PIECE + 1];

fn piece_key(generation: u64, piece: u32) -> [u8; 13] {
    let mut key = [PIECE; 13];
    key[1..9].copy_from_slice(&generation.to_be_bytes());
    key[9..].copy_from_slice(&piece.to_be_bytes());
    key
}

fn log_key(index: u64) -> [u8; 9] {
    let mut key = [LOG; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The open database.
pub(crate) struct Store {
    db: DB,
    dir: PathBuf,
    synced: Option<Synced>,
    mark: Option<WalMark>,
    /// Names the next snapshot. Above whatever a crash left.
    next_generation: AtomicU64,
    /// Why nothing is written any more.
    failure: OnceLock<String>,
}

/// The pieces of one snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pieces {
    pub(crate) generation: u64,
    pub(crate) count: u32,
    pub(crate) bytes: u64,
}

fn failed(error: rocksdb::Error) -> io::Error {
    let kind = match error.kind() {
        rocksdb::ErrorKind::Corruption => io::ErrorKind::InvalidData,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error.into_string())
}

fn damaged(what: &str, error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{what}: {error}"))
}

fn value(message: &impl prost::Message) -> BytesMut {
    let mut bytes = BytesMut::with_capacity(1 + message.encoded_len());
    bytes.extend_from_slice(&[VALUE_VERSION]);
    message.encode(&mut bytes).expect("a BytesMut grows");
    bytes
}

/// The value behind its version.
fn unversioned(bytes: Bytes) -> io::Result<Bytes> {
    match bytes.first() {
        Some(&VALUE_VERSION) => Ok(bytes.slice(1..)),
        Some(version) => Err(damaged(
            "the metadata store",
            format!("a value of version {version}"),
        )),
        None => Err(damaged("the metadata store", "an empty value")),
    }
}

fn message<M: prost::Message + Default>(bytes: Bytes) -> io::Result<M> {
    M::decode(unversioned(bytes)?).map_err(|error| damaged("the metadata store", error))
}

/// What was written of the log ends with this entry.
fn ends_with(all: &mut Durable, last: Option<LogId>) {
    all.last_index = last.map_or(0, |last| last.index);
    all.made_by = last.as_ref().map(made_by);
}

impl From<ConvertError> for io::Error {
    fn from(error: ConvertError) -> Self {
        damaged("the metadata store", error)
    }
}

impl Store {
    fn of(db: DB, dir: &Path, synced: Option<Synced>, mark: Option<WalMark>) -> Self {
        Self {
            db,
            dir: dir.to_owned(),
            synced,
            mark,
            next_generation: AtomicU64::new(0),
            failure: OnceLock::new(),
        }
    }

    /// Opens what is there for somebody who goes on from whatever can be read. Writes nothing: each write has a number, and
    /// those that are lost would seem to be there.
    pub(crate) fn open_what_is_left(dir: &Path) -> Result<Self, StartError> {
        let store = Self::of(open_database(dir, 0)?, dir, None, None);
        store.read_all().map_err(|error| StartError::Damaged {
            path: dir.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(store)
    }

    /// Opens or creates the database. Blocks for some milliseconds. Without `synced`, rot in the newest writes is taken for a
    /// torn tail.
    pub(crate) fn open(
        dir: &Path,
        synced: Option<Synced>,
        mark: Option<WalMark>,
    ) -> Result<Self, StartError> {
        let known = synced.as_ref().map_or(0, Synced::known);
        let store = Self::of(open_database(dir, known)?, dir, synced, mark);
        let opened = store.read_all().and_then(|()| {
            // RocksDB has written what it found in its log to a table, and synced it.
            store.note_synced(store.last_write());
            store.clear_leftovers()?;
            if let Some(mark) = &store.mark {
                mark.on_opened(store.promised()?);
            }
            store.mark_synced()
        });
        match opened {
            Ok(()) => Ok(store),
            Err(source) if source.kind() == io::ErrorKind::InvalidData => Err(StartError::Damaged {
                path: dir.to_owned(),
                reason: source.to_string(),
            }),
            Err(source) => Err(StartError::Io {
                path: dir.to_owned(),
                source,
            }),
        }
    }

    /// RocksDB compares the sums of what it reads.
    fn read_all(&self) -> io::Result<()> {
        let mut all = self.db.iterator(IteratorMode::Start);
        all.try_for_each(|item| item.map(drop).map_err(failed))
    }

    /// Makes everything written so far durable. A failure is final.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if let Some(Err(error)) = self.mark.as_ref().map(WalMark::before_sync) {
            if is_planted("metadata-sync-failure-ignored") {
                return Ok(());
            }
            return Err(self.fail(&error.to_string()));
        }
        // Whatever others write meanwhile is not sure to be covered.
        let covered = self.last_write();
        self.change(|db| db.flush_wal(true))?;
        self.note_synced(covered);
        self.mark_synced()
    }

    /// The number of the last write. RocksDB counts them, and never backwards.
    pub(crate) fn last_write(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    fn note_synced(&self, number: u64) {
        // A device that lies about syncs keeps nothing else that was written since.
        let lies = self.mark.as_ref().is_some_and(WalMark::lies);
        if let Some(synced) = self.synced.as_ref().filter(|_| !lies) {
            synced.note(number);
            if let Some(mark) = &self.mark {
                mark.note(number);
            }
        }
    }

    /// Lets RocksDB write, unless a write has failed before.
    pub(super) fn change(&self, change: impl FnOnce(&DB) -> Result<(), rocksdb::Error>) -> io::Result<()> {
        if let Some(why) = self.failure() {
            return Err(io::Error::other(why));
        }
        if let Some(Err(error)) = self.mark.as_ref().map(WalMark::before_write) {
            return Err(self.fail(&error.to_string()));
        }
        change(&self.db).map_err(|error| self.fail(&error.into_string()))
    }

    fn fail(&self, why: &str) -> io::Error {
        let why = self
            .failure
            .get_or_init(|| format!("the metadata store takes no more writes: {why}"));
        tracing::error!(dir = %self.dir.display(), why, "a write failed, which is final until the next start");
        io::Error::other(why.clone())
    }

    /// Why the store takes no more writes: an earlier one failed.
    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.get().cloned()
    }

    fn mark_synced(&self) -> io::Result<()> {
        let Some(mark) = &self.mark else { return Ok(()) };
        // It counts when RocksDB begins another table or file.
        let version = self.db.property_int_value(CURRENT_SUPER_VERSION_NUMBER);
        mark.record(&self.dir, version.map_err(failed)?)
    }

    fn wrote(&self, change: impl FnOnce(&mut Durable)) {
        if let Some(mark) = &self.mark {
            mark.wrote(change);
        }
    }

    fn promised(&self) -> io::Result<Durable> {
        let mut all = Durable {
            term: self.vote()?.map_or(0, |vote| vote.leader_id.term),
            ..Durable::default()
        };
        ends_with(&mut all, self.last_entry()?.or(self.purged()?));
        Ok(all)
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.db.get(key).map_err(failed)?.map(Bytes::from))
    }

    pub(crate) fn put_vote(&self, vote: &Vote) -> io::Result<()> {
        self.change(|db| db.put(key::VOTE, value(&convert::vote(vote))))?;
        self.wrote(|all| all.term = vote.leader_id.term);
        Ok(())
    }

    pub(crate) fn vote(&self) -> io::Result<Option<Vote>> {
        let Some(bytes) = self.get(key::VOTE)? else {
            return Ok(None);
        };
        Ok(Some(convert::read_vote(message(bytes)?)?))
    }

    fn put_log_id(&self, key: &[u8], id: &LogId) -> io::Result<()> {
        self.change(|db| db.put(key, value(&convert::log_id(id))))
    }

    fn get_log_id(&self, key: &[u8]) -> io::Result<Option<LogId>> {
        let Some(bytes) = self.get(key)? else {
            return Ok(None);
        };
        Ok(Some(convert::read_log_id(message(bytes)?)?))
    }

    /// The commit point needs no sync of its own: an older one only means that more is applied again.
    pub(crate) fn put_committed(&self, committed: Option<&LogId>) -> io::Result<()> {
        match committed {
            Some(id) => self.put_log_id(key::COMMITTED, id),
            None => self.change(|db| db.delete(key::COMMITTED)),
        }
    }

    pub(crate) fn committed(&self) -> io::Result<Option<LogId>> {
        self.get_log_id(key::COMMITTED)
    }

    pub(crate) fn purged(&self) -> io::Result<Option<LogId>> {
        self.get_log_id(key::PURGED)
    }

    pub(crate) fn append(&self, entries: impl IntoIterator<Item = Entry>) -> io::Result<()> {
        let (mut batch, mut last) = (WriteBatch::default(), None);
        for entry in entries {
            batch.put(log_key(entry.log_id.index), value(&convert::entry(&entry)));
            last = Some(entry.log_id);
        }
        self.change(|db| db.write(batch))?;
        if last.is_some() {
            self.wrote(|all| ends_with(all, last));
        }
        Ok(())
    }

    /// Drops the entries from `first` on. May be lost in a crash together with everything written later.
    pub(crate) fn truncate_from(&self, first: u64) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range(&log_key(first)[..], &LOG_END[..]);
        self.change(|db| db.write(batch))?;
        if self.mark.is_some() {
            let last = self.last_entry()?.or(self.purged()?);
            self.wrote(|all| ends_with(all, last));
        }
        Ok(())
    }

    /// Drops the entries up to `last`, which a snapshot covers.
    pub(crate) fn purge(&self, last: &LogId) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put(key::PURGED, value(&convert::log_id(last)));
        batch.delete_range(log_key(0), log_key(last.index + 1));
        self.change(|db| db.write(batch))?;
        self.wrote(|all| {
            if last.index > all.last_index {
                ends_with(all, Some(*last));
            }
        });
        Ok(())
    }

    /// The entries of `range`, as many as fit into `bytes_max`, one at least.
    pub(crate) fn entries(&self, range: impl RangeBounds<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let first = match range.start_bound() {
            Bound::Included(&first) => first,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let (mut entries, mut total) = (Vec::new(), 0_usize);
        let from = log_key(first);
        for item in self.db.iterator(IteratorMode::From(&from, Direction::Forward)) {
            let (key, bytes) = item.map_err(failed)?;
            let index = log_index(&key)?;
            if !range.contains(&index) {
                break;
            }
            total = total.saturating_add(bytes.len());
            if total > bytes_max && !entries.is_empty() {
                break;
            }
            entries.push(read_entry(index, bytes.into_vec().into())?);
        }
        Ok(entries)
    }

    /// The entries from `first` on, without what is in them.
    pub(crate) fn log_entries(&self, first: u64) -> io::Result<Vec<LogEntry>> {
        let from = log_key(first);
        let items = self.db.iterator(IteratorMode::From(&from, Direction::Forward));
        let entries = items.map(|item| {
            let (key, bytes) = item.map_err(failed)?;
            let index = log_index(&key)?;
            let hash = fnv(&bytes);
            let made_by = made_by(&read_entry(index, bytes.into_vec().into())?.log_id);
            Ok(LogEntry { index, made_by, hash })
        });
        entries.collect()
    }

    /// Something was promised from here: a vote or an entry.
    pub(crate) fn is_used(&self) -> io::Result<bool> {
        Ok(self.vote()?.is_some() || self.last_entry()?.is_some() || self.purged()?.is_some())
    }

    pub(crate) fn last_entry(&self) -> io::Result<Option<LogId>> {
        let newest = IteratorMode::From(&LOG_END, Direction::Reverse);
        let Some(item) = self.db.iterator(newest).next() else {
            return Ok(None);
        };
        let (key, bytes) = item.map_err(failed)?;
        if key.first() != Some(&LOG) {
            return Ok(None);
        }
        Ok(Some(
            read_entry(log_index(&key)?, bytes.into_vec().into())?.log_id,
        ))
    }

    /// A name for a new snapshot's pieces.
    pub(crate) fn new_generation(&self) -> u64 {
        self.next_generation.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn put_piece(&self, generation: u64, piece: u32, data: &[u8]) -> io::Result<()> {
        self.change(|db| db.put(piece_key(generation, piece), data))
    }

    pub(crate) fn piece(&self, generation: u64, piece: u32) -> io::Result<Bytes> {
        self.get(&piece_key(generation, piece))?
            .ok_or_else(|| damaged("the metadata snapshot", format!("piece {piece} is missing")))
    }

    pub(crate) fn delete_pieces(&self, generation: u64) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range(piece_key(generation, 0), piece_key(generation + 1, 0));
        self.change(|db| db.write(batch))
    }

    /// Makes `pieces`, which are all written, the snapshot. Not durable before the next sync.
    pub(crate) fn put_snapshot(&self, meta: &SnapshotMeta, pieces: Pieces) -> io::Result<()> {
        let stored = proto::StoredSnapshot {
            meta: Some(convert::snapshot_meta(meta)),
            generation: pieces.generation,
            pieces: pieces.count,
            data_bytes: pieces.bytes,
        };
        self.change(|db| db.put(key::SNAPSHOT, value(&stored)))
    }

    pub(crate) fn snapshot(&self) -> io::Result<Option<(SnapshotMeta, Pieces)>> {
        let Some(bytes) = self.get(key::SNAPSHOT)? else {
            return Ok(None);
        };
        let stored: proto::StoredSnapshot = message(bytes)?;
        let meta = stored
            .meta
            .ok_or(ConvertError::Missing("a snapshot's description"))?;
        let pieces = Pieces {
            generation: stored.generation,
            count: stored.pieces,
            bytes: stored.data_bytes,
        };
        Ok(Some((convert::read_snapshot_meta(meta)?, pieces)))
    }

    /// Deletes the pieces of snapshots that were never finished, or were replaced right before the end.
    pub(super) fn clear_leftovers(&self) -> io::Result<()> {
        let kept = self.snapshot()?.map(|(_, pieces)| pieces.generation);
        let mut batch = WriteBatch::default();
        let after = match kept {
            Some(generation) => {
                batch.delete_range(piece_key(0, 0), piece_key(generation, 0));
                generation + 1
            }
            None => 0,
        };
        batch.delete_range(&piece_key(after, 0)[..], &PIECE_END[..]);
        self.next_generation.store(after, Ordering::Relaxed);
        self.change(|db| db.write(batch))
    }
}

fn fnv(bytes: &[u8]) -> u64 {
    let mixed = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, mixed)
}

fn log_index(key: &[u8]) -> io::Result<u64> {
    key.strip_prefix(&[LOG])
        .and_then(|index| index.try_into().ok())
        .map(u64::from_be_bytes)
        .ok_or_else(|| damaged("the metadata log", "a key is not an index"))
}

fn read_entry(index: u64, bytes: Bytes) -> io::Result<Entry> {
    let entry = convert::read_entry(message(bytes)?)
        .map_err(|error| damaged(&format!("metadata log entry {index}"), error))?;
    if entry.log_id.index == index {
        Ok(entry)
    } else {
        Err(damaged("the metadata log", format!("entry {index} is another")))
    }
}

/// Metadata is small: so are RocksDB's buffers, threads and files.
fn options(recovery: DBRecoveryMode) -> Result<Options, rocksdb::Error> {
    let mut options = Options::default();
    options.create_if_missing(true);
    // Group commit: writes stay in memory until `sync` writes and syncs them at once.
    options.set_manual_wal_flush(true);
    options.set_write_buffer_size(1 << 20);
    options.set_max_write_buffer_number(2);
    options.set_arena_block_size(16 << 10);
    options.set_max_total_wal_size(8 << 20);
    options.set_max_background_jobs(1);
    options.set_max_file_opening_threads(1);
    // Its own 4 MB would be taken from the disk at every start, for a file of a few hundred bytes.
    options.set_manifest_preallocation_size(64 << 10);
    options.set_skip_stats_update_on_db_open(true);
    options.set_max_open_files(64);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(256 << 10);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_compression_type(DBCompressionType::None);
    options.set_wal_recovery_mode(recovery);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(256 << 10)?);
    options.set_block_based_table_factory(&blocks);
    Ok(options)
}

/// Opens the database, which must have every write up to the number `synced`. One in which a sum fails is not changed before
/// that is known.
fn open_database(dir: &Path, synced: u64) -> Result<DB, StartError> {
    let options = |recovery| options(recovery).map_err(|error| start_error(dir, error));
    // Looked for first: a database that has been opened writes to another file.
    let wal = wal_of(dir);
    let strict = match DB::open(&options(DBRecoveryMode::AbsoluteConsistency)?, dir) {
        Ok(db) => return check_sequence(db, wal, synced, None),
        Err(error) => error,
    };
    let is_planted = is_planted("torn-metadata-refused");
    if strict.kind() != rocksdb::ErrorKind::Corruption || is_planted {
        return Err(start_error(dir, strict));
    }
    // A torn tail was promised to nobody. What is left is looked at before anything is made of it.
    let options = options(DBRecoveryMode::PointInTime)?;
    let look = DB::open_for_read_only(&options, dir, false).map_err(|error| start_error(dir, error))?;
    drop(check_sequence(look, wal, synced, Some(strict.into_string()))?);
    reached("metadata-log-torn");
    DB::open(&options, dir).map_err(|error| start_error(dir, error))
}

fn check_sequence(db: DB, wal: PathBuf, synced: u64, why: Option<String>) -> Result<DB, StartError> {
    let found = db.latest_sequence_number();
    if found >= synced || is_planted("metadata-rot-taken-for-a-tear") {
        return Ok(db);
    }
    if synced == UNFINISHED {
        return Err(StartError::Damaged {
            path: wal,
            reason: "`skerry cluster recover` has begun here and did not end: say it again".to_owned(),
        });
    }
    reached("metadata-log-rotten");
    let why = why.unwrap_or_else(|| "the writes after that are not there".to_owned());
    Err(StartError::Damaged {
        path: wal,
        reason: format!("write {synced} was synced, and only those up to {found} can be read: {why}"),
    })
}

/// The file that RocksDB writes to, or the directory where that cannot be told.
fn wal_of(dir: &Path) -> PathBuf {
    let logs = crate::wal::wal_files(dir).unwrap_or_default();
    let mut written = logs.iter().filter(|(_, len)| **len > 0);
    match (written.next(), written.next()) {
        (Some((name, _)), None) => dir.join(name),
        _ => dir.to_owned(),
    }
}

fn start_error(dir: &Path, error: rocksdb::Error) -> StartError {
    let kind = error.kind();
    let text = error.into_string();
    if kind == rocksdb::ErrorKind::IOError
        && (text.contains("lock hold by") || text.contains("While lock file"))
    {
        return StartError::InUse { dir: dir.to_owned() };
    }
    match kind {
        rocksdb::ErrorKind::Corruption => StartError::Damaged {
            path: dir.to_owned(),
            reason: text,
        },
        _ => StartError::Io {
            path: dir.to_owned(),
            source: io::Error::other(text),
        },
    }
}
