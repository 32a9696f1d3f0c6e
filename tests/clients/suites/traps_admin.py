"""Traps of metadata, topics and configurations."""

from typing import Dict, List, Optional, Sequence, Tuple

import wire
from harness import Context, eventually, test
from wire import ERROR, Reader, Writer, batch

# Topic configurations that users expect to be listed (KAFKA.md section 7) with their defaults; None: depends on the broker.
TOPIC_CONFIGS: Dict[str, Optional[str]] = {
    "cleanup.policy": "delete", "retention.ms": "604800000", "retention.bytes": "-1", "segment.bytes": "1073741824",
    "segment.ms": "604800000", "segment.jitter.ms": "0", "segment.index.bytes": "10485760", "index.interval.bytes": "4096",
    "max.message.bytes": "1048588", "min.insync.replicas": "1", "unclean.leader.election.enable": "false",
    "compression.type": "producer", "compression.gzip.level": "-1", "compression.lz4.level": "9", "compression.zstd.level": "3",
    "message.timestamp.type": "CreateTime", "message.timestamp.before.max.ms": "9223372036854775807",
    "message.timestamp.after.max.ms": "3600000", "delete.retention.ms": "86400000", "min.compaction.lag.ms": "0",
    "max.compaction.lag.ms": "9223372036854775807", "min.cleanable.dirty.ratio": "0.5", "file.delete.delay.ms": "60000",
    "flush.messages": None, "flush.ms": None, "preallocate": "false", "remote.storage.enable": "false",
    "local.retention.ms": "-2", "local.retention.bytes": "-2", "leader.replication.throttled.replicas": "",
    "follower.replication.throttled.replicas": ""}


@test("metadata: cluster id, controller, all topics, no topics, unknown and illegal names (pitfall 7)")
def metadata(t: Context) -> None:
    topic = t.topic(3)
    with t.connect() as one:
        high = one.api_versions(0)["ranges"][wire.METADATA][1]
        for version in range(1, min(high, 13) + 1):
            found = one.metadata([topic], version=version)
            assert [x["name"] for x in found["topics"]] == [topic], version
            assert len(found["brokers"]) == 1 and found["controller"] == found["brokers"][0]["id"]
            if version >= 2:
                assert found["cluster_id"], "null cluster ids break clients"
            parts = found["topics"][0]["partitions"]
            assert sorted(p["index"] for p in parts) == [0, 1, 2]
            assert all(p["leader"] == p["replicas"][0] == p["isr"][0] for p in parts)
            assert one.metadata([], version=version)["topics"] == [], "an empty list is none"
            assert topic in [x["name"] for x in one.metadata(None, version=version)["topics"]], "null is all"
        nowhere = t.name("nowhere")
        for version in (4, 9, 12):
            assert one.metadata([nowhere], version=version)["topics"][0]["error"] == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]
            for illegal in ("a b", "a/b", ".", "..", "x" * 250, "ä", ""):
                error = one.metadata([illegal], version=version, auto_create=True)["topics"][0]["error"]
                assert error == ERROR["INVALID_TOPIC_EXCEPTION"], (illegal, error)
        assert nowhere not in [x["name"] for x in one.metadata(None)["topics"]], "asked without the flag, and made all the same"


