//! The settings of a broker, as of Kafka 4.3, but for those of TLS, SASL and remote storage, which come with the
//! features. A broker setting that is a topic's or group's default is not here: it is made from that row (`table`).

use super::row::{Kind, Row, Scope, Unit};

const I32: i32 = i32::MAX;
const I64: i64 = i64::MAX;

const SIZED: &str = "Skerry sizes its threads by the machine";
const RAFT: &str = "the metadata quorum keeps its log in RocksDB";
const QUORUM: &str = "the nodes of the metadata quorum push entries to one another, with limits of their own";
const PULL: &str = "replication is one stream for each pair of brokers";
const PURGE: &str = "waiting requests are dropped when they end";
const JAVA: &str = "Skerry loads no Java classes";
const JMX: &str = "metrics are served on admin.listen";
const CONSUMER: &str = "Skerry serves the classic group protocol so far";
const SHARE: &str = "Skerry serves no share groups yet";
const STREAMS: &str = "Skerry serves no streams groups yet";
const TXN: &str = "Skerry serves no transactions yet";
const QUOTA: &str = "Skerry enforces no quotas yet";
const TOKENS: &str = "Skerry has no delegation tokens yet";
const KERNEL: &str = "the system sizes socket buffers by itself";
const SECURITY: &str = "Skerry has no such security yet, and will not pretend to";

const fn row(key: &'static str, kind: Kind, default: &'static str) -> Row {
    Row::new(Scope::Broker, key, kind, default)
}

const fn int(key: &'static str, min: i32, default: &'static str) -> Row {
    row(key, Kind::Int(min, I32), default)
}

const fn long(key: &'static str, min: i64, default: &'static str) -> Row {
    row(key, Kind::Long(min, I64), default)
}

const fn flag(key: &'static str, default: &'static str) -> Row {
    row(key, Kind::Boolean, default)
}

