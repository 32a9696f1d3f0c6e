//! Reads all that is kept, slowly, and compares it with its sums: damage that nobody reads must be found while other
//! copies are whole.
//!
//! One task for all partitions, which reads one piece of one log at a time. What it finds is looked at and repaired as
//! any other damage (replication/repair.rs); a damaged log is left there, and its rest is read in the next round.
//!
//! Read is what a checkpoint has made durable. What came later is in the page cache anyway, and says nothing of the
//! device.

use std::sync::Arc;
use std::time::Duration;

use skerry_log::batch::Batches;
use skerry_types::{Instant, Offset};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::partition::Partition;

/// One read. Small beside what a consumer reads: nobody waits long behind it.
const READ_BYTES: u32 = 256 << 10;
/// How often the settings are looked at while nothing is read.
const LOOK: Duration = Duration::from_secs(60);
/// At most one part in so many of the disk's time is the scrub's: where a read is slow because others read and write,
/// the rest after it is as much longer.
const DISK_SHARE: u32 = 10;
/// A disk that stood still for half a minute and goes on is not left alone for five: nothing is read before the rate
/// allows it, but damage must not wait for what is over.
const REST_MAX: Duration = Duration::from_secs(10);
/// How long to wait while requests need the memory.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the task.
pub fn start(broker: &Arc<Broker>, stop: CancellationToken) -> skerry_env::TaskHandle {
    let scrubbing = scrub(broker.clone());
    broker.env().tasks.spawn("scrub", async move {
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = scrubbing => {}
        }
    })
}

/// What one round came to.
#[derive(Default)]
struct Round {
    bytes: u64,
    damaged: usize,
}

async fn scrub(broker: Arc<Broker>) {
    let clock = &broker.env().clock;
    // A start has other things to do; and a node that is restarted often is to come to it all the same.
    let mut next_at = clock.now() + LOOK.min(broker.settings().broker().scrub_interval);
    loop {
        clock.sleep_until(next_at.min(clock.now() + LOOK)).await;
        let began = clock.now();
        if began < next_at || rate(&broker).is_none() {
            continue;
        }
        let round = read_all(&broker).await;
        let took = clock.now() - began;
        broker.metrics().scrub.rounds.inc();
        tracing::info!(
            bytes = round.bytes,
            damaged_partitions = round.damaged,
            ?took,
            "everything that is kept here has been read and checked"
        );
        next_at = began + broker.settings().broker().scrub_interval.max(LOOK.min(took));
    }
}

/// Bytes for each second; `None`: nothing is to be read.
fn rate(broker: &Broker) -> Option<u64> {
    Some(broker.settings().broker().scrub_bytes_per_second).filter(|rate| *rate > 0)
}

async fn read_all(broker: &Arc<Broker>) -> Round {
    let mut partitions = broker.partitions().all();
    // Rounds that restarts cut short do not always begin with the same.
    if !partitions.is_empty() {
        let first = broker.env().rng.below(partitions.len() as u64);
        partitions.rotate_left(usize::try_from(first).unwrap_or(0));
    }
    let mut round = Round::default();
    let left = &broker.metrics().scrub.partitions_left;
    for (number, partition) in partitions.iter().enumerate() {
        left.set(i64::try_from(partitions.len() - number).unwrap_or(i64::MAX));
        read_one(broker, partition, &mut round).await;
    }
    left.set(0);
    round
}

async fn read_one(broker: &Arc<Broker>, partition: &Arc<Partition>, round: &mut Round) {
    let clock = &broker.env().clock;
    let mut from = Offset::ZERO;
    while let Some(planned) = partition.plan_check(from, false, READ_BYTES) {
        let Some(rate) = rate(broker) else { return };
        let began = clock.now();
        let read = match planned {
            Ok(plan) => broker.env().tasks.run_blocking(move || plan.run_checked()).await,
            Err(error) => Err(error),
        };
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => {
                round.damaged += usize::from(error.is_damage());
                broker.replication().suspect(partition, from, &error);
                return;
            }
        };
        // Compaction may leave nothing before the end, and the last batch may reach past what is durable.
        let Some(last) = Batches::new(bytes.clone()).last() else {
            return;
        };
        from = last.header.next_offset();
        round.bytes += bytes.len() as u64;
        broker.metrics().scrub.read_bytes.inc_by(bytes.len() as u64);
        rest(broker, bytes.len(), rate, began).await;
    }
}

/// Waits as long as the rate asks for, and the load.
async fn rest(broker: &Broker, bytes: usize, rate: u64, began: Instant) {
    let clock = &broker.env().clock;
    clock.sleep(rest_after(bytes, clock.now() - began, rate)).await;
    let budget = broker.budget();
    while budget.free_bytes() < budget.total_bytes() / 2 {
        clock.sleep(PAUSE).await;
    }
}

/// How long to rest after a read of `bytes` that took so long.
fn rest_after(bytes: usize, took: Duration, bytes_per_second: u64) -> Duration {
    let nanos = (bytes as u128 * 1_000_000_000) / u128::from(bytes_per_second.max(1));
    let by_rate = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)).saturating_sub(took);
    by_rate.max(took.saturating_mul(DISK_SHARE - 1).min(REST_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn the_rate_counts_the_read_itself() {
        let rest = |took_ms| rest_after(MIB, Duration::from_millis(took_ms), 2 << 20).as_millis();
        assert_eq!(rest(0), 500);
        assert_eq!(rest(20), 480);
    }

    #[test]
    fn a_disk_that_others_use_is_left_to_them() {
        let rest = |took_ms| rest_after(MIB, Duration::from_millis(took_ms), 2 << 20).as_millis();
        assert_eq!(rest(50), 450, "a tenth of its time");
        assert_eq!(rest(100), 900);
        assert_eq!(rest(1_000), 9_000);
        assert_eq!(
            rest(30_000),
            10_000,
            "it goes on again: see seed 151 of three nodes"
        );
    }

    #[test]
    fn any_rate_can_be_given() {
        assert_eq!(rest_after(2, Duration::ZERO, 1), Duration::from_secs(2));
        assert!(rest_after(usize::MAX, Duration::ZERO, 1) > Duration::from_secs(1 << 33));
        assert_eq!(rest_after(MIB, Duration::ZERO, u64::MAX), Duration::ZERO);
    }
}
