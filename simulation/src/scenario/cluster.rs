//! What a seed draws for several nodes.

use std::collections::BTreeMap;

use skerry_env::Rng;

use super::kinds::is_beyond;
use super::workers::draw_workload;
use super::{
    CLIENT_HOSTS, Fault, Group, KINDS, Rate, Regime, Scenario, Target, Timed, Way, Worker, WorkerKind,
    Workload, below, draw_fault, draw_lulls, draw_snapshots, is_buggified, is_packed, patterns, regime,
};
use crate::trace::fnv_of;
use crate::workload::TOPICS;

/// By then the cluster has found itself and the topics are made, unless the seed wants it otherwise.
const CALM_MS: u64 = 1_500;
/// `flush.messages` where what is acknowledged need not be on disks: more than there are.
const FLUSHED_LATER: u64 = 1_000_000;

/// The scenario of a seed for so many nodes; 0: the seed says how many.
pub(super) fn draw(seed: u64, nodes: u32) -> Scenario {
    let rng = Rng::seeded(seed ^ 0xc105_7e20);
    let usual = [3, 3, 3, 5][below(&rng, 4)];
    let odd = Rng::seeded(seed ^ fnv_of(b"odd sizes"));
    let drawn = match odd.chance(1, 5) {
        true => [2, 4, 6, 7][below(&odd, 4)],
        false => usual,
    };
    let nodes = if nodes == 0 { drawn } else { nodes };
    let faults_ms = 4_000 + rng.below(5_000);
    let replication = [3, 3, 3, 2][below(&rng, 4)].min(i16::try_from(nodes).unwrap_or(3));
    let min_in_sync = if replication > 2 && rng.chance(3, 4) { 2 } else { 1 };
    let has_one_copy = Rng::seeded(seed ^ fnv_of(b"one copy")).chance(1, 12);
    let (replication, min_in_sync) = if has_one_copy {
        (1, 1)
    } else {
        (replication, min_in_sync)
    };
    let voters = draw_voters(seed, nodes);
    let mut faults = draw_faults(seed, nodes, voters, faults_ms);
    // Beyond the contract more than one thing is lost already.
    let is_late = min_in_sync > 1
        && Regime::of(seed) == Regime::Contract
        && Rng::seeded(seed ^ fnv_of(b"flushed later")).chance(1, 6);
    if is_late {
        faults.retain(spares_what_is_not_flushed);
    }
    Scenario {
        about: String::new(),
        reaches: Vec::new(),
        seed,
        regime: Regime::Contract,
        nodes,
        voters,
        replication,
        min_in_sync,
        flush_messages: if is_late { FLUSHED_LATER } else { 0 },
        one_power_at_a_time: is_late,
        settings: draw_settings(seed),
        joins_at_ms: draw_joins(seed, nodes, voters, faults_ms),
        write_to: Vec::new(),
        packed: is_packed(seed),
        snapshot_every_entries: draw_snapshots(seed),
        buggify: is_buggified(seed),
        lulls: draw_lulls(seed),
        core_first: Rng::seeded(seed ^ 0xc0_4ef1).chance(7, 10),
        faults_ms: patterns::with_outages(faults_ms + CALM_MS, &faults),
        tick_ms: [1, 2, 2][below(&rng, 3)],
        latency_ms: (rng.below(2), [2, 5, 20][below(&rng, 3)]),
        cold_read_one_in: [0, 2, 10][below(&rng, 3)],
        ends_with_power_cut: !is_late,
        workload: draw_workload_of_several(seed),
        faults,
    }
}

/// Where records are acknowledged before they are flushed, one crash at a time is borne, as in Kafka: these kinds are whole, or
/// the world keeps them apart.
pub(super) fn spares_what_is_not_flushed(timed: &Timed) -> bool {
    let of = |group: Group| group.kinds().any(|kind| kind.name == timed.kind());
    let spares = [
        "power-cut",
        "double-power-cut",
        "kill",
        "outage",
        "restart",
        "rolling-restart",
        "pause",
        "disk-stall",
        "slow-disk",
        "throttle",
        "read-flips",
    ];
    of(Group::Net) || of(Group::Clock) || spares.contains(&timed.kind()) || is_beyond(timed.kind())
}

