//! What leaders and followers decide, as transcripts.

use expect_test::expect;
use skerry_replica::{Follower, FollowerStart};
use skerry_types::{BrokerId, LeaderEpoch, Offset};

mod script;

use script::{World, check};

#[test]
fn alone_the_high_watermark_follows_what_is_durable() {
    check(
        "isr=1",
        "write 5; sync; write 9",
        expect![[r#"
        write 5: hw=0
        sync: hw=5
        write 9: hw=5
    "#]],
    );
}

#[test]
fn it_knows_who_confirms_and_who_could_take_over() {
    check(
        "isr=1,2",
        "alone; 2 follows 0/0; alone; 2 gone; alone; isr 1; alone; min 2; alone; min 1; 3 follows 0/0; propose; alone",
        expect![[r#"
            alone: not followed, others could lead; hw=0
            2 follows 0/0: may; hw=0
            alone: followed, others could lead; hw=0
            2 gone: hw=0
            alone: not followed, others could lead; hw=0
            isr 1: hw=0
            alone: followed, nobody else could lead; hw=0
            min 2: hw=0
            alone: followed, others could lead; hw=0
            min 1: hw=0
            3 follows 0/0: may; hw=0
            propose: asks for 1@10,3@30 at 1; hw=0
            alone: followed, others could lead; hw=0
        "#]],
    );
}

#[test]
fn a_leader_that_is_moved_away_may_be_replaced_by_what_it_asks_for() {
    check(
        "isr=1,2",
        "2 follows 0/0; 3 follows 0/0; propose; stands; accepted; isr 1,2,3; stands; \
         removing 1; stands; 4 follows 0/0; propose; stands; unknown; stands; tick 60; propose; accepted; stands; \
         isr 1,2,3,4; stands",
        expect![[r#"
            2 follows 0/0: may; hw=0
            3 follows 0/0: may; hw=0
            propose: asks for 1@10,2@20,3@30 at 0; hw=0
            stands: as far as its session goes; hw=0
            accepted: hw=0
            isr 1,2,3: hw=0
            stands: as far as its session goes; hw=0
            removing 1: hw=0
            stands: as far as its session goes; hw=0
            4 follows 0/0: may; hw=0
            propose: asks for 1@10,2@20,3@30,4@40 at 2; hw=0
            stands: not for sure; hw=0
            unknown: hw=0
            stands: not for sure; hw=0
            tick 60: hw=0
            propose: asks for 1@10,2@20,3@30,4@40 at 2; hw=0
            accepted: hw=0
            stands: not for sure; hw=0
            isr 1,2,3,4: hw=0
            stands: as far as its session goes; hw=0
        "#]],
    );
}

#[test]
fn a_leader_lets_those_go_who_know_that_they_do_not_lead() {
    check(
        "isr=1,2,3,4",
        "4 follows 0/0; removing 2,3; propose; 2 follows 0/0; propose; 3 follows 0/0; propose; accepted; isr 1,4; propose; \
         isr 1,2,4; removing 2 given-up; propose; unknown; removing 1; propose; stands",
        expect![[r#"
            4 follows 0/0: may; hw=0
            removing 2,3: hw=0
            propose: nothing; hw=0
            2 follows 0/0: may; hw=0
            propose: nothing; hw=0
            3 follows 0/0: may; hw=0
            propose: asks for 1@10,2@20,3@30,4@40 at 1; hw=0
            accepted: hw=0
            isr 1,4: hw=0
            propose: asks for 1@10,2@20,3@30,4@40 at 2; hw=0
            isr 1,2,4: hw=0
            removing 2 given-up: hw=0
            propose: asks for 1@10,2@20,3@30,4@40 at 4; hw=0
            unknown: hw=0
            removing 1: hw=0
            propose: asks for 1@10,2@20,3@30,4@40 at 5; hw=0
            stands: not for sure; hw=0
        "#]],
    );
    check(
        "isr=1,2,3,4",
        "3 follows 0/0; 4 follows 0/0; removing 2; tick 749; propose; tick 1; propose",
        expect![[r#"
            3 follows 0/0: may; hw=0
            4 follows 0/0: may; hw=0
            removing 2: hw=0
            tick 749: hw=0
            propose: nothing; hw=0
            tick 1: hw=0
            propose: asks for 1@10,3@30,4@40 at 1; hw=0
        "#]],
    );
}

#[test]
fn who_has_not_followed_in_this_epoch_stays_as_long_as_it_may_take_itself_for_the_leader() {
    check(
        "isr=1,2,3",
        "3 follows 0/0; 3 gone; tick 500; propose; accepted; isr 1,2; tick 249; propose; tick 1; propose",
        expect![[r#"
            3 follows 0/0: may; hw=0
            3 gone: hw=0
            tick 500: hw=0
            propose: asks for 1@10,2@20 at 0; hw=0
            accepted: hw=0
            isr 1,2: hw=0
            tick 249: hw=0
            propose: nothing; hw=0
            tick 1: hw=0
            propose: asks for 1@10 at 1; hw=0
        "#]],
    );
}

#[test]
fn together_it_follows_the_slowest_in_sync() {
    check(
        "isr=1,2,3",
        "write 5; sync; 2 follows 5/4 last=5; 3 follows 3/2 last=5; isr 1,2; 9 follows 9/9; 4 9/9",
        expect![[r#"
            write 5: hw=0
            sync: hw=0
            2 follows 5/4 last=5: may; hw=0
            3 follows 3/2 last=5: may; hw=2
            isr 1,2: hw=4
            9 follows 9/9: it is no replica; hw=4
            4 9/9: hw=4
        "#]],
    );
}

#[test]
fn with_kafka_s_rule_what_is_written_counts() {
    check(
        "isr=1,2 written",
        "write 5; 2 follows 0/0; 2 3/0; 2 5/1",
        expect![[r#"
            write 5: hw=0
            2 follows 0/0: may; hw=0
            2 3/0: hw=3
            2 5/1: hw=5
        "#]],
    );
}

#[test]
fn below_min_insync_replicas_nothing_becomes_visible() {
    check(
        "isr=1,2 min=2",
        "write 5; sync; 2 follows 2/2 last=5; isr 1; 2 5/5; isr 1,2; min 3; write 6; sync; 2 6/6; min 1",
        expect![[r#"
            write 5: hw=0
            sync: hw=0
            2 follows 2/2 last=5: may; hw=2
            isr 1: hw=2
            2 5/5: hw=2
            isr 1,2: hw=5
            min 3: hw=5
            write 6: hw=5
            sync: hw=5
            2 6/6: hw=5
            min 1: hw=6
        "#]],
    );
}

#[test]
fn a_new_leader_tells_no_end_before_it_knows_what_was_acknowledged() {
    check(
        "isr=1,2 end=8 hw=3",
        "2 follows 6/6 last=3; 2 8/7; 2 8/8",
        expect![[r#"
            2 follows 6/6 last=3: may; hw=6 (not the latest)
            2 8/7: hw=7 (not the latest)
            2 8/8: hw=8
        "#]],
    );
}

#[test]
fn reports_of_other_epochs_registrations_and_logs_do_not_count() {
    check(
        "isr=1,2",
        "write 5; sync; 2 5/5; 2 follows 5/5 in=4; 2 follows 5/5 in=6; 2 follows 0/0; 2 5/5 in=4; 2 7/7; 2 4/4; \
         2 follows 2/2 last=5 be=21; 2 5/5 be=20; 2 3/3 be=21; 1 5/5; 9 follows 0/0",
        expect![[r#"
            write 5: hw=0
            sync: hw=0
            2 5/5: hw=0
            2 follows 5/5 in=4: the leader epoch is 5; hw=0
            2 follows 5/5 in=6: the leader epoch is 5; hw=0
            2 follows 0/0: may; hw=0
            2 5/5 in=4: hw=0
            2 7/7: hw=0
            2 4/4: hw=4
            2 follows 2/2 last=5 be=21: may; hw=4
            2 5/5 be=20: hw=4
            2 3/3 be=21: hw=4
            1 5/5: hw=4
            9 follows 0/0: it is no replica; hw=4
        "#]],
    );
}

#[test]
fn logs_that_part_are_told_where() {
    check(
        "isr=1 end=8 hw=8",
        "2 follows 9/9 last=3; 2 follows 6/6 last=2; 2 follows 3/3 last=1; 2 follows 4/4 last=1; 2 follows 2/2 last=0; \
         2 follows 3/3 last=6; 2 follows 9/9; write 12; start 6; 2 follows 5/5 last=3; 2 follows 6/6 last=3; \
         2 follows 6/6; 2 follows 7/7 last=3",
        expect![[r#"
            2 follows 9/9 last=3: the logs part: epoch 3 ends at 8; hw=8
            2 follows 6/6 last=2: the logs part: epoch 1 ends at 4; hw=8
            2 follows 3/3 last=1: may; hw=8
            2 follows 4/4 last=1: may; hw=8
            2 follows 2/2 last=0: the logs part: epoch 0 ends at 0; hw=8
            2 follows 3/3 last=6: the leader epoch is 5; hw=8
            2 follows 9/9: the log is from 0 to 8; hw=8
            write 12: hw=8
            start 6: hw=8
            2 follows 5/5 last=3: the log is from 6 to 12; hw=8
            2 follows 6/6 last=3: the log is from 6 to 12; hw=8
            2 follows 6/6: may; hw=8
            2 follows 7/7 last=3: may; hw=8
        "#]],
    );
}

#[test]
fn who_has_everything_joins() {
    check(
        "isr=1 end=8 hw=3",
        "deadline; 2 follows 7/7 last=3; propose; 2 8/7; propose; 2 8/8; deadline; propose; propose; write 9; sync; \
         deadline; accepted; isr 1,2; 2 9/9",
        expect![[r#"
            deadline: none; hw=8
            2 follows 7/7 last=3: may; hw=8
            propose: nothing; hw=8
            2 8/7: hw=8
            propose: nothing; hw=8
            2 8/8: hw=8
            deadline: 0.000s; hw=8
            propose: asks for 1@10,2@20 at 0; hw=8
            propose: nothing; hw=8
            write 9: hw=8
            sync: hw=8
            deadline: none; hw=8
            accepted: hw=8
            isr 1,2: hw=8
            2 9/9: hw=9
        "#]],
    );
}

/// It would show what was deleted, were it elected.
#[test]
fn who_has_what_was_deleted_does_not_join() {
    check(
        "isr=1 end=8 hw=8",
        "start 5; 2 follows 8/8 last=5; deadline; propose; 2 8/8 from=5; deadline; propose",
        expect![[r#"
            start 5: hw=8
            2 follows 8/8 last=5: may; hw=8
            deadline: none; hw=8
            propose: nothing; hw=8
            2 8/8 from=5: hw=8
            deadline: 0.000s; hw=8
            propose: asks for 1@10,2@20 at 0; hw=8
        "#]],
    );
}

#[test]
fn only_its_current_registration_joins() {
    check(
        "isr=1",
        "2 follows 0/0 be=19; deadline; propose; deadline; tick 60; propose; deadline; 2 follows 0/0; propose; accepted; \
         isr 1,2; fence 3; 3 follows 0/0 be=30; propose; register 3 30; tick 60; propose",
        expect![[r#"
            2 follows 0/0 be=19: may; hw=0
            deadline: 0.000s; hw=0
            propose: nothing; hw=0
            deadline: 0.050s; hw=0
            tick 60: hw=0
            propose: nothing; hw=0
            deadline: 0.160s; hw=0
            2 follows 0/0: may; hw=0
            propose: asks for 1@10,2@20 at 0; hw=0
            accepted: hw=0
            isr 1,2: hw=0
            fence 3: hw=0
            3 follows 0/0 be=30: may; hw=0
            propose: nothing; hw=0
            register 3 30: hw=0
            tick 60: hw=0
            propose: asks for 1@10,2@20,3@30 at 1; hw=0
        "#]],
    );
}

#[test]
fn a_proposal_that_may_be_committed_counts() {
    check(
        "isr=1",
        "2 follows 0/0; propose; unknown; deadline; write 1; sync; 2 gone; propose; tick 60; propose; unknown; deadline; \
         tick 200; propose; accepted; propose; isr 1",
        expect![[r#"
            2 follows 0/0: may; hw=0
            propose: asks for 1@10,2@20 at 0; hw=0
            unknown: hw=0
            deadline: 0.050s; hw=0
            write 1: hw=0
            sync: hw=0
            2 gone: hw=0
            propose: nothing; hw=0
            tick 60: hw=0
            propose: asks for 1@10 at 0; hw=0
            unknown: hw=0
            deadline: 0.160s; hw=0
            tick 200: hw=0
            propose: asks for 1@10 at 0; hw=0
            accepted: hw=0
            propose: nothing; hw=0
            isr 1: hw=1
        "#]],
    );
}

#[test]
fn a_refused_member_is_left_out_for_a_while() {
    check(
        "isr=1",
        "2 follows 0/0; 3 follows 0/0; propose; ineligible 2; propose; accepted; isr 1,3; tick 49; propose; tick 1; \
         propose; ineligible 1; propose; deadline",
        expect![[r#"
            2 follows 0/0: may; hw=0
            3 follows 0/0: may; hw=0
            propose: asks for 1@10,2@20,3@30 at 0; hw=0
            ineligible 2: hw=0
            propose: asks for 1@10,3@30 at 0; hw=0
            accepted: hw=0
            isr 1,3: hw=0
            tick 49: hw=0
            propose: nothing; hw=0
            tick 1: hw=0
            propose: asks for 1@10,2@20,3@30 at 1; hw=0
            ineligible 1: hw=0
            propose: nothing; hw=0
            deadline: 0.100s; hw=0
        "#]],
    );
    check(
        "isr=1",
        "2 follows 0/0; propose; outdated; propose; isr 1,3; propose",
        expect![[r#"
            2 follows 0/0: may; hw=0
            propose: asks for 1@10,2@20 at 0; hw=0
            outdated: hw=0
            propose: nothing; hw=0
            isr 1,3: hw=0
            propose: asks for 1@10,2@20,3@30 at 1; hw=0
        "#]],
    );
    check(
        "isr=1,2",
        "2 follows 0/0; 3 follows 0/0; propose; deposed; write 1; sync; 2 1/1; 3 1/1; tick 9999; propose; deadline",
        expect![[r#"
            2 follows 0/0: may; hw=0
            3 follows 0/0: may; hw=0
            propose: asks for 1@10,2@20,3@30 at 0; hw=0
            deposed: hw=0
            write 1: hw=0
            sync: hw=0
            2 1/1: hw=0
            3 1/1: hw=0
            tick 9999: hw=0
            propose: nothing; hw=0
            deadline: none; hw=0
        "#]],
    );
}

#[test]
fn a_silent_member_leaves_when_that_is_committed() {
    check(
        "isr=1,2",
        "deadline; 2 follows 0/0; deadline; 2 gone; write 1; sync; deadline; tick 499; propose; tick 1; propose; isr 1; \
         2 follows 0/0; propose; 2 1/1; propose",
        expect![[r#"
            deadline: 0.750s; hw=0
            2 follows 0/0: may; hw=0
            deadline: none; hw=0
            2 gone: hw=0
            write 1: hw=0
            sync: hw=0
            deadline: 0.500s; hw=0
            tick 499: hw=0
            propose: nothing; hw=0
            tick 1: hw=0
            propose: asks for 1@10 at 0; hw=0
            isr 1: hw=1
            2 follows 0/0: may; hw=1
            propose: nothing; hw=1
            2 1/1: hw=1
            propose: asks for 1@10,2@20 at 1; hw=1
        "#]],
    );
}

#[test]
fn a_view_that_comes_late_changes_nothing() {
    check(
        "isr=1",
        "isr 1,2; older 1; write 1; sync; 2 follows 1/1 last=5; 2 gone; isr 1; propose",
        expect![[r#"
            isr 1,2: hw=0
            older 1: hw=0
            write 1: hw=0
            sync: hw=0
            2 follows 1/1 last=5: may; hw=1
            2 gone: hw=1
            isr 1: hw=1
            propose: nothing; hw=1
        "#]],
    );
}

#[test]
fn a_member_that_keeps_lagging_leaves() {
    // It is always behind, and never by more than 200 ms: it stays.
    check(
        "isr=1,2",
        "2 follows 0/0; tick 5000; write 1; deadline; tick 200; write 2; 2 1/1; tick 200; write 3; 2 2/2; tick 200; \
         write 4; 2 3/3; tick 600; 2 3/3; propose; deadline; tick 400; propose",
        expect![[r#"
            2 follows 0/0: may; hw=0
            tick 5000: hw=0
            write 1: hw=0
            deadline: 6.000s; hw=0
            tick 200: hw=0
            write 2: hw=0
            2 1/1: hw=0
            tick 200: hw=0
            write 3: hw=0
            2 2/2: hw=0
            tick 200: hw=0
            write 4: hw=0
            2 3/3: hw=0
            tick 600: hw=0
            2 3/3: hw=0
            propose: nothing; hw=0
            deadline: 6.400s; hw=0
            tick 400: hw=0
            propose: asks for 1@10 at 0; hw=0
        "#]],
    );
    // Its disk hangs: what it has written is not enough.
    check(
        "isr=1,2",
        "2 follows 0/0; write 1; 2 1/0; tick 1000; propose",
        expect![[r#"
            2 follows 0/0: may; hw=0
            write 1: hw=0
            2 1/0: hw=0
            tick 1000: hw=0
            propose: asks for 1@10 at 0; hw=0
        "#]],
    );
    check(
        "isr=1,2 written",
        "2 follows 0/0; write 1; 2 1/0; tick 1000; propose",
        expect![[r#"
            2 follows 0/0: may; hw=0
            write 1: hw=0
            2 1/0: hw=1
            tick 1000: hw=1
            propose: nothing; hw=1
        "#]],
    );
}

#[test]
fn deleted_records_are_gone_when_every_live_replica_has_dropped_them() {
    check(
        "isr=1,2 end=9 hw=9",
        "start 5; low; 2 follows 9/9 last=3 from=2; 3 follows 9/9 last=3 from=7; low; 2 9/9 from=5; low",
        expect![[r#"
            start 5: hw=9
            low: 0; hw=9
            2 follows 9/9 last=3 from=2: may; hw=9
            3 follows 9/9 last=3 from=7: may; hw=9
            low: 2; hw=9
            2 9/9 from=5: hw=9
            low: 5; hw=9
        "#]],
    );
}

#[test]
#[should_panic(expected = "not in its in-sync set")]
fn nobody_leads_without_being_in_sync() {
    World::new("isr=2,3");
}

fn follower(log_end: i64, high_watermark: i64) -> Follower {
    Follower::new(FollowerStart {
        leader: BrokerId(1),
        epoch: LeaderEpoch(5),
        log_start: Offset(0),
        log_end: Offset(log_end),
        high_watermark: Offset(high_watermark),
    })
}

#[test]
fn a_follower_shows_what_it_has_and_never_less() {
    let restarted = follower(6, 9);
    assert_eq!(
        restarted.high_watermark(),
        Offset(6),
        "a checkpoint may be ahead of what a crash left"
    );
    let mut rules = follower(6, 4);
    let mut told = |leader: i64, leader_start: i64, start: i64, end: i64| {
        let told = rules.on_leader(Offset(leader), Offset(leader_start), Offset(start), Offset(end));
        (
            rules.high_watermark().get(),
            told.high_watermark_moved,
            told.raise_log_start.map(Offset::get),
        )
    };
    assert_eq!(told(2, 0, 0, 6), (4, false, None), "a new leader may know less");
    assert_eq!(
        told(9, 0, 0, 7),
        (7, true, None),
        "what is not here is not visible here"
    );
    assert_eq!(
        told(9, 5, 0, 9),
        (9, true, Some(5)),
        "what the leader deleted goes"
    );
    assert_eq!(told(9, 5, 5, 9), (9, false, None));
    assert_eq!(rules.on_out_of_range(Offset(20)), Offset(20));
    assert_eq!(rules.high_watermark(), Offset(20));
    assert!(
        rules.accepts(LeaderEpoch(5)) && !rules.accepts(LeaderEpoch(4)) && !rules.accepts(LeaderEpoch(6))
    );
}

#[test]
fn a_follower_cuts_where_the_logs_part() {
    // This log: epoch 1 up to 3, epoch 2 up to 6, epoch 4 up to 9.
    let own = |asked: LeaderEpoch| match asked.get() {
        ..1 => (asked, Offset(0)),
        1 => (LeaderEpoch(1), Offset(3)),
        2..4 => (LeaderEpoch(2), Offset(6)),
        _ => (LeaderEpoch(4), Offset(9)),
    };
    let cut = |epoch: i32, end: i64| {
        follower(9, 2)
            .on_diverging((LeaderEpoch(epoch), Offset(end)), own, Offset(9))
            .get()
    };
    assert_eq!(cut(4, 8), 8, "the leader's epoch ends earlier");
    assert_eq!(
        cut(2, 8),
        6,
        "this log's epoch ends earlier: what follows is of a later one"
    );
    assert_eq!(
        cut(3, 7),
        6,
        "the leader's epoch is unknown here: the next question is about 2 (KIP-279)"
    );
    assert_eq!(cut(1, 2), 2);
    assert_eq!(cut(0, 0), 0, "nothing is shared");
}
