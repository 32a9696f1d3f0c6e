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
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, DB, DBCompressionType, DBRecoveryMode,
    IteratorMode, Options, WriteBatch,
};
use skerry_proto::quorum as proto;

use super::convert::{self, ConvertError};
use super::types::{Entry, LogId, SnapshotMeta, Vote};
use crate::errors::StartError;
use crate::wal::WalMark;

/// The first byte of every value.
const VALUE_VERSION: u8 = 1;

/// The column family of the raft log; everything else is in the default one.
const LOG: &str = "log";

/// Persisted: a name is never given to another value.
mod key {
    pub(super) const VOTE: &[u8] = b"vote";
    pub(super) const COMMITTED: &[u8] = b"committed";
    pub(super) const PURGED: &[u8] = b"purged";
    pub(super) const SNAPSHOT: &[u8] = b"snapshot";
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
        let cache = Cache::new_lru_cache(256 << 10).map_err(|error| start_error(dir, error))?;
        let mut options = family_options(&cache);
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        // Group commit: writes stay in memory until `sync` writes and syncs them at once.
        options.set_manual_wal_flush(true);
        options.set_max_background_jobs(1);
        options.set_max_total_wal_size(8 << 20);
        options.set_max_open_files(64);
        options.set_keep_log_file_num(2);
        options.set_max_log_file_size(256 << 10);
        options.set_stats_dump_period_sec(0);
        options.set_stats_persist_period_sec(0);
        // A torn tail was never promised; damage before it stops the replay there and then the log has a gap, which
        // raft's own log ids show.
        options.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
        let families = ["default", LOG].map(|name| ColumnFamilyDescriptor::new(name, family_options(&cache)));
        let db = DB::open_cf_descriptors(&options, dir, families).map_err(|error| start_error(dir, error))?;
        let store = Self {
            db,
            dir: dir.to_owned(),
            mark,
        };
        // What the replay found is durable, and what opening wrote is synced by RocksDB itself.
        store.sync().map_err(|source| StartError::Io {
            path: dir.to_owned(),
            source,
        })?;
        Ok(store)
    }

    fn log(&self) -> &ColumnFamily {
        self.db.cf_handle(LOG).expect("opened with it")
    }

    /// Makes everything written so far durable. A failure is final: RocksDB refuses every later write.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.db.flush_wal(true).map_err(failed)?;
        match &self.mark {
            Some(mark) => mark.record(&self.dir),
            None => Ok(()),
        }
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
            batch.put_cf(
                self.log(),
                entry.log_id.index.to_be_bytes(),
                value(&convert::entry(&entry)),
            );
        }
        self.db.write(batch).map_err(failed)
    }

    /// Drops the entries from `first` on. May be lost in a crash together with everything written later.
    pub(crate) fn truncate_from(&self, first: u64) -> io::Result<()> {
        self.db
            .delete_range_cf(self.log(), first.to_be_bytes(), u64::MAX.to_be_bytes())
            .map_err(failed)
    }

    /// Drops the entries up to `last`, which a snapshot covers.
    pub(crate) fn purge(&self, last: &LogId) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put(key::PURGED, value(&convert::log_id(last)));
        batch.delete_range_cf(self.log(), 0_u64.to_be_bytes(), (last.index + 1).to_be_bytes());
        self.db.write(batch).map_err(failed)
    }

    pub(crate) fn entries(&self, range: impl RangeBounds<u64>) -> io::Result<Vec<Entry>> {
        let first = match range.start_bound() {
            Bound::Included(&first) => first,
            Bound::Excluded(&before) => before + 1,
            Bound::Unbounded => 0,
        };
        let mut entries = Vec::new();
        let from = first.to_be_bytes();
        for item in self
            .db
            .iterator_cf(self.log(), IteratorMode::From(&from, rocksdb::Direction::Forward))
        {
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
        let Some(item) = self.db.iterator_cf(self.log(), IteratorMode::End).next() else {
            return Ok(None);
        };
        let (key, bytes) = item.map_err(failed)?;
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
    key.try_into()
        .map(u64::from_be_bytes)
        .map_err(|_| damaged("the metadata log", "a key is not an index"))
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

/// Metadata is small: so are RocksDB's buffers.
fn family_options(cache: &Cache) -> Options {
    let mut options = Options::default();
    options.set_write_buffer_size(1 << 20);
    options.set_max_write_buffer_number(2);
    options.set_arena_block_size(16 << 10);
    options.set_compression_type(DBCompressionType::None);
    let mut blocks = BlockBasedOptions::default();
    blocks.set_block_cache(cache);
    options.set_block_based_table_factory(&blocks);
    options
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
