//! Checks changes of settings before they are proposed to the metadata quorum.

use std::collections::BTreeSet;
use std::sync::Arc;

use skerry_metadata_state::ConfigOp;

use super::effective::{BrokerLayers, ConfigMap, effective};
use super::error::ConfigError;
use super::row::{Row, Scope, Update};
use super::{table, topic_rows, value};

/// Settings that passed their checks, in Kafka's form.
pub type Checked<T> = Vec<(Arc<str>, T)>;

/// Whose settings are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// A topic's.
    Topic,
    /// One broker's.
    Broker,
    /// Those of all brokers.
    ClusterDefault,
    /// A group's.
    Group,
}

impl Target {
    const fn scope(self) -> Scope {
        match self {
            Self::Topic => Scope::Topic,
            Self::Broker | Self::ClusterDefault => Scope::Broker,
            Self::Group => Scope::Group,
        }
    }
}

/// The settings of a CreateTopics request: checked, in Kafka's form, without those that Kafka 4.0 removed.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate_create<'a>(
    configs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    broker: BrokerLayers<'_>,
) -> Result<Checked<Arc<str>>, ConfigError> {
    let mut own = ConfigMap::new();
    let mut seen = BTreeSet::new();
    for (key, value) in configs {
        if !seen.insert(key) {
            return Err(ConfigError::Duplicate { key: key.to_owned() });
        }
        if topic_rows::REMOVED.contains(&key) {
            continue;
        }
        let row = table::row(Scope::Topic, key)?;
        let value = value.ok_or_else(|| ConfigError::NullValue { key: key.to_owned() })?;
        own.insert(row.key.into(), row.parse(value)?.into());
    }
    check_topic(&own, broker)?;
    Ok(own.into_iter().collect())
}

/// The older AlterConfigs: what is named is set, what is not named goes back to its default.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate_replace<'a>(
    target: Target,
    configs: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
    broker: BrokerLayers<'_>,
) -> Result<Checked<ConfigOp>, ConfigError> {
    let mut own = ConfigMap::new();
    for (key, value) in configs {
        let row = changeable(target, key)?;
        let value = value.ok_or_else(|| ConfigError::NullValue { key: key.to_owned() })?;
        if own.insert(row.key.into(), row.parse(value)?.into()).is_some() {
            return Err(ConfigError::Duplicate { key: key.to_owned() });
        }
    }
    check_result(target, &own, broker)?;
    Ok(own
        .into_iter()
        .map(|(key, value)| (key, ConfigOp::Set(value)))
        .collect())
}

/// IncrementalAlterConfigs. `current` is what the resource overrides now, `op` Kafka's number: 0 SET, 1 DELETE,
/// 2 APPEND, 3 SUBTRACT.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate_incremental<'a>(
    target: Target,
    ops: impl IntoIterator<Item = (&'a str, i8, Option<&'a str>)>,
    current: &ConfigMap,
    broker: BrokerLayers<'_>,
) -> Result<Checked<ConfigOp>, ConfigError> {
    let mut after = current.clone();
    let mut checked: Checked<ConfigOp> = Vec::new();
    for (key, op, value) in ops {
        if checked.iter().any(|(seen, _)| &**seen == key) {
            return Err(ConfigError::Duplicate { key: key.to_owned() });
        }
        let op = match op {
            // Kafka answers NONE for a DELETE of what does not exist, or of what only a restart changes.
            1 if current.contains_key(key) || table::row(target.scope(), key).is_ok() => ConfigOp::Delete,
            1 => continue,
            0 => {
                let row = changeable(target, key)?;
                ConfigOp::Set(row.parse(some(key, value)?)?.into())
            }
            2 | 3 => list_op(changeable(target, key)?, op == 2, some(key, value)?)?,
            op => {
                return Err(ConfigError::UnknownOperation {
                    key: key.to_owned(),
                    op,
                });
            }
        };
        apply(&mut after, key, &op);
        checked.push((key.into(), op));
    }
    for (key, _) in &checked {
        if let (Some(value), Ok(row)) = (after.get(key), table::row(target.scope(), key)) {
            row.parse(value)?;
        }
    }
    check_result(target, &after, broker)?;
    Ok(checked)
}

