//! What must be true of the metadata and of its quorum, each with a state that violates it.

use std::sync::Arc;

use skerry_metadata::{Durable, LogEntry, MemberStatus, QuorumStatus, Role};
use skerry_metadata_state::{
    AlterReassignment, BrokerGuard, Command, CreateTopic, FEATURE_LEVEL, FeatureRange, HostPort, Image,
    Outcome, Placement, RegisterBroker, ReplicaOffline, State,
};
use skerry_types::{BrokerId, PartitionIndex, Uuid, WallMs};

use super::core::{self, check_core, what_is_lacked};
use super::metadata::{
    Known, MadeBy, MetadataWatch, News, QuorumWatch, Registrations, check_known, check_partition,
    check_recovered, check_registered, check_registration,
};
use super::raft_logs::RaftLogs;
use super::tests::{NAME, checks, ids, partition};
use super::whole::{check_elected, check_told, check_whole};
use super::{Found, Missing};

#[test]
fn an_in_sync_set_is_of_unfenced_replicas_and_their_leader() {
    let image = Image::default();
    let wrong = [
        partition(&[1, 2], &[1, 3], &[], None),
        partition(&[1, 2], &[1], &[3], None),
        partition(&[1, 2], &[1], &[1], None),
        partition(&[1, 2], &[1], &[2], None),
        partition(&[1, 2], &[2], &[], Some(1)),
        partition(&[1, 2], &[1, 2], &[], Some(1)),
    ];
    for partition in wrong {
        let mut found = Found::new();
        check_partition(NAME, &partition, 1, &image, &mut found);
        assert!(!found.is_empty(), "{partition:?}");
        assert!(checks(&found).iter().all(|check| *check == "wrong-in-sync-set"));
    }
    let mut found = Found::new();
    check_partition(NAME, &partition(&[1, 2], &[], &[1], None), 1, &image, &mut found);
    assert!(found.is_empty());
}

/// Commands, one after the other.
#[derive(Default)]
struct History {
    state: State,
    index: u64,
}

impl History {
    fn apply(&mut self, command: &Command) -> Outcome {
        self.index += 1;
        self.state.apply(self.index, command).outcome
    }

    fn image(&self) -> Arc<Image> {
        Arc::new((**self.state.image()).clone())
    }

    /// A broker registers, with a disk of its own, and takes part.
    fn register(&mut self, broker: BrokerId) -> BrokerGuard {
        let number = u8::try_from(broker.get()).unwrap();
        let port = HostPort::new("localhost", 1);
        let registered = self.apply(&Command::RegisterBroker(RegisterBroker {
            broker,
            incarnation: Uuid([u8::try_from(self.index).unwrap(); 16]),
            directory: Uuid([number; 16]),
            clean: true,
            kafka: port.clone(),
            cluster: port,
            rack: None,
            features: FeatureRange::OURS,
            at: WallMs(1),
        }));
        let Outcome::BrokerRegistered { epoch } = registered else {
            panic!("{registered:?}")
        };
        let guard = BrokerGuard { broker, epoch };
        self.apply(&Command::UnfenceBroker(guard));
        guard
    }

    /// Two brokers, and a topic that both have; `flush` is its `flush.messages`.
    fn with_a_topic_of_both(flush: Option<&str>) -> (Self, [BrokerGuard; 2]) {
        let mut history = Self::default();
        let brokers = history.make_a_topic_of_both(flush);
        (history, brokers)
    }

    fn make_a_topic_of_both(&mut self, flush: Option<&str>) -> [BrokerGuard; 2] {
        let brokers = [1, 2].map(|id| self.register(BrokerId(id)));
        let created = self.apply(&Command::CreateTopic(CreateTopic {
            id: Uuid([9; 16]),
            name: "orders".into(),
            placement: Placement::Manual(vec![ids(&[1, 2])]),
            configs: flush
                .into_iter()
                .map(|count| ("flush.messages".into(), count.into()))
                .collect(),
            at: WallMs(1),
        }));
        assert!(!matches!(created, Outcome::Refused(_)), "{created:?}");
        brokers
    }
}

