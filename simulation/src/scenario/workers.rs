//! The kinds of workers by name: what a run can leave out.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;
use skerry_env::Rng;

use super::{CLIENT_HOSTS, Scenario, Worker, WorkerKind, Workload, below};
use crate::trace::fnv_of;

/// All but `setup`, which makes the topics of the others.
const LEAVABLE: [&str; 23] = [
    "idempotent",
    "plain",
    "consumer",
    "member",
    "ends",
    "churn",
    "grow",
    "settings",
    "trim",
    "moves",
    "turns",
    "malformed",
    "odd-consumer",
    "slow-consumer",
    "connections",
    "zombie-producer",
    "reborn",
    "tuning",
    "members",
    "forget",
    "keyed",
    "keyed-reader",
    "times",
];

pub(super) fn draw_workload(seed: u64) -> Workload {
    let rng = &Rng::seeded(seed ^ 0x0077_0417);
    let mut kinds = vec![WorkerKind::Setup, WorkerKind::Idempotent, WorkerKind::Consumer];
    let mut maybe = |of_100: u64, kind: WorkerKind| {
        if rng.below(100) < of_100 {
            kinds.push(kind);
        }
    };
    maybe(60, WorkerKind::Idempotent);
    maybe(50, WorkerKind::Plain { acks: -1 });
    maybe(50, WorkerKind::Plain { acks: 1 });
    maybe(50, WorkerKind::Consumer);
    maybe(50, WorkerKind::Ends);
    maybe(40, WorkerKind::Churn);
    maybe(40, WorkerKind::Settings);
    maybe(40, WorkerKind::Trim);
    maybe(40, WorkerKind::Malformed);
    if rng.chance(2, 3) {
        for _ in 0..1 + rng.below(3) {
            kinds.push(WorkerKind::Member {
                group: "readers".to_owned(),
            });
        }
    }
    if rng.chance(1, 4) {
        kinds.push(WorkerKind::Member {
            group: "others".to_owned(),
        });
    }
    let mut workers: Vec<Worker> = kinds
        .into_iter()
        .map(|kind| Worker {
            host: CLIENT_HOSTS[below(rng, 2)].to_owned(),
            kind,
        })
        .collect();
    let odd = &Rng::seeded(seed ^ fnv_of(b"odd clients"));
    for kind in [
        WorkerKind::OddConsumer,
        WorkerKind::SlowConsumer,
        WorkerKind::Connections,
        WorkerKind::ZombieProducer,
        WorkerKind::Reborn,
        WorkerKind::Tuning,
    ] {
        if odd.chance(1, 4) {
            let host = CLIENT_HOSTS[below(odd, 2)].to_owned();
            workers.push(Worker { host, kind });
        }
    }
    let more = &Rng::seeded(seed ^ 0x0d0e_5e11);
    if more.chance(1, 3) {
        let host = CLIENT_HOSTS[below(more, 2)].to_owned();
        let kind = WorkerKind::Grow;
        workers.push(Worker { host, kind });
    }
    let keyed = &Rng::seeded(seed ^ fnv_of(b"compacted"));
    if keyed.chance(1, 3) {
        let kinds = [WorkerKind::Keyed, WorkerKind::KeyedReader, WorkerKind::Keyed];
        let count = 2 + below(keyed, 2);
        workers.extend(kinds.into_iter().take(count).map(|kind| Worker {
            host: CLIENT_HOSTS[below(keyed, 2)].to_owned(),
            kind,
        }));
    }
    let times = &Rng::seeded(seed ^ fnv_of(b"times"));
    if times.chance(1, 3) {
        let host = CLIENT_HOSTS[below(times, 2)].to_owned();
        let kind = WorkerKind::Times;
        workers.push(Worker { host, kind });
    }
    let unanswered = &Rng::seeded(seed ^ fnv_of(b"acks=0"));
    if unanswered.chance(1, 4) {
        let host = CLIENT_HOSTS[below(unanswered, 2)].to_owned();
        let kind = WorkerKind::Plain { acks: 0 };
        workers.push(Worker { host, kind });
    }
    Workload { workers }
}

impl WorkerKind {
    /// The name in a scenario.
    fn kind(&self) -> String {
        match serde_json::to_value(self) {
            Ok(Value::String(name)) => name,
            // Of one with settings: `{"member": {"group": "readers"}}`.
            Ok(Value::Object(named)) => named.into_iter().map(|(name, _)| name).collect(),
            written => unreachable!("a worker is written as {written:?}"),
        }
    }
}

impl Scenario {
    /// The same without these workers. The others draw from streams of their own, by their place: histories part.
    #[must_use]
    pub fn without_workers(&self, left_out: &WorkerKinds) -> Self {
        let mut scenario = self.clone();
        scenario
            .workload
            .workers
            .retain(|worker| !left_out.have(&worker.kind));
        scenario
    }
}

/// Some kinds of workers, by name and separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkerKinds(BTreeSet<&'static str>);

impl WorkerKinds {
    /// True where this one is among them.
    #[must_use]
    pub fn have(&self, worker: &WorkerKind) -> bool {
        self.0.contains(&*worker.kind())
    }
}

impl fmt::Display for WorkerKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.0.iter().copied().collect();
        f.write_str(&names.join(","))
    }
}

impl FromStr for WorkerKinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = |word: &str| {
            let found = LEAVABLE.iter().copied().find(|name| *name == word);
            found.ok_or_else(|| {
                let all = LEAVABLE.join(", ");
                format!("{word:?} is no worker that can be left out; there are {all}")
            })
        };
        text.split(',')
            .map(|word| known(word.trim()))
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_named_as_scenarios_name_them() {
        for seed in 1..40 {
            for worker in Scenario::draw_cluster(seed, 3).workload.workers {
                let written = serde_json::to_string(&worker.kind).expect("it can be written");
                let kind = worker.kind.kind();
                assert!(
                    written.contains(&format!("\"{kind}\"")),
                    "{written} is called {kind}"
                );
                assert!(kind == "setup" || LEAVABLE.contains(&&*kind), "{kind}");
            }
        }
        let some: WorkerKinds = "members, churn".parse().expect("both are known");
        assert_eq!(some.to_string(), "churn,members");
        assert!(some.have(&WorkerKind::Churn) && !some.have(&WorkerKind::Moves));
        assert!(
            "setup"
                .parse::<WorkerKinds>()
                .is_err_and(|why| why.contains("members"))
        );
    }

    #[test]
    fn who_is_left_out_does_not_work() {
        let without: WorkerKinds = "idempotent".parse().expect("it is known");
        let is_there = |scenario: &Scenario| {
            let mut workers = scenario.workload.workers.iter();
            workers.any(|worker| worker.kind == WorkerKind::Idempotent)
        };
        let drawn = (1..40).map(|seed| Scenario::draw_cluster(seed, 3)).find(is_there);
        let drawn = drawn.expect("most have one");
        assert!(!is_there(&drawn.without_workers(&without)));
    }
}
