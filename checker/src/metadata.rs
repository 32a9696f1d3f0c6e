//! Topics and settings: what was acknowledged is still so at the end.

use std::collections::BTreeMap;

use super::history::{Op, Outcome};
use super::{Operations, Verdict};

#[derive(Clone, Copy, Default)]
struct Topic {
    /// When a creation was acknowledged last.
    created_at: Option<u64>,
    /// When a creation was asked for last.
    creation_asked_at: Option<u64>,
    /// When a creation that may still happen was asked for: it never completed, or nobody knows how.
    creation_open: bool,
    deleted_at: Option<u64>,
    deletion_asked_at: Option<u64>,
    /// A deletion may still happen, or have happened late.
    deletion_open: bool,
}

/// A change of a setting: the value, whether it was acknowledged, when it was asked for.
type Change<'a> = (&'a str, bool, u64);

pub(super) fn check(operations: &Operations<'_>, verdict: &mut Verdict) {
    let mut topics: BTreeMap<&str, Topic> = BTreeMap::new();
    let mut settings: BTreeMap<(&str, &str), Vec<Change<'_>>> = BTreeMap::new();
    for operation in &operations.all {
        let done_at = match operation.completed {
            Some((at, Outcome::Done)) => Some(at),
            _ => None,
        };
        let refused = matches!(
            operation.completed,
            Some((_, Outcome::Failed { definite: true, .. }))
        );
        match operation.op {
            Op::CreateTopic { topic } if !refused => {
                let entry = topics.entry(topic).or_default();
                entry.created_at = done_at.or(entry.created_at);
                entry.creation_asked_at = Some(operation.invoked_at);
                entry.creation_open |= done_at.is_none();
            }
            Op::DeleteTopic { topic } if !refused => {
                let entry = topics.entry(topic).or_default();
                entry.deleted_at = done_at.or(entry.deleted_at);
                entry.deletion_asked_at = Some(operation.invoked_at);
                entry.deletion_open |= done_at.is_none();
            }
            Op::SetConfig { topic, name, value } if !refused => {
                settings.entry((topic, name)).or_default().push((
                    value,
                    done_at.is_some(),
                    operation.invoked_at,
                ));
            }
            _ => {}
        }
    }
    for operation in &operations.all {
        match (operation.op, operation.completed) {
            (Op::FinalTopics, Some((_, Outcome::Topics { topics: seen }))) => {
                judge_topics(&topics, seen, verdict);
            }
            (Op::FinalConfig { topic, name }, Some((_, Outcome::Config { value }))) => {
                let changes = settings
                    .get(&(topic.as_str(), name.as_str()))
                    .map_or(&[][..], Vec::as_slice);
                let last_done = changes.iter().rposition(|(_, done, _)| *done);
                // Whatever was asked for after the last acknowledged change may have won, and what nobody answered comes when
                // it comes: its request may have been on its way all the time (5094 of any size, 60 s).
                let mut allowed = changes
                    .iter()
                    .enumerate()
                    .filter(|(place, (_, done, _))| !done || last_done.is_none_or(|last| *place >= last));
                if last_done.is_some() && !allowed.any(|(_, (allowed, ..))| allowed == value) {
                    verdict.add("lost-setting", || {
                        let set = last_done.map_or("", |last| changes[last].0);
                        format!("{topic}: {name} was set to {set}, and is {value}")
                    });
                }
            }
            _ => {}
        }
    }
}

fn judge_topics(topics: &BTreeMap<&str, Topic>, seen: &[String], verdict: &mut Verdict) {
    for (name, topic) in topics {
        let there = seen.iter().any(|seen| seen == name);
        if let Some(created) = topic.created_at
            && topic
                .deletion_asked_at
                .is_none_or(|deleted| deleted < created && topic.deleted_at.is_some())
            && !topic.deletion_open
            && !there
        {
            verdict.add("lost-topic", || {
                format!("{name} was created, never deleted, and is gone")
            });
        }
        if let Some(deleted) = topic.deleted_at
            && topic.creation_asked_at.is_none_or(|asked| asked < deleted)
            && !topic.creation_open
            && there
        {
            verdict.add("topic-came-back", || {
                format!("{name} was deleted, not made again, and is there")
            });
        }
    }
}
