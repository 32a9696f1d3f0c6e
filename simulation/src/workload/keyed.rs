//! A topic that is compacted: those who write few keys again and again, and delete some, and those who read it from the start
//! to know what each key has now.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::consume::{self, EARLIEST, FetchSessions, Position, Positions, Style, list_offset, new_session};
use super::produce::{IN_FLIGHT_MAX, Writer, deliver, identify, prepare_keyed};
use super::{Client, Shared, admin, key};
use crate::record::Identity;
use skerry_checker::history::{Note, RecordKey};

/// The topic that is compacted.
pub(crate) const KEYED: &str = "prices";
/// Its only partition.
pub(crate) const PARTITION: i32 = 0;
/// Some are written all the time; the others keep a value for seconds.
const HOT_KEYS: u64 = 4;
const COLD_KEYS: u64 = 60;
/// One record in so many deletes its key.
const TOMBSTONE_ONE_IN: u64 = 5;
/// The cleaner rests for a second between two rounds, and no round takes both a value and the tombstone behind it: so long
/// is a tombstone there at least when what it deletes is gone, though clocks run fast, and jump. But where a disk stands
/// still, one round ends when the next one begins.
const TOMBSTONES_STAY_MS: u64 = 400;
/// Longer than any clock jumps.
const NEVER_MS: u64 = 20 * 365 * 24 * 3_600_000;

/// Makes the topic; false where there was no time for it.
async fn set_up(client: &mut Client) -> bool {
    let rng = &client.env.rng;
    let mut settings = vec![
        ("cleanup.policy", "compact".to_owned()),
        ("segment.ms", (200 + rng.below(800)).to_string()),
        (
            "min.cleanable.dirty.ratio",
            ["0.01", "0.2", "0.5"][usize::try_from(rng.below(3)).unwrap_or(0)].to_owned(),
        ),
        ("message.timestamp.after.max.ms", i64::MAX.to_string()),
    ];
    let stays_ms = match client.is_alone() {
        true => rng.below(2_000),
        // A replica that is away until a tombstone is gone keeps what that deleted, in Kafka too: README, "Open".
        false => NEVER_MS,
    };
    settings.push(("delete.retention.ms", stays_ms.to_string()));
    if !client.is_alone() {
        let min_in_sync = client.shared.cluster.min_in_sync;
        settings.push(("min.insync.replicas", min_in_sync.to_string()));
    }
    while !admin::create(client, KEYED, PARTITION + 1, &settings).await {
        if client.is_stopping() {
            return false;
        }
        client.ask_another();
        client.pause(200).await;
    }
    if !client.shared.has_keyed.swap(true, Ordering::Relaxed) {
        note(&client.shared, client.shared.cluster.steady_disks);
    }
    true
}

fn note(shared: &Shared, is_steady: bool) {
    shared.note(Note::Compacted {
        key: key(KEYED, PARTITION),
        tombstones_stay_ms: if is_steady { TOMBSTONES_STAY_MS } else { 0 },
    });
}

/// Everything is healed, and nothing holds the cleaner up.
pub(super) fn note_health(shared: &Shared) {
    if shared.has_keyed.load(Ordering::Relaxed) {
        note(shared, true);
    }
}

/// A key, and now and then a tombstone for it.
fn draw_key(client: &Client) -> RecordKey {
    let rng = &client.env.rng;
    let key = match rng.chance(1, 2) {
        true => format!("hot-{}", rng.below(HOT_KEYS)),
        false => format!("cold-{}", rng.below(COLD_KEYS)),
    };
    RecordKey {
        key,
        tombstone: rng.chance(1, TOMBSTONE_ONE_IN),
    }
}

/// With an identity, and up to five batches on their way.
pub(super) async fn write(mut client: Client) {
    if !set_up(&mut client).await {
        return;
    }
    let mut writer = Writer::new(&client);
    let mut next = 0;
    while !client.is_stopping() {
        client.sit_out_a_lull().await;
        let Some((id, epoch)) = identify(&mut client, &mut writer).await else {
            break;
        };
        if client.topic_id(KEYED).await.is_none() {
            break;
        }
        let mut batches = VecDeque::new();
        for _ in 0..1 + client.env.rng.below(IN_FLIGHT_MAX) {
            let values = writer.values(1 + client.env.rng.below(3));
            let records: Vec<_> = values
                .into_iter()
                .map(|value| (value, draw_key(&client)))
                .collect();
            let identity = Identity {
                id,
                epoch,
                sequence: next,
            };
            next += i32::try_from(records.len()).unwrap_or(0);
            batches.push_back(prepare_keyed(&client, (KEYED, PARTITION), records, identity));
        }
        if let Err(failure) = deliver(&mut client, KEYED, PARTITION, -1, &mut batches).await {
            for batch in batches {
                client.complete(batch.op, failure.outcome());
            }
            writer = Writer::new(&client);
            next = 0;
        }
        client.pause(80).await;
    }
}

/// From the start to the end, again and again.
pub(super) async fn read(mut client: Client) {
    if !set_up(&mut client).await {
        return;
    }
    while !client.is_stopping() {
        client.sit_out_a_lull().await;
        if let Some(next) = list_offset(&mut client, KEYED, PARTITION, EARLIEST).await {
            read_from(&mut client, next).await;
        }
        client.pause(300).await;
    }
}

/// Until it gets nothing more, or is told that it is nowhere.
async fn read_from(client: &mut Client, next: i64) {
    let style = Style {
        newest: i16::MAX,
        max_wait_ms: 0,
        max_bytes: 1 << 20,
        min_bytes: 1,
        answer_max_bytes: 1 << 20,
    };
    let place = (KEYED.to_owned(), PARTITION);
    let position = Position {
        next,
        last_epoch: -1,
        session: new_session(client),
    };
    let mut positions = Positions::from([(place.clone(), position)]);
    while !client.is_stopping() {
        let before = positions.get(&place).map(|position| position.next);
        let result = consume::fetch(client, &mut FetchSessions::new(), style, &mut positions).await;
        let after = positions.get(&place).map(|position| position.next);
        match result {
            Ok(()) if after == before => return,
            Ok(()) => {}
            Err(_) if after.is_none() => return,
            Err(_) => client.pause(150).await,
        }
    }
}
