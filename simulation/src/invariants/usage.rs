//! What nodes hold and how busy they are: no leak, no storm, and no life in a process that stands still.

use super::Found;

/// Nobody dials more often in a second: a pause of some 20 ms between two tries, to five peers. The busiest seeds have 40.
const DIALS_MAX: u64 = 300;
/// Nor writes to its connections more often. The busiest seeds have 800.
const WRITES_MAX: u64 = 10_000;

/// What a connection may hold of requests that wait, and of answers that nobody takes any more.
const CONNECTION_KIB: u64 = 4_096;

/// What a host has done to the world so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acts {
    pub(crate) dials: u64,
    pub(crate) writes: u64,
    /// Connections given up.
    pub(crate) ends: u64,
    /// Writes, syncs and changed names. Of a host that is down the world itself may exchange the disk.
    pub(crate) disk: u64,
    /// What its voter has promised: a term, and an entry.
    pub(crate) promised: (u64, u64),
}

impl Acts {
    /// Of a host whose process stands still, or is dead, since it had done `before`.
    pub(crate) fn judge(&self, before: &Self, node: &str) -> Found {
        if self == before {
            return Found::new();
        }
        vec![(
            "acts-while-still",
            format!("the process of {node} does not run, and has gone from {before:?} to {self:?}"),
        )]
    }
}

/// What the metadata needs on its disk before it decides anything.
const METADATA_ROOM_BYTES: u64 = 1 << 20;

/// A disk on which others have left `left_bytes`, of which `free_bytes` are free, of a node that keeps `reserve_bytes`:
/// without the metadata nobody can delete anything.
pub(crate) fn check_reserve(left_bytes: u64, reserve_bytes: u64, free_bytes: u64, node: &str) -> Found {
    if left_bytes < reserve_bytes || free_bytes >= METADATA_ROOM_BYTES {
        return Found::new();
    }
    vec![(
        "reserve-written",
        format!(
            "{node} has written its own reserve of {reserve_bytes} bytes: {free_bytes} are free, and the metadata waits"
        ),
    )]
}

/// What nodes hold at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) tasks: u64,
    /// Connections whose client went without a word: they stay, with a task or two and what they hold, until they have
    /// been idle for long.
    pub(crate) deserted: u64,
    /// Open, and in no cache: those have their bounds.
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
