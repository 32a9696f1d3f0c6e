//! The anomalies of jepsen.tests.kafka and of SIMULATION.md 1.2, one after the other: a history that shows it, and beside it
//! the legal one that looks most like it. `checks` begins with the gravest.
//!
//! Absent until there are transactions: precommitted reads, aborted reads, torn transactions, cycles of reads and writes
//! (G1c), read-process-write intervals.

use super::history::Note;
use super::tests::{Writer, failed, send, value};
use super::*;

const LEGAL: [&str; 0] = [];

fn records(values: &[(i64, (u32, u32))]) -> Vec<(i64, history::Value)> {
    let named = values.iter();
    named
        .map(|(offset, (producer, serial))| (*offset, value(*producer, *serial)))
        .collect()
}

impl Writer {
    /// Nobody knows how these ended.
    fn unknown(&mut self, values: &[(u32, u32)]) -> &mut Self {
        for (producer, serial) in values {
            self.op(send(*producer, *serial, true, true), failed(false));
        }
        self
    }

    fn poll(&mut self, session: u64, from: i64, seen: &[(i64, (u32, u32))]) -> &mut Self {
        self.poll_of("c", session, (from, 0), seen)
    }

    fn poll_of(
        &mut self,
        client: &str,
        session: u64,
        (from, log_start): (i64, i64),
        seen: &[(i64, (u32, u32))],
    ) -> &mut Self {
        let asked = Op::Poll {
            key: "t-0".into(),
            session,
            from,
        };
        let outcome = Outcome::Polled {
            records: records(seen),
            high_watermark: 0,
            log_start,
        };
        self.as_client(client, asked, outcome)
    }

    fn as_client(&mut self, client: &str, op: Op, outcome: Outcome) -> &mut Self {
        let id = self.history.invoke(self.at, client, op);
        self.history.complete(self.at + 1, client, id, outcome);
        self.at += 2;
        self
    }

    /// Batches of one client: its values, in one operation.
    fn batch(&mut self, values: &[(u32, u32)], outcome: Outcome) -> &mut Self {
        let values = values.iter().map(|(producer, serial)| value(*producer, *serial));
        let op = Op::Send {
            key: "t-0".into(),
            values: values.collect(),
            idempotent: true,
            acks_all: true,
            record_keys: Vec::new(),
        };
        self.op(op, outcome)
    }

    fn trim(&mut self, before: i64, outcome: Outcome) -> &mut Self {
        let key = "t-0".into();
        self.op(Op::Trim { key, before }, outcome)
    }

    fn commit(&mut self, client: &str, generation: i32, offset: i64) -> &mut Self {
        let (group, key) = ("g".into(), "t-0".into());
        let op = Op::Commit {
            group,
            generation,
            key,
            offset,
        };
        self.as_client(client, op, Outcome::Done)
    }

    fn list_end(&mut self, offset: i64) -> &mut Self {
        self.op(Op::ListEnd { key: "t-0".into() }, Outcome::Offset { offset })
    }
}

fn new() -> Writer {
    Writer::default()
}

