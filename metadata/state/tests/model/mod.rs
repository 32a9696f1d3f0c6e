//! A small world around the metadata: brokers with logs, leaders that append, followers that copy, and all that the
//! rules have to survive. Kafka's rules promise that whoever is in sync or eligible has every committed record
//! (SIMULATION's invariant 5); here that is looked at after each step.
#![allow(dead_code, reason = "each test file uses what it needs")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestError, TestRng, TestRunner};
use skerry_metadata_state::{
    AlterConfigs, AlterReassignment, BrokerGuard, ChangePartition, Command, ConfigOp, ConfigResource,
    CreateTopic, ElectLeader, Election, FEATURE_LEVEL, FeatureRange, HostPort, Image, Outcome, Partition,
    Placement, RegisterBroker, ReplicaLost, ReplicaOffline, State,
};
use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionIndex, Uuid, WallMs};

const TOPIC: Uuid = Uuid([9; 16]);
const BROKERS: i32 = 4;
const PARTITIONS: usize = 2;

/// What may happen next. A `usize` is a partition.
#[derive(Clone, Debug)]
pub enum Step {
    Restart {
        broker: i32,
        wiped: bool,
        clean: bool,
    },
    Fence(i32),
    Unfence(i32),
    Drain(i32),
    /// A copy is damaged.
    Lose(usize, i32),
    Append(usize),
    /// The follower copies up to so many records.
    Copy(usize, i32, usize),
    /// A copy cannot be opened, or can again.
    Offline(usize, i32, bool),
    /// The leader proposes these as in sync, as far as it may.
    Propose(usize, Vec<i32>),
    /// The proposal that is under way is decided.
    Decide(usize),
    Reassign(usize, Vec<i32>),
    Cancel(usize),
    Elect(usize, Election),
    MinInSync(u8),
}

pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let broker = || 1..=BROKERS;
    let partition = || 0..PARTITIONS;
    let brokers = || prop::sample::subsequence((1..=BROKERS).collect::<Vec<_>>(), 1..=4).prop_shuffle();
    let election = prop_oneof![4 => Just(Election::Preferred), 1 => Just(Election::Unclean)];
    let step = prop_oneof![
        2 => (broker(), prop::bool::weighted(0.2), any::<bool>())
            .prop_map(|(broker, wiped, clean)| Step::Restart { broker, wiped, clean }),
        2 => broker().prop_map(Step::Fence),
        6 => broker().prop_map(Step::Unfence),
        1 => broker().prop_map(Step::Drain),
        1 => (partition(), broker()).prop_map(|(partition, broker)| Step::Lose(partition, broker)),
        2 => (partition(), broker(), any::<bool>()).prop_map(|(partition, broker, is)| Step::Offline(partition, broker, is)),
        8 => partition().prop_map(Step::Append),
        20 => (partition(), broker(), 1..4_usize).prop_map(|(p, broker, count)| Step::Copy(p, broker, count)),
        8 => (partition(), brokers()).prop_map(|(partition, isr)| Step::Propose(partition, isr)),
        6 => partition().prop_map(Step::Decide),
        3 => (partition(), brokers()).prop_map(|(partition, target)| Step::Reassign(partition, target)),
        1 => partition().prop_map(Step::Cancel),
        2 => (partition(), election).prop_map(|(partition, election)| Step::Elect(partition, election)),
        1 => (1..4_u8).prop_map(Step::MinInSync),
    ];
    prop::collection::vec(step, 1..250)
}

