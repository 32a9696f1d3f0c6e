//! Damaged copies are made again from their peers, whoever meets the damage.

mod cluster;

use cluster::Cluster;
use skerry_client::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use skerry_client::messages::offset_fetch_request::OffsetFetchRequestTopic;
use skerry_client::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest, TopicName};
use skerry_client::protocol::StrBytes;
use skerry_env::Env;
use skerry_env::disk::read_file;
use skerry_metadata_state::{AlterReassignment, Command, ElectLeader, Election};
use skerry_types::{BrokerId, PartitionIndex};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
const AGAIN: std::time::Duration = std::time::Duration::from_millis(50);
const LOADING: i16 = 14;
const NOT_COORDINATOR: i16 = 16;
const INVALID_TOPIC: i16 = 17;
const KAFKA_STORAGE_ERROR: i16 = 56;
/// In a batch's head: reads look at it.
const MAGIC: usize = 16;
/// In a batch's records: only its sum covers it.
const PAYLOAD: usize = 90;

/// Everything is read again and again.
const OFTEN: [(&str, &str); 2] = [
    ("log.scrub.interval.ms", "1000"),
    ("log.flush.offset.checkpoint.interval.ms", "500"),
];

async fn whole_again(cluster: &Cluster, ids: &[i32], end: i64) {
    whole_again_of(cluster, ids, "t", end).await;
}

async fn whole_again_of(cluster: &Cluster, ids: &[i32], topic: &str, end: i64) {
    cluster
        .until("every copy is in sync, and whole", |cluster| {
            let id = cluster.any();
            cluster.in_sync(id, topic) == ids && ids.iter().all(|id| cluster.is_whole(*id, topic, end))
        })
        .await;
    let bytes = cluster.bytes(ids[0], topic, end);
    for id in ids {
        assert_eq!(cluster.bytes(*id, topic, end), bytes, "node {id}");
    }
}

#[tokio::test]
async fn damage_that_a_consumer_meets_is_repaired() {
    let cluster = Cluster::start("127.0.81", 3, &[]).await;
    cluster.create("t", &[1, 2, 3], &[]).await;
    cluster.produce_many(1, "t", 20, 100).await;
    cluster.flip(1, "t", 10, MAGIC);
    assert_eq!(
        cluster.fetch(1, "t", 0, "").await.records,
        10,
        "what is before it"
    );
    assert_eq!(cluster.fetch(1, "t", 10, "").await.error, KAFKA_STORAGE_ERROR);
    cluster
        .until("another one leads", |cluster| {
            cluster.leader(2, "t").is_some_and(|leader| leader != 1) && cluster.partition_leads("t")
        })
        .await;
    whole_again(&cluster, &[1, 2, 3], 20).await;
    assert_eq!(cluster.broker(1).metrics().damage_found.get(), 1);
}

#[tokio::test]
async fn a_leader_whose_records_a_follower_cannot_take_looks_at_its_own_copy() {
    let mut cluster = Cluster::start("127.0.82", 3, &[]).await;
    cluster
        .create("t", &[1, 2, 3], &[("min.insync.replicas", "2")])
        .await;
    cluster.produce_many(1, "t", 5, 100).await;
    cluster.kill(3);
    cluster
        .until("it leaves", |cluster| cluster.in_sync(1, "t") == [1, 2])
        .await;
    cluster.produce_many(1, "t", 15, 100).await;
    // No read of heads sees it, and nobody but node 3 needs the batch.
    cluster.flip(1, "t", 10, PAYLOAD);
    cluster.restart(3).await;
    whole_again(&cluster, &[1, 2, 3], 20).await;
    assert_eq!(cluster.broker(1).metrics().damage_found.get(), 1);
    assert_eq!(
        cluster.broker(3).metrics().damage_found.get(),
        0,
        "it has refused what was bad"
    );
}

