//! Longer histories: what a seed draws goes on, round after round.

use std::collections::BTreeSet;

use super::kinds::is_beyond;
use super::{Scenario, Timed, cluster, draw_faults};

impl Scenario {
    /// The same, with faults for at least so long. The first of them are those of the seed; then more come, of the same
    /// kinds (a swarm stays what it is) in other places, as often as in its first seconds. What goes beyond the contract
    /// happens in the first round alone: what a cluster has come back from is looked at for the rest.
    #[must_use]
    pub fn lasting(mut self, ms: u64) -> Self {
        let round_ms = self.faults_ms.max(1);
        let kinds: BTreeSet<_> = self.faults.iter().map(Timed::kind).collect();
        for round in 1..ms.div_ceil(round_ms) {
            // Streams have their number in bits 40 and up (`draw_faults`); seeds of people are small.
            let seed = self.seed ^ (round << 56);
            let faults = if self.nodes > 1 {
                cluster::draw_faults(seed, self.nodes, self.voters, round_ms)
            } else {
                draw_faults(seed, round_ms)
            };
            let more = faults
                .into_iter()
                .filter(|timed| kinds.contains(timed.kind()) && !is_beyond(timed.kind()));
            self.faults.extend(more.map(|timed| Timed {
                at_ms: timed.at_ms + round * round_ms,
                ..timed
            }));
        }
        self.faults.sort_by_key(|timed| timed.at_ms);
        self.faults_ms = self.faults_ms.max(ms);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_longer_history_begins_as_the_short_one_and_goes_on_as_it_began() {
        let mut later = 0;
        for seed in 1..40 {
            for short in [Scenario::draw(seed), Scenario::draw_cluster(seed, 3)] {
                assert_eq!(short.clone().lasting(1_000), short);
                let long = short.clone().lasting(60_000);
                assert!(long.faults_ms >= 60_000);
                let of_round = |timed: &&Timed| timed.at_ms < short.faults_ms;
                let first: Vec<_> = short.faults.iter().filter(of_round).collect();
                let begins: Vec<_> = long.faults.iter().filter(of_round).collect();
                assert!(
                    first.iter().all(|timed| begins.contains(timed)),
                    "{first:#?}\n{begins:#?}"
                );
                let kinds =
                    |scenario: &Scenario| scenario.faults.iter().map(Timed::kind).collect::<BTreeSet<_>>();
                assert_eq!(kinds(&long), kinds(&short), "seed {seed}");
                later += long.faults.iter().filter(|timed| timed.at_ms >= 30_000).count();
            }
        }
        assert!(later > 300, "{later}");
    }
}
