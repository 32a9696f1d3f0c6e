use super::history::{Note, Value};
use super::*;

pub(super) fn value(producer: u32, serial: u32) -> Value {
    Value { producer, serial }
}

/// Writes a history the short way.
#[derive(Default)]
pub(super) struct Writer {
    pub(super) history: History,
    pub(super) at: u64,
}

impl Writer {
    pub(super) fn op(&mut self, op: Op, outcome: Outcome) -> &mut Self {
        let id = self.history.invoke(self.at, "c", op);
        self.history.complete(self.at + 1, "c", id, outcome);
        self.at += 2;
        self
    }

    pub(super) fn sent(&mut self, producer: u32, serial: u32, base: i64) -> &mut Self {
        self.op(send(producer, serial, true, true), Outcome::Sent { base })
    }

    pub(super) fn read(&mut self, records: &[(i64, Value)]) -> &mut Self {
        let high_watermark = records.last().map_or(0, |(offset, _)| offset + 1);
        let polled = Outcome::Polled {
            records: records.to_vec(),
            high_watermark,
            log_start: 0,
        };
        self.op(Op::FinalRead { key: "t-0".into() }, polled)
    }

    pub(super) fn checks(&self) -> Vec<&'static str> {
        let mut checks: Vec<_> = check(&self.history)
            .into_iter()
            .map(|violation| violation.check)
            .collect();
        checks.dedup();
        checks
    }
}

pub(super) fn send(producer: u32, serial: u32, idempotent: bool, acks_all: bool) -> Op {
    Op::Send {
        key: "t-0".into(),
        values: vec![value(producer, serial)],
        idempotent,
        acks_all,
        record_keys: Vec::new(),
    }
}

pub(super) fn failed(definite: bool) -> Outcome {
    Outcome::Failed {
        definite,
        why: "x".into(),
    }
}

#[test]
fn a_clean_history_is_clean() {
    let mut writer = Writer::default();
    writer
        .sent(1, 0, 0)
        .sent(1, 1, 1)
        .op(send(2, 0, true, true), failed(false));
    writer.read(&[(0, value(1, 0)), (1, value(1, 1)), (2, value(2, 0))]);
    assert_eq!(writer.checks(), Vec::<&str>::new());
}

#[test]
fn an_acknowledged_record_that_is_gone_is_lost() {
    let mut writer = Writer::default();
    writer.sent(1, 0, 0).sent(1, 1, 1).sent(1, 2, 2);
    writer.read(&[(0, value(1, 0)), (2, value(1, 2))]);
    assert_eq!(
        writer.checks(),
        ["lost-record", "gap-in-the-log", "skipped-in-a-poll"]
    );
}

#[test]
fn acks_1_may_be_lost_only_to_what_takes_unsynced_bytes() {
    let mut writer = Writer::default();
    writer.op(send(1, 0, true, false), Outcome::Sent { base: 0 });
    let mut cut = Writer {
        history: writer.history.clone(),
        at: writer.at,
    };
    assert_eq!(writer.read(&[]).checks(), ["unseen-record"]);
    cut.history.note(cut.at, Note::UnsyncedMayBeLost);
    assert_eq!(cut.read(&[]).checks(), Vec::<&str>::new());
}

#[test]
fn a_record_elsewhere_than_told_is_reported_as_that() {
    let mut writer = Writer::default();
    writer
        .sent(1, 0, 0)
        .sent(2, 0, 1)
        .read(&[(0, value(2, 0)), (1, value(1, 0))]);
    assert!(writer.checks().contains(&"wrong-offset"), "{:?}", writer.checks());
}

#[test]
fn a_duplicate_is_forgiven_to_a_plain_producer_only() {
    for (idempotent, expected) in [(true, vec!["duplicate-record"]), (false, vec![])] {
        let mut writer = Writer::default();
        writer.op(send(1, 0, idempotent, true), Outcome::Sent { base: 1 });
        writer.read(&[(0, value(1, 0)), (1, value(1, 0))]);
        assert_eq!(writer.checks(), expected);
    }
}

#[test]
fn two_values_at_one_offset_and_values_of_nobody_are_seen() {
    let mut writer = Writer::default();
    writer
        .op(send(1, 0, true, true), failed(false))
        .op(send(1, 1, true, true), failed(false));
    writer.read(&[(0, value(1, 0))]).read(&[(0, value(1, 1))]);
    assert!(writer.checks().contains(&"inconsistent-offsets"));
    let mut writer = Writer::default();
    writer.read(&[(0, value(7, 7))]);
    assert_eq!(writer.checks(), ["phantom-record"]);
}

#[test]
fn a_refused_record_must_not_be_read() {
    let mut writer = Writer::default();
    writer
        .op(send(1, 0, true, true), failed(true))
        .read(&[(0, value(1, 0))]);
    assert_eq!(writer.checks(), ["refused-but-written"]);
}

