//! The metadata as all nodes together have it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skerry::broker::Broker;
use skerry_metadata::{Durable, QuorumStatus, Role, WalMark};
use skerry_metadata_state::{Image, Partition};
use skerry_types::{BrokerEpoch, BrokerId, IncarnationId, Uuid};

use super::{Found, id_of, place_of};

/// How many of the last images are kept, to be compared with those of slower nodes.
const IMAGES_KEPT: usize = 256;

/// A message is under way for no longer than this, and an election that it begins.
const ON_ITS_WAY_MS: u64 = 1_000;

/// One of so many images is written as a snapshot, and read again.
const SNAPSHOTS_ONE_IN: u64 = 4;

/// What one process was seen to know.
#[derive(Clone, Copy, Default)]
pub(super) struct Known {
    /// The last entry that it has applied.
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) committed: u64,
}

/// What a node tells of the quorum.
pub(super) struct News {
    pub(super) status: QuorumStatus,
    /// The term of its vote, which it takes to be on its disk: only then does openraft name it. The term of `status` is the one
    /// that it is in: behind a disk that stands still, or without room, it knows newer ones, and says nothing in them.
    pub(super) voted: u64,
    /// Who made the last entry that it knows to be committed.
    pub(super) committed_by: Option<MadeBy>,
    /// Of one that has just begun to lead: who made the entry that it has in the place of the last one that anybody knew to be
    /// committed.
    pub(super) holds: Option<MadeBy>,
}

/// The term, and the node that led in it.
pub(super) type MadeBy = (u64, BrokerId);

/// The newest metadata that any node had, and what followed it.
#[derive(Default)]
pub(super) struct MetadataWatch {
    /// By the entry that made them; the last is the newest.
    images: BTreeMap<u64, Arc<Image>>,
    known: BTreeMap<usize, Known>,
    pub(super) quorum: QuorumWatch,
    /// Nodes whose process was not told to end. Their next registration says so.
    crashed: BTreeSet<BrokerId>,
    /// How many images there were.
    seen: u64,
    /// The newest that a majority had decided which was lost: nothing that it gave out is given out again.
    lost: Option<Arc<Image>>,
    registrations: Registrations,
}

/// Whose registration each epoch of a broker is: the number, the start, and the disk.
pub(super) type Registrations = BTreeMap<BrokerEpoch, (BrokerId, IncarnationId, Uuid)>;

/// What is true of the quorum itself (24).
#[derive(Default)]
pub(super) struct QuorumWatch {
    /// In which term who led.
    leaders: BTreeSet<(u64, BrokerId)>,
    /// The newest term that any node was seen in: its leader may not be watched yet, while it starts.
    newest_term: u64,
    /// The last entry that anybody knew to be committed, and who made it.
    committed: u64,
    committed_by: Option<MadeBy>,
    /// Who voted when that was.
    voters: Vec<BrokerId>,
    /// What was on disks that are lost, and by which directory the quorum knew them.
    lost: BTreeMap<usize, LostVote>,
    /// Nodes that hear nobody: since when, and in which term they were when all that was on its way had come.
    deaf: BTreeMap<usize, (u64, Option<u64>)>,
}

/// A voter's disk that is lost.
struct LostVote {
    durable: Durable,
    /// While the quorum knows the node by this directory, nobody may take part in it under its number.
    directory: Option<Uuid>,
}

impl MetadataWatch {
    pub(super) fn newest(&self) -> Option<Arc<Image>> {
        self.images.last_key_value().map(|(_, image)| image.clone())
    }

    /// A person goes on from this node's log alone: what it lacks was not decided.
    pub(super) fn on_recovered(&mut self, survivor: usize) {
        self.lost = self.newest();
        self.images.clear();
        self.known.clear();
        // They are places in the log: the survivor's goes on where it ends.
        self.registrations.clear();
        (self.quorum.committed, self.quorum.committed_by) = (0, None);
        self.quorum.voters = vec![id_of(survivor)];
    }

    pub(super) fn on_down(&mut self, node: usize) {
        self.known.remove(&node);
    }

    pub(super) fn on_crash(&mut self, node: usize) {
        self.crashed.insert(id_of(node));
    }

