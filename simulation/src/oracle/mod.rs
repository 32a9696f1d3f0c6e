//! Reads the broker's own sockets: at the moment in which an answer is handed to the network, what it promises must
//! be durable on the simulated disk.
//!
//! So a promise made too early is seen at once, on every seed, whether or not a crash follows. The oracle has its
//! own reading of frames, batches and commits; of the broker it takes only which fields a version of a request has.
//!
//! What a node had on a disk that is lost, or in a copy that it has given up since, counts: it may have confirmed a record,
//! and the leader answers later, because it stood still or the message was late.

mod durable;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use parking_lot::Mutex;

use self::durable::DurableLogs;
pub(crate) use self::durable::SHORT_LIVED;
use self::wire::{Asked, PartitionName, Question};
use crate::checks;
use crate::disk::SimDisk;
use crate::env::Tap;
use crate::trace::Trace;
use skerry_checker::Violation;

/// A frame longer than this is none: the connection is not looked at any further.
const FRAME_BYTES_MAX: usize = 64 << 20;
/// So many times one check says what it sees.
const VIOLATIONS_OF_A_CHECK_MAX: usize = 20;

/// Broken promises, in the order in which they were seen. Cheap to clone.
#[derive(Clone, Default)]
pub struct Violations(Arc<Mutex<Vec<(u64, Violation)>>>);

impl Violations {
    /// Adds one, and writes it into the trace.
    pub fn add(&self, trace: &Trace, check: &'static str, message: String) {
        debug_assert!(checks::is_one(check), "{check} has no row in `checks.rs`");
        let mut all = self.0.lock();
        // Where a run goes on behind it, it may be seen at every step.
        let seen = all.iter().filter(|(_, before)| before.check == check).count();
        if seen < VIOLATIONS_OF_A_CHECK_MAX {
            trace.event("VIOLATION", format_args!("{check}: {message}"));
            all.push((trace.time().micros(), Violation { check, message }));
        }
    }

    /// All of them, with their times in microseconds.
    #[must_use]
    pub fn all(&self) -> Vec<(u64, Violation)> {
        self.0.lock().clone()
    }

    /// True when there is one that ends a run: of the checks in `until`, or any where these are none.
    #[must_use]
    pub fn end(&self, until: &[String]) -> bool {
        let all = self.0.lock();
        match until {
            [] => !all.is_empty(),
            until => all
                .iter()
                .any(|(_, violation)| until.iter().any(|check| check == violation.check)),
        }
    }
}

/// Where a disk has gone bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RottenPlace {
    /// The node.
    pub node: String,
    /// Its partition.
    pub partition: String,
    /// The node runs and does not know: it may send what has rotted, and clients compare the sums.
    pub is_quiet: bool,
    /// No copy is whole: nobody can serve what was there.
    pub is_lost: bool,
}

#[derive(Default)]
struct Rotting {
    places: Vec<RottenPlace>,
    /// A disk returns wrong bits now and then.
    misreads: bool,
}

/// The partitions of nodes that have gone bad. Cheap to clone.
#[derive(Clone, Default)]
pub struct Rotten(Arc<Mutex<Rotting>>);

impl Rotten {
    /// One more.
    pub fn add(&self, place: RottenPlace) {
        self.0.lock().places.push(place);
    }

    /// Forgets those that are not wanted.
    pub fn keep(&self, wanted: impl FnMut(&RottenPlace) -> bool) {
        self.0.lock().places.retain(wanted);
    }

    /// Some disk reads wrong bits now and then, or none does.
    pub fn set_misreads(&self, misreads: bool) {
        self.0.lock().misreads = misreads;
    }

    /// True for that partition of that node.
    #[must_use]
    pub fn is(&self, node: &str, partition: &str) -> bool {
        let rotting = self.0.lock();
        let mut places = rotting.places.iter();
        places.any(|place| place.node == node && place.partition == partition)
    }

    /// The nodes that may send records of that partition that have rotted.
    #[must_use]
    pub fn senders(&self, partition: &str) -> Vec<String> {
        let rotting = self.0.lock();
        let places = rotting.places.iter();
        let quiet = places.filter(|place| place.is_quiet && place.partition == partition);
        quiet.map(|place| place.node.clone()).collect()
    }

    /// True for a partition with a record of which no copy is whole.
    #[must_use]
    pub fn is_lost(&self, partition: &str) -> bool {
        let rotting = self.0.lock();
        let mut places = rotting.places.iter();
        places.any(|place| place.is_lost && place.partition == partition)
    }

