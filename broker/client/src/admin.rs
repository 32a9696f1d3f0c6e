//! Administration: topics, settings, groups, the cluster.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteGroupsRequest, DeleteGroupsResponse, DeleteRecordsRequest, DeleteRecordsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterRequest, DescribeClusterResponse,
    DescribeConfigsRequest, DescribeConfigsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, ListGroupsRequest, ListGroupsResponse,
};
use skerry_types::{BrokerId, Offset, TopicPartition};

use crate::client::{Client, address, text, topic_name};
use crate::error::{ClientError, check};
use crate::offsets::version_of;

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions; `None`: the broker's default.
    pub partitions: Option<i32>,
    /// How many replicas; `None`: the broker's default.
    pub replication: Option<i16>,
    /// What it overrides.
    pub configs: Vec<(String, String)>,
}

/// Whose settings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfigTarget {
    /// A topic's.
    Topic(String),
    /// A broker's.
    Broker(BrokerId),
    /// Those of all brokers.
    AllBrokers,
    /// A group's.
    Group(String),
}

impl std::fmt::Display for ConfigTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Topic(name) => write!(f, "topic {name}"),
            Self::Broker(id) => write!(f, "broker {id}"),
            Self::AllBrokers => f.write_str("all brokers"),
            Self::Group(name) => write!(f, "group {name}"),
        }
    }
}

impl ConfigTarget {
    fn wire(&self) -> (i8, String) {
        match self {
            Self::Topic(name) => (2, name.clone()),
            Self::Broker(id) => (4, id.to_string()),
            Self::AllBrokers => (4, String::new()),
            Self::Group(name) => (32, name.clone()),
        }
    }
}

/// A setting as a broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` for null and for what is not shown.
    pub value: Option<String>,
    /// Kafka's number of where it comes from: 1 topic, 2 broker, 3 all brokers, 4 given at the start, 5 default.
    pub source: i8,
    /// It changes only by a restart.
    pub read_only: bool,
    /// It is never shown.
    pub sensitive: bool,
    /// What it does.
    pub documentation: Option<String>,
}

/// A change of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigChange {
    /// Sets it.
    Set(String),
    /// Back to the default.
    Delete,
    /// Adds to a list.
    Append(String),
    /// Takes from a list.
    Subtract(String),
}

impl ConfigChange {
    fn wire(&self) -> (i8, Option<&str>) {
        match self {
            Self::Set(value) => (0, Some(value)),
            Self::Delete => (1, None),
            Self::Append(value) => (2, Some(value)),
            Self::Subtract(value) => (3, Some(value)),
        }
    }
}

/// A group as ListGroups tells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    /// Its name.
    pub name: String,
    /// `consumer` for consumers; others use groups for their own ends.
    pub protocol_type: String,
    /// `Stable`, `Empty`, …; empty where the broker does not tell.
    pub state: String,
    /// `classic`, `consumer`, …; empty where the broker does not tell.
    pub kind: String,
}

/// A group as DescribeGroups tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// Its name.
    pub name: String,
    /// `Stable`, `Empty`, …; `Dead` where there is none.
    pub state: String,
    /// `consumer` for consumers.
    pub protocol_type: String,
    /// The assignor that it agreed on.
    pub protocol: String,
    /// Who coordinates it.
    pub coordinator: String,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// Its id.
    pub id: String,
    /// Its own name for itself, where it is a static member.
    pub instance_id: Option<String>,
    /// The client's name.
    pub client_id: String,
    /// Where it connects from.
    pub host: String,
    /// Its assignment, in the bytes of its protocol.
    pub assignment: Bytes,
}

/// A broker as DescribeCluster tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokerDescription {
    /// Its number.
    pub id: BrokerId,
    /// Where it listens for clients.
    pub addr: String,
    /// Where it stands.
    pub rack: Option<String>,
    /// Registered but not serving.
    pub fenced: bool,
}

/// A cluster as DescribeCluster tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterDescription {
    /// Its id.
    pub cluster_id: String,
    /// Whom the answer names as the controller.
    pub controller: BrokerId,
    /// Its brokers, by number.
    pub brokers: Vec<BrokerDescription>,
}

impl Client {
    pub(crate) fn timeout_ms(&self) -> i32 {
        i32::try_from(self.options().request_timeout.as_millis()).unwrap_or(i32::MAX)
    }

