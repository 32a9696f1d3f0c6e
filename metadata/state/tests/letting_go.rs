//! Reassignments that take away who is in sync wait for the leader (feature level 3): as transcripts.

use expect_test::expect;

mod script;

use script::check;

#[test]
fn who_is_in_sync_goes_when_the_leader_says_so() {
    check(
        "init c level=3
         register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         register 4 a
         unfence 4
         create t at=1,2 min=2
         reassign t 2
         show t
         isr t 1 1,2
         show t
         reassign t 2,3,4
         isr t 2 2,3
         reassign t 1,2
         show t
         reassign t cancel
         show t
         isr t 2 2,3
         show t
         reassign t 1,3
         isr t 2 1,2
         fence 2
         show t",
        expect![[r#"
            1: init c level=3 -> ClusterId(YwAAAAAAAAAAAAAAAAAAAA)
                 ClusterNamed(YwAAAAAAAAAAAAAAAAAAAA)
                 FeatureLevelChanged(3)
            2: register 1 a -> BrokerRegistered { epoch: 2 }
                 broker 1
            3: unfence 1 -> Done
                 broker 1
            4: register 2 a -> BrokerRegistered { epoch: 4 }
                 broker 2
            5: unfence 2 -> Done
                 broker 2
            6: register 3 a -> BrokerRegistered { epoch: 6 }
                 broker 3
            7: unfence 3 -> Done
                 broker 3
            8: register 4 a -> BrokerRegistered { epoch: 8 }
                 broker 4
            9: unfence 4 -> Done
                 broker 4
            10: create t at=1,2 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            11: reassign t 2 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [2 1] isr [2 1] removing [1] leader 1 epoch 0 version 1
            12: isr t 1 1,2 -> PartitionChanged { leader_epoch: 1, partition_epoch: 2 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [2] isr [2] leader 2 epoch 1 version 2
            13: reassign t 2,3,4 -> PartitionChanged { leader_epoch: 1, partition_epoch: 3 }
                 changed t-0
            14: isr t 2 2,3 -> PartitionChanged { leader_epoch: 1, partition_epoch: 4 }
                 changed t-0
            15: reassign t 1,2 -> PartitionChanged { leader_epoch: 2, partition_epoch: 5 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [2 3] adding [1 3] removing [3] leader 2 epoch 2 version 5
            16: reassign t cancel -> PartitionChanged { leader_epoch: 3, partition_epoch: 6 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [2 3] isr [2 3] adding [3] removing [3] leader 2 epoch 3 version 6
            17: isr t 2 2,3 -> PartitionChanged { leader_epoch: 4, partition_epoch: 7 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [2] isr [2] leader 2 epoch 4 version 7
            18: reassign t 1,3 -> PartitionChanged { leader_epoch: 4, partition_epoch: 8 }
                 changed t-0
            19: isr t 2 1,2 -> PartitionChanged { leader_epoch: 4, partition_epoch: 9 }
                 changed t-0
            20: fence 2 -> Done
                 broker 2
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 3 2] isr [1] adding [1 3] removing [2] leader 1 epoch 5 version 10
        "#]],
    );
}

#[test]
fn a_copy_that_was_given_up_and_is_needed_stays_until_it_is_not() {
    check(
        "init c level=3
         register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         register 4 a
         unfence 4
         create t at=1,2 min=2
         reassign t 2,3
         fence 2
         isr t 1 1,3
         reassign t 2,4
         show t
         isr t 1 1,3
         show t
         reassign t cancel
         unfence 2
         isr t 1 1,2,3
         show t
         reassign t cancel",
        expect![[r#"
            1: init c level=3 -> ClusterId(YwAAAAAAAAAAAAAAAAAAAA)
                 ClusterNamed(YwAAAAAAAAAAAAAAAAAAAA)
                 FeatureLevelChanged(3)
            2: register 1 a -> BrokerRegistered { epoch: 2 }
                 broker 1
            3: unfence 1 -> Done
                 broker 1
            4: register 2 a -> BrokerRegistered { epoch: 4 }
                 broker 2
            5: unfence 2 -> Done
                 broker 2
            6: register 3 a -> BrokerRegistered { epoch: 6 }
                 broker 3
            7: unfence 3 -> Done
                 broker 3
            8: register 4 a -> BrokerRegistered { epoch: 8 }
                 broker 4
            9: unfence 4 -> Done
                 broker 4
            10: create t at=1,2 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            11: reassign t 2,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
            12: fence 2 -> Done
                 broker 2
                 changed t-0
            13: isr t 1 1,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 3 }
                 changed t-0
            14: reassign t 2,4 -> PartitionChanged { leader_epoch: 0, partition_epoch: 4 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [2 4 3 1] isr [3 1] adding [4 3] removing [3 1] leader 1 epoch 0 version 4
            15: isr t 1 1,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 5 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [2 4 3 1] isr [3 1] adding [4 3] removing [3 1] leader 1 epoch 0 version 5
            16: reassign t cancel -> refused: unable to revert the partition's assignment because it would leave 1 complete copies, and min.insync.replicas is 2: bring a replica back, or give the reassignment another target
            17: unfence 2 -> Done
                 broker 2
            18: isr t 1 1,2,3 -> PartitionChanged { leader_epoch: 1, partition_epoch: 6 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [2 4 1] isr [2 1] adding [4] removing [1] leader 1 epoch 1 version 6
            19: reassign t cancel -> PartitionChanged { leader_epoch: 2, partition_epoch: 7 }
                 changed t-0
        "#]],
    );
}

#[test]
fn a_copy_that_was_given_up_counts_while_it_is_complete() {
    check(
        "init c level=3
         register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         register 4 a
         unfence 4
         create t at=1,2 min=2
         reassign t 3,4
         isr t 1 1,2,3
         reassign t cancel
         show t
         recovered 3
         register 3 b
         unfence 3
         show t",
        expect![[r#"
            1: init c level=3 -> ClusterId(YwAAAAAAAAAAAAAAAAAAAA)
                 ClusterNamed(YwAAAAAAAAAAAAAAAAAAAA)
                 FeatureLevelChanged(3)
            2: register 1 a -> BrokerRegistered { epoch: 2 }
                 broker 1
            3: unfence 1 -> Done
                 broker 1
            4: register 2 a -> BrokerRegistered { epoch: 4 }
                 broker 2
            5: unfence 2 -> Done
                 broker 2
            6: register 3 a -> BrokerRegistered { epoch: 6 }
                 broker 3
            7: unfence 3 -> Done
                 broker 3
            8: register 4 a -> BrokerRegistered { epoch: 8 }
                 broker 4
            9: unfence 4 -> Done
                 broker 4
            10: create t at=1,2 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            11: reassign t 3,4 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
            12: isr t 1 1,2,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
                 changed t-0
            13: reassign t cancel -> PartitionChanged { leader_epoch: 1, partition_epoch: 3 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [1 2 3] adding [3] removing [3] leader 1 epoch 1 version 3
            14: recovered 3 -> Done
                 broker 1
                 broker 2
                 broker 3
                 broker 4
                 changed t-0
            15: register 3 b -> BrokerRegistered { epoch: 15 }
                 broker 3
            16: unfence 3 -> Done
                 broker 3
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [3] adding [3] removing [3] elr [1 2] leader 3 epoch 65538 version 65540
        "#]],
    );
}

#[test]
fn nobody_in_sync_resigns_for_one_who_is_not() {
    check(
        "init c level=3
         register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         create t at=1,2 unclean.leader.election.enable=true
         reassign t 1,2,3
         isr t 1 1
         reassign t 2,3
         isr t 1 1,3
         reassign t cancel
         show t
         fence 1
         show t
         isr t 3 3
         show t
         isr t 3 2,3
         show t",
        expect![[r#"
            1: init c level=3 -> ClusterId(YwAAAAAAAAAAAAAAAAAAAA)
                 ClusterNamed(YwAAAAAAAAAAAAAAAAAAAA)
                 FeatureLevelChanged(3)
            2: register 1 a -> BrokerRegistered { epoch: 2 }
                 broker 1
            3: unfence 1 -> Done
                 broker 1
            4: register 2 a -> BrokerRegistered { epoch: 4 }
                 broker 2
            5: unfence 2 -> Done
                 broker 2
            6: register 3 a -> BrokerRegistered { epoch: 6 }
                 broker 3
            7: unfence 3 -> Done
                 broker 3
            8: create t at=1,2 unclean.leader.election.enable=true -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            9: reassign t 1,2,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
            10: isr t 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
                 changed t-0
            11: reassign t 2,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 3 }
                 changed t-0
            12: isr t 1 1,3 -> PartitionChanged { leader_epoch: 0, partition_epoch: 4 }
                 changed t-0
            13: reassign t cancel -> PartitionChanged { leader_epoch: 0, partition_epoch: 5 }
                 changed t-0
               t-0: replicas [2 1 3] isr [1 3] adding [3] removing [3] leader 1 epoch 0 version 5
            14: fence 1 -> Done
                 broker 1
                 changed t-0
               t-0: replicas [2 1 3] isr [3] adding [3] removing [3] leader 3 epoch 1 version 6
            15: isr t 3 3 -> PartitionChanged { leader_epoch: 1, partition_epoch: 7 }
                 changed t-0
               t-0: replicas [2 1 3] isr [3] adding [3] removing [3] leader 3 epoch 1 version 7
            16: isr t 3 2,3 -> PartitionChanged { leader_epoch: 2, partition_epoch: 8 }
                 changed t-0
               t-0: replicas [2 1] isr [2] leader 2 epoch 2 version 8
        "#]],
    );
}
