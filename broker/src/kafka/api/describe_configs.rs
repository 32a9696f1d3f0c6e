//! DescribeConfigs (32), v1-v4. v1 has sources and synonyms (KIP-226), v3 types and texts (KIP-569).
//!
//! Every setting is told, with its default and all places that its value may come from: tools compare with this list.
//! The error message of success is empty and not null, as Kafka's is.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};
use kafka_protocol::protocol::StrBytes;
use skerry_metadata_state::{ConfigResource, Image};
use skerry_types::BrokerId;

use crate::config::{self, BrokerLayers, Described};
use crate::gate::Operation;
use crate::kafka::dispatch::{Context, api};
use crate::kafka::resources::{self, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};
use crate::kafka::wire::{self, ApiError};
use crate::topics;

api!(DescribeConfigs, 1..=4, DescribeConfigsRequest, handle);

async fn handle(context: Context, version: i16, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let broker = &context.broker;
    let image = broker.image();
    let view = View {
        image: &image,
        me: broker.id(),
        layers: topics::layers(broker, &image),
        version,
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    let unknown = request
        .resources
        .iter()
        .find(|resource| !is_known(resource.resource_type));
    if let Some(unknown) = unknown {
        let words = format!(
            "Unexpected resource type UNKNOWN for resource {}",
            unknown.resource_name.as_str()
        );
        let error = ApiError::invalid_request(words);
        let results = request.resources.iter().map(|resource| refused(resource, &error));
        return DescribeConfigsResponse::default().with_results(results.collect());
    }
    let results = request.resources.iter().map(|resource| {
        let configs = authorised(&context, resource).and_then(|()| view.describe(resource));
        match configs {
            Ok(configs) => view.result(resource, configs),
            Err(error) => refused(resource, &error),
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

const fn is_known(kind: i8) -> bool {
    matches!(kind, TOPIC | BROKER | BROKER_LOGGER | CLIENT_METRICS | GROUP)
}

fn authorised(context: &Context, resource: &DescribeConfigsResource) -> Result<(), ApiError> {
    let name = resource.resource_name.as_str();
    let of = match resource.resource_type {
        TOPIC => ConfigResource::Topic(name.into()),
        GROUP => ConfigResource::Group(name.into()),
        _ => ConfigResource::ClusterDefault,
    };
    resources::authorise(context, Operation::DescribeConfigs, &of)
}

fn refused(resource: &DescribeConfigsResource, error: &ApiError) -> DescribeConfigsResult {
    DescribeConfigsResult::default()
        .with_error_code(error.code.code())
        .with_error_message(Some(wire::text(&error.message)))
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
}

struct View<'a> {
    image: &'a Image,
    me: BrokerId,
    layers: BrokerLayers<'a>,
    version: i16,
    synonyms: bool,
    documentation: bool,
}

impl View<'_> {
    fn describe(&self, resource: &DescribeConfigsResource) -> Result<Vec<Described>, ApiError> {
        let name = resource.resource_name.as_str();
        match resource.resource_type {
            TOPIC => {
                topics::validate_name(name)?;
                let topic = self.image.topic(name).ok_or_else(|| {
                    // Kafka leaves the text as it is by default, which is empty.
                    ApiError::new(ResponseError::UnknownTopicOrPartition, "")
                })?;
                Ok(config::describe_topic(&topic.configs, self.layers))
            }
            BROKER if name.is_empty() => Ok(config::describe_cluster_default(self.layers)),
            BROKER => {
                self.is_me(name, " or empty string")?;
                Ok(config::describe_broker(self.layers))
            }
            BROKER_LOGGER if name.is_empty() => Err(ApiError::invalid_request("Broker id must not be empty")),
            // There are no loggers that a client could set.
            BROKER_LOGGER => self.is_me(name, "").map(|()| Vec::new()),
            GROUP if name.is_empty() => Err(ApiError::invalid_request("Group name must not be empty")),
            GROUP => {
                let own = resources::overrides(self.image, &ConfigResource::Group(name.into()));
                Ok(config::describe_group(&own, self.layers))
            }
            _ if name.is_empty() => Err(ApiError::invalid_request(
                "Client metrics subscription name must not be empty",
            )),
            // Nobody can subscribe.
            _ => Ok(Vec::new()),
        }
    }

    fn is_me(&self, name: &str, or: &str) -> Result<(), ApiError> {
        let refuse = |words: String| Err(ApiError::invalid_request(words));
        match name.parse::<i32>() {
            Ok(number) if number == self.me.get() => Ok(()),
            Ok(_) => refuse(format!(
                "Unexpected broker id, expected {}{or}, but received {name}",
                self.me
            )),
            Err(_) => refuse(format!("Broker id must be an integer, but it is: {name}")),
        }
    }

    fn result(&self, resource: &DescribeConfigsResource, configs: Vec<Described>) -> DescribeConfigsResult {
        let keys = resource.configuration_keys.as_deref().unwrap_or(&[]);
        let wanted =
            |config: &Described| keys.is_empty() || keys.iter().any(|key| key.as_str() == config.name);
        let configs = configs
            .into_iter()
            .filter(wanted)
            .map(|config| self.entry(config));
        DescribeConfigsResult::default()
            .with_error_message(Some(StrBytes::default()))
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone())
            .with_configs(configs.collect())
    }

    fn entry(&self, config: Described) -> DescribeConfigsResourceResult {
        let mut entry = DescribeConfigsResourceResult::default()
            .with_name(StrBytes::from_static_str(config.name))
            .with_value(config.value.map(StrBytes::from_string))
            .with_read_only(config.read_only)
            .with_config_source(config.source as i8)
            .with_is_sensitive(config.sensitive);
        if self.synonyms {
            let synonyms = config.synonyms.into_iter().map(|synonym| {
                DescribeConfigsSynonym::default()
                    .with_name(StrBytes::from_static_str(synonym.name))
                    .with_value(synonym.value.map(StrBytes::from_string))
                    .with_source(synonym.source as i8)
            });
            entry.synonyms = synonyms.collect();
        }
        if self.version >= 3 {
            entry.config_type = config.config_type;
            entry.documentation = self.documentation.then(|| wire::text(&config.documentation));
        }
        entry
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::{ME, encodes, image};

    fn asked(kind: i8, name: &str, keys: Option<&[&str]>) -> DescribeConfigsResource {
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(wire::text(name))
            .with_configuration_keys(keys.map(|keys| keys.iter().map(|key| wire::text(key)).collect()))
    }

    fn view(image: &Image, version: i16) -> View<'_> {
        View {
            image,
            me: ME,
            layers: BrokerLayers::default(),
            version,
            synonyms: true,
            documentation: true,
        }
    }

    #[test]
    fn every_setting_is_told_with_where_it_comes_from() {
        let image = image(&[("t", 1)]);
        for version in 1..=4 {
            let view = view(&image, version);
            let resource = asked(TOPIC, "t", None);
            let result = view.result(&resource, view.describe(&resource).unwrap());
            assert_eq!(result.error_message.as_deref(), Some(""), "empty, not null");
            let entry = result
                .configs
                .iter()
                .find(|config| &*config.name == "segment.bytes")
                .unwrap();
            assert_eq!(
                (entry.value.as_deref(), entry.config_source, entry.read_only),
                (Some("1073741824"), 5, false)
            );
            assert!(
                entry
                    .synonyms
                    .iter()
                    .any(|synonym| &*synonym.name == "log.segment.bytes")
            );
            assert_eq!(
                entry
                    .documentation
                    .as_deref()
                    .is_some_and(|text| !text.is_empty()),
                version >= 3
            );
            encodes(
                version,
                &DescribeConfigsResponse::default().with_results(vec![result]),
            );
        }
    }

    #[test]
    fn only_what_is_asked_for_is_told() {
        let image = image(&[("t", 1)]);
        let view = view(&image, 4);
        let told = |keys| {
            let resource = asked(TOPIC, "t", keys);
            view.result(&resource, view.describe(&resource).unwrap())
                .configs
                .len()
        };
        assert_eq!(told(Some(&["retention.ms", "nonsense"])), 1);
        assert!(told(None) > 30);
        assert_eq!(told(Some(&[])), told(None));
    }

    #[test]
    fn errors_stand_at_the_resource() {
        let image = image(&[("t", 1)]);
        let code = |kind, name| {
            view(&image, 4)
                .describe(&asked(kind, name, None))
                .map_or_else(|error| error.code.code(), |_| 0)
        };
        assert_eq!(code(TOPIC, "nowhere"), 3);
        assert_eq!(code(TOPIC, "a b"), 17);
        assert_eq!(code(BROKER, "1"), 0);
        assert_eq!(code(BROKER, ""), 0);
        assert_eq!(code(BROKER, "4711"), 42);
        assert_eq!(code(BROKER, "not a number"), 42);
        assert_eq!(code(BROKER_LOGGER, "1"), 0);
        assert_eq!(code(BROKER_LOGGER, ""), 42);
        assert_eq!(code(GROUP, "g"), 0);
        assert_eq!(code(GROUP, ""), 42);
        assert_eq!(code(CLIENT_METRICS, "m"), 0);
        assert_eq!(code(CLIENT_METRICS, ""), 42);
    }
}
