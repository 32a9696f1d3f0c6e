//! Looks into the nodes of a cluster after every step of the clock, and knows what must be true of all of them together
//! (DESIGN.md section 9, SIMULATION.md section 3).
//!
//! The watcher keeps what no node keeps: every record that was ever committed, who led in which epoch, and the newest
//! metadata that anybody had. What it reads of records it reads from the simulated disks, with its own eyes.

mod copies;
mod core;
mod ghost;
mod lead;
mod metadata;
mod mirror;
pub(crate) mod offsets;
pub(crate) mod raft_logs;
mod settings;
pub(crate) mod shadow;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_of_logs;
#[cfg(test)]
mod tests_of_metadata;
#[cfg(test)]
mod tests_of_recovery;
mod usage;
mod walk;
mod whole;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skerry::broker::Broker;
use skerry::partition::Part;
use skerry::partitions::LocalTopic;
use skerry_metadata::{Durable, WalMark};
use skerry_metadata_state::Image;
use skerry_types::{BrokerId, PartitionIndex, TopicId, Uuid, sometimes};

pub(crate) use self::core::check_core;
use self::ghost::Ghost;
use self::metadata::MetadataWatch;
pub(crate) use self::usage::{Acts, Usage, check_reserve};
use crate::disk::SimDisk;
use crate::oracle::{Served, Violations};
use crate::trace::Trace;
use crate::workload::{KEYED, TOPICS};

const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// The topics that are compacted. They come when somebody needs them.
const COMPACTED: [&str; 2] = [OFFSETS_TOPIC, KEYED];

/// A partition's place in the cluster.
pub(crate) struct Place {
    pub(crate) leader: Option<i32>,
    /// The replicas that do not lead, in the order of the metadata.
    pub(crate) followers: Vec<i32>,
    pub(crate) in_sync: Vec<i32>,
    /// Who is not in sync and may be elected all the same.
    pub(crate) eligible: Vec<i32>,
}

/// What is left of a partition where disks are lost.
pub(crate) enum Left {
    /// A copy that has everything.
    Complete,
    /// No such copy; the best ends here (0: there is none).
    UpTo(i64),
}

/// See the module.
pub(crate) struct Watcher {
    names: Vec<String>,
    disks: Vec<SimDisk>,
    /// What the nodes' disks know of the quorum.
    marks: Vec<WalMark>,
    trace: Trace,
    violations: Violations,
    metadata: MetadataWatch,
    settings: settings::Settings,
    /// Nodes that have lost their disk, and the directory that was on it: until the cluster knows of another one.
    lost: BTreeMap<usize, Uuid>,
    ghosts: BTreeMap<String, Ghost>,
    /// The topics that are compacted, as they were made last.
    compacted: BTreeMap<&'static str, TopicId>,
    is_beyond: bool,
    /// Who ended since the last look knew newer metadata than anybody.
    has_moved: bool,
    /// What was seen to happen, by kind.
    pub(crate) seen: BTreeMap<&'static str, u64>,
}