impl History {
    /// Nobody can open a copy of the topic's partition.
    fn with_offline_copies() -> Self {
        let (mut history, brokers) = Self::with_a_topic_of_both(None);
        history.apply(&Command::InitCluster {
            cluster_id: Uuid([1; 16]),
            feature_level: FEATURE_LEVEL,
        });
        for replica in brokers {
            history.apply(&Command::ReplicaOffline(ReplicaOffline {
                replica,
                topic: Uuid([9; 16]),
                partition: PartitionIndex(0),
                is_offline: true,
            }));
        }
        history
    }
}

/// What a watcher finds that is shown these, one after the other.
fn watched(images: &[Arc<Image>]) -> Vec<&'static str> {
    let (mut watch, mut found) = (MetadataWatch::default(), Found::new());
    for image in images {
        watch.follow(image.clone(), &mut found);
    }
    checks(&found)
}

/// Does what changes nothing.
fn idle(history: &mut History) {
    history.apply(&Command::DeleteTopic {
        topic: Uuid([77; 16]),
    });
}

#[test]
fn the_same_commands_make_the_same_metadata() {
    let (one, _) = History::with_a_topic_of_both(None);
    let (same, _) = History::with_a_topic_of_both(None);
    let (other, _) = History::with_a_topic_of_both(Some("100"));
    assert!(watched(&[one.image(), same.image()]).is_empty());
    assert_eq!(watched(&[one.image(), other.image()]), ["metadata-differs"]);
}

#[test]
fn epochs_of_partitions_grow_with_every_change() {
    let (mut history, [first, _]) = History::with_a_topic_of_both(None);
    let (mut another, _) = History::with_a_topic_of_both(None);
    let before = history.image();
    history.apply(&Command::FenceBroker(first));
    assert!(watched(&[before, history.image()]).is_empty());
    // Of the second history nobody has lost its place: as if the epochs of the first had gone back.
    idle(&mut another);
    idle(&mut another);
    assert_eq!(watched(&[history.image(), another.image()]), ["epochs-must-grow"]);
}

#[test]
fn epochs_of_brokers_grow() {
    let mut history = History::default();
    history.register(BrokerId(1));
    let mut another = History::default();
    another.register(BrokerId(1));
    let before = history.image();
    history.register(BrokerId(1));
    assert!(watched(&[before, history.image()]).is_empty());
    for _ in 0..4 {
        idle(&mut another);
    }
    assert_eq!(
        watched(&[history.image(), another.image()]),
        ["broker-epoch-went-back"]
    );
}

#[test]
fn an_epoch_of_a_broker_belongs_to_one_registration() {
    let registered = |broker, idle_before: usize| {
        let mut history = History::default();
        for _ in 0..idle_before {
            idle(&mut history);
        }
        history.register(BrokerId(broker));
        history
    };
    let mut first = registered(1, 0);
    let before = first.image();
    first.register(BrokerId(2));
    assert!(watched(&[before.clone(), first.image()]).is_empty());
    // Another broker has the epoch of the first; another start of it has.
    let mut another = registered(2, 0);
    idle(&mut another);
    assert_eq!(watched(&[before, another.image()]), ["broker-epoch-reused"]);
    let (one, mut other) = (registered(1, 1), registered(1, 1));
    let incarnation = one.image().broker(BrokerId(1)).unwrap().incarnation;
    let mut registrations = Registrations::default();
    let mut found = Found::new();
    check_registered(&one.image(), &mut registrations, &mut found);
    other.register(BrokerId(1));
    check_registered(&other.image(), &mut registrations, &mut found);
    assert!(found.is_empty());
    let epoch = one.image().broker(BrokerId(1)).unwrap().epoch;
    registrations.insert(epoch, (BrokerId(1), incarnation, Uuid([77; 16])));
    check_registered(&one.image(), &mut registrations, &mut found);
    assert_eq!(checks(&found), ["broker-epoch-reused"]);
}

