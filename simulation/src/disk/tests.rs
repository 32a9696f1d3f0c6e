use std::io::IoSlice;

use skerry_env::disk::{read_exact_at, replace_file};

use super::*;

fn sim(seed: u64) -> SimDisk {
    SimDisk::new(
        "broker",
        DiskConfig::default(),
        Rng::seeded(seed),
        Trace::silent(),
    )
}

fn write(disk: &DynDisk, path: &str, position: u64, bytes: &[u8]) -> Arc<dyn File> {
    let file = disk.open(Path::new(path), OpenMode::Create).unwrap();
    file.write_at(&[IoSlice::new(bytes)], position).unwrap();
    file
}

#[test]
fn a_file_is_read_as_it_was_written() {
    let sim = sim(1);
    let disk = sim.attach();
    disk.create_dir_all(Path::new("/data/orders-0")).unwrap();
    let file = write(&disk, "/data/orders-0/0.log", 0, b"hello");
    file.write_at(&[IoSlice::new(b" w"), IoSlice::new(b"orld")], 5)
        .unwrap();
    let mut bytes = [0; 11];
    read_exact_at(&*file, &mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"hello world");
    assert_eq!(file.read_at(&mut bytes, 11).unwrap(), 0, "0 at the end");
    assert_eq!(disk.list(Path::new("/data")).unwrap()[0].name, "orders-0");
    assert_eq!(
        disk.stat(Path::new("/data/orders-0/0.log")).unwrap().unwrap().len,
        11
    );
    assert_eq!(disk.stat(Path::new("/data/nothing")).unwrap(), None);
    assert_eq!(
        disk.open(Path::new("/data/orders-0/0.log"), OpenMode::CreateNew)
            .err()
            .unwrap()
            .kind(),
        io::ErrorKind::AlreadyExists
    );
}