/// In half of the worlds the shipped times; in the others who is silent is given up sooner, or later.
fn draw_settings(seed: u64) -> BTreeMap<String, String> {
    let rng = &Rng::seeded(seed ^ fnv_of(b"settings of nodes"));
    if rng.chance(1, 2) {
        return BTreeMap::new();
    }
    let session_ms = [500, 1_500, 3_000, 6_000][below(rng, 4)];
    let leader_ms = [200, 320, 700, 1_500][below(rng, 4)];
    let lag_ms = [2_000, 10_000, 30_000][below(rng, 3)];
    let settings = [
        ("broker.session.timeout.ms", session_ms),
        ("controller.quorum.fetch.timeout.ms", leader_ms),
        ("replica.lag.time.max.ms", lag_ms),
    ];
    let owned = settings.map(|(name, ms)| (name.to_owned(), ms.to_string()));
    owned.into_iter().collect()
}

/// In every third world in which some do not vote, one or all of these come while faults happen.
fn draw_joins(seed: u64, nodes: u32, voters: u32, faults_ms: u64) -> BTreeMap<u32, u64> {
    let rng = &Rng::seeded(seed ^ fnv_of(b"joins"));
    let mut late: Vec<u32> = if voters == 0 {
        Vec::new()
    } else {
        (voters + 1..=nodes).collect()
    };
    if late.is_empty() || !rng.chance(1, 3) {
        return BTreeMap::new();
    }
    if rng.chance(1, 2) {
        late = vec![late[below(rng, late.len() as u64)]];
    }
    late.into_iter()
        .map(|number| (number, CALM_MS + rng.below(faults_ms)))
        .collect()
}

/// A majority needs 1, 3 or 5 voters. In two of three worlds of five and more, three vote and the others only follow.
fn draw_voters(seed: u64, nodes: u32) -> u32 {
    let few = Rng::seeded(seed ^ 0x0701_e250).chance(2, 3);
    let voters = match nodes {
        0..=2 => 1,
        3..=4 => 3,
        _ if few => 3,
        _ => 5,
    };
    if voters == nodes { 0 } else { voters }
}

/// As for one node, and in a third of the seeds somebody who moves replicas and leaders about.
fn draw_workload_of_several(seed: u64) -> Workload {
    let mut workload = draw_workload(seed);
    let rng = &Rng::seeded(seed ^ 0x30_0e5);
    if rng.chance(1, 3) {
        workload.workers.push(Worker {
            host: CLIENT_HOSTS[below(rng, 2)].to_owned(),
            kind: WorkerKind::Moves,
        });
    }
    let rng = &Rng::seeded(seed ^ fnv_of(b"members"));
    if rng.chance(1, 4) {
        workload.workers.push(Worker {
            host: CLIENT_HOSTS[below(rng, 2)].to_owned(),
            kind: WorkerKind::Members,
        });
    }
    workload
}

pub(super) fn draw_faults(seed: u64, nodes: u32, voters: u32, faults_ms: u64) -> Vec<Timed> {
    let mut faults = Vec::new();
    let beyond = regime::kind_of(seed);
    let begins_ms = if seed.is_multiple_of(8) { 100 } else { CALM_MS };
    for kind in KINDS.iter().filter(|kind| kind.most_of_several > 0) {
        let rng = Rng::seeded(seed ^ (kind.stream << 40) ^ 0x0c10);
        let on = match kind.rate {
            Rate::Beyond => beyond == kind.name,
            Rate::Often => rng.chance(2, 5),
            Rate::Seldom => rng.chance(1, 5),
        };
        let is_possible = match kind.name {
            "ring" => nodes >= patterns::RING_NODES_MIN,
            "leaves" => voters > 0,
            _ => true,
        };
        if !on || !is_possible {
            continue;
        }
        for _ in 0..1 + rng.below(kind.most_of_several) {
            let fault = draw_cluster_fault(kind.name, nodes, &rng);
            let on = match kind.name {
                "leaves" => {
                    let others = u64::from(nodes.saturating_sub(voters).max(1));
                    Target::Nodes(vec![voters + 1 + u32::try_from(rng.below(others)).unwrap_or(0)])
                }
                name => {
                    patterns::draw_target(name, nodes, &rng).unwrap_or_else(|| draw_target(name, nodes, &rng))
                }
            };
            faults.push(Timed {
                at_ms: begins_ms + rng.below(faults_ms),
                on,
                fault,
            });
        }
    }
    faults.sort_by_key(|timed| timed.at_ms);
    faults
}