#[tokio::test]
async fn damage_that_nobody_reads_is_found_and_repaired() {
    let cluster = Cluster::start("127.0.83", 3, &OFTEN).await;
    cluster.create("t", &[1, 2, 3], &[]).await;
    cluster.produce_many(1, "t", 20, 100).await;
    cluster.flip(2, "t", 10, PAYLOAD);
    cluster
        .until("it is found", |cluster| {
            cluster.broker(2).metrics().damage_found.get() == 1
        })
        .await;
    whole_again(&cluster, &[1, 2, 3], 20).await;
    let scrub = &cluster.broker(1).metrics().scrub;
    cluster
        .until("the other nodes have read theirs", |_| {
            scrub.rounds.get() > 0 && scrub.read_bytes.get() > 0
        })
        .await;
    assert_eq!(cluster.broker(1).metrics().damage_found.get(), 0);
}

/// KIP-858: a replica that cannot open its copy leads nothing. Here nobody else may lead, until a person says so.
#[tokio::test]
async fn the_last_copy_cannot_be_opened_and_a_person_chooses_another_one() {
    let mut cluster = Cluster::start("127.0.85", 3, &OFTEN).await;
    cluster.create("t", &[1, 2], &[]).await;
    cluster.produce_many(1, "t", 10, 100).await;
    cluster
        .until("node 2 has it", |cluster| cluster.ends(2, "t") == (10, 10))
        .await;
    cluster.kill(2);
    cluster
        .until("it leaves", |cluster| cluster.in_sync(1, "t") == [1])
        .await;
    cluster.produce_many(1, "t", 10, 100).await;
    cluster
        .until("a checkpoint covers it", |cluster| {
            let path = cluster.node_dir(1).join("log/recovery-point-offset-checkpoint");
            let bytes = read_file(&*Env::os().disk, &path, 4096)
                .unwrap()
                .unwrap_or_default();
            String::from_utf8_lossy(&bytes).contains("t 0 20")
        })
        .await;
    cluster.kill(1);
    cluster.flip(1, "t", 19, PAYLOAD);
    cluster.restart_together(&[1, 2]).await;
    let partition = |cluster: &Cluster| {
        let image = cluster.image(3);
        image.topic("t").unwrap().partitions[0].clone()
    };
    cluster
        .until("nobody leads, and everybody knows why", |cluster| {
            let known = partition(cluster);
            known.leader.is_none() && known.offline == [BrokerId(1)] && known.elr == [BrokerId(1)]
        })
        .await;
    let notes = cluster.health(3).notes.join("\n");
    assert!(
        notes.contains("1 partition without a leader in the cluster: t-0"),
        "{notes}"
    );
    assert!(
        notes.contains("1 partition with a copy that its broker cannot open: t-0"),
        "{notes}"
    );
    let image = cluster.image(3);
    let election = ElectLeader {
        topic: image.topic("t").unwrap().id,
        partition: PartitionIndex(0),
        election: Election::Unclean,
    };
    cluster
        .propose(Command::ElectLeader(election))
        .await
        .accepted()
        .expect("a person may");
    whole_again(&cluster, &[1, 2], 10).await;
    assert_eq!(partition(&cluster).offline, []);
    cluster.produce_many(2, "t", 5, 100).await;
    whole_again(&cluster, &[1, 2], 15).await;
}

/// KIP-704: where no copy can be opened, a person's choice goes on from what can be read of one.
#[tokio::test]
async fn no_copy_can_be_opened_and_a_person_goes_on_from_what_is_left() {
    let mut cluster = Cluster::start("127.0.86", 3, &OFTEN).await;
    cluster.create("t", &[1, 2], &[]).await;
    cluster.produce_many(1, "t", 20, 100).await;
    cluster
        .until("checkpoints cover it", |cluster| {
            [1, 2].into_iter().all(|id| {
                let path = cluster.node_dir(id).join("log/recovery-point-offset-checkpoint");
                let bytes = read_file(&*Env::os().disk, &path, 4096)
                    .unwrap()
                    .unwrap_or_default();
                String::from_utf8_lossy(&bytes).contains("t 0 20")
            })
        })
        .await;
    for id in [1, 2] {
        cluster.kill(id);
        cluster.flip(id, "t", 17, PAYLOAD);
    }
    cluster.restart_together(&[1, 2]).await;
    let partition = |cluster: &Cluster| cluster.image(3).topic("t").unwrap().partitions[0].clone();
    cluster
        .until("nobody leads, and nothing is thrown away", |cluster| {
            let known = partition(cluster);
            known.leader.is_none() && known.offline.len() == 2
        })
        .await;
    let election = ElectLeader {
        topic: cluster.image(3).topic("t").unwrap().id,
        partition: PartitionIndex(0),
        election: Election::Unclean,
    };
    let chosen = cluster.propose(Command::ElectLeader(election)).await;
    chosen.accepted().expect("a person may");
    whole_again(&cluster, &[1, 2], 17).await;
    assert_eq!(partition(&cluster).offline, []);
    let leader = cluster.leader(3, "t").unwrap();
    cluster.produce_many(leader, "t", 5, 100).await;
    whole_again(&cluster, &[1, 2], 22).await;
}

