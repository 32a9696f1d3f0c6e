//! A setting that was made is not made once more: what a client was told to be done is not done again after others have
//! changed it, because an earlier request for it was on its way all the time. At the end of a run nearly every setting was
//! changed again since, so that the last values alone (`lost-setting`) rarely show it.

use std::collections::BTreeMap;
use std::sync::Arc;

use skerry_checker::history::{History, Op, Outcome, What};
use skerry_metadata_state::Image;
use skerry_types::TopicId;

use super::Found;
use crate::workload::SETTING;

/// The values that each topic's setting was seen to have, one after the other.
#[derive(Default)]
pub(crate) struct Settings {
    /// Of the newest metadata that was looked at.
    index: u64,
    topics: BTreeMap<TopicId, Values>,
}

/// Of one topic.
struct Values {
    topic: Arc<str>,
    /// In milliseconds, since when it had each.
    had: Vec<(u64, Arc<str>)>,
}

impl Settings {
    /// A person goes on from one node's log alone: what it lacks was not decided, and may be again.
    pub(crate) fn on_recovered(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn look(&mut self, image: &Image, now_ms: u64) {
        if image.index() <= self.index {
            return;
        }
        self.index = image.index();
        for topic in image.topics() {
            let Some(value) = topic.configs.get(SETTING) else {
                continue;
            };
            let values = self.topics.entry(topic.id).or_insert_with(|| Values {
                topic: topic.name.clone(),
                had: Vec::new(),
            });
            if values.had.last().is_none_or(|(_, last)| last != value) {
                values.had.push((now_ms, value.clone()));
            }
        }
    }

    /// Values that came back after whoever set them had been told that it was done. Who set one was the only one: they are
    /// drawn from a million.
    pub(crate) fn judge(&self, history: &History) -> Found {
        let mut asked: BTreeMap<u64, (&str, &str)> = BTreeMap::new();
        let mut done: BTreeMap<(&str, &str), Vec<Option<u64>>> = BTreeMap::new();
        for event in &history.events {
            match &event.what {
                What::Invoke(Op::SetConfig { topic, name, value }) if name == SETTING => {
                    let change = (topic.as_str(), value.as_str());
                    asked.insert(event.id, change);
                    done.entry(change).or_default().push(None);
                }
                What::Complete(Outcome::Done) => {
                    if let Some(change) = asked.get(&event.id) {
                        let times = done.get_mut(change).expect("it was asked for");
                        times.pop();
                        times.push(Some(event.at));
                    }
                }
                _ => {}
            }
        }
        let mut found = Found::new();
        for Values { topic, had } in self.topics.values() {
            for (place, (at_ms, value)) in had.iter().enumerate() {
                let was_there = had[..place].iter().any(|(_, earlier)| earlier == value);
                let done_at = match done.get(&(&**topic, &**value)).map(Vec::as_slice) {
                    Some([Some(done_at)]) => *done_at,
                    _ => continue,
                };
                if was_there && done_at < at_ms * 1_000 {
                    found.push((
                        "setting-made-again",
                        format!(
                            "{topic}: {SETTING} became {value} once more at {at_ms} ms; whoever asked for that was told at {} ms \
                             that it was done",
                            done_at / 1_000
                        ),
                    ));
                }
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(values: &[(u64, &str)], done_at_ms: Option<u64>) -> Vec<&'static str> {
        let values = values.iter().map(|(at, value)| (*at, Arc::from(*value)));
        let values = Values {
            topic: "t".into(),
            had: values.collect(),
        };
        let settings = Settings {
            index: 1,
            topics: BTreeMap::from([(skerry_types::Uuid([1; 16]), values)]),
        };
        let mut history = History::default();
        let asked = Op::SetConfig {
            topic: "t".into(),
            name: SETTING.into(),
            value: "1".into(),
        };
        let id = history.invoke(0, "c", asked);
        if let Some(at) = done_at_ms {
            history.complete(at * 1_000, "c", id, Outcome::Done);
        }
        let found = settings.judge(&history);
        found.into_iter().map(|(check, _)| check).collect()
    }

    #[test]
    fn a_setting_that_was_made_is_not_made_once_more() {
        let again = [(5, "1"), (9, "2"), (15, "1")];
        assert_eq!(judged(&again, Some(12)), ["setting-made-again"]);
        assert!(judged(&again, Some(20)).is_empty(), "it was under way still");
        assert!(judged(&again, None).is_empty(), "nobody was told");
        assert!(judged(&again[1..], Some(12)).is_empty(), "it was seen late");
    }
}