#[test]
fn a_kill_keeps_the_cache_and_a_power_cut_keeps_what_was_synced() {
    for seed in 0..40 {
        let sim = sim(seed);
        let disk = sim.attach();
        disk.create_dir_all(Path::new("/d")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let file = write(&disk, "/d/f", 0, &[1; 700]);
        disk.sync_dir(Path::new("/d")).unwrap();
        file.sync().unwrap();
        file.write_at(&[IoSlice::new(&[2; 5000])], 700).unwrap();
        assert!(sim.is_durable(Path::new("/d/f"), 0..700));
        assert!(!sim.is_durable(Path::new("/d/f"), 0..701));

        sim.kill();
        assert!(
            file.write_at(&[IoSlice::new(b"late")], 0).is_err(),
            "a dead process writes nothing"
        );
        let disk = sim.attach();
        assert_eq!(disk.stat(Path::new("/d/f")).unwrap().unwrap().len, 5700);

        sim.cut_power();
        let disk = sim.attach();
        let bytes = read_all(&*disk, Path::new("/d/f")).unwrap();
        assert_eq!(&bytes[..700], &[1; 700][..]);
    }
}

#[test]
fn a_name_that_was_not_synced_vanishes() {
    let mut vanished = 0;
    for seed in 0..60 {
        let sim = sim(seed);
        let disk = sim.attach();
        let file = write(&disk, "/f", 0, b"x");
        file.sync().unwrap();
        assert!(
            !sim.is_durable(Path::new("/f"), 0..1),
            "the bytes are synced, their name is not"
        );
        sim.cut_power();
        vanished += usize::from(sim.attach().stat(Path::new("/f")).unwrap().is_none());
    }
    assert!(vanished > 20, "{vanished} of 60");
    assert!(vanished < 60, "some survive by luck");
}

#[test]
fn a_replaced_file_is_the_old_one_or_the_new() {
    for seed in 0..60 {
        let sim = sim(seed);
        let disk = sim.attach();
        replace_file(&*disk, Path::new("/f"), b"old").unwrap();
        // The last step of the second replacement is missing: the name may go either way, the bytes may not.
        let file = write(&disk, "/f.tmp", 0, b"new!");
        file.sync().unwrap();
        disk.rename(Path::new("/f.tmp"), Path::new("/f")).unwrap();
        sim.cut_power();
        let disk = sim.attach();
        let bytes = read_all(&*disk, Path::new("/f")).unwrap();
        assert!(bytes == b"old" || bytes == b"new!", "{bytes:?}");
    }
}

#[test]
fn a_directory_renamed_is_under_one_of_both_names() {
    for seed in 0..60 {
        let sim = sim(seed);
        let disk = sim.attach();
        disk.create_dir_all(Path::new("/a/x-0")).unwrap();
        disk.create_dir_all(Path::new("/b")).unwrap();
        write(&disk, "/a/x-0/f", 0, b"1").sync().unwrap();
        disk.sync_filesystem(Path::new("/")).unwrap();
        disk.rename(Path::new("/a/x-0"), Path::new("/b/x-0")).unwrap();
        sim.cut_power();
        let disk = sim.attach();
        let (old, new) = (
            disk.stat(Path::new("/a/x-0/f")).unwrap().is_some(),
            disk.stat(Path::new("/b/x-0/f")).unwrap().is_some(),
        );
        assert!(old != new, "a journal keeps both halves or neither");
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_says_so() {
    let sim = sim(1);
    let disk = sim.attach();
    let file = write(&disk, "/f", 0, &[1; 100]);
    sim.leave_room(50);
    let error = file.write_at(&[IoSlice::new(&[2; 80])], 100).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 150, "some of the bytes were written");
    assert_eq!(disk.space(Path::new("/")).unwrap().available_bytes, 0);
    file.set_len(100).unwrap();
    file.write_at(&[IoSlice::new(&[2; 50])], 100).unwrap();
    sim.free_room();
    file.write_at(&[IoSlice::new(&[3; 80])], 150).unwrap();
}

#[test]
fn a_process_dies_in_the_write_that_was_chosen() {
    let sim = sim(3);
    let disk = sim.attach();
    let file = write(&disk, "/f", 0, &[1; 10]);
    sim.die_in(OpKind::Write, 2);
    file.write_at(&[IoSlice::new(&[2; 10])], 10).unwrap();
    assert!(file.write_at(&[IoSlice::new(&[3; 1000])], 20).is_err());
    assert!(sim.has_died());
    assert!(file.sync().is_err(), "it is dead");
    sim.kill();
    let len = sim.attach().stat(Path::new("/f")).unwrap().unwrap().len;
    assert!((20..=1020).contains(&len), "{len}");
}

#[test]
fn a_directory_is_locked_by_one_process_at_a_time() {
    let sim = sim(1);
    let disk = sim.attach();
    let lock = disk.lock_dir(Path::new("/")).unwrap();
    assert_eq!(
        disk.lock_dir(Path::new("/")).err().unwrap().kind(),
        io::ErrorKind::WouldBlock
    );
    drop(lock);
    let _held = disk.lock_dir(Path::new("/")).unwrap();
    sim.kill();
    sim.attach().lock_dir(Path::new("/")).unwrap();
}

#[test]
fn the_same_seed_cuts_the_same_bytes() {
    let image = |seed| {
        let sim = sim(seed);
        let disk = sim.attach();
        disk.sync_dir(Path::new("/")).unwrap();
        for index in 0..20_u8 {
            write(&disk, "/f", u64::from(index) * 3000, &[index; 3000]);
            disk.sync_dir(Path::new("/")).unwrap();
        }
        let report = sim.cut_power();
        (report, read_all(&*sim.attach(), Path::new("/f")))
    };
    assert_eq!(image(9), image(9));
    assert_ne!(image(9), image(10));
}

fn troubled(seed: u64, trouble: Trouble) -> (SimDisk, DynDisk, Arc<dyn File>) {
    let sim = sim(seed);
    sim.draw_troubles_from(Rng::seeded(seed));
    let disk = sim.attach();
    let file = write(&disk, "/f.log", 0, &[7; 2_000]);
    file.sync().unwrap();
    sim.configure(|config| config.trouble = trouble);
    (sim, disk, file)
}

fn harm(position: usize, len: usize, sector: Sector) -> Harm {
    Harm {
        path: "/f.log".into(),
        position,
        mask: vec![0xff; len],
        sector,
    }
}

#[test]
fn a_write_that_fails_leaves_a_part_of_it() {
    let trouble = Trouble {
        write_fails_one_in: 1,
        ..Trouble::default()
    };
    let mut lens = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let (sim, _disk, file) = troubled(seed, trouble);
        let error = file.write_at(&[IoSlice::new(&[8; 100])], 2_000).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(EIO));
        assert!(sim.has_failed() && sim.write_failures() == 1);
        lens.insert(file.len().unwrap());
    }
    assert!(lens.len() > 5 && lens.iter().all(|len| (2_000..=2_100).contains(len)));
}

