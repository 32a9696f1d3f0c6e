//! Copies that are damaged or gone are made again from their peers.
//!
//! Whoever reads and meets damage tells (consumers' and followers' reads, a follower that could not take what it was
//! sent, the scrub): here it is looked at again, so that nobody's mistake costs a copy. Then the metadata must know that
//! this copy does not count any more (`ReplicaLost`): only then is what is left of it set aside, and an empty log
//! follows the leader. Where no other copy may lead, nothing is touched: this one is all there is, and what can be read
//! of it is served. If it cannot even be opened, the metadata is told (`ReplicaOffline`), so that nobody waits for a
//! leader that cannot lead, and a person can choose another copy (`skerry cluster elect --unclean`): then this one is
//! made again from that. Where no copy can be opened, the person's choice is to go on from what can be read of one. What was set aside is removed when the new copy is in sync.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_log::ReadError;
use skerry_log::batch::Batches;
use skerry_metadata_state::{
    self as metadata, BrokerGuard, Command, Image, Outcome, REPLICAS_OFFLINE_LEVEL, ReplicaLost,
    ReplicaOffline,
};
use skerry_types::{BrokerId, Instant, Offset, is_planted, reached};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Replication;
use super::fetcher::Key;
use crate::broker::Broker;
use crate::partition::{Partition, Suspicion};

/// Between two repairs of one partition, longer each time: a disk that damages what it is given shall not be fed for ever.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// What the second look reads at once, at first: what a log begins with that was compacted is odd, or not, by what follows on
/// it, and a batch alone says nothing. More than the scrub reads at once, and than most readers.
const LOOK_BYTES: u32 = 1 << 20;
/// How often to look whether another copy can take over.
const LOOK: Duration = Duration::from_secs(2);

/// Partitions that cannot be served here, or may be damaged.
#[derive(Default)]
pub(super) struct RepairQueue {
    waiting: Mutex<BTreeMap<Key, Arc<Partition>>>,
    more: Notify,
}

impl RepairQueue {
    pub(super) fn push(&self, partition: &Arc<Partition>) {
        let before = self
            .waiting
            .lock()
            .insert(super::key_of(partition), partition.clone());
        if before.is_none() {
            self.more.notify_one();
        }
    }

    fn take(&self) -> Vec<(Key, Arc<Partition>)> {
        std::mem::take(&mut *self.waiting.lock()).into_iter().collect()
    }
}

/// When a partition may be tried again.
#[derive(Clone, Copy)]
struct Tried {
    again_at: Instant,
    pause: Duration,
    /// It could not be repaired, which has been said.
    is_refused: bool,
}

impl Tried {
    fn after(done: &Done, before: Option<Self>, now: Instant) -> Option<Self> {
        let pause = before.map_or(Duration::ZERO, |before| before.pause);
        match done {
            Done::Nothing => None,
            Done::Refused(_) => Some(Self {
                again_at: now + LOOK,
                pause,
                is_refused: true,
            }),
            Done::Repaired | Done::Failed => {
                let pause = (pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
                Some(Self {
                    again_at: now + pause,
                    pause,
                    is_refused: false,
                })
            }
        }
    }
}

/// Repairs until `stop`.
pub(super) async fn run(replication: Arc<Replication>, broker: Arc<Broker>, stop: CancellationToken) {
    let mut tried: BTreeMap<Key, Tried> = BTreeMap::new();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            () = replication.repairs.more.notified() => {}
        }
        for (key, partition) in replication.repairs.take() {
            let now = broker.env().clock.now();
            let before = tried.get(&key).copied();
            let waits_for = |other: &Tried| now < other.again_at + PAUSE_MAX;
            if is_planted("repairs-wait-for-each-other") && tried.values().any(waits_for) {
                continue;
            }
            // Whoever looks at all partitions puts it into the queue again.
            if before.is_some_and(|before| now < before.again_at) {
                continue;
            }
            let repair = look_and_repair(&broker, &partition);
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                done = repair => done,
            };
            if let Done::Refused(why) = &done
                && !before.is_some_and(|before| before.is_refused)
            {
                tracing::warn!(partition = %partition.name(), why, "a damaged copy is left as it is");
            }
            if let Some(after) = Tried::after(&done, before, now) {
                tried.insert(key, after);
            }
        }
    }
    drop(replication.repairs.take());
}

