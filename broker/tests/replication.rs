//! Replication between whole nodes, through real sockets and disks.

mod cluster;

use cluster::Cluster;

#[tokio::test]
async fn what_is_acknowledged_is_on_every_replica() {
    let cluster = Cluster::start("127.0.71", 3, &[]).await;
    cluster
        .create("t", &[1, 2, 3], &[("min.insync.replicas", "2")])
        .await;
    cluster.produce_many(1, "t", 20, 100).await;
    assert_eq!(cluster.in_sync(1, "t"), [1, 2, 3]);
    for follower in [2, 3] {
        assert_eq!(cluster.ends(follower, "t").0, 20, "acks=all counts this copy");
    }
    cluster
        .until("the followers know the high watermark", |cluster| {
            [2, 3].iter().all(|id| cluster.ends(*id, "t") == (20, 20))
        })
        .await;
    let leader = cluster.bytes(1, "t", 20);
    assert_eq!(cluster.bytes(2, "t", 20), leader);
    assert_eq!(cluster.bytes(3, "t", 20), leader);
}

#[tokio::test]
async fn a_follower_that_was_away_catches_up_and_joins() {
    let mut cluster = Cluster::start("127.0.72", 3, &[]).await;
    cluster
        .create("t", &[1, 2, 3], &[("min.insync.replicas", "2")])
        .await;
    cluster.produce_many(1, "t", 3, 100).await;
    cluster.kill(3);
    // Nobody waits for it longer than it takes to see that it is gone.
    cluster.produce_many(1, "t", 50, 1000).await;
    cluster
        .until("it leaves", |cluster| cluster.in_sync(1, "t") == [1, 2])
        .await;
    cluster.restart(3).await;
    cluster
        .until("it joins", |cluster| cluster.in_sync(1, "t") == [1, 2, 3])
        .await;
    assert_eq!(cluster.ends(3, "t").0, 53);
    cluster.produce_many(1, "t", 1, 100).await;
    assert_eq!(cluster.ends(3, "t").0, 54);
    assert_eq!(cluster.bytes(3, "t", 54), cluster.bytes(1, "t", 54));
}

#[tokio::test]
async fn after_a_failover_logs_that_part_are_cut_and_agree_again() {
    // A leader that is cut off appends for as long as the controller has promised it.
    let long = ("broker.session.timeout.ms", "20000");
    let mut cluster = Cluster::start("127.0.73", 3, &[long]).await;
    // With two, the last one to come back stays eligible although it is not in sync (KIP-966).
    cluster
        .create("t", &[1, 2, 3], &[("min.insync.replicas", "2")])
        .await;
    cluster.produce_many(1, "t", 5, 100).await;
    // Node 1 goes on alone in its epoch: what it appends now reaches nobody.
    cluster.kill(2);
    cluster.kill(3);
    let lonely = cluster.connect(1).await;
    for _ in 0..3 {
        let (code, _) = cluster::produce(&lonely, "t", 1, 300).await;
        assert_eq!(code, 0);
    }
    cluster
        .until("it has appended", |cluster| cluster.ends(1, "t").0 == 8)
        .await;
    assert_eq!(
        cluster.ends(1, "t").1,
        5,
        "nothing is acknowledged that the in-sync set lacks"
    );
    cluster.kill(1);
    cluster.restart_together(&[2, 3]).await;
    cluster
        .until("another one leads", |cluster| {
            cluster.leader(2, "t").is_some_and(|leader| leader != 1) && cluster.partition_leads("t")
        })
        .await;
    let leader = cluster.leader(2, "t").unwrap();
    cluster
        .until("the other one is in sync", |cluster| {
            cluster.in_sync(leader, "t") == [2, 3]
        })
        .await;
    cluster.produce_many(leader, "t", 10, 200).await;
    cluster.restart(1).await;
    cluster
        .until("node 1 is in sync again", |cluster| {
            cluster.in_sync(leader, "t").contains(&1)
        })
        .await;
    cluster
        .until("all copies end together", |cluster| {
            cluster.ids().iter().all(|id| cluster.ends(*id, "t") == (15, 15))
        })
        .await;
    let bytes = cluster.bytes(leader, "t", 15);
    for id in cluster.ids() {
        assert_eq!(cluster.bytes(id, "t", 15), bytes, "node {id}");
    }
}

