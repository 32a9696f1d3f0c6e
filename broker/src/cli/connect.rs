//! How client commands reach a broker, and what they say when they do not.

use std::time::Duration;

use clap::Args;
use skerry_client::{CallError, Client, ClientError, ClientOptions, ConnectError, ResponseError, code_name};
use skerry_env::Env;

use super::Format;
use super::failure::Failure;
use crate::config::nearest;

/// Where `skerry start` listens.
pub(super) const DEFAULT_BOOTSTRAP: &str = "127.0.0.1:9092";
/// A person waits: an unreachable broker is told of soon.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The arguments of every client command.
#[derive(Args, Clone, Debug)]
pub(super) struct Connect {
    /// A broker to begin with; several are separated by commas
    #[arg(long, short, global = true, env = "SKERRY_BOOTSTRAP", hide_env_values = true, value_name = "HOST:PORT", default_value = DEFAULT_BOOTSTRAP, help_heading = "Cluster")]
    pub(super) bootstrap: String,
    /// How the result is printed
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Cluster")]
    pub(super) format: Format,
}

impl Connect {
    /// A client of that cluster that has a connection: whoever waits at a prompt hears at once that nobody listens.
    pub(super) async fn connected(&self) -> Result<Client, Failure> {
        let client = self.client();
        client.any_broker().await?;
        Ok(client)
    }

    /// A client of that cluster. Connects when it is used.
    pub(super) fn client(&self) -> Client {
        let mut options = ClientOptions::new(&self.bootstrap);
        options.connection.client_id = "skerry-cli".to_owned();
        options.connection.connect_timeout = CONNECT_TIMEOUT;
        options.operation_timeout = Duration::from_secs(15);
        Client::new(&Env::os(), options)
    }
}

/// What to do about a request that failed.
pub(super) fn explain(error: &ClientError) -> Failure {
    match error {
        ClientError::GaveUp { last, .. } => explain(last),
        ClientError::Connect(ConnectError::Dial { addr, kind, reason }) => {
            let failure = match kind {
                std::io::ErrorKind::ConnectionRefused => {
                    Failure::new(format!("cannot connect to {addr}: nobody listens there"))
                }
                _ => Failure::new(format!("cannot connect to {addr}: {reason}")),
            };
            reach(failure)
        }
        ClientError::Connect(error @ ConnectError::Timeout { .. }) => reach(Failure::new(error.to_string())),
        ClientError::Connect(error @ ConnectError::Negotiation { .. }) => Failure::new(error.to_string())
            .hint("the address must be where Kafka clients connect (9092), not the one for administration or other nodes"),
        ClientError::Call { source: CallError::Unsupported { .. }, .. } => {
            Failure::new(error.to_string()).hint("this broker is older or cannot do that")
        }
        ClientError::Refused { code, .. } => {
            let failure = Failure::new(error.to_string());
            match hint(*code) {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        }
        other => Failure::new(other.to_string()),
    }
}

fn reach(failure: Failure) -> Failure {
    failure
        .hint("start a broker with `skerry start`, or name another with --bootstrap HOST:PORT")
        .hint("(if it runs: the metadata may advertise an address that this machine cannot reach)")
}

fn hint(code: ResponseError) -> Option<&'static str> {
    Some(match code {
        ResponseError::NonEmptyGroup => "stop the group's members first: `skerry group describe` lists them",
        ResponseError::GroupSubscribedToTopic => {
            "stop the group's members first: `skerry group describe` lists them"
        }
        ResponseError::GroupIdNotFound => "`skerry group list` lists the groups",
        ResponseError::TopicAlreadyExists => "`skerry topic describe NAME` shows it",
        ResponseError::InvalidConfig => "`skerry config explain KEY` explains a setting",
        ResponseError::TopicDeletionDisabled => "the broker has delete.topic.enable=false",
        ResponseError::NotEnoughReplicas | ResponseError::NotEnoughReplicasAfterAppend => {
            "fewer replicas are in sync than min.insync.replicas asks for: `skerry cluster health` tells which"
        }
        ResponseError::InvalidReplicationFactor => "a topic can have as many replicas as there are brokers",
        ResponseError::KafkaStorageError => {
            "the broker's disk is full or failed: its log and /health/ready tell more"
        }
        _ => return None,
    })
}

/// Says that there is no such topic, and which there are that are like it.
pub(super) async fn no_such_topic(client: &Client, name: &str) -> Failure {
    let failure = Failure::new(format!("there is no topic {name}"));
    let Ok(names) = client.topic_names().await else {
        return failure;
    };
    if let Some(near) = nearest(name, names.iter().map(|name| &**name)) {
        return failure.hint(format!("did you mean {near}?"));
    }
    match names.len() {
        0 => failure.hint(format!(
            "there are no topics yet: `skerry topic create {name}` makes it"
        )),
        1..=10 => failure.hint(format!("there are: {}", names.join(", "))),
        many => failure.hint(format!("there are {many}: `skerry topic list` lists them")),
    }
}

/// As `From<ClientError>`, with the names of other topics where this one is missing.
pub(super) async fn about_topic(client: &Client, name: &str, error: ClientError) -> Failure {
    match error.code() {
        Some(ResponseError::UnknownTopicOrPartition) => no_such_topic(client, name).await,
        _ => error.into(),
    }
}

/// `None` for 0, else the error's name.
pub(super) fn error_name(code: i16) -> Option<String> {
    ResponseError::try_from_code(code).map(code_name)
}
