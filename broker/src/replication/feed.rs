//! One follower broker's stream at its leader: which partitions it carries, how far each has been sent, what is to be
//! sent next.
//!
//! Partitions whose follower is in sync come first: a produce request waits for them. Those that catch up share what is
//! left of the window, one read at a time. The lock is taken after a partition's, never around one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use skerry_proto::replication::{self as proto, refused::Reason};
use skerry_types::{BrokerEpoch, BrokerId, Instant, LeaderEpoch, Offset, is_planted};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::partition::Partition;

/// High watermarks that no records carry are told this late, together.
const WATERMARK_DELAY: Duration = Duration::from_millis(10);
/// The least that is asked of a log.
const READ_BYTES_MIN: usize = 16 << 10;

/// The stream of one follower broker.
pub struct Feed {
    follower: BrokerId,
    follower_epoch: BrokerEpoch,
    window_bytes: usize,
    state: Mutex<State>,
    /// There is something to send.
    pub(super) more: Notify,
    /// The stream is to end.
    pub(super) end: CancellationToken,
}

#[derive(Default)]
struct State {
    followed: BTreeMap<u32, Followed>,
    /// Handles with records to send, whose followers are in sync or not known to lag.
    tail: VecDeque<u32>,
    /// Handles whose followers catch up.
    behind: VecDeque<u32>,
    /// Handles whose high watermark has moved, and when they are told.
    watermarks: Vec<u32>,
    watermarks_at: Option<Instant>,
    refused: VecDeque<proto::Refused>,
    diverging: Vec<proto::Diverging>,
    /// Bytes that were sent and not yet told to be written.
    unacknowledged: usize,
    ended: bool,
}

/// A partition on the stream.
struct Followed {
    partition: Arc<Partition>,
    leader_epoch: LeaderEpoch,
    /// Everything below was sent.
    position: Offset,
    /// Ends and sizes of what was sent and not yet told to be written.
    in_flight: VecDeque<(Offset, usize)>,
    unacknowledged: usize,
    place: Place,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In none of the queues: the partition will wake the stream.
    Idle,
    /// In one of the queues.
    Queued,
    /// A read is under way.
    Reading,
    /// Its share of the window is used up: what the follower has written next puts it back.
    Stalled,
}

/// A read that the stream should make next.
pub(super) struct Turn {
    pub(super) handle: u32,
    pub(super) partition: Arc<Partition>,
    pub(super) position: Offset,
    pub(super) max_bytes: u32,
    /// However large: nothing of the partition is under way, and it must not get stuck behind a large batch.
    pub(super) one_batch: bool,
}

