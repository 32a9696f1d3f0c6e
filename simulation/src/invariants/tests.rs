//! What must be true of a partition's replicas, each with a state that violates it.

use std::path::Path;

use skerry::partition::{LeadLook, Look, Part};
use skerry_env::Rng;
use skerry_env::disk::OpenMode;
use skerry_metadata_state::Partition;
use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionEpoch};

use super::Found;
use super::ghost::Ghost;
use crate::disk::{DiskConfig, Harm, Sector, SimDisk};
use crate::record::{self, Identity};
use crate::trace::Trace;
use skerry_checker::history::Value;

pub(super) const NAME: &str = "orders-0";

/// Two nodes, whose logs of one partition are written by hand.
struct Two {
    name: &'static str,
    names: Vec<String>,
    disks: Vec<SimDisk>,
    epochs: [Vec<(LeaderEpoch, Offset)>; 2],
    ghost: Ghost,
}

impl Two {
    fn new() -> Self {
        Self::of(NAME)
    }

    fn of(name: &'static str) -> Self {
        let names = vec!["n1".to_owned(), "n2".to_owned()];
        let disk = |name: &String| SimDisk::new(name, DiskConfig::default(), Rng::seeded(1), Trace::silent());
        let disks: Vec<_> = names.iter().map(disk).collect();
        Self {
            ghost: Ghost::new(name.to_owned(), &disks),
            disks,
            epochs: [Vec::new(), Vec::new()],
            names,
            name,
        }
    }

    /// Writes one batch for each of `values` from offset 0 on, all in epoch 0; synced or not.
    fn write(&mut self, node: usize, values: &[u32], synced: bool) {
        let values: Vec<_> = values.iter().map(|serial| (*serial, 0)).collect();
        self.write_in_epochs(node, &values, synced);
    }

    /// The same, with an epoch for each.
    fn write_in_epochs(&mut self, node: usize, values: &[(u32, i32)], synced: bool) {
        let values = (0..).zip(values);
        let values: Vec<_> = values
            .map(|(base, (serial, epoch))| (base, *serial, *epoch))
            .collect();
        self.write_at(node, &values, synced);
    }

    /// The same, with the offset of each.
    fn write_at(&mut self, node: usize, values: &[(i64, u32, i32)], synced: bool) {
        let disk = self.disks[node].attach();
        let dir = Path::new("/data/log").join(self.name);
        disk.create_dir_all(&dir).unwrap();
        let path = dir.join("00000000000000000000.log");
        let file = disk.open(&path, OpenMode::Create).unwrap();
        let mut position = 0;
        self.epochs[node].clear();
        for (base, serial, epoch) in values {
            let value = Value {
                producer: 0,
                serial: *serial,
            };
            let mut bytes = record::encode(&[value], Identity::NONE, 1, 10).to_vec();
            bytes[..8].copy_from_slice(&base.to_be_bytes());
            bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
            file.write_at(&[std::io::IoSlice::new(&bytes)], position).unwrap();
            position += bytes.len() as u64;
            if self.epochs[node]
                .last()
                .is_none_or(|(last, _)| last.get() != *epoch)
            {
                self.epochs[node].push((LeaderEpoch(*epoch), Offset(*base)));
            }
        }
        file.set_len(position).unwrap();
        if synced {
            file.sync().unwrap();
            for dir in dir.ancestors() {
                disk.sync_dir(dir).unwrap();
            }
        }
    }

    /// What a node is seen to be; a leader counts itself alone, and asks for something.
    fn seen(&self, node: usize, part: Part, (end, high): (i64, i64)) -> Look {
        let me = BrokerId(i32::try_from(node).unwrap() + 1);
        let placed = self.ghost.placed.as_ref();
        let placed = placed.filter(|placed| placed.leader == Some(me));
        Look {
            part,
            log_start: Offset(0),
            log_end: Offset(end),
            durable_end: Offset(end),
            high_watermark: Offset(high),
            epochs: self.epochs[node].clone(),
            lead: matches!(part, Part::Leads(_)).then(|| LeadLook {
                partition_epoch: PartitionEpoch(0),
                epoch_start: Offset(0),
                min_in_sync: 1,
                waits_for_disks: true,
                in_sync: placed.map_or_else(|| vec![me], |placed| placed.isr.clone()),
                counted: vec![me],
                asks: true,
                asked: Vec::new(),
            }),
        }
    }

