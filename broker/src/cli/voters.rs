//! `skerry cluster voters`, and the way out when their majority is lost for good.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use skerry_client::cluster::{QuorumDescription, QuorumMember};
use skerry_client::{Client, ResponseError};
use skerry_env::Env;
use skerry_metadata::Survivor;
use skerry_types::BrokerId;

use super::connect::Connect;
use super::failure::Failure;
use super::output::{Table, print, print_line};
use crate::data_dir::METADATA_DIR;

/// Who decides about the metadata.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct VotersArgs {
    #[command(subcommand)]
    change: Option<VotersCommand>,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Debug, Subcommand)]
enum VotersCommand {
    /// Let a node vote that has joined the cluster
    #[command(after_help = "Example, replacing node 3 whose machine is lost by node 4:\n  \
        skerry start --node-id 4 …            on the new machine; it joins by itself\n  \
        skerry cluster voters add 4\n  skerry cluster voters remove 3\n\nExample, node 3 has lost its disk:\n  \
        skerry cluster voters remove 3        the vote of the lost disk\n  \
        skerry start --node-id 3 …            on the empty disk; it joins as a learner\n  \
        skerry cluster voters add 3           refused until it answers")]
    Add(VoterArgs),
    /// Take a node's vote away, whether it lives or not
    Remove(VoterArgs),
}

#[derive(Args, Debug)]
struct VoterArgs {
    /// The node's number
    #[arg(value_name = "NODE")]
    node: i32,
    #[command(flatten)]
    connect: Connect,
}

pub(super) async fn run(arguments: VotersArgs) -> Result<(), Failure> {
    match arguments.change {
        None => list(&arguments.connect).await,
        Some(VotersCommand::Add(voter)) => add(&voter).await,
        Some(VotersCommand::Remove(voter)) => remove(&voter).await,
    }
}

/// What a member is, in one word.
pub(super) fn role(quorum: &QuorumDescription, id: BrokerId) -> &'static str {
    if quorum.leader == Some(id) {
        "leader"
    } else if quorum.voters.iter().any(|member| member.id == id) {
        "voter"
    } else if quorum.observers.iter().any(|member| member.id == id) {
        "learner"
    } else {
        "-"
    }
}

/// Entries of the log that a member does not have yet.
pub(super) fn behind(quorum: &QuorumDescription, member: &QuorumMember) -> Option<i64> {
    let all = quorum.voters.iter().map(|voter| voter.log_end).max()?;
    (member.log_end >= 0).then(|| all - member.log_end)
}

async fn list(connect: &Connect) -> Result<(), Failure> {
    let quorum = connect.connected().await?.describe_quorum().await?;
    let members = || quorum.voters.iter().chain(&quorum.observers);
    let text = || {
        let mut table = Table::new(&["NODE", "ROLE", "ADDRESS", "LOG END", "BEHIND", "DIRECTORY"]);
        let number = |count: Option<i64>| count.map_or("?".to_owned(), |count| count.to_string());
        for member in members() {
            table.row([
                member.id.to_string(),
                role(&quorum, member.id).to_owned(),
                member.addr.clone().unwrap_or("-".to_owned()),
                number(Some(member.log_end).filter(|end| *end >= 0)),
                number(behind(&quorum, member)),
                member.directory.to_string(),
            ]);
        }
        format!(
            "term {}, committed up to {}\n\n{table}",
            quorum.term, quorum.high_watermark
        )
    };
    let json = || {
        let members: Vec<_> = members()
            .map(|member| {
                json!({
                    "id": member.id.get(), "role": role(&quorum, member.id), "address": member.addr,
                    "log_end": member.log_end, "behind": behind(&quorum, member),
                    "directory": member.directory.to_string(),
                })
            })
            .collect();
        json!({
            "leader": quorum.leader.map(BrokerId::get), "term": quorum.term,
            "high_watermark": quorum.high_watermark, "members": members,
        })
    };
    print(connect.format, text, json)
}

