//! Timers that run out and appends that fail, as transcripts (KAFKA.md 4.1).

mod support;

use expect_test::expect;
use support::check;

#[test]
fn who_does_not_join_again_is_dropped() {
    check(
        "
        join g v=3 session=60s rebalance=20s
        join g v=3 session=60s rebalance=30s
        join g v=3 session=60s rebalance=10s
        tick 6s
        sync g c-1 1 c-1=A c-2=B c-3=C
        # The longest rebalance timeout counts. The leader does not come: the longest-standing one who did leads.
        join g c-3 session=60s rebalance=10s protocols=range:u
        join g c-2 session=60s rebalance=30s
        tick 29s
        tick 1s
        heartbeat g c-1 1
        sync g c-2 2
        sync g c-3 2
        ",
        expect![[r#"
            > join g v=3 session=60s rebalance=20s
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3 session=60s rebalance=30s
            > join g v=3 session=60s rebalance=10s
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2 c-3]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
              #3 join ok gen=1 member=c-3 leader=c-1 protocol=range members=[]
            > sync g c-1 1 c-1=A c-2=B c-3=C
              append g gen=1 protocol=range leader=c-1 members=[c-1="A" c-2="B" c-3="C"]
              #4 sync ok assignment="A" type=consumer protocol=range
            # The longest rebalance timeout counts. The leader does not come: the longest-standing one who did leads.
            > join g c-3 session=60s rebalance=10s protocols=range:u
            > join g c-2 session=60s rebalance=30s
            > tick 29s
            > tick 1s
              at 36.000s
              #6 join ok gen=2 member=c-2 leader=c-2 protocol=range members=[c-2 c-3]
              #5 join ok gen=2 member=c-3 leader=c-2 protocol=range members=[]
            > heartbeat g c-1 1
              #7 heartbeat UnknownMemberId
            > sync g c-2 2
              append g gen=2 protocol=range leader=c-2 members=[c-2="" c-3=""]
              #8 sync ok assignment="" type=consumer protocol=range
            > sync g c-3 2
              #9 sync ok assignment="" type=consumer protocol=range
        "#]],
    );
}

#[test]
fn nobody_joins_again() {
    check(
        "
        join g v=3 session=30m rebalance=20s
        tick 3s
        sync g c-1 1 c-1=A
        join g v=3 session=30m rebalance=20s
        tick 300s
        ",
        expect![[r#"
            > join g v=3 session=30m rebalance=20s
              append g gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 3.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A"]
              #2 sync ok assignment="A" type=consumer protocol=range
            > join g v=3 session=30m rebalance=20s
            > tick 300s
              at 23.000s
              #3 join ok gen=2 member=c-2 leader=c-2 protocol=range members=[c-2]
              at 43.000s
              append g gen=3 protocol=null leader=null members=[]
        "#]],
    );
}

#[test]
fn who_does_not_sync_is_dropped() {
    check(
        "
        join g v=3 session=60s rebalance=20s
        join g v=3 session=60s rebalance=20s
        tick 6s
        sync g c-2 1
        tick 20s
        heartbeat g c-1 1
        join g c-2 session=60s rebalance=20s
        sync g c-2 2 c-2=B
        # The timer ends with the last sync.
        tick 59s
        # A leader alone syncs, the follower does not: the group was stable.
        join g v=3 session=60s rebalance=20s
        join g c-2 session=60s rebalance=20s
        sync g c-2 3 c-2=B
        tick 20s
        heartbeat g c-2 3
        ",
        expect![[r#"
            > join g v=3 session=60s rebalance=20s
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3 session=60s rebalance=20s
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
            > sync g c-2 1
            > tick 20s
              at 26.000s
              #3 sync RebalanceInProgress
            > heartbeat g c-1 1
              #4 heartbeat UnknownMemberId
            > join g c-2 session=60s rebalance=20s
              #5 join ok gen=2 member=c-2 leader=c-2 protocol=range members=[c-2]
            > sync g c-2 2 c-2=B
              append g gen=2 protocol=range leader=c-2 members=[c-2="B"]
              #6 sync ok assignment="B" type=consumer protocol=range
            # The timer ends with the last sync.
            > tick 59s
            # A leader alone syncs, the follower does not: the group was stable.
            > join g v=3 session=60s rebalance=20s
            > join g c-2 session=60s rebalance=20s
              #8 join ok gen=3 member=c-2 leader=c-2 protocol=range members=[c-2 c-4]
              #7 join ok gen=3 member=c-4 leader=c-2 protocol=range members=[]
            > sync g c-2 3 c-2=B
              append g gen=3 protocol=range leader=c-2 members=[c-2="B" c-4=""]
              #9 sync ok assignment="B" type=consumer protocol=range
            > tick 20s
            > heartbeat g c-2 3
              #10 heartbeat RebalanceInProgress
        "#]],
    );
}

#[test]
fn a_rebalance_timeout_of_zero_leaves_no_time_to_sync() {
    check(
        "
        join g v=3 rebalance=0s
        tick 3s
        sync g c-1 1
        describe g
        # Version 0 has no rebalance timeout: the session timeout counts.
        join g v=0 rebalance=0s session=10s
        tick 3s
        sync g c-3 3 c-3=A
        ",
        expect![[r#"
            > join g v=3 rebalance=0s
              append g gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 3.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
              append g gen=2 protocol=null leader=null members=[]
            > sync g c-1 1
              #2 sync UnknownMemberId
            > describe g
              #3 describe g ok Empty type="consumer" protocol="" members=[]
            # Version 0 has no rebalance timeout: the session timeout counts.
            > join g v=0 rebalance=0s session=10s
            > tick 3s
              at 6.000s
              #4 join ok gen=3 member=c-2 leader=c-2 protocol=range members=[c-2]
            > sync g c-3 3 c-3=A
              #5 sync UnknownMemberId
        "#]],
    );
}

#[test]
fn sessions() {
    check(
        "
        join g v=3
        join g v=3
        tick 6s
        sync g c-1 1 c-1=A c-2=B
        sync g c-2 1
        tick 9s
        heartbeat g c-1 1
        commit g by=c-2 gen=1 t-0=1
        tick 9s
        heartbeat g c-1 1
        tick 1s
        heartbeat g c-2 1
        heartbeat g c-1 1
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
            > sync g c-1 1 c-1=A c-2=B
              append g gen=1 protocol=range leader=c-1 members=[c-1="A" c-2="B"]
              #3 sync ok assignment="A" type=consumer protocol=range
            > sync g c-2 1
              #4 sync ok assignment="B" type=consumer protocol=range
            > tick 9s
            > heartbeat g c-1 1
              #5 heartbeat ok
            > commit g by=c-2 gen=1 t-0=1
              append g/t-0=1/-1: at 1015000
              #6 commit t-0=ok
            > tick 9s
            > heartbeat g c-1 1
              #7 heartbeat ok
            > tick 1s
            > heartbeat g c-2 1
              #8 heartbeat UnknownMemberId
            > heartbeat g c-1 1
              #9 heartbeat RebalanceInProgress
        "#]],
    );
}

#[test]
fn who_waits_is_not_silent_but_a_new_member_does_not_wait_for_ever() {
    check(
        "
        join g v=3 rebalance=600s as=a
        join g v=3 rebalance=600s as=b session=30m
        tick 6s
        sync g a-1 1
        sync g b-2 1
        join g v=3 as=d
        join g a-1 as=a rebalance=600s
        # Its session is 10 s, and it waits for b for 5 minutes; so does d, which does not know its name.
        tick 299s
        tick 1s
        join g b-2 as=b
        ",
        expect![[r#"
            > join g v=3 rebalance=600s as=a
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3 rebalance=600s as=b session=30m
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=a-1 leader=a-1 protocol=range members=[a-1 b-2]
              #2 join ok gen=1 member=b-2 leader=a-1 protocol=range members=[]
            > sync g a-1 1
              append g gen=1 protocol=range leader=a-1 members=[a-1="" b-2=""]
              #3 sync ok assignment="" type=consumer protocol=range
            > sync g b-2 1
              #4 sync ok assignment="" type=consumer protocol=range
            > join g v=3 as=d
            > join g a-1 as=a rebalance=600s
            # Its session is 10 s, and it waits for b for 5 minutes; so does d, which does not know its name.
            > tick 299s
            > tick 1s
              at 306.000s
              #5 join UnknownMemberId member=""
            > join g b-2 as=b
              #6 join ok gen=2 member=a-1 leader=a-1 protocol=range members=[a-1 b-2]
              #7 join ok gen=2 member=b-2 leader=a-1 protocol=range members=[]
        "#]],
    );
}

#[test]
fn pending_members() {
    check(
        "
        join g as=a session=10s
        # It never comes back: the id is forgotten.
        tick 10s
        join g a-1 as=a
        join g as=b
        join g b-3 as=b
        tick 3s
        sync g b-3 1 b-3=B
        # Somebody who was told its id is waited for.
        join g as=d
        join g b-3 as=b
        tick 5s
        join g d-5 as=d
        sync g b-3 2 b-3=B d-5=D
        sync g d-5 2
        # Or until it leaves, or its session timeout ends.
        join g as=e
        join g b-3 as=b
        join g d-5 as=d
        leave g e-8
        sync g b-3 3
        sync g d-5 3
        join g as=f session=6s
        join g b-3 as=b
        join g d-5 as=d
        tick 6s
        # A static member cannot be a pending one.
        join g as=h
        join g h-14 as=h instance=i
        ",
        expect![[r#"
            > join g as=a session=10s
              #1 join MemberIdRequired member="a-1"
              append g gen=0 protocol=null leader=null members=[]
            # It never comes back: the id is forgotten.
            > tick 10s
            > join g a-1 as=a
              #2 join UnknownMemberId member="a-1"
            > join g as=b
              #3 join MemberIdRequired member="b-3"
            > join g b-3 as=b
            > tick 3s
              at 13.000s
              #4 join ok gen=1 member=b-3 leader=b-3 protocol=range members=[b-3]
            > sync g b-3 1 b-3=B
              append g gen=1 protocol=range leader=b-3 members=[b-3="B"]
              #5 sync ok assignment="B" type=consumer protocol=range
            # Somebody who was told its id is waited for.
            > join g as=d
              #6 join MemberIdRequired member="d-5"
            > join g b-3 as=b
            > tick 5s
            > join g d-5 as=d
              #7 join ok gen=2 member=b-3 leader=b-3 protocol=range members=[b-3 d-5]
              #8 join ok gen=2 member=d-5 leader=b-3 protocol=range members=[]
            > sync g b-3 2 b-3=B d-5=D
              append g gen=2 protocol=range leader=b-3 members=[b-3="B" d-5="D"]
              #9 sync ok assignment="B" type=consumer protocol=range
            > sync g d-5 2
              #10 sync ok assignment="D" type=consumer protocol=range
            # Or until it leaves, or its session timeout ends.
            > join g as=e
              #11 join MemberIdRequired member="e-8"
            > join g b-3 as=b
            > join g d-5 as=d
            > leave g e-8
              #12 join ok gen=3 member=b-3 leader=b-3 protocol=range members=[b-3 d-5]
              #13 join ok gen=3 member=d-5 leader=b-3 protocol=range members=[]
              #14 leave ok e-8=ok
            > sync g b-3 3
              append g gen=3 protocol=range leader=b-3 members=[b-3="" d-5=""]
              #15 sync ok assignment="" type=consumer protocol=range
            > sync g d-5 3
              #16 sync ok assignment="" type=consumer protocol=range
            > join g as=f session=6s
              #17 join MemberIdRequired member="f-11"
            > join g b-3 as=b
            > join g d-5 as=d
            > tick 6s
              at 24.000s
              #18 join ok gen=4 member=b-3 leader=b-3 protocol=range members=[b-3 d-5]
              #19 join ok gen=4 member=d-5 leader=b-3 protocol=range members=[]
            # A static member cannot be a pending one.
            > join g as=h
              #20 join MemberIdRequired member="h-14"
            > join g h-14 as=h instance=i
              #21 join UnknownMemberId member="h-14"
        "#]],
    );
}

#[test]
fn first_rebalance_waits_while_members_arrive() {
    check(
        "
        join g v=3 rebalance=8s
        tick 2s
        join g v=3 rebalance=8s
        tick 3s
        join g v=3 rebalance=8s
        tick 2s
        join g v=3 rebalance=8s
        # Not longer than the rebalance timeout.
        tick 1s
        # No delay: the next group starts at once, and each newcomer rebalances it.
        set initial_delay=0
        join h v=3
        join h v=3
        ",
        expect![[r#"
            > join g v=3 rebalance=8s
              append g gen=0 protocol=null leader=null members=[]
            > tick 2s
            > join g v=3 rebalance=8s
            > tick 3s
            > join g v=3 rebalance=8s
            > tick 2s
            > join g v=3 rebalance=8s
            # Not longer than the rebalance timeout.
            > tick 1s
              at 8.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2 c-3 c-4]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
              #3 join ok gen=1 member=c-3 leader=c-1 protocol=range members=[]
              #4 join ok gen=1 member=c-4 leader=c-1 protocol=range members=[]
            # No delay: the next group starts at once, and each newcomer rebalances it.
            > set initial_delay=0
            > join h v=3
              append h gen=0 protocol=null leader=null members=[]
              #5 join ok gen=1 member=c-5 leader=c-5 protocol=range members=[c-5]
            > join h v=3
        "#]],
    );
}

#[test]
fn assignment_that_is_not_written() {
    check(
        "
        join g v=3
        join g v=3
        tick 6s
        hold
        sync g c-2 1
        sync g c-1 1 c-1=A c-2=B
        fail storage
        heartbeat g c-1 1
        join g c-1
        join g c-2
        sync g c-1 2
        fail not-enough-replicas
        join g c-1
        join g c-2
        sync g c-1 3
        fail timed-out
        join g c-1
        join g c-2
        sync g c-1 4
        fail too-large
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
            > hold
            > sync g c-2 1
            > sync g c-1 1 c-1=A c-2=B
              append g gen=1 protocol=range leader=c-1 members=[c-1="A" c-2="B"]
            > fail storage
              #4 sync NotCoordinator
              #3 sync NotCoordinator
            > heartbeat g c-1 1
              #5 heartbeat RebalanceInProgress
            > join g c-1
            > join g c-2
              #6 join ok gen=2 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #7 join ok gen=2 member=c-2 leader=c-1 protocol=range members=[]
            > sync g c-1 2
              append g gen=2 protocol=range leader=c-1 members=[c-1="" c-2=""]
            > fail not-enough-replicas
              #8 sync CoordinatorNotAvailable
            > join g c-1
            > join g c-2
              #9 join ok gen=3 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #10 join ok gen=3 member=c-2 leader=c-1 protocol=range members=[]
            > sync g c-1 3
              append g gen=3 protocol=range leader=c-1 members=[c-1="" c-2=""]
            > fail timed-out
              #11 sync CoordinatorNotAvailable
            > join g c-1
            > join g c-2
              #12 join ok gen=4 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #13 join ok gen=4 member=c-2 leader=c-1 protocol=range members=[]
            > sync g c-1 4
              append g gen=4 protocol=range leader=c-1 members=[c-1="" c-2=""]
            > fail too-large
              #14 sync UnknownServerError
        "#]],
    );
}

#[test]
fn assignment_of_an_old_generation_reaches_nobody() {
    check(
        "
        join g v=3
        tick 3s
        hold
        sync g c-1 1 c-1=A
        # The leader asks again: no second record that might say something else.
        sync g c-1 1 c-1=Z
        join g v=3
        join g c-1
        ok
        describe g
        sync g c-2 2
        sync g c-1 2 c-1=B c-2=C
        ok
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 3.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
            > hold
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A"]
            # The leader asks again: no second record that might say something else.
            > sync g c-1 1 c-1=Z
              #2 sync RebalanceInProgress
            > join g v=3
              #3 sync RebalanceInProgress
            > join g c-1
              #5 join ok gen=2 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #4 join ok gen=2 member=c-2 leader=c-1 protocol=range members=[]
            > ok
            > describe g
              #6 describe g ok CompletingRebalance type="consumer" protocol="" members=[c-1=""/0B c-2=""/0B]
            > sync g c-2 2
            > sync g c-1 2 c-1=B c-2=C
              append g gen=2 protocol=range leader=c-1 members=[c-1="B" c-2="C"]
            > ok
              #8 sync ok assignment="B" type=consumer protocol=range
              #7 sync ok assignment="C" type=consumer protocol=range
        "#]],
    );
}

#[test]
fn first_record_of_a_group_that_is_not_written() {
    check(
        "
        hold
        join g v=3
        join g v=4
        describe g
        fail not-leader
        describe g
        join g c-2
        heartbeat g c-1 0
        # Later the group is more than its first record.
        set initial_delay=0
        join h v=3
        sync h c-4 1 c-4=A
        fail timed-out
        ok
        describe h
        ",
        expect![[r#"
            > hold
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > join g v=4
              #2 join MemberIdRequired member="c-2"
            > describe g
              #3 describe g ok PreparingRebalance type="consumer" protocol="" members=[c-1=""/0B]
            > fail not-leader
              #1 join NotCoordinator member="c-1"
            > describe g
              #4 describe g ok Dead type="" protocol="" members=[]
            > join g c-2
              #5 join UnknownMemberId member="c-2"
            > heartbeat g c-1 0
              #6 heartbeat UnknownMemberId
            # Later the group is more than its first record.
            > set initial_delay=0
            > join h v=3
              append h gen=0 protocol=null leader=null members=[]
              #7 join ok gen=1 member=c-4 leader=c-4 protocol=range members=[c-4]
            > sync h c-4 1 c-4=A
              append h gen=1 protocol=range leader=c-4 members=[c-4="A"]
            > fail timed-out
            > ok
              #8 sync ok assignment="A" type=consumer protocol=range
            > describe h
              #9 describe h ok Stable type="consumer" protocol="range" members=[c-4="A"/13B]
        "#]],
    );
}
