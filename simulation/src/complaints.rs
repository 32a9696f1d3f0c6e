//! What the nodes' logs complain of: lines of level ERROR.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

use crate::invariants::Found;

/// What a node may say when its disk has failed, was full, has misread or has rotted; the messages alone. Each other line of
/// level ERROR is a mistake of ours, whatever the disks do.
const OF_DISKS: [&str; 17] = [
    "the log takes no more writes",
    "cannot make records durable: the log takes no more writes",
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

/// What a node may say of a partition whose copy a disk has spoilt, or that a disk has refused to open: that disks fail in this
/// run explains nothing.
const OF_A_SPOILT_COPY: &str = "the partition is offline";

/// What the disks have done so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disks {
    /// One of them has failed, was full, or has rotted.
    pub(crate) fail: bool,
    /// One of them has refused something, or returned other bytes than it has.
    pub(crate) have_refused: bool,
    /// The partitions of which a place went bad, or was never written.
    pub(crate) spoilt: BTreeSet<String>,
}

/// A line of level ERROR.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Complaint {
    /// What it says, without the fields.
    message: String,
    /// The partition that it is about, if it says so.
    partition: Option<String>,
    /// All of it.
    line: String,
}

impl Complaint {
    /// What is wrong about it, where it is not to be expected of these disks.
    pub(crate) fn judge(self, disks: &Disks) -> Found {
        if self.is_expected(disks) {
            Found::new()
        } else {
            vec![("error-line", self.line)]
        }
    }

    fn is_expected(&self, disks: &Disks) -> bool {
        if self.is_of_a_dying_process() {
            return true;
        }
        if self.message == OF_A_SPOILT_COPY {
            let partition = self.partition.as_ref();
            return disks.have_refused || partition.is_some_and(|partition| disks.spoilt.contains(partition));
        }
        disks.fail && OF_DISKS.contains(&self.message.as_str())
    }

    /// The process dies in an operation on its disk, and its last words are about that.
    fn is_of_a_dying_process(&self) -> bool {
        self.line.contains("the simulated process has been killed") || self.line.contains("other error")
    }
}

static LINES: Mutex<Vec<Complaint>> = Mutex::new(Vec::new());
static ANY: AtomicBool = AtomicBool::new(false);

/// `SKERRY_SIM_LOG=FILE`: what the nodes' logs say, down to DEBUG, goes there, with the simulation's time, for whoever looks for
/// the reason of something. It is no part of the trace.
const LOG: &str = "SKERRY_SIM_LOG";

#[expect(
    clippy::disallowed_methods,
    reason = "a file of whoever looks on, outside of the world"
)]
fn file() -> Option<&'static File> {
    static FILE: LazyLock<Option<File>> = LazyLock::new(|| File::create(std::env::var_os(LOG)?).ok());
    FILE.as_ref()
}

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
        let level = *metadata.level();
        (level == Level::ERROR || level <= Level::DEBUG && file().is_some())
            && metadata.is_event()
            && metadata.target().starts_with("skerry")
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(file().map_or(LevelFilter::ERROR, |_| LevelFilter::DEBUG))
    }

    fn event(&self, event: &Event<'_>) {
        let mut complaint = Complaint {
            line: event.metadata().target().to_owned(),
            ..Complaint::default()
        };
        event.record(&mut complaint);
        let level = *event.metadata().level();
        if let Some(mut file) = file() {
            let now_ms = skerry_stdclock::elapsed().as_secs_f64() * 1e3;
            let _ = writeln!(file, "[{now_ms:10.3}] {level} {}", complaint.line);
        }
        if level != Level::ERROR {
            return;
        }
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
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            "partition" => self.partition = Some(format!("{value:?}")),
            _ => {}
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
        let unexpected = |fail| {
            let disks = Disks {
                fail,
                ..Disks::default()
            };
            let found = lines.iter().map(|line| line.clone().judge(&disks));
            found.map(|found| !found.is_empty()).collect::<Vec<_>>()
        };
        assert_eq!(unexpected(false), [true, true, false, true], "{lines:?}");
        assert_eq!(unexpected(true), [true, false, false, true], "{lines:?}");
        let checks = lines[0].clone().judge(&Disks::default());
        assert_eq!(checks[0].0, "error-line");
    }

    #[test]
    fn a_partition_is_offline_where_a_disk_has_spoilt_it() {
        let lines = heard(|| {
            let name = "orders-0";
            tracing::error!(target: "skerry::partitions", partition = %name, why = "damaged", "the partition is offline");
        });
        let is_expected = |disks: Disks| lines[0].clone().judge(&disks).is_empty();
        let spoilt = |partition: &str| Disks {
            fail: true,
            spoilt: BTreeSet::from([partition.to_owned()]),
            ..Disks::default()
        };
        assert!(is_expected(spoilt("orders-0")));
        assert!(!is_expected(spoilt("orders-1")), "another one is bad");
        assert!(is_expected(Disks {
            have_refused: true,
            ..spoilt("orders-1")
        }));
        let dying = heard(|| {
            let why = "the simulated process has been killed";
            tracing::error!(target: "skerry::partitions", why, "the partition is offline");
        });
        assert!(dying[0].clone().judge(&Disks::default()).is_empty());
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
        for message in OF_DISKS.into_iter().chain([OF_A_SPOILT_COPY]) {
            assert!(
                source.contains(&format!("\"{message}\"")),
                "nobody says {message:?}"
            );
        }
    }
}