/// Runs `cases` histories that are the same each time; what is broken, in words, and the shortest history that shows
/// it, if that is asked for.
pub fn run(cases: u32, shrink: bool) -> Result<(), String> {
    let config = Config {
        cases,
        max_shrink_iters: if shrink { 20_000 } else { 0 },
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(config.rng_algorithm);
    let result = TestRunner::new_with_rng(config, rng).run(&steps(), |steps| {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        Ok(())
    });
    match result {
        Ok(()) => Ok(()),
        Err(TestError::Fail(reason, steps)) => Err(format!("{reason}: {steps:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// A log: the records' names.
type Log = Vec<u32>;

#[derive(Default)]
struct Copies {
    logs: BTreeMap<BrokerId, Log>,
    committed: Log,
    /// What the leader knows of its followers: in which of its epochs, from which of their registrations (KIP-903).
    progress: BTreeMap<BrokerId, (LeaderEpoch, BrokerEpoch, usize)>,
    /// Where the leader's log ended when its epoch began.
    epoch_start: (Option<LeaderEpoch>, usize),
    pending: Option<ChangePartition>,
    /// The disk with the last copy that might lead was wiped.
    wiped_out: bool,
    /// Whom a person has elected last.
    chosen: Option<BrokerId>,
}

pub struct World {
    state: State,
    index: u64,
    starts: u8,
    directories: BTreeMap<i32, u8>,
    records: u32,
    copies: Vec<Copies>,
    leaders: BTreeMap<(usize, LeaderEpoch), BrokerId>,
    epochs: BTreeMap<BrokerId, BrokerEpoch>,
}

impl World {
    pub fn new() -> Self {
        let mut world = Self {
            state: State::default(),
            index: 0,
            starts: 0,
            directories: BTreeMap::new(),
            records: 0,
            copies: (0..PARTITIONS).map(|_| Copies::default()).collect(),
            leaders: BTreeMap::new(),
            epochs: BTreeMap::new(),
        };
        world.apply(&Command::InitCluster {
            cluster_id: Uuid([1; 16]),
            feature_level: FEATURE_LEVEL,
        });
        for broker in 1..=BROKERS {
            world.restart(broker, false, true);
            world.apply(&Command::UnfenceBroker(world.guard(BrokerId(broker))));
        }
        world.apply(&Command::CreateTopic(CreateTopic {
            id: TOPIC,
            name: "t".into(),
            placement: Placement::Manual(vec![
                vec![BrokerId(1), BrokerId(2), BrokerId(3)],
                vec![BrokerId(2), BrokerId(4), BrokerId(1)],
            ]),
            configs: vec![("min.insync.replicas".into(), "2".into())],
            at: WallMs(0),
        }));
        world
    }

    pub fn step(&mut self, step: &Step) {
        match step {
            Step::Restart { broker, wiped, clean } => self.restart(*broker, *wiped, *clean),
            Step::Fence(broker) => self.apply_for(*broker, Command::FenceBroker),
            Step::Unfence(broker) => self.apply_for(*broker, Command::UnfenceBroker),
            Step::Drain(broker) => self.apply_for(*broker, Command::DrainBroker),
            Step::Lose(partition, broker) => self.lose(*partition, BrokerId(*broker)),
            Step::Offline(partition, broker, is_offline) => {
                let copy = ReplicaOffline {
                    replica: self.guard(BrokerId(*broker)),
                    topic: TOPIC,
                    partition: index(*partition),
                    is_offline: *is_offline,
                };
                self.apply(&Command::ReplicaOffline(copy));
            }
            Step::Append(partition) => self.append(*partition),
            Step::Copy(partition, broker, count) => self.copy(*partition, BrokerId(*broker), *count),
            Step::Propose(partition, isr) => self.propose(*partition, isr),
            Step::Decide(partition) => {
                if let Some(change) = self.copies[*partition].pending.take() {
                    self.apply(&Command::Batch(vec![Command::ChangePartition(change)]));
                }
            }
            Step::Reassign(partition, target) => {
                let target = target.iter().copied().map(BrokerId).collect();
                self.reassign(*partition, Some(target));
            }
            Step::Cancel(partition) => self.reassign(*partition, None),
            Step::Elect(partition, election) => self.elect(*partition, *election),
            Step::MinInSync(min) => {
                self.apply(&Command::AlterConfigs(AlterConfigs {
                    resource: ConfigResource::Topic("t".into()),
                    replace: false,
                    ops: vec![(
                        "min.insync.replicas".into(),
                        ConfigOp::Set(min.to_string().into()),
                    )],
                }));
            }
        }
        for partition in 0..PARTITIONS {
            self.commit(partition);
        }
        self.check();
    }

    fn image(&self) -> &Image {
        self.state.image()
    }

    fn partition(&self, partition: usize) -> &Partition {
        &self.image().topic("t").unwrap().partitions[partition]
    }

    fn guard(&self, broker: BrokerId) -> BrokerGuard {
        BrokerGuard {
            broker,
            epoch: self.image().broker(broker).unwrap().epoch,
        }
    }

    fn apply_for(&mut self, broker: i32, command: impl FnOnce(BrokerGuard) -> Command) {
        let command = command(self.guard(BrokerId(broker)));
        self.apply(&command);
    }

    fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        let outcome = self.state.apply(self.index, command).outcome;
        if self.index.is_multiple_of(11) {
            // What comes from a snapshot is what comes from the log (invariant 25).
            let image = Image::decode(&self.image().encode()).expect("it decodes");
            assert_eq!(&image, self.image());
            self.state = State::from_image(image);
        }
        if self.image().topic("t").is_some() {
            self.follow();
        }
        outcome
    }

    /// What brokers do about a new image.
    fn follow(&mut self) {
        for number in 0..PARTITIONS {
            let partition = self.partition(number).clone();
            let copies = &mut self.copies[number];
            // Whoever has no replica any more deletes its copy.
            copies
                .logs
                .retain(|broker, _| partition.replicas.contains(broker));
            let Some(leader) = partition.leader else { continue };
            if copies.epoch_start.0 != Some(partition.leader_epoch) {
                let log = copies.logs.entry(leader).or_default();
                copies.epoch_start = (Some(partition.leader_epoch), log.len());
            }
        }
    }

    fn restart(&mut self, broker: i32, wiped: bool, clean: bool) {
        self.starts += 1;
        if wiped {
            *self.directories.entry(broker).or_default() += 1;
            for number in 0..self.copies.len() {
                let alone = self.image().topic("t").is_some_and(|topic| {
                    let partition = &topic.partitions[number];
                    let mut members = partition.isr.iter().chain(&partition.elr);
                    members.all(|&member| member == BrokerId(broker))
                });
                let copies = &mut self.copies[number];
                copies.wiped_out |= alone;
                copies.logs.remove(&BrokerId(broker));
            }
        }
        let registration = RegisterBroker {
            broker: BrokerId(broker),
            incarnation: Uuid([self.starts; 16]),
            directory: Uuid([self.directories.get(&broker).copied().unwrap_or(0); 16]),
            clean,
            kafka: HostPort::new("a", 9092),
            cluster: HostPort::new("b", 9093),
            rack: None,
            features: FeatureRange::OURS,
            at: WallMs(0),
        };
        let outcome = self.apply(&Command::RegisterBroker(registration));
        // A broker's epochs only grow (invariant 26).
        let Outcome::BrokerRegistered { epoch } = outcome else {
            panic!("{outcome:?}")
        };
        let before = self.epochs.insert(BrokerId(broker), epoch);
        assert!(
            before < Some(epoch),
            "broker {broker} had {before:?}, has {epoch}"
        );
    }

    /// A copy is found damaged. It is given up only if it may be.
    fn lose(&mut self, number: usize, broker: BrokerId) {
        let lost = ReplicaLost {
            replica: self.guard(broker),
            topic: TOPIC,
            partition: index(number),
        };
        if self.apply(&Command::ReplicaLost(lost)).accepted().is_ok() {
            self.copies[number].logs.remove(&broker);
        }
    }

    fn append(&mut self, number: usize) {
        let Some(leader) = self.partition(number).leader else {
            return;
        };
        self.records += 1;
        let log = self.copies[number].logs.entry(leader).or_default();
        log.push(self.records);
    }

    fn copy(&mut self, number: usize, follower: BrokerId, count: usize) {
        let partition = self.partition(number).clone();
        let Some(leader) = partition.leader.filter(|&leader| leader != follower) else {
            return;
        };
        if !partition.replicas.contains(&follower) || partition.offline.contains(&follower) {
            return;
        }
        let epoch = self.guard(follower).epoch;
        let copies = &mut self.copies[number];
        let from = copies.logs.entry(leader).or_default().clone();
        let log = copies.logs.entry(follower).or_default();
        log.truncate(common(log, &from));
        let end = (log.len() + count).min(from.len());
        log.extend_from_slice(&from[log.len()..end]);
        copies
            .progress
            .insert(follower, (partition.leader_epoch, epoch, log.len()));
    }

    /// How far the leader knows `broker` to be.
    fn progress(&self, number: usize, broker: BrokerId) -> usize {
        let partition = self.partition(number);
        let copies = &self.copies[number];
        if partition.leader == Some(broker) {
            return copies.logs.get(&broker).map_or(0, Vec::len);
        }
        match copies.progress.get(&broker) {
            Some(&(epoch, _, end)) if epoch == partition.leader_epoch => end,
            _ => 0,
        }
    }

    /// The registration of which the leader knows the progress; a member that it knows nothing of is the image's.
    fn seen(&self, number: usize, broker: BrokerId) -> BrokerGuard {
        let guard = self.guard(broker);
        let partition = self.partition(number);
        match self.copies[number].progress.get(&broker) {
            Some(&(_, epoch, _)) if !partition.isr.contains(&broker) => BrokerGuard { broker, epoch },
            _ => guard,
        }
    }

    fn propose(&mut self, number: usize, isr: &[i32]) {
        let partition = self.partition(number).clone();
        let copies = &self.copies[number];
        let Some(leader) = partition.leader.filter(|_| copies.pending.is_none()) else {
            return;
        };
        let enough = copies.committed.len().max(copies.epoch_start.1);
        let mut members: BTreeSet<BrokerId> = isr.iter().copied().map(BrokerId).collect();
        members.retain(|member| {
            partition.isr.contains(member)
                || partition.replicas.contains(member) && self.progress(number, *member) >= enough
        });
        members.insert(leader);
        let change = ChangePartition {
            topic: TOPIC,
            partition: index(number),
            leader: self.guard(leader),
            leader_epoch: partition.leader_epoch,
            partition_epoch: partition.partition_epoch,
            isr: members.iter().map(|&member| self.seen(number, member)).collect(),
        };
        self.copies[number].pending = Some(change);
    }

    fn reassign(&mut self, number: usize, target: Option<Vec<BrokerId>>) {
        self.apply(&Command::AlterReassignment(AlterReassignment {
            topic: TOPIC,
            partition: index(number),
            target,
            may_change_factor: true,
        }));
    }

    fn elect(&mut self, number: usize, election: Election) {
        let eligible = self.partition(number).elr.clone();
        let request = ElectLeader {
            topic: TOPIC,
            partition: index(number),
            election,
        };
        let accepted = self.apply(&Command::ElectLeader(request)).accepted().is_ok();
        let leader = self.partition(number).leader;
        if accepted && election == Election::Unclean {
            self.copies[number].chosen = leader;
        }
        if accepted
            && election == Election::Unclean
            && let Some(leader) = leader.filter(|leader| !eligible.contains(leader))
        {
            // What was asked for: the records that the leader lacks are given up.
            let copies = &mut self.copies[number];
            let log = copies.logs.entry(leader).or_default();
            copies.committed.truncate(common(log, &copies.committed));
            copies.wiped_out = false;
        }
    }

    /// The leader's high watermark: what everybody in the maximal in-sync set has, where enough are in it.
    fn commit(&mut self, number: usize) {
        let partition = self.partition(number).clone();
        let Some(leader) = partition.leader else { return };
        let topic = self.image().topic("t").unwrap();
        if partition.isr.len() < self.image().min_insync_replicas(topic, &partition) {
            return;
        }
        let pending = self.copies[number].pending.iter();
        let pending = pending.filter(|change| change.leader_epoch == partition.leader_epoch);
        let pending = pending.flat_map(|change| change.isr.iter().map(|member| member.broker));
        let maximal = partition.isr.iter().copied().chain(pending);
        let end = maximal.map(|member| self.progress(number, member)).min();
        let copies = &mut self.copies[number];
        let log = copies.logs.entry(leader).or_default();
        let end = end.unwrap_or(0);
        if end > copies.committed.len() {
            assert_eq!(
                common(log, &copies.committed),
                copies.committed.len(),
                "the leader of {number} lacks what is committed"
            );
            copies.committed = log[..end].to_vec();
        }
    }

    fn check(&mut self) {
        assert_eq!(self.image().check(), Ok(()));
        for number in 0..PARTITIONS {
            let partition = self.partition(number).clone();
            let copies = &self.copies[number];
            for member in partition.isr.iter().chain(&partition.elr) {
                let has = copies
                    .logs
                    .get(member)
                    .map_or(0, |log| common(log, &copies.committed));
                assert!(
                    has == copies.committed.len(),
                    "broker {member} may lead {number} and has {has} of {} committed records: {partition:?}",
                    copies.committed.len()
                );
            }
            assert!(
                copies.wiped_out || !partition.isr.is_empty() || !partition.elr.is_empty(),
                "nobody may ever lead {number} again: {partition:?}"
            );
            if let Some(leader) = partition.leader {
                assert!(
                    !partition.offline.contains(&leader) || self.copies[number].chosen == Some(leader),
                    "an offline copy leads, and nobody has chosen it: {partition:?}"
                );
                let known = self.leaders.insert((number, partition.leader_epoch), leader);
                assert!(
                    known.is_none_or(|known| known == leader),
                    "{known:?} and {leader} led {number} in epoch {}",
                    partition.leader_epoch
                );
            }
        }
    }
}

fn index(number: usize) -> PartitionIndex {
    PartitionIndex(i32::try_from(number).unwrap())
}

/// How many records at the beginning are the same.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
