//! What a log that is compacted may lose and what not: a history that shows the mistake, and beside it the legal one that
//! looks most like it.

use super::history::{Note, RecordKey};
use super::tests::{Writer, failed, value};
use super::*;

const LEGAL: [&str; 0] = [];
/// A tombstone goes so long after what was before it.
const STAYS_MS: u64 = 1;
/// Longer than that.
const LONG: u64 = 5_000;

/// A record of a producer: its number, its serial, and its key; in capitals where it deletes the key.
type Sent<'a> = (u32, u32, &'a str);

impl Writer {
    fn keyed(&mut self, sent: &[Sent<'_>], outcome: Outcome) -> &mut Self {
        let op = Op::Send {
            key: "t-0".into(),
            values: sent
                .iter()
                .map(|(producer, serial, _)| value(*producer, *serial))
                .collect(),
            idempotent: true,
            acks_all: true,
            record_keys: sent
                .iter()
                .map(|(.., key)| RecordKey {
                    key: key.to_lowercase(),
                    tombstone: key.to_uppercase() == **key,
                })
                .collect(),
        };
        self.op(op, outcome)
    }

    fn told(&mut self, producer: u32, serial: u32, key: &str, base: i64) -> &mut Self {
        self.keyed(&[(producer, serial, key)], Outcome::Sent { base })
    }

    /// A part of a reading, by a client that reads nothing else.
    fn part(
        &mut self,
        session: u64,
        from: i64,
        seen: &[(i64, (u32, u32))],
        high_watermark: i64,
    ) -> &mut Self {
        let key = "t-0".into();
        let outcome = Outcome::Polled {
            records: named(seen),
            high_watermark,
            log_start: 0,
        };
        self.op(Op::Poll { key, session, from }, outcome)
    }

    /// The whole log, in one part.
    fn all(&mut self, session: u64, seen: &[(i64, (u32, u32))], end: i64) -> &mut Self {
        self.part(session, 0, seen, end)
    }

    fn end(&mut self, seen: &[(i64, (u32, u32))], end: i64) -> &mut Self {
        let outcome = Outcome::Polled {
            records: named(seen),
            high_watermark: end,
            log_start: 0,
        };
        self.op(Op::FinalRead { key: "t-0".into() }, outcome)
    }

    fn wait(&mut self) -> &mut Self {
        self.at += LONG;
        self
    }
}

fn named(seen: &[(i64, (u32, u32))]) -> Vec<(i64, history::Value)> {
    seen.iter()
        .map(|(offset, (producer, serial))| (*offset, value(*producer, *serial)))
        .collect()
}

fn new() -> Writer {
    let mut writer = Writer::default();
    let note = Note::Compacted {
        key: "t-0".into(),
        tombstones_stay_ms: STAYS_MS,
    };
    writer.history.note(0, note);
    writer
}

/// Values of `a` and `b`, and another one of `a`, at 0, 1 and 2.
fn three() -> Writer {
    let mut writer = new();
    writer.told(1, 0, "a", 0).told(1, 1, "b", 1).told(1, 2, "a", 2);
    writer
}

#[test]
fn what_is_superseded_may_be_gone() {
    let mut good = three();
    good.all(1, &[(1, (1, 1)), (2, (1, 2))], 3)
        .end(&[(1, (1, 1)), (2, (1, 2))], 3);
    assert_eq!(good.checks(), LEGAL);
    // The one that is the last of its key.
    let mut bad = three();
    bad.end(&[(0, (1, 0)), (2, (1, 2))], 3);
    assert_eq!(bad.checks(), ["lost-record", "last-value-lost"]);
    // The same in a log that is not compacted.
    let mut bad = Writer::default();
    bad.told(1, 0, "a", 0).told(1, 1, "b", 1).told(1, 2, "a", 2);
    bad.end(&[(1, (1, 1)), (2, (1, 2))], 3);
    assert_eq!(bad.checks()[0], "lost-record");
}

#[test]
fn what_took_its_place_must_be_known_to_be_behind_it() {
    // Nobody knows how the later one ended; somebody has read it.
    let unsure = |seen: &[(i64, (u32, u32))], key| {
        let mut writer = new();
        writer.told(1, 0, "a", 0).keyed(&[(1, 1, key)], failed(false));
        writer.told(2, 0, "b", 2).end(seen, 3);
        writer
    };
    assert_eq!(unsure(&[(1, (1, 1)), (2, (2, 0))], "a").checks(), LEGAL);
    // Nobody has: if it had been there, it would be there.
    let checks = unsure(&[(2, (2, 0))], "a").checks();
    assert_eq!(checks, ["lost-record", "last-value-lost"]);
    // One of another key.
    let checks = unsure(&[(1, (1, 1)), (2, (2, 0))], "c").checks();
    assert_eq!(checks, ["lost-record", "last-value-lost"]);
    // A tombstone takes what is before it, and goes.
    assert_eq!(unsure(&[(2, (2, 0))], "A").checks(), LEGAL);
    // One that was refused takes nothing.
    let mut bad = new();
    bad.told(1, 0, "a", 0).keyed(&[(1, 1, "A")], failed(true));
    bad.told(2, 0, "b", 2).end(&[(2, (2, 0))], 3);
    assert_eq!(bad.checks(), ["lost-record", "last-value-lost"]);
}

#[test]
fn holes_are_no_skips_and_going_back_is() {
    let mut good = three();
    good.told(1, 3, "c", 3);
    good.part(1, 0, &[(2, (1, 2))], 9).part(1, 3, &[(3, (1, 3))], 9);
    assert_eq!(
        good.checks(),
        ["lost-record"],
        "b is gone, and nothing else is wrong"
    );
    let mut bad = three();
    bad.part(1, 0, &[(1, (1, 1)), (2, (1, 2))], 9)
        .part(1, 2, &[(2, (1, 2))], 9);
    assert_eq!(bad.checks(), ["nonmonotonic-poll"]);
}

#[test]
fn compaction_makes_nothing_up() {
    let mut phantom = three();
    assert_eq!(
        phantom.end(&[(0, (9, 9)), (1, (1, 1)), (2, (1, 2))], 3).checks()[0],
        "lost-record"
    );
    let mut nobody = new();
    nobody.end(&[(0, (9, 9))], 1);
    assert_eq!(nobody.checks(), ["phantom-record"]);
    // An offset never has two values, though the first one may be gone.
    let mut two = new();
    two.keyed(&[(1, 0, "a")], failed(false))
        .keyed(&[(2, 0, "a")], failed(false));
    two.all(1, &[(0, (1, 0))], 1).all(2, &[(0, (2, 0))], 1);
    assert_eq!(two.checks()[0], "inconsistent-offsets");
    let mut twice = new();
    twice
        .keyed(&[(1, 0, "a")], failed(false))
        .all(1, &[(0, (1, 0)), (1, (1, 0))], 2);
    assert_eq!(twice.checks(), ["duplicate-record"]);
    let mut swapped = new();
    swapped
        .keyed(&[(1, 0, "a")], failed(false))
        .keyed(&[(1, 1, "b")], failed(false))
        .all(1, &[(3, (1, 1)), (7, (1, 0))], 8);
    assert_eq!(swapped.checks(), ["order-of-a-producer"]);
    // A log that ends before what was acknowledged has lost it, superseded or not.
    let mut short = new();
    short.told(1, 0, "a", 0).told(1, 1, "A", 1).end(&[], 0);
    assert_eq!(short.checks()[0], "unseen-record");
}

#[test]
fn half_of_a_batch_may_be_superseded() {
    let mut good = new();
    good.keyed(&[(1, 0, "a"), (1, 1, "b")], failed(false));
    good.told(2, 0, "a", 2).end(&[(1, (1, 1)), (2, (2, 0))], 3);
    assert_eq!(good.checks(), LEGAL);
    let mut bad = new();
    bad.keyed(&[(1, 0, "a"), (1, 1, "b")], failed(false));
    bad.told(2, 0, "a", 2).end(&[(0, (1, 0)), (2, (2, 0))], 3);
    assert_eq!(bad.checks(), ["torn-batch"]);
}

#[test]
fn the_last_value_of_a_key_survives() {
    // A reader begins when 2 is known, and ends with 0 or with nothing.
    for seen in [
        &[(0, (1, 0)), (1, (1, 1)), (3, (1, 3))][..],
        &[(1, (1, 1)), (3, (1, 3))],
    ] {
        let mut bad = three();
        bad.told(1, 3, "c", 3).all(1, seen, 4);
        assert_eq!(bad.checks(), ["lost-record", "last-value-lost"]);
    }
    // It has not come that far; or something later of the key is behind the end of what it read.
    let mut good = three();
    good.part(1, 0, &[(0, (1, 0)), (1, (1, 1))], 3);
    assert_eq!(good.checks(), LEGAL);
    let mut good = three();
    good.told(1, 3, "c", 3);
    let id = good.history.invoke(
        good.at,
        "r",
        Op::Poll {
            key: "t-0".into(),
            session: 1,
            from: 0,
        },
    );
    good.at += 1;
    good.told(1, 4, "a", 4);
    let outcome = Outcome::Polled {
        records: named(&[(1, (1, 1)), (3, (1, 3))]),
        high_watermark: 4,
        log_start: 0,
    };
    good.history.complete(good.at, "r", id, outcome);
    assert_eq!(good.checks(), LEGAL);
    // It began before 2 was known: whatever it ends with was there.
    let mut good = new();
    good.told(1, 0, "a", 0).told(1, 1, "b", 1);
    good.part(1, 0, &[(0, (1, 0))], 2);
    good.told(1, 2, "a", 2).part(1, 1, &[(1, (1, 1))], 2);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn a_reader_that_began_elsewhere_proves_nothing() {
    let mut good = three();
    good.told(1, 3, "c", 3);
    // From the middle, and from the start to somewhere and back.
    good.part(1, 3, &[(3, (1, 3))], 4);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn a_deleted_key_stays_deleted() {
    let deleted = || {
        let mut writer = new();
        writer.told(1, 0, "a", 0).told(1, 1, "b", 1).told(1, 2, "A", 2);
        writer
    };
    let rest = [(1, (1, 1)), (3, (1, 3))];
    let mut good = deleted();
    good.told(1, 3, "c", 3).all(1, &rest, 4).end(&rest, 4);
    assert_eq!(good.checks(), LEGAL, "the tombstone is gone with what it deleted");
    let mut good = deleted();
    let early = [(1, (1, 1)), (2, (1, 2)), (3, (1, 3))];
    good.told(1, 3, "c", 3).all(1, &early, 4).end(&rest, 4);
    assert_eq!(good.checks(), LEGAL, "and was there before");
    // What it deleted is there without it.
    let back = [(0, (1, 0)), (1, (1, 1)), (3, (1, 3))];
    let mut bad = deleted();
    bad.told(1, 3, "c", 3).all(1, &back, 4);
    assert_eq!(bad.checks(), ["deleted-key-came-back"]);
    let mut bad = deleted();
    bad.told(1, 3, "c", 3).end(&back, 4);
    assert_eq!(bad.checks(), ["deleted-key-came-back"]);
    // Somebody who reads slowly may see the value, and the tombstone not any more.
    let mut good = deleted();
    good.told(1, 3, "c", 3).part(1, 0, &back[..2], 4);
    good.wait().part(1, 2, &back[2..], 4);
    assert_eq!(good.checks(), LEGAL);
    let mut bad = deleted();
    bad.told(1, 3, "c", 3).part(1, 0, &back[..2], 4);
    assert_eq!(bad.part(1, 2, &back[2..], 4).checks(), ["deleted-key-came-back"]);
    // A value that came after it was deleted.
    let mut good = deleted();
    good.told(1, 3, "a", 3).all(1, &[(1, (1, 1)), (3, (1, 3))], 4);
    assert_eq!(good.checks(), LEGAL);
}

/// Beyond the contract: what was superseded by something that was given up may be gone with it.
#[test]
fn what_was_given_up_had_taken_others() {
    let given_up = |from| {
        let mut writer = three();
        let key = "t-0".into();
        writer.history.note(writer.at, Note::Lost { key, from });
        writer.end(&[(1, (1, 1))], 2);
        writer.checks()
    };
    assert_eq!(given_up(2), LEGAL);
    assert_eq!(given_up(3)[0], "unseen-record");
}

#[test]
fn a_history_of_compacted_logs_is_read_as_it_was_written_and_an_older_one_too() {
    let mut writer = new();
    writer.told(1, 0, "a", 0).told(1, 1, "A", 1);
    let mut bytes = Vec::new();
    writer.history.write(&mut bytes).unwrap();
    let again = history::History::read(&mut bytes.as_slice()).unwrap();
    assert_eq!(again.events, writer.history.events);
    let older = br#"{"at":1,"id":0,"client":"c","what":{"invoke":{"op":"send","key":"t-0","values":["p1.0"],"idempotent":true,"acks_all":true}}}"#;
    let older = history::History::read(&mut &older[..]).unwrap();
    assert!(matches!(
        &older.events[0].what,
        What::Invoke(Op::Send { record_keys, .. }) if record_keys.is_empty()
    ));
}
