//! Fetch sessions (KIP-227): a consumer names its partitions once, and an answer holds only those that have changed.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_env::Rng;
use skerry_types::{Instant, TopicId, buggify, reached};

/// A partition as a Fetch request names it: by its topic's id from v13 on, by its name before.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FetchTopic {
    /// v13 and later.
    Id(TopicId),
    /// Before.
    Name(String),
}

/// Key of a partition in a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FetchKey {
    /// Its topic.
    pub topic: FetchTopic,
    /// Its number.
    pub partition: i32,
}

/// What a consumer wants of one partition, and what it was last told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// From where.
    pub fetch_offset: i64,
    /// How much.
    pub max_bytes: i32,
    /// The leader epoch that the consumer knows; -1: not checked.
    pub current_leader_epoch: i32,
    /// The epoch of the consumer's last record; -1: not checked.
    pub last_fetched_epoch: i32,
    /// What the last answer said.
    pub told: Told,
}

/// The numbers of the last answer. A partition is left out of the next one if it has no records and the same numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// High watermark.
    pub high_watermark: i64,
    /// First offset.
    pub log_start: i64,
    /// The last answer was an error: it is repeated until it is gone.
    pub error: bool,
}

impl Told {
    /// Nothing was told yet.
    pub const NOTHING: Self = Self {
        high_watermark: -1,
        log_start: -1,
        error: false,
    };
}

/// Partitions in the order in which they are served: those that had records go to the end, so that no partition
/// starves behind a busy one.
#[derive(Clone, Debug, Default)]
pub struct FetchSet {
    wanted: BTreeMap<FetchKey, (u64, Wanted)>,
    order: BTreeMap<u64, FetchKey>,
    next: u64,
}

impl FetchSet {
    /// Adds a partition at the end, or changes what is wanted of it in its place.
    pub fn want(&mut self, key: FetchKey, mut wanted: Wanted) {
        if let Some((_, known)) = self.wanted.get_mut(&key) {
            wanted.told = known.told;
            *known = wanted;
            return;
        }
        self.order.insert(self.next, key.clone());
        self.wanted.insert(key, (self.next, wanted));
        self.next += 1;
    }

    /// Drops a partition.
    pub fn forget(&mut self, key: &FetchKey) {
        if let Some((place, _)) = self.wanted.remove(key) {
            self.order.remove(&place);
        }
    }

    /// Moves a partition to the end.
    pub fn rotate(&mut self, key: &FetchKey) {
        if let Some((place, _)) = self.wanted.get_mut(key) {
            self.order.remove(place);
            *place = self.next;
            self.order.insert(self.next, key.clone());
            self.next += 1;
        }
    }

    /// Remembers what a partition's reader was told.
    pub fn tell(&mut self, key: &FetchKey, told: Told) {
        if let Some((_, wanted)) = self.wanted.get_mut(key) {
            wanted.told = told;
        }
    }

    /// What a partition's reader was last told.
    #[must_use]
    pub fn told(&self, key: &FetchKey) -> Option<Told> {
        self.wanted.get(key).map(|(_, wanted)| wanted.told)
    }

    /// The partitions in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&FetchKey, &Wanted)> {
        self.order
            .values()
            .filter_map(|key| self.wanted.get(key).map(|(_, wanted)| (key, wanted)))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.wanted.len()
    }

    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }
}

/// Why a session cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// FETCH_SESSION_ID_NOT_FOUND.
    NotFound,
    /// INVALID_FETCH_SESSION_EPOCH.
    InvalidEpoch,
    /// FETCH_SESSION_TOPIC_ID_ERROR: a session speaks of names or of ids, not of both.
    TopicIds,
}

/// What one Fetch request reads.
pub struct Fetching {
    /// The session to answer with; 0: none.
    pub session_id: i32,
    /// Unchanged partitions are left out of the answer.
    pub incremental: bool,
    /// What to read.
    pub set: FetchSet,
}

/// A session that has not been used for so long gives way to a new one.
const EVICTABLE_AFTER: Duration = Duration::from_secs(120);

/// The broker's sessions.
pub struct FetchSessions {
    slots: usize,
    sessions: Mutex<BTreeMap<i32, Session>>,
}

struct Session {
    epoch: i32,
    used: Instant,
    by_id: bool,
    /// Absent while a request of the session is being answered.
    set: Option<FetchSet>,
}

impl FetchSessions {
    /// At most `slots` sessions (`max.incremental.fetch.session.cache.slots`).
    #[must_use]
    pub fn new(slots: usize) -> Self {
        Self {
            slots,
            sessions: Mutex::default(),
        }
    }

