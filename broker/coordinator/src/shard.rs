use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skerry_types::{Instant, Offset, reached};

use crate::api::{
    AppendFailure, AppendId, CommitResponse, DeleteResponse, DescribeResponse, DescribedGroup, Effect,
    FetchResponse, GroupError, GroupEventKind, GroupSettings, GroupState, HeartbeatResponse, JoinRequest,
    JoinResponse, LeaveResponse, ListResponse, Now, OffsetDeleteResponse, ReplyToken, Request, Response,
    SyncResponse,
};
use crate::append::{Change, CommittedOffset, PendingAppend, Then};
use crate::context::Context;
use crate::group::Group;
use crate::join;
use crate::offsets::GroupOffsets;
use crate::timers::TimerKey;

/// Groups of one partition. Kafka has no limit; a client that makes up group names must not fill the memory.
pub(crate) const GROUPS_MAX: usize = 1_000_000;
/// Appends that were started and not reported. Each holds a request's offsets, so that the shell's budget bounds them
/// first; this is the last line.
const APPENDS_IN_FLIGHT_MAX: usize = 100_000;

/// Where the shard is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// This broker does not lead the partition.
    Unloaded,
    /// The log is being replayed.
    Loading,
    /// Requests are served.
    Serving,
}

/// Every group of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct GroupShard {
    pub(crate) phase: Phase,
    pub(crate) groups: BTreeMap<Arc<str>, Group>,
    /// Durable offsets. Where there are some, there is a group too.
    pub(crate) offsets: BTreeMap<Arc<str>, GroupOffsets>,
    pub(crate) cx: Context,
    next_incarnation: u64,
    /// Sum of what the groups take in memory.
    pub(crate) state_bytes: usize,
    /// Groups that the current step may have changed.
    pub(crate) touched: BTreeSet<Arc<str>>,
}

impl GroupShard {
    /// A shard that is not loaded: it answers NOT_COORDINATOR.
    #[must_use]
    pub fn new(settings: GroupSettings) -> Self {
        Self {
            phase: Phase::Unloaded,
            groups: BTreeMap::new(),
            offsets: BTreeMap::new(),
            cx: Context::new(settings),
            next_incarnation: 1,
            state_bytes: 0,
            touched: BTreeSet::new(),
        }
    }

    /// Replaces the settings; running timers keep their deadlines.
    pub fn set_settings(&mut self, settings: GroupSettings) {
        self.cx.settings = settings;
    }

