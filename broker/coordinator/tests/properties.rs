//! Members that come, go, fall silent and speak with old names, appends that fail, coordinators that move: in any
//! order, the rules hold, what is acknowledged stays, and everybody is answered in the end.

mod support;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Arc, Once};

use bytes::Bytes;
use proptest::prelude::*;
use skerry_coordinator::records::{GroupMetadataValue, OffsetCommitValue, RecordKey};
use skerry_coordinator::*;
use skerry_types::{LeaderEpoch, Offset, PartitionIndex, TopicPartition, Uuid};
use support::{World, protocol};

/// Makes a process of this test have a bug.
const PLANT_VARIABLE: &str = "SKERRY_TEST_PLANT";
const PLANTS: [&str; 4] = [
    "commit-acked-before-append",
    "commit-from-old-generation",
    "assignment-acked-before-append",
    "assignment-from-old-generation",
];
const CLIENTS: usize = 4;
const GROUPS: [&str; 2] = ["g", "h"];
const PROTOCOLS: [&str; 3] = ["range:t,sticky:t", "sticky:t,range:u", "range:t"];

#[derive(Clone, Debug)]
enum Op {
    /// The client does what its last answer tells it to do.
    Act {
        client: usize,
    },
    Join {
        client: usize,
        fresh: bool,
        protocols: usize,
        version: i16,
    },
    Sync {
        client: usize,
        stale: bool,
    },
    Heartbeat {
        client: usize,
        stale: bool,
    },
    Leave {
        client: usize,
    },
    Commit {
        client: usize,
        stale: bool,
        outsider: bool,
        partition: i32,
    },
    Fetch {
        group: usize,
        stable: bool,
    },
    OffsetDelete {
        group: usize,
        partition: i32,
    },
    Delete {
        group: usize,
    },
    TopicDeleted,
    Tick {
        ms: u64,
    },
    AppendOk,
    AppendFails {
        why: usize,
    },
    Reload,
}

fn any_op() -> impl Strategy<Value = Op> {
    let client = 0..CLIENTS;
    prop_oneof![
        20 => client.clone().prop_map(|client| Op::Act { client }),
        6 => (client.clone(), prop::bool::weighted(0.2), 0..PROTOCOLS.len(), prop_oneof![Just(3_i16), Just(8), Just(9)])
            .prop_map(|(client, fresh, protocols, version)| Op::Join { client, fresh, protocols, version }),
        6 => (client.clone(), prop::bool::weighted(0.1)).prop_map(|(client, stale)| Op::Sync { client, stale }),
        3 => (client.clone(), prop::bool::weighted(0.1)).prop_map(|(client, stale)| Op::Heartbeat { client, stale }),
        1 => client.clone().prop_map(|client| Op::Leave { client }),
        4 => (client, prop::bool::weighted(0.2), prop::bool::weighted(0.2), 0..3)
            .prop_map(|(client, stale, outsider, partition)| Op::Commit { client, stale, outsider, partition }),
        2 => (0..2_usize, any::<bool>()).prop_map(|(group, stable)| Op::Fetch { group, stable }),
        1 => (0..2_usize, 0..3).prop_map(|(group, partition)| Op::OffsetDelete { group, partition }),
        1 => (0..2_usize).prop_map(|group| Op::Delete { group }),
        1 => Just(Op::TopicDeleted),
        6 => prop_oneof![1..200_u64, 1_000..4_000_u64, 5_000..70_000_u64].prop_map(|ms| Op::Tick { ms }),
        10 => Just(Op::AppendOk),
        2 => (0..5_usize).prop_map(|why| Op::AppendFails { why }),
        1 => Just(Op::Reload),
    ]
}

const FAILURES: [AppendFailure; 5] = [
    AppendFailure::NotLeader,
    AppendFailure::Storage,
    AppendFailure::NotEnoughReplicas,
    AppendFailure::TimedOut,
    AppendFailure::TooLarge,
];

#[derive(Clone, Copy, Debug, Default)]
enum Step {
    #[default]
    Join,
    Sync,
    Heartbeat,
}

/// What a client believes. Client 1 is alone in the second group; 2 and 3 are static.
#[derive(Clone, Debug, Default)]
struct Client {
    step: Step,
    /// It waits for the answer to a JoinGroup or SyncGroup.
    is_waiting: bool,
    member_id: Arc<str>,
    generation: i32,
    is_leader: bool,
    members: Vec<Arc<str>>,
}

