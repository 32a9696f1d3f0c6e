//! What a person reads.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use skerry_checker::history::Op;
use skerry_simulation::scenario::Group;

use super::one::Result;
use super::out::say;
use skerry_simulation::goals::{GOALS, Goal};

/// What many seeds came to.
#[derive(Default)]
pub(super) struct Summary {
    pub(super) seeds: u64,
    pub(super) failed: Vec<u64>,
    sim_ms: u64,
    processor_ms: u64,
    starts: u64,
    answers_checked: u64,
    operations: u64,
    faults: BTreeMap<String, u64>,
    /// How often a fault met an operation that was under way.
    met: BTreeMap<(String, String), u64>,
    seen: BTreeMap<String, u64>,
    /// Goals: how often they were reached, and in how many seeds.
    goals: BTreeMap<String, (u64, u64)>,
}

impl Summary {
    pub(super) fn add(&mut self, result: &Result) {
        self.seeds += 1;
        self.sim_ms += result.sim_ms;
        self.processor_ms += result.processor_ms;
        self.starts += result.starts;
        self.answers_checked += result.answers_checked;
        self.operations += result.operations.values().map(|(_, done)| done).sum::<u64>();
        for (kind, count) in &result.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
        for (fault, met) in &result.met {
            for (operation, count) in met {
                *self.met.entry((fault.clone(), operation.clone())).or_default() += count;
            }
        }
        for (goal, count) in &result.goals {
            let (times, seeds) = self.goals.entry(goal.clone()).or_default();
            *times += count;
            *seeds += 1;
        }
        for (kind, count) in &result.seen {
            *self.seen.entry(kind.clone()).or_default() += count;
        }
        if !result.violations.is_empty() {
            self.failed.push(result.seed);
        }
    }

    /// How far a run is: seeds, failures, speed, and how long the rest will take.
    fn progress(&self, total: u64, took: Duration) -> String {
        let seconds = took.as_secs_f64().max(0.001);
        let speed = self.sim_ms as f64 / 1_000.0 / seconds;
        let left = seconds / self.seeds.max(1) as f64 * total.saturating_sub(self.seeds) as f64;
        let broken = self.failed.len();
        format!(
            "{}/{total} seeds, {broken} broken, {speed:.0} simulated seconds a second, {seconds:.0} s, {left:.0} s left",
            self.seeds
        )
    }

    pub(super) fn print(&mut self, took: Duration) {
        let simulated = self.sim_ms as f64 / 1_000.0;
        let speed = simulated / took.as_secs_f64().max(0.001);
        let each = self.sim_ms as f64 / self.processor_ms.max(1) as f64;
        say!(
            "{} seeds, {} broken | {simulated:.0} simulated seconds in {:.0} s ({speed:.0}x; {each:.0}x a processor) | {} \
             operations done, {} \
             answers compared with the disk, {} starts of the broker",
            self.seeds,
            self.failed.len(),
            took.as_secs_f64(),
            self.operations,
            self.answers_checked,
            self.starts
        );
        for group in Group::ALL {
            let happened = group
                .kinds()
                .filter_map(|kind| self.faults.get_key_value(kind.name));
            let happened: Vec<_> = happened.map(|(kind, count)| format!("{kind} {count}")).collect();
            if !happened.is_empty() {
                say!(
                    "faults, {:<11} {}",
                    format!("{}:", group.name()),
                    happened.join(", ")
                );
            }
        }
        if !self.faults.is_empty() {
            let pairs = self.faults.len() * Op::KINDS.len();
            say!(
                "faults met operations that were under way: {} of {pairs} pairs",
                self.met.len()
            );
        }
        let seen = self.seen.iter().map(|(kind, count)| format!("{kind} {count}"));
        if !self.seen.is_empty() {
            say!("the cluster: {}", seen.collect::<Vec<_>>().join(", "));
        }
        self.failed.sort_unstable();
        if !self.failed.is_empty() {
            let seeds: Vec<_> = self.failed.iter().map(ToString::to_string).collect();
            say!("broken: {}", seeds.join(" "));
        }
    }
}

/// What worlds of `nodes` can reach, and in which of all seeds it was reached.
pub(super) struct GoalReport<'a> {
    rows: Vec<(&'a Goal, u64, u64)>,
    seeds: u64,
}

