//! Retention, truncation, time, failures of the disk, and what an idle log costs.

mod support;

use skerry_log::{
    AppendError, Appended, FileCache, Log, LogConfig, OpenError, Recovered, Shutdown, TimestampQuery,
    ValidBatch,
};
use skerry_types::{LeaderEpoch, Offset, WallMs};
use support::*;

fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 300,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

fn filled(disk: &PowerDisk, config: &LogConfig, batches: i64) -> Log {
    let mut log = create(disk, config);
    for n in 0..batches {
        let mut builder = skerry_log::batch::BatchBuilder::default();
        builder.push(WallMs(1000 * n), None, Some(format!("value {n}").as_bytes()), &[]);
        append(&mut log, builder.build(), 0);
    }
    flush(&mut log);
    log
}

#[test]
fn retention_takes_whole_segments_below_the_high_watermark() {
    let disk = PowerDisk::new();
    let config = LogConfig {
        retention_ms: Some(10_000),
        ..small()
    };
    let mut log = filled(&disk, &config, 40);
    let segments = log.segment_count();
    // Four batches fit into a segment; the newest of the first has the time 3,000.
    assert!(
        log.apply_retention(Offset(40), WallMs(13_000))
            .unwrap()
            .is_empty()
    );
    assert!(
        log.apply_retention(Offset(2), WallMs(13_001)).unwrap().is_empty(),
        "the watermark is within it"
    );
    let retired = log.apply_retention(Offset(40), WallMs(13_001)).unwrap();
    assert_eq!(
        (retired.segments, log.log_start(), log.segment_count()),
        (1, Offset(4), segments - 1)
    );
    assert!(
        retired
            .files
            .iter()
            .all(|path| path.to_string_lossy().ends_with(".deleted"))
    );
    assert!(retired.files.iter().all(|path| disk.read(path).is_some()));
    retired.remove(&disk).unwrap();
    assert!(retired.files.iter().all(|path| disk.read(path).is_none()));

    // All have expired: a new segment is begun.
    let retired = log.apply_retention(Offset(40), WallMs(1_000_000)).unwrap();
    assert_eq!((retired.segments, log.segment_count()), (segments - 1, 1));
    assert_eq!((log.log_start(), log.log_end()), (Offset(40), Offset(40)));
    append(&mut log, batch(&["after"]), 0);
    assert_eq!(values(&log), ["after"]);
    let (again, _) = open(&disk, &config, Recovered::default());
    assert_eq!(
        (again.log_start(), values(&again)),
        (Offset(40), vec!["after".to_owned()])
    );
}

/// Seed 2024 of any size, 60 s: the follower cut its log to where an older epoch had ended, below its own start.
#[test]
fn epochs_of_what_retention_takes_are_known_after_a_crash() {
    let disk = PowerDisk::new();
    let config = LogConfig {
        retention_ms: Some(10_000),
        ..small()
    };
    let mut log = create(&disk, &config);
    append(&mut log, batch(&["a"]), 7);
    checkpoint(&mut log);
    append(&mut log, batch(&["b"]), 8);
    let retired = log
        .apply_retention(Offset(2), WallMs(NOW.get() + 1_000_000))
        .unwrap();
    assert_eq!((retired.segments, log.log_start()), (1, Offset(2)));
    let known = log.epoch_starts().last();
    drop(log);
    let (again, _) = open(&disk, &config, Recovered::default());
    assert_eq!(known.map(|(epoch, _)| epoch), Some(LeaderEpoch(8)));
    assert_eq!(again.epoch_starts().last(), known);
}

#[test]
fn retention_by_size_keeps_at_least_that_much() {
    let disk = PowerDisk::new();
    let config = LogConfig {
        retention_ms: None,
        retention_bytes: Some(1000),
        ..small()
    };
    let mut log = filled(&disk, &config, 40);
    log.apply_retention(Offset(40), NOW).unwrap();
    assert!(
        log.size_bytes() >= 1000 && log.size_bytes() < 1300,
        "{}",
        log.size_bytes()
    );
}

