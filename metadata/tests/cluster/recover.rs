//! The majority is lost for good.

use std::fs;
use std::path::Path;

use skerry_env::Env;
use skerry_metadata::state::{RECOVERY_EPOCHS, RECOVERY_PRODUCER_IDS};
use skerry_metadata::{Image, RecoverError, StartError, Survivor};
use skerry_types::{BrokerId, WallMs};

use crate::world::{World, is_created, place_for_topics, topic, until};

/// Leader and partition epochs of all partitions.
fn epochs(image: &Image) -> Vec<(i32, i32)> {
    let partitions = image.topics().flat_map(|topic| &topic.partitions);
    let both = partitions.map(|one| (one.leader_epoch.get(), one.partition_epoch.get()));
    both.collect()
}

#[tokio::test]
async fn a_survivor_becomes_the_quorum_and_the_others_join_it() {
    let mut world = World::of_voters(3).await;
    place_for_topics(&world).await;
    world.propose(1, topic("kept")).await;
    world.images_agree().await;
    let cluster_id = world.node(1).image().cluster_id();
    let before = epochs(&world.node(1).image());
    let next_producer_id = world.node(1).image().next_producer_id();
    let disk = Env::os().disk;

    let in_use = Survivor::open(&*disk, &world.dir(1)).err().expect("refused");
    assert!(
        in_use.to_string().ends_with("is in use by another process"),
        "{in_use}"
    );
    for id in 1..=3 {
        world.kill(id).await;
    }
    world.wipe(2).await;
    world.wipe(3).await;
    let empty = Survivor::open(&*disk, &world.dir(2)).err().expect("refused");
    assert!(matches!(empty, RecoverError::Empty { .. }), "{empty}");

    world.cut_power(1).await;
    let survivor = Survivor::open(&*disk, &world.dir(1)).unwrap();
    let text = survivor.to_string();
    assert!(
        text.contains("may be lost: whatever the other voters decided after entry "),
        "{text}"
    );
    assert_eq!(survivor.voters().len(), 3);
    let note = survivor.recover(WallMs(1_700_000_000_000)).unwrap();
    assert!(
        note.starts_with("recovered at 1700000000000 (ms since 1970) by node 1 alone, from the voters 1@"),
        "{note}"
    );

    world.start(1).await;
    assert!(world.node(1).image().topic("kept").is_some());
    assert_eq!(world.node(1).image().cluster_id(), cluster_id);
    // Whatever the lost majority gave out after entry `last`, nobody gets it again.
    let after = epochs(&world.node(1).image());
    assert_eq!(before.len(), after.len());
    for ((leader, partition), (leader_after, partition_after)) in before.iter().zip(&after) {
        assert!(*leader_after >= leader + RECOVERY_EPOCHS, "{before:?} {after:?}");
        assert!(
            *partition_after >= partition + RECOVERY_EPOCHS,
            "{before:?} {after:?}"
        );
    }
    let left_out = world.node(1).image().next_producer_id().get() - next_producer_id.get();
    assert_eq!(left_out, RECOVERY_PRODUCER_IDS);
    // Nobody is taken for alive: who has survived says so itself.
    assert!(!is_created(&world.propose(1, topic("new")).await));
    place_for_topics(&world).await;
    assert!(is_created(&world.propose(1, topic("new")).await));

    // The others come with empty disks and the old configuration.
    for id in [2, 3] {
        world.start(id).await;
        until("it is a learner", || {
            world.node(id).image().topic("new").is_some()
        })
        .await;
    }
    for id in [2, 3] {
        world
            .on(
                1,
                move |quorum| async move { quorum.add_voter(BrokerId(id)).await },
            )
            .await
            .unwrap();
    }
    // The note is in the log of every member.
    for (_, node) in world.running() {
        let status = node.status();
        assert_eq!(status.member(BrokerId(1)).unwrap().note, note);
        assert_eq!(node.image().cluster_id(), cluster_id);
    }
    let leader = world.leader().await;
    world.kill(leader).await;
    let left = world.leader().await;
    assert!(is_created(&world.propose(left, topic("newer")).await));

    let other = world.follower().await;
    world.kill(other).await;
    world.kill(left).await;
    world.cut_power(left).await;
    let alone = Survivor::open(&*disk, &world.dir(left)).unwrap();
    alone.recover(WallMs(0)).unwrap();
    let again = Survivor::open(&*disk, &world.dir(left)).err().expect("refused");
    assert!(matches!(again, RecoverError::SoleVoter { .. }), "{again}");
}