    /// How many groups there are.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.groups.len()
    }

    /// About how many bytes the groups and their members take. Committed offsets are not in it: a group has at most one
    /// for each partition of the cluster.
    #[must_use]
    pub fn state_bytes(&self) -> usize {
        self.state_bytes
    }

    /// Whether there is no memory for further groups and members: those who come are sent away
    /// (COORDINATOR_NOT_AVAILABLE, GROUP_MAX_SIZE_REACHED) until this is called again. Those who are there go on.
    pub fn set_full(&mut self, full: bool) {
        self.cx.full = full;
    }

    /// Takes a group out, and what was counted of it.
    pub(crate) fn forget_group(&mut self, group_id: &Arc<str>) {
        if let Some(group) = self.groups.remove(group_id) {
            self.state_bytes -= group.counted_bytes;
        }
    }

    /// When [`GroupShard::on_tick`] has something to do; None: not before another input.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        self.cx.timers.next()
    }

    /// Takes in a request. Its answer is among the effects of this call or of a later one.
    ///
    /// # Panics
    /// If the token names a request that is not answered yet.
    pub fn handle(&mut self, token: ReplyToken, request: Request, now: Now) -> Vec<Effect> {
        self.cx.now = now;
        self.cx.open(token);
        match self.admit(request) {
            Ok(request) => self.dispatch(token, request),
            Err(response) => self.cx.reply(token, response),
        }
        self.finish_step()
    }

    /// Time went by: sessions, rebalances and offsets whose time has come end.
    pub fn on_tick(&mut self, now: Now) -> Vec<Effect> {
        self.cx.now = now;
        self.finish_step()
    }

    /// The outcome of an append: the base offset of its batch, or why it is not durable (its fate in the log may then be
    /// unknown). Reports about appends from before the last [`GroupShard::unload`] are ignored.
    ///
    /// # Panics
    /// If there was no such append, or if it is reported durable before an older one was reported at all.
    pub fn on_appended(
        &mut self,
        append: AppendId,
        outcome: Result<Offset, AppendFailure>,
        now: Now,
    ) -> Vec<Effect> {
        self.cx.now = now;
        if let Some(pending) = self.cx.take_append(append, outcome.err()) {
            self.conclude(append, pending, outcome);
        }
        self.finish_step()
    }

    /// What can be said without looking at a group, in Kafka's order: the request itself, then the phase.
    fn admit(&self, mut request: Request) -> Result<Request, Response> {
        if let Err(error) = validate(&self.cx.settings, &request) {
            return Err(refusal(&request, error));
        }
        match self.phase {
            Phase::Unloaded => {
                reached("asked-the-wrong-coordinator");
                return Err(refusal(&request, GroupError::NotCoordinator));
            }
            Phase::Loading => {
                reached("asked-while-groups-load");
                return Err(refusal(&request, GroupError::CoordinatorLoadInProgress));
            }
            Phase::Serving => {}
        }
        if self.cx.appends_in_flight() >= APPENDS_IN_FLIGHT_MAX {
            return Err(refusal(&request, GroupError::CoordinatorNotAvailable));
        }
        if let Request::Join(join) = &mut request {
            join::normalise(join);
        }
        Ok(request)
    }

    fn dispatch(&mut self, token: ReplyToken, request: Request) {
        match request {
            Request::Join(request) => self.join(token, request),
            Request::Sync(request) => self.sync(token, request),
            Request::Heartbeat(request) => self.heartbeat(token, &request),
            Request::Leave(request) => self.leave(token, request),
            Request::Commit(request) => self.commit(token, request),
            Request::Fetch(request) => self.fetch(token, request),
            Request::Describe(request) => self.describe(token, &request),
            Request::List(request) => self.list(token, &request),
            Request::Delete(request) => self.delete(token, request),
            Request::OffsetDelete(request) => self.offset_delete(token, request),
        }
    }

    fn join(&mut self, token: ReplyToken, request: JoinRequest) {
        let group_id = request.group_id.clone();
        let is_new = !self.groups.contains_key(&group_id);
        if is_new {
            // A join that is refused leaves no group behind: Kafka writes one, which nobody asked for.
            let refused = if !request.member_id.is_empty() {
                Some(GroupError::UnknownMemberId)
            } else if request.protocol_type.is_empty() || request.protocols.is_empty() {
                Some(GroupError::InconsistentGroupProtocol)
            } else if self.groups.len() >= GROUPS_MAX || self.cx.full {
                Some(GroupError::CoordinatorNotAvailable)
            } else {
                None
            };
            if let Some(error) = refused {
                let response = JoinResponse::refused(request.member_id, error);
                return self.cx.reply_join(token, response);
            }
        }
        let next_append = self.cx.next_append();
        let (group, cx) = self.group_mut_or_new(&group_id);
        group.join(cx, token, request);
        if is_new && cx.next_append() == next_append {
            let value = group.first_record().encode();
            let then = Then::NewGroup {
                group: group_id.clone(),
                incarnation: group.incarnation,
            };
            cx.append(
                vec![Change::PutGroup {
                    group: group_id,
                    value,
                }],
                then,
            );
        }
    }

    /// The group, which may change in this step, and the way out.
    pub(crate) fn group_mut(&mut self, group_id: &Arc<str>) -> Option<(&mut Group, &mut Context)> {
        let group = self.groups.get_mut(group_id)?;
        self.touched.insert(group_id.clone());
        Some((group, &mut self.cx))
    }

    /// Like [`GroupShard::group_mut`], but makes an empty one where there is none.
    pub(crate) fn group_mut_or_new(&mut self, group_id: &Arc<str>) -> (&mut Group, &mut Context) {
        self.touched.insert(group_id.clone());
        let group = self.groups.entry(group_id.clone()).or_insert_with(|| {
            self.next_incarnation += 1;
            Group::new(group_id.clone(), self.next_incarnation, self.cx.now.wall)
        });
        (group, &mut self.cx)
    }

    pub(crate) fn new_incarnation(&mut self) -> u64 {
        self.next_incarnation += 1;
        self.next_incarnation
    }

    /// The append is over: its changes are made, then who waits for it is answered.
    fn conclude(&mut self, id: AppendId, pending: PendingAppend, outcome: Result<Offset, AppendFailure>) {
        let PendingAppend {
            changes,
            then,
            earlier_failure,
            fetches,
        } = pending;
        let failure = outcome.err().or(earlier_failure);
        match outcome {
            Ok(base) => {
                for (index, change) in changes.into_iter().enumerate() {
                    let index = i64::try_from(index).expect("a batch has fewer records than an i64");
                    self.make(change, base.plus(index));
                }
            }
            Err(failure) => {
                reached("group-record-not-written");
                let group = changes
                    .first()
                    .map(|change| change.group().clone())
                    .unwrap_or_default();
                self.cx
                    .event(&group, GroupEventKind::AppendFailed { append: id, failure });
            }
        }
        self.follow(then, failure);
        for (token, request) in fetches {
            if outcome.is_ok() {
                self.answer_fetch(token, &request);
            } else {
                // A failure may be reported while older appends are under way.
                self.fetch(token, request);
            }
        }
    }

    fn follow(&mut self, then: Then, failure: Option<AppendFailure>) {
        match then {
            Then::Nothing | Then::Chunk { .. } => {}
            Then::Reply(token, response) => {
                let response = match failure {
                    None => response,
                    Some(failure) => response.failed(failure),
                };
                self.cx.reply(token, response);
            }
            Then::Assign {
                group,
                incarnation,
                generation,
                assignments,
            } => {
                if let Some((group, cx)) = self.group_mut(&group)
                    && group.incarnation == incarnation
                {
                    group.finish_assignment(cx, generation, &assignments, failure);
                }
            }
            Then::StaticJoin(done) => {
                if let Some((group, cx)) = self.group_mut(&done.group)
                    && group.incarnation == done.incarnation
                {
                    group.finish_static_join(cx, *done, failure);
                }
            }
            Then::NewGroup { group, incarnation } => {
                if let Some(failure) = failure {
                    self.undo_new_group(&group, incarnation, failure);
                }
            }
        }
    }

    /// Makes one durable change visible.
    fn make(&mut self, change: Change, at: Offset) {
        match change {
            Change::PutOffset {
                group,
                partition,
                value,
            } => {
                // Not touched if it is there: an offset changes nothing about the members.
                match self.groups.get_mut(&group) {
                    Some(known) => known.durable = true,
                    None => self.group_mut_or_new(&group).0.durable = true,
                }
                let offsets = self.offsets.entry(group).or_default();
                offsets.put(partition, CommittedOffset::from_record(value, at));
            }
            Change::RemoveOffset { group, partition } => self.remove_offset(&group, &partition),
            Change::PutGroup { group, .. } => self.group_mut_or_new(&group).0.durable = true,
            Change::RemoveGroup { group } => self.remove_group(&group),
        }
    }

    /// A group's tombstone is durable. If somebody has come since, the group goes on, and its next record follows.
    fn remove_group(&mut self, group_id: &Arc<str>) {
        let newer = self
            .cx
            .in_flight(group_id)
            .is_some_and(|entry| entry.group_records > 0);
        let Some((group, cx)) = self.group_mut(group_id) else {
            return;
        };
        group.durable = false;
        if group.is_in(GroupState::Empty) && !newer {
            group.cancel_timers(cx);
            self.forget_group(group_id);
        }
        if self.offsets.contains_key(group_id) {
            self.group_mut_or_new(group_id).0.durable = true;
        }
    }

    /// The first record of a group was not written: whoever waits for its first generation must look for another
    /// coordinator.
    fn undo_new_group(&mut self, group_id: &Arc<str>, incarnation: u64, failure: AppendFailure) {
        let Some((group, cx)) = self.group_mut(group_id) else {
            return;
        };
        let is_first = group.is_in(GroupState::Empty)
            || (group.is_in(GroupState::PreparingRebalance) && group.previous_state == GroupState::Empty);
        if group.incarnation != incarnation || group.durable || !is_first || group.generation != 0 {
            return;
        }
        for member_id in group.member_ids() {
            let parked = (group.take_parked_join(&member_id), None);
            group.refuse_parked(cx, parked, &member_id, failure.group_error());
        }
        group.cancel_timers(cx);
        self.forget_group(group_id);
    }

    /// Fires what is due, checks, and hands out the effects.
    pub(crate) fn finish_step(&mut self) -> Vec<Effect> {
        while let Some(key) = self.cx.timers.pop_due(self.cx.now.instant) {
            self.on_timer(key);
        }
        self.check_touched();
        self.cx.take_effects()
    }

    fn on_timer(&mut self, key: TimerKey) {
        match key {
            TimerKey::Session { group, member } => {
                if let Some((group, cx)) = self.group_mut(&group) {
                    group.on_session_timer(cx, &member);
                }
            }
            TimerKey::Join { group } => {
                if let Some((group, cx)) = self.group_mut(&group) {
                    group.on_join_timer(cx);
                }
            }
            TimerKey::Sync { group } => {
                if let Some((group, cx)) = self.group_mut(&group) {
                    group.on_sync_timer(cx);
                }
            }
            TimerKey::OffsetExpiry => self.expire_offsets(),
        }
    }
}

