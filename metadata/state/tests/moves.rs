//! Brokers leave, copies get lost, replicas move: as transcripts.

use expect_test::expect;

mod script;

use script::check;

#[test]
fn a_draining_broker_hands_over_what_others_can_lead() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         create t at=1,2,3 min=2
         create alone at=1
         drain 1
         drain 1
         show t
         show alone
         isr t 2 1,2,3
         create new rf=3
         create new at=1
         create new at=1,2
         show new
         elect t
         reassign alone 1,3
         isr alone 1 1,3
         show alone
         fence 1
         unfence 1
         register 1 b clean
         unfence 1
         isr t 2 1,2,3
         elect t
         show t",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: register 3 a -> BrokerRegistered { epoch: 5 }
                 broker 3
            6: unfence 3 -> Done
                 broker 3
            7: create t at=1,2,3 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            8: create alone at=1 -> TopicCreated { id: YWxvbmUAAAAAAAAAAAAAAA }
                 created alone
            9: drain 1 -> BrokerDrained { leading: 1 }
                 broker 1
                 changed t-0
            10: drain 1 -> BrokerDrained { leading: 1 }
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [2 3] leader 2 epoch 1 version 1
               alone-0: replicas [1] isr [1] leader 1 epoch 0 version 0
            11: isr t 2 1,2,3 -> refused: broker 1 cannot be in sync
            12: create new rf=3 -> refused: replication factor 3: 2 brokers are available
            13: create new at=1 -> refused: all brokers specified in the manual partition assignment for partition 0 are fenced or in controlled shutdown
            14: create new at=1,2 -> TopicCreated { id: bmV3AAAAAAAAAAAAAAAAAA }
                 created new
               new-0: replicas [1 2] isr [2] leader 2 epoch 0 version 0
            15: elect t -> refused: the preferred replica is not available
            16: reassign alone 1,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed alone-0
            17: isr alone 1 1,3 -> PartitionChanged { leader_epoch: 1, partition_epoch: 2 }
                 changed alone-0
               alone-0: replicas [1 3] isr [3] leader 3 epoch 1 version 2
            18: fence 1 -> Done
                 broker 1
            19: unfence 1 -> refused: broker 1 is in controlled shutdown
            20: register 1 b clean -> BrokerRegistered { epoch: 20 }
                 broker 1
            21: unfence 1 -> Done
                 broker 1
            22: isr t 2 1,2,3 -> PartitionChanged { leader_epoch: 1, partition_epoch: 2 }
                 changed t-0
            23: elect t -> PartitionChanged { leader_epoch: 2, partition_epoch: 3 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [1 2 3] leader 1 epoch 2 version 3
        "#]],
    );
}

#[test]
fn a_wiped_disk_counts_nowhere() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         create t at=1,2 min=2
         create alone at=2
         isr t 1 1
         show t
         register 2 b disk=other
         show t
         show alone
         unfence 2
         fence 1
         show t
         show alone
         elect-unclean alone
         show alone",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: create t at=1,2 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            6: create alone at=2 -> TopicCreated { id: YWxvbmUAAAAAAAAAAAAAAA }
                 created alone
            7: isr t 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2] isr [1] elr [2] leader 1 epoch 0 version 1
            8: register 2 b disk=other -> BrokerRegistered { epoch: 8 }
                 broker 2
                 changed alone-0
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2] isr [1] leader 1 epoch 0 version 2
               alone-0: replicas [2] isr [] leader nobody epoch 0 version 1
            9: unfence 2 -> Done
                 broker 2
            10: fence 1 -> Done
                 broker 1
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2] isr [] elr [1] leader nobody epoch 0 version 3
               alone-0: replicas [2] isr [] leader nobody epoch 0 version 1
            11: elect-unclean alone -> PartitionChanged { leader_epoch: 1, partition_epoch: 2 }
                 changed alone-0
               alone-0: replicas [2] isr [2] leader 2 epoch 1 version 2
        "#]],
    );
}

