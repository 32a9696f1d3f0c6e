//! What the metadata does, as transcripts: a command a line, and what became of it.

use expect_test::expect;

mod script;

use script::check;

#[test]
fn a_restarted_broker_leads_in_a_new_epoch() {
    check(
        "init skerry
         register 1 first
         unfence 1
         create orders p=2
         show orders
         register 1 first
         register 1 second
         show orders
         unfence 1
         show orders
         fence-stale 1",
        expect![[r#"
            1: init skerry -> ClusterId(c2tlcnJ5AAAAAAAAAAAAAA)
                 ClusterNamed(c2tlcnJ5AAAAAAAAAAAAAA)
                 FeatureLevelChanged(1)
            2: register 1 first -> BrokerRegistered { epoch: 2 }
                 broker 1
            3: unfence 1 -> Done
                 broker 1
            4: create orders p=2 -> TopicCreated { id: b3JkZXJzAAAAAAAAAAAAAA }
                 created orders
               orders-0: replicas [1] isr [1] leader 1 epoch 0 version 0
               orders-1: replicas [1] isr [1] leader 1 epoch 0 version 0
            5: register 1 first -> BrokerRegistered { epoch: 2 }
            6: register 1 second -> BrokerRegistered { epoch: 6 }
                 broker 1
                 changed orders-0
                 changed orders-1
               orders-0: replicas [1] isr [] elr [1] leader nobody epoch 0 version 1
               orders-1: replicas [1] isr [] elr [1] leader nobody epoch 0 version 1
            7: unfence 1 -> Done
                 broker 1
                 changed orders-0
                 changed orders-1
               orders-0: replicas [1] isr [1] leader 1 epoch 1 version 2
               orders-1: replicas [1] isr [1] leader 1 epoch 1 version 2
            8: fence-stale 1 -> refused: broker 1 has epoch 6, not 0
        "#]],
    );
}

#[test]
fn the_last_in_sync_replica_stays_eligible() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         create t at=1,2,3 min=2
         fence 1
         show t
         fence 3
         show t
         fence 2
         show t
         unfence 1
         show t
         unfence 3
         show t
         isr t 3 3,1
         show t
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
            8: fence 1 -> Done
                 broker 1
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [2 3] leader 2 epoch 1 version 1
            9: fence 3 -> Done
                 broker 3
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [2] elr [3] leader 2 epoch 1 version 2
            10: fence 2 -> Done
                 broker 2
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [] elr [2 3] leader nobody epoch 1 version 3
            11: unfence 1 -> Done
                 broker 1
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [] elr [2 3] leader nobody epoch 1 version 3
            12: unfence 3 -> Done
                 broker 3
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [3] elr [2] leader 3 epoch 2 version 4
            13: isr t 3 3,1 -> PartitionChanged { leader_epoch: 2, partition_epoch: 5 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [1 3] leader 3 epoch 2 version 5
            14: elect t -> PartitionChanged { leader_epoch: 3, partition_epoch: 6 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [1 3] leader 1 epoch 3 version 6
        "#]],
    );
}

/// KIP-858: a replica whose directory is offline leads nothing. Here it stays what it is until another one has all of it:
/// it may be the last copy that does.
#[test]
fn a_copy_that_cannot_be_opened_leads_nothing_and_is_not_forgotten() {
    check(
        "init one level=2
         register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         unfence 3
         create t at=1,2,3 min=2
         offline t 1
         show t
         isr t 2 1,2,3
         offline t 2
         show t
         isr t 3 3
         offline t 3
         show t
         lost t 3
         online t 2
         show t
         lost t 3
         show t",
        expect![[r#"
            1: init one level=2 -> ClusterId(b25lAAAAAAAAAAAAAAAAAA)
                 ClusterNamed(b25lAAAAAAAAAAAAAAAAAA)
                 FeatureLevelChanged(2)
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
            8: create t at=1,2,3 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            9: offline t 1 -> PartitionChanged { leader_epoch: 1, partition_epoch: 1 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [2 3] offline [1] leader 2 epoch 1 version 1
            10: isr t 2 1,2,3 -> refused: broker 1 cannot be in sync
            11: offline t 2 -> PartitionChanged { leader_epoch: 2, partition_epoch: 2 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [3] offline [1 2] elr [2] leader 3 epoch 2 version 2
            12: isr t 3 3 -> PartitionChanged { leader_epoch: 2, partition_epoch: 3 }
                 changed t-0
            13: offline t 3 -> PartitionChanged { leader_epoch: 2, partition_epoch: 4 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [] offline [1 2 3] elr [2 3] leader nobody epoch 2 version 4
            14: lost t 3 -> refused: broker 3 has the last copy that may lead
            15: online t 2 -> PartitionChanged { leader_epoch: 3, partition_epoch: 5 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [2] offline [1 3] elr [3] leader 2 epoch 3 version 5
            16: lost t 3 -> PartitionChanged { leader_epoch: 4, partition_epoch: 6 }
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [2] offline [1] leader 2 epoch 4 version 6
        "#]],
    );
}

#[test]
fn a_person_gives_up_the_last_copy_where_it_cannot_be_opened() {
    check(
        "init one level=2
         register 1 a
         unfence 1
         register 2 a
         unfence 2
         create t at=1,2
         isr t 1 1
         offline t 1
         show t
         lost t 1
         offline t 2
         elect-unclean t
         show t
         isr t 1 1,2
         offline t 1
         fence 2
         unfence 2
         show t
         fence 1
         unfence 1
         show t
         online t 2
         fence 1
         register 1 b
         unfence 1
         show t
         elect-unclean t
         show t
         lost t 1
         show t
         isr t 2 2,1
         show t",
        expect![[r#"
            1: init one level=2 -> ClusterId(b25lAAAAAAAAAAAAAAAAAA)
                 ClusterNamed(b25lAAAAAAAAAAAAAAAAAA)
                 FeatureLevelChanged(2)
            2: register 1 a -> BrokerRegistered { epoch: 2 }
                 broker 1
            3: unfence 1 -> Done
                 broker 1
            4: register 2 a -> BrokerRegistered { epoch: 4 }
                 broker 2
            5: unfence 2 -> Done
                 broker 2
            6: create t at=1,2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            7: isr t 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
            8: offline t 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
                 changed t-0
               t-0: replicas [1 2] isr [] offline [1] elr [1] leader nobody epoch 0 version 2
            9: lost t 1 -> refused: broker 1 has the last copy that may lead
            10: offline t 2 -> PartitionChanged { leader_epoch: 0, partition_epoch: 3 }
                 changed t-0
            11: elect-unclean t -> PartitionChanged { leader_epoch: 1, partition_epoch: 4 }
                 changed t-0
               t-0: replicas [1 2] isr [1] offline [1 2] leader 1 epoch 1 version 4
            12: isr t 1 1,2 -> refused: broker 1 cannot be in sync
            13: offline t 1 -> PartitionChanged { leader_epoch: 1, partition_epoch: 4 }
            14: fence 2 -> Done
                 broker 2
            15: unfence 2 -> Done
                 broker 2
               t-0: replicas [1 2] isr [1] offline [1 2] leader 1 epoch 1 version 4
            16: fence 1 -> Done
                 broker 1
                 changed t-0
            17: unfence 1 -> Done
                 broker 1
               t-0: replicas [1 2] isr [] offline [1 2] elr [1] leader nobody epoch 1 version 5
            18: online t 2 -> PartitionChanged { leader_epoch: 1, partition_epoch: 6 }
                 changed t-0
            19: fence 1 -> Done
                 broker 1
            20: register 1 b -> BrokerRegistered { epoch: 20 }
                 broker 1
            21: unfence 1 -> Done
                 broker 1
               t-0: replicas [1 2] isr [] offline [1] elr [1] leader nobody epoch 1 version 6
            22: elect-unclean t -> PartitionChanged { leader_epoch: 2, partition_epoch: 7 }
                 changed t-0
               t-0: replicas [1 2] isr [2] offline [1] leader 2 epoch 2 version 7
            23: lost t 1 -> PartitionChanged { leader_epoch: 3, partition_epoch: 8 }
                 changed t-0
               t-0: replicas [1 2] isr [2] leader 2 epoch 3 version 8
            24: isr t 2 2,1 -> PartitionChanged { leader_epoch: 3, partition_epoch: 9 }
                 changed t-0
               t-0: replicas [1 2] isr [1 2] leader 2 epoch 3 version 9
        "#]],
    );
}

#[test]
fn copies_that_cannot_be_opened_and_a_topic_that_elects_whoever_is_there() {
    check(
        "init one level=2
         register 1 a
         unfence 1
         register 2 a
         unfence 2
         create t at=1,2
         isr t 1 1
         config topic:t unclean.leader.election.enable=true
         offline t 1
         show t
         offline t 2
         show t
         online t 1
         show t
         reassign t 1
         show t
         offline t 2",
        expect![[r#"
            1: init one level=2 -> ClusterId(b25lAAAAAAAAAAAAAAAAAA)
                 ClusterNamed(b25lAAAAAAAAAAAAAAAAAA)
                 FeatureLevelChanged(2)
            2: register 1 a -> BrokerRegistered { epoch: 2 }
                 broker 1
            3: unfence 1 -> Done
                 broker 1
            4: register 2 a -> BrokerRegistered { epoch: 4 }
                 broker 2
            5: unfence 2 -> Done
                 broker 2
            6: create t at=1,2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            7: isr t 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
            8: config topic:t unclean.leader.election.enable=true -> Done
                 config of Topic("t")
            9: offline t 1 -> PartitionChanged { leader_epoch: 1, partition_epoch: 2 }
                 changed t-0
               t: {"unclean.leader.election.enable": "true"}
               t-0: replicas [1 2] isr [2] offline [1] leader 2 epoch 1 version 2
            10: offline t 2 -> PartitionChanged { leader_epoch: 1, partition_epoch: 3 }
                 changed t-0
               t: {"unclean.leader.election.enable": "true"}
               t-0: replicas [1 2] isr [] offline [1 2] elr [2] leader nobody epoch 1 version 3
            11: online t 1 -> PartitionChanged { leader_epoch: 2, partition_epoch: 4 }
                 changed t-0
               t: {"unclean.leader.election.enable": "true"}
               t-0: replicas [1 2] isr [1] offline [2] leader 1 epoch 2 version 4
            12: reassign t 1 -> PartitionChanged { leader_epoch: 3, partition_epoch: 5 }
                 changed t-0
               t: {"unclean.leader.election.enable": "true"}
               t-0: replicas [1] isr [1] leader 1 epoch 3 version 5
            13: offline t 2 -> refused: broker 2 cannot be in sync
        "#]],
    );
}

#[test]
fn a_cluster_that_older_programs_take_part_in_knows_nothing_of_offline_copies() {
    check(
        "init one
         register 1 a
         unfence 1
         create t at=1
         offline t 1
         show t",
        expect![[r#"
            1: init one -> ClusterId(b25lAAAAAAAAAAAAAAAAAA)
                 ClusterNamed(b25lAAAAAAAAAAAAAAAAAA)
                 FeatureLevelChanged(1)
            2: register 1 a -> BrokerRegistered { epoch: 2 }
                 broker 1
            3: unfence 1 -> Done
                 broker 1
            4: create t at=1 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            5: offline t 1 -> refused: the feature level is 1: this takes 2
               t-0: replicas [1] isr [1] leader 1 epoch 0 version 0
        "#]],
    );
}

#[test]
fn unclean_election_happens_only_where_it_is_asked_for() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         create t at=1,2
         isr t 1 1
         fence 1
         show t
         elect t
         elect-unclean t
         show t
         create u at=1,2
         unfence 1
         isr u 2 1,2
         isr u 2 2
         config topic:u unclean.leader.election.enable=true
         fence 2
         show u",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: create t at=1,2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            6: isr t 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
            7: fence 1 -> Done
                 broker 1
                 changed t-0
               t-0: replicas [1 2] isr [] elr [1] leader nobody epoch 0 version 2
            8: elect t -> refused: the preferred replica is not available
            9: elect-unclean t -> PartitionChanged { leader_epoch: 1, partition_epoch: 3 }
                 changed t-0
               t-0: replicas [1 2] isr [2] leader 2 epoch 1 version 3
            10: create u at=1,2 -> TopicCreated { id: dQAAAAAAAAAAAAAAAAAAAA }
                 created u
            11: unfence 1 -> Done
                 broker 1
            12: isr u 2 1,2 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed u-0
            13: isr u 2 2 -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
                 changed u-0
            14: config topic:u unclean.leader.election.enable=true -> Done
                 config of Topic("u")
            15: fence 2 -> Done
                 broker 2
                 changed t-0
                 changed u-0
               u: {"unclean.leader.election.enable": "true"}
               u-0: replicas [1 2] isr [1] leader 1 epoch 1 version 3
        "#]],
    );
}

#[test]
fn a_leader_changes_its_in_sync_set_under_three_epochs() {
    check(
        "register 1 a
         unfence 1
         register 2 a
         unfence 2
         register 3 a
         create t at=1,2,3
         show t
         isr t 1 1,3
         isr t 1 1,4
         isr t 1 2
         isr t 2 1,2
         isr t 1 1 epoch=1
         isr t 1 1 epoch=-1
         isr t 1 1 version=7
         isr t 1 1
         isr t 1 1,2 version=0
         register 2 b
         unfence 2
         isr t 1 1,2@3
         isr t 1 1,2
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
            6: create t at=1,2,3 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
               t-0: replicas [1 2 3] isr [1 2] leader 1 epoch 0 version 0
            7: isr t 1 1,3 -> refused: broker 3 cannot be in sync
            8: isr t 1 1,4 -> refused: broker 4 has no replica
            9: isr t 1 2 -> refused: the leader 1 is missing
            10: isr t 2 1,2 -> refused: broker 2 does not lead the partition
            11: isr t 1 1 epoch=1 -> refused: the epochs are leader 0, partition 0: the request is ahead of them
            12: isr t 1 1 epoch=-1 -> refused: the leader epoch is 0, not -1
            13: isr t 1 1 version=7 -> refused: the epochs are leader 0, partition 0: the request is ahead of them
            14: isr t 1 1 -> PartitionChanged { leader_epoch: 0, partition_epoch: 1 }
                 changed t-0
            15: isr t 1 1,2 version=0 -> refused: the partition epoch is 1, not 0
            16: register 2 b -> BrokerRegistered { epoch: 16 }
                 broker 2
            17: unfence 2 -> Done
                 broker 2
            18: isr t 1 1,2@3 -> refused: broker 2 cannot be in sync
            19: isr t 1 1,2 -> PartitionChanged { leader_epoch: 0, partition_epoch: 2 }
                 changed t-0
               t-0: replicas [1 2 3] isr [1 2] leader 1 epoch 0 version 2
        "#]],
    );
}

#[test]
fn topics_have_lawful_names_and_identities() {
    check(
        "create early
         register 1 a
         unfence 1
         create a.b_c
         create a_b.c
         create a.b_c
         create a.b_c id=other
         create ..
         create ö
         create t p=0
         create t p=10001
         create t rf=0
         create t rf=2
         create t at=1,1
         create t at=2
         create t at=1/2
         create t at=1
         grow t 1
         grow t 3 at=1
         grow t 3
         show t
         delete a.b_c
         delete a.b_c
         create a_b.c
         forget 1
         fence 1
         forget 1
         delete t
         delete a_b.c
         forget 1
         show t",
        expect![[r#"
            1: create early -> refused: replication factor 1: 0 brokers are available
            2: register 1 a -> BrokerRegistered { epoch: 2 }
                 broker 1
            3: unfence 1 -> Done
                 broker 1
            4: create a.b_c -> TopicCreated { id: YS5iX2MAAAAAAAAAAAAAAA }
                 created a.b_c
            5: create a_b.c -> refused: topic 'a_b.c' differs from the existing 'a.b_c' only in '.' and '_'
            6: create a.b_c -> TopicCreated { id: YS5iX2MAAAAAAAAAAAAAAA }
            7: create a.b_c id=other -> refused: topic 'a.b_c' exists already
            8: create .. -> refused: '..' cannot be a topic's name: 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-', not '.' or '..'
            9: create ö -> refused: 'ö' cannot be a topic's name: 1 to 249 characters of a-z, A-Z, 0-9, '.', '_' and '-', not '.' or '..'
            10: create t p=0 -> refused: the number of partitions must be larger than 0
            11: create t p=10001 -> refused: 10001 partitions: at most 10000 are allowed for a topic
            12: create t rf=0 -> refused: replication factor 0: 1 brokers are available
            13: create t rf=2 -> refused: replication factor 2: 1 brokers are available
            14: create t at=1,1 -> refused: the manual partition assignment includes the broker 1 more than once
            15: create t at=2 -> refused: the manual partition assignment includes broker 2, but no such broker is registered
            16: create t at=1/2 -> refused: the manual partition assignment includes broker 2, but no such broker is registered
            17: create t at=1 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            18: grow t 1 -> refused: the topic t currently has 1 partition(s); 1 would not be an increase
            19: grow t 3 at=1 -> refused: 2 partition(s) are added, 1 assignment(s) were given
            20: grow t 3 -> Done
                 changed t-1
                 changed t-2
               t-0: replicas [1] isr [1] leader 1 epoch 0 version 0
               t-1: replicas [1] isr [1] leader 1 epoch 0 version 0
               t-2: replicas [1] isr [1] leader 1 epoch 0 version 0
            21: delete a.b_c -> Done
                 deleted a.b_c
            22: delete a.b_c -> refused: no such topic
            23: create a_b.c -> TopicCreated { id: YV9iLmMAAAAAAAAAAAAAAA }
                 created a_b.c
            24: forget 1 -> refused: broker 1 is alive or has replicas
            25: fence 1 -> Done
                 broker 1
                 changed a_b.c-0
                 changed t-0
                 changed t-1
                 changed t-2
            26: forget 1 -> refused: broker 1 is alive or has replicas
            27: delete t -> Done
                 deleted t
            28: delete a_b.c -> Done
                 deleted a_b.c
            29: forget 1 -> Done
                 broker 1
               t: no such topic
        "#]],
    );
}

#[test]
fn replicas_spread_over_brokers_and_racks() {
    check(
        "register 1 a rack=x
         unfence 1
         register 2 a rack=x
         unfence 2
         register 3 a rack=y
         unfence 3
         register 4 a rack=y
         unfence 4
         register 5 a rack=y
         create t p=8 rf=2
         show t
         create u p=2 rf=4
         show u",
        expect![[r#"
            1: register 1 a rack=x -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a rack=x -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: register 3 a rack=y -> BrokerRegistered { epoch: 5 }
                 broker 3
            6: unfence 3 -> Done
                 broker 3
            7: register 4 a rack=y -> BrokerRegistered { epoch: 7 }
                 broker 4
            8: unfence 4 -> Done
                 broker 4
            9: register 5 a rack=y -> BrokerRegistered { epoch: 9 }
                 broker 5
            10: create t p=8 rf=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
               t-0: replicas [1 3] isr [1 3] leader 1 epoch 0 version 0
               t-1: replicas [3 2] isr [3 2] leader 3 epoch 0 version 0
               t-2: replicas [2 4] isr [2 4] leader 2 epoch 0 version 0
               t-3: replicas [4 1] isr [4 1] leader 4 epoch 0 version 0
               t-4: replicas [1 4] isr [1 4] leader 1 epoch 0 version 0
               t-5: replicas [3 1] isr [3 1] leader 3 epoch 0 version 0
               t-6: replicas [2 3] isr [2 3] leader 2 epoch 0 version 0
               t-7: replicas [4 2] isr [4 2] leader 4 epoch 0 version 0
            11: create u p=2 rf=4 -> TopicCreated { id: dQAAAAAAAAAAAAAAAAAAAA }
                 created u
               u-0: replicas [1 3 2 4] isr [1 3 2 4] leader 1 epoch 0 version 0
               u-1: replicas [3 2 4 1] isr [3 2 4 1] leader 3 epoch 0 version 0
        "#]],
    );
}

#[test]
fn configurations_change_key_by_key() {
    check(
        "register 1 a
         unfence 1
         config topic:t a=1
         create t
         config topic:t retention.ms=5 cleanup.policy+=compact
         show t
         config topic:t cleanup.policy+=compact
         config topic:t cleanup.policy-=delete,nothing retention.ms
         show t
         replace-config topic:t segment.bytes=7
         show t
         config cluster min.insync.replicas=2
         config broker:1 log.cleaner.threads=2
         config group:g share.auto.offset.reset=earliest
         config group:g share.auto.offset.reset
         config group:g share.auto.offset.reset",
        expect![[r#"
            1: register 1 a -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: config topic:t a=1 -> refused: no such topic
            4: create t -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            5: config topic:t retention.ms=5 cleanup.policy+=compact -> Done
                 config of Topic("t")
               t: {"cleanup.policy": "delete,compact", "retention.ms": "5"}
               t-0: replicas [1] isr [1] leader 1 epoch 0 version 0
            6: config topic:t cleanup.policy+=compact -> Done
            7: config topic:t cleanup.policy-=delete,nothing retention.ms -> Done
                 config of Topic("t")
               t: {"cleanup.policy": "compact"}
               t-0: replicas [1] isr [1] leader 1 epoch 0 version 0
            8: replace-config topic:t segment.bytes=7 -> Done
                 config of Topic("t")
               t: {"segment.bytes": "7"}
               t-0: replicas [1] isr [1] leader 1 epoch 0 version 0
            9: config cluster min.insync.replicas=2 -> Done
                 config of ClusterDefault
            10: config broker:1 log.cleaner.threads=2 -> Done
                 config of Broker(BrokerId(1))
            11: config group:g share.auto.offset.reset=earliest -> Done
                 config of Group("g")
            12: config group:g share.auto.offset.reset -> Done
                 config of Group("g")
            13: config group:g share.auto.offset.reset -> Done
        "#]],
    );
}

#[test]
fn ids_and_levels_are_handed_out_once() {
    check(
        "init one
         init two
         register 1 a
         producer-ids 1
         producer-ids 1
         producer-ids 2
         level 0
         level 1
         level 2
         register 2 a features=0",
        expect![[r#"
            1: init one -> ClusterId(b25lAAAAAAAAAAAAAAAAAA)
                 ClusterNamed(b25lAAAAAAAAAAAAAAAAAA)
                 FeatureLevelChanged(1)
            2: init two -> ClusterId(b25lAAAAAAAAAAAAAAAAAA)
            3: register 1 a -> BrokerRegistered { epoch: 3 }
                 broker 1
            4: producer-ids 1 -> ProducerIds { first: 0 }
            5: producer-ids 1 -> ProducerIds { first: 1000 }
            6: producer-ids 2 -> refused: broker 2 is not registered
            7: level 0 -> refused: the feature level is 1: it cannot become 0
            8: level 1 -> Done
            9: level 2 -> Done
                 FeatureLevelChanged(2)
            10: register 2 a features=0 -> refused: feature level 2 is not spoken by broker 2
        "#]],
    );
}

#[test]
fn a_recovered_quorum_gives_out_no_number_twice_and_counts_nobody_as_alive() {
    check(
        "register 1 a disk=one
         unfence 1
         register 2 a disk=two
         unfence 2
         register 3 a disk=three
         unfence 3
         create t at=1,2,3 min=2
         producer-ids 1
         recovered 2
         show t
         producer-ids 2
         register 1 b disk=new
         unfence 1
         show t
         register 2 b disk=two
         unfence 2
         show t",
        expect![[r#"
            1: register 1 a disk=one -> BrokerRegistered { epoch: 1 }
                 broker 1
            2: unfence 1 -> Done
                 broker 1
            3: register 2 a disk=two -> BrokerRegistered { epoch: 3 }
                 broker 2
            4: unfence 2 -> Done
                 broker 2
            5: register 3 a disk=three -> BrokerRegistered { epoch: 5 }
                 broker 3
            6: unfence 3 -> Done
                 broker 3
            7: create t at=1,2,3 min=2 -> TopicCreated { id: dAAAAAAAAAAAAAAAAAAAAA }
                 created t
            8: producer-ids 1 -> ProducerIds { first: 0 }
            9: recovered 2 -> Done
                 broker 1
                 broker 2
                 broker 3
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [] elr [1 2 3] leader nobody epoch 65536 version 65536
            10: producer-ids 2 -> ProducerIds { first: 4294968296 }
            11: register 1 b disk=new -> BrokerRegistered { epoch: 11 }
                 broker 1
                 changed t-0
            12: unfence 1 -> Done
                 broker 1
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [] elr [2 3] leader nobody epoch 65536 version 65537
            13: register 2 b disk=two -> BrokerRegistered { epoch: 13 }
                 broker 2
            14: unfence 2 -> Done
                 broker 2
                 changed t-0
               t: {"min.insync.replicas": "2"}
               t-0: replicas [1 2 3] isr [2] elr [3] leader 2 epoch 65537 version 65538
        "#]],
    );
}