    /// True where the newest metadata is newer than at the last look.
    pub(super) fn look(
        &mut self,
        brokers: &[Option<Arc<Broker>>],
        marks: &[WalMark],
        found: &mut Found,
    ) -> bool {
        let mut moved = false;
        let mut news = Vec::new();
        for (node, broker) in brokers.iter().enumerate() {
            let Some(broker) = broker else { continue };
            let leadership = broker.quorum().leadership();
            let image = broker.quorum().image();
            let same = |known: &Known| known.index == image.index() && known.term == leadership.term;
            if self.known.get(&node).is_some_and(same) {
                continue;
            }
            let status = broker.quorum().status();
            let now = Known {
                index: image.index(),
                term: leadership.term,
                committed: status.committed_index,
            };
            let before = self.known.insert(node, now).unwrap_or_default();
            check_known(node, &before, &now, found);
            let holds = self.quorum.new_leader(&status).and_then(|_| {
                let committed = self.quorum.committed;
                let entries = broker.quorum().log_entries(committed);
                let held = entries.first().filter(|entry| entry.index == committed);
                held.map(|entry| entry.made_by)
            });
            let committed = broker.quorum().committed();
            let known = committed.filter(|(index, _)| *index == status.committed_index);
            news.push(News {
                status,
                voted: leadership.term,
                committed_by: known.map(|(_, made_by)| made_by),
                holds,
            });
            moved |= self.follow(image, found);
        }
        if !news.is_empty() {
            let durable: Vec<Durable> = marks.iter().map(WalMark::durable).collect();
            self.quorum.look(&news, &durable, found);
        }
        if self.quorum.misses_a_disk() {
            let durable: Vec<Durable> = marks.iter().map(WalMark::durable).collect();
            self.quorum.check_lost(&statuses(brokers), &durable, found);
        }
        moved
    }

    /// One node has this metadata. True where nobody had newer one.
    pub(super) fn follow(&mut self, image: Arc<Image>, found: &mut Found) -> bool {
        let newest = self.newest();
        if let Some(same) = self.images.get(&image.index()) {
            // The same commands make the same metadata (25).
            if !Arc::ptr_eq(&image, same) && *image != **same {
                found.push((
                    "metadata-differs",
                    format!("two nodes have other metadata after entry {}", image.index()),
                ));
            }
            return false;
        }
        let is_newer = newest
            .as_ref()
            .is_none_or(|newest| image.index() > newest.index());
        if is_newer {
            self.seen += 1;
            if self.seen.is_multiple_of(SNAPSHOTS_ONE_IN) {
                check_snapshot(&image, &image.encode(), found);
            }
            check_image(&image, newest.as_deref(), &mut self.crashed, found);
            check_registered(&image, &mut self.registrations, found);
            if let Some(lost) = &self.lost {
                check_recovered(&image, lost, found);
            }
        }
        self.images.insert(image.index(), image);
        if self.images.len() > IMAGES_KEPT {
            self.images.pop_first();
        }
        is_newer
    }
}

impl QuorumWatch {
    /// Who votes, by the newest that anybody knew.
    pub(super) fn voters(&self) -> &[BrokerId] {
        &self.voters
    }

    /// A disk is lost, with this on it, while the nodes knew this of the quorum. True where its node votes.
    pub(super) fn on_lost(&mut self, node: usize, durable: Durable, known: &[(usize, QuorumStatus)]) -> bool {
        let id = id_of(node);
        let statuses = known.iter().map(|(_, status)| status);
        let newest = statuses.max_by_key(|status| (status.committed_index, status.term));
        let member = newest.and_then(|status| status.member(id));
        let directory = member
            .filter(|member| member.voter)
            .map(|member| member.directory);
        self.lost.insert(node, LostVote { durable, directory });
        self.voters.contains(&id)
    }

    /// The quorum knows some node by a directory that is lost.
    fn misses_a_disk(&self) -> bool {
        self.lost.values().any(|lost| lost.directory.is_some())
    }

