//! Bytes flipped and files cut anywhere: never a panic, never a silent loss of what was durable, and what is read is
//! what was written.

mod support;

use std::path::PathBuf;

use bytes::Bytes;
use proptest::prelude::*;
use skerry_log::batch::{
    BatchBuilder, Batches, Compression, Header, MarkerType, Records, control_marker, end_transaction_marker,
};
use skerry_log::{
    DumpOptions, Log, LogConfig, OpenError, Recovered, Shutdown, TargetCompression, ValidBatch,
    ValidationRules,
};
use skerry_types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, ProducerIdentity, Sequence, WallMs};
use support::*;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 3000,
        index_interval_bytes: 300,
        ..LogConfig::default()
    }
}

/// A log with several segments, epochs, producers and transactions; its batches.
fn sample(seed: u64, close: bool) -> (PowerDisk, Vec<Bytes>, Offset) {
    let (disk, mut dice) = (PowerDisk::new(), Dice::new(seed));
    let mut log = create(&disk, &config());
    let mut batches = Vec::new();
    let who = |id| ProducerIdentity {
        id: ProducerId(id),
        epoch: ProducerEpoch(0),
    };
    let mut point = Offset(0);
    for n in 0..60i32 {
        let bytes = match n % 6 {
            0 => {
                let mut builder = BatchBuilder::default().producer(who(7), Sequence(n / 6));
                builder.push(WallMs(NOW.get() + i64::from(n)), None, Some(b"idempotent"), &[]);
                builder.build()
            }
            2 => {
                let mut builder = BatchBuilder::default()
                    .producer(who(8), Sequence(n / 6))
                    .transactional();
                builder.push(
                    WallMs(NOW.get() + i64::from(n)),
                    None,
                    Some(b"transactional"),
                    &[],
                );
                builder.build()
            }
            4 => end_transaction_marker(who(8), MarkerType::Abort, 0, NOW),
            _ => {
                let mut builder = BatchBuilder::default();
                for _ in 0..=dice.below(3) {
                    let value = vec![dice.next() as u8; dice.below(200) as usize];
                    builder.push(
                        WallMs(NOW.get() + dice.below(1000) as i64),
                        None,
                        Some(&value),
                        &[],
                    );
                }
                builder.build()
            }
        };
        let batch = ValidBatch::internal(bytes).unwrap();
        let epoch = LeaderEpoch(n / 15);
        batches.push(batch.to_bytes(log.log_end(), epoch));
        log.append_as_leader(batch, epoch, NOW).unwrap();
        if n == 40 {
            flush(&mut log);
            point = checkpoint(&mut log);
        }
    }
    flush(&mut log);
    if close {
        log.close().unwrap();
        point = log.recovery_point();
    }
    (disk, batches, point)
}

/// Reads all of a log; false where something was seen to be wrong.
fn read_all(log: &Log, found: &mut Vec<Bytes>) -> bool {
    let mut next = log.log_start();
    while next < log.log_end() {
        let Ok(plan) = log.plan_read(next, log.log_end(), 700, true) else {
            return false;
        };
        let Ok(bytes) = plan.run() else { return false };
        let mut any = false;
        for batch in Batches::new(bytes) {
            if !batch.crc_is_good() {
                return false;
            }
            any = true;
            next = batch.header.next_offset();
            found.push(batch.bytes);
        }
        if !any {
            return false;
        }
    }
    true
}

/// Bytes of a batch that neither its sum nor the order of offsets covers: the leader epoch. Everything else is.
fn is_epoch_byte(batches: &[Bytes], file: &[u8], at: usize) -> bool {
    batches.iter().any(|batch| {
        file.windows(batch.len())
            .position(|window| window == &batch[..])
            .is_some_and(|p| (p + 12..p + 16).contains(&at))
    })
}

