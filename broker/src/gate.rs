//! Who asks, and may they: the one authorisation point and the one quota point that every front's calls pass.
//!
//! Both allow everything until access control exists; what is fixed already is that nothing goes around them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Who a front says is asking.
#[derive(Clone, Debug)]
pub struct Caller {
    /// `User:ANONYMOUS` on a listener without authentication, as Kafka names it.
    pub principal: Arc<str>,
    /// What the client calls itself.
    pub client_id: Arc<str>,
    /// Where it comes from.
    pub peer: SocketAddr,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Append to a topic.
    Write,
    /// Read a topic, or take part in a group.
    Read,
    /// Learn that it exists and how it is.
    Describe,
    /// Create it.
    Create,
    /// Delete it.
    Delete,
    /// Change it.
    Alter,
    /// Learn its configuration.
    DescribeConfigs,
    /// Change its configuration.
    AlterConfigs,
    /// Write as an idempotent producer.
    IdempotentWrite,
}

/// What it is asked of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource<'a> {
    /// A topic by its name.
    Topic(&'a str),
    /// A group by its name.
    Group(&'a str),
    /// The cluster.
    Cluster,
}

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// Bytes appended.
    ProducedBytes(u64),
    /// Bytes read.
    FetchedBytes(u64),
}

/// The authorisation point and the quota point.
#[derive(Debug, Default)]
pub struct Gate;

impl Gate {
    /// May `caller` do `operation` to `resource`?
    #[must_use]
    pub fn allows(&self, _caller: &Caller, _operation: Operation, _resource: Resource<'_>) -> bool {
        true
    }

    /// Counts, and says how long the caller should be held back (KIP-219).
    #[must_use]
    pub fn throttle(&self, _caller: &Caller, _counted: Counted) -> Duration {
        Duration::ZERO
    }
}
