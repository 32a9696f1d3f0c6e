//! Who is a member: the rules, and the changes at the leader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver as _;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use skerry_proto::quorum as proto;
use skerry_proto::quorum::change_members_reply::Result as Reply;
use skerry_proto::quorum::change_members_request::Change as Wire;
use skerry_proto::quorum::change_refused::Reason;
use skerry_types::{BrokerId, Uuid, is_planted, reached, sometimes};
use tonic::Status;

use super::ask::{Answer, Ask, AskError, elsewhere, forwarded, not_leader};
use super::convert::{self, ConvertError};
use super::network::Client;
use super::types::Member;
use super::{Node, broker_id, stopped};
use crate::errors::ChangeRefused;
use crate::status::QuorumStatus;

/// A learner that is further behind than this would hold up commits as a voter. Below it, the rest is on its way.
const CAUGHT_UP_ENTRIES: u64 = 1_000;
/// A member that has not answered for so many leases counts as dead.
const DEAD_AFTER_LEASES: u32 = 4;

/// A change of the members.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A learner comes, or comes back from elsewhere.
    Join {
        id: u64,
        member: Member,
        /// The cluster of the log that it has; zero for an empty one.
        cluster_id: Uuid,
    },
    AddVoter(u64),
    RemoveVoter(u64),
    RemoveLearner(u64),
}

/// What to ask openraft for.
type Steps = Vec<ChangeMembers<u64, Member>>;

/// Decides on `change`, which was asked for so long ago, by what the leader knows. No step: everything is as wanted already.
fn decide(
    change: &Change,
    status: &QuorumStatus,
    cluster_id: Uuid,
    asked_ago: Duration,
    dead_after: Duration,
) -> Result<Steps, ChangeRefused> {
    let heard = |id: BrokerId, silence_max: Duration| {
        let contact = status.member(id).and_then(|member| member.last_contact);
        contact.is_some_and(|ago| ago <= silence_max)
    };
    let alive = |id: BrokerId| heard(id, dead_after);
    let majority_lives = |voters: &BTreeSet<BrokerId>| {
        let alive = voters.iter().filter(|id| alive(**id)).count();
        let needed = voters.len() / 2 + 1;
        if alive < needed {
            return Err(ChangeRefused::LosesMajority { alive, needed });
        }
        Ok(())
    };
    let mut voters: BTreeSet<BrokerId> = status.voters().map(|member| member.id).collect();
    match change {
        Change::Join {
            id,
            member,
            cluster_id: theirs,
        } => join(*id, member, status, *theirs, cluster_id, alive(broker_id(*id))),
        Change::AddVoter(raft_id) => {
            let id = broker_id(*raft_id);
            let member = status.member(id).ok_or(ChangeRefused::UnknownNode(id))?;
            if !voters.insert(id) {
                return Err(ChangeRefused::AlreadyAVoter(id));
            }
            let entries_behind = status.entries_behind(member).unwrap_or(status.last_log_index);
            // Who was heard a moment ago may be a disk that is gone since: it would have the vote, and what has come in its
            // place none. A question names the directory that it is for, so that nobody else answers it.
            if entries_behind > CAUGHT_UP_ENTRIES || !heard(id, asked_ago) {
                return Err(ChangeRefused::NotCaughtUp {
                    node: id,
                    entries_behind,
                });
            }
            majority_lives(&voters)?;
            Ok(vec![ChangeMembers::AddVoterIds(BTreeSet::from([*raft_id]))])
        }
        Change::RemoveVoter(raft_id) => {
            let id = broker_id(*raft_id);
            if !voters.remove(&id) {
                return Err(ChangeRefused::NotAVoter(id));
            }
            if voters.is_empty() {
                return Err(ChangeRefused::LastVoter(id));
            }
            majority_lives(&voters)?;
            Ok(vec![ChangeMembers::RemoveVoters(BTreeSet::from([*raft_id]))])
        }
        Change::RemoveLearner(raft_id) => {
            let id = broker_id(*raft_id);
            if voters.contains(&id) {
                return Err(ChangeRefused::StillAVoter(id));
            }
            status.member(id).ok_or(ChangeRefused::UnknownNode(id))?;
            Ok(vec![ChangeMembers::RemoveNodes(BTreeSet::from([*raft_id]))])
        }
    }
}

