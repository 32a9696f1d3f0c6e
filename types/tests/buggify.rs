//! A process of its own: sites act in the whole of it.

use skerry_types::{buggify, count_goals, start_buggify, stop_buggify, uncounted};

const NAMES: [&str; 12] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];

/// How often each of them acts when it is asked a hundred times.
fn history() -> Vec<usize> {
    let acted = |name: &&'static str| (0..100).filter(|_| buggify(name, 4)).count();
    NAMES.iter().map(acted).collect()
}

#[test]
fn a_quarter_of_the_sites_act_a_quarter_of_the_time_as_the_seed_says() {
    assert_eq!(history(), [0; 12], "nobody has asked for it");
    count_goals();
    start_buggify(1);
    let first = history();
    start_buggify(1);
    assert_eq!(history(), first, "the same seed");
    let (mut active, mut acted) = (0, 0);
    for seed in 0..200 {
        start_buggify(seed);
        let history = history();
        active += history.iter().filter(|acted| **acted > 0).count();
        acted += history.iter().sum::<usize>();
    }
    let asked = 200 * NAMES.len();
    assert!((asked / 5..asked / 3).contains(&active), "{active} of {asked}");
    assert!((active * 22..active * 28).contains(&acted), "{acted} of {active}");
    // What is tried out on copies did not happen.
    assert_eq!(uncounted(history), [0; 12]);
    stop_buggify();
    assert_eq!(history(), [0; 12]);
}
