//! What can go wrong, one enum for each operation.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use skerry_types::{BrokerId, Uuid};
use thiserror::Error;

/// Why a quorum does not start. Nothing on disk was changed, but for directories that were missing.
#[derive(Debug, Error)]
pub enum StartError {
    /// The directory has another owner.
    #[error("{} belongs to node {owner}, and this is node {node_id}: use that node's id, or another directory", dir.display())]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        owner: BrokerId,
        /// Who we are.
        node_id: BrokerId,
    },
    /// A newer program wrote the directory.
    #[error("{} has format version {found}, and this program reads up to {supported}: a newer skerry wrote it", dir.display())]
    NewerVersion {
        /// The directory.
        dir: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// The directory belongs to another cluster.
    #[error("the metadata belongs to cluster {found}, and cluster {wanted} is configured")]
    OtherCluster {
        /// What the metadata says.
        found: Uuid,
        /// What is configured.
        wanted: Uuid,
    },
    /// Another process has it open.
    #[error("{} is in use by another process", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// What is in the directory makes no sense.
    #[error("{}: {reason}", path.display())]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The disk refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// The consensus could not begin.
    #[error("the metadata quorum: {0}")]
    Raft(String),
}

/// Why a proposal has no outcome.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// No leader was found, or it did not answer. The command may still be applied, or may have been: a retry does no
    /// harm.
    #[error("the metadata quorum did not answer within {0:?}")]
    Timeout(Duration),
    /// This node is shutting down, or its store failed.
    #[error("the metadata quorum has stopped: {0}")]
    Stopped(String),
}