    /// Makes a topic. `validate_only` only says whether it could.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_topic(&self, topic: &NewTopic, validate_only: bool) -> Result<(), ClientError> {
        let connection = self.any_broker().await?;
        let configs = topic.configs.iter().map(|(name, value)| {
            CreatableTopicConfig::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
        });
        let asked = CreatableTopic::default()
            .with_name(topic_name(&topic.name))
            .with_num_partitions(topic.partitions.unwrap_or(-1))
            .with_replication_factor(topic.replication.unwrap_or(-1))
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default()
            .with_topics(vec![asked])
            .with_timeout_ms(self.timeout_ms())
            .with_validate_only(validate_only);
        let response: CreateTopicsResponse = self.call(&connection, "CreateTopics", &request).await?;
        let what = || format!("creating topic {}", topic.name);
        let answer = response
            .topics
            .first()
            .ok_or_else(|| ClientError::Unanswered { what: what() })?;
        check(answer.error_code, answer.error_message.as_deref(), what)
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_topic(&self, name: &str) -> Result<(), ClientError> {
        let connection = self.any_broker().await?;
        let version = version_of::<DeleteTopicsRequest>(&connection, "DeleteTopics", i16::MAX)?;
        let request = DeleteTopicsRequest::default().with_timeout_ms(self.timeout_ms());
        let request = match version {
            6.. => request.with_topics(vec![
                DeleteTopicState::default().with_name(Some(topic_name(name))),
            ]),
            _ => request.with_topic_names(vec![topic_name(name)]),
        };
        let response: DeleteTopicsResponse = self
            .call_at(&connection, "DeleteTopics", &request, version)
            .await?;
        self.forget(name);
        let what = || format!("deleting topic {name}");
        let answer = response
            .responses
            .first()
            .ok_or_else(|| ClientError::Unanswered { what: what() })?;
        check(answer.error_code, answer.error_message.as_deref(), what)
    }

