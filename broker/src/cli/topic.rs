//! `skerry topic`.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use serde_json::json;
use skerry_client::admin::{ConfigChange, ConfigEntry, ConfigTarget, NewTopic};
use skerry_client::{Client, ClusterMetadata, OffsetSpec, PartitionMetadata, ResponseError, TopicMetadata};
use skerry_types::{BrokerId, Offset, TopicPartition};

use super::connect::{Connect, about_topic, error_name, no_such_topic};
use super::failure::Failure;
use super::output::{Table, print};

/// What can be done with topics.
#[derive(Debug, Subcommand)]
pub(super) enum TopicCommand {
    /// Make a topic
    #[command(after_help = "Examples:\n  skerry topic create orders --partitions 6\n  \
        skerry topic create prices --config cleanup.policy=compact --config min.insync.replicas=2")]
    Create(CreateArgs),
    /// List topics
    List(ListArgs),
    /// Show a topic's partitions, where they are, and what it overrides
    Describe(DescribeArgs),
    /// Change a topic's settings, or give it more partitions
    #[command(
        after_help = "Examples:\n  skerry topic alter orders --config retention.ms=86400000\n  \
        skerry topic alter orders --reset-config retention.ms\n  skerry topic alter orders --partitions 12"
    )]
    Alter(AlterArgs),
    /// Delete topics with all their records
    Delete(DeleteArgs),
    /// Delete the first records of a partition
    #[command(
        after_help = "Examples:\n  skerry topic delete-records orders --partition 0 --before 1200\n  \
        skerry topic delete-records __consumer_offsets --partition 7 --before 57    where the log names it: the last copy \
        is damaged there"
    )]
    DeleteRecords(DeleteRecordsArgs),
}

#[derive(Args, Debug)]
pub(super) struct DeleteRecordsArgs {
    /// The topic
    name: String,
    /// The partition's number
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: i32,
    /// The first offset that stays
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    before: i64,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Args, Debug)]
pub(super) struct CreateArgs {
    /// The topic's name
    name: String,
    /// How many partitions [default: the broker's num.partitions]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// How many replicas of each [default: the broker's default.replication.factor]
    #[arg(long, short, value_name = "R", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A setting; may be repeated
    #[arg(long = "config", short, value_name = "KEY=VALUE", value_parser = key_value)]
    configs: Vec<(String, String)>,
    /// No error where the topic exists already
    #[arg(long)]
    if_not_exists: bool,
    /// Only say whether it could be made
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Args, Debug)]
pub(super) struct ListArgs {
    /// Also those that the brokers keep for themselves
    #[arg(long)]
    internal: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Args, Debug)]
pub(super) struct DescribeArgs {
    /// The topic's name
    name: String,
    /// All settings, not only those that differ from the default
    #[arg(long)]
    all_configs: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Args, Debug)]
pub(super) struct AlterArgs {
    /// The topic's name
    name: String,
    /// Set a setting; may be repeated
    #[arg(long = "config", short, value_name = "KEY=VALUE", value_parser = key_value)]
    configs: Vec<(String, String)>,
    /// Let a setting go back to its default; may be repeated
    #[arg(long = "reset-config", value_name = "KEY")]
    resets: Vec<String>,
    /// Add to a setting that is a list; may be repeated
    #[arg(long = "append-config", value_name = "KEY=VALUE", value_parser = key_value)]
    appends: Vec<(String, String)>,
    /// Take from a setting that is a list; may be repeated
    #[arg(long = "subtract-config", value_name = "KEY=VALUE", value_parser = key_value)]
    subtracts: Vec<(String, String)>,
    /// How many partitions it has afterwards
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    /// The topics' names
    #[arg(required = true)]
    names: Vec<String>,
    /// No error where there is no such topic
    #[arg(long)]
    if_exists: bool,
    #[command(flatten)]
    connect: Connect,
}

/// `key=value`.
pub(super) fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("KEY=VALUE is expected")?;
    Ok((key.trim().to_owned(), value.to_owned()))
}

pub(super) async fn run(command: TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(arguments) => create(arguments).await,
        TopicCommand::List(arguments) => list(&arguments).await,
        TopicCommand::Describe(arguments) => describe(&arguments).await,
        TopicCommand::Alter(arguments) => alter(arguments).await,
        TopicCommand::Delete(arguments) => delete(&arguments).await,
        TopicCommand::DeleteRecords(arguments) => delete_records(&arguments).await,
    }
}

async fn delete_records(arguments: &DeleteRecordsArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    let partition = TopicPartition::new(&*arguments.name, arguments.partition);
    let before = Some(Offset(arguments.before));
    let start = client.delete_records(&partition, before).await?;
    print(
        arguments.connect.format,
        || format!("{partition} begins at offset {start}\n"),
        || json!({ "partition": partition.to_string(), "first_offset": start.get() }),
    )
}

