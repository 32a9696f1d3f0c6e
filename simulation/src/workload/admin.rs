//! Whoever makes, changes and removes topics, and deletes records.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    IncrementalAlterConfigsRequest,
};
use skerry_client::ResponseError;
use skerry_env::Env;
use uuid::Uuid;

use super::consume::{LATEST, list_offset};
use super::{Client, Failure, Shared, TOPICS, TRIMMED, To, error_name, key, pick, text, topic_name};
use skerry_checker::history::{Op, Outcome};

/// The topic that gets more partitions.
pub(super) const GROWN: &str = "grown";
const GROWN_PARTITIONS_MAX: i32 = 8;
/// A topic's setting that changes nothing that the other checks look at.
pub(crate) const SETTING: &str = "max.compaction.lag.ms";
const TOPIC: i8 = 2;
/// With an empty name: of every broker.
const BROKER: i8 = 4;

/// Makes the topics that live as long as the simulation: those that nobody has made yet, until they are there or the time
/// is over.
pub(super) async fn set_up(client: &mut Client, is_over: impl Fn(&Client) -> bool) {
    if client.shared.cluster.loses_disks {
        let value = client.shared.cluster.min_in_sync.to_string();
        while !set_min_in_sync(client, (BROKER, ""), &value).await && !is_over(client) {
            client.ask_another();
            client.pause(200).await;
        }
    }
    let made = client.shared.made.load(Ordering::Relaxed);
    for (topic, partitions) in TOPICS.into_iter().skip(made) {
        // Segments that roll by time are the only small ones that Kafka's limits allow.
        let segment_ms = (300 + client.env.rng.below(3_000)).to_string();
        // The broker's clock jumps by days: what clients send must not be refused as "from the future".
        let mut settings = vec![
            ("segment.ms", segment_ms),
            ("message.timestamp.after.max.ms", i64::MAX.to_string()),
        ];
        if !client.is_alone() {
            settings.push((
                "min.insync.replicas",
                client.shared.cluster.min_in_sync.to_string(),
            ));
        }
        if client.shared.cluster.flush_messages > 0 {
            settings.push(("flush.messages", client.shared.cluster.flush_messages.to_string()));
        }
        while !create(client, topic, partitions, &settings).await {
            if is_over(client) {
                return;
            }
            client.ask_another();
            client.pause(200).await;
        }
        client.shared.made.fetch_add(1, Ordering::Relaxed);
    }
}