impl Feed {
    /// A stream that carries nothing yet.
    #[must_use]
    pub fn new(
        follower: BrokerId,
        follower_epoch: BrokerEpoch,
        window_bytes: usize,
        end: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            follower,
            follower_epoch,
            window_bytes,
            state: Mutex::default(),
            more: Notify::new(),
            end,
        })
    }

    /// Whose it is.
    #[must_use]
    pub const fn follower(&self) -> BrokerId {
        self.follower
    }

    /// The registration that it speaks for.
    #[must_use]
    pub const fn follower_epoch(&self) -> BrokerEpoch {
        self.follower_epoch
    }

    /// A partition that had sent everything has records again.
    pub fn on_records(&self, handle: u32) {
        let mut state = self.state.lock();
        if let Some(followed) = state.followed.get_mut(&handle)
            && followed.place == Place::Idle
        {
            followed.place = Place::Queued;
            state.tail.push_back(handle);
            drop(state);
            self.more.notify_one();
        }
    }

    /// A partition's high watermark or log start has moved.
    pub fn on_watermark(&self, handle: u32) {
        let mut state = self.state.lock();
        state.watermarks.push(handle);
        if state.watermarks.len() == 1 {
            drop(state);
            self.more.notify_one();
        }
    }

    /// This broker does not lead the partition any more, or not in that epoch.
    pub fn on_role_ended(&self, handle: u32) {
        if is_planted("follower-epoch-unchecked") {
            return;
        }
        self.refuse(handle, Reason::NotLeader);
    }

    /// A question is void; gives its partition.
    pub(super) fn refuse(&self, handle: u32, reason: Reason) -> Option<Arc<Partition>> {
        self.push_refusal(proto::Refused {
            handle,
            reason: reason.into(),
            ..proto::Refused::default()
        })
    }

    /// What the follower needs is gone: it has to start over at `log_start`.
    pub(super) fn out_of_range(
        &self,
        handle: u32,
        log_start: Offset,
        producers: Bytes,
    ) -> Option<Arc<Partition>> {
        self.push_refusal(proto::Refused {
            handle,
            reason: Reason::OutOfRange.into(),
            log_start: log_start.get(),
            producers,
        })
    }

    fn push_refusal(&self, refused: proto::Refused) -> Option<Arc<Partition>> {
        let handle = refused.handle;
        let mut state = self.state.lock();
        state.refused.push_back(refused);
        let partition = state.remove(handle);
        drop(state);
        self.more.notify_one();
        partition
    }

    pub(super) fn diverges(&self, handle: u32, epoch: LeaderEpoch, end_offset: Offset) {
        let mut state = self.state.lock();
        state.diverging.push(proto::Diverging {
            handle,
            epoch: epoch.get(),
            end_offset: end_offset.get(),
        });
        state.remove(handle);
        drop(state);
        self.more.notify_one();
    }

    /// A partition joins the stream, before it knows of the stream, so that nothing that it says is lost. It is read from
    /// [`Self::begin`] on. False: the handle is taken, or the stream has ended.
    pub(super) fn add(
        &self,
        handle: u32,
        partition: &Arc<Partition>,
        leader_epoch: LeaderEpoch,
        position: Offset,
    ) -> bool {
        let mut state = self.state.lock();
        if state.ended || state.followed.contains_key(&handle) {
            return false;
        }
        let followed = Followed {
            partition: partition.clone(),
            leader_epoch,
            position,
            in_flight: VecDeque::new(),
            unacknowledged: 0,
            place: Place::Reading,
        };
        state.followed.insert(handle, followed);
        true
    }

    /// The partition knows of the stream.
    pub(super) fn begin(&self, handle: u32, in_sync: bool) {
        let mut state = self.state.lock();
        if let Some(followed) = state.followed.get_mut(&handle) {
            followed.place = Place::Queued;
            // How far behind it is shows with the first read; a quota counts for that one too.
            if !in_sync && followed.partition.settings().throttled.leader {
                state.behind.push_back(handle);
            } else {
                state.tail.push_back(handle);
            }
            drop(state);
            self.more.notify_one();
        }
    }

    /// A partition leaves the stream; gives it.
    pub(super) fn remove(&self, handle: u32) -> Option<Arc<Partition>> {
        self.state.lock().remove(handle)
    }

    /// The stream has ended: gives what it carried.
    pub(super) fn close(&self) -> Vec<(u32, Arc<Partition>)> {
        self.end.cancel();
        let mut state = self.state.lock();
        state.ended = true;
        state.tail.clear();
        state.behind.clear();
        std::mem::take(&mut state.followed)
            .into_iter()
            .map(|(handle, followed)| (handle, followed.partition))
            .collect()
    }

    /// The partition of a handle, and the epoch in which its follower follows.
    pub(super) fn followed(&self, handle: u32) -> Option<(Arc<Partition>, LeaderEpoch)> {
        let state = self.state.lock();
        let followed = state.followed.get(&handle)?;
        Some((followed.partition.clone(), followed.leader_epoch))
    }

    /// How many partitions it carries.
    #[must_use]
    pub fn followed_count(&self) -> usize {
        self.state.lock().followed.len()
    }

    /// The follower has written everything below `written_end`.
    pub(super) fn on_written(&self, handle: u32, written_end: Offset) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(followed) = state.followed.get_mut(&handle) else {
            return;
        };
        let mut freed = 0;
        while let Some((end, bytes)) = followed.in_flight.front().copied()
            && end <= written_end
        {
            followed.in_flight.pop_front();
            freed += bytes;
        }
        if freed == 0 {
            return;
        }
        followed.unacknowledged -= freed;
        state.unacknowledged -= freed;
        if followed.place == Place::Stalled {
            followed.place = Place::Queued;
            state.tail.push_back(handle);
        }
        // Whoever waits in a queue may have waited for the window.
        let wake = !state.tail.is_empty() || !state.behind.is_empty();
        drop(guard);
        if wake {
            self.more.notify_one();
        }
    }

    /// The next partition in sync to read from.
    pub(super) fn next_tail(&self) -> Option<Turn> {
        let mut state = self.state.lock();
        while state.unacknowledged < self.window_bytes {
            let handle = state.tail.pop_front()?;
            if let Some(turn) = state.turn(handle, self.window_bytes) {
                return Some(turn);
            }
        }
        None
    }

    /// The next partition that catches up. Half of the window is left to the others.
    pub(super) fn next_behind(&self) -> Option<Turn> {
        let mut state = self.state.lock();
        while state.unacknowledged < self.window_bytes / 2 {
            let handle = state.behind.pop_front()?;
            if let Some(turn) = state.turn(handle, self.window_bytes) {
                return Some(turn);
            }
        }
        None
    }

    /// How many partitions wait to catch up.
    pub(super) fn behind_count(&self) -> usize {
        self.state.lock().behind.len()
    }

    /// The partition has no more: its next append wakes the stream. Called under the partition's lock, so that an append
    /// comes before this look at it or after.
    pub(crate) fn on_drained(&self, handle: u32) {
        if let Some(followed) = self.state.lock().followed.get_mut(&handle) {
            followed.place = Place::Idle;
        }
    }

    /// Back into the queue of those that catch up: not now.
    pub(super) fn postpone(&self, handle: u32) {
        let mut state = self.state.lock();
        if let Some(followed) = state.followed.get_mut(&handle) {
            followed.place = Place::Queued;
            state.behind.push_back(handle);
        }
    }

    /// Nothing fits until the follower has written more.
    pub(super) fn stalled(&self, handle: u32) {
        let mut state = self.state.lock();
        let Some(followed) = state.followed.get_mut(&handle) else {
            return;
        };
        // It may have written all of it meanwhile.
        if followed.in_flight.is_empty() {
            followed.place = Place::Queued;
            state.tail.push_back(handle);
        } else {
            followed.place = Place::Stalled;
        }
    }

    /// `bytes` up to `end` are sent. The partition goes back into a queue: there may be more.
    pub(super) fn sent(&self, handle: u32, end: Offset, bytes: usize, in_sync: bool) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let Some(followed) = state.followed.get_mut(&handle) else {
            return;
        };
        followed.position = end;
        followed.in_flight.push_back((end, bytes));
        followed.unacknowledged += bytes;
        followed.place = Place::Queued;
        state.unacknowledged += bytes;
        if in_sync {
            state.tail.push_back(handle);
        } else {
            state.behind.push_back(handle);
        }
    }

    /// As many as one message should carry, with about `most_bytes` of what goes with them.
    pub(super) fn take_refusals(&self, most_bytes: usize) -> (Vec<proto::Refused>, Vec<proto::Diverging>) {
        let mut state = self.state.lock();
        let mut bytes = 0;
        let taken = state.refused.iter().take_while(|refused| {
            let fits = bytes < most_bytes;
            bytes += refused.producers.len();
            fits
        });
        let count = taken.count();
        let refused = state.refused.drain(..count).collect();
        let diverging = std::mem::take(&mut state.diverging);
        if !state.refused.is_empty() {
            self.more.notify_one();
        }
        (refused, diverging)
    }

    /// The handles whose high watermark is to be told now; or when.
    pub(super) fn take_watermarks(&self, now: Instant) -> Result<Vec<u32>, Option<Instant>> {
        let mut state = self.state.lock();
        if state.watermarks.is_empty() {
            return Err(None);
        }
        let at = *state.watermarks_at.get_or_insert(now + WATERMARK_DELAY);
        if now < at {
            return Err(Some(at));
        }
        state.watermarks_at = None;
        Ok(std::mem::take(&mut state.watermarks))
    }
}

impl State {
    fn remove(&mut self, handle: u32) -> Option<Arc<Partition>> {
        let followed = self.followed.remove(&handle)?;
        self.unacknowledged -= followed.unacknowledged;
        Some(followed.partition)
    }

    /// What may be read of a partition that was taken out of a queue.
    fn turn(&mut self, handle: u32, window_bytes: usize) -> Option<Turn> {
        let stream_room = window_bytes.saturating_sub(self.unacknowledged);
        let followed = self.followed.get_mut(&handle)?;
        let share_room = (window_bytes / 2).saturating_sub(followed.unacknowledged);
        let one_batch = followed.in_flight.is_empty();
        if share_room == 0 && !one_batch {
            followed.place = Place::Stalled;
            return None;
        }
        followed.place = Place::Reading;
        let max_bytes = stream_room.min(share_room).max(READ_BYTES_MIN);
        Some(Turn {
            handle,
            partition: followed.partition.clone(),
            position: followed.position,
            max_bytes: u32::try_from(max_bytes).unwrap_or(u32::MAX),
            one_batch,
        })
    }
}
