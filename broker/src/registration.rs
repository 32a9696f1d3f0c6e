//! How a broker comes to take part in its cluster: it waits for a majority, and registers.

use std::net::SocketAddr;
use std::time::Duration;

use skerry_env::Env;
use skerry_metadata::{ProposeError, Quorum, ReadError};
use skerry_metadata_state::{Command, FeatureRange, HostPort, Outcome, RegisterBroker};
use skerry_types::{BrokerEpoch, BrokerId, Uuid};

use crate::broker::Broker;
use crate::node::StartError;

/// How often a start that waits for others says for whom.
const TELL_EVERY: Duration = Duration::from_secs(3);
/// A node that takes longer to accept a connection counts as unreachable in that line.
const DIAL_PATIENCE: Duration = Duration::from_secs(1);

/// How long a shutdown waits for replicas elsewhere to be in sync.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// How often it looks.
const DRAIN_AGAIN: Duration = Duration::from_millis(100);
/// How long it goes on to answer after that. Clients that are at work come within a few round trips.
const LINGER: Duration = Duration::from_millis(100);
/// How long a shutdown waits for a majority.
const MAJORITY_PATIENCE: Duration = Duration::from_secs(1);

/// Waits until this node has all that the cluster had decided before this call, its name included, and gives that.
/// Says now and then who is missing.
///
/// The logs of partitions may be looked at only then: metadata of yesterday does not know the topics of today, and
/// whatever has no topic is deleted.
///
/// # Errors
/// The quorum's store has failed.
pub(crate) async fn caught_up(env: &Env, quorum: &Quorum) -> Result<Uuid, StartError> {
    let mut watch = quorum.watch();
    let reading = async {
        loop {
            match quorum.read().await {
                Ok(image) => match image.cluster_id() {
                    Some(id) => return Ok(id),
                    None => drop(watch.changed().await),
                },
                Err(ReadError::Timeout(_)) => {}
                Err(error @ ReadError::Stopped(_)) => return Err(StartError::Register(error.to_string())),
            }
        }
    };
    telling_who_is_missing(env, quorum, reading).await
}

/// Registers this start of the broker, whose data directory is `directory`. Tries until a majority has decided.
///
/// # Errors
/// The cluster does not want it.
pub(crate) async fn register(
    broker: &Broker,
    kafka_addr: SocketAddr,
    directory: Uuid,
) -> Result<BrokerEpoch, StartError> {
    let command = Command::RegisterBroker(registration(broker, kafka_addr, directory)?);
    let decided = async {
        loop {
            // The same command again finds its own work.
            match broker.propose(command.clone()).await {
                Err(ProposeError::Timeout(_)) => {}
                outcome => return outcome,
            }
        }
    };
    let refused = |why: String| StartError::Register(why);
    match telling_who_is_missing(broker.env(), broker.quorum(), decided)
        .await
        .map_err(|error| refused(error.to_string()))?
    {
        Outcome::BrokerRegistered { epoch } => Ok(epoch),
        Outcome::Refused(refusal) => Err(refused(refusal.to_string())),
        other => Err(refused(format!("unexpected answer {other:?}"))),
    }
}

/// Waits until the controller has heard this broker and lets it take part, or until this process is not its broker any more
/// ([`lost`]): who has no replicas may be forgotten while it starts.
pub(crate) async fn unfenced(broker: &Broker) {
    let takes_part = broker.wait_for(|| {
        let image = broker.image();
        let me = image.broker(broker.id());
        me.is_some_and(|me| !me.fenced && Some(me.epoch) == broker.epoch()) || lost(broker).is_some()
    });
    telling_who_is_missing(broker.env(), broker.quorum(), takes_part).await;
}

/// Why this process is not its broker any more.
pub(crate) fn lost(broker: &Broker) -> Option<String> {
    let epoch = broker.epoch()?;
    let (image, id) = (broker.image(), broker.id());
    match image.broker(id) {
        Some(now) if now.epoch > epoch => Some(format!(
            "another process has registered as broker {id}, with cluster.listen {}",
            now.cluster
        )),
        None => Some(format!("broker {id} was unregistered")),
        Some(_) => None,
    }
}

