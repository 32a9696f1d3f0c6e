"""One adapter for each client: what it can carry, how it writes a list of records, how it reads a topic in a group.

`produce` answers the offset of each record, in order; `consume` answers records."""
import asyncio
import json
import os
import subprocess
import time
from typing import Any, List, Optional, Sequence

import harness
from records import Record, read_file, write_file

HERE = os.path.dirname(os.path.realpath(__file__))


class Adapter:
    name = ""
    idempotent = True
    text_only = False      # no nulls, headers or binary: a line-based tool
    own_timestamps = True  # the caller's timestamps reach the broker
    ignores: tuple = ()    # fields that it cannot report when it reads

    def carry(self, record: Record) -> Record:
        """The nearest record that this client can write."""
        return record

    def produce(self, t: harness.Context, topic: str, records: List[Record], codec: str) -> List[int]:
        raise NotImplementedError

    def consume(self, t: harness.Context, topic: str, count: int, group: str, seconds: float = 60) -> List[Record]:
        raise NotImplementedError

    def as_read(self, record: Record) -> Record:
        """How this client shows a record that another one wrote."""
        return record


class Confluent(Adapter):
    name = "confluent"

    def produce(self, t, topic, records, codec):
        from confluent_kafka import Producer
        offsets: List[Optional[int]] = [None] * len(records)
        errors: list = []
        producer = Producer({"bootstrap.servers": t.bootstrap, "compression.type": codec, "enable.idempotence": True, "acks": "all",
                             "linger.ms": 5, "queue.buffering.max.messages": 200000, "message.timeout.ms": 60000})

        def told(number: int):
            def callback(error, message):
                if error:
                    errors.append(error)
                else:
                    offsets[number] = message.offset()
            return callback

        for number, one in enumerate(records):
            producer.produce(topic, one.value, one.key, one.partition, timestamp=one.timestamp, headers=list(one.headers) or None,
                             on_delivery=told(number))
            producer.poll(0)
        left = producer.flush(60)
        assert not errors and left == 0, f"{len(errors)} deliveries failed, {left} undelivered: {errors[:3]}"
        return offsets

    def consume(self, t, topic, count, group, seconds=60):
        from confluent_kafka import Consumer
        out: List[Record] = []
        consumer = Consumer({"bootstrap.servers": t.bootstrap, "group.id": group, "auto.offset.reset": "earliest",
                             "enable.auto.commit": False, "check.crcs": True})
        consumer.subscribe([topic])
        deadline = time.monotonic() + seconds
        while len(out) < count and time.monotonic() < deadline:
            for one in consumer.consume(1000, 0.2):
                assert not one.error(), one.error()
                out.append(Record(one.partition(), one.offset(), one.timestamp()[1], one.key(), one.value(), tuple(one.headers() or ())))
        if out:
            consumer.commit(asynchronous=False)
        consumer.close()
        return out


def subscribe(consumer: Any, topic: str) -> None:
    """Subscribes a consumer of kafka-python, and fetches the topic's metadata before it polls for the first time. 3.0.12 joins
    without it, and joins again when it comes; and where a poll ends between the leader's assignment and the SyncGroup answer,
    `need_rejoin` is false by then: nobody awaits the join, heartbeats stay off, and it waits for ever. The other way round is
    no help: what it compares is the metadata of topics that it has subscribed to when that arrives."""
    consumer.subscribe([topic])
    harness.eventually("kafka-python knows the topic", lambda: bool(consumer.partitions_for_topic(topic)))


