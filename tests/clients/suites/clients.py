"""Each client writes and reads 10,000 records of mixed sizes with every compression, idempotent, in a group."""
import time

from adapters import ALL, Adapter, Kafkajs
from harness import CODECS, Context, test
from records import compare, digest, generate
from wire import Reader, Writer, OFFSET_FETCH

COUNT, PARTITIONS = 10_000, 3


def check_codec(t: Context, topic: str, codec: str) -> None:
    """Pitfall 1: a client that mistakes our versions sends uncompressed, and says nothing. Some clients leave a batch
    uncompressed when that is smaller, so not every batch must be compressed, but most are."""
    with t.connect() as one:
        stored = [b for p in range(PARTITIONS) for b in one.stored(topic, p)]
    assert all(b.crc_is_right for b in stored)
    used = sum(1 for b in stored if b.codec == CODECS.index(codec))
    assert used * 2 > len(stored), f"asked for {codec}, {used} of {len(stored)} batches have it: {sorted({b.codec for b in stored})}"
    assert {b.codec for b in stored} <= {0, CODECS.index(codec)}
    assert all(b.magic == 2 for b in stored)


def committed(t: Context, group: str, topic: str) -> dict:
    w = Writer().string(group)
    w.array([topic], lambda n: w.string(n).array(range(PARTITIONS), w.i32))
    with t.connect() as one:
        r: Reader = one.request(OFFSET_FETCH, 2, bytes(w.out))
    found = {}
    r.array(lambda: (r.string(), r.array(lambda: found.update({r.i32(): (r.i64(), r.string(), r.i16())[0]}))))
    return found


def write_and_read(t: Context, client: Adapter, codec: str) -> None:
    topic, group = t.topic(PARTITIONS, f"{client.name}-{codec}"), t.name("group")
    records = [client.carry(r) for r in generate(f"{client.name}-{codec}", COUNT, PARTITIONS, int(time.time() * 1000), client.text_only)]
    began = time.monotonic()
    offsets = client.produce(t, topic, records, codec)
    wrote = time.monotonic()
    acknowledged = [r._replace(offset=o) for r, o in zip(records, offsets)]
    assert len(offsets) == COUNT
    check_codec(t, topic, codec)
    checked = time.monotonic()
    read = client.consume(t, topic, COUNT, group)
    print(f"wrote in {wrote - began:.1f} s, checked in {checked - wrote:.1f} s, read in {time.monotonic() - checked:.1f} s, checksum {digest(read)}")
    compare([client.as_read(r) for r in acknowledged], [client.as_read(r) for r in read] if client.name != "kcat" else read,
            ignore=() if client.own_timestamps else ("timestamp",))
    ends = {p: sum(1 for r in records if r.partition == p) for p in range(PARTITIONS)}
    assert committed(t, group, topic) == ends, f"committed {committed(t, group, topic)}, the ends are {ends}"


def register(client: Adapter, codec: str) -> None:
    needs = (client.name,)

    @test(f"{client.name}: 10,000 records, {codec}, idempotent, in a group (pitfall 1)", needs=needs, seconds=100)
    def _(t: Context) -> None:
        write_and_read(t, client, codec)


for _client in ALL:
    for _codec in CODECS:
        register(_client, _codec)


@test("kafkajs: administration (topics, partitions, configs, offsets, groups)", needs=("kafkajs",))
def kafkajs_admin(t: Context) -> None:
    found = Kafkajs.drive(t, {"do": "admin", "topic": t.name("admin"), "group": t.name("admin-group")})
    assert found == {"partitions": 2, "retention": "12345678", "listed": True, "offsets": 3, "brokers": 1, "committed": "0",
                     "grouped": True, "described": "Empty"}, found
