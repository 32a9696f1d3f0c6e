//! What happens in a simulation, as data: drawn from the seed by swarm, editable by hand, shrinkable.
//!
//! Every concern draws from a stream of its own, so that leaving a fault out does not move the others.

mod check;
mod cluster;
mod kinds;
mod lulls;
mod patterns;
mod regime;
mod rounds;
mod target;
#[cfg(test)]
mod tests;
mod text;
mod workers;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skerry_env::Rng;

use self::kinds::Rate;
pub use self::kinds::{Group, KINDS, Kind, Kinds, list as list_kinds};
pub use self::lulls::Lulls;
use self::lulls::draw_lulls;
pub use self::regime::Regime;
pub use self::target::Target;
pub use self::workers::WorkerKinds;
use self::workers::draw_workload;
use crate::disk::OpKind;
use crate::survivors::FATES;
use crate::trace::fnv_of;

/// A whole simulation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it shows; empty for a drawn one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The goals that it must come to; otherwise it shows nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reaches: Vec<String>,
    /// Every draw that is not written here comes from it.
    pub seed: u64,
    /// What the cluster is held to.
    #[serde(default, skip_serializing_if = "Regime::is_contract")]
    pub regime: Regime,
    /// How many nodes there are.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub nodes: u32,
    /// How many of them vote in the metadata quorum, the first ones; the others only follow it. 0 = all.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub voters: u32,
    /// Copies of the topics.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub replication: i16,
    /// `min.insync.replicas` of the topics.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub min_in_sync: i16,
    /// `flush.messages` of the topics: acknowledged is what is written, and flushed later; 0 = not set, acknowledged is
    /// what is on disks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub flush_messages: u64,
    /// No power goes while what another node lost with its own is not on other disks yet: what `flush_messages` promises
    /// outlives one such loss at a time. The process is killed in its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub one_power_at_a_time: bool,
    /// Settings of the nodes that differ from those of other simulations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Nodes that do not vote, by their number, and when they are started for the first time.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub joins_at_ms: BTreeMap<u32, u64>,
    /// Producers write to these partitions alone; to all where it is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub write_to: Vec<String>,
    /// Producers pack their batches, each with another codec.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub packed: bool,
    /// Entries of the metadata log between two snapshots of it.
    #[serde(default = "rarely", skip_serializing_if = "is_rarely")]
    pub snapshot_every_entries: u64,
    /// A quarter of the sites of [`skerry_types::buggify`] act while faults happen.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub buggify: bool,
    /// While faults happen, those who write and read fall silent again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lulls: Option<Lulls>,
    /// When faults end, they end for a core of the cluster alone, which must go on by itself; for all others later.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub core_first: bool,
    /// How long faults happen.
    pub faults_ms: u64,
    /// The step of turmoil's clock.
    pub tick_ms: u64,
    /// Messages take between these.
    pub latency_ms: (u64, u64),
    /// One of so many cached reads finds nothing in the cache; 0 = all find it.
    pub cold_read_one_in: u64,
    /// The last restart before everything is read is a power cut, not a kill.
    pub ends_with_power_cut: bool,
    /// Who works.
    pub workload: Workload,
    /// What goes wrong.
    pub faults: Vec<Timed>,
}

/// Who works.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Each on one of the client hosts.
    pub workers: Vec<Worker>,
}

/// One client.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worker {
    /// `client-a` or `client-b`.
    pub host: String,
    /// What it does.
    pub kind: WorkerKind,
}

