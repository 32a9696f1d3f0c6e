//! Bytes: golden ones, damaged ones, and those of random histories.

use std::sync::Arc;

use expect_test::expect;
use proptest::prelude::*;
use skerry_metadata_state::{
    AlterConfigs, AlterReassignment, BrokerGuard, ChangePartition, Command, ConfigOp, ConfigResource,
    CreatePartitions, CreateTopic, DecodeError, ElectLeader, Election, FeatureRange, HostPort, Image,
    Outcome, Placement, RegisterBroker, ReplicaLost, ReplicaOffline, State,
};
use skerry_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, Uuid, WallMs};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn registration() -> Command {
    Command::RegisterBroker(RegisterBroker {
        broker: BrokerId(1),
        incarnation: Uuid([2; 16]),
        directory: Uuid([4; 16]),
        clean: true,
        kafka: HostPort::new("a", 9092),
        cluster: HostPort::new("b", 9093),
        rack: Some("r".into()),
        features: FeatureRange { min: 1, max: 1 },
        at: WallMs(5),
    })
}

fn creation() -> Command {
    Command::CreateTopic(CreateTopic {
        id: Uuid([3; 16]),
        name: "t".into(),
        placement: Placement::Automatic {
            partitions: 1,
            replication_factor: 1,
        },
        configs: vec![("k".into(), "v".into())],
        at: WallMs(6),
    })
}