    fn look(&mut self, node: usize, part: Part, extent: (i64, i64)) -> Found {
        let look = self.seen(node, part, extent);
        self.take(node, look)
    }

    /// A leader that goes by something else.
    fn look_at_leader(
        &mut self,
        node: usize,
        epoch: i32,
        extent: (i64, i64),
        change: impl FnOnce(&mut LeadLook),
    ) -> Found {
        let mut look = self.seen(node, leads(epoch), extent);
        change(look.lead.as_mut().unwrap());
        self.take(node, look)
    }

    fn take(&mut self, node: usize, look: Look) -> Found {
        let mut found = Found::new();
        self.ghost
            .look(node, look, (&self.names, &self.disks), &mut found);
        self.ghost.check_leads((&self.names, &self.disks), &mut found);
        found
    }

    /// What the metadata says now.
    fn place(&mut self, partition: Partition) {
        self.ghost.place(Some(partition));
    }

    fn candidates(&mut self, partition: Partition) -> Found {
        self.place(partition);
        let mut found = Found::new();
        self.ghost
            .check_candidates((&self.names, &self.disks), &mut found);
        found
    }

    fn joins(&mut self, partition: Partition) -> Found {
        self.place(partition);
        let mut found = Found::new();
        let registered = |id: BrokerId| Some(BrokerEpoch(i64::from(id.get())));
        self.ghost
            .check_joins((&self.names, &self.disks), registered, &mut found);
        found
    }
}

pub(super) fn checks(found: &Found) -> Vec<&'static str> {
    found.iter().map(|(check, _)| *check).collect()
}

fn leads(epoch: i32) -> Part {
    Part::Leads(LeaderEpoch(epoch))
}

fn follows(epoch: i32) -> Part {
    Part::Follows(LeaderEpoch(epoch))
}

pub(super) fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().map(|id| BrokerId(*id)).collect()
}

pub(super) fn partition(replicas: &[i32], isr: &[i32], elr: &[i32], leader: Option<i32>) -> Partition {
    Partition {
        replicas: ids(replicas),
        adding: Vec::new(),
        removing: Vec::new(),
        isr: ids(isr),
        elr: ids(elr),
        offline: Vec::new(),
        leader: leader.map(BrokerId),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
    }
}

/// What is superseded may be missing in a log that is compacted, and what has come in the place of a record may not.
#[test]
fn holes_are_for_compacted_logs() {
    for (name, holes) in [(NAME, &["committed-missing"][..]), ("__consumer_offsets-0", &[])] {
        let mut two = Two::of(name);
        two.write(0, &[1, 2, 3], true);
        two.write_at(1, &[(0, 1, 0), (2, 3, 0)], true);
        assert!(two.look(0, Part::Leads(LeaderEpoch(0)), (3, 3)).is_empty());
        let found = two.look(1, Part::Follows(LeaderEpoch(0)), (3, 3));
        assert_eq!(checks(&found), holes, "{name}");
    }
    let mut two = Two::of("__consumer_offsets-0");
    two.write(0, &[1, 2, 3], true);
    assert!(two.look(0, Part::Leads(LeaderEpoch(0)), (3, 3)).is_empty());
    // Compaction takes the second out while the node runs; then somebody else's record is there.
    two.write_at(0, &[(0, 1, 0), (2, 3, 0), (3, 4, 0)], true);
    assert!(two.look(0, Part::Leads(LeaderEpoch(0)), (4, 4)).is_empty());
    two.write_at(1, &[(0, 1, 0), (1, 2, 1)], true);
    let found = two.look(1, Part::Follows(LeaderEpoch(1)), (2, 2));
    assert_eq!(checks(&found), ["committed-changed"]);
}