/// What a client does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum WorkerKind {
    /// Makes the topics.
    Setup,
    /// Produces with an identity, several batches on their way.
    Idempotent,
    /// Produces without one.
    Plain { acks: i16 },
    /// Reads what it assigned to itself.
    Consumer,
    /// Reads as a member of a group.
    Member { group: String },
    /// Asks where partitions end.
    Ends,
    /// Makes and removes topics.
    Churn,
    /// Makes a topic and gives it more and more partitions.
    Grow,
    /// Changes settings.
    Settings,
    /// Deletes records.
    Trim,
    /// Gives partitions other replicas and other leaders.
    Moves,
    /// Lets two replicas lead in turn, for a moment each.
    Turns,
    /// Sends what no client sends.
    Malformed,
    /// Reads with sizes and times at the ends of what can be said.
    OddConsumer,
    /// Asks for much, and reads little of it.
    SlowConsumer,
    /// Comes and goes, many at a time.
    Connections,
    /// A producer that was replaced by itself, and goes on.
    ZombieProducer,
    /// Makes a topic again under the same name, and looks whether anything of its former life is there.
    Reborn,
    /// Changes settings that logs act on.
    Tuning,
    /// Takes votes away and gives them back, and asks to forget brokers that must not be forgotten.
    Members,
    /// Asks for brokers to be forgotten, all the time.
    Forget,
    /// Writes to a topic that is compacted, and makes it.
    Keyed,
    /// Reads that topic from the start, again and again.
    KeyedReader,
    /// Asks which record is the first of a time.
    Times,
}

impl WorkerKind {
    /// The name in the history, before its number.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Idempotent => "idem",
            Self::Plain { .. } => "plain",
            Self::Consumer => "reader",
            Self::Member { .. } => "member",
            Self::Ends => "ends",
            Self::Churn => "churn",
            Self::Grow => "grow",
            Self::Settings => "settings",
            Self::Trim => "trim",
            Self::Moves => "moves",
            Self::Turns => "turns",
            Self::Malformed => "raw",
            Self::OddConsumer => "odd",
            Self::SlowConsumer => "slow",
            Self::Connections => "crowd",
            Self::ZombieProducer => "zombie",
            Self::Reborn => "reborn",
            Self::Tuning => "tuning",
            Self::Members => "members",
            Self::Forget => "forget",
            Self::Keyed => "keyed",
            Self::KeyedReader => "rereader",
            Self::Times => "times",
        }
    }
}

/// A fault and its moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timed {
    /// Milliseconds since the start.
    pub at_ms: u64,
    /// Whom it hits.
    #[serde(default, skip_serializing_if = "Target::is_first")]
    pub on: Target,
    /// What goes wrong.
    pub fault: Fault,
}

impl Timed {
    /// A disk, or who writes to it, stands still or is slow.
    #[must_use]
    pub fn slows_a_disk(&self) -> bool {
        ["disk-stall", "slow-disk", "throttle", "pause"].contains(&self.kind())
    }

    /// The name of its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (&self.fault, &self.on) {
            (Fault::PowerCut { .. }, Target::All) => "site-power-cut",
            (Fault::CutLink { host, .. }, _) if host == "controller" => "controller-link",
            (Fault::CutLink { host, .. }, _) if host.starts_with("coordinator of ") => "coordinator-link",
            (fault, _) => fault.kind(),
        }
    }
}

/// Which ways of a node are cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// It neither hears nor is heard.
    #[default]
    Both,
    /// It does not hear.
    In,
    /// It is not heard.
    Out,
}

impl Way {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
    fn is_both(&self) -> bool {
        *self == Self::Both
    }
}

