"""What goes by itself: retention by time and size, compaction. Seen by clients, and after kill -9."""
import os
import time
from typing import Dict, List, Optional, Tuple

import wire
from adapters import Confluent
from harness import Broker, Context, eventually, test

QUICK = {"log.retention.check.interval.ms": "1000", "log.cleaner.backoff.ms": "500"}


def quick_broker(t: Context) -> Broker:
    # Kafka waits half a minute before it looks for the first time.
    settings = {**QUICK, **({} if t.suite.binary else {"log.initial.task.delay.ms": "500"})}
    return t.use(t.start_broker(**settings))


def write(t: Context, topic: str, batches: int, timestamp: int, size: int = 50_000) -> None:
    with t.connect() as one:
        for number in range(batches):
            found = one.produce(topic, wire.batch([(b"%d" % number, os.urandom(size))], timestamp=timestamp + number))
            assert found["error"] == 0, found


def ends(t: Context, topic: str) -> Tuple[int, int]:
    with t.connect() as one:
        return one.list_offset(topic, -2)[2], one.list_offset(topic, -1)[2]


@test("retention: by size and by time, whole segments from the front, never the end (KAFKA.md 3.3)", own_broker=True, seconds=150)
def retention(t: Context) -> None:
    broker = quick_broker(t)
    now = int(time.time() * 1000)
    by_size = t.topic(segment_bytes=1048576, retention_bytes=2_000_000, retention_ms=-1, file_delete_delay_ms=1000)
    by_time = t.topic(segment_bytes=1048576, retention_ms=60_000, file_delete_delay_ms=1000)
    kept = t.topic(segment_bytes=1048576)
    write(t, by_size, 100, now)
    write(t, by_time, 60, now - 300_000)
    write(t, by_time, 40, now)
    write(t, kept, 100, now)
    # 100 records of 50 KB are five segments; what stays is more than the limit by less than a segment.
    eventually("retention.bytes", lambda: 50 <= ends(t, by_size)[0] <= 61 and ends(t, by_size)[1] == 100, 60, 0.3)
    eventually("retention.ms", lambda: 40 <= ends(t, by_time)[0] <= 60 and ends(t, by_time)[1] == 100, 60, 0.3)
    assert ends(t, kept) == (0, 100)
    first = ends(t, by_size)[0]
    directory = os.path.join(broker.log_directory, f"{by_size}-0")
    eventually("the files are gone too", lambda: sum(os.path.getsize(os.path.join(directory, n)) for n in os.listdir(directory) if ".log" in n) < 3_200_000, 30, 0.3)
    with t.connect() as one:
        assert one.fetch(by_size, first - 1)["partitions"][0]["error"] == wire.ERROR["OFFSET_OUT_OF_RANGE"]
        assert wire.batches(one.fetch(by_size, first)["partitions"][0]["records"])[0].base_offset == first
        assert one.produce(by_size, wire.batch([(b"k", b"v")]))["offset"] == 100
    broker.kill()
    broker.start()
    with t.connect() as one:
        for name in (by_size, by_time):
            one.wait_leaders(name, 1)
    assert ends(t, by_size)[0] >= first and ends(t, by_size)[1] == 101
    assert 40 <= ends(t, by_time)[0] <= 60 and ends(t, by_time)[1] == 100


@test("retention: everything may expire; the offsets go on", own_broker=True, seconds=120)
def all_expired(t: Context) -> None:
    quick_broker(t)
    topic = t.topic(retention_ms=2000)
    write(t, topic, 5, int(time.time() * 1000) - 60_000, 100)
    eventually("an empty log that begins where it ended", lambda: ends(t, topic) == (5, 5), 60, 0.3)
    with t.connect() as one:
        assert one.fetch(topic, 5, max_wait=0)["partitions"][0]["error"] == 0
        assert one.fetch(topic, 0)["partitions"][0]["error"] == wire.ERROR["OFFSET_OUT_OF_RANGE"]
        assert one.produce(topic, wire.batch([(b"k", b"v")]))["offset"] == 5


@test("compaction: the last record of each key stays, where it was; deletions take their key; kill -9 changes nothing",
      needs=("confluent",), own_broker=True, seconds=200)
def compaction(t: Context) -> None:
    broker = quick_broker(t)
    topic = t.topic(cleanup_policy="compact", segment_bytes=1048576, min_cleanable_dirty_ratio="0.01")
    wrote: List[Tuple[bytes, Optional[bytes]]] = []
    with t.connect() as one:
        for round_number in range(12):
            for codec in (0, 1, 3, 4):
                entries: List[Tuple[bytes, Optional[bytes]]] = []
                for key in range(50):
                    gone = key % 10 == 3 and round_number >= 6
                    entries.append((b"key-%d-%d" % (codec, key), None if gone else b"%d:" % round_number + os.urandom(1500)))
                assert one.produce(topic, wire.batch(entries, codec=codec))["offset"] == len(wrote)
                wrote += entries
        # The active segment is never cleaned: fill it with something else.
        for number in range(40):
            entries = [(b"other-%d" % number, os.urandom(50_000))]
            assert one.produce(topic, wire.batch(entries))["offset"] == len(wrote)
            wrote += entries
    last: Dict[bytes, int] = {key: offset for offset, (key, _) in enumerate(wrote)}
    expected_least = sum(1 for key in last)

    def read() -> list:
        return Confluent().consume(t, topic, 10**9, t.name("g"), seconds=2.5)

    def check(records: list) -> None:
        offsets = [r.offset for r in records]
        assert offsets == sorted(set(offsets)), "offsets out of order or twice"
        for r in records:
            assert (r.key, r.value) == wrote[r.offset], f"offset {r.offset} holds another record now"
        found = {r.key: r.offset for r in records}
        for key, offset in last.items():
            if wrote[offset][1] is not None:
                assert found.get(key) == offset, f"{key!r}: the last record is at {offset}, a reader ends with {found.get(key)}"
            else:
                assert found.get(key) in (offset, None), f"{key!r} was deleted at {offset}, a reader ends with {found.get(key)}"

    def compacted() -> bool:
        records = read()
        check(records)
        print(f"{len(records)} of {len(wrote)} records left, {expected_least} keys", flush=True)
        return len(records) < len(wrote) * 0.6

    eventually("less is left", compacted, 120, 0.5)
    broker.kill()
    broker.start()
    with t.connect() as one:
        one.wait_leaders(topic, 1)
        records = read()
        check(records)
        assert len(records) < len(wrote) * 0.6
        assert one.produce(topic, wire.batch([(b"k", b"v")]))["offset"] == len(wrote)
