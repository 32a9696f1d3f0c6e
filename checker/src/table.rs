//! What is known of each offset and of each record, found without a search.

use std::collections::BTreeMap;

use crate::history::Value;

/// Which record is at which offset. Pages, for a log need not begin at 0.
#[derive(Default)]
pub(crate) struct Log {
    pages: BTreeMap<i64, Box<[u64; PAGE]>>,
}

const PAGE: usize = 1024;
const PAGE_BITS: u32 = PAGE.trailing_zeros();
/// No record: a producer may have any number but the last.
const NOBODY: u64 = u64::MAX;

fn place(offset: i64) -> (i64, usize) {
    let within = usize::try_from(offset & (PAGE as i64 - 1)).unwrap_or(0);
    (offset >> PAGE_BITS, within)
}

impl Log {
    pub(crate) fn get(&self, offset: i64) -> Option<Value> {
        let (page, within) = place(offset);
        let packed = self.pages.get(&page)?[within];
        (packed != NOBODY).then(|| Value::unpack(packed))
    }

    /// The page of `offset`, for reads of many neighbours, and the place in it.
    pub(crate) fn page(&mut self, offset: i64) -> (Page<'_>, usize) {
        let (number, within) = place(offset);
        let page = self
            .pages
            .entry(number)
            .or_insert_with(|| Box::new([NOBODY; PAGE]));
        (Page(page), within)
    }

    /// Forgets what is at `from` and behind it.
    pub(crate) fn forget_from(&mut self, from: i64) {
        let (number, within) = place(from);
        if let Some(page) = self.pages.get_mut(&number) {
            page[within..].fill(NOBODY);
        }
        self.pages.retain(|other, _| *other <= number);
    }

    /// Puts `value` where nothing is yet; returns what was there.
    pub(crate) fn put(&mut self, offset: i64, value: Value) -> Option<Value> {
        let (mut page, within) = self.page(offset);
        page.put(within, value)
    }
}

/// Neighbouring offsets of a log.
pub(crate) struct Page<'a>(&'a mut [u64; PAGE]);

impl Page<'_> {
    pub(crate) fn put(&mut self, within: usize, value: Value) -> Option<Value> {
        let slot = self.0.get_mut(within)?;
        if *slot == NOBODY {
            *slot = value.pack();
            return None;
        }
        Some(Value::unpack(*slot))
    }
}

/// How a send ended, as its client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Unknown,
    Acknowledged(i64),
    Refused,
}

/// A record that somebody sent.
pub(crate) struct Written {
    pub(crate) key: u32,
    /// The sending operation.
    pub(crate) op: u32,
    pub(crate) fate: Fate,
    /// Where the log was known to end when it was sent: it must land there or later.
    pub(crate) floor: i64,
    pub(crate) idempotent: bool,
    pub(crate) acks_all: bool,
    /// Acknowledged with acks=1 before a fault that may legally take what was not synced.
    pub(crate) may_be_lost: bool,
    /// Where it was read; -1: nowhere.
    pub(crate) first_at: i64,
    pub(crate) last_at: i64,
}

impl Written {
    /// Where it is, or was said to be by somebody whose word counts.
    pub(crate) fn position(&self) -> Option<i64> {
        match self.fate {
            _ if self.first_at >= 0 => Some(self.first_at),
            Fate::Acknowledged(offset) if !self.may_be_lost => Some(offset),
            _ => None,
        }
    }
}

/// All records, by producer and by serial.
#[derive(Default)]
pub(crate) struct Records(Vec<Vec<Option<Written>>>);

impl Records {
    pub(crate) fn get(&self, value: Value) -> Option<&Written> {
        self.0
            .get(value.producer as usize)?
            .get(value.serial as usize)?
            .as_ref()
    }

    pub(crate) fn get_mut(&mut self, value: Value) -> Option<&mut Written> {
        self.0
            .get_mut(value.producer as usize)?
            .get_mut(value.serial as usize)?
            .as_mut()
    }

    /// Adds a record; returns whether there was one of that name.
    pub(crate) fn add(&mut self, value: Value, written: Written) -> bool {
        let (producer, serial) = (value.producer as usize, value.serial as usize);
        if self.0.len() <= producer {
            self.0.resize_with(producer + 1, Vec::new);
        }
        let serials = &mut self.0[producer];
        if serials.len() <= serial {
            serials.resize_with(serial + 1, || None);
        }
        serials[serial].replace(written).is_some()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Value, &Written)> {
        let numbered = (0_u32..).zip(&self.0);
        numbered.flat_map(|(producer, serials)| {
            (0_u32..)
                .zip(serials)
                .filter_map(move |(serial, written)| Some((Value { producer, serial }, written.as_ref()?)))
        })
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Written> {
        self.0.iter_mut().flatten().flatten()
    }
}