/// What goes wrong. The faults of a broker's process are ignored while it is down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// SIGKILL, and a start later.
    Kill { down_ms: u64 },
    /// The power goes, and comes back later.
    PowerCut { down_ms: u64 },
    /// The power goes again while the broker recovers from the first cut.
    DoublePowerCut { down_ms: u64, again_after_ms: u64 },
    /// SIGTERM, and a start later.
    Restart { down_ms: u64 },
    /// Death inside the so-many-th operation of a kind on the disk; by SIGKILL or by a power cut.
    DieIn {
        op: OpKind,
        count: u64,
        power: bool,
        down_ms: u64,
    },
    /// The broker's wall clock jumps.
    ClockJump { by_ms: i64 },
    /// The broker's clocks run fast or slow.
    ClockDrift { ppm: i64 },
    /// Messages between those hit and this host (`client-a`, or any target, such as `n2` or `controller`) take up to this
    /// long.
    SlowLink { host: String, max_ms: u64, for_ms: u64 },
    /// Nothing moves between them, and nothing is lost.
    HeldLink { host: String, for_ms: u64 },
    /// Nothing passes between them, and what was on its way is lost; or only one of the ways of those hit is cut.
    CutLink {
        host: String,
        #[serde(default, skip_serializing_if = "Way::is_both")]
        way: Way,
        for_ms: u64,
    },
    /// Messages between a client host and the broker are lost now and then, and with them their connections.
    FlappingLink {
        host: String,
        per_mille: u64,
        for_ms: u64,
    },
    /// Connections of a host break, also in the middle of a frame, or carry a few bytes at a time.
    BadConnections {
        host: String,
        reset_one_in: u64,
        cut_one_in: u64,
        chop_one_in: u64,
        for_ms: u64,
    },
    /// The disk does nothing for a while.
    DiskStall { for_ms: u64 },
    /// The disk is slow.
    SlowDisk { latency_ms: u64, for_ms: u64 },
    /// The disk has little room left.
    DiskFull { room_bytes: u64, for_ms: u64 },
    /// The broker is killed, and while it is down a bit below the synced point rots. It is put right at the end.
    BitRot { down_ms: u64 },
    /// A bit of an old record rots while the broker runs, and nobody is told. The cluster has to find it by itself.
    QuietRot,
    /// A sector of old records can be read no more (EIO) until it is written again. The cluster has to find it by itself.
    BadSector,
    /// A sector of old records of one partition turns out to have been written over old records of another one. The
    /// cluster has to find it by itself.
    MisdirectedWrite,
    /// Beyond what a cluster can bear: a bit of the same old record rots in every copy, and nobody is told.
    RotOfAllCopies,
    /// Beyond what a cluster can bear: one replica of the partition is away while the load goes on after the faults, and
    /// then every copy that was in sync turns out to be damaged. A person elects the one that was away.
    InSyncCopiesLost { partition: String },
    /// Beyond what a cluster can bear: after the faults all disks say of syncs of the partition's records that they are done,
    /// and do not do them; when the load has ended the power of all goes.
    LyingSyncs { partition: String },
    /// The same of one voter's disk and the quorum's log; its power goes, or that of all, and nothing may be lost by it.
    LyingVoter,
    /// Beyond what a cluster can bear: when the load has ended, a majority of the voters loses its disks; see `world/recover.rs`.
    WipedMajority,
    /// Writes fail (EIO), and a part of them is written; at the end a person restarts the broker.
    WriteFails { one_in: u64, for_ms: u64 },
    /// Reads fail (EIO), and the bytes are good.
    ReadFails { one_in: u64, for_ms: u64 },
    /// Reads of records return a wrong bit, and the bytes are good.
    ReadFlips { one_in: u64, for_ms: u64 },
    /// The disk takes so many bytes in a second.
    Throttle { bytes_per_second: u64, for_ms: u64 },
    /// Syncs of the metadata's own store (RocksDB) fail, or already its `writes`; at the end a person restarts the broker.
    MetadataSyncFails {
        for_ms: u64,
        #[serde(default)]
        writes: bool,
    },
    /// The node is killed, and while it is down a bit of what was synced of the quorum's own files rots. It must not start with
    /// them; an operator gives it an empty folder in their place, and its vote again.
    MetadataRot { down_ms: u64 },
    /// Those hit are cut off from all other nodes, and with `clients` from the clients as well. Among themselves they
    /// hear each other.
    Isolate { way: Way, clients: bool, for_ms: u64 },
    /// The nodes before the one hit and those after it hear only that one and their own.
    Bridge { for_ms: u64 },
    /// SIGSTOP, and SIGCONT later.
    Pause { for_ms: u64 },
    /// Syncs fail; at the end a person restarts the broker.
    SyncFails { one_in: u64, for_ms: u64 },
    /// A bit of one in so many of the record batches that those hit send, or this host does, turns over on its way.
    CorruptBatches {
        #[serde(default, skip_serializing_if = "String::is_empty")]
        host: String,
        one_in: u64,
        for_ms: u64,
    },
    /// The power goes, and the disk with it: the node begins anew under its old number, and an operator gives the vote of the
    /// old disk to the new one. Only where whatever was promised is on other disks as well.
    WipedDisk { down_ms: u64 },
    /// A node that does not vote leaves the cluster for good: its replicas move to others, it is stopped and forgotten. Its
    /// machine comes back as a new broker.
    Leaves { back_after_ms: u64 },
    /// The node is killed, and while it is down a bit rots in what only repeats the records: an index, or what is known of
    /// producers.
    IndexRot { down_ms: u64 },
    /// Somebody puts the disks of this node and of another one into the wrong machines, and later back. Neither starts.
    SwappedDisks { host: String, for_ms: u64 },
    /// Those hit and these client hosts hear each other, and so do all the others; nobody hears the other side.
    Split {
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        clients: Vec<String>,
        for_ms: u64,
    },
    /// Each node hears a majority, no two of them the same one: nothing passes between nodes that are not neighbours in a
    /// ring that begins with the one hit. It takes five nodes.
    Ring { for_ms: u64 },
    /// Those hit hear every node and no client.
    NoClients { way: Way, for_ms: u64 },
    /// All links of those hit are held, one host after the other; after as long again they are let go in another order.
    Swizzle { each_ms: u64 },
    /// What the connections between those hit and this host carry waits, and arrives after all: new connections are as
    /// usual, so that a request comes when its sender has long asked again on another one.
    LateLink { host: String, for_ms: u64 },
    /// Away for as long as a session lasts, or so long that the others have gone on without it.
    Outage { power: bool, down_ms: u64 },
    /// Killed so many times, each time soon after it has begun.
    CrashLoop { times: u32, up_ms: u64, down_ms: u64 },
    /// SIGTERM and a start for one of those hit after the other: the next one when the last one serves.
    RollingRestart { down_ms: u64, pause_ms: u64 },
    /// The wall clock goes forth and back.
    ClockStrobe { by_ms: i64, every_ms: u64, for_ms: u64 },
    /// The wall clock stands.
    ClockFreeze { for_ms: u64 },
    /// Every reading of the wall clock is wrong by another error.
    ClockNoise { by_ms: i64, for_ms: u64 },
    /// The wall clock's error grows, shrinks below zero and comes back.
    ClockSwing { by_ms: i64, period_ms: u64, for_ms: u64 },
    /// The clocks run at another rate every so often, fast or slow by so much at most.
    ClockWander { ppm: u64, every_ms: u64, for_ms: u64 },
}

