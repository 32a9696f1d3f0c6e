"""Consumer groups as real clients live them."""
import asyncio
import threading
import time
from typing import Callable, Dict, List, Optional, Set

from adapters import subscribe
from harness import Context, eventually, test

SECONDS = 100


def fill(t: Context, topic: str, count: int, partitions: int) -> None:
    import wire
    with t.connect() as one:
        for p in range(partitions):
            data = wire.batch([(b"%d" % p, b"%d-%d" % (p, n)) for n in range(count)])
            # Kafka tells of a new partition before it serves it: 3 and 6 pass.
            eventually("the partition takes records", lambda: one.produce(topic, data, partition=p)["error"] == 0)


class Live:
    """A confluent consumer in a thread, with its rebalances written down."""

    def __init__(self, t: Context, topic: str, group: str, instance: Optional[str] = None, strategy: str = "range,roundrobin", seconds: int = 10):
        from confluent_kafka import Consumer
        config = {"bootstrap.servers": t.bootstrap, "group.id": group, "auto.offset.reset": "earliest", "partition.assignment.strategy": strategy,
                  "session.timeout.ms": seconds * 1000, "heartbeat.interval.ms": 300, "enable.auto.commit": False, "reconnect.backoff.max.ms": 500}
        if instance:
            config["group.instance.id"] = instance
        self.consumer, self.cooperative = Consumer(config), "cooperative" in strategy
        self.assigned: Set[int] = set()
        self.assignments: List[List[int]] = []
        self.revocations: List[List[int]] = []
        self.read: Dict[int, List[int]] = {}
        self.errors: List[str] = []
        self.stopping = threading.Event()
        self.consumer.subscribe([topic], on_assign=self.on_assign, on_revoke=self.on_revoke)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def on_assign(self, consumer, partitions) -> None:
        numbers = [p.partition for p in partitions]
        self.assignments.append(numbers)
        self.assigned = (self.assigned | set(numbers)) if self.cooperative else set(numbers)

    def on_revoke(self, consumer, partitions) -> None:
        self.revocations.append([p.partition for p in partitions])
        self.assigned -= {p.partition for p in partitions}

    def run(self) -> None:
        while not self.stopping.is_set():
            for one in self.consumer.consume(100, 0.1):
                if one.error():
                    self.errors.append(str(one.error()))
                else:
                    self.read.setdefault(one.partition(), []).append(one.offset())
        self.consumer.close()

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join(30)
        assert not self.thread.is_alive()


def shared(members: List[Live], partitions: int) -> Callable[[], bool]:
    """Every partition has one owner, and nobody has more than one partition more than another."""
    def check() -> bool:
        held = [m.assigned for m in members]
        sizes = [len(h) for h in held]
        return sum(sizes) == partitions and set().union(*held) == set(range(partitions)) and max(sizes) - min(sizes) <= 1
    return check


@test("confluent: three members share a group, one leaves, one dies", needs=("confluent",), seconds=SECONDS)
def three_members(t: Context) -> None:
    topic, group = t.topic(6), t.name("three")
    fill(t, topic, 50, 6)
    members = [Live(t, topic, group)]
    eventually("one member has all", shared(members, 6))
    members.append(Live(t, topic, group))
    eventually("two members share", shared(members, 6))
    members.append(Live(t, topic, group))
    eventually("three members share", shared(members, 6))
    members.pop(0).stop()
    eventually("two members share what the third left", shared(members, 6))
    fill(t, topic, 50, 6)
    eventually("everything is read", lambda: all(any(99 in m.read.get(p, []) for m in members) for p in range(6)))
    for m in members:
        m.stop()
        assert not m.errors, m.errors


@test("confluent: a static member comes back within its session: nobody rebalances (KIP-345)", needs=("confluent",), seconds=SECONDS)
def static_restart(t: Context) -> None:
    topic, group = t.topic(4), t.name("static")
    fill(t, topic, 20, 4)
    a, b = Live(t, topic, group, "a", seconds=30), Live(t, topic, group, "b", seconds=30)
    eventually("both share", shared([a, b], 4))
    held, seen = set(b.assigned), len(a.assignments) + len(a.revocations)
    b.stop()
    again = Live(t, topic, group, "b", seconds=30)
    eventually("the same partitions are back", lambda: again.assigned == held)
    time.sleep(1.5)  # time for the rebalance that must not come: a hears of one within its heartbeat interval
    assert len(a.assignments) + len(a.revocations) == seen, (a.assignments, a.revocations)
    a.stop()
    again.stop()