#[test]
fn deleted_records_stay_deleted() {
    let disk = PowerDisk::new();
    let mut log = filled(&disk, &small(), 20);
    let retired = log.set_log_start(Offset(8)).unwrap();
    assert_eq!(retired.segments, 2);
    assert_eq!(log.log_start(), Offset(8));
    assert_eq!(values(&log).len(), 12);
    assert!(log.set_log_start(Offset(21)).is_err());
    let recovered = Recovered {
        log_start: Offset(8),
        ..Recovered::default()
    };
    let (log, _) = open(&disk.cut_power(&mut Dice::new(1)), &small(), recovered);
    assert_eq!((log.log_start(), log.log_end()), (Offset(8), Offset(20)));
    assert_eq!(log.epoch_end(LeaderEpoch(0)).end_offset, Offset(20));
}

/// A new start moves the epochs with it; a crash takes the start back where it was not durable yet, and the epochs stay moved.
#[test]
fn epochs_reach_back_to_where_the_log_begins() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &small());
    for n in 0..20 {
        append(&mut log, batch(&[&format!("value {n}")]), n);
    }
    // Within a segment: what begins it stays on the disk.
    log.set_log_start(Offset(10)).unwrap();
    let recovered = Recovered {
        recovery_point: checkpoint(&mut log),
        ..Recovered::default()
    };
    let (log, _) = open(&disk.cut_power(&mut Dice::new(1)), &small(), recovered);
    assert_eq!((log.log_start(), log.log_end()), (Offset(8), Offset(20)));
    log.verify().unwrap();
    assert_eq!(log.epoch_end(LeaderEpoch(8)).end_offset, Offset(9));
}

#[test]
fn a_truncated_log_goes_on_where_it_was_cut() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &small());
    for n in 0..20 {
        append(&mut log, idempotent(1, 0, n, &[&format!("value {n}")]), n / 8);
    }
    flush(&mut log);
    log.truncate_to(Offset(13)).unwrap().remove(&disk).unwrap();
    assert_eq!((log.log_end(), log.durable_end()), (Offset(13), Offset(13)));
    assert_eq!(log.last_epoch(), Some(LeaderEpoch(1)));
    assert_eq!(values(&log).len(), 13);
    append(&mut log, idempotent(1, 0, 13, &["another"]), 5);
    assert_eq!(values(&log)[13], "another");
    let image = disk.cut_power(&mut Dice::new(3));
    let (log, _) = open(&image, &small(), Recovered::default());
    assert!(log.log_end() == Offset(13) || log.log_end() == Offset(14));
    assert_eq!(log.epoch_end(LeaderEpoch(1)).end_offset.get(), 13);

    let mut log = log;
    log.truncate_fully_and_start_at(Offset(100), &[]).unwrap();
    assert_eq!(
        (log.log_start(), log.log_end(), log.last_epoch()),
        (Offset(100), Offset(100), None)
    );
    append(&mut log, batch(&["at 100"]), 7);
    assert_eq!(values(&log), ["at 100"]);
}

