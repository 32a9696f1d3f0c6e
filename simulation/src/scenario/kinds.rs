//! The kinds of fault in one table: what draws them, what switches them on and off, and what tells of them read it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// What a fault is a fault of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Links and connections.
    Net,
    /// The power, and with it what no disk had synced.
    Power,
    /// Disks.
    Disk,
    /// Clocks.
    Clock,
    /// Processes.
    Process,
    /// Who belongs to the cluster.
    Membership,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Net,
        Self::Power,
        Self::Disk,
        Self::Clock,
        Self::Process,
        Self::Membership,
    ];

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Power => "power",
            Self::Disk => "disk",
            Self::Clock => "clock",
            Self::Process => "process",
            Self::Membership => "membership",
        }
    }

    /// The kinds in it.
    pub fn kinds(self) -> impl Iterator<Item = &'static Kind> {
        KINDS.iter().filter(move |kind| kind.group == self)
    }
}

/// How many seeds have a kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rate {
    /// Half of those with one node, two of five of those with several.
    Often,
    /// One of five: it takes so much away that little else is seen.
    Seldom,
    /// All that go beyond the contract, and no other: see `Regime`.
    Beyond,
}

/// One kind of fault.
#[derive(Debug)]
pub struct Kind {
    /// As it is written.
    pub name: &'static str,
    /// What it belongs to.
    pub group: Group,
    /// Its draws come from a stream of this number, which no other has: nothing moves the draws of the others.
    pub(super) stream: u64,
    pub(super) rate: Rate,
    /// The most that a seed of one node has; 0: it has none.
    pub(super) most_alone: u64,
    /// The most that a seed of several nodes has.
    pub(super) most_of_several: u64,
}

const fn kind(
    stream: u64,
    name: &'static str,
    group: Group,
    rate: Rate,
    (most_alone, most_of_several): (u64, u64),
) -> Kind {
    Kind {
        name,
        group,
        stream,
        rate,
        most_alone,
        most_of_several,
    }
}

/// All kinds. A new one takes a number that nobody has; an old one keeps its own.
pub const KINDS: [Kind; 55] = [
    kind(1, "kill", Group::Process, Rate::Often, (3, 4)),
    kind(2, "power-cut", Group::Power, Rate::Often, (3, 3)),
    kind(3, "double-power-cut", Group::Power, Rate::Often, (1, 1)),
    kind(4, "restart", Group::Process, Rate::Often, (2, 3)),
    kind(5, "die-in", Group::Process, Rate::Often, (4, 3)),
    kind(6, "clock-jump", Group::Clock, Rate::Often, (2, 2)),
    kind(7, "clock-drift", Group::Clock, Rate::Often, (1, 1)),
    kind(8, "slow-link", Group::Net, Rate::Often, (2, 2)),
    kind(9, "held-link", Group::Net, Rate::Often, (3, 2)),
    kind(10, "cut-link", Group::Net, Rate::Often, (3, 2)),
    kind(11, "flapping-link", Group::Net, Rate::Often, (1, 1)),
    kind(12, "bad-connections", Group::Net, Rate::Often, (2, 2)),
    kind(13, "disk-stall", Group::Disk, Rate::Often, (2, 2)),
    kind(14, "slow-disk", Group::Disk, Rate::Often, (2, 2)),
    kind(15, "disk-full", Group::Disk, Rate::Often, (1, 1)),
    kind(16, "sync-fails", Group::Disk, Rate::Seldom, (1, 1)),
    kind(17, "bit-rot", Group::Disk, Rate::Seldom, (1, 1)),
    kind(18, "isolate", Group::Net, Rate::Often, (0, 3)),
    kind(19, "bridge", Group::Net, Rate::Often, (0, 1)),
    kind(20, "pause", Group::Process, Rate::Often, (0, 2)),
    kind(21, "site-power-cut", Group::Power, Rate::Often, (0, 1)),
    kind(22, "quiet-rot", Group::Disk, Rate::Seldom, (0, 1)),
    kind(60, "bad-sector", Group::Disk, Rate::Seldom, (0, 1)),
    kind(61, "misdirected-write", Group::Disk, Rate::Seldom, (0, 1)),
    kind(62, "write-fails", Group::Disk, Rate::Seldom, (1, 1)),
    kind(63, "read-fails", Group::Disk, Rate::Seldom, (1, 2)),
    kind(64, "read-flips", Group::Disk, Rate::Seldom, (1, 2)),
    kind(65, "throttle", Group::Disk, Rate::Often, (1, 2)),
    kind(67, "rot-of-all-copies", Group::Disk, Rate::Beyond, (0, 1)),
    kind(68, "in-sync-copies-lost", Group::Disk, Rate::Beyond, (0, 1)),
    kind(69, "lying-syncs", Group::Disk, Rate::Beyond, (0, 1)),
    kind(70, "wiped-majority", Group::Membership, Rate::Beyond, (0, 1)),
    kind(71, "lying-voter", Group::Disk, Rate::Beyond, (0, 1)),
    kind(66, "metadata-sync-fails", Group::Disk, Rate::Seldom, (1, 1)),
    kind(72, "metadata-rot", Group::Disk, Rate::Seldom, (1, 1)),
    kind(41, "split", Group::Net, Rate::Seldom, (0, 2)),
    kind(42, "ring", Group::Net, Rate::Often, (0, 1)),
    kind(43, "no-clients", Group::Net, Rate::Seldom, (0, 2)),
    kind(44, "controller-link", Group::Net, Rate::Seldom, (0, 2)),
    kind(45, "coordinator-link", Group::Net, Rate::Seldom, (0, 2)),
    kind(46, "swizzle", Group::Net, Rate::Seldom, (0, 1)),
    kind(47, "late-link", Group::Net, Rate::Often, (2, 2)),
    kind(48, "outage", Group::Process, Rate::Seldom, (1, 2)),
    kind(49, "crash-loop", Group::Process, Rate::Seldom, (1, 1)),
    kind(50, "rolling-restart", Group::Process, Rate::Seldom, (0, 1)),
    kind(51, "clock-strobe", Group::Clock, Rate::Seldom, (1, 1)),
    kind(52, "clock-freeze", Group::Clock, Rate::Seldom, (1, 1)),
    kind(53, "clock-noise", Group::Clock, Rate::Seldom, (1, 1)),
    kind(54, "clock-swing", Group::Clock, Rate::Seldom, (1, 1)),
    kind(55, "clock-wander", Group::Clock, Rate::Seldom, (1, 1)),
    kind(56, "corrupt-batches", Group::Net, Rate::Seldom, (2, 2)),
    kind(57, "wiped-disk", Group::Membership, Rate::Seldom, (0, 2)),
    kind(73, "index-rot", Group::Disk, Rate::Seldom, (1, 2)),
    kind(74, "leaves", Group::Membership, Rate::Often, (0, 1)),
    kind(58, "swapped-disks", Group::Membership, Rate::Seldom, (0, 1)),
];

