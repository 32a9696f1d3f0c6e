//! Settings.
//!
//! Every setting is a [`Row`], declared once: the file, the environment, the command line, DescribeConfigs, the
//! checks and the manual (`skerry config explain`) all read it there. The rest of the program is handed typed
//! structs ([`NodeConfig`], [`BrokerConfig`], [`TopicConfig`]) and never a map of texts.
//!
//! Whatever Kafka also has keeps Kafka's name, unit and default. Deliberately absent: a global configuration that
//! code could reach for.

mod alter;
mod broker;
mod broker_rows;
mod describe;
mod effective;
mod error;
mod group_rows;
mod layers;
mod node;
mod node_rows;
mod row;
mod table;
mod topic;
mod topic_rows;
mod value;

#[cfg(test)]
mod tests;

pub use alter::{Checked, Target, validate_create, validate_incremental, validate_replace};
pub use broker::BrokerConfig;
pub use describe::{
    Described, DescribedSynonym, describe_broker, describe_cluster_default, describe_group, describe_topic,
    documentation,
};
pub use effective::{BrokerLayers, ConfigMap, Source};
pub use error::ConfigError;
pub use layers::{Given, Origin, Problem, Settings, SettingsError, variable};
pub use node::NodeConfig;
pub use row::{Kind, Row, Scope, Support, Synonym, Unit, Update};
pub use table::{nearest, row, rows, rows_named, similar};
pub use topic::{FlushRule, TopicConfig};
pub use value::{parse_size, show_size};
