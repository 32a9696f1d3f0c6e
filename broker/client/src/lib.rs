//! A small Kafka client on the seams of `skerry-env`.
//!
//! The command line speaks through it to any Kafka broker, and the simulator's checkers drive a node with it. So it
//! reads no clock of its own, opens no socket of its own, iterates over nothing whose order is random, and says of
//! each failed call whether the broker may have acted on it.
//!
//! It shares no record or batch code with the broker, on purpose: a mistake in one must not hide the same mistake in
//! the other.
#![forbid(unsafe_code)]

pub mod admin;
pub mod batch;
mod client;
pub mod cluster;
mod codec;
pub mod connection;
mod error;
mod fetch;
mod group;
mod offsets;
mod partitioner;
mod produce;

pub use batch::{BadBatch, FetchedBatch, FetchedRecord, Header, Record};
pub use client::{
    BrokerMetadata, Client, ClientOptions, ClusterMetadata, Leader, PartitionMetadata, TopicMetadata,
};
pub use codec::{Compression, UnknownCompression};
pub use connection::{
    CallError, ClosedBecause, ConnectError, Connection, ConnectionOptions, Pending, VersionRange,
};
pub use error::{ClientError, code_name};
pub use fetch::{FetchError, FetchOptions, Fetched, Fetcher, FoundOffset, OffsetSpec};
pub use group::{
    Assignment, GroupConsumer, GroupEvent, GroupOptions, decode_assignment, decode_subscription, range,
};
pub use kafka_protocol::error::ResponseError;
pub use kafka_protocol::{messages, protocol};
pub use offsets::{Committed, Membership};
pub use partitioner::partition_of;
pub use produce::{
    Acks, Delivered, Delivery, Outcome, ProduceError, ProduceFailure, Producer, ProducerOptions,
};