#[rustfmt::skip]
pub(super) const FRONT: &[Row] = &[
    flag("auto.create.topics.enable", "true")
        .doc("Make a topic when a client asks for its metadata and allows it."),
    int("num.partitions", 1, "1").doc("Partitions of a topic that is made without a number of them."),
    int("default.replication.factor", 1, "1").doc("Replicas of a topic that is made without a number of them."),
    flag("delete.topic.enable", "true").doc("Let topics be deleted. Otherwise deleting answers TOPIC_DELETION_DISABLED."),
    int("max.request.partition.size.limit", 1, "2000").doc("The most partitions in one answer of DescribeTopicPartitions."),
    int("socket.request.max.bytes", 1, "104857600").bytes().doc("A larger request ends its connection."),
    int("fetch.max.bytes", 1024, "57671680").bytes().doc("The most that one Fetch answers, whatever the client asks for. One whole batch is always answered."),
    int("max.incremental.fetch.session.cache.slots", 0, "1000").doc("How many incremental fetch sessions are kept. A client without one sends its whole list each time."),
    long("connections.max.idle.ms", i64::MIN, "600000").ms().doc("A connection on which nothing happens for so long is closed."),
    int("max.connections", 0, "2147483647").dynamic().doc("The most connections at once. A further one closes the one that has been idle longest, or is not accepted."),
    int("max.connections.per.ip", 0, "2147483647").dynamic().doc("The most connections at once from one address."),
    row("max.connections.per.ip.overrides", Kind::Text, "").dynamic().doc("Other limits for some addresses: ADDRESS:NUMBER separated by commas."),
    int("max.connection.creation.rate", 0, "2147483647").dynamic().doc("The most new connections in a second."),
    int("connection.failed.authentication.delay.ms", 0, "100").ms().doc("How long the answer to a failed authentication is held back."),
    int("request.timeout.ms", i32::MIN, "30000").ms().doc("How long brokers wait for one another."),
    int("num.network.threads", 1, "3").dynamic().inert(SIZED).doc("Threads that move bytes between sockets and requests."),
    int("num.io.threads", 1, "8").dynamic().inert(SIZED).doc("Threads that carry requests out."),
    int("background.threads", 1, "10").dynamic().inert(SIZED).doc("Threads for work in the background."),
    int("num.recovery.threads.per.data.dir", 1, "2").dynamic().inert(SIZED).doc("Threads that recover logs at the start."),
    int("queued.max.requests", 1, "500").inert("requests draw on the memory budget").doc("Requests that may wait before sockets are read no more."),
    long("queued.max.request.bytes", i64::MIN, "-1").bytes().inert("requests draw on the memory budget").doc("Bytes of requests that may wait before sockets are read no more."),
    int("socket.send.buffer.bytes", i32::MIN, "102400").bytes().inert(KERNEL).doc("The send buffer of a socket."),
    int("socket.receive.buffer.bytes", i32::MIN, "102400").bytes().inert(KERNEL).doc("The receive buffer of a socket."),
    int("socket.listen.backlog.size", 1, "50").inert(KERNEL).doc("Connections that may wait to be accepted."),
    long("socket.connection.setup.timeout.ms", i64::MIN, "10000").ms().inert(PULL).doc("How long a connection between brokers may take to open."),
    long("socket.connection.setup.timeout.max.ms", i64::MIN, "30000").ms().inert(PULL).doc("The longest that it may take after repeated failures."),
    int("fetch.purgatory.purge.interval.requests", i32::MIN, "1000").inert(PURGE).doc("How often ended fetches are forgotten."),
    int("producer.purgatory.purge.interval.requests", i32::MIN, "1000").inert(PURGE).doc("How often ended produces are forgotten."),
    int("delete.records.purgatory.purge.interval.requests", i32::MIN, "1").inert(PURGE).doc("How often ended record deletions are forgotten."),
    int("telemetry.max.bytes", 1, "1048576").bytes().inert("Skerry takes no telemetry").doc("The largest telemetry push of a client."),
    row("listener.security.protocol.map", Kind::Text, "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT").default_only(SECURITY)
        .doc("Which protocol each listener speaks."),
    row("inter.broker.listener.name", Kind::Text, "").null().inert("brokers talk on cluster.listen").doc("The listener that other brokers use."),
    row("security.inter.broker.protocol", Kind::Choice(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]), "PLAINTEXT").default_only(SECURITY)
        .doc("How brokers talk to one another."),
    row("authorizer.class.name", Kind::Text, "").default_only(SECURITY).doc("Who decides what a user may do."),
    row("super.users", Kind::Text, "").default_only(SECURITY).doc("Users who may do everything."),
    flag("allow.everyone.if.no.acl.found", "false").inert("without an authorizer everybody may do everything").doc("What holds for a resource without access rules."),
    row("sasl.enabled.mechanisms", Kind::List, "GSSAPI").default_only(SECURITY).doc("How clients may authenticate."),
    long("connections.max.reauth.ms", i64::MIN, "0").ms().default_only(SECURITY).doc("After how long a client must authenticate again."),
    row("create.topic.policy.class.name", Kind::Class, "").null().default_only(JAVA).doc("Who decides which topics may be made."),
    row("alter.config.policy.class.name", Kind::Class, "").null().default_only(JAVA).doc("Who decides which settings may change."),
    row("client.quota.callback.class", Kind::Class, "").null().default_only(JAVA).doc("Who decides about quotas."),
    row("replica.selector.class", Kind::Text, "").null().doc("Lets consumers read from a near replica: a class whose name ends in RackAwareReplicaSelector goes by broker.rack (KIP-392)."),
];