#[derive(Debug)]
enum Asked {
    Join {
        client: usize,
    },
    Sync {
        client: usize,
        generation: i32,
    },
    Commit {
        group: Arc<str>,
        partition: i32,
        offset: Offset,
        generation: i32,
        /// The group's newest generation that somebody had synced in by then.
        newest: i32,
    },
    Heartbeat {
        client: usize,
    },
    Other,
}

struct Model {
    world: World,
    clients: Vec<Client>,
    asked: BTreeMap<ReplyToken, Asked>,
    seen: usize,
    next: i64,
    /// (group, generation) to the sync call whose assignments were handed out in it.
    assigned: BTreeMap<(Arc<str>, i32), i64>,
    /// The generation that each sync call was made in.
    decided: BTreeMap<i64, i32>,
    /// The newest generation of each group that somebody has synced in.
    newest: BTreeMap<Arc<str>, i32>,
    log_seen: usize,
}

impl Model {
    fn new() -> Self {
        static PLANT: Once = Once::new();
        PLANT.call_once(|| {
            if let Ok(name) = std::env::var(PLANT_VARIABLE) {
                skerry_types::plant(&name);
            }
        });
        let mut world = World::new();
        world.line("hold");
        world.line("set initial_delay=1000");
        Self {
            world,
            clients: vec![Client::default(); CLIENTS],
            asked: BTreeMap::new(),
            seen: 0,
            next: 0,
            assigned: BTreeMap::new(),
            decided: BTreeMap::new(),
            newest: BTreeMap::new(),
            log_seen: 0,
        }
    }

    fn group_of(client: usize) -> Arc<str> {
        Arc::from(GROUPS[usize::from(client == 1)])
    }

    fn instance_of(client: usize) -> Option<Arc<str>> {
        (client >= 2).then(|| Arc::from(format!("i{client}")))
    }

    fn ask(&mut self, asked: Asked, request: Request) {
        let token = self.world.handle(request);
        assert!(self.asked.insert(token, asked).is_none());
    }

    fn generation(&self, client: usize, stale: bool) -> i32 {
        self.clients[client].generation - i32::from(stale)
    }

    fn run(&mut self, op: &Op) {
        self.next += 1;
        match *op {
            Op::Join {
                client,
                fresh,
                protocols,
                version,
            } => self.join(client, fresh, protocols, version),
            Op::Sync { client, stale } => self.sync(client, stale),
            Op::Act { client } => self.act(client),
            Op::Heartbeat { client, stale } => self.heartbeat(client, stale),
            Op::Leave { client } => {
                let member = LeaveMember {
                    member_id: std::mem::take(&mut self.clients[client].member_id),
                    group_instance_id: Self::instance_of(client),
                    reason: None,
                };
                let request = LeaveRequest {
                    group_id: Self::group_of(client),
                    members: vec![member],
                };
                self.ask(Asked::Other, Request::Leave(request));
            }
            Op::Commit {
                client,
                stale,
                outsider,
                partition,
            } => self.commit(client, stale, outsider, partition),
            Op::Fetch { group, stable } => {
                let group_id = Arc::from(GROUPS[group]);
                let request = FetchRequest {
                    group_id,
                    require_stable: stable,
                    topics: None,
                };
                self.ask(Asked::Other, Request::Fetch(request));
            }
            Op::OffsetDelete { group, partition } => {
                let topics = vec![(Arc::from("t"), vec![PartitionIndex(partition)])];
                let request = OffsetDeleteRequest {
                    group_id: Arc::from(GROUPS[group]),
                    topics,
                };
                self.ask(Asked::Other, Request::OffsetDelete(request));
            }
            Op::Delete { group } => {
                let request = DeleteRequest {
                    groups: vec![Arc::from(GROUPS[group])],
                };
                self.ask(Asked::Other, Request::Delete(request));
            }
            Op::TopicDeleted => self.world.line("topics-deleted t"),
            Op::Tick { ms } => self.world.line(&format!("tick {ms}ms")),
            Op::AppendOk => {
                self.world.report(Ok);
            }
            Op::AppendFails { why } => {
                self.world.report(|_| Err(FAILURES[why]));
            }
            Op::Reload => {
                self.world.line("unload");
                // Nobody waits across a move; what was being written may or may not be in the log.
                while self.world.report(Ok) {}
                self.take_in();
                assert!(
                    self.asked.is_empty(),
                    "not answered at unloading: {:?}",
                    self.asked
                );
                self.world.line("load");
            }
        }
        self.take_in();
        self.world.shard.check();
        self.compare_with_log();
    }