@test("metadata: version 0 takes an empty list for all topics (pitfall 7)")
def metadata_v0(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        r = one.request(wire.METADATA, 0, bytes(Writer().i32(0).out))
        r.array(lambda: (r.i32(), r.string(), r.i32()))
        names: list = []
        r.array(lambda: (r.i16(), names.append(r.string()), r.array(lambda: (r.i16(), r.i32(), r.i32(), r.array(r.i32), r.array(r.i32)))))
        r.end()
        assert topic in names


@test("metadata: topics are made on first use, when the request allows it (pitfall 7)")
def auto_create(t: Context) -> None:
    with t.connect() as one:
        for version in (1, 4, 9, 12):
            topic = t.name("auto")
            first = one.metadata([topic], version=version, auto_create=True)["topics"][0]
            assert first["error"] in (0, ERROR["UNKNOWN_TOPIC_OR_PARTITION"], ERROR["LEADER_NOT_AVAILABLE"]), first
            one.wait_leaders(topic, 1)
            assert one.produce(topic, batch([(None, b"x")]))["error"] == 0


@test("metadata: the broker's address is one that a client can use from anywhere it reached the broker from (pitfall 23)")
def advertised(t: Context) -> None:
    with t.connect() as one:
        (broker,) = one.metadata([])["brokers"]
        assert (broker["host"], broker["port"]) == (t.host, t.port), broker


@test("topics: a leader epoch never goes back, and internal topics are marked (pitfall 8)")
def internal_and_epochs(t: Context) -> None:
    with t.connect() as one:
        r = one.request(wire.FIND_COORDINATOR, 0, bytes(Writer().string(t.name("g")).out))
        assert r.i16() in (0, 15)
        found = eventually("__consumer_offsets", lambda: [x for x in one.metadata(None, version=7)["topics"] if x["name"] == "__consumer_offsets"])[0]
        assert found["internal"] == 1
        assert all(p["epoch"] >= 0 for p in found["partitions"])


@test("topics: CreateTopics refuses what Kafka refuses, with its errors")
def create_refusals(t: Context) -> None:
    base = t.topic()
    with t.connect() as one:
        cases = [((base, 1, {}), "TOPIC_ALREADY_EXISTS"), ((".", 1, {}), "INVALID_TOPIC_EXCEPTION"), (("a b", 1, {}), "INVALID_TOPIC_EXCEPTION"),
                 (("x" * 250, 1, {}), "INVALID_TOPIC_EXCEPTION"), ((base.replace("-", ".") + "_", 1, {}), "NONE"),
                 ((base.replace("-", "_") + ".", 1, {}), "INVALID_TOPIC_EXCEPTION"), ((t.name(), 0, {}), "INVALID_PARTITIONS"),
                 ((t.name(), -2, {}), "INVALID_PARTITIONS"), ((t.name(), 1, {"no.such.key": "1"}), "INVALID_CONFIG"),
                 ((t.name(), 1, {"segment.bytes": "1000"}), "INVALID_CONFIG"), ((t.name(), 1, {"retention.ms": "soon"}), "INVALID_CONFIG"),
                 ((t.name(), 1, {"cleanup.policy": "burn"}), "INVALID_CONFIG"), ((t.name(), 10_001, {}), "POLICY_VIOLATION"),
                 ((t.name(), -1, {}), "NONE")]
        for (name, partitions, configs), error in cases:
            got = one.create_topic(name, partitions, configs)
            assert got == ERROR[error], f"{name} with {partitions} partitions, {configs}: {wire.NAME_OF.get(got, got)} instead of {error}"
        collide = t.name("col.lide")
        assert one.create_topic(collide, 1) == 0
        got = one.create_topic(collide.replace(".", "_"), 1)
        assert got == ERROR["INVALID_TOPIC_EXCEPTION"], f"names that differ in . and _ only: {got}"
        checked = t.name("checked")
        assert one.create_topic(checked, 1, validate=True) == 0
        assert one.metadata([checked], version=4)["topics"][0]["error"] == ERROR["UNKNOWN_TOPIC_OR_PARTITION"], "validate_only made it"
        assert one.create_topic(t.name(), 1, {}, version=2) == 0
        assert one.delete_topic("a b") == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]
        assert one.delete_topic(t.name("nowhere")) == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]


