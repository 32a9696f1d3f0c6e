//! What is looked at now and then, and once at the end: shadow recovery, the groups' logs, what a node complains of, what it
//! holds when nobody asks it for anything.

use std::collections::BTreeMap;

use skerry::partition::Part;
use skerry_checker::history::{Op, Outcome, What};

use super::World;
use super::nodes::Node;
use crate::complaints::{self, Disks};
use crate::invariants::offsets::{self, Committed, GroupLogs, Groups, TOPIC};
use crate::invariants::raft_logs::RaftLogs;
use crate::invariants::shadow::{Shadow, Subject};
use crate::invariants::{Acts, Found, Usage, check_reserve};
use crate::process::State;
use crate::scenario::Scenario;

/// How often what nodes do is counted.
const COUNT_MS: u64 = 1_000;

/// See the module.
pub(super) struct Checks {
    shadow: Shadow,
    raft_logs: RaftLogs,
    /// `None` since some of it may have been lost: beyond the contract.
    groups: Option<GroupLogs>,
    next_count_ms: u64,
    /// Dials and writes of each node when they were counted last.
    counted: Vec<(u64, u64)>,
    /// The most of each that any second had.
    most: (u64, u64),
    /// The least that all nodes held together in the quiet: of processes that have lived through the faults, and of new ones.
    lived: Option<Usage>,
    fresh: Option<Usage>,
    anew: bool,
    /// What the nodes had done whose processes do not run, when these stopped; and whether they only stand still.
    still: BTreeMap<usize, (bool, Acts)>,
}

impl Checks {
    pub(super) fn new(scenario: &Scenario) -> Self {
        Self {
            shadow: Shadow::new(scenario.seed, scenario.tick_ms),
            raft_logs: RaftLogs::default(),
            groups: Some(GroupLogs::default()),
            next_count_ms: COUNT_MS,
            counted: Vec::new(),
            most: (0, 0),
            lived: None,
            fresh: None,
            anew: false,
            still: BTreeMap::new(),
        }
    }

    /// What the node did before is what a process did that is gone.
    pub(super) fn is_another_process(&mut self, index: usize) {
        self.still.remove(&index);
    }

    /// What is written of groups may have been lost: beyond the contract.
    pub(super) fn forget_groups(&mut self) {
        self.groups = None;
    }

    /// All processes are new from now on.
    pub(super) fn is_anew(&mut self) {
        self.anew = true;
    }
}

