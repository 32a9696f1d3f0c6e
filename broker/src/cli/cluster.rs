//! `skerry cluster`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;
use skerry_client::admin::BrokerDescription;
use skerry_client::cluster::QuorumDescription;
use skerry_client::{Client, ClientError, ClusterMetadata, PartitionMetadata, ResponseError};
use skerry_types::BrokerId;

use super::connect::Connect;
use super::failure::Failure;
use super::output::{Table, print};
use super::{reassign, voters};

/// A voter that the quorum's leader has not heard of for so long does not answer.
const SILENT_MS: i64 = 2_000;
/// Complaints that are told in text.
const LISTED_MAX: usize = 40;

const LEADERLESS: &str = "has no leader";

/// What can be seen of a cluster, and done to it.
#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show what the cluster consists of and how it is
    Status(Connect),
    /// End with status 0 only when the quorum decides, every broker serves and every partition has its full in-sync set
    #[command(after_help = "Example:\n  until skerry cluster health; do sleep 1; done")]
    Health(Connect),
    /// List brokers
    Brokers(Connect),
    /// List who decides about the metadata, and change it
    Voters(voters::VotersArgs),
    /// Move replicas of partitions between brokers
    #[command(subcommand)]
    Reassign(reassign::ReassignCommand),
    /// Elect leaders: the preferred ones again, or any where none is left
    Elect(reassign::ElectArgs),
    /// Forget a broker that is gone and has no replicas
    Forget(ForgetArgs),
    /// Decide alone from now on: the majority of the voters is lost for good
    Recover(voters::RecoverArgs),
}

#[derive(Args, Debug)]
pub(super) struct ForgetArgs {
    /// The broker's number
    #[arg(value_name = "BROKER")]
    broker: i32,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(command: ClusterCommand) -> Result<ExitCode, Failure> {
    let done = |()| ExitCode::SUCCESS;
    match command {
        ClusterCommand::Status(connect) => status(&connect).await.map(done),
        ClusterCommand::Health(connect) => health(&connect).await,
        ClusterCommand::Brokers(connect) => brokers(&connect).await.map(done),
        ClusterCommand::Voters(arguments) => voters::run(arguments).await.map(done),
        ClusterCommand::Reassign(command) => reassign::run(command).await.map(done),
        ClusterCommand::Elect(arguments) => reassign::elect(&arguments).await.map(done),
        ClusterCommand::Forget(arguments) => forget(&arguments).await.map(done),
        ClusterCommand::Recover(arguments) => voters::recover(&arguments).map(done),
    }
}

/// Something that is not as it should be.
struct Complaint {
    /// `quorum`, `broker 3`, `orders-0`.
    subject: String,
    problem: String,
}

/// All that is wrong.
struct Complaints {
    /// What decides first, then who serves, then what is served.
    all: Vec<Complaint>,
    /// The last of them, which are about partitions.
    partitions: usize,
}

fn complaints(
    metadata: &ClusterMetadata,
    quorum: &Result<QuorumDescription, ClientError>,
    nodes: &[Node],
) -> Complaints {
    let mut all = quorum_complaints(quorum);
    all.extend(nodes.iter().filter_map(|node| {
        let problem = match (&node.silent, node.fenced) {
            (_, true) => format!(
                "does not take part; once it is gone for good, `skerry cluster forget {}` ends this",
                node.id
            ),
            (Some(why), false) => format!("does not answer: {why}"),
            (None, false) => return None,
        };
        Some(Complaint {
            subject: format!("broker {}", node.id),
            problem,
        })
    }));
    let of_partitions = partition_complaints(metadata);
    let partitions = of_partitions.len();
    all.extend(of_partitions);
    Complaints { all, partitions }
}

/// The leader tells when it heard of each voter last: how it is with itself stands for now.
fn quorum_complaints(quorum: &Result<QuorumDescription, ClientError>) -> Vec<Complaint> {
    let complaint = |problem| Complaint {
        subject: "quorum".to_owned(),
        problem,
    };
    let quorum = match quorum {
        Ok(quorum) => quorum,
        Err(error) => return vec![complaint(format!("decides nothing: {error}"))],
    };
    let Some(leader) = quorum.leader else {
        return vec![complaint("decides nothing: it has no leader".to_owned())];
    };
    let heard = |id| quorum.voters.iter().find(|voter| voter.id == id);
    let now_ms = heard(leader).map_or(-1, |leader| leader.heard_at_ms);
    let silent = quorum
        .voters
        .iter()
        .filter(|voter| now_ms - voter.heard_at_ms > SILENT_MS);
    let silent: Vec<String> = silent.map(|voter| voter.id.to_string()).collect();
    if silent.is_empty() {
        return Vec::new();
    }
    let voters = quorum.voters.len();
    let verdict = match voters - silent.len() > voters / 2 {
        true => "still decides",
        false => "decides nothing",
    };
    let silent = silent.join(", ");
    vec![complaint(format!(
        "{verdict}: of its {voters} voters node {silent} does not answer"
    ))]
}

fn partition_complaints(metadata: &ClusterMetadata) -> Vec<Complaint> {
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
                (None, _) => LEADERLESS.to_owned(),
                (Some(_), false) => format!("is not in sync on broker {}", missing.join(", ")),
                (Some(_), true) => continue,
            };
            complaints.push(Complaint {
                subject: format!("{}-{}", topic.name, partition.index),
                problem,
            });
        }
    }
    for (topic, code) in &metadata.errors {
        let problem = super::connect::error_name(*code).unwrap_or_default();
        complaints.push(Complaint {
            subject: topic.clone(),
            problem,
        });
    }
    complaints
}

