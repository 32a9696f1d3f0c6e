//! Skerry: a Kafka-compatible broker in one small binary. This crate is the shell: it holds the pure machines
//! (`skerry-log`, `skerry-replica`, `skerry-coordinator`) together, gives them time and disk through `skerry-env`, and
//! speaks with clients.
//!
//! A newcomer starts at [`node::start`], which starts everything in order, and follows a request from
//! [`kafka::listener`] to its file in [`kafka::api`].
#![forbid(unsafe_code)]

pub mod admin_http;
pub mod broker;
pub mod budget;
mod catching_up;
mod chronicle;
pub mod cli;
mod cluster_view;
pub mod config;
mod controller;
mod data_dir;
pub mod disk_room;
pub mod flusher;
pub mod gate;
mod gather;
mod graves;
pub mod groups;
mod grpc;
mod health;
pub mod kafka;
pub mod leader_epochs;
mod maintenance;
pub mod metrics;
pub mod node;
pub mod partition;
pub mod partitions;
pub mod peers;
pub mod producer_ids;
mod registration;
pub mod replication;
mod scrub;
mod session;
pub mod settings;
pub mod standing;
pub mod topics;
