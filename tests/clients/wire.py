"""A Kafka codec of the suite's own, small and without a library, for what no well-behaved client would send."""
import gzip
import itertools
import socket
import struct
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

PRODUCE, FETCH, LIST_OFFSETS, METADATA, OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 0, 1, 2, 3, 8, 9, 10
JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP, DESCRIBE_GROUPS, LIST_GROUPS = 11, 12, 13, 14, 15, 16
SASL_HANDSHAKE, API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS, DELETE_RECORDS, INIT_PRODUCER_ID = 17, 18, 19, 20, 21, 22
OFFSET_FOR_LEADER_EPOCH, DESCRIBE_CONFIGS, CREATE_PARTITIONS, DELETE_GROUPS = 23, 32, 37, 42
INCREMENTAL_ALTER_CONFIGS, OFFSET_DELETE, DESCRIBE_QUORUM, DESCRIBE_CLUSTER = 44, 47, 55, 60

# First flexible version (KIP-482) of each API used here.
FLEXIBLE = {0: 9, 1: 12, 2: 6, 3: 9, 8: 8, 9: 6, 10: 3, 11: 6, 12: 4, 13: 4, 14: 4, 15: 5, 16: 3, 17: 99, 18: 3, 19: 5, 20: 4,
            21: 2, 22: 2, 23: 4, 32: 4, 33: 2, 37: 2, 42: 2, 44: 1, 47: 99, 55: 0, 60: 0, 61: 0, 75: 0}

ERROR = {"NONE": 0, "OFFSET_OUT_OF_RANGE": 1, "CORRUPT_MESSAGE": 2, "UNKNOWN_TOPIC_OR_PARTITION": 3, "LEADER_NOT_AVAILABLE": 5,
         "MESSAGE_TOO_LARGE": 10, "OFFSET_METADATA_TOO_LARGE": 12, "COORDINATOR_LOAD_IN_PROGRESS": 14,
         "COORDINATOR_NOT_AVAILABLE": 15, "NOT_COORDINATOR": 16, "INVALID_TOPIC_EXCEPTION": 17, "NOT_ENOUGH_REPLICAS": 19,
         "INVALID_REQUIRED_ACKS": 21,
         "ILLEGAL_GENERATION": 22, "INCONSISTENT_GROUP_PROTOCOL": 23, "INVALID_GROUP_ID": 24, "UNKNOWN_MEMBER_ID": 25,
         "INVALID_SESSION_TIMEOUT": 26, "REBALANCE_IN_PROGRESS": 27, "INVALID_TIMESTAMP": 32, "ILLEGAL_SASL_STATE": 34,
         "UNSUPPORTED_VERSION": 35, "TOPIC_ALREADY_EXISTS": 36, "INVALID_PARTITIONS": 37, "INVALID_CONFIG": 40, "INVALID_REQUEST": 42,
         "POLICY_VIOLATION": 44, "OUT_OF_ORDER_SEQUENCE_NUMBER": 45, "KAFKA_STORAGE_ERROR": 56, "INVALID_PRODUCER_EPOCH": 47,
         "NON_EMPTY_GROUP": 68, "GROUP_ID_NOT_FOUND": 69, "FETCH_SESSION_ID_NOT_FOUND": 70, "INVALID_FETCH_SESSION_EPOCH": 71,
         "FENCED_LEADER_EPOCH": 74, "UNKNOWN_LEADER_EPOCH": 75, "UNSUPPORTED_COMPRESSION_TYPE": 76, "MEMBER_ID_REQUIRED": 79,
         "FENCED_INSTANCE_ID": 82, "GROUP_SUBSCRIBED_TO_TOPIC": 86, "INVALID_RECORD": 87, "UNKNOWN_TOPIC_ID": 100,
         "FETCH_SESSION_TOPIC_ID_ERROR": 106}
NAME_OF = {code: name for name, code in ERROR.items()}


class Closed(Exception):
    """The other side ended the connection."""


