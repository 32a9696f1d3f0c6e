//! `skerry cluster reassign` and `skerry cluster elect`.

use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;
use skerry_client::cluster::{ElectionKind, PartitionAnswer};
use skerry_client::{Client, ResponseError};
use skerry_types::{BrokerId, TopicPartition};

use super::connect::{Connect, no_such_topic};
use super::failure::Failure;
use super::output::{Table, print};

/// How often `--wait` looks.
const LOOK: Duration = Duration::from_millis(200);

/// Where the replicas of partitions are.
#[derive(Debug, Subcommand)]
pub(super) enum ReassignCommand {
    /// List the moves that are under way
    List(Connect),
    /// Move replicas: copies are made first, the old ones are dropped when the new ones are in sync
    #[command(
        after_help = "Examples:\n  skerry cluster reassign move orders --partition 0 --to 2,3,4\n  \
        skerry cluster reassign move orders --to 2,3,4 --wait    every partition; who is preferred takes turns"
    )]
    Move(MoveArgs),
    /// Go back to where the replicas were
    Cancel(CancelArgs),
}

#[derive(Args, Debug)]
pub(super) struct Partitions {
    /// The topic
    topic: String,
    /// Only this partition; may be repeated [default: all]
    #[arg(long = "partition", short, value_name = "N")]
    partitions: Vec<i32>,
}

#[derive(Args, Debug)]
pub(super) struct MoveArgs {
    #[command(flatten)]
    what: Partitions,
    /// The brokers that have it afterwards, the preferred leader first
    #[arg(long, value_name = "BROKERS", value_delimiter = ',', required = true)]
    to: Vec<i32>,
    /// How many of those brokers get each partition [default: all of them]
    #[arg(long, short, value_name = "R")]
    replication_factor: Option<usize>,
    /// Return when the move is complete
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Args, Debug)]
pub(super) struct CancelArgs {
    #[command(flatten)]
    what: Partitions,
    #[command(flatten)]
    connect: Connect,
}