@test("confluent: cooperative-sticky moves only what must move (KIP-429)", needs=("confluent",), seconds=SECONDS)
def cooperative(t: Context) -> None:
    topic, group = t.topic(6), t.name("coop")
    fill(t, topic, 20, 6)
    members = [Live(t, topic, group, strategy="cooperative-sticky")]
    eventually("one member has all", shared(members, 6))
    members.append(Live(t, topic, group, strategy="cooperative-sticky"))
    eventually("two share", shared(members, 6), 30)
    assert sorted(len(r) for r in members[0].revocations if r) == [3], f"gave away more than needed: {members[0].revocations}"
    members.append(Live(t, topic, group, strategy="cooperative-sticky"))
    eventually("three share", shared(members, 6), 30)
    members.pop().stop()
    eventually("two share again", shared(members, 6), 30)
    for m in members:
        m.stop()
        assert not m.errors, m.errors


@test("mixed: confluent, kafka-python and aiokafka in one group", needs=("confluent", "kafka-python", "aiokafka"), seconds=SECONDS)
def mixed_group(t: Context) -> None:
    from aiokafka import AIOKafkaConsumer
    from aiokafka.coordinator.assignors.range import RangePartitionAssignor as AioRange
    from kafka import KafkaConsumer
    from kafka.coordinator.assignors.range import RangePartitionAssignor
    topic, group = t.topic(6), t.name("mixed")
    fill(t, topic, 100, 6)
    stop = threading.Event()
    got: Dict[str, Set[tuple]] = {"py": set(), "aio": set()}
    held: Dict[str, Set[int]] = {"py": set(), "aio": set()}

    def python() -> None:
        consumer = KafkaConsumer(bootstrap_servers=t.bootstrap, group_id=group, auto_offset_reset="earliest", session_timeout_ms=10000,
                                 heartbeat_interval_ms=500, partition_assignment_strategy=[RangePartitionAssignor])
        subscribe(consumer, topic)
        while not stop.is_set():
            for found in consumer.poll(100).values():
                got["py"] |= {(r.partition, r.offset) for r in found}
            held["py"] = {p.partition for p in consumer.assignment()}
        consumer.close()

    def aio() -> None:
        async def loop() -> None:
            consumer = AIOKafkaConsumer(topic, bootstrap_servers=t.bootstrap, group_id=group, auto_offset_reset="earliest", session_timeout_ms=10000,
                                        heartbeat_interval_ms=500, partition_assignment_strategy=(AioRange,))
            await consumer.start()
            while not stop.is_set():
                for found in (await consumer.getmany(timeout_ms=100)).values():
                    got["aio"] |= {(r.partition, r.offset) for r in found}
                held["aio"] = {p.partition for p in consumer.assignment()}
            await consumer.stop()
        asyncio.run(loop())

    threads = [threading.Thread(target=python, daemon=True), threading.Thread(target=aio, daemon=True)]
    threads[0].start()
    eventually("kafka-python has all", lambda: held["py"] == set(range(6)), 30)
    threads[1].start()
    rd = Live(t, topic, group, strategy="range")
    eventually("three clients share", lambda: [len(held["py"]), len(held["aio"]), len(rd.assigned)] == [2, 2, 2]
               and held["py"] | held["aio"] | rd.assigned == set(range(6)), 40)
    fill(t, topic, 100, 6)
    everything = {(p, n) for p in range(6) for n in range(200)}
    eventually("everything is read", lambda: got["py"] | got["aio"] | {(p, o) for p, os in rd.read.items() for o in os} == everything, 30)
    stop.set()
    rd.stop()
    for one in threads:
        one.join(30)
        assert not one.is_alive()


