//! The Kafka front: bytes of the Kafka protocol in, calls of [`crate::broker::Broker`] out.
//!
//! A frame's way: [`listener`] accepts a connection, [`connection`] reads frames, starts them in order and answers in
//! order, [`frame`] understands a header, [`dispatch`] finds the API, and the API's file in [`api`] does the work.

pub mod api;
pub mod connection;
pub mod dispatch;
pub mod errors;
pub mod fetch_answer;
pub mod frame;
pub mod group_wire;
pub mod listener;
pub mod pipeline;
pub mod resources;
pub mod sessions;
pub mod shape;
pub mod wire;
