//! What disks do to the nodes, and how it ends.
//!
//! Every place that goes bad is checked against a budget first (TigerBeetle calls it the atlas): in a partition only the
//! copy of one node is bad at a time, and another one that is in sync is whole. Copies that are lost beyond that are the
//! business of the other regime.

use std::path::Path;
use std::time::Duration;

use skerry_env::Rng;
use skerry_env::clock::ClockBackend as _;

use super::World;
use super::budget;
use super::faults::Action;
use crate::disk::{DiskConfig, Harm, SimDisk, Trouble};
use crate::invariants::Missing;
use crate::oracle::RottenPlace;
use crate::rot::{self, Place, Rot};
use crate::scenario::Fault;

/// How a trouble of a disk ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Relief {
    NormalSpeed,
    Unthrottled,
    Room,
    GoodSyncs,
    GoodMetadataSyncs,
    GoodWrites,
    GoodReads,
    RightReads,
    MisreadsHeard,
}

/// By then clients have heard what was misread.
const ON_ITS_WAY_MS: u64 = 3_000;

/// Streams of the draws of places that go bad: one for each way.
const BIT: u64 = 0xb17;
const INDEX: u64 = 0x1de7;
const SECTOR: u64 = 0x5ec7;
const MISDIRECTED: u64 = 0x3d12;
pub(super) const ALL_COPIES: u64 = 0xa11c;

