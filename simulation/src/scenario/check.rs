//! What a person has written and nothing could be made of: told before anything runs.

use super::{CLIENT_HOSTS, Fault, Scenario, Target, Timed};
use crate::goals;
use crate::process::{ALONE, OFFSETS_PARTITIONS, check_settings};
use crate::workload::{KEYED, TOPICS};

/// As many as `--nodes` takes.
const NODES_MAX: u32 = 9;
/// A day. Simulated, it takes hours.
const FAULTS_MS_MAX: u64 = 86_400_000;
/// As long as those that seeds draw: of longer steps `acts-while-still` cannot tell what came before a process stood still.
const TICK_MS_MAX: u64 = 2;

impl Scenario {
    /// Says which field cannot be what it is, and what it may be.
    ///
    /// # Errors
    /// The field, its value and the way out, in words.
    pub fn check(&self) -> Result<(), String> {
        within("nodes", self.nodes, 1, NODES_MAX)?;
        within("voters", self.voters, 0, self.nodes)?;
        let nodes = i16::try_from(self.nodes).unwrap_or(i16::MAX);
        within("replication", self.replication, 1, nodes)?;
        within("min_in_sync", self.min_in_sync, 1, self.replication)?;
        within("faults_ms", self.faults_ms, 0, FAULTS_MS_MAX)?;
        within("tick_ms", self.tick_ms, 1, TICK_MS_MAX)?;
        let (min, max) = self.latency_ms;
        if min > max {
            return Err(format!(
                "\"latency_ms\": [{min}, {max}]: the first number may not be larger than the second"
            ));
        }
        if let Some(lulls) = self.lulls {
            within("every_ms", lulls.every_ms, 1, FAULTS_MS_MAX)
                .map_err(|why| format!("\"lulls\": {why}"))?;
            within("for_ms", lulls.for_ms, 0, lulls.every_ms).map_err(|why| format!("\"lulls\": {why}"))?;
        }
        check_settings(&self.settings).map_err(|why| format!("\"settings\": {why}"))?;
        for (number, at_ms) in &self.joins_at_ms {
            let first = if self.voters == 0 { self.nodes } else { self.voters } + 1;
            if first > self.nodes {
                return Err(format!(
                    "\"joins_at_ms\": n{number}: all nodes vote, and those that vote are there"
                ));
            }
            within("joins_at_ms", *number, first, self.nodes)?;
            within("joins_at_ms", *at_ms, 0, self.faults_ms)?;
        }
        for partition in &self.write_to {
            check_partition(partition, &TOPICS).map_err(|why| format!("\"write_to\": {why}"))?;
        }
        for (index, worker) in self.workload.workers.iter().enumerate() {
            check_client(&worker.host).map_err(|why| format!("worker {index}, \"host\": {why}"))?;
        }
        for (index, timed) in self.faults.iter().enumerate() {
            self.check_fault(timed)
                .map_err(|why| format!("fault {index} ({}), {why}", timed.kind()))?;
        }
        match self.reaches.iter().find(|goal| goals::find(goal).is_none()) {
            None => Ok(()),
            Some(goal) => Err(format!(
                "\"reaches\": {goal:?} is no goal: `skerry-sim run --seeds 1 --nodes 3 --goals` lists them"
            )),
        }
    }

