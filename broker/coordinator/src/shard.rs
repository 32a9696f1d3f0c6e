use std::collections::BTreeSet;
use std::sync::Arc;

use skerry_types::{Instant, Offset, ProducerId};

use crate::api::{
    AppendFailure, AppendId, Effect, GroupSettings, Now, RecordOrigin, ReplayError, ReplyToken, Request,
    TransactionEnd,
};

/// Every group of one partition of `__consumer_offsets`. The signatures are final; the bodies arrive next.
#[derive(Debug)]
pub struct GroupShard {
    settings: GroupSettings,
}

impl GroupShard {
    /// A shard that is not loaded: it answers NOT_COORDINATOR.
    #[must_use]
    pub fn new(settings: GroupSettings) -> Self {
        Self { settings }
    }

    /// From now on NOT_COORDINATOR becomes COORDINATOR_LOAD_IN_PROGRESS, and records may be replayed.
    pub fn start_loading(&mut self) {}

    /// Takes in one record of the log, in log order, while loading. Records of other group types are skipped.
    ///
    /// # Errors
    /// A key or value that cannot be read; the shard stays as it was, and loading may go on.
    pub fn replay(
        &mut self,
        origin: RecordOrigin,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), ReplayError> {
        let _ = (origin, key, value);
        Ok(())
    }

    /// Takes in the end of a transaction, in log order, while loading.
    pub fn replay_marker(&mut self, producer: ProducerId, end: TransactionEnd) {
        let _ = (producer, end);
    }

    /// Everything up to the high watermark was replayed: the sessions of the loaded members start, requests are served.
    pub fn finish_loading(&mut self, now: Now) -> Vec<Effect> {
        let _ = now;
        Vec::new()
    }

    /// This broker no longer leads the partition: everybody who waits hears NOT_COORDINATOR, and all is forgotten.
    pub fn unload(&mut self) -> Vec<Effect> {
        Vec::new()
    }

    /// Takes in a request. Its answer is among the effects of this call or of a later one.
    pub fn handle(&mut self, token: ReplyToken, request: Request, now: Now) -> Vec<Effect> {
        let _ = (token, request, now, &self.settings);
        Vec::new()
    }

    /// The outcome of an append: the base offset of its batch, or why it is not durable.
    pub fn on_appended(
        &mut self,
        append: AppendId,
        outcome: Result<Offset, AppendFailure>,
        now: Now,
    ) -> Vec<Effect> {
        let _ = (append, outcome, now);
        Vec::new()
    }

    /// These topics were deleted: their offsets go, in every group.
    pub fn on_topics_deleted(&mut self, topics: &BTreeSet<Arc<str>>, now: Now) -> Vec<Effect> {
        let _ = (topics, now);
        Vec::new()
    }

    /// Time went by: sessions, rebalances and offsets whose time has come end.
    pub fn on_tick(&mut self, now: Now) -> Vec<Effect> {
        let _ = now;
        Vec::new()
    }

    /// When [`GroupShard::on_tick`] has something to do; None: not before another input.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        None
    }

    /// Replaces the settings; running timers keep their deadlines.
    pub fn set_settings(&mut self, settings: GroupSettings) {
        self.settings = settings;
    }
}
