use std::sync::Arc;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use skerry_metadata_state::ConfigOp;

use super::*;

const SCOPES: [Scope; 4] = [Scope::Node, Scope::Broker, Scope::Topic, Scope::Group];

fn map(pairs: &[(&str, &str)]) -> ConfigMap {
    pairs
        .iter()
        .map(|(key, value)| (Arc::from(*key), Arc::from(*value)))
        .collect()
}

#[test]
fn every_default_is_a_value_that_the_setting_takes() {
    for scope in SCOPES {
        for row in rows(scope) {
            let Some(default) = row.default else { continue };
            if default.is_empty()
                && !matches!(row.kind, Kind::List | Kind::ListOf(_) | Kind::ThrottledReplicas)
            {
                continue;
            }
            assert_eq!(row.parse(default).as_deref(), Ok(default), "{scope} {}", row.key);
        }
    }
}

#[test]
fn every_setting_says_what_it_does_and_what_it_takes() {
    for scope in SCOPES {
        for row in rows(scope) {
            assert!(
                row.doc.ends_with(['.', '?']),
                "{scope} {}: {:?}",
                row.key,
                row.doc
            );
            assert!(!row.allowed().is_empty());
            assert!(!row.doc.contains("  "), "{scope} {}: {:?}", row.key, row.doc);
        }
    }
}

/// What AdminClient printed of an unchanged topic on Kafka 4.3.1.
#[test]
fn a_topic_is_described_as_kafka_describes_it() {
    compare(
        include_str!("testdata/kafka-4.3.1-topic.txt"),
        &describe_topic(&ConfigMap::new(), BrokerLayers::default()),
    );
}

#[test]
fn a_group_is_described_as_kafka_describes_it() {
    let described = describe_group(&ConfigMap::new(), BrokerLayers::default());
    compare(include_str!("testdata/kafka-4.3.1-group.txt"), &described);
}

fn compare(golden: &str, described: &[Described]) {
    let ours: String = described
        .iter()
        .map(|line| {
            let synonyms: Vec<String> = line
                .synonyms
                .iter()
                .map(|synonym| format!("{}={}", synonym.name, synonym.value.as_deref().unwrap_or("null")))
                .collect();
            let row = [Scope::Topic, Scope::Group]
                .into_iter()
                .find_map(|scope| row(scope, line.name).ok());
            let kind = row.map_or("?", |row| row.kind.name());
            let value = line.value.as_deref().unwrap_or("null");
            assert!(!line.read_only && line.source == Source::Default, "{}", line.name);
            format!("{}|{kind}|{value}|{}\n", line.name, synonyms.join(","))
        })
        .collect();
    // min.insync.replicas: Kafka sets it for all brokers when a cluster is formatted; its default is the same.
    let golden = golden.replace(
        "min.insync.replicas|INT|1|min.insync.replicas=1,min.insync.replicas=1,",
        "min.insync.replicas|INT|1|",
    );
    assert_eq!(ours, golden);
}