impl World<'_> {
    pub(super) fn check_now_and_then(&mut self) {
        self.check_who_is_still();
        self.cast_shadow();
        self.hear_complaints();
        self.check_reserves();
        if self.now_ms >= self.checks.next_count_ms {
            self.checks.next_count_ms = self.now_ms + COUNT_MS;
            self.count_traffic();
            self.tell_oracles();
            self.compare_raft_logs();
            self.follow_groups();
        }
        if self.shared.is_audited() {
            self.count_what_is_held();
        }
    }

    /// Before a step: whose process does not run from now on.
    pub(super) fn note_who_is_still(&mut self) {
        for (index, node) in self.nodes.iter().enumerate() {
            let stands_still = node.host.gate.is_closed();
            if !node.is_silent() {
                self.checks.still.remove(&index);
            } else if self
                .checks
                .still
                .get(&index)
                .is_none_or(|known| known.0 != stands_still)
            {
                let acts = node.acts(stands_still);
                self.checks.still.insert(index, (stands_still, acts));
            }
        }
    }

    /// After it: none of them has done anything.
    fn check_who_is_still(&mut self) {
        let mut found = Found::new();
        for (index, (stood_still, before)) in &self.checks.still {
            let node = &self.nodes[*index];
            found.extend(node.acts(*stood_still).judge(before, &node.name));
        }
        self.report(found);
    }

    fn check_reserves(&self) {
        for node in &self.nodes {
            if let Some((left_bytes, free_bytes)) = node.host.disk.room_of_filled()
                && let Some(broker) = node.process.broker()
            {
                let reserve_bytes = broker.config().disk_reserve_bytes;
                self.report(check_reserve(left_bytes, reserve_bytes, free_bytes, &node.name));
            }
        }
    }

    pub(super) fn report(&self, found: impl IntoIterator<Item = (&'static str, String)>) {
        for (check, message) in found {
            self.violations.add(&self.trace, check, message);
        }
    }

    fn cast_shadow(&mut self) {
        let Some(node) = self.checks.shadow.whose_turn(self.now_ms, self.nodes.len()) else {
            return;
        };
        let node = &self.nodes[node];
        let Some(broker) = node
            .process
            .broker()
            .filter(|_| node.process.state() == State::Serving)
        else {
            return;
        };
        let found = self.checks.shadow.look(&Subject {
            name: &node.name,
            disk: &node.host.disk,
            broker: &broker,
            rotten: &self.shared.rotten,
            rotten_indexes: &node.rotten_indexes,
            gives_up: &|partition| {
                let watcher = self.watcher.as_ref();
                watcher.is_some_and(|watcher| watcher.has_given_up(partition))
            },
        });
        self.report(found);
    }

    /// Compares what is new in the logs of the quorum.
    pub(super) fn compare_raft_logs(&mut self) {
        let (mut found, logs) = (Found::new(), &mut self.checks.raft_logs);
        for (place, node) in self.nodes.iter().enumerate() {
            let broker = node.process.broker();
            let Some(broker) = broker.filter(|_| node.process.state() == State::Serving) else {
                continue;
            };
            // Applied is what its log had there: a follower hears what is committed before it has cut what it had instead
            // (5056 of any size, 60 s).
            let applied = broker.quorum().status().applied_index;
            let entries = broker.quorum().log_entries(logs.first(place));
            logs.look(place, &entries, applied, &mut found);
        }
        self.report(found);
    }

    /// The quorum goes on from the log of one node.
    pub(super) fn forget_raft_logs(&mut self) {
        self.checks.raft_logs.on_recovered();
        self.checks.forget_groups();
    }

    /// Reads on what is committed of the groups' logs, and compares it with what clients were told (21, 22).
    fn follow_groups(&mut self) {
        let Some(watcher) = &self.watcher else { return };
        let Some(mut groups) = self.checks.groups.take() else {
            return;
        };
        let (mut found, mut is_current) = (Found::new(), true);
        for (name, number, end) in watcher.groups_logs() {
            if watcher.has_given_up(name) {
                return;
            }
            let knows = |node: &&Node| {
                // Of a copy that has rotted not every batch can be read.
                if self.shared.rotten.is(&node.name, name) {
                    return false;
                }
                let broker = node.process.broker();
                let partition = broker.and_then(|broker| broker.partitions().get(TOPIC, number));
                let look = partition.and_then(|partition| partition.look());
                // Of what its predecessor acknowledged in its last step only its log tells, until it is committed again (3831).
                look.is_some_and(|look| {
                    let high = look.high_watermark;
                    let knows_all = look.lead.is_some_and(|lead| lead.epoch_start <= high);
                    knows_all && high.get() >= end
                })
            };
            match self.nodes.iter().find(knows) {
                Some(_) if groups.next(name) >= end => {}
                Some(node) => groups.follow(&node.host.disk, name, end, &mut found),
                None => is_current = false,
            }
        }
        groups.hear(&self.shared.history.lock());
        if is_current {
            groups.check(&mut found);
        }
        self.checks.groups = Some(groups);
        self.report(found);
    }

    /// An error in the log of a node is a mistake of ours, unless a disk has made one, and it is a line about disks.
    fn hear_complaints(&mut self) {
        let complaints = complaints::take();
        if complaints.is_empty() {
            return;
        }
        let mut nodes = self.nodes.iter();
        let have_refused = nodes.any(|node| node.excuses() > 0 || node.host.disk.has_failed());
        let rotten = self.rotten.iter().map(|rot| &rot.partition);
        let disks = Disks {
            fail: have_refused || !self.rotten.is_empty() || self.partitions_beyond().next().is_some(),
            have_refused,
            spoilt: rotten.chain(self.partitions_beyond()).cloned().collect(),
        };
        for complaint in complaints {
            self.report(complaint.judge(&disks));
        }
    }

    /// Nobody dials, or writes, as if there were no pause between two tries.
    fn count_traffic(&mut self) {
        let now: Vec<_> = self.nodes.iter().map(|node| node.host.net.traffic()).collect();
        let mut found = Found::new();
        for (node, ((dials, writes), (dials_before, writes_before))) in
            self.nodes.iter().zip(now.iter().zip(&self.checks.counted))
        {
            let delta = (dials - dials_before, writes - writes_before);
            let most = &mut self.checks.most;
            *most = (most.0.max(delta.0), most.1.max(delta.1));
            found.extend(Usage::judge_traffic(&node.name, delta));
        }
        self.checks.counted = now;
        self.report(found);
    }

    /// On how many disks a commit must be before it is answered is a setting of the metadata.
    fn tell_oracles(&self) {
        for node in &self.nodes {
            let Some(broker) = node.process.broker() else {
                continue;
            };
            let image = broker.quorum().image();
            let needed = image.topic(TOPIC).and_then(|topic| {
                let needed = topic.partitions.iter();
                needed
                    .map(|partition| image.min_insync_replicas(topic, partition))
                    .min()
            });
            node.oracle.knows_commit_copies(needed.unwrap_or(1));
        }
    }

    fn count_what_is_held(&mut self) {
        let mut all = Usage {
            deserted: self.nodes[0].host.net.deserted(),
            ..Usage::default()
        };
        for node in &self.nodes {
            if node.process.state() != State::Serving {
                return;
            }
            all.tasks += node.host.gate.tasks();
            let Some(broker) = node.process.broker() else {
                return;
            };
            let cached_files = broker.partitions().cached_files() as u64;
            all.files += node.host.disk.open_files().saturating_sub(cached_files);
            let budget = broker.budget();
            all.memory_kib += ((budget.total_bytes() - budget.free_bytes()) / 1024) as u64;
            for partition in broker.partitions().all() {
                let waiting = partition.waiting();
                all.waiting += (waiting.acknowledgements + waiting.reads) as u64;
            }
        }
        let least = if self.checks.anew {
            &mut self.checks.fresh
        } else {
            &mut self.checks.lived
        };
        *least = Some(least.map_or(all, |least| least.min(all)));
    }

    /// A process that has lived through all that happened holds no more than a new one.
    pub(super) fn check_leaks(&mut self) {
        let (Some(lived), Some(fresh)) = (self.checks.lived, self.checks.fresh) else {
            return;
        };
        let (dials, writes) = self.checks.most;
        self.trace.event(
            "world",
            format_args!("held in the quiet: {lived:?}, anew: {fresh:?}; most in a second: {dials} dials, {writes} writes"),
        );
        let found = lived.judge(&fresh, self.nodes.len());
        self.report(found);
    }

    /// What groups were told at the end is what the logs say (22).
    pub(super) fn check_offsets(&mut self) {
        let mut found = Found::new();
        let mut said = Committed::new();
        for node in &self.nodes {
            let Some(broker) = node.process.broker() else {
                continue;
            };
            let partitions = broker.partitions().topic(TOPIC);
            for partition in partitions.map(|topic| topic.partitions()).unwrap_or_default() {
                let look = partition
                    .look()
                    .filter(|look| matches!(look.part, Part::Leads(_)));
                let Some(look) = look else { continue };
                let range = (look.log_start.get(), look.high_watermark.get());
                let name = partition.name().to_string();
                said.extend(Groups::read(&node.host.disk, &name, range, &mut found).committed);
            }
        }
        offsets::check_told(&said, &self.told_at_the_end(), &mut found);
        self.report(found);
    }

    /// What the auditor was told of each group's offsets.
    fn told_at_the_end(&self) -> Committed {
        let history = self.shared.history.lock();
        let mut asked = BTreeMap::new();
        let mut told = Committed::new();
        for event in history.events.iter().filter(|event| event.client == "auditor") {
            match &event.what {
                What::Invoke(Op::ReadCommit { group, key }) => {
                    asked.insert(event.id, (group.clone(), key.clone()));
                }
                What::Complete(Outcome::Offset { offset }) => {
                    told.extend(asked.remove(&event.id).map(|place| (place, *offset)));
                }
                _ => {}
            }
        }
        told
    }
}
