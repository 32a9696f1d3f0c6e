//! A member of a classic consumer group.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, OffsetCommitRequest,
    OffsetFetchRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use skerry_client::ResponseError;

use super::assigned::Given;
use super::consume::{FetchSessions, Position, Positions, Style, fetch, new_session};
use super::{Client, Failure, To, error_name, key, text, topic_name};
use crate::invariants::{Found, offsets};
use crate::trace::fnv_of;
use skerry_checker::history::{Op, Outcome};

/// What the groups read.
pub(crate) const READ: [(&str, i32); 2] = [("orders", 3), ("events", 2)];
const SESSION_TIMEOUT_MS: i32 = 2_000;
const REBALANCE_TIMEOUT_MS: i32 = 2_000;
const STYLE: Style = Style {
    newest: i16::MAX,
    max_wait_ms: 100,
    max_bytes: 50_000,
    min_bytes: 1,
    answer_max_bytes: 1 << 20,
};

struct Membership {
    member: StrBytes,
    generation: i32,
}

pub(super) async fn run(mut client: Client, group: &str) {
    let mut member = StrBytes::default();
    let mut last_generation = None;
    while !client.is_stopping() {
        match join(&mut client, group, &member).await {
            Ok((membership, assigned)) => {
                member = membership.member.clone();
                if let Some(old) = last_generation.replace(membership.generation) {
                    try_as_zombie(&mut client, group, &membership, old).await;
                }
                if let Err(failure) = take_part(&mut client, group, &membership, &assigned).await
                    && (failure.why.contains("UnknownMember") || failure.why.contains("IllegalGeneration"))
                {
                    member = StrBytes::default();
                }
            }
            Err(failure) => {
                if failure.why.contains("UnknownMember") {
                    member = StrBytes::default();
                }
                client.pause(200).await;
            }
        }
        if client.env.rng.chance(1, 6) {
            leave(&mut client, group, &member).await;
            member = StrBytes::default();
        }
    }
}

fn group_id(group: &str) -> GroupId {
    GroupId(text(group))
}

fn check(code: i16) -> Result<(), Failure> {
    if code == 0 {
        Ok(())
    } else {
        Err(Failure::unknown(error_name(code)))
    }
}

/// Asks who coordinates the group, also where it was known.
async fn find(client: &mut Client, group: &str) -> Result<(), Failure> {
    client.coordinators.remove(group);
    client.find_coordinator(group).await.map(drop)
}

/// Somebody new joins, is given a share, is heard, and goes again: the group is at rest, and its coordinator ends its
/// rebalances.
pub(super) async fn visit(client: &mut Client, group: &str) -> Result<(), Failure> {
    let (membership, _) = join(client, group, &StrBytes::default()).await?;
    let heard = heartbeat(client, group, &membership).await;
    leave(client, group, &membership.member).await;
    heard
}

async fn heartbeat(client: &mut Client, group: &str, membership: &Membership) -> Result<(), Failure> {
    let request = HeartbeatRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(membership.generation)
        .with_member_id(membership.member.clone());
    check(client.call(To::Coordinator(group), &request).await?.error_code)
}

/// Joins and syncs; returns what is assigned.
async fn join(
    client: &mut Client,
    group: &str,
    member: &StrBytes,
) -> Result<(Membership, Vec<(String, i32)>), Failure> {
    find(client, group).await?;
    let op = client.invoke(Op::Join {
        group: group.to_owned(),
    });
    let entered = join_and_sync(client, group, member).await;
    // A generation counts from its first assignment on: only then is it written, and a crash before that undoes it.
    let outcome = match &entered {
        Ok((membership, _)) => Outcome::Joined {
            generation: membership.generation,
        },
        Err(failure) => failure.outcome(),
    };
    client.complete(op, outcome);
    entered
}

async fn join_and_sync(
    client: &mut Client,
    group: &str,
    member: &StrBytes,
) -> Result<(Membership, Vec<(String, i32)>), Failure> {
    let joined = ask_to_join(client, group, member).await?;
    let mut assignments = Vec::new();
    let protocol = joined.protocol_name.clone().unwrap_or_default();
    if joined.leader == joined.member_id {
        if client.env.rng.chance(1, 6) {
            // Its generation waits for its assignment: nobody owns anything, and this must be refused.
            let early = Membership {
                member: joined.member_id.clone(),
                generation: joined.generation_id,
            };
            let _ = commit(client, group, &early, (READ[0].0, 0), 0).await;
        }
        let mut members: Vec<_> = joined
            .members
            .iter()
            .map(|member| (member.member_id.clone(), member.metadata.clone()))
            .collect();
        members.sort();
        let told = members
            .iter()
            .map(|(member, metadata)| (member.as_str(), metadata));
        let found = client
            .shared
            .assigned
            .lock()
            .on_led(group, joined.generation_id, told);
        client.report(found);
        assignments = assign(&members);
        let shares = assignments
            .iter()
            .map(|share| (share.member_id.to_string(), share.assignment.clone()));
        let mut assigned = client.shared.assigned.lock();
        assigned.on_decided(group, joined.generation_id, shares.collect());
    }
    let request = SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")))
        .with_assignments(assignments);
    let answer = client.call(To::Coordinator(group), &request).await?;
    check(answer.error_code)?;
    let found = client.shared.assigned.lock().on_given(&Given {
        group,
        generation: joined.generation_id,
        member: &joined.member_id,
        leader: &joined.leader,
        protocol: answer.protocol_name.as_ref().unwrap_or(&protocol),
        share: &answer.assignment,
    });
    client.report(found);
    let assigned = String::from_utf8_lossy(&answer.assignment)
        .split_terminator(';')
        .filter_map(|place| {
            place
                .rsplit_once(':')
                .map(|(topic, partition)| (topic.to_owned(), partition.parse()))
        })
        .filter_map(|(topic, partition)| Some((topic, partition.ok()?)))
        .collect();
    Ok((
        Membership {
            member: joined.member_id,
            generation: joined.generation_id,
        },
        assigned,
    ))
}

