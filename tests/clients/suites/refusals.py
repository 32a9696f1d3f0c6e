"""What a node refuses to start with: a clear message that says the way out, a status other than 0, nothing changed on disk."""
import hashlib
import os
import shutil
import socket
import subprocess
from typing import Dict, Optional, Sequence

from harness import Broker, Context, plain_environment, test
from wire import batch


def snapshot(root: str) -> Dict[str, str]:
    """Every file and folder with its mode, and a file's bytes."""
    out = {}
    for directory, names, files in os.walk(root):
        for name in names + files:
            path = os.path.join(directory, name)
            found = os.lstat(path)
            what = "folder"
            if name in files:
                with open(path, "rb") as file:
                    what = hashlib.sha256(file.read()).hexdigest()
            out[os.path.relpath(path, root)] = f"{found.st_mode:o} {what}"
    return out


def refused(command: Sequence[str], root: str, *words: str, user: Optional[int] = None, status: int = 1, **environment: str) -> str:
    """Starts a node that must refuse. `words` stand in its message; nothing below `root` changes."""
    before = snapshot(root)
    done = subprocess.run(list(command), capture_output=True, text=True, timeout=60, check=False, env={**plain_environment(), **environment}, user=user, cwd=root)
    print(f"$ {' '.join(command[1:])}\n{done.stderr}status {done.returncode}\n", flush=True)
    assert done.returncode == status, f"status {done.returncode}: {done.stderr}"
    for word in words:
        assert word in done.stderr, f"{word!r} is missing in: {done.stderr}"
    assert not done.stdout and "panicked" not in done.stderr
    after = snapshot(root)
    changed = {k for k in before.keys() | after.keys() if before.get(k) != after.get(k)}
    assert not changed, f"changed on disk: {sorted(changed)[:5]}"
    return done.stderr


def used(t: Context) -> Broker:
    """A node that has run and was stopped."""
    broker = t.use(t.start_broker())
    topic = t.topic()
    with t.connect() as one:
        assert one.produce(topic, batch([(b"k", b"v")]))["error"] == 0
    assert broker.stop() in (0, 143)
    return broker


def with_line(path: str, key: str, value: str) -> None:
    with open(path, encoding="utf-8") as file:
        lines = [f"{key}={value}\n" if line.startswith(f"{key}=") else line for line in file]
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(lines)


