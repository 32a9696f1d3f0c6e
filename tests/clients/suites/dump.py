"""Apache Kafka's own dump tool reads our segments and checks our indexes."""
import base64
import json
import os
import re
import time
from typing import List

from adapters import Confluent
from harness import Broker, Context, ToolFailed, test
from records import generate

TOOL = "DumpLogSegments"
COMPLAINTS = re.compile(r"mismatch|non-consecutive|out of order|isvalid: false|corrupt|exception|error|missing|invalid|not found|should not", re.IGNORECASE)
BUDGET_BYTES = 48 << 20


def files(root: str, ending: str) -> List[str]:
    out = []
    for directory in sorted(os.listdir(root)):
        path = os.path.join(root, directory)
        # Folders on their way out carry a suffix; the metadata quorum's log is another format.
        if not re.search(r"-\d+$", directory) or directory.startswith("__cluster_metadata") or not os.path.isdir(path):
            continue
        out += [os.path.join(path, n) for n in sorted(os.listdir(path)) if n.endswith(ending)]
    return out


def quiet(t: Context, what: str, chosen: List[str], *options: str) -> str:
    out, printed = "", []
    for at in range(0, len(chosen), 200):
        printed.append(t.java.tool(TOOL, "--files", ",".join(chosen[at : at + 200]), *options, seconds=120))
    out = "\n".join(printed)
    bad = [line for line in out.splitlines() if COMPLAINTS.search(line.replace("isvalid: true", ""))]
    assert not bad, f"{what}: {len(bad)} complaints, the first: {bad[:5]}"
    return out


def check(t: Context, root: str) -> dict:
    logs = [f for f in files(root, ".log") if os.path.getsize(f)]
    total, chosen = 0, []
    # One file of each topic before the second of any, so that a budget does not leave out whole kinds of topics.
    for name in sorted(logs, key=lambda f: (logs.index(f) % 7, f)):
        if t.long or total + os.path.getsize(name) <= BUDGET_BYTES:
            chosen.append(name)
            total += os.path.getsize(name)
    assert chosen, f"no segments under {root}"
    out = quiet(t, "segments", chosen, "--deep-iteration", "--skip-record-metadata")
    batches = len(re.findall(r"^baseOffset: ", out, re.MULTILINE))
    assert batches and batches == len(re.findall(r"isvalid: true", out)), "a batch without a right CRC"
    indexes, stamps = ([f for f in files(root, e) if f[: -len(e)] + ".log" in chosen] for e in (".index", ".timeindex"))
    # A time index is checked against its log in full; for both, the check that Kafka does when it starts.
    quiet(t, "sanity of offset indexes", indexes, "--index-sanity-check")
    quiet(t, "sanity of time indexes", stamps, "--index-sanity-check")
    quiet(t, "offset indexes against segments", [f for f in indexes if os.path.getsize(f)], "--verify-index-only")
    quiet(t, "time indexes against segments", [f for f in stamps if os.path.getsize(f)], "--verify-index-only")
    offsets = [f for f in chosen if os.path.basename(os.path.dirname(f)).startswith("__consumer_offsets-")]
    if offsets:
        quiet(t, "group records", offsets, "--offsets-decoder")
    transactions = files(root, ".txnindex")
    assert all(os.path.getsize(f) % 34 == 0 for f in transactions)
    return {"segments": len(chosen), "of": len(logs), "mib": total >> 20, "batches": batches, "indexes": len(indexes), "time indexes": len(stamps)}


@test("dump: rolled segments of every compression, stamped, idempotent, cut at the front, killed and restarted",
      needs=("java", "confluent"), own_broker=True, seconds=240)
def rolled(t: Context) -> None:
    from confluent_kafka import Consumer, TopicPartition
    from suites.traps_fetch import ask_delete
    broker = t.use(t.start_broker())
    client, now = Confluent(), int(time.time() * 1000)
    names = []
    for number, codec in enumerate(("none", "lz4", "zstd")):
        topic = t.topic(1, segment_bytes=1048576, message_timestamp_type="LogAppendTime" if number == 1 else "CreateTime")
        client.produce(t, topic, generate(codec, 4000, 1, now), codec)
        names.append(topic)
    with t.connect() as one:
        assert ask_delete(one, names[0], 1500) == (0, 1500)
    consumer = Consumer({"bootstrap.servers": t.bootstrap, "group.id": "dumped"})
    consumer.commit(offsets=[TopicPartition(names[0], 0, 1600, metadata="note")], asynchronous=False)
    consumer.close()
    broker.kill()
    broker.start()
    for topic in names:
        client.produce(t, topic, generate("more", 1500, 1, now), "gzip")
    assert broker.stop() in (0, 143)
    root = broker.log_directory
    segments = [f for f in files(root, ".log") if os.path.basename(os.path.dirname(f)).startswith(names[0])]
    assert len(segments) >= 2, f"nothing rolled: {segments}"
    sizes = {f: os.path.getsize(f) for f in files(root, ".index") + files(root, ".timeindex") if t.suite.run_id in f}
    rolled_sizes = [s for f, s in sizes.items() if os.path.dirname(f).endswith(f"{names[0]}-0")]
    assert any(rolled_sizes), "indexes without entries would be checked for nothing"
    assert all(s % (8 if f.endswith(".index") else 12) == 0 for f, s in sizes.items())
    print(check(t, root))
    for topic in names:
        directory = os.path.join(root, f"{topic}-0")
        found = set(os.listdir(directory))
        assert "partition.metadata" in found and "leader-epoch-checkpoint" in found, found
        with open(os.path.join(directory, "partition.metadata"), encoding="ascii") as file:
            assert re.fullmatch(r"version: 0\ntopic_id: [\w-]{22}\n?", file.read())
        with open(os.path.join(directory, "leader-epoch-checkpoint"), encoding="ascii") as file:
            assert re.match(r"0\n\d+\n\d+ \d+\n", file.read())


@test("dump: a committed offset and its group stand in the log as Kafka writes them", needs=("java",), own_broker=True, seconds=120)
def group_records(t: Context) -> None:
    from suites.traps_groups import Member, ready
    broker = t.use(t.start_broker())
    topic, group = t.topic(), t.name("dumped")
    with t.connect() as one:
        ready(t, one, group)
        member = Member(one, group, topic, "one")
        assert member.join(5)["error"] == 0 and member.sync(3, {member.id: b""})[0] == 0
        assert member.commit(7, version=7) == 0
        topic_id = one.metadata([topic], version=12)["topics"][0]["id"]
    assert broker.stop() in (0, 143)
    out = quiet(t, "group records", [f for f in files(broker.log_directory, ".log") if "__consumer_offsets-" in f and os.path.getsize(f)],
                "--offsets-decoder")
    records = [line.split("payload: ") for line in out.splitlines() if group in line]
    (offset,) = [json.loads(value) for key, value in records if topic in key]
    assert offset["version"] == "4" and offset["data"]["offset"] == 7, offset
    assert offset["data"]["topicId"] == base64.urlsafe_b64encode(topic_id).decode().rstrip("="), (offset, topic_id)
    last = [json.loads(value) for key, value in records if topic not in key][-1]
    assert last["version"] == "3" and last["data"]["members"][0]["groupInstanceId"] == "one", last


@test("dump: everything that the suite wrote", needs=("java",), own_broker=True, last=True, seconds=300)
def everything(t: Context) -> None:
    broker = t.suite.broker
    assert isinstance(broker, Broker)
    try:
        print(check(t, broker.log_directory))
    except ToolFailed as e:
        raise AssertionError(e.output[-500:]) from None