#[test]
fn after_a_crash_only_what_was_acknowledged_from_the_disk_counts() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         create safe at=1,2 min=2
         create fast at=1,2 min=2 flush=1000
         isr safe 1 1
         isr fast 1 1
         register 2 b
         show safe
         show fast
         register 1 b
         show fast
         unfence 1
         show fast
         unfence 2
         isr fast 1 1,2
         fence 2
         register 2 c clean
         show fast",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: create safe at=1,2 min=2 -> TopicCreated { id: c2FmZQAAAAAAAAAAAAAAAA }
                 created safe
            6: create fast at=1,2 min=2 flush=1000 -> TopicCreated { id: ZmFzdAAAAAAAAAAAAAAAAA }
                 created fast
            7: isr safe 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed safe-0
            8: isr fast 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed fast-0
            9: register 2 b -> BrokerRegistered { epoch: 9 }
                 broker 2
                 changed fast-0
               safe: {"min.insync.replicas": "2"}
               safe-0: replicas [1 2] isr [1] elr [2] leader 1 epoch 0 version 1
               fast: {"flush.messages": "1000", "min.insync.replicas": "2"}
               fast-0: replicas [1 2] isr [1] leader 1 epoch 0 version 2
            10: register 1 b -> BrokerRegistered { epoch: 10 }
                 broker 1
                 changed fast-0
                 changed safe-0
               fast: {"flush.messages": "1000", "min.insync.replicas": "2"}
               fast-0: replicas [1 2] isr [] elr [1] leader nobody epoch 0 version 3
            11: unfence 1 -> Done
                 broker 1
                 changed fast-0
                 changed safe-0
               fast: {"flush.messages": "1000", "min.insync.replicas": "2"}
               fast-0: replicas [1 2] isr [1] leader 1 epoch 1 version 4
            12: unfence 2 -> Done
                 broker 2
            13: isr fast 1 1,2 -> PartitionChanged { leader_epoch: 1, partition_epoch: 5 }
                 changed fast-0
            14: fence 2 -> Done
                 broker 2
                 changed fast-0
            15: register 2 c clean -> BrokerRegistered { epoch: 15 }
                 broker 2
               fast: {"flush.messages": "1000", "min.insync.replicas": "2"}
               fast-0: replicas [1 2] isr [1] elr [2] leader 1 epoch 1 version 6
        "#]],
    );
}

