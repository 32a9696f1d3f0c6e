//! Shadow recovery (20): every now and then a copy of one node's disk, as a power cut at that moment would leave it, is
//! opened as a start would open it. That finds mistakes of recovery without a crash. The same look compares what the node
//! remembers of producers, and the copy does after its recovery, with what the records say (19).
//!
//! It draws from a stream of its own and touches nothing of the node: a run is the same with and without it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use skerry::broker::Broker;
use skerry::partition::Look;
use skerry::partitions::{CLEANED, HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS};
use skerry_env::Rng;
use skerry_env::disk::Disk;
use skerry_log::{FileCache, Log, LogConfig, Recovered, Shutdown, checkpoint};
use skerry_types::{Offset, TopicPartition, WallMs};

use super::{COMPACTED, Found, copies, is_compacted, walk};
use crate::disk::SimDisk;
use crate::oracle::Rotten;
use crate::process::DATA_DIR;
use crate::workload::TOPICS;

/// One node is looked at every so many ticks.
const EVERY_TICKS: u64 = 1_000;
/// Files that a recovery has open at once.
const FILES: usize = 64;

/// When, and whose turn it is.
pub(crate) struct Shadow {
    every_ms: u64,
    next_ms: u64,
    turn: usize,
    rng: Rng,
}

/// The node that is looked at.
pub(crate) struct Subject<'a> {
    pub(crate) name: &'a str,
    pub(crate) disk: &'a SimDisk,
    pub(crate) broker: &'a Broker,
    pub(crate) rotten: &'a Rotten,
    /// The folders of this disk in which an index leads elsewhere.
    pub(crate) rotten_indexes: &'a BTreeSet<String>,
    /// What a partition holds is not promised now.
    pub(crate) gives_up: &'a dyn Fn(&str) -> bool,
}

impl Shadow {
    pub(crate) fn new(seed: u64, tick_ms: u64) -> Self {
        Self {
            every_ms: EVERY_TICKS * tick_ms,
            next_ms: EVERY_TICKS * tick_ms,
            turn: 0,
            rng: Rng::seeded(seed ^ 0x5ad0_0e5a),
        }
    }

    /// The node whose turn it is now, by its place among so many.
    pub(crate) fn whose_turn(&mut self, now_ms: u64, nodes: usize) -> Option<usize> {
        if now_ms < self.next_ms {
            return None;
        }
        self.next_ms = now_ms + self.every_ms;
        self.turn += 1;
        Some(self.turn % nodes)
    }

    /// Looks at one node.
    pub(crate) fn look(&self, subject: &Subject<'_>) -> Found {
        let copy = subject.disk.after_power_cut(Rng::seeded(self.rng.u64()));
        let mut found = Found::new();
        skerry_types::uncounted(|| self.look_at_copy(subject, &copy, &mut found));
        // Topics that acknowledge before the disk commit before it too.
        let image = subject.broker.quorum().image();
        let topics = image.topics().filter(|topic| topic.acknowledges_before_disk());
        for topic in topics {
            let of_topic = format!(" {}-", topic.name);
            found.retain(|(check, why)| *check != "checkpoint-beyond-the-log" || !why.contains(&of_topic));
        }
        for partition in subject.rotten_indexes {
            let of_partition = format!("{partition} on ");
            found.retain(|(check, why)| *check != "index-differs" || !why.starts_with(&of_partition));
        }
        found
    }

