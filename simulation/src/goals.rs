//! What fault runs must reach at least sometimes: where a goal is never reached, the checks behind it have proven nothing
//! (SIMULATION.md 4.4). The code says where a goal is (`skerry_types::reached`); what it means stands here.

/// One goal.
pub struct Goal {
    /// As the code names it.
    pub name: &'static str,
    /// In which worlds it can be reached.
    pub world: World,
    /// What happens there.
    pub meaning: &'static str,
}

/// Which worlds can reach a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// Of one node and of several.
    Any,
    /// Of one node.
    Alone,
    /// Of several nodes.
    Several,
}

impl World {
    /// A world of so many nodes can reach it; 0: of several.
    #[must_use]
    pub const fn has(self, nodes: u32) -> bool {
        match self {
            Self::Any => true,
            Self::Alone => nodes == 1,
            Self::Several => nodes != 1,
        }
    }
}

macro_rules! goals {
    ($($world:ident $name:literal $meaning:literal)*) => {
        &[$(Goal { name: $name, world: World::$world, meaning: $meaning }),*]
    };
}

/// All of them.
pub const GOALS: &[Goal] = goals! {
    // The log of one replica.
    Any "segment-rolled" "a segment is closed, and the next one begun"
    Any "retention-removes-segments" "segments are too old, or too many"
    Any "segments-below-the-log-start" "segments go because records were deleted"
    Any "compacted" "a log is compacted"
    Any "compaction-overtaken" "a log is cut while it is compacted"
    Alone "tombstone-removed" "a tombstone has been there for delete.retention.ms since it was cleaned, and goes"
    Any "batch-kept-empty" "all records of a producer's last batch are superseded, and its place stays"
    Any "segments-merged" "several segments become one"
    Any "interrupted-compaction-finished" "a start puts the segments into place that a crash left beside the old ones"
    Any "hole-read" "a reader of user data goes on behind records that were compacted away"
    Several "hole-copied" "a follower copies what its leader's compaction has left"
    Several "leads-a-log-with-holes" "a leader is elected whose log of user data was compacted"
    Any "opened-without-recovery" "an orderly end: the log is not walked at the next start"
    Any "torn-tail-cut" "recovery cuts off what the crash left of a write"
    Any "whole-batches-behind-the-tear" "whole batches lie behind it, and are kept as evidence"
    Any "segment-behind-the-tear" "whole segments lie behind it"
    Any "recovery-walks-several-segments" "the crash was more than a segment behind the last checkpoint"
    Any "recovery-begins-at-an-index-entry" "recovery begins in the middle of a segment"
    Any "damage-below-the-recovery-point" "recovery finds damage where everything was durable, and cuts nothing"
    Several "sealed-segment-is-short" "a disk that has lied lost the end of a segment behind which others are (beyond the contract)"
    Any "damage-read" "a reader meets damage"
    Any "read-right-the-second-time" "a read returned a wrong bit, and is done again"
    Several "no-copy-is-whole" "the same record has rotted in every copy (beyond the contract)"
    Several "in-sync-copies-damaged" "all copies in sync turn out damaged, and another one is behind (beyond the contract)"
    Several "offline-copy-told" "a broker tells that it cannot open its copy"
    Several "offline-copy-is-back" "a broker tells that it can open its copy again"
    Several "damaged-copy-cut" "a person has chosen a copy that cannot be opened, and it goes on from what is left"
    Several "acknowledged-records-missing" "a copy ends before what it had acknowledged, and no record of it is damaged"
    Several "disks-lied" "the power goes, and with it what disks had said was synced (beyond the contract)"
    Several "a-checkpoint-knows-of-more" "a checkpoint says that more is durable than there is"
    Several "person-elects" "nobody may lead, and a person chooses a copy"
    Several "voter-lost-what-it-had-synced" "a voter's disk has lied about its votes and entries, and its power went (beyond the contract)"
    Several "majority-wiped" "a majority of the voters loses its disks (beyond the contract)"
    Several "survivor-left-behind" "and the survivor has not heard of what they had decided"
    Any "quorum-recovered" "a person makes one node the whole quorum"
    Alone "only-voter-recovered" "and the others were none: its own log was damaged"
    Several "committed-records-given-up" "the copy that a person chose lacks committed records"
    Several "producers-told-by-the-leader" "a follower that starts over hears who wrote what is deleted"
    Any "epochs-rebuilt-from-batches" "the file of the leader epochs did not fit the log"
    Any "producers-from-a-snapshot" "recovery begins with a snapshot of the producers"
    Any "log-start-beyond-what-was-left" "records were deleted, and the log before them was lost"
    Any "disk-full-at-a-write" "there is no room for a batch"
    Any "disk-reserve-kept" "producers and followers would have written the reserve"
    Any "disk-fails-at-a-roll" "there is no room, or a sync fails, where a segment is closed"
    Any "log-takes-no-more-writes" "after a failed sync or write nothing is written until the next start"
    Any "duplicate-recognised" "a producer sends again what is in the log"
    Any "older-duplicate-recognised" "and not only its last batch"
    Any "gap-of-a-producer-refused" "a batch comes before the one that it follows"
    Any "pipelined-batch-held-back" "a batch is refused because the one before it was"
    Any "damaged-batch-refused" "a producer's batch was damaged on its way: nobody knows whose it was"
    Any "zombie-producer-refused" "a producer writes on after another one has taken its place"
    Several "log-cut" "a replica takes back what its leader does not have"
    Several "log-cut-across-segments" "more than a segment of it"
    Several "durable-records-cut" "although they were on its disk"
    Several "log-begins-elsewhere" "a replica gives up all that it has, and begins at the leader's start"
    Several "log-cut-while-it-was-flushed" "while a sync is on its way"

    Any "folder-of-a-deleted-topic" "a topic was deleted and made again while a node was down or starting: its folder is still there"
    Any "topic-not-shown-yet" "a client asks for a topic that is made, and whose logs are not open yet"
    Any "partition-of-an-earlier-name" "a topic is made under a name that the checkpoints still know of an earlier one"

    // Leaders and followers.
    Several "two-leaders-at-once" "two brokers take themselves for the leader of a partition, in two epochs"
    Several "leader-begins-below-its-epoch" "a new leader does not know yet that all of its log is committed"
    Several "leader-begins-alone" "and nobody else is in sync"
    Several "leader-replaced-while-clients-wait" "who waits for acks=all hears that somebody else leads"
    Several "leader-learns-that-it-was-replaced" "from the controller, before the metadata has told it"
    Several "too-few-in-sync-to-acknowledge" "fewer than min.insync.replicas"
    Several "diverging-log" "a follower has what its leader has not"
    Several "diverging-in-an-epoch-the-leader-never-had" "in an epoch of which the leader never heard (KIP-279)"
    Several "cut-where-the-leaders-epoch-ended" "the leader has less of the epoch in which they part"
    Several "cut-where-its-own-epoch-ended" "it has less of it than the leader, and goes on in another one"
    Several "parted-where-both-epochs-ended" "both have the same of it, and each goes on in another one at the same offsets (KIP-279)"
    Several "cut-to-an-older-epoch" "it has nothing of the epoch that the leader names, and asks again about an older one"
    Several "nothing-shared" "not one record"
    Several "kept-beyond-its-high-watermark" "a follower keeps what it did not know to be committed (KIP-101)"
    Several "records-of-an-old-epoch" "what a replaced leader sent arrives late (KIP-320)"
    Several "stream-of-an-earlier-start-refused" "a follower has registered again since it asked"
    Several "caught-up-before-a-restart" "who has restarted since it caught up does not join (KIP-903)"
    Several "joining-refused" "the controller refuses a member of an in-sync set"
    Several "in-sync-change-outdated" "the partition has moved on while the leader asked"
    Several "in-sync-change-unanswered" "the leader does not know whether the set has changed, and counts both"
    Several "corrupt-records-refused" "a follower does not take what was damaged on its way"
    Several "follower-starts-over" "what a follower needs is gone at the leader"
    Several "follower-without-room" "a follower's disk is full"
    Several "silent-leader-given-up" "a follower gives up a leader that says nothing"
    Several "repair-too-late" "the damaged copy was deleted before the metadata had answered that it does not count"
    Several "damaged-copy-made-again" "a damaged copy is replaced by its peers"
    Several "damaged-copy-made-again-twice" "and again before it was in sync"
    Several "damaged-copy-is-the-last" "a damaged copy stays: no other one may lead"
    Several "old-leader-epoch-refused" "a client knows an old leader epoch"
    Several "leader-epoch-from-the-future" "a client knows a newer leader epoch than the broker"
    Several "end-not-known-yet" "the end of a log is asked before a new leader knows it (KIP-207)"
    Several "broker-steps-aside" "a broker has not heard the controller for a session"
    Several "broker-is-back" "and hears it again"
    Several "doubtful-leader-finds-a-gap" "a leader that may have been replaced lacks what a producer sent before, and does not say so"
    Several "cut-off-leader-refuses" "a leader that is cut off takes nothing"
    Several "doubtful-leader-does-not-answer" "what must be current is not answered by who may have been replaced"

    // The controller and its quorum.
    Several "dead-process-fenced-at-once" "its port refuses connections"
    Several "silent-broker-fenced" "its session has ended"
    Several "controller-stood-still" "the controller forgives the silence that it slept through"
    Several "elected-from-the-eligible" "a leader that had left the in-sync set complete (KIP-966)"
    Several "unclean-election" "a leader that may lack what was acknowledged: where nobody else is left"
    Several "copy-does-not-count" "a copy that is lost, or lost what was not flushed, is not eligible"
    Several "leaving-broker-relieved" "a broker that stops hands its partitions over first"
    Several "leaving-broker-has-no-replica" "an operator has given the replicas of a broker to others"
    Several "left-broker-forgotten" "and it is forgotten, and comes back as another one"
    Several "broker-forgotten" "a broker that is down and has no replicas is forgotten: it registers anew"
    Several "reassignment-complete" "a partition has moved to the replicas that it was to have"
    Several "leader-lost-while-it-moves" "and lost its leader on the way"
    Several "reassignment-waits-for-the-leader" "a reassignment could be complete at once, and waits for the leader's saying so"
    Several "given-up-replica-let-go" "a leader lets a copy go that was to come and is wanted no more"
    Several "given-up-move-keeps-a-copy" "a reassignment is given up, and a copy that it made is needed"
    Any "metadata-log-torn" "a start finds the end of the quorum's log as the power left it, torn behind what was synced"
    Any "metadata-log-rotten" "a start lacks what was synced of the quorum's log, and refuses"
    Any "metadata-log-not-durable" "a sync of the quorum's log fails"
    Several "asked-for-a-lost-disk" "a node that has lost its disk is asked as if it had it, and refuses"
    Several "another-directory-refused" "a node with another disk wants to join, and the old disk votes or was just heard"
    Several "half-change-finished" "a leader finishes a change of the voters that is half done"
    Several "disk-of-another-node-refused" "a disk is in the wrong machine"
    Several "metadata-log-cut" "a voter takes back what was never committed"
    Any "metadata-log-purged" "entries below a snapshot are removed"
    Any "metadata-snapshot-made" "a snapshot of the metadata is made"
    Several "metadata-snapshot-installed" "a node is so far behind that it gets a snapshot"
    Several "silent-leader-passed-by" "who led the quorum does not answer, and whoever asks it asks others"
    Several "late-proposal-refused" "a proposal arrives that its asker has given up and asked again"
    Several "metadata-waited-for-room" "the quorum's disk was full, and has room again"

    // Groups and clients.
    Any "generation-of-several" "a group of several members begins a generation"
    Any "group-left-by-all" "the last member of a group goes"
    Any "member-too-late-for-a-generation" "a member does not join again in time"
    Any "commit-of-an-earlier-generation" "and is refused"
    Any "commit-between-generations" "a member commits before it knows what it owns"
    Any "assignment-overtaken" "an assignment is durable when the next generation has begun"
    Any "assignment-not-written" "an assignment cannot be written"
    Any "group-record-not-written" "a commit, or a group's record, cannot be written"
    Several "asked-the-wrong-coordinator" "a client asks a broker that does not coordinate its group"
    Any "asked-while-groups-load" "a client asks a coordinator that has not read its log yet"
    Any "asked-behind-what-nobody-answers" "a producer with acks=0 asks for something else on its connection, and is answered"
    Any "incremental-fetch" "a reader says only what has changed"
    Any "fetch-session-out-of-step" "an answer was lost, and the reader asks again"
    // What is legal, and unlikely: `skerry_types::buggify`.
    Any "segment-full-at-once" "a batch begins a new segment, though there is room"
    Any "fetch-of-one-batch" "a reader is given one batch for each partition"
    Any "poll-answered-early" "a fetch is answered before there is enough to read"
    Any "fetch-session-forgotten" "a fetch session is given up"
    Any "not-leader-for-once" "a producer is told to look for another leader"
    Any "acknowledgement-comes-late" "an acknowledgement waits for no reason"
    Any "answers-lost-after-effect" "a connection breaks instead of carrying an answer"
    Any "rebalance-for-nothing" "members are called to join again"
    Any "groups-loaded-again" "a coordinator forgets its groups, and reads them again"
    Any "group-hears-late" "a coordinator hears late that its record is durable"
    Any "metadata-heard-late" "a broker acts late on what was decided"
    Any "block-of-one-producer-id" "a block of producer ids is one"
    Any "snapshot-at-once" "a snapshot of the metadata is made after each change"
    Any "outcome-not-known" "a change is made, and who asked for it is not told"
    Any "heartbeat-left-out" "a broker leaves heartbeats out"
    Several "one-batch-for-a-follower" "a follower is given one batch at a time"
    Several "in-sync-set-asked-twice" "the answer to a change of an in-sync set is lost"
};

