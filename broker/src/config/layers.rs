//! Where the settings of a start come from: defaults, then `skerry.toml`, then `SKERRY_…` variables, then
//! `--set key=value`, then flags. The later one wins.

use std::collections::BTreeMap;
use std::fmt;

use super::error::ConfigError;
use super::row::Scope;
use super::table;

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, by its name.
    File(String),
    /// A variable of the environment, by its name.
    Environment(String),
    /// `--set`.
    Set,
    /// A flag, by its name.
    Flag(&'static str),
    /// Code: tests and the simulator.
    Code,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(name) => f.write_str(name),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Set => f.write_str("--set"),
            Self::Flag(name) => f.write_str(name),
            Self::Code => f.write_str("code"),
        }
    }
}

/// What is wrong, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct SettingsError {
    /// Where it stands.
    pub origin: Origin,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with what was given at a start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// With one setting.
    #[error(transparent)]
    Setting(#[from] ConfigError),
    /// With a file as a whole, or with the form of an argument.
    #[error("{0}")]
    Form(String),
}

/// The settings given at a start, checked one by one; the later layer has won.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    values: BTreeMap<&'static str, (String, Origin)>,
    errors: Vec<SettingsError>,
    warnings: Vec<String>,
}

impl Given {
    /// Sets `key`. A later call wins.
    pub fn set(&mut self, key: &str, value: &str, origin: Origin) {
        let checked = table::row(Scope::Broker, key).and_then(|row| Ok((row.key, row.parse(value)?)));
        match checked {
            Ok((key, value)) => {
                self.values.insert(key, (value, origin));
            }
            Err(problem) => self.errors.push(SettingsError {
                origin,
                problem: problem.into(),
            }),
        }
    }

    /// Takes a `skerry.toml`. Keys may be quoted (`"log.retention.ms" = 1000`), dotted, or in tables.
    pub fn file(&mut self, name: &str, text: &str) {
        let origin = Origin::File(name.to_owned());
        match text.parse::<toml::Table>() {
            Ok(table) => self.table("", &table, &origin),
            Err(error) => {
                let hint = if error.message().contains("duplicate key")
                    || error.message().contains("dotted key")
                {
                    "\nA key that is the beginning of another (max.connections, max.connections.per.ip) must be in quotes."
                } else {
                    ""
                };
                let problem = Problem::Form(format!("{}{hint}", error.to_string().trim_end()));
                self.errors.push(SettingsError { origin, problem });
            }
        }
    }

    fn table(&mut self, prefix: &str, table: &toml::Table, origin: &Origin) {
        for (name, value) in table {
            let key = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}.{name}")
            };
            match value {
                toml::Value::Table(table) => self.table(&key, table, origin),
                value => match plain(value) {
                    Some(text) => self.set(&key, &text, origin.clone()),
                    None => self.errors.push(SettingsError {
                        origin: origin.clone(),
                        problem: Problem::Form(format!(
                            "{key}: a text, a number, true, false or a list is expected"
                        )),
                    }),
                },
            }
        }
    }

    /// Takes the `SKERRY_…` variables of the environment: `SKERRY_LOG_RETENTION_MS` is `log.retention.ms`.
    ///
    /// An unknown one is a warning and no error: Kubernetes sets `SKERRY_SERVICE_HOST` and the like in every pod
    /// beside a service called skerry.
    pub fn environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let keys: BTreeMap<String, &'static str> = table::rows(Scope::Broker)
            .map(|row| (variable(row.key), row.key))
            .collect();
        for (name, value) in variables {
            if !name.starts_with("SKERRY_") || NOT_SETTINGS.contains(&name.as_str()) {
                continue;
            }
            if let Some(key) = keys.get(&name) {
                self.set(key, &value, Origin::Environment(name));
                continue;
            }
            let near = table::nearest(&name, keys.keys().map(String::as_str));
            let near = near
                .map(|near| format!(" (did you mean {near}?)"))
                .unwrap_or_default();
            self.warnings
                .push(format!("environment variable {name} names no setting{near}"));
        }
    }

    /// Takes the arguments of `--set`.
    pub fn arguments<'a>(&mut self, arguments: impl IntoIterator<Item = &'a str>) {
        for argument in arguments {
            match argument.split_once('=') {
                Some((key, value)) => self.set(key.trim(), value, Origin::Set),
                None => {
                    let problem = Problem::Form(format!("{argument}: key=value is expected"));
                    self.errors.push(SettingsError {
                        origin: Origin::Set,
                        problem,
                    });
                }
            }
        }
    }

    /// What does not stop the start but should be told.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The settings.
    ///
    /// # Errors
    /// Everything that is wrong, not only the first.
    pub fn finish(self) -> Result<Settings, Vec<SettingsError>> {
        if self.errors.is_empty() {
            Ok(Settings(self.values))
        } else {
            Err(self.errors)
        }
    }
}

/// Variables that begin with `SKERRY_` and are no settings.
const NOT_SETTINGS: [&str; 3] = ["SKERRY_LOG", "SKERRY_CONFIG", "SKERRY_BOOTSTRAP"];

/// The variable that sets `key`.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("SKERRY_{}", key.replace(['.', '-'], "_").to_ascii_uppercase())
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(flag) => Some(flag.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(plain).collect();
            Some(items?.join(","))
        }
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// Settings that were given and are right, one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings(BTreeMap<&'static str, (String, Origin)>);

impl Settings {
    /// The value given for `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|(value, _)| value.as_str())
    }

    /// Who gave it.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.0.get(key).map(|(_, origin)| origin)
    }

    /// Every given setting, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &str, &Origin)> {
        self.0
            .iter()
            .map(|(key, (value, origin))| (*key, value.as_str(), origin))
    }
}
