//! Which ways of the network are open. Several faults may lie on one link: it is healthy when the last of them has
//! gone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use turmoil::Sim;

use crate::env::NetControl;

/// What a link does with messages, in its two directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Open,
    Held,
    /// Lost: those from the first to the second, and those back.
    Cut(bool, bool),
}

/// A connection by its ends: who dialled, and whom.
type Connection = (SocketAddr, SocketAddr);

/// The links between the hosts of a world.
pub(crate) struct Links {
    hosts: BTreeSet<String>,
    /// How many faults cut the way from one host to another.
    cut: BTreeMap<(String, String), u32>,
    /// How many faults hold a link, by its hosts in their order.
    held: BTreeMap<(String, String), u32>,
    /// Links on which some connections wait while others pass: by how many faults, and which.
    late: BTreeMap<(String, String), (u32, BTreeSet<Connection>)>,
    /// Hosts without power.
    dark: BTreeSet<String>,
    /// Hosts whose process stands still.
    still: BTreeSet<String>,
    now: BTreeMap<(String, String), Way>,
    net: NetControl,
}

impl Links {
    pub(crate) fn new(net: NetControl) -> Self {
        Self {
            hosts: BTreeSet::new(),
            cut: BTreeMap::new(),
            held: BTreeMap::new(),
            late: BTreeMap::new(),
            dark: BTreeSet::new(),
            still: BTreeSet::new(),
            now: BTreeMap::new(),
            net,
        }
    }

    /// A host has joined the world.
    pub(crate) fn add(&mut self, host: &str, sim: &mut Sim<'static>) {
        self.hosts.insert(host.to_owned());
        self.apply(sim);
    }

    /// What `from` sends to `to` is lost from now on.
    pub(crate) fn cut(&mut self, from: &str, to: &str) {
        *self.cut.entry((from.to_owned(), to.to_owned())).or_default() += 1;
    }

    /// One fault fewer cuts it.
    pub(crate) fn mend(&mut self, from: &str, to: &str) {
        less(&mut self.cut, (from.to_owned(), to.to_owned()));
    }

    /// What the two send to each other waits from now on.
    pub(crate) fn hold(&mut self, a: &str, b: &str) {
        *self.held.entry(pair(a, b)).or_default() += 1;
    }

    /// One fault fewer holds it.
    pub(crate) fn release(&mut self, a: &str, b: &str) {
        less(&mut self.held, pair(a, b));
    }

    /// What the connections that are open between the two now carry waits from now on; those to come are as usual. Tells
    /// how many wait.
    pub(crate) fn hold_open(&mut self, a: &str, b: &str, sim: &Sim<'static>) -> usize {
        let open = self.net.open_between(sim.lookup(a), sim.lookup(b));
        let (faults, waiting) = self.late.entry(pair(a, b)).or_default();
        *faults += 1;
        waiting.extend(open);
        waiting.len()
    }

    /// One fault fewer holds connections of this link back. Tells how many messages arrive late now.
    pub(crate) fn let_late_arrive(&mut self, a: &str, b: &str, sim: &Sim<'static>) -> usize {
        let link = pair(a, b);
        let Some((faults, _)) = self.late.get_mut(&link) else {
            return 0;
        };
        *faults -= 1;
        if *faults > 0 {
            return 0;
        }
        let ends = [sim.lookup(a), sim.lookup(b)];
        let mut waiting = 0;
        sim.links(|links| {
            for messages in links {
                let (one, other) = messages.pair();
                if ends.contains(&one) && ends.contains(&other) {
                    waiting += messages.count();
                }
            }
        });
        self.late.remove(&link);
        waiting
    }

    /// Where only some connections of a link are held back: what the others carry passes. turmoil holds whole links.
    pub(crate) fn pass_what_is_not_late(&self, sim: &Sim<'static>) {
        for (link, (_, late)) in &self.late {
            let held_anyway =
                self.held.contains_key(link) || self.still.contains(&link.0) || self.still.contains(&link.1);
            if held_anyway || self.now.get(link) != Some(&Way::Held) {
                continue;
            }
            let ends = [sim.lookup(link.0.as_str()), sim.lookup(link.1.as_str())];
            sim.links(|links| {
                for messages in links {
                    let (one, other) = messages.pair();
                    if !(ends.contains(&one) && ends.contains(&other)) {
                        continue;
                    }
                    for message in messages {
                        let (from, to) = message.pair();
                        if !late.contains(&(from, to)) && !late.contains(&(to, from)) {
                            message.deliver();
                        }
                    }
                }
            });
        }
    }

