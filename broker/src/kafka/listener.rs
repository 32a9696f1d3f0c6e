//! Accepts Kafka connections, and bounds them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use skerry_env::{Listener, TaskHandle};
use tokio_util::sync::CancellationToken;

use super::connection;
use crate::broker::Broker;
use crate::peers::Complaints;

/// How long to wait after a failed accept: out of descriptors, most likely.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Starts to accept connections.
pub fn start(broker: Arc<Broker>, listener: Listener, shutdown: CancellationToken) -> TaskHandle {
    let tasks = broker.env().tasks.clone();
    tasks.spawn("kafka-listener", run(broker, listener, shutdown))
}

async fn run(broker: Arc<Broker>, mut listener: Listener, shutdown: CancellationToken) {
    let open = Arc::new(Mutex::new(OpenConnections::default()));
    loop {
        let conn = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let conn = match conn {
            Ok(conn) => conn,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a Kafka connection");
                broker.env().clock.sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let ip = conn.peer().ip();
        let limits = broker.connection_limits();
        let Some(place) = Place::take(&open, ip, limits.total, limits.per_ip) else {
            broker.complaints().tell(&broker.env().clock, ip, || {
                "refused a Kafka connection: max.connections or max.connections.per.ip is reached".to_owned()
            });
            continue;
        };
        broker.metrics().connections_accepted.inc();
        let (connection_broker, stop) = (broker.clone(), shutdown.clone());
        // The connection ends by itself, at the latest on shutdown: its handle is of no use.
        drop(broker.env().tasks.spawn("kafka-connection", async move {
            connection::serve(connection_broker, conn, stop).await;
            drop(place);
        }));
    }
}

/// How many connections are open, by address.
#[derive(Default)]
struct OpenConnections {
    total: usize,
    by_ip: BTreeMap<IpAddr, usize>,
}

/// A connection's place among the allowed; given back on drop.
struct Place {
    open: Arc<Mutex<OpenConnections>>,
    ip: IpAddr,
}

impl Place {
    fn take(open: &Arc<Mutex<OpenConnections>>, ip: IpAddr, total: usize, per_ip: usize) -> Option<Self> {
        let mut counts = open.lock();
        let of_ip = counts.by_ip.get(&ip).copied().unwrap_or(0);
        if counts.total >= total || of_ip >= per_ip {
            return None;
        }
        counts.total += 1;
        counts.by_ip.insert(ip, of_ip + 1);
        Some(Self {
            open: open.clone(),
            ip,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.open.lock();
        counts.total -= 1;
        match counts.by_ip.get_mut(&self.ip) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                counts.by_ip.remove(&self.ip);
            }
        }
    }
}

/// What [`Complaints`] says of a connection that ended badly.
pub(super) fn complain(complaints: &Complaints, broker: &Broker, peer: std::net::SocketAddr, reason: &str) {
    complaints.tell(&broker.env().clock, peer.ip(), || {
        format!("closed the connection from {peer}: {reason}")
    });
}
