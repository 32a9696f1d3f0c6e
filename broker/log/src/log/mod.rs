//! A partition's log: its segments in order, and what is known about them.

mod append;
mod change;
mod clean;
mod flush;
mod open;
mod read;
mod verify;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use skerry_env::disk::File;
use skerry_types::{Instant, LeaderEpoch, Offset, ProducerId, ProducerIdentity, WallMs, is_planted, reached};

use crate::config::LogConfig;
use crate::epochs::{EpochEnd, Epochs};
use crate::errors::{AppendError, OpenError, Poisoned};
use crate::files::{FileCache, FileKey};
use crate::identity::{self, PartitionIdentity};
use crate::producers::{IdleProducers, ProducerSnapshot, Producers, RememberedBatch};
use crate::segment::{FileKind, Place, Segment};

pub use append::Appended;
pub use change::Retired;
pub use flush::{CheckpointJob, FlushJob};
pub use open::{RecoveryReport, TailCut};
pub use read::ReadPlan;

/// What the node's checkpoint files say of a log. A missing line: the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// Where the log begins (`log-start-offset-checkpoint`).
    pub log_start: Offset,
    /// Everything below was durable (`recovery-point-offset-checkpoint`): what [`Log::recovery_point`] was, not any
    /// durable end, as the indexes are durable up to there as well. Damage below it is not a torn tail.
    pub recovery_point: Offset,
    /// Compaction has seen everything below (`cleaner-offset-checkpoint`), and offsets may be missing:
    /// [`Log::cleaned_until`].
    pub cleaned_until: Option<Offset>,
}

impl Default for Recovered {
    fn default() -> Self {
        Self {
            log_start: Offset::ZERO,
            recovery_point: Offset::ZERO,
            cleaned_until: None,
        }
    }
}

/// How the node ended last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Every log was closed ([`Log::close`]).
    Clean,
    /// By a crash or a power cut.
    Unclean,
}

/// One partition's log. The holder of its lock calls it; it never waits for anyone.
///
/// `log_start <= log_end`, `recovery_point <= durable_end <= log_end`; offsets grow from segment to segment; the last
/// segment takes the appends.
pub struct Log {
    place: Place,
    identity: PartitionIdentity,
    config: LogConfig,
    /// In order of their base offsets; never empty.
    segments: Vec<Segment>,
    log_start: Offset,
    log_end: Offset,
    durable_end: Offset,
    recovery_point: Offset,
    cleaned_until: Option<Offset>,
    epochs: Epochs,
    /// The checkpoint file lags behind `epochs`.
    epochs_dirty: bool,
    producers: Producers,
    idle_producers: IdleProducers,
    /// Producer snapshots on disk.
    snapshots: Vec<Offset>,
    /// Counts writes and changed names.
    writes: u64,
    /// The last write that changed a name; above `synced_names` it is not durable.
    names_changed: u64,
    synced_names: u64,
    /// Files beside the data that the next flush makes durable, with their last write.
    side_files: Vec<(u64, Arc<dyn File>)>,
    generation: Generation,
    known_high_watermark: AtomicI64,
    /// Lives as long as a round of compaction is under way.
    compacting: Weak<()>,
    poison: Option<String>,
}

/// What a job is of. A flush that began before a cut proves nothing after it, and nothing at all of another log that
/// has taken the place of the one it was begun for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    /// Names the log among all that were ever opened over its cache of files.
    log: FileKey,
    /// Truncations since then.
    cuts: u64,
}

impl Log {
    /// Makes the log of a new partition in `dir` (named `topic-partition`). Durable on return: files, their names and
    /// the directory's.
    ///
    /// # Errors
    /// `Exists` where a segment is there already; the disk's.
    pub fn create(
        files: &Arc<FileCache>,
        dir: PathBuf,
        id: PartitionIdentity,
        config: LogConfig,
    ) -> Result<Self, OpenError> {
        let place = Place {
            files: files.clone(),
            dir: dir.into(),
        };
        Self::create_at(place, id, config, Offset::ZERO)
    }