    /// Without power nobody says goodbye: peers see silence, not a closed connection.
    pub(crate) fn set_dark(&mut self, host: &str, dark: bool) {
        if dark {
            self.dark.insert(host.to_owned());
        } else {
            self.dark.remove(host);
        }
    }

    /// Nothing moves to or from a process that stands still.
    pub(crate) fn set_still(&mut self, host: &str, still: bool) {
        if still {
            self.still.insert(host.to_owned());
        } else {
            self.still.remove(host);
        }
    }

    /// Takes every fault away but missing power.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.held.clear();
        self.late.clear();
        self.still.clear();
    }

    /// What one host sends now reaches the other.
    pub(crate) fn carries(&self, from: &str, to: &str) -> bool {
        match self.wanted(from, to) {
            Way::Open => true,
            Way::Held => self.late.contains_key(&pair(from, to)),
            Way::Cut(there, _) => !there,
        }
    }

    fn wanted(&self, a: &str, b: &str) -> Way {
        if self.dark.contains(a) || self.dark.contains(b) {
            return Way::Cut(true, true);
        }
        // Asked for each node at every tick: without faults nothing is allocated.
        let no_cut = self.cut.is_empty();
        let cut = |from: &str, to: &str| !no_cut && self.cut.contains_key(&(from.to_owned(), to.to_owned()));
        match (cut(a, b), cut(b, a)) {
            (false, false) if !self.held.is_empty() && self.held.contains_key(&pair(a, b)) => Way::Held,
            (false, false) if !self.late.is_empty() && self.late.contains_key(&pair(a, b)) => Way::Held,
            (false, false) if self.still.contains(a) || self.still.contains(b) => Way::Held,
            (false, false) => Way::Open,
            (there, back) => Way::Cut(there, back),
        }
    }

    /// Makes the network what it should be.
    pub(crate) fn apply(&mut self, sim: &mut Sim<'static>) {
        let hosts: Vec<&String> = self.hosts.iter().collect();
        for (index, a) in hosts.iter().enumerate() {
            for b in &hosts[index + 1..] {
                let link = pair(a, b);
                let wanted = self.wanted(a, b);
                let now = self.now.get(&link).copied().unwrap_or_default();
                if now == wanted {
                    continue;
                }
                let (a, b) = (a.as_str(), b.as_str());
                match now {
                    Way::Open => {}
                    Way::Held => sim.release(a, b),
                    Way::Cut(..) => sim.repair(a, b),
                }
                let (there, back) = match wanted {
                    Way::Open => (false, false),
                    Way::Held => {
                        sim.hold(a, b);
                        (false, false)
                    }
                    Way::Cut(there, back) => (there, back),
                };
                if there && back {
                    sim.partition(a, b);
                } else if there {
                    sim.partition_oneway(a, b);
                } else if back {
                    sim.partition_oneway(b, a);
                }
                self.net.set_cut(a, b, there);
                self.net.set_cut(b, a, back);
                self.now.insert(link, wanted);
            }
        }
    }

    /// Links that chance has cut are whole again.
    pub(crate) fn mend_flapping(&self, sim: &mut Sim<'static>) {
        for (a, b) in self.all() {
            let way = self.now.get(&(a.clone(), b.clone())).copied().unwrap_or_default();
            if way == Way::Open {
                sim.release(a.as_str(), b.as_str());
            }
        }
    }

    /// Every link between two of the hosts.
    pub(crate) fn all(&self) -> Vec<(String, String)> {
        let hosts: Vec<&String> = self.hosts.iter().collect();
        let mut all = Vec::new();
        for (index, a) in hosts.iter().enumerate() {
            all.extend(hosts[index + 1..].iter().map(|b| pair(a, b)));
        }
        all
    }

    /// The other hosts.
    pub(crate) fn others(&self, host: &str) -> Vec<String> {
        self.hosts
            .iter()
            .filter(|other| *other != host)
            .cloned()
            .collect()
    }
}

fn pair(a: &str, b: &str) -> (String, String) {
    if a <= b {
        (a.to_owned(), b.to_owned())
    } else {
        (b.to_owned(), a.to_owned())
    }
}

fn less(counts: &mut BTreeMap<(String, String), u32>, key: (String, String)) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}
