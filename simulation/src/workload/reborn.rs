//! Makes a topic, writes to it, removes it and makes it again under the same name: nothing of an earlier life may come
//! back, whoever was down meanwhile (DESIGN D17).

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use std::sync::atomic::Ordering;
use uuid::Uuid;

use super::consume::{Bad, glance, read};
use super::{Client, To, admin};
use crate::invariants::Found;
use crate::record::{self, Identity};
use skerry_checker::history::Value;

/// Its name begins as those of topics whose folders come and go.
const TOPIC: &str = "churn-reborn";
const BATCHES_MAX: u64 = 12;
const TRIES_MAX: u32 = 40;

/// One life of the topic.
struct Life {
    /// Requests name it by its id (KIP-516), in the versions that are newest now: who knows an id means one life.
    id: Uuid,
    /// Who writes in it, and nobody else does.
    producer: u32,
    serial: u32,
    acknowledged: BTreeMap<i64, Value>,
}

pub(super) async fn run(mut client: Client) {
    let mut over = BTreeSet::new();
    while !client.is_stopping() {
        if !admin::create(&mut client, TOPIC, 1, &[]).await {
            client.ask_another();
            client.pause(200).await;
            continue;
        }
        let Some(id) = learn_new(&mut client, &over).await else {
            return;
        };
        let mut life = Life {
            id,
            producer: client.shared.next_producer.fetch_add(1, Ordering::Relaxed),
            serial: 0,
            acknowledged: BTreeMap::new(),
        };
        for _ in 0..1 + client.env.rng.below(BATCHES_MAX) {
            write(&mut client, &mut life).await;
            client.pause(120).await;
        }
        look_back(&mut client, &life).await;
        over.insert(id);
        if client.is_stopping() {
            return;
        }
        // It is not made again before it is gone: its name would be refused, or the old life go on.
        loop {
            // A node that was cut off may have told the id of an earlier life, whose deletion says nothing (3079 of any size,
            // 60 s).
            client.ids.insert(TOPIC.to_owned(), id);
            if admin::delete(&mut client, TOPIC).await {
                break;
            }
            if client.is_stopping() {
                return;
            }
            client.ask_another();
            client.pause(300).await;
            // An earlier try may have been carried out, and its answer lost.
            if gone(&mut client).await {
                break;
            }
        }
    }
}

async fn gone(client: &mut Client) -> bool {
    client.forget(TOPIC);
    client.learn(TOPIC).await.is_ok() && !client.ids.contains_key(TOPIC)
}

/// The id of the topic's new life: a node that has not heard of it yet tells an old one.
async fn learn_new(client: &mut Client, over: &BTreeSet<Uuid>) -> Option<Uuid> {
    loop {
        client.forget(TOPIC);
        if client.learn(TOPIC).await.is_ok()
            && let Some(id) = client.ids.get(TOPIC).filter(|id| !over.contains(id))
        {
            return Some(*id);
        }
        if client.is_stopping() {
            return None;
        }
        client.ask_another();
        client.pause(100).await;
    }
}

/// One batch, once: what is not acknowledged may be there or not.
async fn write(client: &mut Client, life: &mut Life) {
    let count = 1 + u32::try_from(client.env.rng.below(4)).unwrap_or(0);
    let values: Vec<Value> = (life.serial..life.serial + count)
        .map(|serial| Value {
            producer: life.producer,
            serial,
        })
        .collect();
    life.serial += count;
    let timestamp = client.env.clock.wall().get();
    let data = PartitionProduceData::default()
        .with_index(0)
        .with_records(Some(record::encode(&values, Identity::NONE, timestamp, 40)));
    let topic = TopicProduceData::default()
        .with_topic_id(life.id)
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(2_000)
        .with_topic_data(vec![topic]);
    let answer = client.call(To::Leader(TOPIC, 0), &request).await;
    let written = answer.ok().and_then(|answer| {
        let partition = answer.responses.first()?.partition_responses.first()?;
        (partition.error_code == 0).then_some(partition.base_offset)
    });
    match written {
        Some(base) => life.acknowledged.extend((base..).zip(values)),
        None => learn_again(client).await,
    }
}

async fn learn_again(client: &mut Client) {
    client.leaders.retain(|(topic, _), _| topic != TOPIC);
    client.ask_another();
    client.pause(100).await;
}

/// Reads the life from its beginning until everything acknowledged was seen: only what was written in it may be there.
async fn look_back(client: &mut Client, life: &Life) {
    let mut next = 0;
    let end = life.acknowledged.last_key_value().map_or(0, |(last, _)| last + 1);
    let mut tries = 0;
    while next < end && tries < TRIES_MAX && !client.is_stopping() {
        tries += 1;
        let request = glance(TOPIC, life.id, 0, next);
        let answer = client.call(To::Leader(TOPIC, 0), &request).await;
        let found = answer
            .ok()
            .and_then(|answer| answer.responses.into_iter().next()?.partitions.into_iter().next());
        let records = found.as_ref().map(|partition| read(partition, next));
        match records {
            Some(Ok(records)) if !records.is_empty() => {
                for (offset, value) in records {
                    for (check, message) in judge(&client.name, life, offset, value) {
                        client.shared.violation(check, message);
                    }
                    next = offset + 1;
                }
            }
            Some(Ok(_) | Err(Bad::Records(_))) => client.pause(100).await,
            Some(Err(Bad::Error(_))) | None => learn_again(client).await,
        }
    }
}

/// In a life may be read what was written in it, and where it was acknowledged.
fn judge(who: &str, life: &Life, offset: i64, value: Value) -> Found {
    let mut found = Found::new();
    if value.producer != life.producer {
        found.push((
            "resurrected-record",
            format!(
                "{who} reads {value} at {offset} of {TOPIC} ({}): it was written in another life of the topic",
                life.id
            ),
        ));
    }
    if let Some(wanted) = life.acknowledged.get(&offset)
        && *wanted != value
    {
        found.push((
            "reborn-record-changed",
            format!(
                "{who} reads {value} at {offset} of {TOPIC} ({}), where {wanted} was acknowledged",
                life.id
            ),
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_former_life_is_read() {
        let mine = |serial| Value { producer: 7, serial };
        let life = Life {
            id: Uuid::nil(),
            producer: 7,
            serial: 2,
            acknowledged: BTreeMap::from([(0, mine(0)), (1, mine(1))]),
        };
        let checks = |offset, value| {
            let found = judge("a client", &life, offset, value).into_iter();
            found.map(|(check, _)| check).collect::<Vec<_>>()
        };
        // What was written and not acknowledged may be there as well.
        assert!(checks(1, mine(1)).is_empty() && checks(2, mine(5)).is_empty());
        assert_eq!(checks(1, mine(0)), ["reborn-record-changed"]);
        let of_another = Value {
            producer: 6,
            serial: 0,
        };
        assert_eq!(checks(2, of_another), ["resurrected-record"]);
    }
}
