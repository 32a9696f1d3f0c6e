//! What the quorum keeps in RocksDB. `FORMAT.md` of this crate lists the keys and values.
//!
//! Writes go to RocksDB's memory and are readable at once; they are durable after the next [`Store::sync`]. RocksDB
//! replays its write-ahead log in order, so whatever was written before a durable thing is durable as well.

use std::io;
use std::ops::{Bound, RangeBounds};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Direction, IteratorMode, LogLevel,
    Options, WriteBatch,
};
use skerry_proto::quorum as proto;

use super::convert::{self, ConvertError};
use super::types::{Entry, LogId, SnapshotMeta, Vote};
use crate::errors::StartError;
use crate::wal::WalMark;

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

fn log_key(index: u64) -> [u8; 9] {
    let mut key = [LOG; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

/// The open database.
pub(crate) struct Store {
    db: DB,
    dir: PathBuf,
    mark: Option<WalMark>,
}

fn failed(error: rocksdb::Error) -> io::Error {
    io::Error::other(error.into_string())
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

impl From<ConvertError> for io::Error {
    fn from(error: ConvertError) -> Self {
        damaged("the metadata store", error)
    }
}

impl Store {
    /// Opens or creates the database. Blocks for some milliseconds.
    pub(crate) fn open(dir: &Path, mark: Option<WalMark>) -> Result<Self, StartError> {
        let options = options().map_err(|error| start_error(dir, error))?;
        let db = DB::open(&options, dir).map_err(|error| start_error(dir, error))?;
        let store = Self {
            db,
            dir: dir.to_owned(),
            mark,
        };
        // RocksDB has written what it found in its log to a table, and synced it.
        store.mark_synced().map_err(|source| StartError::Io {
            path: dir.to_owned(),
            source,
        })?;
        Ok(store)
    }

    /// Makes everything written so far durable. A failure is final: RocksDB refuses every later write.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.db.flush_wal(true).map_err(failed)?;
        self.mark_synced()
    }

    fn mark_synced(&self) -> io::Result<()> {
        self.mark.as_ref().map_or(Ok(()), |mark| mark.record(&self.dir))
    }

    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.db.get(key).map_err(failed)?.map(Bytes::from))
    }

    pub(crate) fn put_vote(&self, vote: &Vote) -> io::Result<()> {
        self.db
            .put(key::VOTE, value(&convert::vote(vote)))
            .map_err(failed)
    }

    pub(crate) fn vote(&self) -> io::Result<Option<Vote>> {
        let Some(bytes) = self.get(key::VOTE)? else {
            return Ok(None);
        };
        Ok(Some(convert::read_vote(message(bytes)?)?))
    }

    fn put_log_id(&self, key: &[u8], id: &LogId) -> io::Result<()> {
        self.db.put(key, value(&convert::log_id(id))).map_err(failed)
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
            None => self.db.delete(key::COMMITTED).map_err(failed),
        }
    }

    pub(crate) fn committed(&self) -> io::Result<Option<LogId>> {
        self.get_log_id(key::COMMITTED)
    }

    pub(crate) fn purged(&self) -> io::Result<Option<LogId>> {
        self.get_log_id(key::PURGED)
    }

    pub(crate) fn append(&self, entries: impl IntoIterator<Item = Entry>) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        for entry in entries {
            batch.put(log_key(entry.log_id.index), value(&convert::entry(&entry)));
        }
        self.db.write(batch).map_err(failed)
    }

    /// Drops the entries from `first` on. May be lost in a crash together with everything written later.
    pub(crate) fn truncate_from(&self, first: u64) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range(&log_key(first)[..], &LOG_END[..]);
        self.db.write(batch).map_err(failed)
    }

    /// Drops the entries up to `last`, which a snapshot covers.
    pub(crate) fn purge(&self, last: &LogId) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put(key::PURGED, value(&convert::log_id(last)));
        batch.delete_range(log_key(0), log_key(last.index + 1));
        self.db.write(batch).map_err(failed)
    }

    pub(crate) fn entries(&self, range: impl RangeBounds<u64>) -> io::Result<Vec<Entry>> {
        let first = match range.start_bound() {
            Bound::Included(&first) => first,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let mut entries = Vec::new();
        let from = log_key(first);
        for item in self.db.iterator(IteratorMode::From(&from, Direction::Forward)) {
            let (key, bytes) = item.map_err(failed)?;
            let index = log_index(&key)?;
            if !range.contains(&index) {
                break;
            }
            entries.push(read_entry(index, bytes.into_vec().into())?);
        }
        Ok(entries)
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

    pub(crate) fn put_snapshot(&self, meta: &SnapshotMeta, data: &[u8]) -> io::Result<()> {
        let meta = convert::snapshot_meta(meta);
        let mut bytes = Vec::with_capacity(1 + 10 + meta.encoded_len() + data.len());
        bytes.push(VALUE_VERSION);
        meta.encode_length_delimited(&mut bytes).expect("a Vec grows");
        bytes.extend_from_slice(data);
        self.db.put(key::SNAPSHOT, bytes).map_err(failed)
    }

    pub(crate) fn snapshot(&self) -> io::Result<Option<(SnapshotMeta, Bytes)>> {
        let Some(bytes) = self.get(key::SNAPSHOT)? else {
            return Ok(None);
        };
        let mut rest = unversioned(bytes)?;
        let meta = proto::SnapshotMeta::decode_length_delimited(&mut rest)
            .map_err(|error| damaged("the metadata snapshot", error))?;
        Ok(Some((convert::read_snapshot_meta(meta)?, rest)))
    }
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
fn options() -> Result<Options, rocksdb::Error> {
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
    options.set_skip_stats_update_on_db_open(true);
    options.set_max_open_files(64);
    options.set_log_level(LogLevel::Warn);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(256 << 10);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_compression_type(DBCompressionType::None);
    // A torn tail was promised to nobody.
    options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(&Cache::new_lru_cache(256 << 10)?);
    options.set_block_based_table_factory(&blocks);
    Ok(options)
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
