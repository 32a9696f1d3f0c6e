//! What a setting is made of.

use std::fmt;

/// What a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// This process: given at the start, never changed later.
    Node,
    /// A broker, or all of them (Kafka's broker configs).
    Broker,
    /// A topic.
    Topic,
    /// A consumer group.
    Group,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Broker => "broker",
            Self::Topic => "topic",
            Self::Group => "group",
        })
    }
}

/// When a setting may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Only by a restart.
    ReadOnly,
    /// While the broker runs, for one broker at a time.
    PerBroker,
    /// While the brokers run, for one or for all.
    ClusterWide,
}

/// Whether a setting does anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what it says.
    Full,
    /// It is accepted and described for the sake of Kafka's tools. Ignoring it harms nobody; the reason is told.
    Inert(&'static str),
    /// Only its default is accepted: ignoring another value would break a promise that the user counts on.
    DefaultOnly(&'static str),
}

/// How many milliseconds one unit of a time setting is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A count, a name, a switch.
    None,
    /// Milliseconds.
    Ms,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
    /// Bytes.
    Bytes,
    /// Bytes each second.
    BytesPerSecond,
    /// Messages.
    Messages,
}

impl Unit {
    /// As it is written after a number.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Ms => " ms",
            Self::Seconds => " seconds",
            Self::Minutes => " minutes",
            Self::Hours => " hours",
            Self::Bytes => " bytes",
            Self::BytesPerSecond => " bytes/s",
            Self::Messages => " messages",
        }
    }
}

/// What values a setting takes. The names of the first groups are Kafka's `ConfigDef.Type`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// 16 bits.
    Short(i16, i16),
    /// 32 bits.
    Int(i32, i32),
    /// -1, or 1 to 9.
    GzipLevel,
    /// 64 bits.
    Long(i64, i64),
    /// A fraction.
    Double(f64, f64),
    /// Any text.
    Text,
    /// One of these.
    Choice(&'static [&'static str]),
    /// One of these, in any case.
    ChoiceIgnoringCase(&'static [&'static str]),
    /// Any texts, separated by commas.
    List,
    /// Some of these, separated by commas.
    ListOf(&'static [&'static str]),
    /// `partition:broker` pairs, or `*`.
    ThrottledReplicas,
    /// The name of a Java class. Only an empty one means anything here.
    Class,
    /// Skerry's own: a number of bytes, with or without a unit (`256MiB`).
    Size(u64, u64),
}

/// Kafka's number of a type in DescribeConfigs answers (`DescribeConfigsResponse.ConfigType`).
impl Kind {
    /// The type's number on the wire.
    #[must_use]
    pub const fn wire_type(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::Text | Self::Choice(_) | Self::ChoiceIgnoringCase(_) | Self::Size(..) => 2,
            Self::Int(..) | Self::GzipLevel => 3,
            Self::Short(..) => 4,
            Self::Long(..) => 5,
            Self::Double(..) => 6,
            Self::List | Self::ListOf(_) | Self::ThrottledReplicas => 7,
            Self::Class => 8,
        }
    }

    /// The type's name, as Kafka's AdminClient prints it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self.wire_type() {
            1 => "BOOLEAN",
            2 => "STRING",
            3 => "INT",
            4 => "SHORT",
            5 => "LONG",
            6 => "DOUBLE",
            7 => "LIST",
            _ => "CLASS",
        }
    }

    /// True where APPEND and SUBTRACT have a meaning.
    #[must_use]
    pub const fn is_list(self) -> bool {
        matches!(self, Self::List | Self::ListOf(_) | Self::ThrottledReplicas)
    }
}

/// A broker setting that a topic or group setting falls back on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker's key.
    pub key: &'static str,
    /// What the broker's number is counted in, where it differs from the topic's.
    pub unit: Option<Unit>,
    /// The broker's default; `None`: it is not set, the next synonym decides.
    pub default: Option<&'static str>,
}