@test("topics: every version of CreateTopics, and what version 5 and later tell")
def create_versions(t: Context) -> None:
    with t.connect() as one:
        low, high = one.api_versions(0)["ranges"][wire.CREATE_TOPICS]
        for version in range(low, high + 1):
            name = t.name(f"v{version}")
            w = Writer(version >= 5)
            w.array([name], lambda n: w.string(n).i32(2).i16(1).array([], lambda _: None)
                    .array([("retention.ms", "1234567")], lambda c: w.string(c[0]).string(c[1]).tags()).tags()).i32(15000).i8(0).tags()
            r = one.request(wire.CREATE_TOPICS, version, bytes(w.out))
            r.i32()

            def config() -> tuple:
                found = (r.string(), r.string(), r.i8(), r.i8(), r.i8())
                r.tags()
                return found

            def topic() -> None:
                assert r.string() == name
                if version >= 7:
                    assert r.take(16) != bytes(16)
                assert r.i16() == 0
                r.string()
                if version >= 5:
                    assert (r.i32(), r.i16()) == (2, 1)
                    configs = {c[0]: c for c in r.array(config) or []}
                    assert configs["retention.ms"][1] == "1234567"
                    missing = set(TOPIC_CONFIGS) - set(configs)
                    assert not missing, missing
                r.tags()

            r.array(topic)
            r.tags()
            r.end()


@test("topics: CreatePartitions grows, and refuses to shrink or to stay")
def create_partitions(t: Context) -> None:
    topic = t.topic(2)
    with t.connect() as one:
        def grow(count: int, name: str = topic, validate: bool = False) -> int:
            w = Writer()
            w.array([name], lambda n: w.string(n).i32(count).i32(-1)).i32(15000).i8(validate)
            r = one.request(wire.CREATE_PARTITIONS, 1, bytes(w.out))
            r.i32()
            return (r.array(lambda: (r.string(), r.i16(), r.string())) or [])[0][1]

        assert grow(1) == ERROR["INVALID_PARTITIONS"] and grow(2) == ERROR["INVALID_PARTITIONS"] and grow(0) == ERROR["INVALID_PARTITIONS"]
        assert grow(5, validate=True) == 0 and grow(5) == 0
        one.wait_leaders(topic, 5)
        assert one.produce(topic, batch([(None, b"x")]), partition=4)["error"] == 0
        assert grow(3, t.name("nowhere")) == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]


Config = Tuple[str, Optional[str], int, List[tuple]]


def describe(one: wire.Connection, kind: int, name: str, keys: Optional[Sequence[str]] = None, version: int = 1) -> Tuple[int, Dict[str, Config], Optional[str]]:
    w = Writer(version >= 4)
    w.array([0], lambda _: w.i8(kind).string(name).array(keys, w.string).tags())
    w.i8(1)
    if version >= 3:
        w.i8(1)
    w.tags()
    r: Reader = one.request(wire.DESCRIBE_CONFIGS, version, bytes(w.out))
    r.i32()
    found: Dict[str, Config] = {}
    said: list = []

    def entry() -> None:
        key, value, _read_only, source, _sensitive = r.string(), r.string(), r.i8(), r.i8(), r.i8()
        synonyms = r.array(lambda: (r.string(), r.string(), r.i8(), r.tags())[:3]) or []
        if version >= 3:
            r.i8()
            r.string()
        r.tags()
        found[key or ""] = (key or "", value, source, synonyms)

    r.array(lambda: (said.extend((r.i16(), r.string())), r.i8(), r.string(), r.array(entry), r.tags()))
    r.tags()
    r.end()
    return said[0], found, said[1]


@test("configs: DescribeConfigs lists every topic setting, with defaults, sources and synonyms (pitfall 22)")
def describe_topic(t: Context) -> None:
    topic = t.topic(retention_ms=77777)
    with t.connect() as one:
        for version in (1, 2, 3, 4):
            error, found, message = describe(one, 2, topic, version=version)
            assert error == 0 and message in ("", None)
            missing = set(TOPIC_CONFIGS) - set(found)
            assert not missing, f"not listed: {missing}"
            wrong = {k: found[k][1] for k, v in TOPIC_CONFIGS.items() if v is not None and k != "retention.ms" and found[k][1] != v}
            assert not wrong, f"other defaults than Kafka's: {wrong}"
            assert found["retention.ms"][1:3] == ("77777", 1), "set on the topic: source 1"
            assert found["segment.bytes"][2] == 5, "a default: source 5"
            assert [s[0] for s in found["retention.ms"][3]][0] == "retention.ms"
            assert "log.segment.bytes" in [s[0] for s in found["segment.bytes"][3]]
        error, found, _ = describe(one, 2, topic, ["retention.ms", "nonsense"])
        assert error == 0 and list(found) == ["retention.ms"]
        assert describe(one, 2, t.name("nowhere"))[0] == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]
        assert describe(one, 2, "a b")[0] == ERROR["INVALID_TOPIC_EXCEPTION"]


