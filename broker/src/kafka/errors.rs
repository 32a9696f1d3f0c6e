//! What goes wrong inside, as Kafka's error codes: one exhaustive match for each enum.

use kafka_protocol::ResponseError;
use skerry_log::ReadError;

use crate::partition::{FetchError, NotServing};

/// The code of a partition that cannot serve.
#[must_use]
pub fn not_serving(error: &NotServing) -> ResponseError {
    match error {
        NotServing::Deleted => ResponseError::UnknownTopicOrPartition,
        NotServing::NotLeader | NotServing::CutOff => ResponseError::NotLeaderOrFollower,
        NotServing::FencedEpoch { .. } => ResponseError::FencedLeaderEpoch,
        NotServing::UnknownEpoch { .. } => ResponseError::UnknownLeaderEpoch,
        NotServing::Offline(_) => ResponseError::KafkaStorageError,
    }
}

/// The code of a read that was refused.
#[must_use]
pub fn fetch(error: &FetchError) -> ResponseError {
    match error {
        FetchError::NotServing(error) => not_serving(error),
        FetchError::Log(ReadError::OutOfRange { .. }) => ResponseError::OffsetOutOfRange,
        FetchError::Log(ReadError::Damaged { .. } | ReadError::Io(_)) => ResponseError::KafkaStorageError,
    }
}

/// A code's name, for people.
#[must_use]
pub fn name(code: i16) -> String {
    ResponseError::try_from_code(code).map_or_else(|| "NONE".to_owned(), |error| format!("{error:?}"))
}
