//! One partition of the cluster: everything that was ever committed, and each replica beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use skerry::partition::{Look, Part};
use skerry_metadata_state::Partition;
use skerry_types::{BrokerEpoch, BrokerId, PartitionEpoch, sometimes};

use super::copies::{self, Cursor, Image, Mark};
use super::mirror::{Mirror, Moved};
use super::{Found, id_of, is_compacted, split};
use crate::disk::SimDisk;
use crate::workload::{KEYED, TRIMMED};

/// Names and disks of the nodes.
pub(super) type Nodes<'a> = (&'a [String], &'a [SimDisk]);

/// What is known of one replica, as long as its process lives.
#[derive(Default)]
pub(super) struct Replica {
    pub(super) last: Option<Look>,
    mirror: Mirror,
    /// Compared with what was committed up to here.
    compared: i64,
    /// What is known to be on its disk.
    durable: i64,
    durable_at: Cursor,
    /// Where the last look for what was committed ended.
    durable_cursor: Cursor,
}

/// A leader that stood still for longer than this many changes is not judged by what came between.
const SIZES_MAX: usize = 64;

/// See the module.
pub(super) struct Ghost {
    pub(super) name: String,
    pub(super) topic: String,
    pub(super) number: i32,
    committed: BTreeMap<i64, Mark>,
    pub(super) start: i64,
    end: i64,
    checked_end: i64,
    /// Some copy has become less, or may have, since the last [`Self::settle`].
    has_shrunk: bool,
    /// Every batch that any replica ever had, by its place and the epoch of the leader that took it.
    written: BTreeMap<(i64, i32), Mark>,
    /// Who led in which epoch.
    leaders: BTreeMap<i32, usize>,
    /// Where each epoch's leader began.
    pub(super) epoch_starts: BTreeMap<i32, i64>,
    pub(super) replicas: Vec<Replica>,
    /// The nodes in whose copy a place has gone bad, which they need not know yet, and is still there.
    pub(super) rotten: Vec<usize>,
    /// Nodes that start: they act by metadata that nobody else may know yet, and nobody asks them (9162 of any size, 60 s).
    pub(super) starting: Vec<usize>,
    /// Nobody deletes its records, and none grow too old: its log begins where it began.
    pub(super) keeps_its_start: bool,
    /// More goes wrong than the contract bears.
    pub(super) is_beyond: bool,
    /// What each node's disk had refused when nobody would have elected the node: that is no excuse any more.
    failures: Vec<u64>,
    /// Nodes that have lost their disk, and of which the cluster does not know it yet.
    pub(super) lost: Vec<usize>,
    /// What the newest metadata says, and what the metadata before it said.
    pub(super) placed: Option<Partition>,
    pub(super) placed_before: Option<Partition>,
    /// How many were in sync in the last partition epochs that the metadata was seen in.
    pub(super) sizes: BTreeMap<i32, usize>,
    /// Committed is what is on the disks of all that count, unless the topic chose otherwise.
    waits_for_disks: bool,
    /// Beyond the contract: committed records may be gone, and who leads next tells which. Then from where on.
    pub(super) gives_up: bool,
    pub(super) lost_from: Option<i64>,
    /// Whose copies were called offline since.
    pub(super) was_offline: BTreeSet<i32>,
    /// Who leads and has changed since [`Self::check_leads`], and what it was before.
    pub(super) led: Vec<(usize, Option<Look>)>,
    /// Whom a leader has asked the metadata to add last, at which partition epoch, each with its registration.
    pub(super) asked: Option<(PartitionEpoch, Vec<(BrokerId, BrokerEpoch)>)>,
    /// What the trace was told last.
    pub(super) told: Option<Partition>,
}

impl Ghost {
    /// Where what is committed ends.
    pub(super) fn end(&self) -> i64 {
        self.end
    }

    /// How many take themselves for the leader now.
    pub(super) fn leaders_now(&self) -> usize {
        let looks = self.replicas.iter().filter_map(|replica| replica.last.as_ref());
        looks.filter(|look| matches!(look.part, Part::Leads(_))).count()
    }

    /// Nobody deletes records of it, and none grows too old.
    pub(super) fn keeping_its_start(mut self) -> Self {
        self.keeps_its_start = self.topic != TRIMMED;
        self
    }

