//! Logs that are compacted: what is superseded may be gone, and nothing else. Each in its own time: copies of a log are
//! compacted for themselves, and a reader may come by at any moment.
//!
//! Two questions are asked, when all is known. Of each acknowledged record that is missing: is there a later one of its key?
//! Of each reader that read from the start to the end: does every key end with what was known to be in the log when it
//! began, or with something later? A reader that reads slowly may see a value and find its tombstone gone (Kafka's
//! `delete.retention.ms`): it proves nothing of keys that were deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{RecordKey, Value};
use super::log::Partition;
use super::table::{Fate, Records};
use super::{Keys, Verdict, seconds};

/// A record's key, and whether it deletes the key.
struct Keyed {
    key: u32,
    is_tombstone: bool,
    sent_at: u64,
}

/// Where a record is that may supersede others.
struct Place {
    /// `None`: nobody knows, and it may be nowhere.
    at: Option<i64>,
    is_tombstone: bool,
    sent_at: u64,
}

/// What is known of one compacted log.
#[derive(Default)]
pub(crate) struct Compacted<'a> {
    names: Keys<'a>,
    records: BTreeMap<u64, Keyed>,
    /// The greatest offset at which a record of each key was known to be, as far as the history has come; -1: none.
    known: Vec<i64>,
    /// Keys of which something was given up, beyond the contract.
    given_up: BTreeSet<u32>,
    /// Microseconds between the moment at which a tombstone takes what is before it and its own removal, for who begins to
    /// read now.
    tombstones_stay: u64,
    readings: BTreeMap<Reader, Reading>,
    views: Vec<View>,
}

/// A client, and one of its sessions; `None`: its final read.
pub(crate) type Reader = (u32, Option<u64>);

/// A reading from the start that has not come to the end yet.
struct Reading {
    began_at: u64,
    tombstones_stay: u64,
    /// What was known when it began.
    known: Vec<i64>,
    /// Where it goes on; `None`: it has not begun at the start, or was somewhere else meanwhile.
    next: Option<i64>,
    has_heard: bool,
    last: BTreeMap<u32, Seen>,
}

/// The last record of a key in a reading: where it is, and when it was asked for.
#[derive(Clone, Copy)]
struct Seen {
    offset: i64,
    asked_at: u64,
}

/// What somebody read who read everything.
struct View {
    client: String,
    began_at: u64,
    ended_at: u64,
    tombstones_stay: u64,
    /// Up to here.
    end: i64,
    known: Vec<i64>,
    last: BTreeMap<u32, Seen>,
}

/// What a step of a reading brought.
pub(crate) struct Step<'a> {
    pub(crate) client: &'a str,
    pub(crate) asked_at: u64,
    pub(crate) at: u64,
    pub(crate) from: i64,
    pub(crate) log_start: i64,
    pub(crate) high_watermark: i64,
    pub(crate) records: &'a [(i64, Value)],
}

impl<'a> Compacted<'a> {
    /// From now on tombstones stay so long.
    pub(crate) fn keep_tombstones(&mut self, for_ms: u64) {
        self.tombstones_stay = for_ms.saturating_mul(1_000);
    }

    /// These records are sent, with these keys.
    pub(crate) fn send(&mut self, values: &[Value], keys: &'a [RecordKey], sent_at: u64) {
        for (value, record_key) in values.iter().zip(keys) {
            let key = self.names.index(&record_key.key);
            if self.known.len() <= key as usize {
                self.known.resize(key as usize + 1, -1);
            }
            let keyed = Keyed {
                key,
                is_tombstone: record_key.tombstone,
                sent_at,
            };
            self.records.insert(value.pack(), keyed);
        }
    }

    /// A record is in the log: its sender was told so, or somebody has read it.
    pub(crate) fn know(&mut self, offset: i64, value: Value) {
        if let Some(keyed) = self.records.get(&value.pack()) {
            let known = &mut self.known[keyed.key as usize];
            *known = offset.max(*known);
        }
    }

    /// Somebody asks for what is at `from`. A reading begins with its first question.
    pub(crate) fn ask(&mut self, reader: Reader, at: u64, from: i64) {
        let (known, tombstones_stay) = (&self.known, self.tombstones_stay);
        let begun = || Reading {
            began_at: at,
            tombstones_stay,
            known: known.clone(),
            next: Some(from),
            has_heard: false,
            last: BTreeMap::new(),
        };
        if reader.1.is_none() {
            self.readings.insert(reader, begun());
        } else {
            self.readings.entry(reader).or_insert_with(begun);
        }
    }