    fn check_fault(&self, timed: &Timed) -> Result<(), String> {
        self.check_target(&timed.on)
            .map_err(|why| format!("\"on\": {why}"))?;
        if let Some(host) = timed.fault.host() {
            let is_nobody = host.is_empty() && matches!(timed.fault, Fault::CorruptBatches { .. });
            let is_alone = self.nodes == 1 && host == ALONE;
            if !is_nobody && !is_alone && check_client(host).is_err() {
                let target: Result<Target, _> = host.parse();
                target
                    .and_then(|target| self.check_target(&target))
                    .map_err(|why| format!("\"host\": {why}; or {}", one_of(&CLIENT_HOSTS)))?;
            }
        }
        match &timed.fault {
            Fault::InSyncCopiesLost { partition } | Fault::LyingSyncs { partition } => {
                check_partition(partition, &TOPICS).map_err(|why| format!("\"partition\": {why}"))
            }
            Fault::Split { clients, .. } => clients
                .iter()
                .try_for_each(|client| check_client(client))
                .map_err(|why| format!("\"clients\": {why}")),
            Fault::FlappingLink { per_mille, .. } => within("per_mille", *per_mille, 0, 1_000),
            Fault::SlowLink { max_ms, .. } if *max_ms < self.latency_ms.0 => Err(format!(
                "\"max_ms\": {max_ms} is less than the scenario's smallest \"latency_ms\", {}",
                self.latency_ms.0
            )),
            _ => Ok(()),
        }
    }

    /// Groups come and go with their members: whoever coordinates one that nobody joined is nobody, and that is told.
    fn check_target(&self, target: &Target) -> Result<(), String> {
        match target {
            Target::Nodes(numbers) => {
                let wrong = numbers.iter().find(|number| !(1..=self.nodes).contains(*number));
                wrong.map_or(Ok(()), |number| {
                    Err(format!("n{number}: there are n1 to n{}", self.nodes))
                })
            }
            Target::LeaderOf(partition)
            | Target::FollowerOf(partition)
            | Target::LastFollowerOf(partition)
            | Target::FollowersOf(partition) => {
                let mut topics = TOPICS.to_vec();
                topics.push(("__consumer_offsets", OFFSETS_PARTITIONS));
                topics.push((KEYED, 1));
                check_partition(partition, &topics)
            }
            Target::First | Target::All | Target::Controller | Target::CoordinatorOf(_) => Ok(()),
        }
    }
}

impl Fault {
    /// The other end, where it has one.
    fn host(&self) -> Option<&str> {
        match self {
            Self::SlowLink { host, .. }
            | Self::HeldLink { host, .. }
            | Self::CutLink { host, .. }
            | Self::FlappingLink { host, .. }
            | Self::LateLink { host, .. }
            | Self::BadConnections { host, .. }
            | Self::CorruptBatches { host, .. }
            | Self::SwappedDisks { host, .. } => Some(host),
            _ => None,
        }
    }
}

fn within<T: PartialOrd + std::fmt::Display + Copy>(
    field: &str,
    value: T,
    min: T,
    max: T,
) -> Result<(), String> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        Err(format!("\"{field}\": {value}: {min} to {max} is expected"))
    }
}

fn one_of(names: &[&str]) -> String {
    format!("one of {}", names.join(", "))
}

fn check_client(host: &str) -> Result<(), String> {
    if CLIENT_HOSTS.contains(&host) {
        Ok(())
    } else {
        Err(format!("{host:?}: {} is expected", one_of(&CLIENT_HOSTS)))
    }
}

fn check_partition(name: &str, topics: &[(&str, i32)]) -> Result<(), String> {
    let all: Vec<_> = topics
        .iter()
        .flat_map(|(topic, count)| (0..*count).map(move |number| format!("{topic}-{number}")))
        .collect();
    if all.iter().any(|known| known == name) {
        return Ok(());
    }
    let all: Vec<_> = all.iter().map(String::as_str).collect();
    Err(format!("partition {name:?}: {} is expected", one_of(&all)))
}

#[cfg(test)]
mod tests {
    use super::super::Lulls;
    use super::*;

    #[test]
    fn what_is_drawn_can_be_run() {
        for seed in 0..300 {
            for nodes in 0..=9 {
                let drawn = match nodes {
                    1 => Scenario::draw(seed),
                    _ => Scenario::draw_cluster(seed, nodes),
                };
                assert_eq!(drawn.check(), Ok(()), "seed {seed}, {nodes} nodes");
            }
        }
    }

    /// What is told of a scenario of three nodes that was changed.
    fn told(change: impl FnOnce(&mut Scenario)) -> String {
        let mut scenario = Scenario::draw_cluster(1, 3);
        change(&mut scenario);
        scenario.check().expect_err("it cannot be run")
    }