#[tokio::test]
async fn the_last_copy_is_served_as_it_is_until_another_one_is_there() {
    let mut cluster = Cluster::start("127.0.84", 3, &OFTEN).await;
    cluster.create("t", &[1, 2], &[]).await;
    cluster.produce_many(1, "t", 20, 100).await;
    cluster.kill(2);
    cluster
        .until("it leaves", |cluster| cluster.in_sync(1, "t") == [1])
        .await;
    cluster.flip(1, "t", 10, PAYLOAD);
    cluster
        .until("health says so", |cluster| {
            let notes = cluster.health(1).notes.join("\n");
            notes.contains("t-0: segment 0 is damaged at byte") && notes.contains("(offset 10)")
        })
        .await;
    assert_eq!(
        cluster.fetch(1, "t", 11, "").await.records,
        9,
        "what is behind it"
    );
    cluster.produce_many(1, "t", 5, 100).await;
    assert_eq!(cluster.leader(1, "t"), Some(1));
    cluster.restart(2).await;
    whole_again(&cluster, &[1, 2], 25).await;
    cluster
        .until("health has forgotten it", |cluster| {
            !cluster.health(1).notes.join("\n").contains("damaged")
        })
        .await;
}

/// Commits of a consumer without a group's members (KIP-211), asked until the coordinator answers; the error code.
async fn commit(cluster: &Cluster, id: i32, group: &str, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default()
        .with_partition_index(0)
        .with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(named("t"))
        .with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    loop {
        let connection = cluster.connect(id).await;
        let answer = connection.call_version(&request, 7, PATIENCE).await;
        match answer.expect("an answer").topics[0].partitions[0].error_code {
            LOADING | NOT_COORDINATOR => Env::os().clock.sleep(AGAIN).await,
            error => return error,
        }
    }
}

/// What a group has committed, or the error code.
async fn committed(cluster: &Cluster, id: i32, group: &str) -> Result<i64, i16> {
    let topic = OffsetFetchRequestTopic::default()
        .with_name(named("t"))
        .with_partition_indexes(vec![0]);
    let request = OffsetFetchRequest::default()
        .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
        .with_topics(Some(vec![topic]));
    let answer = cluster
        .connect(id)
        .await
        .call_version(&request, 5, PATIENCE)
        .await;
    let answer = answer.expect("an answer");
    match answer.error_code {
        0 => Ok(answer.topics[0].partitions[0].committed_offset),
        error => Err(error),
    }
}

fn named(topic: &str) -> TopicName {
    TopicName(StrBytes::from_string(topic.to_owned()))
}

async fn until_committed(cluster: &Cluster, id: i32, group: &str, expected: Result<i64, i16>) {
    let env = Env::os();
    let reached = env.clock.timeout(PATIENCE, async {
        while committed(cluster, id, group).await != expected {
            env.clock.sleep(AGAIN).await;
        }
    });
    assert!(
        reached.await.is_ok(),
        "{group}: {:?}",
        committed(cluster, id, group).await
    );
}

