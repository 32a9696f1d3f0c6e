//! Members that come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use skerry_metadata::{ChangeRefused, MembershipError, Quorum, Role};
use skerry_types::BrokerId;

use crate::world::{World, is_created, place_for_topics, topic, until};

async fn add(world: &World, through: i32, id: i32) {
    // A learner that was added a moment ago is refused until it has caught up.
    for _ in 0..3_000 {
        let added = world
            .on(through, move |quorum| async move {
                quorum.add_voter(BrokerId(id)).await
            })
            .await;
        match added {
            Err(MembershipError::Refused(
                ChangeRefused::UnknownNode(_) | ChangeRefused::NotCaughtUp { .. } | ChangeRefused::InProgress,
            )) => tokio::time::sleep(Duration::from_millis(10)).await,
            added => return added.unwrap(),
        }
    }
    panic!("node {id} never caught up");
}

/// The change before this one may still be on its way through the log; and an answer may be lost, and the question asked
/// again.
async fn remove(world: &World, through: i32, id: i32) {
    for _ in 0..1_000 {
        let removed = world
            .on(through, move |quorum| async move {
                quorum.remove_voter(BrokerId(id)).await
            })
            .await;
        match removed {
            Err(MembershipError::Refused(ChangeRefused::InProgress)) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Err(MembershipError::Refused(ChangeRefused::NotAVoter(gone))) if gone == BrokerId(id) => return,
            removed => return removed.unwrap(),
        }
    }
    panic!("the change before node {id}'s never ended");
}

fn voters(quorum: &Quorum) -> Vec<i32> {
    quorum.status().voters().map(|voter| voter.id.get()).collect()
}

/// Proposes until told to stop, one topic after the other; returns the longest wait.
async fn load(quorum: Quorum, name: i32, stop: Arc<AtomicBool>, made: Arc<AtomicU64>) -> Duration {
    let (mut longest, mut number) = (Duration::ZERO, 0);
    while !stop.load(Ordering::Relaxed) {
        let begin = std::time::Instant::now();
        let outcome = quorum.propose(topic(&format!("t{name}-{number}"))).await.unwrap();
        assert!(is_created(&outcome), "{outcome:?}");
        longest = longest.max(begin.elapsed());
        number += 1;
        made.fetch_add(1, Ordering::Relaxed);
    }
    longest
}

