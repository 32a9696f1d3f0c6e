//! Networks that are cut, held or late: between two hosts, around some of them, and in patterns.

use std::time::Duration;

use skerry_env::Rng;

use super::World;
use super::faults::Action;
use crate::env::{LinkFaults, NetControl};
use crate::scenario::{Fault, Target, Way};

/// What becomes of a network fault later.
pub(super) enum Step {
    NormalLatency(String, String),
    Release(String, String),
    /// Ways that are no longer cut.
    Mend(Vec<(String, String)>),
    StopFlapping(String, String),
    GoodConnections(String),
    /// Nothing that a host sends is damaged any more.
    Intact(String),
    /// All links of a host are held.
    HoldHost(String),
    ReleaseHost(String),
    /// What waited on old connections arrives.
    LateArrives(String, String),
}

impl World<'_> {
    pub(super) fn step_network(&mut self, step: Step) {
        match step {
            Step::NormalLatency(a, b) => self.normal_latency(&a, &b),
            Step::Release(a, b) => {
                self.links.release(&a, &b);
                self.links.apply(&mut self.sim);
            }
            Step::Mend(ways) => {
                for (from, to) in ways {
                    self.links.mend(&from, &to);
                }
                self.links.apply(&mut self.sim);
            }
            Step::StopFlapping(a, b) => self.sim.set_link_fail_rate(a, b, 0.0),
            Step::GoodConnections(host) => self.control(&host).set_faults(LinkFaults::default()),
            Step::Intact(host) => self.control(&host).corrupt_nothing(),
            Step::HoldHost(name) => {
                self.trace.event(&name, format_args!("its links are held"));
                for other in self.links.others(&name) {
                    self.links.hold(&name, &other);
                }
                self.links.apply(&mut self.sim);
            }
            Step::ReleaseHost(name) => {
                self.trace.event(&name, format_args!("its links are let go"));
                for other in self.links.others(&name) {
                    self.links.release(&name, &other);
                }
                self.links.apply(&mut self.sim);
            }
            Step::LateArrives(a, b) => {
                let messages = self.links.let_late_arrive(&a, &b, &self.sim);
                self.trace.event(
                    &a,
                    format_args!("{messages} messages of its old connections with {b} arrive"),
                );
                *self.felt.entry("late messages").or_default() += messages as u64;
                self.links.apply(&mut self.sim);
            }
        }
    }

    fn later(&mut self, after_ms: u64, step: Step) {
        self.plan(self.now_ms + after_ms, Action::Network(step));
    }

    /// Faults between those hit and one other host.
    pub(super) fn trouble_a_link(&mut self, name: &str, fault: Fault) {
        let (Fault::SlowLink { host, .. }
        | Fault::HeldLink { host, .. }
        | Fault::CutLink { host, .. }
        | Fault::FlappingLink { host, .. }
        | Fault::LateLink { host, .. }
        | Fault::CorruptBatches { host, .. }
        | Fault::BadConnections { host, .. }) = &fault
        else {
            return;
        };
        let (name, Some(host)) = (name.to_owned(), self.host_named(host)) else {
            return;
        };
        // Nobody is linked to itself: then it is the next node's link.
        let of_one = matches!(fault, Fault::BadConnections { .. } | Fault::CorruptBatches { .. });
        let mut host = host;
        if name == host && !of_one {
            let place = self.nodes.iter().position(|node| node.name == name).unwrap_or(0);
            host.clone_from(&self.nodes[(place + 1) % self.nodes.len()].name);
            if name == host {
                return;
            }
        }
        match fault {
            Fault::SlowLink { max_ms, for_ms, .. } => {
                let max = Duration::from_millis(max_ms);
                self.sim
                    .set_link_max_message_latency(name.as_str(), host.as_str(), max);
                self.later(for_ms, Step::NormalLatency(name, host));
            }
            Fault::HeldLink { for_ms, .. } => {
                self.links.hold(&name, &host);
                self.links.apply(&mut self.sim);
                self.later(for_ms, Step::Release(name, host));
            }
            Fault::LateLink { for_ms, .. } => {
                let connections = self.links.hold_open(&name, &host, &self.sim);
                self.trace.event(
                    &name,
                    format_args!("its {connections} connections with {host} are held back"),
                );
                self.links.apply(&mut self.sim);
                self.later(for_ms, Step::LateArrives(name, host));
            }
            Fault::CorruptBatches { one_in, for_ms, .. } => {
                let sender = if host.is_empty() { name } else { host };
                let rng = Rng::seeded(self.scenario.seed ^ 0xc0_44d7 ^ (self.now_ms << 24));
                self.control(&sender).corrupt(one_in, rng);
                self.later(for_ms, Step::Intact(sender));
            }
            Fault::CutLink { way, for_ms, .. } => {
                let ways = ways_between(&name, &host, way);
                self.cut(ways, for_ms);
            }
            Fault::FlappingLink {
                per_mille, for_ms, ..
            } => {
                let rate = per_mille as f64 / 1_000.0;
                self.sim.set_link_fail_rate(name.as_str(), host.as_str(), rate);
                self.later(for_ms, Step::StopFlapping(name, host));
            }
            Fault::BadConnections {
                reset_one_in,
                cut_one_in,
                chop_one_in,
                for_ms,
                ..
            } => {
                self.control(&host).set_faults(LinkFaults {
                    reset_one_in,
                    cut_one_in,
                    chop_one_in,
                });
                self.later(for_ms, Step::GoodConnections(host));
            }
            _ => {}
        }
    }

    /// Faults that hit several nodes at once; false for all others.
    pub(super) fn trouble_the_network(&mut self, hit: &[usize], fault: &Fault) -> bool {
        match fault {
            Fault::Isolate { way, clients, for_ms } => self.isolate(hit, *way, *clients, *for_ms),
            Fault::Split { clients, for_ms } => self.split(hit, clients, *for_ms),
            Fault::Ring { for_ms } => {
                if let Some(first) = hit.first() {
                    self.ring(*first, *for_ms);
                }
            }
            Fault::NoClients { way, for_ms } => self.cut_clients(hit, *way, *for_ms),
            Fault::Swizzle { each_ms } => self.swizzle(hit, *each_ms),
            _ => return false,
        }
        true
    }

    /// A host by its own name, or by what its node is now; nobody where nobody is that.
    fn host_named(&self, host: &str) -> Option<String> {
        let Ok(target) = host.parse::<Target>() else {
            return Some(host.to_owned());
        };
        let node = *self.targets(&target).first()?;
        Some(self.nodes[node].name.clone())
    }

    fn cut(&mut self, ways: Vec<(String, String)>, for_ms: u64) {
        for (from, to) in &ways {
            self.links.cut(from, to);
        }
        self.links.apply(&mut self.sim);
        self.later(for_ms, Step::Mend(ways));
    }

    fn is_node(&self, host: &str) -> bool {
        self.nodes.iter().any(|node| node.name == host)
    }

    pub(super) fn names(&self, hit: &[usize]) -> Vec<String> {
        hit.iter().map(|node| self.nodes[*node].name.clone()).collect()
    }

    /// Cuts some nodes off from the rest.
    fn isolate(&mut self, hit: &[usize], way: Way, clients: bool, for_ms: u64) {
        let hit = self.names(hit);
        let mut ways = Vec::new();
        for name in &hit {
            for other in self.links.others(name) {
                if !hit.contains(&other) && (clients || self.is_node(&other)) {
                    ways.extend(ways_between(name, &other, way));
                }
            }
        }
        self.cut(ways, for_ms);
    }

    /// Two sides, each with its nodes and its clients.
    fn split(&mut self, hit: &[usize], clients: &[String], for_ms: u64) {
        let mut side = self.names(hit);
        side.extend(clients.iter().cloned());
        let mut ways = Vec::new();
        for name in &side {
            for other in self.links.others(name) {
                if !side.contains(&other) {
                    ways.extend(ways_between(name, &other, Way::Both));
                }
            }
        }
        self.cut(ways, for_ms);
    }

    /// Only neighbours hear each other (Jepsen's `majorities-ring`).
    fn ring(&mut self, first: usize, for_ms: u64) {
        let count = self.nodes.len();
        // Who hears so many on either side hears a majority.
        let reach = (count / 2).div_ceil(2);
        let mut ways = Vec::new();
        for one in 0..count {
            for other in one + 1..count {
                let apart = (other - one).min(count - (other - one));
                if apart > reach {
                    let at = |place: usize| self.nodes[(first + place) % count].name.clone();
                    ways.extend(ways_between(&at(one), &at(other), Way::Both));
                }
            }
        }
        self.cut(ways, for_ms);
    }

    fn cut_clients(&mut self, hit: &[usize], way: Way, for_ms: u64) {
        let mut ways = Vec::new();
        for name in self.names(hit) {
            for other in self.links.others(&name) {
                if !self.is_node(&other) {
                    ways.extend(ways_between(&name, &other, way));
                }
            }
        }
        self.cut(ways, for_ms);
    }

    /// FoundationDB's swizzle-clog: one after the other falls silent, and they come back in another order.
    fn swizzle(&mut self, hit: &[usize], each_ms: u64) {
        let rng = Rng::seeded(self.scenario.seed ^ 0x5717 ^ self.now_ms);
        let mut names = self.names(hit);
        for (turn, name) in (0..).zip(&names) {
            self.later(turn * each_ms, Step::HoldHost(name.clone()));
        }
        let all_ms = names.len() as u64 * each_ms;
        for turn in 0.. {
            if names.is_empty() {
                return;
            }
            let next = usize::try_from(rng.below(names.len() as u64)).unwrap_or(0);
            let name = names.remove(next);
            self.later(all_ms + turn * each_ms, Step::ReleaseHost(name));
        }
    }

    /// Cuts the nodes on the one side of a node from those on its other side.
    pub(super) fn bridge(&mut self, index: usize, for_ms: u64) {
        let count = self.nodes.len();
        let at = |step: usize| self.nodes[(index + step) % count].name.clone();
        let half = count / 2;
        let mut ways = Vec::new();
        for left in 1..=half {
            for right in half + 1..count {
                ways.push((at(left), at(right)));
                ways.push((at(right), at(left)));
            }
        }
        self.cut(ways, for_ms);
    }

    fn control(&self, host: &str) -> &NetControl {
        let node = self.nodes.iter().find(|node| node.name == host);
        match (self.clients.get(host), node) {
            (Some(client), _) => &client.net,
            (None, Some(node)) => &node.host.net,
            (None, None) => &self.nodes[0].host.net,
        }
    }

    fn normal_latency(&mut self, a: &str, b: &str) {
        let max = Duration::from_millis(self.scenario.latency_ms.1);
        self.sim.set_link_max_message_latency(a, b, max);
    }

    /// Every link is as it should be.
    pub(super) fn heal_network(&mut self) {
        for client in self.clients.values() {
            client.net.set_faults(LinkFaults::default());
            client.net.corrupt_nothing();
        }
        for node in &self.nodes {
            node.host.net.set_faults(LinkFaults::default());
            node.host.net.corrupt_nothing();
        }
        self.links.heal();
        self.links.apply(&mut self.sim);
        for (a, b) in self.links.all() {
            self.sim.set_link_fail_rate(a.as_str(), b.as_str(), 0.0);
            self.normal_latency(&a, &b);
        }
        self.links.mend_flapping(&mut self.sim);
    }
}

/// What is cut where `way` of `name` is: the ways from and to `other`.
fn ways_between(name: &str, other: &str, way: Way) -> Vec<(String, String)> {
    let mut ways = Vec::new();
    if way != Way::Out {
        ways.push((other.to_owned(), name.to_owned()));
    }
    if way != Way::In {
        ways.push((name.to_owned(), other.to_owned()));
    }
    ways
}
