//! Bugs are planted, and the checks that are there for them must see them.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

use anyhow::Context as _;
use skerry_simulation::plants::{self, PLANTS, Planted};

use super::one::{self, Result};
use super::out::say;
use super::pool::{self, Surroundings};
use super::{Choice, Jobs, Nodes, OneArgs, files};

/// Prints their names.
pub(super) fn list() -> anyhow::Result<ExitCode> {
    for plant in PLANTS {
        say!("{:<36} {}", plant.name, plant.mistake);
    }
    Ok(ExitCode::SUCCESS)
}

/// The bug of this name, where it can be planted.
pub(super) fn find(name: &str) -> anyhow::Result<&'static Planted> {
    anyhow::ensure!(
        cfg!(debug_assertions),
        "{name}: bugs cannot be planted in a release build: build without --release"
    );
    plants::find(name)
        .with_context(|| format!("no bug is called {name:?}; `skerry-sim plant --list` has the names"))
}

/// Looks for one of them, or for all; status 1 where one is not found.
pub(super) fn run(name: Option<&str>, budget: Option<u64>, jobs: Jobs) -> anyhow::Result<ExitCode> {
    let wanted: Vec<&Planted> = match name {
        None => PLANTS
            .iter()
            .map(|plant| find(plant.name))
            .collect::<anyhow::Result<_>>()?,
        Some(name) => vec![find(name)?],
    };
    say!("{:<36} {:>6}  {:<32} seconds", "bug", "seeds", "caught by");
    let mut hunter = Hunter {
        jobs: jobs.count(),
        controls: BTreeMap::new(),
    };
    let (mut missed, mut needed) = (0, Vec::new());
    for plant in wanted {
        let began = files::now();
        let budget = budget.unwrap_or(plant.budget);
        let hunt = hunter.hunt(plant, budget)?;
        let (seeds, words) = match &hunt.found {
            Some((seeds, check)) => {
                needed.push(*seeds);
                (seeds.to_string(), check.clone())
            }
            None => {
                missed += 1;
                ("-".to_owned(), format!("NOT FOUND in {budget} seeds"))
            }
        };
        let seconds = began.elapsed().as_secs_f64();
        say!("{:<36} {seeds:>6}  {words:<32} {seconds:.0}", plant.name);
        hunt.tell_the_rest();
    }
    needed.sort_unstable();
    let median = needed.get(needed.len() / 2).copied().unwrap_or(0);
    say!(
        "{} found, {missed} missed; median {median} seeds; {} seeds without a bug were clean",
        needed.len(),
        hunter.controls.values().filter(|is_clean| **is_clean).count()
    );
    Ok(super::commands::status(missed == 0))
}

