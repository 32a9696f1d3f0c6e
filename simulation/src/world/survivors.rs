//! The phase in which a core of the cluster must go on by itself: faults end within it, and stay for ever outside.

use std::sync::Arc;

use parking_lot::Mutex;
use skerry_env::Rng;

use super::faults::Action;
use super::{HORIZON_MS, WHOLE_WITHIN_MS, World};
use crate::invariants::check_core;
use crate::rot::Rot;
use crate::survivors::{self, Fate, Placed};
use crate::workload;

/// The client that looks whether the core serves.
const PROBE: &str = "core-probe";
/// Whoever is not in the core does not come back before it is over.
const NEVER_MS: u64 = 1 << 50;

/// Who survives.
struct Core {
    members: Vec<usize>,
    /// The others.
    fates: Vec<(usize, Fate)>,
    /// What it has to serve.
    partitions: Vec<Placed>,
}

/// A full disk tells producers to wait, as long as it lasts, and its partitions stay where they are.
fn is_on_a_full_disk(placed: &Placed, fates: &[(usize, Fate)]) -> bool {
    let mut places = placed.replicas.iter().chain(&placed.complete);
    places.any(|place| fates.contains(&(*place, Fate::Full)))
}

/// So long is waited for a change of the voters to end before a core is chosen.
const MEMBERS_STAY_WITHIN_MS: u64 = 4_000;