class Writer:
    def __init__(self, flexible: bool = False):
        self.out, self.flexible = bytearray(), flexible

    def raw(self, data: bytes) -> "Writer":
        self.out += data
        return self

    def pack(self, layout: str, *values: Any) -> "Writer":
        self.out += struct.pack(">" + layout, *values)
        return self

    def i8(self, v: int) -> "Writer":
        return self.pack("b", v)

    def i16(self, v: int) -> "Writer":
        return self.pack("h", v)

    def i32(self, v: int) -> "Writer":
        return self.pack("i", v)

    def i64(self, v: int) -> "Writer":
        return self.pack("q", v)

    def uvarint(self, v: int) -> "Writer":
        while v >= 0x80:
            self.out.append(v & 0x7F | 0x80)
            v >>= 7
        self.out.append(v)
        return self

    def varint(self, v: int) -> "Writer":
        return self.uvarint((v << 1) ^ (v >> 63))

    def string(self, text: Optional[str]) -> "Writer":
        data = None if text is None else text.encode()
        if self.flexible:
            return self.uvarint(0) if data is None else self.uvarint(len(data) + 1).raw(data)
        return self.i16(-1) if data is None else self.i16(len(data)).raw(data)

    def bytes(self, data: Optional[bytes]) -> "Writer":
        if self.flexible:
            return self.uvarint(0) if data is None else self.uvarint(len(data) + 1).raw(data)
        return self.i32(-1) if data is None else self.i32(len(data)).raw(data)

    def array(self, items: Optional[Sequence[Any]], each: Callable[[Any], Any]) -> "Writer":
        if items is None:
            return self.uvarint(0) if self.flexible else self.i32(-1)
        self.uvarint(len(items) + 1) if self.flexible else self.i32(len(items))
        for item in items:
            each(item)
        return self

    def tags(self) -> "Writer":
        return self.uvarint(0) if self.flexible else self


class Reader:
    def __init__(self, data: bytes, flexible: bool = False):
        self.data, self.at, self.flexible = data, 0, flexible

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise ValueError(f"answer ends at {len(self.data)}, wanted {count} bytes at {self.at}: {self.data[:200].hex()}")
        self.at += count
        return self.data[self.at - count : self.at]

    def unpack(self, layout: str) -> Any:
        values = struct.unpack(">" + layout, self.take(struct.calcsize(">" + layout)))
        return values[0] if len(values) == 1 else values

    def i8(self) -> int:
        return self.unpack("b")

    def i16(self) -> int:
        return self.unpack("h")

    def i32(self) -> int:
        return self.unpack("i")

    def i64(self) -> int:
        return self.unpack("q")

    def uvarint(self) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def varint(self) -> int:
        value = self.uvarint()
        return (value >> 1) ^ -(value & 1)

    def string(self) -> Optional[str]:
        length = self.uvarint() - 1 if self.flexible else self.i16()
        return None if length < 0 else self.take(length).decode()

    def bytes(self) -> Optional[bytes]:
        length = self.uvarint() - 1 if self.flexible else self.i32()
        return None if length < 0 else self.take(length)

    def array(self, each: Callable[[], Any]) -> Optional[list]:
        length = self.uvarint() - 1 if self.flexible else self.i32()
        return None if length < 0 else [each() for _ in range(length)]

    def tags(self) -> Dict[int, bytes]:
        if not self.flexible:
            return {}
        out = {}
        for _ in range(self.uvarint()):
            tag = self.uvarint()
            out[tag] = self.take(self.uvarint())
        return out

    def end(self) -> None:
        if self.at != len(self.data):
            raise ValueError(f"{len(self.data) - self.at} bytes too many in the answer: {self.data[self.at:][:64].hex()}")


# ---- record batches -------------------------------------------------------------------------------------------------

def _table() -> List[int]:
    out = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        out.append(byte)
    return out


_TABLE = _table()


def crc32c(data: bytes) -> int:
    try:
        import crc32c as fast  # noqa: PLC0415  (optional: present in the suite's environment)
        return fast.crc32c(data)
    except ImportError:
        value = 0xFFFFFFFF
        for byte in data:
            value = value >> 8 ^ _TABLE[(value ^ byte) & 0xFF]
        return value ^ 0xFFFFFFFF


Entry = Tuple[Optional[bytes], Optional[bytes]]


