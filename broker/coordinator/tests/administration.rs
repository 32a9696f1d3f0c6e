//! DescribeGroups, ListGroups, DeleteGroups, and becoming and no longer being the coordinator, as transcripts.

mod support;

use expect_test::expect;
use support::check;

#[test]
fn describe_list_delete() {
    check(
        "
        describe nobody
        describe nobody v=6
        commit simple t-0=1
        join g v=3
        tick 3s
        sync g c-1 1 c-1=A
        join k v=3 type=connect
        describe g k simple ''
        list
        # Filters ignore case, and unknown words match nothing.
        list states=STABLE,empty
        list states=Nonsense
        list types=Classic
        list types=consumer
        list states=stable types=share
        delete g k simple nobody
        describe simple
        fetch simple *
        leave g c-1
        delete g
        delete g
        delete ''
        commit '' t-0=1
        delete ''
        ",
        expect![[r#"
            > describe nobody
              #1 describe nobody ok Dead type="" protocol="" members=[]
            > describe nobody v=6
              #2 describe nobody GroupIdNotFound Dead type="" protocol="" members=[] "Group nobody not found."
            > commit simple t-0=1
              append simple/t-0=1/-1: at 1000000
              #3 commit t-0=ok
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 3.000s
              #4 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A"]
              #5 sync ok assignment="A" type=consumer protocol=range
            > join k v=3 type=connect
              append k gen=0 protocol=null leader=null members=[]
            > describe g k simple ''
              #7 describe g ok Stable type="consumer" protocol="range" members=[c-1="A"/13B]; k ok PreparingRebalance type="connect" protocol="" members=[c-2=""/0B]; simple ok Empty type="" protocol="" members=[];  ok Dead type="" protocol="" members=[]
            > list
              #8 list ok g(consumer Stable classic) k(connect PreparingRebalance classic) simple('' Empty classic)
            # Filters ignore case, and unknown words match nothing.
            > list states=STABLE,empty
              #9 list ok g(consumer Stable classic) simple('' Empty classic)
            > list states=Nonsense
              #10 list ok
            > list types=Classic
              #11 list ok g(consumer Stable classic) k(connect PreparingRebalance classic) simple('' Empty classic)
            > list types=consumer
              #12 list ok
            > list states=stable types=share
              #13 list ok
            > delete g k simple nobody
              append simple/t-0 gone; simple gone
              #14 delete g=NonEmptyGroup k=NonEmptyGroup simple=ok nobody=GroupIdNotFound
            > describe simple
              #15 describe simple ok Dead type="" protocol="" members=[]
            > fetch simple *
              #16 fetch ok
            > leave g c-1
              append g gen=2 protocol=null leader=null members=[]
              #17 leave ok c-1=ok
            > delete g
              append g gone
              #18 delete g=ok
            > delete g
              #19 delete g=GroupIdNotFound
            > delete ''
              #20 delete =GroupIdNotFound
            > commit '' t-0=1
              append /t-0=1/-1: at 1003000
              #21 commit t-0=ok
            > delete ''
              append /t-0 gone;  gone
              #22 delete =ok
        "#]],
    );
}

#[test]
fn a_deletion_and_a_join_cross() {
    check(
        "
        commit g t-0=1
        hold
        delete g
        join g v=3
        ok
        fetch g *
        tick 3s
        release
        sync g c-1 1 c-1=A
        describe g
        leave g c-1
        hold
        delete g
        delete g
        release
        describe g
        ",
        expect![[r#"
            > commit g t-0=1
              append g/t-0=1/-1: at 1000000
              #1 commit t-0=ok
            > hold
            > delete g
              append g/t-0 gone; g gone
            > join g v=3
            > ok
              #2 delete g=ok
            > fetch g *
              #4 fetch ok
            > tick 3s
              at 3.000s
              #3 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
            > release
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A"]
              #5 sync ok assignment="A" type=consumer protocol=range
            > describe g
              #6 describe g ok Stable type="consumer" protocol="range" members=[c-1="A"/13B]
            > leave g c-1
              append g gen=2 protocol=null leader=null members=[]
              #7 leave ok c-1=ok
            > hold
            > delete g
              append g gone
            > delete g
              append g gone
            > release
              #8 delete g=ok
              #9 delete g=ok
            > describe g
              #10 describe g ok Dead type="" protocol="" members=[]
        "#]],
    );
}

#[test]
fn a_deletion_that_is_not_written() {
    check(
        "
        commit g t-0=1
        hold
        delete g nobody
        fail not-enough-replicas
        offset-delete g t-0
        fail not-leader
        fetch g *
        ",
        expect![[r#"
            > commit g t-0=1
              append g/t-0=1/-1: at 1000000
              #1 commit t-0=ok
            > hold
            > delete g nobody
              append g/t-0 gone; g gone
            > fail not-enough-replicas
              #2 delete g=CoordinatorNotAvailable nobody=CoordinatorNotAvailable
            > offset-delete g t-0
              append g/t-0 gone
            > fail not-leader
              #3 offset-delete NotCoordinator
            > fetch g *
              #4 fetch ok t-0=1/-1:
        "#]],
    );
}

#[test]
fn not_the_coordinator() {
    check(
        "
        join g v=3
        join g v=3
        tick 6s
        sync g c-2 1
        join h v=3
        hold
        commit k t-0=1
        fetch k * stable
        offset-delete k t-0
        delete k
        unload
        join g
        sync g c-1 1
        heartbeat g c-1 1
        leave g c-1
        commit k t-0=1
        fetch k *
        describe k
        list
        delete k
        offset-delete k t-0
        # Reports about appends of the past change nothing.
        release
        start-loading
        join g
        sync g c-1 1
        heartbeat g c-1 1
        leave g c-1
        commit k t-0=1
        fetch k *
        describe k
        list
        delete k
        offset-delete k t-0
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > join g v=3
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 c-2]
              #2 join ok gen=1 member=c-2 leader=c-1 protocol=range members=[]
            > sync g c-2 1
            > join h v=3
              append h gen=0 protocol=null leader=null members=[]
            > hold
            > commit k t-0=1
              append k/t-0=1/-1: at 1006000
            > fetch k * stable
            > offset-delete k t-0
              #7 offset-delete GroupIdNotFound
            > delete k
              #8 delete k=GroupIdNotFound
            > unload
              #3 sync NotCoordinator
              #4 join NotCoordinator member="c-3"
              #5 commit t-0=NotCoordinator
              #6 fetch NotCoordinator
            > join g
              #9 join NotCoordinator member=""
            > sync g c-1 1
              #10 sync NotCoordinator
            > heartbeat g c-1 1
              #11 heartbeat NotCoordinator
            > leave g c-1
              #12 leave NotCoordinator
            > commit k t-0=1
              #13 commit t-0=NotCoordinator
            > fetch k *
              #14 fetch NotCoordinator
            > describe k
              #15 describe k NotCoordinator '' type="" protocol="" members=[]
            > list
              #16 list NotCoordinator
            > delete k
              #17 delete k=NotCoordinator
            > offset-delete k t-0
              #18 offset-delete NotCoordinator
            # Reports about appends of the past change nothing.
            > release
            > start-loading
            > join g
              #19 join CoordinatorLoadInProgress member=""
            > sync g c-1 1
              #20 sync CoordinatorLoadInProgress
            > heartbeat g c-1 1
              #21 heartbeat ok
            > leave g c-1
              #22 leave CoordinatorLoadInProgress
            > commit k t-0=1
              #23 commit t-0=CoordinatorLoadInProgress
            > fetch k *
              #24 fetch CoordinatorLoadInProgress
            > describe k
              #25 describe k CoordinatorLoadInProgress '' type="" protocol="" members=[]
            > list
              #26 list CoordinatorLoadInProgress
            > delete k
              #27 delete k=CoordinatorLoadInProgress
            > offset-delete k t-0
              #28 offset-delete CoordinatorLoadInProgress
        "#]],
    );
}

#[test]
fn the_next_coordinator_knows_what_the_log_knows() {
    check(
        "
        join g v=3
        join g instance=i
        tick 6s
        sync g c-1 1 c-1=A i-2=B
        sync g i-2 1
        commit g by=c-1 gen=1 t-0=5/2:note
        commit simple t-0=1
        join e v=3
        tick 3s
        leave e c-3
        hold
        commit g by=c-1 gen=1 t-1=6
        unload
        load
        release
        describe g simple e
        fetch g *
        heartbeat g c-1 1
        heartbeat g i-2 1 instance=i
        # The sessions begin anew.
        tick 9s
        heartbeat g c-1 1
        tick 1s
        heartbeat g c-1 1
        join g c-1
        sync g c-1 2 c-1=AB
        ",
        expect![[r#"
            > join g v=3
              append g gen=0 protocol=null leader=null members=[]
            > join g instance=i
            > tick 6s
              at 6.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1 i-2@i]
              #2 join ok gen=1 member=i-2 leader=c-1 protocol=range members=[]
            > sync g c-1 1 c-1=A i-2=B
              append g gen=1 protocol=range leader=c-1 members=[c-1="A" i-2@i="B"]
              #3 sync ok assignment="A" type=consumer protocol=range
            > sync g i-2 1
              #4 sync ok assignment="B" type=consumer protocol=range
            > commit g by=c-1 gen=1 t-0=5/2:note
              append g/t-0=5/2:note at 1006000
              #5 commit t-0=ok
            > commit simple t-0=1
              append simple/t-0=1/-1: at 1006000
              #6 commit t-0=ok
            > join e v=3
              append e gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 9.000s
              #7 join ok gen=1 member=c-3 leader=c-3 protocol=range members=[c-3]
            > leave e c-3
              append e gen=2 protocol=null leader=null members=[]
              #8 leave ok c-3=ok
            > hold
            > commit g by=c-1 gen=1 t-1=6
              append g/t-1=6/-1: at 1009000
            > unload
              #9 commit t-1=NotCoordinator
            > load
            > release
            > describe g simple e
              #10 describe g ok Stable type="consumer" protocol="range" members=[c-1="A"/13B i-2="B"/13B]; simple ok Empty type="" protocol="" members=[]; e ok Empty type="consumer" protocol="" members=[]
            > fetch g *
              #11 fetch ok t-0=5/2:note
            > heartbeat g c-1 1
              #12 heartbeat ok
            > heartbeat g i-2 1 instance=i
              #13 heartbeat ok
            # The sessions begin anew.
            > tick 9s
            > heartbeat g c-1 1
              #14 heartbeat ok
            > tick 1s
            > heartbeat g c-1 1
              #15 heartbeat RebalanceInProgress
            > join g c-1
              #16 join ok gen=2 member=c-1 leader=c-1 protocol=range members=[c-1]
            > sync g c-1 2 c-1=AB
              append g gen=2 protocol=range leader=c-1 members=[c-1="AB"]
              #17 sync ok assignment="AB" type=consumer protocol=range
        "#]],
    );
}

#[test]
fn a_deletion_survives() {
    check(
        "
        commit g t-0=1
        commit h t-0=1
        offset-delete h t-0
        delete g
        reload
        list
        fetch g *
        fetch h *
        ",
        expect![[r#"
            > commit g t-0=1
              append g/t-0=1/-1: at 1000000
              #1 commit t-0=ok
            > commit h t-0=1
              append h/t-0=1/-1: at 1000000
              #2 commit t-0=ok
            > offset-delete h t-0
              append h/t-0 gone
              #3 offset-delete ok t-0=ok
            > delete g
              append g/t-0 gone; g gone
              #4 delete g=ok
            > reload
            > list
              #5 list ok
            > fetch g *
              #6 fetch ok
            > fetch h *
              #7 fetch ok
        "#]],
    );
}

#[test]
fn a_group_larger_than_allowed_is_loaded() {
    check(
        "
        join g v=3
        join g v=3
        tick 6s
        sync g c-1 1 c-1=A c-2=B
        set max_size=1
        reload
        heartbeat g c-1 1
        join g c-2
        join g c-1
        tick 60s
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
            > set max_size=1
            > reload
            > heartbeat g c-1 1
              #4 heartbeat RebalanceInProgress
            > join g c-2
            > join g c-1
              #5 join ok gen=2 member=c-2 leader=c-2 protocol=range members=[c-2]
              #6 join GroupMaxSizeReached member=""
            > tick 60s
              at 16.000s
              append g gen=3 protocol=null leader=null members=[]
        "#]],
    );
}

#[test]
fn a_pending_member_of_the_past() {
    check(
        "
        join g as=a
        reload
        join g a-1 as=a
        join g as=a
        ",
        expect![[r#"
            > join g as=a
              #1 join MemberIdRequired member="a-1"
              append g gen=0 protocol=null leader=null members=[]
            > reload
            > join g a-1 as=a
              #2 join UnknownMemberId member="a-1"
            > join g as=a
              #3 join MemberIdRequired member="a-3"
        "#]],
    );
}