impl Summary {
    /// A row for each kind of fault, a column for each operation that clients had under way.
    pub(super) fn print_met(&self) {
        say!(
            "{:<20} {}",
            "faults met",
            Op::KINDS.map(|kind| format!("{kind:>12}")).join(" ")
        );
        for fault in self.faults.keys() {
            let times = |kind: &str| {
                self.met
                    .get(&(fault.clone(), kind.to_owned()))
                    .copied()
                    .unwrap_or(0)
            };
            let row = Op::KINDS.map(|kind| format!("{:>12}", times(kind)));
            say!("{fault:<20} {}", row.join(" "));
        }
    }

    /// The goals of worlds of so many nodes.
    pub(super) fn goals(&self, nodes: u32) -> GoalReport<'_> {
        let of_world = GOALS.iter().filter(|goal| goal.world.has(nodes));
        let rows = of_world.map(|goal| {
            let (times, seeds) = self.goals.get(goal.name).copied().unwrap_or_default();
            (goal, times, seeds)
        });
        GoalReport {
            rows: rows.collect(),
            seeds: self.seeds,
        }
    }
}

impl GoalReport<'_> {
    /// Goals that no seed reached.
    pub(super) fn never(&self) -> impl Iterator<Item = &Goal> {
        self.rows.iter().filter(|row| row.1 == 0).map(|row| row.0)
    }

    /// How many were reached, and which were not; with `table`, a line for each.
    pub(super) fn print(&self, table: bool) {
        let never: Vec<_> = self.never().map(|goal| goal.name).collect();
        let all = self.rows.len();
        let reached = all - never.len();
        match never.as_slice() {
            [] => say!("goals: all {all} reached"),
            _ => say!("goals: {reached} of {all} reached; NEVER: {}", never.join(", ")),
        }
        if !table {
            return;
        }
        say!("  seeds    times  goal");
        for (goal, times, seeds) in &self.rows {
            let share = *seeds as f64 * 100.0 / self.seeds.max(1) as f64;
            say!("{share:>5.0} % {times:>8}  {:<44} {}", goal.name, goal.meaning);
        }
    }
}

/// One line that overwrites itself on a terminal, and one line for each tenth elsewhere.
pub(super) struct Progress {
    total: u64,
    terminal: bool,
    tenths: u64,
}

impl Progress {
    pub(super) fn new(total: u64) -> Self {
        Self {
            total,
            terminal: std::io::stderr().is_terminal(),
            tenths: 0,
        }
    }

    /// Makes room for other lines.
    pub(super) fn clear(&self) {
        if self.terminal {
            let mut error = std::io::stderr().lock();
            let _ = write!(error, "\r\x1b[K");
            let _ = error.flush();
        }
    }

    pub(super) fn show(&mut self, summary: &Summary, took: Duration) {
        let line = summary.progress(self.total, took);
        self.write(summary.seeds, &line);
    }

    /// So many are done, in words; adds how long the rest will take.
    pub(super) fn line(&mut self, done: u64, line: &str, took: Duration) {
        let left = took.as_secs_f64() / done.max(1) as f64 * self.total.saturating_sub(done) as f64;
        self.write(
            done,
            &format!("{line}, {:.0} s, {left:.0} s left", took.as_secs_f64()),
        );
    }

    fn write(&mut self, done: u64, line: &str) {
        let mut error = std::io::stderr().lock();
        // Nobody is helped by the news that a progress line cannot be written.
        if self.terminal {
            // To the end of the line: an earlier one may have been longer.
            let _ = write!(error, "\r{line}\x1b[K");
            if done == self.total {
                let _ = writeln!(error);
            }
        } else if done * 10 / self.total.max(1) > self.tenths {
            self.tenths = done * 10 / self.total.max(1);
            let _ = writeln!(error, "{line}");
        }
        let _ = error.flush();
    }
}

pub(super) fn print_success(result: &Result) {
    say!(
        "seed {} keeps every promise: {:.1} simulated seconds, {} starts of the broker, {} answers compared with the \
         disk, trace {}",
        result.seed,
        result.sim_ms as f64 / 1_000.0,
        result.starts,
        result.answers_checked,
        result.hash
    );
    let goals: Vec<_> = result
        .goals
        .iter()
        .map(|(goal, times)| format!("{goal} {times}"))
        .collect();
    say!("  goals: {}", goals.join(", "));
    if let Some(count) = result.seen.get("faults that hit nobody") {
        say!("  faults that hit nobody, because nobody was whom they name: {count}");
    }
    for (kind, (asked, done)) in &result.operations {
        say!("  {kind}: {done} of {asked}");
    }
}