fn some<'a>(key: &str, value: Option<&'a str>) -> Result<&'a str, ConfigError> {
    value.ok_or_else(|| ConfigError::NullValue { key: key.to_owned() })
}

fn changeable(target: Target, key: &str) -> Result<&'static Row, ConfigError> {
    let row = table::row(target.scope(), key)?;
    match (row.update, target) {
        (Update::ReadOnly, _) => Err(ConfigError::ReadOnly { key: key.to_owned() }),
        (Update::PerBroker, Target::ClusterDefault) => {
            Err(ConfigError::PerBrokerOnly { key: key.to_owned() })
        }
        _ => Ok(row),
    }
}

fn list_op(row: &Row, append: bool, text: &str) -> Result<ConfigOp, ConfigError> {
    if !row.kind.is_list() {
        let op = if append { "APPEND" } else { "SUBTRACT" };
        return Err(ConfigError::NotAList {
            key: row.key.to_owned(),
            op,
        });
    }
    let values: Vec<Arc<str>> = value::items(text).map(Arc::from).collect();
    // Where the resource overrides nothing, Kafka starts from the setting's own default, not from the broker's.
    let default: Arc<str> = row.default.unwrap_or("").into();
    Ok(if append {
        ConfigOp::Append { values, default }
    } else {
        ConfigOp::Subtract { values, default }
    })
}

/// What the state machine will do, to check the outcome. The quorum may see other changes first; each of them passed
/// the same check, and lists of valid items stay valid.
fn apply(map: &mut ConfigMap, key: &str, op: &ConfigOp) {
    let list = |map: &ConfigMap, default: &Arc<str>| -> Vec<Arc<str>> {
        value::items(map.get(key).unwrap_or(default))
            .map(Arc::from)
            .collect()
    };
    let joined = |items: Vec<Arc<str>>| -> Arc<str> { items.join(",").into() };
    match op {
        ConfigOp::Set(value) => {
            map.insert(key.into(), value.clone());
        }
        ConfigOp::Delete => {
            map.remove(key);
        }
        ConfigOp::Append { values, default } => {
            let mut items = list(map, default);
            for value in values {
                if !items.contains(value) {
                    items.push(value.clone());
                }
            }
            map.insert(key.into(), joined(items));
        }
        ConfigOp::Subtract { values, default } => {
            let mut items = list(map, default);
            items.retain(|item| !values.contains(item));
            map.insert(key.into(), joined(items));
        }
    }
}

fn check_result(target: Target, own: &ConfigMap, broker: BrokerLayers<'_>) -> Result<(), ConfigError> {
    match target {
        Target::Topic => check_topic(own, broker),
        Target::Broker | Target::ClusterDefault | Target::Group => Ok(()),
    }
}

/// Settings of a topic that must not contradict each other, as Kafka's `LogConfig.validateTopicLogConfigValues`.
fn check_topic(own: &ConfigMap, broker: BrokerLayers<'_>) -> Result<(), ConfigError> {
    const LAGS: [&str; 2] = ["min.compaction.lag.ms", "max.compaction.lag.ms"];
    let [Ok(min_row), Ok(max_row)] = LAGS.map(|key| table::row(Scope::Topic, key)) else {
        return Ok(());
    };
    let number = |row: &Row| effective(row, own, broker).parse::<i64>().unwrap_or(0);
    let (min, max) = (number(min_row), number(max_row));
    if min > max {
        return Err(ConfigError::Contradiction {
            key: min_row.key,
            value: min.to_string(),
            relation: "is larger than",
            other: max_row.key,
            other_value: max.to_string(),
        });
    }
    Ok(())
}
