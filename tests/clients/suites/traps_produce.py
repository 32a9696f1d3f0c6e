"""Traps on the way in: what a broker checks in a batch, and with which error it refuses it."""
import time

import wire
from adapters import Confluent, Kcat
from harness import CODECS, Context, eventually, test
from wire import ERROR, batch

ONE = [(b"k", b"v")]
TWO = [(b"k", b"v"), (b"l", b"w")]


def refused(t: Context, cases: dict, topic: str, **options) -> None:
    for what, (data, error) in cases.items():
        with t.connect() as one:
            found = one.produce(topic, data, **options)
            assert found["error"] == ERROR[error], f"{what}: {wire.NAME_OF.get(found['error'], found['error'])} instead of {error}"
            assert error == "NONE" or found["offset"] == -1, f"{what}: a refusal with offset {found['offset']}"


@test("produce: broken batches are refused with Kafka's errors (pitfall 15)")
def broken_batches(t: Context) -> None:
    topic = t.topic()
    good = batch(ONE)
    refused(t, {
        "two batches": (good + good, "INVALID_RECORD"),
        "no bytes at all": (b"", "INVALID_RECORD"),
        "CRC": (batch(ONE, break_crc=True), "CORRUPT_MESSAGE"),
        "magic 0": (batch(ONE, magic=0), "INVALID_RECORD"),
        "magic 1": (batch(ONE, magic=1), "INVALID_RECORD"),
        "magic 3": (batch(ONE, magic=3), "CORRUPT_MESSAGE"),
        "magic -1": (batch(ONE, magic=-1), "CORRUPT_MESSAGE"),
        "length too small": (batch(ONE, length_error=-1), "CORRUPT_MESSAGE"),
        "length below a header": (batch(ONE, length_error=-40), "CORRUPT_MESSAGE"),
        "negative length": (batch(ONE, length_error=-1000), "CORRUPT_MESSAGE"),
        "count too large": (batch(TWO, count=3), "INVALID_RECORD"),
        "count too small": (batch(TWO, count=1), "INVALID_RECORD"),
        "count and delta too large": (batch(TWO, count=3, last_delta=2), "INVALID_RECORD"),
        "count and delta too small": (batch(TWO, count=1, last_delta=0), "INVALID_RECORD"),
        "count of none": (batch([], count=0, last_delta=0), "INVALID_RECORD"),
        "negative count": (batch(ONE, count=-1, last_delta=-2), "INVALID_RECORD"),
        "last delta": (batch(TWO, last_delta=5), "INVALID_RECORD"),
        "base offset": (batch(ONE, base_offset=1), "INVALID_RECORD"),
        "deltas with a gap": (batch(TWO, deltas=[0, 2], last_delta=2), "INVALID_RECORD"),
        "control batch": (batch(ONE, attributes=0x20), "INVALID_RECORD"),
        "producer id without sequence": (batch(ONE, producer_id=9, epoch=0), "INVALID_RECORD"),
        "payload of zeros": (batch(ONE, payload=bytes(40)), "INVALID_RECORD"),
        "payload cut off": (batch(TWO, payload=wire.encode_records(TWO)[:-3]), "INVALID_RECORD"),
        "payload with more behind it": (batch(ONE, payload=wire.encode_records(ONE) + b"junk"), "INVALID_RECORD"),
    }, topic)
    with t.connect() as one:
        assert one.list_offset(topic, -1)[2] == 0, "something refused was written"