    /// Clients may be sent records of that partition that fail their sums.
    #[must_use]
    pub fn may_be_sent(&self, partition: &str) -> bool {
        self.0.lock().misreads || !self.senders(partition).is_empty()
    }
}

#[derive(Default)]
struct Conn {
    inbound: BytesMut,
    outbound: BytesMut,
    asked: std::collections::VecDeque<Asked>,
    /// What was sent is no Kafka: a malformed client. Nothing more is read.
    lost: bool,
}

/// What a reader was told of a partition.
#[derive(Clone, Debug)]
pub struct Served {
    /// Of which.
    pub partition: String,
    /// The offset behind the last record that it got, or the high watermark, if that is greater.
    pub end: i64,
}

struct Inner {
    conns: BTreeMap<u64, Conn>,
    names: BTreeMap<[u8; 16], String>,
    own: Copies,
    /// Those of the other nodes.
    others: Vec<Copies>,
    answers_checked: u64,
    /// What acks=all was answered for since somebody asked: partitions, and the offsets behind the last records.
    acknowledged: Vec<(String, i64)>,
    /// What readers were told since somebody asked.
    served: Vec<Served>,
    /// `min.insync.replicas` of the groups' topic, as the node knows it, and as it did when it was asked before.
    commit_copies: (usize, usize),
}

/// What one node has on its disk.
struct Copies {
    now: DurableLogs,
    /// What it had on disks that it has lost, and on its own before a power cut, where what is written counts: what was
    /// promised upon these was promised rightly.
    lost: Vec<DurableLogs>,
}

impl Copies {
    fn of(disk: &SimDisk, written_counts: bool) -> Self {
        Self {
            now: DurableLogs::new(disk.clone(), written_counts),
            lost: Vec::new(),
        }
    }

    fn look<E>(&mut self, look: &mut impl FnMut(&mut DurableLogs) -> Result<(), E>) -> Result<(), E> {
        let looked = look(&mut self.now);
        if looked.is_err() && self.lost.iter_mut().any(|lost| look(lost).is_ok()) {
            return Ok(());
        }
        looked
    }
}

/// The tap on the broker's Kafka listener.
pub struct WireOracle {
    port: u16,
    node: String,
    disks: Disks,
    trace: Trace,
    violations: Violations,
    rotten: Rotten,
    inner: Mutex<Inner>,
}

/// The disks that an answer is compared with.
#[derive(Clone)]
pub struct Disks {
    /// The node's own.
    pub own: SimDisk,
    /// Those of the other nodes.
    pub others: Vec<SimDisk>,
    /// On so many of them must be what was acknowledged.
    pub copies: usize,
    /// What is written counts, though no sync has covered it: the topics asked for Kafka's rule.
    pub written_counts: bool,
}

impl WireOracle {
    /// An oracle for the listener on `port` of the host `node`.
    #[must_use]
    pub fn new(
        node: &str,
        port: u16,
        disks: Disks,
        violations: Violations,
        rotten: Rotten,
        trace: Trace,
    ) -> Self {
        let inner = Inner {
            conns: BTreeMap::new(),
            names: BTreeMap::new(),
            own: Copies::of(&disks.own, disks.written_counts),
            others: disks
                .others
                .iter()
                .map(|disk| Copies::of(disk, disks.written_counts))
                .collect(),
            answers_checked: 0,
            acknowledged: Vec::new(),
            served: Vec::new(),
            commit_copies: (1, 1),
        };
        Self {
            node: node.to_owned(),
            port,
            disks,
            trace,
            violations,
            rotten,
            inner: Mutex::new(inner),
        }
    }

    /// How many answers were compared with the disk.
    #[must_use]
    pub fn answers_checked(&self) -> u64 {
        self.inner.lock().answers_checked
    }

    /// What acks=all was answered for since the last question: partitions, and the offsets behind the last records.
    pub fn take_acknowledged(&self) -> Vec<(String, i64)> {
        std::mem::take(&mut self.inner.lock().acknowledged)
    }

    /// What readers were told since the last question.
    pub fn take_served(&self) -> Vec<Served> {
        std::mem::take(&mut self.inner.lock().served)
    }

    /// One of the disks was lost, or what no sync had covered, and this was on it.
    pub fn on_lost(&self, disk: &SimDisk, lost: &SimDisk) {
        let mut inner = self.inner.lock();
        let copies = if disk.is(&self.disks.own) {
            Some(&mut inner.own)
        } else {
            let place = self.disks.others.iter().position(|other| other.is(disk));
            place.and_then(|place| inner.others.get_mut(place))
        };
        if let Some(copies) = copies {
            *copies = Copies {
                now: DurableLogs::new(disk.clone(), self.disks.written_counts),
                lost: std::mem::take(&mut copies.lost),
            };
            copies
                .lost
                .push(DurableLogs::new(lost.clone(), self.disks.written_counts));
        }
    }