impl Fault {
    /// The kind's name.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Kill { .. } => "kill",
            Self::PowerCut { .. } => "power-cut",
            Self::DoublePowerCut { .. } => "double-power-cut",
            Self::Restart { .. } => "restart",
            Self::DieIn { .. } => "die-in",
            Self::ClockJump { .. } => "clock-jump",
            Self::ClockDrift { .. } => "clock-drift",
            Self::SlowLink { .. } => "slow-link",
            Self::HeldLink { .. } => "held-link",
            Self::CutLink { .. } => "cut-link",
            Self::FlappingLink { .. } => "flapping-link",
            Self::BadConnections { .. } => "bad-connections",
            Self::DiskStall { .. } => "disk-stall",
            Self::SlowDisk { .. } => "slow-disk",
            Self::DiskFull { .. } => "disk-full",
            Self::SyncFails { .. } => "sync-fails",
            Self::BitRot { .. } => "bit-rot",
            Self::QuietRot => "quiet-rot",
            Self::BadSector => "bad-sector",
            Self::MisdirectedWrite => "misdirected-write",
            Self::RotOfAllCopies => "rot-of-all-copies",
            Self::InSyncCopiesLost { .. } => "in-sync-copies-lost",
            Self::LyingSyncs { .. } => "lying-syncs",
            Self::LyingVoter => "lying-voter",
            Self::WipedMajority => "wiped-majority",
            Self::WriteFails { .. } => "write-fails",
            Self::ReadFails { .. } => "read-fails",
            Self::ReadFlips { .. } => "read-flips",
            Self::Throttle { .. } => "throttle",
            Self::MetadataSyncFails { .. } => "metadata-sync-fails",
            Self::MetadataRot { .. } => "metadata-rot",
            Self::Isolate { .. } => "isolate",
            Self::Bridge { .. } => "bridge",
            Self::Pause { .. } => "pause",
            Self::CorruptBatches { .. } => "corrupt-batches",
            Self::WipedDisk { .. } => "wiped-disk",
            Self::Leaves { .. } => "leaves",
            Self::IndexRot { .. } => "index-rot",
            Self::SwappedDisks { .. } => "swapped-disks",
            Self::Split { .. } => "split",
            Self::Ring { .. } => "ring",
            Self::NoClients { .. } => "no-clients",
            Self::Swizzle { .. } => "swizzle",
            Self::LateLink { .. } => "late-link",
            Self::Outage { .. } => "outage",
            Self::CrashLoop { .. } => "crash-loop",
            Self::RollingRestart { .. } => "rolling-restart",
            Self::ClockStrobe { .. } => "clock-strobe",
            Self::ClockFreeze { .. } => "clock-freeze",
            Self::ClockNoise { .. } => "clock-noise",
            Self::ClockSwing { .. } => "clock-swing",
            Self::ClockWander { .. } => "clock-wander",
        }
    }
}

