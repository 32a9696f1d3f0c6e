//! Room on the disk. Producers and followers stop before it is full: what is left keeps deletion, recovery and the
//! metadata alive, and without the metadata nobody could delete anything.
//!
//! What is appended is counted against what was free at the last look, so that no writer is quicker than the eye. What
//! others write to the disk, and what logs write beside the records, is seen at the next look, by a task of its own:
//! maintenance may be busy with a long compaction meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use skerry_env::disk::Space;
use skerry_types::{is_planted, reached};
use tokio_util::sync::CancellationToken;

use crate::broker::Broker;
use crate::metrics::Metrics;

/// How often to look while there is plenty of room, and while there is too little.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// How often to look at most.
const LOOK_MIN: Duration = Duration::from_millis(10);
/// No disk is written to more quickly. What is free above the reserve lasts so long at least, whoever writes.
const BYTES_PER_SECOND_MAX: u64 = 1 << 30;
/// Room must come back by this much more than the reserve before producers may go on: not to flap at the edge.
const HYSTERESIS_PERCENT: u64 = 10;
/// What a small disk keeps at least, where the configuration asks for so much: the metadata waits where less than 1 MiB
/// is free, and what the groups may take comes off first.
const RESERVE_MIN_BYTES: u64 = 4 << 20;

/// Who wants to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Records of clients' topics, here or copied from their leader: the reserve stays.
    Records,
    /// The groups, which go on longer: half of the reserve stays.
    Groups,
}

/// The disk is nearly full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NearlyFull {
    /// What is free.
    pub free_bytes: u64,
}

/// The room on the disk under the logs.
pub struct DiskRoom {
    space: Box<dyn Fn() -> io::Result<Space> + Send + Sync>,
    /// `disk.reserve`.
    configured_reserve_bytes: u64,
    metrics: Arc<Metrics>,
    /// What must stay free, as of the last look.
    reserve_bytes: AtomicU64,
    /// What may be written until somebody looks again. Below zero: that much of the reserve is taken.
    left_bytes: AtomicI64,
    /// Bytes free on a nearly full disk, plus one; 0: there is room.
    nearly_full: AtomicU64,
    /// The most that somebody was refused since there was room.
    refused_bytes: AtomicU64,
}

impl DiskRoom {
    /// The room that `space` tells of. Nobody has looked yet: whoever writes first does.
    pub fn new(
        space: impl Fn() -> io::Result<Space> + Send + Sync + 'static,
        configured_reserve_bytes: u64,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            space: Box::new(space),
            configured_reserve_bytes,
            metrics,
            reserve_bytes: AtomicU64::new(0),
            left_bytes: AtomicI64::new(0),
            nearly_full: AtomicU64::new(0),
            refused_bytes: AtomicU64::new(0),
        }
    }

    /// Bytes free where the disk is nearly full: producers must wait.
    pub fn nearly_full(&self) -> Option<u64> {
        self.nearly_full.load(Ordering::Relaxed).checked_sub(1)
    }

    /// Takes `bytes` of what is free, which are written next.
    ///
    /// # Errors
    /// [`NearlyFull`]: they must not be written.
    pub fn take(&self, bytes: u64, writer: Writer) -> Result<(), NearlyFull> {
        if is_planted("reserve-not-kept") || self.try_take(bytes, writer) {
            return Ok(());
        }
        if writer == Writer::Records
            && let Some(free_bytes) = self.nearly_full()
        {
            return Err(NearlyFull { free_bytes });
        }
        // So much has been written since the last look; or it would be, with this.
        let refused = match writer {
            Writer::Records => bytes,
            Writer::Groups => 0,
        };
        let Some(free_bytes) = self.look(refused).1 else {
            return Ok(());
        };
        if self.try_take(bytes, writer) {
            return Ok(());
        }
        reached("disk-reserve-kept");
        Err(NearlyFull { free_bytes })
    }

    fn try_take(&self, bytes: u64, writer: Writer) -> bool {
        let least = match writer {
            Writer::Records if self.nearly_full().is_some() => return false,
            Writer::Records => 0,
            Writer::Groups => -signed(self.reserve_bytes.load(Ordering::Relaxed) / 2),
        };
        self.left_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                Some(left.saturating_sub(signed(bytes))).filter(|left| *left >= least)
            })
            .is_ok()
    }

    /// Looks how much is free, and says when to look again, and what was found: none where the disk cannot tell. A disk
    /// that cannot has room: the write will say. `wanted_bytes` are about to be written.
    fn look(&self, wanted_bytes: u64) -> (Duration, Option<u64>) {
        let space = match (self.space)() {
            Ok(space) => space,
            Err(error) => {
                tracing::warn!(%error, "cannot tell how full the disk is");
                self.left_bytes.store(i64::MAX, Ordering::Relaxed);
                self.nearly_full.store(0, Ordering::Relaxed);
                self.refused_bytes.store(0, Ordering::Relaxed);
                return (LOOK_MAX, None);
            }
        };
        let free_bytes = space.available_bytes;
        self.metrics.disk_free_bytes.set(signed(free_bytes));
        let reserve_bytes = reserve_of(space, self.configured_reserve_bytes);
        self.reserve_bytes.store(reserve_bytes, Ordering::Relaxed);
        self.left_bytes
            .store(signed(free_bytes) - signed(reserve_bytes), Ordering::Relaxed);
        let was_low = self.nearly_full().is_some();
        // Whoever was refused must find room when there is said to be some.
        let refused_bytes = wanted_bytes.max(self.refused_bytes.load(Ordering::Relaxed));
        let low = !is_planted("reserve-not-kept")
            && is_low(free_bytes, reserve_bytes.saturating_add(refused_bytes), was_low);
        self.refused_bytes
            .store(if low { refused_bytes } else { 0 }, Ordering::Relaxed);
        self.nearly_full.store(
            if low { free_bytes.saturating_add(1) } else { 0 },
            Ordering::Relaxed,
        );
        match (was_low, low) {
            (false, true) => tracing::warn!(
                free_bytes,
                reserve_bytes,
                "the disk is nearly full: producers must wait; consumers and deletion go on"
            ),
            (true, false) => tracing::info!(free_bytes, "the disk has room again: producers may go on"),
            _ => {}
        }
        let next = if low {
            LOOK_MAX
        } else {
            next_look(free_bytes.saturating_sub(reserve_bytes))
        };
        (next, Some(free_bytes))
    }
}

