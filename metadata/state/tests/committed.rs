//! Whoever may lead has every committed record, whatever happens.

mod model;

#[test]
fn whoever_may_lead_has_every_committed_record() {
    let cases = if cfg!(debug_assertions) { 1_000 } else { 5_000 };
    assert_eq!(model::run(cases, true), Ok(()));
}
