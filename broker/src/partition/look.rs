//! What a partition is on this broker at one moment, for checks from outside (the simulator's invariants).

use skerry_types::{LeaderEpoch, Offset};

use super::{Partition, Role, Storage};

/// What a broker is to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Nobody leads, or this start of the broker is not registered yet.
    Nothing,
    /// It leads in this epoch.
    Leads(LeaderEpoch),
    /// It follows a leader of this epoch.
    Follows(LeaderEpoch),
}

/// A partition at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// What this broker is to it.
    pub part: Part,
    /// The first offset.
    pub log_start: Offset,
    /// The offset after the last record.
    pub log_end: Offset,
    /// The offset after the last durable record.
    pub durable_end: Offset,
    /// Where the replica knows the log to be committed.
    pub high_watermark: Offset,
}

impl Partition {
    /// What it is now; `None` where its log is not open.
    pub fn look(&self) -> Option<Look> {
        let state = self.state.lock();
        let Storage::Open(log) = &state.storage else {
            return None;
        };
        let part = match &state.role {
            Role::None => Part::Nothing,
            Role::Leader(leading) => Part::Leads(leading.rules.epoch()),
            Role::Follower(following) => Part::Follows(following.rules.epoch()),
        };
        Some(Look {
            part,
            log_start: log.log_start(),
            log_end: log.log_end(),
            durable_end: log.durable_end(),
            high_watermark: state.role.high_watermark().unwrap_or(state.high_watermark),
        })
    }
}