#[test]
fn a_lost_copy_leaves_unless_it_is_the_last() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         create t at=1,2,3 min=2
         lost t 3
         show t
         lost t 3
         lost t 1
         show t
         lost t 2
         isr t 2 1,2,3 version=1
         isr t 2 1,2,3
         fence 3
         fence 1
         show t
         lost t 2
         show t
         unfence 1
         show t
         lost t 1
         lost u 1
         lost t 4",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: register 3 a -> BrokerRegistered { epoch: 5 }
                 broker 3
            6: unfence 3 -> Done
                 broker 3
            7: create t at=1,2,3 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            8: lost t 3 -> PartitionChanged { leader_epoch: 1, partition_epoch: 1 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [1 2] leader 1 epoch 1 version 1
            9: lost t 3 -> PartitionChanged { leader_epoch: 2, partition_epoch: 2 }
                 changed t-0
            10: lost t 1 -> PartitionChanged { leader_epoch: 3, partition_epoch: 3 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [2] leader 2 epoch 3 version 3
            11: lost t 2 -> refused: broker 2 has the last copy that may lead
            12: isr t 2 1,2,3 version=1 -> refused: the partition epoch is 3, not 1
            13: isr t 2 1,2,3 -> PartitionChanged { leader_epoch: 3, partition_epoch: 4 }
                 changed t-0
            14: fence 3 -> Done
                 broker 3
                 changed t-0
            15: fence 1 -> Done
                 broker 1
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [2] elr [1] leader 2 epoch 3 version 6
            16: lost t 2 -> PartitionChanged { leader_epoch: 3, partition_epoch: 7 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [] elr [1] leader nobody epoch 3 version 7
            17: unfence 1 -> Done
                 broker 1
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [1] leader 1 epoch 4 version 8
            18: lost t 1 -> refused: broker 1 has the last copy that may lead
            19: lost u 1 -> refused: no such topic
            20: lost t 4 -> refused: broker 4 is not registered
        "#]],
    );
}

#[test]
fn fewer_needed_replicas_leave_nobody_eligible() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         create t at=1,2 min=2
         create u at=1,2
         isr t 1 1
         show t
         config topic:t min.insync.replicas=1
         show t
         config cluster min.insync.replicas=2
         isr u 1 1
         show u
         fence 1
         show u
         config cluster min.insync.replicas=1
         show u
         unfence 1
         show u
         fence 2
         fence 1
         show t
         unfence 2
         config topic:t unclean.leader.election.enable=true
         show t",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: create t at=1,2 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            6: create u at=1,2 -> TopicCreated { id: dQAAAAAAAAAAAAAAAAAAAA }
                 created u
            7: isr t 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2] isr [1] elr [2] leader 1 epoch 0 version 1
            8: config topic:t min.insync.replicas=1 -> Done
                 config of Topic("t")
                 changed t-0
               t: {"min.insync.replicas": "1"}
               t-0: replicas [1 2] isr [1] leader 1 epoch 0 version 2
            9: config cluster min.insync.replicas=2 -> Done
                 config of ClusterDefault
            10: isr u 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed u-0
               u-0: replicas [1 2] isr [1] elr [2] leader 1 epoch 0 version 1
            11: fence 1 -> Done
                 broker 1
                 changed t-0
                 changed u-0
               u-0: replicas [1 2] isr [2] elr [1] leader 2 epoch 1 version 2
            12: config cluster min.insync.replicas=1 -> Done
                 config of ClusterDefault
                 changed u-0
               u-0: replicas [1 2] isr [2] leader 2 epoch 1 version 3
            13: unfence 1 -> Done
                 broker 1
                 changed t-0
               u-0: replicas [1 2] isr [2] leader 2 epoch 1 version 3
            14: fence 2 -> Done
                 broker 2
                 changed u-0
            15: fence 1 -> Done
                 broker 1
                 changed t-0
               t: {"min.insync.replicas": "1"}
               t-0: replicas [1 2] isr [] elr [1] leader nobody epoch 1 version 5
            16: unfence 2 -> Done
                 broker 2
                 changed u-0
            17: config topic:t unclean.leader.election.enable=true -> Done
                 config of Topic("t")
                 changed t-0
               t: {"min.insync.replicas": "1", "unclean.leader.election.enable": "true"}
               t-0: replicas [1 2] isr [2] leader 2 epoch 2 version 6
        "#]],
    );
}

