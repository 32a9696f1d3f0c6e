//! openraft's own tests of a store, against ours; and what a power loss leaves.

use std::path::Path;
use std::sync::Arc;

use openraft::entry::RaftEntry as _;
use openraft::storage::{RaftLogStorage as _, RaftLogStorageExt as _};
use openraft::testing::log::{StoreBuilder, Suite};
use openraft::{RaftLogReader as _, StorageError};
use skerry_env::{Env, TaskHandle};

use super::log::{Flusher, LogStore};
use super::machine::Machine;
use super::store::Store;
use super::types::{Entry, LeaderId, LogId, Runtime, TypeConfig, Vote};
use crate::wal::{WalMark, cut_unsynced_wal};

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

fn open(dir: &Path, mark: Option<WalMark>) -> (LogStore, Machine, TaskHandle) {
    let tasks = Env::os().tasks;
    let store = Arc::new(Store::open(&dir.join("raft"), mark).expect("opens"));
    let (flusher, task) = Flusher::start(&store, &tasks);
    let machine = Machine::load(Arc::clone(&store), flusher.clone(), tasks).expect("loads");
    (LogStore::new(store, flusher), machine, task)
}

#[tokio::test]
async fn openrafts_own_suite_passes() {
    Runtime::scope(1, Suite::test_all(Builder))
        .await
        .expect("every test of the suite");
}

fn entry(index: u64) -> Entry {
    Entry::new_blank(LogId::new(LeaderId { term: 1, node_id: 1 }, index))
}

#[tokio::test]
async fn power_loss_takes_what_was_not_synced_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mark = WalMark::default();
    let (mut log, machine, task) = open(dir.path(), Some(mark.clone()));
    Runtime::scope(1, async {
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
