//! Nodes on loopback, each in a runtime of its own, so that one can be killed: its sockets close, nothing is said.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use skerry_env::Env;
use skerry_metadata::state::{CreateTopic, FeatureRange, HostPort, Placement, RegisterBroker};
use skerry_metadata::{
    Command, Image, Outcome, Quorum, QuorumConfig, StartError, Voter, WalMark, cut_unsynced_wal,
};
use skerry_types::{BrokerId, Uuid, WallMs};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::net::Links;

/// Everything must come about within this time, on a machine that does other things too.
pub const DEADLINE: Duration = Duration::from_secs(30);

struct Node {
    runtime: Runtime,
    quorum: Quorum,
}

pub struct World {
    dir: tempfile::TempDir,
    pub links: Arc<Links>,
    addrs: BTreeMap<i32, String>,
    /// Who founds the cluster.
    voters: Vec<Voter>,
    marks: BTreeMap<i32, WalMark>,
    nodes: BTreeMap<i32, Node>,
    pub snapshot_every_entries: u64,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

impl World {
    /// Addresses for nodes 1 to `nodes`, of which the first `voters` found the cluster. Nothing runs yet.
    pub fn new(voters: i32, nodes: i32) -> Self {
        if let Ok(filter) = std::env::var("RUST_LOG") {
            let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
        }
        // A node that is started again needs its port again: on addresses that no connection goes out from, nobody takes it.
        static WORLDS: AtomicU8 = AtomicU8::new(100);
        let net = WORLDS.fetch_add(1, Ordering::Relaxed);
        let held: Vec<_> = (1..=nodes)
            .map(|id| std::net::TcpListener::bind(format!("127.0.{net}.{id}:0")).unwrap())
            .collect();
        let addrs: BTreeMap<i32, String> = (1..)
            .zip(&held)
            .map(|(id, listener)| (id, listener.local_addr().unwrap().to_string()))
            .collect();
        let links = Links::new();
        for (id, addr) in &addrs {
            links.place(addr, *id);
        }
        let voters = addrs
            .iter()
            .take(usize::try_from(voters).unwrap())
            .map(|(id, addr)| Voter {
                id: BrokerId(*id),
                addr: addr.clone(),
            })
            .collect();
        Self {
            dir: tempfile::tempdir().unwrap(),
            links,
            addrs,
            voters,
            marks: BTreeMap::new(),
            nodes: BTreeMap::new(),
            snapshot_every_entries: 10_000,
        }
    }

    /// A cluster whose voters all run and know their leader.
    pub async fn of_voters(voters: i32) -> Self {
        let mut world = Self::new(voters, voters + 2);
        for id in 1..=voters {
            world.start(id).await;
        }
        world.leader().await;
        world
    }

    pub fn dir(&self, id: i32) -> PathBuf {
        self.dir.path().join(id.to_string())
    }

    pub fn config(&mut self, id: i32) -> QuorumConfig {
        let mut config = QuorumConfig::single(BrokerId(id), self.dir(id), self.addrs[&id].clone());
        config.voters.clone_from(&self.voters);
        config.snapshot_every_entries = self.snapshot_every_entries;
        config.wal_mark = Some(self.marks.entry(id).or_default().clone());
        config
    }

    pub async fn start(&mut self, id: i32) {
        self.try_start(id).await.unwrap();
    }

