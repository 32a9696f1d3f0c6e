//! Each invariant, with a state that violates it.

use std::path::Path;

use skerry::partition::{Look, Part};
use skerry_env::Rng;
use skerry_env::disk::OpenMode;
use skerry_metadata_state::{Image, Partition};
use skerry_types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch};

use super::Found;
use super::ghost::Ghost;
use super::metadata::check_partition;
use crate::checker::history::Value;
use crate::disk::{DiskConfig, SimDisk};
use crate::record::{self, Identity};
use crate::trace::Trace;

const NAME: &str = "orders-0";

/// Two nodes, whose logs of one partition are written by hand.
struct Two {
    names: Vec<String>,
    disks: Vec<SimDisk>,
    ghost: Ghost,
}

impl Two {
    fn new() -> Self {
        let names = vec!["n1".to_owned(), "n2".to_owned()];
        let disk = |name: &String| SimDisk::new(name, DiskConfig::default(), Rng::seeded(1), Trace::silent());
        Self {
            disks: names.iter().map(disk).collect(),
            ghost: Ghost::new(NAME.to_owned(), names.len()),
            names,
        }
    }

    /// Writes one batch for each of `values` from offset 0 on; synced or not.
    fn write(&self, node: usize, values: &[u32], synced: bool) {
        let disk = self.disks[node].attach();
        let dir = Path::new("/data/log").join(NAME);
        disk.create_dir_all(&dir).unwrap();
        let path = dir.join("00000000000000000000.log");
        let file = disk.open(&path, OpenMode::Create).unwrap();
        let mut position = 0;
        for (base, serial) in (0_i64..).zip(values) {
            let value = Value {
                producer: 0,
                serial: *serial,
            };
            let mut bytes = record::encode(&[value], Identity::NONE, 1, 10).to_vec();
            bytes[..8].copy_from_slice(&base.to_be_bytes());
            file.write_at(&[std::io::IoSlice::new(&bytes)], position).unwrap();
            position += bytes.len() as u64;
        }
        if synced {
            file.sync().unwrap();
            for dir in ["/data/log/orders-0", "/data/log", "/data", "/"] {
                disk.sync_dir(Path::new(dir)).unwrap();
            }
        }
    }

    fn look(&mut self, node: usize, part: Part, (end, high): (i64, i64)) -> Found {
        let mut found = Found::new();
        let look = Look {
            part,
            log_start: Offset(0),
            log_end: Offset(end),
            durable_end: Offset(end),
            high_watermark: Offset(high),
        };
        self.ghost
            .look(node, look, (&self.names, &self.disks), &mut found);
        found
    }

    fn candidates(&mut self, partition: &Partition) -> Found {
        let mut found = Found::new();
        self.ghost
            .check_candidates(partition, (&self.names, &self.disks), &mut found);
        found
    }
}

fn checks(found: &Found) -> Vec<&'static str> {
    found.iter().map(|(check, _)| *check).collect()
}

fn leads(epoch: i32) -> Part {
    Part::Leads(LeaderEpoch(epoch))
}

fn follows(epoch: i32) -> Part {
    Part::Follows(LeaderEpoch(epoch))
}

fn partition(replicas: &[i32], isr: &[i32], elr: &[i32], leader: Option<i32>) -> Partition {
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
    Partition {
        replicas: ids(replicas),
        adding: Vec::new(),
        removing: Vec::new(),
        isr: ids(isr),
        elr: ids(elr),
        leader: leader.map(BrokerId),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
    }
}

#[test]
fn a_healthy_pair_breaks_nothing() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2, 3], true);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    assert!(two.look(1, follows(0), (3, 2)).is_empty());
    assert!(two.look(1, follows(0), (3, 3)).is_empty());
    assert!(
        two.candidates(&partition(&[1, 2], &[1, 2], &[], Some(1)))
            .is_empty()
    );
    assert!(two.look(1, leads(1), (3, 3)).is_empty());
}

#[test]
fn committed_records_stay_as_they_were() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 9, 3], true);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    assert_eq!(checks(&two.look(1, follows(0), (3, 3))), ["committed-changed"]);
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
fn what_is_committed_is_durable() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], false);
    assert_eq!(
        checks(&two.look(0, leads(0), (3, 3))),
        ["committed-before-durable"]
    );
}

#[test]
fn one_leads_in_an_epoch_and_has_everything() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2], true);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    assert!(checks(&two.look(1, leads(0), (3, 2))).contains(&"two-leaders"));
    assert_eq!(checks(&two.look(1, leads(1), (2, 2))), ["incomplete-leader"]);
}

#[test]
fn who_may_be_elected_has_everything() {
    let mut two = Two::new();
    two.write(0, &[1, 2, 3], true);
    two.write(1, &[1, 2], true);
    assert!(two.look(0, leads(0), (3, 3)).is_empty());
    for (isr, elr) in [(&[1, 2][..], &[][..]), (&[1], &[2])] {
        let found = two.candidates(&partition(&[1, 2], isr, elr, Some(1)));
        assert_eq!(checks(&found), ["incomplete-candidate"], "{found:?}");
    }
    assert!(two.candidates(&partition(&[1, 2], &[1], &[], Some(1))).is_empty());
}

#[test]
fn what_a_dead_replica_had_is_not_what_it_has_after_its_recovery() {
    let mut two = Two::new();
    two.write(0, &[1, 2], true);
    two.write(1, &[1, 2, 4_000_000_000], true);
    assert!(two.look(0, leads(0), (2, 2)).is_empty());
    let eligible = partition(&[1, 2], &[1], &[2], Some(1));
    assert!(two.candidates(&eligible).is_empty());
    // Its third batch was torn and is cut; what it follows then lies elsewhere in the file.
    two.write(0, &[1, 2, 3, 4, 5], true);
    two.write(1, &[1, 2, 3, 4, 5], true);
    assert!(two.look(0, leads(0), (5, 5)).is_empty());
    let found = two.candidates(&eligible);
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

#[test]
fn an_in_sync_set_is_of_unfenced_replicas_and_their_leader() {
    let image = Image::default();
    let wrong = [
        partition(&[1, 2], &[1, 3], &[], None),
        partition(&[1, 2], &[1], &[3], None),
        partition(&[1, 2], &[1], &[1], None),
        partition(&[1, 2], &[2], &[], Some(1)),
        partition(&[1, 2], &[1, 2], &[], Some(1)),
    ];
    for partition in wrong {
        let mut found = Found::new();
        check_partition(NAME, &partition, &image, &mut found);
        assert!(!found.is_empty(), "{partition:?}");
        assert!(checks(&found).iter().all(|check| *check == "wrong-in-sync-set"));
    }
    let mut found = Found::new();
    check_partition(NAME, &partition(&[1, 2], &[], &[1], None), &image, &mut found);
    assert!(found.is_empty());
}