fn judge(disk: &PowerDisk, batches: &[Bytes], shutdown: Shutdown, point: Offset) {
    let before = disk.files();
    let recovered = Recovered {
        recovery_point: point,
        ..Recovered::default()
    };
    let (log, report) = match try_open(disk, &config(), shutdown, recovered) {
        Ok(opened) => opened,
        Err(OpenError::Damaged { .. } | OpenError::WrongIdentity { .. } | OpenError::Io { .. }) => {
            assert_eq!(disk.files(), before, "a log that cannot be opened stays as it is");
            return;
        }
        Err(other) => panic!("{other}"),
    };
    let mut found = Vec::new();
    let clean = read_all(&log, &mut found);
    assert_eq!(
        &found[..],
        &batches[..found.len()],
        "what is read is what was written"
    );
    let end = Batches::new(found.concat().into())
        .last()
        .map_or(Offset(0), |batch| batch.header.next_offset());
    if clean {
        assert!(
            end >= point,
            "durable up to {point}, found {end}, and nobody said so: {report:?}"
        );
    }
    assert!(log.log_end() >= point);
    // It goes on from there.
    let mut log = log;
    append(&mut log, batch(&["after"]), 9);
    flush(&mut log);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(600), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_byte_is_never_a_silent_loss(
        seed in 0u64..8, file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        bit in 0u32..8, close in any::<bool>(), whole in any::<bool>(),
    ) {
        plant_from_env();
        let (disk, batches, point) = sample(seed, close);
        let files: Vec<(PathBuf, Vec<u8>)> = disk.files().into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
        let (path, bytes) = file.get(&files);
        let at = at.index(bytes.len());
        let is_log = path.extension().is_some_and(|extension| extension == "log");
        prop_assume!(!(is_log && is_epoch_byte(&batches, bytes, at)));
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        disk.put(path, damaged);
        let shutdown = if close { Shutdown::Clean } else { Shutdown::Unclean };
        judge(&disk, &batches, shutdown, if whole { point } else { Offset(0) });
    }

    #[test]
    fn a_checked_read_finds_a_flipped_bit_and_finds_it_again(
        seed in 0u64..8, file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), bit in 0u32..8,
        max_bytes in 1u32..2000,
    ) {
        let (disk, batches, point) = sample(seed, true);
        let (mut log, _) = try_open(&disk, &config(), Shutdown::Clean, Recovered { recovery_point: point, ..Recovered::default() }).unwrap();
        let is_log = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "log");
        let files: Vec<(PathBuf, Vec<u8>)> = disk.files().into_iter().filter(|(path, bytes)| is_log(path) && !bytes.is_empty()).collect();
        let (path, bytes) = file.get(&files);
        let at = at.index(bytes.len());
        prop_assume!(!is_epoch_byte(&batches, bytes, at));
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << bit;
        disk.put(path, damaged);
        log.forget_files();
        let read = |from: Offset| log.plan_read(from, log.log_end(), max_bytes, true).unwrap().run_checked();
        let (mut next, mut found) = (log.log_start(), Vec::new());
        let error = loop {
            prop_assert!(next < log.log_end(), "nobody has seen the bit");
            match read(next) {
                Ok(bytes) => {
                    prop_assert!(!bytes.is_empty(), "a reader waits for ever at {}", next);
                    found.extend(Batches::new(bytes));
                }
                Err(error) => break error,
            }
            next = found.last().unwrap().header.next_offset();
        };
        let found: Vec<Bytes> = found.into_iter().map(|batch| batch.bytes).collect();
        prop_assert_eq!(&found[..], &batches[..found.len()], "what is read is what was written");
        prop_assert!(error.is_damage(), "{}", error);
        // Whoever is told of the place finds the same there.
        let place = error.offset().unwrap();
        prop_assert!(place >= next);
        prop_assert_eq!(read(place).unwrap_err().to_string(), error.to_string());
    }

    #[test]
    fn a_cut_file_is_never_a_silent_loss(
        seed in 0u64..8, file in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(),
        close in any::<bool>(), zeros in 0usize..100, gone in any::<bool>(),
    ) {
        let (disk, batches, point) = sample(seed, close);
        let files: Vec<(PathBuf, Vec<u8>)> = disk.files().into_iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
        let (path, bytes) = file.get(&files);
        if gone && path.extension().is_none_or(|extension| extension != "log") {
            use skerry_env::disk::Disk as _;
            disk.remove_file(path).unwrap();
        } else {
            let mut cut = bytes[..at.index(bytes.len())].to_vec();
            cut.extend(vec![0; zeros]);
            disk.put(path, cut);
        }
        judge(&disk, &batches, Shutdown::Unclean, point);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(2000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_of_a_client_or_a_file_make_us_panic(
        codec in 0u8..5, flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        reseal in any::<bool>(), cut in any::<prop::sample::Index>(), tail in prop::collection::vec(any::<u8>(), 0..40),
        name in prop::sample::select(vec![".log", ".index", ".timeindex", ".txnindex", ".snapshot"]),
    ) {
        let codecs = [Compression::None, Compression::Gzip(1), Compression::Snappy, Compression::Lz4, Compression::Zstd(1)];
        let mut builder = BatchBuilder::new(codecs[usize::from(codec)]);
        for n in 0..20u8 {
            let headers = [Header { key: "name".into(), value: None }];
            builder.push(WallMs(NOW.get() + i64::from(n)), Some(&[n]), Some(&[n; 30]), &headers[..usize::from(n % 2)]);
        }
        let mut bytes = builder.build().to_vec();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if reseal {
            let crc = crc32c::crc32c(&bytes[21..]);
            bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        bytes.extend(tail);
        let rules = config().validation_rules(NOW, true);
        let _ = ValidBatch::parse(bytes.clone().into(), &rules);
        let repack = ValidationRules { compression: TargetCompression::Lz4(1), ..rules };
        let _ = ValidBatch::parse(bytes.clone().into(), &repack);
        for batch in Batches::new(bytes.clone().into()) {
            let _ = Records::all(&batch);
            let _ = control_marker(&batch);
        }
        let disk = PowerDisk::new();
        let path = dir().join(format!("00000000000000000000{name}"));
        disk.put(&path, bytes);
        for json in [false, true] {
            let options = DumpOptions { records: true, payloads: true, json };
            let _ = skerry_log::dump(&disk, &path, &mut Vec::new(), options);
        }
        disk.put(&dir().join("partition.metadata"), format!("version: 0\ntopic_id: {}", identity().topic_id).into());
        let _ = try_open(&disk, &config(), Shutdown::Unclean, Recovered::default());
    }
}

/// The checkpoint of leader epochs does not fit, and the log from which it would be made again is damaged below the recovery
/// point, where the walk does not look: epochs that are left out would cut followers at the wrong place. The log does not
/// open, and stays as it is.
#[test]
fn leader_epochs_are_not_rebuilt_without_what_damage_hides() {
    let (disk, batches, point) = sample(3, false);
    let recovered = Recovered {
        recovery_point: point,
        ..Recovered::default()
    };
    let known: Vec<_> = {
        let (log, _) = try_open(&disk.fork(), &config(), Shutdown::Unclean, recovered).unwrap();
        log.epoch_starts().collect()
    };
    assert_eq!(known.len(), 4);
    disk.put(&dir().join("leader-epoch-checkpoint"), b"0\n0\n".to_vec());
    let (log, _) = try_open(&disk.fork(), &config(), Shutdown::Unclean, recovered).unwrap();
    assert_eq!(
        log.epoch_starts().collect::<Vec<_>>(),
        known,
        "rebuilt from the batches"
    );
    // The length of the second batch of the first segment: where its third one begins, nobody knows.
    let path = dir().join("00000000000000000000.log");
    let mut bytes = disk.read(&path).unwrap();
    bytes[batches[0].len() + 8] ^= 0x40;
    disk.put(&path, bytes);
    let before = disk.files();
    let opened = try_open(&disk, &config(), Shutdown::Unclean, recovered)
        .map(|(log, _)| log.epoch_starts().collect::<Vec<_>>());
    assert!(matches!(opened, Err(OpenError::Io { .. })), "{opened:?}");
    assert_eq!(disk.files(), before, "a log that cannot be opened stays as it is");
}

/// A disk that has lied of its syncs has lost the end of a sealed segment, at the border of a batch and within one. A start
/// says where, changes nothing, and opens what is before it for a person who gives the rest up.
#[test]
fn a_sealed_segment_that_is_short_is_damage() {
    for in_the_last_batch in [0, 30] {
        let (disk, batches, point) = sample(3, false);
        let recovered = Recovered {
            recovery_point: point,
            ..Recovered::default()
        };
        let path = dir().join("00000000000000000000.log");
        let bytes = disk.read(&path).unwrap();
        let last = Batches::new(bytes.clone().into()).last().unwrap();
        let (lost, end) = (last.header.base_offset(), last.header.next_offset());
        let left = bytes.len() - last.bytes.len() + in_the_last_batch;
        disk.put(&path, bytes[..left].to_vec());
        let before = disk.files();
        let opened = try_open(&disk, &config(), Shutdown::Unclean, recovered).map(|(log, _)| log.log_end());
        let Err(OpenError::Damaged {
            segment, offset, why, ..
        }) = opened
        else {
            panic!("{opened:?}");
        };
        assert_eq!((segment, offset), (Offset(0), lost));
        assert_eq!(
            why,
            match in_the_last_batch {
                0 => format!("offsets {lost} to {end} are missing between two segments"),
                _ => "30 bytes are too few for a batch".to_owned(),
            }
        );
        assert_eq!(disk.files(), before, "a log that cannot be opened stays as it is");
        let (log, report) = try_open(&disk, &config(), Shutdown::Unclean, Recovered::default()).unwrap();
        assert_eq!(log.log_end(), lost);
        assert!(report.cut.is_some());
        let mut found = Vec::new();
        assert!(read_all(&log, &mut found));
        assert_eq!(found[..], batches[..found.len()]);
    }
}

#[test]
fn the_planted_bug_is_found() {
    assert!(finds(
        "a_flipped_byte_is_never_a_silent_loss",
        "recovery-truncates-rot"
    ));
}