    pub async fn try_start(&mut self, id: i32) -> Result<(), StartError> {
        let config = self.config(id);
        let links = Arc::clone(&self.links);
        let runtime = runtime();
        let quorum = runtime
            .spawn(async move {
                // The tasks of a runtime that was dropped may hold the store for a moment.
                for _ in 0..3_000 {
                    let os = Env::os();
                    let net = links.network(id, os.net.clone());
                    let env = Env { net, ..os };
                    match Quorum::start(env, config.clone(), |_, _| {}).await {
                        Err(StartError::InUse { .. } | StartError::Listen { .. }) => {
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                        started => return started,
                    }
                }
                panic!("the store or the port is still in use");
            })
            .await
            .unwrap();
        match quorum {
            Ok(quorum) => {
                self.nodes.insert(id, Node { runtime, quorum });
                Ok(())
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    /// Ends in order.
    pub async fn stop(&mut self, id: i32) {
        let node = self.nodes.remove(&id).expect("it runs");
        let quorum = node.quorum;
        node.runtime.spawn(quorum.shutdown()).await.unwrap();
        node.runtime.shutdown_background();
    }

    /// Ends without a word, and loses what was not durable.
    pub async fn kill(&mut self, id: i32) {
        let node = self.nodes.remove(&id).expect("it runs");
        node.runtime.shutdown_background();
        drop(node.quorum);
    }

    /// The power of a node that was killed was gone as well.
    pub async fn cut_power(&mut self, id: i32) {
        let dir = self.dir(id).join("raft");
        // Only when nobody has the database open any more is its log at rest.
        let lock = dir.join("LOCK");
        until("the store is closed", || is_unlocked(&lock)).await;
        cut_unsynced_wal(&dir, &self.marks[&id]).unwrap();
    }

    /// The disk is gone.
    pub async fn wipe(&mut self, id: i32) {
        let dir = self.dir(id);
        until("the store is closed", || is_unlocked(&dir.join("raft/LOCK"))).await;
        std::fs::remove_dir_all(dir).unwrap();
        self.marks.remove(&id);
    }

    pub fn node(&self, id: i32) -> &Quorum {
        &self.nodes[&id].quorum
    }

    pub fn running(&self) -> impl Iterator<Item = (i32, &Quorum)> {
        self.nodes.iter().map(|(id, node)| (*id, &node.quorum))
    }

    /// Starts `work` where the node's own tasks run.
    pub fn spawn<T, F>(&self, id: i32, work: impl FnOnce(Quorum) -> F) -> JoinHandle<T>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let node = &self.nodes[&id];
        node.runtime.spawn(work(node.quorum.clone()))
    }

    /// Runs `work` where the node's own tasks run.
    pub async fn on<T, F>(&self, id: i32, work: impl FnOnce(Quorum) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.spawn(id, work).await.unwrap()
    }

    pub async fn propose(&self, id: i32, command: Command) -> Outcome {
        self.on(id, |quorum| async move { quorum.propose(command).await.unwrap() })
            .await
    }

    /// A leader that runs and that every running member knows.
    pub async fn leader(&self) -> i32 {
        let mut leader = None;
        until("a leader that all know", || {
            let mut known = self.running().map(|(_, node)| node.status().leader);
            leader = known.next().flatten();
            let runs = leader.is_some_and(|id| self.nodes.contains_key(&id.get()));
            runs && known.all(|other| other == leader)
        })
        .await;
        leader.unwrap().get()
    }

    /// A node that runs and does not lead.
    pub async fn follower(&self) -> i32 {
        let leader = self.leader().await;
        self.running().map(|(id, _)| id).find(|id| *id != leader).unwrap()
    }

    pub async fn images_agree(&self) -> Arc<Image> {
        let newest = self
            .running()
            .map(|(_, node)| node.image().index())
            .max()
            .unwrap();
        until("all have caught up", || {
            self.running().all(|(_, node)| node.image().index() >= newest)
        })
        .await;
        let images: Vec<_> = self.running().map(|(_, node)| node.image()).collect();
        for image in &images[1..] {
            assert_eq!(
                image.topics().collect::<Vec<_>>(),
                images[0].topics().collect::<Vec<_>>()
            );
        }
        Arc::clone(&images[0])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for (_, node) in std::mem::take(&mut self.nodes) {
            node.runtime.shutdown_background();
        }
    }
}

/// RocksDB holds a POSIX lock, which does not conflict within a process: ask the system who has the file open.
fn is_unlocked(lock: &std::path::Path) -> bool {
    let open = std::fs::read_dir("/proc/self/fd").unwrap();
    !open
        .flatten()
        .any(|entry| std::fs::read_link(entry.path()).is_ok_and(|path| path == lock))
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !holds() {
        assert!(begin.elapsed() < DEADLINE, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn topic(name: &str) -> Command {
    let mut id = [0; 16];
    id[..name.len().min(16)].copy_from_slice(&name.as_bytes()[..name.len().min(16)]);
    Command::CreateTopic(CreateTopic {
        id: Uuid(id),
        name: name.into(),
        placement: Placement::Automatic {
            partitions: 1,
            replication_factor: 1,
        },
        configs: vec![],
        at: WallMs(7),
    })
}

/// A broker for topics to be placed on.
pub fn registration() -> Command {
    Command::RegisterBroker(RegisterBroker {
        broker: BrokerId(1),
        incarnation: Uuid([1; 16]),
        directory: Uuid([7; 16]),
        clean: false,
        kafka: HostPort::new("localhost", 9092),
        cluster: HostPort::new("localhost", 9093),
        rack: None,
        features: FeatureRange::OURS,
        at: WallMs(7),
    })
}

/// Registers and unfences the broker.
pub async fn place_for_topics(world: &World) {
    let any = world.leader().await;
    let Outcome::BrokerRegistered { epoch, .. } = world.propose(any, registration()).await else {
        panic!("not registered")
    };
    let guard = skerry_metadata::state::BrokerGuard {
        broker: BrokerId(1),
        epoch,
    };
    let unfenced = world.propose(any, Command::UnfenceBroker(guard)).await;
    assert_eq!(unfenced, Outcome::Done);
}

/// A topic that is there may have been made by an attempt whose answer was lost.
pub fn is_created(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::TopicCreated { .. } | Outcome::Refused(skerry_metadata::Refusal::TopicExists(_))
    )
}
