//! `skerry log dump FILE`: what a file of a log holds, in the words of Kafka's `DumpLogSegments`, or as JSON lines.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use bytes::Bytes;
use skerry_env::disk::{Disk, File, OpenMode, read_file};
use skerry_types::{Offset, WallMs};

use crate::batch::{Batch, BatchHeader, MarkerType, Record, Records, control_marker};
use crate::epochs::{self, Epochs};
use crate::identity;
use crate::index::{AbortedTxn, IndexEntry, OffsetEntry, TimeEntry};
use crate::producers::Producers;
use crate::segment::{FileKind, header_at};
use crate::walk::read_up_to;

/// Everything but a `.log` is read as a whole.
const SMALL_FILE_BYTES_MAX: u64 = 1 << 30;

/// How much is shown, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DumpOptions {
    /// Records too, not only batches.
    pub records: bool,
    /// Keys and values of records too.
    pub payloads: bool,
    /// A JSON object for each line.
    pub json: bool,
}

/// Writes what the file at `path` holds. What cannot be read is said in the output; an index is compared with the log
/// beside it.
///
/// # Errors
/// The disk's, and `out`'s; `InvalidInput` for a file that is none of a log's.
pub fn dump(disk: &dyn Disk, path: &Path, out: &mut dyn Write, options: DumpOptions) -> io::Result<()> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let mut dump = Dump {
        disk,
        path,
        out,
        options,
    };
    let kind = FileKind::ALL.into_iter().find(|kind| {
        // `.log.cut-…`, `.log.deleted` and the like are files of a log as well.
        name.split_once(kind.suffix())
            .is_some_and(|(digits, rest)| digits.len() == 20 && (rest.is_empty() || rest.starts_with('.')))
    });
    dump.heading(path)?;
    match kind {
        Some(FileKind::Log) => dump.log(),
        Some(FileKind::OffsetIndex) => dump.offset_index(),
        Some(FileKind::TimeIndex) => dump.time_index(),
        Some(FileKind::TxnIndex) => dump.txn_index(),
        Some(FileKind::Snapshot) => dump.snapshot(),
        None if name == epochs::FILE_NAME => dump.epochs(),
        None if name == identity::FILE_NAME => dump.identity(),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "{name} is no file of a log: a .log, .index, .timeindex, .txnindex, .snapshot or leader-epoch-checkpoint"
            ),
        )),
    }
}

enum Value<'a> {
    Number(i64),
    Flag(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    Words(Vec<String>),
    Null,
}

struct Dump<'a> {
    disk: &'a dyn Disk,
    path: &'a Path,
    out: &'a mut dyn Write,
    options: DumpOptions,
}

