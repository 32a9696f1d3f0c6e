"""What every test of the suite stands on: brokers that it starts and kills, the tool JVM, and the runner that gives each
test a process and a deadline of its own."""
import contextlib
import faulthandler
import fcntl
import fnmatch
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.error
import urllib.request
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import wire

CACHE = os.environ.get("SKERRY_CLIENTS") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "skerry-clients")
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
OPTIONAL = ("confluent_kafka", "kafka", "aiokafka", "cramjam", "lz4", "zstandard", "snappy", "crc32c")
HEAP = os.environ.get("SUITE_KAFKA_HEAP", "-Xms512M -Xmx512M")


HELD_PORTS: Dict[int, int] = {}  # By port, the open file whose lock says that it is ours, until this process ends.


def hold_port(port: int) -> bool:
    """Takes a port for the life of this process. That nobody listens on it now is not enough: a node is started, or started
    again, long after its port was drawn, and the tests beside this one draw from the same range."""
    directory = os.path.join(tempfile.gettempdir(), f"skerry-test-ports-{os.getuid()}")
    os.makedirs(directory, exist_ok=True)
    file = os.open(os.path.join(directory, str(port)), os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with socket.socket() as one:
            one.bind(("127.0.0.1", port))
    except OSError:
        os.close(file)
        return False
    HELD_PORTS[port] = file
    return True


def free_ports(count: int) -> List[int]:
    """Ports below the range that the system hands to outgoing connections: a broker must find its port again after a kill."""
    found: List[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(15_000, 32_000)
        if hold_port(port):
            found.append(port)
    return found


def plain_environment() -> Dict[str, str]:
    """Without the suite's own variables: a node takes SKERRY_… for its settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SKERRY_")}


class Skip(Exception):
    """The test does not apply here; the reason is reported."""


class Broker:
    """One node under test. `binary` is ours; without it, Apache Kafka from the jars that setup fetched. `flags` are those of
    `skerry start`, such as --node-id and --voters; `cluster.Cluster` starts several nodes."""

    def __init__(self, directory: str, binary: Optional[str], settings: Optional[Dict[str, str]] = None, flags: Sequence[str] = ()):
        self.directory, self.binary, self.flags = directory, binary, list(flags)
        self.data = os.path.join(directory, "data")
        self.host = "127.0.0.1"
        self.port, self.cluster_port, self.admin_port = free_ports(3)
        self.settings = {"group.initial.rebalance.delay.ms": "0", **(settings or {})}
        self.process: Optional[subprocess.Popen] = None
        self.stopping = False
        self.log_path = os.path.join(directory, "broker.log")
        os.makedirs(directory, exist_ok=True)

    @property
    def bootstrap(self) -> str:
        return f"{self.host}:{self.port}"

    @property
    def log_directory(self) -> str:
        """Where the topic-partition folders are."""
        for root, names, _ in os.walk(self.data):
            if any(n.startswith("__consumer_offsets-") or os.path.exists(os.path.join(root, n, "00000000000000000000.log")) for n in names):
                return root
        return self.data

    def command(self) -> List[str]:
        if self.binary:
            sets = [word for key, value in self.settings.items() for word in ("--set", f"{key}={value}")]
            return [os.path.abspath(self.binary), "start", "--data-dir", self.data, "--kafka-listen", self.bootstrap,
                    "--cluster-listen", f"{self.host}:{self.cluster_port}", "--admin-listen", f"{self.host}:{self.admin_port}", *self.flags, *sets]
        config = os.path.join(self.directory, "server.properties")
        return ["java", *HEAP.split(), "-XX:+UseG1GC", "-cp", f"{CACHE}/kafka/*",
                f"-Dlog4j2.configurationFile={CACHE}/log4j2.properties", "kafka.Kafka", config]

    def _format(self) -> None:
        """Kafka wants its directory formatted first."""
        config = os.path.join(self.directory, "server.properties")
        if self.binary or os.path.exists(config):
            return
        lines = {
            "process.roles": "broker,controller", "node.id": "1", "controller.quorum.voters": f"1@{self.host}:{self.cluster_port}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{self.host}:{self.cluster_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}", "controller.listener.names": "CONTROLLER", "log.dirs": self.data,
            "offsets.topic.replication.factor": "1", "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1", "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1", "offsets.topic.num.partitions": "10", **self.settings}
        with open(config, "w", encoding="utf-8") as file:
            file.writelines(f"{key}={value}\n" for key, value in lines.items())
        subprocess.run(["java", "-cp", f"{CACHE}/kafka/*", f"-Dlog4j2.configurationFile={CACHE}/log4j2.properties",
                        "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", config],
                       check=True, capture_output=True, timeout=120)

    def start(self, wait_seconds: float = 60) -> "Broker":
        self.spawn()
        self.wait_ready(wait_seconds)
        return self

    def spawn(self) -> None:
        """Starts the process and does not wait for it: a node of several may need the others first."""
        self._format()
        self.stopping = False
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=plain_environment())

    def wait_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while True:
            if self.process and self.process.poll() is not None:
                raise AssertionError(f"the broker ended with status {self.process.returncode}:\n{self.log_tail()}")
            try:
                with wire.Connection(self.host, self.port, timeout=2) as one:
                    if one.metadata([])["brokers"]:
                        return
            except (OSError, wire.Closed):
                pass
            if time.monotonic() > deadline:
                raise AssertionError(f"the broker did not accept clients within {seconds} s:\n{self.log_tail()}")
            time.sleep(0.02)

    def unwell(self) -> List[str]:
        """The reasons that /health/ready gives; empty where the node is ready, or does not answer."""
        try:
            with urllib.request.urlopen(f"http://{self.host}:{self.admin_port}/health/ready", timeout=5):
                return []
        except urllib.error.HTTPError as answer:
            return json.load(answer)["reasons"]
        except OSError:
            return []

    def log_tail(self) -> str:
        with contextlib.suppress(OSError), open(self.log_path, encoding="utf-8", errors="replace") as log:
            return log.read()[-3000:]
        return ""

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def kill(self) -> None:
        """kill -9, and the end of the process."""
        assert self.process
        self.process.kill()
        self.process.wait(30)

    @property
    def alive(self) -> bool:
        return bool(self.process) and self.process.poll() is None  # type: ignore[union-attr]

    def pause(self) -> None:
        """SIGSTOP: it neither answers nor closes anything."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self) -> None:
        """kill -TERM, once: a second one ends a node at once."""
        if self.alive and not self.stopping:
            self.stopping = True
            self.resume()
            self.process.terminate()  # type: ignore[union-attr]

    def stop(self) -> int:
        """kill -TERM, and the end of the process; the exit status."""
        if not self.process:
            return 0
        if self.process.poll() is None:
            self.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.process.returncode



def stop_all(brokers: Sequence[Broker]) -> None:
    """Ends the nodes that still run, and fails where one does not end as it should. Of Kafka's own node nothing is asked."""
    running = [broker for broker in brokers if broker.alive]
    # All at once: nodes of a cluster that stop one after the other wait for a majority that is gone.
    for broker in running:
        broker.terminate()
    statuses = [(broker, broker.stop()) for broker in running]
    for broker, status in statuses:
        assert status in (0, 143) or not broker.binary, f"a node ended with status {status} after SIGTERM:\n{broker.log_tail()}"


class ToolFailed(AssertionError):
    def __init__(self, status: int, output: str):
        super().__init__(f"tool ended with status {status}: {output[-3000:]}")
        self.status, self.output = status, output


class ToolHost:
    """The client's side of java/ToolHost.java."""

    TOOLS = "org.apache.kafka.tools."

    def __init__(self, port: int):
        self.port = port

    @staticmethod
    def spawn(log: str) -> "tuple[subprocess.Popen, ToolHost]":
        with open(log, "ab") as errors:
            process = subprocess.Popen(
                ["java", "-Xmx512M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{CACHE}/classes:{CACHE}/kafka/*",
                 f"-Dlog4j2.configurationFile={CACHE}/log4j2.properties", "ToolHost"],
                stdout=subprocess.PIPE, stderr=errors, stdin=subprocess.DEVNULL)
        assert process.stdout
        line = process.stdout.readline().decode()
        if not line.startswith("PORT "):
            raise RuntimeError(f"the tool JVM did not start, see {log}")
        return process, ToolHost(int(line.split()[1]))

    def call(self, *words: str, seconds: float = 90) -> str:
        encoded = [str(word).encode() for word in words]
        with socket.create_connection(("127.0.0.1", self.port), 5) as peer:
            peer.settimeout(seconds)
            peer.sendall(struct.pack(">i", len(encoded)) + b"".join(struct.pack(">i", len(w)) + w for w in encoded))
            with peer.makefile("rb") as answer:
                status, length = struct.unpack(">ii", answer.read(8))
                text = answer.read(length).decode()
        if status:
            raise ToolFailed(status, text)
        return text

    def tool(self, name: str, *arguments: str, stdin: bytes = b"", fails: bool = False, seconds: float = 90) -> str:
        """Runs one of Kafka's tools; `name` without a package is one of org.apache.kafka.tools. The answer is what it printed."""
        with tempfile.TemporaryDirectory() as scratch:
            out, feed = os.path.join(scratch, "out"), ""
            if stdin:
                feed = os.path.join(scratch, "in")
                with open(feed, "wb") as file:
                    file.write(stdin)
            status, message = 0, ""
            try:
                message = self.call("tool", name if name.startswith(("kafka.", "org.")) else self.TOOLS + name, feed, out, *arguments, seconds=seconds)
            except ToolFailed as e:
                status, message = e.status, e.output
            with open(out, encoding="utf-8", errors="replace") as file:
                printed = file.read()
            with open(f"{out}.err", encoding="utf-8", errors="replace") as file:
                complained = file.read()
        print(f"$ {name} {' '.join(map(str, arguments))}\n{printed[-4000:]}\n{complained[-3000:]}{message[-2000:]}", flush=True)
        if bool(status) != fails:
            raise ToolFailed(status, printed + complained + message)
        return printed + (complained + message if fails else "")


def java(name: str, *arguments: str, seconds: float = 90, check: bool = True) -> str:
    """A tool in a JVM of its own: for those that hook into the end of the JVM, or need no broker."""
    done = subprocess.run(["java", "-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{CACHE}/kafka/*",
                           f"-Dlog4j2.configurationFile={CACHE}/log4j2.properties", name, *map(str, arguments)],
                          capture_output=True, text=True, timeout=seconds, check=False)
    print(f"$ java {name} {' '.join(map(str, arguments))}: status {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}", flush=True)
    if check and done.returncode:
        raise ToolFailed(done.returncode, done.stdout + done.stderr)
    return done.stdout


class Test(NamedTuple):
    name: str
    run: Callable[["Context"], None]
    needs: tuple
    own_broker: bool
    ours_only: bool
    long: bool
    last: bool
    seconds: int


TESTS: List[Test] = []


def test(name: str, needs: tuple = (), own_broker: bool = False, ours_only: bool = False, long: bool = False,
         last: bool = False, seconds: int = 90):
    """Registers a test. `needs`: clients. `own_broker`: it starts and kills nodes of its own. `ours_only`: Kafka itself
    falls over, hangs or answers UNKNOWN_SERVER_ERROR here, and the expectation is what Skerry promises instead. `last`:
    it looks at what all others left, when their node is stopped."""

    def register(run: Callable[["Context"], None]) -> Callable[["Context"], None]:
        TESTS.append(Test(name, run, tuple(needs), own_broker, ours_only, long, last, seconds))
        return run

    return register


class Context:
    """What a test gets."""

    def __init__(self, suite: "Suite", one: Test, directory: str):
        self.suite, self.test, self.directory = suite, one, directory
        self.reference, self.long = suite.reference, suite.long
        self.java: ToolHost = suite.tool_host  # type: ignore[assignment]
        self._brokers: List[Broker] = []
        if suite.bootstrap:
            host, port = suite.bootstrap.rsplit(":", 1)
            self.bootstrap, self.host, self.port = suite.bootstrap, host, int(port)
        os.makedirs(directory, exist_ok=True)

    def connect(self, **options: Any) -> wire.Connection:
        return wire.Connection(self.host, self.port, **options)

    def name(self, hint: str = "t") -> str:
        """A topic or group name that nobody used before."""
        return f"{hint}-{self.suite.run_id}-{os.getpid()}-{random.randrange(10**6)}"

    def topic(self, partitions: int = 1, hint: str = "t", **configs: str) -> str:
        name = self.name(hint)
        with self.connect() as one:
            error = one.create_topic(name, partitions, {k.replace("_", "."): str(v) for k, v in configs.items()})
            assert error == 0, f"CreateTopics {name}: error {error}"
            one.wait_leaders(name, partitions)
        return name

    def start_broker(self, **settings: str) -> Broker:
        broker = Broker(os.path.join(self.directory, f"node-{len(self._brokers)}"), self.suite.binary, settings)
        self._brokers.append(broker)
        return broker.start()

    def start_cluster(self, nodes: int = 3, voters: Optional[int] = None, **settings: str) -> "cluster.Cluster":
        """Real nodes 1 to `nodes`, healthy on return; the first `voters` of them vote (3, or all where there are fewer)."""
        several = cluster.Cluster(os.path.join(self.directory, f"cluster-{len(self._brokers)}"), self.suite.binary, nodes, voters, settings)
        self._brokers.extend(several.nodes.values())
        several.start()
        first = several.node(1)
        self.bootstrap, self.host, self.port = several.bootstrap, first.host, first.port
        return several

    def use(self, broker: Broker) -> Broker:
        self.bootstrap, self.host, self.port = broker.bootstrap, broker.host, broker.port
        return broker

    def skip(self, reason: str) -> None:
        raise Skip(reason)

    def close(self) -> None:
        stop_all(self._brokers)


def eventually(what: str, condition: Callable[[], Any], seconds: float = 20, every: float = 0.05) -> Any:
    """Waits for a condition, with a deadline."""
    deadline, last = time.monotonic() + seconds, None
    while True:
        try:
            last = condition()
            if last:
                return last
        except (AssertionError, OSError, wire.Closed) as e:
            last = e
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {what} (last: {last!r:.500})")
        time.sleep(every)


class Suite:
    def __init__(self, bootstrap: Optional[str], binary: Optional[str], reference: bool, long: bool, jobs: int, keep: str):
        self.bootstrap, self.binary, self.reference, self.long, self.jobs = bootstrap, binary, reference, long, jobs
        self.control = not bootstrap
        self.directory = keep
        self.run_id = f"{int(time.time()) % 10**7:x}"
        self.tool_host: Optional[ToolHost] = None
        self.broker: Optional[Broker] = None
        self._tool_process: Optional[subprocess.Popen] = None
        self.started = time.monotonic()

    def client_status(self, name: str) -> str:
        try:
            with open(os.path.join(CACHE, "status", name), encoding="utf-8") as file:
                return file.read().strip()
        except OSError:
            return "not set up: run tests/clients/setup"

    def _reason_to_skip(self, one: Test) -> Optional[str]:
        for client in one.needs:
            status = self.client_status(client)
            if status != "ok":
                return f"{client}: {status}"
        if one.own_broker and not self.control:
            return "needs a node that it may kill (--broker-bin)"
        if one.ours_only and self.reference:
            return "Apache Kafka itself falls over here"
        if one.long and not self.long:
            return "only with --long"
        return None

    def _child(self, one: Test, directory: str) -> None:
        os.setpgid(0, 0)
        log = os.open(os.path.join(directory, "log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        faulthandler.dump_traceback_later(max(one.seconds - 2, 1), exit=False)
        status, context = 1, None
        try:
            context = Context(self, one, directory)
            one.run(context)
            context.close()
            status = 0
        except (Skip, ModuleNotFoundError) as e:
            # A codec or client that pip could not install is a test that cannot run, and is reported as one.
            ours = isinstance(e, ModuleNotFoundError) and (e.name or "").split(".")[0] not in OPTIONAL
            with open(os.path.join(directory, "skipped"), "w", encoding="utf-8") as file:
                file.write(str(e))
            status = 1 if ours else 77
            traceback.print_exc()
        except BaseException:  # noqa: B902  (whatever it is, the log must show it)
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                if context:
                    context.close()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)  # client libraries leave threads behind that would hold up a normal exit

    def run(self, only: List[str]) -> int:
        chosen = [t for t in TESTS if not only or any(fnmatch.fnmatch(t.name, p) or p in t.name for p in only)]
        if not chosen:
            print(f"no test has {' or '.join(only)} in its name; --list shows all of them", file=sys.stderr)
            return 2
        counts = {"PASS": 0, "FAIL": 0, "SKIPPED": 0}
        failed: List[str] = []
        waiting: List[Test] = []

        def report(word: str, one: Test, seconds: float, note: str = "") -> None:
            counts[word] += 1
            print(f"{word:<8}{seconds:6.1f} s  {one.name}{'  (' + note + ')' if note else ''}", flush=True)

        for one in chosen:
            reason = self._reason_to_skip(one)
            if reason:
                report("SKIPPED", one, 0, reason)
            else:
                waiting.append(one)
        running: Dict[int, tuple] = {}
        try:
            self._prepare(waiting)
            waiting.sort(key=lambda one: one.last)
            while waiting or running:
                while waiting and len(running) < self.jobs and not (waiting[0].last and running):
                    one = waiting.pop(0)
                    if one.last and self.broker:
                        self._stop_shared(counts, failed)
                    directory = os.path.join(self.directory, "".join(c if c.isalnum() or c in "-." else "_" for c in one.name))
                    os.makedirs(directory, exist_ok=True)
                    sys.stdout.flush()
                    pid = os.fork()
                    if pid == 0:
                        self._child(one, directory)
                    running[pid] = (one, directory, time.monotonic())
                self._reap(running, report, failed)
        finally:
            for pid in running:
                with contextlib.suppress(OSError):
                    os.killpg(pid, signal.SIGKILL)
            if self._tool_process:
                self._tool_process.kill()
                self._tool_process.wait()
            self._stop_shared(counts, failed)
        print(f"{counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIPPED']} skipped in {time.monotonic() - self.started:.0f} s")
        if failed:
            print(f"logs of failures: {self.directory}")
            for name in failed:
                print(f"  {name}")
            return 1
        shutil.rmtree(self.directory, ignore_errors=True)
        return 0

    def _reap(self, running: Dict[int, tuple], report: Callable, failed: List[str]) -> None:
        time.sleep(0.02)
        for pid, (one, directory, began) in list(running.items()):
            ended, code = os.waitpid(pid, os.WNOHANG)
            seconds = time.monotonic() - began
            if not ended and seconds > one.seconds:
                os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                note = f"no end after {one.seconds} s"
            elif not ended:
                continue
            else:
                note = ""
                with contextlib.suppress(OSError):  # what it left running
                    os.killpg(pid, signal.SIGKILL)
            del running[pid]
            status = os.waitstatus_to_exitcode(code) if ended else 1
            if status == 0:
                report("PASS", one, seconds)
                shutil.rmtree(directory, ignore_errors=True)
            elif status == 77:
                with open(os.path.join(directory, "skipped"), encoding="utf-8") as file:
                    report("SKIPPED", one, seconds, file.read())
            else:
                if not note:
                    with open(os.path.join(directory, "log"), encoding="utf-8", errors="replace") as file:
                        lines = [line for line in file.read().splitlines() if line.strip()]
                    note = next((line for line in reversed(lines) if not line.startswith(" ")), "")[:200]
                report("FAIL", one, seconds, note)
                failed.append(f"{one.name}: {directory}/log")

    def _prepare(self, waiting: List[Test]) -> None:
        if any("java" in one.needs for one in waiting):
            self._tool_process, self.tool_host = ToolHost.spawn(os.path.join(self.directory, "tool-host.log"))
        if waiting and not self.bootstrap:
            self.broker = Broker(os.path.join(self.directory, "broker"), self.binary).start()
            self.bootstrap = self.broker.bootstrap
        if waiting:
            self._first_group()

    def _first_group(self) -> None:
        """The first group of all makes __consumer_offsets; tests should not wait for that, one after the other."""
        host, port = (self.bootstrap or "").rsplit(":", 1)
        group = f"first-{self.run_id}"

        def loaded() -> bool:
            with wire.Connection(host, int(port), timeout=5) as one:
                if one.request(wire.FIND_COORDINATOR, 0, bytes(wire.Writer().string(group).out)).i16():
                    return False
                beat = wire.Writer().string(group).i32(1).string("nobody")
                return one.request(wire.HEARTBEAT, 0, bytes(beat.out)).i16() == wire.ERROR["UNKNOWN_MEMBER_ID"]

        try:
            eventually("a loaded group coordinator", loaded)
        except AssertionError as e:
            print(f"no group coordinator, the tests will tell: {e}", flush=True)

    def _stop_shared(self, counts: Dict[str, int], failed: List[str]) -> None:
        """The node that most tests share has to end well too."""
        try:
            stop_all([self.broker] if self.broker else [])
        except AssertionError as e:
            counts["FAIL"] += 1
            failed.append(f"the node that the tests share: {self.broker.log_path if self.broker else ''}")
            print(f"FAIL     {e}", flush=True)


import cluster  # noqa: E402  (it needs what is above)


def new_directory() -> str:
    return tempfile.mkdtemp(prefix="skerry-clients-")