#[test]
fn what_a_broker_was_ends_with_its_registration() {
    let (mut history, _) = History::with_a_topic_of_both(None);
    let before = history.image();
    history.register(BrokerId(1));
    history.register(BrokerId(2));
    assert!(watched(&[before.clone(), history.image()]).is_empty());
    // As if both had registered again, and the first led on, with the second in sync.
    let mut another = History::default();
    for _ in 0..8 {
        idle(&mut another);
    }
    another.make_a_topic_of_both(None);
    assert_eq!(
        watched(&[before, another.image()]),
        ["old-registration-counts", "old-registration-counts"]
    );
}

#[test]
fn what_a_node_knows_of_the_quorum_never_becomes_less() {
    let known = |index, term, committed| Known {
        index,
        term,
        committed,
    };
    let judged = |now: Known| {
        let mut found = Found::new();
        check_known(0, &known(7, 3, 8), &now, &mut found);
        checks(&found)
    };
    assert!(judged(known(7, 3, 8)).is_empty() && judged(known(8, 4, 9)).is_empty());
    for less in [known(6, 3, 8), known(7, 2, 8), known(7, 3, 7)] {
        assert_eq!(judged(less), ["quorum-went-back"]);
    }
}

#[test]
fn a_copy_that_may_lack_records_does_not_count() {
    let found = |image: &Image, wiped, crashed| {
        let mut found = Found::new();
        check_registration(BrokerId(2), wiped, crashed, (image, image), &mut found);
        checks(&found)
    };
    let image = |flush| History::with_a_topic_of_both(flush).0.image();
    let durable = image(None);
    assert_eq!(found(&durable, true, false), ["lost-copy-counts"]);
    assert!(found(&durable, false, true).is_empty());
    let written = image(Some("100"));
    assert_eq!(found(&written, false, true), ["lost-copy-counts"]);
    assert!(found(&written, false, false).is_empty());
}

fn status(node: i32, role: Role, (term, leader): (u64, i32), (last, committed): (u64, u64)) -> QuorumStatus {
    QuorumStatus {
        node_id: BrokerId(node),
        role,
        term,
        leader: Some(BrokerId(leader)),
        leader_contact: None,
        last_log_index: last,
        committed_index: committed,
        applied_index: committed,
        snapshot_index: 0,
        purged_index: 0,
        members: (1..=4).map(|id| member(id, id <= 3)).collect(),
    }
}

fn member(id: i32, voter: bool) -> MemberStatus {
    MemberStatus {
        id: BrokerId(id),
        addr: String::new(),
        directory: Uuid::ZERO,
        note: String::new(),
        voter,
        matched_index: None,
        last_contact: None,
    }
}

/// What a node tells, and nobody knows who made entries.
fn news(status: QuorumStatus) -> News {
    News {
        voted: status.term,
        status,
        committed_by: None,
        holds: None,
    }
}

/// What is on a disk; who made the last entry nobody knows.
fn on_disk(term: u64, last_index: u64) -> Durable {
    Durable {
        term,
        last_index,
        made_by: None,
    }
}

fn quorum_finds(
    quorum: &mut QuorumWatch,
    status: QuorumStatus,
    durable: [(u64, u64); 3],
) -> Vec<&'static str> {
    let durable = durable.map(|(term, last_index)| on_disk(term, last_index));
    quorum_finds_of(quorum, news(status), durable)
}

fn quorum_finds_of(quorum: &mut QuorumWatch, news: News, durable: [Durable; 3]) -> Vec<&'static str> {
    // Of four nodes, the last does not vote: what it has makes no majority.
    let durable = [&durable[..], &[on_disk(9, 9)]].concat();
    let mut found = Found::new();
    quorum.look(&[news], &durable, &mut found);
    checks(&found)
}

/// An entry of a term, whoever led in it.
fn of_term(term: u64) -> Option<MadeBy> {
    Some((term, BrokerId(1)))
}

