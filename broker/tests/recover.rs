//! A person makes one node the whole quorum, from a log that may lack its end: what its metadata does not know stays.

mod cluster;

use std::path::Path;

use cluster::Cluster;
use skerry_env::Env;
use skerry_env::disk::{Disk, read_file, replace_file};
use skerry_metadata::Survivor;
use skerry_types::WallMs;

const FILE_MAX: u64 = 256 << 20;

fn copy(disk: &dyn Disk, from: &Path, to: &Path) {
    disk.create_dir_all(to).expect("a folder");
    for entry in disk.list(from).expect("a folder") {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        if entry.is_dir {
            copy(disk, &from, &to);
        } else {
            let bytes = read_file(disk, &from, FILE_MAX).expect("a file");
            replace_file(disk, &to, &bytes.expect("a file that is there")).expect("a copy");
        }
    }
}

/// The folders of partitions whose name begins so.
fn folders(cluster: &Cluster, begin: &str) -> Vec<String> {
    let entries = Env::os().disk.list(&cluster.node_dir(1).join("log"));
    let names = entries.expect("a folder").into_iter().map(|entry| entry.name);
    names.filter(|name| name.starts_with(begin)).collect()
}

#[tokio::test]
async fn what_the_recovered_metadata_does_not_know_is_set_aside_with_its_records() {
    let mut cluster = Cluster::start("127.0.88", 3, &[]).await;
    cluster.create("known", &[1, 2], &[]).await;
    cluster.produce_many(1, "known", 3, 100).await;
    // The survivor comes back with the metadata of this moment: what is decided from now on, the lost voters alone know.
    let disk = Env::os().disk;
    let (metadata, older) = (
        cluster.node_dir(1).join("metadata"),
        cluster.node_dir(1).join("older"),
    );
    cluster.kill(1);
    copy(&*disk, &metadata, &older);
    cluster.restart(1).await;
    cluster.create("unknown", &[1], &[]).await;
    cluster
        .until("it is led", |cluster| cluster.partition_leads("unknown"))
        .await;
    cluster.produce_many(1, "unknown", 4, 100).await;
    let records = cluster.bytes(1, "unknown", 4);
    assert!(!records.is_empty());
    for id in 1..=3 {
        cluster.kill(id);
    }
    disk.remove_dir_all(&metadata).unwrap();
    copy(&*disk, &older, &metadata);
    let survivor = Survivor::open(&*disk, &metadata).unwrap();
    survivor.recover(WallMs(1_700_000_000_000)).unwrap();

    // At the first start after it, and at the next one, which might remove what the first one has left.
    for _ in 0..2 {
        cluster.restart(1).await;
        cluster
            .until("what is known is served", |cluster| {
                cluster.partition_leads("known")
            })
            .await;
        assert!(cluster.is_whole(1, "known", 3));
        cluster
            .until("what is not known has another name", |cluster| {
                folders(cluster, "unknown-0") != ["unknown-0"]
            })
            .await;
        let left = folders(&cluster, "unknown-0");
        assert!(left.len() == 1 && left[0].ends_with("-stray"), "{left:?}");
        let segment = cluster
            .node_dir(1)
            .join("log")
            .join(&left[0])
            .join("00000000000000000000.log");
        let bytes = read_file(&*disk, &segment, FILE_MAX).unwrap().expect("a segment");
        assert_eq!(bytes, records, "its records are there");
        cluster.kill(1);
    }
}