/// The goal of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Goal> {
    GOALS.iter().find(|goal| goal.name == name)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "reads the source of the workspace")]

    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// The names behind `reached(` and `sometimes(` in the sources of the workspace.
    fn in_the_code(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                in_the_code(&path, found);
            } else if name.ends_with(".rs") && name != "goal.rs" && name != "buggify.rs" && name != "goals.rs"
            {
                let text = std::fs::read_to_string(&path).unwrap();
                for call in ["reached(", "sometimes(", "buggify("] {
                    for rest in text.split(call).skip(1) {
                        let literal = rest
                            .trim_start()
                            .strip_prefix('"')
                            .and_then(|rest| rest.split_once('"'));
                        found.extend(literal.map(|(name, _)| name.to_owned()));
                    }
                }
            }
        }
    }

    #[test]
    fn every_goal_of_the_code_has_a_meaning_and_every_meaning_a_place() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut code = BTreeSet::new();
        in_the_code(&root, &mut code);
        let listed: BTreeSet<String> = GOALS.iter().map(|goal| goal.name.to_owned()).collect();
        assert_eq!(listed.len(), GOALS.len(), "a name stands twice");
        assert_eq!(listed, code);
    }

    #[test]
    fn a_world_of_one_node_cannot_reach_what_needs_several() {
        assert!(World::Any.has(1) && World::Any.has(5) && World::Several.has(3));
        assert!(!World::Several.has(1));
        assert!(World::Alone.has(1) && !World::Alone.has(0) && !World::Alone.has(3));
    }
}
