//! Opening one partition's log.

use std::path::PathBuf;
use std::sync::Arc;

use skerry_env::Env;
use skerry_log::{FileCache, Log, OpenError, PartitionIdentity, Recovered, RecoveryReport, Shutdown};

use skerry_types::{Offset, TopicId, TopicPartition, is_planted, reached};

use super::{DELETED_SUFFIX, Partitions};
use crate::partition::{Durability, PartitionSettings};

/// Everything that opening a log takes, for a thread that may block.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) files: Arc<FileCache>,
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) identity: PartitionIdentity,
    pub(super) settings: Arc<PartitionSettings>,
    pub(super) recovered: Recovered,
    pub(super) shutdown: Shutdown,
}

/// Why a log is not open.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotOpened {
    /// The folder is another topic's.
    #[error("{0}")]
    OtherTopic(String),
    /// Anything else.
    #[error("{0}")]
    Why(String),
}

impl Opening {
    pub(super) fn run(self) -> Result<Log, NotOpened> {
        let config = self.settings.log.clone();
        let exists = self
            .env
            .disk
            .stat(&self.dir)
            .map_err(|error| NotOpened::Why(error.to_string()))?
            .is_some();
        if !exists {
            return Log::create(&self.files, self.dir, self.identity, config)
                .map_err(|error| NotOpened::Why(error.to_string()));
        }
        let now = self.env.clock.wall();
        let name = format!("{}-{}", self.identity.topic, self.identity.partition);
        let opened = Log::open(
            &self.files,
            self.dir,
            Some(self.identity),
            config,
            self.shutdown,
            self.recovered,
            now,
        );
        match opened {
            Ok((log, report)) => {
                tell(&name, &report);
                Ok(log)
            }
            Err(error @ OpenError::WrongIdentity { .. }) => Err(NotOpened::OtherTopic(error.to_string())),
            Err(error @ OpenError::Damaged { .. }) => {
                Err(NotOpened::Why(format!("{error}; nothing was changed on disk")))
            }
            Err(error) => Err(NotOpened::Why(error.to_string())),
        }
    }
}

/// Why a copy that counts is no good: what it had acknowledged is not there, though no record of it is damaged. A disk
/// that said of writes that they were done, and had not done them, leaves such a log.
pub(super) fn missing(
    log: &Log,
    high_watermark: Option<Offset>,
    settings: &PartitionSettings,
    counts: bool,
) -> Option<String> {
    let known = high_watermark?;
    let promised = settings.durability == Durability::BeforeAcknowledgement && counts;
    if !promised || log.log_end() >= known || is_planted("checkpoints-not-compared") {
        return None;
    }
    reached("acknowledged-records-missing");
    Some(format!(
        "the log ends at offset {}, and what was acknowledged up to {known} was on this disk: the disk has not kept \
         what it had synced",
        log.log_end()
    ))
}

impl Partitions {
    /// Opens a log. A folder of the same name that is another topic's goes first: that topic is deleted, and this node was
    /// down or only starting then. Logs are opened once all is known that was decided before (`registration::caught_up`), so
    /// that the other topic cannot be the newer one.
    pub(super) async fn open_log(&self, topic: TopicId, opening: Opening) -> Result<Log, String> {
        let once = opening.clone();
        match self.env.tasks.run_blocking(move || once.run()).await {
            Ok(log) => return Ok(log),
            Err(NotOpened::Why(why)) => return Err(why),
            Err(NotOpened::OtherTopic(why)) => {
                let Some(other) = self.topic_id_of(&opening.dir).filter(|other| *other != topic) else {
                    return Err(why);
                };
                if !self.set_stray_aside(&opening.dir, other).await {
                    reached("folder-of-a-deleted-topic");
                    tracing::info!(dir = %opening.dir.display(), %other, %topic, "removing a partition of a topic that was deleted and made again");
                    let grave = format!("{other}-{}{DELETED_SUFFIX}", opening.identity.partition);
                    let grave = self.log_dir.join(grave);
                    self.bury(vec![(opening.dir.clone(), grave)]).await;
                }
                let name = TopicPartition {
                    topic: opening.identity.topic.clone(),
                    partition: opening.identity.partition,
                };
                // What the checkpoints say is of the other topic, too.
                self.checkpoints.lock().forget(&name);
                self.drop_leftovers(&name).await.map_err(|error| {
                    format!("what the checkpoints say of an earlier {name} stays: {error}")
                })?;
            }
        }
        let opened = self.env.tasks.run_blocking(move || opening.run()).await;
        opened.map_err(|error| error.to_string())
    }
}

fn tell(name: &str, report: &RecoveryReport) {
    if let Some(cut) = &report.cut {
        tracing::info!(
            partition = name,
            offset = %cut.offset,
            bytes = cut.bytes,
            why = cut.why,
            evidence = ?cut.evidence,
            "cut the tail that was never acknowledged as durable"
        );
    }
    if !report.rebuilt.is_empty() {
        tracing::info!(partition = name, files = ?report.rebuilt, "made indexes anew from the log");
    }
}
