//! The language of the transcripts.

use std::fmt::Write as _;
use std::time::Duration;

use expect_test::Expect;
use skerry_replica::{Answer, FollowerReport, LagLimits, Leader, LeaderStart, PartitionView, Visibility};
use skerry_types::{BrokerEpoch, BrokerId, Instant, LeaderEpoch, Offset, PartitionEpoch};

const LIMITS: LagLimits = LagLimits {
    lag_max: Duration::from_millis(1_000),
    silence_max: Duration::from_millis(500),
    standing_max: Duration::from_millis(750),
};

fn ids(text: &str) -> Vec<BrokerId> {
    text.split(',').map(|id| BrokerId(id.parse().unwrap())).collect()
}

/// The leader 1 in epoch 5 with the replicas 1 to 4, registered as 10, 20, 30, 40.
pub struct World {
    leader: Leader,
    now: Instant,
    ends: (i64, i64, i64),
    registered: Vec<(BrokerId, BrokerEpoch)>,
    min: usize,
    visibility: Visibility,
    partition_epoch: i32,
    in_sync: Vec<BrokerId>,
    removing: Vec<BrokerId>,
    gives_up: bool,
}

impl World {
    /// `isr=1,2 min=1 end=0 hw=0 written`
    pub fn new(setup: &str) -> Self {
        let option = |key: &str| {
            setup
                .split_whitespace()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        let number = |key: &str| option(key).map_or(0, |text| text.parse::<i64>().unwrap());
        let in_sync = ids(option("isr").unwrap_or("1"));
        let min = option("min").map_or(1, |text| text.parse().unwrap());
        let visibility = if setup.contains("written") {
            Visibility::Written
        } else {
            Visibility::Durable
        };
        let end = number("end");
        let now = Instant::from_millis(0);
        let leader = Leader::new(LeaderStart {
            me: BrokerId(1),
            my_broker_epoch: BrokerEpoch(10),
            epoch: LeaderEpoch(5),
            view: PartitionView {
                partition_epoch: PartitionEpoch(0),
                replicas: ids("1,2,3,4"),
                in_sync: in_sync.clone(),
                removing: Vec::new(),
                gives_up: false,
            },
            min_in_sync: min,
            visibility,
            log_start: Offset(0),
            log_end: Offset(end),
            durable_end: Offset(end),
            high_watermark: Offset(number("hw")),
            now,
        });
        Self {
            leader,
            now,
            ends: (0, end, end),
            registered: (1..=4)
                .map(|id| (BrokerId(id), BrokerEpoch(i64::from(id) * 10)))
                .collect(),
            min,
            visibility,
            partition_epoch: 0,
            in_sync,
            removing: Vec::new(),
            gives_up: false,
        }
    }

    fn local(&mut self) -> String {
        let (start, end, durable) = self.ends;
        self.leader
            .on_local_log(Offset(start), Offset(end), Offset(durable), self.now);
        String::new()
    }

    fn metadata(&mut self) -> String {
        let view = PartitionView {
            partition_epoch: PartitionEpoch(self.partition_epoch),
            replicas: ids("1,2,3,4"),
            in_sync: self.in_sync.clone(),
            removing: self.removing.clone(),
            gives_up: self.gives_up,
        };
        self.leader
            .on_metadata(&view, self.min, self.visibility, self.now);
        String::new()
    }

    /// `5/4`: written and durable; `in=4`: the leader epoch; `be=21`: the registration; `from=2`: the log's start.
    fn report(&self, follower: BrokerId, words: &[&str]) -> FollowerReport {
        let option = |key: &str| {
            words
                .iter()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        };
        let (written, durable) = words[0].split_once('/').unwrap();
        let registered = self
            .registered
            .iter()
            .find(|(id, _)| *id == follower)
            .map_or(99, |(_, epoch)| epoch.get());
        FollowerReport {
            follower,
            broker_epoch: BrokerEpoch(option("be").map_or(registered, |text| text.parse().unwrap())),
            leader_epoch: LeaderEpoch(option("in").map_or(5, |text| text.parse().unwrap())),
            log_start: Offset(option("from").map_or(0, |text| text.parse().unwrap())),
            written_end: Offset(written.parse().unwrap()),
            durable_end: Offset(durable.parse().unwrap()),
        }
    }

    fn propose(&mut self) -> String {
        let registered = self.registered.clone();
        let proposal = self.leader.propose_in_sync(self.now, &LIMITS, |id| {
            registered
                .iter()
                .find(|(known, _)| *known == id)
                .map(|(_, epoch)| *epoch)
        });
        proposal.map_or("nothing".to_owned(), |proposal| {
            let members: Vec<String> = proposal
                .in_sync
                .iter()
                .map(|(id, epoch)| format!("{id}@{epoch}"))
                .collect();
            format!("asks for {} at {}", members.join(","), proposal.partition_epoch)
        })
    }

    fn step(&mut self, words: &[&str]) -> String {
        let number = |index: usize| words[index].parse::<i64>().unwrap();
        match words[0] {
            "write" => {
                self.ends.1 = number(1);
                self.local()
            }
            "sync" => {
                self.ends.2 = self.ends.1;
                self.local()
            }
            "start" => {
                self.ends.0 = number(1);
                self.local()
            }
            "tick" => {
                self.now = self.now + Duration::from_millis(words[1].parse().unwrap());
                String::new()
            }
            "isr" => {
                self.in_sync = ids(words[1]);
                self.partition_epoch += 1;
                self.metadata()
            }
            "older" => {
                let view = PartitionView {
                    partition_epoch: PartitionEpoch(self.partition_epoch - 1),
                    replicas: ids("1,2,3,4"),
                    in_sync: ids(words[1]),
                    removing: self.removing.clone(),
                    gives_up: self.gives_up,
                };
                self.leader
                    .on_metadata(&view, self.min, self.visibility, self.now);
                String::new()
            }
            "removing" => {
                self.removing = ids(words[1]);
                self.gives_up = words.get(2) == Some(&"given-up");
                self.partition_epoch += 1;
                self.metadata()
            }
            "min" => {
                self.min = words[1].parse().unwrap();
                self.metadata()
            }
            "register" => {
                let id = BrokerId(words[1].parse().unwrap());
                self.registered.retain(|(known, _)| *known != id);
                self.registered.push((id, BrokerEpoch(number(2))));
                String::new()
            }
            "fence" => {
                let id = BrokerId(words[1].parse().unwrap());
                self.registered.retain(|(known, _)| *known != id);
                String::new()
            }
            "propose" => self.propose(),
            "stands" => match self.leader.gives_itself_up() {
                true => "not for sure",
                false => "as far as its session goes",
            }
            .to_owned(),
            "alone" => {
                let followed = if self.leader.is_followed() {
                    "followed"
                } else {
                    "not followed"
                };
                let only = if self.leader.is_only_candidate() {
                    "nobody else could lead"
                } else {
                    "others could lead"
                };
                format!("{followed}, {only}")
            }
            "deadline" => {
                let at = self.leader.next_deadline(self.now, &LIMITS);
                at.map_or("none".to_owned(), |at| format!("{at:?}"))
            }
            "low" => self.leader.low_watermark(|id| id != BrokerId(4)).to_string(),
            "accepted" | "deposed" | "outdated" | "unknown" | "ineligible" => {
                let answer = match words[0] {
                    "accepted" => Answer::Accepted,
                    "deposed" => Answer::Deposed,
                    "outdated" => Answer::Outdated,
                    "ineligible" => Answer::Ineligible(BrokerId(words[1].parse().unwrap())),
                    _ => Answer::Unknown,
                };
                self.leader
                    .on_proposal(PartitionEpoch(self.partition_epoch), answer, self.now);
                String::new()
            }
            follower => self.follower_step(BrokerId(follower.parse().unwrap()), &words[1..]),
        }
    }

    fn follower_step(&mut self, follower: BrokerId, words: &[&str]) -> String {
        match words[0] {
            "gone" => {
                self.leader.on_follower_gone(follower, self.now);
                String::new()
            }
            "follows" => {
                let report = self.report(follower, &words[1..]);
                let last = words
                    .iter()
                    .find_map(|word| word.strip_prefix("last="))
                    .unwrap_or("-1");
                let last = LeaderEpoch(last.parse().unwrap());
                // The leader's log: epoch 1 up to 4, epoch 3 up to where its own epoch begins.
                let (start, end) = (self.leader.epoch_start(), self.ends.1);
                let epoch_end = |asked: LeaderEpoch| match asked.get() {
                    ..1 => (asked, Offset(0)),
                    1..3 => (LeaderEpoch(1), Offset(4)),
                    3..5 => (LeaderEpoch(3), start),
                    5 => (LeaderEpoch(5), Offset(end)),
                    _ => (LeaderEpoch::UNKNOWN, Offset(-1)),
                };
                match self.leader.on_follow(&report, last, epoch_end, self.now) {
                    Ok(_) => "may".to_owned(),
                    Err(refusal) => refusal.to_string(),
                }
            }
            _ => {
                let report = self.report(follower, words);
                self.leader.on_follower(&report, self.now);
                String::new()
            }
        }
    }
}

pub fn check(setup: &str, script: &str, expected: Expect) {
    let mut world = World::new(setup);
    let mut out = String::new();
    for step in script.split(';').map(str::trim) {
        let told = world.step(&step.split_whitespace().collect::<Vec<_>>());
        let hw = world.leader.high_watermark();
        let latest = if world.leader.serves_latest() {
            ""
        } else {
            " (not the latest)"
        };
        writeln!(
            out,
            "{step}: {told}{}hw={hw}{latest}",
            if told.is_empty() { "" } else { "; " }
        )
        .unwrap();
    }
    expected.assert_eq(&out);
}