/// The last copy of a partition of the groups has a record that cannot be read: nobody is told old commits, and a person goes
/// on without what is before it.
#[tokio::test]
async fn groups_whose_last_copy_is_damaged_go_on_once_a_person_gives_the_damage_up() {
    const OFFSETS: &str = "__consumer_offsets";
    // Otherwise the controller gives it a third copy.
    let two_copies = ("offsets.topic.replication.factor", "2");
    let mut cluster = Cluster::start("127.0.87", 3, &[OFTEN[0], OFTEN[1], two_copies]).await;
    cluster.create("t", &[1, 2, 3], &[]).await;
    cluster
        .create(OFFSETS, &[1, 2], &[("cleanup.policy", "compact")])
        .await;
    for (group, offset) in [("a", 5), ("b", 6), ("c", 7)] {
        assert_eq!(commit(&cluster, 1, group, offset).await, 0);
    }
    cluster
        .until("node 2 has them", |cluster| cluster.ends(2, OFFSETS) == (3, 3))
        .await;
    // Of a log that is whole nobody deletes commits.
    assert_eq!(
        cluster.delete_records(1, OFFSETS, 2, 5_000).await.0,
        INVALID_TOPIC
    );
    cluster.flip(2, OFFSETS, 1, PAYLOAD);
    cluster.kill(1);
    cluster
        .until("the damage is found, and it is the last copy", |cluster| {
            cluster.leader(2, OFFSETS) == Some(2)
                && cluster.in_sync(2, OFFSETS) == [2]
                && cluster.broker(2).metrics().damage_found.get() == 1
        })
        .await;
    assert_eq!(committed(&cluster, 2, "a").await, Err(LOADING));
    assert_eq!(committed(&cluster, 2, "c").await, Err(LOADING));
    assert_eq!(cluster.delete_records(2, OFFSETS, 2, 5_000).await, (0, 2));
    until_committed(&cluster, 2, "c", Ok(7)).await;
    assert_eq!(
        committed(&cluster, 2, "a").await,
        Ok(-1),
        "it was read before the damage, and is not in the log"
    );
    assert_eq!(commit(&cluster, 2, "b", 8).await, 0);
    cluster.restart(1).await;
    whole_again_of(&cluster, &[1, 2], OFFSETS, 4).await;
    assert_eq!(cluster.broker(2).metrics().damage_found.get(), 1);
}

#[tokio::test]
async fn a_repair_that_comes_late_leaves_the_next_copy_alone() {
    let cluster = Cluster::start("127.0.89", 3, &[]).await;
    cluster.create("t", &[1, 2, 3], &[]).await;
    cluster.produce_many(1, "t", 20, 100).await;
    let old = cluster.partition(3, "t").expect("a copy");
    let topic = cluster.image(1).topic("t").expect("a topic").id;
    let place_on = |brokers: &[i32]| {
        Command::AlterReassignment(AlterReassignment {
            topic,
            partition: PartitionIndex(0),
            target: Some(brokers.iter().copied().map(BrokerId).collect()),
            may_change_factor: true,
        })
    };
    cluster.propose(place_on(&[1, 2])).await;
    cluster
        .until("it has no copy any more", |cluster| {
            cluster.partition(3, "t").is_none()
        })
        .await;
    cluster.propose(place_on(&[1, 2, 3])).await;
    whole_again(&cluster, &[1, 2, 3], 20).await;
    // The first copy was damaged: the metadata answers only now that it does not count.
    let broker = cluster.broker(3);
    let aside = broker.partitions().start_over(broker, &old).await.unwrap();
    assert_eq!(aside, None);
    cluster.produce_many(1, "t", 5, 100).await;
    whole_again(&cluster, &[1, 2, 3], 25).await;
}

#[tokio::test]
async fn a_checkpoint_is_written_while_the_folder_is_its_copys() {
    let cluster = Cluster::start("127.0.92", 1, &[]).await;
    cluster.create("t", &[1], &[]).await;
    cluster.produce_many(1, "t", 20, 100).await;
    let copy = cluster.partition(1, "t").expect("a copy");
    let broker = cluster.broker(1);
    let snapshot = broker
        .partitions()
        .log_dir()
        .join("t-0/00000000000000000020.snapshot");
    assert!(!snapshot.exists());
    let folder = copy.lock_folder().await;
    copy.write_checkpoint(&broker.env().tasks).await.unwrap();
    assert!(!snapshot.exists(), "somebody exchanges the folder");
    drop(folder);
    let mut writing = std::pin::pin!(copy.write_checkpoint(&broker.env().tasks));
    let written = futures_util::FutureExt::now_or_never(writing.as_mut());
    assert!(written.is_none());
    let folder = futures_util::FutureExt::now_or_never(copy.lock_folder());
    assert!(folder.is_none(), "whoever exchanges it waits until it is written");
    writing.await.unwrap();
    assert!(snapshot.exists());
}
