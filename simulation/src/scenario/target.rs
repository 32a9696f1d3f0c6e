//! Whom a fault hits, as a person writes it: chosen when it happens, by what the cluster is at that moment.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Whom a fault hits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Target {
    /// The first node.
    #[default]
    First,
    /// These, by their numbers.
    Nodes(Vec<u32>),
    /// Every node.
    All,
    /// Who leads the metadata quorum.
    Controller,
    /// Who leads a partition.
    LeaderOf(String),
    /// The first of those that follow it.
    FollowerOf(String),
    /// The last of those that follow it.
    LastFollowerOf(String),
    /// All of those that follow it.
    FollowersOf(String),
    /// Who coordinates a group.
    CoordinatorOf(String),
}

impl Target {
    /// True for the one that is not written.
    #[must_use]
    pub fn is_first(&self) -> bool {
        *self == Self::First
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("the first"),
            Self::All => f.write_str("all"),
            Self::Controller => f.write_str("controller"),
            Self::LeaderOf(partition) => write!(f, "leader of {partition}"),
            Self::FollowerOf(partition) => write!(f, "follower of {partition}"),
            Self::LastFollowerOf(partition) => write!(f, "last follower of {partition}"),
            Self::FollowersOf(partition) => write!(f, "followers of {partition}"),
            Self::CoordinatorOf(group) => write!(f, "coordinator of {group}"),
            Self::Nodes(numbers) => {
                for (index, number) in numbers.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    write!(f, "{comma}n{number}")?;
                }
                Ok(())
            }
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "the first" => Self::First,
            "all" => Self::All,
            "controller" => Self::Controller,
            _ => {
                if let Some(partition) = text.strip_prefix("leader of ") {
                    Self::LeaderOf(partition.to_owned())
                } else if let Some(partition) = text.strip_prefix("follower of ") {
                    Self::FollowerOf(partition.to_owned())
                } else if let Some(partition) = text.strip_prefix("last follower of ") {
                    Self::LastFollowerOf(partition.to_owned())
                } else if let Some(partition) = text.strip_prefix("followers of ") {
                    Self::FollowersOf(partition.to_owned())
                } else if let Some(group) = text.strip_prefix("coordinator of ") {
                    Self::CoordinatorOf(group.to_owned())
                } else {
                    let number = |word: &str| word.trim().strip_prefix('n')?.parse().ok();
                    let numbers: Option<Vec<u32>> = text.split(',').map(number).collect();
                    Self::Nodes(numbers.ok_or_else(|| {
                        format!(
                            "{text:?} is nobody: n1 or n1,n3 or all or controller or leader of orders-0 or follower, \
                             last follower or followers of orders-0 or coordinator of readers is expected"
                        )
                    })?)
                }
            }
        })
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_as_it_is_written() {
        for text in [
            "n1",
            "n1,n3",
            "all",
            "controller",
            "leader of orders-0",
            "follower of events-1",
            "last follower of events-1",
            "followers of orders-2",
            "coordinator of readers",
        ] {
            assert_eq!(
                text.parse::<Target>().map(|target| target.to_string()),
                Ok(text.to_owned())
            );
        }
        assert!("everybody".parse::<Target>().is_err());
        assert!("n".parse::<Target>().is_err());
    }
}
