//! What a seed draws of networks that are cut in patterns, of processes that end in patterns, and of clocks that are wrong
//! for a while.

use skerry_env::Rng;

use super::{CLIENT_HOSTS, Fault, Target, Timed, Way, below};

/// Fewer in a ring are all neighbours.
pub(super) const RING_NODES_MIN: u32 = 5;
/// `broker.session.timeout.ms`: who is away for longer is fenced.
const SESSION_MS: u64 = 750;
/// The group whose coordinator is cut off. Seeds without it have none.
pub(super) const GROUP: &str = "readers";
/// An outage from this length on is a long one.
const LONG_MS: u64 = 5_000;
const AFTERWARDS_MS: u64 = 1_000;

/// How long faults happen where somebody may be away for long: load goes on after it is back.
pub(super) fn with_outages(faults_ms: u64, faults: &[Timed]) -> u64 {
    let back_ms = faults.iter().filter_map(|timed| match timed.fault {
        Fault::Outage { down_ms, .. } if down_ms >= LONG_MS => Some(timed.at_ms + down_ms + AFTERWARDS_MS),
        _ => None,
    });
    back_ms.fold(faults_ms, u64::max)
}

/// Whom a kind of this file hits, where it is not just anybody.
pub(super) fn draw_target(kind: &str, nodes: u32, rng: &Rng) -> Option<Target> {
    match kind {
        "split" | "swizzle" => {
            // Every number of nodes is as likely as another one: sides of one, of a third, of a half.
            let all = u64::from(nodes);
            let few = 1 + rng.below(all - u64::from(kind == "split"));
            let mut chosen = Vec::new();
            let mut left: Vec<u32> = (1..=nodes).collect();
            for _ in 0..few {
                chosen.push(left.remove(below(rng, left.len() as u64)));
            }
            chosen.sort_unstable();
            Some(Target::Nodes(chosen))
        }
        "rolling-restart" | "in-sync-copies-lost" | "lying-syncs" | "wiped-majority" | "lying-voter" => {
            Some(Target::All)
        }
        _ => None,
    }
}

/// A fault of a kind of this file; nothing for the others.
pub(super) fn draw(kind: &str, nodes: u32, rng: &Rng) -> Option<Fault> {
    if kind.starts_with("clock-") {
        draw_clock(kind, rng)
    } else {
        draw_process(kind, rng).or_else(|| draw_network(kind, nodes, rng))
    }
}

fn draw_for_ms(rng: &Rng) -> u64 {
    [100, 800, 2_500][below(rng, 3)] + rng.below(500)
}

fn draw_way(rng: &Rng) -> Way {
    [Way::Both, Way::In, Way::Out][below(rng, 3)]
}

fn draw_network(kind: &str, nodes: u32, rng: &Rng) -> Option<Fault> {
    let cut_from = |host: Target| Fault::CutLink {
        host: host.to_string(),
        way: draw_way(rng),
        for_ms: draw_for_ms(rng),
    };
    Some(match kind {
        "split" => Fault::Split {
            clients: CLIENT_HOSTS
                .iter()
                .filter(|_| rng.chance(1, 2))
                .map(ToString::to_string)
                .collect(),
            for_ms: draw_for_ms(rng),
        },
        "corrupt-batches" => Fault::CorruptBatches {
            // Nobody: those hit.
            host: if rng.chance(1, 2) {
                CLIENT_HOSTS[below(rng, 2)].to_owned()
            } else {
                String::new()
            },
            one_in: [2, 8, 40][below(rng, 3)],
            for_ms: draw_for_ms(rng),
        },
        "swapped-disks" => Fault::SwappedDisks {
            host: format!("n{}", 1 + rng.below(nodes.into())),
            for_ms: draw_for_ms(rng),
        },
        "ring" => Fault::Ring {
            for_ms: draw_for_ms(rng),
        },
        "no-clients" => Fault::NoClients {
            way: draw_way(rng),
            for_ms: draw_for_ms(rng),
        },
        "controller-link" => cut_from(Target::Controller),
        "coordinator-link" => cut_from(Target::CoordinatorOf(GROUP.to_owned())),
        "swizzle" => Fault::Swizzle {
            each_ms: 50 + rng.below(600),
        },
        "late-link" => Fault::LateLink {
            host: if nodes > 1 && rng.chance(1, 2) {
                format!("n{}", 1 + rng.below(nodes.into()))
            } else {
                CLIENT_HOSTS[below(rng, 2)].to_owned()
            },
            // Longer than a client waits for an answer, or not.
            for_ms: [600, 2_600, 4_000][below(rng, 3)] + rng.below(800),
        },
        _ => return None,
    })
}

fn draw_process(kind: &str, rng: &Rng) -> Option<Fault> {
    Some(match kind {
        "outage" => Fault::Outage {
            power: rng.chance(1, 2),
            down_ms: if rng.chance(1, 3) {
                LONG_MS + rng.below(10_000)
            } else {
                SESSION_MS / 2 + rng.below(SESSION_MS * 3 / 2)
            },
        },
        "wiped-disk" => Fault::WipedDisk {
            down_ms: 10 + rng.below(800),
        },
        "crash-loop" => Fault::CrashLoop {
            times: 2 + u32::try_from(rng.below(4)).unwrap_or(0),
            up_ms: [5, 60, 400][below(rng, 3)] + rng.below(100),
            down_ms: 10 + rng.below(200),
        },
        "rolling-restart" => Fault::RollingRestart {
            down_ms: 10 + rng.below(400),
            pause_ms: [0, 300][below(rng, 2)],
        },
        _ => return None,
    })
}

fn draw_clock(kind: &str, rng: &Rng) -> Option<Fault> {
    let by_ms = || [50, 5_000, 3_600_000, 40 * 86_400_000][below(rng, 4)];
    let for_ms = || draw_for_ms(rng);
    Some(match kind {
        "clock-strobe" => Fault::ClockStrobe {
            by_ms: by_ms(),
            every_ms: [3, 40, 300][below(rng, 3)],
            for_ms: for_ms(),
        },
        "clock-freeze" => Fault::ClockFreeze { for_ms: for_ms() },
        "clock-noise" => Fault::ClockNoise {
            by_ms: by_ms(),
            for_ms: for_ms(),
        },
        "clock-swing" => Fault::ClockSwing {
            by_ms: by_ms(),
            period_ms: 200 + rng.below(3_000),
            for_ms: for_ms(),
        },
        "clock-wander" => Fault::ClockWander {
            ppm: 1_000 + rng.below(150_000),
            every_ms: 20 + rng.below(300),
            for_ms: for_ms(),
        },
        _ => return None,
    })
}
