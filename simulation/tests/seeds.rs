//! The binary as `make test` calls it.

use std::process::{Command, Output};

/// Seeds within which a scenario comes to what it shows.
const SEEDS_TO_A_MOMENT: u64 = 12;

fn sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_skerry-sim"))
        .args(arguments)
        .output()
        .expect("the simulator starts")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_few_seeds_keep_every_promise() {
    let output = sim(&["run", "--seeds", "1..6"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("6 seeds, 0 broken"), "{}", text(&output));
}

#[test]
fn a_seed_gives_one_history() {
    let output = sim(&["determinism", "--seeds", "3..4"]);
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn a_planted_bug_is_found() {
    let output = sim(&["plant", "ack-before-fsync"]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(
        text(&output).contains("acknowledged-before-durable"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_failure_says_how_to_see_it_again_and_ends_with_1() {
    let output = sim(&["replay", "1", "--plant", "ack-before-fsync"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("skerry-sim replay 1 --plant ack-before-fsync"),
        "{}",
        text(&output)
    );
}

#[test]
fn a_failure_of_a_cluster_has_a_column_for_each_node() {
    let bug = ["--nodes", "3", "--plant", "fenced-broker-stays-in-sync"];
    let output = sim(&[&["run", "--seeds", "5..5"][..], &bug].concat());
    let told = text(&output);
    assert_eq!(output.status.code(), Some(1), "{told}");
    for part in [
        "BREAKS A PROMISE at ",
        "seconds  n1                 n2                 n3",
        "BREAKS wrong-in-sync-set",
        "skerry-sim replay 5 --nodes 3 --plant fenced-broker-stays-in-sync --trace",
        "skerry-sim shrink 5 --nodes 3 --plant fenced-broker-stays-in-sync",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
}

#[expect(clippy::disallowed_methods, reason = "it reads what the program has written")]
#[test]
fn a_replay_writes_what_check_reads_and_a_timeline() {
    let dir = std::env::temp_dir();
    let id = std::process::id();
    let history = dir.join(format!("skerry-sim-test-{id}.jsonl"));
    let timeline = dir.join(format!("skerry-sim-test-{id}.html"));
    let (history, timeline) = (
        history.to_str().expect("UTF-8"),
        timeline.to_str().expect("UTF-8"),
    );
    let output = sim(&["replay", "2", "--history", history, "--html", timeline]);
    assert!(output.status.success(), "{}", text(&output));
    let page = std::fs::read_to_string(timeline).expect("the timeline");
    assert!(page.contains("\"is\":\"fault\"") && page.ends_with("</html>\n"));
    let output = sim(&["check", history]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains(" 0 broken promises"), "{}", text(&output));
}

/// How many milliseconds after the quorum's leader has stopped at three seconds somebody leads the next term, where all clocks go at
/// this rate.
#[expect(
    clippy::disallowed_methods,
    reason = "it reads and writes the program's files"
)]
fn succession_ms(ppm: i64) -> u64 {
    let file = |extension: &str| {
        let name = format!("skerry-sim-test-{}-rate{ppm}.{extension}", std::process::id());
        let path = std::env::temp_dir().join(name);
        path.to_str().expect("UTF-8").to_owned()
    };
    let (scenario, page) = (file("json"), file("html"));
    let history = serde_json::json!({
        "seed": 1, "nodes": 3, "replication": 3, "min_in_sync": 2, "faults_ms": 5_000, "tick_ms": 1, "latency_ms": [1, 10],
        "cold_read_one_in": 0, "ends_with_power_cut": false,
        "workload": {"workers": [{"host": "client-a", "kind": "setup"}]},
        "faults": [
            {"at_ms": 1_500, "on": "all", "fault": {"clock-drift": {"ppm": ppm}}},
            {"at_ms": 3_000, "on": "controller", "fault": {"pause": {"for_ms": 2_000}}},
        ],
    });
    std::fs::write(&scenario, history.to_string()).expect("the scenario");
    let output = sim(&["scenario", "run", &scenario, "--html", &page]);
    assert!(output.status.success(), "{}", text(&output));
    let page = std::fs::read_to_string(page).expect("the timeline");
    let (before, _) = page
        .match_indices(",\"is\":\"quorum\",\"leader\":")
        .map(|(at, what)| (&page[..at], &page[at + what.len()..]))
        .find(|(_, rest)| !rest.starts_with("null") && rest[1..].starts_with(",\"term\":2}"))
        .expect("somebody leads in term 2");
    let (_, micros) = before.rsplit_once(':').expect("a moment begins with its time");
    micros.parse::<u64>().expect("a number") / 1_000 - 3_000
}

#[test]
fn elections_go_by_the_clocks_of_the_voters() {
    let (slow, right, fast) = (succession_ms(-500_000), succession_ms(0), succession_ms(500_000));
    assert!(
        slow > right * 3 / 2 && right * 3 / 4 > fast,
        "{slow}, {right}, {fast}"
    );
}

#[test]
fn a_failure_is_made_small_and_can_be_run_again() {
    let small = std::env::temp_dir().join(format!("skerry-sim-test-{}.json", std::process::id()));
    let file = small.to_str().expect("UTF-8");
    let bug = ["--plant", "ack-before-fsync"];
    let output = sim(&[&["shrink", "3", "--out", file][..], &bug].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("acknowledged-before-durable needs 0 of"),
        "{}",
        text(&output)
    );
    let output = sim(&[&["scenario", "run", file][..], &bug].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(
        text(&output).contains("acknowledged-before-durable"),
        "{}",
        text(&output)
    );
    let output = sim(&["shrink", file]);
    assert!(
        text(&output).contains("there is nothing to shrink"),
        "{}",
        text(&output)
    );
    assert!(output.status.success());
}

#[test]
fn what_was_found_once_is_found_again() {
    for bug in [
        "full-disk-cut-not-synced",
        "topic-told-before-its-logs",
        "pipelined-batch-overtakes",
        "follower-begins-between-batches",
    ] {
        let output = sim(&["plant", bug]);
        assert!(output.status.success(), "{bug}: {}", text(&output));
    }
}

#[test]
fn every_scenario_keeps_every_promise() {
    let list = sim(&["scenario", "list"]);
    for line in text(&list).lines() {
        let name = line.split_whitespace().next().expect("a name");
        let output = sim(&["scenario", "run", name]);
        // Times that have moved may make it miss its moment: then another seed meets it, and keeps every promise too.
        let shows = |output: &Output| {
            let misses = text(output).contains("does not come to");
            assert!(output.status.success() != misses, "{name}: {}", text(output));
            !misses
        };
        let mut others =
            (1..=SEEDS_TO_A_MOMENT).map(|seed| sim(&["scenario", "run", name, "--seed", &seed.to_string()]));
        assert!(
            shows(&output) || others.any(|output| shows(&output)),
            "no seed up to {SEEDS_TO_A_MOMENT} brings {name} to its moment: {}",
            text(&output)
        );
    }
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_skerry-sim"))
        .args(["scenario", "show", "1"])
        .stdout(writer)
        .output()
        .expect("the simulator starts");
    assert_eq!(output.status.code(), Some(141), "{}", text(&output));
    assert_eq!(text(&output), "");
}

#[test]
fn wrong_arguments_are_told() {
    for wrong in [
        &["run", "--seeds", "9..1"][..],
        &["check", "/nowhere"],
        &["scenario", "run", "nothing"],
        &["plant", "nothing"],
    ] {
        let output = sim(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", text(&output));
    }
}