impl World<'_> {
    pub(super) fn trouble_the_disk(&mut self, index: usize, fault: &Fault) {
        if budget::costs_copies(fault)
            && let Err(why) = self.spent().may_fail(index)
        {
            let name = &self.nodes[index].name;
            self.trace
                .event(name, format_args!("its disk does not fail: {why}"));
            return;
        }
        let node = &self.nodes[index];
        let host = &node.host;
        let configure = |change: &dyn Fn(&mut DiskConfig)| host.disk.configure(change);
        let (relief, for_ms) = match *fault {
            Fault::DiskStall { for_ms } => {
                host.disk
                    .stall_until(host.clock.now() + Duration::from_millis(for_ms));
                return;
            }
            Fault::SlowDisk { latency_ms, for_ms } => {
                configure(&|config| {
                    config.latency = Duration::from_millis(latency_ms);
                    config.jitter = Duration::from_millis(latency_ms);
                });
                (Relief::NormalSpeed, for_ms)
            }
            Fault::Throttle {
                bytes_per_second,
                for_ms,
            } => {
                configure(&|config| config.trouble.bytes_per_second = bytes_per_second);
                (Relief::Unthrottled, for_ms)
            }
            Fault::DiskFull { room_bytes, for_ms } => {
                host.disk.leave_room(room_bytes);
                (Relief::Room, for_ms)
            }
            Fault::SyncFails { one_in, for_ms } => {
                configure(&|config| config.sync_fails_one_in = one_in);
                (Relief::GoodSyncs, for_ms)
            }
            Fault::MetadataSyncFails { for_ms, writes } => {
                let mark = node.process.wal_mark();
                mark.let_syncs_fail(!writes);
                mark.let_writes_fail(writes);
                (Relief::GoodMetadataSyncs, for_ms)
            }
            Fault::WriteFails { one_in, for_ms } => {
                configure(&|config| config.trouble.write_fails_one_in = one_in);
                (Relief::GoodWrites, for_ms)
            }
            Fault::ReadFails { one_in, for_ms } => {
                configure(&|config| config.trouble.read_fails_one_in = one_in);
                (Relief::GoodReads, for_ms)
            }
            Fault::ReadFlips { one_in, for_ms } => {
                configure(&|config| config.trouble.read_flips_one_in = one_in);
                self.shared.rotten.set_misreads(true);
                (Relief::RightReads, for_ms)
            }
            _ => return,
        };
        self.plan(self.now_ms + for_ms, Action::OfDisk(index, relief));
    }

    pub(super) fn after_trouble(&mut self, index: usize, relief: Relief) {
        let node = &self.nodes[index];
        let configure = |change: &dyn Fn(&mut DiskConfig)| node.host.disk.configure(change);
        let normal = DiskConfig::default();
        let restarted_for = match relief {
            Relief::NormalSpeed => {
                configure(&|config| (config.latency, config.jitter) = (normal.latency, normal.jitter));
                None
            }
            Relief::Unthrottled => {
                configure(&|config| config.trouble.bytes_per_second = 0);
                None
            }
            Relief::Room => {
                node.host.disk.free_room();
                None
            }
            Relief::GoodSyncs => {
                configure(&|config| config.sync_fails_one_in = 0);
                Some("syncs have failed")
            }
            Relief::GoodMetadataSyncs => {
                let mark = node.process.wal_mark();
                mark.let_syncs_fail(false);
                mark.let_writes_fail(false);
                Some("metadata could not be synced")
            }
            Relief::GoodWrites => {
                configure(&|config| config.trouble.write_fails_one_in = 0);
                Some("writes have failed")
            }
            Relief::GoodReads => {
                configure(&|config| config.trouble.read_fails_one_in = 0);
                Some("reads have failed")
            }
            Relief::RightReads => {
                configure(&|config| config.trouble.read_flips_one_in = 0);
                let heard = Action::OfDisk(index, Relief::MisreadsHeard);
                self.plan(self.now_ms + ON_ITS_WAY_MS, heard);
                None
            }
            Relief::MisreadsHeard => {
                let mut nodes = self.nodes.iter();
                let misread = nodes.any(|node| node.host.disk.misreads());
                self.shared.rotten.set_misreads(misread);
                None
            }
        };
        if let Some(what) = restarted_for {
            self.restart_what_has_failed(index, what);
        }
    }

    pub(super) fn heal_disk(&mut self, index: usize) {
        let normal = DiskConfig::default();
        let host = &self.nodes[index].host;
        let disk = &host.disk;
        disk.free_room();
        disk.stall_until(disk.stalled_until().min(host.clock.now()));
        disk.configure(|config| {
            (config.latency, config.jitter) = (normal.latency, normal.jitter);
            config.sync_fails_one_in = 0;
            config.trouble = Trouble::default();
        });
        disk.die_in_nothing();
        let mark = self.nodes[index].process.wal_mark();
        mark.let_syncs_fail(false);
        mark.let_writes_fail(false);
        // Nobody has heard yet what was misread a moment ago: `Rotten` is told once the cluster is whole.
    }

    /// Kills the node and turns a bit over in the last batch that the recovery point of some partition covers. Without a
    /// time to be down: lets it run, and takes an older batch; so it does where the node has just stopped in order, for its
    /// next start looks at nothing but the end.
    pub(super) fn let_a_bit_rot(&mut self, index: usize, down_ms: Option<u64>) {
        let rng = self.draws_of(BIT);
        let is_quiet = down_ms.is_none() || rot::stopped_in_order(&self.nodes[index].host.disk);
        let place = self.choose(index, &rng, is_quiet, None);
        if let Some(down_ms) = down_ms {
            self.crash(index, false, down_ms);
        }
        let Some(place) = place else { return };
        let harm = place.bit(&rng);
        self.harm(index, &place, harm, is_quiet, "a bit has rotted");
    }

    /// Kills the node, and turns over a bit of an index, or of what is known of producers. Whoever follows an entry of an index
    /// compares it with the batch that it finds, so that no copy is worse for it.
    pub(super) fn let_an_index_rot(&mut self, index: usize, down_ms: u64) {
        self.crash(index, false, down_ms);
        let rng = self.draws_of(INDEX ^ (self.now_ms << 8));
        let node = &mut self.nodes[index];
        let Some(harm) = rot::choose_beside(&node.host.disk, &rng) else {
            return;
        };
        if node.host.disk.harm(&harm) {
            let folder = harm.path.parent().and_then(Path::file_name);
            node.rotten_indexes
                .extend(folder.map(|name| name.to_string_lossy().into_owned()));
            let at = format!("byte {} of {}", harm.position, harm.path.display());
            self.trace
                .event(&node.name, format_args!("a bit has rotted: {at}"));
            *self.felt.entry("bits of indexes rotted").or_default() += 1;
        }
    }

    /// A sector of old records can be read no more. Nobody is told.
    pub(super) fn let_a_sector_go_bad(&mut self, index: usize) {
        let rng = self.draws_of(SECTOR);
        if let Some(place) = self.choose(index, &rng, true, None) {
            let harm = place.unreadable();
            self.harm(index, &place, harm, true, "a sector can be read no more");
        }
    }

    /// A sector of old records of one partition turns out to have been written over those of another one.
    pub(super) fn misdirect_a_write(&mut self, index: usize) {
        let rng = self.draws_of(MISDIRECTED);
        let Some(meant) = self.choose(index, &rng, true, None) else {
            return;
        };
        let Some(lost) = self.choose(index, &rng, true, Some(&meant.partition)) else {
            return;
        };
        if let Some([here, there]) = meant.misdirected_to(&lost, &self.nodes[index].host.disk) {
            self.harm(index, &meant, here, true, "a sector was never written");
            self.harm(
                index,
                &lost,
                there,
                true,
                "a sector was overwritten with another's bytes",
            );
        }
    }

    /// As many streams as places have gone bad.
    pub(super) fn draws_of(&self, stream: u64) -> Rng {
        Rng::seeded(self.scenario.seed ^ stream ^ ((self.rotten.len() as u64) << 32))
    }

    /// A place that may go bad within the budget, of another partition than `not`.
    pub(super) fn choose(&self, index: usize, rng: &Rng, is_quiet: bool, not: Option<&str>) -> Option<Place> {
        // A disk that was lost has used the budget up, and so has what was not flushed.
        if self.spent().lost.is_some() {
            return None;
        }
        let brokers = self.brokers();
        let alone = self.nodes.len() == 1;
        let is_bad = |rot: &Rot| rot.is_there(&self.nodes[rot.node].host.disk);
        let has_no_bad_copy = |partition: &str| {
            let mut rotten = self.rotten.iter();
            !rotten.any(|rot| rot.partition == partition && is_bad(rot))
        };
        let others_have_it = |partition: &str| {
            let watcher = self.watcher.as_ref();
            let place = watcher.and_then(|watcher| watcher.place(&brokers, partition));
            let me = i32::try_from(index + 1).unwrap_or(0);
            place.is_some_and(|place| place.in_sync.iter().any(|id| *id != me))
        };
        let may = |partition: &str| {
            Some(partition) != not && has_no_bad_copy(partition) && (alone || others_have_it(partition))
        };
        rot::choose(&self.nodes[index].host.disk, rng, is_quiet, may)
    }

    pub(super) fn harm(&mut self, index: usize, place: &Place, harm: Harm, is_quiet: bool, what: &str) {
        let node = &self.nodes[index];
        let at = format!("byte {} of {}", harm.position, harm.path.display());
        let Some(rot) = Rot::inflict(index, place, harm, is_quiet, &node.host.disk) else {
            return;
        };
        self.trace
            .event("world", format_args!("{what}: {at} on {}", node.name));
        self.shared.rotten.add(RottenPlace {
            node: node.name.clone(),
            partition: rot.partition.clone(),
            is_quiet,
            is_lost: false,
        });
        self.rotten.push(rot);
    }

    /// Nobody but the cluster itself makes a bad copy good, where it can: see `mend_last_copies`.
    pub(super) fn heal_rot(&mut self) {
        self.shared.rotten.keep(|place| place.is_quiet);
        self.is_healed = true;
        self.mend_last_copies();
    }

    /// Once everything is healed: puts a bad place right where the bad copy is the last that may be elected. A crash may
    /// take the good ones out of the in-sync set after the place has gone bad (`min.insync.replicas` of 1), and then a
    /// person must help.
    pub(super) fn mend_last_copies(&mut self) {
        if !self.is_healed || self.rotten.is_empty() {
            return;
        }
        // The newest first: a copy that was made again, and has gone bad at the same place, looks as if the first harm were
        // there still (4443 of any size, 60 s).
        for rot in std::mem::take(&mut self.rotten).into_iter().rev() {
            if rot.is_lost || self.others_may_lead(&rot) {
                self.rotten.push(rot);
                continue;
            }
            if !rot.is_there(&self.nodes[rot.node].host.disk) {
                continue;
            }
            if self.nodes[rot.node].is_up() {
                self.crash(rot.node, false, 100);
            }
            let there = self.nodes[rot.node].host.disk.undo(&rot.harm);
            self.trace
                .event("world", format_args!("a bad place is put right: {there}"));
        }
    }

    /// A place that went bad while nobody looked is still there.
    pub(super) fn quiet_rot(&self) -> Option<Missing> {
        let watcher = self.watcher.as_ref()?;
        self.rotten.iter().find_map(|rot| {
            let node = &self.nodes[rot.node];
            check_rot(
                rot,
                &node.name,
                &node.host.disk,
                watcher.log_start_of(rot.node, &rot.partition),
            )
        })
    }

    /// The cluster has left the rotten copy out, or can.
    fn others_may_lead(&self, rot: &Rot) -> bool {
        let watcher = self.watcher.as_ref();
        let place = watcher.and_then(|watcher| watcher.place(&self.brokers(), &rot.partition));
        let me = i32::try_from(rot.node + 1).unwrap_or(0);
        place.is_some_and(|place| place.in_sync.iter().chain(&place.eligible).any(|id| *id != me))
    }
}

