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

/// A change of a setting.
struct Change<'a> {
    value: &'a str,
    asked_at: u64,
    /// When it was acknowledged.
    done_at: Option<u64>,
}

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
                settings.entry((topic, name)).or_default().push(Change {
                    value,
                    asked_at: operation.invoked_at,
                    done_at,
                });
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
                // What nobody answered comes when it comes: its request may have been on its way all the time (5094 of any
                // size, 60 s). Of what was acknowledged nothing counts that was over before another one was asked for.
                let is_over = |change: &Change<'_>| {
                    let mut others = changes.iter().filter(|other| other.done_at.is_some());
                    others.any(|other| change.done_at.is_some_and(|done_at| done_at < other.asked_at))
                };
                let mut done = changes.iter().filter(|change| change.done_at.is_some());
                let newest = done.rfind(|change| !is_over(change));
                let mut may_be = changes.iter().filter(|change| !is_over(change));
                if let Some(newest) = newest
                    && !may_be.any(|change| change.value == value)
                {
                    verdict.add("lost-setting", || {
                        format!("{topic}: {name} was set to {}, and is {value}", newest.value)
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
