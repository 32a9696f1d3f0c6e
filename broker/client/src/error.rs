//! What can go wrong above a single connection.

use kafka_protocol::error::ResponseError;

use crate::connection::{CallError, ConnectError};

/// A request of the client failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// No broker could be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A request got no answer.
    #[error("{api} to {addr}: {source}")]
    Call {
        /// Which request.
        api: &'static str,
        /// To whom.
        addr: String,
        /// What went wrong.
        source: CallError,
    },
    /// The broker refused.
    #[error("{what}: {}", refusal(.code, .message.as_deref()))]
    Refused {
        /// What was refused.
        what: String,
        /// Kafka's error.
        code: ResponseError,
        /// The broker's words.
        message: Option<String>,
    },
    /// A partition has no leader now.
    #[error("partition {partition} of {topic} has no leader now")]
    NoLeader {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// The topic has no such partition.
    #[error("topic {topic} has {count} partitions: {partition} is none of them")]
    NoSuchPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// How many there are.
        count: usize,
    },
    /// The answer lacks what it must have.
    #[error("{what}: the answer says nothing of it")]
    Unanswered {
        /// What was asked.
        what: String,
    },
    /// Records that are damaged.
    #[error(transparent)]
    BadBatch(#[from] crate::batch::BadBatch),
    /// Time ran out after tries that failed.
    #[error("gave up after {tries} tries; the last: {last}")]
    GaveUp {
        /// How many.
        tries: u32,
        /// What was wrong with the last.
        last: Box<ClientError>,
    },
}

fn refusal(code: &ResponseError, message: Option<&str>) -> String {
    let name = code_name(*code);
    match message.filter(|message| !message.is_empty()) {
        Some(message) => format!("{message} ({name})"),
        None => name,
    }
}

/// An error's name as Kafka writes it: `UNKNOWN_TOPIC_OR_PARTITION`.
#[must_use]
pub fn code_name(code: ResponseError) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

impl ClientError {
    /// A later try may succeed, and a repetition harms nothing (it is not for Produce, which has its own rules).
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::NoLeader { .. } => true,
            Self::Call { source, .. } => matches!(source, CallError::NotSent(_) | CallError::Lost(_)),
            Self::Refused { code, .. } => code.is_retriable(),
            Self::NoSuchPartition { .. }
            | Self::Unanswered { .. }
            | Self::BadBatch(_)
            | Self::GaveUp { .. } => false,
        }
    }

    /// Kafka's error, where the broker answered one.
    #[must_use]
    pub fn code(&self) -> Option<ResponseError> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::GaveUp { last, .. } => last.code(),
            _ => None,
        }
    }
}

/// `Ok` for code 0.
pub(crate) fn check(
    code: i16,
    message: Option<&str>,
    what: impl FnOnce() -> String,
) -> Result<(), ClientError> {
    match ResponseError::try_from_code(code) {
        None => Ok(()),
        Some(code) => Err(ClientError::Refused {
            what: what(),
            code,
            message: message.map(str::to_owned),
        }),
    }
}
