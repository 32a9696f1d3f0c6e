"""A disk that is really full: a small file system that the suite mounts, and fills by producing (DESIGN.md section 5)."""
import contextlib
import os
import subprocess
import time
from typing import Iterator, Tuple

import wire
from harness import Broker, Context, eventually, test
from wire import ERROR, batch

VALUE = os.urandom(60_000)
# A twentieth of the disk of 96 MiB, but for what is written beside records: indexes, checkpoints.
RESERVED = 4_900_000


@contextlib.contextmanager
def small_disk(t: Context, mib: int) -> Iterator[str]:
    """A file system of its own. Needs root and the right to mount."""
    at = os.path.join(t.directory, "disk")
    os.makedirs(at)
    if os.geteuid() != 0:
        t.skip("only root can mount a small disk")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "skerry-small-disk", at], capture_output=True, text=True, check=False)
    if done.returncode:
        t.skip(f"cannot mount a small disk: {done.stderr.strip()}")
    try:
        yield at
    finally:
        t.close()
        subprocess.run(["umount", "--lazy", at], check=False)


def free(at: str) -> int:
    found = os.statvfs(at)
    return found.f_bavail * found.f_frsize


def take_all(at: str) -> None:
    """Somebody else writes the disk full, to the last byte."""
    with contextlib.suppress(OSError), open(os.path.join(at, "somebody-else"), "wb", buffering=0) as hog:
        while True:
            hog.write(bytes(4096))


def value(number: int) -> bytes:
    return b"%08d" % number + VALUE


def fill(one: wire.Connection, topic: str, number: int, seconds: float = 60) -> Tuple[int, int, str]:
    """Produces numbers until the broker refuses one: the next number, the error and its words."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = one.produce(topic, batch([(b"k", value(number))]), version=8)
        if found["error"]:
            return number, found["error"], found.get("message") or ""
        assert found["offset"] == number, f"{found} for number {number}"
        number += 1
    raise AssertionError(f"{number} records of 60 KB and no end")


def numbers(t: Context, topic: str) -> list:
    """What stands in the topic, from its start to its end; each batch is what was sent."""
    out: list = []
    with t.connect() as one:
        _, _, at = one.list_offset(topic, -2)
        _, _, end = one.list_offset(topic, -1)
        while at < end:
            (found,) = one.fetch(topic, at, max_wait=0, max_bytes=4 << 20)["partitions"]
            assert found["error"] == 0 and found["records"], found["error"]
            for stored in wire.batches(found["records"]):
                assert stored.crc_is_right and value(stored.base_offset) in stored.raw, f"offset {stored.base_offset} holds something else"
                out.append(stored.base_offset)
            at = out[-1] + 1
    return out


@test("disk: full: producers are told and wait, consumers and deletions go on, writing resumes by itself, nothing acknowledged is lost",
      own_broker=True, ours_only=True, seconds=150)
def full(t: Context) -> None:
    from suites.traps_fetch import ask_delete
    with small_disk(t, 96) as at:
        broker = Broker(os.path.join(t.directory, "node"), t.suite.binary)
        broker.data = os.path.join(at, "data")
        t._brokers.append(t.use(broker).start())
        kept, other = (t.topic(segment_bytes=1048576 * 4, file_delete_delay_ms=500) for _ in range(2))
        with t.connect(timeout=30) as one:
            last, error, words = fill(one, kept, 0)
            print(f"refused after {last} records with {free(at)} bytes free: {error} {words}")
            assert error == ERROR["NOT_ENOUGH_REPLICAS"] and "full" in words, (error, words)
            # However quick producers are: without the metadata nobody could delete anything.
            assert free(at) > RESERVED, f"{free(at)} bytes are left for the metadata"
            # The rest of the disk, down to the last byte, goes to somebody else.
            take_all(at)
            print(f"{free(at)} bytes are free")
            assert one.produce(other, batch([(b"k", b"v")]), version=8)["error"] == ERROR["NOT_ENOUGH_REPLICAS"]
            assert numbers(t, kept) == list(range(last)), "consumers read on"
            assert one.metadata([kept])["topics"][0]["error"] == 0
            # A topic that was made now would have no log.
            assert one.create_topic(t.name("new")) == ERROR["KAFKA_STORAGE_ERROR"]
            broker.kill()
            # Without a byte of room it cannot start, and says why.
            done = subprocess.run(broker.command(), capture_output=True, text=True, timeout=60, check=False)
            print(done.returncode, done.stderr)
            assert done.returncode == 1 and "the disk is full: make room" in done.stderr, done.stderr
            # Nearly full, it serves what it has.
            os.remove(os.path.join(at, "somebody-else"))
            broker.start()
        with t.connect(timeout=30) as one:
            eventually("a leader", lambda: one.wait_leaders(kept, 1) or True)
            assert numbers(t, kept) == list(range(last)), "nothing acknowledged is lost"
            middle = last // 2
            assert ask_delete(one, kept, middle) == (0, middle), "DeleteRecords goes on"

            def resumed() -> bool:
                found = one.produce(other, batch([(b"k", b"v")]), version=8)
                assert found["error"] in (0, ERROR["NOT_ENOUGH_REPLICAS"]), found
                return found["error"] == 0

            eventually("writing resumes by itself", resumed, 90, 0.2)
            assert numbers(t, kept) == list(range(middle, last))
            last, error, words = fill(one, kept, last)
            print(f"full again after {last} records")
            assert error == ERROR["NOT_ENOUGH_REPLICAS"]
            assert free(at) > RESERVED, f"{free(at)} bytes are left for the metadata"
            assert one.delete_topic(kept) == 0, "DeleteTopics goes on"
            eventually("writing resumes by itself", resumed, 60, 0.2)
        assert broker.stop() in (0, 143)
        broker.start()
        with t.connect() as one:
            one.wait_leaders(other, 1)
            assert one.metadata([kept], version=4)["topics"][0]["error"] == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]
            assert one.produce(other, batch([(b"k", b"v")]))["error"] == 0


@test("disk: full before the first start: a message that says so, a status other than 0", own_broker=True, ours_only=True)
def full_at_first(t: Context) -> None:
    with small_disk(t, 4) as at:
        take_all(at)
        broker = Broker(os.path.join(t.directory, "node"), t.suite.binary)
        broker.data = os.path.join(at, "data")
        before = sorted(os.listdir(at))
        done = subprocess.run(broker.command(), capture_output=True, text=True, timeout=60, check=False)
        print(done.returncode, done.stderr)
        assert done.returncode == 1 and "full" in done.stderr and "--data-dir" in done.stderr, done.stderr
        assert sorted(os.listdir(at)) == before, os.listdir(at)
        os.remove(os.path.join(at, "somebody-else"))
        t._brokers.append(broker.start())
