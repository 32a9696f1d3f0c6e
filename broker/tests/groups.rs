//! A group's whole life through real sockets: joining, syncing, committing, leaving, a restart, the end.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use skerry::config::NodeConfig;
use skerry::node::{self, RunningNode};
use skerry::topics::{self, NewTopic};
use skerry_client::messages::delete_groups_response::DeletableGroupResult;
use skerry_client::messages::join_group_request::JoinGroupRequestProtocol;
use skerry_client::messages::leave_group_request::MemberIdentity;
use skerry_client::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use skerry_client::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use skerry_client::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use skerry_client::messages::sync_group_request::SyncGroupRequestAssignment;
use skerry_client::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListGroupsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, OffsetFetchRequest, SyncGroupRequest, SyncGroupResponse, TopicName,
};
use skerry_client::protocol::StrBytes;
use skerry_client::{Connection, ConnectionOptions, Pending};
use skerry_env::Env;
use skerry_metadata_state::{Command, Placement};

const PATIENCE: Duration = Duration::from_secs(30);
const NONE: i16 = 0;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const COORDINATOR_LOAD_IN_PROGRESS: i16 = 14;
const NOT_COORDINATOR: i16 = 16;
const UNKNOWN_MEMBER_ID: i16 = 25;
const REBALANCE_IN_PROGRESS: i16 = 27;
const INVALID_COMMIT_OFFSET_SIZE: i16 = 28;
const NON_EMPTY_GROUP: i16 = 68;
const GROUP_ID_NOT_FOUND: i16 = 69;
const MEMBER_ID_REQUIRED: i16 = 79;
const GROUP_SUBSCRIBED_TO_TOPIC: i16 = 86;

/// Offsets and notes by topic and partition, or an error of the whole.
type Fetched = Result<BTreeMap<(String, i32), (i64, String)>, i16>;

/// Which version of each API a client speaks.
#[derive(Clone, Copy, Debug)]
struct Versions {
    join: i16,
    sync: i16,
    heartbeat: i16,
    leave: i16,
    commit: i16,
    fetch: i16,
    describe: i16,
    list: i16,
    delete: i16,
}

const OLDEST: Versions = Versions {
    join: 0,
    sync: 0,
    heartbeat: 0,
    leave: 0,
    commit: 2,
    fetch: 1,
    describe: 0,
    list: 0,
    delete: 0,
};
const MIDDLE: Versions = Versions {
    join: 5,
    sync: 3,
    heartbeat: 3,
    leave: 3,
    commit: 7,
    fetch: 7,
    describe: 4,
    list: 3,
    delete: 1,
};
const NEWEST: Versions = Versions {
    join: 9,
    sync: 5,
    heartbeat: 4,
    leave: 5,
    commit: 9,
    fetch: 9,
    describe: 6,
    list: 5,
    delete: 2,
};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

async fn start(dir: &Path) -> RunningNode {
    let dir = dir.to_str().expect("a path of text");
    let config = NodeConfig::from_pairs([
        ("node.id", "1"),
        ("log.dirs", dir),
        ("listeners", "127.0.0.1:0"),
        ("cluster.listen", "127.0.0.1:0"),
        ("admin.listen", "127.0.0.1:0"),
        ("offsets.topic.num.partitions", "5"),
        ("group.initial.rebalance.delay.ms", "0"),
    ]);
    node::start(Env::os(), config.expect("settings"))
        .await
        .expect("a node that starts")
}

/// One member and its connection.
struct Member {
    connection: Connection,
    group: String,
    versions: Versions,
    id: StrBytes,
    generation: i32,
}

/// A consumer's subscription to one topic, as consumers write it.
fn subscription(topic: &str) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(0);
    bytes.put_i32(1);
    bytes.put_i16(i16::try_from(topic.len()).unwrap());
    bytes.put_slice(topic.as_bytes());
    bytes.put_i32(-1);
    bytes.freeze()
}

