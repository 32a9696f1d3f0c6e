//! One value of one setting: checked, and in the form in which Kafka shows it.

use super::error::ConfigError;
use super::row::{Kind, Row, Support};

impl Row {
    /// Checks `text` and returns it as Kafka would show it: trimmed, switches in lower case, lists without blanks.
    ///
    /// # Errors
    /// [`ConfigError::InvalidValue`], which says what is allowed.
    pub fn parse(&self, text: &str) -> Result<String, ConfigError> {
        let canonical = canonical(self.kind, text).map_err(|why| self.invalid(text, &why))?;
        match self.support {
            Support::DefaultOnly(why) if self.default.unwrap_or("") != canonical => {
                Err(self.invalid(text, why))
            }
            _ => Ok(canonical),
        }
    }

    pub(super) fn invalid(&self, text: &str, why: &str) -> ConfigError {
        ConfigError::InvalidValue {
            key: self.key.to_owned(),
            value: text.to_owned(),
            why: why.to_owned(),
            scope: self.scope,
            allowed: match self.support {
                Support::DefaultOnly(_) => match self.default {
                    Some("") | None => "nothing".to_owned(),
                    Some(default) => default.to_owned(),
                },
                _ => self.allowed(),
            },
        }
    }
}

fn canonical(kind: Kind, text: &str) -> Result<String, String> {
    let text = text.trim();
    match kind {
        Kind::Boolean => match text.to_ascii_lowercase().as_str() {
            answer @ ("true" | "false") => Ok(answer.to_owned()),
            _ => Err("neither true nor false".to_owned()),
        },
        Kind::Short(min, max) => whole(text, min.into(), max.into()),
        Kind::Int(min, max) => whole(text, min.into(), max.into()),
        Kind::Long(min, max) => whole(text, min, max),
        Kind::GzipLevel => match whole(text, -1, 9)? {
            zero if zero == "0" => Err("0 is no level".to_owned()),
            level => Ok(level),
        },
        Kind::Double(min, max) => {
            let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
            if number.is_nan() || number < min || number > max {
                return Err(format!("must be from {min} to {max}"));
            }
            Ok(text.to_owned())
        }
        Kind::Text | Kind::Class => Ok(text.to_owned()),
        Kind::Choice(choices) => choices
            .contains(&text)
            .then(|| text.to_owned())
            .ok_or_else(|| "no such choice".to_owned()),
        Kind::ChoiceIgnoringCase(choices) => {
            let known = choices.iter().any(|choice| choice.eq_ignore_ascii_case(text));
            known
                .then(|| text.to_owned())
                .ok_or_else(|| "no such choice".to_owned())
        }
        Kind::List => Ok(items(text).collect::<Vec<_>>().join(",")),
        Kind::ListOf(choices) => list_of(text, choices),
        Kind::ThrottledReplicas => throttled_replicas(text),
        Kind::Size(min, max) => {
            let bytes = parse_size(text).ok_or_else(|| "not a size".to_owned())?;
            if bytes < min || bytes > max {
                return Err("out of range".to_owned());
            }
            Ok(text.to_owned())
        }
    }
}

fn whole(text: &str, min: i64, max: i64) -> Result<String, String> {
    let number: i64 = text.parse().map_err(|_| "not a whole number".to_owned())?;
    if number < min {
        return Err(format!("must be at least {min}"));
    }
    if number > max {
        return Err(format!("must be at most {max}"));
    }
    Ok(number.to_string())
}

/// The items of a list, as Kafka splits it: blanks around commas do not count, an empty text is an empty list.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn list_of(text: &str, choices: &[&str]) -> Result<String, String> {
    let mut chosen: Vec<&str> = Vec::new();
    for item in items(text) {
        if !choices.contains(&item) {
            return Err(format!("{item} is no choice"));
        }
        // Given twice is given once, as in Kafka.
        if !chosen.contains(&item) {
            chosen.push(item);
        }
    }
    Ok(chosen.join(","))
}

fn throttled_replicas(text: &str) -> Result<String, String> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    for item in items(text) {
        let number = |part: &str| part.parse::<u32>().is_ok();
        match item.split_once(':') {
            Some((partition, broker)) if number(partition) && number(broker) => {}
            _ => return Err(format!("{item} is no partition:broker pair")),
        }
    }
    Ok(items(text).collect::<Vec<_>>().join(","))
}

const UNITS: [(&str, u64); 12] = [
    ("tib", 1 << 40),
    ("tb", 1_000_000_000_000),
    ("t", 1 << 40),
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
];

/// `256MiB`, `1GB`, `1048576`: a number of bytes.
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let (digits, factor) = UNITS
        .iter()
        .find_map(|(suffix, factor)| lower.strip_suffix(suffix).map(|digits| (digits, *factor)))
        .unwrap_or((lower.strip_suffix('b').unwrap_or(&lower), 1));
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

/// The shortest exact form with a binary unit.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    for (unit, factor) in [
        ("TiB", 1_u64 << 40),
        ("GiB", 1 << 30),
        ("MiB", 1 << 20),
        ("KiB", 1 << 10),
    ] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    format!("{bytes}")
}
