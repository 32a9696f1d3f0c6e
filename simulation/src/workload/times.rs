//! Who asks which record is the first of a time (ListOffsets by timestamp), and reads whether it is.

use kafka_protocol::messages::FetchResponse;

use super::consume::{EARLIEST, LATEST, glance, list, list_offset};
use super::{Client, To, key};
use crate::invariants::Found;
use crate::record;

/// So many records before the answer are looked at: one of them may be of that time, too.
const BEFORE: i64 = 50;

/// A batch of records that all have the same time, as those of the producers here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamped {
    base: i64,
    end: i64,
    timestamp: i64,
}

impl Stamped {
    const fn has(&self, offset: i64) -> bool {
        self.base <= offset && offset < self.end
    }
}

/// Again and again, of one record after the other.
pub(super) async fn run(mut client: Client) {
    while !client.is_stopping() {
        client.sit_out_a_lull().await;
        let (topic, partition) = client.draw_partition();
        if look(&mut client, topic, partition).await.is_none() {
            client.forget(topic);
        }
        client.pause(300).await;
    }
}

/// Takes a record, and asks who has its time. `None`: somebody did not answer, or what was read is gone again.
async fn look(client: &mut Client, topic: &'static str, partition: i32) -> Option<()> {
    let start = list_offset(client, topic, partition, EARLIEST).await?;
    let end = list_offset(client, topic, partition, LATEST).await?;
    let there = u64::try_from(end - start).ok().filter(|count| *count > 0)?;
    let offset = start + i64::try_from(client.env.rng.below(there)).ok()?;
    let known = *batches(client, topic, partition, offset).await?.first()?;
    // Now and then a time that no record has: a moment earlier.
    let asked = known.timestamp - i64::from(client.env.rng.chance(1, 3));
    let answer = list(client, topic, partition, asked).await?;
    let around = batches(client, topic, partition, start.max(answer.0 - BEFORE)).await?;
    // What is deleted meanwhile, or damaged where it lies, proves nothing.
    let is_there = batches(client, topic, partition, offset).await?.first() == Some(&known);
    let is_deleted = list_offset(client, topic, partition, EARLIEST).await? > start;
    let name = key(topic, partition);
    if !is_there || is_deleted || client.shared.rotten.may_be_sent(&name) {
        return None;
    }
    for (check, message) in judge(asked, offset, answer, &around) {
        let message = format!("{name}, of which {} knows {known:?}: {message}", client.name);
        client.shared.violation(check, message);
    }
    Some(())
}

/// The batches of an answer from `from` on, as far as they are whole.
async fn batches(client: &mut Client, topic: &str, partition: i32, from: i64) -> Option<Vec<Stamped>> {
    let id = client.topic_id(topic).await?;
    let request = glance(topic, id, partition, from);
    let answer: FetchResponse = client.call(To::Leader(topic, partition), &request).await.ok()?;
    let found = answer.responses.first()?.partitions.first()?;
    if found.error_code != 0 {
        return None;
    }
    let bytes = found.records.as_deref().unwrap_or_default();
    let whole = record::batches(bytes).take_while(record::Batch::is_whole);
    let stamped = whole.map(|batch| Stamped {
        base: batch.base,
        end: batch.end(),
        timestamp: batch.timestamp(),
    });
    Some(stamped.collect())
}

/// The first record with this timestamp, or a later one, and which it has. There is one at `offset`, and `around` is what lies
/// before the answer, and there.
fn judge(asked: i64, offset: i64, (found, timestamp): (i64, i64), around: &[Stamped]) -> Found {
    let what = format!("asked for the time {asked}, the leader tells {found} with {timestamp}");
    let wrong = |why: String| vec![("offset-for-time-differs", format!("{what}; {why}"))];
    if found < 0 || found > offset {
        return wrong(format!("{offset} has that time"));
    }
    if timestamp < asked {
        return wrong("that is earlier".to_owned());
    }
    let is_first = |batch: &&Stamped| batch.timestamp >= asked && batch.base < found && batch.end <= found;
    if let Some(first) = around.iter().find(is_first) {
        return wrong(format!("{first:?} is before it"));
    }
    match around.iter().find(|batch| batch.has(found)) {
        Some(there) if there.timestamp != timestamp => wrong(format!("there is {there:?}")),
        _ => Found::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_record_of_a_time_is_told() {
        let batch = |base: i64, timestamp: i64| Stamped {
            base,
            end: base + 2,
            timestamp,
        };
        // Clocks of producers differ: times are not in order.
        let log = [batch(0, 100), batch(2, 300), batch(4, 200), batch(6, 300)];
        let is_broken = |(check, _): &(&str, String)| *check == "offset-for-time-differs";
        let broken = |asked, answer| judge(asked, 6, answer, &log).iter().any(is_broken);
        assert!(!broken(300, (2, 300)));
        assert!(!broken(101, (2, 300)));
        assert!(!broken(100, (0, 100)));
        // A later one, the next one, none, one that is too early, one with another time than it has.
        assert!(broken(300, (6, 300)));
        assert!(broken(150, (4, 200)));
        assert!(broken(300, (7, 300)));
        assert!(broken(300, (-1, -1)));
        assert!(broken(250, (4, 200)));
        assert!(broken(300, (2, 301)));
    }
}
