//! Opening one partition's log.

use std::path::PathBuf;
use std::sync::Arc;

use skerry_env::Env;
use skerry_log::{FileCache, Log, OpenError, PartitionIdentity, Recovered, RecoveryReport, Shutdown};

use crate::partition::PartitionSettings;

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
