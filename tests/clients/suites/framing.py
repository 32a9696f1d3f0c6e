"""What a socket may do to a broker, and how each ends (KAFKA.md section 9, framing)."""
import os
import random
import socket
import struct
import time

import wire
from harness import Context, test
from wire import API_VERSIONS, METADATA, Connection, Writer


def alive(t: Context) -> None:
    with t.connect() as one:
        assert one.api_versions(0)["error"] == 0


METADATA_ALL = bytes(Writer().i32(-1).out)


@test("framing: an unknown API key closes the connection without an answer (pitfall 4)")
def unknown_key(t: Context) -> None:
    # 4: removed with ZooKeeper; 52, 62: the controller's, not the broker's.
    for key in (9999, -1, 4, 52, 62):
        with t.connect() as one:
            assert one.api_versions(0)["error"] == 0
            one.send(key, 0)
            one.expect_closed()
    alive(t)


@test("framing: an unknown version of any API but ApiVersions closes the connection (pitfall 4)")
def unknown_version(t: Context) -> None:
    for key, version in ((METADATA, 99), (METADATA, -1), (wire.PRODUCE, 99), (wire.FETCH, 99), (wire.FETCH, 3), (wire.LIST_OFFSETS, 0),
                         (wire.CREATE_TOPICS, 1), (wire.OFFSET_COMMIT, 1), (wire.PRODUCE, 0), (wire.PRODUCE, 2), (wire.DESCRIBE_CONFIGS, 0)):
        with t.connect() as one:
            one.send(key, version, METADATA_ALL)
            one.expect_closed()
    alive(t)


@test("framing: ApiVersions in an unknown version is answered in version 0 with error 35, and the connection goes on (pitfall 3)")
def api_versions_downgrade(t: Context) -> None:
    for version in (5, 99, 32767, -1, -32768):
        with t.connect() as one:
            number = one.send(API_VERSIONS, version, b"\x01\x01\x00")
            frame = one.receive()
            most = t_max(t)
            expected = struct.pack(">ihi", number, 35, 1) + struct.pack(">hhh", 18, 0, most)
            assert frame == expected, f"version {version}: {frame.hex()} instead of {expected.hex()}"
            assert one.api_versions(most)["error"] == 0


def t_max(t: Context) -> int:
    with t.connect() as one:
        return one.api_versions(0)["ranges"][18][1]


@test("framing: ApiVersions answers have Kafka's shape to the byte, defaults of tagged fields left out (pitfalls 5, 6, 31)")
def api_versions_shape(t: Context) -> None:
    lists = {}
    for version in range(0, t_max(t) + 1):
        with t.connect() as one:
            w = Writer(version >= 3)
            if version >= 3:
                w.string("suite").string("1.0").tags()
            number = one.send(API_VERSIONS, version, bytes(w.out))
            frame = one.receive()
            assert struct.unpack(">i", frame[:4])[0] == number
            # The header is version 0 whatever the version of the body: no tags between correlation id and error code.
            body = wire.Reader(frame[4:], version >= 3)
            found = wire.parse_api_versions(body, version)
            lists[version] = found["ranges"]
            again = Writer(version >= 3).i16(0)
            again.array(list(found["ranges"].items()), lambda e: again.i16(e[0]).i16(e[1][0]).i16(e[1][1]).tags())
            if version >= 1:
                again.i32(found["throttle"])
            if version < 3:
                assert bytes(again.out) == frame[4:], "bytes between or after the fields"
                continue
            assert frame[4:].startswith(bytes(again.out)), "entries are not written as Kafka writes them"
            check_features(found["tags"], version)
    assert lists[0] == lists[1] == lists[2] == lists[3], "the list depends on the version"
    check_ranges(lists[0])