enum Done {
    /// There is nothing to do, or nothing can be done yet.
    Nothing,
    /// Nobody else has the records, or can take over now, or the metadata does not answer.
    Refused(String),
    /// An empty log follows the leader.
    Repaired,
    /// The disk failed.
    Failed,
}

async fn look_and_repair(broker: &Arc<Broker>, partition: &Arc<Partition>) -> Done {
    if let Some(why) = partition.offline() {
        // A log that takes no more can still be read: others may catch up from here.
        let is_open = partition.is_open() || broker.image().feature_level() < REPLICAS_OFFLINE_LEVEL;
        if !is_open && !partition.is_called_offline() {
            if broker.partitions().registration(&broker.image()).is_none() {
                return Done::Nothing;
            }
            tell_offline(broker, partition, true).await;
            // Others may be about to tell the same of theirs: nothing is thrown away before they had the time.
            return Done::Refused(format!("it cannot be opened: {why}"));
        }
        if !is_open && leads_offline(&broker.image(), partition, broker.id()) {
            return open_what_is_left(broker, partition, &why).await;
        }
        let others = if is_open { Others::Known } else { Others::Alive };
        return repair(broker, partition, &why, others).await;
    }
    // An earlier start could not open it.
    if partition.is_called_offline() {
        tell_offline(broker, partition, false).await;
    }
    match look(broker, partition).await {
        // Served until another one can take over: most of it can be read.
        Some(why) => repair(broker, partition, &why, Others::Alive).await,
        None => Done::Nothing,
    }
}

/// Reads where there may be damage, and compares with the sums. `None`: nothing is wrong there.
async fn look(broker: &Broker, partition: &Arc<Partition>) -> Option<String> {
    let suspicion = partition.take_suspicion()?;
    let (offset, found) = read_stretch(broker, partition, suspicion).await?;
    if is_planted("damage-not-told") && found.is_err() {
        return None;
    }
    let news = partition.on_looked_at(offset, found.as_ref().copied());
    let name = partition.name();
    match found {
        Ok(_) => {
            tracing::info!(partition = %name, %offset, "somebody could not read this copy, and nothing is wrong with it");
            None
        }
        Err(error) if error.is_damage() => {
            if news {
                broker.metrics().damage_found.inc();
                tracing::error!(partition = %name, %error, "this copy is damaged");
            }
            Some(error.to_string())
        }
        Err(error) => {
            tracing::warn!(partition = %name, %offset, %error, "cannot look whether this copy is damaged");
            None
        }
    }
}

/// Reads on from where somebody has met damage, up to what cannot be read. `None`: nothing is there.
async fn read_stretch(
    broker: &Broker,
    partition: &Arc<Partition>,
    suspicion: Suspicion,
) -> Option<(Offset, Result<(), ReadError>)> {
    let (mut offset, mut read_bytes) = (suspicion.offset, 0);
    loop {
        let is_first = read_bytes == 0;
        let most = if is_first && !is_planted("second-look-reads-one-batch") {
            LOOK_BYTES
        } else {
            1
        };
        let found = match partition.plan_check(offset, true, most) {
            Some(Ok(plan)) => {
                // The way that whoever met the damage may have come; what follows on it was found there.
                let plan = if is_first { plan.without_index() } else { plan };
                broker.env().tasks.run_blocking(move || plan.run_checked()).await
            }
            Some(Err(error)) => Err(error),
            None if read_bytes == 0 => return None,
            None => return Some((suspicion.offset, Ok(()))),
        };
        let bytes = match found {
            Ok(bytes) => bytes,
            Err(error) => return Some((error.offset().unwrap_or(offset), Err(error))),
        };
        read_bytes += bytes.len() as u64;
        match Batches::new(bytes).last() {
            Some(last) if read_bytes < suspicion.stretch_bytes => offset = last.header.next_offset(),
            _ => return Some((suspicion.offset, Ok(()))),
        }
    }
}

/// Whom a copy may be left to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    /// To any that may be elected, were it only after its broker has come back.
    Known,
    /// To one whose broker takes part now.
    Alive,
}

/// Why nobody but `me` could lead.
fn refusal(image: &Image, metadata: &metadata::Partition, me: BrokerId, others: Others) -> Option<String> {
    let others_may = metadata.isr.iter().chain(&metadata.elr);
    let mut eligible = others_may.filter(|id| **id != me && !metadata.offline.contains(id));
    if metadata.replicas.len() < 2 {
        Some("it is the only one".to_owned())
    } else if !metadata.isr.contains(&me) && !metadata.elr.contains(&me) {
        // It does not count anyway.
        None
    } else if eligible.clone().next().is_none() {
        Some("no other one is in sync".to_owned())
    } else if others == Others::Alive && !eligible.any(|id| image.is_unfenced(*id)) {
        Some("no other one can take over now".to_owned())
    } else {
        None
    }
}