    /// Gives a topic more partitions, `count` in all.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_partitions(&self, name: &str, count: i32) -> Result<(), ClientError> {
        let connection = self.any_broker().await?;
        let topic = CreatePartitionsTopic::default()
            .with_name(topic_name(name))
            .with_count(count)
            .with_assignments(None);
        let request = CreatePartitionsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(self.timeout_ms());
        let response: CreatePartitionsResponse = self.call(&connection, "CreatePartitions", &request).await?;
        self.forget(name);
        let what = || format!("adding partitions to {name}");
        let answer = response
            .results
            .first()
            .ok_or_else(|| ClientError::Unanswered { what: what() })?;
        check(answer.error_code, answer.error_message.as_deref(), what)
    }

    /// Deletes a partition's records before `before`; `None`: all. Returns where it begins then.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_records(
        &self,
        partition: &TopicPartition,
        before: Option<Offset>,
    ) -> Result<Offset, ClientError> {
        let index = partition.partition.get();
        let leader = self.leader(&partition.topic, index).await?;
        let connection = self.broker(leader.broker).await?;
        let asked = DeleteRecordsPartition::default()
            .with_partition_index(index)
            .with_offset(before.map_or(-1, Offset::get));
        let topic = DeleteRecordsTopic::default()
            .with_name(topic_name(&partition.topic))
            .with_partitions(vec![asked]);
        let request = DeleteRecordsRequest::default()
            .with_topics(vec![topic])
            .with_timeout_ms(self.timeout_ms());
        let response: DeleteRecordsResponse = self.call(&connection, "DeleteRecords", &request).await?;
        let what = || format!("deleting records of {partition}");
        let answer = response.topics.first().and_then(|topic| topic.partitions.first());
        let answer = answer.ok_or_else(|| ClientError::Unanswered { what: what() })?;
        check(answer.error_code, None, what)?;
        Ok(Offset(answer.low_watermark))
    }

    /// Describes every setting of `target`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn describe_configs(
        &self,
        target: &ConfigTarget,
        documentation: bool,
    ) -> Result<Vec<ConfigEntry>, ClientError> {
        let connection = match target {
            // A broker knows its own settings only.
            ConfigTarget::Broker(id) => self.broker(*id).await?,
            _ => self.any_broker().await?,
        };
        let version = version_of::<DescribeConfigsRequest>(&connection, "DescribeConfigs", i16::MAX)?;
        let (kind, name) = target.wire();
        let resource = DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(&name))
            .with_configuration_keys(None);
        let mut request = DescribeConfigsRequest::default().with_resources(vec![resource]);
        if version >= 3 {
            request.include_documentation = documentation;
        }
        let response: DescribeConfigsResponse = self
            .call_at(&connection, "DescribeConfigs", &request, version)
            .await?;
        let what = || format!("the settings of {target:?}");
        let answer = response.results.into_iter().next();
        let answer = answer.ok_or_else(|| ClientError::Unanswered { what: what() })?;
        check(answer.error_code, answer.error_message.as_deref(), what)?;
        let entries = answer.configs.into_iter().map(|entry| ConfigEntry {
            name: entry.name.to_string(),
            value: entry.value.map(|value| value.to_string()),
            source: entry.config_source,
            read_only: entry.read_only,
            sensitive: entry.is_sensitive,
            documentation: entry.documentation.map(|text| text.to_string()),
        });
        let mut entries: Vec<ConfigEntry> = entries.collect();
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Changes settings of `target`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn alter_configs(
        &self,
        target: &ConfigTarget,
        changes: &[(String, ConfigChange)],
    ) -> Result<(), ClientError> {
        let connection = match target {
            ConfigTarget::Broker(id) => self.broker(*id).await?,
            _ => self.any_broker().await?,
        };
        let configs = changes.iter().map(|(name, change)| {
            let (operation, value) = change.wire();
            AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(operation)
                .with_value(value.map(text))
        });
        let (kind, name) = target.wire();
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(&name))
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let response: IncrementalAlterConfigsResponse = self
            .call(&connection, "IncrementalAlterConfigs", &request)
            .await?;
        let what = || format!("changing settings of {target}");
        let answer = response
            .responses
            .first()
            .ok_or_else(|| ClientError::Unanswered { what: what() })?;
        check(answer.error_code, answer.error_message.as_deref(), what)
    }

    /// Describes the cluster.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn describe_cluster(&self) -> Result<ClusterDescription, ClientError> {
        let connection = self.any_broker().await?;
        let version = version_of::<DescribeClusterRequest>(&connection, "DescribeCluster", i16::MAX)?;
        let mut request = DescribeClusterRequest::default();
        if version >= 2 {
            request.include_fenced_brokers = true;
        }
        let response: DescribeClusterResponse = self
            .call_at(&connection, "DescribeCluster", &request, version)
            .await?;
        check(response.error_code, response.error_message.as_deref(), || {
            "the cluster".to_owned()
        })?;
        let brokers = response.brokers.into_iter().map(|broker| BrokerDescription {
            id: BrokerId(broker.broker_id.0),
            addr: address(&broker.host, broker.port),
            rack: broker.rack.map(|rack| rack.to_string()),
            fenced: broker.is_fenced,
        });
        let mut brokers: Vec<BrokerDescription> = brokers.collect();
        brokers.sort_by_key(|broker| broker.id);
        Ok(ClusterDescription {
            cluster_id: response.cluster_id.to_string(),
            controller: BrokerId(response.controller_id.0),
            brokers,
        })
    }

    /// Every group: each broker tells those that it coordinates.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_groups(&self) -> Result<Vec<GroupListing>, ClientError> {
        let metadata = self.metadata(Some(&[]), false).await?;
        let mut groups = Vec::new();
        for broker in metadata.brokers {
            let connection = self.connect(&broker.addr).await?;
            let response: ListGroupsResponse = self
                .call(&connection, "ListGroups", &ListGroupsRequest::default())
                .await?;
            check(response.error_code, None, || {
                format!("the groups of broker {}", broker.id)
            })?;
            groups.extend(response.groups.into_iter().map(|group| GroupListing {
                name: group.group_id.0.to_string(),
                protocol_type: group.protocol_type.to_string(),
                state: group.group_state.to_string(),
                kind: group.group_type.to_string(),
            }));
        }
        groups.sort();
        Ok(groups)
    }

    /// Describes a group. One that does not exist is `Dead`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn describe_group(&self, name: &str) -> Result<GroupDescription, ClientError> {
        let connection = self.coordinator(name).await?;
        let request = DescribeGroupsRequest::default().with_groups(vec![text(name).into()]);
        let response: DescribeGroupsResponse = self.call(&connection, "DescribeGroups", &request).await?;
        let what = || format!("group {name}");
        let group = response.groups.into_iter().next();
        let group = group.ok_or_else(|| ClientError::Unanswered { what: what() })?;
        // From version 6 on a missing group is an error, before it is a state.
        if ResponseError::try_from_code(group.error_code) != Some(ResponseError::GroupIdNotFound) {
            check(group.error_code, group.error_message.as_deref(), what)?;
        }
        let members = group.members.into_iter().map(|member| GroupMember {
            id: member.member_id.to_string(),
            instance_id: member.group_instance_id.map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            assignment: member.member_assignment,
        });
        Ok(GroupDescription {
            name: name.to_owned(),
            state: group.group_state.to_string(),
            protocol_type: group.protocol_type.to_string(),
            protocol: group.protocol_data.to_string(),
            coordinator: connection.addr().to_owned(),
            members: members.collect(),
        })
    }

    /// Deletes a group with its offsets.
    ///
    /// # Errors
    /// [`ClientError`]; `NON_EMPTY_GROUP` while it has members.
    pub async fn delete_group(&self, name: &str) -> Result<(), ClientError> {
        let connection = self.coordinator(name).await?;
        let request = DeleteGroupsRequest::default().with_groups_names(vec![text(name).into()]);
        let response: DeleteGroupsResponse = self.call(&connection, "DeleteGroups", &request).await?;
        let what = || format!("deleting group {name}");
        let answer = response
            .results
            .first()
            .ok_or_else(|| ClientError::Unanswered { what: what() })?;
        check(answer.error_code, None, what)
    }

    /// The end of each partition of `topics`, for lag.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn ends(
        &self,
        partitions: impl IntoIterator<Item = TopicPartition>,
    ) -> Result<BTreeMap<TopicPartition, Offset>, ClientError> {
        let mut ends = BTreeMap::new();
        for partition in partitions {
            let found = self
                .list_offset(&partition, crate::fetch::OffsetSpec::Latest, false)
                .await?;
            ends.insert(partition, found.offset.unwrap_or(Offset::ZERO));
        }
        Ok(ends)
    }

    /// The names of all topics that are not internal.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn topic_names(&self) -> Result<Vec<Arc<str>>, ClientError> {
        let metadata = self.metadata(None, false).await?;
        Ok(metadata
            .topics
            .into_iter()
            .filter(|topic| !topic.internal)
            .map(|topic| topic.name)
            .collect())
    }
}
