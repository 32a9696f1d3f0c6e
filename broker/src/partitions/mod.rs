//! The partitions of this broker: opened, made and deleted as the metadata says.

mod aside;
mod checkpoints;
mod opening;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::stream::{self, StreamExt as _};
use parking_lot::{Mutex, RwLock};
use skerry_env::Env;
use skerry_log::{FileCache, PartitionIdentity, Recovered, Retired, Shutdown, checkpoint};
use skerry_metadata_state::{ConfigResource, Delta, Image, Topic};
use skerry_replica::PartitionView;
use skerry_types::{
    BrokerEpoch, IncarnationId, Offset, PartitionIndex, TopicId, TopicPartition, is_planted, reached,
};

use self::checkpoints::{CheckpointFile, Checkpoints};
use crate::graves::Graves;
use crate::partition::{Assigned, Assignment, Common, Partition, PartitionSettings};
use crate::replication::Replication;
use crate::settings::Settings;
use aside::ASIDE_SUFFIX;
use opening::{Opening, missing};

/// Logs that are opened or closed at a time: that waits for the disk, not for the processor.
const OPENED_AT_ONCE: usize = 8;
/// What a deleted partition's folder ends in until it is gone.
const DELETED_SUFFIX: &str = "-delete";
/// What the folder of a partition ends in that recovered metadata does not know (Kafka's suffix).
const STRAY_SUFFIX: &str = "-stray";

/// Names of the files beside the partitions' folders. They are Kafka's.
pub const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
/// First offsets.
pub const LOG_STARTS: &str = "log-start-offset-checkpoint";
/// How far compaction has come.
pub const CLEANED: &str = "cleaner-offset-checkpoint";
/// High watermarks: hints for the next start.
pub const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
/// Says that every log was closed; gone as soon as one may be written to.
pub const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";

/// A topic of which this broker may have partitions.
pub struct LocalTopic {
    name: Arc<str>,
    id: TopicId,
    internal: bool,
    partitions: RwLock<BTreeMap<i32, Arc<Partition>>>,
}

impl LocalTopic {
    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Its id.
    pub const fn id(&self) -> TopicId {
        self.id
    }

    /// One of the broker's own: clients may not produce to it.
    pub const fn internal(&self) -> bool {
        self.internal
    }

    /// A partition that this broker has.
    pub fn partition(&self, index: i32) -> Option<Arc<Partition>> {
        self.partitions.read().get(&index).cloned()
    }

    /// All partitions that this broker has, in order.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().cloned().collect()
    }
}

/// The registry.
pub struct Partitions {
    env: Env,
    log_dir: Arc<PathBuf>,
    files: Arc<FileCache>,
    common: Common,
    settings: Arc<Settings>,
    topics: RwLock<Topics>,
    checkpoints: Mutex<Checkpoints>,
    /// Files that DeleteRecords took out of logs, until maintenance comes for them.
    retired: Mutex<Vec<(Arc<Partition>, Retired)>>,
    graves: Graves,
    /// One writer at a time for each checkpoint file.
    writing: tokio::sync::Mutex<()>,
    shutdown_was: Shutdown,
    replication: Arc<Replication>,
    /// Names this start of the broker.
    incarnation: IncarnationId,
    /// The metadata that this broker acts on knows this start of it.
    registered: AtomicBool,
    /// The metadata may not know of topics that there are: see [`Self::keep_strays`].
    strays_stay: AtomicBool,
    /// Folders of damaged copies, until the new ones are in sync.
    aside: Mutex<BTreeMap<TopicPartition, PathBuf>>,
}

#[derive(Default)]
struct Topics {
    by_name: BTreeMap<Arc<str>, Arc<LocalTopic>>,
    by_id: BTreeMap<TopicId, Arc<LocalTopic>>,
}

/// The metadata has forgotten the partition all the same: its folder is found at the next start.
fn cannot_bury(folder: &std::path::Path, error: &io::Error) {
    tracing::warn!(folder = %folder.display(), %error, "cannot take a deleted partition's folder away; the next start will try again");
}

impl Partitions {
    /// True where the process before this one closed every log, or there was none.
    pub fn were_closed_cleanly(&self) -> bool {
        matches!(self.shutdown_was, Shutdown::Clean)
    }

