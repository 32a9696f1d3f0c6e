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

/// Nobody else has what its disk has lost.
#[tokio::test]
async fn the_only_voter_goes_on_from_what_can_be_read() {
    let mut world = World::of_voters(1).await;
    place_for_topics(&world).await;
    for name in ["kept", "damaged", "behind-1", "behind-2", "behind-3"] {
        assert!(is_created(&world.propose(1, topic(name)).await));
    }
    let before = epochs(&world.node(1).image());
    world.kill(1).await;
    let dir = world.dir(1);
    spoil(&dir, "damaged");

    let is_refused = |started| assert!(matches!(started, Err(StartError::Damaged { .. })), "{started:?}");
    is_refused(world.try_start(1).await);
    let disk = Env::os().disk;
    let synced = fs::read(dir.join("synced")).unwrap();
    for time in 0..2 {
        let survivor = Survivor::open(&*disk, &dir).unwrap();
        let text = survivor.to_string();
        assert!(text.contains("its disk is damaged"), "{text}");
        assert!(
            text.contains("may be lost: whatever was decided after entry "),
            "{text}"
        );
        survivor.recover(WallMs(time)).unwrap();
        if time == 0 {
            // It died before it had noted from where it goes on.
            fs::write(dir.join("synced"), &synced).unwrap();
            is_refused(world.try_start(1).await);
        }
    }

    world.start(1).await;
    let image = world.node(1).image();
    let left: Vec<_> = image.topics().map(|topic| topic.name.to_string()).collect();
    assert_eq!(left, ["kept"]);
    for (before, after) in before.iter().zip(epochs(&image)) {
        assert!(after.0 >= before.0 + RECOVERY_EPOCHS && after.1 >= before.1 + RECOVERY_EPOCHS);
    }
    place_for_topics(&world).await;
    assert!(is_created(&world.propose(1, topic("damaged")).await));
    world.stop(1).await;
    let whole = Survivor::open(&*disk, &dir).err().expect("refused");
    assert!(matches!(whole, RecoverError::SoleVoter { .. }), "{whole}");
}