    /// Who has lost its disk takes no part under the number of the old one: it would vote twice in a term, and confirm
    /// entries that it has no more. `known` is what the nodes that run know, `durable` what all nodes have on their disks.
    pub(super) fn check_lost(
        &mut self,
        known: &[(usize, QuorumStatus)],
        durable: &[Durable],
        found: &mut Found,
    ) {
        for (node, lost) in &mut self.lost {
            let Some(directory) = lost.directory else {
                continue;
            };
            let is_another = |status: &QuorumStatus| {
                let member = status.member(id_of(*node));
                member.is_none_or(|member| !member.voter || member.directory != directory)
            };
            let mut others = known.iter().filter(|(place, _)| place != node);
            if others.any(|(_, status)| is_another(status)) {
                lost.directory = None;
                continue;
            }
            let durable = durable.get(*node).copied().unwrap_or_default();
            if durable != Durable::default() {
                found.push((
                    "lost-vote-counts",
                    format!(
                        "n{} has lost its disk, and takes part in the quorum as if it had it: {durable:?}",
                        node + 1
                    ),
                ));
                lost.directory = None;
            }
        }
    }

    /// `news` is what some of the nodes have come to know, `durable` what all nodes have on their disks.
    pub(super) fn look(&mut self, news: &[News], durable: &[Durable], found: &mut Found) {
        let before = (self.committed, self.committed_by);
        let terms = news.iter().map(|one| one.status.term);
        self.newest_term = terms.fold(self.newest_term, u64::max);
        for one in news {
            let News { status, voted, .. } = one;
            check_order(status, found);
            self.check_leader(one, before, found);
            self.check_election(status, durable, found);
            let own = place_of(status.node_id).and_then(|node| durable.get(node));
            if let Some(own) = own.filter(|own| own.term < *voted) {
                found.push((
                    "vote-before-durable",
                    format!(
                        "n{} counts on its vote in term {voted}, and its disk knows term {} alone",
                        status.node_id.get(),
                        own.term
                    ),
                ));
            }
            self.commit(one, found);
        }
        if self.committed == before.0 {
            return;
        }
        let statuses = news.iter().map(|news| &news.status);
        let newest = statuses.max_by_key(|status| status.committed_index);
        let voters = newest.map(|status| status.voters().map(|member| member.id).collect());
        let voted_before = std::mem::replace(&mut self.voters, voters.unwrap_or_default());
        // Terms never become less along a log: one that ends with an older entry has another one in that place.
        let has = |own: &Durable| own.last_index >= self.committed && own.made_by >= self.committed_by;
        let copies = |voters: &[BrokerId]| self.count(voters, durable, has);
        // It was committed at some moment between two looks, and so was a change of the voters.
        if [&self.voters, &voted_before]
            .iter()
            .all(|voters| copies(voters) <= voters.len() / 2)
        {
            found.push((
                "entry-committed-before-durable",
                format!(
                    "entry {} of {:?} is committed, and {} of {} voters have it on their disks",
                    self.committed,
                    self.committed_by,
                    copies(&self.voters),
                    self.voters.len()
                ),
            ));
        }
    }

    /// One entry is committed in a place, whoever says so.
    fn commit(&mut self, news: &News, found: &mut Found) {
        let (index, by) = (news.status.committed_index, news.committed_by);
        if index > self.committed {
            (self.committed, self.committed_by) = (index, by);
        }
        let known = self.committed_by.filter(|_| index == self.committed);
        if let (Some(known), Some(by)) = (known, by)
            && known != by
        {
            found.push((
                "raft-logs-differ",
                format!(
                    "n{} knows entry {index} of {by:?} to be committed: {known:?} made it",
                    news.status.node_id.get()
                ),
            ));
        }
    }

    /// How many of these nodes have on their disks, or had on those that are lost since, what `is_enough`.
    fn count(&self, nodes: &[BrokerId], durable: &[Durable], is_enough: impl Fn(&Durable) -> bool) -> usize {
        let has = |id: &&BrokerId| {
            let node = place_of(**id);
            let own = node.and_then(|node| durable.get(node));
            // It was there when the node said so, and the disk was lost since.
            let lost = node.and_then(|node| Some(&self.lost.get(&node)?.durable));
            own.into_iter().chain(lost).any(&is_enough)
        };
        nodes.iter().filter(has).count()
    }

