//! One broker of the model: a disk that survives, and a life that does not.

use std::collections::BTreeMap;

use skerry_replica::{Follower, Leader};
use skerry_types::{BrokerEpoch, BrokerId, IncarnationId, LeaderEpoch, Offset, Uuid};

/// A record: the epoch that it was written in, and a value that no other record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    pub epoch: i32,
    pub value: u32,
}

/// One partition's log. What lies at `durable` or above is lost by a crash, in part or as a whole.
#[derive(Clone, Debug, Default)]
pub struct Log {
    pub start: i64,
    pub durable: i64,
    records: Vec<Record>,
}

impl Log {
    pub fn end(&self) -> i64 {
        self.start + i64::try_from(self.records.len()).unwrap()
    }

    pub fn at(&self, offset: i64) -> Option<Record> {
        let index = usize::try_from(offset - self.start).ok()?;
        self.records.get(index).copied()
    }

    pub fn from(&self, offset: i64, count: usize) -> Vec<Record> {
        let skip = usize::try_from(offset - self.start).unwrap();
        self.records.iter().skip(skip).take(count).copied().collect()
    }

    pub fn append(&mut self, record: Record) {
        self.records.push(record);
    }

    pub fn flush(&mut self) {
        self.durable = self.end();
    }

    /// Removes what is at `end` or above, durably; below the start: everything, and the log goes on at `end`.
    pub fn truncate(&mut self, end: i64) {
        if end < self.start {
            *self = Self {
                start: end,
                durable: end,
                records: Vec::new(),
            };
        } else if end < self.end() {
            self.records.truncate(usize::try_from(end - self.start).unwrap());
            self.durable = self.durable.min(end);
        }
    }

    pub fn restart_at(&mut self, start: i64) {
        *self = Self {
            start,
            durable: start,
            records: Vec::new(),
        };
    }

    pub fn raise_start(&mut self, start: i64) {
        let gone = usize::try_from(start - self.start)
            .unwrap()
            .min(self.records.len());
        self.records.drain(..gone);
        self.start = start;
        self.durable = self.durable.max(start);
    }

    pub fn last_epoch(&self) -> LeaderEpoch {
        let last = self.records.last().map(|record| LeaderEpoch(record.epoch));
        last.unwrap_or(LeaderEpoch::UNKNOWN)
    }

    /// OffsetForLeaderEpoch of the records alone.
    pub fn epoch_end(&self, requested: LeaderEpoch) -> (LeaderEpoch, Offset) {
        let known = self
            .records
            .iter()
            .rev()
            .find(|record| record.epoch <= requested.get());
        let higher = self
            .records
            .iter()
            .position(|record| record.epoch > requested.get());
        let end = higher.map_or(self.end(), |index| self.start + i64::try_from(index).unwrap());
        match known {
            Some(record) => (LeaderEpoch(record.epoch), Offset(end)),
            None if higher.is_some() => (requested, Offset(end)),
            None => (LeaderEpoch::UNKNOWN, Offset(-1)),
        }
    }

    /// The same for a leader, which knows its own epoch before it has written in it.
    pub fn epoch_end_of_leader(&self, current: LeaderEpoch, requested: LeaderEpoch) -> (LeaderEpoch, Offset) {
        if requested > current {
            (LeaderEpoch::UNKNOWN, Offset(-1))
        } else if requested == current {
            (current, Offset(self.end()))
        } else if self.records.is_empty() {
            (requested, Offset(self.end()))
        } else {
            self.epoch_end(requested)
        }
    }
}

/// A broker: its disk, and its life where it lives.
#[derive(Clone, Debug)]
pub struct Node {
    pub id: BrokerId,
    /// The identity of its disk.
    pub directory: Uuid,
    pub log: Log,
    /// The high watermark's checkpoint.
    pub checkpoint: i64,
    /// Its disk was wiped, and it has not registered since.
    pub is_wiped: bool,
    pub life: Option<Life>,
    pub paused: bool,
}

/// What a broker forgets when it crashes.
#[derive(Clone, Debug)]
pub struct Life {
    pub incarnation: IncarnationId,
    pub broker_epoch: BrokerEpoch,
    /// The image that it has applied, by its place in the history.
    pub seen: usize,
    pub role: Role,
    pub high_watermark: Offset,
    /// As a leader's stream: what each handle of each follower asked for. Outlives the leadership, as the stream does.
    pub asked: BTreeMap<(BrokerId, u64), Asked>,
    /// As a leader: to whom it sends.
    pub sending: BTreeMap<BrokerId, Sending>,
}

#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub leader_epoch: LeaderEpoch,
    pub broker_epoch: BrokerEpoch,
}

#[derive(Clone, Copy, Debug)]
pub struct Sending {
    pub handle: u64,
    pub next: i64,
    pub told: (Offset, i64),
}

#[derive(Clone, Debug)]
pub enum Role {
    None,
    Leader(Box<Leader>),
    Follower {
        rules: Follower,
        /// The question that it waits for, or whose answers it takes; `None`: it must ask again.
        handle: Option<u64>,
        /// What the leader was told last.
        told: (i64, i64, i64),
    },
}

impl Life {
    pub fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leader(leader) => Some(leader),
            _ => None,
        }
    }

    /// What it knows to be acknowledged.
    pub fn known_high_watermark(&self) -> Offset {
        match &self.role {
            Role::None => self.high_watermark,
            Role::Leader(leader) => leader.high_watermark(),
            Role::Follower { rules, .. } => rules.high_watermark(),
        }
    }
}

/// What travels between two brokers.
#[derive(Clone, Debug)]
pub enum Message {
    Follow {
        handle: u64,
        broker_epoch: BrokerEpoch,
        leader_epoch: LeaderEpoch,
        last_epoch: LeaderEpoch,
        log_start: i64,
        written: i64,
        durable: i64,
    },
    Progress {
        handle: u64,
        log_start: i64,
        written: i64,
        durable: i64,
    },
    Batches {
        handle: u64,
        leader_epoch: LeaderEpoch,
        from: i64,
        records: Vec<Record>,
        high_watermark: Offset,
        log_start: i64,
    },
    Diverging {
        handle: u64,
        epoch: LeaderEpoch,
        end: Offset,
    },
    OutOfRange {
        handle: u64,
        log_start: Offset,
    },
    Refused {
        handle: u64,
    },
}
