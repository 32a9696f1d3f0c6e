//! Scripts of commands, a line each, for the transcripts.
#![allow(dead_code, reason = "each test file uses what it needs")]

use std::fmt::Write as _;

use expect_test::Expect;
use skerry_metadata_state::{
    AlterConfigs, AlterReassignment, BrokerGuard, ChangePartition, Command, ConfigOp, ConfigResource,
    CreatePartitions, CreateTopic, Delta, ElectLeader, Election, FeatureRange, HostPort, Image, Outcome,
    Placement, RegisterBroker, ReplicaLost, ReplicaOffline, State,
};
use skerry_types::{
    BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, Uuid, WallMs,
};

/// Runs a script: each line is a command, `show` prints the state.
pub fn check(script: &str, expect: Expect) {
    let mut state = State::default();
    let mut index = 0;
    let mut transcript = String::new();
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix("show ") {
            show(&state, name, &mut transcript);
            continue;
        }
        index += 1;
        let command = parse(&state, line);
        let decoded = Command::decode(&command.encode());
        assert_eq!(decoded, Ok(command.clone()), "a command survives its encoding");
        assert_eq!(
            state.image().dry_run(&command),
            state.clone().apply(index, &command).outcome
        );
        let applied = state.apply(index, &command);
        state
            .image()
            .check()
            .unwrap_or_else(|broken| panic!("after {line}: {broken}"));
        let decoded = Outcome::decode(&applied.outcome.encode());
        assert_eq!(
            decoded.as_ref(),
            Ok(&applied.outcome),
            "an outcome survives its encoding"
        );
        assert_eq!(
            Image::decode(&state.image().encode()).as_ref(),
            Ok(&**state.image()),
            "an image survives its encoding"
        );
        let outcome = match applied.outcome {
            Outcome::Refused(refusal) => format!("refused: {refusal}"),
            outcome => format!("{outcome:?}"),
        };
        writeln!(transcript, "{index}: {line} -> {outcome}").unwrap();
        for delta in applied.deltas {
            writeln!(transcript, "     {}", tell(&delta)).unwrap();
        }
    }
    expect.assert_eq(&transcript);
}

fn tell(delta: &Delta) -> String {
    match delta {
        Delta::PartitionChanged { name, partition, .. } => format!("changed {name}-{partition}"),
        Delta::TopicCreated { name, .. } => format!("created {name}"),
        Delta::TopicDeleted { name, .. } => format!("deleted {name}"),
        Delta::BrokerChanged(id) => format!("broker {id}"),
        Delta::ConfigChanged(resource) => format!("config of {resource:?}"),
        other => format!("{other:?}"),
    }
}

