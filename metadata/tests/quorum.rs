//! Whole nodes: one that restarts and is killed, three that lose their leader.
#![expect(clippy::disallowed_methods, reason = "a test sets its own world up")]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use skerry_env::Env;
use skerry_metadata::state::{
    BrokerGuard, CreateTopic, FeatureRange, HostPort, Placement, RegisterBroker, Topic,
};
use skerry_metadata::{Command, Delta, Outcome, Quorum, QuorumConfig, Refusal, Role, StartError, Voter};
use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, Uuid, WallMs};

fn topic(name: &str, partitions: i32) -> Command {
    let mut id = [0; 16];
    id[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    Command::CreateTopic(CreateTopic {
        id: Uuid(id),
        name: name.into(),
        placement: Placement::Automatic {
            partitions,
            replication_factor: 1,
        },
        configs: vec![("retention.ms".into(), "1000".into())],
        at: WallMs(7),
    })
}

fn registration(broker: i32, incarnation: u8) -> Command {
    Command::RegisterBroker(RegisterBroker {
        broker: BrokerId(broker),
        incarnation: Uuid([incarnation; 16]),
        directory: Uuid([7; 16]),
        clean: false,
        kafka: HostPort::new("localhost", 9092),
        cluster: HostPort::new("localhost", 9093),
        rack: None,
        features: FeatureRange::OURS,
        at: WallMs(7),
    })
}

async fn join(quorum: &Quorum, broker: i32, incarnation: u8) -> BrokerEpoch {
    let outcome = quorum.propose(registration(broker, incarnation)).await.unwrap();
    let Outcome::BrokerRegistered { epoch } = outcome else {
        panic!("{outcome:?}")
    };
    let guard = BrokerGuard {
        broker: BrokerId(broker),
        epoch,
    };
    assert_eq!(
        quorum.propose(Command::UnfenceBroker(guard)).await.unwrap(),
        Outcome::Done
    );
    epoch
}

fn single(dir: &Path) -> QuorumConfig {
    QuorumConfig::single(BrokerId(1), dir.join("quorum"), "127.0.0.1:0")
}

async fn start(config: QuorumConfig) -> Quorum {
    Quorum::start(Env::os(), config, |_, _| {}).await.unwrap()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn one_node_keeps_everything_over_shutdown_and_kill() {
    let dir = tempfile::tempdir().unwrap();
    let first = runtime();
    let (cluster_id, epoch) = first.block_on(async {
        let quorum = start(single(dir.path())).await;
        assert_eq!(quorum.status().role, Role::Leader);
        let epoch = join(&quorum, 1, 1).await;
        let created = quorum.propose(topic("orders", 3)).await.unwrap();
        assert!(matches!(created, Outcome::TopicCreated { .. }), "{created:?}");
        // Read your writes.
        assert_eq!(quorum.image().topic("orders").unwrap().partitions.len(), 3);
        let again = quorum
            .propose(Command::DeleteTopic { topic: Uuid([9; 16]) })
            .await
            .unwrap();
        assert_eq!(again, Outcome::Refused(Refusal::UnknownTopic));
        let cluster_id = quorum.image().cluster_id().unwrap();
        quorum.shutdown().await;
        (cluster_id, epoch)
    });
    drop(first);

    // Killed: nothing is closed in order.
    let second = runtime();
    let quorum = second.block_on(async {
        let quorum = start(single(dir.path())).await;
        assert_eq!(quorum.image().cluster_id(), Some(cluster_id));
        assert_eq!(
            leader_epoch(quorum.image().topic("orders").unwrap()),
            LeaderEpoch(0)
        );
        assert!(join(&quorum, 1, 2).await > epoch);
        assert_eq!(
            leader_epoch(quorum.image().topic("orders").unwrap()),
            LeaderEpoch(1),
            "a new leadership"
        );
        quorum.propose(topic("payments", 1)).await.unwrap();
        quorum
    });
    second.shutdown_background();
    drop(quorum);

    let third = runtime();
    third.block_on(async {
        let quorum = start_when_free(single(dir.path())).await;
        let image = quorum.image();
        assert_eq!(
            image.topics().map(|topic| &*topic.name).collect::<Vec<_>>(),
            ["orders", "payments"]
        );
        quorum.shutdown().await;
    });
}

fn leader_epoch(topic: &Arc<Topic>) -> LeaderEpoch {
    topic.partitions[0].leader_epoch
}

/// The tasks of a runtime that was dropped may hold the store for a moment.
async fn start_when_free(config: QuorumConfig) -> Quorum {
    for _ in 0..500 {
        match Quorum::start(Env::os(), config.clone(), |_, _| {}).await {
            Err(StartError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(10)).await,
            started => return started.unwrap(),
        }
    }
    panic!("the store is still in use");
}

#[tokio::test]
async fn a_watch_tells_every_change_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let quorum = start(single(dir.path())).await;
    let mut watch = quorum.watch();
    join(&quorum, 1, 1).await;
    for number in 0..50 {
        quorum.propose(topic(&format!("t{number}"), 1)).await.unwrap();
    }
    let (mut created, mut image) = (Vec::new(), watch.image());
    while created.len() < 50 {
        let (next, deltas) = watch.changed().await;
        assert!(next.index() > image.index() || created.is_empty());
        image = next;
        created.extend(deltas.into_iter().filter_map(|delta| match delta {
            Delta::TopicCreated { name, .. } => Some(name.to_string()),
            _ => None,
        }));
    }
    assert_eq!(
        created,
        (0..50).map(|number| format!("t{number}")).collect::<Vec<_>>()
    );
    quorum.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_replaces_the_log_and_survives_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = single(dir.path());
    config.snapshot_every_entries = 50;
    let quorum = start(config.clone()).await;
    join(&quorum, 1, 1).await;
    for number in 0..200 {
        quorum.propose(topic(&format!("t{number}"), 1)).await.unwrap();
    }
    until("a snapshot", || quorum.status().snapshot_index > 150).await;
    let before = quorum.image();
    quorum.shutdown().await;
    let quorum = start_when_free(config).await;
    let after = quorum.image();
    assert_eq!(
        after.topics().collect::<Vec<_>>(),
        before.topics().collect::<Vec<_>>()
    );
    assert!(quorum.status().snapshot_index > 150);
    quorum.shutdown().await;
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 10 s: {what}");
}

#[tokio::test]
async fn directories_of_others_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let quorum = start(single(dir.path())).await;
    let refusal = |config: QuorumConfig| async {
        Quorum::start(Env::os(), config, |_, _| {})
            .await
            .err()
            .expect("refused")
            .to_string()
    };
    let shown = dir.path().join("quorum").display().to_string();

    let text = refusal(single(dir.path())).await;
    assert_eq!(text, format!("{shown}/raft is in use by another process"));
    quorum.shutdown().await;

    let mut other = single(dir.path());
    other.node_id = BrokerId(2);
    let text = refusal(other).await;
    assert_eq!(
        text,
        format!("{shown} belongs to node 1, and this is node 2: use that node's id, or another directory")
    );

    let mut other = single(dir.path());
    other.cluster_id = Some(Uuid([5; 16]));
    let text = loop {
        let text = refusal(other.clone()).await;
        if !text.contains("in use") {
            break text;
        }
    };
    assert!(text.starts_with("the metadata belongs to cluster "), "{text}");

    std::fs::write(dir.path().join("quorum/identity"), "version=2\nsomething else\n").unwrap();
    let text = refusal(single(dir.path())).await;
    assert_eq!(
        text,
        format!("{shown} has format version 2, and this program reads up to 1: a newer skerry wrote it")
    );
}