#[test]
fn a_read_fails_or_is_wrong_and_the_bytes_are_good() {
    let mut bytes = [0; 2_000];
    let (sim, _disk, file) = troubled(
        1,
        Trouble {
            read_fails_one_in: 1,
            ..Trouble::default()
        },
    );
    assert_eq!(file.read_at(&mut bytes, 0).unwrap_err().raw_os_error(), Some(EIO));
    assert_eq!(sim.read_failures(), 1);

    let (sim, _disk, file) = troubled(
        1,
        Trouble {
            read_flips_one_in: 1,
            ..Trouble::default()
        },
    );
    file.read_at(&mut bytes, 0).unwrap();
    let wrong: u32 = bytes.iter().map(|byte| (byte ^ 7).count_ones()).sum();
    assert_eq!(wrong, 1);
    file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [7; 2_000], "what is read again right after it is right");
    assert!(sim.is_durable(Path::new("/f.log"), 0..2_000) || sim.durable_len(Path::new("/f.log")) == 0);
}

#[test]
fn a_bad_sector_cannot_be_read_until_it_is_written_again() {
    let (sim, _disk, file) = troubled(1, Trouble::default());
    let bad = harm(600, 100, Sector::Unreadable(512..1_024));
    assert!(sim.harm(&bad));
    let mut bytes = [0; 100];
    assert!(file.read_at(&mut bytes, 400).is_ok());
    assert_eq!(
        file.read_at(&mut bytes, 500).unwrap_err().raw_os_error(),
        Some(EIO)
    );
    assert!(file.read_at(&mut bytes, 1_024).is_ok());
    file.write_at(&[IoSlice::new(&[9; 512])], 512).unwrap();
    file.read_at(&mut bytes, 512).unwrap();
    assert_eq!(bytes, [9; 100]);
}

#[test]
fn a_misdirected_write_is_read_as_it_lies_and_can_be_undone() {
    let (sim, _disk, file) = troubled(1, Trouble::default());
    let bad = harm(600, 100, Sector::Anothers(512, vec![1; 512]));
    assert!(sim.harm(&bad));
    let around = sim.around(&bad);
    let mut bytes = [0; 2_000];
    file.read_at(&mut bytes, 0).unwrap();
    assert_eq!((bytes[511], bytes[512], bytes[1_023], bytes[1_024]), (7, 1, 1, 7));
    sim.cut_power();
    assert!(
        sim.durable_len(Path::new("/f.log")) == 0 || sim.around(&bad) == around,
        "the device keeps it"
    );

    let (sim, _disk, file) = troubled(1, Trouble::default());
    assert!(sim.harm(&bad) && sim.undo(&bad));
    file.read_at(&mut bytes, 0).unwrap();
    assert_eq!(bytes, [7; 2_000]);
}

#[test]
fn a_throttled_device_makes_a_sync_wait_for_what_was_written() {
    let (sim, _disk, file) = troubled(
        1,
        Trouble {
            bytes_per_second: 10_000,
            ..Trouble::default()
        },
    );
    file.write_at(&[IoSlice::new(&[8; 5_000])], 0).unwrap();
    let whole = |(before, after): (Duration, Duration)| before + after;
    assert!(whole(sim.operation_times(skerry_types::Instant::ZERO)) >= Duration::from_millis(500));
    assert!(
        whole(sim.operation_times(skerry_types::Instant::ZERO)) < Duration::from_millis(500),
        "it is paid once"
    );
}