/// Hands leaderships over before the end (Kafka's controlled shutdown). A partition that another broker has a copy of,
/// and nobody else in sync, gets some time to become so.
pub(crate) async fn drain(broker: &Broker) {
    let Some(guard) = broker.guard() else { return };
    let others = || {
        broker
            .image()
            .brokers()
            .any(|other| other.id != guard.broker && other.is_active())
    };
    if !others() {
        return;
    }
    let clock = &broker.env().clock;
    // From the moment in which it is decided others lead, and this broker hears of it a little later. Whatever goes wrong, it
    // may be decided yet; and whom a leader lets in from now on leads in its place.
    broker.standing().leave();
    let draining = async {
        loop {
            let asked = broker.propose(Command::DrainBroker(guard));
            match clock.timeout(MAJORITY_PATIENCE, asked).await {
                Ok(Ok(Outcome::BrokerDrained { leading: 0 })) => return Ok(0),
                Ok(Ok(Outcome::BrokerDrained { leading })) if !others() || !shares_what_it_leads(broker) => {
                    return Ok(leading);
                }
                Ok(Ok(Outcome::BrokerDrained { .. })) => clock.sleep(DRAIN_AGAIN).await,
                Ok(Ok(other)) => return Err(format!("{other:?}")),
                Ok(Err(error)) => return Err(error.to_string()),
                // Where the whole cluster is stopped at once, the last of it need not wait for the first.
                Err(_) => return Err("no majority of the metadata quorum is there".to_owned()),
            }
        }
    };
    match clock.timeout(DRAIN_PATIENCE, draining).await {
        Ok(Ok(0)) => {
            tracing::info!("other brokers lead all that this one led");
            // Producers and consumers that are connected hear who leads now, instead of losing a connection.
            clock.sleep(LINGER).await;
        }
        Ok(Ok(leading)) => tracing::info!("{leading} partitions have no other replica that could lead"),
        Ok(Err(why)) => tracing::warn!("leaderships could not be handed over: {why}"),
        Err(_) => tracing::warn!("leaderships could not be handed over within {DRAIN_PATIENCE:?}"),
    }
}

/// True where a partition that this broker leads has a replica on another broker that takes part.
fn shares_what_it_leads(broker: &Broker) -> bool {
    let (image, me) = (broker.image(), broker.id());
    let mut led = image.topics().flat_map(|topic| &topic.partitions);
    led.any(|partition| {
        let other = |replica: &BrokerId| *replica != me && image.is_active(*replica);
        partition.leader == Some(me) && partition.replicas.iter().any(other)
    })
}

/// Tells the cluster that this broker has ended in order. Its connections would tell as well, a little later.
pub(crate) async fn say_goodbye(broker: &Broker) {
    let Some(guard) = broker.guard() else { return };
    let fencing = broker.quorum().propose(Command::FenceBroker(guard));
    let told = broker.env().clock.timeout(MAJORITY_PATIENCE, fencing).await;
    match told {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(%error, "could not say goodbye to the metadata quorum"),
        Err(_) => tracing::info!("no majority of the metadata quorum was there to say goodbye to"),
    }
}

fn registration(
    broker: &Broker,
    kafka_addr: SocketAddr,
    directory: Uuid,
) -> Result<RegisterBroker, StartError> {
    let config = &broker.config;
    let kafka = match &config.kafka_advertise {
        Some(advertised) => host_port(advertised)?,
        None => advertise(kafka_addr, &config.kafka_listen)?,
    };
    let cluster = host_port(
        config
            .cluster_advertise
            .as_deref()
            .unwrap_or(&config.cluster_listen),
    )?;
    Ok(RegisterBroker {
        broker: config.node_id,
        incarnation: broker.partitions.incarnation(),
        directory,
        clean: broker.partitions.were_closed_cleanly(),
        kafka,
        cluster,
        rack: config.rack.as_deref().map(Into::into),
        features: FeatureRange::OURS,
        at: broker.env.clock.wall(),
    })
}