    fn join(&mut self, client: usize, fresh: bool, protocols: usize, version: i16) {
        let mut random = [0; 16];
        random[..8].copy_from_slice(&self.next.to_be_bytes());
        let state = &self.clients[client];
        let request = JoinRequest {
            version,
            client_id: Arc::from(format!("c{client}")),
            client_host: Arc::from("/127.0.0.1"),
            new_member_id: Uuid(random),
            group_id: Self::group_of(client),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: [0, 20_000, 30_000, 40_000][client],
            member_id: if fresh {
                Arc::default()
            } else {
                state.member_id.clone()
            },
            group_instance_id: Self::instance_of(client),
            protocol_type: Arc::from("consumer"),
            protocols: PROTOCOLS[protocols].split(',').map(protocol).collect(),
            reason: None,
        };
        self.clients[client].is_waiting = true;
        self.ask(Asked::Join { client }, Request::Join(request));
    }

    fn act(&mut self, client: usize) {
        match self.clients[client] {
            Client { is_waiting: true, .. } => {}
            Client { step: Step::Join, .. } => self.join(client, false, client % 2, 9),
            Client { step: Step::Sync, .. } => self.sync(client, false),
            Client {
                step: Step::Heartbeat,
                ..
            } => self.heartbeat(client, false),
        }
    }

    fn heartbeat(&mut self, client: usize, stale: bool) {
        let request = HeartbeatRequest {
            group_id: Self::group_of(client),
            generation_id: self.generation(client, stale),
            member_id: self.clients[client].member_id.clone(),
            group_instance_id: Self::instance_of(client),
        };
        self.ask(Asked::Heartbeat { client }, Request::Heartbeat(request));
    }

    fn sync(&mut self, client: usize, stale: bool) {
        let label = self.next;
        let state = &self.clients[client];
        let assign = |member: &Arc<str>| (member.clone(), Bytes::from(format!("{label}:{member}")));
        let generation = self.generation(client, stale);
        self.decided.insert(label, generation);
        let request = SyncRequest {
            group_id: Self::group_of(client),
            generation_id: generation,
            member_id: state.member_id.clone(),
            group_instance_id: Self::instance_of(client),
            protocol_type: None,
            protocol_name: None,
            assignments: if state.is_leader {
                state.members.iter().map(assign).collect()
            } else {
                Vec::new()
            },
        };
        self.clients[client].is_waiting = true;
        self.ask(Asked::Sync { client, generation }, Request::Sync(request));
    }

    fn commit(&mut self, client: usize, stale: bool, outsider: bool, partition: i32) {
        let offset = Offset(self.next);
        let group_id = Self::group_of(client);
        let request = CommitRequest {
            version: 9,
            group_id: group_id.clone(),
            generation_id: if outsider {
                -1
            } else {
                self.generation(client, stale)
            },
            member_id: if outsider {
                Arc::default()
            } else {
                self.clients[client].member_id.clone()
            },
            group_instance_id: if outsider { None } else { Self::instance_of(client) },
            retention_time_ms: -1,
            topics: vec![CommitTopic {
                id: None,
                name: Arc::from("t"),
                partitions: vec![CommitPartition {
                    partition: PartitionIndex(partition),
                    offset,
                    leader_epoch: LeaderEpoch(1),
                    metadata: None,
                }],
            }],
        };
        let generation = request.generation_id;
        let newest = self.newest.get(&group_id).copied().unwrap_or(0);
        self.ask(
            Asked::Commit {
                group: group_id,
                partition,
                offset,
                generation,
                newest,
            },
            Request::Commit(request),
        );
    }