def encode_records(entries: Sequence[Entry], deltas: Optional[Sequence[int]] = None, timestamps: Optional[Sequence[int]] = None) -> bytes:
    out = Writer()
    for number, (key, value) in enumerate(entries):
        one = Writer().i8(0).varint(timestamps[number] if timestamps else 0).varint(deltas[number] if deltas else number)
        for field in (key, value):
            one.varint(-1 if field is None else len(field)).raw(field or b"")
        one.varint(0)
        out.varint(len(one.out)).raw(bytes(one.out))
    return bytes(out.out)


def batch(entries: Sequence[Entry], *, codec: int = 0, attributes: int = 0, base_offset: int = 0, magic: int = 2, producer_id: int = -1,
          epoch: int = -1, sequence: int = -1, timestamp: Optional[int] = None, max_timestamp: Optional[int] = None, count: Optional[int] = None,
          last_delta: Optional[int] = None, break_crc: bool = False, payload: Optional[bytes] = None, length_error: int = 0,
          leader_epoch: int = -1, deltas: Optional[Sequence[int]] = None, timestamps: Optional[Sequence[int]] = None) -> bytes:
    """A version 2 record batch, as broken as the caller wants it."""
    now = int(time.time() * 1000) if timestamp is None else timestamp
    body = payload if payload is not None else encode_records(entries, deltas, timestamps)
    if payload is None and codec:
        body = compress(codec, body)
    tail = Writer().i16(attributes | codec).i32(len(entries) - 1 if last_delta is None else last_delta)
    tail.i64(now).i64(now + max(timestamps or [0]) if max_timestamp is None else max_timestamp)
    tail.i64(producer_id).i16(epoch).i32(sequence).i32(len(entries) if count is None else count).raw(body)
    crc = crc32c(bytes(tail.out)) ^ (1 if break_crc else 0)
    head = Writer().i64(base_offset).i32(len(tail.out) + 9 + length_error).i32(leader_epoch).i8(magic).pack("I", crc)
    return bytes(head.out + tail.out)


def compress(codec: int, data: bytes) -> bytes:
    if codec == 1:
        return gzip.compress(data)
    import cramjam  # noqa: PLC0415  (in the suite's environment)
    if codec == 2:
        return bytes(cramjam.snappy.compress_raw(data))
    if codec == 3:
        import lz4.frame  # noqa: PLC0415
        return lz4.frame.compress(data, block_linked=False)  # Kafka takes independent blocks only
    return bytes(cramjam.zstd.compress(data))


class Batch:
    """The header of a stored batch."""

    def __init__(self, data: bytes):
        (self.base_offset, self.length, self.leader_epoch, self.magic, self.crc, self.attributes, self.last_delta, self.base_timestamp,
         self.max_timestamp, self.producer_id, self.epoch, self.sequence, self.count) = struct.unpack_from(">qiibIhiqqqhii", data)
        self.raw = data[: self.length + 12]

    @property
    def codec(self) -> int:
        return self.attributes & 7

    @property
    def next_offset(self) -> int:
        return self.base_offset + self.last_delta + 1

    @property
    def crc_is_right(self) -> bool:
        return crc32c(self.raw[21:]) == self.crc


def batches(data: bytes) -> List[Batch]:
    """The whole batches of a Fetch answer; the last one may be cut off."""
    out, at = [], 0
    while at + 61 <= len(data):
        one = Batch(data[at:])
        if at + one.length + 12 > len(data):
            break
        out.append(one)
        at += one.length + 12
    return out


# ---- connection -----------------------------------------------------------------------------------------------------