/// What one look found wrong.
pub(crate) type Found = Vec<(&'static str, String)>;
/// What must be there and is not, and the check that says so.
pub(crate) type Missing = (&'static str, String);

impl Watcher {
    pub(crate) fn new(
        names: Vec<String>,
        disks: Vec<SimDisk>,
        marks: Vec<WalMark>,
        trace: Trace,
        violations: Violations,
    ) -> Self {
        let ghosts = TOPICS.iter().flat_map(|(topic, partitions)| {
            (0..*partitions).map(move |partition| format!("{topic}-{partition}"))
        });
        Self {
            ghosts: ghosts
                .map(|name| (name.clone(), Ghost::new(name, &disks).keeping_its_start()))
                .collect(),
            metadata: MetadataWatch::default(),
            settings: settings::Settings::default(),
            compacted: BTreeMap::new(),
            lost: BTreeMap::new(),
            names,
            disks,
            marks,
            trace,
            violations,
            is_beyond: false,
            has_moved: false,
            seen: BTreeMap::new(),
        }
    }

    /// More goes wrong than the contract bears.
    pub(crate) fn goes_beyond(&mut self) {
        self.is_beyond = true;
        for ghost in self.ghosts.values_mut() {
            ghost.is_beyond = true;
        }
    }

    /// From now on records may grow too old. Until then what nobody deletes is there for ever.
    pub(crate) fn lets_records_expire(&mut self) {
        for ghost in self.ghosts.values_mut() {
            ghost.keeps_its_start = false;
        }
    }

    /// A person deletes records of this partition.
    pub(crate) fn loses_its_start(&mut self, partition: &str) {
        if let Some(ghost) = self.ghosts.get_mut(partition) {
            ghost.keeps_its_start = false;
        }
    }

    /// The process of a node is gone: what it does next is another one's.
    pub(crate) fn on_down(&mut self, node: usize) {
        self.metadata.on_down(node);
        for ghost in self.ghosts.values_mut() {
            ghost.forget_replica(node);
        }
    }

    /// It has ended without being told to.
    pub(crate) fn on_crash(&mut self, node: usize) {
        self.metadata.on_crash(node);
    }

    /// A node's disk is lost, on which this of the quorum was durable. True where the node votes.
    pub(crate) fn on_lost(&mut self, node: usize, durable: Durable, brokers: &[Option<Arc<Broker>>]) -> bool {
        let image = self.metadata.newest();
        if let Some(broker) = image.as_ref().and_then(|image| image.broker(id_of(node))) {
            self.lost.insert(node, broker.directory);
        }
        self.metadata
            .quorum
            .on_lost(node, durable, &metadata::statuses(brokers))
    }

    /// A vote is lost, on which this was durable, and with `whole` all else of the node's disk: it comes back as a new one.
    pub(crate) fn on_vote_lost(
        &mut self,
        node: usize,
        durable: Durable,
        whole: bool,
        brokers: &[Option<Arc<Broker>>],
    ) {
        if whole {
            self.on_lost(node, durable, brokers);
        } else {
            let known = metadata::statuses(brokers);
            self.metadata.quorum.on_lost(node, durable, &known);
        }
    }

    /// A person goes on from the log of this node alone.
    pub(crate) fn on_recovered(&mut self, survivor: usize) {
        self.metadata.on_recovered(survivor);
        self.settings.on_recovered();
    }

    /// What the run as a whole shows, beside what its clients did and heard.
    pub(crate) fn judge(&self, history: &skerry_checker::history::History) -> Found {
        self.settings.judge(history)
    }

    /// The names of the partitions that are watched.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = String> {
        let names: Vec<String> = self.ghosts.keys().cloned().collect();
        names.into_iter()
    }

    /// Every partition of the groups is whole on one of these.
    pub(crate) fn groups_are_on(&self, nodes: &BTreeSet<usize>) -> bool {
        let image = self.metadata.newest();
        let topic = image.as_ref().and_then(|image| image.topic(OFFSETS_TOPIC));
        let on = |id: &BrokerId| place_of(*id).is_some_and(|node| nodes.contains(&node));
        topic.is_none_or(|topic| {
            topic
                .partitions
                .iter()
                .all(|partition| partition.isr.iter().any(on))
        })
    }

    /// This node leads nothing, and is in no in-sync set with others.
    pub(crate) fn is_out(&self, node: usize) -> bool {
        let id = id_of(node);
        let Some(image) = self.metadata.newest() else {
            return false;
        };
        let mut partitions = image.topics().flat_map(|topic| &topic.partitions);
        partitions.all(|partition| partition.leader != Some(id) && !partition.isr.contains(&id))
    }

    /// What these nodes have of a partition.
    pub(crate) fn what_is_left(&self, name: &str, nodes: &[usize], brokers: &[Option<Arc<Broker>>]) -> Left {
        let image = self.metadata.newest();
        let placed = image.and_then(|image| partition_of(&image, name));
        let complete = |node: &usize| {
            let id = id_of(*node);
            let placed = placed.as_ref();
            placed.is_some_and(|placed| placed.isr.contains(&id) || placed.elr.contains(&id))
        };
        if nodes.iter().any(complete) {
            return Left::Complete;
        }
        let Some(ghost) = self.ghosts.get(name) else {
            return Left::UpTo(0);
        };
        let ends = nodes.iter().filter_map(|node| {
            let (topic, number) = split(name)?;
            let copy = brokers[*node].as_ref()?.partitions().get(topic, number)?;
            let look = copy.look()?;
            // A leader that was replaced may have something else where others have gone on (6508 of any size, 60 s).
            let same = ghost.parts_from(*node, &look, ghost.start);
            Some(look.durable_end.get().min(same))
        });
        Left::UpTo(ends.max().unwrap_or(0).min(ghost.end()))
    }

    /// A partition that has a replica on one of these nodes, and no leader.
    pub(crate) fn leaderless(&self, nodes: &[usize]) -> Option<String> {
        whole::leaderless(&*self.metadata.newest()?, nodes)
    }

    /// Whether everything that this node holds is promised by another copy that may be elected, and by as many as
    /// `min.insync.replicas` takes: one of them may be lost then.
    pub(crate) fn may_lose(&self, node: usize, brokers: &[Option<Arc<Broker>>]) -> Result<(), String> {
        let id = id_of(node);
        let image = self.metadata.newest().ok_or("there is no metadata")?;
        let voters = self.metadata.quorum.voters();
        if voters.contains(&id) && voters.len() < 3 {
            return Err("its vote is needed".to_owned());
        }
        for topic in image.topics() {
            for (number, partition) in topic.partitions.iter().enumerate() {
                if !partition.replicas.contains(&id) {
                    continue;
                }
                // The metadata may not have heard yet of a log that a failed sync has ended (6245 of any size, 60 s).
                let is_served = |member: &&BrokerId| {
                    let broker = place_of(**member).and_then(|place| brokers.get(place)?.as_ref());
                    let number = i32::try_from(number).unwrap_or(-1);
                    let copy = broker.and_then(|broker| broker.partitions().get(&topic.name, number));
                    copy.is_some_and(|copy| copy.offline().is_none() && copy.look().is_some())
                };
                let complete = partition.isr.iter().chain(&partition.elr);
                let mut complete = complete.filter(is_served);
                if image.min_insync_replicas(topic, partition) < 2 {
                    return Err(format!("{}-{number} is promised by one copy", topic.name));
                }
                if complete.all(|member| *member == id) {
                    return Err(format!("nobody else has all of {}-{number}", topic.name));
                }
            }
        }
        Ok(())
    }

    /// What of a disk that this node has lost is not made up for.
    pub(crate) fn is_missed(&self, node: usize) -> Option<String> {
        let (id, name) = (id_of(node), &self.names[node]);
        if self.lost.contains_key(&node) {
            return Some(format!("nobody has noticed that {name} has lost its disk"));
        }
        let image = self.metadata.newest()?;
        for topic in image.topics() {
            let out = |partition: &skerry_metadata_state::Partition| {
                partition.replicas.contains(&id) && !partition.isr.contains(&id)
            };
            if let Some(number) = topic.partitions.iter().position(|partition| out(partition)) {
                return Some(format!("{name} has not got {}-{number} back", topic.name));
            }
        }
        None
    }

    /// The cluster knows of another directory: from then on nothing is excused by the disk that is lost.
    fn forget_lost(&mut self, image: &Image) {
        self.lost.retain(|node, directory| {
            let broker = image.broker(id_of(*node));
            broker.is_some_and(|broker| broker.directory == *directory)
        });
    }

    /// A node has answered acks=all for this since the last look, which came after the answer.
    pub(crate) fn on_acknowledged(&mut self, node: usize, acknowledged: &[(String, i64)]) {
        let mut found = Found::new();
        for (partition, end) in acknowledged {
            if let Some(ghost) = self.ghosts.get(partition).filter(|ghost| !ghost.gives_up) {
                ghost.check_acknowledged(node, *end, &self.names, &mut found);
            }
        }
        for (check, message) in found {
            self.violations.add(&self.trace, check, message);
        }
    }

    /// Readers have just been told this by a node. After [`Self::look`]: what was committed in the same step is known.
    pub(crate) fn on_served(&mut self, node: usize, served: &[Served]) {
        let mut found = Found::new();
        for told in served {
            if let Some(ghost) = self.ghosts.get(&told.partition).filter(|ghost| !ghost.gives_up) {
                ghost.check_served(node, told.end, &self.names, &mut found);
            }
        }
        for (check, message) in found {
            self.violations.add(&self.trace, check, message);
        }
    }

    /// A node ends, and may have acted by metadata that it has heard since the last look: a copy that has moved away is
    /// gone from its disk, and nobody else knows why yet (6043 of any size, 60 s).
    pub(crate) fn on_end(&mut self, broker: &Broker) {
        let mut found = Found::new();
        self.has_moved |= self.metadata.follow(broker.quorum().image(), &mut found);
        for (check, message) in found {
            self.violations.add(&self.trace, check, message);
        }
    }

    /// Checks everything that has moved since the last look. `deaf` are the nodes that hear nobody now, and `starting` those that
    /// start; `rotten` is in which copies, by node and partition, a place has gone bad and is still there.
    pub(crate) fn look(
        &mut self,
        brokers: &[Option<Arc<Broker>>],
        deaf: &[bool],
        starting: &[usize],
        rotten: &[(usize, &str)],
        now_ms: u64,
    ) {
        let mut found = Found::new();
        for (name, ghost) in &mut self.ghosts {
            ghost.starting = starting.to_vec();
            let of_this = rotten.iter().filter(|(_, partition)| partition == name);
            ghost.rotten = of_this.map(|(node, _)| *node).collect();
        }
        for (node, broker) in brokers.iter().enumerate() {
            // Nor one whose metadata waits for room on its disk: what it was told before it does afterwards (5300 of any
            // size, 60 s: a vote that waited for two seconds).
            let goes_on = |broker: &&Arc<Broker>| deaf[node] && broker.quorum().trouble().is_none();
            let broker = broker.as_ref().filter(goes_on);
            let term = broker.map(|broker| broker.quorum().leadership().term);
            let quorum = &mut self.metadata.quorum;
            quorum.look_at_deaf(node, term, now_ms, &mut found);
        }
        for ghost in self.ghosts.values_mut() {
            ghost.lost = self.lost.keys().copied().collect();
        }
        let moved =
            self.metadata.look(brokers, &self.marks, &mut found) | std::mem::take(&mut self.has_moved);
        if let Some(image) = self.metadata.newest().filter(|_| moved) {
            self.settings.look(&image, now_ms);
            self.forget_lost(&image);
            self.know_compacted(&image);
            for ghost in self.ghosts.values_mut() {
                ghost.lost = self.lost.keys().copied().collect();
                ghost.place(partition_of(&image, &ghost.name));
            }
        }
        for (node, broker) in brokers.iter().enumerate() {
            let Some(broker) = broker else { continue };
            // Ghosts are in the order of their names: one look-up for all partitions of a topic.
            let mut topic: Option<Arc<LocalTopic>> = None;
            for ghost in self.ghosts.values_mut() {
                if topic.as_ref().is_none_or(|topic| **topic.name() != *ghost.topic) {
                    topic = broker.partitions().topic(&ghost.topic);
                }
                let partition = topic.as_ref().and_then(|topic| topic.partition(ghost.number));
                ghost.look_at(node, partition.as_deref(), (&self.names, &self.disks), &mut found);
            }
        }
        let newest = self.metadata.newest();
        for ghost in self.ghosts.values_mut() {
            sometimes("two-leaders-at-once", ghost.leaders_now() > 1);
            ghost.check_leads((&self.names, &self.disks), &mut found);
            if let Some(image) = newest.as_ref().filter(|_| moved) {
                let registered = |id| Some(image.broker(id)?.epoch);
                ghost.check_joins((&self.names, &self.disks), registered, &mut found);
            }
            if moved || ghost.has_moved() {
                ghost.check_candidates((&self.names, &self.disks), &mut found);
            }
            ghost.settle();
        }
        if moved {
            self.tell(brokers);
        }
        for (check, message) in found {
            self.violations.add(&self.trace, check, message);
        }
    }

    /// The groups' partitions come with the first group. Where a recovered quorum did not know them they are others.
    fn know_compacted(&mut self, image: &Image) {
        for name in COMPACTED {
            let Some(topic) = image.topic(name) else { continue };
            if self.compacted.insert(name, topic.id) == Some(topic.id) {
                continue;
            }
            self.ghosts.retain(|_, ghost| ghost.topic != name);
            for number in 0..topic.partitions.len() {
                let name = format!("{name}-{number}");
                let mut ghost = Ghost::new(name.clone(), &self.disks);
                ghost.is_beyond = self.is_beyond;
                self.ghosts.insert(name, ghost);
            }
        }
    }

    /// One line for each partition whose place has changed: a column for each node.
    fn tell(&mut self, brokers: &[Option<Arc<Broker>>]) {
        let Some(image) = self.metadata.newest() else {
            return;
        };
        let names: Vec<String> = self.ghosts.keys().cloned().collect();
        for name in names {
            let Some(partition) = partition_of(&image, &name) else {
                continue;
            };
            let Some(ghost) = self.ghosts.get_mut(&name) else {
                continue;
            };
            let before = ghost.told.replace(partition.clone());
            if before.as_ref() == Some(&partition) {
                continue;
            }
            if let Some(before) = before {
                self.count(&before, &partition);
            }
            let columns: Vec<_> = (0..self.names.len())
                .map(|node| self.column(&name, &partition, node, brokers))
                .collect();
            self.trace.event(
                "cluster",
                format_args!(
                    "{name:<9} epoch {:<3} {}",
                    partition.leader_epoch.get(),
                    columns.join(" | ")
                ),
            );
        }
    }

    fn count(&mut self, before: &skerry_metadata_state::Partition, after: &skerry_metadata_state::Partition) {
        let mut add = |what, happened: bool| *self.seen.entry(what).or_default() += u64::from(happened);
        add(
            "another leader",
            after.leader.is_some() && after.leader != before.leader,
        );
        add("no leader", after.leader.is_none() && before.leader.is_some());
        add("left the in-sync set", after.isr.len() < before.isr.len());
        add("came back in sync", after.isr.len() > before.isr.len());
        add(
            "other replicas",
            !after.is_reassigning() && after.replicas != before.replicas,
        );
        add(
            "elected out of the in-sync set",
            after
                .leader
                .is_some_and(|leader| after.leader != before.leader && !before.isr.contains(&leader)),
        );
    }

    /// `n2 *+ 0..57 hw 55`: leads (*), is in sync (+), was complete when it left (e); where its log starts, where it
    /// ends, and what it knows to be committed.
    fn column(
        &self,
        name: &str,
        partition: &skerry_metadata_state::Partition,
        node: usize,
        brokers: &[Option<Arc<Broker>>],
    ) -> String {
        let id = id_of(node);
        let mark = |is: bool, mark: &'static str| if is { mark } else { " " };
        let lead = mark(partition.leader == Some(id), "*");
        let sync = if partition.elr.contains(&id) {
            "e"
        } else {
            mark(partition.isr.contains(&id), "+")
        };
        let log = match (&brokers[node], partition.replicas.contains(&id)) {
            (_, false) => "-".to_owned(),
            (None, true) => "down".to_owned(),
            (Some(broker), true) => split(name)
                .and_then(|(topic, number)| broker.partitions().get(topic, number))
                .and_then(|partition| partition.look())
                .map_or_else(
                    || "no log".to_owned(),
                    |look| {
                        let part = match look.part {
                            Part::Nothing => "idle",
                            Part::Leads(_) => "leads",
                            Part::Follows(_) => "follows",
                        };
                        format!(
                            "{}..{} hw {} {part}",
                            look.log_start, look.log_end, look.high_watermark
                        )
                    },
                ),
        };
        format!("{} {lead}{sync} {log:<24}", self.names[node])
    }

    /// Where a partition is, by the newest metadata.
    pub(crate) fn place(&self, _brokers: &[Option<Arc<Broker>>], name: &str) -> Option<Place> {
        let partition = partition_of(&*self.metadata.newest()?, name)?;
        let followers = partition
            .replicas
            .iter()
            .filter(|replica| Some(**replica) != partition.leader);
        Some(Place {
            leader: partition.leader.map(BrokerId::get),
            followers: followers.map(|id| id.get()).collect(),
            in_sync: partition.isr.iter().map(|id| id.get()).collect(),
            eligible: partition.elr.iter().map(|id| id.get()).collect(),
        })
    }

    /// Up to where every copy that was in sync has what was committed, on its disk as it is now.
    pub(crate) fn left_of_all(&self, partition: &str) -> Option<i64> {
        let image = self.metadata.newest()?;
        let in_sync = &partition_of(&image, partition)?.isr;
        let disks = in_sync
            .iter()
            .filter_map(|id| self.disks.get(usize::try_from(id.get() - 1).ok()?));
        let ends = disks.map(|disk| copies::whole_until(disk, partition));
        Some(ends.min()?.min(self.ghosts.get(partition)?.end()))
    }

    /// Beyond the contract: who leads a partition next may lack what was committed.
    pub(crate) fn give_up(&mut self, partition: &str) {
        if let Some(ghost) = self.ghosts.get_mut(partition) {
            ghost.gives_up = true;
            ghost.was_offline.clear();
        }
    }

    /// The partitions of the groups, and up to where each is committed.
    pub(crate) fn groups_logs(&self) -> impl Iterator<Item = (&str, i32, i64)> {
        let ghosts = self.ghosts.values().filter(|ghost| ghost.topic == OFFSETS_TOPIC);
        ghosts.map(|ghost| (&*ghost.name, ghost.number, ghost.end()))
    }

    /// What a partition holds is not promised now.
    pub(crate) fn has_given_up(&self, partition: &str) -> bool {
        self.ghosts.get(partition).is_some_and(|ghost| ghost.gives_up)
    }

    /// Every partition keeps what it has again. Those that have lost something, and from which offset on.
    pub(crate) fn take_losses(&mut self) -> Vec<(String, i64)> {
        let mut losses = Vec::new();
        for (name, ghost) in &mut self.ghosts {
            ghost.gives_up = false;
            losses.extend(ghost.lost_from.take().map(|from| (name.clone(), from)));
        }
        losses
    }

    /// The metadata has called that copy offline since the partition was given up.
    pub(crate) fn was_offline(&self, partition: &str, id: i32) -> bool {
        let ghost = self.ghosts.get(partition);
        ghost.is_some_and(|ghost| ghost.was_offline.contains(&id))
    }

    /// Nobody leads it, though every broker of it takes part: the metadata says whose copies cannot be opened.
    pub(crate) fn is_stuck(&self, partition: &str) -> bool {
        let image = self.metadata.newest();
        image.is_some_and(|image| whole::is_stuck(&image, partition))
    }

    /// Nobody serves a partition: the metadata says why.
    pub(crate) fn check_told(&self, partition: &str, within_ms: u64) -> Option<Missing> {
        whole::check_told(self.metadata.newest().as_deref(), partition, within_ms)
    }

    /// A person has chosen what these nodes have.
    pub(crate) fn check_elected(&self, nodes: &[usize]) -> Option<Missing> {
        whole::check_elected(&*self.metadata.newest()?, nodes)
    }

    /// Where a partition starts, as far as any of its replicas has told.
    pub(crate) fn log_start(&self, partition: &str) -> i64 {
        self.ghosts.get(partition).map_or(0, |ghost| ghost.start)
    }

    /// Where the copy of one node begins, if it was there when it was looked at last: others may have let go of more, and a
    /// leader serves from where its own copy begins (6183 of any size, 60 s).
    pub(crate) fn log_start_of(&self, node: usize, partition: &str) -> i64 {
        let last = self
            .ghosts
            .get(partition)
            .and_then(|ghost| ghost.replicas[node].last.as_ref());
        last.map_or_else(|| self.log_start(partition), |look| look.log_start.get())
    }

    /// Who leads the quorum, as far as those know who have followed it longest.
    pub(crate) fn controller(&self, brokers: &[Option<Arc<Broker>>]) -> Option<i32> {
        let known = brokers
            .iter()
            .flatten()
            .map(|broker| broker.quorum().leadership());
        let newest = known.max_by_key(|leadership| (leadership.term, leadership.leader.is_some()))?;
        newest.leader.map(BrokerId::get)
    }

    /// Who coordinates a group: who leads its partition of the offsets topic.
    pub(crate) fn coordinator(&self, group: &str) -> Option<i32> {
        let image = self.metadata.newest()?;
        let topic = image.topic(OFFSETS_TOPIC)?;
        let count = i32::try_from(topic.partitions.len()).ok()?;
        let hash = group.encode_utf16().fold(0_i32, |hash, unit| {
            hash.wrapping_mul(31).wrapping_add(i32::from(unit))
        });
        // Java's `String.hashCode`, made positive as Kafka's `Utils.abs` does.
        let number = (hash & i32::MAX) % count.max(1);
        let partition = topic.partition(PartitionIndex(number))?;
        partition.leader.map(BrokerId::get)
    }

    /// The first thing that a cluster without faults must have and this one has not.
    pub(crate) fn what_is_missing(&self, brokers: &[Option<Arc<Broker>>]) -> Option<Missing> {
        let known = brokers.iter().map(|broker| {
            let broker = broker.as_ref()?;
            Some(broker.quorum().image().index())
        });
        let known: Vec<Option<u64>> = known.collect();
        let image = self.metadata.newest();
        whole::check_whole(image.as_deref(), &self.names, &known, |name, partition| {
            self.columns_of(name, partition, brokers)
        })
    }

    fn columns_of(
        &self,
        name: &str,
        partition: &skerry_metadata_state::Partition,
        brokers: &[Option<Arc<Broker>>],
    ) -> String {
        let columns = (0..self.names.len()).map(|node| self.column(name, partition, node, brokers));
        columns.collect::<Vec<_>>().join(" | ")
    }

    /// After everything: the copies of each partition are the same, record for record.
    pub(crate) fn compare_copies(&mut self, brokers: &[Option<Arc<Broker>>]) {
        let mut found = Found::new();
        for ghost in self.ghosts.values() {
            let look = |broker: &Option<Arc<Broker>>| {
                let partition = broker.as_ref()?.partitions().get(&ghost.topic, ghost.number)?;
                partition.look()
            };
            let looks: Vec<_> = brokers.iter().map(look).collect();
            ghost.compare_copies(&looks, (&self.names, &self.disks), &mut found);
        }
        for (check, message) in found {
            self.violations.add(&self.trace, check, message);
        }
    }
}

/// The number of a node by its place.
fn id_of(node: usize) -> BrokerId {
    BrokerId(i32::try_from(node + 1).unwrap_or(0))
}

/// The place of a node by its number.
fn place_of(id: BrokerId) -> Option<usize> {
    usize::try_from(id.get() - 1).ok()
}

fn split(name: &str) -> Option<(&str, i32)> {
    let (topic, number) = name.rsplit_once('-')?;
    Some((topic, number.parse().ok()?))
}

/// What is superseded may be gone from its log.
fn is_compacted(partition: &str) -> bool {
    split(partition).is_some_and(|(topic, _)| COMPACTED.contains(&topic))
}

fn partition_of(image: &Image, name: &str) -> Option<skerry_metadata_state::Partition> {
    let (topic, number) = split(name)?;
    let partition = image.topic(topic)?.partition(PartitionIndex(number))?;
    Some((**partition).clone())
}