/// What has rotted while its node runs is found, and made good. What that copy has deleted since, up to `log_start`, is nobody's
/// concern any more; nor is what every copy has lost.
fn check_rot(rot: &Rot, node: &str, disk: &SimDisk, log_start: i64) -> Option<Missing> {
    let concerns = rot.is_quiet && !rot.is_lost && log_start <= rot.base;
    (concerns && rot.is_there(disk)).then(|| {
        let message = format!("{} of {node} is still damaged", rot.partition);
        ("rot-not-found", message)
    })
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::path::Path;

    use skerry_checker::history::Value;
    use skerry_env::disk::OpenMode;

    use super::*;
    use crate::record::{self, Identity};
    use crate::trace::Trace;

    /// A disk with a log of one batch, which a checkpoint says is durable, and a bit of it that turns over.
    fn rotten(is_quiet: bool) -> (SimDisk, Rot) {
        let disk = SimDisk::new("n1", DiskConfig::default(), Rng::seeded(1), Trace::silent());
        let files = disk.attach();
        let log = Path::new("/data/log/orders-0");
        files.create_dir_all(log).unwrap();
        let value = Value {
            producer: 0,
            serial: 0,
        };
        let batch = record::encode(&[value], Identity::NONE, 1, 10);
        for (path, bytes) in [
            (log.join("00000000000000000000.log"), &batch[..]),
            (
                log.with_file_name("recovery-point-offset-checkpoint"),
                b"0\n1\norders 0 1\n",
            ),
        ] {
            let file = files.open(&path, OpenMode::Create).unwrap();
            file.write_at(&[IoSlice::new(bytes)], 0).unwrap();
            file.sync().unwrap();
        }
        for dir in log.ancestors() {
            files.sync_dir(dir).unwrap();
        }
        let rng = Rng::seeded(1);
        let place = rot::choose(&disk, &rng, false, |_| true).unwrap();
        let rot = Rot::inflict(0, &place, place.bit(&rng), is_quiet, &disk).unwrap();
        (disk, rot)
    }

    #[test]
    fn what_has_rotted_and_was_not_found_is_noticed() {
        let (disk, mut rot) = rotten(true);
        let judged = |rot: &Rot, log_start| check_rot(rot, "n1", &disk, log_start).map(|(check, _)| check);
        assert_eq!(judged(&rot, 0), Some("rot-not-found"));
        // The record was deleted; every copy has lost it.
        assert_eq!(judged(&rot, 1), None);
        rot.is_lost = true;
        assert_eq!(judged(&rot, 0), None);
        rot.is_lost = false;
        disk.undo(&rot.harm);
        assert_eq!(judged(&rot, 0), None, "it was made good");
        // Its next start looks there.
        let (disk, rot) = rotten(false);
        assert_eq!(check_rot(&rot, "n1", &disk, 0), None);
    }
}