/// What its leader has deleted, a producer may send again to whoever leads next.
#[test]
fn a_follower_that_starts_over_knows_the_producers_of_what_is_deleted() {
    let disk = PowerDisk::new();
    let mut leader = create(&disk, &small());
    for n in 0..20 {
        let value = format!("value {n}");
        append(&mut leader, idempotent(i64::from(n % 3), 0, n / 3, &[&value]), 0);
    }
    flush(&mut leader);
    leader.set_log_start(Offset(18)).unwrap();
    let told = leader.producers_below(Offset(18));

    let disk = PowerDisk::new();
    let mut follower = create(&disk, &small());
    append(
        &mut follower,
        idempotent(7, 0, 0, &["what nobody has committed"]),
        0,
    );
    flush(&mut follower);
    // The process may die when what it was told lies there, and the log does not begin anew yet.
    let halfway = disk.fork();
    halfway.put(&dir().join("00000000000000000018.snapshot"), told.clone());
    halfway.put(&dir().join("00000000000000000009.snapshot"), told.clone());
    let at_18 = Recovered {
        log_start: Offset(18),
        recovery_point: Offset(0),
        ..Recovered::default()
    };
    let (mut interrupted, _) = open(&halfway, &small(), at_18);
    let left: Vec<_> = halfway.files().into_keys().collect();
    let is_of_18 = |path: &&std::path::PathBuf| path.to_string_lossy().contains("/00000000000000000018.");
    let numbered = left
        .iter()
        .filter(|path| path.to_string_lossy().contains("/0000"));
    assert!(numbered.clone().all(|path| is_of_18(&path)), "{left:?}");
    assert_eq!(numbered.count(), 4);

    follower.truncate_fully_and_start_at(Offset(18), &told).unwrap();
    let copied = |log: &mut Log| {
        for batch in read_batches(&leader, Offset(18)) {
            log.append_as_follower(batch.bytes, WallMs(0)).unwrap();
        }
        flush(log);
    };
    let known = |log: &Log| log.remembered().collect::<Vec<_>>();
    let image = disk.cut_power(&mut Dice::new(3));
    let (mut recovered, _) = open(
        &image,
        &small(),
        Recovered {
            log_start: Offset(18),
            recovery_point: Offset(18),
            ..Recovered::default()
        },
    );
    for log in [&mut follower, &mut recovered, &mut interrupted] {
        copied(log);
        assert_eq!(known(log), known(&leader));
        let appended = append(log, idempotent(2, 0, 5, &["value 17"]), 1);
        assert!(
            matches!(appended, Appended::Duplicate { base: Offset(17), .. }),
            "{appended:?}"
        );
        log.verify().unwrap();
    }
    // Whatever a peer sends, it is nobody's end.
    for bytes in [
        &told[..told.len() - 1],
        &leader.producers_below(Offset(20)),
        b"no snapshot",
    ] {
        follower.truncate_fully_and_start_at(Offset(9), bytes).unwrap();
        assert!(
            follower
                .remembered()
                .all(|(_, batches)| batches.iter().all(|batch| batch.last_offset < Offset(9)))
        );
        follower.verify().unwrap();
    }
}

#[test]
fn times_lead_to_records() {
    let disk = PowerDisk::new();
    let mut log = filled(&disk, &small(), 40);
    let at = |log: &Log, query| {
        log.plan_timestamp_lookup(query, log.log_end())
            .unwrap()
            .run()
            .unwrap()
    };
    for n in 0..40 {
        for time in [1000 * n, 1000 * n - 999] {
            let found = at(&log, TimestampQuery::At(WallMs(time)));
            assert_eq!(
                found,
                Some((Offset(n), WallMs(1000 * n), LeaderEpoch(0))),
                "{time}"
            );
        }
    }
    assert_eq!(at(&log, TimestampQuery::At(WallMs(39_001))), None);
    assert_eq!(
        at(&log, TimestampQuery::Max),
        Some((Offset(39), WallMs(39_000), LeaderEpoch(0)))
    );
    let hidden = log
        .plan_timestamp_lookup(TimestampQuery::At(WallMs(20_000)), Offset(20))
        .unwrap()
        .run()
        .unwrap();
    assert_eq!(hidden, None, "at the bound");
    log.set_log_start(Offset(5)).unwrap();
    assert_eq!(at(&log, TimestampQuery::At(WallMs(0))).unwrap().0, Offset(5));
    // Within one batch, and after an earlier time.
    let mut builder = skerry_log::batch::BatchBuilder::new(skerry_log::batch::Compression::Lz4);
    for time in [50_000, 60_000, 55_000] {
        builder.push(WallMs(time), None, None, &[]);
    }
    append(&mut log, builder.build(), 1);
    assert_eq!(
        at(&log, TimestampQuery::At(WallMs(50_001))),
        Some((Offset(41), WallMs(60_000), LeaderEpoch(1)))
    );
    assert_eq!(
        at(&log, TimestampQuery::Max),
        Some((Offset(41), WallMs(60_000), LeaderEpoch(1)))
    );
    log.close().unwrap();
    let recovered = Recovered {
        log_start: Offset(5),
        recovery_point: Offset(43),
        cleaned_until: None,
    };
    let (log, _) = try_open(&disk, &small(), Shutdown::Clean, recovered).unwrap();
    assert_eq!(
        at(&log, TimestampQuery::At(WallMs(50_001))).unwrap().0,
        Offset(41)
    );
    assert_eq!(
        at(&log, TimestampQuery::At(WallMs(17_000))).unwrap().0,
        Offset(17)
    );
}

fn try_append(log: &mut Log, value: &str) -> Result<skerry_log::Appended, AppendError> {
    log.append_as_leader(
        ValidBatch::internal(batch(&[value])).unwrap(),
        LeaderEpoch(0),
        NOW,
    )
}