    pub(super) fn new(name: String, disks: &[SimDisk]) -> Self {
        let (topic, number) = split(&name).unwrap_or_default();
        Self {
            topic: topic.to_owned(),
            number,
            name,
            committed: BTreeMap::new(),
            start: 0,
            end: 0,
            checked_end: 0,
            has_shrunk: false,
            written: BTreeMap::new(),
            leaders: BTreeMap::new(),
            epoch_starts: BTreeMap::new(),
            placed: None,
            placed_before: None,
            sizes: BTreeMap::new(),
            waits_for_disks: true,
            gives_up: false,
            lost_from: None,
            was_offline: BTreeSet::new(),
            led: Vec::new(),
            replicas: disks.iter().map(|_| Replica::default()).collect(),
            rotten: Vec::new(),
            starting: Vec::new(),
            keeps_its_start: false,
            is_beyond: false,
            failures: disks.iter().map(SimDisk::refusals).collect(),
            lost: Vec::new(),
            asked: None,
            told: None,
        }
    }

    /// There is newer metadata.
    pub(super) fn place(&mut self, partition: Option<Partition>) {
        if let Some(partition) = &partition {
            self.was_offline
                .extend(partition.offline.iter().map(|id| id.get()));
            self.sizes
                .insert(partition.partition_epoch.get(), partition.isr.len());
            while self.sizes.len() > SIZES_MAX {
                self.sizes.pop_first();
            }
        }
        self.placed_before = std::mem::replace(&mut self.placed, partition);
    }

    /// Since the last [`Self::settle`] more was committed, or some copy may have become less.
    pub(super) fn has_moved(&self) -> bool {
        self.end > self.checked_end || self.has_shrunk
    }

    pub(super) fn settle(&mut self) {
        self.checked_end = self.end;
        self.has_shrunk = false;
    }

    /// A process is gone, or has no copy, or has given it up: what was known of it is no longer so.
    pub(super) fn forget_replica(&mut self, node: usize) {
        let before = std::mem::take(&mut self.replicas[node]);
        self.has_shrunk |= before.last.is_some();
    }

    /// Looks at one replica.
    pub(super) fn look_at(
        &mut self,
        node: usize,
        partition: Option<&skerry::partition::Partition>,
        nodes: Nodes<'_>,
        found: &mut Found,
    ) {
        let same = |last: &Look| partition.is_some_and(|partition| partition.is_still(last));
        if self.replicas[node].last.as_ref().is_some_and(same) {
            return;
        }
        match partition.and_then(|partition| partition.look()) {
            Some(look) => self.look(node, look, nodes, found),
            None => self.forget_replica(node),
        }
    }

    /// One replica has become this.
    pub(super) fn look(&mut self, node: usize, look: Look, nodes: Nodes<'_>, found: &mut Found) {
        let replica = &mut self.replicas[node];
        let last = replica.last.replace(look.clone());
        if last.as_ref() == Some(&look) {
            return;
        }
        self.has_shrunk |= last.as_ref().is_none_or(|last| look.log_end < last.log_end);
        let name = format!("{} on {}", self.name, nodes.0[node]);
        if look.log_end.get() < replica.durable {
            // It was cut, or is made anew: what was known of its files is no longer so.
            replica.durable = 0;
            replica.durable_at = Cursor::default();
            replica.durable_cursor = Cursor::default();
        }
        let extent = (look.log_start.get(), look.log_end.get());
        let moved = replica.mirror.follow(&nodes.1[node], &self.name, extent);
        let is_away = matches!(look.part, Part::Follows(_)) && is_compacted(&self.name);
        let may_be_cut = is_away
            || self.is_beyond
                && last
                    .as_ref()
                    .is_some_and(|last| look.log_end < last.high_watermark);
        check_order(&name, &look, last.as_ref(), (self.gives_up, may_be_cut), found);
        if self.keeps_its_start && look.log_start.get() > 0 {
            found.push((
                "log-start-moved",
                format!(
                    "{name}: nobody has deleted records, and it begins at {}",
                    look.log_start
                ),
            ));
        }
        // All are looked at again where the log has changed its mind.
        let same_epochs = last.as_ref().is_some_and(|last| last.epochs == look.epochs);
        if same_epochs {
            check_epochs(&name, &look, moved.added.iter(), found);
        } else {
            check_epochs(&name, &look, replica.mirror.between(extent.0, extent.1), found);
        }
        self.check_written(&name, &moved, found);
        self.check_cut(node, &name, &moved, found);
        self.check_leader(node, &look, nodes, found);
        let high = look.high_watermark.get().min(look.log_end.get());
        if let Some(lead) = &look.lead {
            self.waits_for_disks = lead.waits_for_disks;
        }
        if matches!(look.part, Part::Leads(_)) && high > self.end {
            self.commit(node, &look, high, nodes, found);
        }
        self.compare(node, &look, nodes, found);
        if look.lead.is_some() {
            self.led.push((node, last));
        }
    }

