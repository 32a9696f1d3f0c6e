//! After everything has healed: the broker must serve within a bound, and everything is read once more.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    DescribeConfigsRequest, InitProducerIdRequest, MetadataRequest, MetadataResponse, ProduceRequest,
    TopicName,
};
use skerry_env::Env;
use skerry_types::Instant;
use std::sync::atomic::Ordering;

use super::consume::{Bad, EARLIEST, LATEST, after, glance, list_offset, read};
use super::{
    Client, Failure, KEYED, Shared, TOPICS, To, admin, error_name, group, key, keyed, text, topic_name,
};
use crate::invariants::Found;
use crate::record::{self, Codec, Identity};
use skerry_checker::history::{Op, Outcome, RecordKey, Value};

/// By then every partition serves again.
const SERVES_WITHIN: Duration = Duration::from_secs(20);
/// What can be read at once is read within this time.
const READ_WITHIN: Duration = Duration::from_secs(30);

/// Checks that every partition takes a record; with `reads`, also reads everything into the history.
pub async fn audit(env: &Env, shared: &Arc<Shared>, name: &str, groups: &[String], reads: bool) {
    let mut client = Client::new(env, name.to_owned(), shared);
    let deadline = env.clock.now() + SERVES_WITHIN;
    let number = shared.next_producer.fetch_add(1, Ordering::Relaxed);
    let mut serial = 0;
    // Where there were never enough brokers for their replicas while the load went on.
    admin::set_up(&mut client, |client| client.env.clock.now() >= deadline).await;
    for (topic, partitions) in shared.topics() {
        for partition in 0..partitions {
            let value = Value {
                producer: number,
                serial,
            };
            serial += 1;
            if let Err(why) = write(&mut client, topic, partition, value, deadline).await {
                shared.violation(
                    "not-serving",
                    format!("{topic}-{partition} took no record for {SERVES_WITHIN:?} after everything healed: {why}"),
                );
                return;
            }
        }
    }
    if !reads {
        return;
    }
    let deadline = env.clock.now() + READ_WITHIN;
    if let Err(why) = read_everything(&mut client, groups, deadline).await {
        shared.violation("not-serving", format!("after everything healed: {why}"));
    }
}

/// Checks that each of `partitions` takes a record with acks=all and gives it back, and that each group is told what it has
/// committed.
///
/// # Errors
/// What does not go.
pub async fn serves(
    env: &Env,
    shared: &Arc<Shared>,
    name: &str,
    partitions: &[String],
    groups: &[String],
) -> Result<(), String> {
    let mut client = Client::new(env, name.to_owned(), shared);
    let deadline = env.clock.now() + SERVES_WITHIN;
    let producer = shared.next_producer.fetch_add(1, Ordering::Relaxed);
    let places = shared
        .topics()
        .flat_map(|(topic, count)| (0..count).map(move |partition| (topic, partition)));
    let places = places.filter(|(topic, number)| partitions.contains(&format!("{topic}-{number}")));
    for (serial, (topic, partition)) in (0..).zip(places) {
        let value = Value { producer, serial };
        let what = format!("{topic}-{partition} within {SERVES_WITHIN:?}");
        let base = write(&mut client, topic, partition, value, deadline)
            .await
            .map_err(|why| format!("no record is taken by {what}: {why}"))?;
        loop {
            let why = match read_on(&mut client, topic, partition, base).await {
                Ok((records, ..)) if records.first() == Some(&(base, value)) => break,
                Ok((records, ..)) => format!("{:?}", records.first()),
                Err(failure) => failure.why,
            };
            client.forget(topic);
            give_up_at(
                &mut client,
                deadline,
                &format!("{value} at {base} is not read back from {what}: {why}"),
            )
            .await?;
        }
    }
    for group in groups {
        let (topic, _) = group::READ[0];
        while let Err(failure) = group::read_commit(&mut client, group, topic, 0).await {
            give_up_at(
                &mut client,
                deadline,
                &format!("the commits of {group}: {}", failure.why),
            )
            .await?;
        }
        joins(&mut client, group, deadline).await?;
    }
    Ok(())
}

/// Whoever wants to belong to the group does: no rebalance is left that nobody ends.
async fn joins(client: &mut Client, group: &str, deadline: Instant) -> Result<(), String> {
    while let Err(failure) = group::visit(client, group).await {
        give_up_at(
            client,
            deadline,
            &format!("joining {group}, being heard and leaving it: {}", failure.why),
        )
        .await?;
    }
    Ok(())
}

async fn write(
    client: &mut Client,
    topic: &str,
    partition: i32,
    value: Value,
    deadline: Instant,
) -> Result<i64, String> {
    let op = client.invoke(Op::Send {
        key: key(topic, partition),
        values: vec![value],
        idempotent: true,
        acks_all: true,
        record_keys: if topic == KEYED {
            vec![own_key()]
        } else {
            Vec::new()
        },
    });
    let mut batch = None;
    loop {
        match try_write(client, topic, partition, value, &mut batch).await {
            Ok(base) => {
                client.complete(op, Outcome::Sent { base });
                return Ok(base);
            }
            Err(failure) if client.env.clock.now() >= deadline => {
                client.complete(op, Failure::unknown(failure.why.clone()).outcome());
                return Err(failure.why);
            }
            Err(_) => {
                client.forget(topic);
                client.pause(100).await;
            }
        }
    }
}

