//! A producer that was replaced by itself, and its old self that goes on (KIP-360: an idempotent producer raises its epoch
//! where it has lost its place). What the old epoch sends must be refused.

use std::collections::VecDeque;

use skerry_client::ResponseError;

use super::produce::{Heard, Writer, deliver, identify, prepare, send_all, was_damaged};
use super::{Client, TOPICS, TRIMMED, error_name, pick};
use crate::invariants::Found;
use crate::record::Identity;
use skerry_checker::history::Outcome;

const ACKS_ALL: i16 = -1;

pub(super) async fn run(mut client: Client) {
    while !client.is_stopping() {
        let mut writer = Writer::new(&client);
        let Some((id, old)) = identify(&mut client, &mut writer).await else {
            return;
        };
        let (topic, partitions) = *pick(&client.env, &TOPICS);
        // Where records are deleted, nobody need remember who wrote them.
        if topic == TRIMMED {
            continue;
        }
        let partition = i32::try_from(client.env.rng.below(partitions.unsigned_abs().into())).unwrap_or(0);
        let place = (topic, partition);
        let Some(next) = write(&mut client, &mut writer, place, (id, old), 0).await else {
            continue;
        };
        let Some(after) = write(&mut client, &mut writer, place, (id, old + 1), 0).await else {
            continue;
        };
        // Its old self: now and then in order, now and then from the beginning.
        let sequence = if client.env.rng.chance(1, 2) { next } else { 0 };
        haunt(&mut client, &mut writer, place, (id, old), sequence).await;
        write(&mut client, &mut writer, place, (id, old + 1), after).await;
        client.pause(400).await;
    }
}

/// Writes one batch, retried until it is answered; the sequence that follows it.
async fn write(
    client: &mut Client,
    writer: &mut Writer,
    (topic, partition): (&'static str, i32),
    (id, epoch): (i64, i16),
    sequence: i32,
) -> Option<i32> {
    client.topic_id(topic).await?;
    let values = writer.values(1 + client.env.rng.below(3));
    let next = sequence + i32::try_from(values.len()).unwrap_or(0);
    let identity = Identity { id, epoch, sequence };
    let mut batches = VecDeque::from([prepare(client, topic, partition, values, identity, ACKS_ALL)]);
    match deliver(client, topic, partition, ACKS_ALL, &mut batches).await {
        Ok(()) => Some(next),
        Err(failure) => {
            for batch in batches {
                client.complete(batch.op, failure.outcome());
            }
            None
        }
    }
}

/// Writes as one whose epoch is over.
async fn haunt(
    client: &mut Client,
    writer: &mut Writer,
    (topic, partition): (&'static str, i32),
    (id, epoch): (i64, i16),
    sequence: i32,
) {
    let values = writer.values(1);
    let identity = Identity { id, epoch, sequence };
    let batches = VecDeque::from([prepare(client, topic, partition, values, identity, ACKS_ALL)]);
    let heard = send_all(client, topic, partition, ACKS_ALL, &batches).await;
    let op = batches[0].op;
    match heard.into_iter().next() {
        Some(Heard::Refused(code)) => {
            let outcome = Outcome::Failed {
                definite: true,
                why: error_name(code),
            };
            client.complete(op, outcome);
            if was_damaged(client, code, &batches[0]) {
                return;
            }
            client.report(judge((topic, partition), (id, epoch), Err(code)));
        }
        Some(Heard::Written(base)) => {
            client.complete(op, Outcome::Sent { base });
            client.report(judge((topic, partition), (id, epoch), Ok(base)));
        }
        Some(Heard::Retry(why)) => {
            client.disconnect();
            client.complete(op, Outcome::Failed { definite: false, why });
        }
        None => client.complete(
            op,
            Outcome::Failed {
                definite: false,
                why: "no answer".to_owned(),
            },
        ),
    }
}

/// What a producer whose epoch is over was told: where it was written, or an error.
fn judge((topic, partition): (&str, i32), (id, epoch): (i64, i16), told: Result<i64, i16>) -> Found {
    let heard = match told {
        Ok(base) => format!("it was written at {base}"),
        Err(code) if ResponseError::try_from_code(code) == Some(ResponseError::InvalidProducerEpoch) => {
            return Found::new();
        }
        Err(code) => format!("it was told {}, not InvalidProducerEpoch", error_name(code)),
    };
    let after = epoch + 1;
    let message = format!(
        "sent epoch {epoch} of producer {id} to {topic}-{partition} after epoch {after} was acknowledged: {heard}"
    );
    vec![("zombie-producer", message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_producer_whose_epoch_is_over_is_told_so() {
        let judged = |told| judge(("orders", 0), (7, 2), told);
        assert!(judged(Err(ResponseError::InvalidProducerEpoch.code())).is_empty());
        for wrong in [Ok(5), Err(ResponseError::OutOfOrderSequenceNumber.code())] {
            assert_eq!(judged(wrong)[0].0, "zombie-producer");
        }
    }
}