    fn create_at(
        place: Place,
        id: PartitionIdentity,
        config: LogConfig,
        base: Offset,
    ) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io {
            path: place.dir.display().to_string(),
            source,
        };
        if place
            .disk()
            .stat(&place.path(base, FileKind::Log))
            .map_err(io)?
            .is_some()
        {
            return Err(OpenError::Exists(place.dir.display().to_string()));
        }
        let segment = make_durable_dir(&place, &id, base).map_err(io)?;
        let log = Self::assemble(place, id, config, vec![segment], base);
        log.check();
        Ok(log)
    }

    /// A log that ends at `end`, all of it durable.
    fn assemble(
        place: Place,
        identity: PartitionIdentity,
        config: LogConfig,
        segments: Vec<Segment>,
        end: Offset,
    ) -> Self {
        let log_start = segments.first().map_or(end, |first| first.base);
        let generation = Generation {
            log: place.files.new_key(),
            cuts: 0,
        };
        Self {
            place,
            identity,
            config,
            segments,
            log_start,
            log_end: end,
            durable_end: end,
            recovery_point: log_start,
            cleaned_until: None,
            epochs: Epochs::default(),
            epochs_dirty: false,
            producers: Producers::default(),
            idle_producers: IdleProducers::default(),
            snapshots: Vec::new(),
            writes: 0,
            names_changed: 0,
            synced_names: 0,
            side_files: Vec::new(),
            generation,
            known_high_watermark: AtomicI64::new(0),
            compacting: Weak::new(),
            poison: None,
        }
    }

    /// Whose log this is.
    #[must_use]
    pub fn identity(&self) -> &PartitionIdentity {
        &self.identity
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.place.dir
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes its settings; they hold from the next call on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// The first offset that may be read.
    #[must_use]
    pub fn log_start(&self) -> Offset {
        self.log_start
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end(&self) -> Offset {
        self.log_end
    }

    /// Everything below survives a power cut.
    #[must_use]
    pub fn durable_end(&self) -> Offset {
        self.durable_end
    }

    /// What belongs into `recovery-point-offset-checkpoint`: recovery need not look below it.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        self.recovery_point
    }

    /// What belongs into `cleaner-offset-checkpoint`, if the log was ever compacted.
    #[must_use]
    pub fn cleaned_until(&self) -> Option<Offset> {
        self.cleaned_until
    }

    /// The epoch of the last batch.
    #[must_use]
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest()
    }

    /// Bytes in all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| u64::from(segment.size)).sum()
    }

    /// How many segments.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Why the log takes no more writes: an earlier write or sync failed, which is final.
    #[must_use]
    pub fn poisoned(&self) -> Option<&str> {
        self.poison.as_deref()
    }

    /// OffsetForLeaderEpoch: where `requested`, or the largest known epoch below it, ends (KIP-101, KIP-279).
    #[must_use]
    pub fn epoch_end(&self, requested: LeaderEpoch) -> EpochEnd {
        self.epochs.end_of(requested, self.log_end)
    }

    /// The epoch in which the record at `offset` was written.
    #[must_use]
    pub fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.epochs.at(offset)
    }

    /// Whether it can judge the order of this producer's batches. One that it does not know may begin at any sequence.
    #[must_use]
    pub fn knows_producer(&self, id: ProducerId) -> bool {
        self.producers.knows(id)
    }

    /// The leader epochs that the log knows, and where each begins.
    pub fn epoch_starts(&self) -> impl Iterator<Item = (LeaderEpoch, Offset)> + '_ {
        self.epochs
            .starts()
            .iter()
            .map(|entry| (entry.epoch, entry.start))
    }

    /// The producers that the log knows, by id.
    pub fn producers(&self) -> impl Iterator<Item = ProducerSnapshot> + '_ {
        self.producers.snapshots()
    }

    /// The batches by which it tells what each producer sends again: the last few of each, oldest first.
    pub fn remembered(&self) -> impl Iterator<Item = (ProducerIdentity, Vec<RememberedBatch>)> + '_ {
        self.producers.dump().map(|(snapshot, batches)| {
            let batches = batches.iter().map(RememberedBatch::of);
            (snapshot.producer, batches.collect())
        })
    }

    /// What this log knows of producers below `offset`, as a `.snapshot` file has it; empty where it knows none. A follower that
    /// begins at `offset` learns the rest from the records ([`Self::truncate_fully_and_start_at`]).
    #[must_use]
    pub fn producers_below(&self, offset: Offset) -> Vec<u8> {
        let below = self.producers.below(offset);
        if below.is_empty() {
            Vec::new()
        } else {
            below.render()
        }
    }

    /// Where a reader of committed records stops: at the first transaction that is open, or whose end is not below
    /// the high watermark yet.
    #[must_use]
    pub fn last_stable(&self, high_watermark: Offset) -> Offset {
        self.known_high_watermark
            .fetch_max(high_watermark.get(), Ordering::Relaxed);
        self.producers
            .first_unstable(high_watermark)
            .map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// Forgets producers that have not written for `producer.id.expiration.ms`, counted from the first call that found them
    /// as they are: whatever wall clocks do meanwhile.
    pub fn expire_producers(&mut self, now: Instant) {
        let idle_max = Duration::from_millis(self.config.producer_id_expiration_ms.max(0).unsigned_abs());
        let idle_max = if is_planted("producer-forgotten-early") {
            Duration::ZERO
        } else {
            idle_max
        };
        self.producers.expire(&mut self.idle_producers, now, idle_max);
    }

    /// Panics where an order of DESIGN.md section 9, or one of this crate, does not hold.
    ///
    /// # Panics
    /// On a bug of ours.
    pub fn check(&self) {
        self.check_ends();
        for pair in self.segments.windows(2) {
            assert!(
                pair[0].base < pair[1].base,
                "{}: segment {} before {}",
                self.identity,
                pair[0].base,
                pair[1].base
            );
        }
        let first = self.segments[0].base;
        assert!(
            first <= self.log_start,
            "{}: segment {first}, start {}",
            self.identity,
            self.log_start
        );
        assert!(
            self.recovery_point <= self.durable_end && self.cleaned_until <= Some(self.log_end),
            "{}: recovery point {}, durable {}, cleaned {:?}, end {}",
            self.identity,
            self.recovery_point,
            self.durable_end,
            self.cleaned_until,
            self.log_end
        );
        assert!(
            self.snapshots.is_sorted() && self.snapshots.last() <= Some(&self.log_end),
            "{}: snapshots {:?}, end {}",
            self.identity,
            self.snapshots,
            self.log_end
        );
        self.epochs.check(self.log_end);
        self.producers.check(self.log_end);
    }

    /// The part of `check` that costs nothing; the end of each append.
    fn check_ends(&self) {
        let active = self.active();
        assert!(
            self.log_start <= self.log_end && self.durable_end <= self.log_end && active.base <= self.log_end,
            "{}: start {}, durable {}, active segment {}, end {}",
            self.identity,
            self.log_start,
            self.durable_end,
            active.base,
            self.log_end
        );
    }

    fn active(&self) -> &Segment {
        self.segments.last().expect("a log always has a segment")
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("a log always has a segment")
    }

    /// The place of the segment that holds `offset`, or would.
    fn floor(&self, offset: Offset) -> usize {
        self.segments
            .partition_point(|segment| segment.base <= offset)
            .saturating_sub(1)
    }

    fn poison(&mut self, what: &str, error: &io::Error) {
        if self.poison.is_none() {
            reached("log-takes-no-more-writes");
            let why = format!("{what}: {error}");
            tracing::error!(partition = %self.identity, %why, "the log takes no more writes");
            self.poison = Some(why);
        }
    }

    fn writable(&self) -> Result<(), Poisoned> {
        self.poison
            .as_ref()
            .map_or(Ok(()), |why| Err(Poisoned(why.clone())))
    }

    fn names_changed(&mut self) {
        self.writes += 1;
        self.names_changed = self.writes;
    }
}