impl Member {
    async fn new(addr: SocketAddr, group: &str, versions: Versions) -> Self {
        let options = ConnectionOptions {
            client_id: "c".to_owned(),
            ..ConnectionOptions::default()
        };
        let connection = Connection::open(&Env::os(), &addr.to_string(), &options)
            .await
            .expect("a connection");
        Self {
            connection,
            group: group.to_owned(),
            versions,
            id: text(""),
            generation: -1,
        }
    }

    async fn send_join(&self) -> Pending<JoinGroupResponse> {
        let version = self.versions.join;
        let mut request = JoinGroupRequest::default()
            .with_group_id(group(&self.group))
            .with_session_timeout_ms(30_000)
            .with_member_id(self.id.clone())
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![
                JoinGroupRequestProtocol::default()
                    .with_name(text("range"))
                    .with_metadata(subscription("t")),
            ]);
        if version >= 1 {
            request.rebalance_timeout_ms = 60_000;
        }
        self.connection
            .send(&request, version, PATIENCE)
            .await
            .expect("sent")
    }

    /// Joins; a new member may be told first which id to join with.
    async fn start_join(&mut self) -> Pending<JoinGroupResponse> {
        let mut pending = self.send_join().await;
        if self.versions.join >= 4 && self.id.is_empty() {
            let told = pending.answer().await.expect("an answer");
            assert_eq!(told.error_code, MEMBER_ID_REQUIRED);
            assert!(told.member_id.starts_with("c-"), "{:?}", told.member_id);
            self.id = told.member_id;
            pending = self.send_join().await;
        }
        pending
    }

    async fn finish_join(&mut self, mut pending: Pending<JoinGroupResponse>) -> JoinGroupResponse {
        let joined = pending.answer().await.expect("an answer");
        assert_eq!(joined.error_code, NONE, "{joined:?}");
        assert_eq!(joined.protocol_name.as_deref(), Some("range"));
        assert_eq!(joined.protocol_type.is_some(), self.versions.join >= 7);
        (self.id, self.generation) = (joined.member_id.clone(), joined.generation_id);
        joined
    }

    async fn join(&mut self) -> JoinGroupResponse {
        let pending = self.start_join().await;
        self.finish_join(pending).await
    }

    async fn start_sync(&self, assignments: &[(&StrBytes, &'static str)]) -> Pending<SyncGroupResponse> {
        let assigned = |(member, assignment): &(&StrBytes, &'static str)| {
            SyncGroupRequestAssignment::default()
                .with_member_id((*member).clone())
                .with_assignment(Bytes::from_static(assignment.as_bytes()))
        };
        let mut request = SyncGroupRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone())
            .with_assignments(assignments.iter().map(assigned).collect());
        if self.versions.sync >= 5 {
            request.protocol_type = Some(text("consumer"));
            request.protocol_name = Some(text("range"));
        }
        self.connection
            .send(&request, self.versions.sync, PATIENCE)
            .await
            .expect("sent")
    }

    async fn heartbeat(&self) -> i16 {
        let request = HeartbeatRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id(self.generation)
            .with_member_id(self.id.clone());
        self.connection
            .call_version(&request, self.versions.heartbeat, PATIENCE)
            .await
            .expect("an answer")
            .error_code
    }

    /// Waits until the coordinator calls for a rebalance.
    async fn wait_for_rebalance(&self) {
        let env = Env::os();
        let deadline = env.clock.now() + PATIENCE;
        while self.heartbeat().await != REBALANCE_IN_PROGRESS {
            assert!(env.clock.now() < deadline, "no rebalance began");
            env.clock.sleep(Duration::from_millis(5)).await;
        }
    }

    /// Commits an offset of `t` and one of a topic that nobody has.
    async fn commit(&self, offset: i64) -> Vec<i16> {
        let with = |name: &str| {
            let mut partition = OffsetCommitRequestPartition::default()
                .with_committed_offset(offset)
                .with_committed_metadata(Some(text("note")));
            if self.versions.commit >= 6 {
                partition.committed_leader_epoch = 4;
            }
            OffsetCommitRequestTopic::default()
                .with_name(topic(name))
                .with_partitions(vec![partition])
        };
        let request = OffsetCommitRequest::default()
            .with_group_id(group(&self.group))
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(self.id.clone())
            .with_topics(vec![with("nowhere"), with("t")]);
        let response = self
            .connection
            .call_version(&request, self.versions.commit, PATIENCE)
            .await
            .expect("an answer");
        response
            .topics
            .iter()
            .map(|topic| topic.partitions[0].error_code)
            .collect()
    }

    /// The offsets of the first two partitions of `t`, and what else the group has; or an error of the whole.
    async fn fetch(&self, everything: bool) -> Fetched {
        let mut request = OffsetFetchRequest::default();
        let version = self.versions.fetch;
        if version >= 8 {
            let named = OffsetFetchRequestTopics::default()
                .with_name(topic("t"))
                .with_partition_indexes(vec![0, 1]);
            request.groups = vec![
                OffsetFetchRequestGroup::default()
                    .with_group_id(group(&self.group))
                    .with_topics((!everything).then(|| vec![named])),
            ];
        } else {
            let named = OffsetFetchRequestTopic::default()
                .with_name(topic("t"))
                .with_partition_indexes(vec![0, 1]);
            request.group_id = group(&self.group);
            request.topics = (!everything).then(|| vec![named]);
        }
        let response = self
            .connection
            .call_version(&request, version, PATIENCE)
            .await
            .expect("an answer");
        let mut found = BTreeMap::new();
        let mut error = response.error_code;
        for topic in &response.topics {
            for partition in &topic.partitions {
                error = error.max(partition.error_code);
                let metadata = partition
                    .metadata
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                found.insert(
                    (topic.name.to_string(), partition.partition_index),
                    (partition.committed_offset, metadata),
                );
            }
        }
        for group in &response.groups {
            error = error.max(group.error_code);
            for topic in &group.topics {
                for partition in &topic.partitions {
                    assert_eq!(partition.error_code, NONE);
                    let metadata = partition
                        .metadata
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default();
                    found.insert(
                        (topic.name.to_string(), partition.partition_index),
                        (partition.committed_offset, metadata),
                    );
                }
            }
        }
        if error == NONE { Ok(found) } else { Err(error) }
    }

    async fn leave(&self) -> i16 {
        let mut request = LeaveGroupRequest::default().with_group_id(group(&self.group));
        if self.versions.leave >= 3 {
            request.members = vec![MemberIdentity::default().with_member_id(self.id.clone())];
        } else {
            request.member_id = self.id.clone();
        }
        let left = self
            .connection
            .call_version(&request, self.versions.leave, PATIENCE)
            .await
            .expect("an answer");
        left.members
            .first()
            .map_or(left.error_code, |member| member.error_code)
    }

    /// State, and "client id, host" of each member.
    async fn describe(&self) -> (i16, String, Vec<String>) {
        let request = DescribeGroupsRequest::default().with_groups(vec![group(&self.group)]);
        let described = self
            .connection
            .call_version(&request, self.versions.describe, PATIENCE)
            .await
            .expect("an answer");
        let group = &described.groups[0];
        let members = group
            .members
            .iter()
            .map(|member| format!("{} {}", member.client_id, member.client_host));
        (group.error_code, group.group_state.to_string(), members.collect())
    }

    async fn listed(&self) -> Vec<String> {
        let request = ListGroupsRequest::default();
        let listed = self
            .connection
            .call_version(&request, self.versions.list, PATIENCE)
            .await
            .expect("an answer");
        assert_eq!(listed.error_code, NONE);
        listed
            .groups
            .iter()
            .map(|group| group.group_id.to_string())
            .collect()
    }

    async fn delete_offsets(&self) -> (i16, Vec<i16>) {
        let with = |name: &str| {
            OffsetDeleteRequestTopic::default()
                .with_name(topic(name))
                .with_partitions(vec![OffsetDeleteRequestPartition::default()])
        };
        let request = OffsetDeleteRequest::default()
            .with_group_id(group(&self.group))
            .with_topics(vec![with("nowhere"), with("t")]);
        let deleted = self
            .connection
            .call_version(&request, 0, PATIENCE)
            .await
            .expect("an answer");
        (
            deleted.error_code,
            deleted
                .topics
                .iter()
                .map(|topic| topic.partitions[0].error_code)
                .collect(),
        )
    }

    async fn delete(&self) -> Vec<DeletableGroupResult> {
        let request = DeleteGroupsRequest::default().with_groups_names(vec![
            group(&self.group),
            group("no-such-group"),
            group(&self.group),
        ]);
        self.connection
            .call_version(&request, self.versions.delete, PATIENCE)
            .await
            .expect("an answer")
            .results
    }
}