/// Three voters on loopback.
struct Three {
    _dir: tempfile::TempDir,
    configs: Vec<QuorumConfig>,
    nodes: Vec<Option<Quorum>>,
}

impl Three {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // A node that is started again needs its port again: on addresses that no connection goes out from, nobody takes it.
        static CLUSTERS: AtomicU8 = AtomicU8::new(60);
        let net = CLUSTERS.fetch_add(1, Ordering::Relaxed);
        let held: Vec<_> = (1..=3)
            .map(|id| std::net::TcpListener::bind(format!("127.0.{net}.{id}:0")).unwrap())
            .collect();
        let voters: Vec<Voter> = (1..)
            .zip(&held)
            .map(|(id, listener)| Voter {
                id: BrokerId(id),
                addr: listener.local_addr().unwrap().to_string(),
            })
            .collect();
        drop(held);
        let configs: Vec<_> = voters
            .iter()
            .map(|voter| {
                let path = dir.path().join(voter.id.to_string());
                let mut config = QuorumConfig::single(voter.id, path, voter.addr.clone());
                config.voters.clone_from(&voters);
                config.snapshot_every_entries = 100;
                config
            })
            .collect();
        let mut nodes = Vec::new();
        for config in &configs {
            nodes.push(Some(start(config.clone()).await));
        }
        Self {
            _dir: dir,
            configs,
            nodes,
        }
    }

    fn node(&self, id: usize) -> &Quorum {
        self.nodes[id - 1].as_ref().expect("it runs")
    }

    fn running(&self) -> impl Iterator<Item = &Quorum> {
        self.nodes.iter().flatten()
    }

    /// A leader that every running node knows.
    async fn leader(&self) -> usize {
        let mut leader = None;
        until("a leader", || {
            let mut known = self.running().map(|node| node.status().leader);
            leader = known.next().flatten();
            let alive = leader.is_some_and(|id| self.running().any(|node| node.status().node_id == id));
            alive && known.all(|other| other == leader)
        })
        .await;
        usize::try_from(leader.unwrap().get()).unwrap()
    }

    async fn stop(&mut self, id: usize) {
        self.nodes[id - 1].take().expect("it runs").shutdown().await;
    }

    async fn restart(&mut self, id: usize) {
        self.nodes[id - 1] = Some(start_when_free(self.configs[id - 1].clone()).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_forward_and_survive_their_leader() {
    let mut three = Three::start().await;
    let leader = three.leader().await;
    let follower = if leader == 1 { 2 } else { 1 };
    // Through a follower, and visible there on return.
    join(three.node(follower), 1, 1).await;
    let created = three.node(follower).propose(topic("a", 1)).await.unwrap();
    assert!(matches!(created, Outcome::TopicCreated { .. }), "{created:?}");
    assert!(three.node(follower).image().topic("a").is_some());
    let refused = three
        .node(follower)
        .propose(Command::DeleteTopic { topic: Uuid([9; 16]) })
        .await
        .unwrap();
    assert_eq!(refused, Outcome::Refused(Refusal::UnknownTopic));

    let before_the_stop = three.node(leader).status();
    three.stop(leader).await;
    three.node(follower).propose(topic("b", 1)).await.unwrap();
    let second = three.leader().await;
    assert_ne!(second, leader);

    // Far enough for the dead node to need a snapshot.
    for number in 0..250 {
        three
            .node(second)
            .propose(topic(&format!("t{number}"), 1))
            .await
            .unwrap();
    }
    let old_end = before_the_stop.last_log_index;
    until("the log behind a snapshot is dropped", || {
        three.node(second).status().purged_index > old_end
    })
    .await;
    three.restart(leader).await;
    let want = three.node(second).image().index();
    until("the old leader caught up", || {
        three.node(leader).image().index() >= want
    })
    .await;
    let images: Vec<_> = three.running().map(Quorum::image).collect();
    for image in &images[1..] {
        assert_eq!(image.topic_count(), 252);
        assert_eq!(
            image.topics().collect::<Vec<_>>(),
            images[0].topics().collect::<Vec<_>>()
        );
    }
    let ids: Vec<_> = images.iter().map(|image| image.cluster_id()).collect();
    assert!(ids[0].is_some() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    for id in 1..=3 {
        three.stop(id).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_goes_where_it_is_sent() {
    let mut three = Three::start().await;
    let leader = three.leader().await;
    join(three.node(leader), 1, 1).await;
    let before = three.node(leader).leadership();
    assert!(before.here);
    let heir = leader % 3 + 1;
    three
        .node(leader)
        .transfer_leader(BrokerId(i32::try_from(heir).unwrap()))
        .await
        .unwrap();
    until("the heir leads", || {
        three.node(heir).status().role == Role::Leader
    })
    .await;
    assert_eq!(three.leader().await, heir);
    let now = three.node(leader).leadership_changed(before).await;
    assert!(now.term > before.term && !now.here, "{before:?} {now:?}");
    // What only a leader may decide is not carried to the next one.
    let refused = three.node(leader).propose_as_leader(topic("b", 1)).await.unwrap();
    assert_eq!(refused, None);
    let decided = three.node(heir).propose_as_leader(topic("c", 1)).await.unwrap();
    assert!(
        matches!(decided, Some(Outcome::TopicCreated { .. })),
        "{decided:?}"
    );
    three.node(leader).propose(topic("a", 1)).await.unwrap();
    assert!(three.node(leader).image().topic("b").is_none());
    for id in 1..=3 {
        three.stop(id).await;
    }
}
