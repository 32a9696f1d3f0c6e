//! One partition of the cluster: everything that was ever committed, and each replica beside it.

use std::collections::BTreeMap;
use std::sync::Arc;

use skerry::broker::Broker;
use skerry::partition::{Look, Part};
use skerry_metadata_state::Partition;

use super::copies::{self, Cursor, Image, Mark};
use super::{Found, id_of, split};
use crate::disk::SimDisk;

/// Names and disks of the nodes.
pub(super) type Nodes<'a> = (&'a [String], &'a [SimDisk]);

/// What is known of one replica, as long as its process lives.
#[derive(Default)]
pub(super) struct Replica {
    last: Option<Look>,
    /// Compared with what was committed up to here.
    compared: i64,
    cursor: Cursor,
    /// What is known to be on its disk.
    durable: i64,
    durable_at: Cursor,
    /// Where the last look for what was committed ended.
    durable_cursor: Cursor,
    /// Why it need not have what was committed: a sync of its disk has failed.
    failures: u64,
}

/// See the module.
pub(super) struct Ghost {
    pub(super) name: String,
    committed: BTreeMap<i64, Mark>,
    start: i64,
    end: i64,
    checked_end: i64,
    /// Who led in which epoch.
    leaders: BTreeMap<i32, usize>,
    pub(super) replicas: Vec<Replica>,
    /// The node in whose copy a bit has rotted, which it need not know yet.
    pub(super) rotten: Option<usize>,
    /// What the trace was told last.
    pub(super) told: Option<Partition>,
}

impl Ghost {
    pub(super) fn new(name: String, nodes: usize) -> Self {
        Self {
            name,
            committed: BTreeMap::new(),
            start: 0,
            end: 0,
            checked_end: 0,
            leaders: BTreeMap::new(),
            replicas: (0..nodes).map(|_| Replica::default()).collect(),
            rotten: None,
            told: None,
        }
    }

    /// More was committed since the last [`Self::settle`].
    pub(super) fn has_grown(&self) -> bool {
        self.end > self.checked_end
    }

    pub(super) fn settle(&mut self) {
        self.checked_end = self.end;
    }

    /// Looks at one replica.
    pub(super) fn look(&mut self, node: usize, look: Look, nodes: Nodes<'_>, found: &mut Found) {
        let last = self.replicas[node].last.replace(look);
        if last == Some(look) {
            return;
        }
        let replica = &mut self.replicas[node];
        if look.log_end.get() < replica.durable.max(replica.compared) {
            // It was cut, or is made anew: what was known of its files is no longer so.
            replica.durable = 0;
            replica.durable_at = Cursor::default();
            replica.durable_cursor = Cursor::default();
        }
        let name = format!("{} on {}", self.name, nodes.0[node]);
        check_order(&name, &look, last.as_ref(), found);
        self.check_leader(node, &look, nodes, found);
        let high = look.high_watermark.get().min(look.log_end.get());
        if matches!(look.part, Part::Leads(_)) && high > self.end {
            self.commit(node, high, nodes, found);
        }
        self.compare(node, &look, nodes, found);
    }

    /// At most one leader for an epoch (14), and it has everything that was committed (4).
    fn check_leader(&mut self, node: usize, look: &Look, (names, _): Nodes<'_>, found: &mut Found) {
        let Part::Leads(epoch) = look.part else { return };
        let first = *self.leaders.entry(epoch.get()).or_insert(node);
        if first != node {
            let who = format!("{} and {}", names[first], names[node]);
            found.push((
                "two-leaders",
                format!("{who} lead {} in epoch {}", self.name, epoch.get()),
            ));
        }
        let newest = self.leaders.last_key_value().map(|(epoch, _)| *epoch);
        if newest == Some(epoch.get()) && look.log_end.get() < self.end {
            found.push((
                "incomplete-leader",
                format!(
                    "{} leads {} in epoch {} with records up to {}; committed are those up to {}",
                    names[node],
                    self.name,
                    epoch.get(),
                    look.log_end,
                    self.end
                ),
            ));
        }
    }

