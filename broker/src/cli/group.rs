//! `skerry group`.

use std::collections::{BTreeMap, BTreeSet};

use clap::{Args, Subcommand};
use serde_json::json;
use skerry_client::admin::GroupDescription;
use skerry_client::{Client, Committed, Membership, OffsetSpec, decode_assignment};
use skerry_types::{Offset, TopicPartition};

use super::connect::{Connect, about_topic, error_name};
use super::consume::{Start, parse_start};
use super::failure::Failure;
use super::output::{Table, print};

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub(super) enum GroupCommand {
    /// List groups
    List(Connect),
    /// Show a group's members, its offsets, and how far behind it is
    Describe(DescribeArgs),
    /// Move a group's offsets; only shows what would change without --execute
    #[command(
        after_help = "Examples:\n  skerry group reset billing --topic orders --to earliest --execute\n  \
        skerry group reset billing --topic orders:2 --to 1000\n  \
        skerry group reset billing --to @1700000000000 --execute      to a time, everywhere"
    )]
    Reset(ResetArgs),
    /// Delete groups with their offsets
    Delete(DeleteArgs),
}

#[derive(Args, Debug)]
pub(super) struct DescribeArgs {
    /// The group
    group: String,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Args, Debug)]
pub(super) struct ResetArgs {
    /// The group
    group: String,
    /// A topic, or TOPIC:PARTITION; may be repeated [default: all that the group has offsets in]
    #[arg(long = "topic", short, value_name = "TOPIC[:N]")]
    topics: Vec<String>,
    /// An offset, `earliest`, `latest`, or a time (@MILLISECONDS)
    #[arg(long, value_name = "WHERE", value_parser = parse_start)]
    to: Start,
    /// Do it
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Args, Debug)]
pub(super) struct DeleteArgs {
    /// The groups
    #[arg(required = true)]
    groups: Vec<String>,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(command: GroupCommand) -> Result<(), Failure> {
    match command {
        GroupCommand::List(connect) => list(&connect).await,
        GroupCommand::Describe(arguments) => describe(&arguments).await,
        GroupCommand::Reset(arguments) => reset(&arguments).await,
        GroupCommand::Delete(arguments) => delete(&arguments).await,
    }
}

async fn list(connect: &Connect) -> Result<(), Failure> {
    let groups = connect.client().list_groups().await?;
    let mut table = Table::new(&["GROUP", "STATE", "TYPE", "PROTOCOL"]);
    for group in &groups {
        let or_dash = |text: &str| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text.to_owned()
            }
        };
        table.row([
            group.name.clone(),
            or_dash(&group.state),
            or_dash(&group.kind),
            or_dash(&group.protocol_type),
        ]);
    }
    let text = || {
        if table.is_empty() {
            "no groups yet\n".to_owned()
        } else {
            table.to_string()
        }
    };
    let json = || {
        let groups = groups.iter().map(|group| {
            json!({ "name": group.name, "state": group.state, "type": group.kind, "protocol": group.protocol_type })
        });
        groups.collect()
    };
    print(connect.format, text, json)
}

/// One partition of a group.
struct Line {
    place: TopicPartition,
    committed: Option<Offset>,
    end: Option<Offset>,
    member: Option<String>,
}

impl Line {
    fn lag(&self) -> Option<i64> {
        Some((self.end?.get() - self.committed?.get()).max(0))
    }
}