impl Dump<'_> {
    fn heading(&mut self, path: &Path) -> io::Result<()> {
        if self.options.json {
            Ok(())
        } else {
            writeln!(self.out, "Dumping {}", path.display())
        }
    }

    fn line(&mut self, prefix: &str, fields: &[(&str, Value<'_>)]) -> io::Result<()> {
        let mut line = String::new();
        if self.options.json {
            line.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                let comma = if at > 0 { "," } else { "" };
                let _ = write!(line, "{comma}\"{name}\":");
                json(&mut line, value);
            }
            line.push('}');
        } else {
            line.push_str(prefix);
            for (at, (name, value)) in fields.iter().enumerate() {
                let _ = write!(line, "{}{name}: ", if at > 0 { " " } else { "" });
                plain(&mut line, value);
            }
        }
        writeln!(self.out, "{line}")
    }

    fn problem(&mut self, text: &str) -> io::Result<()> {
        if self.options.json {
            self.line("", &[("problem", Value::Text(text))])
        } else {
            writeln!(self.out, "{text}")
        }
    }

    fn whole(&self) -> io::Result<Vec<u8>> {
        read_file(self.disk, self.path, SMALL_FILE_BYTES_MAX)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn log(&mut self) -> io::Result<()> {
        let file = self.disk.open(self.path, OpenMode::Read)?;
        let len = file.len()?;
        if !self.options.json {
            writeln!(self.out, "Log starting offset: {}", self.base().get())?;
        }
        let mut position = 0;
        while let Some(header) = header_at(&*file, position, len)? {
            let size = header
                .size_bytes()
                .filter(|size| position + *size as u64 <= len && header.magic() == 2);
            let Some(size) = size else { break };
            let mut bytes = vec![0; size];
            read_up_to(&*file, &mut bytes, position)?;
            let batch = Batch {
                header,
                bytes: bytes.into(),
            };
            self.batch(&batch, position)?;
            position += size as u64;
        }
        if position < len {
            self.problem(&format!(
                "Found {} invalid bytes at the end of {}",
                len - position,
                self.path.file_name().unwrap_or_default().to_string_lossy()
            ))?;
        }
        Ok(())
    }

    fn batch(&mut self, batch: &Batch, position: u64) -> io::Result<()> {
        let header = &batch.header;
        let horizon = header.delete_horizon().map(|at| format!("OptionalLong[{at}]"));
        let (time_name, time) = timestamp(header, header.max_timestamp());
        self.line(
            "",
            &[
                ("baseOffset", Value::Number(header.base_offset().get())),
                ("lastOffset", Value::Number(header.last_offset().get())),
                ("count", Value::Number(header.record_count().into())),
                ("baseSequence", Value::Number(header.base_sequence().get().into())),
                ("lastSequence", Value::Number(header.last_sequence().get().into())),
                ("producerId", Value::Number(header.producer_id().get())),
                (
                    "producerEpoch",
                    Value::Number(header.producer_epoch().get().into()),
                ),
                (
                    "partitionLeaderEpoch",
                    Value::Number(header.leader_epoch().get().into()),
                ),
                ("isTransactional", Value::Flag(header.is_transactional())),
                ("isControl", Value::Flag(header.is_control())),
                (
                    "deleteHorizonMs",
                    Value::Text(horizon.as_deref().unwrap_or("OptionalLong.empty")),
                ),
                ("position", Value::Number(position as i64)),
                (time_name, time),
                ("size", Value::Number(batch.bytes.len() as i64)),
                ("magic", Value::Number(header.magic().into())),
                (
                    "compresscodec",
                    Value::Text(header.codec().map_or("unknown", |codec| codec.name())),
                ),
                ("crc", Value::Number(header.crc().into())),
                ("isvalid", Value::Flag(batch.crc_is_good())),
            ],
        )?;
        if !self.options.records || header.record_count() == 0 {
            return Ok(());
        }
        let records = match Records::all(batch) {
            Ok(records) => records,
            Err(error) => return self.problem(&format!("the records cannot be read: {error}")),
        };
        records.iter().try_for_each(|record| self.record(batch, record))
    }

    fn record(&mut self, batch: &Batch, record: &Record) -> io::Result<()> {
        let header = &batch.header;
        let len =
            |bytes: &Option<Bytes>| Value::Number(bytes.as_ref().map_or(-1, |bytes| bytes.len() as i64));
        let sequence = match header.base_sequence().get() {
            -1 => -1,
            // As `Sequence::plus` wraps it; in a damaged header it may be anything.
            base => {
                let delta = record.offset.get().wrapping_sub(header.base_offset().get());
                (i64::from(base).wrapping_add(delta) & i64::from(i32::MAX)) as i32
            }
        };
        let names = record
            .headers
            .iter()
            .map(|h| String::from_utf8_lossy(&h.key).into_owned())
            .collect();
        let (time_name, time) = timestamp(header, record.timestamp);
        let mut fields = vec![
            ("offset", Value::Number(record.offset.get())),
            (time_name, time),
            ("keySize", len(&record.key)),
            ("valueSize", len(&record.value)),
            ("sequence", Value::Number(sequence.into())),
            ("headerKeys", Value::Words(names)),
        ];
        let marker = control_marker(batch);
        if let Some((kind, coordinator)) = marker {
            let kind = if kind == MarkerType::Commit {
                "COMMIT"
            } else {
                "ABORT"
            };
            fields.push(("endTxnMarker", Value::Text(kind)));
            fields.push(("coordinatorEpoch", Value::Number(coordinator.into())));
        } else if self.options.payloads {
            if let Some(key) = &record.key {
                fields.push(("key", Value::Bytes(key)));
            }
            fields.push((
                "payload",
                record
                    .value
                    .as_ref()
                    .map_or(Value::Null, |value| Value::Bytes(value)),
            ));
        }
        self.line("| ", &fields)
    }

    /// The log beside an index.
    fn beside(&self) -> io::Result<Option<(std::sync::Arc<dyn File>, u64)>> {
        match self.disk.open(&self.path.with_extension("log"), OpenMode::Read) {
            Ok(file) => {
                let len = file.len()?;
                Ok(Some((file, len)))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn base(&self) -> Offset {
        let name = self
            .path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        Offset(name.get(..20).and_then(|digits| digits.parse().ok()).unwrap_or(0))
    }

    fn offset_index(&mut self) -> io::Result<()> {
        let (bytes, base, log) = (self.whole()?, self.base(), self.beside()?);
        self.check_length(bytes.len(), OffsetEntry::BYTES)?;
        for entry in bytes.chunks_exact(OffsetEntry::BYTES).map(OffsetEntry::get) {
            let offset = base.plus(i64::from(entry.relative));
            self.line(
                "",
                &[
                    ("offset", Value::Number(offset.get())),
                    ("position", Value::Number(entry.position.into())),
                ],
            )?;
            let Some((file, len)) = &log else { continue };
            let found = header_at(&**file, entry.position.into(), *len)?.map(|header| header.last_offset());
            if found != Some(offset) {
                let found = found.map_or("nothing".to_owned(), |found| found.to_string());
                self.problem(&format!("  Index offset: {offset}, log offset: {found}"))?;
            }
        }
        Ok(())
    }

    fn time_index(&mut self) -> io::Result<()> {
        let (bytes, base) = (self.whole()?, self.base());
        self.check_length(bytes.len(), TimeEntry::BYTES)?;
        let mut last = WallMs(i64::MIN);
        for entry in bytes.chunks_exact(TimeEntry::BYTES).map(TimeEntry::get) {
            let offset = base.plus(i64::from(entry.relative));
            self.line(
                "",
                &[
                    ("timestamp", Value::Number(entry.timestamp.get())),
                    ("offset", Value::Number(offset.get())),
                ],
            )?;
            if entry.timestamp <= last {
                self.problem(&format!("  Timestamp {} follows {last}", entry.timestamp))?;
            }
            last = entry.timestamp;
        }
        Ok(())
    }

    fn txn_index(&mut self) -> io::Result<()> {
        let bytes = self.whole()?;
        self.check_length(bytes.len(), AbortedTxn::BYTES)?;
        for raw in bytes.chunks_exact(AbortedTxn::BYTES) {
            let Some(txn) = AbortedTxn::get(raw) else {
                self.problem("an entry of an unknown version")?;
                continue;
            };
            self.line(
                "",
                &[
                    ("version", Value::Number(0)),
                    ("producerId", Value::Number(txn.producer_id.get())),
                    ("firstOffset", Value::Number(txn.first_offset.get())),
                    ("lastOffset", Value::Number(txn.last_offset.get())),
                    ("lastStableOffset", Value::Number(txn.last_stable_offset.get())),
                ],
            )?;
        }
        Ok(())
    }

    fn check_length(&mut self, len: usize, entry: usize) -> io::Result<()> {
        if len.is_multiple_of(entry) {
            return Ok(());
        }
        self.problem(&format!(
            "{len} bytes are no whole number of entries of {entry} bytes"
        ))
    }

    fn snapshot(&mut self) -> io::Result<()> {
        let bytes = self.whole()?;
        let Some(producers) = Producers::parse(&bytes) else {
            return self.problem("Snapshot is corrupt (CRC is no longer valid)");
        };
        for (producer, batches) in producers.dump() {
            let first = producer
                .current_txn_first_offset
                .map(|first| format!("OptionalLong[{first}]"));
            let mut fields = vec![
                ("producerId", Value::Number(producer.producer.id.get())),
                (
                    "producerEpoch",
                    Value::Number(producer.producer.epoch.get().into()),
                ),
                (
                    "coordinatorEpoch",
                    Value::Number(producer.coordinator_epoch.into()),
                ),
                (
                    "currentTxnFirstOffset",
                    Value::Text(first.as_deref().unwrap_or("OptionalLong.empty")),
                ),
                ("lastTimestamp", Value::Number(producer.last_timestamp.get())),
            ];
            if let Some(last) = batches.last() {
                fields.extend([
                    ("firstSequence", Value::Number(last.first_sequence().get().into())),
                    ("lastSequence", Value::Number(last.last_sequence.get().into())),
                    ("lastOffset", Value::Number(last.last_offset.get())),
                    ("offsetDelta", Value::Number(last.offset_delta.into())),
                    ("timestamp", Value::Number(last.timestamp.get())),
                ]);
            }
            self.line("", &fields)?;
        }
        Ok(())
    }

    fn epochs(&mut self) -> io::Result<()> {
        let Some(epochs) = Epochs::parse(&self.whole()?) else {
            return self.problem("no leader epoch checkpoint: the text or the order is broken");
        };
        epochs.starts().iter().try_for_each(|entry| {
            self.line(
                "",
                &[
                    ("epoch", Value::Number(entry.epoch.get().into())),
                    ("startOffset", Value::Number(entry.start.get())),
                ],
            )
        })
    }

    fn identity(&mut self) -> io::Result<()> {
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        let id = identity::read_topic_id(self.disk, dir)?
            .map(|id| id.to_string())
            .unwrap_or_default();
        self.line("", &[("topicId", Value::Text(&id))])
    }
}

fn timestamp(header: &BatchHeader, at: WallMs) -> (&'static str, Value<'static>) {
    let name = if header.is_log_append_time() {
        "LogAppendTime"
    } else {
        "CreateTime"
    };
    (name, Value::Number(at.get()))
}

fn plain(line: &mut String, value: &Value<'_>) {
    let _ = match value {
        Value::Number(number) => write!(line, "{number}"),
        Value::Flag(flag) => write!(line, "{flag}"),
        Value::Text(text) => write!(line, "{text}"),
        Value::Bytes(bytes) => write!(line, "{}", String::from_utf8_lossy(bytes)),
        Value::Words(words) => write!(line, "[{}]", words.join(",")),
        Value::Null => write!(line, "null"),
    };
}

fn json(line: &mut String, value: &Value<'_>) {
    match value {
        Value::Number(number) => {
            let _ = write!(line, "{number}");
        }
        Value::Flag(flag) => {
            let _ = write!(line, "{flag}");
        }
        Value::Text(text) => json_text(line, text),
        Value::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => json_text(line, text),
            // JSON has no bytes: what is no text is shown in hexadecimal.
            Err(_) => {
                let hex = bytes.iter().fold(String::new(), |mut hex, byte| {
                    let _ = write!(hex, "{byte:02x}");
                    hex
                });
                let _ = write!(line, "{{\"hex\":\"{hex}\"}}");
            }
        },
        Value::Words(words) => {
            line.push('[');
            for (at, word) in words.iter().enumerate() {
                if at > 0 {
                    line.push(',');
                }
                json_text(line, word);
            }
            line.push(']');
        }
        Value::Null => line.push_str("null"),
    }
}

fn json_text(line: &mut String, text: &str) {
    line.push('"');
    for character in text.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            control if (control as u32) < 0x20 => {
                let _ = write!(line, "\\u{:04x}", control as u32);
            }
            other => line.push(other),
        }
    }
    line.push('"');
}
