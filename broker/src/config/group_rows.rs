//! The settings of a group, as of Kafka 4.3. Each falls back on a broker setting.

use super::row::{Kind, Row, Scope, Synonym};

const I32: i32 = i32::MAX;
const CONSUMER: &str = "Skerry serves the classic group protocol so far";
const SHARE: &str = "Skerry serves no share groups yet";
const STREAMS: &str = "Skerry serves no streams groups yet";

const fn row(key: &'static str, kind: Kind, default: &'static str, synonyms: &'static [Synonym]) -> Row {
    Row::new(Scope::Group, key, kind, default).falls_back_on(synonyms)
}

const fn same(key: &'static str, default: &'static str) -> Synonym {
    Synonym {
        key,
        unit: None,
        default: Some(default),
    }
}

#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    row("consumer.assignment.interval.ms", Kind::Int(0, I32), "1000", &[same("group.consumer.assignment.interval.ms", "1000")])
        .ms().inert(CONSUMER).doc("The least time between two new assignments of one consumer group."),
    row("consumer.heartbeat.interval.ms", Kind::Int(1, I32), "5000", &[same("group.consumer.heartbeat.interval.ms", "5000")])
        .ms().inert(CONSUMER).doc("How often a member of a consumer group sends a heartbeat."),
    row("consumer.session.timeout.ms", Kind::Int(1, I32), "45000", &[same("group.consumer.session.timeout.ms", "45000")])
        .ms().inert(CONSUMER).doc("A member of a consumer group that is silent for so long is out."),
    row("share.assignment.interval.ms", Kind::Int(0, I32), "1000", &[same("group.share.assignment.interval.ms", "1000")])
        .ms().inert(SHARE).doc("The least time between two new assignments of one share group."),
    row("share.auto.offset.reset", Kind::Text, "latest", &[])
        .inert(SHARE).doc("Where a share group starts: earliest, latest, or by_duration:PnDTnHnMn.nS."),
    row("share.delivery.count.limit", Kind::Int(2, 10), "5", &[same("group.share.delivery.count.limit", "5")])
        .inert(SHARE).doc("How often a record is offered before it is given up."),
    row("share.heartbeat.interval.ms", Kind::Int(1, I32), "5000", &[same("group.share.heartbeat.interval.ms", "5000")])
        .ms().inert(SHARE).doc("How often a member of a share group sends a heartbeat."),
    row("share.isolation.level", Kind::Choice(&["read_committed", "read_uncommitted"]), "read_uncommitted", &[])
        .inert(SHARE).doc("Whether a share group sees records of open and aborted transactions."),
    row("share.partition.max.record.locks", Kind::Int(100, 10_000), "2000", &[same("group.share.partition.max.record.locks", "2000")])
        .inert(SHARE).doc("How many records of one partition may be on offer at once."),
    row("share.record.lock.duration.ms", Kind::Int(1_000, 3_600_000), "30000", &[same("group.share.record.lock.duration.ms", "30000")])
        .ms().inert(SHARE).doc("How long a member has a record for itself."),
    row("share.renew.acknowledge.enable", Kind::Boolean, "true", &[])
        .inert(SHARE).doc("Let members prolong their hold on a record."),
    row("share.session.timeout.ms", Kind::Int(1, I32), "45000", &[same("group.share.session.timeout.ms", "45000")])
        .ms().inert(SHARE).doc("A member of a share group that is silent for so long is out."),
    row("streams.assignment.interval.ms", Kind::Int(0, I32), "1000", &[same("group.streams.assignment.interval.ms", "1000")])
        .ms().inert(STREAMS).doc("The least time between two new assignments of one streams group."),
    row("streams.heartbeat.interval.ms", Kind::Int(1, I32), "5000", &[same("group.streams.heartbeat.interval.ms", "5000")])
        .ms().inert(STREAMS).doc("How often a member of a streams group sends a heartbeat."),
    row("streams.initial.rebalance.delay.ms", Kind::Int(0, I32), "3000", &[same("group.streams.initial.rebalance.delay.ms", "3000")])
        .ms().inert(STREAMS).doc("How long an empty streams group waits for further members."),
    row("streams.num.standby.replicas", Kind::Int(0, I32), "0", &[same("group.streams.num.standby.replicas", "0")])
        .inert(STREAMS).doc("How many standby copies each task has."),
    row("streams.session.timeout.ms", Kind::Int(1, I32), "45000", &[same("group.streams.session.timeout.ms", "45000")])
        .ms().inert(STREAMS).doc("A member of a streams group that is silent for so long is out."),
];