/// True for a kind that is more than a cluster must bear.
pub(super) fn is_beyond(kind: &str) -> bool {
    KINDS
        .iter()
        .any(|known| known.name == kind && known.rate == Rate::Beyond)
}

/// Kinds of fault as a person writes them: names of kinds and of groups, `all`, or `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kinds {
    written: String,
    names: BTreeSet<&'static str>,
}

impl Kinds {
    /// True where this kind is among them.
    #[must_use]
    pub fn have(&self, kind: &str) -> bool {
        self.names.contains(kind)
    }
}

impl Default for Kinds {
    fn default() -> Self {
        Self {
            written: "all".to_owned(),
            names: KINDS.iter().map(|kind| kind.name).collect(),
        }
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

impl FromStr for Kinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut names = BTreeSet::new();
        for word in text.split(',').map(str::trim) {
            let group = Group::ALL.into_iter().find(|group| group.name() == word);
            let of_group = |kind: &&Kind| group == Some(kind.group) || kind.name == word || word == "all";
            let before = names.len();
            names.extend(KINDS.iter().filter(of_group).map(|kind| kind.name));
            if names.len() == before && group.is_none() && word != "none" && !names.contains(word) {
                return Err(format!(
                    "{word:?} is no kind of fault; there are all, none, and\n{}",
                    list()
                ));
            }
        }
        Ok(Self {
            written: text.split_whitespace().collect(),
            names,
        })
    }
}

/// Every group with its kinds, a line each.
#[must_use]
pub fn list() -> String {
    let lines = Group::ALL.into_iter().map(|group| {
        let kinds: Vec<_> = group.kinds().map(|kind| kind.name).collect();
        format!("  {:<11} {}", group.name(), kinds.join(", "))
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<&'static str> {
        text.parse::<Kinds>().unwrap().names.into_iter().collect()
    }

    #[test]
    fn kinds_are_named_by_themselves_or_by_their_group() {
        let mut clocks: Vec<_> = Group::Clock.kinds().map(|kind| kind.name).collect();
        clocks.push("kill");
        clocks.sort_unstable();
        assert_eq!(names("kill, clock"), clocks);
        assert_eq!(names("power").len(), Group::Power.kinds().count());
        assert_eq!(names("all").len(), KINDS.len());
        assert_eq!(names("kill,kill"), ["kill"]);
        assert_eq!(names("none"), [""; 0]);
        assert_eq!("kill, clock".parse::<Kinds>().unwrap().to_string(), "kill,clock");
    }

    #[test]
    fn who_names_a_kind_that_there_is_not_is_told_which_there_are() {
        let told = "kill,floods".parse::<Kinds>().unwrap_err();
        assert!(told.starts_with("\"floods\" is no kind of fault"), "{told}");
        for kind in KINDS {
            assert!(told.contains(kind.name), "{told}");
        }
        assert!("".parse::<Kinds>().is_err());
    }

    #[test]
    fn every_kind_has_a_name_and_a_stream_of_its_own() {
        let names: BTreeSet<_> = KINDS.iter().map(|kind| kind.name).collect();
        let streams: BTreeSet<_> = KINDS.iter().map(|kind| kind.stream).collect();
        assert_eq!((names.len(), streams.len()), (KINDS.len(), KINDS.len()));
    }
}
