//! What the cluster decided, in the words of the controller's log: a line for each change of the metadata.

use std::collections::BTreeMap;
use std::sync::Arc;

use skerry_metadata_state::{ConfigMap, ConfigResource, Delta, Image, Partition};
use skerry_types::{BrokerId, PartitionIndex, TopicId};

/// Up to so many partitions have a line each; of more, which a broker that comes or goes makes change at once, the kinds of
/// change are counted.
const NAMED_MAX: usize = 10;

/// What `deltas`, which led from `before` to `after`, decided.
pub(crate) fn lines(before: &Image, after: &Image, deltas: &[Delta]) -> Vec<String> {
    let mut lines = Vec::new();
    // By partition: of several changes of one, where it stood and where it stands counts.
    let mut partitions = BTreeMap::new();
    let mut grown: Vec<TopicId> = Vec::new();
    for delta in deltas {
        match delta {
            Delta::TopicCreated { id, name } => lines.extend(after.topic_by_id(*id).map(|topic| {
                let replicas = topic.partitions.first().map_or(0, |first| first.replicas.len());
                let count = topic.partitions.len();
                format!("topic {name} is made: partitions {count}, replicas of each {replicas}")
            })),
            Delta::TopicDeleted { name, .. } => lines.push(format!("topic {name} is deleted")),
            Delta::PartitionChanged {
                topic,
                name,
                partition,
            } => {
                let now = partition_of(after, *topic, *partition);
                match (partition_of(before, *topic, *partition), now) {
                    (Some(old), Some(now)) if old != now => {
                        let change = Change {
                            old: old.clone(),
                            now: now.clone(),
                        };
                        partitions.insert((name.clone(), *partition), change);
                    }
                    (None, Some(_)) if before.topic_by_id(*topic).is_some() && !grown.contains(topic) => {
                        grown.push(*topic);
                    }
                    _ => {}
                }
            }
            Delta::ConfigChanged(resource) => {
                let change = changed_config(before.config(resource), after.config(resource));
                lines.push(format!("settings of {}: {change}", of(resource)));
            }
            Delta::BrokerChanged(id) => lines.extend(changed_broker(before, after, *id)),
            Delta::FeatureLevelChanged(level) => lines.push(format!("the feature level is {level}")),
            Delta::ClusterNamed(id) => lines.push(format!("the cluster is {id}")),
            // A snapshot: what was decided is not told apart from what was there.
            Delta::Reset => return Vec::new(),
        }
    }
    for topic in grown.into_iter().filter_map(|id| after.topic_by_id(id)) {
        lines.push(format!(
            "topic {} grows: partitions {}",
            topic.name,
            topic.partitions.len()
        ));
    }
    if partitions.len() <= NAMED_MAX {
        let named = |((topic, index), change): (&(Arc<str>, PartitionIndex), &Change)| {
            format!("{topic}-{index}: {}", change.told())
        };
        lines.extend(partitions.iter().map(named));
    } else {
        lines.push(counted(partitions.values()));
    }
    lines
}

fn partition_of(image: &Image, topic: TopicId, partition: PartitionIndex) -> Option<&Arc<Partition>> {
    image.topic_by_id(topic)?.partition(partition)
}

/// A partition that stands otherwise now.
struct Change {
    old: Arc<Partition>,
    now: Arc<Partition>,
}

impl Change {
    fn has_new_leader(&self) -> bool {
        self.now.leader.is_some() && self.now.leader_epoch != self.old.leader_epoch
    }

    fn lost_its_leader(&self) -> bool {
        self.old.leader.is_some() && self.now.leader.is_none()
    }

    /// Who is in `these` and not in `those`.
    fn without(these: &[BrokerId], those: &[BrokerId]) -> Vec<BrokerId> {
        let mut rest = these.to_vec();
        rest.retain(|id| !those.contains(id));
        rest
    }

    fn left(&self) -> Vec<BrokerId> {
        Self::without(&self.old.isr, &self.now.isr)
    }

    fn came(&self) -> Vec<BrokerId> {
        Self::without(&self.now.isr, &self.old.isr)
    }

