//! What an operator does where a broker leaves the cluster for good: its replicas go to others, it is stopped, and the cluster
//! forgets it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use kafka_protocol::messages::{BrokerId, MetadataRequest, UnregisterBrokerRequest};
use skerry_client::ResponseError;
use skerry_env::Env;
use skerry_types::reached;

use super::{Client, Shared, To, moves};

/// How far it is. The operator and the machine take turns.
#[derive(Clone, Default)]
pub struct Leaving(Arc<AtomicU8>);

/// See [`Leaving`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Step {
    /// Its replicas move to others.
    Moving,
    /// It has none, and may be stopped.
    Relieved,
    /// It is stopped.
    Stopped,
    /// The cluster knows it no longer.
    Forgotten,
    /// It stays after all: it was given replicas meanwhile, or is needed.
    Stays,
}

impl Leaving {
    const STEPS: [Step; 5] = [
        Step::Moving,
        Step::Relieved,
        Step::Stopped,
        Step::Forgotten,
        Step::Stays,
    ];

    /// How far it is.
    #[must_use]
    pub fn step(&self) -> Step {
        let number = self.0.load(Ordering::Relaxed);
        Self::STEPS
            .get(usize::from(number))
            .copied()
            .unwrap_or(Step::Stays)
    }

    /// It is further.
    pub fn take(&self, step: Step) {
        self.0.store(step as u8, Ordering::Relaxed);
    }
}

/// Until the node is forgotten, or stays.
pub async fn relieve(env: &Env, shared: &Arc<Shared>, name: &str, node: i32, leaving: &Leaving) {
    let mut client = Client::new(env, name.to_owned(), shared);
    while leaving.step() == Step::Moving {
        match move_away(&mut client, node).await {
            Some(0) => {
                reached("leaving-broker-has-no-replica");
                leaving.take(Step::Relieved);
            }
            Some(_) | None => client.pause(400).await,
        }
    }
    while leaving.step() < Step::Forgotten {
        client.pause(100).await;
        if leaving.step() == Step::Stopped && forget(&mut client, node).await {
            reached("left-broker-forgotten");
            leaving.take(Step::Forgotten);
        }
    }
}

/// How many partitions have a replica there, which are asked to have it elsewhere. `None`: nobody says.
async fn move_away(client: &mut Client, node: i32) -> Option<usize> {
    client.ask_another();
    let request = MetadataRequest::default().with_topics(None);
    let answer = client.call(To::Anyone, &request).await.ok()?;
    let all: Vec<BrokerId> = answer.brokers.iter().map(|broker| broker.node_id).collect();
    let mut count = 0;
    for topic in &answer.topics {
        let Some(name) = topic.name.as_ref() else { continue };
        for partition in &topic.partitions {
            let replicas = &partition.replica_nodes;
            if !replicas.contains(&BrokerId(node)) {
                continue;
            }
            count += 1;
            let mut others: Vec<_> = all
                .iter()
                .filter(|id| id.0 != node && !replicas.contains(id))
                .collect();
            let index = client.env.rng.below(others.len().max(1) as u64);
            let index = usize::try_from(index).unwrap_or(0);
            if others.is_empty() {
                // With fewer copies what was acknowledged would be on fewer disks than it was promised.
                continue;
            }
            let other = *others.swap_remove(index);
            let target = replicas.iter().filter(|id| id.0 != node).copied().chain([other]);
            let target: Vec<_> = target.collect();
            moves::reassign(client, name, partition.partition_index, Some(target)).await;
        }
    }
    Some(count)
}

async fn forget(client: &mut Client, node: i32) -> bool {
    client.ask_another();
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(node));
    let code = client
        .call(To::Anyone, &request)
        .await
        .map(|answer| answer.error_code);
    let error = code.ok().map(ResponseError::try_from_code);
    let (trace, name) = (&client.shared.trace, &client.name);
    trace.event(name, format_args!("forget {node}: {error:?}"));
    // An earlier try was carried out, and its answer lost.
    matches!(error, Some(None | Some(ResponseError::BrokerIdNotRegistered)))
}
