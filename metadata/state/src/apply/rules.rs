//! What decides about one partition: who is in sync, who may lead, when a reassignment is complete (KIP-455, 841, 966).

use skerry_types::{BrokerId, is_planted, reached, sometimes};

use crate::LEADER_LETS_GO_LEVEL;
use crate::image::{Image, Partition, Topic};
use crate::outcome::Refusal;

/// What a broker that leaves an in-sync set still has of the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copy {
    /// Everything that it acknowledged.
    Kept,
    /// What was on its disk: its end was not orderly.
    Crashed,
    /// Nothing that counts.
    Lost,
}

/// What decides about the partitions of one topic.
pub(super) struct Rules<'a> {
    image: &'a Image,
    min_insync: usize,
    unclean: bool,
    acknowledges_before_disk: bool,
    leader_lets_go: bool,
}

/// On whose behalf a partition is gone over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    /// Its leader asks for it, and knows the partition as it is.
    Leader,
    /// Anything else.
    Others,
}

impl<'a> Rules<'a> {
    pub(super) fn of(image: &'a Image, topic: &Topic) -> Self {
        Self {
            image,
            min_insync: image.configured_min_insync_replicas(topic),
            unclean: topic.elects_unclean(),
            acknowledges_before_disk: topic.acknowledges_before_disk(),
            leader_lets_go: image.feature_level >= LEADER_LETS_GO_LEVEL
                && !is_planted("command-takes-leader-away"),
        }
    }

    /// Does what has become possible: completes a reassignment, relieves a draining broker, elects a leader.
    pub(super) fn settle(&self, partition: &mut Partition) {
        let isr = partition.isr.clone();
        self.settle_with(partition, isr);
    }

    /// Sets the in-sync set, then as [`Self::settle`].
    pub(super) fn settle_with(&self, partition: &mut Partition, isr: Vec<BrokerId>) {
        self.settle_by(By::Others, partition, isr);
    }

    /// As [`Self::settle_with`], where the leader asks for that set. It knows that whoever goes does not take itself for the
    /// leader any more.
    pub(super) fn settle_for_leader(&self, partition: &mut Partition, isr: Vec<BrokerId>) {
        self.settle_by(By::Leader, partition, isr);
    }

    fn settle_by(&self, by: By, partition: &mut Partition, isr: Vec<BrokerId>) {
        self.set_isr(partition, isr);
        if self.let_go(by, partition) {
            reached("given-up-replica-let-go");
        }
        self.complete_reassignment(by, partition);
        self.relieve_draining(partition);
        self.elect(partition);
    }

    /// Sets the in-sync set. Whoever leaves it while it is below `min.insync.replicas` stays eligible to lead: without
    /// a member nothing was acknowledged since (KIP-966). Nobody is eligible once there are enough members again.
    fn set_isr(&self, partition: &mut Partition, isr: Vec<BrokerId>) {
        let Partition {
            replicas,
            isr: before,
            elr,
            ..
        } = &*partition;
        let in_order = |wanted: &dyn Fn(&BrokerId) -> bool| -> Vec<BrokerId> {
            replicas.iter().copied().filter(|one| wanted(one)).collect()
        };
        let eligible = if isr.len() < partition.min_insync_replicas(self.min_insync) {
            in_order(&|one| !isr.contains(one) && (before.contains(one) || elr.contains(one)))
        } else {
            Vec::new()
        };
        partition.isr = in_order(&|one| isr.contains(one));
        partition.elr = eligible;
    }

    /// Takes a broker out of the in-sync set, and out of the eligible replicas where its copy does not count.
    ///
    /// After a crash a copy counts: Kafka takes it out because its page cache may be lost; here an acknowledged record
    /// was on the disk. A topic that acknowledges before the disk has it is treated as Kafka treats all, down to the
    /// last member, which stays (Kafka's last known leader).
    pub(super) fn leave(&self, partition: &mut Partition, broker: BrokerId, copy: Copy) {
        let others = partition.isr.iter().chain(&partition.elr);
        let is_last = !others.into_iter().any(|&member| member != broker);
        let counts = match copy {
            Copy::Kept => true,
            Copy::Crashed => {
                // Two mistakes: of the last member in sync, and of any other one.
                let planted = is_planted(if partition.isr == [broker] {
                    "crashed-last-member-leads-again"
                } else {
                    "crashed-replica-stays-eligible"
                });
                is_last || !self.acknowledges_before_disk || planted
            }
            Copy::Lost => is_planted("lost-replica-stays-eligible"),
        };
        let isr = without(&partition.isr, &[broker]);
        if !counts {
            reached("copy-does-not-count");
            partition.isr.clone_from(&isr);
            partition.elr = without(&partition.elr, &[broker]);
        }
        self.settle_with(partition, isr);
    }

