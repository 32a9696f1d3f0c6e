//! The quantities that every crate of Skerry speaks of, each with a type of its own.
//!
//! Deliberately absent: a clock, I/O, a runtime, anything with behaviour. A number that crosses a crate boundary
//! and has a unit or a meaning belongs here; everything else belongs to the crate that decides about it.
#![forbid(unsafe_code)]

mod buggify;
mod goal;
mod ids;
mod plant;
mod quantities;
mod time;

pub use buggify::{BUGGIFY_LATE, buggify, start_buggify, stop_buggify};
pub use goal::{count_goals, goals_reached, reached, sometimes, uncounted};
pub use ids::{BrokerId, IncarnationId, ParseTopicIdError, PartitionIndex, TopicId, TopicPartition, Uuid};
pub use plant::{is_planted, plant};
pub use quantities::{
    BrokerEpoch, LeaderEpoch, Offset, PartitionEpoch, ProducerEpoch, ProducerId, ProducerIdentity, Sequence,
};
pub use time::{Instant, WallMs};
