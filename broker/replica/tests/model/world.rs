//! The world: brokers with a partition each, wires between them, and the metadata as its own rules have it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use skerry_metadata_state::{
    AlterConfigs, AlterReassignment, BrokerGuard, ChangePartition, Command, ConfigOp, ConfigResource,
    CreateTopic, FEATURE_LEVEL, FeatureRange, HostPort, Image, Outcome, Partition, Placement, RegisterBroker,
    ReplicaLost, State,
};
use skerry_replica::{InSyncProposal, LagLimits, Leader, PartitionView, Visibility};
use skerry_types::{
    BrokerEpoch, BrokerId, IncarnationId, Instant, LeaderEpoch, Offset, PartitionIndex, TopicId, Uuid, WallMs,
};

use crate::ghost::Ghost;
use crate::node::{Life, Message, Node, Role};
use crate::rng::Rng;

pub const LIMITS: LagLimits = LagLimits {
    lag_max: Duration::from_millis(1_000),
    silence_max: Duration::from_millis(500),
    standing_max: Duration::from_millis(750),
};
const TOPIC: TopicId = Uuid([7; 16]);

/// How often each thing happens in one history, relative to the others.
#[derive(Clone, Debug)]
pub struct Weights(pub Vec<(Action, usize)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Produce,
    Flush,
    Send,
    Deliver,
    Ask,
    LearnImage,
    Propose,
    DecideProposal,
    TellAnswer,
    LoseAnswer,
    Tick,
    BreakWire,
    Pause,
    Wake,
    Crash,
    Start,
    Fence,
    Unfence,
    Prefer,
    DeleteRecords,
    AlterMinInSync,
    Checkpoint,
    Drain,
    Reassign,
    LoseReplica,
    Wipe,
}

impl Weights {
    /// Faults are on or off in each history: a history with all of them rarely gets far with any.
    pub fn draw(rng: &mut Rng) -> Self {
        use Action::*;
        let always = [
            (Produce, 8),
            (Flush, 16),
            (Send, 20),
            (Deliver, 40),
            (Ask, 16),
            (LearnImage, 16),
            (Propose, 16),
            (DecideProposal, 12),
            (TellAnswer, 12),
            (Tick, 4),
            (Start, 4),
            (Wake, 4),
            (Unfence, 6),
        ];
        let faults = [
            (LoseAnswer, 4),
            (BreakWire, 2),
            (Pause, 2),
            (Crash, 2),
            (Fence, 3),
            (Prefer, 2),
            (DeleteRecords, 1),
            (AlterMinInSync, 1),
            (Checkpoint, 2),
            (Drain, 1),
            (Reassign, 1),
            (LoseReplica, 1),
            (Wipe, 1),
        ];
        let mut weights = always.to_vec();
        for (action, weight) in faults {
            match rng.below(6) {
                0..3 => {}
                3 => weights.push((action, weight * 3)),
                _ => weights.push((action, weight)),
            }
        }
        Self(weights)
    }

    pub fn pick(&self, rng: &mut Rng) -> Action {
        let total = self.0.iter().map(|(_, weight)| weight).sum();
        let mut at = rng.below(total);
        for (action, weight) in &self.0 {
            if at < *weight {
                return *action;
            }
            at -= weight;
        }
        unreachable!("below the sum of the weights")
    }
}

/// A proposal on its way to the metadata, or its answer on the way back.
#[derive(Clone, Debug)]
pub struct Travelling {
    pub node: usize,
    pub incarnation: IncarnationId,
    pub proposal: InSyncProposal,
    pub command: ChangePartition,
    /// The leader waits for the answer. Otherwise it was told that nobody knows.
    pub awaited: bool,
    pub outcome: Option<Outcome>,
}

/// An `acks=all` produce request that waits.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub node: usize,
    pub incarnation: IncarnationId,
    pub leader_epoch: LeaderEpoch,
    pub offset: i64,
    pub record: crate::node::Record,
}

