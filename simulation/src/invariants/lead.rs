//! What a leader goes by, and what the metadata says: who counts, who joins, who leads no more.

use skerry::partition::{LeadLook, Look, Part};
use skerry_metadata_state::Partition;
use skerry_types::{BrokerEpoch, BrokerId};

use super::ghost::{Ghost, Nodes};
use super::{Found, id_of, place_of};

impl Ghost {
    /// What leaders commit, and by whom. After all replicas were looked at: what one has is compared with what others
    /// say of it.
    pub(super) fn check_leads(&mut self, nodes: Nodes<'_>, found: &mut Found) {
        for (node, last) in std::mem::take(&mut self.led) {
            let look = self.replicas.get(node).and_then(|replica| replica.last.clone());
            if let Some(look) = look {
                self.check_rules(node, &look, last.as_ref(), nodes, found);
            }
        }
    }

    fn check_rules(
        &mut self,
        node: usize,
        look: &Look,
        last: Option<&Look>,
        nodes: Nodes<'_>,
        found: &mut Found,
    ) {
        let (Part::Leads(epoch), Some(lead)) = (look.part, &look.lead) else {
            return;
        };
        self.epoch_starts
            .entry(epoch.get())
            .or_insert(lead.epoch_start.get());
        self.check_fenced(node, epoch.get(), look, nodes, found);
        if lead.asks {
            self.asked = Some((lead.partition_epoch, lead.asked.clone()));
        }
        let Some(placed) = self.placed.clone() else { return };
        // Only of the leader that the newest metadata names: another one may know an older set.
        if placed.leader_epoch == epoch && placed.leader == Some(id_of(node)) {
            self.check_counted(node, lead, &placed, nodes, found);
            self.check_set(node, lead, &placed, nodes, found);
        }
        let Some(last) = last.filter(|last| last.part == look.part) else {
            return;
        };
        if let Some(before) = last
            .lead
            .as_ref()
            .filter(|_| look.high_watermark > last.high_watermark)
        {
            self.check_advance(node, look, (before, lead), nodes, found);
            // What a member of another epoch has says nothing: its copy may have started over.
            if placed.leader_epoch == epoch {
                self.check_members(node, look, (before, lead), &placed.isr, nodes, found);
            }
        }
    }

    /// A leader that was replaced commits nothing beyond the place where its successor began (17).
    fn check_fenced(&self, node: usize, epoch: i32, look: &Look, (names, _): Nodes<'_>, found: &mut Found) {
        let high = look.high_watermark.get();
        let mut later = self.epoch_starts.range(epoch + 1..);
        if let Some((later, start)) = later.find(|(_, start)| **start < high) {
            found.push((
                "stale-leader-commits",
                format!(
                    "{} leads {} in epoch {epoch} and has committed up to {high}; the leader of epoch {later} began at \
                     {start}",
                    names[node], self.name
                ),
            ));
        }
    }

    /// A node has just answered acks=all for everything before `end`: it is committed (9), and no successor of the leader that it
    /// still takes itself for began before that (17). That every member has it, `check_members` says.
    pub(super) fn check_acknowledged(&self, node: usize, end: i64, names: &[String], found: &mut Found) {
        let look = self.replicas.get(node).and_then(|replica| replica.last.as_ref());
        let Some(look) = look else { return };
        let Part::Leads(epoch) = look.part else {
            // It resigned in this step: what it has committed and acknowledged before, its own high watermark says.
            let committed = self.end().max(look.high_watermark.get());
            if end > committed {
                found.push((
                    "acknowledged-uncommitted",
                    format!(
                        "{} has acknowledged {} up to {end}, which is committed up to {committed} ({look:?})",
                        names[node], self.name
                    ),
                ));
            }
            return;
        };
        let mut later = self.epoch_starts.range(epoch.get() + 1..);
        if let Some((later, start)) = later.find(|(_, start)| **start < end) {
            found.push((
                "stale-leader-acknowledges",
                format!(
                    "{} has acknowledged {} up to {end} in epoch {epoch}; the leader of epoch {later} began at {start}",
                    names[node], self.name
                ),
            ));
        }
        if look.high_watermark.get() < end {
            found.push((
                "acknowledged-uncommitted",
                format!(
                    "{} has acknowledged {} up to {end}, which is committed up to {}",
                    names[node], self.name, look.high_watermark
                ),
            ));
        }
    }

    /// A node has just told a reader of everything before `end`: that is committed, whoever leads (18). What a leader has
    /// committed and told in the step in which it resigned, its own high watermark alone says (3331 of any size, 60 s).
    pub(super) fn check_served(&self, node: usize, end: i64, names: &[String], found: &mut Found) {
        let look = self.replicas.get(node).and_then(|replica| replica.last.as_ref());
        let Some(look) = look else { return };
        let committed = match look.part {
            Part::Leads(_) => self.end(),
            Part::Follows(_) | Part::Nothing => self.end().max(look.high_watermark.get()),
        };
        if end > committed {
            found.push((
                "served-uncommitted",
                format!(
                    "{} has told a reader of {} up to {end}, which is committed up to {committed} ({look:?})",
                    names[node], self.name
                ),
            ));
        }
    }

