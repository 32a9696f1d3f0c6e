//! Configurations.

use std::sync::Arc;

use super::Change;
use crate::command::{AlterConfigs, ConfigOp};
use crate::image::{ConfigMap, ConfigResource};
use crate::outcome::{Delta, Outcome, Refusal};

impl Change<'_> {
    pub(super) fn alter_configs(&mut self, request: &AlterConfigs) -> Result<Outcome, Refusal> {
        let resource = &request.resource;
        match resource {
            ConfigResource::Topic(name) if self.image.topic(name).is_none() => {
                return Err(Refusal::UnknownTopic);
            }
            // Kafka, too, keeps the configuration of a broker that it does not know.
            ConfigResource::Topic(_)
            | ConfigResource::Broker(_)
            | ConfigResource::ClusterDefault
            | ConfigResource::Group(_) => {}
        }
        let before = self
            .image
            .config(resource)
            .map(|configs| ConfigMap::clone(configs))
            .unwrap_or_default();
        let mut after = before.clone();
        if request.replace {
            after.retain(|key, _| request.ops.iter().any(|(named, _)| named == key));
        }
        for (key, op) in &request.ops {
            let value = match op {
                ConfigOp::Set(value) => Some(Arc::clone(value)),
                ConfigOp::Delete => None,
                ConfigOp::Append { values, default } => {
                    Some(appended(before.get(key).unwrap_or(default), values))
                }
                ConfigOp::Subtract { values, default } => {
                    Some(subtracted(before.get(key).unwrap_or(default), values))
                }
            };
            match value {
                Some(value) => after.insert(Arc::clone(key), value),
                None => after.remove(key),
            };
        }
        if after != before {
            self.set_config(resource, after);
            self.deltas.push(Delta::ConfigChanged(resource.clone()));
            // With fewer in-sync replicas needed, records are acknowledged that an eligible replica lacks: it must not
            // be one any more by the time that a leader sees the change (KIP-966).
            match resource {
                ConfigResource::Topic(name) => self.follow_config(Some(name)),
                ConfigResource::ClusterDefault => self.follow_config(None),
                ConfigResource::Broker(_) | ConfigResource::Group(_) => {}
            }
        }
        Ok(Outcome::Done)
    }

    fn set_config(&mut self, resource: &ConfigResource, configs: ConfigMap) {
        if let ConfigResource::Topic(name) = resource {
            let topic = self.image.topics.get_mut(name).expect("the caller found it");
            Arc::make_mut(topic).configs = Arc::new(configs);
        } else if configs.is_empty() {
            self.image.configs.remove(resource);
        } else {
            self.image.configs.insert(resource.clone(), Arc::new(configs));
        }
    }
}

fn parts(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn appended(list: &str, values: &[Arc<str>]) -> Arc<str> {
    let mut all: Vec<&str> = parts(list).collect();
    for value in values {
        if !all.contains(&&**value) {
            all.push(value);
        }
    }
    all.join(",").into()
}

fn subtracted(list: &str, values: &[Arc<str>]) -> Arc<str> {
    let rest: Vec<&str> = parts(list)
        .filter(|part| !values.iter().any(|value| &**value == *part))
        .collect();
    rest.join(",").into()
}
