//! Whoever changes who belongs to the cluster. A plan that fails is tried again until it holds: half of a change of the
//! members is what operators are left with when something else fails meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kafka_protocol::messages::describe_quorum_request::{PartitionData, TopicData};
use kafka_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, BrokerId, DescribeQuorumRequest, RemoveRaftVoterRequest,
    RemoveRaftVoterResponse, UnregisterBrokerRequest,
};
use skerry_client::ResponseError;
use skerry_env::Env;
use uuid::Uuid;

use super::{Client, Shared, To, topic_name};

const TIMEOUT_MS: i32 = 2_000;
const METADATA_TOPIC: &str = "__cluster_metadata";

/// Takes the vote of one voter after the other, and gives it back, whatever happens meanwhile. Now and then it asks for a
/// broker to be forgotten that has replicas.
pub(super) async fn run(mut client: Client) {
    while !client.is_stopping() {
        client.pause(2_000).await;
        if client.env.rng.chance(1, 4) {
            forget(&mut client).await;
            continue;
        }
        let voters = u64::from(client.shared.cluster.voters);
        if client.is_stopping() || voters < 3 || !client.shared.begin_change_of_members() {
            continue;
        }
        let node = 1 + i32::try_from(client.env.rng.below(voters)).unwrap_or(0);
        if change(&mut client, Change::Remove(node, Uuid::nil())).await {
            client.pause(1_500).await;
            change(&mut client, Change::Add(node, Uuid::nil())).await;
            client.shared.votes_moved.fetch_add(1, Ordering::Relaxed);
        }
        client.shared.end_change_of_members();
    }
}

/// Asks for one broker after the other to be forgotten. Who is down and has no replicas is; it registers anew when it is back.
pub(super) async fn forget_all(mut client: Client) {
    while !client.is_stopping() {
        client.pause(300).await;
        forget(&mut client).await;
    }
}

/// Of a broker that takes part, or has replicas, nothing must be forgotten.
async fn forget(client: &mut Client) {
    let nodes = client.shared.cluster.addrs.len() as u64;
    let node = 1 + i32::try_from(client.env.rng.below(nodes)).unwrap_or(0);
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(node));
    client.ask_another();
    let answer = client.call(To::Anyone, &request).await;
    let error = answer
        .ok()
        .map(|answer| ResponseError::try_from_code(answer.error_code));
    client
        .shared
        .trace
        .event(&client.name, format_args!("forget {node}: {error:?}"));
}

/// What the README tells an operator to do where a voter has lost its disk. Who is hasty does not look whether the machine is
/// back, and names no directory: the cluster must not give the vote to the disk that is lost.
pub async fn replace_voter(env: &Env, shared: &Arc<Shared>, name: &str, node: i32, is_hasty: bool) {
    let mut client = Client::new(env, name.to_owned(), shared);
    let lost = if is_hasty {
        Uuid::nil()
    } else {
        client.pause(300).await;
        directory(&mut client, node).await
    };
    change(&mut client, Change::Remove(node, lost)).await;
    let new = if is_hasty {
        Uuid::nil()
    } else {
        loop {
            match directory(&mut client, node).await {
                new if new != lost && !new.is_nil() => break new,
                _ => client.pause(100).await,
            }
        }
    };
    change(&mut client, Change::Add(node, new)).await;
}

/// What the manual tells a person to do where nodes have come back to a quorum that was recovered.
pub async fn add_voters(env: &Env, shared: &Arc<Shared>, name: &str, nodes: &[i32]) {
    let mut client = Client::new(env, name.to_owned(), shared);
    for node in nodes {
        while directory(&mut client, *node).await.is_nil() {
            client.pause(100).await;
        }
        change(&mut client, Change::Add(*node, Uuid::nil())).await;
    }
}

/// The directory that a node is a member of the quorum with; nil where it is none.
async fn directory(client: &mut Client, node: i32) -> Uuid {
    let partition = PartitionData::default().with_partition_index(0);
    let topic = TopicData::default()
        .with_topic_name(topic_name(METADATA_TOPIC))
        .with_partitions(vec![partition]);
    let request = DescribeQuorumRequest::default().with_topics(vec![topic]);
    loop {
        client.ask_another();
        let answer = client.call(To::Anyone, &request).await.ok();
        let described = answer
            .and_then(|answer| answer.topics.into_iter().next()?.partitions.into_iter().next())
            .filter(|described| described.error_code == 0);
        let Some(described) = described else {
            client.pause(200).await;
            continue;
        };
        let mut members = described.current_voters.iter().chain(&described.observers);
        let member = members.find(|member| member.replica_id.0 == node);
        return member.map_or(Uuid::nil(), |member| member.replica_directory_id);
    }
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Add(i32, Uuid),
    Remove(i32, Uuid),
}

/// Tries until it is so. False where a vote stays that could not be taken: the load is over, and what must be there for it is
/// not.
async fn change(client: &mut Client, change: Change) -> bool {
    loop {
        client.ask_another();
        let code = match change {
            Change::Add(node, directory) => {
                let request = AddRaftVoterRequest::default()
                    .with_cluster_id(None)
                    .with_timeout_ms(TIMEOUT_MS)
                    .with_voter_id(node)
                    .with_voter_directory_id(directory);
                let answer = client.call(To::Anyone, &request).await;
                answer.map(|answer: AddRaftVoterResponse| answer.error_code)
            }
            Change::Remove(node, directory) => {
                let request = RemoveRaftVoterRequest::default()
                    .with_cluster_id(None)
                    .with_voter_id(node)
                    .with_voter_directory_id(directory);
                let answer = client.call(To::Anyone, &request).await;
                answer.map(|answer: RemoveRaftVoterResponse| answer.error_code)
            }
        };
        let error = code.ok().map(ResponseError::try_from_code);
        client
            .shared
            .trace
            .event(&client.name, format_args!("{change:?}: {error:?}"));
        match (error, change) {
            // An earlier try was carried out, and its answer lost.
            (Some(None), _)
            | (Some(Some(ResponseError::DuplicateVoter)), Change::Add(..))
            | (Some(Some(ResponseError::VoterNotFound)), Change::Remove(..)) => return true,
            (Some(Some(ResponseError::InvalidRequest)), Change::Remove(..)) if client.is_stopping() => {
                return false;
            }
            _ => client.pause(300).await,
        }
    }
}