fn validate(settings: &GroupSettings, request: &Request) -> Result<(), GroupError> {
    // Kafka keeps the empty name for those who only keep offsets (KIP-289).
    let (group_id, may_be_empty) = match request {
        Request::Join(request) => return join::validate(settings, request),
        Request::Sync(request) => (&request.group_id, false),
        Request::Heartbeat(request) => (&request.group_id, false),
        Request::Leave(request) => (&request.group_id, false),
        Request::OffsetDelete(request) => (&request.group_id, false),
        Request::Commit(request) => (&request.group_id, true),
        Request::Fetch(request) => (&request.group_id, true),
        Request::Describe(_) | Request::List(_) | Request::Delete(_) => return Ok(()),
    };
    let too_long = group_id.len() > crate::records::STRING_BYTES_MAX;
    if too_long || (group_id.is_empty() && !may_be_empty) {
        Err(GroupError::InvalidGroupId)
    } else {
        Ok(())
    }
}

/// The answer to a request that was not even looked at.
fn refusal(request: &Request, error: GroupError) -> Response {
    match request {
        Request::Join(request) => Response::Join(JoinResponse::refused(request.member_id.clone(), error)),
        Request::Sync(_) => Response::Sync(SyncResponse::refused(error)),
        Request::Heartbeat(_) => {
            // A member that hears nothing bad waits, and its session begins when the group is loaded.
            let error = Some(error).filter(|error| *error != GroupError::CoordinatorLoadInProgress);
            Response::Heartbeat(HeartbeatResponse { error })
        }
        Request::Leave(_) => Response::Leave(LeaveResponse {
            error: Some(error),
            members: Vec::new(),
        }),
        Request::Commit(request) => Response::Commit(CommitResponse::refused(request, error)),
        Request::Fetch(request) => Response::Fetch(FetchResponse {
            group_id: request.group_id.clone(),
            error: Some(error),
            topics: Vec::new(),
        }),
        Request::Describe(request) => Response::Describe(DescribeResponse {
            groups: request
                .groups
                .iter()
                .map(|id| DescribedGroup::refused(id, error))
                .collect(),
        }),
        Request::List(_) => Response::List(ListResponse {
            error: Some(error),
            groups: Vec::new(),
        }),
        Request::Delete(request) => Response::Delete(DeleteResponse {
            groups: request
                .groups
                .iter()
                .map(|id| (id.clone(), Some(error)))
                .collect(),
        }),
        Request::OffsetDelete(_) => Response::OffsetDelete(OffsetDeleteResponse {
            error: Some(error),
            topics: Vec::new(),
        }),
    }
}
