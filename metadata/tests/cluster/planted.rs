//! Bugs that are planted, and the tests that must notice. A bug is planted for the life of a process: each has its own.

use std::process::Command;

const VARIABLE: &str = "SKERRY_TEST_PLANT";

/// Plants what the parent process asked for.
pub fn plant_from_environment() {
    if let Ok(name) = std::env::var(VARIABLE) {
        skerry_types::plant(&name);
    }
}

/// Runs `test` of this program with the bug `name`.
fn notices(name: &str, test: &str) -> bool {
    let program = std::env::current_exe().unwrap();
    let output = Command::new(program)
        .args(["--exact", test])
        .env(VARIABLE, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("running 1 test"), "{text}");
    !output.status.success()
}

#[test]
fn elections_without_pre_vote_are_noticed() {
    assert!(notices(
        "raft-without-pre-vote",
        "links::a_node_that_comes_back_does_not_disturb_the_term"
    ));
}

#[test]
fn entries_acknowledged_before_they_are_durable_are_noticed() {
    assert!(notices(
        "raft-entry-acked-before-sync",
        "planted::what_was_answered_survives_the_loss_of_all_power"
    ));
}

/// Planted bug 2, its half about entries: the half about votes is in the store's own test.
#[tokio::test]
async fn what_was_answered_survives_the_loss_of_all_power() {
    use crate::world::{World, is_created, place_for_topics, topic};
    plant_from_environment();
    let mut world = World::of_voters(3).await;
    place_for_topics(&world).await;
    for round in 0..3 {
        let name = format!("p{round}");
        assert!(is_created(&world.propose(1, topic(&name)).await));
        for id in 1..=3 {
            world.kill(id).await;
        }
        for id in 1..=3 {
            world.cut_power(id).await;
            world.start(id).await;
        }
        let any = world.leader().await;
        let image = world
            .on(any, |quorum| async move { quorum.read().await })
            .await
            .unwrap();
        assert!(image.topic(&name).is_some(), "{name} was answered");
    }
}
