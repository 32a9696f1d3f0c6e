"""What outlives kill -9 and kill -TERM: records, producer state, groups, topics, settings."""
import json
import os
import subprocess
import sys
import time

import wire
from adapters import Confluent
from harness import Context, eventually, test
from records import compare, generate
from suites.groups import Live, fill, shared
from wire import ERROR, batch

HERE = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


@test("restart: everything acknowledged before kill -9 is there after it", needs=("confluent",), own_broker=True, seconds=150)
def acknowledged(t: Context) -> None:
    broker = t.use(t.start_broker())
    topic, client = t.topic(3), Confluent()
    records = generate("restart", 3000, 3, int(time.time() * 1000))
    offsets = client.produce(t, topic, records, "lz4")
    broker.kill()
    broker.start()
    read = client.consume(t, topic, 3000, t.name("g"))
    compare([r._replace(offset=o) for r, o in zip(records, offsets)], read)
    again = client.produce(t, topic, records[:100], "none")
    assert sorted(set(again)) == sorted(again) or len(again) == 100
    assert len(client.consume(t, topic, 3100, t.name("g"))) == 3100


@test("restart: topic ids, settings, partitions, log start, cluster id and producer ids outlive kill -9 and kill -TERM", own_broker=True, seconds=150)
def metadata_stays(t: Context) -> None:
    from suites.traps_admin import SET, alter, describe
    from suites.traps_fetch import ask_delete
    broker = t.use(t.start_broker())
    topic = t.topic(2, retention_ms=12345678)
    with t.connect() as one:
        assert alter(one, topic, [("max.message.bytes", SET, "54321")]) == 0
        eventually("the change", lambda: describe(one, 2, topic)[1]["max.message.bytes"][1] == "54321")
        for n in range(5):
            assert one.produce(topic, batch([(b"k", b"%d" % n)] * 10))["error"] == 0
        assert ask_delete(one, topic, 15) == (0, 15)
        before = one.metadata([topic], version=12)
        pids = {one.init_producer_id()[0] for _ in range(3)}
    for how in ("kill", "stop"):
        status = getattr(broker, how)()
        assert how == "kill" or status in (0, 143), f"kill -TERM ended with status {status}"
        broker.start()
        with t.connect() as one:
            one.wait_leaders(topic, 2)
            after = one.metadata([topic], version=12)
            assert after["cluster_id"] == before["cluster_id"]
            assert after["topics"][0]["id"] == before["topics"][0]["id"]
            for old, new in zip(*(sorted(m["topics"][0]["partitions"], key=lambda p: p["index"]) for m in (before, after))):
                assert new["epoch"] >= old["epoch"], "leader epochs never go back (pitfall 8)"
            before = after
            found = describe(one, 2, topic)[1]
            assert (found["retention.ms"][1], found["max.message.bytes"][1]) == ("12345678", "54321")
            def ends() -> list:
                return [one.list_offset(topic, at)[2] for at in (-2, -1)]

            if t.reference:
                # Kafka writes down once a minute where a log starts and forgets a deletion when it is killed before;
                # and it may answer before it knows its high watermark again.
                eventually("the end", lambda: ends() in ([15, 50], [0, 50]))
            else:
                assert ends() == [15, 50], f"after {how}: {ends()}"
            pid = one.init_producer_id()[0]
            assert pid not in pids, "a producer id was given out twice"
            pids.add(pid)