    /// Reads the checkpoints of `log_dir`, makes it where it is missing, and forgets that it was closed cleanly.
    ///
    /// # Errors
    /// The disk's.
    pub fn open(
        env: Env,
        log_dir: Arc<PathBuf>,
        common: Common,
        replication: Arc<Replication>,
        open_files_max: usize,
    ) -> io::Result<Self> {
        let disk = &*env.disk;
        let fresh = disk.stat(&log_dir)?.is_none();
        if fresh {
            disk.create_dir_all(&log_dir)?;
            if let Some(parent) = log_dir.parent() {
                disk.sync_dir(parent)?;
            }
        }
        let marker = log_dir.join(CLEAN_SHUTDOWN);
        let shutdown_was = if fresh || disk.stat(&marker)?.is_some() {
            Shutdown::Clean
        } else {
            Shutdown::Unclean
        };
        let mut checkpoints = Checkpoints {
            recovery_points: checkpoint::read(disk, &log_dir.join(RECOVERY_POINTS))?,
            log_starts: checkpoint::read(disk, &log_dir.join(LOG_STARTS))?,
            cleaned: checkpoint::read(disk, &log_dir.join(CLEANED))?,
            // A hint: a damaged one is as good as none.
            high_watermarks: checkpoint::read(disk, &log_dir.join(HIGH_WATERMARKS)).unwrap_or_default(),
            ..Checkpoints::default()
        };
        let folders = disk.list(&log_dir)?.into_iter().map(|entry| entry.name).collect();
        checkpoints.keep_those_in(&folders);
        let incarnation = env.rng.uuid();
        if disk.stat(&marker)?.is_some() {
            // Durably gone before a log is written to: a crash after this is not a clean shutdown.
            disk.remove_file(&marker)?;
            disk.sync_dir(&log_dir)?;
        }
        Ok(Self {
            files: FileCache::new(env.disk.clone(), open_files_max),
            graves: Graves::new(env.clone()),
            env,
            log_dir,
            common,
            settings: replication.settings().clone(),
            topics: RwLock::default(),
            checkpoints: Mutex::new(checkpoints),
            retired: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
            shutdown_was,
            replication,
            incarnation,
            registered: AtomicBool::new(false),
            strays_stay: AtomicBool::new(false),
            aside: Mutex::default(),
        })
    }

    /// A person has recovered the quorum from a log that may lack its end: from now on what the metadata does not know is set
    /// aside where it would be removed, as Kafka does with all strays.
    pub fn keep_strays(&self) {
        self.strays_stay.store(true, Ordering::Relaxed);
    }

    /// Names this start of the broker.
    #[must_use]
    pub const fn incarnation(&self) -> IncarnationId {
        self.incarnation
    }

    /// The registration of this start of the broker in `image`, if it has one there.
    #[must_use]
    pub fn registration(&self, image: &Image) -> Option<BrokerEpoch> {
        let broker = image.broker(self.common.me)?;
        (broker.incarnation == self.incarnation).then_some(broker.epoch)
    }

    /// Where the partitions' folders are.
    #[must_use]
    pub fn log_dir(&self) -> &std::path::Path {
        &self.log_dir
    }

    /// Leaves files that a log has given up to maintenance, which removes them after `file.delete.delay.ms`.
    pub fn retire(&self, partition: &Arc<Partition>, retired: Retired) {
        if !retired.is_empty() {
            self.retired.lock().push((partition.clone(), retired));
        }
    }

    /// Takes what was left by [`Self::retire`].
    pub fn take_retired(&self) -> Vec<(Arc<Partition>, Retired)> {
        std::mem::take(&mut self.retired.lock())
    }

    /// A topic by its name.
    #[must_use]
    pub fn topic(&self, name: &str) -> Option<Arc<LocalTopic>> {
        self.topics.read().by_name.get(name).cloned()
    }

    /// A topic by its id.
    #[must_use]
    pub fn topic_by_id(&self, id: TopicId) -> Option<Arc<LocalTopic>> {
        self.topics.read().by_id.get(&id).cloned()
    }

    /// A partition by its topic's name and its number.
    #[must_use]
    pub fn get(&self, topic: &str, partition: i32) -> Option<Arc<Partition>> {
        self.topic(topic)?.partition(partition)
    }

