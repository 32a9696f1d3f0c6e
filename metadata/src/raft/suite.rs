//! openraft's own tests of a store, against ours; and what a power loss leaves.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::entry::RaftEntry as _;
use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader as _, StorageError};
use skerry_env::{Env, TaskHandle};
use skerry_metadata_state::{Command as Change, FEATURE_LEVEL};
use skerry_types::{BrokerId, Uuid};
use tokio::sync::watch;

use super::log::{Flusher, LogStore};
use super::machine::Machine;
use super::room::Room;
use super::runtime::scope;
use super::snapshot::{PIECE_BYTES, Snapshots};
use super::store::Store;
use super::types::{Entry, LeaderId, LogId, SnapshotMeta, StoredMembership, TypeConfig, Vote};
use crate::wal::{WalMark, cut_unsynced_wal};
use crate::{ProposeError, Quorum, QuorumConfig, Role};

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, (tempfile::TempDir, TaskHandle)> for Builder {
    async fn build(
        &self,
    ) -> Result<((tempfile::TempDir, TaskHandle), LogStore, Machine), StorageError<TypeConfig>> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (log, machine, task) = open(dir.path(), None);
        Ok(((dir, task), log, machine))
    }
}

fn room(dir: &Path) -> Room {
    Room::new(&Env::os(), dir.to_owned(), watch::channel(false).1)
}

fn open(dir: &Path, mark: Option<WalMark>) -> (LogStore, Machine, TaskHandle) {
    let tasks = Env::os().tasks;
    let store = Arc::new(Store::open(&dir.join("raft"), None, mark).expect("opens"));
    let (flusher, task) = Flusher::start(&store, &tasks);
    let room = room(dir);
    let machine = Machine::load(Arc::clone(&store), flusher.clone(), tasks, room.clone()).expect("loads");
    (LogStore::new(store, flusher, room), machine, task)
}

#[tokio::test]
async fn openrafts_own_suite_passes() {
    scope(&Env::os(), Suite::test_all(Builder))
        .await
        .expect("every test of the suite");
}

fn entry(index: u64) -> Entry {
    Entry::new_blank(LogId::new(LeaderId { term: 1, node_id: 1 }, index))
}

/// Names the bug that the parent process wants planted in this one.
const PLANT: &str = "SKERRY_TEST_PLANT";

#[test]
fn promises_before_they_are_durable_are_noticed() {
    for name in ["raft-vote-not-synced", "raft-entry-acked-before-sync"] {
        let program = std::env::current_exe().expect("this program");
        let output = std::process::Command::new(program)
            .args(["--exact", "raft::suite::a_promise_survives_the_loss_of_power"])
            .env(PLANT, name)
            .output()
            .expect("it runs");
        assert!(String::from_utf8_lossy(&output.stdout).contains("running 1 test"));
        assert!(!output.status.success(), "{name} was not noticed");
    }
}

