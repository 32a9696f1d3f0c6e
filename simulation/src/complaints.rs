//! What the nodes' logs complain of: lines of level ERROR.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// What a node may say when its disk has failed, was full, has misread or has rotted; the messages alone. Each other line of
/// level ERROR is a mistake of ours, whatever the disks do.
const OF_DISKS: [&str; 18] = [
    "the log takes no more writes",
    "cannot make records durable: the log takes no more writes",
    "the partition is offline",
    "cannot close the log cleanly",
    "cannot write the checkpoints",
    "cannot write a checkpoint",
    "cannot write the checkpoints: logs that part from their leaders' are not cut",
    "cannot cut the log",
    "cannot make the log's new start durable",
    "cannot read",
    "cannot read for a follower",
    "cannot read the groups of a partition; trying again",
    "this copy is damaged",
    "cannot make a damaged copy again",
    "a person has chosen this copy: what is behind the damage is lost",
    "a person has chosen this copy, and nothing of it can be opened",
    "the metadata log cannot be made durable",
    "a write failed, which is final until the next start",
];

/// A line of level ERROR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// What it says, without the fields.
    message: String,
    /// All of it.
    pub(crate) line: String,
}

impl Complaint {
    /// It may be said by a node of a cluster in which disks fail, or do not.
    pub(crate) fn is_expected(&self, disks_fail: bool) -> bool {
        self.is_of_a_dying_process() || disks_fail && OF_DISKS.contains(&self.message.as_str())
    }

    /// The process dies in an operation on its disk, and its last words are about that.
    fn is_of_a_dying_process(&self) -> bool {
        self.line.contains("the simulated process has been killed") || self.line.contains("other error")
    }
}

static LINES: Mutex<Vec<Complaint>> = Mutex::new(Vec::new());
static ANY: AtomicBool = AtomicBool::new(false);

/// From now on this process listens to what is ours. Once for a process: each seed has its own.
pub(crate) fn listen() {
    // Another one listens already: a unit test of the same process.
    let _ = tracing::subscriber::set_global_default(Listener);
}

/// The lines since the last call.
pub(crate) fn take() -> Vec<Complaint> {
    if ANY.swap(false, Ordering::Relaxed) {
        std::mem::take(&mut *LINES.lock())
    } else {
        Vec::new()
    }
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR && metadata.is_event() && metadata.target().starts_with("skerry")
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::ERROR)
    }

    fn event(&self, event: &Event<'_>) {
        let mut complaint = Complaint {
            line: event.metadata().target().to_owned(),
            ..Complaint::default()
        };
        event.record(&mut complaint);
        LINES.lock().push(complaint);
        ANY.store(true, Ordering::Relaxed);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Complaint {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
        // A String takes every write.
        let _ = write!(self.line, " {}={value:?}", field.name());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// What is heard while `say` says it.
    fn heard(say: impl FnOnce()) -> Vec<Complaint> {
        drop(take());
        tracing::subscriber::with_default(Listener, say);
        take()
    }

    #[test]
    fn a_line_that_no_disk_explains_is_unexpected_whatever_the_disks_do() {
        let lines = heard(|| {
            tracing::error!(target: "skerry::groups", token = 7, "the group coordinator answered a request twice");
            tracing::error!(target: "skerry::fetch", error = "Input/output error", "cannot read");
            tracing::error!(target: "skerry::fetch", error = "other error", "cannot frobnicate");
            tracing::error!(target: "skerry::fetch", why = "cannot read", "cannot read the minds of others");
            tracing::error!(target: "another::crate", "cannot read");
            tracing::warn!(target: "skerry::fetch", "cannot read");
        });
        let expected = |disks_fail| {
            lines
                .iter()
                .map(|line| line.is_expected(disks_fail))
                .collect::<Vec<_>>()
        };
        assert_eq!(expected(false), [false, false, true, false], "{lines:?}");
        assert_eq!(expected(true), [false, true, true, false], "{lines:?}");
    }

    #[expect(clippy::disallowed_methods, reason = "reads the source of the workspace")]
    fn source_of(dir: &Path, text: &mut String) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                source_of(&path, text);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                *text += &std::fs::read_to_string(&path).unwrap();
            }
        }
    }

    #[test]
    fn every_message_of_the_list_is_said_somewhere() {
        let (root, mut source) = (Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), String::new());
        for dir in ["broker/src", "broker/log/src", "metadata/src"] {
            source_of(&root.join(dir), &mut source);
        }
        for message in OF_DISKS {
            assert!(
                source.contains(&format!("\"{message}\"")),
                "nobody says {message:?}"
            );
        }
    }
}