/// Beyond the contract, the log of whoever leads next tells what is lost: what ends before it, or is something else.
#[test]
fn a_hole_in_a_compacted_log_is_no_loss() {
    let losses = |name, left: &[(i64, u32, i32)], end| {
        let mut two = Two::of(name);
        two.write(0, &[1, 2, 3, 4], true);
        assert!(two.look(0, leads(0), (4, 4)).is_empty());
        two.ghost.gives_up = true;
        two.write_at(1, left, true);
        let found = two.look(1, leads(1), (end, end));
        (checks(&found), two.ghost.lost_from)
    };
    let groups = "__consumer_offsets-0";
    let with_hole = [(0, 1, 0), (2, 3, 0), (3, 4, 0)];
    assert_eq!(losses(groups, &with_hole, 4), (vec![], None));
    assert_eq!(losses(NAME, &with_hole, 4).1, Some(1));
    assert_eq!(losses(groups, &[(0, 1, 0), (2, 3, 0)], 3), (vec![], Some(3)));
    let went_on = [(0, 1, 0), (1, 2, 0), (2, 9, 1), (3, 8, 1)];
    assert_eq!(losses(groups, &went_on, 4), (vec![], Some(2)));
}

#[test]
fn a_healthy_pair_breaks_nothing() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2, 3], true);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    assert!(two.look(1, follows(0), (3, 2)).is_empty());
    assert!(two.look(1, follows(0), (3, 3)).is_empty());
    assert!(two.joins(partition(&[1, 2], &[1], &[], Some(1))).is_empty());
    assert!(two.joins(partition(&[1, 2], &[1, 2], &[], Some(1))).is_empty());
    assert!(
        two.candidates(partition(&[1, 2], &[1, 2], &[], Some(1)))
            .is_empty()
    );
    assert!(two.look(1, leads(1), (3, 3)).is_empty());
}

#[test]
fn committed_records_stay_as_they_were() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write_in_epochs(1, &[(1, 0), (9, 1), (3, 1)], true);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    assert_eq!(checks(&two.look(1, follows(1), (3, 3))), ["committed-changed"]);
}

#[test]
fn a_replica_has_what_it_says_is_committed() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1], true);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    assert_eq!(checks(&two.look(1, follows(0), (3, 3))), ["committed-missing"]);
}

#[test]
fn one_writes_in_an_epoch() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2, 9], true);
    assert!(two.look(0, leads(0), (3, 2)).is_empty());
    assert_eq!(checks(&two.look(1, follows(0), (3, 2))), ["two-writers"]);
}

#[test]
fn what_is_committed_is_durable() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], false);
    assert_eq!(
        checks(&two.look(0, leads(0), (3, 3))),
        ["committed-before-durable"]
    );
}

#[test]
fn what_was_deleted_as_soon_as_it_was_committed_is_not_missed() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    // Between two looks 3..5 were committed, and DeleteRecords removed everything up to 5.
    let mut look = two.seen(0, leads(0), (5, 5));
    look.log_start = Offset(4);
    assert_eq!(checks(&two.take(0, look.clone())), ["committed-before-durable"]);
    look.log_start = Offset(5);
    assert!(two.take(0, look).is_empty());
}

#[test]
fn one_leads_in_an_epoch_and_has_everything() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2], true);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    assert!(checks(&two.look(1, leads(0), (2, 2))).contains(&"two-leaders"));
    assert_eq!(checks(&two.look(1, leads(1), (2, 2))), ["incomplete-leader"]);
}

/// It is long enough, and knows of nothing that was committed: nothing is compared with what it says of itself.
#[test]
fn a_leader_has_nothing_else_in_the_place_of_what_was_committed() {
    let elected = |values: &[(u32, i32)]| {
        let mut two = Two::new();
        two.write(0, &[1, 2, 3], true);
        two.write_in_epochs(1, values, true);
        assert!(two.look(0, leads(0), (3, 3)).is_empty());
        let end = i64::try_from(values.len()).unwrap();
        checks(&two.look(1, leads(2), (end, 0)))
    };
    let none: [&str; 0] = [];
    assert_eq!(elected(&[(1, 0), (2, 0), (3, 0)]), none);
    assert_eq!(elected(&[(1, 0), (2, 0), (3, 0), (7, 1)]), none);
    assert_eq!(elected(&[(1, 0), (2, 0), (9, 1)]), ["incomplete-leader"]);
    assert_eq!(elected(&[(1, 0), (9, 1), (8, 1), (7, 1)]), ["incomplete-leader"]);
}

#[test]
fn who_may_be_elected_has_everything() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2], true);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    for (isr, elr) in [(&[1, 2][..], &[][..]), (&[1], &[2])] {
        let found = two.candidates(partition(&[1, 2], isr, elr, Some(1)));
        assert_eq!(checks(&found), ["incomplete-candidate"], "{found:?}");
    }
    assert!(two.candidates(partition(&[1, 2], &[1], &[], Some(1))).is_empty());
}

