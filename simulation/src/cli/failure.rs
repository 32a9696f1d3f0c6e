//! A broken promise as a person reads it at three in the morning: what, with which numbers, what led there (one line for
//! each fault and each change of a state, a column for each node), what clients did there, and the command that shows it
//! again.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use skerry_simulation::story::{Moment, NodeState, Operation, Story, What, plain};

use super::colour::{BOLD, DIM, GREEN, RED, YELLOW, paint};
use super::one::{Broken, Result};

/// Lines of the table. Before them, most often, the cluster was well.
const ROWS: usize = 36;
/// Operations of clients.
const OPERATIONS: usize = 6;
/// Messages of one check.
const MESSAGES: usize = 3;
/// Of a message that nobody reads to its end.
const MESSAGE_CHARS: usize = 600;
const COLUMN: usize = 18;

/// Adds a line.
macro_rules! line {
    ($out:expr, $($word:tt)*) => { let _ = writeln!($out, $($word)*); };
}

/// Prints everything that is known of a failure.
pub(super) fn print(result: &Result, story: Option<&Story>, again: &[String]) {
    super::out::write(format_args!("{}", text(result, story, again)));
}

fn text(result: &Result, story: Option<&Story>, again: &[String]) -> String {
    let mut text = String::new();
    let out = &mut text;
    let Some(first) = result.violations.first() else {
        return text;
    };
    let at = match first.at {
        0 => "when everything was over".to_owned(),
        at => format!("at {:.3} s", at as f64 / 1e6),
    };
    let headline = format!("seed {} BREAKS A PROMISE {at}: {}", result.seed, first.check);
    line!(out, "\n{}", paint(&[BOLD, RED], &headline));
    tell_messages(out, &result.violations);
    match story {
        Some(story) if !story.moments.is_empty() => {
            let about = partition_of(story, &first.message);
            let until = if first.at == 0 { u64::MAX } else { first.at + 2_000 };
            tell_table(out, story, about.as_deref(), until);
            let at = if first.at == 0 {
                result.sim_ms * 1_000
            } else {
                first.at
            };
            let line = format!("  {:>9.3}  BREAKS {}", at as f64 / 1e6, first.check);
            line!(out, "{}", paint(&[BOLD, RED], &line));
            if let Some(about) = about {
                tell_operations(out, &story.operations, &about, until);
            }
        }
        _ => {
            line!(out, "  the last lines of its trace ([milliseconds] who what):");
            for line in &result.last_lines {
                line!(out, "    {}", plain(line));
            }
        }
    }
    for (index, line) in again.iter().enumerate() {
        let what = if index == 0 {
            "  see it again:  "
        } else {
            "                 "
        };
        line!(out, "{what}{}", paint(&[BOLD], line));
    }
    text
}

fn tell_messages(out: &mut String, violations: &[Broken]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for violation in violations {
        let count = counts.entry(&violation.check).or_default();
        *count += 1;
        if *count <= MESSAGES {
            let message = plain(&violation.message);
            let short: String = message.chars().take(MESSAGE_CHARS).collect();
            let more = if short.len() < message.len() { " ..." } else { "" };
            line!(out, "  {}: {short}{more}", violation.check);
        }
    }
    for (check, count) in counts.into_iter().filter(|(_, count)| *count > MESSAGES) {
        line!(out, "  {check}: and {} more like these", count - MESSAGES);
    }
}

/// The partition that a message is about, if it names one.
fn partition_of(story: &Story, message: &str) -> Option<String> {
    let names = story.moments.iter().filter_map(|moment| match &moment.what {
        What::Place { partition, .. } => Some(partition),
        _ => None,
    });
    let found = names.filter_map(|name| Some((message.find(name.as_str())?, name)));
    found.min().map(|(_, name)| name.clone())
}

/// What a node has of the partition that is looked at.
#[derive(Clone, Copy, Default)]
struct Copy {
    end: i64,
    high_watermark: i64,
}

/// Follows a story, and makes its lines.
struct Table<'a> {
    story: &'a Story,
    about: Option<&'a str>,
    copies: Vec<Option<Copy>>,
    /// The last lines: when, a cell for each node, in words.
    rows: VecDeque<(u64, Vec<String>, String)>,
    left_out: usize,
}