/// The client hosts.
pub const CLIENT_HOSTS: [&str; 2] = ["client-a", "client-b"];

const RARELY: u64 = 10_000;

const fn rarely() -> u64 {
    RARELY
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
fn is_rarely(value: &u64) -> bool {
    *value == RARELY
}

fn one<T: From<u8>>() -> T {
    T::from(1)
}

fn is_zero<T: From<u8> + PartialEq>(value: &T) -> bool {
    *value == T::from(0)
}

fn is_one<T: From<u8> + PartialEq>(value: &T) -> bool {
    *value == one()
}

impl Scenario {
    /// The scenario of a seed for several nodes; 0: the seed says how many.
    #[must_use]
    pub fn draw_cluster(seed: u64, nodes: u32) -> Self {
        Self::draw_cluster_in(seed, nodes, None)
    }

    /// The same under this regime, not under the seed's own.
    #[must_use]
    pub fn draw_cluster_in(seed: u64, nodes: u32, regime: Option<Regime>) -> Self {
        cluster::draw(seed, nodes).in_regime(regime.unwrap_or(Regime::of(seed)))
    }

    /// The scenario of a seed for one node. Each kind of fault is on with a probability of one half.
    #[must_use]
    pub fn draw(seed: u64) -> Self {
        let rng = Rng::seeded(seed ^ 0x5ce7_a210);
        let faults_ms = 6_000 + rng.below(6_000);
        let faults = draw_faults(seed, faults_ms);
        Self {
            about: String::new(),
            reaches: Vec::new(),
            seed,
            regime: Regime::Contract,
            nodes: 1,
            voters: 0,
            replication: 1,
            min_in_sync: 1,
            flush_messages: 0,
            one_power_at_a_time: false,
            settings: BTreeMap::new(),
            joins_at_ms: BTreeMap::new(),
            write_to: Vec::new(),
            packed: is_packed(seed),
            snapshot_every_entries: draw_snapshots(seed),
            buggify: is_buggified(seed),
            lulls: draw_lulls(seed),
            core_first: false,
            faults_ms: patterns::with_outages(faults_ms, &faults),
            tick_ms: [1, 1, 2][below(&rng, 3)],
            latency_ms: (rng.below(2), [3, 10, 40][below(&rng, 3)]),
            cold_read_one_in: [0, 2, 10][below(&rng, 3)],
            ends_with_power_cut: true,
            workload: draw_workload(seed),
            faults,
        }
    }

    /// The same, with only those faults.
    #[must_use]
    pub fn keeping(&self, faults: &[usize]) -> Self {
        let kept = self
            .faults
            .iter()
            .enumerate()
            .filter(|(index, _)| faults.contains(index));
        Self {
            faults: kept.map(|(_, fault)| fault.clone()).collect(),
            ..self.clone()
        }
    }

    /// The same with only the faults of kinds that are `on`. Each kind draws from a stream of its own, so that the others
    /// stay what they are. Without `power-cut` nothing else cuts the power either: no death inside an operation, and not
    /// the last crash. Whom a core has to do without meets one of [`FATES`]: without one of these there is no such phase.
    #[must_use]
    pub fn with_faults(&self, on: impl Fn(&str) -> bool) -> Self {
        let mut scenario = self.clone();
        scenario.faults.retain(|timed| on(timed.kind()));
        scenario.core_first &= FATES.iter().all(|kind| on(kind));
        if !on("power-cut") {
            scenario.ends_with_power_cut = false;
            for timed in &mut scenario.faults {
                if let Fault::DieIn { power, .. } | Fault::Outage { power, .. } = &mut timed.fault {
                    *power = false;
                }
            }
        }
        scenario
    }

    /// True where this node, by its place, votes in the metadata quorum.
    #[must_use]
    pub fn votes(&self, place: usize) -> bool {
        self.voters == 0 || u32::try_from(place).is_ok_and(|place| place < self.voters)
    }

    /// The groups of the workload.
    #[must_use]
    pub fn groups(&self) -> Vec<String> {
        let groups = self
            .workload
            .workers
            .iter()
            .filter_map(|worker| match &worker.kind {
                WorkerKind::Member { group } => Some(group.clone()),
                _ => None,
            });
        let mut groups: Vec<_> = groups.collect();
        groups.sort();
        groups.dedup();
        groups
    }
}

fn below(rng: &Rng, bound: u64) -> usize {
    usize::try_from(rng.below(bound)).unwrap_or(0)
}

/// In every fourth world.
fn is_packed(seed: u64) -> bool {
    Rng::seeded(seed ^ 0x9ac4_ed00).chance(1, 4)
}

/// In every second world.
fn is_buggified(seed: u64) -> bool {
    Rng::seeded(seed ^ fnv_of(b"buggify")).chance(1, 2)
}

/// In most worlds nodes that were away get a snapshot instead of what they missed.
fn draw_snapshots(seed: u64) -> u64 {
    let rng = Rng::seeded(seed ^ 0x005a_9507);
    [20, 60, 250, RARELY][below(&rng, 4)]
}

fn draw_faults(seed: u64, faults_ms: u64) -> Vec<Timed> {
    let mut faults = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.most_alone > 0) {
        let rng = Rng::seeded(seed ^ (kind.stream << 40));
        let on = match kind.rate {
            Rate::Beyond => true,
            Rate::Often => rng.chance(1, 2),
            Rate::Seldom => rng.chance(1, 5),
        };
        if !on {
            continue;
        }
        for _ in 0..1 + rng.below(kind.most_alone) {
            faults.push(Timed {
                at_ms: 300 + rng.below(faults_ms),
                on: Target::First,
                fault: draw_fault(kind.name, &rng),
            });
        }
    }
    faults.sort_by_key(|timed| timed.at_ms);
    faults
}