/// What clients are told where nothing else is said: the address as it was given, with the port that was taken.
fn advertise(bound: SocketAddr, given: &str) -> Result<HostPort, StartError> {
    let given = host_port(given)?;
    let host = match &*given.host {
        // "Every address" is none that a client could connect to.
        "0.0.0.0" => "127.0.0.1".into(),
        "::" => "::1".into(),
        _ => given.host,
    };
    Ok(HostPort {
        host,
        port: bound.port(),
    })
}

fn host_port(text: &str) -> Result<HostPort, StartError> {
    let parsed = text.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(HostPort::new(host, port.parse().ok()?))
    });
    parsed.ok_or_else(|| StartError::Register(format!("{text} is not HOST:PORT")))
}

/// Does `work`, which waits for a majority of the quorum, and says every few seconds for whom it waits.
async fn telling_who_is_missing<T>(env: &Env, quorum: &Quorum, work: impl Future<Output = T>) -> T {
    let tell = async {
        loop {
            env.clock.sleep(TELL_EVERY).await;
            // Outside of the line: whether somebody reads it decides nothing.
            let missing = who_is_missing(env, quorum).await;
            tracing::warn!("{missing}");
        }
    };
    tokio::select! {
        biased;
        done = work => done,
        () = tell => unreachable!("it goes on until it is dropped"),
    }
}

/// How a dial of another member went.
struct Reached {
    id: BrokerId,
    addr: String,
    /// Why it was not reached.
    failure: Option<String>,
}

/// One line about the quorum that does not answer.
pub(crate) async fn who_is_missing(env: &Env, quorum: &Quorum) -> String {
    let status = quorum.status();
    let others = status
        .members
        .into_iter()
        .filter(|member| member.voter && member.id != status.node_id);
    let mut reached = Vec::new();
    for member in others {
        let failure = match env.clock.timeout(DIAL_PATIENCE, env.net.dial(&member.addr)).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {DIAL_PATIENCE:?}")),
        };
        reached.push(Reached {
            id: member.id,
            addr: member.addr,
            failure,
        });
    }
    line(status.leader, &reached)
}

fn line(leader: Option<BrokerId>, others: &[Reached]) -> String {
    let mut told = Vec::new();
    for Reached { id, addr, failure } in others {
        told.push(match failure {
            None => format!("node {id} at {addr} is reachable"),
            Some(why) => format!("node {id} at {addr} is not ({why})"),
        });
    }
    if others.is_empty() {
        told.push("no other voter is known here yet".to_owned());
    }
    let leader = match leader {
        Some(id) => format!("node {id} leads it and has not answered yet"),
        None => "it has no leader".to_owned(),
    };
    format!(
        "waiting for a majority of the metadata quorum: {leader}; {}",
        told.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_start_says_for_whom_it_waits() {
        let others = [
            Reached {
                id: BrokerId(2),
                addr: "b:9093".to_owned(),
                failure: None,
            },
            Reached {
                id: BrokerId(3),
                addr: "c:9093".to_owned(),
                failure: Some("connection refused".to_owned()),
            },
        ];
        assert_eq!(
            line(None, &others),
            "waiting for a majority of the metadata quorum: it has no leader; node 2 at b:9093 is reachable, node 3 at \
             c:9093 is not (connection refused)"
        );
    }

    #[test]
    fn every_address_is_none_that_a_client_could_use() {
        let bound = "127.0.0.1:7".parse().unwrap();
        assert_eq!(advertise(bound, "0.0.0.0:0").unwrap().to_string(), "127.0.0.1:7");
        assert_eq!(advertise(bound, "[::]:0").unwrap().to_string(), "[::1]:7");
        assert_eq!(advertise(bound, "edge-7:9092").unwrap().to_string(), "edge-7:7");
        assert!(host_port("edge-7").is_err());
    }
}
