//! What a process does that stands still: nothing, whoever started its tasks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use skerry_env::Rng;
use skerry_env::clock::ClockBackend as _;
use skerry_types::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use turmoil::{Builder, Sim};

use super::{Host, NetControl};
use crate::disk::{DiskConfig, SimDisk};
use crate::trace::Trace;

const TICK: Duration = Duration::from_millis(1);

fn host(name: &str, net: NetControl, trace: &Trace) -> Host {
    let disk = SimDisk::new(name, DiskConfig::default(), Rng::seeded(1), trace.clone());
    Host::new(name, disk, net, Rng::seeded(2), trace.clone())
}

fn run(sim: &mut Sim<'_>, trace: &Trace, millis: u64) {
    for _ in 0..millis {
        let elapsed = sim.elapsed().as_micros();
        trace
            .time()
            .set_micros(u64::try_from(elapsed).expect("it is short"));
        sim.step().expect("no host fails");
    }
}

#[test]
fn a_process_that_stands_still_writes_nothing_and_its_timers_end_when_it_goes_on() {
    let trace = Trace::silent();
    let mut sim = Builder::new()
        .tick_duration(TICK)
        .min_message_latency(TICK)
        .max_message_latency(TICK)
        .build();
    let net = NetControl::new("peer", None, trace.clone());
    let peer = host("peer", net.clone(), &trace);
    let n1 = host("n1", net.for_host("n1", None), &trace);

    let heard = Arc::new(AtomicU64::new(0));
    let hears = heard.clone();
    sim.host("peer", move || {
        let (env, hears) = (peer.boot(), hears.clone());
        async move {
            let mut conn = env.net.bind("0.0.0.0:7").await?.accept().await?;
            let mut bytes = [0; 64];
            loop {
                let read = conn.read(&mut bytes).await?;
                hears.fetch_add(read as u64, Ordering::Relaxed);
            }
        }
    });
    let rang = Arc::new(AtomicU64::new(0));
    let (rings, boots) = (rang.clone(), n1.clone());
    sim.host("n1", move || {
        let (env, rings) = (boots.boot(), rings.clone());
        async move {
            let mut conn = env.net.dial("peer:7").await?;
            let alarm = env.clone();
            drop(env.tasks.spawn("alarm", async move {
                alarm.clock.sleep_until(Instant::from_millis(100)).await;
                rings.store(alarm.clock.now().as_millis(), Ordering::Relaxed);
            }));
            // As hyper's servers do: the environment is not asked.
            tokio::spawn(async move {
                loop {
                    conn.write_all(&[0]).await.expect("nothing breaks");
                    tokio::time::sleep(TICK).await;
                }
            });
            std::future::pending().await
        }
    });

    run(&mut sim, &trace, 50);
    assert!(heard.load(Ordering::Relaxed) > 10);
    n1.gate.close();
    let (_, written) = n1.net.traffic();
    run(&mut sim, &trace, 150);
    assert_eq!(n1.net.traffic().1, written);
    assert_eq!(
        rang.load(Ordering::Relaxed),
        0,
        "its time has come, and nobody looks"
    );
    n1.gate.open();
    run(&mut sim, &trace, 50);
    assert!(n1.net.traffic().1 > written + 10);
    assert!((200..203).contains(&rang.load(Ordering::Relaxed)));
}

/// The deadline is one of the host's own clock, whose rate changes in the middle of the wait.
#[test]
fn a_timer_goes_by_the_clock_of_its_host_and_never_ends_early() {
    // What is left at 50 ms takes until 100 ms at the old rate.
    for (ppm, latest_ms) in [(0, 101), (400_000, 101), (-500_000, 151)] {
        let trace = Trace::silent();
        let mut sim = Builder::new().tick_duration(TICK).build();
        let n1 = host("n1", NetControl::new("n1", None, trace.clone()), &trace);
        let rang = Arc::new(AtomicU64::new(0));
        let (rings, boots, time) = (rang.clone(), n1.clone(), trace.time().clone());
        sim.host("n1", move || {
            let (env, rings, time) = (boots.boot(), rings.clone(), time.clone());
            async move {
                env.clock.sleep_until(Instant::from_millis(100)).await;
                assert!(env.clock.now() >= Instant::from_millis(100));
                rings.store(time.millis(), Ordering::Relaxed);
                std::future::pending().await
            }
        });
        run(&mut sim, &trace, 50);
        n1.clock.set_drift_ppm(ppm);
        run(&mut sim, &trace, 150);
        let rang = rang.load(Ordering::Relaxed);
        assert!(
            rang > 0 && (latest_ms - 2..=latest_ms).contains(&rang),
            "{ppm}: {rang}"
        );
        // A wait that begins now knows the rate.
        let expected = 100 * 1_000_000 / u64::try_from(1_000_000 + ppm).expect("positive");
        let left = n1
            .clock
            .real_time_until(n1.clock.now() + Duration::from_millis(100));
        assert_eq!(u64::try_from(left.as_millis()).expect("small"), expected);
    }
}
