//! Copies that cannot be used: set aside, made again, and removed when the new copy is in sync.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use skerry_log::{PartitionIdentity, Recovered, Shutdown};
use skerry_metadata_state::Image;
use skerry_types::{Offset, PartitionIndex, TopicPartition, is_planted, reached};

use super::checkpoints::CheckpointFile;
use super::{DELETED_SUFFIX, Opening, Partitions};
use crate::broker::Broker;
use crate::partition::Partition;

/// What the folder of a damaged copy ends in.
pub(super) const ASIDE_SUFFIX: &str = "-damaged";

impl Partitions {
    /// Sets what is left of a damaged copy aside, and begins an empty one. The metadata knows that it does not count. Gives the
    /// folder that stays until the new copy is in sync; none where this broker has given the partition up meanwhile: it may
    /// have another copy of it by now.
    ///
    /// Where a copy is set aside already, it stays: this one was begun since, and has never been in sync.
    ///
    /// # Errors
    /// The disk's.
    pub async fn start_over(
        &self,
        broker: &Broker,
        partition: &Arc<Partition>,
    ) -> io::Result<Option<PathBuf>> {
        let Some(_folder) = partition.lock_folder().await else {
            reached("repair-too-late");
            return Ok(None);
        };
        let name = partition.name().clone();
        let missing = || io::Error::new(io::ErrorKind::NotFound, "the topic has been deleted");
        let image = broker.image();
        let topic = image.topic_by_id(partition.topic_id()).ok_or_else(missing)?;
        partition.go_offline("its damaged copy is set aside");
        // What it was sent until now is not for the new log.
        self.replication.forget(partition);
        self.prepare_cuts(&[(name.clone(), Offset::ZERO)], &[]).await?;
        let dir = self.log_dir.join(name.to_string());
        let kept = match is_planted("repair-buries-what-was-aside") {
            true => {
                let before = self.aside.lock().remove(&name);
                self.graves.add(before);
                None
            }
            false => self.aside.lock().get(&name).cloned(),
        };
        let suffix = if kept.is_some() {
            DELETED_SUFFIX
        } else {
            ASIDE_SUFFIX
        };
        let aside = self
            .log_dir
            .join(format!("{name}.{}{suffix}", self.env.rng.uuid()));
        let (disk, log_dir, from, to) = (
            self.env.disk.clone(),
            self.log_dir.clone(),
            dir.clone(),
            aside.clone(),
        );
        let moved = move || {
            if disk.stat(&from)?.is_some() {
                disk.rename(&from, &to)?;
                disk.sync_dir(&log_dir)?;
            }
            Ok::<(), io::Error>(())
        };
        self.env.tasks.run_blocking(moved).await?;
        let kept = match kept {
            Some(kept) => {
                reached("damaged-copy-made-again-twice");
                self.graves.add([aside]);
                kept
            }
            None => {
                self.aside.lock().insert(name.clone(), aside.clone());
                aside
            }
        };
        let opening = Opening {
            files: self.files.clone(),
            env: self.env.clone(),
            dir,
            identity: PartitionIdentity {
                topic: topic.name.clone(),
                partition: name.partition,
                topic_id: topic.id,
            },
            settings: partition.settings(),
            recovered: Recovered::default(),
            shutdown: self.shutdown_was,
        };
        let log = self.env.tasks.run_blocking(move || opening.run()).await;
        partition.come_back(log.map_err(io::Error::other)?);
        self.replication.on_assigned(partition);
        Ok(Some(kept))
    }

    /// Opens a copy up to where it is damaged, and cuts off what is behind. Gives where it ends now; none where this broker
    /// has given the partition up meanwhile.
    ///
    /// # Errors
    /// The disk's, or of a log of which nothing can be opened.
    pub async fn open_what_is_left(&self, partition: &Arc<Partition>) -> io::Result<Option<Offset>> {
        let Some(_folder) = partition.lock_folder().await else {
            return Ok(None);
        };
        let name = partition.name().clone();
        // Nothing counts as durable any more: recovery walks all of it, and cuts where it cannot go on.
        self.forget_recovery_point(&name).await?;
        let opening = Opening {
            files: self.files.clone(),
            env: self.env.clone(),
            dir: self.log_dir.join(name.to_string()),
            identity: PartitionIdentity {
                topic: name.topic.clone(),
                partition: name.partition,
                topic_id: partition.topic_id(),
            },
            settings: partition.settings(),
            recovered: self.recovered(&name),
            shutdown: Shutdown::Unclean,
        };
        let log = self.env.tasks.run_blocking(move || opening.run()).await;
        let log = log.map_err(io::Error::other)?;
        let end = log.log_end();
        partition.come_back(log);
        self.replication.on_assigned(partition);
        Ok(Some(end))
    }

    /// Nothing is known to be durable of it any more.
    async fn forget_recovery_point(&self, name: &TopicPartition) -> io::Result<()> {
        {
            let mut checkpoints = self.checkpoints.lock();
            checkpoints.recovery_points.remove(name);
            checkpoints.high_watermarks.remove(name);
        }
        self.write(CheckpointFile::RecoveryPoints).await?;
        self.write(CheckpointFile::HighWatermarks).await
    }

    /// A damaged copy that an earlier start has set aside.
    pub(super) fn find_aside(&self, image: &Image, dir: PathBuf, folder: &str) {
        let known = || {
            let topic = image.topic_by_id(self.topic_id_of(&dir)?)?;
            let rest = folder.strip_prefix(&*topic.name)?.strip_prefix('-')?;
            let (number, _) = rest.split_once('.')?;
            Some(TopicPartition {
                topic: topic.name.clone(),
                partition: PartitionIndex(number.parse().ok()?),
            })
        };
        let useless = match known() {
            // It may be the one that is known: whoever hears a snapshot of the metadata looks again.
            Some(name) => self
                .aside
                .lock()
                .insert(name, dir.clone())
                .filter(|known| *known != dir),
            None => Some(dir),
        };
        self.graves.add(useless);
    }

    /// The new copy is in sync: nobody needs the damaged one.
    pub(super) fn forget_aside(&self, name: &TopicPartition) {
        let folder = self.aside.lock().remove(name);
        if let Some(folder) = folder {
            tracing::info!(partition = %name, "the new copy is in sync: the damaged one is removed");
            self.graves.add([folder]);
        }
    }
}
