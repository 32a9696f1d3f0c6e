//! How the cluster is, as one broker's metadata shows it: for health, metrics and people.

use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use skerry_metadata::{QuorumStatus, Role};
use skerry_metadata_state::Image;
use skerry_types::BrokerId;

/// A voter that has not answered the leader for so long, or a leader of whom nothing came for so long, counts as away:
/// several heartbeats, and longer than an election.
const SILENCE: Duration = Duration::from_secs(2);
/// How many partitions are named where many have the same trouble.
const NAMED_MAX: usize = 3;

/// Partitions with the same trouble: all are counted, the first are named.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Troubled {
    pub(crate) count: usize,
    named: Vec<String>,
}

impl Troubled {
    fn add(&mut self, topic: &str, index: usize) {
        self.count += 1;
        if self.named.len() < NAMED_MAX {
            self.named.push(format!("{topic}-{index}"));
        }
    }

    /// `12 partitions WHAT: a-0, a-1, b-7 and others`; `None` where there are none.
    fn told(&self, what: &str) -> Option<String> {
        let noun = match self.count {
            0 => return None,
            1 => "partition",
            _ => "partitions",
        };
        let others = if self.count > self.named.len() {
            " and others"
        } else {
            ""
        };
        Some(format!(
            "{} {noun} {what}: {}{others}",
            self.count,
            self.named.join(", ")
        ))
    }
}

/// What broker `me` sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClusterView {
    /// Registered brokers.
    pub(crate) brokers: usize,
    /// Brokers that do not take part.
    pub(crate) fenced: Vec<BrokerId>,
    /// Partitions of the whole cluster that nobody leads.
    pub(crate) leaderless: Troubled,
    /// Partitions of the whole cluster with a copy that its broker cannot open.
    pub(crate) offline: Troubled,
    /// Partitions led here that have fewer replicas in sync than they should.
    pub(crate) under_replicated: Troubled,
    /// Partitions led here that refuse `acks=all`: fewer replicas in sync than `min.insync.replicas`.
    pub(crate) below_min_isr: Troubled,
    /// Copies here that are not in sync with their leader.
    pub(crate) catching_up: Troubled,
    /// Partitions of the whole cluster whose replicas move.
    pub(crate) reassigning: usize,
    /// This broker itself does not take part.
    pub(crate) me_fenced: bool,
    /// This broker hands over what it leads.
    pub(crate) me_draining: bool,
}

impl ClusterView {
    pub(crate) fn of(image: &Image, me: BrokerId) -> Self {
        let mut view = Self {
            brokers: image.brokers().count(),
            fenced: image
                .brokers()
                .filter(|broker| broker.fenced)
                .map(|broker| broker.id)
                .collect(),
            me_fenced: !image.is_unfenced(me),
            me_draining: image.broker(me).is_some_and(|broker| broker.draining),
            ..Self::default()
        };
        for topic in image.topics() {
            for (index, partition) in topic.partitions.iter().enumerate() {
                if !partition.offline.is_empty() {
                    view.offline.add(&topic.name, index);
                }
                if partition.leader.is_none() {
                    view.leaderless.add(&topic.name, index);
                } else if partition.leader == Some(me) {
                    if partition.isr.len() < image.min_insync_replicas(topic, partition) {
                        view.below_min_isr.add(&topic.name, index);
                    }
                    if partition.isr.len() < partition.replicas.len() {
                        view.under_replicated.add(&topic.name, index);
                    }
                } else if partition.replicas.contains(&me) && !partition.isr.contains(&me) {
                    view.catching_up.add(&topic.name, index);
                }
                view.reassigning += usize::from(partition.is_reassigning());
            }
        }
        view
    }