/// Name, type, default and whether it may change while the broker runs, of every broker setting that both have.
#[test]
fn broker_settings_are_kafkas() {
    // Contracts of Skerry's own: loopback and one directory below the working directory, so that a start needs nothing.
    let ours_by_contract = [
        "listeners",
        "log.dir",
        "log.dirs",
        "node.id",
        "metric.reporters",
        "process.roles",
        // Service is back in half a second.
        "broker.heartbeat.interval.ms",
        "broker.session.timeout.ms",
        "controller.quorum.fetch.timeout.ms",
        // What the reference was started with.
        "controller.listener.names",
        "controller.quorum.voters",
    ];
    // Kafka may change them while it runs; here they go with a restart so far.
    let fixed_so_far = [
        "listeners",
        "listener.security.protocol.map",
        "sasl.enabled.mechanisms",
        "config.providers",
    ];
    // TLS, SASL and remote storage come with the features.
    let later = |key: &str| {
        [
            "ssl.",
            "sasl.",
            "remote.",
            "log.remote.",
            "delegation.token.secret",
            "follower.fetch.last.tiered",
        ]
        .iter()
        .any(|prefix| key.starts_with(prefix))
            || matches!(
                key,
                "config.providers"
                    | "early.start.listeners"
                    | "principal.builder.class"
                    | "security.providers"
            )
    };
    let (mut missing, mut differences) = (Vec::new(), Vec::new());
    for line in include_str!("testdata/kafka-4.3.1-broker.txt").lines() {
        let [key, kind, default, read_only] = line.split('|').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let Ok(row) = row(Scope::Broker, key) else {
            if !later(key) {
                missing.push(key);
            }
            continue;
        };
        let ours = row.default.unwrap_or("null");
        let contract = ours_by_contract.contains(&key);
        let fixed = (row.update == Update::ReadOnly).to_string();
        let same_default = contract || ours == default;
        let same_update = fixed_so_far.contains(&key) || fixed == read_only;
        if row.kind.name() != kind || !same_default || !same_update {
            differences.push(format!("{line} but here {}|{ours}|{fixed}", row.kind.name()));
        }
    }
    assert_eq!(differences.join("\n"), "");
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn what_is_wrong_is_said_with_key_value_and_what_is_allowed() {
    let check = |scope: Scope, key: &str, value: &str, expected: Expect| {
        let error = row(scope, key).and_then(|row| row.parse(value)).unwrap_err();
        expected.assert_eq(&format!("{error} [{:?}]", error.code()));
    };
    check(
        Scope::Topic,
        "retention.ms",
        "a week",
        expect![
            "Invalid value a week for configuration retention.ms: not a whole number; allowed is a whole number of at least -1 ms [InvalidConfig]"
        ],
    );
    check(
        Scope::Topic,
        "segment.bytes",
        "1000",
        expect![
            "Invalid value 1000 for configuration segment.bytes: must be at least 1048576; allowed is a whole number of at least 1048576 bytes [InvalidConfig]"
        ],
    );
    check(
        Scope::Topic,
        "cleanup.policy",
        "delete,shred",
        expect![
            "Invalid value delete,shred for configuration cleanup.policy: shred is no choice; allowed is some of compact, delete, separated by commas [InvalidConfig]"
        ],
    );
    check(
        Scope::Topic,
        "compression.type",
        "brotli",
        expect![
            "Invalid value brotli for configuration compression.type: no such choice; allowed is one of uncompressed, zstd, lz4, snappy, gzip, producer [InvalidConfig]"
        ],
    );
    check(
        Scope::Topic,
        "compression.gzip.level",
        "0",
        expect![
            "Invalid value 0 for configuration compression.gzip.level: 0 is no level; allowed is -1, or a whole number from 1 to 9 [InvalidConfig]"
        ],
    );
    check(
        Scope::Topic,
        "min.cleanable.dirty.ratio",
        "1.5",
        expect![
            "Invalid value 1.5 for configuration min.cleanable.dirty.ratio: must be from 0 to 1; allowed is a number from 0 to 1 [InvalidConfig]"
        ],
    );
    check(
        Scope::Topic,
        "remote.storage.enable",
        "true",
        expect![
            "Invalid value true for configuration remote.storage.enable: Skerry has no tiered storage yet; allowed is false [InvalidConfig]"
        ],
    );
    check(
        Scope::Topic,
        "leader.replication.throttled.replicas",
        "1:x",
        expect![
            "Invalid value 1:x for configuration leader.replication.throttled.replicas: 1:x is no partition:broker pair; allowed is partition:broker pairs separated by commas, or * [InvalidConfig]"
        ],
    );
    check(
        Scope::Topic,
        "retention.m",
        "1",
        expect!["Unknown topic config name: retention.m (did you mean retention.ms?) [InvalidConfig]"],
    );
    check(
        Scope::Topic,
        "entirely.unlike",
        "1",
        expect!["Unknown topic config name: entirely.unlike [InvalidConfig]"],
    );
    check(
        Scope::Broker,
        "memory",
        "much",
        expect![
            "Invalid value much for configuration memory: not a size; allowed is a size from 16MiB to 16TiB, such as 256MiB [InvalidRequest]"
        ],
    );
    check(
        Scope::Broker,
        "authorizer.class.name",
        "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        expect![
            "Invalid value org.apache.kafka.metadata.authorizer.StandardAuthorizer for configuration authorizer.class.name: Skerry has no such security yet, and will not pretend to; allowed is nothing [InvalidRequest]"
        ],
    );
}

