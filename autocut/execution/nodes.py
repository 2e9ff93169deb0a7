"""The nodes of a cluster: looks at each before anything runs there, and knows which of them has room for a job.

A study's numbers come from one kind of machine. The nodes of that kind run its jobs. The search leaves the others out and says so.
A node that joins later is looked at in the same way. A node that is lost takes its jobs with it, which are no recipe's fault.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from autocut.errors import Fault, FaultsError, InputError
from autocut.execution.node_host import NodeFindings, NodeHost, NodeNeeds, NodePlace

_LOOK_EVERY_S = 1.0
_FIRST_LOOK_S = 300.0
_CLOCKS_S = 2.0
"""Clocks may differ by so much. Jobs stop at their deadline, and are killed two seconds later."""
_NODE_LABEL = "ray.io/node-id"
_NEXT = "the next job"
_CALL_S = 10.0
_MARKER = ".seen-by-nodes-"


def node_selector(node: str) -> dict[str, str]:
    """Return the label by which Ray finds the node."""
    return {_NODE_LABEL: node}


def choose_kind(kinds: Mapping[str, str], wanted: str | None, known: str | None) -> str:
    """Return the kind of machine that measures.

    Args:
        kinds: By node, its kind (`machine_fingerprint`).
        wanted: What the user has typed: a part of the kind's name. None: the most common one.
        known: The kind of the study's numbers so far. None: it has none.

    Raises:
        InputError: no kind, or more than one, has that name, or the study is of another kind.
    """
    counts = Counter(kinds.values())
    listed = "; ".join(f"{kind} ({count} of {len(kinds)} nodes)" for kind, count in sorted(counts.items()))
    if wanted is not None:
        found = sorted(kind for kind in counts if wanted.lower() in kind.lower())
        if len(found) != 1:
            message = f"--measure-on must name one kind of node, got {wanted!r}, which is a part of {len(found)} names"
            raise InputError(message, f"there are: {listed}")
        if known is not None and found[0] != known:
            message = f"the numbers of this study come from {known}, got --measure-on {wanted!r}"
            raise InputError(message, "begin another study: --out FOLDER")
        return found[0]
    if known is not None:
        if known not in counts:
            raise InputError(f"the numbers of this study come from {known}, and no node is of this kind", f"there are: {listed}")
        return known
    return min(counts, key=lambda kind: (-counts[kind], kind))


def node_faults(name: str, found: NodeFindings, here: NodeFindings, shared: str) -> Iterator[Fault]:
    """Yield what keeps a node from running jobs, compared with the driver's own machine."""
    if found.shared:
        yield Fault(
            f"node {name} must see the folder {shared}, but {found.shared}", "name a folder that all nodes share: --stages FOLDER"
        )
    if found.task_error:
        yield Fault(
            f"node {name} must be able to load the task, but cannot: {found.task_error}",
            "the task's folder travels there, but for what .gitignore names; other data must be at the same path on every node",
        )
    elif found.fingerprint != here.fingerprint:
        yield Fault(
            f"node {name} must find the same task as this machine, but its model or data differ there",
            "does the model come from a seed, and do the data lie at the same path on every node?",
        )
    different = [
        f"{library} {found.libraries.get(library, 'missing')} (here {here.libraries.get(library, 'missing')})"
        for library in sorted({*found.libraries, *here.libraries})
        if found.libraries.get(library) != here.libraries.get(library)
    ]
    if different:
        yield Fault(f"node {name} must have the libraries of this machine, got {', '.join(different)}", "install the same versions")
    if found.compiler and not here.compiler:
        yield Fault(f"node {name} must compile as this machine does: {found.compiler}")


@dataclass
class _Node:
    """A node of the cluster as the driver sees it. It has room for jobs once it has a `place`."""

    name: str
    slots: int
    host: Any
    looking: Any = None
    findings: NodeFindings | None = None
    place: NodePlace | None = None
    alive: Any = None
    jobs: set[str] = field(default_factory=set)
    starting: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class NodesWanted:
    """What a search wants of its nodes.

    `needs` is what each is looked at for, and `here` what the driver's machine has of it. `measure_on` is what `--measure-on`
    names, and `known_kind` the kind of the study's numbers so far; None: nothing.
    """

    needs: NodeNeeds
    here: NodeFindings
    measure_on: str | None = None
    known_kind: str | None = None


class Nodes:
    """The nodes of the cluster that the driver has joined.

    `join` starts a host on each of them, `open` looks at them and chooses those that run jobs.

    Args:
        task: The file of the task as the nodes name it (`NodeHost`).
        threads: Processors that a job needs.
    """

    def __init__(self, task: str | None, threads: int) -> None:
        self.kind = ""
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
        (shared / wanted.needs.marker).write_text(wanted.needs.word, encoding="utf-8")
        self.join()
        if not self._nodes:
            message = f"a Ray cluster must have a node with {self._threads} processors for a job, got none"
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
        left_out = [told for key in list(self._nodes) if (told := self._begin(key))]
        return [f"nodes: {len(self._nodes)} of {len(kinds)} run jobs, {self.slots} at a time: {self.kind}", *left_out]

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
        """Whether a node has room for a job."""
        return any(node.place and len(node.jobs) < node.slots for node in self._nodes.values())

    def hold(self) -> bool:
        """Hold a node for the next job, the one with the most room, so that jobs spread; False while a job times on each of them.

        Nothing is timed there before `let_go`, or before the `release` of the job that takes the node.
        """
        self.let_go()
        free = {key: node for key, node in self._nodes.items() if node.place and len(node.jobs) < node.slots}
        for key in sorted(free, key=lambda key: len(free[key].jobs) - free[key].slots):
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
        node.starting.add(job)
        _call(node.host.hand_over, _NEXT, job)
        return node.place

    def release(self, job: str) -> None:
        """Let others time on the node of `job`: its process is up, or gone. A second call does nothing."""
        for node in self._nodes.values():
            if job in node.starting:
                node.starting.discard(job)
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
                jobs = f" with {len(node.jobs)} jobs, which run elsewhere" if node.jobs else ""
                told += [f"node {node.name} is lost{jobs}"] if node.place else []  # else it never ran a job
            elif node.place is None and self._wanted is not None and _is_done(node.looking):
                told += self._begin_or_leave_out(key, self._wanted)
        return told, lost

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
        return [self._begin(key) or f"node {node.name} runs jobs"]

    def _begin(self, key: str) -> str | None:
        """Use the node, if it is of the kind that measures; else say why not."""
        import ray

        node = self._nodes[key]
        if node.findings is not None and node.findings.kind != self.kind:
            self._leave_out(key)
            return f"left out: node {node.name} is of another kind, {node.findings.kind}; numbers of a study come from {self.kind}"
        node.place = ray.get(node.host.place.remote())
        return None

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


def _start_fault(node: _Node) -> Fault | None:
    """Take what the node's host has found. Return the fault that it has found nothing."""
    import ray

    try:
        node.findings = ray.get(node.looking, timeout=0)
    except Exception as error:
        # The node's Python may raise anything before it gets to our code, and Ray wraps it.
        return Fault(f"node {node.name} must start a worker, but cannot: {_cause(error)}", "is the same autocut installed there?")
    return None


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
