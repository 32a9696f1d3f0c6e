//! Static members (KIP-345) and assignments that need not be made again (KIP-814), as transcripts.

mod support;

use expect_test::expect;
use support::check;

#[test]
fn a_follower_comes_back_without_a_rebalance() {
    check(
        "
        join g instance=i
        join g instance=k
        tick 6s
        sync g i-1 1 i-1=A k-2=B
        sync g k-2 1
        hold
        join g instance=k
        # The old id is fenced before the new one is durable.
        heartbeat g k-2 1 instance=k
        commit g by=k-2 gen=1 instance=k t-0=1
        sync g k-2 1 instance=k
        leave g k-2@k
        join g k-2 instance=k
        heartbeat g k-2 1
        ok
        sync g k-3 1 instance=k
        heartbeat g i-1 1
        # The right member id and no instance id is good enough; a wrong instance id is not.
        heartbeat g k-3 1
        heartbeat g k-3 1 instance=x
        heartbeat g k-3 1 instance=i
        ",
        expect![[r#"
            > join g instance=i
              append g gen=0 protocol=null leader=null members=[]
            > join g instance=k
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=i-1 leader=i-1 protocol=range members=[i-1@i k-2@k]
              #2 join ok gen=1 member=k-2 leader=i-1 protocol=range members=[]
            > sync g i-1 1 i-1=A k-2=B
              append g gen=1 protocol=range leader=i-1 members=[i-1@i="A" k-2@k="B"]
              #3 sync ok assignment="A" type=consumer protocol=range
            > sync g k-2 1
              #4 sync ok assignment="B" type=consumer protocol=range
            > hold
            > join g instance=k
              append g gen=1 protocol=range leader=i-1 members=[i-1@i="A" k-3@k="B"]
            # The old id is fenced before the new one is durable.
            > heartbeat g k-2 1 instance=k
              #6 heartbeat FencedInstanceId
            > commit g by=k-2 gen=1 instance=k t-0=1
              #7 commit t-0=FencedInstanceId
            > sync g k-2 1 instance=k
              #8 sync FencedInstanceId
            > leave g k-2@k
              #9 leave ok k-2@k=FencedInstanceId
            > join g k-2 instance=k
              #10 join FencedInstanceId member="k-2"
            > heartbeat g k-2 1
              #11 heartbeat UnknownMemberId
            > ok
              #5 join ok gen=1 member=k-3 leader=i-1 protocol=range members=[]
            > sync g k-3 1 instance=k
              #12 sync ok assignment="B" type=consumer protocol=range
            > heartbeat g i-1 1
              #13 heartbeat ok
            # The right member id and no instance id is good enough; a wrong instance id is not.
            > heartbeat g k-3 1
              #14 heartbeat ok
            > heartbeat g k-3 1 instance=x
              #15 heartbeat UnknownMemberId
            > heartbeat g k-3 1 instance=i
              #16 heartbeat FencedInstanceId
        "#]],
    );
}

#[test]
fn a_leader_comes_back_without_a_rebalance() {
    check(
        "
        join g instance=i
        join g instance=k
        tick 6s
        sync g i-1 1 i-1=A k-2=B
        sync g k-2 1
        # From version 9 it sees the members and need not assign; before, it must not know that it leads.
        join g instance=i v=9
        sync g i-3 1
        join g instance=i v=8
        sync g i-4 1
        # It leads all the same.
        join g i-4 instance=i
        join g k-2 instance=k
        ",
        expect![[r#"
            > join g instance=i
              append g gen=0 protocol=null leader=null members=[]
            > join g instance=k
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=i-1 leader=i-1 protocol=range members=[i-1@i k-2@k]
              #2 join ok gen=1 member=k-2 leader=i-1 protocol=range members=[]
            > sync g i-1 1 i-1=A k-2=B
              append g gen=1 protocol=range leader=i-1 members=[i-1@i="A" k-2@k="B"]
              #3 sync ok assignment="A" type=consumer protocol=range
            > sync g k-2 1
              #4 sync ok assignment="B" type=consumer protocol=range
            # From version 9 it sees the members and need not assign; before, it must not know that it leads.
            > join g instance=i v=9
              append g gen=1 protocol=range leader=i-3 members=[i-3@i="A" k-2@k="B"]
              #5 join ok gen=1 member=i-3 leader=i-3 protocol=range members=[i-3@i k-2@k] skip-assignment
            > sync g i-3 1
              #6 sync ok assignment="A" type=consumer protocol=range
            > join g instance=i v=8
              append g gen=1 protocol=range leader=i-4 members=[i-4@i="A" k-2@k="B"]
              #7 join ok gen=1 member=i-4 leader=i-3 protocol=range members=[]
            > sync g i-4 1
              #8 sync ok assignment="A" type=consumer protocol=range
            # It leads all the same.
            > join g i-4 instance=i
            > join g k-2 instance=k
              #9 join ok gen=2 member=i-4 leader=i-4 protocol=range members=[i-4@i k-2@k]
              #10 join ok gen=2 member=k-2 leader=i-4 protocol=range members=[]
        "#]],
    );
}

#[test]
fn a_new_id_that_is_not_written_is_taken_back() {
    check(
        "
        join g instance=i
        tick 3s
        sync g i-1 1 i-1=A
        hold
        join g instance=i protocols=range:u,sticky
        fail timed-out
        heartbeat g i-1 1
        describe g
        # Again, and before it is known a rebalance begins: its end answers.
        join g instance=i
        join g v=3
        fail storage
        heartbeat g i-1 1
        heartbeat g i-3 2
        ",
        expect![[r#"
            > join g instance=i
              append g gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 3.000s
              #1 join ok gen=1 member=i-1 leader=i-1 protocol=range members=[i-1@i]
            > sync g i-1 1 i-1=A
              append g gen=1 protocol=range leader=i-1 members=[i-1@i="A"]
              #2 sync ok assignment="A" type=consumer protocol=range
            > hold
            > join g instance=i protocols=range:u,sticky
              append g gen=1 protocol=range leader=i-2 members=[i-2@i="A"]
            > fail timed-out
              #3 join CoordinatorNotAvailable member=""
            > heartbeat g i-1 1
              #4 heartbeat ok
            > describe g
              #5 describe g ok Stable type="consumer" protocol="range" members=[i-1="A"/13B]
            # Again, and before it is known a rebalance begins: its end answers.
            > join g instance=i
              append g gen=1 protocol=range leader=i-3 members=[i-3@i="A"]
            > join g v=3
              #7 join ok gen=2 member=c-4 leader=i-3 protocol=range members=[]
              #6 join ok gen=2 member=i-3 leader=i-3 protocol=range members=[c-4 i-3@i]
            > fail storage
            > heartbeat g i-1 1
              #8 heartbeat UnknownMemberId
            > heartbeat g i-3 2
              #9 heartbeat ok
        "#]],
    );
}

#[test]
fn other_words_that_change_the_common_protocol() {
    check(
        "
        join g instance=i protocols=range,sticky
        join g instance=k protocols=sticky,range
        tick 6s
        sync g i-1 1 i-1=A k-2=B
        sync g k-2 1
        # Other topics: the group does not notice.
        join g instance=k protocols=sticky:u,range:u
        # Without range there is another common protocol.
        join g instance=k protocols=sticky
        join g i-1 instance=i protocols=range,sticky
        ",
        expect![[r#"
            > join g instance=i protocols=range,sticky
              append g gen=0 protocol=null leader=null members=[]
            > join g instance=k protocols=sticky,range
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=i-1 leader=i-1 protocol=range members=[i-1@i k-2@k]
              #2 join ok gen=1 member=k-2 leader=i-1 protocol=range members=[]
            > sync g i-1 1 i-1=A k-2=B
              append g gen=1 protocol=range leader=i-1 members=[i-1@i="A" k-2@k="B"]
              #3 sync ok assignment="A" type=consumer protocol=range
            > sync g k-2 1
              #4 sync ok assignment="B" type=consumer protocol=range
            # Other topics: the group does not notice.
            > join g instance=k protocols=sticky:u,range:u
              append g gen=1 protocol=range leader=i-1 members=[i-1@i="A" k-3@k="B"]
              #5 join ok gen=1 member=k-3 leader=i-1 protocol=range members=[]
            # Without range there is another common protocol.
            > join g instance=k protocols=sticky
            > join g i-1 instance=i protocols=range,sticky
              #7 join ok gen=2 member=i-1 leader=i-1 protocol=sticky members=[i-1@i k-4@k]
              #6 join ok gen=2 member=k-4 leader=i-1 protocol=sticky members=[]
        "#]],
    );
}

#[test]
fn coming_back_between_join_and_sync() {
    check(
        "
        join g instance=i
        join g instance=k
        tick 6s
        sync g k-2 1
        join g instance=k
        join g i-1 instance=i
        sync g i-1 2 i-1=A k-3=B
        sync g k-3 2
        # While the group prepares, it counts as joined.
        join g i-1 instance=i
        join g instance=k
        ",
        expect![[r#"
            > join g instance=i
              append g gen=0 protocol=null leader=null members=[]
            > join g instance=k
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=i-1 leader=i-1 protocol=range members=[i-1@i k-2@k]
              #2 join ok gen=1 member=k-2 leader=i-1 protocol=range members=[]
            > sync g k-2 1
            > join g instance=k
              #3 sync FencedInstanceId
            > join g i-1 instance=i
              #5 join ok gen=2 member=i-1 leader=i-1 protocol=range members=[i-1@i k-3@k]
              #4 join ok gen=2 member=k-3 leader=i-1 protocol=range members=[]
            > sync g i-1 2 i-1=A k-3=B
              append g gen=2 protocol=range leader=i-1 members=[i-1@i="A" k-3@k="B"]
              #6 sync ok assignment="A" type=consumer protocol=range
            > sync g k-3 2
              #7 sync ok assignment="B" type=consumer protocol=range
            # While the group prepares, it counts as joined.
            > join g i-1 instance=i
            > join g instance=k
              #8 join ok gen=3 member=i-1 leader=i-1 protocol=range members=[i-1@i k-6@k]
              #9 join ok gen=3 member=k-6 leader=i-1 protocol=range members=[]
        "#]],
    );
}

#[test]
fn static_members_stay_until_their_session_ends() {
    check(
        "
        join g instance=i session=100s rebalance=20s
        join g v=3 session=100s rebalance=20s
        tick 6s
        sync g i-1 1 i-1=A c-2=B
        sync g c-2 1
        join g v=3 session=100s rebalance=20s
        join g c-2 session=100s rebalance=20s
        # It is part of the next generation, without having joined, and is dropped when it does not sync.
        tick 20s
        sync g c-2 2 i-1=A c-2=B c-3=C
        sync g c-3 2
        heartbeat g i-1 2 instance=i
        tick 20s
        ",
        expect![[r#"
            > join g instance=i session=100s rebalance=20s
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3 session=100s rebalance=20s
            > tick 6s
              at 6.000s
              #2 join ok gen=1 member=c-2 leader=i-1 protocol=range members=[]
              #1 join ok gen=1 member=i-1 leader=i-1 protocol=range members=[c-2 i-1@i]
            > sync g i-1 1 i-1=A c-2=B
              append g gen=1 protocol=range leader=i-1 members=[c-2="B" i-1@i="A"]
              #3 sync ok assignment="A" type=consumer protocol=range
            > sync g c-2 1
              #4 sync ok assignment="B" type=consumer protocol=range
            > join g v=3 session=100s rebalance=20s
            > join g c-2 session=100s rebalance=20s
            # It is part of the next generation, without having joined, and is dropped when it does not sync.
            > tick 20s
              at 26.000s
              #6 join ok gen=2 member=c-2 leader=c-2 protocol=range members=[c-2 c-3 i-1@i]
              #5 join ok gen=2 member=c-3 leader=c-2 protocol=range members=[]
            > sync g c-2 2 i-1=A c-2=B c-3=C
              append g gen=2 protocol=range leader=c-2 members=[c-2="B" c-3="C" i-1@i="A"]
              #7 sync ok assignment="B" type=consumer protocol=range
            > sync g c-3 2
              #8 sync ok assignment="C" type=consumer protocol=range
            > heartbeat g i-1 2 instance=i
              #9 heartbeat ok
            > tick 20s
        "#]],
    );
}

#[test]
fn only_static_members_and_none_comes() {
    check(
        "
        events
        join g instance=i session=60s rebalance=20s
        join g v=3 rebalance=20s session=60s
        tick 6s
        sync g i-1 1 i-1=A c-2=B
        sync g c-2 1
        leave g c-2
        tick 100s
        ",
        expect![[r#"
            > events
            > join g instance=i session=60s rebalance=20s
              (g Rebalancing { generation: 0, reason: "new member i-1" })
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3 rebalance=20s session=60s
            > tick 6s
              at 6.000s
              (g GenerationStarted { generation: 1, members: 2 })
              #2 join ok gen=1 member=c-2 leader=i-1 protocol=range members=[]
              #1 join ok gen=1 member=i-1 leader=i-1 protocol=range members=[c-2 i-1@i]
            > sync g i-1 1 i-1=A c-2=B
              append g gen=1 protocol=range leader=i-1 members=[c-2="B" i-1@i="A"]
              #3 sync ok assignment="A" type=consumer protocol=range
              (g Stabilised { generation: 1 })
            > sync g c-2 1
              #4 sync ok assignment="B" type=consumer protocol=range
            > leave g c-2
              (g Rebalancing { generation: 1, reason: "1 members left; client reason: not told" })
              #5 leave ok c-2=ok
            > tick 100s
              at 26.000s
              (g RebalancePostponed)
              at 46.000s
              (g RebalancePostponed)
              at 66.000s
              (g MemberRemoved { member_id: "i-1", reason: "its session timed out" })
              append g gen=2 protocol=null leader=null members=[]
        "#]],
    );
}

#[test]
fn an_administrator_removes_a_static_member() {
    check(
        "
        join g instance=i
        join g instance=k
        tick 6s
        sync g i-1 1 i-1=A k-2=B
        sync g k-2 1
        leave g @k @x
        heartbeat g k-2 1 instance=k
        join g i-1 instance=i
        ",
        expect![[r#"
            > join g instance=i
              append g gen=0 protocol=null leader=null members=[]
            > join g instance=k
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=i-1 leader=i-1 protocol=range members=[i-1@i k-2@k]
              #2 join ok gen=1 member=k-2 leader=i-1 protocol=range members=[]
            > sync g i-1 1 i-1=A k-2=B
              append g gen=1 protocol=range leader=i-1 members=[i-1@i="A" k-2@k="B"]
              #3 sync ok assignment="A" type=consumer protocol=range
            > sync g k-2 1
              #4 sync ok assignment="B" type=consumer protocol=range
            > leave g @k @x
              #5 leave ok @k=ok @x=UnknownMemberId
            > heartbeat g k-2 1 instance=k
              #6 heartbeat UnknownMemberId
            > join g i-1 instance=i
              #7 join ok gen=2 member=i-1 leader=i-1 protocol=range members=[i-1@i]
        "#]],
    );
}
