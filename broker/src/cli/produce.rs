//! `skerry produce`: lines of stdin become records.

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal as _;
use std::time::Duration;

use bytes::Bytes;
use clap::{Args, ValueEnum};
use skerry_client::{
    Acks, Client, ClientError, Compression, Delivery, Header, Outcome, ProduceError, Producer,
    ProducerOptions, Record, ResponseError, partition_of,
};
use skerry_types::{Instant, TopicPartition, WallMs};

use super::connect::{Connect, no_such_topic};
use super::failure::Failure;
use super::lines::Lines;
use super::output::thousands;

/// Before its batch is closed. Brokers refuse more than about 1 MiB by default.
const BATCH_BYTES: usize = 256 << 10;
/// Batches without their outcome; a further one waits.
const OUTSTANDING_MAX: usize = 64;
/// How long to wait for a topic that is being made.
const CREATION_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two lines of progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

const HELP: &str = "\
Each line of stdin is a record; it is on its way as soon as it is read. The command ends when stdin ends and every
record is acknowledged; with --acks all (the default) each is written once, in order, whatever happens on the way.

Examples:
  echo hello | skerry produce greetings
  skerry produce orders --key-separator : < orders.txt          key:value on each line
  journalctl -f -o json | skerry produce journal --compression zstd";

/// The arguments of `produce`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct ProduceArgs {
    /// The topic; made if it is missing and the broker allows it
    topic: String,
    /// What ends the key of a line; without it lines have no key
    #[arg(long, short = 'k', value_name = "TEXT", value_parser = separator)]
    key_separator: Option<String>,
    /// The partition [default: by the key; without keys in turn]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// When a record counts as written
    #[arg(long, value_enum, default_value_t)]
    acks: AcksArg,
    /// How batches are compressed
    #[arg(long, short = 'z', value_name = "CODEC", default_value_t, value_parser = codec)]
    compression: Compression,
    /// A header of every record; may be repeated
    #[arg(long = "header", short = 'H', value_name = "KEY=VALUE", value_parser = super::topic::key_value)]
    headers: Vec<(String, String)>,
    /// A value that stands for none: with a key, it deletes the key from a compacted topic
    #[arg(long, value_name = "TEXT")]
    null_value: Option<String>,
    /// Say nothing when all is well
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    connect: Connect,
}

/// When a record counts as written.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum AcksArg {
    /// When every in-sync replica has it (with Skerry: durably)
    #[default]
    All,
    /// When the leader has it
    #[value(name = "1")]
    Leader,
    /// When it is sent
    #[value(name = "0")]
    None,
}

fn codec(text: &str) -> Result<Compression, String> {
    text.parse::<Compression>().map_err(|error| error.to_string())
}

/// `\t` is easier to type than a tabulator.
fn separator(text: &str) -> Result<String, String> {
    match text.replace("\\t", "\t") {
        empty if empty.is_empty() => Err("a text is expected".to_owned()),
        text => Ok(text),
    }
}

pub(super) async fn run(arguments: ProduceArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    let count = partition_count(&client, &arguments.topic).await?;
    if let Some(partition) = arguments.partition
        && partition >= count
    {
        return Err(
            Failure::new(format!("topic {} has no partition {partition}", arguments.topic)).hint(format!(
                "it has {count}, numbered from 0; `skerry topic alter {} --partitions N` adds some",
                arguments.topic
            )),
        );
    }
    let options = ProducerOptions {
        acks: match arguments.acks {
            AcksArg::All => Acks::All,
            AcksArg::Leader => Acks::Leader,
            AcksArg::None => Acks::None,
        },
        compression: arguments.compression,
        ..ProducerOptions::default()
    };
    let producer = Producer::start(&client, options).await?;
    let session = Session {
        began: client.env().clock.now(),
        client,
        producer,
        count,
        next_partition: 0,
        outstanding: VecDeque::new(),
        written: 0,
        bytes: 0,
        arguments,
    };
    session.run().await
}

/// Asking for a missing topic makes it, where the broker allows that; it answers that the topic is unknown first.
async fn partition_count(client: &Client, topic: &str) -> Result<i32, Failure> {
    let deadline = client.env().clock.now() + CREATION_TIMEOUT;
    let found = client.retry_until(deadline, || client.topic(topic, true)).await;
    match found {
        Ok(metadata) => Ok(i32::try_from(metadata.partitions.len()).unwrap_or(i32::MAX)),
        Err(error) if error.code() == Some(ResponseError::UnknownTopicOrPartition) => {
            let failure = no_such_topic(client, topic).await;
            Err(failure.hint("the broker does not make topics on first use (auto.create.topics.enable)"))
        }
        Err(error) => Err(error.into()),
    }
}

struct Session {
    arguments: ProduceArgs,
    client: Client,
    producer: Producer,
    count: i32,
    /// For records without a key: batches go in turn.
    next_partition: i32,
    outstanding: VecDeque<(usize, Delivery)>,
    written: u64,
    bytes: u64,
    began: Instant,
}