async fn describe(arguments: &DescribeArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    let name = &arguments.group;
    let group = existing(&client, name).await?;
    let lines = lines(&client, &group).await?;
    let number = |value: Option<i64>| value.map_or("-".to_owned(), |value| value.to_string());
    let text = || {
        let protocol = if group.protocol.is_empty() {
            String::new()
        } else {
            format!("   by {}", group.protocol)
        };
        let mut text = format!(
            "group {name}   {}   {} members{protocol}   coordinator {}\n",
            group.state,
            group.members.len(),
            group.coordinator
        );
        if !lines.is_empty() {
            let mut table = Table::new(&["TOPIC", "PARTITION", "COMMITTED", "END", "LAG", "MEMBER"]);
            for line in &lines {
                table.row([
                    line.place.topic.to_string(),
                    line.place.partition.to_string(),
                    number(line.committed.map(Offset::get)),
                    number(line.end.map(Offset::get)),
                    number(line.lag()),
                    line.member.clone().unwrap_or("-".to_owned()),
                ]);
            }
            text.push_str(&format!("\n{table}"));
        }
        if !group.members.is_empty() {
            let mut table = Table::new(&["MEMBER", "CLIENT", "HOST", "INSTANCE"]);
            for member in &group.members {
                table.row([
                    member.id.clone(),
                    member.client_id.clone(),
                    member.host.clone(),
                    member.instance_id.clone().unwrap_or("-".to_owned()),
                ]);
            }
            text.push_str(&format!("\n{table}"));
        }
        text
    };
    let json = || {
        let partitions: Vec<_> = lines
            .iter()
            .map(|line| {
                json!({
                    "topic": &*line.place.topic, "partition": line.place.partition.get(),
                    "committed": line.committed.map(Offset::get), "end": line.end.map(Offset::get),
                    "lag": line.lag(), "member": line.member,
                })
            })
            .collect();
        let members: Vec<_> = group.members.iter().map(|member| json!({
            "id": member.id, "client_id": member.client_id, "host": member.host, "instance_id": member.instance_id,
        })).collect();
        json!({
            "name": name, "state": group.state, "protocol_type": group.protocol_type, "protocol": group.protocol,
            "coordinator": group.coordinator, "partitions": partitions, "members": members,
        })
    };
    print(arguments.connect.format, text, json)
}

async fn existing(client: &Client, name: &str) -> Result<GroupDescription, Failure> {
    let group = client.retry(|| client.describe_group(name)).await?;
    if group.state != "Dead" {
        return Ok(group);
    }
    let failure = Failure::new(format!("there is no group {name}"));
    let Ok(groups) = client.list_groups().await else {
        return Err(failure);
    };
    Err(
        match crate::config::nearest(name, groups.iter().map(|group| group.name.as_str())) {
            Some(near) => failure.hint(format!("did you mean {near}?")),
            None => failure.hint("`skerry group list` lists the groups"),
        },
    )
}

async fn lines(client: &Client, group: &GroupDescription) -> Result<Vec<Line>, Failure> {
    let committed = client.retry(|| client.committed(&group.name, None)).await?;
    let mut owners: BTreeMap<TopicPartition, String> = BTreeMap::new();
    if group.protocol_type == "consumer" {
        for member in &group.members {
            for (topic, partitions) in decode_assignment(member.assignment.clone()).unwrap_or_default() {
                for partition in partitions {
                    owners.insert(TopicPartition::new(topic.clone(), partition), member.id.clone());
                }
            }
        }
    }
    let places: BTreeSet<&TopicPartition> = committed.keys().chain(owners.keys()).collect();
    let mut lines = Vec::new();
    for place in places {
        // A deleted topic has no end; its offsets may be there for a while.
        let end = client
            .list_offset(place, OffsetSpec::Latest, false)
            .await
            .ok()
            .and_then(|found| found.offset);
        lines.push(Line {
            place: place.clone(),
            committed: committed.get(place).map(|committed| committed.offset),
            end,
            member: owners.get(place).cloned(),
        });
    }
    Ok(lines)
}