/// Looks once, and starts the task that goes on looking.
pub fn watch(broker: &Arc<Broker>, stop: CancellationToken) -> skerry_env::TaskHandle {
    let (mut next, _) = broker.disk_room().look(0);
    let watched = Arc::clone(broker);
    let watching = async move {
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = watched.env().clock.sleep(next) => (next, _) = watched.disk_room().look(0),
            }
        }
    };
    broker.env().tasks.spawn("disk-watch", watching)
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// What must stay free. A disk that is smaller than the reserve would never be written to.
fn reserve_of(space: Space, configured_bytes: u64) -> u64 {
    configured_bytes.min((space.total_bytes / 20).max(RESERVE_MIN_BYTES))
}

fn is_low(free_bytes: u64, reserve_bytes: u64, was_low: bool) -> bool {
    let hysteresis = if was_low {
        reserve_bytes.saturating_mul(HYSTERESIS_PERCENT) / 100
    } else {
        0
    };
    free_bytes < reserve_bytes.saturating_add(hysteresis)
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

    #[derive(Default)]
    struct Disk {
        free_bytes: AtomicU64,
        looks: AtomicU64,
    }

    /// A reserve of 64 MiB, and so much free.
    fn room(free_bytes: u64) -> (Arc<Disk>, DiskRoom) {
        let disk = Arc::new(Disk::default());
        disk.free_bytes.store(free_bytes, Ordering::Relaxed);
        let seen = disk.clone();
        let space = move || {
            seen.looks.fetch_add(1, Ordering::Relaxed);
            Ok(Space {
                total_bytes: 1 << 40,
                available_bytes: seen.free_bytes.load(Ordering::Relaxed),
            })
        };
        (disk, DiskRoom::new(space, 64 * MIB, Arc::default()))
    }

    #[test]
    fn a_small_disk_keeps_a_twentieth() {
        let space = |total_bytes| Space {
            total_bytes,
            available_bytes: total_bytes,
        };
        assert_eq!(reserve_of(space(100 << 30), 64 * MIB), 64 * MIB);
        assert_eq!(reserve_of(space(100 * MIB), 64 * MIB), 5 * MIB);
        assert_eq!(
            reserve_of(space(16 * MIB), 64 * MIB),
            4 * MIB,
            "the metadata needs room"
        );
        assert_eq!(reserve_of(space(16 * MIB), 0), 0, "as configured");
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

    #[test]
    fn whoever_writes_between_two_looks_leaves_the_reserve() {
        let (disk, room) = room(74 * MIB);
        for _ in 0..10 {
            assert_eq!(room.take(MIB, Writer::Records), Ok(()));
        }
        assert_eq!(
            disk.looks.load(Ordering::Relaxed),
            1,
            "no look at the disk for each"
        );
        disk.free_bytes.store(64 * MIB, Ordering::Relaxed);
        let full = NearlyFull { free_bytes: 64 * MIB };
        assert_eq!(room.take(1, Writer::Records), Err(full));
        assert_eq!(room.take(1, Writer::Records), Err(full));
        assert_eq!(room.nearly_full(), Some(64 * MIB));
        assert_eq!(disk.looks.load(Ordering::Relaxed), 2, "the task looks from here");
    }

    #[test]
    fn what_was_counted_and_not_written_is_found_again() {
        let (_, room) = room(65 * MIB);
        for _ in 0..10 {
            assert_eq!(room.take(MIB, Writer::Records), Ok(()), "repetitions, say");
        }
    }

    #[test]
    fn there_is_room_again_where_what_was_refused_has_room() {
        let (disk, room) = room(66 * MIB);
        assert!(room.take(8 * MIB, Writer::Records).is_err());
        assert_eq!(room.nearly_full(), Some(66 * MIB), "a producer waits");
        disk.free_bytes.store(78 * MIB, Ordering::Relaxed);
        let (next, _) = room.look(0);
        assert_eq!((next, room.nearly_full()), (LOOK_MAX, Some(78 * MIB)));
        disk.free_bytes.store(80 * MIB, Ordering::Relaxed);
        room.look(0);
        assert_eq!(room.nearly_full(), None);
        assert_eq!(room.take(8 * MIB, Writer::Records), Ok(()));
    }

    #[test]
    fn groups_go_on_to_half_of_the_reserve() {
        let (disk, room) = room(63 * MIB);
        assert!(room.take(1, Writer::Records).is_err());
        assert_eq!(room.take(31 * MIB, Writer::Groups), Ok(()));
        disk.free_bytes.store(32 * MIB, Ordering::Relaxed);
        assert_eq!(
            room.take(1, Writer::Groups),
            Err(NearlyFull { free_bytes: 32 * MIB })
        );
    }
}