/// Makes a topic; true when it is there.
pub(super) async fn create(
    client: &mut Client,
    topic: &str,
    partitions: i32,
    settings: &[(&str, String)],
) -> bool {
    let id = client.invoke(Op::CreateTopic {
        topic: topic.to_owned(),
    });
    let configs = settings.iter().map(|(name, value)| {
        CreatableTopicConfig::default()
            .with_name(text(name))
            .with_value(Some(text(value)))
    });
    let wanted = CreatableTopic::default()
        .with_name(topic_name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(client.shared.cluster.replication)
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(2_000);
    let result = match client.call(To::Anyone, &request).await {
        Ok(answer) => match answer.topics.first().map(|topic| topic.error_code) {
            Some(0) => Ok(()),
            // An earlier try was carried out, and its answer lost.
            Some(code) if is(code, ResponseError::TopicAlreadyExists) => Ok(()),
            Some(code) => Err(Failure::unknown(error_name(code))),
            None => Err(Failure::unknown("an empty answer")),
        },
        Err(failure) => Err(failure),
    };
    finish(client, id, &result)
}

fn is(code: i16, error: ResponseError) -> bool {
    ResponseError::try_from_code(code) == Some(error)
}

fn finish(client: &Client, id: u64, result: &Result<(), Failure>) -> bool {
    let outcome = match result {
        Ok(()) => Outcome::Done,
        Err(failure) => failure.outcome(),
    };
    client.complete(id, outcome);
    result.is_ok()
}

/// Makes and removes topics, some of them again under the same name.
pub(super) async fn churn(mut client: Client) {
    while !client.is_stopping() {
        let number = client.env.rng.below(6);
        let topic = format!("churn-{number}");
        if client.env.rng.chance(1, 2) {
            let partitions = 1 + i32::try_from(client.env.rng.below(3)).unwrap_or(0);
            create(&mut client, &topic, partitions, &[]).await;
        } else {
            delete(&mut client, &topic).await;
        }
        client.pause(500).await;
    }
}

/// Makes a topic, and gives it one partition after the other.
pub(super) async fn grow(mut client: Client) {
    while !create(&mut client, GROWN, 1, &[]).await {
        if client.is_stopping() {
            return;
        }
        client.ask_another();
        client.pause(300).await;
    }
    for count in 2..=GROWN_PARTITIONS_MAX {
        while !add_partitions(&mut client, count).await {
            if client.is_stopping() {
                return;
            }
            client.ask_another();
            client.pause(300).await;
        }
        client.shared.grown.fetch_max(count, Ordering::Relaxed);
        client.pause(1_500).await;
        if client.is_stopping() {
            return;
        }
    }
}

/// True when the topic has so many.
async fn add_partitions(client: &mut Client, count: i32) -> bool {
    let wanted = CreatePartitionsTopic::default()
        .with_name(topic_name(GROWN))
        .with_count(count)
        .with_assignments(None);
    let request = CreatePartitionsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(2_000);
    let answer = client.call(To::Anyone, &request).await;
    let code = answer
        .ok()
        .and_then(|answer| answer.results.first().map(|result| result.error_code));
    // An earlier try was carried out, and its answer lost.
    code.is_some_and(|code| code == 0 || is(code, ResponseError::InvalidPartitions))
}

/// Removes a topic; true when that was acknowledged.
pub(super) async fn delete(client: &mut Client, topic: &str) -> bool {
    let id = client.invoke(Op::DeleteTopic {
        topic: topic.to_owned(),
    });
    // By its id where that is known: a request by name that arrives late deletes the next topic of that name, in Kafka too.
    let (wanted, names) = match client.ids.get(topic) {
        Some(id) => (
            DeleteTopicState::default().with_name(None).with_topic_id(*id),
            Vec::new(),
        ),
        None => (
            DeleteTopicState::default()
                .with_name(Some(topic_name(topic)))
                .with_topic_id(Uuid::nil()),
            vec![topic_name(topic)],
        ),
    };
    let request = DeleteTopicsRequest::default()
        .with_topics(vec![wanted])
        .with_topic_names(names)
        .with_timeout_ms(2_000);
    let result = match client.call(To::Anyone, &request).await {
        Ok(answer) => match answer.responses.first().map(|topic| topic.error_code) {
            Some(0) => Ok(()),
            Some(code)
                if is(code, ResponseError::UnknownTopicOrPartition)
                    || is(code, ResponseError::UnknownTopicId) =>
            {
                Err(Failure::refused(code))
            }
            Some(code) => Err(Failure::unknown(error_name(code))),
            None => Err(Failure::unknown("an empty answer")),
        },
        Err(failure) => Err(failure),
    };
    finish(client, id, &result)
}

/// Changes a setting that nothing depends on.
pub(super) async fn settings(mut client: Client) {
    while !client.is_stopping() {
        let (topic, _) = TOPICS[usize::try_from(client.env.rng.below(TOPICS.len() as u64)).unwrap_or(0)];
        if client.topic_id(topic).await.is_none() {
            return;
        }
        let value = (1_000_000 + client.env.rng.below(1_000_000)).to_string();
        let id = client.invoke(Op::SetConfig {
            topic: topic.into(),
            name: SETTING.into(),
            value: value.clone(),
        });
        let change = AlterableConfig::default()
            .with_name(text(SETTING))
            .with_config_operation(0)
            .with_value(Some(text(&value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configs(vec![change]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let result = match client.call(To::Anyone, &request).await {
            Ok(answer) => match answer.responses.first().map(|resource| resource.error_code) {
                Some(0) => Ok(()),
                Some(code) => Err(Failure::unknown(error_name(code))),
                None => Err(Failure::unknown("an empty answer")),
            },
            Err(failure) => Err(failure),
        };
        let unsure = matches!(&result, Err(failure) if !failure.definite);
        finish(&client, id, &result);
        if unsure {
            // A request that is still on its way may win over a later one: wait until it has arrived or died.
            client.pause(6_000).await;
        }
        client.pause(700).await;
    }
}

/// Settings of a topic that may have any of these values at any moment.
const TUNED: [(&str, [&str; 3]); 6] = [
    ("segment.ms", ["250", "2000", "600000"]),
    ("index.interval.bytes", ["0", "100", "100000"]),
    ("segment.index.bytes", ["1000", "20000", "10485760"]),
    ("file.delete.delay.ms", ["0", "500", "60000"]),
    ("max.message.bytes", ["200000", "1048588", "5000000"]),
    ("segment.jitter.ms", ["0", "100", "1000"]),
];

/// Changes settings that logs act on, and takes them back, while everything goes on.
pub(super) async fn tune(mut client: Client) {
    const SET: i8 = 0;
    const DELETE: i8 = 1;
    while !client.is_stopping() {
        let (topic, _) = *pick(&client.env, &TOPICS);
        let (name, values) = pick(&client.env, &TUNED);
        let change = AlterableConfig::default().with_name(text(name));
        let change = if client.env.rng.chance(1, 4) {
            change.with_config_operation(DELETE).with_value(None)
        } else {
            let value = pick(&client.env, values);
            change.with_config_operation(SET).with_value(Some(text(value)))
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configs(vec![change]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        if client.call(To::Anyone, &request).await.is_err() {
            client.ask_another();
        }
        client.pause(500).await;
    }
}

/// Deletes the beginning of a partition.
pub(super) async fn trim(mut client: Client) {
    while !client.is_stopping() {
        client.pause(2_500).await;
        let Some(end) = list_offset(&mut client, TRIMMED, 0, LATEST)
            .await
            .filter(|end| *end > 0)
        else {
            continue;
        };
        let before = i64::try_from(client.env.rng.below(end.unsigned_abs() + 1)).unwrap_or(0);
        delete_records(&mut client, (TRIMMED, 0), before).await;
    }
}

/// Deletes the records of a partition before an offset, asking until it is done: DeleteRecords, as `kafka-delete-records.sh` sends it.
pub async fn delete_before(env: &Env, shared: &Arc<Shared>, name: &str, partition: &str, before: i64) {
    let mut client = Client::new(env, name.to_owned(), shared);
    let Some((topic, number)) = partition.rsplit_once('-') else {
        return;
    };
    let number = number.parse().unwrap_or(0);
    let usual = shared.cluster.min_in_sync.to_string();
    // With fewer copies in sync than the topic asks for nothing is committed any more, and only what is committed can be
    // deleted.
    while !delete_records(&mut client, (topic, number), before).await {
        client.forget(topic);
        set_min_in_sync(&mut client, (TOPIC, topic), "1").await;
        client.pause(200).await;
    }
    while !set_min_in_sync(&mut client, (TOPIC, topic), &usual).await {
        client.ask_another();
        client.pause(200).await;
    }
}

/// True where it is done.
async fn set_min_in_sync(client: &mut Client, (kind, name): (i8, &str), value: &str) -> bool {
    let change = AlterableConfig::default()
        .with_name(text("min.insync.replicas"))
        .with_config_operation(0)
        .with_value(Some(text(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(vec![change]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    match client.call(To::Anyone, &request).await {
        Ok(answer) => answer
            .responses
            .first()
            .is_some_and(|resource| resource.error_code == 0),
        Err(_) => false,
    }
}

/// True where it is done.
async fn delete_records(client: &mut Client, (topic, number): (&str, i32), before: i64) -> bool {
    let id = client.invoke(Op::Trim {
        key: key(topic, number),
        before,
    });
    let partition = DeleteRecordsPartition::default()
        .with_partition_index(number)
        .with_offset(before);
    let wanted = DeleteRecordsTopic::default()
        .with_name(topic_name(topic))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default()
        .with_topics(vec![wanted])
        .with_timeout_ms(2_000);
    let outcome = match client.call(To::Leader(topic, number), &request).await {
        Ok(answer) => match answer.topics.first().and_then(|topic| topic.partitions.first()) {
            Some(done) if done.error_code == 0 => Outcome::Offset {
                offset: done.low_watermark,
            },
            Some(done) => Failure::unknown(error_name(done.error_code)).outcome(),
            None => Failure::unknown("an empty answer").outcome(),
        },
        Err(failure) => failure.outcome(),
    };
    let is_done = matches!(outcome, Outcome::Offset { .. });
    client.complete(id, outcome);
    is_done
}