#[test]
fn a_leader_waits_for_everybody_who_is_in_sync() {
    let mut two = Two::new();
    two.write(0, &[1], true);
    two.place(partition(&[1, 2], &[1, 2], &[], Some(1)));
    assert_eq!(checks(&two.look(0, leads(0), (1, 1))), ["member-not-counted"]);
    let all = |lead: &mut LeadLook| lead.counted = ids(&[1, 2]);
    assert!(two.look_at_leader(0, 0, (1, 1), all).is_empty());
}

#[test]
fn who_counts_is_in_sync_or_was_asked_for() {
    let mut two = Two::new();
    two.write(0, &[1], true);
    two.write(1, &[1], true);
    two.place(partition(&[1, 2], &[1], &[], Some(1)));
    let mut look = |in_sync: &[i32], asks: bool, epoch: i32| {
        checks(&two.look_at_leader(0, 0, (1, 1), |lead| {
            (lead.in_sync, lead.counted, lead.asks) = (ids(in_sync), ids(&[1, 2]), asks);
            lead.partition_epoch = PartitionEpoch(epoch);
        }))
    };
    assert!(look(&[1], true, 0).is_empty());
    assert_eq!(look(&[1], false, 0), ["in-sync-set-differs"]);
    // The metadata says otherwise of this partition epoch, and has not heard of the next one.
    assert_eq!(look(&[1, 2], false, 0), ["in-sync-set-differs"]);
    assert!(look(&[1, 2], false, 1).is_empty());
}

#[test]
fn readers_are_told_of_what_is_committed_and_no_more() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2, 3], true);
    let told = |two: &Two, node, end| {
        let mut found = Found::new();
        two.ghost.check_served(node, end, &two.names, &mut found);
        checks(&found)
    };
    assert!(two.look(0, leads(0), (3, 2)).is_empty());
    assert!(two.look(1, follows(0), (3, 1)).is_empty());
    assert!(told(&two, 0, 2).is_empty());
    // Both have the third record on their disks.
    assert_eq!(told(&two, 0, 3), ["served-uncommitted"]);
    assert_eq!(told(&two, 1, 3), ["served-uncommitted"], "from a follower");
    assert!(
        told(&two, 1, 2).is_empty(),
        "it may know more than its own high watermark"
    );
}

#[test]
fn what_is_acknowledged_is_committed_and_no_successor_began_before_it() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2], true);
    let acked = |two: &Two, node, end| {
        let mut found = Found::new();
        two.ghost.check_acknowledged(node, end, &two.names, &mut found);
        checks(&found)
    };
    assert!(two.look(0, leads(0), (3, 2)).is_empty());
    assert!(acked(&two, 0, 2).is_empty());
    assert_eq!(acked(&two, 0, 3), ["acknowledged-uncommitted"]);
    let began_at_2 = |lead: &mut LeadLook| lead.epoch_start = Offset(2);
    assert!(two.look_at_leader(1, 1, (2, 2), began_at_2).is_empty());
    assert!(acked(&two, 0, 2).is_empty());
    assert_eq!(
        acked(&two, 0, 3),
        ["stale-leader-acknowledges", "acknowledged-uncommitted"]
    );
    // Who follows by now may have answered when it led, and then it was committed.
    assert!(two.look(0, follows(1), (2, 2)).is_empty());
    assert!(acked(&two, 0, 2).is_empty());
    assert_eq!(acked(&two, 0, 3), ["acknowledged-uncommitted"]);
}

