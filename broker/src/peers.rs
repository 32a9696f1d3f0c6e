//! Log lines about peers that misbehave: each says who and why, and none floods the log.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_env::Clock;
use skerry_types::Instant;

/// At most one line for each peer in this time.
const QUIET: Duration = Duration::from_secs(10);
/// Peers that are remembered. The oldest is forgotten first: a flood from many addresses stays bounded in memory.
const PEERS_MAX: usize = 1024;

/// Remembers when each peer was last complained about.
#[derive(Default)]
pub struct Complaints {
    peers: Mutex<BTreeMap<IpAddr, Complaint>>,
}

struct Complaint {
    at: Instant,
    unsaid: u64,
}

impl Complaints {
    /// Logs `line` as a warning, unless `peer` had one a moment ago.
    pub fn tell(&self, clock: &Clock, peer: IpAddr, line: impl FnOnce() -> String) {
        if let Some(unsaid) = self.due(clock.now(), peer) {
            let line = line();
            if unsaid == 0 {
                tracing::warn!("{line}")
            } else {
                tracing::warn!(unsaid, "{line}")
            }
        }
    }

    /// `Some(lines not written since the last one)` if a line is due.
    fn due(&self, now: Instant, peer: IpAddr) -> Option<u64> {
        let mut peers = self.peers.lock();
        if let Some(complaint) = peers.get_mut(&peer) {
            if now.since(complaint.at) < QUIET {
                complaint.unsaid += 1;
                return None;
            }
            let unsaid = complaint.unsaid;
            *complaint = Complaint { at: now, unsaid: 0 };
            return Some(unsaid);
        }
        if peers.len() >= PEERS_MAX {
            let oldest = peers
                .iter()
                .min_by_key(|(_, complaint)| complaint.at)
                .map(|(ip, _)| *ip);
            oldest.and_then(|ip| peers.remove(&ip));
        }
        peers.insert(peer, Complaint { at: now, unsaid: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_complained_about_once_in_a_while() {
        let complaints = Complaints::default();
        let peer: IpAddr = [127, 0, 0, 9].into();
        let due = |ms| complaints.due(Instant::from_millis(ms), peer);
        assert_eq!(due(0), Some(0));
        assert_eq!((due(1), due(9_999)), (None, None));
        assert_eq!(due(10_000), Some(2));
        assert_eq!(
            complaints.due(Instant::from_millis(1), [127, 0, 0, 8].into()),
            Some(0)
        );
    }
}
