"""Traps of the classic group protocol, spoken by hand."""
import struct
import time
from typing import Any, Dict, List, Optional, Sequence

import wire
from harness import Context, eventually, test
from wire import ERROR, Writer, batch

# ConsumerProtocolSubscription v0 without user data, and an assignment of one partition.


def subscription(topic: str) -> bytes:
    return bytes(Writer().i16(0).i32(1).string(topic).i32(-1).out)


def assignment(topic: str, partitions: Sequence[int]) -> bytes:
    w = Writer().i16(0)
    w.array([topic], lambda n: w.string(n).array(partitions, w.i32)).i32(-1)
    return bytes(w.out)


class Member:
    """One member of a group: builds requests in any version up to the last one that is not flexible."""

    def __init__(self, one: wire.Connection, group: str, topic: str, instance: Optional[str] = None):
        self.one, self.group, self.topic, self.instance = one, group, topic, instance
        self.id, self.generation = "", -1

    def send_join(self, version: int, member: Optional[str] = None, session_ms: int = 10_000, rebalance_ms: int = 10_000,
                  protocol: str = "consumer", protocols: Sequence[str] = ("range",)) -> int:
        w = Writer().string(self.group).i32(session_ms)
        if version >= 1:
            w.i32(rebalance_ms)
        w.string(self.id if member is None else member)
        if version >= 5:
            w.string(self.instance)
        w.string(protocol).array(protocols, lambda n: w.string(n).bytes(subscription(self.topic)))
        return self.one.send(wire.JOIN_GROUP, version, bytes(w.out))

    def joined(self, version: int, number: int) -> Dict[str, Any]:
        r = self.one.answer(wire.JOIN_GROUP, version, number)
        if version >= 2:
            r.i32()
        found = {"error": r.i16(), "generation": r.i32(), "protocol": r.string(), "leader": r.string(), "member": r.string()}
        found["members"] = r.array(lambda: (r.string(), r.string() if version >= 5 else None, r.bytes())[0])
        r.end()
        if found["error"] == 0:
            self.id, self.generation = found["member"], found["generation"]
        return found

    def join(self, version: int = 3, **options: Any) -> Dict[str, Any]:
        return self.joined(version, self.send_join(version, **options))

    def sync(self, version: int = 1, assignments: Optional[Dict[str, bytes]] = None, generation: Optional[int] = None) -> tuple:
        w = Writer().string(self.group).i32(self.generation if generation is None else generation).string(self.id)
        if version >= 3:
            w.string(self.instance)
        w.array(list((assignments or {}).items()), lambda a: w.string(a[0]).bytes(a[1]))
        r = self.one.request(wire.SYNC_GROUP, version, bytes(w.out))
        if version >= 1:
            r.i32()
        return r.i16(), r.bytes()

    def heartbeat(self, version: int = 1, generation: Optional[int] = None, member: Optional[str] = None) -> int:
        w = Writer().string(self.group).i32(self.generation if generation is None else generation).string(self.id if member is None else member)
        if version >= 3:
            w.string(self.instance)
        r = self.one.request(wire.HEARTBEAT, version, bytes(w.out))
        if version >= 1:
            r.i32()
        return r.i16()

    def leave(self, version: int = 1) -> int:
        r = self.one.request(wire.LEAVE_GROUP, version, bytes(Writer().string(self.group).string(self.id).out))
        if version >= 1:
            r.i32()
        return r.i16()

    def commit(self, offset: int, metadata: Optional[str] = "", version: int = 2, generation: Optional[int] = None, member: Optional[str] = None,
               topic: Optional[str] = None, epoch: int = -1) -> int:
        w = Writer().string(self.group).i32(self.generation if generation is None else generation).string(self.id if member is None else member)
        if version >= 7:
            w.string(self.instance)
        if 2 <= version <= 4:
            w.i64(-1)

        def part(number: int) -> None:
            w.i32(number).i64(offset)
            if version >= 6:
                w.i32(epoch)
            w.string(metadata)

        w.array([topic or self.topic], lambda n: w.string(n).array([0], part))
        r = self.one.request(wire.OFFSET_COMMIT, version, bytes(w.out))
        if version >= 3:
            r.i32()
        found: list = []
        r.array(lambda: (r.string(), r.array(lambda: found.append((r.i32(), r.i16())[1]))))
        return found[0]


