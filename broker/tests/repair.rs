//! Damaged copies are made again from their peers, whoever meets the damage.

mod cluster;

use cluster::Cluster;
use skerry_env::Env;
use skerry_env::disk::read_file;
use skerry_metadata_state::{Command, ElectLeader, Election};
use skerry_types::{BrokerId, PartitionIndex};

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
    cluster
        .until("every copy is in sync, and whole", |cluster| {
            let id = cluster.any();
            cluster.in_sync(id, "t") == ids && ids.iter().all(|id| cluster.is_whole(*id, "t", end))
        })
        .await;
    let bytes = cluster.bytes(ids[0], "t", end);
    for id in ids {
        assert_eq!(cluster.bytes(*id, "t", end), bytes, "node {id}");
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