async fn create(arguments: CreateArgs) -> Result<(), Failure> {
    let client = arguments.connect.client();
    let topic = NewTopic {
        name: arguments.name.clone(),
        partitions: arguments.partitions,
        replication: arguments.replication_factor,
        configs: arguments.configs,
    };
    let outcome = match client.create_topic(&topic, arguments.dry_run).await {
        Ok(()) if arguments.dry_run => "can be made",
        Ok(()) => "made",
        Err(error) if arguments.if_not_exists && error.code() == Some(ResponseError::TopicAlreadyExists) => {
            "exists"
        }
        Err(error) => return Err(error.into()),
    };
    let text = || format!("topic {}: {outcome}\n", arguments.name);
    print(
        arguments.connect.format,
        text,
        || json!({ "topic": arguments.name, "outcome": outcome }),
    )
}

async fn list(arguments: &ListArgs) -> Result<(), Failure> {
    let metadata = arguments.connect.client().metadata(None, false).await?;
    let topics: Vec<&TopicMetadata> = metadata
        .topics
        .iter()
        .filter(|topic| arguments.internal || !topic.internal)
        .collect();
    let mut table = Table::new(&["TOPIC", "PARTITIONS", "REPLICAS", "HEALTH"]);
    for topic in &topics {
        let replicas = topic
            .partitions
            .first()
            .map_or(0, |partition| partition.replicas.len());
        table.row([
            topic.name.to_string(),
            topic.partitions.len().to_string(),
            replicas.to_string(),
            health(&topic.partitions),
        ]);
    }
    let text = || {
        if table.is_empty() {
            return "no topics yet: `skerry topic create NAME` makes one\n".to_owned();
        }
        table.to_string()
    };
    let json = || {
        let topics = topics.iter().map(|topic| {
            json!({
                "name": &*topic.name, "id": topic.id.to_string(), "internal": topic.internal,
                "partitions": topic.partitions.len(),
                "replicas": topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
                "health": health(&topic.partitions),
            })
        });
        topics.collect()
    };
    print(arguments.connect.format, text, json)
}

/// `ok`, or what is wrong with how many partitions.
fn health(partitions: &[PartitionMetadata]) -> String {
    let leaderless = partitions
        .iter()
        .filter(|partition| partition.leader.is_none())
        .count();
    let short = partitions
        .iter()
        .filter(|partition| partition.in_sync.len() < partition.replicas.len())
        .count();
    match (leaderless, short) {
        (0, 0) => "ok".to_owned(),
        (0, short) => format!("{short} not fully in sync"),
        (leaderless, _) => format!("{leaderless} without a leader"),
    }
}

fn ids(brokers: &[BrokerId]) -> String {
    brokers
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(",")
}

async fn the_topic(client: &Client, name: &str) -> Result<TopicMetadata, Failure> {
    let ClusterMetadata {
        mut topics, errors, ..
    } = client.metadata(Some(&[name]), false).await?;
    match (topics.pop(), errors.first()) {
        (Some(topic), _) => Ok(topic),
        (None, Some((_, code))) if *code != ResponseError::UnknownTopicOrPartition.code() => Err(
            Failure::new(format!("topic {name}: {}", error_name(*code).unwrap_or_default())),
        ),
        (None, _) => Err(no_such_topic(client, name).await),
    }
}