#[tokio::test]
async fn a_consumer_is_sent_to_a_replica_in_its_rack_and_reads_there() {
    const CLASS: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
    let cluster = Cluster::start("127.0.75", 3, &[("replica.selector.class", CLASS)]).await;
    cluster.create("t", &[1, 2, 3], &[]).await;
    cluster.produce_many(1, "t", 4, 100).await;
    cluster
        .until("the followers know the high watermark", |cluster| {
            [2, 3].iter().all(|id| cluster.ends(*id, "t") == (4, 4))
        })
        .await;
    let at_leader = cluster.fetch(1, "t", 0, "rack-3").await;
    assert_eq!(
        (at_leader.preferred, at_leader.records),
        (3, 0),
        "it is sent to node 3"
    );
    let at_follower = cluster.fetch(3, "t", 0, "rack-3").await;
    assert_eq!(
        (at_follower.error, at_follower.preferred, at_follower.records),
        (0, -1, 4)
    );
    let own_rack = cluster.fetch(1, "t", 0, "rack-1").await;
    assert_eq!((own_rack.preferred, own_rack.records), (-1, 4));
    let nowhere = cluster.fetch(1, "t", 0, "rack-9").await;
    assert_eq!((nowhere.preferred, nowhere.records), (-1, 4));
    // What only some have must not be seen anywhere: a follower that lags shows less, never more.
    assert_eq!(cluster.fetch(3, "t", 4, "rack-3").await.records, 0);
    const OFFSET_OUT_OF_RANGE: i16 = 1;
    assert_eq!(
        cluster.fetch(3, "t", 5, "rack-3").await.error,
        OFFSET_OUT_OF_RANGE
    );
}

#[tokio::test]
async fn deleted_records_are_gone_on_every_live_replica_when_that_is_answered() {
    const REQUEST_TIMED_OUT: i16 = 7;
    let mut cluster = Cluster::start("127.0.77", 3, &[]).await;
    cluster.create("t", &[1, 2, 3], &[]).await;
    cluster.produce_many(1, "t", 10, 100).await;
    let starts = |cluster: &Cluster, ids: &[i32]| {
        ids.iter()
            .map(|id| cluster.start_of(*id, "t"))
            .collect::<Vec<_>>()
    };
    assert_eq!(cluster.delete_records(1, "t", 4, 30_000).await, (0, 4));
    assert_eq!(starts(&cluster, &[1, 2, 3]), [4, 4, 4]);
    assert_eq!(
        cluster.delete_records(1, "t", 2, 30_000).await,
        (0, 4),
        "they are gone already"
    );
    // The followers hear of it some milliseconds later.
    assert_eq!(cluster.delete_records(1, "t", 6, 0).await.0, REQUEST_TIMED_OUT);
    assert_eq!(cluster.start_of(1, "t"), 6, "deleted all the same");
    assert_eq!(cluster.delete_records(1, "t", 6, 30_000).await, (0, 6));
    assert_eq!(starts(&cluster, &[1, 2, 3]), [6, 6, 6]);
    // Nobody waits for it longer than it takes to see that it is gone.
    cluster.kill(3);
    assert_eq!(cluster.delete_records(1, "t", 8, 30_000).await, (0, 8));
    assert_eq!(starts(&cluster, &[1, 2]), [8, 8]);
}

#[tokio::test]
async fn throttled_catching_up_does_not_slow_those_who_are_in_sync() {
    // 300 KB take about three seconds at this rate.
    let rate = [("leader.replication.throttled.rate", "100000")];
    let mut cluster = Cluster::start("127.0.76", 3, &rate).await;
    let throttled = [("leader.replication.throttled.replicas", "*")];
    cluster.create("slow", &[1, 2, 3], &throttled).await;
    cluster.create("quick", &[1, 2, 3], &[]).await;
    cluster.kill(3);
    cluster
        .until("it leaves", |cluster| cluster.in_sync(1, "slow") == [1, 2])
        .await;
    cluster.produce_many(1, "slow", 30, 10_000).await;
    cluster.restart(3).await;
    cluster
        .until("the one that is not throttled is whole", |cluster| {
            cluster.in_sync(1, "quick") == [1, 2, 3]
        })
        .await;
    assert_ne!(cluster.in_sync(1, "slow"), [1, 2, 3], "300 KB at 100 KB/s");
    // Those who are in sync are not throttled, whatever is asked of their partition.
    cluster.produce_many(1, "slow", 10, 100).await;
    cluster.produce_many(1, "quick", 10, 100).await;
    assert_ne!(cluster.in_sync(1, "slow"), [1, 2, 3], "300 KB at 100 KB/s");
    cluster
        .until("the throttled one is whole", |cluster| {
            cluster.in_sync(1, "slow") == [1, 2, 3]
        })
        .await;
    assert_eq!(cluster.bytes(3, "slow", 40), cluster.bytes(1, "slow", 40));
}

/// A node that ends closes its logs, and still hears what the metadata says while it takes its leave.
#[tokio::test]
async fn a_closed_log_takes_no_part_any_more() {
    use skerry::partition::Assigned;
    let mut cluster = Cluster::start("127.0.76", 3, &[]).await;
    for topic in ["t", "u"] {
        cluster.create(topic, &[1, 2, 3], &[]).await;
        cluster.produce_many(1, topic, 3, 100).await;
    }
    let closed = cluster.partition(2, "t").expect("a copy");
    closed.close().expect("a clean end");
    assert_eq!(closed.assigned(), Assigned::Nothing);
    cluster.kill(1);
    cluster
        .until("node 2 leads what is open", |cluster| {
            let open = cluster.partition(2, "u").map(|open| open.assigned());
            cluster.leader(2, "t") == Some(2) && open == Some(Assigned::Leads)
        })
        .await;
    assert_eq!(closed.assigned(), Assigned::Nothing);
}
