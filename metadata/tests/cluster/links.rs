//! Links that are cut: who leads, who may answer a read.

use std::time::Duration;

use skerry_types::BrokerId;

use crate::world::{World, is_created, place_for_topics, topic, until};

/// A node that hears nothing for long, and then everything again, changes nothing (planted bug 26: without pre-vote it
/// comes back with a higher term, and the leader steps down).
#[tokio::test]
async fn a_node_that_comes_back_does_not_disturb_the_term() {
    crate::planted::plant_from_environment();
    let world = World::of_voters(3).await;
    let leader = world.leader().await;
    let away = world.follower().await;
    let before = world.node(leader).status();
    for cut in ["both ways", "one way"] {
        for other in (1..=3).filter(|id| *id != away) {
            if cut == "both ways" {
                world.links.cut(away, other);
            } else if other == leader {
                // It does not hear the leader, and everybody hears it.
                world.links.cut_one_way(leader, away);
            }
        }
        // Many election timeouts.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        world.links.heal();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        let after = world.node(leader).status();
        assert_eq!((after.term, after.leader), (before.term, before.leader), "{cut}");
        until("it follows again", || {
            let status = world.node(away).status();
            (status.term, status.leader) == (before.term, before.leader)
        })
        .await;
    }
}

/// A leader behind a cut link must not answer a read from what it has: somebody else may decide meanwhile.
#[tokio::test]
async fn a_leader_that_was_cut_off_answers_no_read_and_decides_nothing() {
    let world = World::of_voters(3).await;
    place_for_topics(&world).await;
    let old = world.leader().await;
    world.propose(old, topic("before")).await;
    for other in (1..=3).filter(|id| *id != old) {
        world.links.cut(old, other);
    }
    let lost = world.spawn(old, |quorum| async move { quorum.propose(topic("lost")).await });
    // The others elect, and decide.
    let other = (1..=3).find(|id| *id != old).unwrap();
    assert!(is_created(&world.propose(other, topic("after")).await));
    let new = world.node(other).status().leader.map(BrokerId::get);
    assert_ne!(new, Some(old));
    // The old leader still believes in itself, and knows better than to say so.
    assert_eq!(world.node(old).status().leader, Some(BrokerId(old)));
    assert!(world.node(old).image().topic("after").is_none());
    let read = world.spawn(old, |quorum| async move { quorum.read().await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(
        !read.is_finished(),
        "{:?}",
        read.await.map(|image| image.map(|image| image.topic_count()))
    );
    world.links.heal();
    let image = read.await.unwrap().unwrap();
    assert!(image.topic("after").is_some());
    // What was proposed at the old leader is decided now, by the new one.
    assert!(is_created(&lost.await.unwrap().unwrap()));
    world.images_agree().await;
}

/// Whatever was answered to anybody is in every read that begins later, whoever leads.
#[tokio::test]
async fn a_read_has_every_write_that_was_answered_before() {
    let mut world = World::of_voters(3).await;
    place_for_topics(&world).await;
    for round in 0..24 {
        let name = format!("w{round}");
        let writer = 1 + round % 3;
        match round % 6 {
            // The leadership has just moved, or is about to.
            2 => {
                let leader = world.leader().await;
                let heir = world.follower().await;
                // It goes on beside what follows.
                drop(world.spawn(leader, move |quorum| async move {
                    quorum.transfer_leader(BrokerId(heir)).await
                }));
            }
            5 => {
                let leader = world.leader().await;
                world.stop(leader).await;
                world.start(leader).await;
            }
            _ => {}
        }
        let made = world.propose(writer, topic(&name)).await;
        assert!(is_created(&made), "{made:?}");
        for id in 1..=3 {
            let image = world
                .on(id, |quorum| async move { quorum.read().await })
                .await
                .unwrap();
            assert!(
                image.topic(&name).is_some(),
                "round {round}: node {id} misses {name}"
            );
        }
    }
}