async fn describe(arguments: &DescribeArgs) -> Result<(), Failure> {
    let client = arguments.connect.client();
    let topic = the_topic(&client, &arguments.name).await?;
    let mut partitions = Vec::new();
    for partition in &topic.partitions {
        let place = TopicPartition::new(topic.name.clone(), partition.index);
        // A partition without a leader has nobody to ask.
        let start = client.list_offset(&place, OffsetSpec::Earliest, false).await.ok();
        let end = client.list_offset(&place, OffsetSpec::Latest, false).await.ok();
        let offset = |found: Option<skerry_client::FoundOffset>| found?.offset.map(|offset| offset.get());
        partitions.push((partition, offset(start), offset(end)));
    }
    let eligible = client.eligible_replicas(&topic.name).await?;
    let configs = client
        .describe_configs(&ConfigTarget::Topic(topic.name.to_string()), false)
        .await?;
    let configs: Vec<&ConfigEntry> = configs
        .iter()
        .filter(|entry| arguments.all_configs || entry.source == 1)
        .collect();
    let text = || {
        let mut text = format!(
            "topic {}   id {}   {} partitions   {}\n\n",
            topic.name,
            topic.id,
            topic.partitions.len(),
            health(&topic.partitions)
        );
        let mut table = Table::new(&[
            "PARTITION",
            "LEADER",
            "EPOCH",
            "REPLICAS",
            "IN SYNC",
            "ELIGIBLE",
            "START",
            "END",
        ]);
        let number = |offset: Option<i64>| offset.map_or("-".to_owned(), |offset| offset.to_string());
        for (partition, start, end) in &partitions {
            table.row([
                partition.index.to_string(),
                partition
                    .leader
                    .map_or("none".to_owned(), |leader| leader.to_string()),
                partition.leader_epoch.to_string(),
                ids(&partition.replicas),
                ids(&partition.in_sync),
                eligible
                    .get(&partition.index)
                    .map_or("-".to_owned(), |brokers| ids(brokers)),
                number(*start),
                number(*end),
            ]);
        }
        text.push_str(&table.to_string());
        for entry in &configs {
            let _ = writeln!(
                text,
                "{}{} = {}",
                first_blank(&configs, entry),
                entry.name,
                shown(entry)
            );
        }
        text
    };
    let json = || {
        let partitions: Vec<_> = partitions
            .iter()
            .map(|(partition, start, end)| {
                json!({
                    "partition": partition.index, "leader": partition.leader.map(BrokerId::get),
                    "leader_epoch": partition.leader_epoch.get(),
                    "replicas": partition.replicas.iter().map(|id| id.get()).collect::<Vec<_>>(),
                    "in_sync": partition.in_sync.iter().map(|id| id.get()).collect::<Vec<_>>(),
                    "eligible": eligible
                        .get(&partition.index)
                        .map_or(Vec::new(), |brokers| brokers.iter().map(|id| id.get()).collect()),
                    "start": start, "end": end,
                })
            })
            .collect();
        let configs: serde_json::Map<String, serde_json::Value> = configs
            .iter()
            .map(|entry| (entry.name.clone(), json!(entry.value)))
            .collect();
        json!({
            "name": &*topic.name, "id": topic.id.to_string(), "internal": topic.internal,
            "partitions": partitions, "configs": configs,
        })
    };
    print(arguments.connect.format, text, json)
}

/// A blank line before the first setting.
fn first_blank(configs: &[&ConfigEntry], entry: &ConfigEntry) -> &'static str {
    if configs.first().is_some_and(|first| std::ptr::eq(*first, entry)) {
        "\n"
    } else {
        ""
    }
}

fn shown(entry: &ConfigEntry) -> &str {
    if entry.sensitive {
        "(hidden)"
    } else {
        entry.value.as_deref().unwrap_or("(none)")
    }
}

async fn alter(arguments: AlterArgs) -> Result<(), Failure> {
    let client = arguments.connect.client();
    let mut changes: Vec<(String, ConfigChange)> = Vec::new();
    changes.extend(
        arguments
            .configs
            .into_iter()
            .map(|(key, value)| (key, ConfigChange::Set(value))),
    );
    changes.extend(
        arguments
            .resets
            .into_iter()
            .map(|key| (key, ConfigChange::Delete)),
    );
    changes.extend(
        arguments
            .appends
            .into_iter()
            .map(|(key, value)| (key, ConfigChange::Append(value))),
    );
    changes.extend(
        arguments
            .subtracts
            .into_iter()
            .map(|(key, value)| (key, ConfigChange::Subtract(value))),
    );
    if changes.is_empty() && arguments.partitions.is_none() {
        return Err(Failure::new("nothing to change")
            .hint("--config KEY=VALUE, --reset-config KEY or --partitions N says what to change"));
    }
    let name = arguments.name;
    the_topic(&client, &name).await?;
    if !changes.is_empty() {
        client
            .alter_configs(&ConfigTarget::Topic(name.clone()), &changes)
            .await?;
    }
    if let Some(count) = arguments.partitions {
        client.create_partitions(&name, count).await?;
    }
    print(
        arguments.connect.format,
        || format!("topic {name}: changed\n"),
        || json!({ "topic": name, "outcome": "changed" }),
    )
}

async fn delete(arguments: &DeleteArgs) -> Result<(), Failure> {
    let client = arguments.connect.client();
    let mut outcomes = Vec::new();
    let mut failed = None;
    for name in &arguments.names {
        match client.delete_topic(name).await {
            Ok(()) => outcomes.push((name, "deleted")),
            Err(error)
                if arguments.if_exists && error.code() == Some(ResponseError::UnknownTopicOrPartition) =>
            {
                outcomes.push((name, "did not exist"));
            }
            Err(error) => {
                failed = Some(about_topic(&client, name, error).await);
                break;
            }
        }
    }
    // What was deleted before the failure is told all the same.
    let text = || {
        outcomes
            .iter()
            .map(|(name, outcome)| format!("topic {name}: {outcome}\n"))
            .collect()
    };
    let json = || {
        outcomes
            .iter()
            .map(|(name, outcome)| json!({ "topic": name, "outcome": outcome }))
            .collect()
    };
    print(arguments.connect.format, text, json)?;
    failed.map_or(Ok(()), Err)
}