@test("produce: null records get INVALID_RECORD, and the connection goes on (pitfall 15)", ours_only=True)
def null_records(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        assert one.produce(topic, None)["error"] == ERROR["INVALID_RECORD"]
        assert one.produce(topic, batch(ONE))["error"] == 0


@test("produce: broken compressed payloads and unknown codecs get CORRUPT_MESSAGE", ours_only=True)
def broken_payloads(t: Context) -> None:
    topic = t.topic()
    cases = {f"codec {codec}": (batch(ONE, codec=0, attributes=codec), "CORRUPT_MESSAGE") for codec in (5, 6, 7)}
    cases |= {f"junk as {CODECS[codec]}": (batch(ONE, codec=codec, payload=b"this is not compressed at all, not in the least"), "CORRUPT_MESSAGE")
              for codec in (1, 2, 3, 4)}
    refused(t, cases, topic)
    with t.connect() as one:
        assert one.list_offset(topic, -1)[2] == 0


@test("produce: what follows one whole batch, when it is no whole batch, is dropped (pitfall 15)")
def trailing_bytes(t: Context) -> None:
    topic = t.topic()
    refused(t, {"part of a second batch": (batch(ONE) + batch(ONE)[:30], "NONE"), "junk": (batch(ONE) + b"junk", "NONE")}, topic)
    with t.connect() as one:
        assert one.list_offset(topic, -1)[2] == 2
        assert [b.next_offset for b in one.stored(topic)] == [1, 2]


@test("produce: unknown partitions, sizes, timestamps, zstd before version 7 (pitfalls 15, 16)")
def other_refusals(t: Context) -> None:
    topic = t.topic(max_message_bytes=2000)
    now = int(time.time() * 1000)
    refused(t, {"over max.message.bytes": (batch([(None, bytes(2000))]), "MESSAGE_TOO_LARGE"),
                "two hours ahead": (batch(ONE, timestamp=now + 7_200_000), "INVALID_TIMESTAMP"),
                "below max.message.bytes": (batch([(None, bytes(1000))]), "NONE"),
                "half an hour ahead": (batch(ONE, timestamp=now + 1_800_000), "NONE")}, topic)
    refused(t, {"zstd": (batch(ONE, codec=4), "UNSUPPORTED_COMPRESSION_TYPE")}, topic, version=6)
    refused(t, {"zstd": (batch(ONE, codec=4), "NONE")}, topic, version=7)
    with t.connect() as one:
        assert one.produce(topic, batch(ONE), partition=1)["error"] == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]
        assert one.produce(topic, batch(ONE), partition=-1)["error"] == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]
        assert one.produce(t.name("nowhere"), batch(ONE))["error"] == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]


@test("produce: a compacted topic refuses records without a key, and says which (pitfall 15)")
def compacted_null_key(t: Context) -> None:
    topic = t.topic(cleanup_policy="compact")
    with t.connect() as one:
        found = one.produce(topic, batch([(b"k", b"v"), (None, b"v"), (b"k", b"v"), (None, b"w")]), version=8)
        assert found["error"] == ERROR["INVALID_RECORD"], found
        assert [n for n, _ in found["record_errors"]] == [1, 3], found
        assert found["message"]
        assert one.produce(topic, batch(ONE), version=8)["error"] == 0
        for codec in (1, 2, 3, 4):
            found = one.produce(topic, batch([(None, b"v")], codec=codec), version=8)
            assert found["error"] == ERROR["INVALID_RECORD"], (codec, found)