fn join(
    raft_id: u64,
    member: &Member,
    status: &QuorumStatus,
    theirs: Uuid,
    ours: Uuid,
    alive: bool,
) -> Result<Steps, ChangeRefused> {
    let id = broker_id(raft_id);
    if !theirs.is_zero() && theirs != ours {
        return Err(ChangeRefused::OtherCluster(id));
    }
    let add = |member: Member| ChangeMembers::AddNodes(BTreeMap::from([(raft_id, member)]));
    let Some(known) = status.member(id) else {
        return Ok(vec![add(member.clone())]);
    };
    if known.directory != member.directory && !known.directory.is_zero() {
        // A voter's promises went with its disk; and two that live under one number are a mistake.
        if known.voter || alive {
            reached("another-directory-refused");
            return Err(ChangeRefused::OtherDirectory(id));
        }
        // Away and back, so that replication begins again at the beginning.
        let gone = ChangeMembers::RemoveNodes(BTreeSet::from([raft_id]));
        return Ok(vec![gone, add(member.clone())]);
    }
    if known.addr == member.addr && known.directory == member.directory {
        return Ok(Vec::new());
    }
    let moved = Member {
        note: known.note.clone(),
        ..member.clone()
    };
    Ok(vec![ChangeMembers::SetNodes(BTreeMap::from([(raft_id, moved)]))])
}

impl Ask for Change {
    type Output = Result<(), ChangeRefused>;

    async fn here(&self, node: &Node) -> Result<Answer<Self::Output>, AskError> {
        node.change_members(self).await
    }

    async fn there(&self, mut client: Client, asker: proto::Asker) -> Result<Answer<Self::Output>, Status> {
        let request = proto::ChangeMembersRequest {
            change: Some(self.wire()),
            asker: Some(asker),
        };
        match client.change_members(request).await?.into_inner().result {
            Some(Reply::Done(proto::Blank {})) => Ok(Answer::Done(Ok(()))),
            Some(Reply::NotLeader(elsewhere)) => Ok(not_leader(elsewhere)),
            Some(Reply::Refused(refused)) => Ok(Answer::Done(Err(read_refused(&refused)?))),
            None => Err(Status::internal("an empty answer")),
        }
    }
}

impl Node {
    /// Changes the members at this node, which may lead. Joining and leaving learners take one entry, voters two
    /// (joint consensus); a leader that dies between the two is followed by one that finishes ([`Node::keep`]).
    pub(super) async fn change_members(
        &self,
        change: &Change,
    ) -> Result<Answer<Result<(), ChangeRefused>>, AskError> {
        let Ok(_changing) = self.changing().try_lock() else {
            return Ok(Answer::Done(Err(ChangeRefused::InProgress)));
        };
        let dead_after = self.config().timings.lease * DEAD_AFTER_LEASES;
        let asked_at = self.env().clock.now();
        let patient_until = asked_at + dead_after;
        let steps = loop {
            let status = self.status();
            if status.leader != Some(status.node_id) {
                return Ok(Answer::NotLeader {
                    leader: self.known_leader(),
                });
            }
            let ours = self.publisher().image().cluster_id().unwrap_or(Uuid::ZERO);
            let asked_ago = self.env().clock.now().since(asked_at);
            let refused = match decide(change, &status, ours, asked_ago, dead_after) {
                Ok(steps) => break steps,
                Err(refused) => refused,
            };
            // A new leader has not heard from everybody yet, and a new learner is on its way.
            let may_pass = matches!(
                refused,
                ChangeRefused::LosesMajority { .. } | ChangeRefused::NotCaughtUp { .. }
            );
            if !may_pass || self.env().clock.now() > patient_until {
                return Ok(Answer::Done(Err(refused)));
            }
            self.env().clock.sleep(self.config().timings.heartbeat).await;
        };
        if matches!(change, Change::RemoveVoter(id) if *id == self.raft_id()) {
            // openraft lets a learner lead on. The next leader removes this node: whoever asked asks there.
            if !self.hand_over().await {
                self.fall_silent().await;
            }
            return Ok(Answer::NotLeader {
                leader: self.known_leader(),
            });
        }
        for step in steps {
            let text = step.to_string();
            match self.change_step(step).await? {
                Answer::Done(Ok(())) => tracing::info!(change = text, "the quorum's members changed"),
                answer => return Ok(answer),
            }
        }
        Ok(Answer::Done(Ok(())))
    }

