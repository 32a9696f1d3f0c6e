"""Traps on the way out: fetch, its sessions, offsets and epochs."""
import os
import threading
import time

import wire
from harness import Context, test
from wire import ERROR, Reader, Writer, batch, batches


def many(count: int, size: int = 10) -> list:
    return [(b"%d" % n, b"x" * size) for n in range(count)]


@test("fetch: the whole batch that holds the offset is returned, from its first record on (pitfall 11)")
def mid_batch(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        for _ in range(3):
            assert one.produce(topic, batch(many(10)))["error"] == 0
        for offset, first in ((0, 0), (5, 0), (9, 0), (10, 10), (15, 10), (29, 20)):
            found = batches(one.fetch(topic, offset)["partitions"][0]["records"])
            assert found and found[0].base_offset == first, (offset, [b.base_offset for b in found])
            assert found[-1].next_offset == 30
        end = one.fetch(topic, 30, max_wait=0)["partitions"][0]
        assert (end["error"], end["records"], end["high_watermark"]) == (0, b"", 30)


@test("fetch: one whole batch comes even when it is larger than every limit (KIP-74, pitfall 11)")
def larger_than_limits(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        for _ in range(3):
            assert one.produce(topic, batch([(None, os.urandom(200_000))]))["error"] == 0
        for limits in ({"max_bytes": 1}, {"partition_max_bytes": 1}, {"max_bytes": 0}, {"max_bytes": 1, "partition_max_bytes": 1}):
            data = one.fetch(topic, 1, **limits)["partitions"][0]["records"]
            assert [b.base_offset for b in batches(data)] == [1], limits
            assert len(data) < 210_000
        data = one.fetch(topic, 0, partition_max_bytes=450_000)["partitions"][0]["records"]
        assert [b.base_offset for b in batches(data)][:2] == [0, 1] and len(data) <= 450_000


@test("fetch: no records is length 0, never null, in every version and with every error (pitfall 30)")
def empty_records(t: Context) -> None:
    topic, nowhere = t.topic(), t.name("nowhere")
    with t.connect() as one:
        low, high = one.api_versions(0)["ranges"][wire.FETCH]
        assert low == 4
        topic_id = one.metadata([topic], version=12)["topics"][0]["id"]
        for version in range(low, high + 1):
            found = fetch_versioned(one, topic, 0, version, topic_id)
            assert (found["error"], found["records"]) == (0, b""), (version, found)
            found = fetch_versioned(one, topic, 99, version, topic_id)
            assert (found["error"], found["records"]) == (ERROR["OFFSET_OUT_OF_RANGE"], b""), (version, found)
            unknown = fetch_versioned(one, nowhere, 0, version, b"\x07" * 16)
            expected = "UNKNOWN_TOPIC_OR_PARTITION" if version < 13 else "UNKNOWN_TOPIC_ID"
            assert (unknown["error"], unknown["records"]) == (ERROR[expected], b""), (version, unknown)
            assert unknown["high_watermark"] == -1


def fetch_versioned(one: wire.Connection, topic: str, offset: int, version: int, topic_id: bytes) -> dict:
    """From version 15 on the request no longer starts with replica_id."""
    if version < 15:
        return one.fetch(topic, offset, version=version, topic_id=topic_id, max_wait=0)["partitions"][0]
    w = Writer(True).i32(0).i32(0).i32(50 << 20).i8(0).i32(0).i32(-1)
    w.array([0], lambda _: w.raw(topic_id).array([0], lambda p: w.i32(p).i32(-1).i64(offset).i32(-1).i64(-1).i32(50 << 20).tags()).tags())
    w.array([], lambda _: None).string("").tags()
    return wire.parse_fetch(one.request(wire.FETCH, version, bytes(w.out)), version)["partitions"][0]


@test("fetch: zstd to a client that cannot know it is sent as it is, or refused with UNSUPPORTED_COMPRESSION_TYPE (pitfall 11)")
def zstd_to_old(t: Context) -> None:
    """Kafka refused while it could convert; since 4.0 it sends what it has, whatever the topic's compression.type."""
    for topic in (t.topic(), t.topic(compression_type="zstd")):
        with t.connect() as one:
            assert one.produce(topic, batch(many(3), codec=4))["error"] == 0
            old = one.fetch(topic, 0, version=9)["partitions"][0]
            assert old["error"] in (0, ERROR["UNSUPPORTED_COMPRESSION_TYPE"]), old
            assert [b.codec for b in batches(old["records"])] == ([4] if old["error"] == 0 else [])
            assert batches(one.fetch(topic, 0, version=10)["partitions"][0]["records"])[0].codec == 4


@test("fetch: waits for min.bytes, no longer than max.wait, and wakes when they come")
def long_poll(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one, t.connect() as other:
        began = time.monotonic()
        assert one.fetch(topic, 0, max_wait=400)["partitions"][0]["records"] == b""
        waited = time.monotonic() - began
        assert 0.35 < waited < 3, waited
        timer = threading.Timer(0.3, lambda: other.produce(topic, batch(many(1))))
        timer.start()
        began = time.monotonic()
        assert batches(one.fetch(topic, 0, max_wait=10_000)["partitions"][0]["records"])
        assert time.monotonic() - began < 5
        timer.join()
        began = time.monotonic()
        found = one.fetch(topic, 0, max_wait=300, min_bytes=10_000)["partitions"][0]
        assert batches(found["records"]) and time.monotonic() - began > 0.25, "answered before min.bytes were there"
        began = time.monotonic()
        one.fetch(topic, 99, max_wait=10_000)
        assert time.monotonic() - began < 3, "an error is answered at once"


@test("fetch: sessions: made, incremental, wrong epoch, unknown id, forgotten (pitfall 10)")
def sessions(t: Context) -> None:
    a, b = t.topic(hint="a"), t.topic(hint="b")
    with t.connect() as one:
        made = one.fetch("", 0, topics=[a, b], epoch=0, max_wait=0)
        assert made["error"] == 0 and made["session"] > 0 and len(made["partitions"]) == 2, made
        session = made["session"]
        quiet = one.fetch("", 0, topics=[], session=session, epoch=1, max_wait=0)
        assert (quiet["error"], quiet["session"], quiet["partitions"]) == (0, session, []), "unchanged partitions are left out"
        assert one.produce(b, batch(many(2)))["error"] == 0
        news = one.fetch("", 0, topics=[], session=session, epoch=2, max_wait=500)
        assert [p["topic"] for p in news["partitions"]] == [b], news
        assert one.fetch("", 0, topics=[], session=session, epoch=9)["error"] == ERROR["INVALID_FETCH_SESSION_EPOCH"]
        assert one.fetch("", 0, topics=[], session=session + 7777, epoch=1)["error"] == ERROR["FETCH_SESSION_ID_NOT_FOUND"]
        gone = one.fetch("", 0, topics=[], session=session, epoch=3, max_wait=0, forgotten=[a, b])
        assert gone["error"] == 0 and gone["partitions"] == []
        assert one.fetch("", 0, topics=[], session=session, epoch=4)["error"] == ERROR["FETCH_SESSION_ID_NOT_FOUND"]
        lone = one.fetch(a, 0, session=0, epoch=-1, max_wait=0)
        assert (lone["error"], lone["session"]) == (0, 0), "epoch -1 makes no session"
        nowhere = t.name("nowhere")
        wrong = one.fetch("", 0, topics=[a, nowhere], epoch=0, max_wait=0)
        again = one.fetch("", 0, topics=[], session=wrong["session"], epoch=1, max_wait=0)
        assert [(p["topic"], p["error"]) for p in again["partitions"]] == [(nowhere, 3)], "a partition in error is repeated"


@test("fetch: current leader epochs are fenced, in ListOffsets and OffsetForLeaderEpoch too (pitfall 19)")
def leader_epochs(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        epoch = one.metadata([topic], version=7)["topics"][0]["partitions"][0]["epoch"]
        assert epoch >= 0
        assert one.produce(topic, batch(many(4)))["error"] == 0
        for given, expected in ((epoch, 0), (-1, 0), (epoch + 1, ERROR["UNKNOWN_LEADER_EPOCH"])):
            assert one.fetch(topic, 0, leader_epoch=given)["partitions"][0]["error"] == expected, given
            assert one.list_offset(topic, -1, version=4, leader_epoch=given)[0] == expected, given
            assert epoch_end(one, topic, given, epoch)[0] == expected, given
        if epoch > 0:
            assert one.fetch(topic, 0, leader_epoch=epoch - 1)["partitions"][0]["error"] == ERROR["FENCED_LEADER_EPOCH"]
        assert epoch_end(one, topic, -1, epoch) == (0, epoch, 4)
        assert epoch_end(one, topic, -1, epoch + 5) == (0, -1, -1)


def epoch_end(one: wire.Connection, topic: str, current: int, asked: int) -> tuple:
    w = Writer().i32(-1)
    w.array([topic], lambda n: w.string(n).array([0], lambda p: w.i32(p).i32(current).i32(asked)))
    r = one.request(wire.OFFSET_FOR_LEADER_EPOCH, 3, bytes(w.out))
    r.i32()
    found: list = []
    r.array(lambda: (r.string(), r.array(lambda: found.append((r.i16(), r.i32(), r.i32(), r.i64())))))
    error, _, epoch, end = found[0]
    return error, epoch, end


@test("offsets: ListOffsets by time, at the ends, and timestamps newer than the version")
def list_offsets(t: Context) -> None:
    topic = t.topic()
    now = int(time.time() * 1000) - 10_000
    with t.connect() as one:
        assert one.list_offset(topic, -1) == (0, -1, 0) and one.list_offset(topic, -2) == (0, -1, 0)
        assert one.list_offset(topic, now) == (0, -1, -1), "an empty log has nothing at or after a time"
        high = one.api_versions(0)["ranges"][wire.LIST_OFFSETS][1]
        assert one.list_offset(topic, -3, version=7) == (0, -1, -1)
        for start in range(0, 40, 10):
            stamps = [(start + n) * 10 for n in range(10)]
            assert one.produce(topic, batch(many(10), timestamp=now, timestamps=stamps, codec=(start // 10) % 5))["error"] == 0
        for version in range(1, high + 1):
            assert one.list_offset(topic, -1, version=version) == (0, -1, 40), version
            assert one.list_offset(topic, -2, version=version) == (0, -1, 0), version
            assert one.list_offset(topic, now + 250, version=version) == (0, now + 250, 25), (version, one.list_offset(topic, now + 250, version=version))
            assert one.list_offset(topic, now + 251, version=version)[2] == 26, "to the record, not to the batch"
            assert one.list_offset(topic, now - 5, version=version)[2] == 0
            assert one.list_offset(topic, now + 391, version=version) == (0, -1, -1), version
        for timestamp, since in ((-3, 7), (-4, 8), (-5, 9), (-6, 11)):
            if since <= high:
                error, stamp, offset = one.list_offset(topic, timestamp, version=since)
                expected = {-3: (0, now + 390, 39), -4: (0, -1, 0), -5: (0, -1, -1), -6: (0, -1, -1)}[timestamp]
                assert (error, stamp, offset) == expected, (timestamp, error, stamp, offset)
            assert one.list_offset(topic, timestamp, version=min(since - 1, high))[0] == ERROR["UNSUPPORTED_VERSION"], timestamp
        assert one.list_offset(topic, -7)[0] == ERROR["UNSUPPORTED_VERSION"]
        assert one.list_offset(t.name("nowhere"), -1)[0] == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]


@test("offsets: DeleteRecords moves the start, and says so everywhere")
def delete_records(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        for _ in range(3):
            assert one.produce(topic, batch(many(10)))["error"] == 0
        assert ask_delete(one, topic, 31) == (ERROR["OFFSET_OUT_OF_RANGE"], -1)
        assert ask_delete(one, topic, -2) == (ERROR["OFFSET_OUT_OF_RANGE"], -1)
        assert ask_delete(one, topic, 15) == (0, 15)
        assert one.list_offset(topic, -2)[2] == 15
        assert one.fetch(topic, 14)["partitions"][0]["error"] == ERROR["OFFSET_OUT_OF_RANGE"]
        found = one.fetch(topic, 15)["partitions"][0]
        assert found["log_start"] == 15 and batches(found["records"])[0].base_offset == 10, "the batch may straddle the start"
        assert one.produce(topic, batch(many(1)))["log_start"] == 15
        assert ask_delete(one, topic, 3) == (0, 15), "below the start: nothing to do"
        assert ask_delete(one, topic, -1) == (0, 31), "-1 is the high watermark"
        assert one.list_offset(topic, -2)[2] == 31 == one.list_offset(topic, -1)[2]
        compacted = t.topic(cleanup_policy="compact")
        assert one.produce(compacted, batch(many(5)))["error"] == 0
        assert ask_delete(one, compacted, 2)[0] == ERROR["POLICY_VIOLATION"]
        assert ask_delete(one, t.name("nowhere"), 2)[0] == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]


def ask_delete(one: wire.Connection, topic: str, offset: int) -> tuple:
    w = Writer()
    w.array([topic], lambda n: w.string(n).array([0], lambda p: w.i32(p).i64(offset))).i32(10_000)
    r: Reader = one.request(wire.DELETE_RECORDS, 1, bytes(w.out))
    r.i32()
    found: list = []
    r.array(lambda: (r.string(), r.array(lambda: found.append((r.i32(), r.i64(), r.i16())))))
    _, low, error = found[0]
    return error, low


@test("fetch: a topic made again under its name has another id, and the old id is unknown (pitfalls 8, 9)")
def made_again(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        first = one.metadata([topic], version=12)["topics"][0]["id"]
        assert one.produce(topic, batch(many(5)))["error"] == 0
        assert one.delete_topic(topic) == 0
        deadline = time.monotonic() + 15
        while one.create_topic(topic, 1) != 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        one.wait_leaders(topic, 1)
        second = one.metadata([topic], version=12)["topics"][0]["id"]
        assert second not in (first, bytes(16))
        assert one.list_offset(topic, -1)[2] == 0
        assert one.fetch(topic, 0, version=13, topic_id=second, max_wait=0)["partitions"][0]["error"] == 0
        assert one.fetch(topic, 0, version=13, topic_id=first, max_wait=0)["partitions"][0]["error"] == ERROR["UNKNOWN_TOPIC_ID"]
        assert one.produce(topic, batch(many(1)))["offset"] == 0
