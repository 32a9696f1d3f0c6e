//! The bugs that are planted to prove that the simulator finds them. The hooks are in the production crates, behind
//! `skerry_types::is_planted`, and do not exist in a release build.
//!
//! Deliberately absent: `assignment-from-old-generation`, a race that the coordinator's own transcripts show
//! (`broker/coordinator`).
//!
//! Of the rows of SIMULATION.md, section 5, 17 and 18 have none, of transactions, which come with the broker's. Row 6 leaves
//! out two comparisons: by the epoch, and by whose question a report belongs to; each alone hides the other's mistake. Row 16
//! is KIP-848's, which is not spoken: the mistake is the same in the rebalance of a classic group.

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
    /// The checks that are there for it: where only others see something, it is not found. Where SIMULATION.md, section 5,
    /// names an invariant, its checks and no others.
    pub caught_by: &'static [&'static str],
}

/// The bug of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Planted> {
    PLANTS.iter().find(|plant| plant.name == name)
}

/// One that any seed of one node finds.
const fn planted(
    name: &'static str,
    budget: u64,
    caught_by: &'static [&'static str],
    mistake: &'static str,
) -> Planted {
    Planted {
        name,
        mistake,
        scenario: None,
        nodes: None,
        budget,
        caught_by,
    }
}

/// One that a directed scenario must show: seeds that lead there are rare, or it is a bug that there was.
const fn in_scenario(
    name: &'static str,
    scenario: &'static str,
    budget: u64,
    caught_by: &'static [&'static str],
    mistake: &'static str,
) -> Planted {
    Planted {
        scenario: Some(scenario),
        ..planted(name, budget, caught_by, mistake)
    }
}

/// One of a cluster: three nodes find it.
const fn in_cluster(
    name: &'static str,
    budget: u64,
    caught_by: &'static [&'static str],
    mistake: &'static str,
) -> Planted {
    Planted {
        nodes: Some(3),
        ..planted(name, budget, caught_by, mistake)
    }
}