#[test]
fn enough_members_have_what_is_committed() {
    let mut two = Two::new();
    two.write(0, &[1, 2], true);
    two.place(partition(&[1, 2], &[1], &[], Some(1)));
    let of_two = |lead: &mut LeadLook| lead.min_in_sync = 2;
    assert!(two.look_at_leader(0, 0, (2, 0), of_two).is_empty());
    assert_eq!(
        checks(&two.look_at_leader(0, 0, (2, 2), of_two)),
        ["committed-by-too-few"]
    );

    // Two changes of the set between two looks: in the set between them there were enough, or too few.
    for (between, expected) in [(&[1, 2][..], &[][..]), (&[1], &["committed-by-too-few"])] {
        let mut two = Two::new();
        two.write(0, &[1, 2], true);
        two.write(1, &[1, 2], true);
        let mut placed = partition(&[1, 2], &[1], &[], Some(1));
        let mut look_in = |two: &mut Two, epoch: i32, isr: &[i32], high: i64| {
            placed.partition_epoch = PartitionEpoch(epoch);
            placed.isr = ids(isr);
            two.place(placed.clone());
            (high >= 0).then(|| {
                two.look_at_leader(0, 0, (2, high), |lead| {
                    lead.min_in_sync = 2;
                    lead.partition_epoch = PartitionEpoch(epoch);
                })
            })
        };
        assert_eq!(look_in(&mut two, 5, &[1], 0), Some(Vec::new()));
        assert!(look_in(&mut two, 6, between, -1).is_none());
        assert_eq!(checks(&look_in(&mut two, 7, &[1], 2).unwrap()), expected);
    }

    let mut two = Two::new();
    two.write(0, &[1, 2], true);
    two.write(1, &[1, 2], false);
    two.place(partition(&[1, 2], &[1, 2], &[], Some(1)));
    let both = |lead: &mut LeadLook| (lead.in_sync, lead.counted) = (ids(&[1, 2]), ids(&[1, 2]));
    assert!(two.look_at_leader(0, 0, (2, 0), both).is_empty());
    assert_eq!(
        checks(&two.look_at_leader(0, 0, (2, 2), both)),
        ["committed-past-a-member"]
    );
}

#[test]
fn what_a_dead_replica_had_is_not_what_it_has_after_its_recovery() {
    let mut two = Two::new();
    two.write(0, &[1, 2], true);
    two.write(1, &[1, 2, 4_000_000_000], true);
    assert!(two.look(0, leads(0), (2, 2)).is_empty());
    let eligible = partition(&[1, 2], &[1], &[2], Some(1));
    assert!(two.candidates(eligible.clone()).is_empty());
    // Its third batch was torn and is cut; what it follows then lies elsewhere in the file.
    two.write(0, &[1, 2, 3, 4, 5], true);
    two.write(1, &[1, 2, 3, 4, 5], true);
    assert!(two.look(0, leads(0), (5, 5)).is_empty());
    let found = two.candidates(eligible.clone());
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn offsets_keep_their_order_and_do_not_go_back() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    assert!(checks(&two.look(0, leads(0), (2, 3))).contains(&"order-of-offsets"));
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    assert!(two.look(0, leads(1), (3, 3)).is_empty());
    assert_eq!(checks(&two.look(0, leads(1), (3, 2))), ["watermark-went-back"]);
    assert_eq!(checks(&two.look(0, follows(0), (3, 2))), ["epoch-went-back"]);
}

/// Beyond the contract its leader has lost what it knows to be committed.
#[test]
fn who_is_to_be_cut_below_its_high_watermark_knows_less() {
    for (gives_up, is_beyond, end, broken) in [
        (true, false, 3, false),
        (false, true, 3, true),
        (false, false, 3, true),
        (false, true, 2, false),
        (false, false, 2, true),
    ] {
        let mut two = Two::new();
        (two.ghost.gives_up, two.ghost.is_beyond) = (gives_up, is_beyond);
        two.write(1, &[1, 2, 3], true);
        assert!(two.look(1, follows(0), (3, 3)).is_empty());
        let found = two.look(1, follows(0), (end, 1));
        assert_eq!(
            checks(&found).contains(&"watermark-went-back"),
            broken,
            "{found:?}"
        );
    }
}

#[test]
fn what_nobody_deletes_stays() {
    for (keeps, broken) in [(true, true), (false, false)] {
        let mut two = Two::new();
        two.ghost.keeps_its_start = keeps;
        two.write(0, &[1, 2, 3], true);
        assert!(two.look(0, leads(0), (3, 3)).is_empty());
        let mut look = two.seen(0, leads(0), (3, 3));
        look.log_start = Offset(1);
        let found = two.take(0, look);
        assert_eq!(checks(&found).contains(&"log-start-moved"), broken, "{found:?}");
    }
}