    /// One writes in an epoch: at the same place in the same epoch all have the same (3), committed or not.
    fn check_written(&mut self, name: &str, moved: &Moved, found: &mut Found) {
        for mark in &moved.added {
            let first = *self.written.entry((mark.base, mark.epoch)).or_insert(*mark);
            if (first.crc, first.end) != (mark.crc, mark.end) {
                found.push((
                    "two-writers",
                    format!("{name} has {mark:?}; in that epoch {first:?} was written there"),
                ));
                return;
            }
        }
    }

    /// Nobody who may be elected cuts off what was committed (11).
    fn check_cut(&mut self, node: usize, name: &str, moved: &Moved, found: &mut Found) {
        let Some(first) = moved.removed.iter().map(|mark| mark.base).min() else {
            return;
        };
        let replica = &mut self.replicas[node];
        replica.compared = replica.compared.min(first);
        let id = id_of(node);
        let may_lead = |placed: &Partition| placed.isr.contains(&id) || placed.elr.contains(&id);
        if self.gives_up || !self.placed.as_ref().is_some_and(may_lead) {
            return;
        }
        let committed =
            |mark: &&Mark| mark.base >= self.start && self.committed.get(&mark.base) == Some(*mark);
        if let Some(mark) = moved.removed.iter().find(committed) {
            found.push((
                "committed-truncated",
                format!(
                    "{name}, which may be elected, has cut off {mark:?}; committed are the records up to {}",
                    self.end
                ),
            ));
        }
    }

    /// At most one leader for an epoch (14), and it has everything that was committed (4).
    fn check_leader(&mut self, node: usize, look: &Look, (names, _): Nodes<'_>, found: &mut Found) {
        let Part::Leads(epoch) = look.part else { return };
        if self.topic == KEYED && !self.leaders.is_empty() && !self.leaders.contains_key(&epoch.get()) {
            sometimes("leads-a-log-with-holes", self.replicas[node].mirror.has_holes());
        }
        let is_new = !self.leaders.contains_key(&epoch.get());
        let first = *self.leaders.entry(epoch.get()).or_insert(node);
        if first != node {
            let who = format!("{} and {}", names[first], names[node]);
            found.push((
                "two-leaders",
                format!("{who} lead {} in epoch {}", self.name, epoch.get()),
            ));
        }
        let newest = self.leaders.last_key_value().map(|(epoch, _)| *epoch);
        if self.gives_up && newest == Some(epoch.get()) {
            let from = self.parts_from(node, look, i64::MIN);
            if from < self.end {
                self.forget_from(from);
            }
            return;
        }
        // Where it begins, batch for batch, whatever it knows to be committed; from then on it only appends. A head that has
        // rotted says something else of its batch.
        let has = if is_new && newest == Some(epoch.get()) && !self.rotten.contains(&node) {
            self.parts_from(node, look, self.start)
        } else {
            look.log_end.get()
        };
        if newest == Some(epoch.get()) && has < self.end {
            found.push((
                "incomplete-leader",
                format!(
                    "{} leads {} in epoch {} with the committed records up to {has}, and others up to {}; committed are \
                     those up to {}",
                    names[node],
                    self.name,
                    epoch.get(),
                    look.log_end,
                    self.end
                ),
            ));
        }
    }