impl Session {
    async fn run(mut self) -> Result<(), Failure> {
        let clock = self.client.env().clock.clone();
        let interactive = std::io::stdin().is_terminal();
        let progress = !self.arguments.quiet && !interactive && std::io::stderr().is_terminal();
        let mut next_progress = clock.now() + PROGRESS_INTERVAL;
        let mut lines = Lines::new(&self.client.env().tasks);
        loop {
            let portion = lines
                .next()
                .await
                .map_err(|error| Failure::new(format!("cannot read stdin: {error}")))?;
            if portion.is_empty() {
                break;
            }
            self.send(portion).await?;
            // A person wants to know of each line what became of it.
            let keep = if interactive { 0 } else { OUTSTANDING_MAX };
            self.settle(keep).await?;
            if progress && clock.now() >= next_progress {
                eprint!("\r{}", self.summary());
                next_progress = clock.now() + PROGRESS_INTERVAL;
            }
        }
        self.settle(0).await?;
        if progress {
            eprint!("\r");
        }
        if !self.arguments.quiet {
            eprintln!("{}", self.summary());
        }
        self.producer.finish().await;
        Ok(())
    }

    fn summary(&self) -> String {
        let seconds = self
            .client
            .env()
            .clock
            .now()
            .since(self.began)
            .as_secs_f64()
            .max(0.001);
        let what = if matches!(self.arguments.acks, AcksArg::None) {
            "sent"
        } else {
            "acknowledged"
        };
        format!(
            "{} records {what}, {} bytes, {:.1} s, {:.1} MB/s",
            thousands(self.written),
            thousands(self.bytes),
            seconds,
            self.bytes as f64 / seconds / 1e6
        )
    }

    async fn send(&mut self, portion: Vec<Vec<u8>>) -> Result<(), Failure> {
        let now = self.client.env().clock.wall();
        let unkeyed = self.next_partition;
        let mut batches: BTreeMap<i32, (usize, Vec<Record>)> = BTreeMap::new();
        for line in portion {
            let record = self.record(line, now)?;
            let partition = match (self.arguments.partition, &record.key) {
                (Some(partition), _) => partition,
                (None, Some(key)) => partition_of(key, self.count),
                (None, None) => unkeyed,
            };
            let size = record.size();
            self.bytes += size as u64;
            let full = batches
                .get(&partition)
                .is_some_and(|(bytes, _)| bytes + size > BATCH_BYTES);
            if full && let Some((_, records)) = batches.remove(&partition) {
                self.dispatch(partition, records).await;
            }
            let batch = batches.entry(partition).or_default();
            batch.0 += size;
            batch.1.push(record);
        }
        for (partition, (_, records)) in batches {
            self.dispatch(partition, records).await;
        }
        self.next_partition = (unkeyed + 1) % self.count.max(1);
        Ok(())
    }

    fn record(&self, line: Vec<u8>, now: WallMs) -> Result<Record, Failure> {
        let line = Bytes::from(line);
        let (key, value) = match &self.arguments.key_separator {
            None => (None, line),
            Some(separator) => {
                let at = line
                    .windows(separator.len())
                    .position(|window| window == separator.as_bytes());
                let at = at.ok_or_else(|| {
                    Failure::new(format!(
                        "a line has no {separator:?} that would end its key: {:?}",
                        String::from_utf8_lossy(&line[..line.len().min(60)])
                    ))
                })?;
                (Some(line.slice(..at)), line.slice(at + separator.len()..))
            }
        };
        let null = self
            .arguments
            .null_value
            .as_deref()
            .is_some_and(|null| value == null.as_bytes());
        let headers = self.arguments.headers.iter().map(|(key, value)| Header {
            key: key.clone(),
            value: Some(Bytes::from(value.clone().into_bytes())),
        });
        Ok(Record {
            key,
            value: (!null).then_some(value),
            headers: headers.collect(),
            timestamp: now,
        })
    }

    async fn dispatch(&mut self, partition: i32, records: Vec<Record>) {
        let place = TopicPartition::new(self.arguments.topic.as_str(), partition);
        let delivery = self.producer.send(&place, &records).await;
        self.outstanding.push_back((records.len(), delivery));
    }

    /// Waits until no more than `keep` batches are without their outcome.
    async fn settle(&mut self, keep: usize) -> Result<(), Failure> {
        while self.outstanding.len() > keep {
            let Some((records, delivery)) = self.outstanding.pop_front() else {
                break;
            };
            match delivery.outcome().await {
                Ok(_) => self.written += records as u64,
                Err(error) => return Err(self.explain(&error, records).await),
            }
        }
        Ok(())
    }

    async fn explain(&self, error: &ProduceError, records: usize) -> Failure {
        let fate = match error.outcome {
            Outcome::NotWritten => "were not written",
            Outcome::Unknown => "may have been written or not",
        };
        let failure = Failure::new(format!("{records} records {fate}: {}", error.reason)).hint(format!(
            "{} records before them were acknowledged; those after them were given up",
            thousands(self.written)
        ));
        match &error.reason {
            skerry_client::ProduceFailure::Refused {
                code: ResponseError::MessageTooLarge,
                ..
            } => failure.hint("the topic's max.message.bytes is smaller than the batch"),
            skerry_client::ProduceFailure::TimedOut(last) | skerry_client::ProduceFailure::Client(last) => {
                hint_of(failure, last)
            }
            _ => failure,
        }
    }
}

fn hint_of(failure: Failure, error: &ClientError) -> Failure {
    match error {
        ClientError::Connect(_) => failure.hint("`skerry cluster status` tells whether the broker is back"),
        ClientError::NoLeader { .. } => {
            failure.hint("`skerry cluster health` tells which partitions are without a leader")
        }
        _ => failure,
    }
}