    /// A draining broker is in sync only where nobody else can lead.
    fn relieve_draining(&self, partition: &mut Partition) {
        let active = |member: &BrokerId| self.image.is_active(*member);
        if partition.isr.iter().all(active) {
            return;
        }
        let staying: Vec<BrokerId> = partition.isr.iter().copied().filter(active).collect();
        if !staying.is_empty() && staying.len() < partition.isr.len() {
            reached("leaving-broker-relieved");
            self.set_isr(partition, staying);
        }
    }

    /// Keeps the leader where it may lead, else takes the first replica in the order of the assignment that is in sync
    /// and able, else the first that is eligible.
    fn elect(&self, partition: &mut Partition) {
        if partition
            .leader
            .is_some_and(|leader| partition.isr.contains(&leader))
        {
            return;
        }
        sometimes("leader-lost-while-it-moves", partition.is_reassigning());
        let able = |replica: &&BrokerId| self.image.is_able(partition, **replica);
        let able: Vec<BrokerId> = partition.replicas.iter().filter(able).copied().collect();
        let first = |among: &[BrokerId]| able.iter().find(|replica| among.contains(replica)).copied();
        partition.leader = first(&partition.isr);
        if partition.leader.is_some() {
            return;
        }
        if let Some(leader) = first(&partition.elr) {
            reached("elected-from-the-eligible");
            self.set_isr(partition, vec![leader]);
            partition.leader = Some(leader);
        } else if self.unclean {
            self.elect_unclean(partition, false);
        }
    }

    /// Takes an eligible replica, else any that is able; one that a reassignment adds comes last, for it may have
    /// nothing yet. A person may choose even a copy that cannot be opened, where there is no other: its broker goes on
    /// from what can be read of it, and says so by being online again (KIP-704).
    pub(super) fn elect_unclean(&self, partition: &mut Partition, by_a_person: bool) {
        reached("unclean-election");
        let mut able: Vec<BrokerId> = partition
            .replicas
            .iter()
            .copied()
            .filter(|&replica| self.image.is_able(partition, replica))
            .collect();
        let is_any = !able.is_empty();
        if !is_any && by_a_person {
            let replicas = partition.replicas.iter().copied();
            able = replicas
                .filter(|replica| self.image.is_active(*replica))
                .collect();
        }
        able.sort_by_key(|replica| {
            (
                !partition.elr.contains(replica),
                partition.adding.contains(replica),
            )
        });
        let Some(&leader) = able.first() else { return };
        if !is_any || !partition.elr.contains(&leader) {
            // What the others had and this one lacks is lost by this very decision: nobody else is eligible.
            partition.elr.clear();
        }
        self.set_isr(partition, vec![leader]);
        partition.leader = Some(leader);
    }

    /// Lets go what was given up; where the leader does not ask for it, what of that does not count any more. What is needed
    /// stays, until it is not, or until the target is in sync. True where somebody went.
    fn let_go(&self, by: By, partition: &mut Partition) -> bool {
        let counts = |one: &BrokerId| partition.isr.contains(one) || partition.elr.contains(one);
        let goes = |one: &BrokerId| by == By::Leader || !counts(one);
        let going: Vec<BrokerId> = partition.given_up().filter(goes).collect();
        // Nobody who is in sync resigns for one who is not, and be it that the topic elects unclean.
        let nobody_stays = by == By::Leader && without(&partition.isr, &going).is_empty();
        if going.is_empty() || nobody_stays {
            return false;
        }
        let rest = self.without(partition, &going);
        rest.is_ok_and(|rest| {
            *partition = rest;
            true
        })
    }

    /// Ends a reassignment once the in-sync set covers its target, as Kafka does; where that takes somebody away who is in
    /// sync, once the leader asks for it.
    fn complete_reassignment(&self, by: By, partition: &mut Partition) {
        if !partition.is_reassigning() {
            return;
        }
        let target: Vec<BrokerId> = partition.target().collect();
        let mut isr: Vec<BrokerId> = within(&partition.isr, &target);
        if is_planted("reassignment-completes-early") {
            isr = target
                .iter()
                .copied()
                .filter(|&one| self.image.is_active(one))
                .collect();
        } else if isr.len() < target.len() {
            return;
        } else if self.leader_lets_go && by == By::Others && isr.len() < partition.isr.len() {
            reached("reassignment-waits-for-the-leader");
            return;
        }
        if isr.is_empty() {
            return;
        }
        partition.elr = within(&partition.elr, &target);
        partition.replicas = target;
        partition.adding.clear();
        partition.removing.clear();
        reached("reassignment-complete");
        self.set_isr(partition, isr);
    }