/// `batch` is what was sent before: who repeats a batch sends the same bytes, as Kafka's producers do. Another timestamp would
/// make other bytes of it, and an answer that is right for the first of them would be none for those that lie on the disks.
async fn try_write(
    client: &mut Client,
    topic: &str,
    partition: i32,
    value: Value,
    batch: &mut Option<Bytes>,
) -> Result<i64, Failure> {
    let bytes = match batch {
        Some(bytes) => bytes.clone(),
        None => batch.insert(encode(client, topic, value).await?).clone(),
    };
    let topic_id = known_id(client, topic).await?;
    let data = PartitionProduceData::default()
        .with_index(partition)
        .with_records(Some(bytes));
    let data = TopicProduceData::default()
        .with_name(topic_name(topic))
        .with_topic_id(topic_id)
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(2_000)
        .with_topic_data(vec![data]);
    let answer = client.call(To::Leader(topic, partition), &request).await?;
    let found = answer
        .responses
        .first()
        .and_then(|topic| topic.partition_responses.first());
    match found {
        Some(found) if found.error_code == 0 => Ok(found.base_offset),
        Some(found) => Err(Failure::unknown(error_name(found.error_code))),
        None => Err(Failure::unknown("an empty answer")),
    }
}

/// A key that nobody else writes.
fn own_key() -> RecordKey {
    RecordKey {
        key: "audit".to_owned(),
        tombstone: false,
    }
}

/// One record of a producer that has just got its id.
async fn encode(client: &mut Client, topic: &str, value: Value) -> Result<Bytes, Failure> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(60_000);
    let answer = client.call(To::Anyone, &request).await?;
    if answer.error_code != 0 {
        return Err(Failure::unknown(error_name(answer.error_code)));
    }
    let identity = Identity {
        id: answer.producer_id.0,
        epoch: answer.producer_epoch,
        sequence: 0,
    };
    let timestamp = client.env.clock.wall().get();
    Ok(if topic == KEYED {
        record::encode_keyed(&[(value, own_key())], identity, timestamp, 20, Codec::None)
    } else {
        record::encode(&[value], identity, timestamp, 20)
    })
}

async fn known_id(client: &mut Client, topic: &str) -> Result<uuid::Uuid, Failure> {
    if let Some(id) = client.ids.get(topic) {
        return Ok(*id);
    }
    // Only once: whoever calls has a deadline of its own.
    let answer = client.learn(topic).await?;
    match answer.topics.first() {
        Some(found) if found.error_code == 0 => Ok(found.topic_id),
        Some(found) => Err(Failure::unknown(error_name(found.error_code))),
        None => Err(Failure::unknown("an empty answer")),
    }
}

async fn read_everything(client: &mut Client, groups: &[String], deadline: Instant) -> Result<(), String> {
    keyed::note_health(&client.shared);
    let topics: Vec<_> = client.shared.topics().collect();
    for (topic, partitions) in topics {
        for partition in 0..partitions {
            read_partition(client, topic, partition, deadline).await?;
        }
    }
    for group in groups {
        for (topic, partitions) in group::READ {
            for partition in 0..partitions {
                while let Err(failure) = group::read_commit(client, group, topic, partition).await {
                    give_up_at(
                        client,
                        deadline,
                        &format!("the commits of {group}: {}", failure.why),
                    )
                    .await?;
                }
            }
        }
        joins(client, group, deadline).await?;
    }
    final_topics(client, deadline).await?;
    for (topic, _) in TOPICS {
        final_setting(client, topic, deadline).await?;
    }
    Ok(())
}

async fn give_up_at(client: &mut Client, deadline: Instant, why: &str) -> Result<(), String> {
    client.ask_another();
    if client.env.clock.now() >= deadline {
        return Err(why.to_owned());
    }
    client.pause(100).await;
    Ok(())
}

async fn read_partition(
    client: &mut Client,
    topic: &str,
    partition: i32,
    deadline: Instant,
) -> Result<(), String> {
    let what = format!("reading {topic}-{partition}");
    let (start, end) = loop {
        let start = list_offset(client, topic, partition, EARLIEST).await;
        let end = list_offset(client, topic, partition, LATEST).await;
        if let (Some(start), Some(end)) = (start, end) {
            break (start, end);
        }
        give_up_at(client, deadline, &what).await?;
    };
    let op = client.invoke(Op::FinalRead {
        key: key(topic, partition),
    });
    let mut records: Vec<(i64, Value)> = Vec::new();
    let mut next = start;
    let mut high_watermark = end;
    while next < end {
        match read_on(client, topic, partition, next).await {
            Ok((more, behind, high)) => {
                let is_further = behind > next;
                next = behind;
                if !is_further {
                    give_up_at(
                        client,
                        deadline,
                        &format!("{what}: nothing at {next}, and the end is {end}"),
                    )
                    .await?;
                }
                records.extend(more);
                high_watermark = high;
            }
            Err(failure) => {
                client.forget(topic);
                give_up_at(client, deadline, &format!("{what} at {next}: {}", failure.why)).await?;
            }
        }
    }
    client.complete(
        op,
        Outcome::Polled {
            records,
            high_watermark,
            log_start: start,
        },
    );
    Ok(())
}

