//! The orders that always hold. A step checks the groups that it touched; [`GroupShard::check`] checks everything.

use std::collections::BTreeSet;
use std::mem;

use crate::api::GroupState;
use crate::append::Then;
use crate::group::Group;
use crate::shard::{GroupShard, Phase};
use crate::timers::TimerKey;

impl GroupShard {
    pub(crate) fn check_touched(&mut self) {
        for group_id in mem::take(&mut self.touched) {
            if let Some(group) = self.groups.get_mut(&group_id) {
                group.check();
                let bytes = group.state_bytes();
                self.state_bytes = self.state_bytes - group.counted_bytes + bytes;
                group.counted_bytes = bytes;
            }
        }
    }

    /// Checks every order that must hold between two steps. It looks at all there is: for tests and simulation.
    ///
    /// # Panics
    /// If one does not hold.
    pub fn check(&mut self) {
        self.cx.check();
        for group in self.groups.values_mut() {
            group.check();
        }
        let counted: usize = self.groups.values().map(|group| group.counted_bytes).sum();
        assert_eq!(counted, self.state_bytes, "bytes of all groups");
        if self.phase == Phase::Serving {
            for group in self.groups.values() {
                assert_eq!(
                    group.state_bytes(),
                    group.counted_bytes,
                    "bytes of {:?}",
                    group.id
                );
            }
            for group in self.groups.values() {
                self.check_timers(group);
            }
            for group_id in self.offsets.keys() {
                assert!(
                    self.groups.contains_key(group_id),
                    "offsets of {group_id:?} and no group"
                );
            }
        }
        self.check_tokens();
    }

    /// Whatever a group waits for, a deadline or an append ends the waiting.
    fn check_timers(&self, group: &Group) {
        let id = &group.id;
        let has = |key: &TimerKey| self.cx.timers.contains(key);
        for member in group.members() {
            let waits = member.parked_join.is_some() || member.parked_sync.is_some();
            assert!(
                waits || has(&group.session_key(&member.id)),
                "group {id:?}: nothing ends the session of {:?} in {:?}",
                member.id,
                group.state
            );
        }
        for member_id in &group.pending_joins {
            assert!(
                has(&group.session_key(member_id)),
                "group {id:?}: {member_id:?} is pending for ever"
            );
        }
        let join = has(&TimerKey::Join { group: id.clone() });
        assert_eq!(
            join,
            group.is_in(GroupState::PreparingRebalance),
            "group {id:?}: timer of the join phase"
        );
        let sync = has(&TimerKey::Sync { group: id.clone() });
        assert_eq!(
            sync,
            !group.pending_syncs.is_empty(),
            "group {id:?}: timer of the sync phase"
        );
        if group.is_in(GroupState::CompletingRebalance) {
            assert!(
                sync || group.assignment_in_flight,
                "group {id:?} waits for an assignment for ever"
            );
        }
    }

    /// Every request that was not answered waits in exactly one place.
    fn check_tokens(&self) {
        let mut parked = BTreeSet::new();
        let members = self.groups.values().flat_map(Group::members);
        let joins_and_syncs = members.flat_map(|member| [member.parked_join, member.parked_sync]);
        let mut all: Vec<_> = joins_and_syncs.flatten().collect();
        for pending in self.cx.appends().values() {
            if let Then::Reply(token, _) = &pending.then {
                all.push(*token);
            }
            all.extend(pending.fetches.iter().map(|(token, _)| *token));
        }
        for token in all {
            assert!(parked.insert(token), "{token:?} waits in two places");
        }
        assert_eq!(
            &parked,
            self.cx.open_tokens(),
            "who waits is who was not answered"
        );
    }
}