#[test]
fn a_full_disk_can_be_waited_out() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &small());
    append(&mut log, batch(&["a"]), 0);
    for room in [0, 1, 61, 65] {
        disk.set_room(Some(room));
        assert!(
            matches!(try_append(&mut log, "b"), Err(AppendError::DiskFull)),
            "{room}"
        );
        let len = disk.read(&dir().join("00000000000000000000.log")).unwrap().len();
        assert_eq!(len as u64, log.size_bytes(), "cut back");
    }
    disk.set_room(None);
    try_append(&mut log, "c").unwrap();
    // A roll without room, several times.
    for n in 0..30 {
        disk.set_room(Some(n * 7));
        let _ = try_append(&mut log, "some more");
        disk.set_room(None);
        try_append(&mut log, "room again").unwrap();
    }
    flush(&mut log);
    assert!(log.poisoned().is_none());
    let expected = values(&log);
    let (again, _) = open(
        &disk,
        &small(),
        Recovered {
            recovery_point: log.log_end(),
            ..Recovered::default()
        },
    );
    assert_eq!(values(&again), expected);
}

#[test]
fn deletion_goes_on_while_the_disk_is_full() {
    let disk = PowerDisk::new();
    let config = LogConfig {
        retention_ms: Some(10_000),
        ..small()
    };
    let mut log = filled(&disk, &config, 40);
    disk.set_room(Some(0));
    let retired = log.apply_retention(Offset(40), WallMs(1_000_000)).unwrap();
    assert_eq!(
        (retired.segments, log.segment_count()),
        (12, 1),
        "but for the active one"
    );
    disk.set_room(None);
    assert_eq!(
        log.apply_retention(Offset(40), WallMs(1_000_000))
            .unwrap()
            .segments,
        1
    );
    assert_eq!(log.log_start(), Offset(40));
}

#[test]
fn a_failed_sync_is_final() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &small());
    append(&mut log, batch(&["a"]), 0);
    flush(&mut log);
    append(&mut log, batch(&["b"]), 0);
    disk.fail_syncs(true);
    let job = log.start_flush().unwrap();
    let result = job.run();
    assert!(log.finish_flush(job, result).is_err());
    disk.fail_syncs(false);
    assert!(log.start_flush().is_none(), "no retry");
    assert!(matches!(try_append(&mut log, "c"), Err(AppendError::Poisoned(_))));
    assert!(log.close().is_err());
    assert_eq!(log.durable_end(), Offset(1));
    assert_eq!(values(&log), ["a", "b"], "reading goes on");
    assert!(log.poisoned().unwrap().contains("sync"));
}

#[test]
fn a_failed_write_is_final() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &small());
    disk.fail_writes(true);
    assert!(matches!(try_append(&mut log, "a"), Err(AppendError::Poisoned(_))));
    disk.fail_writes(false);
    assert!(matches!(try_append(&mut log, "a"), Err(AppendError::Poisoned(_))));
}

#[test]
fn the_first_start_is_durable() {
    for seed in 0..50 {
        let disk = PowerDisk::new();
        create(&disk, &small());
        let image = disk.cut_power(&mut Dice::new(seed));
        let (log, _) = open(&image, &small(), Recovered::default());
        assert_eq!(log.log_end(), Offset(0));
    }
}

#[test]
fn a_directory_of_another_topic_is_refused() {
    let disk = PowerDisk::new();
    create(&disk, &small());
    assert!(matches!(
        Log::create(&files(&disk), dir(), identity(), small()),
        Err(OpenError::Exists(_))
    ));
    let mut other = identity();
    other.topic_id = skerry_types::TopicId::from_random([6; 16]);
    let opened = Log::open(
        &files(&disk),
        dir(),
        Some(other),
        small(),
        Shutdown::Clean,
        Recovered::default(),
        NOW,
    );
    assert!(matches!(opened, Err(OpenError::WrongIdentity { .. })));
    let (log, _) = Log::open(
        &files(&disk),
        dir(),
        None,
        small(),
        Shutdown::Clean,
        Recovered::default(),
        NOW,
    )
    .unwrap();
    assert_eq!(log.identity(), &identity());
}