def check_features(tags: dict, version: int) -> None:
    assert set(tags) <= {0, 1, 2, 3}, tags
    for tag, data in tags.items():
        assert data not in (b"\x01", b"\x00"), f"tag {tag} holds its default (an empty list) and should be left out"
    if 1 in tags:
        assert struct.unpack(">q", tags[1])[0] != -1, "finalized_features_epoch of -1 is the default and should be left out"
    assert 3 not in tags or tags[3] != b"\x00", "zk_migration_ready of false is the default"
    if 0 in tags:
        r = wire.Reader(tags[0], True)
        for name, low, high in r.array(lambda: (r.string(), r.i16(), r.i16(), r.tags())[:3]) or []:
            assert version >= 4 or low > 0, f"{name} with a minimum of 0 crashes Java clients up to 3.8 before version 4 (KAFKA-17011)"
            assert low <= high
        r.end()
    if 2 in tags:
        r = wire.Reader(tags[2], True)
        for _name, high, low in r.array(lambda: (r.string(), r.i16(), r.i16(), r.tags())[:3]) or []:
            assert 0 < low <= high
        r.end()


def check_ranges(ranges: dict) -> None:
    """No client listed in KAFKA.md section 2 may be locked out; nothing internal may be shown."""
    assert ranges[0][0] == 0, "Produce must be listed from version 0, or librdkafka before 2.11.1 stops compressing (pitfall 1)"
    most_minimum = {1: 4, 2: 1, 3: 0, 8: 2, 9: 1, 10: 0, 11: 0, 12: 0, 13: 0, 14: 0, 15: 0, 16: 0, 18: 0, 19: 2, 20: 1, 22: 0, 32: 1}
    least_maximum = {0: 12, 1: 12, 2: 7, 3: 12, 8: 9, 9: 9, 10: 4, 11: 9, 12: 4, 13: 5, 14: 5, 15: 6, 16: 5, 18: 4, 19: 7, 20: 6, 21: 2, 22: 4,
                     23: 4, 32: 4, 33: 2, 35: 4, 37: 3, 42: 2, 44: 1, 47: 0, 60: 1, 61: 0, 75: 0}
    for key, low in most_minimum.items():
        assert key in ranges and ranges[key][0] <= low, f"key {key}: {ranges.get(key)}, the minimum must be {low} or less"
    for key, high in least_maximum.items():
        assert key in ranges and ranges[key][1] >= high, f"key {key}: {ranges.get(key)}, the maximum must be {high} or more"
    for key in (4, 5, 6, 7, 52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82):
        assert key not in ranges, f"key {key} is not the business of a client"
    assert ranges[22][1] <= 5, "InitProducerId 6 is unstable (KIP-939)"
    assert (71 in ranges) == (72 in ranges)


@test("framing: an illegal software name gets INVALID_REQUEST in an ApiVersions answer (pitfall 4)")
def software_name(t: Context) -> None:
    for name, version, expected in (("suite", "1.0", 0), ("a", "1.0-x.y", 0), ("", "1.0", 42), ("suite", "", 42), ("su ite", "1", 42),
                                    ("-suite", "1", 42), ("suite", "1.0.", 42)):
        with t.connect() as one:
            w = Writer(True).string(name).string(version).tags()
            r = one.request(API_VERSIONS, 3, bytes(w.out))
            assert r.i16() == expected, (name, version)
            assert one.api_versions(0)["error"] == 0, "the connection must go on"


@test("framing: lengths that cannot be, broken headers and bodies close the connection")
def broken_frames(t: Context) -> None:
    good = Writer().i16(METADATA).i16(1).i32(7).string("suite").raw(METADATA_ALL)
    cases = {
        "negative length": struct.pack(">i", -1),
        "most negative length": struct.pack(">i", -(2**31)),
        "more than socket.request.max.bytes": struct.pack(">i", 104857601),
        "an HTTP request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        "a TLS greeting": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
        "shorter than a header": struct.pack(">i", 3) + b"\x00\x03\x00",
        "client id longer than the frame": struct.pack(">i", 12) + struct.pack(">hhih", 3, 1, 7, 1000) + b"ab",
        "body cut off": struct.pack(">i", len(good.out) - 2) + bytes(good.out[:-2]),
        "an array of a billion": struct.pack(">i", len(good.out)) + bytes(good.out[:-4]) + struct.pack(">i", 10**9),
    }
    for what, data in cases.items():
        with t.connect() as one:
            one.socket.sendall(data)
            try:
                one.expect_closed()
            except AssertionError as e:
                raise AssertionError(f"{what}: {e}") from None
    alive(t)