/// What a node is and does.
struct Node {
    id: BrokerId,
    addr: String,
    rack: Option<String>,
    fenced: bool,
    /// Why it does not answer.
    silent: Option<String>,
    /// Its part in the quorum.
    role: &'static str,
    /// Entries of the metadata log that it lacks.
    behind: Option<i64>,
    leads: usize,
    holds: usize,
    /// Of those that it holds.
    in_sync: usize,
    used_bytes: Option<u64>,
    free_bytes: Option<u64>,
}

impl Node {
    const fn state(&self) -> &'static str {
        match (self.fenced, self.silent.is_some()) {
            (true, _) => "fenced",
            (false, true) => "silent",
            (false, false) => "serving",
        }
    }
}

async fn nodes(client: &Client, metadata: &ClusterMetadata, quorum: Option<&QuorumDescription>) -> Vec<Node> {
    let mut nodes = Vec::new();
    for broker in all_brokers(client, metadata).await {
        let partitions = || metadata.topics.iter().flat_map(|topic| &topic.partitions);
        let id = broker.id;
        let member = quorum.and_then(|quorum| {
            let mut members = quorum.voters.iter().chain(&quorum.observers);
            Some((quorum, members.find(|member| member.id == id)?))
        });
        let answer = match broker.fenced {
            // Who is away is not waited for.
            true => Ok(Vec::new()),
            false => client.log_dirs(id).await,
        };
        let silent = answer.as_ref().err().map(ToString::to_string);
        let dirs = answer.unwrap_or_default();
        nodes.push(Node {
            role: quorum.map_or("?", |quorum| voters::role(quorum, id)),
            behind: member.and_then(|(quorum, member)| voters::behind(quorum, member)),
            leads: partitions()
                .filter(|partition| partition.leader == Some(id))
                .count(),
            holds: partitions()
                .filter(|partition| partition.replicas.contains(&id))
                .count(),
            in_sync: partitions()
                .filter(|partition| partition.in_sync.contains(&id))
                .count(),
            used_bytes: dirs.iter().map(|dir| dir.used_bytes).reduce(|a, b| a + b),
            free_bytes: dirs.iter().find_map(|dir| dir.usable_bytes),
            id,
            addr: broker.addr,
            rack: broker.rack,
            fenced: broker.fenced,
            silent,
        });
    }
    nodes
}

/// Every broker that is registered; from an older cluster those that serve.
async fn all_brokers(client: &Client, metadata: &ClusterMetadata) -> Vec<BrokerDescription> {
    match client.describe_cluster().await {
        Ok(cluster) => cluster.brokers,
        Err(_) => metadata
            .brokers
            .iter()
            .map(|broker| BrokerDescription {
                id: broker.id,
                addr: broker.addr.clone(),
                rack: broker.rack.clone(),
                fenced: false,
            })
            .collect(),
    }
}

