//! What must be true after every step (SIMULATION.md, section 3, by its numbers).

use std::collections::BTreeMap;

use skerry_metadata_state::Partition;
use skerry_replica::{Leader, Visibility};
use skerry_types::{BrokerId, IncarnationId, LeaderEpoch, Offset};

use crate::node::{Log, Node, Record};
use crate::world::World;

/// A broken invariant.
#[derive(Debug)]
pub struct Violation {
    /// Its number.
    pub invariant: &'static str,
    pub what: String,
}

pub type Checked = Result<(), Violation>;

/// Fails where `$condition` does not hold.
#[macro_export]
macro_rules! hold {
    ($invariant:literal, $condition:expr, $($what:tt)+) => {
        if !$condition {
            return Err($crate::ghost::Violation { invariant: $invariant, what: format!($($what)+) });
        }
    };
}

/// What an observer who sees everything remembers.
#[derive(Default)]
pub struct Ghost {
    /// Everything that a leader's high watermark has ever passed.
    pub committed: Vec<Record>,
    /// The high watermark of each replica in each leader epoch of one life.
    high_watermarks: BTreeMap<(BrokerId, IncarnationId, LeaderEpoch), Offset>,
    written: BTreeMap<(i64, i32), u32>,
    leaders: BTreeMap<LeaderEpoch, BrokerId>,
    /// The furthest end that a leader could have told a client.
    served: i64,
    pub acknowledged: u64,
}

impl Ghost {
    /// 3: one writer for each epoch.
    pub fn on_written(&mut self, offset: i64, record: Record) -> Checked {
        let known = *self.written.entry((offset, record.epoch)).or_insert(record.value);
        hold!(
            "I3",
            known == record.value,
            "offset {offset} in epoch {} is {known} and {}",
            record.epoch,
            record.value
        );
        Ok(())
    }

    /// 14: one leader for each epoch.
    pub fn on_leader(&mut self, epoch: LeaderEpoch, leader: BrokerId) -> Checked {
        let known = *self.leaders.entry(epoch).or_insert(leader);
        hold!(
            "I14",
            known == leader,
            "epoch {epoch} has leaders {known} and {leader}"
        );
        Ok(())
    }

    /// 11: a member that may lead keeps what is committed, and not `deleted` at its leader.
    pub fn on_cut(&self, node: &Node, cut: i64, deleted: i64, partition: &Partition) -> Checked {
        if !partition.isr.contains(&node.id) && !partition.elr.contains(&node.id) {
            return Ok(());
        }
        for offset in cut.max(node.log.start).max(deleted)..node.log.end() {
            let committed = usize::try_from(offset).ok().and_then(|at| self.committed.get(at));
            hold!(
                "I11",
                committed.is_none() || committed != node.log.at(offset).as_ref(),
                "{} cuts its log from {} to {cut}: {offset} is committed",
                node.id,
                node.log.end()
            );
        }
        Ok(())
    }

    pub fn check(&mut self, world: &World) -> Checked {
        for node in &world.nodes {
            if let Some(leader) = node.life.as_ref().and_then(|life| life.leader()) {
                self.commit(world, node, leader)?;
            }
        }
        for node in &world.nodes {
            self.check_node(node)?;
        }
        let partition = world.partition();
        for member in partition.isr.iter().chain(&partition.elr) {
            // The metadata hears of a wiped disk when its broker registers, and nobody can elect it before.
            if world.node(*member).is_wiped {
                continue;
            }
            self.holds_all(world, *member, self.committed.len(), "I5", "may lead")?;
        }
        self.check_leader(world, partition)
    }

    /// 1, 7: what a leader's high watermark passes.
    fn commit(&mut self, world: &World, node: &Node, leader: &Leader) -> Checked {
        let end = usize::try_from(leader.high_watermark().get()).unwrap();
        if end <= self.committed.len() {
            return Ok(());
        }
        for offset in self.committed.len()..end {
            let record = node.log.at(i64::try_from(offset).unwrap());
            hold!(
                "I20",
                record.is_some(),
                "{}: nothing at {offset}, below its high watermark",
                node.id
            );
            self.committed.extend(record);
        }
        let (in_sync, min) = (leader.in_sync().count(), world.min_in_sync_of(node));
        hold!(
            "I7",
            in_sync >= min,
            "{} moved to {end} with {in_sync} in sync of {min}",
            node.id
        );
        if world.is_current(node) {
            for member in leader.maximal_in_sync() {
                if !world.has_lost(member, leader.epoch()) {
                    self.holds_all(world, member, end, "I7", "counts for the high watermark")?;
                }
            }
        }
        Ok(())
    }

