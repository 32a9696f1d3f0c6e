//! An eye on the disk: producers are told to wait before it is full. What is left keeps deletion, recovery and the
//! metadata alive.
//!
//! A task of its own: maintenance may be busy with a long compaction while producers fill the disk.

use std::sync::Arc;
use std::time::Duration;

use skerry_env::disk::Space;
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;

/// How often to look while there is plenty of room, and while there is too little.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How often to look at most.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// No disk is written to more quickly. What is free above the reserve lasts so long at least, and the next look comes
/// before that: producers that are quicker than the look would write the reserve full.
const BYTES_PER_SECOND_MAX: u64 = 1 << 30;
/// Room must come back by this much more than the reserve before producers may go on: not to flap at the edge.
const HYSTERESIS_PERCENT: u64 = 10;

/// Looks once, and starts the task that goes on looking.
pub fn start(broker: &Arc<Broker>, stop: CancellationToken) -> skerry_env::TaskHandle {
    let next = look(broker);
    let watching = watch(broker.clone(), next, stop);
    broker.env().tasks.spawn("disk-watch", watching)
}

async fn watch(broker: Arc<Broker>, mut next: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = broker.env().clock.sleep(next) => next = look(&broker),
        }
    }
}

/// Looks, and says when to look again.
fn look(broker: &Broker) -> Duration {
    let space = match broker.env().disk.space(&broker.config().data_dir) {
        Ok(space) => space,
        Err(error) => {
            tracing::warn!(%error, "cannot tell how full the disk is");
            return LOOK_MAX;
        }
    };
    let free_bytes = space.available_bytes;
    let metrics = broker.metrics();
    metrics
        .disk_free_bytes
        .set(i64::try_from(free_bytes).unwrap_or(i64::MAX));
    let was_low = broker.disk_nearly_full().is_some();
    let reserve_bytes = reserve_of(space, broker.config().disk_reserve_bytes);
    let low = is_low(free_bytes, reserve_bytes, was_low);
    broker.set_disk_nearly_full(low.then_some(free_bytes));
    match (was_low, low) {
        (false, true) => tracing::warn!(
            free_bytes,
            reserve_bytes,
            "the disk is nearly full: producers must wait; consumers and deletion go on"
        ),
        (true, false) => tracing::info!(free_bytes, "the disk has room again: producers may go on"),
        _ => {}
    }
    if low {
        LOOK_MAX
    } else {
        next_look(free_bytes - reserve_bytes)
    }
}

/// What must stay free. A disk that is smaller than the reserve would never be written to.
fn reserve_of(space: Space, configured: u64) -> u64 {
    configured.min(space.total_bytes / 20)
}

fn is_low(free_bytes: u64, reserve_bytes: u64, was_low: bool) -> bool {
    let hysteresis = if was_low {
        reserve_bytes * HYSTERESIS_PERCENT / 100
    } else {
        0
    };
    free_bytes < reserve_bytes + hysteresis
}

/// Half of the time in which `margin_bytes` could be written.
fn next_look(margin_bytes: u64) -> Duration {
    let micros = margin_bytes.saturating_mul(500_000) / BYTES_PER_SECOND_MAX;
    Duration::from_micros(micros).clamp(LOOK_MIN, LOOK_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_small_disk_keeps_a_twentieth() {
        let space = |total_bytes| Space {
            total_bytes,
            available_bytes: total_bytes,
        };
        assert_eq!(reserve_of(space(100 << 30), 64 * MIB), 64 * MIB);
        assert_eq!(reserve_of(space(100 * MIB), 64 * MIB), 5 * MIB);
    }

    #[test]
    fn producers_wait_until_there_is_clearly_room() {
        assert!(!is_low(64 * MIB, 64 * MIB, false));
        assert!(is_low(64 * MIB - 1, 64 * MIB, false));
        assert!(is_low(66 * MIB, 64 * MIB, true), "not at the edge");
        assert!(!is_low(71 * MIB, 64 * MIB, true));
    }

    #[test]
    fn the_fuller_the_disk_the_oftener_it_is_looked_at() {
        assert_eq!(next_look(1 << 40), LOOK_MAX);
        assert_eq!(next_look(1 << 30), Duration::from_millis(500));
        assert_eq!(next_look(64 * MIB), Duration::from_micros(31_250));
        assert_eq!(next_look(0), LOOK_MIN);
    }
}
