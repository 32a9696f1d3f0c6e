//! Bytes on disk and between nodes: `FORMAT.md`.

mod command;
mod outcome;
mod snapshot;
mod wire;

use thiserror::Error;

pub use command::COMMAND_VERSION;
pub use snapshot::SNAPSHOT_VERSION;

/// Bytes that this program cannot read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A newer program wrote them.
    #[error("{what} has version {found}; this program reads up to {supported}: a newer skerry wrote it")]
    NewerVersion {
        /// What was read.
        what: &'static str,
        /// Its version.
        found: u8,
        /// The newest version that can be read.
        supported: u8,
    },
    /// They end too early, go on too long, or hold an impossible value.
    #[error("{what} is damaged at byte {position}: {reason}")]
    Damaged {
        /// What was read.
        what: &'static str,
        /// Where.
        position: usize,
        /// How.
        reason: &'static str,
    },
}