    fn look_at_copy(&self, subject: &Subject<'_>, copy: &SimDisk, found: &mut Found) {
        let (mut ends, mut looks) = (BTreeMap::new(), Vec::new());
        let image = subject.broker.quorum().image();
        let compacted = COMPACTED.map(|name| {
            let partitions = image.topic(name).map_or(0, |topic| topic.partitions.len());
            (name, i32::try_from(partitions).unwrap_or(0))
        });
        for (topic, partitions) in TOPICS.into_iter().chain(compacted) {
            for number in 0..partitions {
                let partition = subject.broker.partitions().get(topic, number);
                let Some(partition) = partition else { continue };
                let Some(look) = partition.look() else { continue };
                let name = TopicPartition::new(topic, number);
                let text = format!("{topic}-{number}");
                if subject.rotten.is(subject.name, &text) || (subject.gives_up)(&text) {
                    continue;
                }
                let who = format!("{text} on {}", subject.name);
                let extent = (look.log_start.get(), look.log_end.get());
                let walked = walk::batches(subject.disk, &text, extent);
                let compacted = is_compacted(&text);
                if !compacted {
                    walk::check_offsets(&who, &walked, extent, found);
                }
                match partition.remembered() {
                    Some(remembered) if compacted => {
                        walk::check_last_batches(&who, &walked, &remembered, found);
                    }
                    Some(remembered) => {
                        walk::check_producers(&who, &walked, &remembered, extent.0, found);
                    }
                    // Its disk failed while an empty log began within a batch: nothing of it is lost where the next start
                    // finds it at that batch (3946 of any size, 60 s).
                    None if extent.0 == extent.1 => continue,
                    None => {}
                }
                let config = partition.settings().log.clone();
                looks.push(Known {
                    name,
                    text,
                    look,
                    config,
                });
            }
        }
        // A second power cut, right after what the first recovery has done.
        for time in ["after a power cut", "after another one"] {
            let who = format!("{}, {time}", subject.name);
            recover_all(subject.disk, copy, &who, &looks, &mut ends, found);
            copy.cut_power();
        }
    }
}

/// A partition, and what its node knows of it.
pub(super) struct Known {
    pub(super) name: TopicPartition,
    /// Its folder.
    pub(super) text: String,
    pub(super) look: Look,
    /// With which a start opens it.
    pub(super) config: LogConfig,
}

/// Opens what is on `copy` as a start would, and compares it with `disk`, of which it was a copy. `ends`: where the logs
/// ended when they were opened before.
pub(super) fn recover_all(
    disk: &SimDisk,
    copy: &SimDisk,
    who: &str,
    looks: &[Known],
    ends: &mut BTreeMap<String, i64>,
    found: &mut Found,
) {
    let attached = copy.attach();
    let checkpoints = match Checkpoints::read(&*attached) {
        Ok(checkpoints) => checkpoints,
        Err(why) => {
            found.push(("does-not-recover", format!("{who}: {why}")));
            return;
        }
    };
    let files = FileCache::new(attached, FILES);
    for known in looks {
        let Known { name, text, look, .. } = known;
        let case = Case {
            disk,
            copy,
            text,
            look,
            who: format!("{text} on {who}"),
        };
        let recovered = checkpoints.of(name);
        let Some(end) = case.recover(&files, known.config.clone(), recovered, found) else {
            continue;
        };
        checkpoints.check(name, &case.who, end, found);
        let before = ends.insert(text.clone(), end);
        if before.is_some_and(|before| end < before) {
            let message = format!("{}, ends at {end}; before it {before:?}", case.who);
            found.push(("recovery-not-durable", message));
        }
    }
}

/// What a start reads before it opens logs.
struct Checkpoints {
    starts: BTreeMap<TopicPartition, Offset>,
    points: BTreeMap<TopicPartition, Offset>,
    cleaned: BTreeMap<TopicPartition, Offset>,
    high_watermarks: BTreeMap<TopicPartition, Offset>,
}

impl Checkpoints {
    fn read(disk: &dyn Disk) -> std::io::Result<Self> {
        let read = |name: &str| checkpoint::read(disk, &log_dir().join(name));
        Ok(Self {
            starts: read(LOG_STARTS)?,
            points: read(RECOVERY_POINTS)?,
            cleaned: read(CLEANED)?,
            high_watermarks: read(HIGH_WATERMARKS)?,
        })
    }

