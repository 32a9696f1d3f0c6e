//! The batches of one replica as its files have them, followed as the log grows and is cut.

use std::collections::BTreeMap;

use super::copies::{self, Cursor, Image, Mark};
use super::is_compacted;
use crate::disk::SimDisk;

/// See the module.
#[derive(Default)]
pub(super) struct Mirror {
    marks: BTreeMap<i64, Mark>,
    cursor: Cursor,
}

/// What has changed since the last look.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Moved {
    /// Batches that are new, in their order.
    pub(super) added: Vec<Mark>,
    /// Batches that were cut off.
    pub(super) removed: Vec<Mark>,
}

impl Mirror {
    /// The batches that hold offsets from `from` up to `to`, in their order.
    pub(super) fn between(&self, from: i64, to: i64) -> impl Iterator<Item = &Mark> {
        let first = self.marks.range(..=from).next_back();
        let first = first.filter(|(_, mark)| mark.end > from).map(|(base, _)| *base);
        self.marks
            .range(first.unwrap_or(from)..to.max(from))
            .map(|(_, mark)| mark)
    }

    /// Batches are missing between others.
    pub(super) fn has_holes(&self) -> bool {
        let ends = self.marks.values().map(|mark| mark.end);
        ends.zip(self.marks.keys().skip(1)).any(|(end, next)| end < *next)
    }

    /// The log is from `start` to `end` now.
    pub(super) fn follow(&mut self, disk: &SimDisk, name: &str, (start, end): (i64, i64)) -> Moved {
        while let Some(entry) = self.marks.first_entry() {
            if entry.get().end > start {
                break;
            }
            entry.remove();
        }
        let mut moved = Moved::default();
        while let Some(entry) = self.marks.last_entry() {
            if entry.get().end <= end {
                break;
            }
            moved.removed.push(entry.remove());
            self.cursor = Cursor::default();
        }
        let last = self.marks.last_key_value().map(|(_, mark)| *mark);
        let from = last.map_or(start, |mark| mark.base);
        let mut found = copies::batches(disk, name, Image::Live, (from, end), &mut self.cursor);
        match last {
            Some(last) if found.first().is_some_and(|first| first.is_same(&last)) => {
                found.remove(0);
            }
            Some(_) => {
                // It was cut, and has grown again since.
                self.cursor = Cursor::default();
                found = copies::batches(disk, name, Image::Live, (start, end), &mut self.cursor);
                let old = std::mem::take(&mut self.marks);
                self.marks = found.iter().map(|mark| (mark.base, *mark)).collect();
                found.retain(|mark| !old.get(&mark.base).is_some_and(|old| old.is_same(mark)));
                let is_gone = |mark: &Mark| !self.marks.get(&mark.base).is_some_and(|now| now.is_same(mark));
                // What compaction has taken out leaves a hole; what was cut has something else in its place.
                let is_cut =
                    |mark: &Mark| !is_compacted(name) || self.between(mark.base, mark.end).next().is_some();
                let gone = old.into_values().filter(|mark| is_gone(mark) && is_cut(mark));
                moved.removed.extend(gone);
            }
            None => {}
        }
        self.marks.extend(found.iter().map(|mark| (mark.base, *mark)));
        moved.added = found;
        moved
    }
}