class Connection:
    def __init__(self, host: str, port: int, timeout: float = 15, client_id: Optional[str] = "suite"):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client_id, self._numbers = client_id, itertools.count(1)

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: Any) -> None:
        self.socket.close()

    def frame(self, key: int, version: int, body: bytes, correlation: int) -> bytes:
        head = Writer().i16(key).i16(version).i32(correlation).string(self.client_id)
        if version >= FLEXIBLE.get(key, 0):
            head.uvarint(0)
        return struct.pack(">i", len(head.out) + len(body)) + bytes(head.out) + body

    def send(self, key: int, version: int, body: bytes = b"") -> int:
        number = next(self._numbers)
        self.socket.sendall(self.frame(key, version, body, number))
        return number

    def _read(self, count: int) -> bytes:
        out = bytearray()
        while len(out) < count:
            try:
                part = self.socket.recv(count - len(out))
            except ConnectionError as e:
                raise Closed(str(e)) from e
            if not part:
                raise Closed(f"closed after {len(out)} of {count} bytes")
            out += part
        return bytes(out)

    def receive(self) -> bytes:
        """One whole frame, correlation id included."""
        (length,) = struct.unpack(">i", self._read(4))
        return self._read(length)

    def request(self, key: int, version: int, body: bytes = b"") -> Reader:
        number = self.send(key, version, body)
        return self.answer(key, version, number)

    def answer(self, key: int, version: int, number: int) -> Reader:
        flexible = version >= FLEXIBLE.get(key, 0)
        reader = Reader(self.receive(), flexible)
        got = reader.i32()
        assert got == number, f"correlation id {got}, expected {number}"
        if flexible and key != API_VERSIONS:  # its response header is always version 0 (KIP-511)
            reader.tags()
        return reader

    def expect_closed(self, seconds: float = 10) -> None:
        """The connection must end without another answer."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(4096)
        except ConnectionError:
            return
        except socket.timeout:
            raise AssertionError(f"connection still open after {seconds} s") from None
        assert data == b"", f"answered instead of closing: {data[:100].hex()}"

    # ---- the requests that many tests need; others are built where they are used

    def api_versions(self, version: int = 0, name: str = "suite", software: str = "1.0") -> Dict[str, Any]:
        w = Writer(version >= 3)
        if version >= 3:
            w.string(name).string(software).tags()
        r = self.request(API_VERSIONS, version, bytes(w.out))
        return parse_api_versions(r, version)

    def metadata(self, topics: Optional[Sequence[str]], version: int = 1, auto_create: bool = False) -> Dict[str, Any]:
        w = Writer(version >= 9)

        def one(name: str) -> None:
            if version >= 10:
                w.raw(bytes(16))
            w.string(name).tags()

        w.array(topics, one)
        if version >= 4:
            w.i8(auto_create)
        if 8 <= version <= 10:
            w.i8(0)
        if version >= 8:
            w.i8(0)
        w.tags()
        return parse_metadata(self.request(METADATA, version, bytes(w.out)), version)

    def create_topic(self, name: str, partitions: int = 1, configs: Optional[Dict[str, str]] = None, version: int = 4, validate: bool = False,
                     replicas: int = 0) -> int:
        """`replicas` 0: as many as the broker's default says."""
        w = Writer(version >= 5)

        def config(pair: Tuple[str, str]) -> None:
            w.string(pair[0]).string(pair[1]).tags()

        w.array([name], lambda n: (w.string(n).i32(partitions).i16(replicas or (-1 if version >= 4 else 1)).array([], lambda _: None)
                                   .array(list((configs or {}).items()), config).tags()))
        w.i32(15000).i8(validate).tags()
        r = self.request(CREATE_TOPICS, version, bytes(w.out))
        if version >= 2:
            r.i32()
        (error,) = r.array(lambda: (r.string(), r.i16(), r.string())[1]) or [None]
        return error

    def describe_quorum(self) -> Dict[str, Any]:
        """The leader, its term, and how far each voter and each learner is."""
        w = Writer(True)
        w.array([0], lambda _: w.string("__cluster_metadata").array([0], lambda n: w.i32(n).tags()).tags()).tags()
        r = self.request(DESCRIBE_QUORUM, 0, bytes(w.out))
        error = r.i16()

        def states() -> Dict[int, int]:
            return dict(r.array(lambda: (r.i32(), r.i64(), r.tags())[:2]) or [])

        def partition() -> Dict[str, Any]:
            out = {"index": r.i32(), "error": r.i16(), "leader": r.i32(), "epoch": r.i32(), "high_watermark": r.i64(),
                   "voters": states(), "observers": states()}
            r.tags()
            return out

        topics = r.array(lambda: (r.string(), r.array(partition), r.tags())[1]) or []
        return topics[0][0] if topics and topics[0] else {"error": error}

    def delete_topic(self, name: str) -> int:
        w = Writer().array([name], lambda n: None)
        w = Writer()
        w.array([name], w.string).i32(15000)
        r = self.request(DELETE_TOPICS, 1, bytes(w.out))
        r.i32()
        return (r.array(lambda: (r.string(), r.i16())) or [])[0][1]

    def wait_leaders(self, name: str, partitions: int, seconds: float = 15) -> None:
        """Kafka answers CreateTopics before every broker knows the topic."""
        deadline = time.monotonic() + seconds
        while True:
            (topic,) = self.metadata([name])["topics"]
            if topic["error"] == 0 and len(topic["partitions"]) == partitions and all(p["leader"] >= 0 for p in topic["partitions"]):
                if all(self.list_offset(name, -1, p)[0] == 0 for p in range(partitions)):
                    return
            assert time.monotonic() < deadline, f"{name} has no leaders: {topic}"
            time.sleep(0.02)

    def send_produce(self, topic: str, data: Optional[bytes], *, partition: int = 0, acks: int = -1, version: int = 7,
                     topic_id: bytes = bytes(16)) -> int:
        w = Writer(version >= 9)
        if version >= 3:
            w.string(None)
        w.i16(acks).i32(10000)

        def one(_: Any) -> None:
            w.raw(topic_id) if version >= 13 else w.string(topic)
            w.array([0], lambda _: w.i32(partition).bytes(data).tags()).tags()

        w.array([0], one).tags()
        return self.send(PRODUCE, version, bytes(w.out))

    def produce(self, topic: str, data: Optional[bytes], **options: Any) -> Dict[str, Any]:
        number = self.send_produce(topic, data, **options)
        version = options.get("version", 7)
        return parse_produce(self.answer(PRODUCE, version, number), version)

    def fetch(self, topic: str, offset: int = 0, *, partition: int = 0, version: int = 11, max_wait: int = 500, min_bytes: int = 1,
              max_bytes: int = 50 << 20, partition_max_bytes: int = 50 << 20, session: int = 0, epoch: int = -1, leader_epoch: int = -1,
              topic_id: bytes = bytes(16), topics: Optional[list] = None, forgotten: Sequence[str] = ()) -> Dict[str, Any]:
        w = Writer(version >= 12)
        w.i32(-1).i32(max_wait).i32(min_bytes).i32(max_bytes).i8(0)
        if version >= 7:
            w.i32(session).i32(epoch)

        def part(number: int) -> None:
            w.i32(number)
            if version >= 9:
                w.i32(leader_epoch)
            w.i64(offset)
            if version >= 12:
                w.i32(-1)
            if version >= 5:
                w.i64(-1)
            w.i32(partition_max_bytes).tags()

        w.array([topic] if topics is None else topics,
                lambda n: (w.raw(topic_id) if version >= 13 else w.string(n)).array([partition], part).tags())
        if version >= 7:
            w.array(forgotten, lambda n: w.string(n).array([partition], w.i32).tags())
        if version >= 11:
            w.string("")
        w.tags()
        return parse_fetch(self.request(FETCH, version, bytes(w.out)), version)

    def stored(self, topic: str, partition: int = 0) -> List[Batch]:
        """All batches of a partition, as they are kept."""
        out: List[Batch] = []
        offset = 0
        while True:
            answer = self.fetch(topic, offset, partition=partition, max_wait=0)["partitions"][0]
            assert answer["error"] == 0, answer["error"]
            found = batches(answer["records"] or b"")
            if not found:
                return out
            out += found
            offset = found[-1].next_offset

    def list_offset(self, topic: str, timestamp: int, partition: int = 0, version: int = 2, leader_epoch: int = -1) -> Tuple[int, int, int]:
        """error, timestamp, offset"""
        w = Writer(version >= 6)
        w.i32(-1)
        if version >= 2:
            w.i8(0)

        def part(number: int) -> None:
            w.i32(number)
            if version >= 4:
                w.i32(leader_epoch)
            w.i64(timestamp).tags()

        w.array([topic], lambda n: w.string(n).array([partition], part).tags())
        if version >= 10:
            w.i32(5000)
        w.tags()
        r = self.request(LIST_OFFSETS, version, bytes(w.out))
        if version >= 2:
            r.i32()
        found: list = []

        def answer() -> None:
            r.i32()
            found.append((r.i16(), r.i64(), r.i64()))
            if version >= 4:
                r.i32()
            r.tags()

        r.array(lambda: (r.string(), r.array(answer), r.tags()))
        return found[0]

    def init_producer_id(self, seconds: float = 15) -> Tuple[int, int]:
        deadline = time.monotonic() + seconds
        while True:
            r = self.request(INIT_PRODUCER_ID, 0, bytes(Writer().string(None).i32(60000).out))
            r.i32()
            error, pid, epoch = r.i16(), r.i64(), r.i16()
            if error == 0:
                return pid, epoch
            # A broker that has just started may still wait for its first block of ids.
            assert error == ERROR["COORDINATOR_LOAD_IN_PROGRESS"] and time.monotonic() < deadline, f"InitProducerId: {error}"
            time.sleep(0.05)


