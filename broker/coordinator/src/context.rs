use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use skerry_types::{Instant, WallMs};

use crate::api::{
    AppendFailure, AppendId, Effect, FetchRequest, GroupEvent, GroupEventKind, GroupSettings, JoinResponse,
    Now, ReplyToken, Response, SyncResponse,
};
use crate::append::{APPEND_BYTES_MAX, Change, InFlight, PendingAppend, Then};
use crate::timers::{TimerKey, Timers};

/// What every part of the machine needs beside its own state: time, settings, and the ways out.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) settings: GroupSettings,
    pub(crate) now: Now,
    pub(crate) timers: Timers,
    /// There is no memory for further groups and members.
    pub(crate) full: bool,
    effects: Vec<Effect>,
    /// Taken in and not answered.
    open: BTreeSet<ReplyToken>,
    appends: BTreeMap<AppendId, PendingAppend>,
    next_append: u64,
    in_flight: BTreeMap<Arc<str>, InFlight>,
}

impl Context {
    pub(crate) fn new(settings: GroupSettings) -> Self {
        Self {
            settings,
            now: Now {
                instant: Instant::ZERO,
                wall: WallMs(0),
            },
            timers: Timers::default(),
            full: false,
            effects: Vec::new(),
            open: BTreeSet::new(),
            appends: BTreeMap::new(),
            next_append: 1,
            in_flight: BTreeMap::new(),
        }
    }

    pub(crate) fn take_effects(&mut self) -> Vec<Effect> {
        mem::take(&mut self.effects)
    }

    /// Opens a token.
    ///
    /// # Panics
    /// If it is open already.
    pub(crate) fn open(&mut self, token: ReplyToken) {
        assert!(self.open.insert(token), "{token:?} names two requests at once");
    }

    pub(crate) fn open_tokens(&self) -> &BTreeSet<ReplyToken> {
        &self.open
    }

    /// Answers a request.
    ///
    /// # Panics
    /// If it was answered before.
    pub(crate) fn reply(&mut self, token: ReplyToken, response: Response) {
        assert!(
            self.open.remove(&token),
            "{token:?} is answered twice, now with {response:?}"
        );
        self.effects.push(Effect::Reply(token, response));
    }

    pub(crate) fn reply_join(&mut self, token: ReplyToken, response: JoinResponse) {
        self.reply(token, Response::Join(response));
    }

    pub(crate) fn reply_sync(&mut self, token: ReplyToken, response: SyncResponse) {
        self.reply(token, Response::Sync(response));
    }

    pub(crate) fn event(&mut self, group_id: &Arc<str>, kind: GroupEventKind) {
        self.effects.push(Effect::Event(GroupEvent {
            group_id: group_id.clone(),
            kind,
        }));
    }

    pub(crate) fn schedule_ms(&mut self, key: TimerKey, after_ms: i32) {
        let after = Duration::from_millis(u64::try_from(after_ms).unwrap_or(0));
        self.timers.schedule(key, self.now.instant + after);
    }

    /// The id that the next append will get.
    pub(crate) fn next_append(&self) -> AppendId {
        AppendId(self.next_append)
    }

    pub(crate) fn appends_in_flight(&self) -> usize {
        self.appends.len()
    }

    pub(crate) fn appends(&self) -> &BTreeMap<AppendId, PendingAppend> {
        &self.appends
    }

    /// Starts an append of one batch.
    pub(crate) fn append(&mut self, changes: Vec<Change>, then: Then) -> AppendId {
        assert!(!changes.is_empty(), "an append of nothing");
        let id = AppendId(self.next_append);
        self.next_append += 1;
        for change in &changes {
            let entry = self.in_flight.entry(change.group().clone()).or_default();
            entry.last = Some(id);
            entry.records += 1;
            match change {
                Change::PutOffset { partition, .. } | Change::RemoveOffset { partition, .. } => {
                    *entry.offsets.entry(partition.clone()).or_default() += 1;
                }
                Change::PutGroup { .. } | Change::RemoveGroup { .. } => entry.group_records += 1,
            }
        }
        let records = changes.iter().map(Change::record).collect();
        self.effects.push(Effect::Append { records, then: id });
        self.appends.insert(
            id,
            PendingAppend {
                changes,
                then,
                earlier_failure: None,
                fetches: Vec::new(),
            },
        );
        id
    }

    /// Starts as many appends as the size of the changes asks for; the last one answers.
    pub(crate) fn append_in_chunks(&mut self, changes: Vec<Change>, token: ReplyToken, response: Response) {
        let chunks = into_chunks(changes);
        let last = AppendId(self.next_append + chunks.len() as u64 - 1);
        let mut reply = Some((token, response));
        for chunk in chunks {
            let then = if self.next_append() == last {
                let (token, response) = reply.take().expect("one chunk is the last");
                Then::Reply(token, response)
            } else {
                Then::Chunk { last }
            };
            self.append(chunk, then);
        }
    }