    async fn change_step(
        &self,
        step: ChangeMembers<u64, Member>,
    ) -> Result<Answer<Result<(), ChangeRefused>>, AskError> {
        let changed = self.scoped(self.raft().change_membership(step, true)).await;
        let error = match changed {
            Ok(_) => return Ok(Answer::Done(Ok(()))),
            Err(RaftError::Fatal(fatal)) => return Err(stopped(&fatal)),
            Err(RaftError::APIError(error)) => error,
        };
        Ok(match error {
            ClientWriteError::ForwardToLeader(forward) => forwarded(forward),
            ClientWriteError::LogEntryDiscarded(_) | ClientWriteError::PreconditionFailed(_) => {
                Answer::NotLeader { leader: None }
            }
            ClientWriteError::ChangeMembershipError(error) => Answer::Done(Err(match error {
                ChangeMembershipError::LearnerNotFound(missing) => {
                    ChangeRefused::UnknownNode(broker_id(missing.node_id))
                }
                // The rest says that an earlier change is not committed, or cannot happen: the rules came before.
                _ => ChangeRefused::InProgress,
            })),
        })
    }

    /// Keeps the address book, and finishes a change of the voters that nobody is at any more: its leader died between the two
    /// entries, or whoever asked for it gave up before. Ends with openraft.
    pub(super) async fn keep(self) {
        let mut metrics = self.raft().server_metrics();
        loop {
            let half = {
                let now = metrics.borrow_watched();
                let membership = now.membership_config.membership();
                self.book().update(membership);
                let joint = membership.get_joint_config().len() > 1
                    && now.membership_config.log_id() == now.committed_membership_config.log_id();
                joint && now.current_leader == Some(now.id)
            };
            let finished = !half || self.finish_change().await || is_planted("half-change-tried-once");
            sometimes("half-change-finished", half && finished);
            let again = async {
                if finished {
                    std::future::pending::<()>().await;
                }
                self.env().clock.sleep(self.config().timings.heartbeat).await;
            };
            tokio::select! {
                biased;
                changed = metrics.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = again => {}
            }
        }
    }

    /// False where it has to be tried again, though no metric changes: a leader that was just elected has no lease yet, and
    /// whoever holds the lock, and would finish its own change, may give up.
    async fn finish_change(&self) -> bool {
        let Ok(_changing) = self.changing().try_lock() else {
            return false;
        };
        let finish = ChangeMembers::AddVoterIds(BTreeSet::new());
        match self.scoped(self.raft().change_membership(finish, true)).await {
            Ok(_) => {
                tracing::info!("a change of the voters was finished that somebody else began");
                true
            }
            Err(error) => {
                tracing::debug!(%error, "a change of the voters is still unfinished");
                false
            }
        }
    }
}

impl Change {
    fn wire(&self) -> Wire {
        match self {
            Self::Join {
                id,
                member,
                cluster_id,
            } => Wire::Join(proto::Join {
                member: Some(convert::member(*id, member)),
                cluster_id: convert::uuid(*cluster_id),
            }),
            Self::AddVoter(id) => Wire::AddVoter(*id),
            Self::RemoveVoter(id) => Wire::RemoveVoter(*id),
            Self::RemoveLearner(id) => Wire::RemoveLearner(*id),
        }
    }

    pub(super) fn read(request: proto::ChangeMembersRequest) -> Result<Self, ConvertError> {
        Ok(match request.change.ok_or(ConvertError::Missing("a change"))? {
            Wire::Join(join) => {
                let member = join.member.ok_or(ConvertError::Missing("a member"))?;
                let (id, member) = convert::read_member(member)?;
                Self::Join {
                    id,
                    member: Member {
                        note: String::new(),
                        ..member
                    },
                    cluster_id: convert::read_uuid(&join.cluster_id)?,
                }
            }
            Wire::AddVoter(id) => Self::AddVoter(id),
            Wire::RemoveVoter(id) => Self::RemoveVoter(id),
            Wire::RemoveLearner(id) => Self::RemoveLearner(id),
        })
    }
}