def parse_api_versions(r: Reader, version: int) -> Dict[str, Any]:
    error = r.i16()
    ranges = dict(r.array(lambda: (lambda k, lo, hi, _: (k, (lo, hi)))(r.i16(), r.i16(), r.i16(), r.tags())) or [])
    throttle = r.i32() if version >= 1 else 0
    tags = r.tags()
    r.end()
    return {"error": error, "ranges": ranges, "throttle": throttle, "tags": tags}


def parse_metadata(r: Reader, version: int) -> Dict[str, Any]:
    out: Dict[str, Any] = {}
    if version >= 3:
        out["throttle"] = r.i32()
    out["brokers"] = r.array(lambda: {"id": r.i32(), "host": r.string(), "port": r.i32(), "rack": r.string(), "_": r.tags()})
    if version >= 2:
        out["cluster_id"] = r.string()
    out["controller"] = r.i32()

    def part() -> Dict[str, Any]:
        p = {"error": r.i16(), "index": r.i32(), "leader": r.i32()}
        p["epoch"] = r.i32() if version >= 7 else None
        p["replicas"], p["isr"] = r.array(r.i32), r.array(r.i32)
        if version >= 5:
            p["offline"] = r.array(r.i32)
        r.tags()
        return p

    def topic() -> Dict[str, Any]:
        t: Dict[str, Any] = {"error": r.i16(), "name": r.string()}
        if version >= 10:
            t["id"] = r.take(16)
        t["internal"], t["partitions"] = r.i8(), r.array(part)
        if version >= 8:
            r.i32()
        r.tags()
        return t

    out["topics"] = r.array(topic)
    if 8 <= version <= 10:
        r.i32()
    if version >= 13:
        r.i16()
    r.tags()
    r.end()
    return out