impl Table<'_> {
    fn add(&mut self, at: u64, cells: Vec<String>, what: String) {
        // What happens to many partitions at once is one line.
        if let Some((last_at, last_cells, last_what)) = self.rows.back_mut()
            && *last_at == at
            && *last_cells == cells
            && let Some((name, rest)) = what.split_once(": ")
            && let Some((names, last_rest)) = last_what.split_once(": ")
            && rest == last_rest
            && !name.contains(' ')
        {
            *last_what = format!("{names},{name}: {rest}");
            return;
        }
        // Several nodes at the same moment too.
        if let Some((last_at, last_cells, last_what)) = self.rows.back_mut()
            && *last_at == at
            && last_what.is_empty()
            && what.is_empty()
            && last_cells
                .iter()
                .zip(&cells)
                .all(|(one, two)| one.is_empty() || two.is_empty())
        {
            for (cell, new) in last_cells.iter_mut().zip(cells) {
                cell.push_str(&new);
            }
            return;
        }
        if self.rows.len() == ROWS {
            self.rows.pop_front();
            self.left_out += 1;
        }
        self.rows.push_back((at, cells, what));
    }

    fn cells(&self) -> Vec<String> {
        vec![String::new(); self.story.nodes.len()]
    }

    fn names(&self, nodes: &[usize]) -> String {
        let names = nodes.iter().filter_map(|node| self.story.nodes.get(*node));
        names.cloned().collect::<Vec<_>>().join(",")
    }

    fn follow(&mut self, moment: &Moment) {
        let at = moment.at;
        let mut cells = self.cells();
        match &moment.what {
            What::Node { node, state } => {
                cells[*node] = match state {
                    NodeState::Down => "DOWN",
                    NodeState::Starting => "starts",
                    NodeState::Serving => "serves",
                    NodeState::Stopping => "stops",
                    NodeState::Paused => "PAUSED",
                }
                .to_owned();
                self.add(at, cells, String::new());
            }
            What::Phase { name } => self.add(at, cells, format!("--- {name}")),
            What::Fault {
                number,
                what,
                whom,
                nodes,
                ..
            } => {
                for node in nodes {
                    cells[*node] = format!("! {}", what.split(' ').next().unwrap_or_default());
                }
                let whom = match self.story.nodes.len() {
                    1 => String::new(),
                    _ => format!(" on {whom}"),
                };
                self.add(at, cells, format!("fault {number}{whom}: {what}"));
            }
            What::Quorum { term, leader } => {
                if let Some(leader) = leader {
                    cells[*leader] = "quorum leader".to_owned();
                }
                let who = leader.and_then(|leader| self.story.nodes.get(leader).cloned());
                let who = who.map_or_else(|| "nobody leads".to_owned(), |who| format!("{who} leads"));
                self.add(at, cells, format!("quorum: {who} term {term}"));
            }
            What::Place {
                partition,
                epoch,
                leader,
                replicas,
                in_sync,
                eligible,
            } => {
                let is_it = self.about == Some(partition);
                if self.about.is_some() && !is_it {
                    return;
                }
                for node in replicas {
                    let role = match (
                        Some(*node) == *leader,
                        in_sync.contains(node),
                        eligible.contains(node),
                    ) {
                        (true, ..) => "* leads",
                        (_, true, _) => "+ in sync",
                        (_, _, true) => "e eligible",
                        _ => "- out of sync",
                    };
                    let copy = self.copies[*node].filter(|_| is_it);
                    let copy = copy.map_or_else(String::new, |copy| {
                        format!(" {}/{}", copy.high_watermark, copy.end)
                    });
                    cells[*node] = format!("{role}{copy}");
                }
                let who = leader.map_or_else(|| "nobody".to_owned(), |leader| self.names(&[leader]));
                let what = format!(
                    "{partition}: epoch {epoch}, {who} leads, in sync {}",
                    self.names(in_sync)
                );
                self.add(at, cells, what);
            }
            What::Log {
                partition,
                node,
                end,
                high_watermark,
                ..
            } => {
                if self.about == Some(partition) {
                    self.copies[*node] = Some(Copy {
                        end: *end,
                        high_watermark: *high_watermark,
                    });
                }
            }
        }
    }
}

fn tell_table(out: &mut String, story: &Story, about: Option<&str>, until: u64) {
    let mut table = Table {
        story,
        about,
        copies: vec![None; story.nodes.len()],
        rows: VecDeque::new(),
        left_out: 0,
    };
    for moment in story.moments.iter().take_while(|moment| moment.at <= until) {
        table.follow(moment);
    }
    let of = about.map_or_else(String::new, |about| {
        format!(", of {about} (after each role: high watermark/log end)")
    });
    line!(out, "\n  what happened before{of}:");
    if table.left_out > 0 {
        let left_out = format!("  ({} earlier lines: --html shows them)", table.left_out);
        line!(out, "{}", paint(&[DIM], &left_out));
    }
    let mut head = format!("  {:>9} ", "seconds");
    for name in &story.nodes {
        let _ = write!(head, " {name:<COLUMN$}");
    }
    line!(out, "{}", paint(&[BOLD], head.trim_end()));
    for (at, cells, what) in &table.rows {
        let mut line = format!("  {:>9.3} ", *at as f64 / 1e6);
        for cell in cells {
            let code: &[&str] = match cell.as_bytes().first() {
                Some(b'!' | b'D' | b'P') => &[RED],
                Some(b'*' | b'q') => &[GREEN, BOLD],
                Some(b'+') => &[GREEN],
                Some(b'-' | b'e') => &[YELLOW],
                _ => &[],
            };
            let _ = write!(line, " {}", paint(code, &format!("{cell:<COLUMN$}")));
        }
        let code: &[&str] = if what.starts_with("fault") {
            &[RED]
        } else if what.starts_with("---") {
            &[DIM]
        } else {
            &[]
        };
        line!(out, "{line} {}", paint(code, what));
    }
}