/// Planted bug 2: a vote that is granted, or an entry that is acknowledged, before it is durable.
#[tokio::test]
async fn a_promise_survives_the_loss_of_power() {
    if let Ok(name) = std::env::var(PLANT) {
        skerry_types::plant(&name);
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mark = WalMark::default();
    for round in 1..=3 {
        let (mut log, machine, task) = open(dir.path(), Some(mark.clone()));
        log.save_vote(&Vote::new(round, 1)).await.expect("saved");
        drop((log, machine));
        task.join().await;
        cut_unsynced_wal(&dir.path().join("raft"), &mark).expect("cut");

        let (mut log, machine, task) = open(dir.path(), Some(mark.clone()));
        assert_eq!(log.read_vote().await.expect("read"), Some(Vote::new(round, 1)));
        scope(&Env::os(), log.blocking_append([entry(round - 1)]))
            .await
            .expect("durable");
        drop((log, machine));
        task.join().await;
        cut_unsynced_wal(&dir.path().join("raft"), &mark).expect("cut");

        let (mut log, machine, task) = open(dir.path(), Some(mark.clone()));
        let kept = log.try_get_log_entries(..).await.expect("read");
        assert_eq!(kept.len() as u64, round);
        drop((log, machine));
        task.join().await;
    }
}

#[tokio::test]
async fn power_loss_takes_what_was_not_synced_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mark = WalMark::default();
    let (mut log, machine, task) = open(dir.path(), Some(mark.clone()));
    scope(&Env::os(), async {
        log.save_vote(&Vote::new(3, 1)).await.expect("saved");
        log.blocking_append([entry(0), entry(1), entry(2)])
            .await
            .expect("durable");
        // Readable, and promised to nobody.
        log.save_committed(Some(LogId::new(LeaderId { term: 1, node_id: 1 }, 2)))
            .await
            .expect("written");
        log.truncate_after(Some(LogId::new(LeaderId { term: 1, node_id: 1 }, 0)))
            .await
            .expect("written");
        assert_eq!(log.try_get_log_entries(..).await.expect("readable").len(), 1);
    })
    .await;
    drop((log, machine));
    task.join().await;
    cut_unsynced_wal(&dir.path().join("raft"), &mark).expect("cut");

    let (mut log, machine, task) = open(dir.path(), Some(mark));
    assert_eq!(log.read_vote().await.expect("read"), Some(Vote::new(3, 1)));
    assert_eq!(log.read_committed().await.expect("read"), None);
    let kept = log.try_get_log_entries(..).await.expect("read");
    assert_eq!(kept, [entry(0), entry(1), entry(2)]);
    drop((log, machine));
    task.join().await;
}

/// The device refuses one sync and is well again (the kernel takes the pages for clean, and the next sync succeeds and
/// writes nothing): no vote and no entry counts any more until the next start, which finds what was durable before.
#[tokio::test]
async fn nothing_is_promised_after_a_sync_or_a_write_that_failed() {
    for (entry_first, writes) in [(false, false), (true, false), (false, true), (true, true)] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mark = WalMark::default();
        let let_fail = |fail| match writes {
            true => mark.let_writes_fail(fail),
            false => mark.let_syncs_fail(fail),
        };
        let (mut log, machine, task) = open(dir.path(), Some(mark.clone()));
        scope(&Env::os(), async {
            log.save_vote(&Vote::new(1, 1)).await.expect("saved");
            log.blocking_append([entry(0)]).await.expect("durable");
            let_fail(true);
            if entry_first {
                log.blocking_append([entry(1)]).await.expect_err("not durable");
            } else {
                log.save_vote(&Vote::new(2, 1)).await.expect_err("not durable");
            }
            let_fail(false);
            let refused = [
                log.save_vote(&Vote::new(2, 1))
                    .await
                    .expect_err("refused")
                    .to_string(),
                log.blocking_append([entry(1)])
                    .await
                    .expect_err("refused")
                    .to_string(),
            ];
            for why in refused {
                assert!(why.contains("takes no more writes"), "{why}");
                assert!(why.contains("Input/output error"), "{why}");
            }
        })
        .await;
        assert_eq!(mark.sync_failures(), 1, "it is not tried again");
        drop((log, machine));
        task.join().await;
        cut_unsynced_wal(&dir.path().join("raft"), &mark).expect("cut");

        let (mut log, machine, task) = open(dir.path(), Some(mark));
        assert_eq!(log.read_vote().await.expect("read"), Some(Vote::new(1, 1)));
        let kept = log.try_get_log_entries(..).await.expect("read");
        assert_eq!(kept, [entry(0)]);
        drop((log, machine));
        task.join().await;
    }
}

/// A quorum whose store has failed stops, says why, and acknowledges nothing.
#[tokio::test]
async fn a_quorum_stops_at_a_sync_that_failed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mark = WalMark::default();
    let mut config = QuorumConfig::single(BrokerId(1), dir.path(), "127.0.91.1:0");
    config.wal_mark = Some(mark.clone());
    let env = Env::os();
    let quorum = Quorum::start(env.clone(), config, |_, _| {})
        .await
        .expect("starts");
    let change = || Change::InitCluster {
        cluster_id: Uuid([1; 16]),
        feature_level: FEATURE_LEVEL,
    };
    mark.let_syncs_fail(true);
    let asked = quorum.propose(change()).await;
    assert!(matches!(asked, Err(ProposeError::Stopped(_))), "{asked:?}");
    mark.let_syncs_fail(false);
    let asked = quorum.propose(change()).await;
    assert!(matches!(asked, Err(ProposeError::Stopped(_))), "{asked:?}");
    let deadline = env.clock.now() + Duration::from_secs(20);
    while quorum.status().role != Role::Stopped {
        assert!(env.clock.now() < deadline, "it goes on");
        env.clock.sleep(Duration::from_millis(10)).await;
    }
    let trouble = quorum.trouble().map(|trouble| trouble.to_string());
    assert!(
        trouble
            .as_ref()
            .is_some_and(|why| why.contains("Input/output error")),
        "{trouble:?}"
    );
    quorum.shutdown().await;
}

