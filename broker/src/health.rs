//! What administration is told of a node.

use std::sync::{Arc, OnceLock};

use crate::admin_http::{AdminState, Health};
use crate::broker::Broker;

/// The answers of the administration port, from the first moment of a start on.
#[derive(Default)]
pub(crate) struct NodeHealth {
    /// Set once the node has opened what it keeps.
    broker: OnceLock<Arc<Broker>>,
}

impl NodeHealth {
    /// From now on the answers are the broker's.
    pub(crate) fn opened(&self, broker: &Arc<Broker>) {
        // Opened once in a process: nobody else sets it.
        let _ = self.broker.set(broker.clone());
    }
}

impl AdminState for NodeHealth {
    fn live(&self) -> Health {
        Health::ok()
    }

    fn ready(&self) -> Health {
        match self.broker.get() {
            Some(broker) => Health::from_reasons(reasons(broker)),
            None => Health::from_reasons(vec!["the node is starting: it opens its metadata".to_owned()]),
        }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        if let Some(broker) = self.broker.get() {
            // Writing to a string cannot fail.
            let _ = prometheus_client::encoding::text::encode(&mut text, &broker.metrics().registry());
        }
        text
    }
}

/// Why the node does not serve as it should.
fn reasons(broker: &Broker) -> Vec<String> {
    let mut reasons = Vec::new();
    if broker.epoch().is_none() {
        reasons.push("the broker has not registered yet".to_owned());
    }
    for partition in broker.partitions().all() {
        if let Some(why) = partition.offline() {
            reasons.push(format!("{}: {why}", partition.name()));
        }
    }
    if let Some(free_bytes) = broker.disk_nearly_full() {
        reasons.push(format!(
            "the disk is nearly full: {free_bytes} bytes are free, producers must wait"
        ));
    }
    reasons
}