#[test]
fn a_producer_s_records_are_in_its_order() {
    let mut writer = Writer::default();
    writer
        .op(send(1, 0, true, true), failed(false))
        .op(send(1, 1, true, true), failed(false));
    writer.read(&[(0, value(1, 1)), (1, value(1, 0))]);
    assert_eq!(writer.checks(), ["order-of-a-producer"]);
}

#[test]
fn a_record_lands_after_everything_known_when_it_was_sent() {
    let mut writer = Writer::default();
    writer.sent(1, 0, 5);
    writer.op(send(2, 0, true, true), failed(false));
    let records: Vec<_> = (0..6)
        .map(|offset| (offset, value(3, u32::try_from(offset).unwrap())))
        .collect();
    let mut records = records;
    records[4].1 = value(2, 0);
    records[5].1 = value(1, 0);
    writer.read(&records);
    assert!(
        writer.checks().contains(&"order-in-real-time"),
        "{:?}",
        writer.checks()
    );
}

#[test]
fn ends_and_watermarks_never_go_back() {
    let mut writer = Writer::default();
    writer
        .sent(1, 0, 0)
        .op(Op::ListEnd { key: "t-0".into() }, Outcome::Offset { offset: 0 });
    writer.read(&[(0, value(1, 0))]);
    assert_eq!(writer.checks(), ["end-went-back"]);
    let mut writer = Writer::default();
    writer.sent(1, 0, 0).read(&[(0, value(1, 0))]);
    writer.op(
        Op::Poll {
            key: "t-0".into(),
            session: 1,
            from: 0,
        },
        Outcome::Polled {
            records: vec![],
            high_watermark: 0,
            log_start: 0,
        },
    );
    assert_eq!(writer.checks(), ["high-watermark-went-back"]);
}

#[test]
fn gaps_and_skips_are_seen() {
    let mut writer = Writer::default();
    for serial in 0..3 {
        writer.op(send(1, serial, true, true), failed(false));
    }
    writer.read(&[(0, value(1, 0)), (2, value(1, 2))]);
    assert_eq!(writer.checks(), ["gap-in-the-log", "skipped-in-a-poll"]);
    let polled = Outcome::Polled {
        records: vec![(2, value(1, 2))],
        high_watermark: 3,
        log_start: 0,
    };
    writer.op(
        Op::Poll {
            key: "t-0".into(),
            session: 1,
            from: 1,
        },
        polled,
    );
    assert_eq!(writer.checks(), ["gap-in-the-log", "skipped-in-a-poll"]);
}

#[test]
fn commits_are_kept_and_zombies_are_fenced() {
    let commit = |generation, offset| Op::Commit {
        group: "g".into(),
        generation,
        key: "t-0".into(),
        offset,
    };
    let read = || Op::ReadCommit {
        group: "g".into(),
        key: "t-0".into(),
    };
    let mut writer = Writer::default();
    writer.op(Op::Join { group: "g".into() }, Outcome::Joined { generation: 1 });
    writer
        .op(commit(1, 5), Outcome::Done)
        .op(read(), Outcome::Offset { offset: 5 });
    assert_eq!(writer.checks(), Vec::<&str>::new());
    writer.op(read(), Outcome::Offset { offset: 4 });
    assert_eq!(writer.checks(), ["lost-commit"]);
    writer.op(read(), Outcome::Offset { offset: 6 });
    assert_eq!(writer.checks(), ["lost-commit", "phantom-commit"]);
    writer.op(Op::Join { group: "g".into() }, Outcome::Joined { generation: 2 });
    writer.op(commit(1, 7), Outcome::Done);
    assert_eq!(
        writer.checks(),
        ["lost-commit", "phantom-commit", "zombie-commit"]
    );
}