async fn ask_to_join(
    client: &mut Client,
    group: &str,
    member: &StrBytes,
) -> Result<JoinGroupResponse, Failure> {
    let mut member = member.clone();
    // Twice: the first answer to a nameless member is its name (KIP-394).
    for _ in 0..2 {
        let subscription = subscription(&client.name);
        if !member.is_empty() {
            let mut assigned = client.shared.assigned.lock();
            assigned.on_joins(group, &member, subscription.clone());
        }
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(subscription);
        let request = JoinGroupRequest::default()
            .with_group_id(group_id(group))
            .with_session_timeout_ms(SESSION_TIMEOUT_MS)
            .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
            .with_member_id(member.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let answer = client.call(To::Coordinator(group), &request).await?;
        if ResponseError::try_from_code(answer.error_code) == Some(ResponseError::MemberIdRequired) {
            member = answer.member_id;
            continue;
        }
        check(answer.error_code)?;
        return Ok(answer);
    }
    Err(Failure::unknown("MemberIdRequired twice"))
}

/// What a client subscribes to, as consumers write it (`ConsumerProtocolSubscription`): some only to the first topic.
fn subscription(client: &str) -> Bytes {
    let topics = if fnv_of(client.as_bytes()).is_multiple_of(3) {
        1
    } else {
        READ.len()
    };
    let topics: Vec<&str> = READ[..topics].iter().map(|(topic, _)| *topic).collect();
    offsets::subscription(&topics)
}

/// Each partition of each topic to one of those that subscribe to it: one after the other, round and round.
fn assign(members: &[(StrBytes, Bytes)]) -> Vec<SyncGroupRequestAssignment> {
    let mut shares = vec![String::new(); members.len()];
    let mut turn = 0;
    for (topic, partitions) in READ {
        let readers: Vec<usize> = (0..members.len())
            .filter(|index| offsets::subscribes(&members[*index].1, topic))
            .collect();
        for number in (0..partitions).take_while(|_| !readers.is_empty()) {
            shares[readers[turn % readers.len()]].push_str(&format!("{topic}:{number};"));
            turn += 1;
        }
    }
    let shares = members.iter().zip(shares).map(|((member, _), share)| {
        SyncGroupRequestAssignment::default()
            .with_member_id(member.clone())
            .with_assignment(share.into())
    });
    shares.collect()
}

/// Reads and commits until something ends the membership.
async fn take_part(
    client: &mut Client,
    group: &str,
    membership: &Membership,
    assigned: &[(String, i32)],
) -> Result<(), Failure> {
    let mut positions = Positions::new();
    let mut committed = BTreeMap::new();
    for (topic, partition) in assigned {
        let offset = read_commit(client, group, topic, *partition).await?;
        committed.insert((topic.clone(), *partition), offset);
        let position = Position {
            next: offset.max(0),
            last_epoch: -1,
            session: new_session(client),
        };
        positions.insert((topic.clone(), *partition), position);
    }
    let mut sessions = FetchSessions::new();
    for round in 0.. {
        if client.is_stopping() {
            return Ok(());
        }
        // Now and then a member works for longer than its session lasts, and goes on as if nothing were.
        let nap = if client.env.rng.chance(1, 80) { 3_000 } else { 100 };
        client.env.clock.sleep(Duration::from_millis(nap)).await;
        if !positions.is_empty() {
            // What could not be read now is asked for again.
            let _ = fetch(client, &mut sessions, STYLE, &mut positions).await;
        }
        for (place, position) in positions.clone() {
            if committed
                .get(&place)
                .is_none_or(|committed| *committed < position.next)
            {
                commit(client, group, membership, (&place.0, place.1), position.next).await?;
                committed.insert(place, position.next);
            }
        }
        if round % 4 == 0 {
            heartbeat(client, group, membership).await?;
        }
        if client.env.rng.chance(1, 100) {
            return Ok(());
        }
    }
    Ok(())
}

/// A commit whose answer is lost may still arrive: the caller enters a new generation before it commits again.
async fn commit(
    client: &mut Client,
    group: &str,
    membership: &Membership,
    (topic, partition): (&str, i32),
    offset: i64,
) -> Result<(), Failure> {
    let generation = membership.generation;
    let op = client.invoke(Op::Commit {
        group: group.into(),
        generation,
        key: key(topic, partition),
        offset,
    });
    let wanted = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(-1)
        .with_committed_metadata(Some(text("")));
    let wanted = OffsetCommitRequestTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![wanted]);
    let request = OffsetCommitRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id_or_member_epoch(generation)
        .with_member_id(membership.member.clone())
        .with_topics(vec![wanted]);
    // In the versions that name topics.
    let result = match client.call_up_to(To::Coordinator(group), &request, 9).await {
        Ok(answer) => match answer.topics.first().and_then(|topic| topic.partitions.first()) {
            Some(partition) => check(partition.error_code),
            None => Err(Failure::unknown("an empty answer")),
        },
        Err(failure) => Err(failure),
    };
    let outcome = match &result {
        Ok(()) => Outcome::Done,
        Err(failure) => failure.outcome(),
    };
    client.complete(op, outcome);
    result
}