async fn status(connect: &Connect) -> Result<(), Failure> {
    let client = connect.client();
    let metadata = client.metadata(None, false).await?;
    let quorum = client.describe_quorum().await;
    let nodes = nodes(&client, &metadata, quorum.as_ref().ok()).await;
    let moves = client.reassignments().await.map_or(0, |moves| moves.len());
    let complaints = complaints(&metadata, &quorum, &nodes);
    let partitions: usize = metadata.topics.iter().map(|topic| topic.partitions.len()).sum();
    let internal = metadata.topics.iter().filter(|topic| topic.internal).count();
    let groups = client.list_groups().await.ok().map(|groups| groups.len());
    let id = metadata.cluster_id.clone().unwrap_or_default();
    let controller = quorum.as_ref().ok().and_then(|quorum| quorum.leader);
    let text = || {
        let mut table = Table::new(&[
            "NODE",
            "ADDRESS",
            "RACK",
            "STATE",
            "QUORUM",
            "BEHIND",
            "LEADS",
            "IN SYNC",
            "DATA",
            "DISK FREE",
        ]);
        let size = |bytes: Option<u64>| bytes.map_or("?".to_owned(), show_size_roughly);
        for node in &nodes {
            table.row([
                node.id.to_string(),
                node.addr.clone(),
                node.rack.clone().unwrap_or("-".to_owned()),
                node.state().to_owned(),
                node.role.to_owned(),
                node.behind.map_or("?".to_owned(), |entries| entries.to_string()),
                node.leads.to_string(),
                format!("{} of {}", node.in_sync, node.holds),
                size(node.used_bytes),
                size(node.free_bytes),
            ]);
        }
        format!(
            "cluster      {id}\ncontroller   {}\ntopics       {} and {internal} internal\n\
             partitions   {partitions}{}\ngroups       {}\nhealth       {}\n\n{table}",
            match (&quorum, controller) {
                (_, Some(id)) => format!("node {id}"),
                (Ok(_), None) => "none: the metadata quorum has no leader".to_owned(),
                (Err(error), None) => format!("unknown: {error}"),
            },
            metadata.topics.len() - internal,
            if moves > 0 {
                format!(", {moves} being moved")
            } else {
                String::new()
            },
            groups.map_or("?".to_owned(), |groups| groups.to_string()),
            match complaints.all.len() {
                0 => "ok".to_owned(),
                1 => format!("{} {}", complaints.all[0].subject, complaints.all[0].problem),
                n => format!("{n} things are wrong: `skerry cluster health` lists them"),
            },
        )
    };
    let json = || {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|node| {
                json!({
                    "id": node.id.get(), "address": node.addr, "rack": node.rack, "fenced": node.fenced, "answers": node.silent.is_none(),
                    "role": node.role, "behind": node.behind, "leads": node.leads, "holds": node.holds,
                    "in_sync": node.in_sync, "used_bytes": node.used_bytes, "free_bytes": node.free_bytes,
                })
            })
            .collect();
        json!({
            "cluster_id": id, "controller": controller.map(BrokerId::get), "nodes": nodes,
            "brokers": metadata.brokers.iter().map(|broker| broker.id.get()).collect::<Vec<_>>(),
            "topics": metadata.topics.len() - internal, "internal_topics": internal,
            "partitions": partitions, "moving_partitions": moves, "groups": groups,
            "unwell_partitions": complaints.partitions, "complaints": listed(&complaints.all),
        })
    };
    print(connect.format, text, json)
}

/// `1.4 GiB`.
fn show_size_roughly(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = UNITS.len().min((bytes.max(1).ilog2() / 10) as usize + 1) - 1;
    let tenths = bytes / ((1 << (10 * unit)) / 10).max(1);
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit]),
    }
}

async fn forget(arguments: &ForgetArgs) -> Result<(), Failure> {
    let id = BrokerId(arguments.broker);
    let client = arguments.connect.connected().await?;
    if let Err(error) = client.unregister_broker(id).await {
        let hint = "stop it first, and move its replicas away: `skerry cluster reassign move`";
        return Err(match error.code() {
            Some(ResponseError::InvalidRequest) => Failure::from(error).hint(hint),
            _ => error.into(),
        });
    }
    print(
        arguments.connect.format,
        || format!("broker {id} is forgotten\n"),
        || json!({ "broker": id.get(), "outcome": "forgotten" }),
    )
}