def offsets(one: wire.Connection, group: str, topics: Optional[Dict[str, List[int]]], version: int = 5) -> Dict[tuple, tuple]:
    w = Writer().string(group)
    w.array(None if topics is None else list(topics.items()), lambda item: w.string(item[0]).array(item[1], w.i32))
    r = one.request(wire.OFFSET_FETCH, version, bytes(w.out))
    if version >= 3:
        r.i32()
    found: Dict[tuple, tuple] = {}

    def part(name: Optional[str]) -> None:
        number, offset = r.i32(), r.i64()
        epoch = r.i32() if version >= 5 else None
        found[name, number] = (offset, epoch, r.string(), r.i16())

    def topic() -> None:
        name = r.string()
        r.array(lambda: part(name))

    r.array(topic)
    if version >= 2:
        assert r.i16() == 0
    r.end()
    return found


def described(one: wire.Connection, groups: Sequence[str], version: int) -> List[dict]:
    w = Writer(version >= 5)
    w.array(groups, w.string)
    if version >= 3:
        w.i8(0)
    w.tags()
    r = one.request(wire.DESCRIBE_GROUPS, version, bytes(w.out))
    if version >= 1:
        r.i32()

    def member() -> dict:
        found = {"id": r.string(), "instance": r.string() if version >= 4 else None, "client": r.string(), "host": r.string(),
                 "metadata": r.bytes(), "assignment": r.bytes()}
        r.tags()
        return found

    def group() -> dict:
        found: Dict[str, Any] = {"error": r.i16()}
        if version >= 6:
            found["message"] = r.string()
        found |= {"group": r.string(), "state": r.string(), "type": r.string(), "protocol": r.string(), "members": r.array(member)}
        if version >= 3:
            r.i32()
        r.tags()
        return found

    found = r.array(group) or []
    r.tags()
    r.end()
    return found


def ready(t: Context, one: wire.Connection, group: str) -> None:
    """The coordinator may still be loading."""
    eventually("a coordinator", lambda: one.request(wire.FIND_COORDINATOR, 0, bytes(Writer().string(group).out)).i16() == 0)
    eventually("a loaded group", lambda: Member(one, group, "x").heartbeat(member="nobody", generation=1) in (ERROR["UNKNOWN_MEMBER_ID"],))


def delete_group(one: wire.Connection, *groups: str) -> Dict[str, int]:
    w = Writer()
    w.array(groups, w.string)
    r = one.request(wire.DELETE_GROUPS, 1, bytes(w.out))
    r.i32()
    return dict(r.array(lambda: (r.string(), r.i16())) or [])


@test("groups: the whole cycle in the oldest versions, JoinGroup 0 and 1 (pitfall 2)")
def oldest_versions(t: Context) -> None:
    topic = t.topic()
    for version in (0, 1, 2):
        group = t.name(f"v{version}")
        with t.connect() as one:
            ready(t, one, group)
            m = Member(one, group, topic)
            found = m.join(version)
            assert found["error"] == 0 and found["generation"] == 1 and found["leader"] == found["member"] and found["protocol"] == "range", found
            assert found["members"] == [m.id]
            given = assignment(topic, [0])
            assert m.sync(0, {m.id: given}) == (0, given)
            assert m.heartbeat(0) == 0
            assert m.commit(3, "note", version=2) == 0
            assert offsets(one, group, {topic: [0]}, 1)[topic, 0] == (3, None, "note", 0)
            assert m.leave(0) == 0
            assert m.heartbeat(0) == ERROR["UNKNOWN_MEMBER_ID"]


@test("groups: MEMBER_ID_REQUIRED from JoinGroup 4 on, for members without an instance id (KIP-394, pitfall 26)")
def member_id_required(t: Context) -> None:
    topic = t.topic()
    for version in (3, 4, 5):
        group = t.name(f"v{version}")
        with t.connect() as one:
            ready(t, one, group)
            m = Member(one, group, topic)
            found = m.join(version)
            if version < 4:
                assert found["error"] == 0
                continue
            assert found["error"] == ERROR["MEMBER_ID_REQUIRED"] and found["member"].startswith("suite-"), found
            assert m.join(version, member=found["member"])["error"] == 0
    with t.connect() as one:
        m = Member(one, t.name("static"), topic, instance="one")
        assert m.join(5)["error"] == 0, "a static member needs no second round"