#[test]
fn inconsistent_offsets_of_two_readers() {
    let mut bad = new();
    bad.unknown(&[(1, 0), (2, 0)]);
    bad.poll(1, 0, &[(0, (1, 0))]).poll(2, 0, &[(0, (2, 0))]);
    assert_eq!(bad.checks()[0], "inconsistent-offsets");
    // The same record, read by two.
    let mut good = new();
    good.unknown(&[(1, 0), (2, 0)]);
    good.poll(1, 0, &[(0, (1, 0))]).poll(2, 0, &[(0, (1, 0))]);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn inconsistent_offsets_of_two_acknowledgements() {
    let mut bad = new();
    bad.sent(1, 0, 0).sent(2, 0, 0);
    assert_eq!(bad.checks()[0], "inconsistent-offsets");
    // A leader that nobody follows any more gives acks=1 offsets that its successor gives again.
    let mut good = new();
    good.history.note(0, Note::SeveralNodes);
    good.op(send(1, 0, true, false), Outcome::Sent { base: 0 })
        .sent(2, 0, 0);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn duplicate() {
    let both = [(0, (1, 0)), (1, (1, 0))];
    let mut bad = new();
    bad.unknown(&[(1, 0)]).poll(1, 0, &both);
    assert_eq!(bad.checks(), ["duplicate-record"]);
    // A plain producer has tried again.
    let mut good = new();
    good.op(send(1, 0, false, true), failed(false)).poll(1, 0, &both);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn lost_write() {
    let mut bad = new();
    bad.unknown(&[(3, 0), (3, 1)]).sent(1, 0, 0).sent(2, 0, 1);
    bad.poll(1, 0, &[(0, (1, 0)), (1, (3, 0)), (2, (3, 1))]);
    assert_eq!(bad.checks(), ["lost-record"]);
    // Nobody has read that far: it may be there.
    let mut good = new();
    good.sent(1, 0, 0).sent(2, 0, 1).poll(1, 0, &[(0, (1, 0))]);
    assert_eq!(good.checks(), LEGAL);
    // Nor has who began behind it.
    let mut good = new();
    good.sent(1, 0, 0).sent(2, 0, 1).sent(2, 1, 2);
    good.poll(1, 2, &[(2, (2, 1))]);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn lost_write_of_a_batch_that_nobody_knows_of() {
    let mut bad = new();
    bad.batch(&[(1, 0), (1, 1)], failed(false)).unknown(&[(2, 0)]);
    bad.poll(1, 0, &[(0, (1, 0)), (1, (2, 0))]);
    assert_eq!(bad.checks(), ["torn-batch"]);
    // Its second half has not been read yet; its first half was deleted.
    let mut good = new();
    good.batch(&[(1, 0), (1, 1)], failed(false)).unknown(&[(2, 0)]);
    good.poll(1, 0, &[(0, (1, 0))]);
    assert_eq!(good.checks(), LEGAL);
    let mut good = new();
    good.batch(&[(1, 0), (1, 1)], failed(false)).unknown(&[(2, 0)]);
    good.trim(1, Outcome::Offset { offset: 1 });
    good.poll_of("c", 1, (0, 1), &[(1, (1, 1)), (2, (2, 0))]);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn unseen() {
    let mut bad = new();
    bad.sent(1, 0, 0).sent(1, 1, 1).read(&records(&[(0, (1, 0))]));
    assert_eq!(bad.checks(), ["unseen-record"]);
    let mut good = new();
    good.sent(1, 0, 0)
        .unknown(&[(1, 1)])
        .read(&records(&[(0, (1, 0))]));
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn g1a_the_record_of_a_send_that_failed() {
    for (definite, expected) in [(true, &["refused-but-written"][..]), (false, &[])] {
        let mut writer = new();
        writer.op(send(1, 0, true, true), failed(definite));
        assert_eq!(writer.poll(1, 0, &[(0, (1, 0))]).checks(), expected);
    }
}

#[test]
fn read_from_the_future() {
    let mut bad = new();
    bad.poll(1, 0, &[(0, (1, 0))]).sent(1, 0, 0);
    assert_eq!(bad.checks()[0], "read-before-sent");
    // Nobody has heard of it yet, and it is there: it was being sent.
    let mut good = new();
    let id = good.history.invoke(0, "w", send(1, 0, true, true));
    good.at = 1;
    good.poll(1, 0, &[(0, (1, 0))]);
    good.history.complete(9, "w", id, Outcome::Sent { base: 0 });
    assert_eq!(good.checks(), LEGAL);
    let mut nobody = new();
    assert_eq!(nobody.poll(1, 0, &[(0, (1, 0))]).checks(), ["phantom-record"]);
}

#[test]
fn a_record_of_another_partition() {
    let mut bad = new();
    bad.sent(1, 0, 0);
    let op = Op::FinalRead { key: "t-1".into() };
    let outcome = Outcome::Polled {
        records: records(&[(0, (1, 0))]),
        high_watermark: 1,
        log_start: 0,
    };
    assert_eq!(bad.op(op, outcome).checks(), ["phantom-record"]);
}

const FOUR: [(u32, u32); 4] = [(1, 0), (1, 1), (1, 2), (1, 3)];

#[test]
fn int_poll_skip_and_int_nonmonotonic_poll() {
    let mut skip = new();
    skip.unknown(&FOUR).poll(1, 0, &[(0, (1, 0)), (2, (1, 2))]);
    assert_eq!(skip.checks(), ["skipped-in-a-poll"]);
    let mut back = new();
    back.unknown(&[(1, 0), (2, 0)])
        .poll(1, 0, &[(1, (1, 0)), (0, (2, 0))]);
    assert!(
        back.checks().contains(&"nonmonotonic-poll"),
        "{:?}",
        back.checks()
    );
    let mut good = new();
    good.unknown(&FOUR)
        .poll(1, 0, &[(0, (1, 0)), (1, (1, 1)), (2, (1, 2))]);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn poll_skip() {
    let mut bad = new();
    bad.unknown(&FOUR)
        .poll(1, 0, &[(0, (1, 0))])
        .poll(1, 2, &[(2, (1, 2))]);
    assert_eq!(bad.checks(), ["skipped-in-a-poll"]);
    let mut asked = new();
    asked.unknown(&FOUR).poll(1, 1, &[(2, (1, 2))]);
    assert_eq!(asked.checks(), ["skipped-in-a-poll"]);
    // A session of its own: it was assigned anew, or it sought.
    let mut good = new();
    good.unknown(&FOUR)
        .poll(1, 0, &[(0, (1, 0))])
        .poll(2, 2, &[(2, (1, 2))]);
    assert_eq!(good.checks(), LEGAL);
    // The session of another client, or one whose next records were deleted.
    let mut good = new();
    good.unknown(&FOUR).poll(1, 0, &[(0, (1, 0))]);
    good.poll_of("d", 1, (2, 0), &[(2, (1, 2))]);
    good.poll_of("c", 1, (1, 3), &[(3, (1, 3))]);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn nonmonotonic_poll() {
    let mut bad = new();
    bad.unknown(&FOUR).poll(1, 0, &[(0, (1, 0)), (1, (1, 1))]);
    bad.poll(1, 1, &[(1, (1, 1))]);
    assert_eq!(bad.checks(), ["nonmonotonic-poll"]);
    let mut good = new();
    good.unknown(&FOUR).poll(1, 0, &[(0, (1, 0)), (1, (1, 1))]);
    good.poll(2, 1, &[(1, (1, 1))]);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn nonmonotonic_send() {
    let swapped = [(0, (1, 1)), (1, (1, 0))];
    let mut bad = new();
    bad.unknown(&[(1, 0), (1, 1)]).poll(1, 0, &swapped);
    assert_eq!(bad.checks(), ["order-of-a-producer"]);
    // Before anybody has read them. Real time says so too, where the first was told before the second was sent.
    let mut told = new();
    told.sent(1, 0, 7).sent(1, 1, 3);
    assert_eq!(told.checks(), ["order-of-a-producer", "order-in-real-time"]);
    // Without idempotence, a retry may come after what was sent next.
    let mut good = new();
    for serial in 0..2 {
        good.op(send(1, serial, false, true), failed(false));
    }
    assert_eq!(good.poll(1, 0, &swapped).checks(), LEGAL);
}

#[test]
fn int_nonmonotonic_send() {
    let mut bad = new();
    bad.batch(&[(1, 0), (1, 1)], failed(false))
        .poll(1, 0, &[(0, (1, 1)), (1, (1, 0))]);
    assert_eq!(bad.checks(), ["order-of-a-producer"]);
}

/// `int-send-skip` and `G0` of Jepsen: others may write between, in any order.
#[test]
fn writers_are_not_isolated_from_each_other() {
    let mut good = new();
    good.unknown(&[(1, 0), (2, 0), (1, 1), (2, 1)]);
    good.poll(1, 0, &[(0, (2, 0)), (1, (1, 0)), (2, (1, 1)), (3, (2, 1))]);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn a_send_lands_behind_what_was_known() {
    // By an acknowledgement, by a reader, by an end that somebody was told.
    let known: [fn(&mut Writer); 3] = [
        |writer| {
            writer.sent(1, 0, 3);
        },
        |writer| {
            writer.unknown(&[(1, 0)]).poll(1, 3, &[(3, (1, 0))]);
        },
        |writer| {
            writer.list_end(4);
        },
    ];
    for known in known {
        let mut bad = new();
        known(&mut bad);
        assert_eq!(bad.sent(2, 0, 2).checks(), ["order-in-real-time"]);
        let mut good = new();
        known(&mut good);
        assert_eq!(good.sent(2, 0, 4).checks(), LEGAL);
    }
    // They were sent at the same time.
    let mut good = new();
    let id = good.history.invoke(0, "w", send(2, 0, true, true));
    good.at = 1;
    good.sent(1, 0, 3);
    good.history.complete(9, "w", id, Outcome::Sent { base: 2 });
    assert_eq!(good.checks(), LEGAL);
}

/// Beyond the contract: what was lost may be missing and others may be in its place; what is before it stays promised.
#[test]
fn what_was_given_up() {
    let lost = |from| Note::Lost {
        key: "t-0".into(),
        from,
    };
    let mut good = new();
    good.sent(1, 0, 0).sent(1, 1, 1).sent(1, 2, 2);
    good.poll(1, 0, &[(0, (1, 0)), (1, (1, 1)), (2, (1, 2))]);
    let mut bad = new();
    bad.sent(1, 0, 0).sent(1, 1, 1).sent(1, 2, 2);
    for (writer, from) in [(&mut good, 1), (&mut bad, 2)] {
        let at = writer.at;
        writer.history.note(at, lost(from));
        writer.sent(2, 0, 1).poll(2, 0, &[(0, (1, 0)), (1, (2, 0))]);
    }
    assert_eq!(good.checks(), LEGAL);
    assert_eq!(bad.checks()[0], "lost-record");
    // What a reader saw there before says nothing of what is there now, and a lost record does not come back elsewhere.
    let mut bad = new();
    bad.sent(1, 0, 0).sent(1, 1, 1);
    bad.history.note(bad.at, lost(1));
    bad.sent(2, 0, 1)
        .poll(1, 0, &[(0, (1, 0)), (1, (2, 0)), (2, (2, 0))]);
    assert_eq!(bad.checks(), ["duplicate-record"]);
}

#[test]
fn stale_ends() {
    let mut bad = new();
    assert_eq!(bad.sent(1, 0, 4).list_end(4).checks(), ["end-went-back"]);
    let mut good = new();
    assert_eq!(good.sent(1, 0, 4).list_end(5).checks(), LEGAL);
    // A new leader that does not know yet where the log ends says so (KIP-207).
    let mut bad = new();
    bad.history.note(0, Note::SeveralNodes);
    assert_eq!(bad.sent(1, 0, 4).list_end(4).checks(), ["end-went-back"]);
    // Asked before it was known.
    let mut good = new();
    let id = good.history.invoke(0, "a", Op::ListEnd { key: "t-0".into() });
    good.at = 1;
    good.sent(1, 0, 4);
    good.history.complete(9, "a", id, Outcome::Offset { offset: 0 });
    assert_eq!(good.checks(), LEGAL);
    // Beyond the contract, what was known is lost while somebody asks.
    for (from, verdict) in [(4, &["end-went-back"][..]), (3, &LEGAL)] {
        let mut lost = new();
        lost.sent(1, 0, 4);
        let id = lost
            .history
            .invoke(lost.at, "a", Op::ListEnd { key: "t-0".into() });
        let key = "t-0".into();
        lost.history.note(lost.at, Note::Lost { key, from });
        lost.history
            .complete(lost.at, "a", id, Outcome::Offset { offset: 3 });
        assert_eq!(lost.checks(), verdict);
    }
}

/// What readers are told of the end lags behind a new leader's election: it hears from its followers what is committed.
#[test]
fn watermarks_that_lag() {
    for (nodes, verdict) in [(1, &["high-watermark-went-back"][..]), (3, &LEGAL)] {
        let mut writer = new();
        if nodes > 1 {
            writer.history.note(0, Note::SeveralNodes);
        }
        writer.sent(1, 0, 0);
        for (session, high_watermark) in [(1, 1), (2, 0)] {
            let (key, from) = ("t-0".into(), 0);
            let told = Outcome::Polled {
                records: if high_watermark > 0 {
                    records(&[(0, (1, 0))])
                } else {
                    vec![]
                },
                high_watermark,
                log_start: 0,
            };
            writer.op(Op::Poll { key, session, from }, told);
        }
        assert_eq!(writer.checks(), verdict, "{nodes} nodes");
    }
}

fn join(writer: &mut Writer, generation: i32) {
    let op = Op::Join { group: "g".into() };
    writer.op(op, Outcome::Joined { generation });
}

#[test]
fn zombie_commits() {
    let mut bad = new();
    join(&mut bad, 1);
    join(&mut bad, 2);
    assert_eq!(bad.commit("c", 1, 0).checks(), ["zombie-commit"]);
    // Who owns partitions in a generation has entered it.
    let mut owned = new();
    let own = Op::Own {
        group: "g".into(),
        generation: 2,
        member: "m".into(),
        keys: vec![],
    };
    owned.op(own, Outcome::Done).commit("c", 1, 0);
    assert_eq!(owned.checks(), ["zombie-commit"]);
    // It was on its way when the next generation began.
    let mut good = new();
    join(&mut good, 1);
    let (group, key) = ("g".into(), "t-0".into());
    let op = Op::Commit {
        group,
        generation: 1,
        key,
        offset: 0,
    };
    let id = good.history.invoke(good.at, "c", op);
    join(&mut good, 2);
    good.history.complete(99, "c", id, Outcome::Done);
    assert_eq!(good.checks(), LEGAL);
}

#[test]
fn lost_commits() {
    let read = |offset| {
        let (group, key) = ("g".into(), "t-0".into());
        (Op::ReadCommit { group, key }, Outcome::Offset { offset })
    };
    for (offset, expected) in [(4, &["lost-commit"][..]), (5, &[]), (6, &["phantom-commit"])] {
        let mut writer = new();
        writer.commit("c", 1, 5);
        let (op, outcome) = read(offset);
        assert_eq!(writer.op(op, outcome).checks(), expected);
    }
}

#[test]
fn a_partition_twice_in_a_generation() {
    let own = |generation, member: &str| Op::Own {
        group: "g".into(),
        generation,
        member: member.into(),
        keys: vec!["t-0".into()],
    };
    let mut bad = new();
    bad.op(own(1, "a"), Outcome::Done).op(own(1, "b"), Outcome::Done);
    assert_eq!(bad.checks(), ["two-owners"]);
    let mut good = new();
    good.op(own(1, "a"), Outcome::Done).op(own(2, "b"), Outcome::Done);
    assert_eq!(good.checks(), LEGAL);
    // A group whose records were given up begins again.
    let mut lost = new();
    lost.op(own(1, "a"), Outcome::Done);
    lost.history.note(lost.at, Note::GroupsLost);
    lost.op(own(1, "b"), Outcome::Done);
    assert_eq!(lost.checks(), LEGAL);
    lost.op(own(1, "c"), Outcome::Done);
    assert_eq!(lost.checks(), ["two-owners"]);
}

#[test]
fn at_least_once_below_what_is_committed() {
    let five = [(0, (1, 0)), (1, (1, 1)), (2, (1, 2)), (3, (1, 3)), (4, (1, 4))];
    let sent = || {
        let mut writer = new();
        writer.unknown(&five.map(|(_, value)| value));
        writer.poll_of("m1", 1, (0, 0), &five[..2]);
        writer
    };
    let mut bad = sent();
    assert_eq!(bad.commit("m1", 1, 5).checks(), ["committed-unread"]);
    // A stranger has read it, who is no member.
    let mut bad = sent();
    bad.poll_of("reader", 2, (2, 0), &five[2..]);
    assert_eq!(bad.commit("m1", 1, 5).checks(), ["committed-unread"]);
    // Another member has read it, though only now.
    let mut bad = sent();
    bad.commit("m1", 1, 5).poll_of("m2", 2, (2, 0), &five[2..]);
    assert_eq!(bad.commit("m2", 1, 5).checks(), ["committed-unread"]);
    let mut good = sent();
    good.poll_of("m2", 2, (2, 0), &five[2..]).commit("m2", 1, 5);
    assert_eq!(good.checks(), LEGAL);
    // What is deleted reaches nobody; who is no member sets offsets as it likes.
    let mut good = sent();
    good.poll_of("m2", 2, (2, 4), &five[4..]).commit("m2", 1, 5);
    assert_eq!(good.checks(), LEGAL);
    let mut good = sent();
    assert_eq!(good.commit("tool", -1, 5).checks(), LEGAL);
}

#[test]
fn what_was_deleted_does_not_come_back() {
    let history = |outcome, log_start| {
        let mut writer = new();
        writer.sent(1, 0, 0).sent(1, 1, 1).sent(1, 2, 2).trim(2, outcome);
        let op = Op::FinalRead { key: "t-0".into() };
        let all = [(0, (1, 0)), (1, (1, 1)), (2, (1, 2))];
        let outcome = Outcome::Polled {
            records: records(&all[log_start..]),
            high_watermark: 3,
            log_start: log_start as i64,
        };
        writer.op(op, outcome).checks()
    };
    assert_eq!(history(Outcome::Offset { offset: 2 }, 2), LEGAL);
    assert_eq!(
        history(Outcome::Offset { offset: 2 }, 1),
        ["deleted-records-back"]
    );
    // Nobody was told that it was done.
    assert_eq!(history(failed(false), 1), LEGAL);
}

#[test]
fn what_was_deleted_is_missed_by_nobody() {
    let end = |writer: &mut Writer, log_start| {
        let op = Op::FinalRead { key: "t-0".into() };
        let outcome = Outcome::Polled {
            records: records(&[(2, (1, 2))]),
            high_watermark: 3,
            log_start,
        };
        writer.op(op, outcome);
    };
    // Retention, as the start tells; DeleteRecords, also where nobody heard how it ended.
    let deletions: [fn(&mut Writer); 3] = [
        |_| (),
        |writer| {
            writer.trim(2, Outcome::Offset { offset: 2 });
        },
        |writer| {
            writer.trim(2, failed(false));
        },
    ];
    for delete in deletions {
        let mut good = new();
        good.sent(1, 0, 0).sent(1, 1, 1).sent(1, 2, 2);
        delete(&mut good);
        end(&mut good, 2);
        assert_eq!(good.checks(), LEGAL);
    }
    let mut bad = new();
    bad.sent(1, 0, 0).sent(1, 1, 1).sent(1, 2, 2);
    bad.trim(2, failed(true));
    end(&mut bad, 0);
    assert_eq!(bad.checks()[0], "lost-record");
}