#[rustfmt::skip]
pub(super) const STORAGE: &[Row] = &[
    long("log.retention.check.interval.ms", 1, "300000").ms().doc("How often old segments are looked for."),
    int("log.cleaner.threads", 0, "1").dynamic().doc("How many logs are compacted at once."),
    long("log.cleaner.backoff.ms", 0, "15000").ms().dynamic().doc("How long the cleaner rests when nothing is to be cleaned."),
    long("log.cleaner.dedupe.buffer.size", i64::MIN, "134217728").bytes().dynamic().doc("Memory in which a compaction remembers keys, for all cleaners together. A log with more keys is cleaned in several goes."),
    int("log.cleaner.io.buffer.size", 0, "524288").bytes().dynamic().inert("a compaction reads batch by batch").doc("Memory for a compaction's reads and writes."),
    row("log.cleaner.io.buffer.load.factor", Kind::Double(f64::MIN, f64::MAX), "0.9").dynamic().inert("the memory of keys grows as it is filled").doc("How full the memory of keys may become."),
    row("log.cleaner.io.max.bytes.per.second", Kind::Double(f64::MIN, f64::MAX), "1.7976931348623157E308").unit(Unit::BytesPerSecond).dynamic().doc("The most that compactions read and write in a second."),
    long("log.scrub.io.max.bytes.per.second", 0, "2097152").unit(Unit::BytesPerSecond).dynamic().doc("How fast everything that is kept is read and compared with its checksums, so that damage is found while other replicas are whole: the most in a second, less where the disk is busy. A damaged replica is made again from the others. 0: never."),
    long("log.scrub.interval.ms", 1, "604800000").ms().dynamic().doc("How often that begins anew. Where reading everything takes longer, it begins again at once."),
    flag("log.cleaner.enable", "true").inert("__consumer_offsets needs it").doc("Compact topics at all."),
    int("log.flush.offset.checkpoint.interval.ms", 0, "60000").ms().doc("How often it is written down how far the logs are durable: what recovery need not read."),
    int("log.flush.start.offset.checkpoint.interval.ms", 0, "60000").ms().doc("How often it is written down where the logs begin."),
    long("log.dir.failure.timeout.ms", 1, "30000").ms().inert("a node has one directory").doc("How long a broker with a failed directory goes on without the controller knowing."),
    row("log.dir", Kind::List, "./skerry-data").inert("log.dirs decides").doc("An older name of log.dirs."),
    row("metadata.log.dir", Kind::Text, "").null().inert(RAFT).doc("Where the metadata lies."),
    long("metadata.log.max.record.bytes.between.snapshots", 1, "20971520").bytes().inert(RAFT).doc("How much metadata log makes a snapshot due."),
    long("metadata.log.max.snapshot.interval.ms", 0, "3600000").ms().inert(RAFT).doc("How much time makes a snapshot due."),
    int("metadata.log.segment.bytes", 8_388_608, "1073741824").bytes().inert(RAFT).doc("The size of a metadata segment."),
    long("metadata.log.segment.ms", i64::MIN, "604800000").ms().inert(RAFT).doc("The age of a metadata segment."),
    int("metadata.max.idle.interval.ms", 0, "500").ms().inert(RAFT).doc("How often an idle controller writes an empty record."),
    long("metadata.max.retention.bytes", i64::MIN, "104857600").bytes().inert(RAFT).doc("How much metadata log is kept."),
    long("metadata.max.retention.ms", i64::MIN, "604800000").ms().inert(RAFT).doc("How long metadata log is kept."),
    int("producer.id.expiration.ms", 1, "86400000").ms().dynamic().doc("A producer that has not written to a partition for so long is forgotten there."),
    row("process.roles", Kind::ListOf(&["broker", "controller"]), "broker,controller").default_only("every Skerry node is a broker; controller.quorum.voters says who decides").doc("What a node does."),
    int("broker.id", -1, "-1").inert("node.id decides").doc("An older name of node.id."),
    row("controller.listener.names", Kind::List, "CONTROLLER").inert("cluster.listen decides").doc("The listeners of the controllers."),
];

