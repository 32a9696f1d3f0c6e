//! `skerry consume`: records become lines of stdout.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::time::Duration;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use skerry_client::{
    Client, FetchOptions, Fetched, FetchedRecord, Fetcher, GroupConsumer, GroupEvent, GroupOptions,
    OffsetSpec, ResponseError,
};
use skerry_types::{Offset, TopicPartition, WallMs};

use super::Format;
use super::connect::{Connect, about_topic};
use super::failure::Failure;

const HELP: &str = "\
Without --group the command reads what it is told to and leaves no trace; with it, it is a member of that consumer
group and goes on where the group was. It ends with --max, --until-end, or Ctrl-C (which commits and leaves the group).

Examples:
  skerry consume greetings --from-beginning
  skerry consume orders --group billing --print key,headers
  skerry consume orders --partition 2 --offset 1000 --max 10 --format json
  skerry consume orders --offset @1700000000000 --until-end      from a time (milliseconds since 1970) to now";

/// The arguments of `consume`.
#[derive(Args, Debug)]
#[command(after_help = HELP)]
pub(super) struct ConsumeArgs {
    /// The topics
    #[arg(required = true)]
    topics: Vec<String>,
    /// Begin with the first record [default: with the next that is written]
    #[arg(long)]
    from_beginning: bool,
    /// Begin at an offset, at `earliest`, `latest`, or at a time (@MILLISECONDS)
    #[arg(long, short, value_name = "OFFSET", conflicts_with_all = ["from_beginning", "group"], value_parser = parse_start)]
    offset: Option<Start>,
    /// Be a member of this group: share partitions with the others, go on where the group was
    #[arg(long, short)]
    group: Option<String>,
    /// Only this partition
    #[arg(long, short, value_name = "N", conflicts_with = "group", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// End after so many records
    #[arg(long, short = 'n', value_name = "N")]
    max: Option<u64>,
    /// End where the partitions ended when the command began
    #[arg(long, short = 'e', conflicts_with = "group")]
    until_end: bool,
    /// What to print before the value, separated by tabulators
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FIELDS")]
    print: Vec<Field>,
    /// Only records of committed transactions
    #[arg(long)]
    committed: bool,
    #[command(flatten)]
    connect: Connect,
}

/// A field of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Field {
    /// The topic's name
    Topic,
    /// The partition's number
    Partition,
    /// The offset
    Offset,
    /// Milliseconds since 1970
    Timestamp,
    /// The key
    Key,
    /// KEY=VALUE pairs
    Headers,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    At(Offset),
    Find(OffsetSpec),
}

pub(super) fn parse_start(text: &str) -> Result<Start, String> {
    let expected = "an offset, earliest, latest, or @MILLISECONDS is expected";
    match text {
        "earliest" | "beginning" => Ok(Start::Find(OffsetSpec::Earliest)),
        "latest" | "end" => Ok(Start::Find(OffsetSpec::Latest)),
        other => match other.strip_prefix('@') {
            Some(time) => {
                let time: i64 = time.parse().map_err(|_| expected.to_owned())?;
                if time < 0 {
                    Err(expected.to_owned())
                } else {
                    Ok(Start::Find(OffsetSpec::At(WallMs(time))))
                }
            }
            None => match other.parse::<i64>() {
                Ok(offset) if offset >= 0 => Ok(Start::At(Offset(offset))),
                _ => Err(expected.to_owned()),
            },
        },
    }
}

pub(super) async fn run(arguments: ConsumeArgs) -> Result<(), Failure> {
    let client = arguments.connect.connected().await?;
    let printer = Printer {
        format: arguments.connect.format,
        fields: arguments.print.clone(),
    };
    let session = Session {
        left: arguments.max,
        printer,
        committed: arguments.committed,
    };
    if session.left == Some(0) {
        return Ok(());
    }
    match arguments.group.clone() {
        Some(group) => session.member(&client, &group, &arguments).await,
        None => session.alone(&client, &arguments).await,
    }
}