    /// Like [`Context::append_in_chunks`] where nobody waits.
    pub(crate) fn append_silently(&mut self, changes: Vec<Change>) {
        for chunk in into_chunks(changes) {
            self.append(chunk, Then::Nothing);
        }
    }

    /// Makes an append that nobody waited for answer this.
    pub(crate) fn reply_after(&mut self, append: AppendId, token: ReplyToken, response: Response) {
        let pending = self
            .appends
            .get_mut(&append)
            .expect("an append that was just started");
        assert!(
            matches!(pending.then, Then::Nothing),
            "{append:?} answers somebody already"
        );
        pending.then = Then::Reply(token, response);
    }

    pub(crate) fn in_flight(&self, group: &str) -> Option<&InFlight> {
        self.in_flight.get(group)
    }

    /// The groups about which something is being written.
    pub(crate) fn groups_in_flight(&self) -> impl Iterator<Item = &Arc<str>> {
        self.in_flight.keys()
    }

    /// Lets a fetch wait for everything that is being written about the group, if anything is.
    pub(crate) fn park_fetch(
        &mut self,
        token: ReplyToken,
        request: FetchRequest,
    ) -> Result<(), FetchRequest> {
        let Some(last) = self.in_flight.get(&request.group_id).and_then(|entry| entry.last) else {
            return Err(request);
        };
        let pending = self.appends.get_mut(&last).expect("what is in flight is pending");
        pending.fetches.push((token, request));
        Ok(())
    }

    /// The append is over: takes it out. None if it belongs to a time before the last unloading.
    ///
    /// # Panics
    /// If it was never started, or if it succeeded before an older one was reported.
    pub(crate) fn take_append(
        &mut self,
        id: AppendId,
        failure: Option<AppendFailure>,
    ) -> Option<PendingAppend> {
        assert!(id.0 < self.next_append, "{id:?} was never started");
        let pending = self.appends.remove(&id)?;
        if failure.is_none() {
            let oldest = self.appends.first_key_value().map_or(id, |(oldest, _)| *oldest);
            assert!(oldest >= id, "{id:?} was reported durable before {oldest:?}");
        }
        for change in &pending.changes {
            self.settle(id, change);
        }
        // Failures may be reported in any order, so that the last one may already be gone.
        if let (Some(failure), Then::Chunk { last }) = (failure, &pending.then)
            && let Some(last) = self.appends.get_mut(last)
        {
            last.earlier_failure.get_or_insert(failure);
        }
        Some(pending)
    }

    fn settle(&mut self, id: AppendId, change: &Change) {
        let group = change.group();
        let entry = self
            .in_flight
            .get_mut(group)
            .expect("what is in flight is counted");
        entry.records -= 1;
        match change {
            Change::PutOffset { partition, .. } | Change::RemoveOffset { partition, .. } => {
                let count = entry
                    .offsets
                    .get_mut(partition)
                    .expect("what is in flight is counted");
                *count -= 1;
                if *count == 0 {
                    entry.offsets.remove(partition);
                }
            }
            Change::PutGroup { .. } | Change::RemoveGroup { .. } => entry.group_records -= 1,
        }
        if entry.records == 0 {
            self.in_flight.remove(group);
        } else if entry.last == Some(id) {
            // The newest failed before older ones were reported: they are what a fetch must wait for now.
            entry.last = self
                .appends
                .iter()
                .rev()
                .find(|(_, pending)| pending.changes.iter().any(|change| change.group() == group))
                .map(|(older, _)| *older);
        }
    }

    /// Forgets every append; their reports, should they come, are ignored.
    pub(crate) fn drop_appends(&mut self) -> BTreeMap<AppendId, PendingAppend> {
        self.in_flight.clear();
        mem::take(&mut self.appends)
    }

    pub(crate) fn check(&self) {
        self.timers.check();
        let records: usize = self.appends.values().map(|pending| pending.changes.len()).sum();
        let counted: usize = self.in_flight.values().map(|entry| entry.records).sum();
        assert_eq!(records, counted, "every record in flight is counted once");
    }
}

fn into_chunks(changes: Vec<Change>) -> Vec<Vec<Change>> {
    let mut chunks = Vec::new();
    let mut chunk = Vec::new();
    let mut bytes = 0;
    for change in changes {
        let record = change.record();
        let size = record.key.len() + record.value.as_ref().map_or(0, bytes::Bytes::len);
        if bytes + size > APPEND_BYTES_MAX && !chunk.is_empty() {
            chunks.push(mem::take(&mut chunk));
            bytes = 0;
        }
        bytes += size;
        chunk.push(change);
    }
    if !chunk.is_empty() {
        chunks.push(chunk);
    }
    chunks
}
