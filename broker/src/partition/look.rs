//! What a partition is on this broker at one moment: for the metrics, and for checks from outside (the simulator's
//! invariants).

use skerry_log::RememberedBatch;
use skerry_replica::{Leader, Visibility};
use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch, ProducerIdentity};

use super::{Partition, ReplicationState, Role, Storage};

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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The leader epochs that the log knows, and where each begins.
    pub epochs: Vec<(LeaderEpoch, Offset)>,
    /// What it goes by where it leads.
    pub lead: Option<LeadLook>,
}

/// What a leader goes by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeadLook {
    /// Of the metadata that it knows.
    pub partition_epoch: PartitionEpoch,
    /// Where its log ended when it began to lead.
    pub epoch_start: Offset,
    /// `min.insync.replicas`, at most the number of replicas.
    pub min_in_sync: usize,
    /// A record becomes visible when it is on the disks of all that count.
    pub waits_for_disks: bool,
    /// Who is in sync by the metadata that it knows.
    pub in_sync: Vec<BrokerId>,
    /// Who counts for the high watermark: the above, and whom it asks the metadata to add.
    pub counted: Vec<BrokerId>,
    /// It asks the metadata for another in-sync set.
    pub asks: bool,
    /// Whom it asks to add, each with the registration that is in sync.
    pub asked: Vec<(BrokerId, BrokerEpoch)>,
}

impl LeadLook {
    fn of(leader: &Leader) -> Self {
        Self {
            partition_epoch: leader.partition_epoch(),
            epoch_start: leader.epoch_start(),
            min_in_sync: leader.min_in_sync(),
            waits_for_disks: leader.visibility() == Visibility::Durable,
            in_sync: leader.in_sync().collect(),
            counted: leader.maximal_in_sync().into_iter().collect(),
            asks: leader.is_asking(),
            asked: leader.asked().collect(),
        }
    }

    fn is_still(&self, leader: &Leader) -> bool {
        self.partition_epoch == leader.partition_epoch()
            && self.epoch_start == leader.epoch_start()
            && self.min_in_sync == leader.min_in_sync()
            && self.asks == leader.is_asking()
            && leader.asked().eq(self.asked.iter().copied())
            && self.waits_for_disks == (leader.visibility() == Visibility::Durable)
            && leader.in_sync().eq(self.in_sync.iter().copied())
            && leader.counted().all(|id| self.counted.contains(&id))
            && self
                .counted
                .iter()
                .all(|id| leader.counted().any(|counted| counted == *id))
    }
}

/// Who waits at a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Batches that are appended here and not acknowledged yet.
    pub acknowledgements: usize,
    /// Fetches, of consumers and of followers, for which there is nothing to read yet.
    pub reads: usize,
}

/// What the metrics count of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Measured {
    /// Bytes of its log; 0 where it is not open.
    pub log_bytes: u64,
    /// This broker leads it.
    pub is_led: bool,
    /// It cannot be served.
    pub is_offline: bool,
    /// It is served although a part of it is damaged.
    pub is_damaged: bool,
    /// Somebody should look whether it must be repaired.
    pub is_suspected: bool,
    /// Acknowledged records that this copy lacks while it is not in sync.
    pub records_lacking: u64,
    /// How its replicas are, where it is led here.
    pub replication: Option<ReplicationState>,
}

impl Partition {
    /// What the metrics count of it, under one lock.
    pub fn measure(&self) -> Measured {
        let state = self.state.lock();
        let log_bytes = match &state.storage {
            Storage::Open(log) => log.size_bytes(),
            Storage::Offline(_) | Storage::Deleted => 0,
        };
        let is_offline = state.offline().is_some();
        let is_damaged = state.known_damage().is_some();
        Measured {
            log_bytes,
            is_led: matches!(state.role, Role::Leader(_)),
            is_offline,
            is_damaged: is_damaged && !is_offline,
            is_suspected: is_offline || is_damaged || state.suspected.is_some() || state.is_called_offline(),
            records_lacking: state.records_lacking(),
            replication: state.replication(self.me),
        }
    }

    /// By what it tells that a producer sends a batch again; `None` where its log is not open, or takes no writes any more:
    /// what failed may have been a cut, which reads again what is left.
    pub fn remembered(&self) -> Option<Vec<(ProducerIdentity, Vec<RememberedBatch>)>> {
        match &self.state.lock().storage {
            Storage::Open(log) if log.poisoned().is_none() => Some(log.remembered().collect()),
            Storage::Open(_) | Storage::Offline(_) | Storage::Deleted => None,
        }
    }

    /// What it is now; `None` where its log is not open.
    pub fn look(&self) -> Option<Look> {
        let state = self.state.lock();
        let Storage::Open(log) = &state.storage else {
            return None;
        };
        Some(Look {
            part: state.role.part(),
            log_start: log.log_start(),
            log_end: log.log_end(),
            durable_end: log.durable_end(),
            high_watermark: state.role.high_watermark().unwrap_or(state.high_watermark),
            epochs: log.epoch_starts().collect(),
            lead: state.role.leader().map(LeadLook::of),
        })
    }

    /// Who waits here now.
    pub fn waiting(&self) -> Waiting {
        let state = self.state.lock();
        Waiting {
            acknowledgements: state.waiting_all.len() + state.waiting_leader.len(),
            reads: state.waiting_reads.len(),
        }
    }

    /// True where [`Self::look`] would say the same again: for whoever looks all the time, without its allocations.
    pub fn is_still(&self, last: &Look) -> bool {
        let state = self.state.lock();
        let Storage::Open(log) = &state.storage else {
            return false;
        };
        let Look {
            part,
            log_start,
            log_end,
            durable_end,
            high_watermark,
            epochs,
            lead,
        } = last;
        *part == state.role.part()
            && *log_end == log.log_end()
            && *durable_end == log.durable_end()
            && *high_watermark == state.role.high_watermark().unwrap_or(state.high_watermark)
            && *log_start == log.log_start()
            && log.epoch_starts().eq(epochs.iter().copied())
            && match (lead, state.role.leader()) {
                (None, None) => true,
                (Some(lead), Some(leader)) => lead.is_still(leader),
                _ => false,
            }
    }
}

impl Role {
    fn part(&self) -> Part {
        match self {
            Self::None => Part::Nothing,
            Self::Leader(leading) => Part::Leads(leading.rules.epoch()),
            Self::Follower(following) => Part::Follows(following.rules.epoch()),
        }
    }
}