/// A seed of a scenario, or of so many nodes.
type Place = (Option<&'static str>, Option<u32>, u64);

struct Hunter {
    jobs: usize,
    /// Seeds that were run without a bug: whether they keep every promise. Many bugs are found by the same seeds.
    controls: BTreeMap<Place, bool>,
}

/// What the search for one bug came to.
#[derive(Default)]
struct Hunt {
    /// How many seeds it took, and the check that saw it.
    found: Option<(u64, String)>,
    /// Checks that saw something, and are not what the bug must be seen by; in which seeds.
    others: BTreeMap<String, BTreeSet<u64>>,
    /// Seeds that break a promise without the bug too, and prove nothing.
    unclean: BTreeSet<u64>,
}

impl Hunt {
    fn tell_the_rest(&self) {
        let named = |seeds: &BTreeSet<u64>| {
            let seeds: Vec<_> = seeds.iter().map(u64::to_string).collect();
            seeds.join(", ")
        };
        for (check, seeds) in &self.others {
            say!(
                "    seen by {check}, which is not what it is for (seed {})",
                named(seeds)
            );
        }
        if !self.unclean.is_empty() {
            say!(
                "    these seeds break a promise without it, and prove nothing: {}",
                named(&self.unclean)
            );
        }
    }
}

impl Hunter {
    /// Tries seeds in their order until one shows the bug to a check that is there for it, and is clean without it.
    fn hunt(&mut self, plant: &'static Planted, budget: u64) -> anyhow::Result<Hunt> {
        let mut hunt = Hunt::default();
        // Seed 0 is the scenario's own.
        let first = u64::from(plant.scenario.is_none());
        let mut from = first;
        while hunt.found.is_none() && from < first + budget {
            let mut seen: BTreeMap<u64, String> = BTreeMap::new();
            let own = match plant.scenario {
                Some(_) => Some(one::scenario(&args(plant, 0, true))?.seed),
                None => None,
            };
            let mut next = from;
            let all = (from..first + budget).map(|seed| {
                next = seed + 1;
                args(plant, seed, true)
            });
            pool::run_all(all, self.jobs, |result| {
                let seed = if own == Some(result.seed) {
                    first
                } else {
                    result.seed
                };
                match caught(plant, &result) {
                    Some(check) => {
                        seen.insert(seed, check);
                    }
                    None => hunt.miss(seed, &result),
                }
                seen.is_empty()
            })?;
            from = next;
            // Of seeds that ran at the same time the smallest counts.
            for (seed, check) in seen {
                if self.is_clean(plant, seed)? {
                    hunt.found = Some((seed + 1 - first, check));
                    break;
                }
                hunt.unclean.insert(seed);
            }
        }
        Ok(hunt)
    }

    /// The same seed without the bug keeps every promise: it is the bug that was seen.
    fn is_clean(&mut self, plant: &'static Planted, seed: u64) -> anyhow::Result<bool> {
        let place = (plant.scenario, plant.nodes, seed);
        if let Some(is_clean) = self.controls.get(&place) {
            return Ok(*is_clean);
        }
        let result = pool::run_one(&args(plant, seed, false), &Surroundings::default())?;
        let is_clean = result.violations.is_empty();
        self.controls.insert(place, is_clean);
        Ok(is_clean)
    }
}

impl Hunt {
    fn miss(&mut self, seed: u64, result: &Result) {
        if let Some(violation) = result.violations.first() {
            let seeds = self.others.entry(violation.check.clone()).or_default();
            seeds.insert(seed);
        }
    }
}

/// The check that saw it and is there for it, if there is one.
fn caught(plant: &Planted, result: &Result) -> Option<String> {
    let checks = result.violations.iter().map(|violation| &violation.check);
    checks
        .into_iter()
        .find(|check| plant.caught_by.contains(&check.as_str()))
        .cloned()
}

fn args(plant: &'static Planted, seed: u64, with: bool) -> OneArgs {
    OneArgs {
        seed,
        scenario: plant.scenario.map(str::to_owned),
        // What else it breaks first does not end the search.
        until: match with {
            true => plant.caught_by.iter().map(|check| (*check).to_owned()).collect(),
            false => Vec::new(),
        },
        choice: Choice {
            plant: with.then(|| plant.name.to_owned()),
            nodes: plant.nodes.map(Nodes).filter(|_| plant.scenario.is_none()),
            ..Choice::default()
        },
        ..OneArgs::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::one::Broken;
    use super::*;

    fn seen_by(checks: &[&str]) -> Result {
        let broken = |check: &&str| Broken {
            at: 0,
            check: (*check).to_owned(),
            message: String::new(),
        };
        Result {
            violations: checks.iter().map(broken).collect(),
            ..Result::default()
        }
    }

    #[test]
    fn a_bug_is_found_by_a_check_that_is_there_for_it() {
        let plant = plants::find("ack-before-fsync");
        let plant = plant.expect("it is the first of the requirement");
        let wanted = Some("acknowledged-before-durable".to_owned());
        assert_eq!(caught(plant, &seen_by(&[])), None);
        assert_eq!(caught(plant, &seen_by(&["panic", "runs-for-ever"])), None);
        assert_eq!(caught(plant, &seen_by(&["acknowledged-before-durable"])), wanted);
        // What was seen first does not matter.
        assert_eq!(
            caught(plant, &seen_by(&["panic", "acknowledged-before-durable"])),
            wanted
        );
    }

    #[test]
    fn what_others_see_is_remembered_and_no_find() {
        let mut hunt = Hunt::default();
        hunt.miss(3, &seen_by(&["panic", "stuck"]));
        hunt.miss(4, &seen_by(&["panic"]));
        hunt.miss(5, &seen_by(&[]));
        assert_eq!(hunt.found, None);
        assert_eq!(
            hunt.others,
            BTreeMap::from([("panic".to_owned(), BTreeSet::from([3, 4]))])
        );
    }
}