@test("kafka-python: three members share a group, one leaves", needs=("kafka-python",), seconds=SECONDS)
def python_members(t: Context) -> None:
    from kafka import KafkaConsumer
    topic, group = t.topic(6), t.name("py-three")
    fill(t, topic, 20, 6)
    stops = [threading.Event() for _ in range(3)]
    held: List[Set[int]] = [set() for _ in range(3)]
    read: Set[tuple] = set()

    def live(number: int) -> None:
        consumer = KafkaConsumer(bootstrap_servers=t.bootstrap, group_id=group, auto_offset_reset="earliest", session_timeout_ms=10000, heartbeat_interval_ms=500)
        subscribe(consumer, topic)
        while not stops[number].is_set():
            for found in consumer.poll(100).values():
                read.update((r.partition, r.offset) for r in found)
            held[number] = {p.partition for p in consumer.assignment()}
        consumer.close()
        held[number] = set()

    threads = [threading.Thread(target=live, args=(n,), daemon=True) for n in range(3)]
    for one in threads:
        one.start()
    try:
        eventually("three share", lambda: sorted(len(h) for h in held) == [2, 2, 2] and set().union(*held) == set(range(6)), 40)
    finally:
        print(held, [one.is_alive() for one in threads], flush=True)
    stops[0].set()
    eventually("two share", lambda: sorted(len(h) for h in held) == [0, 3, 3] and set().union(*held) == set(range(6)), 40)
    eventually("everything is read", lambda: read == {(p, n) for p in range(6) for n in range(20)})
    for one in stops:
        one.set()
    for one in threads:
        one.join(30)


@test("commits: offset, metadata and leader epoch come back as they went, in three clients (pitfall 26)",
      needs=("confluent", "kafka-python", "aiokafka"))
def commits(t: Context) -> None:
    from aiokafka import AIOKafkaConsumer, TopicPartition as AioPartition
    from aiokafka.structs import OffsetAndMetadata as AioOffset
    from confluent_kafka import Consumer, TopicPartition
    from kafka import KafkaConsumer, TopicPartition as PyPartition
    from kafka.structs import OffsetAndMetadata
    topic, group = t.topic(3), t.name("commits")
    fill(t, topic, 50, 3)
    rd = Consumer({"bootstrap.servers": t.bootstrap, "group.id": group})
    rd.commit(offsets=[TopicPartition(topic, 0, 11, metadata="from confluent", leader_epoch=0)], asynchronous=False)
    py = KafkaConsumer(bootstrap_servers=t.bootstrap, group_id=group, enable_auto_commit=False)
    py.assign([PyPartition(topic, 1)])
    py.commit({PyPartition(topic, 1): OffsetAndMetadata(22, "from kafka-python", -1)})

    async def aio() -> None:
        consumer = AIOKafkaConsumer(bootstrap_servers=t.bootstrap, group_id=group, enable_auto_commit=False)
        await consumer.start()
        consumer.assign([AioPartition(topic, 2)])
        await consumer.commit({AioPartition(topic, 2): AioOffset(33, "from aiokafka")})
        assert await consumer.committed(AioPartition(topic, 0)) == 11
        await consumer.stop()

    asyncio.run(aio())
    found = {p.partition: p for p in rd.committed([TopicPartition(topic, n) for n in range(3)], 15)}
    # This client shows metadata with what stands behind it in memory, so the others are asked for it.
    assert [found[n].offset for n in range(3)] == [11, 22, 33]
    notes = [py.committed(PyPartition(topic, n), metadata=True).metadata.rstrip("\0") for n in range(3)]
    assert notes == ["from confluent", "from kafka-python", "from aiokafka"], notes
    assert found[0].leader_epoch == 0, found[0].leader_epoch
    rd.close()
    py.close()