#[tokio::test]
async fn learners_join_by_themselves_and_voters_change_from_one_to_five_and_back_under_load() {
    let mut world = World::new(1, 5);
    world.start(1).await;
    place_for_topics(&world).await;
    let stop = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicU64::new(0));
    let mut loads = Vec::new();
    for id in 1..=5 {
        if id > 1 {
            world.start(id).await;
        }
        let quorum = world.node(id).clone();
        loads.push(tokio::spawn(load(
            quorum,
            id,
            Arc::clone(&stop),
            Arc::clone(&made),
        )));
    }
    until("all are members", || world.node(1).status().members.len() == 5).await;
    assert_eq!(world.node(3).status().role, Role::Learner);
    let begin = std::time::Instant::now();
    for (through, id) in [(1, 2), (2, 3), (4, 4), (1, 5)] {
        add(&world, through, id).await;
        println!(
            "voter {id} added after {:?}, {} proposals",
            begin.elapsed(),
            made.load(Ordering::Relaxed)
        );
    }
    until("all vote", || {
        world.running().all(|(_, node)| voters(node) == [1, 2, 3, 4, 5])
    })
    .await;
    // Leaders leave as well.
    for _ in 0..4 {
        let leader = world.leader().await;
        let through = world.follower().await;
        remove(&world, through, leader).await;
        until("somebody else leads", || {
            let now = world.node(through).status().leader.map(BrokerId::get);
            now.is_some() && now != Some(leader)
        })
        .await;
    }
    println!("one voter after {:?}", begin.elapsed());
    let before = made.load(Ordering::Relaxed);
    until("the last voter decides", || {
        made.load(Ordering::Relaxed) > before + 20
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let mut longest = Duration::ZERO;
    for load in loads {
        longest = longest.max(load.await.unwrap());
    }
    let count = made.load(Ordering::Relaxed);
    println!("voters 1 to 5 to 1: {count} proposals, the longest took {longest:?}");
    assert_eq!(voters(world.node(1)).len(), 1);
    let image = world.images_agree().await;
    assert_eq!(
        image.topic_count() as u64,
        count,
        "every answered topic is there, once"
    );
}

#[tokio::test]
async fn wrong_steps_are_refused_with_the_reason() {
    let mut world = World::of_voters(3).await;
    let leader = world.leader().await;
    let follower = world.follower().await;
    let refusal = |through: i32, id: i32, add: bool| {
        world.on(through, move |quorum| async move {
            let id = BrokerId(id);
            let result = if add {
                quorum.add_voter(id).await
            } else {
                quorum.remove_voter(id).await
            };
            result.expect_err("refused").to_string()
        })
    };
    for through in [leader, follower] {
        assert_eq!(
            refusal(through, 9, true).await,
            "node 9 is not a member of the quorum: start it first, it joins by itself"
        );
        assert_eq!(refusal(through, 1, true).await, "node 1 is a voter already");
        assert_eq!(refusal(through, 9, false).await, "node 9 is not a voter");
    }
    let text = world
        .on(follower, |quorum| async move {
            quorum.remove_learner(BrokerId(2)).await
        })
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(text, "node 2 is a voter: remove it from the voters first");

    // One voter is dead: the other one is needed.
    world.kill(follower).await;
    let living = (1..=3).find(|id| ![leader, follower].contains(id)).unwrap();
    until("its death is noticed", || {
        let status = world.node(leader).status();
        let seen = status.member(BrokerId(follower)).unwrap().last_contact;
        seen.is_none_or(|ago| ago > Duration::from_secs(1))
    })
    .await;
    let text = world
        .on(leader, move |quorum| async move {
            quorum.remove_voter(BrokerId(living)).await
        })
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(
        text,
        "only 1 of the voters would be alive, and 2 are needed to decide: bring one back first, or remove a dead one"
    );
    remove(&world, living, follower).await;
    let gone = world.leader().await;
    remove(&world, gone, gone).await;
    let last = world.leader().await;
    let text = world
        .on(last, move |quorum| async move {
            quorum.remove_voter(BrokerId(last)).await
        })
        .await
        .unwrap_err()
        .to_string();
    assert_eq!(text, format!("node {last} is the last voter"));
}

#[tokio::test]
async fn a_dead_voter_is_replaced_and_a_lost_disk_is_no_old_friend() {
    let mut world = World::of_voters(3).await;
    place_for_topics(&world).await;
    let dead = world.follower().await;
    world.kill(dead).await;
    let other = world.follower().await;

    // Node 4 takes its place.
    world.start(4).await;
    add(&world, other, 4).await;
    remove(&world, other, dead).await;
    assert!(is_created(&world.propose(4, topic("a")).await));
    let mut expected: Vec<i32> = (1..=4).filter(|id| *id != dead).collect();
    until("the new voters are known", || voters(world.node(4)) == expected).await;

    // It comes back with an empty disk, under its old number: a new learner, and a voter again when it is wanted.
    world.wipe(dead).await;
    world.start(dead).await;
    until("it has joined with its new disk", || {
        world.node(dead).image().topic("a").is_some()
    })
    .await;
    add(&world, other, dead).await;
    expected.push(dead);
    expected.sort_unstable();
    until("it votes again", || voters(world.node(dead)) == expected).await;

    // A voter that loses its disk is not taken for the one that it was: it would have forgotten its promises.
    let leader = world.leader().await;
    let amnesiac = world.follower().await;
    let before = world.node(leader).status();
    let old = before.member(BrokerId(amnesiac)).unwrap().directory;
    world.kill(amnesiac).await;
    world.wipe(amnesiac).await;
    world.start(amnesiac).await;
    assert_ne!(world.node(amnesiac).directory(), old);
    for number in 0..20 {
        world.propose(leader, topic(&format!("b{number}"))).await;
    }
    let status = world.node(amnesiac).status();
    assert_eq!((status.last_log_index, status.term), (0, 0), "nobody talks to it");
    remove(&world, leader, amnesiac).await;
    until("it is a learner", || {
        world.node(amnesiac).image().topic("b19").is_some()
    })
    .await;
    add(&world, leader, amnesiac).await;
    world.images_agree().await;
}

#[tokio::test]
async fn two_voters_without_disks_do_not_found_a_second_cluster() {
    let mut world = World::of_voters(3).await;
    place_for_topics(&world).await;
    world.propose(1, topic("precious")).await;
    for id in 1..=3 {
        world.kill(id).await;
    }
    world.wipe(2).await;
    world.wipe(3).await;
    world.start(2).await;
    world.start(3).await;
    // Long enough for many elections.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for id in [2, 3] {
        let status = world.node(id).status();
        assert_eq!((status.leader, status.term, status.last_log_index), (None, 0, 0));
    }
}

/// Nobody sends the news of its removal to who is no member, and its own log says for ever that it is one: whoever was away
/// when its vote was taken and its number forgotten asks for itself when it is back, and needs no restart.
#[tokio::test]
async fn a_node_that_was_removed_while_it_was_cut_off_comes_back_as_a_learner() {
    let world = World::of_voters(3).await;
    let away = world.follower().await;
    for other in (1..=3).filter(|id| *id != away) {
        world.links.cut(away, other);
    }
    let leader = world.leader().await;
    remove(&world, leader, away).await;
    let forgotten = world
        .on(leader, move |quorum| async move {
            quorum.remove_learner(BrokerId(away)).await
        })
        .await;
    forgotten.unwrap();
    assert!(world.node(leader).status().member(BrokerId(away)).is_none());
    // It still takes itself for a voter.
    assert!(voters(world.node(away)).contains(&away));
    world.links.heal();
    until("it knows that it does not vote, and follows", || {
        let status = world.node(away).status();
        status.role == Role::Learner && !voters(world.node(away)).contains(&away)
    })
    .await;
    add(&world, leader, away).await;
    until("it votes again", || voters(world.node(away)).contains(&away)).await;
}
