//! The metadata of a big cluster: what the death of a broker costs, and what a decision costs that finds nothing to do.

use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use skerry_metadata_state::{
    BrokerGuard, ChangePartition, Command, Controller, ControllerSettings, CreateTopic, FeatureRange,
    HostPort, Image, Outcome, Placement, RegisterBroker, State,
};
use skerry_types::{BrokerId, Instant, PartitionIndex, Uuid, WallMs};

const BROKERS: i32 = 3;
const PARTITIONS: u32 = 10_000;

/// Three brokers, and 10,000 partitions of three replicas in so many topics.
fn cluster(topics: u32) -> (State, u64) {
    let mut state = State::default();
    let mut index = 0;
    let mut apply = |command: &Command| {
        index += 1;
        let outcome = state.apply(index, command).outcome;
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        outcome
    };
    for broker in (1..=BROKERS).map(BrokerId) {
        let registered = apply(&Command::RegisterBroker(RegisterBroker {
            broker,
            incarnation: Uuid([1; 16]),
            directory: Uuid([2; 16]),
            clean: true,
            kafka: HostPort::new("a", 9092),
            cluster: HostPort::new("a", 9093),
            rack: None,
            features: FeatureRange::OURS,
            at: WallMs(0),
        }));
        let Outcome::BrokerRegistered { epoch } = registered else {
            unreachable!("it is registered")
        };
        apply(&Command::UnfenceBroker(BrokerGuard { broker, epoch }));
    }
    for topic in 0..topics {
        // Random in all its bytes, as ids are: leaders are spread by them.
        let mixed = u128::from(topic + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        let id = mixed.to_be_bytes();
        apply(&Command::CreateTopic(CreateTopic {
            id: Uuid(id),
            name: format!("topic-{topic}").into(),
            placement: Placement::Automatic {
                partitions: i32::try_from(PARTITIONS / topics).expect("small"),
                replication_factor: 3,
            },
            configs: vec![("min.insync.replicas".into(), "2".into())],
            at: WallMs(0),
        }));
    }
    (state, index)
}

fn guard(image: &Image, broker: BrokerId) -> BrokerGuard {
    let epoch = image.broker(broker).expect("it is registered").epoch;
    BrokerGuard { broker, epoch }
}

/// One entry in which a leader takes a broker out of all its in-sync sets.
fn shrink(image: &Image) -> Command {
    let leader = BrokerId(1);
    let led = image.topics().flat_map(|topic| {
        let numbered = topic.partitions.iter().zip(0..);
        numbered
            .filter(|(partition, _)| partition.leader == Some(leader))
            .map(|(partition, number)| {
                Command::ChangePartition(ChangePartition {
                    topic: topic.id,
                    partition: PartitionIndex(number),
                    leader: guard(image, leader),
                    leader_epoch: partition.leader_epoch,
                    partition_epoch: partition.partition_epoch,
                    isr: vec![guard(image, leader), guard(image, BrokerId(2))],
                })
            })
    });
    Command::Batch(led.collect())
}

fn apply(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("apply");
    group.sample_size(20);
    for topics in [1, 100, 10_000] {
        let (state, index) = cluster(topics);
        let fence = Command::FenceBroker(guard(state.image(), BrokerId(3)));
        let shrink = shrink(state.image());
        for (name, command) in [("fence", fence), ("shrink-batch", shrink)] {
            // The clone is what a reader holds: nothing may be changed in place.
            group.bench_function(format!("{name}/{topics}-topics"), |bencher| {
                bencher.iter_batched(
                    || state.clone(),
                    |mut state| {
                        let applied = state.apply(index + 1, &command);
                        (applied, state)
                    },
                    BatchSize::LargeInput,
                );
            });
        }
    }
    group.finish();
}

fn decide(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decide");
    let (mut state, index) = cluster(100);
    let now = Instant::from_millis(1);
    let controller = || {
        let mut controller = Controller::new(now, ControllerSettings::default());
        for broker in (1..=BROKERS).map(BrokerId) {
            controller.on_heartbeat(guard(state.image(), broker), index, Some(now), now);
        }
        let nothing = controller.decide(state.image(), now);
        assert!(nothing.decisions.is_empty());
        controller
    };
    let mut idle = controller();
    group.bench_function("nothing-new", |bencher| {
        bencher.iter(|| black_box(idle.decide(state.image(), now)));
    });
    let later = now + ControllerSettings::default().leader_imbalance_check_interval;
    group.bench_function("all-leaders", |bencher| {
        bencher.iter_batched(
            || {
                let mut controller = controller();
                for broker in (1..=BROKERS).map(BrokerId) {
                    controller.on_heartbeat(guard(state.image(), broker), index, Some(later), later);
                }
                controller
            },
            |mut controller| black_box(controller.decide(state.image(), later)),
            BatchSize::LargeInput,
        );
    });
    let mut moving = controller();
    let mut at = index;
    group.bench_function("new-image", |bencher| {
        bencher.iter(|| {
            at += 1;
            state.skip(at);
            black_box(moving.decide(state.image(), now))
        });
    });
    group.finish();
}

criterion_group!(benches, apply, decide);
criterion_main!(benches);