impl World<'_> {
    /// Heals a core alone, and waits until it serves; false when a promise was broken.
    pub(super) fn live_on_a_core(&mut self) -> bool {
        // A change of the voters that has begun, or begins then, may need who is left out.
        let by = self.now_ms + MEMBERS_STAY_WITHIN_MS;
        let stay = |world: &Self| world.shared.begin_change_of_members();
        if !self.step_until(by, stay) {
            return false;
        }
        if self.now_ms >= by && !self.shared.begin_change_of_members() {
            *self.felt.entry("no core could do alone").or_default() += 1;
            return true;
        }
        let does = self.do_on_a_core();
        self.shared.end_change_of_members();
        does
    }

    fn do_on_a_core(&mut self) -> bool {
        let Some(core) = self.choose_core() else {
            *self.felt.entry("no core could do alone").or_default() += 1;
            return true;
        };
        *self.felt.entry("a core was left alone").or_default() += 1;
        self.heal_core(&core);
        let by = self.now_ms + WHOLE_WITHIN_MS;
        let stuck = if self.step_until(by, |world| world.what_core_lacks(&core).is_none()) {
            self.what_core_lacks(&core)
                .map(|missing| format!("{WHOLE_WITHIN_MS} ms after it was healed: {missing}"))
        } else {
            return false;
        };
        let stuck = match stuck {
            Some(stuck) => Some(stuck),
            None => match self.probe_core(&core) {
                Ok(stuck) => stuck,
                Err(()) => return false,
            },
        };
        self.forgive(&core);
        let Some(stuck) = stuck else { return true };
        // While it was chosen, the last who is needed fell out: a mistake of the choice, and not of the core.
        let beyond = self.what_is_beyond(&core);
        if let Some(beyond) = &beyond {
            self.trace
                .event("world", format_args!("the core could not: {beyond}"));
            *self.felt.entry("a core could not do alone").or_default() += 1;
        }
        let found = check_core(&self.names(&core.members), &stuck, beyond.as_deref());
        let is_fine = found.is_empty();
        self.report(found);
        is_fine
    }

    fn choose_core(&self) -> Option<Core> {
        let rng = Rng::seeded(self.scenario.seed ^ 0x000c_04e5);
        let watcher = self.watcher.as_ref()?;
        let voters = watcher.voters()?;
        let mut partitions = watcher.placed();
        // A copy that has rotted may be the last one, and then somebody has to help; and so it is where a disk was lost, or
        // is in another machine.
        let is_away = |node: &super::Node| node.is_swapped;
        let is_there = |rot: &Rot| rot.is_there(&self.nodes[rot.node].host.disk);
        if self.rotten.iter().any(is_there)
            || self.disk_is_missed().is_some()
            || self.nodes.iter().any(is_away)
        {
            return None;
        }
        let members = survivors::choose(self.nodes.len(), &voters, &partitions, &rng)?;
        let others = (0..self.nodes.len()).filter(|node| !members.contains(node));
        let fates: Vec<_> = others.map(|node| (node, Fate::draw(&rng))).collect();
        partitions.retain(|placed| !is_on_a_full_disk(placed, &fates));
        Some(Core {
            members,
            fates,
            partitions,
        })
    }

    fn heal_core(&mut self, core: &Core) {
        let members = self.names(&core.members).join(" and ");
        self.trace.event(
            "world",
            format_args!("only {members} are healed: {:?}", core.fates),
        );
        let mut starts = Vec::new();
        self.agenda.retain(|_, action| {
            if let Action::Start(node) = action {
                starts.push(*node);
            }
            matches!(action, Action::MustHaveStopped { .. })
        });
        for node in starts {
            let at_ms = if core.members.contains(&node) {
                self.now_ms
            } else {
                NEVER_MS
            };
            self.plan(at_ms, Action::Start(node));
        }
        for node in &core.members {
            self.resume(*node);
            self.heal_node(*node);
        }
        self.heal_network();
        for (node, fate) in &core.fates {
            self.inflict_for_ever(*node, *fate);
        }
        self.links.apply(&mut self.sim);
        for node in &core.members {
            self.restart_what_has_failed(*node, "disk has failed");
        }
    }

    fn inflict_for_ever(&mut self, index: usize, fate: Fate) {
        let node = &self.nodes[index];
        let name = node.name.clone();
        // Who stands still does so for ever.
        if node.host.gate.is_closed() {
            self.links.set_still(&name, true);
        }
        match fate {
            Fate::Dead { power } if node.is_up() => self.crash(index, power, NEVER_MS),
            Fate::Still if node.is_up() && !node.host.gate.is_closed() => {
                node.host.gate.close();
                self.links.set_still(&name, true);
            }
            Fate::Dead { .. } | Fate::Still => {}
            Fate::Full => node.host.disk.leave_room(0),
            Fate::CutOff | Fate::Deaf | Fate::Mute => {
                for other in self.links.others(&name) {
                    self.cut_for_ever(&name, &other, fate);
                }
            }
        }
    }

    fn cut_for_ever(&mut self, name: &str, other: &str, fate: Fate) {
        if fate != Fate::Mute {
            self.links.cut(other, name);
        }
        if fate != Fate::Deaf {
            self.links.cut(name, other);
        }
    }

    /// What the core has to serve as things are now: a reassignment may have moved a partition to a full disk since the core
    /// was chosen (seed 199 of five nodes).
    fn to_be_served(&self, core: &Core) -> Vec<String> {
        let placed = self
            .watcher
            .as_ref()
            .map_or(Vec::new(), |watcher| watcher.placed());
        let is_known = |placed: &Placed| core.partitions.iter().any(|known| known.name == placed.name);
        placed
            .into_iter()
            .filter(|placed| is_known(placed) && !is_on_a_full_disk(placed, &core.fates))
            .map(|placed| placed.name)
            .collect()
    }

    fn what_core_lacks(&self, core: &Core) -> Option<String> {
        let names = self.to_be_served(core);
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let watcher = self.watcher.as_ref()?;
        watcher.what_a_core_lacks(&self.brokers(), &core.members, &names)
    }

    /// Why the core may not be asked to go on, as things are now.
    fn what_is_beyond(&self, core: &Core) -> Option<String> {
        let watcher = self.watcher.as_ref()?;
        let mut partitions = watcher.placed();
        partitions.retain(|placed| core.partitions.iter().any(|known| known.name == placed.name));
        survivors::what_is_beyond(&core.members, &watcher.voters()?, &partitions)
    }

    /// A client that knows all nodes writes to every partition, reads that back, and asks for what groups have committed. What
    /// does not go; an error where a promise was broken meanwhile.
    fn probe_core(&mut self, core: &Core) -> Result<Option<String>, ()> {
        let host = self.new_host(PROBE);
        let shared = self.shared.clone();
        let names = self.to_be_served(core);
        let groups = if names.len() == self.watched_partitions() {
            self.scenario.groups()
        } else {
            Vec::new()
        };
        let heard: Arc<Mutex<Option<Result<(), String>>>> = Arc::default();
        let told = heard.clone();
        self.sim.client(PROBE, async move {
            let served = workload::serves(&host.boot(), &shared, &host.name, &names, &groups).await;
            *told.lock() = Some(served);
            Ok(())
        });
        self.links.add(PROBE, &mut self.sim);
        for (node, fate) in &core.fates {
            if matches!(fate, Fate::CutOff | Fate::Deaf | Fate::Mute) {
                let name = self.nodes[*node].name.clone();
                self.cut_for_ever(&name, PROBE, *fate);
            }
        }
        self.links.apply(&mut self.sim);
        let by = self.now_ms + HORIZON_MS / 2;
        if !self.step_until(by, |_| heard.lock().is_some()) {
            return Err(());
        }
        let served = heard.lock().take();
        Ok(served.map_or_else(|| Some("the probe does not end".to_owned()), Result::err))
    }

    fn watched_partitions(&self) -> usize {
        self.watcher.as_ref().map_or(0, |watcher| watcher.placed().len())
    }

    /// What only the phase of the core has done; the rest is healed with everything else.
    fn forgive(&mut self, core: &Core) {
        for (node, _) in &core.fates {
            self.resume(*node);
        }
    }
}
