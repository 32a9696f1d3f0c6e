//! How long decisions take. `cargo test --release -p skerry-metadata --test cluster figures -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use skerry_metadata::{Command, Quorum};

use crate::failover::quantiles;
use crate::world::{World, place_for_topics};

/// A command that is decided and changes nothing.
fn nothing() -> Command {
    Command::SetFeatureLevel { level: 1 }
}

async fn sequential(quorum: Quorum) -> Vec<Duration> {
    let mut times = Vec::new();
    for _ in 0..500 {
        let begin = Instant::now();
        quorum.propose(nothing()).await.unwrap();
        times.push(begin.elapsed());
    }
    times
}

async fn concurrent(quorum: Quorum) -> f64 {
    let begin = Instant::now();
    let proposers: Vec<_> = (0..256)
        .map(|_| {
            let quorum = quorum.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    quorum.propose(nothing()).await.unwrap();
                }
            })
        })
        .collect();
    for proposer in proposers {
        proposer.await.unwrap();
    }
    256.0 * 20.0 / begin.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "a measurement"]
async fn figures_of_proposals() {
    let world = World::of_voters(3).await;
    place_for_topics(&world).await;
    let (leader, follower) = (world.leader().await, world.follower().await);
    for (who, id) in [("leader", leader), ("follower", follower)] {
        let (median, p99, _) = quantiles(&mut world.on(id, sequential).await);
        println!("one after the other through the {who}: median {median:?}, p99 {p99:?}");
        let rate = world.on(id, concurrent).await;
        println!("256 at a time through the {who}: {rate:.0} a second");
        let begin = Instant::now();
        for _ in 0..500 {
            world
                .on(id, |quorum| async move { quorum.read().await.unwrap() })
                .await;
        }
        println!("a read at the {who}: {:?}", begin.elapsed() / 500);
    }
}