/// Turns a bit over in the first place of the quorum's log that says `text`.
fn spoil(dir: &Path, text: &str) {
    let files = fs::read_dir(dir.join("raft")).unwrap();
    let paths = files.map(|file| file.unwrap().path());
    for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "log")) {
        let mut bytes = fs::read(&path).unwrap();
        let mut places = bytes.windows(text.len());
        if let Some(place) = places.position(|place| place == text.as_bytes()) {
            bytes[place] ^= 4;
            fs::write(&path, bytes).unwrap();
            return;
        }
    }
    panic!("{text} is nowhere in {}", dir.display());
}

fn is_refused(started: Result<(), StartError>) {
    assert!(matches!(started, Err(StartError::Damaged { .. })), "{started:?}");
}

/// Nobody else has what its disk has lost, be it a single write.
#[tokio::test]
async fn the_only_voter_goes_on_from_what_can_be_read() {
    const TOPICS: [&str; 5] = ["first", "second", "third", "fourth", "last"];
    for (left, damaged) in (0..).zip(TOPICS).skip(1).step_by(3) {
        let mut world = World::of_voters(1).await;
        place_for_topics(&world).await;
        for name in TOPICS {
            assert!(is_created(&world.propose(1, topic(name)).await));
        }
        let before = epochs(&world.node(1).image());
        world.kill(1).await;
        let (disk, dir) = (Env::os().disk, world.dir(1));
        spoil(&dir, damaged);

        is_refused(world.try_start(1).await);
        for time in 0..2 {
            // Whoever only looks changes nothing: neither is the damage forgotten.
            let survivor = Survivor::open(&*disk, &dir).unwrap();
            let text = survivor.to_string();
            assert!(text.contains("its disk is damaged"), "{time}: {text}");
            assert!(
                text.contains("may be lost: whatever was decided after entry "),
                "{text}"
            );
            drop(survivor);
            is_refused(world.try_start(1).await);
        }
        Survivor::open(&*disk, &dir).unwrap().recover(WallMs(1)).unwrap();

        world.start(1).await;
        let image = world.node(1).image();
        let known: Vec<_> = image.topics().map(|topic| topic.name.to_string()).collect();
        let mut expected = TOPICS[..left].to_vec();
        expected.sort_unstable();
        assert_eq!(known, expected);
        for (before, after) in before.iter().zip(epochs(&image)) {
            assert!(after.0 >= before.0 + RECOVERY_EPOCHS && after.1 >= before.1 + RECOVERY_EPOCHS);
        }
        place_for_topics(&world).await;
        assert!(is_created(&world.propose(1, topic(damaged)).await));
        world.stop(1).await;
        let whole = Survivor::open(&*disk, &dir).err().expect("refused");
        assert!(matches!(whole, RecoverError::SoleVoter { .. }), "{whole}");
    }
}

/// It may have written half of what it wanted to.
#[tokio::test]
async fn a_recovery_that_did_not_end_is_done_again() {
    let mut world = World::of_voters(3).await;
    for id in 1..=3 {
        world.kill(id).await;
    }
    world.cut_power(1).await;
    let (disk, dir) = (Env::os().disk, world.dir(1));
    Survivor::open(&*disk, &dir).unwrap().recover(WallMs(1)).unwrap();
    let synced = dir.join("synced");
    let number = [[1_u8; 1].as_slice(), &[0xff; 8], &[0; 8]].concat();
    let mut unfinished = fs::read(&synced).unwrap();
    unfinished[..17].copy_from_slice(&number);
    fs::write(&synced, unfinished).unwrap();
    let refused = world.try_start(1).await.expect_err("refused").to_string();
    assert!(
        refused.contains("`skerry cluster recover` has begun here"),
        "{refused}"
    );
    let survivor = Survivor::open(&*disk, &dir).unwrap();
    assert!(survivor.to_string().contains("did not end"), "{survivor}");
    survivor.recover(WallMs(2)).unwrap();
    world.start(1).await;
    assert_eq!(world.leader().await, 1);
}