class KafkaPython(Adapter):
    name = "kafka-python"

    def carry(self, record):
        return record._replace(headers=tuple(h for h in record.headers if h[1] is not None))  # it refuses null values

    def produce(self, t, topic, records, codec):
        from kafka import KafkaProducer
        producer = KafkaProducer(bootstrap_servers=t.bootstrap, compression_type=None if codec == "none" else codec, acks="all",
                                 linger_ms=5, enable_idempotence=True)
        sent = [producer.send(topic, one.value, one.key, list(one.headers), one.partition, one.timestamp) for one in records]
        producer.flush(60)
        offsets = [one.get(10).offset for one in sent]
        producer.close(10)
        return offsets

    def consume(self, t, topic, count, group, seconds=60):
        from kafka import KafkaConsumer
        out: List[Record] = []
        consumer = KafkaConsumer(bootstrap_servers=t.bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False,
                                 check_crcs=True, max_poll_records=2000)
        subscribe(consumer, topic)
        deadline = time.monotonic() + seconds
        while len(out) < count and time.monotonic() < deadline:
            for found in consumer.poll(200).values():
                out += [Record(r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in found]
        if out:
            consumer.commit()
        consumer.close()
        return out


class Aiokafka(Adapter):
    name = "aiokafka"

    def produce(self, t, topic, records, codec):
        from aiokafka import AIOKafkaProducer

        async def write() -> List[int]:
            producer = AIOKafkaProducer(bootstrap_servers=t.bootstrap, compression_type=None if codec == "none" else codec,
                                        enable_idempotence=True, linger_ms=5, max_request_size=2 << 20)
            await producer.start()
            try:
                sent = []
                for one in records:
                    sent.append(await producer.send(topic, one.value, one.key, one.partition, one.timestamp, list(one.headers)))
                return [(await one).offset for one in sent]
            finally:
                await producer.stop()

        return asyncio.run(write())

    def consume(self, t, topic, count, group, seconds=60):
        from aiokafka import AIOKafkaConsumer

        async def read() -> List[Record]:
            out: List[Record] = []
            consumer = AIOKafkaConsumer(topic, bootstrap_servers=t.bootstrap, group_id=group, auto_offset_reset="earliest",
                                        enable_auto_commit=False, check_crcs=True)
            await consumer.start()
            try:
                deadline = time.monotonic() + seconds
                while len(out) < count and time.monotonic() < deadline:
                    for found in (await consumer.getmany(timeout_ms=200, max_records=2000)).values():
                        out += [Record(r.partition, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in found]
                if out:
                    await consumer.commit()
            finally:
                await consumer.stop()
            return out

        return asyncio.run(read())


class Kafkajs(Adapter):
    name = "kafkajs"

    @staticmethod
    def drive(t: harness.Context, job: dict, seconds: float = 80) -> dict:
        """Runs node/driver.js; the answer is the last line it prints."""
        done = subprocess.run(["node", os.path.join(HERE, "node", "driver.js"), json.dumps({"bootstrap": t.bootstrap, **job})],
                              env={**os.environ, "NODE_PATH": os.path.join(harness.CACHE, "node", "node_modules"), "KAFKAJS_NO_PARTITIONER_WARNING": "1"},
                              capture_output=True, text=True, timeout=seconds, check=False)
        print(done.stdout[-3000:], done.stderr[-6000:], flush=True)
        assert done.returncode == 0, f"kafkajs driver ended with status {done.returncode}: {done.stderr[-600:]}"
        return json.loads(done.stdout.strip().splitlines()[-1])

    def carry(self, record):
        # Its headers are an object: no null values, and a name's values stand together.
        names = list(dict.fromkeys(name for name, _ in record.headers))
        return record._replace(headers=tuple(sorted((h for h in record.headers if h[1] is not None), key=lambda h: names.index(h[0]))))

    def as_read(self, record):
        names = list(dict.fromkeys(name for name, _ in record.headers))
        return record._replace(headers=tuple(sorted(record.headers, key=lambda h: names.index(h[0]))))

    def produce(self, t, topic, records, codec):
        feed, out = os.path.join(t.directory, "feed.bin"), os.path.join(t.directory, "offsets.json")
        write_file(feed, records)
        self.drive(t, {"do": "produce", "topic": topic, "file": feed, "codec": codec, "out": out})
        with open(out, encoding="utf-8") as file:
            return json.load(file)

    def consume(self, t, topic, count, group, seconds=60):
        out = os.path.join(t.directory, "read.bin")
        self.drive(t, {"do": "consume", "topic": topic, "count": count, "group": group, "seconds": seconds, "out": out})
        return read_file(out)


class Java(Adapter):
    name = "java"

    def produce(self, t, topic, records, codec):
        import struct
        feed, out = os.path.join(t.directory, "feed.bin"), os.path.join(t.directory, "offsets.bin")
        write_file(feed, records)
        t.java.call("produce", feed, topic, out, f"bootstrap.servers={t.bootstrap}", f"compression.type={codec}", "acks=all",
                    "enable.idempotence=true", "linger.ms=5")
        with open(out, "rb") as file:
            return [offset for _, offset in struct.iter_unpack(">iq", file.read())]

    def consume(self, t, topic, count, group, seconds=60):
        out = os.path.join(t.directory, "read.bin")
        t.java.call("consume", topic, str(count), str(int(seconds)), out, f"bootstrap.servers={t.bootstrap}", f"group.id={group}",
                    "auto.offset.reset=earliest", "enable.auto.commit=false", "check.crcs=true", seconds=seconds + 20)
        return read_file(out)


class Kcat(Adapter):
    name = "kcat"
    text_only = True
    own_timestamps = False

    @staticmethod
    def run(t: harness.Context, *arguments: str, seconds: float = 60, stdin: bytes = b"") -> bytes:
        done = subprocess.run(["kcat", "-b", t.bootstrap, *arguments], input=stdin, capture_output=True, timeout=seconds, check=False)
        print(f"$ kcat {' '.join(arguments)}: status {done.returncode}, {len(done.stdout)} bytes\n{done.stderr.decode(errors='replace')[-2000:]}", flush=True)
        assert done.returncode == 0, f"kcat ended with status {done.returncode}: {done.stderr.decode(errors='replace')[-600:]}"
        return done.stdout

    def produce(self, t, topic, records, codec):
        feed = os.path.join(t.directory, "feed.txt")
        for partition in sorted({r.partition for r in records}):
            with open(feed, "wb") as file:
                for one in records:
                    if one.partition == partition:
                        file.write((one.key or b"") + b"|" + (one.value or b"") + b"\n")
            self.run(t, "-P", "-t", topic, "-p", str(partition), "-K", "|", "-z", codec, "-X", "enable.idempotence=true", "-X", "acks=all", "-l", feed)
        return [-1] * len(records)  # it does not tell

    def as_read(self, record):
        shown = ",".join(f"{name.encode().decode('latin-1')}={'NULL' if value is None else value.split(bytes(1))[0].decode('latin-1')}" for name, value in record.headers)
        return record._replace(headers=((shown, None),) if shown else ())

    def consume(self, t, topic, count, group, seconds=60):
        out = self.run(t, "-G", group, topic, "-e", "-q", "-f", "%p|%o|%T|%K|%S|%R%k%s%h\n", "-X", "auto.offset.reset=earliest", "-X", "check.crcs=true", seconds=seconds)
        return self.parse(out)

    @staticmethod
    def parse(out: bytes) -> List[Record]:
        """By lengths: values may hold anything. %R is the value's length as four bytes, the end of the numbers."""
        found, at = [], 0
        while at < len(out):
            fields: List[int] = []
            while len(fields) < 5:
                end = out.index(b"|", at)
                fields.append(int(out[at:end]))
                at = end + 1
            partition, offset, timestamp, key_length, value_length = fields
            at += 4
            key: Optional[bytes] = out[at : at + max(key_length, 0)]
            at += max(key_length, 0)
            if key_length < 0:
                key = None
            value: Optional[bytes] = out[at : at + max(value_length, 0)]
            at += max(value_length, 0)
            if value_length < 0:
                value = None
            end = out.index(b"\n", at)
            shown = out[at:end].decode("latin-1")
            at = end + 1
            found.append(Record(partition, offset, timestamp, key, value, ((shown, None),) if shown else ()))
        return found


ALL: Sequence[Adapter] = (Kcat(), Confluent(), KafkaPython(), Aiokafka(), Kafkajs(), Java())