#[test]
fn who_may_be_elected_cuts_nothing_that_is_committed() {
    for (isr, broken) in [(&[1, 2][..], true), (&[1], false)] {
        let mut two = Two::new();
        two.write(0, &[1, 2, 3], true);
        two.write(1, &[1, 2, 3], true);
        two.place(partition(&[1, 2], isr, &[], None));
        assert!(two.look(0, leads(0), (3, 3)).is_empty());
        assert!(two.look(1, follows(0), (3, 1)).is_empty());
        two.write(1, &[1], true);
        let found = two.look(1, follows(0), (1, 1));
        assert_eq!(
            checks(&found).contains(&"committed-truncated"),
            broken,
            "{found:?}"
        );
    }
}

#[test]
fn what_was_cut_and_written_again_between_two_looks_is_seen() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2, 3], true);
    two.place(partition(&[1, 2], &[1, 2], &[], None));
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    assert!(two.look(1, follows(0), (3, 0)).is_empty());
    two.write_in_epochs(1, &[(1, 0), (7, 1), (8, 1), (9, 1)], true);
    assert_eq!(checks(&two.look(1, follows(1), (4, 0))), ["committed-truncated"]);
}

#[test]
fn a_log_knows_its_epochs() {
    let wrong: [&[(i32, i64)]; 4] = [&[(0, 0)], &[(1, 0)], &[(0, 0), (2, 1)], &[(1, 1), (0, 0)]];
    for epochs in wrong {
        let mut two = Two::new();
        two.write_in_epochs(0, &[(1, 0), (2, 1), (3, 1)], true);
        two.epochs[0] = epochs
            .iter()
            .map(|(epoch, start)| (LeaderEpoch(*epoch), Offset(*start)))
            .collect();
        assert!(
            checks(&two.look(0, leads(1), (3, 1))).contains(&"wrong-epochs"),
            "{epochs:?}"
        );
    }
}

#[test]
fn who_joins_has_what_the_leader_began_with() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2], true);
    two.place(partition(&[1, 2], &[1], &[], Some(1)));
    // The high watermark says 2, and the leader's predecessors may have committed 3.
    let began_at_3 = |lead: &mut LeadLook| {
        lead.epoch_start = Offset(3);
        lead.counted = ids(&[1, 2]);
    };
    assert!(two.look_at_leader(0, 0, (3, 2), began_at_3).is_empty());
    assert_eq!(
        checks(&two.joins(partition(&[1, 2], &[1, 2], &[], Some(1)))),
        ["joined-too-early"]
    );
}

#[test]
fn who_joins_does_so_by_its_last_registration() {
    // The second node's registration is 2.
    let joins = |asked: i64, asked_at: i32| {
        let mut two = Two::new();
        two.write(0, &[1, 2, 3], true);
        two.write(1, &[1, 2, 3], true);
        assert!(two.joins(partition(&[1, 2], &[1], &[], Some(1))).is_empty());
        let asks = |lead: &mut LeadLook| {
            lead.partition_epoch = PartitionEpoch(asked_at);
            lead.asked = vec![(BrokerId(2), BrokerEpoch(asked))];
        };
        assert!(two.look_at_leader(0, 0, (3, 3), asks).is_empty());
        assert!(two.look(1, follows(0), (3, 3)).is_empty());
        let mut joined = partition(&[1, 2], &[1, 2], &[], Some(1));
        joined.partition_epoch = PartitionEpoch(1);
        checks(&two.joins(joined))
    };
    let none: [&str; 0] = [];
    assert_eq!(joins(2, 0), none);
    assert_eq!(joins(1, 0), ["old-registration-joins"]);
    // That was about another change.
    assert_eq!(joins(1, -1), none);
}

#[test]
fn a_leader_that_was_replaced_commits_nothing_new() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2], true);
    let began_at_2 = |lead: &mut LeadLook| lead.epoch_start = Offset(2);
    assert!(two.look(0, leads(0), (3, 2)).is_empty());
    assert!(two.look_at_leader(1, 1, (2, 2), began_at_2).is_empty());
    assert_eq!(checks(&two.look(0, leads(0), (3, 3))), ["stale-leader-commits"]);
}