def parse_produce(r: Reader, version: int) -> Dict[str, Any]:
    def part() -> Dict[str, Any]:
        p: Dict[str, Any] = {"index": r.i32(), "error": r.i16(), "offset": r.i64()}
        if version >= 2:
            p["append_time"] = r.i64()
        if version >= 5:
            p["log_start"] = r.i64()
        if version >= 8:
            p["record_errors"] = r.array(lambda: (r.i32(), r.string(), r.tags())[:2])
            p["message"] = r.string()
        r.tags()
        return p

    found: List[Dict[str, Any]] = []
    r.array(lambda: (r.take(16) if version >= 13 else r.string(), found.extend(r.array(part) or []), r.tags()))
    r.i32()
    r.tags()
    r.end()
    return found[0]


def parse_fetch(r: Reader, version: int) -> Dict[str, Any]:
    out: Dict[str, Any] = {"throttle": r.i32(), "error": 0, "session": 0, "partitions": []}
    if version >= 7:
        out["error"], out["session"] = r.i16(), r.i32()

    def part() -> Dict[str, Any]:
        p: Dict[str, Any] = {"index": r.i32(), "error": r.i16(), "high_watermark": r.i64(), "last_stable": r.i64()}
        if version >= 5:
            p["log_start"] = r.i64()
        p["aborted"] = r.array(lambda: (r.i64(), r.i64(), r.tags())[:2])
        if version >= 11:
            p["preferred"] = r.i32()
        p["records"] = r.bytes()
        r.tags()
        return p

    def topic() -> None:
        name = r.take(16) if version >= 13 else r.string()
        for p in r.array(part) or []:
            out["partitions"].append({"topic": name, **p})
        r.tags()

    r.array(topic)
    out["tags"] = r.tags()
    r.end()
    return out
