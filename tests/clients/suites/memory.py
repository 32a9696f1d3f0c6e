"""The memory budget under load (DESIGN.md section 7): at its limit a node reads its sockets more slowly; nothing dies."""
import os
import threading
import time
from typing import Callable, List

import wire
from harness import Context, eventually, test
from wire import Writer, batch

BUDGET_MIB = 64
# Beside the budget: the program, the metadata's store, 2,000 connections, the partitions, the allocator's leftovers.
BESIDE_MIB = 96
CONNECTIONS = 2000
SECONDS = 12


def status_kib(pid: int, key: str) -> int:
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(f"{key}:"))


def fetch_frame(topic: str, partition: int) -> bytes:
    w = Writer().i32(-1).i32(500).i32(50 << 20).i32(50 << 20).i8(0).i32(0).i32(-1)
    w.array([topic], lambda n: w.string(n).array([0], lambda _: w.i32(partition).i32(-1).i64(0).i64(-1).i32(50 << 20))).i32(0).string("")
    return bytes(w.out)


class Load:
    """Threads that go on until they are told to stop; what they did, and what went wrong."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.threads: List[threading.Thread] = []
        self.errors: List[str] = []
        self.produced = self.fetched = 0
        self.lock = threading.Lock()

    def start(self, work: Callable[[], None], count: int) -> None:
        for _ in range(count):
            self.threads.append(threading.Thread(target=self._run, args=(work,), daemon=True))
            self.threads[-1].start()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            while not self.stopping.is_set():
                work()
        except Exception as e:  # noqa: BLE001  (told by the test)
            if not self.stopping.is_set():
                self.errors.append(repr(e))

    def stop(self) -> None:
        self.stopping.set()
        for one in self.threads:
            one.join(60)
        assert not any(one.is_alive() for one in self.threads), "a request without an answer"


@test(f"memory: a budget of {BUDGET_MIB} MiB under {CONNECTIONS} connections, large batches, large fetches and peers that never read",
      own_broker=True, ours_only=True, seconds=180)
def bounded(t: Context) -> None:
    broker = t.use(t.start_broker(memory=f"{BUDGET_MIB}MiB"))
    partitions = 8
    topic = t.topic(partitions, retention_bytes=64 << 20, segment_bytes=8 << 20)
    idle_kib = status_kib(broker.pid, "VmRSS")
    peers = [t.connect(timeout=60) for _ in range(CONNECTIONS)]
    for one in peers:
        one.send(wire.API_VERSIONS, 0)
    for one in peers:
        one.answer(wire.API_VERSIONS, 0, 1)
    connected_kib = status_kib(broker.pid, "VmRSS")
    large = [batch([(None, os.urandom(950_000))]) for _ in range(4)]
    load, next_partition = Load(), iter(range(10**9))

    def produce() -> None:
        with t.connect(timeout=60) as one:
            number = next(next_partition)
            # Five in flight, as clients have them.
            sent = [one.send_produce(topic, large[n % 4], partition=number % partitions) for n in range(5)]
            for each in sent:
                found = wire.parse_produce(one.answer(wire.PRODUCE, 7, each), 7)
                assert found["error"] == 0, found
            with load.lock:
                load.produced += 5 * 950_000

    def consume() -> None:
        with t.connect(timeout=60) as one:
            one.send(wire.FETCH, 11, fetch_frame(topic, next(next_partition) % partitions))
            size = len(one.receive())
            with load.lock:
                load.fetched += size

    load.start(produce, 24)
    eventually("something to read", lambda: load.produced > 8 << 20, 60)
    load.start(consume, 24)
    deaf = [t.connect(timeout=5) for _ in range(24)]
    for number, one in enumerate(deaf):
        for _ in range(4):
            one.send(wire.FETCH, 11, fetch_frame(topic, number % partitions))
    begun = time.monotonic()
    slowest = 0.0
    while time.monotonic() < begun + SECONDS:
        asked = time.monotonic()
        peers[int(asked * 1000) % CONNECTIONS].api_versions(0)
        slowest = max(slowest, time.monotonic() - asked)
        time.sleep(0.05)
    for one in deaf:
        one.socket.close()
    load.stop()
    peak_kib = status_kib(broker.pid, "VmHWM")
    print(f"resident: idle {idle_kib >> 10} MiB, {CONNECTIONS} connections {connected_kib >> 10} MiB, peak {peak_kib >> 10} MiB; "
          f"{load.produced >> 20} MiB produced, {load.fetched >> 20} MiB fetched; slowest small request {slowest * 1000:.0f} ms; errors {load.errors[:3]}")
    assert not load.errors, load.errors[:3]
    assert load.produced > 64 << 20 and load.fetched > 64 << 20, (load.produced, load.fetched)
    assert peak_kib < (BUDGET_MIB + BESIDE_MIB) << 10, f"{peak_kib >> 10} MiB resident at the peak"
    assert broker.process and broker.process.poll() is None
    for one in peers[::100]:
        assert one.api_versions(0)["error"] == 0, "connections that waited go on"
    with t.connect() as one:
        assert one.produce(topic, batch([(None, b"still here")]))["error"] == 0
