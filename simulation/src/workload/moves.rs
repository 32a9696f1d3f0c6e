//! Whoever moves partitions to other replicas and other leaders. What becomes of it is the watcher's business: a client
//! hears no more than that it was begun.

use kafka_protocol::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::{AlterPartitionReassignmentsRequest, BrokerId, ElectLeadersRequest};

use std::sync::Arc;

use skerry_env::Env;

use super::{Client, Shared, TOPICS, To, pick, topic_name};

const TIMEOUT_MS: i32 = 2_000;
/// The preferred replica, if it is in sync.
const PREFERRED: i8 = 0;
/// Any that lives: what it lacks is lost.
const UNCLEAN: i8 = 1;
/// Nobody moves a partition to a single copy: a bit that rots there is nobody's fault.
const REPLICAS_MIN: usize = 2;
const REPLICAS_MAX: usize = 3;
/// How long one of two leads that take turns, at most, beside what it takes to ask for it.
const TURN_MS: u64 = 100;

pub(super) async fn run(mut client: Client) {
    while !client.is_stopping() {
        client.pause(1_000).await;
        let (topic, partitions) = *pick(&client.env, &TOPICS);
        let partition = i32::try_from(client.env.rng.below(partitions.unsigned_abs().into())).unwrap_or(0);
        match client.env.rng.below(6) {
            0 => {
                elect(&mut client, topic, partition, PREFERRED).await;
            }
            1 => reassign(&mut client, topic, partition, None).await,
            _ => {
                let target = draw_replicas(&client);
                reassign(&mut client, topic, partition, Some(target)).await;
            }
        }
    }
}

/// Two replicas lead a partition in turn, for a moment each: the two that come first in its assignment.
pub(super) async fn take_turns(mut client: Client) {
    while !client.is_stopping() {
        client.pause(TURN_MS).await;
        let (topic, partition) = client.draw_partition();
        let Ok(answer) = client.learn(topic).await else {
            client.ask_another();
            continue;
        };
        let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let Some(found) = partitions.find(|found| found.partition_index == partition) else {
            continue;
        };
        let mut replicas = found.replica_nodes.clone();
        if replicas.len() >= REPLICAS_MIN {
            replicas.swap(0, 1);
            reassign(&mut client, topic, partition, Some(replicas)).await;
            elect(&mut client, topic, partition, PREFERRED).await;
        }
    }
}

fn draw_replicas(client: &Client) -> Vec<BrokerId> {
    let nodes = client.shared.cluster.addrs.len();
    let mut all: Vec<i32> = (1..).take(nodes).collect();
    let most = nodes.min(REPLICAS_MAX);
    let spare = most.saturating_sub(REPLICAS_MIN) as u64;
    let count = most - usize::try_from(client.env.rng.below(spare + 1)).unwrap_or(0);
    let mut drawn = Vec::with_capacity(count);
    for _ in 0..count {
        let index = usize::try_from(client.env.rng.below(all.len() as u64)).unwrap_or(0);
        drawn.push(BrokerId(all.remove(index)));
    }
    drawn
}

/// Gives a partition other replicas; `None` takes back what was begun.
pub(super) async fn reassign(
    client: &mut Client,
    topic: &str,
    partition: i32,
    target: Option<Vec<BrokerId>>,
) {
    let wanted = ReassignablePartition::default()
        .with_partition_index(partition)
        .with_replicas(target);
    let wanted = ReassignableTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![wanted]);
    let request = AlterPartitionReassignmentsRequest::default()
        .with_timeout_ms(TIMEOUT_MS)
        .with_topics(vec![wanted]);
    if client.call(To::Anyone, &request).await.is_err() {
        client.ask_another();
    }
}

/// Elects whoever lives, asking until it is done: `skerry cluster elect --unclean`.
pub async fn elect_unclean(env: &Env, shared: &Arc<Shared>, name: &str, partition: &str) {
    let mut client = Client::new(env, name.to_owned(), shared);
    let Some((topic, number)) = partition.rsplit_once('-') else {
        return;
    };
    let number = number.parse().unwrap_or(0);
    while !elect(&mut client, topic, number, UNCLEAN).await {
        client.pause(200).await;
    }
}

/// The same for every partition that nobody leads, asking until it is answered: `skerry cluster elect --unclean
/// --all-topics`.
pub async fn elect_all_unclean(env: &Env, shared: &Arc<Shared>, name: &str) {
    let mut client = Client::new(env, name.to_owned(), shared);
    let request = ElectLeadersRequest::default()
        .with_election_type(UNCLEAN)
        .with_topic_partitions(None)
        .with_timeout_ms(TIMEOUT_MS);
    loop {
        match client.call(To::Anyone, &request).await {
            Ok(answer) if answer.error_code == 0 => return,
            Ok(_) | Err(_) => {
                client.ask_another();
                client.pause(200).await;
            }
        }
    }
}

/// True where it is done.
async fn elect(client: &mut Client, topic: &str, partition: i32, election: i8) -> bool {
    let wanted = TopicPartitions::default()
        .with_topic(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = ElectLeadersRequest::default()
        .with_election_type(election)
        .with_topic_partitions(Some(vec![wanted]))
        .with_timeout_ms(TIMEOUT_MS);
    match client.call(To::Anyone, &request).await {
        Ok(answer) => {
            let mut results = answer.replica_election_results.iter();
            results.any(|topic| topic.partition_result.iter().any(|found| found.error_code == 0))
        }
        Err(_) => {
            client.ask_another();
            false
        }
    }
}
