"""What goes wrong: each fault strikes a running cluster and is healed again. Chosen and timed by a seeded generator."""
import os
import random
import threading
from typing import Any, Callable, Dict, List, NamedTuple


class Fault(NamedTuple):
    name: str
    needs_links: bool
    needs_disk: bool
    run: Callable[["Scene"], None]


class Scene:
    """What a fault works on."""

    def __init__(self, cluster: Any, topic: str, rng: random.Random, seconds: "tuple[float, float]", small_disk: int = 0):
        self.cluster, self.topic, self.rng, self.seconds, self.small_disk = cluster, topic, rng, seconds, small_disk
        self.stopping = threading.Event()
        self.told = ""

    def wait(self, shortest: float = 0.0) -> None:
        """As long as the fault lasts."""
        self.stopping.wait(max(shortest, self.rng.uniform(*self.seconds)))

    def leader(self) -> int:
        return self.cluster.leader(self.topic, 0)

    def others(self, *but: int) -> List[int]:
        return [n for n in self.cluster.nodes if n not in but]

    def some(self, count: int, *but: int) -> List[int]:
        return sorted(self.rng.sample(self.others(*but), count))

    def kill(self, *victims: int) -> None:
        self.told = f"nodes {victims}"
        for n in victims:
            self.cluster.node(n).process.kill()
        for n in victims:
            self.cluster.node(n).process.wait(30)
        self.wait()
        for n in victims:
            self.cluster.node(n).spawn()

    def pause(self, *victims: int) -> None:
        self.told = f"nodes {victims}"
        for n in victims:
            self.cluster.node(n).pause()
        # Longer than a session: while it sleeps, others take over.
        self.wait(2.0)
        for n in victims:
            self.cluster.node(n).resume()

    def cut(self, links: "set[tuple[int, int]]") -> None:
        self.told = f"{len(links)} links: {' '.join(f'{a}>{b}' for a, b in sorted(links))}"
        for a, b in sorted(links):
            self.cluster.cut(a, b)
        self.wait(2.0)
        self.cluster.mend_all()


def between(left: List[int], right: List[int]) -> "set[tuple[int, int]]":
    return {(a, b) for x in left for y in right for a, b in ((x, y), (y, x))}


def rolling(scene: Scene) -> None:
    for n in scene.cluster.nodes:
        scene.cluster.node(n).stop()
        scene.cluster.node(n).start()
        scene.cluster.wait_healthy()
    scene.told = "each in turn"


def isolate(scene: Scene, victim: int) -> None:
    scene.cut(between([victim], scene.others(victim)))


def one_way(scene: Scene, out: bool) -> None:
    victim = scene.leader()
    scene.cut({(victim, n) if out else (n, victim) for n in scene.others(victim)})


def majority(scene: Scene) -> None:
    minority = scene.some((len(scene.cluster.nodes) - 1) // 2)
    scene.cut(between(minority, scene.others(*minority)))


def bridge(scene: Scene) -> None:
    """Two halves that cannot see each other, and one node that both see."""
    middle = scene.rng.choice(scene.others())
    rest = scene.others(middle)
    half = len(rest) // 2
    scene.cut(between(rest[:half], rest[half:]))


def slow(scene: Scene) -> None:
    victim, kilobits = scene.rng.choice(scene.others()), scene.rng.choice([64, 256, 1024])
    scene.told = f"node {victim} sends {kilobits} kbit/s"
    scene.cluster.slow(victim, kilobits)
    scene.wait(3.0)
    scene.cluster.fast(victim)


def flapping(scene: Scene) -> None:
    victim = scene.leader()
    scene.told = f"node {victim}"
    for _ in range(scene.rng.randrange(4, 9)):
        for n in scene.others(victim):
            scene.cluster.cut(victim, n)
            scene.cluster.cut(n, victim)
        scene.stopping.wait(scene.rng.uniform(0.1, 1.0))
        scene.cluster.mend_all()
        scene.stopping.wait(scene.rng.uniform(0.1, 1.0))


def disk_full(scene: Scene) -> None:
    node = scene.cluster.node(scene.small_disk)
    scene.told = f"node {scene.small_disk}"
    filler = os.path.join(node.data, "filler")
    try:
        with open(filler, "wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 20))
    except OSError:
        with open(filler, "ab", buffering=0) as file:  # the last pages too
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
    scene.wait(4.0)
    os.remove(filler)
    if not node.alive:
        scene.told += f", which ended with status {node.process.returncode}"


def fault(name: str, run: Callable[[Scene], None], links: bool = False, disk: bool = False) -> Fault:
    return Fault(name, links, disk, run)


ALL: Dict[str, Fault] = {one.name: one for one in (
    fault("kill-leader", lambda s: s.kill(s.leader())),
    fault("kill-controller", lambda s: s.kill(s.cluster.controller())),
    fault("kill-follower", lambda s: s.kill(*s.some(1, s.leader()))),
    fault("kill-two", lambda s: s.kill(*s.some(2))),
    fault("kill-all", lambda s: s.kill(*s.others())),
    fault("pause-leader", lambda s: s.pause(s.leader())),
    fault("pause-controller", lambda s: s.pause(s.cluster.controller())),
    fault("pause-two", lambda s: s.pause(*s.some(2))),
    fault("rolling-restart", rolling),
    fault("isolate-leader", lambda s: isolate(s, s.leader()), links=True),
    fault("isolate-controller", lambda s: isolate(s, s.cluster.controller()), links=True),
    fault("deaf-leader", lambda s: one_way(s, out=False), links=True),
    fault("mute-leader", lambda s: one_way(s, out=True), links=True),
    fault("minority", majority, links=True),
    fault("bridge", bridge, links=True),
    fault("slow", slow, links=True),
    fault("flapping", flapping, links=True),
    fault("disk-full", disk_full, links=True, disk=True),
)}

# One of each kind that needs nothing of the machine: what `make test` runs.
SHORT = ["kill-leader", "pause-leader", "kill-controller", "kill-two", "rolling-restart", "kill-all"]