#[test]
fn a_generation_gives_a_partition_to_one_member() {
    let own = |generation, member: &str, keys: &[&str]| Op::Own {
        group: "g".into(),
        generation,
        member: member.into(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    let mut writer = Writer::default();
    writer
        .op(own(1, "a", &["t-0", "t-1"]), Outcome::Done)
        .op(own(1, "b", &["t-2"]), Outcome::Done)
        // Told again; another generation; another member that never took it.
        .op(own(1, "a", &["t-0", "t-1"]), Outcome::Done)
        .op(own(2, "b", &["t-0", "t-1", "t-2"]), Outcome::Done)
        .op(own(2, "a", &["t-0"]), failed(true));
    assert_eq!(writer.checks(), Vec::<&str>::new());
    writer.op(own(2, "a", &["t-1"]), Outcome::Done);
    assert_eq!(writer.checks(), ["two-owners"]);
}

#[test]
fn topics_and_settings_stay() {
    let topic = |topic: &str| topic.to_owned();
    let mut writer = Writer::default();
    writer.op(Op::CreateTopic { topic: topic("a") }, Outcome::Done);
    writer.op(Op::CreateTopic { topic: topic("b") }, Outcome::Done);
    writer.op(Op::DeleteTopic { topic: topic("b") }, Outcome::Done);
    let set = |value: &str| Op::SetConfig {
        topic: topic("a"),
        name: "n".into(),
        value: value.into(),
    };
    writer
        .op(set("1"), Outcome::Done)
        .op(set("2"), Outcome::Done)
        .op(set("3"), failed(false));
    let mut good = Writer {
        history: writer.history.clone(),
        at: writer.at,
    };
    let look = || Op::FinalConfig {
        topic: topic("a"),
        name: "n".into(),
    };
    good.op(
        Op::FinalTopics,
        Outcome::Topics {
            topics: vec![topic("a")],
        },
    );
    good.op(look(), Outcome::Config { value: "2".into() });
    assert_eq!(good.checks(), Vec::<&str>::new());
    writer.op(
        Op::FinalTopics,
        Outcome::Topics {
            topics: vec![topic("b")],
        },
    );
    writer.op(look(), Outcome::Config { value: "1".into() });
    assert_eq!(writer.checks(), ["lost-topic", "topic-came-back", "lost-setting"]);
}

impl History {
    fn complete_op(&mut self, asked_at: u64, op: Op, done_at: u64) {
        let id = self.invoke(asked_at, "c", op);
        self.complete(done_at, "c", id, Outcome::Done);
    }
}

#[test]
fn of_changes_at_the_same_time_any_may_be_the_last() {
    let set = |value: &str| Op::SetConfig {
        topic: "a".into(),
        name: "n".into(),
        value: value.into(),
    };
    let judged = |value: &str| {
        let mut history = History::default();
        history.complete_op(0, set("0"), 1);
        // 1 is asked for first, and 2 and 3 while it is under way; 3 after 2 was done.
        let first = history.invoke(2, "a", set("1"));
        history.complete_op(3, set("2"), 4);
        history.complete_op(5, set("3"), 6);
        history.complete(7, "a", first, Outcome::Done);
        let looked = Op::FinalConfig {
            topic: "a".into(),
            name: "n".into(),
        };
        let id = history.invoke(8, "c", looked);
        history.complete(9, "c", id, Outcome::Config { value: value.into() });
        let found = check(&history);
        found.into_iter().map(|one| one.check).collect::<Vec<_>>()
    };
    assert!(judged("1").is_empty());
    assert!(judged("3").is_empty());
    for gone in ["0", "2"] {
        assert_eq!(judged(gone), ["lost-setting"]);
    }
}

#[test]
fn a_history_is_read_as_it_was_written() {
    let mut writer = Writer::default();
    writer.sent(1, 0, 0).read(&[(0, value(1, 0))]);
    writer.history.note(9, Note::UnsyncedMayBeLost);
    let mut bytes = Vec::new();
    writer.history.write(&mut bytes).unwrap();
    let again = History::read(&mut bytes.as_slice()).unwrap();
    assert_eq!(again.events, writer.history.events);
    assert!(
        History::read(&mut &b"{\"at\":1}\n"[..])
            .unwrap_err()
            .to_string()
            .starts_with("line 1")
    );
}

#[test]
fn a_history_that_cannot_be_is_refused() {
    let mut writer = Writer::default();
    writer.sent(1, 0, 0).sent(1, 0, 1);
    assert!(writer.checks().contains(&"malformed-history"), "sent twice");
    let mut writer = Writer::default();
    let id = writer.history.invoke(0, "c", send(1, 0, true, true));
    writer.history.complete(1, "c", id, Outcome::Sent { base: 0 });
    writer.history.complete(2, "c", id, Outcome::Sent { base: 0 });
    assert!(writer.checks().contains(&"malformed-history"), "ended twice");
}

#[test]
fn operations_under_way_are_those_asked_for_and_not_answered() {
    let mut history = History::default();
    let sent = history.invoke(10, "a", send(1, 0, true, true));
    let listed = history.invoke(20, "b", Op::FinalTopics);
    history.complete(30, "a", sent, failed(false));
    history.complete(40, "b", listed, failed(true));
    let under_way: Vec<Vec<_>> = history
        .under_way(&[9, 10, 25, 30, 39, 41])
        .into_iter()
        .map(|kinds| kinds.into_iter().collect())
        .collect();
    let (sent, both, listed) = (vec!["send"], vec!["final-topics", "send"], vec!["final-topics"]);
    assert_eq!(under_way, [vec![], sent, both, listed.clone(), listed, vec![]]);
}