    /// Finds or makes the session of a request and merges into it what the request wants and forgets.
    ///
    /// # Errors
    /// [`SessionError`], the answer's top-level error.
    pub fn begin(
        &self,
        (session_id, epoch): (i32, i32),
        by_id: bool,
        wanted: Vec<(FetchKey, Wanted)>,
        forgotten: &[FetchKey],
        now: Instant,
        rng: &Rng,
    ) -> Result<Fetching, SessionError> {
        let mut sessions = self.sessions.lock();
        // Epoch 0 asks for a new session and -1 for none: either ends the one that was named. One that does not exist
        // is no error then.
        if epoch == 0 || epoch == -1 {
            sessions.remove(&session_id);
            let mut set = FetchSet::default();
            for (key, wanted) in wanted {
                set.want(key, wanted);
            }
            let session_id = if epoch == 0 && !set.is_empty() {
                self.make(&mut sessions, by_id, now, rng)
            } else {
                0
            };
            return Ok(Fetching {
                session_id,
                incremental: false,
                set,
            });
        }
        let session = sessions.get_mut(&session_id).ok_or(SessionError::NotFound)?;
        if buggify("fetch-session-forgotten", 20) {
            sessions.remove(&session_id);
            return Err(SessionError::NotFound);
        }
        if session.epoch != epoch {
            reached("fetch-session-out-of-step");
            return Err(SessionError::InvalidEpoch);
        }
        if session.by_id != by_id {
            return Err(SessionError::TopicIds);
        }
        // Another connection is in the middle of this session: whoever it is, the epoch cannot be right for both.
        let mut set = session.set.take().ok_or(SessionError::InvalidEpoch)?;
        for (key, wanted) in wanted {
            set.want(key, wanted);
        }
        for key in forgotten {
            set.forget(key);
        }
        if set.is_empty() {
            sessions.remove(&session_id);
            return Ok(Fetching {
                session_id: 0,
                incremental: true,
                set,
            });
        }
        reached("incremental-fetch");
        session.epoch = next_epoch(epoch);
        session.used = now;
        Ok(Fetching {
            session_id,
            incremental: true,
            set,
        })
    }

    /// Gives the session back what it reads, after an answer.
    pub fn end(&self, session_id: i32, set: FetchSet) {
        if let Some(session) = self.sessions.lock().get_mut(&session_id) {
            session.set = Some(set);
        }
    }

    /// A new session's id, or 0 where all slots are taken by sessions in use.
    fn make(&self, sessions: &mut BTreeMap<i32, Session>, by_id: bool, now: Instant, rng: &Rng) -> i32 {
        if sessions.len() >= self.slots {
            let oldest = sessions
                .iter()
                .min_by_key(|(_, session)| session.used)
                .map(|(id, session)| (*id, session.used));
            match oldest {
                Some((id, used)) if now.since(used) >= EVICTABLE_AFTER => {
                    sessions.remove(&id);
                }
                _ => return 0,
            }
        }
        loop {
            let id = i32::try_from(rng.below(i32::MAX as u64)).unwrap_or(0) + 1;
            if id > 0 && !sessions.contains_key(&id) {
                sessions.insert(
                    id,
                    Session {
                        epoch: 1,
                        used: now,
                        by_id,
                        set: None,
                    },
                );
                return id;
            }
        }
    }
}

const fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str, partition: i32) -> FetchKey {
        FetchKey {
            topic: FetchTopic::Name(name.to_owned()),
            partition,
        }
    }

    fn wanted(offset: i64) -> Wanted {
        Wanted {
            fetch_offset: offset,
            max_bytes: 1,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            told: Told::NOTHING,
        }
    }

    fn names(set: &FetchSet) -> String {
        set.iter()
            .map(|(key, wanted)| format!("{}@{}", key.partition, wanted.fetch_offset))
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn a_session_remembers_what_is_wanted() {
        let (sessions, rng) = (FetchSessions::new(10), Rng::seeded(1));
        let now = Instant::ZERO;
        let all = vec![(key("t", 0), wanted(5)), (key("t", 1), wanted(6))];
        let first = sessions.begin((0, 0), false, all, &[], now, &rng).ok().unwrap();
        assert!(first.session_id > 0 && !first.incremental);
        let id = first.session_id;
        sessions.end(id, first.set);
        let change = vec![(key("t", 1), wanted(9)), (key("t", 2), wanted(0))];
        let second = sessions
            .begin((id, 1), false, change, &[key("t", 0)], now, &rng)
            .ok()
            .unwrap();
        assert!(second.incremental);
        assert_eq!(names(&second.set), "1@9 2@0");
        let mut set = second.set;
        set.rotate(&key("t", 1));
        assert_eq!(names(&set), "2@0 1@9");
        sessions.end(id, set);
        assert_eq!(
            sessions.begin((id, 1), false, vec![], &[], now, &rng).err(),
            Some(SessionError::InvalidEpoch)
        );
        assert_eq!(
            sessions.begin((id, 2), true, vec![], &[], now, &rng).err(),
            Some(SessionError::TopicIds)
        );
        assert_eq!(
            sessions.begin((id + 1, 2), false, vec![], &[], now, &rng).err(),
            Some(SessionError::NotFound)
        );
        let gone = [key("t", 1), key("t", 2)];
        let last = sessions
            .begin((id, 2), false, vec![], &gone, now, &rng)
            .ok()
            .unwrap();
        assert_eq!((last.session_id, last.set.len()), (0, 0));
        assert_eq!(
            sessions.begin((id, 3), false, vec![], &[], now, &rng).err(),
            Some(SessionError::NotFound)
        );
    }

    #[test]
    fn slots_are_bounded_and_the_oldest_idle_session_gives_way() {
        let (sessions, rng) = (FetchSessions::new(1), Rng::seeded(1));
        let begin = |now| {
            sessions
                .begin(
                    (0, 0),
                    false,
                    vec![(key("t", 0), wanted(0))],
                    &[],
                    Instant::from_millis(now),
                    &rng,
                )
                .ok()
                .unwrap()
                .session_id
        };
        assert!(begin(0) > 0);
        assert_eq!(begin(1_000), 0);
        assert!(begin(120_000) > 0);
    }
}