    /// Lets the clients hear their answers, each once.
    fn take_in(&mut self) {
        // A deleted group begins at generation 0 again.
        for (key, value) in &self.world.log[self.log_seen..] {
            if let (Ok(RecordKey::GroupMetadata { group }), None) = (RecordKey::decode(key), value) {
                self.assigned.retain(|(known, _), _| *known != group);
                self.newest.remove(&group);
            }
        }
        self.log_seen = self.world.log.len();
        while let Some((token, response)) = self.world.replies.get(self.seen).cloned() {
            self.seen += 1;
            let asked = self.asked.remove(&token).expect("each request is answered once");
            match (asked, response) {
                (Asked::Join { client }, Response::Join(join)) => self.joined(client, join),
                (Asked::Sync { client, generation }, Response::Sync(sync)) => {
                    self.synced(client, generation, &sync);
                }
                (
                    Asked::Commit {
                        group,
                        partition,
                        offset,
                        generation,
                        newest,
                    },
                    Response::Commit(commit),
                ) => {
                    if commit.topics[0].partitions[0].1.is_none() {
                        self.committed(&group, partition, offset);
                        assert!(
                            generation < 0 || generation >= newest,
                            "a commit of generation {generation} after generation {newest}"
                        );
                    }
                }
                (Asked::Heartbeat { client }, Response::Heartbeat(heartbeat)) => {
                    if heartbeat.error.is_some() {
                        self.clients[client].step = Step::Join;
                    }
                }
                (Asked::Other, _) => {}
                (asked, response) => panic!("{asked:?} was answered with {response:?}"),
            }
        }
    }

    fn joined(&mut self, client: usize, join: JoinResponse) {
        let state = &mut self.clients[client];
        state.is_waiting = false;
        match join.error {
            None => {
                state.step = if join.skip_assignment {
                    Step::Heartbeat
                } else {
                    Step::Sync
                };
                state.is_leader = join.leader == join.member_id;
                state.members = join.members.into_iter().map(|member| member.member_id).collect();
                state.member_id = join.member_id;
                state.generation = join.generation_id;
            }
            Some(GroupError::MemberIdRequired) => state.member_id = join.member_id,
            Some(GroupError::UnknownMemberId | GroupError::FencedInstanceId) => {
                state.member_id = Arc::default()
            }
            Some(_) => {}
        }
    }

    /// All assignments of one generation come from one decision of one leader (SIMULATION.md 21).
    fn synced(&mut self, client: usize, generation: i32, sync: &SyncResponse) {
        self.clients[client].is_waiting = false;
        self.clients[client].step = if sync.error.is_some() {
            Step::Join
        } else {
            Step::Heartbeat
        };
        if sync.error.is_some() || sync.assignment.is_empty() {
            return;
        }
        let text = String::from_utf8(sync.assignment.to_vec()).unwrap();
        let (label, _member) = text.split_once(':').unwrap();
        let label: i64 = label.parse().unwrap();
        let group = Self::group_of(client);
        let before = self.assigned.insert((group.clone(), generation), label);
        assert!(
            before.is_none_or(|before| before == label),
            "two assignments in generation {generation}"
        );
        assert_eq!(
            self.decided[&label], generation,
            "an assignment of another generation"
        );
        let durable = self.world.log.iter().any(|(key, value)| {
            *key == RecordKey::encode_group_metadata(&group)
                && value.as_ref().is_some_and(|value| {
                    let value = GroupMetadataValue::decode(value).unwrap();
                    value.generation == generation
                        && value
                            .members
                            .iter()
                            .any(|member| member.assignment == sync.assignment)
                })
        });
        assert!(
            durable,
            "an assignment of generation {generation} that is not in the log"
        );
        let newest = self.newest.entry(group).or_default();
        *newest = generation.max(*newest);
    }

    /// An acknowledged offset is in the log.
    fn committed(&self, group: &str, partition: i32, offset: Offset) {
        let wanted = RecordKey::encode_offset_commit(group, &TopicPartition::new("t", partition));
        let found = self.world.log.iter().any(|(key, value)| {
            *key == wanted
                && value
                    .as_ref()
                    .is_some_and(|value| OffsetCommitValue::decode(value).unwrap().offset == offset)
        });
        assert!(
            found,
            "offset {offset} of {group} is acknowledged and not in the log"
        );
    }