    fn told(&self) -> String {
        let Self { old, now } = self;
        let mut told = Vec::new();
        match (old.leader, now.leader) {
            (was, Some(leader)) if self.has_new_leader() => told.push(match was {
                Some(was) if was != leader => {
                    format!(
                        "broker {leader} leads in place of {was}, epoch {}",
                        now.leader_epoch
                    )
                }
                _ => format!("broker {leader} leads, epoch {}", now.leader_epoch),
            }),
            (Some(was), None) => told.push(format!(
                "nobody leads in place of {was}; broker {} may, once there",
                ids(&Self::without(&now.elr, &now.offline))
            )),
            _ => {}
        }
        let offline = Self::without(&now.offline, &old.offline);
        if !offline.is_empty() {
            told.push(format!("broker {} cannot open its copy", ids(&offline)));
        }
        let back = Self::without(&old.offline, &now.offline);
        if !back.is_empty() {
            told.push(format!(
                "broker {} can open its copy again, or begins an empty one",
                ids(&back)
            ));
        }
        if let Some(leader) = now.leader.filter(|_| self.has_new_leader())
            && old.leader.is_none()
            && !old.isr.contains(&leader)
            && !old.elr.contains(&leader)
        {
            told.push("it was elected unclean: what it lacks is lost".to_owned());
        }
        let (left, came) = (self.left(), self.came());
        if !left.is_empty() && now.leader.is_some() {
            told.push(format!("broker {} is not in sync any more", ids(&left)));
        }
        if !came.is_empty() && old.leader.is_some() {
            told.push(format!("broker {} is in sync", ids(&came)));
        }
        if old.replicas != now.replicas {
            told.push(format!(
                "replicas {} instead of {}",
                ids(&now.replicas),
                ids(&old.replicas)
            ));
        }
        match (old.is_reassigning(), now.is_reassigning()) {
            (false, true) => told.push("they begin to move".to_owned()),
            (true, false) => told.push("they have moved".to_owned()),
            _ => {}
        }
        if told.is_empty() {
            told.push(format!("eligible {}", ids(&now.elr)));
        }
        format!("{}; in sync {}", told.join(", "), ids(&now.isr))
    }
}

/// `partitions that changed: 812; new leaders 271, without a leader 3, smaller in-sync sets 812`.
fn counted<'a>(changes: impl Iterator<Item = &'a Change> + Clone) -> String {
    let count = |wanted: &dyn Fn(&Change) -> bool| changes.clone().filter(|change| wanted(change)).count();
    let kinds = [
        ("new leaders", count(&Change::has_new_leader)),
        ("without a leader", count(&Change::lost_its_leader)),
        ("smaller in-sync sets", count(&|change| !change.left().is_empty())),
        ("larger in-sync sets", count(&|change| !change.came().is_empty())),
        (
            "other replicas",
            count(&|change| change.old.replicas != change.now.replicas),
        ),
    ];
    let kinds: Vec<String> = kinds
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{kind} {count}"))
        .collect();
    format!(
        "partitions that changed: {}; {}",
        changes.clone().count(),
        kinds.join(", ")
    )
}

/// A registration or its end. What fences and unfences a broker is told by the controller, with its reason.
fn changed_broker(before: &Image, after: &Image, id: BrokerId) -> Option<String> {
    match (before.broker(id), after.broker(id)) {
        (Some(_), None) => Some(format!("broker {id} is forgotten")),
        (old, Some(now)) if old.is_none_or(|old| old.epoch != now.epoch) => {
            let rack = now
                .rack
                .as_ref()
                .map_or(String::new(), |rack| format!(", rack {rack}"));
            Some(format!(
                "broker {id} registered: clients reach it at {}{rack}",
                now.kafka
            ))
        }
        (Some(old), Some(now)) if !old.draining && now.draining => {
            Some(format!("broker {id} is leaving: others lead what it led"))
        }
        _ => None,
    }
}

fn of(resource: &ConfigResource) -> String {
    match resource {
        ConfigResource::Topic(name) => format!("topic {name}"),
        ConfigResource::Broker(id) => format!("broker {id}"),
        ConfigResource::ClusterDefault => "all brokers".to_owned(),
        ConfigResource::Group(name) => format!("group {name}"),
    }
}

fn changed_config(old: Option<&Arc<ConfigMap>>, now: Option<&Arc<ConfigMap>>) -> String {
    let empty = Arc::default();
    let (old, now) = (old.unwrap_or(&empty), now.unwrap_or(&empty));
    let set = now.iter().filter(|(key, value)| old.get(*key) != Some(value));
    let set = set.map(|(key, value)| format!("{key}={value}"));
    let gone = old.keys().filter(|key| !now.contains_key(*key));
    let gone = gone.map(|key| format!("{key} is the default again"));
    let told: Vec<String> = set.chain(gone).collect();
    match told.is_empty() {
        true => "nothing new".to_owned(),
        false => told.join(", "),
    }
}