    /// Who leads has the votes of a majority, each on the disk of who gave it, whatever their nodes say.
    fn check_election(&self, status: &QuorumStatus, durable: &[Durable], found: &mut Found) {
        if status.role != Role::Leader {
            return;
        }
        let voters: Vec<BrokerId> = status.voters().map(|member| member.id).collect();
        let votes = |voters: &[BrokerId]| self.count(voters, durable, |own| own.term >= status.term);
        // It was elected at some moment between two looks, and the voters may have changed.
        if [&voters, &self.voters]
            .iter()
            .all(|voters| votes(voters) <= voters.len() / 2)
        {
            found.push((
                "vote-before-durable",
                format!(
                    "n{} leads the quorum in term {}, and {} of {} voters have it on their disks",
                    status.node_id.get(),
                    status.term,
                    votes(&voters),
                    voters.len()
                ),
            ));
        }
    }

    /// Who hears nobody begins no term: nobody has said that it would be elected (pre-vote). Once it is heard again, the
    /// term that it has would cost a leader its office. `term` is that of a node that hears nobody.
    pub(super) fn look_at_deaf(&mut self, node: usize, term: Option<u64>, now_ms: u64, found: &mut Found) {
        let Some(term) = term else {
            self.deaf.remove(&node);
            return;
        };
        let (since_ms, before) = self.deaf.entry(node).or_insert((now_ms, None));
        if now_ms < *since_ms + ON_ITS_WAY_MS {
            return;
        }
        let before = *before.get_or_insert(term);
        if term > before {
            found.push((
                "needless-term",
                format!(
                    "n{} hears nobody, and has gone from term {before} to {term}",
                    node + 1
                ),
            ));
        }
    }

    /// One leads in a term, and has everything that was committed before. Votes are ordered by term and node (openraft's
    /// `leader_id_adv`): in a term a node with a greater number may take the place of one with a smaller one, which then
    /// commits nothing more, and never the reverse.
    fn check_leader(
        &mut self,
        news: &News,
        (committed, committed_by): (u64, Option<MadeBy>),
        found: &mut Found,
    ) {
        let status = &news.status;
        let Some(leader) = status.leader.filter(|_| status.role == Role::Leader) else {
            return;
        };
        let is_new = self.new_leader(status).is_some();
        self.leaders.insert((status.term, leader));
        let newest = self.leaders.last().copied();
        let first = newest.filter(|(term, other)| is_new && *term == status.term && *other > leader);
        if let Some((_, first)) = first {
            found.push((
                "two-controllers",
                format!(
                    "n{} and n{} lead the quorum in term {}",
                    first.get(),
                    leader.get(),
                    status.term
                ),
            ));
        }
        // What it dropped from its log is committed.
        let has_another = news.holds.is_some() && committed_by.is_some() && news.holds != committed_by;
        // Who comes back from a pause may take itself for the leader of a term that has passed (5113 of any size, 60 s).
        let is_newest = newest == Some((status.term, leader)) && status.term == self.newest_term;
        if is_newest && (status.last_log_index < committed || has_another) {
            found.push((
                "incomplete-controller",
                format!(
                    "n{} leads the quorum in term {} with entries up to {}, of {:?} in the place of {committed}; committed \
                     are those up to {committed}, of {committed_by:?}",
                    status.node_id.get(),
                    status.term,
                    status.last_log_index,
                    news.holds
                ),
            ));
        }
    }

    /// Who leads by this, where nobody has seen that before.
    fn new_leader(&self, status: &QuorumStatus) -> Option<MadeBy> {
        let leader = status.leader.filter(|_| status.role == Role::Leader)?;
        Some((status.term, leader)).filter(|led| !self.leaders.contains(led))
    }
}

/// What the nodes that run know of the quorum, by their places.
pub(super) fn statuses(brokers: &[Option<Arc<Broker>>]) -> Vec<(usize, QuorumStatus)> {
    let running = brokers.iter().enumerate();
    let running = running.filter_map(|(node, broker)| Some((node, broker.as_ref()?)));
    running
        .map(|(node, broker)| (node, broker.quorum().status()))
        .collect()
}