/// A log and a snapshot that version 1 wrote: they must stay readable.
#[test]
fn version_1_is_readable_for_ever() {
    let mut state = State::default();
    let guard = BrokerGuard {
        broker: BrokerId(1),
        epoch: BrokerEpoch(2),
    };
    let log = [
        Command::InitCluster {
            cluster_id: Uuid([1; 16]),
            feature_level: 1,
        },
        registration(),
        Command::UnfenceBroker(guard),
        creation(),
        Command::AlterConfigs(AlterConfigs {
            resource: ConfigResource::Group("g".into()),
            replace: false,
            ops: vec![(
                "k".into(),
                ConfigOp::Append {
                    values: vec!["v".into()],
                    default: "".into(),
                },
            )],
        }),
        Command::AllocateProducerIds(guard),
        Command::DrainBroker(guard),
        Command::Batch(vec![
            Command::AlterReassignment(AlterReassignment {
                topic: Uuid([3; 16]),
                partition: PartitionIndex(0),
                target: Some(vec![BrokerId(1)]),
                may_change_factor: true,
            }),
            Command::ReplicaLost(ReplicaLost {
                replica: guard,
                topic: Uuid([3; 16]),
                partition: PartitionIndex(0),
            }),
        ]),
    ];
    let mut golden = String::new();
    for (index, command) in (1..).zip(&log) {
        golden.push_str(&hex(&command.encode()));
        golden.push('\n');
        state.apply(index, command);
    }
    expect![[r#"
        0101010101010101010101010101010101010001
        0102000000010202020202020202020202020202020204040404040404040404040404040404010000000161238400000001622385010000000172000100010000000000000005
        0103000000010000000000000002
        01060303030303030303030303030303030300000001740000000001000100000001000000016b00000001760000000000000006
        01090300000001670000000001000000016b0200000001000000017600000000
        010c000000010000000000000002
        010e000000010000000000000002
        011100000002100303030303030303030303030303030300000000010000000100000001010f0000000100000000000000020303030303030303030303030303030300000000
    "#]].assert_eq(&golden);
    expect!["0100000000000000080101010101010101010101010101010101000100000000000003e80000000100000001020202020202020202020202020202020404040404040404040404040404040400000000000000020000000161238400000001622385010000000172000100010001000000000000000500000001030303030303030303030303030303030000000174000000000000000600000001000000016b000000017600000001000000010000000100000000000000000000000100000001000000000000000100000000000000000000000103000000016700000001000000016b0000000176"].assert_eq(&hex(&state.image().encode()));
}

/// Bytes could name batches in batches until the stack ends.
#[test]
fn a_batch_in_a_batch_is_damage() {
    let nested = Command::Batch(vec![Command::Batch(Vec::new())]).encode();
    let error = Command::decode(&nested).unwrap_err().to_string();
    assert_eq!(
        error,
        "a metadata command is damaged at byte 7: an unknown command"
    );
    let nested = Outcome::Batch(vec![Outcome::Batch(Vec::new())]).encode();
    assert!(Outcome::decode(&nested).is_err());
}

#[test]
fn a_newer_version_is_named() {
    let mut bytes = registration().encode();
    bytes[0] = 9;
    let error = Command::decode(&bytes).unwrap_err();
    assert_eq!(
        error,
        DecodeError::NewerVersion {
            what: "a metadata command",
            found: 9,
            supported: 1
        }
    );
    let mut bytes = Image::default().encode();
    bytes[0] = 3;
    assert_eq!(
        Image::decode(&bytes).unwrap_err().to_string(),
        "a metadata snapshot has version 3; this program reads up to 2: a newer skerry wrote it"
    );
}

fn guard() -> impl Strategy<Value = BrokerGuard> {
    (1..5_i32, 0..60_i64).prop_map(|(broker, epoch)| BrokerGuard {
        broker: BrokerId(broker),
        epoch: BrokerEpoch(epoch),
    })
}

fn id() -> impl Strategy<Value = Uuid> {
    (0..6_u8).prop_map(|byte| Uuid([byte; 16]))
}

fn name() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![
        Just("a"),
        Just("b.c"),
        Just("b_c"),
        Just("d"),
        Just("no good"),
        Just("e")
    ]
    .prop_map(Arc::from)
}

fn some_replicas() -> impl Strategy<Value = Vec<BrokerId>> {
    prop::collection::vec((1..5_i32).prop_map(BrokerId), 1..4)
}

fn replicas() -> impl Strategy<Value = Vec<Vec<BrokerId>>> {
    prop::collection::vec(prop::collection::vec((1..5_i32).prop_map(BrokerId), 0..4), 0..4)
}

fn placement() -> impl Strategy<Value = Placement> {
    prop_oneof![
        (-1..5_i32, -1..4_i16).prop_map(|(partitions, replication_factor)| Placement::Automatic {
            partitions,
            replication_factor
        }),
        replicas().prop_map(Placement::Manual),
    ]
}

fn config_op() -> impl Strategy<Value = ConfigOp> {
    let values = || {
        prop::collection::vec(
            prop_oneof![Just("1"), Just("2"), Just("true")].prop_map(Arc::from),
            0..3,
        )
    };
    prop_oneof![
        prop_oneof![Just("1"), Just("3"), Just("true")].prop_map(|value| ConfigOp::Set(value.into())),
        Just(ConfigOp::Delete),
        values().prop_map(|values| ConfigOp::Append {
            values,
            default: "1".into()
        }),
        values().prop_map(|values| ConfigOp::Subtract {
            values,
            default: "1".into()
        }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        9 => single_command(),
        1 => prop::collection::vec(single_command(), 0..4).prop_map(Command::Batch),
    ]
}

fn single_command() -> impl Strategy<Value = Command> {
    let resource = prop_oneof![
        name().prop_map(ConfigResource::Topic),
        Just(ConfigResource::ClusterDefault),
        name().prop_map(ConfigResource::Group),
        (1..5_i32).prop_map(|id| ConfigResource::Broker(BrokerId(id))),
    ];
    let key = prop_oneof![
        Just("min.insync.replicas"),
        Just("unclean.leader.election.enable")
    ]
    .prop_map(Arc::from);
    prop_oneof![
        1 => (id(), 0..3_u16).prop_map(|(cluster_id, feature_level)| Command::InitCluster { cluster_id, feature_level }),
        6 => (1..5_i32, 0..3_u8, any::<bool>(), 0..2_u8, any::<bool>()).prop_map(|(broker, incarnation, rack, directory, clean)| {
            Command::RegisterBroker(RegisterBroker {
                broker: BrokerId(broker),
                incarnation: Uuid([incarnation; 16]),
                directory: Uuid([directory; 16]),
                clean,
                kafka: HostPort::new("a", 9092),
                cluster: HostPort::new("b", 9093),
                rack: rack.then(|| "r".into()),
                features: FeatureRange { min: 0, max: 2 },
                at: WallMs(0),
            })
        }),
        12 => guard().prop_map(Command::UnfenceBroker),
        4 => guard().prop_map(Command::FenceBroker),
        1 => (1..5_i32).prop_map(|broker| Command::UnregisterBroker { broker: BrokerId(broker) }),
        8 => (id(), name(), placement()).prop_map(|(id, name, placement)| {
            Command::CreateTopic(CreateTopic { id, name, placement, configs: Vec::new(), at: WallMs(0) })
        }),
        2 => id().prop_map(|topic| Command::DeleteTopic { topic }),
        3 => (id(), -1..9_i32, prop::option::of(replicas()))
            .prop_map(|(topic, count, assignments)| Command::CreatePartitions(CreatePartitions { topic, count, assignments })),
        4 => (resource, any::<bool>(), prop::collection::vec((key, config_op()), 0..3))
            .prop_map(|(resource, replace, ops)| Command::AlterConfigs(AlterConfigs { resource, replace, ops })),
        12 => (id(), 0..4_i32, guard(), 0..4_i32, 0..8_i32, prop::collection::vec(guard(), 0..4)).prop_map(
            |(topic, partition, leader, leader_epoch, partition_epoch, isr)| {
                Command::ChangePartition(ChangePartition {
                    topic,
                    partition: PartitionIndex(partition),
                    leader,
                    leader_epoch: LeaderEpoch(leader_epoch),
                    partition_epoch: PartitionEpoch(partition_epoch),
                    isr,
                })
            }
        ),
        3 => (id(), 0..4_i32, any::<bool>()).prop_map(|(topic, partition, preferred)| {
            let election = if preferred { Election::Preferred } else { Election::Unclean };
            Command::ElectLeader(ElectLeader { topic, partition: PartitionIndex(partition), election })
        }),
        1 => guard().prop_map(Command::AllocateProducerIds),
        2 => guard().prop_map(Command::DrainBroker),
        3 => (guard(), id(), 0..4_i32).prop_map(|(replica, topic, partition)| {
            Command::ReplicaLost(ReplicaLost { replica, topic, partition: PartitionIndex(partition) })
        }),
        3 => (guard(), id(), 0..4_i32, any::<bool>()).prop_map(|(replica, topic, partition, is_offline)| {
            Command::ReplicaOffline(ReplicaOffline { replica, topic, partition: PartitionIndex(partition), is_offline })
        }),
        4 => (id(), 0..4_i32, prop::option::weighted(0.8, some_replicas()), prop::bool::weighted(0.9)).prop_map(
            |(topic, partition, target, may_change_factor)| {
                Command::AlterReassignment(AlterReassignment {
                    topic,
                    partition: PartitionIndex(partition),
                    target,
                    may_change_factor,
                })
            }
        ),
        1 => (0..4_u16).prop_map(|level| Command::SetFeatureLevel { level }),
        1 => (0..4_i32).prop_map(|survivor| Command::QuorumRecovered { survivor: BrokerId(survivor) }),
    ]
}

/// Gives a random command the epochs that the state has, most of the time: else everything would be refused.
fn current(image: &Image, command: Command, honest: bool) -> Command {
    let current = |guard: BrokerGuard| BrokerGuard {
        epoch: image
            .broker(guard.broker)
            .map_or(guard.epoch, |broker| broker.epoch),
        ..guard
    };
    match command {
        command if !honest => command,
        Command::UnfenceBroker(guard) => Command::UnfenceBroker(current(guard)),
        Command::FenceBroker(guard) => Command::FenceBroker(current(guard)),
        Command::AllocateProducerIds(guard) => Command::AllocateProducerIds(current(guard)),
        Command::DrainBroker(guard) => Command::DrainBroker(current(guard)),
        Command::ReplicaLost(mut lost) => {
            lost.replica = current(lost.replica);
            Command::ReplicaLost(lost)
        }
        Command::ReplicaOffline(mut copy) => {
            copy.replica = current(copy.replica);
            Command::ReplicaOffline(copy)
        }
        Command::Batch(commands) => Command::Batch(
            commands
                .into_iter()
                .map(|command| self::current(image, command, honest))
                .collect(),
        ),
        Command::ChangePartition(mut change) => {
            let partition = image
                .topic_by_id(change.topic)
                .and_then(|topic| topic.partition(change.partition));
            if let Some(partition) = partition {
                change.leader_epoch = partition.leader_epoch;
                change.partition_epoch = partition.partition_epoch;
                change.leader.broker = partition.leader.unwrap_or(change.leader.broker);
            }
            change.leader = current(change.leader);
            change.isr = change
                .isr
                .into_iter()
                .map(current)
                .chain([change.leader])
                .collect();
            Command::ChangePartition(change)
        }
        command => command,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every order holds after every command; what is written is read again; two replicas compute the same.
    #[test]
    fn histories_keep_their_orders(commands in prop::collection::vec((command(), prop::bool::weighted(0.9)), 1..80)) {
        let mut state = State::default();
        let mut replica = State::default();
        for (index, (command, honest)) in (1..).zip(commands) {
            let command = current(state.image(), command, honest);
            let bytes = command.encode();
            prop_assert_eq!(&Command::decode(&bytes), &Ok(command.clone()));
            let applied = state.apply(index, &command);
            prop_assert_eq!(state.image().check(), Ok(()));
            prop_assert_eq!(Outcome::decode(&applied.outcome.encode()), Ok(applied.outcome.clone()));
            // A replica that starts from a snapshot here and there.
            if index % 7 == 0 {
                replica = State::from_image(Image::decode(&replica.image().encode()).unwrap());
            }
            prop_assert_eq!(replica.apply(index, &Command::decode(&bytes).unwrap()), applied);
            prop_assert_eq!(replica.image(), state.image());
        }
    }

    /// Any prefix and any flipped byte is an error or another value, never a panic.
    #[test]
    fn damage_is_an_error(command in command(), cut in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut bytes = command.encode();
        let place = cut.index(bytes.len());
        prop_assert!(Command::decode(&bytes[..place]).is_err());
        bytes[place] ^= flip;
        let _ = Command::decode(&bytes);

        let mut state = State::default();
        state.apply(1, &registration());
        state.apply(2, &Command::UnfenceBroker(BrokerGuard { broker: BrokerId(1), epoch: BrokerEpoch(1) }));
        state.apply(3, &creation());
        let mut bytes = state.image().encode();
        let place = cut.index(bytes.len());
        prop_assert!(Image::decode(&bytes[..place]).is_err());
        bytes[place] ^= flip;
        let _ = Image::decode(&bytes);
    }
}

/// A change of one topic among ten thousand leaves the others where they are.
#[test]
fn one_change_copies_one_topic_of_ten_thousand() {
    let mut state = State::default();
    state.apply(1, &registration());
    state.apply(
        2,
        &Command::UnfenceBroker(BrokerGuard {
            broker: BrokerId(1),
            epoch: BrokerEpoch(1),
        }),
    );
    let mut images = Vec::new();
    for number in 0..10_000_u32 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
        let topic = CreateTopic {
            id: Uuid(id),
            name: format!("topic.{number}").into(),
            placement: Placement::Automatic {
                partitions: 3,
                replication_factor: 1,
            },
            configs: Vec::new(),
            at: WallMs(0),
        };
        state.apply(u64::from(number) + 3, &Command::CreateTopic(topic));
        // Every hundredth image stays, as a slow reader would hold it: what it shares is not copied.
        if number % 100 == 0 {
            images.push(Arc::clone(state.image()));
        }
    }
    assert_eq!(state.image().topic_count(), 10_000);
    assert_eq!(state.image().partition_count(), 30_000);
    let shared = |a: &Image, b: &Image| {
        a.topics()
            .zip(b.topics())
            .filter(|(a, b)| Arc::ptr_eq(a, b))
            .count()
    };
    let before = Arc::clone(state.image());
    let ops = vec![("k".into(), ConfigOp::Set("v".into()))];
    let resource = ConfigResource::Topic("topic.5000".into());
    state.apply(
        20_000,
        &Command::AlterConfigs(AlterConfigs {
            resource,
            replace: false,
            ops,
        }),
    );
    assert_eq!(shared(&before, state.image()), 9_999);
}
