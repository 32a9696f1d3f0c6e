"""The records that every client writes and reads: a deterministic generator, the file format that carries them between
programs, and the comparison."""
import hashlib
import random
import struct
import zlib
from typing import Iterable, List, NamedTuple, Optional, Tuple

class Record(NamedTuple):
    partition: int
    offset: int
    timestamp: int
    key: Optional[bytes]
    value: Optional[bytes]
    headers: Tuple[Tuple[str, Optional[bytes]], ...]


def generate(seed: str, count: int, partitions: int, now_ms: int, text: bool = False) -> List[Record]:
    """`count` records: one in a hundred without a value, some without a key, some empty, most below 2 KB, one in four
    hundred up to 100 KB. With `text`, nothing that a line-based tool cannot carry: no nulls, empty values, headers or newlines."""
    rng = random.Random(seed)
    phrases = [bytes(rng.choices(b"abcdefghijklmnopqrstuvwxyz0123456789", k=40)) for _ in range(64)]
    out = []
    for number in range(count):
        kind = rng.random()
        if kind < 0.20:
            size = rng.randrange(0, 16)
        elif kind < 0.80:
            size = rng.randrange(16, 400)
        elif kind < 0.9975:
            size = rng.randrange(400, 2000)
        else:
            size = rng.randrange(2000, 100_000)
        body = b"".join(rng.choices(phrases, k=size // 40 + 1))[:size]
        if not text and size > 200 and kind > 0.5:  # half of it does not compress
            body = body[: size // 2] + rng.randbytes(size - size // 2)
        check = zlib.crc32(body + seed.encode())
        value: Optional[bytes] = b"%d:%08x:" % (number, check) + body
        key: Optional[bytes] = b"key-%d" % (number % 997)
        headers: Tuple[Tuple[str, Optional[bytes]], ...] = ()
        if not text:
            if number % 100 == 7:
                value = None
            elif number % 100 == 8:
                value = b""
            if number % 10 == 3:
                key = None
            elif number % 50 == 4:
                key = b""
            if number % 5 == 0:
                headers = (("trace", b"%d" % number), ("empty", b""), ("trace", rng.randbytes(6).replace(b"\n", b"N")))
            if number % 25 == 0:
                headers += (("nothing", None), ("häder", "wért".encode()))
        out.append(Record(rng.randrange(partitions), -1, now_ms - count + number, key, value, headers))
    return out


def _bytes(value: Optional[bytes]) -> bytes:
    return struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value


def write_file(path: str, records: Iterable[Record]) -> None:
    with open(path, "wb") as out:
        for one in records:
            out.write(struct.pack(">iqq", one.partition, one.offset, one.timestamp) + _bytes(one.key) + _bytes(one.value))
            out.write(struct.pack(">i", len(one.headers)))
            for name, value in one.headers:
                out.write(_bytes(name.encode()) + _bytes(value))


def read_file(path: str) -> List[Record]:
    with open(path, "rb") as file:
        data = file.read()
    at = 0

    def field() -> Optional[bytes]:
        nonlocal at
        (length,) = struct.unpack_from(">i", data, at)
        at += 4
        if length < 0:
            return None
        at += length
        return data[at - length : at]

    out = []
    while at < len(data):
        partition, offset, timestamp = struct.unpack_from(">iqq", data, at)
        at += 20
        key, value = field(), field()
        (count,) = struct.unpack_from(">i", data, at)
        at += 4
        headers = tuple(((field() or b"").decode(), field()) for _ in range(count))
        out.append(Record(partition, offset, timestamp, key, value, headers))
    return out


def digest(records: Iterable[Record]) -> str:
    """One checksum over content and order of each partition."""
    sums = {}
    for one in records:
        sums.setdefault(one.partition, hashlib.sha256()).update(repr((one.timestamp, one.key, one.value, one.headers)).encode())
    return hashlib.sha256(repr(sorted((p, s.hexdigest()) for p, s in sums.items())).encode()).hexdigest()[:16]


def show(one: Record) -> str:
    value = one.value if one.value is None or len(one.value) < 40 else one.value[:40] + b"...(%d bytes)" % len(one.value)
    return f"partition {one.partition} offset {one.offset} timestamp {one.timestamp} key {one.key!r} value {value!r} headers {one.headers!r}"


def compare(wrote: List[Record], read: List[Record], ignore: Tuple[str, ...] = (), dense: bool = True) -> None:
    """Every partition must hold the same records in the same order. `ignore` names fields that a client cannot carry.
    `dense`: offsets count up by one (nothing else was written)."""
    if len(wrote) != len(read):
        missing = sorted({(r.partition, r.value or b"") for r in wrote} - {(r.partition, r.value or b"") for r in read})[:3]
        raise AssertionError(f"wrote {len(wrote)} records, read {len(read)}; first missing: {missing!r:.300}")
    for partition in sorted({r.partition for r in wrote} | {r.partition for r in read}):
        left = [r for r in wrote if r.partition == partition]
        right = [r for r in read if r.partition == partition]
        assert len(left) == len(right), f"partition {partition}: wrote {len(left)}, read {len(right)}"
        for index, (a, b) in enumerate(zip(left, right)):
            for name in ("timestamp", "key", "value", "headers"):
                if name not in ignore and getattr(a, name) != getattr(b, name):
                    raise AssertionError(f"record {index} of partition {partition} differs in {name}:\n  wrote {show(a)}\n  read  {show(b)}")
            if index and b.offset <= right[index - 1].offset:
                raise AssertionError(f"offsets of partition {partition} go back: {right[index - 1].offset} then {b.offset}")
            if dense and index and b.offset != right[index - 1].offset + 1:
                raise AssertionError(f"gap in partition {partition}: {right[index - 1].offset} then {b.offset}")
            if a.offset >= 0 and a.offset != b.offset:
                raise AssertionError(f"acknowledged at offset {a.offset}, found at {b.offset}: {show(b)}")
