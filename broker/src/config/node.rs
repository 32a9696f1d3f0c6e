//! The settings of one process, typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use skerry_types::BrokerId;

use super::effective::{BrokerLayers, ConfigMap};
use super::error::ConfigError;
use super::layers::{Given, Origin, Problem, Settings, SettingsError};
use super::row::Scope;
use super::{broker::BrokerConfig, table, value};

/// What a node is started with.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeConfig {
    /// `node.id`.
    pub node_id: BrokerId,
    /// `log.dirs`.
    pub data_dir: PathBuf,
    /// `listeners`, as `host:port`.
    pub kafka_listen: String,
    /// `advertised.listeners`, as `host:port`; `None`: whatever `kafka_listen` becomes when it is bound.
    pub kafka_advertise: Option<String>,
    /// `cluster.listen`, as `host:port`.
    pub cluster_listen: String,
    /// `cluster.advertise`, or this node's address in `voters`; `None`: whatever `cluster_listen` becomes.
    pub cluster_advertise: Option<String>,
    /// `admin.listen`, as `host:port`.
    pub admin_listen: String,
    /// `controller.quorum.voters`, as `host:port`. Empty: this node alone, at whatever `cluster_listen` becomes.
    pub voters: BTreeMap<BrokerId, String>,
    /// `broker.rack`.
    pub rack: Option<String>,
    /// `memory`.
    pub memory_bytes: u64,
    /// `disk.reserve`.
    pub disk_reserve_bytes: u64,
    /// `open.files`.
    pub open_files_max: usize,
    /// Every setting that was given, these included: the static layer of the broker's configuration.
    pub given: ConfigMap,
}

impl NodeConfig {
    /// The configuration that `pairs` and the defaults make. For tests and the simulator.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn from_pairs<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, Vec<SettingsError>> {
        let mut given = Given::default();
        for (key, value) in pairs {
            given.set(key, value, Origin::Code);
        }
        Self::from_settings(&given.finish()?)
    }

    /// The configuration that `settings` and the defaults make.
    ///
    /// # Errors
    /// Everything that is wrong with them together.
    pub fn from_settings(settings: &Settings) -> Result<Self, Vec<SettingsError>> {
        let mut read = Reader {
            settings,
            errors: Vec::new(),
        };
        let node_id = BrokerId(read.text("node.id").parse().unwrap_or(1));
        let voters = read.voters();
        let kafka_advertise = read
            .optional("advertised.listeners")
            .map(|_| read.listener("advertised.listeners"));
        let cluster_advertise = match read.optional("cluster.advertise") {
            Some(_) => Some(read.address("cluster.advertise")),
            None => voters.get(&node_id).cloned(),
        };
        let config = Self {
            node_id,
            data_dir: PathBuf::from(read.text("log.dirs")),
            kafka_listen: read.listener("listeners"),
            kafka_advertise,
            cluster_listen: read.address("cluster.listen"),
            cluster_advertise,
            admin_listen: read.address("admin.listen"),
            rack: read.optional("broker.rack").filter(|rack| !rack.is_empty()),
            memory_bytes: read.size("memory"),
            disk_reserve_bytes: read.size("disk.reserve"),
            open_files_max: read.text("open.files").parse().unwrap_or(512),
            given: settings
                .iter()
                .map(|(key, value, _)| (key.into(), described(key, value)))
                .collect(),
            voters,
        };
        read.directory(&config.data_dir);
        read.advertisable(&config);
        read.relations(&config);
        if read.errors.is_empty() {
            Ok(config)
        } else {
            Err(read.errors)
        }
    }

    /// The broker's settings as they are before the metadata has a say.
    #[must_use]
    pub fn broker(&self) -> BrokerConfig {
        BrokerConfig::resolve(BrokerLayers::given(&self.given))
    }
}

/// How DescribeConfigs writes the value of `key`: a listener has its protocol in front, as every one of Kafka's has.
fn described(key: &str, value: &str) -> std::sync::Arc<str> {
    if matches!(key, "listeners" | "advertised.listeners") && !value.contains("://") {
        format!("PLAINTEXT://{value}").into()
    } else {
        value.into()
    }
}

struct Reader<'a> {
    settings: &'a Settings,
    errors: Vec<SettingsError>,
}