    /// Up to where a log holds what was committed at `from` and behind it: it may be shorter, and it may have gone on otherwise.
    /// Where logs are compacted, nothing in a place says that what was there is superseded: a copy that was behind gets such holes from its
    /// leader, and has lost nothing by them.
    pub(super) fn parts_from(&self, node: usize, look: &Look, from: i64) -> i64 {
        let (start, end) = (look.log_start.get(), look.log_end.get());
        let has_holes = is_compacted(&self.name);
        let mirror = &self.replicas[node].mirror;
        let is_missing = |mark: &&Mark| {
            let mut held = mirror.between(mark.base, mark.end).peekable();
            let is_hole = has_holes && mark.end <= end && held.peek().is_none();
            mark.end > start && !is_hole && !held.any(|held| held.is_same(mark))
        };
        let mut committed = self.committed.range(from..).map(|(_, mark)| mark);
        let first = committed.find(is_missing);
        first.map_or(end, |mark| mark.base.min(end))
    }

    /// What was committed from here on is lost.
    fn forget_from(&mut self, from: i64) {
        // A batch around it is gone as well: no log ends within one.
        self.committed.split_off(&from);
        self.end = from;
        // Where no copy is left, the next one begins anew.
        self.start = self.start.min(from);
        self.checked_end = self.checked_end.min(from);
        self.lost_from = Some(self.lost_from.map_or(from, |lost| lost.min(from)));
        for replica in &mut self.replicas {
            replica.compared = replica.compared.min(from);
        }
    }

    /// A leader says that more is committed: that is kept for ever. What it says is on its disk, unless the topic chose
    /// otherwise.
    fn commit(&mut self, node: usize, look: &Look, high: i64, (names, disks): Nodes<'_>, found: &mut Found) {
        let image = if self.waits_for_disks {
            Image::Durable
        } else {
            Image::Live
        };
        let mut cursor = self.replicas[node].durable_cursor.clone();
        let marks = copies::batches(&disks[node], &self.name, image, (self.end, high), &mut cursor);
        self.replicas[node].durable_cursor = cursor;
        // What was deleted before the next look is on no disk any more.
        let mut next = self.end.max(look.log_start.get().min(high));
        for mark in marks {
            if mark.base > next {
                break;
            }
            next = mark.end;
            self.committed.insert(mark.base, mark);
        }
        if is_compacted(&self.name) && next < high {
            // A process that stood still does much in one step: some of it may be superseded, and gone (3778).
            let left = copies::batches(
                &disks[node],
                &self.name,
                Image::Live,
                (next, high),
                &mut Cursor::default(),
            );
            // What was there before, as it was appended, is known from earlier steps.
            let before = self.replicas[node].mirror.between(next, high).copied();
            self.committed
                .extend(left.into_iter().chain(before).map(|mark| (mark.base, mark)));
            let end = copies::durable_end(&disks[node], &self.name, 0, &mut Cursor::default());
            next = next.max(end.min(high));
        }
        if next < high {
            found.push((
                "committed-before-durable",
                format!(
                    "{} says that {} is committed up to {high}; its own disk has it up to {next}",
                    names[node], self.name
                ),
            ));
        }
        self.end = self.end.max(next.min(high));
    }

    /// What a replica takes for committed is what was committed (1, 2).
    fn compare(&mut self, node: usize, look: &Look, (names, disks): Nodes<'_>, found: &mut Found) {
        self.start = self.start.max(look.log_start.get());
        // Its folder goes, and has gone before its log says so where a disk stood still (3146 of any size, 60 s).
        let is_replica = |placed: &Partition| placed.replicas.contains(&id_of(node));
        if look.part == Part::Nothing && !self.placed.as_ref().is_none_or(is_replica) {
            return;
        }
        let replica = &mut self.replicas[node];
        let from = replica.compared.max(look.log_start.get());
        let to = look.high_watermark.get().min(look.log_end.get()).min(self.end);
        if to <= from {
            return;
        }
        let has_holes = is_compacted(&self.name);
        let mut next = from;
        for mark in replica.mirror.between(from, to) {
            if mark.base > next && !has_holes {
                break;
            }
            next = mark.end;
            let mark = &Mark {
                whole: mark.whole
                    || self.rotten.contains(&node)
                    || copies::is_whole(&disks[node], &self.name, mark),
                ..*mark
            };
            let expected = self
                .committed
                .range(..=mark.base)
                .next_back()
                .map(|(_, mark)| *mark);
            if expected != Some(*mark) && mark.base >= self.start {
                found.push((
                    "committed-changed",
                    format!(
                        "{} has {mark:?} in {}; committed was {expected:?}",
                        names[node], self.name
                    ),
                ));
                replica.compared = next;
                return;
            }
        }
        if has_holes {
            next = next.max(to);
        }
        if next < to {
            found.push((
                "committed-missing",
                format!(
                    "{} says that it has {} from {} up to {}, and {from}..{to} ends at {next}",
                    names[node], self.name, look.log_start, look.log_end
                ),
            ));
        }
        replica.compared = next;
    }