/// Records, where to go on, and the high watermark.
async fn read_on(
    client: &mut Client,
    topic: &str,
    partition: i32,
    from: i64,
) -> Result<(Vec<(i64, Value)>, i64, i64), Failure> {
    let topic_id = known_id(client, topic).await?;
    let request = glance(topic, topic_id, partition, from);
    let answer = client.call(To::Leader(topic, partition), &request).await?;
    let found = answer
        .responses
        .first()
        .and_then(|topic| topic.partitions.first());
    let found = found.ok_or_else(|| Failure::unknown(error_name(answer.error_code)))?;
    match read(found, from) {
        Ok(records) => {
            let next = after(topic, found, &records, from);
            Ok((records, next, found.high_watermark))
        }
        Err(Bad::Error(code)) => Err(Failure::unknown(error_name(code))),
        Err(Bad::Records(why)) => {
            client.shared.violation(
                "broken-records",
                format!("{topic}-{partition} from {from}: {why}"),
            );
            Err(Failure::unknown(why))
        }
    }
}

/// No partition that was acknowledged is gone.
fn check_grown(wanted: usize, answer: &MetadataResponse) -> Found {
    let named = |name: &TopicName| name.as_str() == admin::GROWN;
    let grown = answer
        .topics
        .iter()
        .find(|topic| topic.name.as_ref().is_some_and(named));
    let has = grown.map_or(0, |topic| topic.partitions.len());
    if has >= wanted {
        return Found::new();
    }
    let message = format!(
        "{} was acknowledged to have {wanted} partitions, and has {has}",
        admin::GROWN
    );
    vec![("partitions-undone", message)]
}

async fn final_topics(client: &mut Client, deadline: Instant) -> Result<(), String> {
    let op = client.invoke(Op::FinalTopics);
    loop {
        let request = MetadataRequest::default()
            .with_topics(None)
            .with_allow_auto_topic_creation(false);
        match client.call(To::Anyone, &request).await {
            Ok(answer) => {
                let wanted = usize::try_from(client.shared.grown.load(Ordering::Relaxed)).unwrap_or(0);
                for (check, message) in check_grown(wanted, &answer) {
                    client.shared.violation(check, message);
                }
                let topics = answer
                    .topics
                    .iter()
                    .filter_map(|topic| Some(topic.name.as_ref()?.to_string()));
                client.complete(
                    op,
                    Outcome::Topics {
                        topics: topics.collect(),
                    },
                );
                return Ok(());
            }
            Err(failure) => give_up_at(client, deadline, &format!("the topics: {}", failure.why)).await?,
        }
    }
}

async fn final_setting(client: &mut Client, topic: &str, deadline: Instant) -> Result<(), String> {
    let op = client.invoke(Op::FinalConfig {
        topic: topic.to_owned(),
        name: admin::SETTING.to_owned(),
    });
    loop {
        let resource = DescribeConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(topic))
            .with_configuration_keys(Some(vec![text(admin::SETTING)]));
        let request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        let why = match client.call(To::Anyone, &request).await {
            Ok(answer) => match answer.results.first() {
                Some(result) if result.error_code == 0 => {
                    let value = result.configs.first().and_then(|config| config.value.as_ref());
                    client.complete(
                        op,
                        Outcome::Config {
                            value: value.map(ToString::to_string).unwrap_or_default(),
                        },
                    );
                    return Ok(());
                }
                Some(result) => error_name(result.error_code),
                None => "an empty answer".to_owned(),
            },
            Err(failure) => failure.why,
        };
        give_up_at(client, deadline, &format!("the settings of {topic}: {why}")).await?;
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};

    use super::*;

    #[test]
    fn partitions_that_were_acknowledged_stay() {
        let topic = MetadataResponseTopic::default()
            .with_name(Some(topic_name(admin::GROWN)))
            .with_partitions(vec![MetadataResponsePartition::default(); 2]);
        let answer = MetadataResponse::default().with_topics(vec![topic]);
        // More than was acknowledged may be there: an answer was lost.
        assert!(check_grown(1, &answer).is_empty() && check_grown(2, &answer).is_empty());
        assert_eq!(check_grown(3, &answer)[0].0, "partitions-undone");
        let without = MetadataResponse::default();
        assert_eq!(check_grown(1, &without)[0].0, "partitions-undone");
        assert!(check_grown(0, &without).is_empty(), "it was never made");
    }
}
