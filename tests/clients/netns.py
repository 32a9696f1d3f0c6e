"""Nodes in network namespaces of their own, so that links between them can be cut for real, each direction by itself.

A user namespace makes root unnecessary. A cut gives the sender a neighbour's address that nobody has: packets leave and
arrive nowhere, the kernel of neither side hears of it, and what was already connected stays connected."""
import os
import subprocess
import sys
import tempfile
from typing import Dict, List, Optional, Tuple

from cluster import Cluster
from harness import Broker

INSIDE = "SKERRY_NEMESIS_NAMESPACE"
NOWHERE = "02:00:00:00:00:ff"


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def impossible() -> Optional[str]:
    """Why this machine cannot do it; `None` where it can."""
    probe = ("ip link set lo up && ip link add br0 type bridge && ip link add v0 type veth peer name e0 && ip link set v0 master br0"
             " && mkdir -p \"$1\" && mount -t tmpfs -o size=1m none \"$1\"")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            done = subprocess.run(["unshare", "-Urnm", "sh", "-ec", probe, "sh", scratch], capture_output=True, text=True, timeout=20, check=False)
        except OSError as e:
            return str(e)
    return done.stderr.strip() or f"status {done.returncode}" if done.returncode else None


def enter() -> None:
    """Runs this program again where it is root of namespaces of its own."""
    if INSIDE not in os.environ:
        os.environ[INSIDE] = "1"
        os.execvp("unshare", ["unshare", "-Urnm", sys.executable, os.path.realpath(sys.argv[0]), *sys.argv[1:]])


class NetNode(Broker):
    """A node in the namespace that a sleeping process holds open over the node's lives."""

    def __init__(self, number: int, directory: str, binary: str, settings: Dict[str, str]):
        super().__init__(directory, binary, settings)
        self.number, self.host = number, f"10.77.0.{number}"
        self.port, self.cluster_port, self.admin_port = 9092, 9093, 9644
        self.holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"], stdin=subprocess.DEVNULL)
        self.mac = f"02:00:00:00:00:{number:02x}"

    def inside(self, *words: str) -> List[str]:
        return ["nsenter", "-t", str(self.holder.pid), "-n", *words]

    def command(self) -> List[str]:
        return self.inside(*super().command())

    def wire_up(self) -> None:
        far = f"e{self.number}"
        run("ip", "link", "add", f"v{self.number}", "type", "veth", "peer", "name", far)
        run("ip", "link", "set", far, "netns", str(self.holder.pid))
        run("ip", "link", "set", f"v{self.number}", "master", "br0", "up")
        for words in (("link", "set", "lo", "up"), ("link", "set", far, "address", self.mac), ("addr", "add", f"{self.host}/24", "dev", far),
                      ("link", "set", far, "up")):
            run(*self.inside("ip", *words))


class NetCluster(Cluster):
    """A cluster whose links can be cut. Clients run where this program runs, and reach every node unless they are cut off too."""

    def __init__(self, directory: str, binary: str, nodes: int, settings: Optional[Dict[str, str]] = None, small_disk: Optional[Tuple[int, int]] = None):
        super().__init__(directory, binary, nodes, None, settings)
        settings = self.nodes[1].settings
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "br0", "type", "bridge")
        run("ip", "addr", "add", "10.77.0.254/24", "dev", "br0")
        run("ip", "link", "set", "br0", "up")
        made = {n: NetNode(n, node.directory, binary, settings) for n, node in self.nodes.items()}
        voters = [n for n in made if f"{n}@" in f",{self.voters}".replace(",", " ")]
        self.voters = ",".join(f"{n}@{made[n].host}:{made[n].cluster_port}" for n in voters)
        for n, node in made.items():
            for _ in range(100):  # until `unshare` has made its namespace
                if os.readlink(f"/proc/{node.holder.pid}/ns/net") != os.readlink("/proc/self/ns/net"):
                    break
                subprocess.run(["sleep", "0.02"], check=False)
            node.wire_up()
            node.flags = ["--node-id", str(n), "--voters", self.voters, "--rack", f"rack-{n}"]
        self.nodes = dict(made)
        if small_disk:
            number, megabytes = small_disk
            os.makedirs(made[number].data, exist_ok=True)
            run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", made[number].data)
        for a in made:
            for b in made:
                if a != b:
                    self.mend(a, b)

    def _neighbour(self, a: int, b: int, mac: str) -> None:
        node, other = self.nodes[a], self.nodes[b]
        run(*node.inside("ip", "neigh", "replace", other.host, "lladdr", mac, "nud", "permanent", "dev", f"e{a}"))  # type: ignore[attr-defined]

    def cut(self, a: int, b: int) -> None:
        """What `a` sends to `b` arrives nowhere."""
        self._neighbour(a, b, NOWHERE)

    def mend(self, a: int, b: int) -> None:
        self._neighbour(a, b, self.nodes[b].mac)  # type: ignore[attr-defined]

    def mend_all(self) -> None:
        for a in self.nodes:
            for b in self.nodes:
                if a != b:
                    self.mend(a, b)

    def slow(self, node: int, kilobits: int) -> None:
        """All that the node sends goes through a thin pipe."""
        run(*self.nodes[node].inside("tc", "qdisc", "replace", "dev", f"e{node}", "root", "tbf", "rate", f"{kilobits}kbit",  # type: ignore[attr-defined]
                                     "burst", "8kb", "latency", "300ms"))

    def fast(self, node: int) -> None:
        run(*self.nodes[node].inside("tc", "qdisc", "del", "dev", f"e{node}", "root"))  # type: ignore[attr-defined]

    def close(self) -> None:
        for node in self.nodes.values():
            node.holder.kill()  # type: ignore[attr-defined]
            node.holder.wait()  # type: ignore[attr-defined]