fn draw_fault(kind: &str, rng: &Rng) -> Fault {
    if let Some(fault) = patterns::draw(kind, 1, rng) {
        return fault;
    }
    let down_ms = [10, 200, 1_500][below(rng, 3)] + rng.below(300);
    let for_ms = [100, 800, 2_500][below(rng, 3)] + rng.below(500);
    let host = CLIENT_HOSTS[below(rng, 2)].to_owned();
    match kind {
        "kill" => Fault::Kill { down_ms },
        "power-cut" => Fault::PowerCut { down_ms },
        "double-power-cut" => Fault::DoublePowerCut {
            down_ms,
            again_after_ms: 1 + rng.below(60),
        },
        "restart" => Fault::Restart { down_ms },
        "die-in" => Fault::DieIn {
            op: [OpKind::Write, OpKind::Sync, OpKind::Name][below(rng, 3)],
            count: 1 + rng.below(40),
            power: rng.chance(1, 2),
            down_ms,
        },
        "clock-jump" => {
            let by_ms = [50, 5_000, 3_600_000, 40 * 86_400_000][below(rng, 4)]
                + i64::try_from(rng.below(100)).unwrap_or(0);
            Fault::ClockJump {
                by_ms: if rng.chance(1, 2) { by_ms } else { -by_ms },
            }
        }
        "clock-drift" => Fault::ClockDrift {
            ppm: i64::try_from(rng.below(200_000)).unwrap_or(0) - 100_000,
        },
        "slow-link" => Fault::SlowLink {
            host,
            max_ms: 50 + rng.below(400),
            for_ms,
        },
        "held-link" => Fault::HeldLink { host, for_ms },
        "cut-link" => Fault::CutLink {
            host,
            way: Way::Both,
            for_ms,
        },
        "flapping-link" => Fault::FlappingLink {
            host,
            per_mille: 1 + rng.below(4),
            for_ms,
        },
        "bad-connections" => Fault::BadConnections {
            host: if rng.chance(1, 2) {
                "broker".to_owned()
            } else {
                host
            },
            reset_one_in: [0, 40, 200][below(rng, 3)],
            cut_one_in: [0, 40, 200][below(rng, 3)],
            chop_one_in: [0, 3, 20][below(rng, 3)],
            for_ms,
        },
        // Up to half a minute: the faults end before, and then the disk goes on.
        "disk-stall" => Fault::DiskStall {
            for_ms: if rng.chance(1, 4) {
                3_000 + rng.below(27_000)
            } else {
                for_ms
            },
        },
        "slow-disk" => Fault::SlowDisk {
            latency_ms: 1 + rng.below(60),
            for_ms,
        },
        "bit-rot" => Fault::BitRot { down_ms },
        "index-rot" => Fault::IndexRot { down_ms },
        "leaves" => Fault::Leaves {
            back_after_ms: [500, 2_000, 4_000][below(rng, 3)],
        },
        "quiet-rot" => Fault::QuietRot,
        "bad-sector" => Fault::BadSector,
        "misdirected-write" => Fault::MisdirectedWrite,
        "rot-of-all-copies" => Fault::RotOfAllCopies,
        "write-fails" => Fault::WriteFails {
            one_in: [5, 40, 300][below(rng, 3)],
            for_ms,
        },
        "read-fails" => Fault::ReadFails {
            one_in: [3, 20, 100][below(rng, 3)],
            for_ms,
        },
        "read-flips" => Fault::ReadFlips {
            one_in: [3, 20, 100][below(rng, 3)],
            for_ms,
        },
        "throttle" => Fault::Throttle {
            bytes_per_second: [4, 32, 256][below(rng, 3)] << 10,
            for_ms,
        },
        "metadata-sync-fails" => Fault::MetadataSyncFails {
            for_ms,
            writes: rng.chance(1, 2),
        },
        "metadata-rot" => Fault::MetadataRot { down_ms },
        "disk-full" => Fault::DiskFull {
            room_bytes: rng.below(200_000),
            for_ms,
        },
        _ => Fault::SyncFails {
            one_in: 1 + rng.below(6),
            for_ms,
        },
    }
}
