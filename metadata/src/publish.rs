//! Images from the one who applies to those who read.

use std::collections::VecDeque;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use skerry_metadata_state::{Delta, Image};
use tokio::sync::watch;

/// Changes are kept for slow watchers up to this many commands. Whoever falls further behind is told
/// [`Delta::Reset`], which covers everything.
const RECENT_MAX: usize = 1_024;

/// The newest image and the latest changes.
pub(crate) struct Publisher {
    /// What readers take without a lock.
    current: ArcSwap<Image>,
    recent: Mutex<Recent>,
    /// The index of the newest image.
    applied: watch::Sender<u64>,
    /// How many changes were published so far.
    changes: watch::Sender<u64>,
}

struct Recent {
    /// The image after the newest change.
    image: Arc<Image>,
    /// The changes up to number `changes`, the newest last.
    deltas: VecDeque<Vec<Delta>>,
    changes: u64,
}

impl Publisher {
    pub(crate) fn new(image: Arc<Image>) -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::new(Arc::clone(&image)),
            applied: watch::Sender::new(image.index()),
            recent: Mutex::new(Recent {
                image,
                deltas: VecDeque::new(),
                changes: 0,
            }),
            changes: watch::Sender::new(0),
        })
    }

    pub(crate) fn image(&self) -> Arc<Image> {
        self.current.load_full()
    }

    /// Makes `image` visible and wakes who waits for it. Called before the proposer hears of it, so that a proposer
    /// reads its own writes.
    pub(crate) fn publish(&self, image: &Arc<Image>, deltas: Vec<Delta>) {
        let mut recent = self.recent.lock();
        recent.image = Arc::clone(image);
        let changed = !deltas.is_empty();
        if changed {
            if recent.deltas.len() == RECENT_MAX {
                recent.deltas.pop_front();
            }
            recent.deltas.push_back(deltas);
            recent.changes += 1;
        }
        let changes = recent.changes;
        self.current.store(Arc::clone(image));
        drop(recent);
        self.applied.send_replace(image.index());
        if changed {
            self.changes.send_replace(changes);
        }
    }

    /// How many entries have changed something.
    pub(crate) fn changes(&self) -> u64 {
        self.recent.lock().changes
    }

    /// Waits until the entry at `index` is visible.
    pub(crate) async fn wait_applied(&self, index: u64) {
        let mut applied = self.applied.subscribe();
        // The sender lives in `self`.
        let _ = applied.wait_for(|&applied| applied >= index).await;
    }

    pub(crate) fn watch(self: &Arc<Self>) -> ImageWatch {
        let seen = self.recent.lock().changes;
        ImageWatch {
            publisher: Arc::clone(self),
            wake: self.changes.subscribe(),
            seen,
        }
    }

    /// The newest image, and what changed since change number `seen`.
    fn since(&self, seen: u64) -> (Arc<Image>, Vec<Delta>, u64) {
        let recent = self.recent.lock();
        let missed = usize::try_from(recent.changes - seen).unwrap_or(usize::MAX);
        let deltas = match recent.deltas.len().checked_sub(missed) {
            Some(first) => recent.deltas.iter().skip(first).flatten().cloned().collect(),
            None => vec![Delta::Reset],
        };
        (Arc::clone(&recent.image), deltas, recent.changes)
    }
}

/// Follows the changes from the image at its creation on, in order and without a gap.
pub struct ImageWatch {
    publisher: Arc<Publisher>,
    wake: watch::Receiver<u64>,
    seen: u64,
}

impl ImageWatch {
    /// Waits for changes, and returns the image after the last of them with all of them in order. Cancel-safe.
    pub async fn changed(&mut self) -> (Arc<Image>, Vec<Delta>) {
        let seen = self.seen;
        // The sender lives in `self.publisher`.
        let _ = self.wake.wait_for(|&changes| changes > seen).await;
        let (image, deltas, changes) = self.publisher.since(self.seen);
        self.seen = changes;
        (image, deltas)
    }

    /// How many changes `changed` has told so far, in the count of [`crate::Quorum::changes`].
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The newest image, changes that `changed` has not told yet included.
    #[must_use]
    pub fn image(&self) -> Arc<Image> {
        self.publisher.image()
    }
}

#[cfg(test)]
mod tests {
    use skerry_metadata_state::{Command, State};
    use skerry_types::{BrokerId, Uuid};

    use super::*;

    #[tokio::test]
    async fn a_watcher_gets_every_change_in_order_or_a_reset() {
        let mut state = State::default();
        let publisher = Publisher::new(Arc::clone(state.image()));
        let (mut quick, mut slow) = (publisher.watch(), publisher.watch());
        let applied = state.apply(
            1,
            &Command::InitCluster {
                cluster_id: Uuid([1; 16]),
                feature_level: 1,
            },
        );
        publisher.publish(state.image(), applied.deltas.clone());
        let (image, deltas) = quick.changed().await;
        assert_eq!((image.index(), deltas), (1, applied.deltas));

        for index in 2..2 + RECENT_MAX as u64 {
            state.skip(index);
            publisher.publish(state.image(), vec![Delta::BrokerChanged(BrokerId(1))]);
        }
        let (image, deltas) = slow.changed().await;
        assert_eq!(
            (image.index(), deltas),
            (1 + RECENT_MAX as u64, vec![Delta::Reset])
        );
        let (_, deltas) = quick.changed().await;
        assert_eq!(deltas.len(), RECENT_MAX);
    }
}
