use std::sync::Arc;

use skerry_types::{Offset, WallMs, sometimes};

use super::{Log, Retired};
use crate::compaction::{
    CleanedGroup, CompactionJob, CompactionResult, DirtyRatio, Source, commit_cleaned, install_swapped,
    remove_cleaned,
};
use crate::errors::{ChangeError, ReadError};
use crate::segment::{FileKind, Segment};

impl Log {
    /// Whether compaction is due: the dirty part is large enough (`min.cleanable.dirty.ratio`), or old enough
    /// (`max.compaction.lag.ms`).
    #[must_use]
    pub fn compaction_candidate(&self, last_stable: Offset, now: WallMs) -> Option<DirtyRatio> {
        if !self.config.cleanup_policy.compact || self.poison.is_some() {
            return None;
        }
        let (first_dirty, upper) = (self.first_dirty(), self.cleanable_end(last_stable, now));
        let (mut clean_bytes, mut dirty_bytes) = (0, 0);
        for segment in &self.segments[..self.segments.len() - 1] {
            if segment.base < first_dirty {
                clean_bytes += u64::from(segment.size);
            } else if segment.base < upper {
                dirty_bytes += u64::from(segment.size);
            }
        }
        let ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes).max(1) as f64;
        let overdue = dirty_bytes > 0 && self.is_overdue(first_dirty, upper, now);
        let due = overdue || dirty_bytes > 0 && ratio > self.config.min_cleanable_dirty_ratio;
        due.then_some(DirtyRatio {
            ratio,
            dirty_bytes,
            clean_bytes,
            overdue,
        })
    }

    /// Begins a round that remembers keys in at most `budget_bytes`; `None`: there is nothing to clean, or a round is
    /// under way. Dropping the job, or its result, abandons it.
    pub fn start_compaction(
        &mut self,
        last_stable: Offset,
        now: WallMs,
        budget_bytes: usize,
    ) -> Option<CompactionJob> {
        if !self.config.cleanup_policy.compact || self.poison.is_some() || self.compacting.upgrade().is_some()
        {
            return None;
        }
        let (first_dirty, upper) = (self.first_dirty(), self.cleanable_end(last_stable, now));
        if first_dirty >= upper {
            return None;
        }
        let closed = self.segments.windows(2).take_while(|pair| pair[0].base < upper);
        let sources: Result<Vec<_>, _> = closed.map(|pair| self.source(&pair[0], pair[1].base)).collect();
        let sources = match sources {
            Ok(sources) if !sources.is_empty() => sources,
            Ok(_) => return None,
            Err(error) => {
                tracing::warn!(partition = %self.identity, %error, "a segment cannot be read for compaction");
                return None;
            }
        };
        let running = Arc::new(());
        self.compacting = Arc::downgrade(&running);
        Some(CompactionJob {
            place: self.place.clone(),
            config: self.config.clone(),
            sources,
            first_dirty,
            upper,
            now,
            budget_bytes,
            producers: self.producers.remembered_offsets(),
            generation: self.generation,
            running,
        })
    }

    /// Puts cleaned segments into the place of the old ones. Those that a truncation or retention has touched in the
    /// meantime stay as they are.
    ///
    /// # Errors
    /// The disk's, which are final for the log.
    pub fn finish_compaction(&mut self, result: CompactionResult) -> Result<Retired, ChangeError> {
        self.writable()?;
        let mut retired = Retired::default();
        let stale = result.generation != self.generation;
        sometimes("compaction-overtaken", stale);
        sometimes("compacted", !stale && !result.groups.is_empty());
        for group in result.groups {
            let base = group.base;
            let there = |base: &Offset| {
                self.segments
                    .binary_search_by_key(base, |segment| segment.base)
                    .is_ok()
            };
            if stale || !group.replaced.iter().all(there) {
                remove_cleaned(&self.place, base)?;
            } else if let Err(error) = self.swap(group, &mut retired) {
                self.poison("cleaned segments could not be swapped in", &error);
                return Err(error.into());
            }
        }
        if !stale {
            self.cleaned_until = self.cleaned_until.max(Some(result.cleaned_until));
        }
        self.check();
        Ok(retired)
    }

    fn swap(&mut self, group: CleanedGroup, retired: &mut Retired) -> std::io::Result<()> {
        let Some(segment) = group.segment else {
            return Ok(());
        };
        let at = self.floor(group.base);
        assert!(
            self.segments.len() > at + group.replaced.len(),
            "the active segment is never cleaned"
        );
        sometimes("segments-merged", group.replaced.len() > 1);
        commit_cleaned(&self.place, group.base)?;
        // The snapshot at the first base stays: it belongs to an offset, not to a file.
        for old in self.segments.drain(at..at + group.replaced.len()) {
            let snapshot = old.base != group.base;
            self.snapshots.retain(|offset| !snapshot || *offset != old.base);
            retired.add(&self.place, old, snapshot)?;
        }
        install_swapped(&self.place, group.base)?;
        self.segments.insert(at, segment);
        Ok(())
    }

    fn first_dirty(&self) -> Offset {
        self.cleaned_until
            .unwrap_or(self.log_start)
            .max(self.segments[0].base)
    }

    /// Never past the last stable offset, the active segment, or a segment that is younger than
    /// `min.compaction.lag.ms`.
    fn cleanable_end(&self, last_stable: Offset, now: WallMs) -> Offset {
        let mut end = last_stable.min(self.active().base);
        if self.config.min_compaction_lag_ms > 0 {
            let newest = now.get().saturating_sub(self.config.min_compaction_lag_ms);
            let first_dirty = self.first_dirty();
            let dirty = self.segments.iter().filter(|segment| segment.base >= first_dirty);
            let young = dirty.clone().find(|segment| {
                // An unreadable index: better not now.
                segment
                    .peek_largest()
                    .map_or(true, |largest| largest.is_some_and(|at| at.get() > newest))
            });
            end = end.min(young.map_or(end, |segment| segment.base));
        }
        end
    }

    fn is_overdue(&self, first_dirty: Offset, upper: Offset, now: WallMs) -> bool {
        let oldest = now.get().saturating_sub(self.config.max_compaction_lag_ms);
        let dirty = self
            .segments
            .iter()
            .filter(|segment| segment.base >= first_dirty && segment.base < upper);
        dirty.clone().any(|segment| match segment.header_at(0) {
            Ok(Some(first)) => first.max_timestamp().get() > 0 && first.max_timestamp().get() < oldest,
            _ => false,
        })
    }

    fn source(&self, segment: &Segment, next: Offset) -> Result<Source, ReadError> {
        Ok(Source {
            base: segment.base,
            file: segment.file(FileKind::Log)?,
            size: segment.size,
            aborted: self.aborted(segment.base, next)?,
        })
    }
}
