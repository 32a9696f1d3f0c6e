//! What nodes hold and how busy they are: no leak, no storm.

use super::Found;

/// Nobody dials more often in a second: a pause of some 20 ms between two tries, to five peers. The busiest seeds have 40.
const DIALS_MAX: u64 = 300;
/// Nor writes to its connections more often. The busiest seeds have 800.
const WRITES_MAX: u64 = 10_000;

/// What a connection may hold of requests that wait, and of answers that nobody takes any more.
const CONNECTION_KIB: u64 = 4_096;

/// What nodes hold at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) tasks: u64,
    /// Connections whose client went without a word: they stay, with a task or two and what they hold, until they have
    /// been idle for long.
    pub(crate) deserted: u64,
    pub(crate) files: u64,
    /// Of the budgets for requests and answers.
    pub(crate) memory_kib: u64,
    /// Fetches that wait for something to read, and batches that wait for their acknowledgement.
    pub(crate) waiting: u64,
}

impl Usage {
    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            tasks: self.tasks.min(other.tasks),
            deserted: self.deserted.min(other.deserted),
            files: self.files.min(other.files),
            memory_kib: self.memory_kib.min(other.memory_kib),
            waiting: self.waiting.min(other.waiting),
        }
    }

    /// Of processes that have lived through everything, compared with new ones. Who leads what may differ, and what is kept
    /// open in a cache: so a little more is no leak.
    pub(crate) fn judge(self, fresh: &Self, nodes: usize) -> Found {
        let slack = |fresh: u64| fresh + fresh / 4 + 8 * nodes as u64;
        let mut found = Found::new();
        for (what, lived, fresh) in [
            ("tasks", self.tasks, fresh.tasks + 2 * self.deserted),
            ("open files", self.files, fresh.files),
            (
                "KiB of requests and answers",
                self.memory_kib,
                fresh.memory_kib + CONNECTION_KIB * self.deserted,
            ),
            (
                "waiting fetches and batches",
                self.waiting,
                fresh.waiting + self.deserted,
            ),
        ] {
            if lived > slack(fresh) {
                found.push((
                    "leak",
                    format!("{lived} {what} in the quiet; {fresh} of new processes"),
                ));
            }
        }
        found
    }

    /// Of one node in one second.
    pub(crate) fn judge_traffic(node: &str, (dials, writes): (u64, u64)) -> Found {
        let mut found = Found::new();
        if dials > DIALS_MAX || writes > WRITES_MAX {
            found.push((
                "retry-storm",
                format!("{node} has dialled {dials} times in a second, and written {writes} times"),
            ));
        }
        found
    }
}
