//! What a seed holds the cluster to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use skerry_env::Rng;

use super::Scenario;
use super::kinds::{KINDS, Rate, is_beyond};

/// What a seed holds the cluster to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Regime {
    /// No more goes wrong than a cluster must bear: any loss is a broken promise.
    #[default]
    Contract,
    /// More goes wrong: records may be lost, but not silently, and nothing else may be wrong.
    Beyond,
}

impl Regime {
    /// True for the one that is not written.
    #[must_use]
    pub fn is_contract(&self) -> bool {
        *self == Self::Contract
    }

    /// The regime of a seed: one of ten goes beyond the contract.
    pub(super) fn of(seed: u64) -> Self {
        if Rng::seeded(seed ^ 0xbe70_04d0).chance(1, 10) {
            Self::Beyond
        } else {
            Self::Contract
        }
    }
}

/// The first kinds beyond the contract: they lose records, and the rest what the quorum knows.
const WAYS_OF_RECORDS: usize = 3;

/// The one way in which a seed goes beyond the contract, where it does.
pub(super) fn kind_of(seed: u64) -> &'static str {
    let kinds: Vec<_> = KINDS.iter().filter(|kind| kind.rate == Rate::Beyond).collect();
    // Those of the quorum were thought of later: the other seeds keep what they had.
    let (older, newer) = kinds.split_at(WAYS_OF_RECORDS.min(kinds.len()));
    let (ways, stream) = if Rng::seeded(seed ^ 0xbe70_04d2).chance(2, 5) {
        (newer, 0xbe70_04d3)
    } else {
        (older, 0xbe70_04d1)
    };
    let drawn = Rng::seeded(seed ^ stream).below(ways.len().max(1) as u64);
    let drawn = usize::try_from(drawn).unwrap_or(0);
    ways.get(drawn).map_or("", |kind| kind.name)
}

impl fmt::Display for Regime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Contract => "contract",
            Self::Beyond => "beyond",
        })
    }
}

impl FromStr for Regime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "contract" => Ok(Self::Contract),
            "beyond" => Ok(Self::Beyond),
            _ => Err(format!("{text:?} is no regime: contract or beyond is expected")),
        }
    }
}

impl Scenario {
    /// The same under another regime: what goes beyond the contract happens, or does not.
    #[must_use]
    pub fn in_regime(mut self, regime: Regime) -> Self {
        self.regime = regime;
        if regime.is_contract() {
            self.faults.retain(|timed| !is_beyond(timed.kind()));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_seeds_of_several_nodes_goes_beyond_the_contract() {
        let count = (0..1_000)
            .filter(|seed| Scenario::draw_cluster(*seed, 3).regime == Regime::Beyond)
            .count();
        assert!((60..140).contains(&count), "{count}");
    }

    #[test]
    fn the_regime_moves_nothing_else() {
        for seed in 0..50 {
            let beyond = Scenario::draw_cluster_in(seed, 3, Some(Regime::Beyond));
            let contract = Scenario::draw_cluster_in(seed, 3, Some(Regime::Contract));
            let is_more = |scenario: &Scenario| scenario.faults.iter().any(|timed| is_beyond(timed.kind()));
            assert!(is_more(&beyond) && !is_more(&contract));
            assert_eq!(beyond.clone().in_regime(Regime::Contract), contract);
            let text = beyond.to_text();
            assert_eq!(serde_json::from_str::<Scenario>(&text).unwrap(), beyond, "{text}");
        }
    }
}
