//! `skerry cluster`.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;
use skerry_client::{Client, ClusterMetadata};
use skerry_types::BrokerId;

use super::connect::Connect;
use super::failure::Failure;
use super::output::{Table, print};

/// What can be seen of a cluster.
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show what the cluster consists of and how it is
    Status(Connect),
    /// End with status 0 only when every partition has a leader and its full in-sync set
    #[command(after_help = "Example:\n  until skerry cluster health; do sleep 1; done")]
    Health(Connect),
    /// List brokers
    Brokers(Connect),
}

pub(super) async fn run(command: ClusterCommand) -> Result<ExitCode, Failure> {
    match command {
        ClusterCommand::Status(connect) => status(&connect).await.map(|()| ExitCode::SUCCESS),
        ClusterCommand::Health(connect) => health(&connect).await,
        ClusterCommand::Brokers(connect) => brokers(&connect).await.map(|()| ExitCode::SUCCESS),
    }
}

/// A partition that is not as it should be.
struct Complaint {
    partition: String,
    problem: String,
}

fn complaints(metadata: &ClusterMetadata) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for topic in &metadata.topics {
        for partition in &topic.partitions {
            let missing: Vec<String> = partition
                .replicas
                .iter()
                .filter(|replica| !partition.in_sync.contains(replica))
                .map(ToString::to_string)
                .collect();
            let problem = match (partition.leader, missing.is_empty()) {
                (None, _) => "has no leader".to_owned(),
                (Some(_), false) => format!("is not in sync on broker {}", missing.join(", ")),
                (Some(_), true) => continue,
            };
            complaints.push(Complaint {
                partition: format!("{}-{}", topic.name, partition.index),
                problem,
            });
        }
    }
    for (topic, code) in &metadata.errors {
        let problem = super::connect::error_name(*code).unwrap_or_default();
        complaints.push(Complaint {
            partition: topic.clone(),
            problem,
        });
    }
    complaints
}

async fn status(connect: &Connect) -> Result<(), Failure> {
    let client = connect.client();
    let metadata = client.metadata(None, false).await?;
    let complaints = complaints(&metadata);
    let partitions: usize = metadata.topics.iter().map(|topic| topic.partitions.len()).sum();
    let internal = metadata.topics.iter().filter(|topic| topic.internal).count();
    let groups = client.list_groups().await?;
    let id = metadata.cluster_id.clone().unwrap_or_default();
    let text = || {
        let brokers: Vec<String> = metadata
            .brokers
            .iter()
            .map(|broker| format!("{} at {}", broker.id, broker.addr))
            .collect();
        format!(
            "cluster      {id}\nbrokers      {}\ncontroller   {}\ntopics       {} and {internal} internal\n\
             partitions   {partitions}\ngroups       {}\nhealth       {}\n",
            brokers.join(", "),
            metadata
                .controller
                .map_or("unknown".to_owned(), |id| id.to_string()),
            metadata.topics.len() - internal,
            groups.len(),
            match complaints.len() {
                0 => "ok".to_owned(),
                n => format!("{n} partitions are not well: `skerry cluster health` lists them"),
            },
        )
    };
    let json = || {
        json!({
            "cluster_id": id, "controller": metadata.controller.map(BrokerId::get),
            "brokers": metadata.brokers.iter().map(|broker| broker.id.get()).collect::<Vec<_>>(),
            "topics": metadata.topics.len() - internal, "internal_topics": internal,
            "partitions": partitions, "groups": groups.len(), "unwell_partitions": complaints.len(),
        })
    };
    print(connect.format, text, json)
}

async fn health(connect: &Connect) -> Result<ExitCode, Failure> {
    let metadata = connect.client().metadata(None, false).await?;
    let complaints = complaints(&metadata);
    let well = complaints.is_empty() && !metadata.brokers.is_empty();
    let partitions: usize = metadata.topics.iter().map(|topic| topic.partitions.len()).sum();
    let text = || {
        if well {
            return format!("ok: {partitions} partitions have a leader and their full in-sync set\n");
        }
        let mut text = format!("{} of {partitions} partitions are not well\n", complaints.len());
        for complaint in &complaints {
            text.push_str(&format!("  {} {}\n", complaint.partition, complaint.problem));
        }
        text
    };
    let json = || {
        let complaints: Vec<_> = complaints
            .iter()
            .map(|complaint| json!({ "partition": complaint.partition, "problem": complaint.problem }))
            .collect();
        json!({ "healthy": well, "partitions": partitions, "complaints": complaints })
    };
    print(connect.format, text, json)?;
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn brokers(connect: &Connect) -> Result<(), Failure> {
    let client = connect.client();
    let metadata = client.metadata(None, false).await?;
    let led = |id: BrokerId| {
        let partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
        partitions
            .filter(|partition| partition.leader == Some(id))
            .count()
    };
    let held = |id: BrokerId| {
        let partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
        partitions
            .filter(|partition| partition.replicas.contains(&id))
            .count()
    };
    let fenced = fenced(&client).await;
    let state = |id: BrokerId| if fenced.contains(&id) { "fenced" } else { "serving" };
    let text = || {
        let mut table = Table::new(&["BROKER", "ADDRESS", "RACK", "STATE", "LEADS", "HOLDS"]);
        for broker in &metadata.brokers {
            table.row([
                broker.id.to_string(),
                broker.addr.clone(),
                broker.rack.clone().unwrap_or("-".to_owned()),
                state(broker.id).to_owned(),
                led(broker.id).to_string(),
                held(broker.id).to_string(),
            ]);
        }
        table.to_string()
    };
    let json = || {
        let brokers = metadata.brokers.iter().map(|broker| {
            json!({
                "id": broker.id.get(), "address": broker.addr, "rack": broker.rack,
                "state": state(broker.id), "leads": led(broker.id), "holds": held(broker.id),
            })
        });
        brokers.collect()
    };
    print(connect.format, text, json)
}

/// Brokers that are registered and do not serve. An older cluster does not tell.
async fn fenced(client: &Client) -> Vec<BrokerId> {
    let described = client
        .describe_cluster()
        .await
        .map(|cluster| cluster.brokers)
        .unwrap_or_default();
    described
        .into_iter()
        .filter(|broker| broker.fenced)
        .map(|broker| broker.id)
        .collect()
}