@test("configs: DescribeConfigs of a broker lists what tools look for (pitfall 22)")
def describe_broker(t: Context) -> None:
    with t.connect() as one:
        node = one.metadata([])["brokers"][0]["id"]
        error, found, _ = describe(one, 4, str(node))
        assert error == 0
        wanted = {"auto.create.topics.enable", "num.partitions", "default.replication.factor", "log.retention.ms", "log.segment.bytes", "message.max.bytes",
                  "offsets.topic.replication.factor", "offsets.retention.minutes", "group.initial.rebalance.delay.ms", "min.insync.replicas",
                  "socket.request.max.bytes", "delete.topic.enable", "fetch.max.bytes", "compression.type"}
        assert wanted <= set(found), wanted - set(found)
        assert describe(one, 4, "4711")[0] in (ERROR["INVALID_REQUEST"], 40)
        assert describe(one, 4, "not a number")[0] in (ERROR["INVALID_REQUEST"], 40)


def alter(one: wire.Connection, topic: str, changes: Sequence[Tuple[str, int, Optional[str]]], validate: bool = False) -> int:
    w = Writer()
    w.array([0], lambda _: w.i8(2).string(topic).array(changes, lambda c: w.string(c[0]).i8(c[1]).string(c[2]))).i8(validate)
    r = one.request(wire.INCREMENTAL_ALTER_CONFIGS, 0, bytes(w.out))
    r.i32()
    return (r.array(lambda: (r.i16(), r.string(), r.i8(), r.string())) or [])[0][0]


SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3


@test("configs: IncrementalAlterConfigs: set, delete, append, subtract, validate_only, and its errors (pitfall 22)")
def incremental(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        def value(key: str) -> Tuple[Optional[str], int]:
            found = describe(one, 2, topic)[1][key]
            return found[1], found[2]

        def becomes(key: str, expected: Tuple[Optional[str], int]) -> None:
            eventually(f"{key} = {expected}", lambda: value(key) == expected)

        assert alter(one, topic, [("retention.ms", SET, "5000000")], validate=True) == 0
        assert value("retention.ms") == ("604800000", 5)
        assert alter(one, topic, [("retention.ms", SET, "5000000"), ("max.message.bytes", SET, "3000")]) == 0
        becomes("retention.ms", ("5000000", 1))
        assert alter(one, topic, [("retention.ms", DELETE, None)]) == 0
        becomes("retention.ms", ("604800000", 5))
        assert value("max.message.bytes") == ("3000", 1), "what is not named stays"
        assert alter(one, topic, [("cleanup.policy", APPEND, "compact")]) == 0
        becomes("cleanup.policy", ("delete,compact", 1))
        assert alter(one, topic, [("cleanup.policy", SUBTRACT, "delete")]) == 0
        becomes("cleanup.policy", ("compact", 1))
        for changes, error in (([("no.such.key", SET, "1")], "INVALID_CONFIG"), ([("retention.ms", SET, "soon")], "INVALID_CONFIG"),
                               ([("segment.bytes", SET, "1000")], "INVALID_CONFIG"), ([("retention.ms", SET, None)], "INVALID_REQUEST"),
                               ([("cleanup.policy", APPEND, None)], "INVALID_REQUEST"), ([("retention.ms", APPEND, "1")], "INVALID_CONFIG"),
                               ([("retention.ms", SET, "1000000"), ("retention.ms", DELETE, None)], "INVALID_REQUEST"), ([("no.such.key", DELETE, None)], "NONE"),
                               ([("min.insync.replicas", SET, "3")], "NONE")):
            got = alter(one, topic, changes)
            assert got == ERROR[error], f"{changes}: {wire.NAME_OF.get(got, got)} instead of {error}"
        assert alter(one, t.name("nowhere"), [("retention.ms", SET, "1000000")]) == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]


