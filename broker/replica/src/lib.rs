//! One partition's leader, as a pure machine: the in-sync set, how far each of its members is, and the high watermark
//! that follows from them.
//!
//! It owns no log and does no I/O: the shell tells it what happened (`on_…`) and carries out what it answers.
//!
//! Two rules make an acknowledgement mean something:
//! - the high watermark is the smallest end over the in-sync set, and for [`Visibility::Durable`] an end counts only
//!   when `fdatasync` has returned for it;
//! - it does not advance while fewer than `min.insync.replicas` are in sync (KIP-966), and never goes back.
#![forbid(unsafe_code)]

mod leader;

pub use leader::{Leader, LeaderStart, NotEnoughReplicas, Visibility};