impl From<Poisoned> for AppendError {
    fn from(Poisoned(why): Poisoned) -> Self {
        Self::Poisoned(why)
    }
}

/// Makes `place` with its first segment at `base`, and everything durable.
fn make_durable_dir(place: &Place, id: &PartitionIdentity, base: Offset) -> io::Result<Segment> {
    let disk = place.disk();
    disk.create_dir_all(&place.dir)?;
    identity::write_topic_id(&**disk, &place.dir, id.topic_id)?;
    let segment = Segment::create(place, base, WallMs::NONE)?;
    for kind in [FileKind::Log, FileKind::OffsetIndex, FileKind::TimeIndex] {
        segment.file(kind)?.sync()?;
    }
    disk.sync_dir(&place.dir)?;
    // A new name is durable only when the directory that holds it is: Kafka leaves this out.
    if let Some(parent) = place.dir.parent() {
        disk.sync_dir(parent)?;
    }
    Ok(segment)
}

/// Up to where offsets may be missing, because they were compacted away: here, or in a leader's log of which this one is a copy.
/// Of those nobody knows where they end, also when the log is not compacted any more.
fn gaps_until(config: &LogConfig, cleaned_until: Option<Offset>) -> Offset {
    if config.cleanup_policy.compact || cleaned_until.is_some() {
        Offset(i64::MAX)
    } else {
        Offset(-1)
    }
}