#[test]
fn an_entry_is_on_the_disk_of_who_has_that_one_and_no_other() {
    let found = |second: u64| {
        let committed = News {
            committed_by: of_term(3),
            ..news(status(1, Role::Follower, (3, 1), (9, 8)))
        };
        let of = |term, last_index, by| Durable {
            made_by: of_term(by),
            ..on_disk(term, last_index)
        };
        let disks = [of(3, 9, 3), of(3, 9, second), of(3, 2, 2)];
        quorum_finds_of(&mut QuorumWatch::default(), committed, disks)
    };
    let none: [&str; 0] = [];
    assert_eq!(found(3), none);
    assert_eq!(found(4), none, "it has it, and one of the next term");
    // As long, and what lies there was made before.
    assert_eq!(found(2), ["entry-committed-before-durable"]);
}

#[test]
fn a_controller_has_nothing_else_in_the_place_of_what_was_committed() {
    let disks = [on_disk(9, 9); 3].map(|disk| Durable {
        made_by: of_term(9),
        ..disk
    });
    let found = |next: News| {
        let mut quorum = QuorumWatch::default();
        let first = News {
            committed_by: of_term(3),
            ..news(status(1, Role::Leader, (3, 1), (9, 8)))
        };
        assert!(quorum_finds_of(&mut quorum, first, disks).is_empty());
        quorum_finds_of(&mut quorum, next, disks)
    };
    let elected = |holds| News {
        holds,
        ..news(status(2, Role::Leader, (4, 2), (9, 7)))
    };
    let none: [&str; 0] = [];
    assert_eq!(found(elected(of_term(3))), none);
    assert_eq!(found(elected(None)), none, "it has dropped that entry");
    assert_eq!(found(elected(of_term(2))), ["incomplete-controller"]);
    // And two that take another one for committed.
    let follower = |by| News {
        committed_by: of_term(by),
        ..news(status(2, Role::Follower, (3, 1), (9, 8)))
    };
    assert_eq!(found(follower(3)), none);
    assert_eq!(found(follower(2)), ["raft-logs-differ"]);
}

#[test]
fn one_leads_the_quorum_in_a_term_and_has_everything() {
    let mut quorum = QuorumWatch::default();
    // The first does not know yet that a vote above its own was given.
    for node in [2, 3, 2] {
        let healthy = status(node, Role::Leader, (3, node), (9, 8));
        assert!(quorum_finds(&mut quorum, healthy, [(3, 9), (3, 8), (3, 9)]).is_empty());
    }
    let second = status(1, Role::Leader, (3, 1), (9, 8));
    assert_eq!(
        quorum_finds(&mut quorum, second, [(3, 9), (3, 8), (3, 2)]),
        ["two-controllers"]
    );
    let incomplete = status(3, Role::Leader, (4, 3), (7, 7));
    assert_eq!(
        quorum_finds(&mut quorum, incomplete, [(4, 9), (3, 8), (4, 7)]),
        ["incomplete-controller"]
    );
}

#[test]
fn votes_and_entries_are_durable_before_they_count() {
    let mut quorum = QuorumWatch::default();
    let follower = status(2, Role::Follower, (3, 1), (9, 8));
    assert_eq!(
        quorum_finds(&mut quorum, follower.clone(), [(3, 9), (2, 8), (3, 2)]),
        ["vote-before-durable"]
    );
    let mut quorum = QuorumWatch::default();
    assert_eq!(
        quorum_finds(&mut quorum, follower, [(3, 9), (3, 7), (3, 2)]),
        ["entry-committed-before-durable"]
    );
    // Nobody says anything wrong, and somebody was elected by fewer than a majority.
    let mut quorum = QuorumWatch::default();
    let leader = status(3, Role::Leader, (4, 3), (9, 8));
    assert_eq!(
        quorum_finds(&mut quorum, leader, [(3, 9), (3, 8), (4, 9)]),
        ["vote-before-durable"]
    );
}