@test("groups: OffsetFetch: all topics, missing offsets, metadata and leader epoch kept (pitfall 26)")
def offset_fetch(t: Context) -> None:
    topic, other, group = t.topic(), t.topic(), t.name("g")
    with t.connect() as one:
        ready(t, one, group)
        m = Member(one, group, topic)
        assert offsets(one, group, None) == {}, "an unknown group has no offsets, and that is no error"
        assert offsets(one, group, {topic: [0, 1]}) == {(topic, 0): (-1, -1, "", 0), (topic, 1): (-1, -1, "", 0)}
        assert m.commit(7, "wört", version=7, epoch=0) == 0
        assert m.commit(9, None, version=7, topic=other) == 0
        for version in (2, 3, 4, 5):
            found = offsets(one, group, None, version)
            assert found[topic, 0] == (7, 0 if version >= 5 else None, "wört", 0), found
            assert found[other, 0][0] == 9 and set(found) == {(topic, 0), (other, 0)}
        assert m.commit(8, "x" * 4097) == ERROR["OFFSET_METADATA_TOO_LARGE"]
        assert m.commit(8, "x" * 4096) == 0
        for odd in (-5, 2**62, 0):
            assert m.commit(odd) == 0 and offsets(one, group, {topic: [0]})[topic, 0][0] == odd
        assert m.commit(1, topic=t.name("nowhere")) == ERROR["UNKNOWN_TOPIC_OR_PARTITION"]
        # Version 8: several groups in one request.
        w = Writer(True)
        w.array([group, t.name("other")], lambda g: w.string(g).array(None, lambda _: None).tags()).i8(0).tags()
        r = one.request(wire.OFFSET_FETCH, 8, bytes(w.out))
        r.i32()

        def part() -> tuple:
            found = (r.i32(), r.i64(), r.i32(), r.string(), r.i16())
            r.tags()
            return found

        def one_topic() -> tuple:
            found = (r.string(), r.array(part))
            r.tags()
            return found

        def one_group() -> tuple:
            found = (r.string(), r.array(one_topic), r.i16())
            r.tags()
            return found

        found_groups = r.array(one_group) or []
        assert [(g[0], len(g[1] or []), g[2]) for g in found_groups][0] == (group, 2, 0) and found_groups[1][1] == []


@test("groups: DescribeGroups of an unknown group: Dead up to version 5, GROUP_ID_NOT_FOUND from 6 (pitfall 27)")
def describe_unknown(t: Context) -> None:
    group = t.name("nowhere")
    with t.connect() as one:
        ready(t, one, group)
        for version in range(0, 7):
            (found,) = described(one, [group], version)
            assert (found["error"], found["state"], found["members"]) == (0 if version < 6 else 69, "Dead", []), (version, found)


@test("groups: DescribeGroups, ListGroups and DeleteGroups through the life of a group (pitfall 27)")
def life(t: Context) -> None:
    topic, group = t.topic(), t.name("life")
    with t.connect() as one:
        ready(t, one, group)
        m = Member(one, group, topic)
        assert m.join(3)["error"] == 0
        for version in (0, 3, 5, 6):
            (found,) = described(one, [group], version)
            assert (found["state"], found["type"]) == ("CompletingRebalance", "consumer"), found
        given = assignment(topic, [0])
        assert m.sync(1, {m.id: given}) == (0, given)
        (found,) = described(one, [group], 5)
        assert (found["state"], found["protocol"]) == ("Stable", "range")
        (member,) = found["members"]
        assert (member["id"], member["client"], member["assignment"]) == (m.id, "suite", given) and member["host"].startswith("/127.")
        assert member["metadata"] == subscription(topic)
        for states, kinds, there in (([], [], True), (["stable"], [], True), (["Empty"], [], False), ([], ["CLASSIC"], True), ([], ["share"], False),
                                     (["nonsense"], [], False)):
            w = Writer(True)
            w.array(states, w.string).array(kinds, w.string).tags()
            r = one.request(wire.LIST_GROUPS, 5, bytes(w.out))
            assert (r.i32(), r.i16()) == (0, 0)
            listed = {g[0]: g[1:] for g in r.array(lambda: (r.string(), r.string(), r.string(), r.string(), r.tags())[:4]) or []}
            assert (group in listed) == there, (states, kinds)
            if there:
                assert listed[group] == ("consumer", "Stable", "classic")
        assert delete_group(one, group) == {group: ERROR["NON_EMPTY_GROUP"]}
        assert m.commit(4) == 0
        w = Writer().string(group)
        w.array([topic], lambda n: w.string(n).array([0], w.i32))
        r = one.request(wire.OFFSET_DELETE, 0, bytes(w.out))
        assert (r.i16(), r.i32()) == (0, 0)
        assert r.array(lambda: (r.string(), r.array(lambda: (r.i32(), r.i16())))) == [(topic, [(0, ERROR["GROUP_SUBSCRIBED_TO_TOPIC"])])]
        assert m.leave() == 0
        (found,) = described(one, [group], 5)
        assert (found["state"], found["members"]) == ("Empty", [])
        r = one.request(wire.OFFSET_DELETE, 0, bytes(w.out))
        assert (r.i16(), r.i32()) == (0, 0)
        assert r.array(lambda: (r.string(), r.array(lambda: (r.i32(), r.i16())))) == [(topic, [(0, 0)])]
        assert offsets(one, group, {topic: [0]})[topic, 0][0] == -1
        nowhere = t.name("nowhere")
        assert delete_group(one, group, nowhere) == {group: 0, nowhere: ERROR["GROUP_ID_NOT_FOUND"]}
        assert described(one, [group], 5)[0]["state"] == "Dead"


