//! The bugs that are planted to prove that the simulator finds them. The hooks are in the production crates, behind
//! `skerry_types::is_planted`, and do not exist in a release build.
//!
//! Deliberately absent: `assignment-from-old-generation`, a race that the coordinator's own transcripts show
//! (`broker/coordinator`), and `follower-epoch-unchecked`: the broker forgets a leader's streams with its epoch, so that
//! what was said in an earlier one has no way to the rules any more; the model of `broker/replica` shows it.
//!
//! Of the rows of SIMULATION.md, section 5, these have none: 16, of a group protocol (KIP-848) that the broker does not
//! speak; 17 and 18, of transactions, which come with the broker's; 23, a mistake inside openraft (1802), for which the
//! broker has no place.

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

/// A bug that a directed scenario must show: seeds that lead there are rare, or it is a bug that there was.
const fn in_scenario(
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

/// One of a cluster: three nodes find it.
const fn in_cluster(name: &'static str, budget: u64, mistake: &'static str) -> Planted {
    Planted {
        name,
        mistake,
        scenario: None,
        nodes: Some(3),
        budget,
    }
}

/// All of them.
pub const PLANTS: &[Planted] = &[
    in_cluster(
        "memory-of-answers-stays-taken",
        20,
        "the memory of records is not given back when their reader has them",
    ),
    planted(
        "index-points-behind",
        20,
        "an entry of an index names the place behind its batch",
    ),
    in_scenario(
        "quorum-without-pings",
        "lost-snapshot",
        20,
        "who owes an answer is not asked whether it is still there",
    ),
    in_cluster(
        "deaf-broker-is-not-fenced",
        100,
        "a broker that is heard and hears nobody keeps its place",
    ),
    in_cluster(
        "fenced-nodes-name-nobody",
        20,
        "a node serves clients before it takes part, and Metadata names no broker while all are fenced",
    ),
    in_cluster(
        "full-disk-keeps-office",
        150,
        "a controller goes on whose disk has no room",
    ),
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
    in_cluster(
        "raft-entry-acked-before-sync",
        10,
        "a metadata change is answered before it is durable",
    ),
    planted(
        "assignment-acked-before-append",
        200,
        "a group's assignment is answered before it is written",
    ),
    in_scenario(
        "full-disk-cut-not-synced",
        "partial-write",
        20,
        "what a full disk left of a write is cut off, and the cut not synced",
    ),
    in_scenario(
        "topic-told-before-its-logs",
        "new-topic",
        10,
        "clients are told of a topic whose logs are not open yet",
    ),
    in_scenario(
        "follower-begins-between-batches",
        "within-a-batch",
        10,
        "a follower whose leader's log begins within a batch refuses that batch",
    ),
    in_scenario(
        "pipelined-batch-overtakes",
        "overtaken-batch",
        5,
        "the second batch of a new producer is taken after the first was refused",
    ),
    in_cluster(
        "raft-vote-not-synced",
        10,
        "a vote is granted before it is durable",
    ),
    in_cluster(
        "raft-without-pre-vote",
        50,
        "who hears nobody begins terms, and disturbs the leader when it is back",
    ),
    in_cluster(
        "fenced-broker-stays-in-sync",
        10,
        "a dead broker stays in the in-sync sets",
    ),
    in_scenario(
        "reassignment-completes-early",
        "moves",
        5,
        "a new replica takes part before it has caught up",
    ),
    in_cluster(
        "follower-reports-written-as-durable",
        10,
        "a follower's record counts before it is on its disk",
    ),
    in_cluster(
        "fetcher-without-deadline",
        50,
        "a follower waits for ever for a leader that is silent",
    ),
    in_scenario(
        "diverges-by-offset-alone",
        "kip-279",
        10,
        "logs are compared by offset and not by epoch (KIP-279)",
    ),
    in_cluster(
        "high-watermark-below-min-in-sync",
        10,
        "records are committed with fewer replicas in sync than the topic asks for (KIP-966)",
    ),
    in_cluster(
        "removal-counts-before-commit",
        20,
        "a leader does not wait for a follower that the metadata still has in sync",
    ),
    in_cluster(
        "joins-before-epoch-start",
        100,
        "a follower is in sync before it has what earlier leaders committed",
    ),
    in_scenario(
        "truncate-to-high-watermark",
        "kip-101",
        20,
        "a follower cuts its log at its own high watermark (KIP-101)",
    ),
    in_scenario(
        "rebooted-broker-joins",
        "kip-903",
        20,
        "a broker that has registered again is in sync for what its earlier start had caught up with (KIP-903)",
    ),
    in_scenario(
        "damage-not-told",
        "rot-of-all-copies",
        5,
        "damage that was found is kept to oneself (beyond the contract: a silent loss)",
    ),
    in_scenario(
        "offline-copy-not-told",
        "in-sync-copies-lost",
        5,
        "a broker keeps to itself that it cannot open its copy (KIP-858): nobody can choose another one",
    ),
    in_scenario(
        "recovery-keeps-numbers",
        "wiped-majority",
        5,
        "a recovered quorum goes on with the epochs, terms and producer ids that it knows, which the lost majority has given out",
    ),
    in_scenario(
        "reverted-voter-stays-behind",
        "lying-voter",
        10,
        "a voter that has less of the quorum's log than it had said is not sent what it lacks",
    ),
    in_scenario(
        "crashed-replica-stays-eligible",
        "kip-966",
        5,
        "a copy may be elected whose unflushed records went with the power (KIP-966)",
    ),
    in_scenario(
        "epochs-not-cut",
        "kip-279",
        10,
        "a log that is cut keeps the leader epochs of what was cut (KAFKA-10706)",
    ),
    in_scenario(
        "standing-ignored",
        "stale-leader",
        60,
        "a leader speaks for its partition for as long as it hears of no other one",
    ),
    in_cluster(
        "snapshot-without-eligible",
        60,
        "a snapshot of the metadata forgets who is eligible",
    ),
    in_cluster(
        "sums-not-compared",
        60,
        "what is read back is not compared with its sums",
    ),
    in_scenario(
        "producer-forgotten-early",
        "jumping-clock",
        10,
        "a producer that has only just written is taken for one that has not written for a day",
    ),
    in_scenario(
        "given-up-move-takes-copies",
        "given-up-move",
        10,
        "a reassignment that is given up takes copies that min.insync.replicas counts on",
    ),
    in_scenario(
        "wiped-voter-keeps-its-vote",
        "wiped-voter",
        3,
        "a voter that has lost its disk answers as if it had it",
    ),
    in_scenario(
        "removed-voter-stays-away",
        "removed-voter",
        10,
        "a voter that was removed while it was cut off never asks whether it is a member",
    ),
    in_scenario(
        "crc-not-checked",
        "damaged-batches",
        3,
        "a leader takes a producer's batch that was damaged on its way",
    ),
    in_scenario(
        "follower-crc-not-checked",
        "damaged-batches",
        3,
        "a follower takes a batch that was damaged on its way from its leader",
    ),
    in_scenario(
        "checkpoints-outlive-a-topic",
        "made-again",
        20,
        "what the checkpoints say of a deleted topic is believed of the next one of its name",
    ),
    in_scenario(
        "misread-taken-for-a-tear",
        "read-flips",
        10,
        "recovery cuts the log where one read was wrong",
    ),
    in_scenario(
        "groups-loaded-without-sums",
        "read-flips",
        10,
        "what is read of the groups' logs is not compared with its sums",
    ),
    in_scenario(
        "second-look-reads-one-batch",
        "bad-sector",
        10,
        "a read that failed is looked at again in its first batch alone",
    ),
    in_scenario(
        "lost-replica-stays-eligible",
        "lost-copy",
        20,
        "a copy that is gone may be elected",
    ),
    in_scenario(
        "checkpoints-not-compared",
        "lying-syncs",
        10,
        "a log is opened that ends before what its checkpoints say was durable and committed",
    ),
    in_scenario(
        "repairs-wait-for-each-other",
        "misdirected-write",
        10,
        "a node that has made one copy again makes no other one for five minutes",
    ),
    in_scenario(
        "disk-of-another-node-taken",
        "swapped-disks",
        5,
        "a node starts with the disk of another one",
    ),
    planted(
        "zombie-producer-not-fenced",
        50,
        "who writes with an earlier epoch of a producer is not told so (KIP-360)",
    ),
    planted(
        "sync-from-old-generation",
        50,
        "a member of an earlier generation is given an assignment",
    ),
    in_scenario(
        "metadata-sync-failure-ignored",
        "metadata-sync-fails",
        5,
        "a sync of the quorum's log has failed, and votes and entries count all the same",
    ),
];