    /// And hears.
    pub(crate) fn hear(&mut self, reader: Reader, step: &Step<'_>) {
        let Some(reading) = self.readings.get_mut(&reader) else {
            return;
        };
        let begins_behind = !reading.has_heard && step.from > step.log_start;
        reading.has_heard = true;
        reading.next = reading.next.filter(|next| !begins_behind && step.from >= *next);
        if reading.next.is_none() {
            return;
        }
        for (offset, value) in step.records {
            if let Some(keyed) = self.records.get(&value.pack()) {
                let seen = Seen {
                    offset: *offset,
                    asked_at: step.asked_at,
                };
                reading.last.insert(keyed.key, seen);
            }
        }
        let last = step.records.last().map(|(offset, _)| offset + 1);
        let next = last.unwrap_or(step.from).max(step.from);
        reading.next = Some(next);
        let is_final = reader.1.is_none();
        let is_at_the_end = is_final || next >= step.high_watermark;
        if is_at_the_end && let Some(reading) = self.readings.remove(&reader) {
            self.views.push(View {
                client: step.client.to_owned(),
                began_at: reading.began_at,
                ended_at: step.at,
                tombstones_stay: reading.tombstones_stay,
                end: if is_final {
                    next.max(step.high_watermark)
                } else {
                    next
                },
                known: reading.known,
                last: reading.last,
            });
        }
    }

    /// Beyond the contract: what is at `from` and behind it is lost, and what it had superseded may be gone with it.
    pub(crate) fn lose(&mut self, from: i64, records: &Records) {
        for (packed, keyed) in &self.records {
            let position = records.get(Value::unpack(*packed)).and_then(|written| {
                let told = match written.fate {
                    Fate::Acknowledged(offset) => Some(offset),
                    Fate::Refused | Fate::Unknown => None,
                };
                told.max((written.last_at >= 0).then_some(written.last_at))
            });
            // One that nobody heard of may have been there.
            if position.is_none_or(|position| position >= from) {
                self.given_up.insert(keyed.key);
            }
        }
        for known in self.known.iter_mut().filter(|known| **known >= from) {
            *known = -1;
        }
        self.readings.clear();
        self.views.clear();
    }

    /// Where the records of each key are, now that all is known.
    pub(crate) fn places(&self, records: &Records) -> Places<'_> {
        let mut of_key: Vec<Vec<Place>> = Vec::new();
        of_key.resize_with(self.known.len(), Vec::new);
        for (packed, keyed) in &self.records {
            let Some(written) = records.get(Value::unpack(*packed)) else {
                continue;
            };
            if written.fate != Fate::Refused {
                of_key[keyed.key as usize].push(Place {
                    at: written.position(),
                    is_tombstone: keyed.is_tombstone,
                    sent_at: keyed.sent_at,
                });
            }
        }
        Places {
            compacted: self,
            of_key,
        }
    }
}

/// What may have taken the place of what.
pub(crate) struct Places<'a> {
    compacted: &'a Compacted<'a>,
    of_key: Vec<Vec<Place>>,
}

impl Places<'_> {
    /// A record that was at `offset` may be gone: a later one of its key is in the log, or its key is deleted. A tombstone
    /// goes by itself when its time has come.
    pub(crate) fn may_be_gone(&self, value: Value, offset: i64) -> bool {
        let Some(keyed) = self.compacted.records.get(&value.pack()) else {
            return false;
        };
        let supersedes = |place: &Place| match place.at {
            Some(at) => at > offset,
            // One that was deleted again before anybody saw it.
            None => place.is_tombstone,
        };
        keyed.is_tombstone
            || self.compacted.given_up.contains(&keyed.key)
            || self.of_key[keyed.key as usize].iter().any(supersedes)
    }

    /// Judges those who read everything.
    pub(crate) fn judge(&self, partition: &Partition, verdict: &mut Verdict) {
        let mut names: Vec<(u32, &str)> = self.compacted.names.by_number();
        names.sort_unstable();
        for view in &self.compacted.views {
            for (key, name) in &names {
                self.judge_key(view, (*key, name), partition, verdict);
            }
        }
    }

    fn judge_key(&self, view: &View, (key, name): (u32, &str), partition: &Partition, verdict: &mut Verdict) {
        let known = view.known.get(key as usize).copied().unwrap_or(-1);
        let seen = view.last.get(&key);
        let is_newest = seen.is_some_and(|seen| seen.offset >= known);
        if known < partition.log_start
            || known >= view.end
            || is_newest
            || self.compacted.given_up.contains(&key)
        {
            return;
        }
        let mut places = self.of_key[key as usize]
            .iter()
            .filter(|place| place.sent_at < view.ended_at);
        // What is behind the end of this reading has taken the place of what is before it.
        if places
            .clone()
            .any(|place| place.at.is_some_and(|at| at >= view.end))
        {
            return;
        }
        let deleted = places.any(|place| place.is_tombstone && place.at.is_none_or(|at| at >= known));
        let check = match seen {
            None if deleted => return,
            Some(seen) if deleted && view.ended_at - seen.asked_at > view.tombstones_stay => return,
            Some(_) if deleted => "deleted-key-came-back",
            _ => "last-value-lost",
        };
        verdict.add(check, || {
            format!(
                "{} read {} up to {} ({} to {}): key {name} ends with {}, and a record of it was known to be at {known}",
                view.client,
                partition.name,
                view.end,
                seconds(view.began_at),
                seconds(view.ended_at),
                seen.map_or("nothing".to_owned(), |seen| format!("the record at {}", seen.offset)),
            )
        });
    }
}
