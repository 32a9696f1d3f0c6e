//! Whole quorums in one process over loopback: nodes that join, leave, die, lose their disks and their links.
#![expect(clippy::disallowed_methods, reason = "a test sets its own world up")]

mod failover;
mod figures;
mod links;
mod members;
mod net;
mod planted;
mod recover;
mod snapshots;
mod world;