    /// Why this node does not serve as it should. `behind`: what its copies lack together, and how long they will take.
    pub(crate) fn reasons(&self, behind: &str) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.me_draining {
            reasons.push("this broker is leaving: it hands over what it leads".to_owned());
        } else if self.me_fenced {
            reasons.push("this broker is fenced: the controller has not heard from it".to_owned());
        }
        if let Some(told) = self.catching_up.told("not in sync here") {
            reasons.push(format!("{told}; {behind}"));
        }
        reasons
    }

    /// What is wrong elsewhere, while this node serves.
    pub(crate) fn notes(&self) -> Vec<String> {
        let fenced: Vec<String> = self.fenced.iter().map(ToString::to_string).collect();
        let fenced =
            (!fenced.is_empty()).then(|| format!("brokers that do not take part: {}", fenced.join(", ")));
        [
            fenced,
            self.leaderless.told("without a leader in the cluster"),
            self.offline.told("with a copy that its broker cannot open"),
            self.below_min_isr
                .told("led here with less in sync than min.insync.replicas"),
            self.under_replicated.told("led here and under-replicated"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Why nothing can be decided, as one node of the quorum knows it.
pub(crate) fn quorum_trouble(status: &QuorumStatus) -> Option<String> {
    if status.role == Role::Stopped {
        return Some("the metadata quorum has stopped here: its store failed".to_owned());
    }
    if status.leader.is_none() {
        return Some("the metadata quorum has no leader that is known here".to_owned());
    }
    if status.role != Role::Leader {
        // A dead leader stays the last one known where no majority is left to elect another.
        let silent = status.leader_contact.filter(|ago| *ago > SILENCE)?;
        let leader = status.leader.unwrap_or(BrokerId::NONE);
        return Some(format!(
            "the metadata quorum decides nothing: its leader, node {leader}, was heard of {} s ago",
            silent.as_secs()
        ));
    }
    let away: Vec<String> = status
        .voters()
        .filter(|voter| voter.last_contact.is_none_or(|ago| ago > SILENCE))
        .map(|voter| voter.id.to_string())
        .collect();
    let voters = status.voters().count();
    (voters - away.len() <= voters / 2).then(|| {
        format!(
            "the metadata quorum has lost its majority: voters {} do not answer",
            away.join(", ")
        )
    })
}

/// Gauges of `view` and `status`, made for one answer.
pub(crate) fn register(
    registry: &mut Registry,
    view: &ClusterView,
    status: &QuorumStatus,
    behind_records: u64,
) {
    let mut gauge = |name: &str, help: &str, value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    gauge("cluster_brokers", "Registered brokers", count(view.brokers));
    gauge(
        "cluster_brokers_fenced",
        "Brokers that do not take part",
        count(view.fenced.len()),
    );
    gauge(
        "cluster_partitions_leaderless",
        "Partitions of the cluster without a leader",
        count(view.leaderless.count),
    );
    gauge(
        "cluster_partitions_with_offline_copies",
        "Partitions of the cluster with a copy that its broker cannot open",
        count(view.offline.count),
    );
    gauge(
        "cluster_partitions_reassigning",
        "Partitions of the cluster whose replicas move",
        count(view.reassigning),
    );
    gauge(
        "partitions_below_min_isr",
        "Led partitions with less in sync than min.insync.replicas",
        count(view.below_min_isr.count),
    );
    gauge(
        "partitions_catching_up",
        "Copies here that are not in sync",
        count(view.catching_up.count),
    );
    gauge(
        "records_catching_up",
        "Records that the copies here which are not in sync lack",
        number(behind_records),
    );
    gauge(
        "broker_fenced",
        "1 where this broker does not take part",
        i64::from(view.me_fenced),
    );
    gauge("quorum_term", "Term of the metadata quorum", number(status.term));
    gauge(
        "quorum_leader",
        "Node that leads the metadata quorum, -1 for none",
        status.leader.map_or(-1, |id| i64::from(id.get())),
    );
    gauge(
        "quorum_well",
        "1 where the metadata quorum can decide, as far as is known here",
        i64::from(quorum_trouble(status).is_none()),
    );
    gauge(
        "quorum_log_end",
        "Last entry of the metadata log here",
        number(status.last_log_index),
    );
    gauge(
        "quorum_applied",
        "Last entry applied here",
        number(status.applied_index),
    );
}

#[cfg(test)]
mod tests {
    use skerry_metadata::MemberStatus;
    use skerry_types::Uuid;

    use super::*;
    use crate::kafka::api::testing::{ME, fenced, image, with_broker};

    #[test]
    fn a_cluster_that_is_well_says_nothing() {
        let view = ClusterView::of(&image(&[("one", 3)]), ME);
        assert_eq!((view.reasons("").len(), view.notes().len()), (0, 0));
    }

    #[test]
    fn a_fenced_broker_says_so_and_its_partitions_are_counted() {
        let all = fenced(&image(&[("one", 5)]));
        let view = ClusterView::of(&all, ME);
        assert_eq!(
            view.reasons(""),
            ["this broker is fenced: the controller has not heard from it"]
        );
        assert_eq!(
            view.notes(),
            [
                "brokers that do not take part: 1",
                "5 partitions without a leader in the cluster: one-0, one-1, one-2 and others"
            ]
        );
        let other = ClusterView::of(&with_broker(&all, BrokerId(2)), BrokerId(2));
        assert!(!other.me_fenced);
        assert_eq!(other.leaderless.count, 5);
    }

    #[test]
    fn a_leader_without_its_voters_has_no_quorum() {
        let voter = |id: i32, ago_ms: Option<u64>| MemberStatus {
            id: BrokerId(id),
            addr: String::new(),
            directory: Uuid([0; 16]),
            note: String::new(),
            voter: true,
            matched_index: None,
            last_contact: ago_ms.map(Duration::from_millis),
        };
        let status = |second: Option<u64>, third: Option<u64>| QuorumStatus {
            node_id: BrokerId(1),
            role: Role::Leader,
            term: 1,
            leader: Some(BrokerId(1)),
            leader_contact: Some(Duration::ZERO),
            last_log_index: 1,
            committed_index: 1,
            applied_index: 1,
            snapshot_index: 0,
            purged_index: 0,
            members: vec![voter(1, Some(0)), voter(2, second), voter(3, third)],
        };
        assert_eq!(quorum_trouble(&status(Some(50), Some(90))), None);
        assert_eq!(quorum_trouble(&status(Some(50), None)), None);
        assert_eq!(
            quorum_trouble(&status(None, Some(9_000))).as_deref(),
            Some("the metadata quorum has lost its majority: voters 2, 3 do not answer")
        );
        let mut follower = status(None, None);
        follower.role = Role::Follower;
        assert_eq!(quorum_trouble(&follower), None);
        follower.leader_contact = Some(Duration::from_millis(9_100));
        assert_eq!(
            quorum_trouble(&follower).as_deref(),
            Some("the metadata quorum decides nothing: its leader, node 1, was heard of 9 s ago")
        );
        follower.leader = None;
        assert!(quorum_trouble(&follower).is_some());
    }
}
