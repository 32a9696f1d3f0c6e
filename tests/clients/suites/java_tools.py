"""Apache Kafka's own command-line tools, in one JVM."""
import json
import re
import time

from harness import CODECS, Context, eventually, java, test

NEEDS = ("java",)


def end_of(t: Context, topic: str) -> int:
    with t.connect() as one:
        return one.list_offset(topic, -1)[2]


@test("java: console producer and consumer with every compression, keys, headers and null values", needs=NEEDS, seconds=150)
def console(t: Context) -> None:
    for codec in CODECS:
        topic, group = t.topic(), t.name("console")
        lines = [f"h{n}:{'x' * (n % 30)}\tkey{n}\tvalue {n} {'y' * (n * 37 % 3000)}" for n in range(500)] + ["NULL\tkeyless\tNULL"]
        t.java.tool("ConsoleProducer", "--bootstrap-server", t.bootstrap, "--topic", topic, "--compression-codec", codec,
                    "--reader-property", "parse.key=true", "--reader-property", "parse.headers=true", "--reader-property", "null.marker=NULL",
                    stdin="".join(f"{line}\n" for line in lines).encode())
        assert end_of(t, topic) == 501
        out = t.java.tool("consumer.ConsoleConsumer", "--bootstrap-server", t.bootstrap, "--topic", topic, "--group", group, "--from-beginning",
                          "--max-messages", "501", "--timeout-ms", "30000", "--formatter-property", "print.key=true",
                          "--formatter-property", "print.headers=true", "--formatter-property", "print.offset=true")
        read = [line.split("\t") for line in out.splitlines() if line.startswith("Offset:")]
        assert len(read) == 501, len(read)
        for n, (offset, headers, key, value) in enumerate(read[:500]):
            assert [offset, headers, key, value] == [f"Offset:{n}", *lines[n].split("\t")], (n, offset, headers, key)
        assert read[500][1:] == ["NO_HEADERS", "keyless", "null"], read[500]


@test("java: kafka-topics: create, list, describe, alter, delete", needs=NEEDS)
def topics(t: Context) -> None:
    name, at = t.name("tool"), ("--bootstrap-server", t.bootstrap)
    assert f"Created topic {name}." in t.java.tool("TopicCommand", *at, "--create", "--topic", name, "--partitions", "3", "--config", "retention.ms=99000")
    assert "already exists" in t.java.tool("TopicCommand", *at, "--create", "--topic", name, fails=True)
    assert name in t.java.tool("TopicCommand", *at, "--list").split()
    out = t.java.tool("TopicCommand", *at, "--describe", "--topic", name)
    assert re.search(r"PartitionCount: 3\s+ReplicationFactor: 1\s+Configs: .*retention.ms=99000", out), out
    assert re.search(r"TopicId: [\w-]{22}\s", out), out
    assert len(re.findall(r"Partition: \d\s+Leader: \d+\s+Replicas: \d+\s+Isr: \d+", out)) == 3, out
    t.java.tool("TopicCommand", *at, "--alter", "--topic", name, "--partitions", "5")
    eventually("five partitions", lambda: "PartitionCount: 5" in t.java.tool("TopicCommand", *at, "--describe", "--topic", name))
    assert t.java.tool("TopicCommand", *at, "--describe", "--under-replicated-partitions", "--topic", name).strip() == ""
    t.java.tool("TopicCommand", *at, "--delete", "--topic", name)
    eventually("the topic is gone", lambda: name not in t.java.tool("TopicCommand", *at, "--list").split())
    assert "does not exist" in t.java.tool("TopicCommand", *at, "--describe", "--topic", name, fails=True)


@test("java: kafka-configs: describe, alter, delete, for topics and brokers (pitfall 22)", needs=NEEDS)
def configs(t: Context) -> None:
    topic, at = t.topic(), ("--bootstrap-server", t.bootstrap)
    tool = "kafka.admin.ConfigCommand"
    named = (*at, "--entity-type", "topics", "--entity-name", topic)
    t.java.tool(tool, *named, "--alter", "--add-config", "retention.ms=123456,cleanup.policy=[compact,delete]")
    out = t.java.tool(tool, *named, "--describe")
    assert "retention.ms=123456" in out and "cleanup.policy=compact,delete" in out
    assert "DYNAMIC_TOPIC_CONFIG:retention.ms=123456" in out
    t.java.tool(tool, *named, "--alter", "--delete-config", "retention.ms")
    eventually("the default is back", lambda: "retention.ms" not in t.java.tool(tool, *named, "--describe"))
    out = t.java.tool(tool, *named, "--describe", "--all")
    assert re.search(r"segment.bytes=1073741824 sensitive=false synonyms=\{.*log.segment.bytes=1073741824", out), out[-2000:]
    assert "nvalid" in t.java.tool(tool, *named, "--alter", "--add-config", "retention.ms=soon", fails=True)
    node = re.search(r"\(id: (\d+)", t.java.tool("BrokerApiVersionsCommand", *at))
    assert node
    out = t.java.tool(tool, *at, "--entity-type", "brokers", "--entity-name", node[1], "--describe", "--all")
    assert "num.partitions=" in out and "message.max.bytes=" in out