/// A person has chosen this copy, though it cannot be opened: there is no other.
fn leads_offline(image: &Image, partition: &Partition, me: BrokerId) -> bool {
    let topic = image.topic_by_id(partition.topic_id());
    let metadata = topic.and_then(|topic| topic.partition(partition.name().partition));
    metadata.is_some_and(|metadata| metadata.leader == Some(me) && metadata.offline.contains(&me))
}

/// Goes on from what can be read of this copy (KIP-704).
async fn open_what_is_left(broker: &Arc<Broker>, partition: &Arc<Partition>, why: &str) -> Done {
    let name = partition.name();
    match broker.partitions().open_what_is_left(partition).await {
        Ok(None) => Done::Nothing,
        Ok(Some(end)) => {
            reached("damaged-copy-cut");
            tracing::error!(partition = %name, why, %end, "a person has chosen this copy: what is behind the damage is lost");
            Done::Repaired
        }
        Err(error) => {
            tracing::error!(partition = %name, why, %error, "a person has chosen this copy, and nothing of it can be opened");
            Done::Failed
        }
    }
}

/// Tells the metadata whether this copy can be opened, where it does not know.
async fn tell_offline(broker: &Arc<Broker>, partition: &Arc<Partition>, is_offline: bool) {
    let image = broker.image();
    let Some(epoch) = broker.partitions().registration(&image) else {
        return;
    };
    if is_planted("offline-copy-not-told") {
        return;
    }
    let name = partition.name();
    let told = Command::ReplicaOffline(ReplicaOffline {
        replica: BrokerGuard {
            broker: broker.id(),
            epoch,
        },
        topic: partition.topic_id(),
        partition: name.partition,
        is_offline,
    });
    match broker.propose(told).await {
        Ok(Outcome::Refused(why)) => {
            tracing::info!(partition = %name, is_offline, %why, "the metadata does not take that this copy is offline, or back")
        }
        Ok(_) if is_offline => reached("offline-copy-told"),
        Ok(_) => reached("offline-copy-is-back"),
        // Whoever looks at all partitions comes again.
        Err(error) => {
            tracing::info!(partition = %name, is_offline, %error, "cannot tell whether this copy is offline")
        }
    }
}

async fn repair(broker: &Arc<Broker>, partition: &Arc<Partition>, why: &str, others: Others) -> Done {
    let image = broker.image();
    let Some(epoch) = broker.partitions().registration(&image) else {
        return Done::Nothing;
    };
    let name = partition.name();
    let metadata = image
        .topic_by_id(partition.topic_id())
        .and_then(|topic| topic.partition(name.partition));
    let Some(metadata) = metadata else {
        return Done::Nothing;
    };
    if let Some(refusal) = refusal(&image, metadata, broker.id(), others) {
        reached("damaged-copy-is-the-last");
        return Done::Refused(format!("{refusal}: {why}"));
    }
    let lost = Command::ReplicaLost(ReplicaLost {
        replica: BrokerGuard {
            broker: broker.id(),
            epoch,
        },
        topic: partition.topic_id(),
        partition: name.partition,
    });
    // It may be deleted, and made again, until the metadata answers: the new copy then catches up once more.
    partition.give_up();
    let refusal = match broker.propose(lost).await {
        Ok(Outcome::Refused(refusal)) => Some((refusal.to_string(), Instant::ZERO)),
        Ok(_) => None,
        Err(error) => {
            let session = broker.settings().broker().session_timeout;
            Some((error.to_string(), broker.env().clock.now() + session))
        }
    };
    if let Some((refusal, doubted_until)) = refusal {
        partition.keep(doubted_until);
        broker.replication().on_assigned(partition);
        return Done::Refused(format!("{refusal}: {why}"));
    }
    match broker.partitions().start_over(broker, partition).await {
        Ok(None) => Done::Nothing,
        Ok(Some(aside)) => {
            reached("damaged-copy-made-again");
            tracing::warn!(partition = %name, why, aside = %aside.display(), "a damaged copy is set aside, and made again from its peers");
            Done::Repaired
        }
        Err(error) => {
            tracing::error!(partition = %name, %error, "cannot make a damaged copy again");
            Done::Failed
        }
    }
}