/// The member that is meant.
async fn member(client: &Client, id: BrokerId) -> Result<QuorumMember, Failure> {
    let quorum = client.describe_quorum().await?;
    let found = quorum
        .voters
        .iter()
        .chain(&quorum.observers)
        .find(|member| member.id == id);
    found.cloned().ok_or_else(|| {
        Failure::new(format!("node {id} is not a member of the quorum"))
            .hint("start it with the --voters of the others: it joins by itself")
            .hint("`skerry cluster voters` lists the members")
    })
}

async fn add(arguments: &VoterArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    let id = BrokerId(arguments.node);
    let member = member(&client, id).await?;
    client.add_voter(id, member.directory).await?;
    done(&arguments.connect, id, "votes")
}

async fn remove(arguments: &VoterArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    let id = BrokerId(arguments.node);
    let member = member(&client, id).await?;
    match client.remove_voter(id, member.directory).await {
        Err(error) if error.code() == Some(ResponseError::VoterNotFound) => {
            return Err(Failure::from(error).hint("`skerry cluster voters` lists the members"));
        }
        removed => removed?,
    }
    done(&arguments.connect, id, "does not vote any more")
}

fn done(connect: &Connect, id: BrokerId, what: &str) -> Result<(), Failure> {
    print(
        connect.format,
        || format!("node {id} {what}\n"),
        || json!({ "node": id.get(), "outcome": what }),
    )
}

/// The arguments of `cluster recover`.
#[derive(Args, Debug)]
#[command(after_help = "\
Only when the majority of the voters is lost for good: their disks are gone, not only their power; or where the only voter
says that its metadata is damaged: then on that one, and the others are its learners, if there are any. In this order:
  1. stop every node that is left; of the voters among them choose the one whose log ends last (each prints where it
     ends), and recover on that one alone. What the lost voters decided and it never heard of is gone
  2. move the folder `metadata` of the others away, and make an empty one in its place: they begin with empty metadata,
     and keep their records. (A node does not start without the folder, which may be a mistake.)
  3. start all of these, then `skerry cluster elect --unclean --all-topics` where partitions have no leader: before any
     node comes with an empty disk, which could else be elected
  4. start the nodes that come with empty disks, and give their votes back: `skerry cluster voters add`
Folders of partitions that the recovered metadata does not know are set aside (`-stray`), and nothing removes them.

Example:
  skerry cluster recover --data-dir /var/lib/skerry            says what may be lost, changes nothing
  skerry cluster recover --data-dir /var/lib/skerry --yes")]
pub(super) struct RecoverArgs {
    /// The directory of the node that is left, which must be stopped
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Do it
    #[arg(long)]
    yes: bool,
}

pub(super) fn recover(arguments: &RecoverArgs) -> Result<(), Failure> {
    let failed = |error: skerry_metadata::RecoverError| {
        Failure::new(error.to_string()).hint("nothing on disk was changed")
    };
    let disk = skerry_env::os_disk();
    // The lock of a node that runs.
    let _lock = disk.lock_dir(&arguments.data_dir).map_err(|error| {
        Failure::new(format!("cannot lock {}: {error}", arguments.data_dir.display()))
            .hint("the node must be stopped first")
    })?;
    let survivor = Survivor::open(&*disk, &arguments.data_dir.join(METADATA_DIR)).map_err(failed)?;
    print_line(&survivor.to_string())?;
    if !arguments.yes {
        return print_line("\nnothing was changed; --yes makes this node the only voter");
    }
    let note = survivor.recover(Env::os().clock.wall()).map_err(|error| {
        Failure::new(error.to_string())
            .hint("the same command again, when the cause is gone: no node starts from half of it")
    })?;
    print_line(&format!("\ndone, and written into its log:\n{note}"))?;
    print_line(
        "start the node: it decides alone until other voters are added. Partitions whose in-sync replicas were all \
         elsewhere have no leader (`skerry cluster health` lists them); to go on from the copies that are left, before \
         nodes with empty disks are started:\n  \
         skerry cluster elect --unclean --all-topics",
    )
}