@test("produce: acks=0 is never answered, and an error closes the connection (pitfall 12)")
def acks_zero(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        one.send_produce(topic, batch(ONE), acks=0)
        one.send_produce(topic, batch(ONE), acks=0)
        assert one.api_versions(0)["error"] == 0, "the next answer must be the next request's"
        # Nobody was promised anything: a broker that shows only what is durable may need a moment.
        eventually("both records", lambda: one.list_offset(topic, -1)[2] == 2)
    for data, name, partition in ((batch(ONE, break_crc=True), topic, 0), (batch(ONE), topic, 7), (batch(ONE), t.name("nowhere"), 0)):
        with t.connect() as one:
            one.send_produce(name, data, partition=partition, acks=0)
            one.expect_closed()
    with t.connect() as one:
        assert one.list_offset(topic, -1)[2] == 2


@test("produce: acks other than 0, 1 and -1 get INVALID_REQUIRED_ACKS (pitfall 12)")
def illegal_acks(t: Context) -> None:
    topic = t.topic()
    for acks in (2, -2, 32767):
        with t.connect() as one:
            assert one.produce(topic, batch(ONE), acks=acks)["error"] == ERROR["INVALID_REQUIRED_ACKS"]
    with t.connect() as one:
        assert one.produce(topic, batch(ONE), acks=1)["error"] == 0


@test("produce: what a client may not decide is corrected: LogAppendTime bit, maxTimestamp, leader epoch (pitfall 16)")
def corrected(t: Context) -> None:
    topic = t.topic()
    now = int(time.time() * 1000)
    with t.connect() as one:
        assert one.produce(topic, batch(ONE, attributes=8, timestamp=now))["append_time"] == -1
        assert one.produce(topic, batch(TWO, timestamp=now, timestamps=[0, 5], max_timestamp=now + 3000))["error"] == 0
        assert one.produce(topic, batch(ONE, leader_epoch=77, timestamp=now))["error"] == 0
        assert one.produce(topic, batch(ONE, attributes=0x80, timestamp=now))["error"] == 0
        stored = one.stored(topic)
        assert all(b.crc_is_right for b in stored)
        assert stored[0].attributes & 8 == 0
        assert stored[1].max_timestamp == now + 5, stored[1].max_timestamp - now
        assert stored[2].leader_epoch != 77
        assert stored[3].attributes & 0x80 == 0x80, "unknown attribute bits are stored as sent"


@test("produce: LogAppendTime is set by the broker: attribute, stamps, CRC and answer (pitfall 16)")
def log_append_time(t: Context) -> None:
    topic = t.topic(message_timestamp_type="LogAppendTime")
    began = int(time.time() * 1000)
    with t.connect() as one:
        for codec in range(5):
            found = one.produce(topic, batch(TWO, codec=codec, timestamp=5))
            assert found["error"] == 0
            stored = one.stored(topic)[-1]
            assert stored.attributes & 8 and stored.crc_is_right and stored.codec == codec
            assert began <= stored.max_timestamp == found["append_time"] <= int(time.time() * 1000) + 1000
        assert one.list_offset(topic, began)[2] == 0
    if t.suite.client_status("confluent") == "ok":
        read = Confluent().consume(t, topic, 10, t.name("g"))
        assert len(read) == 10 and all(r.timestamp >= began for r in read)


@test("produce: compression.type of a topic recompresses what comes (pitfall 16)", needs=("confluent",))
def recompression(t: Context) -> None:
    many = [(b"key", b"a value that repeats itself " * 4) for _ in range(20)]
    for wanted in ("uncompressed", *CODECS[1:]):
        topic = t.topic(compression_type=wanted)
        with t.connect() as one:
            for codec in range(5):
                assert one.produce(topic, batch(many, codec=codec))["error"] == 0, (wanted, codec)
            stored = one.stored(topic)
            expected = 0 if wanted == "uncompressed" else CODECS.index(wanted)
            assert [b.codec for b in stored] == [expected] * len(stored), (wanted, [b.codec for b in stored])
            assert all(b.crc_is_right for b in stored) and stored[-1].next_offset == 100
        read = Confluent().consume(t, topic, 100, t.name("g"))
        assert [(r.key, r.value) for r in read] == many * 5


@test("produce: compressed payloads in the shapes clients send are passed through: raw and xerial snappy, zstd in frames (pitfall 17)",
      needs=("confluent",))
def payload_shapes(t: Context) -> None:
    import struct
    import cramjam
    topic = t.topic()
    plain = wire.encode_records(TWO)
    raw = bytes(cramjam.snappy.compress_raw(plain))
    half = [bytes(cramjam.snappy.compress_raw(part)) for part in (plain[:7], plain[7:])]
    xerial = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1) + b"".join(struct.pack(">i", len(p)) + p for p in half)
    frames = b"".join(bytes(cramjam.zstd.compress(part)) for part in (plain[:7], plain[7:]))
    with t.connect() as one:
        for what, codec, payload in (("xerial", 2, xerial), ("raw snappy", 2, raw), ("lz4", 3, wire.compress(3, plain)), ("zstd", 4, frames)):
            assert one.produce(topic, batch(TWO, codec=codec, payload=payload))["error"] == 0, what
    read = Confluent().consume(t, topic, 8, t.name("g"))
    assert [(r.key, r.value) for r in read] == TWO * 4


@test("produce: idempotence: duplicates, gaps, old epochs, unknown producers, wrap of the sequence (KAFKA.md 3.1)")
def idempotence(t: Context) -> None:
    topic, other = t.topic(), t.topic()
    with t.connect() as one:
        pid, epoch = one.init_producer_id()
        assert epoch == 0

        def write(sequence: int, entries=ONE, epoch: int = 0, topic: str = topic, pid: int = pid) -> tuple:
            found = one.produce(topic, batch(entries, producer_id=pid, epoch=epoch, sequence=sequence))
            return found["error"], found["offset"]

        assert [write(n) for n in range(7)] == [(0, n) for n in range(7)]
        assert [write(n) for n in range(2, 7)] == [(0, n) for n in range(2, 7)], "the last five batches are remembered"
        assert write(6, TWO)[0] == ERROR["OUT_OF_ORDER_SEQUENCE_NUMBER"], "half a duplicate"
        assert write(8)[0] == ERROR["OUT_OF_ORDER_SEQUENCE_NUMBER"], "a gap"
        assert write(7, TWO) == (0, 7)
        assert write(3, epoch=1)[0] == ERROR["OUT_OF_ORDER_SEQUENCE_NUMBER"], "a new epoch starts with 0"
        assert write(0, epoch=1) == (0, 9)
        assert write(9, epoch=0)[0] == ERROR["INVALID_PRODUCER_EPOCH"]
        second, _ = one.init_producer_id()
        assert second != pid
        assert write(2**31 - 1, topic=other, pid=second, entries=TWO) == (0, 0), "a producer nobody knows may start anywhere"
        assert write(1, topic=other, pid=second) == (0, 2), "sequences wrap to 0 behind 2^31 - 1"
        assert one.list_offset(topic, -1)[2] == 10


