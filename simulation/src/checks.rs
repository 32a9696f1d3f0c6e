//! The checks, each with what shows that it sees what it is for: a check that nothing has ever broken may be one that
//! nothing can break.

/// What shows a check at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The unit test with a state that violates it.
    By(&'static str),
    /// It judges a whole run, and no state of it: that something does not come to an end, or is not served, however long somebody
    /// waits and however often it is tried again. The planted bug that it reports (`skerry-sim plant`).
    Planted(&'static str),
    /// Nothing does, for this reason.
    Nowhere(&'static str),
}

use Shown::{By, Nowhere, Planted};

/// All of them, by the places that make them.
pub const CHECKS: &[(&str, Shown)] = &[
    // What a client did and heard (`../checker`).
    ("malformed-history", By("a_history_that_cannot_be_is_refused")),
    ("lost-record", By("lost_write")),
    ("unseen-record", By("unseen")),
    ("last-value-lost", By("the_last_value_of_a_key_survives")),
    ("deleted-key-came-back", By("a_deleted_key_stays_deleted")),
    ("torn-batch", By("lost_write_of_a_batch_that_nobody_knows_of")),
    (
        "wrong-offset",
        By("a_record_elsewhere_than_told_is_reported_as_that"),
    ),
    ("inconsistent-offsets", By("inconsistent_offsets_of_two_readers")),
    ("phantom-record", By("a_record_of_another_partition")),
    ("duplicate-record", By("duplicate")),
    ("refused-but-written", By("g1a_the_record_of_a_send_that_failed")),
    ("read-before-sent", By("read_from_the_future")),
    ("order-of-a-producer", By("nonmonotonic_send")),
    ("order-in-real-time", By("a_send_lands_behind_what_was_known")),
    ("gap-in-the-log", By("gaps_and_skips_are_seen")),
    ("end-went-back", By("stale_ends")),
    ("deleted-records-back", By("what_was_deleted_does_not_come_back")),
    (
        "high-watermark-went-back",
        By("ends_and_watermarks_never_go_back"),
    ),
    ("skipped-in-a-poll", By("poll_skip")),
    ("nonmonotonic-poll", By("nonmonotonic_poll")),
    ("lost-commit", By("lost_commits")),
    ("phantom-commit", By("lost_commits")),
    ("zombie-commit", By("zombie_commits")),
    ("committed-unread", By("at_least_once_below_what_is_committed")),
    ("two-owners", By("a_partition_twice_in_a_generation")),
    ("lost-topic", By("topics_and_settings_stay")),
    ("topic-came-back", By("topics_and_settings_stay")),
    ("lost-setting", By("topics_and_settings_stay")),
    // What a client notices at once (`workload`).
    ("broken-answer", By("an_answer_that_cannot_be_read_is_noticed")),
    (
        "broken-records",
        By("records_that_are_not_what_was_written_are_not_served"),
    ),
    (
        "offset-for-time-differs",
        By("the_first_record_of_a_time_is_told"),
    ),
    ("refused-record", By("who_sends_in_order_is_not_refused")),
    ("zombie-producer", By("a_producer_whose_epoch_is_over_is_told_so")),
    ("zombie-sync", By("an_earlier_generation_is_given_nothing")),
    (
        "generation-differs",
        By("members_of_a_generation_hear_of_the_same_leader"),
    ),
    (
        "assignment-differs",
        By("members_are_given_what_their_leader_has_sent"),
    ),
    ("resurrected-record", By("nothing_of_a_former_life_is_read")),
    ("reborn-record-changed", By("nothing_of_a_former_life_is_read")),
    ("partitions-undone", By("partitions_that_were_acknowledged_stay")),
    ("not-serving", Planted("leader-not-counted-in-sync")),
    // What is promised at the moment of an answer (`oracle`).
    (
        "acknowledged-before-durable",
        By("what_is_acknowledged_is_on_enough_disks"),
    ),
    (
        "damaged-batch-taken",
        By("a_batch_that_was_damaged_on_its_way_is_not_taken"),
    ),
    ("served-before-durable", By("readers_see_what_is_durable")),
    ("watermark-beyond-durable", By("readers_see_what_is_durable")),
    (
        "commit-before-durable",
        By("a_commit_is_durable_before_it_is_answered"),
    ),
    ("metadata-without-brokers", By("metadata_names_brokers")),
    // The replicas of a partition (`invariants`).
    ("committed-changed", By("committed_records_stay_as_they_were")),
    ("committed-missing", By("a_replica_has_what_it_says_is_committed")),
    ("copies-differ", By("at_the_end_all_copies_are_the_same")),
    ("two-writers", By("one_writes_in_an_epoch")),
    (
        "incomplete-leader",
        By("a_leader_has_nothing_else_in_the_place_of_what_was_committed"),
    ),
    ("two-leaders", By("one_leads_in_an_epoch_and_has_everything")),
    ("incomplete-candidate", By("who_may_be_elected_has_everything")),
    (
        "member-not-counted",
        By("a_leader_waits_for_everybody_who_is_in_sync"),
    ),
    (
        "in-sync-set-differs",
        By("who_counts_is_in_sync_or_was_asked_for"),
    ),
    (
        "committed-by-too-few",
        By("enough_members_have_what_is_committed"),
    ),
    (
        "committed-past-a-member",
        By("enough_members_have_what_is_committed"),
    ),
    (
        "watermark-went-back",
        By("offsets_keep_their_order_and_do_not_go_back"),
    ),
    (
        "epoch-went-back",
        By("offsets_keep_their_order_and_do_not_go_back"),
    ),
    (
        "order-of-offsets",
        By("offsets_keep_their_order_and_do_not_go_back"),
    ),
    ("log-start-moved", By("what_nobody_deletes_stays")),
    ("committed-before-durable", By("what_is_committed_is_durable")),
    (
        "committed-truncated",
        By("who_may_be_elected_cuts_nothing_that_is_committed"),
    ),
    ("wrong-epochs", By("a_log_knows_its_epochs")),
    ("joined-too-early", By("who_joins_has_what_the_leader_began_with")),
    (
        "acknowledged-uncommitted",
        By("what_is_acknowledged_is_committed_and_no_successor_began_before_it"),
    ),
    (
        "served-uncommitted",
        By("readers_are_told_of_what_is_committed_and_no_more"),
    ),
    (
        "stale-leader-acknowledges",
        By("what_is_acknowledged_is_committed_and_no_successor_began_before_it"),
    ),
    (
        "stale-leader-commits",
        By("a_leader_that_was_replaced_commits_nothing_new"),
    ),
    // One log.
    ("offsets-not-contiguous", By("each_offset_of_a_log_is_there_once")),
    ("sequences-not-contiguous", By("sequences_follow_each_other")),
    (
        "wrong-producer-state",
        By("a_log_remembers_of_its_producers_what_they_wrote"),
    ),
    ("index-differs", By("index_entries_lead_to_their_batches")),
    (
        "checkpoint-beyond-the-log",
        By("a_checkpoint_that_says_more_than_the_log_is_noticed"),
    ),
    ("does-not-recover", By("a_log_that_does_not_open_is_noticed")),
    (
        "recovery-loses-durable",
        By("a_recovery_that_lacks_what_was_durable_is_noticed"),
    ),
    (
        "recovery-not-durable",
        By("a_recovery_that_was_not_durable_is_noticed"),
    ),
    // The groups' logs.
    (
        "broken-group-record",
        By("a_generation_that_cannot_be_read_is_noticed"),
    ),
    (
        "assigned-not-subscribed",
        By("a_generation_gives_away_what_its_members_subscribe_to"),
    ),
    (
        "generation-went-back",
        By("the_log_of_a_group_gives_a_partition_to_one_member"),
    ),
    (
        "two-coordinators",
        By("the_log_of_groups_has_one_coordinator_after_the_other"),
    ),
    ("wrong-commit", By("groups_are_told_what_their_logs_say")),
    // The metadata and its quorum.
    (
        "wrong-in-sync-set",
        By("an_in_sync_set_is_of_unfenced_replicas_and_their_leader"),
    ),
    (
        "epochs-must-grow",
        By("epochs_of_partitions_grow_with_every_change"),
    ),
    ("broker-epoch-went-back", By("epochs_of_brokers_grow")),
    (
        "broker-epoch-reused",
        By("an_epoch_of_a_broker_belongs_to_one_registration"),
    ),
    (
        "old-registration-counts",
        By("what_a_broker_was_ends_with_its_registration"),
    ),
    (
        "old-registration-joins",
        By("who_joins_does_so_by_its_last_registration"),
    ),
    (
        "lost-copy-counts",
        By("a_copy_that_may_lack_records_does_not_count"),
    ),
    (
        "number-given-out-twice",
        By("a_recovered_quorum_gives_out_nothing_twice"),
    ),
    ("metadata-differs", By("the_same_commands_make_the_same_metadata")),
    (
        "snapshot-differs",
        By("a_snapshot_that_says_something_else_is_noticed"),
    ),
    (
        "two-controllers",
        By("one_leads_the_quorum_in_a_term_and_has_everything"),
    ),
    (
        "incomplete-controller",
        By("a_controller_has_nothing_else_in_the_place_of_what_was_committed"),
    ),
    (
        "vote-before-durable",
        By("votes_and_entries_are_durable_before_they_count"),
    ),
    (
        "entry-committed-before-durable",
        By("an_entry_is_on_the_disk_of_who_has_that_one_and_no_other"),
    ),
    (
        "quorum-went-back",
        By("what_a_node_knows_of_the_quorum_never_becomes_less"),
    ),
    (
        "quorum-promises-lost",
        By("a_start_that_finds_less_than_was_synced_is_noticed"),
    ),
    (
        "order-of-the-quorum",
        By("what_is_dropped_is_in_the_snapshot_and_that_is_applied"),
    ),
    (
        "raft-logs-differ",
        By("two_logs_of_the_quorum_with_the_same_entry_are_the_same_before_it"),
    ),
    (
        "setting-made-again",
        By("a_setting_that_was_made_is_not_made_once_more"),
    ),
    ("needless-term", By("who_hears_nobody_begins_no_term")),
    ("lost-vote-counts", By("who_has_lost_its_disk_has_no_vote")),
    // Processes.
    (
        "panic",
        Nowhere("whatever any of the broker's assertions says, where a step of the simulation is made"),
    ),
    (
        "node-stopped",
        By("a_process_ends_only_where_its_disk_has_made_it"),
    ),
    (
        "node-does-not-start",
        By("a_process_ends_only_where_its_disk_has_made_it"),
    ),
    (
        "wrong-disk-taken",
        By("nobody_serves_with_the_disk_of_another_node"),
    ),
    ("does-not-stop", Planted("clients-hold-up-the-stop")),
    ("leak", By("a_leak_is_more_than_new_processes_hold")),
    ("retry-storm", By("a_storm_is_more_than_pauses_allow")),
    ("reserve-written", By("the_reserve_is_for_the_metadata")),
    ("acts-while-still", By("a_process_that_stands_still_does_nothing")),
    (
        "error-line",
        By("a_line_that_no_disk_explains_is_unexpected_whatever_the_disks_do"),
    ),
    // What must come true.
    (
        "core-does-not-serve",
        By("a_core_that_lacks_something_does_not_serve"),
    ),
    (
        "rot-not-found",
        By("what_has_rotted_and_was_not_found_is_noticed"),
    ),
    ("not-whole", By("what_a_healed_cluster_must_have_is_missed")),
    ("stuck", Planted("client-without-deadline")),
    ("silent-loss", By("what_is_left_of_a_partition_is_not_lost")),
    (
        "offline-not-told",
        By("a_partition_that_nobody_leads_is_told_of_and_comes_back"),
    ),
    (
        "not-recovered",
        By("a_partition_that_nobody_leads_is_told_of_and_comes_back"),
    ),
];

/// There is such a check.
#[must_use]
pub fn is_one(name: &str) -> bool {
    CHECKS.iter().any(|(check, _)| *check == name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "reads the source of the workspace")]

    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::goals;
    use crate::plants::PLANTS;

    /// Names in the same spelling, in the places that make checks: a host, a topic, a kind of fault.
    const OTHERS: [&str; 4] = ["core-probe", "churn-reborn", "wiped-disk", "metadata-rot"];

    fn sources(dir: &Path, found: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }

    fn all_sources() -> Vec<(PathBuf, String)> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found = Vec::new();
        for dir in ["src", "../checker/src"] {
            sources(&root.join(dir), &mut found);
        }
        found
    }

    /// The literals that are spelt as checks are: words with dashes between them.
    fn names_in(text: &str) -> BTreeSet<&str> {
        let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
        let literals = text.split('"').skip(1);
        let names = literals.filter(|literal| literal.contains('-') && literal.split('-').all(is_word));
        names.collect()
    }

    #[test]
    fn every_check_of_the_code_is_in_the_table() {
        let mut code = BTreeSet::new();
        for (path, text) in all_sources() {
            let makes_checks = ["invariants", "oracle", "world", "workload"]
                .iter()
                .any(|dir| path.components().any(|part| part.as_os_str() == *dir))
                || path.components().any(|part| part.as_os_str() == "checker")
                || path.ends_with("complaints.rs");
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let is_test = name.starts_with("tests") || name.starts_with("anomalies") || name == "history.rs";
            if makes_checks && !is_test {
                let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
                code.extend(names_in(product).into_iter().map(str::to_owned));
            }
        }
        let is_planted = |name: &str| PLANTS.iter().any(|planted| planted.name == name);
        code.retain(|name| goals::find(name).is_none() && !is_planted(name) && !OTHERS.contains(&&**name));
        let missing: Vec<_> = code.iter().filter(|name| !is_one(name)).collect();
        assert!(
            missing.is_empty(),
            "what breaks {missing:?}? Write a test with a state that does, and a row for it"
        );
        let words = ["panic", "leak", "stuck"];
        let gone = CHECKS
            .iter()
            .filter(|(check, _)| !code.contains(*check) && !words.contains(check));
        assert_eq!(gone.collect::<Vec<_>>(), Vec::<&(&str, Shown)>::new());
    }

    /// The body of that test, up to the brace in the column in which it begins.
    fn body_of<'a>(test: &str, text: &'a str) -> Option<&'a str> {
        let (before, rest) = text.split_once(&format!("fn {test}() {{\n"))?;
        let indent = before.len() - before.rfind('\n').map_or(0, |at| at + 1);
        let (body, _) = rest.split_once(&format!("\n{}}}\n", " ".repeat(indent)))?;
        before.trim_end().ends_with("#[test]").then_some(body)
    }

    #[test]
    fn what_shows_a_check_is_there_and_names_it() {
        let sources = all_sources();
        for (check, shown) in CHECKS {
            match shown {
                By(test) => {
                    let mut bodies = sources.iter().filter_map(|(_, text)| body_of(test, text));
                    let quoted = format!("\"{check}\"");
                    assert!(
                        bodies.any(|body| body.contains(&quoted)),
                        "no test {test} has a state that breaks {check}"
                    );
                }
                // One that another check may report as well would not show that this one acts.
                Planted(bug) => {
                    let planted = PLANTS.iter().find(|planted| planted.name == *bug);
                    let caught_by = planted.map(|planted| planted.caught_by);
                    assert_eq!(caught_by, Some(&[*check][..]), "{check}, by {bug}");
                }
                Nowhere(why) => assert!(!why.is_empty()),
            }
        }
    }
}
