//! Nodes that were away for long.

use skerry_metadata::Command;

use crate::world::{World, place_for_topics, topic, until};

#[tokio::test]
async fn a_node_that_was_away_comes_back_through_a_snapshot_of_many_pieces() {
    let mut world = World::new(3, 4);
    world.snapshot_every_entries = 60;
    for id in 1..=3 {
        world.start(id).await;
    }
    place_for_topics(&world).await;
    let away = world.follower().await;
    let end = world.node(away).status().last_log_index;
    world.kill(away).await;
    let leader = world.leader().await;
    let padding = "x".repeat(8_000);
    for number in 0..200 {
        let mut command = topic(&format!("t{number}"));
        if let Command::CreateTopic(topic) = &mut command {
            topic.configs = vec![("padding".into(), padding.as_str().into())];
        }
        world.propose(leader, command).await;
    }
    until("the log that it misses is gone", || {
        world.node(leader).status().purged_index > end
    })
    .await;
    let bytes = world.node(leader).image().encode().len();
    assert!(bytes > 5 * (256 << 10), "{bytes} bytes: several pieces");
    world.start(away).await;
    // And one that was never there.
    world.start(4).await;
    for id in [away, 4] {
        until("it has everything", || {
            world.node(id).image().topic("t199").is_some()
        })
        .await;
        assert!(world.node(id).status().snapshot_index > end);
    }
    world.images_agree().await;
    // What came as a snapshot is durable.
    world.kill(4).await;
    world.cut_power(4).await;
    world.start(4).await;
    assert!(world.node(4).image().topic("t0").is_some());
    world.images_agree().await;
}
