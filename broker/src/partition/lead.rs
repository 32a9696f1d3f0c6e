//! What a leader does with its log: appends, and the acknowledgements that wait.

use std::sync::Arc;

use skerry_log::{Appended, ValidBatch};
use skerry_replica::Visibility;
use skerry_types::{Instant, LeaderEpoch, Offset, WallMs, is_planted};
use tokio::sync::oneshot;

use super::{
    AckError, Acks, Appending, Durability, Partition, ProduceError, State, Storage, WaitingAck, serving,
};

impl Partition {
    /// Appends a batch. What it waits for is decided here, in the order of the calls.
    ///
    /// # Errors
    /// [`ProduceError`]; nothing of the batch is in the log.
    pub fn append(
        self: &Arc<Self>,
        batch: ValidBatch,
        acks: Acks,
        now: WallMs,
    ) -> Result<Appending, ProduceError> {
        self.append_in(LeaderEpoch::UNKNOWN, batch, acks, now)
    }

    /// As [`Partition::append`], for a writer whose knowledge is worth something in `leader_epoch` alone (unknown: not
    /// checked).
    ///
    /// # Errors
    /// [`ProduceError`]; nothing of the batch is in the log.
    pub fn append_in(
        self: &Arc<Self>,
        leader_epoch: LeaderEpoch,
        batch: ValidBatch,
        acks: Acks,
        now: WallMs,
    ) -> Result<Appending, ProduceError> {
        let durability = self.settings.load().durability;
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let (log, leader) = serving(&mut state.storage, &mut state.leader, leader_epoch)?;
        if acks == Acks::All {
            leader.may_acknowledge()?;
        }
        let appended = log.append_as_leader(batch, leader.epoch(), now)?;
        let (Appended::New {
            base,
            last,
            log_append_time,
            ..
        }
        | Appended::Duplicate {
            base,
            last,
            log_append_time,
        }) = appended;
        let end = last.next();
        leader.on_local_log(
            log.log_start(),
            log.log_end(),
            log.durable_end(),
            self.clock.now(),
        );
        let (log_start, high_watermark, durable_end) =
            (log.log_start(), leader.high_watermark(), log.durable_end());
        state.unflushed_since.get_or_insert(now);
        if state.gather.on_append()
            && let Some(gathered) = state.gathered.take()
        {
            // The worker may have stopped waiting just now.
            let _ = gathered.send(());
        }
        let must_be_durable = match durability {
            Durability::BeforeAcknowledgement if is_planted("ack-before-fsync") => Offset::ZERO,
            Durability::BeforeAcknowledgement => end,
            Durability::Kafka { flush_messages, .. } => {
                if end.get() - durable_end.get() >= flush_messages {
                    end
                } else {
                    Offset::ZERO
                }
            }
        };
        let visible = if acks == Acks::All { end } else { Offset::ZERO };
        let acknowledged =
            if acks == Acks::None || (high_watermark >= visible && durable_end >= must_be_durable) {
                None
            } else {
                let (reply, receiver) = oneshot::channel();
                let waiting = WaitingAck {
                    visible,
                    durable: must_be_durable,
                    reply,
                };
                // A repetition waits for its original, which may be older than what others wait for.
                let place = state.waiting_acks.partition_point(|other| {
                    (other.visible.max(other.durable)) <= waiting.visible.max(waiting.durable)
                });
                state.waiting_acks.insert(place, waiting);
                Some(receiver)
            };
        if durability == Durability::BeforeAcknowledgement || must_be_durable > Offset::ZERO {
            self.flush_if_dirty(state);
        }
        state.settle();
        Ok(Appending {
            base,
            log_append_time,
            log_start,
            acknowledged,
        })
    }
}

impl State {
    /// Tells the leader where its log is.
    pub(super) fn follow_log(&mut self, now: Instant) {
        if let (Storage::Open(log), Some(leader)) = (&self.storage, &mut self.leader) {
            leader.on_local_log(log.log_start(), log.log_end(), log.durable_end(), now);
        }
    }

    /// Answers what has become true.
    pub(super) fn settle(&mut self) {
        let (Storage::Open(log), Some(leader)) = (&self.storage, &self.leader) else {
            return;
        };
        let (visible, durable) = (leader.high_watermark(), log.durable_end());
        let mut index = 0;
        while let Some(waiting) = self.waiting_acks.get(index) {
            let reached =
                waiting.visible <= visible && (waiting.durable <= durable || is_planted("ack-before-fsync"));
            if reached {
                let waiting = self.waiting_acks.remove(index).expect("looked at above");
                // The client may have gone: its record stays.
                let _ = waiting.reply.send(Ok(()));
            } else if leader.visibility() == Visibility::Durable {
                // Ordered by offset: nothing behind it is reached either.
                break;
            } else {
                index += 1;
            }
        }
        if visible > self.announced {
            self.announced = visible;
            self.wake_readers();
        }
    }

    pub(super) fn fail_acks(&mut self, error: &AckError) {
        for waiting in self.waiting_acks.drain(..) {
            let _ = waiting.reply.send(Err(error.clone()));
        }
    }

    pub(super) fn wake_readers(&mut self) {
        for waiter in self.waiting_reads.drain(..) {
            waiter.notify_one();
        }
    }
}