/// Seed 2054 of any size: behind a disk that had stood still for 15 s votes in two terms waited for their syncs, and the node
/// knew of both terms.
#[test]
fn a_term_that_a_node_knows_of_is_no_vote() {
    let found = |voted| {
        let (mut quorum, mut found) = (QuorumWatch::default(), Found::new());
        let status = status(2, Role::Follower, (13, 1), (9, 8));
        let [own, others] = [11, 13].map(|term| on_disk(term, 9));
        quorum.look(
            &[News {
                voted,
                ..news(status)
            }],
            &[others, own, others, others],
            &mut found,
        );
        checks(&found)
    };
    assert!(found(11).is_empty());
    assert_eq!(found(12), ["vote-before-durable"]);
}

#[test]
fn who_hears_nobody_begins_no_term() {
    let mut quorum = QuorumWatch::default();
    let mut found = Found::new();
    for (now_ms, term) in [(0, Some(4)), (500, Some(5)), (2_000, Some(5)), (3_000, None)] {
        quorum.look_at_deaf(1, term, now_ms, &mut found);
    }
    assert!(found.is_empty(), "{found:?}");
    for (now_ms, term) in [(4_000, Some(5)), (6_000, Some(5)), (7_000, Some(6))] {
        quorum.look_at_deaf(1, term, now_ms, &mut found);
    }
    assert_eq!(checks(&found), ["needless-term"]);
}

#[test]
fn who_has_lost_its_disk_has_no_vote() {
    const LOST: usize = 2;
    // The third voter is known by a directory, or by another one, and its disk has this.
    let found = |directory: u8, on_new_disk| {
        let mut quorum = QuorumWatch::default();
        let known = |directory: u8| {
            let mut status = status(1, Role::Leader, (3, 1), (9, 8));
            status.members[LOST].directory = Uuid([directory; 16]);
            vec![(0, status)]
        };
        let durable = [on_disk(3, 9), on_disk(3, 9), on_disk(3, 9), on_disk(0, 0)];
        let mut found = Found::new();
        let (_, status) = known(5).remove(0);
        quorum.look(&[news(status)], &durable, &mut found);
        assert!(quorum.on_lost(LOST, on_disk(3, 9), &known(5)));
        let durable = [on_disk(3, 9), on_disk(3, 9), on_new_disk];
        quorum.check_lost(&known(directory), &durable, &mut found);
        // Of each disk it is told once.
        quorum.check_lost(&known(directory), &durable, &mut found);
        checks(&found)
    };
    assert!(found(5, on_disk(0, 0)).is_empty());
    assert_eq!(found(5, on_disk(4, 0)), ["lost-vote-counts"]);
    assert_eq!(found(5, on_disk(0, 2)), ["lost-vote-counts"]);
    // The operator has given the vote to the new disk.
    assert!(found(6, on_disk(4, 9)).is_empty());
}

#[test]
fn what_was_durable_on_a_lost_disk_was_promised_rightly() {
    let mut quorum = QuorumWatch::default();
    let follower = status(2, Role::Follower, (3, 1), (9, 7));
    assert!(quorum_finds(&mut quorum, follower, [(3, 9), (3, 7), (3, 2)]).is_empty());
    let durable = on_disk(3, 9);
    let known = [(1, status(2, Role::Follower, (3, 1), (9, 7)))];
    assert!(quorum.on_lost(0, durable, &known));
    let next = status(2, Role::Follower, (3, 1), (9, 8));
    assert!(quorum_finds(&mut quorum, next, [(0, 0), (3, 9), (3, 2)]).is_empty());
}

#[test]
fn what_is_dropped_is_in_the_snapshot_and_that_is_applied() {
    let found = |change: fn(&mut QuorumStatus)| {
        let mut status = status(1, Role::Follower, (1, 2), (9, 8));
        (status.purged_index, status.snapshot_index, status.applied_index) = (3, 5, 7);
        change(&mut status);
        quorum_finds(&mut QuorumWatch::default(), status, [(1, 9); 3])
    };
    assert!(found(|_| {}).is_empty());
    assert_eq!(found(|status| status.purged_index = 6), ["order-of-the-quorum"]);
    assert_eq!(found(|status| status.snapshot_index = 8), ["order-of-the-quorum"]);
    assert_eq!(found(|status| status.applied_index = 9), ["order-of-the-quorum"]);
}