pub fn show(state: &State, name: &str, out: &mut String) {
    let image = state.image();
    let Some(topic) = image.topic(name) else {
        writeln!(out, "   {name}: no such topic").unwrap();
        return;
    };
    if !topic.configs.is_empty() {
        writeln!(out, "   {name}: {:?}", topic.configs).unwrap();
    }
    for (index, p) in topic.partitions.iter().enumerate() {
        let list = |brokers: &[BrokerId]| {
            brokers
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        let leader = p.leader.map_or("nobody".to_owned(), |id| id.to_string());
        write!(
            out,
            "   {name}-{index}: replicas [{}] isr [{}]",
            list(&p.replicas),
            list(&p.isr)
        )
        .unwrap();
        for (what, brokers) in [("adding", &p.adding), ("removing", &p.removing)] {
            if !brokers.is_empty() {
                write!(out, " {what} [{}]", list(brokers)).unwrap();
            }
        }
        if !p.offline.is_empty() {
            write!(out, " offline [{}]", list(&p.offline)).unwrap();
        }
        if !p.elr.is_empty() {
            write!(out, " elr [{}]", list(&p.elr)).unwrap();
        }
        writeln!(
            out,
            " leader {leader} epoch {} version {}",
            p.leader_epoch, p.partition_epoch
        )
        .unwrap();
    }
}

fn id_of(name: &str) -> TopicId {
    let mut bytes = [0; 16];
    for (place, byte) in name.bytes().enumerate() {
        bytes[place % 16] ^= byte;
    }
    Uuid(bytes)
}

pub fn guard(state: &State, broker: i32) -> BrokerGuard {
    let id = BrokerId(broker);
    BrokerGuard {
        broker: id,
        epoch: state
            .image()
            .broker(id)
            .map_or(BrokerEpoch(-1), |broker| broker.epoch),
    }
}

fn lists(text: &str) -> Vec<Vec<BrokerId>> {
    let ids = |list: &str| {
        list.split(',')
            .filter(|id| !id.is_empty())
            .map(|id| BrokerId(id.parse().unwrap()))
            .collect()
    };
    text.split('/').map(ids).collect()
}

pub fn parse(state: &State, line: &str) -> Command {
    let words: Vec<&str> = line.split_whitespace().collect();
    let option = |key: &str| {
        words
            .iter()
            .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    };
    let number = |text: &str| text.parse::<i32>().unwrap();
    match words[0] {
        "init" => Command::InitCluster {
            cluster_id: id_of(words[1]),
            feature_level: option("level").map_or(1, |level| level.parse().unwrap()),
        },
        "register" => Command::RegisterBroker(RegisterBroker {
            broker: BrokerId(number(words[1])),
            incarnation: id_of(words[2]),
            directory: id_of(option("disk").unwrap_or("disk")),
            clean: words.contains(&"clean"),
            kafka: HostPort::new("host", 9092),
            cluster: HostPort::new("::1", 9093),
            rack: option("rack").map(Into::into),
            features: option("features").map_or(FeatureRange::OURS, |max| FeatureRange {
                min: 1,
                max: max.parse().unwrap(),
            }),
            at: WallMs(1),
        }),
        "unfence" => Command::UnfenceBroker(guard(state, number(words[1]))),
        "fence" => Command::FenceBroker(guard(state, number(words[1]))),
        "fence-stale" => Command::FenceBroker(BrokerGuard {
            broker: BrokerId(number(words[1])),
            epoch: BrokerEpoch(0),
        }),
        "drain" => Command::DrainBroker(guard(state, number(words[1]))),
        "lost" => Command::ReplicaLost(ReplicaLost {
            replica: guard(state, number(words[2])),
            topic: id_of(words[1]),
            partition: PartitionIndex(option("of").map_or(0, number)),
        }),
        "offline" | "online" => Command::ReplicaOffline(ReplicaOffline {
            replica: guard(state, number(words[2])),
            topic: id_of(words[1]),
            partition: PartitionIndex(option("of").map_or(0, number)),
            is_offline: words[0] == "offline",
        }),
        "reassign" => Command::AlterReassignment(AlterReassignment {
            topic: id_of(words[1]),
            partition: PartitionIndex(option("of").map_or(0, number)),
            target: (words[2] != "cancel").then(|| lists(words[2]).remove(0)),
            may_change_factor: !words.contains(&"same-factor"),
        }),
        "batch" => {
            let commands = line.strip_prefix("batch").unwrap().split(';');
            Command::Batch(commands.map(|line| parse(state, line)).collect())
        }
        "forget" => Command::UnregisterBroker {
            broker: BrokerId(number(words[1])),
        },
        "create" => Command::CreateTopic(CreateTopic {
            id: option("id").map_or_else(|| id_of(words[1]), id_of),
            name: words[1].into(),
            placement: match option("at") {
                Some(text) => Placement::Manual(lists(text)),
                None => Placement::Automatic {
                    partitions: option("p").map_or(1, number),
                    replication_factor: option("rf").map_or(1, |rf| rf.parse().unwrap()),
                },
            },
            configs: [("min.insync.replicas", "min"), ("flush.messages", "flush")]
                .into_iter()
                .filter_map(|(key, short)| Some((key.into(), option(short)?.into())))
                .collect(),
            at: WallMs(2),
        }),
        "delete" => Command::DeleteTopic {
            topic: id_of(words[1]),
        },
        "grow" => Command::CreatePartitions(CreatePartitions {
            topic: id_of(words[1]),
            count: number(words[2]),
            assignments: option("at").map(lists),
        }),
        "isr" => {
            let index = PartitionIndex(option("of").map_or(0, number));
            let topic = state.image().topic_by_id(id_of(words[1])).unwrap();
            let partition = topic.partition(index).unwrap();
            let members = words[3].split(',').map(|member| match member.split_once('@') {
                Some((id, epoch)) => BrokerGuard {
                    broker: BrokerId(number(id)),
                    epoch: BrokerEpoch(epoch.parse().unwrap()),
                },
                None => guard(state, number(member)),
            });
            Command::ChangePartition(ChangePartition {
                topic: id_of(words[1]),
                partition: index,
                leader: guard(state, number(words[2])),
                leader_epoch: option("epoch")
                    .map_or(partition.leader_epoch, |epoch| LeaderEpoch(number(epoch))),
                partition_epoch: option("version")
                    .map_or(partition.partition_epoch, |v| PartitionEpoch(number(v))),
                isr: members.collect(),
            })
        }
        "elect" | "elect-unclean" => Command::ElectLeader(ElectLeader {
            topic: id_of(words[1]),
            partition: PartitionIndex(option("of").map_or(0, number)),
            election: if words[0] == "elect" {
                Election::Preferred
            } else {
                Election::Unclean
            },
        }),
        "config" | "replace-config" => {
            let resource = match words[1].split_once(':') {
                Some(("topic", name)) => ConfigResource::Topic(name.into()),
                Some(("group", name)) => ConfigResource::Group(name.into()),
                Some(("broker", id)) => ConfigResource::Broker(BrokerId(number(id))),
                _ => ConfigResource::ClusterDefault,
            };
            let ops = words[2..].iter().map(|change| {
                if let Some((key, values)) = change.split_once("+=") {
                    let values = values.split(',').map(Into::into).collect();
                    (
                        key.into(),
                        ConfigOp::Append {
                            values,
                            default: "delete".into(),
                        },
                    )
                } else if let Some((key, values)) = change.split_once("-=") {
                    let values = values.split(',').map(Into::into).collect();
                    (
                        key.into(),
                        ConfigOp::Subtract {
                            values,
                            default: "delete".into(),
                        },
                    )
                } else if let Some((key, value)) = change.split_once('=') {
                    (key.into(), ConfigOp::Set(value.into()))
                } else {
                    ((*change).into(), ConfigOp::Delete)
                }
            });
            Command::AlterConfigs(AlterConfigs {
                resource,
                replace: words[0] == "replace-config",
                ops: ops.collect(),
            })
        }
        "producer-ids" => Command::AllocateProducerIds(guard(state, number(words[1]))),
        "recovered" => Command::QuorumRecovered {
            survivor: BrokerId(number(words[1])),
        },
        "level" => Command::SetFeatureLevel {
            level: words[1].parse().unwrap(),
        },
        other => panic!("no command {other}"),
    }
}
