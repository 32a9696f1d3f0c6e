//! `skerry config`: what the settings are.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use serde_json::json;

use super::Format;
use super::failure::Failure;
use super::output::{Table, print, print_line};
use super::start::{read_config, wrong_settings};
use crate::config::{
    Given, NodeConfig, Row, Scope, Support, Unit, Update, documentation, rows, rows_named, similar, variable,
};

/// What can be asked about settings.
#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Explain a setting: what it does, what it takes, where it can be set
    #[command(
        after_help = "Examples:\n  skerry config explain retention.ms\n  skerry config explain flush.messages --format json"
    )]
    Explain {
        /// Its name
        key: String,
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Check a file of settings without starting anything
    Check {
        /// The file
        #[arg(default_value = "skerry.toml")]
        file: PathBuf,
    },
    /// List settings
    List {
        /// Which
        #[arg(long, value_enum)]
        scope: Option<ScopeName>,
        /// How they are printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
}

/// The scopes by name.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum ScopeName {
    /// Given at a node's start
    Node,
    /// Of brokers, those of their nodes included
    Broker,
    /// Of topics
    Topic,
    /// Of groups
    Group,
}

pub(super) fn run(command: ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Explain { key, format } => explain(&key, format),
        ConfigCommand::Check { file } => {
            let (name, text) = read_config(&file)?;
            let mut given = Given::default();
            given.file(&name, &text);
            let settings = given.finish().map_err(|errors| wrong_settings(&errors))?;
            NodeConfig::from_settings(&settings).map_err(|errors| wrong_settings(&errors))?;
            print_line(&format!(
                "{name}: {} settings, all right",
                settings.iter().count()
            ))
        }
        ConfigCommand::List { scope, format } => list(scope, format),
    }
}

fn explain(key: &str, format: Format) -> Result<(), Failure> {
    let found: Vec<&Row> = rows_named(key).collect();
    if found.is_empty() {
        let failure = Failure::new(format!("there is no setting {key}"));
        return Err(match similar(key) {
            near if near.is_empty() => failure.hint("`skerry config list` lists all"),
            near => failure.hint(format!("did you mean {}?", near.join(", "))),
        });
    }
    let text = || found.iter().map(|row| manual(row)).collect::<Vec<_>>().join("\n");
    print(format, text, || found.iter().map(|row| as_json(row)).collect())
}

/// The page of the manual about one setting.
pub(super) fn manual(row: &Row) -> String {
    let mut text = format!("{}   ({} setting)\n\n", row.key, row.scope);
    text.push_str(&wrap(&documentation(row), 78, "  "));
    let default = match row.default {
        None => "not set".to_owned(),
        Some("") => "empty".to_owned(),
        Some(default) => format!("{default}{}", in_words(row, default)),
    };
    let takes = if matches!(row.support, Support::DefaultOnly(_)) {
        "its default".to_owned()
    } else {
        row.allowed()
    };
    let mut lines = vec![
        ("default", default),
        ("takes", takes),
        ("changes", changes(row).to_owned()),
    ];
    if let [_, ..] = row.synonyms {
        let keys: Vec<&str> = row.synonyms.iter().map(|synonym| synonym.key).collect();
        lines.push(("otherwise", format!("the broker's {}", keys.join(", or "))));
    }
    let fixed = matches!(row.support, Support::DefaultOnly(_));
    match row.scope {
        _ if fixed => {}
        Scope::Node | Scope::Broker => {
            let example = row
                .default
                .filter(|default| !default.is_empty())
                .unwrap_or("VALUE");
            lines.push(("file", format!("\"{}\" = {}", row.key, toml_value(row, example))));
            lines.push(("variable", format!("{}={example}", variable(row.key))));
            lines.push(("argument", format!("skerry start --set {}={example}", row.key)));
        }
        Scope::Topic => lines.push((
            "set it",
            format!("skerry topic alter NAME --config {}=VALUE", row.key),
        )),
        Scope::Group => {}
    }
    text.push('\n');
    for (name, value) in lines {
        text.push_str(&format!("  {name:<10} {value}\n"));
    }
    text
}

fn changes(row: &Row) -> &'static str {
    match (row.support, row.update) {
        (Support::DefaultOnly(_), _) => "never",
        (_, Update::ReadOnly) => "with a restart",
        (_, Update::PerBroker) => "while the broker runs, for each broker",
        (_, Update::ClusterWide) if row.scope == Scope::Broker => "while the brokers run, for one or for all",
        (_, Update::ClusterWide) => "at any time",
    }
}

fn toml_value(row: &Row, value: &str) -> String {
    let bare = value.parse::<f64>().is_ok() || matches!(value, "true" | "false");
    if bare && row.kind.wire_type() != 2 {
        value.to_owned()
    } else {
        format!("\"{value}\"")
    }
}

/// A large number of milliseconds or bytes in words.
fn in_words(row: &Row, value: &str) -> String {
    let Ok(number) = value.parse::<i64>() else {
        return String::new();
    };
    if number == i64::MAX {
        return "   (no limit)".to_owned();
    }
    let exact = |units: &[(i64, &str)]| {
        let unit = units
            .iter()
            .find(|(size, _)| number >= *size && number % size == 0);
        unit.map_or(String::new(), |(size, name)| {
            format!("   ({} {name})", number / size)
        })
    };
    match row.unit {
        Unit::Ms => exact(&[
            (86_400_000, "days"),
            (3_600_000, "hours"),
            (60_000, "minutes"),
            (1_000, "seconds"),
        ]),
        Unit::Bytes => exact(&[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")]),
        _ => String::new(),
    }
}

fn wrap(text: &str, width: usize, indent: &str) -> String {
    let mut wrapped = String::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && indent.len() + line.chars().count() + 1 + word.chars().count() > width {
            wrapped.push_str(&format!("{indent}{line}\n"));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    wrapped.push_str(&format!("{indent}{line}\n"));
    wrapped
}

fn as_json(row: &Row) -> serde_json::Value {
    json!({
        "key": row.key, "scope": row.scope.to_string(), "type": row.kind.name(), "default": row.default,
        "allowed": row.allowed(), "dynamic": row.update != Update::ReadOnly,
        "synonyms": row.synonyms.iter().map(|synonym| synonym.key).collect::<Vec<_>>(),
        "documentation": documentation(row),
    })
}

fn list(scope: Option<ScopeName>, format: Format) -> Result<(), Failure> {
    let scopes = match scope {
        Some(ScopeName::Node) => vec![Scope::Node],
        Some(ScopeName::Broker) => vec![Scope::Broker],
        Some(ScopeName::Topic) => vec![Scope::Topic],
        Some(ScopeName::Group) => vec![Scope::Group],
        None => vec![Scope::Topic, Scope::Group, Scope::Broker],
    };
    let found: Vec<&Row> = scopes.into_iter().flat_map(rows).collect();
    let text = || {
        let mut table = Table::new(&["SCOPE", "KEY", "DEFAULT"]);
        for row in &found {
            table.row([
                row.scope.to_string(),
                row.key.to_owned(),
                row.default.unwrap_or("(none)").to_owned(),
            ]);
        }
        table.to_string()
    };
    print(format, text, || found.iter().map(|row| as_json(row)).collect())
}
