//! Groups. Committed offsets: the workload commits forwards only, so a lower one is a lost one. Owners: one generation gives
//! a partition to one member.

use std::collections::BTreeMap;

use super::history::{Note, Op, Outcome};
use super::{Operations, Step, Verdict, seconds};

#[derive(Default)]
struct Committed {
    /// The highest that somebody was told is committed.
    known: i64,
    /// The highest that anybody ever asked to commit.
    asked: i64,
}

pub(super) fn check(operations: &Operations<'_>, verdict: &mut Verdict) {
    let mut committed: BTreeMap<(&str, &str), Committed> = BTreeMap::new();
    let mut generations: BTreeMap<&str, i32> = BTreeMap::new();
    let mut owners: BTreeMap<(&str, i32, &str), &str> = BTreeMap::new();
    // What was known when an operation was invoked.
    let mut at_invoke: Vec<i64> = vec![-1; operations.all.len()];
    for step in &operations.steps {
        match step {
            Step::Invoke(index) => match operations.all[*index].op {
                Op::Commit {
                    group, key, offset, ..
                } => {
                    let entry = committed
                        .entry((group, key))
                        .or_insert(Committed { known: -1, asked: -1 });
                    entry.asked = entry.asked.max(*offset);
                    at_invoke[*index] = generations.get(group.as_str()).copied().unwrap_or(-1).into();
                }
                Op::ReadCommit { group, key } => {
                    at_invoke[*index] = committed
                        .get(&(group.as_str(), key.as_str()))
                        .map_or(-1, |entry| entry.known);
                }
                _ => {}
            },
            Step::Complete(index) => {
                let operation = &operations.all[*index];
                let Some((at, outcome)) = operation.completed else {
                    continue;
                };
                match (operation.op, outcome) {
                    (
                        Op::Own {
                            group,
                            generation,
                            member,
                            keys,
                        },
                        Outcome::Done,
                    ) => {
                        let known = generations.entry(group).or_insert(-1);
                        *known = (*known).max(*generation);
                        for key in keys {
                            let owner = owners
                                .entry((group.as_str(), *generation, key.as_str()))
                                .or_insert(member.as_str());
                            if *owner != member {
                                verdict.add("two-owners", || {
                                    format!("generation {generation} of {group} gave {key} to {owner} and to {member}")
                                });
                            }
                        }
                    }
                    (Op::Join { group }, Outcome::Joined { generation }) => {
                        let known = generations.entry(group).or_insert(-1);
                        *known = (*known).max(*generation);
                    }
                    (
                        Op::Commit {
                            group,
                            generation,
                            key,
                            offset,
                        },
                        Outcome::Done,
                    ) => {
                        let newest = at_invoke[*index];
                        if *generation >= 0 && i64::from(*generation) < newest {
                            verdict.add("zombie-commit", || {
                                format!(
                                    "{} committed {key} to {group} as a member of generation {generation} at {}: generation {newest} had begun",
                                    operation.client,
                                    seconds(at)
                                )
                            });
                        }
                        if let Some(entry) = committed.get_mut(&(group.as_str(), key.as_str())) {
                            entry.known = entry.known.max(*offset);
                        }
                    }
                    (Op::ReadCommit { group, key }, Outcome::Offset { offset }) => {
                        let known = at_invoke[*index];
                        if *offset < known {
                            verdict.add("lost-commit", || {
                                format!(
                                    "{group} had committed {known} of {key} before {}, and {} reads {offset} at {}",
                                    seconds(operation.invoked_at),
                                    operation.client,
                                    seconds(at)
                                )
                            });
                        }
                        let asked = committed
                            .get(&(group.as_str(), key.as_str()))
                            .map_or(-1, |entry| entry.asked);
                        if *offset > asked {
                            verdict.add("phantom-commit", || {
                                format!("{group} has committed {offset} of {key}; nobody asked for more than {asked}")
                            });
                        }
                    }
                    _ => {}
                }
            }
            Step::Note(Note::GroupsLost) => {
                // What was asked for may be what is left.
                committed.values_mut().for_each(|entry| entry.known = -1);
                generations.clear();
                owners.clear();
                at_invoke.fill(-1);
            }
            Step::Note(_) => {}
        }
    }
}
