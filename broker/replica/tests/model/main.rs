//! A small world of brokers, run through many histories: the real rules of leaders and followers, the real metadata
//! state, logs that forget what was not flushed, messages that come late or never, brokers that pause and crash. After
//! every step the invariants of SIMULATION.md hold, and at last everything converges.
//!
//! `SKERRY_CASES` runs more histories, `SKERRY_SEED` one of them with its trace.

mod act;
mod ghost;
mod heal;
mod node;
mod propose;
mod rng;
mod stream;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;

use ghost::{Checked, Ghost, Violation};
use world::{Model, Weights, World};

const CASES: u64 = 300;
const STEPS: usize = 3_000;
const HISTORIES: &str = "every_history_keeps_the_invariants";

/// Runs one history; the trace comes with its failure.
fn run(seed: u64) -> Result<Model, (Violation, Vec<String>)> {
    let mut world = World::new(seed);
    let weights = Weights::draw(&mut world.rng);
    let mut model = Model {
        world,
        ghost: Ghost::default(),
        acknowledged_under_faults: 0,
    };
    let checked = catch_unwind(AssertUnwindSafe(|| -> Checked {
        for _ in 0..STEPS {
            let action = weights.pick(&mut model.world.rng);
            model.act(action)?;
        }
        model.heal()
    }));
    let violation = match checked {
        Ok(Ok(())) => return Ok(model),
        Ok(Err(violation)) => violation,
        Err(panic) => Violation {
            invariant: "assertion",
            what: panic
                .downcast_ref::<String>()
                .cloned()
                .unwrap_or_else(|| "a panic without words".to_owned()),
        },
    };
    Err((violation, model.world.trace))
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable)
        .ok()
        .map(|value| value.parse().expect("a number"))
}

#[test]
fn every_history_keeps_the_invariants() {
    if let Ok(bug) = std::env::var("SKERRY_PLANT") {
        skerry_types::plant(&bug);
    }
    let seeds = match number("SKERRY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SKERRY_CASES").unwrap_or(CASES),
    };
    let (mut acknowledged, mut elections, mut cuts) = (0, 0, 0);
    for seed in seeds {
        match run(seed) {
            Ok(model) => {
                acknowledged += model.acknowledged_under_faults;
                elections += u64::try_from(model.world.partition().leader_epoch.get()).unwrap();
                cuts += model
                    .world
                    .trace
                    .iter()
                    .filter(|line| line.contains("cuts its log"))
                    .count();
            }
            Err((violation, trace)) => {
                for line in trace {
                    eprintln!("{line}");
                }
                panic!("seed {seed}: {} broken: {}", violation.invariant, violation.what);
            }
        }
    }
    // A world in which nothing happens keeps every invariant.
    println!("{acknowledged} acknowledged, {elections} elections, {cuts} cuts");
    assert!(acknowledged > 0 && elections > 0);
}

/// The bug is found within so many histories, as one of these invariants.
fn found(bug: &str, cases: u64, invariants: &[&str]) {
    if !cfg!(debug_assertions) {
        return;
    }
    let this = std::env::current_exe().expect("the path of this test");
    let output = Command::new(this)
        .args(["--exact", HISTORIES, "--nocapture", "--test-threads=1"])
        .env("SKERRY_PLANT", bug)
        .env("SKERRY_CASES", cases.to_string())
        .env_remove("SKERRY_SEED")
        .output()
        .expect("this test runs once more");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success(),
        "{bug} was not found in {cases} histories"
    );
    let verdict = told
        .lines()
        .find(|line| line.contains(" broken: "))
        .expect("a verdict");
    println!("{bug}: {verdict}");
    let expected = invariants
        .iter()
        .any(|invariant| verdict.contains(&format!("{invariant} broken")));
    assert!(expected, "{bug} was taken for something else: {verdict}");
}

#[test]
fn a_high_watermark_below_min_in_sync_is_found() {
    found("high-watermark-below-min-in-sync", 50, &["I7", "I5"]);
}

#[test]
fn a_log_cut_at_the_high_watermark_is_found() {
    found("truncate-to-high-watermark", 300, &["I11", "I5"]);
}

#[test]
fn logs_compared_by_offset_alone_are_found() {
    found("diverges-by-offset-alone", 300, &["I2", "I5", "I7", "I15"]);
}

#[test]
fn a_report_of_another_epoch_that_counts_is_found() {
    found("follower-epoch-unchecked", 100, &["I7", "I17", "I2", "I5"]);
}

#[test]
fn a_stale_leader_that_acknowledges_alone_is_found() {
    found("removal-counts-before-commit", 100, &["I9", "I6", "I5", "I7"]);
}

#[test]
fn a_member_that_joins_before_the_epoch_s_start_is_found() {
    found("joins-before-epoch-start", 100, &["I15", "I5"]);
}
