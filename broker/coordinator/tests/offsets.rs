//! OffsetCommit, OffsetFetch, OffsetDelete, expiry and deleted topics, as transcripts (KAFKA.md 4.5 and 9).

mod support;

use expect_test::expect;
use support::check;

#[test]
fn durable_first_visible_second() {
    check(
        "
        hold
        commit g t-0=5/3:note t-1=7
        fetch g t-0 t-1 t-2
        describe g
        ok
        fetch g t-0 t-1 t-2
        fetch g *
        fetch h *
        fetch h t-0
        describe g
        # A fetch that wants what is stable waits for what is being written, but not for what comes later.
        commit g t-0=6
        fetch g t-0 stable
        commit g t-0=7
        fetch g t-0
        ok
        ok
        fetch g * stable
        ",
        expect![[r#"
            > hold
            > commit g t-0=5/3:note t-1=7
              append g/t-0=5/3:note at 1000000; g/t-1=7/-1: at 1000000
            > fetch g t-0 t-1 t-2
              #2 fetch ok t-0=-1/-1: t-1=-1/-1: t-2=-1/-1:
            > describe g
              #3 describe g ok Dead type="" protocol="" members=[]
            > ok
              #1 commit t-0=ok t-1=ok
            > fetch g t-0 t-1 t-2
              #4 fetch ok t-0=5/3:note t-1=7/-1: t-2=-1/-1:
            > fetch g *
              #5 fetch ok t-0=5/3:note t-1=7/-1:
            > fetch h *
              #6 fetch ok
            > fetch h t-0
              #7 fetch ok t-0=-1/-1:
            > describe g
              #8 describe g ok Empty type="" protocol="" members=[]
            # A fetch that wants what is stable waits for what is being written, but not for what comes later.
            > commit g t-0=6
              append g/t-0=6/-1: at 1000000
            > fetch g t-0 stable
            > commit g t-0=7
              append g/t-0=7/-1: at 1000000
            > fetch g t-0
              #12 fetch ok t-0=5/3:note
            > ok
              #9 commit t-0=ok
              #10 fetch ok t-0=6/-1:
            > ok
              #11 commit t-0=ok
            > fetch g * stable
              #13 fetch ok t-0=7/-1: t-1=7/-1:
        "#]],
    );
}

#[test]
fn commits_that_are_not_written() {
    check(
        "
        hold
        commit g t-0=1
        fail not-leader
        commit g t-0=1
        fail storage
        commit g t-0=1
        fail not-enough-replicas
        commit g t-0=1
        fail timed-out
        commit g t-0=1
        fetch g * stable
        fail too-large
        describe g
        list
        ",
        expect![[r#"
            > hold
            > commit g t-0=1
              append g/t-0=1/-1: at 1000000
            > fail not-leader
              #1 commit t-0=NotCoordinator
            > commit g t-0=1
              append g/t-0=1/-1: at 1000000
            > fail storage
              #2 commit t-0=NotCoordinator
            > commit g t-0=1
              append g/t-0=1/-1: at 1000000
            > fail not-enough-replicas
              #3 commit t-0=CoordinatorNotAvailable
            > commit g t-0=1
              append g/t-0=1/-1: at 1000000
            > fail timed-out
              #4 commit t-0=CoordinatorNotAvailable
            > commit g t-0=1
              append g/t-0=1/-1: at 1000000
            > fetch g * stable
            > fail too-large
              #5 commit t-0=InvalidCommitOffsetSize
              #6 fetch ok
            > describe g
              #7 describe g ok Dead type="" protocol="" members=[]
            > list
              #8 list ok
        "#]],
    );
}

#[test]
fn who_may_commit() {
    check(
        "
        commit g by=m gen=5 t-0=1
        commit g by=m gen=5 t-0=1 v=9
        # Somebody who is no member, whatever it calls itself.
        commit g by=m gen=-1 t-0=1
        join g v=3
        tick 3s
        commit g by=c-1 gen=1 t-0=2
        sync g c-1 1 c-1=A
        commit g t-0=3
        commit g by=c-1 gen=-1 t-0=3
        commit g by=c-1 gen=0 t-0=3
        commit g by=m gen=1 t-0=3
        commit g by=c-1 gen=1 instance=i t-0=3
        commit g by=c-1 gen=1 t-0=4
        fetch g *
        ",
        expect![[r#"
            > commit g by=m gen=5 t-0=1
              #1 commit t-0=IllegalGeneration
            > commit g by=m gen=5 t-0=1 v=9
              #2 commit t-0=GroupIdNotFound
            # Somebody who is no member, whatever it calls itself.
            > commit g by=m gen=-1 t-0=1
              append g/t-0=1/-1: at 1000000
              #3 commit t-0=ok
            > join g v=3
            > tick 3s
              at 3.000s
              #4 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
            > commit g by=c-1 gen=1 t-0=2
              #5 commit t-0=RebalanceInProgress
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A"]
              #6 sync ok assignment="A" type=consumer protocol=range
            > commit g t-0=3
              #7 commit t-0=UnknownMemberId
            > commit g by=c-1 gen=-1 t-0=3
              #8 commit t-0=IllegalGeneration
            > commit g by=c-1 gen=0 t-0=3
              #9 commit t-0=IllegalGeneration
            > commit g by=m gen=1 t-0=3
              #10 commit t-0=UnknownMemberId
            > commit g by=c-1 gen=1 instance=i t-0=3
              #11 commit t-0=UnknownMemberId
            > commit g by=c-1 gen=1 t-0=4
              append g/t-0=4/-1: at 1003000
              #12 commit t-0=ok
            > fetch g *
              #13 fetch ok t-0=4/-1:
        "#]],
    );
}

#[test]
fn what_may_be_committed() {
    check(
        "
        set metadata_max=4
        commit '' t-0=9
        fetch '' *
        commit g t-0=-5 t-1=4611686018427387904/7:abcd t-2=1:abcde u-0=1
        fetch g * 
        commit g t-2=1:abcde
        # A retention of its own (versions 2 to 4) is kept in the record.
        commit g t-0=1 retention=1s
        log
        ",
        expect![[r#"
            > set metadata_max=4
            > commit '' t-0=9
              append /t-0=9/-1: at 1000000
              #1 commit t-0=ok
            > fetch '' *
              #2 fetch ok t-0=9/-1:
            > commit g t-0=-5 t-1=4611686018427387904/7:abcd t-2=1:abcde u-0=1
              append g/t-0=-5/-1: at 1000000; g/t-1=4611686018427387904/7:abcd at 1000000; g/u-0=1/-1: at 1000000
              #3 commit t-0=ok t-1=ok t-2=OffsetMetadataTooLarge u-0=ok
            > fetch g *
              #4 fetch ok t-0=-5/-1: t-1=4611686018427387904/7:abcd u-0=1/-1:
            > commit g t-2=1:abcde
              #5 commit t-2=OffsetMetadataTooLarge
            # A retention of its own (versions 2 to 4) is kept in the record.
            > commit g t-0=1 retention=1s
              append g/t-0=1/-1: at 1000000 until 1001000
              #6 commit t-0=ok
            > log
              /t-0=9/-1: at 1000000
              g/t-0=-5/-1: at 1000000
              g/t-1=4611686018427387904/7:abcd at 1000000
              g/u-0=1/-1: at 1000000
              g/t-0=1/-1: at 1000000 until 1001000
        "#]],
    );
}

#[test]
fn a_live_subscription_keeps_its_offsets() {
    check(
        "
        join g v=3 protocols=range:t
        tick 3s
        commit g by=c-1 gen=1 t-0=1
        sync g c-1 1 c-1=A
        commit g by=c-1 gen=1 t-0=1 u-0=1 u-1=1
        offset-delete g t-0 t-9 u-0 u-9
        fetch g *
        # A subscription that cannot be read may be to anything.
        join h v=3 protocols=range
        tick 3s
        sync h c-2 1 c-2=A
        commit h by=c-2 gen=1 t-0=1
        offset-delete h t-0
        # Other protocols have no subscription; then only an empty group.
        join k v=3 type=connect
        tick 3s
        offset-delete k t-0
        leave h c-2
        offset-delete h t-0
        offset-delete nobody t-0
        ",
        expect![[r#"
            > join g v=3 protocols=range:t
              append g gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 3.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
            > commit g by=c-1 gen=1 t-0=1
              #2 commit t-0=RebalanceInProgress
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A"]
              #3 sync ok assignment="A" type=consumer protocol=range
            > commit g by=c-1 gen=1 t-0=1 u-0=1 u-1=1
              append g/t-0=1/-1: at 1003000; g/u-0=1/-1: at 1003000; g/u-1=1/-1: at 1003000
              #4 commit t-0=ok u-0=ok u-1=ok
            > offset-delete g t-0 t-9 u-0 u-9
              append g/u-0 gone
              #5 offset-delete ok t-0=GroupSubscribedToTopic t-9=GroupSubscribedToTopic u-0=ok u-9=ok
            > fetch g *
              #6 fetch ok t-0=1/-1: u-1=1/-1:
            # A subscription that cannot be read may be to anything.
            > join h v=3 protocols=range
              append h gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 6.000s
              #7 join ok gen=1 member=c-2 leader=c-2 protocol=range members=[c-2]
            > sync h c-2 1 c-2=A
              append h gen=1 protocol=range leader=c-2 members=[c-2="A"]
              #8 sync ok assignment="A" type=consumer protocol=range
            > commit h by=c-2 gen=1 t-0=1
              append h/t-0=1/-1: at 1006000
              #9 commit t-0=ok
            > offset-delete h t-0
              #10 offset-delete ok t-0=GroupSubscribedToTopic
            # Other protocols have no subscription; then only an empty group.
            > join k v=3 type=connect
              append k gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 9.000s
              #11 join ok gen=1 member=c-3 leader=c-3 protocol=range members=[c-3]
            > offset-delete k t-0
              #12 offset-delete NonEmptyGroup
            > leave h c-2
              append h gen=2 protocol=null leader=null members=[]
              #13 leave ok c-2=ok
            > offset-delete h t-0
              append h/t-0 gone
              #14 offset-delete ok t-0=ok
            > offset-delete nobody t-0
              #15 offset-delete GroupIdNotFound
        "#]],
    );
}

#[test]
fn deleting_what_is_being_written() {
    check(
        "
        hold
        commit g t-0=1 t-1=1
        ok
        commit g t-0=2 u-0=2
        offset-delete g t-0 t-1 t-2
        release
        fetch g *
        hold
        commit g t-5=1
        delete g
        commit g t-6=1
        release
        fetch g *
        describe g
        ",
        expect![[r#"
            > hold
            > commit g t-0=1 t-1=1
              append g/t-0=1/-1: at 1000000; g/t-1=1/-1: at 1000000
            > ok
              #1 commit t-0=ok t-1=ok
            > commit g t-0=2 u-0=2
              append g/t-0=2/-1: at 1000000; g/u-0=2/-1: at 1000000
            > offset-delete g t-0 t-1 t-2
              append g/t-0 gone; g/t-1 gone
            > release
              #2 commit t-0=ok u-0=ok
              #3 offset-delete ok t-0=ok t-1=ok t-2=ok
            > fetch g *
              #4 fetch ok u-0=2/-1:
            > hold
            > commit g t-5=1
              append g/t-5=1/-1: at 1000000
            > delete g
              append g/t-5 gone; g/u-0 gone; g gone
            > commit g t-6=1
              append g/t-6=1/-1: at 1000000
            > release
              #5 commit t-5=ok
              #6 delete g=ok
              #7 commit t-6=ok
            > fetch g *
              #8 fetch ok t-6=1/-1:
            > describe g
              #9 describe g ok Empty type="" protocol="" members=[]
        "#]],
    );
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    check(
        "
        commit g t-0=1 u-0=1
        commit h t-3=1
        hold
        commit k t-4=1
        topics-deleted t v
        release
        fetch g *
        fetch h *
        fetch k *
        topics-deleted t
        ",
        expect![[r#"
            > commit g t-0=1 u-0=1
              append g/t-0=1/-1: at 1000000; g/u-0=1/-1: at 1000000
              #1 commit t-0=ok u-0=ok
            > commit h t-3=1
              append h/t-3=1/-1: at 1000000
              #2 commit t-3=ok
            > hold
            > commit k t-4=1
              append k/t-4=1/-1: at 1000000
            > topics-deleted t v
              append g/t-0 gone; h/t-3 gone; k/t-4 gone
            > release
              #3 commit t-4=ok
            > fetch g *
              #4 fetch ok u-0=1/-1:
            > fetch h *
              #5 fetch ok
            > fetch k *
              #6 fetch ok
            > topics-deleted t
        "#]],
    );
}

#[test]
fn offsets_of_nobody_expire_after_their_commit() {
    check(
        "
        commit g t-0=1
        tick 6d
        commit g t-1=1
        tick 1d
        fetch g *
        tick 6d
        fetch g *
        list
        ",
        expect![[r#"
            > commit g t-0=1
              append g/t-0=1/-1: at 1000000
              #1 commit t-0=ok
            > tick 6d
            > commit g t-1=1
              append g/t-1=1/-1: at 519400000
              #2 commit t-1=ok
            > tick 1d
              at 604800.000s
              append g/t-0 gone
            > fetch g *
              #3 fetch ok t-1=1/-1:
            > tick 6d
              at 1123200.000s
              append g/t-1 gone; g gone
            > fetch g *
              #4 fetch ok
            > list
              #5 list ok
        "#]],
    );
}

#[test]
fn offsets_of_an_empty_group_expire_after_it_became_empty() {
    check(
        "
        join g v=3
        tick 3s
        sync g c-1 1 c-1=A
        commit g by=c-1 gen=1 t-0=1
        wall 8d
        heartbeat g c-1 1
        leave g c-1
        tick 6d
        fetch g *
        tick 1d
        fetch g *
        tick 10m
        describe g
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
            > commit g by=c-1 gen=1 t-0=1
              append g/t-0=1/-1: at 1003000
              #3 commit t-0=ok
            > wall 8d
            > heartbeat g c-1 1
              #4 heartbeat ok
            > leave g c-1
              append g gen=2 protocol=null leader=null members=[]
              #5 leave ok c-1=ok
            > tick 6d
            > fetch g *
              #6 fetch ok t-0=1/-1:
            > tick 1d
            > fetch g *
              #7 fetch ok t-0=1/-1:
            > tick 10m
              at 605400.000s
              append g/t-0 gone; g gone
            > describe g
              #8 describe g ok Dead type="" protocol="" members=[]
        "#]],
    );
}

#[test]
fn offsets_of_a_stable_group_expire_if_it_is_not_subscribed() {
    check(
        "
        join g v=3 session=1800s protocols=range:t
        tick 3s
        sync g c-1 1 c-1=A
        commit g by=c-1 gen=1 t-0=1 u-0=1
        join k v=3 session=1800s type=connect
        tick 3s
        sync k c-2 1 c-2=A
        commit k by=c-2 gen=1 t-0=1
        wall 8d
        tick 10m
        fetch g *
        fetch k *
        describe g k
        ",
        expect![[r#"
            > join g v=3 session=1800s protocols=range:t
              append g gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 3.000s
              #1 join ok gen=1 member=c-1 leader=c-1 protocol=range members=[c-1]
            > sync g c-1 1 c-1=A
              append g gen=1 protocol=range leader=c-1 members=[c-1="A"]
              #2 sync ok assignment="A" type=consumer protocol=range
            > commit g by=c-1 gen=1 t-0=1 u-0=1
              append g/t-0=1/-1: at 1003000; g/u-0=1/-1: at 1003000
              #3 commit t-0=ok u-0=ok
            > join k v=3 session=1800s type=connect
              append k gen=0 protocol=null leader=null members=[]
            > tick 3s
              at 6.000s
              #4 join ok gen=1 member=c-2 leader=c-2 protocol=range members=[c-2]
            > sync k c-2 1 c-2=A
              append k gen=1 protocol=range leader=c-2 members=[c-2="A"]
              #5 sync ok assignment="A" type=connect protocol=range
            > commit k by=c-2 gen=1 t-0=1
              append k/t-0=1/-1: at 1006000
              #6 commit t-0=ok
            > wall 8d
            > tick 10m
              at 600.000s
              append g/u-0 gone
            > fetch g *
              #7 fetch ok t-0=1/-1:
            > fetch k *
              #8 fetch ok t-0=1/-1:
            > describe g k
              #9 describe g ok Stable type="consumer" protocol="range" members=[c-1="A"/13B]; k ok Stable type="connect" protocol="range" members=[c-2="A"/13B]
        "#]],
    );
}

#[test]
fn a_retention_of_its_own() {
    check(
        "
        commit g t-0=1 retention=3600s
        commit g t-1=1
        tick 1h
        fetch g *
        tick 10m
        fetch g *
        ",
        expect![[r#"
            > commit g t-0=1 retention=3600s
              append g/t-0=1/-1: at 1000000 until 4600000
              #1 commit t-0=ok
            > commit g t-1=1
              append g/t-1=1/-1: at 1000000
              #2 commit t-1=ok
            > tick 1h
              at 3600.000s
              append g/t-0 gone
            > fetch g *
              #3 fetch ok t-1=1/-1:
            > tick 10m
            > fetch g *
              #4 fetch ok t-1=1/-1:
        "#]],
    );
}
