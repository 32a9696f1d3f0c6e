//! Which of several layers a value comes from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use super::row::{Row, Scope};
use super::table::{self, ms_per};

/// Overrides by key, as the metadata keeps them.
pub type ConfigMap = BTreeMap<Arc<str>, Arc<str>>;

static NOTHING: LazyLock<ConfigMap> = LazyLock::new(ConfigMap::new);

/// Where a value comes from, in Kafka's order of precedence. The numbers are those of DescribeConfigs answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i8)]
pub enum Source {
    /// The topic's own.
    DynamicTopic = 1,
    /// Set for one broker while it runs.
    DynamicBroker = 2,
    /// Set for all brokers while they run.
    DynamicDefaultBroker = 3,
    /// Given at the broker's start.
    StaticBroker = 4,
    /// Nobody set it.
    Default = 5,
    /// The group's own.
    DynamicGroup = 8,
}

/// The settings of one broker: what was given at its start, and what was set since.
#[derive(Clone, Copy)]
pub struct BrokerLayers<'a> {
    /// Set for this broker while it runs.
    pub own: &'a ConfigMap,
    /// Set for every broker.
    pub cluster: &'a ConfigMap,
    /// Given at its start.
    pub given: &'a ConfigMap,
}

impl Default for BrokerLayers<'_> {
    fn default() -> Self {
        Self {
            own: &NOTHING,
            cluster: &NOTHING,
            given: &NOTHING,
        }
    }
}

impl<'a> BrokerLayers<'a> {
    /// Only what was given at the start.
    #[must_use]
    pub fn given(given: &'a ConfigMap) -> Self {
        Self {
            given,
            ..Self::default()
        }
    }

    /// The value of broker setting `key` and where it comes from; `None` where it is null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<(&'a str, Source)> {
        let layers = [
            (self.own, Source::DynamicBroker),
            (self.cluster, Source::DynamicDefaultBroker),
            (self.given, Source::StaticBroker),
        ];
        layers
            .into_iter()
            .find_map(|(layer, source)| layer.get(key).map(|value| (&**value, source)))
            .or_else(|| Some((table::row(Scope::Broker, key).ok()?.default?, Source::Default)))
    }
}

/// The value of a topic's or group's `row`: its own, or the first of the broker settings behind it that is set.
pub(super) fn effective<'a>(row: &Row, own: &'a ConfigMap, broker: BrokerLayers<'a>) -> Cow<'a, str> {
    if let Some(value) = own.get(row.key) {
        return Cow::Borrowed(value);
    }
    for synonym in row.synonyms {
        let Some((value, _)) = broker.get(synonym.key) else {
            continue;
        };
        return match synonym.unit {
            None => Cow::Borrowed(value),
            Some(unit) => {
                let count: i64 = value.parse().unwrap_or(-1);
                // Kafka: any negative number of hours or minutes means no limit.
                let ms = if count < 0 {
                    -1
                } else {
                    count.saturating_mul(ms_per(unit))
                };
                Cow::Owned(ms.to_string())
            }
        };
    }
    Cow::Borrowed(row.default.unwrap_or(""))
}