    /// No checkpoint that survives the power says more than the log that does (10).
    fn check(&self, name: &TopicPartition, who: &str, end: i64, found: &mut Found) {
        for (file, offsets) in [
            (LOG_STARTS, &self.starts),
            (RECOVERY_POINTS, &self.points),
            (HIGH_WATERMARKS, &self.high_watermarks),
            (CLEANED, &self.cleaned),
        ] {
            let said = offsets.get(name).map_or(0, |offset| offset.get());
            if said > end {
                let message = format!("{file} says {said} of {who}, and the log ends at {end}");
                found.push(("checkpoint-beyond-the-log", message));
            }
        }
    }

    fn of(&self, name: &TopicPartition) -> Recovered {
        let or_zero = |offsets: &BTreeMap<_, _>| offsets.get(name).copied().unwrap_or(Offset::ZERO);
        Recovered {
            log_start: or_zero(&self.starts),
            recovery_point: or_zero(&self.points),
            cleaned_until: self.cleaned.get(name).copied(),
        }
    }
}

fn log_dir() -> PathBuf {
    Path::new(DATA_DIR).join("log")
}

/// One partition of the copy.
struct Case<'a> {
    disk: &'a SimDisk,
    copy: &'a SimDisk,
    text: &'a str,
    look: &'a Look,
    who: String,
}

impl Case<'_> {
    /// Opens it; returns where it ends.
    fn recover(
        &self,
        files: &Arc<FileCache>,
        config: LogConfig,
        recovered: Recovered,
        found: &mut Found,
    ) -> Option<i64> {
        let dir = log_dir().join(self.text);
        let opened = Log::open(files, dir, None, config, Shutdown::Unclean, recovered, WallMs(0));
        let log = match opened {
            Ok((log, _)) => log,
            Err(error) => {
                found.push(("does-not-recover", format!("{}: {error}", self.who)));
                return None;
            }
        };
        self.check(&log, recovered.log_start.get(), found);
        Some(log.log_end().get())
    }

    fn check(&self, log: &Log, deleted: i64, found: &mut Found) {
        let (start, end) = (log.log_start().get(), log.log_end().get());
        let durable = self.look.durable_end.get();
        // What is deleted is so on the disk before the log shows it: it may not have been durable itself, where no sync is
        // asked for (7460 of any size, 60 s), or never have been here, where a copy starts over (8361).
        if end < durable || start > self.look.log_start.get().max(durable).max(deleted) {
            found.push((
                "recovery-loses-durable",
                format!("{}, is {start}..{end}; durable was {:?}", self.who, self.look),
            ));
            return;
        }
        if is_compacted(self.text) {
            self.check_values(durable, found);
            let walked = walk::batches(self.copy, self.text, (start, end));
            let remembered: Vec<_> = log.remembered().collect();
            walk::check_last_batches(&self.who, &walked, &remembered, found);
            walk::check_indexes(self.copy, self.text, &self.who, found);
            return;
        }
        let walked = walk::batches(self.copy, self.text, (start, end));
        walk::check_offsets(&self.who, &walked, (start, end), found);
        // Beyond, a cut that no sync has covered may be undone.
        let common = (start.max(self.look.log_start.get()), durable);
        let before = walk::batches(self.disk, self.text, common);
        let after = walked
            .iter()
            .filter(|batch| batch.end > common.0 && batch.base < common.1);
        let differs = before.iter().zip(after).find(|(one, two)| !one.is_same(two));
        if let Some((one, two)) = differs {
            found.push((
                "recovery-loses-durable",
                format!("{}, has {two:?}; durable was {one:?}", self.who),
            ));
        }
        let remembered: Vec<_> = log.remembered().collect();
        walk::check_producers(&self.who, &walked, &remembered, start, found);
        walk::check_indexes(self.copy, self.text, &self.who, found);
    }

    /// Compacted or not, each key has the value that it had.
    fn check_values(&self, durable: i64, found: &mut Found) {
        let [before, after] = [self.disk, self.copy]
            .map(|disk| copies::last_values(disk, self.text, (self.look.log_start.get(), durable)));
        if before != after {
            found.push((
                "recovery-loses-durable",
                format!("{}, has {after:?} up to {durable}; it was {before:?}", self.who),
            ));
        }
    }
}
