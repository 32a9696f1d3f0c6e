//! All settings, found by name.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use super::error::ConfigError;
use super::row::{Kind, Row, Scope, Synonym, Unit, Update};
use super::{broker_rows, group_rows, node_rows, topic_rows};

/// The rows of each scope, by key. A broker's include its node's: Kafka describes them together.
static TABLES: LazyLock<BTreeMap<Scope, BTreeMap<&'static str, Row>>> = LazyLock::new(|| {
    let by_key = |rows: &mut dyn Iterator<Item = Row>| {
        let mut table = BTreeMap::new();
        for row in rows {
            assert!(
                table.insert(row.key, row).is_none(),
                "{} is declared twice",
                row.key
            );
        }
        table
    };
    let copied = |rows: &'static [Row]| rows.iter().copied();
    let node = by_key(&mut copied(node_rows::ROWS));
    let topic = by_key(&mut copied(topic_rows::ROWS));
    let group = by_key(&mut copied(group_rows::ROWS));
    let defaults = topic.values().chain(group.values()).flat_map(defaults_of);
    let broker = by_key(
        &mut copied(broker_rows::FRONT)
            .chain(copied(broker_rows::STORAGE))
            .chain(copied(broker_rows::CLUSTER))
            .chain(copied(broker_rows::GROUPS))
            .chain(defaults)
            .chain(node.values().copied()),
    );
    BTreeMap::from([
        (Scope::Node, node),
        (Scope::Broker, broker),
        (Scope::Topic, topic),
        (Scope::Group, group),
    ])
});

/// The broker settings that `row` falls back on.
fn defaults_of(row: &Row) -> impl Iterator<Item = Row> {
    let row = *row;
    row.synonyms.iter().map(move |synonym| Row {
        key: synonym.key,
        default: synonym.default,
        unit: synonym.unit.unwrap_or(row.unit),
        // Kafka counts hours and minutes in 32 bits.
        kind: if synonym.unit.is_some() {
            Kind::Int(i32::MIN, i32::MAX)
        } else {
            row.kind
        },
        scope: Scope::Broker,
        update: default_update(&row, synonym),
        synonyms: &[],
        default_of: Some(row.key),
        ..row
    })
}

/// Kafka lets a running broker change every default of topics but those counted in hours and minutes, and one
/// default of groups.
fn default_update(row: &Row, synonym: &Synonym) -> Update {
    let fixed = synonym.unit.is_some()
        || synonym.key == "log.flush.scheduler.interval.ms"
        || (row.scope == Scope::Group && !synonym.key.ends_with(".assignment.interval.ms"));
    if fixed {
        Update::ReadOnly
    } else {
        Update::ClusterWide
    }
}

/// Every setting of `scope`, sorted by name.
pub fn rows(scope: Scope) -> impl Iterator<Item = &'static Row> {
    TABLES[&scope].values()
}

/// The setting `key` of `scope`.
///
/// # Errors
/// [`ConfigError::UnknownKey`] with the name that is most like it.
pub fn row(scope: Scope, key: &str) -> Result<&'static Row, ConfigError> {
    TABLES[&scope].get(key).ok_or_else(|| ConfigError::UnknownKey {
        key: key.to_owned(),
        scope,
        nearest: nearest(key, TABLES[&scope].keys().copied()),
    })
}

/// Every setting called `key`, in any scope: a topic's and a broker's may share a name.
pub fn rows_named(key: &str) -> impl Iterator<Item = &'static Row> {
    [Scope::Topic, Scope::Group, Scope::Broker]
        .into_iter()
        .filter_map(move |scope| TABLES[&scope].get(key))
}

/// The names that are most like `key`, the best first.
pub fn similar(key: &str) -> Vec<&'static str> {
    let mut found: Vec<(usize, &'static str)> = [Scope::Topic, Scope::Group, Scope::Broker]
        .into_iter()
        .flat_map(|scope| TABLES[&scope].keys().copied())
        .map(|candidate| (distance(key, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 2 <= key.len().max(3) || candidate.contains(key))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
        .into_iter()
        .map(|(_, candidate)| candidate)
        .take(5)
        .collect()
}

/// Of `candidates`, the one that is most like `key`, if any is like it at all.
pub fn nearest<'a>(key: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (distance(key, candidate), candidate))
        .filter(|(distance, candidate)| *distance * 3 <= key.len().max(candidate.len()))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, where `_`, `-` and `.` are one, and case does not count.
fn distance(a: &str, b: &str) -> usize {
    let fold = |text: &str| -> Vec<char> {
        text.chars()
            .map(|c| {
                if matches!(c, '_' | '-') {
                    '.'
                } else {
                    c.to_ascii_lowercase()
                }
            })
            .collect()
    };
    let (a, b) = (fold(a), fold(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// Milliseconds in one unit of a time setting.
pub(super) const fn ms_per(unit: Unit) -> i64 {
    match unit {
        Unit::Seconds => 1_000,
        Unit::Minutes => 60_000,
        Unit::Hours => 3_600_000,
        Unit::None | Unit::Ms | Unit::Bytes | Unit::BytesPerSecond | Unit::Messages => 1,
    }
}