fn offsets(expected: &[(i32, i64, &str)]) -> Fetched {
    let one = |(partition, offset, metadata): &(i32, i64, &str)| {
        (("t".to_owned(), *partition), (*offset, (*metadata).to_owned()))
    };
    Ok(expected.iter().map(one).collect())
}

/// Asks for the group's coordinator, which makes the topic that it needs.
async fn find_coordinator(member: &Member) {
    let find = FindCoordinatorRequest::default().with_key(text(&member.group));
    let found = member
        .connection
        .call_version(&find, 1, PATIENCE)
        .await
        .expect("an answer");
    assert_eq!((found.error_code, found.node_id.0), (NONE, 1));
}

/// From the first member to the last: what is left is a committed offset, 42.
async fn two_members(addr: SocketAddr, name: &str, versions: Versions) {
    let mut a = Member::new(addr, name, versions).await;
    let joined = a.join().await;
    assert_eq!(
        (joined.leader.clone(), joined.members.len(), joined.generation_id),
        (a.id.clone(), 1, 1)
    );
    let synced = a.start_sync(&[(&a.id, "all")]).await.answer().await.unwrap();
    assert_eq!((synced.error_code, &synced.assignment[..]), (NONE, &b"all"[..]));
    assert_eq!(a.heartbeat().await, NONE);

    // The second member waits for the first, which hears of it by its heartbeat.
    let mut b = Member::new(addr, name, versions).await;
    let b_joins = b.start_join().await;
    a.wait_for_rebalance().await;
    let joined = a.join().await;
    assert_eq!(
        (joined.leader.clone(), joined.members.len(), joined.generation_id),
        (a.id.clone(), 2, 2)
    );
    assert!(
        joined
            .members
            .iter()
            .all(|member| member.metadata == subscription("t"))
    );
    let joined = b.finish_join(b_joins).await;
    assert_eq!(
        (joined.leader.clone(), joined.members.len(), joined.generation_id),
        (a.id.clone(), 0, 2)
    );

    // And its assignment waits for the leader's.
    let mut b_syncs = b.start_sync(&[]).await;
    let synced = a
        .start_sync(&[(&a.id, "one"), (&b.id, "two")])
        .await
        .answer()
        .await
        .unwrap();
    assert_eq!((synced.error_code, &synced.assignment[..]), (NONE, &b"one"[..]));
    let synced = b_syncs.answer().await.unwrap();
    assert_eq!((synced.error_code, &synced.assignment[..]), (NONE, &b"two"[..]));
    assert_eq!((a.heartbeat().await, b.heartbeat().await), (NONE, NONE));

    assert_eq!(b.commit(42).await, [UNKNOWN_TOPIC_OR_PARTITION, NONE]);
    assert_eq!(a.fetch(false).await, offsets(&[(0, 42, "note"), (1, -1, "")]));
    if versions.fetch >= 2 {
        assert_eq!(a.fetch(true).await, offsets(&[(0, 42, "note")]));
    }

    let both = vec!["c /127.0.0.1".to_owned(); 2];
    assert_eq!(a.describe().await, (NONE, "Stable".to_owned(), both));
    assert!(a.listed().await.contains(&name.to_owned()));
    assert_eq!(
        a.delete_offsets().await,
        (NONE, vec![UNKNOWN_TOPIC_OR_PARTITION, GROUP_SUBSCRIBED_TO_TOPIC])
    );
    let codes: Vec<i16> = a.delete().await.iter().map(|result| result.error_code).collect();
    assert_eq!(codes, [NON_EMPTY_GROUP, GROUP_ID_NOT_FOUND], "each name once");

    assert_eq!(b.leave().await, NONE);
    assert_eq!(
        (b.leave().await, b.heartbeat().await),
        (UNKNOWN_MEMBER_ID, UNKNOWN_MEMBER_ID)
    );
    a.wait_for_rebalance().await;
    assert_eq!(a.leave().await, NONE);
    assert_eq!(a.describe().await, (NONE, "Empty".to_owned(), vec![]));
}

