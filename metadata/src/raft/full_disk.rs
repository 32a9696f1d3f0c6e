//! What a disk without room does to the metadata: a small file system of its own, which only root can mount.
#![expect(clippy::disallowed_methods, reason = "a test fills a real disk")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use openraft::EntryPayload;
use skerry_env::Env;
use skerry_metadata_state::{AlterConfigs, Command as Change, ConfigOp, ConfigResource, FEATURE_LEVEL};
use skerry_types::{BrokerId, Uuid};

use super::store::Store;
use super::types::{Entry, LeaderId, LogId, Proposal, Vote};
use crate::{ProposeError, Quorum, QuorumConfig, StoreTrouble};

/// A tmpfs, gone with the test.
struct SmallDisk {
    at: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this may not be done.
    fn mount(mib: u32) -> Option<Self> {
        let at = tempfile::tempdir().expect("a temporary directory");
        let size = format!("size={mib}m");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "skerry-small-disk"])
            .arg(at.path())
            .output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self { at }),
            refused => {
                println!("only root can mount a small disk: {refused:?}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.at.path()
    }

    fn hog(&self) -> PathBuf {
        self.path().join("somebody-else")
    }

    /// Somebody else writes it full, but for `bytes`.
    fn fill(&self, bytes: u64) {
        let mut hog = fs::File::create(self.hog()).expect("a file");
        let free = || {
            let space = Env::os().disk.space(self.path()).expect("a file system");
            space.available_bytes
        };
        while free() > bytes && hog.write_all(&[7; 4096]).is_ok() {}
    }

    fn free(&self) {
        fs::remove_file(self.hog()).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.at.path()).status();
    }
}

fn id(index: u64) -> LogId {
    LogId::new(LeaderId { term: 1, node_id: 1 }, index)
}

/// An entry of about `bytes` bytes.
fn large(index: u64, bytes: usize) -> Entry {
    let change = Change::AlterConfigs(AlterConfigs {
        resource: ConfigResource::ClusterDefault,
        replace: false,
        ops: vec![("some.key".into(), ConfigOp::Set("v".repeat(bytes).into()))],
    });
    Entry {
        log_id: id(index),
        payload: EntryPayload::Normal(Proposal(Arc::new(change))),
    }
}

/// The raft has stopped by then: what it was promised later must not depend on what RocksDB makes of the failure.
#[test]
fn a_store_that_has_failed_takes_no_more_and_opens_again() {
    let Some(disk) = SmallDisk::mount(16) else { return };
    let dir = disk.path().join("raft");
    let store = Store::open(&dir, None, None).expect("opens");
    store.put_vote(&Vote::new(3, 1)).expect("written");
    store.sync().expect("durable");
    assert_eq!(store.failure(), None);
    disk.fill(0);
    let mut durable = None;
    let error = (0..1_000)
        .find_map(|index| {
            let written = store.append([large(index, 60_000)]).and_then(|()| store.sync());
            durable = written.is_ok().then_some(index).or(durable);
            written.err()
        })
        .expect("60 MB do not fit");
    let why = store.failure().expect("it says so");
    assert!(why.contains("No space left"), "{why}");
    assert_eq!(error.to_string(), why);
    // Nothing is given to RocksDB any more, which would take some of it again by itself; reading goes on.
    let mut given = false;
    let refused = store.change(|_| {
        given = true;
        Ok(())
    });
    assert!(refused.is_err() && !given);
    for again in [
        store.append([large(5_000, 10)]),
        store.put_vote(&Vote::new(4, 1)),
        store.truncate_from(0),
        store.purge(&id(0)),
        store.put_committed(None),
        store.put_piece(0, 0, b"piece"),
        store.sync(),
    ] {
        assert_eq!(again.expect_err("refused").to_string(), why);
    }
    assert_eq!(store.vote().expect("read"), Some(Vote::new(3, 1)));
    drop(store);

    disk.free();
    let store = Store::open(&dir, None, None).expect("opens again");
    assert_eq!(store.vote().expect("read"), Some(Vote::new(3, 1)));
    let last = store.last_entry().expect("read").map(|id| id.index);
    assert!(last >= durable, "{durable:?} was durable, {last:?} is there");
    store.put_vote(&Vote::new(4, 1)).expect("written");
    store.sync().expect("durable");
}

fn change() -> Change {
    Change::InitCluster {
        cluster_id: Uuid([1; 16]),
        feature_level: FEATURE_LEVEL,
    }
}

#[tokio::test]
async fn a_quorum_waits_for_room_and_goes_on_by_itself() {
    let Some(disk) = SmallDisk::mount(16) else { return };
    let mut config = QuorumConfig::single(BrokerId(1), disk.path().join("metadata"), "127.0.90.1:0");
    config.timings.propose = Duration::from_millis(500);
    let env = Env::os();
    let quorum = Quorum::start(env.clone(), config, |_, _| {})
        .await
        .expect("starts");
    assert_eq!(quorum.trouble(), None);
    disk.fill(500_000);
    let asked = quorum.propose(change()).await;
    assert_eq!(asked, Err(ProposeError::Timeout(Duration::from_millis(500))));
    let trouble = quorum.trouble();
    assert!(
        matches!(trouble, Some(StoreTrouble::NoRoom { free_bytes }) if free_bytes < 1 << 20),
        "{trouble:?}"
    );
    disk.free();
    let deadline = env.clock.now() + Duration::from_secs(20);
    while quorum.trouble().is_some() {
        assert!(env.clock.now() < deadline, "it does not go on");
        env.clock.sleep(Duration::from_millis(10)).await;
    }
    let asked = quorum.propose(change()).await;
    assert!(asked.is_ok(), "{asked:?}");
    // And it ends while it waits.
    disk.fill(500_000);
    assert!(quorum.propose(change()).await.is_err());
    let ended = env
        .clock
        .timeout(Duration::from_secs(20), quorum.shutdown())
        .await;
    assert!(ended.is_ok());
}
