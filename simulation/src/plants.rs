//! The bugs that are planted to prove that the simulator finds them. The hooks are in the production crates, behind
//! `skerry_types::is_planted`, and do not exist in a release build.
//!
//! Deliberately absent: `raft-vote-not-synced`, which a quorum of one survives, and `assignment-from-old-generation`,
//! a race that the coordinator's own transcripts show.

/// A planted bug.
pub struct Planted {
    /// The name that the hook asks for.
    pub name: &'static str,
    /// What is wrong.
    pub mistake: &'static str,
    /// The scenario that leads to it; `None`: whatever the seeds draw.
    pub scenario: Option<&'static str>,
    /// How many nodes its seeds have; `None`: one.
    pub nodes: Option<u32>,
    /// Seeds within which it must be found.
    pub budget: u64,
}

/// A bug that there was, and that the simulator found: the scenario made of that history must show it for ever.
const fn there_was(
    name: &'static str,
    scenario: &'static str,
    budget: u64,
    mistake: &'static str,
) -> Planted {
    Planted {
        name,
        mistake,
        scenario: Some(scenario),
        nodes: None,
        budget,
    }
}

const fn planted(name: &'static str, budget: u64, mistake: &'static str) -> Planted {
    Planted {
        name,
        mistake,
        scenario: None,
        nodes: None,
        budget,
    }
}

/// All of them.
pub const PLANTS: &[Planted] = &[
    planted(
        "ack-before-fsync",
        5,
        "acks=all is answered before the record is durable",
    ),
    planted(
        "durable-end-too-early",
        20,
        "a flush counts what was appended while it ran",
    ),
    planted(
        "recovery-truncates-rot",
        100,
        "recovery cuts the log at damage below the synced point",
    ),
    planted(
        "dedupe-keeps-one-batch",
        20,
        "only the last batch of a producer is remembered",
    ),
    planted(
        "dedupe-not-rebuilt",
        50,
        "recovery forgets which batches producers had written",
    ),
    planted(
        "rename-without-dir-sync",
        100,
        "a file is replaced and the directory not synced",
    ),
    planted(
        "served-beyond-high-watermark",
        20,
        "consumers read what is not durable yet",
    ),
    planted(
        "commit-acked-before-append",
        20,
        "a group's commit is answered before it is written",
    ),
    planted(
        "commit-from-old-generation",
        50,
        "a member of an earlier generation may commit",
    ),
    planted(
        "raft-entry-acked-before-sync",
        100,
        "a metadata change is answered before it is durable",
    ),
    planted(
        "assignment-acked-before-append",
        200,
        "a group's assignment is answered before it is written",
    ),
    there_was(
        "full-disk-cut-not-synced",
        "partial-write",
        20,
        "what a full disk left of a write is cut off, and the cut not synced",
    ),
    there_was(
        "topic-told-before-its-logs",
        "new-topic",
        10,
        "clients are told of a topic whose logs are not open yet",
    ),
    there_was(
        "follower-begins-between-batches",
        "within-a-batch",
        10,
        "a follower whose leader's log begins within a batch refuses that batch",
    ),
    there_was(
        "pipelined-batch-overtakes",
        "overtaken-batch",
        5,
        "the second batch of a new producer is taken after the first was refused",
    ),
];