@test("framing: an empty frame closes the connection")
def empty_frame(t: Context) -> None:
    with t.connect() as one:
        one.socket.sendall(struct.pack(">i", 0))
        one.expect_closed()
    alive(t)


@test("framing: a client id may be null, empty, long or not UTF-8 where Kafka lets it")
def client_ids(t: Context) -> None:
    for name in (None, "", "x" * 30000, "käse"):
        with t.connect(client_id=name) as one:
            assert one.metadata([])["brokers"]


@test("framing: strings that are not UTF-8 are answered like any other wrong name")
def not_utf8(t: Context) -> None:
    odd = b"odd-\xff\xfe\xe2\x82"
    with t.connect() as one:
        frame = Writer().i16(METADATA).i16(1).i32(7).i16(len(odd)).raw(odd).i32(1).i16(len(odd)).raw(odd)
        one.socket.sendall(struct.pack(">i", len(frame.out)) + bytes(frame.out))
        r = one.answer(METADATA, 1, 7)
        (found,) = wire.parse_metadata(r, 1)["topics"]
        assert found["error"] == wire.ERROR["INVALID_TOPIC_EXCEPTION"] and found["name"].startswith("odd-"), found
        assert one.request(wire.FIND_COORDINATOR, 0, bytes(Writer().i16(len(odd)).raw(odd).out)).i16() in (0, 15)
    alive(t)


@test("framing: a request that arrives one byte at a time is answered")
def slow_sender(t: Context) -> None:
    with t.connect() as one:
        for byte in one.frame(METADATA, 1, METADATA_ALL, 77):
            one.socket.sendall(bytes([byte]))
            time.sleep(0.005)
        assert one.answer(METADATA, 1, 77)


@test("framing: requests sent without waiting are answered in their order, a waiting fetch first (pitfall 13)")
def pipelined(t: Context) -> None:
    topic = t.topic()
    with t.connect(timeout=30) as one:
        expected = []
        fetch = Writer().i32(-1).i32(700).i32(1).i32(1 << 20).i8(0).i32(0).i32(-1)
        fetch.array([topic], lambda n: fetch.string(n).array([0], lambda p: fetch.i32(p).i32(-1).i64(0).i64(-1).i32(1 << 20))).i32(0).string("")
        expected.append((wire.FETCH, 11, one.send(wire.FETCH, 11, bytes(fetch.out))))
        for number in range(60):
            expected.append((API_VERSIONS, 0, one.send(API_VERSIONS, 0)))
            expected.append((METADATA, 1, one.send(METADATA, 1, METADATA_ALL)))
            expected.append((wire.PRODUCE, 7, one.send_produce(topic, wire.batch([(b"k", b"%d" % number)]))))
        offsets = []
        for key, version, number in expected:
            r = one.answer(key, version, number)
            if key == wire.PRODUCE:
                found = wire.parse_produce(r, 7)
                assert found["error"] == 0
                offsets.append(found["offset"])
        assert offsets == list(range(60)), offsets


@test("framing: a peer that says nothing, half a frame, or half closes harms nobody")
def silent_peers(t: Context) -> None:
    peers = [t.connect() for _ in range(60)]
    for number, one in enumerate(peers):
        if number % 3 == 1:
            one.socket.sendall(b"\x00\x00\x00\x40\x00\x03")
        if number % 3 == 2:
            one.socket.sendall(b"\x00\x00")
            one.socket.shutdown(socket.SHUT_WR)
    alive(t)
    for one in peers[2::3]:
        one.expect_closed()
    for one in peers:
        one.socket.close()
    alive(t)


