//! A reassignment that does not wait for the replicas that it adds. The model must find it. (One planted bug for each process: one file for each.)

mod model;

#[test]
#[cfg_attr(not(debug_assertions), ignore = "bugs cannot be planted in a release build")]
fn it_is_found() {
    skerry_types::plant("reassignment-completes-early");
    let found = model::run(300, false).expect_err("the planted bug is found");
    assert!(found.contains("committed records"), "{found}");
}