/// All of them.
pub const PLANTS: &[Planted] = &[
    in_cluster(
        "memory-of-answers-stays-taken",
        20,
        &["leak"],
        "the memory of records is not given back when their reader has them",
    ),
    planted(
        "header-of-inflexible-versions",
        3,
        &["broken-answer"],
        "answers of flexible versions lack the tagged fields of their header (KIP-482)",
    ),
    planted(
        "leader-not-counted-in-sync",
        3,
        &["not-serving"],
        "min.insync.replicas is compared with the others alone",
    ),
    in_cluster(
        "clients-hold-up-the-stop",
        60,
        &["does-not-stop"],
        "a node that is told to stop waits for its clients to go",
    ),
    in_cluster(
        "client-without-deadline",
        60,
        &["stuck"],
        "a simulated client waits for ever for an answer",
    ),
    in_scenario(
        "person-chooses-in-vain",
        "in-sync-copies-lost",
        3,
        &["not-recovered"],
        "an unclean election that a person asks for is acknowledged, and nobody is elected",
    ),
    planted(
        "index-points-behind",
        20,
        &["index-differs"],
        "an entry of an index names the place behind its batch",
    ),
    in_scenario(
        "quorum-without-pings",
        "lost-snapshot",
        20,
        &["not-whole", "core-does-not-serve", "not-serving"],
        "who owes an answer is not asked whether it is still there",
    ),
    in_scenario(
        "deaf-broker-is-not-fenced",
        "deaf-broker",
        60,
        &["core-does-not-serve"],
        "a broker that is heard and hears nobody keeps its place",
    ),
    in_cluster(
        "fenced-nodes-name-nobody",
        20,
        &["metadata-without-brokers"],
        "a node serves clients before it takes part, and Metadata names no broker while all are fenced",
    ),
    in_cluster(
        "full-disk-keeps-office",
        200,
        &["core-does-not-serve", "not-whole", "not-serving"],
        "a controller goes on whose disk has no room",
    ),
    planted(
        "ack-before-fsync",
        5,
        &["acknowledged-before-durable"],
        "acks=all is answered before the record is durable",
    ),
    planted(
        "durable-end-too-early",
        20,
        &["acknowledged-before-durable", "committed-before-durable"],
        "a flush counts what was appended while it ran",
    ),
    in_cluster(
        "recovery-truncates-rot",
        50,
        &["committed-truncated", "incomplete-leader", "incomplete-candidate"],
        "recovery cuts the log at damage below the synced point",
    ),
    planted(
        "dedupe-keeps-one-batch",
        20,
        &["duplicate-record", "order-of-a-producer", "refused-record"],
        "only the last batch of a producer is remembered",
    ),
    planted(
        "dedupe-not-rebuilt",
        50,
        &["duplicate-record", "refused-record", "wrong-producer-state"],
        "recovery forgets which batches producers had written",
    ),
    planted(
        "rename-without-dir-sync",
        100,
        &[
            "recovery-loses-durable",
            "recovery-not-durable",
            "does-not-recover",
        ],
        "a file is replaced and the directory not synced",
    ),
    in_cluster(
        "served-beyond-high-watermark",
        20,
        &["served-uncommitted"],
        "consumers read what is not committed yet",
    ),
    planted(
        "commit-acked-before-append",
        20,
        &["commit-before-durable"],
        "a group's commit is answered before it is written",
    ),
    planted(
        "commit-from-old-generation",
        50,
        &["zombie-commit"],
        "a member of an earlier generation may commit",
    ),
    in_cluster(
        "raft-entry-acked-before-sync",
        10,
        &["entry-committed-before-durable"],
        "a metadata change is answered before it is durable",
    ),
    planted(
        "compaction-forgets-the-newest",
        20,
        &["last-value-lost"],
        "compaction ends one record too late, and takes the newest that it has seen for superseded",
    ),
    planted(
        "tombstones-take-nothing",
        20,
        &["deleted-key-came-back"],
        "compaction removes a tombstone whose key still has an older value in the log",
    ),
    planted(
        "assignment-acked-before-append",
        200,
        &["two-owners", "zombie-commit", "generation-went-back"],
        "a group's assignment is answered before it is written",
    ),
    in_scenario(
        "full-disk-cut-not-synced",
        "partial-write",
        20,
        &["refused-record", "lost-record", "recovery-loses-durable"],
        "what a full disk left of a write is cut off, and the cut not synced",
    ),
    in_scenario(
        "topic-told-before-its-logs",
        "new-topic",
        10,
        &["refused-record", "order-of-a-producer"],
        "clients are told of a topic whose logs are not open yet",
    ),
    in_scenario(
        "follower-begins-between-batches",
        "within-a-batch",
        25,
        &["not-whole", "core-does-not-serve"],
        "a follower whose leader's log begins within a batch refuses that batch",
    ),
    in_scenario(
        "pipelined-batch-overtakes",
        "overtaken-batch",
        5,
        &["refused-record"],
        "the second batch of a new producer is taken after the first was refused",
    ),
    in_cluster(
        "raft-vote-not-synced",
        10,
        &["vote-before-durable"],
        "a vote is granted before it is durable",
    ),
    in_cluster(
        "raft-without-pre-vote",
        50,
        &["needless-term"],
        "who hears nobody begins terms, and disturbs the leader when it is back",
    ),
    in_cluster(
        "raft-past-the-env",
        30,
        &["acts-while-still"],
        "openraft and its connections run past the node's Env: in a process that stands still they go on",
    ),
    in_cluster(
        "fenced-broker-stays-in-sync",
        10,
        &["wrong-in-sync-set"],
        "a dead broker stays in the in-sync sets",
    ),
    in_scenario(
        "reassignment-completes-early",
        "moves",
        5,
        &["incomplete-candidate"],
        "a new replica takes part before it has caught up",
    ),
    in_cluster(
        "follower-reports-written-as-durable",
        50,
        &[
            "committed-past-a-member",
            "committed-before-durable",
            "acknowledged-before-durable",
        ],
        "a follower's record counts before it is on its disk",
    ),
    in_cluster(
        "fetcher-without-deadline",
        50,
        &["not-whole", "core-does-not-serve", "not-serving"],
        "a follower waits for ever for a leader that is silent",
    ),
    in_scenario(
        "diverges-by-offset-alone",
        "kip-279",
        10,
        &["committed-changed", "two-writers", "copies-differ"],
        "logs are compared by offset and not by epoch (KIP-279)",
    ),
    in_cluster(
        "high-watermark-below-min-in-sync",
        10,
        &["committed-by-too-few"],
        "records are committed with fewer replicas in sync than the topic asks for (KIP-966)",
    ),
    in_cluster(
        "removal-counts-before-commit",
        20,
        &["member-not-counted"],
        "a leader does not wait for a follower that the metadata still has in sync",
    ),
    in_cluster(
        "joins-before-epoch-start",
        200,
        &["joined-too-early", "incomplete-candidate"],
        "a follower is in sync before it has what earlier leaders committed",
    ),
    in_scenario(
        "truncate-to-high-watermark",
        "kip-101-a",
        20,
        &["committed-truncated"],
        "a follower cuts its log at its own high watermark (KIP-101)",
    ),
    in_scenario(
        "rebooted-broker-joins",
        "kip-903",
        20,
        &["joined-too-early"],
        "a broker that has registered again is in sync for what its earlier start had caught up with (KIP-903)",
    ),
    in_scenario(
        "damage-not-told",
        "rot-of-all-copies",
        5,
        &["silent-loss"],
        "damage that was found is kept to oneself (beyond the contract: a silent loss)",
    ),
    in_scenario(
        "offline-copy-not-told",
        "in-sync-copies-lost",
        5,
        &["offline-not-told"],
        "a broker keeps to itself that it cannot open its copy (KIP-858): nobody can choose another one",
    ),
    in_scenario(
        "recovery-keeps-numbers",
        "wiped-majority",
        5,
        &["number-given-out-twice"],
        "a recovered quorum goes on with the epochs, terms and producer ids that it knows, which the lost majority has given out",
    ),
    in_scenario(
        "reverted-voter-stays-behind",
        "lying-voter",
        10,
        // In a debug build openraft's own assertion on its leader is the first to see it.
        &["panic", "not-whole"],
        "a voter that has less of the quorum's log than it had said is not sent what it lacks",
    ),
    in_scenario(
        "crashed-replica-stays-eligible",
        "kip-966",
        5,
        &["lost-copy-counts"],
        "who crashed and lost what it had not flushed stays eligible where others are left (KIP-966)",
    ),
    in_scenario(
        "epochs-not-cut",
        "kip-279",
        10,
        &["wrong-epochs"],
        "a log that is cut keeps the leader epochs of what was cut (KAFKA-10706)",
    ),
    in_scenario(
        "end-told-before-it-is-known",
        "old-high-watermark",
        20,
        &["end-went-back"],
        "a new leader tells where its log ends before it knows all that is committed (KIP-207)",
    ),
    in_scenario(
        "standing-ignored",
        "stale-leader",
        100,
        &[
            "stale-leader-commits",
            "acknowledged-before-durable",
            "refused-record",
        ],
        "a leader speaks for its partition for as long as it hears of no other one",
    ),
    in_cluster(
        "snapshot-without-eligible",
        60,
        &["snapshot-differs", "metadata-differs"],
        "a snapshot of the metadata forgets who is eligible",
    ),
    in_cluster(
        "sums-not-compared",
        60,
        &["rot-not-found"],
        "what is read back is not compared with its sums",
    ),
    in_scenario(
        "producer-forgotten-early",
        "jumping-clock",
        10,
        &["duplicate-record", "refused-record", "wrong-producer-state"],
        "a producer that has only just written is taken for one that has not written for a day",
    ),
    in_scenario(
        "given-up-move-takes-copies",
        "given-up-move",
        10,
        &[
            "acknowledged-before-durable",
            "served-before-durable",
            "watermark-beyond-durable",
        ],
        "a reassignment that is given up takes copies that min.insync.replicas counts on",
    ),
    in_scenario(
        "wiped-voter-keeps-its-vote",
        "wiped-voter",
        3,
        &["lost-vote-counts"],
        "a voter that has lost its disk answers as if it had it",
    ),
    in_scenario(
        "late-proposals-count",
        "late-proposal",
        20,
        &["lost-setting", "setting-made-again"],
        "a proposal that was given up, and asked for again on another connection, is applied once more when it arrives",
    ),
    in_scenario(
        "half-change-tried-once",
        "half-change",
        100,
        &["not-whole"],
        "a leader that cannot finish a change of the voters at once, which somebody else began, leaves it half done",
    ),
    in_scenario(
        "silent-leader-asked-for-ever",
        "silent-leader",
        40,
        &["core-does-not-serve", "not-whole", "not-serving"],
        "who is not answered by the leader that it knows asks nobody else",
    ),
    in_scenario(
        "removed-voter-stays-away",
        "removed-voter",
        10,
        &["not-whole", "stuck"],
        "a voter that was removed while it was cut off never asks whether it is a member",
    ),
    in_scenario(
        "crc-not-checked",
        "damaged-batches",
        3,
        &["damaged-batch-taken"],
        "a leader takes a producer's batch that was damaged on its way",
    ),
    in_scenario(
        "follower-crc-not-checked",
        "damaged-batches",
        3,
        &["committed-changed", "copies-differ", "two-writers"],
        "a follower takes a batch that was damaged on its way from its leader",
    ),
    in_scenario(
        "moved-leader-answers",
        "moved-leader",
        100,
        &["end-went-back"],
        "a leader says where the log ends while what it has asked for may have moved it away",
    ),
    in_scenario(
        "command-takes-leader-away",
        "moved-leader",
        100,
        &["end-went-back"],
        "what a person commands takes a leader's replica away at once, who has not heard of it",
    ),
    in_scenario(
        "former-leader-let-go",
        "moved-leader",
        60,
        &["end-went-back"],
        "a leader lets a replica go that led before it and has not heard of that",
    ),
    in_scenario(
        "log-start-taken-back",
        "deleted-for-good",
        60,
        &["deleted-records-back"],
        "whoever writes the checkpoints takes a start back that DeleteRecords has made durable, before the log is there",
    ),
    in_scenario(
        "eligible-not-waited-for",
        "deleted-on-all",
        30,
        &["deleted-records-back"],
        "DeleteRecords waits for no replica that is dead, though it may be elected",
    ),
    in_scenario(
        "checkpoints-outlive-a-topic",
        "made-again",
        20,
        &["not-whole"],
        "what the checkpoints say of a deleted topic is believed of the next one of its name",
    ),
    in_scenario(
        "misread-taken-for-a-tear",
        "read-flips",
        10,
        &["committed-truncated", "lost-record", "refused-record"],
        "recovery cuts the log where one read was wrong",
    ),
    in_scenario(
        "groups-loaded-without-sums",
        "read-flips",
        60,
        &["generation-differs", "lost-commit", "wrong-commit"],
        "what is read of the groups' logs is not compared with its sums",
    ),
    in_scenario(
        "second-look-reads-one-batch",
        "bad-sector",
        10,
        &["rot-not-found", "not-whole"],
        "a read that failed is looked at again in its first batch alone",
    ),
    in_scenario(
        "lost-replica-stays-eligible",
        "lost-copy",
        20,
        &["lost-copy-counts", "incomplete-candidate"],
        "a copy that is gone may be elected",
    ),
    in_scenario(
        "checkpoints-not-compared",
        "lying-syncs",
        10,
        &["silent-loss"],
        "a log is opened that ends before what its checkpoints say was durable and committed",
    ),
    in_scenario(
        "compaction-keeps-one-batch",
        "sent-again-after-compaction",
        20,
        &["refused-record"],
        "compaction keeps the last batch of a producer, not all that it may send again",
    ),
    in_scenario(
        "reserve-not-kept",
        "filled-by-producers",
        5,
        &["reserve-written"],
        "producers and followers write until the disk is full",
    ),
    in_scenario(
        "sealed-gap-opens",
        "lost-middle",
        10,
        &["committed-missing", "committed-before-durable", "not-whole"],
        "a log is opened whose sealed segments do not follow on each other",
    ),
    in_scenario(
        "repairs-wait-for-each-other",
        "misdirected-write",
        10,
        &["not-whole", "rot-not-found"],
        "a node that has made one copy again makes no other one for five minutes",
    ),
    in_scenario(
        "disk-of-another-node-taken",
        "swapped-disks",
        5,
        &["wrong-disk-taken"],
        "a node starts with the disk of another one",
    ),
    planted(
        "zombie-producer-not-fenced",
        50,
        &["zombie-producer"],
        "who writes with an earlier epoch of a producer is not told so (KIP-360)",
    ),
    planted(
        "sync-from-old-generation",
        50,
        &["zombie-sync"],
        "a member of an earlier generation is given an assignment",
    ),
    planted(
        "revoke-not-awaited",
        20,
        &["two-owners"],
        "a group gives away what members own that have not come to its rebalance, and the generation stays the same (KIP-848)",
    ),
    in_scenario(
        "follower-epoch-unchecked",
        "kip-320",
        20,
        &[
            "committed-past-a-member",
            "stale-leader-commits",
            "stale-leader-acknowledges",
        ],
        "what a follower said before its leader was replaced counts when it leads again (KIP-320)",
    ),
    in_scenario(
        "metadata-rot-taken-for-a-tear",
        "metadata-rot",
        5,
        &["quorum-promises-lost"],
        "a node starts without the votes and entries behind a bit of the quorum's log that has rotted",
    ),
    in_scenario(
        "starts-over-without-producers",
        "deleted-and-sent-again",
        5,
        &["duplicate-record"],
        "a follower that starts over does not know who wrote what its leader has deleted: as a leader it takes that again",
    ),
    in_scenario(
        "repair-buries-what-was-aside",
        "set-aside-twice",
        5,
        &["served-before-durable", "watermark-beyond-durable"],
        "a copy that is given up before it was in sync takes the one with it that was set aside before",
    ),
    in_scenario(
        "damaged-only-voter-refused",
        "rotten-alone",
        5,
        &["not-recovered"],
        "the only voter, whose log is damaged, is told to just start: it never does",
    ),
    in_cluster(
        "torn-metadata-refused",
        20,
        &["node-does-not-start"],
        "a node does not start with a quorum's log that was being written when the power went",
    ),
    planted(
        "assignment-of-the-generation-before",
        40,
        &["assignment-differs"],
        "members are given what they had in the generation before",
    ),
    in_scenario(
        "metadata-sync-failure-ignored",
        "metadata-sync-fails",
        5,
        &["entry-committed-before-durable", "vote-before-durable"],
        "a sync of the quorum's log has failed, and votes and entries count all the same",
    ),
    in_cluster(
        "commit-acked-before-replicated",
        20,
        &["commit-before-durable"],
        "a group's commit is answered when the coordinator alone has it",
    ),
    in_cluster(
        "unanswered-entry-counts",
        50,
        &["entry-committed-before-durable"],
        "an entry that a voter has not answered counts as on its disk (openraft 1802)",
    ),
    in_cluster(
        "placement-by-memory",
        20,
        &["metadata-differs"],
        "where new partitions go depends on what is not in the log",
    ),
    in_cluster(
        "cut-off-leader-goes-on",
        10,
        &["stale-leader-commits", "acknowledged-before-durable"],
        "a leader that hears of nobody acknowledges alone (Redpanda 5090)",
    ),
    in_scenario(
        "crashed-last-member-leads-again",
        "kip-966",
        40,
        &["incomplete-leader", "lost-record"],
        "the last member in sync is elected again after a crash that took what it had not flushed (KIP-966)",
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What stands between backticks.
    fn quoted(cell: &str) -> BTreeSet<&str> {
        cell.split('`').skip(1).step_by(2).collect()
    }

    #[test]
    fn every_bug_has_a_name_of_its_own_and_a_check_that_is_there_for_it() {
        let names: BTreeSet<_> = PLANTS.iter().map(|plant| plant.name).collect();
        assert_eq!(names.len(), PLANTS.len());
        for plant in PLANTS {
            assert!(!plant.caught_by.is_empty(), "{}", plant.name);
            // openraft's assertion is what sees this one; see its row.
            if plant.name == "reverted-voter-stays-behind" {
                continue;
            }
            // These say that something is wrong, and not what.
            for vague in ["panic", "process-died", "runs-for-ever", "error-line"] {
                assert!(!plant.caught_by.contains(&vague), "{}: {vague}", plant.name);
            }
        }
    }

    #[test]
    fn the_readme_has_the_requirement_as_it_is_planted() {
        let (_, section) = include_str!("../README.md")
            .split_once("## Planted bugs")
            .expect("the section");
        let (section, _) = section.split_once("\n## ").expect("another section");
        let mut rows = 0;
        for row in section.lines().filter(|line| line.starts_with("| ")).skip(1) {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let (number, names, checks) = (cells[1], quoted(cells[3]), quoted(cells[4]));
            rows += number.split(',').count();
            let planted: Vec<_> = PLANTS.iter().filter(|plant| names.contains(plant.name)).collect();
            assert_eq!(planted.len(), names.len(), "{row}");
            let caught: BTreeSet<_> = planted
                .iter()
                .flat_map(|plant| plant.caught_by)
                .copied()
                .collect();
            assert_eq!(caught, checks, "{row}");
        }
        assert_eq!(rows, 28);
    }

    #[test]
    fn the_readme_has_each_bug_beside_the_scenario_that_finds_it() {
        let (_, section) = include_str!("../README.md")
            .split_once("## Histories that broke others")
            .expect("the section");
        let mut in_table = BTreeSet::new();
        for row in section.lines().filter(|line| line.starts_with("| `")) {
            let cells: Vec<_> = row.split('|').map(str::trim).collect();
            let (scenario, bugs) = (
                cells[1].trim_matches('`'),
                cells.get(3).copied().unwrap_or_default(),
            );
            for name in quoted(bugs) {
                let Some(plant) = PLANTS.iter().find(|plant| plant.name == name) else {
                    continue;
                };
                assert!(
                    plant.scenario == Some(scenario) || bugs.contains("any seed finds"),
                    "{row}"
                );
                in_table.insert(name);
            }
        }
        assert!(in_table.len() > 20, "{in_table:?}");
    }
}
