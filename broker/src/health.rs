//! What administration is told of a node.

use std::sync::{Arc, OnceLock};

use crate::admin_http::{AdminState, Health};
use crate::broker::Broker;
use crate::cluster_view::{self, ClusterView};

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
            Some(broker) => ready(broker),
            None => Health::from_reasons(vec!["the node is starting: it opens its metadata".to_owned()]),
        }
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        if let Some(broker) = self.broker.get() {
            let mut registry = broker.metrics().registry();
            let view = ClusterView::of(&broker.image(), broker.id());
            let behind_records = broker.catching_up.lock().records();
            cluster_view::register(&mut registry, &view, &broker.quorum().status(), behind_records);
            // Writing to a string cannot fail.
            let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
        }
        text
    }
}

/// Why the node does not serve as it should, and what is wrong elsewhere.
pub(crate) fn ready(broker: &Broker) -> Health {
    let mut reasons = Vec::new();
    match broker.quorum().trouble() {
        Some(trouble) => reasons.push(trouble.to_string()),
        None => reasons.extend(cluster_view::quorum_trouble(&broker.quorum().status())),
    }
    let view = ClusterView::of(&broker.image(), broker.id());
    if broker.epoch().is_none() {
        reasons.push("the broker has not registered yet".to_owned());
    } else {
        reasons.extend(view.reasons(&broker.catching_up.lock().told()));
        if !view.me_fenced && !broker.standing().holds(broker.env().clock.now()) {
            reasons.push(
                "the controller does not answer: others may lead by now what this broker led".to_owned(),
            );
        }
    }
    let mut notes = view.notes();
    for partition in broker.partitions().all() {
        if let Some(why) = partition.offline() {
            reasons.push(format!("{}: {why}", partition.name()));
        } else if let Some(why) = partition.damage() {
            // Until another copy takes over, or for ever where there is none.
            notes.push(format!(
                "{}: {why}; what can be read of it is served",
                partition.name()
            ));
        }
    }
    if let Some(free_bytes) = broker.disk_room().nearly_full() {
        reasons.push(format!(
            "the disk is nearly full: {free_bytes} bytes are free, producers must wait"
        ));
    }
    Health { reasons, notes }
}