/// Takes part in the generation before: it must be refused, or it would undo what others did since.
async fn try_as_zombie(client: &mut Client, group: &str, membership: &Membership, old_generation: i32) {
    if old_generation >= membership.generation || !client.env.rng.chance(1, 2) {
        return;
    }
    let request = SyncGroupRequest::default()
        .with_group_id(group_id(group))
        .with_generation_id(old_generation)
        .with_member_id(membership.member.clone())
        .with_protocol_type(Some(text("consumer")))
        .with_protocol_name(Some(text("range")));
    if let Ok(answer) = client.call(To::Coordinator(group), &request).await {
        let generations = (old_generation, membership.generation);
        for (check, message) in judge_zombie(&client.name, group, generations, answer.error_code) {
            client.shared.violation(check, message);
        }
    }
    let zombie = Membership {
        member: membership.member.clone(),
        generation: old_generation,
    };
    // What it hears is in the history; that it is refused is what everybody expects.
    let _ = commit(client, group, &zombie, (READ[0].0, 0), 0).await;
}

/// Nobody is given an assignment of a generation after which another one has begun.
fn judge_zombie(who: &str, group: &str, (old, current): (i32, i32), error_code: i16) -> Found {
    if error_code != 0 {
        return Found::new();
    }
    let message = format!("{who} was given an assignment of {group}'s generation {old}: {current} had begun");
    vec![("zombie-sync", message)]
}

/// What the group has committed; -1 for nothing.
pub(super) async fn read_commit(
    client: &mut Client,
    group: &str,
    topic: &str,
    partition: i32,
) -> Result<i64, Failure> {
    let op = client.invoke(Op::ReadCommit {
        group: group.to_owned(),
        key: key(topic, partition),
    });
    let wanted = OffsetFetchRequestTopics::default()
        .with_name(topic_name(topic))
        .with_partition_indexes(vec![partition]);
    let wanted = OffsetFetchRequestGroup::default()
        .with_group_id(group_id(group))
        .with_member_epoch(-1)
        .with_topics(Some(vec![wanted]));
    let request = OffsetFetchRequest::default().with_groups(vec![wanted]);
    let result = match client.call_up_to(To::Coordinator(group), &request, 9).await {
        Ok(answer) => match answer.groups.first() {
            Some(found) if found.error_code != 0 => Err(Failure::unknown(error_name(found.error_code))),
            Some(found) => match found.topics.first().and_then(|topic| topic.partitions.first()) {
                Some(found) => check(found.error_code).map(|()| found.committed_offset),
                None => Err(Failure::unknown("an empty answer")),
            },
            None => Err(Failure::unknown("an empty answer")),
        },
        Err(failure) => Err(failure),
    };
    let outcome = match &result {
        Ok(offset) => Outcome::Offset { offset: *offset },
        Err(failure) => {
            client.coordinators.remove(group);
            failure.outcome()
        }
    };
    client.complete(op, outcome);
    result
}

async fn leave(client: &mut Client, group: &str, member: &StrBytes) {
    use kafka_protocol::messages::leave_group_request::MemberIdentity;
    let identity = MemberIdentity::default().with_member_id(member.clone());
    let request = LeaveGroupRequest::default()
        .with_group_id(group_id(group))
        .with_members(vec![identity]);
    // Whether or not it is heard: the session ends by itself.
    let _ = client.call(To::Coordinator(group), &request).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_earlier_generation_is_given_nothing() {
        let refused = ResponseError::IllegalGeneration.code();
        assert!(judge_zombie("a client", "g", (3, 4), refused).is_empty());
        assert_eq!(judge_zombie("a client", "g", (3, 4), 0)[0].0, "zombie-sync");
    }
}