/// What is dropped from a log is in the snapshot, what is in the snapshot is applied, what is applied is committed, and what
/// is committed is there (24).
fn check_order(status: &QuorumStatus, found: &mut Found) {
    let order = [
        status.purged_index,
        status.snapshot_index,
        status.applied_index,
        status.committed_index,
        status.last_log_index,
    ];
    if !order.is_sorted() {
        found.push((
            "order-of-the-quorum",
            format!(
                "n{}: purged, snapshot, applied, committed, last: {order:?}",
                status.node_id.get()
            ),
        ));
    }
}

/// What a process knows of the quorum never becomes less (24).
pub(super) fn check_known(node: usize, before: &Known, now: &Known, found: &mut Found) {
    if now.index < before.index || now.term < before.term || now.committed < before.committed {
        found.push((
            "quorum-went-back",
            format!(
                "n{}: term {} applied {} committed {}, after term {} applied {} committed {}",
                node + 1,
                now.term,
                now.index,
                now.committed,
                before.term,
                before.index,
                before.committed
            ),
        ));
    }
}

/// 25: what a snapshot says is what the log has said.
pub(super) fn check_snapshot(image: &Image, snapshot: &[u8], found: &mut Found) {
    match Image::decode(snapshot) {
        Ok(read) if read == *image => {}
        Ok(_) => found.push((
            "snapshot-differs",
            format!("a snapshot of entry {} is read as other metadata", image.index()),
        )),
        Err(error) => found.push(("snapshot-differs", format!("of entry {}: {error}", image.index()))),
    }
}

fn check_image(image: &Image, before: Option<&Image>, crashed: &mut BTreeSet<BrokerId>, found: &mut Found) {
    for topic in image.topics() {
        let old = before
            .and_then(|before| before.topic(&topic.name))
            .filter(|old| old.id == topic.id);
        for (number, partition) in topic.partitions.iter().enumerate() {
            let name = format!("{}-{number}", topic.name);
            check_partition(
                &name,
                partition,
                image.min_insync_replicas(topic, partition),
                image,
                found,
            );
            if let Some(old) = old.and_then(|old| old.partitions.get(number)) {
                check_step(&name, old, partition, found);
            }
        }
    }
    let Some(before) = before else { return };
    for broker in image.brokers() {
        let Some(old) = before.broker(broker.id) else {
            continue;
        };
        if old.epoch > broker.epoch {
            found.push(("broker-epoch-went-back", format!("of n{}", broker.id.get())));
        }
        if old.epoch != broker.epoch {
            check_old_registration(broker.id, (before, image), found);
            let has_crashed = crashed.remove(&broker.id);
            check_registration(
                broker.id,
                old.directory != broker.directory,
                has_crashed,
                (before, image),
                found,
            );
        }
    }
}

/// 26: an epoch belongs to one registration of one broker, for ever.
pub(super) fn check_registered(image: &Image, known: &mut Registrations, found: &mut Found) {
    for broker in image.brokers() {
        let now = (broker.id, broker.incarnation, broker.directory);
        let first = *known.entry(broker.epoch).or_insert(now);
        if first != now {
            found.push((
                "broker-epoch-reused",
                format!(
                    "epoch {} belongs to {first:?}, and to {now:?}",
                    broker.epoch.get()
                ),
            ));
        }
    }
}

/// 17, 26: what a broker was by its old registration ends with it. It may lead again, in another epoch, and be in sync again,
/// by another change.
fn check_old_registration(id: BrokerId, (before, image): (&Image, &Image), found: &mut Found) {
    for topic in image.topics() {
        let old = before.topic(&topic.name).filter(|old| old.id == topic.id);
        let Some(old) = old else { continue };
        for (number, (old, now)) in old.partitions.iter().zip(&topic.partitions).enumerate() {
            let leads = |partition: &Partition| partition.leader == Some(id);
            let goes_on = leads(old) && leads(now) && old.leader_epoch == now.leader_epoch;
            let stays = now.isr.contains(&id) && old.partition_epoch == now.partition_epoch;
            if goes_on || stays {
                found.push((
                    "old-registration-counts",
                    format!(
                        "n{} has registered again, and goes on in {}-{number} as if it had not: {now:?} after {old:?}",
                        id.get(),
                        topic.name
                    ),
                ));
            }
        }
    }
}