    /// A leader says that more is committed: that is kept for ever. What it says is on its disk.
    fn commit(&mut self, node: usize, high: i64, (names, disks): Nodes<'_>, found: &mut Found) {
        let mut cursor = self.replicas[node].durable_cursor.clone();
        let marks = copies::batches(
            &disks[node],
            &self.name,
            Image::Durable,
            (self.end, high),
            &mut cursor,
        );
        self.replicas[node].durable_cursor = cursor;
        let mut next = self.end;
        for mark in marks {
            if mark.base > next {
                break;
            }
            next = mark.end;
            self.committed.insert(mark.base, mark);
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
        let replica = &mut self.replicas[node];
        // A copy that was made anew, or cut below what it knew, is looked at again.
        if look.log_end.get() < replica.compared {
            replica.compared = 0;
            replica.cursor = Cursor::default();
        }
        let from = replica.compared.max(look.log_start.get());
        let to = look.high_watermark.get().min(look.log_end.get()).min(self.end);
        if to <= from {
            return;
        }
        let marks = copies::batches(
            &disks[node],
            &self.name,
            Image::Live,
            (from, to),
            &mut replica.cursor,
        );
        let (mut next, mut changed) = (from, false);
        for mark in &marks {
            next = mark.end;
            let mark = &Mark {
                whole: mark.whole || self.rotten == Some(node),
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
                changed = true;
                break;
            }
        }
        if next < to && !changed {
            found.push((
                "committed-missing",
                format!(
                    "{} says that it has {} from {} up to {}, and {from}..{to} ends at {next}",
                    names[node], self.name, look.log_start, look.log_end
                ),
            ));
        }
        self.replicas[node].compared = next;
    }

    /// Whoever may be elected has everything that was committed, on its disk (5), whether or not it runs.
    pub(super) fn check_candidates(
        &mut self,
        partition: &Partition,
        (names, disks): Nodes<'_>,
        found: &mut Found,
    ) {
        for node in 0..self.replicas.len() {
            let id = id_of(node);
            let replica = &mut self.replicas[node];
            replica.failures = disks[node].sync_failures();
            let may_lead = partition.isr.contains(&id) || partition.elr.contains(&id);
            // After a failed sync a node has to say itself that its copy is no good.
            if !may_lead || replica.failures > 0 {
                continue;
            }
            let end = match replica.last {
                // A recovery may cut the files, and the replica follow again, before it serves: nothing seen now holds
                // later.
                None => copies::durable_end(&disks[node], &self.name, 0, &mut Cursor::default()),
                Some(look) => {
                    let (known, at) = (replica.durable, &mut replica.durable_at);
                    replica.durable = copies::durable_end(&disks[node], &self.name, known, at);
                    replica.durable.min(look.log_end.get())
                }
            };
            if end < self.end {
                found.push((
                    "incomplete-candidate",
                    format!(
                        "{} may be elected for {} ({partition:?}), and it has records up to {end}; committed are \
                         those up to {}",
                        names[node], self.name, self.end
                    ),
                ));
            }
        }
    }

    /// Record for record the same.
    pub(super) fn compare_copies(
        &self,
        brokers: &[Option<Arc<Broker>>],
        (names, disks): Nodes<'_>,
        found: &mut Found,
    ) {
        let mut first: Option<(usize, Vec<Mark>)> = None;
        for (node, broker) in brokers.iter().enumerate() {
            let look = broker.as_ref().and_then(|broker| {
                let (topic, number) = split(&self.name)?;
                broker.partitions().get(topic, number)?.look()
            });
            let Some(look) = look else { continue };
            if matches!(look.part, Part::Nothing) {
                continue;
            }
            let range = (self.start.max(look.log_start.get()), look.high_watermark.get());
            let marks = copies::batches(
                &disks[node],
                &self.name,
                Image::Live,
                range,
                &mut Cursor::default(),
            );
            match &first {
                None => first = Some((node, marks)),
                Some((other, expected)) => {
                    let differs = expected.iter().zip(&marks).find(|(one, two)| one != two);
                    if let Some((one, two)) = differs {
                        found.push((
                            "copies-differ",
                            format!(
                                "{}: {} has {one:?}, {} has {two:?}",
                                self.name, names[*other], names[node]
                            ),
                        ));
                    }
                }
            }
        }
    }
}

/// What is true of every replica by itself (8, 20).
fn check_order(name: &str, look: &Look, last: Option<&Look>, found: &mut Found) {
    let ordered = look.log_start <= look.high_watermark
        && look.high_watermark <= look.log_end
        && look.durable_end <= look.log_end;
    if !ordered && !matches!(look.part, Part::Nothing) {
        found.push(("order-of-offsets", format!("{name}: {look:?}")));
    }
    let Some(last) = last else { return };
    // A copy that was given up begins anew; whether it was allowed to is seen elsewhere.
    let is_anew = look.log_end < last.high_watermark;
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
