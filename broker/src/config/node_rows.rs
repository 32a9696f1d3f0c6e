//! The settings of one process: given at the start, never changed later. Where Kafka has the thing, its name is
//! Kafka's.

use super::row::{Kind, Row, Scope};

const fn row(key: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Scope::Node, key, kind, default)
}

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row("node.id", Kind::Int(0, i32::MAX), "1")
        .doc("This node's number, unlike every other's in the cluster. A data directory belongs to one number for ever."),
    row("log.dirs", Kind::List, "./skerry-data")
        .doc("The directory of everything that this node keeps: partitions and metadata. Made if it is missing."),
    row("listeners", Kind::List, "PLAINTEXT://127.0.0.1:9092")
        .doc("Where Kafka clients connect, PLAINTEXT://HOST:PORT. Port 0 takes a free one; 0.0.0.0 listens on every \
              address of this machine, and then advertised.listeners should say which one clients use."),
    row("advertised.listeners", Kind::List, "").null()
        .doc("The address that clients are told to connect to, PLAINTEXT://HOST:PORT. By default the one in listeners."),
    row("cluster.listen", Kind::Text, "127.0.0.1:9093")
        .doc("Where the other nodes of the cluster connect (gRPC: quorum and replication), HOST:PORT."),
    row("cluster.advertise", Kind::Text, "").null()
        .doc("The address that other nodes are told to connect to, HOST:PORT. By default this node's in \
              controller.quorum.voters, or else the one in cluster.listen."),
    row("admin.listen", Kind::Text, "127.0.0.1:9644")
        .doc("Where health and metrics are served over HTTP, HOST:PORT."),
    row("controller.quorum.voters", Kind::List, "")
        .doc("The nodes whose majority decides about the metadata, ID@HOST:PORT separated by commas, with the \
              addresses that cluster.listen of each has: 1, 3 or 5 of them. Empty: this node alone."),
    row("broker.rack", Kind::Text, "").null()
        .doc("Where this node stands. Replicas are spread over racks, and consumers may read from their own."),
    row("memory", Kind::Size(16 << 20, 1 << 44), "256MiB")
        .doc("The budget of requests, answers and caches. A node at its limit reads its sockets more slowly; nothing dies."),
    row("disk.reserve", Kind::Size(0, 1 << 44), "64MiB")
        .doc("With less than this free on the disk, producers get a retriable error while consumers and deletion go \
              on; writing resumes by itself."),
    row("open.files", Kind::Int(64, i32::MAX), "512")
        .doc("How many segment files are kept open. Others are opened when they are used."),
];
