//! What a node must know before it can take part.

use std::path::PathBuf;
use std::time::Duration;

use skerry_types::{BrokerId, Uuid};

use crate::wal::WalMark;

/// How to start a [`crate::Quorum`].
#[derive(Clone, Debug)]
pub struct QuorumConfig {
    /// This node.
    pub node_id: BrokerId,
    /// The quorum's own directory: its identity and RocksDB's files.
    pub data_dir: PathBuf,
    /// `host:port` that the gRPC services listen on.
    pub listen: String,
    /// The voters of a new cluster, this node among them or not. A cluster that exists remembers its own.
    pub voters: Vec<Voter>,
    /// The id of a new cluster (`None`: random), and the only id that an existing one may have.
    pub cluster_id: Option<Uuid>,
    /// How long things take.
    pub timings: Timings,
    /// A snapshot is taken, and the log before it dropped, after this many entries.
    pub snapshot_every_entries: u64,
    /// Follows what is durable of RocksDB's log, for the simulator. Deliberately `None` in production.
    pub wal_mark: Option<WalMark>,
}

impl QuorumConfig {
    /// A quorum of one in `data_dir`, with the defaults.
    #[must_use]
    pub fn single(node_id: BrokerId, data_dir: impl Into<PathBuf>, listen: impl Into<String>) -> Self {
        let listen = listen.into();
        Self {
            node_id,
            data_dir: data_dir.into(),
            voters: vec![Voter {
                id: node_id,
                addr: listen.clone(),
            }],
            listen,
            cluster_id: None,
            timings: Timings::default(),
            snapshot_every_entries: 10_000,
            wal_mark: None,
        }
    }

    /// True where this node alone is the quorum.
    pub(crate) fn is_sole_voter(&self) -> bool {
        matches!(&self.voters[..], [voter] if voter.id == self.node_id)
    }
}

/// A member of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voter {
    /// Its number.
    pub id: BrokerId,
    /// `host:port` of its gRPC services.
    pub addr: String,
}

/// How long things take. Election timeouts are drawn between the two bounds, so that votes rarely split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// A leader shows that it lives this often.
    pub heartbeat: Duration,
    /// A follower waits at least this long for it.
    pub election_min: Duration,
    /// A follower waits at most this long for it.
    pub election_max: Duration,
    /// A snapshot is sent and installed within this time.
    pub snapshot: Duration,
    /// A proposal is answered within this time.
    pub propose: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(75),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            snapshot: Duration::from_secs(10),
            propose: Duration::from_secs(10),
        }
    }
}