/// One of those that producers write to.
fn draw_partition(rng: &Rng) -> String {
    let (topic, partitions) = TOPICS[below(rng, TOPICS.len() as u64)];
    format!("{topic}-{}", rng.below(partitions.unsigned_abs().into()))
}

fn draw_cluster_fault(kind: &str, nodes: u32, rng: &Rng) -> Fault {
    let down_ms = [10, 300, 2_000][below(rng, 3)] + rng.below(300);
    let for_ms = [100, 800, 2_500][below(rng, 3)] + rng.below(500);
    if let Some(fault) = patterns::draw(kind, nodes, rng) {
        return fault;
    }
    match kind {
        "lying-syncs" => Fault::LyingSyncs {
            partition: draw_partition(rng),
        },
        "lying-voter" => Fault::LyingVoter,
        "wiped-majority" => Fault::WipedMajority,
        "in-sync-copies-lost" => Fault::InSyncCopiesLost {
            partition: draw_partition(rng),
        },
        "isolate" => Fault::Isolate {
            way: [Way::Both, Way::Both, Way::In, Way::Out][below(rng, 4)],
            clients: rng.chance(1, 3),
            for_ms,
        },
        "bridge" => Fault::Bridge { for_ms },
        "pause" => Fault::Pause { for_ms },
        "site-power-cut" => Fault::PowerCut { down_ms },
        _ => {
            let mut fault = draw_fault(kind, rng);
            // Links between nodes, more often than those to clients.
            let other = if rng.chance(3, 4) {
                format!("n{}", 1 + rng.below(nodes.into()))
            } else {
                CLIENT_HOSTS[below(rng, 2)].to_owned()
            };
            match &mut fault {
                Fault::SlowLink { host, .. }
                | Fault::HeldLink { host, .. }
                | Fault::CutLink { host, .. }
                | Fault::FlappingLink { host, .. }
                | Fault::BadConnections { host, .. } => *host = other,
                _ => {}
            }
            fault
        }
    }
}

fn draw_target(kind: &str, nodes: u32, rng: &Rng) -> Target {
    let number = |rng: &Rng| 1 + u32::try_from(rng.below(nodes.into())).unwrap_or(0);
    if kind == "site-power-cut" {
        return Target::All;
    }
    let may_be_several = matches!(kind, "kill" | "power-cut" | "isolate" | "pause");
    match rng.below(14) {
        0..4 => Target::LeaderOf(draw_partition(rng)),
        4..6 => Target::FollowerOf(draw_partition(rng)),
        6..9 => Target::Controller,
        9 if may_be_several => {
            let mut two = vec![number(rng), number(rng)];
            two.sort_unstable();
            two.dedup();
            Target::Nodes(two)
        }
        10 if may_be_several => Target::FollowersOf(draw_partition(rng)),
        11 if kind == "kill" => Target::All,
        12 => Target::CoordinatorOf(patterns::GROUP.to_owned()),
        _ => Target::Nodes(vec![number(rng)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_fault_and_every_size_comes_up() {
        let mut kinds = std::collections::BTreeSet::new();
        let mut sizes = std::collections::BTreeSet::new();
        for seed in 0..200 {
            let scenario = Scenario::draw_cluster(seed, 0);
            assert_eq!(scenario, Scenario::draw_cluster(seed, 0));
            let text = scenario.to_text();
            assert_eq!(
                serde_json::from_str::<Scenario>(&text).unwrap(),
                scenario,
                "{text}"
            );
            kinds.extend(scenario.faults.iter().map(Timed::kind));
            sizes.insert(scenario.nodes);
        }
        let wanted = KINDS.iter().filter(|kind| kind.most_of_several > 0).count();
        assert_eq!(kinds.len(), wanted, "{kinds:?}");
        assert_eq!(sizes.into_iter().collect::<Vec<_>>(), [2, 3, 4, 5, 6, 7]);
    }
}
