//! Leaders that die, and leaders that leave.

use std::time::{Duration, Instant};

use crate::world::{World, is_created, place_for_topics, topic, until};

pub fn quantiles(times: &mut [Duration]) -> (Duration, Duration, Duration) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    (at(50), at(99), times[times.len() - 1])
}

#[tokio::test]
async fn a_killed_leader_is_replaced_at_once() {
    let mut world = World::of_voters(3).await;
    place_for_topics(&world).await;
    let mut times = Vec::new();
    for round in 0..30 {
        let leader = world.leader().await;
        let follower = world.follower().await;
        // Between two heartbeats, anywhere.
        tokio::time::sleep(Duration::from_millis(300 + 7 * round)).await;
        world.kill(leader).await;
        let begin = Instant::now();
        let made = world.propose(follower, topic(&format!("k{round}"))).await;
        times.push(begin.elapsed());
        assert!(is_created(&made), "{made:?}");
        world.start(leader).await;
        until("it is back", || {
            world.node(leader).image().topic(&format!("k{round}")).is_some()
        })
        .await;
    }
    let (median, p99, max) = quantiles(&mut times);
    println!(
        "kill of the leader to the next decision, 30 times: median {median:?}, p99 {p99:?}, max {max:?}"
    );
    assert!(p99 < Duration::from_secs(5), "{times:?}");
}

/// A leader that falls silent and is still there: no broken connection tells.
#[tokio::test]
async fn a_silent_leader_is_replaced_after_the_timeout() {
    let world = World::of_voters(3).await;
    place_for_topics(&world).await;
    let mut times = Vec::new();
    for round in 0..5 {
        let leader = world.leader().await;
        let follower = world.follower().await;
        tokio::time::sleep(Duration::from_millis(300 + 7 * round)).await;
        for other in (1..=3).filter(|id| *id != leader) {
            world.links.cut(leader, other);
        }
        let begin = Instant::now();
        let made = world.propose(follower, topic(&format!("s{round}"))).await;
        times.push(begin.elapsed());
        assert!(is_created(&made), "{made:?}");
        world.links.heal();
    }
    let (median, _, max) = quantiles(&mut times);
    println!("cut of the leader's links to the next decision, 5 times: median {median:?}, max {max:?}");
    assert!(max < Duration::from_secs(10), "{times:?}");
}

#[tokio::test]
async fn a_leader_hands_over_before_it_ends() {
    let mut world = World::of_voters(3).await;
    place_for_topics(&world).await;
    let mut gaps = Vec::new();
    for round in 0..10 {
        let leader = world.leader().await;
        let follower = world.follower().await;
        let proposing = world.spawn(follower, move |quorum| async move {
            let mut longest = Duration::ZERO;
            for number in 0..60 {
                let begin = Instant::now();
                let made = quorum
                    .propose(topic(&format!("h{round}-{number}")))
                    .await
                    .unwrap();
                assert!(is_created(&made), "{made:?}");
                longest = longest.max(begin.elapsed());
            }
            longest
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        world.stop(leader).await;
        until("the next leader is known", || {
            let next = world.node(follower).status().leader;
            next.is_some_and(|next| next.get() != leader)
        })
        .await;
        gaps.push(proposing.await.unwrap());
        world.start(leader).await;
    }
    let (median, _, max) = quantiles(&mut gaps);
    println!(
        "shutdown of the leader, the longest proposal meanwhile, 10 times: median {median:?}, max {max:?}"
    );
    assert!(max < Duration::from_secs(5), "{gaps:?}");
}
