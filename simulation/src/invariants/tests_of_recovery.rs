//! What a recovery must not do, each with a disk on which it does it; and a snapshot that says something else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use skerry::partition::{Look, Part};
use skerry::partitions::{HIGH_WATERMARKS, LOG_STARTS, RECOVERY_POINTS};
use skerry_env::Rng;
use skerry_log::{FileCache, Log, LogConfig, PartitionIdentity, ValidBatch, checkpoint};
use skerry_metadata_state::{Command, FEATURE_LEVEL, Image, State};
use skerry_types::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition, Uuid, WallMs};

use super::Found;
use super::metadata::check_snapshot;
use super::shadow::{Known, recover_all};
use crate::disk::{DiskConfig, Harm, Sector, SimDisk};
use crate::record::{self, HEADER_BYTES, Identity, segment};
use crate::trace::Trace;
use skerry_checker::history::Value;

const NAME: &str = "orders-0";

fn checks(found: &Found) -> Vec<&'static str> {
    found.iter().map(|(check, _)| *check).collect()
}

fn dir() -> PathBuf {
    Path::new("/data/log").join(NAME)
}

/// A disk with a log of `records` batches of one record, `durable` of them synced, and a checkpoint that says `point`.
fn disk(records: u32, durable: u32, point: i64) -> SimDisk {
    let disk = SimDisk::new("n1", DiskConfig::default(), Rng::seeded(1), Trace::silent());
    let attached = disk.attach();
    attached.create_dir_all(Path::new("/data/log")).unwrap();
    let identity = PartitionIdentity {
        topic: "orders".into(),
        partition: PartitionIndex(0),
        topic_id: TopicId::from_random([7; 16]),
    };
    let files = FileCache::new(attached.clone(), 8);
    let mut log = Log::create(&files, dir(), identity, LogConfig::default()).unwrap();
    for serial in 0..records {
        let values = [Value { producer: 1, serial }];
        let batch = ValidBatch::internal(record::encode(&values, Identity::NONE, 77, 10)).unwrap();
        log.append_as_leader(batch, LeaderEpoch(0), WallMs(77)).unwrap();
        if serial + 1 == durable {
            let flush = log.start_flush().unwrap();
            let result = flush.run();
            log.finish_flush(flush, result).unwrap();
        }
    }
    let points = BTreeMap::from([(TopicPartition::new("orders", 0), Offset(point))]);
    let path = Path::new("/data/log").join(RECOVERY_POINTS);
    checkpoint::write(&*attached, &path, &points).unwrap();
    for path in ["/", "/data", "/data/log"] {
        attached.sync_dir(Path::new(path)).unwrap();
    }
    disk
}

/// What the node says of it.
fn known(end: i64, durable: i64) -> Known {
    let look = Look {
        part: Part::Follows(LeaderEpoch(0)),
        log_start: Offset(0),
        log_end: Offset(end),
        durable_end: Offset(durable),
        high_watermark: Offset(0),
        epochs: vec![(LeaderEpoch(0), Offset(0))],
        lead: None,
    };
    Known {
        name: TopicPartition::new("orders", 0),
        text: NAME.to_owned(),
        look,
        config: LogConfig::default(),
    }
}

/// Two power cuts with a recovery after each, as [`super::shadow::Shadow::look`] does it, with `between` after the first.
fn cut_and_recover(seed: u64, disk: &SimDisk, known: Known, between: impl Fn(&SimDisk)) -> Found {
    let copy = disk.after_power_cut(Rng::seeded(seed));
    let (mut ends, mut found) = (BTreeMap::new(), Found::new());
    let looks = [known];
    recover_all(disk, &copy, "n1", &looks, &mut ends, &mut found);
    copy.cut_power();
    between(&copy);
    recover_all(disk, &copy, "n1", &looks, &mut ends, &mut found);
    found
}

#[test]
fn what_was_durable_survives_two_power_cuts() {
    for (durable, point) in [(6, 0), (6, 4), (6, 6), (3, 3)] {
        let disk = disk(6, durable, point);
        let found = cut_and_recover(5, &disk, known(6, i64::from(durable)), |_| {});
        assert!(
            found.is_empty(),
            "{durable} durable, checkpoint {point}: {found:?}"
        );
    }
}