async fn reset(arguments: &ResetArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    let name = &arguments.group;
    let group = client.retry(|| client.describe_group(name)).await?;
    if !matches!(group.state.as_str(), "Empty" | "Dead") {
        return Err(Failure::new(format!(
            "group {name} has {} members ({})",
            group.members.len(),
            group.state
        ))
        .hint("stop them first: a running member would overwrite the new offsets"));
    }
    let committed = client.retry(|| client.committed(name, None)).await?;
    let places = reset_places(&client, arguments, committed.keys().cloned().collect()).await?;
    if places.is_empty() {
        return Err(Failure::new(format!("group {name} has no offsets yet"))
            .hint("--topic TOPIC says where it is to get some"));
    }
    let mut plan: BTreeMap<TopicPartition, Committed> = BTreeMap::new();
    for place in places {
        let target = target(&client, &place, arguments.to).await?;
        plan.insert(place, Committed::at(target));
    }
    if arguments.execute {
        let results = client.commit(name, &Membership::outside(), &plan).await?;
        if let Some((place, code)) = results.iter().find(|(_, code)| **code != 0) {
            return Err(Failure::new(format!(
                "{place}: {}",
                error_name(*code).unwrap_or_default()
            )));
        }
    }
    let before = |place: &TopicPartition| committed.get(place).map(|committed| committed.offset.get());
    let text = || {
        let mut table = Table::new(&["TOPIC", "PARTITION", "BEFORE", "AFTER"]);
        for (place, after) in &plan {
            table.row([
                place.topic.to_string(),
                place.partition.to_string(),
                before(place).map_or("-".to_owned(), |offset| offset.to_string()),
                after.offset.to_string(),
            ]);
        }
        let note = if arguments.execute {
            ""
        } else {
            "\nnothing was changed: --execute does it\n"
        };
        format!("{table}{note}")
    };
    let json = || {
        let changes: Vec<_> = plan
            .iter()
            .map(|(place, after)| {
                json!({
                    "topic": &*place.topic, "partition": place.partition.get(),
                    "before": before(place), "after": after.offset.get(),
                })
            })
            .collect();
        json!({ "group": name, "executed": arguments.execute, "partitions": changes })
    };
    print(arguments.connect.format, text, json)
}

async fn reset_places(
    client: &Client,
    arguments: &ResetArgs,
    known: Vec<TopicPartition>,
) -> Result<Vec<TopicPartition>, Failure> {
    if arguments.topics.is_empty() {
        return Ok(known);
    }
    let mut places = Vec::new();
    for asked in &arguments.topics {
        // A topic's name has no colon.
        let (topic, only) = match asked.split_once(':') {
            None => (asked.as_str(), None),
            Some((topic, index)) => {
                let index = index
                    .parse::<i32>()
                    .map_err(|_| Failure::new(format!("{asked}: TOPIC:PARTITION is expected")))?;
                (topic, Some(index))
            }
        };
        let metadata = match client.topic(topic, false).await {
            Ok(metadata) => metadata,
            Err(error) => return Err(about_topic(client, topic, error).await),
        };
        let before = places.len();
        places.extend(
            metadata
                .partitions
                .iter()
                .filter(|partition| only.is_none_or(|only| only == partition.index))
                .map(|partition| TopicPartition::new(topic, partition.index)),
        );
        if places.len() == before {
            return Err(Failure::new(format!(
                "topic {topic} has {} partitions, numbered from 0",
                metadata.partitions.len()
            )));
        }
    }
    Ok(places)
}

/// An offset that the partition has: what lies outside is moved to the nearer end.
async fn target(client: &Client, place: &TopicPartition, to: Start) -> Result<Offset, Failure> {
    let find = async |spec| {
        client
            .retry(|| client.list_offset(place, spec, false))
            .await
            .map(|found| found.offset)
    };
    let latest = find(OffsetSpec::Latest).await?.unwrap_or(Offset::ZERO);
    match to {
        Start::At(offset) => {
            let earliest = find(OffsetSpec::Earliest).await?.unwrap_or(Offset::ZERO);
            Ok(offset.clamp(earliest, latest))
        }
        // No record that new: go on with the next one.
        Start::Find(spec) => Ok(find(spec).await?.unwrap_or(latest)),
    }
}

async fn delete(arguments: &DeleteArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    for group in &arguments.groups {
        client.retry(|| client.delete_group(group)).await?;
    }
    let text = || {
        arguments
            .groups
            .iter()
            .map(|group| format!("group {group}: deleted\n"))
            .collect()
    };
    print(
        arguments.connect.format,
        text,
        || json!({ "deleted": arguments.groups }),
    )
}
