//! One host's world behind `skerry_env`: what the shipped code runs on.
#![expect(clippy::disallowed_methods, reason = "the simulator's side of the seams")]

mod clock;
mod corrupt;
mod gate;
mod net;
mod tasks;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use skerry_env::{Clock, Env, Network, Rng, Tasks};

pub use self::clock::{HostClock, WallFault};
pub use self::corrupt::{Corrupted, Course};
pub use self::gate::Gate;
pub use self::net::{LinkFaults, NetControl, Tap};
use crate::disk::SimDisk;
use crate::trace::Trace;

/// What the world keeps of a host between its starts.
#[derive(Clone)]
pub struct Host {
    /// Its name in the network and in the trace.
    pub name: Arc<str>,
    /// Its clocks.
    pub clock: HostClock,
    /// Its disk.
    pub disk: SimDisk,
    /// Its sockets.
    pub net: NetControl,
    /// Stops its process.
    pub gate: Gate,
    /// Where what it does is written down.
    pub trace: Trace,
    rng: Rng,
}

impl Host {
    /// A host whose every draw comes from `rng`.
    #[must_use]
    pub fn new(name: &str, disk: SimDisk, net: NetControl, rng: Rng, trace: Trace) -> Self {
        let clock = HostClock::new(trace.time().clone());
        Self {
            name: name.into(),
            clock,
            disk,
            net,
            gate: Gate::default(),
            trace,
            rng,
        }
    }

    /// The environment of a process that starts now on this host.
    #[must_use]
    pub fn boot(&self) -> Env {
        let rng = Rng::seeded(self.rng.u64());
        Env {
            clock: Clock::new(Arc::new(self.clock.clone())),
            tasks: Tasks::new(Arc::new(tasks::SimTasks {
                disk: self.disk.clone(),
                clock: self.clock.clone(),
                gate: self.gate.clone(),
            })),
            net: Network::new(Arc::new(net::SimNetwork::new(
                self.net.clone(),
                self.gate.clone(),
                Rng::seeded(rng.u64()),
            ))),
            disk: self.disk.attach(),
            rng,
        }
    }
}
