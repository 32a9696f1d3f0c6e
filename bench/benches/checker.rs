//! The verdict on a long history: a million operations, of which each record is read by five. Goal: less than a second
//! (SIMULATION.md 1.2). Reading the file counts by itself.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use skerry_checker::history::{History, Op, Outcome, Value};

const OPERATIONS: u32 = 1_000_000;
const KEYS: u32 = 16;
const PRODUCERS: u32 = 8;
const READERS: u32 = 5;
/// How many sends pass between two reads of a key by one reader.
const STRIDE: u32 = 16;

/// What clients of a healthy cluster hear: half of the operations send a record each, the others read, ask for ends, commit and
/// ask what is committed.
fn history() -> History {
    let keys: Vec<String> = (0..KEYS).map(|key| format!("orders-{key}")).collect();
    let names =
        |what: &str, count| -> Vec<String> { (0..count).map(|number| format!("{what}-{number}")).collect() };
    let (writers, readers) = (names("writer", PRODUCERS), names("reader", READERS));
    let mut history = History::default();
    let mut logs: Vec<Vec<Value>> = vec![Vec::new(); KEYS as usize];
    let mut read = vec![[0_usize; READERS as usize]; KEYS as usize];
    let mut serials = [0_u32; PRODUCERS as usize];
    let mut operations = 0;
    let mut at = 0;
    for turn in 0.. {
        if operations >= OPERATIONS {
            break;
        }
        let (key, producer) = (turn % KEYS, turn / KEYS % PRODUCERS);
        let (name, log) = (&keys[key as usize], &mut logs[key as usize]);
        let serial = &mut serials[producer as usize];
        let value = Value {
            producer,
            serial: *serial,
        };
        *serial += 1;
        let op = Op::Send {
            key: name.clone(),
            values: vec![value],
            idempotent: true,
            acks_all: true,
            record_keys: Vec::new(),
        };
        let mut ask = |client: &str, op, outcome| {
            let id = history.invoke(at, client, op);
            history.complete(at + 1, client, id, outcome);
            at += 2;
            operations += 1;
        };
        let base = offset(log.len());
        ask(&writers[producer as usize], op, Outcome::Sent { base });
        log.push(value);
        if turn / KEYS % STRIDE != STRIDE - 1 {
            continue;
        }
        for reader in 0..READERS {
            let from = std::mem::replace(&mut read[key as usize][reader as usize], log.len());
            let op = Op::Poll {
                key: name.clone(),
                session: reader.into(),
                from: offset(from),
            };
            let records = (offset(from)..).zip(log[from..].iter().copied()).collect();
            let high_watermark = offset(log.len());
            ask(
                &readers[reader as usize],
                op,
                Outcome::Polled {
                    records,
                    high_watermark,
                    log_start: 0,
                },
            );
        }
        let (reader, end) = (&readers[0], offset(log.len()));
        let group = || "group".to_owned();
        ask(
            reader,
            Op::ListEnd { key: name.clone() },
            Outcome::Offset { offset: end },
        );
        let commit = Op::Commit {
            group: group(),
            generation: 1,
            key: name.clone(),
            offset: end,
        };
        ask(reader, commit, Outcome::Done);
        let committed = Op::ReadCommit {
            group: group(),
            key: name.clone(),
        };
        ask(reader, committed, Outcome::Offset { offset: end });
    }
    for (name, log) in keys.iter().zip(&logs) {
        let records = (0..).zip(log.iter().copied()).collect();
        let id = history.invoke(at, "final", Op::FinalRead { key: name.clone() });
        let high_watermark = offset(log.len());
        history.complete(
            at + 1,
            "final",
            id,
            Outcome::Polled {
                records,
                high_watermark,
                log_start: 0,
            },
        );
        at += 2;
    }
    history
}

fn offset(count: usize) -> i64 {
    i64::try_from(count).expect("small")
}

fn observations(history: &History) -> usize {
    let seen = history.events.iter().map(|event| match &event.what {
        skerry_checker::history::What::Complete(Outcome::Polled { records, .. }) => records.len(),
        _ => 0,
    });
    seen.sum()
}

fn judge(criterion: &mut Criterion) {
    let history = history();
    println!(
        "{OPERATIONS} operations, {} events, {} observations",
        history.events.len(),
        observations(&history)
    );
    let mut group = criterion.benchmark_group("checker");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(OPERATIONS.into()));
    group.bench_function("judge", |bencher| {
        bencher.iter(|| assert_eq!(skerry_checker::check(&history), []));
    });
    let mut bytes = Vec::new();
    history.write(&mut bytes).expect("memory");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("read-json-lines", |bencher| {
        bencher.iter_batched(
            || bytes.as_slice(),
            |mut bytes| History::read(&mut bytes).expect("what was written"),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, judge);
criterion_main!(benches);