@test("refusals: wrong flags, wrong settings, wrong files", own_broker=True, ours_only=True)
def wrong_words(t: Context) -> None:
    root = os.path.join(t.directory, "empty")
    os.makedirs(root)
    assert t.suite.binary
    start = [os.path.abspath(t.suite.binary), "start", "--data-dir", os.path.join(root, "data")]
    refused([*start, "--no-such-flag"], root, "--no-such-flag", "--help", status=2)
    refused([*start, "--node-id", "me"], root, "--node-id", "a whole number", "explain")
    refused([*start, "--set", "log.retention.hour=1"], root, "log.retention.hour", "log.retention.hours")
    refused([*start, "--set", "num.partitions=0"], root, "num.partitions", "at least 1")
    refused([*start, "--memory", "1MiB"], root, "memory", "16MiB")
    refused([*start, "--kafka-listen", "localhost"], root, "listeners", "HOST:PORT")
    refused([*start, "--kafka-listen", "203.0.113.7:9092"], root, "--kafka-listen", "not this machine's", "nothing on disk was changed")
    refused([*start, "--config", os.path.join(root, "nowhere.toml")], root, "nowhere.toml", "no such file")
    for name, text, words in (("broken.toml", "node.id = = 1\n", ("broken.toml",)), ("unknown.toml", "node.idd = 1\n", ("unknown.toml", "node.id")),
                              ("binary.toml", b"\xff\xfe\x00", ("binary.toml", "UTF-8"))):
        with open(os.path.join(root, name), "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)
        refused([*start, "--config", name], root, *words)
    refused(start, root, "SKERRY_NUM_PARTITIONS", SKERRY_NUM_PARTITIONS="many")
    with open(os.path.join(root, "file"), "wb") as file:
        file.write(b"not a directory")
    refused([*start[:-1], os.path.join(root, "file")], root, "file", "--data-dir")
    refused([*start[:-1], os.path.join(root, "file", "below")], root, "file", "--data-dir")


@test("refusals: a data directory in use, another node's, a newer version's, damaged, without its metadata", own_broker=True, ours_only=True)
def wrong_directory(t: Context) -> None:
    broker = used(t)
    command, data = broker.command(), broker.data
    properties = os.path.join(data, "meta.properties")
    broker.start()
    other = Broker(os.path.join(t.directory, "other"), t.suite.binary)
    other.data = data
    # The directory of a running node changes by itself: only the words count here.
    done = subprocess.run(other.command(), capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "in use by another process" in done.stderr and "--data-dir" in done.stderr, done.stderr
    assert broker.stop() in (0, 143)
    refused([*command, "--node-id", "7"], data, "belongs to node 1; this is node 7", "--node-id 1", "nothing on disk was changed")
    for key, value, words in (("version", "99", ("version 99", "newer version of skerry")), ("version", "x", ("meta.properties is damaged",)),
                              ("cluster.id", "?", ("meta.properties is damaged", "backup"))):
        whole = open(properties, "rb").read()
        with_line(properties, key, value)
        refused(command, data, *words, "nothing on disk was changed")
        with open(properties, "wb") as file:
            file.write(whole)
    raft = os.path.join(data, "metadata")
    shutil.move(raft, f"{raft}-away")
    refused(command, data, "has lost its folder `metadata`", "backup", "nothing on disk was changed")
    shutil.move(f"{raft}-away", raft)
    identity = os.path.join(raft, "identity")
    whole = open(identity, "rb").read()
    with open(identity, "wb") as file:
        file.write(b"\x00" * len(whole))
    refused(command, data, "identity", "backup", "nothing on disk was changed")
    with open(identity, "wb") as file:
        file.write(whole)
    broker.start()


@test("refusals: a damaged segment takes its partition offline and is left as it is; the node serves the others", own_broker=True, ours_only=True)
def damaged_segment(t: Context) -> None:
    broker = t.use(t.start_broker())
    hurt, well = t.topic(), t.topic()
    with t.connect() as one:
        for topic in (hurt, well):
            for _ in range(3):
                assert one.produce(topic, batch([(b"k", b"v" * 100)]))["error"] == 0
    assert broker.stop() in (0, 143)
    segment = os.path.join(broker.log_directory, f"{hurt}-0", "00000000000000000000.log")
    os.remove(os.path.join(broker.log_directory, ".kafka_cleanshutdown"))
    with open(segment, "r+b") as file:
        file.seek(100)
        file.write(b"\xff")
    before = open(segment, "rb").read()
    broker.start()
    with t.connect() as one:
        one.wait_leaders(well, 1)
        assert one.produce(well, batch([(b"k", b"v")]))["error"] == 0
        assert one.produce(hurt, batch([(b"k", b"v")]))["error"] != 0
    assert open(segment, "rb").read() == before, "damage below what was synced is never cut away"
    assert hurt in broker.log_tail()


@test("refusals: a data directory that may not be written to, and one on a read-only file system", own_broker=True, ours_only=True)
def read_only(t: Context) -> None:
    broker = used(t)
    command, data = broker.command(), broker.data
    if os.geteuid() != 0:
        t.skip("only root can be somebody else")
    nobody = 65534
    # The checkout may be out of somebody else's reach.
    command[0] = shutil.copy(command[0], os.path.join(t.directory, "skerry"))
    os.chmod(command[0], 0o755)
    # Everything on the way must be open to somebody else, the data alone must not.
    way = t.directory
    while way not in ("/", "/tmp"):
        os.chmod(way, 0o755)
        way = os.path.dirname(way)
    for directory, _, files in os.walk(data):
        os.chmod(directory, 0o755)
        for name in files:
            os.chmod(os.path.join(directory, name), 0o644)
    refused(command, data, "may not write", "--data-dir", user=nobody)
    fresh = os.path.join(t.directory, "fresh")
    os.makedirs(fresh)
    os.chmod(fresh, 0o755)
    at = command.index("--data-dir") + 1
    refused([*command[:at], os.path.join(fresh, "data"), *command[at + 1 :]], fresh, "may not write", "--data-dir", user=nobody)
    if subprocess.run(["mount", "--bind", data, data], check=False).returncode:
        t.skip("cannot mount")
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", data], check=True)
        refused(command, data, "read-only", "--data-dir")
    finally:
        subprocess.run(["umount", "--lazy", data], check=False)
    broker.start()


@test("refusals: a port in use leaves no trace on disk, whichever it is", own_broker=True, ours_only=True)
def port_in_use(t: Context) -> None:
    root = os.path.join(t.directory, "empty")
    os.makedirs(root)
    for flag in ("--kafka-listen", "--cluster-listen", "--admin-listen"):
        broker = Broker(os.path.join(t.directory, "node"), t.suite.binary)
        broker.data = os.path.join(root, "data")
        command = broker.command()
        with socket.socket() as taken:
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            address = command[command.index(flag) + 1]
            taken.bind(("127.0.0.1", int(address.split(":")[1])))
            taken.listen()
            refused(command, root, address, "is in use", f"{flag} HOST:PORT", "nothing on disk was changed")
