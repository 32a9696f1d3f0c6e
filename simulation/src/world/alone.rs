//! The metadata of the only node rots, and nobody else has it: the node must say so, name the file, and not start. A person goes
//! on from what can be read (`skerry cluster recover`): what was decided behind the bit is lost, and of the records nothing.
//!
//! It happens when everything else has been judged: no history could tell which topics and settings have gone.

use std::collections::BTreeMap;
use std::path::Path;

use skerry_env::Rng;
use skerry_types::reached;

use super::World;
use super::faults::Action;
use super::spoilt::{Spoilt, spoil_later_half};
use crate::disk::{Image, SimDisk};
use crate::oracle::SHORT_LIVED;
use crate::process::{DATA_DIR, State};
use crate::record::{self, segment};

/// Draws of this kind come from a stream of their own.
const ROTS: u64 = 0xa10e_3e7a;
/// By then whatever is known leads again.
const DONE_WITHIN_MS: u64 = 40_000;
/// The folder of a partition that the metadata does not know.
const STRAY_SUFFIX: &str = "-stray";

impl World<'_> {
    /// See `Fault::MetadataRot`, of a node that has no other.
    pub(super) fn plan_to_rot_alone(&mut self) {
        self.trace.event(
            "world",
            format_args!("the metadata rots in the end: there are no others"),
        );
        self.rots_alone = true;
    }

    /// All is judged. Does nothing where it was not planned.
    pub(super) fn let_the_only_metadata_rot(&mut self) {
        if !std::mem::take(&mut self.rots_alone) {
            return;
        }
        let before = ends_of_logs(&self.nodes[0].host.disk);
        self.crash(0, false, 50);
        let node = &self.nodes[0];
        let rng = Rng::seeded(self.scenario.seed ^ ROTS);
        match spoil_later_half(&node.process.raft_dir(), &rng) {
            Ok(Some((file, position))) => {
                self.trace.event(
                    &node.name,
                    format_args!("a bit of its metadata has rotted: byte {position} of its {file}"),
                );
                self.spoilt = Some(Spoilt { node: 0, file });
            }
            Ok(None) => return,
            Err(error) => {
                self.trace
                    .event(&node.name, format_args!("its metadata cannot rot: {error}"));
                return;
            }
        }
        let by = self.now_ms + DONE_WITHIN_MS;
        let is_over = |world: &Self| world.spoilt.is_none() && world.what_does_not_lead().is_none();
        if !self.step_until(by, is_over) {
            return;
        }
        if let Some(what) = self.what_does_not_lead() {
            let message = format!("{DONE_WITHIN_MS} ms after the metadata has rotted {what}");
            self.violations.add(&self.trace, "not-recovered", message);
        }
        let after = ends_of_logs(&self.nodes[0].host.disk);
        for (partition, end) in before {
            let left = after.get(&partition).copied().unwrap_or(0);
            if left < end {
                let message = format!(
                    "{partition} ended at {end}, and after the metadata was recovered it ends at {left}"
                );
                self.violations.add(&self.trace, "not-recovered", message);
            }
        }
    }

    /// The node is down, and has said why. `skerry cluster recover --yes`.
    pub(super) fn go_on_from_what_can_be_read(&mut self) {
        self.spoilt = None;
        // What it promised, it promised itself.
        self.nodes[0].process.wal_mark().forget();
        if self.recover_on(0) {
            reached("only-voter-recovered");
            *self.felt.entry("rotten metadata recovered").or_default() += 1;
        } else {
            self.agenda
                .retain(|_, action| !matches!(action, Action::Start(0)));
        }
    }

    fn what_does_not_lead(&self) -> Option<String> {
        let node = &self.nodes[0];
        let broker = node.process.broker();
        let Some(broker) = broker.filter(|_| node.process.state() == State::Serving) else {
            return Some(format!("{} does not serve", node.name));
        };
        let image = broker.image();
        let partitions = image.topics().flat_map(|topic| {
            (0..)
                .zip(&topic.partitions)
                .map(|(number, placed)| (format!("{}-{number}", topic.name), placed))
        });
        let mut led = partitions.filter(|(_, placed)| placed.leader.is_none());
        Some(format!("nobody leads {}", led.next()?.0))
    }
}

/// Up to where there are records of each partition, in its folder or in one that was set aside.
fn ends_of_logs(disk: &SimDisk) -> BTreeMap<String, i64> {
    let log_dir = Path::new(DATA_DIR).join("log");
    let partition_of = |name: &str| match name.strip_suffix(STRAY_SUFFIX) {
        Some(stray) => stray.split_once('.').map(|(partition, _)| partition.to_owned()),
        None => Some(name.to_owned()).filter(|name| !name.contains('.')),
    };
    let folders = disk.live_names(&log_dir, |name| Some((partition_of(name)?, log_dir.join(name))));
    let mut ends = BTreeMap::new();
    for (partition, dir) in folders {
        if partition.starts_with(SHORT_LIVED) {
            continue;
        }
        if let Some(end) = end_of_log(disk, &dir) {
            let known: &mut i64 = ends.entry(partition).or_default();
            *known = end.max(*known);
        }
    }
    ends
}

fn end_of_log(disk: &SimDisk, dir: &Path) -> Option<i64> {
    let segments = disk.segments_from(dir, Image::Live, 0);
    segments.into_iter().rev().find_map(|base| {
        disk.with_live(&segment::path(dir, base), |bytes| {
            record::batches(bytes).last().map(|batch| batch.end())
        })?
    })
}