/// The arguments of `cluster elect`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  skerry cluster elect                 preferred replicas lead again, everywhere\n  \
    skerry cluster elect --unclean --topic orders --partition 3\n  \
    skerry cluster elect --unclean --all-topics    after `cluster recover`: what is left leads"
)]
pub(super) struct ElectArgs {
    /// Only this topic [default: all]
    #[arg(long, value_name = "TOPIC", group = "which")]
    topic: Option<String>,
    /// Every topic: the default, which --unclean wants to hear
    #[arg(long, group = "which")]
    all_topics: bool,
    /// Only this partition of it; may be repeated [default: all]
    #[arg(long = "partition", short, value_name = "N", requires = "topic")]
    partitions: Vec<i32>,
    /// Where nobody in sync is left, let any replica lead: what it lacks is lost
    #[arg(long, requires = "which")]
    unclean: bool,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(command: ReassignCommand) -> Result<(), Failure> {
    match command {
        ReassignCommand::List(connect) => list(&connect).await,
        ReassignCommand::Move(arguments) => reassign(arguments).await,
        ReassignCommand::Cancel(arguments) => cancel(&arguments).await,
    }
}

fn ids(brokers: &[BrokerId]) -> String {
    let ids: Vec<String> = brokers.iter().map(ToString::to_string).collect();
    if ids.is_empty() {
        "-".to_owned()
    } else {
        ids.join(",")
    }
}

async fn list(connect: &Connect) -> Result<(), Failure> {
    let moves = connect.connected().await?.reassignments().await?;
    let text = || {
        if moves.is_empty() {
            return "no replicas are being moved\n".to_owned();
        }
        let mut table = Table::new(&["PARTITION", "REPLICAS", "COMING", "GOING"]);
        for one in &moves {
            table.row([
                one.partition.to_string(),
                ids(&one.replicas),
                ids(&one.adding),
                ids(&one.removing),
            ]);
        }
        table.to_string()
    };
    let json = || {
        let numbers = |ids: &[BrokerId]| ids.iter().map(|id| id.get()).collect::<Vec<_>>();
        let one = |one: &skerry_client::cluster::Reassignment| {
            json!({
                "topic": &*one.partition.topic, "partition": one.partition.partition.get(),
                "replicas": numbers(&one.replicas), "adding": numbers(&one.adding),
                "removing": numbers(&one.removing),
            })
        };
        moves.iter().map(one).collect()
    };
    print(connect.format, text, json)
}

/// The partitions that are meant.
async fn partitions(client: &Client, what: &Partitions) -> Result<Vec<TopicPartition>, Failure> {
    let metadata = client.metadata(Some(&[&what.topic]), false).await?;
    let Some(topic) = metadata.topics.first() else {
        return Err(no_such_topic(client, &what.topic).await);
    };
    let all: Vec<i32> = topic.partitions.iter().map(|partition| partition.index).collect();
    if let Some(unknown) = what.partitions.iter().find(|index| !all.contains(index)) {
        let words = format!("topic {} has no partition {unknown}", what.topic);
        return Err(Failure::new(words).hint(format!("it has {} partitions", all.len())));
    }
    let wanted = if what.partitions.is_empty() {
        all
    } else {
        what.partitions.clone()
    };
    Ok(wanted
        .into_iter()
        .map(|index| TopicPartition::new(&*what.topic, index))
        .collect())
}

async fn reassign(arguments: MoveArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    let partitions = partitions(&client, &arguments.what).await?;
    let factor = arguments.replication_factor.unwrap_or(arguments.to.len());
    if factor == 0 || factor > arguments.to.len() {
        let words = format!(
            "--replication-factor {factor}: --to names {} brokers",
            arguments.to.len()
        );
        return Err(Failure::new(words));
    }
    // One partition goes exactly where it was sent; of many, each broker is preferred by its part.
    let turn = |place: usize| if partitions.len() == 1 { 0 } else { place };
    let targets: Vec<_> = partitions
        .iter()
        .enumerate()
        .map(|(place, partition)| {
            let target = (0..factor).map(|n| BrokerId(arguments.to[(turn(place) + n) % arguments.to.len()]));
            (partition.clone(), Some(target.collect()))
        })
        .collect();
    let answers = client.reassign(&targets).await?;
    if arguments.wait && answers.iter().all(|(_, answer)| answer.is_ok()) {
        while client
            .reassignments()
            .await?
            .iter()
            .any(|one| partitions.contains(&one.partition))
        {
            client.env().clock.sleep(LOOK).await;
        }
        return told(&arguments.connect, answers, "moved");
    }
    told(&arguments.connect, answers, "is on its way")
}

async fn cancel(arguments: &CancelArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    let moving = client.reassignments().await?;
    let partitions: Vec<_> = partitions(&client, &arguments.what)
        .await?
        .into_iter()
        // Of a whole topic, what does not move needs no cancelling.
        .filter(|partition| {
            !arguments.what.partitions.is_empty() || moving.iter().any(|one| one.partition == *partition)
        })
        .map(|partition| (partition, None))
        .collect();
    if partitions.is_empty() {
        return Err(Failure::new(format!(
            "no partition of {} is being moved",
            arguments.what.topic
        )));
    }
    let answers = client.reassign(&partitions).await?;
    told(&arguments.connect, answers, "stays where it was")
}

pub(super) async fn elect(arguments: &ElectArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    let partitions = match &arguments.topic {
        None => None,
        Some(topic) => {
            let what = Partitions {
                topic: topic.clone(),
                partitions: arguments.partitions.clone(),
            };
            Some(partitions(&client, &what).await?)
        }
    };
    let kind = if arguments.unclean {
        ElectionKind::Unclean
    } else {
        ElectionKind::Preferred
    };
    let mut answers = client.elect(kind, partitions.as_deref()).await?;
    // What is well already needs no election, and is no failure where nobody named it.
    if arguments.partitions.is_empty() {
        answers.retain(|(_, answer)| {
            !matches!(answer, Err(error) if error.code() == Some(ResponseError::ElectionNotNeeded))
        });
    }
    if answers.is_empty() {
        return print(
            arguments.connect.format,
            || "no election was needed\n".to_owned(),
            || json!([]),
        );
    }
    told(&arguments.connect, answers, "has its leader")
}

/// Prints what became of each partition. A failure where one of them failed.
fn told(connect: &Connect, answers: Vec<PartitionAnswer>, done: &str) -> Result<(), Failure> {
    let lines: Vec<(TopicPartition, Option<String>)> = answers
        .into_iter()
        .map(|(partition, answer)| (partition, answer.err().map(|error| error.to_string())))
        .collect();
    let text = || {
        lines
            .iter()
            .map(|(partition, error)| match error {
                None => format!("{partition}: {done}\n"),
                Some(error) => format!("{partition}: {error}\n"),
            })
            .collect()
    };
    let json = || {
        lines
            .iter()
            .map(|(partition, error)| {
                json!({ "topic": &*partition.topic, "partition": partition.partition.get(), "error": error })
            })
            .collect()
    };
    print(connect.format, text, json)?;
    match lines.iter().filter(|(_, error)| error.is_some()).count() {
        0 => Ok(()),
        failed => Err(Failure::new(format!(
            "{failed} of {} partitions were refused",
            lines.len()
        ))),
    }
}
