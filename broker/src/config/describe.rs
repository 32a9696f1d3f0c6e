//! What DescribeConfigs answers.

use super::effective::{BrokerLayers, ConfigMap, Source, effective};
use super::row::{Row, Scope, Support, Update};
use super::table;

/// One line of a DescribeConfigs answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// The setting.
    pub name: &'static str,
    /// Its value; `None` for null and for what is never shown.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: Source,
    /// It changes only by a restart.
    pub read_only: bool,
    /// Never shown.
    pub sensitive: bool,
    /// Where else a value may come from, in order of precedence.
    pub synonyms: Vec<DescribedSynonym>,
    /// Kafka's number of the type.
    pub config_type: i8,
    /// What it does.
    pub documentation: String,
}

/// A place that a value may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedSynonym {
    /// The setting there.
    pub name: &'static str,
    /// Its value there.
    pub value: Option<String>,
    /// The place.
    pub source: Source,
}

/// Every setting of a topic.
#[must_use]
pub fn describe_topic(own: &ConfigMap, broker: BrokerLayers<'_>) -> Vec<Described> {
    table::rows(Scope::Topic)
        .map(|row| owned(row, own, broker, Source::DynamicTopic))
        .collect()
}

/// Every setting of a group.
#[must_use]
pub fn describe_group(own: &ConfigMap, broker: BrokerLayers<'_>) -> Vec<Described> {
    table::rows(Scope::Group)
        .map(|row| owned(row, own, broker, Source::DynamicGroup))
        .collect()
}

/// Every setting of one broker, those of its node included.
#[must_use]
pub fn describe_broker(layers: BrokerLayers<'_>) -> Vec<Described> {
    table::rows(Scope::Broker)
        .map(|row| {
            let keys: Vec<&'static str> = siblings(row.key);
            let synonyms = synonyms(row.key, &keys, layers, row.sensitive);
            line(
                row,
                layers.get(row.key).map(|(value, _)| value.to_owned()),
                synonyms,
            )
        })
        .collect()
}

/// What is set for all brokers while they run (Kafka's broker resource with an empty name).
#[must_use]
pub fn describe_cluster_default(layers: BrokerLayers<'_>) -> Vec<Described> {
    layers
        .cluster
        .iter()
        .filter_map(|(key, value)| {
            let row = table::row(Scope::Broker, key).ok()?;
            let synonym = DescribedSynonym {
                name: row.key,
                value: shown(row, Some(value.to_string())),
                source: Source::DynamicDefaultBroker,
            };
            Some(line(row, Some(value.to_string()), vec![synonym]))
        })
        .collect()
}

fn owned(row: &'static Row, own: &ConfigMap, broker: BrokerLayers<'_>, own_source: Source) -> Described {
    let value = effective(row, own, broker).into_owned();
    let keys: Vec<&'static str> = row.synonyms.iter().map(|synonym| synonym.key).collect();
    let mut all = match keys.first() {
        Some(first) => synonyms(first, &keys, broker, row.sensitive),
        // Kafka lists the default of such a setting of a group, and of a topic nothing.
        None if row.scope == Scope::Group => own_default(row),
        None => Vec::new(),
    };
    if let Some(value) = own.get(row.key) {
        let value = shown(row, Some(value.to_string()));
        all.insert(
            0,
            DescribedSynonym {
                name: row.key,
                value,
                source: own_source,
            },
        );
    }
    line(row, Some(value), all)
}

fn own_default(row: &'static Row) -> Vec<DescribedSynonym> {
    let default = row.default.map(|value| DescribedSynonym {
        name: row.key,
        value: shown(row, Some(value.to_owned())),
        source: Source::Default,
    });
    default.into_iter().collect()
}

fn line(row: &'static Row, value: Option<String>, synonyms: Vec<DescribedSynonym>) -> Described {
    Described {
        name: row.key,
        value: shown(row, value),
        source: synonyms.first().map_or(Source::Default, |first| first.source),
        read_only: row.update == Update::ReadOnly,
        sensitive: row.sensitive,
        synonyms,
        config_type: row.kind.wire_type(),
        documentation: documentation(row),
    }
}

fn shown(row: &Row, value: Option<String>) -> Option<String> {
    if row.sensitive { None } else { value }
}

/// What a setting does, and where it does nothing, why.
#[must_use]
pub fn documentation(row: &Row) -> String {
    let mut text = match row.default_of {
        Some(key) => format!("The default of {key}. {}", row.doc),
        None => row.doc.to_owned(),
    };
    match row.support {
        Support::Full => {}
        Support::Inert(why) => text.push_str(&format!(" Accepted but without effect: {why}.")),
        Support::DefaultOnly(why) => text.push_str(&format!(" Cannot be changed: {why}.")),
    }
    text
}

/// The settings of the same thing in other units, the finest first.
fn siblings(key: &'static str) -> Vec<&'static str> {
    table::rows(Scope::Topic)
        .find(|row| row.synonyms.iter().any(|synonym| synonym.key == key))
        .map_or_else(
            || vec![key],
            |row| row.synonyms.iter().map(|synonym| synonym.key).collect(),
        )
}

/// Kafka lists layer by layer, and in each the synonyms in order; then it drops what comes before the first line of
/// the setting's own name. So a setting that is null itself and has a default in hours lists nothing at all.
fn synonyms(
    first: &str,
    keys: &[&'static str],
    layers: BrokerLayers<'_>,
    sensitive: bool,
) -> Vec<DescribedSynonym> {
    let dynamic = [
        (layers.own, Source::DynamicBroker),
        (layers.cluster, Source::DynamicDefaultBroker),
        (layers.given, Source::StaticBroker),
    ];
    let mut all: Vec<DescribedSynonym> = Vec::new();
    for (layer, source) in dynamic {
        for key in keys {
            if let Some(value) = layer.get(*key) {
                let value = if sensitive { None } else { Some(value.to_string()) };
                all.push(DescribedSynonym {
                    name: key,
                    value,
                    source,
                });
            }
        }
    }
    for key in keys {
        if let Some(value) = table::row(Scope::Broker, key).ok().and_then(|row| row.default) {
            let value = if sensitive { None } else { Some(value.to_owned()) };
            all.push(DescribedSynonym {
                name: key,
                value,
                source: Source::Default,
            });
        }
    }
    let own = all
        .iter()
        .position(|synonym| synonym.name == first)
        .unwrap_or(all.len());
    all.split_off(own)
}