    /// Whoever may be elected has everything that was committed, on its disk (5), whether or not it runs.
    pub(super) fn check_candidates(&mut self, (names, disks): Nodes<'_>, found: &mut Found) {
        let Some(partition) = self.placed.clone().filter(|_| !self.gives_up) else {
            return;
        };
        for (node, name) in names.iter().enumerate() {
            let id = id_of(node);
            let may_lead = partition.isr.contains(&id) || partition.elr.contains(&id);
            if !may_lead {
                self.failures[node] = disks[node].refusals();
                continue;
            }
            if self.starting.contains(&node) {
                continue;
            }
            let Some(end) = self.end_that_counts(node, disks) else {
                continue;
            };
            if end < self.end {
                found.push((
                    "incomplete-candidate",
                    format!(
                        "{name} may be elected for {} ({partition:?}), and it has records up to {end}; committed are \
                         those up to {}",
                        self.name, self.end
                    ),
                ));
            }
        }
    }

    /// After a failed write or sync a node has to say itself that its copy is no good; a read that failed loses nothing. That a disk is lost nobody can know before the
    /// node has come back with another one. Once nobody would elect it, the excuse is over: it comes back with everything. A place that has gone bad excuses nobody: what was written there counts until
    /// the copy is given up ([`SimDisk::with_durable`]), and from then on nobody may be elected with it.
    fn is_excused(&self, node: usize, disks: &[SimDisk]) -> bool {
        disks[node].refusals() != self.failures[node] || self.lost.contains(&node)
    }

    /// Up to where a replica is on its disk, and has not cut it; where nobody waits for disks, up to where it is
    /// written.
    pub(super) fn end_that_counts(&mut self, node: usize, disks: &[SimDisk]) -> Option<i64> {
        let replica = self.replicas.get_mut(node)?;
        if !self.waits_for_disks {
            return replica.last.as_ref().map(|look| look.log_end.get());
        }
        if self.is_excused(node, disks) {
            return None;
        }
        let replica = self.replicas.get_mut(node)?;
        let Some(look) = &replica.last else {
            // A recovery may cut the files, and the replica follow again, before it serves: nothing seen now holds
            // later.
            let end = copies::durable_end(&disks[node], &self.name, 0, &mut Cursor::default());
            return Some(end);
        };
        let (known, at) = (replica.durable, &mut replica.durable_at);
        replica.durable = copies::durable_end(&disks[node], &self.name, known, at);
        Some(replica.durable.min(look.log_end.get()))
    }

    /// Record for record the same, up to the last that one of them takes for committed: all are in sync, and none is shorter.
    /// Where logs are compacted, each in its own time, the last value of each key.
    pub(super) fn compare_copies(
        &self,
        looks: &[Option<Look>],
        (names, disks): Nodes<'_>,
        found: &mut Found,
    ) {
        let looks: Vec<(usize, &Look)> = looks
            .iter()
            .enumerate()
            .filter_map(|(node, look)| Some((node, look.as_ref()?)))
            .filter(|(_, look)| !matches!(look.part, Part::Nothing))
            .collect();
        let ends = looks.iter().map(|(_, look)| look.high_watermark.get());
        let end = ends.max().unwrap_or(0);
        // Records may have been deleted further on one of them than on others.
        let starts = looks.iter().map(|(_, look)| look.log_start.get());
        let range = (starts.max().unwrap_or(0).max(self.start), end);
        if is_compacted(&self.name) {
            let values = looks
                .iter()
                .map(|(node, _)| (*node, copies::last_values(&disks[*node], &self.name, range)));
            return compare_all(&self.name, names, &values.collect::<Vec<_>>(), found);
        }
        let marks = looks.iter().map(|(node, _)| {
            let mut cursor = Cursor::default();
            let marks = copies::batches(&disks[*node], &self.name, Image::Live, range, &mut cursor);
            let marks: BTreeMap<i64, Mark> = marks.into_iter().map(|mark| (mark.base, mark)).collect();
            (*node, marks)
        });
        compare_all(&self.name, names, &marks.collect::<Vec<_>>(), found);
    }
}

