//! What a directory holds, and whose it is.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use skerry_env::disk::Entry;
use skerry_types::Offset;

use crate::errors::OpenError;
use crate::identity::{self, PartitionIdentity};
use crate::segment::{FileKind, Place};

pub(super) fn io_error(place: &Place) -> impl Fn(io::Error) -> OpenError + use<> {
    let dir = place.dir.clone();
    move |source| OpenError::Io {
        path: dir.display().to_string(),
        source,
    }
}

pub(super) fn check_identity(
    place: &Place,
    id: Option<PartitionIdentity>,
) -> Result<PartitionIdentity, OpenError> {
    let io = io_error(place);
    let wrong = |found: String, expected: String| OpenError::WrongIdentity {
        dir: place.dir.display().to_string(),
        found,
        expected,
    };
    let name = place
        .dir
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let topic_id = identity::read_topic_id(&**place.disk(), &place.dir).map_err(&io)?;
    match (id, topic_id) {
        (Some(id), Some(found)) if id.topic_id != found => {
            Err(wrong(format!("topic id {found}"), id.to_string()))
        }
        (Some(id), Some(_)) => Ok(id),
        (Some(id), None) => {
            // A copy of a directory that an old Kafka wrote.
            if place.disk().stat(&place.dir).map_err(&io)?.is_none() {
                return Err(io(io::ErrorKind::NotFound.into()));
            }
            identity::write_topic_id(&**place.disk(), &place.dir, id.topic_id).map_err(&io)?;
            Ok(id)
        }
        (None, topic_id) => {
            let (topic, partition) = identity::parse_dir_name(&name)
                .ok_or_else(|| wrong(name.clone(), "a directory named topic-partition".to_owned()))?;
            let topic_id = topic_id.ok_or_else(|| wrong("no topic id".to_owned(), name.clone()))?;
            Ok(PartitionIdentity {
                topic: topic.into(),
                partition,
                topic_id,
            })
        }
    }
}

/// The files of one segment.
#[derive(Default)]
pub(super) struct FoundSegment {
    pub(super) log: Option<u64>,
    pub(super) offsets: Option<u64>,
    pub(super) times: Option<u64>,
    pub(super) aborted: Option<u64>,
}

/// What a directory holds.
pub(super) struct Found {
    pub(super) segments: BTreeMap<Offset, FoundSegment>,
    pub(super) snapshots: Vec<Offset>,
    /// Of an interrupted deletion, cleaning or replacement.
    pub(super) leftovers: Vec<PathBuf>,
}

impl Found {
    pub(super) fn list(place: &Place) -> io::Result<Self> {
        let mut found = Self {
            segments: BTreeMap::new(),
            snapshots: Vec::new(),
            leftovers: Vec::new(),
        };
        for Entry { name, is_dir, len } in place.disk().list(&place.dir)? {
            if is_dir {
                continue;
            }
            if name.ends_with(".deleted") || name.ends_with(".cleaned") || name.ends_with(".tmp") {
                found.leftovers.push(place.dir.join(name));
                continue;
            }
            let Some((base, kind)) = parse_name(&name) else {
                continue;
            };
            match kind {
                FileKind::Snapshot => found.snapshots.push(base),
                FileKind::Log => found.segments.entry(base).or_default().log = Some(len),
                FileKind::OffsetIndex => found.segments.entry(base).or_default().offsets = Some(len),
                FileKind::TimeIndex => found.segments.entry(base).or_default().times = Some(len),
                FileKind::TxnIndex => found.segments.entry(base).or_default().aborted = Some(len),
            }
        }
        // An index without its log: the log's removal came first, or its name was lost before it held anything.
        for (base, files) in &found.segments {
            if files.log.is_none() {
                let orphans = [FileKind::OffsetIndex, FileKind::TimeIndex, FileKind::TxnIndex];
                found
                    .leftovers
                    .extend(orphans.map(|kind| place.path(*base, kind)));
            }
        }
        found.segments.retain(|_, files| files.log.is_some());
        found.snapshots.sort_unstable();
        Ok(found)
    }
}

pub(super) fn parse_name(name: &str) -> Option<(Offset, FileKind)> {
    let kind = FileKind::ALL
        .into_iter()
        .find(|kind| name.ends_with(kind.suffix()))?;
    let digits = name.strip_suffix(kind.suffix())?;
    if digits.len() != 20 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let base = Offset(digits.parse().ok()?);
    Some((base, kind))
}

pub(super) fn remove_leftovers(place: &Place, leftovers: &[PathBuf]) {
    for path in leftovers {
        match place.disk().remove_file(path) {
            Ok(()) => tracing::info!(path = %path.display(), "removed what an interrupted change left"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "a leftover stays"),
        }
    }
}