#[test]
fn layers_win_in_their_order_and_say_where_a_mistake_stands() {
    let mut given = Given::default();
    given.file(
        "skerry.toml",
        "\"num.partitions\" = 2\nlog.retention.hours = 1\n[group]\nmax.size = 5\nmin.session.timeout.ms = 7000\n",
    );
    given.environment([
        ("SKERRY_NUM_PARTITIONS".to_owned(), "3".to_owned()),
        ("SKERRY_LOG".to_owned(), "debug".to_owned()),
        ("SKERRY_NUM_PARTITION".to_owned(), "9".to_owned()),
        ("SKERRY_SERVICE_HOST".to_owned(), "10.0.0.1".to_owned()),
        ("HOME".to_owned(), "/".to_owned()),
    ]);
    given.arguments(["group.max.size=6"]);
    given.set("node.id", "7", Origin::Flag("--node-id"));
    let warnings = given.warnings().join("\n");
    let settings = given.finish().unwrap();
    let shown: String = settings
        .iter()
        .map(|(key, value, origin)| format!("{key} = {value} ({origin})\n"))
        .collect();
    expect![[r#"
        group.max.size = 6 (--set)
        group.min.session.timeout.ms = 7000 (skerry.toml)
        log.retention.hours = 1 (skerry.toml)
        node.id = 7 (--node-id)
        num.partitions = 3 (environment variable SKERRY_NUM_PARTITIONS)
    "#]]
    .assert_eq(&shown);
    expect![[r#"
        environment variable SKERRY_NUM_PARTITION names no setting (did you mean SKERRY_NUM_PARTITIONS?)
        environment variable SKERRY_SERVICE_HOST names no setting"#]]
    .assert_eq(&warnings);
    let node = NodeConfig::from_settings(&settings).unwrap();
    assert_eq!(node.node_id.get(), 7);
    assert_eq!(node.broker().num_partitions, 3);
    assert_eq!(node.broker().group_max_size, 6);
}

fn complaints(build: impl FnOnce(&mut Given), expected: Expect) {
    let mut given = Given::default();
    build(&mut given);
    let errors = match given.finish() {
        Ok(settings) => NodeConfig::from_settings(&settings).unwrap_err(),
        Err(errors) => errors,
    };
    expected.assert_eq(
        &errors
            .iter()
            .map(|error| format!("{error}\n"))
            .collect::<String>(),
    );
}

#[test]
fn every_mistake_of_a_start_is_told_at_once() {
    complaints(
        |given| {
            given.file(
                "skerry.toml",
                "\"num.partitons\" = 2\n\"memory\" = \"2 parsecs\"\n\"node.id\" = -1\n",
            );
            given.arguments(["log.retention.ms", "auto.create.topics.enable=perhaps"]);
        },
        expect![[r#"
            skerry.toml: Invalid value 2 parsecs for configuration memory: not a size; allowed is a size from 16MiB to 16TiB, such as 256MiB
            skerry.toml: Invalid value -1 for configuration node.id: must be at least 0; allowed is a whole number of at least 0
            skerry.toml: Unknown broker config name: num.partitons (did you mean num.partitions?)
            --set: log.retention.ms: key=value is expected
            --set: Invalid value perhaps for configuration auto.create.topics.enable: neither true nor false; allowed is true or false
        "#]],
    );
    complaints(
        |given| given.file("skerry.toml", "max.connections = 5\nmax.connections.per.ip = 5\n"),
        expect![[r#"
            skerry.toml: TOML parse error at line 2, column 5
              |
            2 | max.connections.per.ip = 5
              |     ^^^^^^^^^^^
            cannot extend value of type integer with a dotted key
            A key that is the beginning of another (max.connections, max.connections.per.ip) must be in quotes.
        "#]],
    );
    complaints(
        |given| {
            given.set("listeners", "SSL://0.0.0.0:9092", Origin::Set);
            given.set("advertised.listeners", "0.0.0.0:9092", Origin::Set);
            given.set("cluster.listen", "9093", Origin::Set);
            given.set("controller.quorum.voters", "1@a:1,2@b:2", Origin::Set);
            given.set("group.min.session.timeout.ms", "2000000", Origin::Set);
        },
        expect![[r#"
            --set: Invalid value 1@a:1,2@b:2 for configuration controller.quorum.voters: a majority needs 1, 3 or 5 voters; allowed is 1, 3 or 5 of ID@HOST:PORT, separated by commas
            --set: Invalid value SSL://0.0.0.0:9092 for configuration listeners: only PLAINTEXT is supported yet; allowed is PLAINTEXT://HOST:PORT
            --set: Invalid value 9093 for configuration cluster.listen: there is no port; allowed is HOST:PORT
            --set: Invalid value 0.0.0.0:9092 for configuration advertised.listeners: no client can connect to that; allowed is PLAINTEXT://HOST:PORT
            --set: Invalid value 2000000 for configuration group.min.session.timeout.ms: it is larger than group.max.session.timeout.ms; allowed is at most group.max.session.timeout.ms
        "#]],
    );
}

#[test]
fn a_node_reads_its_addresses() {
    let node = NodeConfig::from_pairs([]).unwrap();
    assert_eq!(
        (node.kafka_listen.as_str(), node.admin_listen.as_str()),
        ("127.0.0.1:9092", "127.0.0.1:9644")
    );
    assert_eq!((node.memory_bytes, node.voters.len()), (256 << 20, 0));
    let node = NodeConfig::from_pairs([
        ("node.id", "2"),
        ("listeners", "PLAINTEXT://:9192"),
        ("advertised.listeners", "PLAINTEXT://edge-2:9192"),
        ("controller.quorum.voters", "1@a:9093, 2@b:9093,3@c:9093"),
        ("memory", "1GiB"),
    ])
    .unwrap();
    assert_eq!(node.kafka_listen, "0.0.0.0:9192");
    // DescribeConfigs tells them as Kafka would, however they were given.
    let bare = NodeConfig::from_pairs([("listeners", "127.0.0.2:9192")]).unwrap();
    assert_eq!(&*bare.given["listeners"], "PLAINTEXT://127.0.0.2:9192");
    assert_eq!(&*node.given["listeners"], "PLAINTEXT://:9192");
    assert_eq!(node.kafka_advertise.as_deref(), Some("edge-2:9192"));
    assert_eq!(node.cluster_advertise.as_deref(), Some("b:9093"));
    assert_eq!(node.memory_bytes, 1 << 30);
}

#[test]
fn a_topic_falls_back_on_its_broker() {
    let given = map(&[("log.retention.hours", "1"), ("message.max.bytes", "2000")]);
    let cluster = map(&[("log.retention.ms", "5000")]);
    let none = ConfigMap::new();
    let only_given = BrokerLayers::given(&given);
    assert_eq!(
        TopicConfig::resolve(&none, only_given).retention_ms,
        Some(3_600_000)
    );
    let both = BrokerLayers {
        cluster: &cluster,
        ..only_given
    };
    let own = map(&[("max.message.bytes", "3000"), ("cleanup.policy", "compact")]);
    let topic = TopicConfig::resolve(&own, both);
    assert_eq!(topic.retention_ms, Some(5_000));
    assert_eq!(topic.max_message_bytes, 3_000);
    assert_eq!((topic.cleanup_delete, topic.cleanup_compact), (false, true));

    let lines: Vec<String> = describe_topic(&own, both)
        .iter()
        .filter(|line| ["retention.ms", "max.message.bytes"].contains(&line.name))
        .map(|line| {
            let synonyms: Vec<String> = line
                .synonyms
                .iter()
                .map(|synonym| {
                    format!(
                        "{:?}:{}={}",
                        synonym.source,
                        synonym.name,
                        synonym.value.as_deref().unwrap_or("")
                    )
                })
                .collect();
            format!(
                "{}={} {:?} [{}]",
                line.name,
                line.value.as_deref().unwrap_or(""),
                line.source,
                synonyms.join(", ")
            )
        })
        .collect();
    expect![[r#"
        max.message.bytes=3000 DynamicTopic [DynamicTopic:max.message.bytes=3000, StaticBroker:message.max.bytes=2000, Default:message.max.bytes=1048588]
        retention.ms=5000 DynamicDefaultBroker [DynamicDefaultBroker:log.retention.ms=5000, StaticBroker:log.retention.hours=1, Default:log.retention.hours=168]"#]]
    .assert_eq(&lines.join("\n"));
}

/// DESIGN.md section 1: acknowledged means durable, unless a topic chooses Kafka's weaker rule by name.
#[test]
fn only_a_topic_weakens_its_acknowledgements() {
    let weak_broker = map(&[("log.flush.interval.messages", "10000")]);
    let broker = BrokerLayers::given(&weak_broker);
    assert_eq!(
        TopicConfig::resolve(&ConfigMap::new(), broker).flush,
        FlushRule::Durable
    );
    let own = map(&[("flush.ms", "1000")]);
    assert_eq!(
        TopicConfig::resolve(&own, broker).flush,
        FlushRule::AsKafka {
            messages: 10_000,
            ms: 1_000
        }
    );
}

fn creates(configs: &[(&str, Option<&str>)], expected: Expect) {
    let outcome = validate_create(configs.iter().copied(), BrokerLayers::default());
    expected.assert_eq(&match outcome {
        Ok(checked) => format!("{checked:?}"),
        Err(error) => format!("{:?}: {error}", error.code()),
    });
}

#[test]
fn creating_checks_settings() {
    creates(
        &[
            ("retention.ms", Some(" 5 ")),
            ("message.format.version", Some("3.0-IV1")),
        ],
        expect![[r#"[("retention.ms", "5")]"#]],
    );
    creates(
        &[("retention.ms", None)],
        expect!["InvalidRequest: Null value not supported for : retention.ms"],
    );
    creates(
        &[("retention.ms", Some("5")), ("retention.ms", Some("6"))],
        expect!["InvalidRequest: Error due to duplicate config keys: retention.ms"],
    );
    creates(
        &[("log.retention.ms", Some("5"))],
        expect![
            "InvalidConfig: Unknown topic config name: log.retention.ms (did you mean local.retention.ms?)"
        ],
    );
    creates(
        &[
            ("min.compaction.lag.ms", Some("7")),
            ("max.compaction.lag.ms", Some("6")),
        ],
        expect![
            "InvalidConfig: Invalid configuration: min.compaction.lag.ms=7 is larger than max.compaction.lag.ms=6"
        ],
    );
}

fn alters(target: Target, current: &[(&str, &str)], ops: &[(&str, i8, Option<&str>)], expected: Expect) {
    let outcome = validate_incremental(
        target,
        ops.iter().copied(),
        &map(current),
        BrokerLayers::default(),
    );
    expected.assert_eq(&match outcome {
        Ok(checked) => format!("{checked:?}"),
        Err(error) => format!("{:?}: {error}", error.code()),
    });
}

#[test]
fn altering_checks_operations() {
    use Target::{Broker, ClusterDefault, Topic};
    alters(
        Topic,
        &[],
        &[("cleanup.policy", 2, Some("compact"))],
        expect![[r#"[("cleanup.policy", Append { values: ["compact"], default: "delete" })]"#]],
    );
    alters(
        Topic,
        &[("cleanup.policy", "compact")],
        &[("cleanup.policy", 3, Some("compact"))],
        expect![[r#"[("cleanup.policy", Subtract { values: ["compact"], default: "delete" })]"#]],
    );
    alters(
        Topic,
        &[],
        &[("cleanup.policy", 2, Some("shred"))],
        expect![
            "InvalidConfig: Invalid value delete,shred for configuration cleanup.policy: shred is no choice; allowed is some of compact, delete, separated by commas"
        ],
    );
    alters(
        Topic,
        &[],
        &[("retention.ms", 2, Some("5"))],
        expect!["InvalidConfig: Can't APPEND to key retention.ms because its type is not LIST."],
    );
    alters(
        Topic,
        &[],
        &[("cleanup.policy", 2, None)],
        expect!["InvalidRequest: Null value not supported for : cleanup.policy"],
    );
    alters(Topic, &[], &[("no.such.thing", 1, None)], expect!["[]"]);
    alters(
        Topic,
        &[],
        &[("no.such.thing", 0, Some("1"))],
        expect!["InvalidConfig: Unknown topic config name: no.such.thing"],
    );
    alters(
        Topic,
        &[],
        &[("retention.ms", 4, Some("1"))],
        expect!["InvalidRequest: Unknown operation 4 for config retention.ms"],
    );
    alters(
        Topic,
        &[],
        &[("retention.ms", 0, Some("1")), ("retention.ms", 1, None)],
        expect!["InvalidRequest: Error due to duplicate config keys: retention.ms"],
    );
    alters(
        Topic,
        &[("retention.ms", "5")],
        &[("retention.ms", 1, None)],
        expect![[r#"[("retention.ms", Delete)]"#]],
    );
    alters(
        Broker,
        &[],
        &[("num.partitions", 1, None)],
        expect![[r#"[("num.partitions", Delete)]"#]],
    );
    alters(
        Broker,
        &[],
        &[("num.partitions", 0, Some("3"))],
        expect!["InvalidRequest: Cannot update these configs dynamically: num.partitions"],
    );
    alters(
        Broker,
        &[],
        &[("log.cleaner.threads", 0, Some("3"))],
        expect![[r#"[("log.cleaner.threads", Set("3"))]"#]],
    );
    alters(
        ClusterDefault,
        &[],
        &[("cordoned.log.dirs", 0, Some(""))],
        expect!["InvalidRequest: Cannot update these configs at default cluster level: cordoned.log.dirs"],
    );
    alters(
        ClusterDefault,
        &[],
        &[("message.max.bytes", 0, Some("3"))],
        expect![[r#"[("message.max.bytes", Set("3"))]"#]],
    );
}

#[test]
fn replacing_sets_what_is_named() {
    let outcome = validate_replace(
        Target::Topic,
        [("retention.ms", Some("5"))],
        BrokerLayers::default(),
    );
    assert_eq!(
        outcome,
        Ok(vec![("retention.ms".into(), ConfigOp::Set("5".into()))])
    );
}

#[test]
fn sizes() {
    for (text, bytes) in [
        ("256MiB", 256 << 20),
        ("1gb", 1_000_000_000),
        ("64k", 65_536),
        ("17", 17),
        ("3 GiB", 3 << 30),
        ("5B", 5),
    ] {
        assert_eq!(parse_size(text), Some(bytes), "{text}");
    }
    for text in ["", "MiB", "-1", "1.5GiB", "99999999999GiB"] {
        assert_eq!(parse_size(text), None, "{text}");
    }
}

proptest! {
    #[test]
    fn no_text_panics_and_what_is_accepted_stays(text in ".{0,40}") {
        for scope in SCOPES {
            for row in rows(scope) {
                if let Ok(value) = row.parse(&text) {
                    prop_assert_eq!(row.parse(&value), Ok(value.clone()), "{}", row.key);
                }
            }
        }
    }

    #[test]
    fn no_file_panics(text in "([a-z.\"]{1,9} ?= ?[a-z0-9\"'\\[\\],.]{0,9}\n?){0,6}") {
        let mut given = Given::default();
        given.file("skerry.toml", &text);
        let _ = given.finish().map(|settings| NodeConfig::from_settings(&settings));
    }

    #[test]
    fn sizes_are_shown_as_they_are_read(bytes in any::<u64>()) {
        prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
    }
}

/// The files that the README tells people to copy.
#[test]
fn the_examples_are_nodes_of_one_cluster() {
    let files = [
        include_str!("../../../examples/three-nodes/edge-1.toml"),
        include_str!("../../../examples/three-nodes/edge-2.toml"),
        include_str!("../../../examples/three-nodes/edge-3.toml"),
    ];
    for (id, text) in (1..).zip(files) {
        let mut given = Given::default();
        given.file("skerry.toml", text);
        assert!(given.warnings().is_empty(), "{:?}", given.warnings());
        let config = NodeConfig::from_settings(&given.finish().unwrap()).unwrap();
        assert_eq!(config.node_id.get(), id);
        let mine = format!("edge-{id}:9093");
        assert_eq!(config.cluster_advertise.as_deref(), Some(&*mine));
        assert_eq!(config.kafka_advertise, Some(format!("edge-{id}:9092")));
        assert_eq!(config.voters.len(), 3);
    }
    let readme = include_str!("../../../README.md");
    let settings: Vec<&str> = files[0].lines().filter(|line| !line.starts_with('#')).collect();
    assert!(
        readme.contains(&settings.join("\n")),
        "README and examples differ"
    );
}