    /// The process died: nobody waits for an answer any more.
    pub fn forget_connections(&self) {
        let mut inner = self.inner.lock();
        inner.conns.clear();
        inner.acknowledged.clear();
        inner.served.clear();
        inner.commit_copies = (1, 1);
    }

    /// The node's metadata have this `min.insync.replicas` for the groups' topic. Counts when it is heard twice: a commit
    /// that was durable on fewer disks when the setting changed may be answered a moment later.
    pub fn knows_commit_copies(&self, copies: usize) {
        let known = &mut self.inner.lock().commit_copies;
        *known = (copies, known.0);
    }
}

impl Tap for WireOracle {
    fn opened(&self, conn: u64, port: u16) {
        if port == self.port {
            self.inner.lock().conns.insert(conn, Conn::default());
        }
    }

    fn received(&self, conn: u64, bytes: &[u8]) {
        let mut inner = self.inner.lock();
        let Some(conn) = inner.conns.get_mut(&conn).filter(|conn| !conn.lost) else {
            return;
        };
        conn.inbound.extend_from_slice(bytes);
        loop {
            match next_frame(&mut conn.inbound) {
                Ok(Some(frame)) => match wire::question(frame) {
                    Ok(asked) => conn.asked.extend(asked),
                    Err(()) => {
                        conn.lost = true;
                        return;
                    }
                },
                Ok(None) => return,
                Err(()) => {
                    conn.lost = true;
                    return;
                }
            }
        }
    }

    fn sent(&self, conn: u64, bytes: &[u8]) {
        if self.disks.own.has_died() {
            return;
        }
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let Some(conn) = inner.conns.get_mut(&conn).filter(|conn| !conn.lost) else {
            return;
        };
        conn.outbound.extend_from_slice(bytes);
        let mut answers = Vec::new();
        while let Ok(Some(frame)) = next_frame(&mut conn.outbound) {
            let Some(correlation) = frame
                .get(..4)
                .and_then(|head| head.try_into().ok())
                .map(i32::from_be_bytes)
            else {
                continue;
            };
            while let Some(asked) = conn.asked.pop_front() {
                if asked.correlation == correlation {
                    answers.push((asked, frame));
                    break;
                }
            }
        }
        for (asked, frame) in answers {
            self.judge(inner, &asked, frame);
        }
    }

    fn closed(&self, conn: u64) {
        self.inner.lock().conns.remove(&conn);
    }
}

impl Inner {
    /// Asks whether something is on so many disks; tells why not.
    fn copies(
        &mut self,
        wanted: usize,
        mut look: impl FnMut(&mut DurableLogs) -> Result<(), String>,
    ) -> Result<(), String> {
        let mut found = 0;
        let mut reasons = Vec::new();
        for copies in std::iter::once(&mut self.own).chain(&mut self.others) {
            match copies.look(&mut look) {
                Ok(()) => found += 1,
                Err(why) => reasons.push(why),
            }
            if found >= wanted {
                return Ok(());
            }
        }
        if self.others.is_empty() {
            return Err(reasons.join("; "));
        }
        Err(format!(
            "it is durable on {found} disks, not on {wanted} ({})",
            reasons.join("; ")
        ))
    }
}

impl WireOracle {
    /// Clients compare the sums of what no node has whole any more.
    fn is_lost(&self, partition: &PartitionName) -> bool {
        self.rotten.is_lost(&partition.to_string())
    }

    /// Alone, a node cannot help that a bit of its only copy has rotted.
    fn is_excused(&self, partition: &PartitionName) -> bool {
        self.disks.others.is_empty() && self.rotten.is(&self.node, &partition.to_string())
    }

    /// On so many disks is a commit that is answered.
    fn copies_of_new_commits(inner: &Inner) -> usize {
        let (now, before) = inner.commit_copies;
        now.min(before).max(1)
    }

