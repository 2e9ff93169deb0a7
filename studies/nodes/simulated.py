"""A cluster whose nodes are processes of this machine: each has a raylet, a lock folder and a quiet lock of its own.

The head runs no jobs. What the nodes share by accident is the machine: its cores, its disk and its name.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster


@dataclass(frozen=True)
class Simulated:
    """A running cluster; `nodes` are what `kill` and Ray's own tests take."""

    cluster: Cluster
    nodes: list[Any]
    folder: Path
    environment: Mapping[str, str]

    @property
    def address(self) -> str:
        """What `--ray-address` takes."""
        return str(self.cluster.address)

    def add(self, slots: int = 1, **variables: str) -> None:
        """Start a node that runs `slots` jobs at a time, with these variables of its own."""
        locks = (self.folder / f"locks-{len(self.nodes)}").absolute()
        own = {"AUTOCUT_LOCK_DIR": str(locks), **self.environment, **variables}
        self.nodes.append(self.cluster.add_node(num_cpus=slots, object_store_memory=80 * 2**20, env_vars=own))

    def kill(self, number: int) -> None:
        """End a node as a power cut does: all its processes at once."""
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)


@contextlib.contextmanager
def simulated_cluster(
    nodes: int, folder: Path, slots: int = 1, environment: Mapping[str, str] | None = None
) -> Iterator[Simulated]:
    """Start a head and `nodes` nodes with these variables; they end with the block. Lock folders are in `folder`."""
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    )
    try:
        simulated = Simulated(cluster, [], folder, environment or {})
        for _ in range(nodes):
            simulated.add(slots)
        yield simulated
    finally:
        cluster.shutdown()


@dataclass(frozen=True)
class Alone:
    """From when to when a worker was alone on its node."""

    begin: float
    end: float
    worker: int


def intervals(locks: Path) -> list[Alone]:
    """Return what the workers of one node have written down, in order."""
    file = locks / "alone.jsonl"
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return sorted((Alone(*json.loads(line)) for line in lines), key=lambda one: one.begin)


def overlaps(found: Sequence[Alone]) -> list[tuple[Alone, Alone]]:
    """Return the pairs of intervals of one node, in order of their begin, that overlap."""
    pairs, last = [], None
    for one in found:
        if last is not None and one.begin < last.end:
            pairs.append((last, one))
        last = one if last is None or one.end > last.end else last
    return pairs
