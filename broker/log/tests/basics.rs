//! Appending, reading, syncing, opening again.

mod support;

use skerry_log::{Appended, LogConfig, OpenError, ReadError, Recovered, Shutdown};
use skerry_types::{LeaderEpoch, Offset};
use support::*;

fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 400,
        index_interval_bytes: 100,
        ..LogConfig::default()
    }
}

#[test]
fn what_is_appended_can_be_read_and_is_durable_only_after_a_flush() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &LogConfig::default());
    let appended = append(&mut log, batch(&["a", "b"]), 0);
    assert!(matches!(
        appended,
        Appended::New {
            base: Offset(0),
            last: Offset(1),
            ..
        }
    ));
    append(&mut log, batch(&["c"]), 0);
    assert_eq!((log.log_end(), log.durable_end()), (Offset(3), Offset(0)));
    assert_eq!(values(&log), ["a", "b", "c"]);
    let job = log.start_flush().expect("something to flush");
    append(&mut log, batch(&["d"]), 1);
    let result = job.run();
    assert_eq!(
        log.finish_flush(job, result),
        Ok(Offset(3)),
        "what came later is not covered"
    );
    assert_eq!(flush(&mut log), Offset(4));
    assert!(log.start_flush().is_none());
    assert_eq!(log.epoch_end(LeaderEpoch(0)).end_offset, Offset(3));
    assert_eq!(log.epoch_at(Offset(3)), Some(LeaderEpoch(1)));
}

#[test]
fn segments_roll_and_reads_cross_them() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &small());
    let expected: Vec<String> = (0..100).map(|n| format!("value {n}")).collect();
    for value in &expected {
        append(&mut log, batch(&[value]), 0);
    }
    assert!(log.segment_count() > 10, "{}", log.segment_count());
    assert_eq!(values(&log), expected);
    for from in 0..100 {
        assert_eq!(read_records(&log, Offset(from))[0].offset, Offset(from));
    }
    let plan = log.plan_read(Offset(10), Offset(12), u32::MAX, true).unwrap();
    assert_eq!(plan.run().unwrap(), plan.run_cached().unwrap().unwrap());
    assert!(
        log.plan_read(Offset(100), Offset(100), 1, true)
            .unwrap()
            .is_empty()
    );
    assert!(matches!(
        log.plan_read(Offset(101), Offset(101), 1, true),
        Err(ReadError::OutOfRange { .. })
    ));
    let none = log
        .plan_read(Offset(0), Offset(100), 10, false)
        .unwrap()
        .run()
        .unwrap();
    assert!(none.is_empty(), "the first batch is larger than 10 bytes");
}

#[test]
fn a_clean_shutdown_walks_nothing_and_a_crash_walks_the_tail() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &small());
    for n in 0..50 {
        append(&mut log, batch(&[&format!("value {n}")]), n / 20);
    }
    flush(&mut log);
    let before = values(&log);
    let recovery_point = checkpoint(&mut log);
    assert_eq!(recovery_point, Offset(50));
    for n in 50..55 {
        append(&mut log, batch(&[&format!("value {n}")]), 3);
    }
    let recovered = Recovered {
        recovery_point,
        ..Recovered::default()
    };
    let (crashed, report) = open(&disk.fork(), &small(), recovered);
    assert_eq!(values(&crashed), values(&log));
    assert!(report.walked_bytes < 1200, "{report:?}");
    assert_eq!(report.cut, None);
    assert_eq!(crashed.epoch_end(LeaderEpoch(1)), log.epoch_end(LeaderEpoch(1)));

    log.close().unwrap();
    let recovered = Recovered {
        recovery_point: log.recovery_point(),
        ..Recovered::default()
    };
    let (closed, report) = try_open(&disk, &small(), Shutdown::Clean, recovered).unwrap();
    assert_eq!(closed.log_end(), Offset(55));
    assert!(report.walked_bytes < 400, "{report:?}");
    assert_eq!(values(&closed)[..50], before);
}

#[test]
fn damage_below_the_recovery_point_changes_nothing_and_above_it_is_cut() {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &LogConfig::default());
    for n in 0..20 {
        append(&mut log, batch(&[&format!("value {n}")]), 0);
    }
    flush(&mut log);
    let path = dir().join("00000000000000000000.log");
    let mut bytes = disk.read(&path).unwrap();
    let at = bytes.len() / 2 + 30;
    bytes[at] ^= 0x40;
    disk.put(&path, bytes);
    let changes = disk.changes();
    let recovered = Recovered {
        recovery_point: Offset(20),
        ..Recovered::default()
    };
    match try_open(&disk, &LogConfig::default(), Shutdown::Unclean, recovered) {
        Err(OpenError::Damaged {
            segment: Offset(0),
            offset,
            ..
        }) => assert_eq!(offset, Offset(10)),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the damage was not seen"),
    }
    assert_eq!(disk.changes(), changes, "the disk was changed");

    let recovered = Recovered {
        recovery_point: Offset(10),
        ..Recovered::default()
    };
    let (log, report) = open(&disk, &LogConfig::default(), recovered);
    assert_eq!(log.log_end(), Offset(10));
    let cut = report.cut.unwrap();
    assert_eq!(
        (cut.offset, cut.evidence.len()),
        (Offset(10), 1),
        "whole batches were behind it"
    );
    assert!(disk.read(&cut.evidence[0]).is_some());
}