struct Session {
    left: Option<u64>,
    printer: Printer,
    committed: bool,
}

impl Session {
    fn fetch_options(&self) -> FetchOptions {
        FetchOptions {
            committed_only: self.committed,
            ..FetchOptions::default()
        }
    }

    /// Reads without a group.
    async fn alone(mut self, client: &Client, arguments: &ConsumeArgs) -> Result<(), Failure> {
        let start = match (arguments.from_beginning, arguments.offset) {
            (true, _) => Start::Find(OffsetSpec::Earliest),
            (false, Some(start)) => start,
            (false, None) => Start::Find(OffsetSpec::Latest),
        };
        let mut fetcher = Fetcher::new(client, self.fetch_options());
        let mut ends: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
        for topic in &arguments.topics {
            for place in places(client, topic, arguments.partition).await? {
                let end = find(client, &place, Start::Find(OffsetSpec::Latest), self.committed).await?;
                let begin = find(client, &place, start, self.committed)
                    .await?
                    .unwrap_or(end.unwrap_or(Offset::ZERO));
                if matches!(start, Start::At(offset) if end.is_some_and(|end| offset > end)) {
                    return Err(out_of_range(client, &place, begin).await);
                }
                ends.insert(place.clone(), end.unwrap_or(Offset::ZERO));
                fetcher.seek(place, begin);
            }
        }
        let at_end = |fetcher: &Fetcher| {
            ends.iter().all(|(place, end)| {
                fetcher
                    .positions()
                    .get(place)
                    .is_none_or(|position| position >= end)
            })
        };
        let mut interrupt = std::pin::pin!(interrupted());
        while !(arguments.until_end && at_end(&fetcher)) {
            let fetched = tokio::select! {
                biased;
                () = &mut interrupt => return Ok(()),
                fetched = fetcher.next() => fetched,
            };
            let fetched = match fetched {
                Ok(fetched) => fetched,
                Err(error) if error.source.code() == Some(ResponseError::OffsetOutOfRange) => {
                    return Err(out_of_range(client, &error.partition, error.from).await);
                }
                Err(error) => return Err(about_topic(client, &error.partition.topic, error.source).await),
            };
            let limit = arguments
                .until_end
                .then(|| ends.get(&fetched.partition).copied())
                .flatten();
            if self.write(&fetched, limit)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Reads as a member of a group.
    async fn member(mut self, client: &Client, group: &str, arguments: &ConsumeArgs) -> Result<(), Failure> {
        let topics: Vec<&str> = arguments.topics.iter().map(String::as_str).collect();
        for topic in &topics {
            places(client, topic, None).await?;
        }
        let options = GroupOptions {
            reset: if arguments.from_beginning {
                OffsetSpec::Earliest
            } else {
                OffsetSpec::Latest
            },
            fetch: self.fetch_options(),
            ..GroupOptions::default()
        };
        let mut consumer = GroupConsumer::new(client, group, &topics, options);
        let mut interrupt = std::pin::pin!(interrupted());
        loop {
            let event = tokio::select! {
                biased;
                () = &mut interrupt => break,
                event = consumer.next() => event?,
            };
            match event {
                GroupEvent::Assigned(partitions) => {
                    tracing::info!(group, partitions = partitions.len(), "assigned");
                }
                GroupEvent::Records(fetched) => {
                    let records = fetched.records(self.committed);
                    let wanted = self
                        .left
                        .map_or(records.len() as u64, |left| left.min(records.len() as u64));
                    if self.write(&fetched, None)? {
                        // What was read and not printed is for the next member.
                        if let Some(last) = wanted
                            .checked_sub(1)
                            .and_then(|last| records.get(usize::try_from(last).ok()?))
                        {
                            consumer.seek(fetched.partition.clone(), last.offset.next());
                        }
                        break;
                    }
                }
            }
        }
        Ok(consumer.leave().await?)
    }

    /// Prints records, those below `limit`. True when enough are printed.
    fn write(&mut self, fetched: &Fetched, limit: Option<Offset>) -> Result<bool, Failure> {
        let mut out = Vec::new();
        for record in fetched.records(self.committed) {
            if self.left == Some(0) || limit.is_some_and(|limit| record.offset >= limit) {
                break;
            }
            self.printer.print(&mut out, &fetched.partition, &record);
            self.left = self.left.map(|left| left - 1);
        }
        if !out.is_empty() {
            let mut stdout = std::io::stdout().lock();
            stdout
                .write_all(&out)
                .and_then(|()| stdout.flush())
                .map_err(|error| Failure::output(&error))?;
        }
        Ok(self.left == Some(0))
    }
}

/// Completes when a person or a supervisor wants an end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// A topic's partitions, or the one that is asked for.
async fn places(
    client: &Client,
    topic: &str,
    partition: Option<i32>,
) -> Result<Vec<TopicPartition>, Failure> {
    let deadline = client.env().clock.now() + Duration::from_secs(5);
    // A topic that was just made may be unknown for a moment; one that does not exist is told of at once.
    let found = client
        .retry_until(deadline, || async {
            match client.topic(topic, false).await {
                Err(error) if error.code() == Some(ResponseError::UnknownTopicOrPartition) => Ok(Err(error)),
                Err(error) => Err(error),
                Ok(metadata) => Ok(Ok(metadata)),
            }
        })
        .await;
    let metadata = match found {
        Ok(Ok(metadata)) => metadata,
        Ok(Err(error)) | Err(error) => return Err(about_topic(client, topic, error).await),
    };
    let all = metadata.partitions.iter().map(|found| found.index);
    let chosen: Vec<TopicPartition> = all
        .filter(|index| partition.is_none_or(|wanted| wanted == *index))
        .map(|index| TopicPartition::new(topic, index))
        .collect();
    if chosen.is_empty() {
        return Err(Failure::new(format!(
            "topic {topic} has no partition {}",
            partition.unwrap_or(0)
        ))
        .hint(format!("it has {}, numbered from 0", metadata.partitions.len())));
    }
    Ok(chosen)
}

async fn find(
    client: &Client,
    place: &TopicPartition,
    start: Start,
    committed: bool,
) -> Result<Option<Offset>, Failure> {
    match start {
        Start::At(offset) => Ok(Some(offset)),
        Start::Find(spec) => {
            let found = client
                .retry(|| client.list_offset(place, spec, committed))
                .await?;
            Ok(found.offset)
        }
    }
}

async fn out_of_range(client: &Client, place: &TopicPartition, from: Offset) -> Failure {
    let failure = Failure::new(format!(
        "partition {} of {} has no offset {from}",
        place.partition, place.topic
    ));
    let earliest = client
        .list_offset(place, OffsetSpec::Earliest, false)
        .await
        .ok()
        .and_then(|found| found.offset);
    let latest = client
        .list_offset(place, OffsetSpec::Latest, false)
        .await
        .ok()
        .and_then(|found| found.offset);
    match (earliest, latest) {
        (Some(earliest), Some(latest)) => {
            failure.hint(format!("it begins at {earliest} and ends before {latest}"))
        }
        _ => failure,
    }
}

struct Printer {
    format: Format,
    fields: Vec<Field>,
}

impl Printer {
    fn print(&self, out: &mut Vec<u8>, place: &TopicPartition, record: &FetchedRecord) {
        match self.format {
            Format::Json => out.extend_from_slice(as_json(place, record).to_string().as_bytes()),
            Format::Table => self.plain(out, place, record),
        }
        out.push(b'\n');
    }

    fn plain(&self, out: &mut Vec<u8>, place: &TopicPartition, record: &FetchedRecord) {
        for field in &self.fields {
            match field {
                Field::Topic => out.extend_from_slice(place.topic.as_bytes()),
                Field::Partition => out.extend_from_slice(place.partition.to_string().as_bytes()),
                Field::Offset => out.extend_from_slice(record.offset.to_string().as_bytes()),
                Field::Timestamp => out.extend_from_slice(record.timestamp.to_string().as_bytes()),
                Field::Key => out.extend_from_slice(record.key.as_deref().unwrap_or(b"null")),
                Field::Headers => {
                    for (i, header) in record.headers.iter().enumerate() {
                        if i > 0 {
                            out.push(b',');
                        }
                        out.extend_from_slice(header.key.as_bytes());
                        out.push(b'=');
                        out.extend_from_slice(header.value.as_deref().unwrap_or(b"null"));
                    }
                }
            }
            out.push(b'\t');
        }
        out.extend_from_slice(record.value.as_deref().unwrap_or(b"null"));
    }
}

/// One object for one record. What is not text comes as a list of bytes' values in hexadecimal, under another name.
fn as_json(place: &TopicPartition, record: &FetchedRecord) -> Value {
    let mut object = serde_json::Map::new();
    object.insert("topic".to_owned(), json!(&*place.topic));
    object.insert("partition".to_owned(), json!(place.partition.get()));
    object.insert("offset".to_owned(), json!(record.offset.get()));
    object.insert("timestamp".to_owned(), json!(record.timestamp.get()));
    insert_bytes(&mut object, "key", record.key.as_deref());
    insert_bytes(&mut object, "value", record.value.as_deref());
    let headers = record.headers.iter().map(|header| {
        let mut object = serde_json::Map::new();
        object.insert("key".to_owned(), json!(header.key));
        insert_bytes(&mut object, "value", header.value.as_deref());
        Value::Object(object)
    });
    object.insert("headers".to_owned(), headers.collect());
    Value::Object(object)
}

fn insert_bytes(object: &mut serde_json::Map<String, Value>, name: &str, bytes: Option<&[u8]>) {
    match bytes.map(std::str::from_utf8) {
        None => object.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => object.insert(name.to_owned(), json!(text)),
        Some(Err(_)) => {
            let hex: String = bytes
                .unwrap_or(&[])
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            object.insert(format!("{name}_hex"), json!(hex))
        }
    };
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use expect_test::expect;
    use skerry_client::Header;

    use super::*;

    #[test]
    fn starts_are_read() {
        assert_eq!(parse_start("17"), Ok(Start::At(Offset(17))));
        assert_eq!(parse_start("earliest"), Ok(Start::Find(OffsetSpec::Earliest)));
        assert_eq!(parse_start("@5"), Ok(Start::Find(OffsetSpec::At(WallMs(5)))));
        for wrong in ["", "-1", "@", "@-3", "soon"] {
            assert!(parse_start(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_record_is_printed() {
        let record = FetchedRecord {
            offset: Offset(7),
            timestamp: WallMs(1_000),
            key: Some(Bytes::from_static(b"k")),
            value: Some(Bytes::from_static(b"\xff\x00")),
            headers: vec![Header {
                key: "h".to_owned(),
                value: None,
            }],
        };
        let place = TopicPartition::new("t", 3);
        let mut out = Vec::new();
        let json = Printer {
            format: Format::Json,
            fields: Vec::new(),
        };
        json.print(&mut out, &place, &record);
        let fields = Field::value_variants().to_vec();
        let plain = FetchedRecord {
            value: Some(Bytes::from_static(b"v")),
            ..record
        };
        Printer {
            format: Format::Table,
            fields,
        }
        .print(&mut out, &place, &plain);
        expect![[r#"
            {"headers":[{"key":"h","value":null}],"key":"k","offset":7,"partition":3,"timestamp":1000,"topic":"t","value_hex":"ff00"}
            t	3	7	1000	k	h=null	v
        "#]].assert_eq(&String::from_utf8_lossy(&out));
    }
}
