//! A timeline to look at: nodes by time, faults, leaders, high watermarks, what clients did. One file that needs no other:
//! the story as JSON, and the page that draws it (`timeline.html`).

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};
use skerry_simulation::scenario::Scenario;
use skerry_simulation::story::{Ended, Moment, Operation, Story, What, plain};

use super::files;
use super::one::Result;

const PAGE: &str = include_str!("timeline.html");

/// More operations than that nobody looks at; those before the violation stay.
const OPERATIONS_MAX: usize = 12_000;
/// Points of all curves.
const POINTS_MAX: usize = 30_000;
/// Messages of violations, and what is shown of each.
const MESSAGES_MAX: usize = 20;
const MESSAGE_CHARS: usize = 1_000;

/// Writes the timeline of a run.
pub(super) fn write(
    path: &Path,
    story: &Story,
    scenario: &Scenario,
    result: &Result,
    again: &[String],
) -> anyhow::Result<()> {
    let mut out = files::create(path)?;
    out.write_all(page(story, scenario, result, again).as_bytes())?;
    out.flush()?;
    Ok(())
}

fn page(story: &Story, scenario: &Scenario, result: &Result, again: &[String]) -> String {
    let end = result.sim_ms * 1_000;
    let violations = result.violations.iter().take(MESSAGES_MAX).map(|broken| {
        let message: String = plain(&broken.message).chars().take(MESSAGE_CHARS).collect();
        let at = if broken.at == 0 { end } else { broken.at };
        json!({"at": at, "check": broken.check, "message": message})
    });
    let data = json!({
        "seed": result.seed,
        "about": scenario.about,
        "end": end,
        "nodes": story.nodes,
        "voters": if scenario.voters == 0 { scenario.nodes } else { scenario.voters },
        "again": again,
        "violations": violations.collect::<Vec<_>>(),
        "moments": moments(&story.moments),
        "operations": operations(&story.operations),
    });
    // No text of the data ends the element that it stands in.
    let data = data
        .to_string()
        .replace("</", "<\\/")
        .replace("<!--", "<\\u0021--");
    PAGE.replacen("/*DATA*/", &data, 1)
}

/// All changes; of the curves' points every so-manyeth where there are too many.
fn moments(all: &[Moment]) -> Vec<Value> {
    let is_point = |moment: &&Moment| matches!(moment.what, What::Log { .. });
    let every = all.iter().filter(is_point).count().div_ceil(POINTS_MAX).max(1);
    let mut points = 0;
    let kept = all.iter().filter(|moment| {
        points += usize::from(is_point(moment));
        !is_point(moment) || points.is_multiple_of(every)
    });
    kept.map(|moment| serde_json::to_value(moment).unwrap_or_default())
        .collect()
}

/// By client: `[from, to, how it ended, what]`.
fn operations(all: &[Operation]) -> Value {
    let last = &all[all.len().saturating_sub(OPERATIONS_MAX)..];
    let clients: BTreeSet<&str> = last.iter().map(|operation| operation.client.as_str()).collect();
    let of = |client: &str| {
        let rows = last.iter().filter(|operation| operation.client == client);
        let rows = rows.map(|operation| {
            let ended = match operation.ended {
                Ended::Done => 0,
                Ended::Failed => 1,
                Ended::Unknown => 2,
            };
            json!([operation.from, operation.to, ended, operation.text])
        });
        json!({"name": client, "rows": rows.collect::<Vec<_>>()})
    };
    clients.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::one::Broken;
    use super::*;

    fn drawn(points: usize, operations: usize) -> String {
        let log = |index: usize| Moment {
            at: index as u64 * 100,
            what: What::Log {
                partition: "orders-0".to_owned(),
                node: index % 3,
                leads: index.is_multiple_of(3),
                start: 0,
                end: 8,
                high_watermark: 7,
            },
        };
        let operation = |index: usize| Operation {
            client: format!("idem{}", index % 4),
            from: index as u64,
            to: index as u64 + 5,
            ended: Ended::Done,
            text: "send p1.1 to p1.9 to orders-0 (acks=all, idempotent): written at 12".to_owned(),
        };
        let story = Story {
            nodes: vec!["n1".to_owned(), "n2".to_owned(), "n3".to_owned()],
            moments: (0..points).map(log).collect(),
            operations: (0..operations).map(operation).collect(),
        };
        let result = Result {
            seed: 5,
            sim_ms: 12_000,
            violations: vec![Broken {
                at: 8_464_000,
                check: "wrong-in-sync-set".to_owned(),
                message: "</script> BrokerId(1) is fenced".to_owned(),
            }],
            ..Result::default()
        };
        let scenario = Scenario::draw_cluster(5, 3);
        page(&story, &scenario, &result, &["skerry-sim replay 5".to_owned()])
    }

    /// What the page draws.
    fn data(page: &str) -> Value {
        let (_, rest) = page.split_once("id=\"data\">").expect("the data");
        let (data, _) = rest.split_once("</script>").expect("its end");
        serde_json::from_str(data).expect("JSON")
    }

    #[test]
    fn the_page_is_whole_and_has_the_violation() {
        let page = drawn(300, 50);
        let data = data(&page);
        assert_eq!(data["violations"][0]["check"], "wrong-in-sync-set");
        assert_eq!(data["violations"][0]["message"], "</script> n1 is fenced");
        assert_eq!(data["moments"].as_array().map(Vec::len), Some(300));
        assert_eq!(data["operations"].as_array().map(Vec::len), Some(4));
        for element in ["html", "head", "style", "script", "body"] {
            let open = page.matches(&format!("<{element}")).count();
            let closed = page.matches(&format!("</{element}>")).count();
            assert_eq!((open, closed), (closed, closed), "{element}");
            assert!(closed > 0, "{element}");
        }
        // It needs no network.
        assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="));
    }

    #[test]
    fn a_long_story_makes_no_page_that_a_browser_cannot_show() {
        let page = drawn(500_000, 100_000);
        assert!(page.len() < 8_000_000, "{}", page.len());
        let data = data(&page);
        assert_eq!(
            data["operations"][0]["rows"].as_array().map(Vec::len),
            Some(OPERATIONS_MAX / 4)
        );
    }
}