#[rustfmt::skip]
pub(super) const CLUSTER: &[Row] = &[
    int("broker.heartbeat.interval.ms", i32::MIN, "100").ms().doc("How often a broker tells the controller that it lives. A broken connection tells of a dead process at once, heartbeats of a vanished machine."),
    int("broker.session.timeout.ms", i32::MIN, "750").ms().doc("A broker that is silent for so long is fenced. Kafka's default of 9000 would let partitions stand still for so long."),
    int("initial.broker.registration.timeout.ms", i32::MIN, "60000").ms().inert("a node waits for a majority of its quorum for as long as it takes").doc("How long a broker tries to register before its start fails."),
    flag("controlled.shutdown.enable", "true").doc("Hand leaderships over before a clean shutdown."),
    flag("auto.leader.rebalance.enable", "true").doc("Give leaderships back to preferred replicas."),
    long("leader.imbalance.check.interval.seconds", 1, "300").unit(Unit::Seconds).doc("How often that is looked at."),
    long("replica.lag.time.max.ms", i64::MIN, "30000").ms().doc("A follower that has not caught up for so long leaves the in-sync set."),
    int("num.replica.fetchers", 1, "1").dynamic().inert(PULL).doc("Streams from each broker to each other."),
    int("replica.fetch.min.bytes", i32::MIN, "1").bytes().inert(PULL).doc("What a follower waits for."),
    int("replica.fetch.max.bytes", 0, "1048576").bytes().doc("The most that a follower gets of one partition in one go."),
    int("replica.fetch.response.max.bytes", 0, "10485760").bytes().doc("The most that a follower gets in one go."),
    int("replica.fetch.wait.max.ms", i32::MIN, "500").ms().inert(PULL).doc("How long a follower waits for it."),
    int("replica.fetch.backoff.ms", 0, "1000").ms().inert(PULL).doc("How long a follower waits after an error."),
    int("replica.socket.timeout.ms", i32::MIN, "30000").ms().inert(PULL).doc("How long a follower waits for an answer."),
    int("replica.socket.receive.buffer.bytes", i32::MIN, "65536").bytes().inert(PULL).doc("The receive buffer of a follower."),
    long("replica.high.watermark.checkpoint.interval.ms", i64::MIN, "5000").ms().doc("How often the high watermarks are written down."),
    int("num.replica.alter.log.dirs.threads", i32::MIN, "").null().inert("a node has one directory").doc("Threads that move replicas between directories."),
    int("controller.socket.timeout.ms", i32::MIN, "30000").ms().inert(RAFT).doc("How long a broker waits for the controller."),
    row("controller.quorum.bootstrap.servers", Kind::List, "").inert("controller.quorum.voters names the quorum").doc("Where a node that is no voter finds the quorum."),
    flag("controller.quorum.auto.join.enable", "false").inert("the voters are those in controller.quorum.voters").doc("Let a new controller join the quorum by itself."),
    int("controller.quorum.append.linger.ms", 0, "25").ms().inert(RAFT).doc("How long metadata records wait for company."),
    int("controller.quorum.election.backoff.max.ms", 0, "1000").ms().inert(QUORUM).doc("The longest pause before another election."),
    int("controller.quorum.election.timeout.ms", 0, "1000").ms().inert(QUORUM).doc("How long a voter without a leader waits before it stands for election."),
    int("controller.quorum.fetch.timeout.ms", 0, "320").ms().doc("How long a leader of the metadata quorum may be silent until the voters elect another. One whose process has ended is replaced in half of that."),
    int("controller.quorum.request.timeout.ms", 0, "2000").ms().inert(QUORUM).doc("How long a request within the quorum may take."),
    int("controller.quorum.retry.backoff.ms", 0, "20").ms().inert(QUORUM).doc("The first pause before a request within the quorum is tried again."),
    int("controller.quorum.fetch.max.bytes", 1, "1048576").bytes().inert(QUORUM).doc("The most metadata that is fetched in one go."),
    int("controller.quorum.fetch.snapshot.max.bytes", 1, "1048576").bytes().inert(QUORUM).doc("The most of a metadata snapshot that is fetched in one go."),
    row("cordoned.log.dirs", Kind::List, "").per_broker().default_only("a node has one directory").doc("Directories that get no further replicas."),
    long("leader.replication.throttled.rate", 0, "9223372036854775807").unit(Unit::BytesPerSecond).dynamic().doc("The most that throttled replicas are sent in a second (leader.replication.throttled.replicas)."),
    long("follower.replication.throttled.rate", 0, "9223372036854775807").unit(Unit::BytesPerSecond).dynamic().doc("The most that throttled replicas fetch in a second (follower.replication.throttled.replicas)."),
    long("replica.alter.log.dirs.io.max.bytes.per.second", 0, "9223372036854775807").unit(Unit::BytesPerSecond).dynamic().inert(QUOTA).doc("The most that moves between directories copy in a second."),
    int("quota.window.num", 1, "11").inert(QUOTA).doc("Samples that a client quota looks at."),
    int("quota.window.size.seconds", 1, "1").unit(Unit::Seconds).inert(QUOTA).doc("The length of a sample."),
    int("replication.quota.window.num", 1, "11").inert(QUOTA).doc("Samples that the replication quota looks at."),
    int("replication.quota.window.size.seconds", 1, "1").unit(Unit::Seconds).inert(QUOTA).doc("The length of a sample."),
    int("alter.log.dirs.replication.quota.window.num", 1, "11").inert(QUOTA).doc("Samples that the quota of moves between directories looks at."),
    int("alter.log.dirs.replication.quota.window.size.seconds", 1, "1").unit(Unit::Seconds).inert(QUOTA).doc("The length of a sample."),
    int("controller.quota.window.num", 1, "11").inert(QUOTA).doc("Samples that the quota of metadata changes looks at."),
    int("controller.quota.window.size.seconds", 1, "1").unit(Unit::Seconds).inert(QUOTA).doc("The length of a sample."),
    long("delegation.token.expiry.check.interval.ms", 1, "3600000").ms().inert(TOKENS).doc("How often expired tokens are looked for."),
    long("delegation.token.expiry.time.ms", 1, "86400000").ms().inert(TOKENS).doc("How long a token holds without renewal."),
    long("delegation.token.max.lifetime.ms", 1, "604800000").ms().inert(TOKENS).doc("How long a token holds at most."),
    row("metric.reporters", Kind::List, "").dynamic().inert(JMX).doc("Classes that are told of metrics."),
    int("metrics.num.samples", 1, "2").inert(JMX).doc("Samples behind a metric."),
    row("metrics.recording.level", Kind::Text, "INFO").inert(JMX).doc("Which metrics are recorded."),
    long("metrics.sample.window.ms", 1, "30000").ms().inert(JMX).doc("The length of a sample."),
    int("kafka.metrics.polling.interval.secs", 1, "10").unit(Unit::Seconds).inert(JMX).doc("How often reporters are told."),
    row("kafka.metrics.reporters", Kind::List, "").inert(JMX).doc("Classes that are told of the broker's own metrics."),
];

