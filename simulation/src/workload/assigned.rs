//! What the members of a group hear of a generation, compared with what its leader has sent for them: each is given the bytes
//! that one and the same leader wrote for it, whoever hears of a generation hears of the same leader and protocol, and the
//! leader was told of every member and of what it subscribes to.
//!
//! A generation counts from its first assignment on: only then is it written. One that a crash undid before may have another
//! leader when it is made again, so only who was given something is compared.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::invariants::Found;

/// What a leader has sent: for each member that it was told of.
pub(super) type Shares = BTreeMap<String, Bytes>;

/// All groups.
#[derive(Default)]
pub(super) struct Assigned {
    /// By group and member: what it says that it reads.
    subscriptions: BTreeMap<(String, String), Bytes>,
    generations: BTreeMap<(String, i32), Generation>,
    /// What is written of groups may have been lost, beyond the contract: their generations begin again.
    may_begin_again: bool,
}

#[derive(Default)]
struct Generation {
    /// What leaders have sent, while each fits what every member was given.
    decided: Vec<Shares>,
    /// The first member that was given something: it, its leader and its protocol.
    heard: Option<(String, String, String)>,
}

/// What a member has heard of a generation.
pub(super) struct Given<'a> {
    pub(super) group: &'a str,
    pub(super) generation: i32,
    pub(super) member: &'a str,
    pub(super) leader: &'a str,
    pub(super) protocol: &'a str,
    pub(super) share: &'a Bytes,
}

impl Assigned {
    /// A member is about to join.
    pub(super) fn on_joins(&mut self, group: &str, member: &str, subscription: Bytes) {
        let who = (group.to_owned(), member.to_owned());
        self.subscriptions.insert(who, subscription);
    }

    /// A leader was told of these members and their subscriptions.
    pub(super) fn on_led<'a>(
        &self,
        group: &str,
        generation: i32,
        members: impl Iterator<Item = (&'a str, &'a Bytes)>,
    ) -> Found {
        let mut found = Found::new();
        for (member, told) in members {
            let said = self.subscriptions.get(&(group.to_owned(), member.to_owned()));
            if said.is_some_and(|said| said != told) {
                let message = format!(
                    "the leader of generation {generation} of {group} is told that {member} subscribes to {told:?}: it said \
                     {said:?}"
                );
                found.push(("generation-differs", message));
            }
        }
        found
    }

    /// A leader is about to send this.
    pub(super) fn on_decided(&mut self, group: &str, generation: i32, shares: Shares) {
        let generation = self.generations.entry((group.to_owned(), generation));
        generation.or_default().decided.push(shares);
    }

    /// Records of groups are given up.
    pub(super) const fn on_given_up(&mut self) {
        self.may_begin_again = true;
    }

    /// A member is told what it has.
    pub(super) fn on_given(&mut self, given: &Given<'_>) -> Found {
        let mut found = Found::new();
        if self.may_begin_again {
            return found;
        }
        let Given {
            group,
            generation,
            member,
            leader,
            protocol,
            share,
        } = *given;
        let known = self
            .generations
            .entry((group.to_owned(), generation))
            .or_default();
        let who = known
            .heard
            .get_or_insert_with(|| (member.to_owned(), leader.to_owned(), protocol.to_owned()));
        if (who.1.as_str(), who.2.as_str()) != (leader, protocol) {
            let message = format!(
                "generation {generation} of {group}: {member} hears of the leader {leader} and {protocol}, and {who:?} was \
                 first"
            );
            found.push(("generation-differs", message));
        }
        let mut fitting = known.decided.clone();
        fitting.retain(|shares| shares.get(member) == Some(share));
        if fitting.is_empty() {
            let message = format!(
                "{member} is given {share:?} in generation {generation} of {group}, whose leader has sent {:?}",
                known.decided
            );
            found.push(("assignment-differs", message));
        } else {
            known.decided = fitting;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(of: &[(&str, &'static str)]) -> Shares {
        let shares = of
            .iter()
            .map(|(member, share)| ((*member).to_owned(), Bytes::from_static(share.as_bytes())));
        shares.collect()
    }

    fn given(
        assigned: &mut Assigned,
        generation: i32,
        member: &str,
        leader: &str,
        share: &'static str,
    ) -> Found {
        assigned.on_given(&Given {
            group: "g",
            generation,
            member,
            leader,
            protocol: "range",
            share: &Bytes::from_static(share.as_bytes()),
        })
    }

    #[test]
    fn members_are_given_what_their_leader_has_sent() {
        let mut assigned = Assigned::default();
        assigned.on_decided("g", 1, shares(&[("a", "x:0;"), ("b", "x:1;")]));
        // The coordinator was lost before it was written, and another member leads the generation now.
        assigned.on_decided("g", 1, shares(&[("a", "x:1;"), ("b", "x:0;")]));
        assigned.on_decided("g", 2, shares(&[("a", "x:0;x:1;"), ("b", "")]));
        assert!(given(&mut assigned, 1, "a", "b", "x:1;").is_empty());
        assert!(given(&mut assigned, 1, "b", "b", "x:0;").is_empty());
        assert!(
            given(&mut assigned, 1, "b", "b", "x:0;").is_empty(),
            "asked again"
        );
        // Half of each, of the generation before, of nobody, of somebody who was not there.
        assert_eq!(
            given(&mut assigned, 1, "b", "b", "x:1;")[0].0,
            "assignment-differs"
        );
        assert_eq!(
            given(&mut assigned, 2, "b", "b", "x:0;")[0].0,
            "assignment-differs"
        );
        assert_eq!(given(&mut assigned, 3, "a", "b", "")[0].0, "assignment-differs");
        assert_eq!(given(&mut assigned, 2, "c", "b", "")[0].0, "assignment-differs");
    }

    #[test]
    fn members_of_a_generation_hear_of_the_same_leader() {
        let mut assigned = Assigned::default();
        assigned.on_decided("g", 1, shares(&[("a", "x:0;"), ("b", "x:1;")]));
        assert!(given(&mut assigned, 1, "a", "a", "x:0;").is_empty());
        assert_eq!(
            given(&mut assigned, 1, "b", "b", "x:1;")[0].0,
            "generation-differs"
        );

        assigned.on_joins("g", "a", Bytes::from_static(b"orders"));
        let told =
            |told: &'static [u8]| assigned.on_led("g", 2, [("a", &Bytes::from_static(told))].into_iter());
        assert!(told(b"orders").is_empty());
        assert_eq!(told(b"events")[0].0, "generation-differs");
    }
}