    /// Begins a reassignment, or gives the one under way another target.
    ///
    /// What the one before was adding and nobody wants any more leaves at once, or as soon as the leader lets it go, unless
    /// it is needed: then it leaves with the others, when the target is in sync.
    pub(super) fn reassign(&self, partition: &mut Partition, target: &[BrokerId]) {
        let unwanted = without(&partition.adding, target);
        let (mut given_up, going) = self.given_up(partition, &unwanted);
        match self.without(partition, &going) {
            Ok(rest) => *partition = rest,
            // A cancel must still know what it goes back to.
            Err(_) if self.leader_lets_go => given_up = unwanted,
            Err(_) => partition.adding = without(&partition.adding, &going),
        }
        let original: Vec<BrokerId> = partition.original().collect();
        partition.removing = without(&partition.replicas, target);
        partition.replicas = [target, &partition.removing].concat();
        let is_added = |one: &BrokerId| given_up.contains(one) || !original.contains(one);
        partition.adding = partition.replicas.iter().copied().filter(is_added).collect();
        self.settle(partition);
    }

    /// Ends a reassignment without what it was adding.
    pub(super) fn cancel_reassignment(&self, partition: &mut Partition) -> Result<(), Refusal> {
        if !partition.is_reassigning() {
            return Err(Refusal::ReassignmentNotFound);
        }
        let adding = partition.adding.clone();
        let refused = Refusal::InvalidReplicaAssignment;
        let original = self.without(partition, &adding).map_err(refused)?;
        let (given_up, going) = self.given_up(partition, &adding);
        if given_up.is_empty() {
            *partition = original;
            partition.removing.clear();
        } else {
            *partition = self.without(partition, &going).map_err(refused)?;
            partition.replicas = [original.replicas, given_up.clone()].concat();
            partition.adding.clone_from(&given_up);
            partition.removing = given_up;
        }
        self.settle(partition);
        Ok(())
    }

    /// Of what nobody wants any more, what the leader has to let go first, and the rest.
    fn given_up(&self, partition: &Partition, unwanted: &[BrokerId]) -> (Vec<BrokerId>, Vec<BrokerId>) {
        if !self.leader_lets_go {
            return (Vec::new(), unwanted.to_vec());
        }
        (
            within(unwanted, &partition.isr),
            without(unwanted, &partition.isr),
        )
    }

    /// The partition without some of its replicas.
    ///
    /// # Errors
    /// Where that loses the last copy that may lead, or the last leader, and the topic does not allow it; or takes copies
    /// below `min.insync.replicas`. What was acknowledged is on so many disks, and a change of mind is no reason that it
    /// should not be any more: Kafka does that.
    fn without(&self, partition: &Partition, leaving: &[BrokerId]) -> Result<Partition, String> {
        let mut rest = Partition {
            replicas: without(&partition.replicas, leaving),
            adding: without(&partition.adding, leaving),
            removing: without(&partition.removing, leaving),
            isr: without(&partition.isr, leaving),
            elr: without(&partition.elr, leaving),
            ..partition.clone()
        };
        // Kafka's words, with the partition's name before them.
        const UNCLEAN: &str =
            "unable to revert the partition's assignment because it would require an unclean leader election";
        let copies = |partition: &Partition| partition.isr.len() + partition.elr.len();
        let (before, after) = (copies(partition), copies(&rest));
        if before > 0 && after == 0 && !self.unclean {
            return Err(UNCLEAN.to_owned());
        }
        let needed = partition.min_insync_replicas(self.min_insync);
        if after < before.min(needed) && !self.unclean && !is_planted("given-up-move-takes-copies") {
            reached("given-up-move-keeps-a-copy");
            return Err(format!(
                "unable to revert the partition's assignment because it would leave {after} complete copies, and \
                 min.insync.replicas is {needed}: bring a replica back, or give the reassignment another target"
            ));
        }
        let isr = rest.isr.clone();
        self.set_isr(&mut rest, isr);
        self.elect(&mut rest);
        if rest.leader.is_none() && partition.leader.is_some() {
            return Err(UNCLEAN.to_owned());
        }
        Ok(rest)
    }
}

impl Image {
    /// The leader may let go what was given up of this partition: with the in-sync set as it is nobody needs it.
    #[must_use]
    pub fn may_let_go(&self, topic: &Topic, partition: &Partition) -> bool {
        let is_given_up = partition.given_up().next().is_some();
        is_given_up && Rules::of(self, topic).let_go(By::Leader, &mut partition.clone())
    }
}

/// `list` without `others`, in its order.
fn without(list: &[BrokerId], others: &[BrokerId]) -> Vec<BrokerId> {
    list.iter().copied().filter(|one| !others.contains(one)).collect()
}

/// What is in `list` and in `others`, in the order of `list`.
fn within(list: &[BrokerId], others: &[BrokerId]) -> Vec<BrokerId> {
    list.iter().copied().filter(|one| others.contains(one)).collect()
}
