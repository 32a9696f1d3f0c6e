//! What nodes say to each other: the `.proto` files and the services generated from them.
//!
//! Deliberately absent: conversions. The crate that owns a type converts it, so that this one depends on nobody.
#![forbid(unsafe_code)]

/// The metadata quorum.
#[allow(missing_docs, clippy::all)]
pub mod quorum {
    tonic::include_proto!("skerry.quorum.v1");
}

/// Records from leaders to followers.
#[allow(missing_docs, clippy::all)]
pub mod replication {
    tonic::include_proto!("skerry.replication.v1");
}

/// Brokers and their controller.
#[allow(missing_docs, clippy::all)]
pub mod cluster {
    tonic::include_proto!("skerry.cluster.v1");
}
