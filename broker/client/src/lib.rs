//! A small Kafka client on the seams of `skerry-env`.
//!
//! The command line speaks through it to any Kafka broker, and the simulator's checkers drive a node with it. So it
//! reads no clock of its own, opens no socket of its own, iterates over nothing whose order is random, and says of
//! each failed call whether the broker may have acted on it.
//!
//! It shares no record or batch code with the broker, on purpose: a mistake in one must not hide the same mistake in
//! the other.
#![forbid(unsafe_code)]

pub mod connection;

pub use connection::{
    CallError, ClosedBecause, ConnectError, Connection, ConnectionOptions, Pending, VersionRange,
};
pub use kafka_protocol::error::ResponseError;
pub use kafka_protocol::{messages, protocol};