async fn health(connect: &Connect) -> Result<ExitCode, Failure> {
    let client = connect.client();
    let metadata = client.metadata(None, false).await?;
    let quorum = client.describe_quorum().await;
    let nodes = nodes(&client, &metadata, quorum.as_ref().ok()).await;
    let Complaints {
        all,
        partitions: unwell,
    } = complaints(&metadata, &quorum, &nodes);
    let well = all.is_empty() && !nodes.is_empty();
    let partitions: usize = metadata.topics.iter().map(|topic| topic.partitions.len()).sum();
    let text = || {
        if well {
            return format!(
                "ok: the quorum decides, all brokers serve ({}), all partitions have a leader and their full in-sync \
                 set ({partitions})\n",
                nodes.len()
            );
        }
        let mut text = format!("not well; of {partitions} partitions {unwell} are not\n");
        for complaint in all.iter().take(LISTED_MAX) {
            text.push_str(&format!("  {} {}\n", complaint.subject, complaint.problem));
        }
        if all.len() > LISTED_MAX {
            let others = all.len() - LISTED_MAX;
            text.push_str(&format!("  and {others} others: --format json lists them\n"));
        }
        if all.iter().any(|complaint| complaint.problem == LEADERLESS) {
            text.push_str(
                "a leader comes back with a broker that was in sync; where none ever will, `skerry cluster elect \
                 --unclean` goes on from a copy that is left\n",
            );
        }
        text
    };
    let json = || json!({ "healthy": well, "partitions": partitions, "complaints": listed(&all) });
    print(connect.format, text, json)?;
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn listed(complaints: &[Complaint]) -> Vec<serde_json::Value> {
    let complaint =
        |complaint: &Complaint| json!({ "subject": complaint.subject, "problem": complaint.problem });
    complaints.iter().map(complaint).collect()
}

async fn brokers(connect: &Connect) -> Result<(), Failure> {
    let client = connect.client();
    let metadata = client.metadata(None, false).await?;
    let brokers = all_brokers(&client, &metadata).await;
    let count = |wanted: &dyn Fn(&PartitionMetadata) -> bool| {
        let partitions = metadata.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.filter(|partition| wanted(partition)).count()
    };
    let led = |id: BrokerId| count(&|partition| partition.leader == Some(id));
    let held = |id: BrokerId| count(&|partition| partition.replicas.contains(&id));
    let state = |broker: &BrokerDescription| if broker.fenced { "fenced" } else { "serving" };
    let text = || {
        let mut table = Table::new(&["BROKER", "ADDRESS", "RACK", "STATE", "LEADS", "HOLDS"]);
        for broker in &brokers {
            table.row([
                broker.id.to_string(),
                broker.addr.clone(),
                broker.rack.clone().unwrap_or("-".to_owned()),
                state(broker).to_owned(),
                led(broker.id).to_string(),
                held(broker.id).to_string(),
            ]);
        }
        table.to_string()
    };
    let json = || {
        let brokers = brokers.iter().map(|broker| {
            json!({
                "id": broker.id.get(), "address": broker.addr, "rack": broker.rack,
                "state": state(broker), "leads": led(broker.id), "holds": held(broker.id),
            })
        });
        brokers.collect()
    };
    print(connect.format, text, json)
}

#[cfg(test)]
mod tests {
    use skerry_client::cluster::QuorumMember;
    use skerry_types::Uuid;

    use super::*;

    #[test]
    fn a_voter_that_is_silent_is_told_and_whether_the_others_decide() {
        let voter = |id, heard_at_ms| QuorumMember {
            id: BrokerId(id),
            directory: Uuid::ZERO,
            log_end: 9,
            heard_at_ms,
            addr: None,
        };
        let told = |heard_at_ms: [i64; 3]| {
            let voters = heard_at_ms.into_iter().zip(1..).map(|(at, id)| voter(id, at));
            let quorum = QuorumDescription {
                leader: Some(BrokerId(1)),
                term: 1,
                high_watermark: 9,
                voters: voters.collect(),
                observers: Vec::new(),
            };
            let complaints = quorum_complaints(&Ok(quorum)).into_iter();
            complaints.map(|complaint| complaint.problem).collect::<Vec<_>>()
        };
        assert!(told([90_000, 89_900, 88_100]).is_empty());
        assert_eq!(
            told([90_000, 89_900, 80_000]),
            ["still decides: of its 3 voters node 3 does not answer"]
        );
        assert_eq!(
            told([90_000, -1, 80_000]),
            ["decides nothing: of its 3 voters node 2, 3 does not answer"]
        );
    }

    #[test]
    fn sizes_are_read_by_people() {
        let shown = [0, 999, 1 << 10, 1_600_000, 5 << 30, 3 << 50].map(show_size_roughly);
        assert_eq!(
            shown,
            ["0 B", "999 B", "1.0 KiB", "1.5 MiB", "5.0 GiB", "3072.0 TiB"]
        );
    }
}