#[test]
fn files_are_open_only_while_they_are_used() {
    let disk = PowerDisk::new();
    let cache = FileCache::new(disk.dyn_disk(), 4);
    let mut log = Log::create(&cache, dir(), identity(), small()).unwrap();
    for n in 0..60 {
        append(&mut log, batch(&[&format!("value {n}")]), 0);
        flush(&mut log);
    }
    assert_eq!(values(&log).len(), 60);
    assert!(cache.open_count() <= 4);
    log.close().unwrap();
    assert_eq!(cache.open_count(), 0);
}

#[test]
fn an_idle_log_is_small() {
    // The rest is one segment and the names: well within the 16 KB of DESIGN.md section 10.
    assert!(size_of::<Log>() <= 1024, "{}", size_of::<Log>());
}

/// A follower in sync starts over at its own end where its leader has deleted everything. A power cut in the middle of
/// that must not take its end back: it would be elected, and give the offsets away a second time.
#[test]
fn a_log_that_starts_over_at_its_end_never_ends_earlier() {
    for changes in 0..40 {
        for seed in 0..20 {
            let disk = PowerDisk::new();
            let mut log = filled(&disk, &small(), 9);
            let end = flush(&mut log);
            disk.stop_after(changes);
            let _ = log.truncate_fully_and_start_at(end, &[]);
            let disk = disk.cut_power(&mut Dice::new(seed));
            disk.resume();
            let (log, _) = open(&disk, &small(), Recovered::default());
            assert_eq!(log.log_end(), end, "after {changes} changes, seed {seed}");
        }
    }
}

/// Found by seed 3044 of any size, 60 s: a cut met a batch that had rotted, and the log went offline with an epoch that began
/// at its end.
#[test]
fn a_cut_that_fails_claims_no_epoch_that_is_not_there() {
    for changes in [0, 1, 20] {
        let disk = PowerDisk::new();
        let mut log = create(&disk, &small());
        for n in 0..9 {
            append(&mut log, idempotent(1, 0, n, &[&format!("value {n}")]), n / 3);
        }
        flush(&mut log);
        disk.stop_after(changes);
        disk.fail_syncs(true);
        assert!(log.truncate_to(Offset(3)).is_err());
        let last = i32::try_from(log.log_end().get() - 1).unwrap();
        assert_eq!(log.last_epoch(), Some(LeaderEpoch(last / 3)), "{changes}");
    }
}

/// Found by seed 245 of three nodes: a follower's disk failed in the middle of a cut, and the log took more for durable
/// than it had.
#[test]
fn a_cut_that_fails_claims_nothing_that_is_not_there() {
    for (to, changes) in [(3, 0), (3, 1), (3, 20), (8, 20), (0, 0), (0, 1)] {
        let disk = PowerDisk::new();
        let mut log = filled(&disk, &small(), 9);
        disk.stop_after(changes);
        disk.fail_syncs(true);
        assert!(log.truncate_to(Offset(to)).is_err());
        assert!(log.durable_end() <= log.log_end(), "{to}, {changes}");
        assert!(log.recovery_point() <= log.durable_end(), "{to}, {changes}");

        let disk = PowerDisk::new();
        let mut log = filled(&disk, &small(), 9);
        disk.stop_after(changes);
        disk.fail_syncs(true);
        assert!(log.truncate_fully_and_start_at(Offset(to), &[]).is_err());
        assert_eq!((log.log_start(), log.log_end()), (Offset(to), Offset(to)));
        assert!(log.durable_end() <= log.log_end(), "{to}, {changes}");
        assert!(log.segment_count() > 0, "{to}, {changes}");
    }
}

/// DeleteRecords sets a leader's start anywhere in a batch, and a reader gets whole batches.
#[test]
fn a_follower_that_begins_within_a_batch_takes_all_of_it() {
    let leader_disk = PowerDisk::new();
    let mut leader = create(&leader_disk, &small());
    append(&mut leader, batch(&["a", "b", "c", "d"]), 3);
    append(&mut leader, batch(&["e"]), 3);
    leader.set_log_start(Offset(2)).unwrap();
    let given = leader.plan_read(Offset(2), Offset(5), 5_000, true).unwrap();
    let given = given.run().unwrap();

    let disk = PowerDisk::new();
    let mut follower = create(&disk, &small());
    follower.truncate_fully_and_start_at(Offset(2), &[]).unwrap();
    assert_eq!(follower.append_as_follower(given, NOW).unwrap(), Offset(5));
    assert_eq!((follower.log_start(), follower.log_end()), (Offset(2), Offset(5)));
    follower.check();
    flush(&mut follower);
    let recovered = Recovered {
        log_start: Offset(2),
        ..Recovered::default()
    };
    let (follower, _) = open(&disk.cut_power(&mut Dice::new(1)), &small(), recovered);
    assert_eq!((follower.log_start(), follower.log_end()), (Offset(2), Offset(5)));
    assert_eq!(values(&follower), values(&leader));
}