/// Two copies that have something else in a place, or that one of them has and the other has not.
fn compare_all<K: Ord + Debug, V: PartialEq + Debug>(
    name: &str,
    names: &[String],
    copies: &[(usize, BTreeMap<K, V>)],
    found: &mut Found,
) {
    let Some(((first, expected), others)) = copies.split_first() else {
        return;
    };
    for (node, copy) in others {
        let places: BTreeSet<&K> = expected.keys().chain(copy.keys()).collect();
        let differs = places
            .into_iter()
            .find(|place| expected.get(*place) != copy.get(*place));
        if let Some(place) = differs {
            found.push((
                "copies-differ",
                format!(
                    "{name} at {place:?}: {} has {:?}, {} has {:?}",
                    names[*first],
                    expected.get(place),
                    names[*node],
                    copy.get(place)
                ),
            ));
        }
    }
}

/// A log knows in which epoch each of its batches was written (12).
fn check_epochs<'a>(name: &str, look: &Look, marks: impl Iterator<Item = &'a Mark>, found: &mut Found) {
    let ordered = look
        .epochs
        .windows(2)
        .all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
    // An epoch without a batch leaves no trace; one that is cut off neither (KAFKA-10706). Where all records are deleted,
    // the last epoch begins at the end.
    let end = look.log_end.max(look.log_start.next());
    let past_end = look.epochs.last().is_some_and(|(_, start)| *start >= end);
    if !ordered || past_end {
        found.push(("wrong-epochs", format!("{name}: {look:?}")));
    }
    for mark in marks {
        let place = mark.base.max(look.log_start.get());
        let known = look.epochs.iter().rev().find(|(_, start)| start.get() <= place);
        if known.map(|(epoch, _)| epoch.get()) != Some(mark.epoch) {
            found.push((
                "wrong-epochs",
                format!("{name} takes {place} for one of {known:?}, and has {mark:?} there: {look:?}"),
            ));
            return;
        }
    }
}

/// What is true of every replica by itself (8, 20).
fn check_order(
    name: &str,
    look: &Look,
    last: Option<&Look>,
    (gives_up, may_be_cut): (bool, bool),
    found: &mut Found,
) {
    // Of a partition that was given up a follower that has lost its beginning is about to be cut below what is left of it
    // (23 of three nodes).
    let begins_anew = gives_up && matches!(look.part, Part::Follows(_));
    let ordered = (look.log_start <= look.high_watermark || begins_anew)
        && look.high_watermark <= look.log_end
        && look.durable_end <= look.log_end;
    if !ordered && !matches!(look.part, Part::Nothing) {
        found.push(("order-of-offsets", format!("{name}: {look:?}")));
    }
    let Some(last) = last else { return };
    // A copy that was given up begins anew; whether it was allowed to is seen elsewhere. Beyond the contract a follower is
    // about to be cut below what it knew to be committed (3608 of any size, 60 s). So is one that was away while its leader's
    // copy was made anew from compacted ones, of which no batch is left of the epochs that the two share last: what it is cut
    // to is where the hole begins (3704).
    let is_anew = gives_up || may_be_cut;
    if last.part == look.part
        && !is_anew
        && look.high_watermark < last.high_watermark
        && !matches!(look.part, Part::Nothing)
    {
        found.push((
            "watermark-went-back",
            format!(
                "{name}: it was {} and is {} in {:?}",
                last.high_watermark, look.high_watermark, look.part
            ),
        ));
    }
    let epoch = |part: Part| match part {
        Part::Nothing => None,
        Part::Leads(epoch) | Part::Follows(epoch) => Some(epoch.get()),
    };
    if let (Some(before), Some(now)) = (epoch(last.part), epoch(look.part))
        && now < before
    {
        found.push(("epoch-went-back", format!("{name}: it was {before} and is {now}")));
    }
}