pub struct World {
    pub rng: Rng,
    pub now: Instant,
    pub visibility: Visibility,
    pub state: State,
    pub index: u64,
    pub images: Vec<Arc<Image>>,
    pub nodes: Vec<Node>,
    /// One for each direction of each pair: what is on it arrives in order, or is lost with all that follows.
    pub wires: BTreeMap<(usize, usize), VecDeque<Message>>,
    pub travelling: Vec<Travelling>,
    pub waiting: Vec<Waiting>,
    /// Whose copy was lost or deleted as a whole, and the leader epoch at that time: what leaders up to that epoch count
    /// of it is gone, and nobody's mistake.
    pub lost: BTreeMap<BrokerId, LeaderEpoch>,
    pub next_handle: u64,
    pub next_value: u32,
    pub trace: Vec<String>,
}

/// The world and whoever watches it.
pub struct Model {
    pub world: World,
    pub ghost: Ghost,
    pub acknowledged_under_faults: u64,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let count = 3 + rng.below(3);
        let visibility = if rng.one_in(5) {
            Visibility::Written
        } else {
            Visibility::Durable
        };
        let nodes = (1..=count).map(|id| Node {
            id: BrokerId(i32::try_from(id).unwrap()),
            directory: Uuid([u8::try_from(id).unwrap(); 16]),
            log: crate::node::Log::default(),
            checkpoint: 0,
            is_wiped: false,
            life: None,
            paused: false,
        });
        let mut world = Self {
            now: Instant::from_millis(1_000),
            visibility,
            state: State::default(),
            index: 0,
            images: Vec::new(),
            nodes: nodes.collect(),
            wires: BTreeMap::new(),
            travelling: Vec::new(),
            waiting: Vec::new(),
            lost: BTreeMap::new(),
            next_handle: 0,
            next_value: 0,
            trace: Vec::new(),
            rng,
        };
        let feature_level = [1, FEATURE_LEVEL][world.rng.below(2)];
        world.command(&Command::InitCluster {
            cluster_id: Uuid([1; 16]),
            feature_level,
        });
        for node in 0..count {
            world.start(node);
            let guard = world.guard(BrokerId(i32::try_from(node + 1).unwrap()));
            world.command(&Command::UnfenceBroker(guard));
        }
        world.command(&Command::CreateTopic(CreateTopic {
            id: TOPIC,
            name: "t".into(),
            placement: Placement::Manual(vec![world.nodes.iter().map(|node| node.id).collect()]),
            configs: Vec::new(),
            at: WallMs(0),
        }));
        if visibility == Visibility::Written {
            world.alter_config("flush.messages", "1000");
        }
        let min = 1 + world.rng.below(2);
        world.alter_min_in_sync(min);
        world
    }

    pub fn log(&mut self, what: String) {
        self.trace.push(format!("{:?} {what}", self.now));
    }

    /// Applies a command to the metadata: its quorum is another test's concern.
    pub fn command(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let outcome = self.state.apply(self.index, command).outcome;
        self.images.push(Arc::clone(self.state.image()));
        let text = match command {
            Command::RegisterBroker(registration) => format!("register {}", registration.broker),
            Command::CreateTopic(_) => "create topic".to_owned(),
            Command::ChangePartition(change) => {
                let isr: Vec<_> = change.isr.iter().map(|member| member.broker).collect();
                format!(
                    "change by {} at {}: {isr:?}",
                    change.leader.broker, change.partition_epoch
                )
            }
            other => format!("{other:?}"),
        };
        let partition = self.images.last().and_then(|image| image.topic("t"));
        let now = partition.map(|topic| {
            let p = &topic.partitions[0];
            format!(
                "leader {:?} epoch {} isr {:?} elr {:?} at {}",
                p.leader, p.leader_epoch, p.isr, p.elr, p.partition_epoch
            )
        });
        self.log(format!(
            "metadata: {text} -> {outcome:?}; {}",
            now.unwrap_or_default()
        ));
        outcome
    }

    pub fn image(&self) -> &Arc<Image> {
        self.state.image()
    }

    pub fn partition(&self) -> &Arc<Partition> {
        &self.image().topic("t").expect("created").partitions[0]
    }

    pub fn guard(&self, broker: BrokerId) -> BrokerGuard {
        let epoch = self
            .image()
            .broker(broker)
            .map_or(BrokerEpoch(-1), |broker| broker.epoch);
        BrokerGuard { broker, epoch }
    }

    pub fn node(&self, id: BrokerId) -> &Node {
        &self.nodes[usize::try_from(id.get() - 1).unwrap()]
    }

    pub fn life(&self, node: usize) -> Option<&Life> {
        self.nodes[node].life.as_ref()
    }

    /// The image that a broker has applied.
    pub fn seen(&self, node: usize) -> Option<&Arc<Image>> {
        self.life(node).map(|life| &self.images[life.seen])
    }

    /// `min.insync.replicas` as a broker knows it.
    pub fn min_in_sync_of(&self, node: &Node) -> usize {
        let seen = node.life.as_ref().expect("it lives").seen;
        min_in_sync(&self.images[seen]).expect("it has seen the topic")
    }

    /// The metadata has it as the leader, in the epoch in which it leads.
    pub fn is_current(&self, node: &Node) -> bool {
        let leads = node.life.as_ref().and_then(Life::leader);
        let partition = self.partition();
        partition.leader == Some(node.id)
            && leads.is_some_and(|leader| leader.epoch() == partition.leader_epoch)
    }

    pub fn current_leader(&self) -> Option<(&Node, &Leader)> {
        let node = self.nodes.iter().find(|node| self.is_current(node))?;
        Some((node, node.life.as_ref()?.leader()?))
    }

    pub fn alter_min_in_sync(&mut self, min: usize) {
        self.alter_config("min.insync.replicas", &min.to_string());
    }

    fn alter_config(&mut self, key: &str, value: &str) {
        self.command(&Command::AlterConfigs(AlterConfigs {
            resource: ConfigResource::Topic("t".into()),
            replace: false,
            ops: vec![(key.into(), ConfigOp::Set(value.into()))],
        }));
    }

    /// Gives the partition other replicas, or takes that back.
    pub fn reassign(&mut self) {
        let target = (!self.rng.one_in(4)).then(|| {
            let mut ids: Vec<BrokerId> = self.nodes.iter().map(|node| node.id).collect();
            for place in (1..ids.len()).rev() {
                ids.swap(place, self.rng.below(place + 1));
            }
            let (one, other) = (self.rng.below(ids.len()), self.rng.below(ids.len()));
            ids.truncate(1 + one.max(other));
            ids
        });
        self.command(&Command::AlterReassignment(AlterReassignment {
            topic: TOPIC,
            partition: PartitionIndex(0),
            target,
            may_change_factor: true,
        }));
    }

    /// A broker finds its copy damaged, and empties it if the others can do without. It looks at nothing before the
    /// metadata has that: an older image could let it lead.
    pub fn lose_replica(&mut self, at: usize) {
        let replica = self.guard(self.nodes[at].id);
        self.note_loss(at);
        let outcome = self.command(&Command::ReplicaLost(ReplicaLost {
            replica,
            topic: TOPIC,
            partition: PartitionIndex(0),
        }));
        if matches!(outcome, Outcome::PartitionChanged { .. }) {
            self.delete_copy(at);
            let seen = self.images.len() - 1;
            let life = self.nodes[at].life.as_mut().expect("it lives");
            life.seen = seen;
        }
    }

    /// Empties a copy.
    pub fn delete_copy(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        node.log.restart_at(0);
        node.checkpoint = 0;
        if let Some(life) = &mut node.life {
            life.role = Role::None;
            life.high_watermark = Offset(0);
            life.sending.clear();
        }
    }

    pub fn note_loss(&mut self, at: usize) {
        let epoch = self.partition().leader_epoch;
        self.lost.insert(self.nodes[at].id, epoch);
    }

    /// What a leader in `epoch` counts of `replica` may be gone.
    pub fn has_lost(&self, replica: BrokerId, epoch: LeaderEpoch) -> bool {
        self.lost.get(&replica).is_some_and(|lost| epoch <= *lost)
    }

    pub fn change_of(&self, node: usize, proposal: &InSyncProposal) -> ChangePartition {
        let life = self.life(node).expect("it proposes");
        ChangePartition {
            topic: TOPIC,
            partition: PartitionIndex(0),
            leader: BrokerGuard {
                broker: self.nodes[node].id,
                epoch: life.broker_epoch,
            },
            leader_epoch: proposal.leader_epoch,
            partition_epoch: proposal.partition_epoch,
            isr: proposal
                .in_sync
                .iter()
                .map(|(broker, epoch)| BrokerGuard {
                    broker: *broker,
                    epoch: *epoch,
                })
                .collect(),
        }
    }

    pub fn prefer(&mut self) {
        self.command(&Command::ElectLeader(skerry_metadata_state::ElectLeader {
            topic: TOPIC,
            partition: PartitionIndex(0),
            election: skerry_metadata_state::Election::Preferred,
        }));
    }

    /// Starts a broker. It looks at nothing before the metadata has its registration: an older image could call it the
    /// leader that it was before it crashed.
    pub fn start(&mut self, node: usize) {
        let mut random = [0; 16];
        random[..8].copy_from_slice(&self.rng.next().to_be_bytes());
        let incarnation = IncarnationId::from_random(random);
        let id = self.nodes[node].id;
        let outcome = self.command(&Command::RegisterBroker(RegisterBroker {
            broker: id,
            incarnation,
            directory: self.nodes[node].directory,
            clean: false,
            kafka: HostPort::new("k", 9092),
            cluster: HostPort::new("c", 9093),
            rack: None,
            features: FeatureRange::OURS,
            at: WallMs(0),
        }));
        let Outcome::BrokerRegistered { epoch } = outcome else {
            panic!("a registration was answered with {outcome:?}");
        };
        let seen = self.images.len() - 1;
        if self.nodes[node].is_wiped {
            self.note_loss(node);
        }
        let node = &mut self.nodes[node];
        node.is_wiped = false;
        let high_watermark = node.checkpoint.clamp(node.log.start, node.log.end());
        node.paused = false;
        node.life = Some(Life {
            incarnation,
            broker_epoch: epoch,
            seen,
            role: Role::None,
            high_watermark: Offset(high_watermark),
            asked: BTreeMap::new(),
            sending: BTreeMap::new(),
        });
    }

    /// Whose messages wait for a broker.
    pub fn senders_to(&self, to: usize) -> impl Iterator<Item = usize> {
        let with_mail = move |from: &usize| self.wires.get(&(*from, to)).is_some_and(|wire| !wire.is_empty());
        (0..self.nodes.len()).filter(with_mail)
    }

    pub fn post(&mut self, from: usize, to: usize, message: Message) {
        // A dead broker takes nothing.
        if self.nodes[to].life.is_some() {
            self.wires.entry((from, to)).or_default().push_back(message);
        }
    }
}

pub fn min_in_sync(image: &Image) -> Option<usize> {
    let topic = image.topic("t")?;
    Some(image.min_insync_replicas(topic, &topic.partitions[0]))
}

pub fn view_of(image: &Image, partition: &Partition) -> PartitionView {
    let topic = image.topic("t").expect("it is one of its partitions");
    PartitionView {
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas.clone(),
        in_sync: partition.isr.clone(),
        // What a leader answers meanwhile is no part of the model.
        removing: partition.removing.clone(),
        gives_up: image.may_let_go(topic, partition),
    }
}
