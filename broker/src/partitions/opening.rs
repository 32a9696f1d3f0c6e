//! Opening one partition's log.

use std::path::PathBuf;
use std::sync::Arc;

use skerry_env::Env;
use skerry_log::{FileCache, Log, OpenError, PartitionIdentity, Recovered, RecoveryReport, Shutdown};

use skerry_types::{Offset, reached};

use crate::partition::{Durability, PartitionSettings};

/// Everything that opening a log takes, for a thread that may block.
pub(super) struct Opening {
    pub(super) files: Arc<FileCache>,
    pub(super) env: Env,
    pub(super) dir: PathBuf,
    pub(super) identity: PartitionIdentity,
    pub(super) settings: Arc<PartitionSettings>,
    pub(super) recovered: Recovered,
    pub(super) shutdown: Shutdown,
}

impl Opening {
    pub(super) fn run(self) -> Result<Log, String> {
        let config = self.settings.log.clone();
        let exists = self
            .env
            .disk
            .stat(&self.dir)
            .map_err(|error| error.to_string())?
            .is_some();
        if !exists {
            return Log::create(&self.files, self.dir, self.identity, config)
                .map_err(|error| error.to_string());
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
            Err(error @ OpenError::Damaged { .. }) => Err(format!("{error}; nothing was changed on disk")),
            Err(error) => Err(error.to_string()),
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
    if !promised || log.log_end() >= known {
        return None;
    }
    reached("acknowledged-records-missing");
    Some(format!(
        "the log ends at offset {}, and what was acknowledged up to {known} was on this disk: the disk has not kept \
         what it had synced",
        log.log_end()
    ))
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
    for (from, to) in &report.gaps {
        tracing::warn!(partition = name, %from, %to, "the log has a gap that compaction does not explain");
    }
    if !report.rebuilt.is_empty() {
        tracing::info!(partition = name, files = ?report.rebuilt, "made indexes anew from the log");
    }
}