@test("confluent: AdminClient: topics, configs, groups, offsets, records", needs=("confluent",), seconds=SECONDS)
def confluent_admin(t: Context) -> None:
    from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, ConsumerGroupState, TopicCollection, TopicPartition
    from confluent_kafka.admin import (AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec,
                                       ResourceType)
    admin, topic, group = AdminClient({"bootstrap.servers": t.bootstrap}), t.name("rd-admin"), t.name("rd-group")
    admin.create_topics([NewTopic(topic, 2, 1, config={"retention.ms": "4000000"})])[topic].result(15)
    eventually("the topic is there", lambda: topic in admin.list_topics(topic, 10).topics and not admin.list_topics(topic, 10).topics[topic].error)
    (described,) = [f.result(15) for f in admin.describe_topics(TopicCollection([topic])).values()]
    assert len(described.partitions) == 2 and not described.is_internal and str(described.topic_id)
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = admin.describe_configs([resource])[resource].result(15)
    assert entries["retention.ms"].value == "4000000" and entries["segment.bytes"].is_default and len(entries) > 25
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
        ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
        ConfigEntry("retention.ms", None, incremental_operation=AlterConfigOpType.DELETE)])
    admin.incremental_alter_configs([change])[change].result(15)
    eventually("the change", lambda: {k: v.value for k, v in admin.describe_configs([resource])[resource].result(15).items()}["cleanup.policy"] == "delete,compact")
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(15)
    eventually("four partitions", lambda: len(admin.list_topics(topic, 10).topics[topic].partitions) == 4)
    fill(t, topic, 30, 4)
    where = TopicPartition(topic, 1)
    assert admin.list_offsets({where: OffsetSpec.latest()})[where].result(15).offset == 30
    assert admin.list_offsets({where: OffsetSpec.earliest()})[where].result(15).offset == 0
    assert admin.list_offsets({where: OffsetSpec.max_timestamp()})[where].result(15).offset in range(30)
    assert admin.delete_records([TopicPartition(topic, 1, 12)])[TopicPartition(topic, 1, 12)].result(15).low_watermark == 12
    assert admin.list_offsets({where: OffsetSpec.earliest()})[where].result(15).offset == 12
    member = Live(t, topic, group)
    eventually("the member has all", shared([member], 4))
    (found,) = [f.result(15) for f in admin.describe_consumer_groups([group]).values()]
    assert found.state == ConsumerGroupState.STABLE and len(found.members) == 1 and len(found.members[0].assignment.topic_partitions) == 4
    member.stop()
    eventually("the group is empty", lambda: [f.result(15) for f in admin.describe_consumer_groups([group]).values()][0].state == ConsumerGroupState.EMPTY)
    assert group in [g.group_id for g in admin.list_consumer_groups(states={ConsumerGroupState.EMPTY}).result(15).valid]
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 17)])
    admin.alter_consumer_group_offsets([wanted])[group].result(15)
    asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])
    assert admin.list_consumer_group_offsets([asked])[group].result(15).topic_partitions[0].offset == 17
    consumer = Consumer({"bootstrap.servers": t.bootstrap, "group.id": group})
    assert consumer.committed([TopicPartition(topic, 0)], 10)[0].offset == 17
    consumer.close()
    admin.delete_consumer_groups([group])[group].result(15)
    cluster = admin.describe_cluster().result(15)
    assert cluster.cluster_id and len(cluster.nodes) == 1
    admin.delete_topics([topic])[topic].result(15)
    eventually("the topic is gone", lambda: topic not in admin.list_topics(timeout=10).topics)


@test("kafka-python: AdminClient: topics, configs, groups, offsets", needs=("kafka-python",), seconds=SECONDS)
def python_admin(t: Context) -> None:
    from kafka import KafkaConsumer, TopicPartition
    from kafka.admin import KafkaAdminClient, NewTopic
    admin, topic, group = KafkaAdminClient(bootstrap_servers=t.bootstrap), t.name("py-admin"), t.name("py-group")
    admin.create_topics([NewTopic(topic, 3, 1)])
    eventually("the topic is there", lambda: topic in admin.list_topics())
    fill(t, topic, 10, 3)
    consumer = KafkaConsumer(bootstrap_servers=t.bootstrap, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
    subscribe(consumer, topic)
    eventually("records", lambda: consumer.poll(200))
    consumer.commit()
    consumer.close()
    eventually("the group is empty", lambda: "Empty" in str(admin.describe_groups([group])), 20)
    assert group in str(admin.list_groups())
    assert TopicPartition(topic, 0) in admin.list_group_offsets(group) or topic in str(admin.list_group_offsets(group))
    admin.delete_groups([group])
    eventually("the group is gone", lambda: group not in str(admin.list_groups()))
    assert admin.describe_cluster()["cluster_id"]
    admin.delete_topics([topic])
    eventually("the topic is gone", lambda: topic not in admin.list_topics())
    admin.close()