#[rustfmt::skip]
pub(super) const GROUPS: &[Row] = &[
    int("offsets.topic.num.partitions", 1, "50").doc("Partitions of __consumer_offsets. Counts when it is made; each group belongs to one of them by its name."),
    row("offsets.topic.replication.factor", Kind::Short(1, i16::MAX), "3").doc("Replicas of __consumer_offsets. Counts when it is made. Where nobody sets it, a smaller cluster takes as many as it has brokers."),
    int("offsets.topic.segment.bytes", 1, "104857600").bytes().doc("The segment size of __consumer_offsets: small, so that compaction keeps it short and loading quick."),
    int("offsets.topic.compression.codec", i32::MIN, "0").doc("How __consumer_offsets is compressed, by the codec's number."),
    int("offsets.load.buffer.size", 1, "5242880").bytes().doc("How much of __consumer_offsets is read at once when a coordinator loads its groups."),
    int("offsets.retention.minutes", 1, "10080").unit(Unit::Minutes).doc("How long a group's offsets are kept after its last member has left."),
    long("offsets.retention.check.interval.ms", 1, "600000").ms().doc("How often expired offsets are looked for."),
    int("offsets.commit.timeout.ms", 1, "5000").ms().doc("How long a commit may take to be durable before its client is told to try again."),
    int("offset.metadata.max.bytes", i32::MIN, "4096").bytes().doc("The longest text that may stand beside a committed offset."),
    int("group.initial.rebalance.delay.ms", i32::MIN, "3000").ms().doc("How long an empty group waits for further members before its first rebalance."),
    int("group.min.session.timeout.ms", i32::MIN, "6000").ms().doc("The shortest session timeout that a member may ask for."),
    int("group.max.session.timeout.ms", i32::MIN, "1800000").ms().doc("The longest session timeout that a member may ask for."),
    int("group.max.size", 1, "2147483647").doc("The most members of a classic group."),
    row("group.coordinator.rebalance.protocols", Kind::ListOf(&["consumer", "classic", "share", "streams"]), "classic,consumer,streams").inert(CONSUMER).doc("The group protocols that are served."),
    int("group.coordinator.threads", 1, "4").inert(SIZED).doc("Threads of the group coordinator."),
    int("group.coordinator.background.threads", 1, "2").inert(SIZED).doc("Threads of the group coordinator for long work."),
    int("group.coordinator.append.linger.ms", -1, "-1").ms().inert("group commit needs no timer").doc("How long records of the coordinator wait for company; -1: as long as a write takes."),
    int("group.coordinator.cached.buffer.max.bytes", 524_288, "1048588").bytes().dynamic().inert("buffers draw on the memory budget").doc("The largest buffer that the coordinator keeps."),
    row("group.consumer.assignors", Kind::List, "uniform,range").inert(CONSUMER).doc("The assignors of consumer groups; the first is the default."),
    row("group.consumer.migration.policy", Kind::ChoiceIgnoringCase(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"]), "bidirectional").inert(CONSUMER).doc("Whether a classic group may become a consumer group, and back."),
    int("group.consumer.max.size", 1, "2147483647").inert(CONSUMER).doc("The most members of a consumer group."),
    int("group.consumer.min.session.timeout.ms", 1, "45000").ms().inert(CONSUMER).doc("The shortest session timeout of a consumer group."),
    int("group.consumer.max.session.timeout.ms", 1, "60000").ms().inert(CONSUMER).doc("The longest session timeout of a consumer group."),
    int("group.consumer.min.heartbeat.interval.ms", 1, "5000").ms().inert(CONSUMER).doc("The shortest heartbeat interval of a consumer group."),
    int("group.consumer.max.heartbeat.interval.ms", 1, "15000").ms().inert(CONSUMER).doc("The longest heartbeat interval of a consumer group."),
    int("group.consumer.min.assignment.interval.ms", 0, "0").ms().inert(CONSUMER).doc("The least that consumer.assignment.interval.ms may be."),
    int("group.consumer.max.assignment.interval.ms", 0, "15000").ms().inert(CONSUMER).doc("The most that consumer.assignment.interval.ms may be."),
    row("group.share.assignors", Kind::List, "simple").inert(SHARE).doc("The assignors of share groups."),
    row("group.share.max.size", Kind::Int(1, 1000), "200").inert(SHARE).doc("The most members of a share group."),
    int("group.share.max.share.sessions", 1, "2000").inert(SHARE).doc("The most share sessions of a broker."),
    int("group.share.min.session.timeout.ms", 1, "45000").ms().inert(SHARE).doc("The shortest session timeout of a share group."),
    int("group.share.max.session.timeout.ms", 1, "60000").ms().inert(SHARE).doc("The longest session timeout of a share group."),
    int("group.share.min.heartbeat.interval.ms", 1, "5000").ms().inert(SHARE).doc("The shortest heartbeat interval of a share group."),
    int("group.share.max.heartbeat.interval.ms", 1, "15000").ms().inert(SHARE).doc("The longest heartbeat interval of a share group."),
    row("group.share.min.record.lock.duration.ms", Kind::Int(1_000, 30_000), "15000").ms().inert(SHARE).doc("The shortest hold on a record."),
    row("group.share.max.record.lock.duration.ms", Kind::Int(30_000, 3_600_000), "60000").ms().inert(SHARE).doc("The longest hold on a record."),
    int("group.share.min.assignment.interval.ms", 0, "0").ms().inert(SHARE).doc("The least that share.assignment.interval.ms may be."),
    int("group.share.max.assignment.interval.ms", 0, "15000").ms().inert(SHARE).doc("The most that share.assignment.interval.ms may be."),
    row("group.share.min.delivery.count.limit", Kind::Int(2, 5), "2").inert(SHARE).doc("The least that share.delivery.count.limit may be."),
    row("group.share.max.delivery.count.limit", Kind::Int(5, 25), "10").inert(SHARE).doc("The most that share.delivery.count.limit may be."),
    row("group.share.min.partition.max.record.locks", Kind::Int(100, 2_000), "100").inert(SHARE).doc("The least that share.partition.max.record.locks may be."),
    row("group.share.max.partition.max.record.locks", Kind::Int(2_000, 10_000), "4000").inert(SHARE).doc("The most that share.partition.max.record.locks may be."),
    int("share.coordinator.append.linger.ms", -1, "-1").ms().inert(SHARE).doc("How long records of the share coordinator wait for company; -1: as long as a write takes."),
    int("share.coordinator.cached.buffer.max.bytes", 524_288, "1048588").bytes().dynamic().inert(SHARE).doc("The largest buffer that the share coordinator keeps."),
    int("share.coordinator.load.buffer.size", 1, "5242880").bytes().inert(SHARE).doc("How much of __share_group_state is read at once."),
    row("share.coordinator.snapshot.update.records.per.snapshot", Kind::Int(0, 500), "500").inert(SHARE).doc("Updates of a share group's state between two snapshots of it."),
    int("share.coordinator.threads", 1, "1").inert(SHARE).doc("Threads of the share coordinator."),
    int("share.coordinator.write.timeout.ms", 1, "5000").ms().inert(SHARE).doc("How long a change of a share group's state may take."),
    int("share.coordinator.state.topic.compression.codec", i32::MIN, "0").inert(SHARE).doc("How __share_group_state is compressed, by the codec's number."),
    int("share.fetch.purgatory.purge.interval.requests", i32::MIN, "1000").inert(SHARE).doc("How often ended share fetches are forgotten."),
    int("share.coordinator.state.topic.num.partitions", 1, "50").inert(SHARE).doc("Partitions of __share_group_state."),
    row("share.coordinator.state.topic.replication.factor", Kind::Short(1, i16::MAX), "3").inert(SHARE).doc("Replicas of __share_group_state."),
    row("share.coordinator.state.topic.min.isr", Kind::Short(1, i16::MAX), "2").inert(SHARE).doc("min.insync.replicas of __share_group_state."),
    int("share.coordinator.state.topic.segment.bytes", 1, "104857600").bytes().inert(SHARE).doc("The segment size of __share_group_state."),
    int("group.streams.max.size", 1, "2147483647").inert(STREAMS).doc("The most members of a streams group."),
    int("group.streams.max.standby.replicas", 0, "2").inert(STREAMS).doc("The most that streams.num.standby.replicas may be."),
    int("group.streams.min.assignment.interval.ms", 0, "0").ms().inert(STREAMS).doc("The least that streams.assignment.interval.ms may be."),
    int("group.streams.max.assignment.interval.ms", 0, "15000").ms().inert(STREAMS).doc("The most that streams.assignment.interval.ms may be."),
    int("group.streams.min.heartbeat.interval.ms", 1, "5000").ms().inert(STREAMS).doc("The least that streams.heartbeat.interval.ms may be."),
    int("group.streams.max.heartbeat.interval.ms", 1, "15000").ms().inert(STREAMS).doc("The most that streams.heartbeat.interval.ms may be."),
    int("group.streams.min.session.timeout.ms", 1, "45000").ms().inert(STREAMS).doc("The least that streams.session.timeout.ms may be."),
    int("group.streams.max.session.timeout.ms", 1, "60000").ms().inert(STREAMS).doc("The most that streams.session.timeout.ms may be."),
    int("transaction.max.timeout.ms", 1, "900000").ms().inert(TXN).doc("The longest transaction timeout that a producer may ask for."),
    int("transactional.id.expiration.ms", 1, "604800000").ms().inert(TXN).doc("A transactional id that is idle for so long is forgotten."),
    int("transaction.abort.timed.out.transaction.cleanup.interval.ms", 1, "10000").ms().inert(TXN).doc("How often transactions that took too long are looked for."),
    int("transaction.remove.expired.transaction.cleanup.interval.ms", 1, "3600000").ms().inert(TXN).doc("How often forgotten transactional ids are removed."),
    flag("transaction.partition.verification.enable", "true").dynamic().inert(TXN).doc("Ask the coordinator whether a transaction is open before its records are taken."),
    flag("transaction.two.phase.commit.enable", "false").inert(TXN).doc("Let transactions wait for an outside coordinator."),
    int("transaction.state.log.num.partitions", 1, "50").inert(TXN).doc("Partitions of __transaction_state."),
    row("transaction.state.log.replication.factor", Kind::Short(1, i16::MAX), "3").inert(TXN).doc("Replicas of __transaction_state."),
    int("transaction.state.log.min.isr", 1, "2").inert(TXN).doc("min.insync.replicas of __transaction_state."),
    int("transaction.state.log.segment.bytes", 1, "104857600").bytes().inert(TXN).doc("The segment size of __transaction_state."),
    int("transaction.state.log.load.buffer.size", 1, "5242880").bytes().inert(TXN).doc("How much of __transaction_state is read at once."),
    int("add.partitions.to.txn.retry.backoff.ms", 1, "20").ms().inert(TXN).doc("How long a broker waits before it asks the transaction coordinator again."),
    int("add.partitions.to.txn.retry.backoff.max.ms", 0, "100").ms().inert(TXN).doc("How long it does so at most."),
];