/// The answer for the wire.
pub(super) fn reply(answer: Answer<Result<(), ChangeRefused>>) -> proto::ChangeMembersReply {
    let result = match answer {
        Answer::Done(Ok(())) => Reply::Done(proto::Blank {}),
        Answer::Done(Err(refused)) => Reply::Refused(refusal(&refused)),
        Answer::NotLeader { leader } => Reply::NotLeader(elsewhere(leader)),
    };
    proto::ChangeMembersReply { result: Some(result) }
}

fn refusal(refused: &ChangeRefused) -> proto::ChangeRefused {
    let of = |reason: Reason, node: BrokerId| proto::ChangeRefused {
        reason: reason.into(),
        node: u64::try_from(node.get()).unwrap_or(0),
        ..Default::default()
    };
    match *refused {
        ChangeRefused::UnknownNode(id) => of(Reason::UnknownNode, id),
        ChangeRefused::NotAVoter(id) => of(Reason::NotAVoter, id),
        ChangeRefused::AlreadyAVoter(id) => of(Reason::AlreadyAVoter, id),
        ChangeRefused::StillAVoter(id) => of(Reason::StillAVoter, id),
        ChangeRefused::NotCaughtUp { node, entries_behind } => proto::ChangeRefused {
            entries_behind,
            ..of(Reason::NotCaughtUp, node)
        },
        ChangeRefused::LosesMajority { alive, needed } => proto::ChangeRefused {
            alive: u32::try_from(alive).unwrap_or(u32::MAX),
            needed: u32::try_from(needed).unwrap_or(u32::MAX),
            ..of(Reason::LosesMajority, BrokerId(0))
        },
        ChangeRefused::LastVoter(id) => of(Reason::LastVoter, id),
        ChangeRefused::InProgress => of(Reason::InProgress, BrokerId(0)),
        ChangeRefused::OtherDirectory(id) => of(Reason::OtherDirectory, id),
        ChangeRefused::OtherCluster(id) => of(Reason::OtherCluster, id),
    }
}