@test("groups: what a coordinator refuses, with Kafka's errors (KAFKA.md 4.1 and 9)")
def refusals(t: Context) -> None:
    topic, group = t.topic(), t.name("g")
    with t.connect() as one:
        ready(t, one, group)
        m = Member(one, group, topic)
        assert m.join(3, session_ms=5999)["error"] == ERROR["INVALID_SESSION_TIMEOUT"]
        assert m.join(3, session_ms=1_800_001)["error"] == ERROR["INVALID_SESSION_TIMEOUT"]
        assert m.join(3, member="somebody")["error"] == ERROR["UNKNOWN_MEMBER_ID"]
        assert m.join(3, protocols=[])["error"] == ERROR["INCONSISTENT_GROUP_PROTOCOL"]
        assert m.join(3, protocol="")["error"] == ERROR["INCONSISTENT_GROUP_PROTOCOL"]
        nameless = Member(one, "", topic)
        assert nameless.join(3)["error"] == ERROR["INVALID_GROUP_ID"]
        assert nameless.heartbeat(member="x", generation=1) == ERROR["INVALID_GROUP_ID"]
        assert nameless.commit(1) == 0, "a commit to the group without a name works"
        fresh = Member(one, t.name("fresh"), topic)
        assert fresh.commit(5, generation=5, member="x") == ERROR["ILLEGAL_GENERATION"]
        assert fresh.commit(5, member="x") == 0, "a member id with generation -1 is a simple consumer's"
        assert m.join(3)["error"] == 0
        assert m.sync(1, generation=9)[0] == ERROR["ILLEGAL_GENERATION"]
        assert m.heartbeat(generation=9) == ERROR["ILLEGAL_GENERATION"]
        assert m.sync(1, {m.id: b""})[0] == 0
        assert m.commit(5, generation=9) == ERROR["ILLEGAL_GENERATION"]
        assert m.commit(5, member="x") == ERROR["UNKNOWN_MEMBER_ID"]
        assert m.commit(5, generation=-1, member="") == ERROR["UNKNOWN_MEMBER_ID"], "a group in use takes no stranger's commit"
        with t.connect() as two:
            other = Member(two, group, topic)
            assert other.join(3, protocols=["nonsense"])["error"] == ERROR["INCONSISTENT_GROUP_PROTOCOL"]
            assert other.join(3, protocol="connect")["error"] == ERROR["INCONSISTENT_GROUP_PROTOCOL"]
        assert m.leave() == 0 and m.leave() == ERROR["UNKNOWN_MEMBER_ID"]


@test("groups: two members: REBALANCE_IN_PROGRESS, rejoin, leader's view, leaving")
def two_members(t: Context) -> None:
    topic, group = t.topic(2), t.name("two")
    with t.connect() as a, t.connect() as b:
        ready(t, a, group)
        first, second = Member(a, group, topic), Member(b, group, topic)
        assert first.join(3)["error"] == 0 and first.sync(1, {first.id: b"both"}) == (0, b"both")
        waiting = second.send_join(3)
        eventually("the first member hears of the rebalance", lambda: first.heartbeat() == ERROR["REBALANCE_IN_PROGRESS"])
        found = first.join(3)
        joined = second.joined(3, waiting)
        assert found["generation"] == joined["generation"] == 2 and found["leader"] == joined["leader"] == first.id
        assert sorted(found["members"]) == sorted([first.id, second.id]) and joined["members"] == [], "only the leader gets the members"
        number = second.one.send(wire.SYNC_GROUP, 1, bytes(Writer().string(group).i32(2).string(second.id).i32(0).out))
        assert first.sync(1, {first.id: b"zero", second.id: b"one"}) == (0, b"zero")
        r = second.one.answer(wire.SYNC_GROUP, 1, number)
        assert (r.i32(), r.i16(), r.bytes()) == (0, 0, b"one")
        assert second.heartbeat() == 0
        assert first.leave() == 0
        eventually("the second member hears of it", lambda: second.heartbeat() == ERROR["REBALANCE_IN_PROGRESS"])
        found = second.join(3)
        assert found["generation"] == 3 and found["leader"] == second.id and found["members"] == [second.id]