    /// The same of one that has one fault.
    fn told_of(fault: &str) -> String {
        told(|scenario| scenario.faults = vec![serde_json::from_str(fault).expect("it can be read")])
    }

    #[test]
    fn who_wrote_what_cannot_be_is_told_the_field_the_value_and_what_may_be() {
        let cases = [
            (told(|it| it.nodes = 0), "\"nodes\": 0: 1 to 9 is expected"),
            (told(|it| it.voters = 4), "\"voters\": 4: 0 to 3"),
            (told(|it| it.replication = 4), "\"replication\": 4: 1 to 3"),
            (told(|it| it.min_in_sync = 0), "\"min_in_sync\": 0: 1 to"),
            (told(|it| it.tick_ms = 0), "\"tick_ms\": 0: 1 to"),
            (
                told(|it| it.faults_ms = u64::MAX),
                "\"faults_ms\": 18446744073709551615: 0 to",
            ),
            (
                told(|it| it.latency_ms = (40, 3)),
                "\"latency_ms\": [40, 3]: the first",
            ),
            (
                told(|it| {
                    it.lulls = Some(Lulls {
                        every_ms: 0,
                        for_ms: 0,
                    });
                }),
                "\"lulls\": \"every_ms\": 0: 1 to",
            ),
            (
                told(|it| it.write_to = vec!["order-0".to_owned()]),
                "\"write_to\": partition \"order-0\": one of orders-0, orders-1,",
            ),
            (
                told(|it| it.workload.workers[1].host = "client-x".to_owned()),
                "worker 1, \"host\": \"client-x\": one of client-a, client-b is expected",
            ),
            (
                told(|it| it.reaches = vec!["the-moon".to_owned()]),
                "\"the-moon\" is no goal: `skerry-sim run --seeds 1 --nodes 3 --goals`",
            ),
            (
                told_of(r#"{"at_ms": 1, "on": "leader of order-0", "fault": {"kill": {"down_ms": 9}}}"#),
                "fault 0 (kill), \"on\": partition \"order-0\": one of orders-0,",
            ),
            (
                told_of(r#"{"at_ms": 1, "on": "n1,n4", "fault": {"kill": {"down_ms": 9}}}"#),
                "\"on\": n4: there are n1 to n3",
            ),
            (
                told_of(r#"{"at_ms": 1, "fault": {"held-link": {"host": "client-c", "for_ms": 9}}}"#),
                "\"host\": \"client-c\" is nobody: n1 or",
            ),
            (
                told_of(r#"{"at_ms": 1, "fault": {"held-link": {"host": "broker", "for_ms": 9}}}"#),
                "or one of client-a, client-b",
            ),
            (
                told_of(r#"{"at_ms": 1, "fault": {"split": {"clients": ["n1"], "for_ms": 9}}}"#),
                "\"clients\": \"n1\": one of client-a",
            ),
            (
                told_of(r#"{"at_ms": 1, "fault": {"lying-syncs": {"partition": "churn-1-0"}}}"#),
                "\"partition\": partition \"churn-1-0\"",
            ),
            (
                told_of(
                    r#"{"at_ms": 1, "fault": {"flapping-link": {"host": "n2", "per_mille": 1001, "for_ms": 9}}}"#,
                ),
                "\"per_mille\": 1001: 0 to 1000",
            ),
        ];
        for (told, part) in cases {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn a_field_that_nobody_knows_is_told() {
        for (text, field) in [
            (r#"{"at_ms": 1, "one": "all", "fault": "quiet-rot"}"#, "one"),
            (
                r#"{"at_ms": 1, "fault": {"cut-link": {"host": "n1", "ways": "in", "for_ms": 9}}}"#,
                "ways",
            ),
        ] {
            let told = serde_json::from_str::<Timed>(text).expect_err(text).to_string();
            assert!(told.contains(&format!("unknown field `{field}`")), "{told}");
        }
    }
}
