"""Several real nodes on this machine, to be killed, stopped, paused and started again one by one.

    t.start_cluster(3)                        in a test (`harness.Context`); stopped with it
    Cluster(directory, binary, nodes=3)       elsewhere: `with Cluster(...) as cluster:`

    cluster.bootstrap                         all Kafka addresses, for a client
    cluster.node(2).kill() / .stop() / .pause() / .resume() / .start() / .spawn()
    cluster.controller()                      the node that leads the metadata quorum
    cluster.leader("topic", 0)                the node that leads a partition, as a living node tells it
    cluster.wait_healthy()                    every node is there, every partition has a leader and its full in-sync set

A node that was killed is started again with `spawn()`, which does not wait, or `start()`, which waits until it answers
Metadata. Each keeps its directory, ports and log file (`node(n).log_path`) over its lives.
"""
import os
import socket
import time
from typing import Any, Dict, List, Optional

import harness
import wire

Broker = harness.Broker


class Cluster:
    """Nodes 1 to `nodes`. The first `voters` of them make the metadata quorum (3, or all where there are fewer: a quorum has
    1, 3 or 5); the others are learners."""

    def __init__(self, directory: str, binary: str, nodes: int = 3, voters: Optional[int] = None, settings: Optional[Dict[str, str]] = None):
        voters = voters or (3 if nodes >= 3 else 1)
        settings = {"default.replication.factor": str(min(3, nodes)), **(settings or {})}
        self.nodes: Dict[int, Broker] = {n: Broker(os.path.join(directory, f"node-{n}"), binary, settings) for n in range(1, nodes + 1)}
        self.voters = ",".join(f"{n}@{node.host}:{node.cluster_port}" for n, node in self.nodes.items() if n <= voters)
        for n, node in self.nodes.items():
            node.flags = ["--node-id", str(n), "--voters", self.voters, "--rack", f"rack-{n}"]

    def __enter__(self) -> "Cluster":
        return self.start()

    def __exit__(self, *_: Any) -> None:
        self.stop()

    @property
    def bootstrap(self) -> str:
        return ",".join(node.bootstrap for node in self.nodes.values())

    def node(self, number: int) -> Broker:
        return self.nodes[number]

    def living(self) -> Dict[int, Broker]:
        return {n: node for n, node in self.nodes.items() if node.alive}

    def start(self, seconds: float = 60) -> "Cluster":
        """Starts every node that does not run, and waits until all is well."""
        for node in self.nodes.values():
            if not node.alive:
                node.spawn()
        for node in self.nodes.values():
            node.wait_ready(seconds)
        return self.wait_healthy(seconds)

    def stop(self) -> List[int]:
        """kill -TERM to all of them at once; the exit statuses."""
        for node in self.nodes.values():
            node.terminate()
        return [node.stop() for node in self.nodes.values()]

    def kill_all(self) -> None:
        """kill -9 of every node, as close together as a loop can."""
        for node in self.living().values():
            node.process.kill()  # type: ignore[union-attr]
        for node in self.nodes.values():
            if node.process:
                node.process.wait(30)

    def ask(self, request: Any, among: Optional[Dict[int, Broker]] = None) -> Any:
        """What `request(connection)` gives on the first node that answers it."""
        last: Optional[Exception] = None
        for node in (among or self.living()).values():
            try:
                with wire.Connection(node.host, node.port, timeout=2) as one:
                    return request(one)
            except (OSError, wire.Closed, ValueError) as e:
                last = e
        raise AssertionError(f"no node answers: {last!r}")

    def controller(self, seconds: float = 20) -> int:
        """The number of the node that leads the metadata quorum."""

        def known() -> int:
            told = self.ask(lambda one: one.describe_quorum())
            return told.get("leader", -1) if told["error"] == 0 else -1

        return harness.eventually("the quorum has a leader", lambda: max(known(), 0), seconds)

    def partition(self, topic: str, index: int) -> Dict[str, Any]:
        (found,) = self.ask(lambda one: one.metadata([topic], version=7))["topics"]
        return next(p for p in found["partitions"] if p["index"] == index)

    def leader(self, topic: str, index: int = 0, seconds: float = 20) -> int:
        """The number of the node that leads the partition; waits until one does."""
        return harness.eventually(f"{topic}-{index} has a leader", lambda: max(self.partition(topic, index)["leader"], 0), seconds)

    def sick(self) -> List[str]:
        """What is not well, as every node tells it; empty where all is well."""
        out = []
        for n, node in self.nodes.items():
            if not node.alive:
                out.append(f"node {n} does not run")
                continue
            try:
                with wire.Connection(node.host, node.port, timeout=2) as one:
                    told = one.metadata(None, version=7)
            except (OSError, wire.Closed, socket.timeout) as e:
                out.append(f"node {n} does not answer: {e!r}")
                continue
            missing = set(self.nodes) - {broker["id"] for broker in told["brokers"]}
            if missing:
                out.append(f"node {n} misses {sorted(missing)}")
            for topic in told["topics"]:
                for p in topic["partitions"]:
                    if p["leader"] < 0 or sorted(p["isr"]) != sorted(p["replicas"]):
                        out.append(f"node {n}: {topic['name']}-{p['index']} leader {p['leader']} replicas {p['replicas']} in sync {p['isr']}")
        return out

    def wait_healthy(self, seconds: float = 60) -> "Cluster":
        deadline = time.monotonic() + seconds
        while True:
            out = self.sick()
            if not out:
                return self
            if time.monotonic() > deadline:
                logs = "\n".join(f"node {n}: {node.log_tail()[-1500:]}" for n, node in self.nodes.items())
                raise AssertionError(f"not healthy after {seconds} s: {out[:10]}\n{logs}")
            time.sleep(0.05)
