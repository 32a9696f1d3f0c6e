"""What one client writes, every other one reads."""
import time
from typing import List, Tuple

from adapters import ALL, Adapter
from harness import CODECS, Context, test
from records import Record, compare, generate

COUNT = 300  # for each compression


def write_all(t: Context, client: Adapter) -> Tuple[str, List[Record]]:
    """One topic, written with every compression one after the other."""
    topic, wrote = t.topic(2, f"cross-{client.name}"), []
    for codec in CODECS:
        records = [client.carry(r) for r in generate(f"cross-{client.name}-{codec}", COUNT, 2, int(time.time() * 1000), client.text_only)]
        offsets = client.produce(t, topic, records, codec)
        wrote += [r._replace(offset=o) for r, o in zip(records, offsets)]
    return topic, wrote


def register(writer: Adapter) -> None:
    @test(f"cross: every client reads what {writer.name} wrote with every compression", needs=(writer.name,), seconds=150)
    def _(t: Context) -> None:
        topic, wrote = write_all(t, writer)
        absent = []
        for reader in ALL:
            if t.suite.client_status(reader.name) != "ok":
                absent.append(reader.name)
                continue
            began = time.monotonic()
            read = reader.consume(t, topic, len(wrote), t.name(f"group-{reader.name}"))
            # A tool that shows headers as text has done so already.
            shown = read if reader.name == "kcat" else [reader.as_read(r) for r in read]
            try:
                compare([reader.as_read(r) for r in wrote], shown,
                        ignore=() if writer.own_timestamps else ("timestamp",))
            except AssertionError as e:
                raise AssertionError(f"{reader.name}: {e}") from None
            print(f"{reader.name} read {len(read)} in {time.monotonic() - began:.1f} s", flush=True)
        if absent:
            print(f"not installed, not asked: {absent}")


for _client in ALL:
    register(_client)