    /// All topics in the order of their names.
    #[must_use]
    pub fn topics(&self) -> Vec<Arc<LocalTopic>> {
        self.topics.read().by_name.values().cloned().collect()
    }

    /// How many files are kept open for whoever reads them next.
    #[must_use]
    pub fn cached_files(&self) -> usize {
        self.files.open_count()
    }

    /// All partitions in the order of their names.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Partition>> {
        self.topics()
            .iter()
            .flat_map(|topic| topic.partitions())
            .collect()
    }

    /// Opens, makes and deletes what a new image asks for. Called for one image at a time, in their order.
    pub async fn apply(&self, image: &Arc<Image>, deltas: &[Delta]) {
        // Before it is registered, what this start of the broker is told may be the past: the quorum tells its log again.
        // Until then nothing is removed by it, and nobody leads or follows.
        if self.registration(image).is_some() && !self.registered.swap(true, Ordering::Relaxed) {
            self.reset(image).await;
            return;
        }
        if deltas.iter().any(|delta| matches!(delta, Delta::Reset)) {
            self.reset(image).await;
            return;
        }
        for delta in deltas {
            match delta {
                Delta::TopicCreated { id, .. } => {
                    if let Some(topic) = image.topic_by_id(*id) {
                        self.bring(image, topic).await;
                    }
                }
                Delta::TopicDeleted { id, .. } => self.delete(*id).await,
                Delta::PartitionChanged { topic, partition, .. } => {
                    if let Some(topic) = image.topic_by_id(*topic) {
                        self.change(image, topic, *partition).await;
                    }
                }
                Delta::ConfigChanged(ConfigResource::Topic(name)) => {
                    if let Some(topic) = image.topic(name) {
                        self.configure(image, topic);
                    }
                }
                Delta::ConfigChanged(ConfigResource::Broker(_) | ConfigResource::ClusterDefault) => {
                    for topic in image.topics() {
                        self.configure(image, topic);
                    }
                }
                Delta::ConfigChanged(ConfigResource::Group(_))
                | Delta::ClusterNamed(_)
                | Delta::BrokerChanged(_)
                | Delta::FeatureLevelChanged(_)
                | Delta::Reset => {}
            }
        }
    }

    /// Makes everything as `image` has it: at the start, and after a snapshot.
    async fn reset(&self, image: &Arc<Image>) {
        if self.registered.load(Ordering::Relaxed) {
            self.remove_what_is_gone(image).await;
        }
        for topic in image.topics() {
            self.bring(image, topic).await;
        }
    }

    async fn remove_what_is_gone(&self, image: &Arc<Image>) {
        let gone: Vec<TopicId> = self
            .topics
            .read()
            .by_id
            .keys()
            .copied()
            .filter(|id| image.topic_by_id(*id).is_none())
            .collect();
        for id in gone {
            self.delete(id).await;
        }
        // Whoever may lead them still is stopped before their folders go (7009 of any size, 60 s).
        for partition in self.all() {
            let index = partition.name().partition;
            let Some(topic) = image.topic_by_id(partition.topic_id()) else {
                continue;
            };
            let is_here = |metadata: &Arc<skerry_metadata_state::Partition>| {
                metadata.replicas.contains(&self.common.me)
            };
            if !topic.partition(index).is_some_and(is_here) {
                self.leave(topic, index).await;
            }
        }
        self.remove_strays(image).await;
    }

    /// Brings a topic's partitions that this broker should have.
    async fn bring(&self, image: &Arc<Image>, topic: &Arc<Topic>) {
        let indexes = (0..topic.partitions.len())
            .filter_map(|index| i32::try_from(index).ok())
            .map(PartitionIndex);
        stream::iter(indexes.map(|index| self.change(image, topic, index)))
            .buffered(OPENED_AT_ONCE)
            .collect::<Vec<()>>()
            .await;
    }

    /// Brings one partition to where the metadata has it.
    async fn change(&self, image: &Arc<Image>, topic: &Arc<Topic>, index: PartitionIndex) {
        let Some(metadata) = topic.partition(index) else {
            return;
        };
        if !metadata.replicas.contains(&self.common.me) {
            self.leave(topic, index).await;
            return;
        }
        let local = self.local(topic);
        let partition = match local.partition(index.get()) {
            Some(partition) => partition,
            None => {
                let settings = self.settings.of(image, topic, index, metadata);
                let partition = self.open_or_make(topic, index, settings).await;
                local.partitions.write().insert(index.get(), partition.clone());
                partition
            }
        };
        self.assign(image, topic, metadata, &partition);
    }

    fn assign(
        &self,
        image: &Image,
        topic: &Topic,
        metadata: &skerry_metadata_state::Partition,
        partition: &Arc<Partition>,
    ) {
        let assignment = Assignment {
            leader: metadata.leader,
            leader_epoch: metadata.leader_epoch,
            view: PartitionView {
                partition_epoch: metadata.partition_epoch,
                replicas: metadata.replicas.clone(),
                in_sync: metadata.isr.clone(),
                removing: metadata.removing.clone(),
                gives_up: image.may_let_go(topic, metadata),
            },
            is_called_offline: metadata.offline.contains(&self.common.me),
            min_in_sync: image.min_insync_replicas(topic, metadata),
            registration: self.registration(image),
        };
        let assigned = partition.assign(&assignment);
        self.replication.on_assigned(partition);
        if metadata.isr.contains(&self.common.me) && assigned != Assigned::Nothing {
            self.forget_aside(partition.name());
        }
    }

    /// The partition was moved to other brokers.
    async fn leave(&self, topic: &Topic, index: PartitionIndex) {
        if !self.registered.load(Ordering::Relaxed) {
            return;
        }
        let gone = self
            .topic_by_id(topic.id)
            .and_then(|local| local.partitions.write().remove(&index.get()));
        if let Some(partition) = gone {
            tracing::info!(partition = %partition.name(), "this broker has no replica any more");
            self.remove(topic.id, &[partition]).await;
        }
    }

    fn local(&self, topic: &Topic) -> Arc<LocalTopic> {
        if let Some(local) = self.topic_by_id(topic.id) {
            return local;
        }
        let local = Arc::new(LocalTopic {
            name: topic.name.clone(),
            id: topic.id,
            internal: crate::topics::is_internal(&topic.name),
            partitions: RwLock::default(),
        });
        let mut topics = self.topics.write();
        topics.by_name.insert(topic.name.clone(), local.clone());
        topics.by_id.insert(topic.id, local.clone());
        local
    }

    async fn open_or_make(
        &self,
        topic: &Topic,
        index: PartitionIndex,
        settings: Arc<PartitionSettings>,
    ) -> Arc<Partition> {
        let name = TopicPartition {
            topic: topic.name.clone(),
            partition: index,
        };
        let identity = PartitionIdentity {
            topic: topic.name.clone(),
            partition: index,
            topic_id: topic.id,
        };
        let opening = Opening {
            files: self.files.clone(),
            env: self.env.clone(),
            dir: self.log_dir.join(name.to_string()),
            identity,
            settings: settings.clone(),
            recovered: self.recovered(&name),
            shutdown: self.shutdown_was,
        };
        let log = match self.drop_leftovers(&name).await {
            Ok(()) => self.open_log(topic.id, opening).await,
            Err(error) => Err(format!(
                "what the checkpoints say of an earlier {name} stays: {error}"
            )),
        };
        let high_watermark = self.checkpoints.lock().high_watermarks.get(&name).copied();
        let metadata = topic.partition(index);
        let counts = metadata.is_some_and(|metadata| {
            metadata.isr.contains(&self.common.me) || metadata.elr.contains(&self.common.me)
        });
        let log = log.and_then(|log| match missing(&log, high_watermark, &settings, counts) {
            Some(why) => Err(why),
            None => Ok(log),
        });
        if let Err(why) = &log {
            tracing::error!(partition = %name, why, "the partition is offline");
        }
        Partition::new(
            name,
            topic.id,
            settings,
            log,
            high_watermark.unwrap_or(Offset::ZERO),
            self.common.clone(),
        )
    }

    fn recovered(&self, name: &TopicPartition) -> Recovered {
        let checkpoints = self.checkpoints.lock();
        Recovered {
            log_start: checkpoints.log_starts.get(name).copied().unwrap_or(Offset::ZERO),
            recovery_point: checkpoints
                .recovery_points
                .get(name)
                .copied()
                .filter(|_| !is_planted("checkpoints-not-compared"))
                .unwrap_or(Offset::ZERO),
            cleaned_until: checkpoints.cleaned.get(name).copied(),
        }
    }

    fn configure(&self, image: &Arc<Image>, topic: &Topic) {
        let Some(local) = self.topic_by_id(topic.id) else {
            return;
        };
        for partition in local.partitions() {
            if let Some(metadata) = topic.partition(partition.name().partition) {
                let index = partition.name().partition;
                partition.configure(self.settings.of(image, topic, index, metadata));
            }
        }
    }

    /// Deletes a topic's partitions: for all who look and durably when this returns. Their files go in the background.
    async fn delete(&self, id: TopicId) {
        let local = {
            let mut topics = self.topics.write();
            let Some(local) = topics.by_id.remove(&id) else {
                return;
            };
            // A topic of the same name may have been made again meanwhile.
            if topics
                .by_name
                .get(&local.name)
                .is_some_and(|known| known.id == id)
            {
                topics.by_name.remove(&local.name);
            }
            local
        };
        self.remove(id, &local.partitions()).await;
    }

    /// Gives partitions up: at once for all who look, on disk right after.
    async fn remove(&self, id: TopicId, partitions: &[Arc<Partition>]) {
        for partition in partitions {
            self.replication.forget(partition);
            partition.delete();
        }
        for partition in partitions {
            // Whoever sets its damaged copy aside just now must not meet the folder of the next one.
            drop(partition.lock_folder().await);
        }
        {
            let mut checkpoints = self.checkpoints.lock();
            for partition in partitions {
                checkpoints.forget(partition.name());
            }
        }
        let moves = partitions.iter().map(|partition| {
            let grave = format!("{id}-{}{DELETED_SUFFIX}", partition.name().partition);
            (
                self.log_dir.join(partition.name().to_string()),
                self.log_dir.join(grave),
            )
        });
        self.bury(moves.collect()).await;
    }

    /// Takes folders out of the way, so that their names are free at once and stay free after a crash, and has them
    /// removed.
    async fn bury(&self, moves: Vec<(PathBuf, PathBuf)>) {
        let (disk, log_dir) = (self.env.disk.clone(), self.log_dir.clone());
        let graves = self
            .env
            .tasks
            .run_blocking(move || {
                let mut graves = Vec::with_capacity(moves.len());
                for (from, grave) in moves {
                    match disk.rename(&from, &grave) {
                        Ok(()) => graves.push(grave),
                        Err(error) => cannot_bury(&from, &error),
                    }
                }
                // One for all of them: a thousand partitions cost one sync.
                if let Err(error) = disk.sync_dir(&log_dir) {
                    cannot_bury(&log_dir, &error);
                }
                graves
            })
            .await;
        self.graves.add(graves);
    }

    /// Has the folders of partitions removed that the metadata has deleted: a crash came between the two. A folder that
    /// is no partition's is left alone.
    async fn remove_strays(&self, image: &Arc<Image>) {
        let Ok(entries) = self.env.disk.list(&self.log_dir) else {
            return;
        };
        let mut strays = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            let dir = self.log_dir.join(&entry.name);
            if entry.name.ends_with(DELETED_SUFFIX) {
                self.graves.add([dir]);
                continue;
            }
            if entry.name.ends_with(STRAY_SUFFIX) {
                continue;
            }
            if entry.name.ends_with(ASIDE_SUFFIX) {
                self.find_aside(image, dir, &entry.name);
                continue;
            }
            let Some(id) = self.topic_id_of(&dir) else {
                continue;
            };
            if !self.is_wanted(image, id, &entry.name) {
                self.checkpoints.lock().forget_folder(&entry.name);
                if image.topic_by_id(id).is_none() && self.set_stray_aside(&dir, id).await {
                    continue;
                }
                tracing::info!(folder = entry.name, topic_id = %id, "removing a partition that was deleted, or moved to other brokers");
                let grave = format!("{}.{id}{DELETED_SUFFIX}", strays.len());
                strays.push((dir, self.log_dir.join(grave)));
            }
        }
        self.bury(strays).await;
    }

    /// Keeps the folder of a topic that the metadata does not know, where the metadata has been recovered; true where nobody
    /// may remove it.
    pub(super) async fn set_stray_aside(&self, dir: &std::path::Path, topic: TopicId) -> bool {
        if !self.strays_stay.load(Ordering::Relaxed) {
            return false;
        }
        let folder = dir
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let aside = self.log_dir.join(format!("{folder}.{topic}{STRAY_SUFFIX}"));
        let (disk, log_dir) = (self.env.disk.clone(), self.log_dir.clone());
        let (from, to) = (dir.to_owned(), aside.clone());
        let moved = move || disk.rename(&from, &to).and_then(|()| disk.sync_dir(&log_dir));
        match self.env.tasks.run_blocking(moved).await {
            Ok(()) => {
                tracing::warn!(
                    folder,
                    topic_id = %topic,
                    aside = %aside.display(),
                    "the recovered metadata does not know this partition: its folder is set aside, and nothing removes it"
                );
            }
            Err(error) => cannot_bury(dir, &error),
        }
        true
    }

    /// The metadata wants that folder here.
    fn is_wanted(&self, image: &Image, id: TopicId, folder: &str) -> bool {
        let Some(topic) = image.topic_by_id(id) else {
            return false;
        };
        let index = folder
            .strip_prefix(&*topic.name)
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|number| number.parse().ok());
        index
            .and_then(|index| topic.partition(PartitionIndex(index)))
            .is_some_and(|metadata| metadata.replicas.contains(&self.common.me))
    }

    /// Whose folder it is, by its `partition.metadata`; `None` where it is no partition's.
    fn topic_id_of(&self, dir: &std::path::Path) -> Option<TopicId> {
        let path = dir.join("partition.metadata");
        let bytes = skerry_env::disk::read_file(&*self.env.disk, &path, 4096).ok()??;
        let text = std::str::from_utf8(&bytes).ok()?;
        text.lines()
            .find_map(|line| line.strip_prefix("topic_id: ")?.trim().parse().ok())
    }

    /// Makes first offsets durable before DeleteRecords moves them: after a crash the records must not come back.
    ///
    /// # Errors
    /// The disk's.
    pub async fn save_log_start(&self, name: &TopicPartition, log_start: Offset) -> io::Result<()> {
        self.checkpoints.lock().raise_log_start(name, log_start);
        self.write(CheckpointFile::LogStarts).await
    }

    /// Makes checkpoints durable before logs are cut: those of `lowered` say no more than what stays, those of `raised`
    /// where the logs will begin.
    ///
    /// # Errors
    /// The disk's.
    pub async fn prepare_cuts(
        &self,
        lowered: &[(TopicPartition, Offset)],
        raised: &[(TopicPartition, Offset)],
    ) -> io::Result<()> {
        let claims_more = {
            let mut checkpoints = self.checkpoints.lock();
            let high_watermarks = &checkpoints.high_watermarks;
            let claims_more = lowered
                .iter()
                .any(|(name, limit)| high_watermarks.get(name).is_some_and(|known| known > limit));
            for offsets in checkpoints.all_lines() {
                for (name, limit) in lowered {
                    if let Some(offset) = offsets.get_mut(name) {
                        *offset = (*offset).min(*limit);
                    }
                }
            }
            for (name, start) in raised {
                checkpoints.raise_log_start(name, *start);
            }
            claims_more
        };
        // What was given up is not missed at the next start.
        if claims_more {
            self.write(CheckpointFile::HighWatermarks).await?;
        }
        if !lowered.is_empty() {
            self.write(CheckpointFile::RecoveryPoints).await?;
            self.write(CheckpointFile::Cleaned).await?;
        }
        self.write(CheckpointFile::LogStarts).await
    }

    /// Makes sure, durably, that no checkpoint speaks of an earlier partition of this name. Costs nothing where there was
    /// none: not the deletion of a thousand topics pays for it, but who takes one of their names.
    async fn drop_leftovers(&self, name: &TopicPartition) -> io::Result<()> {
        if !self.checkpoints.lock().leftover.contains(name) || is_planted("checkpoints-outlive-a-topic") {
            return Ok(());
        }
        reached("partition-of-an-earlier-name");
        // Of all that are gone by now: for the next of them it is done.
        let dropped = std::mem::take(&mut self.checkpoints.lock().leftover);
        for file in CheckpointFile::ALL {
            if let Err(error) = self.write(file).await {
                self.checkpoints.lock().leftover.extend(dropped);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes the high watermarks down, where they have changed.
    ///
    /// # Errors
    /// The disk's.
    pub async fn save_high_watermarks(&self) -> io::Result<()> {
        if !self.look_at_high_watermarks() {
            return Ok(());
        }
        self.write(CheckpointFile::HighWatermarks).await
    }

    fn look_at_high_watermarks(&self) -> bool {
        let mut changed = false;
        let mut checkpoints = self.checkpoints.lock();
        for partition in self.all() {
            let Some(now) = partition.checkpoint() else {
                continue;
            };
            let known = checkpoints.high_watermarks.get(partition.name());
            // A partition that nobody wrote to has no line, as in the other files.
            if known.copied().unwrap_or(Offset::ZERO) != now.high_watermark {
                let name = partition.name().clone();
                checkpoints.high_watermarks.insert(name, now.high_watermark);
                changed = true;
            }
        }
        changed
    }

    /// Writes what recovery will need: from where each log must be walked, where it begins, how far it is cleaned.
    ///
    /// # Errors
    /// The disk's.
    pub async fn save_checkpoints(&self) -> io::Result<()> {
        self.look_at_logs();
        // Before the recovery points: below them a hole that nothing explains is damage.
        self.write(CheckpointFile::Cleaned).await?;
        self.write(CheckpointFile::RecoveryPoints).await?;
        self.write(CheckpointFile::LogStarts).await
    }

    /// Brings the checkpoints up to date. Under one lock all along: a partition that is deleted meanwhile is either not
    /// open any more or has its lines removed after this.
    fn look_at_logs(&self) {
        let mut checkpoints = self.checkpoints.lock();
        for partition in self.all() {
            let name = partition.name();
            let Some(now) = partition.checkpoint() else {
                continue;
            };
            checkpoints
                .recovery_points
                .insert(name.clone(), now.recovery_point);
            checkpoints.raise_log_start(name, now.log_start);
            if let Some(cleaned) = now.cleaned_until {
                checkpoints.cleaned.insert(name.clone(), cleaned);
            }
        }
    }

    async fn write(&self, file: CheckpointFile) -> io::Result<()> {
        let _one_at_a_time = self.writing.lock().await;
        let lines = self.checkpoints.lock().lines(file).clone();
        let (disk, path) = (self.env.disk.clone(), self.log_dir.join(file.name()));
        self.env
            .tasks
            .run_blocking(move || checkpoint::write(&*disk, &path, &lines))
            .await
    }

    /// Closes one log; true where it is whole.
    async fn close_one(&self, partition: Arc<Partition>) -> bool {
        let offline = partition.offline();
        let closing = partition.clone();
        let closed = self.env.tasks.run_blocking(move || closing.close()).await;
        if let Err(error) = &closed {
            tracing::error!(partition = %partition.name(), %error, "cannot close the log cleanly");
        }
        closed.is_ok() && offline.is_none()
    }

    /// Closes every log cleanly, and says so durably if all could be.
    pub async fn close(&self) {
        self.graves.stop().await;
        let closed: Vec<bool> =
            stream::iter(self.all().into_iter().map(|partition| self.close_one(partition)))
                .buffered(OPENED_AT_ONCE)
                .collect()
                .await;
        let mut clean = closed.into_iter().all(|clean| clean);
        if let Err(error) = self.save_checkpoints().await {
            tracing::error!(%error, "cannot write the checkpoints");
            clean = false;
        }
        if clean {
            let (disk, marker) = (self.env.disk.clone(), self.log_dir.join(CLEAN_SHUTDOWN));
            let written = self
                .env
                .tasks
                .run_blocking(move || skerry_env::disk::replace_file(&*disk, &marker, b"{\"version\":0}\n"))
                .await;
            if let Err(error) = written {
                tracing::warn!(%error, "the next start will check every log: cannot write that this end was clean");
            }
        }
    }
}