@test("framing: a peer that asks and never reads harms nobody", seconds=60)
def never_reads(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        for _ in range(8):
            assert one.produce(topic, wire.batch([(None, os.urandom(900_000))]))["error"] == 0
    deaf = t.connect(timeout=1)
    fetch = Writer().i32(-1).i32(0).i32(0).i32(50 << 20).i8(0).i32(0).i32(-1)
    fetch.array([topic], lambda n: fetch.string(n).array([0], lambda p: fetch.i32(p).i32(-1).i64(0).i64(-1).i32(50 << 20))).i32(0).string("")
    try:
        for _ in range(3000):  # the answers would be more than 20 GB
            deaf.send(wire.FETCH, 11, bytes(fetch.out))
    except OSError:
        pass  # the broker stopped reading, as it should
    began = time.monotonic()
    alive(t)
    with t.connect() as one:
        assert one.produce(topic, wire.batch([(None, b"still here")]))["error"] == 0
    assert time.monotonic() - began < 5
    deaf.socket.close()


@test("framing: 400 connections at once are served")
def many_connections(t: Context) -> None:
    peers = [t.connect(timeout=30) for _ in range(400)]
    for one in peers:
        one.send(API_VERSIONS, 0)
    for one in peers:
        assert wire.parse_api_versions(one.answer(API_VERSIONS, 0, 1), 0)["error"] == 0
        one.socket.close()


@test("framing: a frame that is only announced is not paid for in memory", ours_only=True)
def announced(t: Context) -> None:
    peers = []
    for _ in range(100):  # 10 GB in all
        one = t.connect()
        one.socket.sendall(struct.pack(">i", 100 << 20) + b"\x00\x00\x00\x07")
        peers.append(one)
    alive(t)
    broker = t.suite.broker
    if broker:
        with open(f"/proc/{broker.pid}/status", encoding="ascii") as status:
            resident = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
        assert resident < 400 * 1024, f"{resident // 1024} MB resident"
    for one in peers:
        one.socket.close()


@test("framing: SASL on a listener without it gets ILLEGAL_SASL_STATE")
def sasl_on_plain(t: Context) -> None:
    with t.connect() as one:
        one.api_versions(0)
        r = one.request(wire.SASL_HANDSHAKE, 1, bytes(Writer().string("PLAIN").out))
        assert r.i16() == wire.ERROR["ILLEGAL_SASL_STATE"]


@test("framing: 400 frames with bytes changed, cut and doubled leave the broker well", seconds=120)
def mutated_frames(t: Context) -> None:
    rng = random.Random(20)
    topic, group = t.topic(), t.name("g")
    with t.connect() as shape:
        fetch = Writer().i32(-1).i32(0).i32(0).i32(1 << 20).i8(0).i32(0).i32(-1)
        fetch.array([topic], lambda n: fetch.string(n).array([0], lambda p: fetch.i32(p).i32(-1).i64(0).i64(-1).i32(1 << 20))).i32(0).string("")
        produce = Writer().string(None).i16(-1).i32(1000)
        produce.array([topic], lambda n: produce.string(n).array([0], lambda p: produce.i32(p).bytes(wire.batch([(b"k", b"v" * 50)]))))
        join = Writer().string(group).i32(6000).i32(6000).string("").string(None).string("consumer")
        join.array(["range"], lambda n: join.string(n).bytes(b"\x00\x01" + bytes(8)))
        meta = Writer(True)
        meta.array([topic], lambda n: meta.raw(bytes(16)).string(n).tags()).i8(1).i8(0).tags()
        seeds = [shape.frame(wire.FETCH, 11, bytes(fetch.out), 1), shape.frame(wire.PRODUCE, 7, bytes(produce.out), 1),
                 shape.frame(wire.JOIN_GROUP, 5, bytes(join.out), 1), shape.frame(METADATA, 12, bytes(meta.out), 1),
                 shape.frame(API_VERSIONS, 3, b"\x06suite\x041.0\x00", 1)]
    for number in range(400):
        frame = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 6)):
            what = rng.randrange(3)
            at = rng.randrange(8, len(frame))  # key and version stay: most mutations should reach a decoder
            if what == 0:
                frame[at] = rng.randrange(256)
            elif what == 1:
                del frame[at : at + rng.randrange(1, 9)]
                frame += b"\x00" * 9
            else:
                frame[at:at] = rng.randbytes(rng.randrange(1, 9))
        frame[:4] = struct.pack(">i", len(frame) - 4)
        with Connection(t.host, t.port, timeout=0.3) as one:
            try:
                one.socket.sendall(bytes(frame))
                one.socket.shutdown(socket.SHUT_WR)
                while one.socket.recv(65536):
                    pass
            except OSError:
                pass
        if number % 100 == 99:
            alive(t)
