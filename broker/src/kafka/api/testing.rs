//! What the tests of several APIs need: an image without a quorum, and an encoder that must not fail.

use std::sync::Arc;

use bytes::BytesMut;
use kafka_protocol::protocol::Encodable;
use skerry_metadata_state::{
    BrokerGuard, Command, CreateTopic, FEATURE_LEVEL, FeatureRange, HostPort, Image, Outcome, Placement,
    RegisterBroker, State,
};
use skerry_types::{BrokerEpoch, BrokerId, Uuid, WallMs};

/// The one broker of [`image`].
pub const ME: BrokerId = BrokerId(1);

/// A cluster of one broker with these topics and their numbers of partitions.
pub fn image(topics: &[(&str, i32)]) -> Arc<Image> {
    let mut state = State::default();
    let mut index = 0;
    let mut apply = |command: &Command| {
        index += 1;
        let outcome = state.apply(index, command).outcome;
        assert!(!matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
        outcome
    };
    apply(&Command::InitCluster {
        cluster_id: Uuid([1; 16]),
        feature_level: FEATURE_LEVEL,
    });
    let registered = apply(&Command::RegisterBroker(RegisterBroker {
        broker: ME,
        incarnation: Uuid([2; 16]),
        directory: Uuid([7; 16]),
        clean: false,
        kafka: HostPort::new("127.0.0.1", 9092),
        cluster: HostPort::new("127.0.0.1", 9093),
        rack: None,
        features: FeatureRange::OURS,
        at: WallMs(0),
    }));
    let Outcome::BrokerRegistered { epoch } = registered else {
        panic!("{registered:?}")
    };
    apply(&Command::UnfenceBroker(BrokerGuard { broker: ME, epoch }));
    for ((name, partitions), byte) in topics.iter().zip(10..) {
        apply(&Command::CreateTopic(CreateTopic {
            id: Uuid([byte; 16]),
            name: (*name).into(),
            placement: Placement::Automatic {
                partitions: *partitions,
                replication_factor: 1,
            },
            configs: vec![],
            at: WallMs(0),
        }));
    }
    state.image().clone()
}

/// The same cluster when its broker does not take part.
pub fn fenced(image: &Image) -> Arc<Image> {
    let epoch: BrokerEpoch = image.broker(ME).unwrap().epoch;
    let mut state = State::from_image(image.clone());
    state.apply(
        image.index() + 1,
        &Command::FenceBroker(BrokerGuard { broker: ME, epoch }),
    );
    state.image().clone()
}

/// The same cluster with one broker more, which takes part.
pub fn with_broker(image: &Image, id: BrokerId) -> Arc<Image> {
    let mut state = State::from_image(image.clone());
    let registration = RegisterBroker {
        broker: id,
        incarnation: Uuid([20; 16]),
        directory: Uuid([21; 16]),
        clean: false,
        kafka: HostPort::new("127.0.0.2", 9092),
        cluster: HostPort::new("127.0.0.2", 9093),
        rack: None,
        features: FeatureRange::OURS,
        at: WallMs(0),
    };
    let registered = state.apply(image.index() + 1, &Command::RegisterBroker(registration));
    let Outcome::BrokerRegistered { epoch } = registered.outcome else {
        panic!("{:?}", registered.outcome)
    };
    let guard = BrokerGuard { broker: id, epoch };
    state.apply(image.index() + 2, &Command::UnfenceBroker(guard));
    state.image().clone()
}

/// Panics where `response` has something that `version` has no place for.
pub fn encodes<R: Encodable>(version: i16, response: &R) {
    let mut buf = BytesMut::new();
    if let Err(error) = response.encode(&mut buf, version) {
        panic!("version {version}: {error}");
    }
    assert_eq!(buf.len(), response.compute_size(version).unwrap());
}