@test("java: kafka-get-offsets and kafka-delete-records", needs=NEEDS)
def offsets(t: Context) -> None:
    topic, at = t.topic(2), ("--bootstrap-server", t.bootstrap)
    import wire
    stamp = int(time.time() * 1000) - 5000
    with t.connect() as one:
        assert one.produce(topic, wire.batch([(b"%d" % n, b"v") for n in range(20)], timestamp=stamp, timestamps=list(range(0, 200, 10))))["error"] == 0

    def shown(*words: str) -> list:
        return sorted(t.java.tool("GetOffsetShell", *at, "--topic", topic, *words).split())

    assert shown() == [f"{topic}:0:20", f"{topic}:1:0"]
    assert shown("--time", "earliest") == [f"{topic}:0:0", f"{topic}:1:0"]
    assert shown("--time", "-3")[0] == f"{topic}:0:19"
    assert shown("--time", str(stamp + 95))[0] == f"{topic}:0:10"
    assert shown("--time", "-4") == [f"{topic}:0:0", f"{topic}:1:0"]
    path = f"{t.directory}/delete.json"
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"partitions": [{"topic": topic, "partition": 0, "offset": 7}], "version": 1}, file)
    assert "low_watermark: 7" in t.java.tool("DeleteRecordsCommand", *at, "--offset-json-file", path)
    assert shown("--time", "earliest")[0] == f"{topic}:0:7"


@test("java: kafka-log-dirs, kafka-broker-api-versions, kafka-cluster", needs=NEEDS)
def about_the_broker(t: Context) -> None:
    topic, at = t.topic(2), ("--bootstrap-server", t.bootstrap)
    import wire
    with t.connect() as one:
        assert one.produce(topic, wire.batch([(b"k", b"v" * 1000)]))["error"] == 0
        cluster = one.metadata([], version=4)["cluster_id"]
    out = t.java.tool("LogDirsCommand", *at, "--describe", "--topic-list", topic)
    (line,) = [x for x in out.splitlines() if x.startswith("{")]
    parts = {p["partition"]: p for b in json.loads(line)["brokers"] for d in b["logDirs"] if d["error"] is None for p in d["partitions"]}
    assert set(parts) == {f"{topic}-0", f"{topic}-1"} and parts[f"{topic}-0"]["size"] > 1000 and parts[f"{topic}-1"]["size"] == 0, parts
    assert all(p["offsetLag"] == 0 and p["isFuture"] is False for p in parts.values())
    out = t.java.tool("BrokerApiVersionsCommand", *at)
    assert re.search(rf"{re.escape(t.bootstrap)} \(id: \d+ rack: \S+ isFenced: false\) -> \(", out), out[:300]
    assert re.search(r"Produce\(0\): 0 to \d+ \[usable: \d+\]", out), out[:600]
    usable = dict(re.findall(r"(\w+)\(\d+\): .*?\[usable: (\d+)\]", out))
    for name in ("Fetch", "ListOffsets", "Metadata", "OffsetCommit", "JoinGroup", "CreateTopics", "DescribeConfigs", "DescribeCluster", "InitProducerId"):
        assert name in usable, f"{name} is not usable for the Java client"
    assert cluster in t.java.tool("ClusterTool", "cluster-id", *at)
    assert t.bootstrap.split(":", maxsplit=1)[0] in t.java.tool("ClusterTool", "list-endpoints", *at)