impl Reader<'_> {
    fn optional(&self, key: &str) -> Option<String> {
        self.settings.get(key).map(str::to_owned)
    }

    fn text(&self, key: &'static str) -> String {
        let default = || {
            table::row(Scope::Node, key)
                .ok()
                .and_then(|row| row.default)
                .unwrap_or("")
        };
        self.settings.get(key).unwrap_or_else(default).to_owned()
    }

    fn size(&self, key: &'static str) -> u64 {
        value::parse_size(&self.text(key)).unwrap_or(0)
    }

    fn wrong(&mut self, key: &'static str, value: &str, why: &str, allowed: &str) {
        let problem = Problem::Setting(ConfigError::InvalidValue {
            key: key.to_owned(),
            value: value.to_owned(),
            why: why.to_owned(),
            allowed: allowed.to_owned(),
            scope: Scope::Node,
        });
        let origin = self.settings.origin(key).cloned().unwrap_or(Origin::Code);
        self.errors.push(SettingsError { origin, problem });
    }

    fn address(&mut self, key: &'static str) -> String {
        let text = self.text(key);
        if let Err(why) = check_address(&text) {
            self.wrong(key, &text, why, "HOST:PORT");
        }
        text
    }

    /// `PLAINTEXT://host:port`, or only `host:port`.
    fn listener(&mut self, key: &'static str) -> String {
        let text = self.text(key);
        let address = text.strip_prefix("PLAINTEXT://").unwrap_or(&text).to_owned();
        // Kafka writes "every address of this machine" as no host at all.
        let address = if address.starts_with(':') {
            format!("0.0.0.0{address}")
        } else {
            address
        };
        let problem = if text.contains(',') {
            Some("one listener is supported")
        } else if address.contains("://") {
            Some("only PLAINTEXT is supported yet")
        } else {
            check_address(&address).err()
        };
        if let Some(why) = problem {
            self.wrong(key, &text, why, "PLAINTEXT://HOST:PORT");
        }
        address
    }

    fn voters(&mut self) -> BTreeMap<BrokerId, String> {
        let text = self.text("controller.quorum.voters");
        let mut voters = BTreeMap::new();
        let mut problem = None;
        for item in value::items(&text) {
            let parts = item
                .split_once('@')
                .and_then(|(id, addr)| Some((id.parse::<u16>().ok()?, addr)));
            match parts {
                Some((id, addr)) if check_address(addr).is_ok() => {
                    if voters.insert(BrokerId(id.into()), addr.to_owned()).is_some() {
                        problem = Some("one node is named twice");
                    }
                }
                _ => problem = Some("not a list of voters"),
            }
        }
        if problem.is_none() && !matches!(voters.len(), 0 | 1 | 3 | 5) {
            problem = Some("a majority needs 1, 3 or 5 voters");
        }
        if let Some(why) = problem {
            let allowed = "1, 3 or 5 of ID@HOST:PORT, separated by commas";
            self.wrong("controller.quorum.voters", &text, why, allowed);
        }
        voters
    }

    fn directory(&mut self, dir: &std::path::Path) {
        let text = dir.to_string_lossy().into_owned();
        if text.is_empty() || text.contains(',') {
            self.wrong(
                "log.dirs",
                &text,
                "one directory is supported",
                "the path of one directory",
            );
        }
    }

    /// A client that is told 0.0.0.0 connects to itself.
    fn advertisable(&mut self, config: &NodeConfig) {
        let wild = |addr: &str| addr.starts_with("0.0.0.0:") || addr.starts_with("[::]:");
        if let Some(addr) = config.kafka_advertise.as_deref().filter(|addr| wild(addr)) {
            self.wrong(
                "advertised.listeners",
                addr,
                "no client can connect to that",
                "PLAINTEXT://HOST:PORT",
            );
        }
        if config.voters.len() > 1
            && !config.voters.contains_key(&config.node_id)
            && config.cluster_advertise.is_none()
            && wild(&config.cluster_listen)
        {
            let why = "other nodes cannot connect to that, and cluster.advertise says nothing else";
            self.wrong("cluster.listen", &config.cluster_listen, why, "HOST:PORT");
        }
    }

    fn relations(&mut self, config: &NodeConfig) {
        let broker = config.broker();
        if broker.group_min_session_timeout > broker.group_max_session_timeout {
            let value = broker.group_min_session_timeout.as_millis().to_string();
            let why = "it is larger than group.max.session.timeout.ms";
            self.wrong(
                "group.min.session.timeout.ms",
                &value,
                why,
                "at most group.max.session.timeout.ms",
            );
        }
        if broker.session_timeout <= broker.heartbeat_interval {
            let value = broker.session_timeout.as_millis().to_string();
            let why = "it is not longer than broker.heartbeat.interval.ms";
            self.wrong(
                "broker.session.timeout.ms",
                &value,
                why,
                "more than broker.heartbeat.interval.ms",
            );
        }
        if u64::from(broker.socket_request_max_bytes) < 1024 {
            let value = broker.socket_request_max_bytes.to_string();
            self.wrong(
                "socket.request.max.bytes",
                &value,
                "no request would fit",
                "at least 1024 bytes",
            );
        }
    }
}

/// A host or an address, a colon, a port.
fn check_address(text: &str) -> Result<(), &'static str> {
    let (host, port) = text.rsplit_once(':').ok_or("there is no port")?;
    if host.is_empty() {
        return Err("there is no host");
    }
    if host.contains([' ', '/', ',', '@']) || (host.contains(':') && !host.starts_with('[')) {
        return Err("that is no host");
    }
    port.parse::<u16>()
        .map(|_| ())
        .map_err(|_| "the port is not a number from 0 to 65535")
}