    /// What is visible is the fold of the log (SIMULATION.md 22).
    fn compare_with_log(&mut self) {
        let mut folded: BTreeMap<(Arc<str>, TopicPartition), Offset> = BTreeMap::new();
        let mut groups: BTreeMap<Arc<str>, GroupMetadataValue> = BTreeMap::new();
        for (key, value) in &self.world.log {
            match (RecordKey::decode(key).unwrap(), value) {
                (RecordKey::OffsetCommit { group, partition }, Some(value)) => {
                    let offset = OffsetCommitValue::decode(value).unwrap().offset;
                    folded.insert((group, partition), offset);
                }
                (RecordKey::OffsetCommit { group, partition }, None) => {
                    folded.remove(&(group, partition));
                }
                (RecordKey::GroupMetadata { group }, Some(value)) => {
                    groups.insert(group, GroupMetadataValue::decode(value).unwrap());
                }
                (RecordKey::GroupMetadata { group }, None) => {
                    groups.remove(&group);
                }
                (RecordKey::Other(_), _) => panic!("nobody writes other records"),
            }
        }
        for group in GROUPS {
            let visible: Vec<_> = self.fetch(group);
            let group: Arc<str> = Arc::from(group);
            let expected: Vec<_> = folded
                .iter()
                .filter(|((known, _), _)| *known == group)
                .map(|((_, partition), offset)| (partition.partition, *offset))
                .collect();
            assert_eq!(visible, expected, "offsets of {group}");
            let in_log = groups.contains_key(&group) || !expected.is_empty();
            assert!(
                !in_log || self.is_known(&group),
                "{group} is in the log and not in memory"
            );
        }
    }

    fn fetch(&mut self, group: &str) -> Vec<(PartitionIndex, Offset)> {
        let group_id = Arc::from(group);
        self.world.handle(Request::Fetch(FetchRequest {
            group_id,
            require_stable: false,
            topics: None,
        }));
        self.seen += 1;
        let Some((_, Response::Fetch(fetch))) = self.world.replies.last() else {
            panic!("no answer")
        };
        let partitions = fetch.topics.iter().flat_map(|topic| &topic.partitions);
        partitions
            .map(|partition| (partition.partition, partition.offset))
            .collect()
    }

    fn is_known(&mut self, group: &str) -> bool {
        self.state(group) != GroupState::Dead
    }

    fn state(&mut self, group: &str) -> GroupState {
        self.world.handle(Request::Describe(DescribeRequest {
            version: 5,
            groups: vec![Arc::from(group)],
        }));
        self.seen += 1;
        let Some((_, Response::Describe(describe))) = self.world.replies.last() else {
            panic!("no answer")
        };
        describe.groups[0].state.unwrap()
    }

    /// No more faults, no more requests: everybody is answered, and the groups of the silent become empty.
    fn settle(&mut self) {
        self.world.line("release");
        for _ in 0..20 {
            self.world.line("tick 60s");
            self.world.shard.check();
        }
        self.take_in();
        assert!(self.asked.is_empty(), "never answered: {:?}", self.asked);
        self.compare_with_log();
        for group in GROUPS {
            assert!(
                matches!(self.state(group), GroupState::Empty | GroupState::Dead),
                "{group} is not empty"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn rules_hold_in_any_order(ops in prop::collection::vec(any_op(), 1..120)) {
        let mut model = Model::new();
        for op in &ops {
            model.run(op);
        }
        model.settle();
    }
}

/// Members that behave: they do what the answers tell them. However the group was left, it becomes stable.
#[test]
fn members_that_do_as_they_are_told_become_stable() {
    let mut model = Model::new();
    model.world.line("release");
    for client in [0, 2, 3] {
        model.run(&Op::Join {
            client,
            fresh: false,
            protocols: 0,
            version: 3,
        });
    }
    model.run(&Op::Tick { ms: 100 });
    for round in 0..6 {
        model.run(&Op::Tick { ms: 3_000 });
        for client in [0, 2, 3] {
            model.run(&Op::Sync { client, stale: false });
            model.run(&Op::Heartbeat { client, stale: false });
        }
        if round == 3 {
            model.run(&Op::Join {
                client: 3,
                fresh: true,
                protocols: 0,
                version: 9,
            });
        }
    }
    assert_eq!(model.state("g"), GroupState::Stable);
    assert_eq!(model.clients[0].generation, model.clients[3].generation);
}

/// The properties can fail: a process that has a bug does.
#[test]
fn planted_bugs_are_found() {
    if !cfg!(debug_assertions) || std::env::var(PLANT_VARIABLE).is_ok() {
        return;
    }
    for plant in PLANTS {
        let mut test = Command::new(std::env::current_exe().unwrap());
        test.args(["rules_hold_in_any_order", "--exact"])
            .env(PLANT_VARIABLE, plant)
            .env("PROPTEST_CASES", "5000");
        let status = test.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert!(!status.success(), "nobody noticed {plant}");
    }
}