/// Entries by index, term and sum, and up to where they are known to be committed.
type Seen<'a> = (&'a [(u64, u64, u64)], u64);

#[test]
fn two_logs_of_the_quorum_with_the_same_entry_are_the_same_before_it() {
    let log = |entries: &[(u64, u64, u64)]| -> Vec<LogEntry> {
        let entry = |(index, term, hash): &(u64, u64, u64)| LogEntry {
            index: *index,
            made_by: (*term, BrokerId(1)),
            hash: *hash,
        };
        entries.iter().map(entry).collect()
    };
    let found = |logs: &[Seen<'_>]| {
        let (mut all, mut found) = (RaftLogs::default(), Found::new());
        for (node, (entries, committed)) in logs.iter().enumerate() {
            all.look(node, &log(entries), *committed, &mut found);
        }
        checks(&found)
    };
    let first: Seen<'_> = (&[(1, 1, 7), (2, 1, 8), (3, 2, 9)], 2);
    let none: [&str; 0] = [];
    // One that is behind, one whose beginning was dropped, one with another end that is not committed.
    assert_eq!(
        found(&[
            first,
            (&[(1, 1, 7)], 1),
            (&[(3, 2, 9)], 3),
            (&[(1, 1, 7), (2, 1, 8), (3, 1, 5)], 2)
        ]),
        none
    );
    // Other bytes, another one before it, a hole, another one committed.
    assert_eq!(found(&[first, (&[(2, 1, 6)], 0)]), ["raft-logs-differ"]);
    assert_eq!(
        found(&[first, (&[(2, 2, 8), (3, 2, 9)], 0)]),
        ["raft-logs-differ"]
    );
    assert_eq!(found(&[(&[(1, 1, 7), (3, 2, 9)], 0)]), ["raft-logs-differ"]);
    assert_eq!(
        found(&[first, (&[(1, 1, 7), (2, 3, 4)], 2)]),
        ["raft-logs-differ"]
    );
}

fn names() -> Vec<String> {
    ["n1", "n2", "n3"].map(str::to_owned).to_vec()
}

#[test]
fn what_a_healed_cluster_must_have_is_missed() {
    let judged = |image: Option<&Image>, known: [Option<u64>; 2]| {
        let missing = check_whole(image, &names(), &known, |_, _| String::new());
        missing.map(|(check, _)| check)
    };
    let whole = |image: &Image| judged(Some(image), [Some(image.index()); 2]);
    let (mut history, [_, second]) = History::with_a_topic_of_both(None);
    let image = history.image();
    let index = image.index();
    assert_eq!(whole(&image), None);
    // A node does not serve, nobody knows any metadata, one knows older metadata.
    for (image, known) in [
        (Some(&*image), [Some(index), None]),
        (None, [Some(0), Some(0)]),
        (Some(&*image), [Some(index), Some(index - 1)]),
    ] {
        assert_eq!(judged(image, known), Some("not-whole"));
    }
    history.apply(&Command::FenceBroker(second));
    assert_eq!(whole(&history.image()), Some("not-whole"), "it is fenced");
    history.apply(&Command::UnfenceBroker(second));
    assert_eq!(whole(&history.image()), Some("not-whole"), "it is not in sync");
    let (mut history, _) = History::with_a_topic_of_both(None);
    history.register(BrokerId(3));
    assert_eq!(whole(&history.image()), None);
    history.apply(&Command::AlterReassignment(AlterReassignment {
        topic: Uuid([9; 16]),
        partition: PartitionIndex(0),
        target: Some(ids(&[1, 3])),
        may_change_factor: false,
    }));
    assert_eq!(whole(&history.image()), Some("not-whole"), "it is being moved");
    let offline = History::with_offline_copies().image();
    assert_eq!(whole(&offline), Some("not-whole"), "nobody leads it");
}

