//! Who survives for good: a core of the cluster that must go on by itself, as small as it may be.
//!
//! TigerBeetle's simulator checks liveness so: faults end only within a core, and stay for ever outside of it. Where everything
//! is healed, what waits for somebody who is gone goes unnoticed.

use skerry_env::Rng;

/// A partition as the newest metadata has it; nodes by their places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) name: String,
    /// Without those that a reassignment adds.
    pub(crate) replicas: Vec<usize>,
    /// Who may be elected: in sync, or out of it with everything that was acknowledged.
    pub(crate) complete: Vec<usize>,
    /// `min.insync.replicas`.
    pub(crate) needed: usize,
}

/// Why nobody can ask `core` to go on by itself; `None`: it must.
pub(crate) fn what_is_beyond(core: &[usize], voters: &[usize], partitions: &[Placed]) -> Option<String> {
    let there = |places: &[usize]| places.iter().filter(|place| core.contains(place)).count();
    if there(voters) * 2 <= voters.len() {
        return Some(format!("{} of {} voters are there", there(voters), voters.len()));
    }
    partitions.iter().find_map(|partition| {
        let Placed {
            name,
            replicas,
            complete,
            needed,
        } = partition;
        if there(complete) == 0 {
            return Some(format!(
                "nobody is there who may lead {name}: only {complete:?} may"
            ));
        }
        let few = there(replicas) < *needed;
        few.then(|| {
            format!(
                "{} replicas of {name} are there, and {needed} must be in sync",
                there(replicas)
            )
        })
    })
}

/// A core of `nodes` nodes, not all of them, as `rng` draws it; `None`: whoever is left out is needed.
pub(crate) fn choose(nodes: usize, voters: &[usize], partitions: &[Placed], rng: &Rng) -> Option<Vec<usize>> {
    let sets = (0..(1_u32 << nodes) - 1).map(|set| (0..nodes).filter(|node| set & 1 << node != 0).collect());
    let mut possible: Vec<Vec<usize>> = sets
        .filter(|core: &Vec<usize>| what_is_beyond(core, voters, partitions).is_none())
        .collect();
    if possible.is_empty() {
        return None;
    }
    let chosen = usize::try_from(rng.below(possible.len() as u64)).unwrap_or(0);
    Some(possible.swap_remove(chosen))
}

/// The kinds of fault that are a [`Fate`], by the names that switch them.
pub(crate) const FATES: [&str; 5] = ["kill", "power-cut", "isolate", "pause", "disk-full"];

/// What happens for ever to a node outside of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Its process is gone; with its power, or killed.
    Dead { power: bool },
    /// It hears nobody, and nobody hears it.
    CutOff,
    /// It is heard, and hears nobody: the livelock of many protocols.
    Deaf,
    /// It hears, and is not heard.
    Mute,
    /// It stands still.
    Still,
    /// Its disk has no room.
    Full,
}

impl Fate {
    pub(crate) fn draw(rng: &Rng) -> Self {
        match rng.below(12) {
            0..2 => Self::Dead { power: false },
            2..4 => Self::Dead { power: true },
            4..6 => Self::CutOff,
            6..8 => Self::Deaf,
            8..9 => Self::Mute,
            9..10 => Self::Still,
            _ => Self::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(replicas: &[usize], complete: &[usize], needed: usize) -> Placed {
        Placed {
            name: "orders-0".to_owned(),
            replicas: replicas.to_vec(),
            complete: complete.to_vec(),
            needed,
        }
    }

    fn cores(nodes: usize, voters: &[usize], partitions: &[Placed]) -> Vec<Vec<usize>> {
        let mut found: Vec<_> = (0..400)
            .filter_map(|seed| choose(nodes, voters, partitions, &Rng::seeded(seed)))
            .collect();
        found.sort();
        found.dedup();
        found
    }

    #[test]
    fn a_core_has_a_majority_of_the_voters_and_leaves_somebody_out() {
        assert_eq!(cores(3, &[0, 1, 2], &[]), [vec![0, 1], vec![0, 2], vec![1, 2]]);
        // Who does not vote may be left out, or be in: two voters of three are needed.
        let of_five = cores(5, &[0, 1, 2], &[]);
        assert!(of_five.contains(&vec![0, 2]) && of_five.contains(&vec![1, 2, 4]));
        assert!(
            !of_five
                .iter()
                .any(|core| core.iter().filter(|node| **node < 3).count() < 2)
        );
        assert!(!of_five.iter().any(|core| core.len() == 5));
    }

    #[test]
    fn each_partition_has_a_complete_copy_there_and_enough_others() {
        let all = [0, 1, 2];
        // Only the second has everything.
        assert_eq!(cores(3, &all, &[placed(&all, &[1], 2)]), [vec![0, 1], vec![1, 2]]);
        // Two replicas, of which both are needed.
        assert_eq!(cores(3, &all, &[placed(&[0, 2], &[0, 2], 2)]), [vec![0, 2]]);
        // Only the dead have what was acknowledged: nobody may be left out.
        let two = [
            placed(&all, &[0], 2),
            placed(&all, &[1], 2),
            placed(&all, &[2], 2),
        ];
        assert_eq!(cores(3, &all, &two), Vec::<Vec<usize>>::new());
    }

    #[test]
    fn what_is_beyond_a_core_is_said() {
        let all = [0, 1, 2];
        let why = |core: &[usize], placed| what_is_beyond(core, &all, &[placed]).unwrap_or_default();
        assert_eq!(why(&[0, 1], placed(&all, &[1, 2], 2)), "");
        assert_eq!(why(&[0], placed(&all, &all, 1)), "1 of 3 voters are there");
        assert_eq!(
            why(&[0, 1], placed(&all, &[2], 2)),
            "nobody is there who may lead orders-0: only [2] may"
        );
        assert_eq!(
            why(&[0, 1], placed(&[1, 2], &[1, 2], 2)),
            "1 replicas of orders-0 are there, and 2 must be in sync"
        );
    }

    #[test]
    fn every_fate_is_drawn() {
        let mut fates: Vec<String> = (0..200)
            .map(|seed| format!("{:?}", Fate::draw(&Rng::seeded(seed))))
            .collect();
        fates.sort();
        fates.dedup();
        assert_eq!(fates.len(), 7, "{fates:?}");
    }
}