#[test]
fn a_reassignment_adds_catches_up_switches_and_removes() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         register 4 a
         unfence 4
         create t at=1,2 min=2
         reassign t 3,4
         show t
         reassign t 3,4
         isr t 1 1,2,3
         show t
         isr t 1 1,2,3,4
         show t
         reassign t 4,3
         show t
         reassign t 4,3
         reassign t 4
         show t
         reassign t 4,1,2
         isr t 4 4,1
         fence 4
         show t
         isr t 1 1,2
         show t
         unfence 4
         isr t 1 1,2,4
         show t",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: register 3 a -> BrokerRegistered { epoch: 5 }
                 broker 3
            6: unfence 3 -> Done
                 broker 3
            7: register 4 a -> BrokerRegistered { epoch: 7 }
                 broker 4
            8: unfence 4 -> Done
                 broker 4
            9: create t at=1,2 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            10: reassign t 3,4 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [3 4 1 2] isr [1 2] adding [3 4] removing [1 2] leader 1 epoch 0 version 1
            11: reassign t 3,4 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
            12: isr t 1 1,2,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [3 4 1 2] isr [3 1 2] adding [3 4] removing [1 2] leader 1 epoch 0 version 2
            13: isr t 1 1,2,3,4 -> PartitionChanged { leader_epoch: 1, partition_epoch: 3 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [3 4] isr [3 4] leader 3 epoch 1 version 3
            14: reassign t 4,3 -> PartitionChanged { leader_epoch: 1, partition_epoch: 4 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [4 3] isr [4 3] leader 3 epoch 1 version 4
            15: reassign t 4,3 -> PartitionChanged { leader_epoch: 1, partition_epoch: 4 }
            16: reassign t 4 -> PartitionChanged { leader_epoch: 2, partition_epoch: 5 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [4] isr [4] leader 4 epoch 2 version 5
            17: reassign t 4,1,2 -> PartitionChanged { leader_epoch: 2, partition_epoch: 6 }
                 changed t-0
            18: isr t 4 4,1 -> PartitionChanged { leader_epoch: 2, partition_epoch: 7 }
                 changed t-0
            19: fence 4 -> Done
                 broker 4
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [4 1 2] isr [1] adding [1 2] leader 1 epoch 3 version 8
            20: isr t 1 1,2 -> PartitionChanged { leader_epoch: 3, partition_epoch: 9 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [4 1 2] isr [1 2] adding [1 2] leader 1 epoch 3 version 9
            21: unfence 4 -> Done
                 broker 4
            22: isr t 1 1,2,4 -> PartitionChanged { leader_epoch: 3, partition_epoch: 10 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [4 1 2] isr [4 1 2] leader 1 epoch 3 version 10
        "#]],
    );
}

#[test]
fn what_was_acknowledged_keeps_its_copies_when_a_reassignment_is_given_up() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         register 4 a
         unfence 4
         create t at=1,2 min=2
         fence 2
         reassign t 2,3
         isr t 1 1,3
         show t
         reassign t cancel
         reassign t 2,4
         show t
         isr t 1 1,3,4
         unfence 2
         isr t 1 1,2,3,4
         show t",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: register 3 a -> BrokerRegistered { epoch: 5 }
                 broker 3
            6: unfence 3 -> Done
                 broker 3
            7: register 4 a -> BrokerRegistered { epoch: 7 }
                 broker 4
            8: unfence 4 -> Done
                 broker 4
            9: create t at=1,2 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            10: fence 2 -> Done
                 broker 2
                 changed t-0
            11: reassign t 2,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
                 changed t-0
            12: isr t 1 1,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 3 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [2 3 1] isr [3 1] adding [3] removing [1] leader 1 epoch 0 version 3
            13: reassign t cancel -> refused: unable to revert the partition's assignment because it would leave 1 complete copies, and min.insync.replicas is 2: bring a replica back, or give the reassignment another target
            14: reassign t 2,4 -> PartitionChanged { leader_epoch: 0, partition_epoch: 4 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [2 4 3 1] isr [3 1] adding [4] removing [3 1] leader 1 epoch 0 version 4
            15: isr t 1 1,3,4 -> PartitionChanged { leader_epoch: 0, partition_epoch: 5 }
                 changed t-0
            16: unfence 2 -> Done
                 broker 2
            17: isr t 1 1,2,3,4 -> PartitionChanged { leader_epoch: 1, partition_epoch: 6 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [2 4] isr [2 4] leader 2 epoch 1 version 6
        "#]],
    );
}

#[test]
fn a_reassignment_is_cancelled_or_replaced() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         register 4 a
         unfence 4
         create t at=1,2
         reassign t cancel
         reassign t 3,4
         isr t 1 1,2,3
         reassign t cancel
         show t
         reassign t 3,4
         isr t 1 1,2,3
         reassign t 4,1
         show t
         isr t 1 1,2,4
         show t
         reassign t 3,2
         isr t 1 1,3
         fence 1
         show t
         reassign t cancel
         reassign t 1,2
         show t
         unfence 1
         isr t 3 3,1,2
         show t",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: register 3 a -> BrokerRegistered { epoch: 5 }
                 broker 3
            6: unfence 3 -> Done
                 broker 3
            7: register 4 a -> BrokerRegistered { epoch: 7 }
                 broker 4
            8: unfence 4 -> Done
                 broker 4
            9: create t at=1,2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            10: reassign t cancel -> refused: no partition reassignment is in progress
            11: reassign t 3,4 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
            12: isr t 1 1,2,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
                 changed t-0
            13: reassign t cancel -> PartitionChanged { leader_epoch: 1, partition_epoch: 3 }
                 changed t-0
               t-0: replicas [1 2] isr [1 2] leader 1 epoch 1 version 3
            14: reassign t 3,4 -> PartitionChanged { leader_epoch: 1, partition_epoch: 4 }
                 changed t-0
            15: isr t 1 1,2,3 -> PartitionChanged { leader_epoch: 1, partition_epoch: 5 }
                 changed t-0
            16: reassign t 4,1 -> PartitionChanged { leader_epoch: 2, partition_epoch: 6 }
                 changed t-0
               t-0: replicas [4 1 2] isr [1 2] adding [4] removing [2] leader 1 epoch 2 version 6
            17: isr t 1 1,2,4 -> PartitionChanged { leader_epoch: 3, partition_epoch: 7 }
                 changed t-0
               t-0: replicas [4 1] isr [4 1] leader 1 epoch 3 version 7
            18: reassign t 3,2 -> PartitionChanged { leader_epoch: 3, partition_epoch: 8 }
                 changed t-0
            19: isr t 1 1,3 -> PartitionChanged { leader_epoch: 3, partition_epoch: 9 }
                 changed t-0
            20: fence 1 -> Done
                 broker 1
                 changed t-0
               t-0: replicas [3 2 4 1] isr [3] adding [3 2] removing [4 1] leader 3 epoch 4 version 10
            21: reassign t cancel -> refused: unable to revert the partition's assignment because it would require an unclean leader election
            22: reassign t 1,2 -> PartitionChanged { leader_epoch: 4, partition_epoch: 11 }
                 changed t-0
               t-0: replicas [1 2 3 4] isr [3] adding [2] removing [3 4] leader 3 epoch 4 version 11
            23: unfence 1 -> Done
                 broker 1
            24: isr t 3 3,1,2 -> PartitionChanged { leader_epoch: 5, partition_epoch: 12 }
                 changed t-0
               t-0: replicas [1 2] isr [1 2] leader 1 epoch 5 version 12
        "#]],
    );
}

#[test]
fn a_reassignment_is_refused_in_kafkas_words() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         create t at=1
         reassign t ,
         reassign t 2,2
         reassign t 1,9
         reassign t 1,2 same-factor
         reassign t 2 same-factor
         reassign t 1,2
         reassign t 1,2 same-factor
         reassign t 1 same-factor
         reassign nothing 1
         reassign t 1 of=1",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: create t at=1 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            6: reassign t , -> refused: the manual partition assignment includes an empty replica list
            7: reassign t 2,2 -> refused: the manual partition assignment includes the broker 2 more than once
            8: reassign t 1,9 -> refused: the manual partition assignment includes broker 9, but no such broker is registered
            9: reassign t 1,2 same-factor -> refused: the replication factor is changed from 1 to 2
            10: reassign t 2 same-factor -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
            11: reassign t 1,2 -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
                 changed t-0
            12: reassign t 1,2 same-factor -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
            13: reassign t 1 same-factor -> refused: the replication factor is changed from 2 to 1
            14: reassign nothing 1 -> refused: no such topic
            15: reassign t 1 of=1 -> refused: no such partition
        "#]],
    );
}

