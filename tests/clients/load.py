"""Clients that write down all they do and hear: the history that `skerry-sim check` judges (checker/src/history.rs)."""
import collections
import json
import random
import struct
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition

# Shorter than the clients' defaults: during an outage they should ask again, not wait for an answer that never comes.
IMPATIENT = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "retry.backoff.ms": 20, "socket.timeout.ms": 3000,
             "socket.connection.setup.timeout.ms": 1500, "topic.metadata.refresh.interval.ms": 5000}
# How much the library says of itself: nothing, or librarylog.SETTINGS.
LIBRARY: Dict[str, Any] = {"log_level": 2}


def settings(name: str, bootstrap: str, **others: Any) -> Dict[str, Any]:
    """Those of a client, and of it alone `others`, with dots for underscores."""
    own = {key.replace("_", "."): value for key, value in others.items()}
    return {"bootstrap.servers": bootstrap, "client.id": name, **own, **IMPATIENT, **LIBRARY}


class History:
    """One JSON object a line, in the order of their times."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lines: List[Optional[str]] = []
        self.began = time.monotonic()
        self.counts: Dict[str, int] = collections.Counter()

    def _add(self, client: str, number: Optional[int], what: Dict[str, Any]) -> int:
        with self.lock:
            number = len(self.lines) if number is None else number
            at = int((time.monotonic() - self.began) * 1e6)
            self.lines.append(json.dumps({"at": at, "id": number, "client": client, "what": what}, separators=(",", ":")))
            return number

    def invoke(self, client: str, op: str, **fields: Any) -> int:
        self.counts[op] += 1
        return self._add(client, None, {"invoke": {"op": op, **fields}})

    def complete(self, client: str, number: int, outcome: str, **fields: Any) -> None:
        self._add(client, number, {"complete": {"is": outcome, **fields}})

    def failed(self, client: str, number: int, why: Any, definite: bool = False) -> None:
        self.complete(client, number, "failed", definite=definite, why=str(why))

    def amend(self, number: int, old: str, new: str) -> None:
        """What was asked turns out to have been asked otherwise."""
        with self.lock:
            self.lines[number] = (self.lines[number] or "").replace(old, new, 1)

    def save(self, path: str) -> None:
        with self.lock, open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in self.lines)


class Client:
    """A thread with a name. What it complains of is a broken promise, whatever the checker finds."""

    def __init__(self, name: str, history: History, topic: str, partitions: int):
        self.name, self.history, self.topic, self.partitions = name, history, topic, partitions
        self.stopping = threading.Event()
        self.complaints: List[str] = []
        self.thread = threading.Thread(target=self._guarded, name=name, daemon=True)

    def key(self, partition: int) -> str:
        return f"{self.topic}-{partition}"

    def start(self) -> "Client":
        self.thread.start()
        return self

    def stop(self, seconds: float = 60) -> None:
        self.stopping.set()
        self.thread.join(seconds)
        if self.thread.is_alive():
            self.complaints.append(f"does not end within {seconds} s: it is in {self._where()}")

    def _where(self) -> str:
        frame = sys._current_frames().get(self.thread.ident or 0)  # pylint: disable=protected-access
        stack = traceback.extract_stack(frame) if frame else []
        return " > ".join(f"{one.name} (line {one.lineno}: {one.line})" for one in stack if one.filename == __file__)

    def _guarded(self) -> None:
        try:
            self.run()
        except Exception as e:  # noqa: BLE001  (a dead client would make a quiet history)
            self.complaints.append(f"fell over: {e!r}")

    def run(self) -> None:
        raise NotImplementedError


class Writer(Client):
    """An idempotent producer, acks=all: one record after the other to each partition in turn."""

    def __init__(self, number: int, bootstrap: str, history: History, topic: str, partitions: int, per_second: float, in_flight: int = 5):
        super().__init__(f"writer-{number}", history, topic, partitions)
        self.number, self.bootstrap, self.pause = number, bootstrap, 1 / per_second
        self.in_flight = in_flight
        self.sent = self.acknowledged = 0
        self.heard: List[List[float]] = [[] for _ in range(partitions)]  # when each acknowledgement came, for each partition
        self.errors: List[str] = []
        # Delivered, as librdkafka concludes from a later answer: it cannot say where. They are looked for in the end.
        self.unplaced: List[str] = []

    def _told(self, number: int, partition: int, value: str) -> Callable:
        def callback(error: Any, message: Any) -> None:
            if error:
                self.errors.append(str(error))
                self.history.failed(self.name, number, error)
                return
            self.acknowledged += 1
            self.heard[partition].append(time.monotonic())
            if message.offset() is None or message.offset() < 0:
                self.unplaced.append(value)
                self.history.failed(self.name, number, "delivered, and nobody says where")
            else:
                self.history.complete(self.name, number, "sent", base=message.offset())
        return callback

    def _error(self, error: Any) -> None:
        if error.fatal():
            self.complaints.append(f"fatal: {error}")

    def run(self) -> None:
        producer = Producer({"error_cb": self._error, **settings(
            self.name, self.bootstrap, enable_idempotence=True, acks="all", linger_ms=1, max_in_flight_requests_per_connection=self.in_flight)})
        due = time.monotonic()
        while not self.stopping.is_set() and not self.complaints:
            if len(producer) < 2000:
                partition, value = self.sent % self.partitions, f"p{self.number}.{self.sent}"
                number = self.history.invoke(self.name, "send", key=self.key(partition), values=[value], idempotent=True, acks_all=True)
                producer.produce(self.topic, value, partition=partition, on_delivery=self._told(number, partition, value))
                self.sent += 1
            due = max(due + self.pause, time.monotonic() - 1)
            while True:
                producer.poll(max(0.0, min(due - time.monotonic(), 0.05)))
                if time.monotonic() >= due or self.stopping.is_set():
                    break
        left = producer.flush(60)
        if left:
            self.complaints.append(f"{left} records are neither acknowledged nor refused 60 s after the last fault was healed")


def polled(messages: List[Any]) -> Tuple[Dict[int, List[Tuple[int, str]]], List[Any]]:
    """Records by partition, and errors."""
    records: Dict[int, List[Tuple[int, str]]] = {}
    errors = []
    for message in messages:
        if message.error():
            errors.append(message.error())
        else:
            records.setdefault(message.partition(), []).append((message.offset(), message.value().decode()))
    return records, errors


class Reader(Client):
    """Reads along, from the first record of each partition, whatever happens. Where a leader says that what it reads is
    out of its range, something that was visible is gone."""

    def __init__(self, name: str, bootstrap: str, history: History, topic: str, partitions: int, isolation: str = "read_uncommitted"):
        super().__init__(name, history, topic, partitions)
        self.consumer = Consumer(settings(name, bootstrap, group_id=name, enable_auto_commit=False, auto_offset_reset="error",
                                          isolation_level=isolation, fetch_wait_max_ms=100, check_crcs=True))
        self.next = [0] * partitions

    def run(self) -> None:
        self.consumer.assign([TopicPartition(self.topic, p, 0) for p in range(self.partitions)])
        while not self.stopping.is_set():
            # Asked before, so that what the answer holds may have been written meanwhile.
            records, errors = polled(self.consumer.consume(500, 0.1))
            self.complaints += [str(e) for e in errors if e.name() in ("_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "_BAD_MSG")]
            for partition, found in records.items():
                write_poll(self.history, self.name, self.key(partition), 1, self.next[partition], found)
                self.next[partition] = found[-1][0] + 1
        self.consumer.close()


def write_poll(history: History, client: str, key: str, session: int, position: int, found: List[Tuple[int, str]]) -> None:
    number = history.invoke(client, "poll", key=key, session=session, **{"from": position})
    history.complete(client, number, "polled", records=found, high_watermark=0, log_start=0)


def membership(consumer: Consumer) -> Tuple[int, str]:
    """The generation and the member's id; librdkafka tells them only in the form that it writes for a transaction's producer."""
    try:
        told = consumer.consumer_group_metadata()
    except RuntimeError:  # it is closing
        return -1, ""
    magic = b"CGMDv2:"
    if not told or not told.startswith(magic):
        return -1, ""
    (generation,) = struct.unpack_from("=i", told, len(magic))
    _, member, _ = (told[len(magic) + 4:] + b"\0\0").split(b"\0", 2)
    return generation, member.decode()


class Member(Client):
    """A member of a group: reads what it is given, commits what it has read."""

    def __init__(self, number: int, bootstrap: str, history: History, topic: str, partitions: int, group: str):
        super().__init__(f"member-{number}", history, topic, partitions)
        self.group, self.session = group, number * 1_000_000
        self.position: Dict[int, int] = {}
        self.read = 0
        self.closing = False
        self.rng = random.Random(number)
        self.consumer = Consumer(settings(self.name, bootstrap, group_id=group, enable_auto_commit=False, auto_offset_reset="earliest",
                                          session_timeout_ms=6000, heartbeat_interval_ms=500, fetch_wait_max_ms=100))

    def _assigned(self, consumer: Consumer, given: List[TopicPartition]) -> None:
        generation, member = membership(consumer)
        self.session += 1
        self.position.clear()
        if generation >= 0:
            number = self.history.invoke(self.name, "join", group=self.group)
            self.history.complete(self.name, number, "joined", generation=generation)
            number = self.history.invoke(self.name, "own", group=self.group, generation=generation, member=member,
                                         keys=[self.key(one.partition) for one in given])
            self.history.complete(self.name, number, "done")

    def _revoked(self, consumer: Consumer, given: List[TopicPartition]) -> None:
        # While it is closed the library's group ends without waiting for this callback. Whoever asks it for its generation
        # after that waits for ever, and holds Python's lock (librdkafka: rd_kafka_consumer_group_metadata has no timeout).
        if not self.closing:
            self._commit()
        self.position.clear()

    def _commit(self) -> None:
        for partition, offset in sorted(self.position.items()):
            before, _ = membership(self.consumer)
            number = self.history.invoke(self.name, "commit", group=self.group, generation=before, key=self.key(partition), offset=offset)
            try:
                self.consumer.commit(offsets=[TopicPartition(self.topic, partition, offset)], asynchronous=False)
                # The library's own thread may have entered a later generation before it sent this.
                after, _ = membership(self.consumer)
                if after != before:
                    self.history.amend(number, f'"generation":{before}', f'"generation":{max(before, after)}')
                self.history.complete(self.name, number, "done")
            except KafkaException as e:
                self.history.failed(self.name, number, e)

    def _told(self, callback: Callable) -> Callable:
        """What falls over within a callback is told here: the library makes a SystemError without a cause of it."""
        def guarded(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as e:  # noqa: BLE001
                where = traceback.extract_tb(e.__traceback__)[-1]
                self.complaints.append(f"fell over in {callback.__name__}, line {where.lineno}: {e!r}")
        return guarded

    def run(self) -> None:
        self.consumer.subscribe([self.topic], on_assign=self._told(self._assigned), on_revoke=self._told(self._revoked),
                                on_lost=self._told(lambda *_: self.position.clear()))
        due = time.monotonic() + 0.5
        while not self.stopping.is_set():
            records, _ = polled(self.consumer.consume(100, 0.1))
            for partition, found in records.items():
                self.read += len(found)
                write_poll(self.history, self.name, self.key(partition), self.session, self.position.get(partition, found[0][0]), found)
                self.position[partition] = found[-1][0] + 1
            if time.monotonic() >= due:
                self._commit()
                due = time.monotonic() + self.rng.uniform(0.3, 0.8)
        self._commit()
        self.closing = True
        self.consumer.close()


class Asker(Client):
    """Asks where partitions end and what the group has committed: neither may ever go back."""

    def __init__(self, bootstrap: str, history: History, topic: str, partitions: int, group: str):
        super().__init__("asker", history, topic, partitions)
        self.group = group
        self.consumer = Consumer(settings(self.name, bootstrap, group_id=group, enable_auto_commit=False))

    def ask(self, partition: int, seconds: float) -> Optional[int]:
        number = self.history.invoke(self.name, "list-end", key=self.key(partition))
        try:
            _, end = self.consumer.get_watermark_offsets(TopicPartition(self.topic, partition), timeout=seconds, cached=False)
            self.history.complete(self.name, number, "offset", offset=end)
            return end
        except KafkaException as e:
            self.history.failed(self.name, number, e)
            return None

    def ask_commits(self, seconds: float) -> None:
        all_of_them = [TopicPartition(self.topic, p) for p in range(self.partitions)]
        numbers = [self.history.invoke(self.name, "read-commit", group=self.group, key=self.key(p)) for p in range(self.partitions)]
        try:
            told = {one.partition: max(one.offset, -1) for one in self.consumer.committed(all_of_them, timeout=seconds) if not one.error}
        except KafkaException as e:
            for number in numbers:
                self.history.failed(self.name, number, e)
            return
        for partition, number in enumerate(numbers):
            if partition in told:
                self.history.complete(self.name, number, "offset", offset=told[partition])
            else:
                self.history.failed(self.name, number, "an error for this partition")

    def run(self) -> None:
        turn = 0
        while not self.stopping.wait(0.1):
            self.ask(turn % self.partitions, 1)
            if turn % 10 == 0:
                self.ask_commits(1)
            turn += 1


def final_reads(bootstrap: str, history: History, topic: str, asker: Asker, writers: List[Writer], seconds: float = 60) -> List[str]:
    """Every partition from its start to its end, after everything has healed; what is wrong."""
    name, wrong, seen = "final", [], set()
    for partition in range(asker.partitions):
        deadline, end = time.monotonic() + seconds, None
        while end is None and time.monotonic() < deadline:
            end = asker.ask(partition, 5)
        if end is None:
            wrong.append(f"{topic}-{partition}: no end is told {seconds:.0f} s after everything has healed")
            continue
        consumer = Consumer(settings(name, bootstrap, group_id=name, enable_auto_commit=False, auto_offset_reset="error",
                                     check_crcs=True, fetch_wait_max_ms=100))
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
        number = history.invoke(name, "final-read", key=f"{topic}-{partition}")
        stored: List[Tuple[int, str]] = []
        while time.monotonic() < deadline and (not stored or stored[-1][0] + 1 < end) and end > 0:
            records, errors = polled(consumer.consume(2000, 0.2))
            stored += records.get(partition, [])
        if end > 0 and (not stored or stored[-1][0] + 1 < end):
            wrong.append(f"{topic}-{partition}: only {len(stored)} records can be read; it ends at {end}")
        seen |= {value for _, value in stored}
        history.complete(name, number, "polled", records=stored, high_watermark=end, log_start=0)
        consumer.close()
    asker.ask_commits(10)
    for writer in writers:
        lost = [value for value in writer.unplaced if value not in seen]
        wrong += [f"{writer.name}: {len(lost)} records were delivered, as it was told, and are gone: {lost[:5]}"] if lost else []
    return wrong
