//! What a node must know before it can take part.

use std::net::SocketAddr;
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
    /// `host:port` under which the other nodes reach this one. `None`: what `voters` says of this node, else what it
    /// listens on.
    pub advertise: Option<String>,
    /// The voters of a new cluster, this node among them or not: a cluster is founded when all of them are there. A
    /// cluster that exists remembers its own; this list only says where to ask for it.
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
            advertise: None,
            cluster_id: None,
            timings: Timings::default(),
            snapshot_every_entries: 10_000,
            wal_mark: None,
        }
    }

    /// This node's address for the others, where it listens at `bound`.
    pub(crate) fn address(&self, bound: SocketAddr) -> String {
        let configured = || {
            let me = self.voters.iter().find(|voter| voter.id == self.node_id);
            me.map(|me| me.addr.clone())
        };
        let addr = self.advertise.clone().or_else(configured);
        let addr = addr.unwrap_or_else(|| self.listen.clone());
        // Any free port was asked for: only now it is known which.
        match addr.strip_suffix(":0") {
            Some(host) => format!("{host}:{}", bound.port()),
            None => addr,
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

/// How long things take.
///
/// A leader holds a *lease*: a follower that has heard from it within [`Timings::lease`] votes for nobody else, and the
/// leader answers reads alone for as long as a majority has heard from it within that time. So a leader that dies is
/// replaced after the lease, counted from its last heartbeat, where the others see that its process is gone (its
/// connection breaks and its address refuses a new one), and after up to one lease more where it merely falls silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    /// A leader shows that it lives this often. Several times shorter than the lease.
    pub heartbeat: Duration,
    /// A follower whose leader is silent waits for the lease, and then at least this long, before it asks for votes;
    /// the time is drawn between this and the lease, so that votes rarely split.
    pub election_min: Duration,
    /// How long a leader that was heard is believed in.
    pub lease: Duration,
    /// A snapshot is sent and installed within this time.
    pub snapshot: Duration,
    /// A proposal is answered within this time.
    pub propose: Duration,
}

impl Timings {
    /// The longest silence of a leader until the others elect, where nothing else is configured.
    pub const ELECTION_TIMEOUT: Duration = Duration::from_millis(320);

    /// The timings that follow from an election timeout: the longest silence of a leader until the others elect.
    ///
    /// At least 60 ms: below that, heartbeats would be lost to the scheduler alone.
    #[must_use]
    pub fn from_election_timeout(timeout: Duration) -> Self {
        let lease = (timeout / 2).max(Duration::from_millis(30));
        Self {
            heartbeat: lease / 4,
            election_min: lease * 2 / 3,
            lease,
            snapshot: Duration::from_secs(60),
            propose: Duration::from_secs(10),
        }
    }
}

impl Default for Timings {
    fn default() -> Self {
        Self::from_election_timeout(Self::ELECTION_TIMEOUT)
    }
}