fn ids(brokers: &[BrokerId]) -> String {
    let ids: Vec<String> = brokers.iter().map(ToString::to_string).collect();
    match ids.is_empty() {
        true => "nobody".to_owned(),
        false => ids.join(","),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use skerry_metadata_state::{
        AlterConfigs, BrokerGuard, Command, ConfigOp, CreatePartitions, CreateTopic, Placement, State,
    };
    use skerry_types::{Uuid, WallMs};

    use super::*;
    use crate::kafka::api::testing::{ME, image, with_broker};

    fn check(before: &Arc<Image>, commands: &[Command], expected: Expect) -> Arc<Image> {
        let mut state = State::from_image((**before).clone());
        let mut deltas = Vec::new();
        for command in commands {
            deltas.extend(state.apply(state.image().index() + 1, command).deltas);
        }
        let after = state.image().clone();
        expected.assert_eq(&(lines(before, &after, &deltas).join("\n") + "\n"));
        after
    }

    fn guard(image: &Image, id: i32) -> BrokerGuard {
        let broker = BrokerId(id);
        BrokerGuard {
            broker,
            epoch: image.broker(broker).unwrap().epoch,
        }
    }

    fn create(name: &str, partitions: i32) -> Command {
        Command::CreateTopic(CreateTopic {
            id: Uuid([9; 16]),
            name: name.into(),
            placement: Placement::Automatic {
                partitions,
                replication_factor: 2,
            },
            configs: vec![],
            at: WallMs(0),
        })
    }

    #[test]
    fn a_broker_that_goes_and_what_comes_of_it() {
        let two = with_broker(&image(&[]), BrokerId(2));
        let made = check(
            &two,
            &[create("orders", 2)],
            expect![[r"
                topic orders is made: partitions 2, replicas of each 2
            "]],
        );
        let alone = check(
            &made,
            &[Command::FenceBroker(guard(&made, 2))],
            expect![[r"
            orders-0: broker 1 leads in place of 2, epoch 1, broker 2 is not in sync any more; in sync 1
            orders-1: broker 2 is not in sync any more; in sync 1
        "]],
        );
        check(
            &alone,
            &[Command::FenceBroker(guard(&alone, ME.get()))],
            expect![[r"
                orders-0: nobody leads in place of 1; broker 1 may, once there; in sync nobody
                orders-1: nobody leads in place of 1; broker 1 may, once there; in sync nobody
            "]],
        );
    }

    #[test]
    fn many_changes_at_once_are_counted() {
        let two = with_broker(&image(&[]), BrokerId(2));
        let made = check(
            &two,
            &[create("many", 300)],
            expect![[r"
            topic many is made: partitions 300, replicas of each 2
        "]],
        );
        check(
            &made,
            &[Command::FenceBroker(guard(&made, 2))],
            expect![[r"
            partitions that changed: 300; new leaders 150, smaller in-sync sets 300
        "]],
        );
    }

    #[test]
    fn settings_growth_and_the_end_of_a_topic() {
        let one = image(&[("orders", 1)]);
        let topic = one.topic("orders").unwrap().id;
        let alter = |ops: &[(&str, ConfigOp)]| {
            Command::AlterConfigs(AlterConfigs {
                resource: ConfigResource::Topic("orders".into()),
                replace: false,
                ops: ops.iter().map(|(key, op)| ((*key).into(), op.clone())).collect(),
            })
        };
        let set = [
            ("retention.ms", ConfigOp::Set("1000".into())),
            ("cleanup.policy", ConfigOp::Set("compact".into())),
        ];
        let altered = check(
            &one,
            &[alter(&set)],
            expect![[r"
            settings of topic orders: cleanup.policy=compact, retention.ms=1000
        "]],
        );
        let back = [("retention.ms", ConfigOp::Delete)];
        let altered = check(
            &altered,
            &[alter(&back)],
            expect![[r"
            settings of topic orders: retention.ms is the default again
        "]],
        );
        let count = Command::CreatePartitions(CreatePartitions {
            topic,
            count: 4,
            assignments: None,
        });
        let grown = check(
            &altered,
            &[count],
            expect![[r"
            topic orders grows: partitions 4
        "]],
        );
        check(
            &grown,
            &[Command::DeleteTopic { topic }],
            expect![[r"
            topic orders is deleted
        "]],
        );
    }
}
