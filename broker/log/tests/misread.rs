//! A read that returns one wrong bit, and the right ones when it is done again: whatever the log does then, it does as if
//! nothing had happened. Each read of records is the one that goes wrong, in turn.

mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;

use skerry_log::{Log, LogConfig, Recovered, Shutdown};
use skerry_types::{LeaderEpoch, Offset};
use support::*;

const BATCHES: i32 = 24;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 1500,
        index_interval_bytes: 300,
        ..LogConfig::default()
    }
}

/// Several segments, three leader epochs, a producer; the first half is below the recovery point.
fn sample(close: bool) -> (PowerDisk, Recovered) {
    let disk = PowerDisk::new();
    let mut log = create(&disk, &config());
    for n in 0..BATCHES {
        let value = format!("{n}").repeat(20);
        let bytes = if n % 2 == 0 {
            idempotent(7, 0, n / 2, &[&value])
        } else {
            batch(&[&value, &value, &value])
        };
        append(&mut log, bytes, n / 8);
        if n == BATCHES / 2 {
            flush(&mut log);
            checkpoint(&mut log);
        }
    }
    flush(&mut log);
    if close {
        log.close().unwrap();
    }
    let recovered = Recovered {
        recovery_point: log.recovery_point(),
        ..Recovered::default()
    };
    (disk, recovered)
}

/// What anybody can see of a log.
fn seen(log: &Log) -> String {
    let epochs: Vec<(LeaderEpoch, Offset)> = log.epoch_starts().collect();
    let remembered: Vec<_> = log.remembered().collect();
    let ends = (log.log_start(), log.log_end(), log.durable_end());
    format!("{ends:?} {epochs:?} {remembered:?} {:?}", values(log))
}

/// Does it with no read that goes wrong, then with the first, the second, … until there are no more; gives how many.
fn same_whichever_goes_wrong(disk: &PowerDisk, what: &str, run: impl Fn(&PowerDisk) -> Log) -> u64 {
    let good = disk.fork();
    let expected = seen(&run(&good));
    let mut reads = 0;
    for bit in [
        Misread::Any,
        Misread::LastOffset(0),
        Misread::LastOffset(2),
        Misread::LastOffset(31),
    ] {
        for number in 0.. {
            let bad = disk.fork();
            bad.misread_in(number, bit);
            let log = run(&bad);
            if bad.misreads() == 0 {
                reads = number.max(reads);
                break;
            }
            let what = format!("{what}, read {number} goes wrong ({bit:?})");
            assert_eq!(seen(&log), expected, "{what}");
            assert!(
                records(&bad) == records(&good),
                "{what}, and other records are left"
            );
            log.verify().unwrap();
        }
    }
    reads
}

/// The files of records.
fn records(disk: &PowerDisk) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = disk.files();
    files.retain(|path, _| path.extension().is_some_and(|extension| extension == "log"));
    files
}

#[test]
fn one_misread_changes_nothing_when_a_log_is_opened() {
    for shutdown in [Shutdown::Clean, Shutdown::Unclean] {
        for lost in [
            "nothing",
            "leader-epoch-checkpoint",
            ".index",
            ".timeindex",
            ".snapshot",
        ] {
            let (disk, recovered) = sample(shutdown == Shutdown::Clean);
            for (path, _) in disk.files() {
                if path.to_string_lossy().ends_with(lost) {
                    disk.dyn_disk().remove_file(&path).unwrap();
                }
            }
            let open = |disk: &PowerDisk| try_open(disk, &config(), shutdown, recovered).unwrap().0;
            let what = format!("{shutdown:?}, without {lost}");
            let reads = same_whichever_goes_wrong(&disk, &what, open);
            assert!(reads > 1, "{what}: {reads} reads");
        }
    }
}

#[test]
fn one_misread_changes_nothing_when_a_log_is_cut() {
    let (disk, recovered) = sample(true);
    let (log, _) = try_open(&disk.fork(), &config(), Shutdown::Clean, recovered).unwrap();
    for offset in 1..log.log_end().get() {
        let cut = |disk: &PowerDisk| {
            let (mut log, _) = try_open(disk, &config(), Shutdown::Clean, recovered).unwrap();
            log.truncate_to(Offset(offset)).unwrap();
            log
        };
        let reads = same_whichever_goes_wrong(&disk, &format!("cut at {offset}"), cut);
        assert!(reads > 1, "cut at {offset}: {reads} reads");
    }
}

#[test]
fn one_misread_changes_nothing_for_who_reads_with_sums() {
    let (disk, recovered) = sample(true);
    let (log, _) = try_open(&disk, &config(), Shutdown::Clean, recovered).unwrap();
    for from in 0..log.log_end().get() {
        let read = || {
            let plan = log.plan_read(Offset(from), log.log_end(), 1, true).unwrap();
            plan.run_checked().unwrap()
        };
        let expected = read();
        disk.misread_in(0, Misread::Any);
        assert!(read() == expected, "from {from}");
        assert_eq!(disk.misreads(), 1);
    }
}
