//! The binary as `make test` calls it.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

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

/// A file of one test, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("skerry-sim-test-{}-{name}", std::process::id())))
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }

    #[expect(clippy::disallowed_methods, reason = "it reads what the program has written")]
    fn text(&self) -> String {
        std::fs::read_to_string(&self.0).expect("the program has written it")
    }

    #[expect(clippy::disallowed_methods, reason = "it writes what the program reads")]
    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("it can be written");
    }
}

impl Drop for Scratch {
    #[expect(clippy::disallowed_methods, reason = "it is the program's file")]
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
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

#[test]
fn a_replay_writes_what_check_reads_and_a_timeline() {
    let (history, timeline) = (Scratch::new("replay.jsonl"), Scratch::new("replay.html"));
    let output = sim(&[
        "replay",
        "2",
        "--history",
        history.path(),
        "--html",
        timeline.path(),
    ]);
    assert!(output.status.success(), "{}", text(&output));
    let page = timeline.text();
    assert!(page.contains("\"is\":\"fault\"") && page.ends_with("</html>\n"));
    let output = sim(&["check", history.path()]);
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains(" 0 broken promises"), "{}", text(&output));
}

#[test]
fn faults_that_are_kept_keep_their_numbers() {
    let output = sim(&["replay", "3", "--keep", "1,2"]);
    let told = text(&output);
    assert!(
        told.contains("fault 1  at") && told.contains("fault 2  at"),
        "{told}"
    );
    assert!(
        !told.contains("fault 0  at") && !told.contains("fault 3  at"),
        "{told}"
    );
}

/// Whoever waits no longer for a simulation, or is killed itself, lets go of its standard input.
#[test]
fn a_simulation_that_nobody_holds_says_its_last_words_and_leaves_nothing() {
    let trace = Scratch::new("held.trace");
    let mut child = Command::new(env!("CARGO_BIN_EXE_skerry-sim"))
        .args(["one", "1", "--nodes", "3", "--seconds", "3600", "--is-held"])
        .args(["--trace", trace.path()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the simulator starts");
    let left_over = || left_over_of(child.id());
    // A minute is longer than any machine needs to begin; a trace is written in pieces of a megabyte.
    for _ in 0..6_000 {
        if left_over() > 0 {
            break;
        }
        pause();
    }
    let began = left_over();
    drop(child.stdin.take());
    let mut words = String::new();
    let mut errors = child.stderr.take().expect("it is piped");
    errors.read_to_string(&mut words).expect("UTF-8");
    let status = child.wait().expect("it ends");
    assert!(began > 0 && !status.success(), "{began}, {status}: {words}");
    let mut lines = words.lines().filter_map(|line| line.strip_prefix("| "));
    let line = lines.next().expect("the lines of its trace are marked");
    assert!(trace.text().contains(line), "{line}");
    assert_eq!(left_over_of(child.id()), 0);
}

#[expect(
    clippy::disallowed_methods,
    reason = "it waits for a process of the real world"
)]
fn pause() {
    std::thread::sleep(std::time::Duration::from_millis(10));
}

/// How many directories of this process there are in memory.
#[expect(clippy::disallowed_methods, reason = "it looks for what the program has left")]
fn left_over_of(pid: u32) -> usize {
    let dirs = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let of = format!("skerry-sim-{pid}-");
    dirs.filter(|entry| entry.file_name().to_string_lossy().starts_with(&of))
        .count()
}

/// How many milliseconds after the quorum's leader has stopped at three seconds somebody leads the next term, where all clocks go at
/// this rate.
fn succession_ms(ppm: i64) -> u64 {
    let file = |extension: &str| Scratch::new(&format!("rate{ppm}.{extension}"));
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
    scenario.write(&history.to_string());
    let output = sim(&["scenario", "run", scenario.path(), "--html", page.path()]);
    assert!(output.status.success(), "{}", text(&output));
    let page = page.text();
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
    let small = Scratch::new("small.json");
    let file = small.path();
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
    // Without --out the standard output is the scenario, and nothing else.
    let output = sim(&[&["shrink", file, "--seed", "3"][..], &bug].concat());
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    let left: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    assert!(left["faults"].is_array(), "{left}");
    let output = sim(&["shrink", file]);
    assert!(
        text(&output).contains("there is nothing to shrink"),
        "{}",
        text(&output)
    );
    assert!(output.status.success() && output.stdout.is_empty());
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
    for (wrong, words) in [
        (
            &["run", "--seeds", "9..1"][..],
            &["--seeds", "9..1", "A..B is expected"][..],
        ),
        (
            &["run", "--seeds", "1..9", "--jobs", "0"],
            &["--jobs", "0 is not in 1.."],
        ),
        (&["plant", "--all", "--jobs", "0"], &["--jobs", "0 is not in 1.."]),
        (
            &["run", "--seeds", "1..2", "--plant", "ack-befor-fsync"],
            &["--plant", "ack-befor-fsync", "`skerry-sim plant --list`"],
        ),
        (&["check", "/nowhere"], &["cannot read /nowhere"]),
        (
            &["scenario", "run", "nothing"],
            &["\"nothing\"", "`skerry-sim scenario list`"],
        ),
        (
            &["plant", "nothing"],
            &["\"nothing\"", "`skerry-sim plant --list`"],
        ),
        (
            &["replay", "3", "--keep", "1,999"],
            &["--keep 999", "there are", "faults"],
        ),
        (
            &["replay", "1", "--trace", "/nowhere/t"],
            &["cannot write /nowhere/t"],
        ),
        (
            &["replay", "1", "--history", "/nowhere/h"],
            &["cannot write /nowhere/h"],
        ),
        (
            &["scenario", "run", "kip-101-a", "--html", "/nowhere/p"],
            &["cannot write /nowhere/p"],
        ),
        (
            &["shrink", "1", "--out", "/nowhere/s"],
            &["cannot write /nowhere/s"],
        ),
        (&["shrink", "1", "--seed", "2"], &["--seed 2", "only scenarios"]),
    ] {
        let output = sim(wrong);
        let told = text(&output);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {told}");
        for word in words {
            assert!(told.contains(word), "{wrong:?}, {word:?}: {told}");
        }
    }
}

#[test]
fn a_scenario_that_cannot_be_run_is_told_by_its_field() {
    let file = Scratch::new("wrong.json");
    let shown = text(&sim(&["scenario", "show", "kip-101-a"]));
    for (right, wrong, words) in [
        (
            "\"host\": \"client-a\"",
            "\"host\": \"client-x\"",
            "\"client-x\": one of client-a",
        ),
        (
            "\"tick_ms\": 1",
            "\"tick_ms\": 0",
            "\"tick_ms\": 0: 1 to 2 is expected",
        ),
    ] {
        assert!(shown.contains(right), "{shown}");
        file.write(&shown.replace(right, wrong));
        let output = sim(&["scenario", "run", file.path()]);
        let told = text(&output);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(file.path()) && told.contains(words), "{told}");
    }
}