fn read_refused(refused: &proto::ChangeRefused) -> Result<ChangeRefused, ConvertError> {
    let id = broker_id(refused.node);
    Ok(match refused.reason() {
        Reason::Unspecified => return Err(ConvertError::Missing("a reason")),
        Reason::UnknownNode => ChangeRefused::UnknownNode(id),
        Reason::NotAVoter => ChangeRefused::NotAVoter(id),
        Reason::AlreadyAVoter => ChangeRefused::AlreadyAVoter(id),
        Reason::StillAVoter => ChangeRefused::StillAVoter(id),
        Reason::NotCaughtUp => ChangeRefused::NotCaughtUp {
            node: id,
            entries_behind: refused.entries_behind,
        },
        Reason::LosesMajority => ChangeRefused::LosesMajority {
            alive: refused.alive as usize,
            needed: refused.needed as usize,
        },
        Reason::LastVoter => ChangeRefused::LastVoter(id),
        Reason::InProgress => ChangeRefused::InProgress,
        Reason::OtherDirectory => ChangeRefused::OtherDirectory(id),
        Reason::OtherCluster => ChangeRefused::OtherCluster(id),
    })
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use skerry_env::Env;

    use super::super::types::Membership;
    use super::*;
    use crate::config::QuorumConfig;
    use crate::status::{MemberStatus, Role};

    const LEASE: Duration = Duration::from_millis(100);

    /// `1v 2v 3v(dead) 4(behind 5000)`: node 1 leads at index 10,000 and answers at once.
    fn status(members: &str) -> QuorumStatus {
        let members = members
            .split(' ')
            .map(|text| {
                let (head, note) = text.split_once('(').unwrap_or((text, ""));
                let behind = note
                    .strip_prefix("behind")
                    .map_or(0, |rest| rest.trim_end_matches(')').parse().expect("a number"));
                MemberStatus {
                    id: BrokerId(head.trim_end_matches('v').parse().expect("a number")),
                    addr: format!("host{head}"),
                    directory: Uuid([7; 16]),
                    note: String::new(),
                    voter: head.ends_with('v'),
                    matched_index: Some(10_000 - behind),
                    last_contact: match note {
                        "dead)" => None,
                        "late)" => Some(LEASE / 2),
                        _ => Some(Duration::ZERO),
                    },
                }
            })
            .collect();
        QuorumStatus {
            node_id: BrokerId(1),
            role: Role::Leader,
            term: 3,
            leader: Some(BrokerId(1)),
            leader_contact: None,
            last_log_index: 10_000,
            committed_index: 10_000,
            applied_index: 10_000,
            snapshot_index: 0,
            purged_index: 0,
            members,
        }
    }

    fn check(members: &str, change: &Change) -> String {
        check_after(members, change, LEASE)
    }

    /// So long after it was asked for. Who is `late` has answered a question of half a lease ago.
    fn check_after(members: &str, change: &Change, asked_ago: Duration) -> String {
        match decide(change, &status(members), Uuid([1; 16]), asked_ago, LEASE) {
            Ok(steps) if steps.is_empty() => "nothing to do".to_owned(),
            Ok(steps) => steps
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", then "),
            Err(refused) => refused.to_string(),
        }
    }

    #[test]
    fn voters_are_added_when_they_can_help() {
        let add = Change::AddVoter(4);
        assert_eq!(check("1v 2v 3v 4", &add), "AddVoterIds([4])");
        assert_eq!(check("1v 2v 3v 4(behind900)", &add), "AddVoterIds([4])");
        assert_eq!(
            check("1v 2v 3v 4(behind5000)", &add),
            "node 4 has not caught up: 5000 entries behind, or silent"
        );
        assert_eq!(
            check("1v 2v 3v 4(dead)", &add),
            "node 4 has not caught up: 0 entries behind, or silent"
        );
        assert_eq!(check("1v 2v 3v 4v", &add), "node 4 is a voter already");
        assert_eq!(
            check("1v 2v 3v", &add),
            "node 4 is not a member of the quorum: start it first, it joins by itself"
        );
        // A dead voter is replaced: the new one first.
        assert_eq!(check("1v 2v 3v(dead) 4", &add), "AddVoterIds([4])");
    }

    /// Its disk may be gone, and another one on its way under the same number: that one could not get the vote any more.
    #[test]
    fn only_who_has_answered_since_gets_a_vote() {
        let add = Change::AddVoter(4);
        let after = |asked_ago| check_after("1v 2v 3v 4(late)", &add, asked_ago);
        let refused = "node 4 has not caught up: 0 entries behind, or silent";
        assert_eq!(after(Duration::ZERO), refused);
        assert_eq!(after(LEASE / 4), refused);
        assert_eq!(after(LEASE), "AddVoterIds([4])");
    }

    #[test]
    fn voters_are_removed_while_a_majority_of_the_rest_lives() {
        let remove = |id| Change::RemoveVoter(id);
        assert_eq!(check("1v 2v 3v(dead) 4v", &remove(3)), "RemoveVoters([3])");
        assert_eq!(check("1v 2v 3v(dead)", &remove(3)), "RemoveVoters([3])");
        assert_eq!(
            check("1v 2v 3v(dead)", &remove(2)),
            "only 1 of the voters would be alive, and 2 are needed to decide: bring one back first, or remove a dead one"
        );
        assert_eq!(check("1v 2", &remove(1)), "node 1 is the last voter");
        assert_eq!(check("1v 2", &remove(2)), "node 2 is not a voter");
        assert_eq!(check("1v 2v", &remove(1)), "RemoveVoters([1])");
    }

    #[test]
    fn learners_come_and_go() {
        let join = |id: u64, addr: &str, directory: u8, cluster: u8| Change::Join {
            id,
            member: Member {
                addr: addr.to_owned(),
                directory: Uuid([directory; 16]),
                note: String::new(),
            },
            cluster_id: Uuid([cluster; 16]),
        };
        assert!(check("1v", &join(2, "host2", 7, 0)).starts_with("AddNodes("));
        assert_eq!(check("1v 2", &join(2, "host2", 7, 1)), "nothing to do");
        assert!(check("1v 2v", &join(2, "elsewhere", 7, 1)).starts_with("SetNodes("));
        assert!(check("1v 2(dead)", &join(2, "host2", 8, 0)).starts_with("RemoveNodes([2]), then AddNodes("));
        let other = "node 2 is a member with another data directory, and this one is new. If that disk is lost: \
             `skerry cluster voters remove 2` lets this one join, and `voters add 2` lets it vote. If not: give this \
             node another id";
        assert_eq!(check("1v 2v(dead)", &join(2, "host2", 8, 0)), other);
        assert_eq!(check("1v 2", &join(2, "host2", 8, 0)), other);
        assert_eq!(
            check("1v", &join(2, "host2", 7, 9)),
            "node 2 has the metadata of another cluster"
        );
        assert_eq!(
            check("1v 2v", &Change::RemoveLearner(2)),
            "node 2 is a voter: remove it from the voters first"
        );
        assert_eq!(check("1v 2", &Change::RemoveLearner(2)), "RemoveNodes([2])");
    }

    #[test]
    fn every_refusal_survives_the_wire() {
        let id = BrokerId(4);
        for refused in [
            ChangeRefused::UnknownNode(id),
            ChangeRefused::NotAVoter(id),
            ChangeRefused::AlreadyAVoter(id),
            ChangeRefused::StillAVoter(id),
            ChangeRefused::NotCaughtUp {
                node: id,
                entries_behind: 7,
            },
            ChangeRefused::LosesMajority { alive: 1, needed: 2 },
            ChangeRefused::LastVoter(id),
            ChangeRefused::InProgress,
            ChangeRefused::OtherDirectory(id),
            ChangeRefused::OtherCluster(id),
        ] {
            assert_eq!(read_refused(&refusal(&refused)).expect("it is one"), refused);
        }
    }

    async fn until(node: &Node, what: &str, is_so: impl Fn() -> bool) {
        let waiting = async {
            while !is_so() {
                node.env().clock.sleep(Duration::from_millis(1)).await;
            }
        };
        let in_time = node.env().clock.timeout(Duration::from_secs(10), waiting).await;
        assert!(in_time.is_ok(), "{what}");
    }

    /// Seed 2235 of any size, 60 s: the voters stayed those of before and those of after, and needed a majority of both.
    #[tokio::test]
    async fn half_a_change_is_finished_when_whoever_was_at_it_gives_up() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = QuorumConfig::single(BrokerId(1), dir.path(), "nowhere");
        let heartbeat = config.timings.heartbeat;
        let node = Node::open(Env::os(), config, "nowhere".to_owned(), Uuid([7; 16])).await;
        let node = node.expect("opens");
        node.join().await.expect("founds and leads");
        let committed = || {
            let metrics = node.raft().server_metrics();
            let now = metrics.borrow_watched();
            now.committed_membership_config.membership().clone()
        };
        // The first entry of its term is committed, and everybody has been told who votes.
        until(&node, "it leads", || {
            let status = node.status();
            status.committed_index >= 1 && committed().nodes().count() == 1
        })
        .await;
        let beginning = node.changing().lock().await;
        let voters = BTreeSet::from([1]);
        let members: BTreeMap<u64, Member> = committed()
            .nodes()
            .map(|(id, member)| (*id, member.clone()))
            .collect();
        let half = Membership::new(vec![voters.clone(), voters], members).expect("a membership");
        let begun = node.raft().append_membership(half, EntryPayload::Blank, []);
        node.scoped(begun).await.expect("committed");
        let configs = || committed().get_joint_config().len();
        until(&node, "half of it is committed", || configs() == 2).await;
        // Long enough that the keeper has looked, and left it to whoever is at it.
        node.env().clock.sleep(heartbeat * 2).await;
        drop(beginning);
        until(&node, "the other half too", || configs() == 1).await;
        node.shutdown().await;
    }
}