/// 16: a copy that is gone, or may lack what was acknowledged before the disk had it, is not in sync and may not be
/// elected before it has caught up. Where it is the only one, nobody else knows more.
pub(super) fn check_registration(
    id: BrokerId,
    is_wiped: bool,
    has_crashed: bool,
    (before, image): (&Image, &Image),
    found: &mut Found,
) {
    for topic in image.topics() {
        let old = before.topic(&topic.name).filter(|old| old.id == topic.id);
        let Some(old) = old else { continue };
        for (number, (old, now)) in old.partitions.iter().zip(&topic.partitions).enumerate() {
            // Others that have registered again at the same time may have been taken out just before.
            let same = |member: BrokerId| {
                let epoch = |image: &Image| image.broker(member).map(|broker| broker.epoch);
                epoch(before) == epoch(image)
            };
            let mut others = old.isr.iter().chain(&old.elr);
            let alone = !others.any(|member| *member != id && same(*member));
            let may_lack = is_wiped || (has_crashed && topic.acknowledges_before_disk() && !alone);
            if may_lack && (now.isr.contains(&id) || now.elr.contains(&id)) {
                found.push((
                    "lost-copy-counts",
                    format!(
                        "n{} has come back {}, and may be elected for {}-{number}: {now:?}",
                        id.get(),
                        if is_wiped {
                            "with another disk"
                        } else {
                            "after a crash"
                        },
                        topic.name
                    ),
                ));
            }
        }
    }
}

/// 13: who is in sync, and who leads.
pub(super) fn check_partition(
    name: &str,
    partition: &Partition,
    min_in_sync: usize,
    image: &Image,
    found: &mut Found,
) {
    let mut wrong = |what: &str| found.push(("wrong-in-sync-set", format!("{name}: {what}: {partition:?}")));
    if partition.isr.iter().any(|id| !partition.replicas.contains(id)) {
        wrong("in sync and no replica");
    }
    if partition.elr.iter().any(|id| !partition.replicas.contains(id)) {
        wrong("eligible and no replica");
    }
    if partition.elr.iter().any(|id| partition.isr.contains(id)) {
        wrong("in sync and eligible for when nobody is");
    }
    if partition.isr.len() >= min_in_sync && !partition.elr.is_empty() {
        wrong("enough are in sync, and somebody else may be elected");
    }
    if partition
        .leader
        .is_some_and(|leader| !partition.isr.contains(&leader))
    {
        wrong("the leader is not in sync");
    }
    if partition.leader.is_some() && partition.isr.iter().any(|id| !image.is_unfenced(*id)) {
        wrong("a fenced broker is in sync");
    }
}

/// After a recovery nobody gets a number that the lost majority has given out: in an epoch that somebody led in nobody
/// leads again, and a producer id has one owner.
pub(super) fn check_recovered(image: &Image, lost: &Image, found: &mut Found) {
    let mut reused = |what: String| found.push(("number-given-out-twice", what));
    if image.cluster_id() != lost.cluster_id() {
        reused("the recovered cluster is another one".to_owned());
    }
    if image.next_producer_id() < lost.next_producer_id() {
        reused(format!(
            "the next producer id is {}, and {} was the next before the recovery",
            image.next_producer_id(),
            lost.next_producer_id()
        ));
    }
    for topic in lost.topics() {
        let Some(now) = image.topic_by_id(topic.id) else {
            continue;
        };
        for (number, (old, new)) in topic.partitions.iter().zip(&now.partitions).enumerate() {
            if new.leader.is_some() && new.leader_epoch <= old.leader_epoch {
                reused(format!("{}-{number}: {new:?} after {old:?} was lost", topic.name));
            }
        }
    }
}

/// 14: epochs grow, and with every change.
fn check_step(name: &str, old: &Partition, new: &Partition, found: &mut Found) {
    let back = new.leader_epoch < old.leader_epoch || new.partition_epoch < old.partition_epoch;
    // While nobody leads, the epoch is that of who led last.
    let same_epoch = new.leader_epoch == old.leader_epoch && new.leader != old.leader && new.leader.is_some();
    let unnoticed = new != old && new.partition_epoch == old.partition_epoch;
    if back || same_epoch || unnoticed {
        found.push(("epochs-must-grow", format!("{name}: {new:?} after {old:?}")));
    }
}