#[test]
fn a_checkpoint_that_says_more_than_the_log_is_noticed() {
    for (file, said, expected) in [
        (HIGH_WATERMARKS, 6, &[][..]),
        (HIGH_WATERMARKS, 7, &["checkpoint-beyond-the-log"; 2]),
    ] {
        let disk = disk(6, 6, 6);
        let offsets = BTreeMap::from([(TopicPartition::new("orders", 0), Offset(said))]);
        checkpoint::write(&*disk.attach(), &Path::new("/data/log").join(file), &offsets).unwrap();
        let found = cut_and_recover(5, &disk, known(6, 6), |_| {});
        assert_eq!(checks(&found), expected, "{said}: {found:?}");
    }
}

/// Planted bug 1's kin: the node takes for durable what no sync has covered.
#[test]
fn a_recovery_that_lacks_what_was_durable_is_noticed() {
    let lost = (0..20).any(|seed| {
        let disk = disk(40, 3, 3);
        let found = cut_and_recover(seed, &disk, known(40, 40), |_| {});
        checks(&found).contains(&"recovery-loses-durable")
    });
    assert!(lost);
}

/// What seed 7460 of any size did: without a sync, a log may end before what it has just been told to delete.
#[test]
fn a_log_that_begins_where_nobody_may_read_any_more_has_lost_nothing() {
    let disk = disk(3, 3, 3);
    let offsets = BTreeMap::from([(TopicPartition::new("orders", 0), Offset(10))]);
    checkpoint::write(
        &*disk.attach(),
        &Path::new("/data/log").join(LOG_STARTS),
        &offsets,
    )
    .unwrap();
    let found = cut_and_recover(5, &disk, known(12, 3), |_| {});
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn other_records_in_the_place_of_durable_ones_are_noticed() {
    let disk = disk(6, 6, 0);
    let copy = self::disk(6, 6, 0);
    // The same length, and other values.
    let attached = copy.attach();
    let path = segment::path(&dir(), 0);
    let file = attached
        .open(&path, skerry_env::disk::OpenMode::ReadWrite)
        .unwrap();
    let mut bytes = Vec::new();
    for base in 0..6_i64 {
        let serial = u32::try_from(base).unwrap();
        let values = [Value { producer: 2, serial }];
        let mut batch = record::encode(&values, Identity::NONE, 77, 10).to_vec();
        batch[..8].copy_from_slice(&base.to_be_bytes());
        batch[12..16].copy_from_slice(&0_i32.to_be_bytes());
        bytes.extend(batch);
    }
    file.write_at(&[std::io::IoSlice::new(&bytes)], 0).unwrap();
    file.sync().unwrap();
    let (mut ends, mut found) = (BTreeMap::new(), Found::new());
    recover_all(&disk, &copy, "n1", &[known(6, 6)], &mut ends, &mut found);
    assert!(checks(&found).contains(&"recovery-loses-durable"), "{found:?}");
}

/// Damage below the checkpoint takes the partition offline: where nothing has rotted, that is a mistake.
#[test]
fn a_log_that_does_not_open_is_noticed() {
    let disk = disk(6, 6, 6);
    let harm = Harm {
        path: segment::path(&dir(), 0),
        position: HEADER_BYTES + 3,
        mask: vec![1],
        sector: Sector::Good,
    };
    assert!(disk.harm(&harm));
    let found = cut_and_recover(5, &disk, known(6, 6), |_| {});
    assert_eq!(checks(&found), ["does-not-recover"; 2], "{found:?}");
}

/// What the first recovery told, the second one takes back: here a hand cuts the file in between.
#[test]
fn a_recovery_that_was_not_durable_is_noticed() {
    let disk = disk(6, 6, 0);
    let found = cut_and_recover(5, &disk, known(6, 2), |copy| {
        let attached = copy.attach();
        let path = segment::path(&dir(), 0);
        let file = attached
            .open(&path, skerry_env::disk::OpenMode::ReadWrite)
            .unwrap();
        file.set_len(file.len().unwrap() - 1).unwrap();
        file.sync().unwrap();
    });
    assert_eq!(checks(&found), ["recovery-not-durable"], "{found:?}");
}

#[test]
fn a_snapshot_that_says_something_else_is_noticed() {
    let mut state = State::default();
    let before = state.image().encode();
    state.apply(
        1,
        &Command::InitCluster {
            cluster_id: Uuid([1; 16]),
            feature_level: FEATURE_LEVEL,
        },
    );
    let image: &Image = state.image();
    let judged = |snapshot: &[u8]| {
        let mut found = Found::new();
        check_snapshot(image, snapshot, &mut found);
        checks(&found)
    };
    let snapshot = image.encode();
    assert!(judged(&snapshot).is_empty());
    assert_eq!(judged(&before), ["snapshot-differs"]);
    assert_eq!(judged(&snapshot[..snapshot.len() - 1]), ["snapshot-differs"]);
}