    /// Nobody is in sync whom the leader does not wait for (6).
    fn check_counted(
        &self,
        node: usize,
        lead: &LeadLook,
        placed: &Partition,
        (names, _): Nodes<'_>,
        found: &mut Found,
    ) {
        if let Some(missing) = placed.isr.iter().find(|id| !lead.counted.contains(id)) {
            found.push((
                "member-not-counted",
                format!(
                    "{} leads {} and does not wait for n{}, which is in sync: {lead:?}, {placed:?}",
                    names[node],
                    self.name,
                    missing.get()
                ),
            ));
        }
    }

    /// Who counts and is not in sync has been asked for; and of one partition epoch the leader and the metadata know the same
    /// set (6).
    fn check_set(
        &self,
        node: usize,
        lead: &LeadLook,
        placed: &Partition,
        (names, _): Nodes<'_>,
        found: &mut Found,
    ) {
        let same = |one: &[BrokerId], two: &[BrokerId]| {
            one.iter().all(|id| two.contains(id)) && two.iter().all(|id| one.contains(id))
        };
        let is_current = lead.partition_epoch == placed.partition_epoch;
        if (!lead.asks && !same(&lead.counted, &lead.in_sync))
            || (is_current && !same(&lead.in_sync, &placed.isr))
        {
            found.push((
                "in-sync-set-differs",
                format!("{} leads {}: {lead:?}, {placed:?}", names[node], self.name),
            ));
        }
    }

    /// The high watermark moves with enough members in sync (7, KIP-966).
    fn check_advance(
        &self,
        node: usize,
        look: &Look,
        (before, now): (&LeadLook, &LeadLook),
        (names, _): Nodes<'_>,
        found: &mut Found,
    ) {
        // It moved at some moment between the two looks: perhaps in a partition epoch that came and went in between.
        let few = |lead: &LeadLook| lead.in_sync.len() < lead.min_in_sync;
        let mut between = before.partition_epoch.get() + 1..now.partition_epoch.get();
        let enough = |epoch| self.sizes.get(&epoch).is_none_or(|size| *size >= now.min_in_sync);
        if few(now) && few(before) && !between.any(enough) {
            found.push((
                "committed-by-too-few",
                format!(
                    "{} on {} has moved to {}: {now:?}",
                    self.name, names[node], look.high_watermark
                ),
            ));
        }
    }

    /// The high watermark does not move past a member (7). Whom the leader only asks for may have lost with the power
    /// what was not on its disk: then it has registered again, and is not taken (KIP-903).
    fn check_members(
        &mut self,
        node: usize,
        look: &Look,
        (before, now): (&LeadLook, &LeadLook),
        in_sync: &[BrokerId],
        nodes: Nodes<'_>,
        found: &mut Found,
    ) {
        let counts =
            |id: &&BrokerId| before.counted.contains(id) && (now.waits_for_disks || in_sync.contains(id));
        for id in now.counted.iter().filter(counts) {
            let end = place_of(*id).and_then(|place| self.end_that_counts(place, nodes.1));
            let Some(end) = end else { continue };
            if end < look.high_watermark.get() {
                found.push((
                    "committed-past-a-member",
                    format!(
                        "{} on {} is committed up to {}, and n{} has it up to {end}: {now:?}",
                        self.name,
                        nodes.0[node],
                        look.high_watermark,
                        id.get()
                    ),
                ));
            }
        }
    }

    /// Who joins the in-sync set has what is committed, and what the leader began with (15): earlier leaders may have
    /// committed that without its knowing (KIP-207).
    /// And it is in sync by the registration that it has now: what an earlier start of it had caught up with may be gone (17,
    /// KIP-903).
    pub(super) fn check_joins(
        &mut self,
        nodes: Nodes<'_>,
        registered: impl Fn(BrokerId) -> Option<BrokerEpoch>,
        found: &mut Found,
    ) {
        let (Some(before), Some(now)) = (&self.placed_before, &self.placed) else {
            return;
        };
        let same = before.leader == now.leader && before.leader_epoch == now.leader_epoch;
        let asked = self.asked.as_ref();
        // Of the proposals that were made at an epoch one at most is committed, and nothing else between.
        let asked = asked.filter(|(epoch, _)| same && *epoch == before.partition_epoch);
        for (id, asked) in asked.iter().flat_map(|(_, asked)| asked) {
            let joined = now.isr.contains(id) && !before.isr.contains(id);
            let current = registered(*id).filter(|current| joined && current != asked);
            if let Some(current) = current {
                found.push((
                    "old-registration-joins",
                    format!(
                        "n{} is in sync for {} by its registration {asked}, and has registered again: {current}",
                        id.get(),
                        self.name
                    ),
                ));
            }
        }
        let leader = now.leader.and_then(place_of).filter(|_| same);
        let Some(look) = leader.and_then(|node| self.replicas.get(node)?.last.clone()) else {
            return;
        };
        let Some(lead) = look
            .lead
            .as_ref()
            .filter(|_| look.part == Part::Leads(now.leader_epoch))
        else {
            return;
        };
        let needed = look.high_watermark.max(lead.epoch_start).get();
        let joined: Vec<BrokerId> = now
            .isr
            .iter()
            .filter(|id| !before.isr.contains(id))
            .copied()
            .collect();
        for id in joined {
            let end = place_of(id).and_then(|place| self.end_that_counts(place, nodes.1));
            if end.is_some_and(|end| end < needed) {
                found.push((
                    "joined-too-early",
                    format!(
                        "n{} is in sync for {} and has records up to {end:?}, not up to {needed}: {lead:?}",
                        id.get(),
                        self.name
                    ),
                ));
            }
        }
    }
}