/// Found by seed 293 of three nodes: the high watermark that it knew lay beyond the log all at once.
#[test]
fn a_disk_that_fails_there_moves_no_end() {
    let leader_disk = PowerDisk::new();
    let mut leader = create(&leader_disk, &small());
    append(&mut leader, batch(&["a", "b", "c", "d"]), 3);
    leader.set_log_start(Offset(2)).unwrap();
    let given = leader.plan_read(Offset(2), Offset(4), 5_000, true).unwrap();
    let given = given.run().unwrap();
    for (what, changes) in [
        ("syncs", 100),
        ("names", 0),
        ("names", 1),
        ("names", 2),
        ("writes", 100),
    ] {
        let disk = PowerDisk::new();
        let mut follower = create(&disk, &small());
        follower.truncate_fully_and_start_at(Offset(2), &[]).unwrap();
        disk.fail_syncs(what == "syncs");
        disk.fail_writes(what == "writes");
        disk.stop_after(changes);
        assert!(follower.append_as_follower(given.clone(), NOW).is_err());
        assert_eq!(
            (follower.log_start(), follower.log_end()),
            (Offset(2), Offset(2)),
            "{what}"
        );
    }
}

#[test]
fn a_follower_takes_what_its_leader_gives() {
    let leader_disk = PowerDisk::new();
    let mut leader = create(&leader_disk, &small());
    for n in 0..20 {
        append(&mut leader, batch(&[&format!("value {n}"), "x"]), n / 7);
    }
    let disk = PowerDisk::new();
    let mut follower = create(&disk, &LogConfig::default());
    while follower.log_end() < leader.log_end() {
        let plan = leader
            .plan_read(follower.log_end(), leader.log_end(), 500, true)
            .unwrap();
        let before = follower.log_end();
        assert!(follower.append_as_follower(plan.run().unwrap(), NOW).unwrap() > before);
    }
    assert_eq!(values(&follower), values(&leader));
    assert_eq!(
        follower.epoch_end(LeaderEpoch(1)),
        leader.epoch_end(LeaderEpoch(1))
    );
    let again = leader
        .plan_read(Offset(0), Offset(2), 500, true)
        .unwrap()
        .run()
        .unwrap();
    assert!(matches!(
        follower.append_as_follower(again.clone(), NOW),
        Err(AppendError::UnexpectedOffset { .. })
    ));
    let mut broken = again.to_vec();
    broken[3] = 1;
    broken[80] ^= 1;
    assert!(matches!(
        follower.append_as_follower(broken.into(), NOW),
        Err(AppendError::Corrupt(_))
    ));
    assert!(matches!(
        follower.append_as_follower(batch(&["x"]).slice(..50), NOW),
        Err(AppendError::Corrupt(_))
    ));
    follower.check();
}

#[test]
fn a_job_of_a_log_that_was_set_aside_proves_nothing_of_its_successor() {
    let disk = PowerDisk::new();
    let cache = files(&disk);
    let make = |dir: &str| Log::create(&cache, dir.into(), identity(), small()).unwrap();
    let mut old = make("/data/orders-0");
    append(&mut old, batch(&["one", "two"]), 0);
    let (flush, checkpoint) = (old.start_flush().unwrap(), old.start_checkpoint().unwrap());
    drop(old);
    let mut new = make("/data/orders-1");
    append(&mut new, batch(&["one", "two"]), 0);
    let failed = || Err(std::io::Error::other("the old files are gone"));
    assert_eq!(new.finish_flush(flush, Ok(())).unwrap(), Offset(0));
    assert_eq!(new.finish_checkpoint(checkpoint, failed()).unwrap(), Offset(0));
    assert_eq!((new.durable_end(), new.poisoned()), (Offset(0), None));
    assert_eq!(support::flush(&mut new), Offset(2));
}