/// One setting, declared once: everything that is said about it anywhere comes from here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Its name.
    pub key: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its value where nothing sets it; `None` is Kafka's null.
    pub default: Option<&'static str>,
    /// What its number counts.
    pub unit: Unit,
    /// What it belongs to.
    pub scope: Scope,
    /// When it may change.
    pub update: Update,
    /// Never shown.
    pub sensitive: bool,
    /// Whether it does anything.
    pub support: Support,
    /// The broker settings that a topic or group setting falls back on; the first one that is set counts.
    pub synonyms: &'static [Synonym],
    /// For a broker setting that is a topic's or group's default: that setting's key.
    pub default_of: Option<&'static str>,
    /// What it does.
    pub doc: &'static str,
}

impl Row {
    pub(super) const fn new(scope: Scope, key: &'static str, kind: Kind, default: &'static str) -> Self {
        Self {
            key,
            kind,
            default: Some(default),
            unit: Unit::None,
            scope,
            update: match scope {
                Scope::Topic | Scope::Group => Update::ClusterWide,
                Scope::Node | Scope::Broker => Update::ReadOnly,
            },
            sensitive: false,
            support: Support::Full,
            synonyms: &[],
            default_of: None,
            doc: "",
        }
    }

    pub(super) const fn null(mut self) -> Self {
        self.default = None;
        self
    }

    pub(super) const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    pub(super) const fn ms(self) -> Self {
        self.unit(Unit::Ms)
    }

    pub(super) const fn bytes(self) -> Self {
        self.unit(Unit::Bytes)
    }

    pub(super) const fn per_broker(mut self) -> Self {
        self.update = Update::PerBroker;
        self
    }

    pub(super) const fn dynamic(mut self) -> Self {
        self.update = Update::ClusterWide;
        self
    }

    pub(super) const fn inert(mut self, why: &'static str) -> Self {
        self.support = Support::Inert(why);
        self
    }

    pub(super) const fn default_only(mut self, why: &'static str) -> Self {
        self.support = Support::DefaultOnly(why);
        self
    }

    pub(super) const fn falls_back_on(mut self, synonyms: &'static [Synonym]) -> Self {
        self.synonyms = synonyms;
        self
    }

    pub(super) const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    /// The values that it takes, for people.
    #[must_use]
    pub fn allowed(&self) -> String {
        let unit = self.unit.suffix();
        let range =
            |min: i128, max: i128, type_max: i128, type_min: i128| match (min > type_min, max < type_max) {
                (true, true) => format!("a whole number from {min} to {max}{unit}"),
                (true, false) => format!("a whole number of at least {min}{unit}"),
                (false, true) => format!("a whole number of at most {max}{unit}"),
                (false, false) if unit.is_empty() => "a whole number".to_owned(),
                (false, false) => format!("a whole number of{unit}"),
            };
        match self.kind {
            Kind::Boolean => "true or false".to_owned(),
            Kind::Short(min, max) => range(min.into(), max.into(), i16::MAX.into(), i16::MIN.into()),
            Kind::Int(min, max) => range(min.into(), max.into(), i32::MAX.into(), i32::MIN.into()),
            Kind::Long(min, max) => range(min.into(), max.into(), i64::MAX.into(), i64::MIN.into()),
            Kind::GzipLevel => "-1, or a whole number from 1 to 9".to_owned(),
            Kind::Double(min, max) if max == f64::MAX => format!("a number of at least {min}{unit}"),
            Kind::Double(min, max) => format!("a number from {min} to {max}{unit}"),
            Kind::Text => "any text".to_owned(),
            Kind::Choice(choices) => format!("one of {}", choices.join(", ")),
            Kind::ChoiceIgnoringCase(choices) => format!("one of {} (in any case)", choices.join(", ")),
            Kind::List => "values separated by commas".to_owned(),
            Kind::ListOf(choices) => format!("some of {}, separated by commas", choices.join(", ")),
            Kind::ThrottledReplicas => "partition:broker pairs separated by commas, or *".to_owned(),
            Kind::Class => "the name of a class".to_owned(),
            Kind::Size(min, max) => {
                format!(
                    "a size from {} to {}, such as 256MiB",
                    super::value::show_size(min),
                    super::value::show_size(max)
                )
            }
        }
    }
}