    /// 1, 2, 8, and the orders of one log.
    fn check_node(&mut self, node: &Node) -> Checked {
        let (log, id) = (&node.log, node.id);
        hold!(
            "I10",
            log.start <= log.durable && log.durable <= log.end(),
            "{id}: {log:?}"
        );
        let Some(life) = &node.life else {
            return Ok(());
        };
        let known = life.known_high_watermark().get();
        hold!(
            "I20",
            log.start <= known && known <= log.end(),
            "{id}: high watermark {known}, log from {} to {}",
            log.start,
            log.end()
        );
        for offset in log.start..known {
            let committed = self.committed.get(usize::try_from(offset).unwrap());
            hold!(
                "I2",
                committed == log.at(offset).as_ref(),
                "{id} shows {:?} at {offset}, where {committed:?} is committed",
                log.at(offset)
            );
        }
        let epoch = match &life.role {
            crate::node::Role::None => return Ok(()),
            crate::node::Role::Leader(leader) => leader.epoch(),
            crate::node::Role::Follower { rules, .. } => rules.epoch(),
        };
        let key = (id, life.incarnation, epoch);
        let before = self
            .high_watermarks
            .insert(key, Offset(known))
            .unwrap_or(Offset::ZERO);
        hold!(
            "I8",
            before.get() <= known,
            "{id} in epoch {epoch}: high watermark {before}, then {known}"
        );
        Ok(())
    }

    /// 6 and KIP-207, of the leader that the metadata has.
    fn check_leader(&mut self, world: &World, partition: &Partition) -> Checked {
        let Some((node, leader)) = world.current_leader() else {
            return Ok(());
        };
        let maximal = leader.maximal_in_sync();
        for member in &partition.isr {
            hold!(
                "I6",
                maximal.contains(member),
                "{member} is in sync, and not for its leader {}",
                node.id
            );
        }
        if leader.may_acknowledge().is_ok() {
            for member in &partition.elr {
                hold!(
                    "I6",
                    maximal.contains(member),
                    "{member} is eligible, and not for its leader {}",
                    node.id
                );
            }
        }
        if leader.serves_latest() {
            let end = leader.high_watermark().get();
            hold!(
                "I8",
                end >= self.served,
                "{} tells the end {end}, after {}",
                node.id,
                self.served
            );
            self.served = self.served.max(end);
            let committed = i64::try_from(self.committed.len()).unwrap();
            hold!(
                "I8",
                end >= committed,
                "{} tells the end {end}, {committed} is committed",
                node.id
            );
        }
        Ok(())
    }

    /// The replica has everything committed below `end`, as durably as the topic promises.
    pub fn holds_all(
        &self,
        world: &World,
        replica: BrokerId,
        end: usize,
        invariant: &'static str,
        why: &str,
    ) -> Checked {
        let log = &world.node(replica).log;
        let missing = (log.start..i64::try_from(end).unwrap()).find(|offset| {
            !holds(
                log,
                *offset,
                self.committed[usize::try_from(*offset).unwrap()],
                world.visibility,
            )
        });
        match missing {
            None => Ok(()),
            Some(offset) => Err(Violation {
                invariant,
                what: format!(
                    "{replica} {why} and lacks {offset}, which is committed: its log is durable to {} and ends at {}",
                    log.durable,
                    log.end()
                ),
            }),
        }
    }

    /// 9: at the moment of an acknowledgement.
    pub fn on_acknowledged(&mut self, world: &World, node: &Node, offset: i64, record: Record) -> Checked {
        let min = world.min_in_sync_of(node);
        let copies = world.nodes.iter().filter(|node| {
            let gone = offset < node.log.start || world.has_lost(node.id, LeaderEpoch(record.epoch));
            gone || holds(&node.log, offset, record, world.visibility)
        });
        let copies = copies.count();
        hold!(
            "I9",
            copies >= min,
            "{} acknowledges {offset} with {copies} copies of {min}",
            node.id
        );
        for member in &world.partition().isr {
            let log = &world.node(*member).log;
            hold!(
                "I9",
                offset < log.start
                    || world.node(*member).is_wiped
                    || holds(log, offset, record, world.visibility),
                "{} acknowledges {offset}, which {member} lacks",
                node.id
            );
        }
        self.acknowledged += 1;
        Ok(())
    }
}

fn holds(log: &Log, offset: i64, record: Record, visibility: Visibility) -> bool {
    let kept = match visibility {
        Visibility::Durable => log.durable,
        Visibility::Written => log.end(),
    };
    offset < kept && log.at(offset) == Some(record)
}