fn tell_operations(out: &mut String, operations: &[Operation], about: &str, until: u64) {
    let is_about = |operation: &&Operation| {
        let mut words = operation.text.split([' ', ':']);
        operation.from <= until && words.any(|word| word == about)
    };
    let found: Vec<_> = operations.iter().filter(is_about).collect();
    let last = found.len().saturating_sub(OPERATIONS);
    line!(out, "\n  the last operations of clients on {about}:");
    for operation in &found[last..] {
        line!(
            out,
            "  {:>9.3}  {:<9} {}",
            operation.from as f64 / 1e6,
            operation.client,
            operation.text
        );
    }
    line!(out, "");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_led_there_is_a_table_with_a_column_for_each_node() {
        let place = |partition: &str, leader: usize, in_sync: &[usize]| What::Place {
            partition: partition.to_owned(),
            epoch: 3,
            leader: Some(leader),
            replicas: vec![0, 1],
            in_sync: in_sync.to_vec(),
            eligible: Vec::new(),
        };
        let log = |node, end, high_watermark| What::Log {
            partition: "orders-0".to_owned(),
            node,
            leads: node == 0,
            start: 0,
            end,
            high_watermark,
        };
        let fault = What::Fault {
            number: 4,
            what: "power-cut down 300 ms".to_owned(),
            whom: "controller".to_owned(),
            nodes: vec![1],
            host: None,
            for_ms: 300,
        };
        let down = |node| What::Node {
            node,
            state: NodeState::Down,
        };
        let moments = [
            (1_000, place("orders-0", 0, &[0, 1])),
            (1_000, place("orders-1", 0, &[0, 1])),
            (2_000, log(0, 9, 7)),
            (2_000, log(1, 7, 7)),
            (3_000, fault),
            (3_000, down(1)),
            (4_000, place("orders-0", 0, &[0])),
            (9_000_000, down(0)),
        ];
        let story = Story {
            nodes: vec!["n1".to_owned(), "n2".to_owned()],
            moments: moments.map(|(at, what)| Moment { at, what }).to_vec(),
            operations: Vec::new(),
        };
        let broken = |message: &str| Result {
            seed: 5,
            violations: vec![Broken {
                at: 5_000,
                check: "wrong-in-sync-set".to_owned(),
                message: message.to_owned(),
            }],
            ..Result::default()
        };
        let again = ["skerry-sim replay 5".to_owned()];
        let told = text(&broken("orders-0: BrokerId(2) is fenced"), Some(&story), &again);
        let lines: Vec<&str> = told.lines().map(str::trim_end).collect();
        assert_eq!(
            lines,
            [
                "",
                "seed 5 BREAKS A PROMISE at 0.005 s: wrong-in-sync-set",
                "  wrong-in-sync-set: orders-0: n2 is fenced",
                "",
                "  what happened before, of orders-0 (after each role: high watermark/log end):",
                "    seconds  n1                 n2",
                "      0.001  * leads            + in sync          orders-0: epoch 3, n1 leads, in sync n1,n2",
                "      0.003                     ! power-cut        fault 4 on controller: power-cut down 300 ms",
                "      0.003                     DOWN",
                "      0.004  * leads 7/9        - out of sync 7/7  orders-0: epoch 3, n1 leads, in sync n1",
                "      0.005  BREAKS wrong-in-sync-set",
                "",
                "  the last operations of clients on orders-0:",
                "",
                "  see it again:  skerry-sim replay 5",
            ]
        );
        // Of no partition: what happens to several at once is one line.
        let told = text(&broken("n2 is fenced"), Some(&story), &again);
        assert!(told.contains("orders-0,orders-1: epoch 3, n1 leads"), "{told}");
        // Nothing was told: its last words.
        let last = Result {
            last_lines: vec!["[1.000] n1 ends at Offset(3)".to_owned()],
            ..broken("a panic")
        };
        assert!(text(&last, None, &again).contains("n1 ends at 3"));
    }
}