@test("produce: a duplicate that is no longer remembered is not written again (KAFKA.md 3.1)")
def old_duplicate(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        pid, _ = one.init_producer_id()
        for n in range(8):
            assert one.produce(topic, batch(ONE, producer_id=pid, epoch=0, sequence=n))["error"] == 0
        found = one.produce(topic, batch(ONE, producer_id=pid, epoch=0, sequence=1))
        assert found["error"] in (45, 46), found
        assert one.list_offset(topic, -1)[2] == 8


@test("produce: topics by name and by id, every version that is listed (pitfall 9)")
def every_version(t: Context) -> None:
    topic = t.topic()
    with t.connect() as one:
        low, high = one.api_versions(0)["ranges"][wire.PRODUCE]
        assert low == 0
        (found,) = one.metadata([topic], version=12)["topics"]
        assert found["id"] != bytes(16)
        for number, version in enumerate(range(3, high + 1)):
            answer = one.produce(topic, batch(ONE), version=version, topic_id=found["id"])
            assert (answer["error"], answer["offset"]) == (0, number), (version, answer)
            assert answer["append_time"] == -1 and answer.get("log_start", 0) == 0
        if high >= 13:
            assert one.produce(topic, batch(ONE), version=13, topic_id=b"\x01" * 16)["error"] == ERROR["UNKNOWN_TOPIC_ID"]


@test("produce: internal topics are closed to clients (pitfall 24)")
def internal_topics(t: Context) -> None:
    with t.connect() as one:
        find_coordinator(one, t.name("g"))
        found = one.produce("__consumer_offsets", batch(ONE))
        assert found["error"] == ERROR["INVALID_TOPIC_EXCEPTION"], found


def find_coordinator(one: wire.Connection, group: str) -> None:
    def asked() -> bool:
        r = one.request(wire.FIND_COORDINATOR, 0, bytes(wire.Writer().string(group).out))
        return r.i16() == 0

    eventually("a coordinator", asked)


@test("produce: codec follows the producer's choice with the oldest librdkafka around (pitfall 1)", needs=("kcat",))
def kcat_compresses(t: Context) -> None:
    lines = b"\n".join(b"the same words again and again %d" % n for n in range(500)) + b"\n"
    for codec in CODECS[1:]:
        topic = t.topic()
        Kcat.run(t, "-P", "-t", topic, "-z", codec, stdin=lines)
        with t.connect() as one:
            assert {b.codec for b in one.stored(topic)} == {CODECS.index(codec)}, codec


@test("produce: too large a batch: kafka-python, aiokafka and confluent report it and go on", needs=("confluent", "kafka-python", "aiokafka"))
def too_large(t: Context) -> None:
    import asyncio
    import os
    from aiokafka import AIOKafkaProducer
    from aiokafka.errors import MessageSizeTooLargeError as AioTooLarge
    from confluent_kafka import Producer
    from kafka import KafkaProducer
    from kafka.errors import MessageSizeTooLargeError
    topic = t.topic(max_message_bytes=10_000)
    large = os.urandom(20_000)
    producer = KafkaProducer(bootstrap_servers=t.bootstrap, enable_idempotence=False)  # an idempotent one ends with the first error
    try:
        producer.send(topic, large).get(15)
        raise RuntimeError("accepted")
    except MessageSizeTooLargeError:
        pass
    assert producer.send(topic, b"small").get(15).offset == 0
    producer.close(5)

    async def aio() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=t.bootstrap)
        await producer.start()
        try:
            await producer.send_and_wait(topic, large)
            raise RuntimeError("accepted")
        except AioTooLarge:
            pass
        assert (await producer.send_and_wait(topic, b"small")).offset == 1
        await producer.stop()

    asyncio.run(aio())
    told: list = []
    rd = Producer({"bootstrap.servers": t.bootstrap})
    rd.produce(topic, large, on_delivery=lambda e, m: told.append(e.name() if e else m.offset()))
    rd.flush(15)
    rd.produce(topic, b"small", on_delivery=lambda e, m: told.append(e.name() if e else m.offset()))
    rd.flush(15)
    assert told == ["MSG_SIZE_TOO_LARGE", 2], told
