//! Which offsets were covered, as few ranges.

use std::collections::BTreeMap;

/// A set of offsets: disjoint ranges that do not touch, each by its start, with its end (exclusive).
#[derive(Debug, Default)]
pub(crate) struct Ranges(BTreeMap<i64, i64>);

impl Ranges {
    /// Adds `start..end`.
    pub(crate) fn add(&mut self, mut start: i64, mut end: i64) {
        if start >= end {
            return;
        }
        if let Some((first, last)) = self.0.range_mut(..=start).next_back()
            && *last >= start
        {
            if *last >= end {
                return;
            }
            start = *first;
        }
        while let Some((&next, &last)) = self.0.range(start..=end).next() {
            end = end.max(last);
            self.0.remove(&next);
        }
        self.0.insert(start, end);
    }

    /// Takes out `from` and everything behind it.
    pub(crate) fn forget_from(&mut self, from: i64) {
        self.0.retain(|start, _| *start < from);
        if let Some(mut last) = self.0.last_entry() {
            let end = *last.get();
            *last.get_mut() = end.min(from);
        }
    }

    pub(crate) fn contains(&self, offset: i64) -> bool {
        self.0
            .range(..=offset)
            .next_back()
            .is_some_and(|(_, end)| *end > offset)
    }

    /// The lowest offset.
    pub(crate) fn start(&self) -> Option<i64> {
        self.0.first_key_value().map(|(start, _)| *start)
    }

    /// The first offset of `from..to` that is not in it.
    pub(crate) fn first_gap(&self, from: i64, to: i64) -> Option<i64> {
        let covered = self.0.range(..=from).next_back();
        let gap = covered.map_or(from, |(_, end)| from.max(*end));
        (gap < to).then_some(gap)
    }
}

#[cfg(test)]
mod tests {
    use super::Ranges;

    #[test]
    fn ranges_that_touch_become_one() {
        let mut ranges = Ranges::default();
        for (start, end) in [(5, 7), (1, 2), (9, 12), (2, 5), (6, 6), (10, 11)] {
            ranges.add(start, end);
        }
        assert_eq!(ranges.0.into_iter().collect::<Vec<_>>(), [(1, 7), (9, 12)]);
    }

    /// Against a set that holds each offset.
    #[test]
    fn it_is_the_set_of_what_was_added() {
        let mut draw = 7_u64;
        for _ in 0..200 {
            let (mut ranges, mut naive) = (Ranges::default(), std::collections::BTreeSet::new());
            for _ in 0..8 {
                draw = draw
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let start = i64::try_from(draw >> 59).unwrap();
                let end = start + i64::try_from(draw >> 40 & 7).unwrap();
                ranges.add(start, end);
                naive.extend(start..end);
            }
            assert_eq!(ranges.start(), naive.first().copied());
            let cut = i64::try_from(draw >> 50 & 31).unwrap();
            if draw & 1 << 33 != 0 {
                ranges.forget_from(cut);
                naive.retain(|offset| *offset < cut);
            }
            for from in 0..40 {
                assert_eq!(ranges.contains(from), naive.contains(&from));
                let gap = (from..40).find(|offset| !naive.contains(offset));
                assert_eq!(ranges.first_gap(from, 40), gap, "{ranges:?} from {from}");
            }
        }
    }
}