#[test]
fn a_partition_that_nobody_leads_is_told_of_and_comes_back() {
    let check = |missing: Option<Missing>| missing.map(|(check, _)| check);
    let (mut history, brokers) = History::with_a_topic_of_both(None);
    assert_eq!(check(check_elected(&history.image(), &[0, 1])), None);
    for broker in brokers {
        history.apply(&Command::FenceBroker(broker));
    }
    let silent = history.image();
    assert_eq!(check(check_told(None, "orders-0", 1)), Some("offline-not-told"));
    assert_eq!(
        check(check_told(Some(&silent), "orders-0", 1)),
        Some("offline-not-told")
    );
    // Whose copies cannot be opened the metadata says; and where a person may choose, somebody leads in the end.
    let told = History::with_offline_copies().image();
    assert_eq!(check(check_told(Some(&told), "orders-0", 1)), None);
    assert_eq!(check(check_elected(&told, &[1])), Some("not-recovered"));
    assert_eq!(check(check_elected(&told, &[2])), None, "it has no replica there");
}

#[test]
fn a_core_that_lacks_something_does_not_serve() {
    let (mut history, [_, second]) = History::with_a_topic_of_both(None);
    let both = history.image();
    history.apply(&Command::FenceBroker(second));
    let first = history.image();
    history.apply(&Command::UnfenceBroker(second));
    let lagging = history.image();
    let of = |image: &Arc<Image>, leader| {
        Some(core::Known {
            term: 3,
            leader,
            image: image.clone(),
        })
    };
    let judged = |core: &[(usize, Option<core::Known>)]| {
        let stuck = what_is_lacked(&names(), core, &["orders-0"], |_, _| String::new());
        stuck.map_or_else(Vec::new, |stuck| checks(&check_core(&names(), &stuck, None)))
    };
    let none: [&str; 0] = [];
    let broken = ["core-does-not-serve"];
    assert_eq!(judged(&[(0, of(&first, Some(0)))]), none);
    assert_eq!(judged(&[(0, of(&both, Some(0))), (1, of(&both, Some(0)))]), none);
    // It does not serve; nobody leads the quorum, or somebody who is gone; they do not agree.
    assert_eq!(judged(&[(0, None)]), broken);
    assert_eq!(judged(&[(0, of(&first, None))]), broken);
    assert_eq!(judged(&[(0, of(&first, Some(1)))]), broken);
    assert_eq!(
        judged(&[(0, of(&both, Some(0))), (1, of(&both, Some(1)))]),
        broken
    );
    // Who is gone is in sync; leads; who is there is not in sync.
    assert_eq!(judged(&[(0, of(&both, Some(0)))]), broken);
    assert_eq!(judged(&[(1, of(&first, Some(1)))]), broken);
    assert_eq!(
        judged(&[(0, of(&lagging, Some(0))), (1, of(&lagging, Some(0)))]),
        broken
    );
    // Nobody could ask it to.
    assert!(check_core(&names(), "it does not serve", Some("a voter is missing")).is_empty());
}

#[test]
fn a_recovered_quorum_gives_out_nothing_twice() {
    let (mut history, [first, second]) = History::with_a_topic_of_both(None);
    let survived = history.image();
    history.apply(&Command::AllocateProducerIds(first));
    history.apply(&Command::FenceBroker(first));
    let lost = history.image();
    let judged = |image: &Image| {
        let mut found = Found::new();
        check_recovered(image, &lost, &mut found);
        checks(&found)
    };
    // The survivor knows neither of the producer ids nor of who led last.
    assert_eq!(
        judged(&survived),
        ["number-given-out-twice", "number-given-out-twice"]
    );
    let (mut history, _) = History::with_a_topic_of_both(None);
    history.apply(&Command::QuorumRecovered {
        survivor: second.broker,
    });
    assert!(judged(&history.image()).is_empty());
    history.register(first.broker);
    history.register(second.broker);
    assert!(judged(&history.image()).is_empty());
}