fn pieces(store: &Store, generation: u64) -> usize {
    (0..10)
        .filter(|piece| store.piece(generation, *piece).is_ok())
        .count()
}

fn meta(index: u64) -> SnapshotMeta {
    SnapshotMeta {
        last_log_id: Some(LogId::new(LeaderId { term: 1, node_id: 1 }, index)),
        last_membership: StoredMembership::default(),
    }
}

#[tokio::test]
async fn a_snapshot_is_replaced_while_it_is_read_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let tasks = Env::os().tasks;
    let store = Arc::new(Store::open(&dir.path().join("raft"), None, None).expect("opens"));
    let (flusher, task) = Flusher::start(&store, &tasks);
    let room = room(dir.path());
    let load =
        || Snapshots::load(Arc::clone(&store), flusher.clone(), tasks.clone(), room.clone()).expect("loads");
    let snapshots = load();
    assert!(snapshots.current().is_none());
    let data = |byte: u8| Bytes::from(vec![byte; PIECE_BYTES * 2 + 10]);

    // One that is given up, as by a peer that dies while it sends.
    let mut writer = snapshots.writer(100).await.expect("room");
    writer.push(&[1; 100]).expect("written");
    assert_eq!(pieces(&store, 0), 1);
    drop(writer);
    assert_eq!(pieces(&store, 0), 0);

    let first = snapshots.write(data(2)).await.expect("written");
    assert_eq!(first.pieces(), 3);
    snapshots.adopt(meta(5), first).await.expect("durable");
    let sending = snapshots.current().expect("there is one").snapshot;
    let second = snapshots.write(data(3)).await.expect("written");
    snapshots.adopt(meta(9), second).await.expect("durable");
    // Who reads the old one goes on; then it is gone.
    assert_eq!(sending.read().expect("whole"), data(2));
    drop(sending);
    assert_eq!((pieces(&store, 1), pieces(&store, 2)), (0, 3));

    // One that was begun earlier and ends later does not take the place of a newer one.
    let late = snapshots.write(data(4)).await.expect("written");
    snapshots.adopt(meta(7), late).await.expect("durable");
    let current = snapshots.current().expect("there is one");
    assert_eq!(
        (current.meta.clone(), current.snapshot.read().expect("whole")),
        (meta(9), data(3))
    );
    assert_eq!(pieces(&store, 3), 0);

    // A crash in the middle of one leaves pieces that the next start clears.
    let mut writer = snapshots.writer(100).await.expect("room");
    writer.push(&[5; 100]).expect("written");
    std::mem::forget(writer);
    let unfinished = 4;
    assert_eq!(pieces(&store, unfinished), 1);
    drop((snapshots, current));
    drop(flusher);
    task.join().await;
    // The forgotten writer holds the store: what a start does is done by hand.
    store.clear_leftovers().expect("cleared");
    assert_eq!((pieces(&store, 2), pieces(&store, unfinished)), (3, 0));
    assert_eq!(store.new_generation(), 3);
}

#[tokio::test]
async fn appends_to_peers_are_bounded_in_bytes() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(&dir.path().join("raft"), None, None).expect("opens");
    store.append((0..100).map(entry)).expect("written");
    let one = store.entries(0..1, usize::MAX).expect("read");
    assert_eq!(store.entries(10.., 1).expect("read"), [entry(10)]);
    assert_eq!(store.entries(.., usize::MAX).expect("read").len(), 100);
    let some = store.entries(.., 200).expect("read");
    assert!(
        some.len() > 1 && some.len() < 50 && some[..1] == one,
        "{}",
        some.len()
    );
}