@test("java: kafka-consumer-groups and kafka-groups: list, describe, reset, delete offsets, delete", needs=NEEDS, seconds=150)
def groups(t: Context) -> None:
    from adapters import Java
    from records import generate
    topic, group, at = t.topic(2), t.name("tool-group"), ("--bootstrap-server", t.bootstrap)
    client = Java()
    records = generate("tool", 100, 2, int(time.time() * 1000))
    client.produce(t, topic, records, "none")
    client.consume(t, topic, 100, group, 30)
    ends = [sum(1 for r in records if r.partition == p) for p in (0, 1)]

    def tool(*words: str, fails: bool = False) -> str:
        return t.java.tool("consumer.group.ConsumerGroupCommand", *at, *words, fails=fails)

    def positions() -> dict:
        out = tool("--describe", "--group", group, "--offsets")
        return {int(m[0]): (m[1], m[2], m[3]) for m in re.findall(rf"{topic}\s+(\d+)\s+(\S+)\s+(\S+)\s+(\S+)", out)}

    assert group in tool("--list").split()
    assert re.search(rf"{group}\s+\S*\s*Empty", tool("--list", "--state"))
    assert re.search(rf"{group}\s+Classic\s+consumer", t.java.tool("GroupsCommand", *at, "--list"))
    assert group in t.java.tool("GroupsCommand", *at, "--list", "--group-type", "classic")
    assert positions() == {0: (str(ends[0]), str(ends[0]), "0"), 1: (str(ends[1]), str(ends[1]), "0")}
    assert re.search(rf"{group}\s.*Empty\s+0", tool("--describe", "--group", group, "--state"))
    tool("--reset-offsets", "--group", group, "--topic", topic, "--to-earliest", "--execute")
    assert positions()[0][:2] == ("0", str(ends[0]))
    tool("--reset-offsets", "--group", group, "--topic", f"{topic}:1", "--to-offset", "9", "--execute")
    assert positions()[1][0] == "9" and positions()[1][2] == str(ends[1] - 9)
    tool("--reset-offsets", "--group", group, "--topic", topic, "--shift-by", "5", "--execute")
    assert [positions()[p][0] for p in (0, 1)] == ["5", "14"]
    middle = sorted(r.timestamp for r in records)[50]
    import datetime
    when = datetime.datetime.fromtimestamp(middle / 1000, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    tool("--reset-offsets", "--group", group, "--topic", topic, "--to-datetime", when, "--execute")
    for p in (0, 1):
        first = [r.timestamp for r in records if r.partition == p]
        assert positions()[p][0] == str(next(i for i, ts in enumerate(first) if ts >= middle)), (p, positions())
    read = client.consume(t, topic, 1, group, 20)
    assert read and read[0].offset == int(next(i for i, ts in enumerate([r.timestamp for r in records if r.partition == read[0].partition]) if ts >= middle))
    tool("--delete-offsets", "--group", group, "--topic", f"{topic}:0")
    assert set(p for p, v in positions().items() if v[0] != "-") == {1}
    out = tool("--delete", "--group", group)
    assert "successful" in out, out
    assert group not in tool("--list").split()


@test("java: kafka-verifiable-producer and -consumer", needs=NEEDS)
def verifiable(t: Context) -> None:
    topic, at = t.topic(2), ("--bootstrap-server", t.bootstrap)
    out = java("org.apache.kafka.tools.VerifiableProducer", *at, "--topic", topic, "--max-messages", "2000", "--acks", "-1")
    events = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    done = [e for e in events if e["name"] == "producer_send_success"]
    assert len(done) == 2000
    (data,) = [e for e in events if e["name"] == "tool_data"]
    assert (data["sent"], data["acked"]) == (2000, 2000)
    for partition in (0, 1):
        assert [e["offset"] for e in done if e["partition"] == partition] == list(range(sum(e["partition"] == partition for e in done)))
    out = java("org.apache.kafka.tools.VerifiableConsumer", *at, "--topic", topic, "--group-id", t.name("vc"), "--max-messages", "2000", "--group-protocol", "classic",
                      "--reset-policy", "earliest", "--verbose")
    events = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    values = {(e["partition"], e["offset"]): e["value"] for e in events if e["name"] == "record_data"}
    assert len(values) == 2000
    assert all(values[e["partition"], e["offset"]] == e["value"] for e in done)
    assert any(e["name"] == "offsets_committed" and e["success"] for e in events)


@test("java: perf tools write and read", needs=NEEDS)
def perf(t: Context) -> None:
    topic = t.topic()
    out = t.java.tool("ProducerPerformance", "--topic", topic, "--num-records", "20000", "--record-size", "200", "--throughput", "-1",
                      "--producer-props", f"bootstrap.servers={t.bootstrap}", "acks=all")
    assert out.startswith("20000 records sent") or "\n20000 records sent" in out, out[-400:]
    out = t.java.tool("ConsumerPerformance", "--bootstrap-server", t.bootstrap, "--topic", topic, "--num-records", "20000", "--group", t.name("perf"))
    assert out.strip().splitlines()[-1].split(",")[4].strip() == "20000", out