    fn judge(&self, inner: &mut Inner, asked: &Asked, frame: Bytes) {
        let key = asked.api;
        let add = |check, message| self.violations.add(&self.trace, check, message);
        match &asked.question {
            Question::Produce { acks_all, sent } => {
                for answer in wire::produce_answers(frame, asked.version, &inner.names) {
                    if self.is_excused(&answer.partition) {
                        continue;
                    }
                    let Some(batch) = sent.iter().find(|batch| batch.is_for(&answer, &inner.names)) else {
                        continue;
                    };
                    inner.answers_checked += 1;
                    if !batch.whole {
                        add(
                            "damaged-batch-taken",
                            format!(
                                "{} took a batch for {} at {} whose sum does not fit its bytes",
                                self.node, answer.partition, answer.base
                            ),
                        );
                    }
                    if !acks_all {
                        continue;
                    }
                    let end = answer.base + batch.count;
                    inner.acknowledged.push((answer.partition.to_string(), end));
                    let looked =
                        |logs: &mut DurableLogs| logs.has_batch(&answer.partition, answer.base, batch.crc);
                    if let Err(why) = inner.copies(self.disks.copies, looked) {
                        add(
                            "acknowledged-before-durable",
                            format!(
                                "{} answered acks=all for {} at {} ({} records): {why}",
                                self.node, answer.partition, answer.base, batch.count
                            ),
                        );
                    }
                }
            }
            Question::Fetch => {
                // Of what no sync has covered one copy may have gone with its node's power since.
                let lost = usize::from(self.disks.written_counts);
                let copies = self.disks.copies.saturating_sub(lost).max(1);
                for answer in wire::fetch_answers(frame, asked.version, &inner.names) {
                    if self.is_excused(&answer.partition) || self.is_lost(&answer.partition) {
                        continue;
                    }
                    inner.answers_checked += 1;
                    let last = answer.last_batch();
                    if let Some(batch) = &last
                        && let Err(why) = inner.copies(copies, |logs| {
                            logs.has_batch(&answer.partition, batch.base, batch.crc)
                        })
                    {
                        add(
                            "served-before-durable",
                            format!(
                                "a consumer was served {} at {} by {}: {why}",
                                answer.partition, batch.base, self.node
                            ),
                        );
                    }
                    let high = answer.high_watermark;
                    inner.served.push(Served {
                        partition: answer.partition.to_string(),
                        end: last.map_or(high, |batch| batch.end()).max(high),
                    });
                    let reaches = |logs: &mut DurableLogs| {
                        logs.reaches(&answer.partition, high)
                            .map_err(|end| format!("it is durable up to {end}"))
                    };
                    if let Err(why) = inner.copies(copies, reaches) {
                        add(
                            "watermark-beyond-durable",
                            format!(
                                "a consumer was told the high watermark {high} of {} by {}: {why}",
                                answer.partition, self.node
                            ),
                        );
                    }
                }
            }
            Question::Commit(commits) => {
                for (topic, partition) in wire::commit_answers(frame, asked.version) {
                    let asked = commits
                        .iter()
                        .find(|commit| commit.topic == topic && commit.partition == partition);
                    let Some(commit) = asked else { continue };
                    inner.answers_checked += 1;
                    let copies = Self::copies_of_new_commits(inner);
                    let looked = |logs: &mut DurableLogs| logs.has_commit(commit);
                    // The coordinator leads the partition: its own disk is one of them, and nearly always enough.
                    let own = inner.own.now.has_commit(commit);
                    let durable = own.and_then(|()| {
                        if copies > 1 {
                            inner.copies(copies, looked)
                        } else {
                            Ok(())
                        }
                    });
                    if let Err(why) = durable {
                        add(
                            "commit-before-durable",
                            format!(
                                "{} answered the commit of {topic}-{partition} at {} by {}: {why}",
                                self.node, commit.offset, commit.group
                            ),
                        );
                    }
                }
            }
            Question::Names if key == ApiKey::Metadata => {
                self.judge_metadata(inner, asked.version, frame);
            }
            Question::Names => inner.names.extend(wire::created_names(frame, asked.version)),
            Question::Other => {}
        }
    }

    /// A client that believes an answer without brokers has nobody left to ask: librdkafka gives up all its connections
    /// and never makes another one (librdkafka issue 5301).
    fn judge_metadata(&self, inner: &mut Inner, version: i16, frame: Bytes) {
        let Some(answer) = wire::metadata_answer(frame, version) else {
            return;
        };
        inner.names.extend(answer.names);
        if answer.leads_nowhere {
            let told = format!("{} answered Metadata v{version} without a broker", self.node);
            self.violations.add(&self.trace, "metadata-without-brokers", told);
        }
    }
}

/// A whole frame without its length. `Err`: this is no frame.
fn next_frame(buffer: &mut BytesMut) -> Result<Option<Bytes>, ()> {
    let Some(head) = buffer.get(..4) else {
        return Ok(None);
    };
    let length = i32::from_be_bytes(head.try_into().map_err(|_| ())?);
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= FRAME_BYTES_MAX)
        .ok_or(())?;
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let mut frame = buffer.split_to(4 + length).freeze();
    Ok(Some(frame.split_off(4)))
}
