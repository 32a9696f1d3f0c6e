//! Copies that are damaged or gone are made again from their peers.
//!
//! First the metadata must know that this copy does not count any more (`ReplicaLost`): only then is what is left of it
//! set aside, and an empty log follows the leader. Where no other copy may lead, nothing is touched: this one is all
//! there is. What was set aside is removed when the new copy is in sync.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_metadata_state::{BrokerGuard, Command, Outcome, Refusal, ReplicaLost};
use skerry_types::Instant;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Replication;
use super::fetcher::Key;
use crate::broker::Broker;
use crate::partition::Partition;

/// After a repair that did not come about, and between two repairs of one partition: a disk that damages what it is
/// given shall not be fed for ever.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// Partitions that cannot be served here.
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
            // Whoever looks at all partitions puts it into the queue again.
            if tried.get(&key).is_some_and(|tried| now < tried.again_at) {
                continue;
            }
            let Some(why) = partition.offline() else { continue };
            let repair = repair(&broker, &partition, &why);
            let done = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                done = repair => done,
            };
            if done == Done::NotNow {
                continue;
            }
            let pause = tried
                .get(&key)
                .map_or(PAUSE_MIN, |before| before.pause * 2)
                .min(PAUSE_MAX);
            tried.insert(
                key,
                Tried {
                    again_at: now + pause,
                    pause,
                },
            );
        }
    }
    drop(replication.repairs.take());
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Done {
    /// It may be repaired later.
    NotNow,
    /// It was tried.
    Tried,
}

async fn repair(broker: &Arc<Broker>, partition: &Arc<Partition>, why: &str) -> Done {
    let image = broker.image();
    let Some(epoch) = broker.partitions().registration(&image) else {
        return Done::NotNow;
    };
    let name = partition.name();
    let replicas = image
        .topic_by_id(partition.topic_id())
        .and_then(|topic| topic.partition(name.partition))
        .map_or(0, |metadata| metadata.replicas.len());
    if replicas < 2 {
        return Done::NotNow;
    }
    let lost = Command::ReplicaLost(ReplicaLost {
        replica: BrokerGuard {
            broker: broker.id(),
            epoch,
        },
        topic: partition.topic_id(),
        partition: name.partition,
    });
    match broker.propose(lost).await {
        Ok(Outcome::Refused(Refusal::LastReplica(_))) => {
            tracing::warn!(partition = %name, why, "this copy is damaged, and no other one may lead: it is left as it is");
        }
        Ok(Outcome::Refused(refusal)) => {
            tracing::warn!(partition = %name, %refusal, "cannot give up a damaged copy");
        }
        Ok(_) => match broker.partitions().start_over(broker, partition).await {
            Ok(aside) => {
                tracing::warn!(partition = %name, why, aside = %aside.display(), "a damaged copy is set aside, and made again from its peers");
            }
            Err(error) => {
                tracing::error!(partition = %name, %error, "cannot make a damaged copy again");
            }
        },
        Err(error) => {
            tracing::info!(partition = %name, %error, "cannot give up a damaged copy now");
        }
    }
    Done::Tried
}
