//! JoinGroup, SyncGroup, Heartbeat and LeaveGroup of dynamic members, as transcripts (KAFKA.md 4.1 and 9).

mod support;

use expect_test::expect;
use support::check;

#[test]
fn two_members_from_nothing_to_nothing() {
    check(
        "
        # KIP-394: a new member is told its id first; the group is written down.
        join g as=a
        join g a-1 as=a
        join g as=b
        join g b-3 as=b
        # The first rebalance waits for more members.
        tick 3s
        tick 3s
        heartbeat g a-1 1
        # The follower waits for the leader, and both for the disk.
        hold
        sync g b-3 1
        sync g a-1 1 a-1=A b-3=B
        describe g
        ok
        describe g
        release
        heartbeat g a-1 1
        leave g a-1
        heartbeat g b-3 1
        join g b-3 as=b
        sync g b-3 2 b-3=AB
        leave g b-3
        list
        ",
        expect![[r##"
            # KIP-394: a new member is told its id first; the group is written down.
            > join g as=a
              #1 join MemberIdRequired member="a-1"
              append g gen=0 protocol=null leader=null members=[]
            > join g a-1 as=a
            > join g as=b
              #3 join MemberIdRequired member="b-3"
            > join g b-3 as=b
            # The first rebalance waits for more members.
            > tick 3s
            > tick 3s
              at 6.000s
              #2 join ok gen=1 member=a-1 leader=a-1 protocol=range members=[a-1 b-3]
              #4 join ok gen=1 member=b-3 leader=a-1 protocol=range members=[]
            > heartbeat g a-1 1
              #5 heartbeat ok
            # The follower waits for the leader, and both for the disk.
            > hold
            > sync g b-3 1
            > sync g a-1 1 a-1=A b-3=B
              append g gen=1 protocol=range leader=a-1 members=[a-1="A" b-3="B"]
            > describe g
              #8 describe g ok CompletingRebalance type="consumer" protocol="" members=[a-1=""/0B b-3=""/0B]
            > ok
              #7 sync ok assignment="A" type=consumer protocol=range
              #6 sync ok assignment="B" type=consumer protocol=range
            > describe g
              #9 describe g ok Stable type="consumer" protocol="range" members=[a-1="A"/13B b-3="B"/13B]
            > release
            > heartbeat g a-1 1
              #10 heartbeat ok
            > leave g a-1
              #11 leave ok a-1=ok
            > heartbeat g b-3 1
              #12 heartbeat RebalanceInProgress
            > join g b-3 as=b
              #13 join ok gen=2 member=b-3 leader=b-3 protocol=range members=[b-3]
            > sync g b-3 2 b-3=AB
              append g gen=2 protocol=range leader=b-3 members=[b-3="AB"]
              #14 sync ok assignment="AB" type=consumer protocol=range
            > leave g b-3
              append g gen=3 protocol=null leader=null members=[]
              #15 leave ok b-3=ok
            > list
              #16 list ok g(consumer Empty classic)
        "##]],
    );
}

#[test]
fn what_is_refused_without_looking_at_a_group() {
    check(
        "
        join ''
        sync '' m 1
        heartbeat '' m 1
        leave '' m
        offset-delete '' t-0
        join g session=5999ms
        join g session=6s
        join g session=1801s
        join g type= v=3
        join h protocols='' v=3
        join h nobody-9
        sync h m 1
        heartbeat h m 1
        leave h m @i
        # A refused join leaves no group behind.
        describe h
        ",
        expect![[r#"
            > join ''
              #1 join InvalidGroupId member=""
            > sync '' m 1
              #2 sync InvalidGroupId
            > heartbeat '' m 1
              #3 heartbeat InvalidGroupId
            > leave '' m
              #4 leave InvalidGroupId
            > offset-delete '' t-0
              #5 offset-delete InvalidGroupId
            > join g session=5999ms
              #6 join InvalidSessionTimeout member=""
            > join g session=6s
              #7 join MemberIdRequired member="c-3"
              append g gen=0 protocol=null leader=null members=[]
            > join g session=1801s
              #8 join InvalidSessionTimeout member=""
            > join g type= v=3
              #9 join InconsistentGroupProtocol member=""
            > join h protocols='' v=3
              #10 join InconsistentGroupProtocol member=""
            > join h nobody-9
              #11 join UnknownMemberId member="nobody-9"
            > sync h m 1
              #12 sync UnknownMemberId
            > heartbeat h m 1
              #13 heartbeat UnknownMemberId
            > leave h m @i
              #14 leave ok m=UnknownMemberId @i=UnknownMemberId
            # A refused join leaves no group behind.
            > describe h
              #15 describe h ok Dead type="" protocol="" members=[]
        "#]],
    );
}

#[test]
fn order_of_the_checks() {
    check(
        "
        join g v=3
        tick 3s
        sync g c-1 1 c-1=A
        # Room comes before the protocols, those before the member, the member before the generation.
        set max_size=1
        join g v=3 type=connect
        set max_size=2
        join g v=3 type=connect
        join g v=3 protocols=other
        join g nobody protocols=other
        join g nobody
        heartbeat g nobody 7
        heartbeat g c-1 7
        heartbeat g c-1 7 instance=i
        heartbeat g c-1 1 instance=i
        sync g nobody 7 type=connect
        sync g c-1 7 type=connect
        sync g c-1 1 type=connect
        sync g c-1 1 protocol=other
        sync g c-1 1 type=consumer protocol=range
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 3.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A"]
              #2 sync ok assignment="A" type=consumer protocol=range
            # Room comes before the protocols, those before the member, the member before the generation.
            > set max_size=1
            > join g v=3 type=connect
              #3 join GroupMaxSizeReached member=""
            > set max_size=2
            > join g v=3 type=connect
              #4 join InconsistentGroupProtocol member=""
            > join g v=3 protocols=other
              #5 join InconsistentGroupProtocol member=""
            > join g nobody protocols=other
              #6 join InconsistentGroupProtocol member="nobody"
            > join g nobody
              #7 join UnknownMemberId member="nobody"
            > heartbeat g nobody 7
              #8 heartbeat UnknownMemberId
            > heartbeat g c-1 7
              #9 heartbeat IllegalGeneration
            > heartbeat g c-1 7 instance=i
              #10 heartbeat UnknownMemberId
            > heartbeat g c-1 1 instance=i
              #11 heartbeat UnknownMemberId
            > sync g nobody 7 type=connect
              #12 sync UnknownMemberId
            > sync g c-1 7 type=connect
              #13 sync IllegalGeneration
            > sync g c-1 1 type=connect
              #14 sync InconsistentGroupProtocol
            > sync g c-1 1 protocol=other
              #15 sync InconsistentGroupProtocol
            > sync g c-1 1 type=consumer protocol=range
              #16 sync ok assignment="A" type=consumer protocol=range
        "#]],
    );
}

#[test]
fn empty_group_knows_no_member() {
    check(
        "
        commit g t-0=1
        describe g
        sync g m 0
        heartbeat g m 0
        join g m
        commit g by=m gen=0 t-0=2
        commit g by=m gen=-1 t-0=3
        leave g m
        ",
        expect![[r#"
            > commit g t-0=1
              append g/t-0=1/-1: at 1000000
              #1 commit t-0=ok
            > describe g
              #2 describe g ok Empty type="" protocol="" members=[]
            > sync g m 0
              #3 sync UnknownMemberId
            > heartbeat g m 0
              #4 heartbeat UnknownMemberId
            > join g m
              #5 join UnknownMemberId member="m"
            > commit g by=m gen=0 t-0=2
              #6 commit t-0=UnknownMemberId
            > commit g by=m gen=-1 t-0=3
              append g/t-0=3/-1: at 1000000
              #7 commit t-0=ok
            > leave g m
              #8 leave ok m=UnknownMemberId
        "#]],
    );
}

#[test]
fn preparing_rebalance() {
    check(
        "
        join g v=3
        tick 3s
        sync g c-1 1 c-1=A
        join g v=3
        describe g
        sync g c-1 1
        heartbeat g c-1 1
        heartbeat g c-2 1
        heartbeat g c-1 2
        commit g by=c-1 gen=1 t-0=1
        commit g by=c-1 gen=2 t-0=1
        commit g t-0=1
        delete g
        # The second join of one member takes the place of the first.
        join g c-2
        join g c-1
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 3.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A"]
              #2 sync ok assignment="A" type=consumer protocol=range
            > join g v=3
            > describe g
              #4 describe g ok PreparingRebalance type="consumer" protocol="" members=[c-1="A"/0B c-2=""/0B]
            > sync g c-1 1
              #5 sync RebalanceInProgress
            > heartbeat g c-1 1
              #6 heartbeat RebalanceInProgress
            > heartbeat g c-2 1
              #7 heartbeat RebalanceInProgress
            > heartbeat g c-1 2
              #8 heartbeat IllegalGeneration
            > commit g by=c-1 gen=1 t-0=1
              append g/t-0=1/-1: at 1003000
              #9 commit t-0=ok
            > commit g by=c-1 gen=2 t-0=1
              #10 commit t-0=IllegalGeneration
            > commit g t-0=1
              #11 commit t-0=UnknownMemberId
            > delete g
              #12 delete g=NonEmptyGroup
            # The second join of one member takes the place of the first.
            > join g c-2
              #3 join RebalanceInProgress member="c-2"
            > join g c-1
              #14 join ok gen=2 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #13 join ok gen=2 member=c-2 leader=c-1 protocol=range members=[]
        "#]],
    );
}

#[test]
fn completing_rebalance() {
    check(
        "
        join g v=3
        join g v=3
        tick 6s
        heartbeat g c-1 1
        commit g by=c-1 gen=1 t-0=1
        commit g by=c-1 gen=0 t-0=1
        delete g
        # The same words again: the same answer. Other words: a new rebalance, and who waits hears of it.
        join g c-1
        join g c-2
        sync g c-2 1
        sync g c-2 1
        join g c-1 protocols=range:u
        join g c-2
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
            > heartbeat g c-1 1
              #3 heartbeat ok
            > commit g by=c-1 gen=1 t-0=1
              #4 commit t-0=RebalanceInProgress
            > commit g by=c-1 gen=0 t-0=1
              #5 commit t-0=IllegalGeneration
            > delete g
              #6 delete g=NonEmptyGroup
            # The same words again: the same answer. Other words: a new rebalance, and who waits hears of it.
            > join g c-1
              #7 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
            > join g c-2
              #8 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
            > sync g c-2 1
            > sync g c-2 1
              #9 sync RebalanceInProgress
            > join g c-1 protocols=range:u
              #10 sync RebalanceInProgress
            > join g c-2
              #11 join ok gen=2 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #12 join ok gen=2 member=c-2 leader=c-1 protocol=range members=[]
        "#]],
    );
}

#[test]
fn stable() {
    check(
        "
        join g v=3
        join g v=3
        tick 6s
        sync g c-1 1 c-1=A c-2=B stranger=C
        sync g c-2 1
        sync g c-2 1
        commit g by=c-2 gen=1 t-0=1
        # A follower with the same words gets the generation as it is.
        join g c-2
        # The leader may know of something that its words do not show.
        join g c-1
        join g c-2
        sync g c-1 2
        sync g c-2 2
        # Other words of a follower.
        join g c-2 protocols=range:u
        describe g
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
            > sync g c-1 1 c-1=A c-2=B stranger=C
              append g gen=1 protocol=range leader=c-1 members=[c-1="A" c-2="B"]
              #3 sync ok assignment="A" type=consumer protocol=range
            > sync g c-2 1
              #4 sync ok assignment="B" type=consumer protocol=range
            > sync g c-2 1
              #5 sync ok assignment="B" type=consumer protocol=range
            > commit g by=c-2 gen=1 t-0=1
              append g/t-0=1/-1: at 1006000
              #6 commit t-0=ok
            # A follower with the same words gets the generation as it is.
            > join g c-2
              #7 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
            # The leader may know of something that its words do not show.
            > join g c-1
            > join g c-2
              #8 join ok gen=2 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #9 join ok gen=2 member=c-2 leader=c-1 protocol=range members=[]
            > sync g c-1 2
              append g gen=2 protocol=range leader=c-1 members=[c-1="" c-2=""]
              #10 sync ok assignment="" type=consumer protocol=range
            > sync g c-2 2
              #11 sync ok assignment="" type=consumer protocol=range
            # Other words of a follower.
            > join g c-2 protocols=range:u
            > describe g
              #13 describe g ok PreparingRebalance type="consumer" protocol="" members=[c-1=""/0B c-2=""/0B]
        "#]],
    );
}

#[test]
fn protocol_is_chosen_by_votes() {
    check(
        "
        join g v=3 protocols=roundrobin,range,sticky
        join g v=3 protocols=range,roundrobin
        join g v=3 protocols=range,cooperative,roundrobin
        join g v=3 protocols=cooperative,sticky
        tick 9s
        sync g c-1 1
        # A newcomer without range leaves only one that all support.
        join g v=3 protocols=roundrobin,roundrobin:t
        join g c-1 protocols=range,sticky
        join g c-1 protocols=roundrobin,range,sticky
        join g c-2 protocols=range,roundrobin
        join g c-3 protocols=range,cooperative,roundrobin
        ",
        expect![[r#"
            > join g v=3 protocols=roundrobin,range,sticky
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3 protocols=range,roundrobin
            > join g v=3 protocols=range,cooperative,roundrobin
            > join g v=3 protocols=cooperative,sticky
              #4 join InconsistentGroupProtocol member=""
            > tick 9s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2 c-3]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
              #3 join ok gen=1 member=c-3 leader=c-1 protocol=range members=[]
            > sync g c-1 1
              append g gen=1 protocol=range leader=c-1 members=[c-1="" c-2="" c-3=""]
              #5 sync ok assignment="" type=consumer protocol=range
            # A newcomer without range leaves only one that all support.
            > join g v=3 protocols=roundrobin,roundrobin:t
            > join g c-1 protocols=range,sticky
              #7 join InconsistentGroupProtocol member="c-1"
            > join g c-1 protocols=roundrobin,range,sticky
            > join g c-2 protocols=range,roundrobin
            > join g c-3 protocols=range,cooperative,roundrobin
              #8 join ok gen=2 member=c-1 leader=c-1 protocol=roundrobin members=[c-1 c-2 c-3 c-5]
              #9 join ok gen=2 member=c-2 leader=c-1 protocol=roundrobin members=[]
              #10 join ok gen=2 member=c-3 leader=c-1 protocol=roundrobin members=[]
              #6 join ok gen=2 member=c-5 leader=c-1 protocol=roundrobin members=[]
        "#]],
    );
}

#[test]
fn group_is_full() {
    check(
        "
        set max_size=2
        join g v=3
        join g v=3
        join g v=3
        tick 6s
        join g v=3
        join g
        sync g c-1 1 c-1=A c-2=B
        # The limit is lowered: the last to join again goes.
        set max_size=1
        join g c-1
        join g c-2
        ",
        expect![[r#"
            > set max_size=2
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3
            > join g v=3
              #3 join GroupMaxSizeReached member=""
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
            > join g v=3
              #4 join GroupMaxSizeReached member=""
            > join g
              #5 join GroupMaxSizeReached member=""
            > sync g c-1 1 c-1=A c-2=B
              append g gen=1 protocol=range leader=c-1 members=[c-1="A" c-2="B"]
              #6 sync ok assignment="A" type=consumer protocol=range
            # The limit is lowered: the last to join again goes.
            > set max_size=1
            > join g c-1
            > join g c-2
              #7 join ok gen=2 member=c-1 leader=c-1 protocol=range members=[c-1]
              #8 join GroupMaxSizeReached member=""
        "#]],
    );
}

#[test]
fn leave_is_a_batch() {
    check(
        "
        join g v=3
        join g v=3
        join g v=3 instance=i
        join g v=3 instance=k
        tick 9s
        sync g c-1 1 c-1=A
        leave g stranger c-1 @i c-1 @nobody k-4@i k-4@k
        join g c-2
        hold
        # The answer to the last one waits for the record of the empty group.
        leave g c-2
        heartbeat g c-2 2
        fail storage
        join g v=3
        tick 3s
        leave g c-6
        ok
        describe g
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3
            > join g v=3 instance=i
            > join g v=3 instance=k
            > tick 9s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2 i-3@i k-4@k]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
              #3 join ok gen=1 member=i-3 leader=c-1 protocol=range members=[]
              #4 join ok gen=1 member=k-4 leader=c-1 protocol=range members=[]
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A" c-2="" i-3@i="" k-4@k=""]
              #5 sync ok assignment="A" type=consumer protocol=range
            > leave g stranger c-1 @i c-1 @nobody k-4@i k-4@k
              #6 leave ok stranger=UnknownMemberId c-1=ok @i=ok c-1=UnknownMemberId @nobody=UnknownMemberId k-4@i=UnknownMemberId k-4@k=ok
            > join g c-2
              #7 join ok gen=2 member=c-2 leader=c-2 protocol=range members=[c-2]
            > hold
            # The answer to the last one waits for the record of the empty group.
            > leave g c-2
              append g gen=3 protocol=null leader=null members=[]
            > heartbeat g c-2 2
              #9 heartbeat UnknownMemberId
            > fail storage
              #8 leave NotCoordinator
            > join g v=3
            > tick 3s
              at 12.000s
              #10 join ok gen=4 member=c-6 leader=c-6 protocol=range members=[c-6]
            > leave g c-6
              append g gen=5 protocol=null leader=null members=[]
            > ok
              #11 leave ok c-6=ok
            > describe g
              #12 describe g ok Empty type="consumer" protocol="" members=[]
        "#]],
    );
}

#[test]
fn leaving_answers_what_the_member_waits_for() {
    check(
        "
        join g v=3
        join g v=3
        leave g c-2
        tick 6s
        sync g c-1 1 c-1=A
        join g v=3
        leave g c-1
        leave g c-3
        # A follower that waits for the assignment.
        join g v=3 instance=i
        join g v=3 instance=k
        tick 6s
        sync g k-5 3
        leave g @k
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3
            > leave g c-2
              #2 join UnknownMemberId member=""
              #3 leave ok c-2=ok
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A"]
              #4 sync ok assignment="A" type=consumer protocol=range
            > join g v=3
            > leave g c-1
              #5 join ok gen=2 member=c-3 leader=c-3 protocol=range members=[c-3]
              #6 leave ok c-1=ok
            > leave g c-3
              append g gen=3 protocol=null leader=null members=[]
              #7 leave ok c-3=ok
            # A follower that waits for the assignment.
            > join g v=3 instance=i
            > join g v=3 instance=k
            > tick 6s
              at 12.000s
              #8 join ok gen=4 member=i-4 leader=i-4 protocol=range members=[i-4@i k-5@k]
              #9 join ok gen=4 member=k-5 leader=i-4 protocol=range members=[]
            > sync g k-5 3
              #10 sync IllegalGeneration
            > leave g @k
              #11 leave ok @k=ok
        "#]],
    );
}

#[test]
fn reasons_are_told_to_the_operator() {
    check(
        "
        events
        join g v=8 as=a
        join g a-1 v=8 as=a reason=because
        tick 3s
        sync g a-1 1 a-1=A
        tick 10s
        ",
        expect![[r#"
            > events
            > join g v=8 as=a
              #1 join MemberIdRequired member="a-1"
              append g gen=0 protocol=null leader=null members=[]
            > join g a-1 v=8 as=a reason=because
              (g Rebalancing { generation: 0, reason: "new member a-1; client reason: because" })
            > tick 3s
              at 3.000s
              (g GenerationStarted { generation: 1, members: 1 })
              #2 join ok gen=1 member=a-1 leader=a-1 protocol=range members=[a-1]
            > sync g a-1 1 a-1=A
              append g gen=1 protocol=range leader=a-1 members=[a-1="A"]
              #3 sync ok assignment="A" type=consumer protocol=range
              (g Stabilised { generation: 1 })
            > tick 10s
              at 13.000s
              (g MemberRemoved { member_id: "a-1", reason: "its session timed out" })
              (g Rebalancing { generation: 1, reason: "member a-1 timed out" })
              append g gen=2 protocol=null leader=null members=[]
        "#]],
    );
}

#[test]
fn without_memory_nobody_new_comes_and_those_who_are_there_go_on() {
    check(
        "
        join g v=2 as=a
        tick 3s
        sync g a-1 1 a-1=A
        commit kept t-0=1
        full
        join g v=2 as=b
        join h v=2 as=c
        commit new t-0=1
        heartbeat g a-1 1
        commit kept t-0=2
        commit g gen=1 by=a-1 t-0=3
        join g a-1 v=2 as=a
        room
        join h v=2 as=c
        ",
        expect![[r#"
            > join g v=2 as=a
              append g gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 3.000s
              #1 join ok gen=1 member=a-1 leader=a-1 protocol=range members=[a-1]
            > sync g a-1 1 a-1=A
              append g gen=1 protocol=range leader=a-1 members=[a-1="A"]
              #2 sync ok assignment="A" type=consumer protocol=range
            > commit kept t-0=1
              append kept/t-0=1/-1: at 1003000
              #3 commit t-0=ok
            > full
            > join g v=2 as=b
              #4 join GroupMaxSizeReached member=""
            > join h v=2 as=c
              #5 join CoordinatorNotAvailable member=""
            > commit new t-0=1
              #6 commit t-0=CoordinatorNotAvailable
            > heartbeat g a-1 1
              #7 heartbeat ok
            > commit kept t-0=2
              append kept/t-0=2/-1: at 1003000
              #8 commit t-0=ok
            > commit g gen=1 by=a-1 t-0=3
              append g/t-0=3/-1: at 1003000
              #9 commit t-0=ok
            > join g a-1 v=2 as=a
              #10 join ok gen=2 member=a-1 leader=a-1 protocol=range members=[a-1]
            > room
            > join h v=2 as=c
              append h gen=0 protocol=null leader=null members=[]
        "#]],
    );
}

/// Found by seed 3029 of any size, 60 s: the leader of a generation that nobody had been assigned to committed in it, as soon
/// as the next rebalance had begun, and undid what its predecessors had committed. Kafka takes that commit.
#[test]
fn nobody_commits_in_a_generation_without_assignments() {
    check(
        "
        join g as=a
        join g a-1 as=a
        tick 3s
        commit g by=a-1 gen=1 t-0=0
        join g as=b
        join g b-3 as=b
        commit g by=a-1 gen=1 t-0=0
        ",
        expect![[r#"
            > join g as=a
              #1 join MemberIdRequired member="a-1"
              append g gen=0 protocol=null leader=null members=[]
            > join g a-1 as=a
            > tick 3s
              at 3.000s
              #2 join ok gen=1 member=a-1 leader=a-1 protocol=range members=[a-1]
            > commit g by=a-1 gen=1 t-0=0
              #3 commit t-0=RebalanceInProgress
            > join g as=b
              #4 join MemberIdRequired member="b-3"
            > join g b-3 as=b
            > commit g by=a-1 gen=1 t-0=0
              #6 commit t-0=RebalanceInProgress
        "#]],
    );
}
