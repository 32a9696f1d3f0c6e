//! The rules of one partition's replication, as pure machines: what its leader acknowledges, whom it calls in sync, and
//! what a follower cuts and shows.
//!
//! They own no log and do no I/O, and time is an argument: the shell tells them what happened (`on_…`) and carries out
//! what they answer.
//!
//! Four rules make an acknowledgement mean something:
//! - the high watermark is the smallest end over the maximal in-sync set (the metadata's, and whoever a proposal may have
//!   added), each told in this leader epoch; for [`Visibility::Durable`] an end counts only when `fdatasync` has returned
//!   for it;
//! - it does not advance while fewer than `min.insync.replicas` are in sync (KIP-966), and never goes back;
//! - only a follower that has the high watermark and everything from before this leader joins, and only in the
//!   registration in which it caught up (KIP-903);
//! - logs are compared by leader epoch and cut where they part, never at a high watermark (KIP-101, 279, 320).
//!
//! What the shell owes them:
//! - a report carries the leader epoch and the registration of the question ([`Leader::on_follow`]) that it belongs to, and
//!   what a replaced or ended stream still says is dropped;
//! - a follower asks again only after its cut is durable;
//! - a broker takes no part by an image that lacks its own registration, or its own ReplicaLost: an older one may call it
//!   the leader that it was;
//! - the in-sync set and `min.insync.replicas` that a leader is told of come from one image.
#![forbid(unsafe_code)]

mod follow;
mod follower;
mod in_sync;
mod leader;
mod progress;

pub use follow::{FollowRefusal, FollowerReport};
pub use follower::{Follower, FollowerStart, Position, Told};
pub use in_sync::{Answer, InSyncProposal, LagLimits, PROPOSAL_RETRY_MAX, PROPOSAL_RETRY_MIN};
pub use leader::{Leader, LeaderStart, NotEnoughReplicas, PartitionView, Visibility};
pub use progress::Progress;
