"""The nodes of a cluster: looks at each before anything runs there, and knows which of them has room for a job.

A study's times come from one kind of machine. The nodes of that kind run its jobs. Nodes of other kinds only train (`halves`).
Where the study compares trainings by their cost, or such a node lacks something, the search leaves it out and says why. A node that
joins later is looked at in the same way. A node that is lost takes its jobs with it, which are no recipe's fault.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from autocut.counting import format_count
from autocut.errors import Fault, FaultsError, InputError
from autocut.execution.node_host import NodeFindings, NodeHost, NodeNeeds, NodePlace
from autocut.execution.node_kinds import choose_kind, node_faults

_LOOK_EVERY_S = 1.0
_FIRST_LOOK_S = 300.0
_CLOCKS_S = 2.0
"""Clocks may differ by so much. Jobs stop at their deadline, and are killed two seconds later."""
_NODE_LABEL = "ray.io/node-id"
_NEXT = "the next job"
_CALL_S = 10.0
_START_S = 60.0
"""Ray's process for a job starts within 10 s, unless another program of the cluster has taken the node's processors meanwhile."""
_MARKER = ".seen-by-nodes-"


def node_selector(node: str) -> dict[str, str]:
    """Return the label by which Ray finds the node."""
    return {_NODE_LABEL: node}


@dataclass
class _Node:
    """A node of the cluster as the driver sees it. It has room for jobs once it has a `place`; some only train."""

    name: str
    slots: int
    host: Any
    looking: Any = None
    findings: NodeFindings | None = None
    place: NodePlace | None = None
    only_trains: bool = False
    alive: Any = None
    jobs: set[str] = field(default_factory=set)
    starting: dict[str, float] = field(default_factory=dict)

    @property
    def room(self) -> int:
        """How many more jobs it can run."""
        return self.slots - len(self.jobs) if self.place else 0


@dataclass(frozen=True)
class NodesWanted:
    """What a search wants of its nodes.

    `needs` is what each is looked at for, and `here` what the driver's machine has of it. `measure_on` is what `--measure-on`
    names, and `known_kind` the kind of the study's numbers so far; None: nothing. `compares_training` says that the study has the
    cost of a training among its objectives or limits: then all trainings run on one kind of machine, too.
    """

    needs: NodeNeeds
    here: NodeFindings
    measure_on: str | None = None
    known_kind: str | None = None
    compares_training: bool = False


class Nodes:
    """The nodes of the cluster that the driver has joined.

    `join` starts a host on each of them, `open` looks at them and chooses those that run jobs.

    Args:
        task: The file of the task as the nodes name it (`NodeHost`).
        threads: Processors that a job needs.
    """

    def __init__(self, task: str | None, threads: int) -> None:
        self.kind = ""
        self.training_kinds: set[str] = set()
        """Kinds of the nodes that only train."""
        self._task = task
        self._threads = threads
        self._wanted: NodesWanted | None = None
        self._nodes: dict[str, _Node] = {}
        self._left_out: set[str] = set()
        self._held = ""
        self._next_look = 0.0

    def open(self, wanted: NodesWanted) -> list[str]:
        """Look at every node, and at each that joins later. Return lines for the user.

        Raises:
            FaultsError: what each node lacks.
            InputError: no node has a processor for a job, or none is of the wanted kind.
        """
        import ray

        self._wanted = wanted
        shared = Path(wanted.needs.shared)
        for old in shared.glob(f"{_MARKER}*"):  # of a search that was killed
            old.unlink(missing_ok=True)
        self.join()
        if not self._nodes:
            message = f"a Ray cluster must have a node with {format_count(self._threads, 'processor')} for a job, got none"
            raise InputError(message, "start one with: ray start --address HOST:PORT --num-cpus N")
        looking = [node.looking for node in self._nodes.values()]
        ray.wait(looking, num_returns=len(looking), timeout=_FIRST_LOOK_S)
        faults = [fault for node in self._nodes.values() if (fault := _start_fault(node))]
        kinds = {key: node.findings.kind for key, node in self._nodes.items() if node.findings}
        if kinds:
            self.kind = choose_kind(kinds, wanted.measure_on, wanted.known_kind)
        faults += [fault for node in self._nodes.values() for fault in self._faults(node, wanted)]
        if faults:
            raise FaultsError("cluster", faults)
        others = [told for key in list(self._nodes) if (told := self._begin(key, wanted))]
        if not any(not node.only_trains for node in self._nodes.values()):
            raise InputError("a node that measures must have a processor for a job, but has none", "; ".join(others))
        measuring = [node.slots for node in self._nodes.values() if not node.only_trains]
        return [f"nodes: {len(measuring)} of {len(kinds)} run jobs, {sum(measuring)} at a time: {self.kind}", *others]

    def _mark(self, needs: NodeNeeds) -> None:
        """Write what nodes are looked at with. Another search that begins meanwhile takes it for a dead one's, and removes it."""
        Path(needs.shared, needs.marker).write_text(needs.word, encoding="utf-8")

    def close(self) -> None:
        """Remove what nodes were looked at with. Ray ends the hosts."""
        if self._wanted is not None:
            Path(self._wanted.needs.shared, self._wanted.needs.marker).unlink(missing_ok=True)

    @property
    def slots(self) -> int:
        """How many jobs all nodes together run at a time."""
        return sum(node.slots for node in self._nodes.values() if node.place)

    @property
    def has_room(self) -> bool:
        """Whether a node that measures has room for a job."""
        return any(node.room > 0 and not node.only_trains for node in self._nodes.values())

    @property
    def has_room_to_train(self) -> bool:
        """Whether a node that only trains has room for a training."""
        return any(node.room > 0 and node.only_trains for node in self._nodes.values())

    @property
    def is_held(self) -> bool:
        """Whether a node is held for the next job."""
        return self._held in self._nodes

    def hold(self) -> bool:
        """Hold a node for the next job, the one with the most room, so that jobs spread; False while a job times on each of them.

        It is a node that measures. Nothing is timed there before `let_go`, or before the `release` of the job that takes the node.
        """
        self.let_go()
        free = {key: node for key, node in self._nodes.items() if node.room > 0 and not node.only_trains}
        for key in sorted(free, key=lambda key: -free[key].room):
            if _call(free[key].host.hold, _NEXT):
                self._held = key
                return True
        return False

    def let_go(self) -> None:
        """Let others time on the node that is held."""
        if node := self._nodes.get(self._held):
            _call(node.host.release, _NEXT)
        self._held = ""

    def take(self, job: str) -> NodePlace:
        """Return the place of the node that is held: it is for `job` now."""
        node, self._held = self._nodes[self._held], ""
        if node.place is None:
            raise RuntimeError("a node without a place cannot take a job")
        node.jobs.add(job)
        node.starting[job] = time.monotonic()
        _call(node.host.hand_over, _NEXT, job)
        return node.place

    def take_to_train(self, job: str) -> NodePlace:
        """Return the place of the node that only trains and has the most room: it is for `job` now. Nothing is ever timed there."""
        node = max((node for node in self._nodes.values() if node.only_trains), key=lambda node: node.room)
        if node.place is None:
            raise RuntimeError("a node without a place cannot take a job")
        node.jobs.add(job)
        return node.place

    def release(self, job: str) -> None:
        """Let others time on the node of `job`: its process is up, or gone. A second call does nothing."""
        for node in self._nodes.values():
            if node.starting.pop(job, None) is not None:
                _call(node.host.release, job)

    def give_back(self, job: str) -> None:
        """Forget `job`: it has ended."""
        for node in self._nodes.values():
            node.jobs.discard(job)

    def look_after(self) -> tuple[list[str], list[str]]:
        """Look whether nodes have joined or are lost. Return lines for the user, and the jobs that are lost with a node."""
        if time.monotonic() < self._next_look:
            return [], []
        self._next_look = time.monotonic() + _LOOK_EVERY_S
        told, lost = list[str](), list[str]()
        alive = self.join()
        for key, node in list(self._nodes.items()):
            if key not in alive or (node.place is not None and not _answers(node)):
                del self._nodes[key]
                lost += sorted(node.jobs)
                jobs = f" with {format_count(len(node.jobs), 'job')}, to run elsewhere" if node.jobs else ""
                told += [f"node {node.name} is lost{jobs}"] if node.place else []  # else it never ran a job
            elif node.place is None and self._wanted is not None and _is_done(node.looking):
                told += self._begin_or_leave_out(key, self._wanted)
            else:
                told += self._late(node)
        return told, lost

    def _late(self, node: _Node) -> Iterator[str]:
        """Let others time on a node where a job does not start, because it waits for what may wait for the node's quiet."""
        for job, since in list(node.starting.items()):
            if time.monotonic() - since > _START_S:
                self.release(job)
                yield f"{job} waits for a processor of node {node.name}: another program of the cluster has taken it"

    def join(self) -> set[str]:
        """Start a host on every node that is new, and return the nodes that are alive."""
        import ray

        alive = {node["NodeID"]: node for node in _all_nodes(ray) if node["Alive"]}
        for key, node in alive.items():
            slots = int(node["Resources"].get("CPU", 0)) // self._threads
            if key not in self._nodes and key not in self._left_out and slots:
                self._nodes[key] = _Node(node["NodeManagerHostname"], slots, _host(ray, key, self._task, self._threads))
        for one in self._nodes.values():
            if one.looking is None and self._wanted is not None:
                self._mark(self._wanted.needs)
                one.looking = one.host.look.remote(self._wanted.needs)
        names = Counter(node.name for node in self._nodes.values())
        for key, one in self._nodes.items():
            if names[one.name] > 1:  # several nodes on one machine
                one.name = f"{one.name} {key[:6]}"
        return set(alive)

    def _faults(self, node: _Node, wanted: NodesWanted) -> Iterator[Fault]:
        """Yield what the node lacks. One of another kind runs no jobs, whatever it has."""
        if node.findings is not None and node.findings.kind == self.kind:
            yield from node_faults(node.name, node.findings, wanted.here, wanted.needs.shared)
            yield from _clock_faults(node)

    def _begin_or_leave_out(self, key: str, wanted: NodesWanted) -> list[str]:
        """Use a node that has joined later, if it lacks nothing. Return lines for the user."""
        node = self._nodes[key]
        failed = _start_fault(node)
        faults = list(self._faults(node, wanted)) if failed is None else [failed]
        if faults:
            self._leave_out(key)
            return [f"left out: {fault.message}" for fault in faults]
        return [self._begin(key, wanted) or f"node {node.name} runs jobs"]

    def _begin(self, key: str, wanted: NodesWanted) -> str | None:
        """Use the node. If it is of another kind than the one that measures, say what it is used for, or why it is not."""
        import ray

        node = self._nodes[key]
        node.slots = min(node.slots, _free_processors(key, node.slots * self._threads) // self._threads)
        if not node.slots:
            self._leave_out(key)
            return f"left out: node {node.name} has no free processor: another search has them all, which needs fewer --workers"
        kind = self.kind if node.findings is None else node.findings.kind
        if kind != self.kind:
            if why := _why_it_cannot_train(node, wanted):
                self._leave_out(key)
                return f"left out: node {node.name} is of another kind than {self.kind}, {kind}: {why}"
            node.only_trains = True
            self.training_kinds.add(kind)
        node.place = ray.get(node.host.place.remote())
        return f"node {node.name} only trains, {node.slots} at a time: {kind}" if node.only_trains else None

    def _leave_out(self, key: str) -> None:
        import ray

        ray.kill(self._nodes.pop(key).host)
        self._left_out.add(key)


def node_needs(data_hash: str, shared: Path) -> NodeNeeds:
    """Return what nodes are looked at for, with a marker of its own in the shared folder."""
    return NodeNeeds(data_hash, str(shared), f"{_MARKER}{uuid4().hex}", uuid4().hex)


def _host(ray: Any, node: str, *arguments: Any) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    where = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(NodeHost).options(num_cpus=0, scheduling_strategy=where, max_concurrency=2).remote(node, *arguments)


def _all_nodes(ray: Any) -> list[dict[str, Any]]:
    return list(ray.nodes())


def _free_processors(node: str, all_of_them: int) -> int:
    """Return how many of the node's processors no program of the cluster has reserved. Ray has no public function for it (2.60)."""
    from ray._private.state import available_resources_per_node

    known = available_resources_per_node().get(node)  # type: ignore[no-untyped-call]
    return all_of_them if known is None else int(known.get("CPU", 0))


def _start_fault(node: _Node) -> Fault | None:
    """Take what the node's host has found. Return the fault that it has found nothing."""
    import ray

    try:
        node.findings = ray.get(node.looking, timeout=0)
    except Exception as error:
        # The node's Python may raise anything before it gets to our code, and Ray wraps it.
        return Fault(f"node {node.name} must start a worker, but cannot: {_cause(error)}", "is the same autocut installed there?")
    return None


def _why_it_cannot_train(node: _Node, wanted: NodesWanted) -> str:
    """Say why a node of another kind runs no trainings; empty if it may. A training needs no compiler."""
    if node.findings is None:
        return "nothing is known of it"
    if wanted.compares_training:
        return "the search compares what trainings cost, so they run on one kind of node"
    found = replace(node.findings, compiler="")
    faults = [*node_faults(node.name, found, wanted.here, wanted.needs.shared), *_clock_faults(node)]
    return faults[0].message if faults else ""


def _clock_faults(node: _Node) -> Iterator[Fault]:
    """Yield the fault that the node's time of day is another one; how long the question takes is no difference."""
    import ray

    asked = time.time()
    there = ray.get(node.host.now.remote())
    ahead_s = there - min(max(there, asked), time.time())
    if abs(ahead_s) > _CLOCKS_S:
        message = f"node {node.name} must have the time of this machine, by which jobs end, but is {abs(ahead_s):.0f} s"
        yield Fault(f"{message} {'ahead' if ahead_s > 0 else 'behind'}", "does each machine synchronize its clock?")


def _is_done(looking: Any) -> bool:
    import ray

    return bool(ray.wait([looking], timeout=0)[0])


def _answers(node: _Node) -> bool:
    """Whether the host is alive, as far as is known: a question is always on its way."""
    import ray

    if node.alive is None:
        node.alive = node.host.place.remote()
    if not _is_done(node.alive):
        return True
    with contextlib.suppress(ray.exceptions.RayError):
        ray.get(node.alive)
        node.alive = None
        return True
    return False


def _call(method: Any, *arguments: Any) -> Any:
    """Return the answer of a host; None if it is gone, which `look_after` will find, or gives none."""
    import ray

    with contextlib.suppress(ray.exceptions.RayError):
        return ray.get(method.remote(*arguments), timeout=_CALL_S)
    return None


def _cause(error: Exception) -> str:
    """Return the last line of what Ray tells, which names the error itself."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