@test("restart: producer state outlives kill -9: duplicates are known, gaps refused (KAFKA.md 3.1, pitfall 32)", own_broker=True, seconds=150)
def producer_state(t: Context) -> None:
    broker = t.use(t.start_broker())
    topic = t.topic()
    with t.connect() as one:
        pid, _ = one.init_producer_id()
        for n in range(7):
            assert one.produce(topic, batch([(b"k", b"v")], producer_id=pid, epoch=0, sequence=n))["offset"] == n
    for how in ("kill", "stop", "kill"):
        getattr(broker, how)()
        broker.start()
        with t.connect() as one:
            one.wait_leaders(topic, 1)

            def write(sequence: int) -> tuple:
                found = one.produce(topic, batch([(b"k", b"v")], producer_id=pid, epoch=0, sequence=sequence))
                return found["error"], found["offset"]

            end = one.list_offset(topic, -1)[2]
            assert write(end - 1) == (0, end - 1), f"after {how}: the last batch again"
            assert write(end + 1)[0] == ERROR["OUT_OF_ORDER_SEQUENCE_NUMBER"], f"after {how}: a gap"
            assert write(end) == (0, end)


@test("restart: a group goes on after kill -9: members stay, offsets stay, no record is missed", needs=("confluent",), own_broker=True, seconds=150)
def group_survives(t: Context) -> None:
    from confluent_kafka import Consumer, TopicPartition
    broker = t.use(t.start_broker())
    topic, group, kept = t.topic(4), t.name("survivor"), t.name("kept")
    fill(t, topic, 50, 4)
    committer = Consumer({"bootstrap.servers": t.bootstrap, "group.id": kept})
    committer.commit(offsets=[TopicPartition(topic, 2, 33, metadata="kept")], asynchronous=False)
    committer.close()
    members = [Live(t, topic, group, seconds=20), Live(t, topic, group, seconds=20)]
    eventually("two share", shared(members, 4))
    eventually("everything is read", lambda: sum(len(m.read.get(p, [])) for m in members for p in range(4)) >= 200)
    broker.kill()
    broker.start()
    with t.connect() as one:
        one.wait_leaders(topic, 4)
    fill(t, topic, 50, 4)
    eventually("the members read on", lambda: all(any(99 in m.read.get(p, []) for m in members) for p in range(4)), 60)
    eventually("and still share", shared(members, 4), 60)
    for m in members:
        m.stop()
    again = Consumer({"bootstrap.servers": t.bootstrap, "group.id": kept})
    (found,) = again.committed([TopicPartition(topic, 2)], 20)
    assert (found.offset, found.metadata) == (33, "kept")
    again.close()


@test("restart: a static group is not rebalanced by kill -9: its record is read back", own_broker=True, seconds=150)
def static_group_survives(t: Context) -> None:
    from suites.traps_groups import Member, described, ready
    broker = t.use(t.start_broker())
    topic, group = t.topic(), t.name("static")
    with t.connect() as one:
        ready(t, one, group)
        m = Member(one, group, topic, "one")
        assert m.join(5, session_ms=60_000)["error"] == 0 and m.sync(3, {m.id: b"mine"}) == (0, b"mine")
        assert m.commit(5, version=7) == 0
        member, generation = m.id, m.generation
    broker.kill()
    broker.start()
    with t.connect() as one:
        eventually("a coordinator", lambda: one.request(wire.FIND_COORDINATOR, 0, bytes(wire.Writer().string(group).out)).i16() == 0)
        m = Member(one, group, topic, "one")
        m.id, m.generation = member, generation
        eventually("the member is known", lambda: m.heartbeat(3) == 0)
        (found,) = described(one, [group], 5)
        assert found["state"] == "Stable" and found["members"][0]["assignment"] == b"mine" and found["members"][0]["instance"] == "one", found
        assert m.sync(3) == (0, b"mine")


@test("restart: kill loop with idempotent producers: each acknowledged record once, in order, at its offset (pitfall 32)",
      needs=("confluent", "kafka-python"), own_broker=True, seconds=1500)
def kill_loop(t: Context) -> None:
    kills = 50 if t.long else 5
    command = [sys.executable, os.path.join(HERE, "kill_loop"), "--kills", str(kills), "--directory", os.path.join(t.directory, "loop"), "--no-setup"]
    command += ["--broker-bin", t.suite.binary] if t.suite.binary else ["--reference"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1400, check=False)
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stdout.strip().splitlines()[-1:]
    assert json.loads(done.stdout.strip().splitlines()[-1])["kills"] == kills