/// What a restart has left of the group, and the end of that.
async fn afterwards(addr: SocketAddr, name: &str, versions: Versions) {
    let env = Env::os();
    let admin = Member::new(addr, name, versions).await;
    let deadline = env.clock.now() + PATIENCE;
    let fetched = loop {
        match admin.fetch(false).await {
            Err(COORDINATOR_LOAD_IN_PROGRESS) if env.clock.now() < deadline => {
                env.clock.sleep(Duration::from_millis(5)).await;
            }
            fetched => break fetched,
        }
    };
    assert_eq!(fetched, offsets(&[(0, 42, "note"), (1, -1, "")]));
    assert_eq!(admin.describe().await, (NONE, "Empty".to_owned(), vec![]));
    assert_eq!(
        admin.delete_offsets().await,
        (NONE, vec![UNKNOWN_TOPIC_OR_PARTITION, NONE])
    );
    assert_eq!(admin.fetch(false).await, offsets(&[(0, -1, ""), (1, -1, "")]));
    let codes: Vec<i16> = admin
        .delete()
        .await
        .iter()
        .map(|result| result.error_code)
        .collect();
    assert_eq!(codes, [NONE, GROUP_ID_NOT_FOUND]);
    let unknown = if versions.describe >= 6 {
        GROUP_ID_NOT_FOUND
    } else {
        NONE
    };
    assert_eq!(admin.describe().await, (unknown, "Dead".to_owned(), vec![]));
    assert!(!admin.listed().await.contains(&name.to_owned()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_lives_and_survives_a_restart_in_every_generation_of_the_protocol() {
    let dir = tempfile::tempdir().expect("a directory");
    let all = [("oldest", OLDEST), ("middle", MIDDLE), ("newest", NEWEST)];

    let node = start(dir.path()).await;
    topics::ensure(node.broker(), "t").await.expect("a topic");
    let first = Member::new(node.kafka_addr, "first", NEWEST).await;
    assert_eq!(
        first.heartbeat().await,
        NOT_COORDINATOR,
        "nobody has asked for a coordinator yet"
    );
    assert_eq!(first.listed().await, Vec::<String>::new());
    find_coordinator(&first).await;
    assert_eq!(
        first.heartbeat().await,
        UNKNOWN_MEMBER_ID,
        "a coordinator that was found serves"
    );
    for (name, versions) in all {
        two_members(node.kafka_addr, name, versions).await;
    }
    drop(first);
    node.shutdown().await;

    let node = start(dir.path()).await;
    for (name, versions) in all {
        afterwards(node.kafka_addr, name, versions).await;
    }
    node.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_go_with_their_topic_and_a_new_topic_begins_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = start(dir.path()).await;
    topics::ensure(node.broker(), "t").await.expect("a topic");
    let admin = Member::new(node.kafka_addr, "g", NEWEST).await;
    find_coordinator(&admin).await;
    assert_eq!(admin.commit(42).await, [UNKNOWN_TOPIC_OR_PARTITION, NONE]);
    assert_eq!(admin.fetch(true).await, offsets(&[(0, 42, "note")]));

    let id = node
        .broker()
        .image()
        .topic(topics::CONSUMER_OFFSETS)
        .expect("made above")
        .id;
    topics::change(node.broker(), Command::DeleteTopic { topic: id })
        .await
        .expect("deleted");
    assert_eq!(admin.fetch(true).await, Err(NOT_COORDINATOR));
    assert_eq!(admin.listed().await, Vec::<String>::new());

    find_coordinator(&admin).await;
    assert_eq!(admin.fetch(true).await, offsets(&[]));
    assert_eq!(admin.commit(7).await, [UNKNOWN_TOPIC_OR_PARTITION, NONE]);
    assert_eq!(admin.fetch(true).await, offsets(&[(0, 7, "note")]));

    // The offsets of a topic go with it, too.
    let id = node.broker().image().topic("t").expect("made above").id;
    topics::change(node.broker(), Command::DeleteTopic { topic: id })
        .await
        .expect("deleted");
    let env = Env::os();
    let deadline = env.clock.now() + PATIENCE;
    while admin.fetch(true).await != offsets(&[]) {
        assert!(env.clock.now() < deadline, "the offsets of a deleted topic stay");
        env.clock.sleep(Duration::from_millis(5)).await;
    }
    node.shutdown().await;
}

/// Commits `offset` with a long note for so many partitions of `wide`, and tells the codes that came back.
async fn commit_widely(member: &Member, partitions: i32, offset: i64) -> BTreeSet<i16> {
    let note = text(&"x".repeat(4_000));
    let one = |index: i32| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(index)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(note.clone()))
    };
    let request = OffsetCommitRequest::default()
        .with_group_id(group(&member.group))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(topic("wide"))
                .with_partitions((0..partitions).map(one).collect()),
        ]);
    let committed = member
        .connection
        .call_version(&request, 8, PATIENCE)
        .await
        .expect("an answer");
    committed.topics[0]
        .partitions
        .iter()
        .map(|partition| partition.error_code)
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_many_megabytes_are_loaded_piece_by_piece() {
    let dir = tempfile::tempdir().expect("a directory");
    let node = start(dir.path()).await;
    let placement = Placement::Automatic {
        partitions: 300,
        replication_factor: 1,
    };
    let wide = NewTopic {
        name: "wide".into(),
        placement,
        configs: vec![],
    };
    topics::create(node.broker(), wide).await.expect("a topic");
    let admin = Member::new(node.kafka_addr, "g", NEWEST).await;
    find_coordinator(&admin).await;
    for offset in 1..=5 {
        assert_eq!(commit_widely(&admin, 200, offset).await, BTreeSet::from([NONE]));
    }
    assert_eq!(
        commit_widely(&admin, 300, 6).await,
        BTreeSet::from([INVALID_COMMIT_OFFSET_SIZE]),
        "more than one batch can hold"
    );
    node.shutdown().await;

    let node = start(dir.path()).await;
    let env = Env::os();
    let deadline = env.clock.now() + PATIENCE;
    let admin = Member::new(node.kafka_addr, "g", NEWEST).await;
    let fetched = loop {
        match admin.fetch(true).await {
            Err(COORDINATOR_LOAD_IN_PROGRESS) if env.clock.now() < deadline => {
                env.clock.sleep(Duration::from_millis(5)).await;
            }
            fetched => break fetched.expect("offsets"),
        }
    };
    assert_eq!(fetched.len(), 200);
    assert!(
        fetched
            .values()
            .all(|(offset, note)| *offset == 5 && note.len() == 4_000)
    );
    node.shutdown().await;
}