@test("groups: static members: the same instance takes over, the old one is fenced, no rebalance (KIP-345)")
def static_members(t: Context) -> None:
    topic, group = t.topic(), t.name("static")
    with t.connect() as a, t.connect() as b:
        ready(t, a, group)
        first = Member(a, group, topic, "one")
        assert first.join(5)["error"] == 0 and first.sync(3, {first.id: b"mine"}) == (0, b"mine")
        again = Member(b, group, topic, "one")
        found = again.join(5)
        assert found["error"] == 0 and found["generation"] == 1 and again.id != first.id, found
        assert again.sync(3) == (0, b"mine"), "the assignment is the same"
        assert first.heartbeat(3) == ERROR["FENCED_INSTANCE_ID"]
        assert first.commit(1, version=7) == ERROR["FENCED_INSTANCE_ID"]
        assert again.heartbeat(3) == 0 and again.heartbeat(2) == 0, "without the instance id too"
        w = Writer().string(group)
        w.array([0], lambda _: w.string("").string("one"))
        r = b.request(wire.LEAVE_GROUP, 3, bytes(w.out))
        assert (r.i32(), r.i16()) == (0, 0)
        assert r.array(lambda: (r.string(), r.string(), r.i16())) == [("", "one", 0)]
        assert described(a, [group], 5)[0]["state"] == "Empty"


@test("groups: a member that falls silent is dropped after its session timeout", seconds=60)
def silent_member(t: Context) -> None:
    topic, group = t.topic(), t.name("silent")
    with t.connect() as a:
        ready(t, a, group)
        m = Member(a, group, topic)
        assert m.join(3, session_ms=6000)["error"] == 0 and m.sync(1, {m.id: b""})[0] == 0
        began = time.monotonic()
        eventually("the group is empty", lambda: described(a, [group], 5)[0]["state"] == "Empty", 20, 0.2)
        assert 4 < time.monotonic() - began < 15
        assert m.heartbeat() == ERROR["UNKNOWN_MEMBER_ID"]


@test("groups: offsets of a deleted topic go with it")
def deleted_topic(t: Context) -> None:
    topic, kept, group = t.topic(), t.topic(), t.name("g")
    with t.connect() as one:
        ready(t, one, group)
        m = Member(one, group, topic)
        assert m.commit(3) == 0 and m.commit(4, topic=kept) == 0
        assert one.delete_topic(topic) == 0
        eventually("only the other topic's offset is left", lambda: set(offsets(one, group, None)) == {(kept, 0)})


@test("groups: __consumer_offsets holds Kafka's records: keys, versions, tombstones (KAFKA.md 4.5)")
def offsets_topic(t: Context) -> None:
    topic, group = t.topic(), t.name("records")
    with t.connect() as one:
        ready(t, one, group)
        assert one.produce(topic, batch([(None, b"x")]))["error"] == 0
        m = Member(one, group, topic)
        assert m.commit(1, "note", version=7, epoch=0) == 0
        count = len(one.metadata(["__consumer_offsets"])["topics"][0]["partitions"])
        hashed = 0
        for byte in group.encode():
            hashed = hashed * 31 + byte & 0xFFFFFFFF
        hashed = hashed - 2**32 if hashed >= 2**31 else hashed
        partition = (0 if hashed == -(2**31) else abs(hashed)) % count
        found: Dict[bytes, Optional[bytes]] = {}
        for stored in one.stored("__consumer_offsets", partition):
            if stored.codec == 0 and not stored.attributes & 0x20:
                found |= dict(plain_records(stored))
        key = struct.pack(">h", 1) + bytes(Writer().string(group).string(topic).i32(0).out)
        assert key in found, f"no OffsetCommit record for the group in partition {partition}"
        value = found[key] or b""
        # Version 3 up to Kafka 4.1; version 4 (flexible, with the topic id in a tag) since: readers know both.
        note = {3: b"\x00\x04note", 4: b"\x05note"}[struct.unpack(">h", value[:2])[0]]
        assert value[2:14] == struct.pack(">qi", 1, 0) and value[14:].startswith(note), value.hex()


def plain_records(stored: wire.Batch) -> list:
    r, out = wire.Reader(stored.raw[61:]), []
    for _ in range(stored.count):
        r.varint(), r.i8(), r.varint(), r.varint()
        fields = []
        for _ in range(2):
            length = r.varint()
            fields.append(None if length < 0 else r.take(length))
        for _ in range(r.varint()):
            r.take(r.varint()), r.take(max(r.varint(), 0))
        out.append(tuple(fields))
    return out