/// Turns a bit of the last record of a node over.
fn rot(two: &Two, node: usize) {
    let path = Path::new("/data/log").join(NAME).join("00000000000000000000.log");
    let length = two.disks[node].with_live(&path, <[u8]>::len).unwrap();
    let harm = Harm {
        path,
        position: length - 3,
        mask: vec![1],
        sector: Sector::Good,
    };
    assert!(two.disks[node].harm(&harm));
}

#[test]
fn a_damaged_record_is_excused_for_as_long_as_a_place_of_the_disk_is_bad() {
    for (rotten, expected) in [(vec![1], &[][..]), (vec![0], &["committed-changed"])] {
        let mut two = Two::new();
        two.write(0, &[1, 2, 3], true);
        two.write(1, &[1, 2, 3], true);
        rot(&two, 1);
        two.ghost.rotten = rotten;
        assert!(two.look(0, leads(0), (3, 3)).is_empty());
        assert_eq!(checks(&two.look(1, follows(0), (3, 3))), expected);
    }
}

#[test]
fn a_damaged_record_that_was_made_again_is_no_damaged_one() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2, 3], true);
    rot(&two, 1);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    assert!(two.look(1, follows(0), (3, 0)).is_empty(), "nobody asks yet");
    two.write(1, &[1, 2, 3], true);
    assert!(two.look(1, follows(0), (3, 3)).is_empty());
}

#[test]
fn a_bad_place_excuses_nobody_who_has_given_the_copy_up() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2, 3], true);
    rot(&two, 1);
    two.ghost.rotten = vec![1];
    let eligible = partition(&[1, 2], &[1], &[2], Some(1));
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    assert!(two.look(1, follows(0), (3, 3)).is_empty());
    assert!(
        two.candidates(eligible.clone()).is_empty(),
        "what was written counts"
    );
    two.ghost.settle();
    // The copy is set aside, and an empty one begun: the metadata must know.
    two.ghost.forget_replica(1);
    two.write(1, &[], true);
    assert!(two.look(1, follows(0), (0, 0)).is_empty());
    assert!(two.ghost.has_moved(), "so it is looked at again");
    assert_eq!(checks(&two.candidates(eligible)), ["incomplete-candidate"]);
}

#[test]
fn at_the_end_all_copies_are_the_same() {
    let compared = |first: &[u32], second: &[u32], part| {
        let mut two = Two::new();
        let mut looks = Vec::new();
        for (node, values, part) in [(0, first, leads(0)), (1, second, part)] {
            two.write(node, values, true);
            let end = values.len() as i64;
            looks.push(Some(two.seen(node, part, (end, end))));
        }
        let mut found = Found::new();
        two.ghost
            .compare_copies(&looks, (&two.names, &two.disks), &mut found);
        checks(&found)
    };
    assert!(compared(&[1, 2, 3], &[1, 2, 3], follows(0)).is_empty());
    assert_eq!(compared(&[1, 2, 3], &[1, 9, 3], follows(0)), ["copies-differ"]);
    // One that ends early is another one, whichever it is.
    for (first, second) in [(&[1, 2][..], &[1, 2, 3][..]), (&[1, 2, 3], &[1, 2]), (&[1], &[])] {
        assert_eq!(compared(first, second, follows(0)), ["copies-differ"]);
    }
    // A copy that belongs to no replica any more is compared with nothing.
    assert!(compared(&[1, 2, 3], &[1, 9, 3], Part::Nothing).is_empty());
}

/// All values of the workload are of one key.
#[test]
fn at_the_end_compacted_copies_say_the_same_of_each_key() {
    let compared = |second: &[(i64, u32, i32)]| {
        let mut two = Two::of("__consumer_offsets-0");
        two.write(0, &[1, 2, 3], true);
        two.write_at(1, second, true);
        let looks = [
            Some(two.seen(0, leads(0), (3, 3))),
            Some(two.seen(1, follows(0), (3, 3))),
        ];
        let mut found = Found::new();
        two.ghost
            .compare_copies(&looks, (&two.names, &two.disks), &mut found);
        checks(&found)
    };
    assert!(compared(&[(0, 1, 0), (2, 3, 0)]).is_empty(), "one is compacted");
    assert!(compared(&[(2, 3, 0)]).is_empty());
    assert_eq!(compared(&[(0, 1, 0), (1, 2, 0)]), ["copies-differ"]);
    assert_eq!(compared(&[]), ["copies-differ"]);
}
