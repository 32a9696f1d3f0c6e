//! Tells what happens, where somebody will look (`story`).

use super::World;
use crate::process::State;
use crate::scenario::Timed;
use crate::story::{NodeState, Seen, Teller, What, describe};

impl World<'_> {
    /// From now on the story is told.
    pub(super) fn begin_story(&mut self) {
        let names = self.nodes.iter().map(|node| node.name.clone()).collect();
        self.story = Some(Teller::new(names));
        self.tell_phase("faults and load");
    }

    pub(super) fn tell_phase(&mut self, name: &str) {
        let at = self.now_ms * 1_000;
        if let Some(story) = &mut self.story {
            story.tell(
                at,
                What::Phase {
                    name: name.to_owned(),
                },
            );
        }
    }

    /// This fault begins, and hits these nodes.
    pub(super) fn tell_fault(&mut self, number: usize, timed: &Timed, hit: &[usize]) {
        let at = self.now_ms * 1_000;
        let Some(story) = &mut self.story else { return };
        let described = describe(&timed.fault);
        let what = What::Fault {
            number,
            what: described.text,
            whom: timed.on.to_string(),
            nodes: hit.to_vec(),
            host: described.host,
            for_ms: described.for_ms,
        };
        story.tell(at, what);
    }

    /// Looks at the nodes after a step.
    pub(super) fn tell_nodes(&mut self) {
        let at = self.now_ms * 1_000;
        let Some(story) = &mut self.story else { return };
        let seen = self.nodes.iter().map(|node| {
            let state = match node.process.state() {
                State::Down | State::Stopped | State::Exited(_) => NodeState::Down,
                _ if node.host.gate.is_closed() => NodeState::Paused,
                State::Starting => NodeState::Starting,
                State::Serving => NodeState::Serving,
                State::Stopping => NodeState::Stopping,
            };
            let broker = node.process.broker();
            Seen { state, broker }
        });
        let seen: Vec<_> = seen.collect();
        story.look(at, &seen);
    }
}
