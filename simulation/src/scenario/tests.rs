use super::*;

#[test]
fn a_seed_draws_one_scenario_and_every_kind_comes_up() {
    assert_eq!(Scenario::draw(7), Scenario::draw(7));
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        seen.extend(Scenario::draw(seed).faults.iter().map(Timed::kind));
    }
    let wanted = KINDS.iter().filter(|kind| kind.most_alone > 0).count();
    assert_eq!(seen.len(), wanted, "{seen:?}");
}

#[test]
fn a_kind_that_is_taken_out_leaves_the_others_where_they_were() {
    for seed in 1..50 {
        let all = Scenario::draw_cluster(seed, 3);
        let rest = all.with_faults(|kind| kind != "isolate");
        let others = |scenario: &Scenario| -> Vec<Timed> {
            let faults = scenario.faults.iter().filter(|timed| timed.kind() != "isolate");
            faults.cloned().collect()
        };
        assert_eq!(others(&all), rest.faults);
    }
}

#[test]
fn without_power_cuts_nothing_cuts_the_power() {
    for seed in 1..50 {
        let none: Kinds = "power".parse().unwrap();
        let calm = Scenario::draw(seed).with_faults(|kind| !none.have(kind));
        assert!(!calm.to_text().contains("\"power\": true"), "{}", calm.to_text());
        assert!(!calm.ends_with_power_cut);
    }
}

#[test]
fn a_scenario_is_read_as_it_was_written() {
    let scenario = Scenario::draw(3);
    let text = scenario.to_text();
    assert!(text.contains("      {\"host\": \"client-"), "{text}");
    assert_eq!(serde_json::from_str::<Scenario>(&text).unwrap(), scenario);
    let kept = scenario.keeping(&[0]);
    assert_eq!(kept.faults, scenario.faults[..1]);
}

#[test]
fn a_lull_is_the_end_of_each_round() {
    let lulls = Lulls {
        every_ms: 1_000,
        for_ms: 400,
    };
    let left: Vec<_> = [0, 599, 600, 999, 1_000, 1_750]
        .into_iter()
        .map(|now_ms| lulls.left_ms(now_ms))
        .collect();
    assert_eq!(left, [0, 0, 400, 1, 0, 250]);
    let with = (1..=300).filter(|seed| Scenario::draw(*seed).lulls.is_some());
    assert!((160..240).contains(&with.count()));
}