@test("configs: an operation that does not exist gets INVALID_REQUEST", ours_only=True)
def unknown_operation(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        for operation in (4, -1, 127):
            assert alter(one, topic, [("retention.ms", operation, "1000000")]) == ERROR["INVALID_REQUEST"]


@test("cluster: DescribeCluster and DescribeTopicPartitions tell what Metadata tells")
def describe_cluster(t: Context) -> None:
    topic = t.topic(3)
    with t.connect() as one:
        told = one.metadata([topic], version=12)
        w = Writer(True).i8(0).i8(1).tags()
        r = one.request(wire.DESCRIBE_CLUSTER, 1, bytes(w.out))
        assert (r.i32(), r.i16()) == (0, 0)
        r.string()
        assert r.i8() == 1 and r.string() == told["cluster_id"]
        r.i32()
        brokers = r.array(lambda: (r.i32(), r.string(), r.i32(), r.string(), r.tags())[:3])
        assert brokers == [(b["id"], b["host"], b["port"]) for b in told["brokers"]]
        w = Writer(True)
        w.array([topic], lambda n: w.string(n).tags()).i32(2000).i8(-1).tags()
        r = one.request(75, 0, bytes(w.out))
        r.i32()

        def part() -> tuple:
            found = (r.i16(), r.i32(), r.i32(), r.i32(), r.array(r.i32), r.array(r.i32))
            r.array(r.i32), r.array(r.i32), r.array(r.i32), r.tags()
            return found

        def described() -> tuple:
            found = (r.i16(), r.string(), r.take(16), r.i8(), r.array(part))
            r.i32(), r.tags()
            return found

        (found,) = r.array(described) or []
        assert found[:3] == (0, topic, told["topics"][0]["id"]) and [p[1] for p in found[4]] == [0, 1, 2]
        assert [(p[2], p[3]) for p in found[4]] == [(p["leader"], p["epoch"]) for p in sorted(told["topics"][0]["partitions"], key=lambda p: p["index"])]


@test("coordinator: FindCoordinator alone and for many groups at once, and its errors (pitfall 21)")
def find_coordinator(t: Context) -> None:
    groups = [t.name("g") for _ in range(3)]
    with t.connect() as one:
        (broker,) = one.metadata([])["brokers"]
        for version in range(0, 4):
            def asked() -> Optional[tuple]:
                w = Writer(version >= 3).string(groups[0])
                if version >= 1:
                    w.i8(0)
                w.tags()
                r = one.request(wire.FIND_COORDINATOR, version, bytes(w.out))
                if version >= 1:
                    r.i32()
                error = r.i16()
                if version >= 1:
                    r.string()
                return None if error else (r.i32(), r.string(), r.i32())

            found = eventually("a coordinator", asked)
            assert found == (broker["id"], broker["host"], broker["port"])
        for version in (4, 5, 6):
            w = Writer(True).i8(0)
            w.array(groups, w.string).tags()
            r = one.request(wire.FIND_COORDINATOR, version, bytes(w.out))
            r.i32()
            many = r.array(lambda: (r.string(), r.i32(), r.string(), r.i32(), r.i16(), r.string(), r.tags())[:5])
            assert [(m[0], m[1], m[3], m[4]) for m in many or []] == [(g, broker["id"], broker["port"], 0) for g in groups]
        w = Writer(False).string("g").i8(7)
        r = one.request(wire.FIND_COORDINATOR, 1, bytes(w.out))
        r.i32()
        assert r.i16() == ERROR["INVALID_REQUEST"]

