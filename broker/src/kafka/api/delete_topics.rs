//! DeleteTopics (20), v1-v6. v3 says that deletion is disabled (KIP-322), v5 explains errors, v6 takes ids (KIP-516).

use std::collections::BTreeSet;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse};
use skerry_metadata_state::{Command, Image, Refusal};
use skerry_types::{TopicId, Uuid};

use crate::gate::{Operation, Resource};
use crate::kafka::dispatch::{Context, api};
use crate::kafka::wire::{self, ApiError};
use crate::topics::{self, ChangeError};

api!(DeleteTopics, 1..=6, DeleteTopicsRequest, handle);

/// Topics that are deleted at a time: they share the quorum's syncs.
const DELETED_AT_ONCE: usize = 16;

/// How a request names a topic.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    name: Option<String>,
    id: Uuid,
}

async fn handle(context: Context, version: i16, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let broker = &context.broker;
    let named = named(&request);
    let is_unknown = |image: &Image| {
        let mut found = find_all(image, &named).into_iter();
        found.any(|found| found.is_err())
    };
    let image = broker.newest_image_if(is_unknown).await;
    let enabled = broker.settings().broker().delete_topic_enable;
    let found = find_all(&image, &named);
    let caller = context.caller();
    // A name that comes twice is answered once.
    let mut answered = BTreeSet::new();
    let asked = named
        .into_iter()
        .zip(found)
        .filter(|(named, _)| answered.insert(named.clone()));
    let results = asked.map(|(named, found)| {
        let found = if enabled { found } else { Err(disabled(version)) };
        let found = found.and_then(|(name, id)| {
            let allowed = broker
                .gate()
                .allows(&caller, Operation::Delete, Resource::Topic(&name));
            if allowed {
                Ok((name, id))
            } else {
                Err(ResponseError::TopicAuthorizationFailed.into())
            }
        });
        async move {
            let deleted = match found {
                Ok((name, id)) => match topics::change(broker, Command::DeleteTopic { topic: id }).await {
                    // It was there a moment ago. The quorum is asked again where its answer was lost, and then what it
                    // did first is what it refuses now; whoever it was, the topic is gone.
                    Ok(_) | Err(ChangeError::Refused(Refusal::UnknownTopic)) => Ok((name, id)),
                    Err(error) => Err(error.into()),
                },
                Err(error) => Err(error),
            };
            result(version, &named, deleted)
        }
    });
    DeleteTopicsResponse::default().with_responses(wire::in_order(results, DELETED_AT_ONCE).await)
}

fn disabled(version: i16) -> ApiError {
    if version < 3 {
        ApiError::invalid_request("Topic deletion is disabled.")
    } else {
        ResponseError::TopicDeletionDisabled.into()
    }
}

fn named(request: &DeleteTopicsRequest) -> Vec<Named> {
    let by_name = request.topic_names.iter().map(|name| Named {
        name: Some(name.to_string()),
        id: Uuid::ZERO,
    });
    let by_either = request.topics.iter().map(|topic| Named {
        name: topic.name.as_ref().map(|name| name.to_string()),
        id: wire::id(topic.topic_id),
    });
    by_name.chain(by_either).collect()
}

/// The topic behind each name or id. Kafka's checks (`ControllerApis.deleteTopics`).
fn find_all(image: &Image, all: &[Named]) -> Vec<Result<(String, TopicId), ApiError>> {
    let mut seen = BTreeSet::new();
    let repeated: BTreeSet<&Named> = all.iter().filter(|named| !seen.insert(*named)).collect();
    let by_id: BTreeSet<Uuid> = all
        .iter()
        .filter(|named| named.name.is_none())
        .map(|named| named.id)
        .collect();
    let find = |named: &Named| match (&named.name, named.id.is_zero()) {
        (None, true) => Err(ApiError::invalid_request(
            "Neither topic name nor id were specified.",
        )),
        (Some(_), false) => Err(ApiError::invalid_request(
            "You may not specify both topic name and topic id.",
        )),
        (Some(_), true) if repeated.contains(named) => {
            Err(ApiError::invalid_request("Duplicate topic name."))
        }
        (None, false) if repeated.contains(named) => Err(ApiError::invalid_request("Duplicate topic id.")),
        (None, false) => {
            let topic = image.topic_by_id(named.id).ok_or(ResponseError::UnknownTopicId)?;
            Ok((topic.name.to_string(), topic.id))
        }
        (Some(name), true) => {
            let topic = image.topic(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
            if by_id.contains(&topic.id) {
                let words = "The provided topic name maps to an ID that was already supplied.";
                return Err(ApiError::invalid_request(words));
            }
            Ok((name.clone(), topic.id))
        }
    };
    all.iter().map(find).collect()
}

fn result(version: i16, named: &Named, deleted: Result<(String, TopicId), ApiError>) -> DeletableTopicResult {
    let mut result = DeletableTopicResult::default().with_error_message(None);
    let (name, id) = match deleted {
        Ok((name, id)) => (Some(name), id),
        Err(error) => {
            result.error_code = error.code.code();
            if version >= 5 {
                result.error_message = error.text();
            }
            (named.name.clone(), named.id)
        }
    };
    result.name = name.as_deref().map(wire::topic_name);
    if version >= 6 {
        result.topic_id = wire::uuid(id);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::api::testing::{encodes, image};

    fn name(name: &str) -> Named {
        Named {
            name: Some(name.to_owned()),
            id: Uuid::ZERO,
        }
    }

    fn id(byte: u8) -> Named {
        Named {
            name: None,
            id: Uuid([byte; 16]),
        }
    }

    fn codes(named: &[Named]) -> Vec<i16> {
        let image = image(&[("a", 1), ("b", 1)]);
        find_all(&image, named)
            .into_iter()
            .map(|found| found.map_or_else(|error| error.code.code(), |_| 0))
            .collect()
    }

    #[test]
    fn topics_are_found_by_name_or_id_and_never_by_both() {
        assert_eq!(codes(&[name("a"), id(11)]), [0, 0]);
        assert_eq!(
            codes(&[name("nowhere"), name("a b"), id(77)]),
            [3, 3, 100],
            "illegal names are just unknown"
        );
        assert_eq!(codes(&[name("a"), name("a"), name("b")]), [42, 42, 0]);
        assert_eq!(codes(&[id(10), id(10)]), [42, 42]);
        assert_eq!(codes(&[id(10), name("a")]), [0, 42]);
        assert_eq!(
            codes(&[
                Named {
                    name: Some("a".to_owned()),
                    id: Uuid([10; 16])
                },
                id(0)
            ]),
            [42, 42]
        );
    }

    #[test]
    fn every_version_is_told_what_it_can_read() {
        for version in 1..=6 {
            let done = result(version, &name("a"), Ok(("a".to_owned(), Uuid([10; 16]))));
            let refused = result(version, &name("b"), Err(disabled(version)));
            assert_eq!(refused.error_code, if version < 3 { 42 } else { 73 });
            encodes(
                version,
                &DeleteTopicsResponse::default().with_responses(vec![done, refused]),
            );
        }
        encodes(
            6,
            &DeleteTopicsResponse::default().with_responses(vec![result(
                6,
                &id(77),
                Err(ResponseError::UnknownTopicId.into()),
            )]),
        );
    }
}