/// A topic of one replica that asks for two in-sync ones goes on while it becomes one of three.
#[test]
fn replicas_that_are_being_added_are_not_asked_for() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         create t at=1 min=2
         reassign t 1,2,3
         isr t 1 1,2
         isr t 1 1
         show t
         isr t 1 1,2,3
         isr t 1 1
         show t",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: register 3 a -> BrokerRegistered { epoch: 5 }
                 broker 3
            6: unfence 3 -> Done
                 broker 3
            7: create t at=1 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            8: reassign t 1,2,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
            9: isr t 1 1,2 -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
                 changed t-0
            10: isr t 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 3 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [1] adding [2 3] leader 1 epoch 0 version 3
            11: isr t 1 1,2,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 4 }
                 changed t-0
            12: isr t 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 5 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [1] elr [2 3] leader 1 epoch 0 version 5
        "#]],
    );
}

#[test]
fn a_batch_answers_for_each_of_its_commands() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         create t at=1,2/2,1
         batch isr t 1 1; isr t 2 1,2; lost t 1; register 3 a; elect t of=1
         show t",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: create t at=1,2/2,1 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            6: batch isr t 1 1; isr t 2 1,2; lost t 1; register 3 a; elect t of=1 -> Batch([PartitionChanged { leader_epoch: 0, partition_epoch: 1 }, Refused(NotLeader(BrokerId(2))), Refused(LastReplica(BrokerId(1))), Refused(NotBatched), Refused(ElectionNotNeeded)])
                 changed t-0
               t-0: replicas [1 2] isr [1] leader 1 epoch 0 version 1
               t-1: replicas [2 1] isr [2 1] leader 2 epoch 0 version 0
        "#]],
    );
}
