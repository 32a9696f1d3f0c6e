"""Connections that are silent, slow, half open, too many, or wait for long: each is bounded, and only the guilty end."""
import re
import struct
import time
import urllib.request

import wire
from harness import Context, eventually, test
from suites.traps_groups import Member, ready
from wire import API_VERSIONS, ERROR, Closed


def answered(one: wire.Connection) -> bool:
    return one.api_versions(0)["error"] == 0


@test("bounds: more connections than max.connections.per.ip are turned away, and let in when there is room", own_broker=True, ours_only=True)
def too_many(t: Context) -> None:
    broker = t.use(t.start_broker(**{"max.connections.per.ip": "20"}))
    # The suite's own look at whether the node is ready was a connection, too.
    eventually("room for all", lambda: all(answered(t.connect()) for _ in range(1)))
    peers, refused = [], 0
    for _ in range(60):
        one = t.connect(timeout=5)
        try:
            answered(one)
            peers.append(one)
        except (Closed, OSError):
            refused += 1
    assert len(peers) in (19, 20) and refused >= 40, (len(peers), refused)
    assert all(answered(one) for one in peers), "who is in stays in"
    for one in peers[:5]:
        one.socket.close()

    def let_in() -> bool:
        with t.connect(timeout=5) as one:
            return answered(one)

    eventually("room again", let_in)
    told = re.findall(r"refused a Kafka connection: max.connections", broker.log_tail())
    assert len(told) == 1, f"{len(told)} lines about 40 refused connections"


@test("bounds: a silent connection ends after connections.max.idle.ms, one that talks does not", own_broker=True, ours_only=True)
def idle(t: Context) -> None:
    t.use(t.start_broker(**{"connections.max.idle.ms": "1500"}))
    with t.connect() as silent, t.connect() as talking:
        begun = time.monotonic()
        while time.monotonic() < begun + 3:
            assert answered(talking)
            time.sleep(0.2)
        silent.expect_closed(1)


@test("bounds: half a frame is given up after its time, with one line that names the peer and the reason", own_broker=True, ours_only=True, seconds=100)
def half_a_frame(t: Context) -> None:
    broker = t.use(t.start_broker())
    peers = [t.connect() for _ in range(10)]
    for one in peers:
        one.socket.sendall(struct.pack(">i", 100) + bytes(10))
    with t.connect() as other:
        begun = time.monotonic()
        while time.monotonic() < begun + 25:
            assert answered(other)
            time.sleep(0.5)
        for one in peers:
            one.expect_closed(20)
        assert answered(other)
    lines = [line for line in broker.log_tail().splitlines() if "closed the connection from 127.0.0.1:" in line]
    assert len(lines) == 1 and "14 of a frame's 100 bytes" in lines[0], lines


@test("bounds: requests that wait behind a long one are not taken for slow ones", own_broker=True, ours_only=True, seconds=120)
def behind_a_long_wait(t: Context) -> None:
    t.use(t.start_broker(**{"group.initial.rebalance.delay.ms": "36000"}))
    topic, group = t.topic(), t.name("patient")
    with t.connect(timeout=60) as one:
        ready(t, one, group)
        member = Member(one, group, topic)
        begun = time.monotonic()
        joining = member.send_join(3, session_ms=60_000, rebalance_ms=60_000)
        # One is parsed and waits, the others stay bytes in a buffer, the last one cut in two.
        numbers = [one.send(API_VERSIONS, 0) for _ in range(3)]
        last = one.frame(API_VERSIONS, 0, b"", 4711)
        one.socket.sendall(last[:6])
        assert member.joined(3, joining)["error"] == 0
        assert time.monotonic() - begun > 33, "the delay that the broker was started with"
        for number in numbers:
            assert wire.parse_api_versions(one.answer(API_VERSIONS, 0, number), 0)["error"] == 0
        one.socket.sendall(last[6:])
        assert wire.parse_api_versions(one.answer(API_VERSIONS, 0, 4711), 0)["error"] == 0


@test("bounds: a member's JoinGroup holds no memory while it waits for the others", own_broker=True, ours_only=True, seconds=90)
def parked_joins(t: Context) -> None:
    broker = t.use(t.start_broker(**{"memory": "16MiB", "group.initial.rebalance.delay.ms": "8000"}))
    topic = t.topic()
    with t.connect() as first:
        ready(t, first, t.name("g"))
    # 20 members that say 800 KB each, in groups of their own: the whole budget, and four times what groups may keep.
    protocols = [f"{n:03}" + "x" * 30_000 for n in range(26)]
    members = []
    for _ in range(20):
        one = t.connect(timeout=60)
        member = Member(one, t.name("parked"), topic)
        members.append((one, member, member.send_join(2, protocols=protocols)))
    begun = time.monotonic()
    with t.connect() as other:
        assert answered(other), "somebody else is served meanwhile"
        assert other.produce(topic, wire.batch([(None, bytes(500_000))]))["error"] == 0
    assert time.monotonic() - begun < 6, "before the first rebalance was over"

    def given_back() -> bool:
        with urllib.request.urlopen(f"http://{broker.host}:{broker.admin_port}/metrics", timeout=5) as metrics:
            (used,) = re.findall(r"^skerry_memory_budget_used_bytes (\d+)", metrics.read().decode(), re.MULTILINE)
        return int(used) < 1 << 20

    eventually("the memory of frames is given back while everybody waits", given_back, 5)
    errors = []
    for one, member, number in members:
        errors.append(member.joined(2, number)["error"])
        one.socket.close()
    accepted = errors.count(0)
    assert 3 <= accepted <= 8 and set(errors) == {0, ERROR["COORDINATOR_NOT_AVAILABLE"]}, errors
    assert broker.process and broker.process.poll() is None
