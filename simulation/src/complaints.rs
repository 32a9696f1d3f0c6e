//! What the nodes' logs complain of: lines of level ERROR.

use std::fmt::{self, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());
static ANY: AtomicBool = AtomicBool::new(false);

/// From now on this process listens to what is ours. Once for a process: each seed has its own.
pub(crate) fn listen() {
    // Another one listens already: a unit test of the same process.
    let _ = tracing::subscriber::set_global_default(Listener);
}

/// The lines since the last call.
pub(crate) fn take() -> Vec<String> {
    if ANY.swap(false, Ordering::Relaxed) {
        std::mem::take(&mut *LINES.lock())
    } else {
        Vec::new()
    }
}

/// It says that the disk of a process has gone: the process dies in an operation, and its last words are about that.
pub(crate) fn is_of_a_disk(line: &str) -> bool {
    line.contains("the simulated process has been killed") || line.contains("other error")
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
        let mut line = Line(event.metadata().target().to_owned());
        event.record(&mut line);
        LINES.lock().push(line.0);
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

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A String takes every write.
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}
